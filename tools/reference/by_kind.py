"""Scores by kind of scan: by_kind.py SCORES.csv INDEX.tsv [--column modality] [--score DSC]

SCORES.csv is what `segfm eval --csv` writes. A scan's kind is the first word of the column in the index's line whose file has the scan's
name. Prints a line for each kind, the means over its scans of means over classes after the box and every click, then one for each scan.
"""
import argparse
import collections
import csv
import pathlib
import re


def read_kinds(path, column):
    with open(path, newline="") as file:
        return {pathlib.Path(row["file"]).name: re.match(r"\W*(\w*)", row[column])[1] for row in csv.DictReader(file, delimiter="\t")}


def read_scans(path, score):
    """{scan: means over its classes, in the order of clicks}"""
    classes = collections.defaultdict(list)
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            names = sorted((k for k in row if re.fullmatch(score + r"_\d+", k)), key=lambda k: int(k.rsplit("_", 1)[1]))
            if not names:
                raise SystemExit(f"{path}: has no column {score}_0")
            classes[pathlib.Path(row["case"]).name].append([float(row[k]) for k in names])
    return {scan: mean(rows) for scan, rows in classes.items()}


def mean(rows):
    return [sum(column) / len(rows) for column in zip(*rows)]


def by_kind(scans, kinds):
    """{kind: list of scans' means}"""
    groups = collections.defaultdict(list)
    for scan, scores in scans.items():
        if scan not in kinds:
            raise SystemExit(f"{scan}: not in the index")
        groups[kinds[scan]].append(scores)
    return groups


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores")
    parser.add_argument("index")
    parser.add_argument("--column", default="modality")
    parser.add_argument("--score", default="DSC")
    options = parser.parse_args()
    scans = read_scans(options.scores, options.score)
    for kind, rows in sorted(by_kind(scans, read_kinds(options.index, options.column)).items()):
        print(f"{kind} ({len(rows)})", *(f"{v:.3f}" for v in mean(rows)))
    for scan, scores in scans.items():
        print(scan, *(f"{v:.3f}" for v in scores))


if __name__ == "__main__":
    main()
