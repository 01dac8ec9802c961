#include "base.h"

#include <stdarg.h>
#include <string.h>

/* ---- errors ------------------------------------------------------------------------------------------------- */

typedef struct {
    char *at, *end; /* end leaves room for the terminator */
} text;

static void put_char(text *t, char c) {
    if (t->at < t->end) *t->at++ = c;
}

static void put_string(text *t, const char *s) {
    if (s == NULL) s = "(null)";
    while (*s != '\0') put_char(t, *s++);
}

static void put_unsigned(text *t, unsigned long long v, unsigned radix) {
    char digits[24];
    int n = 0;
    do {
        digits[n++] = "0123456789abcdef"[v % radix];
        v /= radix;
    } while (v != 0);
    while (n > 0) put_char(t, digits[--n]);
}

static void put_signed(text *t, long long v) {
    if (v < 0) put_char(t, '-');
    put_unsigned(t, v < 0 ? 0ULL - (unsigned long long)v : (unsigned long long)v, 10);
}

static void format_into(char *out, size_t capacity, const char *format, va_list args) {
    text t = {out, out + capacity - 1};
    for (const char *f = format; *f != '\0'; f++) {
        if (*f != '%') {
            put_char(&t, *f);
            continue;
        }
        f++;
        if (*f == 's') put_string(&t, va_arg(args, const char *));
        else if (*f == 'd') put_signed(&t, va_arg(args, int));
        else if (*f == 'x') put_unsigned(&t, va_arg(args, unsigned), 16);
        else if (*f == 'c') put_char(&t, (char)va_arg(args, int));
        else if (*f == '%') put_char(&t, '%');
        else if (f[0] == 'z' && f[1] == 'u') put_unsigned(&t, va_arg(args, size_t), 10), f += 1;
        else if (f[0] == 'l' && f[1] == 'l' && f[2] == 'd') put_signed(&t, va_arg(args, long long)), f += 2;
        else if (f[0] == 'l' && f[1] == 'l' && f[2] == 'u')
            put_unsigned(&t, va_arg(args, unsigned long long), 10), f += 2;
        else break; /* a conversion this formatter does not know: stop rather than guess */
    }
    *t.at = '\0';
}

void base_format(char *out, size_t capacity, const char *format, ...) {
    va_list args;
    va_start(args, format);
    format_into(out, capacity, format, args);
    va_end(args);
}

/* A file's names may end up in an error: what a terminal would obey, line ends above all, becomes a question mark. */
static void make_printable(char *s) {
    unsigned char before = 0;
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        bool second = before == 0xC2 && c >= 0x80 && c < 0xA0; /* U+0080 to U+009F, of two bytes */
        if (c < 0x20 || c == 0x7F || second) *s = '?';
        if (second) s[-1] = '?';
        before = c;
    }
}

segfm_status base_fail(segfm_error *error, segfm_status status, const char *format, ...) {
    if (error == NULL) return status;
    char message[sizeof error->message]; /* an argument may point into *error */
    va_list args;
    va_start(args, format);
    format_into(message, sizeof message, format, args);
    va_end(args);
    make_printable(message);
    memcpy(error->message, message, sizeof message);
    error->status = status;
    error->where[0] = '\0';
    return status;
}

segfm_status base_fail_where(segfm_error *error, segfm_status status, const char *where) {
    if (error != NULL && error->where[0] == '\0') {
        text t = {error->where, error->where + sizeof error->where - 1};
        put_string(&t, where);
        *t.at = '\0';
        make_printable(error->where);
    }
    return status;
}

/* ---- sizes -------------------------------------------------------------------------------------------------- */

bool base_mul(size_t a, size_t b, size_t *out) {
    if (b != 0 && a > SIZE_MAX / b) return false;
    *out = a * b;
    return true;
}

bool base_add(size_t a, size_t b, size_t *out) {
    if (a > SIZE_MAX - b) return false;
    *out = a + b;
    return true;
}

bool base_count(const size_t *shape, int n, size_t unit, size_t *out) {
    size_t count = unit;
    for (int i = 0; i < n; i++)
        if (shape[i] == 0) {
            *out = 0;
            return true;
        }
    for (int i = 0; i < n; i++)
        if (!base_mul(count, shape[i], &count)) return false;
    *out = count;
    return true;
}

/* ---- sorting ------------------------------------------------------------------------------------------------- */

static void exchange(unsigned char *a, unsigned char *b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

/* Item `at` moves down the heap of the first n until none below it (2·at + 1, 2·at + 2) comes after it. */
static void sink(unsigned char *items, size_t at, size_t n, size_t size, int (*compare)(const void *, const void *)) {
    for (size_t below = 2 * at + 1; below < n; below = 2 * at + 1) {
        if (below + 1 < n && compare(items + below * size, items + (below + 1) * size) < 0) below++;
        if (compare(items + at * size, items + below * size) >= 0) return;
        exchange(items + at * size, items + below * size, size);
        at = below;
    }
}

void base_sort(void *items, size_t n, size_t size, int (*compare)(const void *a, const void *b)) {
    unsigned char *all = items;
    for (size_t i = n / 2; i > 0; i--) sink(all, i - 1, n, size, compare);
    for (size_t left = n; left > 1; left--) { /* the last of all goes behind the others */
        exchange(all, all + (left - 1) * size, size);
        sink(all, 0, left - 1, size, compare);
    }
}

/* ---- byte order --------------------------------------------------------------------------------------------- */

uint16_t base_le16(const void *p) {
    const unsigned char *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}

uint32_t base_le32(const void *p) {
    const unsigned char *b = p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t base_le64(const void *p) {
    return (uint64_t)base_le32(p) | (uint64_t)base_le32((const unsigned char *)p + 4) << 32;
}

uint16_t base_be16(const void *p) {
    const unsigned char *b = p;
    return (uint16_t)(b[0] << 8 | b[1]);
}

uint32_t base_be32(const void *p) {
    const unsigned char *b = p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | (uint32_t)b[3];
}

uint64_t base_be64(const void *p) {
    return (uint64_t)base_be32(p) << 32 | (uint64_t)base_be32((const unsigned char *)p + 4);
}

void base_put_le16(void *p, uint16_t v) {
    unsigned char *b = p;
    b[0] = (unsigned char)(v & 0xFFU);
    b[1] = (unsigned char)(v >> 8);
}

void base_put_le32(void *p, uint32_t v) {
    base_put_le16(p, (uint16_t)(v & 0xFFFFU));
    base_put_le16((unsigned char *)p + 2, (uint16_t)(v >> 16));
}

void base_put_le64(void *p, uint64_t v) {
    base_put_le32(p, (uint32_t)(v & 0xFFFFFFFFU));
    base_put_le32((unsigned char *)p + 4, (uint32_t)(v >> 32));
}

bool base_is_big_endian(void) {
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first == 0;
}

/* ---- half precision ----------------------------------------------------------------------------------------- */

float base_half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000U) << 16, exponent = (h >> 10) & 0x1FU, mantissa = h & 0x3FFU, bits;
    if (exponent == 31) {
        bits = sign | 0x7F800000U | mantissa << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else if (mantissa == 0) {
        bits = sign;
    } else { /* subnormal half: a normal float */
        exponent = 113;
        while ((mantissa & 0x400U) == 0) {
            mantissa <<= 1;
            exponent--;
        }
        bits = sign | exponent << 23 | (mantissa & 0x3FFU) << 13;
    }
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

uint16_t base_float_to_half(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000U);
    uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U) return (uint16_t)(sign | 0x7E00U);
    if (magnitude >= 0x477FF000U) return (uint16_t)(sign | 0x7C00U); /* 65520 and more round to infinity */
    if (magnitude < 0x33000000U) return sign;                        /* below 2^-25 rounds to zero */
    uint32_t exponent = magnitude >> 23, mantissa = (magnitude & 0x7FFFFFU) | 0x800000U;
    uint32_t drop = exponent < 113 ? 126 - exponent : 13; /* bits of the 24-bit mantissa that do not fit */
    uint32_t half = exponent < 113 ? mantissa >> drop : ((exponent - 112) << 10) + (mantissa >> 13) - 0x400U;
    uint32_t rest = mantissa & ((1U << drop) - 1U), tie = 1U << (drop - 1);
    if (rest > tie || (rest == tie && (half & 1U) != 0)) half++;
    return (uint16_t)(sign | half);
}

/* ---- text --------------------------------------------------------------------------------------------------- */

size_t base_utf8_length(const unsigned char *s) {
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
               : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
               : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                             : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF0 && s[1] < 0x90) ||
        (s[0] == 0xF4 && s[1] > 0x8F))
        return 0;
    return n;
}

/* ---- XXH64 -------------------------------------------------------------------------------------------------- */

static const uint64_t xxh_prime1 = 0x9E3779B185EBCA87U, xxh_prime2 = 0xC2B2AE3D27D4EB4FU,
                      xxh_prime3 = 0x165667B19E3779F9U, xxh_prime4 = 0x85EBCA77C2B2AE63U,
                      xxh_prime5 = 0x27D4EB2F165667C5U;

static uint64_t rotate_left(uint64_t v, int n) { return v << n | v >> (64 - n); }

static uint64_t xxh_round(uint64_t lane, uint64_t input) {
    return rotate_left(lane + input * xxh_prime2, 31) * xxh_prime1;
}

uint64_t base_xxh64(const void *data, size_t n, uint64_t seed) {
    const unsigned char *p = data;
    size_t left = n;
    uint64_t h;
    if (n >= 32) {
        uint64_t lane[4] = {seed + xxh_prime1 + xxh_prime2, seed + xxh_prime2, seed, seed - xxh_prime1};
        for (; left >= 32; left -= 32, p += 32)
            for (int i = 0; i < 4; i++) lane[i] = xxh_round(lane[i], base_le64(p + 8 * i));
        h = rotate_left(lane[0], 1) + rotate_left(lane[1], 7) + rotate_left(lane[2], 12) + rotate_left(lane[3], 18);
        for (int i = 0; i < 4; i++) h = (h ^ xxh_round(0, lane[i])) * xxh_prime1 + xxh_prime4;
    } else {
        h = seed + xxh_prime5;
    }
    h += (uint64_t)n;
    for (; left >= 8; left -= 8, p += 8) h = rotate_left(h ^ xxh_round(0, base_le64(p)), 27) * xxh_prime1 + xxh_prime4;
    for (; left >= 4; left -= 4, p += 4)
        h = rotate_left(h ^ (uint64_t)base_le32(p) * xxh_prime1, 23) * xxh_prime2 + xxh_prime3;
    for (; left > 0; left--, p++) h = rotate_left(h ^ *p * xxh_prime5, 11) * xxh_prime1;
    h = (h ^ h >> 33) * xxh_prime2;
    h = (h ^ h >> 29) * xxh_prime3;
    return h ^ h >> 32;
}
