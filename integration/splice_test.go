package integration

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestSplice counts, by strace, how the bytes of large transfers get through
// the process: at least 95 % by splice(2), which moves them in the kernel,
// and not by read(2) and write(2), which copy them through the process.
func TestSplice(t *testing.T) {
	t.Parallel()
	const size = 256 << 20
	strace := need(t, "strace")
	w := newWorld(t)
	w.origin("allowed.example.test", nil)
	trace := filepath.Join(w.dir, "trace")
	r := w.serve(twoNames, func(c *rigConfig) {
		c.plain = true
		c.under = []string{
			strace, "-D", "-f", "-qq", "--seccomp-bpf", "-s", "0", "-o", trace,
			"-e", "trace=splice,sendfile,read,write,readv,writev,recvfrom,sendto,recvmsg,sendmsg",
		}
	})
	c := r.client(w)
	t.Run("download", func(t *testing.T) {
		resp, err := c.Get("https://allowed.example.test/bytes?n=" + strconv.Itoa(size))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
			t.Fatalf("%d bytes of %d: %v", n, size, err)
		}
	})
	t.Run("upload", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://allowed.example.test/upload", io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = size
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		line, _ := bufio.NewReader(resp.Body).ReadString('\n')
		if !strings.HasPrefix(line, strconv.Itoa(size)+" ") {
			t.Fatalf("the origin got %q", line)
		}
	})
	if t.Failed() {
		return
	}
	var moved int64
	for range 2 {
		l := r.allowed("allowed.example.test", "connect")
		moved += l.Sallyport.BytesSent + l.Sallyport.BytesReceived
	}
	r.signal(syscall.SIGTERM)
	r.wait()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	by := countCalls(text)
	// Every byte passes in and out: spliced into a pipe and out of it.
	spliced, copied := by["splice"], int64(0)
	for call, n := range by {
		if call != "splice" {
			copied += n
		}
	}
	t.Logf("%d bytes through the tunnels; bytes by call, in and out: %v", moved, by)
	if moved < 2*size || spliced < 2*moved*95/100 || spliced*100 < (spliced+copied)*95 {
		t.Errorf("splice(2) moved %d of %d bytes, in and out, others %d", spliced, 2*moved, copied)
	}
}

// countCalls sums what the calls of a trace returned. A call that strace saw
// interrupted by another thread has its result in a line of its own.
func countCalls(trace []byte) map[string]int64 {
	result := regexp.MustCompile(`(?:<\.\.\. )?(\w+)(?:\(| resumed).* = (\d+)$`)
	sums := make(map[string]int64)
	for line := range bytes.Lines(trace) {
		if m := result.FindSubmatch(bytes.TrimSpace(line)); m != nil {
			n, _ := strconv.ParseInt(string(m[2]), 10, 64)
			sums[string(m[1])] += n
		}
	}
	return sums
}
