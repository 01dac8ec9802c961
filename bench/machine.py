"""What the benchmark ran on, and whether something else ran there too."""
import os
import re
import subprocess
import sys
import time


def output(*command):
    """The command's standard output, '' when it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ''


def busy_seconds():
    """Seconds that all cores together have worked since the start of the machine, steal included."""
    with open('/proc/stat') as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf('SC_CLK_TCK')


class Watch:
    """How many cores were kept busy by processes other than the sides and this one, since it was made."""
    def __init__(self, sides):
        self.sides = sides
        self.start, self.busy, self.ours = time.perf_counter(), busy_seconds(), self.our_seconds()

    def our_seconds(self):
        ended = os.times()
        return (sum(side.cpu_seconds() for side in self.sides if side.process.returncode is None) + time.process_time() +
                ended.children_user + ended.children_system)

    def others(self):
        busy, ours = busy_seconds() - self.busy, self.our_seconds() - self.ours
        return max(0.0, (busy - ours) / (time.perf_counter() - self.start))


def describe(folder, segfm):
    """→ [(what, text)] about hardware, compiler and rivals"""
    cpu = dict(line.split(':', 1) for line in output('lscpu').splitlines() if ':' in line)
    get = lambda key: cpu.get(key, '?').strip()
    banner = output(segfm, 'bench', '--rounds', '1').split('\n')[0]  # "float, AVX-512 kernels, medians of …"
    compiler = output(os.environ.get('CC', 'gcc'), '--version').split('\n')[0]
    python = ('import torch, sys; sys.path.insert(0, "tools/reference"); from compare import blas_library; '
              'print(torch.__version__, "with", blas_library())')
    runtime = os.path.join(folder, 'node_modules', 'onnxruntime-node')
    packages = output('dpkg-query', '-W', '-f', '${Package} ${Version}\\n', 'libopenblas0-pthread', 'libdnnl2', 'libdnnl3')
    version = lambda package: ''.join(re.findall(rf'^{package}\S* (.+)$', packages, re.M)[:1]) or 'missing'
    with open('/proc/meminfo') as memory:
        gigabytes = int(memory.readline().split()[1]) / 1e6
    return [
        ('processor', f'{get("Model name")} (family {get("CPU family")}, model {get("Model")}), {os.cpu_count()} cores, '
                      f'{get("Hypervisor vendor") + " guest, " if "Hypervisor vendor" in cpu else ""}{gigabytes:.0f} GB memory'),
        ('caches', f'L1d {get("L1d cache")}, L2 {get("L2 cache")}, L3 {get("L3 cache")}'),
        ('system', f'Linux {os.uname().release} {os.uname().machine}, {output("getconf", "GNU_LIBC_VERSION")}'),
        ('segfm', f'{output("git", "describe", "--always", "--dirty")}, {compiler}, {", ".join(banner.split(", ")[:2])}'),
        ('PyTorch', output(sys.executable, '-c', python) or 'missing'),
        ('ONNX Runtime', output('node', '-p', f'"onnxruntime-node " + require("./{os.path.relpath(runtime)}/package.json").version'
                                              ' + ", node " + process.versions.node') or 'missing'),
        ('OpenBLAS', version('libopenblas')),
        ('oneDNN', version('libdnnl')),
    ]
