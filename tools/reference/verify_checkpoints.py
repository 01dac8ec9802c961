#!/usr/bin/env python3
"""Checks `segfm convert` against files that PyTorch itself writes.

    verify_checkpoints.py [SEGFM]        (needs numpy and torch; SEGFM: the command, default ./segfm)

The tensors are those of the tiny formula model, read out of the file that segfm makes, after numpy has recomputed every
one of them. They are saved with torch.save in every layout and type, and as safetensors; each file is converted, and
the converted tensors must be bit-equal to what torch has. Weights files are exported, loaded strictly by torch, compared, and converted
back to the same content hash. Then come files that must be refused.
The last line is `N passed, N failed`; exit 1 when one failed."""
import argparse
import collections
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace

import numpy as np
import torch

import segvol
import train

SIZES = ["--spatial", "16,64,64", "--heads", "6"]
passed = failed = 0


def check(name, ok, detail=""):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"failed: {name} {detail}")


# ---- segfm ----------------------------------------------------------------------------------------------------------

def run(*arguments):
    return subprocess.run([SEGFM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_weights(path):
    """{name: float32 array} and {name: stored type} of a weights file, by the offsets that `info` prints."""
    info = run("info", path, "--tensors")
    if info.returncode != 0:
        raise RuntimeError(info.stderr)
    data = open(path, "rb").read()
    tensors, types = {}, {}
    for line in info.stdout.splitlines():
        fields = line.split("\t")
        if len(fields) != 5:
            continue
        name, dtype, shape, offset, size = fields
        shape = [int(s) for s in shape.split(",")]
        code = "<f4" if dtype == "float32" else "<f2"
        values = np.frombuffer(data, dtype=code, offset=int(offset), count=int(np.prod(shape)))
        assert values.nbytes == int(size)
        tensors[name] = values.reshape(shape)
        types[name] = dtype
    return tensors, types


# ---- the formula, once more -----------------------------------------------------------------------------------------

def uniform(name, count):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def offset_and_scale(name, shape):
    parts = name.split(".")
    fan_in = int(np.prod(shape[1:]))
    if parts[-1] == "positional_encoding_gaussian_matrix":
        return 0, np.sqrt(3)
    if parts[-1] in ("bias", "bias_ih_l0", "bias_hh_l0"):
        return 0, 0.02
    norms = ("norm", "norm1", "norm2", "norm3", "norm4", "norm_final_attn")
    if parts[-2] in norms or name.endswith("output_upscaling.1.weight"):
        return 1, 0.1
    embeddings = ("iou_token", "mask_tokens", "not_a_point_embed", "no_mask_embed")
    if parts[-1] == "position_embeddings" or parts[-2] in embeddings or "point_embeddings" in parts:
        return 0, 0.5
    if name.endswith(("output_upscaling.0.weight", "output_upscaling.3.weight")):
        return 0, np.sqrt(3 / shape[0])
    if parts[-1] == "weight_ih_l0":
        return 0, np.sqrt(3 / fan_in) / 64
    if parts[-2] == "fc_prob":
        return 0, np.sqrt(3 / fan_in) / 16
    return 0, np.sqrt(3 / fan_in)


def formula(name, shape):
    offset, scale = offset_and_scale(name, shape)
    values = offset + scale * (2 * uniform("model." + name, int(np.prod(shape))) - 1)
    return values.astype(np.float32).reshape(shape)


# ---- files ----------------------------------------------------------------------------------------------------------

def state_dict(tensors, prefix, dtype=torch.float32, transposed=False, unused=True):
    """As the published model saves it, with the parts that segfm passes over."""
    out = collections.OrderedDict()
    for name, values in tensors.items():
        t = torch.from_numpy(np.array(values)).to(dtype)
        if transposed and t.ndim >= 2:  # the same values, stored in another order
            t = t.transpose(0, -1).contiguous().transpose(0, -1)
        out[prefix + name] = t
    if unused:
        out[prefix + "prompt_encoder.mask_downscaling.0.weight"] = torch.zeros(4, 1, 2, 2)
        out[prefix + "text_encoder.clip_text_model.text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    return out


def rounded(tensors, dtype):
    return {n: torch.from_numpy(np.array(v)).to(dtype).float().numpy() for n, v in tensors.items()}


def training_objects():
    """What a training script saves beside the model."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict(), schedule.state_dict()


def save_layouts(tensors, folder):
    """(name, path, expected tensors) of every way to save."""
    optimizer, schedule = training_objects()
    cases = []

    def save(name, value, expected, **options):
        path = os.path.join(folder, name + ".pth")
        torch.save(value, path, **options)
        cases.append((name, path, expected))

    for label in ("float32", "float16", "bfloat16", "float64"):
        dtype = getattr(torch, label)
        expected = rounded(tensors, dtype)
        save(f"a_{label}", state_dict(tensors, "model.", dtype), expected)
        save(f"b_{label}", {"model": state_dict(tensors, "module.", dtype), "optimizer": optimizer, "epoch": 7,
                            "lr_scheduler": schedule, "args": argparse.Namespace(lr=1e-5, name="run")}, expected)
        save(f"c_{label}", {"model_state_dict": state_dict(tensors, "model.", dtype),
                            "optimizer_state_dict": optimizer, "epoch": np.int64(7), "loss": np.float64(0.25),
                            "losses": [0.5, None, 1e-3]}, expected)
        save(f"transposed_{label}", state_dict(tensors, "model.", dtype, transposed=True), expected)
        widened = {k: v.float() if v.is_floating_point() else v
                   for k, v in state_dict(tensors, "model.", dtype).items()}
        save(f"widened_{label}", widened, expected)
    plain = {n: np.array(v) for n, v in tensors.items()}
    save("prefixes", state_dict(tensors, "module.model."), plain)
    save("no_prefix", dict(state_dict(tensors, "", unused=False)), plain)
    parameters = state_dict(tensors, "model.", unused=False)
    save("parameters", {k: torch.nn.Parameter(v) for k, v in parameters.items()}, plain)
    save("protocol_4", state_dict(tensors, "model."), plain, pickle_protocol=4)
    save("protocol_5", state_dict(tensors, "model."), plain, pickle_protocol=5)
    flat = torch.cat([torch.zeros(5)] + [torch.from_numpy(np.array(v)).flatten() for v in tensors.values()])
    views, at = {}, 5
    for name, v in tensors.items():
        views["model." + name] = flat[at:at + v.size].view(v.shape)
        at += v.size
    save("one_storage", views, plain)
    return cases


def repack(source, target, change, compression=zipfile.ZIP_STORED):
    """Copies a zip archive; change(name, bytes) gives an entry's new bytes, or None to leave it out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
        extra = change(None, None)
        for name, data in (extra or {}).items():
            new.writestr(f"{root}/{name}", data)


def save_repacked(source, tensors, folder):
    cases = []

    def save(name, change, compression=zipfile.ZIP_STORED):
        path = os.path.join(folder, name + ".pth")
        repack(source, path, change, compression)
        cases.append((name, path, tensors))

    def swap(name, data):
        if name is None:
            return {"byteorder": b"big"}
        if "/data/" not in name:
            return data
        return np.frombuffer(data, "<i8" if len(data) == 77 * 8 else "<f4").byteswap().tobytes()

    save("little_endian_record", lambda n, d: {"byteorder": b"little"} if n is None else d)
    save("big_endian_record", swap)
    save("compressed", lambda n, d: d, zipfile.ZIP_DEFLATED)
    return cases


def safetensors(tensors, dtype, change=None):
    def encode(v):
        if dtype == "BF16":
            return torch.from_numpy(v).bfloat16().view(torch.int16).numpy().astype("<i2").tobytes()
        return v.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()

    header, body = {"__metadata__": {"format": "pt", "note": "a \"quoted\" \u00e9"}}, b""
    for name, v in sorted(tensors.items()):
        data = encode(np.array(v))
        header["model." + name] = {"dtype": dtype, "shape": list(v.shape),
                                   "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    if change is not None:
        change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def save_safetensors(tensors, folder):
    cases = []
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
    for code, dtype in types.items():
        path = os.path.join(folder, f"{code}.safetensors")
        with open(path, "wb") as f:
            f.write(safetensors(tensors, code))
        cases.append((f"safetensors_{code}", path, rounded(tensors, dtype)))
    return cases


# ---- comparisons ----------------------------------------------------------------------------------------------------

def same_bits(got, want):
    if set(got) != set(want):
        return f"names differ: {sorted(set(got) ^ set(want))[:3]}"
    for name in want:
        a, b = np.ascontiguousarray(got[name]), np.ascontiguousarray(want[name])
        if a.shape != b.shape or a.dtype != b.dtype or a.tobytes() != b.tobytes():
            return name
    return ""


def check_conversions(cases, folder):
    converted = {}
    for name, path, expected in cases:
        out = os.path.join(folder, name + ".segfm")
        result = run("convert", path, "-o", out, *SIZES)
        check(f"convert {name}", result.returncode == 0 and result.stdout == "", result.stderr)
        if result.returncode != 0:
            continue
        converted[name], types = read_weights(out)
        check(f"float32 {name}", set(types.values()) == {"float32"})
        difference = same_bits(converted[name], {n: v.astype(np.float32) for n, v in expected.items()})
        check(f"values {name}", difference == "", difference)
        os.remove(out)
    for label in ("float16", "bfloat16", "float64"):
        if f"a_{label}" in converted and f"widened_{label}" in converted:
            check(f"{label} as its widening", same_bits(converted[f"a_{label}"], converted[f"widened_{label}"]) == "")


def check_half(tensors, source, folder):
    out = os.path.join(folder, "half.segfm")
    check("convert --half", run("convert", source, "-o", out, "--half", *SIZES).returncode == 0)
    got, types = read_weights(out)
    want = {n: v.astype(np.float16) if types[n] == "float16" else v for n, v in tensors.items()}
    check("values --half", same_bits(got, want) == "")
    check("matrices --half", types["image_encoder.blocks.0.attn.qkv.weight"] == "float16")
    check("vectors --half", types["image_encoder.norm.weight"] == "float32")


def content_hash(path):
    return [line for line in run("info", path).stdout.splitlines() if line.startswith("content hash")]


def check_export(tensors, name, weights, folder, half=False):
    """weights → a checkpoint that PyTorch loads strictly, with these tensors → the same weights."""
    exported, back = os.path.join(folder, name + ".pth"), os.path.join(folder, name + "_back.segfm")
    result = run("convert", weights, "-o", exported)
    check(f"export {name}", result.returncode == 0 and result.stdout + result.stderr == "", result.stderr)
    model, about = train.load_model(exported)  # strictly
    state = {n: t.numpy() for n, t in model.state_dict().items() if ".mask_downscaling." not in n}
    difference = same_bits(state, {n: v.astype(np.float32) for n, v in tensors.items()})
    check(f"export {name}: tensors", difference == "", difference)
    check(f"export {name}: parameters that nothing runs", not any(t.any() for n, t in model.state_dict().items() if ".mask_down" in n))
    check(f"export {name}: entry", about["variant"] in ("seed", "upstream") and about["provenance"] != "")
    result = run("convert", exported, "-o", back, *["--half"] * half)
    check(f"export {name}: the way back", result.returncode == 0 and content_hash(back) == content_hash(weights) != [], result.stderr)
    check(f"export {name}: same file", open(back, "rb").read() == open(weights, "rb").read())
    return model


def check_outputs(model, weights, folder):
    """The exported model computes what the weights file does."""
    config = model.config
    window, box = segvol.formula_image(config.spatial), [1, 2, 3, *(n - 2 for n in config.spatial)]
    path, out = os.path.join(folder, "window.npy"), os.path.join(folder, "trace")
    np.save(path, window)
    result = run("trace", "-w", weights, "--window", path, "--box", ",".join(map(str, box)), "--out", out)
    check("export: trace", result.returncode == 0, result.stderr)
    with torch.no_grad():
        want = model(torch.from_numpy(window)[None, None], torch.tensor([box]).float())[0, 0].numpy()
    got = np.load(os.path.join(out, "logits.npy")).reshape(want.shape)
    check("export: outputs", np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want) > 0)


def check_exports(tensors, tiny, folder):
    half = os.path.join(folder, "tiny_half.segfm")
    run("convert", "formula:tiny", "-o", half, "--half")
    check_outputs(check_export(tensors, "tiny", tiny, folder), tiny, folder)
    check_export(read_weights(half)[0], "half", half, folder, half=True)
    for name, config in (("offsets", replace(segvol.FIXTURE, gru_offsets=True)), ("plain", replace(segvol.FIXTURE, gru_blocks=0, text_dim=0))):
        source, weights = os.path.join(folder, name + "_source.pth"), os.path.join(folder, name + ".segfm")
        torch.save(segvol.formula_state_dict(config), source)
        sizes = ["--spatial", "10,18,35", "--patch", "5,6,7", "--heads", "3", "--decoder-heads", "6"]
        run("convert", source, "-o", weights, *sizes)
        check_export(read_weights(weights)[0], name, weights, folder)


def check_refused(name, path, message, folder, sizes=SIZES, status=3):
    out = os.path.join(folder, "refused.segfm")
    result = run("convert", path, "-o", out, *sizes)
    lines = result.stderr.splitlines()
    told = len(lines) == 1 and message in lines[0]
    check(f"refused {name}", result.returncode == status and told, f"{result.returncode} {result.stderr}")
    check(f"nothing left of {name}", not os.path.exists(out))


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/segfm_must_not_exist",)


def check_refusals(tensors, source, folder):
    def saved(name, value, **options):
        path = os.path.join(folder, "refused_" + name + ".pth")
        torch.save(value, path, **options)
        return path

    def changed(name, change):
        value = state_dict(tensors, "model.")
        change(value)
        return saved(name, value)

    norm = "model.image_encoder.norm.weight"

    def refuse(name, path, message, **options):
        check_refused(name, path, message, folder, **options)

    def with_norm(name, values):
        return changed(name, lambda s: s.update({norm: values}))

    def with_element(name, value):
        return changed(name, lambda s: s[norm].__setitem__(3, float(value)))

    large = torch.full((96,), 1e39, dtype=torch.float64)
    unknown = {"model.extra.weight": torch.ones(2)}
    twice = {"module." + norm: torch.ones(96)}
    refuse("missing", changed("missing", lambda s: s.pop(norm)), "tensor 'image_encoder.norm.weight' is missing")
    refuse("unknown", changed("unknown", lambda s: s.update(unknown)), "tensor 'extra.weight' is not one of")
    refuse("twice", changed("twice", lambda s: s.update(twice)), "has tensor 'image_encoder.norm.weight' twice")
    refuse("misshapen", with_norm("misshapen", torch.ones(95)), "tensor 'image_encoder.norm.weight' is (95), need (96)")
    refuse("integers", with_norm("integers", torch.ones(96, dtype=torch.int32)), "is of type int32")
    refuse("expanded", with_norm("expanded", torch.ones(1).expand(96)), "claims more elements")
    refuse("too large", with_norm("large", large), "element 0 is not a finite float")
    refuse("NaN", with_element("nan", "nan"), "'image_encoder.norm.weight': element 3 is not a finite float")
    refuse("infinity", with_element("inf", "inf"), "element 3 is not a finite float")
    refuse("not a dictionary", saved("list", [torch.ones(2)]), "is not a dictionary")
    refuse("no tensor", saved("number", {"epoch": 3}), "'epoch' is not a tensor")
    command = {"model": state_dict(tensors, "model."), "x": Command()}
    refuse("command", saved("command", command), "system' is not on the list")
    check("command not run", not os.path.exists("/tmp/segfm_must_not_exist"))
    legacy = saved("legacy", state_dict(tensors, "model."), _use_new_zipfile_serialization=False)
    refuse("legacy", legacy, "format before 1.6")
    refuse("patch", source, "patch 4x16x8 has 512 voxels", sizes=["--patch", "4,16,8", *SIZES])
    refuse("spatial", source, "--spatial 16,64,64 would fit", sizes=["--spatial", "32,256,256"])
    refuse("heads", source, "need a multiple of heads, 7", sizes=["--spatial", "16,64,64", "--heads", "7"])
    refuse("topk", source, "which is --topk 20; got --topk 200", sizes=[*SIZES, "--topk", "200"])
    refuse("folder", folder, "", sizes=SIZES)
    refuse("absent", os.path.join(folder, "absent.pth"), "", sizes=SIZES)
    refuse("usage", source, "--spatial", sizes=["--spatial", "16,64"], status=2)

    data = open(source, "rb").read()
    for cut in (0, 1, 100, len(data) // 2, len(data) - 1):
        path = os.path.join(folder, "cut.pth")
        open(path, "wb").write(data[:cut])
        refuse(f"cut at {cut}", path, "")
    path = os.path.join(folder, "flip.pth")
    middle = len(data) // 2
    open(path, "wb").write(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:])
    refuse("a flipped bit", path, "")

    first = "model." + sorted(tensors)[0]

    def safe(name, message, change):
        path = os.path.join(folder, "refused.safetensors")
        open(path, "wb").write(safetensors(tensors, "F32", change))
        refuse("safetensors " + name, path, message)

    safe("offset", "a number overflows", lambda h: h[first]["data_offsets"].__setitem__(1, 2**70))
    safe("end", "do not match", lambda h: h[first]["data_offsets"].__setitem__(1, h[first]["data_offsets"][1] - 4))
    safe("shape", "do not match", lambda h: h[first]["shape"].__setitem__(0, h[first]["shape"][0] + 1))
    safe("type", "has a type that is not supported", lambda h: h[first].__setitem__("dtype", "F8_E4M3"))
    safe("member", "has a member other", lambda h: h[first].__setitem__("more", 1))


def main():
    with tempfile.TemporaryDirectory() as folder:
        tiny = os.path.join(folder, "tiny.segfm")
        result = run("convert", "formula:tiny", "-o", tiny)
        if result.returncode != 0:
            sys.exit(result.stderr)
        tensors, _ = read_weights(tiny)
        for name, values in tensors.items():
            check(f"formula {name}", formula(name, values.shape).tobytes() == values.tobytes())
        cases = save_layouts(tensors, folder)
        source = cases[0][1]
        cases += save_repacked(source, {n: np.array(v) for n, v in tensors.items()}, folder)
        cases += save_safetensors(tensors, folder)
        check_conversions(cases, folder)
        check_half(tensors, source, folder)
        check_exports(tensors, tiny, folder)
        check_refusals(tensors, source, folder)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


SEGFM = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "./segfm")
main()
