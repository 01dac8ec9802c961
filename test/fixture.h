/* Reference tensors of test/fixtures (an npz file each), read with our own readers. */
#ifndef SEGFM_TEST_FIXTURE_H
#define SEGFM_TEST_FIXTURE_H

#include "../weights/weights.h"
#include "test.h"

typedef struct fixture {
    io_buffer file;
    io_zip zip;
} fixture;

typedef struct fixture_array {
    io_buffer bytes;
    io_array array;
    double *values; /* array.count numbers in C order; NULL when there is no such array */
} fixture_array;

/* `path` relative to the folder the tests run in (the repository's root). Ends the test program when it is missing. */
static inline fixture fixture_open(const char *path) {
    fixture f = {0};
    segfm_error error = {0};
    if (io_read_file(path, &f.file, &error) != SEGFM_OK ||
        io_zip_open(f.file.data, f.file.size, &f.zip, &error) != SEGFM_OK) {
        printf("%s: %s\n", path, error.message);
        test_check(false, "fixture can be read", __FILE__, __LINE__);
        exit(test_summary());
    }
    return f;
}

static inline void fixture_close(fixture *f) {
    io_zip_close(&f->zip);
    io_buffer_free(&f->file);
}

static inline bool fixture_has(const fixture *f, const char *name) {
    char member[300];
    snprintf(member, sizeof member, "%s.npy", name);
    return io_zip_find(&f->zip, member) != NULL;
}

static inline fixture_array fixture_read(const fixture *f, const char *name) {
    fixture_array a = {0};
    segfm_error error = {0};
    char member[300];
    snprintf(member, sizeof member, "%s.npy", name);
    const io_zip_entry *e = io_zip_find(&f->zip, member);
    if (e == NULL || io_zip_read(&f->zip, e, &a.bytes, &error) != SEGFM_OK ||
        io_npy_parse(a.bytes.data, a.bytes.size, &a.array, &error) != SEGFM_OK) {
        printf("array %s: %s\n", name, e == NULL ? "missing" : error.message);
        test_check(false, "fixture array can be read", __FILE__, __LINE__);
        return a;
    }
    a.values = malloc((a.array.count + 1) * sizeof *a.values);
    io_array_to_f64(&a.array, a.values);
    return a;
}

static inline void fixture_array_free(fixture_array *a) {
    io_buffer_free(&a->bytes);
    free(a->values);
}

/* The sizes of the fixtures' model. */
static inline weights_config fixture_config(const fixture *f) {
    fixture_array a = fixture_read(f, "config");
    uint32_t v[24];
    for (size_t i = 0; i < 24; i++) v[i] = (uint32_t)a.values[i];
    fixture_array_free(&a);
    return (weights_config){.spatial = {v[0], v[1], v[2]},
                            .patch = {v[3], v[4], v[5]},
                            .dim = v[6],
                            .depth = v[7],
                            .heads = v[8],
                            .mlp = v[9],
                            .decoder_depth = v[10],
                            .decoder_heads = v[11],
                            .decoder_mlp = v[12],
                            .decoder_cross_dim = v[13],
                            .mask_tokens = v[14],
                            .iou_hidden = v[15],
                            .iou_layers = v[16],
                            .hyper_layers = v[17],
                            .up1 = v[18],
                            .up2 = v[19],
                            .gru_blocks = v[20],
                            .gru_hidden = v[21],
                            .topk = v[22],
                            .text_dim = v[23]};
}

/* Max-abs and relative L2 of got (real or float, n numbers) against want. */
typedef struct distance {
    double max_abs, relative_l2;
    bool finite, reference_is_zero;
} distance;

static inline distance distance_of(const real *got, const double *want, size_t n) {
    distance d = {.finite = true};
    double gap = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - want[i]);
        if (!isfinite(e)) d.finite = false;
        if (!(e <= d.max_abs)) d.max_abs = e;
        gap += e * e;
        size += want[i] * want[i];
    }
    d.reference_is_zero = size == 0;
    d.relative_l2 = size > 0 ? sqrt(gap / size) : INFINITY;
    return d;
}

#endif
