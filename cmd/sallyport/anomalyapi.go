package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
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

func (s said) check() error {
	if strings.TrimSpace(s.Reason) == "" || len(s.Reason) > 1000 || s.By == "" || len(s.By) > 200 {
		return refuse(`write --reason "the new billing provider"`, "who says it, or why, is missing or too long")
	}
	return nil
}

// anomalyLimit is how many anomalies an answer has at most.
const anomalyLimit = 1000

// anomalyRoutes are the API's answers about anomalies. What is called benign is
// never told again: to say so is a change.
func (d *daemon) anomalyRoutes() map[string]http.Handler {
	return map[string]http.Handler{
		"GET anomalies":                   answering(d.listAnomalies),
		"POST anomalies/{id}/acknowledge": d.changing(d.acknowledge),
	}
}

func (d *daemon) listAnomalies(r *http.Request) (any, error) {
	q := r.URL.Query()
	f := history.AnomalyFilter{ID: q.Get("id"), Kind: q.Get("kind"), Caller: q.Get("caller"), Open: q.Get("open") == "true", Limit: anomalyLimit}
	if text := q.Get("since"); text != "" {
		since, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return nil, refuse("write it like 2026-11-20T08:00:00Z", "since is no time")
		}
		f.Since = since
	}
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > 0 {
		f.Limit = min(n, anomalyLimit)
	}
	all, err := d.history.Anomalies(r.Context(), f)
	if err != nil {
		return nil, err
	}
	out := make([]anomalyJSON, 0, len(all))
	for i := range all {
		one, err := newAnomalyJSON(&all[i])
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return map[string]any{"anomalies": out}, nil
}

func (d *daemon) acknowledge(r *http.Request, dec *json.Decoder) (any, error) {
	var s said
	if err := errors.Join(decode(dec, &s), s.check()); err != nil {
		return nil, err
	}
	return struct{}{}, d.history.Acknowledge(r.Context(), r.PathValue("id"), s.By, s.Reason, s.Benign)
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
	return c.post(ctx, "anomalies/"+url.PathEscape(id)+"/acknowledge", said{by, why, benign}, new(struct{}))
}
