package policy

import (
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
)

// readSigner finds who signed: the Authorization header, or the query, or
// nobody. Two answers are none.
func readSigner(authorization []string, params []param) (S3Signer, *S3RequestError) {
	presigned, inQuery, err := readPresigned(params)
	switch {
	case err != nil:
		return S3Signer{}, err
	case len(authorization) > 1:
		return S3Signer{}, badCall(ReasonS3Account, "the request has two Authorization headers")
	case len(authorization) == 1 && inQuery:
		return S3Signer{}, badCall(ReasonS3Account, "the request is signed in a header and in its query")
	case inQuery:
		return presigned, nil
	case len(authorization) == 0:
		return S3Signer{Scheme: S3Anonymous}, nil
	}
	scheme, rest, _ := strings.Cut(authorization[0], " ")
	switch scheme {
	case "AWS4-HMAC-SHA256":
		return readAuthorization(S3SigV4, rest)
	case "AWS4-ECDSA-P256-SHA256":
		return readAuthorization(S3SigV4A, rest)
	case "AWS":
		rest = strings.TrimSpace(rest)
		key, signature, ok := strings.Cut(rest, ":")
		if !ok || key == "" || signature == "" || strings.ContainsAny(rest, " \t") || strings.Contains(signature, ":") {
			break
		}
		return signerOf(S3SigV2, key), nil
	}
	return S3Signer{}, badCall(ReasonS3Account, "the Authorization header is of no scheme that S3 has")
}

// readAuthorization reads what follows SigV4's algorithm: Credential,
// SignedHeaders and Signature, separated by commas, and nothing else. Who cuts
// elsewhere, or takes names as he likes, must not find another credential.
func readAuthorization(scheme S3Scheme, rest string) (S3Signer, *S3RequestError) {
	names := [...]string{"Credential", "SignedHeaders", "Signature"}
	var values [len(names)]string
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.Trim(part, " \t"), "=")
		i := slices.Index(names[:], name)
		switch {
		case i < 0, value == "", strings.ContainsAny(value, "=\" \t"):
			return S3Signer{}, badCall(ReasonS3Account, "the Authorization header has a part that no signature has")
		case values[i] != "":
			return S3Signer{}, badCall(ReasonS3Account, "the Authorization header has two parts of the name %s", name)
		}
		values[i] = value
	}
	return readCredential(scheme, values[0])
}

// readCredential reads KEY/DATE/REGION/SERVICE/aws4_request; SigV4A's has no
// Region.
func readCredential(scheme S3Scheme, credential string) (S3Signer, *S3RequestError) {
	parts := strings.Split(credential, "/")
	want, region := 5, ""
	if scheme == S3SigV4A || scheme == S3SigV4APresigned {
		want = 4
	}
	if len(parts) != want || parts[0] == "" || parts[want-1] != "aws4_request" {
		return S3Signer{}, badCall(ReasonS3Account, "the signature's credential is not of the form KEY/DATE/REGION/s3/aws4_request")
	}
	if want == 5 {
		region = parts[2]
	}
	if !isS3Service(parts[want-2]) {
		return S3Signer{}, badCall(ReasonS3Account, "the signature is for another service than S3")
	}
	s := signerOf(scheme, parts[0])
	s.Region = region
	return s, nil
}

// readPresigned reads a signature in the query and reports whether there is
// one. Names are compared without case: what S3 may read is read.
func readPresigned(params []param) (S3Signer, bool, *S3RequestError) {
	names := [...]string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-Expires", "AWSAccessKeyId", "Signature", "Expires"}
	var values [len(names)]string
	var counts [len(names)]int
	for _, p := range params {
		for i, name := range names {
			if !strings.EqualFold(p.name, name) {
				continue
			}
			if counts[i]++; counts[i] > 1 {
				return S3Signer{}, false, badCall(ReasonS3Account, "the parameter %s stands twice in the query", name)
			}
			values[i] = p.value
		}
	}
	algorithm, credential, signature, expires := values[0], values[1], values[2], values[3]
	v4 := counts[0]+counts[1]+counts[2] > 0
	v2 := counts[4]+counts[5] > 0
	switch {
	case v4 && v2:
		return S3Signer{}, false, badCall(ReasonS3Account, "the query is signed in two ways")
	case v2 && (values[4] == "" || values[5] == ""), v4 && (credential == "" || signature == ""):
		return S3Signer{}, false, badCall(ReasonS3Account, "the query's signature is not whole")
	case v2:
		return signerOf(S3SigV2Presigned, values[4]), true, nil
	case !v4:
		return S3Signer{}, false, nil
	}
	var scheme S3Scheme
	switch algorithm {
	case "AWS4-HMAC-SHA256":
		scheme = S3SigV4Presigned
	case "AWS4-ECDSA-P256-SHA256":
		scheme = S3SigV4APresigned
	default:
		return S3Signer{}, false, badCall(ReasonS3Account, "the query's signature is of no algorithm that S3 has")
	}
	s, err := readCredential(scheme, credential)
	s.Expires = expires
	return s, true, err
}

func signerOf(scheme S3Scheme, key string) S3Signer {
	return S3Signer{Scheme: scheme, AccessKeyID: key, Account: AccessKeyAccount(key)}
}

// AccessKeyAccount returns the 12-digit account that an access key id encodes,
// "" where it encodes none: ids from before 2019, and what is no id of AWS's.
//
// AWS documents none of this; sts:GetAccessKeyInfo is its own word on it. The
// 16 characters behind AKIA (long-lived) or ASIA (a session's, so every task
// role's) are base32; of their 80 bits the first is set in ids that encode the
// account in the 40 bits behind it.
func AccessKeyAccount(id string) string {
	if len(id) != 20 || (id[:4] != "AKIA" && id[:4] != "ASIA") {
		return ""
	}
	var b [10]byte
	if n, err := base32.StdEncoding.Decode(b[:], []byte(id[4:])); err != nil || n != len(b) || b[0]&0x80 == 0 {
		return ""
	}
	var account uint64
	for _, c := range b[:6] {
		account = account<<8 | uint64(c)
	}
	if account = account & 0x7fffffffff80 >> 7; account > 999_999_999_999 {
		return ""
	}
	return fmt.Sprintf("%012d", account)
}
