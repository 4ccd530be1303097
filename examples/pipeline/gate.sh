#!/usr/bin/env bash
# A pipeline's gate, by what a fleet remembers. Before a policy goes into force:
# is it good, and whom would it hurt? Before a revision of a task definition goes
# on: what does it reach that the old one never did? All of it is asked and told,
# and the worst answer is the exit code:
#
#   0  go on
#   1  no, or it cannot be told: nothing was observed, nobody answers
#   2  it was asked wrongly
#
#   gate.sh policy.yaml...                                  policies, read as one
#   gate.sh -s 30d policy.yaml                              held against 30 days, not 14
#   gate.sh -f payments -o 41 -n 42 [policy.yaml...]        revisions, after 42 has run for a while
#
# GATE_STORE names the store, such as env:HISTORY_URL; without it the proxy at
# SALLYPORT_ADMIN_ADDRESS is asked. Call it as it stands: what follows `gate.sh |`
# or `gate.sh ||` has an exit code of its own.
set -euo pipefail

since=14d family='' old='' new=''
usage() {
	echo "usage: ${0##*/} [-s SINCE] [-f FAMILY -o OLD -n NEW] [POLICY...]" >&2
	exit 2
}
while getopts s:f:o:n: flag; do
	case $flag in
	s) since=$OPTARG ;;
	f) family=$OPTARG ;;
	o) old=$OPTARG ;;
	n) new=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
# Half of a question must not pass for its answer.
if [[ -n $family$old$new && (-z $family || -z $old || -z $new) ]]; then usage; fi
if [[ -z $family && $# == 0 ]]; then usage; fi

store=()
if [[ -n ${GATE_STORE:-} ]]; then store=(--store "$GATE_STORE"); fi

worst=0
ask() { # COMMAND...: succeeds where its answer is yes
	local code=0
	printf '\n== sallyport %s\n' "$*"
	sallyport "$@" || code=$?
	if ((code > worst)); then worst=$code; fi
	return "$code"
}

# What cannot be read, or warns, is not replayed. After -- nothing is a flag: to
# --help, which a file may well be called, every answer is 0.
if (($#)) && ask policy check --strict -- "$@"; then
	ask policy replay "${store[@]}" --since "$since" -- "$@" || true
fi
if [[ -n $family ]]; then
	ask flow diff "${store[@]}" --family "$family" -- "$old" "$new" || true
fi

printf '\n'
case $worst in
0) echo "gate: go on" ;;
1) echo "gate: no" ;;
*) echo "gate: no answer (exit code $worst)" ;;
esac
exit "$worst"
