"""The benchmark's samples as a Markdown table and a plot. All figures are medians; the peak memory is the process's."""
import io
import os
import re
import statistics

import numpy as np

import machine

FULL = {'tokens': 2048, 'patch': 4 * 16 * 16, 'dim': 768, 'depth': 12, 'mlp': 3072, 'masks': 4}
ENCODER_SHAPES = ['2048x768x1024', '2048x2304x768', '2048x768x768', '2048x3072x768', '2048x768x3072']
SMALL = ['64', '128', '256', '512']
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


def most_threads(samples):
    """Of those that anything was measured with."""
    return max((key[2] for key in samples.groups if key[0] != 'others'), default=1)


def network_sides(samples):
    return list(dict.fromkeys(samples.keys('encoder', 3) + samples.keys('first mask', 3)))


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
           'per prompt. `difference`: largest absolute one to segfm; the masks\' logits reach from about -20 to -110.')
    yield ''
    rows = []
    for threads in samples.keys('encoder', 2):
        for side in samples.keys('encoder', 3):
            encoder, decoder = (samples.median(part, 'full', threads, side) for part in ('encoder', 'decoder'))
            if encoder is None:
                continue
            differences = [samples.median('difference', tensor, threads, side) for tensor in ('embedding', 'low-resolution masks')]
            rows.append([side, threads, show(encoder), show(decoder, 1e3, 0), show(samples.window(threads, side)),
                         percent(samples.peak_share(encoder_flops(), encoder, threads)),
                         ', '.join('–' if d is None else f'{d:.1e}' for d in differences)])
    yield from lines_of_table(['', 'threads', 'encoder s', 'decoder ms', 'window s', 'encoder, of peak',
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


def window_samples(samples, threads, side):
    """Seconds of single windows, encoder and decoder: those of the window's section, then those of the scan's."""
    encoder, decoder = (samples.all(part, 'full', threads, side) for part in ('encoder', 'decoder'))
    return [e + d for e, d in zip(encoder, decoder[::2])] + samples.all('pass', 'full', threads, side)


def cumulated(samples, threads, side):
    return list(np.cumsum(window_samples(samples, threads, side))[:12])


def windows_table(samples):
    threads = most_threads(samples)
    sides = network_sides(samples)
    totals = {side: cumulated(samples, threads, side) for side in sides}
    yield from ('## Cost against the number of windows', '')
    yield (f'Seconds for one object, {threads_text(threads)}. n windows are the sum of the run\'s first n samples of a window, encoder and '
           'decoder: of the sides taking turns, then of the scan\'s passes.')
    yield ''
    counts = [count for count in range(1, 13) if any(len(total) >= count for total in totals.values())]
    rows = [[count] + [show(totals[side][count - 1] if len(totals[side]) >= count else None) for side in sides] for count in counts]
    yield from lines_of_table(['windows'] + sides, rows)


SCAN_STEPS = {'first mask': 'first mask', 'next click': 'the next click', 'second class': 'a second class, on the same object',
              'second class elsewhere': 'a second class, elsewhere'}


def scan_table(samples):
    threads = most_threads(samples)
    sides = [side for side in network_sides(samples) if samples.all('first mask', 'scan', threads, side)]
    yield from ('## A scan of 120 × 512 × 512', '')
    yield ('One object of 80 × 200 × 200, its box drawn 10 voxels around it: the region of interest is 100 × 256 × 256, which takes six '
           'windows after the pass over the whole scan. (With the box at the object\'s very borders it would take four, on all sides.) '
           'segfm: seconds from the box or click to the mask of the scan, through the public interface. The others: as many model calls one '
           'after the other, encoder and decoder, as segfm made passes; nothing of the way from the scan to the windows and back. They would '
           'make all of them again for each click and each class. Windows lie around the region of interest, so that a class elsewhere '
           'shares only the pass over the whole scan. '
           f'Taking the scan (normalising, cropping) took segfm {show(samples.median("take scan", "scan", threads, "segfm"))} s before. '
           f'{threads_text(threads)}.')
    yield ''
    rows = []
    for measure, title in SCAN_STEPS.items():
        counts = [samples.median(what, measure, threads, 'segfm') for what in ('passes', 'encoded')]
        rows.append([title] + [show(count, 1, 0) for count in counts] +
                    [show(samples.median(measure, 'scan', threads, side)) for side in sides])
    yield from lines_of_table(['', 'passes', 'encoded by segfm'] + sides, rows)


def fresh_table(samples):
    threads = most_threads(samples)
    yield from ('## Memory and start', '')
    yield (f'A fresh process that runs one window ({threads_text(threads)}): its peak resident memory; and the time from its start to a ready '
           'network, with the weights in the system\'s cache.')
    yield ''
    yield from lines_of_table(['', 'peak memory MB', 'ready after s'], [
        [side, show(samples.median('memory', 'full', threads, side), 1e-6, 0), show(samples.median('load', 'full', threads, side))]
        for side in samples.keys('memory', 3)])


def small_rates(samples, threads):
    """kernel → {size: (rate, share of the kernel's best)}"""
    rates = {}
    for text in samples.keys('rate', 1):
        rate = samples.median('rate', text, threads, 'segfm')
        if rate:
            name, size = text.split(' ')
            rates.setdefault(name, {})[size] = rate
    return {name: {size: (rate, rate / max(of.values())) for size, rate in of.items()} for name, of in rates.items()}


def lowest(rates, names):
    """(share, what) of the size up to 512 that is farthest from its operator's best rate"""
    return min(((share, f'{name} {size.removesuffix("x1").replace("x", " × ")}')
                for name in names for size, (_, share) in rates.get(name, {}).items() if max(map(int, size.split('x'))) <= 512),
               default=(None, ''))


def kernels_table(samples):
    all_threads = samples.keys('rate', 2)
    rates = {threads: small_rates(samples, threads) for threads in all_threads}
    best = ', '.join(f'{show(max((rate for rate, _ in rates[threads].get("product", {}).values()), default=None), 1e-9, 0)} GFLOP/s on '
                     f'{threads_text(threads)}' for threads in all_threads)
    yield from ('## Small sizes', '', f'Products m × n × k by segfm: percent of its own best rate in this table ({best}).', '')
    cells = lambda m, n: [percent(rates[threads].get('product', {}).get(f'{m}x{n}x{k}', (0, None))[1]) for threads in all_threads for k in SMALL]
    yield from lines_of_table(['m × n'] + [f'k = {k}, {threads_text(threads)}' for threads in all_threads for k in SMALL],
                              [[f'{m} × {n}'] + cells(m, n) for m in SMALL for n in SMALL])
    yield ('The other operators, the last sizes of each being the full model\'s: 10⁹ multiplications and additions (attention: tokens × heads × '
           'width; transposed convolution: cells × channels in × out) or elements a second, and percent of the operator\'s best.')
    yield ''
    rows = []
    for name in rates[all_threads[0]] if all_threads else []:
        for size in rates[all_threads[0]][name] if name != 'product' else []:
            row = [name, size.removesuffix('x1').replace('x', ' × ')]
            for threads in all_threads:
                rate, share = rates[threads].get(name, {}).get(size, (None, None))
                row += [show(rate, 1e-9, 2 if rate and rate < 1e10 else 0), percent(share)]
            rows.append(row)
    yield from lines_of_table(['operator', 'size'] + [text for threads in all_threads for text in (threads_text(threads), 'of best')], rows)
    tiny = [(threads, samples.median('window', 'tiny', threads, 'segfm, tiny')) for threads in samples.keys('window', 2)]
    if tiny:
        yield from ('The tiny model\'s window (16 × 64 × 64, 2 layers of 96), encoder and decoder: ' +
                    ', '.join(f'{show(seconds, 1e3)} ms on {threads_text(threads)}' for threads, seconds in tiny) + '.', '')


def targets(samples):
    """(what, bound as text, measured as text, holds: None for what has no bound)"""
    def at_most(what, value, bound):
        yield what, f'≤ {bound:.2f}', show(value), None if value is None else value <= bound

    def at_least(what, value, bound):
        yield what, f'≥ {percent(bound)}', percent(value), None if value is None else value >= bound

    def over(measure, side, other, size='scan', other_measure=None):
        a, b = samples.median(measure, size, most, side), samples.median(other_measure or measure, size, most, other)
        return a / b if a and b else None

    most = most_threads(samples)
    for threads in sorted(samples.keys('encoder', 2), reverse=True):
        for other, bound in (('PyTorch, default', 0.50), ('PyTorch, tuned', 0.75), ('ONNX Runtime', 0.80)):
            yield from at_most(f'encoder over {other}, {threads_text(threads)}', samples.ratio('encoder', threads, 'segfm', other), bound)
        encoder = samples.median('encoder', 'full', threads, 'segfm')
        yield from at_least(f'encoder, of the peak of fused multiply-adds, {threads_text(threads)}',
                            samples.peak_share(encoder_flops(), encoder, threads), 0.75)
    for threads in sorted(samples.keys('product', 2), reverse=True):
        shares = [(samples.peak_share(product_flops(size), samples.median('product', size, threads, 'segfm'), threads), size)
                  for size in ENCODER_SHAPES]
        share, size = min((pair for pair in shares if pair[0]), default=(None, ''))
        yield from at_least(f'lowest of the encoder\'s products ({size.replace("x", " × ")}), of the peak, {threads_text(threads)}', share, 0.80)
    for other in ('PyTorch, default', 'PyTorch, tuned'):
        yield from at_most(f'decoder and upsampling over {other}, {threads_text(most)}', samples.ratio('decoder', most, 'segfm', other), 0.30)
    passes = show(samples.median('passes', 'first mask', most, 'segfm'), 1, 0)
    yield from at_most(f'scan: first mask over {passes} model calls of PyTorch, default', over('first mask', 'segfm', 'PyTorch, default'), 0.50)
    yield f'scan: first mask over {passes} model calls of PyTorch, tuned', '', show(over('first mask', 'segfm', 'PyTorch, tuned')), None
    for measure in ('next click', 'second class'):
        yield from at_most(f'scan: {SCAN_STEPS[measure]}, over the first mask', over(measure, 'segfm', 'segfm', other_measure='first mask'), 0.10)
    yield (f'scan: {SCAN_STEPS["second class elsewhere"]} (windows of its own), over the first mask', '',
           show(over('second class elsewhere', 'segfm', 'segfm', other_measure='first mask')), None)
    for size, bound in (('full', 0.5), ('tiny', 0.05)):
        seconds = samples.median('click', size, most, 'segfm, formula' if size == 'full' else 'segfm, tiny')
        yield (f'a click on an encoded window, {size} model, ms', f'≤ {show(bound, 1e3, 0)}', show(seconds, 1e3, 1),
               None if seconds is None else seconds <= bound)
    for side, bound in (('segfm', 750), ('segfm, half', 480)):
        memory = samples.median('memory', 'full', most, side)
        yield f'peak memory of one window, {side}, MB', f'≤ {bound}', show(memory, 1e-6, 0), None if memory is None else memory <= 1e6 * bound
    yield from at_most('network ready after, s', samples.median('load', 'full', most, 'segfm'), 0.50)
    for threads in sorted(samples.keys('rate', 2), reverse=True):
        rates = small_rates(samples, threads)
        for names in (['product'], [name for name in rates if name != 'product']):
            share, what = lowest(rates, names)
            yield from at_least(f'lowest rate at small sizes ({what}), of that operator\'s best, {threads_text(threads)}', share, 0.50)
    few, many = (samples.median('window', 'tiny', threads, 'segfm, tiny') for threads in (1, most))
    if most > 1:
        yield from at_most(f'tiny model\'s window, {threads_text(most)} over 1', many / few if few and many else None, 1.00)


def verdict(bound, holds):
    return '' if not bound else 'not measured' if holds is None else 'met' if holds else '**not met**'


def markdown(folder, segfm, samples, missing, said):
    yield from ('# Benchmark', '')
    yield ('Written by `make bench`: all sides in one run on the same weights and inputs, each a process of its own, taking turns; '
           'medians. The weights are pseudo-random. "PyTorch, tuned" and ONNX Runtime run with an allocator that keeps its memory and uses '
           'huge pages (`TUNED` in `bench/bench.py`); "PyTorch, default" and segfm run as anyone would start them.')
    yield ''
    others = {size: samples.median('others', size, threads, '') for measure, size, threads, _ in samples.groups if measure == 'others'}
    busy = ', '.join(f'{value:.2f} ({part})' for part, value in others.items())
    noisy = max(others.values(), default=0) > QUIET
    yield from lines_of_table(['', ''], said + [('cores that other processes kept busy', ('**not a quiet machine:** ' if noisy else '') + busy)] +
                              machine.describe(folder, segfm))
    for side, reason in missing.items():
        yield from (f'**Missing: {side}** ({reason})', '')
    yield from ('## Targets', '')
    yield from lines_of_table(['', 'bound', 'measured', ''],
                              [[what, bound, value, verdict(bound, holds)] for what, bound, value, holds in targets(samples)])
    for part in (window_table, scan_table, fresh_table, product_table, kernels_table, tokens_table, windows_table):
        yield from part(samples)


# ---- the plot --------------------------------------------------------------------------------------------------------------

COLOURS = {'segfm': '#c1272d', 'PyTorch, tuned': '#00798c', 'ONNX Runtime': '#e09f1f', 'PyTorch, default': '#7fb2bd',
           'OpenBLAS': '#66a182', 'oneDNN': '#2e4057', 'oneDNN, packed': '#8d96a3'}
ORDER = ['segfm', 'ONNX Runtime', 'PyTorch, tuned', 'PyTorch, default']


def plot_bars(axes, bars, title, digits):
    """bars: [(label, side, value or None, pale)], from the top; one of which another is a multiple is the first."""
    bars = [bar for bar in bars if bar[2]]
    first = bars[0][2] if bars else 1
    for place, (label, side, value, pale) in enumerate(bars):
        axes.barh(place, value, color=COLOURS[side], alpha=0.45 if pale else 1)
        times = f' ({value / first:.1f}×)' if side != 'segfm' and not pale else ''
        axes.annotate(f'{value:.{digits}f}{times}', (value, place), xytext=(4, 0), textcoords='offset points', va='center',
                      weight='bold' if side == 'segfm' else 'normal')
    axes.set_yticks(range(len(bars)), [label for label, _, _, _ in bars])
    axes.tick_params(axis='y', length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.38 * max((bar[2] for bar in bars), default=1))
    axes.spines[['top', 'right']].set_visible(False)
    axes.set_title(title, loc='left')


def stage_bars(samples, stage, scale):
    """The sides with all threads, then (pale) with one."""
    most = most_threads(samples)
    sides = [side for side in ORDER if side in network_sides(samples)]
    for threads in [most] + [1] * (most > 1):
        for side in sides:
            value = samples.median(stage, 'full', threads, side)
            yield side if threads == most else f'{side}, 1 thread', side, value and value * scale, threads != most


def scan_bars(samples):
    threads = most_threads(samples)
    for side in [side for side in ORDER if side in network_sides(samples)]:
        yield f'first mask: {side}', side, samples.median('first mask', 'scan', threads, side), False
    for measure, label in (('next click', 'next click: segfm'), ('second class', 'second class: segfm'),
                           ('second class elsewhere', '… elsewhere: segfm')):
        yield label, 'segfm', samples.median(measure, 'scan', threads, 'segfm'), True


def plot_products(axes, samples):
    threads = max(samples.keys('product', 2), default=1)
    sizes, sides = samples.keys('product', 1), samples.keys('product', 3)
    for index, side in enumerate(sides):
        shares = [samples.peak_share(product_flops(size), samples.median('product', size, threads, side), threads) or 0 for size in sizes]
        places = np.arange(len(sizes)) + (index - (len(sides) - 1) / 2) * 0.8 / max(1, len(sides))
        axes.bar(places, [100 * share for share in shares], 0.8 / max(1, len(sides)), color=COLOURS[side], label=side)
    axes.set_xticks(range(len(sizes)), [size.replace('x', '×') for size in sizes], rotation=25, ha='right')
    axes.set_ylim(0, 118)
    axes.set_yticks(range(0, 101, 20))
    axes.axhline(100, color='black', linewidth=0.8)
    axes.grid(axis='y', alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    if sides:
        axes.legend(ncol=len(sides), loc='upper center', frameon=False)
    axes.set_title(f'Matrix products m×n×k: percent of the measured peak of fused multiply-adds, {threads_text(threads)}', loc='left')


def plot_lines(axes, lines, title, x_label):
    """lines: label → (x, y, colour)"""
    for label, (x, y, colour) in lines.items():
        axes.plot(x, y, marker='o', markersize=4, linewidth=2.5 if label == 'segfm' else 1.5, color=colour, label=label)
    axes.set_xlabel(x_label)
    axes.set_title(title, loc='left')
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    if lines:
        axes.legend(frameon=False)


def plot_tokens(axes, samples, threads):
    counts = samples.keys('blocks', 1)
    lines = {}
    for side in ORDER:
        x = [count for count in counts if samples.all('blocks', count, threads, side)]
        if x:
            lines[side] = x, [500 * samples.median('blocks', count, threads, side) for count in x], COLOURS[side]
    plot_lines(axes, lines, 'One encoder block: milliseconds', 'tokens')
    axes.set_xscale('log', base=2)
    axes.set_yscale('log')
    axes.set_xticks(counts, counts)
    axes.yaxis.set_major_formatter(lambda value, _: f'{value:g}')


def plot_small(axes, samples):
    """Each operator's rate at its sizes, from the smallest to the full model's."""
    threads = max(samples.keys('rate', 2), default=1)
    rates = small_rates(samples, threads)
    lines = {}
    for colour, name in zip(('#c1272d', '#00798c', '#e09f1f', '#66a182', '#2e4057', '#a05195'), rates):
        sizes = list(rates[name])
        if name == 'product':
            sizes = [size for size in sizes if len(set(size.split('x'))) == 1] + sizes[-1:]
        else:
            sizes = sizes[:5]
        shares = [100 * rates[name][size][1] for size in sizes]
        lines[name] = list(range(len(sizes) - 1)) + [4], shares, colour
    plot_lines(axes, lines, f'Small sizes: percent of own best, {threads_text(threads)}', '')
    axes.axhline(50, color='black', linewidth=0.8, linestyle='--')
    axes.set_ylim(0, 105)
    axes.set_xticks(range(5), ['64', '128', '256', '512', 'full'])


def shortened(svg):
    """The same picture in fewer bytes: no comments, no metadata, no indentation, hundredths of a point, a path a line."""
    svg = re.sub(r'<!--.*?-->|<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    svg = re.sub(r'-?\d+\.\d{3,}', lambda number: f'{float(number[0]):.2f}'.rstrip('0').rstrip('.'), svg)
    svg = re.sub(r' *\n(?=[A-Za-z"][ "\n])', ' ', svg)
    return re.sub(r'\s*\n\s*', '\n', svg).strip() + '\n'


def plot(path, samples):
    import matplotlib
    matplotlib.use('svg')
    matplotlib.rcParams.update({'svg.hashsalt': 'segfm', 'svg.fonttype': 'none', 'font.sans-serif': ['DejaVu Sans', 'sans-serif'],
                                'font.size': 10, 'axes.titlesize': 11, 'legend.fontsize': 9})
    from matplotlib import pyplot
    threads = most_threads(samples)
    figure = pyplot.figure(figsize=(13, 12.5), constrained_layout=True)
    rows = figure.add_gridspec(3, 1, height_ratios=[1.1, 1, 1])
    bars, lines = rows[0].subgridspec(1, 3), rows[2].subgridspec(1, 3)
    plot_bars(figure.add_subplot(bars[0]), list(stage_bars(samples, 'encoder', 1)), 'Encoder, one window: seconds', 2)
    plot_bars(figure.add_subplot(bars[1]), list(stage_bars(samples, 'decoder', 1e3)), 'Decoder and upsampling: milliseconds', 0)
    plot_bars(figure.add_subplot(bars[2]), list(scan_bars(samples)), 'Scan of 120×512×512: seconds', 1)
    plot_products(figure.add_subplot(rows[1]), samples)
    plot_tokens(figure.add_subplot(lines[0]), samples, threads)
    totals = {side: cumulated(samples, threads, side) for side in ORDER}
    windows = figure.add_subplot(lines[1])
    plot_lines(windows, {side: (range(1, len(y) + 1), y, COLOURS[side]) for side, y in totals.items() if y},
               'One object: seconds', 'windows')
    windows.set_xticks(range(1, 13))
    plot_small(figure.add_subplot(lines[2]), samples)
    figure.suptitle(f'One run, medians, {threads_text(threads)} where nothing else is said; pale bars are not comparable with '
                    'full ones', fontsize=11)
    picture = io.StringIO()
    figure.savefig(picture, format='svg', metadata={'Date': None})
    pyplot.close(figure)
    with open(path, 'w') as file:
        file.write(shortened(picture.getvalue()))


def write(folder, segfm, rows, missing, said):
    samples = Samples(rows)
    with open(os.path.join(folder, 'bench.md'), 'w') as file:
        file.write('\n'.join(markdown(folder, segfm, samples, missing, said)).rstrip() + '\n')
    plot(os.path.join(folder, 'bench.svg'), samples)
