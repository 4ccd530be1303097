package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/policy"
)

// home plays a remote source: fetch does what the test says last, and notes
// when it was asked.
type home struct {
	text    string
	version string
	err     error
	hang    bool // it answers nothing at all
	last    string
	asked   []time.Time
}

func (h *home) fetch(ctx context.Context) (fetched, error) {
	h.asked = append(h.asked, time.Now())
	switch {
	case h.hang:
		<-ctx.Done()
		return fetched{}, unanswered(ctx.Err(), "S3", 0)
	case h.err != nil:
		return fetched{}, h.err
	case h.version == h.last:
		return fetched{unchanged: true}, nil
	}
	h.last = h.version
	return fetched{data: []byte(h.text), version: h.version}, nil
}

// setOf returns sources that are as they were read once, beside a file.
func setOf(t *testing.T, every time.Duration, h *home) (*sourceSet, *bytes.Buffer) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "base.yaml")
	if err := os.WriteFile(file, []byte(document("base")), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := parseSource("s3://acme/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	log := new(bytes.Buffer)
	return &sourceSet{every: every, log: zerolog.New(log), sources: []*sourceState{
		{source: source{scheme: "file", name: file}}, {source: src, fetcher: h},
	}}, log
}

func throttled(class string) error {
	return &sourceError{class: class, transient: true, throttled: true, err: errors.New(class + ": slow down, request " + time.Now().String())}
}

func transient(class string) error {
	return &sourceError{class: class, transient: true, err: errors.New(class + " at " + time.Now().String())}
}

func final(class string) error {
	return &sourceError{class: class, err: errors.New(class), hint: "the hint of " + class}
}

// poll reads for d as the reloader does.
func poll(t *testing.T, s *sourceSet, d time.Duration) []policy.Text {
	t.Helper()
	var texts []policy.Text
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(s.pause())
		var err error
		if texts, err = s.read(t.Context(), lookDue); err != nil {
			t.Fatal(err)
		}
	}
	return texts
}

func TestRemoteSourceKeepsItsLastText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &home{text: document("first"), version: "1"}
		s, log := setOf(t, 5*time.Second, h)
		texts, err := s.first(t.Context())
		if err != nil || len(texts) != 2 || texts[1].Name != "s3://acme/policy.yaml" || string(texts[1].Data) != h.text {
			t.Fatalf("%q, %v", texts, err)
		}
		h.err = final("NoSuchKey")
		if texts = poll(t, s, time.Minute); string(texts[1].Data) != h.text {
			t.Errorf("%q", texts)
		}
		if n := strings.Count(log.String(), "its last text stays"); n != 1 || !strings.Contains(log.String(), `"level":"error"`) ||
			!strings.Contains(log.String(), `"hint":"the hint of NoSuchKey"`) || !strings.Contains(log.String(), `"source":"s3://acme/policy.yaml"`) {
			t.Errorf("said %d times: %s", n, log)
		}
		if d := s.detail(); !strings.HasPrefix(d, "s3://acme/policy.yaml: NoSuchKey, last read 1m") {
			t.Error(d)
		}
		ages := s.ages()
		if len(ages) != 2 || ages[0].Kind != "file" || ages[0].Age > 6*time.Second || ages[1].Kind != "s3" || ages[1].Age < time.Minute {
			t.Errorf("%+v", ages)
		}
		// The other sources are read on.
		if err := os.WriteFile(s.sources[0].name, []byte(document("changed")), 0o600); err != nil {
			t.Fatal(err)
		}
		if texts = poll(t, s, time.Minute); string(texts[0].Data) != document("changed") || string(texts[1].Data) != h.text {
			t.Errorf("%q", texts)
		}
		h.err, h.text, h.version = nil, document("second"), "2"
		if texts = poll(t, s, mostBackOff+time.Minute); string(texts[1].Data) != h.text {
			t.Errorf("%q", texts)
		}
		if strings.Count(log.String(), "is read again") != 1 || strings.Count(log.String(), "policy source changed") != 1 || s.detail() != "current" {
			t.Errorf("%s: %s", s.detail(), log)
		}
	})
}

// One line for each change of state, whatever the texts of the errors.
func TestRemoteSourceSaysChangesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &home{text: document("first"), version: "1"}
		s, log := setOf(t, time.Second, h)
		if _, err := s.first(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, class := range []string{"SlowDown", "unreachable"} {
			for range 20 {
				h.err = transient(class)
				poll(t, s, 30*time.Second)
			}
		}
		h.hang = true
		poll(t, s, 20*time.Minute)
		for class, want := range map[string]int{"SlowDown": 1, "unreachable": 1, "timeout": 1} {
			if n := strings.Count(log.String(), `"failure":"`+class+`"`); n != want {
				t.Errorf("%s was said %d times: %s", class, n, log)
			}
		}
		if strings.Contains(log.String(), `"level":"error"`) {
			t.Errorf("what may pass by itself is an error: %s", log)
		}
	})
}

func TestRemoteSourceIsSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &home{text: document("first"), version: "1"}
		s, _ := setOf(t, 5*time.Second, h)
		if _, err := s.first(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.err, h.asked = throttled("SlowDown"), nil
		poll(t, s, time.Hour)
		// 40 s, 80 s, 160 s, then 5 minutes, each 20 % more or less.
		if n := len(h.asked); n < 10 || n > 18 {
			t.Errorf("asked %d times in an hour of throttling", n)
		}
		for i, at := range h.asked[1:] {
			least := min(40*time.Second<<min(i, 10), mostBackOff) * 8 / 10
			if gap := at.Sub(h.asked[i]); gap < least || gap > mostBackOff*12/10+7*time.Second {
				t.Errorf("%v after the attempt %d; at least %v", gap, i+1, least)
			}
		}
		// Who asks is answered at once, settling asks nobody.
		h.asked = nil
		if _, err := s.read(t.Context(), lookAgain); err != nil || len(h.asked) != 0 {
			t.Errorf("asked %d times, %v", len(h.asked), err)
		}
		if _, err := s.read(t.Context(), lookAsked); err != nil || len(h.asked) != 1 {
			t.Errorf("asked %d times, %v", len(h.asked), err)
		}
		// After a success everything is as before.
		h.err, h.asked = nil, nil
		poll(t, s, mostBackOff*2)
		h.asked = nil
		poll(t, s, time.Minute)
		if n := len(h.asked); n < 9 || n > 16 {
			t.Errorf("asked %d times in a minute", n)
		}
		h.err, h.asked = transient("unreachable"), nil
		poll(t, s, time.Minute) // 10 s, 20 s, 40 s
		if n := len(h.asked); n < 3 || n > 4 {
			t.Errorf("asked %d times in the first minute of an outage", n)
		}
	})
}

func TestPollsAreJittered(t *testing.T) {
	s, _ := setOf(t, 10*time.Second, &home{})
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := s.pause()
		least, most = min(least, d), max(most, d)
	}
	if least < 8*time.Second || least > 8500*time.Millisecond || most > 12*time.Second || most < 11500*time.Millisecond {
		t.Errorf("from %v to %v, want 8 s to 12 s", least, most)
	}
	s.sources = s.sources[:1] // files are read by nobody else
	if d := s.pause(); d != s.every {
		t.Errorf("%v for files alone", d)
	}
	s, _ = setOf(t, 0, &home{})
	if d := s.pause(); d != 0 {
		t.Errorf("%v where only SIGHUP reloads", d)
	}
}

func TestBackOff(t *testing.T) {
	tests := []struct {
		every     time.Duration
		failures  int
		throttled bool
		want      time.Duration
	}{
		{5 * time.Second, 1, false, 10 * time.Second},
		{5 * time.Second, 3, false, 40 * time.Second},
		{5 * time.Second, 1, true, 40 * time.Second},
		{5 * time.Second, 1 << 30, true, mostBackOff},
		{100 * time.Millisecond, 1, false, 2 * time.Second},
		{0, 1, false, 2 * time.Second},
		{time.Hour, 1, true, time.Hour},
	}
	for _, tt := range tests {
		if got := backOff(tt.every, tt.failures, tt.throttled); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func TestFirstReading(t *testing.T) {
	tests := []struct {
		name     string
		err      error
		hang     bool
		attempts int
		want     string
	}{
		{name: "final", err: final("AccessDenied"), attempts: 1, want: "sallyport: policy: s3://acme/policy.yaml: AccessDenied\nsallyport: hint: the hint of AccessDenied\n"},
		{name: "transient", err: &sourceError{class: "unreachable", transient: true, err: errors.New("no route")}, attempts: firstAttempts, want: "sallyport: policy: s3://acme/policy.yaml: no route (after 5 attempts)\n"},
		{name: "no answer", hang: true, attempts: 3, want: "sallyport: policy: s3://acme/policy.yaml: S3 does not answer within 10s (after 3 attempts)\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &home{err: tt.err, hang: tt.hang}
				s, _ := setOf(t, 5*time.Second, h)
				start := time.Now()
				texts, err := s.first(t.Context())
				var out bytes.Buffer
				if code := report(&out, err); code != exitUsage || out.String() != tt.want || texts != nil {
					t.Errorf("code %d, %q: %s", code, texts, &out)
				}
				if len(h.asked) != tt.attempts || time.Since(start) > firstPatience {
					t.Errorf("%d attempts in %v", len(h.asked), time.Since(start))
				}
			})
		})
	}
	// A file that is not there does not come by waiting.
	h := &home{text: document("a"), version: "1"}
	s, _ := setOf(t, 0, h)
	s.sources[0].name = "none.yaml"
	if _, err := s.first(t.Context()); err == nil || len(h.asked) != 1 {
		t.Errorf("asked %d times, %v", len(h.asked), err)
	}
}

// The end of the process is no failure of a source.
func TestGoingAwayIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &home{text: document("a"), version: "1"}
		s, log := setOf(t, time.Second, h)
		if _, err := s.first(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.hang = true
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if texts, err := s.read(ctx, lookDue); err != nil || len(texts) != 2 || s.detail() != "current" || log.Len() > 0 {
			t.Errorf("%q, %v, %s, %s", texts, err, s.detail(), log)
		}
	})
}

func TestClashesNameBothPlaces(t *testing.T) {
	h := &home{text: document("base"), version: "1"}
	s, _ := setOf(t, 0, h)
	texts, err := s.first(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = policy.Load(texts...)
	if err == nil || !strings.Contains(err.Error(), "s3://acme/policy.yaml:2:") || !strings.Contains(err.Error(), s.sources[0].name+":2") {
		t.Errorf("the same rule twice: %v", err)
	}
}
