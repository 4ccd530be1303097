package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func environOf(pairs ...string) environ {
	return func(name string) (string, bool) {
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

// isCheck requires a result, how sure it is, and a part of what was seen.
func isCheck(t *testing.T, c check, result, seen string) {
	t.Helper()
	if got := strings.TrimSpace(c.Result + " " + c.Sure); got != result || !strings.Contains(c.Seen, seen) {
		t.Errorf("%s: %s; want %s: %s", got, c.Seen, result, seen)
	}
	if (c.Result == resultLeak || c.Result == resultWrong) && c.Change == "" {
		t.Errorf("%s: nothing is said of what to change", c.Seen)
	}
}

// TestJudgeRoad: what an address outside does counts only beside what one does
// where nobody is.
func TestJudgeRoad(t *testing.T) {
	tests := []struct {
		name    string
		got     []response // of addresses outside
		nobody  response
		refuser bool
		want    string
		seen    string
	}{
		{"silence", []response{silent, silent}, silent, false, "ok likely", "no answer from 1.0.0.1, 1.0.0.2"},
		{"no route", []response{unroutable, unroutable}, unroutable, false, "ok certain", "1.0.0.1:443"},
		{"no route to one", []response{unroutable, silent}, silent, false, "ok likely", "no answer from 1.0.0.2"},
		{"prohibited", []response{unreachable}, unreachable, false, "ok likely", ""},
		{"one answers", []response{silent, answered}, silent, false, "leak certain", "1.0.0.2:443"},
		{"one takes connections", []response{connected, silent}, silent, false, "leak likely", "1.0.0.1:443"},
		{"one refuses", []response{silent, refused}, silent, false, "leak likely", "what was sent has got there"},
		{"one refuses, another answers", []response{refused, answered}, silent, false, "leak likely", "1.0.0.1:443"},
		{"all refuse", []response{refused, refused}, refused, true, "ok likely", "refused on the way"},
		{"refused here, refused nowhere on another road", []response{refused}, silent, true, "unknown", "who refuses elsewhere"},
		{"one answers behind one who refuses", []response{refused, answered}, refused, true, "leak certain", "1.0.0.2:443"},
		{"somebody answers for all", []response{answered}, answered, false, "unknown", "a device in between"},
		{"somebody connects for all", []response{connected}, connected, false, "unknown", "a device in between"},
		{"a Sallyport", []response{intercepted}, intercepted, false, "ok certain", "1.0.0.1:443"},
		{"a Sallyport for some", []response{intercepted, answered}, intercepted, false, "leak certain", "1.0.0.2:443"},
		{"the probe fails", []response{broken}, silent, false, "unknown", "1.0.0.1:443"},
		{"nothing tried", nil, silent, false, "unknown", "no address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := road{"tcp", 443}
			all := []attempt{{road: r, to: netip.MustParseAddrPort("192.0.2.1:443"), nobody: true, got: tt.nobody}}
			for i, got := range tt.got {
				to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{1, 0, 0, byte(i + 1)}), 443)
				all = append(all, attempt{road: r, to: to, got: got})
			}
			isCheck(t, judgeRoad("x", r, all, tt.refuser), tt.want, tt.seen)
		})
	}
}

// TestJudgeDirect: each road is judged alone, those of IPv6 together.
func TestJudgeDirect(t *testing.T) {
	attempts := func(leaking netip.Addr, open road, otherwise response) (all []attempt) {
		for _, r := range roads() {
			for _, text := range []string{"1.1.1.1", "2001:db8:1::1"} {
				a := attempt{road: r, to: netip.AddrPortFrom(netip.MustParseAddr(text), r.port), got: otherwise}
				if a.to.Addr() == leaking && r == open {
					a.got = answered
				}
				all = append(all, a)
			}
		}
		return all
	}
	four, six := netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("2001:db8:1::1")
	for _, open := range roads() {
		for _, addr := range []netip.Addr{four, six} {
			want := "direct-" + open.network + "-" + uitoa(open.port)
			if addr == six {
				want = "direct-ipv6"
			}
			var x examination
			if x.judgeDirect(&findings{direct: attempts(addr, open, silent)}) {
				t.Error("a Sallyport was seen")
			}
			for _, c := range x.checks {
				if leak := c.Result == resultLeak; leak != (c.Name == want) || leak && (c.Change == "" || c.Sure != certain) {
					t.Errorf("%s open to %s: %+v", open, addr, c)
				}
			}
			if len(x.checks) != 6 || !x.failed() {
				t.Errorf("%d checks, %s", len(x.checks), x.result())
			}
		}
	}
	var x examination
	if !x.judgeDirect(&findings{direct: attempts(netip.Addr{}, road{}, intercepted), seenIPv6: true}) || x.result() != resultOK {
		t.Errorf("a Sallyport in the way: %+v", x.checks)
	}
	x = examination{}
	x.judgeDirect(&findings{direct: attempts(netip.Addr{}, road{}, unroutable)})
	isCheck(t, x.checks[5], "ok certain", "no route for IPv6")
}

func TestJudgeTargetsDirect(t *testing.T) {
	at := func(host, to string, got response) attempt {
		return attempt{road: road{"tcp", 443}, host: host, to: netip.MustParseAddrPort(to), got: got}
	}
	var x examination
	x.judgeTargetsDirect([]attempt{
		at("a:443", "1.0.0.1:443", silent), at("a:443", "1.0.0.2:443", answered), at("b:443", "10.0.0.9:443", answered), at("c:443", "1.0.0.3:443", silent),
	})
	if len(x.checks) != 3 {
		t.Fatalf("%+v", x.checks)
	}
	isCheck(t, x.checks[0], "leak certain", "1.0.0.2:443")
	isCheck(t, x.checks[1], "unknown", "a private address")
	isCheck(t, x.checks[2], "ok likely", "no answer")
}

func TestJudgeResolver(t *testing.T) {
	public, private := []netip.Addr{netip.MustParseAddr("93.184.215.14")}, []netip.Addr{netip.MustParseAddr("10.0.0.9")}
	tests := []struct {
		name, server string
		got          response
		reply        dnsReply
		want, seen   string
	}{
		{"VPC's, by its own address", "169.254.169.253:53", answered, dnsReply{addrs: public}, "unknown", "the VPC's resolver, and resolves example.com"},
		{"VPC's, plus two", "10.0.0.2:53", answered, dnsReply{code: 5}, "ok likely", "the VPC's resolver"},
		{"VPC's, IPv6", "[fd00:ec2::253]:53", answered, dnsReply{code: 3}, "ok likely", "the VPC's resolver"},
		{"steered", "10.0.0.7:53", answered, dnsReply{addrs: private}, "ok likely", "names are steered"},
		{"in this task", "127.0.0.1:53", silent, dnsReply{}, "unknown", "a resolver in this task"},
		{"outside", "8.8.8.8:53", answered, dnsReply{addrs: public}, "leak certain", "a resolver outside"},
		{"outside, refusing", "8.8.8.8:53", answered, dnsReply{code: 5}, "leak certain", "a resolver outside"},
		{"outside, closed off", "8.8.8.8:53", silent, dnsReply{}, "wrong certain", "meant to leave the VPC"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isCheck(t, judgeResolver(resolverSeen{server: netip.MustParseAddrPort(tt.server), got: tt.got, reply: tt.reply}), tt.want, tt.seen)
		})
	}
}

func TestJudgeProxyVariables(t *testing.T) {
	const p = "http://10.0.2.9:3128"
	all := func(https, lowerHTTPS, plain, lowerPlain string) environ {
		return environOf("HTTPS_PROXY", https, "https_proxy", lowerHTTPS, "HTTP_PROXY", plain, "http_proxy", lowerPlain)
	}
	tests := []struct {
		name          string
		env           environ
		given, inPath bool
		want, seen    string
	}{
		{"all alike", all(p, p, p, p), false, false, "ok certain", "all four are " + p},
		{"a slash more", all(p+"/", p, p, p), false, false, "ok certain", p},
		{"over TLS", all("https://p:443", "https://p:443", "https://p:443", "https://p:443"), false, false, "ok certain", "https://p:443"},
		{"one lacks", all(p, p, p, ""), false, false, "wrong certain", "http_proxy not set"},
		{"upper case lacks", all("", p, "", p), false, false, "wrong certain", "HTTPS_PROXY, HTTP_PROXY not set"},
		{"one differs", all(p, p, "http://10.0.2.8:3128", p), false, false, "wrong certain", "HTTPS_PROXY and HTTP_PROXY differ"},
		{"no scheme", all("10.0.2.9:3128", p, p, p), false, false, "wrong certain", "HTTPS_PROXY: "},
		{"SOCKS", all("socks5://p:1", p, p, p), false, false, "wrong certain", "does not begin with http://"},
		{"no port", all("http://p", p, p, p), false, false, "wrong certain", "names no port"},
		{"a path", all("http://p:1/x", p, p, p), false, false, "wrong certain", "more than a host"},
		{"unspecified", all("http://0.0.0.0:3128", p, p, p), false, false, "wrong certain", "0.0.0.0"},
		{"none", environOf(), false, false, "wrong certain", "none is set"},
		{"none, in the proxy's container", environOf(), true, false, "unknown", "not set here"},
		{"none, transparent", environOf(), false, true, "ok certain", "nor needed"},
		{"empty is none", all("", " ", "", ""), false, false, "wrong certain", "none is set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isCheck(t, judgeProxyVariables(readVariables(tt.env), tt.given, tt.inPath), tt.want, tt.seen)
		})
	}
	const secret = "http://user:s3cret@10.0.2.9:3128"
	for _, env := range []environ{
		all(secret, secret, secret, secret), all(secret, p, p, p), all(secret+"/x", p, p, p), all("http://user:s3cret@p\x7f:1", p, p, p),
		all("user:s3cret@p:1", p, p, p), all("http://user:x/s3cret@p:1", p, p, p), all("http://user:x#s3cret@p:1", p, p, p), all(p, "http://s3cret@p:1", p, p),
	} {
		if c := judgeProxyVariables(readVariables(env), false, false); strings.Contains(c.Seen+c.Change, "s3cret") {
			t.Errorf("it says the password: %+v", c)
		}
	}
}

func TestJudgeNoProxy(t *testing.T) {
	const need = "169.254.170.2,169.254.169.254,localhost,127.0.0.1"
	names := map[string][]netip.Addr{
		"logs.us-east-1.amazonaws.com": {netip.MustParseAddr("10.0.3.4")}, "github.com": {netip.MustParseAddr("140.82.121.4")}, "gone.example.org": nil,
	}
	tests := []struct {
		name, value string
		fargate     bool
		want, seen  string
	}{
		{"as env prints it", need, false, "ok certain", need},
		{"with spaces and capitals", "169.254.170.2, 169.254.169.254, LocalHost, 127.0.0.1", false, "ok certain", need},
		{"no IMDS on Fargate", "169.254.170.2,localhost,127.0.0.1", true, "ok certain", "not there on Fargate"},
		{"no IMDS elsewhere", "169.254.170.2,localhost,127.0.0.1", false, "wrong certain", "NO_PROXY lacks 169.254.169.254"},
		{"no credentials", "169.254.169.254,localhost,127.0.0.1", true, "wrong certain", "NO_PROXY lacks 169.254.170.2"},
		{"credentials in a CIDR", "169.254.0.0/16,localhost,127.0.0.1", true, "wrong certain", "has 169.254.170.2 in a CIDR only"},
		{"everything", need + ",*", false, "wrong certain", `"*" sends everything past the proxy`},
		{"a wildcard", need + ",*.internal", false, "wrong certain", `"*.internal" is a wildcard`},
		{"a suffix inside", need + ",.svc.internal,.local", false, "ok certain", ""},
		{"a public suffix", need + ",.amazonaws.com", false, "wrong certain", `".amazonaws.com" sends public names past the proxy`},
		{"a VPC endpoint", need + ",logs.us-east-1.amazonaws.com", false, "ok certain", ""},
		{"a public name", need + ",github.com", false, "wrong certain", `"github.com" leads to 140.82.121.4`},
		{"a public name with its port", need + ",github.com:443", false, "wrong certain", `"github.com:443" leads to`},
		{"a name that does not resolve", need + ",gone.example.org", false, "unknown", "does not resolve here"},
		{"a host of one label", need + ",db", false, "ok certain", ""},
		{"the VPC", need + ",10.0.0.0/16,fd00::/8", false, "ok certain", ""},
		{"a wide CIDR", need + ",0.0.0.0/0", false, "wrong certain", `"0.0.0.0/0" sends public addresses`},
		{"wider than private", need + ",192.168.0.0/15", false, "wrong certain", "sends public addresses"},
		{"a public address", need + ",1.1.1.1", false, "wrong certain", "sends public addresses"},
		{"a public IPv6 address", need + ",[2606:4700:4700::1111]:443", false, "wrong certain", "sends public addresses"},
		{"the target", need + ",api.test", false, "wrong certain", `"api.test" covers api.test`},
		{"the target's suffix", need + ",.test", false, "wrong certain", `".test" covers api.test`},
		{"no suffix of the target's", need + ",pi.test", false, "ok certain", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var x examination
			v := readVariables(environOf("HTTPS_PROXY", "http://p:1", "NO_PROXY", tt.value, "no_proxy", tt.value))
			x.judgeNoProxy(v, noProxyContext{targets: []target{{host: "api.test", port: 443}}, names: names, fargate: tt.fargate})
			isCheck(t, x.checks[0], tt.want, tt.seen)
		})
	}
	for _, tt := range []struct{ upper, lower, want, seen string }{
		{need, "", "wrong certain", "no_proxy not set"},
		{need, "169.254.170.2,169.254.169.254,localhost,127.0.0.1,db", "wrong certain", "differ"},
		{need, "127.0.0.1,localhost,169.254.169.254,169.254.170.2", "ok certain", ""},
	} {
		var x examination
		x.judgeNoProxy(readVariables(environOf("HTTPS_PROXY", "http://p:1", "NO_PROXY", tt.upper, "no_proxy", tt.lower)), noProxyContext{})
		isCheck(t, x.checks[0], tt.want, tt.seen)
	}
	v := readVariables(environOf("NO_PROXY", need+",github.com,.x.org,db,a.internal,github.com:443", "no_proxy", "b.org"))
	if got := v.publicNames(); !slices.Equal(got, []string{"github.com", "b.org"}) {
		t.Errorf("names to look up: %q", got)
	}
}

func TestJudgeProxy(t *testing.T) {
	u := &url.URL{Scheme: "http", Host: "10.0.2.9:3128"}
	sallyport := proxyStatus{ours: true, reason: "no_rule", flow: "01F"}
	tests := []struct {
		name       string
		reply      proxyReply
		want, seen string
	}{
		{"denies", proxyReply{code: 403, proxyStatus: sallyport}, "ok certain", "answers, and denies"},
		{"reports", proxyReply{code: 502, proxyStatus: proxyStatus{ours: true, reason: "dns_error"}}, "ok certain", "502, dns_error"},
		{"refuses", proxyReply{err: syscall.ECONNREFUSED}, "wrong certain", "refuses"},
		{"silent", proxyReply{err: os.ErrDeadlineExceeded}, "wrong certain", "no answer in time"},
		{"wants credentials", proxyReply{code: 407, proxyStatus: sallyport}, "wrong certain", "asks for credentials"},
		{"opens everything", proxyReply{code: 200}, "wrong certain", "exists nowhere"},
		{"another proxy", proxyReply{code: 403}, "unknown", "not as a Sallyport does"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isCheck(t, judgeHello(proxySeen{url: u, hello: tt.reply}), tt.want, tt.seen)
		})
	}
	refusals := []struct {
		name, what string
		reply      proxyReply
		want       string
	}{
		{"refused", "CONNECT x", proxyReply{code: 403, proxyStatus: sallyport}, "ok certain"},
		{"tunnel", "CONNECT x", proxyReply{code: 200}, "leak certain"},
		{"body", "GET x", proxyReply{code: 200}, "leak certain"},
		{"tried", "CONNECT x", proxyReply{code: 504, proxyStatus: sallyport}, "unknown"},
		{"another's no", "CONNECT x", proxyReply{code: 405}, "ok certain"},
		{"somebody's no", "GET x", proxyReply{code: 404}, "unknown"},
		{"credentials first", "GET x", proxyReply{code: 407, proxyStatus: sallyport}, "unknown"},
		{"cut", "GET x", proxyReply{err: errors.New("cut")}, "unknown"},
	}
	for _, tt := range refusals {
		t.Run("metadata "+tt.name, func(t *testing.T) {
			isCheck(t, judgeRefusals([]refusalSeen{{"CONNECT y", proxyReply{code: 403, proxyStatus: sallyport}}, {tt.what, tt.reply}}), tt.want, "")
		})
	}
	isCheck(t, judgeRaw(rawSeen{tried: true, alert: alertAccessDenied}), "ok certain", "takes raw TLS")
	isCheck(t, judgeRaw(rawSeen{tried: true, alert: 40}), "unknown", "not taken")
	isCheck(t, judgeRaw(rawSeen{}), "unknown", "not tried")
}

func TestJudgeSource(t *testing.T) {
	tests := []struct{ name, local, remote, client, want, seen string }{
		{"told, the same", "10.0.1.5:999", "10.0.2.9:3128", "10.0.1.5", "ok certain", "this task's address"},
		{"told, a load balancer's", "10.0.1.5:999", "10.0.2.9:3128", "10.0.2.44", "wrong certain", "the proxy sees 10.0.2.44, this task is 10.0.1.5"},
		{"not told", "10.0.1.5:999", "10.0.2.9:3128", "", "unknown", "stands in its record"},
		{"a sidecar", "127.0.0.1:999", "127.0.0.1:3128", "", "ok certain", "in this task"},
		{"a sidecar, by the task's address", "10.0.1.5:999", "10.0.1.5:3128", "", "ok certain", "in this task"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := proxySeen{local: netip.MustParseAddrPort(tt.local), remote: netip.MustParseAddrPort(tt.remote)}
			p.hello.proxyStatus = proxyStatus{ours: true, flow: "01F", client: tt.client}
			c := judgeSource(p)
			isCheck(t, c, tt.want, tt.seen)
			if tt.client == "" && c.Result == resultUnknown && !strings.Contains(c.Change, "find flow 01F in the proxy's log") {
				t.Error(c.Change)
			}
		})
	}
	isCheck(t, judgeSource(proxySeen{}), "unknown", "no Sallyport answered")
}

func TestParseProxyStatus(t *testing.T) {
	tests := []struct {
		header string
		want   proxyStatus
	}{
		{`sallyport; error=http_request_denied; details="no_rule flow=01F"`, proxyStatus{true, "no_rule", "01F", ""}},
		{`sallyport; error=http_request_denied; details="deny_rule rule=a flow=01F client=10.0.0.1"`, proxyStatus{true, "deny_rule", "01F", "10.0.0.1"}},
		{`squid; error=http_request_denied`, proxyStatus{}},
		{`sallyport2; details="x"`, proxyStatus{}},
		{`sallyport; details="`, proxyStatus{ours: true}},
		{"", proxyStatus{}},
	}
	for _, tt := range tests {
		if got := parseProxyStatus(http.Header{"Proxy-Status": {tt.header}}); got != tt.want {
			t.Errorf("%s: %+v", tt.header, got)
		}
	}
}

func TestJudgeMetadata(t *testing.T) {
	for _, tt := range []struct {
		seen       statusSeen
		want, text string
	}{
		{statusSeen{}, "unknown", "V is not set"},
		{statusSeen{set: true, code: 200}, "ok certain", "answers directly"},
		{statusSeen{set: true, code: 400}, "wrong likely", "400"},
		{statusSeen{set: true, err: &url.Error{Op: "Get", URL: "http://169.254.170.2/v2/credentials/handle", Err: syscall.ECONNREFUSED}}, "wrong certain", "refuses"},
		{statusSeen{set: true, err: &url.Error{Op: "Get", URL: "http://169.254.170.2/v2/credentials/handle", Err: errors.New("strange")}}, "wrong certain", "strange"},
	} {
		c := judgeStatus(tt.seen, "V")
		isCheck(t, c, tt.want, tt.text)
		if strings.Contains(c.Seen, "handle") {
			t.Errorf("it says the URL: %s", c.Seen)
		}
	}
	p := &prober{timeout: time.Second}
	for _, uri := range []string{"http://8.8.8.8/", "https://169.254.170.2/", "http://metadata/", "http://169.254.170.2@8.8.8.8/", "::"} {
		if _, err := p.status(t.Context(), uri); err == nil {
			t.Errorf("%s was asked", uri)
		}
	}
}

// madeRoot is a private CA's certificate.
func madeRoot(t *testing.T, name string, until time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	c, err := signed(template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestJudgeTrust(t *testing.T) {
	now := time.Now()
	ours, other, old := madeRoot(t, "ours", now.Add(24*time.Hour)), madeRoot(t, "other", now.Add(24*time.Hour)), madeRoot(t, "old", now.Add(-time.Hour))
	var public []*x509.Certificate
	for root := range bundle.Roots() {
		c, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if public = append(public, c); len(public) == 3 {
			break
		}
	}
	with := func(cas ...*x509.Certificate) []*x509.Certificate { return slices.Concat(cas, public) }
	bundleOf := func(variable string, certs []*x509.Certificate) trustSeen {
		return trustSeen{variable: variable, path: "/b.pem", certs: certs}
	}
	var complete []trustSeen
	for _, v := range trustVariables("", "", "") {
		complete = append(complete, bundleOf(v.Name, with(ours)))
	}
	alone := slices.Clone(complete)
	alone[len(alone)-1].certs = []*x509.Certificate{ours}
	tests := []struct {
		name       string
		all        []trustSeen
		want, seen string
	}{
		{"none", nil, "ok certain", "no variable names a bundle"},
		{"all", complete, "ok certain", `all bundles hold "CN=ours"`},
		{"Node with the CA alone", alone, "ok certain", `"CN=ours"`},
		{"some", complete[:2], "unknown", "not set: REQUESTS_CA_BUNDLE"},
		{"public roots only", []trustSeen{bundleOf("AWS_CA_BUNDLE", public)}, "ok certain", "public roots only"},
		{"the CA alone", []trustSeen{bundleOf("AWS_CA_BUNDLE", []*x509.Certificate{ours})}, "wrong certain", "holds no public root"},
		{"two CAs", []trustSeen{bundleOf("SSL_CERT_FILE", with(ours)), bundleOf("AWS_CA_BUNDLE", with(other))}, "wrong certain", "SSL_CERT_FILE and AWS_CA_BUNDLE trust different private CAs"},
		{"Node another", []trustSeen{bundleOf("AWS_CA_BUNDLE", with(ours)), bundleOf(nodeTrust, []*x509.Certificate{other})}, "wrong certain", `AWS_CA_BUNDLE lacks "CN=other"`},
		{"expired", []trustSeen{bundleOf("AWS_CA_BUNDLE", with(old))}, "wrong certain", "expired"},
		{"unreadable", []trustSeen{{variable: "AWS_CA_BUNDLE", path: "/b.pem", err: os.ErrNotExist}}, "wrong certain", "AWS_CA_BUNDLE=/b.pem: file does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var x examination
			x.judgeTrust(tt.all)
			isCheck(t, x.checks[0], tt.want, tt.seen)
		})
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if seen := readTrust(environOf("AWS_CA_BUNDLE", empty)); len(seen) != 1 || seen[0].err == nil {
		t.Errorf("%+v", seen)
	}
}

func TestJudgeClients(t *testing.T) {
	const good = "-Dhttps.proxyHost=p -Dhttps.proxyPort=3128 -Dhttp.nonProxyHosts=169.254.170.2|localhost"
	for _, tt := range []struct{ options, want, seen string }{
		{"", "unknown", "reads no proxy variable"},
		{good, "ok likely", "names the proxy"},
		{"-Dhttps.proxyHost=q -Dhttps.proxyPort=3128", "wrong certain", "names the proxy q:3128, HTTPS_PROXY p:3128"},
		{"-Dhttps.proxyHost=p -Dhttps.proxyPort=3128", "wrong certain", "http.nonProxyHosts lacks it"},
	} {
		isCheck(t, judgeJava(environOf("HTTPS_PROXY", "http://p:3128", "JAVA_TOOL_OPTIONS", tt.options)), tt.want, tt.seen)
	}
	isCheck(t, judgeNode(environOf()), "unknown", "Node")
	isCheck(t, judgeNode(environOf("NODE_USE_ENV_PROXY", "1")), "ok likely", "NODE_USE")
	var x examination
	if x.judgeClients(environOf(), map[string]bool{"node": true, "java": true}, true); len(x.checks) > 0 {
		t.Errorf("behind a Sallyport in the way: %+v", x.checks)
	}
}

func TestDNSWire(t *testing.T) {
	q := dnsQuestion("example.com")
	if !bytes.HasSuffix(q, []byte("\x07example\x03com\x00\x00\x01\x00\x01")) || len(q) != 29 {
		t.Fatalf("%q", q)
	}
	reply := func(code byte, records ...string) []byte {
		r := slices.Clone(q)
		r[2], r[3], r[7] = 0x81, 0x80|code, byte(len(records))
		return append(r, strings.Join(records, "")...)
	}
	const cname = "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01a\xc0\x0c"
	const a = "\x01a\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x5d\xb8\xd7\x0e"
	foreign, upper := reply(0), reply(0, a)
	foreign[0] ^= 1
	upper[13] = 'E'
	tests := []struct {
		name  string
		reply []byte
		ok    bool
		code  int
		addrs int
	}{
		{"address behind an alias", reply(0, cname, a), true, 0, 1},
		{"no such name", reply(3), true, 3, 0},
		{"other case", upper, true, 0, 1},
		{"cut in the record", reply(0, a[:len(a)-2]), true, 0, 0},
		{"cut in the name", reply(0, "\x3fa"), true, 0, 0},
		{"another ID", foreign, false, 0, 0},
		{"the question itself", q, false, 0, 0},
		{"another question", append(slices.Clone(reply(0)[:12]), dnsQuestion("example.org")[12:]...), false, 0, 0},
		{"short", q[:11], false, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, ok := parseDNSReply(q, tt.reply)
			if ok != tt.ok || r.code != tt.code || len(r.addrs) != tt.addrs {
				t.Errorf("%+v, %t", r, ok)
			}
		})
	}
}

// FuzzDNSReply: whatever comes back, reading it ends, and what is no answer to
// the question is none.
func FuzzDNSReply(f *testing.F) {
	q := dnsQuestion("example.com")
	copy(q, "\x12\x34")
	f.Add(append(slices.Clone(q), "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x5d\xb8\xd7\x0e"...))
	f.Add(q)
	f.Fuzz(func(t *testing.T, reply []byte) {
		r, ok := parseDNSReply(q, reply)
		if ok && (len(reply) < 12 || reply[0] != 0x12 || reply[1] != 0x34 || reply[2]&0x80 == 0) {
			t.Errorf("taken for an answer: %x", reply)
		}
		if 14*len(r.addrs) > len(reply) {
			t.Errorf("%d addresses in %d bytes", len(r.addrs), len(reply))
		}
	})
}

func TestQUICWire(t *testing.T) {
	p := quicProbe()
	if len(p) != quicMinimum || p[0]&0xc0 != 0xc0 {
		t.Fatalf("%d bytes, %x", len(p), p[:6])
	}
	answer := slices.Concat([]byte{0x80, 0, 0, 0, 0}, p[14:23], p[5:14], []byte{0, 0, 0, 1})
	if !isVersionNegotiation(p, answer) {
		t.Error("an answer is not taken for one")
	}
	for name, bad := range map[string][]byte{
		"short": answer[:22], "the probe": p, "other IDs": slices.Concat(answer[:5], p[5:23], answer[23:]), "first ID": slices.Concat(answer[:5], p[5:14], answer[14:]), "second ID": slices.Concat(answer[:14], p[14:23], answer[23:]),
		"a version": append([]byte{0x80, 0, 0, 0, 1}, answer[5:]...),
	} {
		if isVersionNegotiation(p, bad) {
			t.Errorf("%s is taken for an answer", name)
		}
	}
}

// TestTable holds the answer for people and for programs, and that nothing
// which came from elsewhere can forge a line.
func TestTable(t *testing.T) {
	var x examination
	x.add(check{Name: "a", Result: resultOK, Sure: certain, Seen: "fine"})
	x.add(check{Name: "b", Subject: "s", Result: resultLeak, Sure: likely, Seen: "a\nb\x1b[31m http://u:pw@h/", Change: "close it"})
	x.add(check{Name: "c", Result: resultUnknown, Sure: certain, Seen: "who knows"})
	var text, encoded strings.Builder
	if err := errors.Join(x.write(&text, false), x.write(&encoded, true)); err != nil {
		t.Fatal(err)
	}
	const want = `CHECK  RESULT   SURE     SEEN
a      ok       certain  fine
b s    leak     likely   a b [31m http://***@h/
c      unknown           who knows

leak: b s
  close it

1 leak, 0 wrong, 1 unknown, 1 ok
`
	if text.String() != want {
		t.Errorf("%s", text.String())
	}
	var got struct {
		Result string
		Checks []map[string]string
	}
	if err := json.Unmarshal([]byte(encoded.String()), &got); err != nil || got.Result != "leak" || len(got.Checks) != 3 {
		t.Fatalf("%v: %s", err, encoded.String())
	}
	if b := got.Checks[1]; b["check"] != "b" || b["subject"] != "s" || b["result"] != "leak" || b["sure"] != "likely" || b["change"] != "close it" || len(got.Checks[2]) != 3 {
		t.Errorf("%s", encoded.String())
	}
	if !x.failed() || (&examination{checks: x.checks[2:]}).failed() {
		t.Error("a leak fails, and what is unknown does not")
	}
}

// TestProbes runs each kind of probe against loopback.
func TestProbes(t *testing.T) {
	p := &prober{timeout: 5 * time.Second, resolver: resolverOf(nil)}
	listen := func(serve func(net.Conn)) netip.AddrPort {
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		t.Cleanup(func() { ln.Close(); <-ended })
		go func() {
			defer close(ended)
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				serve(c)
				c.Close()
			}
		}()
		return tcpAddr(ln.Addr())
	}
	write := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4<<10))
			_, _ = c.Write([]byte(text))
		}
	}
	tests := []struct {
		name   string
		to     netip.AddrPort
		got    response
		detail string
	}{
		{"HTTP", listen(write("HTTP/1.1 400 Bad Request\r\n\r\n")), answered, "answers HTTP 400"},
		{"a Sallyport", listen(write("HTTP/1.1 403 Forbidden\r\nProxy-Status: sallyport; error=x; details=\"no_rule flow=1\"\r\n\r\n")), intercepted, "a Sallyport"},
		{"another protocol", listen(write("SSH-2.0-x\r\n")), answered, "another protocol"},
		{"nothing said", listen(write("")), connected, "takes connections"},
	}
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, detail := p.tcp(t.Context(), tt.to); got != tt.got || !strings.Contains(detail, tt.detail) {
				t.Errorf("%d, %s", got, detail)
			}
		})
	}
	if got, _ := p.tcp(t.Context(), tcpAddr(closed.Addr())); got != refused {
		t.Errorf("a closed port: %d", got)
	}
	if got, _ := p.udp(t.Context(), tcpAddr(closed.Addr()), []byte("x"), func([]byte) string { return "" }); got != refused {
		t.Errorf("a closed UDP port: %d", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, _ := p.tcp(ended, tests[0].to); got == answered || got == connected {
		t.Errorf("after the end: %d", got)
	}
}

func TestReadResolvers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# nameserver 1.1.1.1\nsearch a b\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver x\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:53"), netip.MustParseAddrPort("[fe80::1%eth0]:53"), netip.MustParseAddrPort("10.0.0.3:53")}
	if got := readResolvers(path); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := readResolvers(path + ".not"); got != nil {
		t.Errorf("%v", got)
	}
}
