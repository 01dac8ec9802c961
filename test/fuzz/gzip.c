#include "fuzz.h"

FUZZ(gzip) {
    io_buffer out = {0};
    segfm_error error = {0};
    (void)fuzz_took(io_gunzip(bytes, n, &out, FUZZ_MOST, &error), &error);
    fuzz_require(out.size <= FUZZ_MOST);
    io_buffer_free(&out);
}
