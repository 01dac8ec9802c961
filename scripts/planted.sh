#!/bin/sh
# planted.sh: can the tests fail? Plants one wrong number at a time in a copy of the tree, builds it and runs
# scripts/test.sh, which must turn red; first it must be green without a plant. JOBS: of make, 2.
# QUICK=1: every third plant; of the others only that there still is what they change.
cd "$(dirname "$0")/.." || exit 1
copy=$(mktemp -d) || exit 1
trap 'rm -rf "$copy"' EXIT
passed=0 failed=0 skipped=0 number=0
export TEST_STOP=1 # one failing program is enough

git ls-files -z --cached --others --exclude-standard | tar -c --null -T - 2>/dev/null | tar -x -C "$copy" || exit 1
original=$PWD
cd "$copy" || exit 1

judge() { # title, wanted exit code of the tests (0 or 1)
    make -s -j"${JOBS:-2}" OPT=-O1 OMP=0 BUILD=build tests >log 2>&1
    built=$?
    scripts/test.sh build >log.tests 2>&1
    code=$?
    noticed=$(sed -n 's/^build \([a-z_]*\) .*, \([1-9][0-9]*\) failed.*/\1/p' log.tests | tr '\n' ' ')
    if [ $built -eq 0 ] && [ $code -eq "$2" ]; then
        passed=$((passed + 1))
        echo "passed: $1${noticed:+: noticed by $noticed}"
    else
        failed=$((failed + 1))
        echo "failed: $1"
        [ $built -eq 0 ] || tail -n 5 log
        [ "$2" -eq 1 ] || tail -n 20 log.tests
    fi
}

plant() { # file, the right text, the wrong one
    sed "s|$2|$3|" "$original/$1" >"$1"
    if cmp -s "$1" "$original/$1"; then
        failed=$((failed + 1))
        echo "failed: $1 has no $2 (any more): plant something else"
        return
    fi
    number=$((number + 1))
    if [ "${QUICK-0}" != 1 ] || [ $((number % 3)) -eq 0 ]; then judge "$1: $2 → $3" 1; fi
    cp -p "$original/$1" "$1"
    touch "$1"
}

judge 'without a plant the tests are green' 0
plant base/base.c '0x9E3779B185EBCA87U' '0x9E3779B185EBCA89U'                 # XXH64
plant io/inflate.c '0x1DB71064U' '0x1DB71065U'                                # CRC-32
plant io/nifti.c 'return length \* 1000;' 'return length * 1001;'             # metres
plant weights/export.c 'next \*= t->shape\[d\]' 'next += t->shape[d]'            # strides of an exported tensor
plant weights/formula.c '0xBF58476D1CE4E5B9U' '0xBF58476D1CE4E5B7U'           # the formula's weights
plant nn/math.h '0x1.5558f2p-5f' '0x1.5558f4p-5f'                             # exp, the last place of a coefficient
plant nn/math.h '1.0 / 5040.0' '1.0 / 5041.0'                                 # sine
plant nn/resize.c '((double)i + 0.5) - 0.5' '((double)i + 0.5) - 0.49'        # trilinear
plant nn/segvol/prompt.c '0.5)) / (real)m->config.spatial\[2\]' '0.6)) / (real)m->config.spatial[2]' # a point's x
plant vol/normalise.c '99.95 / 100' '99.94 / 100'                             # percentile
plant vol/frame.c 'to + 1) \* c->window' 'to + 2) * c->window'                    # what a window's voxel covers
plant vol/frame.c 'v \* v;' 'v;'                                              # the deviation of what a box holds
plant vol/frame.c '? -1 : 1' '? 1 : -1'                                       # bright or dark
plant vol/frame.c '(double)out - 0.5' '(double)out - 0.49'                        # a window's logits back in the scan
plant vol/frame.c '/ from_extent - 0.5' '/ from_extent - 0.49'                    # one look in another
plant vol/distance.c '(double)(2 \* (q' '(double)(3 * (q'                         # where parabolas cross
plant vol/components.c 'run\[j\].end < run\[i\].begin' 'run[j].end <= run[i].begin' # corners that touch
plant vol/surface.c '95 / 100.0' '94 / 100.0'                                 # HD95
plant vol/click.c 'vol_mt_seed(&mt, 42)' 'vol_mt_seed(\&mt, 43)'              # which of equals is clicked
plant vol/random.c '1812433253U' '1812433255U'                                # numpy's seeding
plant train/initial.c '0.02 \*' '0.03 *'                                       # position embeddings
plant train/initial.c 'o < 8 ? 1 : -1' 'o < 8 ? 1 : 1'                        # parts and their negatives
plant train/optimiser.c '(double)(step + 1) /' '(double)step /'               # warm-up
plant train/order.c 'place / o->cases' 'i / o->cases'                         # which pass a sample is of
plant tools/train_checkpoint.c '2 \* bytes' '1 * bytes'                        # a resumed run's second moments
plant tools/train_log.c '(off_t)bytes, SEEK_SET' '(off_t)size, SEEK_SET'      # a log that is cut, but written behind
plant train/random.c '0x94D049BB133111EBU' '0x94D049BB133111EDU'             # streams
plant train/sample.c 'side \* shift' 'shift'                                    # which way a box is extended
plant train/sample.c '2 \* covered\[x\] > whole' '2 * covered[x] >= whole'      # half of a voxel is not inside
plant train/sample.c 's->truth\[to\] = inside' 's->truth[from] = inside'        # a mirrored window's truth
plant nn/gru.c 'n + z \* (old - n)' 'n - z * (old - n)'                         # the GRU's new state
plant nn/attention.c 'query == first,' 'true,'                                # dK, dV: all but the last 16 queries lost
plant nn/conv.c '\[tap_offset(grid, tap)\]' '[tap_offset(grid, tap ^ 1)]'       # gradient of the wrong tap
plant nn/adamw.c '/ correction + eps' '+ eps'                                 # the second moment's bias
plant vol/overlap.c 'REAL_C(0.6)' 'REAL_C(0.61)'                                # how sure a logit is
plant segfm.c 'LOOK_GROWTH = 10' 'LOOK_GROWTH = 13'                                # what the other looks are at
plant segfm.c 's->steps = steps_of(s, click_count(s));' ';'                   # undo keeps the correction
plant segfm.c '-100.0f' '-99.0f'                                              # logits outside of the foreground

# A fixture keeps its checksums, only one number changes, by a thousandth.
fixture=test/fixtures/box.npz member=mask_decoder.transformer.layers.0.norm2.npy
if command -v python3 >/dev/null 2>&1; then
    python3 - "$original/$fixture" "$fixture" $member <<'PYTHON'
import struct, sys, zipfile
source, target, wrong = sys.argv[1:]
with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
    for name in old.namelist():
        data = bytearray(old.read(name))
        if name == wrong:
            form = {b"<f4": "<f", b"<f8": "<d"}[bytes(data[21:24])]
            at = len(data) - 8
            value, = struct.unpack_from(form, data, at)
            struct.pack_into(form, data, at, value * 1.001)
        new.writestr(name, bytes(data))
PYTHON
    judge "$fixture: the last but one number of $member times 1.001" 1
else
    skipped=1
    echo "skipped: a wrong number in $fixture: no python3"
fi

[ $skipped -eq 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
