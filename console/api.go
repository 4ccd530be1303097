package console

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/history"
)

// History is what the API tells of; a [history.Store] is one.
type History interface {
	Sites(ctx context.Context, f history.Filter) ([]history.Site, error)
	Flows(ctx context.Context, f history.Filter) iter.Seq2[history.Flow, error]
	Flow(ctx context.Context, id string) (history.Flow, error)
	Follow(ctx context.Context, f history.Filter) iter.Seq2[history.Flow, error]
	Gaps(ctx context.Context, since time.Time) ([]history.Gap, error)
	Health() history.Health
}

// The bounds of an answer with flows.
const (
	flowsPage = 1000
	maxFlows  = 10_000
)

// answerTimeout bounds an answer that the history must be searched for.
const answerTimeout = 5 * time.Minute

// maxSearches bounds the answers that are searched for at once: the store has a
// few connections, and the proxy needs some of them itself.
const maxSearches = 2

// maxFollowers bounds the streams that are open at once.
const maxFollowers = 16

// apiPrefix is where the API begins.
const apiPrefix = "/api/v1/"

// api answers what begins with apiPrefix. What was visited is nobody's business
// but the operator's: it asks for the token, and without one answers this host
// only.
type api struct {
	history   History
	token     func() *[sha256.Size]byte
	mux       *http.ServeMux
	followers chan struct{}
	searches  chan struct{}
	stopping  context.Context //nolint:containedctx // of the server: its end ends the streams
}

func newAPI(c *Config) *api {
	a := &api{
		history: c.History, token: c.Token, mux: http.NewServeMux(),
		followers: make(chan struct{}, maxFollowers), searches: make(chan struct{}, maxSearches),
	}
	if a.token == nil {
		a.token = func() *[sha256.Size]byte { return nil }
	}
	a.mux.HandleFunc("GET "+apiPrefix+"sites", a.inTurn(a.sites))
	a.mux.HandleFunc("GET "+apiPrefix+"flows", a.inTurn(a.flows))
	a.mux.HandleFunc("GET "+apiPrefix+"flows/follow", a.follow)
	a.mux.HandleFunc("GET "+apiPrefix+"flows/{id}", a.flow)
	a.mux.HandleFunc("GET "+apiPrefix+"gaps", a.gaps)
	for pattern, h := range c.Routes {
		method, path, _ := strings.Cut(pattern, " ")
		a.mux.Handle(method+" "+apiPrefix+path, h)
	}
	return a
}

// ServeHTTP implements [http.Handler].
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !a.admits(w, r) {
		return
	}
	if a.history == nil {
		refuse(w, http.StatusNotFound, "nothing is remembered: history.store is off")
		return
	}
	// The server's deadlines are for what is answered at once.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(answerTimeout)) // where there is no socket there is no deadline, as below
	_ = control.SetWriteDeadline(time.Now().Add(answerTimeout))
	// A page of another origin may make a browser send things, token or not.
	if err := new(http.CrossOriginProtection).Check(r); err != nil {
		refuse(w, http.StatusForbidden, "the request comes from a page of another origin")
		return
	}
	// As long as a body is not read nobody notices that the client has left.
	if r.Method == http.MethodGet && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusBadRequest, "a question has no body")
		return
	}
	if h, pattern := a.mux.Handler(r); pattern == "" && h != nil {
		answer := &plainAnswer{ResponseWriter: w}
		h.ServeHTTP(answer, r) // 404 or 405, in the API's words
		answer.end()
		return
	}
	a.mux.ServeHTTP(w, r)
}

// admits reports whether the caller may ask, and tells it if not.
func (a *api) admits(w http.ResponseWriter, r *http.Request) bool {
	want := a.token()
	if want == nil {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err == nil && peer.Addr().Unmap().IsLoopback() {
			return true
		}
		refuse(w, http.StatusForbidden, "without admin.token the API answers this host only")
		return false
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	got := sha256.Sum256([]byte(token))
	if ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
		return true
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="sallyport"`)
	refuse(w, http.StatusUnauthorized, "present the token of admin.token: Authorization: Bearer TOKEN")
	return false
}

// inTurn makes a search wait for those before it.
func (a *api) inTurn(search http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case a.searches <- struct{}{}:
			defer func() { <-a.searches }()
			search(w, r)
		case <-r.Context().Done(): // nobody waits for it any more
		}
	}
}

// plainAnswer turns the words of a ServeMux into the API's.
type plainAnswer struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (p *plainAnswer) WriteHeader(status int) { p.status = status }

// Write implements [http.ResponseWriter].
func (p *plainAnswer) Write(b []byte) (int, error) { return len(b), nil }

func (p *plainAnswer) end() {
	refuse(p.ResponseWriter, max(p.status, http.StatusNotFound), strings.ToLower(http.StatusText(max(p.status, http.StatusNotFound))))
}

// refuse answers an error as JSON.
func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"error": message})
}

func answer(w http.ResponseWriter, status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client left: nobody to tell
}

// failed answers what the history could not tell.
func failed(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, history.ErrNotFound):
		refuse(w, http.StatusNotFound, err.Error())
	case errors.Is(err, history.ErrUnavailable):
		refuse(w, http.StatusServiceUnavailable, err.Error())
	default:
		refuse(w, http.StatusInternalServerError, err.Error())
	}
}

// filter reads the filter of a request; false when it was answered.
func filter(w http.ResponseWriter, r *http.Request, own ...string) (history.Filter, bool) {
	values := r.URL.Query()
	for _, key := range own {
		values.Del(key)
	}
	f, err := history.ParseFilter(values)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return history.Filter{}, false
	}
	return f, true
}

// sites answers GET sites: as people see them, or with detail=true each by
// itself.
func (a *api) sites(w http.ResponseWriter, r *http.Request) {
	f, ok := filter(w, r, "detail")
	if !ok {
		return
	}
	all, err := a.history.Sites(r.Context(), f)
	if err != nil {
		failed(w, err)
		return
	}
	if r.URL.Query().Get("detail") == "true" {
		answer(w, http.StatusOK, map[string]any{"sites": append([]history.Site{}, all...)})
		return
	}
	answer(w, http.StatusOK, map[string]any{"sites": append([]history.Summary{}, history.Summarize(all)...)})
}

// flows answers GET flows: the newest first, and where the next page begins.
func (a *api) flows(w http.ResponseWriter, r *http.Request) {
	f, ok := filter(w, r)
	if !ok {
		return
	}
	if f.Limit == 0 {
		f.Limit = flowsPage
	}
	f.Limit = min(f.Limit, maxFlows)
	page := struct {
		Flows []history.Flow `json:"flows"`
		Next  string         `json:"next,omitempty"` // cursor of the next page
	}{Flows: []history.Flow{}}
	for one, err := range a.history.Flows(r.Context(), f) {
		if err != nil {
			failed(w, err)
			return
		}
		page.Flows = append(page.Flows, one)
	}
	if n := len(page.Flows); n == f.Limit {
		page.Next = page.Flows[n-1].ID
	}
	answer(w, http.StatusOK, page)
}

func (a *api) flow(w http.ResponseWriter, r *http.Request) {
	one, err := a.history.Flow(r.Context(), r.PathValue("id"))
	if err != nil {
		failed(w, err)
		return
	}
	answer(w, http.StatusOK, one)
}

func (a *api) gaps(w http.ResponseWriter, r *http.Request) {
	f, ok := filter(w, r)
	if !ok {
		return
	}
	all, err := a.history.Gaps(r.Context(), f.Since)
	if err != nil {
		failed(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"gaps": append([]history.Gap{}, all...)})
}

// follow answers GET flows/follow: a line of JSON for each flow, until the
// client leaves or the proxy stops.
func (a *api) follow(w http.ResponseWriter, r *http.Request) {
	f, ok := filter(w, r)
	if !ok {
		return
	}
	select {
	case a.followers <- struct{}{}:
		defer func() { <-a.followers }()
	default:
		refuse(w, http.StatusServiceUnavailable, "too many follow already")
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if a.stopping != nil {
		defer context.AfterFunc(a.stopping, cancel)() //nolint:contextcheck // the server's, beside the request's
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	s := &stream{w: w, control: http.NewResponseController(w)}
	_ = s.control.SetReadDeadline(time.Time{}) // it lasts
	if s.write(nil) != nil {
		return
	}
	for one, err := range a.history.Follow(ctx, f) {
		if err != nil {
			_ = s.line(map[string]string{"error": err.Error()}) // the last word either way
			return
		}
		if s.line(one) != nil {
			return
		}
	}
}

// stream writes lines to a client that may be slow, or gone.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s *stream) line(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return s.write(append(text, '\n'))
}

func (s *stream) write(text []byte) error {
	// The server's own deadline is for answers that end.
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // a writer without one is a test's
	if _, err := s.w.Write(text); err != nil {
		return err
	}
	return s.control.Flush()
}
