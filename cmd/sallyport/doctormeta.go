package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
)

// The variables by which ECS tells a container where to ask.
const (
	metadataVariable    = "ECS_CONTAINER_METADATA_URI_V4"
	credentialsVariable = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" //nolint:gosec // the name of a variable
)

// statusSeen is the status of an answer, the only thing that is looked at.
type statusSeen struct {
	set  bool // its variable
	code int
	err  error
}

// metadataSeen is how the task's own endpoints answer.
type metadataSeen struct{ metadata, credentials statusSeen }

// metadata asks both endpoints directly. What the second answers is a secret:
// its body is left unread, and its URL is never shown.
func (p *prober) metadata(ctx context.Context, base string, env environ) (seen metadataSeen) {
	var both sync.WaitGroup
	if uri := env.get(metadataVariable); uri != "" {
		seen.metadata.set = true
		both.Go(func() { seen.metadata.code, seen.metadata.err = p.status(ctx, uri) })
	}
	if path := env.get(credentialsVariable); path != "" {
		seen.credentials.set = true
		both.Go(func() {
			if !strings.HasPrefix(path, "/") {
				seen.credentials.err = fmt.Errorf("%s does not begin with a slash", credentialsVariable)
				return
			}
			seen.credentials.code, seen.credentials.err = p.status(ctx, base+path)
		})
	}
	both.Wait()
	return seen
}

// status is the status of a GET, through no proxy and after no redirect.
func (p *prober) status(ctx context.Context, uri string) (int, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return 0, errors.New("it is no URL")
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Scheme != "http" || err != nil || !isInside(addr) {
		return 0, errors.New("it does not begin with http://169.254.170.2/, and was not asked")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, http.NoBody)
	if err != nil {
		return 0, errors.New("it is no URL")
	}
	transport := &http.Transport{DialContext: p.dial, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

// judgeMetadata judges what an application must reach without the proxy.
func (x *examination) judgeMetadata(m metadataSeen) {
	c := judgeStatus(m.metadata, metadataVariable)
	if !m.metadata.set {
		c.Seen += ": this is no ECS task, or not its environment"
	}
	c.Name = "metadata"
	x.add(c)
	c = judgeStatus(m.credentials, credentialsVariable)
	if !m.credentials.set {
		c.Seen += ": the task has no role, or this is not its environment"
	}
	c.Name = "credentials"
	x.add(c)
}

func judgeStatus(s statusSeen, variable string) check {
	switch {
	case !s.set:
		return check{Result: resultUnknown, Seen: variable + " is not set"}
	case s.err != nil:
		return check{
			Result: resultWrong, Sure: certain, Seen: "directly: " + failureText(s.err),
			Change: "let nothing in this task filter or redirect 169.254.170.2: with proxyConfiguration, list it in EgressIgnoredIPs",
		}
	case s.code != http.StatusOK:
		return check{
			Result: resultWrong, Sure: likely, Seen: fmt.Sprintf("directly: %d", s.code),
			Change: "see the task role's trust in ecs-tasks.amazonaws.com, and that nothing redirects 169.254.170.2",
		}
	}
	return check{Result: resultOK, Sure: certain, Seen: "answers directly"}
}
