package history

import (
	"encoding/json"
	"time"

	"github.com/sallyport/sallyport/logging/flow"
)

// detail is what is only shown of a flow, never searched.
type detail struct {
	Error      string   `json:"error,omitempty"`
	Owner      string   `json:"owner,omitempty"`
	Listener   string   `json:"listener,omitempty"`
	Datagram   bool     `json:"datagram,omitempty"`
	ServerName string   `json:"tls_server_name,omitempty"`
	TLS        string   `json:"tls_version,omitempty"`
	ALPN       []string `json:"tls_alpn,omitempty"`
	ECH        bool     `json:"tls_ech,omitempty"`
	Method     string   `json:"http_method,omitempty"`
	Path       string   `json:"http_path,omitempty"`
	Status     int      `json:"http_status,omitempty"`
	Hello      float64  `json:"hello_ms,omitempty"`
	Resolve    float64  `json:"resolve_ms,omitempty"`
	Dial       float64  `json:"dial_ms,omitempty"`
	FirstByte  float64  `json:"first_byte_ms,omitempty"`
}

// detailOf returns the JSON of what is only shown.
func detailOf(r *flow.Record) string {
	d := detail{
		Error: legible(r.Error), Owner: legible(r.Owner), Datagram: r.Datagram,
		TLS: legible(r.TLS.Version), ECH: r.TLS.ECH,
		Method: legible(r.HTTP.Method), Path: legible(r.HTTP.Path), Status: r.HTTP.Status,
		Hello: millis(r.Times.Hello), Resolve: millis(r.Times.Resolve), Dial: millis(r.Times.Dial), FirstByte: millis(r.Times.FirstByte),
		Listener: addrText(r.Listener),
	}
	if r.Inspected {
		d.Path = "" // it is an object's key
	}
	if r.TLS.ServerName != r.Host {
		d.ServerName = legible(r.TLS.ServerName)
	}
	for _, p := range r.TLS.ALPN[:min(len(r.TLS.ALPN), 8)] {
		d.ALPN = append(d.ALPN, legible(p))
	}
	text, err := json.Marshal(d)
	if err != nil || string(text) == "{}" {
		return ""
	}
	return string(text)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
