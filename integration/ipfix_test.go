package integration

import (
	"bytes"
	wire "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netsampler/goflow2/v2/decoders/netflow"

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
	files := filepath.Join(w.dir, "nfcapd")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	addr := loopback()
	capture := exec.Command(need(t, "nfcapd"), "-b", addr, "-p", "4739", "-w", files)
	var said bytes.Buffer
	capture.Stdout, capture.Stderr = &said, &said
	if err := capture.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- capture.Wait() }()
	t.Cleanup(func() { _ = capture.Process.Kill() })
	awaitUDP(t, addr, 4739)

	w.name("collector.example.test", addr)
	r := w.serve(twoNames, setting("export.ipfix.collector", "udp://collector.example.test:4739"))
	someTraffic(t, w, r)
	want := recorded(t, r)
	r.signal(syscall.SIGTERM) // which sends what waits
	r.wait()
	if err := capture.Process.Signal(syscall.SIGTERM); err != nil { // which writes the file
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("nfcapd did not end")
	}
	text := command{path: need(t, "nfdump"), args: []string{"-R", files, "-o", "json"}, env: []string{"TZ=UTC"}}.run(t)
	got := nfdumpFlows(t, text.stdout)
	for port, flow := range want {
		switch nf := got[port]; {
		case flow.dst == "" && flow.start == "": // denied: no address, and one moment
			flow.dst, flow.start = nf.dst, nf.start
			if nf.dst != "" && nf.dst != "0.0.0.0" && nf.dst != "203.0.113.9" {
				t.Errorf("nfdump reads a destination of a denied flow: %+v", nf)
			}
			fallthrough
		default:
			if nf != flow {
				t.Errorf("nfdump reads\n%+v, the flow log says\n%+v", nf, flow)
			}
		}
	}
	if len(got) != len(want) || len(want) != 5 {
		t.Errorf("%d flows exported, %d recorded\n%s\n%s", len(got), len(want), text.stdout, &said)
	}
}

// nfdumpFlows reads nfdump's JSON, by source port.
func nfdumpFlows(t *testing.T, text string) map[int]exported {
	t.Helper()
	var flows []struct {
		First    string `json:"first"`
		Last     string `json:"last"`
		Src4     string `json:"src4_addr"`
		Dst4     string `json:"dst4_addr"`
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
			src: f.Src4, dst: f.Dst4, srcPort: f.SrcPort, dstPort: f.DstPort, sent: f.InBytes, received: f.OutBytes,
			start: f.First + "Z", end: f.Last + "Z",
		}
	}
	return all
}

// awaitUDP waits until some process listens on the address.
func awaitUDP(t *testing.T, addr string, port int) {
	t.Helper()
	ip := net.ParseIP(addr).To4()
	local := fmt.Sprintf(" %08X:%04X ", wire.LittleEndian.Uint32(ip), port)
	for deadline := time.Now().Add(patience); ; {
		table, err := os.ReadFile("/proc/net/udp")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(table, []byte(local)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens on %s:%d", addr, port)
		}
		<-time.After(10 * time.Millisecond)
	}
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
	for _, flow := range got {
		l := want[flow["sallyportFlowId"]]
		if l == nil {
			t.Fatalf("the flow log knows nothing of %v", flow)
		}
		for name, value := range map[string]string{
			"sallyportHost": l.Server.Address, "sallyportTlsServerName": l.TLS.Client.ServerName, "sallyportVerdict": l.Sallyport.Verdict,
			"sallyportReason": l.Sallyport.Reason, "sallyportOutcome": l.Sallyport.Outcome, "sallyportRule": l.Rule.Name,
			"sallyportPolicyVersion": l.Sallyport.PolicyVersion, "sallyportVia": l.Sallyport.Via, "sallyportEcsFamily": "billing",
			"sallyportEcsRevision": "\x00\x00\x00\x07",
		} {
			if flow[name] != value {
				t.Errorf("%s is %q, the flow log says %q", name, flow[name], value)
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
					flow := map[string]string{}
					for _, f := range d.Values {
						if f.PenProvided {
							key := wire.BigEndian.AppendUint16(wire.BigEndian.AppendUint32(nil, f.Pen), f.Type)
							flow[names[string(key)]] = string(f.Value.([]byte))
						}
					}
					flows = append(flows, flow)
				}
			}
		}
	}
	if len(names) < 20 || slices.ContainsFunc(slices.Collect(maps.Values(names)), func(n string) bool { return !strings.HasPrefix(n, "sallyport") }) {
		t.Errorf("announced: %s", strconv.Quote(fmt.Sprint(names)))
	}
	return flows
}
