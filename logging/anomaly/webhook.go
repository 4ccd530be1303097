package anomaly

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// Hook says where findings are posted.
type Hook struct {
	URL string
	// Secret is what each message is signed with: any text, or "whsec_" and base64
	// as the specification of Standard Webhooks has it. It is required.
	Secret string
	// Refuse reports whether an address must not be posted to besides those that
	// nobody may: the proxy's own sockets. It may be nil.
	Refuse func(netip.AddrPort) bool
	// Outbox keeps what was delivered. With it a message that a proxy could not
	// deliver before its end is delivered by the next. nil: it is lost.
	Outbox Outbox
	// Log is told what cannot be delivered.
	Log zerolog.Logger
	// Queue is how many messages may wait; 0 is 256.
	Queue int
	// Clock is time.Now but in tests; nil is time.Now.
	Clock func() time.Time
	// Pause is how long the n-th failure is waited after; nil is [Backoff].
	Pause func(n int) time.Duration
}

// Webhook posts findings, each until it is taken or the tries are used up. Make
// it with [NewWebhook], then Run it.
//
// A message is a POST of JSON, by the specification of Standard Webhooks:
// webhook-id is the same for every try, and for every proxy that may post it,
// so that a receiver knows what it has; webhook-timestamp is when it was tried;
// webhook-signature is "v1," and the base64 of HMAC-SHA256 over
// "id.timestamp.body". A status of 200 to 299 takes it. Redirects are not
// followed, and no proxy is used, whatever the environment says.
type Webhook struct {
	hook   Hook
	key    []byte
	client *http.Client
	queue  chan message

	delivered, failed, dropped atomic.Uint64
}

// message is one finding under way.
type message struct {
	id   string
	body []byte
}

// tries is how often a message is tried: with [Backoff] for about two hours.
const tries = 12

// Backoff returns how long to wait after the n-th failure, 1 the first: a
// second, doubled each time up to a quarter of an hour, with half of it up to
// chance so that many do not come back at once.
func Backoff(n int) time.Duration {
	d := min(time.Second<<min(n-1, 20), 15*time.Minute)
	return d/2 + rand.N(d/2+1) //nolint:gosec // it keeps no secret
}

// NewWebhook checks the hook.
func NewWebhook(h Hook) (*Webhook, error) {
	if err := CheckHookURL(h.URL); err != nil {
		return nil, err
	}
	key := []byte(h.Secret)
	if rest, ok := strings.CutPrefix(h.Secret, "whsec_"); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(rest); err != nil {
			return nil, errors.New("the webhook's secret begins with whsec_, and what follows is not base64")
		}
	}
	if len(key) < 16 {
		return nil, errors.New("the webhook's secret has fewer than 16 bytes: anybody could guess it")
	}
	if h.Clock == nil {
		h.Clock = time.Now
	}
	if h.Pause == nil {
		h.Pause = Backoff
	}
	w := &Webhook{hook: h, key: key, queue: make(chan message, cmp.Or(h.Queue, 256))}
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: w.vet}
	w.client = &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: nil, DialContext: dialer.DialContext, ForceAttemptHTTP2: true, MaxIdleConns: 1,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 20 * time.Second, IdleConnTimeout: time.Minute,
		},
	}
	return w, nil
}

// CheckHookURL says what is wrong with a webhook's URL. Messages go over TLS,
// or stay on the machine.
func CheckHookURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("it does not begin with https://")
	case u.User != nil:
		return errors.New("it holds a user name, which would be in every log: receivers verify the signature")
	case u.Hostname() == "":
		return errors.New("it names no host")
	case u.Fragment != "":
		return errors.New("it has a fragment, which is never sent")
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err == nil {
		if err := permitted(a); err != nil {
			return err
		}
	}
	local := err == nil && a.IsLoopback() || u.Hostname() == "localhost"
	if u.Scheme == "http" && !local {
		return errors.New("http:// is for this machine alone: write https://")
	}
	return nil
}

// permitted refuses the addresses that nobody may reach.
func permitted(a netip.Addr) error {
	a = a.Unmap()
	if a.IsUnspecified() || a.IsMulticast() || policy.NeverPermitted(netip.PrefixFrom(a, a.BitLen())) {
		return fmt.Errorf("%s is no place for messages: cloud metadata and task credentials live there, or nobody does", a)
	}
	return nil
}

// vet is asked for the address that is about to be connected to.
func (w *Webhook) vet(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("the webhook's address %q: %w", address, err)
	}
	if w.hook.Refuse != nil && w.hook.Refuse(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())) {
		return fmt.Errorf("%s is the proxy itself", ap)
	}
	return permitted(ap.Addr())
}

// post is the body of a message.
type post struct {
	Type      string        `json:"type"`
	Timestamp time.Time     `json:"timestamp"`
	Data      postedAnomaly `json:"data"`
}

type postedAnomaly struct {
	ID       string           `json:"id"`
	Kind     flow.AnomalyKind `json:"kind"`
	Severity string           `json:"severity"`
	Caller   string           `json:"caller"`
	Subject  string           `json:"subject"`
	First    time.Time        `json:"first"`
	Last     time.Time        `json:"last"`
	Count    int64            `json:"count"`
	Evidence flow.Evidence    `json:"evidence"`
}

// messageID names a message: the finding, and which of its returns.
func messageID(a *flow.Anomaly) string { return a.ID + "." + strconv.FormatInt(a.Count, 10) }

func messageOf(a *flow.Anomaly) (message, error) {
	body, err := json.Marshal(post{
		Type: "anomaly", Timestamp: a.Last.UTC(),
		Data: postedAnomaly{a.ID, a.Kind, a.Severity.String(), a.Caller, a.Subject, a.First.UTC(), a.Last.UTC(), a.Count, a.Evidence},
	})
	if err != nil {
		return message{}, fmt.Errorf("word an anomaly: %w", err)
	}
	return message{messageID(a), body}, nil
}

// Tell queues a finding. It never waits: a message that finds the queue full is
// dropped and counted.
func (w *Webhook) Tell(a flow.Anomaly) {
	m, err := messageOf(&a)
	if err != nil {
		w.dropped.Add(1)
		return
	}
	select {
	case w.queue <- m:
	default:
		w.dropped.Add(1)
	}
}

// HookStats are the messages since the start.
type HookStats struct {
	Delivered uint64
	Failed    uint64 // given up
	Dropped   uint64 // there was no room
	Waiting   int
}

// Stats returns the figures.
func (w *Webhook) Stats() HookStats {
	return HookStats{Delivered: w.delivered.Load(), Failed: w.failed.Load(), Dropped: w.dropped.Load(), Waiting: len(w.queue)}
}

// Run delivers until ctx ends. What then waits is left to the outbox.
func (w *Webhook) Run(ctx context.Context) error {
	defer w.client.CloseIdleConnections()
	w.resume(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-w.queue:
			w.deliver(ctx, m)
		}
	}
}

// deliver tries a message until it is taken, or the tries are used up. Messages
// go one after the other: a receiver that is away is not asked by many.
func (w *Webhook) deliver(ctx context.Context, m message) {
	for n := 1; ; n++ {
		err := w.try(ctx, m)
		if err == nil {
			w.delivered.Add(1)
			w.settled(ctx, m.id)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if n == tries || errors.Is(err, errGone) || errors.Is(err, errRefused) && n == refusedTries {
			w.failed.Add(1)
			w.hook.Log.Error().Err(err).Str("message", m.id).Int("tries", n).Msg("an anomaly could not be posted to the webhook")
			w.settled(ctx, m.id)
			return
		}
		if n == 3 {
			w.hook.Log.Warn().Err(err).Str("message", m.id).Msg("the webhook does not take messages: it is tried again")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.hook.Pause(n)):
		}
	}
}

// What the receiver may answer that another try will hardly change: it has
// gone for good, or does not like the message, which must not hold up others.
var (
	errGone    = errors.New("the receiver is gone for good")
	errRefused = errors.New("the receiver refuses the message")
)

// refusedTries is how often a message is tried that the receiver refuses.
const refusedTries = 4

// try posts a message once.
func (w *Webhook) try(ctx context.Context, m message) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.hook.URL, bytes.NewReader(m.body))
	if err != nil {
		return errors.New("the webhook's URL cannot be asked") // the error holds the URL
	}
	at := strconv.FormatInt(w.hook.Clock().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "sallyport")
	r.Header.Set("Webhook-Id", m.id)
	r.Header.Set("Webhook-Timestamp", at)
	r.Header.Set("Webhook-Signature", "v1,"+Sign(w.key, m.id, at, m.body))
	resp, err := w.client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // a URL may hold what only its receiver should know
		}
		return fmt.Errorf("post to the webhook: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusGone:
		return fmt.Errorf("%w: it answers %d", errGone, code)
	case code >= 400 && code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests && code != http.StatusTooEarly:
		return fmt.Errorf("%w: it answers %d", errRefused, code)
	default:
		return fmt.Errorf("the webhook answers %d", code)
	}
}

// Sign returns the base64 of the signature of a message, by the specification
// of Standard Webhooks. at is the text of webhook-timestamp.
func Sign(key []byte, id, at string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, at)
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
