/* NIfTI: headers written byte by byte, both versions and byte orders, read, damaged, and written again. */
#include "../io/io.h"
#include "test.h"

#include <dirent.h>
#include <unistd.h>

/* ---- fixtures ------------------------------------------------------------------------------------------------ */

/* The format's offsets, typed anew from its specification. */
typedef enum {
    SIZEOF_HDR,
    DIM,
    INTENT_P,
    INTENT_CODE,
    DATATYPE,
    BITPIX,
    PIXDIM,
    VOX_OFFSET,
    SLOPE,
    INTER,
    UNITS,
    CAL_MAX,
    CAL_MIN,
    DESCRIP,
    QFORM,
    SFORM,
    QUATERN,
    QOFFSET,
    SROW,
    INTENT_NAME,
    MAGIC,
    FIELDS
} field;

typedef enum { INTEGER, REAL, TEXT } kind;

static const struct {
    kind kind;
    int at[2], width[2]; /* NIfTI-1, NIfTI-2 */
} fields[FIELDS] = {
    [SIZEOF_HDR] = {INTEGER, {0, 0}, {4, 4}}, [DIM] = {INTEGER, {40, 16}, {2, 8}},
    [INTENT_P] = {REAL, {56, 80}, {4, 8}},    [INTENT_CODE] = {INTEGER, {68, 504}, {2, 4}},
    [DATATYPE] = {INTEGER, {70, 12}, {2, 2}}, [BITPIX] = {INTEGER, {72, 14}, {2, 2}},
    [PIXDIM] = {REAL, {76, 104}, {4, 8}},     [VOX_OFFSET] = {REAL, {108, 168}, {4, 8}}, /* 2: an integer */
    [SLOPE] = {REAL, {112, 176}, {4, 8}},     [INTER] = {REAL, {116, 184}, {4, 8}},
    [UNITS] = {INTEGER, {123, 500}, {1, 4}},  [CAL_MAX] = {REAL, {124, 192}, {4, 8}},
    [CAL_MIN] = {REAL, {128, 200}, {4, 8}},   [DESCRIP] = {TEXT, {148, 240}, {80, 80}},
    [QFORM] = {INTEGER, {252, 344}, {2, 4}},  [SFORM] = {INTEGER, {254, 348}, {2, 4}},
    [QUATERN] = {REAL, {256, 352}, {4, 8}},   [QOFFSET] = {REAL, {268, 376}, {4, 8}},
    [SROW] = {REAL, {280, 400}, {4, 8}},      [INTENT_NAME] = {TEXT, {328, 508}, {16, 16}},
    [MAGIC] = {TEXT, {344, 4}, {4, 4}},
};

/* The four kinds of header. */
typedef struct {
    int version;
    bool big;
} form;

static const form forms[4] = {{1, false}, {1, true}, {2, false}, {2, true}};

/* A file under construction. */
typedef struct {
    form form;
    size_t size; /* bytes in use */
    unsigned char bytes[16384];
} image_file;

static void put_bits(unsigned char *p, int width, bool big, uint64_t bits) {
    for (int k = 0; k < width; k++) p[big ? width - 1 - k : k] = (unsigned char)(bits >> (8 * k) & 0xFF);
}

static uint64_t float_bits(double v) {
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

static uint64_t double_bits(double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    return bits;
}

/* Sets element i of a field. */
static void set(image_file *f, field name, int i, double value) {
    int second = f->form.version - 1, width = fields[name].width[second];
    bool real_field = fields[name].kind == REAL && !(name == VOX_OFFSET && second == 1);
    uint64_t bits = real_field ? (width == 8 ? double_bits(value) : float_bits(value)) : (uint64_t)(int64_t)value;
    put_bits(f->bytes + fields[name].at[second] + i * width, width, f->form.big, bits);
}

static void set_text(image_file *f, field name, const char *text, size_t n) {
    memcpy(f->bytes + fields[name].at[f->form.version - 1], text, n);
}

static size_t header_size(form f) { return f.version == 1 ? 348 : 540; }

enum { NX = 5, NY = 4, NZ = 3, NT = 2, VOXELS = NX * NY * NZ };
static const double spacing[3] = {0.75, 1.25, 3.5};
static const double sform[12] = {0.5, -0.25, 1, -10, 0.125, 1.5, 0.75, 20, -0.375, 0.0625, 3, -30.5};

/* Stored value of voxel i over all volumes: every one different, negative and positive. */
static int stored(int i) { return i * 37 - 1000; }

/* Header of a 5 x 4 x 3 x 2 image of int16 with every field in use. */
static void make_header(image_file *f, form form_, bool pair) {
    static const int dim[8] = {4, NX, NY, NZ, NT, 1, 1, 1};
    memset(f, 0, sizeof *f);
    f->form = form_;
    f->size = header_size(form_);
    set(f, SIZEOF_HDR, 0, (double)f->size);
    char magic[9] = "n+1\0\r\n\032\n";
    magic[1] = pair ? 'i' : '+';
    magic[2] = (char)('0' + form_.version);
    set_text(f, MAGIC, magic, form_.version == 1 ? 4 : 8);
    for (int i = 0; i < 8; i++) set(f, DIM, i, dim[i]);
    set(f, PIXDIM, 0, -1);
    for (int i = 0; i < 3; i++) set(f, PIXDIM, i + 1, spacing[i]);
    set(f, PIXDIM, 4, 2.5);
    for (int i = 0; i < 3; i++) set(f, INTENT_P, i, i + 0.5);
    set(f, INTENT_CODE, 0, 1002);
    set(f, DATATYPE, 0, 4);
    set(f, BITPIX, 0, 16);
    set(f, SLOPE, 0, 0.5);
    set(f, INTER, 0, -3.25);
    set(f, UNITS, 0, 2 + 8);
    set(f, CAL_MAX, 0, 77);
    set(f, CAL_MIN, 0, -77);
    set_text(f, DESCRIP, "a description", 13);
    set(f, QFORM, 0, 1);
    set(f, SFORM, 0, 2);
    for (int i = 0; i < 12; i++) set(f, SROW, i, sform[i]);
    for (int i = 0; i < 3; i++) set(f, QUATERN, i, 0.5), set(f, QOFFSET, i, 1.5 + 2 * i);
    set_text(f, INTENT_NAME, "labels", 6);
}

/* Appends zeros or, with `extension`, one of that many bytes, its flags set. */
static void add_extension(image_file *f, size_t extension) {
    f->bytes[f->size] = extension > 0;
    f->size += 4;
    if (extension == 0) return;
    put_bits(f->bytes + f->size, 4, f->form.big, extension);
    put_bits(f->bytes + f->size + 4, 4, f->form.big, 6);
    for (size_t i = 8; i < extension; i++) f->bytes[f->size + i] = (unsigned char)('a' + i % 26);
    f->size += extension;
}

static void add_voxel(image_file *f, int width, uint64_t bits) {
    put_bits(f->bytes + f->size, width, f->form.big, bits);
    f->size += (size_t)width;
}

static void add_voxels(image_file *f) {
    for (int i = 0; i < VOXELS * NT; i++) add_voxel(f, 2, (uint64_t)(int64_t)stored(i));
}

/* A whole single-file image. */
static void make_file(image_file *f, form form_, size_t extension) {
    make_header(f, form_, false);
    add_extension(f, extension);
    set(f, VOX_OFFSET, 0, (double)f->size);
    add_voxels(f);
}

/* Parses from memory of exactly the right size, so that a sanitizer sees every byte too far. */
static segfm_status parse_bytes(const unsigned char *bytes, size_t n, io_nifti *out, segfm_error *e) {
    unsigned char *exact = malloc(n + (n == 0));
    if (exact == NULL) exit(1);
    memcpy(exact, bytes, n);
    segfm_status status = io_nifti_parse(exact, n, out, e);
    free(exact);
    return status;
}

static segfm_status parse(const image_file *f, io_nifti *out, segfm_error *e) {
    return parse_bytes(f->bytes, f->size, out, e);
}

static bool is_empty(const io_nifti *image) {
    static const io_nifti empty;
    return memcmp(image, &empty, sizeof empty) == 0;
}

/* Whether it fails as bad input, with this text, and leaves nothing behind. */
static bool refused(const unsigned char *bytes, size_t n, const char *text) {
    io_nifti image;
    segfm_error e = {0};
    segfm_status status = parse_bytes(bytes, n, &image, &e);
    bool ok = status == SEGFM_BAD_INPUT && e.status == status && strstr(e.message, text) != NULL && is_empty(&image);
    if (!ok) printf("    status %d, message \"%s\", need \"%s\"\n", (int)status, e.message, text);
    io_nifti_free(&image);
    return ok;
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-12 * (fabs(b) + 1); }

static bool affine_is(const io_nifti *image, const double want[12]) {
    for (int i = 0; i < 12; i++)
        if (!near(image->affine[i / 4][i % 4], want[i])) {
            printf("    affine[%d][%d] is %.17g, need %.17g\n", i / 4, i % 4, image->affine[i / 4][i % 4], want[i]);
            return false;
        }
    return true;
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

static void test_fields(void) {
    for (int k = 0; k < 4; k++)
        for (size_t extension = 0; extension <= 48; extension += 48) {
            static image_file f;
            io_nifti image;
            segfm_error e = {0};
            make_file(&f, forms[k], extension);
            if (!CHECK(parse(&f, &image, &e) == SEGFM_OK)) continue;
            CHECK(e.status == SEGFM_OK && e.message[0] == '\0');
            CHECK(image.version == forms[k].version && image.big_endian == forms[k].big && !image.pair);
            CHECK(image.nx == NX && image.ny == NY && image.nz == NZ && image.volumes == NT);
            for (int i = 0; i < 3; i++) CHECK(image.spacing[i] == spacing[i]);
            CHECK(affine_is(&image, sform));
            CHECK(image.datatype == 4 && image.dtype == IO_I16 && image.slope == 0.5 && image.inter == -3.25);
            size_t header = header_size(forms[k]);
            CHECK(memcmp(image.header, f.bytes, header) == 0);
            CHECK(image.extensions.size == 4 + extension);
            CHECK(memcmp(image.extensions.data, f.bytes + header, 4 + extension) == 0);
            CHECK(image.data.size == VOXELS * NT * 2);
            CHECK(memcmp(image.data.data, f.bytes + header + 4 + extension, image.data.size) == 0);
            for (int t = 0; t < NT; t++) {
                float voxels[VOXELS];
                CHECK(io_nifti_voxels(&image, t, voxels, &e) == SEGFM_OK);
                bool same = true;
                for (int i = 0; i < VOXELS; i++)
                    same = same && voxels[i] == (float)(stored(t * VOXELS + i) * 0.5 - 3.25);
                CHECK(same);
            }
            io_nifti_free(&image);
            CHECK(is_empty(&image));
        }
}

/* Replaces the voxels: `n` of them in a row along x. */
static void make_row(image_file *f, form form_, int datatype, int bits, int n, const uint64_t *voxels) {
    make_header(f, form_, false);
    add_extension(f, 0);
    set(f, VOX_OFFSET, 0, (double)f->size);
    set(f, DIM, 0, 3);
    set(f, DIM, 1, n);
    for (int i = 2; i < 5; i++) set(f, DIM, i, 1);
    set(f, DATATYPE, 0, datatype);
    set(f, BITPIX, 0, bits);
    set(f, SLOPE, 0, 1);
    set(f, INTER, 0, 0);
    for (int i = 0; i < n; i++) add_voxel(f, bits / 8, voxels[i]);
}

static void check_row(int datatype, int bits, io_dtype dtype, int n, const uint64_t *voxels, const float *want) {
    for (int k = 0; k < 4; k++) {
        static image_file f;
        io_nifti image;
        float got[16] = {0};
        make_row(&f, forms[k], datatype, bits, n, voxels);
        CHECK(parse(&f, &image, NULL) == SEGFM_OK);
        CHECK(image.dtype == dtype && image.nx == n && image.ny == 1 && image.nz == 1 && image.volumes == 1);
        CHECK(io_nifti_voxels(&image, 0, got, NULL) == SEGFM_OK);
        CHECK(memcmp(got, want, (size_t)n * sizeof *got) == 0);
        io_nifti_free(&image);
    }
}

static void test_datatypes(void) {
    check_row(2, 8, IO_U8, 4, (uint64_t[]){0, 1, 128, 255}, (float[]){0, 1, 128, 255});
    check_row(256, 8, IO_I8, 4, (uint64_t[]){0, 127, 128, 255}, (float[]){0, 127, -128, -1});
    check_row(512, 16, IO_U16, 3, (uint64_t[]){1, 0x8001, 0xFFFF}, (float[]){1, 32769, 65535});
    check_row(4, 16, IO_I16, 3, (uint64_t[]){1, 0x8001, 0xFFFF}, (float[]){1, -32767, -1});
    check_row(768, 32, IO_U32, 3, (uint64_t[]){0x01020304, 0x80000000, 0xFFFFFFFF},
              (float[]){16909060.0f, 2147483648.0f, 4294967296.0f});
    check_row(8, 32, IO_I32, 3, (uint64_t[]){0x01020304, 0x80000000, 0xFFFFFFFF},
              (float[]){16909060.0f, -2147483648.0f, -1});
    check_row(1280, 64, IO_U64, 3, (uint64_t[]){0x0102030405060708, 0x8000000000000000, UINT64_MAX},
              (float[]){(float)0x0102030405060708, 0x1p63f, 0x1p64f});
    check_row(1024, 64, IO_I64, 3, (uint64_t[]){0x0102030405060708, 0x8000000000000000, UINT64_MAX},
              (float[]){(float)0x0102030405060708, -0x1p63f, -1});
    check_row(16, 32, IO_F32, 4, (uint64_t[]){0x3FC00000, 0xC0490FDB, 0x00000001, 0x80000000},
              (float[]){1.5f, -3.14159274f, 0x1p-149f, -0.0f});
    check_row(64, 64, IO_F64, 3, (uint64_t[]){0x3FF8000000000000, 0xC00921FB54442D18, 0x8000000000000000},
              (float[]){1.5f, -3.14159265358979f, -0.0f});
}

static void test_refused_datatypes(void) {
    static const struct {
        int code, bits;
        const char *name;
    } types[] = {{0, 0, "unknown"},           {1, 1, "1-bit"},
                 {32, 64, "complex64"},       {128, 24, "RGB24"},
                 {1536, 128, "float128"},     {1792, 128, "complex128"},
                 {2048, 256, "complex256"},   {2304, 32, "RGBA32"},
                 {255, 0, "does not define"}, {3, 16, "does not define"},
                 {-4, 16, "does not define"}};
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
            static image_file f;
            make_file(&f, forms[k], 0);
            set(&f, DATATYPE, 0, types[i].code);
            set(&f, BITPIX, 0, types[i].bits);
            CHECK(refused(f.bytes, f.size, types[i].name));
        }
}

static void test_scaling(void) {
    static const struct {
        double slope, inter, want_slope, want_inter;
    } cases[] = {{0, 5, 1, 0},     {NAN, 5, 1, 0}, {INFINITY, 5, 1, 0}, {-INFINITY, NAN, 1, 0}, {0, NAN, 1, 0},
                 {NAN, NAN, 1, 0}, {1, 0, 1, 0},   {-2, 0, -2, 0},      {0.25, 8, 0.25, 8},     {1, -1024, 1, -1024}};
    static image_file f;
    io_nifti image;
    for (int k = 0; k < 4; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            float voxels[VOXELS];
            make_file(&f, forms[k], 0);
            set(&f, SLOPE, 0, cases[i].slope);
            set(&f, INTER, 0, cases[i].inter);
            CHECK(parse(&f, &image, NULL) == SEGFM_OK);
            CHECK(image.slope == cases[i].want_slope && image.inter == cases[i].want_inter);
            CHECK(io_nifti_voxels(&image, 1, voxels, NULL) == SEGFM_OK);
            CHECK(voxels[7] == (float)(stored(VOXELS + 7) * cases[i].want_slope + cases[i].want_inter));
            io_nifti_free(&image);
        }
        /* Rounded once: 16777217 is no float, but half of it and 0.5 more is a sum that double holds. */
        make_row(&f, forms[k], 8, 32, 2, (uint64_t[]){16777217, 3});
        set(&f, SLOPE, 0, 0.5);
        set(&f, INTER, 0, 0.5);
        float got[2];
        CHECK(parse(&f, &image, NULL) == SEGFM_OK && io_nifti_voxels(&image, 0, got, NULL) == SEGFM_OK);
        CHECK(got[0] == 8388609.0f && got[1] == 2.0f);
        io_nifti_free(&image);
    }
}

static void test_affine(void) {
    /* A third of a turn about (1,1,1): quaternion (0.5, 0.5, 0.5, 0.5) turns x to y, y to z, z to x. qfac is -1. */
    static const double turned[12] = {0, 0, -3.5, 1.5, 0.75, 0, 0, 3.5, 0, 1.25, 0, 5.5};
    static const double turned_plus[12] = {0, 0, 3.5, 1.5, 0.75, 0, 0, 3.5, 0, 1.25, 0, 5.5};
    static const double centred[12] = {-0.75, 0, 0, 1.5, 0, 1.25, 0, -1.875, 0, 0, 3.5, -3.5};
    static image_file f;
    io_nifti image;
    for (int k = 0; k < 4; k++) {
        make_file(&f, forms[k], 0);
        set(&f, SFORM, 0, 0);
        CHECK(parse(&f, &image, NULL) == SEGFM_OK && affine_is(&image, turned));
        io_nifti_free(&image);
        for (int i = 0; i < 4; i++) { /* anything but −1 is 1 */
            set(&f, PIXDIM, 0, (double[]){1, 0, NAN, -2}[i]);
            CHECK(parse(&f, &image, NULL) == SEGFM_OK && affine_is(&image, turned_plus));
            io_nifti_free(&image);
        }
        set(&f, SFORM, 0, -1); /* a code below zero is none */
        set(&f, QFORM, 0, 0);
        for (int i = 0; i < 12; i++) set(&f, SROW, i, NAN); /* not used, not looked at */
        CHECK(parse(&f, &image, NULL) == SEGFM_OK && affine_is(&image, centred));
        io_nifti_free(&image);
        set(&f, QFORM, 0, 3); /* half a turn about z: w is 0 */
        set(&f, PIXDIM, 0, 1);
        for (int i = 0; i < 3; i++) set(&f, QUATERN, i, i == 2);
        CHECK(parse(&f, &image, NULL) == SEGFM_OK);
        CHECK(affine_is(&image, (double[]){-0.75, 0, 0, 1.5, 0, -1.25, 0, 3.5, 0, 0, 3.5, 5.5}));
        io_nifti_free(&image);
        for (int i = 0; i < 3; i++) set(&f, QUATERN, i, 0);
        CHECK(parse(&f, &image, NULL) == SEGFM_OK);
        CHECK(affine_is(&image, (double[]){0.75, 0, 0, 1.5, 0, 1.25, 0, 3.5, 0, 0, 3.5, 5.5}));
        io_nifti_free(&image);
        const double b = 0.125, c = 0.25, d = 0.5, a = sqrt(1 - b * b - c * c - d * d); /* all different */
        for (int i = 0; i < 3; i++) set(&f, QUATERN, i, (double[]){b, c, d}[i]);
        const double oblique[12] = {0.75 * (a * a + b * b - c * c - d * d),
                                    1.25 * 2 * (b * c - a * d),
                                    3.5 * 2 * (b * d + a * c),
                                    1.5,
                                    0.75 * 2 * (b * c + a * d),
                                    1.25 * (a * a + c * c - b * b - d * d),
                                    3.5 * 2 * (c * d - a * b),
                                    3.5,
                                    0.75 * 2 * (b * d - a * c),
                                    1.25 * 2 * (c * d + a * b),
                                    3.5 * (a * a + d * d - b * b - c * c),
                                    5.5};
        CHECK(parse(&f, &image, NULL) == SEGFM_OK && affine_is(&image, oblique));
        io_nifti_free(&image);
    }
}

static void test_spacing_and_units(void) {
    static const struct {
        double stored[3];
        int units;
        double want[3];
    } cases[] = {{{-0.75, 0, NAN}, 2, {0.75, 1, 1}},    {{750, 1250, 3500}, 3, {0.75, 1.25, 3.5}},
                 {{0.25, 0.5, 2}, 1, {250, 500, 2000}}, {{0.25, INFINITY, 2}, 0, {0.25, 1, 2}},
                 {{0, NAN, 4000}, 3 + 16, {1, 1, 4}},   {{0.5, 0.75, 8}, 5, {0.5, 0.75, 8}}};
    static image_file f;
    io_nifti image;
    for (int k = 0; k < 4; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            make_file(&f, forms[k], 0);
            set(&f, UNITS, 0, cases[i].units);
            for (int j = 0; j < 3; j++) set(&f, PIXDIM, j + 1, cases[i].stored[j]);
            CHECK(parse(&f, &image, NULL) == SEGFM_OK);
            for (int j = 0; j < 3; j++) CHECK(near(image.spacing[j], cases[i].want[j]));
            io_nifti_free(&image);
        }
        make_file(&f, forms[k], 0); /* the affine is in mm too */
        set(&f, UNITS, 0, 3);
        double micron[12];
        for (int i = 0; i < 12; i++) micron[i] = sform[i] / 1000;
        CHECK(parse(&f, &image, NULL) == SEGFM_OK && affine_is(&image, micron));
        io_nifti_free(&image);
        set(&f, SFORM, 0, 0);
        CHECK(parse(&f, &image, NULL) == SEGFM_OK);
        CHECK(affine_is(&image, (double[]){0, 0, -0.0035, 0.0015, 0.00075, 0, 0, 0.0035, 0, 0.00125, 0, 0.0055}));
        io_nifti_free(&image);
    }
}

static void test_dimensions(void) {
    static const struct {
        int dim[8];
        int64_t nx, ny, nz, volumes;
    } cases[] = {{{1, 60, -9, 0, 7, 1, 1, 1}, 60, 1, 1, 1},
                 {{2, 30, 2, 0, 0, 0, 0, 0}, 30, 2, 1, 1},
                 {{3, 5, 4, 3, 99, 0, 0, 0}, 5, 4, 3, 1},
                 {{5, 5, 3, 2, 1, 4, 0, 0}, 5, 3, 2, 4},
                 {{7, 2, 3, 1, 1, 2, 5, 2}, 2, 3, 1, 20}};
    static image_file f;
    io_nifti image;
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            make_file(&f, forms[k], 0);
            for (int j = 0; j < 8; j++) set(&f, DIM, j, cases[i].dim[j]);
            CHECK(parse(&f, &image, NULL) == SEGFM_OK);
            CHECK(image.nx == cases[i].nx && image.ny == cases[i].ny && image.nz == cases[i].nz);
            CHECK(image.volumes == cases[i].volumes);
            float last[60];
            CHECK(io_nifti_voxels(&image, image.volumes - 1, last, NULL) == SEGFM_OK);
            int64_t n = image.nx * image.ny * image.nz;
            CHECK(last[n - 1] == (float)(stored((int)(n * image.volumes - 1)) * 0.5 - 3.25));
            io_nifti_free(&image);
        }
    make_file(&f, forms[0], 0); /* axes that the image lacks step 1 mm in the base affine, as in nibabel */
    set(&f, DIM, 0, 2);
    set(&f, QFORM, 0, 0);
    set(&f, SFORM, 0, 0);
    CHECK(parse(&f, &image, NULL) == SEGFM_OK);
    CHECK(affine_is(&image, (double[]){-0.75, 0, 0, 1.5, 0, 1.25, 0, -1.875, 0, 0, 1, 0}));
    io_nifti_free(&image);
}

/* ---- damaged headers ----------------------------------------------------------------------------------------- */

/* One field with a wrong value, the versions that it can stand in, and a part of what must be said. */
static const struct {
    field name;
    int index;
    double value;
    int versions; /* bits: 1 = NIfTI-1, 2 = NIfTI-2 */
    const char *says;
} damages[] = {
    {SIZEOF_HDR, 0, 0, 3, "no NIfTI file: sizeof_hdr"},
    {SIZEOF_HDR, 0, 347, 3, "sizeof_hdr"},
    {SIZEOF_HDR, 0, 540, 1, "magic at offset 4"},
    {SIZEOF_HDR, 0, 348, 2, "magic at offset 344"},
    {SIZEOF_HDR, 0, -1, 3, "0xffffffff"},
    {DIM, 0, 0, 3, "dim[0] is 0"},
    {DIM, 0, 8, 3, "dim[0] is 8"},
    {DIM, 0, -1, 3, "dim[0] is -1"},
    {DIM, 0, 1024, 1, "dim[0] is 1024 in the byte order of sizeof_hdr"},
    {DIM, 0, 0x1p40, 2, "dim[0] is 1099511627776"},
    {DIM, 1, 0, 3, "dim[1] is 0"},
    {DIM, 1, -1, 3, "dim[1] is -1"},
    {DIM, 2, -4, 3, "dim[2] is -4"},
    {DIM, 3, 0, 3, "dim[3] is 0"},
    {DIM, 4, -32768, 3, "dim[4] is -32768"},
    {DIM, 4, 0, 3, "dim[4] is 0"},
    {DIM, 1, 6, 3, "got 240 bytes"},
    {DIM, 3, 32767, 3, "need 2621360"},
    {DIM, 1, 0x1p62, 2, "more bytes than can be addressed"},
    {DIM, 1, 0x1p59, 2, "more bytes than can be addressed"}, /* with 4 x 3 x 2 x 2 bytes: wraps to a small number */
    {DIM, 1, 0x1p58, 2, "more bytes than can be addressed"}, /* fits 64 bits, but no object is so large */
    {DIM, 4, 0x1p60, 2, "more bytes than can be addressed"},
    {DATATYPE, 0, 0, 3, "datatype is 0 (unknown)"},
    {DATATYPE, 0, 5, 3, "datatype is 5"},
    {DATATYPE, 0, 512 + 4, 3, "datatype is 516"},
    {DATATYPE, 0, 16, 3, "bitpix is 16, need 32"},
    {BITPIX, 0, 0, 3, "bitpix is 0, need 16"},
    {BITPIX, 0, 8, 3, "bitpix is 8, need 16"},
    {BITPIX, 0, 32, 3, "bitpix is 32, need 16"},
    {BITPIX, 0, -16, 3, "bitpix is -16"},
    {VOX_OFFSET, 0, 0, 3, "vox_offset is 0, need at least"},
    {VOX_OFFSET, 0, 1, 3, "vox_offset is 1, need at least"},
    {VOX_OFFSET, 0, 351, 3, "vox_offset is 351, need at least"},
    {VOX_OFFSET, 0, 543, 2, "vox_offset is 543, need at least 544"},
    {VOX_OFFSET, 0, -352, 3, "vox_offset is -352"},
    {VOX_OFFSET, 0, 352.5, 1, "352 and a fraction"},
    {VOX_OFFSET, 0, NAN, 1, "vox_offset is not a number"},
    {VOX_OFFSET, 0, INFINITY, 1, "vox_offset is larger than any file"},
    {VOX_OFFSET, 0, -INFINITY, 1, "vox_offset is larger than any file"},
    {VOX_OFFSET, 0, 1e30, 1, "vox_offset is larger than any file"},
    {VOX_OFFSET, 0, -0.5, 1, "fraction"},
    {VOX_OFFSET, 0, 0x1p62, 2, "but the file ends at byte"},
    {VOX_OFFSET, 0, 1024, 3, "but the file ends at byte"},
    {VOX_OFFSET, 0, 560, 3, "cut short"},
    {INTER, 0, NAN, 3, "scl_inter is not a number"},
    {INTER, 0, INFINITY, 3, "scl_inter is infinite"},
    {INTER, 0, -INFINITY, 3, "scl_inter is infinite"},
    {SROW, 0, NAN, 3, "srow_x[0]"},
    {SROW, 7, INFINITY, 3, "srow_y[3]"},
    {SROW, 10, -INFINITY, 3, "srow_z[2]"},
};

static void test_damaged(void) {
    static image_file f;
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
            if ((damages[i].versions & forms[k].version) == 0) continue;
            make_file(&f, forms[k], 0);
            set(&f, damages[i].name, damages[i].index, damages[i].value);
            if (!CHECK(refused(f.bytes, f.size, damages[i].says))) printf("    damage %zu, form %d\n", i, k);
        }
}

static void test_damaged_qform(void) {
    static const struct {
        field name;
        int index;
        double value;
        const char *says;
    } cases[] = {{QUATERN, 0, NAN, "quatern_b"},     {QUATERN, 1, INFINITY, "quatern_c"},
                 {QUATERN, 2, 1, "longer"},          {QUATERN, 0, -0.9, "longer"},
                 {QOFFSET, 0, NAN, "qoffset_x"},     {QOFFSET, 1, -INFINITY, "qoffset_y"},
                 {QOFFSET, 2, INFINITY, "qoffset_z"}};
    static image_file f;
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            make_file(&f, forms[k], 0);
            set(&f, SFORM, 0, 0);
            set(&f, cases[i].name, cases[i].index, cases[i].value);
            CHECK(refused(f.bytes, f.size, cases[i].says));
        }
}

static void test_damaged_magic(void) {
    static const char *const magics[] = {"\0\0\0\0", "n+0\0", "n+3\0", "ni4\0", "N+1\0", "n-1\0", "n+1x", "ANAL"};
    static image_file f;
    for (int k = 0; k < 4; k++) {
        for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++) {
            make_file(&f, forms[k], 0);
            set_text(&f, MAGIC, magics[i], 4);
            CHECK(refused(f.bytes, f.size, "ANALYZE 7.5"));
        }
        make_file(&f, forms[k], 0);
        set_text(&f, MAGIC, forms[k].version == 1 ? "ni1" : "ni2", 4);
        set(&f, VOX_OFFSET, 0, 0);
        CHECK(refused(f.bytes, f.size, "second file"));
        if (forms[k].version == 1) continue;
        io_nifti image;
        make_file(&f, forms[k], 0);
        memset(f.bytes + 8, 0, 4); /* some writers leave the line-end check empty */
        CHECK(parse(&f, &image, NULL) == SEGFM_OK);
        io_nifti_free(&image);
        memcpy(f.bytes + 8, "\n\032\n\0", 4); /* what a conversion of \r\n to \n makes of it */
        CHECK(refused(f.bytes, f.size, "at offset 8 is a 1a a 0, need d a 1a a: a conversion of line ends"));
    }
}

/* What is no NIfTI file at all. */
static void test_other_files(void) {
    static unsigned char zeros[2000];
    CHECK(refused((const unsigned char *)"", 0, "holds 0 bytes"));
    CHECK(refused((const unsigned char *)"abc", 3, "holds 3 bytes"));
    CHECK(refused((const unsigned char *)"PK\003\004 an archive", 14, "no NIfTI file"));
    CHECK(refused((const unsigned char *)"\x89PNG\r\n\x1a\n", 8, "no NIfTI file"));
    CHECK(refused(zeros, sizeof zeros, "no NIfTI file"));
    CHECK(refused((const unsigned char *)"\x1f\x8b", 2, "gzip"));
    CHECK(refused((const unsigned char *)"\x1f\x8b\x08\0\0\0\0\0\0\0", 10, "deflate"));
}

/* ---- cut files ----------------------------------------------------------------------------------------------- */

static void test_truncated(void) {
    static image_file f;
    for (int k = 0; k < 4; k++) {
        make_file(&f, forms[k], 16);
        int wrong = 0;
        for (size_t n = 0; n < f.size; n++) wrong += !refused(f.bytes, n, n < header_size(forms[k]) ? "header" : "");
        CHECK(wrong == 0);
        io_buffer packed = {0};
        CHECK(io_gzip(f.bytes, f.size, &packed, NULL) == SEGFM_OK);
        for (size_t n = 0; n < packed.size; n++) wrong += !refused(packed.data, n, n < 2 ? "header" : " at byte ");
        CHECK(wrong == 0);
        io_nifti image;
        CHECK(parse_bytes(packed.data, packed.size, &image, NULL) == SEGFM_OK && image.data.size == VOXELS * NT * 2);
        io_nifti_free(&image);
        packed.data[packed.size - 6] ^= 1; /* the CRC */
        CHECK(refused(packed.data, packed.size, "CRC"));
        io_buffer_free(&packed);
    }
}

/* Every single bit of header and gzip wrapper: no reading outside, no crash, whatever it then says. */
static void test_flipped_bits(void) {
    static image_file f;
    io_nifti image;
    int done = 0;
    for (int k = 0; k < 4; k++) {
        make_file(&f, forms[k], 16);
        for (size_t bit = 0; bit < 8 * header_size(forms[k]); bit++) {
            f.bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
            float voxels[VOXELS * NT];
            segfm_status status = parse(&f, &image, NULL);
            bool small = status == SEGFM_OK && image.nx * image.ny * image.nz <= VOXELS * NT;
            if (small) io_nifti_voxels(&image, image.volumes - 1, voxels, NULL);
            done += status == SEGFM_OK || (status == SEGFM_BAD_INPUT && is_empty(&image));
            io_nifti_free(&image);
            f.bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
        }
    }
    CHECK(done == 2 * 8 * (348 + 540));
}

/* ---- gzip's limits ------------------------------------------------------------------------------------------- */

/* A header that describes few voxels before a long stream: refused before it is inflated whole. */
static void test_bomb(void) {
    enum { LONG = 8 << 20 };
    static image_file f;
    for (int k = 0; k < 4; k++) {
        make_file(&f, forms[k], 0);
        io_buffer whole = {0}, packed = {0};
        CHECK(io_buffer_append(&whole, f.bytes, f.size, NULL) == SEGFM_OK);
        CHECK(io_buffer_reserve(&whole, LONG, NULL) == SEGFM_OK);
        memset(whole.data + f.size, 0, LONG - f.size);
        whole.size = LONG;
        if (k == 0) CHECK(refused(whole.data, whole.size, "follow the 240 bytes of voxels"));
        CHECK(io_gzip(whole.data, whole.size, &packed, NULL) == SEGFM_OK && packed.size < LONG / 100);
        CHECK(refused(packed.data, packed.size, "bytes allowed"));
        io_nifti image;
        whole.size = f.size + 100; /* a little padding is harmless */
        packed.size = 0;
        CHECK(io_gzip(whole.data, whole.size, &packed, NULL) == SEGFM_OK);
        CHECK(parse_bytes(packed.data, packed.size, &image, NULL) == SEGFM_OK && image.data.size == VOXELS * NT * 2);
        io_nifti_free(&image);
        CHECK(parse_bytes(whole.data, whole.size, &image, NULL) == SEGFM_OK && image.data.size == VOXELS * NT * 2);
        io_nifti_free(&image);
        io_buffer_free(&whole);
        io_buffer_free(&packed);
    }
}

/* A header alone, whose voxels lie, and end, where no file ends; and a header file larger than any. */
static void test_vast(void) {
    enum { LONG = (1 << 24) + 1000 };
    static image_file f;
    for (int k = 0; k < 4; k++) {
        io_buffer packed = {0};
        make_header(&f, forms[k], false);
        if (f.form.version == 2) {
            set(&f, VOX_OFFSET, 0, 0x1.fffffffffffffp62);
            set(&f, DIM, 0, 1);
            set(&f, DIM, 1, 0x1.fffffffffffffp62);
            set(&f, DATATYPE, 0, 2);
            set(&f, BITPIX, 0, 8);
            CHECK(io_gzip(f.bytes, f.size, &packed, NULL) == SEGFM_OK);
            CHECK(refused(packed.data, packed.size, "vox_offset is 9223372036854774784, but the file ends at byte"));
        }
        make_header(&f, forms[k], true);
        packed.size = 0;
        unsigned char *header = calloc(1, LONG);
        if (!CHECK(header != NULL)) return;
        memcpy(header, f.bytes, f.size);
        CHECK(refused(header, LONG, "the header file holds 16778216 bytes, need at most"));
        free(header);
        io_buffer_free(&packed);
    }
}

/* Compressed images larger than what is looked at first, one value everywhere, extensions long and short. */
static void test_large_gzip(void) {
    static image_file f;
    for (int k = 0; k < 4; k++)
        for (int value = 0; value < 256; value += 15) { /* 165 among them, the fill of the look-ahead */
            make_header(&f, forms[k], false);
            add_extension(&f, value % 2 == 0 ? 3000 : 0);
            set(&f, VOX_OFFSET, 0, (double)f.size);
            set(&f, DATATYPE, 0, 2);
            set(&f, BITPIX, 0, 8);
            set(&f, DIM, 1, 20);
            set(&f, DIM, 2, 30);
            set(&f, DIM, 3, 7);
            set(&f, DIM, 4, 1);
            memset(f.bytes + f.size, value, 4200);
            f.size += 4200;
            io_buffer packed = {0};
            io_nifti image;
            CHECK(io_gzip(f.bytes, f.size, &packed, NULL) == SEGFM_OK);
            CHECK(parse_bytes(packed.data, packed.size, &image, NULL) == SEGFM_OK);
            CHECK(image.data.size == 4200 && image.data.data[0] == value && image.data.data[4199] == value);
            CHECK(image.extensions.size == (value % 2 == 0 ? 3004U : 4U));
            io_nifti_free(&image);
            io_buffer_free(&packed);
        }
}

/* ---- values -------------------------------------------------------------------------------------------------- */

static bool voxels_refused(const image_file *f, int64_t index, const char *text) {
    io_nifti image;
    segfm_error e = {0};
    float out[VOXELS];
    bool ok = parse(f, &image, NULL) == SEGFM_OK;
    ok = ok && io_nifti_voxels(&image, index, out, &e) == SEGFM_BAD_INPUT && strstr(e.message, text) != NULL;
    if (!ok) printf("    message \"%s\", need \"%s\"\n", e.message, text);
    io_nifti_free(&image);
    return ok;
}

static bool labels_refused(const image_file *f, int64_t index, const char *text) {
    io_nifti image;
    segfm_error e = {0};
    uint16_t out[VOXELS];
    bool ok = parse(f, &image, NULL) == SEGFM_OK;
    ok = ok && io_nifti_labels(&image, index, out, &e) == SEGFM_BAD_INPUT && strstr(e.message, text) != NULL;
    if (!ok) printf("    message \"%s\", need \"%s\"\n", e.message, text);
    io_nifti_free(&image);
    return ok;
}

static void test_bad_values(void) {
    static image_file f;
    for (int k = 0; k < 4; k++) {
        make_file(&f, forms[k], 0);
        CHECK(voxels_refused(&f, -1, "volume -1"));
        CHECK(voxels_refused(&f, 2, "the image has 2"));
        CHECK(labels_refused(&f, 2, "the image has 2"));
        make_row(&f, forms[k], 16, 32, 3, (uint64_t[]){0, 0x7FC00000, 0});
        CHECK(voxels_refused(&f, 0, "voxel (1,0,0) of volume 0 is not a number"));
        make_row(&f, forms[k], 16, 32, 3, (uint64_t[]){0, 0, 0xFF800000});
        CHECK(voxels_refused(&f, 0, "voxel (2,0,0) of volume 0 is infinite"));
        make_row(&f, forms[k], 64, 64, 2, (uint64_t[]){double_bits(1e30), double_bits(-1e39)});
        CHECK(voxels_refused(&f, 0, "voxel (1,0,0) of volume 0 is too large"));
        make_row(&f, forms[k], 4, 16, 2, (uint64_t[]){0, 30000});
        set(&f, SLOPE, 0, 3e38);
        CHECK(voxels_refused(&f, 0, "voxel (1,0,0)"));
        /* The place is given in three coordinates. */
        make_file(&f, forms[k], 0);
        set(&f, SLOPE, 0, 3e38);
        CHECK(voxels_refused(&f, 0, "voxel (0,0,0) of volume 0"));
        for (int i = 0; i < VOXELS * NT; i++)
            put_bits(f.bytes + f.size - 2 * (size_t)(VOXELS * NT - i), 2, f.form.big, i == VOXELS + 33 ? 2 : 0);
        CHECK(voxels_refused(&f, 1, "voxel (3,2,1) of volume 1"));
    }
}

static void test_labels(void) {
    static image_file f;
    io_nifti image;
    uint16_t out[VOXELS];
    for (int k = 0; k < 4; k++) {
        make_row(&f, forms[k], 512, 16, 4, (uint64_t[]){0, 1, 40000, 65535});
        CHECK(parse(&f, &image, NULL) == SEGFM_OK && io_nifti_labels(&image, 0, out, NULL) == SEGFM_OK);
        CHECK(out[0] == 0 && out[1] == 1 && out[2] == 40000 && out[3] == 65535);
        io_nifti_free(&image);
        make_row(&f, forms[k], 64, 64, 3, (uint64_t[]){double_bits(7), double_bits(-0.0), double_bits(300)});
        CHECK(parse(&f, &image, NULL) == SEGFM_OK && io_nifti_labels(&image, 0, out, NULL) == SEGFM_OK);
        CHECK(out[0] == 7 && out[1] == 0 && out[2] == 300);
        io_nifti_free(&image);
        make_row(&f, forms[k], 4, 16, 3, (uint64_t[]){2, 4, 6}); /* scaled back to whole numbers */
        set(&f, SLOPE, 0, 0.5);
        set(&f, INTER, 0, 10);
        CHECK(parse(&f, &image, NULL) == SEGFM_OK && io_nifti_labels(&image, 0, out, NULL) == SEGFM_OK);
        CHECK(out[0] == 11 && out[1] == 12 && out[2] == 13);
        io_nifti_free(&image);
        make_row(&f, forms[k], 4, 16, 2, (uint64_t[]){1, 0xFFFF});
        CHECK(labels_refused(&f, 0, "label (1,0,0) of volume 0 is -1"));
        make_row(&f, forms[k], 8, 32, 2, (uint64_t[]){65535, 65536});
        CHECK(labels_refused(&f, 0, "is 65536, need a whole number from 0 to 65535"));
        make_row(&f, forms[k], 16, 32, 1, (uint64_t[]){float_bits(2.25)});
        CHECK(labels_refused(&f, 0, "lies between 2 and 3"));
        make_row(&f, forms[k], 16, 32, 1, (uint64_t[]){float_bits(-0.5)});
        CHECK(labels_refused(&f, 0, "lies between -1 and 0"));
        make_row(&f, forms[k], 16, 32, 2, (uint64_t[]){0, 0x7FC00000});
        CHECK(labels_refused(&f, 0, "label (1,0,0) of volume 0 is not a number"));
        make_row(&f, forms[k], 16, 32, 1, (uint64_t[]){0x7F800000});
        CHECK(labels_refused(&f, 0, "huge"));
        make_row(&f, forms[k], 1280, 64, 1, (uint64_t[]){UINT64_MAX});
        CHECK(labels_refused(&f, 0, "huge"));
    }
}

/* ---- files --------------------------------------------------------------------------------------------------- */

static char folder[512], path_memory[8][1024];

static const char *in_folder(int slot, const char *name) {
    snprintf(path_memory[slot], sizeof path_memory[slot], "%s/%s", folder, name);
    return path_memory[slot];
}

static int files_in_folder(void) {
    int n = -2; /* "." and ".." */
    DIR *dir = opendir(folder);
    if (dir == NULL) return -1;
    while (readdir(dir) != NULL) n++;
    closedir(dir);
    return n;
}

static void save(const char *path, const void *bytes, size_t n, bool gz) {
    io_buffer packed = {0};
    if (gz) CHECK(io_gzip(bytes, n, &packed, NULL) == SEGFM_OK);
    CHECK(io_write_file(path, gz ? packed.data : bytes, gz ? packed.size : n, NULL) == SEGFM_OK);
    io_buffer_free(&packed);
}

static bool reads(const char *path) {
    io_nifti image;
    segfm_error e = {0};
    bool ok = io_nifti_read(path, &image, &e) == SEGFM_OK && image.data.size == VOXELS * NT * 2;
    float voxels[VOXELS];
    ok = ok && io_nifti_voxels(&image, 1, voxels, &e) == SEGFM_OK;
    for (int i = 0; i < VOXELS && ok; i++) ok = voxels[i] == (float)(stored(VOXELS + i) * 0.5 - 3.25);
    if (!ok) printf("    \"%s\": \"%s\"\n", e.where, e.message);
    io_nifti_free(&image);
    return ok;
}

static bool read_refused(const char *path, const char *where, const char *text) {
    io_nifti image;
    segfm_error e = {0};
    bool ok = io_nifti_read(path, &image, &e) == SEGFM_BAD_INPUT && is_empty(&image);
    ok = ok && strcmp(e.where, where) == 0 && strstr(e.message, text) != NULL;
    if (!ok) printf("    where \"%s\", message \"%s\", need \"%s\"\n", e.where, e.message, text);
    io_nifti_free(&image);
    return ok;
}

/* A file's name does not decide whether it is compressed. */
static void test_single_files(void) {
    static image_file f;
    static const char *const names[] = {"scan.nii", "scan.nii.gz", "SCAN.NII", "scan", "scan.hdr"};
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
            for (int gz = 0; gz < 2; gz++) {
                make_file(&f, forms[k], 32);
                const char *path = in_folder(0, names[i]);
                save(path, f.bytes, f.size, gz == 1);
                CHECK(reads(path));
                save(path, f.bytes, f.size - 1, gz == 1);
                CHECK(read_refused(path, path, "got 239 bytes"));
                remove(path);
            }
    const char *missing = in_folder(0, "missing.nii");
    CHECK(read_refused(missing, missing, "does not exist"));
    CHECK(read_refused(folder, folder, "is a folder"));
    make_header(&f, forms[0], true);
    const char *path = in_folder(0, "scan.nii");
    save(path, f.bytes, f.size, false);
    CHECK(read_refused(path, path, "ends in .hdr or .img"));
    remove(path);
    CHECK(files_in_folder() == 0);
}

/* Both halves of a pair, the voxels at `offset`. */
static void make_pair(form form_, size_t offset, image_file *hdr, image_file *img) {
    make_header(hdr, form_, true);
    set(hdr, VOX_OFFSET, 0, (double)offset);
    memset(img, 0, sizeof *img);
    img->form = form_;
    img->size = offset;
    add_voxels(img);
}

static void test_pairs(void) {
    static image_file hdr, img;
    static const char *const names[][2] = {{"scan.hdr", "scan.img"},
                                           {"scan.hdr.gz", "scan.img.gz"},
                                           {"scan.hdr", "scan.img.gz"},
                                           {"scan.hdr.gz", "scan.img"},
                                           {"SCAN.HDR", "SCAN.IMG"}};
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < 5; i++)
            for (size_t offset = 0; offset <= 48; offset += 24) {
                const char *hdr_path = in_folder(0, names[i][0]), *img_path = in_folder(1, names[i][1]);
                make_pair(forms[k], offset, &hdr, &img);
                if (offset > 0) add_extension(&hdr, offset == 24 ? 0 : 32);
                save(hdr_path, hdr.bytes, hdr.size, strstr(hdr_path, ".gz") != NULL);
                save(img_path, img.bytes, img.size, strstr(img_path, ".gz") != NULL);
                CHECK(reads(hdr_path));
                CHECK(reads(img_path));
                io_nifti image;
                CHECK(io_nifti_read(img_path, &image, NULL) == SEGFM_OK);
                CHECK(image.pair && image.version == forms[k].version);
                CHECK(image.extensions.size == hdr.size - header_size(forms[k]));
                io_nifti_free(&image);
                remove(hdr_path);
                remove(img_path);
            }
    CHECK(files_in_folder() == 0);
}

static void test_broken_pairs(void) {
    static image_file hdr, img, single;
    const char *hdr_path = in_folder(0, "scan.hdr"), *img_path = in_folder(1, "scan.img");
    for (int k = 0; k < 4; k++) {
        make_pair(forms[k], 8, &hdr, &img);
        save(hdr_path, hdr.bytes, hdr.size, false);
        CHECK(read_refused(hdr_path, hdr_path, "scan.img cannot be opened: it does not exist"));
        CHECK(read_refused(img_path, img_path, "cannot be opened: it does not exist"));
        save(img_path, img.bytes, img.size - 1, false);
        CHECK(read_refused(hdr_path, img_path, "got 239 bytes from offset 8, need 240"));
        save(img_path, img.bytes, 7, false);
        CHECK(read_refused(img_path, img_path, "vox_offset is 8, but the file ends at byte 7"));
        save(img_path, img.bytes, 8, false);
        CHECK(read_refused(img_path, img_path, "got 0 bytes from offset 8, need 240"));
        save(img_path, img.bytes, img.size, false);
        for (size_t n = 0; n < hdr.size; n += 29) {
            save(hdr_path, hdr.bytes, n, false);
            CHECK(read_refused(img_path, hdr_path, "header"));
        }
        make_file(&single, forms[k], 0);
        save(hdr_path, single.bytes, single.size, false);
        CHECK(reads(hdr_path)); /* the magic decides: it has its own voxels */
        CHECK(read_refused(img_path, hdr_path, "has its own voxels"));
        set(&hdr, VOX_OFFSET, 0, -1);
        save(hdr_path, hdr.bytes, hdr.size, false);
        CHECK(read_refused(hdr_path, hdr_path, "vox_offset is -1, need at least 0"));
        remove(hdr_path);
        CHECK(read_refused(img_path, img_path, "scan.hdr cannot be opened: it does not exist"));
        remove(img_path);
    }
    CHECK(files_in_folder() == 0);
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static const struct {
    io_dtype dtype;
    int code, bits;
} written_types[3] = {{IO_U8, 2, 8}, {IO_U16, 512, 16}, {IO_F32, 16, 32}};

/* The header that must come out: `like` with the documented changes, made with the test's own offsets. */
static void expect_header(const image_file *like, int type, bool pair, size_t vox_offset, image_file *want) {
    *want = *like;
    set(want, DIM, 0, 3);
    set(want, DIM, 4, 1);
    set(want, DATATYPE, 0, written_types[type].code);
    set(want, BITPIX, 0, written_types[type].bits);
    set(want, SLOPE, 0, 1);
    set(want, INTER, 0, 0);
    set(want, CAL_MAX, 0, 0);
    set(want, CAL_MIN, 0, 0);
    set(want, INTENT_CODE, 0, 0);
    for (int i = 0; i < 3; i++) set(want, INTENT_P, i, 0);
    set_text(want, INTENT_NAME, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    set_text(want, MAGIC, pair ? "ni" : "n+", 2);
    set(want, VOX_OFFSET, 0, (double)vox_offset);
}

/* The values written, in each type, and their bits. */
typedef struct {
    uint8_t u8[VOXELS];
    uint16_t u16[VOXELS];
    float f32[VOXELS];
} values;

static void make_values(values *v) {
    for (int i = 0; i < VOXELS; i++) {
        v->u8[i] = (uint8_t)(i * 5 % 256);
        v->u16[i] = (uint16_t)(i * 1091);
        v->f32[i] = (float)(i * 0.37 - 9);
    }
}

static const void *values_of(const values *v, int type) {
    return type == 0 ? (const void *)v->u8 : type == 1 ? (const void *)v->u16 : (const void *)v->f32;
}

static void add_values(image_file *f, const values *v, int type) {
    for (int i = 0; i < VOXELS; i++)
        add_voxel(f, written_types[type].bits / 8,
                  type == 0   ? v->u8[i]
                  : type == 1 ? v->u16[i]
                              : float_bits((double)v->f32[i]));
}

/* Whether a file holds exactly these bytes, compressed or not as its name says. */
static bool file_is(const char *path, const unsigned char *bytes, size_t n) {
    io_buffer raw = {0}, plain = {0};
    bool gz = strstr(path, ".gz") != NULL;
    bool ok = io_read_file(path, &raw, NULL) == SEGFM_OK && io_is_gzip(raw.data, raw.size) == gz;
    if (ok && gz) ok = io_gunzip(raw.data, raw.size, &plain, 1 << 20, NULL) == SEGFM_OK;
    const io_buffer *b = gz ? &plain : &raw;
    if (ok && b->size != n) printf("    %s: %zu bytes, need %zu\n", path, b->size, n);
    ok = ok && b->size == n;
    for (size_t i = 0; ok && i < n; i++)
        if (b->data[i] != bytes[i]) {
            printf("    %s: byte %zu is %d, need %d\n", path, i, b->data[i], bytes[i]);
            ok = false;
        }
    io_buffer_free(&raw);
    io_buffer_free(&plain);
    return ok;
}

/* Single file in, single file out: the extension and what pads it stay byte for byte. */
static void test_write_single(void) {
    static image_file f, want;
    values v;
    make_values(&v);
    for (int k = 0; k < 4; k++)
        for (int type = 0; type < 3; type++)
            for (int gz = 0; gz < 2; gz++)
                for (size_t padding = 0; padding <= 13; padding += 13) {
                    make_header(&f, forms[k], false);
                    add_extension(&f, gz == 1 ? 64 : 0);
                    f.bytes[f.size] = 0;
                    f.size += padding;
                    set(&f, VOX_OFFSET, 0, (double)f.size);
                    size_t offset = f.size;
                    add_voxels(&f);
                    const char *path = in_folder(0, gz == 1 ? "out.nii.gz" : "out.nii");
                    io_nifti like, back;
                    CHECK(parse(&f, &like, NULL) == SEGFM_OK);
                    CHECK(io_nifti_write_like(path, &like, written_types[type].dtype, values_of(&v, type), NULL) ==
                          SEGFM_OK);
                    expect_header(&f, type, false, offset, &want);
                    want.size = offset;
                    add_values(&want, &v, type);
                    CHECK(file_is(path, want.bytes, want.size));
                    CHECK(io_nifti_read(path, &back, NULL) == SEGFM_OK);
                    CHECK(back.nx == NX && back.ny == NY && back.nz == NZ && back.volumes == 1);
                    CHECK(affine_is(&back, sform) && back.slope == 1 && back.inter == 0);
                    float got[VOXELS];
                    CHECK(io_nifti_voxels(&back, 0, got, NULL) == SEGFM_OK);
                    for (int i = 0; i < VOXELS; i++)
                        CHECK(got[i] == (type == 0 ? v.u8[i] : type == 1 ? v.u16[i] : v.f32[i]));
                    io_nifti_free(&like);
                    io_nifti_free(&back);
                    remove(path);
                }
    CHECK(files_in_folder() == 0);
}

/* Between single file and pair, every way: extensions go along, padding does not. */
static void test_write_other_kind(void) {
    static image_file f, hdr, img, want, want_img;
    values v;
    make_values(&v);
    for (int k = 0; k < 4; k++)
        for (int type = 0; type < 3; type++)
            for (int gz = 0; gz < 2; gz++) {
                const char *hdr_path = in_folder(0, gz == 1 ? "out.hdr.gz" : "out.hdr");
                const char *img_path = in_folder(1, gz == 1 ? "out.img.gz" : "out.img");
                const char *nii_path = in_folder(2, gz == 1 ? "out.nii.gz" : "out.nii");
                const void *data = values_of(&v, type);
                io_dtype dtype = written_types[type].dtype;
                io_nifti like;
                /* single → pair */
                make_header(&f, forms[k], false);
                add_extension(&f, 40); /* ends at no multiple of 16 */
                size_t end = f.size;
                f.size += 12;
                set(&f, VOX_OFFSET, 0, (double)f.size);
                add_voxels(&f);
                CHECK(parse(&f, &like, NULL) == SEGFM_OK);
                CHECK(io_nifti_write_like(type == 1 ? img_path : hdr_path, &like, dtype, data, NULL) == SEGFM_OK);
                expect_header(&f, type, true, 0, &want);
                CHECK(file_is(hdr_path, want.bytes, end));
                want_img.form = forms[k];
                want_img.size = 0;
                add_values(&want_img, &v, type);
                CHECK(file_is(img_path, want_img.bytes, want_img.size));
                io_nifti_free(&like);
                /* pair → pair */
                CHECK(io_nifti_read(img_path, &like, NULL) == SEGFM_OK);
                remove(hdr_path);
                remove(img_path);
                CHECK(io_nifti_write_like(hdr_path, &like, dtype, data, NULL) == SEGFM_OK);
                CHECK(file_is(hdr_path, want.bytes, end) && file_is(img_path, want_img.bytes, want_img.size));
                remove(hdr_path);
                remove(img_path);
                /* pair → single */
                CHECK(io_nifti_write_like(nii_path, &like, dtype, data, NULL) == SEGFM_OK);
                size_t padded = (end + 15) / 16 * 16;
                expect_header(&f, type, false, padded, &want);
                memset(want.bytes + end, 0, padded - end);
                want.size = padded;
                add_values(&want, &v, type);
                CHECK(file_is(nii_path, want.bytes, want.size));
                remove(nii_path);
                io_nifti_free(&like);
                /* A pair's header that ends without the flags. */
                make_pair(forms[k], 0, &hdr, &img);
                save(hdr_path, hdr.bytes, hdr.size, gz == 1);
                save(img_path, img.bytes, img.size, gz == 1);
                CHECK(io_nifti_read(hdr_path, &like, NULL) == SEGFM_OK);
                remove(hdr_path);
                remove(img_path);
                CHECK(io_nifti_write_like(nii_path, &like, dtype, data, NULL) == SEGFM_OK);
                expect_header(&hdr, type, false, hdr.size + 4, &want);
                memset(want.bytes + hdr.size, 0, 4);
                want.size = hdr.size + 4;
                add_values(&want, &v, type);
                CHECK(file_is(nii_path, want.bytes, want.size));
                remove(nii_path);
                io_nifti_free(&like);
            }
    CHECK(files_in_folder() == 0);
}

/* Extensions whose chain is broken are read, and end where it breaks when a pair is written. */
static void test_broken_extensions(void) {
    static const uint32_t sizes[] = {0, 7, 33, 0x7FFFFFFF, 0xFFFFFFFF};
    static image_file f;
    values v;
    make_values(&v);
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            make_file(&f, forms[k], 32);
            put_bits(f.bytes + header_size(forms[k]) + 4, 4, forms[k].big, sizes[i]);
            io_nifti like;
            CHECK(parse(&f, &like, NULL) == SEGFM_OK && like.extensions.size == 36);
            const char *hdr_path = in_folder(0, "out.hdr"), *img_path = in_folder(1, "out.img");
            CHECK(io_nifti_write_like(hdr_path, &like, IO_U8, v.u8, NULL) == SEGFM_OK);
            io_buffer b = {0};
            CHECK(io_read_file(hdr_path, &b, NULL) == SEGFM_OK && b.size == header_size(forms[k]) + 4);
            io_buffer_free(&b);
            io_nifti_free(&like);
            remove(hdr_path);
            remove(img_path);
        }
}

/* An image of fewer axes keeps its number of axes. */
static void test_write_flat(void) {
    static image_file f;
    static const uint8_t row[20] = {3, 1, 4, 1, 5, 9, 2, 6};
    for (int k = 0; k < 4; k++) {
        io_nifti like, back;
        make_file(&f, forms[k], 0);
        set(&f, DIM, 0, 2);
        CHECK(parse(&f, &like, NULL) == SEGFM_OK && like.nz == 1);
        const char *path = in_folder(0, "flat.nii");
        CHECK(io_nifti_write_like(path, &like, IO_U8, row, NULL) == SEGFM_OK);
        CHECK(io_nifti_read(path, &back, NULL) == SEGFM_OK);
        CHECK(back.nx == NX && back.ny == NY && back.nz == 1 && back.data.size == 20);
        CHECK(memcmp(back.data.data, row, 20) == 0);
        int at = forms[k].version == 1 ? 40 : 16, width = forms[k].version == 1 ? 2 : 8;
        CHECK(back.header[forms[k].big ? at + width - 1 : at] == 2);
        io_nifti_free(&like);
        io_nifti_free(&back);
        remove(path);
    }
}

/* A 4-D image of one volume keeps its dim too: once dim[0] became 3, and who laid the mask over the scan by numpy's rules
   got another shape. */
static void test_write_singleton(void) {
    static image_file f;
    values v;
    make_values(&v);
    for (int k = 0; k < 4; k++) {
        io_nifti like, back;
        make_file(&f, forms[k], 0);
        set(&f, DIM, 4, 1);
        CHECK(parse(&f, &like, NULL) == SEGFM_OK && like.volumes == 1);
        const char *path = in_folder(0, "singleton.nii");
        CHECK(io_nifti_write_like(path, &like, IO_U8, v.u8, NULL) == SEGFM_OK);
        CHECK(io_nifti_read(path, &back, NULL) == SEGFM_OK && back.volumes == 1);
        size_t at = forms[k].version == 1 ? 40 : 16, width = forms[k].version == 1 ? 2 : 8;
        CHECK(memcmp(back.header + at, like.header + at, 8 * width) == 0);
        CHECK(back.header[forms[k].big ? at + width - 1 : at] == 4);
        io_nifti_free(&like);
        io_nifti_free(&back);
        remove(path);
    }
}

static void test_write_errors(void) {
    static image_file f;
    static const char *const endings[] = {"out", "out.gz", "out.nii.bz2", "out.nrrd", "nii", ""};
    values v;
    io_nifti like;
    segfm_error e = {0};
    make_values(&v);
    make_file(&f, forms[0], 0);
    CHECK(parse(&f, &like, NULL) == SEGFM_OK);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        const char *path = in_folder(0, endings[i]);
        CHECK(io_nifti_write_like(path, &like, IO_U8, v.u8, &e) == SEGFM_BAD_USAGE);
        CHECK(strcmp(e.where, path) == 0 && strstr(e.message, ".nii") != NULL);
    }
    const char *path = in_folder(0, "out.nii");
    CHECK(io_nifti_write_like(path, &like, IO_I32, v.u8, &e) == SEGFM_BAD_USAGE && strcmp(e.where, path) == 0);
    static const char *const lost[] = {"none/out.nii", "none/out.nii.gz", "none/out.hdr", "none/out.img"};
    for (size_t i = 0; i < 4; i++) {
        path = in_folder(0, lost[i]);
        CHECK(io_nifti_write_like(path, &like, IO_F32, v.f32, &e) == SEGFM_WRITE_FAILED);
        CHECK(strstr(e.where, "none/out.") != NULL && strstr(e.message, "folder does not exist") != NULL);
    }
    CHECK(files_in_folder() == 0);
    /* One half of a pair cannot be written: the other must not appear, nor change. */
    const char *hdr = in_folder(0, "out.hdr"), *img = in_folder(1, "out.img"), *inside = in_folder(2, "out.hdr/x");
    CHECK(io_write_file(img, "old", 3, NULL) == SEGFM_OK);
    CHECK(mkdtemp(strcpy(path_memory[3], in_folder(4, "out_XXXXXX"))) != NULL && rename(path_memory[3], hdr) == 0);
    CHECK(io_write_file(inside, "x", 1, NULL) == SEGFM_OK);
    CHECK(io_nifti_write_like(img, &like, IO_U8, v.u8, &e) == SEGFM_WRITE_FAILED && strcmp(e.where, hdr) == 0);
    CHECK(file_is(img, (const unsigned char *)"old", 3));
    CHECK(files_in_folder() == 2);
    remove(inside);
    rmdir(hdr);
    remove(img);
    /* An existing image stays when the new one cannot be made. */
    path = in_folder(0, "out.nii");
    CHECK(io_nifti_write_like(path, &like, IO_U8, v.u8, NULL) == SEGFM_OK);
    CHECK(io_nifti_write_like(path, &like, IO_I32, v.u8, NULL) == SEGFM_BAD_USAGE);
    io_nifti back;
    CHECK(io_nifti_read(path, &back, NULL) == SEGFM_OK && back.data.size == VOXELS);
    io_nifti_free(&back);
    remove(path);
    io_nifti_free(&like);
    CHECK(files_in_folder() == 0);
}

static void test_init(void) {
    static const double step[3] = {0.5, 0.75, -2.25}, odd[3] = {0, NAN, INFINITY};
    values v;
    io_nifti image, back;
    float got[VOXELS];
    make_values(&v);
    io_nifti_init(&image, NX, NY, NZ, step);
    CHECK(image.version == 1 && !image.big_endian && !image.pair && image.volumes == 1);
    CHECK(io_nifti_voxels(&image, 0, got, NULL) == SEGFM_BAD_INPUT); /* a header only */
    CHECK(base_le32(image.header + 108) == 0x43B00000);              /* vox_offset: 352.0f */
    const char *path = in_folder(0, "fresh.nii.gz");
    CHECK(io_nifti_write_like(path, &image, IO_F32, v.f32, NULL) == SEGFM_OK);
    CHECK(io_nifti_read(path, &back, NULL) == SEGFM_OK);
    CHECK(back.nx == NX && back.ny == NY && back.nz == NZ && back.volumes == 1 && back.dtype == IO_F32);
    CHECK(affine_is(&back, (double[]){0.5, 0, 0, 0, 0, 0.75, 0, 0, 0, 0, 2.25, 0}));
    CHECK(back.spacing[0] == 0.5 && back.spacing[1] == 0.75 && back.spacing[2] == 2.25);
    CHECK(memcmp(back.affine, image.affine, sizeof back.affine) == 0);
    CHECK(back.extensions.size == 4 && back.header[123] == 2 && back.header[254] == 1 && back.header[252] == 0);
    CHECK(io_nifti_voxels(&back, 0, got, NULL) == SEGFM_OK && memcmp(got, v.f32, sizeof got) == 0);
    io_nifti_free(&back);
    io_nifti_free(&image);
    remove(path);
    io_nifti_init(&image, NX, NY, NZ, odd);
    for (int i = 0; i < 3; i++) CHECK(image.spacing[i] == 1 && image.affine[i][i] == 1);
    io_nifti_init(&image, 32767, 40000, 1, step); /* dim is 16 bits wide */
    segfm_error e = {0};
    CHECK(io_nifti_write_like(path, &image, IO_U8, v.u8, &e) == SEGFM_BAD_INPUT);
    CHECK(strstr(e.message, "40000 voxels along y") != NULL && strcmp(e.where, path) == 0);
    CHECK(files_in_folder() == 0);
}

int main(void) {
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/test_nifti_XXXXXX", parent != NULL ? parent : ".");
    if (!CHECK(mkdtemp(folder) != NULL)) return test_summary();
    test_fields();
    test_datatypes();
    test_refused_datatypes();
    test_scaling();
    test_affine();
    test_spacing_and_units();
    test_dimensions();
    test_damaged();
    test_damaged_qform();
    test_damaged_magic();
    test_other_files();
    test_truncated();
    test_flipped_bits();
    test_bomb();
    test_vast();
    test_large_gzip();
    test_bad_values();
    test_labels();
    test_single_files();
    test_pairs();
    test_broken_pairs();
    test_write_single();
    test_write_other_kind();
    test_broken_extensions();
    test_write_flat();
    test_write_singleton();
    test_write_errors();
    test_init();
    CHECK(rmdir(folder) == 0); /* nothing was left behind */
    return test_summary();
}
