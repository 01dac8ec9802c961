/* base: what every room stands on. Results, checked sizes, byte order, the precision `real`, hashing.
   No I/O, no allocation, no floating-point arithmetic that could round. */
#ifndef SEGFM_BASE_H
#define SEGFM_BASE_H

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "status.h"

/* One source, two precisions: `make` builds float, `make REAL=double` the yardstick. */
#ifdef SEGFM_REAL_DOUBLE
typedef double real;
#define REAL_C(x) x
#define REAL_NAME "double"
#else
typedef float real;
#define REAL_C(x) x##f
#define REAL_NAME "float"
#endif

#if defined(__FAST_MATH__)
#error "segfm's results are defined bit by bit: do not build it with -ffast-math"
#endif
#if !defined(SEGFM_REAL_DOUBLE) && FLT_EVAL_METHOD != 0
#error "a float must be computed as a float: on 32-bit x86 add -msse2 -mfpmath=sse, on s390x -fexcess-precision=fast"
#endif
#if !defined(SEGFM_REAL_DOUBLE) && defined(__clang__) && defined(__ARM_NEON) && !defined(__aarch64__)
#error "32-bit NEON, which clang vectorises for, flushes numbers below the normal range to zero: add -mfpu=vfpv3-d16"
#endif

/* A formatter without stdio: %s (NULL prints "(null)"), %d (int), %lld (long long), %llu (unsigned long long),
   %zu (size_t), %x (unsigned), %c and %% only. Writes at most capacity bytes, the terminator included; the rest is cut. */
void base_format(char *out, size_t capacity, const char *format, ...);

/* Fills *error (may be NULL) with a sentence formatted as by base_format, clears error->where, returns `status`. Control
   characters, which names from a file may hold, become question marks, here and in error->where: one sentence is one line. */
segfm_status base_fail(segfm_error *error, segfm_status status, const char *format, ...);
/* Names the file that an error is about, unless a deeper function has done so. Returns error->status. NULL error: the
   given status. */
segfm_status base_fail_where(segfm_error *error, segfm_status status, const char *where);

/* *out = a*b or a+b; false (and *out untouched) when the result does not fit. */
bool base_mul(size_t a, size_t b, size_t *out);
bool base_add(size_t a, size_t b, size_t *out);
/* *out = product of n dimensions times `unit`; false on overflow. A zero dimension gives 0. */
bool base_count(const size_t *shape, int n, size_t unit, size_t *out);

/* Sorts n items of `size` bytes in place as qsort does, but never allocates (C libraries' qsort may). compare: below 0 when a
   comes first. Heapsort: n·log n comparisons at worst; equal items come in any order. */
void base_sort(void *items, size_t n, size_t size, int (*compare)(const void *a, const void *b));

/* Little- and big-endian loads and stores at any alignment. */
uint16_t base_le16(const void *p);
uint32_t base_le32(const void *p);
uint64_t base_le64(const void *p);
uint16_t base_be16(const void *p);
uint32_t base_be32(const void *p);
uint64_t base_be64(const void *p);
void base_put_le16(void *p, uint16_t v);
void base_put_le32(void *p, uint32_t v);
void base_put_le64(void *p, uint64_t v);

/* True on a big-endian machine. */
bool base_is_big_endian(void);

/* IEEE half (binary16) ↔ float. The narrowing rounds to nearest even; NaN stays NaN. */
float base_half_to_float(uint16_t h);
uint16_t base_float_to_half(float f);
/* base_half_to_float for a finite h, without a branch, so that a loop of it becomes vectors. A subnormal half is made by
   an exact subtraction, not through a subnormal float: processors are slow with those, or told to make them zero. */
static inline float base_widen_half(uint16_t h) {
    const uint32_t smallest = 113U << 23; /* 2^-14, the smallest normal half */
    uint32_t shifted = (uint32_t)(h & 0x7FFFU) << 13, sign = (uint32_t)(h & 0x8000U) << 16;
    uint32_t is_normal = 0U - (uint32_t)((h & 0x7C00U) != 0), bits = shifted + smallest, one = smallest;
    float f, unit;
    memcpy(&f, &bits, 4);
    memcpy(&unit, &one, 4);
    f -= unit; /* a subnormal's value */
    memcpy(&bits, &f, 4);
    bits = (((shifted + (112U << 23)) & is_normal) | (bits & ~is_normal)) | sign;
    memcpy(&f, &bits, 4);
    return f;
}

/* How many bytes the UTF-8 sequence at s (of a terminated text) has; 0 when it is none. */
size_t base_utf8_length(const unsigned char *s);

/* XXH64 of n bytes. Source of the algorithm: the public xxHash specification (doc/xxhash_spec.md, XXH64). */
uint64_t base_xxh64(const void *data, size_t n, uint64_t seed);

#endif
