#!/bin/sh
# test.sh BUILD...: runs every test program of each build folder and the command's test, adds their last lines up.
# TEST_WRAPPER: a command to run each program under (valgrind). TEST_STOP=1: not further than the first that fails.
export OMP_WAIT_POLICY=passive # threads that spin while they wait are slow on a machine that others use too
passed=0 failed=0 skipped=0
TMPDIR=$(mktemp -d) || exit 1
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

run() { # title, command...
    title=$1
    shift
    output=$("$@" 2>&1)
    code=$?
    last=$(printf '%s\n' "$output" | tail -n 1)
    set -- $(printf '%s\n' "$last" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
    if [ $# -ne 3 ]; then # it did not even come to its last line
        set -- 0 1 0
    elif [ "$code" -ne 0 ] && [ "$2" -eq 0 ]; then
        set -- "$1" 1 "$3"
    fi
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    if [ "$2" -ne 0 ] || [ "$3" -ne 0 ]; then printf '%s\n' "$output" | tail -n 40; fi
    printf '%-52s %s passed, %s failed, %s skipped\n' "$title" "$1" "$2" "$3"
    if [ "$2" -ne 0 ] && [ "${TEST_STOP:-0}" -eq 1 ]; then exit 1; fi
}

for build in "$@"; do
    case $build in # clang 14's leak tracer itself crashes beside libomp's threads; gcc's and valgrind look for leaks
    *clang*-sanitize*) ASAN_OPTIONS=detect_leaks=0 ;;
    *) ASAN_OPTIONS= ;;
    esac
    export ASAN_OPTIONS
    for program in "$build"/test/test_*; do
        case $program in *.d | *.gcno | *.gcda) continue ;; esac
        run "$(basename "$build") $(basename "$program")" $TEST_WRAPPER "$program"
    done
    run "$(basename "$build") command" sh test/command.sh "$build/segfm"
done
[ "$skipped" -eq 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$skipped" -eq 0 ]
