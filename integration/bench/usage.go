package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// processes reads the stat of every process that can be seen.
func processes() ([]procStat, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var all []procStat
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		p, err := parseProcStat(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// family returns a process and its descendants.
func family(all []procStat, root int) []procStat {
	var out []procStat
	queue := []int{root}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, p := range all {
			if p.PID == at {
				out = append(out, p)
			}
			if p.Parent == at && p.PID != at {
				queue = append(queue, p.PID)
			}
		}
	}
	return out
}

// cpuOf is the CPU time of processes and of the children that they have
// waited for.
func cpuOf(ps []procStat) time.Duration {
	var sum time.Duration
	for _, p := range ps {
		sum += p.Own + p.Children
	}
	return sum
}

// clock is a reading of who has used how much CPU.
type clock struct {
	subject time.Duration // the proxy's processes
	ours    time.Duration // this program's, the subject's and the ends'
	busy    time.Duration // the whole machine's
	at      time.Time
}

// readClock reads it; a subject of 0 is none.
func readClock(subject int) (clock, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return clock{}, err
	}
	c := clock{at: time.Now()}
	if c.busy, err = parseBusy(string(text)); err != nil {
		return clock{}, err
	}
	all, err := processes()
	if err != nil {
		return clock{}, err
	}
	c.ours = cpuOf(family(all, os.Getpid()))
	if subject != 0 {
		c.subject = cpuOf(family(all, subject))
	}
	return c, nil
}

// foreign is how many CPUs others have used between two readings. It is
// rough: the kernel's threads are among the others.
func foreign(from, to clock) float64 {
	wall := to.at.Sub(from.at)
	others := (to.busy - from.busy) - (to.ours - from.ours)
	if wall <= 0 || others < 0 {
		return 0
	}
	return float64(others) / float64(wall)
}

// holding is what processes hold at a moment.
type holding struct {
	RSS    int64 // bytes, shared pages counted in each process
	Files  int   // open descriptors
	Kernel int64 // bytes of slab, of the whole machine; see parseSlab
}

// readHolding reads what a subject and its descendants hold; 0 is none.
func readHolding(subject int) (holding, error) {
	var h holding
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return h, err
	}
	slabinfo, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		slabinfo = nil // only root may read it: without, the figure is rougher
	}
	if h.Kernel, err = parseSlab(string(meminfo), string(slabinfo)); err != nil {
		return h, err
	}
	if subject == 0 {
		return h, nil
	}
	all, err := processes()
	if err != nil {
		return h, err
	}
	for _, p := range family(all, subject) {
		dir := fmt.Sprintf("/proc/%d", p.PID)
		text, err := os.ReadFile(filepath.Join(dir, "statm"))
		if err != nil {
			continue // it has ended
		}
		pages, err := parseStatm(string(text))
		if err != nil {
			return h, err
		}
		h.RSS += pages * int64(os.Getpagesize())
		files, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			return h, fmt.Errorf("counting descriptors: %w", err)
		}
		h.Files += len(files)
	}
	return h, nil
}
