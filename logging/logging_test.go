package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func newLog(t *testing.T, w io.Writer, o Options) zerolog.Logger {
	t.Helper()
	log, err := New(w, o)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// fields decodes the one line in out and fails on a name that occurs twice.
func fields(t *testing.T, out string) map[string]any {
	t.Helper()
	if strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "\n") {
		t.Fatalf("not one line: %q", out)
	}
	if name := duplicate(t, out); name != "" {
		t.Fatalf("%s occurs twice in %s", name, out)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return m
}

// duplicate returns a member name that occurs twice in one object of text.
func duplicate(t *testing.T, text string) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	var walk func() string
	walk = func() string {
		tok, err := dec.Token()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		seen := map[string]bool{}
		switch tok {
		case json.Delim('{'):
			for dec.More() {
				key, _ := dec.Token()
				name, _ := key.(string)
				if seen[name] {
					return name
				}
				seen[name] = true
				if dup := walk(); dup != "" {
					return dup
				}
			}
			_, _ = dec.Token()
		case json.Delim('['):
			for dec.More() {
				if dup := walk(); dup != "" {
					return dup
				}
			}
			_, _ = dec.Token()
		}
		return ""
	}
	return walk()
}

func TestNewRefusesUnknownWords(t *testing.T) {
	for _, o := range []Options{{Level: "loud"}, {Level: "INFO"}, {Level: "panic"}, {Level: "1"}, {Format: "text"}} {
		if _, err := New(io.Discard, o); err == nil || !strings.Contains(err.Error(), "want one of") {
			t.Errorf("%+v: error is %v", o, err)
		}
	}
	for _, level := range Levels() {
		for _, format := range Formats() {
			if _, err := New(io.Discard, Options{level, format}); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestJSONLine(t *testing.T) {
	var out bytes.Buffer
	log := newLog(t, &out, Options{})
	log.Debug().Msg("not at level info")
	text := "h\u00e9\u202e\n"
	log.Warn().Err(errors.New(text)).Str(FieldListener, ":3128").Msg("it happened")
	if !printable(strings.TrimSuffix(out.String(), "\n")) {
		t.Errorf("%q is not printable ASCII", out.String())
	}
	m := fields(t, out.String())
	at, err := time.Parse(timeLayout, m[FieldTime].(string))
	if err != nil || time.Since(at).Abs() > time.Hour {
		t.Errorf("time is %v, %v", m[FieldTime], err)
	}
	if m[FieldLevel] != "warn" || m[FieldMessage] != "it happened" || m[FieldListener] != ":3128" || m[FieldError] != text {
		t.Errorf("got %v", m)
	}
}

// The hostile strings stand in every part that a careless caller could put
// them in: a value, an error, even the message.
func TestNoFormatLetsALineBeForged(t *testing.T) {
	hostile := "x\r\n2026-01-01T00:00:00.000Z INF forged\x1b[2J\u202e\u2028\u0085\x00\xff"
	for _, format := range Formats() {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			log := newLog(t, &out, Options{Format: format})
			log.Error().Err(errors.New(hostile)).Str("host", hostile).Strs("alpn", []string{hostile}).Msg(hostile)
			line, ok := strings.CutSuffix(out.String(), "\n")
			if !ok || !printable(line) {
				t.Errorf("%q is not one line of printable ASCII", out.String())
			}
		})
	}
}

func TestConsoleLine(t *testing.T) {
	var out bytes.Buffer
	log := newLog(t, &out, Options{Format: FormatConsole})
	log.Info().Str("address", "127.0.0.1:3128").Str("note", "two words").Msg("listening")
	stamp, rest, _ := strings.Cut(out.String(), " ")
	if _, err := time.Parse(timeLayout, stamp); err != nil {
		t.Error(err)
	}
	if want := "INF listening address=127.0.0.1:3128 note=\"two words\"\n"; rest != want {
		t.Errorf("got %q, want %q", rest, want)
	}
}

func TestLongLinesAreReplaced(t *testing.T) {
	for _, format := range Formats() {
		var out bytes.Buffer
		log := newLog(t, &out, Options{Format: format})
		log.Info().Str("host", strings.Repeat("a", 1<<20)).Msg("hello")
		if out.Len() > 4096 || !strings.Contains(out.String(), "too long") || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: %d bytes: %.200q", format, out.Len(), out.String())
		}
	}
}

func TestSlogHasOneTime(t *testing.T) {
	var out bytes.Buffer
	log := Slog(newLog(t, &out, Options{}))
	log.Debug("not at level info")
	log.With("from", "lib").Warn("odd\n\u202e", slog.Group("g", slog.Int("n", 1)))
	m := fields(t, out.String())
	if m[FieldLevel] != "warn" || m["from"] != "lib" || m[FieldMessage] != `odd\n\u202e` || m["g.n"] == nil {
		t.Errorf("got %v", m)
	}
}
