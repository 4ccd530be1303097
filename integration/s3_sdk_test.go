package integration

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// oddKeys are keys that somebody on the way may want to clean, decode or join.
func oddKeys() []string {
	return []string{
		"a b+c/ü/%41/..x//y", "~", "'()*", "k=1&l=2;m", "@:,$!?#[]", "🔑/€", "..x/.y", "plus+and%2Bplus",
		"/begins with a slash", "//with two", "ends/", "%41%2F", `back\slash "quoted" <tag> |^{}` + "`", "a?versionId=x&acl",
	}
}

// s3Content is size bytes that only seed has.
func s3Content(seed string, size int) []byte {
	block := sha256.Sum256([]byte(seed))
	return bytes.Repeat(block[:], size/len(block)+1)[:size]
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// goWork is a day's work with the Go SDK. It ends with an empty bucket.
type goWork struct {
	ctx    context.Context //nolint:containedctx // a test's
	client *awss3.Client
	plain  *http.Client // for presigned URLs
	lines  []string
}

// step notes what the client got, less what differs from run to run.
func (g *goWork) step(name string, out any, err error) {
	if err != nil {
		out = describeS3Error(err)
	}
	text, err := json.Marshal(out)
	if err != nil {
		text = []byte(err.Error())
	}
	var tree any
	if json.Unmarshal(text, &tree) == nil {
		forgetVolatile(tree)
		text, _ = json.Marshal(tree)
	}
	g.lines = append(g.lines, name+": "+string(text))
}

// describeS3Error is what of an error a program may go by.
func describeS3Error(err error) map[string]any {
	e := map[string]any{"text": err.Error()}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		e = map[string]any{"code": api.ErrorCode(), "message": api.ErrorMessage()}
	}
	if resp, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		e["status"] = resp.HTTPStatusCode()
	}
	return e
}

func forgetVolatile(tree any) {
	switch tree := tree.(type) {
	case map[string]any:
		for _, name := range []string{"ResultMetadata", "LastModified", "UploadId", "Body"} {
			delete(tree, name)
		}
		for _, v := range tree {
			forgetVolatile(v)
		}
	case []any:
		for _, v := range tree {
			forgetVolatile(v)
		}
	}
}

func (g *goWork) put(key string, body io.Reader, opts ...func(*awss3.PutObjectInput)) {
	in := &awss3.PutObjectInput{Bucket: aws.String(s3Data), Key: &key, Body: body}
	for _, o := range opts {
		o(in)
	}
	out, err := g.client.PutObject(g.ctx, in)
	g.step("put "+key, out, err)
}

func (g *goWork) get(key string, opts ...func(*awss3.GetObjectInput)) {
	in := &awss3.GetObjectInput{Bucket: aws.String(s3Data), Key: &key, ChecksumMode: types.ChecksumModeEnabled}
	for _, o := range opts {
		o(in)
	}
	out, err := g.client.GetObject(g.ctx, in)
	sum := ""
	if err == nil {
		var body []byte
		body, err = io.ReadAll(out.Body)
		sum = sumOf(body)
	}
	g.step("get "+key+" "+sum, out, err)
}

func (g *goWork) objects() {
	g.put("plain.txt", strings.NewReader("hello"), func(in *awss3.PutObjectInput) {
		in.ContentType, in.Metadata = aws.String("text/plain"), map[string]string{"who": "Go", "dashed-name": "x"}
	})
	g.put("empty", strings.NewReader(""))
	for _, a := range []types.ChecksumAlgorithm{
		types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc32c, types.ChecksumAlgorithmSha1, types.ChecksumAlgorithmSha256, types.ChecksumAlgorithmCrc64nvme,
	} {
		name := "sum-" + string(a)
		g.put(name, bytes.NewReader(s3Content(name, 100_000)), func(in *awss3.PutObjectInput) { in.ChecksumAlgorithm = a })
		g.get(name)
	}
	g.put("large", bytes.NewReader(s3Content("large", 3<<20))) // with Expect: 100-continue
	for _, key := range oddKeys() {
		g.put(key, bytes.NewReader(s3Content(key, 1000)))
		head, err := g.client.HeadObject(g.ctx, &awss3.HeadObjectInput{Bucket: aws.String(s3Data), Key: &key})
		g.step("head "+key, head, err)
		g.get(key)
		// A copy's source is in a header, escaped by whoever sends it.
		source := s3Data + "/" + strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(key))
		copied, err := g.client.CopyObject(g.ctx, &awss3.CopyObjectInput{Bucket: aws.String(s3Data), Key: aws.String("copies/" + key), CopySource: &source})
		g.step("copy "+key, copied, err)
	}
	g.get("plain.txt")
	g.get("large", func(in *awss3.GetObjectInput) { in.Range = aws.String("bytes=1000-1999") })
	g.get("nothing")
	g.get("plain.txt", func(in *awss3.GetObjectInput) { in.IfNoneMatch = aws.String(`"5d41402abc4b2a76b9719d911017c592"`) })
	g.get("plain.txt", func(in *awss3.GetObjectInput) { in.IfMatch = aws.String(`"0"`) })
	attributes, err := g.client.GetObjectTagging(g.ctx, &awss3.GetObjectTaggingInput{Bucket: aws.String(s3Data), Key: aws.String("plain.txt")})
	g.step("tags", attributes, err)
}

// list returns the keys, page by page.
func (g *goWork) list() []types.ObjectIdentifier {
	var keys []types.ObjectIdentifier
	for p := awss3.NewListObjectsV2Paginator(g.client, &awss3.ListObjectsV2Input{Bucket: aws.String(s3Data), MaxKeys: aws.Int32(4)}); p.HasMorePages(); {
		page, err := p.NextPage(g.ctx)
		g.step("list", page, err)
		if err != nil {
			break
		}
		for _, o := range page.Contents {
			keys = append(keys, types.ObjectIdentifier{Key: o.Key})
		}
	}
	return keys
}

// upload is a multipart upload of content, parts at once, in parts of size.
func (g *goWork) upload(key string, content io.ReaderAt, total, size int64) error {
	made, err := g.client.CreateMultipartUpload(g.ctx, &awss3.CreateMultipartUploadInput{
		Bucket: aws.String(s3Data), Key: &key, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	})
	if err != nil {
		return err
	}
	n := int((total + size - 1) / size)
	parts, errs := make([]types.CompletedPart, n), make([]error, n)
	var running sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range n {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			at := int64(i) * size
			part, err := g.client.UploadPart(g.ctx, &awss3.UploadPartInput{
				Bucket: aws.String(s3Data), Key: &key, UploadId: made.UploadId, PartNumber: aws.Int32(int32(i + 1)),
				Body: io.NewSectionReader(content, at, min(size, total-at)),
			})
			if errs[i] = err; err == nil {
				parts[i] = types.CompletedPart{ETag: part.ETag, PartNumber: aws.Int32(int32(i + 1)), ChecksumCRC32: part.ChecksumCRC32}
			}
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	out, err := g.client.CompleteMultipartUpload(g.ctx, &awss3.CompleteMultipartUploadInput{
		Bucket: aws.String(s3Data), Key: &key, UploadId: made.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	g.step("upload "+key, out, err)
	return err
}

func (g *goWork) multipart() {
	if err := g.upload("big", bytes.NewReader(s3Content("big", 17<<20)), 17<<20, 5<<20); err != nil {
		g.step("upload", nil, err)
	}
	g.get("big")
	made, err := g.client.CreateMultipartUpload(g.ctx, &awss3.CreateMultipartUploadInput{Bucket: aws.String(s3Data), Key: aws.String("joined")})
	if err != nil {
		g.step("create", nil, err)
		return
	}
	part, err := g.client.UploadPartCopy(g.ctx, &awss3.UploadPartCopyInput{
		Bucket: aws.String(s3Data), Key: aws.String("joined"), UploadId: made.UploadId, PartNumber: aws.Int32(1),
		CopySource: aws.String(s3Data + "/big"), CopySourceRange: aws.String("bytes=0-5242879"),
	})
	g.step("copy a part", part, err)
	parts, err := g.client.ListParts(g.ctx, &awss3.ListPartsInput{Bucket: aws.String(s3Data), Key: aws.String("joined"), UploadId: made.UploadId})
	g.step("list parts", parts, err)
	gone, err := g.client.AbortMultipartUpload(g.ctx, &awss3.AbortMultipartUploadInput{Bucket: aws.String(s3Data), Key: aws.String("joined"), UploadId: made.UploadId})
	g.step("abort", gone, err)
}

func (g *goWork) presigned() {
	signer := awss3.NewPresignClient(g.client)
	fetch := func(name, method, target string, body io.Reader, fields http.Header) {
		req, err := http.NewRequestWithContext(g.ctx, method, target, body)
		if err != nil {
			g.step(name, nil, err)
			return
		}
		for name, values := range fields {
			if name != "Host" && name != "Content-Length" {
				req.Header[name] = values
			}
		}
		resp, err := g.plain.Do(req)
		if err != nil {
			g.step(name, nil, err)
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		g.step(name, []any{resp.StatusCode, resp.Header.Get("ETag"), sumOf(text)}, err)
	}
	const text = "by whoever has the URL"
	put, err := signer.PresignPutObject(g.ctx, &awss3.PutObjectInput{Bucket: aws.String(s3Data), Key: aws.String("in the URL"), ContentLength: aws.Int64(int64(len(text)))})
	if err == nil {
		fetch("presigned put", put.Method, put.URL, strings.NewReader(text), put.SignedHeader)
	}
	get, err2 := signer.PresignGetObject(g.ctx, &awss3.GetObjectInput{Bucket: aws.String(s3Data), Key: aws.String("in the URL")})
	if err2 == nil {
		fetch("presigned get", get.Method, get.URL, nil, get.SignedHeader)
	}
	if err := errors.Join(err, err2); err != nil {
		g.step("presign", nil, err)
	}
}

// together puts and gets twenty objects at once.
func (g *goWork) together() {
	all := make([]*goWork, 20)
	var running sync.WaitGroup
	for i := range all {
		all[i] = &goWork{ctx: g.ctx, client: g.client}
		running.Go(func() {
			key := fmt.Sprint("many/", i)
			all[i].put(key, bytes.NewReader(s3Content(key, 200_000)))
			all[i].get(key)
		})
	}
	running.Wait()
	for _, one := range all {
		g.lines = append(g.lines, one.lines...)
	}
}

func (g *goWork) empty() {
	keys := g.list()
	slices.SortFunc(keys, func(a, b types.ObjectIdentifier) int { return cmp.Compare(*a.Key, *b.Key) })
	if len(keys) > 0 {
		one, err := g.client.DeleteObject(g.ctx, &awss3.DeleteObjectInput{Bucket: aws.String(s3Data), Key: keys[0].Key})
		g.step("delete one", one, err)
		all, err := g.client.DeleteObjects(g.ctx, &awss3.DeleteObjectsInput{Bucket: aws.String(s3Data), Delete: &types.Delete{Objects: keys[1:]}})
		if err == nil {
			slices.SortFunc(all.Deleted, func(a, b types.DeletedObject) int { return cmp.Compare(*a.Key, *b.Key) })
		}
		g.step("delete all", all, err)
	}
	g.list()
}

func TestS3GoSDK(t *testing.T) {
	t.Parallel()
	s := newS3World(t, true, dataRule)
	s.everyWay(t, func(t *testing.T, way s3Way, style string) []string {
		t.Helper()
		g := &goWork{ctx: t.Context(), client: s.client(way, style, s.ours), plain: s.httpClient(way)}
		g.objects()
		g.list()
		g.multipart()
		g.presigned()
		g.together()
		g.empty()
		return g.lines
	})
}
