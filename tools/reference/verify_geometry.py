#!/usr/bin/env python3
"""verify_geometry.py SEGFM [--quick]: does the mask lie on the object, whatever way a scan is stored?

One object of known place in the world is written by nibabel in 48 orientations (all signed permutations of the axes, whose
sizes and spacings are all different) and six kinds of file; the results are read by nibabel. Checked, of `segment`, `session` and
`metrics`: the bytes of the header; the mask against the object in the world, computed from the affine that nibabel finds in
the *result*; that the mask is the same for all kinds; that prompts in millimetres are those in voxels. Then labels of more
than a byte: `session`, `predict`, `eval`, `metrics`. --quick: each orientation in one kind, each kind in eight of them.
Last line: N passed, N failed."""
import argparse
import csv
import gzip
import itertools
import json
import logging
import os
import subprocess
import sys
import tempfile

try:
    import nibabel
    import numpy as np
    from nibabel.orientations import apply_orientation
except ImportError as problem:
    print(f'numpy and nibabel are needed (apt-get install python3-nibabel): {problem}\n0 passed, 1 failed')
    sys.exit(1)

from checks import check, finish  # noqa: E402
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'scripts'))
from soak import Session  # noqa: E402

nibabel.imageglobals.logger.setLevel(logging.CRITICAL)

SHAPE, SPACING, CORNER = (34, 46, 27), (1.3, 0.9, 2.1), (-12.5, 31, -7)  # x, y, z; mm
CENTRE = np.array([8.03, 47.02, 21.07])  # of the object, mm
# Two ellipsoids that overlap: mirrored along any axis it is another object. Offset from CENTRE and radii, mm
PARTS = [((0, 0, 0), (11, 8, 12)), ((4, 4, 3), (10, 9, 14))]
ORIENTATIONS = [(permutation, flips) for permutation in itertools.permutations(range(3))
                for flips in itertools.product((1, -1), repeat=3)]
# nibabel's header, byte order, ending, scale of the affine's lengths to mm, its unit, further axes
KINDS = {
    'plain': (nibabel.Nifti1Image, '<', '.nii.gz', 1, 'mm', ()),
    'oblique': (nibabel.Nifti1Image, '<', '.nii', 1, 'mm', ()),
    'big-endian': (nibabel.Nifti1Image, '>', '.nii', 1, 'mm', ()),
    'singleton': (nibabel.Nifti1Image, '<', '.nii', 1, 'mm', (1,)),
    'NIfTI-2': (nibabel.Nifti2Image, '<', '.nii', 1000, 'micron', ()),
    'pair': (nibabel.Nifti1Pair, '<', '.hdr', 1, 'mm', ()),
}
DTYPES = [('int16', 1, 0), ('float32', 1, 0), ('uint16', 1, 0), ('int32', 0.5, -100), ('float64', 1, 0), ('int16', 2, 0)]
FORMS = ['sform', 'qform', 'both', 'different']
# What a result may have otherwise than its scan, and what it must have then.
CHANGED = {'bitpix': None, 'datatype': None, 'scl_slope': 1, 'scl_inter': 0, 'cal_max': 0, 'cal_min': 0, 'intent_p1': 0,
           'intent_p2': 0, 'intent_p3': 0, 'intent_code': 0, 'intent_name': b''}
DATATYPES = {'uint8': (2, 8), 'uint16': (512, 16), 'float32': (16, 32)}
LEAST_DSC = 0.96    # measured: 0.9774 to 0.9854
MOST_MOVED = 15    # voxels of 2,900; measured: 9
LEAST_GAP = 0.05    # by which the mask mirrored within its box must agree less with the object; measured: 0.0896
LABELS = [1, 255, 256, 300, 40000, 65535]


def is_object(world):
    """Which of these places (…, 3), in mm before any turning, are the object's."""
    inside = np.zeros(world.shape[:-1], bool)
    for offset, radii in PARTS:
        inside |= (((world - CENTRE - offset) / radii) ** 2).sum(-1) < 1
    return inside


def places(shape, affine):
    """Where the voxels lie, (…, 3)."""
    return np.stack(np.indices(shape), -1) @ affine[:3, :3].T + affine[:3, 3]


def dice(a, b):
    return 2 * (a & b).sum() / max(1, a.sum() + b.sum())


class Scene:
    """The scan as it is before it is turned: voxels, affine, truth."""

    def __init__(self):
        self.affine = np.diag([*SPACING, 1.0])
        self.affine[:3, 3] = CORNER
        self.truth = is_object(places(SHAPE, self.affine))
        half = np.array(SHAPE) / 2
        body = (((np.indices(SHAPE).T + 0.5 - half) / half) ** 2).sum(-1).T < 1.6
        noise = np.random.default_rng(1).normal(0, 35, SHAPE)
        self.voxels = np.where(body, np.where(self.truth, 700, 300) + noise, 0).astype(int)
        # Turned about all three axes, skewed, moved: what "oblique" does to the world.
        a, b, c = 0.3, -0.2, 0.5
        turn = np.eye(4)
        for angle, (i, j) in ((a, (1, 2)), (b, (0, 2)), (c, (0, 1))):
            step = np.eye(4)
            step[[i, j, i, j], [i, j, j, i]] = np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)
            turn = step @ turn
        skew = np.eye(4)
        skew[0, 1] = 0.1
        skew[:3, 3] = 15, -40, 22
        self.oblique = skew @ turn


def turned(scene, orientation):
    """Voxels and affine of the same world in another order of axes."""
    pairs = np.array(list(zip(*orientation)))
    image = nibabel.Nifti1Image(scene.voxels.astype(np.int16), scene.affine).as_reoriented(pairs)
    return np.asarray(image.dataobj).astype(int), image.affine, apply_orientation(scene.truth, pairs)


def write(folder, kind, turn, voxels, affine):
    """A scan of that kind, with a header in which nothing is left at its default."""
    image_class, endian, ending, scale, unit, more = KINDS[kind]
    dtype, slope, inter = DTYPES[turn % len(DTYPES)]
    endian = '<>'[turn % 2] if kind == 'NIfTI-2' else endian
    header = image_class.header_class(endianness=endian)
    header.set_data_dtype(dtype)
    header.set_data_shape(voxels.shape + more)
    affine = affine.copy()
    affine[:3] *= scale
    form = 'sform' if kind == 'oblique' else FORMS[turn % len(FORMS)]
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(0))
    header.set_zooms([*zooms, 2.5][:3 + len(more)])
    if form != 'sform':
        header.set_qform(affine, code=1 + turn % 4, strip_shears=False)
    if form == 'different' or kind == 'oblique':  # then the sform is the one that counts
        header.set_qform(np.diag([*zooms, 1]), code=1)
    if form != 'qform':
        header.set_sform(affine, code=1 + (turn + 1) % 4)
    header.set_xyzt_units(unit, 'sec')
    header['pixdim'][5:] = 7, 8, 9
    header['descrip'], header['aux_file'] = b'made for verify_geometry', b'aux'
    header['cal_max'], header['cal_min'], header['toffset'] = 800, -5, 1.5
    header.set_dim_info(1, 2, 0)
    header['slice_duration'], header['slice_code'], header['slice_start'], header['slice_end'] = 0.25, 3, 1, 9
    header.set_intent('t test', (9,), name='some score')
    header['scl_slope'], header['scl_inter'] = slope, inter
    path = os.path.join(folder, 'scan' + ending)
    stored = ((voxels - inter) / slope).astype(np.dtype(dtype).newbyteorder(endian))
    if slope == 2:  # half of the values would be lost
        header['scl_slope'], stored = 1, voxels.astype(stored.dtype)
    pair = ending == '.hdr'
    header['vox_offset'] = 0 if pair else header['sizeof_hdr'] + 4
    head, body = bytes(header.binaryblock) + bytes(4), stored.tobytes(order='F')
    if pair:
        with open(path.replace('.hdr', '.img'), 'wb') as file:
            file.write(body)
    with (gzip.open if ending.endswith('.gz') else open)(path, 'wb') as file:
        file.write(head if pair else head + body)
    return path


def bytes_of(path):
    with (gzip.open if path.endswith('.gz') else open)(path, 'rb') as file:
        return file.read()


def result_path(folder, name, scan):
    return os.path.join(folder, name + scan[scan.index('.', len(folder)):])


def check_header(scan, result, dtype, name):
    """All fields, and what stands behind them, as they are in the scan but those that say what the voxels are."""
    like, got = bytes_of(scan), bytes_of(result)
    image = nibabel.load(scan)
    fields = image.header.template_dtype.newbyteorder(image.header.endianness)
    a, b = (np.frombuffer(data[:fields.itemsize], fields)[0] for data in (like, got))
    for field in fields.names:
        if field not in CHANGED:
            check(a[field].tobytes() == b[field].tobytes(), f'{name}: {field} is {b[field]}, was {a[field]}')
        elif CHANGED[field] is not None:
            check(b[field] == CHANGED[field], f'{name}: {field} is {b[field]}')
    check((b['datatype'], b['bitpix']) == DATATYPES[dtype], f'{name}: datatype')
    check(got[fields.itemsize:][:4] == like[fields.itemsize:][:4], f'{name}: the flags of extensions')
    back = nibabel.load(result)
    check(back.shape == image.shape and np.array_equal(back.affine, image.affine), f'{name}: what nibabel says of it')
    return back


def segment(segfm, scan, mask, *options):
    done = subprocess.run([segfm, 'segment', '-i', scan, '-o', mask, '--quiet', *options], capture_output=True, text=True)
    check(done.returncode == 0 and done.stdout == done.stderr == '', f'segment {options}: {done.stderr.strip()}')


def commas(numbers):
    return ','.join(f'{n:.17g}' for n in np.ravel(numbers))


class Runs:
    def __init__(self, segfm, folder, session):
        self.segfm, self.folder, self.session = segfm, folder, session
        self.scene = Scene()
        self.least, self.most, self.gap, self.turn = 1, 0, 1, 0

    def ask(self, line):
        answer = self.session.ask(line)
        check(answer['ok'], f'{line}: {answer.get("error")}')
        return answer

    def place(self, back, kind, truth, name):
        """The mask against the object in the world; how the result says where its voxels are, nibabel tells."""
        mask = np.squeeze(np.asarray(back.dataobj)) > 0
        world = places(mask.shape, back.affine) / KINDS[kind][3]
        if kind == 'oblique':
            undo = np.linalg.inv(self.scene.oblique)
            world = world @ undo[:3, :3].T + undo[:3, 3]
        there = is_object(world)
        moved = (there != truth).sum()  # a NIfTI-1 qform of half a turn is off by some hundredths of a mm, in nibabel too
        if not check(there.sum() > 2500 and moved <= MOST_MOVED, f'{name}: the object is {moved} voxels off where it was put'):
            return mask
        score = dice(mask, there)
        box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(there))
        part = mask[box], there[box]
        wrong = max(dice(np.flip(part[0], axes), part[1]) for n in (1, 2, 3) for axes in itertools.combinations(range(3), n))
        check(score >= LEAST_DSC, f'{name}: DSC {score:.4f} in the world')
        check(dice(*part) >= wrong + LEAST_GAP, f'{name}: mirrored it would be {wrong:.4f}')
        self.least, self.most, self.gap = min(self.least, score), max(self.most, score), min(self.gap, dice(*part) - wrong)
        return mask

    def one(self, orientation, kind, thorough):
        """One file. → its mask's voxels"""
        self.turn += 1
        voxels, affine, truth = turned(self.scene, orientation)
        where = self.scene.oblique @ affine if kind == 'oblique' else affine
        scan = write(self.folder, kind, self.turn, voxels, where)
        name = f'{"".join(nibabel.aff2axcodes(affine))} {kind}'
        corners = np.array([(i.min(), i.max()) for i in np.nonzero(truth)]).T
        mask = result_path(self.folder, 'mask', scan)
        segment(self.segfm, scan, mask, '--box', commas(corners))
        inside = self.place(check_header(scan, mask, 'uint8', name), kind, truth, name)

        # The same by a session, in millimetres; then a click says that the object's centre is none.
        mm = corners @ where[:3, :3].T + where[:3, 3]
        centre = np.rint(np.linalg.inv(affine)[:3] @ [*CENTRE, 1]).astype(int)
        again, clicked = (result_path(self.folder, of, scan) for of in ('again', 'clicked'))
        self.ask(f'open {scan}')
        self.ask(f'box --world {commas(mm[::-1] if self.turn % 2 else mm)}')
        self.ask(f'mask {again}')
        check(bytes_of(again) == bytes_of(mask), f'{name}: a box in mm is the box in voxels')
        if kind == 'pair':
            check(bytes_of(again.replace('.hdr', '.img')) == bytes_of(mask.replace('.hdr', '.img')), f'{name}: also the .img')
        at = where[:3, :3] @ centre + where[:3, 3] + np.array([0.2, -0.2, 0.2])  # not quite the voxel's middle
        self.ask(f'click --world {commas(at)},-')
        self.ask(f'mask {clicked}')
        after = np.squeeze(np.asarray(check_header(scan, clicked, 'uint8', name).dataobj)) > 0
        check(inside[tuple(centre)] and not after[tuple(centre)], f'{name}: the clicked voxel')
        if thorough:
            logits, twin = (result_path(self.folder, of, scan) for of in ('logits', 'twin'))
            segment(self.segfm, scan, twin, '--box', commas(corners), '--click', commas(centre) + ',-', '--logits', logits)
            check(np.array_equal(np.squeeze(np.asarray(nibabel.load(twin).dataobj)) > 0, after), f'{name}: a click in mm')
            values = np.squeeze(np.asarray(check_header(scan, logits, 'float32', name).dataobj))
            check(np.array_equal(values > 0, after), f'{name}: the logits lie where the mask does')
        return inside

    def orientations(self, quick):
        names = list(KINDS)
        for i, orientation in enumerate(ORIENTATIONS):
            first = i % 8 + i // 8  # every kind meets every permutation and every pair of flips
            kinds = [names[(first + k) % len(names)] for k in range(1 if quick and i % 24 != 5 else len(names))]
            masks = [self.one(orientation, kind, k == 0 and (i % 5 == 0 or not quick)) for k, kind in enumerate(kinds)]
            for kind, mask in zip(kinds[1:], masks[1:]):
                check(np.array_equal(mask, masks[0]), f'{orientation} {kind}: the voxels are those of {kinds[0]}')
        print(f'{self.turn} scans: DSC in the world {self.least:.4f} to {self.most:.4f}; mirrored within its box at least '
              f'{self.gap:.4f} less')

    def metrics(self):
        """Distances in millimetres are those of the world: the same numbers in all orientations."""
        labels = {'gt': self.scene.truth, 'pred': np.roll(self.scene.truth, (1, -2, 1), (0, 1, 2))}
        labels['pred'][:, :, 18:] &= labels['gt'][:, :, 18:]
        paths, said = [os.path.join(self.folder, f'{name}.nii') for name in labels], []
        for orientation in ORIENTATIONS:
            for path, truth in zip(paths, labels.values()):
                image = nibabel.Nifti1Image(truth.astype(np.uint8), self.scene.affine)
                nibabel.save(image.as_reoriented(np.array(list(zip(*orientation)))), path)
            command = [self.segfm, 'metrics', '--gt', paths[0], '--pred', paths[1], '--json']
            report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            said.append([report['classes'][0][k] for k in ('DSC', 'NSD', 'HD95', 'ASD', 'ASD_gt', 'ASD_pred')])
            check(0 < said[0][3] < 5 and np.allclose(said[-1], said[0], rtol=0, atol=1.5e-9),
                  f'metrics in {orientation}: {said[-1]}, {said[0]}')
        print(f'metrics in 48 orientations: {np.ptp(np.array(said), 0).max():.3g} apart')


# ---- labels that a byte does not hold ------------------------------------------------------------------------------

def stored_labels(path, dtype):
    values = np.asarray(nibabel.load(path).dataobj)
    check(values.dtype.newbyteorder('=') == dtype, f'{path}: {values.dtype}, need {dtype}')
    return values


def check_session_labels(runs):
    """Objects 1 to 300, of which some have a click; where their masks overlap the later one has the voxel."""
    voxels, affine, _ = turned(runs.scene, ORIENTATIONS[19])
    scan = write(runs.folder, 'big-endian', 2, voxels, affine)
    runs.ask(f'open {scan}')
    path, want = os.path.join(runs.folder, 'labels.nii'), np.zeros(voxels.shape, np.uint16)
    clicked = 1, 2, 255, 256, 257, 300
    for label in range(1, 301):
        if label in clicked:
            at = np.unravel_index(1000 + 37 * label, voxels.shape)
            runs.ask(f'click {commas(at)},+')
            runs.ask(f'mask {path}')
            mask = np.asarray(nibabel.load(path).dataobj) != 0
            check(mask[at], f'session: the mask of object {label} at its click')
            want[mask] = label
        if label < 300:
            runs.ask('next')
    check(runs.ask('status')['object'] == 300, 'session: 300 objects')
    runs.ask(f'labels {path}')
    check_header(scan, path, 'uint16', 'labels')
    values = stored_labels(path, np.uint16)
    for label in (0, *clicked):
        check(np.array_equal(values == label, want == label), f'session: label {label} is not where its object was')
    check(np.isin(values, (0, *clicked)).all() and (values > 255).any(), f'session: labels {np.unique(values)}')


def blocks(labels):
    """A dark scan with a bright ball for each label: voxels, label map; (z, y, x)."""
    shape = (21, 34, 30 * ((len(labels) + 1) // 2))
    truth = np.zeros(shape, int)
    grid = np.indices(shape)
    for i, label in enumerate(labels):
        centre = np.array([10, 9 + 16 * (i % 2), 14 + 30 * (i // 2)]).reshape(3, 1, 1, 1)
        truth[(((grid - centre) / np.array([6, 6, 9]).reshape(3, 1, 1, 1)) ** 2).sum(0) < 1] = label
    noise = np.random.default_rng(2).normal(0, 6, shape)
    return np.clip(np.where(truth > 0, 190, 60) + noise, 0, 255).astype(np.uint8), truth


def objects(items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


def boxed(truth, labels, count):
    """`boxes` of a challenge file of `count` classes, of which these have one."""
    items = [None] * count
    for label in labels:
        low, high = zip(*((int(i.min()), int(i.max())) for i in np.nonzero(truth == label)))
        items[label - 1] = dict(zip(('z_min', 'z_mid_y_min', 'z_mid_x_min'), low), z_mid=int(low[0] + high[0]) // 2)
        items[label - 1].update(zip(('z_max', 'z_mid_y_max', 'z_mid_x_max'), high))
    return objects(items)


def segs_of(path):
    with np.load(path) as file:
        return file['segs']


def check_predict_labels(runs):
    ins, outs = (os.path.join(runs.folder, name) for name in ('in', 'out'))
    os.mkdir(ins)
    spacing = np.array([1.5, 0.8, 2])
    cases = {255: [1, 254, 255], 256: [1, 255, 256], 300: [1, 256, 300], 65535: LABELS}
    truths = {}
    for count, labels in cases.items():
        scan, truths[count] = blocks(labels)
        np.savez(f'{ins}/{count}.npz', imgs=scan, spacing=spacing, boxes=boxed(truths[count], labels, count))
    # Classes that this step asks nothing of keep what the one before found.
    scan, truth = blocks(LABELS)
    kept = np.where(np.isin(truth, (1, 300, 65535)), truth, 0)
    for dtype in ('uint16', 'int32', 'int64', 'float64'):
        np.savez(f'{ins}/kept-{dtype}.npz', imgs=scan, spacing=spacing, boxes=boxed(truth, (255, 256, 40000), 65535),
                 prev_pred=kept.astype(dtype))
    np.savez(f'{ins}/wrap.npz', imgs=scan, boxes=boxed(truth, LABELS, 65536))
    done = subprocess.run([runs.segfm, 'predict', ins, outs, '--quiet'], capture_output=True, text=True)
    check(done.returncode == 3 and done.stderr.count('\n') == 1 and 'wrap.npz: array boxes: got 65536 classes, at most 65535 fit' in
          done.stderr and not os.path.exists(f'{outs}/wrap.npz'), f'predict: 65,536 classes: {done.stderr}')
    for count, labels in cases.items():
        segs = segs_of(f'{outs}/{count}.npz')
        check(segs.dtype == (np.uint8 if count < 256 else np.uint16), f'predict: {count} classes are {segs.dtype}')
        check(set(np.unique(segs)) == {0, *labels}, f'predict: {count} classes: {np.unique(segs)}')
        for label in labels:
            score = dice(segs == label, truths[count] == label)
            check(score > 0.8, f'predict: label {label} of {count}: DSC {score:.3f}')
    whole = segs_of(f'{outs}/65535.npz')
    for dtype in ('uint16', 'int32', 'int64', 'float64'):
        segs = segs_of(f'{outs}/kept-{dtype}.npz')
        check(segs.dtype == np.uint16 and set(np.unique(segs)) == {0, *LABELS}, f'predict: prev_pred {dtype}: {np.unique(segs)}')
        for label in (255, 256, 40000):
            check(dice(segs == label, whole == label) > 0.99, f'predict: label {label} beside prev_pred')


def table(path):
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def check_eval_labels(runs, quick):
    scan, truth = blocks(LABELS)
    affine = np.diag([0.8, 1.5, 2, 1])
    image = os.path.join(runs.folder, 'image.nii')
    nibabel.save(nibabel.Nifti1Image(scan.T, affine), image)
    kinds = [(d, e, i) for d in ('uint16', 'int32', 'uint32', 'int64', 'uint64', 'float32', 'float64')
             for e, i in (('<', nibabel.Nifti1Image), ('>', nibabel.Nifti2Image))][::3 if quick else 1]
    lines = []
    for n, (dtype, endian, image_class) in enumerate(kinds):
        header = image_class.header_class(endianness=endian)
        header.set_data_dtype(dtype)
        nibabel.save(image_class(truth.T.astype(dtype), affine, header), f'{runs.folder}/truth{n}.nii.gz')
        os.link(image, f'{runs.folder}/image{n}.nii')
        lines.append(f'image{n}.nii\ttruth{n}.nii.gz\n')
    with open(f'{runs.folder}/pairs.tsv', 'w', encoding='ascii') as file:
        file.writelines(lines)
    command = [runs.segfm, 'eval', '--pairs', f'{runs.folder}/pairs.tsv', '--clicks', '1', '--csv', f'{runs.folder}/eval.csv',
               '--save', f'{runs.folder}/saved', '--quiet']
    done = subprocess.run(command, capture_output=True, text=True)
    check(done.returncode == 0 and f'cases {len(kinds)} classes {len(kinds) * len(LABELS)}' in done.stdout, f'eval: {done.stderr}')
    rows = table(f'{runs.folder}/eval.csv')
    for n, kind in enumerate(kinds):
        mine = rows[n * len(LABELS):(n + 1) * len(LABELS)]
        check([int(r['class']) for r in mine] == LABELS and all(float(r['DSC_1']) > 0.8 for r in mine), f'eval: {kind}: {mine}')
        check([int(r['voxels']) for r in mine] == [(truth == label).sum() for label in LABELS], f'eval: {kind}: voxels')
        values = stored_labels(f'{runs.folder}/saved/image{n}.nii.gz', np.uint16)
        check(set(np.unique(values)) == {0, *LABELS}, f'eval: {kind} saved {np.unique(values)}')
        report = json.loads(subprocess.run([runs.segfm, 'metrics', '--gt', f'{runs.folder}/truth{n}.nii.gz', '--pred',
                                            f'{runs.folder}/saved/image{n}.nii.gz', '--json'], capture_output=True, text=True).stdout)
        check([c['label'] for c in report['classes']] == LABELS, f'metrics: {kind}')
        for c, row in zip(report['classes'], mine):
            want = dice(values == c['label'], truth.T == c['label'])
            check(abs(c['DSC'] - want) < 1e-6, f'metrics: {kind}: label {c["label"]}: {c["DSC"]}, {want}')
    for label in (65536, 65537, 65536 + 300, 2 ** 32 + 1, -1):
        dtype = 'int64'
        wrong = np.where(truth == 300, label, truth).astype(dtype)
        nibabel.save(nibabel.Nifti1Image(wrong.T, affine, dtype=dtype), f'{runs.folder}/wrong.nii')
        np.savez(f'{runs.folder}/wrong.npz', gts=wrong)
        for path in (f'{runs.folder}/wrong.nii', f'{runs.folder}/wrong.npz'):
            done = subprocess.run([runs.segfm, 'metrics', '--gt', path, '--pred', f'{runs.folder}/truth0.nii.gz'],
                                  capture_output=True, text=True)
            check(done.returncode == 3 and str(label) in done.stderr and '65535' in done.stderr and done.stdout == '',
                  f'metrics: label {label}: {done.stderr}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('segfm')
    parser.add_argument('--quick', action='store_true')
    arguments = parser.parse_args()
    os.environ['OMP_WAIT_POLICY'] = 'passive'
    os.environ.pop('SEGFM_WEIGHTS', None)
    with tempfile.TemporaryDirectory() as folder:
        session = Session([arguments.segfm], folder, weights=())
        runs = Runs(arguments.segfm, folder, session)
        runs.orientations(arguments.quick)
        runs.metrics()
        check_session_labels(runs)
        check_predict_labels(runs)
        check_eval_labels(runs, arguments.quick)
        check(session.end() == 0, 'the session ends well')
    sys.exit(finish())


if __name__ == '__main__':
    main()
