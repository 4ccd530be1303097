package policy

import (
	"slices"
	"strings"
	"sync"
)

// s3Permission is what IAM asks of whoever does one of S3's operations. The
// names are without "s3:".
type s3Permission struct {
	always  []string
	version []string // in the place of always, where the request names a version
	headers []string // besides, where headers ask for tags, locks or a bypass of them
}

// all returns every action that some form of the operation needs.
func (p s3Permission) all() []string { return slices.Concat(p.always, p.version, p.headers) }

// s3Permissions returns the permissions by operation, after AWS's Service
// Authorization Reference and the pages of S3's API: "ALWAYS|VERSION|HEADERS".
// Where the two differ it has both. Those of which the IAM service is not "s3"
// pass no S3 gateway endpoint and have none.
var s3Permissions = sync.OnceValue(func() map[string]s3Permission {
	all := make(map[string]s3Permission, 128)
	for operation, text := range s3PermissionTexts() {
		parts := strings.Split(text+"||", "|")
		all[operation] = s3Permission{strings.Fields(parts[0]), strings.Fields(parts[1]), strings.Fields(parts[2])}
	}
	for _, operation := range S3Operations() {
		if _, told := all[operation]; !told {
			all[operation] = s3Permission{always: []string{operation}} // IAM calls most as the API does
		}
	}
	return all
})

func s3PermissionTexts() map[string]string {
	const put = "PutObject||PutObjectTagging PutObjectRetention PutObjectLegalHold"
	return map[string]string{
		// Of objects.
		"GetObject": "GetObject|GetObjectVersion", "HeadObject": "GetObject|GetObjectVersion", "SelectObjectContent": "GetObject",
		"GetObjectAcl":        "GetObjectAcl|GetObjectVersionAcl",
		"GetObjectAnnotation": "GetObjectAnnotation|GetObjectVersionAnnotation", "ListObjectAnnotations": "ListObjectAnnotations|ListObjectVersionAnnotations",
		"GetObjectAttributes": "GetObject GetObjectAttributes|GetObjectVersion GetObjectVersionAttributes",
		"GetObjectTagging":    "GetObjectTagging|GetObjectVersionTagging", "GetObjectTorrent": "GetObjectTorrent|GetObjectVersionTorrent",
		"PutObject": put, "CopyObject": put, "CreateMultipartUpload": put, "PostObject": put + " PutObjectAcl",
		"UploadPart": "PutObject", "UploadPartCopy": "PutObject", "CompleteMultipartUpload": "PutObject", "ListParts": "ListMultipartUploadParts",
		"DeleteObject": "DeleteObject|DeleteObjectVersion|BypassGovernanceRetention", "DeleteObjects": "DeleteObject|DeleteObjectVersion|BypassGovernanceRetention",
		"PutObjectAcl":        "PutObjectAcl|PutObjectVersionAcl",
		"PutObjectAnnotation": "PutObjectAnnotation|PutObjectVersionAnnotation", "DeleteObjectAnnotation": "DeleteObjectAnnotation|DeleteObjectVersionAnnotation",
		"PutObjectRetention": "PutObjectRetention||BypassGovernanceRetention",
		"PutObjectTagging":   "PutObjectTagging|PutObjectVersionTagging", "DeleteObjectTagging": "DeleteObjectTagging|DeleteObjectVersionTagging",
		"UpdateObjectEncryption": "UpdateObjectEncryption PutObject",

		// Of buckets.
		"HeadBucket": "ListBucket", "ListObjects": "ListBucket", "ListObjectsV2": "ListBucket",
		"ListObjectVersions": "ListBucketVersions", "ListMultipartUploads": "ListBucketMultipartUploads",
		"CreateBucket":                     "CreateBucket||PutBucketObjectLockConfiguration PutBucketVersioning PutBucketOwnershipControls TagResource",
		"GetBucketAccelerateConfiguration": "GetAccelerateConfiguration", "PutBucketAccelerateConfiguration": "PutAccelerateConfiguration",
		"GetBucketAnalyticsConfiguration": "GetAnalyticsConfiguration", "ListBucketAnalyticsConfigurations": "GetAnalyticsConfiguration",
		"PutBucketAnalyticsConfiguration": "PutAnalyticsConfiguration", "DeleteBucketAnalyticsConfiguration": "PutAnalyticsConfiguration",
		"GetBucketCors": "GetBucketCORS", "PutBucketCors": "PutBucketCORS", "DeleteBucketCors": "PutBucketCORS",
		"GetBucketEncryption": "GetEncryptionConfiguration", "PutBucketEncryption": "PutEncryptionConfiguration", "DeleteBucketEncryption": "PutEncryptionConfiguration",
		"GetBucketIntelligentTieringConfiguration": "GetIntelligentTieringConfiguration", "ListBucketIntelligentTieringConfigurations": "GetIntelligentTieringConfiguration",
		"PutBucketIntelligentTieringConfiguration": "PutIntelligentTieringConfiguration", "DeleteBucketIntelligentTieringConfiguration": "PutIntelligentTieringConfiguration",
		"GetBucketInventoryConfiguration": "GetInventoryConfiguration", "ListBucketInventoryConfigurations": "GetInventoryConfiguration",
		"PutBucketInventoryConfiguration": "PutInventoryConfiguration", "DeleteBucketInventoryConfiguration": "PutInventoryConfiguration",
		"GetBucketLifecycleConfiguration": "GetLifecycleConfiguration", "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration", "DeleteBucketLifecycle": "PutLifecycleConfiguration",
		"GetBucketMetricsConfiguration": "GetMetricsConfiguration", "ListBucketMetricsConfigurations": "GetMetricsConfiguration",
		"PutBucketMetricsConfiguration": "PutMetricsConfiguration", "DeleteBucketMetricsConfiguration": "PutMetricsConfiguration",
		"GetBucketMetadataConfiguration": "GetBucketMetadataTableConfiguration", "CreateBucketMetadataConfiguration": "CreateBucketMetadataTableConfiguration",
		"DeleteBucketMetadataConfiguration":  "DeleteBucketMetadataTableConfiguration",
		"GetBucketNotificationConfiguration": "GetBucketNotification", "PutBucketNotificationConfiguration": "PutBucketNotification",
		"DeleteBucketOwnershipControls": "PutBucketOwnershipControls", "DeleteBucketTagging": "PutBucketTagging",
		"GetBucketReplication": "GetReplicationConfiguration", "PutBucketReplication": "PutReplicationConfiguration", "DeleteBucketReplication": "PutReplicationConfiguration",
		"GetObjectLockConfiguration": "GetBucketObjectLockConfiguration", "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
		"GetPublicAccessBlock": "GetBucketPublicAccessBlock", "PutPublicAccessBlock": "PutBucketPublicAccessBlock", "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",

		// Of no bucket, and of directory buckets alone (s3express).
		"ListBuckets": "ListAllMyBuckets", "ListDirectoryBuckets": "", "CreateSession": "", "RenameObject": "",
	}
}

// actionOfObjects reports whether an action is about objects: its resource
// then is BUCKET/KEY, and BUCKET alone for the others.
func actionOfObjects(action string) bool {
	switch action {
	case "AbortMultipartUpload", "ListMultipartUploadParts", "BypassGovernanceRetention":
		return true
	}
	return strings.Contains(action, "Object") && !strings.Contains(action, "Bucket")
}

// ownACLs returns the canned ACLs that give what is written to nobody but the
// bucket's owner. A request with one of them needs PutObjectAcl of IAM, and
// the policy's rules allow it with the bytes.
func ownACLs() []string {
	return []string{"bucket-owner-full-control", "bucket-owner-read", "private"}
}

// carriesACL reports whether an operation can carry such an ACL in a header.
func carriesACL(operation string) bool {
	switch operation {
	case "PutObject", "CopyObject", "CreateMultipartUpload":
		return true
	}
	return false
}

// actionsOf returns what IAM asks for some operations, sorted and without
// "s3:". Where anything is copied, whoever reads an object reads its tags too.
func actionsOf(operations []string, copies bool) []string {
	var all []string
	for _, o := range operations {
		all = append(all, s3Permissions()[o].all()...)
		if o == "GetObject" && copies {
			all = append(all, s3Permissions()["GetObjectTagging"].all()...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// named puts the service before actions.
func named(actions []string) []string {
	all := make([]string, len(actions))
	for i, a := range actions {
		all[i] = "s3:" + a
	}
	return all
}
