package integration

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// netnsMounts is where ip-netns(8) keeps namespaces.
const netnsMounts = "/run/netns"

// inside returns a function that runs another within a network namespace. What
// that opens stays there for good; it must open it itself, in no goroutine of
// its own.
func inside(t *testing.T, ns string) func(func()) {
	t.Helper()
	var there, here *os.File
	for path, f := range map[string]**os.File{filepath.Join(netnsMounts, ns): &there, "/proc/thread-self/ns/net": &here} {
		var err error
		if *f, err = os.Open(path); err != nil {
			t.Fatal(err)
		}
	}
	var users sync.WaitGroup
	t.Cleanup(func() {
		users.Wait()
		_ = there.Close()
		_ = here.Close()
	})
	return func(do func()) {
		users.Add(1)
		defer users.Done()
		runtime.LockOSThread() // it is the thread that is in a namespace
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Errorf("into %s: %v", ns, err)
			runtime.UnlockOSThread()
			return
		}
		do()
		if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Errorf("back from %s: %v", ns, err)
			return // the thread stays locked, and ends with its goroutine
		}
		runtime.UnlockOSThread()
	}
}

// dialler returns net.Dial from a namespace, for addresses.
func dialler(t *testing.T, ns string) func(network, addr string) (net.Conn, error) {
	t.Helper()
	within := inside(t, ns)
	return func(network, addr string) (c net.Conn, err error) {
		err = net.ErrClosed
		within(func() { c, err = (&net.Dialer{Timeout: patience}).Dial(network, addr) })
		return c, err
	}
}

// inContext makes a dialler what an http.Transport takes. The dialler has a
// bound of its own.
func inContext(dial func(network, addr string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(_ context.Context, network, addr string) (net.Conn, error) { return dial(network, addr) }
}

// listener returns [listen] in a namespace.
func listener(t *testing.T, ns string) func(t *testing.T, addr string) net.Listener {
	t.Helper()
	within := inside(t, ns)
	return func(t *testing.T, addr string) (ln net.Listener) {
		t.Helper()
		within(func() {
			var err error
			if ln, err = new(net.ListenConfig).Listen(t.Context(), "tcp", addr); err != nil {
				t.Errorf("in %s: %v", ns, err)
			}
		})
		if ln == nil {
			t.FailNow()
		}
		return ln
	}
}
