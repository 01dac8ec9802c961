"""The trainer in PyTorch: the losses, gradients and steps that train/train.h describes, on samples from files.

    train.py --weights X.pth --samples DIR --steps FILE --out Y.pth [--device cuda] [--double] ...

X.pth is what `segfm convert W -o X.pth` writes; `segfm convert Y.pth -o W` takes the result back. A sample is DIR/NAME.npz with `image`
(z,y,x) in [0,1], `truth` (z,y,x) of 0 and 1, and `box` (6), z0 y0 x0 z1 y1 x1. FILE says what each step is made of, a line each:

    RATE CORRECTIONS STAGE NAME NAME ...      the learning rate, GRU steps (0-5), box or box_points, the samples of the batch

so that another program can be given the same. Standard output: a line per step, the numbers of LOSSES, means over the batch, with tabs."""
import argparse
import os
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

import metrics
import pipeline
import segvol

LOSSES = ('total', 'dice', 'bce', 'dice_points', 'bce_points', 'consistency', 'boundary')
PARTS = {'encoder': ('image_encoder.',), 'decoder': ('prompt_encoder.', 'mask_decoder.'), 'corrector': ('gru_blocks.',)}


@dataclass(frozen=True)
class Options:
    variant: str = 'seed'
    all_clicks: bool = False    # the second decoder pass is told all clicks, not the last one alone
    chain: bool = False         # its clicks are simulated on its own masks, each told of the clicks before
    slice_dice: bool = False    # Dice per slice: upstream's for a batch of one
    consistency: float = 0.0    # weights of these losses
    boundary: float = 0.0


# ---- the loss of an example ------------------------------------------------------------------------------------------------

def dice(logits, truth, slices=False):
    """1 − 2·Σ p·t / (Σ p + Σ t + 1) of a volume (z,y,x), or the mean of its slices'."""
    p, dims = logits.sigmoid(), (1, 2) if slices else (0, 1, 2)
    return (1 - 2 * (p * truth).sum(dims) / (p.sum(dims) + truth.sum(dims) + 1)).mean()


def border_distance(truth):
    """Distance of each voxel's centre to the nearest voxel of the other kind, negative inside, divided by the largest; 0 where there is
    one kind only. truth: bool (z,y,x)"""
    if truth.all() or not truth.any():
        return np.zeros(truth.shape)
    distance = ndimage.distance_transform_edt(~truth) - ndimage.distance_transform_edt(truth)
    return distance / np.abs(distance).max()


def clicks_on(truth, variant):
    """For segvol.correct: the click that a user would make next. Upstream takes raw logits above ½ for the prediction, and draws among
    the deepest voxels of the largest error; seed takes the first of them."""
    def next_click(step, logits):
        logits = logits.detach().cpu().numpy()
        prediction = logits > 0.5 if variant == 'upstream' else pipeline.foreground(logits)
        return tuple(metrics.simulate_click(truth, prediction, official=variant == 'upstream'))
    return next_click


def losses_of(model, image, truth, box, corrections, points, options):
    """image (z,y,x), truth (z,y,x) bool in numpy, box (6) → {name of LOSSES: scalar tensor}. corrections: how many GRU steps; points:
    stage box_points, a second decoder pass with the box and clicks, when there are any."""
    inside, boxes = torch.from_numpy(truth).to(image), box[None]
    embedding, dense_pe = model.image_encoder(image[None, None]), model.prompt_encoder.pe_layer()

    def decode(clicks=None):
        sparse, dense = model.prompt_encoder(boxes, clicks)
        masks, _ = model.mask_decoder(embedding, dense_pe, sparse, dense)
        return F.interpolate(masks[:, :1], size=model.config.spatial, mode='trilinear', align_corners=False)[0, 0]

    def both(logits):
        return dice(logits, inside, options.slice_dice), F.binary_cross_entropy_with_logits(logits, inside)

    first = logits = decode()
    clicks = []
    next_click = clicks_on(truth, options.variant)
    if corrections:
        for step in segvol.correct(model.gru_blocks, model.config.topk, first, next_click, corrections,
                                   torch.from_numpy(truth).to(image.device), options.variant):
            logits = step['corrected']
            clicks.append(step['click'])
    elif points and options.variant == 'seed':  # upstream has no such pass then
        clicks = [click for click in [first.new_tensor(next_click(0, first))] if click[3] >= 0]
    found = dict.fromkeys(LOSSES, logits.new_zeros(()))
    found['dice'], found['bce'] = both(logits)
    total, passes = found['dice'] + found['bce'], 1
    if points and clicks and options.chain:
        wanted, clicks = len(clicks), clicks[:1]
        while len(clicks) < wanted:
            so_far = torch.stack(clicks)[None]
            with torch.no_grad():
                click = first.new_tensor(next_click(len(clicks), decode((so_far[..., :3], so_far[..., 3]))))
            if click[3] < 0:
                break
            clicks.append(click)
    if points and clicks:
        told = torch.stack(clicks if options.all_clicks else clicks[-1:])[None]
        found['dice_points'], found['bce_points'] = both(decode((told[..., :3], told[..., 3])))
        total, passes = total + found['dice_points'] + found['bce_points'], 2
    if options.consistency:
        found['consistency'] = ((first.sigmoid() - logits.sigmoid()) ** 2).mean()
    if options.boundary:
        found['boundary'] = (logits.sigmoid() * torch.from_numpy(border_distance(truth)).to(image)).mean()
    found['total'] = total / passes + options.consistency * found['consistency'] + options.boundary * found['boundary']
    return found


# ---- files ------------------------------------------------------------------------------------------------------------------

def load_sample(folder, name, dtype, device):
    with np.load(os.path.join(folder, name + '.npz')) as arrays:
        image, box = (torch.from_numpy(np.asarray(arrays[key])).to(device, dtype) for key in ('image', 'box'))
        return image, arrays['truth'] != 0, box


def read_steps(path):
    """[(rate, corrections, points, names)]"""
    with open(path) as lines:
        rows = [line.split() for line in lines if line.strip() and not line.startswith('#')]
    if any(stage not in ('box', 'box_points') for _, _, stage, *_ in rows):
        raise SystemExit(f'{path}: the stage needs to be box or box_points')
    return [(float(rate), int(corrections), stage == 'box_points', names) for rate, corrections, stage, *names in rows]


def config_of(state, about):
    """The sizes that tensors and the entry 'segfm' of a checkpoint tell; names as in the state dict of segvol.SegVol."""
    count = lambda prefix: 1 + max((int(n[len(prefix):].split('.')[0]) for n in state if n.startswith(prefix)), default=-1)
    size = lambda name, axis=0: state[name].shape[axis] if name in state else 0
    decoder, gru = 'mask_decoder.', 'gru_blocks.0.gru.'
    return segvol.Config(
        spatial=tuple(about['spatial']), patch=tuple(about['patch']), heads=about['heads'], decoder_heads=about['decoder_heads'],
        dim=size('image_encoder.norm.weight'), depth=count('image_encoder.blocks.'),
        mlp=size('image_encoder.blocks.0.mlp.linear1.weight'), decoder_depth=count(decoder + 'transformer.layers.'),
        decoder_mlp=size(decoder + 'transformer.layers.0.mlp.lin1.weight'), mask_tokens=size(decoder + 'mask_tokens.weight'),
        iou_hidden=size(decoder + 'iou_prediction_head.layers.0.weight'), iou_layers=count(decoder + 'iou_prediction_head.layers.'),
        hyper_layers=count(decoder + 'output_hypernetworks_mlps.0.layers.'), up1=size(decoder + 'output_upscaling.0.weight', 1),
        up2=size(decoder + 'output_upscaling.3.weight', 1), gru_blocks=count('gru_blocks.'), gru_hidden=size(gru + 'weight_hh_l0', 1),
        topk=size(gru + 'weight_ih_l0', 1) // 8, text_dim=size('text_encoder.dim_align.weight', 1),
        gru_offsets='gru_blocks.0.fc_coord.weight' in state)


def load_model(path, dtype=torch.float32, device='cpu'):
    """→ the model, with exactly the checkpoint's tensors, and its entry 'segfm'"""
    saved = torch.load(path, map_location='cpu')
    model = segvol.SegVol(config_of({name.split('.', 1)[1]: t for name, t in saved['model_state_dict'].items()}, saved['segfm']))
    segvol.load_upstream(model, saved['model_state_dict'])
    return model.to(device, dtype), saved['segfm']


def save_model(model, about, path):
    """As load_model takes it, and `segfm convert`."""
    state = OrderedDict(('model.' + name, tensor.detach().float().cpu().clone()) for name, tensor in model.state_dict().items())
    torch.save({'model_state_dict': state, 'segfm': about}, path + '.part')
    os.replace(path + '.part', path)


# ---- training ---------------------------------------------------------------------------------------------------------------

class Trainer:
    def __init__(self, model, options, decay=1e-5, betas=(0.9, 0.999), eps=1e-8, clip=0.0, parts=tuple(PARTS)):
        self.model, self.options, self.clip = model, options, clip
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(tuple(prefix for part in parts for prefix in PARTS[part])))
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, betas=betas, eps=eps, weight_decay=decay)

    def backward(self, samples, corrections, points):
        """Gradients of the mean loss of the batch; → the losses' means. Once a parameter has got a gradient it keeps one, of zeros
        where a step does not reach it; one that never got any is passed over by the optimiser."""
        self.optimiser.zero_grad(set_to_none=False)
        sums = dict.fromkeys(LOSSES, 0.0)
        for image, truth, box in samples:
            found = losses_of(self.model, image, truth, box, corrections, points, self.options)
            (found['total'] / len(samples)).backward()
            sums = {name: sums[name] + found[name].item() / len(samples) for name in LOSSES}
        return sums

    def step(self, samples, rate, corrections, points):
        found = self.backward(samples, corrections, points)
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for group in self.optimiser.param_groups:
            group['lr'] = rate
        self.optimiser.step()
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    for name in ('--weights', '--samples', '--steps', '--out'):
        parser.add_argument(name, required=True)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--double', action='store_true')
    parser.add_argument('--variant', choices=('seed', 'upstream'), help='default: the weights\'')
    parser.add_argument('--all-clicks', action='store_true')
    parser.add_argument('--chain', action='store_true')
    parser.add_argument('--slice-dice', action='store_true')
    parser.add_argument('--consistency', type=float, default=0.0)
    parser.add_argument('--boundary', type=float, default=0.0)
    parser.add_argument('--decay', type=float, default=1e-5)
    parser.add_argument('--clip', type=float, default=0.0)
    parser.add_argument('--parts', nargs='+', choices=tuple(PARTS), default=tuple(PARTS))
    args = parser.parse_args()
    dtype = torch.float64 if args.double else torch.float32
    model, about = load_model(args.weights, dtype, args.device)
    options = Options(args.variant or about['variant'], args.all_clicks, args.chain, args.slice_dice, args.consistency, args.boundary)
    trainer = Trainer(model, options, decay=args.decay, clip=args.clip, parts=tuple(args.parts))
    steps = read_steps(args.steps)
    for rate, corrections, points, names in steps:
        samples = [load_sample(args.samples, name, dtype, args.device) for name in names]
        found = trainer.step(samples, rate, corrections, points)
        print(*(f'{found[name]:.17g}' for name in LOSSES), sep='\t', flush=True)
    save_model(model, dict(about, provenance=f"{about['provenance']}; {len(steps)} steps of train.py"), args.out)


if __name__ == '__main__':
    main()
