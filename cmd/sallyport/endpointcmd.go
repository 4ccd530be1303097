package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/policy"
)

func endpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "s3-endpoint FILE...",
		Short: "print the S3 gateway endpoint's policy that makes AWS enforce the same", Args: cobra.MinimumNArgs(1),
	}
	var e policy.S3Endpoint
	cmd.Flags().StringVar(&e.Region, "region", "", "the endpoint's `REGION`")
	cmd.Flags().StringVar(&e.Partition, "partition", "", "the endpoint's `PARTITION`")
	cmd.Flags().StringArrayVar(&e.Organizations, "org", nil, "the organization's `ID` that must own the buckets; repeatable")
	format := cmd.Flags().String("format", "json", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *format != "json" {
			return refuse("write json", "--format: %q is unknown", *format)
		}
		texts, err := readArguments(cmd.Context(), args, cmd.InOrStdin())
		if err != nil {
			return err
		}
		p, err := policy.Load(texts...)
		if err != nil {
			return policyFaults(err, exitNo)
		}
		document, notes, err := p.RenderS3Endpoint(e)
		if err != nil {
			return endpointFaults(err)
		}
		for _, n := range notes {
			talkWarning(cmd.ErrOrStderr(), "note", n)
		}
		return writeEndpoint(cmd, document)
	}
	return cmd
}

// endpointFaults tells what is wrong with rules from what is wrong with the
// command line.
func endpointFaults(err error) error {
	if _, ok := errors.AsType[policy.Errors](err); ok {
		return policyFaults(err, exitNo)
	}
	return refuse("see sallyport policy s3-endpoint --help", "%w", err)
}

func writeEndpoint(cmd *cobra.Command, document policy.EndpointPolicy) error {
	text, lost, err := document.JSON()
	if err != nil {
		return &fault{
			code: exitNo, err: err,
			hint: "replace names by globs that end in *, give rules the same operations and accounts, or split the callers over several VPCs",
		}
	}
	if lost != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "sallyport: note: %s\n", lost)
	}
	_, err = cmd.OutOrStdout().Write(text)
	return err
}
