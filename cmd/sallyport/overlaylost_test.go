package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// TestLostOverlays: a store that has forgotten what people wrote (its file was
// damaged, its server came back from an old copy) takes nothing out of force, and
// has it again. What was revoked, or was written anew, ends.
func TestLostOverlays(t *testing.T) {
	open := func(name string) *history.Store {
		s, err := history.Open(t.Context(), history.Config{Store: "sqlite:" + filepath.Join(t.TempDir(), name)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	add := func(s *history.Store, name, author string, until time.Time) history.Overlay {
		one, err := s.AddOverlay(t.Context(), history.Overlay{
			Name: name, Author: author, Text: "version: 1\nrules: [{name: " + name + ", action: deny, hosts: [" + name + ".test]}]\n", Until: until,
		})
		if err != nil {
			t.Fatal(err)
		}
		return one
	}
	store := open("first")
	full := error(nil)
	var log bytes.Buffer
	o := &overlays{
		read:  func(ctx context.Context) ([]history.Overlay, error) { return store.Overlays(ctx, false) },
		ended: func(ctx context.Context) ([]history.Overlay, error) { return store.Overlays(ctx, true) },
		restore: func(ctx context.Context, one history.Overlay) error {
			if full != nil {
				return full
			}
			return store.RestoreOverlay(ctx, one)
		},
		admit: func(*policy.Policy) error { return nil },
		log:   zerolog.New(&log), refused: map[string]string{}, lost: map[string]bool{},
	}
	base := []policy.Text{{Name: "policy.yaml", Data: []byte("version: 1\nrules: [{name: a, hosts: [a.test]}]\n")}}
	inForce := func() string {
		var all []string
		for _, x := range o.with(t.Context(), base)[1:] {
			all = append(all, strings.TrimPrefix(x.Name, policy.OverlayPrefix))
		}
		return strings.Join(all, " ")
	}
	add(store, "evil", "alice", time.Time{})
	again := add(store, "again", "alice", time.Time{})
	add(store, "over", "alice", time.Now().Add(time.Millisecond))
	if got := inForce(); !strings.HasPrefix(got, "evil again") {
		t.Fatalf("in force: %s", got)
	}
	<-time.After(2 * time.Millisecond)

	store, full = open("second"), errors.New("disk full")
	anew := add(store, "again", "bob", time.Time{})
	for range 2 {
		if got := inForce(); got != "evil again" {
			t.Errorf("in force while nothing can be written: %s", got)
		}
	}
	full = nil
	if got := inForce(); got != "evil again" {
		t.Errorf("in force: %s", got)
	}
	there, err := store.Overlays(t.Context(), true)
	if err != nil || len(there) != 2 || there[0].Name != "evil" || there[0].Author != "alice" || there[1].ID != anew.ID || again.ID == anew.ID {
		t.Errorf("stored: %+v, %v", there, err)
	}
	if n := strings.Count(log.String(), "stays in force"); n != 2 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
	if err := store.RevokeOverlay(t.Context(), there[0].ID, "bob", "over"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := inForce(); got != "again" {
			t.Errorf("in force after it was revoked: %s", got)
		}
	}
	if err := store.RestoreOverlay(t.Context(), there[0]); !errors.Is(err, history.ErrThere) {
		t.Errorf("what was revoked comes back: %v", err)
	}
}
