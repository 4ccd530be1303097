package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/proxy"
	caller "github.com/sallyport/sallyport/proxy/identity"
)

// secretsEvery is how often a secret of Secrets Manager is asked for again:
// each question is paid for. Files are read whenever the policy is.
const secretsEvery = 5 * time.Minute

func credentialEntries() kind {
	principal := kind{want: "a principal's name", tag: tagText, check: func(s string) (string, string) {
		if s == "" {
			return "it is empty", "write the name that the policy's principals: lists"
		}
		return "", ""
	}}
	secret := keyReference("")
	of := secret.check
	secret.check = func(s string) (string, string) {
		const hint = "write env:NAME, file:PATH or secretsmanager:NAME-OR-ARN; the secret itself never stands here"
		if wrong, _ := of(s); wrong != "" || s == "" {
			return "it is not a reference", hint
		}
		return "", ""
	}
	return kind{
		want: "a list of mappings, such as [{principal: payments, secret: env:PAYMENTS_SECRET}]", list: true, tag: tagText,
		// In a variable, each is PRINCIPAL=REFERENCE.
		check: func(s string) (string, string) {
			const hint = "write PRINCIPAL=REFERENCE, such as payments=env:PAYMENTS_SECRET; commas between several"
			name, ref, _ := strings.Cut(s, "=")
			if wrong, _ := principal.check(name); wrong != "" {
				return "a principal has no name", hint
			}
			if wrong, _ := secret.check(ref); wrong != "" {
				return "what stands for a secret is not a reference", hint // and may be the secret: it is not quoted
			}
			return "", ""
		},
		fields: []field{{name: "principal", kind: principal, required: true}, {name: "secret", kind: secret, required: true}},
	}
}

// plainCredentials shows the references; what they lead to is never here.
func plainCredentials(all []Credential) any {
	plain := make([]map[string]any, 0, len(all))
	for _, c := range all {
		plain = append(plain, map[string]any{"principal": c.Principal, "secret": c.Secret})
	}
	return plain
}

func (l *loaded) checkCredentials() error {
	var errs []error
	seen := make(map[string]bool)
	for _, c := range l.Credentials {
		if seen[c.Principal] {
			errs = append(errs, refuse("name each principal once", "%s: %q is there twice", l.place("credentials"), c.Principal))
		}
		seen[c.Principal] = true
	}
	return errors.Join(errs...)
}

// credentials are the secrets of principals, read from where the configuration
// says. It belongs to whoever calls its methods; what it fills is safe for all.
type credentials struct {
	entries []Credential
	place   string
	log     zerolog.Logger
	secrets map[string][]byte    // as last read, by principal
	readAt  map[string]time.Time // likewise
	set     *caller.Credentials
	refused string // what was said last of a reload that failed
}

// credentials reads every secret for the first time; nil where there is none.
func (l *loaded) credentials(ctx context.Context, log zerolog.Logger) (*credentials, error) {
	if len(l.Credentials) == 0 {
		return nil, nil //nolint:nilnil // documented
	}
	c := &credentials{
		entries: l.Credentials, place: l.place("credentials"), log: log,
		secrets: make(map[string][]byte), readAt: make(map[string]time.Time), set: caller.NewCredentials(),
	}
	if _, err := c.read(ctx, true); err != nil {
		return nil, err
	}
	return c, nil
}

// authenticator is what the proxy asks; nil where there are no principals.
func (c *credentials) authenticator() proxy.Authenticator {
	if c == nil {
		return nil
	}
	return c.set
}

// reload reads the secrets again: all of them when asked, else those whose
// time has come. One that cannot be read stays as it was, and holds up no other:
// whose secret it is could otherwise keep everybody's from being withdrawn. It
// reports whether any is another now.
func (c *credentials) reload(ctx context.Context, asked bool) bool {
	if c == nil {
		return false
	}
	changed, err := c.read(ctx, asked)
	switch {
	case len(changed) > 0:
		c.log.Info().Strs("principals", changed).Msg("credentials reloaded")
	case asked && err == nil:
		c.log.Info().Msg("credentials unchanged")
	}
	text := ""
	if err != nil {
		if text = err.Error(); asked || text != c.refused {
			c.log.Error().Err(err).Msg("credentials refused, those in force stay")
		}
	}
	c.refused = text
	return len(changed) > 0
}

// read brings the secrets up to date and returns whose have changed. One that
// cannot be read or is not acceptable stays, unless there is none yet: then none
// comes into force.
func (c *credentials) read(ctx context.Context, all bool) (changed []string, err error) {
	next := make(map[string][]byte, len(c.entries))
	now := time.Now()
	var errs []error
	for _, e := range c.entries {
		old, known := c.secrets[e.Principal]
		ref, err := parseReference(e.Secret, false)
		if err == nil && known && !all && ref.scheme != "file" && now.Sub(c.readAt[e.Principal]) < secretsEvery {
			next[e.Principal] = old
			continue
		}
		var secret []byte
		if err == nil {
			c.readAt[e.Principal] = now
			secret, err = ref.read(ctx)
		}
		if err != nil {
			err = fmt.Errorf("the secret of %q: %w", e.Principal, err)
		} else {
			secret = bytes.TrimRight(secret, "\r\n") // as editors and echo leave it
			err = caller.CheckSecret(e.Principal, secret)
		}
		if err != nil {
			errs = append(errs, refuse("", "%s: %w", c.place, err))
			if known {
				next[e.Principal] = old
			}
			continue
		}
		if next[e.Principal] = secret; !known || !bytes.Equal(secret, old) {
			changed = append(changed, e.Principal)
		}
	}
	if len(next) < len(c.entries) {
		return nil, errors.Join(errs...)
	}
	if err := c.set.Set(next); err != nil {
		return nil, refuse("", "%s: %w", c.place, err)
	}
	c.secrets = next
	return changed, errors.Join(errs...)
}
