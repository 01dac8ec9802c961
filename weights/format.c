/* format: the weights file, read where it lies: nothing is allocated. FORMAT.md describes it byte by byte. */
#include "layout.h"

#include <assert.h>
#include <string.h>

void weights_list_config(weights_config *c, uint32_t *fields[LAYOUT_CONFIG_FIELDS]) {
    uint32_t *const list[LAYOUT_CONFIG_FIELDS] = {
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

uint64_t weights_hash_header(const unsigned char *bytes, size_t header_bytes) {
    uint64_t before = base_xxh64(bytes, LAYOUT_HASH_AT, 0);
    return base_xxh64(bytes + LAYOUT_HASH_AT + 8, header_bytes - LAYOUT_HASH_AT - 8, before);
}

/* ---- header and table ------------------------------------------------------------------------------------------------- */

static segfm_status read_layout(const unsigned char *bytes, size_t n, weights_layout *l, segfm_error *error) {
    if (n < LAYOUT_FIXED_BYTES)
        return base_fail(error, SEGFM_BAD_INPUT, "weights: %zu bytes, need at least %d", n, LAYOUT_FIXED_BYTES);
    if (memcmp(bytes, weights_magic, sizeof weights_magic) != 0)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "weights offset 0: not a segfm weights file, the first 8 bytes differ");
    if (base_le32(bytes + 8) != LAYOUT_VERSION)
        return base_fail(error, SEGFM_BAD_INPUT, "weights offset 8: format version is %llu, need %d",
                         (unsigned long long)base_le32(bytes + 8), LAYOUT_VERSION);
    if (base_le64(bytes + 16) != n)
        return base_fail(error, SEGFM_BAD_INPUT, "weights offset 16: the file has %zu bytes, its header says %llu", n,
                         (unsigned long long)base_le64(bytes + 16));
    l->header_bytes = base_le32(bytes + 12);
    l->config_bytes = base_le32(bytes + 32);
    l->count = base_le32(bytes + 44);
    /* numbers of 32 bits, whose sums fit into 64 */
    uint64_t table_at = LAYOUT_FIXED_BYTES + (uint64_t)l->config_bytes;
    uint64_t variant_at = table_at + (uint64_t)l->count * LAYOUT_ENTRY_BYTES;
    uint64_t provenance_at = variant_at + base_le32(bytes + 36), text_end = provenance_at + base_le32(bytes + 40);
    uint64_t need = (text_end + LAYOUT_ALIGN - 1) / LAYOUT_ALIGN * LAYOUT_ALIGN;
    if (need != l->header_bytes || l->header_bytes > n)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "weights offset 12: the header's %zu bytes do not hold the parts that offsets 32 to 47 state",
                         l->header_bytes);
    l->table_at = (size_t)table_at;
    l->variant_at = (size_t)variant_at;
    l->provenance_at = (size_t)provenance_at;
    l->text_end = (size_t)text_end;
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

static segfm_status read_config(const unsigned char *bytes, const weights_layout *l, weights_config *out,
                                segfm_error *error) {
    uint32_t *fields[LAYOUT_CONFIG_FIELDS];
    if (l->config_bytes < LAYOUT_CONFIG_BYTES)
        return base_fail(error, SEGFM_BAD_INPUT, "weights offset 32: the configuration has %zu bytes, need at least %d",
                         l->config_bytes, LAYOUT_CONFIG_BYTES);
    weights_list_config(out, fields);
    size_t known = l->config_bytes < LAYOUT_CONFIG_MOST ? LAYOUT_CONFIG_BYTES : LAYOUT_CONFIG_MOST;
    for (size_t i = 0; i < LAYOUT_CONFIG_FIELDS; i++)
        *fields[i] = 4 * i < known ? base_le32(bytes + LAYOUT_FIXED_BYTES + 4 * i) : 0;
    /* a later writer's additional numbers may be ignored only when they say nothing */
    segfm_status status = check_zero(bytes, LAYOUT_FIXED_BYTES + known, l->table_at, error);
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

/* The tensor of a table entry that has been checked. */
static weights_tensor tensor_of(const unsigned char *bytes, const unsigned char *entry) {
    weights_tensor t = {.name = (const char *)entry, .count = 1};
    t.dtype = base_le32(entry + LAYOUT_ENTRY_DTYPE) == LAYOUT_F32 ? IO_F32 : IO_F16;
    t.ndim = (int)base_le32(entry + LAYOUT_ENTRY_NDIM);
    for (int i = 0; i < t.ndim; i++) {
        t.shape[i] = (size_t)base_le64(entry + LAYOUT_ENTRY_SHAPE + 8 * i);
        t.count *= t.shape[i];
    }
    t.data = bytes + (size_t)base_le64(entry + LAYOUT_ENTRY_OFFSET);
    return t;
}

/* Checks an entry against its spec; *end is where the data before it ended, and then where its own does. */
static segfm_status check_entry(const unsigned char *bytes, size_t n, const unsigned char *entry,
                                const weights_spec *spec, size_t *end, segfm_error *error) {
    uint32_t code = base_le32(entry + LAYOUT_ENTRY_DTYPE);
    if (code != LAYOUT_F32 && code != LAYOUT_F16)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: type is %llu, need 1 (float32) or 2 (float16)", spec->name,
                         (unsigned long long)code);
    if (base_le32(entry + LAYOUT_ENTRY_NDIM) != (uint32_t)spec->ndim)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: %llu dimensions, need %d", spec->name,
                         (unsigned long long)base_le32(entry + LAYOUT_ENTRY_NDIM), spec->ndim);
    for (int i = 0; i < WEIGHTS_MAX_DIMS; i++) {
        uint64_t got = base_le64(entry + LAYOUT_ENTRY_SHAPE + 8 * i);
        if (got != spec->shape[i]) /* those past ndim are 0 in both */
            return base_fail(error, SEGFM_BAD_INPUT, "%s: dimension %d is %llu, need %zu", spec->name, i,
                             (unsigned long long)got, spec->shape[i]);
    }
    size_t start, size = SIZE_MAX; /* stays so when it overflows, which takes addresses of 32 bits */
    uint64_t offset = base_le64(entry + LAYOUT_ENTRY_OFFSET), stated = base_le64(entry + LAYOUT_ENTRY_SIZE);
    if (!base_count(spec->shape, spec->ndim, code == LAYOUT_F32 ? 4 : 2, &size) || stated != size)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: its data has %llu bytes, need %zu", spec->name,
                         (unsigned long long)stated, size);
    if (!weights_round_up(*end, &start) || offset != start)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: its data is at offset %llu, need the multiple of 64 after %zu",
                         spec->name, (unsigned long long)offset, *end);
    if (start > n || size > n - start)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: its data ends at offset %llu, the file at %zu", spec->name,
                         (unsigned long long)offset + size, n);
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

static segfm_status check_table(const unsigned char *bytes, size_t n, const weights_layout *l, const weights_config *c,
                                segfm_error *error) {
    size_t end = l->header_bytes, at = 0, present = 0, absent = 0, file_end;
    segfm_status status = SEGFM_OK;
    for (size_t i = 0; i < l->count && status == SEGFM_OK; i++) {
        const unsigned char *entry = bytes + l->table_at + i * LAYOUT_ENTRY_BYTES;
        const char *name = NULL;
        weights_spec spec;
        status = read_name(entry, i, &name, error);
        if (status == SEGFM_OK) status = next_spec(c, name, &at, &absent, &spec, error);
        if (status == SEGFM_OK) status = check_entry(bytes, n, entry, &spec, &end, error);
        if (status == SEGFM_OK && !spec.required) present++;
    }
    if (status == SEGFM_OK) status = check_rest(c, at, present, absent, error);
    if (status != SEGFM_OK) return status;
    if (!weights_round_up(end, &file_end) || file_end != n)
        return base_fail(error, SEGFM_BAD_INPUT, "weights: the last tensor ends at offset %zu, the file at %zu", end,
                         n);
    return check_zero(bytes, end, n, error);
}

static segfm_status open_file(const unsigned char *bytes, size_t n, weights_file *w, segfm_error *error) {
    weights_layout l = {0};
    segfm_status status = read_layout(bytes, n, &l, error);
    if (status == SEGFM_OK) status = check_zero(bytes, 48, LAYOUT_FIXED_BYTES, error);
    if (status == SEGFM_OK) status = read_config(bytes, &l, &w->config, error);
    if (status == SEGFM_OK) status = read_text(bytes, l.variant_at, l.provenance_at, &w->variant, error);
    if (status == SEGFM_OK) status = read_text(bytes, l.provenance_at, l.text_end, &w->provenance, error);
    if (status == SEGFM_OK) status = check_zero(bytes, l.text_end, l.header_bytes, error);
    if (status != SEGFM_OK) return status;
    if (strcmp(w->variant, "seed") != 0 && strcmp(w->variant, "upstream") != 0)
        return base_fail(error, SEGFM_BAD_INPUT, "weights offset %zu: the variant is neither seed nor upstream",
                         l.variant_at);
    status = check_table(bytes, n, &l, &w->config, error);
    if (status != SEGFM_OK) return status;
    w->count = l.count;
    w->bytes = bytes;
    w->size = n;
    w->format_version = LAYOUT_VERSION;
    w->content_hash = base_le64(bytes + LAYOUT_HASH_AT);
    if (weights_hash_header(bytes, l.header_bytes) != w->content_hash)
        return base_fail(error, SEGFM_BAD_INPUT, "weights: the header is damaged, its hash is not the one at offset %d",
                         LAYOUT_HASH_AT);
    return SEGFM_OK;
}

segfm_status weights_open_bare(const unsigned char *bytes, size_t n, weights_file *out, segfm_error *error) {
    memset(out, 0, sizeof *out);
    segfm_status status = open_file(bytes, n, out, error);
    if (status != SEGFM_OK) memset(out, 0, sizeof *out);
    return status;
}

/* Entry i of the table. */
static const unsigned char *entry_at(const weights_file *w, size_t i) {
    return w->bytes + LAYOUT_FIXED_BYTES + base_le32(w->bytes + 32) + i * LAYOUT_ENTRY_BYTES;
}

weights_tensor weights_at(const weights_file *w, size_t i) { return tensor_of(w->bytes, entry_at(w, i)); }

bool weights_look_up(const weights_file *w, const char *name, weights_tensor *out) {
    size_t i = 0;
    while (i < w->count && strcmp((const char *)entry_at(w, i), name) != 0) i++;
    if (i < w->count) *out = weights_at(w, i);
    return i < w->count;
}

size_t weights_tensor_bytes(const weights_tensor *t) { return t->count * (t->dtype == IO_F16 ? 2 : 4); }

segfm_status weights_verify(const weights_file *w, segfm_error *error) {
    for (size_t i = 0; i < w->count; i++) {
        weights_tensor t = weights_at(w, i);
        if (base_xxh64(t.data, weights_tensor_bytes(&t), 0) != base_le64(entry_at(w, i) + LAYOUT_ENTRY_HASH))
            return base_fail(error, SEGFM_BAD_INPUT, "%s: its data is damaged, the hash is not the one in the table",
                             t.name);
        segfm_status status = weights_check_finite(&t, error);
        if (status != SEGFM_OK) return status;
    }
    if (weights_hash_header(w->bytes, base_le32(w->bytes + 12)) != w->content_hash)
        return base_fail(error, SEGFM_BAD_INPUT, "weights: the header is damaged, its hash is not the one at offset %d",
                         LAYOUT_HASH_AT);
    return SEGFM_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------- */

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
        if (!weights_is_finite(f))
            return base_fail(error, SEGFM_BAD_INPUT, "%s: element %zu is not finite", t->name, i);
    }
    return SEGFM_OK;
}

segfm_status weights_load(const weights_tensor *t, real *out, segfm_error *error) {
    return weights_read(t, 0, t->count, out) ? SEGFM_OK : weights_check_finite(t, error);
}
