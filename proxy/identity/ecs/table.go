package ecs

import (
	"maps"
	"net/netip"
	"sync/atomic"

	"github.com/sallyport/sallyport/policy"
)

// key is what a caller is known by.
type key struct {
	addr     netip.Addr
	endpoint string
}

// shards is the number of maps that the table is cut into: a change copies
// one of them, with some twelve of 50,000 tasks.
const shards = 4096

// table finds tasks by key, for readers without a lock. Writers take turns,
// which is the registry's affair.
type table struct {
	shards [shards]atomic.Pointer[map[key]*policy.Task]
}

// shard returns the key's map. Addresses of one subnet differ in their last
// bits, those of IPv6 interfaces are random there.
func (t *table) shard(k key) *atomic.Pointer[map[key]*policy.Task] {
	a := k.addr.As16()
	return &t.shards[(int(a[14])<<8|int(a[15]))%shards]
}

// get returns the task behind k, nil when there is none.
func (t *table) get(k key) *policy.Task {
	m := t.shard(k).Load()
	if m == nil {
		return nil
	}
	return (*m)[k]
}

// set makes task the one behind k, or nobody when it is nil.
func (t *table) set(k key, task *policy.Task) {
	shard := t.shard(k)
	next := make(map[key]*policy.Task)
	if m := shard.Load(); m != nil {
		next = maps.Clone(*m)
	}
	if task == nil {
		delete(next, k)
	} else {
		next[k] = task
	}
	shard.Store(&next)
}
