package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// variable is one environment variable, as a task definition writes it.
type variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func envCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "env", Short: "print the proxy variables that a task needs", Args: cobra.NoArgs}
	proxy := cmd.Flags().String("proxy", "http://127.0.0.1:3128", "the proxy's `URL`, as the task reaches it")
	extra := cmd.Flags().StringArray("no-proxy", nil, "`HOST` to reach directly, beside the usual ones; repeatable")
	format := cmd.Flags().String("format", "shell", "shell, task-definition or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		vars, err := proxyVariables(*proxy, *extra)
		if err != nil {
			return err
		}
		return writeVariables(cmd.OutOrStdout(), *format, vars)
	}
	return cmd
}

// proxyVariables returns the six variables: clients differ in which case they
// read, and curl reads http_proxy in lower case only.
func proxyVariables(proxy string, extra []string) ([]variable, error) {
	u, err := url.Parse(proxy)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, refuse("write http://HOST:PORT: clients speak plain HTTP to the proxy, TLS goes through it",
			"--proxy: %q is not a proxy's URL", proxy)
	}
	// The first two are the task's credentials (container and instance); a
	// client that asks a proxy for them gets no credentials at all.
	direct := []string{"169.254.170.2", "169.254.169.254", "localhost", "127.0.0.1"}
	for _, hosts := range extra {
		for _, h := range splitList(hosts) {
			if h == "" || strings.ContainsAny(h, " \t\n'\"") {
				return nil, refuse("write a host, a .suffix or a CIDR", "--no-proxy: %q is not a host", h)
			}
			if !slices.Contains(direct, h) {
				direct = append(direct, h)
			}
		}
	}
	value := u.Scheme + "://" + u.Host
	if u.User != nil {
		value = u.Scheme + "://" + u.User.String() + "@" + u.Host
	}
	var vars []variable
	for _, v := range []variable{{"HTTPS_PROXY", value}, {"HTTP_PROXY", value}, {"NO_PROXY", strings.Join(direct, ",")}} {
		vars = append(vars, v, variable{strings.ToLower(v.Name), v.Value})
	}
	return vars, nil
}

func writeVariables(w io.Writer, format string, vars []variable) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	switch format {
	case "shell":
		for _, v := range vars {
			fmt.Fprintf(w, "export %s='%s'\n", v.Name, strings.ReplaceAll(v.Value, "'", `'\''`))
		}
		return nil
	case "task-definition":
		return enc.Encode(vars)
	case "json":
		object := make(map[string]string, len(vars))
		for _, v := range vars {
			object[v.Name] = v.Value
		}
		return enc.Encode(object)
	}
	return refuse("write one of shell, task-definition, json", "--format: %q is unknown", format)
}
