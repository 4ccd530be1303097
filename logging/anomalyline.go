package logging

import (
	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
)

// maxExamples bounds the lists of an anomaly's line.
const maxExamples = 8

// anomalyLine builds the line of an anomaly. Of the caller and what it visits
// nothing is known here but names.
func anomalyLine(l *zerolog.Event, a *flow.Anomaly) *zerolog.Event {
	l.Str(FieldTime, a.Last.UTC().Format(timeLayout))
	l.Dict("event", l.CreateDict().Str("name", "anomaly"))
	e := &a.Evidence
	if e.Host != "" {
		d := text(l.CreateDict(), "address", e.Host, limitName)
		if e.Port != 0 {
			d.Uint16("port", e.Port)
		}
		l.Dict("server", d)
	}
	if e.Rule != "" {
		l.Dict("rule", label(l.CreateDict(), "name", e.Rule))
	}
	d := l.CreateDict()
	text(d, "id", a.ID, limitName)
	d.Str("kind", string(a.Kind)).Str("severity", a.Severity.String())
	text(d, "caller", a.Caller, limitName)
	text(d, "subject", a.Subject, limitName)
	d.Str("first", a.First.UTC().Format(timeLayout)).Int64("count", a.Count)
	d.Dict("evidence", evidence(d.CreateDict(), e))
	return l.Dict("sallyport", l.CreateDict().Int("schema", schemaVersion).Dict("anomaly", d))
}

// evidence adds what there is of e but for what has a place of its own.
func evidence(d *zerolog.Event, e *flow.Evidence) *zerolog.Event {
	d.Str("text", sentence(e.Text, limitError))
	number := func(key string, v float64) {
		if v != 0 {
			d.Float64(key, v)
		}
	}
	number("value", e.Value)
	number("norm", e.Norm)
	number("limit", e.Limit)
	text(d, "unit", e.Unit, limitMethod)
	text(d, "basis", e.Basis, limitMethod)
	number("samples", float64(e.Samples))
	text(d, "verdict", e.Verdict, limitMethod)
	if e.WouldDeny {
		d.Bool("would_deny", true)
	}
	text(d, "operation", e.Operation, limitName)
	number("entropy", e.Entropy)
	number("contacts", float64(e.Contacts))
	number("interval_s", e.Interval)
	number("variation", e.Variation)
	examples(d, "revisions", e.Revisions)
	examples(d, "names", e.Names)
	return examples(d, "flows", e.Flows)
}

// examples adds the first few of a list.
func examples(d *zerolog.Event, key string, all []string) *zerolog.Event {
	if len(all) == 0 {
		return d
	}
	out := d.CreateArray()
	for _, s := range all[:min(len(all), maxExamples)] {
		out.Str(clean(s, limitName))
	}
	return d.Array(key, out)
}
