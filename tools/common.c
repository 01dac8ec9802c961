#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools.h"

/* Where the default model may lie, seen from the program: beside it, installed, in the checkout, in a checkout's build or
   build/KIND. */
static const char *const default_places[] = {"default.segfm", "../share/segfm/default.segfm", "weights/default.segfm",
                                             "../weights/default.segfm", "../../weights/default.segfm"};

/* The program's folder with a slash; without /proc the current one. */
static void find_program(char *out, size_t capacity) {
    ssize_t length = readlink("/proc/self/exe", out, capacity - 1);
    out[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(out, '/');
    if (slash != NULL) slash[1] = '\0';
    else base_format(out, capacity, "./");
}

/* The default model's file. Where it is said to be, it need not be: then reading it tells. */
static segfm_status find_default(char *out, size_t capacity, segfm_error *error) {
    const char *said = getenv("SEGFM_WEIGHTS");
    char folder[4096];
    if (said != NULL && said[0] != '\0') {
        base_format(out, capacity, "%s", said);
        return SEGFM_OK;
    }
    find_program(folder, sizeof folder);
    for (size_t i = 0; i < sizeof default_places / sizeof default_places[0]; i++) {
        if (strlen(folder) + strlen(default_places[i]) >= capacity) continue;
        base_format(out, capacity, "%s%s", folder, default_places[i]);
        if (access(out, R_OK) == 0 || (errno != ENOENT && errno != ENOTDIR))
            return SEGFM_OK; /* reading it says why not */
    }
    return base_fail(error, SEGFM_BAD_USAGE,
                     "no weights: got no -w, and default.segfm is neither beside the program nor in ../share/segfm; "
                     "-w FILE or SEGFM_WEIGHTS=FILE says where they are");
}

segfm_status tool_formula_bytes(const weights_config *config, io_buffer *out, segfm_error *error) {
    weights_write_options options = {
        .variant = "upstream", .provenance = "pseudo-random weights by the formula of the golden tests; not trained"};
    return weights_write(config, &options, weights_formula_source, NULL, weights_sink_buffer, out, error);
}

segfm_status tool_weights_bytes(const char *path, tool_model *out, const unsigned char **bytes, size_t *size,
                                segfm_error *error) {
    static const char formula[] = "formula:";
    *out = (tool_model){0};
    if (strncmp(path, formula, sizeof formula - 1) == 0) {
        const weights_config *config = weights_named_config(path + sizeof formula - 1);
        if (config == NULL)
            return base_fail(error, SEGFM_BAD_USAGE, "model %s is unknown: there are formula:tiny and formula:full",
                             path);
        segfm_status status = tool_formula_bytes(config, &out->generated, error);
        *bytes = out->generated.data;
        *size = out->generated.size;
        if (status != SEGFM_OK) tool_model_close(out);
        return status;
    }
    segfm_status status = io_map_file(path, &out->mapping, error);
    *bytes = out->mapping.data;
    *size = out->mapping.size;
    return status;
}

void tool_bytes_done(void *user, const void *bytes, size_t n) {
    const tool_model *source = user;
    if (source != NULL) io_release(&source->mapping, bytes, n);
}

segfm_status tool_model_open(const char *path, const tool_common *common, bool clicks, tool_model *out,
                             segfm_error *error) {
    const unsigned char *bytes = NULL;
    size_t size = 0;
    char found[4096];
    segfm_status status = path == NULL ? find_default(found, sizeof found, error) : SEGFM_OK;
    *out = (tool_model){0};
    if (status != SEGFM_OK) return status;
    if (path == NULL) path = found;
    status = tool_weights_bytes(path, out, &bytes, &size, error);
    if (status != SEGFM_OK) return status;
    segfm_model_options options = segfm_model_options_default();
    options.threads = common->threads;
    options.done = tool_bytes_done;
    options.done_user = out;
    options.corrector = clicks;
    status = segfm_model_open(bytes, size, &options, &out->model, error);
    if (status != SEGFM_OK) {
        base_fail_where(error, status, path);
        tool_model_close(out);
        return status;
    }
    io_unmap_file(&out->mapping); /* the model has its own copy */
    io_buffer_free(&out->generated);
    if (clicks && !common->quiet && !segfm_model_has_corrector(out->model))
        fprintf(stderr, "segfm: %s has no corrector (GRU): clicks go through the decoder only\n", path);
    return SEGFM_OK;
}

void tool_model_close(tool_model *m) {
    segfm_model_close(m->model);
    io_unmap_file(&m->mapping);
    io_buffer_free(&m->generated);
    *m = (tool_model){0};
}

segfm_status tool_flush(segfm_error *error) {
    bool failed = ferror(stdout) != 0; /* earlier: what was lost then no later flush brings back */
    if (fflush(stdout) == 0 && !failed) return SEGFM_OK;
    return base_fail(error, SEGFM_WRITE_FAILED, "standard output could not be written");
}

double tool_milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

bool tool_progress(void *user, int64_t done, int64_t total) {
    (void)user;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%lld of %lld passes%s", (long long)done, (long long)total, done == total ? "\r\033[K" : "");
    return true;
}

segfm_status tool_make_folder(const char *path, segfm_error *error) {
    struct stat info;
    if (mkdir(path, 0777) == 0) return SEGFM_OK;
    if (errno == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return SEGFM_OK;
    return io_fail(error, SEGFM_WRITE_FAILED, path, "cannot be made a folder", errno);
}

segfm_status tool_path(char *out, size_t capacity, const char *folder, const char *name, segfm_error *error) {
    size_t length = strlen(folder);
    if (length + strlen(name) + 2 > capacity)
        return base_fail(error, SEGFM_BAD_USAGE, "path %s/%s is longer than %zu bytes", folder, name, capacity);
    base_format(out, capacity, "%s%s%s", folder, length > 0 && folder[length - 1] == '/' ? "" : "/", name);
    return SEGFM_OK;
}

bool tool_ends_with(const char *text, const char *suffix) {
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

bool tool_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

segfm_status tool_sibling(const char *path, char *out, size_t capacity, segfm_error *error) {
    size_t length = strlen(path);
    if (length >= capacity) return base_fail(error, SEGFM_BAD_USAGE, "output %s: the name is too long", path);
    memcpy(out, path, length + 1);
    if (tool_ends_with(path, ".hdr")) memcpy(out + length - 4, ".img", 4);
    else if (tool_ends_with(path, ".img")) memcpy(out + length - 4, ".hdr", 4);
    return SEGFM_OK;
}

segfm_status tool_keep_input(const char *input, const char *output, segfm_error *error) {
    char sibling[4096];
    if (input == NULL || output == NULL) return SEGFM_OK;
    segfm_status status = tool_sibling(output, sibling, sizeof sibling, error);
    if (status != SEGFM_OK || (!tool_same_file(input, output) && !tool_same_file(input, sibling))) return status;
    base_fail(error, SEGFM_BAD_USAGE, "the output would replace the input %s", input);
    return base_fail_where(error, SEGFM_BAD_USAGE, output);
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

segfm_status tool_names_add(tool_names *names, const char *name, segfm_error *error) {
    char *copy = strdup(name);
    char **more = copy == NULL ? NULL : realloc(names->items, (names->count + 1) * sizeof *more);
    if (more == NULL) {
        free(copy);
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a list of %zu names", names->count + 1);
    }
    names->items = more;
    names->items[names->count++] = copy;
    return SEGFM_OK;
}

segfm_status tool_list_folder(const char *folder, const char *suffix, tool_names *out, segfm_error *error) {
    *out = (tool_names){0};
    DIR *d = opendir(folder);
    if (d == NULL) return io_fail(error, SEGFM_BAD_INPUT, folder, "cannot be read as a folder", errno);
    segfm_status status = SEGFM_OK;
    while (status == SEGFM_OK) {
        errno = 0; /* what tells a folder that cannot be read further from its end */
        const struct dirent *e = readdir(d);
        if (e == NULL && errno != 0)
            status = io_fail(error, SEGFM_BAD_INPUT, folder, "cannot be read as a folder", errno);
        if (e == NULL) break;
        if (e->d_name[0] != '.' && tool_ends_with(e->d_name, suffix)) status = tool_names_add(out, e->d_name, error);
    }
    closedir(d);
    if (status != SEGFM_OK) tool_names_free(out);
    else if (out->count > 0) qsort(out->items, out->count, sizeof *out->items, by_bytes);
    return status;
}

void tool_names_free(tool_names *names) {
    for (size_t i = 0; i < names->count; i++) free(names->items[i]);
    free(names->items);
    *names = (tool_names){0};
}

segfm_status tool_check_nifti_name(const char *path, segfm_error *error) {
    if (path == NULL || tool_ends_with(path, ".nii") || tool_ends_with(path, ".nii.gz") ||
        tool_ends_with(path, ".hdr") || tool_ends_with(path, ".img"))
        return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_USAGE, "output %s: the name must end in .nii, .nii.gz, .hdr or .img", path);
}
