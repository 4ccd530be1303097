module github.com/sallyport/sallyport/integration/bench/peers

go 1.26.0

require (
	github.com/elazarl/goproxy v1.9.2
	github.com/inetaf/tcpproxy v0.0.0-20260515195445-c159a6051109
)

require (
	golang.org/x/net v0.50.0 // indirect
	golang.org/x/text v0.34.0 // indirect
)
