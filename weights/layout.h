/* Where things lie in a weights file, shared by its reader (format.c, table.c) and its writer (write.c). FORMAT.md describes
   it byte by byte.

   The layout has no freedom: tensors stand in the order of weights_spec_at, each at the first multiple of 64 after the
   one before, with zeros between. So whatever is not header or tensor must be zero, nothing can overlap, and a reader
   that accepts a file has looked at every byte but the values; those are covered by a hash per tensor, and the hashes
   by the content hash. */
#ifndef SEGFM_WEIGHTS_LAYOUT_H
#define SEGFM_WEIGHTS_LAYOUT_H

#include "weights.h"

enum {
    LAYOUT_VERSION = 1,
    LAYOUT_ALIGN = 64,
    LAYOUT_FIXED_BYTES = 64, /* before the configuration */
    LAYOUT_HASH_AT = 24,
    LAYOUT_CONFIG_FIELDS = 25,
    LAYOUT_CONFIG_BYTES = 4 * 24, /* the last field, frame, is only there when it is not 0 */
    LAYOUT_CONFIG_MOST = 4 * LAYOUT_CONFIG_FIELDS,
    LAYOUT_ENTRY_BYTES = WEIGHTS_NAME_MAX + 72,
    LAYOUT_PROVENANCE_MAX = 1 << 16
};

/* The table's entry: a name, then at these offsets. */
enum {
    LAYOUT_ENTRY_DTYPE = WEIGHTS_NAME_MAX,
    LAYOUT_ENTRY_NDIM = LAYOUT_ENTRY_DTYPE + 4,
    LAYOUT_ENTRY_SHAPE = LAYOUT_ENTRY_NDIM + 4,
    LAYOUT_ENTRY_OFFSET = LAYOUT_ENTRY_SHAPE + 8 * WEIGHTS_MAX_DIMS,
    LAYOUT_ENTRY_SIZE = LAYOUT_ENTRY_OFFSET + 8,
    LAYOUT_ENTRY_HASH = LAYOUT_ENTRY_SIZE + 8
};

enum { LAYOUT_F32 = 1, LAYOUT_F16 = 2 };

static const unsigned char weights_magic[8] = {0x89, 'S', 'F', 'M', '\r', '\n', 0x1A, '\n'};

/* Where the parts of a header lie; every end is within header_bytes. */
typedef struct weights_layout {
    size_t header_bytes, config_bytes, table_at, count, variant_at, provenance_at, text_end;
} weights_layout;

/* *out = the multiple of LAYOUT_ALIGN from n on; false when that does not fit. */
static inline bool weights_round_up(size_t n, size_t *out) {
    size_t sum;
    if (!base_add(n, LAYOUT_ALIGN - 1, &sum)) return false;
    *out = sum / LAYOUT_ALIGN * LAYOUT_ALIGN;
    return true;
}

static inline bool weights_is_finite(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return (bits & 0x7F800000U) != 0x7F800000U;
}

/* The order of the configuration's numbers in the file (format.c). */
void weights_list_config(weights_config *c, uint32_t *fields[LAYOUT_CONFIG_FIELDS]);
/* The hash of everything before the data but the hash itself; the tensors' hashes are part of it (format.c). */
uint64_t weights_hash_header(const unsigned char *bytes, size_t header_bytes);

#endif
