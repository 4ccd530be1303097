package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxFiles is how many descriptors a process of the run may have, where the
// machine permits as many: enough for 9,000 tunnels, and few enough for
// programs that size their tables by it.
const maxFiles = 20000

// limitFiles sets the limit for this process and all that it starts, and
// returns what it has come to.
func limitFiles() (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	l.Cur = min(l.Max, maxFiles)
	l.Max = l.Cur
	return int(l.Cur), syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// child is a process that the run has started, in a process group of its own.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // how it exited
}

// command is what to run, and how.
type command struct {
	argv   []string
	env    []string
	dir    string // working folder, and where stdout and stderr go unless given
	cpu    int    // to run on, -1 any
	stdin  io.Reader
	stdout io.Writer
}

func (c command) start() (*child, error) {
	argv := c.argv
	if c.cpu >= 0 {
		argv = append([]string{"taskset", "-c", strconv.Itoa(c.cpu)}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin", "HOME=" + c.dir}, c.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stdin, cmd.Stdout = c.stdin, c.stdout
	if cmd.Stdout == nil {
		f, err := c.file("stdout")
		if err != nil {
			return nil, err
		}
		defer f.Close()
		cmd.Stdout = f
	}
	f, err := c.file("stderr")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd.Stderr = f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ch := &child{cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(ch.exited)
		ch.err = cmd.Wait()
	}()
	return ch, nil
}

func (c command) file(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(c.dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// stop ends the process, with force after a while, and the rest of its group.
func (c *child) stop(patience time.Duration) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.exited:
	case <-time.After(patience):
	}
	_ = syscall.Kill(-c.pid(), syscall.SIGKILL) // workers that stayed behind
	<-c.exited
}

// lastWords returns the end of what a process wrote to a file, in one line.
func lastWords(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	said := strings.Join(strings.Fields(string(text)), " ")
	if len(said) > 400 {
		said = "..." + said[len(said)-400:]
	}
	return said
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// final is an error that waiting does not help.
type final struct{ error }

// until asks again and again, until the answer is nil, or final.
func until(ctx context.Context, patience time.Duration, ask func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[final](err); ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %w", patience, err)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
	}
}
