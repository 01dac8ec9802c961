/* Challenge files by hand: the pickles that numpy 1 and numpy 2 write, and npz archives with them. */
#ifndef SEGFM_TEST_CHALLENGE_H
#define SEGFM_TEST_CHALLENGE_H

#include "../io/io.h"
#include "test.h"

/* Writes protocol 3 with numpy 1's module names or protocol 4 with numpy 2's, and what is repeated from the memo. */
typedef struct pickler {
    io_buffer out;
    bool numpy2, failed;
    unsigned memo;                   /* next free index */
    int scalar, dtype, int64, array; /* memo indices of what numpy repeats; -1: not written yet */
} pickler;

static inline void put(pickler *p, const void *bytes, size_t n) {
    if (io_buffer_append(&p->out, bytes, n, NULL) != SEGFM_OK) p->failed = true;
}

static inline void op(pickler *p, int code) { put(p, &(unsigned char){(unsigned char)code}, 1); }

static inline void put_int(pickler *p, int value) {
    if (value < 256) put(p, (unsigned char[]){'K', (unsigned char)value}, 2);
    else put(p, (unsigned char[]){'M', (unsigned char)value, (unsigned char)(value >> 8)}, 3);
}

/* Keeps the top of the stack in the memo. */
static inline int memoize(pickler *p) {
    if (p->numpy2) op(p, 0x94);
    else put(p, (unsigned char[]){'q', (unsigned char)p->memo}, 2);
    return (int)p->memo++;
}

static inline void recall(pickler *p, int index) { put(p, (unsigned char[]){'h', (unsigned char)index}, 2); }

static inline void put_text(pickler *p, const char *text) {
    size_t n = strlen(text);
    if (p->numpy2) put(p, (unsigned char[]){0x8c, (unsigned char)n}, 2);
    else put(p, (unsigned char[]){'X', (unsigned char)n, 0, 0, 0}, 5);
    put(p, text, n);
}

static inline int put_global(pickler *p, const char *module, const char *name) {
    if (p->numpy2) {
        put_text(p, module);
        memoize(p);
        put_text(p, name);
        memoize(p);
        op(p, 0x93);
    } else {
        op(p, 'c');
        put(p, module, strlen(module));
        op(p, '\n');
        put(p, name, strlen(name));
        op(p, '\n');
    }
    return memoize(p);
}

static inline const char *multiarray(const pickler *p) {
    return p->numpy2 ? "numpy._core.multiarray" : "numpy.core.multiarray";
}

/* numpy.dtype(kind, False, True) with its state (3, order, None, None, None, -1, -1, flags) */
static inline int put_dtype(pickler *p, const char *kind, const char *order, int flags) {
    if (p->dtype < 0) p->dtype = put_global(p, "numpy", "dtype");
    else recall(p, p->dtype);
    put_text(p, kind);
    put(p, "\x89\x88\x87R", 4); /* False, True, a tuple of three, call */
    int index = memoize(p);
    op(p, '(');
    put_int(p, 3);
    put_text(p, order);
    put(p, "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff", 13);
    put_int(p, flags);
    put(p, "tb", 2);
    return index;
}

/* An array of objects, which the caller puts between this and end_array: `rows`, or rows × columns of them. */
static inline pickler begin_table(bool numpy2, int rows, int columns) {
    pickler p = {.numpy2 = numpy2, .scalar = -1, .dtype = -1, .int64 = -1};
    put(&p, numpy2 ? "\x80\x04" : "\x80\x03", 2);
    if (numpy2) put(&p, "\x95\0\0\0\0\0\0\0\0", 9); /* a frame; end_array puts its length */
    put_global(&p, multiarray(&p), "_reconstruct");
    put_global(&p, "numpy", "ndarray");
    put_int(&p, 0);
    put(&p,
        "\x85"
        "C\x01"
        "b"
        "\x87R(",
        7);
    put_int(&p, 1);
    put_int(&p, rows);
    if (columns > 0) put_int(&p, columns);
    op(&p, columns > 0 ? 0x86 : 0x85);
    put_dtype(&p, "O8", "|", 63);
    put(&p, "\x89]", 2);
    if (rows > 0) op(&p, '(');
    return p;
}

static inline pickler begin_array(bool numpy2, int n) { return begin_table(numpy2, n, 0); }

static inline io_buffer end_array(pickler *p, int n) {
    if (n > 0) op(p, 'e');
    put(p, "tb.", 3);
    if (CHECK(!p->failed) && p->numpy2) base_put_le64(p->out.data + 3, p->out.size - 11);
    return p->out;
}

/* np.int64(value) */
static inline void put_scalar(pickler *p, int64_t value) {
    unsigned char bytes[10] = {'C', 8};
    if (p->scalar < 0) p->scalar = put_global(p, multiarray(p), "scalar");
    else recall(p, p->scalar);
    if (p->int64 < 0) p->int64 = put_dtype(p, "i8", "<", 0);
    else recall(p, p->int64);
    base_put_le64(bytes + 2, (uint64_t)value);
    put(p, bytes, 10);
    put(p, "\x86R", 2);
}

/* [[z, y, x], …] */
static inline void put_clicks(pickler *p, const int64_t (*clicks)[3], int n) {
    op(p, ']');
    if (n > 0) op(p, '(');
    for (int i = 0; i < n; i++) {
        put(p, "](", 2);
        for (int axis = 0; axis < 3; axis++)
            if (axis == 1) put_scalar(p, clicks[i][axis]); /* writers mix them */
            else put_int(p, (int)clicks[i][axis]);
        op(p, 'e');
    }
    if (n > 0) op(p, 'e');
}

/* One box dictionary. b: z0 y0 x0 z1 y1 x1; without the key `missing` (or NULL). */
static inline void put_box(pickler *p, const int64_t b[6], const char *missing) {
    static const char *const keys[] = {"z_min",       "z_max",       "z_mid",      "z_mid_x_min",
                                       "z_mid_y_min", "z_mid_x_max", "z_mid_y_max"};
    const int64_t values[7] = {b[0], b[3], (b[0] + b[3]) / 2, b[2], b[1], b[5], b[4]};
    put(p, "}(", 2);
    for (int k = 0; k < 7; k++) {
        if (missing != NULL && strcmp(missing, keys[k]) == 0) continue;
        put_text(p, keys[k]);
        put_scalar(p, values[k]);
    }
    op(p, 'u');
}

static inline void add_array(io_zip_writer *zip, const char *name, io_dtype dtype, int ndim, const size_t *shape,
                             const void *data) {
    io_buffer npy = {0};
    CHECK(io_npy_write(&npy, dtype, ndim, shape, data, NULL) == SEGFM_OK);
    CHECK(io_zip_add(zip, name, npy.data, npy.size, NULL) == SEGFM_OK);
    io_buffer_free(&npy);
}

/* An array of numpy's type `descr`, of `rows` or of rows × columns elements. Frees the bytes. */
static inline void add_npy(io_zip_writer *zip, const char *name, const char *descr, int rows, int columns,
                           io_buffer bytes) {
    char header[128], second[16] = "";
    io_buffer npy = {0};
    memcpy(header, "\x93NUMPY\x01\0\x76", 10);
    if (columns > 0) snprintf(second, sizeof second, " %d", columns);
    int used =
        snprintf(header + 10, 118, "{'descr': '%s', 'fortran_order': False, 'shape': (%d,%s), }", descr, rows, second);
    memset(header + 10 + used, ' ', (size_t)(117 - used));
    header[127] = '\n';
    CHECK(io_buffer_append(&npy, header, 128, NULL) == SEGFM_OK);
    CHECK(io_buffer_append(&npy, bytes.data, bytes.size, NULL) == SEGFM_OK);
    CHECK(io_zip_add(zip, name, npy.data, npy.size, NULL) == SEGFM_OK);
    io_buffer_free(&npy);
    io_buffer_free(&bytes);
}

/* An object array: its npy header and the pickle, which it frees. */
static inline void add_objects(io_zip_writer *zip, const char *name, int rows, int columns, io_buffer pickle) {
    add_npy(zip, name, "|O", rows, columns, pickle);
}

#endif
