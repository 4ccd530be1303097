package policy

import (
	"fmt"
	"strings"
	"testing"
)

// manySourceRules is a policy of n sources by condition, and a rule for each.
func manySourceRules(n int, condition func(i int) string) Text {
	var b strings.Builder
	b.WriteString("version: 1\n")
	if n > 0 {
		b.WriteString("sources:\n")
	}
	for i := range n {
		fmt.Fprintf(&b, "  - {name: s%d, %s}\n", i, condition(i))
	}
	b.WriteString("rules:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: r%d, hosts: [h%d.example.com, all.example.com], sources: [s%d]}\n", i, i, i)
	}
	b.WriteString("  - {name: everybody, hosts: [free.example.com]}\n")
	return Text{"policy.yaml", []byte(b.String())}
}

// BenchmarkDecideAddress decides about callers that are known by address
// alone.
func BenchmarkDecideAddress(b *testing.B) {
	for _, n := range []int{0, 1, 10, 1000} {
		p, err := Load(manySourceRules(n, func(i int) string { return fmt.Sprintf("cidrs: [10.%d.%d.0/24]", i>>8, i&255) }))
		if err != nil {
			b.Fatal(err)
		}
		for _, target := range []string{"h0.example.com", "free.example.com", "miss.example.com"} {
			q := ask(b, target+":443 from 10.0.0.7")
			b.Run(fmt.Sprintf("sources=%d/%s", n, strings.TrimSuffix(target, ".example.com")), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p.Decide(q)
				}
			})
		}
	}
}

// BenchmarkDecideTask decides about 50,000 tasks by sources that name
// services, families, tags, or nothing but globs.
func BenchmarkDecideTask(b *testing.B) {
	tasks := make([]*Task, 50_000)
	for i := range tasks {
		tasks[i] = &Task{
			ARN:     fmt.Sprintf("arn:aws:ecs:us-east-1:111122223333:task/prod/%032x", i),
			Cluster: "prod", Service: fmt.Sprintf("service-%d", i%1000), Family: fmt.Sprintf("family-%d", i%1000), Revision: i,
			Tags: map[string]string{"team": fmt.Sprintf("team-%d", i%1000), "env": "prod"},
		}
	}
	for _, kind := range []struct {
		name      string
		condition func(i int) string
	}{
		{"service", func(i int) string { return fmt.Sprintf("ecs: {cluster: prod, service: service-%d}", i) }},
		{"family", func(i int) string { return fmt.Sprintf(`ecs: {family: family-%d, revision: "1-"}`, i) }},
		{"tag", func(i int) string { return fmt.Sprintf("ecs: {tags: {team: team-%d}}", i) }},
		{"head", func(i int) string { return fmt.Sprintf(`ecs: {cluster: prod, service: "service-%d*"}`, i) }},
		{"tail", func(i int) string { return fmt.Sprintf(`ecs: {cluster: prod, service: "*e-%d"}`, i) }},
		{"and-address", func(i int) string {
			return fmt.Sprintf("ecs: {cluster: prod, service: service-%d}, cidrs: [10.0.0.0/8]", i)
		}},
	} {
		for _, n := range []int{1, 10, 1000} {
			p, err := Load(manySourceRules(n, kind.condition))
			if err != nil {
				b.Fatal(err)
			}
			q := ask(b, "h0.example.com:443 from 10.0.0.7")
			b.Run(fmt.Sprintf("%s/sources=%d", kind.name, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					q.Source.Task = tasks[i%len(tasks)]
					p.Decide(q)
					i++
				}
			})
		}
	}
}
