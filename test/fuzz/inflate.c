#include "fuzz.h"

/* What inflates is deflated, and inflates to the same again. */
static void round_trip(const io_buffer *plain) {
    io_buffer packed = {0}, again = {0};
    segfm_error error = {0};
    size_t consumed = 0;
    if (io_deflate(plain->data, plain->size, &packed, &error) == SEGFM_OK) {
        fuzz_require(io_inflate(packed.data, packed.size, &consumed, &again, plain->size, &error) == SEGFM_OK);
        fuzz_require(consumed == packed.size && again.size == plain->size);
        fuzz_require(plain->size == 0 || memcmp(again.data, plain->data, plain->size) == 0);
    }
    io_buffer_free(&packed);
    io_buffer_free(&again);
}

FUZZ(inflate) {
    io_buffer out = {0};
    segfm_error error = {0};
    size_t consumed = 0;
    if (fuzz_took(io_inflate(bytes, n, &consumed, &out, FUZZ_MOST, &error), &error)) {
        fuzz_require(consumed <= n && out.size <= FUZZ_MOST);
        /* One in eight: deflate makes tables of a third of a megabyte anew, which takes ten times as long as what is looked
           at here. */
        if (out.size <= 1 << 14 && io_crc32(0, out.data, out.size) % 8 == 0) round_trip(&out);
    } else {
        fuzz_require(out.size == 0);
    }
    io_buffer_free(&out);
}
