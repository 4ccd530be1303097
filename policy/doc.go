// Package policy decides whether an attempt to leave may proceed. It parses and
// compiles documents, answers queries and explains the answers. It does no I/O,
// reads no clock and writes no log: its caller brings bytes and time.
//
// # Documents
//
// A document is YAML (so JSON too), and strict: what is not understood is an
// error with its file, line and column, never a rule that quietly means less.
//
//	version: 1
//	mode: enforce                      # or report: denials are let through, marked
//	sources:                           # who is calling; all that one asks for must hold
//	  - {name: payments, cidrs: [10.0.16.0/20]}
//	  - {name: web, ecs: {cluster: prod, service: "web-*"}, principals: [web]}
//	rules:
//	  - name: registries
//	    hosts: ["registry-1.docker.io", "*.pkg.example.com"]
//	    ports: [443]                   # default 443; protocol http: 80
//	    protocol: tls                  # default; http; tcp (anything, ports needed)
//	    sources: [payments]            # default: everybody
//	  - {name: internal, hosts: [api.corp.example], resolves_to: [10.0.0.0/8]}
//	  - {name: partner, cidrs: [203.0.113.0/24]}
//	  - {name: data, s3: {buckets: ["acme-prod-*"], regions: [us-east-1]}}
//	  - {name: hub, preset: docker-hub}
//	  - {name: no-paste, action: deny, hosts: ["**.pastebin.example"]}
//
// # Decisions
//
// A deny rule that matches wins, whatever the order; one that says nothing of
// ports and protocol means all. Else an allow rule that matches allows, and one
// of them governs what the connection must carry and where its name may lead,
// see [Policy.Decide]. Else the answer is no. The zero values refuse.
//
// # Callers
//
// A source asks for cidrs, vpc_endpoints, principals, and of an ECS task for its
// cluster, service, family, revision and tags: patterns of names as ECS writes
// them, case and all, where `*` is any run of characters. What is not known fits
// nothing. unknown_source says what becomes of callers whom nobody knows: deny,
// the default where a source has ecs, or allow. A proven principal is known.
//
// # Host patterns
//
// `*` is any run of characters within a label, `**` is one or more whole
// labels, {a,b} is either. `*.example.com` matches neither example.com nor
// a.b.example.com; `**.example.com` matches the latter. Names are compared in
// the one form that [ParseHost] gives them. A wildcard over names that
// strangers can register, by the Public Suffix List, needs allow_broad: true.
// A decision over 100,000 rules costs about what it costs over ten.
//
// # S3
//
// A host that [ParseS3Host] recognises is decided by s3 rules, or by a host rule
// that spells it without a wildcard; deny rules reach it with wildcards too.
// Bucket names are unique within a partition, which is aws unless the partition
// or regions say otherwise. A host that does not tell its Region fits no allow
// rule with regions. Access points' aliases are access_points, never buckets.
//
// Without inspect: true such a rule is advisory: S3 routes by the Host inside
// TLS. With it the name opens the connection for inspection alone
// ([Decision.Inspect]), also where the path names the bucket, and each request
// ([ParseS3Request]) is decided by its bucket, operation, copy source and signer
// ([Query].S3). What may be read in two ways is refused. Writes other than of
// objects must be listed by name; unsigned requests need anonymous: allow.
//
// # Addresses
//
// The policy judges names; where a name leads is judged when it is dialled, by
// [Decision.CheckAddress]. An address in place of a name matches cidrs rules
// alone, and listing a private range in one permits it. What a deny rule lists
// is denied to names that lead there, too.
//
// # Beside the rules
//
// [Policy.Warnings] tells of rules that change nothing, [Policy.Notes] of what no
// policy can promise, [Policy.Explain] why a query is answered so and which rule
// would change that; [Cases] are unit tests. [Suggest] writes a policy for what
// was [Seen], [Replay] tells what one would change, [Diff] how two differ.
// [Policy.RenderS3Endpoint] is for AWS. [Live] is in force. [Decision.Budgets] are
// counted by who carries bytes.
package policy
