package ecs

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// TestHostileEventsOfOthers: what ECS cannot read makes it refuse all tasks that
// are asked about together. Neither another account's cluster of the same name
// nor a made-up ARN hides a new task so.
func TestHostileEventsOfOthers(t *testing.T) {
	for name, foreign := range map[string]func(event string) string{
		"another account": func(e string) string { return strings.ReplaceAll(e, "111122223333", "444455556666") },
		"another cluster": func(e string) string { return strings.ReplaceAll(e, ":task/prod/", ":task/dev/") },
		"no ID":           func(e string) string { return strings.ReplaceAll(e, ":task/prod/theirs", ":task/prod/") },
		"a path":          func(e string) string { return strings.ReplaceAll(e, ":task/prod/theirs", ":task/prod/a/b") },
		"no name":         func(e string) string { return strings.ReplaceAll(e, ":task/prod/theirs", ":task/a b") },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, withQueue(), crowd(3), func(t *testing.T, d *desk) {
				d.pass(2 * time.Second)
				known := make(map[string]bool)
				for _, c := range crowd(3) {
					known[c.ARN()] = true
				}
				ours := proxytest.ECSTask{ID: "ours", IPv4: "10.55.0.1", Created: born(99)}
				known[ours.ARN()] = true
				d.fake.Fault(failing("ecs:DescribeTasks", func(c proxytest.AWSCall) *proxytest.AWSFault {
					for a := range strings.FieldsSeq(c.Tasks) {
						if !known[a] {
							return &proxytest.AWSFault{Status: http.StatusBadRequest, Code: "InvalidParameterException", Message: "Invalid identifier: " + a}
						}
					}
					return nil
				}))
				elsewhere := proxytest.NewAWS()
				theirs := proxytest.ECSTask{ID: "theirs", Created: born(99)}
				elsewhere.Put(theirs)
				d.fake.Put(ours)
				d.fake.Send(foreign(elsewhere.Event(theirs.ARN())), d.fake.Event(ours.ARN()))
				d.pass(5 * time.Second)
				if s := d.Status(); s.Addresses != 7 || s.Errors != 0 {
					t.Errorf("status: %s, %d errors", s, s.Errors)
				}
			})
		})
	}
}
