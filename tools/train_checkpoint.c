/* checkpoint.bin: one file with all that a run needs to go on as if it had never stopped, so that it is either there as a
   whole or not at all. Little-endian:
     8 bytes "SEGFMTR1"; u64: bytes of a number (4 or 8), tensors, parameters, bytes of the settings' text with terminator;
     the position, 9 × 8 bytes; the text, filled up to 8 bytes; u64 steps of each tensor; parameters, first and second
     moments; u64: a hash of all that stands before it. The hash is XXH64 of pieces of PIECE bytes, each with the hash of
     the one before as its seed, so that it can be made while writing. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train.h"

enum { PIECE = 1 << 16, FIELDS = 9, HEAD = 8 + 4 * 8 + FIELDS * 8 };
static const char magic[8] = {'S', 'E', 'G', 'F', 'M', 'T', 'R', '1'};

/* ---- writing --------------------------------------------------------------------------------------------------- */

typedef struct writer {
    io_output *out;
    unsigned char *piece; /* (PIECE) */
    size_t used;
    uint64_t hash;
} writer;

static segfm_status flush(writer *w, segfm_error *error) {
    if (w->used == 0) return SEGFM_OK;
    w->hash = base_xxh64(w->piece, w->used, w->hash);
    segfm_status status = io_output_write(w->out, w->piece, w->used, error);
    w->used = 0;
    return status;
}

static segfm_status put_bytes(writer *w, const void *bytes, size_t n, segfm_error *error) {
    const unsigned char *from = bytes;
    segfm_status status = SEGFM_OK;
    while (status == SEGFM_OK && n > 0) {
        size_t now = n < PIECE - w->used ? n : PIECE - w->used;
        memcpy(w->piece + w->used, from, now);
        w->used += now;
        from += now;
        n -= now;
        if (w->used == PIECE) status = flush(w, error);
    }
    return status;
}

static segfm_status put_u64(writer *w, uint64_t v, segfm_error *error) {
    unsigned char bytes[8];
    base_put_le64(bytes, v);
    return put_bytes(w, bytes, sizeof bytes, error);
}

static segfm_status put_reals(writer *w, const real *v, size_t n, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    for (size_t i = 0; status == SEGFM_OK && i < n; i++) {
        unsigned char bytes[sizeof(real)];
#ifdef SEGFM_REAL_DOUBLE
        uint64_t bits;
        memcpy(&bits, &v[i], sizeof bits);
        base_put_le64(bytes, bits);
#else
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof bits);
        base_put_le32(bytes, bits);
#endif
        status = put_bytes(w, bytes, sizeof bytes, error);
    }
    return status;
}

static uint64_t bits_of(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static segfm_status put_head(writer *w, const char *text, const train_position *p, const train_network *n,
                             segfm_error *error) {
    size_t length = strlen(text) + 1;
    const uint64_t numbers[] = {sizeof(real),
                                n->tensor_count,
                                n->count,
                                length,
                                p->step,
                                p->evaluated,
                                p->stage,
                                p->log_bytes,
                                p->evaluation_bytes,
                                p->data_hash,
                                bits_of(p->epoch_sum),
                                bits_of(p->epoch_before),
                                bits_of(p->best)};
    segfm_status status = put_bytes(w, magic, sizeof magic, error);
    for (size_t i = 0; status == SEGFM_OK && i < sizeof numbers / sizeof numbers[0]; i++)
        status = put_u64(w, numbers[i], error);
    if (status == SEGFM_OK) status = put_bytes(w, text, length, error);
    while (status == SEGFM_OK && length++ % 8 != 0) status = put_bytes(w, "", 1, error);
    return status;
}

static segfm_status put_all(writer *w, const char *text, const train_position *p, const train_network *n,
                            const train_optimiser *o, segfm_error *error) {
    segfm_status status = put_head(w, text, p, n, error);
    for (size_t i = 0; status == SEGFM_OK && i < n->tensor_count; i++) status = put_u64(w, o->steps[i], error);
    if (status == SEGFM_OK) status = put_reals(w, n->parameters, n->count, error);
    if (status == SEGFM_OK) status = put_reals(w, o->m, n->count, error);
    if (status == SEGFM_OK) status = put_reals(w, o->v, n->count, error);
    if (status == SEGFM_OK) status = flush(w, error);
    if (status == SEGFM_OK) status = put_u64(w, w->hash, error);
    return status == SEGFM_OK ? flush(w, error) : status;
}

segfm_status train_checkpoint_write(const char *path, const char *text, const train_position *p, const train_network *n,
                                    const train_optimiser *o, segfm_error *error) {
    writer w = {.piece = malloc(PIECE)};
    if (w.piece == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none to write a checkpoint");
    segfm_status status = io_output_open(path, &w.out, error);
    if (status == SEGFM_OK) {
        status = put_all(&w, text, p, n, o, error);
        if (status == SEGFM_OK) status = io_output_commit(w.out, error);
        else io_output_abort(w.out);
    }
    free(w.piece);
    return status;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static double double_at(const unsigned char *bytes) {
    uint64_t bits = base_le64(bytes);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* The hash over the first n bytes. */
static uint64_t hash_of(const unsigned char *bytes, size_t n) {
    uint64_t hash = 0;
    for (size_t from = 0; from < n; from += PIECE)
        hash = base_xxh64(bytes + from, n - from < PIECE ? n - from : PIECE, hash);
    return hash;
}

static void read_position(const unsigned char *at, train_position *p) {
    *p = (train_position){.step = base_le64(at),
                          .evaluated = base_le64(at + 8),
                          .stage = base_le64(at + 16),
                          .log_bytes = base_le64(at + 24),
                          .evaluation_bytes = base_le64(at + 32),
                          .data_hash = base_le64(at + 40),
                          .epoch_sum = double_at(at + 48),
                          .epoch_before = double_at(at + 56),
                          .best = double_at(at + 64)};
}

/* Where the parts lie; false when they do not fill the file exactly. */
static bool find_parts(train_checkpoint *c, size_t text) {
    size_t steps, arrays, at = HEAD, size = c->file.size - 8;
    if (text == 0 || text > size - HEAD || c->tensors > SIZE_MAX || c->parameters > SIZE_MAX) return false;
    at += (text + 7) / 8 * 8;
    if (!base_mul((size_t)c->tensors, 8, &steps) || !base_mul((size_t)c->parameters, 3 * sizeof(real), &arrays) ||
        !base_add(steps, arrays, &arrays) || at > size || arrays != size - at || c->file.data[HEAD + text - 1] != 0)
        return false;
    c->text = (const char *)c->file.data + HEAD;
    c->steps = c->file.data + at;
    c->arrays = c->steps + steps;
    return true;
}

static segfm_status parse(train_checkpoint *c, segfm_error *error) {
    const unsigned char *bytes = c->file.data;
    size_t size = c->file.size;
    if (size < HEAD + 8 || memcmp(bytes, magic, sizeof magic) != 0)
        return base_fail(error, SEGFM_BAD_INPUT, "is not a checkpoint of segfm train");
    if (hash_of(bytes, size - 8) != base_le64(bytes + size - 8))
        return base_fail(error, SEGFM_BAD_INPUT, "is damaged: its hash does not match its %zu bytes", size);
    if (base_le64(bytes + 8) != sizeof(real))
        return base_fail(error, SEGFM_BAD_INPUT, "has numbers of %llu bytes, this program (" REAL_NAME ") %zu",
                         (unsigned long long)base_le64(bytes + 8), sizeof(real));
    c->tensors = base_le64(bytes + 16);
    c->parameters = base_le64(bytes + 24);
    uint64_t text = base_le64(bytes + 32);
    read_position(bytes + 40, &c->position);
    if (text > size || c->position.stage > TRAIN_BOX_POINTS || !find_parts(c, (size_t)text))
        return base_fail(error, SEGFM_BAD_INPUT, "is not a checkpoint: its parts do not fill its %zu bytes", size);
    return SEGFM_OK;
}

segfm_status train_checkpoint_open(const char *path, train_checkpoint *out, segfm_error *error) {
    *out = (train_checkpoint){0};
    segfm_status status = io_map_file(path, &out->file, error);
    if (status != SEGFM_OK) return status;
    status = parse(out, error);
    if (status == SEGFM_OK) return status;
    train_checkpoint_close(out);
    return base_fail_where(error, status, path);
}

void train_checkpoint_close(train_checkpoint *c) {
    io_unmap_file(&c->file);
    *c = (train_checkpoint){0};
}

static void read_reals(const unsigned char *from, size_t n, real *out) {
    for (size_t i = 0; i < n; i++) {
#ifdef SEGFM_REAL_DOUBLE
        uint64_t bits = base_le64(from + 8 * i);
#else
        uint32_t bits = base_le32(from + 4 * i);
#endif
        memcpy(&out[i], &bits, sizeof *out);
    }
}

segfm_status train_checkpoint_restore(const train_checkpoint *c, train_network *n, train_optimiser *o,
                                      segfm_error *error) {
    size_t bytes = n->count * sizeof(real);
    if (c->tensors != n->tensor_count || c->parameters != n->count)
        return base_fail(error, SEGFM_BAD_INPUT, "checkpoint: got %llu parameters in %llu tensors, need %zu in %zu",
                         (unsigned long long)c->parameters, (unsigned long long)c->tensors, n->count, n->tensor_count);
    for (size_t i = 0; i < n->tensor_count; i++) {
        o->steps[i] = base_le64(c->steps + 8 * i);
        n->tensors[i].touched = o->steps[i] > 0; /* a tensor steps as soon as it is touched */
    }
    read_reals(c->arrays, n->count, n->parameters);
    read_reals(c->arrays + bytes, n->count, o->m);
    read_reals(c->arrays + 2 * bytes, n->count, o->v);
    return SEGFM_OK;
}

void train_clean_folder(const char *folder) {
    char path[4096];
    DIR *d = opendir(folder);
    if (d == NULL) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, ".segfm-", 7) == 0 && tool_ends_with(e->d_name, ".tmp") &&
            tool_path(path, sizeof path, folder, e->d_name, NULL) == SEGFM_OK)
            (void)remove(path);
    closedir(d);
}

/* ---- weights files --------------------------------------------------------------------------------------------- */

static const train_tensor *find_tensor(const train_network *n, const char *name) {
    for (size_t i = 0; i < n->tensor_count; i++)
        if (strcmp(n->tensors[i].spec.name, name) == 0) return &n->tensors[i];
    return NULL;
}

static segfm_status tensor_values(void *user, const weights_spec *spec, size_t count, float *out, segfm_error *error) {
    const train_network *n = user;
    const train_tensor *t = find_tensor(n, spec->name);
    if (t == NULL || t->count != count)
        return base_fail(error, SEGFM_BAD_INPUT, "the network has no tensor %s", spec->name);
    for (size_t i = 0; i < count; i++) out[i] = (float)n->parameters[t->at + i];
    return SEGFM_OK;
}

static bool has_tensor(void *user, const weights_spec *spec) { return find_tensor(user, spec->name) != NULL; }

segfm_status train_weights_bytes(const train_network *n, const train_settings *s, uint64_t step, io_buffer *out,
                                 segfm_error *error) {
    char provenance[256];
    snprintf(provenance, sizeof provenance,
             "segfm " SEGFM_VERSION " train: seed %lld, step %llu, settings XXH64 %016llx", (long long)s->seed,
             (unsigned long long)step, (unsigned long long)train_settings_hash(s));
    weights_write_options options = {
        .variant = s->variant == VOL_UPSTREAM ? "upstream" : "seed", .provenance = provenance, .has = has_tensor};
    void *source = (void *)(uintptr_t)n; /* a source's user is not const; it only reads */
    return weights_write(&n->config, &options, tensor_values, source, weights_sink_buffer, out, error);
}

segfm_status train_weights_take(train_network *n, const weights_file *file, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    for (size_t i = 0; status == SEGFM_OK && i < n->tensor_count; i++) {
        const weights_tensor *t = weights_find(file, n->tensors[i].spec.name);
        if (t != NULL && t->count == n->tensors[i].count)
            status = weights_load(t, n->parameters + n->tensors[i].at, error);
    }
    return status;
}
