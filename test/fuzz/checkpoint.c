#include "fuzz.h"

/* What can be opened can be written, but for values that are not finite, and is then a weights file. */
static void convert_to_weights(weights_checkpoint *c) {
    io_buffer out = {0};
    weights_file w;
    segfm_error error = {0};
    weights_write_options options = {.variant = "seed", .provenance = "fuzz", .has = weights_checkpoint_has};
    segfm_status status = weights_write(weights_checkpoint_config(c), &options, weights_checkpoint_source, c,
                                        weights_sink_buffer, &out, &error);
    if (fuzz_took(status, &error)) {
        fuzz_require(weights_open(out.data, out.size, &w, &error) == SEGFM_OK);
        fuzz_require(weights_verify(&w, &error) == SEGFM_OK);
        weights_close(&w);
    }
    io_buffer_free(&out);
}

FUZZ(checkpoint) {
    static const weights_hints hints = {.spatial = {2, 4, 6}, .patch = {1, 2, 3}, .heads = 2, .decoder_heads = 1};
    weights_checkpoint *c = NULL;
    segfm_error error = {0};
    unsigned char *mended = io_is_zip(bytes, n) ? fuzz_mended(bytes, n, ".pkl") : NULL;
    if (mended != NULL) bytes = mended;
    if (fuzz_took(weights_checkpoint_open(bytes, n, &hints, &c, &error), &error)) convert_to_weights(c);
    else fuzz_require(c == NULL);
    weights_checkpoint_close(c);
    free(mended);
}
