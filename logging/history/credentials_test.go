package history_test

import (
	"context"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/logging/history/historytest"
)

// TestRotation: the password of a store is changed, and then its user as well,
// while the store is open; every connection is ended each time. It is written
// on, to where it was, and no password is told.
func TestRotation(t *testing.T) {
	server := historytest.New(t)
	server.SQL(t, "postgres", "CREATE ROLE app LOGIN PASSWORD 'Hidden one'")
	server.SQL(t, "postgres", "CREATE DATABASE history OWNER app")
	server.DemandPasswords(t)
	socket, err := url.Parse(server.URL("history"))
	if err != nil {
		t.Fatal(err)
	}
	as := func(user, password, host, database string) string {
		return (&url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Path: "/" + database, RawQuery: url.Values{"host": {host}}.Encode()}).String()
	}
	store := as("app", "Hidden one", socket.Query().Get("host"), "history")
	var now atomic.Pointer[string]
	now.Store(&store)
	var ahead atomic.Int64 // of the clock: nobody waits for the next reading
	var log talk
	s := open(t, history.Config{
		Store: store, Log: zerolog.New(&log), Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		Credentials: func(context.Context) (string, error) { return *now.Load(), nil },
	})
	visit := func(n uint64) {
		t.Helper()
		tell(s, record(func(r *flow.Record) { r.ID, r.Start, r.End = flow.NewID(), time.Now(), time.Now() }))
		await(t, "the visit is written", func() bool { return s.Stats().Flows == n && s.Health().OK })
	}
	visit(1)
	for n, change := range []struct{ sql, user, password string }{
		{"ALTER ROLE app PASSWORD 'Hidden two'", "app", "Hidden two"},
		{"ALTER ROLE app RENAME TO other; ALTER ROLE other PASSWORD 'Hidden three'", "other", "Hidden three"},
	} {
		server.SQL(t, "postgres", change.sql)
		text := as(change.user, change.password, "/nowhere", "none")
		now.Store(&text)
		server.SQL(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'history'")
		ahead.Add(int64(time.Minute))
		visit(uint64(n) + 2)
		if got := server.SQL(t, "history", "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'sallyport'"); got != change.user {
			t.Errorf("connected as %q, want %q", got, change.user)
		}
	}
	s.end()
	if n := visits(t, s.Store); n != 3 {
		t.Errorf("%d visits, want 3", n)
	}
	if n := log.count("user or password has changed"); n != 2 || log.count("Hidden") > 0 || strings.Contains(s.Health().Detail, "Hidden") {
		t.Errorf("%d changes are told:\n%s", n, &log.text)
	}
}
