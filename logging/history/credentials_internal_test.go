package history

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

// TestCredentials: what is known stays until something better was read, each
// trouble is told once, and no secret is.
func TestCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var url string
		var fault error
		reads := 0
		c := newCredentials(&Config{Store: "postgres://app:hidden0@db/h", Clock: time.Now, Log: zerolog.New(&log), Credentials: func(context.Context) (string, error) {
			reads++
			return url, fault
		}})
		for i, step := range []struct {
			after          time.Duration
			url            string
			fault          error
			user, password string
			reads          int
			told           string // at this step; "" for nothing
		}{
			{0, "postgres://app:hidden1@db/h", nil, "app", "hidden0", 0, ""}, // it was read a moment ago
			{rereadEvery, "postgres://app:hidden1@db/h", nil, "app", "hidden1", 1, "has changed"},
			{rereadEvery - 1, "postgres://app:hidden2@db/h", nil, "app", "hidden1", 1, ""},
			{1, "", errors.New("no route"), "app", "hidden1", 2, "no route"},
			{rereadEvery, "", errors.New("no route"), "app", "hidden1", 3, ""},
			{rereadEvery, "sqlite:hidden9", nil, "app", "hidden1", 4, ""}, // still no good
			{rereadEvery, "postgres://app:hidden1@db/h", nil, "app", "hidden1", 5, ""},
			{rereadEvery, "sqlite:hidden9", nil, "app", "hidden1", 6, "no URL postgres://"},
			{rereadEvery, "postgres://b:hidden3@elsewhere:1/other?sslmode=disable", nil, "b", "hidden3", 7, "has changed"},
			{rereadEvery, "postgres://b:hid%zz4@db/h", nil, "b", "hidden3", 8, "cannot be read: write postgres://"},
			{rereadEvery, "hidden5", nil, "b", "hidden3", 9, ""},
			{rereadEvery, "", nil, "b", "hidden3", 10, ""},
		} {
			<-time.After(step.after)
			url, fault = step.url, step.fault
			log.Reset()
			to := pgx.ConnConfig{}
			to.Host, to.Database = "db", "h"
			if err := c.give(t.Context(), &to); err != nil {
				t.Fatal(err)
			}
			if to.User != step.user || to.Password != step.password || to.Host != "db" || to.Database != "h" || reads != step.reads {
				t.Errorf("step %d: %s:%s@%s/%s, %d reads; want %s:%s, %d reads", i, to.User, to.Password, to.Host, to.Database, reads, step.user, step.password, step.reads)
			}
			if said := log.String(); !strings.Contains(said, step.told) || (step.told == "") != (said == "") || strings.Contains(said, "hid") {
				t.Errorf("step %d: told %q, want %q", i, said, step.told)
			}
		}
	})
}

// TestCredentialsAtOnce: connections that are made at one moment read once, and
// who is gone waits for nobody and is no trouble to tell of.
func TestCredentialsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		reads := 0
		answer := make(chan string)
		c := newCredentials(&Config{Store: "postgres://app:old@db/h", Clock: time.Now, Log: zerolog.New(&log), Credentials: func(ctx context.Context) (string, error) {
			reads++
			select {
			case url := <-answer:
				return url, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}})
		<-time.After(rereadEvery)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				var to pgx.ConnConfig
				if err := c.give(t.Context(), &to); err != nil || to.Password != "new" {
					t.Errorf("%q, %v", to.Password, err)
				}
			})
		}
		synctest.Wait()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.give(gone, new(pgx.ConnConfig)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		answer <- "postgres://app:new@db/h"
		all.Wait()
		if reads != 1 {
			t.Errorf("%d reads", reads)
		}

		// Nobody answers: the connection is made with what is known.
		<-time.After(rereadEvery)
		log.Reset()
		patient, cancel := context.WithTimeout(t.Context(), rereadPatience/2)
		defer cancel()
		if _ = c.give(patient, new(pgx.ConnConfig)); log.Len() > 0 {
			t.Errorf("told of who did not wait: %s", &log)
		}
		<-time.After(rereadEvery)
		var to pgx.ConnConfig
		patient, cancel = context.WithTimeout(t.Context(), writePatience)
		defer cancel()
		if err := c.give(patient, &to); err != nil || to.Password != "new" || !strings.Contains(log.String(), "cannot be read again") {
			t.Errorf("%q, %v: %s", to.Password, err, &log)
		}
	})
}

// Only what can change is read again.
func TestCredentialsOfNone(t *testing.T) {
	read := func(context.Context) (string, error) { return "", nil }
	for _, c := range []Config{{Store: "postgres://app@db/h"}, {Store: Memory, Credentials: read}, {Store: "sqlite:/tmp/h.db", Credentials: read}} {
		if got := newStore(c).as; got != nil {
			t.Errorf("%s: %v", c.Store, got)
		}
	}
}
