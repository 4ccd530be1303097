package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"time"
)

// kind is what the client does with its connections.
type kind string

const (
	kindTunnel kind = "tunnel" // open, hear from the origin, close
	kindEcho   kind = "echo"   // one message there and back, again and again
	kindDown   kind = "down"   // bulk from the origin
	kindUp     kind = "up"     // bulk to the origin
	kindIdle   kind = "idle"   // open and hold
	kindHTTP   kind = "http"   // requests on connections that are kept

	kindGet      kind = "get"      // requests in TLS, on connections that are kept
	kindDownload kind = "download" // large objects in TLS
	kindUpload   kind = "upload"
)

// task is what one client process is asked to do.
type task struct {
	Kind    kind
	Addr    netip.AddrPort // of the proxy, or of the origin itself
	Connect bool           // ask by CONNECT before the hello
	Header  string         // what comes before that
	Count   int            // connections at a time; for idle, in all
	Size    int            // bytes of an echo
	Warm    time.Duration  // before measuring
	For     time.Duration  // measured

	TLSPort, HTTPPort int    // of the origin
	Roots             string // a file: whom to trust in TLS
	Large             int    // bytes of an object that is put
}

// report is a line that a client writes: once when it begins to measure, once
// at the end, and for idle tunnels once more when they are closed.
type report struct {
	End     bool
	Seconds float64 // measured
	Units   float64 // tunnels, round trips, requests, or gigabytes (10^9)
	Errors  int
	Error   string  // the first
	P50     float64 // microseconds
	P99     float64
	Opened  int // idle tunnels
	Lost    int // of them, found closed at the end
}

// tooManyErrors is when a client gives up: the subject does not do this.
const tooManyErrors = 1000

// client is one loop with all of a load's connections.
type client struct {
	task    task
	loop    *loop
	to      syscall.Sockaddr
	request []byte // CONNECT's head, or a whole HTTP request
	hello   []byte
	buf     []byte
	job     job

	units    uint64
	latency  histogram
	errors   int
	firstErr error
}

// job is what a load does once a tunnel is open.
type job interface {
	opened(t *tunnel)                 // the origin has answered
	ready(t *tunnel, ev uint32) error // afterwards
	failed(t *tunnel)                 // it is closed, whatever its phase
}

// runClient does the task that config describes as JSON and reports on stdout.
func runClient(ctx context.Context, config string, stdin io.Reader, stdout io.Writer) error {
	var t task
	if err := json.Unmarshal([]byte(config), &t); err != nil {
		return err
	}
	say := json.NewEncoder(stdout)
	if t.Kind.inTLS() {
		return runSecure(ctx, t, say)
	}
	quietRuntime()
	c, err := newClient(t)
	if err != nil {
		return err
	}
	if t.Kind == kindIdle {
		return c.hold(stdin, say)
	}
	for range t.Count {
		c.start()
	}
	if _, err := c.work(t.Warm, 0); err != nil {
		return err
	}
	c.units, c.errors, c.firstErr = 0, 0, nil
	c.latency = histogram{}
	if err := say.Encode(report{}); err != nil {
		return err
	}
	spent, err := c.work(t.For, stragglers)
	if err != nil {
		return err
	}
	return say.Encode(c.report(spent))
}

func newClient(t task) (*client, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	c := &client{
		task: t, loop: l, to: sockaddr(t.Addr), buf: make([]byte, max(payload, t.Size)),
		request: fmt.Appendf(nil, "%[2]sCONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", hostPort(originName, t.TLSPort, 0), t.Header),
	}
	ask := askReply
	switch t.Kind {
	case kindTunnel:
		c.job = tunnelJob{c}
	case kindEcho:
		c.job, ask = echoJob{c}, askEcho
	case kindDown:
		c.job, ask = downJob{c}, askDown
	case kindUp:
		c.job, ask = upJob{c}, askUp
	case kindIdle:
		c.job = &idleJob{client: c}
	case kindHTTP: // has no tunnels, and so no job
		c.request = httpRequest(t.HTTPPort)
	default:
		return nil, fmt.Errorf("no kind of task %q", t.Kind)
	}
	c.hello, err = helloFor(originName, ask)
	return c, err
}

func (c *client) start() {
	if c.task.Kind == kindHTTP {
		(&requester{client: c}).open()
		return
	}
	(&tunnel{client: c}).open()
}

// stragglers is how long a client waits for a first unit of work where the time
// was too short for one: on a machine that has no time for it, that is no
// fault of the subject.
const stragglers = 10 * time.Second

// work lets the loop run for a while, and for up to extra more until anything
// is done, and returns how long that was.
func (c *client) work(length, extra time.Duration) (time.Duration, error) {
	began := time.Now()
	for {
		spent := time.Since(began)
		if spent >= length && (c.units > 0 || spent >= length+extra) || c.errors >= tooManyErrors {
			return spent, nil
		}
		if err := c.loop.poll(min(max(length-spent, 0)+time.Millisecond, 100*time.Millisecond)); err != nil {
			return spent, err
		}
	}
}

// count counts a unit of work that took so long.
func (c *client) count(took time.Duration) {
	c.units++
	c.latency.add(took)
}

// fault counts an error and reports whether to go on.
func (c *client) fault(err error) bool {
	if c.errors++; c.firstErr == nil {
		c.firstErr = err
	}
	return c.errors < tooManyErrors
}

func (c *client) report(spent time.Duration) report {
	r := report{
		End: true, Seconds: spent.Seconds(), Units: float64(c.units), Errors: c.errors,
		P50: micros(c.latency.quantile(0.5)), P99: micros(c.latency.quantile(0.99)),
	}
	if c.task.Kind == kindDown || c.task.Kind == kindUp {
		r.Units /= 1e9
	}
	if c.firstErr != nil {
		r.Error = c.firstErr.Error()
	}
	return r
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// hold opens idle tunnels, reports, and holds them until stdin ends.
func (c *client) hold(stdin io.Reader, say *json.Encoder) error {
	idle, ok := c.job.(*idleJob)
	if !ok {
		return errors.New("only idle tunnels are held")
	}
	if err := say.Encode(report{}); err != nil {
		return err
	}
	began := time.Now()
	for range min(idleAtOnce, c.task.Count) {
		idle.next()
	}
	for idle.open+c.errors < c.task.Count && c.errors < tooManyErrors && time.Since(began) < c.task.For {
		if err := c.loop.poll(100 * time.Millisecond); err != nil {
			return err
		}
	}
	r := c.report(time.Since(began))
	r.Opened = idle.open
	if err := say.Encode(r); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, stdin); err != nil {
		return err
	}
	for range 64 { // batches: whatever was closed meanwhile
		if err := c.loop.poll(0); err != nil {
			return err
		}
	}
	r.Lost = idle.lost
	return say.Encode(r)
}
