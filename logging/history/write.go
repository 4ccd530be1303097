package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// statement is an insert of many rows.
type statement struct {
	into    string   // table
	columns []string // all of them
	also    string   // what follows VALUES (…)
}

// The sizes of statements, in rows: few texts, which a server prepares once.
func sizes() []int { return []int{64, 16, 4, 1} }

// text returns the statement for n rows. SQLite looks each $1 up among all that
// went before, by name, and so is given what has none.
func (s statement) text(n int, named bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "INSERT INTO %s (%s) VALUES ", s.into, strings.Join(s.columns, ", "))
	at := 1
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		for j := range s.columns {
			b.WriteByte("(,"[min(j, 1)])
			if !named {
				b.WriteByte('?')
				continue
			}
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(at))
			at++
		}
		b.WriteByte(')')
	}
	b.WriteByte(' ')
	b.WriteString(s.also)
	return b.String()
}

// exec inserts rows, each with the values of all columns, in their order.
func (s statement) exec(ctx context.Context, tx *transaction, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	if tx.engine != enginePostgres {
		return s.each(ctx, tx, rows)
	}
	for _, n := range sizes() {
		for len(rows) >= n {
			args := slices.Concat(rows[:n]...)
			if _, err := tx.ExecContext(ctx, s.text(n, true), args...); err != nil {
				return fmt.Errorf("write %s: %w", s.into, err)
			}
			rows = rows[n:]
		}
	}
	return nil
}

// each inserts rows one by one, which costs nothing where the engine is in the
// process.
func (s statement) each(ctx context.Context, tx *transaction, rows [][]any) error {
	one, err := tx.PrepareContext(ctx, s.text(1, false))
	if err != nil {
		return fmt.Errorf("write %s: %w", s.into, err)
	}
	defer one.Close() //nolint:errcheck // the transaction's end closes it, too
	for _, row := range rows {
		if _, err := one.ExecContext(ctx, row...); err != nil {
			return fmt.Errorf("write %s: %w", s.into, err)
		}
	}
	return nil
}

// transaction is one on an engine.
type transaction struct {
	*sql.Tx
	engine engine
}

// adds is the end of an upsert that adds figures to those of the table.
func adds(table string) string {
	return strings.ReplaceAll("visits = T.visits + excluded.visits, failed = T.failed + excluded.failed, "+
		"sent = T.sent + excluded.sent, received = T.received + excluded.received", "T", table)
}

func siteStatement() statement {
	return statement{"site", []string{
		"id", "cluster", "service", "family", "source", "principal", "vpc_endpoint", "unidentified", "via", "protocol", "host", "port",
		"inspected", "s3", "bucket", "verdict", "would_deny", "reason", "rule",
		"first_at", "last_at", "visits", "failed", "sent", "received", "client", "task",
	}, "ON CONFLICT (id) DO UPDATE SET " + adds("site") + `,
		first_at = CASE WHEN excluded.first_at < site.first_at THEN excluded.first_at ELSE site.first_at END,
		last_at = CASE WHEN excluded.last_at > site.last_at THEN excluded.last_at ELSE site.last_at END,
		client = CASE WHEN excluded.last_at >= site.last_at THEN excluded.client ELSE site.client END,
		task = CASE WHEN excluded.last_at >= site.last_at AND excluded.task <> '' THEN excluded.task ELSE site.task END`}
}

func periodStatement(table string) statement {
	return statement{
		table,
		[]string{"site", "start", "visits", "failed", "sent", "received"},
		"ON CONFLICT (start, site) DO UPDATE SET " + adds(table),
	}
}

func traitStatement() statement {
	return statement{"trait", []string{"site", "kind", "value", "first_at", "last_at"}, `ON CONFLICT (site, kind, value) DO UPDATE SET
		first_at = CASE WHEN excluded.first_at < trait.first_at THEN excluded.first_at ELSE trait.first_at END,
		last_at = CASE WHEN excluded.last_at > trait.last_at THEN excluded.last_at ELSE trait.last_at END`}
}

func taskStatement() statement {
	return statement{"task", []string{"id", "arn", "cluster", "service", "family", "revision", "tags", "last_at"}, `ON CONFLICT (id) DO UPDATE SET
		last_at = CASE WHEN excluded.last_at > task.last_at THEN excluded.last_at ELSE task.last_at END`}
}

// flowStatement never lets what is told of a flow's beginning replace its end.
func flowStatement() statement {
	return statement{"flow", []string{
		"id", "site", "instance", "task", "start_at", "end_at", "host", "client", "peer", "original", "mode", "policy_version",
		"outcome", "ended_by", "sent", "received", "detail",
	}, `ON CONFLICT (id) DO UPDATE SET site = excluded.site, task = excluded.task, end_at = excluded.end_at, host = excluded.host,
		peer = excluded.peer, mode = excluded.mode, policy_version = excluded.policy_version, outcome = excluded.outcome,
		ended_by = excluded.ended_by, sent = excluded.sent, received = excluded.received, detail = excluded.detail
		WHERE excluded.end_at >= flow.end_at`}
}

// put writes a batch in one transaction. Rows come in the order of their
// keys and tables always in the same order, so that proxies which write at once
// wait for each other in one direction only.
func (d *database) put(ctx context.Context, w *writer, b *batch) error {
	begun, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	tx := &transaction{begun, d.engine}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	if b.tries > 0 {
		taken, err := w.took(ctx, tx, b.n)
		if err != nil || taken {
			return err
		}
	}
	for _, step := range []func(context.Context, *transaction, *batch) error{
		w.writeSites, w.writePeriods, w.writeTraits, w.writeTasks, w.writeFlows, w.writeGap, w.sign,
	} {
		if err := step(ctx, tx, b); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// writer is who writes: this run of this proxy.
type writer struct {
	session, instance string
	clock             func() time.Time
}

// took reports whether the store has a batch already whose commit was not
// answered.
func (w *writer) took(ctx context.Context, tx *transaction, n uint64) (bool, error) {
	var last int64
	err := tx.QueryRowContext(ctx, "SELECT coalesce(max(n), 0) FROM writer WHERE session = $1", w.session).Scan(&last)
	if err != nil {
		return false, fmt.Errorf("read writer: %w", err)
	}
	return last >= int64(n), nil
}

func (w *writer) sign(ctx context.Context, tx *transaction, b *batch) error {
	s := statement{
		"writer",
		[]string{"session", "instance", "n", "at"},
		"ON CONFLICT (session) DO UPDATE SET n = excluded.n, at = excluded.at",
	}
	return s.exec(ctx, tx, [][]any{{w.session, w.instance, int64(b.n), w.clock().UnixMicro()}})
}

func (w *writer) writeSites(ctx context.Context, tx *transaction, b *batch) error {
	sums := b.bySite()
	rows := make([][]any, 0, len(sums))
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		s := sums[id]
		k := &s.state.key
		client := ""
		if s.client.IsValid() {
			client = s.client.String()
		}
		rows = append(rows, []any{
			id, k.Cluster, k.Service, k.Family, k.Source, k.Principal, k.VPCEndpoint, int64(bit(k.Unidentified)),
			int64(k.Via), int64(k.Protocol), k.Host, int64(k.Port), int64(bit(k.Inspected)), s3Text(&k.Target), bucketOf(k.S3),
			int64(k.verdict), int64(bit(k.wouldDeny)), string(k.reason), k.rule,
			s.first.UnixMicro(), s.last.UnixMicro(), s.Visits, s.Failed, s.BytesSent, s.BytesReceived, client, s.task,
		})
	}
	return siteStatement().exec(ctx, tx, rows)
}

// s3Parts is how the S3 parts of a target are stored.
type s3Parts struct {
	Ref  policy.S3Ref `json:"ref"`
	Call *Call        `json:"call,omitempty"`
}

// s3Text returns what is S3's of a target, "" where nothing is.
func s3Text(t *Target) string {
	if t.S3.Form == "" && t.Call == (Call{}) {
		return ""
	}
	parts := s3Parts{Ref: t.S3}
	if t.Call != (Call{}) {
		parts.Call = &t.Call
	}
	text, err := json.Marshal(parts)
	if err != nil {
		return "" // strings always encode
	}
	return string(text)
}

// bucketOf returns the bucket's name, else the access point's.
func bucketOf(r policy.S3Ref) string {
	if r.Bucket != "" {
		return r.Bucket
	}
	return r.AccessPoint
}

func (w *writer) writePeriods(ctx context.Context, tx *transaction, b *batch) error {
	for _, p := range []struct {
		table string
		hours int64
	}{{"hour", 1}, {"day", 24}} {
		keys, figures := b.periods(p.hours)
		rows := make([][]any, 0, len(keys))
		for _, k := range keys {
			f := figures[k]
			rows = append(rows, []any{k.site, k.start, f.Visits, f.Failed, f.BytesSent, f.BytesReceived})
		}
		if err := periodStatement(p.table).exec(ctx, tx, rows); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) writeTraits(ctx context.Context, tx *transaction, b *batch) error {
	var rows [][]any
	for id, s := range b.bySite() {
		for t, at := range s.traits {
			rows = append(rows, []any{id, t.kind, t.value, at.first.UnixMicro(), at.last.UnixMicro()})
		}
	}
	slices.SortFunc(rows, func(a, b []any) int {
		for i := range 3 {
			if c := strings.Compare(a[i].(string), b[i].(string)); c != 0 { //nolint:forcetypeassert // made above
				return c
			}
		}
		return 0
	})
	return traitStatement().exec(ctx, tx, rows)
}

func (w *writer) writeTasks(ctx context.Context, tx *transaction, b *batch) error {
	rows := make([][]any, 0, len(b.tasks))
	for _, id := range slices.Sorted(maps.Keys(b.tasks)) {
		t := b.tasks[id]
		tags, err := json.Marshal(t.task.Tags)
		if err != nil {
			return err
		}
		if t.task.Tags == nil {
			tags = []byte("{}")
		}
		rows = append(rows, []any{
			id, legibleARN(t.task.ARN), legible(t.task.Cluster), legible(t.task.Service), legible(t.task.Family),
			int64(t.task.Revision), string(tags), t.at.UnixMicro(),
		})
	}
	return taskStatement().exec(ctx, tx, rows)
}

// legibleARN is legible for what may be longer.
func legibleARN(s string) string {
	if len(s) > maxText && len(s) <= 2*maxText {
		return legible(s[:maxText]) + legible(s[maxText:])
	}
	return legible(s)
}

func (w *writer) writeFlows(ctx context.Context, tx *transaction, b *batch) error {
	rows := make([][]any, 0, len(b.flows))
	for _, id := range slices.Sorted(maps.Keys(b.flows)) {
		f := b.flows[id]
		r := &f.rec
		host := ""
		if f.site.key.Host != legible(r.Host) {
			host = legible(r.Host)
		}
		end := int64(0)
		if f.kind != flow.Opened && !r.End.IsZero() {
			end = r.End.UnixMicro()
		}
		rows = append(rows, []any{
			id, f.site.id, w.instance, taskID(r.Task), r.Start.UnixMicro(), end, host,
			addrText(r.Client), addrText(r.Peer), addrText(r.Original), int64(r.Mode), r.PolicyVersion,
			string(r.Outcome), string(r.EndedBy), r.BytesSent, r.BytesReceived, detailOf(r),
		})
	}
	return flowStatement().exec(ctx, tx, rows)
}

func (w *writer) writeGap(ctx context.Context, tx *transaction, b *batch) error {
	if b.gap == (Gap{}) {
		return nil
	}
	g := b.gap
	if g.From.IsZero() {
		g.From = w.clock()
	}
	if g.To.Before(g.From) {
		g.To = g.From
	}
	s := statement{into: "gap", columns: []string{"id", "instance", "from_at", "to_at", "events", "flows", "reason"}}
	return s.exec(ctx, tx, [][]any{{flow.NewID(), w.instance, g.From.UnixMicro(), g.To.UnixMicro(), g.Events, g.Flows, legible(g.Reason)}})
}
