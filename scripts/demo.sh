#!/bin/sh
# demo.sh: the main job on a real scan, from nothing. Takes the ch2 brain (one person's T1 MRI, 1 mm) from Debian's package
# mricron-data, which is only unpacked below build/demo, not installed; without apt a scan of our own making.
set -u
dir=build/demo
scan=$dir/ch2.nii.gz
mkdir -p "$dir" || exit 1

fetch() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    download=$dir/package
    rm -rf "$download" && mkdir -p "$download" || return 1
    echo "fetching the ch2 brain MRI (Debian package mricron-data, 16 MB)"
    (cd "$download" && { apt-get download mricron-data || { apt-get update && apt-get download mricron-data; }; }) >"$dir/fetch.log" 2>&1 || return 1
    dpkg-deb -x "$download"/mricron-data*.deb "$download/tree" &&
        cp "$download/tree/usr/share/mricron/templates/ch2.nii.gz" "$scan.new" && mv "$scan.new" "$scan" && rm -rf "$download"
}

if [ -f "$scan" ] || fetch; then
    box=55,104,61,82,147,87 # the left putamen, as the AAL atlas in the same package has it
    what='the left putamen of the ch2 brain'
else
    echo 'the MRI could not be fetched: making a scan instead'
    make -s demo-scan || exit 1
    scan=$dir/made.nii.gz
    box=30,40,14,52,66,29
    what='a made ellipsoid'
fi

set -- segment -i "$scan" -w formula:tiny --box "$box" -o "$dir/mask.nii.gz" --logits "$dir/logits.nii.gz" --overlay "$dir/overlay.png"
echo "./segfm $*"
start=$(date +%s)
./segfm "$@" || exit 1
echo "boxed $what, $(($(date +%s) - start)) s:"
echo "  $dir/mask.nii.gz      labels 0/1 with the scan's geometry"
echo "  $dir/logits.nii.gz    what the network said, before the threshold"
echo "  $dir/overlay.png      picture of both"
echo 'No trained model is shipped yet: these weights are pseudo-random (formula:tiny). They show that the whole pipeline runs,'
echo 'they find no anatomy. With a SegVol checkpoint: ./segfm convert CHECKPOINT -o W, then segment with -w W.'
