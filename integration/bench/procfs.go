package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc, USER_HZ, on every architecture that Go
// runs on.
const tick = 10 * time.Millisecond

// procStat is what is read of /proc/PID/stat.
type procStat struct {
	PID, Parent int
	Own         time.Duration // user and system time of all its threads, ended ones too
	Children    time.Duration // the same of ended children that were waited for
}

// parseProcStat reads /proc/PID/stat. The command's name, in brackets, may
// hold anything, brackets too.
func parseProcStat(text string) (procStat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return procStat{}, fmt.Errorf("no command in brackets: %.80q", text)
	}
	rest := strings.Fields(text[end+1:])
	if len(rest) < 15 {
		return procStat{}, fmt.Errorf("%d fields behind the command, not 15: %.80q", len(rest), text)
	}
	n := make([]int64, 0, 6)
	for _, field := range []string{strings.TrimSpace(text[:open]), rest[1], rest[11], rest[12], rest[13], rest[14]} {
		v, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return procStat{}, fmt.Errorf("field %q: %w", field, err)
		}
		n = append(n, v)
	}
	return procStat{
		PID: int(n[0]), Parent: int(n[1]),
		Own: time.Duration(n[2]+n[3]) * tick, Children: time.Duration(n[4]+n[5]) * tick,
	}, nil
}

// parseBusy reads /proc/stat for the CPU time that the machine has spent on
// anything at all: not idle, not waiting for a disk, not taken by another
// virtual machine.
func parseBusy(text string) (time.Duration, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 || f[0] != "cpu" {
			continue
		}
		var ticks int64
		for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
			v, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/stat: %w", err)
			}
			ticks += v
		}
		return time.Duration(ticks) * tick, nil
	}
	return 0, fmt.Errorf("/proc/stat has no line of all CPUs: %.80q", text)
}

// parseStatm reads /proc/PID/statm for the resident pages.
func parseStatm(text string) (pages int64, err error) {
	f := strings.Fields(text)
	if len(f) < 2 {
		return 0, fmt.Errorf("/proc/PID/statm: %q", text)
	}
	if pages, err = strconv.ParseInt(f[1], 10, 64); err != nil {
		return 0, fmt.Errorf("/proc/PID/statm: %w", err)
	}
	return pages, nil
}

// parseSlab returns the kernel's memory for its own objects, in bytes, from
// /proc/meminfo: large ones, such as the rings of big pipes, are in no cache
// and only there. The caches of files, processes and memory maps, which move
// with whatever else the machine does, are taken off by /proc/slabinfo.
func parseSlab(meminfo, slabinfo string) (int64, error) {
	sum := int64(-1)
	for line := range strings.Lines(meminfo) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Slab:" {
			v, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/meminfo: %w", err)
			}
			sum = v * 1024
		}
	}
	if sum < 0 {
		return 0, errors.New("/proc/meminfo has no line of slab")
	}
	for line := range strings.Lines(slabinfo) {
		f := strings.Fields(line)
		if len(f) < 15 || !foreignSlab(f[0]) {
			continue
		}
		pages, err := strconv.ParseInt(f[5], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/slabinfo: %s: %w", f[0], err)
		}
		slabs, err := strconv.ParseInt(f[14], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/slabinfo: %s: %w", f[0], err)
		}
		sum -= slabs * pages * int64(os.Getpagesize())
	}
	return sum, nil
}

func foreignSlab(name string) bool {
	for _, prefix := range []string{
		"btrfs_", "ext4_", "jbd2_", "xfs_", "ovl_", "fuse_", "nfs_", "fat_", "bio", "blkdev_", "buffer_head", "radix_tree_node", "ext3_",
		"task_struct", "mm_struct", "vm_area_struct", "vma_lock", "anon_vma", "maple_node", "signal_cache", "sighand_cache", "cred", "pid", "files_cache",
		"kernfs_", "seq_file", "names_cache", "proc_", "shmem_", "hugetlbfs_", "fs_cache", "fsnotify_", "inotify_",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "inode_cache"
}
