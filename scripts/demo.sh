#!/bin/sh
# demo.sh: the main job on a real scan, from nothing, with the default model. Takes the ch2 brain (one person's T1 MRI, 1 mm) and the AAL
# atlas of its structures from Debian's package mricron-data, which is only unpacked below build/demo, not installed; without apt a scan of
# our own making.
set -u
dir=build/demo
scan=$dir/ch2.nii.gz
atlas=$dir/aal.nii.gz
mkdir -p "$dir" || exit 1

fetch() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    download=$dir/package
    rm -rf "$download" && mkdir -p "$download" || return 1
    echo "fetching the ch2 brain MRI and its atlas (Debian package mricron-data, 16 MB)"
    (cd "$download" && { apt-get download mricron-data || { apt-get update && apt-get download mricron-data; }; }) >"$dir/fetch.log" 2>&1 || return 1
    dpkg-deb -x "$download"/mricron-data*.deb "$download/tree" || return 1
    for name in aal ch2; do
        cp "$download/tree/usr/share/mricron/templates/$name.nii.gz" "$dir/$name.new" && mv "$dir/$name.new" "$dir/$name.nii.gz" || return 1
    done
    rm -rf "$download"
}

run() {
    echo "./segfm $*"
    ./segfm "$@" || exit 1
}

if ! { [ -f "$scan" ] && [ -f "$atlas" ]; } && ! fetch; then
    echo 'the MRI could not be fetched: making a scan instead'
    make -s demo-scan || exit 1
    run segment -i "$dir/made.nii.gz" --box 30,40,14,52,66,29 -o "$dir/mask.nii.gz" --overlay "$dir/after.png"
    echo "boxed a made ellipsoid: $dir/mask.nii.gz, $dir/after.png"
    exit 0
fi

start=$(date +%s)
# Caudate, putamen, pallidum, thalamus, left and right: each is boxed on its middle slice, then clicked where the error is largest.
printf 'ch2.nii.gz\taal.nii.gz\n' >"$dir/pairs.tsv"
echo './segfm eval --pairs build/demo/pairs.tsv --labels 71,72,73,74,75,76,77,78 --csv build/demo/scores.csv --save build/demo/masks'
./segfm eval --pairs "$dir/pairs.tsv" --labels 71,72,73,74,75,76,77,78 --csv "$dir/scores.csv" --save "$dir/masks" --quiet >"$dir/eval.txt" || exit 1
echo 'DSC with the box, then after 1 to 5 clicks (truth: the AAL atlas):'
awk -F, -v names='caudate L,caudate R,putamen L,putamen R,pallidum L,pallidum R,thalamus L,thalamus R' '
    BEGIN { split(names, name, ",") }
    FNR > 1 { printf "  %-11s", name[$2 - 70]; for (i = 4; i <= 9; i++) { printf " %.2f", $i; sum[i] += $i }; printf "\n"; n++ }
    END { printf "  %-11s", "mean"; for (i = 4; i <= 9; i++) printf " %.2f", sum[i] / n; printf "\n" }' "$dir/scores.csv"

# The left putamen by itself: before the clicks and after them.
box=$(awk -F'\t' '$2 == 73 && $4 == "box" { print $5 }' "$dir/masks/prompts.tsv")
run segment -i "$scan" --box "$box" -o "$dir/before.nii.gz" --overlay "$dir/before.png" --quiet
set --
for click in $(awk -F'\t' '$2 == 73 && $4 == "click" { print $5 }' "$dir/masks/prompts.tsv"); do set -- "$@" --click "$click"; done
run segment -i "$scan" --box "$box" "$@" -o "$dir/mask.nii.gz" --logits "$dir/logits.nii.gz" --overlay "$dir/after.png" --quiet
echo "$(($(date +%s) - start)) s:"
echo "  $dir/before.png, after.png   the left putamen with the box alone, and after five clicks"
echo "  $dir/mask.nii.gz             labels 0/1 with the scan's geometry; logits.nii.gz: what the network said"
echo "  $dir/masks                   the masks of all eight, and the prompts that made them"
