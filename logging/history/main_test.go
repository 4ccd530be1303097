package history_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/logging/history/historytest"
)

// postgres is the server that the tests share.
var postgres historytest.Shared

func TestMain(m *testing.M) {
	code := m.Run()
	postgres.Close()
	if err := goleak.Find(); err != nil && code == 0 {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		code = 1
	}
	os.Exit(code)
}
