#!/usr/bin/env python3
"""longlife.py SEGFM [SECONDS [CASES [SEED]]]: does a process that lives long stay as it is?

For SECONDS, and 400 acts at least, `segfm session` hears what scripts/soak.py says to it, good, bad and broken lines mixed; then one `segfm predict`
gets CASES cases, one of eight broken. /proc is read after each command, and all through predict: memory must not grow between the
second quarter and the last, nor must descriptors, mappings and threads. Equal cases must give equal results, first or last.
Last line: N passed, N failed."""
import array
import os
import resource
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'test', 'malformed'), os.path.join(HERE, '..', 'tools', 'reference')]
import build  # noqa: E402
import checks  # noqa: E402
import soak  # noqa: E402
from checks import check  # noqa: E402

MEMORY = ('anonymous', 'VmRSS', 'VmHWM', 'VmSize')  # only the first is exact: the kernel counts the others in lots of up to 64 pages
GROWTH, PAGES = 0.01, 64  # of memory between the second quarter of the way and the last: a share, and so many pages besides
LEAST_ACTS = 400    # so that each quarter has seen everything, however slow the machine is
DESCRIPTORS = 24    # that predict may have open at once


def look(pid):
    """What the system knows of the process: kB resident now (also exactly, without files) and at most, addresses, threads;
    descriptors, mappings."""
    found = {}
    with open(f'/proc/{pid}/status', encoding='ascii') as file:
        for line in file:
            name, _, value = line.partition(':')
            if name in ('VmRSS', 'VmHWM', 'VmSize', 'Threads'):
                found[name] = int(value.split()[0])
    with open(f'/proc/{pid}/smaps_rollup', encoding='utf-8') as file:
        found['anonymous'] = next(int(line.split()[1]) for line in file if line.startswith('Anonymous:'))
    found['descriptors'] = len(os.listdir(f'/proc/{pid}/fd'))
    with open(f'/proc/{pid}/maps', encoding='utf-8') as file:
        found['mappings'] = sum(1 for _ in file)
    return found


class Record:
    """Looks at a process, each with how far it had come. By quarters of the way: the most, of descriptors also the least."""

    def __init__(self, name, slack):
        self.name, self.slack = name, slack  # in descriptors: none where it is looked at between commands
        self.keys, self.looks = [], array.array('q')

    def add(self, place, found):
        self.keys = ['place', *found]
        self.looks.extend([place, *found.values()])

    def quarters(self):
        width = max(1, len(self.keys))
        looks = [self.looks[i:i + width] for i in range(0, len(self.looks), width)]
        split = [[look for look in looks if 4 * look[0] // (looks[-1][0] + 1) == quarter] for quarter in range(4)]
        if not all(split):
            return None
        found = [dict(zip(self.keys, map(max, zip(*part)))) for part in split]
        for quarter, part in zip(found, split):
            quarter['fewest descriptors'] = min(look[self.keys.index('descriptors')] for look in part)
        return found

    def judge(self):
        quarters = self.quarters()
        check(quarters, f'{self.name}: no look at it in some quarter')
        if not quarters:
            return
        _, second, third, last = quarters
        for key in MEMORY:
            most = second[key] * (1 + GROWTH) + PAGES * resource.getpagesize() / 1024
            check(last[key] <= most, f'{self.name}: {key} was {second[key]} kB in the second quarter, {third[key]} in the third, '
                                     f'{last[key]} in the last, need at most {most:.0f}')
        for key, slack in (('descriptors', self.slack), ('fewest descriptors', self.slack), ('Threads', 0)):
            check(last[key] <= second[key] + slack, f'{self.name}: {key}: {second[key]} in the second quarter, {last[key]} in the last')
        check(last['mappings'] <= second['mappings'] + 2, f'{self.name}: mappings: {second["mappings"]}, then {last["mappings"]}')
        print(f'{self.name}: {len(self.looks) // len(self.keys)} looks; by quarters: ' + '; '.join(
            f'{key} {", ".join(str(quarter[key]) for quarter in quarters)}{unit}' for key, unit in
            (*((key, ' kB') for key in MEMORY), ('descriptors', ''), ('mappings', ''), ('Threads', ''))))


def live_session(segfm, folder, seconds, seed):
    soak.write_scans(folder)
    dialogue = soak.Dialogue(segfm, folder, seed)
    pid, record, acts = dialogue.session.process.pid, Record('session', 0), 0
    dialogue.open()
    begun = time.monotonic()
    while (time.monotonic() < begun + seconds or acts < LEAST_ACTS) and dialogue.failed <= 10:
        dialogue.step()
        record.add(acts, look(pid))
        acts += 1
    print(f'session: {acts} acts in {time.monotonic() - begun:.0f} s, {dialogue.session.lines} commands')
    record.judge()
    answer = dialogue.session.ask('quit')
    check(answer['ok'] and dialogue.session.end() == 0, 'session: it ends well')
    check(dialogue.failed == 0, f'session: {dialogue.failed} answers were wrong')
    checks.passed += dialogue.passed


def case_file(shape, seed):
    """A challenge file: a scan with a bright block, which a box and a click ask for, and a class that prev_pred has."""
    x, y, z = shape
    scan = build.npy(build.voxels(x, y, z), shape=(z, y, x))
    kept = build.npy(bytes(2 * (i % 7 == seed % 7) for i in range(x * y * z)), shape=(z, y, x))
    click = build.dict_of(fg=build.list_of(build.list_of(*(build.number(n) for n in (2, 2, 3)))), bg=build.list_of())
    return build.npz(build.challenge(imgs=scan, prev_pred=kept, boxes=build.boxes(build.box_dict(), b'N'),
                                     clicks=build.boxes(click, b'N')), method=8 * (seed % 2))


def live_predict(segfm, folder, cases):
    """One process, all cases: links to eight files."""
    ins, outs = os.path.join(folder, 'in'), os.path.join(folder, 'out')
    os.mkdir(ins)
    kinds = [(30, 28, 12), (9, 14, 25), (24, 31, 18), (30, 28, 12), (17, 12, 33), None, (40, 21, 10), (8, 40, 27)]
    for i, shape in enumerate(kinds):
        whole = case_file(shape or kinds[0], i)
        with open(os.path.join(folder, f'{i}.npz'), 'wb') as file:
            file.write(whole if shape else whole[:-40])
    for n in range(cases):
        os.link(os.path.join(folder, f'{n % len(kinds)}.npz'), os.path.join(ins, f'{n:06}.npz'))
    good = [n for n in range(cases) if kinds[n % len(kinds)]]
    result = [os.path.join(outs, f'{n:06}.npz') for n in range(cases)]
    record, done = Record('predict', 2), 0
    limit = (DESCRIPTORS, DESCRIPTORS)
    process = subprocess.Popen([*segfm, 'predict', ins, outs, '-w', 'formula:tiny', '--quiet'], stderr=subprocess.DEVNULL,
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit))
    while process.poll() is None:
        try:
            record.add(done, look(process.pid))
        except (OSError, KeyError):  # it has just ended
            break
        while done < len(good) and os.path.exists(result[good[done]]):
            done += 1
        time.sleep(0.002)
    check(process.wait() == 3, f'predict: exit code {process.returncode}, need 3 because of the broken cases')
    made = set(os.listdir(outs)) if os.path.isdir(outs) else set()
    check(made == {os.path.basename(result[n]) for n in good}, f'predict: {len(made)} results for {len(good)} sound cases')
    first = {}
    for n in good:
        if os.path.exists(result[n]):
            with open(result[n], 'rb') as file:
                data = file.read()
            check(first.setdefault(n % len(kinds), data) == data, f'predict: case {n} is like case {n % len(kinds)}, its result is not')
    check(len(set(first.values())) >= 6, 'predict: the results of different cases differ')
    print(f'predict: {cases} cases, {cases - len(good)} of them broken')
    record.judge()


def main():
    segfm = sys.argv[1].split()
    seconds, cases, seed = (int(word) for word in (sys.argv[2:] + ['7200', '1000', '1'][len(sys.argv) - 2:])[:3])
    if not os.path.exists('/proc/self/smaps_rollup'):
        print('no /proc: nothing can be seen\n0 passed, 1 failed')
        return 1
    os.environ['OMP_WAIT_POLICY'] = 'passive'
    for part, life in (('session', live_session), ('predict', live_predict)):
        amount = {'session': (seconds, seed), 'predict': (cases,)}[part]
        if amount[0] > 0:
            with tempfile.TemporaryDirectory() as folder:
                life(segfm, folder, *amount)
    return checks.finish()


if __name__ == '__main__':
    sys.exit(main())
