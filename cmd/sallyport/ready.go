package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func readyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ready", Short: "ask a running proxy whether it is ready: the container's health check", Args: cobra.NoArgs}
	addFlags(cmd, "admin")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := loadConfig(cmd.Flags())
		if err != nil {
			return err
		}
		detail, err := askReady(cmd.Context(), l.Admin.Address)
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), detail)
		return nil
	}
	return cmd
}

// askReady asks the admin socket at address, and returns what it answers. An
// answer other than 200 is an error.
func askReady(ctx context.Context, address string) (string, error) {
	// Below the 5 s that ECS gives a health check by default.
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+localAddress(address)+"/readyz", http.NoBody)
	if err != nil {
		return "", fmt.Errorf("not ready: %w", err)
	}
	// Never through a proxy: the task's own HTTP_PROXY may be in the environment.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", &fault{err: fmt.Errorf("not ready: %w", err), hint: "is sallyport serve running, with this admin.address?"}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("not ready: %w", err)
	}
	detail := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("not ready: %s: %s", resp.Status, detail)
	}
	return detail, nil
}

// localAddress is where this host reaches a socket bound to address: the
// loopback address where it is bound to every one.
func localAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}
