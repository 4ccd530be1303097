package ecs

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

func TestThousandsOfTasks(t *testing.T) {
	const n = 5000
	in(t, Config{}, crowd(n), func(t *testing.T, d *desk) {
		d.pass(30 * time.Second)
		if s := d.Status(); s.Tasks != n || s.Addresses != 2*n || !s.Loaded || s.Errors != 0 {
			t.Fatalf("status: %s, %d addresses, %d errors", s, s.Addresses, s.Errors)
		}
		for _, i := range []int{0, 1, 99, 100, 101, 2500, n - 1} {
			want := &policy.Task{
				ARN: crowd(n)[i].ARN(), Cluster: "prod", Service: crowd(n)[i].Service, Family: crowd(n)[i].Family,
				Revision: i%5 + 1, Tags: crowd(n)[i].Tags,
			}
			for _, addr := range []string{crowd(n)[i].IPv4, crowd(n)[i].IPv6, "::ffff:" + crowd(n)[i].IPv4} {
				source := policy.Source{Addr: netip.MustParseAddr(addr), Principal: "p"}
				got := d.Identify(t.Context(), source)
				if diff := cmp.Diff(want, got.Task); diff != "" || got.Unidentified || got.Principal != "p" || got.Addr != source.Addr {
					t.Errorf("%s: %s, %+v", addr, diff, got)
				}
			}
		}
		if l, desc := d.calls("ecs:ListTasks"), d.calls("ecs:DescribeTasks"); l != 100 && l != 50 || desc != 50 {
			t.Errorf("%d listings' pages and %d descriptions, want 50 (or, polled twice, 100) and 50", l, desc)
		}
		// Tags change without anything else: they are known some minutes later.
		d.fake.Change(crowd(1)[0].ARN(), func(t *proxytest.ECSTask) { t.Tags = map[string]string{"team": "new"}; t.Version-- })
		d.pass(8 * time.Minute)
		if got := d.Identify(t.Context(), policy.Source{Addr: crowdAddr(0)}); got.Task.Tags["team"] != "new" {
			t.Errorf("tags are %v", got.Task.Tags)
		}
		if s := d.Status(); s.Lookups.Hit != 22 || s.Lookups.Unknown+s.Lookups.Unanswered+s.Lookups.Absent+s.Lookups.Found != 0 {
			t.Errorf("lookups: %+v", s.Lookups)
		}
	})
}

func TestPollsWithJitter(t *testing.T) {
	in(t, Config{Poll: 20 * time.Second}, crowd(3), func(t *testing.T, d *desk) {
		d.pass(10 * time.Minute)
		calls := d.fake.Calls("ecs:ListTasks")
		gaps := make(map[time.Duration]bool)
		for i := range len(calls) - 1 {
			gap := calls[i+1].At.Sub(calls[i].At)
			gaps[gap] = true
			if gap < 15*time.Second || gap > 25*time.Second+time.Millisecond {
				t.Errorf("polled after %s", gap)
			}
		}
		if len(gaps) < 10 {
			t.Errorf("%d polls with %d gaps", len(calls), len(gaps))
		}
		// Nothing changed: 3 tasks were described at first and once in 5 minutes.
		if n := d.calls("ecs:DescribeTasks"); n > 3 {
			t.Errorf("described %d times", n)
		}
	})
}

func TestAMissIsAskedOnce(t *testing.T) {
	in(t, Config{}, crowd(250), func(t *testing.T, d *desk) {
		before := d.calls("")
		late := proxytest.ECSTask{ID: "late", IPv4: "10.9.9.9", Created: born(9999)}
		d.pass(2 * time.Second) // the first listing allows the next one
		d.fake.Put(late)
		var asking sync.WaitGroup
		for range 500 {
			asking.Go(func() { d.expect("10.9.9.9", "late") })
		}
		asking.Wait()
		if n := d.calls("") - before; n != 4 {
			t.Errorf("%d calls, want three pages and one description", n)
		}
		if s := d.Status(); s.Lookups.Found == 0 || s.Lookups.Found+s.Lookups.Hit != 500 {
			t.Errorf("lookups: %+v", s.Lookups)
		}
	})
}

func TestNobodyIsRemembered(t *testing.T) {
	in(t, Config{}, crowd(10), func(t *testing.T, d *desk) {
		d.pass(2 * time.Second)
		before := d.calls("")
		for range 100 {
			d.expect("10.200.0.1", "")
		}
		if n := d.calls("") - before; n != 1 {
			t.Errorf("%d calls for one unknown address, want 1", n)
		}
		// Whoever gets that address is known at the next poll all the same.
		d.fake.Put(proxytest.ECSTask{ID: "new", IPv4: "10.200.0.1", Created: born(1)})
		d.pass(5 * time.Second) // and this is when it may be asked again
		d.expect("10.200.0.1", "new")
		if s := d.Status().Lookups; s.Unknown != 1 || s.Absent != 99 || s.Found != 1 {
			t.Errorf("lookups: %+v", s)
		}
	})
}

// TestFlood: unknown addresses without end cost AWS what one of them costs,
// and disturb neither those who are known nor those who are new.
func TestFlood(t *testing.T) {
	in(t, Config{}, crowd(1000), func(t *testing.T, d *desk) {
		d.pass(10 * time.Second)
		before, began := d.calls(""), time.Now()
		var flood sync.WaitGroup
		for i := range 12_000 {
			flood.Go(func() {
				<-time.After(time.Duration(i) * 5 * time.Millisecond)
				addr := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
				if s := d.Identify(t.Context(), policy.Source{Addr: addr}); s.Task != nil {
					t.Errorf("%s is %v", addr, s.Task)
				}
			})
		}
		d.pass(20 * time.Second)
		asked := time.Now()
		d.expect(crowdAddr(7).String(), crowd(8)[7].ID)
		if waited := time.Since(asked); waited != 0 {
			t.Errorf("somebody known waited %s", waited)
		}
		d.fake.Put(proxytest.ECSTask{ID: "new", IPv4: "10.77.0.1", Created: born(9999)})
		for d.who("10.77.0.1") != "new" {
			if time.Since(asked) > 5*time.Second {
				t.Fatal("a new task is unknown for longer than it takes to list the cluster at half the rate, and to look once more")
			}
		}
		flood.Wait()
		if most := int(time.Since(began).Seconds()) * callRate; d.calls("")-before > most {
			t.Errorf("%d calls in %s", d.calls("")-before, time.Since(began))
		}
	})
}

func TestAMissWaitsNoLongerThanItsPatience(t *testing.T) {
	tests := []struct {
		name  string
		fault func(proxytest.AWSCall) *proxytest.AWSFault
		ctx   time.Duration
		want  time.Duration
	}{
		{"AWS does not answer", func(proxytest.AWSCall) *proxytest.AWSFault { return &proxytest.AWSFault{Delay: time.Hour} }, time.Hour, time.Second},
		{"the caller has less time", func(proxytest.AWSCall) *proxytest.AWSFault { return &proxytest.AWSFault{Delay: time.Hour} }, 300 * time.Millisecond, 300 * time.Millisecond},
		{"AWS answers in time", func(proxytest.AWSCall) *proxytest.AWSFault { return &proxytest.AWSFault{Delay: 400 * time.Millisecond} }, time.Hour, 800 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in(t, Config{}, crowd(3), func(t *testing.T, d *desk) {
				d.pass(2 * time.Second)
				d.fake.Fault(tt.fault)
				d.fake.Put(proxytest.ECSTask{ID: "slow", IPv4: "10.5.5.5", Created: born(99)})
				ctx, cancel := context.WithTimeout(t.Context(), tt.ctx)
				defer cancel()
				began := time.Now()
				s := d.Identify(ctx, policy.Source{Addr: netip.MustParseAddr("10.5.5.5")})
				if got := time.Since(began); got != tt.want {
					t.Errorf("waited %s, want %s", got, tt.want)
				}
				if (s.Task != nil) != (tt.want == 800*time.Millisecond) {
					t.Errorf("identified %v", s.Task)
				}
			})
		})
	}
}

func TestATaskThatIsNotListedYet(t *testing.T) {
	in(t, Config{}, crowd(3), func(t *testing.T, d *desk) {
		d.pass(2 * time.Second)
		lag := proxytest.ECSTask{ID: "lag", IPv4: "10.6.6.6", Created: born(9), Unlisted: true}
		d.fake.Put(lag)
		d.expect("10.6.6.6", "")
		d.fake.Change(lag.ARN(), func(t *proxytest.ECSTask) { t.Unlisted = false })
		d.pass(25 * time.Second)
		d.expect("10.6.6.6", "lag")
		if s := d.Status().Lookups; s.Hit != 1 {
			t.Errorf("lookups: %+v", s)
		}
	})
}

// TestBeingProvisioned: a task without an address is asked about until it has
// one.
func TestBeingProvisioned(t *testing.T) {
	early := proxytest.ECSTask{ID: "early", LastStatus: "PROVISIONING", Created: born(1)}
	in(t, Config{}, []proxytest.ECSTask{early}, func(t *testing.T, d *desk) {
		d.pass(time.Minute)
		if s := d.Status(); s.Tasks != 1 || s.Addresses != 0 {
			t.Errorf("status: %s, %d addresses", s, s.Addresses)
		}
		d.fake.Change(early.ARN(), func(t *proxytest.ECSTask) { t.IPv4, t.LastStatus = "10.0.0.1", "PENDING" })
		d.pass(25 * time.Second)
		d.expect("10.0.0.1", "early")
	})
}

func TestStoppingTasksKeepTheirAddress(t *testing.T) {
	task := crowd(1)[0]
	in(t, Config{}, []proxytest.ECSTask{task}, func(t *testing.T, d *desk) {
		// It is no longer listed, and its last requests are still its own.
		d.fake.Change(task.ARN(), func(t *proxytest.ECSTask) { t.Desired, t.LastStatus = "STOPPED", "STOPPING" })
		d.pass(time.Minute)
		d.expect(task.IPv4, task.ID)
		d.fake.Change(task.ARN(), func(t *proxytest.ECSTask) { t.LastStatus = "DEPROVISIONING" })
		d.pass(25 * time.Second)
		d.expect(task.IPv4, "")
		if s := d.Status(); s.Tasks != 0 || s.Addresses != 0 {
			t.Errorf("status: %s, %d addresses", s, s.Addresses)
		}
		d.fake.Forget(task.ARN())
		d.pass(20 * time.Minute)
		if n := len(d.watchers[0].book.records); n != 0 {
			t.Errorf("%d tasks are remembered for ever", n)
		}
	})
}

func TestForgottenTasksAreGone(t *testing.T) {
	task := crowd(1)[0]
	in(t, Config{}, []proxytest.ECSTask{task}, func(t *testing.T, d *desk) {
		d.fake.Forget(task.ARN())
		d.pass(25 * time.Second)
		d.expect(task.IPv4, "")
	})
}

// TestAddressReuse: the newest task has the address, whatever order and lag
// the answers have.
func TestAddressReuse(t *testing.T) {
	older := proxytest.ECSTask{ID: "older", IPv4: "10.0.0.1", Created: born(1)}
	newer := proxytest.ECSTask{ID: "newer", IPv4: "10.0.0.1", Created: born(2)}
	for name, order := range map[string][]proxytest.ECSTask{"older first": {older, newer}, "newer first": {newer, older}} {
		t.Run(name, func(t *testing.T) {
			in(t, Config{}, order[:1], func(t *testing.T, d *desk) {
				d.expect("10.0.0.1", order[0].ID)
				d.fake.Put(order[1]) // and AWS says of both that they run
				d.pass(25 * time.Second)
				d.expect("10.0.0.1", "newer")
				d.pass(time.Hour)
				d.expect("10.0.0.1", "newer")
				d.fake.Change(newer.ARN(), func(t *proxytest.ECSTask) { t.LastStatus = "STOPPED"; t.Desired = "STOPPED" })
				d.pass(25 * time.Second)
				d.expect("10.0.0.1", "")
				d.pass(10 * time.Minute)
				d.expect("10.0.0.1", "") // never again the older one's
			})
		})
	}
}

func TestTwoTasksOfOneMoment(t *testing.T) {
	for _, first := range []string{"a", "b"} {
		second := string('a' + 'b' - first[0])
		one := proxytest.ECSTask{ID: first, IPv4: "10.0.0.1", Created: born(1)}
		in(t, Config{}, []proxytest.ECSTask{one}, func(t *testing.T, d *desk) {
			d.fake.Put(proxytest.ECSTask{ID: second, IPv4: "10.0.0.1", Created: born(1)})
			d.pass(25 * time.Second)
			d.expect("10.0.0.1", "b") // whoever came first
		})
	}
}

func TestAnOldAnswerIsIgnoredForAWhile(t *testing.T) {
	task := proxytest.ECSTask{ID: "t", IPv4: "10.0.0.1", Created: born(1), Version: 7}
	in(t, Config{Poll: 10 * time.Second}, []proxytest.ECSTask{task}, func(t *testing.T, d *desk) {
		old := task
		old.Version, old.IPv4, old.Unlisted = 5, "10.0.0.99", true // unlisted: described each time
		d.fake.Put(old)
		d.pass(30 * time.Second)
		d.expect("10.0.0.1", "t")
		d.pass(2 * time.Minute) // this is no lag
		d.expect("10.0.0.99", "t")
		d.expect("10.0.0.1", "")
	})
}

func TestDetachedInterfacesHoldNothing(t *testing.T) {
	task := proxytest.ECSTask{ID: "t", IPv4: "10.0.0.1", IPv6: "2600::1", Created: born(1), Detached: true}
	in(t, Config{}, []proxytest.ECSTask{task}, func(t *testing.T, d *desk) {
		d.expect("10.0.0.1", "")
		d.expect("2600::1", "")
	})
}

func TestAddressesThatAreNone(t *testing.T) {
	var tasks []proxytest.ECSTask
	for i, a := range []string{"127.0.0.1", "0.0.0.0", "169.254.1.1", "fe80::1", "fe80::1%eth0", "::", "224.0.0.1", "junk", "10.0.0.300"} {
		tasks = append(tasks, proxytest.ECSTask{ID: string(rune('a' + i)), IPv4: a, Created: born(i)})
	}
	in(t, Config{}, tasks, func(t *testing.T, d *desk) {
		if s := d.Status(); s.Tasks != len(tasks) || s.Addresses != 0 {
			t.Errorf("status: %s, %d addresses", s, s.Addresses)
		}
	})
}

func TestThrottling(t *testing.T) {
	in(t, Config{}, crowd(2000), func(t *testing.T, d *desk) {
		// Two of three calls are refused: the SDK's retries get through, or the
		// next listing does.
		d.fake.Fault(func(c proxytest.AWSCall) *proxytest.AWSFault {
			if c.N%3 != 0 {
				return throttled(c)
			}
			return nil
		})
		late := proxytest.ECSTask{ID: "late", IPv4: "10.50.0.1", Created: born(5000)}
		d.fake.Put(late)
		d.pass(5 * time.Minute)
		d.expect("10.50.0.1", "late")
		d.expect(crowdAddr(3).String(), crowd(4)[3].ID)
	})
}

func TestTheLastGoodMapSurvives(t *testing.T) {
	tests := map[string]struct {
		fault func(proxytest.AWSCall) *proxytest.AWSFault
		says  string
	}{
		"throttled": {throttled, "ecs:ListTasks: ThrottlingException: Rate exceeded"},
		"outage":    {outage, "ecs:ListTasks: ServerException: an outage"},
		"no answer": {func(proxytest.AWSCall) *proxytest.AWSFault { return &proxytest.AWSFault{Delay: time.Hour} }, "ecs:ListTasks: no answer within 15s"},
		"junk":      {func(proxytest.AWSCall) *proxytest.AWSFault { return &proxytest.AWSFault{Status: 200, Body: "<html>"} }, "ecs:ListTasks: "},
		"a gateway": {func(proxytest.AWSCall) *proxytest.AWSFault { return &proxytest.AWSFault{Status: 503, Body: "<html>"} }, "ecs:ListTasks: "},
		"no descriptions": {
			failing("ecs:DescribeTasks", outage), "ecs:DescribeTasks: ServerException: an outage",
		},
		"the listing repeats": {
			failing("ecs:ListTasks", func(proxytest.AWSCall) *proxytest.AWSFault {
				return &proxytest.AWSFault{Status: 200, Body: `{"taskArns":[],"nextToken":"again"}`}
			}), "the listing does not end",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in(t, Config{}, crowd(150), func(t *testing.T, d *desk) {
				d.pass(2 * time.Second)
				d.fake.Fault(tt.fault)
				d.fake.Put(proxytest.ECSTask{ID: "late", IPv4: "10.50.0.1", Created: born(5000)})
				d.pass(10 * time.Minute)
				d.expect(crowdAddr(3).String(), crowd(4)[3].ID)
				d.expect("10.50.0.1", "")
				s := d.Status()
				if s.Age < 9*time.Minute || !s.Loaded || s.Tasks != 150 || s.Errors == 0 || s.Errors > 30 {
					t.Errorf("status: %s, %d errors", s, s.Errors)
				}
				if text := s.String(); !strings.Contains(text, tt.says) || !strings.Contains(text, "prod in us-east-1 as of 10m") {
					t.Errorf("status: %s", text)
				}
				if n := d.log.lines("cannot be read"); n != 1 {
					t.Errorf("logged %d times that it fails", n)
				}
				d.fake.Fault(nil)
				d.pass(90 * time.Second)
				d.expect("10.50.0.1", "late")
				if s := d.Status(); s.Age > time.Minute || s.Clusters[0].Failing != nil {
					t.Errorf("status: %s", s)
				}
				if n := d.log.lines("an ECS cluster is known"); n != 2 {
					t.Errorf("logged %d times that it is known", n)
				}
			})
		})
	}
}

func TestFailuresBackOff(t *testing.T) {
	in(t, Config{}, crowd(5), func(t *testing.T, d *desk) {
		d.fake.Fault(outage)
		before := d.calls("")
		for range 600 { // somebody unknown calls all the time
			d.who("10.99.0.1")
			<-time.After(time.Second)
		}
		if n := d.calls("") - before; n > 3*30 { // the SDK tries three times
			t.Errorf("%d calls in ten minutes of outage", n)
		}
		if s := d.Status().Lookups; s.Unknown != 0 {
			t.Errorf("lookups: %+v: nobody said that it is unknown", s)
		}
	})
}

// TestAFailedListingProvesNothing: who was not asked about is not unknown, and
// is asked about again at once.
func TestAFailedListingProvesNothing(t *testing.T) {
	in(t, Config{}, crowd(3), func(t *testing.T, d *desk) {
		d.pass(2 * time.Second)
		d.fake.Put(proxytest.ECSTask{ID: "new", IPv4: "10.4.4.4", Created: born(99)})
		d.fake.Fault(func(proxytest.AWSCall) *proxytest.AWSFault {
			return &proxytest.AWSFault{Status: 400, Code: "AccessDeniedException", Message: "no"}
		})
		d.expect("10.4.4.4", "")
		if s := d.Status().Lookups; s.Unanswered != 1 || s.Unknown != 0 {
			t.Errorf("lookups: %+v", s)
		}
		d.fake.Fault(nil)
		d.pass(leastGap * 5 / 2) // the first pause, at its longest
		d.expect("10.4.4.4", "new")
	})
}

func TestPermissions(t *testing.T) {
	const role = "arn:aws:iam::444455556666:role/sallyport-reader"
	denied := func(message string) func(proxytest.AWSCall) *proxytest.AWSFault {
		return func(proxytest.AWSCall) *proxytest.AWSFault {
			return &proxytest.AWSFault{Status: http.StatusBadRequest, Code: "AccessDeniedException", Message: message}
		}
	}
	tests := []struct {
		name, role string
		fault      func(proxytest.AWSCall) *proxytest.AWSFault
		says       string
	}{
		{"listing", "", failing("ecs:ListTasks", denied("User: arn:aws:sts::1:assumed-role/x is not authorized to perform: ecs:ListTasks on resource: *")), "the task role needs ecs:ListTasks ("},
		{"describing", "", failing("ecs:DescribeTasks", denied("no")), "the task role needs ecs:DescribeTasks ("},
		{"tags", "", failing("ecs:DescribeTasks", denied("is not authorized to perform: ecs:ListTagsForResource on resource: t")), "the task role needs ecs:ListTagsForResource ("},
		{"of the other role", role, failing("ecs:ListTasks", denied("no")), role + " needs ecs:ListTasks ("},
		{"to assume it", role, failing("sts:AssumeRole", func(proxytest.AWSCall) *proxytest.AWSFault {
			return &proxytest.AWSFault{Status: 403, Code: "AccessDenied", Message: "User: x is not authorized to perform: sts:AssumeRole on resource: " + role}
		}), "the task role needs sts:AssumeRole on " + role + ", and that role must trust it ("},
		{"no such cluster", "", failing("ecs:ListTasks", func(proxytest.AWSCall) *proxytest.AWSFault {
			return &proxytest.AWSFault{Status: 400, Code: "ClusterNotFoundException", Message: "Cluster not found."}
		}), "there is no cluster prod in this Region and account"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in(t, Config{Clusters: []Cluster{{Cluster: "prod", RoleARN: tt.role}}}, nil, func(t *testing.T, d *desk) {
				d.fake.Fault(tt.fault)
				d.fake.Put(crowd(1)...)
				d.pass(2 * time.Hour) // longer than a role's credentials last
				if text := d.Status().String(); !strings.Contains(text, tt.says) {
					t.Errorf("status: %s\nwant %s", text, tt.says)
				}
				if d.log.lines("cannot be read") != 1 {
					t.Error("not logged once")
				}
			})
		})
	}
}

func TestNotKnownFromTheStart(t *testing.T) {
	in(t, Config{}, nil, func(t *testing.T, d *desk) {
		if s := d.Status(); !s.Loaded || s.Tasks != 0 {
			t.Errorf("an empty cluster is known: %s", s)
		}
	})
	d, err := New(Config{Clusters: []Cluster{{Cluster: "prod"}}}, sdk(proxytest.NewAWS()))
	if err != nil {
		t.Fatal(err)
	}
	if s := d.Status(); s.Loaded || !strings.Contains(s.String(), "prod in us-east-1 is being listed") {
		t.Errorf("status: %s", s)
	}
}

// TestSeveralClusters: accounts, Regions, and address spaces that overlap.
func TestSeveralClusters(t *testing.T) {
	const role = "arn:aws:iam::444455556666:role/reader"
	cfg := Config{Clusters: []Cluster{
		{Cluster: "prod"},
		{Cluster: "arn:aws:ecs:eu-west-1:444455556666:cluster/other", RoleARN: role, VPCEndpoints: []string{"vpce-1", "vpce-2"}},
	}}
	tasks := []proxytest.ECSTask{
		{ID: "here", IPv4: "10.0.0.1", Created: born(1)},
		{ID: "there", Cluster: "other", Region: "eu-west-1", Account: "444455556666", IPv4: "10.0.0.1", Created: born(2)},
		{ID: "only-there", Cluster: "other", Region: "eu-west-1", Account: "444455556666", IPv4: "10.0.0.2", Created: born(3)},
	}
	in(t, cfg, tasks, func(t *testing.T, d *desk) {
		for _, tt := range []struct{ addr, endpoint, want string }{
			{"10.0.0.1", "", "here"},
			{"10.0.0.1", "vpce-1", "there"},
			{"10.0.0.1", "vpce-2", "there"},
			{"10.0.0.2", "vpce-2", "only-there"},
			{"10.0.0.2", "", ""},
			{"10.0.0.1", "vpce-3", ""},
		} {
			if got := d.whoAt(tt.addr, tt.endpoint); got != tt.want {
				t.Errorf("%s at %q is %q, want %q", tt.addr, tt.endpoint, got, tt.want)
			}
		}
		for _, c := range d.fake.Calls("ecs:ListTasks") {
			want := map[string]string{"prod": "AKIAPROXY us-east-1", "arn:aws:ecs:eu-west-1:444455556666:cluster/other": "ASIAREADER eu-west-1"}[c.Cluster]
			if c.Key+" "+c.Region != want {
				t.Errorf("%s was listed with %s in %s", c.Cluster, c.Key, c.Region)
			}
		}
		// One of them fails: the other stays fresh, and a miss is answered.
		d.pass(2 * time.Second)
		d.fake.Fault(func(c proxytest.AWSCall) *proxytest.AWSFault {
			if c.Region == "us-east-1" {
				return &proxytest.AWSFault{Delay: time.Hour}
			}
			return nil
		})
		late := tasks[1]
		late.ID, late.IPv4, late.Created = "late", "10.0.0.9", born(9)
		d.fake.Put(late)
		if got := d.whoAt("10.0.0.9", "vpce-1"); got != "late" {
			t.Errorf("got %q", got)
		}
		d.pass(10 * time.Minute)
		s := d.Status()
		if s.Age < 9*time.Minute || s.Clusters[0].Age < 9*time.Minute || s.Clusters[1].Age > time.Minute || s.Clusters[1].Tasks != 3 {
			t.Errorf("status: %s", s)
		}
	})
}

// TestASlowClusterHoldsUpNoOther: both may have the caller, one does not answer.
func TestASlowClusterHoldsUpNoOther(t *testing.T) {
	cfg := Config{Clusters: []Cluster{{Cluster: "slow"}, {Cluster: "prod"}}}
	in(t, cfg, crowd(3), func(t *testing.T, d *desk) {
		d.pass(2 * time.Second)
		d.fake.Fault(func(c proxytest.AWSCall) *proxytest.AWSFault {
			if c.Cluster == "slow" {
				return &proxytest.AWSFault{Delay: time.Hour}
			}
			return nil
		})
		d.fake.Put(proxytest.ECSTask{ID: "new", IPv4: "10.4.4.4", Created: born(99)})
		began := time.Now()
		d.expect("10.4.4.4", "new")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %s", waited)
		}
		d.expect("10.4.4.5", "") // nobody, as far as anybody knows
		if s := d.Status().Lookups; s.Unanswered != 1 || s.Unknown != 0 {
			t.Errorf("lookups: %+v", s)
		}
	})
}

func TestConfigurationFaults(t *testing.T) {
	ok := Cluster{Cluster: "prod"}
	tests := []struct {
		name string
		cfg  Config
		want string // "" for none
	}{
		{"a name", Config{Clusters: []Cluster{ok}}, ""},
		{"an ARN", Config{Clusters: []Cluster{{Cluster: "arn:aws:ecs:us-east-1:111122223333:cluster/prod", Region: "us-east-1"}}}, ""},
		{"of China", Config{Clusters: []Cluster{{Cluster: "arn:aws-cn:ecs:cn-north-1:111122223333:cluster/prod"}}}, ""},
		{"two accounts", Config{Clusters: []Cluster{ok, {Cluster: "prod", RoleARN: "arn:aws:iam::111122223333:role/path/x"}}}, ""},
		{"a queue", Config{Clusters: []Cluster{ok}, EventsQueue: "https://sqs.us-east-1.amazonaws.com/111122223333/q"}, ""},
		{"nothing", Config{}, "clusters: none is listed"},
		{"empty", Config{Clusters: []Cluster{{}}}, "clusters[0]: cluster: it is empty"},
		{"a task's ARN", Config{Clusters: []Cluster{{Cluster: "arn:aws:ecs:us-east-1:1:task/prod/x"}}}, "is not a cluster's ARN"},
		{"no ARN", Config{Clusters: []Cluster{{Cluster: "arn:aws:ecs"}}}, "is not a cluster's name"},
		{"a space", Config{Clusters: []Cluster{{Cluster: "my prod"}}}, "is not a cluster's name"},
		{"another Region", Config{Clusters: []Cluster{{Cluster: "arn:aws:ecs:us-east-1:1:cluster/prod", Region: "eu-west-1"}}}, `region: "eu-west-1" is not the Region`},
		{"no Region", Config{Clusters: []Cluster{{Cluster: "prod", Region: "us east"}}}, "is not the name of a Region"},
		{"a role's name", Config{Clusters: []Cluster{{Cluster: "prod", RoleARN: "reader"}}}, `role_arn: "reader" is not a role's ARN`},
		{"a user", Config{Clusters: []Cluster{{Cluster: "prod", RoleARN: "arn:aws:iam::111122223333:user/x"}}}, "is not a role's ARN"},
		{"an endpoint service", Config{Clusters: []Cluster{{Cluster: "prod", VPCEndpoints: []string{"vpce-svc/1"}}}}, "is not a VPC endpoint's ID"},
		{"twice", Config{Clusters: []Cluster{ok, ok}}, `clusters[1]: "prod" is there twice`},
		{"a queue's ARN", Config{Clusters: []Cluster{ok}, EventsQueue: "arn:aws:sqs:us-east-1:1:q"}, "is not a queue's URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.cfg.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	noRegion := sdk(proxytest.NewAWS())
	noRegion.Region = ""
	if _, err := New(Config{Clusters: []Cluster{ok}}, noRegion); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("without a Region: %v", err)
	}
	if _, err := New(Config{Clusters: []Cluster{{Cluster: "x", Region: "us-east-1"}}, EventsQueue: "http://localhost/q"}, noRegion); err == nil || !strings.Contains(err.Error(), "events_queue") {
		t.Errorf("a queue without a Region: %v", err)
	}
}
