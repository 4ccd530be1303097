package resolve

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/rs/zerolog"
)

// Config says whom to ask and what to remember. The zero value asks the
// servers of /etc/resolv.conf and takes the default of everything else.
type Config struct {
	// Servers are asked in this order: an address with or without a port
	// (default 53), "10.0.0.2", "[fd00::53]:5353". Empty means the nameserver
	// lines of /etc/resolv.conf, read once, by [New].
	Servers []string
	// Hosts are answered without asking anyone. A name here has exactly these
	// addresses.
	Hosts []Host

	// Timeout bounds one try at one server, UDP and TCP together; 1 s.
	Timeout time.Duration
	// Attempts is how often each server is asked, in rounds; 2. Only a server
	// that did not answer in time is asked again.
	Attempts int
	// Budget bounds a whole flight, all tries together; 3 s.
	Budget time.Duration

	// MinTTL and MaxTTL bound how long addresses are kept; 5 s and 1 h.
	MinTTL, MaxTTL time.Duration
	// NegativeTTLMax bounds how long "no such name" is kept; 1 min.
	NegativeTTLMax time.Duration
	// StaleFor is how long after their time addresses may still be served
	// while no server answers; 1 min. Negative means never.
	StaleFor time.Duration

	// CacheSize bounds the names remembered; 10,000 (some 3 MB).
	CacheSize int
	// Flights bounds the names being asked for at one time; 256. Each takes
	// two sockets and three goroutines.
	Flights int

	// Logger is told when a server stops answering and when it is back. The
	// zero value is silent.
	Logger zerolog.Logger
}

// Host is a name with fixed addresses.
type Host struct {
	Name      string
	Addresses []netip.Addr
}

// withDefaults returns c with every zero replaced.
func (c Config) withDefaults() Config {
	c.Timeout = cmp.Or(c.Timeout, time.Second)
	c.Attempts = cmp.Or(c.Attempts, 2)
	c.Budget = cmp.Or(c.Budget, 3*time.Second)
	c.MinTTL = cmp.Or(c.MinTTL, 5*time.Second)
	c.MaxTTL = cmp.Or(c.MaxTTL, time.Hour)
	c.NegativeTTLMax = cmp.Or(c.NegativeTTLMax, time.Minute)
	c.StaleFor = max(0, cmp.Or(c.StaleFor, time.Minute))
	c.CacheSize = cmp.Or(c.CacheSize, 10_000)
	c.Flights = cmp.Or(c.Flights, 256)
	return c
}

// Validate reports everything that is wrong with c, each fault with the key
// that an operator knows it by. It reads no file.
func (c Config) Validate() error {
	_, errServers := parseServers(c.Servers)
	_, errHosts := parseHosts(c.Hosts)
	errs := []error{errServers, errHosts}
	c = c.withDefaults()
	for _, d := range []struct {
		key   string
		value int64
	}{
		{"timeout", int64(c.Timeout)},
		{"attempts", int64(c.Attempts)},
		{"budget", int64(c.Budget)},
		{"min_ttl", int64(c.MinTTL)},
		{"max_ttl", int64(c.MaxTTL)},
		{"negative_ttl_max", int64(c.NegativeTTLMax)},
		{"cache_size", int64(c.CacheSize)},
		{"flights", int64(c.Flights)},
	} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("resolver.%s: must not be negative", d.key))
		}
	}
	if c.MinTTL > c.MaxTTL {
		errs = append(errs, fmt.Errorf("resolver.min_ttl: %s is more than max_ttl, %s", c.MinTTL, c.MaxTTL))
	}
	return errors.Join(errs...)
}

// parseServers reads server addresses. Names are refused: there is nobody yet
// to resolve them.
func parseServers(texts []string) ([]netip.AddrPort, error) {
	var servers []netip.AddrPort
	var errs []error
	for i, text := range texts {
		server, err := netip.ParseAddrPort(text)
		if err != nil {
			var addr netip.Addr
			addr, err = netip.ParseAddr(text)
			server = netip.AddrPortFrom(addr, 53)
		}
		switch {
		case err != nil || server.Port() == 0 || server.Addr().IsUnspecified():
			errs = append(errs, fmt.Errorf("resolver.servers[%d]: %q is not an address of a server: write it as 10.0.0.2 or 10.0.0.2:53", i, text))
		case !slices.Contains(servers, server):
			servers = append(servers, server)
		}
	}
	return servers, errors.Join(errs...)
}

// systemServers reads the nameserver lines of a resolv.conf(5) file.
func systemServers(path string) ([]netip.AddrPort, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("finding DNS servers: %w: set resolver.servers", err)
	}
	servers, err := parseServers(conf.Servers)
	if err != nil {
		return nil, fmt.Errorf("finding DNS servers in %s: %w", path, err)
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("finding DNS servers: %s names none: set resolver.servers", path)
	}
	return servers, nil
}

// parseHosts makes the table of static answers. "localhost" is always in it:
// RFC 6761, section 6.3 keeps it from being asked.
func parseHosts(hosts []Host) (map[string][]netip.Addr, error) {
	table := make(map[string][]netip.Addr, len(hosts)+1)
	var errs []error
	for i, h := range hosts {
		name := strings.ToLower(strings.TrimSuffix(h.Name, "."))
		key := fmt.Sprintf("resolver.hosts[%d]", i)
		if !validName(name) {
			errs = append(errs, fmt.Errorf("%s: %q is not a host name", key, h.Name))
			continue
		}
		if _, twice := table[name]; twice {
			errs = append(errs, fmt.Errorf("%s: %s is already listed", key, name))
			continue
		}
		if len(h.Addresses) == 0 {
			errs = append(errs, fmt.Errorf("%s: %s has no addresses", key, name))
		}
		addrs := make([]netip.Addr, 0, len(h.Addresses))
		for _, a := range h.Addresses {
			if !a.IsValid() || a.Zone() != "" {
				errs = append(errs, fmt.Errorf("%s: %s: %q is not an address without a zone", key, name, a))
				continue
			}
			addrs = append(addrs, a.Unmap())
		}
		table[name] = addrs
	}
	if _, ok := table["localhost"]; !ok {
		table["localhost"] = loopback()
	}
	return table, errors.Join(errs...)
}

func loopback() []netip.Addr {
	return []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
}

// validName reports whether name is a canonical host name: lower case, no
// trailing dot, labels of 1 to 63 letters, digits, hyphens and underscores,
// 253 in all, and not an address. The policy has made sure of it; but what is
// put on the wire is checked where it is put there, too.
func validName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	label := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			label++
		default:
			return false
		}
		if label > 63 {
			return false
		}
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	return last != "" && strings.Trim(last, "0123456789") != ""
}
