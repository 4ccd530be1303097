package proxy

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSecondOpinion(t *testing.T) {
	two := ext(extServerName, u16(hostName("first.example"), hostName("second.example")))
	tests := []struct {
		name    string
		message []byte
		is      string
		want    string // in the error, "" for agreement
	}{
		{"same name", hello12(sni("origin.example")), "origin.example", ""},
		{"no name", hello12(), "", ""},
		{"no extensions", message(hello12Body()), "", ""},
		{"largest", hello12(sni("origin.example"), ext(21, make([]byte, 60_000))), "origin.example", ""},
		{"other name", hello12(sni("origin.example")), "other.example", `reads the name "other.example", the other "origin.example"`},
		{"case", hello12(sni("Origin.example")), "origin.example", `the other "Origin.example"`},
		{"name against none", hello12(sni("origin.example")), "", `the other "origin.example"`},
		{"none against name", hello12(), "origin.example", `the other ""`},
		{"last of two extensions", hello12(sni("first.example"), sni("last.example")), "first.example", `the other "last.example"`},
		{"first of two names", hello12(two), "second.example", `the other "first.example"`},
		{"refused", hello12(sni("origin.example"), ext(13172, []byte{1})), "origin.example", "the second refuses"},
		{"cut", hello12(sni("origin.example"))[:40], "origin.example", "the second refuses"},
		{"hostile other name", hello12(sni("a\r\nb")), "c", `the other "a\r\nb"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := secondOpinion(tt.message, tt.is)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("disagreement: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestFramedConn checks that the records go-vhost is shown are the message.
func TestFramedConn(t *testing.T) {
	for _, size := range []int{0, 1, secondFragment - 1, secondFragment, secondFragment + 1, helloMaxMessage} {
		message := bytes.Repeat([]byte{'x'}, size)
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole":  func(r io.Reader) io.Reader { return r },
			"bytes":  iotest.OneByteReader,
			"halves": iotest.HalfReader,
		} {
			wire, err := io.ReadAll(wrap(&framedConn{rest: message}))
			if err != nil {
				t.Fatal(err)
			}
			var want []byte
			if size > 0 {
				want = frame(message, secondFragment)
			}
			if !bytes.Equal(wire, want) {
				t.Errorf("%d bytes read by %s: %d bytes of records, want %d", size, name, len(wire), len(want))
			}
		}
	}
}

// panicConn panics when it is read, as a parser may.
type panicConn struct{ net.Conn }

func (panicConn) Read([]byte) (int, error) { panic("out of range") }

func TestSecondOpinionPanic(t *testing.T) {
	err := askSecond(panicConn{}, "origin.example")
	if err == nil || !strings.Contains(err.Error(), "the second panicked: out of range") {
		t.Errorf("err = %v", err)
	}
}

func BenchmarkSecondOpinion(b *testing.B) {
	message := goHello(b, nil)[helloRecordHeader:]
	b.ReportAllocs()
	for b.Loop() {
		if err := secondOpinion(message, "origin.example"); err != nil {
			b.Fatal(err)
		}
	}
}
