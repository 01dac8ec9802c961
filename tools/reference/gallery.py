#!/usr/bin/env python3
"""Draws docs/phantoms.png: slices of what `segfm phantom` makes, with the outlines of the labels.

usage: gallery.py FOLDER PICTURE [ROWS COLUMNS]     FOLDER: of `segfm phantom --out FOLDER --count 24`
"""
import gzip
import pathlib
import sys

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

TYPES = {2: "u1", 512: "<u2", 16: "<f4"}


def read(path):
    """Voxels (z, y, x) and spacing (z, y, x) of one of our own files."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, "<i2", 3, 42)[::-1]
    kind = TYPES[int(np.frombuffer(data, "<i2", 1, 70)[0])]
    spacing = np.frombuffer(data, "<f4", 3, 80)[::-1]
    return np.frombuffer(data, kind, int(np.prod(shape)), 352).reshape(shape), spacing


def draw(axes, image, label, spacing):
    z = int(np.argmax([len(np.unique(s)) * 1e6 + (s > 0).sum() for s in label]))
    low, high = np.percentile(image[z], [0.5, 99.5])
    axes.imshow(image[z], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=spacing[1] / spacing[2])
    for i, number in enumerate(np.unique(label[z])):
        if number > 0:
            axes.contour(label[z] == number, [0.5], linewidths=0.9, colors=[plt.cm.Set1((i - 1) % 8)], antialiased=False)
    axes.axis("off")


def palette():
    """Greys and the outlines' colours: 64 of them make a third of the bytes of all."""
    colours = [(g, g, g) for g in np.linspace(0, 255, 56).astype(int)]
    colours += [tuple(int(255 * c) for c in plt.cm.Set1(i)[:3]) for i in range(8)]
    image = Image.new("P", (1, 1))
    image.putpalette([int(c) for colour in colours for c in colour])
    return image


def main():
    folder, picture = pathlib.Path(sys.argv[1]), sys.argv[2]
    rows, columns = map(int, sys.argv[3:5]) if len(sys.argv) > 3 else (4, 6)
    pairs = [line.split("\t") for line in (folder / "list.tsv").read_text().splitlines()][: rows * columns]
    figure, grid = plt.subplots(rows, columns, figsize=(2 * columns, 2 * rows), dpi=85)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (image, label) in zip(grid.flat, pairs):
        voxels, spacing = read(folder / image)
        draw(axes, voxels, read(folder / label)[0], spacing)
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    figure.canvas.draw()
    pixels = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    pixels.quantize(palette=palette(), dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main()
