package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestIdentityDoesNotAllocate covers every way through the index of callers.
func TestIdentityDoesNotAllocate(t *testing.T) {
	p := mustLoad(t, `version: 1
sources:
  - {name: a, ecs: {cluster: prod, service: [api, "pay-*"]}}
  - {name: b, ecs: {family: "*-web", revision: "3-"}}
  - {name: c, ecs: {cluster: "*", tags: {team: "pay*", env: prod}}}
  - {name: d, ecs: {cluster: prod}, cidrs: [10.0.0.0/8]}
  - {name: e, principals: [alice], mode: report}
  - {name: f, vpc_endpoints: [vpce-0a1b2c3d]}
  - {name: g, ecs: {cluster: "p*"}}
  - {name: h, ecs: {service: "*"}}
`+manySources(20)+`rules:
  - {name: r, hosts: [a.example], sources: [a, b, c, d, e, f, g, h, many-0, many-7]}
  - {name: s, hosts: [b.example], sources: [e]}
  - {name: no, action: deny, cidrs: [192.0.2.0/24], sources: [a]}
`)
	for _, caller := range []string{
		"", " from 10.1.1.1", " principal alice", " principal bob", " endpoint vpce-0a1b2c3d", " unidentified true",
		" service prod/api family x-web:4 tag team=payments tag env=prod principal alice from 10.1.1.1",
		" service many/pay-1", " service other/x", " tag team=pay",
	} {
		for _, host := range []string{"a.example:443", "b.example:443", "https://b.example", "no.example:443"} {
			q := ask(t, host+caller)
			if n := testing.AllocsPerRun(100, func() { p.Decide(q).DenyingRule(netip.MustParseAddr("192.0.2.1")) }); n != 0 {
				t.Errorf("%s%s: %v allocations", host, caller, n)
			}
		}
	}
}

// manySources are n sources that a task of the cluster "many" belongs to.
func manySources(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  - {name: many-%d, ecs: {cluster: many}}\n", i)
	}
	return b.String()
}

// TestManyMemberships asks for callers of more sources than a search notes.
func TestManyMemberships(t *testing.T) {
	var rules strings.Builder
	for i := range 20 {
		fmt.Fprintf(&rules, "  - {name: r%d, hosts: [h%d.example], sources: [many-%d]}\n", i, i, i)
	}
	p := mustLoad(t, "version: 1\nsources:\n"+manySources(20)+"rules:\n"+rules.String())
	for i := range 20 {
		target := fmt.Sprintf("h%d.example:443", i)
		if d := p.Decide(ask(t, target+" service many/x")); d.Verdict != Allow || d.Source != "many-0" {
			t.Errorf("%s: %s", target, answer(d))
		}
		if d := p.Decide(ask(t, target+" service few/x")); d.Verdict != Deny {
			t.Errorf("%s from another cluster: %s", target, answer(d))
		}
	}
}

// someSources makes random sources, and callers that meet them. The words are
// few, so that sources and callers do meet.
type someSources struct{ *rand.Rand }

func (r someSources) word(star bool) string {
	alphabet := "abA-"
	if star && r.IntN(2) == 0 {
		alphabet = "ab*"
	}
	for {
		w := randomLabel(r.Rand, alphabet, 2)
		if !strings.Contains(w, "**") {
			return w
		}
	}
}

func (r someSources) words() string {
	all := make([]string, 1+r.IntN(2))
	for i := range all {
		all[i] = fmt.Sprintf("%q", r.word(true))
	}
	if len(all) == 1 && r.IntN(2) == 0 {
		return all[0]
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// conditions makes some of the conditions of a source, at least one.
func (r someSources) conditions() map[string]string {
	all := map[string]string{}
	makers := map[string]func() string{
		"cidrs":         func() string { return [...]string{"[10.0.0.0/8]", "[10.1.0.0/16, 192.0.2.1]"}[r.IntN(2)] },
		"principals":    func() string { return [...]string{"[a]", "[a, b]"}[r.IntN(2)] },
		"vpc_endpoints": func() string { return [...]string{"[vpce-0000000a]", "[vpce-0000000a, vpce-0000000b]"}[r.IntN(2)] },
		"cluster":       r.words, "service": r.words, "family": r.words, "tag": r.words,
		"revision": func() string { return [...]string{"1", `"2-"`, `[1, "2-3"]`}[r.IntN(3)] },
	}
	keys := slices.Sorted(maps.Keys(makers)) // so that a seed means the same each time
	for len(all) == 0 {
		for _, key := range keys {
			if r.IntN(4) == 0 {
				all[key] = makers[key]()
			}
		}
	}
	if all["revision"] != "" && all["family"] == "" {
		all["family"] = r.words()
	}
	return all
}

// sourceLine writes a source of conditions.
func sourceLine(name string, conditions map[string]string) string {
	var line strings.Builder
	line.WriteString("  - {name: " + name)
	var ecs []string
	for _, key := range slices.Sorted(maps.Keys(conditions)) {
		switch value := conditions[key]; key {
		case "cidrs", "principals", "vpc_endpoints":
			line.WriteString(", " + key + ": " + value)
		case "tag":
			ecs = append(ecs, "tags: {t: "+value+"}")
		default:
			ecs = append(ecs, key+": "+value)
		}
	}
	if len(ecs) > 0 {
		line.WriteString(", ecs: {" + strings.Join(ecs, ", ") + "}")
	}
	return line.String() + "}\n"
}

// caller makes a caller of which each part may not be known.
func (r someSources) caller() Source {
	s := Source{Unidentified: r.IntN(4) == 0}
	if r.IntN(3) > 0 {
		s.Addr = netip.MustParseAddr([...]string{"10.0.0.1", "10.1.0.1", "192.0.2.1", "::ffff:10.1.0.1"}[r.IntN(4)])
	}
	if r.IntN(2) == 0 {
		s.Principal = [...]string{"a", "b", "c"}[r.IntN(3)]
	}
	if r.IntN(2) == 0 {
		s.VPCEndpoint = [...]string{"vpce-0000000a", "vpce-0000000b", "vpce-0000000c"}[r.IntN(3)]
	}
	if !s.Unidentified && r.IntN(4) > 0 {
		s.Task = &Task{Cluster: r.word(false), Service: r.word(false), Family: r.word(false), Revision: r.IntN(5)}
		if r.IntN(4) == 0 {
			s.Task.Service = ""
		}
		if r.IntN(3) > 0 {
			s.Task.Tags = map[string]string{"t": r.word(false), "u": "x"}
		}
	}
	return s
}

// belongs is the oracle of sources: it reads the conditions as they are
// written, knows no index and matches by recursion.
func belongs(conditions map[string]string, s Source) bool {
	list := func(text string) []string {
		return strings.Split(strings.NewReplacer("[", "", "]", "", `"`, "", " ", "").Replace(text), ",")
	}
	fitsAny := func(text, name string) bool {
		return slices.ContainsFunc(list(text), func(p string) bool { return fitsText(p, name) })
	}
	for key, text := range conditions {
		ok := false
		switch key {
		case "cidrs":
			for _, c := range list(text) {
				if !strings.Contains(c, "/") {
					c += "/32"
				}
				ok = ok || netip.MustParsePrefix(c).Contains(s.Addr.Unmap())
			}
		case "principals":
			ok = slices.Contains(list(text), s.Principal)
		case "vpc_endpoints":
			ok = slices.Contains(list(text), s.VPCEndpoint)
		default:
			ok = s.Task != nil && belongsTask(key, text, s.Task, list, fitsAny)
		}
		if !ok {
			return false
		}
	}
	return true
}

func belongsTask(key, text string, t *Task, list func(string) []string, fitsAny func(string, string) bool) bool {
	switch key {
	case "cluster":
		return t.Cluster != "" && fitsAny(text, t.Cluster)
	case "service":
		return t.Service != "" && fitsAny(text, t.Service)
	case "family":
		return t.Family != "" && fitsAny(text, t.Family)
	case "tag":
		v, ok := t.Tags["t"]
		return ok && fitsAny(text, v)
	}
	for _, r := range list(text) { // revision
		var low, high int
		switch n, _ := fmt.Sscanf(r, "%d-%d", &low, &high); {
		case n == 1 && strings.HasSuffix(r, "-"):
			high = 1 << 30
		case n == 1:
			high = low
		}
		if low <= t.Revision && t.Revision <= high {
			return true
		}
	}
	return false
}

// TestSourcesAgree compares membership with the oracle, through the index and
// the rules, over random sources and callers. Its second half is a property: a
// condition more never allows more, where the sources are those of allow rules
// and state no mode. (A deny rule for a narrower source denies less.)
func TestSourcesAgree(t *testing.T) {
	r := someSources{rand.New(rand.NewPCG(7, 8))}
	hits, narrowed := 0, 0
	for range 300 {
		count := 1 + r.IntN(12)
		wide := make([]map[string]string, count)
		narrow := make([]map[string]string, count)
		texts := [2]string{}
		var rules strings.Builder
		rules.WriteString("rules:\n  - {name: all, hosts: [all.example]}\n")
		for i := range count {
			wide[i] = r.conditions()
			narrow[i] = r.conditions()
			maps.Copy(narrow[i], wide[i])
			name := fmt.Sprintf("s%d", i)
			texts[0] += sourceLine(name, wide[i])
			texts[1] += sourceLine(name, narrow[i])
			fmt.Fprintf(&rules, "  - {name: r%d, hosts: [h%d.example], sources: [%s]}\n", i, i, name)
		}
		p := mustLoad(t, "version: 1\nsources:\n"+texts[0]+rules.String())
		q := mustLoad(t, "version: 1\nsources:\n"+texts[1]+rules.String())
		for range 30 {
			s := r.caller()
			first := ""
			for i := range count {
				name := fmt.Sprintf("s%d", i)
				is := belongs(wide[i], s)
				if is && first == "" {
					first = name
				}
				query := ask(t, fmt.Sprintf("h%d.example:443", i))
				query.Source = s
				d := p.Decide(query)
				if want := is && d.Reason != ReasonUnknownSource; (d.Verdict == Allow) != want {
					t.Fatalf("%+v %+v: %s, the oracle says %t of %s\n%s", s, s.Task, answer(d), is, name, texts[0])
				}
				e := q.Decide(query)
				if d.Verdict == Deny && e.Verdict == Allow {
					t.Fatalf("%+v %+v: %s, with more conditions %s\n%s%s", s, s.Task, answer(d), answer(e), texts[0], texts[1])
				}
				if is {
					hits++
				}
				if d.Verdict != e.Verdict {
					narrowed++
				}
				checkProof(t, p, query, d)
			}
			query := ask(t, "all.example:443")
			query.Source = s
			if d := p.Decide(query); d.Source != first {
				t.Fatalf("%+v %+v: the source is %q, the oracle says %q\n%s", s, s.Task, d.Source, first, texts[0])
			} else if d.Verdict == Deny && q.Decide(query).Verdict == Allow {
				t.Fatalf("%+v: more conditions let a stranger pass", s)
			}
		}
	}
	if hits < 2000 || narrowed < 500 {
		t.Errorf("%d callers belonged, %d answers were narrowed: they do not meet", hits, narrowed)
	}
}

// checkProof holds the reason credentials to its meaning: some principal would
// be allowed, and where another reason is given, none. (Proving whatever
// principal makes a stranger known, which nobody is asked to do.)
func checkProof(t *testing.T, p *Policy, q Query, d Decision) {
	t.Helper()
	if d.Verdict == Allow || q.Source.Principal != "" {
		return
	}
	helps := false
	for _, name := range []string{"a", "b"} {
		proven := q
		proven.Source.Principal = name
		helps = helps || p.Decide(proven).Verdict == Allow
	}
	if helps != (d.Reason == ReasonCredentials) && (!helps || d.Reason != ReasonUnknownSource) {
		t.Fatalf("%+v: %s, but credentials help: %t", q.Source, answer(d), helps)
	}
	q.Via = ViaTLS
	if raw := p.Decide(q); raw.Reason == ReasonCredentials {
		t.Fatalf("%+v: raw TLS is asked for credentials", q.Source)
	}
}

// FuzzCaller parses a policy's pattern and a caller's words. What parses
// matches as the oracle says, survives explaining, and decides the same again.
func FuzzCaller(f *testing.F) {
	for _, seed := range [][4]string{
		{"payments-*", "prod/payments-api", "web:7", "alice"},
		{"*", "prod/", "web", ""},
		{"{a,b}*", "prod/b", "w:0", "a b"},
		{"p\u0430yments", "prod/p\u0430yments", "w:99999999999", "\u0430lice"},
		{"[a-z]*", "prod/[a-z]*", "w:7:7", "*"},
		{"a*b*c", "prod/a*", ":7", "x\x00y"},
		{"**", "a/b/c", "7", strings.Repeat("p", 300)},
		{strings.Repeat("a", 255), "prod/" + strings.Repeat("a", 255), "", ""},
		{strings.Repeat("a*", 2), "prod/" + strings.Repeat("a", 256), "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	host, err := ParseHost("a.example")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, pattern, service, family, principal string) {
		s, err := ParseCaller(CallerText{Addr: "10.0.0.1", Service: service, Family: family, Principal: principal, Tags: map[string]string{"t": "v"}})
		if err != nil {
			return
		}
		all, perr := parseNamePattern(pattern, "service")
		if perr != nil && (perr.message == "" || perr.offset < 0 || perr.offset > len(pattern)) {
			t.Fatalf("parseNamePattern(%q) = %+v", pattern, perr)
		}
		p, err := Load(Text{"p.yaml", fmt.Appendf(nil, "version: 1\nsources: [{name: s, ecs: {service: %q}}]\nrules: [{name: r, hosts: [a.example], sources: [s]}]\n", pattern)})
		if (err == nil) != (perr == nil) && strings.TrimSpace(pattern) != "" && isText(pattern) {
			t.Fatalf("%q: %v, but in a document %v", pattern, perr, err)
		}
		if err != nil {
			return
		}
		q := Query{Source: s, Via: ViaConnect, Host: host, Port: 443}
		want := s.Task.Service != "" && slices.ContainsFunc(all, func(one string) bool { return fitsText(one, s.Task.Service) })
		if d := p.Decide(q); (d.Verdict == Allow) != want {
			t.Fatalf("pattern %q, service %q: %s, the oracle says %t", pattern, s.Task.Service, answer(d), want)
		}
		if e := p.Explain(q); len(e.Steps) == 0 {
			t.Fatal("no steps")
		} else if _, err := e.MarshalJSON(); err != nil {
			t.Fatal(err)
		}
	})
}

// isText reports whether Go's quotes and YAML's agree on s.
func isText(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// TestHostileTasks decides about tasks such as ECS never has: whatever they are
// called, nothing fits that is not listed.
func TestHostileTasks(t *testing.T) {
	p := mustLoad(t, `version: 1
sources:
  - {name: any-service, ecs: {cluster: prod, service: "*"}}
  - {name: pay, ecs: {service: "*pay*"}}
  - {name: tagged, ecs: {tags: {team: "*"}}}
  - {name: two, ecs: {family: "a*b*c"}}
rules:
  - {name: any, hosts: [any.example], sources: [any-service]}
  - {name: pay, hosts: [pay.example], sources: [pay]}
  - {name: tagged, hosts: [tag.example], sources: [tagged]}
  - {name: two, hosts: [two.example], sources: [two]}
`)
	long := strings.Repeat("a", 1<<20)
	tags := map[string]string{}
	for i := range 10_000 {
		tags[fmt.Sprintf("team%d", i)] = long
	}
	for _, tt := range []struct {
		name, host string
		task       *Task
		want       Verdict
	}{
		{"no task", "any", nil, Deny},
		{"an empty task", "any", &Task{}, Deny},
		{"no service", "any", &Task{Cluster: "prod"}, Deny},
		{"no cluster", "any", &Task{Service: "x"}, Deny},
		{"a service", "any", &Task{Cluster: "prod", Service: "x"}, Allow},
		{"the cluster's ARN", "any", &Task{Cluster: "arn:aws:ecs:us-east-1:111122223333:cluster/prod", Service: "x"}, Deny},
		{"a look-alike cluster", "any", &Task{Cluster: "prоd", Service: "x"}, Deny},
		{"another case", "any", &Task{Cluster: "Prod", Service: "x"}, Deny},
		{"a NUL behind", "any", &Task{Cluster: "prod\x00", Service: "x"}, Deny},
		{"a pattern as name", "any", &Task{Cluster: "*", Service: "*"}, Deny},
		{"the longest service", "any", &Task{Cluster: "prod", Service: long[:255]}, Allow},
		{"a very long service", "any", &Task{Cluster: "prod", Service: long}, Deny},
		{"not UTF-8", "pay", &Task{Service: "\xff\xfepay\xff"}, Allow}, // * is any run, whatever it holds
		{"not quite", "pay", &Task{Service: "p\xffay"}, Deny},
		{"two lines", "pay", &Task{Service: "x\npay\ny"}, Allow},
		{"an empty tag", "tag", &Task{Tags: map[string]string{"team": ""}}, Allow},
		{"a look-alike tag", "tag", &Task{Tags: map[string]string{"tеam": "x"}}, Deny},
		{"another case of tag", "tag", &Task{Tags: map[string]string{"Team": "x"}}, Deny},
		{"a very long tag", "tag", &Task{Tags: map[string]string{"team": long}}, Deny},
		{"many tags", "tag", &Task{Tags: tags}, Deny},
		{"backtracking", "two", &Task{Family: strings.Repeat("ab", 127)}, Deny},
		{"and far too long for it", "two", &Task{Family: strings.Repeat("ab", 1<<19) + "c"}, Deny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := ask(t, tt.host+".example:443")
			q.Source.Task = tt.task
			if d := p.Decide(q); d.Verdict != tt.want {
				t.Errorf("%s", answer(d))
			}
			if e := p.Explain(q); e.Decision.Verdict != tt.want {
				t.Errorf("explained: %s", answer(e.Decision))
			}
		})
	}
	for _, text := range []CallerText{
		{Service: "prod/" + long},
		{Service: long + "/x"},
		{Family: long},
		{Principal: long},
		{VPCEndpoint: "vpce-" + long},
		{Tags: map[string]string{long: "x"}},
		{Tags: map[string]string{"x": long}},
		{Tags: map[string]string{"": "x"}},
		{Service: "a/b/c"},
		{Service: "/b"},
		{Family: ":7"},
		{Family: "web:99999999999999999999"},
		{Addr: "fe80::1%eth0"},
		{Family: "web", Unidentified: true},
	} {
		if s, err := ParseCaller(text); err == nil {
			t.Errorf("%.40v is taken for %.80v", text, s)
		}
	}
}

// TestTaskARNs reads the parts of a task's ARN, of both forms.
func TestTaskARNs(t *testing.T) {
	for _, tt := range []struct{ arn, cluster, id, clusterARN string }{
		{"arn:aws:ecs:us-east-1:111122223333:task/prod/0f1e", "prod", "0f1e", "arn:aws:ecs:us-east-1:111122223333:cluster/prod"},
		{"arn:aws-cn:ecs:cn-north-1:111122223333:task/0f1e", "prod", "0f1e", "arn:aws-cn:ecs:cn-north-1:111122223333:cluster/prod"},
		{"arn:aws:ecs:us-east-1:111122223333:task/0f1e", "", "0f1e", ""},
		{"", "prod", "", ""},
		{"0f1e", "prod", "", ""},
		{"arn:aws:ecs:task/x", "prod", "x", ""},
	} {
		task := &Task{ARN: tt.arn, Cluster: tt.cluster}
		if task.ID() != tt.id || task.ClusterARN() != tt.clusterARN {
			t.Errorf("%s: %q, %q", tt.arn, task.ID(), task.ClusterARN())
		}
	}
}

// TestUnknownMerges: of two words on unknown_source deny wins, whichever
// document says it, and one word is enough against the default.
func TestUnknownMerges(t *testing.T) {
	const rules = "version: 1\nsources: [{name: s, ecs: {service: a}}]\nrules: [{name: r, hosts: [a.example]}]\n"
	for _, tt := range []struct {
		words []string
		want  Reason
	}{
		{nil, ReasonUnknownSource},
		{[]string{"allow"}, ReasonRule},
		{[]string{"deny"}, ReasonUnknownSource},
		{[]string{"allow", "deny"}, ReasonUnknownSource},
		{[]string{"deny", "allow"}, ReasonUnknownSource},
		{[]string{"allow", "allow"}, ReasonRule},
	} {
		documents := []Text{{"rules.yaml", []byte(rules)}}
		for i, word := range tt.words {
			documents = append(documents, Text{fmt.Sprintf("%d.yaml", i), []byte("version: 1\nunknown_source: " + word + "\n")})
		}
		p, err := Load(documents...)
		if err != nil {
			t.Fatal(detail(err))
		}
		if d := p.Decide(ask(t, "a.example:443 unidentified true")); d.Reason != tt.want {
			t.Errorf("%v: %s, want %s", tt.words, answer(d), tt.want)
		}
		if notes := len(p.Notes()); (notes > 0) != (tt.words == nil) {
			t.Errorf("%v: %d notes", tt.words, notes)
		}
	}
}

// TestInspectedCallers: a request is decided for the task behind its
// connection, a copy's source too, and nobody is asked for credentials there.
func TestInspectedCallers(t *testing.T) {
	p := mustLoad(t, `version: 1
sources:
  - {name: writer, ecs: {service: writer}}
  - {name: holder, principals: [alice]}
rules:
  - {name: to, s3: {buckets: [target], inspect: true, operations: [PutObject, CopyObject]}}
  - {name: from, s3: {buckets: [origin], inspect: true, operations: [GetObject]}, sources: [writer]}
  - {name: held, s3: {buckets: [held], inspect: true, operations: [GetObject]}, sources: [holder]}
`)
	headers := map[string][]string{
		"Authorization":     {"AWS4-HMAC-SHA256 Credential=ASIAQNZGKIQY56JQ7WML/20261101/us-west-2/s3/aws4_request, Signature=a"},
		"X-Amz-Copy-Source": {"/origin/k"},
	}
	for _, tt := range []struct{ method, url, caller, want string }{
		{"PUT", "https://target.s3.us-west-2.amazonaws.com/k", " service prod/writer", "allow rule to tls source=writer"},
		{"PUT", "https://target.s3.us-west-2.amazonaws.com/k", " service prod/reader", "deny s3_bucket"},
		{"PUT", "https://target.s3.us-west-2.amazonaws.com/k", " unidentified true", "deny unknown_source"},
		{"GET", "https://held.s3.us-west-2.amazonaws.com/k", " service prod/writer", "deny credentials source=writer"},
		{"GET", "https://held.s3.us-west-2.amazonaws.com/k", " principal alice", "allow rule held tls source=holder"},
		// The name of one bucket opens the connection, the request asks for another.
		{"GET", "https://s3.us-west-2.amazonaws.com/held/k", " service prod/writer", "deny s3_bucket source=writer"},
	} {
		h := headers
		if tt.method == "GET" {
			h = map[string][]string{"Authorization": headers["Authorization"]}
		}
		site, request, err := ParseRequest(tt.method, tt.url, h)
		if err != nil {
			t.Fatal(err)
		}
		q := ask(t, site+tt.caller)
		q.Via, q.Protocol = ViaConnect, ProtocolUnknown
		e := p.ExplainRequest(q, request)
		if got := answer(e.Decision); got != tt.want {
			t.Errorf("%s %s%s: %s, want %s", tt.method, tt.url, tt.caller, got, tt.want)
		}
	}
}
