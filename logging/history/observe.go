package history

import (
	"hash/maphash"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// The bounds of what is remembered between two batches, and of what clients can
// make up.
const (
	// maxTargets is how many targets one caller may make in an hour, and
	// dayTargets in a day, before the rest is [Other].
	maxTargets = 1024
	dayTargets = 4 * maxTargets
	// maxCallers is how many callers are told apart by those bounds.
	maxCallers = 1024
	// otherFlows is how many flows to [Other] are kept of a caller in an hour.
	otherFlows = 1024
	// maxStates is how many sites' identifiers are remembered.
	maxStates = 2048
	// maxText bounds a text of a client's.
	maxText = 255
)

// observer turns events into the sums and rows of a batch. Connections call it
// by themselves: what it does under its lock is a few look-ups in maps, which is
// less than it would cost to hand the event to anybody else.
type observer struct {
	mu      sync.Mutex // protects what follows, batch included
	batch   *batch
	batches uint64 // that were taken
	full    int    // flows that a batch may hold

	perSite int                 // flows of a site that a batch keeps; below 0 all
	open    map[uint64]struct{} // hashes of the IDs of flows that were kept and have not ended

	states map[string]*siteState   // by the digest of their keys
	tasks  map[*policy.Task]string // to their IDs
	seed   maphash.Seed
	names  map[crowdKey]*crowd
	hour   int64 // of names
	stats  Stats

	// key and digest are of the event that is observed. They are here because what
	// a connection has on its stack for them makes the stack grow, which costs more
	// than all that is done with them.
	key    siteKey
	digest digest
}

// siteState is what is remembered of a site between batches.
type siteState struct {
	id     string
	key    siteKey
	hour   int64           // in which it was counted among its caller's targets
	traits map[trait]int64 // to the hour in which it was written last
	tasks  int             // of the traits
	now    current
}

// current is what an event at a site most likely adds to, again.
type current struct {
	batch uint64 // number of the batch that sum is in
	hour  int64
	sum   *sum
	task  *policy.Task // that is marked in sum
}

// trait is a task or a revision that was seen at a site.
type trait struct {
	kind  string // traitTask or traitRevision
	value string
}

const (
	traitTask     = "t"
	traitRevision = "r"
)

// crowdKey is whose targets are counted.
type crowdKey struct {
	caller Caller
	listed bool // a rule allows them
}

// crowd is how many targets a caller has made.
type crowd struct {
	hour, day map[uint64]struct{} // hashes of targets
	flows     int                 // kept of those beyond the bound, this hour
}

func newObserver(full, perSite int) *observer {
	return &observer{
		batch: newBatch(), full: full, perSite: perSite, open: map[uint64]struct{}{},
		states: map[string]*siteState{}, tasks: map[*policy.Task]string{},
		seed: maphash.MakeSeed(), names: map[crowdKey]*crowd{},
	}
}

// observe adds an event to the batch, and reports whether it is time to write.
func (o *observer) observe(e *flow.Event, now time.Time) (due bool) {
	r := &e.Record
	at := r.Start
	if e.Kind == flow.Closed {
		at = r.End
	}
	if at.IsZero() {
		at = now
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Events++
	o.key.set(r)
	state, known := o.place(at)
	sum := o.sum(state, at)
	if sum == nil {
		o.batch.gap.Events++
		o.stats.Dropped++
		return true
	}
	sum.add(e, at)
	o.mark(sum, state, r, at)
	if !o.wants(e, sum) || !known && !o.keeps() {
		o.stats.Unkept++
		return false
	}
	o.keep(e, state)
	return len(o.batch.flows) >= o.full/2
}

// place returns the site of the event, and whether it is the event's own and not
// [Other]'s. A site that was seen in this hour needs no counting.
func (o *observer) place(at time.Time) (*siteState, bool) {
	o.turn(at)
	if s := o.known(); s != nil && s.hour == o.hour {
		return s, true
	}
	whole := o.fold()
	s := o.state()
	if whole {
		s.hour = o.hour
	}
	return s, whole
}

// known returns the state of the event's site, nil for none.
func (o *observer) known() *siteState {
	o.digest.buf = o.digest.buf[:0]
	o.digest.site(&o.key)
	return o.states[string(o.digest.buf)]
}

// sum returns what the event is added to, nil when there are too many.
func (o *observer) sum(state *siteState, at time.Time) *sum {
	hour := floorDiv(at.Unix(), 3600)
	c := &state.now
	if c.sum == nil || c.batch != o.batches || c.hour != hour {
		*c = current{batch: o.batches, hour: hour, sum: o.batch.sum(state, hour, at)}
	}
	return c.sum
}

// set makes k the site of a record. It sets field by field: a value would be put
// together on the stack.
func (k *siteKey) set(r *flow.Record) {
	*k = siteKey{}
	k.Source, k.Principal, k.VPCEndpoint = legible(r.Source), legible(r.Principal), legible(r.VPCEndpoint)
	k.Unidentified = r.Unidentified
	k.Via, k.Protocol, k.Host, k.Port, k.Inspected, k.S3 = r.Via, r.Protocol, legible(r.Host), r.Port, r.Inspected, r.S3
	k.verdict, k.wouldDeny, k.reason, k.rule = r.Verdict, r.WouldDeny, r.Reason, legible(r.Rule)
	if t := r.Task; t != nil {
		k.Cluster, k.Service, k.Family = legible(t.Cluster), legible(t.Service), legible(t.Family)
	}
	if r.Asked != nil {
		k.S3 = r.Asked.Ref
		k.Call.set(r.Asked)
	}
	legibleRef(&k.S3)
}

// set makes c what a request asked.
func (c *Call) set(asked *policy.S3Call) {
	c.Host, c.Operation, c.ACL = asked.Host.String(), asked.Operation, asked.ACL
	c.Scheme, c.Account = asked.Signer.Scheme, legible(asked.Signer.Account)
	c.Source = asked.Source.Ref
	legibleRef(&c.Source)
}

func legibleRef(r *policy.S3Ref) {
	if r.Form == "" {
		return
	}
	r.Bucket, r.AccessPoint, r.Account, r.Region = legible(r.Bucket), legible(r.AccessPoint), legible(r.Account), legible(r.Region)
}

// listed reports whether a rule allows what was asked.
func listed(k *siteKey) bool { return k.verdict == policy.Allow && !k.wouldDeny }

// fold makes [Other] of the event's target if it is beyond the bound of its
// caller. It reports whether the target stayed itself.
func (o *observer) fold() bool {
	k := &o.key
	c := o.crowd(crowdKey{k.Caller, listed(k)})
	h := maphash.Comparable(o.seed, k.Target)
	if _, known := c.hour[h]; known {
		return true
	}
	_, today := c.day[h]
	if len(c.hour) >= maxTargets || !today && len(c.day) >= dayTargets {
		k.Target = Target{Via: k.Via, Protocol: k.Protocol, Host: Other}
		o.stats.Folded++
		return false
	}
	c.hour[h], c.day[h] = struct{}{}, struct{}{}
	return true
}

// turn forgets who was seen in an hour when another begins. A clock that steps
// back begins one, too.
func (o *observer) turn(at time.Time) {
	hour := at.Unix() / 3600
	if hour == o.hour || hour == o.hour-1 { // the end of an attempt may be told late
		return
	}
	if hour/24 != o.hour/24 {
		clear(o.names)
	}
	o.hour = hour
	for _, c := range o.names {
		clear(c.hour)
		c.flows = 0
	}
}

func (o *observer) crowd(k crowdKey) *crowd {
	c := o.names[k]
	if c == nil && len(o.names) >= maxCallers {
		k.caller = Caller{}
		c = o.names[k]
	}
	if c == nil {
		c = &crowd{hour: map[uint64]struct{}{}, day: map[uint64]struct{}{}}
		o.names[k] = c
	}
	return c
}

// firstFlows are the flows of each site that a batch keeps in any case, and
// fewFlows what it keeps of all before it goes down to them.
const (
	firstFlows = 2
	fewFlows   = 500
	// maxOpen bounds the flows of which it is known that their beginning was kept.
	maxOpen = 1 << 16
)

// wants reports whether an event's flow is to be kept. A busy site is told by its
// figures: to keep each of its flows would cost more than all the rest. What was
// kept of a flow's beginning is kept of its end.
func (o *observer) wants(e *flow.Event, s *sum) bool {
	id := maphash.String(o.seed, e.Record.ID)
	_, open := o.open[id]
	if open && e.Kind == flow.Closed {
		delete(o.open, id)
		return true
	}
	most := o.perSite
	if len(o.batch.flows) >= fewFlows {
		most = min(most, firstFlows)
	}
	if o.perSite >= 0 && s.kept >= most {
		return false
	}
	s.kept++
	if e.Kind == flow.Opened && len(o.open) < maxOpen {
		o.open[id] = struct{}{}
	}
	return true
}

// keeps reports whether another flow to [Other] is kept.
func (o *observer) keeps() bool {
	c := o.crowd(crowdKey{o.key.Caller, listed(&o.key)})
	c.flows++
	return c.flows <= otherFlows
}

// state returns the state of the event's site.
func (o *observer) state() *siteState {
	if s := o.known(); s != nil {
		return s
	}
	if len(o.states) >= maxStates {
		clear(o.states) // those in use are back at once
	}
	s := &siteState{id: o.digest.String(), key: o.key, traits: map[trait]int64{}, hour: -1}
	o.states[string(o.digest.buf)] = s
	return s
}

// mark notes whose task was seen at a site, once an hour.
func (o *observer) mark(sum *sum, s *siteState, r *flow.Record, at time.Time) {
	if r.Task == nil || r.Task == s.now.task {
		return
	}
	sum.task = o.task(r.Task, at)
	s.now.task = r.Task
	hour := at.Unix() / 3600
	if id := legible(r.Task.ID()); id != "" {
		o.note(sum, s, trait{traitTask, id}, hour, at)
	}
	if r.Task.Family != "" {
		o.note(sum, s, trait{traitRevision, legible(r.Task.Family) + ":" + strconv.Itoa(r.Task.Revision)}, hour, at)
	}
}

func (o *observer) note(sum *sum, s *siteState, t trait, hour int64, at time.Time) {
	last, known := s.traits[t]
	switch {
	case known && last == hour:
		return
	case known:
	case t.kind == traitTask && s.tasks >= MaxTasks, len(s.traits) >= 4*MaxTasks:
		return
	case t.kind == traitTask:
		s.tasks++
	}
	s.traits[t] = hour
	sum.seen(t, at)
}

// task returns the ID of a task's row, and has the row written.
func (o *observer) task(t *policy.Task, at time.Time) string {
	id, known := o.tasks[t]
	if !known {
		if len(o.tasks) >= maxCallers {
			clear(o.tasks)
		}
		id = taskID(t)
		o.tasks[t] = id
	}
	if _, there := o.batch.tasks[id]; !there {
		o.batch.tasks[id] = taskRow{t, at}
	}
	return id
}

// keep puts the flow into the batch; what was told of it in the same batch is
// replaced.
func (o *observer) keep(e *flow.Event, s *siteState) {
	id := e.Record.ID
	if _, there := o.batch.flows[id]; !there && len(o.batch.flows) >= o.full {
		o.batch.gap.Flows++
		o.stats.Dropped++
		return
	}
	o.batch.flows[id] = &row{site: s, rec: e.Record, kind: e.Kind}
}

// take returns the batch and begins another; nil when there is nothing in it.
func (o *observer) take() *batch {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.batch.empty() {
		return nil
	}
	b := o.batch
	o.batch = newBatch()
	o.batches++
	return b
}

// snapshot returns the figures.
func (o *observer) snapshot() (Stats, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stats, len(o.batch.flows) + len(o.batch.sums)
}

// lose counts what a batch held that no store took.
func (o *observer) lose(b *batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Dropped += uint64(len(b.flows))
	o.batch.gap.merge(b.gap)
	o.batch.gap.Flows += int64(len(b.flows))
	for _, s := range b.sums {
		o.batch.gap.Events += s.Visits
	}
}

// legible returns a text as it may be stored and shown anywhere: printable
// ASCII, with Go's escapes for everything else, of bounded length.
func legible(s string) string {
	plain := len(s) <= maxText
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	s = strconv.QuoteToASCII(s[:min(len(s), maxText)])
	s = s[1 : len(s)-1]
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}

// addrText returns an address as it is stored, "" for none.
func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}
