"""corpus.py FOLDER: the sound files that the fuzz targets begin with (test/fuzz/corpus), one folder a target."""
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from build import *  # noqa: E402
from cases import SMALL  # noqa: E402


def nifti():
    n = NX * NY * NZ
    data = struct.pack(">%dh" % n, *voxels())
    return {
        "le1": nifti1(), "be1": nifti1(data, big=True, datatype=4, bitpix=16, slope=0.5, inter=-3),
        "le2": nifti2(sform=1, units=3), "be2": nifti2(big=True, qform=1, quatern=(0, 0, 1), pixdim=(-1, 1, 2, 3, 1, 1, 1, 1)),
        "extension": nifti1(ext=b"\1\0\0\0" + struct.pack("<2i", 16, 6) + b"comment\0"), "gz": gzip(nifti1()),
        "volumes": nifti1(voxels(4, 3, 2) * 3, dim=(4, 4, 3, 2, 3, 1, 1, 1)),
        "double": nifti1(struct.pack("<24d", *range(24)), dim=(3, 4, 3, 2, 1, 1, 1, 1), datatype=64, bitpix=64),
    }


def streams():
    plain = b"a deflate stream, a deflate stream, a deflate stream of %s" % bytes(range(200, 256))
    return {"dynamic": deflate(voxels(12, 10, 8)), "fixed": deflate(plain[:60]), "stored": stored(plain), "level1": deflate(plain * 20, 1),
            "empty": deflate(b"")}


def gzips():
    return {"one": gzip(voxels()), "three": gzip(b"one") + gzip(b"") + gzip(voxels()[:20]) + b"\0" * 9,
            "empty": gzip(b"") + gzip(b"", flags=8, extra=b"\0", size=0),
            "flags": gzip(b"text", flags=28, extra=b"\2\0ab" + b"name\0" + b"comment\0")}


def zips():
    wide = struct.pack("<2H2Q", 1, 16, 5, 5)
    descriptor = Member("b", b"text " * 20, 8, flags=8, l_crc=0, l_packed=0, l_size=0)
    wide64 = Member("w", b"wide!", packed=0xFFFFFFFF, size=0xFFFFFFFF, extra=wide)

    def end(count, size, begin):
        record = b"PK\6\6" + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, count, count, size, begin)
        return record + b"PK\6\7" + struct.pack("<IQI", 0, begin + size, 1) + end_record(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)

    return {"two": archive([Member("a", b"stored"), descriptor], comment=b"said"), "zip64": archive([wide64], end=end), "none": archive([])}


def npys():
    return {"u1": npy(bytes(8), shape=(2, 2, 2)), "f4": npy(struct.pack(">4f", 1, 2, 3, 4), ">f4", (2, 2), True),
            "i8": npy(struct.pack("<2q", 1, -1), "<i8", (2,)), "f2": npy(b"\0\x3c", "<f2", ()), "v2": npy(b"\1", "|b1", (1,), version=(2, 0)),
            "object": objects(pickle(b"N")), "text": npy("fgbg".encode("utf-32-le"), "<U2", (2,))}


def pickles():
    clicks = dict_of(fg=list_of(list_of(number(1), number(2), number(3))), bg=list_of())
    text_protocol = b"(lp0\nI1\naI01\naL2L\naF0.5\naVtext\\u00e9\np1\nag1\na(dp2\nVkey\nI-3\nsa."
    four = pickle(b"\x95" + struct.pack("<Q", 0) + b"]\x94(\x8c\1a\x94h\1K\1\x85\x94G" + struct.pack(">d", 0.5) + b"\x88\x8f\x94(K\1\x90e", 4)
    encoded = pickle(named("_codecs", "encode") + tuple_of(text("é"), text("latin1")) + b"R", 2)
    scalar = pickle(named("numpy.core.multiarray", "scalar") + tuple_of(dtype_of("i8", "<"), b"C\10" + b"\1" + b"\0" * 7) + b"R")
    return {"boxes": pickle(array_of((1,), list_of(box_dict()))), "clicks": pickle(array_of((1,), list_of(clicks))), "protocol0": text_protocol,
            "protocol4": four, "encoded": encoded, "scalar": scalar, "numbers": pickle(array_of((2,), b"C\4abcd", dtype_of("i2", ">"))),
            "tensor": pickle(b"}" + text("model") + b"}" + text("w") + tensor_of(storage_of("0", 6), (2, 3)) + b"ss", 2)}


def safetensors_files():
    return {"two": safetensors([("a", (2, 2)), ("b", (3,))], metadata='"__metadata__":{"format":"pt"}', prefix=""), "none": safetensors_text("{}"),
            "scalar": safetensors_text('{"s" : {"shape":[] , "dtype":"F16",\n"data_offsets":[0,2]}}  ', b"\0\x3c")}


def cases():
    order = npy("fgbg".encode("utf-32-le"), "<U2", (1, 2))
    point = lambda *v: list_of(*map(number, v))
    clicks = boxes(dict_of(fg=list_of(point(1, 1, 1)), bg=list_of(point(0, 0, 0))))
    small = dict(imgs=npy(voxels()))
    return {"box": npz(challenge(gts=npy(labels())), 8), "clicks": npz(dict(small, clicks=clicks, clicks_order=order, gts=npy(labels()))),
            "previous": npz(dict(small, boxes=boxes(b"N"), prev_pred=npy(labels()), segs=npy(labels())))}


def sessions():
    return {"box": b"open scan.nii\nbox 1,1,1,4,3,2\nclick 2,2,2,+\nclick 0,0,0,-\nundo\nredo\nstatus\n",
            "objects": b"# two\nopen --volume 0 scan.nii\nbox --world 1,1,1,3,3,3\nnext\nclick --world 1,1,1,+\nlabels l.nii.gz\nmask m.nii\nlogits g.hdr\nquit\n",
            "nonsense": b"undo\nbox 1,2\nreset\nopen missing.nii\nclick 1,1,1\n"}


def configs():
    return {"small": SMALL.encode(), "other": b"# a run\nsource = phantoms\nrate 1e-4 # slow\nparts encoder+decoder\ncorrections 1,2,3,4,5,6\n"
            b"schedule cosine\nevaluate_pairs list#1.tsv\r\nframe 25\nphantom_largest 9,9,9\n",
            "equals": b"evaluate_pairs ==list.tsv\n", "remark": b"evaluate_pairs=#list.tsv\n"}


CORPUS = {
    "nifti": nifti, "inflate": streams, "gzip": gzips, "zip": zips, "npy": npys, "pickle": pickles, "safetensors": safetensors_files,
    "checkpoint": lambda: {"torch": torch(), "safetensors": safetensors()}, "weights": lambda: {"micro": weights()}, "challenge": cases,
    "session": sessions, "config": configs,
}


def main(folder):
    for target, make in CORPUS.items():
        os.makedirs(os.path.join(folder, target), exist_ok=True)
        for name, data in make().items():
            with open(os.path.join(folder, target, name), "wb") as f:
                f.write(data)


main(sys.argv[1])
