#!/bin/sh
# amalgamation.sh BUILD CC: writes the library as two files (scripts/amalgamate.py) to build/amalgamation, then holds them to what
# is promised of the tree. BUILD: a folder of make with libsegfm.a and the command's objects, made by the compiler CC.
#   - gcc and clang compile it without a word at the warnings below, plain, threaded, without a heap;
#   - without a heap it calls nothing but memory, strings and square roots;
#   - compiled by each of gcc, clang and tcc it gives the conformance hashes, and the tests of the library pass: they are linked
#     with it in the place of the same sources in BUILD;
#   - demo/embedded, a program without a heap, prints the hashes that it prints on any other little-endian machine.
# A compiler that is missing is counted as skipped.
cd "$(dirname "$0")/.." || exit 1
build=$1 cc=$2
out=build/amalgamation
source=$out/segfm_amalgamation.c
mkdir -p "$out" && rm -f "$out"/*.o
export OMP_WAIT_POLICY=passive
warnings='-std=c11 -Wall -Wextra -pedantic -Wshadow -Wconversion -Wstrict-prototypes -Wvla -Werror'
bare='-DSEGFM_NO_MALLOC -DNDEBUG -DNN_GENERIC -fno-stack-protector'
compilers='gcc clang tcc'
embedded_hashes='eb557b90237cdd3d e025f997b288b168' # of the logits and of the mask
tests='base weights segvol corrector sampling session dialogue hostile'
. scripts/checks.sh
found=$out/found

files=$(python3 scripts/amalgamate.py "$out") || exit 1
echo "$(wc -l <"$source") lines from $(echo "$files" | wc -w) files: $files"

# ---- it compiles ------------------------------------------------------------------------------------------------------
available=
for compiler in $compilers; do
    have $compiler "$compiler compiles it" || continue
    available="$available $compiler"
    case $compiler in
    tcc) $compiler -std=c11 -Wall -Werror -c "$source" -o "$out/$compiler.o" ;; # the others' warnings it does not have
    *)
        $compiler $warnings -O2 -c "$source" -o "$out/$compiler.o"
        $compiler $warnings -O1 -fopenmp -c "$source" -o "$out/threads.o"
        $compiler $warnings -O1 $bare -c "$source" -o "$out/bare-$compiler.o"
        ;;
    esac >"$found" 2>&1
    check "$compiler compiles it without a warning" "$found"
    [ -f "$out/$compiler.o" ] || exit 1
done

# ---- what it calls ------------------------------------------------------------------------------------------------------
# bcmp: what clang makes of some memcmp
for object in "$out"/bare-*.o; do
    name=$(basename "$object" .o | sed 's/bare-//')
    nm -u "$object" | awk '{ print $NF }' | grep -v _GLOBAL_OFFSET_TABLE_ | sort >"$out/calls"
    grep -vxE 'mem(chr|cmp|cpy|move|set)|bcmp|str(cmp|len)|(sqrt|floor|rint)f?' "$out/calls" >"$found"
    check "$name: without a heap it calls nothing but $(paste -s -d ' ' "$out/calls")" "$found"
    nm -g --defined-only "$object" | awk '{ print $NF }' | grep -vE '^(segfm|base|nn|vol|weights|segvol)_' >"$found"
    check "$name: every name that it exports has its prefix" "$found"
done

# ---- it does what the tree does -------------------------------------------------------------------------------------------
# Libraries come last: of them only what the amalgamation does not have is linked, else a name would be there twice.
link() { # program, compiler, objects…
    program=$1 own=
    if [ "$2" = tcc ]; then # what its code calls: conversions of numbers
        own=$(tcc -print-search-dirs | sed -n 's/^ *\(.*libtcc1.a\)$/\1/p')
        own="$own -z noexecstack"
    fi
    object=$out/$2.o
    shift 2
    $cc -fopenmp "$@" "$object" "$build/libsegfm.a" $own -o "$program" -lm
}
"$build/segfm" convert formula:tiny --half -o "$out/weights.segfm" --quiet &&
    (cd "$out" && ld -r -b binary -z noexecstack -o weights.o weights.segfm) || exit 1
for test in $tests; do
    $cc -std=c11 -O1 -D_POSIX_C_SOURCE=200809L -c test/test_$test.c -o "$out/test_$test.o" || exit 1
done
for compiler in $available; do
    : >"$found"
    { link "$out/segfm" $compiler "$build"/tools/*.o && "$out/segfm" selftest; } >"$out/log" 2>&1 || cat "$out/log" >"$found"
    check "$compiler: $(grep -c . "$out/log") conformance hashes" "$found"
    $compiler -std=c11 -D_POSIX_C_SOURCE=200809L -DSEGFM_NO_MALLOC -I"$out" demo/embedded/main.c "$source" "$out/weights.o" \
        -o "$out/embedded" -lm >"$out/log" 2>&1 && "$out/embedded" >>"$out/log"
    grep '^hash' "$out/log" | awk '{ print $NF }' | paste -s -d ' ' - | grep -qx "$embedded_hashes" && : >"$found" ||
        cp "$out/log" "$found"
    check "$compiler: a program without a heap" "$found"
    for test in $tests; do
        : >"$found"
        { link "$out/test" $compiler "$out/test_$test.o" && SEGFM_CALLS=25 "$out/test"; } >"$out/log" 2>&1 ||
            cat "$out/log" >"$found"
        check "$compiler: test_$test, $(tail -n 1 "$out/log")" "$found"
    done
done

rm -f "$found"
finish
