"""`make bench`: segfm against PyTorch, ONNX Runtime, OpenBLAS and oneDNN, on the same weights and inputs, in one run.

    bench.py DIR SEGFM [--quick] [--parts PART,PART,...]

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
# One object of 80 x 200 x 200 in a scan, its box drawn 10 voxels around it: region of interest 100 x 256 x 256, which takes 6 windows.
SCAN = (120, 512, 512)
FIRST_BOX = 'box 10,50,50,109,269,269'
SCAN_PROMPTS = [('next click', 'click 60,160,160'),
                ('second class', 'box 10,60,60,109,259,259'),             # on the same object: the same region
                ('second class elsewhere', 'box 10,240,240,109,459,459')]  # a region of the same size, but another one
WINDOW_CLICKS = {'segfm, formula': ('full', 'scan 32,256,256', 'box 4,60,60,28,200,200', ['click 16,130,130', 'click 10,70,100', 'click 20,150,150']),
                 'segfm, tiny': ('tiny', 'scan 16,64,64', 'box 3,12,12,13,50,50', ['click 8,30,30', 'click 5,20,40', 'click 11,44,25'])}
SMALL = [64, 128, 256, 512]
# Operators with small sizes and the full model's. tools/bench.c has the same and says what they are.
KERNELS = {
    'product': [(m, n, k) for m in SMALL for n in SMALL for k in SMALL] + [(2048, 768, 768)],
    'attention': [(tokens, 12, 64) for tokens in SMALL + [2048]],
    'conv-transpose': [(size, size, size) for size in SMALL] + [(2048, 768, 192), (16384, 192, 96)],
    'gelu': [(size, size, 1) for size in SMALL] + [(2048, 3072, 1)],
    'layernorm': [(size, size, 1) for size in SMALL] + [(2048, 768, 1)],
    'trilinear': [(8, 16, 16), (16, 16, 16), (16, 32, 32), (32, 64, 64)],
}
PARTS = ['window', 'fresh', 'scan', 'clicks', 'products', 'kernels', 'tiny', 'blocks']
PAUSE = 0.03      # between two sides: threads that wait for work spin for a moment


class Bench:
    def __init__(self, folder, segfm, quick, parts):
        self.folder, self.segfm, self.quick, self.parts = folder, segfm, quick, parts
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
            'segfm, tiny': (segfm, [], {}),
            'segfm, formula': (segfm + ['--full'], [], {}),  # has a corrector
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
            side.close()
        self.compare([side.name for side in sides if side.name not in self.missing], threads)

    def compare(self, names, threads):
        for name in names[1:] if names[:1] == ['segfm'] else []:
            for tensor, value in report.differences(self.path('results'), 'segfm', name).items():
                self.add('difference', tensor, threads, name, value, '')

    def fresh(self, threads, starts):
        """Start and peak memory of processes that run one window each. starts: of segfm; a rival starts once more than in window()."""
        def work():
            for name in ['segfm', 'segfm, half'] + NETWORKS[1:]:
                for turn in range(starts if name.startswith('segfm') else 1):
                    side = self.loaded(name, threads)
                    if side and turn == 0:
                        for request in ('encoder', 'decoder'):
                            self.ask(side, request)
                        self.add('memory', 'full', threads, name, side.close(), 'bytes')
                    elif side:
                        side.close()
        self.watched('fresh', threads, [], work)

    def scan(self, threads, names):
        """A scan from its box to the mask; then a click, another class, a class elsewhere. The rivals make as many model calls as
        the first mask took. The sides take turns; segfm has a second one at the end."""
        if not os.path.exists(self.path('full.segfm')):
            self.missing['scan'] = f'{self.path("full.segfm")} was not made'
            return
        sides = [side for side in (self.loaded(name, threads) for name in names) if side]

        def work():
            passes = 0
            for side in sides + sides[:1] * (not self.quick):
                time.sleep(PAUSE)
                if side.name == 'segfm':
                    passes = self.our_scan(side, threads) or passes
                else:
                    self.passes(side, threads, self.ask(side, f'calls {passes}'))
        self.watched('scan', threads, sides, work)
        for side in sides:
            side.close()

    def passes(self, side, threads, answer):
        """answer: seconds of all passes of a first mask, then of each"""
        if answer:
            self.add('first mask', 'scan', threads, side.name, answer[0])
            for value in answer[1:]:
                self.add('pass', 'full', threads, side.name, value)

    def our_scan(self, side, threads):
        """→ passes of the first mask"""
        taken = self.ask(side, 'scan ' + ','.join(map(str, SCAN)))
        first = self.ask(side, FIRST_BOX)
        if not taken or not first:
            return 0
        self.add('take scan', 'scan', threads, side.name, taken[0])
        self.passes(side, threads, first[:1] + first[3:])
        self.counts('first mask', threads, first)
        for measure, request in SCAN_PROMPTS:
            answer = self.ask(side, request)
            if answer:
                self.add(measure, 'scan', threads, side.name, answer[0])
                self.counts(measure, threads, answer)
        return int(first[1])

    def counts(self, measure, threads, answer):
        self.add('passes', measure, threads, 'segfm', answer[1], '')
        self.add('encoded', measure, threads, 'segfm', answer[2], '')

    def clicks(self, threads, rounds):
        """From a click on a window whose embedding is there to the corrected mask: decoder, corrector, stitching."""
        def work():
            for name, (size, scan, box, clicks) in WINDOW_CLICKS.items():
                side = self.start(name, threads)
                if not side:
                    continue
                self.ask(side, scan)
                for _ in range(rounds):
                    self.turn(side, threads, [(None, '', box)] + [('click', size, click) for click in clicks])
                side.close()
        self.watched('clicks', threads, [], work)

    def kernels(self, all_threads, rounds):
        """Rates of the operators: multiplications and additions, or elements, per second."""
        side = self.start('segfm', max(all_threads))
        if not side:
            return

        def work():
            for _ in range(rounds):
                for name, sizes in KERNELS.items():
                    for size in sizes:
                        for threads in all_threads:
                            self.kernel(side, name, size, threads)
        self.watched('kernels', max(all_threads), [side], work)
        side.close()

    def kernel(self, side, name, size, threads):
        text = ','.join(map(str, (*size, threads)))
        if name == 'product':
            flops = 2 * size[0] * size[1] * size[2]
            answer = self.ask(side, f'gemm {text},{1 + int(1e9 * threads / flops)}')
            answer = answer and [answer[0], flops]
        else:
            answer = self.ask(side, f'{name} {text}')
        if answer:
            self.add('rate', f'{name} {"x".join(map(str, size))}', threads, side.name, answer[1] / answer[0], '1/s')

    def tiny(self, all_threads, rounds):
        """The tiny model's window, where starting threads could cost more than they bring."""
        sides = [(threads, side) for threads, side in ((threads, self.start('segfm, tiny', threads)) for threads in all_threads) if side]

        def work():
            for turn in range(rounds + 1):
                for threads, side in sides:
                    time.sleep(PAUSE)
                    for _ in range(10):
                        parts = [self.ask(side, request) for request in ('encoder', 'decoder')]
                        if turn and None not in parts:
                            self.add('window', 'tiny', threads, side.name, sum(part[0] for part in parts))
        self.watched('tiny', max(all_threads), [side for _, side in sides], work)
        for _, side in sides:
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
        cores, quick = os.cpu_count(), self.quick
        all_threads = sorted({1, cores})
        # PyTorch's default is slow and needs fewer rounds. With its calls for a scan each side has samples for 12 windows.
        rounds = {name: 1 if quick else 5 if name == 'PyTorch, default' else 7 for name in NETWORKS}
        parts = {
            'window': lambda: [self.window(threads, rounds if threads == cores else {name: min(n, 3) for name, n in rounds.items()})
                               for threads in ([cores] if quick else all_threads)],
            'fresh': lambda: self.fresh(cores, 1 if quick else 5),
            'scan': lambda: self.scan(cores, [NETWORKS[i] for i in ((0, 3) if quick else (0, 3, 1, 2))]),
            'products': lambda: self.products([cores] if quick else all_threads, 1 if quick else 5, QUICK_SHAPES if quick else SHAPES),
            'kernels': lambda: self.kernels(all_threads, 1 if quick else 5),
            'clicks': lambda: self.clicks(max(all_threads), 1 if quick else 3),
            'tiny': lambda: self.tiny(all_threads, 2 if quick else 10),
            'blocks': lambda: self.blocks(cores, 1 if quick else 2, TOKENS[:4] if quick else TOKENS),
        }
        for part in self.parts:
            parts[part]()

    def write(self, said):
        """said: what goes on top of the table, [(what, text)]"""
        with open(self.path('bench.csv'), 'w', newline='') as file:
            writer = csv.DictWriter(file, ['measure', 'size', 'threads', 'side', 'value', 'unit'], lineterminator='\n')
            writer.writeheader()
            writer.writerows(self.rows)
        report.write(self.folder, self.segfm, self.rows, self.missing, said)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder')
    parser.add_argument('segfm')
    parser.add_argument('--quick', action='store_true', help='one round, fewer sizes')
    parser.add_argument('--parts', default=','.join(PARTS), help='some of ' + ', '.join(PARTS))
    args = parser.parse_args()
    parts = args.parts.split(',')
    if not set(parts) <= set(PARTS):
        parser.error(f'--parts: there are {", ".join(PARTS)}')
    os.makedirs(os.path.join(args.folder, 'log'), exist_ok=True)
    bench = Bench(args.folder, args.segfm, args.quick, parts)
    start, load = time.perf_counter(), os.getloadavg()
    said = [('command', '`' + 'QUICK=1 ' * args.quick + (f'PARTS={args.parts} ' if parts != PARTS else '') + 'make bench`' +
             (' (one round: rough figures)' if args.quick else '')),
            ('date', time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime()))]
    bench.run()
    said += [('took', f'{(time.perf_counter() - start) / 60:.1f} minutes'),
             ('load before it', f'{load[0]:.2f} (mean of 1 minute), {load[1]:.2f} (of 5)')]
    bench.write(said)
    print(f'{time.perf_counter() - start:.0f} s; samples {bench.path("bench.csv")}, table {bench.path("bench.md")}, '
          f'plot {bench.path("bench.svg")}')


if __name__ == '__main__':
    main()
