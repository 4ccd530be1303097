package flow

import "slices"

// Reader is told of every event. Observe is called on the goroutine of the
// connection, from many of them at once: it must be quick and must not keep a
// lock while it waits for anything. A slow reader sits behind a [Queue].
type Reader interface {
	Observe(Event)
}

// Bus hands each event to a fixed set of readers. It is immutable and safe
// for concurrent use.
type Bus struct {
	readers []Reader
	onPanic func(r Reader, value any)
}

// NewBus returns a Bus of the given readers, which are called in this order.
func NewBus(readers ...Reader) *Bus {
	return &Bus{readers: slices.Clone(readers)}
}

// OnPanic returns a Bus of the same readers that calls report when one of
// them panics, on the connection's goroutine while the panic unwinds, so that
// debug.Stack shows where it came from. Without it a panic is swallowed.
func (b *Bus) OnPanic(report func(r Reader, value any)) *Bus {
	return &Bus{readers: b.readers, onPanic: report}
}

// Observe calls every reader with e, in order, and returns when all have
// returned. A reader's panic ends there: the remaining readers are called and
// nothing reaches the caller.
func (b *Bus) Observe(e Event) {
	for _, r := range b.readers {
		b.observe(r, &e)
	}
}

// observe calls one reader. The event travels by pointer, for it is large and
// the compiler does not inline a function that defers.
func (b *Bus) observe(r Reader, e *Event) {
	defer func() {
		if v := recover(); v != nil && b.onPanic != nil {
			defer func() { _ = recover() }() // the report itself may panic
			b.onPanic(r, v)
		}
	}()
	r.Observe(*e)
}
