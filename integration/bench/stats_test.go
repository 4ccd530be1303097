package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestHistogramQuantiles(t *testing.T) {
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	var all []time.Duration
	for i := range 10000 {
		d := time.Duration(i*i) * 37
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		want := all[int(math.Ceil(q*float64(len(all))))-1]
		if got := h.quantile(q); math.Abs(float64(got-want)) > float64(want)*0.016+1 {
			t.Errorf("quantile %v is %v, want %v within 1.6 %%", q, got, want)
		}
	}
}

func TestBucketsAreInOrderAndCoverEverything(t *testing.T) {
	last := -1
	for _, ns := range []uint64{0, 1, 63, 64, 65, 127, 128, 1000, 1e6, 1e9, 1e12, math.MaxInt64} {
		i := bucketOf(ns)
		if i < last || i >= len(histogram{}.counts) {
			t.Errorf("%d ns is in bucket %d, behind %d", ns, i, last)
		}
		last = i
		if mid := bucketMiddle(i); math.Abs(float64(mid)-float64(ns)) > float64(ns)/64+1 {
			t.Errorf("%d ns is in a bucket around %d", ns, mid)
		}
	}
}

func TestMedian(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"none", nil, nan},
		{"one", []float64{3}, 3},
		{"odd, unsorted", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 3, 2}, 2.5},
		{"NaNs left out", []float64{nan, 7, nan}, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := median(tt.values); got != tt.want && !(math.IsNaN(got) && math.IsNaN(tt.want)) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestRatiosArePaired: what drifts between repeats must not show, and a failed
// repeat must not count.
func TestRatiosArePaired(t *testing.T) {
	of := func(subject string, repeat int, rate, cpu float64, failure string) measure {
		return measure{Scenario: "tunnels", Way: waySNI, Load: "tunnels-1", Subject: subject, Repeat: repeat, Rate: rate, PerUnit: cpu, Failure: failure, P50: 10 * cpu}
	}
	r := results{Measures: []measure{
		of("direct", 0, 1000, 0, ""), of(base, 0, 100, 10, ""), of("peer", 0, 50, 30, ""), of("broken", 0, 0, 0, "it fell"),
		of("direct", 1, 1000, 0, ""), of(base, 1, 10, 100, ""), of("peer", 1, 5, 300, ""),
		of("direct", 2, 1000, 0, ""), of(base, 2, 1000, 1, ""), of("peer", 2, 9e9, 1e-9, "half a run"),
	}}
	rows := r.rows("tunnels", waySNI, "tunnels-1")
	if len(rows) != 4 {
		t.Fatalf("%d rows", len(rows))
	}
	if p := rows[2]; p.Subject != "peer" || p.RateRatio != 2 || p.CPURatio != 3 || p.Rate != 27.5 {
		t.Errorf("the peer's row is %+v", p)
	}
	if b := rows[1]; b.RateRatio != 1 || b.CPURatio != 1 || b.AddedP50 != 100 {
		t.Errorf("the base's row is %+v", b)
	}
	if f := rows[3]; f.Failure != "it fell" {
		t.Errorf("the failed one's row is %+v", f)
	}
	if err := r.verdict(); err != nil {
		t.Errorf("a peer's failure is the run's: %v", err)
	}
	r.Measures = append(r.Measures, of(base, 3, 0, 0, "gone"))
	if r.verdict() == nil {
		t.Error("the base's failure goes unnoticed")
	}
}
