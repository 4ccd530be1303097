package proxy

import (
	"testing"
	"time"
)

func TestTideEbbsOnce(t *testing.T) {
	var tide tide
	start := time.Unix(1e9, 0)
	for i, step := range []struct {
		after    time.Duration
		accepted uint64
		ebbs     bool
	}{
		{0, 0, false},
		{ebbAfter, 0, false},                // nothing has come
		{ebbAfter, ebbBurst - 1, false},     // something has, too little
		{3 * ebbAfter, ebbBurst - 1, false}, //
		{4 * ebbAfter, ebbBurst, false},     // the burst goes on
		{4*ebbAfter + time.Second, ebbBurst, false},
		{5 * ebbAfter, ebbBurst, true},
		{9 * ebbAfter, ebbBurst, false}, // it was told already
		{10 * ebbAfter, 2 * ebbBurst, false},
		{11 * ebbAfter, 2 * ebbBurst, true},
	} {
		if got := tide.ebbs(step.accepted, start.Add(step.after)); got != step.ebbs {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
