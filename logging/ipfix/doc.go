// Package ipfix exports every attempt that ended or was denied to a collector
// of IP Flow Information Export (RFC 7011), with what no address tells: the
// name asked for, the rule, the verdict, the task.
//
// # What is sent
//
// One bidirectional flow record (RFC 5103) an attempt, when it has ended. Its
// source is the client; its destination is the address that the proxy dialled
// or, where none was, the address asked for. Where a name was asked for and
// nothing was dialled there is no destination address: such records have a
// template of their own, rather than an address that was never meant. Where
// one side speaks IPv4 and the other IPv6, both are written as IPv6, the former
// mapped (RFC 4291, section 2.5.5.2).
//
// Octets are those that the proxy carried, without the headers of IP and TCP,
// client to origin and, reversed, origin to client; the proxy sees no packets
// and counts none. forwardingStatus is 64 (forwarded) or from 128 on (dropped,
// 129: by policy); flowEndReason tells the idle, the forced and the ordinary
// end apart.
//
// The enterprise elements ([Elements]) carry the rest. They are announced by
// name and type in option records (RFC 5610), so that a collector may learn
// them, under an enterprise number that the operator chooses. The default,
// [DocumentationEnterprise], is the one that RFC 5612 keeps for examples: the
// project has none of its own, and two exporters that use it cannot be told
// apart by it. Numbers and meaning of elements never change; new ones are added
// at the end.
//
// What a client wrote is escaped and cut as in the flow log.
//
// # How it is sent
//
// The [Exporter] is a flow.Reader behind a flow.Queue that drops: a collector
// that is slow, gone or never was costs records, counted, and no connection
// waits. By UDP, messages stay below the MTU (a record that would not fit has
// its strings cut shorter) and templates are repeated; by TCP they are sent
// once in a connection. A connection that broke is made anew, with growing
// pauses, the collector's name looked up again, templates first. A message that
// could not be written is sent again; what the kernel had taken before a
// connection broke is lost, for the protocol has no acknowledgements.
//
// # What it will never do
//
// It dials the collector itself, whatever proxy variables say, and never
// through the proxy. It does no TLS: a collector belongs into the same private
// network.
package ipfix
