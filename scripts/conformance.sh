#!/bin/sh
# conformance.sh: the promise "same input, same bits", shown. Builds segfm in many ways into build/conformance, runs
# `segfm selftest` in each with 1, 2, 3 and 7 threads, and compares the hashes it prints with the stored ones (its exit
# code) and with those of all other builds. One table: a row for each build, a column for each number of threads, a cell
# for each run: one hash over the hashes of all vectors; `full` is the hash of a layer at full size, equal for all of a
# row's runs. `-` is what is not run. Compilers and emulators that are not there are installed where apt may; a row whose
# tools cannot be had is listed as missing.
# QUICK=1: a representative third of the rows. ROWS: only those whose title matches this pattern (awk's). JOBS: builds at
# a time.
cd "$(dirname "$0")/.." || exit 1
out=build/conformance
export OMP_WAIT_POLICY=passive # threads that wait do not spin: there may be fewer cores than threads

# The dispatcher of nn/kernels.c takes the best instruction set it finds. In the rows "AVX2" it is told that the machine
# has AVX2 and nothing above: set[3] is the 2 of "avx2".
only_avx2="CFLAGS=\"'-D__builtin_cpu_supports(set)=((set)[3]==50)'\""

# in the third or not | title | machine | compiler | make's options | command that runs the program | threads | selftest's
# options | packages, and flags of /proc/cpuinfo as cpu:FLAG. Without optimisation the full-size layer takes a minute,
# under qemu several, so they go without. A build without OpenMP has one thread.
rows() {
    all='1 2 3 7'
    v3='CFLAGS=-march=x86-64-v3' v3_cpu='cpu:avx2 cpu:fma cpu:bmi2'
    for cc in gcc clang; do
        case $cc in gcc) packages='gcc libc6-dev' ;; clang) packages='clang libomp-dev libc6-dev' ;; esac
        while IFS='|' read -r third title make threads full cpu; do
            echo "$third|$cc $title|x86-64|$cc|$make||$threads|$full|$packages $cpu"
        done <<LIST
*|-O0|OPT=-O0|$all||
 |-O0 generic OMP=0|OPT=-O0 ISA=generic OMP=0|1||
 |-O1|OPT=-O1|$all|--full|
 |-O1 native generic|OPT=-O1 NATIVE=1 ISA=generic|$all|--full|
 |-O2|OPT=-O2|$all|--full|
*|-O2 x86-64-v3 generic|OPT=-O2 ISA=generic $v3|$all|--full|$v3_cpu
 |-Os generic|OPT=-Os ISA=generic|$all|--full|
*|-O3|OPT=-O3|$all|--full|
 |-O3 OMP=0|OPT=-O3 OMP=0|1|--full|
 |-O3 generic|OPT=-O3 ISA=generic|$all|--full|
*|-O3 generic OMP=0|OPT=-O3 ISA=generic OMP=0|1|--full|
*|-O3 AVX2|OPT=-O3 $only_avx2|$all|--full|cpu:avx2
 |-O3 AVX2 OMP=0|OPT=-O3 OMP=0 $only_avx2|1|--full|cpu:avx2
 |-O3 x86-64-v3|OPT=-O3 $v3|$all|--full|$v3_cpu
 |-O3 x86-64-v3 generic|OPT=-O3 ISA=generic $v3|$all|--full|$v3_cpu
*|-O3 native|OPT=-O3 NATIVE=1|$all|--full|
 |-O3 native OMP=0|OPT=-O3 NATIVE=1 OMP=0|1|--full|
 |-O3 native generic|OPT=-O3 NATIVE=1 ISA=generic|$all|--full|
LIST
    done
    echo "*|musl-gcc -O3 OMP=0|x86-64|musl-gcc|OPT=-O3 OMP=0||1|--full|musl-tools"

    # Other machines, by Debian's gcc for them with its OpenMP, and by clang without one. The few flags: x87 registers
    # would round to more than a float, and so, by its rules, would gcc for s390x. 32-bit NEON flushes subnormal numbers to
    # zero, so gcc does not vectorise for it; clang does, differs, and is refused by base/base.h.
    emulated=$all
    if [ "${QUICK-0}" = 1 ]; then emulated='1 3'; fi
    while IFS='|' read -r third machine triplet options flags runner packages; do
        cross="gcc-$triplet libc6-dev-$packages-cross"
        if [ "$runner" = run ]; then # 32 bits: runs as it is, with its own libraries
            runner="/usr/$triplet/lib/ld-linux.so.2 --library-path /usr/$triplet/lib" threads=$all full=--full
        else
            runner="$runner -L /usr/$triplet" cross="$cross qemu-user" threads=$emulated full=
        fi
        echo "$third|gcc -O3 $machine$options|$machine|$triplet-gcc|OPT=-O3 CFLAGS='$flags'|$runner|$threads|$full|$cross"
        if [ "$options" = ' NEON' ]; then continue; fi
        flags=$(echo "$flags" | sed 's/-fexcess-precision=fast//') # clang's float is one anyway
        echo " |clang -O3 $machine$options OMP=0|$machine|clang --target=$triplet|OPT=-O3 OMP=0 CFLAGS='$flags'|$runner|1|$full|clang $cross"
    done <<LIST
*|i686|i686-linux-gnu| SSE2|-msse2 -mfpmath=sse|run|i386
*|aarch64|aarch64-linux-gnu|||qemu-aarch64|arm64
 |armhf|arm-linux-gnueabihf|||qemu-arm|armhf
 |armhf|arm-linux-gnueabihf| NEON|-mfpu=neon|qemu-arm|armhf
 |riscv64|riscv64-linux-gnu|||qemu-riscv64|riscv64
 |ppc64el|powerpc64le-linux-gnu|||qemu-ppc64le|ppc64el
*|s390x|s390x-linux-gnu||-fexcess-precision=fast|qemu-s390x|s390x
LIST

    # WebAssembly. The stack it gets by default is too small, and only its linker knows the option for more.
    stack='-Wl,-z,stack-size=1048576 -Wno-unused-command-line-argument'
    clang=$(clang -dumpversion 2>/dev/null | cut -d . -f 1)
    packages="clang lld llvm wasi-libc libclang-rt-${clang:-14}-dev-wasm32 nodejs"
    while IFS='|' read -r third title flags; do
        echo "$third|clang -O3 wasm$title OMP=0|wasm32|clang --target=wasm32-wasi|OPT=-O3 OMP=0 AR=llvm-ar CFLAGS='$flags$stack'|node --no-warnings scripts/wasi.mjs|1|--full|$packages"
    done <<LIST
*||
 | simd128|-msimd128 
LIST
}

chosen() {
    rows | awk -F '|' -v quick="${QUICK-0}" -v pattern="${ROWS-}" '(quick != 1 || $1 == "*") && $2 ~ pattern'
}

# Sets the variables of one row. Each has a folder of its own, called like it.
split() {
    IFS='|' read -r _ title machine cc make runner threads full packages <<LINE
$1
LINE
    folder=$out/$(printf %s "$title" | tr -cs 'a-zA-Z0-9_' -)
    result=$folder.row
}

# Can a small program be built and run in the way of a row? Says what is missing, if something is.
probe() {
    for flag in $packages; do
        case $flag in cpu:*) grep -qw "${flag#cpu:}" /proc/cpuinfo 2>/dev/null || echo "a processor with ${flag#cpu:}" ;; esac
    done
    mkdir -p "$folder"
    printf '#include <math.h>\n#include <stdio.h>\nint main(int n, char **v) { return printf("%%s%%g", v[0], sqrt(n)) < 0; }\n' \
        >"$folder/probe.c"
    (
        OMP=1 AR=ar CFLAGS=
        eval "$make" # its words are assignments
        for tool in "${cc%% *}" "$AR" "${runner%% *}"; do
            if [ -n "$tool" ] && ! command -v "$tool" >/dev/null; then echo "$tool" && exit; fi
        done
        if [ "$OMP" = 1 ]; then CFLAGS="$CFLAGS -fopenmp"; fi
        if ! eval "$cc $CFLAGS $folder/probe.c -o $folder/probe -lm" >"$folder.probe" 2>&1; then
            echo "what $cc needs to make a program ($folder.probe)"
        elif ! $runner "$folder/probe" >>"$folder.probe" 2>&1; then
            echo "what runs a program for $machine ($folder.probe)"
        fi
    ) </dev/null
}

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# Installs what the rows need that cannot be probed with success.
install_missing() {
    chosen | while read -r row; do
        split "$row"
        if [ -n "$(probe)" ]; then printf '%s\n' $packages; fi
    done | grep -v '^cpu:' | sort -u >"$out/packages"
    command -v dpkg-query >/dev/null || return
    set --
    while read -r package; do installed "$package" || set -- "$@" "$package"; done <"$out/packages"
    if [ $# -eq 0 ]; then return; fi
    echo "installing $*"
    if [ "$(id -u)" -eq 0 ]; then sudo=; else sudo='sudo -n'; fi
    export DEBIAN_FRONTEND=noninteractive
    {
        $sudo apt-get update
        $sudo apt-get install -y --no-install-recommends "$@" ||
            for package; do $sudo apt-get install -y --no-install-recommends "$package"; done # one takes no other with it
    } >"$out/install.log" 2>&1
    for package; do installed "$package" || echo "missing: the package $package ($out/install.log)"; done
}

# One row: its build and its runs. Writes FOLDER.row: title, machine, a cell for each number of threads, the full-size cell;
# then, where hashes differ, whose.
row() {
    split "$1"
    lacking=$(probe | head -n 1)
    if [ -n "$lacking" ]; then printf '%s|%s|missing: %s\n' "$title" "$machine" "$lacking" >"$result" && return; fi
    if ! eval "make -s CC='$cc' BUILD=$folder $make $folder/segfm" >"$folder.log" 2>&1; then
        printf '%s|%s|no build|-|-|-|-\nsee %s\n' "$title" "$machine" "$folder.log" >"$result" && return
    fi
    line="$title|$machine"
    for number in 1 2 3 7; do
        cell=- log=$folder.$number
        case " $threads " in *" $number "*)
            $runner "$folder/segfm" selftest $full --threads $number >"$log" 2>&1
            code=$?
            case $code in
            0) cell=$(grep -v '^full-' "$log" | cksum | cut -d ' ' -f 1) ;;
            1) cell=DIFFERS ;;
            *) cell="exit $code" ;;
            esac
            ;;
        esac
        line="$line|$cell"
    done
    layer=-
    if [ -n "$full" ]; then layer=$(cat "$folder".[1237] | sed -n 's/^full-layer *//p' | sort -u | paste -s -d ' ' -); fi
    {
        echo "$line|$layer"
        cat "$folder".[1237] | awk '/DIFFERS$/ && !seen[$1]++ { line = line " " $1 } END { if (line) print "differ:" line }'
    } >"$result"
}

if [ "${1-}" = --row ]; then
    row "$2"
    exit
fi

rm -f "$out"/*.row "$out"/*.[1237]
mkdir -p "$out"
install_missing
echo "$(chosen | wc -l) builds"
chosen | tr '\n' '\0' | xargs -0 -n 1 -P "${JOBS:-2}" "$0" --row

# Every operator of nn.h and function of vol.h that takes real numbers has a vector.
cat nn/nn.h vol/vol.h | tr -d '\n' | tr ';' '\n' | sed -nE 's/.*[ *]((nn|vol)_[a-z_]*)\([^()]*(real|float|nn_run) \*.*/\1/p' |
    while read -r name; do grep -q "[^a-z_]$name(" tools/selftest.c || echo "no vector: $name"; done >"$out/uncovered"

chosen | while read -r row; do
    split "$row"
    cat "$result" 2>/dev/null || echo "$title|$machine|no row|-|-|-|-"
done | cat "$out/uncovered" - | awk -F '|' '
    function line(a, b, c, d, e, f, g) { printf "%-32s %-8s %-10s %-10s %-10s %-10s %s\n", a, b, c, d, e, f, g }
    function cell(text, first) { # what the cell says; counts it
        if (text == "-") return text
        if (text !~ /^[0-9]+$/) { failed++; return text }
        if (text != first) { failed++; return text " DIFFERS" }
        passed++
        return text
    }
    BEGIN { line("build", "machine", "1 thread", "2 threads", "3 threads", "7 threads", "full") }
    /^no vector/ { failed++ }
    NF == 1 { print "    " $0; next }
    $3 ~ /^missing/ { missing++; print sprintf("%-32s %-8s ", $1, $2) $3; next }
    {
        builds++
        if (!machines[$2]++) { kinds++; list = list (list == "" ? "" : ", ") $2 }
        if (first == "" && $3 ~ /^[0-9]+$/) first = $3
        if (layer == "" && $7 ~ /^[0-9a-f]+$/) layer = $7
        full = $7
        if (full != "-" && full == layer) passed++
        else if (full != "-") { failed++; full = (full == "" ? "none" : full) (full ~ /DIFFERS/ ? "" : " DIFFERS") }
        line($1, $2, cell($3, first), cell($4, first), cell($5, first), cell($6, first), full)
    }
    END {
        print builds + 0 " builds for " kinds + 0 " kinds of machine: " list
        if (missing) print missing " skipped"
        print passed + 0 " passed, " failed + 0 " failed"
        exit failed > 0 || passed == 0
    }'
