package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// script is what one end of a tunnel does, and what has come of it.
type script struct {
	id    uint32
	from  byte // which end it is
	size  int  // it says so much,
	burst int  // in writes of up to this,
	slow  bool // with pauses, and reads with pauses
	how   int  // and ends like this:
	got   int  // so much has arrived
	ended bool // in good order
}

const (
	endsInOrder = iota // half-closes, and waits for the other
	endsAtOnce         // closes: whatever comes now is answered by a reset
	endsByReset
	endings
)

// text is what the end from of tunnel id says at offset.
func text(id uint32, from byte, offset int) byte {
	x := uint32(offset)*2654435761 + id*40503 + uint32(from)*977
	return byte(x>>24) ^ byte(offset)
}

// play speaks and listens on c. It returns an error when something arrives that
// the other end has not said, in this place.
func (s *script) play(c *net.TCPConn, other byte) error {
	r := rand.New(rand.NewPCG(uint64(s.id), uint64(s.from)))
	var speaking sync.WaitGroup
	speaking.Go(func() {
		block := make([]byte, s.burst)
		for said := 0; said < s.size; {
			p := block[:min(1+r.IntN(s.burst), s.size-said)]
			for i := range p {
				p[i] = text(s.id, s.from, said+i)
			}
			if _, err := c.Write(p); err != nil {
				return
			}
			said += len(p)
			if s.slow && said%7 == 0 {
				pause(time.Duration(said%3) * time.Millisecond)
			}
		}
		switch s.how {
		case endsInOrder:
			c.CloseWrite()
		case endsAtOnce:
			c.Close()
		case endsByReset:
			reset(c)
		}
	})
	defer speaking.Wait()
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		for i, b := range buf[:n] {
			if want := text(s.id, other, s.got+i); b != want {
				return fmt.Errorf("tunnel %d: end %d got %#x at %d, want %#x", s.id, s.from, b, s.got+i, want)
			}
		}
		s.got += n
		if err != nil {
			s.ended = errors.Is(err, io.EOF)
			return nil
		}
		if s.slow && s.got%5 == 0 {
			pause(time.Millisecond)
		}
	}
}

func randomScript(r *rand.Rand, id uint32, from byte) *script {
	sizes := []int{0, 1, 500, 20_000, 70_000, 300_000, 1_500_000}
	s := &script{id: id, from: from, size: sizes[r.IntN(len(sizes))], burst: 1 << (4 + r.IntN(14)), slow: r.IntN(3) == 0}
	if s.burst < s.size/2000 {
		s.burst = s.size / 2000
	}
	if r.IntN(3) == 0 {
		s.how = r.IntN(endings)
	}
	return s
}

// TestTunnelsAtRandom carries what random ends say, while they are laid to
// rest, cut and reset at random, and compares what arrives and what is recorded.
func TestTunnelsAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var known sync.Map // of the origins' scripts, by id
	faults := make(chan error, 100)
	report := func(err error) {
		if err != nil {
			select {
			case faults <- err:
			default:
			}
		}
	}
	port := tcpOrigin(t, func(c *net.TCPConn) {
		var id [4]byte
		if _, err := io.ReadFull(c, id[:]); err != nil {
			return // cut before that
		}
		s, ok := known.Load(binary.BigEndian.Uint32(id[:]))
		if !ok {
			report(fmt.Errorf("an origin was asked for tunnel %x", id))
			return
		}
		o := s.(*originScript)
		if o.small {
			c.SetReadBuffer(2048)
			c.SetWriteBuffer(2048)
		}
		report(o.play(c, 'c'))
		close(o.over)
	})
	r := tcpRig(t, port)
	if err := playTunnel(r, port, rand.New(rand.NewPCG(1, 1)), 0, &known); err != nil { // all that stays is there now
		t.Fatal(err)
	}
	waitFor(t, func() bool { return r.Active() == 0 })
	fds, routines := openDescriptors(t), runtime.NumGoroutine()
	stop := make(chan struct{})
	var chaos, workers sync.WaitGroup
	chaos.Go(func() {
		dice := rand.New(rand.NewPCG(seed, 0))
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, f := range r.live2().list() {
				tu := f.tunnel.Load()
				switch {
				case tu == nil:
				case dice.IntN(3000) == 0:
					f.cut(flow.EndedByPolicy)
				case dice.IntN(3) == 0:
					tu.rest()
				default:
					tu.quiet(time.Hour)
				}
			}
			pause(time.Millisecond)
		}
	})
	const atOnce, each = 12, 25
	for w := range atOnce {
		workers.Go(func() {
			dice := rand.New(rand.NewPCG(seed, uint64(w+1)))
			for i := range each {
				report(playTunnel(r, port, dice, uint32(w*each+i+1), &known))
			}
		})
	}
	workers.Wait()
	close(stop)
	chaos.Wait()
	waitFor(t, func() bool { return r.Active() == 0 && len(r.live2().list()) == 0 })
	close(faults)
	for err := range faults {
		t.Error(err)
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() <= routines+2 })
	if got := openDescriptors(t); got > fds+40 { // pipes are kept for a while
		t.Errorf("%d descriptors are open, %d were", got, fds)
	}
}

// TestDrainAtRandom ends the server in the midst of all that.
func TestDrainAtRandom(t *testing.T) {
	for round := range 6 {
		var known sync.Map
		port := tcpOrigin(t, func(c *net.TCPConn) {
			var id [4]byte
			if _, err := io.ReadFull(c, id[:]); err != nil {
				return
			}
			if s, ok := known.Load(binary.BigEndian.Uint32(id[:])); ok {
				s.(*originScript).play(c, 'c')
				close(s.(*originScript).over)
			}
		})
		r := tcpRig(t, port, func(c *Config) { c.Timeouts.Drain = time.Duration(1+30*round) * time.Millisecond })
		var workers sync.WaitGroup
		stop := make(chan struct{})
		for w := range 8 {
			workers.Go(func() {
				dice := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				for i := uint32(0); ; i++ {
					select {
					case <-stop:
						return
					default:
						playTunnel(r, port, dice, uint32(w)<<16+i, &known) // what comes of it the records' invariant says
					}
				}
			})
		}
		waitFor(t, func() bool { return r.Counts().Accepted > 40 })
		r.stop()
		<-r.done
		close(stop)
		if n := len(r.live2().list()); n != 0 || r.Active() != 0 {
			t.Errorf("round %d: %d flights and %d connections are left", round, n, r.Active())
		}
		for _, l := range r.loops {
			if n := l.tunnels; n != 0 {
				t.Errorf("round %d: %d tunnels are left in the loop", round, n)
			}
		}
		workers.Wait()
	}
}

type originScript struct {
	*script

	small bool
	over  chan struct{}
}

// playTunnel is one random tunnel, from its client's end.
func playTunnel(r *rig, port int, dice *rand.Rand, id uint32, known *sync.Map) error {
	o := &originScript{script: randomScript(dice, id, 'o'), small: dice.IntN(3) == 0, over: make(chan struct{})}
	s := randomScript(dice, id, 'c')
	small := dice.IntN(3) == 0
	if small || o.small { // small windows wait for late acknowledgements
		s.size, o.size = min(s.size, 30_000), min(o.size, 30_000)
	}
	known.Store(id, o)
	begin := time.Now()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	c := nc.(*net.TCPConn)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if small {
		c.SetReadBuffer(2048)
		c.SetWriteBuffer(2048)
	}
	head := fmt.Sprintf("CONNECT origin.test:%d HTTP/1.1\r\n\r\n", port)
	c.Write(binary.BigEndian.AppendUint32([]byte(head), id))
	if err := skipHead(c); err != nil {
		return nil // cut already
	}
	if err := s.play(c, 'o'); err != nil {
		return err
	}
	c.Close()
	var rec flow.Record
	deadline := time.Now().Add(15 * time.Second)
	for !closedOf(r, c, begin, &rec) {
		if time.Now().After(deadline) {
			return fmt.Errorf("tunnel %d has not ended: client %+v, origin %+v", id, *s, *o.script)
		}
		pause(time.Millisecond)
	}
	if rec.EndedBy == flow.EndedByPolicy || s.how != endsInOrder || o.how != endsInOrder {
		return nil
	}
	select {
	case <-o.over:
	case <-time.After(15 * time.Second):
		return fmt.Errorf("tunnel %d: its origin goes on: client %+v, origin %+v", id, *s, *o.script)
	}
	if s.got != o.size || o.got != s.size || !s.ended || !o.ended {
		return fmt.Errorf("tunnel %d: client %+v, origin %+v, record %s by %q: %s", id, *s, *o.script, rec.Outcome, rec.EndedBy, rec.Error)
	}
	if rec.Outcome != flow.OutcomeOK || rec.BytesSent != int64(4+s.size) || rec.BytesReceived != int64(o.size) {
		return fmt.Errorf("tunnel %d is recorded as %s by %q with %d and %d bytes, want %d and %d: %s", id, rec.Outcome, rec.EndedBy, rec.BytesSent, rec.BytesReceived, 4+s.size, o.size, rec.Error)
	}
	return nil
}

func skipHead(c net.Conn) error {
	var b [1]byte
	for last := uint32(0); last != 0x0d0a0d0a; { // CR LF CR LF
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return err
		}
		last = last<<8 | uint32(b[0])
	}
	return nil
}

// closedOf finds the record of c's tunnel. An earlier one may have had its port.
func closedOf(r *rig, c *net.TCPConn, begin time.Time, rec *flow.Record) bool {
	remote := addrPortOf(c.LocalAddr())
	all, _ := r.events.list()
	for _, e := range all {
		if e.Kind == flow.Closed && e.Record.Client == remote && e.Record.Start.After(begin) {
			*rec = e.Record
			return true
		}
	}
	return false
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
