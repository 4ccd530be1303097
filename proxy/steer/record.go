package steer

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The bounds of records: a client that retries, or that puts stolen bytes into
// names, must not drown the records of others.
const (
	famePause   = time.Minute // between two records of one name, for one client
	fameNames   = 16_384      // remembered
	fameOfOne   = 256         // records at once for one network,
	fameOfOneBy = 4           // and each second from then on
)

// remember records that a name was denied, unless it did so a moment ago.
func (s *Server) remember(q *question, from asker, v *verdict) {
	switch s.fame.first(from.remote.Addr(), q.name, v.at) {
	case again:
		return
	case crowded:
		if s.stats.unrecorded.Add(1) == 1 {
			s.deps.Log.Warn().Msg("dns: more denied names than are recorded; sallyport_dns_unrecorded_total counts on")
		}
		return
	}
	d := &v.decision
	r := flow.Record{
		ID: s.deps.NewID(), Start: v.at, End: time.Now(), Via: policy.ViaDNS, Datagram: from.datagram,
		Listener: from.local, Client: from.remote,
		Source: d.Source, Principal: v.source.Principal, VPCEndpoint: v.source.VPCEndpoint, Task: v.source.Task,
		Unidentified: v.source.Unidentified,
		Host:         strings.ToLower(strings.TrimSuffix(q.name, ".")), S3: d.S3,
		Verdict: d.Verdict, Mode: d.Mode, Reason: d.Reason, Rule: d.RuleName(), PolicyVersion: v.version,
		Outcome: flow.Outcome(d.Reason),
		Error:   "the name was not looked up; its " + dns.Type(q.qtype).String() + " records were asked for",
	}
	if d.Rule != nil {
		r.Owner = d.Rule.Owner
	}
	s.deps.Recorder.Observe(flow.Event{Kind: flow.Denied, Record: r})
}

// sight says whether a denied name should be recorded.
type sight uint8

const (
	firstTime sight = iota
	again           // it was, within the last minute
	crowded         // there is no room
)

// fame remembers which denied names were recorded, by hash: two that share one
// by chance share a record.
type fame struct {
	rate *buckets
	seed maphash.Seed

	mu    sync.Mutex // guards what follows
	seen  map[uint64]time.Time
	swept time.Time // a look at all of seen takes its time, and is not for every question
}

// asked is what makes a record another one.
type asked struct {
	addr netip.Addr
	name string
}

func newFame() *fame {
	return &fame{rate: newBuckets(fameOfOneBy, fameOfOne), seed: maphash.MakeSeed(), seen: make(map[uint64]time.Time)}
}

func (f *fame) first(addr netip.Addr, name string, now time.Time) sight {
	key := maphash.Comparable(f.seed, asked{addr, strings.ToLower(name)})
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, ok := f.seen[key]; ok && now.Sub(at) < famePause {
		return again
	}
	if len(f.seen) >= fameNames && now.Sub(f.swept) >= time.Second {
		f.swept = now
		for k, at := range f.seen {
			if now.Sub(at) >= famePause {
				delete(f.seen, k)
			}
		}
	}
	if len(f.seen) >= fameNames || !f.rate.take(addr, now) {
		return crowded
	}
	f.seen[key] = now
	return firstTime
}
