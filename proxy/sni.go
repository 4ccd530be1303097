package proxy

import (
	"fmt"
	"io"
	"net"

	vhost "github.com/inconshreveable/go-vhost"
)

// secondFragment is the record size in which go-vhost is shown a hello. It
// refuses records from 12 KiB on, though 16 KiB are legal.
const secondFragment = 8 << 10

// secondOpinion asks go-vhost for the name in a ClientHello message (with its
// 4-byte header, without record headers) and returns an error unless it reads
// name, "" for none. Two parsers written apart seldom err alike, so a hello
// made to be read differently by the origin is refused here, whichever of the
// two it deceives.
//
// go-vhost never sees the socket: it buffers without limit, knows no deadline
// and keeps what it read. It sees a message that is already bounded, and
// re-framed, because it also refuses a first record of less than four bytes.
func secondOpinion(message []byte, name string) error {
	return askSecond(&framedConn{rest: message}, name)
}

// askSecond is secondOpinion about what c sends. A panic is a refusal.
func askSecond(c net.Conn, name string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("two parsers disagree: the second panicked: %v", p)
		}
	}()
	second, err := vhost.TLS(c)
	if err != nil {
		return fmt.Errorf("two parsers disagree: the second refuses the hello: %w", err)
	}
	defer second.Free()
	if other := second.Host(); other != name {
		return fmt.Errorf("two parsers disagree: one reads the name %s, the other %s", quoteName(name), quoteName(other))
	}
	return nil
}

// framedConn is a connection whose peer sends one handshake message, in
// records of at most secondFragment bytes, and then EOF. Read is all that
// go-vhost calls. The embedded Conn is nil on purpose: anything else panics,
// and so ends as a refusal.
type framedConn struct {
	net.Conn
	rest     []byte // of the message, not yet framed
	head     [helloRecordHeader]byte
	headLeft int    // last bytes of head still to be read
	fragment []byte // of the record begun, still to be read
}

// Read implements io.Reader.
func (c *framedConn) Read(p []byte) (int, error) {
	if c.headLeft == 0 && len(c.fragment) == 0 {
		if len(c.rest) == 0 {
			return 0, io.EOF
		}
		n := min(len(c.rest), secondFragment)
		c.fragment, c.rest = c.rest[:n], c.rest[n:]
		c.head = [helloRecordHeader]byte{helloContentType, 3, 1, byte(n >> 8), byte(n)}
		c.headLeft = len(c.head)
	}
	n := copy(p, c.head[len(c.head)-c.headLeft:])
	c.headLeft -= n
	m := copy(p[n:], c.fragment)
	c.fragment = c.fragment[m:]
	return n + m, nil
}
