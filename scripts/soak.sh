#!/bin/sh
# soak.sh SEGFM SANITIZED_BUILD: COMMANDS random commands to a session (scripts/soak.py), the same under the sanitizers, and
# as many calls of the library in each of test_dialogue's dialogues. Adds their last lines up.
commands=${COMMANDS:-10000} sanitized=$2 passed=0 failed=0
export OMP_WAIT_POLICY=passive
export ASAN_OPTIONS=quarantine_size_mb=4 # freed memory goes back, so that what is resident tells something

run() { # title, command...
    echo "$1"
    shift
    output=$("$@" 2>&1)
    code=$?
    echo "$output"
    set -- $(printf '%s\n' "$output" | tail -n 1 | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p')
    if [ $# -ne 2 ]; then set -- 0 1; fi
    if [ "$code" -ne 0 ] && [ "$2" -eq 0 ]; then set -- "$1" 1; fi
    passed=$((passed + $1)) failed=$((failed + $2))
}
run "segfm session, $commands commands" python3 scripts/soak.py "$1" "$commands" 1
run "the same with another seed, under the sanitizers" python3 scripts/soak.py "$sanitized/segfm" "$commands" 2
run "the library, six dialogues of $commands calls, under the sanitizers" env SEGFM_CALLS="$commands" "$sanitized/test/test_dialogue"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
