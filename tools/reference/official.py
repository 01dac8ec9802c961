"""The challenge's evaluation in numpy and scipy, in our own words, and `segfm eval` against it.

    official.py SEGFM [--data DIR]     DIR: a folder with INDEX.tsv and real pairs (default ../shared/data, where it is)

The official script knows the container alone: it writes a case's file (boxes, the clicks so far, their order, the label map
of the step before), has it segmented, measures, puts a click in the middle of each class's largest error, and so on, five
times. Here the container is `segfm predict`, which starts from nothing at every step, while `segfm eval` goes from click to
click: equal results also say that the two make the same masks.

official: classes share a label map, spacing is handed over as (x,y,z) to arrays (z,y,x), NSD is 0 where the mean Dice is at
most 0.2, ties are drawn by RandomState(42), a case without boxes scores 0 at step 0. plain: every class alone, the right
spacing, the first of equal clicks. Where the truth's labels are not 1, 2, 3 …, `predict`'s class n is the n-th of them.
Last line: N passed, N failed."""
import argparse
import csv
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile

import nibabel
import numpy as np
import torch

import make_fixtures
import metrics
import segvol
from checks import check, finish

CLICKS = 5
NAMES = ('DSC', 'NSD', 'HD95', 'ASD')
BOUNDS = {'DSC': 1e-9, 'NSD': 1e-6, 'HD95': 1e-6, 'ASD': 1e-6, 'DSC_AUC': 1e-8, 'NSD_AUC': 1e-6}


# ---- cases -----------------------------------------------------------------------------------------------------------

def box_of(mask):
    """z from first to last slice; x and y on the middle one of the occupied slices."""
    z, y, x = np.nonzero(mask)
    slices = np.unique(z)
    middle = slices[len(slices) // 2]
    y, x = y[z == middle], x[z == middle]
    return {'z_min': z.min(), 'z_max': z.max(), 'z_mid': middle, 'z_mid_x_min': x.min(), 'z_mid_y_min': y.min(),
            'z_mid_x_max': x.max(), 'z_mid_y_max': y.max()}


class Case:
    """labels: of the truth. has_boxes False: the case's file has none."""
    def __init__(self, name, image, truth, spacing, has_boxes=True, boxes=None, labels=None):
        self.name, self.image, self.truth, self.spacing = name, image, truth, [float(s) for s in spacing]
        self.labels = [int(v) for v in np.unique(truth) if v] if labels is None else labels
        self.boxes = None
        if has_boxes:
            self.boxes = boxes or [box_of(truth == v) for v in self.labels]

    def alone(self, i):
        """Class i as a case of its own."""
        return Case(f'{self.name}.{i}', self.image, self.truth, self.spacing, True, [box_of(self.truth == self.labels[i])],
                    [self.labels[i]])


def made_cases(segfm, weights, folder):
    """Bodies with bright and less bright organs; the truth is never quite what is bright."""
    random = np.random.default_rng(11)
    cases = []
    plans = [((24, 45, 90), (0.8, 0.9, 2.5), 3, True), ((13, 64, 50), (1.2, 1.1, 5), 1, True),
             ((40, 37, 41), (1, 1.5, 2), 2, False), ((9, 17, 70), (0.5, 1.7, 3), 4, True),
             ((30, 60, 62), (2.1, 0.7, 0.6), 2, True)]
    for number, (shape, spacing, classes, has_boxes) in enumerate(plans):
        centre, radius = np.array(shape) / 2, np.array(shape) * 0.46
        image = random.uniform(0, 6, shape) + 50 * make_fixtures.ellipsoid(shape, centre, radius)
        truth = np.zeros(shape, np.uint8)
        for label in range(1, classes + 1):
            place = centre + radius * random.uniform(-0.6, 0.6, 3)
            size = np.maximum(np.array(shape) * random.uniform(0.1, 0.18, 3), 2)
            image += random.uniform(90, 140) * make_fixtures.ellipsoid(shape, place, size)
            truth[make_fixtures.ellipsoid(shape, place + random.uniform(-1, 1, 3), size * random.uniform(0.8, 1.2, 3))] = label
        cases.append(Case(f'made{number}', np.clip(image, 0, 255).astype(np.uint8), truth, spacing, has_boxes))
    perfect(segfm, weights, cases[4], folder)
    return cases


def perfect(segfm, weights, case, folder):
    """Makes the truth of its first class what the box finds: a class without a click, None in clicks_order."""
    state = State(case)
    segment(segfm, weights, [state], folder, 0)
    case.truth[case.truth == 1] = 0
    case.truth[state.found == 1] = 1


def real_cases(folder):
    """The smallest of each kind of scan, five kinds."""
    with open(os.path.join(folder, 'INDEX.tsv'), encoding='utf-8') as file:
        rows = list(csv.DictReader(file, delimiter='\t'))
    kinds = {}
    for row in sorted(rows, key=lambda r: os.path.getsize(os.path.join(folder, r['file']))):
        kinds.setdefault(re.match('[a-z]+', os.path.basename(row['file'])).group(), row)
    cases, pairs = [], []
    for row in list(kinds.values())[:5]:
        paths = [os.path.join(folder, row[k]) for k in ('file', 'label_file')]
        image, truth = (nibabel.load(p) for p in paths)
        voxels, labels = (np.asarray(i.dataobj, np.float64).T for i in (image, truth))
        cases.append(Case(paths[0], voxels.astype(np.float32), labels.astype(np.uint16), truth.header.get_zooms()[:3]))
        pairs.append(paths)
    return cases, pairs


# ---- the protocol ------------------------------------------------------------------------------------------------------

class State:
    """A case, the prompts so far, what was found, and per step and class the four metrics."""
    def __init__(self, case):
        self.case = case
        self.clicks = [{'fg': [], 'bg': []} for _ in case.labels]
        self.order = [[] for _ in case.labels]
        self.placed = [[] for _ in case.labels]  # (step, (z, y, x), kind)
        self.found = np.zeros(case.truth.shape, np.uint16)
        self.values = []

    def write(self, path, step):
        arrays = {'imgs': self.case.image, 'spacing': np.array(self.case.spacing)}
        if self.case.boxes is not None:
            arrays['boxes'] = self.case.boxes
        if step > 0:
            arrays.update(clicks=self.clicks, clicks_order=self.order, prev_pred=self.found)
        np.savez_compressed(path, **arrays)

    def place_clicks(self, step, official):
        for i, label in enumerate(self.case.labels):
            *at, inside = metrics.simulate_click(self.case.truth == label, self.found == label, official)
            kind = None if inside < 0 else 'fg' if inside else 'bg'
            self.order[i].append(kind)
            if kind is not None:
                self.clicks[i][kind].append([np.int64(v) for v in at])
                self.placed[i].append((step, tuple(at), kind))

    def measure(self, official, tables):
        spacing = tuple(self.case.spacing if official else self.case.spacing[::-1])
        if spacing not in tables:
            tables[spacing] = metrics.surface_areas(np.array(spacing))
        rows = []
        for label in self.case.labels:
            m = metrics.metrics(self.case.truth == label, self.found == label, spacing, 2, tables[spacing])
            rows.append([m[0], m[1], m[4], (m[6] + m[7]) / 2])
        if official and not np.mean([r[0] for r in rows]) > 0.2:
            for row in rows:
                row[1] = 0.0
        self.values.append(rows)


def segment(segfm, weights, states, folder, step):
    """One step of the container over all cases."""
    inputs, outputs = os.path.join(folder, 'in'), os.path.join(folder, 'out')
    for path in (inputs, outputs):
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
    asked = [s for s in states if step > 0 or s.case.boxes is not None]  # without a box step 0 is not asked for
    for i, state in enumerate(asked):
        state.write(os.path.join(inputs, f'{i}.npz'), step)
    subprocess.run([segfm, 'predict', inputs, outputs, '-w', weights, '--quiet'], check=True)
    for i, state in enumerate(asked):
        classes = np.load(os.path.join(outputs, f'{i}.npz'))['segs']
        state.found = np.array([0] + state.case.labels, np.uint16)[classes]


def run(segfm, weights, cases, official, folder):
    states, tables = [State(c) for c in cases], {}
    for step in range(CLICKS + 1):
        for state in states:
            if step > 0:
                state.place_clicks(step, official)
        segment(segfm, weights, states, folder, step)
        for state in states:
            state.measure(official, tables)
    return states


# ---- the comparison ------------------------------------------------------------------------------------------------------

def evaluate(segfm, weights, arguments, folder):
    """Runs `segfm eval`: rows of the CSV by (case, class), clicks by the same, lines of stdout by their first word."""
    table, saved = os.path.join(folder, 'out.csv'), os.path.join(folder, 'saved')
    command = [segfm, 'eval', '-w', weights, '--csv', table, '--save', saved, '--clicks', CLICKS, '--quiet', *arguments]
    out = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout
    with open(table, encoding='utf-8') as file:
        rows = {(r['case'], int(r['class'])): r for r in csv.DictReader(file)}
    clicks = {key: [] for key in rows}
    with open(os.path.join(saved, 'prompts.tsv'), encoding='utf-8') as file:
        for r in csv.DictReader(file, delimiter='\t'):
            if r['kind'] == 'click':
                x, y, z, sign = r['prompt'].split(',')
                clicks[r['case'], int(r['class'])].append((int(r['step']), (int(z), int(y), int(x)), 'fg' if sign == '+' else 'bg'))
    return rows, clicks, {line.split()[0]: line.split()[1:] for line in out.splitlines()}


def same(got, want, bound):
    return math.isnan(got) and math.isnan(want) or abs(got - want) <= bound * max(1, abs(want))


def trapezoid(values):
    return sum((a + b) / 2 for a, b in zip(values, values[1:]))


def compare_class(title, row, clicks, state, i):
    """A row of the CSV."""
    check(row is not None, f'{title}: no row')
    if row is None:
        return
    label = state.case.labels[i]
    check(int(row['voxels']) == (state.case.truth == label).sum(), f'{title}: voxels')
    check(clicks == state.placed[i], f'{title}: clicks {clicks}, {state.placed[i]}')
    for m, name in enumerate(NAMES):
        values = [step[i][m] for step in state.values]
        got = [float(row[f'{name}_{k}']) for k in range(CLICKS + 1)]
        for k, (g, w) in enumerate(zip(got, values)):
            check(same(g, w, BOUNDS[name]), f'{title}: {name}_{k} {g}, {w}')
        if name in ('DSC', 'NSD'):
            check(same(float(row[name + '_AUC']), trapezoid(values[1:]), BOUNDS[name + '_AUC']), f'{title}: {name}_AUC')


def compare_means(title, lines, groups):
    """groups: per case the values (step, metric) of its classes."""
    def mean(of):
        inner = [[v for v in map(of, classes) if not math.isnan(v)] for classes in groups]
        inner = [np.mean(values) for values in inner if values]
        return np.mean(inner) if inner else math.nan
    for m, name in enumerate(NAMES):
        got = [float(v) for v in lines[name]]
        want = [mean(lambda c, k=k, m=m: c[k][m]) for k in range(CLICKS + 1)]
        check(len(got) == len(want) and all(same(g, w, 2e-9 if name == 'DSC' else 1e-6) for g, w in zip(got, want)),
              f'{title}: mean {name} {got}, {want}')
    got = [float(lines['DSC_AUC'][0]), float(lines['DSC_AUC'][2])]
    want = [mean(lambda c, m=m: trapezoid([step[m] for step in c[1:]])) for m in (0, 1)]
    check(same(got[0], want[0], 1e-8) and same(got[1], want[1], 1e-6), f'{title}: AUC {got}, {want}')


def compare(title, segfm, weights, cases, arguments, official, folder):
    rows, clicks, lines = evaluate(segfm, weights, [*arguments, *(['--official'] if official else ['--min-voxels', 1])], folder)
    if official:
        states = run(segfm, weights, cases, True, folder)
        groups = [[(s, i) for i in range(len(s.case.labels))] for s in states]
    else:
        groups = [[(s, 0) for s in run(segfm, weights, [c.alone(i) for i in range(len(c.labels))], False, folder)] for c in cases]
    for case, group in zip(cases, groups):
        for state, i in group:
            key = (case.name, state.case.labels[i])
            compare_class(f'{title} {key[0]} class {key[1]}', rows.pop(key, None), clicks.get(key), state, i)
    check(not rows, f'{title}: rows of nothing: {list(rows)}')
    values = [[[step[i] for step in state.values] for state, i in group] for group in groups]
    compare_means(title, lines, values)
    check(lines['cases'] == [str(len(cases)), 'classes', str(sum(map(len, values)))], f'{title}: {lines["cases"]}')
    dice, near = ([step[m] for case in values for c in case for step in c] for m in (0, 1))
    clicked = sum(len(s.placed[i]) for g in groups for s, i in g)
    print(f'{title}: {len(cases)} cases, {sum(map(len, values))} classes, {clicked} clicks, Dice {min(dice):.3f} to '
          f'{max(dice):.3f}, NSD not 0 in {sum(n > 0 for n in near)} of {len(near)} steps', flush=True)
    if official:
        compare_saved(title, [group[0][0] for group in groups], folder)


def compare_saved(title, states, folder):
    for state in states:
        name = os.path.basename(state.case.name)
        if name.endswith('.npz'):
            saved = np.load(os.path.join(folder, 'saved', name))['segs']
        else:
            saved = np.asarray(nibabel.load(os.path.join(folder, 'saved', name.split('.')[0] + '.nii.gz')).dataobj).T
        check(np.array_equal(saved, state.found), f'{title} {name}: saved labels')


def write_folder(cases, images, truths):
    for path in {images, truths}:
        os.makedirs(path)
    for case in cases:
        arrays = {'imgs': case.image, 'spacing': np.array(case.spacing)}
        if case.boxes is not None:
            arrays['boxes'] = case.boxes
        if truths == images:
            arrays['gts'] = case.truth
        else:
            np.savez_compressed(os.path.join(truths, case.name), gts=case.truth)
        np.savez_compressed(os.path.join(images, case.name), **arrays)


def write_pairs(path, pairs):
    with open(path, 'w', encoding='utf-8') as file:
        file.writelines('\t'.join(pair) + '\n' for pair in pairs)
    return path


def bright_weights(segfm, folder):
    """A network that finds what is bright, with the formula's corrector, so that there are masks worth a click."""
    config, checkpoint, path = segvol.FIXTURE, os.path.join(folder, 'bright.pth'), os.path.join(folder, 'bright.weights')
    model = make_fixtures.bright_model(config, corrector=True)
    torch.save({'model.' + name: tensor.float() for name, tensor in model.state_dict().items()}, checkpoint)
    sizes = {'--spatial': config.spatial, '--patch': config.patch, '--heads': [config.heads],
             '--decoder-heads': [config.decoder_heads], '--topk': [config.topk]}
    options = [part for option, value in sizes.items() for part in (option, ','.join(map(str, value)))]
    subprocess.run([segfm, 'convert', checkpoint, '-o', path, *options], check=True)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('segfm')
    parser.add_argument('--data', default='../shared/data')
    options = parser.parse_args()
    segfm = os.path.abspath(options.segfm)
    with tempfile.TemporaryDirectory() as folder:
        bright = bright_weights(segfm, folder)
        made = made_cases(segfm, bright, folder)
        for case in made:
            case.name += '.npz'
        images, truths, both = (os.path.join(folder, n) for n in ('images', 'truths', 'both'))
        write_folder(made, images, truths)
        write_folder(made, both, both)
        compare('official, bright', segfm, bright, made, ['--images', images, '--gts', truths], True, folder)
        compare('official, tiny', segfm, 'formula:tiny', made, ['--images', both], True, folder)
        for case in made:  # as NIfTI: there the box is made of the truth
            case.boxes, stem = None, os.path.join(folder, case.name.split('.')[0])
            pair = [stem + '.nii.gz', stem + '_truth.nii']
            for path, voxels in zip(pair, (case.image, case.truth)):
                nibabel.save(nibabel.Nifti1Image(voxels.T, np.diag([*case.spacing, 1])), path)
            case.spacing = [float(s) for s in nibabel.load(pair[0]).header.get_zooms()]
            case.name, case.pair = pair[0], pair
        pairs = write_pairs(os.path.join(folder, 'made.tsv'), [c.pair for c in made])
        compare('plain, bright', segfm, bright, made, ['--pairs', pairs], False, folder)
        if os.path.exists(os.path.join(options.data, 'INDEX.tsv')):
            real, pairs = real_cases(os.path.abspath(options.data))
            pairs = write_pairs(os.path.join(folder, 'real.tsv'), pairs)
            compare('official, real, tiny', segfm, 'formula:tiny', real, ['--pairs', pairs], True, folder)
        else:
            print(f'note: no real scans at {options.data}')
    return finish()


if __name__ == '__main__':
    sys.exit(main())
