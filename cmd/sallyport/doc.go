// Command sallyport is an egress proxy: it lets callers reach the names that
// a policy lists, denies everything else, and writes one record of each
// attempt.
//
// The package reads the command line (cli.go), puts the configuration
// together (config.go, from the table in setting.go; the only importer of
// viper), and wires the rooms of the house to each other (serve.go). It
// decides nothing itself.
//
// # Configuration
//
// Flags come before SALLYPORT_* variables, variables before the file, the
// file before the defaults. Every text is checked where it stands, before
// viper merges anything: an unknown key or variable, a key twice, a value of
// another kind, a bare number for a duration, a second YAML document are each
// refused with their place and the remedy, all at once, and nothing starts.
// SALLYPORT_POLICY alone is no key: it holds the text of a policy.
//
// # Policies
//
// serve loads its policy before it opens a socket, and refuses to start
// without one. After that a policy is replaced as a whole or not at all: on
// SIGHUP, and whenever the bytes of a source change, the sources are read
// and compiled again; what cannot be read or compiled leaves the policy in
// force and says so in the log and the metrics. A source of AWS
// (policyaws*.go) that fails after it was read stands with its last text, in
// memory, and is spared for longer each time (sourceset.go).
//
// # Inspection
//
// The CA and its key are read once, at the start, from files, variables or AWS
// Secrets Manager (awssecret.go). What clients would refuse is refused here,
// and nothing that is said or logged holds any of the key. A policy that
// inspects is not admitted where there is no CA. `sallyport ca` makes one whose
// key is worth nothing outside S3's names.
//
// # History
//
// history.go opens the memory of what was visited (logging/history), a reader
// of the bus that never makes a connection wait. The commands that look back
// (sitecmd.go, flowcmd.go) read a store, or ask a running proxy's API, by one
// interface (historysource.go, adminclient.go). Where its overlays are required,
// no listener is opened before they were read (overlaywait.go).
//
// # AWS
//
// What this process itself asks of AWS (awsconfig.go: secrets, policies) is
// signed by the task role and never goes through a proxy: the one in the
// environment may well be this one.
//
// # Callers
//
// identity.go puts together who tells which ECS task calls: the task's own
// metadata in a sidecar, and AWS for the clusters that are listed. /readyz says
// what is known and how old it is; serve is not ready before each cluster was
// listed once.
//
// # Lifetimes
//
// serve builds a list of tasks and runs them in one group. SIGTERM or SIGINT
// turns readiness off and drains the proxy for timeouts.drain at most; a
// second signal cuts. With drain.wait_for_task it serves until the task's other
// containers have stopped, and all of it has timeouts.drain (waittask.go). The
// admin socket answers until the proxy is done, and the log is flushed last.
//
// # Manners
//
// Answers go to standard output, talk to standard error with a "sallyport:"
// prefix, each fault followed by its hint. Nothing is coloured, so NO_COLOR
// has nothing to turn off. Exit codes: 0 done or yes, 1 failed or no, 2 usage or configuration.
//
// testdata/*.txtar is the specification of all of it.
package main
