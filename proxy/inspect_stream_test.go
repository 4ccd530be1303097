package proxy

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// TestInspectPassesOn: each piece of a body, large or small, arrives before
// there is a next one. Of a request's, the transport's own buffer may keep the
// end.
func TestInspectPassesOn(t *testing.T) {
	sizes := []int{40 << 10, 100, 20 << 10, 1}
	const slack = 8 << 10
	arrived := make(chan struct{})
	s := newS3Rig(t, "", func(w http.ResponseWriter, r *http.Request) {
		for _, size := range sizes {
			if r.Method == http.MethodPut {
				if _, err := io.CopyN(io.Discard, r.Body, int64(size)); err != nil {
					t.Error(err)
				}
				arrived <- struct{}{}
				continue
			}
			w.Write(bytes.Repeat([]byte("x"), size))
			http.NewResponseController(w).Flush()
			<-arrived
		}
	})
	c, in := s.raw(t)
	io.WriteString(c, "GET /k"+signedHead+"\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range sizes {
		if _, err := io.CopyN(io.Discard, resp.Body, int64(size)); err != nil {
			t.Fatal(err)
		}
		arrived <- struct{}{}
	}
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Fatal(len(rest), err)
	}
	pipe, fill := io.Pipe()
	go func() {
		for _, size := range sizes {
			fill.Write(make([]byte, size+slack))
			<-arrived
		}
		fill.Close()
	}()
	resp, _ = s.ask(s.client(testBucketHost), "PUT", testBucketHost, "/k", pipe)
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}
