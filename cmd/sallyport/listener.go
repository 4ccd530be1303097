package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sallyport/sallyport/proxy"
)

func listeners() kind {
	return kind{
		want: `a list of mappings, such as [{address: ":3128"}]`, list: true, tag: tagText, fields: listenerFields(),
		check: func(s string) (string, string) {
			_, wrong, hint := listenerOf(s)
			return wrong, hint
		},
	}
}

func listenerFields() []field {
	return []field{
		{name: "address", kind: address(), required: true},
		{name: "proxy_protocol", kind: word("required", "optional")},
		{name: "proxy_from", kind: prefixes()},
		{name: "original_destination", kind: word("redirect", "tproxy")},
		{name: "tls", kind: kind{want: "a mapping with cert_file and key_file or key", fields: listenerTLSFields()}},
	}
}

// flatten names the fields of mappings as a text does, with a dot.
func flatten(fields []field) []field {
	var flat []field
	for _, f := range fields {
		if f.kind.list || len(f.kind.fields) == 0 {
			flat = append(flat, f)
			continue
		}
		for _, inner := range f.kind.fields {
			inner.name = f.name + "." + inner.name
			flat = append(flat, inner)
		}
	}
	return flat
}

// listenerOf reads a listener as a variable or flag holds it: the address and,
// behind a question mark, its other fields, as
// ":15001?original_destination=redirect" or ":8443?tls.cert_file=…&tls.key=…".
func listenerOf(text string) (entry map[string]any, wrong, hint string) {
	addr, rest, more := strings.Cut(text, "?")
	if wrong, hint = address().check(addr); wrong != "" {
		return nil, wrong, hint
	}
	entry = map[string]any{"address": addr}
	if !more {
		return entry, "", ""
	}
	fields := flatten(listenerFields()[1:])
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	for pair := range strings.SplitSeq(rest, "&") {
		name, value, _ := strings.Cut(pair, "=")
		i := slices.Index(names, name)
		if i < 0 {
			return nil, fmt.Sprintf("%q: a listener has no %q", text, name), unknownKeyHint(name, names)
		}
		if wrong, hint = fields[i].kind.check(value); wrong != "" {
			return nil, fmt.Sprintf("%q: %s: %s", text, name, wrong), hint
		}
		at := entry
		section, key, inner := strings.Cut(name, ".")
		if inner {
			if at, _ = entry[section].(map[string]any); at == nil {
				at = make(map[string]any)
				entry[section] = at
			}
		} else {
			key = name
		}
		if many, _ := at[key].([]string); fields[i].kind.list {
			at[key] = append(many, value)
		} else if _, twice := at[key]; twice {
			return nil, fmt.Sprintf("%q: %s is there twice", text, name), "keep one of the two"
		} else {
			at[key] = value
		}
	}
	return entry, "", ""
}

// listenerSources are the files and references that listeners in the
// environment and on the command line name.
func listenerSources(flags *pflag.FlagSet, env map[string]string) []string {
	texts := splitList(env["SALLYPORT_LISTENERS"])
	if f := changed(flags, "listen"); f != nil {
		if many, ok := f.Value.(pflag.SliceValue); ok {
			texts = append(texts, many.GetSlice()...)
		}
	}
	var all []string
	for _, text := range texts {
		entry, _, _ := listenerOf(text) // checked elsewhere
		inner, _ := entry["tls"].(map[string]any)
		for _, value := range inner {
			if s, ok := value.(string); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// prefixes are the addresses of those who are believed what they say of
// others: never everybody.
func prefixes() kind {
	return kind{want: "a list of CIDR prefixes, such as [10.0.16.0/20]", list: true, tag: tagText, check: func(s string) (string, string) {
		const hint = "write the balancer's subnets, such as 10.0.16.0/20; one address is 10.0.16.7/32"
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return fmt.Sprintf("%q is not a CIDR prefix", s), hint
		case p != p.Masked():
			return fmt.Sprintf("%q has bits beyond its length", s), fmt.Sprintf("write %s", p.Masked())
		case p.Bits() == 0:
			return fmt.Sprintf("%q is everybody, who could then pass for anybody", s), hint
		case p.Addr().Is4In6():
			return fmt.Sprintf("%q is an IPv4 range in IPv6's form", s), "write it as IPv4"
		}
		return "", ""
	}}
}

func plainListeners(all []Listener) any {
	plain := make([]map[string]any, 0, len(all))
	for _, l := range all {
		entry := map[string]any{"address": l.Address}
		if l.ProxyProtocol != "" {
			entry["proxy_protocol"], entry["proxy_from"] = l.ProxyProtocol, l.ProxyFrom
		}
		if l.OriginalDestination != "" {
			entry["original_destination"] = l.OriginalDestination
		}
		if l.TLS != nil {
			entry["tls"] = l.TLS.plain()
		}
		plain = append(plain, entry)
	}
	return plain
}

// checkListeners finds what does not go together.
func (l *loaded) checkListeners() error {
	var errs []error
	for _, ln := range l.Listeners {
		place := fmt.Sprintf("%s: %q", l.place("listeners"), ln.Address)
		switch {
		case ln.ProxyProtocol != "" && len(ln.ProxyFrom) == 0:
			errs = append(errs, refuse("write proxy_from: and the balancer's subnets", "%s has proxy_protocol: %s and no proxy_from: nobody's header would be believed", place, ln.ProxyProtocol))
		case ln.ProxyProtocol == "" && ln.ProxyFrom != nil:
			errs = append(errs, refuse("write proxy_protocol: required, or optional where not all connections come from the balancer", "%s has proxy_from and no proxy_protocol: no header would be read", place))
		}
		if ln.ProxyProtocol != "" && ln.OriginalDestination != "" {
			errs = append(errs, refuse("give the balancer a listener of its own", "%s has both proxy_protocol and original_destination: a balancer's connections are aimed at the listener itself", place))
		}
		if ln.TLS != nil {
			errs = append(errs, ln.TLS.check(place, &ln)...)
		}
	}
	return errors.Join(errs...)
}

// config is the listener in the proxy's own words. It was checked before.
func (ln Listener) config() proxy.ListenerConfig {
	c := proxy.ListenerConfig{Address: ln.Address}
	switch ln.ProxyProtocol {
	case "required":
		c.ProxyProtocol = proxy.ProxyProtocolRequired
	case "optional":
		c.ProxyProtocol = proxy.ProxyProtocolOptional
	}
	for _, text := range ln.ProxyFrom {
		if p, err := netip.ParsePrefix(text); err == nil {
			c.ProxyFrom = append(c.ProxyFrom, p)
		}
	}
	switch ln.OriginalDestination {
	case "redirect":
		c.Original = proxy.OriginalRedirect
	case "tproxy":
		c.Original = proxy.OriginalTProxy
	}
	return c
}
