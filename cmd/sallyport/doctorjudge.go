package main

import (
	"fmt"
	"net/http"
)

// The alerts (RFC 8446, section 6) by which a Sallyport refuses raw TLS.
const (
	alertAccessDenied  = 49
	alertInternalError = 80
)

// judgeProxy judges the proxy and what it carries.
func (x *examination) judgeProxy(p proxySeen, inPath bool) {
	if p.url == nil {
		c := check{Name: "proxy", Result: resultUnknown, Seen: "no proxy is named", Change: "name it: --proxy http://HOST:PORT"}
		switch {
		case p.err != nil:
			c = check{Name: "proxy", Result: resultWrong, Sure: certain, Seen: p.err.Error(), Change: "write http://HOST:PORT"}
		case inPath:
			c = check{Name: "proxy", Result: resultOK, Sure: certain, Seen: "a Sallyport answers in the place of destinations"}
		}
		x.add(c)
		return
	}
	c := judgeHello(p)
	c.Name = "proxy"
	x.add(c)
	for _, t := range p.targets {
		c := judgeTarget(t)
		c.Name, c.Subject = "target", t.String()
		x.add(c)
	}
	for _, c := range []struct {
		name string
		check
	}{
		{"proxy-tls", judgeRaw(p.raw)},
		{"credentials-refused", judgeRefusals(p.credentials)},
		{"source", judgeSource(p)},
	} {
		if p.hello.err != nil { // it does not answer at all
			c.check = check{Result: resultUnknown, Seen: "the proxy does not answer"}
		}
		c.Name = c.name
		x.add(c.check)
	}
}

func judgeHello(p proxySeen) check {
	r := p.hello
	at := "the proxy at " + p.url.Host
	switch {
	case r.err != nil:
		return check{
			Result: resultWrong, Sure: certain, Seen: at + ": " + failureText(r.err),
			Change: "is it running, and the name right? In the task's security group allow outbound tcp " + p.url.Port() + " to the proxy's group, and in the proxy's, inbound from the task's",
		}
	case r.code == http.StatusProxyAuthRequired:
		return check{
			Result: resultWrong, Sure: certain, Seen: at + " asks for credentials, or refuses those that it got",
			Change: "take the proxy variables, with http://USER:PASSWORD@HOST:PORT, from the task definition's secrets",
		}
	case r.code/100 == 2:
		return check{
			Result: resultWrong, Sure: certain, Seen: at + " opens a tunnel to " + probeName + ", which exists nowhere",
			Change: "that is no Sallyport: see where the proxy variables lead",
		}
	case !r.ours:
		return check{
			Result: resultUnknown, Seen: fmt.Sprintf("%s answers %s, and not as a Sallyport does", at, r.text()),
			Change: "see where the proxy variables lead",
		}
	case r.code == http.StatusForbidden:
		return check{Result: resultOK, Sure: certain, Seen: at + " answers, and denies " + probeName}
	}
	return check{Result: resultOK, Sure: certain, Seen: fmt.Sprintf("%s answers; %s: %s", at, probeName, r.text())}
}

func judgeTarget(t targetSeen) check {
	switch {
	case t.reply.code == http.StatusForbidden && t.reply.ours:
		return check{
			Result: resultWrong, Sure: certain, Seen: fmt.Sprintf("denied: %s, flow %s", t.reply.reason, t.reply.flow),
			Change: "give the policy a rule for it; to see why: sallyport policy explain " + t.String(),
		}
	case t.reply.code/100 != 2:
		return check{Result: resultWrong, Sure: certain, Seen: "through the proxy: " + t.reply.text(), Change: "read the proxy's log" + flowText(t.reply.flow)}
	case !t.tls:
		return check{Result: resultOK, Sure: likely, Seen: "the proxy opens a tunnel"}
	case t.tlsErr != nil && t.issuer != "":
		return check{
			Result: resultWrong, Sure: certain, Seen: fmt.Sprintf("its certificate, issued by %q, is not trusted here", t.issuer),
			Change: "if that is the CA for inspection, give this container the bundle and the variables of `sallyport ca bundle` and `sallyport ca env`",
		}
	case t.tlsErr != nil:
		return check{Result: resultWrong, Sure: likely, Seen: "TLS through the proxy: " + failureText(t.tlsErr), Change: "read the proxy's log"}
	}
	return check{Result: resultOK, Sure: certain, Seen: fmt.Sprintf("reached through the proxy; its certificate, issued by %q, is trusted", t.issuer)}
}

func flowText(flow string) string {
	if flow == "" {
		return ""
	}
	return " about flow " + flow
}

func judgeRaw(r rawSeen) check {
	switch {
	case !r.tried:
		return check{Result: resultUnknown, Seen: "not tried: clients speak TLS to this proxy itself"}
	case r.alert == alertAccessDenied:
		return check{Result: resultOK, Sure: certain, Seen: "the listener takes raw TLS, and denies " + probeName}
	case r.alert == alertInternalError:
		return check{Result: resultOK, Sure: likely, Seen: "the listener takes raw TLS"}
	}
	seen := "raw TLS is not taken"
	if r.err != nil {
		seen += ": " + failureText(r.err)
	}
	return check{Result: resultUnknown, Seen: seen, Change: "only names that are steered or redirected to this listener need it"}
}

// judgeRefusals judges requests for the task's credentials through the proxy.
func judgeRefusals(all []refusalSeen) check {
	worst := check{Result: resultOK, Sure: certain, Seen: "the proxy carries nothing to 169.254.170.2 and 169.254.169.254"}
	for _, r := range all {
		worst = worse(worst, judgeRefusal(r))
	}
	return worst
}

func judgeRefusal(r refusalSeen) check {
	seen := r.what + " through the proxy: " + r.reply.text()
	switch {
	case r.reply.code/100 == 2:
		return check{
			Result: resultLeak, Sure: certain, Seen: seen + ": it gives away credentials of the role that it runs under, or of this task's",
			Change: "use a proxy that refuses 169.254.0.0/16: a Sallyport does, whatever its policy says",
		}
	case r.reply.ours && r.reply.code == http.StatusForbidden:
		return check{Result: resultOK}
	case !r.reply.ours && r.reply.code/100 == 4 && r.reply.code != http.StatusProxyAuthRequired && r.what[0] == 'C':
		return check{Result: resultOK}
	case r.reply.code == http.StatusProxyAuthRequired:
		return check{Result: resultUnknown, Seen: seen + ": it wants credentials first", Change: "name the proxy with its credentials"}
	}
	return check{Result: resultUnknown, Seen: seen, Change: "see that the proxy refuses 169.254.0.0/16"}
}

// judgeSource judges whether the proxy sees this task's own address, which is
// by what it knows it.
func judgeSource(p proxySeen) check {
	local := p.local.Addr()
	switch {
	case !local.IsValid() || !p.hello.ours:
		return check{Result: resultUnknown, Seen: "no Sallyport answered"}
	case p.hello.client == local.String():
		return check{Result: resultOK, Sure: certain, Seen: "the proxy sees " + local.String() + ", this task's address"}
	case p.hello.client != "":
		return check{
			Result: resultWrong, Sure: certain, Seen: fmt.Sprintf("the proxy sees %s, this task is %s: a load balancer or NAT stands in between", p.hello.client, local),
			Change: "set preserve_client_ip.enabled on the NLB's target group, or proxy_protocol_v2.enabled there and proxy_protocol: required on the listener; take NAT out of the way",
		}
	case local.IsLoopback() || local == p.remote.Addr():
		return check{Result: resultOK, Sure: certain, Seen: "the proxy is in this task, and sees " + local.String()}
	}
	return check{
		Result: resultUnknown, Seen: fmt.Sprintf("this task is %s to %s; what the proxy sees stands in its record", local, p.remote),
		Change: fmt.Sprintf("find flow %s in the proxy's log: its client.address must be %s", p.hello.flow, local),
	}
}
