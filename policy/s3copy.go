package policy

import "strings"

// readCopySource reads x-amz-copy-source, which makes a copy of a PUT.
func (c *S3Call) readCopySource(values []string) *S3RequestError {
	if len(values) == 0 {
		return nil
	}
	if len(values) > 1 {
		return badCall(ReasonS3Operation, "the request names two sources of a copy")
	}
	switch c.Operation {
	case "PutObject":
		c.Operation = "CopyObject"
	case "UploadPart":
		c.Operation = "UploadPartCopy"
	default:
		return badCall(ReasonS3Operation, "the request names the source of a copy and makes none")
	}
	source, err := parseCopySource(values[0], c.Ref)
	c.Source = source
	return err
}

// readRenameSource reads x-amz-rename-source. A rename stays within its
// bucket, so it is the key alone.
func (c *S3Call) readRenameSource(values []string) *S3RequestError {
	switch {
	case c.Operation != "RenameObject" && len(values) == 0:
		return nil
	case c.Operation != "RenameObject" || len(values) != 1:
		return badCall(ReasonS3Operation, "a rename has one source, and nothing else has one")
	}
	key, ok := unescape(values[0])
	if !ok {
		return badCall(ReasonS3Operation, "the source of the rename is not percent-encoded well")
	}
	c.Source = S3Source{Ref: c.Ref, Key: strings.TrimPrefix(key, "/")}
	return nil
}

// parseCopySource reads a copy's source as S3 does: percent-decoded once,
//
//	[/]BUCKET/KEY[?versionId=ID]     BUCKET may be an alias
//	arn:PARTITION:s3:R:A:accesspoint/NAME/object/KEY
//	arn:PARTITION:s3-outposts:R:A:outpost/OUTPOST/accesspoint/NAME/object/KEY
//
// A bucket's Region is not told, nor needed to find it: within a partition its
// name is its own, and copies stay within one. into is where the copy goes.
func parseCopySource(value string, into S3Ref) (S3Source, *S3RequestError) {
	raw, query, _ := strings.Cut(value, "?")
	text, ok := unescape(raw)
	if !ok {
		return S3Source{}, badCall(ReasonS3Bucket, "the source of the copy is not percent-encoded well")
	}
	var s S3Source
	var err *S3RequestError
	if strings.HasPrefix(text, "arn:") {
		s, err = parseSourceARN(text)
	} else {
		s, err = parseSourcePath(text, into)
	}
	switch {
	case err != nil:
		return S3Source{}, err
	case s.Key == "":
		return S3Source{}, badCall(ReasonS3Bucket, "the source of the copy names no object")
	case climbs(s.Key):
		return S3Source{}, badCall(ReasonS3Bucket, "the source of the copy climbs out of its bucket: whoever cleans it reads another one")
	}
	s.Version, _ = strings.CutPrefix(query, "versionId=")
	return s, nil
}

// parseSourcePath reads [/]BUCKET/KEY.
func parseSourcePath(text string, into S3Ref) (S3Source, *S3RequestError) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(text, "/"), "/")
	p := s3Parse{ref: S3Ref{Form: S3PathStyle, Partition: into.Partition}}
	if bucket == into.Bucket {
		p.ref.Region = into.Region
	}
	err := nameInPath(&p, bucket)
	return S3Source{Ref: p.ref, Key: key}, err
}

// parseSourceARN reads the ARN of an object behind an access point.
func parseSourceARN(text string) (S3Source, *S3RequestError) {
	refused := badCall(ReasonS3Bucket, "the source of the copy is an ARN, and not an access point's object")
	parts := strings.SplitN(text, ":", 6)
	if len(parts) != 6 {
		return S3Source{}, refused
	}
	s := S3Source{Ref: S3Ref{Form: S3AccessPoint, Partition: parts[1], Region: parts[3], Account: parts[4]}}
	resource := parts[5]
	switch parts[2] {
	case "s3":
	case "s3-outposts":
		s.Ref.Form = S3Outposts
		rest, ok := strings.CutPrefix(resource, "outpost/")
		if !ok {
			return S3Source{}, refused
		}
		_, resource, _ = strings.Cut(rest, "/")
	default:
		return S3Source{}, refused
	}
	rest, ok := strings.CutPrefix(resource, "accesspoint/")
	name, rest, ok2 := strings.Cut(rest, "/")
	key, ok3 := strings.CutPrefix(rest, "object/")
	if !ok || !ok2 || !ok3 || !isAccount(s.Ref.Account) || !isBucketName(name) || regionPartition(s.Ref.Region) != s.Ref.Partition {
		return S3Source{}, refused
	}
	s.Ref.AccessPoint, s.Key = name, key
	return s, nil
}
