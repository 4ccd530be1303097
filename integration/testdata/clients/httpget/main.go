// Command httpget asks for URLs with Go's default client, which takes its
// proxy from the environment, and prints what it got or what went wrong.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	enc := json.NewEncoder(os.Stdout)
	for _, url := range os.Args[1:] {
		status, body, err := get(url)
		answer := map[string]any{"status": status, "body": body}
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		if err := enc.Encode(answer); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func get(url string) (int, string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
