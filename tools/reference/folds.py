"""Splits labelled pairs by subject: folds.py INDEX.tsv FOLD OUT_DIR [--folds N]

INDEX.tsv has columns file, label_file (relative to it), subject. The subjects, in the order of their first files, go to the folds in turns.
Writes seen.tsv and unseen.tsv (those of FOLD) as `segfm train --pairs` and `segfm eval --pairs` take them.
"""
import argparse
import csv
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("index", type=pathlib.Path)
parser.add_argument("fold", type=int)
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--folds", type=int, default=5)
options = parser.parse_args()

with open(options.index) as file:
    rows = list(csv.DictReader(file, delimiter="\t"))
first = {}
for row in rows:
    first.setdefault(row["subject"], row["file"])
fold = {subject: i % options.folds for i, subject in enumerate(sorted(first, key=first.get))}
options.out.mkdir(parents=True, exist_ok=True)
folder = options.index.resolve().parent
for name, wanted in (("seen", False), ("unseen", True)):
    with open(options.out / f"{name}.tsv", "w") as file:
        for row in rows:
            if (fold[row["subject"]] == options.fold) == wanted:
                file.write(f"{folder / row['file']}\t{folder / row['label_file']}\n")
