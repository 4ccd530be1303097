package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sallyport": main})
}

// TestScripts runs the specification of the command line. Beside testscript's
// own commands there are
//
//	http [-proxy ADDRESS] URL      prints status and body of a GET
//	await [-proxy ADDRESS] REGEXP URL    repeats that until its output matches
//	signal HUP|INT|TERM            sends it to the one command in the background
//
// and the variables PROXY and ADMIN, two addresses that are free.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"PROXY", "ADMIN"} {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				env.Setenv(name, ln.Addr().String())
				defer ln.Close() //nolint:gocritic // both stay taken until both are found
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"http": scriptHTTP, "await": scriptAwait, "signal": scriptSignal},
	})
}

// get returns status line and body. Any answer is an answer.
func get(ctx context.Context, proxy, target string) (string, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	if proxy != "" {
		transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: proxy})
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%s\n%s", resp.Status, body), err
}

func proxyArg(args []string) (proxy string, rest []string) {
	if len(args) > 1 && args[0] == "-proxy" {
		return args[1], args[2:]
	}
	return "", args
}

func scriptHTTP(ts *testscript.TestScript, neg bool, args []string) {
	proxy, args := proxyArg(args)
	if len(args) != 1 {
		ts.Fatalf("usage: http [-proxy ADDRESS] URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	answer, err := get(ctx, proxy, args[0])
	if neg != (err != nil) {
		ts.Fatalf("http %s: %v", args[0], err)
	}
	fmt.Fprint(ts.Stdout(), answer)
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	proxy, args := proxyArg(args)
	if len(args) != 2 || neg {
		ts.Fatalf("usage: await [-proxy ADDRESS] REGEXP URL")
	}
	want, err := regexp.Compile(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		answer, err := get(ctx, proxy, args[1])
		if err == nil && want.MatchString(answer) {
			fmt.Fprint(ts.Stdout(), answer)
			return
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			ts.Fatalf("%s never matched %s: %s, %v", args[1], args[0], answer, err)
		}
	}
}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM}
	running := ts.BackgroundCmds()
	if neg || len(args) != 1 || signals[args[0]] == nil || len(running) != 1 {
		ts.Fatalf("usage: signal HUP|INT|TERM, with one command in the background")
	}
	ts.Check(running[0].Process.Signal(signals[args[0]]))
}
