/* NIfTI-1 and NIfTI-2. The format: nifti1.h and nifti2.h of the NIfTI Data Format Working Group. Where the standard
   leaves a choice, nibabel's is taken, because that is what results are compared with.

   Both versions have the same fields at other offsets and widths: a table per version, one way to get and put a field.
   The header's bytes are kept as they were and changed in place when an image is written, so that everything this code
   does not know survives. */
#include "io.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the header's fields ------------------------------------------------------------------------------------- */

/* Offsets in bytes, and the widths of the fields that differ. datatype and bitpix have 2 bytes in both. */
typedef struct {
    size_t size, magic, datatype, bitpix, dim, pixdim, vox_offset, slope, inter, cal_max, cal_min;
    size_t intent_p, intent_code, intent_name, qform_code, sform_code, quatern, qoffset, srow, units;
    size_t dim_width, real_width, code_width, units_width;
} layout;

static const layout layout_1 = {.size = 348,
                                .magic = 344,
                                .datatype = 70,
                                .bitpix = 72,
                                .dim = 40,
                                .pixdim = 76,
                                .vox_offset = 108,
                                .slope = 112,
                                .inter = 116,
                                .cal_max = 124,
                                .cal_min = 128,
                                .intent_p = 56,
                                .intent_code = 68,
                                .intent_name = 328,
                                .qform_code = 252,
                                .sform_code = 254,
                                .quatern = 256,
                                .qoffset = 268,
                                .srow = 280,
                                .units = 123,
                                .dim_width = 2,
                                .real_width = 4,
                                .code_width = 2,
                                .units_width = 1};

static const layout layout_2 = {.size = 540,
                                .magic = 4,
                                .datatype = 12,
                                .bitpix = 14,
                                .dim = 16,
                                .pixdim = 104,
                                .vox_offset = 168,
                                .slope = 176,
                                .inter = 184,
                                .cal_max = 192,
                                .cal_min = 200,
                                .intent_p = 80,
                                .intent_code = 504,
                                .intent_name = 508,
                                .qform_code = 344,
                                .sform_code = 348,
                                .quatern = 352,
                                .qoffset = 376,
                                .srow = 400,
                                .units = 500,
                                .dim_width = 8,
                                .real_width = 8,
                                .code_width = 4,
                                .units_width = 4};

enum {
    intent_name_size = 16,
    extension_flags = 4, /* bytes between the header and the first extension or the voxels */
    units_space_mask = 7,
    units_metre = 1,
    units_mm = 2,
    units_micron = 3
};

static const layout *layout_of(const io_nifti *image) { return image->version == 2 ? &layout_2 : &layout_1; }

static uint64_t get_bits(const io_nifti *image, size_t at, size_t width) {
    uint64_t bits = 0;
    for (size_t k = 0; k < width; k++)
        bits |= (uint64_t)image->header[at + (image->big_endian ? width - 1 - k : k)] << (8 * k);
    return bits;
}

static void put_bits(io_nifti *image, size_t at, size_t width, uint64_t bits) {
    for (size_t k = 0; k < width; k++)
        image->header[at + (image->big_endian ? width - 1 - k : k)] = (unsigned char)(bits >> (8 * k) & 0xFFU);
}

static int64_t get_int(const io_nifti *image, size_t at, size_t width) {
    uint64_t bits = get_bits(image, at, width);
    if (width < 8 && (bits >> (8 * width - 1) & 1U) != 0) bits |= UINT64_MAX << (8 * width);
    int64_t value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void put_int(io_nifti *image, size_t at, size_t width, int64_t value) {
    put_bits(image, at, width, (uint64_t)value);
}

static double float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static double double_of(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Element i of a floating-point field. */
static double get_real(const io_nifti *image, size_t at, int i) {
    size_t width = layout_of(image)->real_width;
    uint64_t bits = get_bits(image, at + (size_t)i * width, width);
    return width == 8 ? double_of(bits) : float_of((uint32_t)bits);
}

static void put_real(io_nifti *image, size_t at, int i, double value) {
    size_t width = layout_of(image)->real_width;
    uint64_t bits = 0;
    if (width == 8) {
        memcpy(&bits, &value, sizeof value);
    } else {
        float narrow = (float)value;
        uint32_t narrow_bits;
        memcpy(&narrow_bits, &narrow, sizeof narrow);
        bits = narrow_bits;
    }
    put_bits(image, at + (size_t)i * width, width, bits);
}

/* ---- reading the header -------------------------------------------------------------------------------------- */

/* Where the voxels lie in their file. */
typedef struct {
    size_t offset, bytes;
} extent;

static const struct {
    int code;
    int bits; /* of one voxel */
    io_dtype dtype;
    const char *name;
} datatypes[] = {
    {2, 8, IO_U8, "uint8"},
    {4, 16, IO_I16, "int16"},
    {8, 32, IO_I32, "int32"},
    {16, 32, IO_F32, "float32"},
    {64, 64, IO_F64, "float64"},
    {256, 8, IO_I8, "int8"},
    {512, 16, IO_U16, "uint16"},
    {768, 32, IO_U32, "uint32"},
    {1024, 64, IO_I64, "int64"},
    {1280, 64, IO_U64, "uint64"},
    /* known, but no scalar or too wide for this code */
    {0, 0, IO_NONE, "unknown"},
    {1, 1, IO_NONE, "1-bit"},
    {32, 64, IO_NONE, "complex64"},
    {128, 24, IO_NONE, "RGB24"},
    {1536, 128, IO_NONE, "float128"},
    {1792, 128, IO_NONE, "complex128"},
    {2048, 256, IO_NONE, "complex256"},
    {2304, 32, IO_NONE, "RGBA32"},
};

enum { datatype_count = sizeof datatypes / sizeof datatypes[0] };

/* sizeof_hdr gives version and byte order. */
static segfm_status read_version(const unsigned char *bytes, size_t n, io_nifti *out, segfm_error *error) {
    if (n < 4)
        return base_fail(error, SEGFM_BAD_INPUT, "the file holds %zu bytes, a NIfTI header needs at least 348", n);
    uint32_t little = base_le32(bytes), big = base_be32(bytes);
    if (little == layout_1.size || big == layout_1.size) out->version = 1;
    else if (little == layout_2.size || big == layout_2.size) out->version = 2;
    else
        return base_fail(error, SEGFM_BAD_INPUT,
                         "this is no NIfTI file: sizeof_hdr (offset 0) is 0x%x, need 348 (NIfTI-1) or 540 (NIfTI-2)",
                         (unsigned)little);
    size_t need = layout_of(out)->size;
    out->big_endian = big == need;
    if (n < need)
        return base_fail(error, SEGFM_BAD_INPUT, "the file ends inside the NIfTI-%d header: got %zu bytes, need %zu",
                         out->version, n, need);
    memcpy(out->header, bytes, need);
    return SEGFM_OK;
}

static segfm_status read_magic(io_nifti *out, segfm_error *error) {
    const unsigned char *magic = out->header + layout_of(out)->magic;
    const unsigned char digit = (unsigned char)('0' + out->version);
    bool known = magic[0] == 'n' && (magic[1] == '+' || magic[1] == 'i') && magic[2] == digit && magic[3] == 0;
    if (!known)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "the magic at offset %zu is %x %x %x %x, need \"n+%d\" or \"ni%d\" (an ANALYZE 7.5 header has "
                         "none; it is not read, because it does not say how the volume lies in space)",
                         layout_of(out)->magic, (unsigned)magic[0], (unsigned)magic[1], (unsigned)magic[2],
                         (unsigned)magic[3], out->version, out->version);
    out->pair = magic[1] == 'i';
    if (out->version == 1) return SEGFM_OK;
    const unsigned char *eol = magic + 4; /* broken by programs that convert line ends; some writers leave it zero */
    if (memcmp(eol, "\r\n\032\n", 4) == 0 || memcmp(eol, "\0\0\0\0", 4) == 0) return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_INPUT,
                     "the line-end check at offset 8 is %x %x %x %x, need d a 1a a: a conversion of line ends has "
                     "damaged the file",
                     (unsigned)eol[0], (unsigned)eol[1], (unsigned)eol[2], (unsigned)eol[3]);
}

static segfm_status read_datatype(io_nifti *out, segfm_error *error) {
    int code = (int)get_int(out, layout_of(out)->datatype, 2);
    int bits = (int)get_int(out, layout_of(out)->bitpix, 2), i = 0;
    while (i < datatype_count && datatypes[i].code != code) i++;
    if (i == datatype_count)
        return base_fail(error, SEGFM_BAD_INPUT, "datatype is %d, which NIfTI does not define", code);
    if (datatypes[i].dtype == IO_NONE)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "datatype is %d (%s), need an integer of 8 to 64 bits, float32 or float64", code,
                         datatypes[i].name);
    if (bits != datatypes[i].bits)
        return base_fail(error, SEGFM_BAD_INPUT, "bitpix is %d, need %d for datatype %d (%s)", bits, datatypes[i].bits,
                         code, datatypes[i].name);
    out->datatype = code;
    out->dtype = datatypes[i].dtype;
    return SEGFM_OK;
}

/* dim: the numbers of voxels, and how many bytes all of them take. */
static segfm_status read_dim(io_nifti *out, size_t *bytes, segfm_error *error) {
    const layout *at = layout_of(out);
    int64_t dim[8];
    for (int i = 0; i < 8; i++) dim[i] = get_int(out, at->dim + (size_t)i * at->dim_width, at->dim_width);
    if (dim[0] < 1 || dim[0] > 7)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "dim[0] is %lld in the byte order of sizeof_hdr, need 1 to 7 dimensions", (long long)dim[0]);
    size_t total = io_dtype_size(out->dtype);
    int64_t product[4] = {1, 1, 1, 1}; /* nx, ny, nz, volumes */
    for (int i = 1; i <= dim[0]; i++) {
        if (dim[i] < 1)
            return base_fail(error, SEGFM_BAD_INPUT, "dim[%d] is %lld, need at least 1", i, (long long)dim[i]);
        if ((uint64_t)dim[i] > SIZE_MAX || !base_mul(total, (size_t)dim[i], &total) || total > PTRDIFF_MAX)
            return base_fail(error, SEGFM_BAD_INPUT,
                             "dim[1] to dim[%d] (%lld) multiply to more bytes than can be addressed", i,
                             (long long)dim[i]);
        product[i < 4 ? i - 1 : 3] *= dim[i]; /* fits, because total does */
    }
    out->nx = product[0];
    out->ny = product[1];
    out->nz = product[2];
    out->volumes = product[3];
    *bytes = total;
    return SEGFM_OK;
}

/* NIfTI-1 keeps vox_offset as a float, which can be anything. */
static segfm_status read_vox_offset(const io_nifti *image, size_t *offset, segfm_error *error) {
    const layout *at = layout_of(image);
    int64_t value;
    if (image->version == 1) {
        double real_value = get_real(image, at->vox_offset, 0);
        if (isnan(real_value)) return base_fail(error, SEGFM_BAD_INPUT, "vox_offset is not a number");
        if (!(fabs(real_value) < 9007199254740992.0)) /* 2^53: beyond, not every whole number is a double */
            return base_fail(error, SEGFM_BAD_INPUT, "vox_offset is larger than any file");
        value = (int64_t)real_value;
        if ((double)value != real_value)
            return base_fail(error, SEGFM_BAD_INPUT, "vox_offset is not a whole number, but %lld and a fraction",
                             (long long)value);
    } else {
        value = get_int(image, at->vox_offset, 8);
    }
    int64_t least = image->pair ? 0 : (int64_t)(at->size + extension_flags);
    if (value < least || (uint64_t)value > PTRDIFF_MAX) /* the latter where addresses have 32 bits */
        return base_fail(error, SEGFM_BAD_INPUT, "vox_offset is %lld, need at least %lld: %s", (long long)value,
                         (long long)least,
                         value >= least ? "no file is that large"
                         : image->pair  ? "it counts from the start of the .img file"
                                        : "the voxels of a single-file image follow the header");
    *offset = (size_t)value;
    return SEGFM_OK;
}

/* As nibabel: a slope of 0, NaN or infinity means "not scaled". */
static segfm_status read_scaling(io_nifti *out, segfm_error *error) {
    double slope = get_real(out, layout_of(out)->slope, 0), inter = get_real(out, layout_of(out)->inter, 0);
    out->slope = 1;
    out->inter = 0;
    if (slope == 0 || !isfinite(slope)) return SEGFM_OK;
    if (!isfinite(inter))
        return base_fail(error, SEGFM_BAD_INPUT, "scl_inter is %s while scl_slope is valid, need a finite number",
                         isnan(inter) ? "not a number" : "infinite");
    out->slope = slope;
    out->inter = inter;
    return SEGFM_OK;
}

/* A length of the header in mm. Division, because 0.001 is not a double and 1000 is. */
static double to_mm(const io_nifti *image, double length) {
    int64_t units = get_int(image, layout_of(image)->units, layout_of(image)->units_width) & units_space_mask;
    if (units == units_metre) return length * 1000;
    if (units == units_micron) return length / 1000;
    return length;
}

static void read_spacing(io_nifti *out) {
    for (int i = 0; i < 3; i++) {
        double length = to_mm(out, fabs(get_real(out, layout_of(out)->pixdim, i + 1)));
        out->spacing[i] = length == 0 || !isfinite(length) ? 1 : length; /* 1e306 m are no double of mm */
    }
}

static segfm_status read_sform(io_nifti *out, segfm_error *error) {
    for (int row = 0; row < 3; row++)
        for (int column = 0; column < 4; column++) {
            double value = to_mm(out, get_real(out, layout_of(out)->srow, 4 * row + column));
            if (!isfinite(value))
                return base_fail(error, SEGFM_BAD_INPUT,
                                 "srow_%c[%d] is not a finite number, but sform_code says that it is used", 'x' + row,
                                 column);
            out->affine[row][column] = value;
        }
    return SEGFM_OK;
}

/* The rotation of quaternion (a,b,c,d); scaled by its length, which rounding leaves a little off 1. */
static void rotation_of(double a, double b, double c, double d, double r[3][3]) {
    double s = 2 / (a * a + b * b + c * c + d * d);
    r[0][0] = 1 - s * (c * c + d * d);
    r[0][1] = s * (b * c - a * d);
    r[0][2] = s * (b * d + a * c);
    r[1][0] = s * (b * c + a * d);
    r[1][1] = 1 - s * (b * b + d * d);
    r[1][2] = s * (c * d - a * b);
    r[2][0] = s * (b * d - a * c);
    r[2][1] = s * (c * d + a * b);
    r[2][2] = 1 - s * (b * b + c * c);
}

static segfm_status read_qform(io_nifti *out, segfm_error *error) {
    const layout *at = layout_of(out);
    double q[3], offset[3], r[3][3];
    for (int i = 0; i < 3; i++) {
        q[i] = get_real(out, at->quatern, i);
        offset[i] = to_mm(out, get_real(out, at->qoffset, i));
        if (!isfinite(q[i]) || !isfinite(offset[i]))
            return base_fail(error, SEGFM_BAD_INPUT,
                             "%s_%c is not a finite number, but qform_code says that it is used",
                             isfinite(q[i]) ? "qoffset" : "quatern", isfinite(q[i]) ? 'x' + i : 'b' + i);
    }
    double square = 1 - (q[0] * q[0] + q[1] * q[1] + q[2] * q[2]);
    double rounding = 3 * (out->version == 1 ? 0x1p-23 : 0x1p-52); /* as nibabel: 3 units of the fields' type */
    if (square < -rounding)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "quatern_b, _c and _d are longer than a rotation's can be: need at most 1");
    rotation_of(square > 0 ? sqrt(square) : 0, q[0], q[1], q[2], r);
    double qfac = get_real(out, at->pixdim, 0) == -1 ? -1 : 1; /* anything but -1 counts as 1 */
    for (int row = 0; row < 3; row++) {
        for (int i = 0; i < 3; i++) out->affine[row][i] = r[row][i] * out->spacing[i] * (i == 2 ? qfac : 1);
        out->affine[row][3] = offset[row];
    }
    return SEGFM_OK;
}

/* nibabel's affine for a header without one: the origin in the volume's centre, x flipped (radiological), 1 mm along
   axes that the image does not have. */
static void base_affine(io_nifti *out) {
    const int64_t size[3] = {out->nx, out->ny, out->nz};
    int64_t axes = get_int(out, layout_of(out)->dim, layout_of(out)->dim_width);
    for (int i = 0; i < 3; i++) {
        double step = i < axes ? out->spacing[i] : 1;
        if (i == 0) step = -step;
        out->affine[i][i] = step;
        out->affine[i][3] = -((double)(size[i] - 1) / 2) * step;
    }
}

static segfm_status read_affine(io_nifti *out, segfm_error *error) {
    const layout *at = layout_of(out);
    if (get_int(out, at->sform_code, at->code_width) > 0) return read_sform(out, error);
    if (get_int(out, at->qform_code, at->code_width) > 0) return read_qform(out, error);
    base_affine(out);
    return SEGFM_OK;
}

/* Everything the header says; `bytes` may hold more than the header. */
static segfm_status read_header(const unsigned char *bytes, size_t n, io_nifti *out, extent *voxels,
                                segfm_error *error) {
    segfm_status status = read_version(bytes, n, out, error);
    if (status == SEGFM_OK) status = read_magic(out, error);
    if (status == SEGFM_OK) status = read_datatype(out, error);
    if (status == SEGFM_OK) status = read_dim(out, &voxels->bytes, error);
    if (status == SEGFM_OK) status = read_vox_offset(out, &voxels->offset, error);
    if (status == SEGFM_OK) status = read_scaling(out, error);
    if (status != SEGFM_OK) return status;
    read_spacing(out);
    return read_affine(out, error);
}

/* ---- gzip ---------------------------------------------------------------------------------------------------- */

enum {
    head_bytes = 1024,            /* inflated to learn the sizes: a header and the longest match held back */
    header_file_most = 1 << 24,   /* a .hdr file: the header and its extensions */
    trailing_bytes_most = 1 << 20 /* after the voxels: padding to blocks and the like */
};

/* A file's bytes as they are, or inflated. */
typedef struct {
    const unsigned char *bytes;
    size_t size;
    io_buffer inflated;
} content;

static segfm_status content_open(const unsigned char *bytes, size_t n, size_t limit, content *c, segfm_error *error) {
    *c = (content){bytes, n, {0}};
    if (!io_is_gzip(bytes, n)) return SEGFM_OK;
    segfm_status status = io_gunzip(bytes, n, &c->inflated, limit, error);
    if (status != SEGFM_OK) io_buffer_free(&c->inflated);
    c->bytes = c->inflated.data;
    c->size = c->inflated.size;
    return status;
}

/* The first bytes of a gzip file, so that a few compressed bytes cannot ask for more memory than their header answers
   for. io_gunzip stops at its limit with an error and takes the size back, but what it wrote until then is in the
   buffer's memory; the buffer is filled with a byte that no header ends with, so the last other byte shows how much
   that is. A real error that comes later in the file comes again when the whole file is inflated. */
static segfm_status gunzip_head(const unsigned char *bytes, size_t n, io_buffer *head, segfm_error *error) {
    const unsigned char fill = 0xA5;
    segfm_error problem;
    segfm_status status = io_buffer_reserve(head, head_bytes, error);
    if (status != SEGFM_OK) return status;
    memset(head->data, fill, head_bytes);
    status = io_gunzip(bytes, n, head, head_bytes, &problem);
    if (status == SEGFM_OK) return status;
    size_t size = head_bytes;
    while (size > 0 && head->data[size - 1] == fill) size--;
    bool second = base_le32(head->data) == layout_2.size || base_be32(head->data) == layout_2.size;
    if (status == SEGFM_NO_MEMORY || size < (second ? layout_2.size : layout_1.size))
        return base_fail(error, status, "%s", problem.message);
    head->size = size;
    return SEGFM_OK;
}

/* The most bytes that a file with these voxels may hold. */
static size_t size_limit(extent voxels) {
    size_t limit;
    if (!base_add(voxels.offset, voxels.bytes, &limit) || !base_add(limit, trailing_bytes_most, &limit))
        return SIZE_MAX;
    return limit;
}

/* Reads the header of a file that holds one, then opens the whole file with the limit that follows from the header. */
static segfm_status open_header_file(const unsigned char *bytes, size_t n, io_nifti *out, extent *voxels, content *c,
                                     segfm_error *error) {
    *c = (content){0};
    io_buffer head = {0};
    segfm_status status = SEGFM_OK;
    if (io_is_gzip(bytes, n)) {
        status = gunzip_head(bytes, n, &head, error);
        if (status == SEGFM_OK) status = read_header(head.data, head.size, out, voxels, error);
        io_buffer_free(&head);
    } else {
        status = read_header(bytes, n, out, voxels, error);
    }
    if (status != SEGFM_OK) return status;
    return content_open(bytes, n, out->pair ? header_file_most : size_limit(*voxels), c, error);
}

/* ---- reading the rest ---------------------------------------------------------------------------------------- */

static segfm_status check_extent(const content *c, extent voxels, segfm_error *error) {
    if (c->size < voxels.offset)
        return base_fail(error, SEGFM_BAD_INPUT, "vox_offset is %zu, but the file ends at byte %zu", voxels.offset,
                         c->size);
    size_t got = c->size - voxels.offset;
    if (got < voxels.bytes)
        return base_fail(error, SEGFM_BAD_INPUT, "the voxels are cut short: got %zu bytes from offset %zu, need %zu",
                         got, voxels.offset, voxels.bytes);
    if (got - voxels.bytes > trailing_bytes_most)
        return base_fail(error, SEGFM_BAD_INPUT, "%zu bytes follow the %zu bytes of voxels that the header describes",
                         got - voxels.bytes, voxels.bytes);
    return SEGFM_OK;
}

/* Moves the voxels out of the content. An inflated file is large: its own memory becomes the voxels'. */
static segfm_status take_voxels(content *c, extent voxels, io_nifti *out, segfm_error *error) {
    if (c->inflated.data == NULL) return io_buffer_append(&out->data, c->bytes + voxels.offset, voxels.bytes, error);
    memmove(c->inflated.data, c->inflated.data + voxels.offset, voxels.bytes);
    out->data = c->inflated;
    out->data.size = voxels.bytes;
    c->inflated = (io_buffer){0};
    return SEGFM_OK;
}

/* The bytes between the header and `end`: flags, extensions, padding. */
static segfm_status take_extensions(const content *c, size_t end, io_nifti *out, segfm_error *error) {
    size_t begin = layout_of(out)->size;
    if (end <= begin) return SEGFM_OK;
    if (end - begin > header_file_most && out->pair)
        return base_fail(error, SEGFM_BAD_INPUT, "the header file holds %zu bytes, need at most %d", end,
                         header_file_most);
    return io_buffer_append(&out->extensions, c->bytes + begin, end - begin, error);
}

/* Reads the file with the header: all of a single-file image, or a pair's half. *voxels says where the rest is. */
static segfm_status parse_header_file(const unsigned char *bytes, size_t n, io_nifti *out, extent *voxels,
                                      segfm_error *error) {
    content c;
    segfm_status status = open_header_file(bytes, n, out, voxels, &c, error);
    if (status == SEGFM_OK && !out->pair) status = check_extent(&c, *voxels, error);
    if (status == SEGFM_OK) status = take_extensions(&c, out->pair ? c.size : voxels->offset, out, error);
    if (status == SEGFM_OK && !out->pair) status = take_voxels(&c, *voxels, out, error);
    io_buffer_free(&c.inflated);
    return status;
}

static segfm_status parse_voxel_file(const unsigned char *bytes, size_t n, io_nifti *out, extent voxels,
                                     segfm_error *error) {
    content c;
    segfm_status status = content_open(bytes, n, size_limit(voxels), &c, error);
    if (status == SEGFM_OK) status = check_extent(&c, voxels, error);
    if (status == SEGFM_OK) status = take_voxels(&c, voxels, out, error);
    io_buffer_free(&c.inflated);
    return status;
}

void io_nifti_free(io_nifti *image) {
    io_buffer_free(&image->extensions);
    io_buffer_free(&image->data);
    memset(image, 0, sizeof *image);
}

segfm_status io_nifti_parse(const unsigned char *bytes, size_t n, io_nifti *out, segfm_error *error) {
    extent voxels;
    memset(out, 0, sizeof *out);
    segfm_status status = parse_header_file(bytes, n, out, &voxels, error);
    if (status == SEGFM_OK && out->pair)
        status = base_fail(error, SEGFM_BAD_INPUT,
                           "the magic \"ni%d\" says that the voxels are in a second file, need a single-file image",
                           out->version);
    if (status != SEGFM_OK) io_nifti_free(out);
    return status;
}

/* ---- names --------------------------------------------------------------------------------------------------- */

typedef enum { name_other, name_nii, name_hdr, name_img } name_kind;

typedef struct {
    name_kind kind;
    bool gz;
    size_t stem; /* characters before ".nii", ".hdr" or ".img" */
} file_name;

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

/* Whether path[0 … length) ends in `ending`, upper or lower case. */
static bool ends_in(const char *path, size_t length, const char *ending) {
    size_t n = strlen(ending);
    if (length < n) return false;
    for (size_t i = 0; i < n; i++)
        if (lower(path[length - n + i]) != ending[i]) return false;
    return true;
}

static file_name parse_name(const char *path) {
    file_name name = {name_other, false, strlen(path)};
    name.gz = ends_in(path, name.stem, ".gz");
    if (name.gz) name.stem -= 3;
    if (ends_in(path, name.stem, ".nii")) name.kind = name_nii;
    else if (ends_in(path, name.stem, ".hdr")) name.kind = name_hdr;
    else if (ends_in(path, name.stem, ".img")) name.kind = name_img;
    if (name.kind != name_other) name.stem -= 4;
    return name;
}

/* The other file's name of a pair, in memory of its own: SCAN.HDR → SCAN.IMG. NULL: no memory. */
static char *sibling_path(const char *path, file_name name, bool gz) {
    bool upper = path[name.stem + 1] != lower(path[name.stem + 1]);
    const char *ending = name.kind == name_hdr ? (upper ? ".IMG" : ".img") : (upper ? ".HDR" : ".hdr");
    char *sibling = malloc(name.stem + sizeof ".hdr.gz");
    if (sibling == NULL) return NULL;
    memcpy(sibling, path, name.stem);
    memcpy(sibling + name.stem, ending, sizeof ".hdr");
    if (gz) memcpy(sibling + name.stem + 4, upper ? ".GZ" : ".gz", sizeof ".gz");
    return sibling;
}

/* Maps the other file of a pair, which may be compressed when this one is not. *sibling is its name, to be freed. */
static segfm_status map_sibling(const char *path, file_name name, io_mapping *map, char **sibling, segfm_error *error) {
    segfm_error first = {0};
    segfm_status status = SEGFM_OK;
    for (int attempt = 0; attempt < 2; attempt++) {
        segfm_error problem;
        *sibling = sibling_path(path, name, attempt == 0 ? name.gz : !name.gz);
        if (*sibling == NULL) return base_fail(error, SEGFM_NO_MEMORY, "out of memory for a file name");
        status = io_map_file(*sibling, map, &problem);
        if (status == SEGFM_OK) return status;
        free(*sibling);
        *sibling = NULL;
        if (attempt == 0) first = problem;
    }
    return base_fail(error, first.status, "its %s file %s %s", name.kind == name_hdr ? "voxel" : "header", first.where,
                     first.message);
}

/* Parses the header in `map`; when the voxels are in a second file, reads that too. voxel_path: the file that was asked
   for, or NULL when it is to be looked for. */
static segfm_status read_image(const char *path, const char *voxel_path, const io_mapping *map, io_nifti *out,
                               segfm_error *error) {
    extent voxels;
    segfm_status status = parse_header_file(map->data, map->size, out, &voxels, error);
    if (status != SEGFM_OK) return status;
    if (voxel_path != NULL && !out->pair)
        return base_fail(error, SEGFM_BAD_INPUT, "the magic \"n+%d\" says that this file has its own voxels, not %s",
                         out->version, voxel_path);
    if (!out->pair) return SEGFM_OK;
    file_name name = parse_name(path);
    if (name.kind != name_hdr)
        return base_fail(
            error, SEGFM_BAD_INPUT,
            "the magic \"ni%d\" says that the voxels are in a second file: name one that ends in .hdr or .img",
            out->version);
    io_mapping second;
    char *sibling = NULL;
    if (voxel_path != NULL) status = io_map_file(voxel_path, &second, error);
    else status = map_sibling(path, name, &second, &sibling, error);
    if (status != SEGFM_OK) return status;
    status = parse_voxel_file(second.data, second.size, out, voxels, error);
    if (status != SEGFM_OK) base_fail_where(error, status, voxel_path != NULL ? voxel_path : sibling);
    io_unmap_file(&second);
    free(sibling);
    return status;
}

/* Given an .img: finds its header, then reads both. */
static segfm_status read_from_img(const char *path, file_name name, io_nifti *out, segfm_error *error) {
    io_mapping map;
    char *header;
    segfm_status status = map_sibling(path, name, &map, &header, error);
    if (status != SEGFM_OK) return status;
    status = read_image(header, path, &map, out, error);
    if (status != SEGFM_OK) base_fail_where(error, status, header);
    io_unmap_file(&map);
    free(header);
    return status;
}

segfm_status io_nifti_read(const char *path, io_nifti *out, segfm_error *error) {
    memset(out, 0, sizeof *out);
    file_name name = parse_name(path);
    segfm_status status;
    if (name.kind == name_img) {
        status = read_from_img(path, name, out, error);
    } else {
        io_mapping map;
        status = io_map_file(path, &map, error);
        if (status == SEGFM_OK) {
            status = read_image(path, NULL, &map, out, error);
            io_unmap_file(&map);
        }
    }
    if (status == SEGFM_OK) return status;
    io_nifti_free(out);
    return base_fail_where(error, status, path);
}

/* ---- voxel values -------------------------------------------------------------------------------------------- */

/* Voxel i of a volume's array, scaled. nibabel's order of roundings; no sum when inter is 0, which would turn -0 into
   0. */
static double scaled_value(const io_nifti *image, const io_array *volume, size_t i) {
    double value = io_array_get(volume, i) * image->slope;
    return image->inter == 0 ? value : value + image->inter;
}

/* Volume `index` as an array of stored values. */
static segfm_status find_volume(const io_nifti *image, int64_t index, io_array *out, segfm_error *error) {
    *out = (io_array){.dtype = image->dtype, .big_endian = image->big_endian};
    if (index < 0 || index >= image->volumes)
        return base_fail(error, SEGFM_BAD_INPUT, "volume %lld was asked for, the image has %lld (counted from 0)",
                         (long long)index, (long long)image->volumes);
    out->bytes = image->data.size / (size_t)image->volumes;
    if (out->bytes == 0) return base_fail(error, SEGFM_BAD_INPUT, "the image is a header without voxels");
    out->data = image->data.data + (size_t)index * out->bytes;
    out->count = out->bytes / io_dtype_size(image->dtype);
    return SEGFM_OK;
}

/* Begins an error with the voxel's place: "voxel (3,4,5) of volume 0 …". */
static segfm_status fail_voxel(const io_nifti *image, int64_t volume, size_t i, const char *what, segfm_error *error) {
    size_t nx = (size_t)image->nx, ny = (size_t)image->ny;
    return base_fail(error, SEGFM_BAD_INPUT, "voxel (%zu,%zu,%zu) of volume %lld %s", i % nx, i / nx % ny, i / nx / ny,
                     (long long)volume, what);
}

segfm_status io_nifti_voxels(const io_nifti *image, int64_t index, float *out, segfm_error *error) {
    io_array volume;
    segfm_status status = find_volume(image, index, &volume, error);
    if (status != SEGFM_OK) return status;
    for (size_t i = 0; i < volume.count; i++) {
        double value = scaled_value(image, &volume, i);
        if (!(fabs(value) < 0x1.ffffffp127)) /* the least double that rounds to an infinite float */
            return fail_voxel(image, index, i,
                              isnan(value)   ? "is not a number, need finite values"
                              : isinf(value) ? "is infinite, need finite values"
                                             : "is too large for float32, need finite values",
                              error);
        out[i] = (float)value;
    }
    return SEGFM_OK;
}

/* Says what a label is that is none, without a formatter for fractions. */
static segfm_status fail_label(const io_nifti *image, int64_t volume, size_t i, double value, segfm_error *error) {
    static const char need[] = "need a whole number from 0 to 65535";
    size_t nx = (size_t)image->nx, ny = (size_t)image->ny, x = i % nx, y = i / nx % ny, z = i / nx / ny;
    if (!(fabs(value) < 9007199254740992.0))
        return base_fail(error, SEGFM_BAD_INPUT, "label (%zu,%zu,%zu) of volume %lld is %s, %s", x, y, z,
                         (long long)volume, isnan(value) ? "not a number" : "huge", need);
    long long whole = (long long)floor(value);
    if ((double)whole == value)
        return base_fail(error, SEGFM_BAD_INPUT, "label (%zu,%zu,%zu) of volume %lld is %lld, %s", x, y, z,
                         (long long)volume, whole, need);
    return base_fail(error, SEGFM_BAD_INPUT, "label (%zu,%zu,%zu) of volume %lld lies between %lld and %lld, %s", x, y,
                     z, (long long)volume, whole, whole + 1, need);
}

segfm_status io_nifti_labels(const io_nifti *image, int64_t index, uint16_t *out, segfm_error *error) {
    io_array volume;
    segfm_status status = find_volume(image, index, &volume, error);
    if (status != SEGFM_OK) return status;
    for (size_t i = 0; i < volume.count; i++) {
        double value = scaled_value(image, &volume, i);
        if (!(value >= 0 && value <= 65535) || (double)(uint16_t)value != value)
            return fail_label(image, index, i, value, error);
        out[i] = (uint16_t)value;
    }
    return SEGFM_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

/* Length of the flags and the extensions, without what follows them: a single-file image may be padded up to its
   voxels, while in a .hdr file readers take everything up to its end for extensions. */
static size_t extensions_length(const io_nifti *image) {
    const io_buffer *e = &image->extensions;
    if (e->size < extension_flags) return 0;
    size_t at = extension_flags;
    while (e->data[0] != 0 && e->size - at >= 16) {
        size_t length = image->big_endian ? base_be32(e->data + at) : base_le32(e->data + at);
        if (length < 8 || length > e->size - at) break;
        at += length;
    }
    return at;
}

/* Appends what stands between header and voxels in the new file. */
static segfm_status append_extensions(const io_nifti *like, bool pair, io_buffer *file, segfm_error *error) {
    static const unsigned char zeros[16] = {0};
    const io_buffer *e = &like->extensions;
    bool moves = like->pair != pair; /* between the two kinds of file; otherwise the bytes stay as they are */
    size_t length = moves && pair ? extensions_length(like) : e->size;
    segfm_status status = io_buffer_append(file, e->data, length, error);
    if (status == SEGFM_OK && length < extension_flags)
        status = io_buffer_append(file, zeros, extension_flags - length, error);
    if (status == SEGFM_OK && moves && !pair) /* voxels at a multiple of 16, as the standard recommends */
        status = io_buffer_append(file, zeros, (16 - file->size % 16) % 16, error);
    return status;
}

/* The new image's header, as an image without data: `like` with other voxels. */
static void change_header(const io_nifti *like, io_dtype dtype, bool pair, io_nifti *out) {
    const layout *at = layout_of(like);
    *out = *like;
    out->extensions = (io_buffer){0};
    out->data = (io_buffer){0};
    int64_t axes = get_int(like, at->dim, at->dim_width);
    if (axes > 3 && like->volumes > 1) put_int(out, at->dim, at->dim_width, 3);
    for (size_t i = 4; i < 8; i++) put_int(out, at->dim + i * at->dim_width, at->dim_width, 1);
    for (int i = 0; i < datatype_count; i++)
        if (datatypes[i].dtype == dtype) {
            put_int(out, at->datatype, 2, datatypes[i].code);
            put_int(out, at->bitpix, 2, datatypes[i].bits);
        }
    put_real(out, at->slope, 0, 1);
    put_real(out, at->inter, 0, 0);
    put_real(out, at->cal_max, 0, 0);
    put_real(out, at->cal_min, 0, 0);
    for (int i = 0; i < 3; i++) put_real(out, at->intent_p, i, 0);
    put_int(out, at->intent_code, at->code_width, 0);
    memset(out->header + at->intent_name, 0, intent_name_size);
    out->header[at->magic + 1] = pair ? 'i' : '+';
}

static void put_vox_offset(io_nifti *image, size_t offset) {
    if (image->version == 1) put_real(image, layout_1.vox_offset, 0, (double)offset);
    else put_int(image, layout_2.vox_offset, 8, (int64_t)offset);
}

/* Appends count native-endian elements in the image's byte order. */
static segfm_status append_voxels(const io_nifti *image, const void *data, size_t count, size_t size, io_buffer *file,
                                  segfm_error *error) {
    size_t begin = file->size;
    segfm_status status = io_buffer_append(file, data, count * size, error);
    if (status != SEGFM_OK || size == 1 || image->big_endian == base_is_big_endian()) return status;
    io_turn_elements(file->data + begin, count, size);
    return SEGFM_OK;
}

/* Builds the bytes of the header file and of the voxel file; a single-file image is all in *header. */
static segfm_status build_files(const io_nifti *like, io_dtype dtype, bool pair, const void *data, size_t count,
                                io_buffer *header, io_buffer *voxels, segfm_error *error) {
    io_nifti image;
    size_t header_size = layout_of(like)->size;
    change_header(like, dtype, pair, &image);
    if (!pair) { /* one allocation, at the full size */
        size_t total = header_size + like->extensions.size + 16 + count * io_dtype_size(dtype);
        segfm_status reserved = io_buffer_reserve(header, total, error);
        if (reserved != SEGFM_OK) return reserved;
    }
    segfm_status status = io_buffer_append(header, image.header, header_size, error);
    if (status == SEGFM_OK) status = append_extensions(like, pair, header, error);
    if (status != SEGFM_OK) return status;
    put_vox_offset(&image, pair ? 0 : header->size); /* known only now */
    memcpy(header->data, image.header, header_size);
    return append_voxels(&image, data, count, io_dtype_size(dtype), pair ? voxels : header, error);
}

/* Writes bytes, compressed if asked for, under a temporary name: io_output_commit makes them the file. */
static segfm_status stage_file(const char *path, const io_buffer *bytes, bool gz, io_output **out, segfm_error *error) {
    io_buffer packed = {0};
    segfm_status status = gz ? io_gzip(bytes->data, bytes->size, &packed, error) : SEGFM_OK;
    const io_buffer *file = gz ? &packed : bytes;
    if (status == SEGFM_OK) status = io_output_open(path, out, error);
    if (status == SEGFM_OK) {
        status = io_output_write(*out, file->data, file->size, error);
        if (status != SEGFM_OK) {
            io_output_abort(*out);
            *out = NULL;
        }
    }
    io_buffer_free(&packed);
    return status;
}

static segfm_status write_single(const char *path, bool gz, const io_buffer *file, segfm_error *error) {
    io_output *o = NULL;
    segfm_status status = stage_file(path, file, gz, &o, error);
    return status == SEGFM_OK ? io_output_commit(o, error) : status;
}

/* Both files are complete on the disk before the first gets its name; the header, which makes the pair an image, comes
   last. */
static segfm_status write_pair(const char *path, file_name name, const io_buffer *header, const io_buffer *voxels,
                               segfm_error *error) {
    char *sibling = sibling_path(path, name, name.gz);
    if (sibling == NULL) return base_fail(error, SEGFM_NO_MEMORY, "out of memory for a file name");
    const char *hdr = name.kind == name_hdr ? path : sibling, *img = name.kind == name_hdr ? sibling : path;
    io_output *hdr_out = NULL, *img_out = NULL;
    segfm_status status = stage_file(img, voxels, name.gz, &img_out, error);
    if (status == SEGFM_OK) status = stage_file(hdr, header, name.gz, &hdr_out, error);
    if (status == SEGFM_OK) {
        status = io_output_commit(img_out, error);
        img_out = NULL;
    }
    if (status == SEGFM_OK) {
        status = io_output_commit(hdr_out, error);
        hdr_out = NULL;
    }
    io_output_abort(img_out);
    io_output_abort(hdr_out);
    free(sibling);
    return status;
}

/* Elements of a volume, when header and memory can hold it. */
static segfm_status check_output(const io_nifti *like, io_dtype dtype, size_t *count, segfm_error *error) {
    if (dtype != IO_U8 && dtype != IO_U16 && dtype != IO_F32)
        return base_fail(error, SEGFM_BAD_USAGE, "images are written as uint8, uint16 or float32 only");
    const int64_t dim[3] = {like->nx, like->ny, like->nz};
    const int64_t most = like->version == 1 ? INT16_MAX : INT64_MAX;
    size_t total = io_dtype_size(dtype);
    for (int i = 0; i < 3; i++) {
        if (dim[i] < 1 || dim[i] > most)
            return base_fail(error, SEGFM_BAD_INPUT,
                             "the image has %lld voxels along %c, a NIfTI-%d header holds 1 to %lld", (long long)dim[i],
                             'x' + i, like->version, (long long)most);
        if ((uint64_t)dim[i] > SIZE_MAX || !base_mul(total, (size_t)dim[i], &total) || total > PTRDIFF_MAX)
            return base_fail(error, SEGFM_NO_MEMORY, "the image has more voxels than can be addressed");
    }
    *count = total / io_dtype_size(dtype);
    return SEGFM_OK;
}

segfm_status io_nifti_write_like(const char *path, const io_nifti *like, io_dtype dtype, const void *data,
                                 segfm_error *error) {
    file_name name = parse_name(path);
    if (name.kind == name_other) {
        base_fail(error, SEGFM_BAD_USAGE, "the name must end in .nii, .hdr or .img, each with or without .gz");
        return base_fail_where(error, SEGFM_BAD_USAGE, path);
    }
    bool pair = name.kind != name_nii;
    size_t count = 0;
    io_buffer header = {0}, voxels = {0};
    segfm_status status = check_output(like, dtype, &count, error);
    if (status == SEGFM_OK) status = build_files(like, dtype, pair, data, count, &header, &voxels, error);
    if (status == SEGFM_OK)
        status = pair ? write_pair(path, name, &header, &voxels, error) : write_single(path, name.gz, &header, error);
    io_buffer_free(&header);
    io_buffer_free(&voxels);
    return status == SEGFM_OK ? status : base_fail_where(error, status, path);
}

void io_nifti_init(io_nifti *out, int64_t nx, int64_t ny, int64_t nz, const double spacing[3]) {
    const int64_t size[3] = {nx, ny, nz};
    memset(out, 0, sizeof *out);
    out->version = 1;
    out->volumes = 1;
    out->nx = nx;
    out->ny = ny;
    out->nz = nz;
    out->datatype = 2;
    out->dtype = IO_U8;
    out->slope = 1;
    put_int(out, 0, 4, (int64_t)layout_1.size);
    put_int(out, layout_1.dim, 2, 3);
    for (size_t i = 4; i < 8; i++) put_int(out, layout_1.dim + 2 * i, 2, 1);
    for (int i = 0; i < 8; i++) put_real(out, layout_1.pixdim, i, 1);
    for (int i = 0; i < 3; i++) {
        bool usable = isfinite(spacing[i]) && spacing[i] != 0;
        out->spacing[i] = usable ? fabs(spacing[i]) : 1;
        out->affine[i][i] = out->spacing[i];
        put_int(out, layout_1.dim + 2 * (size_t)(i + 1), 2, size[i]);
        put_real(out, layout_1.pixdim, i + 1, out->spacing[i]);
        put_real(out, layout_1.srow, 5 * i, out->spacing[i]); /* the diagonal */
    }
    put_int(out, layout_1.datatype, 2, out->datatype);
    put_int(out, layout_1.bitpix, 2, 8);
    put_real(out, layout_1.slope, 0, 1);
    put_int(out, layout_1.sform_code, 2, 1);
    put_int(out, layout_1.units, 1, units_mm);
    put_vox_offset(out, layout_1.size + extension_flags);
    memcpy(out->header + layout_1.magic, "n+1", 4);
}
