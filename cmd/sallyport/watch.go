package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/anomaly"
	"github.com/sallyport/sallyport/logging/budget"
	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/metrics"
	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy"
)

// Watch says how anomalies are looked for, and whom they are told.
type Watch struct {
	Every   time.Duration // between two looks at the history; 0: nobody looks
	Learn   time.Duration // of a caller, before its new sites are told
	Webhook WatchWebhook
}

// WatchWebhook is whom anomalies are posted to. The secret is a reference.
type WatchWebhook struct {
	URL    string // "": nobody
	Secret string
}

func watchSettings() []setting {
	const day = 24 * time.Hour
	return []setting{
		{key: "watch.every", kind: duration(0, time.Hour), get: func(c *Config) any { return c.Watch.Every }},
		{key: "watch.learn", kind: duration(time.Hour, 60*day), get: func(c *Config) any { return c.Watch.Learn }},
		{key: "watch.webhook.url", kind: orNone(hookURL()), get: func(c *Config) any { return maskHook(c.Watch.Webhook.URL) }},
		{key: "watch.webhook.secret", kind: keyReference("watch.webhook.secret as file:PATH"), get: func(c *Config) any { return c.Watch.Webhook.Secret }},
	}
}

func defaultWatch() Watch {
	return Watch{Every: anomaly.DefaultEvery, Learn: anomaly.DefaultLearn}
}

// hookURL is a receiver's URL. It is not quoted: some hold a token.
func hookURL() kind {
	return kind{want: `a receiver's URL such as "https://hooks.corp.example/sallyport"`, tag: tagText, check: func(s string) (string, string) {
		if err := anomaly.CheckHookURL(s); err != nil {
			return "it is no receiver's URL: " + err.Error(), "write https://HOST/PATH, or http://127.0.0.1:PORT/PATH"
		}
		return "", ""
	}}
}

// maskHook hides what of a receiver's URL may be a token.
func maskHook(s string) string {
	u, err := url.Parse(s)
	if s == "" || err != nil || (u.Path == "" || u.Path == "/") && u.RawQuery == "" {
		return s
	}
	return u.Scheme + "://" + u.Host + "/***"
}

func (l *loaded) checkWatch() error {
	switch h := l.Watch.Webhook; {
	case h.URL != "" && h.Secret == "":
		return refuse("make one with openssl rand -hex 24, and name it: env:NAME, file:PATH or secretsmanager:NAME",
			"%s: messages are signed, and watch.webhook.secret is not set", l.place("watch.webhook.url"))
	case h.URL == "" && h.Secret != "":
		return refuse("set watch.webhook.url", "%s: there is a secret, and nobody to post to", l.place("watch.webhook.secret"))
	case h.URL != "" && (l.Watch.Every == 0 || l.History.Store == historyOff):
		return refuse("set watch.every and history.store", "%s: nothing looks for anomalies", l.place("watch.webhook.url"))
	}
	return nil
}

// ledger is package budget's in the proxy's words.
type ledger struct{ *budget.Ledger }

// Account implements [proxy.Ledger].
func (l ledger) Account(b *policy.Budget) proxy.Account { return l.Ledger.Account(b) }

// buildWatch makes what counts budgets and looks for anomalies. The memory must
// be open, or nil.
func (d *daemon) buildWatch(ctx context.Context) error {
	var shares budget.Store // nil, not a nil *history.Store
	if d.history != nil {
		shares = d.history
	}
	d.ledger = budget.New(budget.Config{Session: flow.NewID(), Over: d.budgetSpent, Log: d.log}, shares)
	if d.history == nil || d.cfg.Watch.Every == 0 {
		return nil
	}
	if h := d.cfg.Watch.Webhook; h.URL != "" {
		secret, err := readHookSecret(ctx, h.Secret)
		if err == nil {
			d.webhook, err = anomaly.NewWebhook(anomaly.Hook{URL: h.URL, Secret: secret, Refuse: d.ownSocket, Outbox: d.history, Log: d.log})
		}
		if err != nil {
			return refuse("", "%s: %w", d.cfg.place("watch.webhook.secret"), err)
		}
	}
	d.watcher = anomaly.New(anomaly.Config{
		Every: d.cfg.Watch.Every, Learn: d.cfg.Watch.Learn, Tell: d.tellAnomaly, Log: d.log,
		Explicit: func(rule string, h policy.Host) bool { return d.live.Current().Spells(rule, h) },
	}, d.history)
	return nil
}

func readHookSecret(ctx context.Context, entry string) (string, error) {
	ref, err := parseReference(entry, false)
	if err != nil {
		return "", err
	}
	secret, err := ref.read(ctx)
	return string(bytes.TrimSpace(secret)), err
}

// ownSocket reports whether an address is one of the proxy's own sockets.
func (d *daemon) ownSocket(a netip.AddrPort) bool {
	same := func(o netip.AddrPort) bool {
		return o.Port() == a.Port() && (o.Addr().Unmap() == a.Addr() || o.Addr().IsUnspecified() && a.Addr().IsLoopback())
	}
	own := d.proxyConfig().OwnSockets
	if !d.opened.Load() {
		return slices.ContainsFunc(own, same) // the proxy has none yet
	}
	for _, l := range d.proxy.Addrs() {
		if ap, err := netip.ParseAddrPort(l.String()); err == nil {
			own = append(own, ap)
		}
	}
	return slices.ContainsFunc(own, same)
}

// watchTasks are those that need the memory, and the last connection's end.
func (d *daemon) watchTasks() []task {
	all := []task{{"budgets", d.ledger.Run}}
	if d.watcher != nil {
		all = append(all, task{"watch", d.watcher.Run})
	}
	if d.webhook != nil {
		all = append(all, task{"webhook", d.webhook.Run})
	}
	return all
}

// budgetSpent makes an anomaly of a budget that is spent.
func (d *daemon) budgetSpent(b budget.Balance) {
	a := flow.Anomaly{
		Kind: flow.AnomalyBudget, Caller: "-", Subject: string(b.Budget.Of) + " " + b.Budget.Name, Severity: flow.Medium, First: time.Now(), Last: time.Now(), Count: 1,
		Evidence: flow.Evidence{
			Value: float64(b.Sent), Limit: float64(b.Budget.BytesOut), Unit: "bytes",
			Text: fmt.Sprintf("the budget of the %s is spent: %s out per %s, until %s", b.Budget.Subject(), policy.SizeText(b.Budget.BytesOut), b.Budget.Per, b.End.Format(time.RFC3339)),
		},
	}
	if b.Budget.Of == policy.BudgetOfSource {
		a.Caller = b.Budget.Name
	} else {
		a.Evidence.Rule = b.Budget.Name
	}
	if b.Budget.Action == policy.BudgetDeny {
		a.Severity = flow.High
		a.Evidence.Text += "; what is beyond it is denied"
	}
	// A finding of its own each period, so that each is told.
	a.Subject += " " + strings.TrimSuffix(b.Start.UTC().Format("2006-01-02T15"), "T00")
	if d.watcher != nil {
		d.watcher.Spent(a)
		return
	}
	a.ID = flow.NewID()
	d.tellAnomaly(a)
}

// tellAnomaly tells of an anomaly, wherever it is to be heard.
func (d *daemon) tellAnomaly(a flow.Anomaly) {
	d.metrics.Anomaly(a.Kind, a.Severity)
	d.log.Warn().Str("anomaly", a.ID).Str("kind", string(a.Kind)).Stringer("severity", a.Severity).Str("caller", a.Caller).
		Str("subject", a.Subject).Str("evidence", a.Evidence.Text).Msg("anomaly found")
	d.flows.Observe(flow.Event{Kind: flow.Found, Anomaly: &a})
	if d.webhook != nil {
		d.webhook.Tell(a)
	}
}

// watchStats are the watch's figures for the metrics; nil without one.
func (d *daemon) watchStats() func() metrics.WatchStats {
	if d.watcher == nil {
		return nil
	}
	return func() metrics.WatchStats {
		s := d.watcher.Stats()
		out := metrics.WatchStats{Looks: s.Looks, Failures: s.Failures, Unwatched: s.Unwatched, LastLook: s.LastLook}
		if d.webhook != nil {
			h := d.webhook.Stats()
			out.Delivered, out.Failed, out.Dropped, out.Waiting = h.Delivered, h.Failed, h.Dropped, h.Waiting
		}
		return out
	}
}

// budgetStats are the accounts of the policy in force.
func (d *daemon) budgetStats() []metrics.BudgetStats {
	var all []metrics.BudgetStats
	seen := map[string]bool{}
	for _, b := range d.live.Current().Budgets() {
		key := string(b.Of) + "/" + b.Name
		if seen[key] {
			continue // one of two documents': no two metrics may be the same
		}
		seen[key] = true
		balance := d.ledger.Account(b).Balance()
		all = append(all, metrics.BudgetStats{Of: string(b.Of), Name: b.Name, Per: b.Per.String(), Sent: balance.Sent, Limit: b.BytesOut})
	}
	return all
}
