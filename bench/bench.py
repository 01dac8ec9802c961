"""`make bench`: segfm against PyTorch, ONNX Runtime, OpenBLAS and oneDNN, on the same weights and inputs, in one run.

    bench.py DIR SEGFM [--quick]

scripts/bench.sh fills DIR and calls this. Every rival is a process of its own that lives through the measurements; they
take turns, A B C A B C …, so that each is warm and only one computes at a time. Writes DIR/bench.csv (every sample),
DIR/bench.md and DIR/bench.svg. A rival that is not there or breaks down is listed as missing."""
import argparse
import csv
import os
import sys
import time

import machine
import report
from side import Failed, Side

HERE = os.path.dirname(os.path.abspath(__file__))
TUNED = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 34), 'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}
NETWORKS = ['segfm', 'PyTorch, tuned', 'ONNX Runtime', 'PyTorch, default']
LIBRARIES = ['segfm', 'OpenBLAS', 'oneDNN', 'oneDNN, packed']
# The full model's products: patches, qkv, projection, both of the MLP, decoder's projections, both transposed convolutions,
# token MLP, masks; then small ones.
SHAPES = [(2048, 768, 1024), (2048, 2304, 768), (2048, 768, 768), (2048, 3072, 768), (2048, 768, 3072), (2048, 384, 768),
          (2048, 1536, 768), (16384, 768, 192), (7, 2048, 768), (4, 131072, 96),
          (1024, 1024, 1024), (512, 512, 512), (256, 256, 256), (128, 128, 128), (64, 64, 64)]
QUICK_SHAPES = [(2048, 2304, 768), (2048, 768, 3072), (16384, 768, 192), (256, 256, 256)]
TOKENS = [128, 256, 512, 1024, 2048, 4096]
SCAN_WINDOWS = 6  # and one pass over the whole scan: the seven model calls of a 120 x 512 x 512 scan with a large object
PAUSE = 0.03      # between two sides: threads that wait for work spin for a moment


class Bench:
    def __init__(self, folder, segfm, quick):
        self.folder, self.segfm, self.quick = folder, segfm, quick
        self.rows, self.missing = [], {}

    # ---- sides -----------------------------------------------------------------------------------------------------------

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def command(self, name, threads):
        """→ (command, files that must be there, environment)"""
        threads = str(threads)
        limits = {'OMP_NUM_THREADS': threads, 'OPENBLAS_NUM_THREADS': threads}
        pytorch = [sys.executable, os.path.join(HERE, 'torch_side.py'), self.folder, threads]
        runtime = self.path('node_modules', 'onnxruntime-node')
        script = os.path.join(HERE, 'ort_side.js')
        segfm = [self.segfm, 'bench', '--serve', '--threads', threads]
        full = ['-w', self.path('full.segfm')] if os.path.exists(self.path('full.segfm')) else ['--full']
        networks = {
            'segfm': (segfm + full, [], {}),
            'segfm, half': (segfm + ['-w', self.path('half.segfm')], ['half.segfm'], {}),
            'PyTorch, tuned': (pytorch, ['full.pt'], {**TUNED, **limits}),
            'PyTorch, default': (pytorch, ['full.pt'], limits),
            'ONNX Runtime': (['node', script, self.folder, runtime, threads],
                             ['node_modules/onnxruntime-node/package.json', 'encoder.onnx', 'decoder.onnx', 'blocks.onnx'], TUNED),
        }
        libraries = {'OpenBLAS': 'openblas', 'oneDNN': 'onednn', 'oneDNN, packed': 'onednn_packed', 'peak': 'peak'}
        return networks.get(name) or ([self.path(libraries[name])], [libraries[name]], {})

    def start(self, name, threads):
        """→ the side, or None when it is missing"""
        command, files, environment = self.command(name, threads)
        absent = [file for file in files if not os.path.exists(self.path(file))]
        if name in self.missing or absent:
            self.missing.setdefault(name, f'{self.path(absent[0])} was not made' if absent else '')
            return None
        log = self.path('log', name.replace(', ', '-').replace(' ', '-') + f'-{threads}.log')
        try:
            return Side(name, command, log, environment)
        except (Failed, OSError) as error:
            self.missing[name] = str(error)
            return None

    def start_all(self, names, threads):
        return [side for side in (self.start(name, threads) for name in names) if side]

    def ask(self, side, request):
        """→ the answer's numbers, or None: the side broke down and is missing from now on"""
        if side.name in self.missing:
            return None
        try:
            return side.ask(request)
        except Failed as error:
            self.missing[side.name] = f'{request}: {error}'
            return None

    # ---- samples ---------------------------------------------------------------------------------------------------------

    def add(self, measure, size, threads, side, value, unit='s'):
        self.rows.append({'measure': measure, 'size': size, 'threads': threads, 'side': side, 'value': value, 'unit': unit})

    def turn(self, side, threads, requests):
        """requests: (measure, size, request) → each one's seconds become a row"""
        time.sleep(PAUSE)
        for measure, size, request in requests:
            answer = self.ask(side, request)
            if answer is not None and measure:
                self.add(measure, size, threads, side.name, answer[0])

    def watched(self, what, threads, sides, work):
        """Runs work(); records how many cores other processes kept busy meanwhile."""
        watch = machine.Watch(sides)
        print(f'{what}, {threads} thread{"s" if threads > 1 else ""} …', flush=True)
        work()
        self.add('others', what, threads, '', watch.others(), 'cores')

    # ---- what is measured ------------------------------------------------------------------------------------------------

    def loaded(self, name, threads):
        side = self.start(name, threads)
        if side and self.ask(side, 'load') is not None:
            self.add('load', 'full', threads, name, time.perf_counter() - side.started)
        return side

    def window(self, threads, rounds):
        """Encoder and decoder of one window. rounds: of each side."""
        sides = [side for side in (self.loaded(name, threads) for name in NETWORKS) if side]

        def work():
            for side in sides:
                if side.name != 'PyTorch, default':  # is as slow the second time: it gives its memory back
                    self.turn(side, threads, [(None, '', 'encoder'), (None, '', 'decoder')])
            for turn in range(max(rounds.values())):
                for side in sides:
                    if turn < rounds[side.name]:
                        self.turn(side, threads, [('encoder', 'full', 'encoder'), ('decoder', 'full', 'decoder'),
                                                  ('decoder', 'full', 'decoder')])
        self.watched('window', threads, sides, work)
        for side in sides:
            folder = self.path('results', side.name.replace(', ', '-').replace(' ', '-'))
            os.makedirs(folder, exist_ok=True)
            self.ask(side, 'save ' + folder)
            self.add('memory', 'full', threads, side.name, side.close(), 'bytes')
        self.compare([side.name for side in sides if side.name not in self.missing], threads)

    def compare(self, names, threads):
        for name in names[1:] if names[:1] == ['segfm'] else []:
            for tensor, value in report.differences(self.path('results'), 'segfm', name).items():
                self.add('difference', tensor, threads, name, value, '')

    def half_memory(self, threads):
        side = self.start('segfm, half', threads)
        if side:
            for request in ('encoder', 'decoder'):
                self.ask(side, request)
            self.add('memory', 'full', threads, side.name, side.close(), 'bytes')

    def scan(self, threads):
        """First mask of a scan, then another box on it."""
        side = self.start('segfm', threads)
        if not side:
            return

        def work():
            self.ask(side, f'scan {SCAN_WINDOWS}')
            for measure, request in (('first mask', 'prompt 0'), ('next mask', 'prompt 1')):
                answer = self.ask(side, request)
                if answer:
                    self.add(measure, int(answer[1]), threads, side.name, answer[0])
        self.watched('scan', threads, [side], work)
        side.close()

    def blocks(self, threads, rounds, tokens):
        sides = self.start_all(NETWORKS, threads)

        def work():
            for count in tokens:
                for turn in range(rounds + 1):
                    for side in sides:
                        if turn < 2 or side.name != 'PyTorch, default':
                            self.turn(side, threads, [('blocks' if turn else None, count, f'blocks {count}')])
        self.watched('blocks', threads, sides, work)
        for side in sides:
            side.close()

    def products(self, all_threads, rounds, shapes):
        peak = self.start('peak', 0)
        sides = self.start_all(LIBRARIES, max(all_threads))
        sums = {}

        def work():
            for _ in range(rounds):
                for threads in all_threads:
                    self.peak(peak, threads)
                    for shape in shapes:
                        for side in sides:
                            self.product(side, shape, threads, sums)
        self.watched('products', max(all_threads), sides + [peak] * bool(peak), work)
        for side in sides + [peak] * bool(peak):
            side.close()

    def peak(self, side, threads):
        answer = self.ask(side, f'peak {threads}') if side else None
        if answer:
            self.add('peak', '', threads, 'peak', answer[0], 'GFLOP/s')

    def product(self, side, shape, threads, sums):
        repeats = 1 + int(3e9 * threads / (2 * shape[0] * shape[1] * shape[2]))
        size = 'x'.join(map(str, shape))
        answer = self.ask(side, 'gemm ' + ','.join(map(str, (*shape, threads, repeats))))
        if answer is None:
            return
        if sums.setdefault(shape, answer[1]) != answer[1]:
            self.missing[side.name] = f'product {size}: the sum of the result is {answer[1]}, not {sums[shape]}'
            return
        self.add('product', size, threads, side.name, answer[0])

    # ---- the whole -------------------------------------------------------------------------------------------------------

    def run(self):
        cores = os.cpu_count()
        if self.quick:
            self.window(cores, {name: 1 for name in NETWORKS})
            self.half_memory(cores)
            self.products([cores], 1, QUICK_SHAPES)
            self.blocks(cores, 1, TOKENS[:4])
            return
        if cores > 1:
            self.window(1, {'PyTorch, default': 2, **{name: 3 for name in NETWORKS[:3]}})
        self.window(cores, {'PyTorch, default': 4, **{name: 12 for name in NETWORKS[:3]}})
        self.half_memory(cores)
        self.scan(cores)
        self.products(sorted({1, cores}), 5, SHAPES)
        self.blocks(cores, 2, TOKENS)

    def write(self):
        with open(self.path('bench.csv'), 'w', newline='') as file:
            writer = csv.DictWriter(file, ['measure', 'size', 'threads', 'side', 'value', 'unit'], lineterminator='\n')
            writer.writeheader()
            writer.writerows(self.rows)
        report.write(self.folder, self.segfm, self.rows, self.missing, self.quick)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder')
    parser.add_argument('segfm')
    parser.add_argument('--quick', action='store_true', help='one round, fewer sizes')
    args = parser.parse_args()
    os.makedirs(os.path.join(args.folder, 'log'), exist_ok=True)
    bench = Bench(args.folder, args.segfm, args.quick)
    start = time.perf_counter()
    bench.run()
    bench.write()
    print(f'{time.perf_counter() - start:.0f} s; samples {bench.path("bench.csv")}, table {bench.path("bench.md")}, '
          f'plot {bench.path("bench.svg")}')


if __name__ == '__main__':
    main()
