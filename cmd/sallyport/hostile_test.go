package main

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// shelf is an overlayBook in memory, which can fail.
type shelf struct {
	mu      sync.Mutex
	active  []history.Overlay
	failing error
}

func (s *shelf) Overlays(context.Context, bool) ([]history.Overlay, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]history.Overlay{}, s.active...), nil
}

func (s *shelf) AddOverlay(_ context.Context, o history.Overlay) (history.Overlay, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return o, s.failing
	}
	o.ID = o.Name
	s.active = append(s.active, o)
	return o, nil
}

func (s *shelf) RevokeOverlay(_ context.Context, id, _, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.active {
		if o.ID == id {
			s.active = append(s.active[:i:i], s.active[i+1:]...)
			return nil
		}
	}
	return history.ErrNotFound
}

func (s *shelf) set(all ...history.Overlay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = all
}

// What was denied stays denied when accepting it fails.
func TestAcceptThatFails(t *testing.T) {
	base := []policy.Text{{Name: "policy.yaml", Data: []byte("version: 1\nmode: report\n")}}
	book := &shelf{}
	change := func(action string) error {
		done, err := overlayChange{Action: action, Site: "a.test", Author: "ann"}.change(t.Context(), book, base)
		if err == nil && action == "allow" && len(done.Revoked) != 1 {
			t.Errorf("said to be revoked: %v", done.Revoked)
		}
		return err
	}
	if err := change("deny"); err != nil {
		t.Fatal(err)
	}
	book.failing = errors.New("the disk is full")
	if err := change("allow"); !errors.Is(err, book.failing) {
		t.Fatal(err)
	}
	if len(book.active) != 1 || !strings.HasPrefix(book.active[0].Name, "deny-a.test-") {
		t.Errorf("active: %+v", book.active)
	}
	book.failing = nil
	if err := change("allow"); err != nil || len(book.active) != 1 || !strings.HasPrefix(book.active[0].Name, "accept-a.test-") {
		t.Errorf("active: %+v, %v", book.active, err)
	}
}

// overlaid runs a reloader whose sources are looked at only when asked, with
// overlays on top.
func overlaid(t *testing.T, book *shelf) (base func(string, error), live *policy.Live, changed chan struct{}) {
	t.Helper()
	texts, broken, mu := []policy.Text{{Name: "p", Data: []byte(document("first"))}}, error(nil), sync.Mutex{}
	o := &overlays{
		read:  func(ctx context.Context) ([]history.Overlay, error) { return book.Overlays(ctx, false) },
		ended: func(ctx context.Context) ([]history.Overlay, error) { return book.Overlays(ctx, true) },
		admit: (&loaded{}).admit, log: zerolog.Nop(), refused: map[string]string{},
	}
	live, changed = policy.NewLive(), make(chan struct{}, 1)
	p, err := policy.Load(texts...)
	if err != nil {
		t.Fatal(err)
	}
	live.Swap(p)
	d := &daemon{overlays: o}
	d.remember(p.Version(), texts)
	reload := &reloader{
		read: func(ctx context.Context, _ look) ([]policy.Text, error) {
			mu.Lock()
			defer mu.Unlock()
			if broken != nil {
				return nil, broken
			}
			return o.with(ctx, texts), nil
		},
		admit: (&loaded{}).admit, pause: func() time.Duration { return 0 }, asked: make(chan struct{}), changed: changed, live: live,
		metrics: &counts{}, log: zerolog.Nop(), swapped: func() int { return 0 }, also: func(context.Context, bool) {}, keep: d.remember,
		ends: o.next, over: d.overInForce,
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- reload.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return func(text string, err error) {
		mu.Lock()
		defer mu.Unlock()
		texts, broken = []policy.Text{{Name: "p", Data: []byte(text)}}, err
	}, live, changed
}

func names(live *policy.Live) string {
	var all []string
	for _, r := range live.Current().Rules() {
		all = append(all, r.Name)
	}
	return strings.Join(all, " ")
}

// An overlay ends when it is over, also where the sources are never looked at.
func TestOverlayEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := &shelf{}
		_, live, changed := overlaid(t, book)
		for i, until := range []time.Duration{time.Hour, 2 * time.Hour} {
			name := []string{"one", "two"}[i]
			book.set(append(book.active, history.Overlay{ID: name, Name: name, Text: document(name), Until: time.Now().Add(until)})...)
		}
		changed <- struct{}{}
		after(time.Second)
		if got := names(live); got != "first one two" {
			t.Fatalf("in force: %s", got)
		}
		after(time.Hour)
		if got := names(live); got != "first two" {
			t.Errorf("after an hour: %s", got)
		}
		after(time.Hour)
		if got := names(live); got != "first" {
			t.Errorf("after two: %s", got)
		}
	})
}

// What people deny does not wait for sources that are no good.
func TestOverlaysWithoutSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, how := range []struct {
			name, text string
			err        error
		}{{"broken", "{", nil}, {"gone", "", errors.New("no such file")}} {
			book := &shelf{}
			base, live, changed := overlaid(t, book)
			base(how.text, how.err)
			book.set(history.Overlay{ID: "no", Name: "no", Text: "version: 1\nrules: [{name: no, action: deny, hosts: [a.test]}]\n", Until: time.Now().Add(time.Hour)})
			changed <- struct{}{}
			after(time.Second)
			if got := names(live); got != "first no" {
				t.Errorf("%s: in force: %s", how.name, got)
			}
			after(time.Hour)
			if got := names(live); got != "first" {
				t.Errorf("%s: after it is over: %s", how.name, got)
			}
			base(document("second"), nil)
			changed <- struct{}{}
			after(time.Second)
			if got := names(live); got != "second" {
				t.Errorf("%s: mended: %s", how.name, got)
			}
		}
	})
}

// A time that cannot be meant is an error: no question about it has an answer.
func TestMoments(t *testing.T) {
	now := time.Now()
	for _, text := range []string{"65535w", "15251w", "-3d", "1e3h", "99999999999h", "", "d", "now"} {
		if at, err := parseMoment(text, now); err == nil {
			t.Errorf("%q is %s", text, at)
		}
	}
	for _, ahead := range []string{"2999-01-01", now.Add(time.Hour).Format(time.RFC3339)} {
		cmd := &cobra.Command{}
		addFilterFlags(cmd)
		if err := cmd.Flags().Set("since", ahead); err != nil {
			t.Fatal(err)
		}
		if f, err := readFilter(cmd, now, 0); err == nil {
			t.Errorf("since %s: %+v", ahead, f)
		}
	}
}

// What a store holds that other hands have written does nothing to a terminal,
// and nothing to a spreadsheet.
func TestSheetOfStrangers(t *testing.T) {
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".evil.example"
	for _, one := range []struct{ form, text, want string }{
		{"table", long, strings.Repeat("a", 19) + "…" + strings.Repeat("b", 27) + ".evil.example"},
		{"table", long[:60], long[:60]},
		{"table", "\x1b" + long, `"\x1b` + strings.Repeat("a", 14) + "…" + strings.Repeat("b", 26) + `.evil.example"`},
		{"csv", long, long},
		{"json", long, strconv.Quote(long)},
		{"table", "a\x1b[2Jb", `"a\x1b[2Jb"`},
		{"table", "a\u009b2Jb", `"a\u009b2Jb"`},
		{"table", "a\x9b2Jb", `"a\x9b2Jb"`}, // a terminal of 8 bits takes it for the same
		{"table", "a\xffb", `"a\xffb"`},     // all of a table until the next one would be one cell
		{"table", "a\tb\nc", `"a\tb\nc"`},
		{"table", "a\u202eb", `"a\u202eb"`},
		{"table", "host.example", "host.example"},
		{"csv", "=HYPERLINK(1)", "'=HYPERLINK(1)"},
		{"csv", "@SUM(1)", "'@SUM(1)"},
		{"csv", "-2+3", "'-2+3"},
		{"csv", "+1", "'+1"},
		{"csv", "-", "-"},
	} {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		addFormFlags(cmd)
		if one.form != "table" {
			if err := cmd.Flags().Set(one.form, "true"); err != nil {
				t.Fatal(err)
			}
		}
		s := newSheet(cmd, []column{{"x", "X"}, {"y", "Y"}, {"z", ""}})
		if err := errors.Join(s.add(one.text, plainCell(one.text), plainCell(long), plainCell("")), s.end()); err != nil {
			t.Fatal(err)
		}
		row := out.String()
		if one.form != "json" {
			_, row, _ = strings.Cut(row, "\n")
			var more bool
			if row, more = strings.CutSuffix(strings.TrimRight(row, ",\n"), long); !more {
				t.Errorf("%s: the last column is cut: %q", one.form, row)
			}
		}
		if strings.Trim(row, " ,\n") != one.want {
			t.Errorf("%s of %q: %q", one.form, one.text, row)
		}
	}
}

// A password may hold what URLs allow.
func TestMaskedPasswords(t *testing.T) {
	for _, store := range []string{
		"postgres://u:s3cret,s3cret@h/d", "postgres://u:s3cret'$&;=()*s3cret@h/d", "postgres://h/d?user=u&password=s3cret", "postgres://h/d?sslpassword=s3cret",
	} {
		if got := mask(maskStore(store)); strings.Contains(got, "s3cret") {
			t.Errorf("%s", got)
		}
	}
}
