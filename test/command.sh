#!/bin/sh
# command.sh SEGFM: the command as a user meets it. Exit codes, one sentence on stderr, no output file after a failure.
# Honours TEST_WRAPPER.
segfm="$TEST_WRAPPER $1"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0

ok() { # what, condition's exit code
    if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "failed: $1"
    fi
}

# want CODE 'pattern' ARGS...: exits with CODE, says one line that matches the pattern on stderr, nothing on stdout.
want() {
    code=$1 pattern=$2
    shift 2
    $segfm "$@" >"$dir/stdout" 2>"$dir/stderr"
    got=$?
    [ "$got" -eq "$code" ] && [ "$(wc -l <"$dir/stderr")" -eq 1 ] && [ ! -s "$dir/stdout" ] &&
        grep -q "^segfm: .*$pattern" "$dir/stderr"
    ok "$* → $got: $(head -n 1 "$dir/stderr")" $?
}
gone() { [ ! -e "$1" ]; ok "$1 is not there" $?; }
there() { [ -s "$1" ]; ok "$1 is there" $?; }

# ---- help --------------------------------------------------------------------------------------------------------
$segfm help | grep -q 'Not a medical device'; ok 'help' $?
for c in segment predict eval train convert info trace compare metrics phantom session selftest bench; do
    $segfm help $c | grep -q "^segfm $c"; ok "help $c" $?
done
$segfm --version | grep -q '^segfm [0-9]'; ok 'version' $?
want 2 'no subcommand'
want 2 'unknown subcommand sgment' sgment
want 2 'unknown subcommand' help nonsense

# ---- fixtures ----------------------------------------------------------------------------------------------------
# A scan of 30 x 28 x 12 voxels as NIfTI-1: little-endian header by printf, a bright block in noise-free ground.
le16() { for v in "$@"; do printf "\\$(printf %03o $((v & 255)))\\$(printf %03o $((v >> 8 & 255)))"; done; }
zeros() { dd if=/dev/zero bs=1 count="$1" 2>/dev/null; }
voxels() { # ground, block
    awk -v g="$1" -v b="$2" 'BEGIN { for (z = 0; z < 12; z++) for (y = 0; y < 28; y++) for (x = 0; x < 30; x++)
        printf "%s", (x > 9 && x < 20 && y > 7 && y < 18 && z > 3 && z < 9) ? b : (x + y + z) % 2 ? g : " " }'
}
header() { # nx ny nz datatype bitpix
    printf '\134\001\000\000'; zeros 36
    le16 3 "$1" "$2" "$3" 1 1 1 1; zeros 14
    le16 "$4" "$5" 0
    printf '\000\000\200\077\000\000\000\077\000\000\200\077\000\000\000\100\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000' # pixdim 1 0.5 1 2
    printf '\000\000\260\103'; zeros 232 # vox_offset 352
    printf 'n+1\000\000\000\000\000'
}
{ header 30 28 12 2 8; voxels 1 z; } >"$dir/scan.nii"
[ "$(wc -c <"$dir/scan.nii")" -eq $((352 + 30 * 28 * 12)) ]; ok 'the scan has its size' $?
$segfm convert formula:tiny -o "$dir/w.segfm"; ok 'convert formula:tiny' $?

# ---- the main job ------------------------------------------------------------------------------------------------
box=10,8,4,19,17,8
$segfm segment -i "$dir/scan.nii" -w "$dir/w.segfm" --box $box -o "$dir/m.nii.gz" --logits "$dir/l.nii" --overlay "$dir/o.png" >"$dir/stdout" 2>"$dir/stderr"
ok 'segment' $?
[ ! -s "$dir/stdout" ] && [ ! -s "$dir/stderr" ]; ok 'segment is silent' $?
there "$dir/m.nii.gz"; there "$dir/l.nii"; there "$dir/o.png"
$segfm segment -i "$dir/scan.nii" --quiet --box $box -o "$dir/m0.nii" 2>"$dir/stderr"; ok 'segment without -w' $?
[ ! -s "$dir/stderr" ]; ok 'quiet is quiet without it too' $?
there "$dir/m0.nii"
$segfm segment -i "$dir/scan.nii" -w formula:tiny --quiet --box $box -o "$dir/m2.nii" 2>"$dir/stderr"; ok 'segment with formula:tiny' $?
[ ! -s "$dir/stderr" ]; ok 'quiet is quiet' $?
gzip -dc "$dir/m.nii.gz" | cmp - "$dir/m2.nii"; ok 'formula:tiny is what convert writes; .nii and .nii.gz agree' $?
SEGFM_WEIGHTS="$dir/w.segfm" $segfm segment -i "$dir/scan.nii" --box $box -o "$dir/m4.nii"; ok 'SEGFM_WEIGHTS' $?
cmp "$dir/m2.nii" "$dir/m4.nii"; ok 'names the weights' $?
$segfm segment -i "$dir/scan.nii" -w "$dir/w.segfm" --world --box 2.25,-5.5,-3,-2.25,3.5,5 -o "$dir/m3.nii"; ok 'a box in millimetres' $?
cmp "$dir/m2.nii" "$dir/m3.nii"; ok 'which is the same box: without qform and sform x is flipped and the centre is 0' $?
$segfm segment -i "$dir/scan.nii" -w "$dir/w.segfm" --box $box --click 12,12,6,+ --click 0,0,0,- -o "$dir/c.nii"; ok 'clicks' $?
$segfm segment -i "$dir/scan.nii" -w "$dir/w.segfm" --click 12,12,6,+ --no-zoom -o "$dir/c2.nii.gz"; ok 'a click alone, no zoom' $?
$segfm metrics --gt "$dir/m2.nii" --pred "$dir/m.nii.gz" | grep -q 'DSC 1.000000'; ok 'metrics of a mask with itself' $?
$segfm metrics --gt "$dir/m2.nii" --pred "$dir/m.nii.gz" --json | grep -q '"DSC": 1.000000'; ok 'metrics as json' $?
# Label maps of 6 x 4 x 3 voxels of 0.5 x 1 x 2 mm. truth: 1 is a block, 2 a voxel, 3 a voxel; prediction: 1 is the block moved by x, 3 is
# missed, 4 is too much.
map() { { header 6 4 3 2 8; printf "$1"; } >"$2"; }
row='\000\000\000\000\000\000' slice=$row$row$row$row
map "\001\001\000\000\000\002$row$row\003\000\000\000\000\000\001\001\000\000\000\002$row$row$row$slice" "$dir/gt.nii"
map "\000\001\001\000\000\002$row$row$row\000\001\001\000\000\002$row\004\000\000\000\000\000$row$slice" "$dir/pred.nii"
map "$slice$slice$slice" "$dir/none.nii"
metrics="$segfm metrics --gt $dir/gt.nii --pred $dir/pred.nii"
$metrics >"$dir/stdout"; ok 'metrics' $?
grep -q '^label 1 voxels_gt 4 voxels_pred 4 DSC 0.500000 NSD 1.000000 HD95 0.500000 ASD 0.' "$dir/stdout"; ok 'a block moved by half a millimetre' $?
grep -q '^label 2 voxels_gt 2 voxels_pred 2 DSC 1.000000 NSD 1.000000 HD95 0.000000 ASD 0.000000 ASD_gt 0.000000 ASD_pred 0.000000$' "$dir/stdout"
ok 'a label that agrees' $?
grep -q '^label 3 voxels_gt 1 voxels_pred 0 DSC 0.000000 NSD 0.000000 HD95 nan ASD nan ASD_gt nan ASD_pred nan (prediction empty)$' "$dir/stdout"
ok 'a label that was missed' $?
grep -q '^label 4 .* (truth empty: not in the means)$' "$dir/stdout"; ok 'a label that is too much' $?
grep -q '^mean of 3 labels DSC 0.500000 NSD 0.666667 HD95 0.250000 .* (distances over 2: prediction empty 1) (labels only in the prediction: 1)$' "$dir/stdout"
ok 'means say what they leave out' $?
$metrics --tolerance 0.25 | grep -q '^label 1 .* NSD 0.[1-9]'; ok 'a tolerance below the distance' $?
$metrics --json >"$dir/stdout"; ok 'metrics --json' $?
[ "$(wc -l <"$dir/stdout")" -eq 1 ] && grep -q '"label": 3, "voxels_gt": 1, "voxels_pred": 0, "DSC": 0.000000000, "NSD": 0.000000000, "HD95": null, .*"reason": "prediction empty"}' "$dir/stdout"
ok 'null with a reason' $?
$segfm metrics --gt "$dir/none.nii" --pred "$dir/none.nii" --json | grep -q '"classes": 0, "DSC": null.*"reason": "the truth has no labelled voxel"'; ok 'no label at all' $?
$metrics --threads 1 >"$dir/one"; $metrics --threads 3 | cmp - "$dir/one"; ok 'metrics with 1 and 3 threads' $?

# A scan whose labels are the mask that its box gives: nothing to click at.
printf '%s\t%s\n' scan.nii m2.nii >"$dir/own.tsv"
for t in 1 3; do $segfm eval --pairs "$dir/own.tsv" -w "$dir/w.segfm" --csv "$dir/e$t.csv" --save "$dir/es" --threads $t --quiet >"$dir/e$t"; ok "eval with $t threads" $?; done
cmp "$dir/e1" "$dir/e3"; ok 'which say the same' $?
sed -n '3p' "$dir/e1" | grep -q '^cases 1 classes 1$'; ok 'of one class' $?
tail -n 1 "$dir/e1" | grep -q '^DSC_AUC [0-9.]* NSD_AUC [0-9.]*$'; ok 'with the areas at the end' $?
[ "$(wc -l <"$dir/e1.csv")" -eq 2 ]; ok 'a line in the table' $?
there "$dir/es/scan.nii.gz"; there "$dir/es/prompts.tsv"

for t in 1 2 3; do $segfm segment -i "$dir/scan.nii" -w "$dir/w.segfm" --threads $t --box $box -o "$dir/t$t.nii" --logits "$dir/tl$t.nii"; done
cmp "$dir/tl1.nii" "$dir/tl2.nii" && cmp "$dir/tl1.nii" "$dir/tl3.nii"; ok 'same bits with 1, 2 and 3 threads' $?

# ---- a dialogue --------------------------------------------------------------------------------------------------
talk() { printf '%s\n' "$@" | $segfm session -w "$dir/w.segfm" --threads 2 >"$dir/stdout" 2>"$dir/stderr"; }
talk "open $dir/scan.nii" "box $box" 'click 12,12,6,+' 'click 0,0,0,-' "mask $dir/d.nii" "logits $dir/dl.nii" undo redo \
    "logits $dir/dl2.nii" next 'click 12,12,6,+' "labels $dir/labels.nii" status quit 'not heard'
ok 'session' $?
[ "$(wc -l <"$dir/stdout")" -eq 14 ] && [ ! -s "$dir/stderr" ]; ok 'a line for each command up to quit' $?
[ "$(grep -c '^{"command":"[a-z]*","ok":true,"ms":[0-9.]*,"changed":[0-9]*,"bounds":.*}$' "$dir/stdout")" -eq 14 ]; ok 'all of one form' $?
sed -n 2p "$dir/stdout" | grep -q '"changed":[1-9][0-9]*,"bounds":\[[0-9,]*\],.*"box":true,"clicks":0,"undo":true,"redo":false'; ok 'what a box changed' $?
sed -n 2p "$dir/stdout" | grep -q "\"object_box\":\[$box\]}\$"; ok 'and which box it is' $?
sed -n 13p "$dir/stdout" | grep -q '"object":2.*"shape":\[30,28,12\]'; ok 'status' $?
cmp "$dir/d.nii" "$dir/c.nii"; ok 'the mask is what segment gives for the same box and clicks' $?
cmp "$dir/dl.nii" "$dir/dl2.nii"; ok 'undo and redo give the bits back' $?
there "$dir/labels.nii"
talk '' '# a remark' 'click 1,2,3,+' undo "open $dir/missing.nii" "mask $dir/never.nii" "open $dir/scan.nii" 'click 1,2,3' 'click nan,2,3,+' \
    'click 30,0,0,+' 'box 5,5,5,1,1,1' redo "mask $dir/scan.nii" "mask $dir/never.txt" nonsense "$(awk 'BEGIN { while (i++ < 5000) printf "x" }')"
ok 'a session of nonsense ends well' $?
[ "$(grep -c '"ok":false,"error":"[^"]*[a-z]' "$dir/stdout")" -eq 13 ] && [ "$(wc -l <"$dir/stdout")" -eq 14 ]; ok 'with an error for each bad line' $?
grep -q 'no scan is open' "$dir/stdout" && grep -q 'there is nothing to redo' "$dir/stdout" && grep -q 'the scan has 0 to 29' "$dir/stdout" &&
    grep -q 'the output would replace the input' "$dir/stdout" && grep -q 'unknown command nonsense' "$dir/stdout"; ok 'that says what is wrong' $?
gone "$dir/never.nii"; gone "$dir/never.txt"
want 2 'unknown option' session --bogus
want 3 'standard input: cannot be read' session -w "$dir/w.segfm" <"$dir" # once the end of the dialogue, with code 0
want 3 'missing.segfm' session -w "$dir/missing.segfm"

# ---- bad input ---------------------------------------------------------------------------------------------------
out="$dir/never.nii.gz"
seg="segment -i $dir/scan.nii -w $dir/w.segfm -o $out"
want 2 'unknown option --bocks' $seg --bocks 1,2,3
want 2 'given twice' $seg --box $box --box $box
want 2 'need a value' $seg --box
want 2 'the option -i is needed' segment -o "$out" --box $box
want 2 'the option -o is needed' segment -i "$dir/scan.nii" --box $box
want 2 'no prompt' $seg
want 2 '6 whole numbers' $seg --box 1,2,3
want 2 '6 whole numbers' $seg --box 1,2,3,4,5,6,7
want 2 '6 whole numbers' $seg --box 1,2,3,4,5,x
want 2 'box, axis x: got 10 to 30, the scan has 0 to 29' $seg --box 10,8,4,30,17,8
want 2 'box, axis z: got -1 to 8' $seg --box 10,8,-1,19,17,8
want 2 'box, axis y: got 17 to 8, which is empty' $seg --box 10,17,4,19,8,8
want 2 'click, axis y: got 28' $seg --click 1,28,1,+
want 2 'need x,y,z,+' $seg --click 1,2,3
want 2 'variant' $seg --box $box --variant other
want 2 'whole number' $seg --box $box --threads 0
want 2 'must end in' segment -i "$dir/scan.nii" -w "$dir/w.segfm" --box $box -o "$dir/never.txt"
want 2 'whole number' $seg --box $box --volume 1
want 3 'missing.nii: ' segment -i "$dir/missing.nii" -w "$dir/w.segfm" --box $box -o "$out"
want 3 'missing.segfm: ' segment -i "$dir/scan.nii" -w "$dir/missing.segfm" --box $box -o "$out"
want 3 'scan.nii: ' segment -i "$dir/scan.nii" -w "$dir/scan.nii" --box $box -o "$out" # a scan is no weights file
want 3 'w.segfm: ' segment -i "$dir/w.segfm" -w "$dir/w.segfm" --box $box -o "$out"     # nor the reverse
head -c 5000 "$dir/scan.nii" >"$dir/short.nii"
want 3 'short.nii: ' segment -i "$dir/short.nii" -w "$dir/w.segfm" --box $box -o "$out"
head -c 300 "$dir/scan.nii" >"$dir/header.nii"
want 3 'header.nii: ' segment -i "$dir/header.nii" -w "$dir/w.segfm" --box $box -o "$out"
: >"$dir/empty.nii"
want 3 'empty.nii: ' segment -i "$dir/empty.nii" -w "$dir/w.segfm" --box $box -o "$out"
head -c 100000 "$dir/w.segfm" >"$dir/short.segfm"
want 3 'short.segfm: ' segment -i "$dir/scan.nii" -w "$dir/short.segfm" --box $box -o "$out"
{ printf 'X'; tail -c +2 "$dir/w.segfm"; } >"$dir/magic.segfm"
want 3 'magic.segfm: ' segment -i "$dir/scan.nii" -w "$dir/magic.segfm" --box $box -o "$out"
want 3 'magic.segfm: ' info "$dir/magic.segfm"
if [ -z "${TEST_NO_LIMIT:-}" ]; then # the sanitizer of threads needs larger files for itself
    (ulimit -f 8; $segfm segment -i "$dir/scan.nii" -w "$dir/w.segfm" --box $box -o "$dir/limit.nii" 2>"$dir/stderr")
    [ $? -eq 5 ] && grep -q 'limit.nii: cannot be written: the file would be too large' "$dir/stderr"; ok 'a limit to the size of a file does not kill' $?
    gone "$dir/limit.nii"
fi
want 5 'nowhere/m.nii' segment -i "$dir/scan.nii" -w "$dir/w.segfm" --box $box -o "$dir/nowhere/m.nii"
gone "$out"; gone "$dir/never.txt"; gone "$dir/nowhere"
cp "$dir/scan.nii" "$dir/mine.nii"; ln -s mine.nii "$dir/alias.nii"; cp "$dir/w.segfm" "$dir/mine.segfm"
own="segment -i $dir/mine.nii -w $dir/w.segfm --box $box"
want 2 'mine.nii: the output would replace the input' $own -o "$dir/mine.nii"
want 2 'alias.nii: the output would replace the input' $own -o "$dir/alias.nii"
want 2 'the output would replace the input' $own -o "$out" --logits "$dir/mine.nii"
want 2 'the output would replace the input' $own -o "$out" --overlay "$dir/mine.nii"
want 2 'two results cannot go to one file' $own -o "$out" --logits "$out"
want 2 'two results cannot go to one file' $own -o "$dir/never.hdr" --logits "$dir/never.img"
want 2 'the output would replace the input' convert "$dir/mine.segfm" -o "$dir/mine.segfm"
cmp "$dir/mine.nii" "$dir/scan.nii" && cmp "$dir/mine.segfm" "$dir/w.segfm"; ok 'the inputs are as they were' $?
gone "$out"; gone "$dir/never.hdr"
want 3 'scan.nii: ' convert "$dir/scan.nii" -o "$dir/never.segfm"
want 2 'the option -o is needed' convert "$dir/scan.nii"
gone "$dir/never.segfm"
$segfm convert "$dir/w.segfm" -o "$dir/w.pth" && $segfm convert "$dir/w.pth" -o "$dir/back.segfm"
cmp "$dir/w.segfm" "$dir/back.segfm"; ok 'to PyTorch and back' $?
want 2 'no option is taken' convert "$dir/w.segfm" -o "$dir/never.pth" --half
want 2 'no option is taken' convert "$dir/w.segfm" -o "$dir/never.pt" --heads 6
want 3 'w.pth: .*not a segfm weights file' convert "$dir/w.pth" -o "$dir/never.pth"
{ head -c 100000 "$dir/w.segfm"; printf X; tail -c +100002 "$dir/w.segfm"; } >"$dir/damaged.segfm"
want 3 'damaged.segfm: .*its data is damaged' convert "$dir/damaged.segfm" -o "$dir/never.pth"
want 5 'nowhere/w.pth' convert "$dir/w.segfm" -o "$dir/nowhere/w.pth"
gone "$dir/never.pth"; gone "$dir/never.pt"; rm -f "$dir/w.pth" "$dir/back.segfm" "$dir/damaged.segfm"
want 3 'missing' predict "$dir/missing" "$dir/never"
gone "$dir/never"
mkdir "$dir/in"
want 3 'no .npz' predict "$dir/in" "$dir/never"
printf 'PK nonsense' >"$dir/in/a.npz"
want 3 'a.npz: ' predict "$dir/in" "$dir/outdir" --quiet
gone "$dir/outdir/a.npz"
{ header 30 28 11 2 8; voxels 1 z | head -c $((30 * 28 * 11)); } >"$dir/other.nii"
want 3 'shapes' metrics --gt "$dir/m2.nii" --pred "$dir/other.nii"
{ header 30 28 12 2 8 | sed 's/\x00\x00\x00\x3f/\x00\x00\x80\x3f/'; voxels 1 z; } >"$dir/other.nii"
want 3 'spacings: along x' metrics --gt "$dir/m2.nii" --pred "$dir/other.nii"
want 2 'tolerance: got -1' metrics --gt "$dir/m2.nii" --pred "$dir/m2.nii" --tolerance -1
want 2 'flat: got 12 slices' metrics --gt "$dir/m2.nii" --pred "$dir/m2.nii" --flat
{ printf 'PK\005\006'; zeros 18; } >"$dir/empty.npz"
want 3 'empty.npz: array gts is missing' metrics --gt "$dir/empty.npz" --pred "$dir/m2.nii"
want 2 'the option --pred is needed' metrics --gt "$dir/m2.nii"
want 3 'missing' compare "$dir/missing" "$dir"
printf '%s\t%s\n' scan.nii scan.nii >"$dir/pairs.tsv"
want 2 'the option --csv is needed' eval --pairs "$dir/pairs.tsv"
want 2 'need --pairs or --images' eval --csv "$dir/never.csv"
want 2 'need --pairs or --images' eval --pairs "$dir/pairs.tsv" --images "$dir" --csv "$dir/never.csv"
want 2 'gts: goes with --images' eval --pairs "$dir/pairs.tsv" --gts "$dir" --csv "$dir/never.csv"
want 2 'clicks: got 101' eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --clicks 101
want 2 'min-voxels: got 0' eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --min-voxels 0
want 2 'looks: got 4, need' eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --looks 4
want 2 'looks: got 0, need' eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --looks 0
want 2 'by: got gru, need one or more of decoder,corrector,spread' eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --by gru
for by in '' , decoder, ,spread decoder,,spread best 'decoder spread'; do
    want 2 "by: got $by, need one or more of" eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --by "$by"
done
for labels in '' , 3,x 3, ,3 0 3,0 70000 65536 -1 +3 '3 4' 99999999999999999999; do
    want 2 "labels: got $labels, need labels of 1 to 65535" eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --labels "$labels"
done
for loosen in '' -1 1001 2.5 20% x; do
    want 2 "loosen: got $loosen, need a whole number from 0 to 1000" eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --loosen "$loosen"
done
want 2 'shift: got -5, need a whole number from 0 to 1000000' eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --shift -5
want 2 'no-box: goes neither' eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --no-box --shift 0
want 2 'variant: got x, need seed or upstream' eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" --variant x
want 3 'missing.tsv: ' eval --pairs "$dir/missing.tsv" --csv "$dir/never.csv"
want 3 'missing: ' eval --images "$dir/missing" --csv "$dir/never.csv"
want 3 'outdir: holds no .npz' eval --images "$dir/outdir" --csv "$dir/never.csv"
want 3 'missing.segfm: ' eval --pairs "$dir/pairs.tsv" --csv "$dir/never.csv" -w "$dir/missing.segfm"
want 2 'scan.nii: the output would replace the input' eval --pairs "$dir/pairs.tsv" --csv "$dir/scan.nii"
want 5 'nowhere/never.csv' eval --pairs "$dir/pairs.tsv" --csv "$dir/nowhere/never.csv" --quiet
gone "$dir/never.csv"

# ---- trace and compare -------------------------------------------------------------------------------------------
npy() { # shape text, file: zeros are enough here
    printf '\223NUMPY\001\000\166\000' >"$2"
    printf '%-117s\n' "{'descr': '|u1', 'fortran_order': False, 'shape': ($1), }" >>"$2"
}
npy '16, 64, 64' "$dir/win.npy"; zeros 65536 >>"$dir/win.npy"
npy '2, 1, 16, 64, 64' "$dir/win2.npy"; zeros 131072 >>"$dir/win2.npy"
npy '16, 64, 63' "$dir/thin.npy"; zeros 64512 >>"$dir/thin.npy"
$segfm trace -w formula:tiny --window "$dir/win.npy" --box 1,2,3,9,30,40 --point 4,30,25,1 --out "$dir/ta"; ok 'trace' $?
$segfm trace -w "$dir/w.segfm" --window "$dir/win.npy" --box 1,2,3,9,30,40 --point 4,30,25,1 --out "$dir/tb" --threads 1; ok 'trace, one thread' $?
[ "$(ls "$dir/ta" | wc -l)" -eq 50 ]; ok 'trace writes 50 tensors' $?
$segfm compare "$dir/ta" "$dir/tb" --bits >"$dir/stdout"; ok 'compare equal traces' $?
grep -q '^50 tensors, 0 differ' "$dir/stdout"; ok 'all equal' $?
$segfm trace -w formula:tiny --window "$dir/win2.npy" --box 1,2,3,9,30,40 --box 1,2,3,9,30,40 --out "$dir/tc"; ok 'trace a batch' $?
$segfm compare "$dir/tc" "$dir/ta" >"$dir/stdout"; [ $? -eq 1 ]; ok 'compare finds the difference' $?
grep -q 'first to diverge: image_encoder.patch_embedding' "$dir/stdout"; ok 'and where it begins' $?
rm "$dir/tb/logits.npy"
$segfm compare "$dir/tb" "$dir/ta" >"$dir/stdout"; [ $? -eq 1 ]; ok 'a missing tensor is a difference' $?
mkdir "$dir/ca" "$dir/cb" "$dir/cc"
npy '4,' "$dir/ca/t.npy"; zeros 4 >>"$dir/ca/t.npy"
npy '2, 2' "$dir/cb/t.npy"; zeros 4 >>"$dir/cb/t.npy"
sed "s/'|u1'/'<f4'/" "$dir/ca/t.npy" | head -c 128 >"$dir/cc/t.npy"; printf '\000\000\300\177\000\000\200\077\000\000\200\077\000\000\200\077' >>"$dir/cc/t.npy"
$segfm compare "$dir/ca" "$dir/ca" --bits >"$dir/stdout"; ok 'compare --bits: the same' $?
$segfm compare "$dir/ca" "$dir/cb" --bits >"$dir/stdout"; [ $? -eq 1 ]; ok 'compare --bits: another shape' $?
grep -q 'shape differs' "$dir/stdout"; ok 'and says so' $?
$segfm compare "$dir/cc" "$dir/cc" --bits >"$dir/stdout"; [ $? -eq 1 ]; ok 'compare --bits: a NaN is no equality' $?
$segfm compare "$dir/cc" "$dir/cc" >"$dir/stdout"; [ $? -eq 1 ]; ok 'compare: neither' $?
want 3 'window: got' trace -w formula:tiny --window "$dir/thin.npy" --box 1,2,3,9,30,40 --out "$dir/td"
want 2 'one for each of 2' trace -w formula:tiny --window "$dir/win2.npy" --box 1,2,3,9,30,40 --out "$dir/td"
want 2 'the label must be' trace -w formula:tiny --window "$dir/win.npy" --point 1,2,3,7 --out "$dir/td"
gone "$dir/td"
npy '1, 1, 5, 7, 9' "$dir/logits.npy"; zeros 315 >>"$dir/logits.npy" # uncertain everywhere, nothing inside
npy '5, 7, 9' "$dir/truth.npy"; { zeros 150; printf '\001'; zeros 164; } >>"$dir/truth.npy"
npy '5, 7, 9' "$dir/empty.npy"; zeros 315 >>"$dir/empty.npy"
correct="trace -w formula:tiny --correct $dir/logits.npy"
$segfm $correct --labels "$dir/truth.npy" --out "$dir/ra"; ok 'trace --correct with labels' $?
[ "$(ls "$dir/ra" | wc -l)" -eq 25 ]; ok 'five steps of five tensors' $?
$segfm $correct --click 2,2,6,1 --out "$dir/rb" --threads 1; ok 'trace --correct with a click' $?
[ "$(ls "$dir/rb" | tr '\n' ' ')" = 'click0.npy coords0.npy corrected0.npy delta0.npy gru_in0.npy ' ]; ok 'one step' $?
for t in click0 coords0 corrected0 delta0 gru_in0; do cmp -s "$dir/ra/$t.npy" "$dir/rb/$t.npy"; ok "the simulated click is that one: $t" $?; done
$segfm $correct --labels "$dir/truth.npy" --variant upstream --steps 2 --out "$dir/rc"; ok 'trace --correct, upstream' $?
there "$dir/rc/prob1.npy"; gone "$dir/rc/delta1.npy"; gone "$dir/rc/prob2.npy"
$segfm $correct --labels "$dir/empty.npy" --out "$dir/re"; ok 'trace --correct, nothing to correct' $?
[ -z "$(ls "$dir/re")" ]; ok 'and no step' $?
want 2 'needs either' $correct --out "$dir/rd"
want 2 'needs either' $correct --labels "$dir/truth.npy" --click 2,2,6,1 --out "$dir/rd"
want 2 'axis y has 0 to 6' $correct --click 2,7,6,1 --out "$dir/rd"
want 2 'the label must be' $correct --click 2,2,6,2 --out "$dir/rd"
want 2 'need seed or upstream' $correct --click 2,2,6,1 --variant other --out "$dir/rd"
want 2 'from 1 to 1' $correct --click 2,2,6,1 --steps 2 --out "$dir/rd"
want 2 'cannot be had with' $correct --click 2,2,6,1 --box 1,2,3,4,5,6 --out "$dir/rd"
want 2 'are for --correct alone' trace -w formula:tiny --window "$dir/win.npy" --steps 2 --out "$dir/rd"
want 3 'labels: got 16 x 64 x 63' $correct --labels "$dir/thin.npy" --out "$dir/rd"
want 3 'need z,y,x' trace -w formula:tiny --correct "$dir/win2.npy" --click 1,1,1,1 --out "$dir/rd"
gone "$dir/rd"
$segfm selftest >"$dir/stdout"; ok 'selftest' $?

# ---- phantoms ----------------------------------------------------------------------------------------------------
$segfm phantom --out "$dir/pa" --count 3 --seed 5 --size 30,26,12 >"$dir/stdout" 2>"$dir/stderr"; ok 'phantom' $?
[ ! -s "$dir/stdout" ] && [ ! -s "$dir/stderr" ]; ok 'and not a word' $?
[ "$(ls "$dir/pa" | wc -l)" -eq 7 ]; ok 'three pairs and their list' $?
[ "$(sed -n 3p "$dir/pa/list.tsv")" = "phantom-0002.nii.gz	phantom-0002_label.nii.gz" ]; ok 'the list' $?
$segfm phantom --out "$dir/pb" --count 1 --first 2 --seed 5 --size 30,26,12 --threads 1; ok 'phantom --first' $?
for f in phantom-0002.nii.gz phantom-0002_label.nii.gz; do cmp -s "$dir/pa/$f" "$dir/pb/$f"; ok "the same bytes alone: $f" $?; done
$segfm phantom --out "$dir/pc" --count 1 --first 2 --size 30,26,12; ok 'phantom, another seed' $?
! cmp -s "$dir/pa/phantom-0002.nii.gz" "$dir/pc/phantom-0002.nii.gz"; ok 'is another phantom' $?
$segfm eval --pairs "$dir/pb/list.tsv" -w formula:tiny --clicks 0 --csv "$dir/pb/eval.csv" --quiet >"$dir/stdout"; ok 'eval reads the list' $?
[ "$(gzip -dc "$dir/pb/phantom-0002.nii.gz" | od -An -t d2 -j 42 -N 6 | tr -s ' ')" = ' 30 26 12' ]; ok '--size is x,y,z' $?
want 2 'option --out is needed' phantom --count 3
want 2 'option --count is needed' phantom --out "$dir/pd"
want 2 'count' phantom --out "$dir/pd" --count 0
want 2 'size' phantom --out "$dir/pd" --count 1 --size 30,7,12
want 2 'seed' phantom --out "$dir/pd" --count 1 --seed x
gone "$dir/pd"
: >"$dir/pfile"
want 5 'cannot be made a folder' phantom --out "$dir/pfile" --count 1

# ---- bench -------------------------------------------------------------------------------------------------------
serve() { printf '%s\n' "$@" | $segfm bench --serve --threads 1 >"$dir/stdout" 2>"$dir/stderr"; }
serve load encoder decoder 'scan 24,70,70' 'box 1,2,3,20,60,61' 'click 5,20,20' 'gemm 5,6,7,1,1' 'attention 9,2,4,1' \
    'conv-transpose 6,4,5,1' 'gelu 3,5,1,1' 'layernorm 4,8,1,1' 'trilinear 2,3,4,1'
ok 'bench serves what it is asked' $?
[ "$(wc -l <"$dir/stdout")" -eq 13 ] && [ ! -s "$dir/stderr" ]; ok 'with a line for each' $?
# passes of the box and those of them that encoded; the click's, which encoded none
sed -n '6,7p' "$dir/stdout" | awk 'NR == 1 { n = $2 } $2 > n || $2 < 1 || $3 != (NR == 1 ? n : 0) || NF != 3 + $2 { bad = 1 } END { exit bad || NR != 2 || n < 2 }'
ok 'a box encodes its windows, a click none' $?
serve 'box 1,2,3,20,60,61'; [ $? -eq 2 ] && grep -q 'box: there is no scan' "$dir/stderr"; ok 'a box without a scan' $?
serve nonsense; [ $? -eq 2 ] && grep -q 'unknown request nonsense' "$dir/stderr"; ok 'an unknown request' $?
serve 'gelu 3,5'; [ $? -eq 2 ] && grep -q '4 whole numbers' "$dir/stderr"; ok 'a kernel without its sizes' $?

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
