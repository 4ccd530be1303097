package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// inNamespace runs the benchmark in new network, mount and process
// namespaces. They have no name and end with their first process, and with
// them ends every process inside: nothing is left to clean, even after a
// SIGKILL. A reason means that there can be no namespace here, and nothing has
// run.
func inNamespace(ctx context.Context, o options, stdout, stderr io.Writer) (reason string, err error) {
	text, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, self, roleInside, string(text))
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return err.Error(), nil //nolint:nilerr // the reason says it, and there is another way
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("the run in its namespace: %w", err)
	}
	return "", nil
}

// furnish makes the namespaces habitable: a /proc of their own processes, a
// private /run and /dev/shm, a hosts file with the origin in it, a network.
// Nothing of it is seen outside.
func furnish(hosts string) error {
	if os.Getpid() != 1 {
		return errors.New("this is not a namespace of its own: start the program without arguments")
	}
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/dev/shm"} {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=1777"); err != nil {
			return fmt.Errorf("mounting %s: %w", dir, err)
		}
	}
	// Squid's workers meet here, as whomever they become.
	if err := errors.Join(os.Mkdir("/run/squid", 0o777), os.Chmod("/run/squid", 0o777)); err != nil {
		return err
	}
	const file = "/run/bench.hosts"
	if err := os.WriteFile(file, []byte(hosts), 0o644); err != nil {
		return err
	}
	if err := syscall.Mount(file, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting /etc/hosts: %w", err)
	}
	// From here on, one thread makes networks and starts what lives in them.
	runtime.LockOSThread()
	return freshNetwork()
}

// freshNetwork moves this thread, and what it starts from now on, into a new
// network with loopback up. The connections that one subject leaves to linger
// (TIME_WAIT) occupy ports for a minute, and would be in the next one's way.
// It is for the goroutine of furnish.
func freshNetwork() error {
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		return fmt.Errorf("a new network: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	return tuneNetwork()
}

// tuneNetwork settles what would otherwise be the machine's choice. Reno,
// because bbr paces even loopback. Ports that linger are used again, or they
// would run out at some ten thousand tunnels a second.
func tuneNetwork() error {
	for name, value := range map[string]string{
		"net/ipv4/tcp_congestion_control": "reno",
		"net/ipv4/ip_local_port_range":    "1024 65535",
		"net/ipv4/tcp_tw_reuse":           "1",
	} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
