package integration

import (
	"os"
	"path/filepath"
	"testing"
)

// TestEndpointExample: the example of an S3 gateway endpoint's policy is what
// the example policy beside it renders to.
func TestEndpointExample(t *testing.T) {
	dir := filepath.Join(root(t), "examples", "policies")
	want, err := os.ReadFile(filepath.Join(dir, "s3-buckets.endpoint.json"))
	if err != nil {
		t.Fatal(err)
	}
	got := sallyport(t, nil, "policy", "s3-endpoint", "--region", "us-east-1", filepath.Join(dir, "s3-buckets.yaml"))
	if got != string(want) {
		t.Errorf("examples/policies/s3-buckets.endpoint.json is not what sallyport policy s3-endpoint prints:\n%s", got)
	}
}
