package main

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// maxChange bounds the body of a request that changes something.
const maxChange = 64 << 10

// policyRoutes are the API's answers about the policy, by method and path below
// /api/v1/. To look needs what all of the API needs; to change something needs
// the token, also from this host: the tasks beside a sidecar are on it.
func (d *daemon) policyRoutes() map[string]http.Handler {
	if d.history == nil {
		return nil
	}
	return map[string]http.Handler{
		"GET policy/versions":                answering(d.listVersions),
		"GET policy/versions/{id}":           answering(d.showVersion),
		"GET policy/overlays":                answering(d.listOverlays),
		"POST policy/overlays":               d.changing(d.addOverlay),
		"POST policy/overlays/{id}/revoke":   d.changing(d.revokeOverlay),
		"POST policy/versions/{id}/rollback": d.changing(d.rollBack),
	}
}

// answering makes a handler of a function that returns what to answer.
func answering(answer func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := answer(r)
		status := http.StatusOK
		if err != nil {
			status, value = statusOf(err), refusal(err)
		}
		text, err := json.Marshal(value)
		if err != nil {
			status, text = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(append(text, '\n')) // the client left: nobody to tell
	})
}

// refusal is an error as the API tells it.
func refusal(err error) map[string]string {
	said := map[string]string{"error": mask(err.Error())}
	for _, e := range leaves(err) {
		if f, ok := errors.AsType[*fault](e); ok && f.hint != "" {
			said["hint"] = f.hint
			break
		}
	}
	return said
}

// statusOf returns the status that tells an error best.
func statusOf(err error) int {
	switch {
	case errors.Is(err, history.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, history.ErrUnavailable):
		return http.StatusServiceUnavailable
	}
	for _, e := range leaves(err) {
		if f, ok := errors.AsType[*fault](e); ok && f.code == exitUsage {
			return http.StatusUnprocessableEntity
		}
	}
	return http.StatusInternalServerError
}

// changing makes a handler of a function that changes something and reads its
// request as JSON.
func (d *daemon) changing(change func(*http.Request, *json.Decoder) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.token.sum.Load() == nil {
			http.Error(w, `{"error":"to change anything needs admin.token"}`, http.StatusForbidden)
			return
		}
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			http.Error(w, `{"error":"write Content-Type: application/json"}`, http.StatusUnsupportedMediaType)
			return
		}
		answering(func(r *http.Request) (any, error) {
			dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxChange))
			dec.DisallowUnknownFields()
			return change(r, dec)
		}).ServeHTTP(w, r)
	})
}

// decode reads the one value of a request.
func decode(dec *json.Decoder, into any) error {
	if err := dec.Decode(into); err != nil {
		return refuse("", "the request cannot be read: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return refuse("", "the request holds more than one value")
	}
	return nil
}

func (d *daemon) addOverlay(r *http.Request, dec *json.Decoder) (any, error) {
	var c overlayChange
	if err := decode(dec, &c); err != nil {
		return nil, err
	}
	base, err := d.base()
	if err != nil {
		return nil, err
	}
	result, err := c.change(r.Context(), d.history, base)
	if err != nil {
		return nil, err
	}
	return result, nil
}

// signedBy is who ends something, and why.
type signedBy struct {
	Author string `json:"author"`
	Reason string `json:"reason,omitempty"`
}

func (s signedBy) check() error {
	if s.Author == "" || len(s.Author) > 200 || len(s.Reason) > 1000 {
		return refuse("give --author", "who asks for it is not said, or too long")
	}
	return nil
}

func (d *daemon) revokeOverlay(r *http.Request, dec *json.Decoder) (any, error) {
	var s signedBy
	if err := errors.Join(decode(dec, &s), s.check()); err != nil {
		return nil, err
	}
	return struct{}{}, d.history.RevokeOverlay(r.Context(), r.PathValue("id"), s.Author, s.Reason)
}

func (d *daemon) rollBack(r *http.Request, dec *json.Decoder) (any, error) {
	var s signedBy
	if err := errors.Join(decode(dec, &s), s.check()); err != nil {
		return nil, err
	}
	v, err := d.history.Version(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	base, err := d.base()
	if err != nil {
		return nil, err
	}
	return rollback(r.Context(), d.history, &v, base, s.Author, s.Reason)
}

func (d *daemon) listOverlays(r *http.Request) (any, error) {
	all, err := d.history.Overlays(r.Context(), r.URL.Query().Get("all") == "true")
	return overlayList{append([]history.Overlay{}, all...)}, err
}

// overlayList is the API's answer with overlays.
type overlayList struct {
	Overlays []history.Overlay `json:"overlays"`
}

func (d *daemon) listVersions(r *http.Request) (any, error) {
	n := 0
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			return nil, refuse("", "limit: %q is no number", text)
		}
	}
	all, err := d.history.Versions(r.Context(), n)
	list := versionList{Versions: make([]versionJSON, 0, len(all))}
	for i := range all {
		list.Versions = append(list.Versions, newVersionJSON(&all[i]))
	}
	return list, err
}

func (d *daemon) showVersion(r *http.Request) (any, error) {
	id := r.PathValue("id")
	if id == "current" {
		p := d.live.Current()
		v := history.Version{Version: p.Version(), Texts: d.inForce(), Instance: d.history.Instance()}
		return newVersionJSON(&v), nil
	}
	v, err := d.history.Version(r.Context(), id)
	return newVersionJSON(&v), err
}

// versionList is the API's answer with versions.
type versionList struct {
	Versions []versionJSON `json:"versions"`
}

// versionJSON is a policy that was in force.
type versionJSON struct {
	ID       string        `json:"id,omitempty"`
	Version  string        `json:"version"`
	At       time.Time     `json:"at,omitzero"`
	Instance string        `json:"instance,omitempty"`
	Author   string        `json:"author,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Previous string        `json:"previous,omitempty"`
	Diff     string        `json:"diff,omitempty"`
	Texts    []versionText `json:"texts,omitempty"`
}

type versionText struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

func newVersionJSON(v *history.Version) versionJSON {
	out := versionJSON{ID: v.ID, Version: v.Version, At: v.At, Instance: v.Instance, Author: v.Who, Reason: v.Note, Previous: v.Previous, Diff: v.Diff}
	for _, t := range v.Texts {
		out.Texts = append(out.Texts, versionText{t.Name, string(t.Data)})
	}
	return out
}

func (v *versionJSON) version() history.Version {
	out := history.Version{ID: v.ID, Version: v.Version, At: v.At, Instance: v.Instance, Who: v.Author, Note: v.Reason, Previous: v.Previous, Diff: v.Diff}
	for _, t := range v.Texts {
		out.Texts = append(out.Texts, policy.Text{Name: t.Name, Data: []byte(t.Text)})
	}
	return out
}
