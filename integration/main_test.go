package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// built is where the programs under test are built, once for all tests.
var built string

func TestMain(m *testing.M) { os.Exit(runAll(m)) } //nolint:forbidigo // a TestMain that cleans up exits by itself

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sallyport-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = dir
	return m.Run()
}

// binary returns the path of the product, built as it ships.
func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// build builds the product on first use.
var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "sallyport")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "../cmd/sallyport")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})
