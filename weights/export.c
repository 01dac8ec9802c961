/* export: a weights file as the checkpoint that torch.save would have written, in layout (c) of the three: a zip archive of
   the pickled dictionary {'model_state_dict': tensors, 'segfm': what shapes do not tell}, and a storage per tensor. */
#include "weights.h"

#include <stdlib.h>
#include <string.h>

/* A tensor of the checkpoint. Without a source it is one that the published class has and no code runs: zeros, so that
   it loads strictly. */
typedef struct item {
    const char *name;
    int ndim;
    size_t shape[WEIGHTS_MAX_DIMS], count;
    const weights_tensor *source;
} item;

typedef struct exporter {
    const weights_file *file;
    weights_sink *sink;
    void *sink_user;
    io_zip_writer zip;
    io_buffer pickle, widened;
    segfm_error *error;
} exporter;

static const item unused[] = {
    {"prompt_encoder.mask_downscaling.0.weight", 4, {4, 1, 2, 2}, 0, NULL},
    {"prompt_encoder.mask_downscaling.0.bias", 1, {4}, 0, NULL},
    {"prompt_encoder.mask_downscaling.1.weight", 1, {4}, 0, NULL},
    {"prompt_encoder.mask_downscaling.1.bias", 1, {4}, 0, NULL},
    {"prompt_encoder.mask_downscaling.3.weight", 4, {16, 4, 2, 2}, 0, NULL},
    {"prompt_encoder.mask_downscaling.3.bias", 1, {16}, 0, NULL},
    {"prompt_encoder.mask_downscaling.4.weight", 1, {16}, 0, NULL},
    {"prompt_encoder.mask_downscaling.4.bias", 1, {16}, 0, NULL},
    {"prompt_encoder.mask_downscaling.6.weight", 4, {0 /* dim */, 16, 1, 1}, 0, NULL},
    {"prompt_encoder.mask_downscaling.6.bias", 1, {0 /* dim */}, 0, NULL},
};
enum { UNUSED = sizeof unused / sizeof unused[0] };

/* The i-th tensor; false when i is past the last. */
static bool item_at(const weights_file *w, size_t i, item *out) {
    if (i >= w->count + UNUSED) return false;
    if (i < w->count) {
        const weights_tensor *t = &w->tensors[i];
        *out = (item){.name = t->name, .ndim = t->ndim, .count = t->count, .source = t};
        memcpy(out->shape, t->shape, sizeof out->shape);
        return true;
    }
    *out = unused[i - w->count];
    if (out->shape[0] == 0) out->shape[0] = w->config.dim;
    out->count = 1; /* dim is at most 2^20: no overflow */
    for (int d = 0; d < out->ndim; d++) out->count *= out->shape[d];
    return true;
}

/* ---- the pickle, protocol 2 ---------------------------------------------------------------------------------- */

static segfm_status put(exporter *x, const void *bytes, size_t n) {
    return io_buffer_append(&x->pickle, bytes, n, x->error);
}

static segfm_status put_ops(exporter *x, const char *ops) { return put(x, ops, strlen(ops)); }

static segfm_status put_size(exporter *x, uint64_t v) {
    unsigned char op[10] = {'J'};
    if (v <= INT32_MAX) {
        base_put_le32(op + 1, (uint32_t)v);
        return put(x, op, 5);
    }
    op[0] = 0x8A; /* LONG1 of 8 bytes: no size reaches its sign */
    op[1] = 8;
    base_put_le64(op + 2, v);
    return put(x, op, 10);
}

static segfm_status put_text(exporter *x, const char *prefix, const char *text) {
    unsigned char op[5] = {'X'};
    base_put_le32(op + 1, (uint32_t)(strlen(prefix) + strlen(text)));
    segfm_status status = put(x, op, 5);
    if (status == SEGFM_OK) status = put_ops(x, prefix);
    return status == SEGFM_OK ? put_ops(x, text) : status;
}

/* Python refuses a text that is not UTF-8, which a file's name in the provenance need not be. */
static segfm_status put_free_text(exporter *x, const char *text) {
    bool clean = true;
    size_t n = strlen(text);
    for (size_t i = 0, length; clean && i < n; i += length) {
        length = base_utf8_length((const unsigned char *)text + i);
        clean = length > 0;
    }
    if (clean) return put_text(x, "", text);
    char *copy = malloc(n + 1);
    if (copy == NULL) return base_fail(x->error, SEGFM_NO_MEMORY, "out of memory, need %zu bytes", n + 1);
    for (size_t i = 0; i <= n; i++) copy[i] = text[i];
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)copy[i] >= 0x80) copy[i] = '?';
    segfm_status status = put_text(x, "", copy);
    free(copy);
    return status;
}

static segfm_status put_sizes(exporter *x, const size_t *sizes, int n) {
    segfm_status status = put_ops(x, "(");
    for (int i = 0; i < n && status == SEGFM_OK; i++) status = put_size(x, sizes[i]);
    return status == SEGFM_OK ? put_ops(x, "t") : status;
}

/* _rebuild_tensor_v2(storage by its persistent id, offset, shape, strides, requires_grad, backward hooks) */
static segfm_status put_tensor(exporter *x, size_t number, const item *t) {
    char key[24];
    size_t stride[WEIGHTS_MAX_DIMS], next = 1;
    for (int d = t->ndim - 1; d >= 0; d--) {
        stride[d] = next;
        next *= t->shape[d];
    }
    base_format(key, sizeof key, "%zu", number);
    segfm_status status = put_ops(x, "ctorch._utils\n_rebuild_tensor_v2\n((");
    if (status == SEGFM_OK) status = put_text(x, "", "storage");
    if (status == SEGFM_OK) status = put_ops(x, "ctorch\nFloatStorage\n");
    if (status == SEGFM_OK) status = put_text(x, "", key);
    if (status == SEGFM_OK) status = put_text(x, "", "cpu");
    if (status == SEGFM_OK) status = put_size(x, t->count);
    if (status == SEGFM_OK) status = put_ops(x, "tQ");
    if (status == SEGFM_OK) status = put_size(x, 0);
    if (status == SEGFM_OK) status = put_sizes(x, t->shape, t->ndim);
    if (status == SEGFM_OK) status = put_sizes(x, stride, t->ndim);
    return status == SEGFM_OK ? put_ops(x, "\x89"
                                           "ccollections\nOrderedDict\n)RtR")
                              : status;
}

static segfm_status put_state_dict(exporter *x) {
    item t;
    segfm_status status = put_text(x, "", "model_state_dict");
    if (status == SEGFM_OK) status = put_ops(x, "ccollections\nOrderedDict\n)R(");
    for (size_t i = 0; status == SEGFM_OK && item_at(x->file, i, &t); i++) {
        status = put_text(x, "model.", t.name);
        if (status == SEGFM_OK) status = put_tensor(x, i, &t);
    }
    return status == SEGFM_OK ? put_ops(x, "u") : status;
}

/* What the way back needs beside the tensors (weights_checkpoint_open reads it). */
static segfm_status put_about(exporter *x) {
    const weights_config *c = &x->file->config;
    const size_t spatial[3] = {c->spatial[0], c->spatial[1], c->spatial[2]},
                 patch[3] = {c->patch[0], c->patch[1], c->patch[2]};
    segfm_status status = put_text(x, "", "segfm");
    if (status == SEGFM_OK) status = put_ops(x, "}(");
    if (status == SEGFM_OK) status = put_text(x, "", "spatial");
    if (status == SEGFM_OK) status = put_sizes(x, spatial, 3);
    if (status == SEGFM_OK) status = put_text(x, "", "patch");
    if (status == SEGFM_OK) status = put_sizes(x, patch, 3);
    if (status == SEGFM_OK) status = put_text(x, "", "heads");
    if (status == SEGFM_OK) status = put_size(x, c->heads);
    if (status == SEGFM_OK) status = put_text(x, "", "decoder_heads");
    if (status == SEGFM_OK) status = put_size(x, c->decoder_heads);
    if (status == SEGFM_OK && c->frame > 0) status = put_text(x, "", "frame");
    if (status == SEGFM_OK && c->frame > 0) status = put_size(x, c->frame);
    if (status == SEGFM_OK) status = put_text(x, "", "variant");
    if (status == SEGFM_OK) status = put_text(x, "", x->file->variant);
    if (status == SEGFM_OK) status = put_text(x, "", "provenance");
    if (status == SEGFM_OK) status = put_free_text(x, x->file->provenance);
    return status == SEGFM_OK ? put_ops(x, "u") : status;
}

static segfm_status put_pickle(exporter *x) {
    segfm_status status = put_ops(x, "\x80\x02}(");
    if (status == SEGFM_OK) status = put_state_dict(x);
    if (status == SEGFM_OK) status = put_about(x);
    return status == SEGFM_OK ? put_ops(x, "u.") : status;
}

/* ---- the archive --------------------------------------------------------------------------------------------- */

static segfm_status write_out(exporter *x, const void *bytes, size_t n) {
    x->zip.before += n;
    return x->sink(x->sink_user, bytes, n, x->error);
}

/* Hands on what the zip writer has. */
static segfm_status flush(exporter *x) {
    size_t n = x->zip.archive.size;
    x->zip.archive.size = 0;
    return write_out(x, x->zip.archive.data, n);
}

static segfm_status write_member(exporter *x, const char *name, const void *bytes, size_t n) {
    segfm_status status = io_zip_announce(&x->zip, name, n, io_crc32(0, bytes, n), x->error);
    if (status == SEGFM_OK) status = flush(x);
    return status == SEGFM_OK ? write_out(x, bytes, n) : status;
}

/* Halves → floats, little-endian, in x->widened. */
static segfm_status widen(exporter *x, const weights_tensor *t) {
    size_t n;
    if (!base_mul(t->count, 4, &n))
        return base_fail(x->error, SEGFM_NO_MEMORY, "%s: its float32 values do not fit in memory", t->name);
    segfm_status status = io_buffer_reserve(&x->widened, n, x->error);
    for (size_t i = 0; i < t->count && status == SEGFM_OK; i++) {
        float f = base_half_to_float(base_le16(t->data + 2 * i));
        uint32_t bits;
        memcpy(&bits, &f, 4);
        base_put_le32(x->widened.data + 4 * i, bits);
    }
    return status;
}

static segfm_status write_zeros(exporter *x, const char *name, size_t n) {
    static const unsigned char zeros[4096];
    uint32_t crc = 0;
    for (size_t at = 0; at < n; at += sizeof zeros)
        crc = io_crc32(crc, zeros, n - at < sizeof zeros ? n - at : sizeof zeros);
    segfm_status status = io_zip_announce(&x->zip, name, n, crc, x->error);
    if (status == SEGFM_OK) status = flush(x);
    for (size_t at = 0; at < n && status == SEGFM_OK; at += sizeof zeros)
        status = write_out(x, zeros, n - at < sizeof zeros ? n - at : sizeof zeros);
    return status;
}

static segfm_status write_storage(exporter *x, size_t number, const item *t) {
    char name[40];
    base_format(name, sizeof name, "archive/data/%zu", number);
    if (t->source == NULL) return write_zeros(x, name, 4 * t->count);
    segfm_status status = weights_check_finite(t->source, x->error);
    if (status != SEGFM_OK) return status;
    if (t->source->dtype == IO_F32) return write_member(x, name, t->source->data, 4 * t->count);
    status = widen(x, t->source);
    return status == SEGFM_OK ? write_member(x, name, x->widened.data, 4 * t->count) : status;
}

static segfm_status write_archive(exporter *x) {
    item t;
    segfm_status status = put_pickle(x);
    if (status == SEGFM_OK) status = write_member(x, "archive/data.pkl", x->pickle.data, x->pickle.size);
    if (status == SEGFM_OK) status = write_member(x, "archive/byteorder", "little", 6);
    for (size_t i = 0; status == SEGFM_OK && item_at(x->file, i, &t); i++) status = write_storage(x, i, &t);
    if (status == SEGFM_OK) status = write_member(x, "archive/version", "3\n", 2);
    if (status == SEGFM_OK) status = io_zip_finish(&x->zip, x->error);
    return status == SEGFM_OK ? flush(x) : status;
}

segfm_status weights_export(const weights_file *w, weights_sink *sink, void *sink_user, segfm_error *error) {
    exporter x = {.file = w, .sink = sink, .sink_user = sink_user, .error = error};
    segfm_status status = weights_verify(w, error);
    if (status == SEGFM_OK) status = write_archive(&x);
    io_zip_writer_free(&x.zip);
    io_buffer_free(&x.pickle);
    io_buffer_free(&x.widened);
    return status;
}
