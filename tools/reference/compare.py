"""How two tensors are compared, and how checks are counted. Shared by check_golden.py and verify.py."""
import numpy as np


def differences(got, want):
    """(max abs, relative L2) of got − want; NaN or infinity anywhere gives infinity."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    delta = got - want
    if not np.isfinite(delta).all():
        return np.inf, np.inf
    norm = np.linalg.norm(want)
    return float(np.abs(delta).max(initial=0)), float(np.linalg.norm(delta) / (norm if norm > 0 else 1))


def rounded_differences(got, want):
    """(unequal elements, largest difference in ulps) after rounding both to float32."""
    def ordered(a):  # floats as integers in the same order; neighbours differ by 1; −0 and +0 are equal
        bits = np.asarray(a).astype(np.float32).view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7fffffff), bits)
    ulps = np.abs(ordered(got) - ordered(want))
    return int((ulps != 0).sum()), int(ulps.max(initial=0))


def blas_library():
    """The file of the matrix library that PyTorch has loaded."""
    with open('/proc/self/maps') as maps:
        paths = {line.split()[-1] for line in maps if '/libblas' in line}
    return max(paths, default='none')


def blas_is_openblas():
    """The golden float32 errors were made with OpenBLAS. The reference BLAS that Debian's PyTorch falls back on sums naively: its
    float32 errors are up to three times as large, and it is 30 times slower (package libopenblas0-pthread)."""
    return 'openblas' in blas_library()


class Tally:
    """Prints one line per check and counts."""
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, ok, name, detail=''):
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        print(f'{"ok    " if ok else "FAILED"} {name}  {detail}'.rstrip(), flush=True)

    def skip(self, name, why):
        self.skipped += 1
        print(f'skipped {name}: {why}', flush=True)

    def finish(self):
        """The last line of the output; returns the exit code."""
        print(f'{self.passed} passed, {self.failed} failed' + (f', {self.skipped} skipped' if self.skipped else ''))
        return 1 if self.failed or not self.passed else 0
