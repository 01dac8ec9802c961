/* The smallest model of the formula, and a scratch folder, for targets that need them. */
#ifndef SEGFM_TEST_FUZZ_MODEL_H
#define SEGFM_TEST_FUZZ_MODEL_H

#include <stdio.h>
#include <unistd.h>

#include "../../tools/tools.h"
#include "../micro.h"
#include "fuzz.h"

/* The folder's path, which ends in a slash; made at the first call. */
static inline const char *fuzz_folder(void) {
    static char folder[1024];
    const char *scratch = getenv("TMPDIR");
    if (folder[0] != '\0') return folder;
    snprintf(folder, sizeof folder - 1, "%s/segfm-fuzz-XXXXXX", scratch != NULL ? scratch : "/tmp");
    fuzz_require(mkdtemp(folder) != NULL);
    folder[strlen(folder)] = '/';
    return folder;
}

static inline const char *fuzz_path(const char *name) {
    static char path[1200];
    snprintf(path, sizeof path, "%s%s", fuzz_folder(), name);
    return path;
}

/* Makes the file and returns its path. */
static inline const char *fuzz_file(const char *name, const void *bytes, size_t n) {
    const char *path = fuzz_path(name);
    FILE *file = fopen(path, "wb");
    if (file == NULL) abort();
    bool written = fwrite(bytes, 1, n, file) == n, closed = fclose(file) == 0;
    fuzz_require(written && closed);
    return path;
}

static inline void fuzz_micro(io_buffer *out) {
    segfm_error error = {0};
    fuzz_require(tool_formula_bytes(&micro, out, &error) == SEGFM_OK);
}

#endif
