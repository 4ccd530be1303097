package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func caEnvCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "env", Short: "print the variables by which clients trust the CA", Args: cobra.NoArgs}
	bundle := cmd.Flags().String("bundle", "", "the bundle's `PATH`, as the task sees it")
	ca := cmd.Flags().String("ca", "", "the CA's own `PATH`, for Node")
	store := cmd.Flags().String("truststore", "", "the trust store's `PATH`, for Java")
	format := cmd.Flags().String("format", "shell", "shell, task-definition or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *bundle == "" {
			return refuse("write --bundle /PATH/ca-bundle.pem, as the task sees it", "sallyport ca env needs --bundle")
		}
		for _, f := range []struct {
			name string
			path *string
		}{{"bundle", bundle}, {"ca", ca}, {"truststore", store}} {
			switch {
			case *f.path == "" || filepath.IsAbs(*f.path):
			case *format == "shell": // this machine's, so that it can be found
				abs, err := filepath.Abs(*f.path)
				if err != nil {
					return err
				}
				*f.path = abs
			default:
				return refuse("write it from / on: clients work in folders of their own", "--%s: %q is a relative path", f.name, *f.path)
			}
		}
		if strings.ContainsAny(*store, " \t\n'\"") {
			return refuse("Java splits JAVA_TOOL_OPTIONS at spaces: put it elsewhere", "--truststore: %q has a space or a quote", *store)
		}
		return writeVariables(cmd.OutOrStdout(), *format, trustVariables(*bundle, *ca, *store))
	}
	return cmd
}

// trustVariables returns what tells the clients. All but Node's replace the
// roots that a client has, which is why the bundle holds the public ones too;
// Node's adds to them, so that the CA alone will do.
func trustVariables(bundle, ca, store string) []variable {
	vars := []variable{
		{"SSL_CERT_FILE", bundle},      // Go, OpenSSL, Ruby, Rust, .NET
		{"AWS_CA_BUNDLE", bundle},      // the AWS CLI and SDKs
		{"REQUESTS_CA_BUNDLE", bundle}, // Python's requests, pip
		{"CURL_CA_BUNDLE", bundle},
		{"GIT_SSL_CAINFO", bundle},
		{"NODE_EXTRA_CA_CERTS", bundle},
	}
	if ca != "" {
		vars[len(vars)-1].Value = ca
	}
	if store != "" {
		vars = append(vars, variable{"JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore=" + store + " -Djavax.net.ssl.trustStoreType=JKS"})
	}
	return vars
}
