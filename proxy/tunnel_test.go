package proxy

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// tunnelTo opens a CONNECT tunnel of anything to an origin of the test's.
func tunnelTo(t *testing.T, r *rig, port int) *net.TCPConn {
	t.Helper()
	c := r.send(fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\nHost: origin.test\r\n\r\n", port))
	readHead(t, c)
	return c
}

// readHead reads a response head byte by byte, so that nothing behind it is lost.
func readHead(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var b [1]byte
		if _, err := c.Read(b[:]); err != nil {
			t.Fatalf("reading the answer: %v after %q", err, head)
		}
		head = append(head, b[0])
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func tcpRig(t *testing.T, port int, opts ...func(*Config)) *rig {
	t.Helper()
	r := newRig(t, allow("tcp", port, "origin.test"), opts...)
	r.resolver.set("origin.test", "127.0.0.1")
	return r
}

func TestTunnelHalfClose(t *testing.T) {
	t.Run("client ends first", func(t *testing.T) {
		port := tcpOrigin(t, func(c *net.TCPConn) {
			all, _ := io.ReadAll(c)
			fmt.Fprintf(c, "got %d", len(all))
		})
		r := tcpRig(t, port)
		c := tunnelTo(t, r, port)
		io.WriteString(c, "hello")
		c.CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "got 5" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		r.events.ended(t, "origin.test")
	})
	t.Run("origin ends first", func(t *testing.T) {
		late := make(chan string, 1)
		port := tcpOrigin(t, func(c *net.TCPConn) {
			io.WriteString(c, "bye")
			c.CloseWrite()
			all, _ := io.ReadAll(c)
			late <- string(all)
		})
		r := tcpRig(t, port)
		c := tunnelTo(t, r, port)
		if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		io.WriteString(c, "late")
		c.CloseWrite()
		if got := <-late; got != "late" {
			t.Errorf("the origin got %q", got)
		}
		if rec := r.events.ended(t, "origin.test"); rec.Outcome != flow.OutcomeOK || rec.BytesSent != 4 || rec.BytesReceived != 3 {
			t.Errorf("record %+v", rec)
		}
	})
}

func TestTunnelPassesResetsOn(t *testing.T) {
	t.Run("from the origin", func(t *testing.T) {
		port := tcpOrigin(t, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 5))
			c.SetLinger(0)
		})
		r := tcpRig(t, port)
		c := tunnelTo(t, r, port)
		io.WriteString(c, "hello")
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client read %v, want a reset", err)
		}
		rec := r.events.ended(t, "origin.test")
		if rec.EndedBy != flow.EndedByOrigin || rec.Outcome != flow.OutcomeConnectionTerminated {
			t.Errorf("record: outcome %s, ended by %q", rec.Outcome, rec.EndedBy)
		}
	})
	t.Run("from the client", func(t *testing.T) {
		read := make(chan error, 1)
		port := tcpOrigin(t, func(c *net.TCPConn) {
			io.WriteString(c, "ready")
			_, err := io.ReadAll(c)
			read <- err
		})
		r := tcpRig(t, port)
		c := tunnelTo(t, r, port)
		io.ReadFull(c, make([]byte, 5))
		c.SetLinger(0)
		c.Close()
		if err := <-read; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the origin read %v, want a reset", err)
		}
		rec := r.events.ended(t, "origin.test")
		if rec.EndedBy != flow.EndedByClient || rec.Outcome != flow.OutcomeConnectionTerminated {
			t.Errorf("record: outcome %s, ended by %q", rec.Outcome, rec.EndedBy)
		}
	})
}

// A side that has finished and closed for good resets what still comes. All
// was delivered, so nothing went wrong and nobody else is reset.
func TestTunnelEndsInOrder(t *testing.T) {
	t.Run("the origin first", func(t *testing.T) {
		port := tcpOrigin(t, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 5))
			io.WriteString(c, "bye")
		})
		r := tcpRig(t, port)
		c := tunnelTo(t, r, port)
		io.WriteString(c, "hello")
		if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
			t.Errorf("the client read %q, %v", b, err)
		}
		for { // the first of these makes the origin reset, a later one finds out
			if _, err := io.WriteString(c, "late"); err != nil {
				break
			}
		}
		rec := r.events.ended(t, "origin.test")
		if rec.Outcome != flow.OutcomeOK || rec.EndedBy != flow.EndedByOrigin || rec.Error != "" {
			t.Errorf("record: outcome %s, ended by %q, %s", rec.Outcome, rec.EndedBy, rec.Error)
		}
	})
	t.Run("the client first", func(t *testing.T) {
		written := make(chan error, 1)
		port := tcpOrigin(t, func(c *net.TCPConn) {
			io.ReadAll(c)
			for {
				if _, err := io.WriteString(c, "late"); err != nil {
					written <- err
					return
				}
			}
		})
		r := tcpRig(t, port)
		c := tunnelTo(t, r, port)
		io.WriteString(c, "hello")
		c.Close()
		<-written
		rec := r.events.ended(t, "origin.test")
		if rec.Outcome != flow.OutcomeOK || rec.EndedBy != flow.EndedByClient || rec.Error != "" {
			t.Errorf("record: outcome %s, ended by %q, %s", rec.Outcome, rec.EndedBy, rec.Error)
		}
	})
}

func TestTunnelIntegrity(t *testing.T) {
	const size = 32 << 20
	data := make([]byte, size)
	rand.Read(data)
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port)
	c := tunnelTo(t, r, port)
	go func() {
		c.Write(data)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	rec := r.events.ended(t, "origin.test")
	if rec.BytesSent != size || rec.BytesReceived != size {
		t.Errorf("counted %d and %d, want %d", rec.BytesSent, rec.BytesReceived, size)
	}
	if rec.ClientTCP.RTT == 0 || rec.OriginTCP.RTT == 0 {
		t.Errorf("no TCP_INFO: %+v %+v", rec.ClientTCP, rec.OriginTCP)
	}
}

func TestTunnelIdle(t *testing.T) {
	port := tcpOrigin(t, echo)
	r := tcpRig(t, port, func(c *Config) { c.Timeouts.Idle = 1500 * time.Millisecond })
	quiet := tunnelTo(t, r, port)
	busy := r.send(fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\n\r\n", port))
	readHead(t, busy)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if _, err := busy.Write([]byte("x")); err != nil {
					t.Errorf("the busy tunnel was cut: %v", err)
					return
				}
			}
		}
	})
	if n, err := quiet.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the quiet tunnel read %d, %v", n, err)
	}
	rec := r.events.ended(t, "origin.test")
	if rec.EndedBy != flow.EndedByIdle || rec.Outcome != flow.OutcomeConnectionReadTimeout {
		t.Errorf("record: outcome %s, ended by %q", rec.Outcome, rec.EndedBy)
	}
	close(stop)
	writer.Wait()
	if all, _ := r.events.list(); len(all) != 3 {
		t.Errorf("%d events, want two opened and one closed%s", len(all), r.events.text())
	}
}
