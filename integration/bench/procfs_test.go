package main

import (
	"os"
	"testing"
	"time"
)

func TestParseProcStat(t *testing.T) {
	const tail = "S 7 42 42 0 -1 4194560 2155 0 13 0 250 50 3 4 20 0 1 0 1234 9999 100"
	for _, tt := range []struct {
		name, text string
		want       procStat
		fails      bool
	}{
		{"plain", "42 (squid) " + tail, procStat{42, 7, 3 * time.Second, 70 * time.Millisecond}, false},
		{"brackets and spaces in the name", "42 (a) S 1 (b) " + tail, procStat{42, 7, 3 * time.Second, 70 * time.Millisecond}, false},
		{"short", "42 (squid) S 7", procStat{}, true},
		{"no name", "42 squid", procStat{}, true},
		{"no number", "42 (squid) S x 42 42 0 -1 4194560 2155 0 13 0 250 50 3 4", procStat{}, true},
		{"empty", "", procStat{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseProcStat(tt.text)
			if got != tt.want || (err != nil) != tt.fails {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestParseBusy(t *testing.T) {
	got, err := parseBusy("cpu  100 20 30 99999 888 4 6 7777 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if err != nil || got != 1600*time.Millisecond {
		t.Errorf("got %v, %v; want user, nice, system, irq and softirq", got, err)
	}
	if _, err := parseBusy("intr 1 2 3\n"); err == nil {
		t.Error("no line of CPUs, and no error")
	}
}

func TestParseSlab(t *testing.T) {
	const slabinfo = `slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
TCP                 10     20   2048   12    8 : tunables    0    0    0 : slabdata      1      1      0
ext4_inode_cache  9999   9999   1000   12    8 : tunables    0    0    0 : slabdata      2      3      0
inode_cache       9999   9999   1000   12    4 : tunables    0    0    0 : slabdata      5      5      0
`
	const meminfo = "MemTotal: 100000 kB\nSlab:   2000 kB\nSReclaimable: 5 kB\n"
	if got, err := parseSlab(meminfo, slabinfo); err != nil || got != 2000*1024-int64(44*os.Getpagesize()) {
		t.Errorf("got %d, %v; want all but the 44 pages of inodes", got, err)
	}
	if got, err := parseSlab(meminfo, ""); err != nil || got != 2000*1024 {
		t.Errorf("got %d, %v without slabinfo", got, err)
	}
	if _, err := parseSlab("MemTotal: 100000 kB\n", slabinfo); err == nil {
		t.Error("no slab, and no error")
	}
	if _, err := parseSlab("Slab: many kB\n", ""); err == nil {
		t.Error("a size that is no number, and no error")
	}
}

func TestParseStatm(t *testing.T) {
	if got, err := parseStatm("5000 321 200 1 0 40 0\n"); err != nil || got != 321 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := parseStatm(""); err == nil {
		t.Error("nothing, and no error")
	}
}

func TestFamily(t *testing.T) {
	all := []procStat{{PID: 1}, {PID: 5, Parent: 1, Own: 1}, {PID: 6, Parent: 5, Own: 10, Children: 100}, {PID: 7, Parent: 6, Own: 1000}, {PID: 8, Parent: 1, Own: 5000}}
	if got := cpuOf(family(all, 5)); got != 1111 {
		t.Errorf("a process and its descendants used %d", got)
	}
	if got := cpuOf(family(all, 99)); got != 0 {
		t.Errorf("nobody used %d", got)
	}
}

func TestForeign(t *testing.T) {
	at := time.Unix(0, 0)
	from := clock{at: at}
	to := clock{at: at.Add(2 * time.Second), busy: 3 * time.Second, ours: 2 * time.Second}
	if got := foreign(from, to); got != 0.5 {
		t.Errorf("others used %v CPUs, want 0.5", got)
	}
	to.ours = 4 * time.Second // the readings are not of one moment
	if got := foreign(from, to); got != 0 {
		t.Errorf("others used %v CPUs, want none", got)
	}
}

// TestClockOfThisProcess reads the real thing.
func TestClockOfThisProcess(t *testing.T) {
	before, err := readClock(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		after, err := readClock(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after.subject > before.subject && after.ours >= after.subject && after.busy > before.busy {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no CPU time shows: %+v, then %+v", before, after)
		}
	}
	h, err := readHolding(os.Getpid())
	if err != nil || h.RSS == 0 || h.Files < 3 {
		t.Errorf("this process holds %+v, %v", h, err)
	}
}
