"""The benchmark's samples as a Markdown table and a plot. All figures are medians; the peak memory is the process's."""
import os
import statistics

import numpy as np

import machine

FULL = {'tokens': 2048, 'patch': 4 * 16 * 16, 'dim': 768, 'depth': 12, 'mlp': 3072, 'masks': 4}
QUIET = 0.15  # cores that others may keep busy before the table says so


def block_flops(tokens):
    return 2 * tokens * FULL['dim'] * (4 * FULL['dim'] + 2 * FULL['mlp']) + 4 * tokens ** 2 * FULL['dim']


def encoder_flops():
    return 2 * FULL['tokens'] * FULL['patch'] * FULL['dim'] + FULL['depth'] * block_flops(FULL['tokens'])


def product_flops(size):
    m, n, k = map(int, size.split('x'))
    return 2 * m * n * k


def differences(folder, ours, other):
    """Largest absolute difference of embedding and low-resolution mask between two sides' results, as text keys → number."""
    def read(side, name):
        return np.fromfile(os.path.join(folder, side.replace(', ', '-').replace(' ', '-'), name + '.f32'), np.float32)
    embedding = read(ours, 'embedding').reshape(FULL['tokens'], FULL['dim']).T.ravel()  # ours are token by token
    pairs = {'embedding': (embedding, read(other, 'embedding')), 'low-resolution masks': (read(ours, 'masks'), read(other, 'masks'))}
    return {name: float(np.abs(a.astype(np.float64) - b).max()) for name, (a, b) in pairs.items()}


class Samples:
    def __init__(self, rows):
        self.groups = {}
        for row in rows:
            key = row['measure'], row['size'], row['threads'], row['side']
            self.groups.setdefault(key, []).append(row['value'])

    def all(self, measure, size, threads, side):
        return self.groups.get((measure, size, threads, side), [])

    def median(self, measure, size, threads, side):
        """None when it was not measured"""
        values = self.all(measure, size, threads, side)
        return statistics.median(values) if values else None

    def keys(self, measure, index):
        """The sizes (1), threads (2) or sides (3) of a measure, in the order they were measured."""
        return list(dict.fromkeys(key[index] for key in self.groups if key[0] == measure))

    def ratio(self, measure, threads, side, other):
        a, b = self.median(measure, 'full', threads, side), self.median(measure, 'full', threads, other)
        return a / b if a and b else None

    def window(self, threads, side):
        parts = [self.median(part, 'full', threads, side) for part in ('encoder', 'decoder')]
        return sum(parts) if None not in parts else None

    def peak_share(self, flops, seconds, threads):
        peak = self.median('peak', '', threads, 'peak')
        return flops / seconds * 1e-9 / peak if peak and seconds else None


# ---- the table -------------------------------------------------------------------------------------------------------------

def show(value, scale=1.0, digits=2):
    return '–' if value is None else f'{value * scale:.{digits}f}'


def threads_text(threads):
    return f'{threads} thread{"s" if threads > 1 else ""}'


def percent(share):
    return '–' if share is None else f'{100 * share:.0f} %'


def lines_of_table(header, rows):
    yield '| ' + ' | '.join(header) + ' |'
    yield '|' + '---|' * len(header)
    for row in rows:
        yield '| ' + ' | '.join(map(str, row)) + ' |'
    yield ''


def window_table(samples):
    yield from ('## One window of 32 × 256 × 256, box prompt', '')
    yield ('Full-size model. The encoder runs once per window, the decoder (prompt encoder, mask decoder, upsampling to the window) once '
           'per prompt. `load`: from the start of the process to a ready network. `difference`: largest absolute one to segfm.')
    yield ''
    rows = []
    for threads in samples.keys('encoder', 2):
        for side in samples.keys('memory', 3):
            encoder, decoder = (samples.median(part, 'full', threads, side) for part in ('encoder', 'decoder'))
            memory = samples.median('memory', 'full', threads, side)
            if encoder is None and memory is None:
                continue
            differences = [samples.median('difference', tensor, threads, side) for tensor in ('embedding', 'low-resolution masks')]
            rows.append([side, threads, show(encoder), show(decoder, 1e3, 0), show(samples.window(threads, side)),
                         percent(samples.peak_share(encoder_flops(), encoder, threads)), show(memory, 1e-6, 0),
                         show(samples.median('load', 'full', threads, side), 1, 2),
                         ', '.join('–' if d is None else f'{d:.1e}' for d in differences)])
    yield from lines_of_table(['', 'threads', 'encoder s', 'decoder ms', 'window s', 'encoder, of peak', 'peak memory MB', 'load s',
                               'difference: embedding, masks'], rows)


def product_table(samples):
    sides = samples.keys('product', 3)
    yield from ('## Matrix products', '')
    peaks = ', '.join(f'{show(samples.median("peak", "", threads, "peak"), 1, 1)} GFLOP/s on {threads_text(threads)}'
                      for threads in samples.keys('peak', 2))
    yield (f'GFLOP/s, and percent of the measured peak of fused multiply-adds ({peaks}). segfm and "oneDNN, packed" have the right operand '
           'packed beforehand, as weights are; the others pack it in every call.')
    yield ''
    rows = []
    for size in samples.keys('product', 1):
        for threads in samples.keys('product', 2):
            cells = []
            for side in sides:
                seconds = samples.median('product', size, threads, side)
                rate = product_flops(size) / seconds * 1e-9 if seconds else None
                cells.append(f'{show(rate, 1, 0)} ({percent(samples.peak_share(product_flops(size), seconds, threads))})')
            rows.append([size.replace('x', ' × '), threads] + cells)
    yield from lines_of_table(['m × n × k', 'threads'] + sides, rows)


def tokens_table(samples):
    yield from ('## Cost against the number of tokens', '', 'Milliseconds of one block of the full-size encoder.', '')
    sides = samples.keys('blocks', 3)
    rows = []
    for size in samples.keys('blocks', 1):
        for threads in samples.keys('blocks', 2):
            rows.append([size, threads] + [show(samples.median('blocks', size, threads, side), 500, 1) for side in sides])
    yield from lines_of_table(['tokens', 'threads'] + sides, rows)


def cumulated(samples, threads, side):
    """Seconds for 1, 2, … windows: of the samples, one after the other."""
    encoder, decoder = (samples.all(part, 'full', threads, side) for part in ('encoder', 'decoder'))
    return list(np.cumsum([e + d for e, d in zip(encoder, decoder[::2])]))


def windows_table(samples):
    threads = max(samples.keys('encoder', 2), default=1)
    sides = samples.keys('encoder', 3)
    totals = {side: cumulated(samples, threads, side) for side in sides}
    yield from ('## Cost against the number of windows', '', f'Seconds for the windows of one object, {threads_text(threads)}.', '')
    counts = [count for count in (1, 2, 3, 4, 6, 8, 10, 12) if any(len(total) >= count for total in totals.values())]
    rows = [[count] + [show(totals[side][count - 1] if len(totals[side]) >= count else None) for side in sides] for count in counts]
    yield from lines_of_table(['windows'] + sides, rows)
    for windows in samples.keys('first mask', 1):
        first, following = scan_times(samples, threads, windows)
        yield from (f'segfm, through its public interface, on a scan whose region of interest takes {windows} windows, after one pass over '
                    f'the whole scan: first mask {show(first)} s, another box on the same scan {show(following)} s.', '')


def scan_times(samples, threads, windows):
    return [samples.median(measure, windows, threads, 'segfm') for measure in ('first mask', 'next mask')]


def targets(samples):
    """(what, bound as text, measured as text, holds)"""
    def at_most(what, value, bound):
        yield what, f'≤ {bound:.2f}', show(value), value is not None and value <= bound

    def at_least(what, value, bound):
        yield what, f'≥ {percent(bound)}', percent(value), value is not None and value >= bound

    all_threads = samples.keys('encoder', 2)
    most = max(all_threads, default=1)
    for threads in all_threads:
        for other, bound in (('PyTorch, default', 0.50), ('PyTorch, tuned', 0.75), ('ONNX Runtime', 0.80)):
            yield from at_most(f'encoder over {other}, {threads_text(threads)}', samples.ratio('encoder', threads, 'segfm', other), bound)
        encoder = samples.median('encoder', 'full', threads, 'segfm')
        yield from at_least(f'encoder, of the peak, {threads_text(threads)}', samples.peak_share(encoder_flops(), encoder, threads), 0.75)
    for threads in samples.keys('product', 2):
        shares = [samples.peak_share(product_flops(size), samples.median('product', size, threads, 'segfm'), threads)
                  for size in ENCODER_SHAPES]
        yield from at_least(f'lowest of the encoder\'s products, of the peak, {threads_text(threads)}',
                            min((share for share in shares if share), default=None), 0.80)
    yield from at_most(f'decoder over PyTorch, tuned, {threads_text(most)}', samples.ratio('decoder', most, 'segfm', 'PyTorch, tuned'), 0.30)
    windows = next(iter(samples.keys('first mask', 1)), 0)
    first, following = scan_times(samples, most, windows)
    upstream = samples.window(most, 'PyTorch, default')
    yield from at_most(f'first mask of a scan over its {windows + 1} model calls with PyTorch, default',
                       first / ((windows + 1) * upstream) if first and upstream else None, 0.50)
    yield from at_most('next box on that scan over the first', following / first if first and following else None, 0.10)
    for side, bound in (('segfm', 750), ('segfm, half', 480)):
        memory = samples.median('memory', 'full', most, side)
        yield f'peak memory of one window, {side}, MB', f'≤ {bound}', show(memory, 1e-6, 0), memory is not None and memory <= 1e6 * bound
    yield from at_most('network ready after, s', samples.median('load', 'full', most, 'segfm'), 0.50)


ENCODER_SHAPES = ['2048x768x1024', '2048x2304x768', '2048x768x768', '2048x3072x768', '2048x768x3072']


def markdown(folder, segfm, samples, missing, quick):
    yield from ('# Benchmark', '')
    yield ('Written by `make bench`: all sides in one run on the same weights and inputs, each a process of its own, taking turns; '
           'medians. "PyTorch, tuned" and ONNX Runtime run with an allocator that keeps its memory and uses huge pages '
           '(`TUNED` in `bench/bench.py`); "PyTorch, default" and segfm run as anyone would start them.')
    yield ''
    others = {size: samples.median('others', size, threads, '') for _, size, threads, _ in
              [key for key in samples.groups if key[0] == 'others']}
    if quick:
        yield from ('**A quick run: one round. Its figures are rough.**', '')
    if max(others.values(), default=0) > QUIET:
        yield from ('**Not a quiet machine:** meanwhile other processes kept busy ' +
                    ', '.join(f'{value:.2f} cores ({size})' for size, value in others.items()) + '.', '')
    else:
        yield from (f'Other processes kept at most {max(others.values(), default=0):.2f} cores busy meanwhile.', '')
    yield from lines_of_table(['', ''], machine.describe(folder, segfm))
    for side, reason in missing.items():
        yield from (f'**Missing: {side}** ({reason})', '')
    yield from ('## Targets', '')
    yield from lines_of_table(['', 'target', 'measured', ''],
                              [[what, bound, value, 'holds' if holds else '–' if value == '–' else 'does not hold']
                               for what, bound, value, holds in targets(samples)])
    for part in (window_table, product_table, tokens_table, windows_table):
        yield from part(samples)


# ---- the plot --------------------------------------------------------------------------------------------------------------

COLOURS = {'segfm': '#d1495b', 'PyTorch, tuned': '#00798c', 'ONNX Runtime': '#edae49', 'PyTorch, default': '#8fb8c2',
           'OpenBLAS': '#66a182', 'oneDNN': '#2e4057', 'oneDNN, packed': '#8d96a3'}


def plot_windows(axes, samples):
    bars = [(side, threads) for threads in samples.keys('encoder', 2) for side in samples.keys('encoder', 3)]
    for place, (side, threads) in enumerate(bars):
        encoder, decoder = (samples.median(part, 'full', threads, side) or 0 for part in ('encoder', 'decoder'))
        axes.barh(place, encoder, color=COLOURS[side])
        axes.barh(place, decoder, left=encoder, color=COLOURS[side], alpha=0.5)
        axes.text(encoder + decoder, place, f' {encoder + decoder:.1f}', va='center', fontsize=8)
    axes.set_yticks(range(len(bars)), [f'{side}, {threads}' for side, threads in bars], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title('One window, by threads: seconds of encoder (full) and decoder (pale)')


def plot_products(axes, samples):
    threads = max(samples.keys('product', 2), default=1)
    sizes, sides = samples.keys('product', 1), samples.keys('product', 3)
    for index, side in enumerate(sides):
        shares = [samples.peak_share(product_flops(size), samples.median('product', size, threads, side), threads) or 0 for size in sizes]
        places = np.arange(len(sizes)) + (index - (len(sides) - 1) / 2) * 0.8 / max(1, len(sides))
        axes.bar(places, [100 * share for share in shares], 0.8 / max(1, len(sides)), color=COLOURS[side], label=side)
    axes.set_xticks(range(len(sizes)), [size.replace('x', '×') for size in sizes], rotation=40, ha='right', fontsize=7)
    axes.set_ylim(0, 110)
    if sides:
        axes.legend(fontsize=7, ncol=len(sides), loc='upper center')
    axes.set_title(f'Matrix products: percent of peak, {threads_text(threads)}')


def plot_lines(axes, lines, title, x_label):
    """lines: side → (x, y)"""
    for side, (x, y) in lines.items():
        axes.plot(x, y, marker='.', color=COLOURS[side], label=side)
    axes.set_xlabel(x_label)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=7)


def plot(path, samples):
    import matplotlib
    matplotlib.use('svg')
    matplotlib.rcParams.update({'svg.hashsalt': 'segfm', 'font.size': 9, 'axes.titlesize': 10})
    from matplotlib import pyplot
    figure, ((windows, products), (tokens, scan)) = pyplot.subplots(2, 2, figsize=(12, 8), constrained_layout=True)
    plot_windows(windows, samples)
    plot_products(products, samples)
    threads = max(samples.keys('encoder', 2) + samples.keys('blocks', 2), default=1)
    sizes = {side: [size for size in samples.keys('blocks', 1) if samples.all('blocks', size, threads, side)]
             for side in samples.keys('blocks', 3)}
    plot_lines(tokens, {side: (x, [500 * samples.median('blocks', size, threads, side) for size in x]) for side, x in sizes.items()},
               f'One encoder block: milliseconds, {threads_text(threads)}', 'tokens')
    tokens.set_xscale('log', base=2)
    tokens.set_yscale('log')
    tokens.set_xticks(samples.keys('blocks', 1), samples.keys('blocks', 1))
    totals = {side: cumulated(samples, threads, side) for side in samples.keys('encoder', 3)}
    plot_lines(scan, {side: (range(1, len(y) + 1), y) for side, y in totals.items()},
               f'One object: seconds, {threads_text(threads)}', 'windows')
    figure.savefig(path, metadata={'Date': None})


def write(folder, segfm, rows, missing, quick):
    samples = Samples(rows)
    with open(os.path.join(folder, 'bench.md'), 'w') as file:
        file.write('\n'.join(markdown(folder, segfm, samples, missing, quick)).rstrip() + '\n')
    plot(os.path.join(folder, 'bench.svg'), samples)
