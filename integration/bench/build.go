package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// build builds Sallyport and the Go references into the run's folder, and makes
// its certificates. The references are a module of their own, so that nothing
// of them is in the product's go.mod; where their modules cannot be had, they
// are left out.
func (o *options) build(ctx context.Context, root string, stderr io.Writer) error {
	o.Missing = make(map[string]string)
	if o.Sallyport == "" {
		o.Sallyport = filepath.Join(o.Dir, "sallyport")
		if err := goBuild(ctx, root, o.Sallyport, "./cmd/sallyport"); err != nil {
			return err
		}
	}
	var err error
	if o.Sallyport, err = filepath.Abs(o.Sallyport); err != nil {
		return err
	}
	for i := range o.Against {
		if o.Against[i], err = filepath.Abs(o.Against[i]); err != nil {
			return err
		}
	}
	if err := o.certify(); err != nil {
		return err
	}
	if err := goBuild(ctx, filepath.Join(root, "integration", "bench", "peers"), filepath.Join(o.Dir, "peers"), "."); err != nil {
		fmt.Fprintf(stderr, "the Go references are left out: %v\n", err)
		o.Missing["peers"] = "could not be built"
	}
	return nil
}

func goBuild(ctx context.Context, dir, target, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", target, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, bytes.TrimSpace(out))
	}
	return nil
}

// moduleRoot is where Sallyport's source is: at or above the working folder.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	if _, err := os.Stat(filepath.Join(root, "integration", "bench", "peers", "go.mod")); err != nil {
		return "", errors.New("run this below the root of Sallyport's source, where it builds what it measures")
	}
	return root, nil
}
