package logging

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// The formats of logging.format. The daemon's log is JSON in all of them but
// FormatConsole; flow lines are [AppendFlow]'s but in the last two.
const (
	FormatJSON    = "json"     // an object a line
	FormatConsole = "console"  // for people; no colours, printable ASCII only
	FormatOCSF    = "ocsf"     // flows as OCSF's Network Activity, see [AppendOCSF]
	FormatVPCFlow = "vpc-flow" // flows as a VPC flow log has them, see [AppendVPCFlow]
)

// Options describe the daemon's log. The zero value is level info in JSON.
type Options struct {
	Level  string // trace, debug, info, warn or error; "" is info
	Format string // one of [Formats]; "" is FormatJSON
}

// Levels returns the words for [Options.Level], the most talkative first.
func Levels() []string { return []string{"trace", "debug", "info", "warn", "error"} }

// Formats returns the words for [Options.Format].
func Formats() []string { return []string{FormatJSON, FormatConsole, FormatOCSF, FormatVPCFlow} }

// New returns a logger that writes one line a message to w, each with a single
// Write of printable ASCII. It reports a level or a format that it does not
// know. Writes may come from several goroutines at once, as *os.File and
// [AsyncWriter] permit; an AsyncWriter also learns here where to say that it
// had to drop lines.
func New(w io.Writer, o Options) (zerolog.Logger, error) {
	level := zerolog.InfoLevel
	if o.Level != "" {
		if !slices.Contains(Levels(), o.Level) {
			return zerolog.Nop(), fmt.Errorf("unknown log level %q, want one of %v", o.Level, Levels())
		}
		level, _ = zerolog.ParseLevel(o.Level)
	}
	var out io.Writer
	switch o.Format {
	case "", FormatJSON, FormatOCSF, FormatVPCFlow:
		out = guard{w: w, escape: appendASCIIJSON}
	case FormatConsole:
		out = console(guard{w: w, escape: appendASCIIText})
	default:
		return zerolog.Nop(), fmt.Errorf("unknown log format %q, want one of %v", o.Format, Formats())
	}
	log := zerolog.New(bound{out}).Level(level).Hook(stamp{})
	if a, ok := w.(*AsyncWriter); ok {
		a.log.Store(&log)
	}
	return log, nil
}

// stamp adds the time. zerolog's own Timestamp takes its layout from a package
// variable, which is not ours to set.
type stamp struct{}

// Run implements [zerolog.Hook].
func (stamp) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(FieldTime, time.Now().UTC().Format(timeLayout))
}

// console lays JSON lines out for people. It quotes values but not messages,
// and knows nothing of bidi: the guard below it makes the line safe, which is
// why there are no colours.
func console(w io.Writer) io.Writer {
	return zerolog.ConsoleWriter{
		Out:             w,
		NoColor:         true,
		FormatTimestamp: func(t any) string { return fmt.Sprint(t) },
	}
}
