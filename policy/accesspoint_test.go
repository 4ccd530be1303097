package policy

import "testing"

// TestAccessPointNamedLikeAnothers: names of access points are their account's
// own affair, so a stranger can name his like NAME-ACCOUNT of a rule.
func TestAccessPointNamedLikeAnothers(t *testing.T) {
	p := mustLoad(t, `version: 1
rules:
  - {name: finance, s3: {access_points: [finance-111122223333, "models-*-111122223333"], inspect: true}}
  - {name: any, allow_broad: true, s3: {access_points: ["shared*"]}}
  - {name: hers, s3: {access_points: [finance-111122223333-444455556666]}}
`)
	const suffix = ".s3-accesspoint.us-west-2.amazonaws.com"
	for point, want := range map[string]string{
		"finance-111122223333":                "allow rule finance",
		"models-a-111122223333":               "allow rule finance",
		"finance-999922223333":                "deny s3_bucket",
		"finance-111122223333-999922223333":   "deny s3_bucket",
		"models-a-111122223333-999922223333":  "deny s3_bucket",
		"finance-111122223333-444455556666":   "allow rule hers",
		"shared-999922223333":                 "allow rule any",
		"shared-111122223333-999922223333":    "allow rule any",
		"shared-x-111122223333-1111222233334": "deny s3_opaque",
	} {
		h, err := ParseHost(point + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if got := told(p.Decide(Query{Via: ViaTLS, Host: h, Port: 443, Protocol: ProtocolTLS})); got != want {
			t.Errorf("%s: %s, want %s", point, got, want)
		}
	}
	const arn = "PUT finance-111122223333.s3-accesspoint.us-west-2.amazonaws.com /k\nx-amz-copy-source: arn:aws:s3:us-west-2:"
	for source, want := range map[string]string{
		"111122223333:accesspoint/finance":              "allow rule finance",
		"999922223333:accesspoint/finance":              "deny s3_bucket (source)",
		"999922223333:accesspoint/finance-111122223333": "deny s3_bucket (source)",
	} {
		if got := told(p.Decide(inspectedCall(t, arn+source+"/object/k"+signedBy(testKey)))); got != want {
			t.Errorf("a copy from %s: %s, want %s", source, got, want)
		}
	}
}
