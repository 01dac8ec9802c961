#!/bin/sh
# malformed.sh BUILD SANITIZED: every bad file of test/malformed/cases.py with both builds' command; then the parsers with every
# file of test/fuzz/corpus cut at every byte and with every bit of its header flipped (SANITIZED, which is slow: of the large
# files every 31st).
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0
count() { # adds the last line "N passed, M failed…" of a log up; the exit code must agree
    tail -n 30 "$2"
    set -- "$1" $(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*$/\1 \2/p' "$2" | tail -n 1)
    if [ $# -ne 3 ]; then set -- "$1" 0 1; elif [ "$1" -ne 0 ] && [ "$3" -eq 0 ]; then set -- "$1" "$2" 1; fi
    passed=$((passed + $2)) failed=$((failed + $3))
}
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
"${PYTHON-python3}" -B test/malformed/run.py "$1/segfm" "$2/segfm" >"$log" 2>&1
count $? "$log"
SEGFM_STRIDE=${SEGFM_STRIDE:-1} "$1/test/test_malformed" >"$log" 2>&1
count $? "$log"
SEGFM_STRIDE=${SEGFM_STRIDE:-31} "$2/test/test_malformed" >"$log" 2>&1
count $? "$log"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
