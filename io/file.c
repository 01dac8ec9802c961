/* Files: read whole or mapped; written whole or not at all. POSIX where there is one (file kinds, permissions, mmap,
   fsync, an atomic rename), else plain C11 stdio, which can promise less: see replace_file. */
#if (defined(__unix__) || defined(__APPLE__)) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include "io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#define FILE_POSIX 1
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#else
#define FILE_POSIX 0
#endif

/* ---- errors -------------------------------------------------------------------------------------------------- */

/* Our own words for errno: strerror may share a buffer between threads and differs between systems. */
static const struct {
    int code;
    const char *text;
} reasons[] = {
#if FILE_POSIX
    {ENOENT, "it does not exist"},
    {ENOTDIR, "a part of its path is not a folder"},
    {EISDIR, "it is a folder"},
    {EACCES, "no permission"},
    {EPERM, "no permission"},
    {EROFS, "the file system is read-only"},
    {ENOSPC, "the disk is full"},
    {EDQUOT, "the disk quota is used up"},
    {EFBIG, "the file would be too large"},
    {EIO, "the device failed"},
    {EINTR, "it was interrupted"},
    {ENAMETOOLONG, "the name is too long"},
    {ELOOP, "too many symbolic links"},
    {EMFILE, "too many open files"},
    {ENFILE, "too many open files"},
    {ENOMEM, "out of memory"},
#endif
    {0, "no reason given by the system"},
};

segfm_status io_fail(segfm_error *error, segfm_status status, const char *path, const char *what, int code) {
    const char *text = NULL;
    if (code == ENOMEM) status = SEGFM_NO_MEMORY; /* libc had none for a stream: no fault of the file */
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].code == code) text = reasons[i].text;
    if (text != NULL) base_fail(error, status, "%s: %s", what, text);
    else base_fail(error, status, "%s: system error %d", what, code);
    return base_fail_where(error, status, path);
}

static segfm_status fail_plain(segfm_error *error, segfm_status status, const char *path, const char *message) {
    base_fail(error, status, "%s", message);
    return base_fail_where(error, status, path);
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* Refuses what is not a regular file before it is opened: opening a pipe waits for its other end. *size is what the
   system says, 0 where it does not know (or for files that are made while they are read, as in /proc). */
static segfm_status check_regular(const char *path, size_t *size, segfm_error *error) {
    *size = 0;
#if FILE_POSIX
    struct stat st;
    if (stat(path, &st) != 0) return io_fail(error, SEGFM_BAD_INPUT, path, "cannot be opened", errno);
    if (S_ISDIR(st.st_mode)) return fail_plain(error, SEGFM_BAD_INPUT, path, "is a folder, need a file");
    if (!S_ISREG(st.st_mode))
        return fail_plain(error, SEGFM_BAD_INPUT, path, "is a device or pipe, need a regular file");
    if (st.st_size > 0) /* one larger than this machine's addresses: no memory will be found */
        *size = (uintmax_t)st.st_size < SIZE_MAX ? (size_t)st.st_size : SIZE_MAX - 1;
#else
    (void)path, (void)error;
#endif
    return SEGFM_OK;
}

/* Reads to the end; `hint` is the expected size, but a file may grow or shrink while it is read. */
static segfm_status read_stream(FILE *file, const char *path, size_t hint, io_buffer *out, segfm_error *error) {
    size_t want = hint + 1; /* one byte more, so that the end is seen without growing */
    for (;;) {
        segfm_status status = io_buffer_reserve(out, want, error);
        if (status != SEGFM_OK) return base_fail_where(error, status, path);
        out->size += fread(out->data + out->size, 1, out->capacity - out->size, file);
        if (ferror(file)) return io_fail(error, SEGFM_BAD_INPUT, path, "cannot be read", errno);
        if (out->size < out->capacity) return SEGFM_OK;
        if (!base_mul(out->capacity, 2, &want)) return fail_plain(error, SEGFM_NO_MEMORY, path, "is too large");
        if (want < 65536) want = 65536;
    }
}

segfm_status io_read_file(const char *path, io_buffer *out, segfm_error *error) {
    size_t hint;
    segfm_status status = check_regular(path, &hint, error);
    if (status != SEGFM_OK) return status;
    errno = 0;
    FILE *file = fopen(path, "rb");
    if (file == NULL) return io_fail(error, SEGFM_BAD_INPUT, path, "cannot be opened", errno);
    status = read_stream(file, path, hint, out, error);
    fclose(file); /* nothing was written: its result says nothing */
    if (status != SEGFM_OK) io_buffer_free(out);
    return status;
}

#if FILE_POSIX
/* Maps a file of known size; false where the system cannot. */
static bool map_bytes(const char *path, size_t size, io_mapping *out) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    struct stat st; /* again, of what was opened: reading a map past the file's end kills the process */
    void *bytes = MAP_FAILED;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= 0 && (uintmax_t)st.st_size == size)
        bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) close(fd);
    else *out = (io_mapping){bytes, size, true, fd};
    return bytes != MAP_FAILED;
}
#endif

segfm_status io_map_file(const char *path, io_mapping *out, segfm_error *error) {
    *out = (io_mapping){0};
#if FILE_POSIX
    size_t size;
    segfm_status checked = check_regular(path, &size, error);
    if (checked != SEGFM_OK) return checked;
    if (size > 0 && map_bytes(path, size, out)) return SEGFM_OK;
#endif
    io_buffer whole = {0}; /* reading also says what is wrong with a file that could not be mapped */
    segfm_status status = io_read_file(path, &whole, error);
    if (status == SEGFM_OK) *out = (io_mapping){.data = whole.data, .size = whole.size};
    return status;
}

/* The pages are mapped anew, without access: that drops them as munmap would, but the addresses stay ours until
   io_unmap_file, and a read after all is caught. */
void io_release(const io_mapping *m, const void *bytes, size_t n) {
#if FILE_POSIX
    long page_size = sysconf(_SC_PAGESIZE);
    if (!m->mapped || page_size < 1) return;
    size_t page = (size_t)page_size, begin = (size_t)((const unsigned char *)bytes - m->data);
    size_t end = begin + n == m->size ? m->size : (begin + n) / page * page;
    begin = (begin + page - 1) / page * page;
    if (begin < end)
        (void)mmap((unsigned char *)m->data + begin, end - begin, PROT_NONE, MAP_PRIVATE | MAP_FIXED, m->file,
                   (off_t)begin); /* a failure keeps the memory, and no more */
#else
    (void)m, (void)bytes, (void)n;
#endif
}

void io_unmap_file(io_mapping *m) {
    if (m->mapped) {
#if FILE_POSIX
        munmap((void *)m->data, m->size);
        close(m->file);
#endif
    } else {
        io_buffer whole = {(unsigned char *)m->data, m->size, m->size};
        io_buffer_free(&whole);
    }
    *m = (io_mapping){0};
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

struct io_output {
    FILE *file;
    char *path, *temporary;
    bool failed;
};

/* Refuses targets that a rename would damage (running as root, "/dev/null" would become a plain file) or could not
   replace, before any work is done. A symbolic link will itself be replaced. An existing file's permission bits go to
   *mode, else it stays as it is. */
static segfm_status check_target(const char *path, unsigned *mode, segfm_error *error) {
    if (path[0] == '\0') return fail_plain(error, SEGFM_WRITE_FAILED, path, "cannot be written: its name is empty");
#if FILE_POSIX
    struct stat st;
    if (stat(path, &st) != 0) {
        if (errno == ENOENT) return SEGFM_OK;
        return io_fail(error, SEGFM_WRITE_FAILED, path, "cannot be written", errno);
    }
    if (S_ISDIR(st.st_mode)) return fail_plain(error, SEGFM_WRITE_FAILED, path, "is a folder, cannot be replaced");
    if (!S_ISREG(st.st_mode))
        return fail_plain(error, SEGFM_WRITE_FAILED, path, "is a device or pipe, need a regular file or none");
    if (access(path, W_OK) != 0)
        return io_fail(error, SEGFM_WRITE_FAILED, path, "exists and cannot be replaced", errno);
    *mode = (unsigned)st.st_mode & 0777U;
#else
    (void)mode;
#endif
    return SEGFM_OK;
}

/* Length of the folder part of a path, its separator included. */
static size_t folder_length(const char *path) {
    size_t n = 0;
    for (size_t i = 0; path[i] != '\0'; i++)
        if (path[i] == '/' || (!FILE_POSIX && path[i] == '\\')) n = i + 1;
    return n;
}

/* Creates a file that did not exist ("x": O_EXCL) in the target's folder: a rename works only within one file system.
   The name is short and of our own, so that a target whose name is as long as names may be has one too. */
static FILE *create_temporary(const char *path, char *name, size_t capacity) {
    unsigned long process = 0;
#if FILE_POSIX
    process = (unsigned long)getpid();
#endif
    size_t folder = folder_length(path);
    memcpy(name, path, folder);
    for (int attempt = 0; attempt < 1000; attempt++) { /* taken by other threads, or left by a killed process */
        snprintf(name + folder, capacity - folder, ".segfm-%lu-%d.tmp", process, attempt);
        errno = 0;
        FILE *file = fopen(name, "wbx");
        if (file != NULL) return file;
#if FILE_POSIX
        if (errno != EEXIST) return NULL;
#endif
    }
    return NULL;
}

static void output_free(io_output *o) {
    free(o->path);
    free(o->temporary);
    free(o);
}

static io_output *output_allocate(const char *path, size_t *name_capacity) {
    size_t length = strlen(path);
    io_output *o = calloc(1, sizeof *o);
    if (o == NULL) return NULL;
    *name_capacity = folder_length(path) + 64; /* ".segfm-", two numbers, ".tmp" and the terminator */
    o->path = malloc(length + 1);
    o->temporary = malloc(*name_capacity);
    if (o->path == NULL || o->temporary == NULL) {
        output_free(o);
        return NULL;
    }
    memcpy(o->path, path, length + 1);
    return o;
}

segfm_status io_output_open(const char *path, io_output **out, segfm_error *error) {
    *out = NULL;
    unsigned mode = 0;
    segfm_status status = check_target(path, &mode, error);
    if (status != SEGFM_OK) return status;
    size_t capacity;
    io_output *o = output_allocate(path, &capacity);
    if (o == NULL) return fail_plain(error, SEGFM_NO_MEMORY, path, "out of memory while opening it for writing");
    o->file = create_temporary(path, o->temporary, capacity);
    if (o->file == NULL) {
        int code = errno;
        output_free(o);
#if FILE_POSIX
        if (code == ENOENT)
            return fail_plain(error, SEGFM_WRITE_FAILED, path, "cannot be written: its folder does not exist");
#endif
        return io_fail(error, SEGFM_WRITE_FAILED, path, "cannot be written: no file can be made beside it", code);
    }
#if FILE_POSIX
    /* A file that was private stays private. Where permissions cannot be set (FAT), there are none to keep. */
    if (mode != 0) (void)fchmod(fileno(o->file), (mode_t)mode);
#endif
    *out = o;
    return SEGFM_OK;
}

segfm_status io_output_write(io_output *o, const void *bytes, size_t n, segfm_error *error) {
    if (o->failed) return fail_plain(error, SEGFM_WRITE_FAILED, o->path, "cannot be written: an earlier write failed");
    if (n == 0) return SEGFM_OK;
    errno = 0;
    if (fwrite(bytes, 1, n, o->file) == n) return SEGFM_OK;
    o->failed = true;
    return io_fail(error, SEGFM_WRITE_FAILED, o->path, "cannot be written", errno);
}

/* Hands the bytes to the device, so that after a power cut the new name never stands for an empty file. */
static bool sync_file(FILE *file) {
    if (fflush(file) != 0) return false;
#if FILE_POSIX
    if (fsync(fileno(file)) != 0 && errno != EINVAL) return false; /* EINVAL: this kind of file system has no sync */
#endif
    return true;
}

static bool replace_file(const char *from, const char *to) {
#if !FILE_POSIX
    remove(to); /* ISO C's rename may refuse an existing target: here replacing is two steps */
#endif
    return rename(from, to) == 0;
}

/* Flushes, closes and renames. On failure *what names the step and *code is its errno. */
static bool finish(io_output *o, const char **what, int *code) {
    errno = 0;
    *what = "cannot be written";
    bool ok = sync_file(o->file);
    *code = errno;
    if (fclose(o->file) != 0 && ok) {
        ok = false;
        *code = errno;
    }
    if (!ok || replace_file(o->temporary, o->path)) return ok;
    *code = errno;
    *what = "the finished file cannot be given its name";
    return false;
}

segfm_status io_output_commit(io_output *o, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    const char *what;
    int code;
    if (o->failed) {
        status = fail_plain(error, SEGFM_WRITE_FAILED, o->path, "cannot be written: an earlier write failed");
        fclose(o->file);
    } else if (!finish(o, &what, &code)) {
        status = io_fail(error, SEGFM_WRITE_FAILED, o->path, what, code);
    }
    if (status != SEGFM_OK) remove(o->temporary);
    output_free(o);
    return status;
}

void io_output_abort(io_output *o) {
    if (o == NULL) return;
    fclose(o->file);
    remove(o->temporary);
    output_free(o);
}

segfm_status io_write_file(const char *path, const void *bytes, size_t n, segfm_error *error) {
    io_output *o;
    segfm_status status = io_output_open(path, &o, error);
    if (status != SEGFM_OK) return status;
    status = io_output_write(o, bytes, n, error);
    if (status != SEGFM_OK) {
        io_output_abort(o);
        return status;
    }
    return io_output_commit(o, error);
}
