package proxytest

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"
)

// AWS answers for ECS, SQS and STS, well enough for the AWS SDK. It is an
// [http.Handler] for a server on loopback, and an HTTP client for an SDK in
// the same process, which then needs no socket and works in a bubble of
// testing/synctest. Make it with [NewAWS].
//
// It is told what there is ([AWS.Put], [AWS.Send]) and how to fail
// ([AWS.Fault]), and remembers what it was asked ([AWS.Calls]).
type AWS struct {
	mu       sync.Mutex // protects what follows
	tasks    map[string]ECSTask
	queue    []sqsMessage
	arrived  chan struct{} // closed and replaced when the queue gets a message
	receipts int
	calls    []AWSCall
	fault    func(AWSCall) *AWSFault
}

// AWSCall is one call that was made.
type AWSCall struct {
	Operation string // "ecs:ListTasks", "sqs:ReceiveMessage", "sts:AssumeRole"
	N         int    // how many of this operation there were before
	Cluster   string // of ECS: as it was asked for
	Tasks     string // of ecs:DescribeTasks: the ARNs, with spaces between them
	Role      string // of STS: to assume
	Key       string // the access key that signed it
	Region    string // that it was signed for
	At        time.Time
}

// AWSFault is an answer other than the true one.
type AWSFault struct {
	Delay   time.Duration // before it
	Status  int           // 0: the true answer, after Delay
	Code    string        // "ThrottlingException"
	Message string
	Body    string // instead of an error in the protocol's words
}

// NewAWS returns an AWS without tasks and messages.
func NewAWS() *AWS {
	return &AWS{tasks: make(map[string]ECSTask), arrived: make(chan struct{})}
}

// Fault has every call pass through f, which returns nil for the true answer.
// It is called with the lock held.
func (a *AWS) Fault(f func(AWSCall) *AWSFault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault = f
}

// Calls returns the calls of an operation so far, or all of them for "".
func (a *AWS) Calls(operation string) []AWSCall {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []AWSCall
	for _, c := range a.calls {
		if operation == "" || c.Operation == operation {
			out = append(out, c)
		}
	}
	return out
}

// Operations returns the names of the operations that were called, sorted.
func (a *AWS) Operations() []string {
	seen := make(map[string]bool)
	for _, c := range a.Calls("") {
		seen[c.Operation] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// Do answers a request without a network, as an HTTP client would.
func (a *AWS) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	served := r.Clone(r.Context())
	if served.Body == nil {
		served.Body = http.NoBody
	}
	a.ServeHTTP(w, served)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// ServeHTTP implements [http.Handler].
func (a *AWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	call := AWSCall{Operation: operationOf(r, body), At: time.Now()}
	call.Key, call.Region = signedBy(r.Header.Get("Authorization"))
	var in struct {
		Cluster string
		Tasks   []string
	}
	if json.Unmarshal(body, &in) == nil {
		call.Cluster, call.Tasks = in.Cluster, strings.Join(in.Tasks, " ")
	}
	call.Role = formValue(body, "RoleArn")
	if f := a.begin(call); f != nil {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
		if f.Status != 0 {
			writeFault(w, call.Operation, f)
			return
		}
	}
	switch call.Operation {
	case "ecs:ListTasks":
		a.listTasks(w, body)
	case "ecs:DescribeTasks":
		a.describeTasks(w, body)
	case "sqs:ReceiveMessage":
		a.receiveMessage(w, r, body)
	case "sqs:DeleteMessageBatch":
		a.deleteMessageBatch(w, body)
	case "sts:AssumeRole":
		assumeRole(w, call.Role)
	default:
		writeFault(w, call.Operation, &AWSFault{Status: http.StatusBadRequest, Code: "UnknownOperationException", Message: call.Operation})
	}
}

// begin notes a call, and returns how it is to fail.
func (a *AWS) begin(c AWSCall) *AWSFault {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, before := range a.calls {
		if before.Operation == c.Operation {
			c.N++
		}
	}
	a.calls = append(a.calls, c)
	if a.fault == nil {
		return nil
	}
	return a.fault(c)
}

func operationOf(r *http.Request, body []byte) string {
	service, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	switch service {
	case "AmazonEC2ContainerServiceV20141113":
		return "ecs:" + operation
	case "AmazonSQS":
		return "sqs:" + operation
	}
	return "sts:" + formValue(body, "Action")
}

// formValue returns a field of a form whose values need no decoding but %3A
// and %2F.
func formValue(body []byte, name string) string {
	for pair := range strings.SplitSeq(string(body), "&") {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return strings.NewReplacer("%3A", ":", "%2F", "/").Replace(value)
		}
	}
	return ""
}

// signedBy returns access key and Region of an Authorization header.
func signedBy(header string) (accessKey, region string) {
	_, scope, _ := strings.Cut(header, "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	if p := strings.Split(scope, "/"); len(p) == 5 {
		return p[0], p[2]
	}
	return "", ""
}

func writeFault(w http.ResponseWriter, operation string, f *AWSFault) {
	switch {
	case f.Body != "":
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
	case strings.HasPrefix(operation, "sts:"):
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>`+f.Code+
			`</Code><Message>`+f.Message+`</Message></Error><RequestId>1</RequestId></ErrorResponse>`)
	default:
		writeJSON(w, f.Status, map[string]string{"__type": f.Code, "message": f.Message})
	}
}

func writeJSON(w http.ResponseWriter, status int, answer any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(answer); err != nil {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// assumeRole hands out a key that tells whose it is.
func assumeRole(w http.ResponseWriter, role string) {
	_, name, _ := strings.Cut(role, "role/")
	_, _ = io.WriteString(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>`+
		`<AccessKeyId>ASIA`+strings.ToUpper(name)+`</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>`+
		`<Expiration>`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`</Expiration></Credentials></AssumeRoleResult>`+
		`<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleResponse>`)
}
