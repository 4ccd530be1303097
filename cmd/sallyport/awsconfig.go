package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/smithy-go/logging"
	"github.com/rs/zerolog"

	"github.com/sallyport/sallyport/proxy/identity/ecs"
)

// awsConfig returns how this process speaks to AWS: with the credentials that
// the SDK finds, on Fargate the task role's, through a client that takes no
// proxy.
func awsConfig(ctx context.Context, direct *awshttp.BuildableClient, options ...func(*config.LoadOptions) error) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx, append([]func(*config.LoadOptions) error{
		config.WithHTTPClient(direct),
		// The one client that the SDK makes for itself: it would ask
		// HTTP_PROXY for the task's credentials, at 169.254.170.2.
		config.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = direct }),
		config.WithLogger(logging.Nop{}), // by itself it writes its own lines between ours
	}, options...)...)
	if err != nil {
		return cfg, fmt.Errorf("AWS configuration: %w", err)
	}
	return cfg, nil
}

// identityCallTime bounds a request for identities: more than a long poll takes.
const identityCallTime = 30 * time.Second

// identityConfig is awsConfig for those who find out who calls. What the SDK
// says goes to log.
func identityConfig(ctx context.Context, log zerolog.Logger) (aws.Config, error) {
	return awsConfig(ctx, directClient().WithTimeout(identityCallTime), config.WithLogger(ecs.SDKLogger(log)))
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
		cfg, err := awsConfig(ctx, directClient())
		if err != nil {
			return aws.Config{}, err
		}
		s.cfg = &cfg
	}
	return *s.cfg, nil
}
