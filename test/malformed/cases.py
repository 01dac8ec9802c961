"""The bad files: one line each says what is wrong with it. Some odd ones are legal: they say why, and are expected to work.

A case is a folder of files and a command that is run in it. code: the exit code (INTERFACE: 0 done, 2 usage, 3 bad input,
4 memory). names: what the sentence on stderr must have in it, first of all the file's name. A file is its bytes, or a function
that makes them, where that takes a while."""
import struct
import zlib

from build import *

CASES = []
NAN, INF = float("nan"), float("inf")


class Case:
    def __init__(self, name, why, files, arguments, code=3, names=None, stdin=None, answers=None):
        self.name, self.why, self.files, self.arguments, self.code = name, why, files, arguments, code
        self.names = [next(iter(files))] if names is None and code != 0 else names or []
        self.stdin, self.answers = stdin, answers
        self.lines = 1  # on stderr; a list's bad scans have one each


def add(*arguments, **more):
    CASES.append(Case(*arguments, **more))


SEGMENT = ["-w", "W", "--box", BOX, "-o", "out.nii.gz"]


def scan(name, why, data, code=3, ending=".nii", says="", also=None, options=SEGMENT):
    """A scan to segment; says: a phrase of the sentence; also: other files beside it."""
    file = name + ending
    add(name, why, {file: data, **(also or {})}, ["segment", "-i", file, *options], code, [file, says] if code else None)


def legal(name, why, data, **more):
    scan(name, why, data, 0, **more)


def both(name, why, code=3, says="", **fields):
    """The same fault in NIfTI-1 and -2, little- and big-endian."""
    for version, make in ((1, nifti1), (2, nifti2)):
        for big in (False, True):
            scan("nifti%d-%s-%s" % (version, name, "be" if big else "le"), "NIfTI-%d, %s-endian: %s" % (version, "big" if big else
                 "little", why), make(big=big, **fields), code, says=says)


# ---- NIfTI ----------------------------------------------------------------------------------------------------------------

def nifti_cases():
    both("whole", "nothing is wrong", 0)
    both("dim0-minus", "dim[0] is -1", says="dim[0] is -1", dim=(-1, NX, NY, NZ, 1, 1, 1, 1))
    both("dim0-200", "dim[0] is 200", says="dim[0] is 200", dim=(200, NX, NY, NZ, 1, 1, 1, 1))
    both("dim0-zero", "dim[0] is 0", says="dim[0] is 0", dim=(0, NX, NY, NZ, 1, 1, 1, 1))
    both("dim-zero", "no voxels along y", says="dim[2] is 0", dim=(3, NX, 0, NZ, 1, 1, 1, 1))
    both("dim-minus", "-4 voxels along z", says="dim[3] is -4", dim=(3, NX, NY, -4, 1, 1, 1, 1))
    both("dim-all", "all eight dim are 32767: the product wraps", says="dim", dim=(7,) + (32767,) * 7)
    both("voxels-short", "a byte of the voxels is missing", says="cut short", data=voxels()[:-1])
    both("voxels-none", "nothing follows the header", says="cut short", data=b"")
    both("trailing", "more than a megabyte follows the voxels", says="follow", data=voxels() + b"\0" * (1 << 20 | 1))
    both("type-rgb", "datatype RGB24", says="RGB24", datatype=128, bitpix=24, data=voxels() * 3)
    both("type-complex", "datatype complex64", says="complex64", datatype=32, bitpix=64, data=voxels() * 8)
    both("type-bit", "datatype 1-bit", says="1-bit", datatype=1, bitpix=1)
    both("type-none", "datatype 0", says="unknown", datatype=0)
    both("type-undefined", "datatype 3 does not exist", says="datatype is 3", datatype=3)
    both("type-float128", "datatype float128", says="float128", datatype=1536, bitpix=128, data=voxels() * 16)
    both("bitpix", "bitpix 16 for 8-bit voxels", says="bitpix is 16", bitpix=16)
    both("offset-zero", "vox_offset 0 in a single-file image", says="vox_offset is 0", vox_offset=0)
    both("offset-header", "vox_offset inside of the header", says="vox_offset is 100", vox_offset=100)
    both("offset-past", "vox_offset past the end of the file", says="vox_offset", vox_offset=1 << 20)
    both("offset-minus", "vox_offset is -352", says="vox_offset is -352", vox_offset=-352)
    both("slope-nan", "scl_slope NaN means: not scaled", 0, slope=NAN)
    both("slope-inf", "an infinite scl_slope means: not scaled", 0, slope=INF)
    both("slope-zero", "scl_slope 0 means: not scaled", 0, slope=0, inter=5)
    both("inter-nan", "scl_inter NaN with a valid slope", says="scl_inter", inter=NAN)
    both("inter-inf", "an infinite scl_inter with a valid slope", says="scl_inter", inter=-INF)
    both("sform-nan", "sform with a NaN", says="srow_y[1]", sform=1, srow=(1, 0, 0, 0, 0, NAN, 0, 0, 0, 0, 1, 0))
    both("sform-inf", "sform with an infinity", says="srow_z[3]", sform=1, srow=(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, INF))
    both("sform-unused-nan", "NaN in an sform whose code is 0, so that nobody uses it", 0, srow=(NAN,) * 12)
    both("sform-zero", "an sform of zeros: no millimetres are asked for", 0, sform=1, srow=(0,) * 12)
    both("qform-long", "a quaternion longer than 1", says="quatern", qform=1, quatern=(1, 1, 1))
    both("qform-nan", "a quaternion with a NaN", says="quatern_c", qform=1, quatern=(0, NAN, 0))
    both("qform-offset-inf", "qoffset_y is infinite", says="qoffset_y", qform=1, qoffset=(0, INF, 0))
    both("pixdim-nan", "pixdim NaN counts as 1 mm", 0, pixdim=(1, NAN, NAN, NAN, 1, 1, 1, 1))
    both("pixdim-minus", "a negative pixdim counts without its sign", 0, pixdim=(1, -2, -1, -3, 1, 1, 1, 1))
    both("pixdim-zero", "pixdim 0 counts as 1 mm", 0, pixdim=(1, 0, 0, 0, 1, 1, 1, 1))
    both("size-wrong", "sizeof_hdr is 349", says="no NIfTI", size=349)
    both("size-other", "sizeof_hdr is the other version's", says="", size=0)
    both("constant", "every voxel is the same: the whole scan is foreground or none", 0, data=b"\7" * (NX * NY * NZ))
    for version, make, codes in ((1, nifti1, "hfd"), (2, nifti2, "hfd")):
        v = "nifti%d-" % version
        n = NX * NY * NZ
        for what, number_ in (("nan", NAN), ("inf", INF)):
            data = struct.pack("<%df" % n, *([1.0, 5.0] * (n // 2 - 1) + [2.0, number_]))
            scan(v + "voxel-" + what, "the last voxel is " + what, make(data, datatype=16, bitpix=32), says="voxel (5,4,3)")
        scan(v + "voxel-huge", "a float64 voxel beyond float32", make(struct.pack("<%dd" % n, *([1.0] * (n - 1) + [1e300])),
             datatype=64, bitpix=64), says="too large")
        scan(v + "scaled-huge", "a slope that takes voxels beyond float32", make(slope=3e38), says="too large")
        scan(v + "volumes", "four axes and no --volume", make(voxels() * 2, dim=(4, NX, NY, NZ, 2, 1, 1, 1)), 2, says="--volume 0 to 1")
        scan(v + "volume-missing", "volume 2 of two", make(voxels() * 2, dim=(4, NX, NY, NZ, 2, 1, 1, 1)), 2, says="--volume",
             options=SEGMENT + ["--volume", "2"])
        scan(v + "world-singular", "millimetres through an sform of zeros", make(sform=1, srow=(0,) * 12), says="affine",
             options=SEGMENT + ["--world"])
        scan(v + "pair-hdr", "a .hdr without its .img", make(b"", magic=b"ni%d\0" % version + b"\r\n\x1a\n" * (version == 2), ext=b"",
             vox_offset=0), ending=".hdr", says="img")
        scan(v + "pair-short", "an .img a byte short", make(b"", magic=b"ni%d\0" % version + b"\r\n\x1a\n" * (version == 2), ext=b"",
             vox_offset=0), ending=".hdr", says="", also={v + "pair-short.img": voxels()[:-1]})
        CASES[-1].names = [v + "pair-short.img", "cut short"]
        scan(v + "plain-as-gz", "a plain file named .nii.gz: gzip is told by content, not by name", make(), 0, ending=".nii.gz")
        scan(v + "gz-as-plain", "a gzip file named .nii: likewise", gzip(make()), 0)
        scan(v + "extension-zero", "an extension of size 0: its bytes are kept, not read", make(ext=b"\1\0\0\0" + b"\0" * 12), 0)
        scan(v + "extension-huge", "an extension that claims 2 GB: likewise", make(ext=b"\1\0\0\0" + b"\xf0\xff\xff\x7f" + b"\0" * 8), 0)
        scan(v + "pixdim-huge", "voxels of 1e38 mm: no millimetres are asked for", make(pixdim=(1,) + (1e38,) * 3 + (1,) * 4), 0)
        scan(v + "pair-alone", "the magic of a pair, in a file named .nii", make(magic=b"ni%d\0" % version + b"\r\n\x1a\n" * (version == 2)),
             says="second file")
        scan(v + "header-only", "cut inside of the header", make()[:200], says="ends inside")
    scan("img-alone", "an .img without its .hdr", voxels(), ending=".img", says="hdr")
    scan("img-own-header", "an .img whose .hdr says that it has its own voxels", voxels(), ending=".img", also={"img-own-header.hdr": nifti1()})
    CASES[-1].names = ["img-own-header.hdr"]
    scan("nifti1-offset-nan", "vox_offset NaN", nifti1(vox_offset=NAN), says="vox_offset is not a number")
    scan("nifti1-offset-inf", "vox_offset infinite", nifti1(vox_offset=INF), says="vox_offset")
    scan("nifti1-offset-1e30", "vox_offset 1e30", nifti1(vox_offset=1e30), says="vox_offset")
    scan("nifti1-offset-half", "vox_offset 352.5", nifti1(vox_offset=352.5), says="352 and a fraction")
    scan("nifti2-offset-most", "vox_offset 2^63 - 1", nifti2(vox_offset=2**63 - 1), says="vox_offset")
    scan("nifti2-wrap", "2^32 x 2^32 voxels: the product is 0 in 64 bits", nifti2(dim=(2, 2**32, 2**32, 1, 1, 1, 1, 1)), says="dim[2]")
    scan("nifti2-wrap-big", "the same, big-endian", nifti2(big=True, dim=(2, 2**32, 2**32, 1, 1, 1, 1, 1)), says="dim[2]")
    scan("nifti2-wrap-small", "axes whose product wraps round to 120", nifti2(dim=(3, 2**61 + 1, 8, 15, 1, 1, 1, 1)), says="dim")
    scan("nifti2-wrap-64", "float64 voxels: only the bytes wrap", nifti2(dim=(2, 2**31, 2**30, 1, 1, 1, 1, 1), datatype=64, bitpix=64), says="dim")
    scan("nifti2-most", "2^63 - 1 voxels along x", nifti2(dim=(1, 2**63 - 1, 1, 1, 1, 1, 1, 1)), says="")
    scan("nifti2-lineends", "line ends were converted", nifti2(magic=b"n+2\0\n\n\x1a\n"), says="line ends")
    legal("nifti2-no-lineends", "the line-end check left zero, as some writers do", nifti2(magic=b"n+2\0\0\0\0\0"))
    scan("nifti1-377", "377 bytes that ask for 18 GB", nifti1(b"\0" * 25, dim=(3, 2600, 2600, 2700, 1, 1, 1, 1)), says="cut short")
    scan("nifti1-377-gz", "the same, compressed", gzip(nifti1(b"\0" * 25, dim=(3, 2600, 2600, 2700, 1, 1, 1, 1))), ending=".nii.gz", says="cut short")
    scan("nifti2-77-long", "2^40 voxels along x in 660 bytes", nifti2(dim=(1, 2**40, 1, 1, 1, 1, 1, 1)), says="cut short")
    far = nifti2(sform=1, units=1, srow=(1, 0, 0, 1e306, 0, 1, 0, 0, 0, 0, 1, 0))
    scan("nifti2-sform-metres", "an sform of 1e306 metres: no number of millimetres", far, says="srow_x[3]")
    far = nifti2(qform=1, units=1, qoffset=(0, 0, 1e306))
    scan("nifti2-qform-metres", "a qform of 1e306 metres", far, says="qoffset_z")
    scan("analyze", "an ANALYZE 7.5 header: it does not say how the volume lies", nifti1(magic=b"\0\0\0\0"), says="ANALYZE")
    scan("nifti1-magic", "the magic is n+3", nifti1(magic=b"n+3\0"), says="magic")
    scan("empty", "an empty file", b"", says="0 bytes")
    scan("empty-gz", "an empty file named .nii.gz", b"", ending=".nii.gz", says="0 bytes")
    scan("text", "a line of text", b"no scan at all\n" * 40, says="no NIfTI")
    legal("nifti1-1d", "one axis is a scan of one row", nifti1(bytes(range(1, 61)), dim=(1, 60, 1, 1, 1, 1, 1, 1)),
          options=["-w", "W", "--box", "3,0,0,20,0,0", "-o", "out.nii.gz"])
    legal("nifti1-later-axes", "dim beyond dim[0] are 0 or nonsense: nobody reads them", nifti1(dim=(3, NX, NY, NZ, 0, -5, 0, 0)))


def label_cases():
    truth, n = nifti1(labels()), NX * NY * NZ

    def metrics(name, why, data, code=3, says="", ending=".nii", good=truth):
        file = name + ending
        add(name, why, {file: data, "truth.nii": good}, ["metrics", "--gt", "truth.nii", "--pred", file], code, [file, says] if code else None)

    shorts = lambda *v: struct.pack("<%dh" % n, *(list(v) + [0] * (n - len(v))))
    reals = lambda *v: struct.pack("<%df" % n, *(list(v) + [0] * (n - len(v))))
    metrics("label-minus", "a label of -1", nifti1(shorts(0, -1), datatype=4, bitpix=16), says="label (1,0,0)")
    metrics("label-half", "a label of 0.5", nifti1(reals(0, 0, 0.5), datatype=16, bitpix=32), says="between 0 and 1")
    metrics("label-nan", "a label that is NaN", nifti1(reals(NAN), datatype=16, bitpix=32), says="not a number")
    metrics("label-65536", "a label of 65536", nifti1(reals(65536), datatype=16, bitpix=32), says="65536")
    metrics("label-scaled", "labels scaled by 0.3", nifti1(labels(), slope=0.3), says="label")
    metrics("label-volumes", "a label map of two volumes", nifti1(labels() * 2, dim=(4, NX, NY, NZ, 2, 1, 1, 1)), says="2 volumes")
    metrics("label-shape", "a label map of another shape", nifti1(labels(NX, NY, NZ - 1), dim=(3, NX, NY, NZ - 1, 1, 1, 1, 1)), says="shapes")
    metrics("label-spacing", "a label map of another spacing", nifti1(labels(), pixdim=(1, 2, 1, 1, 1, 1, 1, 1)), says="spacings")
    for exponent in (30, -30, 300, -300, -320):
        far = abs(exponent) > 30
        pixdim = (1,) + (float("0.999e%d" % exponent if exponent > 0 else "1.001e%d" % exponent),) * 3 + (1,) * 4
        metrics("label-1e%d" % exponent, "voxels of 1e%d mm: %s" % (exponent, "their squares are no doubles" if far else "far, but distances"),
                nifti2(labels(), pixdim=pixdim), 3 if far else 0, "spacings" if far else "", good=nifti2(bytes(labels()[1:] + b"\0"), pixdim=pixdim))
    metrics("label-metres", "1e306 metres, which are no number of millimetres, count as 1 mm", nifti2(labels(), units=1, pixdim=(1,) + (1e306,) * 3 + (1,) * 4), 0,
            good=nifti1(labels(), pixdim=(1,) * 8))
    metrics("label-npz", "an npz without labels", npz(dict(imgs=npy(voxels()))), says="missing", ending=".npz")
    add("label-npz-gts", "an npz whose gts are broken: the segs beside them are not taken for them",
        {"broken.npz": npz(dict(gts=npy(labels())[:-1], segs=npy(labels()))), "truth.nii": truth}, ["metrics", "--gt", "broken.npz", "--pred", "truth.nii"], 3,
        ["broken.npz", "gts"])
    metrics("label-npz-minus", "an npz with a label of -3", npz(dict(segs=npy(b"\xfd" * n, "|i1"))), says="label -3", ending=".npz")
    metrics("label-npz-object", "an npz whose labels are objects", npz(dict(segs=objects(pickle(b"N")))), says="segs", ending=".npz")
    metrics("label-npz-axes", "an npz whose labels have two axes", npz(dict(segs=npy(b"\1" * 6, shape=(2, 3)))), says="2 axes", ending=".npz")

    def pairs(name, why, line, code=3, says="", files=None):
        add(name, why, {"list.tsv": line, "truth.nii": truth, "scan.nii": nifti1(), **(files or {})},
            ["eval", "--pairs", "list.tsv", "-w", "W", "--csv", "out.csv", "--min-voxels", "1", "--clicks", "0"], code,
            ["list.tsv" if says else "", says] if code else None)

    pairs("list-empty", "a list of nothing", b"", says="no pair")
    pairs("list-remarks", "a list of remarks", b"# a\n\n#b\n", says="no pair")
    pairs("list-no-tab", "a line without a tab", b"scan.nii truth.nii\n", says="line 1")
    pairs("list-no-label", "a line without a label map", b"scan.nii\ttruth.nii\nscan.nii\t\n", says="line 2")
    pairs("list-zero", "a zero byte in the list", b"scan.nii\ttru\0th.nii\n", says="zero byte")
    pairs("list-endless", "a path of 100000 bytes", b"a" * 100000 + b"\ttruth.nii\n", says="line 1: a path is longer")
    pairs("list-no-newline", "no newline at the end", b"scan.nii\ttruth.nii", 0)
    pairs("list-windows", "lines that end as in Windows", b"scan.nii\ttruth.nii\r\n", 0)
    pairs("list-folder", "a folder where a scan should be", b".\ttruth.nii\n")
    CASES[-1].names = [".", "folder"]
    pairs("list-missing", "a scan that does not exist", b"missing.nii\ttruth.nii\n")
    CASES[-1].names = ["missing.nii"]
    pairs("list-control", "a path with an escape sequence", b"mis\x1b[2Jsing.nii\ttruth.nii\n")
    CASES[-1].names = ["sing.nii"]


# ---- gzip and deflate -----------------------------------------------------------------------------------------------------

def gzip_cases():
    whole = nifti1()

    def gz(name, why, data, code=3, says=""):
        scan("gzip-" + name, why, data, code, ".nii.gz", says)

    gz("crc-last", "the CRC's last byte is wrong", gzip(whole, crc=zlib.crc32(whole) ^ 0xFF000000), says="CRC")
    gz("crc-first", "the CRC's first byte is wrong", gzip(whole, crc=zlib.crc32(whole) ^ 1), says="CRC")
    gz("size", "the size behind the CRC is wrong", gzip(whole, size=len(whole) + 1), says="")
    gz("no-trailer", "CRC and size are missing", gzip(whole)[:-8])
    gz("short-trailer", "the last byte is missing", gzip(whole)[:-1])
    gz("head-only", "ten bytes of header", gzip(whole)[:10])
    gz("head-short", "the header's fourth byte is the last", gzip(whole)[:4])
    gz("method", "compression method 7", gzip(whole, method=7))
    gz("reserved-flags", "reserved flags are set", gzip(whole, flags=0x20))
    gz("extra-long", "an extra field longer than the file", gzip(whole, flags=4, extra=b"\xff\xff"))
    gz("name-endless", "a name without an end", whole[:0] + b"\x1f\x8b\x08\x08" + b"\0" * 6 + b"n" * 500)
    gz("header-crc", "the header's own CRC is wrong", gzip(whole, flags=2, extra=b"\0\0"))
    gz("garbage", "text follows the last member", gzip(whole) + b"text", says="")
    gz("zeros", "zeros follow the last member: tapes do that", gzip(whole) + b"\0" * 512, 0)
    gz("members", "three members, one of them empty: legal", gzip(whole[:100]) + gzip(b"") + gzip(whole[100:]), 0)
    gz("empty-first", "the first member is empty: legal", gzip(b"") + gzip(whole), 0)
    gz("second-crc", "the second member's CRC is wrong", gzip(whole[:400]) + gzip(whole[400:], crc=1), says="CRC")
    gz("second-short", "the second member is cut", gzip(whole[:400]) + gzip(whole[400:])[:-9])
    gz("all-flags", "extra field, name, comment: legal", gzip(whole, flags=28, extra=b"\2\0ab" + b"name\0" + b"comment\0"), 0)
    gz("twice", "compressed twice", gzip(gzip(whole)))
    gz("bomb", "fifty megabytes of zeros behind 120 voxels", gzip(whole + b"\0" * (50 << 20)))
    gz("bomb-members", "4000 members of sixteen kilobytes behind 120 voxels", gzip(whole) + gzip(b"\0" * 16384) * 4000)
    gz("bomb-empty", "100000 empty members behind the voxels: slow, but no more", gzip(whole) + gzip(b"") * 100000, 0)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = packer.compress(b"\0" * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    most = nifti1(b"", dim=(3, 600, 1024, 1024, 1, 1, 1, 1))
    most = gzip(b"", stream=stored(most).replace(b"\1", b"\0", 1) + megabyte * 600 + b"\3\0", crc=0, size=(600 << 20) + len(most))
    gz("honest", "600 kB that are 600 MB of voxels, as the header says: more than the memory there is", most, 4, says="memory")
    gz("short-voxels", "a gzip file that is whole, of an image that is cut", gzip(whole[:-1]), says="cut short")

    def stream(name, why, bits, code=3, says="", data=whole):
        gz("deflate-" + name, why, gzip(data, stream=bits.bytes() if isinstance(bits, Bits) else bits), code, says)

    def literals(bits, data):
        for byte in data:
            bits.fixed(byte)
        return bits

    fixed = lambda: Bits().block(1)
    stream("block-3", "block type 3", Bits().block(3))
    stream("stored-complement", "a stored block whose length and complement differ", b"\1" + struct.pack("<HH", 10, 10) + b"0123456789")
    stream("stored-long", "a stored block longer than the file", b"\1" + struct.pack("<HH", 65535, 0))
    stream("stored-half", "a stored block cut in its length", b"\1\5")
    stream("no-end", "no block is the last", Bits().block(1, 0).fixed(256))
    stream("symbol-286", "length symbol 286, which does not exist", literals(fixed(), whole).fixed(286))
    stream("symbol-287", "length symbol 287, which does not exist", literals(fixed(), whole).fixed(287))
    stream("distance-30", "distance symbol 30, which does not exist", literals(fixed(), whole).fixed(257).code(30, 5))
    stream("distance-31", "distance symbol 31, which does not exist", literals(fixed(), whole).fixed(257).code(31, 5))
    stream("distance-first", "a match before any byte", fixed().fixed(257).code(0, 5).fixed(256), says="")
    stream("distance-far", "a distance one too far back", literals(fixed(), whole[:9]).fixed(257).code(6, 5).number(1, 2).fixed(256))
    stream("distance-32768", "a distance of 32768 after 472 bytes", literals(fixed(), whole).fixed(257).code(29, 5).number(8191, 13).fixed(256))
    stream("cut-extra", "cut inside of a length's extra bits", literals(fixed(), whole[:300]).fixed(284))
    lengths = lambda **told: [told.get("l%d" % s, 0) for s in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)]
    dynamic = lambda told, literals_=257, distances=1, **more: Bits().dynamic(lengths(**told), literals_, distances, **more)
    stream("hlit-31", "288 literal codes", dynamic({"l0": 1, "l1": 1}, hlit=31))
    stream("hlit-30", "287 literal codes", dynamic({"l0": 1, "l1": 1}, hlit=30))
    stream("hdist-31", "32 distance codes", dynamic({"l0": 1, "l1": 1}, hdist=31))
    stream("lengths-over", "three code lengths of one bit", dynamic({"l0": 1, "l1": 1, "l2": 1}))
    stream("lengths-over-7", "nineteen code lengths of three bits", dynamic({"l%d" % i: 3 for i in range(19)}))
    stream("lengths-under", "a code of code lengths with holes", dynamic({"l0": 2, "l1": 2}))
    stream("lengths-none", "no code length at all", dynamic({}))
    stream("repeat-first", "repeats the code length before the first", dynamic({"l16": 1, "l0": 1}).code(1, 1).number(0, 2))
    zeros = lambda bits, code, n: [bits.code(code, 1) for _ in range(n)] and bits
    stream("repeat-past", "138 zeros more than there are codes", dynamic({"l18": 1, "l0": 1}).code(1, 1).number(127, 7).code(1, 1).number(127, 7))
    # the codes of two code lengths of one bit: 0 → the smaller symbol, 1 → the larger
    stream("no-end-code", "no code for the end of the block", zeros(dynamic({"l1": 1, "l0": 1}).code(1, 1).code(1, 1), 0, 256))
    stream("literals-over", "257 literal codes of one bit", zeros(dynamic({"l1": 1, "l0": 1}), 1, 258))
    stream("literals-under", "two literal codes of two bits", zeros(zeros(dynamic({"l2": 1, "l0": 1}), 0, 255), 1, 3))
    end_only = zeros(dynamic({"l1": 1, "l0": 1}), 0, 256).code(1, 1).code(0, 1)
    stream("nothing", "a block with the end code alone, of no bytes", end_only.code(0, 1))
    stream("distances-over", "three distance codes of one bit", zeros(zeros(dynamic({"l1": 1, "l0": 1}, distances=3), 0, 256), 1, 4))
    stream("incomplete-end", "the other bit of a code with one symbol", zeros(dynamic({"l1": 1, "l0": 1}), 0, 256).code(1, 1).code(0, 1).code(1, 1))
    stream("fixed-whole", "fixed codes alone: legal", literals(fixed(), whole).fixed(256), 0)
    stream("stored-whole", "a stored block: legal", stored(whole), 0)
    stream("stored-empty", "ten thousand empty stored blocks first: legal", b"\0\0\0\xff\xff" * 10000 + stored(whole), 0)
    stream("trailing-bits", "bytes between stream and CRC", stored(whole) + b"\0")


# ---- zip and npz ----------------------------------------------------------------------------------------------------------

def npz_scan(name, why, data, code=3, says=""):
    scan(name, why, data, code, ".npz", says)


def zip_cases():
    image = npy(voxels())
    member = lambda **told: Member("imgs.npy", image, **told)
    packed = lambda **told: Member("imgs.npy", image, 8, **told)

    def one(name, why, m, code=3, says="", **told):
        npz_scan("zip-" + name, why, archive(m if isinstance(m, list) else [m], **told), code, says)

    one("whole", "nothing is wrong", packed(), 0)
    one("bytes-before", "bytes before the first member: legal", member(), 0, before=b"#!/bin/sh\n" * 3)
    one("bytes-behind", "bytes between a member and the directory: legal", member(behind=b"hidden"), 0)
    one("descriptor", "sizes behind the data (flag bit 3), zero before: legal", packed(flags=8, l_crc=0, l_packed=0, l_size=0), 0)
    one("comment", "an archive's comment: legal", member(), 0, comment=b"a comment")
    one("crc", "the CRC is wrong in both headers", member(crc=1), says="CRC")
    one("crc-last", "the CRC's last byte is wrong", packed(crc=zlib.crc32(image) ^ 0xFF000000), says="CRC")
    one("local-crc", "local header and directory disagree in the CRC", member(l_crc=1), says="disagree")
    one("local-size", "local header and directory disagree in the size", member(l_size=7), says="disagree")
    one("local-packed", "local header and directory disagree in the packed size", packed(l_packed=7), says="disagree")
    one("local-name", "local header and directory disagree in the name", member(l_name=b"gimg.npy"), says="disagree")
    one("local-name-length", "the local name is longer", member(l_name=b"imgs.npyy"), says="disagree")
    one("local-method", "local header and directory disagree in the method", member(l_method=8), says="disagree")
    one("local-magic", "the local header's magic is wrong", member(l_magic=b"PK\3\5"), says="")
    one("central-magic", "the directory's magic is wrong", member(c_magic=b"PK\1\3"), says="directory")
    one("end-magic", "the end record's magic is wrong", member(), says="end record", magic=b"PK\5\7")
    one("offset-past", "a local header past the end", member(offset=10**6), says="local header")
    one("offset-directory", "a local header in the directory", member(offset=200), says="")
    one("offset-most", "a local header at 2^32 - 2", member(offset=2**32 - 2), says="")
    one("method-9", "method 9 (deflate64)", member(method_=9, c_method=9, l_method=9), says="method is 9")
    one("method-12", "method 12 (bzip2)", member(method_=9, c_method=12, l_method=12), says="method is 12")
    one("encrypted", "an encrypted member", member(flags=1), says="encrypted")
    one("encrypted-local", "encrypted in the local header alone", member(l_flags=1), says="encrypted")
    one("patch", "patch data", member(flags=32), says="patch")
    one("name-empty", "a member without a name", [member(), Member("", b"x")], says="name")
    one("name-zero", "a zero byte in a name", [member(), Member(b"a\0b", b"x")], says="zero byte")
    one("name-line", "two members whose one name has a line end and an escape sequence", [member(), Member(b"a\n\x1b[2Jb", b"x"),
        Member(b"a\n\x1b[2Jb", b"y")], says="two members")
    one("name-twice", "two members of one name", [member(), member()], says="two members")
    one("name-other", "no imgs.npy", Member("img.npy", image), says="imgs")
    one("name-folder", "imgs.npy in a folder", Member("a/imgs.npy", image), says="imgs")
    one("name-up", "a name that leads out of the folder: nothing is unpacked to a file", [member(), Member("../../up.npy", image)], 0)
    shared = [member(), member(c_name=b"other.npy")]
    shared[1].at = 0
    one("overlap-same", "two entries of one member's data", shared, says="")
    inner = Member("imgs.npy", image).local()
    outer = Member("outer", b"0123" + inner + b"4567")
    inside = Member("imgs.npy", image, at=None)
    inside.at = len(Member("outer", b"").local()) + 4
    one("overlap-inside", "a member inside of another's data", [outer, inside], says="overlap")
    one("bomb-ratio", "a member that claims ten thousand times its bytes", packed(size=10**4 * len(deflate(image))), says="contradict")
    one("bomb-short", "a member that inflates to less than it says", packed(size=len(image) + 1), says="inflate")
    one("bomb-long", "a member that inflates to more than it says", packed(size=len(image) - 1), says="")
    one("packed-short", "a member with bytes behind its stream", Member("imgs.npy", image, 8, deflate(image) + b"\0"), says="inflate")
    one("stored-sizes", "a stored member with two sizes", member(size=len(image) - 1), says="contradict")
    one("data-past", "a member's data reach into the directory", member(packed=len(image) + 50, size=len(image) + 50), says="fit")
    one("count-more", "the end record counts one more", member(), says="directory", count=2)
    one("count-less", "the end record counts none", member(), says="directory", count=0)
    one("count-most", "the end record counts 65534", member(), says="directory", count=65534)
    one("split", "disk numbers", member(), says="split", disk=1)
    one("split-count", "fewer entries on this disk", member(), says="split", total=2)
    one("split-member", "a member on disk 3", member(disk=3), says="split")
    one("directory-size", "the directory's size is wrong", member(), says="directory", dir_size=40)
    one("directory-past", "the directory begins past the end", member(), says="directory", dir_begin=10**9)
    one("directory-behind", "bytes between directory and end record", member(), says="directory", behind=b"xyz")
    one("comment-long", "a comment longer than the file", member(), says="end record", comment_size=100)
    one("member-comment-long", "a member's comment longer than the directory", member(comment_size=500), says="directory")
    one("member-name-long", "a member's name longer than the directory", member(c_name_size=500), says="directory")
    one("extra-cut", "an extra field that is cut", member(extra=b"\1\0\x40\0abcd"), says="extra")
    one("zip64-missing", "a saturated size without its zip64 field", member(c_size=0xFFFFFFFF, c_packed=0xFFFFFFFF), says="extra")
    wide = struct.pack("<2H2Q", 1, 16, len(image), len(image))
    one("zip64-whole", "sizes in the zip64 field though they are small: legal", member(packed=0xFFFFFFFF, size=0xFFFFFFFF, extra=wide), 0)
    most = struct.pack("<2H2Q", 1, 16, 2**64 - 1, 2**64 - 1)
    one("zip64-most", "a zip64 size of 2^64 - 1", member(packed=0xFFFFFFFF, size=0xFFFFFFFF, extra=most), says="")
    wrap = struct.pack("<2H3Q", 1, 24, len(image), len(image), 2**64 - 20)
    one("zip64-offset", "a zip64 offset that wraps round", member(c_packed=0xFFFFFFFF, c_size=0xFFFFFFFF, c_extra=wrap, offset=0xFFFFFFFF), says="")
    one("zip64-twice", "two zip64 fields", member(packed=0xFFFFFFFF, size=0xFFFFFFFF, extra=wide + wide), says="extra")

    def end64(**told):
        def make(count, size, begin):
            at = told.get("at", begin + size)
            record = b"PK\6\6" + struct.pack("<Q2H2I4Q", told.get("record", 44), 45, 45, told.get("disk", 0), 0, told.get("count", count),
                                             told.get("count", count), told.get("size", size), told.get("begin", begin))
            return record + b"PK\6\7" + struct.pack("<IQI", 0, at, told.get("disks", 1)) + end_record(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        return make

    one("end64-whole", "a zip64 end record: legal", member(), 0, end=end64())
    one("end64-at", "the zip64 locator points elsewhere", member(), says="zip64", end=end64(at=3))
    one("end64-past", "the zip64 locator points past the end", member(), says="zip64", end=end64(at=2**64 - 4))
    one("end64-count", "a zip64 count of 2^60", member(), says="directory", end=end64(count=2**60))
    one("end64-begin", "a zip64 directory that begins at 2^64 - 1", member(), says="directory", end=end64(begin=2**64 - 1))
    one("end64-size", "a zip64 directory of another size", member(), says="directory", end=end64(size=1))
    one("end64-record", "a zip64 end record that claims to be longer", member(), says="zip64", end=end64(record=100))
    one("end64-disks", "three disks", member(), says="split", end=end64(disks=3))
    npz_scan("zip-empty", "an archive without members", archive([]), says="imgs")
    npz_scan("zip-cut", "cut in the middle", archive([packed()])[:100], says="end record")
    npz_scan("zip-nothing", "an empty file", b"", says="")
    npz_scan("zip-end-alone", "22 bytes of 0xFF", b"\xff" * 22, says="end record")
    npz_scan("zip-deflate-crooked", "a member whose stream has block type 3", archive([Member("imgs.npy", image, 8, Bits().block(3).bytes() + b"\0" * 8)]))
    npz_scan("zip-unused", "a member that nobody reads and that is damaged: legal",
             archive([member(), Member("unused.npy", b"", 8, Bits().block(3).bytes() * 1000, size=10**6)]), 0)
    npz_scan("zip-memory", "600 kB that claim to inflate to 600 MB: more than the memory there is",
             archive([Member("imgs.npy", b"", 8, bytes(620000), size=600 << 20)]), 4, says="memory")


def npy_cases():
    good = voxels()

    def imgs(name, why, data, code=3, says="", options=SEGMENT, **more):
        scan("npy-" + name, why, npz(challenge(imgs=data, **more)), code, ".npz", says, options=options)

    header = lambda t, data=good, **more: npy_text(t, data, **more)
    plain = "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 5, 6), }"
    imgs("whole", "nothing is wrong", npy(good), 0)
    imgs("fortran", "fortran order: legal", npy(good, fortran=True), 0)
    imgs("version-2", "version 2.0: legal", npy(good, version=(2, 0)), 0)
    imgs("version-3", "version 3.0: legal", npy(good, version=(3, 0)), 0)
    imgs("big-endian", "big-endian numbers: legal", npy(struct.pack(">120h", *good), ">i2"), 0)
    imgs("version-0", "version 0.9", npy(good, version=(0, 9)), says="version")
    imgs("version-4", "version 4.0", npy(good, version=(4, 0)), says="version")
    imgs("version-minor", "version 1.7", npy(good, version=(1, 7)), says="version")
    imgs("magic", "the magic is wrong", npy(good, magic=b"\x93NUMPX"), says="npy")
    imgs("header-long", "a header longer than the file", npy(good, size=65000), says="header")
    imgs("header-4gb", "a header of 4 GB", npy(good, version=(2, 0), size=2**32 - 1), says="header")
    imgs("header-none", "a header of no bytes", npy(good, size=0), says="header")
    imgs("cut", "five bytes", npy(good)[:5], says="npy")
    imgs("cut-length", "cut in the header's length", npy(good, version=(2, 0))[:11], says="npy")
    imgs("empty", "no byte", b"", says="npy")
    imgs("data-short", "a byte of data is missing", npy(good[:-1]), says="119 bytes")
    imgs("data-long", "a byte of data too many", npy(good + b"\0"), says="121 bytes")
    imgs("shape-wrap", "2^32 x 2^32 x 1 elements", npy(good, shape=(2**32, 2**32, 1)), says="product")
    imgs("shape-wrap-bytes", "the bytes wrap, the elements do not", npy(good, "<f8", shape=(2**31, 2**31, 1)), says="product")
    imgs("shape-huge", "a dimension of 30 digits", npy(good, shape=(10**30, 1, 1)), says="dimension")
    imgs("shape-18gb", "18 GB are claimed", npy(good, "<f4", shape=(1300, 1300, 2700)), says="")
    imgs("shape-minus", "a dimension of -4", npy(good, shape=(-4, 5, 6)), says="dimension")
    imgs("shape-zero", "no elements", npy(b"", shape=(0, 5, 6)), says="0 elements")
    imgs("shape-zero-huge", "no elements along one axis, 2^62 along two", npy(b"", shape=(0, 2**62, 2**62)), says="0 elements")
    imgs("shape-9", "nine axes", npy(good, shape=(4, 5, 6, 1, 1, 1, 1, 1, 1)), says="dimensions")
    imgs("shape-2", "two axes", npy(good, shape=(20, 6)), says="2 axes")
    imgs("shape-scalar", "a scalar", npy(b"\1", shape=()), says="0 axes")
    imgs("shape-number", "a shape that is a number", header(plain.replace("(4, 5, 6)", "120")), says="tuple")
    imgs("shape-brackets", "a number in brackets", header(plain.replace("(4, 5, 6)", "(120)")), says="tuple")
    imgs("shape-float", "a shape of fractions", header(plain.replace("(4, 5, 6)", "(4.0, 5, 6)")), says="comma")
    imgs("shape-octal", "a dimension that begins with 0", header(plain.replace("(4, 5, 6)", "(04, 5, 6)")), says="zero")
    imgs("objects", "an image of objects", objects(pickle(b"N")), says="imgs")
    imgs("complex", "an image of complex numbers", npy(good * 8, "<c8"), says="complex")
    imgs("text", "an image of texts", npy(good * 4, "<U1"), says="text")
    imgs("record", "an image of records", header("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (4, 5, 6), }", good * 4), says="records")
    imgs("type-unknown", "type |u3", npy(good, "|u3"), says="u3")
    imgs("type-order", "a 4-byte type without byte order", npy(good * 4, "|f4"), says="f4")
    imgs("type-long", "a type of a hundred letters", npy(good, "|" + "u" * 100), says="too long")
    imgs("dict-key", "an unknown key", header(plain.replace("}", "'more': True, }")), says="more")
    imgs("dict-twice", "a key twice", header(plain.replace("}", "'descr': '|u1', }")), says="twice")
    imgs("dict-missing", "no descr", header("{'fortran_order': False, 'shape': (4, 5, 6), }"), says="descr")
    imgs("dict-order", "fortran_order 0", header(plain.replace("False", "0")), says="fortran_order")
    imgs("dict-open", "a dictionary without an end", header(plain.replace("}", "")), says="header")
    imgs("dict-call", "a call where the shape should be", header(plain.replace("(4, 5, 6)", "exit()")), says="tuple")
    imgs("dict-behind", "text behind the dictionary", header(plain + " + x"), says="more text")
    imgs("dict-escape", "an escape in a text", header(plain.replace("'|u1'", "'|u\\x31'")), says="plain")
    imgs("dict-brackets", "fifty thousand brackets", header("(" * 50000, good), says="dictionary")
    imgs("dict-tuple-deep", "a tuple of tuples", header(plain.replace("(4, 5, 6)", "(" * 30000)), says="dimension")
    n = len(good)
    imgs("nan", "a voxel that is NaN", npy(struct.pack("<120f", *([1.0] * (n - 1) + [NAN])), "<f4"), says="voxel")
    imgs("inf", "a voxel that is infinite", npy(struct.pack("<120d", *([1.0] * (n - 1) + [INF])), "<f8"), says="voxel")
    imgs("huge", "a voxel beyond float32", npy(struct.pack("<120d", *([1.0] * (n - 1) + [1e300])), "<f8"), says="voxel")
    imgs("half-nan", "a half that is NaN", npy(b"\0\x3c" * (n - 1) + b"\1\x7e", "<f2"), says="voxel")
    spacing = lambda *v: npy(struct.pack("<%dd" % len(v), *v), "<f8", (len(v),))
    for name, v in (("nan", (1, NAN, 1)), ("zero", (1, 1, 0)), ("minus", (-1, 1, 1)), ("inf", (1, INF, 1)), ("two", (1, 1)), ("four", (1, 1, 1, 1))):
        imgs("spacing-" + name, "a spacing of %s" % (v,), npy(good), says="spacing", spacing=spacing(*v))
    imgs("spacing-object", "a spacing of objects", npy(good), says="spacing", spacing=objects(pickle(b"N")))
    imgs("long-axis", "40000 voxels along x, which the NIfTI-1 of the result cannot hold", npy(bytes(range(200)) * 200, shape=(1, 1, 40000)),
         says="40000", options=["-w", "W", "--box", "1,0,0,5,0,0", "-o", "out.nii.gz"])
    CASES[-1].names[0] = "out.nii.gz"


# ---- pickles, in cases of the challenge -----------------------------------------------------------------------------------

def predict(name, why, arrays, code=3, says=""):
    file = "in/%s.npz" % name
    add(name, why, {file: npz(arrays)}, ["predict", "in", "out", "-w", "W"], code, [file, says] if code else None)


def pickle_cases():
    def raw(name, why, body, code=3, says="pickle"):
        predict("pickle-" + name, why, challenge(boxes=objects(body)), code, says)

    whole = array_of((1,), list_of(box_dict()))
    raw("whole", "nothing is wrong", pickle(whole), 0)
    raw("empty", "no byte", b"")
    raw("no-stop", "no STOP", pickle(whole)[:-1], says="STOP")
    raw("behind", "bytes behind the STOP", pickle(whole) + b"N.", says="follow")
    raw("stop-alone", "STOP with an empty stack", pickle(b""), says="STOP")
    raw("stop-two", "STOP with two things on the stack", pickle(b"NN"), says="2 items")
    raw("protocol-6", "protocol 6", pickle(whole, 6), says="protocol")
    raw("protocol-late", "the protocol in the middle", pickle(b"\x80\3" + whole), says="protocol")
    raw("mark-open", "a mark that nobody takes", pickle(b"(" + whole))
    raw("mark-none", "a tuple without a mark", pickle(b"Nt"), says="mark")
    raw("frame", "a frame longer than the file", pickle(b"\x95" + struct.pack("<Q", 2**40) + whole, 4), says="bytes")
    raw("text-long", "a text of 4 GB", pickle(b"X\xff\xff\xff\xff"), says="bytes")
    raw("text-long-8", "a text of 2^64 - 1 bytes", pickle(b"\x8d" + b"\xff" * 8, 4), says="bytes")
    raw("long-long", "a number of 2 GB", pickle(b"\x8b\xff\xff\xff\x7f"), says="bytes")
    raw("opcode", "opcode 0x7F", pickle(b"\x7f"), says="0x7f")
    raw("pop", "POP, which no pickler writes", pickle(b"N0"), says="0x30")
    raw("persistent-line", "a persistent id as text", pickle(b"Pkey\n"), says="0x50")
    raw("extension", "a registered extension", pickle(b"\x82\1"), says="0x82")
    raw("buffer", "an out-of-band buffer", pickle(b"\x97", 5), says="0x97")
    for module, function in (("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "getattr"),
                             ("subprocess", "Popen"), ("numpy", "load"), ("torch", "load"), ("pickle", "loads"), ("numpy.core.multiarray", "fromfile")):
        raw("global-%s-%s" % (module.replace(".", "-"), function), "calls %s.%s" % (module, function),
            pickle(named(module, function) + tuple_of(text("x")) + b"R"), says="%s.%s" % (module, function))
    raw("global-stack", "os.system by STACK_GLOBAL", pickle(text("os") + text("system") + b"\x93" + tuple_of(text("x")) + b"R", 4), says="os.system")
    raw("global-long", "a global with a name of a megabyte", pickle(named("a" * 500000, "b" * 500000)), says="global")
    raw("global-lines", "a global whose name has control characters", pickle(text("a\n\x1b[2J") + text("b\r\n") + b"\x93", 4), says="global")
    raw("global-cut", "a global without its second line", pickle(b"cnumpy\n")[:-1], says="end")
    raw("call-number", "calls a number", pickle(b"K\1)R"), says="not a function")
    raw("call-storage", "calls torch.FloatStorage", pickle(named("torch", "FloatStorage") + b")R"), says="called")
    raw("call-arguments", "arguments that are no tuple", pickle(named("numpy", "dtype") + b"NR"), says="tuple")
    raw("new-object", "an object of a class that takes none", pickle(named("numpy", "dtype") + b")\x81"), says="class")
    raw("build-number", "a state for a number", pickle(b"K\1Nb"), says="state")
    raw("set-list", "items for a number", pickle(b"K\1(NNe"), says="container")
    raw("dict-odd", "a dictionary with a key without a value", pickle(b"}(K\1u"), says="key")
    raw("dict-key-list", "a list as a key", pickle(b"}(]Nu"), says="key")
    raw("memo-unset", "memo entry 5, never written", pickle(b"h\5"), says="memo")
    raw("memo-bomb", "memo entry 4294967295 is written", pickle(b"Nr\xff\xff\xff\xff"), says="memo")
    raw("memo-line", "memo entry -1", pickle(b"Np-1\n"), says="memo")
    raw("doubling", "tuples doubled sixty times: 2^60 paths", pickle(b"N" + b"q\0h\0\x86" * 60, 2), says="")
    raw("doubling-deep", "tuples doubled a hundred times: too deep", pickle(b"N" + b"q\0h\0\x86" * 100, 2), says="deeper")
    raw("deep-lists", "ten thousand lists in each other", pickle(b"]" * 10000 + b"a" * 9999), says="deeper")
    raw("deep-marks", "a million marks", pickle(b"(" * 1000000))
    raw("deep-tuples", "a million tuples in each other", pickle(b"N" + b"\x85" * 1000000), says="deeper")
    raw("cycle", "a list that contains itself", pickle(b"]q\0h\0a"), says="contains itself")
    raw("encode-bomb", "half a megabyte of text, encoded fifty thousand times from the memo",
        pickle(text("a" * 500000) + b"q\0" + text("latin1") + b"q\1" + named("_codecs", "encode") + b"q\2" + b"h\2h\0h\1\x86R" * 50000, 2), says="more text")
    raw("encode-bomb-latin", "the same with text that is not ASCII",
        pickle(text("é" * 250000) + b"q\0" + text("latin1") + b"q\1" + named("_codecs", "encode") + b"q\2" + b"h\2h\0h\1\x86R" * 50000, 2), says="more text")
    raw("encode-codec", "bytes encoded as utf-7", pickle(named("_codecs", "encode") + tuple_of(text("a"), text("utf-7")) + b"R"), says="codec")
    raw("float-text", "a float that is text", pickle(b"Fnot a number\n"), says="float")
    raw("float-long", "a float of a megabyte", pickle(b"F" + b"1" * 1000000 + b"\n"), says="float")
    raw("int-text", "a number with letters", pickle(b"I12x\n"), says="number")
    raw("unicode-escape", "a malformed escape", pickle(b"V\\u12\n", 0), says="escape")
    raw("unicode-far", "a character beyond Unicode", pickle(b"V\\UFFFFFFFF\n", 0), says="")
    raw("array-short", "an array of two with one element", pickle(array_of((2,), list_of(box_dict()))), says="needs 2")
    raw("array-wrap", "an array whose shape wraps to 1", pickle(array_of((2**33, 2**31), list_of(box_dict()))), says="overflows")
    raw("array-shape-minus", "an array of -1", pickle(array_of((-1,), list_of(box_dict()))), says="size")
    raw("array-axes", "an array of nine axes", pickle(array_of((1,) * 9, list_of(box_dict()))), says="dimensions")
    raw("array-unbuilt", "an array without a state", pickle(named("numpy.core.multiarray", "_reconstruct") +
        tuple_of(named("numpy", "ndarray"), tuple_of(number(0)), b"C\1b") + b"R"), says="content")
    raw("array-self", "an array that is its own element", pickle(named("numpy.core.multiarray", "_reconstruct") + tuple_of(named("numpy", "ndarray"),
        tuple_of(number(0)), b"C\1b") + b"Rq\1" + tuple_of(number(1), tuple_of(number(1)), dtype_of(), b"\x89", list_of(b"h\1")) + b"b"), says="itself")
    raw("array-state", "an array with a state of two", pickle(array_of((1,), b"N", make=named("numpy.core.multiarray", "_reconstruct") +
        tuple_of(named("numpy", "ndarray"), tuple_of(number(0)), b"C\1b") + b"R" + tuple_of(b"N", b"N") + b"b")), says="state")
    raw("array-subclass", "_reconstruct of something else", pickle(named("numpy.core.multiarray", "_reconstruct") +
        tuple_of(named("torch", "FloatStorage"), tuple_of(number(0)), b"C\1b") + b"R"), says="_reconstruct")
    raw("dtype-fields", "a type with fields", pickle(array_of((1,), list_of(box_dict()), dtype_of(fields=b"N" + tuple_of(text("a")) + b"N"))), says="fields")
    raw("dtype-unknown", "type V8", pickle(array_of((1,), list_of(box_dict()), dtype_of("V8"))), says="V8")
    raw("dtype-order", "an unknown byte order", pickle(array_of((1,), list_of(box_dict()), dtype_of(order="?"))), says="order")
    raw("scalar-size", "a scalar of three bytes", pickle(named("numpy.core.multiarray", "scalar") + tuple_of(dtype_of("i8", "<"), b"C\3abc") + b"R"), says="3 bytes")
    raw("root-number", "no array but a number", pickle(b"K\1"), says="no array")
    raw("root-dict", "no array but a dictionary", pickle(box_dict()), says="no array")
    raw("root-numbers", "an array of numbers where objects should be", pickle(array_of((1,), b"C\10" + b"\1" * 8, dtype_of("i8", "<"))), says="")
    raw("tensor-here", "a torch tensor in a numpy pickle", pickle(tensor_of(storage_of("0", 4), (2, 2))), says="")


def challenge_cases():
    def case(name, why, code=3, says="", **arrays):
        predict("case-" + name, why, challenge(**arrays), code, says)

    clicks = lambda *entries: boxes(*entries)
    point = lambda *v: list_of(*(number(k) for k in v))
    case("whole", "nothing is wrong", 0)
    case("no-prompts", "neither boxes nor clicks", says="prompts", boxes=None)
    case("no-spacing", "no spacing counts as 1 mm", 0, spacing=None)
    case("no-image", "no image", says="imgs", imgs=None)
    case("boxes-empty", "no classes", says="prompts", boxes=npy(b"", "<f8", (0,)))
    case("boxes-numbers", "boxes that are numbers", says="boxes", boxes=npy(struct.pack("<6d", *range(6)), "<f8", (6,)))
    case("boxes-2d", "boxes of two axes", says="axes", boxes=objects(pickle(array_of((1, 1), list_of(box_dict()))), "(1, 1)"))
    for key in ("z_min", "z_max", "z_mid_x_min", "z_mid_y_max"):
        case("box-no-" + key.replace("_", "-"), "a box without " + key, says=key, boxes=boxes(box_dict(**{key: None})))
    case("box-text", "a text for a number", says="z_min", boxes=boxes(box_dict(z_min=text("1"))))
    case("box-half", "half a voxel", says="z_min", boxes=boxes(box_dict(z_min=b"G" + struct.pack(">d", 0.5))))
    case("box-nan", "NaN for a number", says="z_min", boxes=boxes(box_dict(z_min=b"G" + struct.pack(">d", NAN))))
    case("box-1e30", "1e30 for a number", says="z_min", boxes=boxes(box_dict(z_min=b"G" + struct.pack(">d", 1e30))))
    case("box-huge", "2^70 for a number", says="z_min", boxes=boxes(box_dict(z_min=2**70)))
    case("box-most", "2^63 - 1 for a number", says="class 1", boxes=boxes(box_dict(z_max=2**63 - 1)))
    case("box-least", "-2^63 for a number", says="class 1", boxes=boxes(box_dict(z_min=-2**63)))
    case("box-outside", "a box that reaches out of the scan", says="class 1", boxes=boxes(box_dict(z_max=NZ)))
    case("box-empty", "a box whose ends are the wrong way round", says="class 1", boxes=boxes(box_dict(z_min=3, z_max=1)))
    case("box-list", "a box that is a list", says="class 1", boxes=boxes(list_of(number(1))))
    case("box-none", "a class without a box and without clicks is empty: legal", 0, boxes=boxes(b"N"))
    case("box-key-twice", "a key twice: Python keeps the last", 0, boxes=boxes(b"}(" + text("z_min") + text("x") + box_dict()[2:]))
    case("clicks-list", "clicks that are a list", says="dictionary", clicks=clicks(list_of(number(1))))
    case("clicks-fg-number", "fg that is a number", says="fg", clicks=clicks(dict_of(fg=number(3))))
    case("clicks-two", "a click of two numbers", says="fg click 1", clicks=clicks(dict_of(fg=list_of(point(1, 2)))))
    case("clicks-text", "a click of texts", says="fg click 1", clicks=clicks(dict_of(fg=list_of(list_of(text("a"), text("b"), text("c"))))))
    case("clicks-outside", "a click outside of the scan", says="class 1", clicks=clicks(dict_of(fg=list_of(point(1, 1, NX)))))
    case("clicks-minus", "a click at -1", says="class 1", clicks=clicks(dict_of(bg=list_of(point(1, 1, -1)))))
    case("clicks-most", "a click at 2^63 - 1", says="class 1", clicks=clicks(dict_of(bg=list_of(point(1, 2**63 - 1, 1)))))
    case("clicks-many", "a hundred thousand clicks", says="class 1", clicks=clicks(dict_of(fg=list_of(*[point(1, 1, 1)] * 100000))))
    case("clicks-classes", "two classes of clicks, one of boxes", says="classes", clicks=clicks(dict_of(), dict_of()))
    case("classes-many", "70000 classes", says="classes", boxes=boxes(*[b"N"] * 70000))
    case("order-word", "a click of the kind up", says="fg, bg or None", clicks=clicks(dict_of(fg=list_of(point(1, 1, 1)))),
         clicks_order=boxes(list_of(text("up"))))
    case("order-number", "a click of the kind 1", says="fg, bg or None", clicks=clicks(dict_of(fg=list_of(point(1, 1, 1)))),
         clicks_order=boxes(list_of(number(1))))
    case("order-classes", "an order for two classes", says="classes", clicks_order=boxes(list_of(text("fg")), list_of(text("fg"))))
    case("order-more", "an order of more clicks than there are: legal", 0, clicks=clicks(dict_of(fg=list_of(point(1, 1, 1)))),
         clicks_order=boxes(list_of(*[text("fg")] * 9)))
    case("order-text-long", "an order of texts of 10^6 letters", says="clicks_order", clicks_order=npy(b"", "<U1000000", (1,)))
    case("order-text-wrap", "an order of texts whose bytes wrap", says="clicks_order", clicks_order=npy(b"", "<U4", (2**60, 2)))
    case("previous-shape", "prev_pred of another shape", says="prev_pred", prev_pred=npy(voxels()[:60], shape=(2, 5, 6)))
    case("classes-most", "65,535 classes of which one has a box and one a voxel of prev_pred: legal, and no work for the others", 0,
         imgs=npy(bytes(range(1, 65)) * 1000, shape=(32, 40, 50)), prev_pred=npy(b"\0" * 63999 + b"\7", shape=(32, 40, 50)),
         boxes=boxes(box_dict(), *[b"N"] * 65534))
    case("classes-beyond", "65,536 classes", says="got 65536 classes, at most 65535 fit", boxes=boxes(*[b"N"] * 65536))
    case("previous-object", "prev_pred of objects", says="prev_pred", prev_pred=objects(pickle(b"N")))
    case("previous-nan", "prev_pred of NaNs has no label: legal", 0, prev_pred=npy(struct.pack("<120f", *[NAN] * 120), "<f4"), boxes=boxes(b"N"))


# ---- PyTorch checkpoints and safetensors ----------------------------------------------------------------------------------

def convert(name, why, data, code=3, says="", ending=".pth", options=None):
    file = name + ending
    add(name, why, {file: data}, ["convert", file, "-o", "out.segfm", *(TORCH_OPTIONS if options is None else options)], code,
        [file, says] if code else None)


NORM = "image_encoder.norm.weight"
QKV = "image_encoder.blocks.0.attn.qkv.weight"


def change_one(which, **told):
    def change(name, fields):
        if name == which:
            fields.update(told)
    return change


def torch_cases():
    def one(name, why, /, code=3, says="", which=NORM, **told):
        convert("torch-" + name, why, torch(change=change_one(which, **told)), code, says)

    def whole(name, why, data, code=3, says="", **more):
        convert("torch-" + name, why, data, code, says, **more)

    whole("whole", "nothing is wrong", torch(), 0)
    whole("packed", "an archive that was compressed afterwards: legal", torch(method=8), 0)
    whole("big-endian", "numbers of a big-endian machine: read as such", torch(byteorder=b"big"), 0)
    whole("byteorder", "byteorder is middle", torch(byteorder=b"middle"), says="byteorder")
    whole("no-byteorder", "no byteorder, as before torch 2.1: legal", torch(byteorder=None), 0)
    whole("no-pickle", "no data.pkl", archive([Member("archive/data/0", b"1234")]), says="data.pkl")
    whole("two-pickles", "two data.pkl", torch(extra=[Member("other/data.pkl", b".")]), says="data.pkl")
    whole("layout-b", "under the key model: legal", torch(wrap=lambda d: b"}(" + text("model") + d + b"u"), 0)
    whole("layout-c", "under the key model_state_dict: legal", torch(wrap=lambda d: b"}(" + text("model_state_dict") + d + b"u"), 0)
    whole("list", "a list instead of a dictionary", torch(wrap=lambda d: b"](" + d + b"e"), says="dictionary")
    whole("empty-dict", "a dictionary of nothing", torch(wrap=lambda d: b"}"), says="missing")
    whole("legacy", "a file of torch before 1.6", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + b"\0" * 100, says="1.6")
    whole("global", "posix.system in data.pkl", torch(pkl=pickle(named("posix", "system") + tuple_of(text("true")) + b"R", 2)), says="posix.system")
    whole("no-file", "neither zip nor safetensors", b"hello, world" * 10, says="neither")
    whole("no-byte", "an empty file", b"", says="neither")
    one("key-number", "a tensor's key is a number", says="", ops=tensor_of(tuple_of(text("storage"), named("torch", "FloatStorage"), number(1),
        text("cpu"), number(4)) + b"Q", (4,)))
    one("offset", "an offset one past the storage's end", says="past the end", offset=1)
    one("offset-minus", "an offset of -1", says="offset", offset=-1)
    one("offset-most", "an offset of 2^63 - 1", says="past the end", offset=2**63 - 1)
    one("stride", "a stride that leaves the storage", says="past the end", stride=(2,))
    one("stride-most", "a stride of 2^62: the last element's place wraps", says="past the end", which=QKV, stride=(2**62, 1))
    one("stride-zero", "a stride of 0: one number four times, more than the storage has", says="more elements", stride=(0,), elements=1,
        raw=floats([1.0]))
    one("stride-minus", "a stride of -1", says="size", stride=(-1,))
    one("stride-count", "two strides for one axis", says="different lengths", stride=(1, 1))
    one("transposed", "strides the other way round: legal, followed", 0, which=QKV, stride=(1, 12))
    one("shape", "a vector of five", says="(5)", shape=(5,), elements=5, raw=floats([1.0] * 5))
    one("shape-axes", "a matrix for a vector", says="(2,2)", shape=(2, 2))
    one("shape-wrap", "a shape of 2^33 x 2^31", says="", shape=(2**33, 2**31), stride=(0, 0))
    one("shape-nine", "nine axes", says="dimensions", shape=(1,) * 8 + (4,))
    one("shape-none", "no elements", says="(0)", shape=(0,))
    one("storage-missing", "the storage is not in the archive", says="lacks", raw=None)
    one("storage-short", "the storage is a byte short", says="15 bytes", raw=floats([1.0] * 4)[:-1])
    one("storage-long", "the storage is longer", says="20 bytes", raw=floats([1.0] * 5))
    one("storage-huge", "a storage of 2^62 elements", says="impossible", elements=2**62)
    one("storage-2-61", "a storage of 2^61 elements", says="", elements=2**61)
    one("storage-minus", "a storage of -1 elements", says="impossible", elements=-1)
    one("storage-kind", "a storage of another type than its bytes", says="bytes", kind="DoubleStorage")
    one("storage-whole", "whole numbers where fractions should be", says="int32", kind="IntStorage")
    one("storage-unknown", "torch.QInt8Storage", says="QInt8Storage", kind="QInt8Storage")
    one("storage-path", "a storage whose key leads out of the archive", says="lacks", ops=tensor_of(storage_of("../data.pkl", 4), (4,)))
    one("storage-key-zero", "a storage whose key has a zero byte", says="lacks", ops=tensor_of(storage_of(b"1\0", 4), (4,)))
    one("storage-key-long", "a storage whose key has a thousand letters", says="lacks", ops=tensor_of(storage_of("k" * 1000, 4), (4,)))
    one("storage-shared", "two tensors in one storage: legal", 0, key="1", raw=None, elements=24)
    one("nan", "a weight that is NaN, named", says=NORM, raw=floats([1.0, NAN, 1.0, 1.0]))
    one("inf", "a weight that is infinite, named", says=NORM, raw=floats([1.0, 1.0, 1.0, -INF]))
    one("double-huge", "a double that no float holds, named", says=NORM, kind="DoubleStorage", raw=struct.pack("<4d", 1, 1, 1, 1e300))
    one("not-a-tensor", "a number for a tensor", says="not a tensor", ops=number(3), raw=None)
    more = lambda name: torch(tensors() + [("x", (4,))], change=lambda n, f: f.update(name=name) if n == "x" else None)
    whole("name-unknown", "an unknown tensor", more("model.banana"), says="banana")
    whole("name-control", "an unknown tensor with a line end and an escape sequence in its name", more("model.zz\n\x1b[2Jbanana"), says="not one of")
    one("name-missing", "a tensor of another name", says=NORM, name="model.image_encoder.norm.weigth", which=NORM)
    one("block-9999", "a block of number 999999999999", says="", name="model.image_encoder.blocks.999999999999.norm1.weight")
    whole("name-twice", "one tensor twice", torch(tensors() + [(NORM, (4,))], change=lambda n, f: f.update(key=f["key"] + "x")), says="twice")
    whole("name-both-prefixes", "a tensor with and without its prefix", torch(tensors() + [(NORM, (4,))], change=lambda n, f:
          f.update(name="module." + n) if int(f["key"]) >= len(tensors()) else None), says="twice")
    whole("missing-last", "the last tensor is missing", torch(tensors()[:-1]), says="missing")
    many = lambda: torch(tensors(dict(MICRO, mask_tokens=30, hyper_layers=1000)))
    whole("many", "60000 tensors: legal, but nothing may take time that grows with the square of their number", many, 0)
    whole("options-none", "sizes that the tensors contradict", torch(), says="--patch", options=[])
    whole("options-heads", "three heads do not divide four", torch(), says="heads", options=TORCH_OPTIONS[:4] + ["--heads", "3", "--decoder-heads", "1"])
    whole("memo-tensor", "one tensor for all, from the memo", torch(change=lambda n, f: f.update(ops=b"h\1" if f["key"] != "0" else
          tensor_of(storage_of("0", 32), (1, 8, 4)) + b"q\1")), says="")
    own = dict(spatial=tuple_of(*map(number, (2, 4, 6))), patch=tuple_of(*map(number, (1, 2, 3))), heads=number(2), decoder_heads=number(1),
               variant=text("upstream"), provenance=text("test"))
    about = lambda **told: torch(wrap=lambda d: b"}(" + text("model_state_dict") + d + text("segfm") + dict_of(**{**own, **told}) + b"u")
    whole("own", "an exported checkpoint: legal", about(), 0, options=[])
    whole("own-variant", "an unknown variant", about(variant=text("other")), says="variant", options=[])
    whole("own-spatial", "two sizes for three", about(spatial=tuple_of(number(2), number(4))), says="spatial", options=[])
    whole("own-heads", "2^21 heads", about(heads=number(1 << 21)), says="heads", options=[])
    whole("own-text", "a provenance that is a number", about(provenance=number(1)), says="provenance", options=[])
    whole("own-zero", "a zero byte in the provenance", about(provenance=text("a\0b")), says="provenance", options=[])
    whole("own-frame", "a frame of 0", about(frame=number(0)), says="frame", options=[])
    legal_line = about(provenance=text("a line\nand another \x1b[2J"))
    whole("own-lines", "line ends in the provenance: legal, `info` shows them as ?", legal_line, 0, options=[])


def safetensors_cases():
    def one(name, why, /, code=3, says="", which=NORM, **told):
        convert("safetensors-" + name, why, safetensors(change=change_one(which, **told)), code, says, ".safetensors")

    def raw(name, why, header, data=b"", code=3, says="", **more):
        convert("safetensors-" + name, why, safetensors_text(header, data, **more), code, says, ".safetensors")

    def whole(name, why, data, code=3, says=""):
        convert("safetensors-" + name, why, data, code, says, ".safetensors")

    whole("whole", "nothing is wrong", safetensors(), 0)
    whole("metadata", "metadata: legal", safetensors(metadata='"__metadata__":{"a":"b\\n","c":"\\u00e9"}'), 0)
    wrap = '{"x":{"dtype":"F32","shape":[4194305,4194305,211106198978564],"data_offsets":[0,%d]}}'
    raw("wrap", "a shape whose bytes wrap round to sixteen", wrap % 16, b"\0" * 16, says="overflows")
    raw("wrap-none", "the same with no data", wrap % 0, says="overflows")
    raw("shape-2-64", "a dimension of 2^64", '{"x":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,0]}}', says="overflows")
    raw("zero-wrap", "a dimension of 0 beside two of 2^63: no bytes", '{"x":{"dtype":"U8","shape":[0,9223372036854775808,9223372036854775808],"data_offsets":[0,0]}}',
        says="")
    one("offsets-other", "offsets that do not match the shape", says="match", shape=[5])
    one("offsets-swapped", "offsets the wrong way round", says="outside", begin=10**6, end=0)
    one("offsets-past", "offsets past the end of the file", says="outside", end=10**9)
    one("offsets-most", "offsets of 2^64 - 1", says="outside", begin=2**64 - 17, end=2**64 - 1)
    one("dtype", "type F31", says="type", dtype="F31")
    one("dtype-whole", "whole numbers where fractions should be", says="int32", dtype="I32")
    one("dtype-f8", "8-bit floats", says="type", dtype="F8_E4M3")
    one("dtype-size", "a type of half the bytes", says="match", dtype="F16")
    one("shape-minus", "a dimension of -4", says="whole number", shape=[-4])
    one("shape-nine", "nine dimensions", says="dimensions", shape=[4] + [1] * 8)
    more = lambda name: safetensors(tensors() + [("x", (4,))], change=lambda n, f: f.update(name=name) if n == "x" else None)
    whole("name-unknown", "an unknown tensor", more("banana"), says="banana")
    whole("name-control", "an unknown tensor whose name has DEL and C1 bytes", more("zz\x7f\u009b2Jx"), says="not one of")
    whole("name-escape", "a name with an escape", more("a\\u0041"), says="escapes")
    whole("name-empty", "a tensor without a name", more(""), says="not one of")
    whole("name-long", "a name of a hundred thousand letters", more("zz" * 50000), says="not one of")
    whole("name-twice", "one tensor twice", safetensors(tensors() + [(NORM, (4,))]), says="twice")
    whole("missing", "a tensor is missing", safetensors(tensors()[1:]), says="missing")
    whole("nan", "a weight that is NaN, named", safetensors(change_data=lambda n, v: [NAN] + v[1:] if n == NORM else v), says=NORM)
    whole("inf", "a weight that is infinite, named", safetensors(change_data=lambda n, v: v[:-1] + [INF] if n == NORM else v), says=NORM)
    good = safetensors()
    whole("gap", "a byte behind the last tensor", good + b"\0", says="data")
    whole("cut", "the last byte is missing", good[:-1], says="")
    two = '{"a":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]},"b":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}}'
    raw("overlap", "two tensors overlap", two % (4, 0, 4, 4, 2, 6), b"\0" * 6, says="overlaps")
    raw("overlap-same", "two tensors in one place", two % (4, 0, 4, 4, 0, 4), b"\0" * 4, says="overlaps")
    raw("hole", "a hole between two tensors", two % (4, 0, 4, 4, 6, 10), b"\0" * 10, says="gap")
    raw("header-long", "a header longer than the file", "{}", size=10**6, says="")
    raw("header-2-63", "a header of 2^63 bytes", "{}", size=2**63, says="")
    raw("header-most", "a header of 2^64 - 1 bytes", "{}", size=2**64 - 1, says="")
    raw("header-short", "a header cut by its length", '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', size=20, says="")
    raw("json-list", "a list for the header", "[]" + " " * 20, says="neither")
    raw("json-behind", "something behind the object", "{} x", says="follows")
    raw("json-comma", "a comma too many", '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},}', says="")
    raw("json-deep", "a hundred thousand brackets", '{"a":{"dtype":"U8","shape":' + "[" * 100000, says="whole number")
    raw("json-member", "a member too many", '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}', says="member")
    raw("json-member-twice", "a member twice", '{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}', says="twice")
    raw("json-member-missing", "no shape", '{"a":{"dtype":"U8","data_offsets":[0,0]}}', says="lacks")
    raw("json-offsets-one", "one offset", '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}}', says="")
    raw("json-number", "a fraction for a dimension", '{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}', b"\0", says="")
    raw("json-number-zero", "a dimension of 01", '{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}', b"\0", says="begins with 0")
    raw("json-control", "a line end in a name", '{"a\nb":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', says="control")
    raw("json-text-open", "a name without an end", '{"aaaaaaaaaaaaaaaaaaa', says="end")
    raw("metadata-twice", "metadata twice", '{"__metadata__":{},"__metadata__":{}}', says="twice")
    raw("metadata-key-twice", "a key of the metadata twice", '{"__metadata__":{"a":"1","a":"2"}}', says="twice")
    raw("metadata-number", "a number in the metadata", '{"__metadata__":{"a":1}}', says="")
    raw("empty", "no tensors", "{}", says="missing")


# ---- our weights format ---------------------------------------------------------------------------------------------------

def weights_cases():
    def one(name, why, data, code=3, says="", command=None):
        file = "weights-%s.segfm" % name
        files = {file: data, "scan.nii": nifti1()}
        arguments = ["info", file] if command is None else command(file)
        add("weights-" + name, why, files, arguments, code, [file, says] if code else None)

    segment = lambda file: ["segment", "-i", "scan.nii", "-w", file, "--box", BOX, "--click", "2,2,2,+", "-o", "out.nii"]
    export = lambda file: ["convert", file, "-o", "out.pth"]
    session = lambda file: ["session", "-w", file]
    train = lambda file: ["train", "--init", file, "--out", "run", "--pairs", "list.tsv"]
    one("whole", "nothing is wrong", weights(), 0)
    one("runs", "nothing is wrong", weights(), 0, command=segment)
    one("empty", "an empty file", b"", says="0 bytes")
    one("magic", "the magic is wrong", weights(magic=b"\x89SFM\n\x1a\n\0"), says="first 8 bytes")
    one("magic-text", "a transfer has rewritten line ends", weights().replace(b"\r\n", b"\n", 1), says="first 8 bytes")
    one("version", "version 2", weights(version=2), says="version is 2")
    one("cut-fixed", "cut in the fixed part", weights()[:63], says="63 bytes")
    one("cut-table", "cut in the table", weights()[:1000], says="1000 bytes")
    one("cut-last", "the last byte is missing", weights()[:-1], says="bytes")
    one("longer", "64 bytes too many, not in the header's number", weights() + b"\0" * 64, says="bytes")
    one("tail", "64 bytes too many, with the header's number", weights(tail=b"\0" * 64), says="ends at")
    one("header-small", "a header of 64 bytes", weights(header_bytes=64), says="header")
    one("header-most", "a header of 4 GB", weights(header_bytes=2**32 - 64), says="header")
    one("header-odd", "a header that is no multiple of 64", weights(header_bytes=17000), says="header")
    one("config-most", "a configuration of 4 GB", weights(config_bytes=2**32 - 1), says="header")
    one("config-short", "a configuration of 92 bytes", weights(config_bytes=92, provenance=b"made by a test 123\0"), says="")
    one("config-none", "a configuration of no bytes", weights(config_bytes=0), says="")
    one("texts-most", "two texts of 4 GB", weights(variant_bytes=2**32 - 1, provenance_bytes=2**32 - 1), says="header")
    one("count-most", "2^32 - 1 tensors", weights(count=2**32 - 1), says="header")
    one("count-wrap", "tensors whose table would wrap 32 bits", weights(count=21474837), says="header")
    one("count-none", "no tensors", weights(list_=[]), says="")
    one("reserved", "a reserved byte is 1", weights(reserved=b"\0" * 15 + b"\1"), says="padding")
    one("extra-zero", "a later writer's number that says nothing: legal", weights(extra_config=b"\0" * 8), 0)
    one("extra-set", "a later writer's number that says something", weights(extra_config=b"\0" * 4 + b"\1\0\0\0"), says="padding")
    one("frame-most", "a frame of 4294967295 percent", weights(extra_config=b"\xff" * 4), says="frame")
    one("file-bytes", "another size of the file", weights(file_bytes=2**63), says="bytes")
    for key, value in (("dim", 0), ("dim", 5), ("dim", 2**20 + 2), ("depth", 0), ("depth", 1025), ("heads", 0), ("heads", 3), ("patch_x", 0),
                       ("patch_y", 3), ("spatial_z", 0), ("spatial_z", 2**32 - 1), ("decoder_heads", 3), ("mask_tokens", 0), ("topk", 0),
                       ("gru_hidden", 0), ("up1", 2**31), ("hyper_layers", 5000), ("text_dim", 2**21)):
        one("config-%s-%d" % (key.replace("_", "-"), value), "%s is %d" % (key, value), weights(list_=tensors(),
            change=lambda out, k=key, v=value: struct.pack_into("<I", out, 64 + 4 * CONFIG.index(k), v)), says="configuration")
    one("config-other", "another width than the tensors'", weights(list_=tensors(), change=lambda out: struct.pack_into("<I", out, 64 + 24, 8)), says="position_embeddings")
    one("config-larger", "a block more than there is", weights(list_=tensors(), change=lambda out: struct.pack_into("<I", out, 64 + 28, 2)), says="need")
    one("config-huge", "the largest window and width: 2^20 x 2^20 numbers", weights(list_=tensors(), change=lambda out: struct.pack_into("<7I", out, 64, 2**10, 2**5, 2**5, 1, 1, 1, 2**20)), says="")

    def entry(name, why, says="", which=0, /, **told):
        def change(i, e):
            if i == which:
                e.update({k: v(e[k]) if callable(v) else v for k, v in told.items()})
        one("entry-" + name, why, weights(change_entry=change), says=says)

    entry("type", "type 3", "type is 3", 0, code=3)
    entry("type-half", "float16 with the bytes of float32", "bytes", 0, code=2)
    entry("dims", "no dimensions", "dimensions", 0, ndim=0)
    entry("dims-most", "2^32 - 1 dimensions", "dimensions", 0, ndim=2**32 - 1)
    entry("shape", "another shape", "dimension", 0, shape=[1, 8, 5, 0, 0])
    entry("shape-most", "2^64 - 1 elements", "dimension", 0, shape=[2**64 - 1] * 5)
    entry("shape-rest", "a sixth of nothing: an unused dimension is 1", "dimension", 0, shape=[1, 8, 4, 1, 0])
    entry("offset-early", "data in the header", "offset", 0, offset=0)
    entry("offset-same", "two tensors in one place", "offset", 1, offset=lambda v: v - 128)
    entry("offset-odd", "data at no multiple of 64", "offset", 0, offset=lambda v: v + 4)
    entry("offset-most", "data at 2^64 - 64", "offset", 0, offset=2**64 - 64)
    entry("size", "another size", "bytes", 0, size=lambda v: v - 4)
    entry("size-most", "2^64 - 1 bytes", "bytes", 0, size=2**64 - 1)
    entry("digest", "the data's hash is wrong", "damaged", 0, digest=lambda v: v ^ 1 << 63)
    entry("name-empty", "no name", "name of tensor 0", 0, name=b"")
    entry("name-endless", "a name of 128 letters", "name of tensor 0", 0, name=b"n" * 128)
    entry("name-unknown", "an unknown name", "banana", 0, name=b"banana")
    entry("name-padding", "a name that is not padded with zeros", "padded", 0, name=lambda v: v + b"\0x")
    entry("name-control", "a name with an escape sequence", "0x1b", 0, name=lambda v: v[:-3] + b"\x1b[2J")
    entry("name-twice", "one name twice", "position_embeddings", 1, name=tensors()[0][0].encode())
    swapped = tensors()
    swapped[3], swapped[4] = swapped[4], swapped[3]
    one("order", "two tensors have changed places", weights(list_=swapped), says="need")
    one("missing", "the last tensor is missing", weights(list_=tensors()[:-1]), says="missing")
    one("more", "a tensor too many", weights(list_=tensors() + [("banana", (4,))]), says="banana")
    one("optional", "fc_coord: legal, its optional tensors are all there", weights(list_=tensors(offsets=True)), 0)
    one("optional-half", "one of two optional tensors", weights(list_=tensors(offsets=True)[:-1]), says="all or none")
    one("variant", "an unknown variant", weights(variant=b"other123\0"), says="variant")
    one("variant-open", "a variant without its end", weights(variant=b"upstream"), says="text")
    one("variant-zero", "a variant with a zero in it", weights(variant=b"seed\0xyz\0"), says="text")
    one("provenance-none", "no provenance, not even its end", weights(provenance=b""), says="text")
    one("provenance-control", "escape sequences in the provenance: legal, shown as ?", weights(provenance=b"\x1b[2J\nmore\0"), 0)
    one("hash", "the header's hash is wrong", weights(change=lambda out: out.__setitem__(24, out[24] ^ 1), rehash=False), says="hash")
    one("padding", "a byte of padding is not 0", weights(change=lambda out: out.__setitem__(-1, 1)), says="padding")
    one("data", "a flipped bit in the data", weights(change=lambda out: out.__setitem__(-64, out[-64] ^ 1), rehash=False), says="damaged")
    nan = weights(change_data=lambda n, v: v[:2] + [NAN] + v[3:] if n == NORM else v)
    for name, command in (("info", None), ("segment", segment), ("export", export), ("session", session)):
        one("nan-" + name, "a NaN in the weights, with sound hashes, for " + name, nan, says=NORM, command=command)
    inf = weights(change_data=lambda n, v: v[:-1] + [INF] if n == QKV else v)
    one("inf-segment", "an infinite weight with sound hashes", inf, says=QKV, command=segment)
    one("nan-train", "a NaN in the weights that training begins with", nan, says="", command=train)
    CASES[-1].files.update({"list.tsv": b"scan.nii\ttruth.nii\n", "truth.nii": nifti1(labels())})
    CASES[-1].names = [CASES[-1].names[0]]
    one("torch-input", "a checkpoint where a weights file should be", torch(), says="first 8 bytes", command=segment)
    one("convert-input", "a weights file where a checkpoint should be", weights(), says="neither", command=lambda file: ["convert", file, "-o", "out.segfm"])
    one("session-damaged", "a flipped bit in the data: opening a model checks the header's hash, not the data's (info, convert, train do)", weights(change=lambda out: out.__setitem__(-64, out[-64] ^ 1), rehash=False), 0, command=session)


# ---- training -------------------------------------------------------------------------------------------------------------

SMALL = ("spatial 2,4,6\npatch 1,2,3\ndim 4\ndepth 1\nheads 2\nmlp 2\ndecoder_depth 1\ndecoder_heads 1\ndecoder_mlp 2\ndecoder_cross_dim 2\n"
         "mask_tokens 1\niou_hidden 2\niou_layers 1\nhyper_layers 1\nup1 1\nup2 1\ngru_blocks 1\ngru_hidden 1\ntopk 1\nsteps 1\nbatch 1\nmin_voxels 1\n")


def train_cases():
    def config(name, why, config_text, code=3, says="", options=()):
        config_text = config_text if isinstance(config_text, bytes) else config_text.encode()
        file = "config-%s.conf" % name
        add("config-" + name, why, {file: config_text, "list.tsv": b"scan.nii\ttruth.nii\n", "scan.nii": nifti1(), "truth.nii": nifti1(labels())},
            ["train", "--config", file, "--pairs", "list.tsv", "--out", "run", *options], code, [file, says] if code else None)

    config("whole", "nothing is wrong", SMALL, 0)
    config("equals", "key = value, remarks, Windows' line ends: legal", SMALL.replace("\n", "\r\n").replace("dim 4", "dim = 4 # four"), 0)
    config("key-unknown", "an unknown key", "banana 3\n", says="line 1: unknown key banana")
    config("key-control", "an unknown key with an escape sequence", "ba\x1b[2Jnana 3\n", says="unknown key")
    config("key-alone", "a key without a value", "dim\n", says="no value")
    config("key-equals", "a key with = and nothing", "dim =\n", says="no value")
    config("key-twice", "a key twice", "dim 8\ndim 8\n", says="line 2")
    config("key-long", "a line of 3000 letters", "a" * 3000 + "\n", says="longer than")
    config("key-zero", "a zero byte", b"dim 8\0\n", says="zero byte")
    config("key-bytes", "bytes that are no text", bytes(range(1, 256)), says="line")
    config("number-text", "a number that is text", "dim eight\n", says="dim")
    config("number-minus", "a negative width", "dim -8\n", says="dim")
    config("number-half", "half a step", "steps 1.5\n", says="steps")
    config("number-huge", "a width of 10^30", "dim 1000000000000000000000000000000\n", says="dim")
    config("number-2-64", "2^64 steps", "steps 18446744073709551616\n", says="steps")
    config("number-hex", "a number in hexadecimal", "dim 0x10\n", says="dim")
    config("number-nan", "a rate of NaN", "rate nan\n", says="rate")
    config("number-inf", "an infinite rate", "rate inf\n", says="rate")
    config("number-1e400", "a rate of 1e400", "rate 1e400\n", says="rate")
    config("number-list", "two numbers for three", "spatial 32,64\n", says="spatial")
    config("number-list-more", "four numbers for three", "spatial 32,64,64,64\n", says="spatial")
    config("number-comma", "a comma at the end", "spatial 32,64,64,\n", says="spatial")
    config("beta-one", "beta1 of 1", "beta1 1\n", says="beta1")
    config("eps-zero", "eps of 0", "eps 0\n", says="eps")
    config("choice", "an unknown schedule", "schedule sometimes\n", says="schedule")
    config("choice-case", "a schedule in capitals", "schedule COSINE\n", says="schedule")
    config("parts", "unknown parts", "parts encoder+nothing\n", says="parts")
    config("parts-plus", "a plus at the end", "parts encoder+\n", says="parts")
    config("corrections", "all corrections weigh nothing", SMALL + "corrections 0,0,0,0,0,0\n", says="corrections")
    config("resize-crop", "neither resized nor cropped", SMALL + "resize 0\ncrop 0\n", says="resize")
    config("floor", "a floor above the rate", SMALL + "floor 1\n", says="floor")
    config("evaluate", "evaluations of nothing", SMALL + "evaluate_every 1\n", says="evaluate_pairs")
    config("evaluate-missing", "evaluations on a list that is not there", SMALL + "evaluate_every 1\nevaluate_pairs missing.tsv\n")
    CASES[-1].names = ["missing.tsv"]
    config("heads", "heads that do not divide the width", SMALL.replace("heads 2", "heads 3"), says="heads")
    config("patch", "a patch that does not divide the window", SMALL.replace("patch 1,2,3", "patch 1,3,3"), says="patch")
    config("huge", "a network that no memory holds", SMALL.replace("dim 4", "dim 1048576").replace("mlp 2\n", "mlp 1048576\n", 1), 4, says="")
    CASES[-1].names = ["memory"]
    for name, size in (("small", "7,8,8"), ("large", "8,8,1025")):
        config("phantom-" + name, "phantoms of %s voxels" % size, SMALL + "source both\nphantom_smallest 8,8,8\nphantom_largest %s\n" % size, says="phantom_smallest")
    config("window-huge", "a window of 2^60 voxels", SMALL.replace("spatial 2,4,6", "spatial 1048576,1048576,1048572"), 3, says="window")
    config("batch-huge", "a batch of a million: legal, samples come one after the other", SMALL.replace("batch 1", "batch 1048576").replace("steps 1", "steps 0"), 0)
    config("empty", "an empty file: all defaults; but the scan has no class of 100 voxels", "")
    CASES[-1].names, CASES[-1].lines = ["list.tsv"], 2
    config("endless", "two hundred thousand remarks: legal", "# a remark\n" * 200000 + SMALL, 0)

    def pairs(name, why, line, code=3, says="", files=None):
        add("train-" + name, why, {"list.tsv": line, "run.conf": SMALL.encode(), "scan.nii": nifti1(), "truth.nii": nifti1(labels()), **(files or {})},
            ["train", "--config", "run.conf", "--pairs", "list.tsv", "--out", "run"], code, ["list.tsv", says] if code else None)

    pairs("list-empty", "a list of nothing", b"", says="no pair")
    pairs("list-zero", "a zero byte in the list", b"\0", says="zero byte")
    pairs("list-no-tab", "a line without a tab", b"scan.nii\n", says="line 1")

    def resumed(name, why, data, says="", code=3):
        add("checkpoint-" + name, why, {"run/checkpoint.bin": data, "list.tsv": b"scan.nii\ttruth.nii\n", "scan.nii": nifti1(), "truth.nii": nifti1(labels())},
            ["train", "--resume", "--pairs", "list.tsv", "--out", "run"], code, ["run/checkpoint.bin" if says else "", says])

    resumed("empty", "an empty checkpoint", b"", "not a checkpoint")
    resumed("text", "a line of text", b"SEGFMTR1" + b"x" * 200, "damaged")
    resumed("hash", "its hash is wrong", run_checkpoint(digest=1), "damaged")
    resumed("width", "numbers of three bytes", run_checkpoint(width=3), "3")
    resumed("tensors", "2^61 tensors: the bytes wrap round", run_checkpoint(tensor_count=1)[:16], "not a checkpoint")
    wrapped = bytearray(run_checkpoint(tensor_count=0, parameters=0)[:-8])
    struct.pack_into("<2Q", wrapped, 16, 2**61, 0)
    resumed("tensors-wrap", "2^61 tensors whose bytes wrap to 0", bytes(wrapped) + struct.pack("<Q", xxh64(bytes(wrapped))), "parts")
    resumed("text-long", "a text longer than the file", run_checkpoint(length=10**6), "parts")
    resumed("text-most", "a text of 2^64 - 1 bytes", run_checkpoint(length=2**64 - 1), "parts")
    resumed("text-none", "a text of no bytes", run_checkpoint(length=0), "parts")
    resumed("stage", "stage 7", run_checkpoint(stage=7), "parts")
    resumed("settings", "settings with an unknown key", run_checkpoint(text_=b"banana 1\n"), "banana")
    resumed("parameters", "another number of parameters than the network's", run_checkpoint(text_=SMALL.encode()), "")
    CASES[-1].names = []


# ---- sessions -------------------------------------------------------------------------------------------------------------

def session_cases():
    def talk(name, why, lines, answers):
        """answers: one letter a line of the answer, t for ok, f for an error."""
        stdin = lines if isinstance(lines, bytes) else "\n".join(lines).encode() + b"\n"
        add("session-" + name, why, {"scan.nii": nifti1(), "bad.nii": nifti1()[:300], "four.nii": nifti1(voxels() * 2, dim=(4, NX, NY, NZ, 2, 1, 1, 1)),
            "singular.nii": nifti1(sform=1, srow=(0,) * 12)}, ["session", "-w", "W"], 0, [], stdin, answers)

    box = "box " + BOX
    talk("nothing", "an empty stream", b"", "")
    talk("no-newline", "a last line without its end", b"open scan.nii", "t")
    talk("no-scan", "every command before a scan", [box, "click 1,1,1,+", "undo", "redo", "reset", "next", "mask a.nii", "logits a.nii", "labels a.nii", "status"], "ffffffffft")
    talk("open-bad", "a bad scan after a good one: the good one stays", ["open scan.nii", box, "open bad.nii", "open missing.nii", "open .", "open", "status", "click 1,1,1,+"], "ttfffftt")
    talk("open-volume", "volumes", ["open four.nii", "open --volume 2 four.nii", "open --volume -1 four.nii", "open --volume x four.nii", "open --volume",
         "open --volume " + "9" * 100 + " four.nii", "open --volume 1 four.nii"], "fffffft")
    talk("open-self", "a device where a scan should be", ["open /dev/zero", "open /dev/stdin", "status"], "fft")
    talk("box-bad", "bad boxes", ["open scan.nii", "box", "box 1", "box 1,2,3", "box a,b,c,d,e,f", "box 0,0,0,6,5,4", "box -1,0,0,1,1,1", "box 4,3,2,1,1,1",
         "box 1,1,1,2,2,99999999999999999999", "box 1,1,1,2,2,2,2", "box nan,0,0,1,1,1", "box --world", "box --world 1,2", box, "status"], "tfffffffffffftt")
    talk("click-bad", "bad clicks", ["open scan.nii", "click", "click 1,1,1", "click 1,1,1,", "click 1,1,1,*", "click ,,,+", "click 6,0,0,+", "click -1,0,0,-",
         "click 1e5,0,0,+", "click 9223372036854775808,0,0,+", "click " + "1" * 200 + ",0,0,+", "click --world nan,0,0,+", "click --world 1e308,0,0,+", "click 1,1,1,+"],
         "tffffffffffff" + "t")
    talk("world-singular", "millimetres through an affine of zeros", ["open singular.nii", "click --world 1,1,1,+", "box --world 0,0,0,1,1,1", "status"], "tfft")
    talk("undo-empty", "nothing to undo", ["open scan.nii", "undo", "redo", box, "undo", "undo", "redo", "redo"], "tffttftf")
    talk("words", "commands with something behind", ["open scan.nii", "undo now", "reset x", "next x", "status x", "quit x", "quit", "not heard"], "tffffft")
    talk("files-bad", "results that cannot be written", ["open scan.nii", box, "mask", "mask out.txt", "mask scan.nii", "mask ./scan.nii", "mask nowhere/out.nii", "logits .nii.gz/", "labels scan.nii"], "ttfffffff")
    talk("unknown", "unknown commands", ["dance", "OPEN scan.nii", "{\"command\":\"open\"}", "\x1b[2J", "öffne", "open\u00a0scan.nii"], "ffffff")
    talk("bytes", "every byte there is", bytes(b for b in range(256) if b != 10) + b"\n" + b"status\n", "ft")
    talk("zero", "zero bytes", b"\0\n\0\0\0\nstatus\n", "fft")
    talk("long", "a line of a megabyte", b"x" * 1000000 + b"\nstatus\n", "ft")
    talk("long-edge", "lines of 4094, 4095 and 4096 bytes", b"".join(b"x" * n + b"\n" for n in (4094, 4095, 4096)), "fff")
    talk("lines", "100000 empty lines and remarks", b"\n# a\n" * 50000 + b"status\n", "t")
    talk("windows", "Windows' line ends", b"open scan.nii\r\n" + box.encode() + b"\r\nstatus\r\n", "ttt")
    talk("clicks-many", "1100 clicks: there is room for 1024", ["open scan.nii", box] + ["click 1,1,1,+"] * 1100, "tt" + "t" * 1024 + "f" * 76)
    talk("nexts", "a hundred objects", ["open scan.nii"] + [box, "next"] * 100 + ["status"], "t" + "tt" * 100 + "t")


def tensor_cases():
    good = npy(floats([0.1] * 48), "<f4", (2, 4, 6))

    def trace(name, why, data, code=3, says=""):
        file = "trace-%s.npy" % name
        add("trace-" + name, why, {file: data}, ["trace", "-w", "W", "--window", file, "--box", "0,1,1,1,3,3", "--out", "out"], code, [file, says] if code else None)

    trace("whole", "nothing is wrong", good, 0)
    trace("empty", "an empty file", b"", says="npy")
    trace("shape", "another window", npy(floats([0.1] * 24), "<f4", (1, 4, 6)), says="")
    for name, v in (("nan", NAN), ("inf", INF)):
        trace(name, "a window with " + name, npy(floats([0.1] * 47 + [v]), "<f4", (2, 4, 6)), says="element 47")
        add("logits-" + name, "logits with " + name, {"logits.npy": npy(floats([0.1] * 119 + [v]), "<f4", (1, 1, NZ, NY, NX))},
            ["trace", "-w", "W", "--correct", "logits.npy", "--click", "1,1,1,1", "--out", "out"], 3, ["logits.npy", "element 119"])
    trace("object", "a window of objects", objects(pickle(b"N")), says="")
    trace("cut", "the last byte is missing", good[:-1], says="bytes")
    trace("axes", "a window of six axes", npy(floats([0.1] * 48), "<f4", (1, 1, 1, 2, 4, 6)), says="")

    def compare(name, why, data, code=3, says=""):
        add("compare-" + name, why, {"a/t.npy": data, "b/t.npy": good}, ["compare", "a", "b"], code, ["a/t.npy", says] if code else None)

    compare("empty", "an empty file", b"", says="npy")
    compare("object", "objects", objects(pickle(b"N")), says="")
    compare("header", "a header longer than the file", npy(b"", size=60000), says="header")


for family in (nifti_cases, label_cases, gzip_cases, zip_cases, npy_cases, pickle_cases, challenge_cases, torch_cases, safetensors_cases, weights_cases,
               train_cases, session_cases, tensor_cases):
    family()
