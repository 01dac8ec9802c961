/* Checksums, raw deflate (RFC 1951) and gzip (RFC 1952), reading side.

   The bytes come from a 64-bit bit buffer; a code is decoded by one look-up in a primary table, and a second one in a
   subtable for the few codes that are longer than the primary index. A fast loop runs while at least `fast_input`
   bytes of input and `fast_output` bytes of room are left, so that it needs no checks but the distance's; the
   careful loop decodes the rest symbol by symbol. Codes are judged as zlib judges them: complete, except that a
   literal/length or a distance code may consist of a single one-bit code, and the distance code may be empty. */
#include "io.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- checksums ---------------------------------------------------------------------------------------------- */

/* The remainders of the 16 nibbles by the reflected polynomial 0xEDB88320. */
static const uint32_t crc_nibble[16] = {0x00000000U, 0x1DB71064U, 0x3B6E20C8U, 0x26D930ACU, 0x76DC4190U, 0x6B6B51F4U,
                                        0x4DB26158U, 0x5005713CU, 0xEDB88320U, 0xF00F9344U, 0xD6D6A3E8U, 0xCB61B38CU,
                                        0x9B64C2B0U, 0x86D3D2D4U, 0xA00AE278U, 0xBDBDF21CU};

static uint32_t crc_byte(uint32_t crc, unsigned byte) {
    crc ^= byte;
    crc = crc >> 4 ^ crc_nibble[crc & 15U];
    return crc >> 4 ^ crc_nibble[crc & 15U];
}

enum { crc_slices = 16 };

/* Slicing by 16: table[k][b] is the remainder of byte b followed by k zero bytes, so that 16 bytes are 16 independent
   look-ups. Building the tables costs about as much as 2 KB of the plain method, hence the threshold below. */
static size_t crc_sliced(uint32_t *crc, const unsigned char *p, size_t n) {
    uint32_t table[crc_slices][256], c = *crc;
    for (unsigned b = 0; b < 256; b++) table[0][b] = crc_byte(0, b);
    for (int k = 1; k < crc_slices; k++)
        for (unsigned b = 0; b < 256; b++) table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 255U];
    size_t done = 0;
    for (; n - done >= crc_slices; done += crc_slices) {
        const unsigned char *q = p + done;
        uint32_t next = table[15][(c ^ q[0]) & 255U] ^ table[14][(c >> 8 ^ q[1]) & 255U] ^
                        table[13][(c >> 16 ^ q[2]) & 255U] ^ table[12][c >> 24 ^ q[3]];
        for (int k = 4; k < crc_slices; k++) next ^= table[15 - k][q[k]];
        c = next;
    }
    *crc = c;
    return done;
}

uint32_t io_crc32(uint32_t crc, const void *bytes, size_t n) {
    const unsigned char *p = bytes;
    size_t done = 0;
    crc = ~crc;
    if (n >= 4096) done = crc_sliced(&crc, p, n);
    for (; done < n; done++) crc = crc_byte(crc, p[done]);
    return ~crc;
}

uint32_t io_adler32(uint32_t adler, const void *bytes, size_t n) {
    const unsigned char *p = bytes;
    uint32_t a = adler & 0xFFFFU, b = adler >> 16;
    while (n > 0) {
        size_t piece = n < 5552 ? n : 5552; /* the longest row of additions that cannot overflow 32 bits */
        for (size_t i = 0; i < piece; i++) {
            a += p[i];
            b += a;
        }
        a %= 65521U;
        b %= 65521U;
        p += piece;
        n -= piece;
    }
    return b << 16 | a;
}

/* ---- decoding tables ---------------------------------------------------------------------------------------- */

enum {
    max_code_bits = 15,
    lit_symbols = 288, /* 286 and 287 take part in the fixed code, but no stream may use them */
    dist_symbols = 32, /* 30 and 31 likewise */
    pre_symbols = 19,
    lit_bits = 11, /* index bits of the primary tables */
    dist_bits = 8,
    pre_bits = 7,
    /* The most entries that any code of so many symbols and 15 bits needs, from zlib's examples/enough.c
       (`enough 288 11 15`, `enough 32 8 15`). */
    lit_entries = 2342,
    dist_entries = 402
};

/* A table entry, 32 bits:
     0-5    bits to consume: the code and its extra bits; for a link the index bits of the primary table
     8-11   bits of the code alone; for a link the index bits of the subtable
     12-15  what it is (none of them: a length or distance)
     16-31  the literal, the base of the length or distance, the subtable's first entry */
enum { is_literal = 1 << 12, is_link = 1 << 13, is_end = 1 << 14, is_bad = 1 << 15 };

static uint32_t entry_make(uint32_t value, uint32_t flags, uint32_t code_bits, uint32_t extra_bits) {
    return value << 16 | flags | code_bits << 8 | (code_bits + extra_bits);
}

static const uint16_t length_base[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                         31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                         2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t dist_base[30] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                       33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                       1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

/* What symbol `s` of each alphabet becomes in a table, when its code has `bits` bits. */
static uint32_t lit_entry(unsigned s, uint32_t bits) {
    if (s < 256) return entry_make(s, is_literal, bits, 0);
    if (s == 256) return entry_make(0, is_end, bits, 0);
    if (s > 285) return entry_make(s, is_bad, bits, 0);
    return entry_make(length_base[s - 257], 0, bits, length_extra[s - 257]);
}

static uint32_t dist_entry(unsigned s, uint32_t bits) {
    if (s > 29) return entry_make(s, is_bad, bits, 0);
    return entry_make(dist_base[s], 0, bits, s < 2 ? 0 : s / 2 - 1);
}

static uint32_t pre_entry(unsigned s, uint32_t bits) { return entry_make(s, is_literal, bits, 0); }

/* The next code of `bits` bits in the order of the canonical code, both bit-reversed as the stream has them. */
static uint32_t next_reversed(uint32_t code, uint32_t bits) {
    uint32_t bit = 1U << (bits - 1);
    while ((code & bit) != 0) bit >>= 1;
    return bit == 0 ? 0 : (code & (bit - 1)) + bit;
}

/* Index bits of the subtable that starts with a code of `bits` bits: enough for the longest code that shares its
   prefix. remaining[l] = codes of l bits that are still to be placed. */
static uint32_t subtable_bits(const uint16_t *remaining, uint32_t bits, uint32_t primary) {
    uint32_t width = bits - primary;
    int32_t left = 1 << width;
    while (width + primary < max_code_bits) {
        left -= remaining[width + primary];
        if (left <= 0) break;
        width++;
        left *= 2;
    }
    return width;
}

/* A table for `size` patterns becomes one for 2^bits: what further bits stand before changes no entry. Returns its size. */
static size_t widen(uint32_t *table, size_t size, uint32_t bits) {
    for (; size < (size_t)1 << bits; size *= 2) memcpy(table + size, table, size * sizeof *table);
    return size;
}

typedef enum { code_complete, code_empty, code_single, code_incomplete, code_oversubscribed } code_shape;

/* Builds the table of the canonical code with lengths[0 … n). An over-subscribed or incomplete code leaves the table
   unusable; an empty one, or a single code of one bit, makes every pattern without a symbol a bad entry. */
static code_shape build_table(uint32_t *table, size_t capacity, uint32_t primary, const uint8_t *lengths, unsigned n,
                              uint32_t (*entry_of)(unsigned, uint32_t)) {
    uint16_t remaining[max_code_bits + 1] = {0}, offset[max_code_bits + 2] = {0}, sorted[lit_symbols];
    for (unsigned s = 0; s < n; s++) remaining[lengths[s]]++;
    int32_t left = 1;
    for (int l = 1; l <= max_code_bits; l++) {
        left = left * 2 - remaining[l];
        if (left < 0) return code_oversubscribed;
        offset[l + 1] = (uint16_t)(offset[l] + remaining[l]);
    }
    unsigned used = offset[max_code_bits + 1];
    bool single = used == 1 && remaining[1] == 1;
    if (left > 0 && used != 0 && !single) return code_incomplete;
    for (unsigned s = 0; s < n; s++)
        if (lengths[s] != 0) sorted[offset[lengths[s]]++] = (uint16_t)s;

    size_t primary_size = (size_t)1 << primary, size = 1, top = primary_size, sub_start = 0, sub_size = 0;
    if (left > 0)
        for (size_t i = 0; i < primary_size; i++) table[i] = entry_make(0, is_bad, 1, 0);
    uint32_t code = 0, mask = (uint32_t)primary_size - 1, prefix = UINT32_MAX;
    for (unsigned k = 0; k < used; k++) {
        uint32_t bits = lengths[sorted[k]];
        size = widen(table, size, bits < primary ? bits : primary);
        if (bits <= primary) {
            table[code] = entry_of(sorted[k], bits);
        } else {
            if ((code & mask) != prefix) { /* the first code with this prefix: open its subtable */
                prefix = code & mask;
                uint32_t width = subtable_bits(remaining, bits, primary);
                sub_start = top;
                sub_size = (size_t)1 << width;
                top += sub_size;
                assert(top <= capacity);
                table[prefix] = (uint32_t)sub_start << 16 | (uint32_t)is_link | width << 8 | primary;
            }
            uint32_t e = entry_of(sorted[k], bits - primary); /* the link has consumed the rest */
            for (size_t i = code >> primary; i < sub_size; i += (size_t)1 << (bits - primary)) table[sub_start + i] = e;
        }
        remaining[bits]--;
        code = next_reversed(code, bits);
    }
    widen(table, size, primary);
    (void)capacity; /* only asserted */
    return used == 0 ? code_empty : single ? code_single : code_complete;
}

/* ---- the inflater's state ----------------------------------------------------------------------------------- */

enum {
    fast_input = 16,  /* two refills of 8 bytes */
    fast_output = 288 /* three literals, one match of 258, and 8-byte copies that write up to 15 bytes too far */
};

typedef struct {
    const unsigned char *src, *in, *end; /* offsets in messages count from src */
    uint64_t bits;                       /* the lowest `count` are to be consumed; above them nothing or repeats */
    uint32_t count;
    io_buffer *out;
    size_t start;    /* out->size when this stream began: distances may not reach before it */
    size_t most;     /* out->size may not pass this */
    size_t capacity; /* bytes of out->data that may be written: at most out->capacity and most */
    segfm_error *error;
    bool fixed_tables; /* the tables hold the fixed codes */
    uint32_t lit[lit_entries], dist[dist_entries];
} inflater;

static size_t input_offset(const inflater *s) { return (size_t)(s->in - s->src) - s->count / 8; }

static segfm_status bad(const inflater *s, const char *what) {
    return base_fail(s->error, SEGFM_BAD_INPUT, "deflate stream at byte %zu: %s", input_offset(s), what);
}

static segfm_status truncated(const inflater *s) {
    return base_fail(s->error, SEGFM_BAD_INPUT, "deflate stream at byte %zu: the input ends inside the stream",
                     (size_t)(s->end - s->src));
}

static segfm_status past_limit(const inflater *s) {
    return base_fail(s->error, SEGFM_BAD_INPUT, "deflate stream at byte %zu: gives more than the %zu bytes allowed",
                     input_offset(s), s->most - s->start);
}

/* One expression, which compilers turn into one load. */
static inline uint64_t load_le64(const unsigned char *p) {
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 |
           (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

/* At least 56 bits, or all that is left. */
static void refill(inflater *s) {
    while (s->count < 56 && s->in < s->end) {
        s->bits |= (uint64_t)*s->in++ << s->count;
        s->count += 8;
    }
}

static bool take(inflater *s, uint32_t n, uint32_t *value) {
    refill(s);
    if (s->count < n) return false;
    *value = (uint32_t)(s->bits & (((uint64_t)1 << n) - 1));
    s->bits >>= n;
    s->count -= n;
    return true;
}

/* Gives the inflater room for at least one byte more, by half of what there is. A result is at most 1032 times the
   input (258 bytes from two bits), so a lie in a small file cannot ask for much memory. */
static segfm_status grow(inflater *s) {
    io_buffer *out = s->out;
    if (out->size == s->most) return past_limit(s);
    size_t step = out->capacity / 2 > 65536 ? out->capacity : 65536;
    size_t capacity = s->most - out->capacity < step ? s->most : out->capacity + step;
    unsigned char *data = realloc(out->data, capacity);
    if (data == NULL)
        return base_fail(s->error, SEGFM_NO_MEMORY, "deflate stream: a result of %zu bytes and more found no memory",
                         capacity);
    out->data = data;
    out->capacity = s->capacity = capacity;
    return SEGFM_OK;
}

/* ---- the blocks --------------------------------------------------------------------------------------------- */

static segfm_status stored_block(inflater *s) {
    /* The rest of the current byte is padding; whole bytes in the bit buffer go back to the input. */
    s->in -= s->count / 8;
    s->bits = 0;
    s->count = 0;
    if (s->end - s->in < 4) return truncated(s);
    size_t length = base_le16(s->in), check = base_le16(s->in + 2);
    if (length != (check ^ 0xFFFFU))
        return base_fail(s->error, SEGFM_BAD_INPUT,
                         "deflate stream at byte %zu: a stored block's length %zu and its complement %zu disagree",
                         input_offset(s), length, check);
    s->in += 4;
    if ((size_t)(s->end - s->in) < length) return truncated(s);
    while (length > 0) {
        if (s->out->size == s->capacity) {
            segfm_status status = grow(s);
            if (status != SEGFM_OK) return status;
        }
        size_t room = s->capacity - s->out->size, n = length < room ? length : room;
        memcpy(s->out->data + s->out->size, s->in, n);
        s->out->size += n;
        s->in += n;
        length -= n;
    }
    return SEGFM_OK;
}

static void fixed_tables(inflater *s) {
    if (s->fixed_tables) return;
    uint8_t lengths[lit_symbols];
    for (unsigned i = 0; i < lit_symbols; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    build_table(s->lit, lit_entries, lit_bits, lengths, lit_symbols, lit_entry);
    memset(lengths, 5, dist_symbols);
    build_table(s->dist, dist_entries, dist_bits, lengths, dist_symbols, dist_entry);
    s->fixed_tables = true;
}

/* The run-length coded code lengths of a dynamic block, `total` of them. */
static segfm_status read_lengths(inflater *s, const uint32_t *pre, uint8_t *lengths, uint32_t total) {
    for (uint32_t have = 0; have < total;) {
        refill(s);
        uint32_t e = pre[s->bits & ((1U << pre_bits) - 1)], symbol = e >> 16, used = e & 63U, extra, repeat = 0;
        if (used > s->count) return truncated(s);
        s->bits >>= used;
        s->count -= used;
        if (symbol < 16) {
            lengths[have++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16 && have == 0) return bad(s, "code lengths begin with a repetition of nothing");
        if (!take(s, symbol == 16 ? 2 : symbol == 17 ? 3 : 7, &extra)) return truncated(s);
        repeat = extra + (symbol == 18 ? 11 : 3);
        if (repeat > total - have) return bad(s, "a repetition runs past the last code length");
        memset(lengths + have, symbol == 16 ? lengths[have - 1] : 0, repeat);
        have += repeat;
    }
    return SEGFM_OK;
}

static segfm_status dynamic_tables(inflater *s) {
    static const uint8_t order[pre_symbols] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[lit_symbols + dist_symbols] = {0}, pre_lengths[pre_symbols] = {0};
    uint32_t pre[1U << pre_bits], n_lit, n_dist, n_pre, value;
    if (!take(s, 5, &n_lit) || !take(s, 5, &n_dist) || !take(s, 4, &n_pre)) return truncated(s);
    n_lit += 257;
    n_dist += 1;
    n_pre += 4;
    if (n_lit > 286) return bad(s, "a block declares more than 286 literal and length codes");
    if (n_dist > 30) return bad(s, "a block declares more than 30 distance codes");
    for (uint32_t i = 0; i < n_pre; i++) {
        if (!take(s, 3, &value)) return truncated(s);
        pre_lengths[order[i]] = (uint8_t)value;
    }
    if (build_table(pre, 1U << pre_bits, pre_bits, pre_lengths, pre_symbols, pre_entry) != code_complete)
        return bad(s, "the code of the code lengths is over-subscribed or incomplete");
    segfm_status status = read_lengths(s, pre, lengths, n_lit + n_dist);
    if (status != SEGFM_OK) return status;
    if (lengths[256] == 0) return bad(s, "a block has no code for its end");
    s->fixed_tables = false;
    if (build_table(s->lit, lit_entries, lit_bits, lengths, n_lit, lit_entry) >= code_incomplete)
        return bad(s, "the literal and length code is over-subscribed or incomplete");
    if (build_table(s->dist, dist_entries, dist_bits, lengths + n_lit, n_dist, dist_entry) >= code_incomplete)
        return bad(s, "the distance code is over-subscribed or incomplete");
    return SEGFM_OK;
}

/* The entry for the next code; *link = bits that precede it (those of the primary index when it is in a subtable). */
static inline uint32_t look_up(const uint32_t *table, uint32_t primary, uint64_t bits, uint32_t *link) {
    uint32_t e = table[bits & ((1U << primary) - 1)];
    *link = 0;
    if ((e & is_link) != 0) {
        *link = primary;
        e = table[(e >> 16) + (uint32_t)((bits >> primary) & ((1U << (e >> 8 & 15U)) - 1))];
    }
    return e;
}

/* Base plus extra bits; `bits` begins with the code. */
static inline uint32_t entry_value(uint32_t e, uint64_t bits) {
    return (e >> 16) + (uint32_t)((bits & (((uint64_t)1 << (e & 63U)) - 1)) >> (e >> 8 & 15U));
}

/* Copies a match to `to`, writing up to 15 bytes beyond its end. */
static inline void copy_match(unsigned char *to, uint32_t distance, uint32_t length) {
    unsigned char *stop = to + length;
    const unsigned char *from = to - distance;
    if (distance == 1) {
        memset(to, *from, length);
        return;
    }
    if (distance < 8) {
        /* The pattern repeats every `distance` bytes, thus also every `period` ≥ 8 bytes. */
        uint32_t period = distance * ((7 + distance) / distance);
        for (uint32_t i = 0; i < period; i++) to[i] = from[i];
        from = to;
        to += period;
    }
    while (to < stop) {
        memcpy(to, from, 8);
        to += 8;
        from += 8;
    }
}

/* Decodes until the block ends (*ended) or input or room come too near their ends. */
static segfm_status fast_codes(inflater *s, bool *ended) {
    const unsigned char *in = s->in, *in_stop = s->end - fast_input;
    unsigned char *first = s->out->data + s->start, *to = s->out->data + s->out->size;
    unsigned char *to_stop = s->out->data + s->capacity - fast_output;
    uint64_t bits = s->bits;
    uint32_t count = s->count;
    const char *problem = NULL;
    *ended = false;
    while (in <= in_stop && to <= to_stop) {
        /* Adds whole bytes up to 56…63 bits; bits above `count` are the next bytes' and are or-ed again later. */
        bits |= load_le64(in) << count;
        in += (63 - count) >> 3;
        count |= 56;
        uint32_t e = s->lit[bits & ((1U << lit_bits) - 1)];
        /* Three literals of at most 11 bits leave 23 bits: look again only with a code of 11 bits in hand. */
        for (int k = 0; k < 3 && (e & is_literal) != 0; k++) {
            bits >>= e & 63U;
            count -= e & 63U;
            *to++ = (unsigned char)(e >> 16);
            e = s->lit[bits & ((1U << lit_bits) - 1)];
        }
        if ((e & is_literal) != 0) continue;
        bits |= load_le64(in) << count; /* a whole match is at most 20 + 28 bits */
        in += (63 - count) >> 3;
        count |= 56;
        if ((e & is_link) != 0) {
            bits >>= lit_bits;
            count -= lit_bits;
            e = s->lit[(e >> 16) + (uint32_t)(bits & ((1U << (e >> 8 & 15U)) - 1))];
        }
        uint32_t value = entry_value(e, bits);
        bits >>= e & 63U;
        count -= e & 63U;
        if ((e & is_literal) != 0) {
            *to++ = (unsigned char)(e >> 16);
            continue;
        }
        if ((e & (is_end | is_bad)) != 0) {
            *ended = (e & is_end) != 0;
            if (!*ended) problem = "a literal or length symbol that does not exist";
            break;
        }
        e = s->dist[bits & ((1U << dist_bits) - 1)];
        if ((e & is_link) != 0) {
            bits >>= dist_bits;
            count -= dist_bits;
            e = s->dist[(e >> 16) + (uint32_t)(bits & ((1U << (e >> 8 & 15U)) - 1))];
        }
        uint32_t distance = entry_value(e, bits);
        bits >>= e & 63U;
        count -= e & 63U;
        if ((e & is_bad) != 0) {
            problem = "a distance symbol that does not exist";
            break;
        }
        if (distance > (size_t)(to - first)) {
            problem = "a distance that reaches before the first byte";
            break;
        }
        copy_match(to, distance, value);
        to += value;
    }
    s->in = in;
    s->bits = bits;
    s->count = count;
    s->out->size = (size_t)(to - s->out->data);
    return problem == NULL ? SEGFM_OK : bad(s, problem);
}

/* Decodes one symbol, every step checked. */
static segfm_status careful_code(inflater *s, bool *ended) {
    uint32_t link, used;
    io_buffer *out = s->out;
    refill(s);
    uint32_t e = look_up(s->lit, lit_bits, s->bits, &link);
    used = link + (e & 63U);
    if (used > s->count) return truncated(s);
    uint32_t length = entry_value(e, s->bits >> link);
    s->bits >>= used;
    s->count -= used;
    if ((e & is_end) != 0) {
        *ended = true;
        return SEGFM_OK;
    }
    if ((e & is_bad) != 0) return bad(s, "a literal or length symbol that does not exist");
    if ((e & is_literal) != 0) {
        if (out->size == s->capacity) return past_limit(s);
        out->data[out->size++] = (unsigned char)(e >> 16);
        return SEGFM_OK;
    }
    refill(s);
    e = look_up(s->dist, dist_bits, s->bits, &link);
    used = link + (e & 63U);
    if (used > s->count) return truncated(s);
    uint32_t distance = entry_value(e, s->bits >> link);
    s->bits >>= used;
    s->count -= used;
    if ((e & is_bad) != 0) return bad(s, "a distance symbol that does not exist");
    if (distance > out->size - s->start) return bad(s, "a distance that reaches before the first byte");
    if (length > s->capacity - out->size) return past_limit(s);
    for (uint32_t i = 0; i < length; i++, out->size++) out->data[out->size] = out->data[out->size - distance];
    return SEGFM_OK;
}

static segfm_status coded_block(inflater *s) {
    bool ended = false;
    while (!ended) {
        segfm_status status = SEGFM_OK;
        if (s->capacity - s->out->size < fast_output && s->capacity < s->most) status = grow(s);
        else if (s->capacity - s->out->size >= fast_output && s->end - s->in >= fast_input)
            status = fast_codes(s, &ended);
        else status = careful_code(s, &ended);
        if (status != SEGFM_OK) return status;
    }
    return SEGFM_OK;
}

static segfm_status inflate_blocks(inflater *s) {
    uint32_t last = 0, type;
    while (last == 0) {
        if (!take(s, 1, &last) || !take(s, 2, &type)) return truncated(s);
        segfm_status status = SEGFM_OK;
        if (type == 3) return bad(s, "a block of type 3, which does not exist");
        if (type == 0) {
            status = stored_block(s);
        } else {
            if (type == 1) fixed_tables(s);
            else status = dynamic_tables(s);
            if (status == SEGFM_OK) status = coded_block(s);
        }
        if (status != SEGFM_OK) return status;
    }
    return SEGFM_OK;
}

/* Inflates the stream at src + at; offsets in messages and *next count from src. */
static segfm_status inflate_at(const unsigned char *src, size_t n, size_t at, size_t *next, io_buffer *out,
                               size_t limit, segfm_error *error) {
    if (at == n) /* src may be NULL when n is 0 */
        return base_fail(error, SEGFM_BAD_INPUT, "deflate stream at byte %zu: there is no input", at);
    inflater s; /* not initialised as a whole: the tables are large and built when needed */
    s.src = src;
    s.in = src + at;
    s.end = src + n;
    s.bits = 0;
    s.count = 0;
    s.out = out;
    s.start = out->size;
    s.error = error;
    s.fixed_tables = false;
    size_t most = n - at > SIZE_MAX / 1032 ? SIZE_MAX : (n - at) * 1032;
    if (most > limit) most = limit;
    s.most = most > SIZE_MAX - out->size ? SIZE_MAX : out->size + most;
    s.capacity = out->capacity < s.most ? out->capacity : s.most;
    segfm_status status = inflate_blocks(&s);
    if (status != SEGFM_OK) {
        out->size = s.start;
        return status;
    }
    *next = input_offset(&s);
    return SEGFM_OK;
}

segfm_status io_inflate(const unsigned char *src, size_t n, size_t *consumed, io_buffer *out, size_t limit,
                        segfm_error *error) {
    size_t next;
    segfm_status status = inflate_at(src, n, 0, &next, out, limit, error);
    if (status == SEGFM_OK) *consumed = next;
    return status;
}

/* ---- gzip --------------------------------------------------------------------------------------------------- */

bool io_is_gzip(const unsigned char *src, size_t n) { return n >= 2 && src[0] == 0x1F && src[1] == 0x8B; }

enum { gzip_header_crc = 2, gzip_extra = 4, gzip_name = 8, gzip_comment = 16, gzip_reserved = 0xE0 };

static segfm_status bad_gzip(segfm_error *error, size_t offset, const char *what) {
    return base_fail(error, SEGFM_BAD_INPUT, "gzip member at byte %zu: %s", offset, what);
}

/* Moves *at past a zero-terminated string; false when the terminator is missing. */
static bool skip_string(const unsigned char *src, size_t n, size_t *at) {
    const unsigned char *zero = *at < n ? memchr(src + *at, 0, n - *at) : NULL;
    if (zero == NULL) return false;
    *at = (size_t)(zero - src) + 1;
    return true;
}

/* Moves *at from a member's first byte to its compressed data. */
static segfm_status gzip_header(const unsigned char *src, size_t n, size_t *at, segfm_error *error) {
    static const char cut[] = "the file ends inside the header";
    size_t begin = *at, p = begin + 10;
    if (n - begin < 10) return bad_gzip(error, begin, cut);
    if (!io_is_gzip(src + begin, n - begin)) return bad_gzip(error, begin, "does not begin with the bytes 1f 8b");
    if (src[begin + 2] != 8)
        return base_fail(error, SEGFM_BAD_INPUT, "gzip member at byte %zu: compression method is %d, need 8", begin,
                         (int)src[begin + 2]);
    unsigned flags = src[begin + 3];
    if ((flags & gzip_reserved) != 0) return bad_gzip(error, begin, "a reserved flag is set");
    if ((flags & gzip_extra) != 0) {
        if (n - p < 2 || n - p - 2 < base_le16(src + p)) return bad_gzip(error, begin, cut);
        p += 2 + (size_t)base_le16(src + p);
    }
    if ((flags & gzip_name) != 0 && !skip_string(src, n, &p)) return bad_gzip(error, begin, cut);
    if ((flags & gzip_comment) != 0 && !skip_string(src, n, &p)) return bad_gzip(error, begin, cut);
    if ((flags & gzip_header_crc) != 0) {
        if (n - p < 2) return bad_gzip(error, begin, cut);
        unsigned got = base_le16(src + p), want = io_crc32(0, src + begin, p - begin) & 0xFFFFU;
        if (got != want)
            return base_fail(error, SEGFM_BAD_INPUT, "gzip member at byte %zu: header CRC is %x, need %x", begin, got,
                             want);
        p += 2;
    }
    *at = p;
    return SEGFM_OK;
}

/* Moves *at from a member's first byte past its last; appends what it holds. */
static segfm_status gzip_member(const unsigned char *src, size_t n, size_t *at, io_buffer *out, size_t limit,
                                segfm_error *error) {
    size_t begin = *at, p = begin, before = out->size;
    segfm_status status = gzip_header(src, n, &p, error);
    if (status == SEGFM_OK) status = inflate_at(src, n, p, &p, out, limit, error);
    if (status != SEGFM_OK) return status;
    if (n - p < 8) return bad_gzip(error, begin, "the file ends inside the CRC and size that end the member");
    size_t size = out->size - before;
    uint32_t crc =
        size > 0 ? io_crc32(0, out->data + before, size) : 0; /* an empty first member: there is no memory yet */
    if (crc != base_le32(src + p))
        return base_fail(error, SEGFM_BAD_INPUT, "gzip member at byte %zu: CRC of the data is %x, need %x", begin, crc,
                         base_le32(src + p));
    if ((uint32_t)(size & 0xFFFFFFFFU) != base_le32(src + p + 4))
        return base_fail(error, SEGFM_BAD_INPUT, "gzip member at byte %zu: has %zu bytes of data, need %zu modulo 2^32",
                         begin, size, (size_t)base_le32(src + p + 4));
    *at = p + 8;
    return SEGFM_OK;
}

segfm_status io_gunzip(const unsigned char *src, size_t n, io_buffer *out, size_t limit, segfm_error *error) {
    size_t before = out->size, at = 0;
    segfm_status status = SEGFM_OK;
    if (n >= 18) {
        /* The last member's size is usually the whole size: one allocation, at most what the input can give. */
        size_t hint = base_le32(src + n - 4), most = n > SIZE_MAX / 1032 ? SIZE_MAX : n * 1032;
        if (hint <= limit && hint <= most && hint <= SIZE_MAX - before)
            status = io_buffer_reserve(out, before + hint, error);
    }
    while (status == SEGFM_OK) {
        status = gzip_member(src, n, &at, out, limit - (out->size - before), error);
        if (status != SEGFM_OK || at == n) break;
        if (src[at] != 0) continue; /* another member, or an error */
        while (at < n && src[at] == 0) at++;
        if (at < n)
            status = base_fail(error, SEGFM_BAD_INPUT, "gzip file: a byte after the zeros that end it, at %zu", at);
        break;
    }
    if (status != SEGFM_OK) out->size = before;
    return status;
}
