package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/logging/anomaly"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
)

// anomalyStore is what the commands about anomalies read and write: a store, or
// a running proxy's API.
type anomalyStore interface {
	Anomalies(ctx context.Context, f history.AnomalyFilter) ([]history.Anomaly, error)
	Acknowledge(ctx context.Context, id, by, why string, benign bool) error
}

// anomalyJSON is a kept anomaly as the API and --json have it.
type anomalyJSON struct {
	ID           string           `json:"id"`
	Kind         flow.AnomalyKind `json:"kind"`
	Severity     string           `json:"severity"`
	Caller       string           `json:"caller"`
	Subject      string           `json:"subject,omitempty"`
	First        time.Time        `json:"first"`
	Last         time.Time        `json:"last"`
	Count        int64            `json:"count"`
	Evidence     flow.Evidence    `json:"evidence"`
	Site         string           `json:"site,omitempty"`
	Acknowledged time.Time        `json:"acknowledged,omitzero"`
	Benign       bool             `json:"benign,omitempty"`
	By           string           `json:"by,omitempty"`
	Reason       string           `json:"reason,omitempty"`
}

func newAnomalyJSON(kept *history.Anomaly) (anomalyJSON, error) {
	a, err := anomaly.Of(kept)
	return anomalyJSON{
		a.ID, a.Kind, a.Severity.String(), a.Caller, a.Subject, a.First, a.Last, a.Count, a.Evidence,
		kept.Site, kept.Acknowledged, kept.Benign, kept.By, kept.Why,
	}, err
}

// kept is the way back.
func (j *anomalyJSON) kept() (history.Anomaly, error) {
	severity, err := flow.ParseSeverity(j.Severity)
	if err != nil {
		return history.Anomaly{}, err
	}
	evidence, err := json.Marshal(j.Evidence)
	return history.Anomaly{
		ID: j.ID, Kind: string(j.Kind), Caller: j.Caller, Subject: j.Subject, Site: j.Site, Severity: int(severity), Evidence: evidence,
		First: j.First, Last: j.Last, Count: j.Count, Acknowledged: j.Acknowledged, Benign: j.Benign, By: j.By, Why: j.Reason,
	}, err
}

// said is what somebody says of an anomaly.
type said struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
	Benign bool   `json:"benign"`
}

// The bounds of what somebody says, and of an answer.
const (
	maxSaid      = 16 << 10
	anomalyLimit = 1000
)

// anomalyRoutes are the API's answers about anomalies.
func anomalyRoutes(store anomalyStore) map[string]http.Handler {
	return map[string]http.Handler{
		"GET anomalies":                   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { listAnomalies(w, r, store) }),
		"POST anomalies/{id}/acknowledge": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { acknowledgeAnomaly(w, r, store) }),
	}
}

func listAnomalies(w http.ResponseWriter, r *http.Request, store anomalyStore) {
	q := r.URL.Query()
	f := history.AnomalyFilter{ID: q.Get("id"), Kind: q.Get("kind"), Caller: q.Get("caller"), Open: q.Get("open") == "true", Limit: anomalyLimit}
	if text := q.Get("since"); text != "" {
		since, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			sayJSON(w, http.StatusBadRequest, map[string]string{"error": "since is no time of RFC 3339"})
			return
		}
		f.Since = since
	}
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 {
		f.Limit = min(n, anomalyLimit)
	}
	all, err := store.Anomalies(r.Context(), f)
	if err != nil {
		sayFault(w, err)
		return
	}
	out := make([]anomalyJSON, 0, len(all))
	for i := range all {
		one, err := newAnomalyJSON(&all[i])
		if err != nil {
			sayFault(w, err)
			return
		}
		out = append(out, one)
	}
	sayJSON(w, http.StatusOK, map[string]any{"anomalies": out})
}

func acknowledgeAnomaly(w http.ResponseWriter, r *http.Request, store anomalyStore) {
	var s said
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSaid))
	dec.DisallowUnknownFields()
	switch err := dec.Decode(&s); {
	case err != nil:
		sayJSON(w, http.StatusBadRequest, map[string]string{"error": "the body is not {by, reason, benign}: " + err.Error()})
		return
	case s.Reason == "":
		sayJSON(w, http.StatusBadRequest, map[string]string{"error": "a reason is missing"})
		return
	}
	if err := store.Acknowledge(r.Context(), r.PathValue("id"), s.By, s.Reason, s.Benign); err != nil {
		sayFault(w, err)
		return
	}
	sayJSON(w, http.StatusOK, map[string]bool{"ok": true})
}

func sayFault(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, history.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, history.ErrUnavailable):
		status = http.StatusServiceUnavailable
	}
	sayJSON(w, status, map[string]string{"error": err.Error()})
}

func sayJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client left: nobody to tell
}

// Anomalies implements [anomalyStore].
func (c *adminClient) Anomalies(ctx context.Context, f history.AnomalyFilter) ([]history.Anomaly, error) {
	q := url.Values{}
	for key, value := range map[string]string{"id": f.ID, "kind": f.Kind, "caller": f.Caller} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if f.Open {
		q.Set("open", "true")
	}
	if !f.Since.IsZero() {
		q.Set("since", f.Since.UTC().Format(time.RFC3339Nano))
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	var answer struct{ Anomalies []anomalyJSON }
	if err := c.get(ctx, "anomalies", q, into(&answer)); err != nil {
		return nil, err
	}
	all := make([]history.Anomaly, 0, len(answer.Anomalies))
	for i := range answer.Anomalies {
		one, err := answer.Anomalies[i].kept()
		if err != nil {
			return nil, fmt.Errorf("read the proxy's answer: %w", err)
		}
		all = append(all, one)
	}
	return all, nil
}

// Acknowledge implements [anomalyStore].
func (c *adminClient) Acknowledge(ctx context.Context, id, by, why string, benign bool) error {
	body, err := json.Marshal(said{by, why, benign})
	if err != nil {
		return err
	}
	return c.send(ctx, http.MethodPost, "anomalies/"+url.PathEscape(id)+"/acknowledge", nil, bytes.NewReader(body), func(io.Reader) error { return nil })
}
