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

/* A copy of an archive in which stored members with such a name have the checksums of what they hold: else hardly an input would
   be read farther than those. Wrong ones are for the target zip. NULL: no archive. */
static inline unsigned char *fuzz_mended(const unsigned char *bytes, size_t n, const char *suffix) {
    enum { LOCAL = 0x04034B50, CENTRAL = 0x02014B50 }; /* headers; their checksums stand 14 and 16 bytes behind */
    io_zip zip;
    segfm_error error = {0};
    if (io_zip_open(bytes, n, &zip, &error) != SEGFM_OK) return NULL;
    unsigned char *mended = malloc(n);
    if (mended != NULL) memcpy(mended, bytes, n);
    for (size_t i = 0; mended != NULL && i < zip.count; i++) {
        const io_zip_entry *e = &zip.entries[i];
        size_t length = strlen(e->name), tail = strlen(suffix);
        if (e->method != 0 || length < tail || strcmp(e->name + length - tail, suffix) != 0) continue;
        uint32_t crc = io_crc32(0, bytes + e->data_offset, (size_t)e->compressed_size);
        for (size_t at = 0; crc != e->crc && at + 20 <= n; at++) {
            uint32_t head = base_le32(bytes + at);
            size_t to = at + (head == LOCAL ? 14 : 16);
            if ((head == LOCAL || head == CENTRAL) && base_le32(bytes + to) == e->crc) base_put_le32(mended + to, crc);
        }
    }
    io_zip_close(&zip);
    return mended;
}

#endif
