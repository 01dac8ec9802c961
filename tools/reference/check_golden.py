"""Checks segvol.py and pipeline.py against the golden files made with upstream's own code.

    check_golden.py [../shared/golden] [--full]

float64: relative L2 at most 1e-12; equality after rounding where the file stores float32. float32: at most twice PyTorch's
own error (f32_vs_f64.txt, *_err), which was measured with OpenBLAS: skipped when another BLAS is loaded. --full adds the full-size
network (half a minute, 4 GB)."""
import argparse
import functools
import json
import os
import sys

import numpy as np
import torch

import dump
import pipeline
import segvol
import train
from compare import Tally, blas_is_openblas, differences, rounded_differences
from golden_names import full_to_ours, golden_to_ours

DTYPES = {'f32': torch.float32, 'f64': torch.float64}
F64_RELATIVE_L2 = 1e-12
F32_FACTOR = 2
BOX_FIELDS = ('z_min', 'z_max', 'z_mid', 'z_mid_x_min', 'z_mid_y_min', 'z_mid_x_max', 'z_mid_y_max')

tally = Tally()


def check_f64(name, got, want):
    if got.shape != want.shape:
        tally.check(False, name, f'shape {got.shape}, golden {want.shape}')
    elif want.dtype == np.float32:
        unequal, ulps = rounded_differences(got, want)
        tally.check(unequal == 0 and want.any(), name, f'rounded: {unequal} of {want.size} differ, {ulps} ulp')
    else:
        _, relative = differences(got, want)
        tally.check(relative <= F64_RELATIVE_L2 and want.any(), name, f'relative L2 {relative:.2e}')


def check_f32(name, got, want, bound_max, bound_relative):
    """want: the golden float64 tensor; bounds: PyTorch's own error, as measured when the files were made."""
    if not blas_is_openblas():
        return tally.skip(name, 'the golden bounds hold for OpenBLAS')
    largest, relative = differences(got, want)
    ok = got.shape == want.shape and largest <= F32_FACTOR * bound_max and relative <= F32_FACTOR * bound_relative
    tally.check(ok, name, f'max abs {largest:.2e} (golden {bound_max:.2e}), relative L2 {relative:.2e} ({bound_relative:.2e})')


def check_equal(name, got, want):
    tally.check(np.array_equal(got, want), name)


def read_errors(path):
    """Rows case, tensor, shape, max abs, relative L2, … → {(case, tensor): (max abs, relative L2)}"""
    with open(path) as lines:
        rows = [line.rstrip('\n').split('\t') for line in lines][1:]
    return {(row[0], row[1]): (float(row[-3]), float(row[-2])) for row in rows}


@functools.lru_cache(maxsize=None)
def tiny_model(kind):
    return segvol.formula_model(segvol.TINY, DTYPES[kind], corrector=True)


def tensors_of(model, window, boxes, points):
    kept = {}
    dtype = next(model.parameters()).dtype
    boxes, points = dump.prompts(len(window), boxes, points, dtype)
    dump.run(model, torch.from_numpy(window).to(dtype), boxes, points, lambda name, t: kept.update({name: t.numpy()}))
    return kept


def golden_prompts(path):
    """prompts.json → {'box': …, 'box2': …, 'points': rows of z y x label}"""
    with open(path) as file:
        prompts = json.load(file)
    coordinates, labels = prompts['points'][0][0], prompts['points'][1][0]
    return dict(prompts, points=[[*c, label] for c, label in zip(coordinates, labels)])


# ---- the network ---------------------------------------------------------------------------------------------------------

def check_tiny_network(folder):
    prompts = golden_prompts(folder + 'prompts.json')
    errors = read_errors(folder + 'f32_vs_f64.txt')
    cases = {'encoder': (1, prompts['box'], None), 'box': (1, prompts['box'], None), 'points': (1, None, prompts['points']),
             'boxpoints': (1, prompts['box'], prompts['points']), 'box_b2': (2, prompts['box2'], None)}
    for case, (batch, boxes, points) in cases.items():
        window = segvol.formula_image((batch, 1, *segvol.TINY.spatial))
        golden = np.load(f'{folder}{case}_f64.npz')
        for kind in DTYPES:
            tensors = tensors_of(tiny_model(kind), window, boxes, points)
            for name in golden.files:
                got, label = tensors[golden_to_ours[name]], f'{kind} {case} {name}'
                if kind == 'f64':
                    check_f64(label, got, golden[name])
                else:
                    check_f32(label, got, golden[name], *errors[case, name])
    check_equal('formula image', segvol.formula_image((1, 1, 16, 64, 64)), np.load(folder + 'encoder_f32.npz')['input'])


def gru_outputs(block, sequence, coordinates, kind):
    with torch.no_grad():
        states, prob = block(torch.from_numpy(sequence).to(DTYPES[kind]), torch.from_numpy(coordinates))
    return states.numpy(), prob.numpy()


def check_gru(folder):
    golden = np.load(folder + 'gru_blocks.npz')
    rows = [golden[f'seq{s}'] for s in range(5)]
    for kind in DTYPES:
        found = {}
        for s, block in enumerate(tiny_model(kind).gru_blocks):
            sequence = np.concatenate(rows[:s + 1], axis=1)
            states, prob = gru_outputs(block, sequence, golden['coords'], kind)
            found.update({f'step{s + 1}.gru_out': states, f'step{s + 1}.prob': prob})
        all_rows = np.concatenate(rows, axis=1)
        for length in (1, 3):
            states, _ = gru_outputs(tiny_model(kind).gru_blocks[0], all_rows[:, :length], golden['coords'], kind)
            found[f'block0.T{length}.gru_out'] = states
        for name, got in found.items():
            want = golden['f64.' + name]
            if kind == 'f64':
                check_f64(f'f64 gru {name}', got, want)
            else:
                check_f32(f'f32 gru {name}', got, want, *differences(golden['f32.' + name], want))


# ---- sampling ----------------------------------------------------------------------------------------------------------

def check_sampling(folder):
    """Training's rule, the validation's cube of half-width 2, and its random draw (one generator for both items)."""
    golden = np.load(folder + 'gru_state.npz')
    torch.manual_seed(123)
    for i, click in enumerate([(8, 35, 33, 1), (3, 22, 36, 0)]):
        logits, truth = torch.from_numpy(golden['logits'][i, 0]), torch.from_numpy(golden['labels'][i]) > 0
        trained = (*golden['iter_points'][i, 0], golden['iter_labels'][i, 0])
        for kind, dtype in DTYPES.items():
            at, value, valid = segvol.sample(logits.to(dtype), 20, trained, truth, 'upstream')
            features, coordinates = segvol.state(at, value, valid, trained, logits.shape, 'upstream')
            check_equal(f'{kind} coords {i}', coordinates.numpy(), golden['coords'][i])
            want = golden['f64.gru_input'][i]
            if kind == 'f64':
                check_f64(f'f64 gru_input {i}', features.numpy(), want)
            else:
                check_f32(f'f32 gru_input {i}', features.numpy(), want, *differences(golden['gru_input'][i], want))
        errors = segvol.likely_errors(logits.sigmoid(), 20, click, None, 'upstream')
        check_equal(f'drawn errors {i}', errors.numpy(), golden[f'valrand{i}.error_points'])


def check_writes(folder):
    golden = np.load(folder + 'gru_apply_correction.npz')
    for coordinates, out in (('coord', 'out'), ('coordf', 'outf')):
        for i in range(2):
            got = segvol.write_corrections(torch.from_numpy(golden['logits'][i, 0]), torch.from_numpy(golden[coordinates][i]), None,
                                           torch.from_numpy(golden['prob'][i]), None, 'upstream')
            check_equal(f'apply_correction {out} {i}', got.numpy(), golden[out][i, 0])


# ---- the pipeline --------------------------------------------------------------------------------------------------------

def box_of_fields(values):
    return pipeline.challenge_box(dict(zip(BOX_FIELDS, values)))


def check_boxes(folder):
    golden = np.load(folder + 'pipe_boxes.npz')
    for i, want in enumerate(golden['boxes']):
        check_equal(f'pipe_boxes mask{i}', pipeline.mask_box(golden[f'mask{i}']), want)
    shape, centre, radius = golden['big_ell_shape_c_r'].reshape(3, 3)
    offsets = np.moveaxis(np.indices(shape), 0, -1) - centre
    ellipsoid = ((offsets / radius) ** 2).sum(-1) <= 1
    for draw, *want in golden['shifted']:
        check_equal(f'pipe_boxes jitter {draw}', pipeline.jittered_box(ellipsoid, draw), want)


def check_resizes(folder):
    golden = np.load(folder + 'pipe_nearest_tables.npz')
    for name in golden.files:
        check_equal(f'pipe_nearest_tables {name}', pipeline.nearest_sources(*map(int, name.split('_'))), golden[name])
    golden = np.load(folder + 'pipe_area_resize.npz')
    shape = tuple(golden['in_shape'])
    image = segvol.formula_image(shape, 'image.area')
    label = (segvol.uniform('label.area', image.size) < 0.4).astype(np.uint8).reshape(shape)
    check_equal('pipe_area_resize image', pipeline.resize_area(image, segvol.TINY.spatial), golden['out_image'][0])
    check_equal('pipe_area_resize label', pipeline.resize_area(label, segvol.TINY.spatial), golden['out_label'][0])
    padding = pipeline.pad_amounts(shape, golden['pad_shape'][1:])
    check_equal('pipe_area_resize padding', [before for before, _ in padding], golden['pad_first_nonzero'])


def check_preprocess(folder):
    for name in ('pipe_preprocess', 'pipe_preprocess_ct16'):
        golden = np.load(f'{folder}{name}.npz')
        boxes = [box_of_fields(golden[key]) for key in ('boxA', 'boxB') if key in golden.files]
        prepared = pipeline.prepare(golden['vol'], boxes, segvol.TINY.spatial)
        check_equal(f'{name} norm_stats', pipeline.foreground_statistics(golden['vol']), golden['norm_stats'])
        check_equal(f'{name} foreground_norm', prepared['normalised'], golden['foreground_norm'][0])
        check_equal(f'{name} image', prepared['image'], golden['image'][0])
        check_equal(f'{name} zoom_out_image', prepared['zoom_out_image'], golden['zoom_out_image'][0])
        check_equal(f'{name} start end', [prepared['start'], prepared['end']], [golden['start'], golden['end']])
        if boxes:
            cubes = [pipeline.box_cube(golden['vol'].shape, box) for box in boxes]
            check_equal(f'{name} cubes', cubes, golden['cubes'])
            check_equal(f'{name} cube_boxes', prepared['cubes'], golden['cube_boxes'])
            check_equal(f'{name} zoom_out_cube_boxes', prepared['zoom_out_cubes'], golden['zoom_out_cube_boxes'])
            check_equal(f'{name} zoom_out_box_prompts', prepared['zoom_out_boxes'], golden['zoom_out_box_prompts'])


def check_regions(folder):
    golden = np.load(folder + 'pipe_logits2roi.npz')
    for i, row in enumerate(golden['rows']):
        shape = tuple(row[:3])
        prediction, cube = pipeline.box_cube(shape, row[3:9]), pipeline.box_cube(shape, row[9:15])
        region = pipeline.region_of_interest(prediction, cube, golden['spatial'])
        check_equal(f'pipe_logits2roi row {i}', np.full(6, -999) if region is None else region, row[15:])


def check_sliding(folder):
    golden = np.load(folder + 'pipe_sliding.npz')
    window = segvol.TINY.spatial
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in window), indexing='ij')
    stored = {'many': np.s_[::3], 'edge': np.s_[::2, ::3, ::3]}
    for tag in ('pad1', 'many', 'exact', 'mixed', 'edge'):
        shape = tuple(golden[tag + '.shape'])
        boxes = []

        def predict(part, box, points):
            boxes.append(box)
            total = torch.tensor(box, dtype=torch.float32).sum()
            return (10 * (torch.from_numpy(part) - 0.5) + 0.01 * total + (z + 2 * y + 3 * x) / 100).numpy()

        cube = pipeline.box_cube(shape, (2, 10, 12, 7, 39, 43))
        out = pipeline.slide(segvol.formula_image(shape, 'sw.' + tag), golden[tag + '.global_preds'], cube, window, predict)
        padded = np.maximum(shape, window)
        check_equal(f'pipe_sliding {tag} interval', pipeline.window_interval(padded, window), golden[tag + '.interval'])
        check_equal(f'pipe_sliding {tag} starts', pipeline.window_starts(padded, window), golden[tag + '.starts'])
        check_equal(f'pipe_sliding {tag} boxes', boxes, golden[tag + '.boxes'])
        check_equal(f'pipe_sliding {tag} out', out[stored.get(tag, np.s_[:])], golden[tag + '.out'][0, 0])
    for name in golden.files:
        if name.startswith('starts_full_'):
            shape = [int(n) for n in name.split('_')[2].split('x')]
            starts = pipeline.window_starts(np.maximum(shape, segvol.FULL.spatial), segvol.FULL.spatial)
            check_equal(f'pipe_sliding {name}', starts, golden[name])


def check_inference(folder):
    errors = read_errors(folder + 'pipe_infer_err.txt')
    preprocess, single = np.load(folder + 'pipe_preprocess.npz'), np.load(folder + 'pipe_infer_single.npz')
    cases = {'multi': (preprocess['vol'], [box_of_fields(preprocess[key]) for key in ('boxA', 'boxB')]),
             'single': (single['vol'], [box_of_fields(single['box'])])}
    for case, (volume, boxes) in cases.items():
        golden = np.load(f'{folder}pipe_infer_{case}.npz')
        for kind in DTYPES:
            predict = pipeline.window_predictor(tiny_model(kind))
            labels, objects = pipeline.segment_volume(volume, boxes, segvol.TINY.spatial, predict)
            name = f'{kind} pipe_infer_{case}'
            check_equal(f'{name} seg', labels, golden['seg' if kind == 'f32' else 'seg_f64'])
            check_equal(f'{name} roi', [found['region'] for found in objects], golden['roi'])
            check_equal(f'{name} model_boxes', [box for box, _ in predict.calls], golden['model_boxes'])
            check_equal(f'{name} nwin', len(predict.calls) - len(boxes), golden['nwin'].sum())
            for i, found in enumerate(objects):
                for key, ours, title in (('logits', 'logits', 'final logits'), ('global', 'global_logits', 'global logits')):
                    want = golden[f'{key}{i}_f64rounded'][0, 0]
                    if kind == 'f64':
                        check_f64(f'{name} {key}{i}', found[ours], want)
                    else:
                        check_f32(f'{name} {key}{i}', found[ours], want, *errors[case, f'{title} class{i}'])


def check_inference_with_points(folder):
    golden, preprocess = np.load(folder + 'pipe_infer_boxpoints.npz'), np.load(folder + 'pipe_preprocess.npz')
    prepared = pipeline.prepare(preprocess['vol'], [box_of_fields(preprocess['boxA'])], segvol.TINY.spatial)
    point_map = np.zeros(prepared['image'].shape, dtype=np.uint8)
    point_map[tuple(golden['point_map_nonzero'].T)] = 1
    global_points = golden['model_points_zyx_label'][0, :2]
    predict = pipeline.window_predictor(tiny_model('f64'))
    torch.manual_seed(0)
    found = pipeline.segment_object(prepared['image'], prepared['zoom_out_image'], prepared['cubes'][0],
                                    prepared['zoom_out_boxes'][0], segvol.TINY.spatial, predict, global_points, point_map)
    check_equal('f64 pipe_infer_boxpoints model_boxes', [box for box, _ in predict.calls], golden['model_boxes'])
    for i, (_, points) in enumerate(predict.calls):
        want = golden['model_points_zyx_label'][i]
        check_equal(f'f64 pipe_infer_boxpoints points of call {i}', points, want[~np.isnan(want[:, 0])])
    check_f64('f64 pipe_infer_boxpoints logits', found['logits'], golden['logits_f64rounded'][0, 0])


# ---- full size ------------------------------------------------------------------------------------------------------------

def full_tensors(model, window, boxes, points, wanted):
    """{name: what is kept of the tensor}: the whole low_res_masks, of the others the values at the golden indices."""
    kept = {}

    def write(name, tensor):
        if name in wanted:
            kept[name] = tensor.flatten()[torch.from_numpy(wanted[name]).long()].numpy()
        if name == 'low_res_masks':
            kept['whole'] = tensor.numpy()

    dtype = next(model.parameters()).dtype
    boxes, points = dump.prompts(1, boxes, points, dtype)
    dump.run(model, torch.from_numpy(window).to(dtype), boxes, points, write)
    return kept


def check_full(folder):
    prompts, samples = golden_prompts(folder + 'prompts.json'), np.load(folder + 'samples.npz')
    window = segvol.formula_image((1, 1, *segvol.FULL.spatial))
    names = sorted({name.split('|')[0] for name in samples.files})
    for kind, dtype in DTYPES.items():
        model = segvol.formula_model(segvol.FULL, dtype)
        for case, points in (('box', None), ('boxpoints', prompts['points'])):
            prefix = 'boxpoints.' if points else ''
            ours = {name: full_to_ours(name[len(prefix):]) for name in names if name.startswith('boxpoints.') == bool(points)}
            wanted = {ours[name]: samples[name + '|idx'] for name in ours}
            kept = full_tensors(model, window, prompts['box'], points, wanted)
            for name in ours:
                largest, relative, _ = samples[name + '|err32']
                if kind == 'f64':
                    check_f64(f'f64 full {name}', kept[ours[name]], samples[name + '|f64'])
                else:
                    check_f32(f'f32 full {name}', kept[ours[name]], samples[name + '|f64'], largest, relative)
            golden = np.load(f'{folder}low_res_masks_{case}.npz')
            if kind == 'f64':
                check_f64(f'f64 full {case} low_res_masks, all', kept['whole'], golden['f64_rounded'])
            else:
                error = differences(golden['f32'], golden['f64_rounded'])
                check_f32(f'f32 full {case} low_res_masks, all', kept['whole'], golden['f64_rounded'], *error)
        del model
    check_full_gru(folder)


def check_full_gru(folder):
    golden = np.load(folder + 'gru_block4.npz')
    sequence = (segvol.uniform('gru.full.seq', 10 * 1600) * 256 - 1).reshape(1, 10, 1600).astype(np.float32)
    coordinates = np.floor(segvol.uniform('gru.full.coords', 1200) * 257 - 1).reshape(1, 400, 3)
    block = segvol.GRUBlock(segvol.FULL)
    block.load_state_dict({name: segvol.formula_tensor('model.gru_blocks.4.' + name, tensor.shape)
                           for name, tensor in block.state_dict().items()})
    for kind, dtype in DTYPES.items():
        states, prob = gru_outputs(block.to(dtype), sequence, coordinates, kind)
        short, _ = gru_outputs(block, sequence[:, :2], coordinates, kind)
        for name, got in (('gru_out_last', states[:, -1]), ('prob', prob), ('gru_out_T2', short[:, -1])):
            want = golden[name + '.f64']
            if kind == 'f64':
                check_f64(f'f64 full gru {name}', got, want)
            else:
                check_f32(f'f32 full gru {name}', got, want, *differences(golden[name + '.f32'], want))


# ---- training --------------------------------------------------------------------------------------------------------------

def names_without_gradient(path):
    """→ parameters that got none, and those whose gradient is exactly zero: two lists, each after a line with #"""
    with open(path) as lines:
        parts = lines.read().split('#')[1:]
    return [set(part.splitlines()[1:]) for part in parts]


def check_gradients(folder, model):
    """k_proj.bias: zero but for rounding."""
    golden = np.load(folder + 'train_grads_B2_boxpoints_it2.npz')
    gradients = {'model.' + name: parameter.grad for name, parameter in model.named_parameters()}
    none, zero = names_without_gradient(folder + 'train_grads_none.txt')
    tally.check({name for name, g in gradients.items() if g is None} == none, 'training: parameters without a gradient')
    tally.check({name for name, g in gradients.items() if g is not None and not g.any()} == zero, 'training: gradients of zeros')
    for name in golden.files:
        if not name.endswith('k_proj.bias'):
            _, relative = differences(gradients[name].numpy(), golden[name])
            tally.check(relative <= 1e-7, f'training: gradient of {name}', f'relative L2 {relative:.2e} of what is stored as float32')


def check_steps(folder, golden, samples):
    """Three steps of AdamW, in float64. After the first one voxels at the window's border have equal probabilities, so that topk's order
    shows: with it all of the golden run comes out, with the raster order its loss moves by 1e-7 and the corrector's weights by more
    (test/golden_train.c, whose C has the raster order). The text prompt's tensors have other sizes there."""
    model = segvol.formula_model(segvol.TINY, torch.float64, corrector=True)
    trainer = train.Trainer(model, train.Options('upstream'))
    ours, segvol.smallest = segvol.smallest, lambda score, k: torch.topk(score, k, largest=False).indices
    losses = [trainer.step(samples, 1e-3, 2, True)['total'] for _ in range(3)]
    losses.append(trainer.backward(samples, 2, True)['total'])
    segvol.smallest = ours
    _, relative = differences(losses, golden['adamw.losses_f64'])
    tally.check(relative <= 1e-12, 'training: losses along three steps', f'relative L2 {relative:.2e}')
    for name, parameter in model.named_parameters():
        key = 'adamw.param|model.' + name
        if key in golden.files and 'text_' not in name and 'txt_' not in name and not name.endswith('k_proj.bias'):
            at = golden[key][0].astype(int)
            _, relative = differences(parameter.detach().flatten().numpy()[at], golden[key][1])
            tally.check(relative <= 1e-9, f'training: {name} after three steps', f'relative L2 {relative:.2e}')


def check_training(folder):
    golden = np.load(folder + 'train_steps.npz')
    images = torch.from_numpy(segvol.formula_image((2, 1, *segvol.TINY.spatial), f'input.train.{golden["image_seed"]}')).double()
    samples = [(images[i, 0], golden['labels'][i] != 0, torch.from_numpy(golden['boxes'][i]).double()) for i in range(2)]
    for batch in (1, 2):
        for stage in ('box', 'box_points'):
            for corrections in (0, 2, 5):
                model = segvol.formula_model(segvol.TINY, torch.float64, corrector=True)
                trainer = train.Trainer(model, train.Options('upstream', slice_dice=batch == 1))
                found = trainer.backward(samples[:batch], corrections, stage == 'box_points')
                name = f'B{batch}.{stage}.it{corrections}'
                check_f64(f'training: loss of {name}', np.array([found['total']]), golden[name + '.loss'][1:])
                if name == 'B2.box_points.it2':
                    check_gradients(folder, model)
    check_steps(folder, golden, samples)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('golden', nargs='?', default=os.path.join(here, '../../../shared/golden'))
    parser.add_argument('--full', action='store_true')
    args = parser.parse_args()
    tiny = os.path.join(args.golden, 'tiny') + os.sep
    for check in (check_boxes, check_resizes, check_preprocess, check_regions, check_sliding,
                  check_tiny_network, check_gru, check_sampling, check_writes, check_inference, check_inference_with_points,
                  check_training):
        check(tiny)
    if args.full:
        check_full(os.path.join(args.golden, 'full') + os.sep)
    sys.exit(tally.finish())


if __name__ == '__main__':
    main()
