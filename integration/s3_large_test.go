package integration

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
)

// s3Growth is by how much the proxy's memory may grow with an object of any
// size: it is a bound on buffers and on what the collector leaves for later,
// and knows nothing of sizes.
const s3Growth = 32 << 20

// endless is content of any size, its own at every offset.
type endless struct{ block []byte }

func (e endless) ReadAt(p []byte, at int64) (int, error) {
	for n := 0; n < len(p); {
		n += copy(p[n:], e.block[(at+int64(n))%int64(len(e.block)):])
	}
	return len(p), nil
}

// TestS3Large puts an object in one piece and in parts, and gets both back,
// on every way. SALLYPORT_S3_SIZE is its size in MiB.
func TestS3Large(t *testing.T) {
	size := int64(extent(t, "s3_size", 64, 1024)) << 20
	s := newS3World(t, true, dataRule, func(c *rigConfig) { c.plain = true })
	content := endless{s3Content("large", 1<<20-31)}
	whole := func(n int64) *io.SectionReader { return io.NewSectionReader(content, 0, n) }
	sum := sha256.New()
	if _, err := io.Copy(sum, whole(size)); err != nil {
		t.Fatal(err)
	}
	pid := s.r.cmd.Process.Pid
	for _, way := range s.ways {
		t.Run(way.name, func(t *testing.T) {
			c := s.client(way, "virtual", s.ours)
			g := &goWork{ctx: t.Context(), client: c}
			// What the proxy needs for objects at all, it has after these.
			if err := g.upload("parts", whole(32<<20), 32<<20, 8<<20); err != nil {
				t.Fatal(err)
			}
			g.get("parts")
			before := peakMemory(t, pid)
			timed := func(what string, do func() error) {
				t.Helper()
				start := time.Now()
				if err := do(); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				t.Logf("%s: %d MiB at %.0f MB/s", what, size>>20, float64(size)/1e6/time.Since(start).Seconds())
			}
			timed("put", func() error {
				_, err := c.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: aws.String(s3Data), Key: aws.String("whole"), Body: whole(size)})
				return err
			})
			timed("put in parts", func() error { return g.upload("parts", whole(size), size, 16<<20) })
			for _, key := range []string{"whole", "parts"} {
				timed("get "+key, func() error {
					out, err := c.GetObject(t.Context(), &awss3.GetObjectInput{Bucket: aws.String(s3Data), Key: &key})
					if err != nil {
						return err
					}
					defer out.Body.Close()
					got := sha256.New()
					n, err := io.Copy(got, out.Body)
					if n != size || !bytes.Equal(got.Sum(nil), sum.Sum(nil)) {
						t.Errorf("%s: %d bytes, not those that were put", key, n)
					}
					return err
				})
			}
			after := peakMemory(t, pid)
			t.Logf("the proxy's memory peaked at %.1f MiB before and %.1f MiB after", float64(before)/(1<<20), float64(after)/(1<<20))
			if after-before > s3Growth {
				t.Errorf("the proxy's memory grew by %d MiB with an object of %d MiB", (after-before)>>20, size>>20)
			}
		})
	}
}
