"""run.py SEGFM: what the command does when memory, a disk or a process fails. Each fault is one run in a folder of its own.

    alloc   each allocation fails once, then each with all after it (allocate.c); --sanitized: once more under the sanitizers
    call    each system call on the scenario's files, standard input and output fails in each way that it may (strace)
    kill    the process is killed at each of these calls
    full    a file system that is full after so many pages or files; a limit to the size of a file
    locked  a file system that is read-only, folders and files of somebody else
    random  the process is killed at any moment

After each: the exit code is the fault's (or 0, and then nothing is missing); one sentence on stderr; no file is half-written, none
that was there is changed but by a whole new one, no temporary file is left unless the process was killed; and what is run
again then ends with the bytes of a run that nothing disturbed.

    --quick       a sample of each          --only TEXT   scenarios whose name has TEXT in it
    --kind KIND   these faults alone        --jobs N      so many at a time        --keep   leaves the folders
    --count       only how many there are"""
import argparse
import collections
import errno
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from scenarios import SCENARIOS  # noqa: E402  (which finds test/malformed)
from folders import files_of, write  # noqa: E402

KINDS = ("alloc", "call", "kill", "full", "locked", "random")
OLD = b"what was here before\n"
PAGE = os.sysconf("SC_PAGESIZE")
NOBODY = 65534
TEMPORARY = ".segfm-"

# --quick: of each scenario's faults of a kind so many.
QUICK = {"alloc": 24, "alloc, sanitized": 3, "call": 12, "kill": 6, "full": 4, "locked": 3, "random": 10}

# How a call may fail. ENOMEM must end with code 4. "+": this call and all after it.
ERRORS = {
    "read": ("EIO", "EINTR"), "write": ("ENOSPC", "ENOSPC+", "EIO", "EINTR"), "openat": ("EACCES", "EMFILE", "EIO", "ENOMEM"),
    "close": ("EIO",), "fsync": ("EIO", "ENOSPC", "EINVAL"), "rename": ("EIO", "ENOSPC", "EACCES"), "unlink": ("EIO",),
    "lseek": ("EIO",), "mmap": ("ENODEV", "ENOMEM"), "newfstatat": ("EIO", "EACCES", "ENOMEM"), "getdents64": ("EIO",),
    "mkdir": ("ENOSPC", "EACCES"), "ftruncate": ("EIO",), "access": ("EIO", "EACCES"), "fchmod": ("EPERM",), "fcntl": ("EIO",),
    "fstat": ("EIO",), "stat": ("EIO",), "munmap": ()}
# What the sentence must say of it; of standard output it need not.
REASONS = {"EIO": "device failed|Input/output error", "ENOSPC": "disk is full|No space left", "EACCES": "no permission|Permission denied",
           "EMFILE": "oo many open files", "EINTR": "nterrupted|system error 4", "ENOMEM": "memory"}

Call = collections.namedtuple("Call", "name number codes stdio ignored")
Outcome = collections.namedtuple("Outcome", "code out err files")


def environment(**more):
    return dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", LC_ALL="C",
                ASAN_OPTIONS="exitcode=99:allocator_may_return_null=1", UBSAN_OPTIONS="print_stacktrace=1:exitcode=98", **more)


def fill(folder, files):
    write(folder, files)
    for name in files:
        if name.startswith("bin/segfm"):
            os.chmod(os.path.join(folder, name), 0o755)


def empty(folder):
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def table(data):
    """A table without its columns of seconds, which no two runs share."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    keep = [i for i, name in enumerate(rows[0] if rows else []) if not name.startswith("seconds")]
    return [[row[i] for i in keep if i < len(row)] for row in rows]


def plain(name, data):
    return table(data) if name.endswith(".csv") else data


def without_ms(out):
    """Answers without the time they took and the memory of a session, which another build may have more of."""
    return re.sub(rb'"(ms|bytes)":[0-9.]+', b'"ms":0', out)


def is_temporary(name):
    return os.path.basename(name).startswith(TEMPORARY)


class World:
    """A scenario made ready: its files, and what an undisturbed run makes of them."""

    def __init__(self, scenario, segfm, scratch):
        self.s, self.scratch, self.sessions = scenario, scratch, {}
        self.segfm = segfm
        self.inputs = dict(scenario.files)
        folder = self.folder()
        fill(folder, self.files_with_program())
        for arguments in scenario.setup:
            done = subprocess.run([self.program()] + arguments + ["--quiet"], cwd=folder, env=environment(), capture_output=True)
            if done.returncode != 0:
                raise SystemExit("%s: setup: %s" % (scenario.name, done.stderr.decode()))
        made = files_of(folder)
        self.inputs = {k: v for k, v in made.items() if k not in self.files_with_program() or k in self.inputs}
        self.begin = dict(self.inputs, **{name: OLD for name in scenario.old})
        first, second = self.run(self.s.arguments), self.run(self.s.arguments)
        if first.code != scenario.code or first.err:
            raise SystemExit("%s: undisturbed: code %d: %s" % (scenario.name, first.code, first.err.decode()))
        self.want = first
        assert without_ms(first.out) == without_ms(second.out) and self.same(first.files, second.files), scenario.name
        assert all(name in first.files and first.files[name] != OLD for name in scenario.old), scenario.name

    def folder(self, of=""):
        path = os.path.join(self.scratch, self.s.name, str(os.getpid()) + of)
        os.makedirs(path, exist_ok=True)
        return path

    def program(self):
        return os.path.join("bin", "segfm") if self.s.beside else os.path.abspath(self.segfm)

    def files_with_program(self):
        if not self.s.beside:
            return self.inputs
        with open(self.segfm, "rb") as f:
            return dict(self.inputs, **{"bin/segfm": f.read()})

    def fresh(self, files=None, of=""):
        folder = self.folder(of)
        empty(folder)
        os.chmod(folder, 0o755)
        fill(folder, self.files_with_program())
        fill(folder, self.begin if files is None else files)
        return folder

    def execute(self, folder, arguments, prefix=(), program=None, stdin=None, **more):
        process = subprocess.run(list(prefix) + [program or self.program()] + arguments + self.s.more, cwd=folder,
                                 input=self.s.stdin if stdin is None else stdin, capture_output=True, timeout=120, **more)
        files = files_of(folder)
        files.pop("bin/segfm", None)
        return Outcome(process.returncode, process.stdout, process.stderr, files)

    def run(self, arguments, **more):
        return self.execute(self.fresh(), arguments, env=environment(), **more)

    def same(self, a, b):
        return a.keys() == b.keys() and all(plain(name, a[name]) == plain(name, b[name]) for name in a)

    # ---- what must hold --------------------------------------------------------------------------------------------

    def partial(self, name, data, err):
        """Is this what may stand in a file when something failed before the end, yet is no half of anything?"""
        if self.s.kind == "train":  # its logs grow by lines; checkpoints and weights of earlier steps: running again proves them
            if not name.endswith(".csv"):
                return name.startswith("run/")
            whole = table(data[:data.rfind(b"\n") + 1])  # what is behind it a resumed run cuts off
            return whole == table(self.want.files[name])[:len(whole)]
        if self.s.kind == "eval" and name in ("out.csv", "saved/prompts.tsv"):  # without the cases that failed, which are named
            split = "," if name == "out.csv" else "\t"
            rows, all_rows = table(data), table(self.want.files[name])
            left_out = {row[0].split(split)[0] for row in all_rows if row not in rows}
            return (rows[:1] == all_rows[:1] and [row for row in all_rows if row in rows] == rows and len(left_out) <= err.count(b"\n"))
        return False

    def check_files(self, files, err, temporaries):
        problems = []
        for name in files:
            if is_temporary(name):
                problems += [] if temporaries else ["left behind: " + name]
            elif name not in self.begin and name not in self.want.files:
                problems.append("made: " + name)
        for name in sorted(set(self.begin) | set(self.want.files)):
            fine = [plain(name, where[name]) for where in (self.begin, self.want.files) if name in where]
            if name not in files:
                problems += ["gone: " + name] if name in self.begin else []
            elif plain(name, files[name]) not in fine and not self.partial(name, files[name], err):
                problems.append("half-written: %s, %d bytes" % (name, len(files[name])))
        return problems

    def session_without(self, missing):
        """The session without these commands: what must stand when they failed. In another folder: that of the fault may still be
        without room, or locked, and will be looked at again."""
        if missing not in self.sessions:
            lines = [line for i, line in enumerate(self.s.stdin.split(b"\n")) if i not in missing]
            folder = self.fresh(of="-without")
            self.sessions[missing] = self.execute(folder, self.s.arguments, env=environment(), stdin=b"\n".join(lines))
        return self.sessions[missing]

    def check_session(self, got, codes, reason):
        answers = [json.loads(line) for line in without_ms(got.out).decode().splitlines()]
        expected = [json.loads(line) for line in without_ms(self.want.out).decode().splitlines()]
        failed = {i for i, a in enumerate(answers) if not a["ok"]}
        problems = ["an answer says no reason" for i in failed if not answers[i]["error"]]
        if got.code == 0 and len(answers) < len(expected):
            problems.append("%d answers, need %d" % (len(answers), len(expected)))
        if got.code == 0 and failed and reason and not re.search(reason, "".join(answers[i]["error"] for i in failed)):
            problems.append("no answer says %s: %s" % (reason, answers[min(failed)]["error"]))
        if problems or got.code != 0 and 5 in codes:  # nobody heard an answer: its command may be done
            return problems + self.check_files(got.files, got.err, False)
        missing = failed | set(range(len(answers), len(expected)))
        want = self.session_without(frozenset(missing))
        if not self.same(got.files, want.files):
            problems.append("files are not those of a session without commands %s" % sorted(missing))
        if [a for i, a in enumerate(answers) if i not in failed] != [json.loads(line) for line in without_ms(want.out).decode().splitlines()]:
            problems.append("answers are not those of a session without commands %s" % sorted(missing))
        return problems

    def check(self, got, codes, reason=None, temporaries=False):
        """A run that was not killed."""
        lines = got.err.decode("utf-8", "replace").split("\n")
        problems = []
        if self.s.kind == "session" and got.code >= 0 and (got.code == 0 or got.out):
            problems = self.check_session(got, codes, reason)
            if got.code == 0:
                return problems + (["stderr: " + lines[0]] if got.err else [])
        elif got.code == self.s.code:
            left_out = self.s.kind == "train" and re.search("left out|not scored", got.err.decode())
            if left_out:  # it says so, and that is promised; the run is another one then
                return [] if all(line.startswith("segfm: ") for line in lines[:-1]) else ["stderr: %r" % got.err]
            if not self.same({k: v for k, v in got.files.items() if not (temporaries and is_temporary(k))}, self.want.files):
                problems.append("code %d, but the files are not those of a run without a fault" % got.code)
            if without_ms(got.out) != without_ms(self.want.out):
                problems.append("code %d, but stdout is not that of a run without a fault" % got.code)
            return problems + (["stderr: " + lines[0]] if got.err else [])
        else:
            problems = self.check_files(got.files, got.err, temporaries)
            if 5 not in codes and self.s.kind != "eval" and not self.want.out.startswith(got.out):
                problems.append("stdout: %r" % got.out[-200:])
        if got.code not in codes:
            problems.append("exit code %d, need %s: %s" % (got.code, " or ".join(map(str, sorted(codes))), lines[0]))
        if not 1 <= len(lines) - 1 <= self.s.cases or lines[-1] or not all(re.match("segfm: .*[a-z]", line) for line in lines[:-1]):
            problems.append("stderr needs one sentence that begins with segfm:, got %r" % got.err[:400])
        elif reason and not re.search(reason, got.err.decode()) and "standard " not in lines[0]:
            problems.append("stderr does not say %s: %s" % (reason, lines[0]))
        return problems

    def check_again(self, folder, temporaries):
        """What is there now, run once more."""
        arguments = self.s.again or self.s.arguments
        got = self.execute(folder, arguments, env=environment())
        left = {k: v for k, v in got.files.items() if not (temporaries and is_temporary(k))}
        if got.code != self.s.code:
            return ["run again: code %d: %s" % (got.code, got.err.decode().split("\n")[0])]
        return [] if self.same(left, self.want.files) else ["run again: not the bytes of a run without a fault: %s" % [
            name for name in sorted(set(left) | set(self.want.files))
            if name not in left or name not in self.want.files or plain(name, left[name]) != plain(name, self.want.files[name])]]

    # ---- the faults ------------------------------------------------------------------------------------------------

    def allocations(self, o, program=None):
        path = os.path.join(self.scratch, "count-%d" % os.getpid())
        more = {} if program else {"LD_PRELOAD": o.library}
        got = self.execute(self.fresh(), self.s.arguments, env=environment(SEGFM_FAULT_COUNT=path, **more), program=program)
        if got.code != self.s.code:
            raise SystemExit("%s: counted: code %d: %s" % (self.s.name, got.code, got.err.decode()))
        with open(path, encoding="ascii") as f:
            return int(f.read())

    def fault_alloc(self, o, number, onwards, program=None):
        more = {} if program else {"LD_PRELOAD": o.library}
        if onwards:
            more["SEGFM_FAULT_ON"] = "1"
        folder = self.fresh()
        got = self.execute(folder, self.s.arguments, env=environment(SEGFM_FAULT_AT=str(number), **more), program=program)
        problems = self.check(got, {4}, REASONS["ENOMEM"])
        return problems + (self.check_again(folder, False) if not program and not problems else [])

    def calls(self):
        """The calls on the scenario's files, standard input and output, each with its number among those of its name."""
        log = os.path.join(self.scratch, "calls-%d" % os.getpid())
        folder = self.fresh()
        got = self.execute(folder, self.s.arguments, env=environment(), prefix=["strace", "-y", "-o", log, "-e", "trace=%file,%desc"])
        if got.code != self.s.code:
            return None
        counts, found = collections.Counter(), []
        with open(log, encoding="utf-8", errors="replace") as f:
            for line in f:
                match = re.match(r"(\w+)\((.*)\) += (.*)", line)
                if not match or match[1] == "execve":
                    continue
                name, text, result = match.groups()
                counts[name] += 1
                text = re.sub(r"AT_FDCWD<[^>]*>", "", text)
                stdio = re.match(r"([01])<", text)
                paths = re.findall(r'"([^"]*)"', text) if name in ("openat", "newfstatat", "access", "rename", "unlink", "mkdir") else []
                fd = re.match(r"(?:NULL, .*, )?\d+<([^>]*)>", text)
                ours = (fd and fd[1].startswith(folder)) or any(p and not p.startswith("/") or p.startswith(folder) for p in paths)
                if not stdio and not ours:
                    continue
                if name not in ERRORS:
                    raise SystemExit("%s: how may %s fail?" % (self.s.name, name))
                found.append(Call(name, counts[name], self.codes(name, text, fd, folder), bool(stdio), "-1 E" in result))
        return found

    def codes(self, name, text, fd, folder):
        """The exit code that this call's failure must have."""
        writes = {"write", "fsync", "rename", "ftruncate", "mkdir", "unlink", "fchmod"}
        if name in writes or name == "openat" and re.search("O_WRONLY|O_RDWR", text):
            return {5}
        if name == "read" and fd and os.path.relpath(fd[1], folder) not in self.s.old or name == "read" and text.startswith("0<"):
            return {3}
        if name in ("openat", "getdents64"):
            return {3}
        return {3, 5}

    def inject(self, call, what, onwards=False):
        name, number = call[:2]
        return ["strace", "-o", "/dev/null", "-e", "trace=" + name, "-e", "inject=%s:%s:when=%d%s" % (name, what, number, "+" * onwards)]

    def fault_call(self, o, call, error):
        folder = self.fresh()
        bare = error.rstrip("+")
        got = self.execute(folder, self.s.arguments, env=environment(), prefix=self.inject(call, "error=" + bare, error != bare))
        codes = {4} if bare == "ENOMEM" else call.codes
        reason = REASONS.get(bare) if not call.stdio and call.name not in ("lseek", "fcntl", "mmap") else None
        if error != bare and not got.err:  # its sentence cannot be written either
            got = got._replace(err=b"segfm: the disk is full, for this sentence too\n")
        problems = self.check(got, codes, reason, temporaries=call.name == "unlink")
        if self.s.kind == "train" and re.search(b"left out|not scored", got.err):
            return problems  # a scan that cannot be read is left out, and said to be: this run is then another one
        return problems or self.check_again(folder, call.name == "unlink")

    def fault_kill(self, o, call):
        folder = self.fresh()
        got = self.execute(folder, self.s.arguments, env=environment(), prefix=self.inject(call, "signal=KILL"))
        if got.code != -9:
            return ["not killed: code %d" % got.code]
        problems = self.check_files(got.files, got.err, True)
        problems += ["stderr: %r" % got.err] if got.err else []
        return problems or self.check_again(folder, True)

    def fault_limit(self, o, size):
        folder = self.fresh()
        got = self.execute(folder, self.s.arguments, env=environment(),
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)))
        return self.check(got, {5}, "too large") or self.check_again(folder, False)

    def mounted(self, options, then, codes, reason):
        """Runs on a file system of its own; then: mount's options for running again."""
        mount = lambda text: subprocess.run(["mount", "-t", "tmpfs", "-o", text, "none", self.folder()], check=True)
        empty(self.folder())
        mount("size=64m")
        try:
            folder = self.fresh()
            mount("remount," + options)
            got = self.execute(folder, self.s.arguments, env=environment())
            problems = self.check(got, codes, reason)
            mount("remount," + then)
            return problems or self.check_again(folder, False)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)

    def pages(self, files):
        return sum(-(-len(data) // PAGE) for data in files.values())

    def fault_pages(self, o, free):
        return self.mounted("size=%d" % (PAGE * (self.pages(dict(self.files_with_program(), **self.begin)) + free)), "size=64m", {5}, REASONS["ENOSPC"])

    def fault_inodes(self, o, free):
        files = dict(self.files_with_program(), **self.begin)
        folders = {os.path.dirname(name) for name in files} - {""}
        folders |= {os.path.dirname(name) for name in folders} - {""}
        return self.mounted("nr_inodes=%d" % (1 + len(files) + len(folders) + free), "nr_inodes=1000", {5}, REASONS["ENOSPC"])

    def fault_readonly(self, o):
        return self.mounted("ro", "rw", {5}, "read-only|Read-only")

    def as_nobody(self, change, codes):
        """Runs as somebody who may not what `change` forbids; allowed again, it runs as ever."""
        folder = self.fresh()
        changed = change(folder)
        more = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        command = [self.program()] + self.s.arguments + self.s.more
        process = subprocess.run(command, cwd=folder, input=self.s.stdin, capture_output=True, env=environment(), timeout=120, **more)
        for path, mode in changed:
            os.chmod(path, mode)
        files = files_of(folder)
        files.pop("bin/segfm", None)
        problems = self.check(Outcome(process.returncode, process.stdout, process.stderr, files), codes, REASONS["EACCES"])
        return problems or self.check_again(folder, False)

    def fault_folder(self, o):
        def lock(folder):
            folders = [path for path, _, _ in os.walk(folder)]
            for path in folders:
                os.chmod(path, 0o555)
            return [(path, 0o755) for path in folders]
        return self.as_nobody(lock, {5})

    def fault_secret(self, o, name):
        def hide(folder):
            os.chmod(os.path.join(folder, name), 0)
            if os.geteuid() == 0:  # where results go is the stranger's
                for path, _, _ in os.walk(folder):
                    os.chmod(path, 0o777)
                for path in self.begin:
                    os.chown(os.path.join(folder, path), NOBODY, NOBODY)
            return [(os.path.join(folder, name), 0o644)]
        return self.as_nobody(hide, {3, 5} if name in self.s.old or name.startswith("run/") else {3})

    def fault_random(self, o, number):
        folder = self.fresh()
        moment = random.Random(number * 7919 + 1).uniform(0, 1.05 * self.seconds)
        process = subprocess.Popen([self.program()] + self.s.arguments + self.s.more, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, env=environment())
        time.sleep(moment)
        process.kill()
        err = process.communicate()[1]
        problems = ["stderr: %r" % err] if err else []
        files = files_of(folder)
        files.pop("bin/segfm", None)
        return problems + self.check_files(files, err, True) or self.check_again(folder, True)

    def measure(self):
        folder = self.fresh()
        begin = time.monotonic()
        self.execute(folder, self.s.arguments, env=environment())
        self.seconds = time.monotonic() - begin


# ---- which faults ----------------------------------------------------------------------------------------------------

def may_mount(scratch):
    folder = tempfile.mkdtemp(dir=scratch)
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True)
    if tried.returncode == 0:
        subprocess.run(["umount", folder], check=True)
    return tried.returncode == 0


def faults_of(world, o):
    """[(kind, method, arguments)]"""
    s, out = world.s, []
    writes = s.outputs
    if "alloc" in s.kinds and "alloc" in o.kinds:
        n = world.allocations(o)
        out += [("alloc", "alloc", (i + 1, on)) for on in (False, True) for i in range(n)]
        if o.sanitized and not s.beside:
            n = world.allocations(o, os.path.abspath(o.sanitized))
            out += [("alloc, sanitized", "alloc", (i + 1, False, os.path.abspath(o.sanitized))) for i in range(n)]
    if "call" in s.kinds and o.strace and ("call" in o.kinds or "kill" in o.kinds):
        calls = world.calls()
        for call in calls:
            if "call" in o.kinds:
                out += [("call", "call", (call, error)) for error in ERRORS[call.name] if not call.ignored]
            if "kill" in o.kinds:
                out.append(("kill", "kill", (call,)))
    if "full" in s.kinds and "full" in o.kinds and writes:
        sizes = sorted({0, 1, 100, 1000} | {max(0, len(v) - k) for v in world.want.files.values() for k in (1, 0)})
        out += [("full", "limit", (size,)) for size in sizes if size < max(len(v) for v in world.want.files.values())]
        if o.mount:
            out += [("full", "pages", (free,)) for free in range(world.pages(world.want.files) + 3)]
            out += [("full", "inodes", (free,)) for free in range(len(world.want.files) + 2)]
    if "locked" in s.kinds and "locked" in o.kinds:
        out += [("locked", "folder", ())] if writes else []
        out += [("locked", "readonly", ())] if writes and o.mount else []
        out += [("locked", "secret", (name,)) for name in world.begin if name not in s.unread]
    if s.kinds == ("random",) and "random" in o.kinds:
        world.measure()
        out += [("random", "random", (i,)) for i in range(10 if o.quick else 100)]
    return out


WORLDS = []


def run_job(job):
    index, method, arguments, o = job
    try:
        return getattr(WORLDS[index], "fault_" + method)(o, *arguments)
    except Exception as e:  # a bug of this script, or an answer that is no JSON
        return ["%s: %s" % (type(e).__name__, e)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("segfm")
    parser.add_argument("--library", required=True, help="allocate.c as a library")
    parser.add_argument("--sanitized", help="a command with allocate.c in it and sanitizers below")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--kind", action="append", choices=KINDS, dest="kinds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--count", action="store_true")
    o = parser.parse_args()
    o.kinds = o.kinds or list(KINDS)
    o.library = os.path.abspath(o.library)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    scratch = tempfile.mkdtemp(prefix="segfm-faults-", dir=memory)
    os.chmod(scratch, 0o755)
    program = os.path.join(scratch, "segfm")  # where others may run it
    shutil.copy(o.segfm, program)
    os.chmod(program, 0o755)
    o.mount = may_mount(scratch)
    o.strace = shutil.which("strace") is not None and subprocess.run(
        ["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0
    skipped = 0
    if not o.strace:
        print("skipped: calls that fail, kills at calls: strace is missing or not allowed here")
        skipped = 1
    if not o.mount:
        print("no file system can be mounted here: writes that say ENOSPC and limits of size stand for a full disk")
    jobs, passed, failed, counts = [], 0, 0, collections.Counter()
    try:
        for scenario in SCENARIOS:
            if o.only not in scenario.name:
                continue
            WORLDS.append(World(scenario, program, scratch))
            faults = faults_of(WORLDS[-1], o)
            kinds = collections.defaultdict(list)
            for f in faults:
                kinds[f[0]].append(f)
            for kind, all_of in kinds.items():
                most = scenario.sample or len(all_of)
                if o.quick:  # others when one is added or taken away
                    most = min(QUICK[kind], most // 10 if scenario.sample else most)
                if most < len(all_of):
                    kinds[kind] = random.Random(len(all_of)).sample(all_of, most)
            faults = [f for all_of in kinds.values() for f in all_of]
            jobs += [(len(WORLDS) - 1, kind, method, arguments) for kind, method, arguments in faults]
        if o.count:
            for i, kind, _, _ in jobs:
                counts[WORLDS[i].s.name, kind] += 1
            jobs = []
        with multiprocessing.Pool(o.jobs) as pool:
            results = pool.imap(run_job, [(i, method, arguments, o) for i, _, method, arguments in jobs], 4)
            for (i, kind, method, arguments), problems in zip(jobs, results):
                name = WORLDS[i].s.name
                for problem in problems:
                    print("failed: %s, %s %s: %s" % (name, method, " ".join(map(str, arguments)), problem), flush=True)
                counts[name, kind] += 1
                passed, failed = passed + (not problems), failed + bool(problems)
    finally:
        if not o.keep:
            shutil.rmtree(scratch)
    kinds = sorted({kind for _, kind in counts})
    print("%-18s" % "faults" + "".join("%18s" % kind for kind in kinds))
    for name in dict.fromkeys(name for name, _ in counts):
        print("%-18s" % name + "".join("%18d" % counts[name, kind] for kind in kinds))
    print("%-18s" % "all" + "".join("%18d" % sum(n for (_, k), n in counts.items() if k == kind) for kind in kinds))
    if skipped:
        print("%d skipped" % skipped)
    print("%d passed, %d failed" % (passed, failed))
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
