"""folds.py, rivals.py, shapes.py and by_kind.py on made data of which the answers are known.

    verify_rivals.py        needs nibabel, scipy and scikit-image

Folds: of a made index every subject is in exactly one fold's unseen list, seen and unseen are all pairs, whole anatomies are
unseen. Rivals: on scans of ellipsoids and blocks the scores are those that can be counted. Last line: N passed, N failed."""
import collections
import contextlib
import csv
import io
import os
import sys
import tempfile

import nibabel
import numpy as np

import by_kind
import folds
import rivals
import shapes
from checks import check, finish


def run(module, *arguments):
    """Its main: what it printed, and what it ended with (None: well)."""
    sys.argv, out, said = [module.__name__, *map(str, arguments)], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        try:
            module.main()
        except SystemExit as end:
            return out.getvalue(), end.code
    return out.getvalue(), None


# ---- folds -----------------------------------------------------------------------------------------------------------

# Anatomy, what an index calls it in the column structures (its source is the other column), pairs
ANATOMIES = [('hippocampus', 'Hippocampus, head and body', 9), ('prostate', 'central gland of the prostate', 7),
             ('neck organs, spinal cord', 'mandible; spinal cord', 4), ('neck organs, spinal cord', 'cord grey matter', 3),
             ('vertebra', 'L1 vertebra', 5), ('body organs', '', 6), ('cells', 'nuclei', 2)]


def write_index(path, rows):
    with open(path, 'w', newline='', encoding='utf-8') as file:
        table = csv.DictWriter(file, ['file', 'label_file', 'subject', 'structures', 'source'], delimiter='\t')
        table.writeheader()
        table.writerows(rows)
    return path


def made_rows():
    """Some subjects have two pairs, which do not follow each other."""
    rows = []
    for a, (_, structures, pairs) in enumerate(ANATOMIES):
        for i in range(pairs):
            subject = f'{a}-{i % max(1, pairs - 2)}'
            rows.append({'file': f'images/{i}-{a}.nii', 'label_file': f'labels/{i}-{a}.nii', 'subject': subject,
                         'structures': structures, 'source': 'TotalSegmentator' if not structures else 'somewhere'})
    return rows[::2] + rows[1::2]


def check_folds(folder):
    rows, index = made_rows(), os.path.join(folder, 'INDEX.tsv')
    write_index(index, rows)
    pair = {f"{os.path.join(folder, row['file'])}\t{os.path.join(folder, row['label_file'])}": row for row in rows}
    anatomy = {structures: name for name, structures, _ in ANATOMIES}
    for number, option in ((5, ()), (3, ('--anatomy',))):
        title, unseen_of, anatomies_of, subjects = f'folds {number} {option}', {}, {}, []
        for fold in range(number):
            said, end = run(folds, index, fold, os.path.join(folder, 'lists'), '--folds', number, *option)
            check(end is None, f'{title}: ends with {end}')
            seen, unseen = [], []
            for name, lines in (('seen', seen), ('unseen', unseen)):
                with open(os.path.join(folder, 'lists', name + '.tsv'), encoding='utf-8') as file:
                    lines += file.read().splitlines()
            check(sorted(seen + unseen) == sorted(pair), f'{title}: seen and unseen of fold {fold} are all pairs, once each')
            check(seen and unseen, f'{title}: fold {fold} has both')
            for line in unseen:
                unseen_of.setdefault(pair[line]['subject'], set()).add(fold)
                anatomies_of.setdefault(anatomy[pair[line]['structures']], set()).add(fold)
            subjects.append({pair[line]['subject'] for line in unseen})
            check(not subjects[-1] & {pair[line]['subject'] for line in seen}, f'{title}: a subject of fold {fold} is seen and unseen')
            counted = collections.Counter(anatomy[pair[line]['structures']] for line in unseen)
            check(not option or said.strip() == ', '.join(f'{name} {n}' for name, n in counted.items()), f'{title}: it says {said}')
        check(set(unseen_of) == {row['subject'] for row in rows} and all(len(f) == 1 for f in unseen_of.values()),
              f'{title}: subjects and their unseen lists: {unseen_of}')
        if option:  # 9, 7 7, 6, 5, 2 pairs: the first fold that has the fewest takes the next
            want = {'hippocampus': {0}, 'prostate': {1}, 'neck organs, spinal cord': {2}, 'body organs': {1}, 'vertebra': {2}, 'cells': {0}}
            check(anatomies_of == want, f'{title}: {anatomies_of}')
        else:
            sizes = [len(s) for s in subjects]
            check(max(sizes) - min(sizes) <= 1, f'{title}: {sizes} subjects')
    lists, unknown = os.path.join(folder, 'lists'), dict(rows[3], structures='elbow', source='somewhere')
    check(rows[3]['file'] in str(run(folds, write_index(index, [unknown]), 0, lists, '--anatomy')[1]), 'folds: an unknown anatomy')
    two = [rows[0], dict(rows[1], structures='Prostate', subject=rows[0]['subject'])]
    check('need one anatomy' in str(run(folds, write_index(index, two), 0, lists, '--anatomy')[1]), 'folds: a subject of two anatomies')
    check(run(folds, index, 5, lists)[1] == 2, 'folds: fold 5 of 5')


# ---- rivals ----------------------------------------------------------------------------------------------------------

SPACING = (1.25, 0.875, 1.125)  # z, y, x; mm, which NIfTI holds exactly


def inside(shape, centre, extents):
    """Voxels of the ellipsoid in a box of that many voxels, an odd number along each axis, around a voxel: whole numbers."""
    squares = [(2 * (g - c)) ** 2 for g, c in zip(np.indices(shape), centre)]
    a, b, c = (n * n for n in extents)
    return squares[0] * b * c + squares[1] * a * c + squares[2] * a * b <= a * b * c


def distances(shape, at):
    """Of each voxel to that one, mm."""
    return np.sqrt(sum(((g - c) * s) ** 2 for g, c, s in zip(np.indices(shape), at, SPACING)))


def share(a, b, both):
    return 2 * both / (a + b)


class Scan:
    def __init__(self, folder, name, shape):
        self.paths = [f'{name}.nii', f'{name}-label.nii.gz']
        self.folder, self.image, self.truth = folder, np.full(shape, 60, np.int16), np.zeros(shape, np.uint16)

    def add(self, label, mask, brightness):
        self.truth[mask], self.image[mask] = label, brightness
        return int(mask.sum())

    def save(self):
        affine = np.diag([*SPACING[::-1], 1])
        for path, voxels in zip(self.paths, (self.image, self.truth)):
            nibabel.save(nibabel.Nifti1Image(voxels.T, affine), os.path.join(self.folder, path))
        return '\t'.join(self.paths) + '\n'


def block(shape, lo, hi):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b + 1) for a, b in zip(lo, hi))] = True
    return mask


def check_rivals(folder):
    # An ellipsoid without a ball that reaches from a voxel in it just to its border: one click there makes the mask right. A
    # block of which only half is bright; things that are small, and too small; something bright beside all of them.
    first, at = Scan(folder, 'first', (27, 35, 84)), (11, 16, 25)
    shape = first.truth.shape
    whole = inside(shape, (12, 17, 22), (17, 29, 39))
    hole = distances(shape, at) < distances(shape, at)[~whole].min()
    pierced = first.add(300, whole & ~hole, 200)
    bricks = first.add(2, block(shape, (3, 5, 50), (10, 14, 69)), 200)
    first.image[7:11, 5:15, 50:70] = 60
    first.add(7, block(shape, (20, 30, 80), (20, 30, 83)), 200)  # so small that seeds are everywhere
    first.add(8, block(shape, (24, 30, 80), (24, 30, 81)), 200)
    first.image[:, 33:, 60:] = 250
    # A dark ellipsoid and a dark block on bright ground; the one is longer than the walker's window has voxels.
    second = Scan(folder, 'second', (25, 38, 78))
    shape = second.truth.shape
    second.image[:] = 400
    second.add(1, inside(shape, (9, 14, 24), (11, 21, 41)), 100)
    second.add(2, block(shape, (5, 8, 54), (16, 29, 69)), 100)
    with open(os.path.join(folder, 'list.tsv'), 'w', encoding='utf-8') as file:
        file.writelines(['image\tlabel\n', first.save(), '# a remark\n', second.save()])

    def ellipsoid_of(extents):  # inscribed in a block of an even number of voxels along each axis
        grids = np.meshgrid(*[np.arange(n) * 2 - n + 1 for n in extents], indexing='ij')
        return int((sum((g / n) ** 2 for g, n in zip(grids, extents)) <= 1).sum())

    out, end = run(rivals, os.path.join(folder, 'list.tsv'), '--clicks', 2, '--min-voxels', 4, '--csv', os.path.join(folder, 'out.csv'))
    check(end is None, f'rivals: ends with {end}')
    with open(os.path.join(folder, 'out.csv'), encoding='utf-8') as file:
        got = {(os.path.basename(r['case']), int(r['class']), r['rival']): [float(r[f'DSC_{k}']) for k in range(3)] for r in csv.DictReader(file)}
    classes = [('first.nii', 2), ('first.nii', 300), ('second.nii', 1), ('second.nii', 2), ('first.nii', 7)]
    check(set(got) == {(*c, rival) for c in classes for rival in rivals.RIVALS}, f'rivals: {sorted(got)}')
    small, large = ellipsoid_of((8, 10, 20)), ellipsoid_of((12, 22, 16))
    want = {
        ('first.nii', 300, 'ellipsoid'): [share(whole.sum(), pierced, pierced), 1, 1],
        ('first.nii', 2, 'ellipsoid'): [share(small, bricks, small)],
        ('second.nii', 1, 'ellipsoid'): [1, 1, 1],
        ('second.nii', 2, 'ellipsoid'): [share(large, 12 * 22 * 16, large)],
        ('first.nii', 300, 'otsu'): [1, 1, 1],
        ('first.nii', 2, 'otsu'): [share(bricks / 2, bricks, bricks / 2)],
        ('second.nii', 1, 'otsu'): [1, 1, 1],
        ('second.nii', 2, 'otsu'): [1, 1, 1],
    }
    for key, values in want.items():
        check(np.allclose(got.get(key, [0])[:len(values)], values, rtol=0, atol=1e-12), f'rivals: {key}: {got.get(key)}, need {values}')
    for key, values in got.items():
        check(all(0 < v <= 1 for v in values), f'rivals: {key}: {values}')
        check(key[2] != 'ellipsoid' or values[1] >= values[0], f'rivals: {key}: a click made it worse: {values}')
    # The walker follows what is bright or dark, not the box's ellipsoid, and learns of the hole by a click.
    for key, step, least in ((classes[1], 1, 0.88), (classes[2], 0, 0.98), (classes[3], 0, 0.98)):  # measured: 0.901, 0.991, 1
        values = got.get((*key, 'walker'), [0] * 3)
        check(values[step] >= least and values[2] >= values[0], f'rivals: walker: {key}: {values}, need {least}')
    values = got.get((*classes[1], 'walker'), [0] * 3)
    check(values[1] >= values[0] + 0.04, f'rivals: walker: the hole: {values}')  # measured: 0.064
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    check(lines.get('cases') == ['2', 'classes', '5'], f'rivals: {out}')
    for rival in rivals.RIVALS:
        means = np.mean([np.mean([got.get((*c, rival), [0] * 3) for c in classes if c[0] == case], axis=0)
                         for case in ('first.nii', 'second.nii')], axis=0)
        said = [float(v) for v in lines.get(rival, ['DSC', 'nan'])[1:]]
        check(np.allclose(said, means, rtol=0, atol=2e-9), f'rivals: {rival}: {said}, need {means}')


# ---- shapes -----------------------------------------------------------------------------------------------------------

def check_shapes():
    """A block of 6×8×10, bright in a striped scan, of which the upper half is shifted by 4: the box of its middle slice shows 6 of 10 columns
    of the other half. Then with a small piece beside it."""
    image, truth = np.zeros((20, 30, 40)), np.zeros((20, 30, 40), bool)
    image[:, :, ::2] = 2
    truth[5:8, 6:14, 11:21] = truth[8:11, 6:14, 15:25] = True
    image[truth] = 11
    found = shapes.shape_of(image, truth)
    want = {'bound': 2 * 384 / (384 + 480), 'fill': 384 / 480, 'thick': (2 * 6 * 8 + 2 * 6 * 5) / 480, 'parts': 1, 'contrast': 10,
            'voxels': 480}
    for name, value in want.items():
        slack = 0.2 if name == 'contrast' else 1e-12  # the columns beside it are not quite half and half
        check(abs(found[name] - value) <= slack, f'shapes: {name}: {found[name]}, need {value}')
    truth[2:4, 20:24, 2:6] = True
    check(shapes.shape_of(image, truth)['parts'] == 2, 'shapes: a second part')
    truth[2:4, 20:24, 2:6] = False
    truth[2, 20:23, 2:5] = True
    check(shapes.shape_of(image, truth)['parts'] == 1, 'shapes: a speck')


# ---- scores by kind of scan --------------------------------------------------------------------------------------------

def check_by_kind(folder):
    index, scores = os.path.join(folder, 'kinds.tsv'), os.path.join(folder, 'scores.csv')
    with open(index, 'w', encoding='utf-8') as file:
        file.write('file\tmodality\nin/a.nii\tCT (thick)\nin/b.nii\t(MR), T1\nin/c.nii\tCT\n')
    with open(scores, 'w', encoding='utf-8') as file:
        file.write('case,class,DSC_0,NSD_0,DSC_1\nx/a.nii,1,0.2,9,0.4\nx/a.nii,2,0.4,9,0.4\nx/b.nii,1,0.5,9,0.75\nx/c.nii,7,0.9,9,1\n')
    out, end = run(by_kind, scores, index)
    want = 'CT (2) 0.600 0.700\nMR (1) 0.500 0.750\na.nii 0.300 0.400\nb.nii 0.500 0.750\nc.nii 0.900 1.000\n'
    check(end is None and out == want, f'by_kind: {out}')
    check('no column HD95_0' in str(run(by_kind, scores, index, '--score', 'HD95')[1]), 'by_kind: a score that is not there')
    with open(index, 'w', encoding='utf-8') as file:
        file.write('file\tmodality\nin/a.nii\tCT\n')
    check('b.nii: not in the index' in str(run(by_kind, scores, index)[1]), 'by_kind: a scan that is not there')


def main():
    check_shapes()
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.realpath(folder)
        check_folds(folder)
        check_by_kind(folder)
        check_rivals(folder)
    return finish()


if __name__ == '__main__':
    sys.exit(main())
