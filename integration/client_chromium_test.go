package integration

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// page tries everything that a page can and reports what came of it to its
// origin. A page over TLS may not open ws://, hence two visits.
const page = `<!doctype html><meta charset="utf-8"><title>clients</title>
<script type="module">
const told = {};
async function attempt(name, work) {
  try { told[name] = await work(); } catch (error) { told[name] = "failed"; }
}
function socket(url) {
  return new Promise((resolve, reject) => {
    const s = new WebSocket(url);
    s.onopen = () => s.send("hello");
    s.onmessage = (event) => { s.close(); resolve(event.data); };
    s.onerror = reject;
  });
}
const own = location.protocol === "https:";
await attempt("same", async () => (await fetch("/data")).text());
await attempt("allowed", async () => (await fetch("https://allowed.example.test/")).text());
await attempt("denied", async () => (await fetch("https://denied.example.test/")).text());
await attempt("websocket", () => socket((own ? "wss" : "ws") + "://allowed.example.test/ws"));
await attempt("denied websocket", () => socket((own ? "wss" : "ws") + "://denied.example.test/ws"));
await fetch("/report" + location.search, {method: "POST", body: JSON.stringify(told)});
if (own) location = "http://page.example.test/";
</script>`

func TestChromium(t *testing.T) {
	t.Parallel()
	chromium := need(t, "chromium")
	w := newWorld(t)
	allowed, denied := w.twoOrigins()
	reports := make(chan map[string]string, 4)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		_, _ = rw.Write([]byte(page))
	})
	mux.HandleFunc("GET /data", func(rw http.ResponseWriter, r *http.Request) { _, _ = rw.Write([]byte(r.Proto)) })
	mux.HandleFunc("POST /report", func(_ http.ResponseWriter, r *http.Request) {
		var told map[string]string
		if err := json.NewDecoder(r.Body).Decode(&told); err != nil {
			t.Error(err)
		}
		reports <- told
	})
	o := w.origin("page.example.test", mux)
	r := w.serve(`
  - {name: web, hosts: [allowed.example.test, page.example.test], resolves_to: [127.0.0.0/8]}
  - {name: plain, hosts: [allowed.example.test, page.example.test], protocol: http, resolves_to: [127.0.0.0/8]}
`)
	browse(t, chromium, w, "--proxy-server="+r.url(), "--ignore-certificate-errors-spki-list="+pin(o.cert)+","+pin(allowed.cert), "https://page.example.test/")

	for _, scheme := range []string{"https", "http"} {
		var told map[string]string
		select {
		case told = <-reports:
		case <-time.After(patience):
			t.Fatalf("the %s page reported nothing\n%s", scheme, r.said())
		}
		same := map[string]string{"https": "HTTP/2.0", "http": "HTTP/1.1"}[scheme]
		for name, want := range map[string]string{
			"same": same, "allowed": "hello from allowed.example.test over HTTP/2.0\n", "denied": "failed",
			"websocket": "echo hello", "denied websocket": "failed",
		} {
			if told[name] != want {
				t.Errorf("the %s page: %s: %q, want %q", scheme, name, told[name], want)
			}
		}
	}
	r.denied("denied.example.test", "connect", "no_rule")
	denied.unreached(t)
}

// browse opens a page and leaves the browser to the test's end.
func browse(t *testing.T, chromium string, w *world, args ...string) {
	t.Helper()
	profile, err := os.MkdirTemp("", "chromium-") //nolint:usetesting // t.TempDir fails where a dying browser still writes
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), chromium, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
		"--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,OptimizationHints,MediaRouter",
		"--remote-debugging-port=0", "--user-data-dir=" + profile,
	}, args...)...)
	cmd.Env = bareEnv(w.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its whole group
		_ = cmd.Wait()
		// What of the browser is still ending may still write there.
		for range 100 {
			if os.RemoveAll(profile) == nil {
				return
			}
		}
	})
}
