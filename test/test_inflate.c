/* inflate.c: checksums, raw deflate and gzip. Valid streams come from zlib (as byte arrays below), malformed ones are
   put together bit by bit here. */
#include "../io/io.h"

#include "test.h"

/* Made with Python 3.11's zlib 1.2.13: c = zlib.compressobj(9, zlib.DEFLATED, -15, 9); c.compress(d) + c.flush() with
     pattern  bytes((i*i//64 + i//5) % 23 * 7 if i % 11 else i % 251 for i in range(300))
     text     the bytes of `text` below
     runs     bytes((i//1000) % 7 * 30 + (i % 1000 == 5) for i in range(100000)) */
static const unsigned char dynamic_pattern[231] = {
    0x1d, 0xc8, 0xa1, 0x4f, 0x86, 0x21, 0x10, 0x80, 0x71, 0x66, 0xb9, 0xe0, 0xbc, 0x76, 0xee, 0x0b, 0x14, 0x47,
    0x63, 0xce, 0x8d, 0x24, 0xed, 0xdd, 0x0c, 0x34, 0x1a, 0xc1, 0x8d, 0x86, 0x89, 0xe2, 0x68, 0xcc, 0x72, 0x49,
    0x1a, 0xdb, 0x17, 0x68, 0x74, 0xbb, 0xdd, 0x6e, 0xb7, 0xdb, 0xed, 0xfe, 0x05, 0x82, 0xec, 0xc6, 0x3d, 0xf7,
    0x13, 0x62, 0x3d, 0x00, 0x40, 0xa4, 0x4b, 0x29, 0x95, 0x36, 0xc6, 0x5a, 0xe7, 0xae, 0x43, 0x4c, 0xb9, 0x54,
    0xee, 0x63, 0xde, 0x00, 0x6d, 0x76, 0x3e, 0xc4, 0xdb, 0xda, 0xfa, 0x14, 0x24, 0xb5, 0x39, 0xee, 0x53, 0xae,
    0x6d, 0x02, 0x29, 0xe3, 0x1e, 0x52, 0xe1, 0x21, 0x76, 0x45, 0xcf, 0x1d, 0x48, 0x5b, 0x9f, 0x6a, 0x7f, 0x44,
    0x7d, 0x84, 0xcc, 0x13, 0x95, 0x7d, 0xca, 0x3c, 0x40, 0xad, 0xab, 0xcd, 0x67, 0xe3, 0x13, 0x4f, 0xd2, 0x2e,
    0xb5, 0x17, 0x32, 0xbe, 0xf4, 0xe5, 0x89, 0x5f, 0xc9, 0x84, 0x3a, 0x50, 0x87, 0x32, 0xce, 0xbb, 0xc8, 0x44,
    0x16, 0x72, 0xe6, 0x8e, 0x26, 0xb0, 0x50, 0x2e, 0xbf, 0x91, 0x4d, 0x0d, 0x97, 0x82, 0x79, 0x67, 0xd0, 0x7b,
    0xc7, 0x86, 0x1f, 0xa9, 0x4b, 0x57, 0xa6, 0x0a, 0x0c, 0x9f, 0x71, 0xac, 0x14, 0x66, 0xc9, 0x17, 0x83, 0x4d,
    0x43, 0xc7, 0x46, 0xee, 0x1b, 0x8f, 0x22, 0x6c, 0x9e, 0x3a, 0x8e, 0x9f, 0xd8, 0x65, 0x58, 0xd3, 0x54, 0xf8,
    0x5d, 0xa1, 0xe2, 0x50, 0x69, 0x9a, 0x0b, 0x71, 0x54, 0x74, 0xbc, 0xe1, 0x4a, 0xd8, 0x82, 0xae, 0x2f, 0xb5,
    0x27, 0xf2, 0x5d, 0x17, 0x70, 0x4d, 0x65, 0xb5, 0xbf, 0xff, 0xc2, 0xbb, 0xae, 0xff, 0x00,
};
static const unsigned char fixed_text[54] = {
    0x73, 0x54, 0x48, 0x2f, 0x4a, 0xac, 0x54, 0x48, 0x2c, 0x4a, 0x4d, 0xb4, 0x52, 0x28, 0xc9, 0x48, 0x45, 0x70,
    0x15, 0x32, 0xf3, 0x10, 0x02, 0xb9, 0x89, 0x25, 0x25, 0xa9, 0x45, 0x0a, 0x99, 0xc5, 0x0a, 0x89, 0x79, 0x10,
    0xd9, 0xfc, 0x34, 0xb0, 0x8c, 0x35, 0x50, 0x4d, 0x62, 0x09, 0x48, 0x02, 0xa4, 0x16, 0xa2, 0x4c, 0x0f, 0x00,
};
static const unsigned char dynamic_runs[281] = {
    0xed, 0xd9, 0x01, 0x11, 0x80, 0x20, 0x10, 0x00, 0x30, 0x2c, 0x82, 0x45, 0xb0, 0x08, 0x16, 0xc1, 0x22, 0x58, 0x04,
    0xfb, 0xe9, 0xa7, 0xf0, 0xee, 0x6f, 0xab, 0xb1, 0x52, 0x3e, 0x5b, 0x01, 0x12, 0xab, 0x61, 0xaf, 0x40, 0x62, 0x2d,
    0x1c, 0x0d, 0x48, 0xac, 0x87, 0xb3, 0x03, 0x89, 0x8d, 0x70, 0x0d, 0x20, 0xb1, 0x19, 0xee, 0x09, 0x24, 0xb6, 0xc2,
    0xb3, 0x80, 0xc4, 0x8a, 0x57, 0x03, 0xaf, 0x06, 0x78, 0x35, 0xc0, 0xab, 0x01, 0x5e, 0x0d, 0xf0, 0x6a, 0x80, 0x57,
    0x03, 0xbc, 0x1a, 0xe0, 0xd5, 0xc0, 0xab, 0x01, 0x5e, 0x0d, 0xf0, 0x6a, 0x80, 0x57, 0x03, 0xbc, 0x1a, 0xe0, 0xd5,
    0x00, 0xaf, 0x06, 0x78, 0x35, 0xf0, 0x6a, 0x80, 0x57, 0x03, 0xbc, 0x1a, 0xe0, 0xd5, 0x00, 0xaf, 0x06, 0x78, 0x35,
    0xc0, 0xab, 0x01, 0x5e, 0x0d, 0xbc, 0x1a, 0xe0, 0xd5, 0x00, 0xaf, 0x06, 0x78, 0x35, 0xc0, 0xab, 0x01, 0x5e, 0x0d,
    0xf0, 0x6a, 0x80, 0x57, 0x03, 0xaf, 0x06, 0x78, 0x35, 0xc0, 0xab, 0x01, 0x5e, 0x0d, 0xf0, 0x6a, 0x80, 0x57, 0x03,
    0xbc, 0x1a, 0xe0, 0xd5, 0xc0, 0xab, 0x01, 0x5e, 0x0d, 0xf0, 0x6a, 0x80, 0x57, 0x03, 0xbc, 0x1a, 0xe0, 0xd5, 0x00,
    0xaf, 0x06, 0x78, 0x35, 0xf0, 0x6a, 0x80, 0x57, 0x03, 0xbc, 0x1a, 0xe0, 0xd5, 0x00, 0xaf, 0x06, 0x78, 0x35, 0xc0,
    0xab, 0x01, 0x5e, 0x0d, 0xbc, 0x1a, 0xe0, 0xd5, 0x00, 0xaf, 0x06, 0x78, 0x35, 0xc0, 0xab, 0x01, 0x5e, 0x0d, 0xf0,
    0x6a, 0x80, 0x57, 0x03, 0xaf, 0x06, 0x78, 0x35, 0xc0, 0xab, 0x01, 0x5e, 0x0d, 0xf0, 0x6a, 0x80, 0x57, 0x03, 0xbc,
    0x1a, 0xe0, 0xd5, 0xc0, 0xab, 0x01, 0x5e, 0x0d, 0xf0, 0x6a, 0x80, 0x57, 0x03, 0xbc, 0x1a, 0xe0, 0xd5, 0x00, 0xaf,
    0x06, 0x78, 0x35, 0xf0, 0x6a, 0x80, 0x57, 0x03, 0xbc, 0x1a, 0xe0, 0xd5, 0x00, 0xaf, 0x06, 0x78, 0x35, 0xc0, 0xab,
    0x01, 0x5e, 0x0d, 0xbc, 0x1a, 0xe0, 0xd5, 0x00, 0xaf, 0x06, 0x78, 0x35, 0xe0, 0x27, 0x2f,
};

static const char text[] = "A gray area: the gray area in the gray matter is an area of gray; that is the matter.";

static unsigned char pattern_at(size_t i) {
    return (unsigned char)(i % 11 != 0 ? (i * i / 64 + i / 5) % 23 * 7 : i % 251);
}

static unsigned char runs_at(size_t i) { return (unsigned char)(i / 1000 % 7 * 30 + (i % 1000 == 5)); }

/* A copy in memory of exactly n bytes, so that the sanitizers see a read past the end. */
static unsigned char *exact_copy(const unsigned char *p, size_t n) {
    unsigned char *copy = malloc(n > 0 ? n : 1);
    if (copy == NULL) abort();
    if (n > 0) memcpy(copy, p, n);
    return copy;
}

/* ---- checksums ---------------------------------------------------------------------------------------------- */

static void test_checksums(void) {
    CHECK(io_crc32(0, "123456789", 9) == 0xCBF43926U);
    CHECK(io_adler32(1, "123456789", 9) == 0x091E01DEU);
    CHECK(io_crc32(0, NULL, 0) == 0 && io_adler32(1, NULL, 0) == 1);
    CHECK(io_crc32(0, "The quick brown fox jumps over the lazy dog", 43) == 0x414FA339U);
    CHECK(io_adler32(1, "Wikipedia", 9) == 0x11E60398U);

    /* Long inputs go through tables that short ones do not see: byte by byte must give the same. */
    enum { n = 30011 };
    unsigned char *p = malloc(n);
    if (p == NULL) abort();
    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)(i * 2654435761U >> 13);
    for (size_t size = n - 40; size <= n; size++) {
        uint32_t crc = 0, adler = 1;
        for (size_t i = 0; i < size; i++) crc = io_crc32(crc, p + i, 1), adler = io_adler32(adler, p + i, 1);
        CHECK(io_crc32(0, p, size) == crc && io_adler32(1, p, size) == adler);
        CHECK(io_crc32(io_crc32(0, p, 777), p + 777, size - 777) == crc);
    }
    memset(p, 0xFF, n); /* the largest sums that Adler's remainders may be put off for */
    uint32_t adler = 1;
    for (size_t i = 0; i < n; i++) adler = io_adler32(adler, p + i, 1);
    CHECK(io_adler32(1, p, n) == adler);
    free(p);
}

/* ---- valid streams ------------------------------------------------------------------------------------------ */

static void check_inflates(const unsigned char *stream, size_t n, unsigned char (*at)(size_t), size_t size) {
    io_buffer out = {0};
    size_t used = 0, wrong = 0;
    unsigned char *copy = exact_copy(stream, n);
    CHECK(io_inflate(copy, n, &used, &out, SIZE_MAX, NULL) == SEGFM_OK);
    CHECK(used == n && out.size == size);
    for (size_t i = 0; i < out.size && i < size; i++) wrong += out.data[i] != at(i);
    CHECK(wrong == 0);
    io_buffer_free(&out);

    /* The limit: what is needed is enough, one less is not, and a failure leaves the buffer's content. */
    segfm_error error = {0};
    CHECK(io_inflate(copy, n, &used, &out, size, NULL) == SEGFM_OK && out.size == size);
    CHECK(out.capacity == size);
    io_buffer_free(&out);
    CHECK(io_buffer_append(&out, "old", 3, NULL) == SEGFM_OK);
    CHECK(io_inflate(copy, n, &used, &out, size - 1, &error) == SEGFM_BAD_INPUT);
    CHECK(strstr(error.message, "bytes allowed") != NULL && error.status == SEGFM_BAD_INPUT);
    CHECK(out.size == 3 && memcmp(out.data, "old", 3) == 0);
    CHECK(io_inflate(copy, n, &used, &out, size, NULL) == SEGFM_OK);
    CHECK(out.size == size + 3 && memcmp(out.data, "old", 3) == 0 && out.data[3] == at(0));
    io_buffer_free(&out);
    CHECK(io_buffer_reserve(&out, 3 * size, NULL) == SEGFM_OK); /* room beyond the limit is not used */
    CHECK(io_inflate(copy, n, &used, &out, size - 1, NULL) == SEGFM_BAD_INPUT && out.size == 0);
    io_buffer_free(&out);
    free(copy);
}

static void check_truncations(const unsigned char *stream, size_t n) {
    for (size_t cut = 0; cut < n; cut++) {
        unsigned char *copy = exact_copy(stream, cut);
        io_buffer out = {0};
        segfm_error error = {0};
        size_t used = 4711;
        CHECK(io_inflate(copy, cut, &used, &out, SIZE_MAX, &error) == SEGFM_BAD_INPUT);
        CHECK(out.size == 0 && used == 4711 && error.message[0] != '\0');
        io_buffer_free(&out);
        free(copy);
    }
}

static unsigned char text_at(size_t i) { return (unsigned char)text[i]; }

static void test_valid(void) {
    check_inflates(dynamic_pattern, sizeof dynamic_pattern, pattern_at, 300);
    check_inflates(fixed_text, sizeof fixed_text, text_at, sizeof text - 1);
    check_inflates(dynamic_runs, sizeof dynamic_runs, runs_at, 100000);
    check_truncations(dynamic_pattern, sizeof dynamic_pattern);
    check_truncations(fixed_text, sizeof fixed_text);
    check_truncations(dynamic_runs, sizeof dynamic_runs);
}

/* Any single bit flipped: success or failure, but no crash and no result beyond the limit. */
static void test_flips(void) {
    for (size_t bit = 0; bit < 8 * sizeof dynamic_pattern; bit++) {
        unsigned char *copy = exact_copy(dynamic_pattern, sizeof dynamic_pattern);
        io_buffer out = {0};
        size_t used = 0;
        copy[bit / 8] ^= (unsigned char)(1U << bit % 8);
        segfm_status status = io_inflate(copy, sizeof dynamic_pattern, &used, &out, 1000, NULL);
        CHECK(status == SEGFM_OK ? out.size <= 1000 && used <= sizeof dynamic_pattern : out.size == 0);
        CHECK(out.capacity <= 1000);
        io_buffer_free(&out);
        free(copy);
    }
}

/* ---- streams made bit by bit -------------------------------------------------------------------------------- */

typedef struct {
    unsigned char bytes[4096];
    size_t bits;
} stream;

static void put(stream *s, uint64_t value, int n) {
    for (int i = 0; i < n; i++, s->bits++)
        if ((value >> i & 1U) != 0) s->bytes[s->bits / 8] |= (unsigned char)(1U << s->bits % 8);
}

/* The canonical code of `symbol`, most significant bit first. */
static void put_code(stream *s, const int *lengths, int n, int symbol) {
    int length = lengths[symbol];
    unsigned code = 0;
    for (int i = 0; i < n; i++) {
        if (lengths[i] > 0 && lengths[i] < length) code += 1U << (length - lengths[i]);
        if (i < symbol && lengths[i] == length) code++;
    }
    for (int i = length - 1; i >= 0; i--) put(s, code >> i & 1U, 1);
}

/* A code of the code lengths in which every one of them has a code. */
static const int pre[19] = {4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5};

static void put_pre(stream *s, int n_lit, int n_dist) {
    static const int order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    put(s, 5, 3); /* last block, dynamic */
    put(s, (unsigned)n_lit - 257, 5);
    put(s, (unsigned)n_dist - 1, 5);
    put(s, 15, 4);
    for (int i = 0; i < 19; i++) put(s, (unsigned)pre[order[i]], 3);
}

static void put_dynamic(stream *s, const int *lit, int n_lit, const int *dist, int n_dist) {
    put_pre(s, n_lit, n_dist);
    for (int i = 0; i < n_lit; i++) put_code(s, pre, 19, lit[i]);
    for (int i = 0; i < n_dist; i++) put_code(s, pre, 19, dist[i]);
}

/* Symbol of the fixed literal and length code. */
static void put_fixed(stream *s, int symbol) {
    int lengths[288];
    for (int i = 0; i < 288; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    put_code(s, lengths, 288, symbol);
}

static void put_fixed_distance(stream *s, int symbol) {
    for (int i = 4; i >= 0; i--) put(s, (unsigned)symbol >> i & 1U, 1);
}

/* Runs a stream as it is, which ends in the careful loop, and with bytes behind it, which keeps it in the fast one. */
static void check_stream(const stream *s, const char *sentence, const char *want, size_t want_size, int line) {
    size_t n = (s->bits + 7) / 8;
    for (size_t padding = 0; padding <= 64; padding += 64) {
        unsigned char *copy = exact_copy(s->bytes, n + padding);
        io_buffer out = {0};
        segfm_error error = {0};
        size_t used = 0;
        segfm_status status = io_inflate(copy, n + padding, &used, &out, SIZE_MAX, &error);
        bool ok = sentence == NULL ? status == SEGFM_OK && used == n && out.size == want_size &&
                                         (want_size == 0 || memcmp(out.data, want, want_size) == 0)
                                   : status == SEGFM_BAD_INPUT && strstr(error.message, sentence) != NULL;
        if (!test_check(ok, sentence == NULL ? "a valid stream" : sentence, __FILE__, line))
            printf("    status %d, %zu bytes, message: %s\n", (int)status, out.size, error.message);
        io_buffer_free(&out);
        free(copy);
    }
}

#define CHECK_BAD(s, sentence) check_stream(s, sentence, NULL, 0, __LINE__)
#define CHECK_GOOD(s, want, size) check_stream(s, NULL, want, size, __LINE__)

static void test_block_types(void) {
    stream s = {0};
    put(&s, 7, 3);
    CHECK_BAD(&s, "a block of type 3");

    s = (stream){0}; /* an empty fixed block, an empty stored one, a stored one of three bytes */
    put(&s, 2, 3);
    put_fixed(&s, 256);
    put(&s, 0, 3);
    s.bits = (s.bits + 7) / 8 * 8;
    put(&s, 0, 16), put(&s, 0xFFFF, 16);
    put(&s, 1, 3);
    s.bits = (s.bits + 7) / 8 * 8;
    put(&s, 3, 16), put(&s, 0xFFFC, 16);
    put(&s, 'a', 8), put(&s, 'b', 8), put(&s, 'c', 8);
    CHECK_GOOD(&s, "abc", 3);

    s = (stream){0};
    put(&s, 1, 8);
    put(&s, 3, 16), put(&s, 0xFFFD, 16);
    put(&s, 'a', 8), put(&s, 'b', 8), put(&s, 'c', 8);
    CHECK_BAD(&s, "a stored block's length 3 and its complement 65533 disagree");

    s = (stream){0};
    put(&s, 1, 8);
    put(&s, 300, 16), put(&s, 300 ^ 0xFFFF, 16);
    CHECK_BAD(&s, "the input ends inside the stream");
}

static void test_fixed_code(void) {
    stream s = {0};
    put(&s, 3, 3);
    put_fixed(&s, 'x');
    put_fixed(&s, 255);
    put_fixed(&s, 257); /* length 3 */
    put_fixed_distance(&s, 1);
    put_fixed(&s, 256);
    CHECK_GOOD(&s, "x\377x\377x", 5);

    for (int symbol = 286; symbol <= 287; symbol++) {
        s = (stream){0};
        put(&s, 3, 3);
        put_fixed(&s, 'x');
        put_fixed(&s, symbol);
        put(&s, 0, 16);
        CHECK_BAD(&s, "a literal or length symbol that does not exist");
    }
    for (int symbol = 30; symbol <= 31; symbol++) {
        s = (stream){0};
        put(&s, 3, 3);
        put_fixed(&s, 'x');
        put_fixed(&s, 257);
        put_fixed_distance(&s, symbol);
        put(&s, 0, 16);
        CHECK_BAD(&s, "a distance symbol that does not exist");
    }
    s = (stream){0};
    put(&s, 3, 3);
    put_fixed(&s, 'x');
    put_fixed(&s, 257);
    put_fixed_distance(&s, 1); /* distance 2 with one byte there */
    put_fixed(&s, 256);
    CHECK_BAD(&s, "a distance that reaches before the first byte");
    s = (stream){0}; /* the symbol is whole where the input ends: 3 + 8 + 5 bits */
    put(&s, 3, 3);
    put_fixed(&s, 285);
    put_fixed_distance(&s, 0);
    CHECK_BAD(&s, "a distance that reaches before the first byte");
}

/* Every distance from 1 to 40 with every length from 3 to 14: the copies overlap in every way. */
static void test_overlaps(void) {
    static const int length_base[10] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13};
    for (unsigned distance = 1; distance <= 40; distance++)
        for (unsigned length = 3; length <= 14; length++) {
            stream s = {0};
            char want[64];
            put(&s, 3, 3);
            for (unsigned i = 0; i < distance; i++) put_fixed(&s, want[i] = (char)('!' + i));
            int l = 9, d = 0;
            while (length_base[l] > (int)length) l--;
            put_fixed(&s, 257 + l);
            put(&s, length - (unsigned)length_base[l], l < 8 ? 0 : 1);
            unsigned base = 1, extra = 0; /* distances: two symbols per doubling */
            while (base + (1U << extra) <= distance) {
                base += 1U << extra;
                d++;
                extra = d < 4 ? 0 : (unsigned)d / 2 - 1;
            }
            put_fixed_distance(&s, d);
            put(&s, distance - base, (int)extra);
            put_fixed(&s, '~');
            put_fixed(&s, 256);
            for (unsigned i = 0; i < length; i++) want[distance + i] = want[i];
            want[distance + length] = '~';
            CHECK_GOOD(&s, want, distance + length + 1);
        }
}

static void test_dynamic_codes(void) {
    int lit[286] = {0}, dist[30] = {0};
    stream s = {0};

    /* Codes of 1 to 15 bits: subtables. Symbol 'a' + k has k + 1 bits, the end has the last 15-bit code. */
    for (int i = 0; i < 15; i++) lit['a' + i] = i + 1;
    lit[256] = 15;
    dist[0] = 0;
    put_dynamic(&s, lit, 257, dist, 1);
    for (int i = 14; i >= 0; i--) put_code(&s, lit, 257, 'a' + i);
    for (int i = 0; i < 15; i++) put_code(&s, lit, 257, 'a' + i);
    put_code(&s, lit, 257, 256);
    CHECK_GOOD(&s, "onmlkjihgfedcbaabcdefghijklmno", 30);

    /* The same for distances, with lengths of 3 and 258. */
    s = (stream){0};
    memset(lit, 0, sizeof lit);
    lit['a'] = 2, lit['b'] = 3, lit[256] = 3, lit[257] = 2, lit[285] = 2;
    for (int i = 0; i < 14; i++) dist[i] = i + 1;
    dist[14] = dist[15] = 15;
    dist[14] = 15, dist[13] = 14;
    put_dynamic(&s, lit, 286, dist, 16);
    put_code(&s, lit, 286, 'a');
    put_code(&s, lit, 286, 'b');
    put_code(&s, lit, 286, 285);
    put_code(&s, dist, 16, 1);
    put_code(&s, lit, 286, 257);
    put_code(&s, dist, 16, 14);
    put(&s, 63, 6); /* distance 129 + 63 = 192, even */
    put_code(&s, lit, 286, 257);
    put_code(&s, dist, 16, 15);
    put(&s, 0, 6); /* distance 193 */
    put_code(&s, lit, 286, 256);
    char want[266];
    for (int i = 0; i < 260; i++) want[i] = i % 2 == 0 ? 'a' : 'b';
    for (int i = 260; i < 263; i++) want[i] = want[i - 192];
    for (int i = 263; i < 266; i++) want[i] = want[i - 193];
    CHECK_GOOD(&s, want, 266);

    /* No code is as long as the primary tables' index: the last bits before the subtables are nobody's own. */
    s = (stream){0};
    memset(lit, 0, sizeof lit);
    memset(dist, 0, sizeof dist);
    for (int i = 0; i < 8; i++) lit['a' + i] = i + 1;
    for (int i = 0; i < 14; i++) lit['i' + i] = 12;
    lit[256] = lit[257] = 12;
    for (int i = 0; i < 5; i++) dist[i] = i + 1;
    for (int i = 5; i < 21; i++) dist[i] = 9;
    put_dynamic(&s, lit, 258, dist, 21);
    for (int i = 0; i < 22; i++) put_code(&s, lit, 258, 'a' + i);
    put_code(&s, lit, 258, 257);
    put_code(&s, dist, 21, 8);
    put(&s, 1, 3); /* distance 17 + 1 */
    put_code(&s, lit, 258, 257);
    put_code(&s, dist, 21, 2);
    put_code(&s, lit, 258, 256);
    CHECK_GOOD(&s, "abcdefghijklmnopqrstuvefgefg", 28);

    /* A single length code and a single one-bit distance code: its other bit means nothing. */
    memset(lit, 0, sizeof lit);
    memset(dist, 0, sizeof dist);
    lit['a'] = 1, lit[256] = 2, lit[257] = 2, dist[0] = 1;
    for (unsigned bit = 0; bit < 2; bit++) {
        s = (stream){0};
        put_dynamic(&s, lit, 258, dist, 1);
        put_code(&s, lit, 258, 'a');
        put_code(&s, lit, 258, 257);
        put(&s, bit, 1);
        put_code(&s, lit, 258, 256);
        if (bit == 0) CHECK_GOOD(&s, "aaaa", 4);
        else CHECK_BAD(&s, "a distance symbol that does not exist");
    }
    s = (stream){0}; /* no distance code at all: fine until it is used */
    dist[0] = 0;
    put_dynamic(&s, lit, 258, dist, 1);
    put_code(&s, lit, 258, 'a');
    put_code(&s, lit, 258, 256);
    CHECK_GOOD(&s, "a", 1);
    s = (stream){0};
    put_dynamic(&s, lit, 258, dist, 1);
    put_code(&s, lit, 258, 'a');
    put_code(&s, lit, 258, 257);
    put(&s, 0, 8);
    CHECK_BAD(&s, "a distance symbol that does not exist");

    s = (stream){0}; /* nothing but an end, of one bit */
    memset(lit, 0, sizeof lit);
    lit[256] = 1;
    put_dynamic(&s, lit, 257, dist, 1);
    put_code(&s, lit, 257, 256);
    CHECK_GOOD(&s, "", 0);
    s = (stream){0};
    put_dynamic(&s, lit, 257, dist, 1);
    put(&s, 1, 1);
    CHECK_BAD(&s, "a literal or length symbol that does not exist");
}

static void check_lengths(const int *lit, int n_lit, const int *dist, int n_dist, const char *sentence, int line) {
    stream s = {0};
    put_dynamic(&s, lit, n_lit, dist, n_dist);
    put(&s, 0, 32);
    check_stream(&s, sentence, NULL, 0, line);
}

static void test_bad_codes(void) {
    int lit[288] = {0}, dist[32] = {0};
    lit['a'] = 1, lit[256] = 1, dist[0] = 1;
    check_lengths(lit, 287, dist, 1, "more than 286 literal and length codes", __LINE__);
    check_lengths(lit, 257, dist, 31, "more than 30 distance codes", __LINE__);
    lit['b'] = 1;
    check_lengths(lit, 257, dist, 1, "the literal and length code is over-subscribed or incomplete", __LINE__);
    lit['b'] = 15;
    check_lengths(lit, 257, dist, 1, "the literal and length code is over-subscribed or incomplete", __LINE__);
    lit['b'] = 0, lit['a'] = 2;
    check_lengths(lit, 257, dist, 1, "the literal and length code is over-subscribed or incomplete", __LINE__);
    lit['a'] = 0, lit[256] = 2; /* a single code may have one bit only */
    check_lengths(lit, 257, dist, 1, "the literal and length code is over-subscribed or incomplete", __LINE__);
    lit['a'] = lit['b'] = 1, lit[256] = 0;
    check_lengths(lit, 257, dist, 1, "a block has no code for its end", __LINE__);
    lit['b'] = 0, lit[256] = 1;
    dist[0] = 2;
    check_lengths(lit, 257, dist, 1, "the distance code is over-subscribed or incomplete", __LINE__);
    dist[0] = 1, dist[1] = 2;
    check_lengths(lit, 257, dist, 2, "the distance code is over-subscribed or incomplete", __LINE__);
    dist[1] = 1, dist[2] = 1;
    check_lengths(lit, 257, dist, 3, "the distance code is over-subscribed or incomplete", __LINE__);
    for (int i = 0; i < 30; i++) dist[i] = 4;
    check_lengths(lit, 257, dist, 30, "the distance code is over-subscribed or incomplete", __LINE__);

    stream s = {0};
    put_pre(&s, 257, 1);
    put_code(&s, pre, 19, 16);
    put(&s, 0, 2 + 32);
    CHECK_BAD(&s, "begin with a repetition of nothing");
    for (int symbol = 16; symbol <= 18; symbol++) {
        s = (stream){0};
        put_pre(&s, 257, 1);
        for (int i = 0; i < 256; i++) put_code(&s, pre, 19, 8);
        put_code(&s, pre, 19, symbol); /* at least three where there is room for two */
        put(&s, 0, 16);
        CHECK_BAD(&s, "a repetition runs past the last code length");
    }

    /* The code of the code lengths: order 16, 17, 18, 0, … */
    static const unsigned bad_pre[5][4] = {{1, 1, 1, 0}, {1, 0, 0, 2}, {0, 0, 0, 0}, {1, 0, 0, 0}, {7, 7, 7, 7}};
    for (int k = 0; k < 5; k++) {
        s = (stream){0};
        put(&s, 5, 3);
        put(&s, 0, 14);
        for (int i = 0; i < 4; i++) put(&s, bad_pre[k][i], 3);
        put(&s, 0, 32);
        CHECK_BAD(&s, "the code of the code lengths is over-subscribed or incomplete");
    }
}

/* ---- gzip --------------------------------------------------------------------------------------------------- */

enum { flag_text = 1, flag_crc = 2, flag_extra = 4, flag_name = 8, flag_comment = 16 };

/* Appends a member holding `text`. */
static void put_member(io_buffer *b, unsigned flags) {
    const unsigned char head[10] = {0x1F, 0x8B, 8, (unsigned char)flags, 1, 2, 3, 4, 2, 3};
    size_t begin = b->size;
    unsigned char tail[8], crc[2];
    io_buffer_append(b, head, 10, NULL);
    if ((flags & flag_extra) != 0) io_buffer_append(b, "\5\0extra", 7, NULL);
    if ((flags & flag_name) != 0) io_buffer_append(b, "scan.nii", 9, NULL);
    if ((flags & flag_comment) != 0) io_buffer_append(b, "a comment", 10, NULL);
    base_put_le16(crc, (uint16_t)(io_crc32(0, b->data + begin, b->size - begin) & 0xFFFFU));
    if ((flags & flag_crc) != 0) io_buffer_append(b, crc, 2, NULL);
    io_buffer_append(b, fixed_text, sizeof fixed_text, NULL);
    base_put_le32(tail, io_crc32(0, text, sizeof text - 1));
    base_put_le32(tail + 4, sizeof text - 1);
    io_buffer_append(b, tail, 8, NULL);
}

/* Gunzips an exact copy; returns the status and the result's size in *size when it is `text` over and over. */
static segfm_status gunzip(const unsigned char *p, size_t n, size_t limit, size_t *size, segfm_error *error) {
    unsigned char *copy = exact_copy(p, n);
    io_buffer out = {0};
    io_buffer_append(&out, "old", 3, NULL);
    segfm_status status = io_gunzip(copy, n, &out, limit, error);
    CHECK(out.size >= 3 && memcmp(out.data, "old", 3) == 0 && (status == SEGFM_OK || out.size == 3));
    *size = out.size - 3;
    for (size_t i = 0; i < *size; i++)
        if (out.data[i + 3] != (unsigned char)text[i % (sizeof text - 1)]) *size = SIZE_MAX;
    io_buffer_free(&out);
    free(copy);
    return status;
}

static void check_bad_gzip(const io_buffer *b, size_t n, const char *sentence, int line) {
    segfm_error error = {0};
    size_t size;
    segfm_status status = gunzip(b->data, n, SIZE_MAX, &size, &error);
    if (!test_check(status == SEGFM_BAD_INPUT && strstr(error.message, sentence) != NULL, sentence, __FILE__, line))
        printf("    status %d, message: %s\n", (int)status, error.message);
}

static void test_gzip_headers(void) {
    io_buffer b = {0};
    size_t size;
    for (unsigned flags = 0; flags < 32; flags++) {
        b.size = 0;
        put_member(&b, flags);
        CHECK(io_is_gzip(b.data, b.size));
        CHECK(gunzip(b.data, b.size, SIZE_MAX, &size, NULL) == SEGFM_OK && size == sizeof text - 1);
        for (size_t cut = 0; cut < b.size; cut++) {
            segfm_error error = {0};
            CHECK(gunzip(b.data, cut, SIZE_MAX, &size, &error) == SEGFM_BAD_INPUT && error.message[0] != '\0');
        }
    }
    b.size = 0;
    put_member(&b, flag_extra | flag_name | flag_crc);
    b.data[20]++; /* in the name */
    check_bad_gzip(&b, b.size, "header CRC is", __LINE__);
    b.size = 0;
    put_member(&b, flag_crc);
    check_bad_gzip(&b, 11, "ends inside the header", __LINE__);
    check_bad_gzip(&b, 12, "there is no input", __LINE__); /* the header is whole */
    b.size = 0;
    put_member(&b, flag_extra);
    b.data[10] = 255; /* the extra field's length */
    b.data[11] = 255;
    check_bad_gzip(&b, b.size, "ends inside the header", __LINE__);
    b.size = 0;
    put_member(&b, 0);
    b.data[3] = 0x20;
    check_bad_gzip(&b, b.size, "a reserved flag is set", __LINE__);
    b.data[3] = 0;
    b.data[2] = 7;
    check_bad_gzip(&b, b.size, "compression method is 7, need 8", __LINE__);
    b.data[2] = 8;
    b.data[1] = 0x8C;
    CHECK(!io_is_gzip(b.data, b.size) && !io_is_gzip(b.data, 1));
    check_bad_gzip(&b, b.size, "does not begin with the bytes 1f 8b", __LINE__);
    b.data[1] = 0x8B;
    b.data[b.size - 8]++;
    check_bad_gzip(&b, b.size, "CRC of the data is", __LINE__);
    b.data[b.size - 8]--;
    b.data[b.size - 4]++;
    check_bad_gzip(&b, b.size, "has 85 bytes of data, need 86", __LINE__);
    check_bad_gzip(&b, 0, "gzip member at byte 0", __LINE__);
    io_buffer_free(&b);
}

static void test_gzip_members(void) {
    io_buffer b = {0};
    size_t size, one = sizeof text - 1;
    put_member(&b, 0);
    size_t member = b.size;
    put_member(&b, flag_name);
    put_member(&b, 0);
    CHECK(gunzip(b.data, b.size, SIZE_MAX, &size, NULL) == SEGFM_OK && size == 3 * one);
    CHECK(gunzip(b.data, b.size, 3 * one, &size, NULL) == SEGFM_OK && size == 3 * one);
    CHECK(gunzip(b.data, b.size, 3 * one - 1, &size, NULL) == SEGFM_BAD_INPUT);
    CHECK(gunzip(b.data, b.size, 0, &size, NULL) == SEGFM_BAD_INPUT);
    for (size_t cut = member + 1; cut < b.size; cut++) {
        segfm_status status = gunzip(b.data, cut, SIZE_MAX, &size, NULL);
        CHECK(cut == 2 * member + 9 ? status == SEGFM_OK && size == 2 * one : status == SEGFM_BAD_INPUT);
    }
    b.data[member + 1] = 0; /* of the second member's header */
    check_bad_gzip(&b, b.size, "gzip member at byte 72: does not begin", __LINE__);
    b.size = member;
    for (int i = 0; i < 5; i++) {
        io_buffer_append(&b, "", 1, NULL);
        CHECK(gunzip(b.data, b.size, SIZE_MAX, &size, NULL) == SEGFM_OK && size == one);
    }
    io_buffer_append(&b, "x", 1, NULL);
    check_bad_gzip(&b, b.size, "a byte after the zeros", __LINE__);
    io_buffer_free(&b);
}

/* Any single bit flipped is noticed, except where nothing hangs on it: time, extra flags, system and the text flag of
   the header, and the padding bits after the last code. */
static void test_gzip_flips(void) {
    io_buffer b = {0};
    put_member(&b, 0);
    size_t harmless = 0;
    for (size_t bit = 0; bit < 8 * b.size; bit++) {
        size_t size;
        b.data[bit / 8] ^= (unsigned char)(1U << bit % 8);
        if (gunzip(b.data, b.size, SIZE_MAX, &size, NULL) == SEGFM_OK) {
            CHECK(size == sizeof text - 1);
            CHECK((bit / 8 >= 4 && bit / 8 < 10) || bit == 24 || bit / 8 == 9 + sizeof fixed_text);
            harmless++;
        }
        b.data[bit / 8] ^= (unsigned char)(1U << bit % 8);
    }
    CHECK(harmless >= 49 && harmless <= 49 + 7);
    io_buffer_free(&b);
}

/* A small file that claims much, and one that gives much, cost no more memory than the limit. */
static void test_memory(void) {
    io_buffer b = {0}, out = {0};
    size_t used;
    put_member(&b, 0);
    base_put_le32(b.data + b.size - 4, 0xFFFFFFFFU);
    CHECK(io_gunzip(b.data, b.size, &out, SIZE_MAX, NULL) == SEGFM_BAD_INPUT && out.capacity <= 1032 * b.size);
    io_buffer_free(&out);
    CHECK(io_inflate(dynamic_runs, sizeof dynamic_runs, &used, &out, 70000, NULL) == SEGFM_BAD_INPUT);
    CHECK(out.capacity <= 70000 && out.size == 0);
    io_buffer_free(&out);
    io_buffer_free(&b);
}

static void test_buffer(void) {
    io_buffer b = {0};
    CHECK(io_buffer_append(&b, NULL, 0, NULL) == SEGFM_OK && b.data == NULL);
    CHECK(io_buffer_reserve(&b, 0, NULL) == SEGFM_OK && b.data == NULL);
    size_t moves = 0, capacity = 0;
    for (unsigned i = 0; i < 100000; i++) {
        unsigned char byte = (unsigned char)(i & 0xFFU);
        if (io_buffer_append(&b, &byte, 1, NULL) != SEGFM_OK) break;
        moves += b.capacity != capacity;
        capacity = b.capacity;
    }
    CHECK(b.size == 100000 && b.data[99999] == (99999 & 0xFF) && moves < 20);
    segfm_error error = {0};
    CHECK(io_buffer_append(&b, "x", SIZE_MAX, &error) == SEGFM_NO_MEMORY && b.size == 100000);
    CHECK(error.status == SEGFM_NO_MEMORY && error.message[0] != '\0');
    io_buffer_free(&b);
    CHECK(b.data == NULL && b.size == 0 && b.capacity == 0);
}

int main(void) {
    test_buffer();
    test_checksums();
    test_valid();
    test_flips();
    test_block_types();
    test_fixed_code();
    test_overlaps();
    test_dynamic_codes();
    test_bad_codes();
    test_gzip_headers();
    test_gzip_members();
    test_gzip_flips();
    test_memory();
    return test_summary();
}
