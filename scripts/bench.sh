#!/bin/sh
# bench.sh BUILD: segfm against PyTorch, ONNX Runtime, OpenBLAS and oneDNN in one run (bench/bench.py). Installs them where it may,
# into the system (apt) and build/bench (npm); the product needs none of them. What cannot be had is listed as missing.
# QUICK=1: one round of the main figures. PARTS=scan,tiny: only those (bench.py --help). PUBLISH=1: table and plot become docs/bench.md and docs/bench.svg.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1
dir=${BENCH_DIR-build/bench}
python=${PYTHON-/usr/bin/python3}
export PYTHONDONTWRITEBYTECODE=1
runtime=1.30.0 # of onnxruntime-node
cc=${CC:-gcc}
mkdir -p "$dir" || exit 1
: >"$dir/install.log"

if [ "$(id -u)" -eq 0 ]; then sudo=; else sudo='sudo -n'; fi
updated=
install_package() {
    dpkg -s "$1" >/dev/null 2>&1 && return
    echo "installing $1"
    export DEBIAN_FRONTEND=noninteractive
    if [ -z "$updated" ]; then $sudo apt-get update >>"$dir/install.log" 2>&1; fi
    updated=1
    $sudo apt-get install -y "$1" >>"$dir/install.log" 2>&1 ||
        echo "note: $1 could not be installed (as root: apt-get install $1)"
}
for package in python3-numpy python3-matplotlib python3-torch python3-onnx libopenblas0-pthread libopenblas-pthread-dev libdnnl-dev; do
    install_package "$package"
done
command -v node >/dev/null || install_package nodejs
command -v npm >/dev/null || install_package npm
if ! "$python" -c 'import numpy, matplotlib' 2>/dev/null; then
    echo 'bench: the report needs numpy and matplotlib: apt-get install python3-numpy python3-matplotlib' >&2
    exit 1
fi
if [ ! -f "$dir/node_modules/onnxruntime-node/package.json" ]; then
    echo "installing onnxruntime-node $runtime into $dir"
    echo '{"private": true}' >"$dir/package.json"
    # The package holds the CPU's library; its script would fetch a GPU's.
    (cd "$dir" && npm install --ignore-scripts --no-audit --no-fund "onnxruntime-node@$runtime") >>"$dir/install.log" 2>&1 ||
        echo "note: onnxruntime-node could not be installed ($dir/install.log)"
fi

# name, flags
compile() {
    name=$1
    shift
    [ "$dir/$name" -nt "bench/$name.c" ] && [ "$dir/$name" -nt bench/gemm.h ] && return
    rm -f "$dir/$name"
    $cc -std=c11 -O2 -D_POSIX_C_SOURCE=200809L "bench/$name.c" -o "$dir/$name" "$@" >>"$dir/install.log" 2>&1 ||
        echo "note: bench/$name.c could not be built ($dir/install.log)"
}
triplet=$($cc -print-multiarch)
blas=/usr/lib/$triplet/openblas-pthread
compile peak -O3 -march=native -ffp-contract=fast -fopenmp
compile openblas "-I/usr/include/$triplet/openblas-pthread" "-L$blas" "-Wl,-rpath,$blas" -lopenblas
compile onednn -fopenmp -ldnnl
compile onednn_packed -fopenmp -ldnnl

# file, what is said, command: makes it unless it is newer than the model
make_file() {
    file=$dir/$1
    [ "$file" -nt tools/reference/segvol.py ] && [ "$file" -nt bench/export.py ] && [ "$file" -nt bench/network.py ] && return
    echo "making $2"
    shift 2
    rm -f "$file"
    "$@" >>"$dir/install.log" 2>&1 || echo "note: $file could not be made ($dir/install.log)"
}
make_file full.pt 'the full-size weights' "$python" bench/export.py "$dir"
make_file full.segfm 'the weights file' "$build/segfm" convert "$dir/full.pt" -o "$dir/full.segfm"
make_file half.segfm 'the half-precision weights file' "$build/segfm" convert --half "$dir/full.pt" -o "$dir/half.segfm"
make_file blocks.onnx 'the ONNX graphs' "$python" bench/export.py --onnx "$dir"

set --
[ "${QUICK-0}" = 1 ] && set -- "$@" --quick
[ -n "${PARTS-}" ] && set -- "$@" --parts "$PARTS"
"$python" bench/bench.py "$dir" "$build/segfm" "$@" || exit 1
sed -n '/^## Targets/,/^## /p' "$dir/bench.md" | grep '^|'
if [ "${PUBLISH-0}" = 1 ]; then
    cp "$dir/bench.md" docs/bench.md && cp "$dir/bench.svg" docs/bench.svg && echo 'published to docs/bench.md, docs/bench.svg'
fi
