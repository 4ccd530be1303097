package ecs

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// counters are a Directory's figures since it was made.
type counters struct {
	hit, found, absent, unknown, unanswered, errors atomic.Uint64
}

// Status is what a Directory knows, and how well.
type Status struct {
	Tasks     int // that can call
	Addresses int
	// Age is the time since the oldest cluster's last whole listing, or since
	// the Directory was made when there was none.
	Age time.Duration
	// Loaded means that every cluster was listed once.
	Loaded   bool
	Lookups  Lookups
	Errors   uint64 // calls to ECS and SQS that failed, after their retries
	Events   Events
	Clusters []ClusterStatus
}

// Lookups counts the calls of [Directory.Identify] by how they ended.
type Lookups struct {
	Hit        uint64 // known
	Found      uint64 // not known, and found by asking
	Unknown    uint64 // asked about, and nobody
	Absent     uint64 // nobody a moment ago, or not at an endpoint that any cluster has
	Unanswered uint64 // AWS did not answer in time
}

// Events counts the messages of the queue.
type Events struct {
	Applied uint64 // task state changes of our clusters
	Junk    uint64 // anything else, deleted likewise
	Failing error  // why the queue cannot be read; nil when it can, or there is none
}

// ClusterStatus is one cluster's part of a [Status].
type ClusterStatus struct {
	Cluster, Region string
	Tasks           int
	Age             time.Duration // see Status.Age
	Loaded          bool
	Failing         error // why the last listing failed; nil when it did not
}

// Status returns what holds now.
func (d *Directory) Status() Status {
	now := time.Now()
	s := Status{Loaded: true, Errors: d.stats.errors.Load(), Lookups: Lookups{
		Hit: d.stats.hit.Load(), Found: d.stats.found.Load(), Unknown: d.stats.unknown.Load(),
		Absent: d.stats.absent.Load(), Unanswered: d.stats.unanswered.Load(),
	}}
	s.Tasks, s.Addresses = d.reg.counts()
	for _, w := range d.watchers {
		c := ClusterStatus{Cluster: w.cluster.name(), Region: w.region, Tasks: w.book.size()}
		w.mu.Lock()
		c.Loaded, c.Failing = !w.good.IsZero(), w.failure
		c.Age = now.Sub(w.good)
		w.mu.Unlock()
		if !c.Loaded {
			c.Age = now.Sub(d.began)
		}
		s.Loaded = s.Loaded && c.Loaded
		s.Age = max(s.Age, c.Age)
		s.Clusters = append(s.Clusters, c)
	}
	if d.events != nil {
		s.Events = d.events.status()
	}
	return s
}

// String says it for people, in one line: how many tasks, how old, and what is
// wrong.
func (s Status) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d tasks in %d clusters, as of %s ago", s.Tasks, len(s.Clusters), s.Age.Round(time.Second))
	for _, c := range s.Clusters {
		switch {
		case c.Failing != nil && c.Loaded:
			fmt.Fprintf(&b, "; %s in %s as of %s ago: %v", c.Cluster, c.Region, c.Age.Round(time.Second), c.Failing)
		case c.Failing != nil:
			fmt.Fprintf(&b, "; %s in %s is not known: %v", c.Cluster, c.Region, c.Failing)
		case !c.Loaded:
			fmt.Fprintf(&b, "; %s in %s is being listed", c.Cluster, c.Region)
		}
	}
	if s.Events.Failing != nil {
		fmt.Fprintf(&b, "; events: %v", s.Events.Failing)
	}
	return b.String()
}
