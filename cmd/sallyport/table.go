package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// sheet is an answer of rows, in one of three forms. Its rows come one by one:
// there may be millions.
type sheet struct {
	columns []column
	form    string // "table", "csv" or "json"
	out     io.Writer
	table   *tabwriter.Writer
	csv     *csv.Writer
	json    *json.Encoder
	rows    int
	last    int // the last column of a table: how wide it is does not matter
}

// widest is how many characters a table shows of a cell. Clients make names up,
// and one of them would set all others apart.
const widest = 60

// column is a column: its name in CSV, and its head in a table, "" where a table
// leaves it out.
type column struct{ name, head string }

// cell is a value as a table and as CSV have it.
type cell struct{ table, csv string }

func plainCell(s string) cell { return cell{s, s} }

func bytesCell(n int64) cell { return cell{humanBytes(n), strconv.FormatInt(n, 10)} }

func countCell(n int64) cell { return plainCell(strconv.FormatInt(n, 10)) }

func timeCell(t time.Time) cell {
	if t.IsZero() {
		return cell{"-", ""}
	}
	return cell{t.UTC().Format("2006-01-02 15:04:05"), t.UTC().Format(time.RFC3339Nano)}
}

func durationCell(d time.Duration, open bool) cell {
	if open {
		return cell{"open", ""}
	}
	return cell{d.Round(time.Millisecond).String(), strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', -1, 64)}
}

// addFormFlags gives a command the flags of a sheet's form.
func addFormFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("json", false, "print JSON lines")
	cmd.Flags().Bool("csv", false, "print CSV")
	cmd.MarkFlagsMutuallyExclusive("json", "csv")
}

// newSheet returns a sheet of the form that a command's flags say.
func newSheet(cmd *cobra.Command, columns []column) *sheet {
	s := &sheet{columns: columns, form: "table", out: cmd.OutOrStdout()}
	for i, c := range columns {
		if c.head != "" {
			s.last = i
		}
	}
	for _, form := range []string{"json", "csv"} {
		if on, err := cmd.Flags().GetBool(form); err == nil && on {
			s.form = form
		}
	}
	switch s.form {
	case "json":
		s.json = json.NewEncoder(s.out)
		s.json.SetEscapeHTML(false)
	case "csv":
		s.csv = csv.NewWriter(s.out)
	default:
		s.table = tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	}
	return s
}

// add adds a row: value is its JSON.
func (s *sheet) add(value any, cells ...cell) error {
	if s.rows++; s.rows == 1 && s.form != "json" {
		if err := s.write(true, nil); err != nil {
			return err
		}
	}
	if s.form == "json" {
		return s.json.Encode(value)
	}
	return s.write(false, cells)
}

// write writes the heads or a row's cells.
func (s *sheet) write(heads bool, cells []cell) error {
	var texts []string
	for i, c := range s.columns {
		switch {
		case s.form == "csv" && heads:
			texts = append(texts, c.name)
		case s.form == "csv":
			texts = append(texts, noFormula(cells[i].csv))
		case c.head == "":
		case heads:
			texts = append(texts, c.head)
		case cells[i].table == "":
			texts = append(texts, "-")
		case i == s.last:
			texts = append(texts, shown(cells[i].table))
		default:
			texts = append(texts, clipped(shown(cells[i].table)))
		}
	}
	if s.form == "csv" {
		return s.csv.Write(texts)
	}
	_, err := fmt.Fprintln(s.table, strings.Join(texts, "\t"))
	return err
}

// end writes what is left: all of a table, whose columns depend on every row.
func (s *sheet) end() error {
	switch s.form {
	case "csv":
		if s.rows == 0 {
			_ = s.write(true, nil) // csv.Writer keeps the error
		}
		s.csv.Flush()
		return s.csv.Error()
	case "json":
		return nil
	}
	return s.table.Flush()
}

// shown returns a text as a terminal may be given it. The history keeps
// nothing else, but a store has other writers.
func shown(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// clipped leaves out the middle of what is too wide for a table. Whose a name is
// stands at its end.
func clipped(s string) string {
	const tail = widest * 2 / 3
	all := []rune(s)
	if len(all) <= widest {
		return s
	}
	return string(all[:widest-tail-1]) + "…" + string(all[len(all)-tail:])
}

// noFormula keeps spreadsheets from calculating what a client called itself or
// asked for: a text that would begin a formula is given an apostrophe, which
// they take for a sign of text.
func noFormula(s string) string {
	if len(s) > 1 && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// humanBytes writes a size for people.
func humanBytes(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n), ""
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// spanText writes how long a time is, in one unit.
func spanText(d time.Duration) string {
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}} {
		if n := (d + u.of/2) / u.of; n >= 2 || u.of == 24*time.Hour && n == 1 && d >= 23*time.Hour+30*time.Minute {
			return fmt.Sprintf("%d %s", n, u.name)
		}
	}
	return fmt.Sprintf("%d s", max(int(d.Seconds()), 1))
}

// plural writes a number of things.
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}
