package policy

import (
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// OverlayPrefix begins the name of a document that somebody wrote while the
// policy was in force, beside its sources. Such a document adds sources and
// rules, and can do no more than that: it states no mode and nothing of unknown
// callers, its sources change nothing for those who belong to none of them, and
// its allow rules neither widen what is safe (allow_broad, opaque, wide ranges
// of addresses) nor lead to private networks (resolves_to, private ranges).
const OverlayPrefix = "overlay:"

// IsOverlay reports whether a document's name says that it is an overlay.
func IsOverlay(name string) bool { return strings.HasPrefix(name, OverlayPrefix) }

// holdOverlay refuses what an overlay must not say.
func (d *document) holdOverlay(root *yaml.Node) {
	const hint = "write it into the policy itself"
	if root.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(root.Content); i += 2 {
			switch key := root.Content[i]; key.Value {
			case "mode", "report_until", "unknown_source":
				d.fail(key, hint, "an overlay has no %q", key.Value)
			}
		}
	}
	for i := range d.sources {
		if s := &d.sources[i]; s.standing != nil {
			d.fail(s.node, hint, "an overlay's source %q states a mode", s.name)
		}
	}
	for i := range d.rules {
		rule := &d.rules[i]
		if rule.verdict == Deny {
			continue
		}
		if rule.allowBroad != nil {
			d.fail(rule.allowBroad, hint, "an overlay cannot allow_broad")
		}
		if len(rule.resolvesTo) > 0 {
			d.fail(rule.resolvesTo[0].node, hint, "an overlay cannot let names lead to private addresses")
		}
		if rule.s3 != nil && rule.s3.opaque != nil {
			d.fail(rule.s3.opaque, hint, "an overlay cannot allow hosts that do not tell their bucket")
		}
		for _, p := range rule.cidrs {
			if !overlayRange(p.Prefix) {
				d.fail(p.node, hint, "an overlay cannot allow %s: only public ranges of at least /24, or /48 of IPv6", p)
			}
		}
	}
}

// overlayRange reports whether an overlay may allow a range of addresses.
func overlayRange(p netip.Prefix) bool {
	least := 48
	if p.Addr().Unmap().Is4() {
		least = 24
	}
	return p.Bits() >= least && !ProhibitedRange(p) && !NeverPermitted(p) && ClassifyAddress(p.Addr()) == AddressGlobal
}

// LoadOverlays is [Load] that holds a policy up against its overlays: those
// that cannot be loaded with it are left out, each with the reason, and the rest
// stays in force. It fails only for what is wrong with the policy itself. used
// are the documents that the policy was made of, in order.
func LoadOverlays(documents ...Text) (p *Policy, used []Text, refused map[string]error, err error) {
	if p, err = Load(documents...); err == nil {
		return p, documents, nil, nil
	}
	var overlays []Text
	for _, t := range documents {
		if IsOverlay(t.Name) {
			overlays = append(overlays, t)
		} else {
			used = append(used, t)
		}
	}
	if len(overlays) == 0 {
		return nil, nil, nil, err
	}
	if p, err = Load(used...); err != nil {
		return nil, nil, nil, err
	}
	refused = map[string]error{}
	for _, o := range overlays {
		with := slices.Concat(used, []Text{o})
		better, why := Load(with...)
		if why != nil {
			refused[o.Name] = why
			continue
		}
		p, used = better, with
	}
	return p, used, refused, nil
}
