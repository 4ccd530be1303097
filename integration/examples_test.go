package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestExamplePolicies: every example is good, has unit tests, and passes them.
func TestExamplePolicies(t *testing.T) {
	dir := filepath.Join(root(t), "examples", "policies")
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no example policy: %v", err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".test.yaml") {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			sallyport(t, nil, "policy", "check", "--strict", file)
			cases := strings.TrimSuffix(file, ".yaml") + ".test.yaml"
			if _, err := os.Stat(cases); err != nil {
				t.Fatalf("the example has no unit tests: %v", err)
			}
			sallyport(t, nil, "policy", "test", cases)
		})
	}
}

// taskDefinition is what the tests below read of one.
type taskDefinition struct {
	ContainerDefinitions []container `json:"containerDefinitions"`
	ProxyConfiguration   struct {
		ContainerName string              `json:"containerName"`
		Properties    []map[string]string `json:"properties"`
	} `json:"proxyConfiguration"`
}

type container struct {
	Name                   string              `json:"name"`
	Essential              bool                `json:"essential"`
	User                   string              `json:"user"`
	ReadonlyRootFilesystem bool                `json:"readonlyRootFilesystem"`
	Environment            []map[string]string `json:"environment"`
	StopTimeout            int                 `json:"stopTimeout"`
	HealthCheck            struct {
		Command []string `json:"command"`
	} `json:"healthCheck"`
	LinuxParameters struct {
		Capabilities struct {
			Drop []string `json:"drop"`
		} `json:"capabilities"`
	} `json:"linuxParameters"`
	DependsOn []struct {
		ContainerName string `json:"containerName"`
		Condition     string `json:"condition"`
	} `json:"dependsOn"`
}

// variable returns the value of one of the container's variables.
func (c container) variable(name string) string {
	for _, v := range c.Environment {
		if v["name"] == name {
			return v["value"]
		}
	}
	return ""
}

func TestExplicitSidecar(t *testing.T) {
	dir := filepath.Join(root(t), "examples", "ecs")
	text, err := os.ReadFile(filepath.Join(dir, "explicit-sidecar.json"))
	if err != nil {
		t.Fatal(err)
	}
	var task taskDefinition
	if err := json.Unmarshal(text, &task); err != nil {
		t.Fatal(err)
	}
	if len(task.ContainerDefinitions) != 2 {
		t.Fatalf("the task has %d containers, want the application and the proxy", len(task.ContainerDefinitions))
	}
	app, proxy := task.ContainerDefinitions[0], task.ContainerDefinitions[1]

	t.Run("policy", func(t *testing.T) {
		const file = "explicit-sidecar.policy.yaml"
		want, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if proxy.variable("SALLYPORT_POLICY") != string(want) {
			t.Errorf("SALLYPORT_POLICY is not the text of %s", file)
		}
		sallyport(t, nil, "policy", "check", "--strict", filepath.Join(dir, file))
	})
	t.Run("configuration", func(t *testing.T) {
		var env []string
		for _, v := range proxy.Environment {
			env = append(env, v["name"]+"="+v["value"])
		}
		effective := sallyport(t, env, "config")
		if !strings.Contains(effective, "127.0.0.1:3128") {
			t.Errorf("sallyport config, with the container's environment, does not listen on 127.0.0.1:3128:\n%s", effective)
		}
	})
	t.Run("proxy variables", func(t *testing.T) {
		var want []map[string]string
		if err := json.Unmarshal([]byte(sallyport(t, nil, "env", "--format", "task-definition")), &want); err != nil {
			t.Fatal(err)
		}
		for _, v := range want {
			if got := app.variable(v["name"]); got != v["value"] {
				t.Errorf("the application has %s=%q, sallyport env says %q", v["name"], got, v["value"])
			}
		}
		if len(want) != len(app.Environment) {
			t.Errorf("the application has %d variables, sallyport env prints %d", len(app.Environment), len(want))
		}
	})
	t.Run("life", func(t *testing.T) {
		if len(app.DependsOn) != 1 || app.DependsOn[0].ContainerName != proxy.Name || app.DependsOn[0].Condition != "HEALTHY" {
			t.Errorf("the application depends on %v, want the proxy to be HEALTHY", app.DependsOn)
		}
		if want := []string{"CMD", "/sallyport", "ready"}; !slices.Equal(proxy.HealthCheck.Command, want) {
			t.Errorf("the health check is %q, want %q", proxy.HealthCheck.Command, want)
		}
		if !proxy.Essential || !proxy.ReadonlyRootFilesystem || proxy.User != "65532:65532" {
			t.Error("the proxy is not essential, its root can be written to, or its user is not the image's")
		}
		if proxy.StopTimeout <= 25 {
			t.Errorf("stopTimeout is %d s, not above timeouts.drain", proxy.StopTimeout)
		}
	})
}

// TestTransparentSidecar holds the task whose traffic the platform redirects to
// what TestSidecar shows to work.
func TestTransparentSidecar(t *testing.T) {
	dir := filepath.Join(root(t), "examples", "ecs")
	text, err := os.ReadFile(filepath.Join(dir, "transparent-sidecar.json"))
	if err != nil {
		t.Fatal(err)
	}
	var task taskDefinition
	if err := json.Unmarshal(text, &task); err != nil {
		t.Fatal(err)
	}
	app, proxy := task.ContainerDefinitions[0], task.ContainerDefinitions[1]
	const policyFile = "transparent-sidecar.policy.yaml"
	want, err := os.ReadFile(filepath.Join(dir, policyFile))
	if err != nil || proxy.variable("SALLYPORT_POLICY") != string(want) {
		t.Errorf("SALLYPORT_POLICY is not the text of %s: %v", policyFile, err)
	}
	sallyport(t, nil, "policy", "check", "--strict", filepath.Join(dir, policyFile))
	var env []string
	for _, v := range proxy.Environment {
		env = append(env, v["name"]+"="+v["value"])
	}
	if effective := sallyport(t, env, "config"); !strings.Contains(effective, "listeners: [{address: '127.0.0.1:15001', original_destination: redirect}]") {
		t.Errorf("the listener is another:\n%s", effective)
	}
	properties := map[string]string{}
	for _, p := range task.ProxyConfiguration.Properties {
		properties[p["name"]] = p["value"]
	}
	rules := strings.Join(meshRules(properties["EgressIgnoredIPs"]), "\n")
	for name, rule := range map[string]string{
		"IgnoredUID": "--uid-owner %s -j RETURN", "ProxyEgressPort": "-A APPMESH_EGRESS -p tcp -j REDIRECT --to %s",
		"ProxyIngressPort": "-j REDIRECT --to-port %s", "AppPorts": "--dports %s -j REDIRECT",
	} {
		if properties[name] == "" || !strings.Contains(rules, strings.ReplaceAll(rule, "%s", properties[name])) {
			t.Errorf("%s is %q, and TestSidecar's is another", name, properties[name])
		}
	}
	if uid := properties["IgnoredUID"]; task.ProxyConfiguration.ContainerName != proxy.Name || proxy.User != uid+":"+uid {
		t.Errorf("the platform leaves uid %s alone, and the proxy's user is %s", uid, proxy.User)
	}
	for _, ip := range []string{"169.254.170.2", "169.254.169.254"} {
		if !strings.Contains(properties["EgressIgnoredIPs"], ip) {
			t.Errorf("%s, which the proxy lets nobody reach, is redirected", ip)
		}
	}
	if drop := app.LinuxParameters.Capabilities.Drop; app.User != "1000:1000" || !slices.Equal(drop, []string{"ALL"}) || len(app.Environment) > 0 {
		t.Errorf("the application is %s, drops %v, has %v", app.User, drop, app.Environment)
	}
}

// TestTaskDefinitionsByAWSModel holds the examples against the API's own
// model, as the AWS command line does before it sends anything.
func TestTaskDefinitionsByAWSModel(t *testing.T) {
	const validate = `
import json, sys
import botocore.session, botocore.validate
model = botocore.session.Session().get_service_model("ecs").operation_model("RegisterTaskDefinition").input_shape
for path in sys.argv[1:]:
    report = botocore.validate.ParamValidator().validate(json.load(open(path)), model)
    if report.has_errors():
        sys.exit(path + ": " + report.generate_report())
`
	// Debian's own interpreter: another that comes first on PATH has none of
	// Debian's modules.
	const python = "/usr/bin/python3"
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import botocore").CombinedOutput(); err != nil {
		t.Skipf("needs python3-botocore: %v: %s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(root(t), "examples", "ecs", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no task definition: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), python, append([]string{"-c", validate}, files...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestQuickstart runs README's first command, and reads what a person reads.
func TestQuickstart(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(root(t), "examples", "quickstart.sh"))
	cmd.Dir = t.TempDir() // from anywhere
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &stdout, &stderr)
	}
	lines := strings.Split(stdout.String(), "\n")
	for _, want := range []string{"hello from hello.example.test", "HTTP/1.1 403 Forbidden", "deny_rule", "no_rule"} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, want) }) {
			t.Errorf("the script does not show %q", want)
		}
	}
	names := make(map[string]int)
	for _, l := range lines {
		if !strings.HasPrefix(l, "{") {
			continue
		}
		var record struct {
			Event struct {
				Name string `json:"name"`
			} `json:"event"`
		}
		if err := json.Unmarshal([]byte(l), &record); err != nil {
			t.Errorf("a record is not JSON: %v: %s", err, l)
		}
		names[record.Event.Name]++
	}
	if names["flow.open"] != 1 || names["flow.close"] != 1 || names["flow.deny"] != 2 {
		t.Errorf("the script shows records %v, want one open, one close, two denials", names)
	}
	if t.Failed() {
		t.Logf("%s\n%s", &stdout, &stderr)
	}
}

// sallyport runs the built program and returns its standard output. Its
// environment is env and nothing else of ours.
func sallyport(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary(t), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		t.Fatalf("sallyport %s: %v\n%s%s", strings.Join(args, " "), err, &stderr, out)
	} else if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
