package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// MinSecret is the fewest bytes that a principal's secret may have: guesses are
// throttled, and short secrets are guessed all the same.
const MinSecret = 16

// A caller that sent failuresAllowed wrong passwords for a principal is not
// listened to until a failure is failureForgotten ago. Others that call from
// the same address for other principals are.
const (
	failuresAllowed  = 5
	failureForgotten = time.Minute
	failuresKept     = 4096 // callers and principals; beyond that the oldest are forgotten
)

// Credentials are the secrets of principals, for proxy authentication by Basic
// (RFC 7617). They are kept as keyed hashes only. It is safe for concurrent use.
type Credentials struct {
	key [32]byte // of this process and this value
	now func() time.Time

	mu       sync.Mutex // guards the rest
	hashes   map[string][sha256.Size]byte
	failures map[guess]failure
}

// guess is who tries to be whom.
type guess struct {
	addr     netip.Addr
	endpoint string
	user     string
}

type failure struct {
	n    int
	last time.Time
}

// NewCredentials returns Credentials of nobody; see Set.
func NewCredentials() *Credentials {
	c := &Credentials{now: time.Now, failures: make(map[guess]failure)}
	_, _ = rand.Read(c.key[:]) // never fails (crypto/rand)
	return c
}

// Set replaces all principals and their secrets at once, or none if one is not
// acceptable: a name with a colon cannot be sent (RFC 7617, section 2).
func (c *Credentials) Set(secrets map[string][]byte) error {
	hashes := make(map[string][sha256.Size]byte, len(secrets))
	var errs []error
	for name, secret := range secrets {
		if err := CheckSecret(name, secret); err != nil {
			errs = append(errs, err)
			continue
		}
		hashes[name] = c.hash(secret)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hashes = hashes
	return nil
}

// CheckSecret says why [Credentials.Set] would not accept a principal and its
// secret, nil when it would.
func CheckSecret(name string, secret []byte) error {
	switch {
	case name == "" || !printable(name):
		return fmt.Errorf("the principal %q: a name has 1 to 64 printable ASCII characters, and no colon", name)
	case len(secret) < MinSecret:
		return fmt.Errorf("the secret of the principal %q is shorter than %d bytes: make one with \"openssl rand -hex 32\"", name, MinSecret)
	}
	return nil
}

func printable(name string) bool {
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' || name[i] == ':' {
			return false
		}
	}
	return len(name) <= 64
}

func (c *Credentials) hash(secret []byte) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, c.key[:])
	mac.Write(secret)
	mac.Sum(sum[:0])
	return sum
}

// Authenticate implements proxy.Authenticator: user is proven when password is
// its secret, for as long as it is. It takes the same time for a principal that there is as for one that there is not.
func (c *Credentials) Authenticate(_ context.Context, source policy.Source, user, password string) (principal string, stands func() bool) {
	given := c.hash([]byte(password))
	g := guess{addr: source.Addr, endpoint: source.VPCEndpoint, user: user}
	c.mu.Lock()
	defer c.mu.Unlock()
	want, known := c.hashes[user]
	right := hmac.Equal(given[:], want[:]) && known
	now := c.now()
	f := c.failures[g]
	if now.Sub(f.last) > failureForgotten {
		f = failure{}
	}
	switch {
	case !known: // nothing can be guessed, and whatever it is called is not kept
		return "", nil
	case f.n >= failuresAllowed: // right or not: else it could go on guessing
		return "", nil
	case right:
		delete(c.failures, g)
		return user, func() bool { return c.stands(user, want) }
	}
	c.failures[g] = failure{n: f.n + 1, last: now}
	c.forgetLocked(now)
	return "", nil
}

// stands reports whether the hash is still that of user's secret.
func (c *Credentials) stands(user string, hash [sha256.Size]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, ok := c.hashes[user]
	return ok && now == hash
}

// Knows implements proxy.Authenticator.
func (c *Credentials) Knows(user string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.hashes[user]
	return ok
}

// forgetLocked keeps failures bounded. Whoever could make it forget a guess
// early has made thousands under other names, and learned as little.
func (c *Credentials) forgetLocked(now time.Time) {
	if len(c.failures) <= failuresKept {
		return
	}
	for g, f := range c.failures {
		if now.Sub(f.last) > failureForgotten {
			delete(c.failures, g)
		}
	}
	for g := range c.failures {
		if len(c.failures) <= failuresKept/2 {
			return
		}
		delete(c.failures, g)
	}
}
