/* Commands as `segfm session` reads them, in a folder with a scan that can be opened: scan.nii. */
#include <fcntl.h>

#include "model.h"

/* The model is read once: it is the same for all. */
static segfm_model *begin(void) {
    static const double spacing[3] = {0.75, 1, 1.25};
    unsigned char voxels[3 * 4 * 6];
    io_nifti scan;
    io_buffer weights = {0};
    segfm_model *model = NULL;
    segfm_error error = {0};
    weights_config config = micro; /* commands are what is tried here: one patch a window, one block */
    memcpy(config.patch, config.spatial, sizeof config.patch);
    config.depth = 1;
    fuzz_require(tool_formula_bytes(&config, &weights, &error) == SEGFM_OK);
    fuzz_require(segfm_model_open(weights.data, weights.size, NULL, &model, &error) == SEGFM_OK);
    io_buffer_free(&weights);
    for (size_t i = 0; i < sizeof voxels; i++) voxels[i] = (unsigned char)(i * 37 % 101);
    io_nifti_init(&scan, 6, 4, 3, spacing);
    fuzz_require(io_nifti_write_like(fuzz_path("scan.nii"), &scan, IO_U8, voxels, &error) == SEGFM_OK);
    io_nifti_free(&scan);
    fuzz_require(freopen("/dev/null", "wb", stdout) != NULL);
    return model;
}

enum { MAX_LEN = 128 }; /* bytes of an input, says fuzz.sh to libFuzzer: a dozen commands */

/* A stream that would leave the folder is none for us; nor is one that would take all day. */
static bool is_ours(const unsigned char *bytes, size_t n) {
    size_t lines = 0;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '/') return false;
        lines += bytes[i] == '\n';
    }
    return lines < 32 && n <= MAX_LEN;
}

/* They become all that standard input has. One file serves every input, as opening one takes longer than reading it. */
static void say(const unsigned char *bytes, size_t n) {
    static int file = -1;
    if (file < 0) {
        file = open(fuzz_file("commands", bytes, n), O_WRONLY);
        fuzz_require(file >= 0 && freopen(fuzz_path("commands"), "rb", stdin) != NULL);
    }
    while (getchar() != EOF) continue; /* what stands behind a quit, else still in the stream's memory */
    clearerr(stdin);
    fuzz_require(pwrite(file, bytes, n, 0) == (ssize_t)n && ftruncate(file, (off_t)n) == 0);
    fuzz_require(lseek(fileno(stdin), 0, SEEK_SET) == 0);
}

FUZZ(session) {
    static segfm_model *model;
    static int here; /* libFuzzer reads its corpus by relative names */
    segfm_options options = segfm_options_default();
    segfm_error error = {0};
    options.threads = 1;
    options.keep_objects = true;
    options.max_clicks = 2; /* so that inputs reach the end of what there is room for, which is also sooner made */
    options.cache_bytes = 1 << 10;
    if (!is_ours(bytes, n)) return;
    if (model == NULL) {
        model = begin();
        here = open(".", O_RDONLY);
    }
    say(bytes, n);
    fuzz_require(chdir(fuzz_folder()) == 0);
    fuzz_require(tool_session(model, &options, &error) == SEGFM_OK);
    fuzz_require(fchdir(here) == 0);
}
