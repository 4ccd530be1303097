package ecs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

const queue = "https://sqs.us-east-1.amazonaws.com/111122223333/sallyport"

func withQueue() Config { return Config{EventsQueue: queue, Poll: time.Hour} }

func TestEventsTellOfNewTasks(t *testing.T) {
	in(t, withQueue(), crowd(20), func(t *testing.T, d *desk) {
		d.pass(2 * time.Second)
		lists := d.calls("ecs:ListTasks")
		task := proxytest.ECSTask{ID: "new", LastStatus: "PROVISIONING", Created: born(99), Tags: map[string]string{"team": "x"}}
		d.fake.Put(task)
		d.fake.Send(d.fake.Event(task.ARN()))
		d.settle()
		d.fake.Change(task.ARN(), func(t *proxytest.ECSTask) { t.IPv4, t.LastStatus = "10.8.8.8", "PENDING" })
		d.fake.Send(d.fake.Event(task.ARN()))
		d.pass(time.Second)
		if got := d.who("10.8.8.8"); got != "new" {
			t.Fatalf("got %q", got)
		}
		if n := d.calls("ecs:ListTasks") - lists; n != 0 {
			t.Errorf("the cluster was listed %d times", n)
		}
		if d.fake.Queued() != 0 || d.Status().Events.Applied != 2 || d.Status().Events.Junk != 0 {
			t.Errorf("%d messages are left, %+v", d.fake.Queued(), d.Status().Events)
		}
	})
}

func TestEventsTellOfTheEnd(t *testing.T) {
	in(t, withQueue(), crowd(20), func(t *testing.T, d *desk) {
		task := crowd(1)[0]
		running := d.fake.Event(task.ARN())
		d.fake.Change(task.ARN(), func(t *proxytest.ECSTask) { t.LastStatus, t.Desired = "DEPROVISIONING", "STOPPED" })
		d.fake.Send(d.fake.Event(task.ARN()))
		d.settle()
		if n := d.Status().Tasks; n != 19 {
			t.Errorf("%d tasks", n)
		}
		d.expect(task.IPv4, "")
		// An event from before, late, does not bring it back.
		d.fake.Send(running)
		d.pass(10 * time.Second)
		d.expect(task.IPv4, "")
	})
}

// TestAnOldEndIsIgnored: an end of a lower version than what is known.
func TestAnOldEndIsIgnored(t *testing.T) {
	in(t, withQueue(), []proxytest.ECSTask{{ID: "t", IPv4: "10.0.0.1", Version: 9}}, func(t *testing.T, d *desk) {
		stopped := proxytest.ECSTask{ID: "t", IPv4: "10.0.0.1", Version: 8, LastStatus: "STOPPED"}
		other := proxytest.NewAWS()
		other.Put(stopped)
		d.fake.Send(other.Event(stopped.ARN()))
		d.settle()
		d.expect("10.0.0.1", "t")
	})
}

// TestAnEventIsNoIdentity: what an event says of an address counts for nothing
// unless AWS says so itself.
func TestAnEventIsNoIdentity(t *testing.T) {
	in(t, withQueue(), crowd(3), func(t *testing.T, d *desk) {
		forger := proxytest.NewAWS()
		known := crowd(1)[0]
		known.Version, known.IPv4 = 100, "10.66.0.1"
		made := proxytest.ECSTask{ID: "made-up", IPv4: "10.66.0.2", Created: born(999)}
		forger.Put(known, made)
		d.fake.Send(forger.Event(known.ARN()), forger.Event(made.ARN()))
		d.pass(time.Minute)
		d.expect("10.66.0.1", "")
		d.expect("10.66.0.2", "")
		d.expect(crowd(1)[0].IPv4, crowd(1)[0].ID)
		if n := d.calls("ecs:DescribeTasks"); n > 1+hintTries {
			t.Errorf("%d descriptions for two events", n)
		}
	})
}

// TestAnAnswerOlderThanItsEvent: DescribeTasks lags behind the event.
func TestAnAnswerOlderThanItsEvent(t *testing.T) {
	task := proxytest.ECSTask{ID: "t", LastStatus: "PROVISIONING", Created: born(1)}
	in(t, withQueue(), []proxytest.ECSTask{task}, func(t *testing.T, d *desk) {
		ahead := proxytest.NewAWS()
		after := task
		after.Version, after.IPv4 = 2, "10.0.0.1"
		ahead.Put(after)
		d.fake.Send(ahead.Event(task.ARN()))
		d.pass(400 * time.Millisecond)
		d.fake.Put(after)
		d.pass(2 * time.Second)
		if s := d.Status(); s.Addresses != 1 {
			t.Errorf("status: %s", s)
		}
		d.expect("10.0.0.1", "t")
	})
}

func TestJunkInTheQueue(t *testing.T) {
	in(t, withQueue(), crowd(3), func(t *testing.T, d *desk) {
		d.pass(2 * time.Second)
		before := d.calls("ecs:DescribeTasks")
		elsewhere := proxytest.NewAWS()
		foreign := proxytest.ECSTask{ID: "x", Cluster: "dev", Version: 2}
		elsewhere.Put(foreign)
		good := d.fake.Event(crowd(1)[0].ARN())
		junk := []string{
			"", "{}", "null", "[]", "<xml/>", `{"source":"aws.ecs"}`, strings.Repeat("[", 100_000),
			strings.Replace(good, "aws.ecs", "my.app", 1),
			strings.Replace(good, "ECS Task State Change", "ECS Service Action", 1),
			strings.Replace(good, `"version":3`, `"version":"3"`, 1),
			strings.Replace(good, `"version":3`, `"version":-1`, 1),
			strings.Replace(good, ":task/prod/", ":service/prod/", 1),
			elsewhere.Event(foreign.ARN()),
		}
		d.fake.Send(junk...)
		d.pass(10 * time.Second)
		s := d.Status()
		if d.fake.Queued() != 0 || s.Events.Junk != uint64(len(junk)) || s.Events.Applied != 0 || s.Errors != 0 {
			t.Errorf("%d messages are left, %+v", d.fake.Queued(), s.Events)
		}
		if n := d.calls("ecs:DescribeTasks") - before; n != 0 {
			t.Errorf("%d descriptions for junk", n)
		}
	})
}

// TestAStormOfEvents: tasks without end that do not exist cost no more calls
// than are allowed.
func TestAStormOfEvents(t *testing.T) {
	in(t, withQueue(), crowd(100), func(t *testing.T, d *desk) {
		d.pass(10 * time.Second)
		before, began := d.calls("ecs:ListTasks")+d.calls("ecs:DescribeTasks"), time.Now()
		forger := proxytest.NewAWS()
		var all []string
		for i := range 5000 {
			made := proxytest.ECSTask{ID: fmt.Sprint("made-up-", i), IPv4: "10.66.0.2", Created: born(999)}
			forger.Put(made)
			all = append(all, forger.Event(made.ARN()))
		}
		d.fake.Send(all...)
		honest := proxytest.ECSTask{ID: "real", IPv4: "10.55.0.1", Created: born(99)}
		d.fake.Put(honest)
		d.fake.Send(d.fake.Event(honest.ARN()))
		d.pass(time.Minute)
		d.expect("10.55.0.1", "real")
		if n, most := d.calls("ecs:ListTasks")+d.calls("ecs:DescribeTasks")-before, int(time.Since(began).Seconds())*callRate; n > most {
			t.Errorf("%d calls in %s", n, time.Since(began))
		}
		if d.fake.Queued() != 0 {
			t.Errorf("%d messages are left", d.fake.Queued())
		}
	})
}

// TestHintsAreBounded: beyond so many tasks of events the cluster is listed.
func TestHintsAreBounded(t *testing.T) {
	w := filled(t, 1).watchers[0] // nobody works on what is wanted
	w.next = time.Now().Add(time.Hour)
	for i := range 3 * maxHints {
		w.hint(fmt.Sprint("arn:aws:ecs:us-east-1:111122223333:task/prod/x", i), 1)
	}
	if list, _ := w.due(time.Now()); len(w.hints) != maxHints || list == nil {
		t.Errorf("%d hints, listing %v", len(w.hints), list)
	}
}

// TestABacklogIsNotFollowed: after a pause, the queue holds what the listing
// knows better.
func TestABacklogIsNotFollowed(t *testing.T) {
	in(t, withQueue(), crowd(3), func(t *testing.T, d *desk) {
		forger := proxytest.NewAWS()
		made := proxytest.ECSTask{ID: "long-gone", IPv4: "10.66.0.2", Created: born(999)}
		forger.Put(made)
		old := forger.Event(made.ARN())
		d.pass(stale)
		before := d.calls("ecs:DescribeTasks")
		d.fake.Send(old)
		d.pass(10 * time.Second)
		if n := d.calls("ecs:DescribeTasks") - before; n != 0 || d.fake.Queued() != 0 {
			t.Errorf("%d descriptions, %d messages are left", n, d.fake.Queued())
		}
	})
}

func TestTheQueueFails(t *testing.T) {
	in(t, withQueue(), crowd(3), func(t *testing.T, d *desk) {
		d.fake.Fault(func(c proxytest.AWSCall) *proxytest.AWSFault {
			if !strings.HasPrefix(c.Operation, "sqs:") {
				return nil
			}
			return &proxytest.AWSFault{Status: 400, Code: "AccessDenied", Message: "User: x is not authorized to perform: sqs:receivemessage on resource: q"}
		})
		d.pass(10 * time.Minute)
		s := d.Status()
		if s.Events.Failing == nil || !strings.Contains(s.String(), "events: the task role needs sqs:receivemessage (") || !s.Loaded {
			t.Errorf("status: %s", s)
		}
		if n := d.log.lines("cannot be read"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		if n := d.calls("sqs:ReceiveMessage"); n > 30 {
			t.Errorf("%d calls in ten minutes", n)
		}
		d.fake.Fault(nil)
		d.pass(2 * time.Minute)
		if s := d.Status(); s.Events.Failing != nil || d.log.lines("can be read again") != 1 {
			t.Errorf("status: %s", s)
		}
	})
}

// TestUndeletedMessagesDoNoHarm: what could not be deleted is received again.
func TestUndeletedMessagesDoNoHarm(t *testing.T) {
	in(t, withQueue(), crowd(3), func(t *testing.T, d *desk) {
		d.fake.Fault(failing("sqs:DeleteMessageBatch", outage))
		d.fake.Change(crowd(1)[0].ARN(), func(t *proxytest.ECSTask) { t.LastStatus = "STOPPED" })
		d.fake.Send(d.fake.Event(crowd(1)[0].ARN()))
		d.pass(10 * time.Minute)
		if d.Status().Tasks != 2 || d.fake.Queued() != 1 {
			t.Errorf("status: %s; %d messages", d.Status(), d.fake.Queued())
		}
		d.fake.Fault(nil)
		d.pass(3 * time.Minute)
		if d.fake.Queued() != 0 {
			t.Error("the message is still there")
		}
	})
}

func TestQueueRegion(t *testing.T) {
	for queue, want := range map[string]string{
		"https://sqs.eu-west-1.amazonaws.com/1/q":       "eu-west-1",
		"https://sqs.cn-north-1.amazonaws.com.cn/1/q":   "cn-north-1",
		"http://127.0.0.1:9324/1/q":                     "",
		"https://eu-west-1.queue.amazonaws.com/1/q":     "",
		"https://sqs.localhost/q":                       "",
		"https://vpce-1.sqs.us-east-1.vpce.amazonaws.x": "",
	} {
		if got := queueRegion(queue); got != want {
			t.Errorf("%s: %q, want %q", queue, got, want)
		}
	}
}

// FuzzParseEvent: a message is never more than a task to ask about, in the
// account and Region of its cluster.
func FuzzParseEvent(f *testing.F) {
	fake := proxytest.NewAWS()
	task := proxytest.ECSTask{ID: "x", IPv4: "10.0.0.1"}
	fake.Put(task)
	good := fake.Event(task.ARN())
	for _, s := range []string{good, good[:len(good)/2], "", "{}", `{"detail":[]}`, strings.Replace(good, "us-east-1", "eu-west-1", 1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		c, ok := parseEvent(body)
		if !ok {
			return
		}
		a, valid := parseARN(c.taskARN)
		if !valid || a.service != "ecs" || a.region != c.region || c.version <= 0 || !strings.HasPrefix(a.resource, "task/") {
			t.Errorf("%q is read as %+v", body, c)
		}
	})
}
