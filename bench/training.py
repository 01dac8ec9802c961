"""`make bench-training`: a training step in C against PyTorch's, in turns, in one run.

    training.py DIR SEGFM PROBE [--rounds N] [--threads N] [--batch N]           (PROBE: test/train_probe.c)

Forward, backward and AdamW of an encoder of 6 blocks, 192 wide, on 1024 tokens, with its decoder: the same weights, samples and losses on
both sides (tools/reference/train.py). Stage box, without corrections, and box_points with two. PyTorch has the environment that
bench/bench.py calls tuned. Prints medians, their ratio, and the peaks of resident memory; the losses of both must agree."""
import argparse
import os
import statistics
import subprocess
import sys
import time

import machine
from bench import PAUSE, TUNED
from side import Side

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'tools', 'reference'))
import numpy as np  # noqa: E402

import segvol  # noqa: E402
import train  # noqa: E402
import verify_training  # noqa: E402

MODEL = segvol.Config(spatial=(32, 128, 256), patch=(4, 16, 16), dim=192, depth=6, heads=6, mlp=768,
                      decoder_depth=2, decoder_heads=6, decoder_mlp=384, iou_hidden=96, up1=48, up2=24,
                      gru_blocks=2, gru_hidden=128, topk=64, text_dim=0)
STAGES = [('box', 0), ('box_points', 2)]  # stage, corrections
LOSS_TOLERANCE = 1e-3  # after some steps in float32


def prepare(folder, segfm, batch):
    """Weights for both, samples, a file of steps for each stage."""
    samples = os.path.join(folder, 'samples')
    os.makedirs(samples, exist_ok=True)
    about = {'spatial': MODEL.spatial, 'patch': MODEL.patch, 'heads': MODEL.heads, 'decoder_heads': MODEL.decoder_heads,
             'variant': 'seed', 'provenance': 'formula'}
    checkpoint, weights = os.path.join(folder, 'start.pth'), os.path.join(folder, 'start.segfm')
    train.save_model(segvol.formula_model(MODEL, corrector=True), about, checkpoint)
    subprocess.run([segfm, 'convert', checkpoint, '-o', weights, '--quiet'], check=True)
    for number in range(2 * batch):
        np.savez(os.path.join(samples, f'{number}.npz'), **verify_training.make_sample(MODEL.spatial, number))
    for stage, corrections in STAGES:
        with open(os.path.join(folder, stage + '.steps'), 'w') as steps:
            for first in (0, batch):
                print(1e-4, corrections, stage, *range(first, first + batch), file=steps)


def start_sides(folder, probe, stage, threads):
    files = [os.path.join(folder, name) for name in ('samples', stage + '.steps')]
    weights = os.path.join(folder, 'start')
    limits = {'OMP_NUM_THREADS': str(threads), 'OPENBLAS_NUM_THREADS': str(threads)}
    ours = [probe, weights + '.segfm', *files, '-', f'threads={threads}']
    commands = {
        'segfm': (ours, {}),
        'segfm, recompute': (ours + ['recompute=1'], {}),
        'PyTorch, tuned': ([sys.executable, os.path.join(HERE, 'training_side.py'), weights + '.pth', *files, str(threads)], {**TUNED, **limits}),
    }
    return [Side(name, command, os.path.join(folder, 'side.log'), environment) for name, (command, environment) in commands.items()]


def measure(sides, rounds):
    """→ {name: [seconds]}, {name: [losses]}, the cores that others kept busy. The first step of each is to warm up."""
    seconds, losses = {side.name: [] for side in sides}, {side.name: [] for side in sides}
    watch = machine.Watch(sides)
    for turn in range(rounds + 1):
        for side in sides:
            time.sleep(PAUSE)
            took, loss = side.ask('step')
            losses[side.name].append(loss)
            if turn:
                seconds[side.name].append(took)
    return seconds, losses, watch.others()


def peak(side):
    """Its largest resident memory in MB. Not what the system says of a child that has ended: that counts the moment before the
    program was loaded, when the child was a copy of this process, which has PyTorch in it."""
    with open(f'/proc/{side.process.pid}/status') as status:
        return next(int(line.split()[1]) for line in status if line.startswith('VmHWM:')) * 1024 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    for name in ('folder', 'segfm', 'probe'):
        parser.add_argument(name)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--batch', type=int, default=2)
    args = parser.parse_args()
    prepare(args.folder, args.segfm, args.batch)
    for what, text in machine.describe(args.folder, args.segfm):
        if what in ('processor', 'segfm', 'PyTorch'):
            print(f'{what}: {text}')
    agree = True
    for stage, corrections in STAGES:
        sides = start_sides(args.folder, args.probe, stage, args.threads)
        seconds, losses, others = measure(sides, args.rounds)
        peaks = {side.name: peak(side) for side in sides}
        for side in sides:
            side.close()
        base = statistics.median(seconds[sides[-1].name])
        print(f'\n{stage}, {corrections} corrections, batch {args.batch}, {args.threads} threads, medians of {args.rounds} steps in turns; '
              f'others kept {others:.2f} cores busy\n')
        print('| | s a step | of PyTorch\'s | peak MB | of PyTorch\'s |\n|---|---:|---:|---:|---:|')
        for side in sides:
            median, most = statistics.median(seconds[side.name]), peaks[side.name]
            print(f'| {side.name} | {median:.3f} | {median / base:.2f} | {most:.0f} | {most / peaks[sides[-1].name]:.2f} |')
        apart = max(abs(a - b) / abs(b) for side in sides for a, b in zip(losses[side.name], losses[sides[-1].name]))
        agree = agree and apart <= LOSS_TOLERANCE
        print(f'\nlosses agree to {apart:.1e}', flush=True)
    sys.exit(not agree)


if __name__ == '__main__':
    main()
