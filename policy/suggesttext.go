package policy

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Document returns the suggestion as a policy document, with its reasons as
// comments. Nothing that a client wrote stands in it but host names that
// [ParseHost] has read, bucket names and operations of the grammar, and quoted
// text in comments; it is printable ASCII.
func (s *Suggestion) Document() []byte {
	var b bytes.Buffer
	for _, line := range s.Coverage.lines() {
		fmt.Fprintf(&b, "# %s\n", line)
	}
	fmt.Fprint(&b, "version: 1\nmode: enforce\n")
	switch {
	case !s.hasTasks():
	case s.allowUnknown:
		fmt.Fprint(&b, "unknown_source: allow # some of what is allowed below was asked for by callers who are no known tasks\n")
	default:
		fmt.Fprint(&b, "unknown_source: deny\n")
	}
	if len(s.Sources) > 0 {
		fmt.Fprint(&b, "sources:\n")
	}
	for _, source := range s.Sources {
		fmt.Fprintf(&b, "  - name: %q\n", source.Name)
		for _, line := range source.Text {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	if len(s.Rules) > 0 {
		fmt.Fprint(&b, "rules:\n")
	}
	for i := range s.Rules {
		s.Rules[i].write(&b)
	}
	s.writeLeftOut(&b)
	return b.Bytes()
}

// hasTasks reports whether some source asks for a task.
func (s *Suggestion) hasTasks() bool {
	for _, source := range s.Sources {
		for _, line := range source.Text {
			if strings.HasPrefix(line, "ecs: ") {
				return true
			}
		}
	}
	return false
}

func (r *SuggestedRule) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "  # %s\n", r.Evidence)
	fmt.Fprintf(b, "  - name: %q\n", r.Name)
	switch {
	case r.Preset != "":
		fmt.Fprintf(b, "    preset: %q\n%s", r.Preset, withText(r.With))
	case r.S3 != nil:
		r.S3.write(b)
	default:
		r.writeHosts(b)
	}
	if r.Preset == "" {
		r.writeCarries(b)
	}
	if r.Source != "" {
		fmt.Fprintf(b, "    sources: [%q]\n", r.Source)
	}
	if len(r.ResolvesTo) > 0 {
		texts := make([]string, len(r.ResolvesTo))
		for i, p := range r.ResolvesTo {
			texts[i] = p.String()
		}
		fmt.Fprintf(b, "    resolves_to: %s\n", quotedList(texts))
	}
}

func (r *SuggestedRule) writeHosts(b *bytes.Buffer) {
	fmt.Fprint(b, "    hosts:\n")
	for _, h := range r.Hosts {
		fmt.Fprintf(b, "      - %q", h.Pattern)
		if len(h.Names) > 0 {
			fmt.Fprintf(b, " # %d names: %s", len(h.Names), someOf(h.Names, 4))
		}
		fmt.Fprint(b, "\n")
	}
}

func (r *SuggestedRule) writeCarries(b *bytes.Buffer) {
	standard := uint16(443)
	switch r.Protocol {
	case "http":
		standard = 80
		fallthrough
	case "tcp":
		fmt.Fprintf(b, "    protocol: %s\n", r.Protocol)
	}
	if len(r.Ports) != 1 || r.Ports[0] != standard || r.Protocol == "tcp" {
		ports := make([]string, len(r.Ports))
		for i, p := range r.Ports {
			ports[i] = strconv.Itoa(int(p))
		}
		fmt.Fprintf(b, "    ports: [%s]\n", strings.Join(ports, ", "))
	}
}

func (s *SuggestedS3) write(b *bytes.Buffer) {
	fmt.Fprint(b, "    s3:\n")
	for _, list := range []struct {
		key    string
		values []string
	}{{"buckets", s.Buckets}, {"access_points", s.AccessPoints}, {"regions", s.Regions}} {
		if len(list.values) > 0 {
			fmt.Fprintf(b, "      %s: %s\n", list.key, quotedList(list.values))
		}
	}
	if s.Partition != "" {
		fmt.Fprintf(b, "      partition: %s\n", s.Partition)
	}
	if !s.Inspect {
		return
	}
	fmt.Fprintf(b, "      inspect: true\n      operations: %s\n", quotedList(s.Operations))
	if len(s.Accounts) > 0 {
		fmt.Fprintf(b, "      accounts: %s\n", quotedList(s.Accounts))
	}
	if s.Anonymous {
		fmt.Fprint(b, "      anonymous: allow\n")
	}
}

// maxLeftOut bounds the lines of comments about what was left out.
const maxLeftOut = 200

func (s *Suggestion) writeLeftOut(b *bytes.Buffer) {
	if len(s.LeftOut) == 0 {
		return
	}
	fmt.Fprint(b, "\n# Left out:\n")
	for i, l := range s.LeftOut {
		if i == maxLeftOut {
			fmt.Fprintf(b, "#   and %d more\n", len(s.LeftOut)-i)
			return
		}
		fmt.Fprintf(b, "#   %s: %s from %s: %s\n", l.Why, l.Site, l.Caller, l.Detail)
	}
}

// someOf writes the first n of some names.
func someOf(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:n], ", ") + ", ..."
}

// String tells the evidence in a line.
func (e Evidence) String() string {
	text := fmt.Sprintf("%s, %s sent, %s received", plural(e.Count, "connection"), Bytes(e.BytesSent), Bytes(e.BytesReceived))
	if e.Tasks > 0 {
		text += ", " + plural(int64(e.Tasks), "task")
	}
	if e.First.IsZero() {
		return text
	}
	return text + ", " + span(e.First, e.Last)
}

// span writes a time from its first to its last minute.
func span(first, last time.Time) string {
	const layout = "2006-01-02 15:04"
	a, b := first.UTC().Format(layout), last.UTC().Format(layout)
	if a == b {
		return a + " UTC"
	}
	return a + " to " + b + " UTC"
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Bytes writes a number of bytes for people, in binary units.
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit])
}
