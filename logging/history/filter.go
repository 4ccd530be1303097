package history

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// Filter selects sites and flows. What is not set selects all.
type Filter struct {
	Since, Until time.Time // visited at or after, and before
	Service      string    // a [Caller.Name], or CLUSTER/NAME; * stands for anything
	Source       string    // the policy's name for the caller
	Task         string    // ID or ARN
	Family       string
	Revision     int // with Family; 0 for any
	// Host is a name, a bucket, or a glob of the policy language's kind: * within
	// a label, ** across labels, {a,b}.
	Host      string
	Verdict   *policy.Verdict
	WouldDeny *bool
	Reasons   []policy.Reason
	Rule      string
	// MinBytes selects flows of at least so many bytes both ways together, and
	// sites that carried so many in the time.
	MinBytes int64
	// Limit bounds how many are returned; 0 does not.
	Limit int
	// Cursor is the ID of a flow: only older ones are returned.
	Cursor string
}

// Values returns the filter as the parameters of a URL, which [ParseFilter]
// reads.
func (f Filter) Values() url.Values {
	v := url.Values{}
	set := func(key, value string, there bool) {
		if there {
			v.Set(key, value)
		}
	}
	set("since", f.Since.Format(time.RFC3339Nano), !f.Since.IsZero())
	set("until", f.Until.Format(time.RFC3339Nano), !f.Until.IsZero())
	set("service", f.Service, f.Service != "")
	set("source", f.Source, f.Source != "")
	set("task", f.Task, f.Task != "")
	set("family", f.Family, f.Family != "")
	set("revision", strconv.Itoa(f.Revision), f.Revision != 0)
	set("host", f.Host, f.Host != "")
	if f.Verdict != nil {
		v.Set("verdict", f.Verdict.String())
	}
	if f.WouldDeny != nil {
		v.Set("would_deny", strconv.FormatBool(*f.WouldDeny))
	}
	for _, r := range f.Reasons {
		v.Add("reason", string(r))
	}
	set("rule", f.Rule, f.Rule != "")
	set("min_bytes", strconv.FormatInt(f.MinBytes, 10), f.MinBytes != 0)
	set("limit", strconv.Itoa(f.Limit), f.Limit != 0)
	set("cursor", f.Cursor, f.Cursor != "")
	return v
}

// ParseFilter reads the parameters of a URL. Its error names the first that is
// unknown, there twice, or not what it should be.
func ParseFilter(v url.Values) (Filter, error) {
	var f Filter
	for _, key := range slices.Sorted(maps.Keys(v)) {
		if len(v[key]) != 1 && key != "reason" {
			return Filter{}, fmt.Errorf("%q is there %d times", key, len(v[key]))
		}
		if err := f.set(key, v[key]); err != nil {
			return Filter{}, fmt.Errorf("%q: %w", key, err)
		}
	}
	if err := f.Check(); err != nil {
		return Filter{}, err
	}
	return f, nil
}

func (f *Filter) set(key string, values []string) (err error) {
	text := values[0]
	switch key {
	case "since":
		f.Since, err = time.Parse(time.RFC3339Nano, text)
	case "until":
		f.Until, err = time.Parse(time.RFC3339Nano, text)
	case "service":
		f.Service = text
	case "source":
		f.Source = text
	case "task":
		f.Task = text
	case "family":
		f.Family = text
	case "revision":
		f.Revision, err = strconv.Atoi(text)
	case "host":
		f.Host = text
	case "verdict":
		f.Verdict, err = verdictWord(text)
	case "would_deny":
		var would bool
		would, err = strconv.ParseBool(text)
		f.WouldDeny = &would
	case "reason":
		for _, r := range values {
			f.Reasons = append(f.Reasons, policy.Reason(r))
		}
	case "rule":
		f.Rule = text
	case "min_bytes":
		f.MinBytes, err = strconv.ParseInt(text, 10, 64)
	case "limit":
		f.Limit, err = strconv.Atoi(text)
	case "cursor":
		f.Cursor = text
	default:
		err = errors.New("there is no such filter")
	}
	return err
}

func verdictWord(text string) (*policy.Verdict, error) {
	for _, v := range []policy.Verdict{policy.Allow, policy.Deny} {
		if v.String() == text {
			return &v, nil
		}
	}
	return nil, fmt.Errorf("%q is neither allow nor deny", text)
}

// Check says what is wrong with a filter; nil for nothing.
func (f *Filter) Check() error {
	if _, err := glob(f.Host); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if _, err := anyName(f.Service); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	if f.Revision != 0 && f.Family == "" {
		return errors.New("a revision needs its family")
	}
	if f.Limit < 0 || f.MinBytes < 0 || f.Revision < 0 {
		return errors.New("a number is below zero")
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return errors.New("until is not after since")
	}
	return nil
}
