#!/bin/sh
# hash.sh: the promise "same input, same bits", shown. Builds segfm in many ways into build/hash, runs `segfm selftest`
# in each with 1, 2 and 3 threads, and compares the hashes it prints with the stored ones (its exit code) and with those
# of all other builds. One table: a row for each build, a column for each number of threads, a cell for each run: one hash
# over the hashes of all vectors. `full` is the hash of a layer at full size, equal for the three numbers of threads.
# HASH_CC: the compilers, HASH_FOREIGN: other machines (Debian's gcc for them, and qemu), JOBS: builds at a time.
cd "$(dirname "$0")/.." || exit 1
out=build/hash
export OMP_WAIT_POLICY=passive # threads that wait do not spin: there may be fewer cores than threads

# The dispatcher of nn/kernels.c takes the best instruction set it finds. In the rows "AVX2" it is told that the machine
# has AVX2 and nothing above: set[3] is the 2 of "avx2".
only_avx2="CFLAGS=\"'-D__builtin_cpu_supports(set)=((set)[3]==50)'\""

# folder | title | compiler | make's options | command that runs the program | selftest's options. Without optimisation and
# under qemu the full-size layer takes a minute, so they go without.
rows() {
    for cc in ${HASH_CC-gcc clang}; do
        cat <<LIST
$cc-O0|$cc -O0|$cc|OPT=-O0||
$cc-O0-generic-serial|$cc -O0 generic OMP=0|$cc|OPT=-O0 ISA=generic OMP=0||
$cc-O1|$cc -O1|$cc|OPT=-O1||--full
$cc-O2|$cc -O2|$cc|OPT=-O2||--full
$cc-Os-generic|$cc -Os generic|$cc|OPT=-Os ISA=generic||--full
$cc-O3|$cc -O3|$cc|OPT=-O3||--full
$cc-O3-serial|$cc -O3 OMP=0|$cc|OPT=-O3 OMP=0||--full
$cc-O3-generic|$cc -O3 generic|$cc|OPT=-O3 ISA=generic||--full
$cc-O3-generic-serial|$cc -O3 generic OMP=0|$cc|OPT=-O3 ISA=generic OMP=0||--full
$cc-O3-native|$cc -O3 native|$cc|OPT=-O3 NATIVE=1||--full
$cc-O3-native-serial|$cc -O3 native OMP=0|$cc|OPT=-O3 NATIVE=1 OMP=0||--full
$cc-O3-native-generic|$cc -O3 native generic|$cc|OPT=-O3 NATIVE=1 ISA=generic||--full
$cc-O3-avx2|$cc -O3 AVX2|$cc|OPT=-O3 $only_avx2|avx2|--full
$cc-O3-avx2-serial|$cc -O3 AVX2 OMP=0|$cc|OPT=-O3 OMP=0 $only_avx2|avx2|--full
LIST
    done
    i686=/usr/i686-linux-gnu/lib # 32 bits, runs as it is; the x87 unit would round to more than a float
    for machine in ${HASH_FOREIGN-aarch64 s390x i686}; do
        case $machine in
        i686) flags="-msse2 -mfpmath=sse" runner="$i686/ld-linux.so.2 --library-path $i686" ;;
        s390x) flags=-fexcess-precision=fast runner="qemu-s390x -L /usr/s390x-linux-gnu" ;; # big-endian
        *) flags="" runner="qemu-$machine -L /usr/$machine-linux-gnu" ;;
        esac
        echo "$machine|$machine-linux-gnu-gcc -O3|$machine-linux-gnu-gcc|OPT=-O3 CFLAGS='$flags'|$runner|"
    done
}

# One row: its build and its runs. Writes FOLDER.row: the title, the three cells, the full-size cell.
row() {
    IFS='|' read -r folder title cc make runner full <<LINE
$1
LINE
    result=$out/$folder.row segfm=$out/$folder/segfm
    missing() { printf '%s|missing: %s|||\n' "$title" "$1" >"$result"; }
    if ! command -v "$cc" >/dev/null; then missing "$cc" && return; fi
    if [ "$runner" = avx2 ]; then
        if ! grep -qw avx2 /proc/cpuinfo 2>/dev/null; then missing 'AVX2 on this machine' && return; fi
        runner=
    elif [ -n "$runner" ] && ! command -v "${runner%% *}" >/dev/null; then missing "${runner%% *}" && return; fi
    if ! eval "make -s CC=$cc BUILD=$out/$folder $make $segfm" >"$out/$folder.log" 2>&1; then
        printf '%s|no build|no build|no build|\n' "$title" >"$result" && return
    fi
    line=$title layer=
    for threads in 1 2 3; do
        log=$out/$folder.$threads
        if $runner "$segfm" selftest $full --threads $threads >"$log" 2>&1; then
            cell=$(grep -v '^full-' "$log" | cksum | cut -d ' ' -f 1)
            layer="$layer $(sed -n 's/^full-layer *//p' "$log")"
        else
            cell=DIFFERS
        fi
        line="$line|$cell"
    done
    set -- $(echo "$layer" | tr ' ' '\n' | sort -u)
    printf '%s|%s\n' "$line" "$*" >"$result"
}

if [ "${1-}" = --row ]; then
    row "$2"
    exit
fi

rm -f "$out"/*.row
mkdir -p "$out"
rows | tr '\n' '\0' | xargs -0 -n 1 -P "${JOBS:-2}" "$0" --row

rows | cut -d '|' -f 1 | while read -r folder; do cat "$out/$folder.row" || echo "$folder|no row|no row|no row|"; done |
    awk -F '|' '
    function line(a, b, c, d, e) { printf "%-32s %-12s %-12s %-12s %s\n", a, b, c, d, e }
    function cell(text, first) { # what the cell says; counts it
        if (text !~ /^[0-9]+$/) { failed++; return text }
        if (text != first) { failed++; return text " DIFFERS" }
        passed++
        return text
    }
    BEGIN { line("build", "1 thread", "2 threads", "3 threads", "full") }
    $2 ~ /^missing/ { skipped++; print sprintf("%-32s ", $1) $2; next }
    {
        if (first == "" && $2 ~ /^[0-9]+$/) first = $2
        if (layer == "" && $5 != "") layer = $5
        full = $5
        if (full != "" && full == layer) passed++
        else if (full != "") { failed++; full = full " DIFFERS" }
        line($1, cell($2, first), cell($3, first), cell($4, first), full == "" ? "-" : full)
    }
    END {
        if (skipped) print skipped " skipped"
        print passed + 0 " passed, " failed + 0 " failed"
        exit failed > 0 || passed == 0
    }'
