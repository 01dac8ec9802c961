"""Runs segvol.py and writes every intermediate tensor as DIR/<name>.npy, under the names that `segfm trace` uses.

    dump.py --config tiny --dtype f64 --window input.image --box 3,10,12,11,40,50 --point 4,30,25,1 --out DIR

Names are module paths of the network (outputs), or the names of steps where a module has two results or none:
sparse, dense_pe, image_embedding, transformer.hs, hyper_in, masks_all4, … `segfm compare DIR DIR2` reads such folders.
Nothing is held in memory longer than the network holds it, so that the full size runs in float64."""
import argparse
import os

import numpy as np
import torch

from segvol import CONFIGS, Config, formula_image, formula_model


def run(model, window, boxes, points, write):
    """One forward pass; write(name, tensor) is called for every intermediate tensor, in the order they are computed."""
    handles, hyper = [], []

    def on_output(path, action):
        def hook(module, inputs, output):
            action(output)  # returns nothing: what a hook returns would replace the output
        handles.append(model.get_submodule(path).register_forward_hook(hook))

    def keep(path, name=None):
        on_output(path, lambda output: write(name or path, output))

    def keep_all(path, names):
        on_output(path, lambda outputs: [write(name, output) for name, output in zip(names, outputs)])

    def keep_masks(outputs):
        masks, iou = outputs
        for name, tensor in (('masks_all4', masks), ('iou_pred_all4', iou),
                             ('low_res_masks', masks[:, :1]), ('iou_pred', iou[:, :1])):
            write(name, tensor)

    def keep_hyper(output):
        hyper.append(output)
        if len(hyper) == model.config.mask_tokens:
            write('hyper_in', torch.stack(hyper, dim=1))

    keep('image_encoder.patch_embedding')
    for i in range(model.config.depth):
        block = f'image_encoder.blocks.{i}'
        for part in ('.norm1', '.attn.qkv', '.attn', '.norm2', '.mlp.linear1', '.mlp', ''):
            keep(block + part)
    keep('image_encoder.norm')
    keep('image_encoder', 'image_embedding')
    keep_all('prompt_encoder', ['sparse'])
    keep('prompt_encoder.pe_layer', 'dense_pe')
    for i in range(model.config.decoder_depth):
        layer = f'mask_decoder.transformer.layers.{i}'
        for part in ('self_attn', 'norm1', 'cross_attn_token_to_image', 'norm2', 'mlp', 'norm3', 'cross_attn_image_to_token'):
            keep(f'{layer}.{part}')
        keep_all(layer, [layer + '.queries', layer + '.keys'])
    keep('mask_decoder.transformer.final_attn_token_to_image')
    keep_all('mask_decoder.transformer', ['transformer.hs', 'transformer.src'])
    for i in (0, 1, 3):
        keep(f'mask_decoder.output_upscaling.{i}')
    keep('mask_decoder.output_upscaling', 'upscaled_embedding')
    for i in range(model.config.mask_tokens):
        on_output(f'mask_decoder.output_hypernetworks_mlps.{i}', keep_hyper)
    on_output('mask_decoder', keep_masks)
    try:
        with torch.no_grad():
            write('logits', model(window, boxes, points))
    finally:
        for handle in handles:
            handle.remove()


def prompts(batch, boxes, points, dtype):
    """Lists of boxes (6 numbers, one per batch item) and points (4 numbers, the same for each item) → tensors or None."""
    if boxes and len(boxes) != batch:
        raise SystemExit(f'dump.py: {len(boxes)} boxes for a batch of {batch}')
    box_tensor = torch.tensor(boxes, dtype=dtype) if boxes else None
    if not points:
        return box_tensor, None
    points = torch.tensor(points, dtype=dtype).expand(batch, -1, -1)
    return box_tensor, (points[..., :3], points[..., 3])


def run_to_folder(model, window, boxes, points, folder):
    """window: array (B,1,D,H,W); boxes, points: lists as in prompts()."""
    os.makedirs(folder, exist_ok=True)
    dtype = next(model.parameters()).dtype
    boxes, points = prompts(len(window), boxes, points, dtype)
    run(model, torch.from_numpy(window).to(dtype), boxes, points,
        lambda name, tensor: np.save(os.path.join(folder, name + '.npy'), tensor.numpy()))


def parse_config(text):
    """tiny, full, fixture, or sizes in the order of the Config class: 8,32,48:2,8,8:48:2:3:80:…:topk"""
    if text in CONFIGS:
        return CONFIGS[text]
    parts = text.split(':')
    axes = [tuple(int(n) for n in part.split(',')) for part in parts[:2]]
    return Config(*axes, *(int(part) for part in parts[2:]))


def load_window(text, config, batch):
    """A .npy file of (D,H,W) or (B,1,D,H,W), or the name of a formula stream."""
    if not text.endswith('.npy'):
        return formula_image((batch, 1, *config.spatial), text)
    window = np.load(text)
    return window[None, None] if window.ndim == 3 else window


def numbers(text):
    return [float(part) for part in text.split(',')]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--config', default='tiny', help='tiny, full, fixture, or the sizes joined by colons')
    parser.add_argument('--dtype', choices=['f32', 'f64'], default='f32')
    parser.add_argument('--window', default='input.image', help='.npy file or the name of a formula stream')
    parser.add_argument('--batch', type=int, default=1, help='windows taken from the formula stream')
    parser.add_argument('--box', type=numbers, action='append', metavar='z0,y0,x0,z1,y1,x1', help='once per window of the batch')
    parser.add_argument('--point', type=numbers, action='append', metavar='z,y,x,label')
    parser.add_argument('--out', required=True)
    args = parser.parse_args()
    if not args.box and not args.point:
        parser.error('a --box or a --point is needed')
    config = parse_config(args.config)
    model = formula_model(config, torch.float64 if args.dtype == 'f64' else torch.float32)
    run_to_folder(model, load_window(args.window, config, args.batch), args.box, args.point, args.out)


if __name__ == '__main__':
    main()
