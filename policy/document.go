package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// document is one policy document as written: its shape is checked, what its
// words mean is not yet (that is compile's).
type document struct {
	*reader
	mode    *standing // nil when the document states none
	unknown *unknownText
	sources []sourceText
	rules   []ruleText
}

// ruleText is one entry of rules. A nil node is a key that is not there.
type ruleText struct {
	node       *yaml.Node // the mapping
	name       string
	nameAt     *yaml.Node
	owner      string
	verdict    Verdict
	hosts      []*yaml.Node
	cidrs      []prefixText
	s3         *s3Text
	preset     *yaml.Node
	with       *yaml.Node
	ports      []portRange
	portsAt    *yaml.Node
	sources    []*yaml.Node
	protocol   Protocol
	protocolAt *yaml.Node
	resolvesTo []prefixText
	allowBroad *yaml.Node // nil unless true
	budget     *budgetText
	shared     *Budget  // of a preset, for its parts
	targets    []string // which of hosts, cidrs, s3 and preset are there
	listed     bool     // there is exactly one of them
}

// prefixText is a prefix and where it stands.
type prefixText struct {
	netip.Prefix
	node *yaml.Node
}

// s3Text is the value of a rule's s3 key.
type s3Text struct {
	node         *yaml.Node
	buckets      []*yaml.Node
	accessPoints []*yaml.Node
	regions      []*yaml.Node
	partition    *yaml.Node
	opaque       *yaml.Node // nil unless allow
	inspect      *yaml.Node // nil unless true
	operations   []*yaml.Node
	accounts     []*yaml.Node
	anonymous    bool
	noPresigned  bool
	conditions   []*yaml.Node // the keys that need inspect
	listed       bool         // buckets or access_points are there
}

// portRange is a range of ports, both ends included.
type portRange struct{ low, high uint16 }

// The keys of a document, and of its parts.

func documentKeys() []string {
	return []string{"version", "mode", "report_until", "unknown_source", "sources", "rules"}
}

func ruleKeys() []string {
	return []string{
		"name", "owner", "action", "hosts", "cidrs", "s3", "preset", "with",
		"ports", "protocol", "sources", "resolves_to", "allow_broad", "budget",
	}
}

func s3Keys() []string {
	return []string{
		"buckets", "access_points", "regions", "partition", "opaque",
		"inspect", "operations", "accounts", "anonymous", "presigned",
	}
}

// readDocument reads one document. Whatever is wrong with it is in its
// reader.
func readDocument(t Text) *document {
	d := &document{reader: &reader{}}
	root := d.read(t)
	if root == nil {
		return d
	}
	var version, mode, until *yaml.Node
	for key, n := range d.fields(root, "the document", documentKeys()) {
		switch key.Value {
		case "version":
			version = n
		case "mode":
			mode = n
		case "report_until":
			until = n
		case "unknown_source":
			d.unknown = d.readUnknown(n)
		case "sources":
			for item := range d.items(n, "sources") {
				d.sources = append(d.sources, d.readSource(item))
			}
		case "rules":
			d.rules = make([]ruleText, 0, min(len(n.Content), 1<<17)) // millions are no rules
			for item := range d.items(n, "rules") {
				d.rules = append(d.rules, d.readRule(item))
			}
		}
	}
	d.mode = d.readMode(mode, until)
	d.checkVersion(root, version)
	if IsOverlay(t.Name) {
		d.holdOverlay(root)
	}
	return d
}

// checkVersion reports a document that is not of the one version there is.
func (r *reader) checkVersion(root, version *yaml.Node) {
	const hint = `write "version: 1"`
	switch {
	case root.Kind != yaml.MappingNode: // said already
	case version == nil:
		r.fail(root, hint, "the key \"version\" is missing")
	case version.Kind != yaml.ScalarNode || version.Value != "1" || version.ShortTag() != "!!int":
		r.fail(version, hint, "the version must be 1, the only one there is")
	}
}

// readMode reads the keys mode and report_until, which belong together.
func (r *reader) readMode(mode, until *yaml.Node) *standing {
	if mode == nil {
		if until != nil {
			r.fail(until, `write "mode: report" beside it`, "report_until needs mode: report")
		}
		return nil
	}
	s := &standing{}
	switch r.word(mode, "mode", "enforce", "report") {
	case "report":
		s.mode = Report
	case "":
		return nil
	}
	if until == nil {
		return s
	}
	s.at = r.pos(until)
	if s.mode == Enforce {
		r.fail(until, "leave it out, or write mode: report", "report_until has no meaning with mode: enforce")
	}
	s.until = r.instant(until, "report_until")
	return s
}

func (r *reader) readRule(n *yaml.Node) ruleText {
	rule := ruleText{node: n, verdict: Allow}
	before := r.faults()
	for key, value := range r.fields(n, "a rule", ruleKeys()) {
		if slices.Contains([]string{"hosts", "cidrs", "s3", "preset"}, key.Value) {
			rule.targets = append(rule.targets, key.Value)
		}
		r.readRuleKey(&rule, key.Value, value)
	}
	rule.listed = len(rule.targets) == 1
	if r.faults() > before {
		return rule // a key that seems missing is most likely the one just reported
	}
	if rule.nameAt == nil {
		r.fail(n, "write name: and a short name; it appears in every record", "the rule has no name")
	}
	switch {
	case len(rule.targets) == 0:
		r.fail(n, "give it one of hosts, cidrs, s3 or preset", "the rule%s has no destination", quoted(rule.name))
	case len(rule.targets) > 1:
		r.fail(n, "make a rule of each", "the rule%s has %s; one of them is allowed", quoted(rule.name), strings.Join(rule.targets, " and "))
	}
	return rule
}

func quoted(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" %q", name)
}

func (r *reader) readRuleKey(rule *ruleText, key string, n *yaml.Node) {
	switch key {
	case "name":
		rule.nameAt = n
		rule.name = r.readName(n, "the rule's name")
	case "owner":
		rule.owner, _ = r.text(n, "owner")
	case "action":
		if r.word(n, "action", "allow", "deny") == "deny" {
			rule.verdict = Deny
		}
	case "hosts":
		rule.hosts = r.texts(n, "hosts")
	case "cidrs":
		rule.cidrs = r.readPrefixes(n, "cidrs")
	case "s3":
		rule.s3 = r.readS3(n)
	case "preset":
		rule.preset = n
		r.text(n, "preset")
	case "with":
		rule.with = n
	case "ports":
		rule.portsAt = n
		rule.ports = r.readPorts(n)
	case "protocol":
		rule.protocolAt = n
		rule.protocol = protocolOf(r.word(n, "protocol", "tls", "http", "tcp"))
	case "sources":
		rule.sources = r.texts(n, "sources")
	case "resolves_to":
		rule.resolvesTo = r.readPrefixes(n, "resolves_to")
	case "allow_broad":
		if r.boolean(n, "allow_broad") {
			rule.allowBroad = n
		}
	case "budget":
		rule.budget = r.readBudget(n)
	}
}

// protocolOf returns the protocol that a document's word names.
func protocolOf(word string) Protocol {
	for _, p := range []Protocol{ProtocolTLS, ProtocolHTTP, ProtocolTCP} {
		if p.String() == word {
			return p
		}
	}
	return ProtocolUnknown
}

func (r *reader) readS3(n *yaml.Node) *s3Text {
	s := &s3Text{node: n, listed: n.Kind != yaml.MappingNode} // then all is said
	for key, value := range r.fields(n, "s3", s3Keys()) {
		switch key.Value {
		case "buckets":
			s.listed = true
			s.buckets = r.texts(value, "buckets")
		case "access_points":
			s.listed = true
			s.accessPoints = r.texts(value, "access_points")
		case "regions":
			s.regions = r.texts(value, "regions")
		case "partition":
			s.partition = value
			r.text(value, "partition")
		case "opaque":
			if r.word(value, "opaque", "allow", "deny") == "allow" {
				s.opaque = key
			}
		case "inspect":
			if r.boolean(value, "inspect") {
				s.inspect = key
			}
		default:
			s.conditions = append(s.conditions, key)
			r.readS3Condition(s, key.Value, value)
		}
	}
	return s
}

// readS3Condition reads a key that asks something of the request inside TLS.
func (r *reader) readS3Condition(s *s3Text, key string, n *yaml.Node) {
	switch key {
	case "operations":
		s.operations = r.texts(n, key)
	case "accounts":
		s.accounts = r.texts(n, key)
	case "anonymous":
		s.anonymous = r.word(n, key, "allow", "deny") == "allow"
	case "presigned":
		s.noPresigned = r.word(n, key, "allow", "deny") == "deny"
	}
}

// standing is a mode and until when it holds.
type standing struct {
	mode  Mode
	until time.Time // zero: for good
	at    Pos       // where until stands
}

// modeAt returns the mode in force at a moment. A learning window closes by
// itself; a query that does not say when it is asked is outside of it.
func (s standing) modeAt(t time.Time) Mode {
	if s.mode == Report && (s.until.IsZero() || (!t.IsZero() && t.Before(s.until))) {
		return Report
	}
	return Enforce
}
