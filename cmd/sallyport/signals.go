package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// lateSignals is how long a process takes to end at most, when serve has ended.
const lateSignals = 5 * time.Second

// notify returns the signals that serve obeys, and how to stop that: what comes
// up to late afterwards does not change how the process ends. One that has not
// ended by then, as standard error is stuck, too, can be killed.
func notify(late time.Duration) (<-chan os.Signal, func()) {
	// A reader of standard output that went away must not end the proxy.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	// They are not ignored, which would be for good.
	return signals, func() { time.AfterFunc(late, func() { signal.Stop(signals) }) }
}
