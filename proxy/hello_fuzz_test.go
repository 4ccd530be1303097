package proxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/crypto/cryptobyte"
)

// addHellos seeds f with testdata/hello.
func addHellos(f *testing.F, add func(wire []byte)) {
	files, err := filepath.Glob(filepath.Join("testdata", "hello", "*.bin"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		wire, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		add(wire)
	}
}

// FuzzHello holds readHello against crypto/tls. Whatever is sent,
//   - it does not panic, and takes no more than helloMaxWire;
//   - raw is what was taken;
//   - when both accept, they read the same name and protocols;
//   - what it accepts, crypto/tls accepts.
//
// The last has one exception on purpose: the contents of extensions that do
// not concern the name are the origin's to judge. So crypto/tls is then asked
// about the hello without those.
func FuzzHello(f *testing.F) {
	addHellos(f, func(wire []byte) { f.Add(wire) })
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := &countingReader{r: bytes.NewReader(wire)}
		h, err := readHello(r, nil)
		if r.bytes > helloMaxWire {
			t.Fatalf("%d bytes taken", r.bytes)
		}
		if err != nil {
			if e, ok := errors.AsType[*helloError](err); !ok || h != nil || e.msg == "" || e.reason == "" || e.taken != r.bytes {
				t.Fatalf("%+v, %+v", h, err)
			}
			return
		}
		if !bytes.Equal(h.raw, wire[:r.bytes]) {
			t.Fatal("raw is not what was taken")
		}
		name, protocols, err := cryptoTLSHello(wire)
		if err != nil {
			name, protocols, err = cryptoTLSHello(frame(onlyJudged(t, wire), helloMaxFragment))
		}
		if err != nil {
			t.Fatalf("accepted as %q; crypto/tls: %v", h.rawName, err)
		}
		if name != h.rawName || !slices.Equal(protocols[:min(len(protocols), helloMaxALPN)], h.alpn) {
			t.Fatalf("%q %q; crypto/tls reads %q %q", h.rawName, h.alpn, name, protocols)
		}
	})
}

// onlyJudged returns the message of an accepted hello, less the extensions
// whose contents readHello does not judge.
func onlyJudged(t *testing.T, wire []byte) []byte {
	t.Helper()
	frames := helloFrames{buf: wire}
	if done, refusal := frames.advance(); !done {
		t.Fatal(refusal)
	}
	m := frames.message()
	s := cryptobyte.String(m)
	var field, all cryptobyte.String
	if !s.Skip(4+2+32) || !s.ReadUint8LengthPrefixed(&field) || !s.ReadUint16LengthPrefixed(&field) || !s.ReadUint8LengthPrefixed(&field) {
		t.Fatal("an accepted hello has no body")
	}
	body := m[4 : len(m)-len(s)]
	if s.Empty() {
		return message(body)
	}
	if !s.ReadUint16LengthPrefixed(&all) {
		t.Fatal("an accepted hello has malformed extensions")
	}
	var kept []byte
	for !all.Empty() {
		var typ uint16
		var data cryptobyte.String
		if !all.ReadUint16(&typ) || !all.ReadUint16LengthPrefixed(&data) {
			t.Fatal("an accepted hello has a malformed extension")
		}
		switch typ {
		case extServerName, extALPN, extSupportedVersions, extEncryptedHello:
			kept = append(kept, ext(typ, data)...)
		}
	}
	return message(body, u16(kept))
}

// chunkReader returns its data in chunks of the sizes given, over and over.
type chunkReader struct {
	data, sizes []byte
	i           int
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := len(r.data)
	if len(r.sizes) > 0 {
		n = 1 + int(r.sizes[r.i%len(r.sizes)])
		r.i++
	}
	n = copy(p[:min(n, len(p))], r.data)
	r.data = r.data[n:]
	return n, nil
}

// FuzzHelloChunks holds that the answer does not depend on how the bytes
// arrive, peeked or read, in which segments.
func FuzzHelloChunks(f *testing.F) {
	addHellos(f, func(wire []byte) {
		if len(wire) < 4096 { // the larger ones only slow the search
			f.Add(wire, []byte{0}, uint16(0))
			f.Add(wire, []byte{4, 0, 200}, uint16(1))
			f.Add(append(slices.Clone(wire), wire...), []byte{254}, uint16(len(wire)))
		}
	})
	f.Fuzz(func(t *testing.T, wire, sizes []byte, peek uint16) {
		whole, wholeErr := readHello(bytes.NewReader(wire), nil)
		n := min(int(peek), len(wire))
		h, err := readHello(&chunkReader{data: wire[n:], sizes: sizes}, wire[:n])
		if (err == nil) != (wholeErr == nil) {
			t.Fatalf("whole: %v; in chunks: %v", wholeErr, err)
		}
		if err != nil {
			a, _ := errors.AsType[*helloError](wholeErr)
			b, _ := errors.AsType[*helloError](err)
			if a.reason != b.reason || a.msg != b.msg || a.rawName != b.rawName {
				t.Fatalf("whole: %+v; in chunks: %+v", a, b)
			}
			return
		}
		if h.rawName != whole.rawName || h.serverName != whole.serverName || !slices.Equal(h.alpn, whole.alpn) || h.version != whole.version || h.ech != whole.ech {
			t.Fatalf("whole: %+v; in chunks: %+v", whole, h)
		}
		if !bytes.HasPrefix(wire, h.raw) || !bytes.HasPrefix(wire, whole.raw) {
			t.Fatal("raw is not what was sent")
		}
	})
}
