package resolve

import (
	"net"
)

// kind is what became of a lookup without addresses.
type kind uint8

// The kinds, in order of how little they tell: of two families' failures the
// first is reported.
const (
	nxDomain kind = iota // the name does not exist
	noData               // it exists, without an address
	refused              // every server refuses, or fails, or ...
	servFail
	otherCode
	malformed
	timedOut
	unreachable
	overload
	badName
	closed
	kinds
)

// String returns the word that statistics use.
func (k kind) String() string {
	switch k {
	case nxDomain:
		return "nxdomain"
	case noData:
		return "nodata"
	case refused:
		return "refused"
	case servFail:
		return "servfail"
	case otherCode:
		return "rcode"
	case malformed:
		return "malformed"
	case timedOut:
		return "timeout"
	case unreachable:
		return "unreachable"
	case overload:
		return "overload"
	case badName:
		return "bad_name"
	}
	return "closed"
}

// negative reports whether a server has said that there is nothing.
func (k kind) negative() bool { return k == nxDomain || k == noData }

// failure is why there are no addresses.
type failure struct {
	kind   kind
	text   string // for people; "" means the kind's own
	server string // who said so, or did not; "" for nobody
}

// Error makes a failure an error inside the package; callers get a
// *net.DNSError.
func (f *failure) Error() string {
	if f.text != "" {
		return f.text
	}
	switch f.kind {
	case nxDomain:
		return "NXDOMAIN"
	case noData:
		return "NODATA" // the pseudo response code of RFC 8499, section 3
	case refused:
		return "REFUSED"
	case servFail:
		return "SERVFAIL"
	case timedOut:
		return "no DNS server answered in time"
	case overload:
		return "too many lookups in flight"
	case badName:
		return "not a canonical host name"
	case closed:
		return "the resolver is closed"
	}
	return f.kind.String()
}

func (f *failure) dnsError(name string) *net.DNSError {
	return &net.DNSError{
		Err:         f.Error(),
		Name:        name,
		Server:      f.server,
		IsTimeout:   f.kind == timedOut,
		IsTemporary: !f.kind.negative() && f.kind != badName,
		IsNotFound:  f.kind.negative(),
	}
}
