#!/usr/bin/env python3
"""soak.py SEGFM [COMMANDS [SEED]]: a long random dialogue with `segfm session`, good, bad and broken lines mixed.

Keeps its own record of what was said and checks: one JSON object answers each command; a bad command changes nothing; undo
and then redo is the identity, bit for bit; a second process that hears the object's box and clicks alone, in their order,
gives the same mask and logits; the resident memory does not grow. Last line: N passed, N failed.
"""
import gzip
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

SHAPES = {'a.nii': (40, 36, 24), 'b.nii': (25, 44, 31), 'c.nii.gz': (21, 33, 29)}  # x, y, z
BROKEN = ['cut.nii', 'cut.nii.gz', 'cut.npz']
MAX_CLICKS = 40  # of one object, so that a replay does not take all the time


def write_scan(path, shape, seed):
    """A bright block in textured ground, dark at the borders; NIfTI-1, uint8."""
    nx, ny, nz = shape
    header = bytearray(352)
    struct.pack_into('<i', header, 0, 348)
    struct.pack_into('<8h', header, 40, 3, nx, ny, nz, 1, 1, 1, 1)
    struct.pack_into('<2h', header, 70, 2, 8)
    struct.pack_into('<8f', header, 76, 1, 0.8, 1, 2, 0, 0, 0, 0)
    struct.pack_into('<f', header, 108, 352)
    header[344:348] = b'n+1\0'
    noise = random.Random(seed)
    voxels = bytes(
        0 if min(x, nx - 1 - x) < 2 or min(y, ny - 1 - y) < 1
        else (150 if nx // 4 < x < nx // 2 and ny // 4 < y < ny // 2 and nz // 4 < z < nz // 2 else 20) + noise.randrange(40)
        for z in range(nz) for y in range(ny) for x in range(nx))
    with (gzip.open if path.endswith('.gz') else open)(path, 'wb') as file:
        file.write(bytes(header) + voxels)


def write_scans(folder):
    for i, (name, shape) in enumerate(SHAPES.items()):
        write_scan(os.path.join(folder, name), shape, i)
    for name, of in zip(BROKEN, ('a.nii', 'c.nii.gz', 'a.nii')):
        with open(os.path.join(folder, of), 'rb') as whole, open(os.path.join(folder, name), 'wb') as file:
            file.write(whole.read()[:-20])


class Session:
    def __init__(self, segfm, folder, weights=('-w', 'formula:tiny')):
        self.folder, self.lines = folder, 0
        self.process = subprocess.Popen([*segfm, 'session', *weights, '--quiet'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line):
        self.lines += 1
        self.process.stdin.write(line if isinstance(line, bytes) else line.encode())
        self.process.stdin.write(b'\n')
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def state(self, name):
        """The bytes of mask and logits as they are now."""
        files = [os.path.join(self.folder, f'{name}.{kind}.nii') for kind in ('mask', 'logits')]
        for kind, path in zip(('mask', 'logits'), files):
            answer = self.ask(f'{kind} {path}')
            assert answer['ok'], answer
        return b''.join(open(path, 'rb').read() for path in files)

    def memory(self):
        """Resident, in pages; 0 where there is no /proc."""
        try:
            with open(f'/proc/{self.process.pid}/statm', encoding='ascii') as file:
                return int(file.read().split()[1])
        except OSError:
            return 0

    def end(self):
        self.process.stdin.close()
        return self.process.wait()


class Dialogue:
    def __init__(self, segfm, folder, seed):
        self.segfm, self.folder = segfm, folder
        self.random = random.Random(seed)
        self.session = Session(segfm, folder)
        self.scan = None
        self.calls, self.cursor = [], 0  # what undo and redo walk over
        self.passed = self.failed = 0

    def check(self, holds, what):
        self.passed += bool(holds)
        self.failed += not holds
        if not holds:
            print('failed:', what)

    def voxel(self):
        return [self.random.randrange(n) for n in SHAPES[self.scan]]

    def object_calls(self):
        first = self.cursor
        while first > 0 and self.calls[first - 1].startswith('click'):
            first -= 1
        if first > 0 and self.calls[first - 1].startswith('box'):
            first -= 1
        return self.calls[first:self.cursor]

    def said(self, line):
        self.calls[self.cursor:] = [line]
        self.cursor += 1

    # ---- commands ------------------------------------------------------------------------------------------------

    def open(self):
        name = self.random.choice(list(SHAPES))
        answer = self.session.ask(f'open {self.folder}/{name}')
        self.check(answer['ok'] and not answer['undo'] and answer['object'] == 1, f'open: {answer}')
        self.scan, self.calls, self.cursor = name, [], 0

    def box(self):
        a, b = self.voxel(), self.voxel()
        line = 'box ' + ','.join(map(str, [min(p) for p in zip(a, b)] + [max(p) for p in zip(a, b)]))
        answer = self.session.ask(line)
        self.check(answer['ok'] and answer['box'] and answer['clicks'] == 0, f'{line}: {answer}')
        self.said(line)

    def click(self):
        if sum(call.startswith('click') for call in self.object_calls()) >= MAX_CLICKS:
            return self.reset()
        line = 'click ' + ','.join(map(str, self.voxel())) + self.random.choice((',+', ',-'))
        answer = self.session.ask(line)
        self.check(answer['ok'] and answer['clicks'] > 0, f'{line}: {answer}')
        self.said(line)

    def reset(self):
        standing = len(self.object_calls()) > 0
        answer = self.session.ask('reset')
        self.check(answer['ok'] and not answer['box'] and answer['clicks'] == 0, f'reset: {answer}')
        if standing:
            self.said('reset')

    def undo_and_redo(self):
        steps = self.random.randrange(1, 4)
        before = self.session.state('before')
        done = 0
        for _ in range(steps):
            answer = self.session.ask('undo')
            self.check(answer['ok'] or answer['error'] == 'there is nothing to undo', f'undo: {answer}')
            done += answer['ok']
        for _ in range(done):
            answer = self.session.ask('redo')
            self.check(answer['ok'], f'redo: {answer}')
        self.check(self.session.state('after') == before, f'undo and redo of {done} of {self.calls[-5:]}')

    def undo(self):
        answer = self.session.ask('undo')
        self.check(answer['ok'] or answer['error'] == 'there is nothing to undo', f'undo: {answer}')
        self.cursor -= answer['ok']

    def redo(self):
        answer = self.session.ask('redo')
        self.check(answer['ok'] == (self.cursor < len(self.calls)), f'redo: {answer}')
        self.cursor += answer['ok']

    def next(self):
        answer = self.session.ask('next')
        self.check(answer['ok'] and not answer['undo'], f'next: {answer}')
        self.calls, self.cursor = [], 0

    def nonsense(self):
        lines = [b'', 'bogus', 'box', 'box 1,2,3', 'box 9,9,9,1,1,1', 'box 0,0,0,999,1,1', 'click 1,2,3', 'click 1,2,3,x', 'click nan,1,2,+',
                 'click -1,0,0,+', 'click 99999999999999999999,0,0,+', 'click 1e9,0,0,-', 'undo 3', 'open', f'open {self.folder}/missing.nii',
                 f'open {self.folder}', 'mask', f'mask {self.folder}/x.txt', f'mask {self.folder}/{self.scan}', f'mask {self.folder}/no/x.nii',
                 'logits', 'labels', 'open --volume 3 x', 'x' * 5000, b'click \xff\xfe\x00,1', b'\x00', b'\x1b[2J "\\', 'next 1', 'status now',
                 'box --world a', *(f'open {self.folder}/{name}' for name in BROKEN)]
        before = self.session.state('before')
        line = self.random.choice(lines)
        if line == b'':
            line = b'\n# a remark\nbogus again'
        answer = self.session.ask(line)
        self.check(not answer['ok'] and answer['error'] and answer['changed'] == 0 and answer['bounds'] is None, f'{line!r}: {answer}')
        self.check(self.session.state('after') == before, f'{line!r} changes nothing')

    def replay(self):
        other = Session(self.segfm, self.folder)
        other.ask(f'open {self.folder}/{self.scan}')
        for call in self.object_calls():
            other.ask(call)
        self.check(other.state('replayed') == self.session.state('standing'), f'a replay of {self.object_calls()}')
        self.check(other.end() == 0, 'the second process ends well')

    def results(self):
        for line in (f'labels {self.folder}/labels.nii.gz', f'mask {self.folder}/mask.hdr', 'status'):
            answer = self.session.ask(line)
            self.check(answer['ok'], f'{line}: {answer}')

    def step(self):
        """A random act."""
        acts = [(self.box, 12), (self.click, 45), (self.undo, 12), (self.redo, 8), (self.reset, 3), (self.next, 3), (self.nonsense, 10),
                (self.undo_and_redo, 4), (self.open, 2), (self.replay, 1), (self.results, 1)]
        self.random.choices([act for act, _ in acts], [weight for _, weight in acts])[0]()

    def run(self, commands):
        self.open()
        early = 0
        for i in range(commands):
            self.step()
            if i == commands // 4:
                early = self.session.memory()
            if self.failed > 10:
                break
        late = self.session.memory()
        self.check(late <= early * 1.05 + 256, f'resident memory: {early} pages after a quarter of the commands, {late} after all')
        print(f'{commands} commands; resident memory {early} pages after a quarter of them, {late} after all')
        answer = self.session.ask('quit')
        self.check(answer['ok'] and self.session.end() == 0, 'quit')


def main():
    segfm = sys.argv[1].split()
    commands, seed = (int(word) for word in (sys.argv[2:] + ['10000', '1'][len(sys.argv) - 2:])[:2])
    with tempfile.TemporaryDirectory() as folder:
        write_scans(folder)
        dialogue = Dialogue(segfm, folder, seed)
        dialogue.run(commands)
    print(f'{dialogue.passed} passed, {dialogue.failed} failed')
    return dialogue.failed > 0


if __name__ == '__main__':
    sys.exit(main())
