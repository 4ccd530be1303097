package console

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Config is what a [Handler] shows. Ready is required.
type Config struct {
	// Ready returns what must hold for the proxy to take traffic; it is ready
	// when all of it does. It is called for each request, from any goroutine.
	Ready func() []Check
	// Metrics answers /metrics; nil means 404.
	Metrics http.Handler
	// Version is encoded as JSON for /version.
	Version any
	// Schema is the flow log's JSON Schema, for /schema; nil means 404.
	Schema []byte
	// History is what the API tells of; nil means that nothing is remembered.
	History History
	// Token returns the SHA-256 of the API's token, nil where there is none: then
	// the API answers this host only. nil stands for the latter.
	Token func() *[sha256.Size]byte
	// Routes are further answers of the API, by "METHOD path" below /api/v1/. They
	// are given requests that were admitted.
	Routes map[string]http.Handler
	// Hosts are the names by which requests may call this server, beside
	// localhost and IP addresses. Case does not matter.
	Hosts []string
	// Log is told at level debug of connections that misbehave; nil discards
	// that.
	Log *slog.Logger
}

// Check is one condition of readiness.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // for people
}

// Handler answers the console's requests.
type Handler struct {
	routes map[string]http.Handler
	api    *api
	hosts  []string
	log    *slog.Logger
}

// New returns a Handler. It fails when Config.Version is not encodable.
func New(c Config) (*Handler, error) {
	version, err := json.Marshal(c.Version)
	if err != nil {
		return nil, fmt.Errorf("encode the version: %w", err)
	}
	h := &Handler{routes: map[string]http.Handler{
		"/healthz": fixed("text/plain; charset=utf-8", []byte("ok\n")),
		"/readyz":  ready(c.Ready),
		"/version": fixed("application/json", append(version, '\n')),
	}, api: newAPI(&c), log: c.Log}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics != nil {
		h.routes["/metrics"] = c.Metrics
	}
	if c.Schema != nil {
		h.routes["/schema"] = fixed("application/schema+json", c.Schema)
	}
	for _, name := range c.Hosts {
		h.hosts = append(h.hosts, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	return h, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	if !h.calledBy(r.Host) {
		http.Error(w, "this server does not answer to that name", http.StatusMisdirectedRequest)
		return
	}
	if strings.HasPrefix(r.URL.Path, apiPrefix) {
		h.api.ServeHTTP(w, r)
		return
	}
	route, ok := h.routes[r.URL.Path]
	if !ok {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	route.ServeHTTP(w, r)
}

// secure sets the headers that every answer carries.
func secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}

// calledBy reports whether a request may name the server host. Rebinding needs
// a name that the attacker's DNS answers for, which an IP address never is.
func (h *Handler) calledBy(host string) bool {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		name, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return false
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || slices.Contains(h.hosts, name)
}

func fixed(contentType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // the client left: nobody to tell
	})
}

func ready(checks func() []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer := struct {
			Ready  bool    `json:"ready"`
			Checks []Check `json:"checks"`
		}{Ready: true, Checks: checks()}
		for _, c := range answer.Checks {
			answer.Ready = answer.Ready && c.OK
		}
		w.Header().Set("Content-Type", "application/json")
		if !answer.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(answer) // only the client leaving can fail it
	})
}
