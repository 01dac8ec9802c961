#!/bin/sh
# coverage.sh BUILD: runs the tests of a build that counts (gcc --coverage), then says what they went through.
cd "$(dirname "$0")/.." || exit 1
find "$1" -name '*.gcda' -exec rm {} +
scripts/test.sh "$1" || exit 1
"${PYTHON-python3}" -B scripts/coverage.py "$1"
