package proxy

import (
	"net/netip"
	"testing"
)

// TestAdmissionByEndpoint: two VPCs may have one address.
func TestAdmissionByEndpoint(t *testing.T) {
	a := newAdmission(Limits{PerSource: 1})
	addr := netip.MustParseAddr("10.0.0.7")
	for _, c := range []caller{{addr, "vpce-1"}, {addr, "vpce-2"}, {addr, ""}} {
		if o := a.enter(c); o != overNothing {
			t.Errorf("%v is over its limit with one connection: %d", c, o)
		}
	}
	if o := a.enter(caller{addr, "vpce-1"}); o != overSource {
		t.Errorf("a second one of the same caller: %d", o)
	}
	for _, c := range []caller{{addr, "vpce-1"}, {addr, "vpce-1"}, {addr, "vpce-2"}, {addr, ""}} {
		a.leave(c)
	}
	if len(a.sources) != 0 || a.snapshot().Active != 0 {
		t.Errorf("what stays is %v, %+v", a.sources, a.snapshot())
	}
}

// TestAdmissionRefusesOnce: who is refused before its PROXY header is read is
// refused behind it, and is one connection.
func TestAdmissionRefusesOnce(t *testing.T) {
	here := caller{addr: netip.MustParseAddr("10.0.0.7")}
	for name, tt := range map[string]struct {
		limits  Limits
		leaves  int // how many others leave before the header
		before  over
		behind  over
		refused uint64
	}{
		"in all":                      {limits: Limits{Connections: 2}, before: overAll, behind: overAll, refused: 1},
		"in all, and others go":       {limits: Limits{Connections: 2}, leaves: 2, before: overAll, behind: overAll, refused: 1},
		"of its source":               {limits: Limits{PerSource: 2}, before: overNothing, behind: overSource, refused: 1},
		"in all and of its source":    {limits: Limits{Connections: 2, PerSource: 2}, before: overAll, behind: overAll, refused: 1},
		"nothing":                     {limits: Limits{Connections: 3, PerSource: 3}},
		"of its source, others leave": {limits: Limits{PerSource: 2}, leaves: 2},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAdmission(tt.limits)
			a.enter(here)
			a.enter(here)
			before := a.enter(caller{})
			for range tt.leaves {
				a.leave(here)
			}
			behind := a.move(caller{}, here, before)
			if before != tt.before || behind != tt.behind || a.snapshot().Refused != tt.refused {
				t.Errorf("%d, behind the header %d, %d refused", before, behind, a.snapshot().Refused)
			}
		})
	}
}
