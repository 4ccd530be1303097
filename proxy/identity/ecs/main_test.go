package ecs

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/policy"
	"github.com/sallyport/sallyport/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is a log that several goroutines write to.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) lines(containing string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for l := range strings.Lines(b.b.String()) {
		if strings.Contains(l, containing) {
			n++
		}
	}
	return n
}

// desk is a Directory at work, in a bubble, on a fake AWS.
type desk struct {
	*Directory
	t    *testing.T
	fake *proxytest.AWS
	log  *buffer
}

// sdk is the SDK's configuration with the fake for a network.
func sdk(fake *proxytest.AWS) aws.Config {
	return aws.Config{
		Region: "us-east-1", HTTPClient: fake,
		Credentials: credentials.NewStaticCredentialsProvider("AKIAPROXY", "secret", ""),
	}
}

// start makes a Directory of the cluster prod, or what cfg says, and lets it
// work until stop, which the bubble's function must call.
func start(t *testing.T, fake *proxytest.AWS, cfg Config) (*desk, func()) {
	t.Helper()
	if cfg.Clusters == nil {
		cfg.Clusters = []Cluster{{Cluster: "prod"}}
	}
	d := &desk{t: t, fake: fake, log: new(buffer)}
	cfg.Logger = zerolog.New(d.log)
	var err error
	if d.Directory, err = New(cfg, sdk(fake)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return d, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// in runs a test with a Directory in a bubble.
func in(t *testing.T, cfg Config, tasks []proxytest.ECSTask, test func(*testing.T, *desk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fake := proxytest.NewAWS()
		fake.Put(tasks...)
		d, stop := start(t, fake, cfg)
		defer stop()
		d.settle()
		test(t, d)
	})
}

// settle lets everything happen that takes no time, or little of it.
func (d *desk) settle() {
	<-time.After(time.Millisecond)
	synctest.Wait()
}

// pass lets time go by.
func (d *desk) pass(long time.Duration) {
	<-time.After(long)
	synctest.Wait()
}

// who asks who has an address, and returns "" for nobody, else the ID of the
// task.
func (d *desk) who(addr string) string { return d.whoAt(addr, "") }

func (d *desk) whoAt(addr, endpoint string) string {
	d.t.Helper()
	s := d.Identify(d.t.Context(), policy.Source{Addr: netip.MustParseAddr(addr), VPCEndpoint: endpoint})
	if s.Unidentified != (s.Task == nil) {
		d.t.Errorf("%s: Unidentified is %v beside %v", addr, s.Unidentified, s.Task)
	}
	if s.Task == nil {
		return ""
	}
	return s.Task.ARN[strings.LastIndexByte(s.Task.ARN, '/')+1:]
}

func (d *desk) expect(addr, id string) {
	d.t.Helper()
	if got := d.who(addr); got != id {
		d.t.Errorf("%s is %q, want %q", addr, got, id)
	}
}

func (d *desk) calls(operation string) int { return len(d.fake.Calls(operation)) }

// born is when the n-th task was made.
func born(n int) time.Time { return time.Date(2026, 11, 1, 0, 0, n, 0, time.UTC) }

// crowd returns n tasks of several services.
func crowd(n int) []proxytest.ECSTask {
	var out []proxytest.ECSTask
	for i := range n {
		out = append(out, proxytest.ECSTask{
			ID: fmt.Sprintf("%032x", i), Service: fmt.Sprintf("service-%d", i%7), Family: fmt.Sprintf("family-%d", i%7), Revision: i%5 + 1,
			Tags: map[string]string{"team": fmt.Sprintf("t%d", i%3)}, Created: born(i), Version: 3,
			IPv4: crowdAddr(i).String(), IPv6: fmt.Sprintf("2600:1f18::%x", i+1),
		})
	}
	return out
}

func crowdAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// outage answers everything with an error of AWS's own.
func outage(proxytest.AWSCall) *proxytest.AWSFault {
	return &proxytest.AWSFault{Status: 500, Code: "ServerException", Message: "an outage"}
}

func throttled(proxytest.AWSCall) *proxytest.AWSFault {
	return &proxytest.AWSFault{Status: 400, Code: "ThrottlingException", Message: "Rate exceeded"}
}

// failing makes calls of one operation fail.
func failing(operation string, f func(proxytest.AWSCall) *proxytest.AWSFault) func(proxytest.AWSCall) *proxytest.AWSFault {
	return func(c proxytest.AWSCall) *proxytest.AWSFault {
		if c.Operation != operation {
			return nil
		}
		return f(c)
	}
}
