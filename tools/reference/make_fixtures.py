"""Writes test/fixtures: small reference tensors for `make test`, which has neither PyTorch nor the golden files.

    make_fixtures.py [OUT_DIR]

Everything is computed in float64 by segvol.py and pipeline.py (which check_golden.py has compared with upstream) for the configuration
`fixture` with formula weights. Deterministic up to the last bit of PyTorch's matrix library."""
import os
import sys

import numpy as np
import torch

import dump
import pipeline
import segvol
from segvol import FIXTURE

BOX = [2, 4, 6, 7, 13, 27]
POINTS = [[3, 9, 20, 1], [8, 14, 5, 0], [0, 0, 34, 1], [-1, -1, -1, -1]]
CONFIG_FIELDS = ('spatial', 'patch', 'dim', 'depth', 'heads', 'mlp', 'decoder_depth', 'decoder_heads', 'decoder_mlp',
                 'decoder_cross_dim', 'mask_tokens', 'iou_hidden', 'iou_layers', 'hyper_layers', 'up1', 'up2',
                 'gru_blocks', 'gru_hidden', 'topk', 'text_dim')
# Kept in float64 although not tiny: what everything before flows into.
EXACT = {'sparse', 'transformer.hs'}
# In the box prompt's file alone: large, and computed from the others in the same way for every prompt.
BOX_ONLY = ('mask_decoder.output_upscaling', 'upscaled_embedding', 'masks_all4', 'transformer.src', 'logits')

README = """# Reference tensors for `make test`

Made by `/usr/bin/python3 tools/reference/make_fixtures.py` (PyTorch 1.13, float64; not needed to run the tests). Weights and
windows come from the formula (`weights_formula_source`, `weights_uniform`), so none are stored. Tensors have the names of `segfm trace`;
those of more than 120 numbers are stored rounded to float32, except `sparse` and `transformer.hs`.

| file | what |
| --- | --- |
| encoder.npz | `config` (the fields of weights_config in order), the image encoder's tensors, `dense_pe`; window = stream `input.image` |
| box.npz | `box`, and all of the decoder for it |
| points.npz, boxpoints.npz | the same for `points` (z y x label), alone and with `box`; without the upscaled volumes, whose checksum is `low_res_masks` |
| gru.npz | `rows` (10, 8K), `coords` (2K,3); block s on the first 2(s+1) rows: `step{s}.states`, `step{s}.prob` (upstream variant) |
| pipeline.npz | three scans through the whole zoom-out, zoom-in: `many.` (2 objects, many windows), `one.` and `small.` (1 object, 1 window); see below |
| geometry.npz | tables: regions of interest, window plans, boxes of masks, nearest sources |

pipeline.npz is made with formula weights changed in six places, so that the network marks what is bright (`bright_model` says why):

    image_encoder.patch_embedding.patch_embeddings.1.weight   row 0 = 0.2f            (the first patch-volume elements)
    image_encoder.patch_embedding.patch_embeddings.1.bias     element 0 = −0.06·(voxels of a patch), rounded to float
    mask_decoder.output_upscaling.0.weight                    input channel 0 = 1     (the first 8·up1 elements)
    mask_decoder.output_upscaling.3.weight                    absolute value
    mask_decoder.output_upscaling.3.bias                      all −2
    mask_decoder.output_hypernetworks_mlps.0.layers.2.bias    all 1

For each scan (prefix `many.`, `one.`, `small.`): `volume` u8, `boxes` (n,6) inclusive, `stats` (threshold, lower, upper, mean, std, count, as
numpy has them in float32), `start` and `end` (exclusive) of the foreground crop, `image` (the cropped image in [0,1], sampled), `zoom_boxes` (n,6), `labels` u8;
per object i: `global{i}` (logits of the zoom-out pass, [:, ::3, ::3]), `region{i}` (bounds as SPEC 4.2 has them), `starts{i}` (windows, in padded coordinates),
`window_boxes{i}`, `logits{i}` over the crop (sampled), `margin{i}` (smallest |logit| anywhere: a float
build whose logits are closer than that has no excuse for another label map). Sampled: every [::2, ::3, ::3] of `many`, [::2, ::2, ::2] of the others.

geometry.npz: `regions` rows: shape(3), box of the prediction(6, −1: none), prompt box(6), window(3), region(6, −999: none). `plans` rows:
shape(3), window(3), zeros before(3), interval(3), windows per axis(3), then the last start per axis(3). `mask{i}` u8 and `mask_boxes` (i,6).
`nearest` rows: in, out, sum over i of source(i), sum over i of (i+1)·source(i).
"""


def keep(tensors, name, tensor):
    array = tensor.numpy()
    tensors[name] = array if array.size <= 120 or name in EXACT else array.astype(np.float32)


def network_fixtures():
    """{file: {name: array}} of the three prompts; the encoder's tensors, the same for all, are one more file."""
    model = segvol.formula_model(FIXTURE, torch.float64)
    window = torch.from_numpy(segvol.formula_image((1, 1, *FIXTURE.spatial))).double()
    files = {'encoder': {'config': np.concatenate([np.ravel(getattr(FIXTURE, field)) for field in CONFIG_FIELDS])}}
    for case, boxes, points in (('box', [BOX], None), ('points', None, POINTS), ('boxpoints', [BOX], POINTS)):
        tensors = {}
        dump.run(model, window, *dump.prompts(1, boxes, points, torch.float64), lambda n, t: keep(tensors, n, t))
        files[case] = {'box': np.array(BOX)} if boxes else {}
        files[case].update({'points': np.array(POINTS)} if points else {})
        for name, tensor in tensors.items():
            if name.startswith('image_e') or name == 'dense_pe':
                files['encoder'][name] = tensor
            elif case == 'box' or not name.startswith(BOX_ONLY):
                files[case][name] = tensor
    return files


def gru_fixture():
    model = segvol.formula_model(FIXTURE, torch.float64, corrector=True)
    rows = segvol.formula_image((2 * FIXTURE.gru_blocks, 8 * FIXTURE.topk), 'fixture.rows') * 64 - 1
    coords = np.floor(segvol.uniform('fixture.coords', 6 * FIXTURE.topk) * 36).reshape(-1, 3) - 1
    out = {'rows': rows, 'coords': coords.astype(np.int64)}
    for s, block in enumerate(model.gru_blocks):
        with torch.no_grad():
            states, prob = block(torch.from_numpy(rows[None, :2 * (s + 1)]).double(), torch.from_numpy(coords[None]))
        out[f'step{s}.states'], out[f'step{s}.prob'] = states[0].numpy(), prob[0].numpy()
    return out


# ---- pipeline --------------------------------------------------------------------------------------------------------------

def ellipsoid(shape, centre, radius):
    offsets = np.moveaxis(np.indices(shape), 0, -1) - np.array(centre)
    return ((offsets / np.array(radius)) ** 2).sum(-1) <= 1


def scan(shape, name, body, organs):
    """A uint8 volume: background 0..3, a body, organs on it, and a little noise everywhere. Few grey values: it compresses."""
    noise = np.floor(segvol.uniform(name, int(np.prod(shape))) * 4).reshape(shape)
    volume = noise + 50 * ellipsoid(shape, *body)
    for level, (centre, radius) in organs:
        volume += level * ellipsoid(shape, centre, radius)
    return volume.astype(np.uint8)


def segment(model, volume, boxes, stored=np.s_[::2, ::2, ::2]):
    """What pipeline.py makes of a scan, step by step. stored: the voxels of image and logits that are kept."""
    predict = pipeline.window_predictor(model)
    labels, objects = pipeline.segment_volume(volume, boxes, FIXTURE.spatial, predict)
    prepared = pipeline.prepare(volume, boxes, FIXTURE.spatial)
    out = {'volume': volume, 'boxes': np.array(boxes), 'stats': np.array(pipeline.foreground_statistics(volume), np.float64),
           'start': prepared['start'], 'end': prepared['end'], 'image': prepared['image'][stored],
           'zoom_boxes': np.array(prepared['zoom_out_boxes']), 'labels': labels}
    calls = iter(box.astype(np.int64) for box, _ in predict.calls)
    for i, found in enumerate(objects):
        next(calls)  # the zoom-out pass
        region = found['region']
        shape = prepared['image'][pipeline.box_slices(region)].shape
        starts = pipeline.window_starts(np.maximum(shape, FIXTURE.spatial), FIXTURE.spatial)
        margin = min(np.abs(found['logits']).min(), np.abs(found['global_logits']).min())
        if margin < 1e-4:
            raise SystemExit(f'a logit is {margin:.1e}: the label map would depend on rounding; change the scan')
        out.update({f'global{i}': found['global_logits'][:, ::3, ::3].astype(np.float32), f'region{i}': region,
                    f'starts{i}': np.array(starts), f'window_boxes{i}': np.array([next(calls) for _ in starts]),
                    f'logits{i}': found['logits'][stored].astype(np.float32), f'margin{i}': np.array(margin)})
    return out


def bright_model(config, dtype=torch.float64, corrector=False):
    """Formula weights, bent until the network finds what is bright: with plain formula weights masks are noise all over the
    volume, and a pipeline that forgot its regions and window boxes would hardly be noticed. Channel 0 of a token becomes its patch's
    brightness, every upscaled channel grows with it, and mask 0 is about the sum of those."""
    model = segvol.formula_model(config, dtype, corrector)
    tensors = model.state_dict()
    embedding = 'image_encoder.patch_embedding.patch_embeddings.1.'
    tensors[embedding + 'weight'][0] = 0.2
    tensors[embedding + 'bias'][0] = -0.06 * int(np.prod(config.patch))
    tensors['mask_decoder.output_upscaling.0.weight'][0] = 1
    tensors['mask_decoder.output_upscaling.3.weight'].abs_()
    tensors['mask_decoder.output_upscaling.3.bias'].fill_(-2)
    tensors['mask_decoder.output_hypernetworks_mlps.0.layers.2.bias'].fill_(1)
    for name, tensor in tensors.items():  # what a float32 weights file holds
        tensor.copy_(tensor.float())
    return model


def many_scan():
    """Two bright organs far apart: regions smaller than the scan, windows without any prediction."""
    volume = scan((24, 45, 90), 'fixture.many.6', ((12, 22, 44), (10, 20, 40)),
                  [(120, ((6, 15, 22), (3, 4, 6))), (150, ((17, 29, 67), (3, 4, 6)))])
    return volume, [[3, 12, 15, 7, 18, 25], [16, 27, 62, 20, 33, 72]]


def one_scan():
    """One window: an odd deficit in x (a region of 34 for a window of 35), a clamped one in z."""
    volume = scan((14, 40, 47), 'fixture.one', ((7, 20, 23), (6.6, 18, 21)), [(140, ((4, 20, 23), (2.5, 4, 5)))])
    return volume, [[2, 17, 19, 6, 23, 27]]


def small_scan():
    """A scan smaller than the window; the region's upper y bound is the axis length itself."""
    volume = scan((9, 17, 32), 'fixture.small', ((4, 8, 16), (4.2, 8.3, 15)), [(140, ((4, 9, 13), (2, 4, 6)))])
    return volume, [[2, 5, 7, 6, 13, 19]]


def pipeline_fixture():
    model = bright_model(FIXTURE)
    parts = {'many': segment(model, *many_scan(), np.s_[::2, ::3, ::3]),
             'one': segment(model, *one_scan()),
             'small': segment(model, *small_scan())}
    return {f'{part}.{name}': array for part, tensors in parts.items() for name, array in tensors.items()}


# ---- geometry --------------------------------------------------------------------------------------------------------------

def random_box(random, shape):
    ends = np.sort(np.array([random.integers(0, n, 2) for n in shape]), axis=1)
    return np.concatenate([ends[:, 0], ends[:, 1]])


def region_rows(random, count):
    rows = []
    for i in range(count):
        shape, window = random.integers(5, 60, 3), random.integers(4, 40, 3)
        found, box = random_box(random, shape), random_box(random, shape)
        found, box = (pipeline.NO_BOX if i % 5 == 0 else found), (pipeline.NO_BOX if i % 3 == 0 else box)
        region = pipeline.region_of_interest(pipeline.box_cube(shape, found), pipeline.box_cube(shape, box), window)
        rows.append(np.concatenate([shape, found, box, window, np.full(6, -999) if region is None else region]))
    return np.array(rows)


def plan_rows(random, count):
    rows = []
    for _ in range(count):
        shape, window = random.integers(1, 80, 3), random.integers(1, 40, 3)
        padded = np.maximum(shape, window)
        starts = np.array(pipeline.window_starts(padded, window))
        before = [pad[0] for pad in pipeline.pad_amounts(shape, window)]
        per_axis = [len(np.unique(starts[:, axis])) for axis in range(3)]
        rows.append(np.concatenate([shape, window, before, pipeline.window_interval(padded, window), per_axis, starts[-1]]))
    return np.array(rows)


def nearest_rows(random, count):
    rows = []
    for n_in, n_out in [(64, 110), *random.integers(1, 600, (count, 2)).tolist()]:
        sources = pipeline.nearest_sources(n_in, n_out)
        rows.append([n_in, n_out, sources.sum(), (np.arange(1, n_out + 1) * sources).sum()])
    return np.array(rows)


def geometry_fixture():
    random = np.random.default_rng(1)
    masks = {f'mask{i}': (random.random((6 + i, 9, 11 - i)) < density).astype(np.uint8)
             for i, density in enumerate((0, 0.002, 0.01, 0.02, 0.05, 0.4))}
    return {'regions': region_rows(random, 60), 'plans': plan_rows(random, 60), 'nearest': nearest_rows(random, 300),
            **masks, 'mask_boxes': np.array([pipeline.mask_box(mask) for mask in masks.values()])}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, '../../test/fixtures')
    os.makedirs(out, exist_ok=True)
    files = {**network_fixtures(), 'gru': gru_fixture(), 'pipeline': pipeline_fixture(), 'geometry': geometry_fixture()}
    for name, arrays in files.items():
        path = os.path.join(out, name + '.npz')
        np.savez_compressed(path, **arrays)
        print(f'{os.path.getsize(path):7} {path}')
    with open(os.path.join(out, 'README.md'), 'w') as readme:
        readme.write(README)


if __name__ == '__main__':
    main()
