package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// ssmParameter is a policy that is a parameter of AWS Systems Manager.
type ssmParameter struct {
	name    string
	region  string // "" for the one that the environment names
	session *awsSession
	client  *ssm.Client // nil before the first use
	version string      // of the document that fetch returned last
}

// fetch implements fetcher. The service knows no conditional request, and its
// answer is small.
func (p *ssmParameter) fetch(ctx context.Context) (fetched, error) {
	cfg, err := p.session.signing(ctx)
	if err != nil {
		return fetched{}, err
	}
	if p.client == nil {
		p.client = ssm.NewFromConfig(cfg, func(o *ssm.Options) {
			if p.region != "" {
				o.Region = p.region
			}
			o.RetryMaxAttempts = 1 // whoever polls has no need of more
		})
	}
	if p.client.Options().Region == "" {
		return fetched{}, &sourceError{
			class: "configuration", err: errors.New("no AWS Region is known"), hint: "write ?region=R behind the name, or set AWS_REGION",
		}
	}
	decrypt := true
	answer, err := p.client.GetParameter(ctx, &ssm.GetParameterInput{Name: &p.name, WithDecryption: &decrypt})
	if err != nil {
		return fetched{}, awsFailure(err, "Systems Manager", p.remedies())
	}
	if answer.Parameter == nil || answer.Parameter.Value == nil {
		return fetched{}, &sourceError{class: "empty", err: errors.New("the answer holds no value")}
	}
	// One that is deleted and made again begins at 1: its number alone would
	// not tell it from the old one.
	version := strconv.FormatInt(answer.Parameter.Version, 10)
	if at := answer.Parameter.LastModifiedDate; at != nil {
		version += " of " + at.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	if version == p.version {
		return fetched{unchanged: true}, nil
	}
	data, err := unpack(*answer.Parameter.Value)
	if err != nil {
		return fetched{}, err
	}
	p.version = version
	return fetched{data: data, version: version}, nil
}

func (p *ssmParameter) remedies() awsRemedies {
	return awsRemedies{
		"AccessDeniedException": "the task role needs ssm:GetParameter on " + p.name + ", and kms:Decrypt where it is a SecureString with a key of its own",
		"ParameterNotFound":     "put the policy there, or name another parameter; one of another region needs ?region=R",
		"InvalidKeyId":          "the key that encrypts the parameter is disabled or gone: enable it, or write the parameter again",
	}
}

// packed is how a document begins that was packed by gzip and base64, as no
// policy does: base64 of gzip's magic number and its one method (RFC 1952).
const packed = "H4sI"

// unpack returns the document in a parameter. Parameters hold 4 KiB, or 8, so
// it may be packed: gzip -9 policy.yaml | base64.
func unpack(value string) ([]byte, error) {
	if !strings.HasPrefix(value, packed) {
		return []byte(value), nil
	}
	// The decoder skips line ends, which base64 writes unless told otherwise.
	zipped, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(value)))
	if err != nil {
		return nil, unpackFailure(err)
	}
	var data bytes.Buffer
	n, err := io.Copy(&data, io.LimitReader(zipped, maxPolicy+1))
	switch {
	case err != nil:
		return nil, unpackFailure(err)
	case n > maxPolicy:
		return nil, tooLarge()
	}
	return data.Bytes(), nil
}

func unpackFailure(err error) *sourceError {
	return &sourceError{
		class: "packed", err: fmt.Errorf("it begins as gzip and base64 do, and cannot be unpacked: %w", err),
		hint: "write what `gzip -9 policy.yaml | base64` prints, or the policy as it is",
	}
}
