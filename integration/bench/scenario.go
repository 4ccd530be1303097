package main

// way is how a connection tells the proxy where it wants to go.
type way string

const (
	wayConnect way = "connect" // CONNECT, then a ClientHello inside
	waySNI     way = "sni"     // a ClientHello alone
	wayHTTP    way = "http"    // a plain request with an absolute URL
	wayHeader  way = "header"  // a PROXY header, then CONNECT and a ClientHello inside
	wayInspect way = "inspect" // CONNECT to a bucket, and TLS inside that ends at the proxy
)

// destination is the name that a way leads to, and stranger one beside it that
// is on no allowlist, and leads there all the same where a subject looks no
// further.
func (w way) destination() string {
	if w == wayInspect {
		return bucketName
	}
	return originName
}

// tunnels reports whether a way asks a proxy by CONNECT.
func (w way) tunnels() bool { return w == wayConnect || w == wayHeader || w == wayInspect }

// callerHeader is what a balancer says of its client: nobody else's address, as
// the policy's source asks for.
const callerHeader = "PROXY TCP4 " + callerAddr + " 192.0.2.8 4711 3128\r\n"

const callerAddr = "192.0.2.7"

// header is what comes before anything else.
func (w way) header() string {
	if w == wayHeader {
		return callerHeader
	}
	return ""
}

func (w way) stranger() string {
	if w == wayInspect {
		return strangerBucket
	}
	return strangerName
}

// scenario is a question to all subjects that it is for.
type scenario struct {
	name  string
	title string
	ways  []way
	loads []load
}

// load is one measurement of a scenario.
type load struct {
	name  string
	title string
	unit  unit
	task  task // without address and lengths
}

// unit is what a load counts, and in what its CPU is given.
type unit struct {
	rate  string  // heading of the rate
	cpu   string  // heading of the CPU for one
	scale float64 // of the CPU, from seconds
}

func tunnels() unit  { return unit{"tunnels/s", "CPU µs/tunnel", 1e6} }
func gigabyte() unit { return unit{"GB/s", "CPU s/GB", 1} }
func trips() unit    { return unit{"round trips/s", "CPU µs/trip", 1e6} }
func requests() unit { return unit{"requests/s", "CPU µs/request", 1e6} }
func held() unit     { return unit{"opened/s", "CPU µs/tunnel", 1e6} }

// scenarios lists all there are. Quick ones have one load of each kind, and
// few idle tunnels.
func scenarios(quick bool) []scenario {
	all := allScenarios(quick)
	if !quick {
		return all
	}
	for i := range all {
		loads := all[i].loads
		all[i].loads = nil
		for j, l := range loads {
			if j == len(loads)-1 || loads[j+1].task.Kind != l.task.Kind {
				all[i].loads = append(all[i].loads, l)
			}
		}
	}
	return all
}

func allScenarios(quick bool) []scenario {
	tunnelWays := []way{wayConnect, waySNI}
	few, many := 3000, 9000
	if quick {
		few, many = 100, 300
	}
	return []scenario{
		{"tunnels", "New tunnels", tunnelWays, []load{
			{"tunnels-1", "one at a time", tunnels(), task{Kind: kindTunnel, Count: 1}},
			{"tunnels-32", "32 at a time", tunnels(), task{Kind: kindTunnel, Count: 32}},
		}},
		{"callers", "New tunnels behind a PROXY header, of a caller whom the policy tells from others", []way{wayHeader, wayConnect}, []load{
			{"callers-32", "32 at a time", tunnels(), task{Kind: kindTunnel, Count: 32}},
		}},
		{"bulk", "Bulk", tunnelWays, []load{
			{"down-1", "down, one stream", gigabyte(), task{Kind: kindDown, Count: 1}},
			{"down-8", "down, 8 streams", gigabyte(), task{Kind: kindDown, Count: 8}},
			{"up-1", "up, one stream", gigabyte(), task{Kind: kindUp, Count: 1}},
			{"up-8", "up, 8 streams", gigabyte(), task{Kind: kindUp, Count: 8}},
		}},
		{"trips", "Round trips in a tunnel", tunnelWays, []load{
			{"trip-1", "1 B", trips(), task{Kind: kindEcho, Count: 1, Size: 1}},
			{"trip-1024", "1 KiB", trips(), task{Kind: kindEcho, Count: 1, Size: 1024}},
		}},
		{"idle", "Idle tunnels", tunnelWays, []load{
			{"idle-few", "some", held(), task{Kind: kindIdle, Count: few}},
			{"idle-many", "many", held(), task{Kind: kindIdle, Count: many}},
		}},
		{"http", "Plain HTTP, connections kept", []way{wayHTTP}, []load{
			{"http-1", "one at a time", requests(), task{Kind: kindHTTP, Count: 1}},
			{"http-32", "32 at a time", requests(), task{Kind: kindHTTP, Count: 32}},
		}},
		{"inspect", "Inspected TLS", []way{wayInspect}, []load{
			{"download-1", "download, one stream", gigabyte(), task{Kind: kindDownload, Count: 1}},
			{"download-8", "download, 8 streams", gigabyte(), task{Kind: kindDownload, Count: 8}},
			{"upload-1", "upload, one stream", gigabyte(), task{Kind: kindUpload, Count: 1}},
			{"upload-8", "upload, 8 streams", gigabyte(), task{Kind: kindUpload, Count: 8}},
			{"get-1", "GET of 1 KiB, one at a time", requests(), task{Kind: kindGet, Count: 1}},
			{"get-32", "GET of 1 KiB, 32 at a time", requests(), task{Kind: kindGet, Count: 32}},
		}},
		{"rules", "New tunnels by number of rules", tunnelWays, []load{
			{"rules-32", "32 at a time", tunnels(), task{Kind: kindTunnel, Count: 32}},
		}},
	}
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios(false) {
		names = append(names, s.name)
	}
	return names
}
