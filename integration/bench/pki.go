package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// The files of a run's two certificate authorities, below its folder: the one
// that whoever inspects signs with, and the one that has signed the bucket's
// certificate. A client trusts one of the two, and so finds out whether it was
// inspected.
const (
	proxyCA    = "proxy-ca"
	originCA   = "origin-ca"
	originCert = "bucket"
)

// pem and key are where a certificate and its key are.
func (o *options) pem(name string) string { return filepath.Join(absolute(o.Dir), name+".pem") }
func (o *options) key(name string) string { return filepath.Join(absolute(o.Dir), name+".key") }

// certify makes both authorities and the bucket's certificate, for one run.
func (o *options) certify() error {
	if _, err := o.authority(proxyCA); err != nil {
		return err
	}
	ca, err := o.authority(originCA)
	if err != nil {
		return err
	}
	_, err = o.issue(originCert, &x509.Certificate{
		Subject:  pkix.Name{CommonName: bucketName}, // mitmproxy takes it for one more name
		DNSNames: []string{bucketName, strangerBucket},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca)
	return err
}

// issued is a certificate and its key.
type issued struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// authority makes a CA for S3's names in one Region.
func (o *options) authority(name string) (*issued, error) {
	return o.issue(name, &x509.Certificate{
		Subject: pkix.Name{CommonName: "bench " + name},
		IsCA:    true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"s3.us-east-1.amazonaws.com"},
	}, nil)
}

// issue makes a certificate, signed by ca or by itself, and writes it.
func (o *options) issue(name string, template *x509.Certificate, ca *issued) (*issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	now := time.Now()
	template.SerialNumber = big.NewInt(now.UnixNano())
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(90*24*time.Hour)
	signer := &issued{template, key}
	if ca != nil {
		signer = ca
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, &key.PublicKey, signer.key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate back: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("writing a key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(o.pem(name), text, 0o644); err != nil {
		return nil, err
	}
	return &issued{cert, key}, os.WriteFile(o.key(name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}
