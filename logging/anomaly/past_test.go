package anomaly

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// past is a Store in memory, as quick as a simulation of weeks needs it.
type past struct {
	mu      sync.Mutex
	clock   func() time.Time
	sites   map[pastKey]*pastSite
	order   []*pastSite
	callers map[string]map[int64]*history.Figures // by hour
	denied  map[string]map[int64]*history.Figures
	flows   map[[2]string]*pastFlows // by caller and host, oldest first
	found   map[identity]*history.Anomaly
	down    error
}

type pastKey struct {
	caller, host, rule, operation string
	deny, wouldDeny               bool
	port                          uint16
}

type pastSite struct {
	history.Site
	hours map[int64]*history.Figures
}

func newPast(clock func() time.Time) *past {
	return &past{
		clock: clock, sites: map[pastKey]*pastSite{}, callers: map[string]map[int64]*history.Figures{}, denied: map[string]map[int64]*history.Figures{},
		flows: map[[2]string]*pastFlows{}, found: map[identity]*history.Anomaly{},
	}
}

// seen is what one or more visits of a site are.
type seen struct {
	caller, host, rule, operation, bucket string
	deny, wouldDeny                       bool
	starts                                []time.Time
	sent, received                        int64 // in all
	client                                netip.Addr
	revision                              int
	port                                  uint16
}

func (p *past) add(v seen) {
	if len(v.starts) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	verdict := policy.Allow
	if v.deny {
		verdict = policy.Deny
	}
	k := pastKey{v.caller, v.host, v.rule, v.operation, v.deny, v.wouldDeny, v.port}
	s := p.sites[k]
	first, last := v.starts[0], v.starts[len(v.starts)-1]
	if s == nil {
		s = &pastSite{Site: history.Site{
			ID: fmt.Sprintf("site-%d", len(p.sites)), Caller: history.Caller{Service: v.caller},
			Target:  history.Target{Via: policy.ViaTLS, Protocol: policy.ProtocolTLS, Host: v.host, Port: cmp.Or(v.port, 443), Inspected: v.operation != "", Call: history.Call{Operation: v.operation}},
			Verdict: verdict, WouldDeny: v.wouldDeny, Rule: v.rule, First: first,
		}, hours: map[int64]*history.Figures{}}
		if s.S3.Bucket = v.bucket; v.bucket != "" {
			s.S3.Form = "virtual_hosted"
		}
		p.sites[k] = s
		p.order = append(p.order, s)
	}
	if r := (history.Revision{Family: v.caller, Revision: v.revision}); v.revision > 0 && !slices.Contains(s.Revisions, r) {
		s.Revisions = append(s.Revisions, r)
	}
	s.Last = last
	f := history.Figures{Visits: int64(len(v.starts)), BytesSent: v.sent, BytesReceived: v.received}
	sum(s.hours, hour(last), f)
	total(&s.Figures, f)
	in := func(m map[string]map[int64]*history.Figures) {
		if m[v.caller] == nil {
			m[v.caller] = map[int64]*history.Figures{}
		}
		sum(m[v.caller], hour(last), f)
	}
	if in(p.callers); v.deny {
		in(p.denied)
	}
	fk := [2]string{v.caller, v.host}
	x := p.flows[fk]
	if x == nil {
		x = &pastFlows{site: s.Site, client: v.client}
		p.flows[fk] = x
	}
	for _, at := range v.starts {
		x.starts[x.n%len(x.starts)] = at
		x.n++
	}
}

// pastFlows are the last flows of a caller at a host.
type pastFlows struct {
	site   history.Site
	client netip.Addr
	starts [512]time.Time
	n      int
}

func sum(m map[int64]*history.Figures, h int64, f history.Figures) {
	if m[h] == nil {
		m[h] = &history.Figures{}
	}
	total(m[h], f)
}

func total(to *history.Figures, f history.Figures) {
	to.Visits += f.Visits
	to.BytesSent += f.BytesSent
	to.BytesReceived += f.BytesReceived
}

func (p *past) Sites(_ context.Context, f history.Filter) ([]history.Site, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []history.Site
	for _, s := range p.order {
		if s.Last.Before(f.Since) || f.Service != "" && f.Service != s.Service || f.Host != "" && f.Host != s.Host {
			continue
		}
		out := s.Site
		if !f.Since.IsZero() {
			out.Figures = history.Figures{}
			for h := hour(f.Since); h <= hour(p.clock()); h++ {
				if x := s.hours[h]; x != nil {
					total(&out.Figures, *x)
				}
			}
		}
		all = append(all, out)
	}
	return all, p.down
}

func (p *past) Usage(_ context.Context, f history.Filter, by history.UsageBy) ([]history.Usage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := p.callers
	if f.Verdict != nil {
		from = p.denied
	}
	step := int64(1)
	if by.Daily {
		step = 24
	}
	var all []history.Usage
	for name, hours := range from {
		if f.Service != "" && f.Service != name {
			continue
		}
		for h := hour(f.Since) / step * step; h <= hour(p.clock()); h += step {
			u := history.Usage{Start: time.Unix(h*3600, 0).UTC(), Key: history.UsageKey{Caller: name}}
			for i := h; i < h+step; i++ {
				if x := hours[i]; x != nil {
					total(&u.Figures, *x)
				}
			}
			if u.Visits > 0 && !u.Start.Before(f.Since) {
				all = append(all, u)
			}
		}
	}
	slices.SortFunc(all, func(a, b history.Usage) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Key.Caller, b.Key.Caller))
	})
	return all, p.down
}

func (p *past) Flows(_ context.Context, f history.Filter) iter.Seq2[history.Flow, error] {
	return func(yield func(history.Flow, error) bool) {
		x := p.flows[[2]string{f.Service, f.Host}]
		for i := 1; x != nil && i <= min(x.n, len(x.starts)); i++ {
			at := x.starts[(x.n-i)%len(x.starts)]
			if at.Before(f.Since) || f.Limit > 0 && i > f.Limit {
				return
			}
			if !yield(history.Flow{
				ID: f.Host + "-" + strconv.Itoa(x.n-i), Start: at, Caller: x.site.Caller, Target: x.site.Target, Client: netip.AddrPortFrom(x.client, 1),
			}, nil) {
				return
			}
		}
	}
}

func (p *past) SaveAnomaly(_ context.Context, a history.Anomaly) (history.Anomaly, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down != nil {
		return a, false, p.down
	}
	id := identity{flow.AnomalyKind(a.Kind), a.Caller, a.Subject}
	k := p.found[id]
	if k == nil {
		a.ID = fmt.Sprintf("anomaly-%d", len(p.found))
		p.found[id] = &a
		return a, true, nil
	}
	k.Count++
	k.Severity, k.Evidence = a.Severity, a.Evidence
	if a.Last.After(k.Last) {
		k.Last = a.Last
	}
	return *k, false, nil
}

func (p *past) Anomalies(_ context.Context, f history.AnomalyFilter) ([]history.Anomaly, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []history.Anomaly
	for _, a := range p.found {
		if (f.Kind == "" || f.Kind == a.Kind) && (f.Caller == "" || f.Caller == a.Caller) && !a.Last.Before(f.Since) {
			all = append(all, *a)
		}
	}
	return all, p.down
}

func noSite() history.Site { return history.Site{} }
