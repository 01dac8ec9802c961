#!/bin/sh
# learn.sh SEGFM: does it learn? Trains by recipes/phantoms.conf, on phantoms alone, then scores the result on phantoms of another
# seed, with a box and five simulated clicks. Everything goes to build/learn; a run that was stopped goes on.
# STEPS, CASES: fewer of both for a quick look.
segfm=$1 out=build/learn
cases=${CASES-40}
mkdir -p "$out" || exit 1
begun=$(date +%s)
set -- --config recipes/phantoms.conf --out "$out/run" --resume
[ -z "${STEPS-}" ] || set -- "$@" --steps "$STEPS"
"$segfm" train "$@" || exit 1
echo "trained: $(wc -l <"$out/run/log.csv") lines of $out/run/log.csv, $(($(date +%s) - begun)) s this time"
"$segfm" phantom --out "$out/unseen" --count "$cases" --seed 2026 --quiet || exit 1
for by in decoder,corrector,spread decoder,corrector decoder corrector spread; do
    echo "--by $by"
    "$segfm" eval --pairs "$out/unseen/list.tsv" -w "$out/run/last.segfm" --by $by --csv "$out/$by.csv" --quiet |
        grep -E '^(cases|DSC|NSD) ' || exit 1
done
python=${PYTHON-/usr/bin/python3}
"$python" -c 'import matplotlib' 2>/dev/null && "$python" tools/reference/curve.py "$out/run" && echo "$out/run/curve.png"
exit 0
