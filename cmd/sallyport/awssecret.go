package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// secretPatience bounds the reading of a secret with all its attempts, so that
// a missing route or role is said before the orchestrator gives the task up.
const secretPatience = 20 * time.Second

// readSecret returns the current value of a secret of AWS Secrets Manager, by
// its name or ARN, with the credentials that the SDK finds: on Fargate the
// task role's. An ARN says its Region; a name is looked up in the task's own.
func readSecret(ctx context.Context, id string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, secretPatience)
	defer cancel()
	var options []func(*config.LoadOptions) error
	if region := secretRegion(id); region != "" {
		options = append(options, config.WithRegion(region))
	}
	cfg, err := awsConfig(ctx, directClient(), options...)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", id, err)
	}
	if cfg.Region == "" {
		return nil, fmt.Errorf("secret %s: no AWS Region is known: name the secret by its ARN, or set AWS_REGION", id)
	}
	answer, err := secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &id})
	if err != nil {
		return nil, secretError(id, err)
	}
	if answer.SecretString != nil {
		return []byte(*answer.SecretString), nil
	}
	if len(answer.SecretBinary) == 0 {
		return nil, fmt.Errorf("secret %s is empty", id)
	}
	return answer.SecretBinary, nil
}

// secretRegion returns the Region of an ARN, "" for a name.
func secretRegion(id string) string {
	parts := strings.SplitN(id, ":", 7)
	if len(parts) < 7 || parts[0] != "arn" {
		return ""
	}
	return parts[3]
}

// secretError says what to do about the two answers that everybody meets.
func secretError(id string, err error) error {
	failed, ok := errors.AsType[interface {
		error
		ErrorCode() string
	}](err)
	switch {
	case !ok:
	case failed.ErrorCode() == "AccessDeniedException":
		err = fmt.Errorf("%w (the task role needs secretsmanager:GetSecretValue on it, and kms:Decrypt where the secret has a key of its own)", err)
	case failed.ErrorCode() == "ResourceNotFoundException":
		err = fmt.Errorf("%w (a name is looked up in the task's own Region and account)", err)
	}
	return fmt.Errorf("secret %s: %w", id, err)
}
