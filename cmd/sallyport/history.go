package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/console"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/logging/metrics"
	"github.com/sallyport/sallyport/policy"
)

// History says where what was visited is remembered, and for how long.
type History struct {
	// Store is "sqlite:PATH", "sqlite::memory:", a URL "postgres://…", a reference
	// to one of them, or "off".
	Store     string
	Instance  string // this proxy's name in a store that several share; "": the host's
	Overlays  string // optional, or required: no traffic before they were read once
	Retention HistoryRetention
}

// HistoryRetention bounds what is remembered.
type HistoryRetention struct {
	Flows, Hourly, Daily time.Duration
	Size                 string // such as "64MiB"; "": the store's default
}

// historyOff is the store of those who want none.
const historyOff = "off"

func historySettings() []setting {
	const day = 24 * time.Hour
	return []setting{
		{key: "history.store", kind: historyStore(), get: func(c *Config) any { return maskStore(c.History.Store) }},
		{key: "history.instance", kind: optional("a name"), get: func(c *Config) any { return c.History.Instance }},
		{key: "history.overlays", kind: word("optional", overlaysRequired), get: func(c *Config) any { return c.History.Overlays }},
		{key: "history.retention.flows", kind: duration(time.Minute, 400*day), get: func(c *Config) any { return c.History.Retention.Flows }},
		{key: "history.retention.hourly", kind: duration(time.Hour, 4000*day), get: func(c *Config) any { return c.History.Retention.Hourly }},
		{key: "history.retention.daily", kind: duration(day, 4000*day), get: func(c *Config) any { return c.History.Retention.Daily }},
		{key: "history.retention.size", kind: orNone(byteSize()), get: func(c *Config) any { return c.History.Retention.Size }},
	}
}

// defaultHistory is what holds where nothing else is said: the memory of this
// process, a few MiB of it, so that `sallyport site list` has an answer at once.
func defaultHistory() History {
	r := history.DefaultRetention(history.Memory)
	return History{Store: history.Memory, Overlays: "optional", Retention: HistoryRetention{Flows: r.Flows, Hourly: r.Hourly, Daily: r.Daily}}
}

// historyStore is a store's name. It is not quoted: a URL may hold a password.
func historyStore() kind {
	const hint = `write "sqlite:/var/lib/sallyport/history.db", "sqlite::memory:", "postgres://USER@HOST/DATABASE", env:NAME, file:PATH, secretsmanager:NAME, or "off"`
	return kind{want: `a store such as "sqlite:/var/lib/sallyport/history.db"`, tag: tagText, check: func(s string) (string, string) {
		if _, isRef := storeReference(s); s == historyOff || isRef {
			return "", ""
		}
		if s == "" {
			return "it is empty", hint
		}
		if err := history.CheckStore(s); err != nil {
			return "it is no store: " + err.Error(), hint
		}
		return "", ""
	}}
}

// storeReference reads a reference in the place of a store.
func storeReference(s string) (reference, bool) {
	scheme, _, _ := strings.Cut(s, ":")
	if scheme != "env" && scheme != "file" && scheme != "secretsmanager" {
		return reference{}, false
	}
	ref, err := parseReference(s, false)
	return ref, err == nil
}

// maskStore hides a password that stands among the parameters of a URL; the one
// before the host is hidden wherever a text is shown.
func maskStore(s string) string {
	before, parameters, found := strings.Cut(s, "?")
	if !found || !strings.HasPrefix(s, "postgres") {
		return s
	}
	all := strings.Split(parameters, "&")
	for i, p := range all {
		if name, _, _ := strings.Cut(p, "="); strings.Contains(strings.ToLower(name), "password") {
			all[i] = name + "=***"
		}
	}
	return before + "?" + strings.Join(all, "&")
}

// byteSize is a number of bytes.
func byteSize() kind {
	return kind{want: "a size such as 64MiB", tag: tagText, check: func(s string) (string, string) {
		const hint = "write a number with a unit: 512KiB, 64MiB, 2GiB"
		n, ok := bytesOf(s)
		switch {
		case !ok:
			return fmt.Sprintf("%q is not a size", s), hint
		case n < 1<<20:
			return s + " is less than 1MiB", hint
		}
		return "", ""
	}}
}

// bytesOf reads a size.
func bytesOf(s string) (int64, bool) {
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseInt(digits, 10, 64)
			return n << (10 * (i + 1)), err == nil && n > 0 && n <= math.MaxInt32
		}
	}
	return 0, false
}

// historyConfig resolves the store. It reports false where there is to be none.
func (l *loaded) historyConfig(ctx context.Context) (history.Config, bool, error) {
	h := l.History
	if h.Store == historyOff {
		return history.Config{}, false, nil
	}
	store, err := l.storeName(ctx, h.Store)
	if err != nil {
		return history.Config{}, false, err
	}
	if err := l.outlasts(store); err != nil { // now that it is known what a reference leads to
		return history.Config{}, false, err
	}
	size, _ := bytesOf(h.Retention.Size) // checked with the configuration; 0 is the default
	return history.Config{
		Store: store, Instance: h.Instance,
		Retention: history.Retention{Flows: h.Retention.Flows, Hourly: h.Retention.Hourly, Daily: h.Retention.Daily, Size: size},
	}, true, nil
}

// storeName returns the store that a reference leads to, or the name itself.
func (l *loaded) storeName(ctx context.Context, name string) (string, error) {
	ref, isRef := storeReference(name)
	if !isRef {
		return name, nil
	}
	text, err := ref.read(ctx)
	if err != nil {
		return "", refuse("", "%s: %w", l.place("history.store"), err)
	}
	name = string(bytes.TrimSpace(text))
	if name == "" {
		return "", refuse("", "%s: what %s holds is empty", l.place("history.store"), ref)
	}
	if err := history.CheckStore(name); err != nil {
		return "", refuse("", "%s: what %s holds is no store: %w", l.place("history.store"), ref, err)
	}
	return name, nil
}

// rereadStore returns what reads a store's reference again, for a password that
// is changed while the proxy runs; nil where what is read cannot change.
func (l *loaded) rereadStore(name string) func(context.Context) (string, error) {
	ref, isRef := storeReference(name)
	if !isRef || ref.scheme == "env" {
		return nil
	}
	return func(ctx context.Context) (string, error) { return l.storeName(ctx, name) }
}

// buildHistory opens the memory; nil where there is to be none.
func (d *daemon) buildHistory(ctx context.Context) error {
	c, wanted, err := d.cfg.historyConfig(ctx)
	if err != nil || !wanted {
		return err
	}
	c.Log, c.Credentials = d.log, d.cfg.rereadStore(d.cfg.History.Store)
	d.history, err = history.Open(ctx, c)
	if err != nil {
		return &fault{code: exitUsage, err: fmt.Errorf("%s: %w", d.cfg.place("history.store"), err)}
	}
	d.overlays = newOverlays(d.history, d.cfg.admit, d.log)
	d.overlays.must = d.cfg.History.Overlays == overlaysRequired
	return nil
}

// runHistory writes until the last is written.
func (d *daemon) runHistory(ctx context.Context) error {
	err := d.history.Run(ctx)
	_ = d.history.Close() // all that it held is written, or lost
	return err
}

// remember keeps a policy that came into force, at the next batch.
func (d *daemon) remember(version string, texts []policy.Text) {
	before := d.texts.Swap(&texts)
	if d.history == nil {
		return
	}
	v := history.Version{Version: version, At: time.Now(), Texts: texts}
	if before != nil && policy.VersionOf(underneath(*before)...) == policy.VersionOf(underneath(texts)...) {
		v.Who, v.Note = d.overlays.last() // the overlays are what has changed
	}
	d.history.Remember(v)
}

// historyChecks tell how the memory does. A proxy without one takes traffic all
// the same.
func (d *daemon) historyChecks() []console.Check {
	if d.history == nil {
		return nil
	}
	return []console.Check{{Name: "history", OK: true, Detail: d.history.Health().Detail}}
}

// historyStats are the memory's figures for the metrics; nil without one.
func (d *daemon) historyStats() func() metrics.HistoryStats {
	if d.history == nil {
		return nil
	}
	return func() metrics.HistoryStats {
		s := d.history.Stats()
		return metrics.HistoryStats{
			Up: s.Up, Events: s.Events, Flows: s.Flows, Unkept: s.Unkept, Folded: s.Folded, Batches: s.Batches,
			Failures: s.Failures, Pending: s.Pending, Bytes: s.Bytes, LastWrite: s.LastWrite,
		}
	}
}

// historyDropped tells how many events or flows were lost.
func (d *daemon) historyDropped() uint64 { return d.history.Stats().Dropped }

// rereadToken reads the API's token again when asked. One that cannot be read
// leaves the one in force.
func (d *daemon) rereadToken(ctx context.Context, asked bool) {
	if !asked {
		return
	}
	if err := d.token.read(ctx); err != nil {
		d.log.Error().Err(err).Msg("the admin token is refused, the one in force stays")
	}
}

// minToken is the least length of admin.token: it is all that stands between
// the admin socket and whoever reaches it.
const minToken = 16

// adminToken is the token of the API, as it was read last. The zero value is
// none.
type adminToken struct {
	entry string // admin.token
	place string
	sum   atomic.Pointer[[sha256.Size]byte]
}

// read reads the token again.
func (t *adminToken) read(ctx context.Context) error {
	if t.entry == "" {
		return nil
	}
	token, err := readToken(ctx, t.entry)
	if err != nil {
		return refuse("", "%s: %w", t.place, err)
	}
	if len(token) < minToken {
		return refuse("make one with openssl rand -hex 24", "%s: the token has %d characters, and needs %d", t.place, len(token), minToken)
	}
	sum := sha256.Sum256([]byte(token))
	t.sum.Store(&sum)
	return nil
}

// readToken returns what a reference leads to, without the line's end.
func readToken(ctx context.Context, entry string) (string, error) {
	ref, err := parseReference(entry, false)
	if err != nil {
		return "", err
	}
	token, err := ref.read(ctx)
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(token)), nil
}
