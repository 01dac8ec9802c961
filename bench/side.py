"""A side of the benchmark: a child process that computes only when it is told to, by a line on its standard input, and answers
with a line: the seconds that the work took, then perhaps other numbers. All sides know some of these requests:

    load                        makes the network ready
    encoder                     one window → embedding
    decoder                     embedding and box → four low-resolution masks, logits of the first at the window's size
    blocks TOKENS               two blocks of the encoder
    save FOLDER                 embedding.f32 and masks.f32 of the last runs
    gemm M,N,K,THREADS,REPEATS  a matrix product; a second number is the sum of the result
    calls COUNT                 encoder and decoder, so many times (not segfm); more numbers: the seconds of each
    scan Z,Y,X                  takes a made scan of that shape, again if it is the same (segfm alone, as the next two)
    box Z,Y,X,Z,Y,X             from a box on it to the mask; more numbers: passes, encoded windows, the seconds of each pass
    click Z,Y,X                 the same for another click
    NAME A,B,C,THREADS          an operator: attention, conv-transpose, gelu, layernorm or trilinear (tools/bench.c says what
                                A,B,C are); a second number is its work: multiplications and additions, or elements
    peak THREADS                answers with GFLOP/s"""
import os
import select
import subprocess
import time

PATIENCE = 300  # seconds for one answer


class Failed(Exception):
    """The side is gone; str() says why in a few words."""


class Side:
    def __init__(self, name, command, log, environment=None):
        self.name, self.log = name, log
        self.started = time.perf_counter()
        with open(log, 'w') as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                                            env={**os.environ, **(environment or {})}, bufsize=0)
        self.buffer = b''
        self.expect_ready()

    def expect_ready(self):
        if self.read_line() != 'ready':
            self.fail('did not start')

    def fail(self, what):
        self.close()
        with open(self.log) as errors:
            last = errors.read().strip().splitlines()[-1:]
        raise Failed(': '.join([what] + last))

    def read_line(self):
        deadline = time.perf_counter() + PATIENCE
        while b'\n' not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.perf_counter()))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b''
            if not data:
                self.fail('ended' if ready else f'no answer in {PATIENCE} s')
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        return line.decode()

    def ask(self, request):
        """→ the numbers of the answer"""
        try:
            self.process.stdin.write(request.encode() + b'\n')
        except BrokenPipeError:
            self.fail('ended')
        return [float(number) for number in self.read_line().split()]

    def cpu_seconds(self):
        with open(f'/proc/{self.process.pid}/stat') as stat:
            fields = stat.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def close(self):
        """Ends it → its peak resident memory in bytes"""
        if self.process.returncode is None:
            self.process.stdin.close()
            if not select.select([self.process.stdout], [], [], 10)[0]:
                self.process.kill()
            _, status, usage = os.wait4(self.process.pid, 0)
            self.process.returncode = status
            self.peak = usage.ru_maxrss * 1024
            self.process.stdout.close()
        return self.peak
