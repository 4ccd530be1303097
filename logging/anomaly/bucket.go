package anomaly

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// A bucket whose requests nobody sees counts as written when so much is sent
// to it in an hour, and so many times what comes back.
const (
	writeBytes = 1 << 20
	writeTimes = 4
)

// bucket is what one caller does with one bucket.
type bucket struct {
	read  time.Time // when it was first, zero for never
	wrote bool
}

// access is what a site does with its bucket.
type access uint8

const (
	accessNothing access = iota
	accessRead
	accessWrite
)

// accessOf tells reading from writing: by the operation where requests are
// inspected, else by the bytes.
func accessOf(s *history.Site) access {
	if s.Call.Operation != "" {
		for _, verb := range []string{"Get", "List", "Head", "Select"} {
			if strings.HasPrefix(s.Call.Operation, verb) {
				return accessRead
			}
		}
		return accessWrite
	}
	switch {
	case s.Inspected || s.Verdict == policy.Deny:
		return accessNothing // a request that could not be read, and nothing was sent
	case s.BytesSent >= writeBytes && s.BytesSent >= writeTimes*s.BytesReceived:
		return accessWrite
	case s.BytesReceived > 0:
		return accessRead
	}
	return accessNothing
}

// learnBucket notes what was ever done with a site's bucket.
func (w *Watcher) learnBucket(s *history.Site) (b *bucket, what access) {
	name := bucketOf(s)
	if name == "" {
		return nil, accessNothing
	}
	v := w.visitOf(s.Name(), name)
	if b = w.buckets[v]; b == nil {
		if len(w.buckets) >= w.cfg.Sites {
			w.unwatched()
			return nil, accessNothing
		}
		b = &bucket{}
		w.buckets[v] = b
	}
	what = accessOf(s)
	if what == accessRead && (b.read.IsZero() || s.First.Before(b.read)) {
		b.read = s.First
	}
	// What is sent and received alike, as long as the bucket is learned, is
	// reading and writing: that it was only read must be certain.
	learning := w.last.IsZero() || s.Last.Sub(b.read) < w.cfg.Learn
	if learning && (what == accessWrite || s.BytesSent >= writeBytes && 2*s.BytesSent >= s.BytesReceived) && s.Verdict == policy.Allow {
		b.wrote = true
	}
	return b, what
}

// writes finds the buckets that are written and were only read.
func (w *Watcher) writes(ctx context.Context, sites []history.Site, now time.Time) error {
	var errs []error
	for i := range sites {
		s := &sites[i]
		b, what := w.learnBucket(s)
		c := w.callers[s.Name()]
		if b == nil || c == nil || what != accessWrite || b.wrote {
			continue
		}
		b.wrote = true
		if b.read.IsZero() || now.Sub(b.read) < w.cfg.Learn || !c.mature(w.cfg.Learn, now) {
			continue
		}
		e := siteEvidence(s)
		e.Value, e.Unit = float64(s.BytesSent), "bytes"
		e.Text = fmt.Sprintf("%s writes the bucket %s, which it has only read for %s: %s sent in the hour",
			c.name, bucketOf(s), ageText(now.Sub(b.read)), amount(e.Value, e.Unit))
		severity := flow.Medium
		if s.Call.Operation != "" {
			e.Text = fmt.Sprintf("%s writes the bucket %s (%s), which it has only read for %s",
				c.name, bucketOf(s), s.Call.Operation, ageText(now.Sub(b.read)))
		}
		if s.Verdict == policy.Allow && (s.WouldDeny || s.BytesSent >= 100<<20) {
			severity = flow.High
		}
		errs = append(errs, w.raise(ctx, flow.Anomaly{
			Kind: flow.AnomalyBucketWrite, Caller: c.name, Subject: bucketOf(s), Severity: severity, First: s.First, Last: s.Last, Evidence: e,
		}, *s))
	}
	return errors.Join(errs...)
}
