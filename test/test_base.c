#include "../base/base.h"
#include "test.h"

static void test_format(void) {
    char text[64];
    base_format(text, sizeof text, "%s %d %lld %llu %zu %x %c%%", "a", -7, -9000000000LL, 18446744073709551615ULL,
                (size_t)12, 255U, 'z');
    CHECK(strcmp(text, "a -7 -9000000000 18446744073709551615 12 ff z%") == 0);
    base_format(text, sizeof text, "%lld", -9223372036854775807LL - 1);
    CHECK(strcmp(text, "-9223372036854775808") == 0);
    base_format(text, 5, "%s", "abcdefgh"); /* cut, terminated */
    CHECK(strcmp(text, "abcd") == 0);
    base_format(text, sizeof text, "%s", (const char *)NULL);
    CHECK(strcmp(text, "(null)") == 0);
}

static void test_errors(void) {
    segfm_error e = {0};
    CHECK(base_fail(NULL, SEGFM_BAD_INPUT, "x") == SEGFM_BAD_INPUT);
    CHECK(base_fail(&e, SEGFM_NO_MEMORY, "got %d", 3) == SEGFM_NO_MEMORY && e.status == SEGFM_NO_MEMORY);
    CHECK(strcmp(e.message, "got 3") == 0 && e.where[0] == '\0');
    base_fail_where(&e, e.status, "first");
    base_fail_where(&e, e.status, "second"); /* the deeper one stays */
    CHECK(strcmp(e.where, "first") == 0);
    base_fail(&e, SEGFM_BAD_INPUT, "again: %s", e.message); /* an argument inside of the struct */
    CHECK(strcmp(e.message, "again: got 3") == 0 && e.where[0] == '\0');
}

static void test_sizes(void) {
    size_t v = 77;
    CHECK(!base_mul(SIZE_MAX / 2 + 1, 2, &v) && v == 77);
    CHECK(base_mul(SIZE_MAX / 2, 2, &v) && v == SIZE_MAX - 1);
    CHECK(!base_add(SIZE_MAX, 1, &v) && base_add(SIZE_MAX, 0, &v) && v == SIZE_MAX);
    CHECK(!base_count((size_t[]){SIZE_MAX / 4, 5}, 2, 1, &v));
    CHECK(base_count((size_t[]){SIZE_MAX, 0, SIZE_MAX}, 3, 8, &v) && v == 0);
    CHECK(base_count((size_t[]){3, 4, 5}, 3, 8, &v) && v == 480);
    CHECK(base_count(NULL, 0, 4, &v) && v == 4);
}

static void test_byte_order(void) {
    const unsigned char b[8] = {1, 2, 3, 4, 5, 6, 7, 200};
    unsigned char out[8];
    CHECK(base_le16(b) == 0x0201 && base_be16(b) == 0x0102);
    CHECK(base_le32(b) == 0x04030201U && base_be32(b) == 0x01020304U);
    CHECK(base_le64(b) == 0xC807060504030201U && base_be64(b) == 0x01020304050607C8U);
    base_put_le64(out, 0xC807060504030201U);
    CHECK(memcmp(out, b, 8) == 0);
}

/* Half → float → half is the identity on all 65536 patterns (NaNs stay NaNs), and rounding is to nearest even: between
   two neighbouring halves the midpoint goes to the even one, a float above or below it to the nearer one. */
static void test_half(void) {
    int wrong = 0;
    for (unsigned h = 0; h < 65536; h++) {
        float f = base_half_to_float((uint16_t)h);
        bool nan = (h & 0x7C00U) == 0x7C00U && (h & 0x3FFU) != 0;
        wrong += nan ? !isnan(f) || !isnan(base_half_to_float(base_float_to_half(f))) : base_float_to_half(f) != h;
    }
    CHECK(wrong == 0);
    for (unsigned h = 0; h < 0x7BFFU; h++) {
        float low = base_half_to_float((uint16_t)h), high = base_half_to_float((uint16_t)(h + 1)),
              middle = low + (high - low) / 2;
        wrong += base_float_to_half(middle) != (h % 2 == 0 ? h : h + 1);
        wrong += base_float_to_half(nextafterf(middle, 0)) != h && h > 0;
        wrong += base_float_to_half(nextafterf(middle, INFINITY)) != h + 1;
        wrong += base_float_to_half(-middle) != (0x8000U | (h % 2 == 0 ? h : h + 1));
    }
    CHECK(wrong == 0);
    for (uint32_t h = 0; h < 65536; h++) {
        float plain = base_half_to_float((uint16_t)h), vector = base_widen_half((uint16_t)h);
        wrong += (h & 0x7C00U) != 0x7C00U && memcmp(&plain, &vector, sizeof plain) != 0;
    }
    CHECK(wrong == 0);
    CHECK(base_half_to_float(0x3C00) == 1.0f && base_half_to_float(0x0001) == 0x1p-24f &&
          base_half_to_float(0x7BFF) == 65504.0f);
    CHECK(base_float_to_half(65519.9f) == 0x7BFF && base_float_to_half(65520.0f) == 0x7C00 &&
          base_float_to_half(-INFINITY) == 0xFC00);
    CHECK(base_float_to_half(0x1p-25f) == 0 && base_float_to_half(0x1.000002p-25f) == 1);
}

/* Published test values of XXH64 with seed 0; the long one through every path (lanes, 8, 4, 1 byte tails). */
static void test_hash(void) {
    unsigned char bytes[101];
    uint32_t generator = 2654435761U;
    for (size_t i = 0; i < sizeof bytes; i++, generator *= generator) bytes[i] = (unsigned char)(generator >> 24);
    CHECK(base_xxh64("", 0, 0) == 0xEF46DB3751D8E999U);
    CHECK(base_xxh64("abc", 3, 0) == 0x44BC2CF5AD770999U);
    CHECK(base_xxh64(bytes, 1, 0) == 0x4FCE394CC88952D8U);
    CHECK(base_xxh64(bytes, 14, 0) == 0xCFFA8DB881BC3A3DU);
    CHECK(base_xxh64(bytes, 101, 0) == 0x0EAB543384F878ADU);
    CHECK(base_xxh64(bytes, 101, 2654435761U) == 0xCAA65939306F1E21U);
}

static int by_value(const void *a, const void *b) {
    const uint32_t *x = a, *y = b;
    return x[0] < y[0] ? -1 : x[0] > y[0];
}

/* Against the C library's sort: few and many items, many of them equal, of 4 and of 12 bytes. */
static void test_sort(void) {
    enum { MOST = 300 };
    uint32_t got[3 * MOST], want[3 * MOST], generator = 1;
    for (size_t n = 0; n <= MOST; n = n < 20 ? n + 1 : n + 70)
        for (size_t words = 1; words <= 3; words += 2) {
            for (size_t i = 0; i < words * n; i++, generator = generator * 1664525U + 1013904223U)
                got[i] = generator >> 25;
            for (size_t i = 0; i < n; i++) /* equal items may come in any order: what follows is the same for them */
                for (size_t k = 1; k < words; k++) got[i * words + k] = got[i * words] * 7;
            memcpy(want, got, sizeof got);
            qsort(want, n, words * sizeof *want, by_value);
            base_sort(got, n, words * sizeof *got, by_value);
            CHECK(memcmp(got, want, words * n * sizeof *got) == 0);
        }
    base_sort(NULL, 0, 4, by_value);
}

/* What a file's names could make of a line on a terminal. */
static void test_printable(void) {
    segfm_error error = {0};
    base_fail(&error, SEGFM_BAD_INPUT, "name '%s'",
              "a\nb\x1b[2J\x7f\xC2\x9B"
              "2J\xC3\xA9\xE2\x86\x9B");
    CHECK(strcmp(error.message, "name 'a?b?[2J???2J\xC3\xA9\xE2\x86\x9B'") == 0); /* é and an arrow stay */
    base_fail_where(&error, SEGFM_BAD_INPUT, "a\r\nb.nii");
    CHECK(strcmp(error.where, "a??b.nii") == 0);
}

int main(void) {
    test_printable();
    test_format();
    test_sort();
    test_errors();
    test_sizes();
    test_byte_order();
    test_half();
    test_hash();
    return test_summary();
}
