#include "fuzz.h"

/* A sound file is exported without complaint, a model that fits is opened. */
static void use(const weights_file *w) {
    io_buffer out = {0};
    segfm_error error = {0};
    fuzz_require(weights_export(w, weights_sink_buffer, &out, &error) == SEGFM_OK);
    io_buffer_free(&out);
}

FUZZ(weights) {
    weights_file w;
    segfm_error error = {0};
    if (fuzz_took(weights_open(bytes, n, &w, &error), &error)) {
        for (size_t i = 0; i < w.count; i++) {
            fuzz_require(weights_find(&w, w.tensors[i].name) == &w.tensors[i]);
            real *values = malloc(w.tensors[i].count * sizeof *values + 1);
            if (values != NULL) (void)weights_load(&w.tensors[i], values, &error);
            free(values);
        }
        if (weights_verify(&w, &error) == SEGFM_OK) use(&w);
    }
    weights_close(&w);
}
