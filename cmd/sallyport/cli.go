package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// helpTexts are the help pages, laid out by hand: purpose, forms, options,
// examples. A test holds their flags against the commands'.
//
//go:embed help
var helpTexts embed.FS

// run is the whole program: it returns the exit code and writes nowhere else.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// Until a command's own code runs, every error is one of usage.
	started := false
	root := newRoot() //nolint:contextcheck // its commands have the context from cobra
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !started {
		err = usageFault(cmd, err)
	}
	return report(stderr, err)
}

// usageFault gives cobra's own errors our form.
func usageFault(cmd *cobra.Command, err error) error {
	if _, ok := errors.AsType[*fault](err); ok {
		return err
	}
	message, _, _ := strings.Cut(err.Error(), "\n") // suggestions come from us
	return refuse("see "+cmd.CommandPath()+" --help", "%s", message)
}

func newRoot() *cobra.Command {
	root := group("sallyport", "let tasks reach what the policy lists, and nothing else",
		serveCommand(), policyCommand(), siteCommand(), flowCommand(), anomalyCommand(), readyCommand(), envCommand(), doctorCommand(), caCommand(), configCommand(), versionCommand())
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = false
	root.Flags().Bool("version", false, "print the version")
	groupRun := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if v, err := cmd.Flags().GetBool("version"); err == nil && v {
			return printVersion(cmd.OutOrStdout())
		}
		return groupRun(cmd, args)
	}
	fallback := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if text, err := helpText(cmd); err == nil {
			fmt.Fprint(cmd.OutOrStdout(), text)
			return
		}
		fallback(cmd, args) // cobra's own commands: completion
	})
	return root
}

// helpText returns the page of a command: help/policy-check.txt for
// "sallyport policy check", help/sallyport.txt for the root.
func helpText(cmd *cobra.Command) (string, error) {
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	if cmd.HasParent() {
		name = strings.TrimPrefix(name, "sallyport-")
	}
	text, err := helpTexts.ReadFile("help/" + name + ".txt")
	return string(text), err
}

// group returns a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(commands...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		if len(args) == 0 {
			return refuse("see "+cmd.CommandPath()+" --help", "%s needs a command: %s", cmd.CommandPath(), strings.Join(names, ", "))
		}
		hint := "see " + cmd.CommandPath() + " --help"
		if n := nearest(args[0], names); n != "" {
			hint = fmt.Sprintf("did you mean %s %s?", cmd.CommandPath(), n)
		}
		return refuse(hint, "unknown command %q", args[0])
	}
	return cmd
}

// addFlags gives a command the configuration flags of those names, and --config.
func addFlags(cmd *cobra.Command, names ...string) {
	cmd.Flags().String("config", "", "configuration `FILE`")
	for _, name := range names {
		for _, s := range settings() {
			switch {
			case s.flag != name:
			case s.kind.list:
				cmd.Flags().StringArray(name, nil, s.key+": "+s.kind.want)
			default:
				cmd.Flags().String(name, "", s.key+": "+s.kind.want)
			}
		}
	}
}

// daemonFlags are the flags of every configuration key that has one.
func daemonFlags() []string {
	var names []string
	for _, s := range settings() {
		if s.flag != "" {
			names = append(names, s.flag)
		}
	}
	return names
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "print the effective configuration and where it comes from", Args: cobra.NoArgs}
	addFlags(cmd, daemonFlags()...)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := loadConfig(cmd.Flags())
		if err != nil {
			return err
		}
		for _, w := range l.warnings {
			fmt.Fprintf(cmd.ErrOrStderr(), "sallyport: warning: %s\n", w)
		}
		if *asJSON {
			return l.writeJSON(cmd.OutOrStdout())
		}
		return l.writeYAML(cmd.OutOrStdout())
	}
	return cmd
}
