"""Files of every format that segfm reads, made byte by byte, so that any field of them can be made wrong."""
import math
import struct
import zlib

# ---- NIfTI ------------------------------------------------------------------------------------------------------------

NX, NY, NZ = 6, 5, 4
SPACING = 0.75, 1, 1.25  # x, y, z
PIXDIM, SROW = (1, *SPACING, 1, 1, 1, 1), (SPACING[0], 0, 0, 0, 0, SPACING[1], 0, 0, 0, 0, SPACING[2], 0)
BOX = "1,1,1,4,3,2"


def voxels(nx=NX, ny=NY, nz=NZ):
    """A bright block in a dark ground, both of several greys."""
    return bytes(150 + (7 * x + 5 * y + z) % 90 if 1 <= x <= 4 and 1 <= y <= 3 and 1 <= z <= 2 else 10 + (x + y + z) % 3
                 for z in range(nz) for y in range(ny) for x in range(nx))


def labels(nx=NX, ny=NY, nz=NZ):
    return bytes(v >= 150 for v in voxels(nx, ny, nz))


def nifti1(data=None, big=False, dim=(3, NX, NY, NZ, 1, 1, 1, 1), pixdim=PIXDIM, ext=b"\0" * 4, size=348,
           datatype=2, bitpix=8, vox_offset=None, slope=1, inter=0, units=2, qform=0, sform=0, quatern=(0, 0, 0),
           qoffset=(0, 0, 0), srow=SROW, magic=b"n+1\0"):
    o = ">" if big else "<"
    h = bytearray(348)
    offset = 348 + len(ext) if vox_offset is None else vox_offset
    struct.pack_into(o + "i", h, 0, size)
    struct.pack_into(o + "8h", h, 40, *dim)
    struct.pack_into(o + "2h", h, 70, datatype, bitpix)
    struct.pack_into(o + "8f3f", h, 76, *pixdim, offset, slope, inter)
    h[123] = units
    struct.pack_into(o + "2h3f3f12f", h, 252, qform, sform, *quatern, *qoffset, *srow)
    h[344:348] = magic
    return bytes(h) + ext + (voxels() if data is None else data)


def nifti2(data=None, big=False, dim=(3, NX, NY, NZ, 1, 1, 1, 1), pixdim=PIXDIM, ext=b"\0" * 4, size=540,
           datatype=2, bitpix=8, vox_offset=None, slope=1, inter=0, units=2, qform=0, sform=0, quatern=(0, 0, 0),
           qoffset=(0, 0, 0), srow=SROW, magic=b"n+2\0\r\n\x1a\n"):
    o = ">" if big else "<"
    h = bytearray(540)
    offset = 540 + len(ext) if vox_offset is None else vox_offset
    struct.pack_into(o + "i", h, 0, size)
    h[4:12] = magic
    struct.pack_into(o + "2h8q", h, 12, datatype, bitpix, *dim)
    struct.pack_into(o + "8d", h, 104, *pixdim)
    struct.pack_into(o + "q2d", h, 168, offset, slope, inter)
    struct.pack_into(o + "2i3d3d12d", h, 344, qform, sform, *quatern, *qoffset, *srow)
    struct.pack_into(o + "i", h, 500, units)
    return bytes(h) + ext + (voxels() if data is None else data)


# ---- deflate, gzip ----------------------------------------------------------------------------------------------------

class Bits:
    """A deflate stream bit by bit: numbers lowest bit first, codes highest bit first."""

    def __init__(self):
        self.bits = []

    def number(self, value, width):
        self.bits += [value >> i & 1 for i in range(width)]
        return self

    def code(self, value, width):
        self.bits += [value >> i & 1 for i in reversed(range(width))]
        return self

    def block(self, kind, last=1):
        return self.number(last, 1).number(kind, 2)

    def fixed(self, symbol):
        """A symbol of the fixed literal code."""
        if symbol < 144:
            return self.code(48 + symbol, 8)
        if symbol < 256:
            return self.code(400 + symbol - 144, 9)
        if symbol < 280:
            return self.code(symbol - 256, 7)
        return self.code(192 + symbol - 280, 8)

    def dynamic(self, lengths, literals, distances, hlit=None, hdist=None, hclen=19):
        """The head of a dynamic block: the code of code lengths (19 lengths, in the order of the format), then symbols
        of that code, each (value, width) with its extra bits already in it."""
        self.block(2).number(literals - 257 if hlit is None else hlit, 5)
        self.number(distances - 1 if hdist is None else hdist, 5).number(hclen - 4, 4)
        for length in lengths:
            self.number(length, 3)
        return self

    def bytes(self):
        padded = self.bits + [0] * (-len(self.bits) % 8)
        return bytes(sum(b << k for k, b in enumerate(padded[i:i + 8])) for i in range(0, len(padded), 8))


def deflate(data, level=9):
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def stored(data):
    return b"\x01" + struct.pack("<HH", len(data), len(data) ^ 0xFFFF) + data


def gzip(data, stream=None, flags=0, method=8, extra=b"", crc=None, size=None, magic=b"\x1f\x8b"):
    """One member. extra: what the flags announce, as it stands in the file."""
    tail = struct.pack("<2I", zlib.crc32(data) if crc is None else crc, len(data) & 0xFFFFFFFF if size is None else size)
    return magic + bytes([method, flags]) + b"\0" * 5 + b"\xff" + extra + (deflate(data) if stream is None else stream) + tail


# ---- zip --------------------------------------------------------------------------------------------------------------

class Member:
    """A member whose fields, in the local header (l_…) and in the directory (c_…), may be told what to say."""

    def __init__(self, name, data, method=0, stream=None, **told):
        self.name = name if isinstance(name, bytes) else name.encode()
        self.data, self.method, self.told = data, method, told
        self.stream = stream if stream is not None else deflate(data) if method == 8 else data
        self.at = None

    def get(self, side, field, otherwise):
        return self.told.get(side + field, self.told.get(field, otherwise))

    def head(self, side):
        crc = self.get(side, "crc", zlib.crc32(self.data))
        packed = self.get(side, "packed", len(self.stream)) & 0xFFFFFFFF
        size = self.get(side, "size", len(self.data)) & 0xFFFFFFFF
        name, extra = self.get(side, "name", self.name), self.get(side, "extra", b"")
        return struct.pack("<5H3I2H", 20, self.get(side, "flags", 0), self.get(side, "method", self.method), 0, 0x21, crc, packed,
                           size, self.get(side, "name_size", len(name)), self.get(side, "extra_size", len(extra))), name, extra

    def local(self):
        fields, name, extra = self.head("l_")
        return self.told.get("l_magic", b"PK\3\4") + fields + name + extra + self.stream + self.told.get("behind", b"")

    def central(self):
        fields, name, extra = self.head("c_")
        comment = self.told.get("comment", b"")
        return (self.told.get("c_magic", b"PK\1\2") + struct.pack("<H", 20) + fields +
                struct.pack("<3H2I", self.told.get("comment_size", len(comment)), self.told.get("disk", 0), 0, 0,
                            self.told.get("offset", self.at) & 0xFFFFFFFF) + name + extra + comment)


def end_record(count, size, begin, disk=0, total=None, comment=b"", comment_size=None, magic=b"PK\5\6"):
    return magic + struct.pack("<4H2IH", disk, disk, count, count if total is None else total, size, begin,
                               len(comment) if comment_size is None else comment_size) + comment


def archive(members, end=None, before=b"", **told):
    """end: what to put instead of the end record, a function of (count, size of the directory, where it begins)."""
    out, directory = bytearray(before), bytearray()
    for m in members:
        if m.at is None:
            m.at = len(out)
            out += m.local()
    for m in members:
        directory += m.central()
    place = len(members), len(directory), len(out)
    out += directory + told.pop("behind", b"")
    count, size, begin = (told.pop(key, value) for key, value in zip(("count", "dir_size", "dir_begin"), place))
    return bytes(out) + (end(*place) if end else end_record(count, size, begin, **told))


# ---- npy --------------------------------------------------------------------------------------------------------------

def npy_text(text, data, version=(1, 0), size=None, magic=b"\x93NUMPY"):
    text = text if isinstance(text, bytes) else text.encode("latin1")
    width = "<H" if version[0] == 1 else "<I"
    room = len(magic) + 2 + struct.calcsize(width)
    text = text + b" " * (-(room + len(text) + 1) % 16) + b"\n"
    return magic + bytes(version) + struct.pack(width, len(text) if size is None else size) + text + data


def npy(data, descr="|u1", shape=(NZ, NY, NX), fortran=False, **told):
    return npy_text("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }" % (descr, fortran, shape), data, **told)


def npz(arrays, method=0, **told):
    return archive([Member(name + ".npy", data, method) for name, data in arrays.items()], **told)


# ---- pickles ----------------------------------------------------------------------------------------------------------

def text(t):
    t = t if isinstance(t, bytes) else t.encode()
    return b"X" + struct.pack("<I", len(t)) + t


def number(n):
    return b"K" + bytes([n]) if 0 <= n < 256 else b"J" + struct.pack("<i", n) if -2**31 <= n < 2**31 else \
        b"\x8a\x09" + (n & (2**72 - 1)).to_bytes(9, "little") if not -2**63 <= n < 2**63 else b"\x8a\x08" + struct.pack("<q", n)


def named(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def list_of(*items):
    return b"](" + b"".join(items) + b"e"


def dict_of(**items):
    return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def dtype_of(code="O8", order="|", fields=b"NNN"):
    return (named("numpy", "dtype") + tuple_of(text(code), number(0), number(1)) + b"R" +
            tuple_of(number(3), text(order), fields, number(-1), number(-1), number(63)) + b"b")


def array_of(shape, content, dtype=None, fortran=b"\x89", make=None):
    """A numpy array as numpy pickles it: content is a list of objects or a text of bytes."""
    made = named("numpy.core.multiarray", "_reconstruct") + tuple_of(named("numpy", "ndarray"), tuple_of(number(0)), b"C\1b") + b"R"
    state = tuple_of(number(1), tuple_of(*(number(n) for n in shape)), dtype_of() if dtype is None else dtype, fortran, content)
    return (made if make is None else make) + state + b"b"


def pickle(body, protocol=3):
    return b"\x80" + bytes([protocol]) + body + b"."


def objects(body, shape="(1,)"):
    """An npy file of objects."""
    return npy_text("{'descr': '|O', 'fortran_order': False, 'shape': %s, }" % shape, body)


def box_dict(**changed):
    box = dict(z_min=1, z_max=2, z_mid=1, z_mid_x_min=1, z_mid_y_min=1, z_mid_x_max=4, z_mid_y_max=3)
    box.update(changed)
    return dict_of(**{k: v if isinstance(v, bytes) else number(v) for k, v in box.items() if v is not None})


def boxes(*entries):
    return objects(pickle(array_of((len(entries),), list_of(*entries))), "(%d,)" % len(entries))


def challenge(**changed):
    """A case of the challenge. None: without that array."""
    arrays = dict(imgs=npy(voxels()), spacing=npy(struct.pack("<3d", *SPACING), "<f8", (3,)), boxes=boxes(box_dict()))
    arrays.update(changed)
    return {k: v for k, v in arrays.items() if v is not None}


# ---- the model ----------------------------------------------------------------------------------------------------------

CONFIG = ("spatial_z spatial_y spatial_x patch_z patch_y patch_x dim depth heads mlp decoder_depth decoder_heads decoder_mlp "
          "cross mask_tokens iou_hidden iou_layers hyper_layers up1 up2 gru_blocks gru_hidden topk text_dim").split()
MICRO = dict(zip(CONFIG, (2, 4, 6, 1, 2, 3, 4, 1, 2, 2, 1, 1, 2, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 0)))


def tensors(c=MICRO, offsets=False):
    """[(name, shape)] in the order of weights/FORMAT.md."""
    out = []

    def linear(name, rows, columns, bias=True):
        out.append((name + ".weight", (rows, columns)))
        if bias:
            out.append((name + ".bias", (rows,)))

    def norm(name):
        out.extend([(name + ".weight", (d,)), (name + ".bias", (d,))])

    def attention(name, inner):
        for part in ("q_proj", "k_proj", "v_proj"):
            linear(name + "." + part, inner, d)
        linear(name + ".out_proj", d, inner)

    d, cross = c["dim"], c["cross"]
    grid = [c["spatial_" + a] // c["patch_" + a] for a in "zyx"]
    patch = c["patch_z"] * c["patch_y"] * c["patch_x"]
    out.append(("image_encoder.patch_embedding.position_embeddings", (1, math.prod(grid), d)))
    linear("image_encoder.patch_embedding.patch_embeddings.1", d, patch)
    for n in range(c["depth"]):
        block = "image_encoder.blocks.%d." % n
        linear(block + "mlp.linear1", c["mlp"], d)
        linear(block + "mlp.linear2", d, c["mlp"])
        norm(block + "norm1")
        linear(block + "attn.out_proj", d, d)
        linear(block + "attn.qkv", 3 * d, d, False)
        norm(block + "norm2")
    norm("image_encoder.norm")
    decoder = "mask_decoder."
    for n in range(c["decoder_depth"]):
        layer = decoder + "transformer.layers.%d." % n
        attention(layer + "self_attn", d)
        norm(layer + "norm1")
        attention(layer + "cross_attn_token_to_image", cross)
        norm(layer + "norm2")
        linear(layer + "mlp.lin1", c["decoder_mlp"], d)
        linear(layer + "mlp.lin2", d, c["decoder_mlp"])
        norm(layer + "norm3")
        norm(layer + "norm4")
        attention(layer + "cross_attn_image_to_token", cross)
    attention(decoder + "transformer.final_attn_token_to_image", cross)
    norm(decoder + "transformer.norm_final_attn")
    out.append((decoder + "iou_token.weight", (1, d)))
    out.append((decoder + "mask_tokens.weight", (c["mask_tokens"], d)))
    up = [2 * g for g in grid]
    out.append((decoder + "output_upscaling.0.weight", (d, c["up1"], 2, 2, 2)))
    out.append((decoder + "output_upscaling.0.bias", (c["up1"],)))
    out.append((decoder + "output_upscaling.1.weight", (c["up1"], *up)))
    out.append((decoder + "output_upscaling.1.bias", (c["up1"], *up)))
    out.append((decoder + "output_upscaling.3.weight", (c["up1"], c["up2"], 2, 2, 2)))
    out.append((decoder + "output_upscaling.3.bias", (c["up2"],)))
    for m in range(c["mask_tokens"]):
        for n in range(c["hyper_layers"]):
            linear(decoder + "output_hypernetworks_mlps.%d.layers.%d" % (m, n), c["up2"] if n + 1 == c["hyper_layers"] else d, d)
    for n in range(c["iou_layers"]):
        linear(decoder + "iou_prediction_head.layers.%d" % n, c["mask_tokens"] if n + 1 == c["iou_layers"] else c["iou_hidden"],
               d if n == 0 else c["iou_hidden"])
    out.append(("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", (3, d // 2)))
    for n in range(4):
        out.append(("prompt_encoder.point_embeddings.%d.weight" % n, (1, d)))
    out.append(("prompt_encoder.not_a_point_embed.weight", (1, d)))
    out.append(("prompt_encoder.no_mask_embed.weight", (1, d)))
    h, k = c["gru_hidden"], c["topk"]
    for n in range(c["gru_blocks"]):
        gru = "gru_blocks.%d." % n
        out.append((gru + "gru.weight_ih_l0", (3 * h, 8 * k)))
        out.append((gru + "gru.weight_hh_l0", (3 * h, h)))
        out.append((gru + "gru.bias_ih_l0", (3 * h,)))
        out.append((gru + "gru.bias_hh_l0", (3 * h,)))
        linear(gru + "fc_prob", 2 * k, h + 6 * k)
        if offsets:
            linear(gru + "fc_coord", 6 * k, h + 6 * k)
    return out


def values(name, shape):
    """Small numbers, other ones for each tensor."""
    n, start = math.prod(shape), zlib.crc32(name.encode()) % 97
    return [((start + 31 * i) % 65 - 32) / 128 for i in range(n)]


def floats(numbers):
    return struct.pack("<%df" % len(numbers), *numbers)


# ---- XXH64, after its specification -------------------------------------------------------------------------------------

P1, P2, P3, P4, P5 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
M64 = 2**64 - 1


def rotate(v, n):
    return (v << n | v >> (64 - n)) & M64


def xxh64(data, seed=0):
    def mix(lane, word):
        return rotate((lane + word * P2) & M64, 31) * P1 & M64

    n, at = len(data), 0
    if n >= 32:
        lanes = [(seed + P1 + P2) & M64, (seed + P2) & M64, seed, (seed - P1) & M64]
        while at + 32 <= n:
            lanes = [mix(lane, word) for lane, word in zip(lanes, struct.unpack_from("<4Q", data, at))]
            at += 32
        h = sum(rotate(lane, r) for lane, r in zip(lanes, (1, 7, 12, 18))) & M64
        for lane in lanes:
            h = ((h ^ mix(0, lane)) * P1 + P4) & M64
    else:
        h = (seed + P5) & M64
    h = (h + n) & M64
    while at + 8 <= n:
        h = (rotate(h ^ mix(0, struct.unpack_from("<Q", data, at)[0]), 27) * P1 + P4) & M64
        at += 8
    if at + 4 <= n:
        h = (rotate(h ^ struct.unpack_from("<I", data, at)[0] * P1 & M64, 23) * P2 + P3) & M64
        at += 4
    for byte in data[at:]:
        h = rotate(h ^ byte * P5 & M64, 11) * P1 & M64
    h = (h ^ h >> 33) * P2 & M64
    h = (h ^ h >> 29) * P3 & M64
    return h ^ h >> 32


# ---- the weights file (weights/FORMAT.md) -------------------------------------------------------------------------------

def weights(config=None, list_=None, variant=b"upstream\0", provenance=b"made by a test\0", extra_config=b"", change_entry=None,
            change_data=None, change=None, rehash=True, tail=b"", magic=b"\x89SFM\r\n\x1a\n", version=1, **fixed):
    """change_entry(i, fields): the table's entry as a dict; change_data(name, values); change(bytearray): the whole file
    before its hash is made (rehash) or after; fixed: header_bytes, file_bytes, config_bytes, variant_bytes,
    provenance_bytes, count, reserved."""
    c = dict(MICRO, **(config or {}))
    list_ = tensors(c) if list_ is None else list_
    settings = struct.pack("<24I", *(c[k] for k in CONFIG)) + extra_config
    texts_at = 64 + len(settings) + 200 * len(list_)
    header_bytes = (texts_at + len(variant) + len(provenance) + 63) // 64 * 64
    table, data = b"", bytearray()
    for i, (name, shape) in enumerate(list_):
        numbers = values(name, shape)
        numbers = change_data(name, numbers) if change_data else numbers
        raw = floats(numbers)
        entry = dict(name=name.encode(), code=1, ndim=len(shape), shape=list(shape) + [0] * (5 - len(shape)),
                     offset=header_bytes + len(data), size=len(raw), digest=xxh64(raw), pad=b"\0")
        if change_entry:
            change_entry(i, entry)
        table += (entry["name"].ljust(128, entry["pad"])[:128] +
                  struct.pack("<2I5Q3Q", entry["code"], entry["ndim"], *entry["shape"], entry["offset"], entry["size"], entry["digest"]))
        data += raw + b"\0" * (-len(raw) % 64)
    size = header_bytes + len(data) + len(tail)
    head = magic + struct.pack("<2I2Q4I", version, fixed.get("header_bytes", header_bytes), fixed.get("file_bytes", size), 0,
                               fixed.get("config_bytes", len(settings)), fixed.get("variant_bytes", len(variant)),
                               fixed.get("provenance_bytes", len(provenance)), fixed.get("count", len(list_))) + \
        fixed.get("reserved", b"\0" * 16)
    out = bytearray((head + settings + table + variant + provenance).ljust(header_bytes, b"\0") + data + tail)
    if change and rehash:
        change(out)
    struct.pack_into("<Q", out, 24, xxh64(out[32:header_bytes], xxh64(out[:24])))
    if change and not rehash:
        change(out)
    return bytes(out)


# ---- safetensors ----------------------------------------------------------------------------------------------------------

def safetensors_text(header, data=b"", size=None):
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def safetensors(list_=None, change=None, change_data=None, metadata="", prefix="model."):
    """change(name, fields): dtype, shape, begin, end, name of a tensor."""
    parts, data = [metadata] if metadata else [], bytearray()
    for name, shape in tensors() if list_ is None else list_:
        numbers = values(name, shape)
        raw = floats(change_data(name, numbers) if change_data else numbers)
        f = dict(name=prefix + name, dtype="F32", shape=list(shape), begin=len(data), end=len(data) + len(raw))
        data += raw
        if change:
            change(name, f)
        parts.append('"%s":{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}' % (f["name"], f["dtype"],
                                                                               str(f["shape"]).replace(" ", ""), f["begin"], f["end"]))
    return safetensors_text("{" + ",".join(parts) + "}", bytes(data))


# ---- PyTorch ----------------------------------------------------------------------------------------------------------------

def storage_of(key, elements, kind="FloatStorage"):
    return tuple_of(text("storage"), named("torch", kind), text(key), text("cpu"), number(elements)) + b"Q"


def tensor_of(storage, shape, stride=None, offset=0):
    if stride is None:
        stride = [math.prod(shape[i + 1:]) for i in range(len(shape))]
    return (named("torch._utils", "_rebuild_tensor_v2") +
            tuple_of(storage, number(offset), tuple_of(*map(number, shape)), tuple_of(*map(number, stride)), b"\x89",
                     named("collections", "OrderedDict") + b")R") + b"R")


def torch(list_=None, change=None, pkl=None, wrap=None, method=0, byteorder=b"little", extra=(), root="archive/", storages=None):
    """change(name, fields): key, elements, kind, shape, stride, offset, raw, ops of a tensor. wrap(bytes of the dictionary):
    what is pickled."""
    items, members = bytearray(), []
    for i, (name, shape) in enumerate(tensors() if list_ is None else list_):
        f = dict(name="model." + name, key=str(i), kind="FloatStorage", shape=shape, stride=None, offset=0,
                 raw=floats(values(name, shape)), elements=math.prod(shape), ops=None)
        if change:
            change(name, f)
        ops = f["ops"] or tensor_of(storage_of(f["key"], f["elements"], f["kind"]), f["shape"], f["stride"], f["offset"])
        items += text(f["name"]) + ops
        if f["raw"] is not None:
            members.append(Member(root + "data/" + f["key"], f["raw"], method))
    body = b"}(" + bytes(items) + b"u"
    data = pickle(wrap(body) if wrap else body, 2) if pkl is None else pkl
    head = [Member(root + "data.pkl", data, method)]
    if byteorder is not None:
        head.append(Member(root + "byteorder", byteorder))
    return archive(head + (members if storages is None else storages) + list(extra))


TORCH_OPTIONS = ["--spatial", "2,4,6", "--patch", "1,2,3", "--heads", "2", "--decoder-heads", "1"]

# ---- checkpoint.bin of `segfm train` ------------------------------------------------------------------------------------------


def run_checkpoint(text_=b"steps 1\n", width=4, tensor_count=1, parameters=1, length=None, stage=0, step=0, steps=None, arrays=None,
                   magic=b"SEGFMTR1", log_bytes=0, digest=None):
    text_ += b"\0"
    body = magic + struct.pack("<4Q", width, tensor_count, parameters, len(text_) if length is None else length)
    body += struct.pack("<6Q3d", step, 0, stage, log_bytes, 0, 0, 0, 0, 0) + text_ + b"\0" * (-len(text_) % 8)
    body += (b"\0" * 8 * tensor_count if steps is None else steps)
    body += (b"\0" * 3 * width * parameters if arrays is None else arrays)
    h = 0
    for at in range(0, len(body), 65536):
        h = xxh64(body[at:at + 65536], h)
    return body + struct.pack("<Q", h if digest is None else digest)
