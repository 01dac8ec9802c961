#!/bin/sh
# fuzz.sh BUILD SECONDS: runs each fuzz target on its corpus, then for SECONDS on inputs that libFuzzer makes of it (0: not).
# TARGET: that one alone. KEEP=1: what it learns stays in build/fuzz/learned for the next time. Inputs that break something:
# build/fuzz/found. RUNS=N: in place of SECONDS until each has N executions behind it, in all calls together; their number is in
# build/fuzz/executed. A broken-off call loses at most its last million; a finding sets the target's number back to none.
# JOBS: so many targets at a time, 1.
cd "$(dirname "$0")/.." || exit 1
if [ "${JOBS:-1}" -gt 1 ] && [ -z "${TARGET:-}" ]; then # this script once for each target; here their lines and one sum
    targets=$(basename -s .c test/fuzz/*.c)
    echo "$targets" | JOBS=1 xargs -P "$JOBS" -I '{}' env TARGET='{}' scripts/fuzz.sh "$@" |
        awk -v wanted="$(echo "$targets" | wc -l)" '/^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3; sums++; next }
            { print; fflush() }
            END { f += wanted - sums; print p + 0 " passed, " f + 0 " failed"; exit f > 0 }'
    exit
fi
build=$1 seconds=$2 runs=${RUNS:-0} passed=0 failed=0
mkdir -p build/fuzz/found build/fuzz/logs build/fuzz/executed || exit 1
# Targets that need files write them into memory where there is such a folder.
TMPDIR=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d) || exit 1
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 1' INT TERM
mkdir "$TMPDIR/known" && tar -xzf test/fuzz/learned.tar.gz -C "$TMPDIR/known" || exit 1 # by fuzz_keep.sh
[ "${KEEP:-0}" -eq 1 ] && learned=build/fuzz/learned || learned=$TMPDIR/learned

# A parser takes what its input asks for: at most some hundred megabytes in all, a quarter of a gigabyte in one piece.
limits='-timeout=10 -rss_limit_mb=768 -malloc_limit_mb=256'
# An input frees all that it takes, so that what is freed need not be kept from use for longer than one: new pages cost time.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=8:malloc_context_size=8"
units='s/^stat::number_of_executed_units: *\([0-9]*\)/\1'
check() { # title, log, exit code
    if [ "$3" -eq 0 ]; then
        passed=$((passed + 1))
        printf 'passed: %-24s %s\n' "$1" "$(sed -n "$units inputs/p" "$2")"
    else
        failed=$((failed + 1))
        echo "failed: $1"
        tail -n 40 "$2"
    fi
}
fuzz() { # how long: the target named by $target, on what is known of it
    "$program" $limits $dictionary -artifact_prefix=build/fuzz/found/$target- -print_final_stats=1 -reload=0 \
        ${most:+-max_len=$most} "$1" "$learned/$target" "test/fuzz/corpus/$target" "$TMPDIR/known/$target" >"$log" 2>&1
}
executed() { # of the target
    cat "build/fuzz/executed/$target" 2>/dev/null || echo 0
}
count() { # until it has $runs executions behind it
    while done=$(executed) && [ "$done" -lt "$runs" ]; do
        left=$((runs - done))
        fuzz -runs=$((left < 1000000 ? left : 1000000))
        code=$?
        if [ "$code" -ne 0 ]; then
            rm -f "build/fuzz/executed/$target"
            return "$code"
        fi
        echo $((done + $(sed -n "$units/p" "$log"))) >"build/fuzz/executed/$target"
    done
}
targets=
for source in test/fuzz/*.c; do
    target=$(basename "$source" .c)
    [ -z "${TARGET:-}" ] || [ "$TARGET" = "$target" ] || continue
    targets="$targets $target"
    program=$build/fuzz/$target log=build/fuzz/logs/$target
    [ -f "test/fuzz/$target.dict" ] && dictionary=-dict=test/fuzz/$target.dict || dictionary=
    most=$(sed -n 's/^enum { MAX_LEN = \([0-9]*\) };.*/\1/p' "$source")
    mkdir -p "$learned/$target"
    "$program" $limits -artifact_prefix=build/fuzz/found/$target- -print_final_stats=1 -runs=0 "test/fuzz/corpus/$target" \
        "$TMPDIR/known/$target" >"$log" 2>&1
    check "$target, corpus" "$log" $?
    if [ "$runs" -gt 0 ]; then
        count
        check "$target, last of $runs" "$log" $?
    elif [ "$seconds" -gt 0 ]; then
        fuzz -max_total_time="$seconds"
        check "$target, $seconds s" "$log" $?
    fi
done
[ "$runs" -eq 0 ] || for target in $targets; do
    printf '%-12s %10d executions\n' "$target" "$(executed)"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
