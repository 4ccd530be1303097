package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The bounds of a request. Little that is asked here takes long; a stream bounds
// each of its writes instead.
const (
	headTimeout  = 5 * time.Second
	readTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
	idleTimeout  = 60 * time.Second
	stopTimeout  = 2 * time.Second
	maxHeadBytes = 16 << 10
)

// Serve answers connections to ln until ctx ends, lets requests under way
// finish for two seconds, cuts what is left and returns nil. It closes ln.
func (h *Handler) Serve(ctx context.Context, ln net.Listener) error {
	all := newCrowd()
	srv := &http.Server{
		ConnState:         all.change,
		Handler:           h,
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeadBytes,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	h.api.stopping = ctx
	stopped := make(chan struct{})
	unregister := context.AfterFunc(ctx, func() {
		defer close(stopped)
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(stopCtx) != nil {
			_ = srv.Close() // what Shutdown could not wait for
		}
	})
	err := srv.Serve(ln)
	if !unregister() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the console on %s: %w", ln.Addr(), err)
}
