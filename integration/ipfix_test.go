package integration

import (
	"bytes"
	"context"
	wire "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/netsampler/goflow2/v2/decoders/netflow"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/ipfix"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

// exported is what a collector and the flow log tell of one flow.
type exported struct {
	src, dst         string // "" where no address was dialled
	srcPort, dstPort int
	sent, received   int64
	start, end       string // RFC 3339 in milliseconds, UTC
}

// recorded is the flow log's word for every flow that ended, by client port.
func recorded(t *testing.T, r *rig) map[int]exported {
	t.Helper()
	type endpoint struct {
		Address string
		Port    int
	}
	all, starts := map[int]exported{}, map[string]string{}
	for _, l := range r.lines() {
		var line struct {
			Time    string
			Client  endpoint
			Server  endpoint
			Network struct{ Peer endpoint }
		}
		if err := json.Unmarshal([]byte(l.text), &line); err != nil {
			t.Fatal(err)
		}
		if l.Event.Name == "flow.open" {
			starts[l.Sallyport.FlowID] = line.Time
			continue
		}
		e := exported{
			src: line.Client.Address, srcPort: line.Client.Port, dst: line.Network.Peer.Address, dstPort: line.Network.Peer.Port,
			sent: l.Sallyport.BytesSent, received: l.Sallyport.BytesReceived, start: starts[l.Sallyport.FlowID], end: line.Time,
		}
		if l.Event.Name == "flow.deny" {
			e.dstPort = line.Server.Port
		}
		if _, twice := all[e.srcPort]; twice {
			t.Fatalf("two flows from port %d: the test cannot tell them apart", e.srcPort)
		}
		all[e.srcPort] = e
	}
	return all
}

// someTraffic is five flows, each on a connection of its own.
func someTraffic(t *testing.T, w *world, r *rig) {
	t.Helper()
	curl := need(t, "curl")
	for _, args := range [][]string{
		{"https://allowed.example.test/"},
		{"http://allowed.example.test/bytes?n=100000"},
		{"https://allowed.example.test/bytes?n=1000000"},
		{"https://denied.example.test/"},
		{"http://203.0.113.9/"},
	} {
		command{path: curl, args: append([]string{"-sS", "--max-time", "60", "--cacert", w.caFile, "-x", r.url(), "-o", os.DevNull}, args...)}.run(t)
	}
	r.allowed("allowed.example.test", "http")
	r.allowed("allowed.example.test", "connect")
	r.allowed("allowed.example.test", "connect")
	r.denied("denied.example.test", "connect", "no_rule")
	r.denied("203.0.113.9", "http", "ip_literal")
}

// TestIPFIXNfdump: Debian's collector reads every flow as the flow log has it
// (but for forwardingStatus, which nfdump 1.7 takes from NetFlow v9 alone).
func TestIPFIXNfdump(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.twoOrigins()
	nf := startNfcapd(t)
	w.name("collector.example.test", nf.addr)
	r := w.serve(twoNames, setting("export.ipfix.collector", "udp://collector.example.test:4739"))
	someTraffic(t, w, r)
	want := recorded(t, r)
	r.signal(syscall.SIGTERM) // which sends what waits
	r.wait()
	got := nf.stop()
	for port, logged := range want {
		read := got[port]
		if logged.dst == "" && logged.start == "" { // denied: no address, and one moment
			logged.dst, logged.start = read.dst, read.start
			if read.dst != "0.0.0.0" && read.dst != "203.0.113.9" {
				t.Errorf("nfdump reads a destination of a denied flow: %+v", read)
			}
		}
		if read != logged {
			t.Errorf("nfdump reads\n%+v, the flow log says\n%+v", read, logged)
		}
	}
	if len(got) != len(want) || len(want) != 5 {
		t.Errorf("%d flows exported, %d recorded", len(got), len(want))
	}
}

// TestIPFIXNfdumpRecords: what the traffic above has no occasion for: IPv6,
// both families in one flow, large counters, long names, many messages.
func TestIPFIXNfdumpRecords(t *testing.T) {
	t.Parallel()
	nf := startNfcapd(t)
	x, err := ipfix.New(ipfix.Config{Collector: ipfix.Collector{Network: "udp", Host: nf.addr, Port: 4739}, Domain: 1, MTU: ipfix.MinMTU})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	want := map[int]exported{}
	start := time.Date(2026, 11, 23, 8, 0, 0, 1_000_000, time.UTC)
	const flows = 300
	for i := range flows {
		r := flow.Record{
			ID: strconv.Itoa(i), Start: start.Add(time.Duration(i) * time.Second), Client: netip.MustParseAddrPort("10.0.16.9:1000"),
			Host: strings.Repeat("h", i), Peer: netip.MustParseAddrPort("203.0.113.7:443"), Rule: strings.Repeat("r", 3*i%250),
			BytesSent: int64(i) << 32, BytesReceived: 1<<40 + int64(i),
		}
		if i%3 > 0 {
			r.Peer = netip.MustParseAddrPort("[2001:db8::7]:8443")
		}
		if i%3 == 2 {
			r.Client = netip.MustParseAddrPort("[2001:db8::9]:1000")
		}
		r.Client = netip.AddrPortFrom(r.Client.Addr(), uint16(1000+i))
		r.End = r.Start.Add(1234 * time.Millisecond)
		src := r.Client.Addr().String()
		if i%3 == 1 {
			src = "::ffff:" + src // beside an IPv6 address
		}
		const layout = "2006-01-02T15:04:05.000Z"
		want[1000+i] = exported{
			src: src, dst: r.Peer.Addr().String(), srcPort: 1000 + i, dstPort: int(r.Peer.Port()),
			sent: r.BytesSent, received: r.BytesReceived, start: r.Start.Format(layout), end: r.End.Format(layout),
		}
		x.Observe(flow.Event{Kind: flow.Closed, Record: r})
		nf.taken(func() bool { return x.Sent() == uint64(i+1) }) // its socket's buffer is small
	}
	cancel()
	if err := <-ended; err != nil || x.Dropped() != 0 {
		t.Errorf("%v, %d dropped", err, x.Dropped())
	}
	if d := cmp.Diff(want, nf.stop(), cmp.AllowUnexported(exported{})); d != "" {
		t.Error(d)
	}
}

// TestIPFIXSilentCollector: one that never reads costs no connection, and does
// not keep the proxy from ending.
func TestIPFIXSilentCollector(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.twoOrigins()
	ln := listen(t, "127.0.0.1:0") // accepts by the kernel alone
	defer ln.Close()
	r := w.serve(twoNames, setting("export.ipfix.collector", "tcp://"+ln.Addr().String()))
	for range 3 {
		someTraffic(t, w, r)
	}
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("the proxy ended with %d", code)
	}
}

// nfcapd is Debian's collector at work.
type nfcapd struct {
	t     *testing.T
	addr  string // it listens on, port 4739
	files string
	cmd   *exec.Cmd
	said  bytes.Buffer
	ended chan error
}

func startNfcapd(t *testing.T) *nfcapd {
	t.Helper()
	nf := &nfcapd{t: t, addr: loopback(), files: t.TempDir(), ended: make(chan error, 1)}
	nf.cmd = exec.Command(need(t, "nfcapd"), "-b", nf.addr, "-p", "4739", "-w", nf.files)
	nf.cmd.Stdout, nf.cmd.Stderr = &nf.said, &nf.said
	if err := nf.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { nf.ended <- nf.cmd.Wait() }()
	t.Cleanup(func() { _ = nf.cmd.Process.Kill() })
	nf.taken(func() bool { return true })
	return nf
}

// taken waits until something is so, nfcapd listens, and nothing waits in its
// socket.
func (nf *nfcapd) taken(also func() bool) {
	nf.t.Helper()
	local := fmt.Sprintf(" %08X:%04X 00000000:0000 07 00000000:00000000 ", wire.LittleEndian.Uint32(net.ParseIP(nf.addr).To4()), 4739)
	for deadline := time.Now().Add(patience); ; {
		table, err := os.ReadFile("/proc/thread-self/net/udp") // the first thread may be in a namespace (inside)
		if err != nil {
			nf.t.Fatal(err)
		}
		if also() && bytes.Contains(table, []byte(local)) {
			return
		}
		if time.Now().After(deadline) {
			nf.t.Fatalf("nobody reads at %s:4739", nf.addr)
		}
		<-time.After(time.Millisecond)
	}
}

// stop ends it, which writes its file, and returns the flows by source port.
func (nf *nfcapd) stop() map[int]exported {
	nf.t.Helper()
	if err := nf.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		nf.t.Fatal(err)
	}
	select {
	case <-nf.ended:
	case <-time.After(patience):
		nf.t.Fatal("nfcapd did not end")
	}
	out := command{path: need(nf.t, "nfdump"), args: []string{"-R", nf.files, "-o", "json"}, env: []string{"TZ=UTC"}}.run(nf.t)
	nf.t.Cleanup(func() {
		if nf.t.Failed() {
			nf.t.Logf("nfcapd said:\n%s", &nf.said)
		}
	})
	return nfdumpFlows(nf.t, out.stdout)
}

// nfdumpFlows reads nfdump's JSON, by source port.
func nfdumpFlows(t *testing.T, text string) map[int]exported {
	t.Helper()
	var flows []struct {
		First    string `json:"first"`
		Last     string `json:"last"`
		Src4     string `json:"src4_addr"`
		Dst4     string `json:"dst4_addr"`
		Src6     string `json:"src6_addr"`
		Dst6     string `json:"dst6_addr"`
		SrcPort  int    `json:"src_port"`
		DstPort  int    `json:"dst_port"`
		InBytes  int64  `json:"in_bytes"`
		OutBytes int64  `json:"out_bytes"`
	}
	if err := json.Unmarshal([]byte(text), &flows); err != nil {
		t.Fatalf("nfdump: %v\n%s", err, text)
	}
	all := map[int]exported{}
	for _, f := range flows {
		all[f.SrcPort] = exported{
			src: f.Src4 + f.Src6, dst: f.Dst4 + f.Dst6, srcPort: f.SrcPort, dstPort: f.DstPort, sent: f.InBytes, received: f.OutBytes,
			start: f.First + "Z", end: f.Last + "Z",
		}
	}
	return all
}

// TestIPFIXGoflow2: another collector's decoder reads the enterprise elements
// by the names that were announced, over TCP, of a task that is known.
func TestIPFIXGoflow2(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.twoOrigins()
	ln := listen(t, "127.0.0.1:0")
	defer ln.Close()
	messages := make(chan []byte, 64)
	failed := make(chan error, 1)
	go func() {
		defer close(messages)
		failed <- readMessages(ln, messages)
	}()
	task := proxytest.ECSTask{ID: "0123", Family: "billing", Revision: 7}
	metadata := proxytest.NewTaskMetadata(task, "proxy", "app")
	server := httptest.NewServer(metadata)
	defer server.Close()
	r := w.serve(twoNames, setting("export.ipfix.collector", "tcp://"+ln.Addr().String()), setting("export.ipfix.enterprise", 64999),
		func(c *rigConfig) { c.env = append(c.env, "ECS_CONTAINER_METADATA_URI_V4="+server.URL+metadata.Path()) })
	someTraffic(t, w, r)
	want := map[string]*flowLine{}
	for _, l := range r.lines() {
		if l.Event.Name != "flow.open" {
			want[l.Sallyport.FlowID] = l
		}
	}
	r.signal(syscall.SIGTERM)
	r.wait()
	got := decodeIPFIX(t, messages)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || len(want) != 5 {
		t.Errorf("%d flows exported, %d recorded", len(got), len(want))
	}
	for _, fields := range got {
		l := want[fields["sallyportFlowId"]]
		if l == nil {
			t.Fatalf("the flow log knows nothing of %v", fields)
		}
		for name, value := range map[string]string{
			"sallyportHost": l.Server.Address, "sallyportTlsServerName": l.TLS.Client.ServerName, "sallyportVerdict": l.Sallyport.Verdict,
			"sallyportReason": l.Sallyport.Reason, "sallyportOutcome": l.Sallyport.Outcome, "sallyportRule": l.Rule.Name,
			"sallyportPolicyVersion": l.Sallyport.PolicyVersion, "sallyportVia": l.Sallyport.Via, "sallyportEcsFamily": "billing",
			"sallyportEcsRevision": "\x00\x00\x00\x07",
		} {
			if fields[name] != value {
				t.Errorf("%s is %q, the flow log says %q", name, fields[name], value)
			}
		}
	}
}

// readMessages takes the messages of one TCP connection.
func readMessages(ln net.Listener, to chan<- []byte) error {
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		head := make([]byte, 16)
		if _, err := io.ReadFull(conn, head); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		msg := make([]byte, wire.BigEndian.Uint16(head[2:]))
		copy(msg, head)
		if _, err := io.ReadFull(conn, msg[16:]); err != nil {
			return err
		}
		to <- msg
	}
}

// decodeIPFIX returns the enterprise elements of every flow by their names.
func decodeIPFIX(t *testing.T, messages <-chan []byte) []map[string]string {
	t.Helper()
	templates := netflow.CreateTemplateSystem()
	names := map[string]string{}
	var flows []map[string]string
	for msg := range messages {
		var packet netflow.IPFIXPacket
		if err := netflow.DecodeMessageVersion(bytes.NewBuffer(msg), templates, nil, &packet); err != nil {
			t.Fatal(err)
		}
		for _, set := range packet.FlowSets {
			switch s := set.(type) {
			case netflow.OptionsDataFlowSet: // RFC 5610: enterprise and number, then type, semantics, units, name, description
				for _, o := range s.Records {
					key := string(slices.Concat(o.ScopesValues[0].Value.([]byte), o.ScopesValues[1].Value.([]byte)))
					names[key] = string(o.OptionsValues[3].Value.([]byte))
				}
			case netflow.DataFlowSet:
				for _, d := range s.Records {
					fields := map[string]string{}
					for _, f := range d.Values {
						if f.PenProvided {
							key := wire.BigEndian.AppendUint16(wire.BigEndian.AppendUint32(nil, f.Pen), f.Type)
							fields[names[string(key)]] = string(f.Value.([]byte))
						}
					}
					flows = append(flows, fields)
				}
			}
		}
	}
	if len(names) < 20 || slices.ContainsFunc(slices.Collect(maps.Values(names)), func(n string) bool { return !strings.HasPrefix(n, "sallyport") }) {
		t.Errorf("announced: %s", strconv.Quote(fmt.Sprint(names)))
	}
	return flows
}
