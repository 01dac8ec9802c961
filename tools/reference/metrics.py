"""Surface metrics and simulated clicks in numpy and scipy, in our own words, and vol/ against them.

    metrics.py PROBE SEGFM            compare: PROBE is build/…/test/volume_probe, SEGFM the command
    metrics.py PROBE SEGFM --bench    time both in turns, 256^3, medians (make bench-metrics)

The definitions are those of the challenge's tools: DeepMind's surface-distance (SurfaceDice.py) and the official click
simulation, which uses scipy's labels and distances and numpy.random.RandomState(42).choice. The areas of surface elements
are derived here once more, from marching cubes. Last line of a comparison: N passed, N failed."""
import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from scipy import ndimage

from checks import check, finish

# ---- areas of a cell between eight voxels ------------------------------------------------------------------------------

CORNERS = list(itertools.product((0, 1), repeat=3))


def polygons(inside):
    """Around the corners to cut off: loops of points in the middles of edges. On every face, each stretch of such corners is
    cut off by a line from the edge before it to the edge behind."""
    lines = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        ring = [np.insert(c, axis, side) for c in ((0, 0), (0, 1), (1, 1), (1, 0))]
        ring = [tuple(int(v) for v in c) for c in ring]
        for i, corner in enumerate(ring):
            if corner not in inside or ring[i - 1] in inside:
                continue
            last = i
            while ring[(last + 1) % 4] in inside:
                last += 1
            ends = [frozenset((ring[i - 1], corner)), frozenset((ring[last % 4], ring[(last + 1) % 4]))]
            for e, f in (ends, ends[::-1]):
                lines.setdefault(e, []).append(f)
    loops = []
    while lines:
        edge, loop = next(iter(lines)), []
        while edge is not None:
            loop.append(np.mean(list(edge), axis=0))
            edge = next((e for e in lines.pop(edge) if e in lines), None)
        loops.append(loop)
    return loops


def triangulations(n):
    """All ways to cut a polygon of n corners into triangles."""
    def cut(points):
        if len(points) < 3:
            yield []
            return
        for k in range(1, len(points) - 1):
            for left in cut(points[:k + 1]):
                for right in cut(points[k:]):
                    yield left + right + [(points[0], points[k], points[-1])]
    return list(cut(list(range(n))))


def triangle_areas(points, triangles, spacing):
    scaled = [p * spacing for p in points]
    return [float(np.linalg.norm(np.cross(scaled[b] - scaled[a], scaled[c] - scaled[a])) / 2) for a, b, c in triangles]


def surface_areas(spacing):
    """By neighbour code: of all ways to cut a polygon, the largest in area and, of those, with the largest triangle, all for
    cubic voxels."""
    table = np.zeros(256)
    for code in range(1, 255):
        inside = {c for i, c in enumerate(CORNERS) if code >> (7 - i) & 1}
        if len(inside) > 4:
            inside = set(CORNERS) - inside
        for points in polygons(inside):
            def size(t):
                areas = triangle_areas(points, t, np.ones(3))
                return round(sum(areas), 9), round(max(areas), 9)
            table[code] += sum(triangle_areas(points, max(triangulations(len(points)), key=size), spacing))
    return table


def contour_lengths(spacing):
    y, x = spacing
    cut = math.hypot(y, x) / 2
    table = np.full(16, cut)
    table[[0b0000, 0b1111]] = 0
    table[[0b0011, 0b1100]] = x
    table[[0b0101, 0b1010]] = y
    table[[0b0110, 0b1001]] = 2 * cut
    return table


# ---- surface metrics ---------------------------------------------------------------------------------------------------

def surface_distances(truth, prediction, spacing, table=None):
    """(distances, areas) of the truth's surface to the prediction's, and back, sorted. Masks of two or three axes."""
    n = truth.ndim
    if table is None:
        table = surface_areas(np.asarray(spacing, float)) if n == 3 else contour_lengths(spacing)
    kernel = 2 ** np.arange(2 ** n)[::-1].reshape((2,) * n)
    found = np.nonzero(truth | prediction)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in found)
    codes, surfaces, maps = [], [], []
    for mask in (truth, prediction):
        code = ndimage.correlate(np.pad(mask[box], [(0, 1)] * n).astype(np.uint8), kernel, mode='constant')
        surface = (code != 0) & (code != len(table) - 1)
        codes.append(code), surfaces.append(surface)
        maps.append(ndimage.distance_transform_edt(~surface, sampling=spacing) if surface.any()
                    else np.full(code.shape, np.inf))
    sides = []
    for own, other in ((0, 1), (1, 0)):
        distances, areas = maps[other][surfaces[own]], table[codes[own][surfaces[own]]]
        order = np.lexsort((areas, distances))
        sides.append((distances[order], areas[order]))
    return sides


def percentile(distances, areas, percent):
    at = np.searchsorted(np.cumsum(areas) / np.sum(areas), percent / 100)
    return distances[min(at, len(distances) - 1)]


def metrics(truth, prediction, spacing, tolerance, table=None):
    """dice, nsd, overlaps, hd95, hd, asds; NaN where a mask is empty (0: dice, nsd and the overlap of the other)."""
    t, p = truth.sum(), prediction.sum()
    if t == 0 or p == 0:
        some = math.nan if t + p == 0 else 0.0
        return [some, some, 0.0 if t else math.nan, 0.0 if p else math.nan] + [math.nan] * 4
    (d1, a1), (d2, a2) = surface_distances(truth, prediction, spacing, table)
    near1, near2 = np.sum(a1[d1 <= tolerance]), np.sum(a2[d2 <= tolerance])
    return [2 * (truth & prediction).sum() / (t + p), (near1 + near2) / (np.sum(a1) + np.sum(a2)),
            near1 / np.sum(a1), near2 / np.sum(a2), max(percentile(d1, a1, 95), percentile(d2, a2, 95)),
            max(d1[-1], d2[-1]), np.sum(d1 * a1) / np.sum(a1), np.sum(d2 * a2) / np.sum(a2)]


# ---- simulated clicks --------------------------------------------------------------------------------------------------

def error_distance(component, large=60_000_000):
    """Distances inside a component, on its box padded by a quarter; on blocks of 2x2x2 where that is large."""
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(component))
    crop = component[box]
    pad = [max(n // 4, 1) for n in crop.shape]
    padded = np.pad(crop, [(p, p) for p in pad])
    blocks = padded.size > large
    if blocks:
        even = np.pad(padded, [(0, n % 2) for n in padded.shape])
        d, h, w = (n // 2 for n in even.shape)
        padded = even.reshape(d, 2, h, 2, w, 2).max(axis=(1, 3, 5))
    distance = ndimage.distance_transform_edt(padded)
    if blocks:
        distance = distance.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    out = np.zeros(component.shape)
    out[box] = distance[tuple(slice(p, p + n) for p, n in zip(pad, crop.shape))] * crop
    return out


def simulate_click(truth, prediction, official=True, large=60_000_000):
    """z, y, x, label; all -1 when the masks agree."""
    labels, count = ndimage.label(truth != prediction, np.ones((3, 3, 3)))
    if count == 0:
        return [-1, -1, -1, -1]
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    distance = error_distance(labels == np.argmax(sizes), large)
    best = np.argwhere(distance == distance.max())
    at = best[np.random.RandomState(42).choice(len(best)) if official else 0]
    return [int(v) for v in at] + [int(truth[tuple(at)])]


# ---- the C program -----------------------------------------------------------------------------------------------------

class Probe:
    def __init__(self, program, threads, folder):
        self.process = subprocess.Popen([program, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.folder = folder

    def ask(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            sys.exit(f'the probe gave no answer to: {line}')
        return [float(v) for v in answer]

    def load(self, truth, prediction):
        paths = [os.path.join(self.folder, name) for name in ('truth.npy', 'prediction.npy')]
        for path, mask in zip(paths, (truth, prediction)):
            np.save(path, mask.astype(np.uint8))
        self.ask(f'load {paths[0]} {paths[1]}')

    def array(self, command):
        path = os.path.join(self.folder, 'out.npy')
        self.ask(f'{command} {path}')
        return np.load(path)


def blobs(rng, shape, share, smooth):
    """Smoothed noise above its quantile: masks with holes, thin parts and pieces at the border."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), smooth)
    return noise > np.quantile(noise, 1 - share)


def cases(rng, number):
    for i in range(number):
        shape = tuple(int(v) for v in rng.integers(1, [14, 40, 45]))
        spacing = [2.0, 1.0, 3.0] if i % 3 == 0 else [round(float(v), 3) for v in rng.uniform(0.3, 5, 3)]
        truth = blobs(rng, shape, rng.uniform(0.02, 0.6), rng.uniform(0, 3))
        prediction = truth ^ blobs(rng, shape, rng.uniform(0.005, 0.3), rng.uniform(0, 2))
        if i % 11 == 0:
            prediction[:] = False
        if i % 13 == 0:
            prediction = truth.copy()
        if i % 17 == 0:
            truth[:] = i % 2
        yield truth, prediction, spacing


def same(got, want, bound=1e-9):
    return all(math.isnan(g) and math.isnan(w) or abs(g - w) <= bound * max(1, abs(w)) for g, w in zip(got, want))


def compare(probe, number):
    rng = np.random.default_rng(7)
    for i, (truth, prediction, spacing) in enumerate(cases(rng, number)):
        name = f'case {i}, {truth.shape}, spacing {spacing}'
        probe.load(truth, prediction)
        sampling = ' '.join(map(repr, spacing))
        if not truth.all():
            squared = probe.array(f'distance {sampling}')
            want = ndimage.distance_transform_edt(truth, sampling=spacing)
            check(np.allclose(np.sqrt(squared), want, 1e-14, 0), f'{name}: distances')
        want = ndimage.label(truth, np.ones((3, 3, 3)))[0]
        check(np.array_equal(probe.array('components'), want), f'{name}: components')
        for rule in ('first', 'official'):
            for large in (60_000_000, 300):
                got = probe.ask(f'click {rule} {large}')[1:]
                want = simulate_click(truth, prediction, rule == 'official', large)
                check(got == want, f'{name}: click {rule} {large}: {got}, {want}')
        for tolerance in (1, 2.5):
            got = probe.ask(f'surface {sampling} {tolerance} solid')[1:9]
            want = metrics(truth, prediction, spacing, tolerance)
            check(same(got, want), f'{name}: metrics {got}, {want}')
        slices = truth[:1], prediction[:1]
        probe.load(*slices)
        got = probe.ask(f'surface {sampling} 1 flat')[1:9]
        want = metrics(slices[0][0], slices[1][0], spacing[1:], 1)
        check(same(got, want), f'{name}: contours {got}, {want}')


def compare_command(segfm, folder):
    """`segfm metrics` on label maps: challenge files and NIfTI."""
    import nibabel
    rng = np.random.default_rng(8)
    truth, prediction = (np.digitize(ndimage.gaussian_filter(rng.normal(size=(17, 40, 33)), s), (0.05, 0.12, 0.2))
                         for s in (2, 2))
    prediction = np.where(blobs(rng, truth.shape, 0.8, 2), truth, prediction)
    prediction[prediction == 3] = 5  # one missed, one too much
    spacing = [0.8, 0.7, 2.5]  # x, y, z
    np.savez_compressed(f'{folder}/gt.npz', gts=truth.astype(np.uint8), spacing=np.array(spacing))
    np.savez_compressed(f'{folder}/pred.npz', segs=prediction.astype(np.uint8))
    for name, labels in (('gt', truth), ('pred', prediction)):
        image = nibabel.Nifti1Image(labels.T.astype(np.uint8), np.diag(spacing + [1]))
        nibabel.save(image, f'{folder}/{name}.nii.gz')
    for kind in ('npz', 'nii.gz'):
        command = [segfm, 'metrics', '--gt', f'{folder}/gt.{kind}', '--pred', f'{folder}/pred.{kind}', '--tolerance', '1.5',
                   '--json']
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        check([c['label'] for c in report['classes']] == [1, 2, 3, 5], f'{kind}: labels')
        sums = {}
        for c in report['classes']:
            a, b = truth == c['label'], prediction == c['label']
            want = metrics(a, b, spacing[::-1], 1.5)
            want = [want[0], want[1], want[4], (want[6] + want[7]) / 2, want[6], want[7]]
            got = [math.nan if c[k] is None else c[k] for k in ('DSC', 'NSD', 'HD95', 'ASD', 'ASD_gt', 'ASD_pred')]
            check(same(got, want, 1e-6) and c['voxels_gt'] == a.sum() and c['voxels_pred'] == b.sum(), f'{kind}: {c}')
            check(c.get('reason') == {3: 'prediction empty', 5: 'truth empty'}.get(c['label']), f'{kind}: reason {c}')
            for k in ('DSC', 'HD95'):
                if c['label'] != 5 and c[k] is not None:
                    sums.setdefault(k, []).append(c[k])
        for k, values in sums.items():
            check(abs(report['mean'][k] - np.mean(values)) < 1e-6, f'{kind}: mean of {k}')
        check(report['mean']['undefined'] == {'prediction empty': 1}, f'{kind}: undefined')


# ---- speed -------------------------------------------------------------------------------------------------------------

def timed(function):
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def bench(probe, threads, rounds, size):
    rng = np.random.default_rng(9)
    z, y, x = np.ogrid[:size, :size, :size]
    c = size / 2
    organ = ((z - c) / 0.36) ** 2 + ((y - c) / 0.40) ** 2 + ((x - c) / 0.32) ** 2 < size * size
    organ ^= blobs(rng, (size,) * 3, 0.02, 3)
    moved = np.roll(organ, (2, 3, -2), (0, 1, 2)) ^ blobs(rng, (size,) * 3, 0.01, 3)
    noise = blobs(rng, (size,) * 3, 0.3, 1)
    plain, like = (((z - c) / 0.36) ** 2 + ((y - c + d) / 0.40) ** 2 + ((x - c - d) / 0.32) ** 2 < size * size for d in (0, 3))
    table = surface_areas(np.array([2.5, 0.8, 0.8]))
    full = np.ones((3, 3, 3))
    jobs = [
        ('distance, organ', organ, moved, 'distance 1 1 1 -', lambda: ndimage.distance_transform_edt(organ)),
        ('distance, spacing 2.5 0.8 0.8', organ, moved, 'distance 2.5 0.8 0.8 -',
         lambda: ndimage.distance_transform_edt(organ, sampling=(2.5, 0.8, 0.8))),
        ('distance, blobs', noise, moved, 'distance 1 1 1 -', lambda: ndimage.distance_transform_edt(noise)),
        ('components, organ', organ, moved, 'components -', lambda: ndimage.label(organ, full)),
        ('components, blobs', noise, moved, 'components -', lambda: ndimage.label(noise, full)),
        ('surface metrics, ellipsoids', plain, like, 'surface 2.5 0.8 0.8 2 solid',
         lambda: metrics(plain, like, (2.5, 0.8, 0.8), 2, table)),
        ('surface metrics, organ', organ, moved, 'surface 2.5 0.8 0.8 2 solid',
         lambda: metrics(organ, moved, (2.5, 0.8, 0.8), 2, table)),
        ('simulated click', organ, moved, 'click official 60000000', lambda: simulate_click(organ, moved)),
    ]
    print(f'{size}^3, {threads} threads, medians of {rounds} rounds in turns, milliseconds')
    print(f'{"":30} {"segfm":>9} {"scipy":>9} {"ratio":>7}')
    for title, truth, prediction, command, function in jobs:
        probe.load(truth, prediction)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(probe.ask(command)[0])
            theirs.append(timed(function))
        a, b = statistics.median(ours), statistics.median(theirs)
        print(f'{title:30} {a:9.1f} {b:9.1f} {b / a:7.1f}', flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('probe')
    parser.add_argument('segfm')
    parser.add_argument('--bench', action='store_true')
    parser.add_argument('--cases', type=int, default=60)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--size', type=int, default=256)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        probe = Probe(options.probe, options.threads, folder)
        if options.bench:
            bench(probe, options.threads, options.rounds, options.size)
            return 0
        compare(probe, options.cases)
        compare_command(options.segfm, folder)
    return finish()


if __name__ == '__main__':
    sys.exit(main())
