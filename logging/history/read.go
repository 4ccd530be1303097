package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// where gathers the conditions of a statement and their arguments.
type where struct {
	all  []string
	args []any
}

// add adds a condition whose ? stand for the arguments.
func (w *where) add(condition string, args ...any) {
	for _, a := range args {
		w.args = append(w.args, a)
		condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(w.args)), 1)
	}
	w.all = append(w.all, condition)
}

// in adds that a column holds one of some values.
func (w *where) in(column string, values []string) {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	w.add(column+" IN ("+strings.TrimSuffix(strings.Repeat("?,", len(values)), ",")+")", args...)
}

// after returns a statement with the conditions, and what follows them.
func (w *where) after(statement string, rest ...string) string {
	if len(w.all) > 0 {
		statement += " WHERE " + strings.Join(w.all, " AND ")
	}
	return strings.Join(append([]string{statement}, rest...), " ")
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// glob returns what matches a pattern of the policy language's kind: * within a
// label, ** across labels, one level of {a,b}. nil matches everything.
func glob(pattern string) (*regexp.Regexp, error) {
	if pattern == "" || pattern == "**" {
		return nil, nil //nolint:nilnil // documented
	}
	var b strings.Builder
	depth := 0
	b.WriteString(`(?i)^`)
	for rest := pattern; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "**"):
			b.WriteString(`.*`)
			rest = rest[2:]
			continue
		case rest[0] == '*':
			b.WriteString(`[^.]*`)
		case rest[0] == '{' && depth == 0:
			depth++
			b.WriteString(`(?:`)
		case rest[0] == '}' && depth == 1:
			depth--
			b.WriteString(`)`)
		case rest[0] == ',' && depth == 1:
			b.WriteString(`|`)
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
		}
		rest = rest[1:]
	}
	if depth > 0 {
		return nil, fmt.Errorf("%q has a brace that is not closed", pattern)
	}
	b.WriteString(`$`)
	return regexp.Compile(b.String())
}

// anyName is a pattern for names of services: * stands for anything.
func anyName(pattern string) (*regexp.Regexp, error) {
	return glob(strings.ReplaceAll(pattern, "*", "**"))
}

// conditions returns what of a filter the table of sites can tell.
func (f *Filter) conditions() where {
	var w where
	if f.Source != "" {
		w.add("source = ?", f.Source)
	}
	if f.Family != "" {
		w.add("family = ?", f.Family)
	}
	if f.Verdict != nil {
		w.add("verdict = ?", int64(*f.Verdict))
	}
	if f.WouldDeny != nil {
		w.add("would_deny = ?", int64(bit(*f.WouldDeny)))
	}
	if f.Rule != "" {
		w.add("rule = ?", f.Rule)
	}
	if len(f.Reasons) > 0 {
		var words []string
		for _, r := range f.Reasons {
			words = append(words, string(r))
		}
		w.in("reason", words)
	}
	if f.Family != "" && f.Revision > 0 {
		w.add("id IN (SELECT site FROM trait WHERE kind = ? AND value = ?)", traitRevision, f.Family+":"+strconv.Itoa(f.Revision))
	}
	if f.Task != "" {
		w.add("id IN (SELECT site FROM trait WHERE kind = ? AND value = ?)", traitTask, f.taskID())
	}
	if !f.Since.IsZero() {
		w.add("last_at >= ?", f.Since.UnixMicro())
	}
	if !f.Until.IsZero() {
		w.add("first_at < ?", f.Until.UnixMicro())
	}
	return w
}

// taskID returns the task's own part of an ARN, or what stands there.
func (f *Filter) taskID() string { return f.Task[strings.LastIndexByte(f.Task, '/')+1:] }

const siteColumns = `id, cluster, service, family, source, principal, vpc_endpoint, unidentified, via, protocol, host, port, inspected, s3,
	verdict, would_deny, reason, rule, first_at, last_at, visits, failed, sent, received, client, task`

// siteRow is a site as it is stored.
type siteRow struct {
	Site
	bucket string
	task   string
	read   string // the oldest of its flows that was read, see flowSearch
}

func scanSite(rows *sql.Rows) (*siteRow, error) {
	var (
		s                                           siteRow
		unidentified, inspected, would, first, last int64
		via, protocol, port, verdict                int64
		s3, reason, client                          string
	)
	err := rows.Scan(&s.ID, &s.Cluster, &s.Service, &s.Family, &s.Source, &s.Principal, &s.VPCEndpoint, &unidentified, &via, &protocol,
		&s.Host, &port, &inspected, &s3, &verdict, &would, &reason, &s.Rule, &first, &last,
		&s.Visits, &s.Failed, &s.BytesSent, &s.BytesReceived, &client, &s.task)
	if err != nil {
		return nil, fmt.Errorf("read a site: %w", err)
	}
	s.Unidentified, s.Inspected, s.WouldDeny = unidentified != 0, inspected != 0, would != 0
	s.Via, s.Protocol, s.Port = policy.Via(via), policy.Protocol(protocol), uint16(port)
	s.Verdict, s.Reason = policy.Verdict(verdict), policy.Reason(reason)
	s.First, s.Last = timeOf(first), timeOf(last)
	if s3 != "" {
		var parts s3Parts
		if err := json.Unmarshal([]byte(s3), &parts); err != nil {
			return nil, fmt.Errorf("read site %s: %w", s.ID, err)
		}
		s.S3 = parts.Ref
		if parts.Call != nil {
			s.Call = *parts.Call
		}
	}
	s.bucket = bucketOf(s.S3)
	s.Example.Client, _ = netip.ParseAddr(client) // "" is none
	s.Example.At = s.Last
	return &s, nil
}

// sites returns the sites that a filter selects, by ID, with the figures of all
// time.
func (d *database) sites(ctx context.Context, f *Filter) (map[string]*siteRow, error) {
	host, err := glob(f.Host)
	if err != nil {
		return nil, err
	}
	name, err := anyName(f.Service)
	if err != nil {
		return nil, err
	}
	w := f.conditions()
	rows, err := d.read.QueryContext(ctx, w.after("SELECT "+siteColumns+" FROM site"), w.args...)
	if err != nil {
		return nil, fmt.Errorf("read sites: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	all := map[string]*siteRow{}
	for rows.Next() {
		s, err := scanSite(rows)
		if err != nil {
			return nil, err
		}
		if host != nil && !host.MatchString(s.Host) && (s.bucket == "" || !host.MatchString(s.bucket)) && s.Host != Other {
			continue
		}
		if name != nil && !slices.ContainsFunc(s.names(), name.MatchString) {
			continue
		}
		all[s.ID] = s
	}
	return all, rows.Err() //nolint:wrapcheck // it says what failed
}

// names are those that a filter may call the caller.
func (c Caller) names() []string {
	names := []string{c.Name(), c.Cluster + "/" + c.Name()}
	if c.Family != "" && c.Family != c.Name() {
		names = append(names, c.Family)
	}
	return names
}

// tasks returns the rows of tasks by their IDs.
func (d *database) tasks(ctx context.Context, ids []string) (map[string]*policy.Task, error) {
	all := make(map[string]*policy.Task, len(ids))
	for some := range slices.Chunk(ids, 500) {
		var w where
		w.in("id", some)
		rows, err := d.read.QueryContext(ctx, w.after("SELECT id, arn, cluster, service, family, revision, tags FROM task"), w.args...)
		if err != nil {
			return nil, fmt.Errorf("read tasks: %w", err)
		}
		err = scanTasks(rows, all)
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func scanTasks(rows *sql.Rows, all map[string]*policy.Task) error {
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		var id, tags string
		var t policy.Task
		if err := rows.Scan(&id, &t.ARN, &t.Cluster, &t.Service, &t.Family, &t.Revision, &tags); err != nil {
			return fmt.Errorf("read a task: %w", err)
		}
		if err := json.Unmarshal([]byte(tags), &t.Tags); err != nil {
			return fmt.Errorf("read task %s: %w", t.ARN, err)
		}
		if len(t.Tags) == 0 {
			t.Tags = nil
		}
		all[id] = &t
	}
	return rows.Err() //nolint:wrapcheck // it says what failed
}
