package history

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// BenchmarkWrite is what a batch of 2,000 flows over 500 sites costs the store.
func BenchmarkWrite(b *testing.B) {
	for name, store := range map[string]string{"memory": Memory, "file": "sqlite:" + filepath.Join(b.TempDir(), "history.db")} {
		b.Run(name, func(b *testing.B) {
			db, err := open(b.Context(), store, nil, false)
			if err != nil {
				b.Fatal(err)
			}
			defer db.close()
			w := &writer{session: flow.NewID(), clock: time.Now}
			o := newObserver(1<<15, -1)
			task := &policy.Task{ARN: "arn:aws:ecs:us-east-1:111122223333:task/prod/0a1", Cluster: "prod", Service: "billing-api", Family: "billing", Revision: 41}
			n := uint64(0)
			for b.Loop() {
				now := time.Now()
				for i := range 2000 {
					o.observe(&flow.Event{Kind: flow.Denied, Record: flow.Record{
						ID: flow.NewID(), Start: now, End: now, Via: policy.ViaConnect, Host: fmt.Sprintf("h%d.example.com", i%500), Port: 443,
						Task: task, Source: "apps", Reason: policy.ReasonNoRule, PolicyVersion: "0123456789ab", Outcome: "no_rule", TLS: flow.TLS{Version: "1.3"},
					}}, now)
				}
				batch := o.take()
				n++
				batch.n = n
				if err := db.put(b.Context(), w, batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/2000, "µs/flow")
		})
	}
}
