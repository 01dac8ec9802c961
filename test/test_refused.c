/* What the system refuses: each allocation of those who read and write fails once, then each with all that follow; each call
   on a file fails. The right status comes back with a sentence, nothing is kept of what was taken, and no file is left.
   Linked so that the library's calls come here (the Makefile's REFUSED), whatever watches over memory below. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../weights/weights.h"
#include "micro.h"
#include "test.h"

/* ---- refusing ------------------------------------------------------------------------------------------------ */

static size_t calls, refused_from, refused_to; /* which calls for memory fail */
static long held;                              /* pieces of memory */

void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);

/* Nobody has more than PTRDIFF_MAX bytes; a sanitizer would make a report of asking for them. */
static bool refuses(size_t n) {
    calls++;
    return n > PTRDIFF_MAX || (calls >= refused_from && calls < refused_to);
}

void *__wrap_malloc(size_t n) {
    void *p = refuses(n) ? NULL : __real_malloc(n);
    held += p != NULL;
    return p;
}

void *__wrap_calloc(size_t count, size_t n) {
    void *p = refuses(n) ? NULL : __real_calloc(count, n);
    held += p != NULL;
    return p;
}

void *__wrap_realloc(void *p, size_t n) {
    void *q = refuses(n) ? NULL : __real_realloc(p, n);
    held += p == NULL && q != NULL;
    return q;
}

void __wrap_free(void *p) {
    held -= p != NULL;
    __real_free(p);
}

static const char *refused_calls[2] = {"", ""}; /* on a file */
static int refused_reason;

#ifdef __has_attribute
#if __has_attribute(disable_sanitizer_instrumentation)
#define EARLY __attribute__((disable_sanitizer_instrumentation)) /* sanitizers call sysconf before they can watch */
#endif
#endif
#ifndef EARLY
#define EARLY
#endif

EARLY static bool is_refused(const char *call) {
    if (refused_calls[0][0] == '\0') return false;
    bool refused = strcmp(call, refused_calls[0]) == 0 || strcmp(call, refused_calls[1]) == 0;
    if (refused) errno = refused_reason;
    return refused;
}

/* result name(parameters), which fails with `failure` */
#define REFUSABLE(result, name, parameters, arguments, failure)                                                        \
    result __real_##name parameters;                                                                                   \
    result __wrap_##name parameters;                                                                                   \
    EARLY result __wrap_##name parameters { return is_refused(#name) ? (failure) : __real_##name arguments; }

REFUSABLE(int, stat, (const char *path, struct stat *st), (path, st), -1)
REFUSABLE(int, fstat, (int file, struct stat *st), (file, st), -1)
REFUSABLE(int, access, (const char *path, int mode), (path, mode), -1)
REFUSABLE(int, open, (const char *path, int flags), (path, flags), -1)
REFUSABLE(void *, mmap, (void *at, size_t n, int access, int flags, int file, off_t offset),
          (at, n, access, flags, file, offset), MAP_FAILED)
REFUSABLE(long, sysconf, (int name), (name), -1)
REFUSABLE(FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL)
REFUSABLE(int, ferror, (FILE * file), (file), 1)
REFUSABLE(size_t, fwrite, (const void *bytes, size_t n, size_t count, FILE *file), (bytes, n, count, file), 0)
REFUSABLE(int, fsync, (int file), (file), -1)
REFUSABLE(int, fclose, (FILE * file), (file), (__real_fclose(file), errno = refused_reason, EOF))

/* ---- files --------------------------------------------------------------------------------------------------- */

static char folder[512];

static const char *in_folder(const char *name) {
    static char path[600];
    base_format(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int files_in_folder(void) {
    int n = -2; /* . and .. */
    DIR *dir = opendir(folder);
    if (dir == NULL) return -1;
    while (readdir(dir) != NULL) n++;
    closedir(dir);
    return n;
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

/* Reads or writes something made of these bytes and frees all of it. */
typedef segfm_status scenario(const unsigned char *bytes, size_t n, segfm_error *error);

/* One run in which some of the calls for memory fail; false when it did not come to them. */
static bool refuse(scenario *run, const unsigned char *bytes, size_t n, size_t from, size_t to, const char *name) {
    segfm_error error = {0};
    long before = held;
    calls = 0, refused_from = from, refused_to = to;
    segfm_status status = run(bytes, n, &error);
    bool reached = calls >= from;
    refused_to = 0;
    bool said = error.status == SEGFM_NO_MEMORY && error.message[0] != '\0';
    /* one refusal may be got over: a buffer then asks for just what it needs */
    bool right = status == SEGFM_NO_MEMORY ? reached && said : status == SEGFM_OK && (!reached || to == from + 1);
    if (!CHECK(right && held == before))
        printf("    %s, calls %zu to %zu: status %d, '%s', %ld pieces kept\n", name, from, to, (int)status,
               error.message, held - before);
    return reached;
}

static void refuse_each(scenario *run, const unsigned char *bytes, size_t n, const char *name) {
    for (size_t at = 1; refuse(run, bytes, n, at, at + 1, name); at++) continue;
    for (size_t at = 1; refuse(run, bytes, n, at, SIZE_MAX, name); at++) continue;
}

/* … with each file of a folder of the corpus. */
static void refuse_corpus(scenario *run, const char *name) {
    char path[512];
    base_format(path, sizeof path, "test/fuzz/corpus/%s", name);
    DIR *dir = opendir(path);
    if (!CHECK(dir != NULL)) return;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        io_buffer file = {0};
        if (e->d_name[0] == '.') continue;
        base_format(path, sizeof path, "test/fuzz/corpus/%s/%s", name, e->d_name);
        if (CHECK(io_read_file(path, &file, NULL) == SEGFM_OK)) refuse_each(run, file.data, file.size, path);
        io_buffer_free(&file);
    }
    closedir(dir);
}

static segfm_status run_gunzip(const unsigned char *bytes, size_t n, segfm_error *error) {
    io_buffer out = {0};
    segfm_status status = io_gunzip(bytes, n, &out, SIZE_MAX, error);
    if (status != SEGFM_OK) CHECK(out.size == 0);
    io_buffer_free(&out);
    return status;
}

static segfm_status run_inflate(const unsigned char *bytes, size_t n, segfm_error *error) {
    io_buffer out = {0};
    size_t consumed;
    segfm_status status = io_inflate(bytes, n, &consumed, &out, SIZE_MAX, error);
    if (status != SEGFM_OK) CHECK(out.size == 0);
    io_buffer_free(&out);
    return status;
}

static segfm_status run_nifti(const unsigned char *bytes, size_t n, segfm_error *error) {
    io_nifti image;
    segfm_status status = io_nifti_parse(bytes, n, &image, error);
    io_nifti_free(&image);
    return status;
}

static segfm_status run_zip(const unsigned char *bytes, size_t n, segfm_error *error) {
    io_zip zip = {0};
    segfm_status status = io_zip_open(bytes, n, &zip, error);
    for (size_t i = 0; i < zip.count && status == SEGFM_OK; i++) {
        io_buffer out = {0};
        status = io_zip_read(&zip, &zip.entries[i], &out, error);
        io_buffer_free(&out);
    }
    io_zip_close(&zip);
    return status;
}

static segfm_status run_pickle(const unsigned char *bytes, size_t n, segfm_error *error) {
    io_pickle p = {0};
    segfm_status status = io_pickle_parse(bytes, n, &p, error);
    io_pickle_free(&p);
    return status;
}

static segfm_status run_safetensors(const unsigned char *bytes, size_t n, segfm_error *error) {
    weights_safetensor *tensors;
    size_t count;
    segfm_status status = weights_safetensors_parse(bytes, n, &tensors, &count, error);
    free(tensors);
    return status;
}

static segfm_status run_checkpoint(const unsigned char *bytes, size_t n, segfm_error *error) {
    static const weights_hints hints = {.spatial = {2, 4, 6}, .patch = {1, 2, 3}, .heads = 2, .decoder_heads = 1};
    weights_write_options options = {.variant = "seed", .provenance = "refused", .has = weights_checkpoint_has};
    weights_checkpoint *c = NULL;
    io_buffer out = {0};
    segfm_status status = weights_checkpoint_open(bytes, n, &hints, &c, error);
    if (status == SEGFM_OK)
        status = weights_write(weights_checkpoint_config(c), &options, weights_checkpoint_source, c,
                               weights_sink_buffer, &out, error);
    weights_checkpoint_close(c);
    io_buffer_free(&out);
    return status;
}

/* Out as a checkpoint, where halves are widened, and in again. */
static segfm_status run_weights(const unsigned char *bytes, size_t n, segfm_error *error) {
    weights_file w;
    io_buffer out = {0};
    segfm_status status = weights_open(bytes, n, &w, error);
    if (status == SEGFM_OK) status = weights_export(&w, weights_sink_buffer, &out, error);
    if (status == SEGFM_OK) status = run_checkpoint(out.data, out.size, error);
    weights_close(&w);
    io_buffer_free(&out);
    return status;
}

static segfm_status run_writers(const unsigned char *bytes, size_t n, segfm_error *error) {
    io_buffer out = {0};
    io_zip_writer w = {0};
    segfm_status status = io_gzip(bytes, n, &out, error);
    if (status != SEGFM_OK) CHECK(out.size == 0);
    if (status == SEGFM_OK) status = io_zlib(bytes, n, &out, error);
    if (status == SEGFM_OK) status = io_npy_write(&out, IO_U8, 1, (size_t[]){n}, bytes, error);
    if (status == SEGFM_OK) status = io_zip_add(&w, "added", bytes, n, error);
    if (status == SEGFM_OK) status = io_zip_add(&w, "short", bytes, 3, error);
    if (status == SEGFM_OK) status = io_zip_announce(&w, "announced", 0, 0, error);
    if (status == SEGFM_OK) status = io_zip_finish(&w, error);
    io_buffer_free(&out);
    io_zip_writer_free(&w);
    return status;
}

static segfm_status run_files(const unsigned char *bytes, size_t n, segfm_error *error) {
    static const unsigned char rgb[3 * 600];
    io_nifti image;
    io_buffer read = {0};
    int before = files_in_folder();
    segfm_status status = io_nifti_parse(bytes, n, &image, error);
    if (status == SEGFM_OK) status = io_nifti_write_like(in_folder("a.hdr.gz"), &image, IO_U8, bytes, error);
    if (status != SEGFM_OK) CHECK(files_in_folder() == before);
    if (status == SEGFM_OK) status = io_nifti_write_like(in_folder("b.nii"), &image, IO_U8, bytes, error);
    io_nifti_free(&image);
    if (status == SEGFM_OK) status = io_nifti_read(in_folder("a.img.gz"), &image, error), io_nifti_free(&image);
    if (status == SEGFM_OK) status = io_read_file(in_folder("b.nii"), &read, error);
    if (status == SEGFM_OK) status = io_png_write(in_folder("c.png"), 20, 30, rgb, error);
    io_buffer_free(&read);
    remove(in_folder("a.hdr.gz"));
    remove(in_folder("a.img.gz"));
    remove(in_folder("b.nii"));
    remove(in_folder("c.png"));
    CHECK(files_in_folder() == before);
    return status;
}

/* The first growth of what a pickle makes comes at its 64th object, item or place on the stack: `many` numbers before the
   pickle, loose or in a tuple, so that each of its opcodes comes to be the 64th. */
static void refuse_grown_pickles(const char *path) {
    io_buffer seed = {0}, grown = {0};
    if (!CHECK(io_read_file(path, &seed, NULL) == SEGFM_OK)) return;
    size_t begin = seed.data[0] == 0x80 ? 2 : 0;
    for (int many = 20; many < 64; many++)
        for (int tuple = 0; tuple < 2; tuple++) {
            grown.size = 0;
            segfm_status status = io_buffer_append(&grown, tuple ? "((" : "(", tuple ? 2 : 1, NULL);
            for (int i = 0; i < many && status == SEGFM_OK; i++) status = io_buffer_append(&grown, "K\7", 2, NULL);
            if (tuple && status == SEGFM_OK) status = io_buffer_append(&grown, "t", 1, NULL);
            if (status == SEGFM_OK) status = io_buffer_append(&grown, seed.data + begin, seed.size - begin - 1, NULL);
            if (status == SEGFM_OK) status = io_buffer_append(&grown, "t.", 2, NULL);
            if (CHECK(status == SEGFM_OK)) refuse_each(run_pickle, grown.data, grown.size, path);
        }
    io_buffer_free(&seed);
    io_buffer_free(&grown);
}

static void test_memory(void) {
    static unsigned char noise[5000];
    weights_write_options options = {.half = true, .variant = "seed", .provenance = "h\xC3\xA4lf"};
    io_buffer halves = {0}, image = {0};
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (unsigned char)(weights_uniform("noise", i) * 256);
    refuse_corpus(run_gunzip, "gzip");
    refuse_corpus(run_inflate, "inflate");
    refuse_corpus(run_nifti, "nifti");
    refuse_corpus(run_zip, "zip");
    refuse_corpus(run_pickle, "pickle");
    refuse_corpus(run_safetensors, "safetensors");
    refuse_corpus(run_checkpoint, "checkpoint");
    refuse_corpus(run_weights, "weights");
    CHECK(weights_write(&micro, &options, weights_formula_source, NULL, weights_sink_buffer, &halves, NULL) ==
          SEGFM_OK);
    refuse_each(run_weights, halves.data, halves.size, "half");
    refuse_each(run_writers, noise, sizeof noise, "noise");
    if (CHECK(io_read_file("test/fuzz/corpus/nifti/extension", &image, NULL) == SEGFM_OK))
        refuse_each(run_files, image.data, image.size, "files");
    refuse_grown_pickles("test/fuzz/corpus/pickle/boxes");
    refuse_grown_pickles("test/fuzz/corpus/pickle/protocol0");
    refuse_grown_pickles("test/fuzz/corpus/pickle/scalar");
    refuse_grown_pickles("test/fuzz/corpus/pickle/tensor");
    io_buffer_free(&halves);
    io_buffer_free(&image);
}

/* Sizes whose sum no machine can address, asked of buffers that say they are nearly that large. */
static void test_addresses(void) {
    segfm_error error = {0};
    io_buffer vast = {.size = SIZE_MAX - 10, .capacity = SIZE_MAX - 10};
    CHECK(io_buffer_append(&vast, "x", 100, &error) == SEGFM_NO_MEMORY && strstr(error.message, "cannot grow") != NULL);
    CHECK(io_buffer_reserve(&vast, SIZE_MAX, &error) == SEGFM_NO_MEMORY &&
          strstr(error.message, "found no memory") != NULL);
    CHECK(io_deflate((const unsigned char *)"xyz", 3, &vast, &error) == SEGFM_NO_MEMORY &&
          strstr(error.message, "cannot grow") != NULL && vast.size == SIZE_MAX - 10);
    io_zip_entry e = {.name = (char[]){"m"}, .method = 8, .size = 100};
    CHECK(io_zip_read(&(io_zip){0}, &e, &vast, &error) == SEGFM_NO_MEMORY &&
          strstr(error.message, "does not fit in memory") != NULL && vast.size == SIZE_MAX - 10);
    /* a NIfTI-2 header holds such dimensions */
    static const unsigned char voxel;
    io_nifti image;
    io_nifti_init(&image, 1, 1, 1, (double[]){1, 1, 1});
    image.version = 2;
    image.nx = image.ny = image.nz = INT64_MAX / 2;
    CHECK(io_nifti_write_like(in_folder("vast.nii"), &image, IO_U8, &voxel, &error) == SEGFM_NO_MEMORY &&
          strstr(error.message, "more voxels than can be addressed") != NULL);
    CHECK(io_png_write(in_folder("vast.png"), INT32_MAX, INT32_MAX, &voxel, &error) == SEGFM_NO_MEMORY);
    CHECK(files_in_folder() == 0);
}

/* ---- calls on files ------------------------------------------------------------------------------------------ */

static segfm_status read_it(const char *path, segfm_error *error) {
    io_buffer b = {0};
    segfm_status status = io_read_file(path, &b, error);
    CHECK(status == SEGFM_OK ? b.size == 4 && memcmp(b.data, "text", 4) == 0 : b.data == NULL);
    io_buffer_free(&b);
    return status;
}

static segfm_status map_it(const char *path, segfm_error *error) {
    io_mapping m;
    segfm_status status = io_map_file(path, &m, error);
    CHECK(status == SEGFM_OK ? m.size == 4 && memcmp(m.data, "text", 4) == 0 : m.data == NULL);
    io_unmap_file(&m);
    return status;
}

/* Gives the file back before it looks, which keeps the bytes where the size of a page is not known. */
static segfm_status release_it(const char *path, segfm_error *error) {
    io_mapping m;
    segfm_status status = io_map_file(path, &m, error);
    if (CHECK(status == SEGFM_OK)) io_release(&m, m.data, m.size);
    CHECK(m.mapped && memcmp(m.data, "text", 4) == 0);
    io_unmap_file(&m);
    return status;
}

static segfm_status write_it(const char *path, segfm_error *error) { return io_write_file(path, "text", 4, error); }

static segfm_status write_image(const char *path, segfm_error *error) {
    static const unsigned char voxel = 1;
    char name[700];
    io_nifti image;
    io_nifti_init(&image, 1, 1, 1, (double[]){1, 1, 1});
    base_format(name, sizeof name, "%s.nii.gz", path);
    segfm_status status = io_nifti_write_like(name, &image, IO_U8, &voxel, error);
    if (status == SEGFM_OK) remove(name);
    return status;
}

static void test_calls(void) {
    static const struct {
        const char *calls[2];
        int reason;
        segfm_status (*run)(const char *path, segfm_error *error);
        segfm_status status;
        const char *says;
    } cases[] = {
        {{"stat", ""}, EXDEV, read_it, SEGFM_BAD_INPUT, "cannot be opened: system error 18"},
        {{"stat", ""}, EACCES, write_it, SEGFM_WRITE_FAILED, "cannot be written: no permission"},
        {{"fopen", ""}, EMFILE, read_it, SEGFM_BAD_INPUT, "cannot be opened: too many open files"},
        {{"fopen", ""},
         EROFS,
         write_it,
         SEGFM_WRITE_FAILED,
         "no file can be made beside it: the file system is read-only"},
        {{"fopen", ""},
         EEXIST,
         write_it,
         SEGFM_WRITE_FAILED,
         "no file can be made beside it"}, /* a thousand names are taken */
        {{"ferror", ""}, EIO, read_it, SEGFM_BAD_INPUT, "cannot be read: the device failed"},
        {{"open", ""}, EMFILE, map_it, SEGFM_OK, ""}, /* what cannot be mapped is read */
        {{"fstat", ""}, EIO, map_it, SEGFM_OK, ""},
        {{"mmap", ""}, ENOMEM, map_it, SEGFM_OK, ""},
        {{"open", "fopen"}, EMFILE, map_it, SEGFM_BAD_INPUT, "cannot be opened: too many open files"},
        {{"sysconf", ""}, EINVAL, release_it, SEGFM_OK, ""},
        {{"access", ""}, EACCES, write_it, SEGFM_WRITE_FAILED, "exists and cannot be replaced: no permission"},
        {{"fwrite", ""}, ENOSPC, write_it, SEGFM_WRITE_FAILED, "cannot be written: the disk is full"},
        {{"fwrite", ""}, ENOSPC, write_image, SEGFM_WRITE_FAILED, "cannot be written: the disk is full"},
        {{"fsync", ""}, EIO, write_it, SEGFM_WRITE_FAILED, "cannot be written: the device failed"},
        {{"fsync", ""}, EINVAL, write_it, SEGFM_OK, ""}, /* a file system that has none */
        {{"fsync", "fclose"}, EIO, write_it, SEGFM_WRITE_FAILED, "cannot be written: the device failed"},
        {{"fclose", ""}, EDQUOT, write_it, SEGFM_WRITE_FAILED, "cannot be written: the disk quota is used up"},
    };
    const char *path = in_folder("file");
    CHECK(io_write_file(path, "text", 4, NULL) == SEGFM_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        segfm_error error = {0};
        memcpy(refused_calls, cases[i].calls, sizeof refused_calls);
        refused_reason = cases[i].reason;
        segfm_status status = cases[i].run(path, &error);
        refused_calls[0] = refused_calls[1] = "";
        bool right =
            status == cases[i].status && error.status == status && strstr(error.message, cases[i].says) != NULL;
        if (!CHECK(right && files_in_folder() == 1))
            printf("    %s, error %d: status %d, '%s'\n", cases[i].calls[0], cases[i].reason, (int)status,
                   error.message);
        CHECK(read_it(path, NULL) == SEGFM_OK);
    }
    remove(path);
}

int main(void) {
    const char *parent = getenv("TMPDIR");
    base_format(folder, sizeof folder, "%s/test_refused_XXXXXX", parent != NULL ? parent : ".");
    if (!CHECK(mkdtemp(folder) != NULL)) return test_summary();
    test_memory();
    test_addresses();
    test_calls();
    CHECK(rmdir(folder) == 0);
    return test_summary();
}
