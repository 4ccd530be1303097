package logging

// Names of the fields that several of the daemon's messages share. Those of a
// flow line are in flow.schema.json.
const (
	FieldTime     = "time"
	FieldLevel    = "level"
	FieldMessage  = "message"
	FieldError    = "error"
	FieldListener = "listener"
	FieldPolicy   = "policy_version"
	FieldFlowID   = "flow_id"
	FieldDropped  = "dropped"
	FieldTotal    = "total"
)

// timeLayout is RFC 3339 in milliseconds; times are always in UTC.
const timeLayout = "2006-01-02T15:04:05.000Z"
