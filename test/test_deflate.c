/* deflate.c: everything written is read back by io_inflate (whose own tests rest on zlib's streams), sizes are compared
   with zlib's, and the smallest outputs are pinned byte by byte. */
#include "../io/io.h"

#include "test.h"

static uint32_t lcg(uint32_t *state) {
    *state = *state * 1664525U + 1013904223U;
    return *state >> 24;
}

static unsigned char *allocate(size_t n) {
    unsigned char *p = malloc(n > 0 ? n : 1);
    if (p == NULL) abort();
    return p;
}

/* Deflates, inflates and compares; returns the deflated size. */
static size_t round_trip(const unsigned char *p, size_t n) {
    io_buffer packed = {0}, out = {0};
    size_t used = 0;
    CHECK(io_deflate(p, n, &packed, NULL) == SEGFM_OK);
    CHECK(io_inflate(packed.data, packed.size, &used, &out, n, NULL) == SEGFM_OK);
    CHECK(used == packed.size && out.size == n && (n == 0 || memcmp(out.data, p, n) == 0));
    size_t size = packed.size;
    io_buffer_free(&packed);
    io_buffer_free(&out);
    return size;
}

/* ---- kinds of data ------------------------------------------------------------------------------------------ */

typedef void (*filler)(unsigned char *p, size_t n);

static void fill_zero(unsigned char *p, size_t n) { memset(p, 0, n); }

static void fill_random(unsigned char *p, size_t n) {
    uint32_t s = 1;
    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)lcg(&s);
}

static void fill_coins(unsigned char *p, size_t n) {
    uint32_t s = 2;
    for (size_t i = 0; i < n; i++) p[i] = lcg(&s) < 128 ? 'a' : 'b';
}

/* Runs of all lengths around the longest match, separated by noise. */
static void fill_runs(unsigned char *p, size_t n) {
    uint32_t s = 3;
    for (size_t i = 0, run = 1; i < n; i += run, run = run % 530 + 1) {
        unsigned char byte = (unsigned char)lcg(&s);
        for (size_t k = i; k < n && k < i + run; k++) p[k] = byte;
    }
}

/* A 16-bit ramp with a little noise. */
static void fill_ramp(unsigned char *p, size_t n) {
    uint32_t s = 4;
    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)((i % 2 == 0 ? i / 2 + (lcg(&s) >> 6) : i >> 9) & 0xFFU);
}

static void fill_text(unsigned char *p, size_t n) {
    static const char *const words[16] = {"voxel", "mask", "the", "scan",    "of",    "liver", "kidney", "a",
                                          "slice", "and",  "is",  "spacing", "click", "box",   "prompt", "tumour"};
    uint32_t s = 1;
    for (size_t i = 0; i < n;) {
        lcg(&s);
        const char *parts[2] = {words[s >> 28], ((s >> 20) & 15U) != 0 ? " " : ".\n"};
        for (int part = 0; part < 2; part++)
            for (const char *c = parts[part]; *c != '\0' && i < n; c++) p[i++] = (unsigned char)*c;
    }
}

/* Noise repeated at exactly the farthest distance that deflate knows, and one byte farther. */
static void fill_repeat(unsigned char *p, size_t n, size_t distance) {
    fill_random(p, n < distance ? n : distance);
    for (size_t i = distance; i < n; i++) p[i] = p[i - distance];
}

static void fill_window(unsigned char *p, size_t n) { fill_repeat(p, n, 32768); }

static void fill_beyond(unsigned char *p, size_t n) { fill_repeat(p, n, 32769); }

/* Frequencies like Fibonacci numbers make the deepest Huffman trees: the limit of 15 bits binds. Shuffled, so that
   there are few matches. */
static void fill_fibonacci(unsigned char *p, size_t n) {
    size_t a = 1, b = 1, i = 0;
    for (unsigned symbol = 0; i < n; symbol = symbol < 20 ? symbol + 1 : 20) {
        for (size_t k = 0; k < a && i < n; k++) p[i++] = (unsigned char)(symbol * 7);
        size_t next = a + b;
        a = b, b = next;
    }
    uint32_t s = 5;
    for (i = n; i > 1; i--) {
        size_t j = (lcg(&s) << 16 | lcg(&s) << 8 | lcg(&s)) % i;
        unsigned char c = p[i - 1];
        p[i - 1] = p[j];
        p[j] = c;
    }
}

static const filler fillers[] = {fill_zero, fill_random, fill_coins,  fill_runs,     fill_ramp,
                                 fill_text, fill_window, fill_beyond, fill_fibonacci};
enum { n_fillers = sizeof fillers / sizeof fillers[0] };

static void test_round_trips(void) {
    static const size_t sizes[] = {100,   255,   256,   257,   258,   259,   260,   261,    516,    517,
                                   1000,  10945, 17710, 19999, 20000, 20001, 32767, 32768,  32769,  32770,
                                   33026, 65534, 65535, 65536, 65537, 65800, 98304, 131071, 200003, 1500000};
    enum { n_sizes = sizeof sizes / sizeof sizes[0] };
    unsigned char *p = allocate(sizes[n_sizes - 1]);
    for (int kind = 0; kind < n_fillers; kind++) {
        for (size_t n = 0; n < 70; n++) {
            fillers[kind](p, n);
            round_trip(p, n);
        }
        for (int k = 0; k < n_sizes; k++) {
            fillers[kind](p, sizes[k]);
            round_trip(p, sizes[k]);
        }
    }
    free(p);
}

/* An allocation of exactly n bytes, so that the sanitizers see a match that looks past the end. */
static void test_exact_input(void) {
    for (size_t n = 0; n < 300; n++) {
        unsigned char *p = allocate(n);
        fill_zero(p, n);
        round_trip(p, n);
        fill_text(p, n);
        round_trip(p, n);
        free(p);
    }
    CHECK(round_trip(NULL, 0) == 2);
}

/* ---- sizes -------------------------------------------------------------------------------------------------- */

/* Two ellipsoids in 40 × 80 × 96 voxels. */
static size_t make_mask(unsigned char *p) {
    size_t n = 0;
    for (int z = 0; z < 40; z++)
        for (int y = 0; y < 80; y++)
            for (int x = 0; x < 96; x++) {
                int a = 9 * (x - 48) * (x - 48) + 12 * (y - 40) * (y - 40) + 30 * (z - 20) * (z - 20);
                int b = (x - 30) * (x - 30) + (y - 50) * (y - 50) + 4 * (z - 18) * (z - 18);
                p[n++] = b < 144 ? 2 : a < 9000 ? 1 : 0;
            }
    return n;
}

/* 16-bit voxels: a smooth object with 4 bits of noise in an empty background. */
static size_t make_scan(unsigned char *p) {
    uint32_t s = 1;
    size_t n = 0;
    for (int z = 0; z < 8; z++)
        for (int y = 0; y < 96; y++)
            for (int x = 0; x < 96; x++) {
                lcg(&s);
                unsigned v = (unsigned)((x * x + 2 * y * y + 40 * z) / 32) + (s >> 28);
                if ((x - 48) * (x - 48) + (y - 48) * (y - 48) > 2000) v = 0;
                p[n++] = (unsigned char)(v & 0xFFU);
                p[n++] = (unsigned char)(v >> 8);
            }
    return n;
}

/* The same bytes compressed by Python 3.11's zlib 1.2.13 at level 6 (compressobj(6, zlib.DEFLATED, -15)). */
static void test_sizes(void) {
    unsigned char *p = allocate(400000);
    size_t n = make_mask(p);
    CHECK(n == 307200 && io_crc32(0, p, n) == 811393696U); /* the data are those that zlib was given */
    size_t mask = round_trip(p, n);
    n = make_scan(p);
    CHECK(n == 147456 && io_crc32(0, p, n) == 2375071121U);
    size_t scan = round_trip(p, n);
    n = 120002;
    fill_text(p, n);
    CHECK(io_crc32(0, p, n) == 992252884U);
    size_t words = round_trip(p, n);
#ifndef SEGFM_TINY /* blocks of a few symbols cost too much to compare */
    CHECK(mask <= 3577 * 103 / 100);
    CHECK(scan <= 61532 * 103 / 100);
    CHECK(words <= 22305 * 103 / 100);

    /* What cannot be compressed grows by a few bytes per block; what is all alike shrinks nearly 1032 times. */
    n = 400000;
    fill_random(p, n);
    CHECK(round_trip(p, n) <= n + 5 * (n / 10000 + 1));
    fill_zero(p, n);
    CHECK(round_trip(p, n) <= n / 1000 + 20);
    /* A match at distance 32768 is found, one at 32769 cannot be. */
    fill_window(p, 65536);
    CHECK(round_trip(p, 65536) < 34000);
    fill_beyond(p, 65536);
    CHECK(round_trip(p, 65536) > 65000);
#endif
    CHECK(mask > 0 && scan > 0 && words > 0);
    free(p);
}

/* ---- the bytes ---------------------------------------------------------------------------------------------- */

static void check_bytes(const io_buffer *b, const unsigned char *want, size_t n, int line) {
    bool same = b->size == n && memcmp(b->data, want, n) == 0;
    if (!test_check(same, "bytes as pinned", __FILE__, line))
        for (size_t i = 0; i < b->size; i++) printf("0x%02x,%c", b->data[i], i + 1 < b->size ? ' ' : '\n');
}

static void test_bytes(void) {
    static const unsigned char empty[2] = {0x03, 0x00};
    /* "hello" in the fixed code: what zlib gives, too. */
    static const unsigned char hello_zlib[13] = {0x78, 0x9C, 0xCB, 0x48, 0xCD, 0xC9, 0xC9,
                                                 0x07, 0x00, 0x06, 0x2C, 0x02, 0x15};
    static const unsigned char hello_gzip[25] = {0x1F, 0x8B, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                                                 0xFF, 0xCB, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x86,
                                                 0xA6, 0x10, 0x36, 0x05, 0x00, 0x00, 0x00};
    const unsigned char *hello = (const unsigned char *)"hello";
    io_buffer b = {0};
    CHECK(io_deflate(NULL, 0, &b, NULL) == SEGFM_OK);
    check_bytes(&b, empty, sizeof empty, __LINE__);
    b.size = 0;
    CHECK(io_zlib(hello, 5, &b, NULL) == SEGFM_OK);
    check_bytes(&b, hello_zlib, sizeof hello_zlib, __LINE__);
    b.size = 0;
    CHECK(io_gzip(hello, 5, &b, NULL) == SEGFM_OK);
    check_bytes(&b, hello_gzip, sizeof hello_gzip, __LINE__);

    /* Appending: the second member stands behind the first, and together they are a gzip file. */
    io_buffer out = {0};
    CHECK(io_gzip(hello, 3, &b, NULL) == SEGFM_OK && memcmp(b.data, hello_gzip, sizeof hello_gzip) == 0);
    CHECK(io_gunzip(b.data, b.size, &out, 8, NULL) == SEGFM_OK);
    CHECK(out.size == 8 && memcmp(out.data, "hellohel", 8) == 0);
    io_buffer_free(&out);
    io_buffer_free(&b);
}

/* Same input, same bytes: whatever was in the buffer before and wherever the input lies. */
static void test_determinism(void) {
    enum { n = 70000 };
    unsigned char *p = allocate(n), *q = allocate(n + 1);
    io_buffer a = {0}, b = {0};
    fill_ramp(p, n);
    memcpy(q + 1, p, n);
    CHECK(io_gzip(p, n, &a, NULL) == SEGFM_OK);
    CHECK(io_buffer_append(&b, "old", 3, NULL) == SEGFM_OK && io_gzip(q + 1, n, &b, NULL) == SEGFM_OK);
    CHECK(b.size == a.size + 3 && memcmp(b.data + 3, a.data, a.size) == 0 && memcmp(b.data, "old", 3) == 0);
    uint32_t adler = io_adler32(1, p, n);
    a.size = 0;
    CHECK(io_zlib(p, n, &a, NULL) == SEGFM_OK && base_be32(a.data + a.size - 4) == adler);
    CHECK(base_be16(a.data) % 31 == 0 && a.data[0] == 0x78);
    io_buffer_free(&a);
    io_buffer_free(&b);
    free(p);
    free(q);
}

int main(void) {
    test_round_trips();
    test_exact_input();
    test_sizes();
    test_bytes();
    test_determinism();
    return test_summary();
}
