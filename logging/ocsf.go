package logging

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/logging/flow"
	"github.com/sallyport/sallyport/policy"
)

// ocsfVersion is the release of the Open Cybersecurity Schema Framework whose
// Network Activity (class 4001) the lines are; what they use has been there
// since 1.5.0.
const ocsfVersion = "1.8.0"

const (
	ocsfCategory = 4
	ocsfClass    = 4001
)

// ocsfWord is a number of an enumeration of OCSF with its caption.
type ocsfWord struct {
	id      int
	caption string
}

// AppendOCSF appends the line for e in OCSF's Network Activity, with its line
// feed, to dst: Open for an allowed attempt, Close, Fail or Reset for its end,
// Refuse for a denied one, with the profiles security_control and, where the
// calling task is known, cloud. What OCSF has no word for is below "unmapped",
// named as in the flow log. The line is printable ASCII and of bounded length,
// as [AppendFlow]'s is.
func AppendOCSF(dst []byte, e *flow.Event) []byte {
	r := &e.Record
	activity, ok := ocsfActivity(e)
	if !ok {
		return dst
	}
	out := lineBuffer{line: dst}
	log := zerolog.New(guard{w: &out, escape: appendASCIIJSON})
	at := r.End
	if e.Kind == flow.Opened || at.IsZero() {
		at = r.Start
	}
	l := log.Log()
	l.Int64("time", at.UnixMilli())
	l.Int("category_uid", ocsfCategory).Str("category_name", "Network Activity")
	l.Int("class_uid", ocsfClass).Str("class_name", "Network Activity")
	ocsfEnum(l, "activity", activity)
	l.Int("type_uid", ocsfClass*100+activity.id).Str("type_name", "Network Activity: "+activity.caption)
	ocsfSeverity(l, e)
	ocsfOutcome(l, e)
	ocsfControl(l, r)
	l.Dict("metadata", ocsfMetadata(l.CreateDict(), e))
	ocsfEndpoints(l, r)
	ocsfConnection(l, r)
	if r.TLS.Version != "" { // which the object needs
		tls := text(l.CreateDict(), "version", r.TLS.Version, limitMethod)
		l.Dict("tls", text(tls, "sni", r.TLS.ServerName, limitName))
	}
	if e.Kind == flow.Closed {
		l.Int64("start_time", r.Start.UnixMilli()).Int64("end_time", at.UnixMilli()).Int64("duration", r.Duration().Milliseconds())
		l.Dict("traffic", l.CreateDict().Int64("bytes_out", r.BytesSent).Int64("bytes_in", r.BytesReceived).
			Int64("bytes", r.BytesSent+r.BytesReceived))
	}
	ocsfCloud(l, r)
	l.Dict("unmapped", ocsfUnmapped(l.CreateDict(), e))
	l.Send()
	return out.line
}

// ocsfEnum adds an enumeration's number and its caption.
func ocsfEnum(l *zerolog.Event, name string, w ocsfWord) {
	l.Int(name+"_id", w.id)
	if name == "activity" {
		name += "_name" // the one attribute whose caption is called otherwise
	}
	l.Str(name, w.caption)
}

func ocsfActivity(e *flow.Event) (ocsfWord, bool) {
	switch r := &e.Record; e.Kind {
	case flow.Opened:
		return ocsfWord{1, "Open"}, true
	case flow.Denied:
		return ocsfWord{5, "Refuse"}, true
	case flow.Closed:
		switch {
		case !r.Peer.IsValid() && r.Outcome != flow.OutcomeOK:
			return ocsfWord{4, "Fail"}, true // it never got a connection
		case r.Outcome == flow.OutcomeConnectionRefused, r.Outcome == flow.OutcomeConnectionTimeout:
			return ocsfWord{4, "Fail"}, true
		case r.EndedBy == flow.EndedByPolicy, r.EndedBy == flow.EndedByDrain, r.EndedBy == flow.EndedByIdle:
			return ocsfWord{3, "Reset"}, true // by a middle device, which is us
		}
		return ocsfWord{2, "Close"}, true
	}
	return ocsfWord{}, false
}

func ocsfSeverity(l *zerolog.Event, e *flow.Event) {
	w := ocsfWord{1, "Informational"}
	if e.Kind == flow.Denied || e.Record.WouldDeny {
		w = ocsfWord{2, "Low"} // it was dealt with; what it means a rule of the reader's says
	}
	ocsfEnum(l, "severity", w)
}

func ocsfOutcome(l *zerolog.Event, e *flow.Event) {
	r := &e.Record
	if e.Kind == flow.Opened {
		ocsfEnum(l, "status", ocsfWord{1, "Success"})
		return
	}
	w := ocsfWord{2, "Failure"}
	if r.Outcome == flow.OutcomeOK {
		w = ocsfWord{1, "Success"}
	}
	ocsfEnum(l, "status", w)
	text(l, "status_code", string(r.Outcome), limitName)
	if r.Error != "" {
		l.Str("status_detail", sentence(r.Error, limitError))
	}
}

// ocsfControl adds the profile security_control.
func ocsfControl(l *zerolog.Event, r *flow.Record) {
	switch {
	case r.Verdict == policy.Deny:
		ocsfEnum(l, "action", ocsfWord{2, "Denied"})
		ocsfEnum(l, "disposition", ocsfWord{2, "Blocked"})
	case r.WouldDeny:
		ocsfEnum(l, "action", ocsfWord{1, "Allowed"})
		ocsfEnum(l, "disposition", ocsfWord{17, "Logged"})
	default:
		ocsfEnum(l, "action", ocsfWord{1, "Allowed"})
		ocsfEnum(l, "disposition", ocsfWord{1, "Allowed"})
	}
	if r.Rule != "" {
		l.Dict("firewall_rule", label(l.CreateDict(), "name", r.Rule))
	}
	if r.PolicyVersion != "" {
		d := label(l.CreateDict(), "uid", r.PolicyVersion)
		l.Dict("policy", label(d, "version", r.PolicyVersion).Bool("is_applied", !r.WouldDeny))
	}
}

func ocsfMetadata(d *zerolog.Event, e *flow.Event) *zerolog.Event {
	r := &e.Record
	d.Str("version", ocsfVersion)
	d.Dict("product", d.CreateDict().Str("name", "Sallyport").Str("vendor_name", "Sallyport"))
	profiles := d.CreateArray().Str("security_control")
	if r.Task != nil {
		profiles.Str("cloud")
	}
	d.Array("profiles", profiles)
	d.Str("event_code", "flow."+e.Kind.String()).Str("log_name", "flow").Str("log_version", strconv.Itoa(schemaVersion))
	if r.ID != "" {
		text(d, "uid", r.ID+"/"+e.Kind.String(), limitName)
		text(d, "correlation_uid", r.ID, limitName)
	}
	return d
}

func ocsfEndpoints(l *zerolog.Event, r *flow.Record) {
	// The schema asks for one of both, and for one attribute in each.
	src := l.CreateDict().Str("ip", unspecified(r.Client.Addr())).Uint16("port", r.Client.Port())
	label(src, "name", r.Source)
	if r.Task != nil {
		text(src, "svc_name", r.Task.Service, limitName)
		text(src, "instance_uid", r.Task.ARN, limitARN)
	}
	if r.Principal != "" {
		src.Dict("owner", text(src.CreateDict(), "name", r.Principal, limitName))
	}
	l.Dict("src_endpoint", src)
	if r.Host == "" && !r.Peer.IsValid() {
		return
	}
	dst, port := ocsfHost(l.CreateDict(), r), r.Port
	if r.Peer.IsValid() {
		text(dst, "ip", r.Peer.Addr().Unmap().String(), limitName)
		port = r.Peer.Port()
	}
	l.Dict("dst_endpoint", dst.Uint16("port", port))
}

// ocsfHost adds what was asked for: as hostname or ip only what is one, for
// these attributes have a grammar.
func ocsfHost(d *zerolog.Event, r *flow.Record) *zerolog.Event {
	h, err := policy.ParseHost(r.Host)
	addr, isAddr := h.Addr()
	switch {
	case err != nil:
		return text(d, "name", r.Host, limitName)
	case !isAddr:
		return text(d, "hostname", h.String(), limitName)
	case !r.Peer.IsValid():
		return d.Str("ip", unspecified(addr.WithZone("")))
	}
	return d
}

func unspecified(a netip.Addr) string {
	if !a.IsValid() {
		return netip.IPv4Unspecified().String()
	}
	return clean(a.Unmap().String(), limitName)
}

func ocsfConnection(l *zerolog.Event, r *flow.Record) {
	name, number := "tcp", 6
	if r.Datagram {
		name, number = "udp", 17
	}
	d := l.CreateDict().Int("direction_id", 2).Str("direction", "Outbound").Str("protocol_name", name).Int("protocol_num", number)
	version := 4
	if r.Client.Addr().Unmap().Is6() {
		version = 6
	}
	l.Dict("connection_info", d.Int("protocol_ver_id", version))
}

// ocsfCloud adds the profile cloud: where the calling task runs.
func ocsfCloud(l *zerolog.Event, r *flow.Record) {
	if r.Task == nil {
		return
	}
	d := l.CreateDict().Str("provider", "AWS")
	region, account := arnPlace(r.Task.ARN)
	text(d, "region", region, limitName)
	if account != "" {
		d.Dict("account", text(d.CreateDict(), "uid", account, limitName))
	}
	l.Dict("cloud", d)
}

// arnPlace reads arn:PARTITION:SERVICE:REGION:ACCOUNT:...; the account is ""
// unless it is twelve digits.
func arnPlace(arn string) (region, account string) {
	part := strings.SplitN(arn, ":", 6)
	if len(part) < 6 || part[0] != "arn" {
		return "", ""
	}
	if len(part[4]) != 12 || strings.Trim(part[4], "0123456789") != "" {
		return part[3], ""
	}
	return part[3], part[4]
}

// ocsfUnmapped adds what only the flow log has words for.
func ocsfUnmapped(d *zerolog.Event, e *flow.Event) *zerolog.Event {
	r := &e.Record
	addHTTP(d, e)
	addAWS(d, r)
	if r.TLS.Version == "" {
		text(d, "tls.client.server_name", r.TLS.ServerName, limitName)
	}
	s := d.CreateDict().Str("mode", r.Mode.String()).Bool("would_deny", r.WouldDeny).Str("via", r.Via.String())
	text(s, "reason", string(r.Reason), limitName)
	text(s, "enforcement", r.Enforcement(), limitName)
	text(s, "vpc_endpoint", r.VPCEndpoint, limitName)
	label(s, "owner", r.Owner)
	if r.Original.IsValid() {
		text(s, "original", r.Original.String(), limitName)
	}
	if e.Kind != flow.Opened {
		text(s, "ended_by", string(r.EndedBy), limitName)
	}
	addTimes(s, &r.Times)
	addTCP(s, r)
	return d.Dict("sallyport", s)
}
