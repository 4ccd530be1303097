package main

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// task is one thing that runs as long as the daemon does.
type task struct {
	name string
	run  func(context.Context) error
}

// inStages runs the tasks of every stage at once, and ends them stage by
// stage: a stage is told to stop when the one before it has ended, the first
// when ctx does. The first failure anywhere stops all, in the same order.
func inStages(ctx context.Context, stages ...[]task) error {
	group, ctx := errgroup.WithContext(ctx)
	startStages(ctx, group, stages)
	return group.Wait()
}

// startStages starts every task. Those of the first stage stop with ctx.
func startStages(ctx context.Context, group *errgroup.Group, stages [][]task) {
	if len(stages) == 0 {
		return
	}
	var running sync.WaitGroup
	for _, t := range stages[0] {
		running.Add(1)
		group.Go(func() error {
			defer running.Done()
			if err := t.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return nil
		})
	}
	next, stop := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		running.Wait()
		stop()
		return nil
	})
	startStages(next, group, stages[1:])
}
