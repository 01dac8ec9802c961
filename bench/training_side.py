"""PyTorch as a side of bench/training.py: training_side.py WEIGHTS SAMPLES STEPS THREADS. Each line `step` runs the next step of the
file, going round, and is answered with its seconds and its loss (bench/side.py)."""
import os
import sys
import time

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tools', 'reference'))
import train  # noqa: E402


def main():
    weights, folder, steps, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model, _ = train.load_model(weights)
    trainer = train.Trainer(model, train.Options())
    steps = train.read_steps(steps)
    samples = {name: train.load_sample(folder, name, torch.float32, 'cpu') for _, _, _, names in steps for name in names}
    print('ready', flush=True)
    for number, line in enumerate(sys.stdin):
        rate, corrections, points, names = steps[number % len(steps)]
        start = time.perf_counter()
        found = trainer.step([samples[name] for name in names], rate, corrections, points)
        print(time.perf_counter() - start, found['total'], flush=True)


if __name__ == '__main__':
    main()
