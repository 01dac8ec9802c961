/* Raw deflate (RFC 1951), gzip (RFC 1952) and zlib (RFC 1950), writing side.

   Matches are found with hash chains over three-byte strings and chosen lazily (a match waits one byte for a longer
   one), with zlib's limits for its level 6. Symbols are gathered into blocks; each block is written in the cheapest of
   the three ways, by exact count of bits. Code lengths are optimal for their limit (package-merge). The output depends
   on the input alone. */
#include "io.h"

#include <stdlib.h>
#include <string.h>

enum {
    min_match = 3,
    max_match = 258,
    window = 32768,
    hash_bits = 15,
/* The test build makes blocks tiny, so that small inputs have many. */
#ifdef SEGFM_TINY
    block_symbols = 37,
#else
    block_symbols = 20000,
#endif
    max_chain = 128,     /* candidates looked at */
    good_length = 8,     /* with a match of this length in hand only a quarter of them */
    lazy_length = 16,    /* a match of this length does not wait for a longer one */
    nice_length = 128,   /* a match of this length ends the search */
    far_distance = 4096, /* three literals are cheaper than a match of three from farther away */
    lit_symbols = 286,
    fixed_symbols = 288, /* the fixed code has two that no stream uses */
    dist_symbols = 30,
    pre_symbols = 19,
    end_of_block = 256
};

/* ---- Huffman codes ------------------------------------------------------------------------------------------ */

typedef struct {
    uint32_t frequency;
    uint16_t symbol;
} leaf;

static int compare_leaves(const void *a, const void *b) {
    const leaf *x = a, *y = b;
    if (x->frequency != y->frequency) return x->frequency < y->frequency ? -1 : 1;
    return x->symbol < y->symbol ? -1 : 1; /* never equal: the order does not depend on the sort */
}

/* Package-merge (Larmore and Hirschberg 1990). Level by level, from the longest code length down, a list of leaves is
   merged with the pairs of the list before; of the last list the cheapest 2n − 2 items are taken, and a symbol's
   length is how often its leaf occurs among the items taken. is_leaf remembers each list's merging order, so that the
   lists themselves need not be kept. */
static void package_merge(const leaf *leaves, int n, int limit, uint8_t *lengths) {
    uint64_t list[2][2 * lit_symbols];
    bool is_leaf[16][2 * lit_symbols];
    int count = 0;
    for (int level = 0; level < limit; level++) {
        const uint64_t *before = list[level & 1];
        uint64_t *merged = list[~level & 1];
        int pairs = count / 2, leaf_at = 0, pair_at = 0;
        for (count = 0; leaf_at < n || pair_at < pairs; count++) {
            uint64_t pair = pair_at < pairs ? before[2 * pair_at] + before[2 * pair_at + 1] : UINT64_MAX;
            bool take_leaf = leaf_at < n && leaves[leaf_at].frequency <= pair;
            is_leaf[level][count] = take_leaf;
            merged[count] = take_leaf ? leaves[leaf_at].frequency : pair;
            if (take_leaf) leaf_at++;
            else pair_at++;
        }
    }
    int take = 2 * n - 2;
    for (int level = limit - 1; level >= 0; level--) {
        int taken_leaves = 0;
        for (int i = 0; i < take; i++) taken_leaves += is_leaf[level][i];
        for (int i = 0; i < taken_leaves; i++) lengths[leaves[i].symbol]++;
        take = 2 * (take - taken_leaves);
    }
}

typedef struct {
    uint8_t lengths[fixed_symbols];
    uint16_t codes[fixed_symbols]; /* bit-reversed, as the stream has them */
} huffman;

static void assign_codes(huffman *h, int symbols) {
    uint32_t next[17] = {0}, count[17] = {0};
    for (int s = 0; s < symbols; s++) count[h->lengths[s]]++;
    count[0] = 0;
    for (int l = 1; l <= 15; l++) next[l + 1] = (next[l] + count[l]) << 1;
    for (int s = 0; s < symbols; s++) {
        uint32_t code = next[h->lengths[s]]++, reversed = 0;
        for (int i = 0; i < h->lengths[s]; i++) reversed |= (code >> i & 1U) << (h->lengths[s] - 1 - i);
        h->codes[s] = (uint16_t)reversed;
    }
}

/* The best code for these frequencies with lengths up to `limit`. A code of fewer than two symbols gets others of
   frequency 0 beside them: some readers do not take an incomplete code. */
static void build_huffman(huffman *h, const uint32_t *frequency, int symbols, int limit) {
    leaf leaves[lit_symbols];
    int n = 0;
    for (int s = 0; s < symbols; s++)
        if (frequency[s] != 0) leaves[n++] = (leaf){frequency[s], (uint16_t)s};
    for (int s = 0; n < 2; s++)
        if (frequency[s] == 0) leaves[n++] = (leaf){0, (uint16_t)s};
    qsort(leaves, (size_t)n, sizeof leaves[0], compare_leaves);
    memset(h->lengths, 0, sizeof h->lengths);
    package_merge(leaves, n, limit, h->lengths);
    assign_codes(h, symbols);
}

/* ---- symbols ------------------------------------------------------------------------------------------------ */

/* A literal (distance 0, value = the byte) or a match (value = its length). */
typedef struct {
    uint16_t distance, value;
} symbol;

typedef struct {
    int symbol, extra_bits;
    uint32_t extra;
} coded;

/* Splits v ≥ 0 as deflate does: 2^fine steps per doubling, below 2^(fine + 1) every value its own symbol. */
static coded split(uint32_t v, int fine) {
    int bits = 0;
    while (v >> (bits + fine + 1) != 0) bits++;
    return (coded){(int)(v >> bits) + (bits << fine), bits, v & ((1U << bits) - 1)};
}

static coded code_length(uint32_t length) {
    if (length == max_match) return (coded){285, 0, 0}; /* has a symbol without extra bits to itself */
    coded c = split(length - min_match, 2);
    c.symbol += 257;
    return c;
}

static coded code_distance(uint32_t distance) { return split(distance - 1, 1); }

/* ---- the writer's state ------------------------------------------------------------------------------------- */

typedef struct {
    const unsigned char *src;
    size_t n;
    io_buffer *out;
    segfm_error *error;
    uint64_t bits; /* not yet written, from the lowest */
    int bit_count;
    size_t block_start; /* the block's first byte in src */
    int count;          /* its symbols */
    uint32_t lit_frequency[lit_symbols], dist_frequency[dist_symbols];
    /* Positions by their lowest 32 bits. An old entry may alias a position 2^32 later; since every candidate is
       compared byte by byte this costs nothing but the comparison. */
    uint32_t head[1 << hash_bits], chain[window];
    uint8_t length_symbol[max_match + 1]; /* code_length().symbol − 257, looked up for the counts */
    symbol symbols[block_symbols];
} deflater;

/* `reserved` bytes must be there: see write_block. */
static void put_bits(deflater *d, uint32_t value, int n) {
    d->bits |= (uint64_t)value << d->bit_count;
    d->bit_count += n;
    while (d->bit_count >= 8) {
        d->out->data[d->out->size++] = (unsigned char)(d->bits & 0xFFU);
        d->bits >>= 8;
        d->bit_count -= 8;
    }
}

static void put_code(deflater *d, const huffman *h, int s) { put_bits(d, h->codes[s], h->lengths[s]); }

static void flush_bits(deflater *d) {
    if (d->bit_count > 0) put_bits(d, 0, 8 - d->bit_count);
}

/* ---- blocks ------------------------------------------------------------------------------------------------- */

/* The code lengths of a dynamic block, run-length coded. */
typedef struct {
    huffman lit, dist, pre;
    int n_lit, n_dist, n_pre, n_runs;
    uint8_t run_symbol[lit_symbols + dist_symbols], run_extra[lit_symbols + dist_symbols];
    uint64_t header_bits;
} dynamic;

static const uint8_t pre_order[pre_symbols] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

static int pre_extra_bits(int s) { return s == 16 ? 2 : s == 17 ? 3 : s == 18 ? 7 : 0; }

static void add_run(dynamic *b, uint32_t *frequency, int s, int extra) {
    b->run_symbol[b->n_runs] = (uint8_t)s;
    b->run_extra[b->n_runs++] = (uint8_t)extra;
    frequency[s]++;
}

static void code_lengths_as_runs(dynamic *b, uint32_t *frequency) {
    uint8_t all[lit_symbols + dist_symbols];
    int n = b->n_lit + b->n_dist;
    memcpy(all, b->lit.lengths, (size_t)b->n_lit);
    memcpy(all + b->n_lit, b->dist.lengths, (size_t)b->n_dist);
    for (int i = 0; i < n;) {
        int run = 1;
        while (i + run < n && all[i + run] == all[i]) run++;
        int left = run;
        if (all[i] != 0) {
            add_run(b, frequency, all[i], 0);
            left--;
        }
        while (left >= 3) {
            int most = all[i] != 0 ? 6 : 138, take = left < most ? left : most;
            if (all[i] != 0) add_run(b, frequency, 16, take - 3);
            else add_run(b, frequency, take <= 10 ? 17 : 18, take <= 10 ? take - 3 : take - 11);
            left -= take;
        }
        for (; left > 0; left--) add_run(b, frequency, all[i], 0);
        i += run;
    }
}

static void plan_dynamic(const deflater *d, dynamic *b) {
    uint32_t frequency[pre_symbols] = {0};
    build_huffman(&b->lit, d->lit_frequency, lit_symbols, 15);
    build_huffman(&b->dist, d->dist_frequency, dist_symbols, 15);
    for (b->n_lit = lit_symbols; b->lit.lengths[b->n_lit - 1] == 0;) b->n_lit--; /* at least 257: the end has a code */
    for (b->n_dist = dist_symbols; b->dist.lengths[b->n_dist - 1] == 0;) b->n_dist--;
    b->n_runs = 0;
    code_lengths_as_runs(b, frequency);
    build_huffman(&b->pre, frequency, pre_symbols, 7);
    for (b->n_pre = pre_symbols; b->n_pre > 4 && b->pre.lengths[pre_order[b->n_pre - 1]] == 0;) b->n_pre--;
    b->header_bits = 14 + 3 * (uint64_t)b->n_pre;
    for (int s = 0; s < pre_symbols; s++)
        b->header_bits += (uint64_t)frequency[s] * (uint64_t)(b->pre.lengths[s] + pre_extra_bits(s));
}

static void put_dynamic_header(deflater *d, const dynamic *b) {
    put_bits(d, (uint32_t)b->n_lit - 257, 5);
    put_bits(d, (uint32_t)b->n_dist - 1, 5);
    put_bits(d, (uint32_t)b->n_pre - 4, 4);
    for (int i = 0; i < b->n_pre; i++) put_bits(d, b->pre.lengths[pre_order[i]], 3);
    for (int i = 0; i < b->n_runs; i++) {
        put_code(d, &b->pre, b->run_symbol[i]);
        put_bits(d, b->run_extra[i], pre_extra_bits(b->run_symbol[i]));
    }
}

static void fixed_codes(huffman *lit, huffman *dist) {
    /* Symbols 286 and 287 are never used, but the codes of nine bits come after theirs. */
    for (int s = 0; s < fixed_symbols; s++) lit->lengths[s] = s < 144 ? 8 : s < 256 ? 9 : s < 280 ? 7 : 8;
    for (int s = 0; s < dist_symbols; s++) dist->lengths[s] = 5;
    assign_codes(lit, fixed_symbols);
    assign_codes(dist, dist_symbols);
}

/* Bits of the block's symbols with these codes, the end included. */
static uint64_t body_bits(const deflater *d, const huffman *lit, const huffman *dist) {
    uint64_t sum = 0;
    for (int s = 0; s < lit_symbols; s++) {
        int extra = s < 265 || s == 285 ? 0 : (s - 261) / 4;
        sum += (uint64_t)d->lit_frequency[s] * (uint64_t)(lit->lengths[s] + extra);
    }
    for (int s = 0; s < dist_symbols; s++) {
        int extra = s < 4 ? 0 : s / 2 - 1;
        sum += (uint64_t)d->dist_frequency[s] * (uint64_t)(dist->lengths[s] + extra);
    }
    return sum;
}

static void put_body(deflater *d, const huffman *lit, const huffman *dist) {
    for (int i = 0; i < d->count; i++) {
        symbol s = d->symbols[i];
        if (s.distance == 0) {
            put_code(d, lit, s.value);
            continue;
        }
        coded length = code_length(s.value), distance = code_distance(s.distance);
        put_code(d, lit, length.symbol);
        put_bits(d, length.extra, length.extra_bits);
        put_code(d, dist, distance.symbol);
        put_bits(d, distance.extra, distance.extra_bits);
    }
    put_code(d, lit, end_of_block);
}

/* As many stored blocks as the bytes need, at least one. */
static void put_stored(deflater *d, const unsigned char *p, size_t n, bool last) {
    do {
        size_t piece = n < 65535 ? n : 65535;
        put_bits(d, last && piece == n, 1);
        put_bits(d, 0, 2);
        flush_bits(d);
        put_bits(d, (uint32_t)piece, 16);
        put_bits(d, (uint32_t)piece ^ 0xFFFFU, 16);
        if (piece > 0) memcpy(d->out->data + d->out->size, p, piece);
        d->out->size += piece;
        p += piece;
        n -= piece;
    } while (n > 0);
}

/* Bits of put_stored, from the current bit position. */
static uint64_t stored_bits(const deflater *d, size_t n) {
    uint64_t pieces = n == 0 ? 1 : ((uint64_t)n - 1) / 65535 + 1;
    uint64_t first_padding = (uint64_t)((8 - (d->bit_count + 3) % 8) % 8);
    return pieces * (3 + 32) + first_padding + (pieces - 1) * 5 + 8 * (uint64_t)n;
}

/* Writes the gathered symbols, which stand for src[block_start … end), and starts the next block. */
static segfm_status write_block(deflater *d, size_t end, bool last) {
    dynamic plan;
    huffman fixed_lit, fixed_dist;
    size_t n = end - d->block_start, reserved;
    d->lit_frequency[end_of_block] = 1;
    plan_dynamic(d, &plan);
    fixed_codes(&fixed_lit, &fixed_dist);
    uint64_t dynamic_cost = 3 + plan.header_bits + body_bits(d, &plan.lit, &plan.dist);
    uint64_t fixed_cost = 3 + body_bits(d, &fixed_lit, &fixed_dist);
    uint64_t stored_cost = stored_bits(d, n), cost = stored_cost;
    if (fixed_cost < cost) cost = fixed_cost;
    if (dynamic_cost < cost) cost = dynamic_cost;
    if (cost / 8 > SIZE_MAX - 16 || !base_add(d->out->size, (size_t)(cost / 8) + 16, &reserved))
        return base_fail(d->error, SEGFM_NO_MEMORY, "deflate: a result of over %zu bytes cannot grow", d->out->size);
    segfm_status status = io_buffer_reserve(d->out, reserved, d->error);
    if (status != SEGFM_OK) return status;
    if (cost == stored_cost) {
        put_stored(d, d->src + d->block_start, n, last);
    } else {
        bool is_fixed = cost == fixed_cost;
        put_bits(d, last, 1);
        put_bits(d, is_fixed ? 1 : 2, 2);
        if (!is_fixed) put_dynamic_header(d, &plan);
        put_body(d, is_fixed ? &fixed_lit : &plan.lit, is_fixed ? &fixed_dist : &plan.dist);
    }
    d->block_start = end;
    d->count = 0;
    memset(d->lit_frequency, 0, sizeof d->lit_frequency);
    memset(d->dist_frequency, 0, sizeof d->dist_frequency);
    return SEGFM_OK;
}

/* ---- matches ------------------------------------------------------------------------------------------------ */

/* Enters position p (with at least three bytes left) and returns the last position with the same hash. */
static uint32_t enter(deflater *d, size_t p) {
    const unsigned char *s = d->src + p;
    uint32_t three = (uint32_t)s[0] | (uint32_t)s[1] << 8 | (uint32_t)s[2] << 16;
    uint32_t slot = (three * 0x9E3779B1U) >> (32 - hash_bits), before = d->head[slot];
    d->chain[p & (window - 1)] = before;
    d->head[slot] = (uint32_t)(p & 0xFFFFFFFFU);
    return before;
}

static uint32_t common_length(const unsigned char *a, const unsigned char *b, uint32_t most) {
    uint32_t n = 0;
    for (; n + 8 <= most; n += 8) {
        uint64_t x, y;
        memcpy(&x, a + n, 8);
        memcpy(&y, b + n, 8);
        if (x != y) break;
    }
    while (n < most && a[n] == b[n]) n++;
    return n;
}

/* The longest match of more than `length` bytes at p, nearest first; returns its length, or `length` if none. The
   candidates are p's chain from `candidate` on; it ends where distances stop to grow, which also makes a zeroed table
   an empty one. */
static uint32_t longest_match(const deflater *d, size_t p, uint32_t candidate, uint32_t length, int tries,
                              uint32_t *distance) {
    const unsigned char *here = d->src + p;
    uint32_t most = d->n - p < max_match ? (uint32_t)(d->n - p) : max_match, reach = p < window ? (uint32_t)p : window;
    uint32_t low = (uint32_t)(p & 0xFFFFFFFFU), last = 0;
    for (; tries > 0 && length < most; tries--) {
        uint32_t back = low - candidate;
        if (back <= last || back > reach) break;
        last = back;
        const unsigned char *there = here - back;
        if (there[length] == here[length] && there[length - 1] == here[length - 1]) {
            uint32_t got = common_length(here, there, most);
            if (got > length) {
                length = got;
                *distance = back;
                if (length >= nice_length) break;
            }
        }
        candidate = d->chain[candidate & (window - 1)];
    }
    return length;
}

static void add_literal(deflater *d, unsigned char byte) {
    d->symbols[d->count++] = (symbol){0, byte};
    d->lit_frequency[byte]++;
}

static void add_match(deflater *d, uint32_t length, uint32_t distance) {
    d->symbols[d->count++] = (symbol){(uint16_t)distance, (uint16_t)length};
    d->lit_frequency[257 + d->length_symbol[length]]++;
    d->dist_frequency[code_distance(distance).symbol]++;
}

/* The match to use at p; its length is 2 when there is none worth having. `held` = length of the match at p − 1. */
static uint32_t match_at(deflater *d, size_t p, uint32_t held, uint32_t *distance) {
    if (d->n - p < min_match) return 2;
    uint32_t candidate = enter(d, p);
    if (held >= lazy_length) return 2;
    uint32_t least = held > 2 ? held : 2;
    uint32_t length = longest_match(d, p, candidate, least, held >= good_length ? max_chain / 4 : max_chain, distance);
    if (length <= least || (length == min_match && *distance > far_distance)) return 2;
    return length;
}

static segfm_status deflate_all(deflater *d) {
    uint32_t held = 2, held_distance = 0; /* the match that waits at p − 1 */
    bool waiting = false;                 /* byte p − 1 is not yet written, as a literal or a match */
    size_t p = 0;
    while (p < d->n) {
        uint32_t distance = 0, length = match_at(d, p, held, &distance);
        if (held > 2 && length <= held) {
            add_match(d, held, held_distance);
            size_t next = p - 1 + held;
            for (p++; p < next; p++)
                if (d->n - p >= min_match) enter(d, p);
            held = 2;
            waiting = false;
        } else {
            if (waiting) add_literal(d, d->src[p - 1]);
            waiting = true;
            held = length;
            held_distance = distance;
            p++;
        }
        if (d->count == block_symbols) {
            segfm_status status = write_block(d, waiting ? p - 1 : p, false);
            if (status != SEGFM_OK) return status;
        }
    }
    if (waiting) add_literal(d, d->src[p - 1]);
    segfm_status status = write_block(d, d->n, true);
    if (status == SEGFM_OK) flush_bits(d);
    return status;
}

segfm_status io_deflate(const unsigned char *src, size_t n, io_buffer *out, segfm_error *error) {
    size_t before = out->size;
    deflater *d = calloc(1, sizeof *d);
    if (d == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "found no memory for the %zu bytes of deflate's tables", sizeof *d);
    d->src = src;
    d->n = n;
    d->out = out;
    d->error = error;
    for (uint32_t length = min_match; length <= max_match; length++)
        d->length_symbol[length] = (uint8_t)(code_length(length).symbol - 257);
    segfm_status status = deflate_all(d);
    free(d);
    if (status != SEGFM_OK) out->size = before;
    return status;
}

/* ---- gzip and zlib ------------------------------------------------------------------------------------------ */

/* Appends head, the deflated bytes and tail; all or nothing. */
static segfm_status wrap(const unsigned char *src, size_t n, const unsigned char *head, size_t n_head,
                         const unsigned char *tail, size_t n_tail, io_buffer *out, segfm_error *error) {
    size_t before = out->size;
    segfm_status status = io_buffer_append(out, head, n_head, error);
    if (status == SEGFM_OK) status = io_deflate(src, n, out, error);
    if (status == SEGFM_OK) status = io_buffer_append(out, tail, n_tail, error);
    if (status != SEGFM_OK) out->size = before;
    return status;
}

segfm_status io_gzip(const unsigned char *src, size_t n, io_buffer *out, segfm_error *error) {
    static const unsigned char head[10] = {0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255}; /* no time, unknown system */
    unsigned char tail[8];
    base_put_le32(tail, io_crc32(0, src, n));
    base_put_le32(tail + 4, (uint32_t)(n & 0xFFFFFFFFU));
    return wrap(src, n, head, sizeof head, tail, sizeof tail, out, error);
}

segfm_status io_zlib(const unsigned char *src, size_t n, io_buffer *out, segfm_error *error) {
    static const unsigned char head[2] = {0x78, 0x9C}; /* deflate, 32 KB window, default level */
    uint32_t adler = io_adler32(1, src, n);
    const unsigned char tail[4] = {(unsigned char)(adler >> 24), (unsigned char)(adler >> 16 & 0xFFU),
                                   (unsigned char)(adler >> 8 & 0xFFU), (unsigned char)(adler & 0xFFU)};
    return wrap(src, n, head, sizeof head, tail, sizeof tail, out, error);
}
