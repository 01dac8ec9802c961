"""The driver of `make verify`: the C program against live PyTorch, tensor by tensor.

    verify.py FLOAT_SEGFM DOUBLE_SEGFM [--golden ../shared/golden] [--full] [--scratch DIR]

Network: `segfm trace` of both builds against segvol.py for the configurations tiny and fixture (with --full: full), for box, points, both, and a
batch of two. The float build must be at most twice as far from PyTorch's float64 as PyTorch's float32 is, in max-abs and in relative L2, tensor
by tensor (equal where PyTorch's two precisions are equal). The double build must be within 1e-12 relative L2 and, both sides rounded to float32,
differ in at most one element in a million over all tensors, by one ulp.
Corrector: `segfm trace --correct` of both builds and variants against segvol.correct, for blocks, K, hidden widths and volumes of several
sizes, with and without the second head, with given clicks and with simulated ones; the same bounds, points equal.
Pipeline: `segfm segment` and `segfm predict` against pipeline.py: logits with the same bounds, label maps identical.
With --golden, the same against the files made by upstream's own code."""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace

import nibabel
import numpy as np
import torch

import dump
import make_fixtures
import metrics
import pipeline
import segvol
from check_golden import BOX_FIELDS, box_of_fields, read_errors
from compare import Tally, blas_is_openblas, blas_library, differences, rounded_differences
from golden_names import full_to_ours, golden_to_ours

FLOAT_FACTOR = 2              # the float build's error over PyTorch's own
DOUBLE_RELATIVE_L2 = 1e-12
DOUBLE_UNEQUAL_SHARE = 1e-6   # of all elements, after rounding
FULL_MASK_RELATIVE_L2 = 3e-6
OUTSIDE = -100                # what `--logits` holds outside of the cropped foreground
# A few numbers are no measure of an error: what the heads say about a token is judged by the larger of PyTorch's error there
# and in the token. One number has no relative error worth the name: its bound is the max-abs of all four.
JUDGED_WITH = {'iou_pred_all4': 'transformer.hs'}
PART_OF = {'iou_pred': 'iou_pred_all4'}

# The golden files' prompts, also used without them; box2 is the batch of two.
PROMPTS = {
    'tiny': {'box': [3, 10, 12, 11, 40, 50], 'box2': [0, 0, 5, 15, 63, 33],
             'points': [[4, 30, 25, 1], [10, 20, 45, 0], [7, 50, 12, 1], [-1, -1, -1, -1]]},
    'fixture': {'box': make_fixtures.BOX, 'box2': [0, 1, 2, 9, 16, 30], 'points': make_fixtures.POINTS},
    'full': {'box': [8, 60, 70, 25, 180, 200], 'points': [[12, 130, 140, 1], [20, 90, 90, 0]]},
}

tally = Tally()


class Rounding:
    """Counts elements that differ after rounding to float32, over all tensors of the double build."""
    def __init__(self):
        self.elements = self.unequal = self.ulps = 0

    def add(self, got, want):
        unequal, ulps = rounded_differences(got, want)
        self.elements, self.unequal, self.ulps = self.elements + got.size, self.unequal + unequal, max(self.ulps, ulps)
        return unequal, ulps

    def conclude(self):
        share = self.unequal / max(1, self.elements)
        tally.check(self.elements and share <= DOUBLE_UNEQUAL_SHARE and self.ulps <= 1, 'double: all tensors, rounded to float32',
                    f'{self.unequal} of {self.elements} differ, by {self.ulps} ulp at most')


rounding = Rounding()


# ---- comparisons ---------------------------------------------------------------------------------------------------------

def check_float(name, got, want, bound_max, bound_relative):
    """want: float64 truth; the bounds are PyTorch's own errors."""
    if got.shape != want.shape or got.dtype != np.float32:
        return tally.check(False, name, f'got {got.dtype} {got.shape}, need float32 {want.shape}')
    largest, relative = differences(got, want)
    ok = largest <= FLOAT_FACTOR * bound_max and relative <= FLOAT_FACTOR * bound_relative and np.any(want)
    tally.check(ok, name, f'{"x".join(map(str, want.shape)):>16}  max abs {largest:.2e} of {bound_max:.2e}'
                          f'  relative L2 {relative:.2e} of {bound_relative:.2e}')


def check_double(name, got, want):
    """want: float64, or float32 where a file stores it rounded."""
    if got.shape != want.shape or got.dtype != np.float64:
        return tally.check(False, name, f'got {got.dtype} {got.shape}, need float64 {want.shape}')
    unequal, ulps = rounding.add(got, want)
    _, relative = differences(got.astype(want.dtype), want)
    bound = DOUBLE_RELATIVE_L2 if want.dtype == np.float64 else np.inf
    tally.check(relative <= bound and ulps <= 1 and np.any(want), name,
                f'{"x".join(map(str, want.shape)):>16}  relative L2 {relative:.2e}  rounded: {unequal} differ, {ulps} ulp')


def bounds_of(name, errors):
    """errors: PyTorch's (max abs, relative L2) by tensor name."""
    if PART_OF.get(name) in errors:
        return errors[PART_OF[name]][0], np.inf
    other = errors.get(JUDGED_WITH.get(name), (0, 0))
    return max(errors[name][0], other[0]), max(errors[name][1], other[1])


# ---- running the program ----------------------------------------------------------------------------------------------------

class Program:
    def __init__(self, path, kind):
        self.path, self.kind = path, kind  # kind: 'float' or 'double'

    def run(self, *arguments):
        command = [self.path, *map(str, arguments)]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode:
            tally.check(False, ' '.join(command), f'exit code {result.returncode}: {result.stdout.strip()}')
        return result.returncode == 0


def comma(values):
    return ','.join(f'{value:g}' for value in values)


def trace(program, weights, window_path, boxes, points, folder):
    prompts = [part for box in boxes or [] for part in ('--box', comma(box))]
    prompts += [part for point in points or [] for part in ('--point', comma(point))]
    return program.run('trace', '-w', weights, '--window', window_path, *prompts, '--out', folder)


def load(folder, name):
    path = os.path.join(folder, name + '.npy')
    return np.load(path, mmap_mode='r') if os.path.exists(path) else None


def names_in(folder):
    return [file[:-4] for file in sorted(os.listdir(folder), key=lambda f: os.path.getmtime(os.path.join(folder, f)))]


def save_checkpoint(model, path):
    torch.save({'model.' + name: tensor.float() for name, tensor in model.state_dict().items()}, path)


def convert(program, config, checkpoint, path):
    sizes = ['--spatial', comma(config.spatial), '--patch', comma(config.patch), '--heads', config.heads,
             '--decoder-heads', config.decoder_heads, *(['--topk', config.topk] if config.gru_blocks else [])]
    return program.run('convert', checkpoint, '-o', path, *(sizes if os.path.exists(checkpoint) else []))


# ---- the network ---------------------------------------------------------------------------------------------------------------

class Case:
    """One set of prompts for one configuration, and the folders that hold its tensors."""
    def __init__(self, config_name, name, window, boxes, points, scratch):
        self.config_name, self.name, self.boxes, self.points = config_name, name, boxes, points
        self.window = window
        self.folder = os.path.join(scratch, config_name, name)
        os.makedirs(self.folder)
        self.window_path = os.path.join(self.folder, 'window.npy')
        np.save(self.window_path, window)

    def at(self, kind):
        return os.path.join(self.folder, kind)


def make_cases(config_name, scratch):
    config, prompts = segvol.CONFIGS[config_name], PROMPTS[config_name]
    box, points = prompts['box'], prompts['points']
    window = segvol.formula_image((1, 1, *config.spatial))
    cases = [Case(config_name, 'box', window, [box], None, scratch), Case(config_name, 'boxpoints', window, [box], points, scratch)]
    if config_name != 'full':
        pair = segvol.formula_image((2, 1, *config.spatial))
        cases += [Case(config_name, 'points', window, None, points, scratch),
                  Case(config_name, 'box_b2', pair, [box, prompts['box2']], None, scratch)]
    return cases


def run_pytorch(config, cases):
    for kind, dtype in (('f32', torch.float32), ('f64', torch.float64)):
        model = segvol.formula_model(config, dtype)
        for case in cases:
            dump.run_to_folder(model, case.window, case.boxes, case.points, case.at(kind))


def pytorch_errors(case):
    return {name: differences(load(case.at('f32'), name), load(case.at('f64'), name)) for name in names_in(case.at('f64'))}


def compare_with_pytorch(program, case):
    errors = pytorch_errors(case) if program.kind == 'float' else None
    for name in names_in(case.at('f64')):
        got, want, label = load(case.at(program.kind), name), load(case.at('f64'), name), f'{program.kind} {case.config_name} {case.name} {name}'
        if got is None:
            tally.check(False, label, 'not in the trace')
        elif program.kind == 'float':
            check_float(label, got, want, *bounds_of(name, errors))
        else:
            check_double(label, got, want)
    unknown = set(names_in(case.at(program.kind))) - set(names_in(case.at('f64')))
    tally.check(not unknown, f'{program.kind} {case.config_name} {case.name}: no unknown tensors', ', '.join(sorted(unknown)))


def compare_with_golden(program, case, golden):
    """The files of the tiny configuration."""
    folder = os.path.join(golden, 'tiny')
    errors = read_errors(os.path.join(folder, 'f32_vs_f64.txt'))
    for file in ([case.name, 'encoder'] if case.name == 'box' else [case.name]):
        file_errors = {tensor: error for (row_case, tensor), error in errors.items() if row_case == file}
        tensors = np.load(os.path.join(folder, f'{file}_f64.npz'))
        for name in tensors.files:
            got, label = load(case.at(program.kind), golden_to_ours[name]), f'{program.kind} golden {file} {name}'
            if got is None:
                tally.check(False, label, 'not in the trace')
            elif program.kind == 'double':
                check_double(label, got, tensors[name])
            else:
                check_float(label, got, tensors[name], *bounds_of(name, file_errors))


def compare_with_full_golden(program, case, golden):
    """The full-size samples and low-resolution masks."""
    samples = np.load(os.path.join(golden, 'full', 'samples.npz'))
    prefix = 'boxpoints.' if case.points else ''
    names = sorted({name.split('|')[0] for name in samples.files if name.startswith('boxpoints.') == bool(prefix)})
    errors = {name[len(prefix):]: samples[name + '|err32'][:2] for name in names}
    for name in names:
        short = name[len(prefix):]
        got = load(case.at(program.kind), full_to_ours(short)).reshape(-1)[samples[name + '|idx']]
        if program.kind == 'double':
            check_double(f'double golden full {name}', got, samples[name + '|f64'])
        else:
            check_float(f'float golden full {name}', got, samples[name + '|f64'], *bounds_of(short, errors))
    want = np.load(os.path.join(golden, 'full', f'low_res_masks_{case.name}.npz'))['f64_rounded']
    _, relative = differences(load(case.at(program.kind), 'low_res_masks'), want)
    tally.check(relative <= FULL_MASK_RELATIVE_L2, f'{program.kind} golden full {case.name} low_res_masks', f'relative L2 {relative:.2e}')


def verify_network(config_name, programs, golden, scratch):
    config = segvol.CONFIGS[config_name]
    cases = make_cases(config_name, scratch)
    run_pytorch(config, cases)
    checkpoint = 'formula:' + config_name
    if config_name == 'fixture':
        checkpoint = os.path.join(scratch, 'fixture.pth')
        save_checkpoint(segvol.formula_model(config, corrector=True), checkpoint)
    for program in programs:
        weights = os.path.join(scratch, f'{config_name}-{program.kind}.weights')
        if not convert(program, config, checkpoint, weights):
            continue
        for case in cases:
            if trace(program, weights, case.window_path, case.boxes, case.points, case.at(program.kind)):
                compare_with_pytorch(program, case)
                if golden and config_name == 'tiny':
                    compare_with_golden(program, case, golden)
                if golden and config_name == 'full':
                    compare_with_full_golden(program, case, golden)
            shutil.rmtree(case.at(program.kind), ignore_errors=True)
        os.remove(weights)
    for case in cases:
        shutil.rmtree(case.folder)


# ---- the pipeline ----------------------------------------------------------------------------------------------------------------

class Scan:
    """A volume with boxes, and what the reference makes of it: label map, and per box logits (cropped) in float64 and PyTorch's
    float32 errors. exact: the image was normalised in float64 too, so that the double build must agree to the last bit or so; upstream's own
    image is float32, and what the files hold is as far from the double build as that rounds."""
    def __init__(self, name, volume, boxes, labels, logits, errors, start, exact):
        self.name, self.volume, self.boxes, self.labels = name, volume, boxes, labels
        self.logits, self.errors, self.start, self.exact = logits, errors, start, exact


def box_dictionary(box):
    z0, y0, x0, z1, y1, x1 = (np.int64(n) for n in box)
    return dict(zip(BOX_FIELDS, (z0, z1, (z0 + z1) // 2, x0, y0, x1, y1)))


def write_challenge_file(path, scan):
    boxes = np.array([box_dictionary(box) for box in scan.boxes], dtype=object)
    np.savez_compressed(path, imgs=scan.volume, boxes=boxes, spacing=np.array([0.8, 0.9, 2.5]))


def live_scans(config):
    """The fixtures' scans, computed now in both precisions."""
    scans = []
    for name, (volume, boxes) in (('many', make_fixtures.many_scan()), ('one', make_fixtures.one_scan()), ('small', make_fixtures.small_scan())):
        found = []
        for dtype in (torch.float32, torch.float64):
            predict = pipeline.window_predictor(make_fixtures.bright_model(config, dtype))
            precision = np.float32 if dtype == torch.float32 else np.float64
            found.append(pipeline.segment_volume(volume, boxes, config.spatial, predict, precision))
        (_, rounded), (labels, exact) = found
        errors = [differences(a['logits'], b['logits']) for a, b in zip(rounded, exact)]
        start = pipeline.prepare(volume, boxes, config.spatial)['start']
        scans.append(Scan(name, volume, boxes, labels, [o['logits'] for o in exact], errors, start, exact=True))
    worst = np.max([error for scan in scans for error in scan.errors], axis=0)  # one network, so one measure of its error
    for scan in scans:
        scan.errors = [worst] * len(scan.boxes)
    return scans


def golden_scans(golden):
    folder = os.path.join(golden, 'tiny')
    errors = read_errors(os.path.join(folder, 'pipe_infer_err.txt'))
    preprocess = np.load(os.path.join(folder, 'pipe_preprocess.npz'))
    scans = []
    for name, source, keys in (('multi', preprocess, ('boxA', 'boxB')), ('single', None, ('box',))):
        found = np.load(os.path.join(folder, f'pipe_infer_{name}.npz'))
        source = source or found
        boxes = [box_of_fields(source[key]) for key in keys]
        logits = [found[f'logits{i}_f64rounded'][0, 0] for i in range(len(boxes))]
        bounds = [errors[name, f'final logits class{i}'] for i in range(len(boxes))]
        start = pipeline.prepare(source['vol'], boxes, segvol.TINY.spatial)['start']
        scans.append(Scan('golden ' + name, source['vol'], boxes, found['seg_f64'], logits, bounds, start, exact=False))
    return scans


def check_logits(program, name, whole, scan, i):
    """whole: float32 logits over the whole scan, as `segment --logits` writes them."""
    want = scan.logits[i]
    inside = tuple(slice(a, a + n) for a, n in zip(scan.start, want.shape))
    outside = whole.copy()
    outside[inside] = OUTSIDE
    tally.check((outside == OUTSIDE).all(), f'{name}: logits outside of the foreground')
    if program.kind == 'double' and scan.exact:
        check_double(f'{name}: logits, rounded', whole[inside].astype(np.float64), want.astype(np.float32))
    else:
        check_float(f'{name}: logits', whole[inside], want, *scan.errors[i])


def verify_scans(program, weights, scans, scratch):
    folder, out = os.path.join(scratch, 'scans'), os.path.join(scratch, 'predicted')
    os.makedirs(folder)
    for scan in scans:
        path = os.path.join(folder, scan.name.replace(' ', '_') + '.npz')
        write_challenge_file(path, scan)
        for i, box in enumerate(scan.boxes):
            name = f'{program.kind} {scan.name} object {i}'
            mask_path, logits_path = os.path.join(scratch, 'mask.nii.gz'), os.path.join(scratch, 'logits.nii.gz')
            xyz = [box[2], box[1], box[0], box[5], box[4], box[3]]
            if program.run('segment', '-i', path, '-w', weights, '--box', comma(xyz), '-o', mask_path, '--logits', logits_path):
                mask, logits = (np.asarray(nibabel.load(p).dataobj).T for p in (mask_path, logits_path))
                check_logits(program, name, np.ascontiguousarray(logits, dtype=np.float32), scan, i)
                inside = tuple(slice(a, a + n) for a, n in zip(scan.start, scan.logits[i].shape))
                expected = np.zeros(scan.volume.shape, np.uint8)
                expected[inside] = pipeline.foreground(np.array(scan.logits[i]))
                tally.check(np.array_equal(mask, expected), f'{name}: mask', f'{int((mask != expected).sum())} voxels differ')
    if program.run('predict', folder, out, '-w', weights):
        for scan in scans:
            labels = np.load(os.path.join(out, scan.name.replace(' ', '_') + '.npz'))['segs']
            tally.check(labels.shape == scan.labels.shape and np.array_equal(labels, scan.labels),
                        f'{program.kind} {scan.name}: label map', f'{int((labels != scan.labels).sum())} of {scan.labels.size} voxels differ')
    shutil.rmtree(folder)
    shutil.rmtree(out, ignore_errors=True)


def verify_pipeline(programs, golden, scratch):
    checkpoint = os.path.join(scratch, 'bright.pth')
    model = make_fixtures.bright_model(segvol.FIXTURE)
    save_checkpoint(model, checkpoint)
    sources = [('bright', model.config, checkpoint, live_scans(segvol.FIXTURE))]
    if golden:
        sources.append(('tiny', segvol.TINY, 'formula:tiny', golden_scans(golden)))
    for name, config, source, scans in sources:
        for program in programs:
            weights = os.path.join(scratch, f'{name}-{program.kind}.weights')
            if convert(program, config, source, weights):
                verify_scans(program, weights, scans, scratch)


# ---- the corrector ----------------------------------------------------------------------------------------------------------------

# Configurations and volumes that differ in all that could be mixed up: one block and several, K larger than what there is, an
# extent of 1, the second head.
CORRECTORS = {
    'tiny': (segvol.TINY, (16, 64, 56)),
    'one': (replace(segvol.FIXTURE, gru_blocks=1, gru_hidden=33, topk=7, gru_offsets=True), (9, 31, 24)),
    'two': (replace(segvol.FIXTURE, gru_blocks=2, gru_hidden=130, topk=90, gru_offsets=True), (40, 17, 52)),
    'flat': (replace(segvol.FIXTURE, gru_blocks=3, gru_hidden=20, topk=700), (1, 20, 31)),
}


def correction_input(name, shape):
    """Logits (D,H,W) of a blurred ellipsoid with noise, and a truth that lies a little beside it. Logits are multiples of 1/64,
    and 1/256: scores are equal, which puts the order of ties to the test, or so far apart that float32 cannot swap them."""
    centre, radius = np.array(shape) / 2, np.array(shape) / 3 + 0.5
    distance = np.sqrt((((np.moveaxis(np.indices(shape), 0, -1) - centre) / radius) ** 2).sum(-1))
    logits = 6 * (1 - distance) + 3 * (2 * segvol.uniform('verify.correct.' + name, int(np.prod(shape))).reshape(shape) - 1)
    return (np.round(64 * logits) / 64 + 1 / 256).astype(np.float32), make_fixtures.ellipsoid(shape, centre * 1.1, radius * 0.9)


def simulated(truth, variant):
    """Upstream takes raw logits above ½ for the prediction."""
    def next_click(step, logits):
        prediction = logits.numpy() > 0.5 if variant == 'upstream' else pipeline.foreground(logits.numpy())
        return tuple(metrics.simulate_click(truth, prediction))
    return next_click


def pytorch_corrections(models, logits, truth, clicks, variant):
    """{kind: {name: array}} under the names of the trace."""
    found = {}
    for kind, model in models.items():
        dtype, config = next(model.parameters()).dtype, model.config
        torch.manual_seed(0)
        next_click = simulated(truth, variant) if clicks is None else lambda step, _: clicks[step]
        labels = torch.from_numpy(truth) if clicks is None else None
        with torch.no_grad():
            steps = segvol.correct(model.gru_blocks, config.topk, torch.from_numpy(logits).to(dtype), next_click,
                                   5 if clicks is None else len(clicks), labels, variant)
            found[kind] = {f'{name}{s}': tensor.numpy() for s, step in enumerate(steps) for name, tensor in step.items()}
    return found


def compare_corrections(program, title, folder, found):
    names = set(names_in(folder))
    tally.check(names == set(found['f64']), f'{title}: tensors', ', '.join(sorted(names ^ set(found['f64']))))
    for name in sorted(names & set(found['f64'])):
        got, want = load(folder, name), found['f64'][name]
        if name.startswith(('click', 'coords')):
            tally.check(np.array_equal(got, want), f'{title} {name}', 'equal' if np.array_equal(got, want) else 'differs')
        elif program.kind == 'double':
            check_double(f'{title} {name}', got, want)
        else:
            kind = name.rstrip('0123456789')  # one network, so one measure of its error: the largest of any step
            errors = [differences(found['f32'][n], found['f64'][n]) for n in found['f32'] if n.rstrip('0123456789') == kind]
            check_float(f'{title} {name}', got, want, *np.max(errors, axis=0))


def verify_corrector(programs, scratch):
    for name, (config, shape) in CORRECTORS.items():
        checkpoint = os.path.join(scratch, 'corrector.pth')
        models = {'f32': segvol.formula_model(config, corrector=True), 'f64': segvol.formula_model(config, torch.float64, corrector=True)}
        save_checkpoint(models['f32'], checkpoint)
        weights = {program.kind: os.path.join(scratch, program.kind + '.weights') for program in programs}
        usable = [program for program in programs if convert(program, config, checkpoint, weights[program.kind])]
        logits, truth = correction_input(name, shape)
        paths = {what: os.path.join(scratch, what + '.npy') for what in ('logits', 'truth')}
        np.save(paths['logits'], logits[None, None])
        np.save(paths['truth'], truth.astype(np.uint8))
        last = [n - 1 for n in shape]
        clicks = [(last[0] // 2, last[1] // 3, last[2] // 2, 0), (0, last[1], last[2] // 4, 1), (last[0], 3, 5, 1)] * 2
        for variant in ('seed', 'upstream'):
            for given in (None, clicks):
                found = pytorch_corrections(models, logits, truth, given, variant)
                found = {kind: {n: t[None, None] if n.startswith('corrected') else t for n, t in tensors.items()}
                         for kind, tensors in found.items()}
                source = ['--labels', paths['truth']] if given is None else [p for c in clicks for p in ('--click', comma(c))]
                for program in usable:
                    out = os.path.join(scratch, 'corrections')
                    title = f'{program.kind} correct {name} {variant} {"clicks" if given else "labels"}'
                    if program.run('trace', '-w', weights[program.kind], '--correct', paths['logits'], *source, '--variant', variant,
                                   '--out', out):
                        compare_corrections(program, title, out, found)
                    shutil.rmtree(out, ignore_errors=True)
    plain = replace(segvol.FIXTURE, gru_blocks=0)
    save_checkpoint(segvol.formula_model(plain), checkpoint)
    for program in programs:
        if convert(program, plain, checkpoint, weights[program.kind]):
            command = [program.path, 'trace', '-w', weights[program.kind], '--correct', paths['logits'], '--click', '0,0,0,1', '--out', out]
            result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            tally.check(result.returncode == 3 and 'no corrector' in result.stderr and not os.path.exists(out),
                        f'{program.kind} correct: weights without a corrector', result.stderr.strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('float_segfm')
    parser.add_argument('double_segfm')
    parser.add_argument('--golden')
    parser.add_argument('--full', action='store_true', help='also the full-size network (minutes, 6 GB of scratch space)')
    parser.add_argument('--scratch', help='folder for tensors (default: a temporary one)')
    args = parser.parse_args()
    programs = [Program(args.float_segfm, 'float'), Program(args.double_segfm, 'double')]
    torch.zeros(2, 2) @ torch.zeros(2, 2)  # loads the matrix library
    print(f'PyTorch {torch.__version__}, {blas_library()}')
    if not blas_is_openblas():
        print('note: not OpenBLAS. PyTorch\'s own float32 errors, our bound, are up to three times as large with the reference BLAS.')
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        for config_name in ['tiny', 'fixture'] + ['full'] * args.full:
            verify_network(config_name, programs, args.golden, scratch)
        verify_corrector(programs, scratch)
        verify_pipeline(programs, args.golden, scratch)
    rounding.conclude()
    sys.exit(tally.finish())


if __name__ == '__main__':
    main()
