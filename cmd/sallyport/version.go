package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=...) where no version control
// is at hand, as in an image's build.
var version string

// buildInfo is what the binary knows about itself.
type buildInfo struct {
	Version  string   `json:"version"`
	Revision string   `json:"revision,omitempty"` // commit
	Modified bool     `json:"modified,omitzero"`  // built from a tree with changes
	Go       string   `json:"go"`
	Platform string   `json:"platform"`
	Modules  []module `json:"modules,omitempty"`
}

// module is one of the modules linked in.
type module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"`
}

func readBuild() buildInfo {
	b := buildInfo{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	if version != "" {
		b.Version = version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		b.Modules = append(b.Modules, module{d.Path, d.Version, d.Sum})
	}
	return b
}

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "print the version and what the binary is built of", Args: cobra.NoArgs}
	asJSON := cmd.Flags().Bool("json", false, "print JSON, modules included")
	modules := cmd.Flags().Bool("modules", false, "print the modules linked in, one a line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w := cmd.OutOrStdout()
		switch {
		case *asJSON && *modules:
			return refuse("--json prints the modules too", "--json and --modules are two formats")
		case *asJSON:
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return enc.Encode(readBuild())
		case *modules:
			for _, m := range readBuild().Modules {
				fmt.Fprintln(w, m.Path, m.Version)
			}
			return nil
		}
		return printVersion(w)
	}
	return cmd
}

func printVersion(w io.Writer) error {
	b := readBuild()
	line := "sallyport " + b.Version
	if b.Revision != "" {
		line += " " + b.Revision
	}
	if b.Modified {
		line += " (modified)"
	}
	_, err := fmt.Fprintln(w, line, b.Go, b.Platform)
	return err
}
