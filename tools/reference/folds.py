"""Splits labelled pairs by subject or by anatomy: folds.py INDEX.tsv FOLD OUT_DIR [--folds N] [--anatomy]

INDEX.tsv has columns file, label_file (relative to it), subject. The subjects, in the order of their first files, go to the
folds in turns. Writes seen.tsv and unseen.tsv (those of FOLD) as `segfm train --pairs` and `segfm eval --pairs` take them.

--anatomy: whole anatomies are unseen. A pair's group is that of the first pattern in GROUPS which its column `structures`
holds, upper or lower case, or, where that names none, its column `source`; a pair without a group is an error, and so is a
subject of two. Scans of the head and neck and those of the spinal cord both show the cord, so they are one group. What is
still shared: the body's scan shows some vertebrae and a piece of the cord, the fetal brain's a brainstem; there look at the
classes too. The groups, the largest in pairs first, of equal ones the first in the list, go to the fold that has the fewest
pairs so far, of equal ones the first. A group is never split, so folds are as equal as the largest groups allow.
Prints the groups of FOLD with their pairs.
"""
import argparse
import collections
import csv
import pathlib
import re

GROUPS = {
    "hippocampus": "hippocamp",
    "sarcoma": "sarcoma",
    "prostate": "prostate",
    "neck organs, spinal cord": r"parotid|mandible|larynx|spinal ?cord|cord grey",
    "body organs": "totalsegmentator|spleen|liver|kidney",
    "vertebra": "vertebra|spinous process",
    "brain lesions": "white-matter lesion|brain tumou?r",
    "breast lesions": "breast",
    "fetal brain": "fetal|corpus callosum",
    "cells": "cells|nuclei",
}


def group_of(row):
    for text in (row["structures"], row["source"]):
        for group, pattern in GROUPS.items():
            if re.search(pattern, text, re.IGNORECASE):
                return group
    raise SystemExit(f"{row['file']}: no anatomy is known for {row['structures']} of {row['source']}: add it to GROUPS")


def by_subject(rows, folds):
    """Fold of each row."""
    first = {}
    for row in rows:
        first.setdefault(row["subject"], row["file"])
    fold = {subject: i % folds for i, subject in enumerate(sorted(first, key=first.get))}
    return [fold[row["subject"]] for row in rows]


def by_anatomy(rows, folds):
    groups, of_subject = [group_of(row) for row in rows], {}
    for row, group in zip(rows, groups):
        if of_subject.setdefault(row["subject"], group) != group:
            raise SystemExit(f"subject {row['subject']}: shows {of_subject[row['subject']]} and {group}, need one anatomy")
    pairs, size, fold = collections.Counter(groups), [0] * folds, {}
    for group in sorted(GROUPS, key=lambda g: -pairs[g]):
        fold[group] = size.index(min(size))
        size[fold[group]] += pairs[group]
    return [fold[group] for group in groups]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=pathlib.Path)
    parser.add_argument("fold", type=int)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--anatomy", action="store_true")
    options = parser.parse_args()
    if not 0 <= options.fold < options.folds:
        parser.error(f"FOLD: got {options.fold}, need 0 to {options.folds - 1}")
    with open(options.index, encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    folds = (by_anatomy if options.anatomy else by_subject)(rows, options.folds)
    options.out.mkdir(parents=True, exist_ok=True)
    folder = options.index.resolve().parent
    for name, wanted in (("seen", False), ("unseen", True)):
        with open(options.out / f"{name}.tsv", "w", encoding="utf-8") as file:
            for row, fold in zip(rows, folds):
                if (fold == options.fold) == wanted:
                    file.write(f"{folder / row['file']}\t{folder / row['label_file']}\n")
    if options.anatomy:
        unseen = collections.Counter(group_of(row) for row, fold in zip(rows, folds) if fold == options.fold)
        print(", ".join(f"{group} {count}" for group, count in unseen.items()))


if __name__ == "__main__":
    main()
