package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// The first argument of the processes that the program starts from itself.
const (
	roleInside = "inside" // the benchmark, in its namespace
	roleOrigin = "origin"
	roleBucket = "bucket"
	roleECS    = "ecs"
	roleClient = "client"
	roleFloor  = "floor"
	roleLoader = "loader" // of a history
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run runs the program, or the role that it was started for. The exit code is
// 2 for wrong usage, 1 for a failure.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := dispatch(ctx, args, stdin, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	default:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
}

func dispatch(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 2 {
		switch args[0] {
		case roleInside:
			var o options
			if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
				return err
			}
			if err := furnish(o.Hosts()); err != nil {
				return err
			}
			return measureAll(ctx, o, stdout, stderr)
		case roleOrigin:
			return runOrigin(args[1])
		case roleBucket:
			return runBucket(ctx, args[1])
		case roleECS:
			return runECS(args[1])
		case roleClient:
			return runClient(ctx, args[1], stdin, stdout)
		case roleFloor:
			return runFloor(args[1])
		case roleLoader:
			return runLoader(ctx, args[1])
		}
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	return outside(ctx, o, stdout, stderr)
}

// outside measures, or takes what was measured before, and writes.
func outside(ctx context.Context, o options, stdout, stderr io.Writer) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	if o.History > 0 {
		return measureHistory(ctx, o, root, stdout, stderr)
	}
	if o.Out == "" {
		o.Out = filepath.Join(root, "integration", "bench", "out")
	}
	if o.Out, err = filepath.Abs(o.Out); err != nil {
		return err
	}
	if o.From == "" {
		if err := buildAndMeasure(ctx, o, root, stdout, stderr); err != nil {
			return err
		}
		o.From = filepath.Join(o.Out, "results.json")
	} else if err := rewrite(o, stdout); err != nil {
		return err
	}
	if !o.Readme {
		return nil
	}
	res, err := loadResults(o.From)
	if err != nil {
		return err
	}
	if err := res.publish(root); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "written: the table in README.md, and %s\n", readmePlot)
	return nil
}

// rewrite writes the results of an earlier run again.
func rewrite(o options, stdout io.Writer) error {
	res, err := loadResults(o.From)
	if err != nil {
		return err
	}
	return res.write(o.Out, stdout)
}

// buildAndMeasure builds what is measured, while there is a network to fetch
// modules from, and goes on in a namespace where it may have one.
func buildAndMeasure(ctx context.Context, o options, root string, stdout, stderr io.Writer) error {
	dir, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// Squid and Traffic Server give up root, and must reach their files.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	o.Dir = dir
	if err := o.build(ctx, root, stderr); err != nil {
		return err
	}
	why := "not root"
	if os.Geteuid() == 0 {
		if why, err = inNamespace(ctx, o, stdout, stderr); why == "" {
			return err
		}
	}
	fmt.Fprintf(stderr, "no namespace (%s): on loopback addresses, with the machine's own network settings\n", why)
	o.Loopback = true
	return measureAll(ctx, o, stdout, stderr)
}
