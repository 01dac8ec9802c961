#!/bin/sh
# verify.sh BUILD BUILD_DOUBLE [--full]: the C program against live PyTorch, nibabel and, where it lies beside the checkout,
# upstream's golden data (SEGFM_GOLDEN or ../shared/golden). Installs what it needs where apt may; the product needs none of it.
set -u
build=$1 double=$2 full=${3-}
golden=${SEGFM_GOLDEN-../shared/golden}
packages='python3-torch python3-nibabel python3-scipy python3-skimage libopenblas0-pthread'
python=${PYTHON-/usr/bin/python3}
passed=0 failed=0

able() { "$python" -c 'import torch, nibabel, scipy, skimage' 2>/dev/null; }
if ! able || ! ls /usr/lib/*/openblas-pthread/libopenblas.so.0 >/dev/null 2>&1; then
    echo "installing $packages"
    if [ "$(id -u)" -eq 0 ]; then sudo=; else sudo='sudo -n'; fi
    export DEBIAN_FRONTEND=noninteractive
    { $sudo apt-get update && $sudo apt-get install -y $packages; } >"$build/verify-install.log" 2>&1
fi
if ! able; then
    echo "PyTorch, nibabel, scipy and scikit-image are needed: apt-get install $packages (log: $build/verify-install.log)" >&2
    echo '0 passed, 1 failed'
    exit 1
fi

step() { # title, command...
    title=$1
    shift
    echo "== $title"
    "$@" >"$build/verify-step.log" 2>&1
    code=$?
    grep -v '^ok ' "$build/verify-step.log" | tail -n "${LINES_SHOWN-25}"
    set -- $(tail -n 1 "$build/verify-step.log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p')
    if [ $# -ne 2 ]; then set -- 0 1; fi
    if [ "$code" -ne 0 ] && [ "$2" -eq 0 ]; then set -- "$1" 1; fi
    passed=$((passed + $1)) failed=$((failed + $2))
    cat "$build/verify-step.log" >>"$build/verify.log"
}

: >"$build/verify.log"
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
here=tools/reference
if [ -d "$golden" ]; then
    step 'our PyTorch reference against upstream' "$python" $here/check_golden.py "$golden" $full
    step 'C against upstream: geometry' "$build/test/golden_vol" "$golden"
    step 'C against upstream: network and pipeline, float' "$build/test/golden_network" "$golden" $full
    step 'C against upstream: network and pipeline, double' "$double/test/golden_network" "$golden" $full
    step 'C against upstream: corrector, float' "$build/test/golden_corrector" "$golden" $full
    step 'C against upstream: corrector, double' "$double/test/golden_corrector" "$golden" $full
    step 'C against upstream: training, float' "$build/test/golden_train" "$golden"
    step 'C against upstream: training, double' "$double/test/golden_train" "$golden"
    set -- --golden "$golden"
else
    echo "note: no golden data at $golden; only live PyTorch is compared"
    set --
fi
step 'C against live PyTorch' "$python" $here/verify.py "$build/segfm" "$double/segfm" "$@" $full --scratch "$scratch"
step 'training in C against training in PyTorch' "$python" $here/verify_training.py "$build/segfm" "$build/test/train_probe" \
    "$double/segfm" "$double/test/train_probe" --scratch "$scratch"
step 'checkpoints by torch.save' "$python" $here/verify_checkpoints.py "$build/segfm"
step 'NIfTI against nibabel' "$python" $here/verify_nifti.py "$build/test/nifti_roundtrip"
step 'metrics and clicks against scipy' "$python" $here/metrics.py "$build/test/volume_probe" "$build/segfm"
step 'evaluation against the official protocol over predict' "$python" $here/official.py "$build/segfm"
step 'folds and rivals on made data' "$python" $here/verify_rivals.py
echo "every comparison, tensor by tensor: $build/verify.log"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
