package integration

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestRotation: the database's password is changed as Secrets Manager's rotation
// changes it, under a proxy that has it from there. Once its connections have
// ended it writes with the new one, without a restart, and what came between is
// not lost.
func TestRotation(t *testing.T) {
	t.Parallel()
	const name, second = "sallyport/history", "Rotated: /?#@%"
	role, administrator := fleetDatabase(t)
	secrets := &secretsManager{values: map[string]string{name: role("sallyport", fleetPassword)}}
	manager := httptest.NewServer(secrets)
	t.Cleanup(manager.Close)
	_, asks := fakeAWS(t)
	w := newWorld(t)
	w.twoOrigins()
	r := w.serve(twoNames, asks, environ("AWS_ENDPOINT_URL_SECRETS_MANAGER="+manager.URL), setting("history.store", "secretsmanager:"+name))
	visit := func(host string) {
		t.Helper()
		if _, _, err := get(t.Context(), r.client(w), "https://"+host+"/"); err != nil {
			t.Logf("%s: %v", host, err) // it is recorded, whatever became of it
		}
	}
	visit("allowed.example.test")
	r.awaitRun("allowed.example.test", "site", "list")

	r.expectFaults()
	secrets.set(name, role("sallyport", second))
	psql := need(t, "psql")
	run := func(statement string) result {
		t.Helper()
		return command{path: psql, args: []string{"-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", administrator, "-c", statement}}.run(t)
	}
	run("ALTER ROLE sallyport PASSWORD '" + second + "'").succeeds(t)
	run("SELECT 'ended: ' || (count(pg_terminate_backend(pid)) > 0) FROM pg_stat_activity WHERE usename = 'sallyport'").succeeds(t, "ended: true")
	visit("denied.example.test")
	r.awaitLog("user or password has changed")
	r.awaitRun("denied.example.test", "site", "list")
	command{path: binary(t), args: []string{"site", "list", "--store", role("sallyport_reader", readerPassword)}}.run(t).succeeds(t, "allowed.example.test", "denied.example.test")
	for _, password := range []string{fleetPassword, second} {
		escaped := strings.TrimPrefix(url.UserPassword("", password).String(), ":")
		if said := r.said(); strings.Contains(said, password) || strings.Contains(said, escaped) {
			t.Error("a password is in the log")
		}
	}
}
