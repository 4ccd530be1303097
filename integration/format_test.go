package integration

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// output runs the product with its standard output in a file, lets curl reach
// an allowed and a denied origin, stops it, and returns what it wrote.
func output(t *testing.T, settings ...func(*rigConfig)) []string {
	t.Helper()
	curl := need(t, "curl")
	w := newWorld(t)
	w.twoOrigins()
	file, err := os.Create(filepath.Join(w.dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := w.serve(twoNames, append(settings, func(c *rigConfig) { c.stdout = file })...)
	for _, url := range []string{"https://allowed.example.test/", "https://denied.example.test/"} {
		command{path: curl, args: []string{"-sS", "--max-time", "60", "--cacert", w.caFile, "-x", r.url(), url}}.run(t)
	}
	r.signal(syscall.SIGTERM)
	r.wait()
	if _, err := file.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for s := bufio.NewScanner(file); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return lines
}

// TestFormatOCSF: the daemon's log stays as it is, flows are OCSF's.
func TestFormatOCSF(t *testing.T) {
	t.Parallel()
	types := map[int]int{}
	for _, line := range output(t, setting("logging.format", "ocsf")) {
		var e struct {
			Type int `json:"type_uid"`
			Dst  struct {
				Hostname string
				IP       string
			} `json:"dst_endpoint"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		types[e.Type]++
		if want := map[bool]string{true: "denied.example.test", false: "allowed.example.test"}[e.Type == 400105]; e.Dst.Hostname != want {
			t.Errorf("not of %s: %s", want, line)
		}
	}
	if types[400101] != 1 || types[400102] != 1 || types[400105] != 1 {
		t.Errorf("events by type: %v", types)
	}
}

// TestFormatVPCFlow: two directions accepted, one attempt rejected.
func TestFormatVPCFlow(t *testing.T) {
	t.Parallel()
	lines := output(t, setting("logging.format", "vpc-flow"))
	actions := map[string]int{}
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) != 14 || f[0] != "2" || f[7] != "6" {
			t.Fatalf("%q", line)
		}
		actions[f[12]]++
	}
	if actions["ACCEPT"] != 2 || actions["REJECT"] != 1 {
		t.Errorf("%q", lines)
	}
}

// TestEMF: CloudWatch's lines stand among the flow log's, and the last tells
// of what ended before the process did.
func TestEMF(t *testing.T) {
	t.Parallel()
	var flows, denied float64
	byReason := map[string]float64{}
	last := ""
	for _, line := range output(t, setting("metrics.emf.namespace", "Sallyport/test"), setting("metrics.emf.every", "1h")) {
		var e struct {
			AWS *struct {
				Timestamp         int64
				CloudWatchMetrics []struct{ Namespace string }
			} `json:"_aws"`
			Verdict, Reason    string
			Flows, FlowsDenied float64
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		last = line
		switch {
		case e.AWS == nil:
		case e.AWS.CloudWatchMetrics[0].Namespace != "Sallyport/test":
			t.Errorf("the namespace of %s", line)
		case e.Verdict == "":
			flows, denied = flows+e.Flows, denied+e.FlowsDenied
		default:
			byReason[e.Verdict+" "+e.Reason] += e.Flows
		}
	}
	if flows != 2 || denied != 1 || byReason["allow rule"] != 1 || byReason["deny no_rule"] != 1 || !strings.Contains(last, "_aws") {
		t.Errorf("%v flows, %v denied, %v; the last line is %s", flows, denied, byReason, last)
	}
}

// TestEMFStalledOutput: a reader of standard output that has stopped costs
// lines, and neither a connection nor the end of the process.
func TestEMFStalledOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	r := w.serve(twoNames, setting("metrics.emf.namespace", "Sallyport"), setting("metrics.emf.every", "1s"),
		setting("logging.full", "drop"), setting("logging.queue", 16), func(c *rigConfig) { c.stdout = writer })
	writer.Close()
	for range 10 {
		r.deniedTimes(100) // each of which is answered, though a pipe holds some hundred lines
	}
	if r.dropped() == 0 {
		t.Error("nothing was dropped: the output never stalled")
	}
	r.signal(syscall.SIGTERM)
	r.awaitLog("every connection has ended")
	var text strings.Builder
	if _, err := io.Copy(&text, reader); err != nil { // what waits can be written now
		t.Fatal(err)
	}
	r.wait()
	var metrics int
	for line := range strings.Lines(text.String()) {
		if !json.Valid([]byte(line)) {
			t.Fatalf("no whole line: %q", line)
		}
		if strings.Contains(line, `"_aws"`) {
			metrics++
		}
	}
	if metrics == 0 || !strings.Contains(text.String(), `"FlowsDenied"`) {
		t.Errorf("%d lines for CloudWatch in %d bytes", metrics, text.Len())
	}
}
