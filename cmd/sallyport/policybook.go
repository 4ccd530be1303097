package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// policyBook is where the policy's versions are kept and its overlays written:
// a store, or a running proxy's API.
type policyBook interface {
	Versions(ctx context.Context, n int) ([]history.Version, error)
	Version(ctx context.Context, id string) (history.Version, error) // "current" is the one in force
	Overlays(ctx context.Context, all bool) ([]history.Overlay, error)
	Change(ctx context.Context, c overlayChange) (overlayChanged, error)
	Revoke(ctx context.Context, id string, s signedBy) error
	Rollback(ctx context.Context, id string, s signedBy) (rolledBack, error)
	Name() string
}

// openBook opens what a command's flags say, see openHistory.
func openBook(cmd *cobra.Command, write bool) (policyBook, func(), error) {
	if f := cmd.Flags().Lookup("store"); f.Changed {
		l, err := loadConfig(cmd.Flags())
		if err != nil {
			return nil, nil, err
		}
		store, err := l.storeToOpen(cmd.Context(), f.Value.String())
		if err != nil {
			return nil, nil, err
		}
		s, err := history.Open(cmd.Context(), history.Config{Store: store, ReadOnly: !write})
		if err != nil {
			return nil, nil, err
		}
		if h := s.Health(); !h.OK {
			_ = s.Close() // it was never open
			return nil, nil, fmt.Errorf("the history cannot be opened: %s", h.Detail)
		}
		return storeBook{s}, func() { _ = s.Close() }, nil // what was written is committed
	}
	source, closing, err := openHistory(cmd)
	if err != nil {
		return nil, nil, err
	}
	client, ok := source.(*adminClient)
	if !ok {
		return nil, nil, errors.New("there is no proxy to ask")
	}
	return client, closing, nil
}

// storeBook is a store as a policyBook.
type storeBook struct{ *history.Store }

// Version implements [policyBook]. In a store the one in force is the newest, and the
// overlays that are active.
func (b storeBook) Version(ctx context.Context, id string) (history.Version, error) {
	if id != "current" {
		return b.Store.Version(ctx, id)
	}
	base, err := b.base(ctx)
	if err != nil {
		return history.Version{}, err
	}
	active, err := b.Overlays(ctx, false)
	if err != nil {
		return history.Version{}, err
	}
	p, texts, err := overlaidBy(base, active)
	return history.Version{Version: p.Version(), Texts: texts}, err
}

// base returns the documents of the newest version's sources, none where the
// store has no version yet.
func (b storeBook) base(ctx context.Context) ([]policy.Text, error) {
	newest, err := b.Versions(ctx, 1)
	if err != nil || len(newest) == 0 {
		return nil, err
	}
	v, err := b.Store.Version(ctx, newest[0].ID)
	return underneath(v.Texts), err
}

// Change implements [policyBook].
func (b storeBook) Change(ctx context.Context, c overlayChange) (overlayChanged, error) {
	base, err := b.base(ctx)
	if err != nil {
		return overlayChanged{}, err
	}
	return c.change(ctx, b.Store, base)
}

// Revoke implements [policyBook].
func (b storeBook) Revoke(ctx context.Context, id string, s signedBy) error {
	if err := s.check(); err != nil {
		return err
	}
	return b.RevokeOverlay(ctx, id, s.Author, s.Reason)
}

// Rollback implements [policyBook].
func (b storeBook) Rollback(ctx context.Context, id string, s signedBy) (rolledBack, error) {
	if err := s.check(); err != nil {
		return rolledBack{}, err
	}
	v, err := b.Store.Version(ctx, id)
	if err != nil {
		return rolledBack{}, err
	}
	base, err := b.base(ctx)
	if err != nil {
		return rolledBack{}, err
	}
	return rollback(ctx, b.Store, &v, base, s.Author, s.Reason)
}

// Name implements [policyBook].
func (c *adminClient) Name() string { return "the proxy at " + c.address }

// Versions implements [policyBook].
func (c *adminClient) Versions(ctx context.Context, n int) ([]history.Version, error) {
	var list versionList
	if err := c.get(ctx, "policy/versions", url.Values{"limit": {strconv.Itoa(n)}}, into(&list)); err != nil {
		return nil, err
	}
	all := make([]history.Version, len(list.Versions))
	for i := range list.Versions {
		all[i] = list.Versions[i].version()
	}
	return all, nil
}

// Version implements [policyBook].
func (c *adminClient) Version(ctx context.Context, id string) (history.Version, error) {
	var v versionJSON
	err := c.get(ctx, "policy/versions/"+id, nil, into(&v))
	return v.version(), err
}

// Overlays implements [policyBook].
func (c *adminClient) Overlays(ctx context.Context, all bool) ([]history.Overlay, error) {
	var list overlayList
	err := c.get(ctx, "policy/overlays", url.Values{"all": {strconv.FormatBool(all)}}, into(&list))
	return list.Overlays, err
}

// Change implements [policyBook].
func (c *adminClient) Change(ctx context.Context, change overlayChange) (overlayChanged, error) {
	var result overlayChanged
	err := c.post(ctx, "policy/overlays", change, &result)
	return result, err
}

// Revoke implements [policyBook].
func (c *adminClient) Revoke(ctx context.Context, id string, s signedBy) error {
	return c.post(ctx, "policy/overlays/"+id+"/revoke", s, new(struct{}))
}

// Rollback implements [policyBook].
func (c *adminClient) Rollback(ctx context.Context, id string, s signedBy) (rolledBack, error) {
	var done rolledBack
	err := c.post(ctx, "policy/versions/"+id+"/rollback", s, &done)
	return done, err
}

// post asks for a change and decodes the answer.
func (c *adminClient) post(ctx context.Context, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	target := url.URL{Scheme: "http", Host: c.address, Path: "/api/v1/" + path}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return c.do(req, into(answer))
}

// addSignFlags gives a command the flags that say who asks for it.
func addSignFlags(cmd *cobra.Command, s *signedBy) {
	cmd.Flags().StringVar(&s.Author, "author", "", "`NAME` of who asks for it (default: yours on this host)")
	cmd.Flags().StringVar(&s.Reason, "reason", "", "`TEXT` that says why")
}

// sign fills in the author.
func (s *signedBy) sign() {
	if s.Author != "" {
		return
	}
	if u, err := user.Current(); err == nil {
		s.Author = u.Username
	}
}

// until reads the time at which something ends: a moment, or how long it lasts.
func until(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	ago, err := parseMoment(text, now)
	if err != nil {
		return time.Time{}, refuse("write how long it lasts, 12h or 3d, or a time like 2026-12-24T00:00:00Z", "--until: %w", err)
	}
	return now.Add(now.Sub(ago)).UTC().Truncate(time.Second), nil
}
