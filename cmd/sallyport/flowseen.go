package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policy"
)

// maxFlowLine bounds a line of flow records. The proxy writes at most some 16
// KiB; exports put several into one line.
const maxFlowLine = 4 << 20

// flowLine is what of a flow log's line a policy is asked about. The whole is
// described by flow.schema.json.
type flowLine struct {
	Time  time.Time `json:"time"`
	Event struct {
		Name string `json:"name"`
	} `json:"event"`
	Client endpointLine `json:"client"`
	User   struct {
		Name string `json:"name"`
	} `json:"user"`
	Server  endpointLine `json:"server"`
	Network struct {
		Protocol struct {
			Name string `json:"name"`
		} `json:"protocol"`
		Peer endpointLine `json:"peer"`
	} `json:"network"`
	AWS struct {
		ECS *ecsLine `json:"ecs"`
		S3  *s3Line  `json:"s3"`
	} `json:"aws"`
	Rule struct {
		Name string `json:"name"`
	} `json:"rule"`
	Own *ownLine `json:"sallyport"`
}

type endpointLine struct {
	Address string `json:"address"`
	Port    uint16 `json:"port"`
}

type ecsLine struct {
	Cluster struct {
		Name string `json:"name"`
	} `json:"cluster"`
	Service struct {
		Name string `json:"name"`
	} `json:"service"`
	Task struct {
		ARN      string `json:"arn"`
		Family   string `json:"family"`
		Revision string `json:"revision"`
	} `json:"task"`
}

type s3Line struct {
	policy.S3Ref
	Operation    string `json:"operation"`
	SourceBucket string `json:"source_bucket"`
	Signer       struct {
		Scheme  policy.S3Scheme `json:"scheme"`
		Account string          `json:"account"`
	} `json:"signer"`
}

type ownLine struct {
	FlowID        string        `json:"flow_id"`
	Verdict       string        `json:"verdict"`
	WouldDeny     bool          `json:"would_deny"`
	Reason        policy.Reason `json:"reason"`
	Via           string        `json:"via"`
	Enforcement   string        `json:"enforcement"`
	Source        string        `json:"source"`
	VPCEndpoint   string        `json:"vpc_endpoint"`
	Outcome       string        `json:"outcome"`
	BytesSent     int64         `json:"bytes_sent"`
	BytesReceived int64         `json:"bytes_received"`
	DurationMS    float64       `json:"duration_ms"`
}

// readFlowLines reads the proxy's flow log as it was printed, or as it comes
// back from where it went: what stands before a record in its line is skipped,
// a line may hold several, and a record may be the "message" of another one.
// Lines without a record are skipped. It returns the observations between two
// moments, the zero ones being none, summed up.
func readFlowLines(in io.Reader, since, until time.Time) ([]policy.Seen, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxFlowLine)
	sums := newSeenSums(since, until)
	for n := 1; lines.Scan(); n++ {
		if err := sums.takeLine(lines.Bytes()); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("a line is longer than %d bytes", maxFlowLine)
	} else if err != nil {
		return nil, err
	}
	if sums.records == 0 {
		return nil, errors.New("there is no flow record in it")
	}
	return sums.all(), nil
}

// seenSums sums observations up.
type seenSums struct {
	since, until time.Time
	records      int
	sums         map[string]*seenSum
	open         map[string]policy.Seen // by the flow's ID: those that have not ended
}

type seenSum struct {
	policy.Seen
	tasks map[string]bool
}

func newSeenSums(since, until time.Time) *seenSums {
	return &seenSums{since: since, until: until, sums: map[string]*seenSum{}, open: map[string]policy.Seen{}}
}

// takeLine takes the records of a line.
func (s *seenSums) takeLine(line []byte) error {
	start := bytes.IndexByte(line, '{')
	if start < 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(line[start:]))
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return nil //nolint:nilerr // no record, or one that was cut off: the rest counts
		}
		if err := s.takeObject(raw); err != nil {
			return err
		}
	}
}

// takeObject takes a record, or the one that is its message.
func (s *seenSums) takeObject(raw []byte) error {
	var wrapped struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &wrapped) == nil && strings.HasPrefix(wrapped.Message, "{") {
		raw = []byte(wrapped.Message)
	}
	var l flowLine
	if err := json.Unmarshal(raw, &l); err != nil || !strings.HasPrefix(l.Event.Name, "flow.") || l.Own == nil {
		return nil //nolint:nilerr // a line of another kind
	}
	s.records++
	seen, err := l.seen()
	if err != nil {
		return err
	}
	switch l.Event.Name {
	case "flow.open":
		s.open[l.Own.FlowID] = seen
		return nil
	case "flow.close":
		delete(s.open, l.Own.FlowID)
	}
	s.add(seen)
	return nil
}

// add adds an attempt to what reads like it.
func (s *seenSums) add(seen policy.Seen) {
	if (!s.since.IsZero() && seen.Last.Before(s.since)) || (!s.until.IsZero() && !seen.First.Before(s.until)) {
		return
	}
	key := seenKey(&seen)
	sum := s.sums[key]
	if sum == nil {
		sum = &seenSum{Seen: seen, tasks: map[string]bool{}}
		s.sums[key] = sum
	} else {
		sum.Count += seen.Count
		sum.Failed += seen.Failed
		sum.BytesSent += seen.BytesSent
		sum.BytesReceived += seen.BytesReceived
		if seen.First.Before(sum.First) {
			sum.First = seen.First
		}
		if seen.Last.After(sum.Last) {
			sum.Last = seen.Last
		}
		if !sum.Peer.IsValid() {
			sum.Peer = seen.Peer
		}
	}
	if t := seen.Query.Source.Task; t != nil {
		sum.tasks[t.ARN] = true
		if t.Revision > 0 && !slices.Contains(sum.Revisions, t.Revision) {
			sum.Revisions = append(sum.Revisions, t.Revision)
		}
	}
}

// all returns the sums, those that have not ended among them.
func (s *seenSums) all() []policy.Seen {
	for _, seen := range s.open {
		s.add(seen)
	}
	clear(s.open)
	all := make([]policy.Seen, 0, len(s.sums))
	for _, sum := range s.sums {
		sum.Tasks = len(sum.tasks)
		slices.Sort(sum.Revisions)
		all = append(all, sum.Seen)
	}
	return all
}

// seenKey tells apart what a policy can.
func seenKey(s *policy.Seen) string {
	c, task, call := &s.Query.Source, policy.Task{}, policy.S3Call{}
	if c.Task != nil {
		task = *c.Task
	}
	if s.Query.S3 != nil {
		call = *s.Query.S3
	}
	return fmt.Sprintf("%q %q %q %q %q %q %t %q %d %d %d %v %t %t %q %q %t %q %+v %q %+v %+v", task.Cluster, task.Service, task.Family,
		c.Principal, c.VPCEndpoint, s.SourceName, c.Unidentified, s.Host, s.Query.Port, s.Query.Via, s.Query.Protocol, s.Verdict, s.WouldDeny,
		s.Query.S3 != nil, s.Reason, s.Rule, s.Peer.IsPrivate(), call.Host, call.Ref, call.Operation, call.Signer, call.Source.Ref)
}

// seen returns the observation of a line.
func (l *flowLine) seen() (policy.Seen, error) {
	o := l.Own
	s := policy.Seen{
		SourceName: o.Source, Host: l.Server.Address, Reason: o.Reason, WouldDeny: o.WouldDeny, Rule: l.Rule.Name,
		Count: 1, BytesSent: o.BytesSent, BytesReceived: o.BytesReceived, Last: l.Time,
	}
	switch o.Verdict {
	case "allow":
		s.Verdict = policy.Allow
	case "deny":
	default:
		return s, fmt.Errorf("the record %s has no verdict", strconv.QuoteToASCII(o.FlowID))
	}
	s.First = s.Last
	if ms := o.DurationMS; ms > 0 && ms < math.MaxInt32*1000 {
		s.First = s.Last.Add(-time.Duration(ms * float64(time.Millisecond)))
	}
	if l.Event.Name == "flow.close" && o.Outcome != "ok" {
		s.Failed = 1
	}
	s.Peer = addrOf(l.Network.Peer.Address)
	s.Query = l.query()
	return s, nil
}

// query returns the question that the attempt put to the policy.
func (l *flowLine) query() policy.Query {
	o := l.Own
	q := policy.Query{Port: l.Server.Port, Via: viaOf(o.Via)}
	q.Host, _ = policy.ParseHost(l.Server.Address) // what cannot be read is no name
	q.Source = policy.Source{
		Addr: addrOf(l.Client.Address), Principal: l.User.Name, VPCEndpoint: o.VPCEndpoint,
		Unidentified: o.Reason == policy.ReasonUnknownSource,
	}
	if e := l.AWS.ECS; e != nil {
		revision, _ := strconv.Atoi(e.Task.Revision) // "" is none
		q.Source.Task = &policy.Task{ARN: e.Task.ARN, Cluster: e.Cluster.Name, Service: e.Service.Name, Family: e.Task.Family, Revision: revision}
	}
	switch l.Network.Protocol.Name {
	case "tls":
		q.Protocol = policy.ProtocolTLS
	case "http":
		q.Protocol = policy.ProtocolHTTP
	default:
		if o.BytesSent > 0 && q.Via == policy.ViaConnect {
			q.Protocol = policy.ProtocolTCP // it carried something, and no ClientHello
		}
	}
	if l.AWS.S3 != nil && policy.Enforcement(o.Enforcement) == policy.EnforcementInspect {
		q.S3 = l.AWS.S3.call(q.Host)
	}
	return q
}

// call returns the request that was seen inside TLS.
func (l *s3Line) call(h policy.Host) *policy.S3Call {
	c := &policy.S3Call{
		Host: h, Ref: l.S3Ref, Operation: l.Operation,
		Signer: policy.S3Signer{Scheme: l.Signer.Scheme, Account: l.Signer.Account},
	}
	if l.SourceBucket != "" {
		c.Source.Ref = policy.S3Ref{Form: policy.S3PathStyle, Bucket: l.SourceBucket, Partition: l.Partition}
	}
	return c
}

// viaOf returns the way in that a record's word names.
func viaOf(word string) policy.Via {
	for _, v := range []policy.Via{policy.ViaConnect, policy.ViaHTTP, policy.ViaTLS, policy.ViaTCP, policy.ViaDNS} {
		if v.String() == word {
			return v
		}
	}
	return policy.ViaUnknown
}
