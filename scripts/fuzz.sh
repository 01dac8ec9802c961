#!/bin/sh
# fuzz.sh BUILD SECONDS: runs each fuzz target on its corpus, then for SECONDS on inputs that libFuzzer makes of it (0: not).
# TARGET: that one alone. KEEP=1: what it learns stays in build/fuzz/learned for the next time. Inputs that break something:
# build/fuzz/found.
cd "$(dirname "$0")/.." || exit 1
build=$1 seconds=$2 passed=0 failed=0
mkdir -p build/fuzz/found build/fuzz/logs || exit 1
learned=build/fuzz/learned
if [ "${KEEP:-0}" -ne 1 ]; then
    learned=$(mktemp -d) || exit 1
    trap 'rm -rf "$learned"' EXIT
fi

# A parser takes what its input asks for: at most some hundred megabytes in all, a quarter of a gigabyte in one piece.
limits='-timeout=10 -rss_limit_mb=768 -malloc_limit_mb=256'
check() { # title, log, exit code
    if [ "$3" -eq 0 ]; then
        passed=$((passed + 1))
        printf 'passed: %-24s %s\n' "$1" "$(sed -n 's/^stat::number_of_executed_units: *\([0-9]*\)/\1 inputs/p' "$2")"
    else
        failed=$((failed + 1))
        echo "failed: $1"
        tail -n 40 "$2"
    fi
}
for source in test/fuzz/*.c; do
    target=$(basename "$source" .c)
    [ -z "${TARGET:-}" ] || [ "$TARGET" = "$target" ] || continue
    program=$build/fuzz/$target log=build/fuzz/logs/$target
    [ -f "test/fuzz/$target.dict" ] && dictionary=-dict=test/fuzz/$target.dict || dictionary=
    mkdir -p "$learned/$target"
    "$program" $limits -artifact_prefix=build/fuzz/found/$target- -print_final_stats=1 -runs=0 "test/fuzz/corpus/$target" >"$log" 2>&1
    check "$target, corpus" "$log" $?
    [ "$seconds" -gt 0 ] || continue
    "$program" $limits $dictionary -artifact_prefix=build/fuzz/found/$target- -print_final_stats=1 -max_len=65536 \
        -max_total_time="$seconds" "$learned/$target" "test/fuzz/corpus/$target" >"$log" 2>&1
    check "$target, $seconds s" "$log" $?
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
