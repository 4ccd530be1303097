// Command peers holds the Go programs that Sallyport is measured beside:
// goproxy's own CONNECT and HTTP, inetaf/tcpproxy, and bare goroutines with
// io.Copy. Each has an allowlist and writes a line for each connection. They
// are references for a benchmark and no products. This is a module of its own,
// so that nothing here is in Sallyport's go.mod.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// setup is what every peer is told.
type setup struct {
	listen  string
	way     string            // connect, sni or http
	hosts   map[string]string // fixed addresses
	allowed map[string]bool
	log     *journal
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("say which: gosplice, goproxy or tcpproxy")
	}
	s := &setup{hosts: make(map[string]string), allowed: make(map[string]bool)}
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	set.StringVar(&s.listen, "listen", "127.0.0.1:3128", "`ADDRESS` to listen on")
	set.StringVar(&s.way, "way", "connect", "connect, sni or http")
	set.Func("origin", "`NAME=ADDRESS`, as in a hosts file", func(v string) error {
		name, addr, ok := strings.Cut(v, "=")
		if !ok {
			return errors.New("not NAME=ADDRESS")
		}
		s.hosts[name] = addr
		return nil
	})
	allow := set.String("allow", "", "`FILE` of allowed names")
	log := set.String("log", os.DevNull, "`FILE` for the log")
	if err := set.Parse(args[1:]); err != nil {
		return err
	}
	if err := s.readAllowed(*allow); err != nil {
		return err
	}
	f, err := os.OpenFile(*log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	s.log = newJournal(f)
	switch args[0] {
	case "gosplice":
		return s.gosplice()
	case "goproxy":
		return s.goproxy()
	case "tcpproxy":
		return s.tcpproxy()
	default:
		return fmt.Errorf("no peer %q", args[0])
	}
}

func (s *setup) readAllowed(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		s.allowed[scanner.Text()] = true
	}
	return scanner.Err()
}

// fixed puts the hosts' addresses in place of their names.
func (s *setup) fixed(hostPort string) string {
	host, port, err := net.SplitHostPort(hostPort)
	if addr, ok := s.hosts[host]; ok && err == nil {
		return net.JoinHostPort(addr, port)
	}
	return hostPort
}

// journal writes lines, some at a time.
type journal struct {
	mu sync.Mutex // protects w
	w  *bufio.Writer
}

func newJournal(f *os.File) *journal {
	j := &journal{w: bufio.NewWriterSize(f, 64<<10)}
	go func() {
		for range time.Tick(time.Second) {
			j.mu.Lock()
			if err := j.w.Flush(); err != nil {
				fmt.Fprintln(os.Stderr, "peers: log:", err)
			}
			j.mu.Unlock()
		}
	}()
	return j
}

func (j *journal) line(client, name string, allowed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(j.w, "%s %s %s %v\n", time.Now().Format(time.RFC3339Nano), client, name, allowed)
}
