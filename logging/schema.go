package logging

import (
	_ "embed" // flow.schema.json
	"slices"
)

// schemaVersion is sallyport.schema of every line. It changes when a field is
// renamed, removed or means something else; a new field does not change it.
const schemaVersion = 1

//go:embed flow.schema.json
var flowSchema []byte

// FlowSchema returns the JSON Schema (2020-12) of the flow log's lines.
func FlowSchema() []byte { return slices.Clone(flowSchema) }
