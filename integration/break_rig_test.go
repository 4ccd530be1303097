package integration

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// extent returns how much a break-it program does: its short form, unless
// SALLYPORT_BREAK or the program's own variable (SALLYPORT_SOAK for "soak")
// asks for more. Either is "long" or a number; the program's own wins.
func extent(t *testing.T, program string, short, long int) int {
	t.Helper()
	for _, name := range []string{"SALLYPORT_" + strings.ToUpper(program), "SALLYPORT_BREAK"} {
		switch text := os.Getenv(name); text {
		case "":
		case "long":
			return long
		default:
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				t.Fatalf("%s=%q: write long, or a number", name, text)
			}
			return n
		}
	}
	return short
}
