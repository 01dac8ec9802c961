#include "fuzz.h"

static void convert(const io_array *a) {
    float *narrow = malloc(a->count * sizeof *narrow + 1);
    double *wide = malloc(a->count * sizeof *wide + 1);
    int64_t *whole = malloc(a->count * sizeof *whole + 1);
    segfm_error error = {0};
    if (narrow != NULL && wide != NULL && whole != NULL) {
        io_array_to_f32(a, narrow);
        io_array_to_f64(a, wide);
        (void)io_array_to_i64(a, whole, &error);
    }
    free(narrow);
    free(wide);
    free(whole);
}

FUZZ(npy) {
    io_array a = {0};
    segfm_error error = {0};
    if (fuzz_took(io_npy_parse(bytes, n, &a, &error), &error) && a.dtype != IO_OBJECT) convert(&a);
    if (fuzz_took(io_npy_parse_texts(bytes, n, &a, &error), &error) && a.dtype == IO_TEXT)
        for (size_t i = 0; i < a.count && i < 100 && a.bytes > 0; i++) (void)io_array_is_text(&a, i, "fg");
}
