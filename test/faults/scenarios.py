"""What the command is doing when something fails: one run of each kind, on a model of some hundred parameters and scans of some
hundred voxels, so that a run takes milliseconds. The files are made by test/malformed/build.py."""
import gzip
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "malformed"))
from build import (BOX, MICRO, NX, NY, NZ, TORCH_OPTIONS, box_dict, boxes, challenge, floats, labels, nifti1, npy, npz, safetensors,  # noqa: E402
                   torch, voxels, weights)
from cases import SMALL  # noqa: E402

SCENARIOS = []


class Scenario:
    """arguments: of the run. files: before it. setup: commands that make more of them. old: results that are there already.
    kind: "session", "eval" and "train" have rules of their own. cases: at most so many lines on stderr. again: the arguments of
    the run that follows a fault (the same). beside: the program is in bin/. unread: files that may be unreadable.
    sample: of its faults so many are enough."""

    def __init__(self, name, arguments, files, setup=(), old=(), kind="", cases=1, again=None, stdin=b"", code=0, kinds=None,
                 beside=False, unread=(), outputs=True, threads=True, sample=0):
        self.name, self.arguments, self.files, self.setup, self.old, self.kind = name, arguments, files, list(setup), list(old), kind
        self.cases, self.again, self.stdin, self.code, self.beside, self.outputs = cases, again, stdin, code, beside, outputs
        self.sample = sample
        self.kinds = kinds or ("alloc", "call", "full", "locked")
        self.unread = set(unread) | ({"bin/segfm"} if beside else set())
        self.more = ["--threads", "1", "--quiet"] if threads else ["--quiet"]


def add(*arguments, **more):
    SCENARIOS.append(Scenario(*arguments, **more))


W, SCAN, TRUTH = weights(), nifti1(), nifti1(labels())
box_of = lambda: boxes(box_dict())
case = lambda **more: npz(challenge(**more), 8)
truth = npy(labels())
window = npy(floats([0.01 * i for i in range(48)]), "<f4", (2, 4, 6))
logits = npy(floats([(i % 13) - 6 for i in range(NX * NY * NZ)]), "<f4", (1, 1, NZ, NY, NX))
pair = nifti1(b"", magic=b"ni1\0", vox_offset=0)

add("info", ["info", "w.segfm", "--tensors"], {"w.segfm": W}, outputs=False)
add("convert-torch", ["convert", "x.pth", "-o", "new.segfm"] + TORCH_OPTIONS, {"x.pth": torch()}, old=["new.segfm"])
add("convert-safe", ["convert", "x.safetensors", "-o", "new.segfm", "--half"] + TORCH_OPTIONS, {"x.safetensors": safetensors()})
add("convert-back", ["convert", "w.segfm", "-o", "out.pth"], {"w.segfm": W}, old=["out.pth"])
add("segment", ["segment", "-i", "scan.nii.gz", "-w", "w.segfm", "--box", BOX, "--click", "2,2,2,+", "--click", "0,0,0,-", "-o", "m.nii.gz",
                "--logits", "l.nii", "--overlay", "o.png"],
    {"w.segfm": W, "scan.nii.gz": gzip.compress(SCAN, mtime=0)}, old=["m.nii.gz", "o.png"])
add("segment-pair", ["segment", "-i", "scan.hdr", "--box", BOX, "-o", "m.hdr"],
    {"bin/default.segfm": W, "scan.hdr": pair, "scan.img": voxels()}, beside=True, old=["m.img"])
add("session", ["session", "-w", "w.segfm"], {"w.segfm": W, "scan.nii": SCAN, "second.nii": nifti1(voxels()[::-1])}, kind="session",
    old=["m1.nii.gz", "l2.nii"],
    stdin="\n".join(["open scan.nii", "box " + BOX, "click 2,2,2,+", "click 0,0,0,-", "mask m1.nii.gz", "undo", "undo", "redo", "logits l1.nii",
                     "next", "click 3,2,1,+", "click 4,2,1,-", "labels all.nii.gz", "open second.nii", "box " + BOX, "click 3,3,3,+", "logits l2.nii",
                     "reset", "click 1,1,1,+", "mask m2.nii", "status", "quit"]).encode() + b"\n")
CASES = {"in/%s.npz" % name: case(boxes=boxes(box_dict(z_min=z), box_dict(z_max=z + 1))) for name, z in (("a", 0), ("b", 1), ("c", 2))}
add("predict", ["predict", "in", "out", "-w", "w.segfm"], {"w.segfm": W, **CASES}, cases=3, old=["out/b.npz"])
LABELLED = {"in/%s.npz" % name: case(gts=truth, boxes=box_of()) for name in "abc"}
add("eval", ["eval", "--images", "in", "-w", "w.segfm", "--clicks", "2", "--min-voxels", "1", "--csv", "out.csv", "--save", "saved"],
    {"w.segfm": W, **LABELLED}, kind="eval", cases=3, old=["saved/b.npz"])
add("eval-official", ["eval", "--pairs", "list.tsv", "-w", "w.segfm", "--clicks", "2", "--official", "--csv", "out.csv", "--save", "saved"],
    {"w.segfm": W, "list.tsv": b"a.nii\tt.nii\nb.nii\tt.nii\n", "a.nii": SCAN, "b.nii": SCAN, "t.nii": TRUTH}, kind="eval", cases=2,
    old=["out.csv"])
add("metrics", ["metrics", "--gt", "t.nii", "--pred", "p.npz", "--json"],
    {"t.nii": TRUTH, "p.npz": npz({"segs": npy(labels()[::-1])})}, outputs=False)
add("compare", ["compare", "a", "b.npz", "--bits"],
    {"a/%d.npy" % i: window for i in range(36)} | {"b.npz": npz({str(i): window for i in range(36)}, 8)}, outputs=False, threads=False,
    unread=["a/%d.npy" % i for i in range(2, 36)])
add("trace", ["trace", "-w", "w.segfm", "--window", "w.npy", "--box", "0,1,1,1,3,3", "--point", "1,1,1,1", "--out", "out"],
    {"w.segfm": W, "w.npy": window}, old=["out/logits.npy"])
add("trace-batch", ["trace", "-w", "w.segfm", "--window", "w.npy", "--box", "0,1,1,1,3,3", "--box", "0,0,0,1,3,3", "--out", "out"],
    {"w.segfm": W, "w.npy": npy(floats([0.01 * i for i in range(96)]), "<f4", (2, 1, 2, 4, 6))}, kinds=("alloc",))
add("trace-correct", ["trace", "-w", "w.segfm", "--correct", "l.npy", "--labels", "t.npy", "--steps", "2", "--out", "out"],
    {"w.segfm": W, "l.npy": logits, "t.npy": truth}, old=["out/corrected0.npy"])
TRAINING = {"list.tsv": b"a.nii\tt.nii\nb.nii\tt.nii\n", "a.nii": SCAN, "b.nii": SCAN, "t.nii": TRUTH,
            "run.conf": SMALL.replace("steps 1\n", "steps 3\n").encode() + b"source both\nphantoms 0.5\nphantom_smallest 8,8,8\nphantom_largest 8,10,12\n"
            b"checkpoint_every 1\nevaluate_every 2\nevaluate_pairs list.tsv\nevaluate_clicks 1\nevaluate_min_voxels 1\n"}
TRAIN = ["train", "--pairs", "list.tsv", "--config", "run.conf", "--out", "run"]
add("train", TRAIN, TRAINING, kind="train", cases=3, again=TRAIN + ["--resume"], unread=["a.nii", "b.nii", "t.nii"])
add("train-resume", TRAIN + ["--resume"], dict(TRAINING, **{"w.segfm": W}), kind="train", cases=3,
    setup=[["train", "--pairs", "list.tsv", "--config", "run.conf", "--out", "run", "--steps", "1", "--threads", "1"]],
    unread=["a.nii", "b.nii", "t.nii", "w.segfm", "run/last.segfm", "run/best.segfm"])
add("train-init", TRAIN + ["--init", "w.segfm"], dict(TRAINING, **{"w.segfm": W}), kind="train", cases=3, again=TRAIN + ["--init", "w.segfm", "--resume"],
    kinds=("alloc",))
add("phantom", ["phantom", "--out", "out", "--count", "2", "--size", "12,10,8"], {}, old=["out/list.tsv", "out/phantom-0001.nii.gz"])
add("selftest", ["selftest"], {}, kinds=("alloc",), outputs=False, sample=40)  # takes a second

# Longer ones, to be killed at any moment.
MANY = {"in/%02d.npz" % i: case(boxes=boxes(*[box_dict(z_min=i % 3)] * (1 + i % 4))) for i in range(30)}
add("predict-many", ["predict", "in", "out", "-w", "w.segfm"], {"w.segfm": W, **MANY}, old=["out/04.npz"], kinds=("random",))
add("eval-many", ["eval", "--images", "in", "-w", "w.segfm", "--clicks", "5", "--min-voxels", "1", "--csv", "out.csv", "--save", "saved"],
    {"w.segfm": W, **{"in/%02d.npz" % i: case(gts=truth, boxes=box_of()) for i in range(20)}}, kind="eval", old=["out.csv"], kinds=("random",))
