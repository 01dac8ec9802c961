"""run.py SEGFM…: gives each command named (builds of segfm) every bad file of cases.py, in a folder of its own, and checks
what the README promises: the exit code; exactly one line on stderr, which begins with "segfm: " and names the file, and
nothing but an answer on stdout; no file left, no input changed; at most SECONDS of processor time and MEMORY bytes.
A build whose path has "sanitize" in it has no limit of addresses, which its shadow memory would break, but one of a single
allocation, and its reports are errors.

    --only TEXT   cases whose name has TEXT in it        --list   what is wrong with each file, and nothing else
    --keep DIR    leaves the files of each case in DIR           --say    prints each sentence
    --jobs N      so many at a time"""
import argparse
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from build import weights  # noqa: E402
from cases import CASES  # noqa: E402
from folders import files_of, write  # noqa: E402

SECONDS, MEMORY = 5, 512 << 20
WALL = 60  # a busy machine may take long; the processor's time is what is promised
# what segfm makes besides what it is asked for: a training run's folder is there before its scans are read
FOLDERS = {"run", "out"}


def environment(sanitized):
    e = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", LC_ALL="C")
    if sanitized:
        leaks = "0" if "clang" in sanitized else "1"
        e["ASAN_OPTIONS"] = ("exitcode=99:allocator_may_return_null=1:max_allocation_size_mb=%d:detect_leaks=%s:quarantine_size_mb=16" %
                             (MEMORY >> 20, leaks))
        e["UBSAN_OPTIONS"] = "print_stacktrace=1:exitcode=98"
    return e


def limits(sanitized):
    def set_limits():
        seconds = SECONDS * (6 if sanitized else 1)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
        if not sanitized:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    return set_limits


def check_session(case, out):
    """Problems with the answers: each a JSON object, ok or not as expected, and nothing changes but by what is ok."""
    lines = out.decode("utf-8", "strict").splitlines()
    if len(lines) != len(case.answers):
        return ["%d answers, need %d" % (len(lines), len(case.answers))]
    problems = []
    for i, (line, want) in enumerate(zip(lines, case.answers)):
        answer = json.loads(line)
        if answer["ok"] != (want == "t"):
            problems.append("answer %d: %s" % (i + 1, line))
        if not answer["ok"] and (not answer["error"] or answer["changed"] != 0):
            problems.append("answer %d says nothing or changes something" % (i + 1))
    return problems


def judge(case, code, out, err, before, after):
    problems = []
    err = re.sub(rb"==\d+==WARNING: AddressSanitizer failed to allocate .*\n", b"", err)  # it is meant to
    if code != case.code:
        problems.append("exit code %d, need %d" % (code, case.code))
    lines = err.decode("utf-8", "replace").split("\n")
    if case.code == 0:
        if case.answers is not None:
            problems += check_session(case, out)
        if any(not line.startswith("segfm: ") for line in lines[:-1]):
            problems.append("stderr: " + lines[0])
    else:
        last = lines[-2] if len(lines) > 1 else ""
        if len(lines) != case.lines + 1 or lines[-1] != "" or not all(line.startswith("segfm: ") for line in lines[:-1]):
            problems.append("stderr needs %d line that begins with segfm:, got %d: %s" % (case.lines, len(lines) - 1, lines[:3]))
        if re.search(r"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", err.decode("latin1")):
            problems.append("stderr has control characters: %r" % err)
        problems += ["stderr does not say %r: %s" % (name, last) for name in case.names if name not in last]
        if out:
            problems.append("stdout: %r" % out[:200])
        problems += ["left behind: " + name for name in after if name not in before]
    problems += ["changed: " + name for name in before if after.get(name) != before[name]]
    return problems


def run_case(segfm, sanitized, case, folder, model):
    files = {name: data() if callable(data) else data for name, data in case.files.items()}
    write(folder, files)
    arguments = [model if a == "W" else a for a in case.arguments]
    if case.arguments[0] not in ("info", "compare"):
        arguments += ["--threads", "1"]
    arguments += ["--quiet"]
    process = subprocess.Popen([segfm] + arguments, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment(sanitized), preexec_fn=limits(sanitized))
    try:
        out, err = process.communicate(case.stdin or b"", WALL)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return ["ran for %d s" % WALL], ""
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return ["took more than %d s of processor time" % SECONDS], ""
    return judge(case, process.returncode, out, err, files, files_of(folder)), err.decode("utf-8", "replace").split("\n")[0]


def run_job(job):
    segfm, i, keep, scratch = job
    folder = os.path.join(scratch, segfm.replace("/", "-"), CASES[i].name)
    result = run_case(os.path.abspath(segfm), segfm if "sanitize" in segfm else "", CASES[i], folder, os.path.join(scratch, "micro.segfm"))
    if not keep:
        shutil.rmtree(folder)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("segfm", nargs="*")
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--keep")
    parser.add_argument("--say", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    o = parser.parse_args()
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names), [n for n in names if names.count(n) > 1]
    cases = [case for case in CASES if o.only in case.name]
    if o.list:
        for case in cases:
            print("%-34s %d  %s" % (case.name, case.code, case.why))
        return 0
    passed = failed = 0
    scratch = os.path.abspath(o.keep or tempfile.mkdtemp(prefix="segfm-malformed-"))
    write(scratch, {"micro.segfm": weights()})
    jobs = [(segfm, i, o.keep, scratch) for segfm in o.segfm for i, case in enumerate(CASES) if case in cases]
    with multiprocessing.Pool(o.jobs) as pool:
        for (segfm, i, _, _), (problems, sentence) in zip(jobs, pool.imap(run_job, jobs, 4)):
            if o.say:
                print("%-34s %s" % (CASES[i].name, sentence))
            for problem in problems:
                print("failed: %s, %s (%s): %s" % (segfm, CASES[i].name, CASES[i].why, problem))
            passed, failed = passed + (not problems), failed + bool(problems)
    if not o.keep:
        shutil.rmtree(scratch)
    legal = sum(case.code == 0 for case in cases)
    print("%d files, %d of them odd but legal, given to %d builds of segfm" % (len(cases), legal, len(o.segfm)))
    print("%d passed, %d failed" % (passed, failed))
    return failed != 0


sys.exit(main())
