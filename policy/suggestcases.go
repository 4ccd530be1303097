package policy

import (
	"bytes"
	"encoding/base32"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Cases returns the suggestion's evidence as a document of policy unit tests of
// the policy that is named: every observation that was kept is allowed, and what
// was left out is denied, as are names that look like those that wildcards span.
func (s *Suggestion) Cases(policyName string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "version: 1\npolicy: [%q]\n", policyName)
	p, err := Load(Text{"suggested.yaml", s.Document()})
	if err != nil {
		p = nil // then every case that asks for an answer of it fails
	}
	w := caseWriter{b: &b, names: map[string]bool{}}
	for i := range s.kept {
		if k := &s.kept[i]; presentable(&k.query) {
			w.write(&k.query, k.Caller()+" to "+k.Site(), "allow")
		}
	}
	for _, q := range s.strangers() {
		if p.Decide(q).Reason != ReasonRule {
			w.write(&q, "nobody to "+q.Host.String(), "deny")
		}
	}
	for i := range s.LeftOut {
		l := &s.LeftOut[i]
		if !l.query.Host.IsZero() && presentable(&l.query) && p.Decide(l.query).Reason != ReasonRule {
			w.write(&l.query, "left out, "+l.Caller+" to "+l.Site, "deny")
		}
	}
	if len(w.names) == 0 {
		fmt.Fprint(&b, "cases:\n  - {name: nothing was seen, to: \"https://unseen.example\", expect: deny}\n")
	}
	return b.Bytes()
}

// strangers returns questions for names that look like the suggestion's and are
// not, one for each wildcard, and one for a name that nobody has.
func (s *Suggestion) strangers() []Query {
	names := []string{"unseen.example"}
	for _, r := range s.Rules {
		for _, h := range r.Hosts {
			if parent, ok := strings.CutPrefix(h.Pattern, "*."); ok {
				names = append(names, "evil-"+parent, parent+".example")
			}
		}
	}
	slices.Sort(names)
	var all []Query
	for _, name := range slices.Compact(names) {
		if h, err := ParseHost(name); err == nil {
			q := Query{Via: ViaTLS, Host: h, Port: 443, Protocol: ProtocolTLS}
			if len(s.Sources) > 0 {
				q.Source = s.Sources[0].example
			}
			all = append(all, q)
		}
	}
	return all
}

// presentable reports whether a case can put the question.
func presentable(q *Query) bool {
	if t := q.Source.Task; q.Port == 0 || (t != nil && t.Cluster == "" && t.Service != "") {
		return false
	}
	if q.S3 == nil {
		return true
	}
	if (q.S3.Operation == "PostObject") != (q.S3.Signer.Scheme == S3SigForm) {
		return false // a form is signed within, and nothing else is
	}
	_, _, ok := exampleTarget(q.S3)
	return ok && q.S3.ACL == ""
}

// caseWriter writes cases.
type caseWriter struct {
	b     *bytes.Buffer
	names map[string]bool
}

func (w *caseWriter) write(q *Query, name, expect string) {
	if len(w.names) == 0 {
		fmt.Fprint(w.b, "cases:\n")
	}
	unique := name
	for i := 2; w.names[unique]; i++ {
		unique = fmt.Sprintf("%s (%d)", name, i)
	}
	w.names[unique] = true
	fmt.Fprintf(w.b, "  - name: %s\n", strconv.QuoteToASCII(unique))
	w.caller(&q.Source)
	if q.S3 != nil {
		w.request(q.S3, q.Port)
	} else {
		fmt.Fprintf(w.b, "    to: %q\n", targetOf(q))
	}
	fmt.Fprintf(w.b, "    expect: %s\n", expect)
}

// caller writes who calls, as far as a case can say it.
func (w *caseWriter) caller(s *Source) {
	line := func(key, value string, err *patternError) {
		if value != "" && err == nil {
			fmt.Fprintf(w.b, "    %s: %s\n", key, strconv.QuoteToASCII(value))
		}
	}
	if s.Addr.IsValid() && s.Addr.Zone() == "" {
		line("from", s.Addr.Unmap().String(), nil)
	}
	line("vpc_endpoint", s.VPCEndpoint, checkEndpoint(s.VPCEndpoint))
	line("principal", s.Principal, checkPrincipal(s.Principal))
	t := s.Task
	if t == nil {
		if s.Unidentified {
			fmt.Fprint(w.b, "    unidentified: true\n")
		}
		return
	}
	if t.Cluster != "" {
		line("service", t.Cluster+"/"+t.Service, firstProblem(checkName(t.Cluster, ""), checkName(t.Service, "")))
	}
	family := t.Family
	if family != "" && t.Revision > 0 {
		family += ":" + strconv.Itoa(t.Revision)
	}
	line("family", family, checkName(t.Family, ""))
	if len(t.Tags) > 0 {
		w.tags(t.Tags)
	}
}

func (w *caseWriter) tags(tags map[string]string) {
	var all []string
	for key, value := range tags {
		if new(Source).tag(key, value) == nil {
			all = append(all, strconv.QuoteToASCII(key)+": "+strconv.QuoteToASCII(value))
		}
	}
	slices.Sort(all)
	if len(all) > 0 {
		fmt.Fprintf(w.b, "    tags: {%s}\n", strings.Join(all, ", "))
	}
}

func firstProblem(all ...*patternError) *patternError {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// targetOf writes a query's destination as [ParseTarget] reads it.
func targetOf(q *Query) string {
	scheme, standard := "https://", uint16(443)
	switch q.Protocol {
	case ProtocolHTTP:
		scheme, standard = "http://", 80
	case ProtocolTCP, ProtocolUnknown:
		scheme, standard = "tcp://", 0
	case ProtocolTLS:
	}
	host := q.Host.String()
	if q.Port != standard {
		return scheme + net.JoinHostPort(host, strconv.Itoa(int(q.Port)))
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return scheme + host
}

// request writes a request that asks for what a call asked for.
func (w *caseWriter) request(c *S3Call, port uint16) {
	method, target, _ := exampleTarget(c)
	host := c.Host.String()
	if port != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	fmt.Fprintf(w.b, "    method: %s\n    to: %s\n", method, strconv.QuoteToASCII("https://"+host+target))
	var headers []string
	if c.Signer.Scheme != S3Anonymous && c.Signer.Scheme != S3SigForm {
		scope := "20260101/us-east-1/s3/aws4_request"
		headers = append(headers, fmt.Sprintf("Authorization: \"AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=host, Signature=00\"", exampleKeyID(c.Signer.Account), scope))
	}
	if header, value := exampleSource(c); header != "" {
		headers = append(headers, header+": "+strconv.QuoteToASCII(value))
	}
	if headers != nil {
		fmt.Fprintf(w.b, "    headers: {%s}\n", strings.Join(headers, ", "))
	}
}

// exampleTarget returns a request that is a call's operation on its bucket, and
// false where none can be written.
func exampleTarget(c *S3Call) (method, target string, ok bool) {
	method, level, query, ok := exampleOf(c.Operation)
	if !ok || level == s3Service {
		return "", "", false
	}
	target = "/"
	if ref, _ := readS3Host(c.Host); ref.inPath {
		target += c.Ref.Bucket + c.Ref.AccessPoint
		if level == s3Object {
			target += "/"
		}
	}
	if level == s3Object {
		target += "key"
	}
	request := S3Request{Method: method, Host: c.Host.String(), Target: target + query}
	if header, value := exampleSource(c); header != "" {
		request.Header = func(name string) []string {
			if name == header {
				return []string{value}
			}
			return nil
		}
	}
	read, err := ParseS3Request(request)
	same := func(a, b S3Ref) bool { return a.Bucket == b.Bucket && a.AccessPoint == b.AccessPoint }
	ok = err == nil && read.Operation == c.Operation && same(read.Ref, c.Ref) && (c.Source.Ref.Form == "" || same(read.Source.Ref, c.Source.Ref))
	return method, target + query, ok
}

// exampleSource returns the header that names where a call takes its bytes
// from, "" for one that takes them from its body.
func exampleSource(c *S3Call) (header, value string) {
	switch c.Operation {
	case "RenameObject":
		return "X-Amz-Rename-Source", "/key"
	case "CopyObject", "UploadPartCopy":
		return "X-Amz-Copy-Source", c.Source.Ref.Bucket + c.Source.Ref.AccessPoint + "/key"
	}
	return "", ""
}

// exampleOf returns the method, the level and the query of an operation.
func exampleOf(operation string) (method string, level s3Level, query string, ok bool) {
	switch operation {
	case "":
		return "", 0, "", false
	case "CopyObject":
		return "PUT", s3Object, "", true
	case "UploadPartCopy":
		return "PUT", s3Object, "?partNumber=1&uploadId=u", true
	case "ListObjectAnnotations":
		return "GET", s3Object, "?annotation", true
	}
	name := operation
	if base, found := strings.CutPrefix(operation, "ListBucket"); found {
		name = "GetBucket" + strings.TrimSuffix(base, "s")
	}
	for _, level := range []s3Level{s3Bucket, s3Object} {
		for resource, r := range s3Resources(level) {
			for _, m := range []struct{ method, operation string }{{"GET", r.get}, {"HEAD", r.head}, {"PUT", r.put}, {"POST", r.post}, {"DELETE", r.del}} {
				if m.operation == operation || (m.operation == name && m.method == "GET") {
					return m.method, level, exampleQuery(resource, operation), true
				}
			}
		}
	}
	return "", 0, "", false
}

// exampleQuery writes the query that names a sub-resource for an operation.
func exampleQuery(resource, operation string) string {
	switch resource {
	case "":
		return ""
	case "list-type":
		return "?list-type=2"
	case "uploadId":
		if operation == "UploadPart" {
			return "?partNumber=1&uploadId=u"
		}
		return "?uploadId=u"
	case "annotation":
		return "?annotation&annotationName=a"
	case "analytics", "intelligent-tiering", "inventory", "metrics":
		if !strings.HasPrefix(operation, "List") {
			return "?" + resource + "&id=i"
		}
	case "select":
		return "?select&select-type=2"
	}
	return "?" + resource
}

// exampleKeyID returns an access key id that encodes an account; one that
// encodes none where the account is not known.
func exampleKeyID(account string) string {
	n, err := strconv.ParseUint(account, 10, 64)
	if err != nil || !isAccount(account) {
		return "AKIAIOSFODNN7EXAMPLE"
	}
	var raw [10]byte
	v := n<<7 | 1<<47
	for i := range 6 {
		raw[i] = byte(v >> (40 - 8*i))
	}
	return "ASIA" + base32.StdEncoding.EncodeToString(raw[:])
}
