#!/bin/sh
# fuzz_keep.sh BUILD: small inputs that `make fuzz` learned and that go where the corpus does not, few that together go everywhere,
# become test/fuzz/learned.tar.gz. What was in it before is looked at too.
cd "$(dirname "$0")/.." || exit 1
build=$1 archive=test/fuzz/learned.tar.gz
TMPDIR=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d) || exit 1
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
mkdir "$TMPDIR/before" "$TMPDIR/kept" || exit 1
[ ! -f "$archive" ] || tar -xzf "$archive" -C "$TMPDIR/before" || exit 1
for source in test/fuzz/*.c; do
    target=$(basename "$source" .c)
    small=$TMPDIR/small/$target kept=$TMPDIR/kept/$target log=build/fuzz/logs/$target-kept
    mkdir -p "$small" "build/fuzz/learned/$target" "$TMPDIR/before/$target"
    find "build/fuzz/learned/$target" "$TMPDIR/before/$target" -type f -size -2049c -exec cp {} "$small" \;
    cp -r "test/fuzz/corpus/$target" "$kept" || exit 1
    if ! "$build/fuzz/$target" -set_cover_merge=1 -use_counters=0 "$kept" "$small" >"$log" 2>&1; then
        tail -n 40 "$log"
        exit 1
    fi
    for seed in "test/fuzz/corpus/$target"/*; do rm "$kept/$(basename "$seed")"; done
    echo "$target: $(find "$kept" -type f | wc -l) inputs"
done
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$TMPDIR/kept" -c . | gzip -9n >"$archive"
