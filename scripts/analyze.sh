#!/bin/sh
# analyze.sh BUILD MEMORY [THREADS]: what gcc's and clang's analysers have to say of the library and the command; then the tests with clang's
# sanitizer of memory that nobody has set (MEMORY), and those that share work among threads with the one of threads (THREADS).
# Each finding must have a line in scripts/analyze.txt, with a reason over it; a line that no finding needs any more fails too.
cd "$(dirname "$0")/.." || exit 1
out=build/analyze
mkdir -p "$out"
. scripts/checks.sh
sources=$(git ls-files 'base/*.c' 'io/*.c' 'weights/*.c' 'nn/*.c' 'vol/*.c' 'train/*.c' 'tools/*.c' segfm.c)
grep -v '^#' scripts/analyze.txt | grep . >"$out/known"

judge() { # title, file of findings: each is known, or shown
    grep -vFf "$out/known" "$2" >"$out/new"
    grep -FoHf "$out/known" "$2" | sed 's/^[^:]*://' >>"$out/needed"
    if [ -s "$out/new" ]; then
        failed=$((failed + 1))
        echo "failed: $1"
        cut -c 1-240 "$out/new" | head -n 60 | sed 's/^/    /'
    else
        passed=$((passed + 1))
        echo "passed: $1 ($(wc -l <"$2") known)"
    fi
}
each() { # command of one source: its findings, two sources at a time; base.c defines what analyze.h replaces
    printf '%s\n' $sources | xargs -P "${JOBS:-2}" -I {} sh -c "include='-include scripts/analyze.h'
        [ {} != base/base.c ] || include=
        $1" 2>/dev/null
}
flags='-std=c11 -D_POSIX_C_SOURCE=200809L -O1'
: >"$out/needed"

# file:line: text [check], without the column: a finding keeps its name when a line before it grows, lines are cut below
have gcc 'gcc -fanalyzer' && {
    each "gcc $flags -fanalyzer -fanalyzer-verbosity=0 \$include -c {} -o /dev/null 2>&1" |
        sed -n 's/^\([a-z_./]*\):[0-9]*:[0-9]*: warning: \(.*\)$/\1: \2/p' | sort -u >"$out/gcc"
    judge 'gcc -fanalyzer' "$out/gcc"
}
have clang-tidy 'clang-tidy' && {
    each "clang-tidy --quiet {} -- $flags \$include" |
        sed -n 's/^\([^ :]*\):[0-9]*:[0-9]*: \(warning\|error\): \(.*\)$/\1: \3/p' | sed "s|^$PWD/||" | sort -u >"$out/tidy"
    judge 'clang-tidy (.clang-tidy: what it looks for)' "$out/tidy"
}
sort -u "$out/needed" | grep -vxFf - "$out/known" >"$out/new"
if [ -s "$out/new" ]; then
    failed=$((failed + 1))
    echo 'failed: lines of scripts/analyze.txt that no finding needs:'
    sed 's/^/    /' "$out/new"
else
    passed=$((passed + 1))
    echo 'passed: each line of scripts/analyze.txt is needed'
fi

count() { # title, command...: adds its last line "N passed, M failed" up
    title=$1
    shift
    "$@" >"$out/log" 2>&1
    code=$?
    set -- $(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*$/\1 \2/p' "$out/log" | tail -n 1)
    if [ $# -ne 2 ]; then set -- 0 1; elif [ $code -ne 0 ] && [ "$2" -eq 0 ]; then set -- "$1" 1; fi
    passed=$((passed + $1)) failed=$((failed + $2))
    [ "$2" -eq 0 ] || tail -n 60 "$out/log"
    echo "$title: $1 passed, $2 failed"
}
[ -z "$1" ] || count 'tests under clang -fsanitize=memory' scripts/test.sh "$1"
[ -z "$2" ] || count 'tests under clang -fsanitize=thread' env OMP_NUM_THREADS=3 TEST_NO_LIMIT=1 \
    OMP_TOOL_LIBRARIES=libarcher.so TSAN_OPTIONS=ignore_noninstrumented_modules=1 scripts/test.sh "$2"
finish && [ "$skipped" -eq 0 ]
