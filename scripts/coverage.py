#!/usr/bin/env python3
"""coverage.py BUILD [--lines FILE | --branches FILE]: what the tests that ran in BUILD (gcc --coverage) went through, by gcov.

Prints lines and branches of every file and room, then the checks: parsers 100 % of lines and 95 % of branches each, the
library and the tools 92 % of lines together. --lines: the lines of FILE that nothing ran; --branches: those with a way
that nothing took. Last line: N passed, N failed.
"""
import gzip
import json
import os
import re
import subprocess
import sys

PARSERS = re.compile(r'io/[a-z]+\.c|weights/(format|table|config|checkpoint|safetensors)\.c')
PARSER_LINES, PARSER_BRANCHES, ALL_LINES = 100, 95, 92


class File:
    """Counts of a source, of all its compilations together: an operator's loops are compiled once for each instruction set."""

    def __init__(self):
        self.lines = {}
        self.branches = {}  # line: a list of counts for each place in it

    def add(self, line):
        number = line['line_number']
        self.lines[number] = self.lines.get(number, 0) + line['count']
        counts = [branch['count'] for branch in line['branches']]
        old = self.branches.get(number, [])
        both = max(len(old), len(counts))
        old, counts = old + [0] * (both - len(old)), counts + [0] * (both - len(counts))
        if both:
            self.branches[number] = [a + b for a, b in zip(old, counts)]

    def ways(self):
        return [count for counts in self.branches.values() for count in counts]


def read(build):
    """Every source of the tree but test programs: its File."""
    files = {}
    notes = [os.path.join(folder, name) for folder, _, names in os.walk(build) for name in names
             if name.endswith('.gcno') and not os.path.relpath(folder, build).startswith('test')]
    if not notes:
        sys.exit(f'coverage.py: no .gcno in {build}: was it built with --coverage?')
    for note in sorted(notes):
        out = subprocess.run(['gcov', '--json-format', '--stdout', '--branch-probabilities', note], check=True,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        report = json.loads(gzip.decompress(out) if out[:2] == b'\x1f\x8b' else out)
        for source in report['files']:
            name = os.path.normpath(source['file'])
            if os.path.isabs(name):  # a header of the system
                continue
            file = files.setdefault(name, File())
            for line in source['lines']:
                file.add(line)
    return files


def share(counts):
    """Text and value of how many are not 0."""
    counts = list(counts)
    taken = sum(count > 0 for count in counts)
    percent = 100 * taken / len(counts) if counts else 100
    return f'{taken:6}/{len(counts):<6} {percent:6.2f} %', percent


def print_row(name, lines, branches):
    print(f'{name:28} lines {share(lines)[0]}   branches {share(branches)[0]}')


def main():
    build, *option = sys.argv[1:]
    files = read(build)
    if option:
        kind, name = option
        wanted = files[name].lines if kind == '--lines' else files[name].branches
        text = open(name).read().split('\n')
        for number, count in sorted(wanted.items()):
            if count == 0 or kind == '--branches' and 0 in count:
                print(f'{name}:{number}: {text[number - 1].strip()}' + (f'   {count}' if kind == '--branches' else ''))
        return 0
    rooms = {}
    for name in sorted(files):
        rooms.setdefault(os.path.dirname(name) or name, []).append(name)
    for room, names in sorted(rooms.items()):
        for name in names:
            print_row('  ' + name, files[name].lines.values(), files[name].ways())
        print_row(room, [c for n in names for c in files[n].lines.values()], [c for n in names for c in files[n].ways()])
    print_row('all', [c for f in files.values() for c in f.lines.values()], [c for f in files.values() for c in f.ways()])

    passed = failed = 0
    checks = [(f'the library and the tools: {ALL_LINES} % of lines', ALL_LINES,
               share(c for f in files.values() for c in f.lines.values()))]
    parsers = [name for name in sorted(files) if PARSERS.fullmatch(name)]
    for name in parsers:
        checks += [(f'{name}: {PARSER_LINES} % of lines', PARSER_LINES, share(files[name].lines.values())),
                   (f'{name}: {PARSER_BRANCHES} % of branches', PARSER_BRANCHES, share(files[name].ways()))]
    for title, need, (text, percent) in checks:
        passed, failed = passed + (percent >= need), failed + (percent < need)
        if percent < need:
            print(f'failed: {title}: {text.strip()}')
    if len(parsers) < 10:
        failed += 1
        print(f'failed: only {len(parsers)} parsers were found: {parsers}')
    print(f'{passed} passed, {failed} failed')
    return failed != 0


if __name__ == '__main__':
    sys.exit(main())
