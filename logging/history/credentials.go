package history

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

const (
	// rereadEvery is how often a store's URL is read again at most: a server that
	// is away must not have each try ask for a secret.
	rereadEvery = 10 * time.Second
	// rereadPatience bounds one reading. It is less than [writePatience]: where
	// the URL is kept may be away when the store is not.
	rereadPatience = 5 * time.Second
)

// credentials are the user and the password of a PostgreSQL store, as they were
// read last. A nil one leaves those of the URL that the store was opened with.
type credentials struct {
	read func(context.Context) (string, error) // [Config.Credentials]
	now  func() time.Time
	log  zerolog.Logger

	turn           chan struct{} // holds a value while somebody has what follows
	at             time.Time     // of the last reading
	user, password string        // of the last that succeeded
	failing        bool          // and it was said
}

// newCredentials returns what reads a store's credentials again; nil where
// nothing does. The store's URL was read a moment ago.
func newCredentials(c *Config) *credentials {
	if c.Credentials == nil || engineOf(c.Store) != enginePostgres {
		return nil
	}
	known := &credentials{read: c.Credentials, now: c.Clock, log: c.Log, turn: make(chan struct{}, 1), at: c.Clock()}
	if p, err := postgresConfig(c.Store); err == nil {
		known.user, known.password = p.User, p.Password
	}
	return known
}

// give gives a connection that is about to be made the user and the password.
// It fails when ctx ends before they could be read.
func (c *credentials) give(ctx context.Context, to *pgx.ConnConfig) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.now().Sub(c.at) >= rereadEvery {
		c.at = c.now()
		c.renew(ctx)
	}
	to.User, to.Password = c.user, c.password
	return nil
}

// renew reads the credentials again; those that are known stay where that
// fails.
func (c *credentials) renew(ctx context.Context) {
	user, password, err := c.ask(ctx)
	switch {
	case err != nil && ctx.Err() != nil: // who wanted the connection is gone
	case err != nil:
		if !c.failing {
			c.log.Warn().Err(err).Msg("the history's user and password cannot be read again: the ones that are known stay")
		}
		c.failing = true
	default:
		if user != c.user || password != c.password {
			c.log.Info().Str("user", user).Msg("the history's user or password has changed: new connections use it")
		}
		c.user, c.password, c.failing = user, password, false
	}
}

// ask returns what is to be had now.
func (c *credentials) ask(ctx context.Context) (user, password string, err error) {
	ctx, cancel := context.WithTimeout(ctx, rereadPatience)
	defer cancel()
	url, err := c.read(ctx)
	if err != nil {
		return "", "", err
	}
	if err := CheckStore(url); err != nil {
		return "", "", err
	}
	if engineOf(url) != enginePostgres {
		return "", "", errors.New("what is there now is no URL postgres://…")
	}
	p, err := postgresConfig(url)
	if err != nil {
		return "", "", err
	}
	return p.User, p.Password, nil
}
