"""Labels that nobody drew: what stands out in real scans, so that a model also learns from what their truth leaves out.

pseudo_labels.py LIST.tsv OUT_DIR [SEED]

LIST.tsv: a line per case, image, tab, label map, as `segfm train --pairs`; the label maps are not looked at. Of each scan up
to three label maps are made in OUT_DIR, and list.tsv there names them with their scans as `segfm train --pairs` takes it:
  NAME-edges    basins of a watershed of the gradient's magnitude, from four smoothings
  NAME-levels   connected parts above, or below, one of 16 brightnesses
  NAME-specks   of random boxes: all small parts that are brighter, or darker, than what is around, together one object
A region counts when its contour is closed: four fifths of what is around it differ from its mean by more than it varies
within. Which of the regions that lie over each other is taken, is drawn, rather the clearer and the larger. Brightness is
half of it rank, so that soft tissue beside bone is seen.
"""
import os
import sys
import zlib

import nibabel as nib
import numpy as np
from scipy import ndimage as ndi
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

SMALLEST = 100  # voxels
LARGEST = 0.2  # of the scan
MOST = 60  # objects of a label map
CANDIDATES = 1500  # regions of which they are chosen
CLEAR = 0.6  # deviations of a region


def clarity(image, box, mask, noise):
    """How far four fifths of the voxels around a region are from its mean, at least, over its deviation."""
    grown = tuple(slice(max(s.start - 3, 0), s.stop + 3) for s in box)
    inside = mask[grown]
    around = ndi.binary_dilation(inside, iterations=2) & ~inside
    if around.sum() < 20:
        return 0
    voxels = image[grown][inside]
    return np.quantile(np.abs(image[grown][around] - voxels.mean()), 0.2) / (noise + voxels.std())


def fits(box, shape, voxels):
    """Neither too small nor most of the scan, and leaving it on two sides at most."""
    if not SMALLEST <= voxels <= LARGEST * np.prod(shape):
        return False
    extent = [s.stop - s.start for s in box]
    if min(extent) < 3 and min(shape) > 12:
        return False
    leaving = sum((s.start == 0) + (s.stop == n) for s, n in zip(box, shape))
    return leaving <= 2 and all(e <= 0.8 * n or n < 24 for e, n in zip(extent, shape))


def in_voxels(sigma, zooms):
    """Of a length in the smallest spacing."""
    return [sigma * min(zooms) / z for z in zooms]


def choose(candidates, image, rng, noise):
    """A label map of regions (box, mask within it), the clearest and largest first, by chance; none over another."""
    out = np.zeros(image.shape, np.uint8)
    mask = np.zeros(image.shape, bool)
    scored = []
    rng.shuffle(candidates)
    for box, region in candidates[:CANDIDATES]:
        mask[box] = region
        score = clarity(image, box, mask, noise) * region.size**0.15 * rng.uniform(0.4, 1)
        mask[box] = False
        scored.append((score, len(scored), box, region))
    scored.sort(key=lambda s: (-s[0], s[1]))
    for _, _, box, region in scored:
        if out.max() == MOST:
            break
        if (out[box][region] > 0).mean() > 0.1:
            continue
        mask[box] = region
        tight = ndi.find_objects(region.astype(np.uint8))[0]
        tight = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, tight))
        if fits(tight, image.shape, region.sum()) and clarity(image, tight, mask, noise) >= CLEAR:
            out[tight][mask[tight] & (out[tight] == 0)] = out.max() + 1
        mask[box] = False
    return out


def edges(image, zooms, rng, noise):
    candidates = []
    for sigma in (0.7, 1.1, 1.6, 2.4) if image.size < 2e6 else (1.0, 1.8, 3):
        sigma *= rng.uniform(0.85, 1.2)
        steep = ndi.gaussian_gradient_magnitude(image, in_voxels(sigma, zooms)).astype(np.float32)
        # basins that are deeper than this; the shallower ones flow into them
        deep = reconstruction(steep + np.quantile(steep, 0.5) * rng.uniform(0.3, 1), steep, 'erosion')
        markers, _ = ndi.label(deep <= ndi.minimum_filter(deep, size=3), np.ones((3, 3, 3)))
        basins = watershed(steep, markers)
        sizes = np.bincount(basins.ravel())
        for label, box in enumerate(ndi.find_objects(basins), 1):
            if box is None or not fits(box, image.shape, sizes[label]):
                continue
            basin = basins[box] == label
            parts, count = ndi.label(ndi.binary_opening(basin))  # what hangs on by a thread is not the object's
            if count == 0:
                continue
            part = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
            candidates.append((box, ndi.binary_fill_holes(ndi.binary_dilation(part) & basin)))
    return choose(candidates, image, rng, noise)


def levels(image, zooms, rng, noise):
    smooth = ndi.gaussian_filter(image, in_voxels(rng.choice([0.1, 0.6, 1.0, 1.6]), zooms))
    found = []
    steps = np.quantile(smooth[smooth > smooth.min()], np.linspace(0.04, 0.98, 16))
    for sign in (1, -1):
        for level in steps:
            beyond = sign * smooth > sign * level
            opening = int(rng.integers(0, 3))
            if opening > 0:
                beyond = ndi.binary_opening(beyond, iterations=opening)
            parts, count = ndi.label(beyond)
            sizes = np.bincount(parts.ravel())
            for label, box in enumerate(ndi.find_objects(parts), 1):
                if fits(box, image.shape, sizes[label]):
                    region = parts[box] == label
                    found.append((box, np.packbits(region), region.shape))  # there may be many
    rng.shuffle(found)
    candidates = []
    for box, bits, shape in found[:CANDIDATES]:
        region = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
        candidates.append((box, ndi.binary_fill_holes(region) if rng.random() < 0.5 else region))
    return choose(candidates, image, rng, noise)


def draw_box(shape, rng):
    size = [min(n, max(6, int(n * rng.uniform(0.2, 0.7)))) for n in shape]
    low = [rng.integers(0, n - s + 1) for n, s in zip(shape, size)]
    return tuple(slice(a, a + s) for a, s in zip(low, size))


def specks(image, zooms, rng, noise):
    out = np.zeros(image.shape, np.uint8)
    smooth = ndi.gaussian_filter(image, in_voxels(rng.choice([0.1, 0.7]), zooms))
    for _ in range(60):
        if out.max() == MOST // 3:
            break
        box = draw_box(image.shape, rng)
        part = smooth[box]
        sign = 1 if rng.random() < 0.7 else -1
        high = sign * (part - ndi.gaussian_filter(part, [n / 6 for n in part.shape]))
        parts, count = ndi.label(high > np.quantile(high, rng.uniform(0.9, 0.985)))
        if count == 0:
            continue
        sizes = np.bincount(parts.ravel())
        keep = (sizes >= rng.choice([6, 12, 25])) & (sizes <= 0.03 * part.size)
        keep[0] = False
        for axis in range(3):  # what the box cuts
            keep[np.unique([parts.take(0, axis), parts.take(-1, axis)])] = False
        kept = np.flatnonzero(keep)
        if kept.size < 2:
            continue
        if rng.random() < 0.3:
            kept = rng.permutation(kept)[: rng.integers(2, 40)]
        mask = np.isin(parts, kept) & (out[box] == 0)
        if mask.sum() < SMALLEST:
            continue
        inside, around = part[mask], part[ndi.binary_dilation(mask, iterations=2) & ~mask]
        if abs(inside.mean() - around.mean()) >= 1.2 * (noise + 0.5 * (inside.std() + around.std())):
            out[box][mask] = out.max() + 1
    return out


def prepare(image, zooms):
    """Values from 0 to 1, half of each its rank, a little smoothed; and what noise is left."""
    low, high = np.percentile(image[image > image.min()], [0.5, 99.5])
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    _, places, counts = np.unique(image, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - counts[0]
    image = (0.5 * image + 0.5 * (rank / max(rank[-1], 1))[places].reshape(image.shape)).astype(np.float32)
    image = ndi.gaussian_filter(image, in_voxels(0.7, zooms))
    return image, 0.01 + 1.4826 * float(np.median(np.abs(image - ndi.median_filter(image, 3))))


def main():
    pairs, folder = sys.argv[1:3]
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    os.makedirs(folder, exist_ok=True)
    with open(pairs) as lines, open(os.path.join(folder, 'list.tsv'), 'w') as listed:
        for scan in (line.rstrip('\n').split('\t')[0] for line in lines):
            name = os.path.basename(scan).split('.')[0]
            loaded = nib.load(scan)
            zooms = loaded.header.get_zooms()[:3]
            image, noise = prepare(np.asarray(loaded.dataobj).astype(np.float32), zooms)
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            for kind in (edges, levels, specks):
                out = kind(image, zooms, rng, noise)
                print(name, kind.__name__, int(out.max()), flush=True)
                if out.max() == 0:
                    continue
                path = os.path.join(folder, f'{name}-{kind.__name__}.nii.gz')
                labels = nib.Nifti1Image(out, loaded.affine, loaded.header)
                labels.set_data_dtype(np.uint8)
                nib.save(labels, path)
                listed.write(f'{scan}\t{path}\n')


if __name__ == '__main__':
    main()
