#!/usr/bin/env bash
# Sallyport in one terminal: builds it, starts it with an example policy, sends
# curl through it to a name that is allowed and to one that is not, and shows
# the record of each. Needs Go and curl; no network, no root, no files.
#
#   examples/quickstart.sh          shows, and stops
#   examples/quickstart.sh --stay   shows, and goes on serving until Ctrl-C
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
pids=()
finish() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
if [[ ! -t 1 || -n ${NO_COLOR:-} ]]; then say() { printf '\n%s\n' "$*"; }; fi

free_port() { # FIRST: the first port from there on that nobody serves
	local port=$1
	while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
	echo "$port"
}

await() { # SECONDS COMMAND...: until it succeeds
	local until=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS >= until)); then return 1; fi
		sleep 0.1
	done
}

say "building"
go build -o "$work/" ./cmd/sallyport ./examples/origin

# An origin that needs no network: a name that leads to this machine.
"$work/origin" -name hello.example.test -dir "$work" &
pids+=($!)
await 10 test -s "$work/url" || { echo "the origin did not start" >&2; exit 1; }
origin=$(<"$work/url")

export SALLYPORT_ADMIN_ADDRESS SALLYPORT_CONFIG=$work/sallyport.yaml
SALLYPORT_ADMIN_ADDRESS=127.0.0.1:$(free_port 9901)
proxy=127.0.0.1:$(free_port 3128)
cat >"$SALLYPORT_CONFIG" <<-CONFIG
	listeners: [{address: "$proxy"}]
	resolver: {hosts: [{name: hello.example.test, addresses: [127.0.0.1]}]}
CONFIG

say "sallyport serve --policy examples/policies/quickstart.yaml"
"$work/sallyport" serve --policy examples/policies/quickstart.yaml >"$work/flows" 2>"$work/log" &
pids+=($!)
if ! await 10 "$work/sallyport" ready; then
	cat "$work/log" "$work/flows" >&2
	exit 1
fi
echo "serving on $proxy"

# -i shows the proxy's own answers beside the origin's.
ask() { # WHAT URL...
	say "$1: curl --proxy http://$proxy $2"
	curl -sS -i --max-time 10 --noproxy '' --proxy "http://$proxy" --cacert "$work/ca.pem" "$2" || true
	echo
}
ask "allowed" "$origin"
ask "denied " https://www.pastebin.example/
ask "denied " http://not-listed.example/

say "the record: one line for each denial, two (open and close) for what was allowed"
await 10 grep -q '"flow.close"' "$work/flows" || true
grep '"flow\.' "$work/flows"

if [[ ${1:-} == --stay ]]; then
	say "serving until Ctrl-C; in another terminal, with names of your own in the policy:"
	echo "  HTTPS_PROXY=http://$proxy curl https://www.example.com/"
	tail -n 0 -f "$work/flows" &
	pids+=($!)
	wait "${pids[1]}"
fi
