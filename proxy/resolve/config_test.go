package resolve

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestValidate(t *testing.T) {
	ok := addrs("127.0.0.2")
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // "" for none
	}{
		{"zero", Config{}, ""},
		{"servers", Config{Servers: []string{"10.0.0.2", "10.0.0.2:5353", "::1", "[fe80::1%eth0]:53"}}, ""},
		{"a name as a server", Config{Servers: []string{"10.0.0.2", "ns.test:53"}}, `resolver.servers[1]: "ns.test:53"`},
		{"port 0", Config{Servers: []string{"10.0.0.2:0"}}, "resolver.servers[0]"},
		{"no address", Config{Servers: []string{""}}, "resolver.servers[0]"},
		{"the unspecified address", Config{Servers: []string{"0.0.0.0:53"}}, "resolver.servers[0]"},
		{"a bad host", Config{Hosts: []Host{{"a b", ok}}}, `resolver.hosts[0]: "a b" is not a host name`},
		{"an address as a host", Config{Hosts: []Host{{"10.0.0.1", ok}}}, "is not a host name"},
		{"a host twice", Config{Hosts: []Host{{"a.test", ok}, {"A.test.", ok}}}, "resolver.hosts[1]: a.test is already listed"},
		{"a host without addresses", Config{Hosts: []Host{{"a.test", nil}}}, "a.test has no addresses"},
		{"a host with a zone", Config{Hosts: []Host{{"a.test", addrs("fe80::1%eth0")}}}, "without a zone"},
		{"a host with no valid address", Config{Hosts: []Host{{"a.test", []netip.Addr{{}}}}}, "is not an address"},
		{"a negative timeout", Config{Timeout: -1}, "resolver.timeout: must not be negative"},
		{"a negative size", Config{CacheSize: -1}, "resolver.cache_size"},
		{"a floor above the ceiling", Config{MinTTL: 2 * time.Hour}, "resolver.min_ttl: 2h0m0s is more than max_ttl, 1h0m0s"},
		{"never stale", Config{StaleFor: -1}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.cfg.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	// All faults at once.
	err := Config{Servers: []string{"x", "y"}, Attempts: -1}.Validate()
	if err == nil || strings.Count(err.Error(), "resolver.") != 3 {
		t.Errorf("error %v, want three faults", err)
	}
	if _, err := New(Config{Attempts: -1}); err == nil {
		t.Error("New took a configuration that is not valid")
	}
}

func TestSystemServers(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ name, text, want string }{
		{"two", "search corp.test\nnameserver 10.0.0.2\n# nameserver 10.0.0.9\nnameserver fd00::2\noptions ndots:5\nnameserver 10.0.0.2\n", "[10.0.0.2:53 [fd00::2]:53]"},
		{"none", "search corp.test\n", "error: names none: set resolver.servers"},
		{"not an address", "nameserver ns.test\n", `error: "ns.test" is not an address`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, "resolv.conf")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := systemServers(path)
			want, isError := strings.CutPrefix(tt.want, "error: ")
			switch {
			case isError && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("error %v, want %q", err, want)
			case !isError && (err != nil || len(got) != 2 || got[0].String() != "10.0.0.2:53" || got[1].String() != "[fd00::2]:53"):
				t.Errorf("got %v, %v, want %s", got, err, want)
			}
		})
	}
	if _, err := systemServers(filepath.Join(dir, "missing")); err == nil || !strings.Contains(err.Error(), "set resolver.servers") {
		t.Errorf("error %v does not say what to do", err)
	}
}

func TestServers(t *testing.T) {
	r, err := New(Config{Servers: []string{"192.0.2.1", "[2001:db8::53]:5353", "192.0.2.1:53"}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::53]:5353")}
	if got := r.Servers(); !slices.Equal(got, want) {
		t.Errorf("servers %v, want %v", got, want)
	}
}

// FuzzValidName: what is accepted can be packed and comes back the same, so
// that no name means another on the wire.
func FuzzValidName(f *testing.F) {
	for _, name := range []string{"a.test", "_dmarc.a-b.test", "", ".", "a.", "A.test", `a\.b`, "1.2.3.4", "a.1", strings.Repeat("a", 64), "a\x00b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !validName(name) {
			return
		}
		wire, err := newQuery(question{name, dns.TypeA}, 1, false)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		// On the wire: the header, then each label with its length, then zero.
		var want []byte
		for label := range strings.SplitSeq(name, ".") {
			want = append(append(want, byte(len(label))), label...)
		}
		if got := string(wire[headerSize : len(wire)-4]); got != string(want)+"\x00" {
			t.Fatalf("%q is %q on the wire", name, got)
		}
		if _, err := netip.ParseAddr(name); err == nil {
			t.Fatalf("%q is an address", name)
		}
	})
}
