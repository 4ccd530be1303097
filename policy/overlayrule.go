package policy

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// OverlayRule is one thing that a person lets through, or denies, while the
// policy is in force.
type OverlayRule struct {
	// ID makes its names unlike all others: a few letters and digits.
	ID      string
	Verdict Verdict
	// Site is a destination as [ParseTarget] reads it, a pattern of hosts, or
	// s3://BUCKET. Without a scheme and a port it is TLS on port 443; a denial
	// of it is one of every port and protocol.
	Site string
	// Service is the one caller that is meant, as CLUSTER/SERVICE or SERVICE;
	// Source a source of the policy. Both "" mean everybody.
	Service, Source string
	// Inspect makes a rule of S3 one that inspects: where others do, one that
	// does not would take their effect away.
	Inspect bool
	// Author, Reason and At are told in comments, as is Until where it is set: to
	// end the rule is whose business the document is.
	Author, Reason string
	At, Until      time.Time
}

// Name names the rule, and its document.
func (o *OverlayRule) Name() string {
	verb := "accept"
	if o.Verdict == Deny {
		verb = "deny"
	}
	site := o.Site
	if _, rest, found := strings.Cut(site, "://"); found {
		site = rest
	}
	base := verb + "-" + nameFrom(site)
	room := maxName - 1 - len(o.ID)
	return strings.Trim(base[:min(len(base), room)], "._-") + "-" + nameFrom(o.ID)
}

// Document writes the overlay: one rule, and the source that it needs.
func (o *OverlayRule) Document() (Text, error) {
	if nameFrom(o.ID) != o.ID || o.ID == "" {
		return Text{}, errors.New("an overlay needs an ID of letters and digits")
	}
	destination, err := o.destination()
	if err != nil {
		return Text{}, fmt.Errorf("site %s: %w", strconv.QuoteToASCII(o.Site), err)
	}
	var b bytes.Buffer
	verb := "allowed"
	if o.Verdict == Deny {
		verb = "denied"
	}
	fmt.Fprint(&b, "version: 1\n")
	source, err := o.source(&b)
	if err != nil {
		return Text{}, err
	}
	fmt.Fprintf(&b, "rules:\n  # %s by %s at %s", verb, legible(o.Author), o.At.UTC().Format(time.RFC3339))
	if !o.Until.IsZero() {
		fmt.Fprintf(&b, ", until %s", o.Until.UTC().Format(time.RFC3339))
	}
	if o.Reason != "" {
		fmt.Fprintf(&b, ": %s", legible(o.Reason))
	}
	fmt.Fprintf(&b, "\n  - name: %q\n", o.Name())
	if o.Verdict == Deny {
		fmt.Fprint(&b, "    action: deny\n")
	}
	fmt.Fprint(&b, destination)
	if source != "" {
		fmt.Fprintf(&b, "    sources: [%q]\n", source)
	}
	return Text{OverlayPrefix + o.Name(), b.Bytes()}, nil
}

// source writes the source that the rule is for, where it needs one of its own,
// and returns its name.
func (o *OverlayRule) source(b *bytes.Buffer) (string, error) {
	switch {
	case o.Service == "":
		return o.Source, nil
	case o.Source != "":
		return "", errors.New("a service and a source are two callers: name one")
	}
	cluster, service, found := strings.Cut(o.Service, "/")
	if !found {
		cluster, service = "", o.Service
	}
	for _, name := range []string{cluster, service} {
		if err := checkName(name, "write CLUSTER/SERVICE or SERVICE"); err != nil {
			return "", fmt.Errorf("service: %w", err.withHint())
		}
	}
	if service == "" {
		return "", errors.New("the service has no name: write CLUSTER/SERVICE or SERVICE")
	}
	name := "overlay-" + o.ID
	fmt.Fprintf(b, "sources:\n  - name: %q\n    ecs: {", name)
	if cluster != "" {
		fmt.Fprintf(b, "cluster: %q, ", cluster)
	}
	fmt.Fprintf(b, "service: %q}\n", service)
	return name, nil
}

// destination writes the lines of a rule that say where to.
func (o *OverlayRule) destination() (string, error) {
	if bucket, ok := strings.CutPrefix(o.Site, "s3://"); ok {
		return o.bucket(strings.TrimSuffix(bucket, "/"), "")
	}
	if hasWildcard(o.Site) || strings.ContainsAny(o.Site, "{}") {
		if _, err := parseHostPattern(o.Site); err != nil {
			return "", err.withHint()
		}
		return fmt.Sprintf("    hosts: [%q]\n", strings.ToLower(o.Site)), nil
	}
	_, h, port, protocol, err := ParseTarget(o.Site)
	if err != nil {
		return "", err
	}
	ref, isS3 := ParseS3Host(h)
	if isS3 && !ref.Opaque() && ref.Bucket != "" {
		return o.bucket(ref.Bucket, ref.Region)
	}
	key := fmt.Sprintf("    hosts: [%q]\n", h.String())
	if a, literal := h.Addr(); literal {
		key = fmt.Sprintf("    cidrs: [%q]\n", netip.PrefixFrom(a, a.BitLen()))
	}
	if protocol == ProtocolUnknown {
		protocol = ProtocolTLS // a tunnel to HOST:PORT
	}
	explicit := strings.Contains(o.Site, "://") || port != 443
	if o.Verdict == Deny && !explicit {
		return key, nil
	}
	return key + fmt.Sprintf("    protocol: %s\n    ports: [%d]\n", protocol, port), nil
}

// bucket writes a destination of S3.
func (o *OverlayRule) bucket(name, region string) (string, error) {
	key := "buckets"
	if aliasSuffix(name) != "" {
		key = "access_points"
	}
	if _, err := parseBucketPattern(name); err != nil {
		return "", err.withHint()
	}
	text := fmt.Sprintf("    s3:\n      %s: [%q]\n", key, name)
	if region != "" {
		text += fmt.Sprintf("      regions: [%q]\n", region)
	}
	if o.Inspect && o.Verdict == Allow {
		text += "      inspect: true\n"
	}
	return text, nil
}
