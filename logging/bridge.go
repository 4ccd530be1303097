package logging

import (
	"bytes"
	"context"
	"io"
	"log"
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

// Std returns a standard logger, for http.Server's ErrorLog and for anything
// that wants a Printf method, goproxy for one. What it is told goes to l at
// level debug with from as the speaker: libraries report what clients did
// wrong, which is the flow log's to tell.
func Std(l zerolog.Logger, from string) *log.Logger {
	if l.GetLevel() > zerolog.DebugLevel {
		return log.New(io.Discard, "", 0) // which formats nothing
	}
	return log.New(stdWriter{l: l, from: from}, "", 0)
}

type stdWriter struct {
	l    zerolog.Logger
	from string
}

// Write implements [io.Writer]; p is one message.
func (w stdWriter) Write(p []byte) (int, error) {
	text := sentence(string(bytes.TrimSpace(p)), messageLimit)
	w.l.Debug().Str(FieldFrom, w.from).Str("text", text).Msg("a library said")
	return len(p), nil
}
