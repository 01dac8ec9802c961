"""PyTorch as a side of the benchmark (what it is asked: bench/side.py): torch_side.py DIR THREADS, DIR as bench/export.py filled it."""
import os
import sys
import time

import torch

import network


class Actions:
    def __init__(self, folder):
        self.model = network.load(os.path.join(folder, 'full.pt'))
        self.decode = network.Decoder(self.model)
        self.window, self.box = network.window(), network.box()
        self.two_blocks = network.blocks(self.model)
        self.tokens = None

    def load(self):
        return 0

    def encoder(self):
        start = time.perf_counter()
        self.embedding = self.model.image_encoder(self.window)
        return time.perf_counter() - start

    def decoder(self):
        start = time.perf_counter()
        self.masks, _ = self.decode(self.embedding, self.box)
        return time.perf_counter() - start

    def calls(self, count):
        """A model call as upstream makes them: each runs the encoder and the decoder."""
        times = [self.encoder() + self.decoder() for _ in range(int(count))]
        return ' '.join(map(str, [sum(times)] + times))

    def blocks(self, count):
        if self.tokens is None or self.tokens.shape[1] != int(count):
            self.tokens = network.tokens(int(count))
        start = time.perf_counter()
        self.two_blocks(self.tokens)
        return time.perf_counter() - start

    def save(self, folder):
        self.embedding.numpy().tofile(os.path.join(folder, 'embedding.f32'))
        self.masks.numpy().tofile(os.path.join(folder, 'masks.f32'))
        return 0


def main():
    folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    actions = Actions(folder)
    print('ready', flush=True)
    for line in sys.stdin:
        action, *rest = line.split()
        print(getattr(actions, action)(*rest), flush=True)


if __name__ == '__main__':
    with torch.no_grad():
        main()
