/* format: the weights file, read and written. FORMAT.md describes it byte by byte.

   The layout has no freedom: tensors stand in the order of weights_spec_at, each at the first multiple of 64 after the
   one before, with zeros between. So whatever is not header or tensor must be zero, nothing can overlap, and a reader
   that accepts a file has looked at every byte but the values; those are covered by a hash per tensor, and the hashes
   by the content hash. */
#include "weights.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    VERSION = 1,
    ALIGN = 64,
    FIXED_BYTES = 64, /* before the configuration */
    HASH_AT = 24,
    CONFIG_FIELDS = 25,
    CONFIG_BYTES = 4 * 24, /* the last field, frame, is only there when it is not 0 */
    CONFIG_MOST = 4 * CONFIG_FIELDS,
    ENTRY_BYTES = WEIGHTS_NAME_MAX + 72,
    PROVENANCE_MAX = 1 << 16
};

static const unsigned char magic[8] = {0x89, 'S', 'F', 'M', '\r', '\n', 0x1A, '\n'};

/* The table's entry: a name, then at these offsets. */
enum {
    ENTRY_DTYPE = WEIGHTS_NAME_MAX,
    ENTRY_NDIM = ENTRY_DTYPE + 4,
    ENTRY_SHAPE = ENTRY_NDIM + 4,
    ENTRY_OFFSET = ENTRY_SHAPE + 8 * WEIGHTS_MAX_DIMS,
    ENTRY_SIZE = ENTRY_OFFSET + 8,
    ENTRY_HASH = ENTRY_SIZE + 8
};

enum { CODE_F32 = 1, CODE_F16 = 2 };

static segfm_status no_memory(size_t bytes, segfm_error *error) {
    return base_fail(error, SEGFM_NO_MEMORY, "out of memory, need %zu bytes", bytes);
}

static bool round_up(size_t n, size_t *out) {
    size_t sum;
    if (!base_add(n, ALIGN - 1, &sum)) return false;
    *out = sum / ALIGN * ALIGN;
    return true;
}

/* The order of the configuration's numbers in the file. */
static void list_config(weights_config *c, uint32_t *fields[CONFIG_FIELDS]) {
    uint32_t *const list[CONFIG_FIELDS] = {
        &c->spatial[0],    &c->spatial[1],
        &c->spatial[2],    &c->patch[0],
        &c->patch[1],      &c->patch[2],
        &c->dim,           &c->depth,
        &c->heads,         &c->mlp,
        &c->decoder_depth, &c->decoder_heads,
        &c->decoder_mlp,   &c->decoder_cross_dim,
        &c->mask_tokens,   &c->iou_hidden,
        &c->iou_layers,    &c->hyper_layers,
        &c->up1,           &c->up2,
        &c->gru_blocks,    &c->gru_hidden,
        &c->topk,          &c->text_dim,
        &c->frame,
    };
    memcpy(fields, list, sizeof list);
}

/* The hash of everything before the data but the hash itself; the tensors' hashes are part of it. */
static uint64_t hash_header(const unsigned char *bytes, size_t header_bytes) {
    uint64_t before = base_xxh64(bytes, HASH_AT, 0);
    return base_xxh64(bytes + HASH_AT + 8, header_bytes - HASH_AT - 8, before);
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* Where the parts of a header lie; every end is within header_bytes. */
typedef struct layout {
    size_t header_bytes, config_bytes, table_at, count, variant_at, provenance_at, text_end;
} layout;

static segfm_status read_layout(const unsigned char *bytes, size_t n, layout *l, segfm_error *error) {
    if (n < FIXED_BYTES)
        return base_fail(error, SEGFM_BAD_INPUT, "weights: %zu bytes, need at least %d", n, FIXED_BYTES);
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "weights offset 0: not a segfm weights file, the first 8 bytes differ");
    if (base_le32(bytes + 8) != VERSION)
        return base_fail(error, SEGFM_BAD_INPUT, "weights offset 8: format version is %llu, need %d",
                         (unsigned long long)base_le32(bytes + 8), VERSION);
    if (base_le64(bytes + 16) != n)
        return base_fail(error, SEGFM_BAD_INPUT, "weights offset 16: the file has %zu bytes, its header says %llu", n,
                         (unsigned long long)base_le64(bytes + 16));
    l->header_bytes = base_le32(bytes + 12);
    l->config_bytes = base_le32(bytes + 32);
    l->count = base_le32(bytes + 44);
    size_t variant_bytes = base_le32(bytes + 36), provenance_bytes = base_le32(bytes + 40), table_bytes, need;
    bool fits = base_add(FIXED_BYTES, l->config_bytes, &l->table_at) && base_mul(l->count, ENTRY_BYTES, &table_bytes) &&
                base_add(l->table_at, table_bytes, &l->variant_at) &&
                base_add(l->variant_at, variant_bytes, &l->provenance_at) &&
                base_add(l->provenance_at, provenance_bytes, &l->text_end) && round_up(l->text_end, &need);
    if (!fits || need != l->header_bytes || l->header_bytes > n)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "weights offset 12: the header's %zu bytes do not hold the parts that offsets 32 to 47 state",
                         l->header_bytes);
    return SEGFM_OK;
}

static segfm_status check_zero(const unsigned char *bytes, size_t begin, size_t end, segfm_error *error) {
    for (size_t i = begin; i < end; i++)
        if (bytes[i] != 0)
            return base_fail(error, SEGFM_BAD_INPUT, "weights offset %zu: padding is %d, need 0", i, (int)bytes[i]);
    return SEGFM_OK;
}

/* A text of end - begin bytes of which exactly the last is 0. */
static segfm_status read_text(const unsigned char *bytes, size_t begin, size_t end, const char **out,
                              segfm_error *error) {
    if (begin == end || memchr(bytes + begin, '\0', end - begin) != bytes + end - 1)
        return base_fail(error, SEGFM_BAD_INPUT, "weights offset %zu: a text does not end where its length says",
                         begin);
    *out = (const char *)bytes + begin;
    return SEGFM_OK;
}

static segfm_status read_config(const unsigned char *bytes, const layout *l, weights_config *out, segfm_error *error) {
    uint32_t *fields[CONFIG_FIELDS];
    if (l->config_bytes < CONFIG_BYTES)
        return base_fail(error, SEGFM_BAD_INPUT, "weights offset 32: the configuration has %zu bytes, need at least %d",
                         l->config_bytes, CONFIG_BYTES);
    list_config(out, fields);
    size_t known = l->config_bytes < CONFIG_MOST ? CONFIG_BYTES : CONFIG_MOST;
    for (size_t i = 0; i < CONFIG_FIELDS; i++) *fields[i] = 4 * i < known ? base_le32(bytes + FIXED_BYTES + 4 * i) : 0;
    /* a later writer's additional numbers may be ignored only when they say nothing */
    segfm_status status = check_zero(bytes, FIXED_BYTES + known, l->table_at, error);
    return status == SEGFM_OK ? weights_check_config(out, error) : status;
}

/* The name of table entry i, terminated and zero-padded. */
static segfm_status read_name(const unsigned char *entry, size_t i, const char **out, segfm_error *error) {
    const unsigned char *end = memchr(entry, '\0', WEIGHTS_NAME_MAX);
    if (end == NULL || end == entry)
        return base_fail(error, SEGFM_BAD_INPUT, "weights: the name of tensor %zu has no end or no beginning", i);
    for (const unsigned char *p = end; p < entry + WEIGHTS_NAME_MAX; p++)
        if (*p != 0)
            return base_fail(error, SEGFM_BAD_INPUT, "weights: the name of tensor %zu is not padded with 0", i);
    for (const unsigned char *p = entry; p < end; p++)
        if (*p <= ' ' || *p > '~')
            return base_fail(error, SEGFM_BAD_INPUT, "weights: the name of tensor %zu holds byte 0x%x", i,
                             (unsigned)*p);
    *out = (const char *)entry;
    return SEGFM_OK;
}

/* Entry → tensor, checked against its spec; *end is where the data before it ended, and then where its own does. */
static segfm_status read_entry(const unsigned char *bytes, size_t n, const unsigned char *entry,
                               const weights_spec *spec, size_t *end, weights_tensor *t, segfm_error *error) {
    uint32_t code = base_le32(entry + ENTRY_DTYPE);
    if (code != CODE_F32 && code != CODE_F16)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: type is %llu, need 1 (float32) or 2 (float16)", spec->name,
                         (unsigned long long)code);
    t->name = (const char *)entry;
    t->dtype = code == CODE_F32 ? IO_F32 : IO_F16;
    t->ndim = spec->ndim;
    if (base_le32(entry + ENTRY_NDIM) != (uint32_t)spec->ndim)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: %llu dimensions, need %d", spec->name,
                         (unsigned long long)base_le32(entry + ENTRY_NDIM), spec->ndim);
    for (int i = 0; i < WEIGHTS_MAX_DIMS; i++) {
        uint64_t got = base_le64(entry + ENTRY_SHAPE + 8 * i);
        if (got != spec->shape[i]) /* those past ndim are 0 in both */
            return base_fail(error, SEGFM_BAD_INPUT, "%s: dimension %d is %llu, need %zu", spec->name, i,
                             (unsigned long long)got, spec->shape[i]);
        t->shape[i] = spec->shape[i];
    }
    size_t start, size;
    uint64_t offset = base_le64(entry + ENTRY_OFFSET), stated = base_le64(entry + ENTRY_SIZE);
    if (!base_count(t->shape, t->ndim, 1, &t->count) || !base_mul(t->count, io_dtype_size(t->dtype), &size))
        return base_fail(error, SEGFM_BAD_INPUT, "%s: its size overflows", spec->name);
    if (stated != size)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: its data has %llu bytes, need %zu", spec->name,
                         (unsigned long long)stated, size);
    if (!round_up(*end, &start) || offset != start)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: its data is at offset %llu, need the multiple of 64 after %zu",
                         spec->name, (unsigned long long)offset, *end);
    if (start > n || size > n - start)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: its data ends at offset %llu, the file at %zu", spec->name,
                         (unsigned long long)offset + size, n);
    t->data = bytes + start;
    segfm_status status = check_zero(bytes, *end, start, error);
    *end = start + size;
    return status;
}

/* The spec of the table's next name: steps over optional ones that are absent. */
static segfm_status next_spec(const weights_config *c, const char *name, size_t *at, size_t *absent, weights_spec *spec,
                              segfm_error *error) {
    for (;; ++*at, ++*absent) {
        if (!weights_spec_at(c, *at, spec))
            return base_fail(error, SEGFM_BAD_INPUT,
                             "weights: tensor '%s' is not one of this configuration's or not in its place", name);
        if (strcmp(spec->name, name) == 0) break;
        if (spec->required)
            return base_fail(error, SEGFM_BAD_INPUT, "weights: found tensor '%s', need '%s' here", name, spec->name);
    }
    ++*at;
    return SEGFM_OK;
}

/* After the table: what is left must be optional, and the optional ones are all there or all absent. */
static segfm_status check_rest(const weights_config *c, size_t at, size_t present, size_t absent, segfm_error *error) {
    weights_spec spec;
    for (; weights_spec_at(c, at, &spec); at++) {
        if (spec.required) return base_fail(error, SEGFM_BAD_INPUT, "weights: tensor '%s' is missing", spec.name);
        absent++;
    }
    if (present > 0 && absent > 0)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "weights: %zu optional tensors are there and %zu are missing, need all or none", present,
                         absent);
    return SEGFM_OK;
}

static segfm_status read_table(const unsigned char *bytes, size_t n, const layout *l, const weights_config *c,
                               weights_tensor *tensors, segfm_error *error) {
    size_t end = l->header_bytes, at = 0, present = 0, absent = 0, file_end;
    segfm_status status = SEGFM_OK;
    for (size_t i = 0; i < l->count && status == SEGFM_OK; i++) {
        const unsigned char *entry = bytes + l->table_at + i * ENTRY_BYTES;
        const char *name = NULL;
        weights_spec spec;
        status = read_name(entry, i, &name, error);
        if (status == SEGFM_OK) status = next_spec(c, name, &at, &absent, &spec, error);
        if (status == SEGFM_OK) status = read_entry(bytes, n, entry, &spec, &end, &tensors[i], error);
        if (status == SEGFM_OK && !spec.required) present++;
    }
    if (status == SEGFM_OK) status = check_rest(c, at, present, absent, error);
    if (status != SEGFM_OK) return status;
    if (!round_up(end, &file_end) || file_end != n)
        return base_fail(error, SEGFM_BAD_INPUT, "weights: the last tensor ends at offset %zu, the file at %zu", end,
                         n);
    return check_zero(bytes, end, n, error);
}

/* The tensors in file order are followed, in the same allocation, by pointers to them in the order of their names. */
static const weights_tensor **name_index(const weights_file *w) {
    return (const weights_tensor **)(void *)(w->tensors + w->count);
}

static int compare_names(const void *a, const void *b) {
    const weights_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static segfm_status read_tensors(const unsigned char *bytes, size_t n, const layout *l, weights_file *w,
                                 segfm_error *error) {
    size_t size; /* the table lies in the file, so this is a small multiple of bytes that are there */
    if (!base_mul(l->count, sizeof *w->tensors + sizeof(weights_tensor *), &size)) return no_memory(SIZE_MAX, error);
    w->tensors = malloc(size + 1);
    if (w->tensors == NULL) return no_memory(size, error);
    w->count = l->count;
    segfm_status status = read_table(bytes, n, l, &w->config, w->tensors, error);
    if (status != SEGFM_OK) return status;
    const weights_tensor **index = name_index(w);
    for (size_t i = 0; i < w->count; i++) index[i] = &w->tensors[i];
    qsort(index, w->count, sizeof *index, compare_names);
    return SEGFM_OK;
}

static segfm_status open_file(const unsigned char *bytes, size_t n, weights_file *w, segfm_error *error) {
    layout l;
    segfm_status status = read_layout(bytes, n, &l, error);
    if (status == SEGFM_OK) status = check_zero(bytes, 48, FIXED_BYTES, error);
    if (status == SEGFM_OK) status = read_config(bytes, &l, &w->config, error);
    if (status == SEGFM_OK) status = read_text(bytes, l.variant_at, l.provenance_at, &w->variant, error);
    if (status == SEGFM_OK) status = read_text(bytes, l.provenance_at, l.text_end, &w->provenance, error);
    if (status == SEGFM_OK) status = check_zero(bytes, l.text_end, l.header_bytes, error);
    if (status != SEGFM_OK) return status;
    if (strcmp(w->variant, "seed") != 0 && strcmp(w->variant, "upstream") != 0)
        return base_fail(error, SEGFM_BAD_INPUT, "weights offset %zu: the variant is neither seed nor upstream",
                         l.variant_at);
    status = read_tensors(bytes, n, &l, w, error);
    if (status != SEGFM_OK) return status;
    w->bytes = bytes;
    w->size = n;
    w->format_version = VERSION;
    w->content_hash = base_le64(bytes + HASH_AT);
    if (hash_header(bytes, l.header_bytes) != w->content_hash)
        return base_fail(error, SEGFM_BAD_INPUT, "weights: the header is damaged, its hash is not the one at offset %d",
                         HASH_AT);
    return SEGFM_OK;
}

segfm_status weights_open(const unsigned char *bytes, size_t n, weights_file *out, segfm_error *error) {
    memset(out, 0, sizeof *out);
    segfm_status status = open_file(bytes, n, out, error);
    if (status != SEGFM_OK) weights_close(out);
    return status;
}

void weights_close(weights_file *w) {
    free(w->tensors);
    memset(w, 0, sizeof *w);
}

segfm_status weights_verify(const weights_file *w, segfm_error *error) {
    layout l;
    segfm_status status = read_layout(w->bytes, w->size, &l, error);
    if (status != SEGFM_OK) return status;
    for (size_t i = 0; i < w->count; i++) {
        const weights_tensor *t = &w->tensors[i];
        uint64_t stated = base_le64(w->bytes + l.table_at + i * ENTRY_BYTES + ENTRY_HASH);
        if (base_xxh64(t->data, t->count * io_dtype_size(t->dtype), 0) != stated)
            return base_fail(error, SEGFM_BAD_INPUT, "%s: its data is damaged, the hash is not the one in the table",
                             t->name);
        status = weights_check_finite(t, error);
        if (status != SEGFM_OK) return status;
    }
    if (hash_header(w->bytes, l.header_bytes) != w->content_hash)
        return base_fail(error, SEGFM_BAD_INPUT, "weights: the header is damaged, its hash is not the one at offset %d",
                         HASH_AT);
    return SEGFM_OK;
}

const weights_tensor *weights_find(const weights_file *w, const char *name) {
    if (w->count == 0) return NULL;
    const weights_tensor **index = name_index(w);
    size_t low = 0, high = w->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, index[middle]->name);
        if (order == 0) return index[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

static bool is_finite(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return (bits & 0x7F800000U) != 0x7F800000U;
}

static float load_float(const unsigned char *p) {
    uint32_t bits = base_le32(p);
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* Values are read in loops that become vectors: their bytes are put together in place (base_le32 is a call), and whether
   one is not finite is gathered in one bit. An exponent of ones is the only one that carries into the sign. */

static inline uint32_t le32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint16_t le16(const unsigned char *p) { return (uint16_t)(p[0] | p[1] << 8); }

static bool read_floats(const unsigned char *restrict bytes, size_t count, real *restrict out) {
    uint32_t carried = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = le32(bytes + 4 * i);
        float f;
        memcpy(&f, &bits, 4);
        carried |= (bits & 0x7F800000U) + 0x00800000U;
        out[i] = (real)f;
    }
    return carried < 0x80000000U;
}

static bool read_halves(const unsigned char *restrict bytes, size_t count, real *restrict out) {
    uint32_t carried = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t h = le16(bytes + 2 * i);
        carried |= (h & 0x7C00U) + 0x0400U;
        out[i] = (real)base_widen_half(h);
    }
    return carried < 0x8000U;
}

static bool copy_halves(const unsigned char *restrict bytes, size_t count, uint16_t *restrict out) {
    uint32_t carried = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = le16(bytes + 2 * i);
        carried |= (out[i] & 0x7C00U) + 0x0400U;
    }
    return carried < 0x8000U;
}

bool weights_read(const weights_tensor *t, size_t first, size_t count, real *out) {
    if (t->dtype == IO_F16) return read_halves(t->data + 2 * first, count, out);
    return read_floats(t->data + 4 * first, count, out);
}

bool weights_read_half(const weights_tensor *t, size_t first, size_t count, uint16_t *out) {
    assert(t->dtype == IO_F16);
    return copy_halves(t->data + 2 * first, count, out);
}

segfm_status weights_check_finite(const weights_tensor *t, segfm_error *error) {
    for (size_t i = 0; i < t->count; i++) {
        float f = t->dtype == IO_F16 ? base_half_to_float(le16(t->data + 2 * i)) : load_float(t->data + 4 * i);
        if (!is_finite(f)) return base_fail(error, SEGFM_BAD_INPUT, "%s: element %zu is not finite", t->name, i);
    }
    return SEGFM_OK;
}

segfm_status weights_load(const weights_tensor *t, real *out, segfm_error *error) {
    return weights_read(t, 0, t->count, out) ? SEGFM_OK : weights_check_finite(t, error);
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

typedef struct writer {
    const weights_config *config;
    const weights_write_options *options;
    weights_source *source;
    void *source_user;
    unsigned char *header;
    layout layout;
    size_t file_bytes;
    float *values; /* room for the largest tensor */
    segfm_error *error;
} writer;

static bool is_written(const writer *w, const weights_spec *spec) {
    return spec->required || (w->options->has != NULL && w->options->has(w->source_user, spec));
}

/* Matrices take half the room as f16. Not the Fourier features' frequencies: their errors would be multiplied by 2π. */
static bool is_half(const writer *w, const weights_spec *spec) {
    return w->options->half && spec->ndim >= 2 && strstr(spec->name, "gaussian") == NULL;
}

/* The i-th written tensor is found by walking the specs; `at` is where the walk stands. */
static bool next_written(const writer *w, size_t *at, weights_spec *spec) {
    while (weights_spec_at(w->config, (*at)++, spec))
        if (is_written(w, spec)) return true;
    return false;
}

static segfm_status tensor_bytes(const writer *w, const weights_spec *spec, size_t *count, size_t *size) {
    if (base_count(spec->shape, spec->ndim, 1, count) && base_mul(*count, is_half(w, spec) ? 2 : 4, size))
        return SEGFM_OK;
    return base_fail(w->error, SEGFM_BAD_INPUT, "%s: its size overflows", spec->name);
}

static void put_entry(const writer *w, unsigned char *entry, const weights_spec *spec, size_t offset, size_t size) {
    memcpy(entry, spec->name, strlen(spec->name));
    base_put_le32(entry + ENTRY_DTYPE, is_half(w, spec) ? CODE_F16 : CODE_F32);
    base_put_le32(entry + ENTRY_NDIM, (uint32_t)spec->ndim);
    for (int i = 0; i < spec->ndim; i++) base_put_le64(entry + ENTRY_SHAPE + 8 * i, spec->shape[i]);
    base_put_le64(entry + ENTRY_OFFSET, offset);
    base_put_le64(entry + ENTRY_SIZE, size);
}

/* Counts the tensors, checks the optional ones, sizes the header. */
static segfm_status plan_header(writer *w) {
    size_t present = 0, absent = 0, table, variant = strlen(w->options->variant) + 1,
           provenance = strlen(w->options->provenance) + 1;
    weights_spec spec;
    layout *l = &w->layout;
    if (strcmp(w->options->variant, "seed") != 0 && strcmp(w->options->variant, "upstream") != 0)
        return base_fail(w->error, SEGFM_BAD_USAGE, "the variant is '%s', need seed or upstream", w->options->variant);
    if (provenance > PROVENANCE_MAX)
        return base_fail(w->error, SEGFM_BAD_USAGE, "the provenance has %zu bytes, need at most %d", provenance,
                         PROVENANCE_MAX);
    for (size_t i = 0; weights_spec_at(w->config, i, &spec); i++) {
        bool written = is_written(w, &spec);
        l->count += written;
        present += !spec.required && written;
        absent += !written;
    }
    if (present > 0 && absent > 0)
        return base_fail(w->error, SEGFM_BAD_INPUT,
                         "%zu optional tensors (gru_blocks.N.fc_coord) are there and %zu are missing, need all or none",
                         present, absent);
    l->config_bytes = w->config->frame > 0 ? CONFIG_MOST : CONFIG_BYTES;
    l->table_at = FIXED_BYTES + l->config_bytes;
    bool fits = base_mul(l->count, ENTRY_BYTES, &table) && base_add(l->table_at, table, &l->variant_at) &&
                base_add(l->variant_at, variant, &l->provenance_at) &&
                base_add(l->provenance_at, provenance, &l->text_end) && round_up(l->text_end, &l->header_bytes);
    if (!fits || l->header_bytes > UINT32_MAX)
        return base_fail(w->error, SEGFM_BAD_INPUT, "the header's size overflows");
    w->header = calloc(1, l->header_bytes);
    return w->header != NULL ? SEGFM_OK : no_memory(l->header_bytes, w->error);
}

/* Everything in the header but the hashes. */
static segfm_status fill_header(writer *w) {
    size_t end = w->layout.header_bytes, at = 0, largest = 0;
    weights_spec spec;
    weights_config config = *w->config;
    uint32_t *fields[CONFIG_FIELDS];
    unsigned char *entry = w->header + w->layout.table_at;
    for (; next_written(w, &at, &spec); entry += ENTRY_BYTES) {
        size_t count, size, start;
        segfm_status status = tensor_bytes(w, &spec, &count, &size);
        if (status != SEGFM_OK) return status;
        if (!round_up(end, &start) || !base_add(start, size, &end))
            return base_fail(w->error, SEGFM_BAD_INPUT, "%s: the file's size overflows", spec.name);
        put_entry(w, entry, &spec, start, size);
        if (count > largest) largest = count;
    }
    if (!round_up(end, &w->file_bytes) || !base_mul(largest, sizeof *w->values, &end))
        return base_fail(w->error, SEGFM_BAD_INPUT, "the file's size overflows");
    w->values = malloc(end + 1);
    if (w->values == NULL) return no_memory(end, w->error);
    memcpy(w->header, magic, sizeof magic);
    base_put_le32(w->header + 8, VERSION);
    base_put_le32(w->header + 12, (uint32_t)w->layout.header_bytes);
    base_put_le64(w->header + 16, w->file_bytes);
    base_put_le32(w->header + 32, (uint32_t)w->layout.config_bytes);
    base_put_le32(w->header + 36, (uint32_t)(w->layout.provenance_at - w->layout.variant_at));
    base_put_le32(w->header + 40, (uint32_t)(w->layout.text_end - w->layout.provenance_at));
    base_put_le32(w->header + 44, (uint32_t)w->layout.count);
    list_config(&config, fields);
    for (size_t i = 0; 4 * i < w->layout.config_bytes; i++) base_put_le32(w->header + FIXED_BYTES + 4 * i, *fields[i]);
    memcpy(w->header + w->layout.variant_at, w->options->variant, w->layout.provenance_at - w->layout.variant_at);
    memcpy(w->header + w->layout.provenance_at, w->options->provenance, w->layout.text_end - w->layout.provenance_at);
    return SEGFM_OK;
}

/* Floats → the file's bytes, in the same memory: an encoded element is never longer than the float it replaces. */
static segfm_status encode(const writer *w, const weights_spec *spec, size_t count) {
    unsigned char *bytes = (unsigned char *)w->values;
    bool half = is_half(w, spec);
    for (size_t i = 0; i < count; i++) {
        float f = w->values[i];
        uint32_t bits;
        if (!is_finite(f)) return base_fail(w->error, SEGFM_BAD_INPUT, "%s: element %zu is not finite", spec->name, i);
        if (half) {
            uint16_t h = base_float_to_half(f);
            if ((h & 0x7C00U) == 0x7C00U)
                return base_fail(w->error, SEGFM_BAD_INPUT, "%s: element %zu is too large for half precision",
                                 spec->name, i);
            base_put_le16(bytes + 2 * i, h);
        } else {
            memcpy(&bits, &f, 4);
            base_put_le32(bytes + 4 * i, bits);
        }
    }
    return SEGFM_OK;
}

/* One tensor's bytes into w->values, and their hash. */
static segfm_status produce(const writer *w, const weights_spec *spec, size_t *size, uint64_t *hash) {
    size_t count;
    segfm_status status = tensor_bytes(w, spec, &count, size);
    if (status == SEGFM_OK) status = w->source(w->source_user, spec, count, w->values, w->error);
    if (status == SEGFM_OK) status = encode(w, spec, count);
    if (status == SEGFM_OK) *hash = base_xxh64(w->values, *size, 0);
    return status;
}

static segfm_status fill_hashes(writer *w) {
    size_t at = 0, size;
    weights_spec spec;
    unsigned char *entry = w->header + w->layout.table_at;
    for (; next_written(w, &at, &spec); entry += ENTRY_BYTES) {
        uint64_t hash = 0;
        segfm_status status = produce(w, &spec, &size, &hash);
        if (status != SEGFM_OK) return status;
        base_put_le64(entry + ENTRY_HASH, hash);
    }
    base_put_le64(w->header + HASH_AT, hash_header(w->header, w->layout.header_bytes));
    return SEGFM_OK;
}

static segfm_status write_data(const writer *w, weights_sink *sink, void *sink_user) {
    static const unsigned char zeros[ALIGN] = {0};
    size_t at = 0, size = 0;
    weights_spec spec;
    const unsigned char *entry = w->header + w->layout.table_at;
    segfm_status status = sink(sink_user, w->header, w->layout.header_bytes, w->error);
    for (; status == SEGFM_OK && next_written(w, &at, &spec); entry += ENTRY_BYTES) {
        uint64_t hash = 0;
        status = produce(w, &spec, &size, &hash);
        if (status == SEGFM_OK && hash != base_le64(entry + ENTRY_HASH))
            status = base_fail(w->error, SEGFM_BAD_INPUT, "%s: its values changed while they were written", spec.name);
        if (status == SEGFM_OK) status = sink(sink_user, w->values, size, w->error);
        if (status == SEGFM_OK && size % ALIGN != 0) status = sink(sink_user, zeros, ALIGN - size % ALIGN, w->error);
    }
    return status;
}

segfm_status weights_write(const weights_config *c, const weights_write_options *options, weights_source *source,
                           void *source_user, weights_sink *sink, void *sink_user, segfm_error *error) {
    writer w = {.config = c, .options = options, .source = source, .source_user = source_user, .error = error};
    segfm_status status = weights_check_config(c, error);
    if (status == SEGFM_OK) status = plan_header(&w);
    if (status == SEGFM_OK) status = fill_header(&w);
    if (status == SEGFM_OK) status = fill_hashes(&w);
    if (status == SEGFM_OK) status = write_data(&w, sink, sink_user);
    free(w.header);
    free(w.values);
    return status;
}

segfm_status weights_sink_buffer(void *user, const void *bytes, size_t n, segfm_error *error) {
    return io_buffer_append(user, bytes, n, error);
}
