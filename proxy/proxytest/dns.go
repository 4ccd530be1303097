package proxytest

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// DNS is a name server on loopback, UDP and TCP on one port, that says what a
// test tells it to say, true or not. A name that it was told nothing about
// does not exist (NXDOMAIN). All methods are safe for concurrent use, also
// while it serves.
type DNS struct {
	addr  netip.AddrPort
	quit  chan struct{} // closed at the end: ends delays
	liar  *net.UDPConn  // the wrong source
	mu    sync.Mutex    // protects what follows
	names map[string]DNSHandler
	other DNSHandler
	mute  bool
	log   []DNSQuery
	asked map[string]int // by name and type
}

// DNSQuery is one question that the server was asked.
type DNSQuery struct {
	Name    string // lower case, without the trailing dot
	Type    string // "A", "AAAA", ...
	Network string // "udp" or "tcp"
	EDNS    int    // the UDP payload size offered (RFC 6891), 0 without EDNS
	N       int    // how often this name and type were asked by now: 1 is the first
}

// DNSAnswer is what the server says to one question. The zero value is
// NODATA: the name exists, without a record of that type.
type DNSAnswer struct {
	// Addresses become A records (IPv4) or AAAA records (IPv6 and IPv4-mapped),
	// those that the question is for, in this order.
	Addresses []netip.Addr
	// CNAME is the name's true name. What the server was told of that one is
	// added, as a recursive server does, unless CNAMEOnly is set.
	CNAME     string
	CNAMEOnly bool
	// TTL of all records, in seconds: zero means 60, negative means 0.
	TTL int
	// RCode is the response code's word, "NXDOMAIN", "SERVFAIL", "REFUSED", ...;
	// "" is NOERROR.
	RCode string
	// NegativeTTL is the SOA minimum that a negative answer carries, in
	// seconds, counted like TTL. NoSOA leaves the SOA out.
	NegativeTTL int
	NoSOA       bool
	// Records are added to the answer section: zone file lines.
	Records []string
	// Authority replaces the SOA: zone file lines.
	Authority []string
	// Lame answers as a server that does not recurse: without RA.
	Lame bool

	// Truncate answers over UDP with nothing but the TC bit.
	Truncate bool
	// NoEDNS answers FORMERR to a question with EDNS, as old servers do.
	NoEDNS bool
	// Delay passes before the answer.
	Delay time.Duration
	// Drop says nothing at all; over TCP the connection is closed.
	Drop bool
	// Lies are forged answers, sent over UDP before the true one. Each gives
	// [ForgedAddress].
	Lies []DNSLie
}

// DNSLie is a way to forge an answer.
type DNSLie int

// The lies. All but LieSource come from the server's own address and port.
const (
	LieID       DNSLie = iota // another message id
	LieQuestion               // another name in the question section
	LieType                   // another type in the question section
	LieSource                 // all right, but sent from another port
	LieQuery                  // all right, but marked as a query, not a response
	LieGarbage                // the right id, then bytes that are no message
)

// ForgedAddress is what every lie gives: finding it means that a lie was
// believed.
func ForgedAddress() netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, 66}) }

// DNSHandler makes the answer to a question. It is called from many
// goroutines at once.
type DNSHandler func(DNSQuery) DNSAnswer

// NewDNS starts a server that stops at the end of the test.
func NewDNS(t testing.TB) *DNS {
	t.Helper()
	d := &DNS{
		quit:  make(chan struct{}),
		names: make(map[string]DNSHandler),
		asked: make(map[string]int),
		other: func(DNSQuery) DNSAnswer { return DNSAnswer{RCode: "NXDOMAIN"} },
	}
	tcp, udp := listenDNS(t)
	d.addr = udp.LocalAddr().(*net.UDPAddr).AddrPort()
	liar, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatalf("opening the wrong source: %v", err)
	}
	d.liar = liar
	var serving sync.WaitGroup
	servers := []*dns.Server{{Listener: tcp}, {PacketConn: udp}}
	for _, srv := range servers {
		up := make(chan struct{})
		srv.Handler = dns.HandlerFunc(d.serve)
		srv.NotifyStartedFunc = func() { close(up) }
		serving.Go(func() {
			if err := srv.ActivateAndServe(); err != nil {
				t.Errorf("serving DNS: %v", err)
			}
		})
		<-up
	}
	t.Cleanup(func() {
		close(d.quit)
		for _, srv := range servers {
			if err := srv.Shutdown(); err != nil {
				t.Errorf("stopping DNS: %v", err)
			}
		}
		serving.Wait()
		liar.Close()
	})
	return d
}

// listenDNS finds a port that is free for both protocols.
func listenDNS(t testing.TB) (net.Listener, *net.UDPConn) {
	t.Helper()
	var last error
	for range 20 {
		tcp, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("listening for DNS: %v", err)
		}
		udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(tcp.Addr().(*net.TCPAddr).AddrPort()))
		if err == nil {
			return tcp, udp
		}
		last = err
		tcp.Close()
	}
	t.Fatalf("no port is free for DNS over UDP and TCP: %v", last)
	return nil, nil
}

// Addr is where the server listens, host:port.
func (d *DNS) Addr() string { return d.addr.String() }

// Set gives a name its addresses, with a TTL of 60 s. A name "*.example.test"
// stands for every name below example.test that is not set itself. No address
// at all means NODATA.
func (d *DNS) Set(name string, addresses ...string) {
	var a DNSAnswer
	for _, s := range addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(s))
	}
	d.Answer(name, a)
}

// Answer gives a name one answer for all questions, see [DNS.Set].
func (d *DNS) Answer(name string, a DNSAnswer) {
	d.Handle(name, func(DNSQuery) DNSAnswer { return a })
}

// Handle gives a name answers made as they are asked for, see [DNS.Set].
func (d *DNS) Handle(name string, h DNSHandler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[canonical(name)] = h
}

// HandleOther answers for every name that was not set.
func (d *DNS) HandleOther(h DNSHandler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.other = h
}

// Mute makes the server as good as dead, or lets it live again: it still
// logs what it is asked, and answers nothing.
func (d *DNS) Mute(mute bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mute = mute
}

// Queries returns what was asked, in order.
func (d *DNS) Queries() []DNSQuery {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// Count returns how many questions about a name were asked, of any type and
// over either protocol.
func (d *DNS) Count(name string) int {
	name = canonical(name)
	n := 0
	for _, q := range d.Queries() {
		if q.Name == name {
			n++
		}
	}
	return n
}

// Names returns every name that was asked about, sorted.
func (d *DNS) Names() []string {
	names := make(map[string]bool)
	for _, q := range d.Queries() {
		names[q.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Forget empties the log and starts every count anew.
func (d *DNS) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = nil
	clear(d.asked)
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// handlerLocked returns what answers for a name: its own handler, a wildcard's,
// or the one for all others.
func (d *DNS) handlerLocked(name string) DNSHandler {
	if h, ok := d.names[name]; ok {
		return h
	}
	for rest := name; ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return d.other
		}
		if h, ok := d.names["*."+parent]; ok {
			return h
		}
		rest = parent
	}
}

// note logs a question and returns it with the handler that answers it, nil
// while the server is mute.
func (d *DNS) note(q DNSQuery) (DNSQuery, DNSHandler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := q.Name + " " + q.Type
	d.asked[key]++
	q.N = d.asked[key]
	d.log = append(d.log, q)
	if d.mute {
		return q, nil
	}
	return q, d.handlerLocked(q.Name)
}

func (d *DNS) serve(w dns.ResponseWriter, req *dns.Msg) {
	q := DNSQuery{Network: w.LocalAddr().Network()}
	if len(req.Question) != 1 {
		return
	}
	q.Name, q.Type = canonical(req.Question[0].Name), dns.TypeToString[req.Question[0].Qtype]
	if opt := req.IsEdns0(); opt != nil {
		q.EDNS = int(opt.UDPSize())
	}
	q, handler := d.note(q)
	a := DNSAnswer{Drop: true}
	if handler != nil {
		a = handler(q)
	}
	if a.Delay > 0 {
		select {
		case <-time.After(a.Delay):
		case <-d.quit:
			return
		}
	}
	if q.Network == "udp" {
		for _, lie := range a.Lies {
			d.lie(w, req, lie)
		}
	}
	if a.Drop {
		if q.Network == "tcp" {
			w.Close()
		}
		return
	}
	w.WriteMsg(d.response(req, q, a)) // the client may be gone: its own affair
}

// response is the true answer.
func (d *DNS) response(req *dns.Msg, q DNSQuery, a DNSAnswer) *dns.Msg {
	m := new(dns.Msg).SetReply(req)
	m.RecursionAvailable = !a.Lame
	if q.EDNS > 0 {
		if a.NoEDNS {
			m.Rcode = dns.RcodeFormatError
			return m
		}
		m.SetEdns0(1232, false)
	}
	if a.Truncate && q.Network == "udp" {
		m.Truncated = true
		return m
	}
	last := d.fill(m, q, a)
	if len(m.Answer) == 0 || last.RCode != "" || (last.CNAME == "" && len(last.Addresses) == 0 && len(last.Records) == 0) {
		m.Ns = append(m.Ns, authority(last)...)
	}
	if q.Network == "udp" {
		m.Truncate(max(dns.MinMsgSize, q.EDNS))
	}
	return m
}

// fill adds the answer's records and those of the names that its CNAMEs lead
// to. It returns the answer at the chain's end, which sets the response code.
func (d *DNS) fill(m *dns.Msg, q DNSQuery, a DNSAnswer) DNSAnswer {
	qtype := dns.StringToType[q.Type]
	for range 64 { // a loop of CNAMEs ends here
		for _, addr := range a.Addresses {
			if rr := addressRecord(q.Name, addr, seconds(a.TTL)); rr.Header().Rrtype == qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		m.Answer = append(m.Answer, records(a.Records)...)
		if code, ok := dns.StringToRcode[a.RCode]; ok {
			m.Rcode = code
		}
		if a.CNAME == "" {
			return a
		}
		m.Answer = append(m.Answer, &dns.CNAME{
			Hdr:    dns.RR_Header{Name: dns.Fqdn(q.Name), Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: seconds(a.TTL)},
			Target: dns.Fqdn(a.CNAME),
		})
		if a.CNAMEOnly {
			return a
		}
		q.Name = canonical(a.CNAME)
		d.mu.Lock()
		handler := d.handlerLocked(q.Name)
		d.mu.Unlock()
		a = handler(q)
	}
	return a
}

// addressRecord is an A record for an IPv4 address, an AAAA record for any
// other, IPv4-mapped ones too.
func addressRecord(name string, addr netip.Addr, ttl uint32) dns.RR {
	h := dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}
	if addr.Is4() {
		return &dns.A{Hdr: h, A: addr.AsSlice()}
	}
	h.Rrtype = dns.TypeAAAA
	return &dns.AAAA{Hdr: h, AAAA: addr.AsSlice()}
}

func authority(a DNSAnswer) []dns.RR {
	if len(a.Authority) > 0 {
		return records(a.Authority)
	}
	if a.NoSOA || a.RCode != "" && a.RCode != "NXDOMAIN" {
		return nil
	}
	ttl := strconv.FormatUint(uint64(seconds(a.NegativeTTL)), 10)
	return records([]string{". " + ttl + " IN SOA ns.invalid. hostmaster.invalid. 1 7200 900 86400 " + ttl})
}

// records parses zone file lines; a line that is wrong is a mistake of the
// test's own.
func records(lines []string) []dns.RR {
	rrs := make([]dns.RR, len(lines))
	for i, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil || rr == nil {
			panic("proxytest: not a zone file line: " + line)
		}
		rrs[i] = rr
	}
	return rrs
}

func seconds(n int) uint32 {
	switch {
	case n == 0:
		return 60
	case n < 0:
		return 0
	}
	return uint32(n)
}

// lie sends one forged answer.
func (d *DNS) lie(w dns.ResponseWriter, req *dns.Msg, lie DNSLie) {
	m := new(dns.Msg).SetReply(req)
	m.RecursionAvailable = true
	switch lie {
	case LieID:
		m.Id++
	case LieQuestion:
		m.Question[0].Name = "forged." + m.Question[0].Name
	case LieType:
		m.Question[0].Qtype = dns.TypeTXT
	case LieQuery:
		m.Response = false
	case LieGarbage:
		w.Write([]byte{byte(m.Id >> 8), byte(m.Id), 0x81, 0x80, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0xc0})
		return
	}
	forged := ForgedAddress()
	if req.Question[0].Qtype == dns.TypeAAAA {
		forged = netip.AddrFrom16(forged.As16())
	}
	m.Answer = append(m.Answer, addressRecord(req.Question[0].Name, forged, 3600))
	if lie != LieSource {
		w.WriteMsg(m)
		return
	}
	if wire, err := m.Pack(); err == nil {
		d.liar.WriteTo(wire, w.RemoteAddr())
	}
}
