/* Fuzz targets: one file a parser, each a function FUZZ(name) that gives it any bytes. For libFuzzer (make fuzz, make
   fuzz-smoke) each is a program; test/test_malformed.c takes them together, with inputs of its own.
   What a target demands of a parser, besides that it does no harm: a known status, and with each failure a sentence. */
#ifndef SEGFM_TEST_FUZZ_H
#define SEGFM_TEST_FUZZ_H

#include <stdlib.h>

#include "../../weights/weights.h"

#ifdef FUZZ_TOGETHER
#define FUZZ(name) static void fuzz_##name(const unsigned char *bytes, size_t n)
#else
#define FUZZ(name)                                                                                                     \
    static void fuzz_##name(const unsigned char *bytes, size_t n);                                                     \
    int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n);                                                  \
    int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n) {                                                 \
        fuzz_##name(bytes, n);                                                                                         \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static void fuzz_##name(const unsigned char *bytes, size_t n)
#endif

enum { FUZZ_MOST = 1 << 20 }; /* what a target asks for in one piece, in bytes or elements */

static size_t fuzz_taken; /* inputs that a parser took for good */

static inline void fuzz_require(bool holds) {
    if (!holds) abort();
}

/* The status of the parser: true when it took the input. */
static inline bool fuzz_took(segfm_status status, const segfm_error *error) {
    fuzz_taken += status == SEGFM_OK;
    if (status == SEGFM_OK) return true;
    fuzz_require(status == SEGFM_BAD_INPUT || status == SEGFM_NO_MEMORY);
    fuzz_require(error->status == status && error->message[0] != '\0');
    for (const char *c = error->message; *c != '\0'; c++) fuzz_require((unsigned char)*c >= 0x20 && *c != 0x7F);
    return false;
}

#endif
