package logging

import (
	"context"
	"log/slog"
	"time"

	"github.com/rs/zerolog"
)

// messageLimit cuts what a library says: it may repeat what a client sent.
const messageLimit = 1024

// Slog returns a slog.Logger that writes to l, for libraries that want one.
func Slog(l zerolog.Logger) *slog.Logger {
	return slog.New(slogHandler{zerolog.NewSlogHandler(l)})
}

// slogHandler drops the record's own time, which would be a second "time", and
// makes its message safe.
type slogHandler struct{ slog.Handler }

// Handle implements [slog.Handler].
func (h slogHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Time = time.Time{}
	r.Message = sentence(r.Message, messageLimit)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h slogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return slogHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h slogHandler) WithGroup(name string) slog.Handler {
	return slogHandler{h.Handler.WithGroup(name)}
}
