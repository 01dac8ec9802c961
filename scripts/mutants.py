#!/usr/bin/env python3
"""mutants.py [COUNT [SEED]]: do the tests notice when the code is wrong? Changes one place of nn, vol or io at a time, compiles what
depends on it, and runs the tests until one turns red. First all changes with the tests named for the source, then what is left with
all tests that link it, the fast ones first, and in the builds with tiny tiles, in double, and with three threads. What none notices survives and is
printed. A test that includes a changed header is compiled anew with it.

A change: a constant one more or less, + for −, && for ||, < for <= and so on, a sign or a "not" lost. One that does not compile or gives the same
object code is none, and another is drawn. test/mutants.txt lists changes that no test can notice, each with its reason.

What is found goes to build/mutants/results.tsv and is not done again, but for survivors with RETRY=1. FILES: a pattern, only sources
that match. BUILDS: those in which tests run, "float tiny double threads". Ends well when 90 % are killed. Last line: N passed, N failed."""
import collections
import filecmp
import glob
import hashlib
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(ROOT, 'build', 'mutants')
RESULTS = os.path.join(WORK, 'results.tsv')
KNOWN = os.path.join(ROOT, 'test', 'mutants.txt')
NEED = 90  # per cent
TINY = 'CFLAGS=-DNN_TEST_MR=3 -DNN_MC=5 -DNN_KC=256 -DSEGFM_TINY'
BUILDS = {'float': [], 'tiny': ['ISA=generic', TINY], 'double': ['REAL=double'], 'threads': ['OMP=1']}
WANTED = os.environ.get('BUILDS', 'float tiny double threads').split()
# Tests of a source beside the one that is named like it.
BY_ROOM = {'nn/segvol/': ['segvol', 'corrector', 'network', 'windows'], 'nn/': ['backward', 'segvol'], 'vol/': ['session', 'eval', 'windows'],
           'io/': ['file', 'zip', 'weights', 'refused']}
BY_SOURCE = {'nn/kernels.c': ['gemm', 'attention', 'math'], 'nn/kernel.h': ['gemm', 'attention', 'elementwise', 'norm', 'math'],
             'nn/pack.h': ['gemm'], 'nn/arena.c': ['hostile', 'session'], 'io/inflate.c': ['deflate'], 'io/buffer.c': ['inflate', 'refused'],
             'vol/surface.c': ['distance'], 'vol/random.c': ['click'], 'nn/resize.c': ['trilinear']}

# ---- the places ---------------------------------------------------------------------------------------------------

TOKEN = re.compile(r'''/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[A-Za-z_]\w*|(?:0[xX][0-9a-fA-F.]+(?:[pP][+-]?\d+)?|\.?\d(?:[eE][+-]|[\w.])*)\w*
    |->|\+\+|--|<<=?|>>=?|[-+*/%&|^<>=!]=|&&|\|\||\s+|.''', re.S | re.X)
SWAPS = {'<': ['<='], '<=': ['<'], '>': ['>='], '>=': ['>'], '==': ['!='], '!=': ['=='], '&&': ['||'], '||': ['&&'], '+=': ['-='], '-=': ['+='],
         '++': ['--'], '--': ['++']}


def constant(text):
    """The number one more and one less, or nothing for what is no plain number."""
    number = re.fullmatch(r'(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)', text)
    if number:
        value, base = int(number[1], 0 if number[1][:2] in ('0x', '0X') else 10), number[1][:2] in ('0x', '0X')
        return [(hex(v) if base else str(v)) + number[2] for v in (value + 1, value - 1) if v >= 0]
    number = re.fullmatch(r'(\d+\.\d*|\.\d+)([fF]?)', text)
    return [repr(float(number[1]) + d) + number[2] for d in (1, -1)] if number else []


def places(text):
    """(offset, old, new) of every change that could be made."""
    found, before, line_start = [], '', True
    skip_until = -1
    for match in TOKEN.finditer(text):
        token, at = match[0], match.start()
        if token.isspace():
            line_start = line_start or '\n' in token
            if '\n' in token and at >= skip_until:
                skip_until = -1
            continue
        if token == '#' and line_start:  # a directive, to its end
            end = at
            while True:
                end = text.find('\n', end + 1)
                if end < 0 or text[end - 1] != '\\':
                    break
            skip_until = len(text) if end < 0 else end
        line_start = False
        if token.startswith('/*') or at < skip_until:
            continue
        if token in ('assert', 'static_assert', '_Static_assert'):
            skip_until = text.index(';', at)
            continue
        value_before = before and (re.match(r'[\w.)\]"\']', before[-1]) and before not in ('return', 'case'))
        if token in SWAPS:
            found += [(at, token, new) for new in SWAPS[token]]
        elif token in '+-':
            found.append((at, token, ('-' if token == '+' else '+') if value_before else ''))
        elif token == '!':
            found.append((at, token, ''))
        elif token[0].isdigit() or token[0] == '.' and len(token) > 1:
            found += [(at, token, new) for new in constant(token)]
        before = token
    return found


class Mutant:
    def __init__(self, source, text, at, old, new):
        self.source, self.at, self.old, self.new = source, at, old, new
        self.line = text.count('\n', 0, at) + 1
        begin, end = text.rfind('\n', 0, at) + 1, text.find('\n', at)
        self.before = ' '.join(text[begin:end].split())
        self.after = ' '.join((text[begin:at] + new + text[at + len(old):end]).split())
        self.whole = text[:at] + new + text[at + len(old):]
        self.key = f'{source}:{self.line}:{at - begin}\t{self.before}\t{self.after}'

    def __str__(self):
        return f'{self.source}:{self.line}: {self.before}  →  {self.after}'


def draw(seed, pattern):
    """All that there are, in the order of hashes of the seed and the change: a source that changes leaves the others' places alone."""
    mutants, seen = [], collections.Counter()
    for source in sorted(glob.glob('nn/**/*.[ch]', root_dir=ROOT, recursive=True) + glob.glob('vol/*.[ch]', root_dir=ROOT) +
                         glob.glob('io/*.[ch]', root_dir=ROOT)):
        if re.search(pattern, source):
            with open(os.path.join(ROOT, source)) as file:
                text = file.read()
            mutants += [Mutant(source, text, *place) for place in places(text)]

    def rank(mutant):
        change = (mutant.source, mutant.before, mutant.after)
        seen[change] += 1
        return hashlib.sha256('\t'.join((str(seed), *change, str(seen[change]))).encode()).digest()
    return sorted(mutants, key=rank)


# ---- building -----------------------------------------------------------------------------------------------------

class Build:
    """One of the builds that make test runs, in a copy of the tree, and what each of its tests takes."""

    def __init__(self, name, tree):
        self.name, self.tree, self.folder = name, tree, 'build/' + name
        make = ['make', '-s', 'OPT=-O1', 'OMP=0', 'BUILD=' + self.folder] + BUILDS[name]
        libraries = [f'{self.folder}/{lib}' for lib in ('libsegfm.a', 'libtools.a')]
        subprocess.run(make + libraries + [self.folder + '/segfm'], cwd=tree, check=True, stdout=subprocess.DEVNULL)
        plan = subprocess.run(make + ['-n', '-B', 'tests'], cwd=tree, check=True, stdout=subprocess.PIPE, text=True).stdout
        self.built = max(os.path.getmtime(os.path.join(tree, lib)) for lib in libraries)
        self.compile, self.link, self.own = {}, {}, {}  # source: command that makes its object; test: command, and that of its own object
        for line in plan.split('\n'):
            words = shlex.split(line) if ' -o ' in line else []
            if '-c' in words:
                self.compile[words[words.index('-c') + 1]] = words
            elif words:
                self.link[os.path.basename(words[words.index('-o') + 1])] = words
        self.archives = {lib: [self.object(s) for s in self.compile if s.startswith('tools/') == (lib == 'libtools.a') and s != 'tools/main.c']
                         for lib in ('libsegfm.a', 'libtools.a')}
        self.scratch = self.folder + '-mutant'  # as deep as the other: the command looks for its model beside build/
        os.makedirs(os.path.join(tree, self.scratch, 'test'), exist_ok=True)
        self.kept_file, self.kept = os.path.join(tree, self.folder, 'kept.json'), {}
        if os.path.exists(self.kept_file):
            with open(self.kept_file) as file:
                self.kept = json.load(file)
        self.members = {'command': None}
        for test in sorted(self.link):
            if test != 'segfm':
                words, source = self.link[test], f'test/{test}.c'
                target = self.object(source)
                self.own[test] = words[:words.index(source)] + ['-c', source, '-o', target]
                if self.is_stale(target):
                    os.makedirs(os.path.dirname(os.path.join(tree, target)), exist_ok=True)
                    subprocess.run(self.own[test], cwd=tree, check=True)
                words[words.index(source)] = target
                words[words.index('-o') + 1] = f'{self.scratch}/test/{test}'
                members = self.keep('members', test, lambda: self.prepare(test))
                self.members[test] = None if members is None else set(members)

    def object(self, source):
        return f'{self.folder}/{source[:-2]}.o'

    def made(self, test):
        return self.built if test == 'command' else max(self.built, os.path.getmtime(os.path.join(self.tree, self.object(f'test/{test}.c'))))

    def is_stale(self, path):
        """Older than what it was made of."""
        path = os.path.join(self.tree, path)
        if not os.path.exists(path):
            return True
        return any(os.path.getmtime(os.path.join(self.tree, name)) > os.path.getmtime(path) for name in self.used(path))

    def used(self, path):
        """What an object was made of, by the .d beside it."""
        with open(os.path.join(self.tree, path[:-2] + '.d')) as file:
            return [os.path.normpath(name) for name in file.read().split(':', 1)[1].replace('\\\n', ' ').split('\n')[0].split()]

    def keep(self, kind, test, make):
        """What make() gives, once for each program; kept in a file."""
        known = self.kept.setdefault(kind, {})
        if test not in known or known[test][0] != self.made(test):
            known[test] = self.made(test), make()
            with open(self.kept_file, 'w') as file:
                json.dump(self.kept, file)
        return known[test][1]

    def prepare(self, test):
        """Links it; returns the members of the archives that it takes, None: all."""
        words = list(self.link[test])
        words[words.index('-o') + 1] = f'{self.folder}/test/{test}'
        table = subprocess.run(words + ['-Wl,-Map=-'], cwd=self.tree, check=True, stdout=subprocess.PIPE, text=True).stdout
        with open(os.path.join(self.tree, f'test/{test}.c')) as file:
            if 'command.h' in file.read():  # it runs the command, which takes everything
                return None
        members = sorted(set(re.findall(r'\.a\((\w+\.o)\)', table)))
        assert members, 'no member of the archives in the map of ' + test
        return members

    def seconds(self, test):
        """What it takes; it must be green without a change."""
        def measure():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            if not self.run(test, self.folder, None):
                sys.exit(f'mutants.py: {self.name} {test} is red without a change')
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return self.keep('seconds', test, measure)

    def run(self, test, folder, limit):
        """True when it is green. limit: of processor seconds."""
        def limits():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        with tempfile.TemporaryDirectory() as scratch:
            command = ['sh', 'test/command.sh', f'{folder}/segfm'] if test == 'command' else [f'{folder}/test/{test}']
            process = subprocess.Popen(command, cwd=self.tree, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       env=dict(os.environ, TMPDIR=scratch, OMP_NUM_THREADS='3', OMP_WAIT_POLICY='passive'),
                                       preexec_fn=limits, start_new_session=True)
            try:
                code = process.wait(timeout=3600)
            except subprocess.TimeoutExpired:
                code = None
            try:
                os.killpg(process.pid, 9)  # itself and what it has left
            except ProcessLookupError:
                pass
            process.wait()
        return code == 0

    def dependents(self, source):
        if source.endswith('.c'):
            return [source]
        return [unit for unit in self.compile if source in self.used(self.object(unit))]

    def rebuild(self, units):
        """Compiles these into the scratch folder: 'same' code, or 'bad' C, or a map of objects to those that take their places."""
        changed, same = {}, True
        for unit in units:
            out = os.path.join(self.scratch, unit[:-2].replace('/', '.') + '.o')
            words = list(self.compile[unit])
            words[words.index('-o') + 1] = out
            done = subprocess.run([w for w in words if w not in ('-MMD', '-MP')] + ['-w'], cwd=self.tree, stderr=subprocess.DEVNULL)
            if done.returncode != 0:
                return 'bad'
            with open(os.path.join(self.tree, out), 'rb') as new, open(os.path.join(self.tree, self.object(unit)), 'rb') as old:
                same = same and new.read() == old.read()
            changed[self.object(unit)] = out
        return 'same' if same else changed

    def archive(self, changed):
        for name, members in self.archives.items():
            path = os.path.join(self.tree, self.scratch, name)
            if os.path.exists(path):
                os.remove(path)
            subprocess.run(['ar', 'rcs', os.path.join(self.scratch, name)] + [changed.get(m, m) for m in members], cwd=self.tree, check=True)

    def relink(self, name, changed, source):
        if name != 'segfm' and source in self.used(self.own[name][-1]):  # a header of its own
            target = f'{self.scratch}/test/{name}.o'
            if subprocess.run(self.own[name][:-1] + [target, '-w'], cwd=self.tree, stderr=subprocess.DEVNULL).returncode != 0:
                return False
            changed = dict(changed, **{self.own[name][-1]: target})
        words = [w.replace(self.folder + '/lib', self.scratch + '/lib') for w in self.link[name]]
        if name == 'segfm':
            words[words.index('-o') + 1] = self.scratch + '/segfm'
        words = [changed.get(w, w) for w in words]
        return subprocess.run(words, cwd=self.tree, stderr=subprocess.DEVNULL).returncode == 0

    def order(self, source, units, named):
        """The tests that could notice: those named for the source, or the others, the fast ones first."""
        objects = {os.path.basename(self.object(u)) for u in units}
        could = [t for t in self.members if self.members[t] is None or self.members[t] & objects or
                 t != 'command' and source in self.used(self.own[t][-1])]
        stem = re.sub(r'.*/|\.[ch]$', '', source)
        first = [stem] + BY_SOURCE.get(source, []) + next(tests for room, tests in BY_ROOM.items() if source.startswith(room))
        rank = {'test_' + name: i for i, name in reversed(list(enumerate(first)))}
        could = [t for t in could if (t in rank) == named]
        return sorted(could, key=lambda t: (rank.get(t, len(first)), self.kept.get('seconds', {}).get(t, (0, 1))[1], t))

    def notices(self, source, units, changed, named):
        """The test that turns red, or None."""
        self.archive(changed)
        linked = False
        for test in self.order(source, units, named):
            seconds = self.seconds(test)
            if self.members[test] is None and not linked:
                linked = self.relink('segfm', changed, source)
                if not linked:
                    return 'the linker'
            if test != 'command' and not self.relink(test, changed, source):
                return 'the linker'
            if not self.run(test, self.scratch, int(4 + 10 * seconds)):
                return f'{self.name} {test}'
        return None


class Judge:
    def __init__(self):
        """The copy is kept from run to run: only files that differ are copied, so that make has little to do."""
        self.tree = os.path.join(WORK, 'tree')
        files = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, check=True,
                               stdout=subprocess.PIPE, text=True).stdout.split('\0')
        for name in filter(None, files):
            source, target = os.path.join(ROOT, name), os.path.join(self.tree, name)
            if os.path.exists(source) and not (os.path.exists(target) and filecmp.cmp(source, target, shallow=False)):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy(source, target)
        self.builds = {}

    def build(self, name):
        if name not in self.builds:
            self.builds[name] = Build(name, self.tree)
        return self.builds[name]

    def judge(self, mutant, named):
        """'bad', 'same', 'killed' and by what, 'survived', or of the named tests alone 'open'."""
        path = os.path.join(self.tree, mutant.source)
        with open(path) as file:
            right = file.read()
        times = os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns
        for name in WANTED[:1] if named else WANTED:
            build = self.build(name)  # while the tree is right
            units = build.dependents(mutant.source)
            with open(path, 'w') as file:
                file.write(mutant.whole)
            try:
                changed = build.rebuild(units) if units else 'same'
                if isinstance(changed, dict):
                    noticed = build.notices(mutant.source, units, changed, named) or \
                        (not named and name != WANTED[0] and build.notices(mutant.source, units, changed, True))
                    if noticed:
                        return 'killed', noticed
                    changed = 'survived'
            finally:
                with open(path, 'w') as file:
                    file.write(right)
                os.utime(path, ns=times)
            if changed != 'survived' and name == WANTED[0]:
                return changed, ''  # only code that every build has is drawn
        return 'open' if named else 'survived', ''


# ---- what was found -----------------------------------------------------------------------------------------------

def read_results():
    found = {}
    if os.path.exists(RESULTS):
        with open(RESULTS) as file:
            for line in file:
                verdict, _, key = line.rstrip('\n').split('\t', 2)
                found[key] = verdict
    return found


def read_known():
    """{(source, before, after): reason} of test/mutants.txt: three lines a change, with an empty one behind."""
    known = {}
    with open(KNOWN) as file:
        blocks = re.split(r'\n\s*\n', re.sub(r'(?m)^#.*\n', '', file.read()).strip())
    for block in filter(None, blocks):
        lines = block.split('\n')
        source, before = lines[0].split(': ', 1)
        known[source, ' '.join(before.split()), ' '.join(lines[1].split())] = ' '.join(lines[2:])
        assert len(lines) >= 3 and lines[2].strip(), 'no reason: ' + block
    return known


def main():
    count, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 200, int(sys.argv[2]) if len(sys.argv) > 2 else 1
    os.makedirs(WORK, exist_ok=True)
    results, known, judge = read_results(), read_known(), None
    tally = {'killed': [], 'survived': [], 'equivalent': [], 'open': []}
    none, begun = 0, time.time()

    def find_out(mutant, named):
        nonlocal judge
        judge = judge or Judge()
        verdict, by = judge.judge(mutant, named)
        with open(RESULTS, 'a') as file:
            file.write(f'{verdict}\t{by}\t{mutant.key}\n')
        if verdict not in ('bad', 'same'):
            print(f'{int(time.time() - begun):5} s  {verdict:8} {by:24} {mutant}', flush=True)
        return verdict

    for mutant in draw(seed, os.environ.get('FILES', '')):
        if sum(map(len, tally.values())) == count:
            break
        verdict = results.get(mutant.key)
        if (mutant.source, mutant.before, mutant.after) in known:
            verdict = 'equivalent'
        elif verdict is None or verdict == 'survived' and os.environ.get('RETRY') == '1':
            verdict = find_out(mutant, True)
        if verdict in tally:
            tally[verdict].append(mutant)
        else:
            none += 1
    print(f'{len(tally["killed"])} of {count} killed by the tests named for their sources, {len(tally["open"])} open', flush=True)
    for mutant in tally.pop('open'):
        tally[find_out(mutant, False)].append(mutant)
    for kind in ('equivalent', 'survived'):
        for mutant in tally[kind]:
            print(f'{kind}: {mutant}')
    killed, survived, equivalent = (len(tally[k]) for k in ('killed', 'survived', 'equivalent'))
    print(f'{killed} killed, {survived} survived, {equivalent} equivalent (test/mutants.txt); '
          f'{none} more do not compile or are the same code; seed {seed}')
    share = 100 * killed / max(1, killed + survived)
    print(f'{share:.1f} % killed, need {NEED}')
    good = share >= NEED and killed + survived + equivalent == count
    print(f'{int(good)} passed, {int(not good)} failed')
    return not good


if __name__ == '__main__':
    sys.exit(main())
