package policy

// S3Form says which of S3's endpoint forms a host has.
type S3Form string

// S3Ref is what the S3 grammar reads from a host. Fields that the host does
// not carry are "".
type S3Ref struct {
	Form        S3Form `json:"form"`
	Bucket      string `json:"bucket,omitempty"`
	AccessPoint string `json:"access_point,omitempty"`
	Account     string `json:"account,omitempty"`
	Region      string `json:"region,omitempty"`
	Partition   string `json:"partition,omitempty"`
}
