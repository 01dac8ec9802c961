"""What labelled objects look like, list against list: are phantoms like real anatomy?

    shapes.py LIST.tsv [LIST.tsv ...] [--classes 6] [--min-voxels 100]

Lists as `segfm eval --pairs` takes them. Of each scan at most so many classes, spread evenly over its labels. Needs nibabel and scipy.
Per list and property a line with percentiles 5 10 25 50 75 90 over the objects:

bound      DSC of the object's part inside of the box that the challenge's rule gives it: what no mask within the box can pass
fill       share of that box which the object fills (an ellipsoid: 0.52)
thick      share of the object that is left when a voxel is taken off all around
parts      connected components (faces) of more than a twentieth of it
contrast   |mean − mean of what is two and three voxels outside| over the deviation there
voxels     how many
"""
import argparse

import nibabel
import numpy as np
from scipy import ndimage

import official
import pipeline
import rivals

PERCENTILES = (5, 10, 25, 50, 75, 90)
AROUND = 4  # voxels around the object that are looked at


def shape_of(image, truth):
    """image, truth (bool) as (z, y, x), truth not empty → {property: value}"""
    box = pipeline.challenge_box(official.box_of(truth))
    where = np.nonzero(truth)
    part = tuple(slice(max(0, min(w.min(), a) - AROUND), max(w.max(), b) + AROUND + 1) for w, a, b in zip(where, box[:3], box[3:]))
    inside = np.zeros(truth.shape, bool)
    inside[tuple(slice(a, b + 1) for a, b in zip(box[:3], box[3:]))] = True
    image, truth, inside = image[part], truth[part], inside[part]
    found, voxels = np.count_nonzero(truth & inside), np.count_nonzero(truth)
    sizes = np.bincount(ndimage.label(truth)[0].ravel())[1:]
    beside = ndimage.binary_dilation(truth, iterations=3) & ~ndimage.binary_dilation(truth)
    contrast = abs(image[truth].mean() - image[beside].mean()) / max(image[beside].std(), 1e-6) if beside.any() else 0
    return {'bound': 2 * found / (found + voxels), 'fill': found / np.count_nonzero(inside),
            'thick': np.count_nonzero(ndimage.binary_erosion(truth)) / voxels, 'parts': np.count_nonzero(sizes > voxels / 20),
            'contrast': contrast, 'voxels': voxels}


def shapes_of(path, classes, least):
    found = []
    for pair in rivals.read_pairs(path):
        image, truth = (np.asarray(nibabel.load(p).dataobj).T for p in pair)
        labels = [v for v, n in zip(*np.unique(truth, return_counts=True)) if v > 0 and n >= least]
        chosen = [labels[i * len(labels) // min(classes, len(labels))] for i in range(min(classes, len(labels)))]
        found += [shape_of(image.astype(np.float32), truth == v) for v in chosen]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('lists', nargs='+')
    parser.add_argument('--classes', type=int, default=6)
    parser.add_argument('--min-voxels', type=int, default=100)
    options = parser.parse_args()
    for path in options.lists:
        found = shapes_of(path, options.classes, options.min_voxels)
        print(f'{path}: {len(found)} objects')
        for name in found[0] if found else ():
            print(f'{name:9}', *[f'{v:.2f}' for v in np.percentile([f[name] for f in found], PERCENTILES)])


if __name__ == '__main__':
    main()
