package main

import (
	"context"
	"net/http"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
)

// awsConfig returns how this process speaks to AWS: with the credentials that
// the SDK finds, on Fargate the task role's, and without a proxy.
func awsConfig(ctx context.Context, options ...func(*config.LoadOptions) error) (aws.Config, error) {
	direct := directClient()
	cfg, err := config.LoadDefaultConfig(ctx, append(options,
		config.WithHTTPClient(direct),
		// The one client that the SDK makes for itself: it would ask
		// HTTP_PROXY for the task's credentials, at 169.254.170.2.
		config.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = direct }),
	)...)
	cfg.Logger = nil // it would write its own lines between ours
	return cfg, err
}

// directClient asks AWS without a proxy: HTTPS_PROXY in the proxy's own
// environment may well be the proxy itself, which does not serve yet.
func directClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy = nil })
}

// awsSession is the configuration that several users share, and with it the
// credentials. It is loaded at its first use.
type awsSession struct {
	mu  sync.Mutex // guards cfg
	cfg *aws.Config
}

func newAWSSession() *awsSession { return new(awsSession) }

// config returns the configuration.
func (s *awsSession) config(ctx context.Context) (aws.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg == nil {
		cfg, err := awsConfig(ctx)
		if err != nil {
			return aws.Config{}, err
		}
		s.cfg = &cfg
	}
	return *s.cfg, nil
}
