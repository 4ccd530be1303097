package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// buffer is a writer that several goroutines may use.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// house is a daemon that runs, with an origin that sends back what it gets.
type house struct {
	*daemon
	policyFile string
	origin     string // its port
	signals    chan os.Signal
	flowLog    buffer
	talkLog    buffer
	ended      chan error
}

const echoPolicy = "version: 1\nrules: [{name: echo, hosts: [echo.test], ports: ['1-65535'], protocol: tcp, resolves_to: [127.0.0.0/8]}]\n"

func startHouse(t *testing.T) *house {
	t.Helper()
	return startHouseWith(t, "timeouts: {drain: 1h}")
}

// startHouseWith starts a house with further keys of the configuration.
func startHouseWith(t *testing.T, keys string) *house {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // runs last: cleanups are a stack
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var echoing sync.WaitGroup
	echoing.Go(func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			echoing.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	h := &house{policyFile: filepath.Join(t.TempDir(), "p.yaml"), signals: make(chan os.Signal, 4), ended: make(chan error, 1)}
	_, h.origin, _ = net.SplitHostPort(echo.Addr().String())
	h.setPolicy(t, echoPolicy)
	l, talk := load(t, `
listeners: [{address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
resolver: {servers: ["127.0.0.1:1"], hosts: [{name: echo.test, addresses: [127.0.0.1]}]}
reload: {every: 0s}
`+keys, nil, "--policy", h.policyFile)
	if talk != "" {
		t.Fatal(talk)
	}
	p, err := l.firstPolicy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h.daemon, err = build(t.Context(), l, p, &h.flowLog, &h.talkLog); err != nil {
		t.Fatal(err)
	}
	go func() { h.ended <- h.run(context.WithoutCancel(t.Context()), h.signals) }()
	t.Cleanup(func() {
		echo.Close()
		echoing.Wait()
	})
	return h
}

func (h *house) setPolicy(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(h.policyFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tunnel opens a tunnel to the echoing origin and uses it once.
func (h *house) tunnel(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", h.proxy.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(c, "CONNECT echo.test:%s HTTP/1.1\r\nHost: echo.test:%s\r\n\r\n", h.origin, h.origin)
	r := bufio.NewReaderSize(c, 16)
	head, err := http.ReadResponse(r, nil)
	if err != nil || head.StatusCode != http.StatusOK {
		t.Fatalf("CONNECT: %v, %v", head, err)
	}
	ping(t, c)
	return c
}

func ping(t *testing.T, c net.Conn) {
	t.Helper()
	got := make([]byte, 4)
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Fatalf("echo: %q, %v", got, err)
	}
}

// awaitReady polls /readyz until it answers with the status.
func (h *house) awaitReady(t *testing.T, status int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		answer, err := get(t.Context(), "", "http://"+h.admin.Addr().String()+"/readyz")
		if err == nil && strings.HasPrefix(answer, strconv.Itoa(status)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz: %s, %v", answer, err)
		}
	}
}

func (h *house) end(t *testing.T) {
	t.Helper()
	select {
	case err := <-h.ended:
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the daemon did not end")
	}
}

func TestDrain(t *testing.T) {
	h := startHouse(t)
	h.awaitReady(t, http.StatusOK)
	c := h.tunnel(t)
	h.signals <- syscall.SIGTERM
	h.awaitReady(t, http.StatusServiceUnavailable)
	if _, err := askReady(t.Context(), h.admin.Addr().String()); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("sallyport ready says %v", err)
	}
	if late, err := net.Dial("tcp", h.proxy.Addrs()[0].String()); err == nil {
		late.Close()
		t.Error("a connection was accepted while draining")
	}
	ping(t, c) // what is under way goes on
	c.Close()
	h.end(t)
	if log := h.flowLog.String(); strings.Count(log, `"flow.open"`) != 1 || strings.Count(log, `"flow.close"`) != 1 {
		t.Errorf("records:\n%s", log)
	}
}

func TestSecondSignalCuts(t *testing.T) {
	h := startHouse(t)
	c := h.tunnel(t)
	h.signals <- syscall.SIGTERM
	h.awaitReady(t, http.StatusServiceUnavailable)
	h.signals <- os.Interrupt
	h.end(t) // the drain would last an hour
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("the tunnel still carries %d bytes", n)
	}
	if log := h.flowLog.String(); strings.Count(log, `"flow.close"`) != 1 {
		t.Errorf("the cut tunnel has no record:\n%s", log)
	}
}

func TestTightenedPolicyCutsTunnels(t *testing.T) {
	h := startHouse(t)
	c := h.tunnel(t)
	h.setPolicy(t, strings.Replace(echoPolicy, "echo.test", "other.test", 1))
	h.signals <- syscall.SIGHUP
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("the tunnel still carries %d bytes", n)
	}
	h.signals <- syscall.SIGTERM
	h.end(t)
}

// A signal that comes when serve has ended does not kill it on its way out, but
// what never gets out can be killed.
func TestLateSignal(t *testing.T) {
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, syscall.SIGHUP)
	t.Cleanup(func() { signal.Reset(syscall.SIGHUP, syscall.SIGTERM, syscall.SIGPIPE, os.Interrupt) })
	// caught reports whether what serve left behind takes a signal.
	caught := func(signals <-chan os.Signal) bool {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		<-arrived
		signal.Notify(arrived, syscall.SIGHUP) // returns when all others have been told, too
		return len(signals) > 0
	}
	signals, release := notify(time.Hour)
	release()
	if !caught(signals) {
		t.Error("a late signal kills the process")
	}
	signals, release = notify(0)
	release()
	for caught(signals) {
		<-signals
	}
}

// TestBuildLeavesNothingBehind: a step that fails gives back what the steps
// before it opened.
func TestBuildLeavesNothingBehind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := free.Addr().String()
	free.Close()
	l, talk := load(t, "resolver: {servers: ['127.0.0.1:1']}", []string{"SALLYPORT_POLICY=" + echoPolicy}, "--listen", taken.Addr().String(), "--admin", admin)
	if talk != "" {
		t.Fatal(talk)
	}
	p, err := l.firstPolicy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = build(t.Context(), l, p, io.Discard, io.Discard)
	var out bytes.Buffer
	if code := report(&out, err); code != exitNo || !strings.Contains(out.String(), "listeners (flag --listen)") || !strings.Contains(out.String(), "hint: another program") {
		t.Errorf("code %d: %s", code, &out)
	}
	again, err := net.Listen("tcp", admin)
	if err != nil {
		t.Fatalf("the admin socket was left open: %v", err)
	}
	again.Close()
}

func TestStagesEndInOrder(t *testing.T) {
	var mu sync.Mutex // guards order
	var order []string
	named := func(name string) task {
		return task{name, func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
			return nil
		}}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := inStages(ctx, []task{named("proxy")}, []task{named("log"), named("log")}, []task{named("talk")}); err != nil {
		t.Error(err)
	}
	if want := []string{"proxy", "log", "log", "talk"}; !slices.Equal(order, want) {
		t.Errorf("ended in order %q, want %q", order, want)
	}
	order = nil
	failing := task{"admin", func(context.Context) error { return errors.New("gone") }}
	err := inStages(t.Context(), []task{named("proxy")}, []task{failing, named("log")}, []task{named("talk")})
	if err == nil || err.Error() != "admin: gone" {
		t.Errorf("err = %v", err)
	}
	if want := []string{"proxy", "log", "talk"}; !slices.Equal(order, want) {
		t.Errorf("ended in order %q, want %q", order, want)
	}
}
