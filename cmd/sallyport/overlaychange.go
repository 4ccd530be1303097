package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/logging/history"
	"github.com/sallyport/sallyport/policy"
)

// overlayChange is what a person asks for: to let something through, or not.
type overlayChange struct {
	Action  string    `json:"action"` // "allow" or "deny"
	Site    string    `json:"site"`
	Service string    `json:"service,omitempty"`
	Source  string    `json:"source,omitempty"`
	Author  string    `json:"author"`
	Reason  string    `json:"reason,omitempty"`
	Until   time.Time `json:"until,omitzero"`
}

// overlayChanged is what became of it.
type overlayChanged struct {
	// Overlay was written; nil when the policy answers so already.
	Overlay *history.Overlay `json:"overlay,omitempty"`
	// Already is the rule that answers so.
	Already string `json:"already,omitempty"`
	// Revoked are the names of overlays that said the opposite.
	Revoked []string `json:"revoked"`
}

// overlayBook is where overlays are written.
type overlayBook interface {
	Overlays(ctx context.Context, all bool) ([]history.Overlay, error)
	AddOverlay(ctx context.Context, o history.Overlay) (history.Overlay, error)
	RevokeOverlay(ctx context.Context, id, by, reason string) error
}

// change checks what is asked for against the policy, base being its documents
// without overlays, and writes it.
func (c overlayChange) change(ctx context.Context, book overlayBook, base []policy.Text) (overlayChanged, error) {
	result := overlayChanged{Revoked: []string{}}
	if err := c.check(time.Now()); err != nil {
		return result, err
	}
	active, err := book.Overlays(ctx, false)
	if err != nil {
		return result, err
	}
	var opposite []history.Overlay
	for {
		p, texts, err := overlaidBy(base, active)
		if err != nil {
			return result, err
		}
		d, asked := c.decide(p)
		if asked && d.Reason == c.wanted() {
			result.Already = d.RuleName()
			err = c.revoke(ctx, book, opposite, &result)
			return result, err
		}
		if !asked || d.Reason != policy.ReasonDenyRule {
			if result, err = c.write(ctx, book, texts, p.Inspects(), result); err == nil {
				err = c.revoke(ctx, book, opposite, &result)
			}
			return result, err
		}
		i := slices.IndexFunc(active, func(o history.Overlay) bool { return policy.OverlayPrefix+o.Name == d.Rule.Pos.File })
		switch {
		case i < 0:
			return result, refuse("change the policy itself", "the deny rule %q (%s) speaks against it, and an overlay cannot allow it", d.RuleName(), d.Rule.Pos)
		case !c.opposes(&active[i]):
			return result, refuse("end it with sallyport policy overlay revoke "+active[i].ID, "the overlay %s, by %s, denies more than this", active[i].Name, active[i].Author)
		}
		opposite = append(opposite, active[i])
		active = slices.Delete(active, i, i+1)
	}
}

// revoke ends what says the opposite, last of all: what is denied stays denied
// when the rest fails.
func (c overlayChange) revoke(ctx context.Context, book overlayBook, opposite []history.Overlay, result *overlayChanged) error {
	for _, o := range opposite {
		if err := book.RevokeOverlay(ctx, o.ID, c.Author, cmp.Or(c.Reason, "the opposite was asked for")); err != nil {
			return err
		}
		result.Revoked = append(result.Revoked, o.Name)
	}
	return nil
}

// check refuses what cannot be meant.
func (c overlayChange) check(now time.Time) error {
	switch {
	case c.Action != "allow" && c.Action != "deny":
		return refuse("write allow or deny", "the action %q is none", c.Action)
	case strings.TrimSpace(c.Author) == "":
		return refuse("give --author", "who asks for it is not said")
	case len(c.Author) > 200 || len(c.Reason) > 1000 || len(c.Site) > 1000 || len(c.Service) > 600 || len(c.Source) > 200:
		return refuse("", "what is asked for is too long")
	case !c.Until.IsZero() && !c.Until.After(now):
		return refuse("", "until %s is over already", c.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

// wanted is the reason that the policy shall give.
func (c overlayChange) wanted() policy.Reason {
	if c.Action == "deny" {
		return policy.ReasonDenyRule
	}
	return policy.ReasonRule
}

func (c overlayChange) verdict() policy.Verdict {
	if c.Action == "deny" {
		return policy.Deny
	}
	return policy.Allow
}

// rule is what is asked for as a rule.
func (c overlayChange) rule(id string, v policy.Verdict, inspect bool) policy.OverlayRule {
	return policy.OverlayRule{
		ID: id, Verdict: v, Site: c.Site, Service: c.Service, Source: c.Source, Inspect: inspect,
		Author: c.Author, Reason: c.Reason, At: time.Now(), Until: c.Until,
	}
}

// decide asks the policy about the site; false where it is a pattern, of which
// no one question can be asked, or names a source whose members are not known.
func (c overlayChange) decide(p *policy.Policy) (policy.Decision, bool) {
	site := c.Site
	if bucket, ok := strings.CutPrefix(site, "s3://"); ok {
		site = "https://" + strings.TrimSuffix(bucket, "/") + ".s3.us-east-1.amazonaws.com"
	}
	via, host, port, protocol, err := policy.ParseTarget(site)
	if err != nil || strings.Contains(site, "*") || c.Source != "" {
		return policy.Decision{}, false
	}
	q := policy.Query{Via: via, Host: host, Port: port, Protocol: protocol}
	if protocol == policy.ProtocolUnknown {
		q.Protocol = policy.ProtocolTLS // as the overlay takes HOST:PORT
	}
	if c.Service != "" {
		cluster, service, found := strings.Cut(c.Service, "/")
		if !found {
			cluster, service = "", c.Service
		}
		q.Source.Task = &policy.Task{Cluster: cluster, Service: service}
	}
	return p.Decide(q), true
}

// opposes reports whether an overlay denies just what is asked for.
func (c overlayChange) opposes(o *history.Overlay) bool {
	twin := c.rule(o.Name[strings.LastIndexByte(o.Name, '-')+1:], policy.Deny, false)
	text, err := twin.Document()
	return err == nil && withoutComments(string(text.Data)) == withoutComments(o.Text)
}

func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// write compiles the new overlay with the policy and writes it.
func (c overlayChange) write(ctx context.Context, book overlayBook, texts []policy.Text, inspect bool, result overlayChanged) (overlayChanged, error) {
	id := strings.ToLower(flow.NewID())
	rule := c.rule(id[len(id)-8:], c.verdict(), inspect)
	document, err := rule.Document()
	if err != nil {
		return result, refuse("write HOST, HOST:PORT, tcp://HOST:PORT, *.example.com or s3://BUCKET", "%w", err)
	}
	p, err := policy.Load(slices.Concat(texts, []policy.Text{document})...)
	if err != nil {
		return result, policyFaults(err, exitUsage)
	}
	if d, asked := c.decide(p); asked && d.Reason != c.wanted() {
		return result, refuse("change the policy itself", "the policy would still answer %s", d.Reason)
	}
	o, err := book.AddOverlay(ctx, history.Overlay{Name: rule.Name(), Text: string(document.Data), Author: c.Author, Reason: c.Reason, Until: c.Until})
	if err != nil {
		return result, err
	}
	result.Overlay = &o
	return result, nil
}

// overlaidBy loads a policy with the overlays that can be loaded with it.
func overlaidBy(base []policy.Text, active []history.Overlay) (*policy.Policy, []policy.Text, error) {
	all := slices.Clone(base)
	for _, o := range active {
		if o.Until.IsZero() || time.Now().Before(o.Until) {
			all = append(all, policy.Text{Name: policy.OverlayPrefix + o.Name, Data: []byte(o.Text)})
		}
	}
	if len(all) == 0 {
		return nil, nil, nil // nothing is known: everything is denied
	}
	p, used, _, err := policy.LoadOverlays(all...)
	if err != nil {
		return nil, nil, fmt.Errorf("the policy in force cannot be loaded: %w", err)
	}
	return p, used, nil
}

// rolledBack is what a rollback did.
type rolledBack struct {
	Revoked  []string `json:"revoked"`  // names of overlays
	Restored []string `json:"restored"` // likewise
	// Differs are the sources that hold another text than that version had: they
	// are not the store's to change.
	Differs []string `json:"differs"`
}

// rollback makes the overlays what they were in a version. base are the
// documents of the policy's sources as they are.
func rollback(ctx context.Context, book overlayBook, v *history.Version, base []policy.Text, author, reason string) (rolledBack, error) {
	done := rolledBack{Revoked: []string{}, Restored: []string{}, Differs: []string{}}
	ever, err := book.Overlays(ctx, true)
	if err != nil {
		return done, err
	}
	until := map[string]time.Time{}
	var active []history.Overlay
	for _, o := range ever {
		until[o.Name] = o.Until
		if o.Revoked.IsZero() {
			active = append(active, o)
		}
	}
	then := map[string]string{}
	for _, t := range v.Texts {
		if name, ok := strings.CutPrefix(t.Name, policy.OverlayPrefix); ok {
			then[name] = string(t.Data)
		} else if !slices.ContainsFunc(base, func(b policy.Text) bool { return b.Name == t.Name && bytes.Equal(b.Data, t.Data) }) {
			done.Differs = append(done.Differs, t.Name)
		}
	}
	reason = cmp.Or(reason, "rollback to "+v.Version)
	var errs []error
	for _, o := range active {
		if then[o.Name] == o.Text {
			delete(then, o.Name)
			continue
		}
		if err := book.RevokeOverlay(ctx, o.ID, author, reason); err != nil {
			errs = append(errs, err)
			continue
		}
		done.Revoked = append(done.Revoked, o.Name)
	}
	for _, t := range v.Texts { // in their order
		name := strings.TrimPrefix(t.Name, policy.OverlayPrefix)
		over := !until[name].IsZero() && !time.Now().Before(until[name])
		if _, wanted := then[name]; !wanted || !policy.IsOverlay(t.Name) || over {
			continue
		}
		if _, err := book.AddOverlay(ctx, history.Overlay{Name: name, Text: string(t.Data), Author: author, Reason: reason, Until: until[name]}); err != nil {
			if errors.Is(err, history.ErrThere) {
				continue // somebody else rolls back
			}
			errs = append(errs, err)
			continue
		}
		done.Restored = append(done.Restored, name)
	}
	return done, errors.Join(errs...)
}
