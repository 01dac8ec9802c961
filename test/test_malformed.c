/* What is almost right: every file of test/fuzz/corpus cut at every byte, and with every bit of its header flipped, given to
   the parsers by the functions that libFuzzer calls too. They return a status and do no harm, which the sanitizers and
   valgrind see to. (Whole files that are wrong in one way each: make malformed.) */
#define FUZZ_TOGETHER
#include "fuzz/challenge.c"
#include "fuzz/checkpoint.c"
#include "fuzz/config.c"
#include "fuzz/gzip.c"
#include "fuzz/inflate.c"
#include "fuzz/nifti.c"
#include "fuzz/npy.c"
#include "fuzz/pickle.c"
#include "fuzz/safetensors.c"
#include "fuzz/weights.c"
#include "fuzz/zip.c"
#include "test.h"

typedef void parser(const unsigned char *bytes, size_t n);

static const struct {
    const char *name;
    parser *parse;
    size_t header; /* bytes of a file whose bits are flipped */
} targets[] = {
    {"challenge", fuzz_challenge, 4096},
    {"checkpoint", fuzz_checkpoint, 1 << 16},
    {"config", fuzz_config, 4096},
    {"gzip", fuzz_gzip, 4096},
    {"inflate", fuzz_inflate, 4096},
    {"nifti", fuzz_nifti, 700},
    {"npy", fuzz_npy, 256},
    {"pickle", fuzz_pickle, 4096},
    {"safetensors", fuzz_safetensors, 4096},
    {"weights", fuzz_weights, 1 << 15},
    {"zip", fuzz_zip, 4096},
};
enum { TARGETS = sizeof targets / sizeof targets[0], LARGE = 4096 };

/* Memory of exactly n bytes, so that a sanitizer sees each byte too far. */
static void give(parser *parse, const unsigned char *bytes, size_t n) {
    unsigned char *copy = malloc(n + (n == 0));
    CHECK(copy != NULL);
    if (copy == NULL) return;
    if (n > 0) memcpy(copy, bytes, n);
    parse(copy, n);
    free(copy);
}

/* Large files: each `stride`-th place only, all of them with SEGFM_STRIDE=1. */
static size_t stride_of(size_t size) {
    const char *given = getenv("SEGFM_STRIDE");
    long stride = given != NULL ? strtol(given, NULL, 10) : 0;
    return size <= LARGE ? 1 : stride > 0 ? (size_t)stride : 97;
}

static void test_file(const char *path, parser *parse, size_t header) {
    io_buffer file = {0};
    segfm_error error = {0};
    if (!CHECK(io_read_file(path, &file, &error) == SEGFM_OK)) return;
    size_t stride = stride_of(file.size), before = fuzz_taken, tried = 0;
    give(parse, file.data, file.size);
    if (!CHECK(fuzz_taken > before)) printf("    %s is taken for bad\n", path); /* a seed is sound */
    for (size_t n = 0; n < file.size; n += stride, tried++) give(parse, file.data, n);
    for (size_t bit = 0; bit < 8 * file.size && bit < 8 * header; bit += stride, tried++) {
        file.data[bit / 8] ^= (unsigned char)(1U << bit % 8);
        give(parse, file.data, file.size);
        file.data[bit / 8] ^= (unsigned char)(1U << bit % 8);
    }
    test_passed += (int)tried; /* to have come here is to have passed them */
    io_buffer_free(&file);
}

static void test_target(const char *name, parser *parse, size_t header) {
    char folder[256], path[512];
    tool_names names = {0};
    segfm_error error = {0};
    base_format(folder, sizeof folder, "test/fuzz/corpus/%s", name);
    if (!CHECK(tool_list_folder(folder, "", &names, &error) == SEGFM_OK && names.count > 0)) return;
    for (size_t i = 0; i < names.count; i++) {
        base_format(path, sizeof path, "%s/%s", folder, names.items[i]);
        test_file(path, parse, header);
    }
    tool_names_free(&names);
}

int main(void) {
    for (size_t i = 0; i < TARGETS; i++) test_target(targets[i].name, targets[i].parse, targets[i].header);
    CHECK(remove(fuzz_path("case.npz")) == 0 && rmdir(fuzz_folder()) == 0);
    segfm_model_close(open_micro());
    return test_summary();
}
