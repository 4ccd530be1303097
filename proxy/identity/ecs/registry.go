package ecs

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policy"
)

const (
	// apiLag is how long an answer of AWS may be older than what is known.
	apiLag = time.Minute
	// recheck is when a task is described again although nothing speaks for a
	// change: its tags may have.
	recheck = 5 * time.Minute
	// unaddressed is how long a task without an address is asked about at each
	// poll: it is being provisioned, or will never have one.
	unaddressed = 10 * time.Minute
	// remembered is how long a task that is gone keeps older answers out.
	remembered = 15 * time.Minute
)

// described is what AWS says of a task.
type described struct {
	task    *policy.Task
	version int64
	created time.Time
	addrs   []netip.Addr
	gone    bool // nothing of it can call any more
}

// record is one task as one watcher knows it. The registry's mutex protects
// all of it.
type record struct {
	described
	keys   []key     // that it holds
	first  time.Time // when it was seen first
	at     time.Time // when what is known of it was said
	due    time.Time // when to describe it again
	listed uint64    // the listing that had it last
	lost   bool      // a newer task has its address
}

// registry is every task that is known, and who holds which address.
type registry struct {
	mu      sync.Mutex // protects what follows, every record, and writing to the table
	holders map[key]*record
	changed chan struct{} // closed and replaced when somebody becomes known
	tasks   int           // records that are not gone

	table table
}

func newRegistry() *registry {
	return &registry{holders: make(map[key]*record), changed: make(chan struct{})}
}

// change returns a channel that is closed when somebody becomes known.
func (r *registry) change() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// counts returns how many tasks are known, and how many addresses.
func (r *registry) counts() (tasks, addresses int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tasks, len(r.holders)
}

// book is one watcher's part of the registry.
type book struct {
	reg       *registry
	endpoints []string
	records   map[string]*record // by ARN
	listing   uint64             // the number of the last listing
	account   string             // whose cluster it is; "" while nobody knows
}

func (r *registry) newBook(account string, endpoints []string) *book {
	return &book{reg: r, account: account, endpoints: endpoints, records: make(map[string]*record)}
}

// foreign reports whether the watcher's cluster is another account's. Accounts
// call their clusters alike.
func (b *book) foreign(account string) bool {
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	return b.account != "" && b.account != account
}

// begin begins a listing.
func (b *book) begin() {
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	b.listing++
}

// page notes that the listing has these tasks, and returns which of them to
// describe: those that are new, those without an address yet and, when one is
// due for another look, all of them, as that takes no more calls.
func (b *book) page(arns []string, now time.Time) []string {
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	var need, all []string
	due := false
	for _, a := range arns {
		rec := b.records[a]
		switch {
		case rec == nil:
			need = append(need, a)
		case rec.gone && now.Sub(rec.at) < apiLag:
			rec.listed = b.listing // an old listing
			continue
		default:
			rec.listed = b.listing
			due = due || !now.Before(rec.due)
			if rec.gone || len(rec.addrs) == 0 && now.Sub(rec.first) < unaddressed {
				need = append(need, a)
			}
		}
		all = append(all, a)
	}
	if due {
		return all
	}
	return need
}

// vanished returns the tasks that are known and were not in the listing, and
// forgets those that have been gone for long.
func (b *book) vanished(now time.Time) []string {
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	var out []string
	for a, rec := range b.records {
		switch {
		case !rec.gone && rec.listed != b.listing:
			out = append(out, a)
		case rec.gone && now.Sub(rec.at) >= remembered:
			delete(b.records, a)
		}
	}
	slices.Sort(out)
	return out
}

// apply takes in what AWS says, now, of tasks, and what it does not find.
func (b *book) apply(tasks []described, missing []string, now time.Time) {
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	news := false
	for _, d := range tasks {
		news = b.applyLocked(d, now) || news
	}
	for _, a := range missing {
		// A task that was never seen may just be too new to be described.
		if rec := b.records[a]; rec != nil {
			b.endLocked(rec, rec.version, now)
		}
	}
	if news {
		close(b.reg.changed)
		b.reg.changed = make(chan struct{})
	}
}

// applyLocked reports whether somebody became known.
func (b *book) applyLocked(d described, now time.Time) bool {
	rec := b.records[d.task.ARN]
	if a, ok := parseARN(d.task.ARN); ok && b.account == "" {
		b.account = a.account
	}
	if rec == nil {
		rec = &record{first: now, described: described{gone: true}} // until it is counted below
		b.records[d.task.ARN] = rec
	} else if d.version < rec.version && now.Sub(rec.at) < apiLag {
		return false
	}
	if d.gone {
		rec.described.task, rec.created = d.task, d.created
		b.endLocked(rec, d.version, now)
		return false
	}
	if rec.gone {
		b.reg.tasks++
	}
	if rec.task != nil && equal(rec.task, d.task) {
		d.task = rec.task // one value for as long as nothing changes
	}
	rec.described = d
	rec.at, rec.due, rec.listed = now, now.Add(recheck), b.listing
	return b.claimLocked(rec)
}

// endLocked notes that a task is gone, and leaves its addresses to nobody.
func (b *book) endLocked(rec *record, version int64, now time.Time) {
	if !rec.gone {
		b.reg.tasks--
	}
	rec.gone, rec.at, rec.addrs = true, now, nil
	rec.version = max(rec.version, version)
	b.reg.releaseLocked(rec)
}

// ended takes in an event: the task is gone. One that was never seen has
// nothing to be taken away.
func (b *book) ended(taskARN string, version int64, now time.Time) {
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	if rec := b.records[taskARN]; rec != nil && !rec.gone && version >= rec.version {
		b.endLocked(rec, version, now)
	}
}

// size returns how many of the watcher's tasks are known.
func (b *book) size() int {
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	n := 0
	for _, rec := range b.records {
		if !rec.gone {
			n++
		}
	}
	return n
}

// current reports whether what is known of a task is of that version or later.
func (b *book) current(taskARN string, version int64) bool {
	b.reg.mu.Lock()
	defer b.reg.mu.Unlock()
	rec := b.records[taskARN]
	return rec != nil && rec.version >= version
}

// claimLocked gives a task its addresses, but for those that a newer one has,
// and reports whether it got one that it had not.
func (b *book) claimLocked(rec *record) bool {
	if rec.lost {
		return false
	}
	want := make([]key, 0, len(rec.addrs)*len(b.endpoints))
	for _, a := range rec.addrs {
		for _, e := range b.endpoints {
			want = append(want, key{a, e})
		}
	}
	for _, k := range rec.keys {
		if !slices.Contains(want, k) && b.reg.holders[k] == rec {
			b.reg.freeLocked(k)
		}
	}
	got := false
	for _, k := range want {
		holder := b.reg.holders[k]
		switch {
		case holder == nil, holder == rec:
		case holder.task.ARN == rec.task.ARN: // one cluster, watched twice
		case newer(holder, rec):
			rec.lost = true
			b.reg.releaseLocked(rec)
			return false
		default:
			holder.lost = true
			b.reg.releaseLocked(holder)
		}
		if holder == rec && b.reg.table.get(k) == rec.task {
			continue
		}
		got = got || holder != rec
		b.reg.holders[k] = rec
		b.reg.table.set(k, rec.task)
	}
	rec.keys = want
	return got
}

// releaseLocked takes all of a task's addresses from it.
func (r *registry) releaseLocked(rec *record) {
	for _, k := range rec.keys {
		if r.holders[k] == rec {
			r.freeLocked(k)
		}
	}
	rec.keys = nil
}

func (r *registry) freeLocked(k key) {
	delete(r.holders, k)
	r.table.set(k, nil)
}

// newer reports whether a was created after b. Of two at the same moment the
// ARN decides, so that the order of answers does not.
func newer(a, b *record) bool {
	return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.task.ARN, b.task.ARN)) > 0
}

func equal(a, b *policy.Task) bool {
	return a.ARN == b.ARN && a.Cluster == b.Cluster && a.Service == b.Service && a.Family == b.Family &&
		a.Revision == b.Revision && maps.Equal(a.Tags, b.Tags)
}
