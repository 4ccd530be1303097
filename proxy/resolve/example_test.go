package resolve_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/sallyport/sallyport/proxy/resolve"
)

func ExampleResolver_Lookup() {
	r, err := resolve.New(resolve.Config{
		Servers: []string{"169.254.169.253"}, // the VPC resolver
		Hosts:   []resolve.Host{{Name: "origin.test", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()

	fmt.Println(r.Lookup(context.Background(), "origin.test"))

	_, err = r.Lookup(context.Background(), "Not Canonical")
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		fmt.Println(e.Err)
	}
	// Output:
	// [127.0.0.2] <nil>
	// not a canonical host name
}
