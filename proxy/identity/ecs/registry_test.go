package ecs

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

// FuzzRegistry holds the table to what it promises, whatever AWS says in
// whatever order: who has an address runs, claims it, and no newer task that
// runs does; whoever lost it never has it again.
func FuzzRegistry(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1, 0, 1, 2, 1, 0, 2, 0})
	f.Add([]byte("older and newer, gone and back, early and late"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		reg := newRegistry()
		b := reg.newBook("", []string{""})
		now := born(0)
		lost := make(map[*record]bool) // what was forgotten since begins anew
		for len(ops) >= 3 {
			op, id, n := ops[0], ops[1]%6, ops[2]%4
			ops = ops[3:]
			now = now.Add(time.Duration(op>>4) * 5 * time.Second)
			name := fmt.Sprintf("arn:aws:ecs:r:1:task/c/%d", id)
			d := described{
				version: int64(op>>2) % 8, created: born(int(id) / 2), gone: op%5 == 0,
				addrs: []netip.Addr{crowdAddr(int(n))}, task: &policy.Task{ARN: name, Cluster: "c"},
			}
			before := holders(reg)
			switch op % 4 {
			case 0, 1:
				b.apply([]described{d}, nil, now)
			case 2:
				b.ended(name, d.version, now)
			case 3:
				b.begin()
				b.page([]string{name}, now)
				b.apply(nil, b.vanished(now)[:min(1, len(b.vanished(now)))], now)
			}
			for k, h := range holders(reg) {
				if before[k] != nil && before[k] != h && b.records[before[k].task.ARN] == before[k] {
					lost[before[k]] = true
				}
				if lost[h] {
					t.Fatalf("%s has %s, which it had lost", h.task.ARN, k.addr)
				}
			}
			check(t, reg, b)
		}
	})
}

func holders(r *registry) map[key]*record {
	return maps.Clone(r.holders)
}

func check(t *testing.T, reg *registry, b *book) {
	t.Helper()
	tasks := 0
	for _, rec := range b.records {
		if !rec.gone {
			tasks++
		}
	}
	if reg.tasks != tasks {
		t.Fatalf("%d tasks are counted, %d run", reg.tasks, tasks)
	}
	inTable := 0
	for i := range reg.table.shards {
		if m := reg.table.shards[i].Load(); m != nil {
			inTable += len(*m)
		}
	}
	if inTable != len(reg.holders) {
		t.Fatalf("%d addresses in the table, %d are held", inTable, len(reg.holders))
	}
	for k, h := range reg.holders {
		if got := reg.table.get(k); got != h.task || h.gone || h.lost || h.addrs[0] != k.addr {
			t.Fatalf("%s: the table has %v, the holder is %+v", k.addr, got, h)
		}
		for _, rec := range b.records {
			if !rec.gone && !rec.lost && rec.addrs[0] == k.addr && newer(rec, h) {
				t.Fatalf("%s is %s, though %s is newer", k.addr, h.task.ARN, rec.task.ARN)
			}
		}
	}
}

// TestReadersNeverSeeAGap: while other tasks come and go, a task that runs is
// always found. The race detector watches.
func TestReadersNeverSeeAGap(t *testing.T) {
	d := filled(t, 1000)
	b := d.watchers[0].book
	var work sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		work.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for i := range 100 {
					if s := d.Identify(t.Context(), policy.Source{Addr: crowdAddr(i)}); s.Task == nil {
						t.Errorf("%s is nobody", crowdAddr(i))
						return
					}
				}
				runtime.Gosched()
			}
		})
	}
	for round := range 20 {
		var change []described
		for i := 100; i < 1000; i++ {
			change = append(change, one(i, int64(round+2), round%2 == 0))
		}
		b.apply(change, nil, time.Now().Add(time.Duration(round)*2*apiLag))
	}
	close(stop)
	work.Wait()
}

// one is the i-th of many tasks.
func one(i int, version int64, gone bool) described {
	return described{
		task: &policy.Task{
			ARN:     "arn:aws:ecs:us-east-1:111122223333:task/prod/" + strconv.Itoa(i),
			Cluster: "prod", Service: "s", Family: "f", Revision: 1, Tags: map[string]string{"team": "t"},
		},
		version: version, created: born(i), addrs: []netip.Addr{crowdAddr(i)}, gone: gone,
	}
}

// filled is a Directory that knows n tasks and does not run.
func filled(tb testing.TB, n int) *Directory {
	tb.Helper()
	d, err := New(Config{Clusters: []Cluster{{Cluster: "prod"}}}, sdk(proxytest.NewAWS()))
	if err != nil {
		tb.Fatal(err)
	}
	var all []described
	for i := range n {
		all = append(all, one(i, 1, false))
	}
	d.watchers[0].book.apply(all, nil, time.Now())
	return d
}

func TestIdentifyAllocatesNothing(t *testing.T) {
	d := filled(t, 50_000)
	source := policy.Source{Addr: crowdAddr(12_345)}
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		if d.Identify(ctx, source).Task == nil {
			t.Error("nobody")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDescribedTasks(t *testing.T) {
	full := types.Task{
		TaskArn: aws.String("arn:aws:ecs:r:1:task/prod/x"), ClusterArn: aws.String("arn:aws:ecs:r:1:cluster/prod"),
		TaskDefinitionArn: aws.String("arn:aws:ecs:r:1:task-definition/web:42"), Group: aws.String("service:payments-api"),
	}
	change := func(f func(*types.Task)) *types.Task {
		task := full
		f(&task)
		return &task
	}
	tests := []struct {
		name string
		task *types.Task
		want policy.Task // without ARN: not to be believed
	}{
		{"of a service", &full, policy.Task{ARN: *full.TaskArn, Cluster: "prod", Service: "payments-api", Family: "web", Revision: 42}},
		{"of none", change(func(t *types.Task) { t.Group = aws.String("family:web") }), policy.Task{ARN: *full.TaskArn, Cluster: "prod", Family: "web", Revision: 42}},
		{"of no group", change(func(t *types.Task) { t.Group = nil }), policy.Task{ARN: *full.TaskArn, Cluster: "prod", Family: "web", Revision: 42}},
		{"an old ARN", change(func(t *types.Task) { t.TaskArn = aws.String("arn:aws:ecs:r:1:task/x") }), policy.Task{ARN: "arn:aws:ecs:r:1:task/x", Cluster: "prod", Service: "payments-api", Family: "web", Revision: 42}},
		{"no definition", change(func(t *types.Task) { t.TaskDefinitionArn = aws.String("web") }), policy.Task{ARN: *full.TaskArn, Cluster: "prod", Service: "payments-api"}},
		{"no ARN", change(func(t *types.Task) { t.TaskArn = nil }), policy.Task{}},
		{"a service's ARN", change(func(t *types.Task) { t.TaskArn = aws.String("arn:aws:ecs:r:1:service/x") }), policy.Task{}},
		{"no cluster", change(func(t *types.Task) { t.ClusterArn = nil }), policy.Task{}},
		{"nothing", &types.Task{}, policy.Task{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, ok := describe(tt.task)
			if ok != (tt.want.ARN != "") || ok && !equal(d.task, &tt.want) {
				t.Errorf("got %+v, %v", d.task, ok)
			}
		})
	}
}

func BenchmarkIdentify(b *testing.B) {
	for _, n := range []int{10, 50_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			d := filled(b, n)
			ctx := b.Context()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				if d.Identify(ctx, policy.Source{Addr: crowdAddr(i)}).Task == nil {
					b.Fatal("nobody")
				}
			}
		})
	}
}

func BenchmarkIdentifyParallel(b *testing.B) {
	d := filled(b, 50_000)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := uint32(0)
		var seed [4]byte
		for pb.Next() {
			binary.BigEndian.PutUint32(seed[:], i)
			i += 7919
			d.Identify(b.Context(), policy.Source{Addr: crowdAddr(int(i % 50_000))})
		}
	})
}

func BenchmarkApply(b *testing.B) {
	d := filled(b, 50_000)
	at := time.Now()
	version := int64(2)
	for b.Loop() {
		version++
		at = at.Add(time.Second)
		d.watchers[0].book.apply([]described{one(7, version, version%2 == 0)}, nil, at)
	}
}
