package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Bounds of the connections kept to origins of plain HTTP.
const (
	// Shorter than what origins and balancers commonly grant (60 s), so that
	// it is seldom they who close a connection just as a request goes out.
	originIdleTimeout  = 45 * time.Second
	originIdlePerHost  = 64
	originIdleInAll    = 1024
	originHeaderBytes  = 64 << 10 // what AWS's load balancers pass; a head costs many times its size to hold
	originContinueWait = time.Second
)

// refuseDial is the dialer of whatever must never dial.
func refuseDial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("sallyport: a connection outside the gate was refused")
}

// pool keeps connections to origins of plain HTTP, apart for each rule: a
// rule may lead its names to addresses that another rule must not share.
type pool struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu    sync.Mutex // guards rules
	rules map[poolKey]*http.Transport
}

// poolKey tells connections apart by what their dial was permitted: by the rule
// that governed it or report mode, and by the deny rules that were not about
// the caller.
type poolKey struct {
	rule  *policy.Rule
	mode  policy.Mode
	apart uint64
}

func poolKeyOf(d *policy.Decision) poolKey { return poolKey{d.Rule, d.Mode, d.Apart()} }

func newPool(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *pool {
	return &pool{dial: dial, rules: make(map[poolKey]*http.Transport)}
}

// transport returns the transport for what d permits.
func (p *pool) transport(d policy.Decision) *http.Transport {
	key := poolKeyOf(&d)
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.rules[key]
	if !ok {
		t = p.newTransport()
		p.rules[key] = t
	}
	return t
}

func (p *pool) newTransport() *http.Transport {
	return &http.Transport{
		DialContext:            p.dial,
		DialTLSContext:         refuseDial,
		DisableCompression:     true, // Accept-Encoding is the client's
		MaxIdleConns:           originIdleInAll,
		MaxIdleConnsPerHost:    originIdlePerHost,
		IdleConnTimeout:        originIdleTimeout,
		ExpectContinueTimeout:  originContinueWait,
		MaxResponseHeaderBytes: originHeaderBytes,
	}
}

// done is told that an exchange no longer uses t. A transport that was
// forgotten meanwhile keeps nothing: nobody would close it again.
func (p *pool) done(d policy.Decision, t *http.Transport) {
	key := poolKeyOf(&d)
	p.mu.Lock()
	current := p.rules[key]
	p.mu.Unlock()
	if current != t {
		t.CloseIdleConnections()
	}
}

// reset forgets every transport and closes its idle connections; exchanges
// under way finish on theirs.
func (p *pool) reset() {
	p.mu.Lock()
	old := p.rules
	p.rules = make(map[poolKey]*http.Transport)
	p.mu.Unlock()
	for _, t := range old {
		t.CloseIdleConnections()
	}
}
