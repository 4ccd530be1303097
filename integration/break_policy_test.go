package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unicode/utf16"
)

// breakPolicyMemory bounds what a process may ever hold while it reads a
// broken policy, in bytes. The largest good one takes 400 MiB.
const breakPolicyMemory = 1 << 30

// badPolicy is one thing that can stand where the policy should.
type badPolicy struct {
	name string
	// put makes path be it; nothing is there before.
	put func(t *testing.T, path string)
	// place is "line:column" of the fault; "" where the source itself is at
	// fault, and there is no document to point into.
	place string
	// says is what the message must hold for a person to act on it.
	says string
	slow bool // not in the short form
}

// TestBreakPolicy puts everything that is no policy where the policy is
// read: under a running proxy, which keeps the last good one, says why and
// where, sets its metric and recovers; and under one that starts, which ends
// with 2 and a message and never takes a connection.
func TestBreakPolicy(t *testing.T) {
	all := badPolicies()
	if extent(t, "badpolicy", 1, 2) == 1 {
		all = slices.DeleteFunc(all, func(b badPolicy) bool { return b.slow })
	}
	t.Logf("%d broken documents and sources", len(all))
	t.Run("running", func(t *testing.T) {
		t.Parallel()
		breakRunning(t, all)
	})
	t.Run("starting", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for _, bad := range all {
			t.Run(bad.name, func(t *testing.T) { breakStarting(t, w, bad) })
		}
	})
}

func breakRunning(t *testing.T, all []badPolicy) {
	w := newWorld(t)
	w.twoOrigins()
	r := w.serve(twoNames, setting("reload.every", "0s"), func(c *rigConfig) { c.plain = true })
	r.expectFaults()
	good := r.awaitLog("policy in force")["policy_version"].(string)
	client := r.client(w)
	inForce := func(t *testing.T) {
		t.Helper()
		for name, want := range map[string]int{"allowed": http.StatusOK, "denied": http.StatusForbidden} {
			if status, body, err := get(t.Context(), client, "http://"+name+".example.test/"); err != nil || status != want {
				t.Errorf("%s.example.test is answered %d %q %v, want %d", name, status, body, err, want)
			}
		}
		if v := r.metric(fmt.Sprintf("sallyport_policy_info{version=%q}", good)); v != "1" {
			t.Errorf("the metrics say that %s is in force: %s", good, v)
		}
	}
	most, of := int64(0), ""
	for i, bad := range all {
		t.Run(bad.name, func(t *testing.T) {
			remove(t, r.policyFile)
			bad.put(t, r.policyFile)
			resetPeak(t, r.cmd.Process.Pid)
			said := r.saidAfter(func() { r.signal(syscall.SIGHUP) }, "policy refused, the one in force stays", "policy reloaded", "policy unchanged")
			if said["message"] != "policy refused, the one in force stays" || said["policy_version"] != good {
				t.Fatalf("the log says %v", said)
			}
			bad.check(t, r.policyFile, fmt.Sprint(said["error"], said["hint"]))
			if peak := peakMemory(t, r.cmd.Process.Pid); peak > most {
				most, of = peak, bad.name
			}
			if got := r.metric("sallyport_policy_reload_failed"); got != "1" {
				t.Errorf("sallyport_policy_reload_failed is %s", got)
			}
			inForce(t)

			remove(t, r.policyFile)
			r.writePolicy(twoNames + fmt.Sprintf("  - {name: after-%d, hosts: [after-%[1]d.example.test]}\n", i))
			said = r.saidAfter(func() { r.signal(syscall.SIGHUP) }, "policy refused, the one in force stays", "policy reloaded", "policy unchanged")
			if said["message"] != "policy reloaded" || said["old_policy_version"] != good {
				t.Fatalf("a good policy after it: the log says %v", said)
			}
			good = said["policy_version"].(string)
			if got := r.metric("sallyport_policy_reload_failed"); got != "0" {
				t.Errorf("after a good policy sallyport_policy_reload_failed is %s", got)
			}
			inForce(t)
		})
		if r.over() {
			t.Fatalf("sallyport ended (%v) with %s", r.exitErr, bad.name)
		}
	}
	t.Logf("the most memory it ever held was %.0f MiB, with %s", float64(most)/(1<<20), of)
	if most > breakPolicyMemory {
		t.Errorf("with %s it held %.0f MiB, more than %d", of, float64(most)/(1<<20), breakPolicyMemory>>20)
	}
}

// check holds a message to what a person needs: which source, where in it,
// and what is wrong. Nobody reads a message of a page.
func (b badPolicy) check(t *testing.T, path, message string) {
	t.Helper()
	want := path
	if b.place != "" {
		want += ":" + b.place + ": "
	}
	if !strings.Contains(message, want) || !strings.Contains(message, b.says) || len(message) > 16<<10 {
		t.Errorf("the message must name %q and say %q:\n%.1000s", want, b.says, message)
	}
}

// breakStarting starts the product under a broken policy, while a client
// tries without a pause to get in.
func breakStarting(t *testing.T, w *world, bad badPolicy) {
	dir := t.TempDir()
	path, config, addr := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "sallyport.yaml"), loopback()+":3128"
	bad.put(t, path)
	writeFile(t, config, w.config(path, map[string]any{"listeners": []any{map[string]any{"address": addr}}}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, binary(t), "serve", "--config", config)
	cmd.Env, cmd.Stderr = bareEnv(dir), &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done, open := make(chan struct{}), make(chan bool)
	go func() { open <- knock(addr, done) }()
	err := cmd.Wait()
	close(done)
	if <-open {
		t.Error("it took a connection")
	}
	if code := cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("it ended with %d (%v), want 2", code, err)
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && usage.Maxrss<<10 > breakPolicyMemory {
		t.Errorf("it held %d MiB", usage.Maxrss>>10)
	}
	bad.check(t, path, stderr.String())
}

// knock connects to addr until done, and reports whether anybody answered.
func knock(addr string, done <-chan struct{}) bool {
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return true
		}
		select {
		case <-done:
			return false
		default:
		}
	}
}

// saidAfter does something and returns the fields of the first new line of
// the log that holds one of the texts.
func (r *rig) saidAfter(do func(), texts ...string) map[string]any {
	r.t.Helper()
	r.mu.Lock()
	from := len(r.log)
	r.mu.Unlock()
	do()
	var line string
	r.await(fmt.Sprintf("new log line with one of %q", texts), func() bool {
		for ; from < len(r.log); from++ {
			for _, text := range texts {
				if strings.Contains(r.log[from], text) {
					line = r.log[from]
					return true
				}
			}
		}
		return false
	})
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		r.t.Errorf("%v: %s", err, line)
	}
	return fields
}

// over reports whether the product has ended.
func (r *rig) over() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

// resetPeak makes the kernel count a process's most memory from now on.
func resetPeak(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Log(err) // then it counts from the start
	}
}

// peakMemory returns the most memory that a process held, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("the kernel does not tell")
	return 0
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// text is a badPolicy of a document.
func text(name, document, place, says string) badPolicy {
	return badPolicy{name, func(t *testing.T, path string) {
		t.Helper()
		writeFile(t, path, document)
	}, place, says, false}
}

// slow leaves a badPolicy to the long form.
func slow(b badPolicy) badPolicy {
	b.slow = true
	return b
}

// rules is text for what stands below "rules:", from line 3 on.
func rules(name, below, place, says string) badPolicy {
	return text(name, "version: 1\nrules:\n"+below+"\n", place, says)
}

func badPolicies() []badPolicy {
	var all []badPolicy
	for _, some := range [][]badPolicy{brokenText(), brokenYAML(), brokenKeys(), brokenRules(), hugePolicies(), brokenSources()} {
		all = append(all, some...)
	}
	return all
}

const goodRule = "  - {name: web, hosts: [allowed.example.test], ports: [443, 80]}\n"

// brokenText is what no YAML reader should ever see.
func brokenText() []badPolicy {
	const good = "version: 1\nrules:\n" + goodRule
	wide := func(order func(uint16) []byte) string {
		var b bytes.Buffer
		for _, unit := range utf16.Encode([]rune("\ufeff" + good)) {
			b.Write(order(unit))
		}
		return b.String()
	}
	return []badPolicy{
		text("empty", "", "1:1", "the document is empty"),
		text("only a comment", "# soon\n", "1:1", "the document is empty"),
		text("only null", "---\n", "1:1", "the document is empty"),
		text("NUL", good[:20]+"\x00"+good[20:], "", ""),
		text("only NUL, as a crash leaves it", strings.Repeat("\x00", 4096), "1:1", ""),
		text("UTF-16, little end first", wide(func(u uint16) []byte { return []byte{byte(u), byte(u >> 8)} }), "1:1", "UTF-8"),
		text("UTF-16, big end first", wide(func(u uint16) []byte { return []byte{byte(u >> 8), byte(u)} }), "1:1", "UTF-8"),
		text("Latin-1", "version: 1\n# f\xfcr alle\nrules: []\n", "2:1", "UTF-8"),
		text("gzip", "\x1f\x8b\x08\x00\x00\x00\x00\x00", "1:1", "UTF-8"),
		text("an error page", "<!DOCTYPE html>\n<html><body>404: not found</body></html>\n", "", ""),
		text("a merge conflict", "<<<<<<< HEAD\n"+good+"=======\n"+good+">>>>>>> theirs\n", "", ""),
		text("a template that nobody filled in", "{{ .Policy }}\n", "", ""),
	}
}

// brokenYAML is what no reader of YAML accepts, or none of ours should.
func brokenYAML() []badPolicy {
	var bomb strings.Builder
	bomb.WriteString("version: 1\na: &a [x, x, x, x, x, x, x, x, x]\n")
	for c := 'b'; c < 'k'; c++ {
		fmt.Fprintf(&bomb, "%c: &%[1]c [%s*%c]\n", c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 8), c-1)
	}
	return []badPolicy{
		rules("half-written, in a rule", "  - {name: web, hosts: [allowed.exam", "", "not valid YAML"),
		rules("half-written, in a text", `  - {name: web, hosts: ["allowed.exam`, "", "not valid YAML"),
		rules("half-written, in a key", goodRule+"  - name: bad\n    act", "", ""),
		text("half-written JSON", `{"version": 1, "rules": [{"name": "web", "hosts": [`, "", "not valid YAML"),
		rules("a tab", "\t- {name: web, hosts: [allowed.example.test]}", "3:1", "spaces, never with tabs"),
		rules("two documents", goodRule+"---\nversion: 1", "", "second YAML document"),
		rules("an alias", "  - {name: &n web, hosts: [*n]}", "3:12", "anchor"),
		text("an alias of nothing", "version: 1\nrules: *nothing\n", "", ""),
		text("an alias bomb", bomb.String(), "2:4", "anchor"),
		text("an alias of itself", "version: 1\nrules: &r [*r]\n", "", ""),
		rules("a merge key", "  - {<<: {name: web}, hosts: [allowed.example.test]}", "3:6", "merge key"),
		rules("a foreign tag", "  - !!python/object:os.system {name: web, hosts: [a.example]}", "3:5", "tag"),
		rules("a template's tag", "  - {name: web, hosts: [!Sub \"${Name}.example\"]}", "3:25", "must be text"),
		text("deep nesting", "version: 1\nrules: "+strings.Repeat("[", 100_000), "", "not valid YAML"),
		text("deep nesting that closes", "version: 1\nrules: "+strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)+"\n", "2:9", ""),
		text("deep nesting of mappings", "version: 1\nrules: "+strings.Repeat("{a: ", 100_000), "", "not valid YAML"),
		text("deep nesting of questions", "version: 1\nrules: "+strings.Repeat("? ", 100_000), "", ""),
	}
}

// brokenKeys is YAML with the wrong keys, or the wrong kind of value.
func brokenKeys() []badPolicy {
	return []badPolicy{
		text("a list", "- version: 1\n", "1:1", "must be a mapping"),
		text("a word", "allow-everything\n", "1:1", "must be a mapping"),
		text("a number", "1\n", "1:1", "must be a mapping"),
		text("no version", "rules: []\n", "1:1", "version"),
		text("a later version", "version: 2\nrules:\n"+goodRule, "1:10", "version"),
		text("a version in words", "version: one\nrules:\n"+goodRule, "1:10", "version"),
		text("an unknown key", "version: 1\nrulez:\n"+goodRule, "2:1", `did you mean "rules"?`),
		text("a key in capitals", "version: 1\nRules:\n"+goodRule, "2:1", `did you mean "rules"?`),
		text("a key twice", "version: 1\nrules:\n"+goodRule+"rules: []\n", "4:1", "stands twice"),
		text("rules that are a mapping", "version: 1\nrules: {name: web}\n", "2:8", "must be a list"),
		text("rules that are a word", "version: 1\nrules: all\n", "2:8", "must be a list"),
		text("an unknown mode", "version: 1\nmode: permissive\nrules:\n"+goodRule, "2:7", "enforce or report"),
		rules("a rule that is a word", "  - allowed.example.test", "3:5", "must be a mapping"),
		rules("a key of a rule twice", "  - {name: web, hosts: [a.example], hosts: [b.example]}", "3:37", "stands twice"),
		rules("an unknown key of a rule", "  - {name: web, host: [a.example]}", "3:17", `did you mean "hosts"?`),
		rules("a name twice", goodRule+goodRule, "4:12", "web"),
		rules("no name", "  - {hosts: [a.example]}", "3:5", "name"),
		rules("hosts that are a word", "  - {name: web, hosts: a.example}", "3:24", "write it as a list"),
		rules("a host that is a number", "  - {name: web, hosts: [443]}", "3:25", "must be text"),
		rules("no host", "  - {name: web, hosts: []}", "3:24", "empty list"),
	}
}

// brokenRules is a policy in form, whose rules mean nothing or too much.
func brokenRules() []badPolicy {
	return []badPolicy{
		rules("an empty label", "  - {name: web, hosts: [a..example]}", "3:27", ""),
		rules("a lone star", `  - {name: web, hosts: ["*"]}`, "3:26", "**"),
		rules("a URL", `  - {name: web, hosts: ["https://a.example/"]}`, "", ""),
		rules("an address among hosts", "  - {name: web, hosts: [192.0.2.1]}", "3:25", "cidrs"),
		rules("everybody's buckets", `  - {name: web, hosts: ["*.s3.amazonaws.com"]}`, "3:25", "buckets"),
		rules("no port", "  - {name: web, hosts: [a.example], ports: [0]}", "3:45", "port"),
		rules("a port too far", "  - {name: web, hosts: [a.example], ports: [65536]}", "3:45", "port"),
		rules("an unknown protocol", "  - {name: web, hosts: [a.example], protocol: https}", "3:47", "write tls"),
		rules("an unknown action", "  - {name: web, hosts: [a.example], action: permit}", "3:45", "allow or deny"),
		rules("no network", "  - {name: web, cidrs: [300.1.2.3/8]}", "3:25", ""),
		rules("the metadata service", "  - {name: web, hosts: [a.example], resolves_to: [169.254.169.254/32]}", "3:51", ""),
		rules("an unknown source", "  - {name: web, hosts: [a.example], sources: [nobody]}", "3:47", "nobody"),
		rules("an unknown preset", "  - {name: web, preset: aws/everything}", "3:25", "aws/everything"),
	}
}

// hugePolicies are about what reading costs. All but the first two are below
// the bound of a source, which is 16 MiB.
func hugePolicies() []badPolicy {
	const size = 10 << 20
	of := func(piece string) string { return strings.Repeat(piece, size/len(piece)) }
	sparse := func(t *testing.T, path string) {
		t.Helper()
		writeFile(t, path, "version: 1\n")
		if err := os.Truncate(path, 1<<40); err != nil {
			t.Fatal(err)
		}
	}
	return []badPolicy{
		{"1 TiB of nothing", sparse, "", "larger than", false},
		text("17 MiB", "version: 1\n"+strings.Repeat("# and so on\n", 17<<20/12), "", "larger than"),
		text("10 MiB in a line", "version: "+of("1")+"\n", "1:10", ""),
		text("10 MiB of spaces", of(" "), "", ""),
		text("10 MiB of brackets", "version: 1\nrules: "+of("["), "", "not valid YAML"),
		text("10 MiB of a list of words", "version: 1\nrules:\n"+of("- a\n"), "", "may hold more than"),
		text("10 MiB of a list in a line", "version: 1\nrules: ["+of("a,")+"]\n", "", "may hold more than"),
		text("10 MiB of keys", "version: 1\n"+of("a: 1\n"), "", "may hold more than"),
		text("10 MiB of documents", "version: 1\n"+of("---\n"), "", "may hold more than"),
		slow(text("as many words as are read", "version: 1\nrules: ["+strings.Repeat("a,", 1_999_990)+"]\n", "2:9", "must be a mapping")),
		slow(text("as many keys as are read", "version: 1\n"+strings.Repeat("a: 1\n", 999_990), "2:1", "unknown key")),
		slow(text("as many aliases as are read", "version: 1\na: &a x\nrules: ["+strings.Repeat("*a,", 1_999_990)+"]\n", "2:4", "anchor")),
		slow(text("as many documents as are read", "version: 1\n"+strings.Repeat("---\n", 1_999_990), "2:1", "second YAML document")),
		text("10 MiB of aliases", "version: 1\na: &a x\nrules: ["+of("*a,")+"]\n", "", "may hold more than"),
		rules("100,000 broken rules", strings.Repeat("  - {name: web, hosts: [a..b]}\n", 100_000), "3:27", ""),
	}
}

// brokenSources are no documents at all.
func brokenSources() []badPolicy {
	link := func(to func(path string) string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			if err := os.Symlink(to(path), path); err != nil {
				t.Fatal(err)
			}
		}
	}
	is := func(target string) func(string) string { return func(string) string { return target } }
	fifo := func(writer bool) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			if !writer {
				return
			}
			silent, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { silent.Close() })
		}
	}
	socket := func(t *testing.T, path string) {
		t.Helper()
		// A socket's own path may have 108 bytes, and a test's folder has more.
		short := filepath.Join(built, "policy.sock")
		ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", short)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		if err := os.Symlink(short, path); err != nil {
			t.Fatal(err)
		}
	}
	all := []badPolicy{
		{"vanished", func(*testing.T, string) {}, "", "no such file", false},
		{"a folder", func(t *testing.T, path string) {
			t.Helper()
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "", "is a directory", false},
		{"a link to itself", link(func(path string) string { return path }), "", "too many levels of symbolic links", false},
		{"a link to nothing", link(func(path string) string { return path + ".gone" }), "", "no such file", false},
		{"a link to a folder", link(filepath.Dir), "", "is a directory", false},
		{"a link to what cannot be read", link(is("/proc/self/mem")), "", "input/output error", false},
		{"a device without an end", link(is("/dev/zero")), "", "larger than", false},
		{"a device without a beginning", link(is(os.DevNull)), "1:1", "the document is empty", false},
		{"a pipe that nobody writes to", fifo(false), "", "pipe", false},
		{"a pipe whose writer is silent", fifo(true), "", "pipe", false},
		{"a socket", socket, "", "socket", false},
	}
	if os.Geteuid() != 0 { // root reads everything
		all = append(all, badPolicy{"no right to read", func(t *testing.T, path string) {
			t.Helper()
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0)); err != nil {
				t.Fatal(err)
			}
		}, "", "permission denied", false})
	}
	return all
}
