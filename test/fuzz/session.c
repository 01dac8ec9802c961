/* Commands as `segfm session` reads them, in a folder with a scan that can be opened: scan.nii. */
#include <fcntl.h>

#include "model.h"

static void begin(void) {
    static const double spacing[3] = {0.75, 1, 1.25};
    unsigned char voxels[4 * 5 * 6];
    io_nifti scan;
    io_buffer weights = {0};
    segfm_error error = {0};
    fuzz_micro(&weights);
    (void)fuzz_file("micro.segfm", weights.data, weights.size);
    io_buffer_free(&weights);
    for (size_t i = 0; i < sizeof voxels; i++) voxels[i] = (unsigned char)(i * 37 % 101);
    io_nifti_init(&scan, 6, 5, 4, spacing);
    fuzz_require(io_nifti_write_like(fuzz_path("scan.nii"), &scan, IO_U8, voxels, &error) == SEGFM_OK);
    io_nifti_free(&scan);
    fuzz_require(freopen("/dev/null", "wb", stdout) != NULL);
}

/* A stream that would leave the folder is none for us; nor is one that would take all day. */
static bool is_ours(const unsigned char *bytes, size_t n) {
    size_t lines = 0;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '/') return false;
        lines += bytes[i] == '\n';
    }
    return lines < 64;
}

FUZZ(session) {
    static bool begun;
    static int here; /* libFuzzer reads its corpus by relative names */
    char *arguments[] = {"session", "-w", "micro.segfm", "--threads", "1", "--quiet", NULL};
    segfm_error error = {0};
    if (!is_ours(bytes, n)) return;
    if (!begun) {
        begin();
        here = open(".", O_RDONLY);
    }
    begun = true;
    fuzz_require(freopen(fuzz_file("commands", bytes, n), "rb", stdin) != NULL);
    fuzz_require(chdir(fuzz_folder()) == 0);
    fuzz_require(command_session(6, arguments, &error) == SEGFM_OK);
    fuzz_require(fchdir(here) == 0);
}
