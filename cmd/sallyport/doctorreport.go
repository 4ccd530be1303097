package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// The results of a check, as they stand in the table and in JSON.
const (
	resultOK      = "ok"
	resultUnknown = "unknown"
	resultWrong   = "wrong" // a setting must change
	resultLeak    = "leak"  // something leaves, or could, without the proxy
)

// How sure a result is. What is unknown has none.
const (
	certain = "certain"
	likely  = "likely"
)

// check is one line of the answer. Its JSON is documented in the command's
// help, and never loses a key.
type check struct {
	Name    string `json:"check"`
	Subject string `json:"subject,omitempty"` // what it is about, where a check is made of several
	Result  string `json:"result"`
	Sure    string `json:"sure,omitempty"`
	Seen    string `json:"seen"`
	Change  string `json:"change,omitempty"` // what to do about it
}

// examination is the answer.
type examination struct{ checks []check }

func (x *examination) add(c check) {
	if c.Result == resultUnknown {
		c.Sure = ""
	}
	c.Seen, c.Change = printable(c.Seen), printable(c.Change)
	x.checks = append(x.checks, c)
}

func severity(result string) int {
	switch result {
	case resultLeak:
		return 3
	case resultWrong:
		return 2
	case resultUnknown:
		return 1
	}
	return 0
}

// worse returns the graver of two, the first where they are alike.
func worse(a, b check) check {
	if severity(b.Result) > severity(a.Result) {
		return b
	}
	return a
}

// result is the gravest of all.
func (x *examination) result() string {
	all := check{Result: resultOK}
	for _, c := range x.checks {
		all = worse(all, c)
	}
	return all.Result
}

func (x *examination) failed() bool { return severity(x.result()) >= severity(resultWrong) }

func (x *examination) write(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Result string  `json:"result"`
			Checks []check `json:"checks"`
		}{x.result(), x.checks})
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "CHECK\tRESULT\tSURE\tSEEN\n")
	for _, c := range x.checks {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", c.title(), c.Result, c.Sure, c.Seen)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	x.writeChanges(w)
	return nil
}

// title names a check for people.
func (c check) title() string {
	if c.Subject == "" {
		return c.Name
	}
	return c.Name + " " + c.Subject
}

// writeChanges lists what to do, the gravest first, and counts.
func (x *examination) writeChanges(w io.Writer) {
	count := map[string]int{}
	for _, c := range x.checks {
		count[c.Result]++
	}
	for _, result := range []string{resultLeak, resultWrong, resultUnknown} {
		for _, c := range x.checks {
			if c.Result == result && c.Change != "" {
				fmt.Fprintf(w, "\n%s: %s\n  %s\n", c.Result, c.title(), c.Change)
			}
		}
	}
	fmt.Fprintf(w, "\n%d leak, %d wrong, %d unknown, %d ok\n", count[resultLeak], count[resultWrong], count[resultUnknown], count[resultOK])
}

// printable keeps what came from the environment or the network to one line
// without control characters, and hides the secrets of URLs.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, mask(s))
}
