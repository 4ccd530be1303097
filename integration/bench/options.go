package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

var errUsage = errors.New("wrong usage")

// options are what a run is asked to do, and what it found out before it
// entered its namespace.
type options struct {
	Scenarios []string // names; empty: all
	Subjects  []string // names; empty: all that are installed
	Repeat    int
	Seconds   float64 // of each load, after its warm-up
	Rules     int     // of each allowlist
	Placement placement
	Quick     bool
	Out       string
	From      string   // results.json of an earlier run, in place of measuring
	Readme    bool     // write the short table into the README
	Sallyport string   // a binary; empty: built from the source
	History   int      // flows to load a history with, in place of measuring proxies
	Against   []string // further Sallyport binaries, to compare with

	Dir      string            // for everything that the run writes, but its results
	Missing  map[string]string // of what was to be built, why it was not
	Loopback bool              // no namespace
	TLSPort  int               // of the origin; 443, or there is no SNI
	HTTPPort int
}

// placement says on which CPUs the proxy and the ends run.
type placement string

const (
	placeShared placement = "shared" // the scheduler decides; two workers
	placeApart  placement = "apart"  // the proxy alone on CPU 0, the ends on CPU 1; one worker
	placeOne    placement = "one"    // everything on CPU 0: no wake-ups across CPUs; one worker
)

// String says it for people.
func (p placement) String() string {
	switch p {
	case placeApart:
		return "proxy alone on one CPU, ends on another"
	case placeOne:
		return "everything on one CPU"
	default:
		return "CPUs shared"
	}
}

// workers is how many threads or processes a subject may have for its traffic.
func (p placement) workers() int {
	if p == placeShared {
		return 2
	}
	return 1
}

// proxyCPU is where the proxy is pinned, and endsCPU the ends; -1 is nowhere.
func (p placement) proxyCPU() int {
	if p == placeShared {
		return -1
	}
	return 0
}

func (p placement) endsCPU() int {
	switch p {
	case placeApart:
		return 1
	case placeOne:
		return 0
	default:
		return -1
	}
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{Placement: placeShared}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	scenarioList := set.String("scenario", "", "only these `SCENARIOS`, with commas between: "+strings.Join(scenarioNames(), ", "))
	subjectList := set.String("subject", "", "only these `SUBJECTS`, with commas between: "+strings.Join(subjectNames(), ", "))
	set.IntVar(&o.Repeat, "repeat", 3, "measure everything `N` times, the subjects interleaved")
	set.Float64Var(&o.Seconds, "seconds", 3, "length of each measurement in `SECONDS`")
	set.IntVar(&o.Rules, "rules", 1000, "`N` rules in every allowlist")
	pin := set.Bool("pin", false, "the proxy alone on CPU 0 with one worker, the ends on CPU 1")
	one := set.Bool("onecpu", false, "everything on CPU 0, the proxy with one worker: the steadiest round trips")
	set.BoolVar(&o.Quick, "quick", false, "about a minute in all: one repeat, short loads, few tunnels; proves that it works, measures little")
	set.StringVar(&o.Out, "out", "", "`DIRECTORY` for results.json, results.md and results.svg (default integration/bench/out)")
	set.BoolVar(&o.Readme, "readme", false, "write the short table into README.md, and the plot to "+readmePlot)
	set.StringVar(&o.From, "from", "", "do not measure, but take the `FILE`, results.json of an earlier run, and write from it")
	set.StringVar(&o.Sallyport, "sallyport", "", "measure this `BINARY` in place of one built from the source")
	set.IntVar(&o.History, "history", 0, "do not measure proxies, but load a history with `N` flows and ask it; 10000000 take a few minutes and GB")
	set.Func("against", "measure this Sallyport `BINARY` too; may be repeated", func(s string) error {
		o.Against = append(o.Against, s)
		return nil
	})
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	o.Scenarios, o.Subjects = fields(*scenarioList), fields(*subjectList)
	switch {
	case *pin && *one:
		return o, fmt.Errorf("%w: -pin and -onecpu exclude each other", errUsage)
	case *pin:
		o.Placement = placeApart
	case *one:
		o.Placement = placeOne
	}
	if o.Quick {
		o.Repeat, o.Seconds = 1, min(o.Seconds, 0.2)
	}
	err := o.check(set.Args())
	return o, err
}

func (o *options) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, rest[0])
	}
	for _, s := range o.Scenarios {
		if !slices.Contains(scenarioNames(), s) {
			return fmt.Errorf("%w: no scenario %q; there are: %s", errUsage, s, strings.Join(scenarioNames(), ", "))
		}
	}
	for _, s := range o.Subjects {
		if !slices.Contains(subjectNames(), s) {
			return fmt.Errorf("%w: no subject %q; there are: %s", errUsage, s, strings.Join(subjectNames(), ", "))
		}
	}
	switch {
	case o.Repeat < 1 || o.Repeat > 100:
		return fmt.Errorf("%w: -repeat is from 1 to 100", errUsage)
	case o.Seconds < 0.05 || o.Seconds > 600:
		return fmt.Errorf("%w: -seconds is from 0.05 to 600", errUsage)
	case o.History < 0 || o.History > 100_000_000:
		return fmt.Errorf("%w: -history is from 1 to 100000000", errUsage)
	case o.Rules < 1 || o.Rules > 1_000_000:
		return fmt.Errorf("%w: -rules is from 1 to 1000000", errUsage)
	}
	for _, path := range append(slices.Clone(o.Against), o.Sallyport, o.From) {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
	}
	return nil
}

// wants reports whether a list of names, where empty means all, has one.
func wants(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }

func fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// length is how long a load is measured, and warm how long it runs before.
func (o *options) length() time.Duration { return time.Duration(o.Seconds * float64(time.Second)) }

func (o *options) warm() time.Duration { return min(o.length()/4, time.Second) }

// Hosts is the text of a hosts file for the run.
func (o *options) Hosts() string {
	return "127.0.0.1 localhost\n" + originAddr + " " + originName + " " + strangerName + "\n" +
		bucketAddr + " " + bucketName + " " + strangerBucket + "\n"
}

// endsDir is the folder that the ends share.
func (o *options) endsDir() string { return filepath.Join(o.Dir, "ends") }

// originTLS and originHTTP are where the origin is, and bucket where the bucket is.
func (o *options) originTLS() netip.AddrPort  { return portAt(originAddr, o.TLSPort) }
func (o *options) originHTTP() netip.AddrPort { return portAt(originAddr, o.HTTPPort) }
func (o *options) bucket() netip.AddrPort     { return portAt(bucketAddr, o.TLSPort) }

func portAt(addr string, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port))
}
