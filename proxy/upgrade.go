package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// upgrades reports whether r asks for a WebSocket in the one form that is
// carried: GET, HTTP/1.1, no body (RFC 6455, section 4.1).
func upgrades(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoAtLeast(1, 1) && r.Body == http.NoBody && isWebSocket(r.Header)
}

// carryUpgrade carries a WebSocket to its end, as any tunnel: between the two
// raw connections. early is what the client sent right behind its request.
func (ex *exchange) carryUpgrade(early []byte) {
	a, client, origin := ex.attempt, ex.http.c, ex.flight.origin.Load()
	late, err := readAhead(origin, ex.switched)
	if err == nil {
		var n int
		n, err = client.tcp.Write(late)
		a.rec.BytesReceived = int64(n)
	}
	if err != nil {
		ex.lose(err)
		return
	}
	// Taking the connections over has cleared their deadlines, and with them
	// the mark of a cut that came meanwhile.
	if ex.flight.endedBy() != "" {
		interrupt(client.tcp)
		interrupt(origin)
	}
	(&tunnel{attempt: a, conn: client, origin: origin, flight: ex.flight}).run(early)
}

// readAhead returns what the transport had read from origin behind the head
// of its response, and nothing that is still to come: body yields the one and
// then the other, and a connection whose deadline has passed yields nothing.
func readAhead(origin *net.TCPConn, body io.Reader) ([]byte, error) {
	if origin == nil || body == nil {
		return nil, errors.New("the upgraded connection is not known")
	}
	if err := origin.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return nil, err //nolint:wrapcheck // it names what failed, and where
	}
	ahead, err := io.ReadAll(body)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, err //nolint:wrapcheck // likewise
	}
	return ahead, origin.SetDeadline(time.Time{})
}

// checkSwitch checks a 101 response: only what the client asked for is granted.
func (ex *exchange) checkSwitch(resp *http.Response) *refusal {
	if ex.upgrade && isWebSocket(resp.Header) {
		return nil
	}
	return &refusal{outcome: flow.OutcomeHTTPProtocolError, err: errors.New("the origin switches to a protocol that the client did not ask for")}
}
