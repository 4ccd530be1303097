// Package identity tells who is calling.
//
// A caller is an address, and what can be found out beside it. Each way of
// finding out is an [Identifier], as proxy asks for one; [Chain] asks several
// in turn and takes the first that knows. The ways are:
//
//   - [Own]: in a sidecar every caller from loopback, or from the task's own
//     addresses, is the task itself, whose identity its metadata endpoint
//     (version 4) tells without any AWS permission;
//   - identity/ecs: in a fleet, the task that AWS says an address belongs to.
//
// What the chain returns is a policy.Source. Its Task is nil when nobody
// knows, and Unidentified then says whether somebody should have known: [Own]
// has no opinion about strangers unless it is told to have one.
//
// Beside who an address is, a caller may prove a principal: by [Credentials],
// or by a certificate on a listener that speaks TLS ([ClientTLS]).
//
// # The metadata endpoint
//
// [Metadata] is a client of it, for the proxy itself: clients never reach it
// through the proxy, whatever a policy says. It asks the address that ECS put
// into ECS_CONTAINER_METADATA_URI_V4 and no other: no proxy, no redirect, two
// seconds, a megabyte. Besides the task's identity it tells how the task's
// other containers are, so that a sidecar can outlive them ([Metadata.Others]).
//
// With network mode host every task of an instance shares its loopback and
// its addresses; Own then knows nobody.
package identity
