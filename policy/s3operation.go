package policy

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// s3Resource is a sub-resource and the operations that each method asks of it:
// the names of S3's API, "" where there is none.
type s3Resource struct {
	get, put, post, del, head string
}

// s3Level is what a request is about: S3 tells operations apart by it.
type s3Level uint8

const (
	s3Service s3Level = iota // neither bucket nor key
	s3Bucket
	s3Object
)

// s3Resources returns the sub-resources of a bucket, or of an object, by the
// parameter that names them; "" is the bucket or the object itself.
func s3Resources(level s3Level) map[string]s3Resource {
	switch level {
	case s3Bucket:
		return s3BucketResources()
	case s3Object:
		return s3ObjectResources()
	case s3Service:
	}
	return nil
}

var s3BucketResources = sync.OnceValue(func() map[string]s3Resource {
	return map[string]s3Resource{
		"":                        {get: "ListObjects", head: "HeadBucket", put: "CreateBucket", del: "DeleteBucket", post: "PostObject"},
		"list-type":               {get: "ListObjectsV2"},
		"versions":                {get: "ListObjectVersions"},
		"uploads":                 {get: "ListMultipartUploads"},
		"delete":                  {post: "DeleteObjects"},
		"session":                 {get: "CreateSession"},
		"location":                {get: "GetBucketLocation"},
		"abac":                    {get: "GetBucketAbac", put: "PutBucketAbac"},
		"accelerate":              {get: "GetBucketAccelerateConfiguration", put: "PutBucketAccelerateConfiguration"},
		"acl":                     {get: "GetBucketAcl", put: "PutBucketAcl"},
		"analytics":               {get: "GetBucketAnalyticsConfiguration", put: "PutBucketAnalyticsConfiguration", del: "DeleteBucketAnalyticsConfiguration"},
		"cors":                    {get: "GetBucketCors", put: "PutBucketCors", del: "DeleteBucketCors"},
		"encryption":              {get: "GetBucketEncryption", put: "PutBucketEncryption", del: "DeleteBucketEncryption"},
		"intelligent-tiering":     {get: "GetBucketIntelligentTieringConfiguration", put: "PutBucketIntelligentTieringConfiguration", del: "DeleteBucketIntelligentTieringConfiguration"},
		"inventory":               {get: "GetBucketInventoryConfiguration", put: "PutBucketInventoryConfiguration", del: "DeleteBucketInventoryConfiguration"},
		"lifecycle":               {get: "GetBucketLifecycleConfiguration", put: "PutBucketLifecycleConfiguration", del: "DeleteBucketLifecycle"},
		"logging":                 {get: "GetBucketLogging", put: "PutBucketLogging"},
		"metadataAnnotationTable": {put: "UpdateBucketMetadataAnnotationTableConfiguration"},
		"metadataConfiguration":   {get: "GetBucketMetadataConfiguration", post: "CreateBucketMetadataConfiguration", del: "DeleteBucketMetadataConfiguration"},
		"metadataInventoryTable":  {put: "UpdateBucketMetadataInventoryTableConfiguration"},
		"metadataJournalTable":    {put: "UpdateBucketMetadataJournalTableConfiguration"},
		"metadataTable":           {get: "GetBucketMetadataTableConfiguration", post: "CreateBucketMetadataTableConfiguration", del: "DeleteBucketMetadataTableConfiguration"},
		"metrics":                 {get: "GetBucketMetricsConfiguration", put: "PutBucketMetricsConfiguration", del: "DeleteBucketMetricsConfiguration"},
		"notification":            {get: "GetBucketNotificationConfiguration", put: "PutBucketNotificationConfiguration"},
		"object-lock":             {get: "GetObjectLockConfiguration", put: "PutObjectLockConfiguration"},
		"ownershipControls":       {get: "GetBucketOwnershipControls", put: "PutBucketOwnershipControls", del: "DeleteBucketOwnershipControls"},
		"policy":                  {get: "GetBucketPolicy", put: "PutBucketPolicy", del: "DeleteBucketPolicy"},
		"policyStatus":            {get: "GetBucketPolicyStatus"},
		"publicAccessBlock":       {get: "GetPublicAccessBlock", put: "PutPublicAccessBlock", del: "DeletePublicAccessBlock"},
		"replication":             {get: "GetBucketReplication", put: "PutBucketReplication", del: "DeleteBucketReplication"},
		"requestPayment":          {get: "GetBucketRequestPayment", put: "PutBucketRequestPayment"},
		"tagging":                 {get: "GetBucketTagging", put: "PutBucketTagging", del: "DeleteBucketTagging"},
		"versioning":              {get: "GetBucketVersioning", put: "PutBucketVersioning"},
		"website":                 {get: "GetBucketWebsite", put: "PutBucketWebsite", del: "DeleteBucketWebsite"},
	}
})

var s3ObjectResources = sync.OnceValue(func() map[string]s3Resource {
	return map[string]s3Resource{
		"":             {get: "GetObject", head: "HeadObject", put: "PutObject", del: "DeleteObject"},
		"uploads":      {post: "CreateMultipartUpload"},
		"uploadId":     {get: "ListParts", put: "UploadPart", post: "CompleteMultipartUpload", del: "AbortMultipartUpload"},
		"acl":          {get: "GetObjectAcl", put: "PutObjectAcl"},
		"annotation":   {get: "GetObjectAnnotation", put: "PutObjectAnnotation", del: "DeleteObjectAnnotation"},
		"attributes":   {get: "GetObjectAttributes"},
		"encryption":   {put: "UpdateObjectEncryption"},
		"legal-hold":   {get: "GetObjectLegalHold", put: "PutObjectLegalHold"},
		"renameObject": {put: "RenameObject"},
		"restore":      {post: "RestoreObject"},
		"retention":    {get: "GetObjectRetention", put: "PutObjectRetention"},
		"select":       {post: "SelectObjectContent"},
		"tagging":      {get: "GetObjectTagging", put: "PutObjectTagging", del: "DeleteObjectTagging"},
		"torrent":      {get: "GetObjectTorrent"},
	}
})

// s3OtherOperations are those that the resources do not tell: of no bucket, of
// a copy, and the lists of what is else fetched one by one.
func s3OtherOperations() []string {
	return []string{
		"ListBuckets", "ListDirectoryBuckets", "CopyObject", "UploadPartCopy",
		"ListBucketAnalyticsConfigurations", "ListBucketIntelligentTieringConfigurations",
		"ListBucketInventoryConfigurations", "ListBucketMetricsConfigurations", "ListObjectAnnotations",
	}
}

// s3Guarded returns every operation's name, and whether it is guarded: a rule
// allows it only where it spells it out. Guarded is each write but those of
// objects' bytes, since most of the others change who may read a bucket or
// where its contents go, by themselves or by what their bodies say
// (RestoreObject can write to another bucket, PostObject carries its key and
// its grants in a form).
var s3Guarded = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{}
	for _, level := range []s3Level{s3Bucket, s3Object} {
		for _, r := range s3Resources(level) {
			for _, read := range []string{r.get, r.head} {
				all[read] = false
			}
			for _, write := range []string{r.put, r.post, r.del} {
				all[write] = !s3WritesBytes(write)
			}
		}
	}
	for _, name := range s3OtherOperations() {
		all[name] = false
	}
	delete(all, "")
	return all
})

// s3WritesBytes reports whether an operation that is no GET writes or deletes
// objects and does nothing else, or only reads one.
func s3WritesBytes(operation string) bool {
	switch operation {
	case "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload",
		"DeleteObject", "DeleteObjects", "RenameObject", "SelectObjectContent":
		return true
	}
	return false
}

// ofNoBucket reports whether an operation is about no bucket in particular.
func ofNoBucket(operation string) bool {
	return operation == "ListBuckets" || operation == "ListDirectoryBuckets"
}

// S3Operations returns the names of the operations that rules can list, sorted.
func S3Operations() []string { return slices.Sorted(maps.Keys(s3Guarded())) }

// S3Guarded reports whether a rule must spell an operation out before it
// allows it: the writes that can change who reads a bucket, or where its
// contents go.
func S3Guarded(operation string) bool { return s3Guarded()[operation] }

// s3Asked is what the query of a request asks for.
type s3Asked struct {
	resource string // "" for the bucket or the object itself
	listType string
	id       bool // one configuration, or one annotation, of a list
	part     bool // partNumber is there
	unknown  bool // a parameter that no operation here has
}

// readResource finds the sub-resource in a query, on either level. Two of
// them, or one twice, could be read in either way.
func readResource(params []param) (s3Asked, *S3RequestError) {
	var asked s3Asked
	seen := map[string]bool{}
	for _, p := range params {
		switch canonical := s3ResourceName(p.name); {
		case canonical == "":
			asked.unknown = asked.unknown || !isS3Modifier(p.name)
		case canonical != p.name:
			return asked, badCall(ReasonS3Operation, "the parameter %.40q differs from %q in case alone", p.name, canonical)
		case asked.resource != "":
			return asked, badCall(ReasonS3Operation, "the query names two sub-resources, %q and %q", asked.resource, p.name)
		case p.name == "uploadId" && p.value == "":
			return asked, badCall(ReasonS3Operation, "the upload's id is empty")
		default:
			asked.resource = canonical
			asked.listType = p.value
		}
		switch p.name {
		case "partNumber", "id", "annotationName", "versionId", "select-type":
			if seen[p.name] {
				return asked, badCall(ReasonS3Operation, "the parameter %q stands twice in the query", p.name)
			}
			seen[p.name] = true
		}
	}
	asked.part = seen["partNumber"]
	asked.id = seen["id"] || seen["annotationName"]
	return asked, nil
}

// s3ResourceNames holds the sub-resources' names by their lower case.
var s3ResourceNames = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	for _, level := range []s3Level{s3Bucket, s3Object} {
		for name := range s3Resources(level) {
			names[strings.ToLower(name)] = name
		}
	}
	return names
})

// s3ResourceName returns the sub-resource that a parameter names, whatever its
// case, "" when it names none.
func s3ResourceName(name string) string { return s3ResourceNames()[strings.ToLower(name)] }

// isS3Modifier reports whether a parameter belongs to an operation, or to its
// signature, without saying which one it is.
func isS3Modifier(name string) bool {
	switch name {
	case "x-id", "versionId", "partNumber", "id", "annotationName", "select-type",
		"AWSAccessKeyId", "Signature", "Expires":
		return true
	}
	return len(name) > 6 && strings.EqualFold(name[:6], "x-amz-")
}

// operation names what a method asks of a bucket or an object. A read with a
// parameter that is not known is that read: S3 ignores such parameters, and
// people add them. A write with one is not known.
func (a s3Asked) operation(method string, level s3Level) string {
	r, ok := s3Resources(level)[a.resource]
	if !ok {
		return ""
	}
	switch method {
	case "GET":
		return a.read(r.get)
	case "HEAD":
		return r.head
	}
	name := ""
	switch method {
	case "PUT":
		name = r.put
	case "POST":
		name = r.post
	case "DELETE":
		name = r.del
	}
	if a.unknown || a.part != (name == "UploadPart") {
		return ""
	}
	return name
}

// read names a GET, some of which a value tells apart.
func (a s3Asked) read(name string) string {
	switch a.resource {
	case "list-type":
		if a.listType != "2" {
			return ""
		}
	case "analytics", "intelligent-tiering", "inventory", "metrics":
		if !a.id {
			return "List" + strings.TrimPrefix(name, "Get") + "s"
		}
	case "annotation":
		if !a.id {
			return "ListObjectAnnotations"
		}
	}
	return name
}
