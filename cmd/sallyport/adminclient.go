package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/sallyport/sallyport/logging/history"
)

// adminClient asks the API of a running proxy.
type adminClient struct {
	address string
	token   string // "" for none
}

// clientPage is how many flows are asked for at once.
const clientPage = 2000

// get asks for a path and hands the answer's body over. The answer to anything
// but 200 is an error.
func (c *adminClient) get(ctx context.Context, path string, parameters url.Values, read func(io.Reader) error) error {
	target := url.URL{Scheme: "http", Host: c.address, Path: "/api/v1/" + path, RawQuery: parameters.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return err
	}
	return c.do(req, read)
}

// do sends a request and hands the answer's body over.
func (c *adminClient) do(req *http.Request, read func(io.Reader) error) error {
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	// Never through a proxy: the task's own HTTP_PROXY may be in the environment.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return &fault{err: fmt.Errorf("ask the proxy at %s: %w", c.address, err), hint: "is sallyport serve running, with this admin.address? --store reads a store without one"}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.refused(resp)
	}
	return read(resp.Body)
}

// refused turns an answer into an error that says what to do.
func (c *adminClient) refused(resp *http.Response) error {
	var said struct {
		Error string `json:"error"`
		Hint  string `json:"hint"`
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is of it
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error = resp.Status
	}
	err := fmt.Errorf("the proxy at %s: %s", c.address, said.Error)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return &fault{err: err, hint: "give --token-file, or set admin.token (SALLYPORT_ADMIN_TOKEN=file:PATH) to where the token is"}
	case http.StatusUnprocessableEntity:
		return refuse(said.Hint, "%w", err)
	case http.StatusNotFound:
		return fmt.Errorf("%w (%w)", err, history.ErrNotFound)
	}
	return err
}

// into decodes an answer.
func into(value any) func(io.Reader) error {
	return func(r io.Reader) error {
		if err := json.NewDecoder(r).Decode(value); err != nil {
			return fmt.Errorf("read the proxy's answer: %w", err)
		}
		return nil
	}
}

// Sites implements [historySource].
func (c *adminClient) Sites(ctx context.Context, f history.Filter) ([]history.Site, error) {
	parameters := f.Values()
	parameters.Set("detail", "true")
	var answer struct{ Sites []history.Site }
	err := c.get(ctx, "sites", parameters, into(&answer))
	return answer.Sites, err
}

// Flows implements [historySource].
func (c *adminClient) Flows(ctx context.Context, f history.Filter) iter.Seq2[history.Flow, error] {
	return func(yield func(history.Flow, error) bool) {
		for left := f.Limit; ; {
			f.Limit = clientPage
			if left > 0 {
				f.Limit = min(left, clientPage)
			}
			var page struct {
				Flows []history.Flow
				Next  string
			}
			if err := c.get(ctx, "flows", f.Values(), into(&page)); err != nil {
				yield(history.Flow{}, err)
				return
			}
			for _, one := range page.Flows {
				if !yield(one, nil) {
					return
				}
			}
			if left > 0 {
				if left -= len(page.Flows); left <= 0 {
					return
				}
			}
			if f.Cursor = page.Next; f.Cursor == "" {
				return
			}
		}
	}
}

// Flow implements [historySource].
func (c *adminClient) Flow(ctx context.Context, id string) (history.Flow, error) {
	var one history.Flow
	err := c.get(ctx, "flows/"+id, nil, into(&one))
	return one, err
}

// Gaps implements [historySource].
func (c *adminClient) Gaps(ctx context.Context, since time.Time) ([]history.Gap, error) {
	var answer struct{ Gaps []history.Gap }
	err := c.get(ctx, "gaps", history.Filter{Since: since}.Values(), into(&answer))
	return answer.Gaps, err
}

// Follow implements [historySource].
func (c *adminClient) Follow(ctx context.Context, f history.Filter) iter.Seq2[history.Flow, error] {
	return func(yield func(history.Flow, error) bool) {
		stopped := false
		err := c.get(ctx, "flows/follow", f.Values(), func(r io.Reader) error {
			lines := bufio.NewScanner(r)
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				var one history.Flow
				var said struct{ Error string }
				if err := errors.Join(json.Unmarshal(lines.Bytes(), &one), json.Unmarshal(lines.Bytes(), &said)); err != nil {
					return fmt.Errorf("read the proxy's answer: %w", err)
				}
				if said.Error != "" {
					return errors.New(said.Error)
				}
				if stopped = !yield(one, nil); stopped {
					return nil
				}
			}
			return lines.Err()
		})
		switch {
		case ctx.Err() != nil || stopped:
		case err != nil:
			yield(history.Flow{}, err)
		default:
			yield(history.Flow{}, errors.New("the proxy has ended the stream"))
		}
	}
}
