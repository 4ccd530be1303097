// Package ecs tells which ECS task is behind an address, by asking AWS. On
// Fargate an address is a task's for as long as the task lives, which may be
// minutes, and the network sees to it that nobody else sends from it.
//
// # The map
//
//	ListTasks ──► new, changed, vanished ──► DescribeTasks ──► records ──► table
//	    ▲                                        ▲                           │
//	    └── poll, or somebody unknown called     └── events (SQS)     Identify ◄┘
//
// A [Directory] has one watcher for each cluster. Every Poll, less or more a
// quarter, it lists the cluster, and describes what it has not seen, what has
// no address yet, what is no longer listed (a task that is told to stop
// vanishes from the list and still talks for a while), and, every five minutes,
// the rest, because tags change. [Directory.Identify] reads a table of
// copy-on-write maps: no lock, no allocation, whatever the number of tasks.
//
// # Whose address it is
//
// Addresses are used again soon after a task has stopped, and AWS's answers
// lag. So an address belongs to the newest task that claims it, by creation;
// whoever lost an address never gets it back. Of one task the answer with the
// higher version counts, for a minute; after that AWS is believed again. A task
// whose network interface is gone (DEPROVISIONING and later) holds nothing: its
// address is unknown until somebody newer claims it. What stays possible is that
// a task stops, and another gets its address and calls, all between two polls:
// the queue of events closes that gap.
//
// The key is the address together with the VPC endpoint that the caller came
// through, since addresses of several VPCs overlap. A cluster says through
// which endpoints its tasks come; without that, they come directly.
//
// # Unknown callers
//
// An unknown address makes every cluster it may be in be listed now rather
// than at the next poll. All who wait share that listing; each waits for
// Patience at most and is then Unidentified. Who was not found is not asked
// about for five seconds. The listings are spaced so that they use at most
// half of the calls that a watcher allows itself (callRate): a flood of unknown
// addresses costs AWS no more than that, and delays nobody who is known.
//
// # Events
//
// With a queue, ECS task state changes arrive within seconds. An event never
// makes an identity: it takes one away, when it says that a task is gone, or
// names a task to describe. Who can write to the queue can thus deny, never
// impersonate. A queue serves one process: each message is received once.
//
// # When AWS does not answer
//
// What is known stays in force, and [Directory.Status] says how old it is and
// what is wrong; of a missing permission, which action it is. Only tasks with
// a network interface of their own (awsvpc, thus all of Fargate) have an
// address that says who they are.
package ecs
