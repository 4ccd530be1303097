package history_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/logging/history/historytest"
)

// postgres is the server that the tests share.
var postgres historytest.Shared

// closing ends the server before leaks are looked for.
type closing struct{ *testing.M }

// Run implements [goleak.TestingM].
func (c closing) Run() int {
	defer postgres.Close()
	return c.M.Run()
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(closing{m}) }
