package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy"
)

func TestListeners(t *testing.T) {
	const file = `
listeners:
  - {address: ":1", proxy_protocol: required, proxy_from: [10.0.16.0/20, "2001:db8::/32"]}
  - {address: ":2", proxy_protocol: optional, proxy_from: [10.0.0.7/32]}
  - {address: ":3", original_destination: redirect}
  - {address: ":4", original_destination: tproxy}
  - {address: ":5"}
`
	l, talk := load(t, file, nil)
	if talk != "" {
		t.Fatal(talk)
	}
	var got []proxy.ListenerConfig
	for _, ln := range l.Listeners {
		got = append(got, ln.config())
	}
	want := []proxy.ListenerConfig{
		{Address: ":1", ProxyProtocol: proxy.ProxyProtocolRequired, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.16.0/20"), netip.MustParsePrefix("2001:db8::/32")}},
		{Address: ":2", ProxyProtocol: proxy.ProxyProtocolOptional, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32")}},
		{Address: ":3", Original: proxy.OriginalRedirect},
		{Address: ":4", Original: proxy.OriginalTProxy},
		{Address: ":5"},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	// What is printed can be used as a file.
	var printed strings.Builder
	if err := l.writeYAML(&printed); err != nil {
		t.Fatal(err)
	}
	again, talk := load(t, printed.String(), nil)
	if talk != "" || !cmp.Equal(l.Listeners, again.Listeners) {
		t.Errorf("%s\n%s", talk, printed.String())
	}
}

// TestListenersInVariables: on Fargate there is no file to write them in.
func TestListenersInVariables(t *testing.T) {
	l, talk := load(t, "", []string{
		"SALLYPORT_LISTENERS=127.0.0.1:1?original_destination=redirect, :2?proxy_protocol=required&proxy_from=10.0.16.0/20&proxy_from=2001:db8::/32,[::1]:3",
		"SALLYPORT_CREDENTIALS=payments=env:SALLYPORT_PAYMENTS,batch=secretsmanager:egress/batch", "SALLYPORT_PAYMENTS=x",
	})
	if talk != "" {
		t.Fatal(talk)
	}
	want := []Listener{
		{Address: "127.0.0.1:1", OriginalDestination: "redirect"},
		{Address: ":2", ProxyProtocol: "required", ProxyFrom: []string{"10.0.16.0/20", "2001:db8::/32"}},
		{Address: "[::1]:3"},
	}
	if diff := cmp.Diff(want, l.Listeners); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Credential{{"payments", "env:SALLYPORT_PAYMENTS"}, {"batch", "secretsmanager:egress/batch"}}, l.Credentials); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		"SALLYPORT_LISTENERS=:1?original_destnation=redirect":                              `did you mean "original_destination"?`,
		"SALLYPORT_LISTENERS=:1?original_destination=nat":                                  `"nat" is not one of redirect, tproxy`,
		"SALLYPORT_LISTENERS=:1?original_destination=tproxy&original_destination=redirect": "is there twice",
		"SALLYPORT_LISTENERS=:1?proxy_protocol=required":                                   "no proxy_from",
		"SALLYPORT_LISTENERS=:1?proxy_protocol=required&proxy_from=10.0.0.1":               "not a CIDR prefix",
		"SALLYPORT_LISTENERS=:1?":                                                          `a listener has no ""`,
		"SALLYPORT_LISTENERS=?original_destination=redirect":                               "is not an address and port",
		"SALLYPORT_CREDENTIALS=payments":                                                   "what stands for a secret is not a reference",
		"SALLYPORT_CREDENTIALS=payments=hush-hush-hush-hush":                               "is not a reference",
		"SALLYPORT_CREDENTIALS=payments:hush":                                              "is not a reference",
		"SALLYPORT_CREDENTIALS==env:A":                                                     "a principal has no name",
	} {
		if _, talk := load(t, "", []string{text}); !strings.Contains(talk, want) || strings.Contains(talk, "hush") {
			t.Errorf("%s: %s", text, talk)
		}
	}
}

// secretOf is long enough to be one.
func secretOf(name string) string { return name + strings.Repeat("-hush", 4) }

func TestCredentials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(secretOf("first") + "\n")
	env := []string{"SALLYPORT_BATCH=" + secretOf("batch")}
	l, talk := load(t, "credentials: [{principal: payments, secret: 'file:"+path+"'}, {principal: batch, secret: 'env:SALLYPORT_BATCH'}]", env)
	if talk != "" {
		t.Fatal(talk)
	}
	t.Setenv("SALLYPORT_BATCH", secretOf("batch"))
	var log strings.Builder
	c, err := l.credentials(t.Context(), zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	is := func(user, password string) bool {
		source := policy.Source{Addr: netip.MustParseAddr("192.0.2.1"), VPCEndpoint: user + password} // no throttling between questions
		got, _ := c.authenticator().Authenticate(context.Background(), source, user, password)
		return got == user
	}
	if !is("payments", secretOf("first")) || !is("batch", secretOf("batch")) || is("payments", secretOf("batch")) {
		t.Error("the wrong secrets are in force")
	}
	put(secretOf("second"))
	c.reload(t.Context(), false)
	if !is("payments", secretOf("second")) || is("payments", secretOf("first")) || !is("batch", secretOf("batch")) {
		t.Error("a changed file is not in force")
	}
	t.Setenv("SALLYPORT_BATCH", secretOf("other"))
	c.reload(t.Context(), false)
	if !is("batch", secretOf("batch")) {
		t.Error("a variable, as a secret of AWS, is read too often")
	}
	c.reload(t.Context(), true)
	if !is("batch", secretOf("other")) {
		t.Error("a variable is not read when asked")
	}
	for what, spoil := range map[string]func(){
		"short":     func() { put("hush") },
		"not there": func() { _ = os.Remove(path) },
	} {
		log.Reset()
		spoil()
		for range 3 {
			c.reload(t.Context(), false)
		}
		if !is("payments", secretOf("second")) || strings.Count(log.String(), "those in force stay") != 1 {
			t.Errorf("%s: %s", what, log.String())
		}
	}
	c.readAt["batch"] = time.Now().Add(-2 * secretsEvery)
	t.Setenv("SALLYPORT_BATCH", secretOf("third"))
	put(secretOf("second"))
	c.reload(t.Context(), false)
	if !is("batch", secretOf("third")) {
		t.Error("what is asked for seldom is never asked for")
	}
	// Nothing that is printed or logged holds a secret.
	var printed strings.Builder
	if err := l.writeJSON(&printed); err != nil {
		t.Fatal(err)
	}
	if all := printed.String() + log.String(); strings.Contains(all, "hush") || !strings.Contains(all, "env:SALLYPORT_BATCH") {
		t.Error(all)
	}
}

func TestCredentialsAtTheStart(t *testing.T) {
	t.Setenv("SALLYPORT_SHORT", "hush")
	for name, file := range map[string]string{
		"short":   "credentials: [{principal: a, secret: 'env:SALLYPORT_SHORT'}]",
		"missing": "credentials: [{principal: a, secret: 'file:/nonexistent/hush'}]",
		"colon":   "credentials: [{principal: 'a:b', secret: 'env:SALLYPORT_SHORT'}]",
	} {
		t.Run(name, func(t *testing.T) {
			l, talk := load(t, file, slices.DeleteFunc([]string{"SALLYPORT_SHORT=hush"}, func(string) bool { return name == "missing" }))
			if talk != "" {
				t.Fatal(talk)
			}
			_, err := l.credentials(t.Context(), zerolog.Nop())
			var said strings.Builder
			if code := report(&said, err); code != exitUsage || strings.Contains(strings.ReplaceAll(said.String(), "/nonexistent/hush", ""), "hush") {
				t.Errorf("%d: %s", code, said.String())
			}
		})
	}
	none, err := new(loaded).credentials(t.Context(), zerolog.Nop())
	if err != nil || none.authenticator() != nil {
		t.Errorf("%v, %v", none.authenticator(), err)
	}
	none.reload(t.Context(), true)
}

// TestCredentialsInPlaceOfReferences: a secret that stands anywhere below
// credentials, or a key below inspect, is not quoted.
func TestCredentialsInPlaceOfReferences(t *testing.T) {
	for _, file := range []string{
		"credentials: HUNTER2", "credentials: [HUNTER2]", "credentials: [payments=HUNTER2]", "credentials: {payments: HUNTER2}",
		"credentials: [[payments, HUNTER2]]", "credentials: [{principal: payments, secret: HUNTER2}]", "credentials: [{principal: payments, secret: [HUNTER2]}]",
		"credentials: 12345678901234567890", "credentials: [12345678901234567890]", "credentials: [{principal: payments, secret: 12345678901234567890}]",
		"credentials: [{principal: payments, secret: \"HUN\\nTER2\"}]", "inspect: HUNTER2", "inspect: {ca_key: HUNTER2}", "inspect: {ca_key: [HUNTER2]}",
	} {
		_, talk := load(t, file, nil)
		if talk == "" || strings.Contains(talk, "HUNTER2") || strings.Contains(talk, "TER2") || strings.Contains(talk, "1234567890") {
			t.Errorf("%s: %q", file, talk)
		}
	}
}

// TestHostileSecret: a tenant who spoils his own secret does not keep another's,
// which has leaked, from being replaced.
func TestHostileSecret(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("ours", secretOf("leaked"))
	put("theirs", secretOf("theirs"))
	l, talk := load(t, "credentials: [{principal: ours, secret: 'file:"+dir+"/ours'}, {principal: theirs, secret: 'file:"+dir+"/theirs'}]", nil)
	if talk != "" {
		t.Fatal(talk)
	}
	var log strings.Builder
	c, err := l.credentials(t.Context(), zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(){
		"short":     func() { put("theirs", "hush") },
		"not there": func() { _ = os.Remove(filepath.Join(dir, "theirs")) },
	} {
		spoil()
		put("ours", secretOf(what))
		c.reload(t.Context(), false)
		for _, tt := range []struct {
			user, secret string
			want         bool
		}{{"ours", what, true}, {"ours", "leaked", false}, {"theirs", "theirs", true}} {
			source := policy.Source{Addr: netip.MustParseAddr("192.0.2.1"), VPCEndpoint: what + tt.secret} // no throttling between questions
			if got, _ := c.authenticator().Authenticate(t.Context(), source, tt.user, secretOf(tt.secret)); (got != "") != tt.want {
				t.Errorf("%s: the secret %q of %s: accepted %v", what, tt.secret, tt.user, !tt.want)
			}
		}
	}
	if log := log.String(); !strings.Contains(log, `"principals":["ours"]`) || !strings.Contains(log, "theirs") || strings.Contains(log, "hush") {
		t.Error(log)
	}
}
