package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/proxy/proxytest"
)

// ecsAddr is where ECS answers those who ask it who is calling.
const ecsAddr = "127.0.9.4:8181"

// ecsTasks are so many that finding the caller among them would show.
const ecsTasks = 3000

// runECS is an ECS with the caller of wayHeader among its tasks, until the
// process is ended.
func runECS(addr string) error {
	aws := proxytest.NewAWS()
	born := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i := range ecsTasks {
		aws.Put(proxytest.ECSTask{ID: fmt.Sprintf("crowd%d", i), Service: "crowd", IPv4: fmt.Sprintf("10.77.%d.%d", i>>8, i&255), Created: born})
	}
	aws.Put(proxytest.ECSTask{ID: "caller", Service: "callers", IPv4: callerAddr, Created: born})
	return (&http.Server{Addr: addr, Handler: aws, ReadHeaderTimeout: time.Minute}).ListenAndServe()
}

// startECS starts it.
func (b *bench) startECS(ctx context.Context) (*child, error) {
	addr, err := netip.ParseAddrPort(ecsAddr)
	if err != nil {
		return nil, err
	}
	return b.serve(ctx, roleECS, ecsAddr, addr)
}

// ecsSettings make Sallyport ask there.
func ecsSettings(told map[string]any) (env []string) {
	told["identity"] = map[string]any{"ecs": map[string]any{"clusters": []any{map[string]any{"cluster": "prod", "region": "us-east-1"}}}}
	return []string{
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=AKIABENCH", "AWS_SECRET_ACCESS_KEY=bench", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ENDPOINT_URL=http://" + ecsAddr,
	}
}
