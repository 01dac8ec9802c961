#!/bin/sh
# test.sh BUILD...: runs every test program of each build folder and the command's test, adds their last lines up.
# TEST_WRAPPER: a command to run each program under (valgrind). TEST_STOP=1: not further than the first that fails. TEST_JOBS: how many
# run at a time (2); what they say is printed in order when all have ended.
export OMP_WAIT_POLICY=passive # threads that spin while they wait are slow on a machine that others use too
passed=0 failed=0 skipped=0
TMPDIR=$(mktemp -d) || exit 1
export TMPDIR TEST_WRAPPER
trap 'rm -rf "$TMPDIR"' EXIT

for build in "$@"; do
    for program in "$build"/test/test_*; do
        case $program in *.d | *.gcno | *.gcda) continue ;; esac
        printf '%s\n%s\n' "$build" "$program"
    done
    printf '%s\ncommand\n' "$build"
done >"$TMPDIR/list"

# One of them, in a folder of its own for what it writes: its output, and last a line "title p f s".
cat >"$TMPDIR/one" <<'ONE'
number=$1 build=$2 program=$3
TMPDIR=$TMPDIR/$number
mkdir "$TMPDIR"
case $build in # clang 14's leak tracer itself crashes beside libomp's threads; gcc's and valgrind look for leaks
*clang*-sanitize*) ASAN_OPTIONS=detect_leaks=0 ;;
*) ASAN_OPTIONS= ;;
esac
export TMPDIR ASAN_OPTIONS
if [ "$program" = command ]; then
    sh test/command.sh "$build/segfm" >"$TMPDIR.out" 2>&1
else
    $TEST_WRAPPER "$program" >"$TMPDIR.out" 2>&1
fi
code=$?
last=$(tail -n 1 "$TMPDIR.out" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
case $last in
'') last='0 1 0' ;; # it did not even come to its last line
*' 0 '*) [ "$code" -eq 0 ] || last="${last%% *} 1 ${last##* }" ;;
esac
echo "$(basename "$build") $(basename "$program") $last" >"$TMPDIR.sum"
rm -rf "$TMPDIR"
case $last in
*' 0 '*) ;;
*) [ "${TEST_STOP:-0}" -ne 1 ] || exit 255 ;; # xargs starts no more
esac
ONE
awk 'NR % 2 { build = $0; next } { print NR / 2; print build; print }' "$TMPDIR/list" |
    xargs -d '\n' -n 3 -P "${TEST_JOBS:-2}" sh "$TMPDIR/one" 2>/dev/null

count=$(($(wc -l <"$TMPDIR/list") / 2)) number=0
while [ $number -lt $count ]; do
    number=$((number + 1))
    if [ ! -f "$TMPDIR/$number.sum" ]; then
        [ "${TEST_STOP:-0}" -eq 1 ] || { echo "test $number has not been run"; failed=$((failed + 1)); }
        continue
    fi
    read -r build program p f s <"$TMPDIR/$number.sum"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$f" -ne 0 ] || [ "$s" -ne 0 ]; then tail -n 40 "$TMPDIR/$number.out"; fi
    printf '%-52s %s passed, %s failed, %s skipped\n' "$build $program" "$p" "$f" "$s"
done
[ "$skipped" -eq 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$skipped" -eq 0 ]
