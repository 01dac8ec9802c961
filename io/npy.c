/* Arrays and the npy format (numpy's format.py, versions 1.0, 2.0 and 3.0).

   An npy file is a magic number, a version, a header length, and a header that is a Python dict literal with exactly
   the keys 'descr', 'fortran_order' and 'shape'. The literal is read strictly: keys in any order, either kind of
   quotes, any white space, optional trailing commas, Python 2's long suffix on numbers, and nothing else. */
#include "io.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* ---- element types ------------------------------------------------------------------------------------------ */

static const struct {
    size_t size;
    const char *name;
    char kind; /* numpy's letter, 0 when npy has none */
} dtypes[] = {
    [IO_NONE] = {0, "none", 0},     [IO_BOOL] = {1, "bool", 'b'},   [IO_U8] = {1, "uint8", 'u'},
    [IO_I8] = {1, "int8", 'i'},     [IO_U16] = {2, "uint16", 'u'},  [IO_I16] = {2, "int16", 'i'},
    [IO_U32] = {4, "uint32", 'u'},  [IO_I32] = {4, "int32", 'i'},   [IO_U64] = {8, "uint64", 'u'},
    [IO_I64] = {8, "int64", 'i'},   [IO_F16] = {2, "float16", 'f'}, [IO_BF16] = {2, "bfloat16", 0},
    [IO_F32] = {4, "float32", 'f'}, [IO_F64] = {8, "float64", 'f'}, [IO_OBJECT] = {0, "object", 0},
    [IO_TEXT] = {0, "text", 0},
};

size_t io_dtype_size(io_dtype t) { return (unsigned)t <= IO_TEXT ? dtypes[t].size : 0; }

const char *io_dtype_name(io_dtype t) { return (unsigned)t <= IO_TEXT ? dtypes[t].name : "unknown"; }

/* ---- the header's literal ----------------------------------------------------------------------------------- */

typedef struct {
    const char *at, *end, *begin;
    size_t offset; /* of begin in the file */
    segfm_error *error;
    bool texts;  /* strings are fine … */
    size_t text; /* … and have that many characters */
} parser;

static segfm_status bad(const parser *p, const char *what) {
    size_t offset = p->offset + (size_t)(p->at - p->begin);
    return base_fail(p->error, SEGFM_BAD_INPUT, "npy header, byte %zu: %s", offset, what);
}

static void skip_space(parser *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')) p->at++;
}

/* Takes the character c if it is next, white space before it aside. */
static bool accept(parser *p, char c) {
    skip_space(p);
    if (p->at == p->end || *p->at != c) return false;
    p->at++;
    return true;
}

static bool accept_word(parser *p, const char *word) {
    size_t n = strlen(word);
    skip_space(p);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, word, n) != 0) return false;
    p->at += n;
    return true;
}

/* A quoted string without escapes or line ends, at most capacity − 1 characters. */
static segfm_status parse_string(parser *p, char *out, size_t capacity) {
    skip_space(p);
    char quote = p->at < p->end ? *p->at : '\0';
    if (quote != '\'' && quote != '"') return bad(p, "need a quoted string");
    size_t n = 0;
    for (p->at++; p->at < p->end && *p->at != quote; p->at++) {
        if (*p->at < ' ' || *p->at > '~' || *p->at == '\\') return bad(p, "a string has a character that is not plain");
        if (n + 1 >= capacity) return bad(p, "a string is too long to be meant");
        out[n++] = *p->at;
    }
    if (p->at == p->end) return bad(p, "a string does not end");
    p->at++;
    out[n] = '\0';
    return SEGFM_OK;
}

static segfm_status parse_size(parser *p, size_t *out) {
    size_t v = 0;
    skip_space(p);
    const char *first = p->at;
    for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++)
        if (!base_mul(v, 10, &v) || !base_add(v, (size_t)(*p->at - '0'), &v))
            return bad(p, "a dimension does not fit in memory");
    if (p->at == first) return bad(p, "need a dimension, a whole number of 0 or more");
    if (*first == '0' && p->at - first > 1) return bad(p, "a dimension begins with a zero");
    if (p->at < p->end && *p->at == 'L') p->at++;
    *out = v;
    return SEGFM_OK;
}

/* "()", "(3,)", "(3, 4)", "(3, 4,)"; not "(3)", which is a number in Python. */
static segfm_status parse_shape(parser *p, io_array *out) {
    if (!accept(p, '(')) return bad(p, "the shape needs to be a tuple");
    bool comma = true;
    int n = 0;
    while (!accept(p, ')')) {
        if (!comma) return bad(p, "the shape needs a comma or a closing bracket here");
        if (n == IO_MAX_DIMS) return bad(p, "the shape has more than 8 dimensions");
        segfm_status status = parse_size(p, &out->shape[n]);
        if (status != SEGFM_OK) return status;
        n++;
        comma = accept(p, ',');
    }
    if (n == 1 && !comma) return bad(p, "the shape is a number in brackets, need a tuple");
    out->ndim = n;
    return SEGFM_OK;
}

static const char *unsupported_name(char kind) {
    switch (kind) {
    case 'c': return "complex numbers";
    case 'S':
    case 'a': return "byte strings";
    case 'U': return "text strings";
    case 'V': return "raw or structured records";
    case 'M': return "dates";
    case 'm': return "time spans";
    default: return "an unknown type";
    }
}

/* "<U2": strings of up to two characters. */
static bool parse_text_type(const char *descr, parser *p, io_array *out) {
    if (!p->texts || (descr[0] != '<' && descr[0] != '>') || descr[1] != 'U' || descr[2] == '\0') return false;
    for (const char *digit = descr + 2; *digit != '\0'; digit++) {
        if (*digit < '0' || *digit > '9' || p->text > 1000) return false; /* longer ones are not meant */
        p->text = p->text * 10 + (size_t)(*digit - '0');
    }
    out->dtype = IO_TEXT;
    out->big_endian = descr[0] == '>';
    return true;
}

/* "<f4", ">i2", "|u1", "=f8", "|O". */
static segfm_status parse_descr(parser *p, io_array *out) {
    char descr[64];
    skip_space(p);
    if (p->at < p->end && *p->at == '[') return bad(p, "the array holds structured records, which are not supported");
    segfm_status status = parse_string(p, descr, sizeof descr);
    if (status != SEGFM_OK) return status;
    char order = descr[0];
    if (strcmp(descr, "|O") == 0) {
        out->dtype = IO_OBJECT;
        return SEGFM_OK;
    }
    if (parse_text_type(descr, p, out)) return SEGFM_OK;
    if (order == '<' || order == '>' || order == '=' || order == '|')
        for (int t = IO_BOOL; t <= IO_F64; t++) {
            if (dtypes[t].kind == 0 || dtypes[t].kind != descr[1]) continue;
            if (descr[2] != (char)('0' + dtypes[t].size) || descr[3] != '\0') continue;
            if (order == '|' && dtypes[t].size > 1) break; /* "no byte order" makes no sense here */
            out->dtype = (io_dtype)t;
            out->big_endian = order == '>' || (order == '=' && base_is_big_endian());
            return SEGFM_OK;
        }
    return base_fail(p->error, SEGFM_BAD_INPUT, "npy header: type '%s' (%s) is not supported", descr,
                     unsupported_name(descr[0] == '\0' ? '\0' : descr[1]));
}

static segfm_status parse_order(parser *p, io_array *out) {
    if (accept_word(p, "True")) out->fortran = true;
    else if (accept_word(p, "False")) out->fortran = false;
    else return bad(p, "fortran_order needs to be True or False");
    return SEGFM_OK;
}

static segfm_status parse_dict(parser *p, io_array *out) {
    static const char *const keys[3] = {"descr", "fortran_order", "shape"};
    bool seen[3] = {false, false, false}, comma = true;
    if (!accept(p, '{')) return bad(p, "need a dictionary");
    while (!accept(p, '}')) {
        char key[32];
        if (!comma) return bad(p, "need a comma or a closing brace");
        segfm_status status = parse_string(p, key, sizeof key);
        if (status != SEGFM_OK) return status;
        int k = 0;
        while (k < 3 && strcmp(key, keys[k]) != 0) k++;
        if (k == 3) return base_fail(p->error, SEGFM_BAD_INPUT, "npy header: unknown key '%s'", key);
        if (seen[k]) return base_fail(p->error, SEGFM_BAD_INPUT, "npy header: key '%s' occurs twice", key);
        seen[k] = true;
        if (!accept(p, ':')) return bad(p, "need a colon after a key");
        status = k == 0 ? parse_descr(p, out) : k == 1 ? parse_order(p, out) : parse_shape(p, out);
        if (status != SEGFM_OK) return status;
        comma = accept(p, ',');
    }
    for (int k = 0; k < 3; k++)
        if (!seen[k]) return base_fail(p->error, SEGFM_BAD_INPUT, "npy header: key '%s' is missing", keys[k]);
    skip_space(p);
    return p->at == p->end ? SEGFM_OK : bad(p, "more text after the dictionary");
}

/* ---- npy, reading ------------------------------------------------------------------------------------------- */

static const unsigned char npy_magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* Where the header's text is. */
static segfm_status find_header(const unsigned char *bytes, size_t n, size_t *begin, size_t *size, segfm_error *error) {
    if (n < 10 || memcmp(bytes, npy_magic, sizeof npy_magic) != 0)
        return base_fail(error, SEGFM_BAD_INPUT, "npy file of %zu bytes: does not begin as one (93 'NUMPY')", n);
    int major = bytes[6], minor = bytes[7];
    if (major < 1 || major > 3 || minor != 0)
        return base_fail(error, SEGFM_BAD_INPUT, "npy file: version is %d.%d, need 1.0, 2.0 or 3.0", major, minor);
    *begin = major == 1 ? 10 : 12;
    if (n < *begin) return base_fail(error, SEGFM_BAD_INPUT, "npy file of %zu bytes: ends inside the header", n);
    *size = major == 1 ? base_le16(bytes + 8) : base_le32(bytes + 8);
    if (n - *begin < *size)
        return base_fail(error, SEGFM_BAD_INPUT, "npy file: header needs %zu bytes, the file has %zu", *size,
                         n - *begin);
    return SEGFM_OK;
}

static segfm_status parse(const unsigned char *bytes, size_t n, bool texts, io_array *out, segfm_error *error) {
    io_array a = {0};
    size_t begin = 0, size = 0, need;
    segfm_status status = find_header(bytes, n, &begin, &size, error);
    if (status != SEGFM_OK) return status;
    const char *text = (const char *)bytes + begin;
    parser p = {text, text + size, text, begin, error, texts, 0};
    status = parse_dict(&p, &a);
    if (status != SEGFM_OK) return status;
    if (!base_count(a.shape, a.ndim, 1, &a.count) ||
        !base_mul(a.count, a.dtype == IO_TEXT ? 4 * p.text : io_dtype_size(a.dtype), &need))
        return base_fail(error, SEGFM_BAD_INPUT, "npy file: the product of the shape does not fit in memory");
    a.data = bytes + begin + size;
    a.bytes = n - begin - size;
    if (a.dtype != IO_OBJECT && a.bytes != need)
        return base_fail(error, SEGFM_BAD_INPUT, "npy file: has %zu bytes of data, need %zu for %zu elements of %s",
                         a.bytes, need, a.count, io_dtype_name(a.dtype));
    *out = a;
    return SEGFM_OK;
}

segfm_status io_npy_parse(const unsigned char *bytes, size_t n, io_array *out, segfm_error *error) {
    return parse(bytes, n, false, out, error);
}

segfm_status io_npy_parse_texts(const unsigned char *bytes, size_t n, io_array *out, segfm_error *error) {
    return parse(bytes, n, true, out, error);
}

/* ---- elements ----------------------------------------------------------------------------------------------- */

/* The bits of element i, in storage order. */
static inline uint64_t element_bits(const io_array *a, size_t size, size_t i) {
    const unsigned char *p = a->data + i * size;
    if (a->big_endian) return size == 1 ? p[0] : size == 2 ? base_be16(p) : size == 4 ? base_be32(p) : base_be64(p);
    return size == 1 ? p[0] : size == 2 ? base_le16(p) : size == 4 ? base_le32(p) : base_le64(p);
}

static inline float bits_float(uint64_t bits) {
    uint32_t low = (uint32_t)bits;
    float f;
    memcpy(&f, &low, sizeof f);
    return f;
}

static inline double bits_double(uint64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

/* Two's complement without conversions that C leaves to the implementation. */
static inline int64_t bits_signed(uint64_t bits, size_t size) {
    uint64_t sign = (uint64_t)1 << (8 * size - 1);
    if ((bits & sign) == 0) return (int64_t)bits;
    return -(int64_t)(sign - 1 - (bits & (sign - 1))) - 1;
}

static inline double as_double(io_dtype t, uint64_t bits) {
    switch (t) {
    case IO_BOOL: return bits != 0;
    case IO_U8:
    case IO_U16:
    case IO_U32:
    case IO_U64: return (double)bits;
    case IO_I8: return (double)bits_signed(bits, 1);
    case IO_I16: return (double)bits_signed(bits, 2);
    case IO_I32: return (double)bits_signed(bits, 4);
    case IO_I64: return (double)bits_signed(bits, 8);
    case IO_F16: return (double)base_half_to_float((uint16_t)bits);
    case IO_BF16: return (double)bits_float(bits << 16);
    case IO_F32: return (double)bits_float(bits);
    default: assert(t == IO_F64); return bits_double(bits); /* what is no number is excluded by the contract */
    }
}

/* Rounds once. By way of double it would be twice, unless what the double cannot hold (bits that do not matter but for
   being there) is first put into its last bit. Not a plain cast: valgrind and some machines take the detour. */
static inline float whole_to_float(uint64_t v) {
    if (v >> 53 != 0) v = (v | ((v & 0x7FFU) + 0x7FFU)) & ~(uint64_t)0x7FFU;
    return (float)(double)v;
}

static inline float as_float(io_dtype t, uint64_t bits) {
    if (t == IO_U64) return whole_to_float(bits);
    if (t == IO_I64) return bits >> 63 != 0 ? -whole_to_float(0 - bits) : whole_to_float(bits);
    return (float)as_double(t, bits);
}

static bool as_i64(io_dtype t, uint64_t bits, int64_t *out) {
    if (t == IO_U64) {
        *out = (int64_t)(bits & INT64_MAX);
        return bits <= INT64_MAX;
    }
    if (t == IO_I64) {
        *out = bits_signed(bits, 8);
        return true;
    }
    double v = as_double(t, bits);
    if (!(v >= -9223372036854775808.0 && v < 9223372036854775808.0)) return false; /* NaN too */
    *out = (int64_t)v;
    return (double)*out == v;
}

double io_array_get(const io_array *a, size_t i) {
    return as_double(a->dtype, element_bits(a, io_dtype_size(a->dtype), i));
}

bool io_array_is_text(const io_array *a, size_t i, const char *text) {
    size_t length = a->bytes / a->count / 4, n = strlen(text);
    const unsigned char *p = a->data + i * 4 * length;
    for (size_t k = 0; k < length; k++)
        if ((a->big_endian ? base_be32(p + 4 * k) : base_le32(p + 4 * k)) != (k < n ? (unsigned char)text[k] : 0U))
            return false;
    return n <= length;
}

/* ---- whole arrays ------------------------------------------------------------------------------------------- */

/* Walks an array in C order, row by row: a row is `length` elements, `step` apart in storage. An array stored in C
   order is one row. */
typedef struct {
    const io_array *a;
    size_t stride[IO_MAX_DIMS], index[IO_MAX_DIMS];
    size_t at, length, step, left; /* of the row: first element; left = rows to come, this one included */
} row_walk;

static row_walk first_row(const io_array *a) {
    row_walk w = {.a = a, .length = a->count, .step = 1, .left = a->count > 0};
    if (!a->fortran || a->ndim < 2 || a->count == 0) return w;
    size_t stride = 1;
    for (int k = 0; k < a->ndim; k++) {
        w.stride[k] = stride;
        stride *= a->shape[k];
    }
    w.length = a->shape[a->ndim - 1];
    w.step = w.stride[a->ndim - 1];
    w.left = a->count / w.length;
    return w;
}

static void next_row(row_walk *w) {
    if (--w->left == 0) return;
    int k = w->a->ndim - 2;
    while (++w->index[k] == w->a->shape[k]) { /* rows are left, so one index has room */
        w->at -= w->stride[k] * (w->a->shape[k] - 1);
        w->index[k--] = 0;
    }
    w->at += w->stride[k];
}

void io_array_to_f32(const io_array *a, float *dst) {
    size_t size = io_dtype_size(a->dtype);
    for (row_walk w = first_row(a); w.left > 0; next_row(&w))
        for (size_t i = 0; i < w.length; i++) *dst++ = as_float(a->dtype, element_bits(a, size, w.at + i * w.step));
}

void io_array_to_f64(const io_array *a, double *dst) {
    size_t size = io_dtype_size(a->dtype);
    for (row_walk w = first_row(a); w.left > 0; next_row(&w))
        for (size_t i = 0; i < w.length; i++) *dst++ = as_double(a->dtype, element_bits(a, size, w.at + i * w.step));
}

segfm_status io_array_to_i64(const io_array *a, int64_t *dst, segfm_error *error) {
    size_t size = io_dtype_size(a->dtype);
    int64_t v = 0;
    if (size == 0) return base_fail(error, SEGFM_BAD_INPUT, "array of %s: need numbers", io_dtype_name(a->dtype));
    for (size_t i = 0; i < a->count; i++) /* first, so that a failure leaves dst untouched */
        if (!as_i64(a->dtype, element_bits(a, size, i), &v))
            return base_fail(error, SEGFM_BAD_INPUT,
                             "array of %s: stored element %zu is not a whole number that fits in 64 bits",
                             io_dtype_name(a->dtype), i);
    for (row_walk w = first_row(a); w.left > 0; next_row(&w))
        for (size_t i = 0; i < w.length; i++) {
            as_i64(a->dtype, element_bits(a, size, w.at + i * w.step), &v);
            *dst++ = v;
        }
    return SEGFM_OK;
}

/* ---- npy, writing ------------------------------------------------------------------------------------------- */

enum { npy_header_capacity = 320 }; /* 8 dimensions of 20 digits, the words around them, 64 of padding */

typedef struct {
    char text[npy_header_capacity];
    size_t n;
} header_text;

static void put_text(header_text *h, const char *s) {
    size_t n = strlen(s);
    assert(h->n + n <= sizeof h->text);
    memcpy(h->text + h->n, s, n);
    h->n += n;
}

static void put_number(header_text *h, size_t v) {
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = '\0';
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    put_text(h, digits + at);
}

/* Magic, version, length and dictionary, padded with spaces and a line end to a multiple of 64. */
static void make_header(header_text *h, io_dtype dtype, int ndim, const size_t *shape) {
    char descr[4] = {dtypes[dtype].size == 1 ? '|' : '<', dtypes[dtype].kind, (char)('0' + dtypes[dtype].size), '\0'};
    memcpy(h->text, npy_magic, sizeof npy_magic);
    h->text[6] = 1;
    h->text[7] = 0;
    h->n = 10;
    put_text(h, "{'descr': '");
    put_text(h, descr);
    put_text(h, "', 'fortran_order': False, 'shape': (");
    for (int k = 0; k < ndim; k++) {
        put_number(h, shape[k]);
        put_text(h, ndim == 1 ? "," : k + 1 < ndim ? ", " : "");
    }
    put_text(h, "), }");
    while (h->n % 64 != 63) put_text(h, " ");
    put_text(h, "\n");
    base_put_le16(h->text + 8, (uint16_t)(h->n - 10));
}

void io_turn_elements(unsigned char *p, size_t count, size_t size) {
    for (; count > 0; count--, p += size)
        for (size_t i = 0; i < size / 2; i++) {
            unsigned char c = p[i];
            p[i] = p[size - 1 - i];
            p[size - 1 - i] = c;
        }
}

segfm_status io_npy_write(io_buffer *out, io_dtype dtype, int ndim, const size_t *shape, const void *data,
                          segfm_error *error) {
    size_t before = out->size, size = io_dtype_size(dtype), bytes;
    header_text h;
    if (size == 0 || dtypes[dtype].kind == 0)
        return base_fail(error, SEGFM_BAD_USAGE, "npy: cannot write elements of type %s", io_dtype_name(dtype));
    if (ndim < 0 || ndim > IO_MAX_DIMS)
        return base_fail(error, SEGFM_BAD_USAGE, "npy: cannot write %d dimensions, need 0 to 8", ndim);
    if (!base_count(shape, ndim, size, &bytes))
        return base_fail(error, SEGFM_BAD_USAGE, "npy: the product of the shape does not fit in memory");
    make_header(&h, dtype, ndim, shape);
    segfm_status status = io_buffer_append(out, h.text, h.n, error);
    if (status == SEGFM_OK) status = io_buffer_append(out, data, bytes, error);
    if (status != SEGFM_OK) out->size = before;
    else if (base_is_big_endian() && bytes > 0) io_turn_elements(out->data + before + h.n, bytes / size, size);
    return status;
}
