package identity

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/policy"
)

// TestHostileUsers: callers do not fill memory with the names of nobody.
func TestHostileUsers(t *testing.T) {
	c := NewCredentials()
	if err := c.Set(map[string][]byte{"payments": []byte(strings.Repeat("s", MinSecret))}); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		c.Authenticate(t.Context(), policy.Source{}, fmt.Sprint(i)+strings.Repeat("x", 20<<10), "guess")
	}
	if n := len(c.failures); n != 0 {
		t.Errorf("%d names of nobody are kept", n)
	}
}
