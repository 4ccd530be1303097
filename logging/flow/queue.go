package flow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Full says what a [Queue] does with an event that finds it full.
type Full uint8

// The two ways. Drop, the zero value, keeps traffic going and counts what is
// lost; Block keeps every event and lets connections wait for the reader.
const (
	Drop Full = iota
	Block
)

// String returns "drop" or "block".
func (f Full) String() string {
	if f == Block {
		return "block"
	}
	return "drop"
}

// ParseFull reads the words that [Full.String] writes.
func ParseFull(s string) (Full, error) {
	switch s {
	case "drop":
		return Drop, nil
	case "block":
		return Block, nil
	}
	return Drop, fmt.Errorf("unknown word %q for a full queue, want drop or block", s)
}

// DefaultDrain is how long a stopped [Queue] waits for its sink.
const DefaultDrain = 2 * time.Second

// ErrStalled is what [Queue.Run] returns when the sink did not finish in time
// after the stop.
var ErrStalled = errors.New("the reader of events did not finish in time")

// Queue is a [Reader] that puts a bounded buffer between connections and a
// slow sink. Whatever happens, every observed event is either handed to the
// sink or counted by [Queue.Dropped]. Make it with [NewQueue], then Run it.
type Queue struct {
	// Drain bounds how long Run waits, after its context ended, for the sink to
	// take what is queued. Set it before Run; zero means [DefaultDrain].
	Drain time.Duration

	events  chan *Event
	pool    Pool
	full    Full
	sink    func(*Event)
	lost    func(n uint64)
	hurry   chan struct{} // closed: nobody waits for room any more
	hurry1  sync.Once
	stop    chan struct{} // closed: no event is accepted any more
	done    chan struct{} // closed: nobody takes events any more
	dropped atomic.Uint64
}

// NewQueue returns a Queue of at most size events (at least one). Run calls
// sink for each, one at a time; the event is the sink's until it returns.
// Unless it is nil, lost is called before the next event whenever some were
// dropped, with how many since the last call, never at the same time as sink.
func NewQueue(size int, full Full, sink func(*Event), lost func(n uint64)) *Queue {
	if lost == nil {
		lost = func(uint64) {}
	}
	return &Queue{
		events: make(chan *Event, max(size, 1)),
		full:   full,
		sink:   sink,
		lost:   lost,
		hurry:  make(chan struct{}),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
}

// Observe queues e. If the queue is full it waits or drops e, as configured;
// if the queue was stopped it drops e at once.
func (q *Queue) Observe(e Event) { q.Borrow(&e) }

// Borrow implements [Borrower].
func (q *Queue) Borrow(e *Event) {
	own := q.pool.Copy(e)
	if q.put(own) {
		select {
		case <-q.done:
			q.sweep() // the taker left between the question and the answer
		default:
		}
		return
	}
	q.pool.Put(own)
	q.dropped.Add(1)
}

func (q *Queue) put(e *Event) bool {
	select {
	case <-q.stop:
		return false
	default:
	}
	select {
	case q.events <- e:
		return true
	default:
	}
	if q.full == Drop {
		return false
	}
	select {
	case q.events <- e:
		return true
	case <-q.hurry:
	case <-q.stop:
	}
	return false
}

// Hurry makes a blocking queue drop from now on, and lets go of everybody who
// waits for room in it. Whoever stops connections calls it when their time is
// over: they could not end while they wait for a sink that is stuck.
func (q *Queue) Hurry() { q.hurry1.Do(func() { close(q.hurry) }) }

// sweep counts the events that nobody will take as dropped.
func (q *Queue) sweep() {
	for {
		select {
		case e := <-q.events:
			q.pool.Put(e)
			q.dropped.Add(1)
		default:
			return
		}
	}
}

// Dropped returns how many events were lost since the start.
func (q *Queue) Dropped() uint64 { return q.dropped.Load() }

// Len returns how many events wait. Asked from within the sink, zero means
// that no call follows at once: the moment to flush.
func (q *Queue) Len() int { return len(q.events) }

// Run hands events to the sink until ctx ends, then drains what is queued and
// returns nil. Call it once. End ctx after the last connection was recorded:
// what is observed later is dropped and counted. An event whose sink panics
// is counted as dropped, and the next one follows.
//
// When the sink has not finished [Queue.Drain] after ctx ended, Run returns
// [ErrStalled] with what is left counted as dropped. The goroutine inside the
// sink is then given up: a write that the kernel holds cannot be called back.
func (q *Queue) Run(ctx context.Context) error {
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		q.take()
	}()
	<-ctx.Done()
	close(q.stop)

	drain := q.Drain
	if drain <= 0 {
		drain = DefaultDrain
	}
	timer := time.NewTimer(drain)
	defer timer.Stop()
	var err error
	select {
	case <-finished:
	case <-timer.C:
		err = ErrStalled
	}
	close(q.done)
	q.sweep()
	return err
}

// take hands events over until the queue was stopped and is empty, or until
// its time is up.
func (q *Queue) take() {
	var told uint64
	tell := func() {
		if n := q.dropped.Load(); n > told {
			q.lost(n - told)
			told = n
		}
	}
	for e := range q.next {
		tell()
		q.deliver(e)
	}
	tell()
}

// next yields the queued events, oldest first.
func (q *Queue) next(yield func(*Event) bool) {
	for running := true; running; {
		select {
		case e := <-q.events:
			running = yield(e)
		case <-q.stop:
			running = false
		}
	}
	for {
		select {
		case <-q.done:
			return // Run did not wait any longer, nor may the sink be called
		default:
		}
		select {
		case e := <-q.events:
			yield(e)
		default:
			return
		}
	}
}

func (q *Queue) deliver(e *Event) {
	defer func() {
		if recover() != nil {
			q.dropped.Add(1)
		}
	}()
	defer q.pool.Put(e)
	q.sink(e)
}
