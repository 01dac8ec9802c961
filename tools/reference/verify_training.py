"""Training in C against training in PyTorch (train.py): losses, every gradient, and the weights after steps of AdamW.

    verify_training.py FLOAT_SEGFM FLOAT_PROBE DOUBLE_SEGFM DOUBLE_PROBE [--scratch DIR]      (the probes: test/train_probe.c)

The double build against PyTorch's float64: relative L2 at most 1e-9, tensor by tensor. The float build: at most twice as far from
float64 as PyTorch's float32 is, where no near tie lets it go another way than float64. Left out: the bias of k_proj, whose gradient is
zero but for rounding, which AdamW makes a step of. Then both go on from weights that the other has trained, through `segfm convert` in
both directions, and must lose alike."""
import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np
import torch

import make_fixtures
import segvol
import train
from compare import Tally, differences

DOUBLE_RELATIVE_L2 = 1e-9
FLOAT_FACTOR = 2
RATE = 1e-3
LOSS_FLOOR = 1e-6             # a loss is a float32, and consistency's is of the few voxels that were corrected
GRADIENT_FLOOR = 6e-7         # PyTorch's on the whole, where it has little to round
SHARE = 0.999                 # AdamW divides by a gradient's size: where that is tiny, rounding becomes a whole step
NEAR = 2e-6                   # in probability; float32 logits are off by some 1e-6
DTYPES = {'float': torch.float32, 'double': torch.float64}

tally = Tally()


class Program:
    def __init__(self, kind, segfm, probe):
        self.kind, self.segfm, self.probe = kind, segfm, probe

    def run(self, *command):
        result = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode:
            tally.check(False, ' '.join(map(str, command)), f'exit code {result.returncode}: {result.stdout.strip()}')
        return result.returncode == 0

    def convert(self, source, target, *options):
        return self.run(self.segfm, 'convert', source, '-o', target, *options)


# ---- samples and starting weights --------------------------------------------------------------------------------------------

def make_sample(shape, number):
    """A bright ellipsoid in noise; a box around it."""
    u = segvol.uniform(f'verify.train.{number}', int(np.prod(shape)) + 6)
    noise, (a, b, c, d, e, f) = u[:-6].reshape(shape), u[-6:]
    centre = np.array(shape) * (0.3 + 0.4 * np.array([a, b, c]))
    truth = make_fixtures.ellipsoid(shape, centre, np.array(shape) * (0.15 + 0.2 * np.array([d, e, f])))
    where = np.argwhere(truth)
    box = np.concatenate([where.min(0), where.max(0)])
    return {'image': (0.3 * noise + 0.6 * truth).astype(np.float32), 'truth': truth.astype(np.uint8), 'box': box}


def write_samples(folder, config, checkpoint):
    """Six samples; of the last one nothing is left to correct: its truth is what the model finds."""
    for number in range(6):
        np.savez(os.path.join(folder, f'{number}.npz'), **make_sample(config.spatial, number))
    model, _ = train.load_model(checkpoint, torch.float64)
    image, _, box = train.load_sample(folder, '5', torch.float64, 'cpu')
    with torch.no_grad():
        found = model(image[None, None], box[None])[0, 0] > 0
    np.savez(os.path.join(folder, '5.npz'), image=image.numpy().astype(np.float32), truth=found.numpy().astype(np.uint8), box=box.numpy())


def write_steps(path, steps):
    """steps: (corrections, stage, names)"""
    with open(path, 'w') as out:
        for corrections, stage, names in steps:
            print(RATE, corrections, stage, names, file=out)


# ---- near ties -----------------------------------------------------------------------------------------------------------------

class Watch:
    """Corrections sort voxels by |p − ½|, and whether p is above ½ decides the mask: where two are nearer than a float32 can tell, the
    float build may rightly go another way than float64. Notes how near the nearest are that float64 has met: in `step` since the last
    look, for K + 1 voxels of each correction."""
    def __init__(self):
        self.nearest, self.config, self.clicks_on = np.inf, None, train.clicks_on

    def watched(self, truth, variant):
        next_click = self.clicks_on(truth, variant)

        def watching(step, logits):
            p = logits.detach().double().sigmoid().flatten()
            scores = np.sort((p - 0.5).abs().numpy())[:self.config.topk + 1]
            self.nearest = min(self.nearest, np.diff(scores, prepend=0).min())
            return next_click(step, logits)
        return watching

    def look(self):
        nearest, self.nearest = self.nearest, np.inf
        return nearest


watch = Watch()
train.clicks_on = watch.watched
compared = {'losses': [0, 0], 'gradients': [0, 0], 'trained': [0, 0]}  # by the float build: how many runs of how many


def apart(what, ok):
    compared[what][0] += bool(ok)
    compared[what][1] += 1
    return ok


# ---- one run on each side ------------------------------------------------------------------------------------------------------

class Run:
    """losses (steps, 7); gradients of the first step {name: array}, only those that there are; parameters at the end {name: array};
    clear: how many steps had no near tie"""
    def __init__(self, losses, gradients, parameters, clear=None):
        self.losses, self.gradients, self.parameters, self.clear = losses, gradients, parameters, clear


def arrays_of(items):
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in items if not name.startswith('prompt_encoder.mask_down')}


def torch_run(checkpoint, samples, steps, dtype, options, parts):
    model, _ = train.load_model(checkpoint, dtype)
    trainer = train.Trainer(model, options, parts=parts)
    losses, gradients, nearest, watch.config = [], None, [], model.config
    for rate, corrections, points, names in train.read_steps(steps):
        batch = [train.load_sample(samples, name, dtype, 'cpu') for name in names]
        losses.append(trainer.step(batch, rate, corrections, points))
        nearest.append(watch.look())
        if gradients is None:
            gradients = arrays_of((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    losses = np.array([[found[name] for name in train.LOSSES] for found in losses])
    clear = int(np.argmax([near < NEAR for near in nearest] + [True]))
    return Run(losses, gradients, arrays_of(model.named_parameters()), clear)


def probe_run(program, weights, samples, steps, keys, folder):
    os.makedirs(folder)
    if not program.run(program.probe, weights, samples, steps, folder, 'threads=1', *keys):
        return None
    flat = {name: np.load(os.path.join(folder, name + '.npy')) for name in ('gradients', 'parameters', 'losses')}
    with open(os.path.join(folder, 'tensors.txt')) as lines:
        rows = [line.split() for line in lines]
    part = lambda what, row: flat[what][int(row[1]):int(row[1]) + int(row[2])]
    return Run(flat['losses'], {row[0]: part('gradients', row) for row in rows if row[3] == '1'},
               {row[0]: part('parameters', row) for row in rows})


# ---- comparison ------------------------------------------------------------------------------------------------------------------

def check(title, kind, got, want, own):
    """own: the error that PyTorch's float32 makes, the float build's measure"""
    _, relative = differences(got, want)
    bound = DOUBLE_RELATIVE_L2 if kind == 'double' else FLOAT_FACTOR * own
    if not want.any():  # a gradient that is there and exactly zero
        return tally.check(not got.any(), title, 'zero')
    tally.check(got.size == want.size and relative <= bound, title, f'relative L2 {relative:.2e} of {bound:.2e}')


def errors(own, want):
    """{name: PyTorch's error}, at least the median of all: that of a few numbers may be small by chance. What is behind a softmax is the
    small rest of a difference, whose error depends on the numbers more than on the arithmetic: one measure for all of these, and
    half as much again (measured: 2.3 times the largest, once in 26 runs)."""
    found = {name: differences(own[name], want[name])[1] for name in want if name in own}
    middle = np.median([error for error in found.values() if error > 0] or [0])
    behind = [name for name in found if '.q_proj.' in name or '.k_proj.' in name]
    most = max((found[name] for name in behind), default=0)
    return {name: max(error, middle, GRADIENT_FLOOR, 1.5 * most * (name in behind)) for name, error in found.items()}


def by_part(arrays):
    """Arrays {name: array} → one for each part of the network."""
    parts = {}
    for name, array in arrays.items():
        parts.setdefault(name.split('.')[0], []).append(array.ravel())
    return {part: np.concatenate(pieces) for part, pieces in parts.items()}


def without_noise(arrays):
    return {name: array.ravel() for name, array in arrays.items() if not name.endswith('k_proj.bias')}


def compare_runs(title, kind, got, want, own):
    title = f'{kind} {title}'
    steps = want.clear if kind == 'float' else len(want.losses)
    if kind == 'double' or apart('losses', steps > 0):
        bound = max(LOSS_FLOOR / FLOAT_FACTOR, *(differences(a, b)[1] for a, b in zip(own.losses[:steps].T, want.losses[:steps].T)))
        for i, name in enumerate(train.LOSSES):
            check(f'{title}: {name}, {steps} steps', kind, got.losses[:steps, i], want.losses[:steps, i], bound)
    tally.check(set(got.gradients) == set(want.gradients), f'{title}: tensors with a gradient',
                ', '.join(sorted(set(got.gradients) ^ set(want.gradients))))
    ours, theirs, rounded = (without_noise(run.gradients) for run in (got, want, own))
    if kind == 'double' or apart('gradients', steps > 0):
        bounds = errors(rounded, theirs)
        for name in sorted(set(ours) & set(bounds)):
            check(f'{title}: gradient of {name}', kind, ours[name], theirs[name], bounds[name])
    ours, theirs, rounded = (without_noise(run.parameters) for run in (got, want, own))
    if kind == 'double':
        for name in sorted(theirs):
            check(f'{title}: {name} trained', kind, ours[name], theirs[name], 0)
    elif apart('trained', steps == len(want.losses)):
        compare_trained(title, *(by_part({name: arrays[name] for name in theirs}) for arrays in (ours, theirs, rounded)), steps)


def compare_trained(title, ours, theirs, rounded, steps):
    """Almost all weights are within twice PyTorch's own error, and none is further off than opposite steps take it."""
    for part in sorted(theirs):
        error, own = (np.abs(arrays[part].astype(np.float64) - theirs[part]) for arrays in (ours, rounded))
        bound = FLOAT_FACTOR * np.quantile(own, SHARE)
        tally.check(np.quantile(error, SHARE) <= bound and error.max() <= 2 * RATE * steps, f'{title}: {part} trained',
                    f'error of {SHARE:.1%} at most {np.quantile(error, SHARE):.2e} of {bound:.2e}, of all {error.max():.2e}')


# title, steps (corrections, stage, names), options, parts, the probe's keys for these
CASES = [
    ('box', [(0, 'box', '0 1'), (0, 'box', '2 3')], {}, None, []),
    ('box corrected', [(3, 'box', '4'), (5, 'box', '1 3'), (1, 'box', '2')], {}, None, []),
    ('points', [(0, 'box_points', '0 1'), (2, 'box_points', '2 3 4'), (0, 'box', '0')], {}, None, []),
    ('all losses', [(2, 'box_points', '1 3'), (4, 'box_points', '0 2'), (0, 'box', '4')], {'consistency': 0.7, 'boundary': 0.3}, None, []),
    ('all clicks', [(3, 'box_points', '4'), (5, 'box_points', '2')], {'all_clicks': True, 'consistency': 0.2}, None, []),
    ('chain', [(3, 'box_points', '4'), (5, 'box_points', '1'), (0, 'box_points', '2')], {'all_clicks': True, 'chain': True}, None, []),
    ('nothing wrong', [(2, 'box_points', '5'), (0, 'box_points', '0')], {'boundary': 0.1}, None, []),
    ('recompute', [(2, 'box_points', '0 3')], {}, None, ['recompute=1']),
    ('encoder', [(2, 'box_points', '0 1'), (0, 'box', '2')], {}, ('encoder',), ['parts=1']),
    ('decoder', [(2, 'box_points', '0 1')], {}, ('decoder',), ['parts=2']),
    ('corrector', [(3, 'box_points', '0 1'), (1, 'box', '2')], {'consistency': 0.5}, ('corrector',), ['parts=4']),
    ('upstream box', [(2, 'box', '0 1'), (5, 'box', '2 3')], {'variant': 'upstream'}, None, []),
    ('upstream points', [(2, 'box_points', '0 1'), (0, 'box_points', '2'), (4, 'box_points', '3')], {'variant': 'upstream'}, None, []),
    ('upstream slices', [(1, 'box_points', '1'), (3, 'box', '2')], {'variant': 'upstream', 'slice_dice': True}, None, []),
]


def keys_of(options):
    keys = {'upstream': options.variant == 'upstream', 'all_clicks': options.all_clicks, 'chain': options.chain, 'slice_dice': options.slice_dice,
            'consistency': options.consistency, 'boundary': options.boundary}
    return [f'{key}={float(value)!r}' for key, value in keys.items() if value]


def compare_on(title, programs, checkpoint, weights, folder, options, parts=None, keys=()):
    """Samples and steps are in the folder. weights: {kind: file}, of the same tensors as the checkpoint."""
    samples, steps = os.path.join(folder, 'samples'), os.path.join(folder, 'steps')
    runs = {kind: torch_run(checkpoint, samples, steps, dtype, options, parts or tuple(train.PARTS)) for kind, dtype in DTYPES.items()}
    for program in programs:
        out = os.path.join(folder, f'{program.kind} {title}')
        got = probe_run(program, weights[program.kind], samples, steps, keys_of(options) + list(keys), out)
        if got:
            compare_runs(title, program.kind, got, runs['double'], runs['float'])


def verify_cases(programs, folder, checkpoint, weights):
    for title, steps, options, parts, keys in CASES:
        write_steps(os.path.join(folder, 'steps'), steps)
        compare_on(title, programs, checkpoint, weights, folder, train.Options(**options), parts, keys)


# ---- going on where the other has stopped ------------------------------------------------------------------------------------

def verify_both_ways(programs, folder, checkpoint, weights):
    """C trains, PyTorch loads what it has exported, strictly, and both go on; then the other way round."""
    samples, steps = os.path.join(folder, 'samples'), os.path.join(folder, 'steps')
    options = train.Options(consistency=0.3)
    first, then = [(2, 'box_points', '0 1'), (1, 'box', '2')], [(1, 'box_points', '3 4'), (3, 'box', '0'), (2, 'box_points', '1')]
    for program in programs:
        exported = os.path.join(folder, program.kind + '-exported.pth')
        write_steps(steps, first)
        out = os.path.join(folder, f'{program.kind} first')
        trained = os.path.join(out, 'trained.segfm')
        if probe_run(program, weights[program.kind], samples, steps, keys_of(options), out) and program.convert(trained, exported):
            write_steps(steps, then)
            compare_on('PyTorch goes on', [program], exported, {program.kind: trained}, folder, options)
    here = os.path.dirname(os.path.abspath(__file__))
    trained = os.path.join(folder, 'trained.pth')
    write_steps(steps, first)
    command = [sys.executable, os.path.join(here, 'train.py'), '--weights', checkpoint, '--samples', samples, '--steps', steps, '--out', trained,
               '--consistency', 0.3]
    if programs[0].run(*command):
        imported = {program.kind: os.path.join(folder, program.kind + '-imported.segfm') for program in programs}
        if all([program.convert(trained, imported[program.kind]) for program in programs]):
            write_steps(steps, then)
            compare_on('C goes on', programs, trained, imported, folder, options)


def verify(programs, folder, config):
    """From weights that find what is bright: with the formula's all voxels are uncertain, and ties are near everywhere."""
    os.makedirs(os.path.join(folder, 'samples'))
    model = make_fixtures.bright_model(config, torch.float32, corrector=True)
    for name, tensor in model.state_dict().items():
        if 'mask_downscaling' in name:
            tensor.zero_()
    about = {'spatial': config.spatial, 'patch': config.patch, 'heads': config.heads, 'decoder_heads': config.decoder_heads,
             'variant': 'seed', 'provenance': 'formula'}
    checkpoint = os.path.join(folder, 'start.pth')
    train.save_model(model, about, checkpoint)
    weights = {program.kind: os.path.join(folder, program.kind + '.segfm') for program in programs}
    if all([program.convert(checkpoint, weights[program.kind]) for program in programs]):
        write_samples(os.path.join(folder, 'samples'), config, checkpoint)
        verify_cases(programs, folder, checkpoint, weights)
        verify_both_ways(programs, folder, checkpoint, weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    for name in ('float_segfm', 'float_probe', 'double_segfm', 'double_probe'):
        parser.add_argument(name)
    parser.add_argument('--scratch', help='folder for files (default: a temporary one)')
    args = parser.parse_args()
    programs = [Program('float', args.float_segfm, args.float_probe), Program('double', args.double_segfm, args.double_probe)]
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        for title, config in (('plain', segvol.FIXTURE), ('offsets', replace(segvol.FIXTURE, gru_offsets=True, gru_blocks=2, topk=5, text_dim=0))):
            verify(programs, os.path.join(scratch, title), config)
    for what, (clear, runs) in compared.items():
        tally.check(3 * clear >= runs, f'float: {what} of runs without a near tie', f'{clear} of {runs}')
    sys.exit(tally.finish())


if __name__ == '__main__':
    main()
