package policy_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// A policy is loaded, and asked.
func Example() {
	p, err := policy.Load(policy.Text{Name: "policy.yaml", Data: []byte(`
version: 1
rules:
  - name: registries
    hosts: ["registry-1.docker.io", "*.pkg.example.com"]
  - name: no-uploads
    action: deny
    hosts: ["upload.pkg.example.com"]
`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, target := range []string{
		"https://registry-1.docker.io/v2/",
		"https://upload.pkg.example.com",
		"https://docker.io.evil.example",
	} {
		via, host, port, protocol, err := policy.ParseTarget(target)
		if err != nil {
			fmt.Println(err)
			return
		}
		d := p.Decide(policy.Query{Via: via, Host: host, Port: port, Protocol: protocol, At: time.Now()})
		fmt.Println(host, d.Verdict, d.Reason, d.RuleName())
	}
	// Output:
	// registry-1.docker.io allow rule registries
	// upload.pkg.example.com deny deny_rule no-uploads
	// docker.io.evil.example deny no_rule
}

// What is wrong with a document is told with its place and the remedy.
func ExampleErrors_Detail() {
	_, err := policy.Load(policy.Text{Name: "policy.yaml", Data: []byte(`version: 1
rules:
  - name: storage
    hosts: ["*.s3.amazonaws.com"]
    port: [443]
`)})
	if all, ok := errors.AsType[policy.Errors](err); ok {
		fmt.Println(all.Detail())
	}
	// Output:
	// policy.yaml:4:13: "*.s3.amazonaws.com" spans names that strangers can register: those below the public suffix "s3.amazonaws.com"
	//       hosts: ["*.s3.amazonaws.com"]
	//               ^
	//   hint: list the buckets instead: s3: {buckets: [NAME]}
	// policy.yaml:5:5: unknown key "port" in a rule
	//       port: [443]
	//       ^
	//   hint: did you mean "ports"?
}

// An explanation says what was looked at, and which rule would help.
func ExamplePolicy_Explain() {
	p, err := policy.Load(policy.Text{Name: "policy.yaml", Data: []byte(`version: 1
rules:
  - {name: data, s3: {buckets: ["acme-prod-*"], regions: [us-east-1]}}
`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	via, host, port, protocol, _ := policy.ParseTarget("https://acme-prod-logs.s3.eu-west-1.amazonaws.com")
	fmt.Print(p.Explain(policy.Query{Via: via, Host: host, Port: port, Protocol: protocol}))
	// Output:
	// deny acme-prod-logs.s3.eu-west-1.amazonaws.com:443: s3_bucket
	//   - the host is S3's (virtual_hosted): bucket acme-prod-logs, Region eu-west-1, partition aws
	//   - rule "data" (policy.yaml:3:5) allows the bucket in us-east-1, not in eu-west-1
	//   - denied: s3_bucket
	// this rule would allow it:
	//   - name: acme-prod-logs
	//     s3: {buckets: ["acme-prod-logs"], regions: [eu-west-1]}
}
