"""What needs no model, on the boxes and with the simulated clicks of `segfm eval`, to be compared with its DSC.

    rivals.py LIST.tsv [--clicks 5] [--csv OUT.csv] [--only NAME] [--core 0.8] [--grow 0.1] [--beta 130] [--seed 0.8]

LIST.tsv: image, tab, label map per line, as `segfm eval --pairs` takes it. Needs nibabel, scipy and scikit-image (Debian:
python3-nibabel python3-scipy python3-skimage). Per rival a line `DSC d0 d1 …`: with the box, after each click; means over cases
of means over classes of at least --min-voxels (100). The rivals:

ellipsoid  inscribed in the box.
otsu       Otsu's threshold of what is in the box; which side of it is the object the truth says (an oracle).
           A click on these two, which know of none, sets a ball around it that reaches to the next voxel labelled so (mm).
walker     scikit-image's random walker on the box and a quarter of its extent on every side, at most 48 voxels along each axis
           (the mean of those that become one), spacing respected, brightness clipped to its 0.5 to 99.5 percentiles. Seeds:
           background outside of the box grown by --grow of its extent; object in the ellipsoid of --core of the box's size;
           clicks, as balls of --seed of the radius above. A click on the object outside of the box makes the box larger; one
           beside the object takes the core's seeds away in a ball of a fifth of the box's extents around it. The mask is
           where the probability, interpolated, is above one half. The defaults are the best of a few tried on scans of the
           list that eval's model may see.
"""
import argparse
import csv
import math
import os
import warnings

import nibabel
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import random_walker

import metrics
import official
import pipeline

LONGEST, FRAME, RELEASE = 48, 0.25, 0.2


def dice(truth, found):
    return 2 * np.count_nonzero(truth & found) / (np.count_nonzero(truth) + np.count_nonzero(found))


def in_ellipsoid(shape, box, share=1.0):
    """Voxels in the ellipsoid of that share of the size of the one inscribed in the box (lo, hi; inclusive)."""
    lo, hi = box
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((g - (a + b) / 2) / (share * (b - a + 1) / 2)) ** 2 for g, a, b in zip(grids, lo, hi)) <= 1


def reach(mask, at, inside, spacing):
    """How far it is from a click to the next voxel labelled as the click is, in mm."""
    return ndimage.distance_transform_edt(mask != inside, sampling=spacing)[at] if (mask == inside).any() else min(spacing)


class Ball:
    """A mask from the box alone; clicks set balls."""
    def __init__(self, mask, spacing):
        self.first, self.spacing = mask, spacing

    def start(self):
        return self.first

    def click(self, mask, at, inside):
        grids = np.ogrid[tuple(slice(0, n) for n in mask.shape)]
        near = sum(((g - a) * s) ** 2 for g, a, s in zip(grids, at, self.spacing)) < reach(mask, at, inside, self.spacing) ** 2
        return np.where(near, inside, mask)


def ellipsoid(image, truth, box, spacing, options):
    return Ball(in_ellipsoid(truth.shape, box), spacing)


def otsu(image, truth, box, spacing, options):
    part = tuple(slice(a, b + 1) for a, b in zip(*box))
    values, masks = image[part].ravel().astype(np.float64), []
    level = threshold_otsu(values) if values.min() < values.max() else values.min()
    for bright in (values > level, values <= level):
        mask = np.zeros(truth.shape, bool)
        mask[part] = bright.reshape(mask[part].shape)
        masks.append(mask)
    return Ball(max(masks, key=lambda m: dice(truth, m)), spacing)


class Walker:
    def __init__(self, image, truth, box, spacing, options):
        self.image, self.box, self.spacing, self.options, self.clicks = image, box, spacing, options, []

    def start(self):
        return self.walk()

    def click(self, mask, at, inside):
        self.clicks.append((np.array(at), inside, self.options.seed * reach(mask, at, inside, self.spacing)))
        return self.walk()

    def shrink(self, lo, n):
        """The region from lo with n voxels (it may leave the scan: there the border goes on), shrunk, and voxels a cell."""
        part = self.image[np.ix_(*[np.clip(np.arange(a, a + k), 0, size - 1) for a, k, size in zip(lo, n, self.image.shape)])]
        cells = np.minimum(n, LONGEST)
        sums = np.pad(part, [(1, 0)] * 3).astype(np.float64)
        for axis in range(3):  # means of what a cell covers: differences of sums at its edges
            sums = np.cumsum(sums, axis)
            edges = np.arange(cells[axis] + 1) * n[axis] / cells[axis]
            whole = np.minimum(edges.astype(int), n[axis] - 1)
            share = (edges - whole).reshape([-1 if k == axis else 1 for k in range(3)])
            sums = np.diff(sums.take(whole, axis) * (1 - share) + sums.take(whole + 1, axis) * share, axis=axis)
        low, high = np.percentile(sums, (0.5, 99.5))
        return np.clip((sums - low) / max(high - low, 1e-12), 0, 1) * 2 - 1, n / cells

    def seeds(self, lo, cells, step):
        """0: none, 1: object, 2: background."""
        o = self.options
        hull = np.array([self.box[0], self.box[1]])
        for c, inside, _ in self.clicks:
            if inside:
                hull = np.array([np.minimum(hull[0], c), np.maximum(hull[1], c)])
        centres = [a + (np.arange(k) + 0.5) * s - 0.5 for a, k, s in zip(lo, cells, step)]
        grids = np.meshgrid(*centres, indexing='ij', sparse=True)
        margin = np.maximum(o.grow * (self.box[1] - self.box[0] + 1), 0) + 0.5
        out = np.zeros(cells, np.uint8)
        for g, a, b, m in zip(grids, *hull, margin):
            out[np.broadcast_to((g < a - m) | (g > b + m), cells)] = 2
        middle, half = (self.box[0] + self.box[1]) / 2, (self.box[1] - self.box[0] + 1) / 2
        core = sum(((g - m) / np.maximum(o.core * h, s / 2)) ** 2 for g, m, h, s in zip(grids, middle, half, step)) <= 1
        kept = core.copy()
        for c, inside, _ in self.clicks:
            if not inside:
                kept &= sum(((g - v) / (2 * h)) ** 2 for g, v, h in zip(grids, c, half)) > RELEASE ** 2
        if not kept.any() and not any(inside for _, inside, _ in self.clicks):
            kept = core  # something must be the object
        out[kept] = 1
        for c, inside, radius in self.clicks:
            value = 1 if inside else 2
            out[sum(((g - v) * s) ** 2 for g, v, s in zip(grids, c, self.spacing)) < radius ** 2] = value
            out[tuple(((c - lo + 0.5) / step).astype(int))] = value
        return out

    def walk(self):
        lo, hi = self.box
        margin = np.ceil(FRAME * (hi - lo + 1)).astype(int) + 1
        points = [c for c, *_ in self.clicks]
        first = np.min([lo - margin, *[c - margin for c in points]], axis=0)
        n = np.max([hi + margin, *[c + margin for c in points]], axis=0) - first + 1
        brightness, step = self.shrink(first, n)
        labels = self.seeds(first, brightness.shape, step)
        mask = np.zeros(self.image.shape, bool)
        if (labels == 1).any():
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # no UMFPACK, isolated seeds
                share = (labels == 1).astype(float)  # of a small object seeds may be everywhere
                if (labels == 0).any():
                    share = random_walker(brightness, labels, beta=self.options.beta, mode='cg_j', tol=1e-3,
                                          return_full_prob=True, spacing=tuple(self.spacing * step))[0]
            inner = [np.arange(max(a, 0), min(a + k, size)) for a, k, size in zip(first, n, mask.shape)]
            where = np.meshgrid(*[(i - a + 0.5) / s - 0.5 for i, a, s in zip(inner, first, step)], indexing='ij')
            mask[np.ix_(*inner)] = ndimage.map_coordinates(share, where, order=1, mode='nearest') > 0.5
        for c, inside, _ in self.clicks:
            mask[tuple(c)] = inside
        return mask


RIVALS = {'ellipsoid': ellipsoid, 'otsu': otsu, 'walker': Walker}


def read_pairs(path):
    """As eval reads a list: from the current folder or else from the list's."""
    with open(path, encoding='utf-8') as file:
        lines = [line.rstrip('\r\n').split('\t') for line in file if line.strip() and not line.startswith('#')]
    here = os.path.dirname(path)
    pairs = [line[:2] for i, line in enumerate(lines) if not (i == 0 and line[0] in ('image', 'file'))]
    return [[p if os.path.exists(p) else os.path.join(here, p) for p in pair] for pair in pairs]


def region(truth, box):
    """What can matter to the rivals and the clicks: the object, the box and a margin of it."""
    lo, hi = box
    where = np.nonzero(truth)
    margin = np.ceil(2 * FRAME * (hi - lo + 1)).astype(int) + 2
    ends = [(max(0, min(a - m, w.min() - m)), min(n, max(b + m, w.max() + m) + 1))
            for a, b, m, w, n in zip(lo, hi, margin, where, truth.shape)]
    return tuple(slice(a, b) for a, b in ends)


def score(name, image, truth, spacing, options):
    """DSC with the box and after each click."""
    box = pipeline.challenge_box(official.box_of(truth))
    part = region(truth, (box[:3], box[3:]))
    first = np.array([s.start for s in part])
    image, truth, box = image[part], truth[part], (box[:3] - first, box[3:] - first)
    rival = RIVALS[name](image, truth, box, spacing, options)
    mask = rival.start()
    values = [dice(truth, mask)]
    for _ in range(options.clicks):
        *at, inside = metrics.simulate_click(truth, mask, official=False)
        if inside >= 0:
            mask = rival.click(mask, tuple(at), bool(inside))
        values.append(dice(truth, mask))
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('pairs')
    parser.add_argument('--clicks', type=int, default=5)
    parser.add_argument('--min-voxels', type=int, default=100)
    parser.add_argument('--csv')
    parser.add_argument('--only', choices=RIVALS, action='append')
    parser.add_argument('--core', type=float, default=0.8)
    parser.add_argument('--grow', type=float, default=0.1)
    parser.add_argument('--beta', type=float, default=130)
    parser.add_argument('--seed', type=float, default=0.8)
    options = parser.parse_args()
    names = options.only or list(RIVALS)
    rows, cases = [], {name: [] for name in names}
    for pair in read_pairs(options.pairs):
        volumes = [nibabel.load(p) for p in pair]
        image, truth = (np.asarray(v.dataobj).T for v in volumes)  # z, y, x
        spacing = np.array(volumes[1].header.get_zooms()[2::-1], float)
        labels = [int(v) for v, n in zip(*np.unique(truth, return_counts=True)) if v > 0 and n >= options.min_voxels]
        for name in names:
            values = [score(name, image, truth == v, spacing, options) for v in labels]
            rows += [[pair[0], v, name, *r] for v, r in zip(labels, values)]
            if values:
                cases[name].append(np.mean(values, axis=0))
    if options.csv:
        with open(options.csv, 'w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows([['case', 'class', 'rival', *[f'DSC_{k}' for k in range(options.clicks + 1)]], *rows])
    print(f'cases {len(cases[names[0]])} classes {len(rows) // len(names)}')
    for name in names:
        means = np.mean(cases[name], axis=0) if cases[name] else [math.nan] * (options.clicks + 1)
        print(f'{name:9} DSC', *[f'{v:.9f}' for v in means])


if __name__ == '__main__':
    main()
