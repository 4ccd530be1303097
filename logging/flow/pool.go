package flow

import "sync"

// Pool holds events that are copied often and kept for a moment. The zero value
// is ready to use.
type Pool struct{ pool sync.Pool }

// Copy returns a copy of e, the caller's until it puts it back.
func (p *Pool) Copy(e *Event) *Event {
	c, ok := p.pool.Get().(*Event)
	if !ok {
		c = new(Event)
	}
	*c = *e
	return c
}

// New returns an event of rec, likewise.
func (p *Pool) New(kind Kind, rec *Record) *Event {
	c, ok := p.pool.Get().(*Event)
	if !ok {
		c = new(Event)
	}
	c.Kind, c.Record = kind, *rec
	return c
}

// Put takes back what Copy or New has returned. Nobody may use it afterwards.
func (p *Pool) Put(e *Event) {
	*e = Event{} // it would keep what its strings lie in
	p.pool.Put(e)
}
