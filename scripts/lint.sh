#!/bin/sh
# lint.sh: what the compilers, clang-format, cppcheck and the house rules (ARCHITECTURE.md) have to say about the sources.
# Every line is one check: passed, or failed with the places. A tool that is missing is counted as skipped.
cd "$(dirname "$0")/.." || exit 1
out=build/lint
mkdir -p "$out"
. scripts/checks.sh
found=$out/found
sources=$(git ls-files --cached --others --exclude-standard '*.c' '*.h')

# ---- compilers: every source of the library, the command, the tests and the demo ----------------------------------
# Level 2 for the product, whose warnings about the flow of values need it; level 1 for the others.
for cc in gcc clang; do
    have $cc "warnings of $cc" || continue
    for real in float double; do
        for omp in 1 0; do
            level=-O1
            [ $real$omp = float1 ] && level=-O2
            make -s -k -j2 CC=$cc REAL=$real OMP=$omp OPT=$level CFLAGS=-Werror BUILD=$out/$cc-$real-$omp everything \
                2>&1 >"$out/log" | grep -v '^make' >"$found"
            [ -x $out/$cc-$real-$omp/segfm ] || echo 'no command was built' >>"$found"
            check "$cc $level -Werror, REAL=$real OMP=$omp" "$found"
        done
    done
    : >"$found"
    echo '#include "base/base.h"' | $cc -std=c11 -ffast-math -I. -fsyntax-only -x c - 2>&1 | grep -q 'bit by bit' ||
        echo '-ffast-math compiles' >"$found"
    check "$cc: -ffast-math is refused" "$found"
done

if have clang-format 'layout'; then
    clang-format --dry-run -Werror $sources >"$found" 2>&1
    check 'clang-format (make format mends it)' "$found"
fi
if have cppcheck 'cppcheck'; then
    cppcheck -q -j2 --std=c11 --enable=warning,performance,portability --suppressions-list=scripts/cppcheck.txt \
        --template='{file}:{line}: {message} [{id}]' $(printf '%s\n' $sources | grep 'c$') >"$found" 2>&1
    check 'cppcheck (exceptions and why: scripts/cppcheck.txt)' "$found"
fi

# ---- house rules over the code: without comments and without what stands in quotes ---------------------------------
code=$out/code
for file in $sources; do
    ${CC:-gcc} -fpreprocessed -dD -E -x c "$file" |
        awk -v file="$file" '/^# [0-9]+ "/ { line = $2 - 1; next }
            { line++; gsub(/"([^"\\]|\\.)*"/, "\"\""); if ($0 ~ /[^ ]/) print file ":" line ": " $0 }'
done >"$code" 2>/dev/null # it warns that both sides of an #if define a name
: >"$found"
[ "$(wc -l <"$code")" -gt 1000 ] || echo "$code: too short" >"$found"
check 'the code could be read' "$found"

library='^((base|io|weights|nn|vol|train)/[^:]*|segfm\.[ch]):'
core='^((base|weights|nn|vol|train)/[^:]*|segfm\.[ch]):'
numeric='^((weights|nn|vol|train)/[^:]*|segfm\.[ch]):'
forbid() { # title, where, pattern, further lines that are fine
    grep -E "$2" "$code" | grep -E "^[^:]*:[0-9]*: .*($3)" | grep -vE "${4:-^$}" >"$found"
    check "$1" "$found"
}

forbid 'the library does not print, exit or abort' "$library" \
    '\<(v?f?printf|f?puts|f?putc|putchar|perror|_?_?[eE]xit|quick_exit|abort|signal|raise|setlocale|system)[[:space:]]*\('
forbid 'no file, clock or environment in the core' "$core" \
    'include <(stdio|unistd|fcntl|dirent|time|signal|errno|locale|sys/[a-z]*)\.h>|\<(fopen|open|getenv|time|clock|s?rand)[[:space:]]*\('
# the double build, which promises no bits, takes libm's: the part of nn/math.h between its #ifdef and its #else
double_branch=$(awk '/^#ifdef SEGFM_REAL_DOUBLE/ { from = NR } /^#else/ && from { to = NR }
    /^static inline real nn_exp\(real x\)/ { inside = 1 } inside && /^#else/ { print from + 0, NR; exit }' nn/math.h)
awk -F : -v range="$double_branch" 'BEGIN { split(range, r, " ") } !($1 == "nn/math.h" && $2 > r[1] && $2 < r[2])' \
    "$code" >"$code.float"
grep -E "$numeric" "$code.float" | grep -E '\<(exp|exp2|exp10|expm1|log|log2|log10|log1p|pow|sin|cos|tan|asin|acos|atan|atan2|sinh|cosh|tanh|asinh|acosh|atanh|erf|erfc|cbrt|hypot|tgamma|lgamma|fma)[fl]?[[:space:]]*\(' >"$found"
check 'no transcendental function of libm in numeric code but in the double build of nn/math.h' "$found"
forbid 'no intrinsics, no assembly' '' 'include <[a-z0-9]*(intrin|arm_neon|arm_sve|altivec)\.h>|\<_mm[0-9]*_|\<(__)?asm(__)?\>|\<v(ld|st)[1-4]q?_'
grep -nE -e '-Ofast|fast-math|ffp-contract=(fast|on)|funsafe|fassociative|freciprocal' Makefile >"$found"
check 'no option that changes arithmetic in the Makefile' "$found"
forbid 'tests compare so that a NaN fails: !(d <= tolerance), never d > tolerance' '^(test|tools)/' \
    '[^->]>=?[[:space:]]*\(?[A-Za-z_.>-]*(tol|eps|tolerance|max_abs|relative_l2)\>'

# ---- rooms: an include points down, and only to the other room's one header -----------------------------------------
printf '%s\n' $sources | grep -vE '^(test|scripts)/' | xargs grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' /dev/null |
    awk -F : '
    function room(path) { return path ~ /\// ? gensub_dir(path) : path }
    function gensub_dir(path) { sub(/\/[^\/]*$/, "", path); return path }
    BEGIN {
        n = split("base io weights nn nn/segvol vol train segfm.c tools demo bench", order, " ")
        for (i = 1; i <= n; i++) rank[order[i]] = i
        rank["segfm.h"] = rank["base"] + 0.5 # it needs status.h alone
    }
    {
        include = $3
        sub(/^[^"]*"/, "", include)
        sub(/".*/, "", include)
        target = $1 ~ /\// ? gensub_dir($1) "/" include : include
        while (target ~ /[^\/]+\/\.\.\//) sub(/[^\/]+\/\.\.\//, "", target)
        from = room($1)
        to = room(target)
        name = to
        sub(/.*\//, "", name)
        if (!(from in rank) || !(to in rank)) print $1 ":" $2 ": unknown room " to
        else if (rank[to] > rank[from] && !(to == "segfm.h" && from == "segfm.c")) print $1 ":" $2 ": upward, " include
        else if (from != to && to != "segfm.h" && target != to "/" name ".h" && target != "base/status.h")
            print $1 ":" $2 ": not the header of " to ", " include
    }' >"$found"
check 'includes point down, each to a room’s one header' "$found"

# ---- what the objects say: no grep can be fooled here ---------------------------------------------------------------
objects=$out/gcc-float-1
archive=$objects/libsegfm.a
if have nm 'symbols' && have objdump 'sections'; then
    rooms='(base|io|weights|nn|segvol|vol|train)_[a-z0-9_]*'
    # all that the core calls outside of itself; a square root, floor and the like are the same on every machine
    outside='mem(cpy|move|set|cmp|chr)|str(len|n?cmp|r?chr|str)|(m|c|re)alloc|aligned_alloc|free|qsort'
    outside="$outside|(sqrt|floor|ceil|rint|trunc)f?|GOMP_.*|omp_.*|__cpu_(model|indicator_init)|__assert_fail"
    io=$(basename -s .c io/*.c | paste -s -d '|')
    objects_of() { # what nm or objdump says of the library; a line in $found when there is none
        [ -f "$archive" ] && "$@" "$archive" || echo "$archive was not built"
    }
    objects_of nm -A -u | awk '{ print $1, $NF }' | grep -vE ":($io)\.o:" |
        grep -vE " ($rooms|$outside|_GLOBAL_OFFSET_TABLE_)\$" >"$found"
    check 'the core calls memory, strings, exact arithmetic and threads, nothing else' "$found"
    objects_of nm -A -g --defined-only | awk 'NF { print $1, $NF }' | grep -vE " (segfm_[a-z0-9_]*|$rooms)\$" >"$found"
    check 'every name that the library exports has its prefix' "$found"
    objects_of objdump -h | awk '/file format|not built/ { object = $1 } /not built/
        $2 ~ /^\.(data|bss|tdata|tbss)/ && $2 !~ /^\.data\.rel\.ro/ && $3 !~ /^0+$/ { print object, $2, $3 }' >"$found"
    objects_of nm -A | grep -E ' C ' >>"$found"
    check 'no variable outlives a call: the library has no writable data' "$found"
fi

# ---- the tree -------------------------------------------------------------------------------------------------------
tracked=$(git ls-files)
grep -nIE '/(work|farm|root)/|/home/[a-z]+/|bash_job[s]' $tracked /dev/null >"$found"
check 'no path of one machine in a tracked file' "$found"
grep -nIE '\<(TO[D]O|FIX[M]E|XX[X]|HAC[K])\>' $tracked /dev/null >"$found"
check 'no mark of unfinished work' "$found"
git ls-files -z | xargs -0 du -k | awk '$1 > 13000 { print $2, $1 " KiB" }' >"$found"
check 'no file above 13000 KiB' "$found"
for script in scripts/*.sh test/*.sh; do sh -n "$script"; done >"$found" 2>&1
[ ! -f .ci/run ] || bash -n .ci/run >>"$found" 2>&1
check 'scripts can be read by the shell' "$found"

rm -f "$found"
finish
