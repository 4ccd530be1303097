package flow

import "slices"

// Reader is told of every event. Observe is called on the goroutine of the
// connection, from many of them at once: it must be quick and must not keep a
// lock while it waits for anything. A slow reader sits behind a [Queue].
type Reader interface {
	Observe(Event)
}

// Borrower is a Reader that needs no copy of its own: events are large, and
// copied through every call they cost more than what most readers do with them.
type Borrower interface {
	Reader
	// Borrow is Observe of an event that is the reader's until it returns. It
	// must not change it.
	Borrow(e *Event)
}

// Bus hands each event to a fixed set of readers. It is immutable and safe
// for concurrent use.
type Bus struct {
	readers []Reader
	onPanic func(r Reader, value any)
	lent    *Pool
}

// NewBus returns a Bus of the given readers, which are called in this order.
func NewBus(readers ...Reader) *Bus {
	return &Bus{readers: slices.Clone(readers), lent: new(Pool)}
}

// OnPanic returns a Bus of the same readers that calls report when one of
// them panics, on the connection's goroutine while the panic unwinds, so that
// debug.Stack shows where it came from. Without it a panic is swallowed.
func (b *Bus) OnPanic(report func(r Reader, value any)) *Bus {
	return &Bus{readers: b.readers, onPanic: report, lent: b.lent}
}

// Observe calls every reader with e, in order, and returns when all have
// returned. A reader's panic ends there: the remaining readers are called and
// nothing reaches the caller.
func (b *Bus) Observe(e Event) {
	lent := b.lent.Copy(&e)
	defer b.lent.Put(lent)
	b.Borrow(lent)
}

// Borrow implements [Borrower].
func (b *Bus) Borrow(e *Event) {
	for _, r := range b.readers {
		b.observe(r, e)
	}
}

// observe calls one reader.
func (b *Bus) observe(r Reader, e *Event) {
	defer func() {
		if v := recover(); v != nil && b.onPanic != nil {
			defer func() { _ = recover() }() // the report itself may panic
			b.onPanic(r, v)
		}
	}()
	if borrower, ok := r.(Borrower); ok {
		borrower.Borrow(e)
		return
	}
	give(r, e)
}

// give hands a copy over, in a frame of its own: a copy on the stack makes that
// of every connection's goroutine grow.
//
//go:noinline
func give(r Reader, e *Event) { r.Observe(*e) }
