/* write: a weights file, written front to back. FORMAT.md describes it, layout.h what both sides share. */
#include "layout.h"

#include <stdlib.h>
#include <string.h>

static segfm_status no_memory(size_t bytes, segfm_error *error) {
    return base_fail(error, SEGFM_NO_MEMORY, "out of memory, need %zu bytes", bytes);
}

typedef struct writer {
    const weights_config *config;
    const weights_write_options *options;
    weights_source *source;
    void *source_user;
    unsigned char *header;
    weights_layout layout;
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
    base_put_le32(entry + LAYOUT_ENTRY_DTYPE, is_half(w, spec) ? LAYOUT_F16 : LAYOUT_F32);
    base_put_le32(entry + LAYOUT_ENTRY_NDIM, (uint32_t)spec->ndim);
    for (int i = 0; i < spec->ndim; i++) base_put_le64(entry + LAYOUT_ENTRY_SHAPE + 8 * i, spec->shape[i]);
    base_put_le64(entry + LAYOUT_ENTRY_OFFSET, offset);
    base_put_le64(entry + LAYOUT_ENTRY_SIZE, size);
}

/* Counts the tensors, checks the optional ones, sizes the header. */
static segfm_status plan_header(writer *w) {
    size_t present = 0, absent = 0, table, variant = strlen(w->options->variant) + 1,
           provenance = strlen(w->options->provenance) + 1;
    weights_spec spec;
    weights_layout *l = &w->layout;
    if (strcmp(w->options->variant, "seed") != 0 && strcmp(w->options->variant, "upstream") != 0)
        return base_fail(w->error, SEGFM_BAD_USAGE, "the variant is '%s', need seed or upstream", w->options->variant);
    if (provenance > LAYOUT_PROVENANCE_MAX)
        return base_fail(w->error, SEGFM_BAD_USAGE, "the provenance has %zu bytes, need at most %d", provenance,
                         LAYOUT_PROVENANCE_MAX);
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
    l->config_bytes = w->config->frame > 0 ? LAYOUT_CONFIG_MOST : LAYOUT_CONFIG_BYTES;
    l->table_at = LAYOUT_FIXED_BYTES + l->config_bytes;
    bool fits = base_mul(l->count, LAYOUT_ENTRY_BYTES, &table) && base_add(l->table_at, table, &l->variant_at) &&
                base_add(l->variant_at, variant, &l->provenance_at) &&
                base_add(l->provenance_at, provenance, &l->text_end) && weights_round_up(l->text_end, &l->header_bytes);
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
    uint32_t *fields[LAYOUT_CONFIG_FIELDS];
    unsigned char *entry = w->header + w->layout.table_at;
    for (; next_written(w, &at, &spec); entry += LAYOUT_ENTRY_BYTES) {
        size_t count, size, start;
        segfm_status status = tensor_bytes(w, &spec, &count, &size);
        if (status != SEGFM_OK) return status;
        if (!weights_round_up(end, &start) || !base_add(start, size, &end))
            return base_fail(w->error, SEGFM_BAD_INPUT, "%s: the file's size overflows", spec.name);
        put_entry(w, entry, &spec, start, size);
        if (count > largest) largest = count;
    }
    if (!weights_round_up(end, &w->file_bytes) || !base_mul(largest, sizeof *w->values, &end))
        return base_fail(w->error, SEGFM_BAD_INPUT, "the file's size overflows");
    w->values = malloc(end + 1);
    if (w->values == NULL) return no_memory(end, w->error);
    memcpy(w->header, weights_magic, sizeof weights_magic);
    base_put_le32(w->header + 8, LAYOUT_VERSION);
    base_put_le32(w->header + 12, (uint32_t)w->layout.header_bytes);
    base_put_le64(w->header + 16, w->file_bytes);
    base_put_le32(w->header + 32, (uint32_t)w->layout.config_bytes);
    base_put_le32(w->header + 36, (uint32_t)(w->layout.provenance_at - w->layout.variant_at));
    base_put_le32(w->header + 40, (uint32_t)(w->layout.text_end - w->layout.provenance_at));
    base_put_le32(w->header + 44, (uint32_t)w->layout.count);
    weights_list_config(&config, fields);
    for (size_t i = 0; 4 * i < w->layout.config_bytes; i++)
        base_put_le32(w->header + LAYOUT_FIXED_BYTES + 4 * i, *fields[i]);
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
        if (!weights_is_finite(f))
            return base_fail(w->error, SEGFM_BAD_INPUT, "%s: element %zu is not finite", spec->name, i);
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
    for (; next_written(w, &at, &spec); entry += LAYOUT_ENTRY_BYTES) {
        uint64_t hash = 0;
        segfm_status status = produce(w, &spec, &size, &hash);
        if (status != SEGFM_OK) return status;
        base_put_le64(entry + LAYOUT_ENTRY_HASH, hash);
    }
    base_put_le64(w->header + LAYOUT_HASH_AT, weights_hash_header(w->header, w->layout.header_bytes));
    return SEGFM_OK;
}

static segfm_status write_data(const writer *w, weights_sink *sink, void *sink_user) {
    static const unsigned char zeros[LAYOUT_ALIGN] = {0};
    size_t at = 0, size = 0;
    weights_spec spec;
    const unsigned char *entry = w->header + w->layout.table_at;
    segfm_status status = sink(sink_user, w->header, w->layout.header_bytes, w->error);
    for (; status == SEGFM_OK && next_written(w, &at, &spec); entry += LAYOUT_ENTRY_BYTES) {
        uint64_t hash = 0;
        status = produce(w, &spec, &size, &hash);
        if (status == SEGFM_OK && hash != base_le64(entry + LAYOUT_ENTRY_HASH))
            status = base_fail(w->error, SEGFM_BAD_INPUT, "%s: its values changed while they were written", spec.name);
        if (status == SEGFM_OK) status = sink(sink_user, w->values, size, w->error);
        if (status == SEGFM_OK && size % LAYOUT_ALIGN != 0)
            status = sink(sink_user, zeros, LAYOUT_ALIGN - size % LAYOUT_ALIGN, w->error);
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
