package identity

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policy"
)

const secret = "0123456789abcdef"

func credentials(t *testing.T) *Credentials {
	t.Helper()
	c := NewCredentials()
	if err := c.Set(map[string][]byte{"payments": []byte(secret), "billing": []byte(secret + "2")}); err != nil {
		t.Fatal(err)
	}
	return c
}

func from(addr string) policy.Source { return policy.Source{Addr: netip.MustParseAddr(addr)} }

func TestCredentials(t *testing.T) {
	for name, tt := range map[string]struct{ user, password, want string }{
		"right":               {"payments", secret, "payments"},
		"another's":           {"payments", secret + "2", ""},
		"the beginning":       {"payments", secret[:15], ""},
		"more than it":        {"payments", secret + "0", ""},
		"none":                {"payments", "", ""},
		"nobody":              {"nobody", secret, ""},
		"nobody with nothing": {"", "", ""},
		"another case":        {"Payments", secret, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := credentials(t).Authenticate(t.Context(), from("10.0.0.1"), tt.user, tt.password); got != tt.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestCredentialsKnow(t *testing.T) {
	c := credentials(t)
	for user, want := range map[string]bool{"payments": true, "billing": true, "nobody": false, "Payments": false, "": false} {
		if c.Knows(user) != want {
			t.Errorf("%q: %v", user, !want)
		}
	}
}

// TestCredentialsStand: what was proven holds for as long as the secret is the
// same, whatever becomes of others'.
func TestCredentialsStand(t *testing.T) {
	c := credentials(t)
	_, stands := c.Authenticate(t.Context(), from("10.0.0.1"), "payments", secret)
	for _, tt := range []struct {
		name    string
		secrets map[string]string
		want    bool
	}{
		{"the same", map[string]string{"payments": secret, "billing": secret + "2"}, true},
		{"another's is replaced", map[string]string{"payments": secret, "billing": secret + "3"}, true},
		{"its own is replaced", map[string]string{"payments": secret + "3"}, false},
		{"it is another's now", map[string]string{"billing": secret}, false},
		{"there is nobody", nil, false},
		{"all is as it was", map[string]string{"payments": secret}, true},
	} {
		all := make(map[string][]byte)
		for name, text := range tt.secrets {
			all[name] = []byte(text)
		}
		if err := c.Set(all); err != nil {
			t.Fatal(err)
		}
		if stands() != tt.want {
			t.Errorf("%s: %v", tt.name, !tt.want)
		}
	}
}

func TestCredentialsThrottle(t *testing.T) {
	c := credentials(t)
	now := time.Unix(1e9, 0)
	c.now = func() time.Time { return now }
	try := func(addr, user, password string) bool {
		got, _ := c.Authenticate(t.Context(), from(addr), user, password)
		return got == user
	}
	for range failuresAllowed {
		try("10.0.0.1", "payments", "wrong")
	}
	if try("10.0.0.1", "payments", secret) {
		t.Error("it may go on guessing")
	}
	if !try("10.0.0.1", "billing", secret+"2") || !try("10.0.0.2", "payments", secret) {
		t.Error("others are made to wait")
	}
	if now = now.Add(failureForgotten + time.Second); !try("10.0.0.1", "payments", secret) {
		t.Error("it is never forgiven")
	}
	for i := range 3 * failuresKept {
		try(fmt.Sprintf("10.1.%d.%d", i/256, i%256), "payments", "wrong")
	}
	if n := len(c.failures); n > failuresKept {
		t.Errorf("%d failures are kept", n)
	}
}

func TestCredentialsSet(t *testing.T) {
	for name, tt := range map[string]struct{ user, secret, says string }{
		"short":   {"payments", "short", "openssl rand"},
		"colon":   {"a:b", secret, "no colon"},
		"no name": {"", secret, "name"},
		"line":    {"a\nb", secret, "printable"},
	} {
		t.Run(name, func(t *testing.T) {
			c := credentials(t)
			err := c.Set(map[string][]byte{tt.user: []byte(tt.secret)})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
			if got, _ := c.Authenticate(t.Context(), from("10.0.0.1"), "payments", secret); got != "payments" {
				t.Error("the ones in force are gone")
			}
		})
	}
}
