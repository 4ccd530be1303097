package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/policy"
)

// maxQuestion bounds one line of `policy explain --json -`.
const maxQuestion = 64 << 10

// question is one thing to explain; as JSON, a line of `--json -`. With a
// method it is a whole request, which matters where its connection is
// inspected.
type question struct {
	URL     string                  `json:"url"`
	Method  string                  `json:"method"`
	Headers map[string]headerValues `json:"headers"`
	Source  string                  `json:"source"`
	At      string                  `json:"at"`
	identity
}

// headerValues are the values of a header, in JSON one string or a list.
type headerValues []string

// UnmarshalJSON takes either.
func (h *headerValues) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*h = headerValues{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(h))
}

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "explain URL...", Short: "say what the policy answers, and why", Args: cobra.MinimumNArgs(1)}
	addFlags(cmd, "policy")
	var common question
	cmd.Flags().StringVar(&common.Source, "source", "127.0.0.1", "`ADDRESS` that asks")
	cmd.Flags().StringVar(&common.At, "at", "", "`TIME` of the question, RFC 3339")
	common.addFlags(cmd.Flags())
	asJSON := cmd.Flags().Bool("json", false, "answer in JSON lines")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		fromStdin := len(args) == 1 && args[0] == "-"
		if fromStdin && !*asJSON {
			return refuse("write --json -", "standard input is answered in JSON only")
		}
		p, err := policyInUse(cmd)
		if err != nil {
			return err
		}
		e := explainer{policy: p, common: common, out: bufio.NewWriter(cmd.OutOrStdout())}
		if fromStdin {
			return e.stream(cmd.InOrStdin())
		}
		return e.answer(args, *asJSON)
	}
	return cmd
}

// policyInUse loads the policy that serve would use with the same flags,
// environment and file.
func policyInUse(cmd *cobra.Command) (*policy.Policy, error) {
	l, err := loadConfig(cmd.Flags())
	if err != nil {
		return nil, err
	}
	if err := l.requirePolicy(); err != nil {
		return nil, err
	}
	return l.firstPolicy(cmd.Context())
}

// firstPolicy loads the configured policy while there is no older one to fall
// back to, and keeps its sources for those that look at them again.
func (l *loaded) firstPolicy(ctx context.Context) (*policy.Policy, error) {
	sources, err := newSourceSet(l.Policy)
	if err != nil {
		return nil, err
	}
	sources.every, l.sources = l.Reload.Every, sources
	texts, err := sources.first(ctx)
	if err != nil {
		return nil, err
	}
	p, err := policy.Load(texts...)
	if err != nil {
		return nil, policyFaults(err, exitUsage)
	}
	sources.texts = texts
	return p, nil
}

// explainer answers questions about one policy.
type explainer struct {
	policy *policy.Policy
	common question // what a question does not say itself
	out    *bufio.Writer
	denied bool
}

// ask answers q, which is complete with what is common to all.
func (e *explainer) ask(q question) (policy.Explanation, error) {
	if q.Source == "" {
		q.Source = e.common.Source
	}
	if q.At == "" {
		q.At = e.common.At
	}
	source, err := netip.ParseAddr(q.Source)
	if err != nil {
		return policy.Explanation{}, refuse("write an address, such as 10.0.16.9", "source %q is not an IP address", q.Source)
	}
	caller, err := q.over(e.common.identity).source()
	if err != nil {
		return policy.Explanation{}, err
	}
	caller.Addr = source.Unmap().WithZone("")
	at := time.Now()
	if q.At != "" {
		if at, err = time.Parse(time.RFC3339, q.At); err != nil {
			return policy.Explanation{}, refuse("write it as 2026-12-24T18:00:00Z", "time %q is not in RFC 3339's form", q.At)
		}
	}
	site, request, err := q.request()
	if err != nil {
		return policy.Explanation{}, err
	}
	via, host, port, protocol, err := policy.ParseTarget(site)
	if err != nil {
		return policy.Explanation{}, &fault{code: exitUsage, err: err}
	}
	asked := policy.Query{
		Source: caller, Via: via, Host: host, Port: port, Protocol: protocol, At: at,
	}
	var x policy.Explanation
	if _, isS3 := policy.ParseS3Host(host); isS3 && request != nil {
		x = e.policy.ExplainRequest(asked, *request)
	} else {
		x = e.policy.Explain(asked)
	}
	e.denied = e.denied || x.Decision.Verdict == policy.Deny
	return x, nil
}

// request returns where the question goes, and the request that is sent there,
// nil when the question is about the connection alone.
func (q question) request() (site string, request *policy.S3Request, err error) {
	if q.Method == "" {
		if len(q.Headers) > 0 {
			return "", nil, refuse(`write "method": "GET" beside them`, "headers belong to a request with a method")
		}
		return q.URL, nil, nil
	}
	headers := make(map[string][]string, len(q.Headers))
	for name, values := range q.Headers {
		headers[name] = values
	}
	site, r, err := policy.ParseRequest(q.Method, q.URL, headers)
	if err != nil {
		return "", nil, &fault{code: exitUsage, err: err}
	}
	return site, &r, nil
}

// answer explains the URLs of a command line; all are readable, or none is
// answered.
func (e *explainer) answer(urls []string, asJSON bool) error {
	var all []policy.Explanation
	var errs []error
	for _, u := range urls {
		if u == "-" {
			return refuse("give URLs, or - alone", "- stands beside other URLs")
		}
		x, err := e.ask(question{URL: u})
		all, errs = append(all, x), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, x := range all {
		if !asJSON {
			fmt.Fprint(e.out, x)
		} else if err := e.write(question{URL: urls[i]}, x); err != nil {
			return err
		}
	}
	return e.end()
}

// write prints an explanation as one JSON line that begins with its URL.
func (e *explainer) write(q question, x policy.Explanation) error {
	head := struct {
		URL string `json:"url"`
	}{q.URL}
	return e.line(head, x)
}

// line prints the members of two objects as one, on one line.
func (e *explainer) line(first, second any) error {
	a, err := json.Marshal(first)
	if err != nil {
		return err
	}
	b, err := json.Marshal(second)
	if err != nil {
		return err
	}
	a[len(a)-1] = ',' // in the place of its closing brace
	for _, part := range [][]byte{a, b[1:], {'\n'}} {
		if _, err := e.out.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// stream answers each line of in with a line, in order. Before it waits for
// input it has written every answer: a caller may ask line by line.
func (e *explainer) stream(in io.Reader) error {
	lines := bufio.NewReaderSize(in, maxQuestion)
	for {
		if rest, _ := lines.Peek(lines.Buffered()); bytes.IndexByte(rest, '\n') < 0 {
			if err := e.out.Flush(); err != nil {
				return err
			}
		}
		line, err := lines.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(fmt.Errorf("standard input: %w", err), e.end())
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if writeErr := e.answerLine(line, tooLong); writeErr != nil {
				return writeErr
			}
		}
		if err != nil {
			return e.end()
		}
	}
}

// answerLine answers one line of standard input, a URL or a JSON object.
func (e *explainer) answerLine(line []byte, tooLong bool) error {
	q := question{URL: string(line)}
	var err error
	switch {
	case tooLong:
		q.URL, err = string(line[:256]), fmt.Errorf("the line is longer than %d bytes", maxQuestion)
	case line[0] == '{':
		q = question{}
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		if err = dec.Decode(&q); err == nil && dec.More() {
			err = errors.New("more than one JSON value on the line")
		}
	}
	if err == nil {
		var x policy.Explanation
		if x, err = e.ask(q); err == nil {
			return e.write(q, x)
		}
	}
	e.denied = true // what cannot be read is no yes
	return e.line(struct {
		URL string `json:"url"`
	}{q.URL}, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func (e *explainer) end() error {
	if err := e.out.Flush(); err != nil {
		return err
	}
	if e.denied {
		return errNo
	}
	return nil
}
