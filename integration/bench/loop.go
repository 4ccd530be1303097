package main

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
	"unsafe"
)

// loop is an epoll instance and what stands behind its descriptors. It is
// level-triggered and belongs to one goroutine. Handlers may be called without
// cause: a descriptor that was closed and is used again can still have an
// event of its former life in the batch.
type loop struct {
	epoll    int
	events   []syscall.EpollEvent
	handlers []handler // by descriptor
}

// handler is called when a descriptor has something to tell.
type handler interface {
	ready(events uint32)
}

func newLoop() (*loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &loop{epoll: fd, events: make([]syscall.EpollEvent, 256), handlers: make([]handler, maxFiles+1)}, nil
}

// add watches a descriptor, which the loop closes from now on.
func (l *loop) add(fd int, events uint32, h handler) error {
	if fd >= len(l.handlers) {
		return syscall.EMFILE
	}
	l.handlers[fd] = h
	return syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

func (l *loop) change(fd int, events uint32) error {
	return syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_MOD, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

// close closes a descriptor that was added; epoll forgets it by itself.
func (l *loop) close(fd int) {
	if fd < len(l.handlers) {
		l.handlers[fd] = nil
	}
	syscall.Close(fd)
}

// poll waits for events, at most for so long, and handles them. A negative
// wait has no end.
func (l *loop) poll(wait time.Duration) error {
	ms := -1
	if wait >= 0 {
		ms = int(math.Ceil(float64(wait) / float64(time.Millisecond)))
	}
	// Raw, past the scheduler, whose bookkeeping around a call that blocks
	// costs a futex now and then: this thread has nothing else to run.
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll),
		uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), uintptr(ms), 0, 0)
	if errno != 0 && errno != syscall.EINTR {
		return fmt.Errorf("epoll_wait: %w", errno)
	}
	if errno == syscall.EINTR {
		return nil
	}
	for _, e := range l.events[:n] {
		if h := l.handlers[e.Fd]; h != nil {
			h.ready(e.Events)
		}
	}
	return nil
}

// quietRuntime keeps Go's runtime out of the way of a loop: one P, and no
// garbage collection before there is a lot to collect, for the loops reuse
// what they have.
func quietRuntime() {
	runtime.LockOSThread()
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
}

// again reports whether a call has only to be tried later.
func again(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
}
