package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// cliWork is a day's work with the AWS CLI, told less what differs from run to
// run.
const cliWork = `
set -eu
aws=$1 bucket=$2
mkdir -p sync/deep
head -c 9437184 /dev/zero | tr '\0' 'x' >big
echo small >small
for f in 'a b+c' "~'()*" 'deep/k=1&l=2;m' 'ü'; do echo "$f" >"sync/$f"; done
"$aws" s3 cp --no-progress big "s3://$bucket/cli/big"
"$aws" s3 cp --no-progress "s3://$bucket/cli/big" back
cmp big back
"$aws" s3 cp --no-progress "s3://$bucket/cli/big" "s3://$bucket/cli/copy of big"
"$aws" s3api put-object --bucket "$bucket" --key small --body small --checksum-algorithm SHA256 --metadata who=CLI
"$aws" s3api get-object --bucket "$bucket" --key small --range bytes=1-3 part --query '[ETag,ContentRange,Metadata]'
cat part
"$aws" s3 sync --no-progress sync "s3://$bucket/sync" | sort
curl -sS --fail "$("$aws" s3 presign "s3://$bucket/small")"
"$aws" s3 ls --recursive "s3://$bucket/" | cut -c20-
"$aws" s3 rm --recursive "s3://$bucket/" | sort
`

// cliConfig tells the CLI of its style of addressing, which no variable does.
func cliConfig(t *testing.T, style string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	writeFile(t, path, "[default]\ns3 =\n  addressing_style = "+style+"\n  max_concurrent_requests = 2\n")
	return "AWS_CONFIG_FILE=" + path
}

func TestS3CommandLine(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	aws := need(t, "/usr/bin/aws") // Debian's own
	s := newS3World(t, false, dataRule)
	s.everyWay(t, func(t *testing.T, way s3Way, style string) []string {
		t.Helper()
		return s.programLines(t, way, command{
			path: need(t, "sh"), args: []string{"-c", cliWork, "sh", aws, s3Data}, dir: t.TempDir(), env: []string{cliConfig(t, style)},
		})
	}, "virtual") // it starts slowly
}

// TestS3CurlHeaders compares answers field by field: curl shows them as they
// came.
func TestS3CurlHeaders(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	s := newS3World(t, true, dataRule)
	s.seed(t)
	volatile := []string{"date:", "x-amz-request-id:", "x-amz-id-2:", "last-modified:", "connection:"}
	s.everyWay(t, func(t *testing.T, way s3Way, style string) []string {
		t.Helper()
		base := "https://" + s3Data + "." + s3Service
		if style == "path" {
			base = "https://" + s3Service + "/" + s3Data
		}
		var lines []string
		for _, args := range [][]string{
			{base + "/k"},
			{"-I", base + "/k"},
			{"-H", "Range: bytes=1-2", base + "/k"},
			{base + "/nothing"},
			{"-I", base + "/nothing"},
			{base + "/?list-type=2&prefix=a%20b%2F&delimiter=%2F"},
			{"-T", "testdata/clients/s3work.py", "-H", "x-amz-meta-two-words: x", base + "/put"},
			{"-I", base + "/put"},
			{"-X", "DELETE", base + "/put"},
			{base + "/?location"},
			{base + "/?acl"},
			{"-H", "Accept-Encoding: gzip", base + "/k"},
		} {
			res := s.run(t, way, s.ours, command{path: curl, args: append([]string{
				"-sSi", "--max-time", "60", "--suppress-connect-headers", "--aws-sigv4", "aws:amz:us-east-1:s3",
				"--user", s.ours.id + ":" + s.ours.secret, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
			}, args...)})
			res.succeeds(t)
			head, body, _ := strings.Cut(res.stdout, "\r\n\r\n")
			if strings.HasPrefix(head, "HTTP/1.1 100 ") {
				head, body, _ = strings.Cut(body, "\r\n\r\n")
			}
			fields := strings.Split(strings.ToLower(head), "\r\n")
			fields = slices.DeleteFunc(fields, func(f string) bool {
				return slices.ContainsFunc(volatile, func(v string) bool { return strings.HasPrefix(f, v) })
			})
			slices.Sort(fields[1:])
			lines = append(lines, fmt.Sprint(args[len(args)-1], " ", strings.Join(fields, " | ")))
			if !strings.Contains(body, "<RequestId>") && !strings.Contains(body, "<LastModified>") {
				lines = append(lines, body)
			}
		}
		return lines
	})
}

// TestS3ClientsShow: what foreign clients show their users of a refusal is the
// code and the reason.
func TestS3ClientsShow(t *testing.T) {
	t.Parallel()
	s := newS3World(t, false, strictRules)
	s.seed(t)
	python, node, modules := needModule(t, "boto3"), need(t, "node"), nodeModules(t, "@aws-sdk/client-s3")
	botoStyle := func(style, call string) command {
		return command{path: python, args: []string{"-c", `
import boto3, io, botocore.config
s3 = boto3.client("s3", config=botocore.config.Config(s3={"addressing_style": "` + style + `"}))
large = io.BytesIO(b"x" * (3 << 20))
` + call}}
	}
	boto := func(call string) command { return botoStyle("path", call) }
	js := func(name, input string) command {
		return command{path: node, env: []string{"CLIENTS_MODULES=" + modules}, args: []string{"-e", fmt.Sprintf(`
const load = require("node:module").createRequire(process.env.CLIENTS_MODULES + "/package.json")
const s3 = load("@aws-sdk/client-s3"), { HttpsProxyAgent } = load("https-proxy-agent")
const proxy = process.env.HTTPS_PROXY
const client = new s3.S3Client({ forcePathStyle: true, maxAttempts: 1, requestHandler: proxy ? { httpsAgent: new HttpsProxyAgent(proxy) } : {} })
const large = Buffer.alloc(3 << 20)
client.send(new s3.%sCommand(%s)).catch((e) => { console.error(String(e)); process.exitCode = 1 })
`, name, input)}}
	}
	cli := func(args ...string) command {
		return command{path: need(t, "/usr/bin/aws"), args: args, env: []string{cliConfig(t, "path")}}
	}
	small := filepath.Join(t.TempDir(), "small")
	if err := os.WriteFile(small, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, reason string
		key          s3Key
		command      command
	}{
		{"boto3 gets from a bucket that is not listed", "s3_bucket", s.ours, boto(`s3.get_object(Bucket="other-data", Key="k")`)},
		{"boto3 puts to a bucket that is not listed", "s3_bucket", s.ours, boto(`s3.put_object(Bucket="other-data", Key="k", Body=large)`)},
		{"boto3 copies from a bucket that is not listed", "s3_bucket", s.ours, boto(`s3.copy_object(Bucket="app-data", Key="c", CopySource="other-data/k")`)},
		{"boto3 deletes", "s3_operation", s.ours, boto(`s3.delete_object(Bucket="app-data", Key="k")`)},
		{"boto3 writes a policy", "s3_operation", s.ours, boto(`s3.put_bucket_policy(Bucket="app-data", Policy="{}")`)},
		{"boto3 signs for another", "s3_account", s.theirs, boto(`s3.put_object(Bucket="app-data", Key="k", Body=large)`)},
		{"Node gets from a bucket that is not listed", "s3_bucket", s.ours, js("GetObject", `{ Bucket: "other-data", Key: "k" }`)},
		{"Node puts to a bucket that is not listed", "s3_bucket", s.ours, js("PutObject", `{ Bucket: "other-data", Key: "k", Body: large }`)},
		{"Node copies to a bucket that is not listed", "s3_bucket", s.ours, js("CopyObject", `{ Bucket: "other-data", Key: "c", CopySource: "app-data/k" }`)},
		{"Node deletes", "s3_operation", s.ours, js("DeleteObject", `{ Bucket: "app-data", Key: "k" }`)},
		{"Node signs for another", "s3_account", s.theirs, js("GetObject", `{ Bucket: "app-data", Key: "k" }`)},
		{"the CLI lists a bucket that is not listed", "s3_bucket", s.ours, cli("s3", "ls", "s3://other-data")},
		{"the CLI puts to a bucket that is not listed", "s3_bucket", s.ours, cli("s3", "cp", small, "s3://other-data/k")},
		{"the CLI deletes", "s3_operation", s.ours, cli("s3", "rm", "s3://app-data/k")},
		{"the CLI signs for another", "s3_account", s.theirs, cli("s3api", "get-object", "--bucket", "app-data", "--key", "k", "/dev/null")},
		{"the CLI signs nothing", "s3_account", s.ours, cli("s3api", "get-object", "--no-sign-request", "--bucket", "app-data", "--key", "k", "/dev/null")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, way := range s.proxied() {
				s.run(t, way, tt.key, tt.command).fails(t, "AccessDenied", "sallyport", "("+tt.reason+")")
				s.refused(t, way, s3Service, tt.reason)
			}
		})
	}
	// A bucket in the host's name is denied before there is a request.
	for name, c := range map[string]command{
		"boto3 gets by the host":    botoStyle("virtual", `s3.get_object(Bucket="other-data", Key="k")`),
		"boto3 puts by the host":    botoStyle("virtual", `s3.put_object(Bucket="other-data", Key="k", Body=large)`),
		"the CLI lists by the host": {path: need(t, "/usr/bin/aws"), args: []string{"s3", "ls", "s3://other-data"}, env: []string{cliConfig(t, "virtual")}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, way := range s.proxied() {
				s.run(t, way, s.ours, c).fails(t, "AccessDenied", "sallyport", "(s3_bucket)")
				s.r.denied(s3Other+"."+s3Service, way.via, "s3_bucket")
				s.untouched(t)
			}
		})
	}
}

// TestS3Uninspected: a rule without inspect goes by the host, and its records
// say on whose word.
func TestS3Uninspected(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	s := newS3World(t, true, `
  - name: data
    resolves_to: [127.0.0.0/8]
    s3: {buckets: [app-data]}
`)
	s.seed(t)
	const host = s3Data + "." + s3Service
	for _, way := range s.proxied() {
		through := way
		through.caFile = s.way("direct").caFile // the server's own certificate comes through
		enforcement := map[string]string{"connect": "connect", "tls": "sni"}[way.via]
		get := func(args ...string) result {
			return s.run(t, through, s.ours, command{path: curl, args: append([]string{"-sSi", "--max-time", "60"}, args...)})
		}
		get("https://"+host+"/k").succeeds(t, http.StatusText(http.StatusForbidden), "<Code>AccessDenied</Code>") // S3's own
		if l := s.r.allowed(host, way.via); l.Sallyport.Enforcement != enforcement || l.AWS.S3.Bucket != s3Data {
			t.Errorf("the record: %s", l.text)
		}
		if len(s.take()) != 1 {
			t.Error("the request did not come through")
		}
		// The rule is advisory: the Host inside is for S3 alone to see.
		get("-H", "Host: "+s3Other+"."+s3Service, "https://"+host+"/k").succeeds(t, "<Code>AccessDenied</Code>")
		s.r.allowed(host, way.via)
		if seen := s.take(); len(seen) != 1 || seen[0].header.Get("Host") != s3Other+"."+s3Service {
			t.Errorf("the server saw %v", seen)
		}
		get("https://" + s3Service + "/app-data/k").fails(t)
		if l := s.r.denied(s3Service, way.via, "s3_opaque"); l.Sallyport.Enforcement != enforcement {
			t.Errorf("the record: %s", l.text)
		}
		get("https://" + s3Other + "." + s3Service + "/k").fails(t)
		s.r.denied(s3Other+"."+s3Service, way.via, "s3_bucket")
		s.untouched(t)
	}
}
