package history

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/sallyport/sallyport/policy"
)

// An identifier of a site or a task is made of what it stands for, so that ten
// proxies give the same thing the same name without asking each other. It has
// 80 bits of SHA-256: nobody finds a second thing of a given name, and who
// finds two of his own with one name has added up two of his own.
const identBytes = 10

// digest adds up the parts of an identifier.
type digest struct{ buf []byte }

// text adds a text, with its length: no two lists of texts are one.
func (d *digest) text(all ...string) {
	for _, s := range all {
		d.buf = binary.AppendUvarint(d.buf, uint64(len(s)))
		d.buf = append(d.buf, s...)
	}
}

func (d *digest) number(all ...uint64) {
	for _, n := range all {
		d.buf = binary.AppendUvarint(d.buf, n)
	}
}

func (d *digest) ref(r policy.S3Ref) {
	d.text(string(r.Form), r.Bucket, r.AccessPoint, r.Account, r.Region, r.Partition)
}

// String returns the identifier: lower-case letters and digits, so that it is
// never taken for a flag.
func (d *digest) String() string {
	sum := sha256.Sum256(d.buf)
	return base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding).EncodeToString(sum[:identBytes])
}

// siteKey is all that tells one site from another.
type siteKey struct {
	Caller
	Target
	verdict   policy.Verdict
	wouldDeny bool
	reason    policy.Reason
	rule      string
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// site adds what a site's ID is made of.
func (d *digest) site(k *siteKey) {
	d.text(k.Cluster, k.Service, k.Family, k.Source, k.Principal, k.VPCEndpoint)
	d.number(bit(k.Unidentified), uint64(k.Via), uint64(k.Protocol))
	d.text(k.Host)
	d.number(uint64(k.Port), bit(k.Inspected))
	d.ref(k.S3)
	d.text(k.Call.Host, k.Call.Operation, k.Call.ACL, string(k.Call.Scheme), k.Call.Account)
	d.ref(k.Call.Source)
	d.number(uint64(k.verdict), bit(k.wouldDeny))
	d.text(string(k.reason), k.rule)
}

// taskID returns the ID of a task's row, "" for none.
func taskID(t *policy.Task) string {
	if t == nil {
		return ""
	}
	var d digest
	d.text(t.ARN, t.Cluster, t.Service, t.Family)
	d.number(uint64(t.Revision))
	for _, k := range slices.Sorted(maps.Keys(t.Tags)) {
		d.text(k, t.Tags[k])
	}
	return d.String()
}
