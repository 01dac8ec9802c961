/* Files: read, mapped, written whole or not at all, and what is said when that cannot be. */
#include "../io/io.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A fresh folder for the test's files. At the end rmdir succeeds only when nothing was left behind. */
static char folder[512], path_memory[4][1024];

static void make_folder(void) {
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/test_file_XXXXXX", parent != NULL ? parent : ".");
    if (!CHECK(mkdtemp(folder) != NULL)) exit(test_summary());
}

static const char *in_folder(int slot, const char *name) {
    snprintf(path_memory[slot], sizeof path_memory[slot], "%s/%s", folder, name);
    return path_memory[slot];
}

static int files_in_folder(void) {
    int n = 0;
    DIR *dir = opendir(folder);
    if (dir == NULL) return -1;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        n += e->d_name[0] != '.' || strlen(e->d_name) > 2;
    closedir(dir);
    return n;
}

static void fill(unsigned char *bytes, size_t n) {
    uint32_t state = 12345;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525U + 1013904223U;
        bytes[i] = (unsigned char)(state >> 24);
    }
}

static bool holds(const char *path, const void *bytes, size_t n) {
    io_buffer b = {0};
    bool same = io_read_file(path, &b, NULL) == SEGFM_OK && b.size == n && (n == 0 || memcmp(b.data, bytes, n) == 0);
    io_buffer_free(&b);
    return same;
}

static bool says(const segfm_error *e, segfm_status status, const char *path, const char *text) {
    bool ok = e->status == status && strcmp(e->where, path) == 0 && strstr(e->message, text) != NULL;
    if (!ok) printf("    status %d, where \"%s\", message \"%s\"\n", (int)e->status, e->where, e->message);
    return ok;
}

static void test_write_and_read(void) {
    static unsigned char bytes[300001];
    static const size_t sizes[] = {0, 1, 2, 4095, 4096, 4097, 65535, 65536, 65537, sizeof bytes};
    const char *path = in_folder(0, "bytes.bin");
    fill(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        segfm_error e = {0};
        CHECK(io_write_file(path, bytes, sizes[i], &e) == SEGFM_OK);
        CHECK(holds(path, bytes, sizes[i]));
        io_mapping m;
        CHECK(io_map_file(path, &m, &e) == SEGFM_OK);
        CHECK(m.size == sizes[i] && (sizes[i] == 0 || memcmp(m.data, bytes, sizes[i]) == 0));
        io_unmap_file(&m);
        CHECK(m.data == NULL && m.size == 0 && !m.mapped);
        CHECK(e.status == SEGFM_OK && e.message[0] == '\0'); /* success leaves the struct alone */
    }
    CHECK(files_in_folder() == 1);
    remove(path);
}

static void test_pieces(void) {
    unsigned char bytes[1000];
    const char *path = in_folder(0, "pieces.bin");
    fill(bytes, sizeof bytes);
    io_output *o;
    CHECK(io_output_open(path, &o, NULL) == SEGFM_OK);
    for (size_t at = 0, n = 0; at < sizeof bytes; at += n) {
        n = (at * 7 + 3) % 40;
        if (n > sizeof bytes - at) n = sizeof bytes - at;
        CHECK(io_output_write(o, bytes + at, n, NULL) == SEGFM_OK);
        if (n == 0) n = 1, CHECK(io_output_write(o, bytes + at, 1, NULL) == SEGFM_OK);
    }
    CHECK(access(path, F_OK) != 0); /* not before it is whole */
    CHECK(io_output_commit(o, NULL) == SEGFM_OK);
    CHECK(holds(path, bytes, sizeof bytes));
    CHECK(files_in_folder() == 1);
    remove(path);
}

static void test_abort_keeps_target(void) {
    const char *path = in_folder(0, "kept.bin");
    CHECK(io_write_file(path, "old", 3, NULL) == SEGFM_OK);
    io_output *o;
    CHECK(io_output_open(path, &o, NULL) == SEGFM_OK);
    CHECK(io_output_write(o, "new bytes", 9, NULL) == SEGFM_OK);
    CHECK(files_in_folder() == 2);
    io_output_abort(o);
    CHECK(files_in_folder() == 1);
    CHECK(holds(path, "old", 3));
    io_output_abort(NULL);
    remove(path);
}

/* Two writers of one file do not disturb each other: the later commit wins, each whole. */
static void test_two_writers(void) {
    const char *path = in_folder(0, "both.bin");
    io_output *a, *b;
    CHECK(io_output_open(path, &a, NULL) == SEGFM_OK);
    CHECK(io_output_open(path, &b, NULL) == SEGFM_OK);
    CHECK(io_output_write(a, "aaaa", 4, NULL) == SEGFM_OK);
    CHECK(io_output_write(b, "bb", 2, NULL) == SEGFM_OK);
    CHECK(io_output_write(a, "AAAA", 4, NULL) == SEGFM_OK);
    CHECK(io_output_commit(b, NULL) == SEGFM_OK);
    CHECK(holds(path, "bb", 2));
    CHECK(io_output_commit(a, NULL) == SEGFM_OK);
    CHECK(holds(path, "aaaaAAAA", 8));
    CHECK(files_in_folder() == 1);
    remove(path);
}

/* A write that the system cuts off: the file size limit stands in for a full disk. */
static void test_write_fails_midway(void) {
    static unsigned char bytes[200000];
    const char *path = in_folder(0, "limited.bin");
    struct rlimit before, small;
    segfm_error e = {0};
    fill(bytes, sizeof bytes);
    CHECK(io_write_file(path, "old", 3, NULL) == SEGFM_OK);
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    small = before;
    small.rlim_cur = 10000;
    fflush(stdout); /* the limit holds for it too, should it be a file */
    bool limited = setrlimit(RLIMIT_FSIZE, &small) == 0;
    segfm_status whole = io_write_file(path, bytes, sizeof bytes, &e);
    segfm_error first = {0}, again = {0}, last = {0};
    io_output *o = NULL;
    segfm_status opened = io_output_open(path, &o, NULL), written = SEGFM_OK, later = SEGFM_OK, committed = SEGFM_OK;
    if (opened == SEGFM_OK) {
        written = io_output_write(o, bytes, sizeof bytes, &first);
        later = io_output_write(o, bytes, 1, &again);
        committed = io_output_commit(o, &last);
    }
    /* Small writes stay in stdio's buffer: here it is the flush in commit that fails. */
    segfm_error flush = {0};
    segfm_status flushed = io_output_open(path, &o, NULL);
    for (int i = 0; i < 10100 && flushed == SEGFM_OK; i++) flushed = io_output_write(o, bytes, 1, &flush);
    if (flushed == SEGFM_OK) flushed = io_output_commit(o, &flush);
    else io_output_abort(o);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    CHECK(limited && opened == SEGFM_OK);
    CHECK(whole == SEGFM_WRITE_FAILED && says(&e, SEGFM_WRITE_FAILED, path, "too large"));
    CHECK(written == SEGFM_WRITE_FAILED && says(&first, SEGFM_WRITE_FAILED, path, "too large"));
    CHECK(later == SEGFM_WRITE_FAILED && says(&again, SEGFM_WRITE_FAILED, path, "earlier write failed"));
    CHECK(committed == SEGFM_WRITE_FAILED && says(&last, SEGFM_WRITE_FAILED, path, "earlier write failed"));
    CHECK(flushed == SEGFM_WRITE_FAILED && says(&flush, SEGFM_WRITE_FAILED, path, "too large"));
    CHECK(holds(path, "old", 3));
    CHECK(files_in_folder() == 1);
    remove(path);
}

static void test_read_errors(void) {
    io_buffer b = {0};
    io_mapping m;
    segfm_error e = {0};
    const char *missing = in_folder(0, "missing.bin");
    CHECK(io_read_file(missing, &b, &e) == SEGFM_BAD_INPUT && says(&e, SEGFM_BAD_INPUT, missing, "does not exist"));
    CHECK(io_map_file(missing, &m, &e) == SEGFM_BAD_INPUT && says(&e, SEGFM_BAD_INPUT, missing, "does not exist"));
    CHECK(m.data == NULL && m.size == 0);
    CHECK(io_read_file(folder, &b, &e) == SEGFM_BAD_INPUT && says(&e, SEGFM_BAD_INPUT, folder, "is a folder"));
    CHECK(io_map_file(folder, &m, &e) == SEGFM_BAD_INPUT && says(&e, SEGFM_BAD_INPUT, folder, "is a folder"));
    CHECK(io_read_file("/dev/zero", &b, &e) == SEGFM_BAD_INPUT && says(&e, SEGFM_BAD_INPUT, "/dev/zero", "device"));
    CHECK(io_write_file(in_folder(0, "plain"), "x", 1, NULL) == SEGFM_OK);
    const char *below = in_folder(1, "plain/below");
    CHECK(io_read_file(below, &b, &e) == SEGFM_BAD_INPUT && says(&e, SEGFM_BAD_INPUT, below, "not a folder"));
    const char *pipe_path = in_folder(2, "pipe");
    CHECK(mkfifo(pipe_path, 0600) == 0);
    CHECK(io_read_file(pipe_path, &b, &e) == SEGFM_BAD_INPUT && says(&e, SEGFM_BAD_INPUT, pipe_path, "pipe"));
    CHECK(io_map_file(pipe_path, &m, NULL) == SEGFM_BAD_INPUT);
    CHECK(b.data == NULL && b.size == 0);
    remove(pipe_path);
    if (geteuid() != 0) { /* root may read everything */
        CHECK(chmod(path_memory[0], 0) == 0);
        CHECK(io_read_file(path_memory[0], &b, &e) == SEGFM_BAD_INPUT);
        CHECK(says(&e, SEGFM_BAD_INPUT, path_memory[0], "no permission"));
    }
    remove(path_memory[0]);
}

static void test_write_errors(void) {
    segfm_error e = {0};
    const char *lost = in_folder(0, "no_such_folder/x.bin");
    CHECK(io_write_file(lost, "x", 1, &e) == SEGFM_WRITE_FAILED);
    CHECK(says(&e, SEGFM_WRITE_FAILED, lost, "folder does not exist"));
    CHECK(io_write_file(folder, "x", 1, &e) == SEGFM_WRITE_FAILED &&
          says(&e, SEGFM_WRITE_FAILED, folder, "is a folder"));
    CHECK(io_write_file("", "x", 1, &e) == SEGFM_WRITE_FAILED && says(&e, SEGFM_WRITE_FAILED, "", "empty"));
    CHECK(io_write_file("/dev/null", "x", 1, &e) == SEGFM_WRITE_FAILED);
    CHECK(says(&e, SEGFM_WRITE_FAILED, "/dev/null", "device")); /* and /dev/null is still one */
    struct stat st;
    CHECK(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode));
    CHECK(io_write_file(in_folder(1, "plain"), "x", 1, NULL) == SEGFM_OK);
    const char *below = in_folder(2, "plain/below");
    CHECK(io_write_file(below, "x", 1, &e) == SEGFM_WRITE_FAILED &&
          says(&e, SEGFM_WRITE_FAILED, below, "not a folder"));
    CHECK(holds(path_memory[1], "x", 1));
    if (access("/proc/self", F_OK) == 0) { /* a file system that takes no files, not even from root */
        CHECK(io_write_file("/proc/segfm_test.bin", "x", 1, &e) == SEGFM_WRITE_FAILED);
        CHECK(strcmp(e.where, "/proc/segfm_test.bin") == 0);
    }
    CHECK(io_fail(&e, SEGFM_WRITE_FAILED, lost, "cannot be written", ENOMEM) == SEGFM_NO_MEMORY);
    CHECK(says(&e, SEGFM_NO_MEMORY, lost, "out of memory")); /* opening a stream takes some: the file is not at fault */
    io_output *o = (io_output *)&e;
    CHECK(io_output_open(lost, &o, NULL) == SEGFM_WRITE_FAILED && o == NULL);
    char name[300];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    CHECK(io_write_file(in_folder(3, name), "x", 1, &e) == SEGFM_WRITE_FAILED && strstr(e.message, "too long") != NULL);
    name[255] = '\0'; /* the longest that file systems take: the temporary name must not be longer */
    CHECK(io_write_file(in_folder(3, name), "x", 1, &e) == SEGFM_OK && holds(path_memory[3], "x", 1));
    remove(path_memory[3]);
    remove(path_memory[1]);
    CHECK(files_in_folder() == 0);
}

/* A rename that fails at the very end: the target has become a folder meanwhile. */
static void test_rename_fails(void) {
    segfm_error e = {0};
    io_output *o;
    const char *path = in_folder(0, "target");
    CHECK(io_output_open(path, &o, NULL) == SEGFM_OK);
    CHECK(io_output_write(o, "x", 1, NULL) == SEGFM_OK);
    CHECK(mkdir(path, 0700) == 0);
    CHECK(io_output_commit(o, &e) == SEGFM_WRITE_FAILED && says(&e, SEGFM_WRITE_FAILED, path, "given its name"));
    CHECK(files_in_folder() == 1);
    CHECK(rmdir(path) == 0);
}

static void test_mode_is_kept(void) {
    struct stat st;
    const char *path = in_folder(0, "private.bin");
    mode_t mask = umask(022);
    CHECK(io_write_file(path, "one", 3, NULL) == SEGFM_OK);
    umask(mask);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0644); /* a new file is like any other program's */
    CHECK(chmod(path, 0600) == 0);
    CHECK(io_write_file(path, "two", 3, NULL) == SEGFM_OK);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    CHECK(holds(path, "two", 3));
    remove(path);
}

/* A name without a folder part: the temporary file is made in the current folder. */
static void test_bare_name(void) {
    char here[1024];
    if (!CHECK(getcwd(here, sizeof here) != NULL && chdir(folder) == 0)) return;
    CHECK(io_write_file("bare.bin", "x", 1, NULL) == SEGFM_OK);
    CHECK(holds("bare.bin", "x", 1));
    CHECK(remove("bare.bin") == 0);
    CHECK(chdir(here) == 0);
    CHECK(files_in_folder() == 0);
}

/* Files that are made while they are read report size 0. */
static void test_size_unknown(void) {
    if (access("/proc/self/status", R_OK) != 0) return;
    io_buffer b = {0};
    io_mapping m;
    CHECK(io_read_file("/proc/self/status", &b, NULL) == SEGFM_OK && b.size > 10);
    CHECK(io_map_file("/proc/self/status", &m, NULL) == SEGFM_OK && m.size > 10 && !m.mapped);
    io_unmap_file(&m);
    io_buffer_free(&b);
}

/* Whether a read of this byte kills the process that reads. */
static bool is_gone(const unsigned char *byte) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        close(STDERR_FILENO); /* a sanitizer would report */
        volatile unsigned char value = *byte;
        (void)value;
        _exit(0);
    }
    return child > 0 && waitpid(child, &status, 0) == child && !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Whole pages inside of the range go, with the last one of the file; the others keep their bytes, and the rest can still be
   unmapped. */
static void test_release(void) {
    enum { PAGES = 9 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = PAGES * page - 100;
    unsigned char *bytes = malloc(n);
    const char *path = in_folder(0, "released.bin");
    io_mapping m;
    fill(bytes, n);
    CHECK(io_write_file(path, bytes, n, NULL) == SEGFM_OK && io_map_file(path, &m, NULL) == SEGFM_OK && m.mapped);
    io_release(&m, m.data + 2 * page + 1, 3 * page - 2); /* pages 3; 2 and 4 are cut */
    io_release(&m, m.data + 6 * page, 0);
    io_release(&m, m.data + 6 * page + 5, 10);
    CHECK(memcmp(m.data, bytes, 3 * page) == 0 && memcmp(m.data + 4 * page, bytes + 4 * page, n - 4 * page) == 0);
    CHECK(is_gone(m.data + 3 * page) && is_gone(m.data + 4 * page - 1));
    io_release(&m, m.data + 2 * page, 3 * page); /* around it, a part for the second time */
    io_release(&m, m.data + 7 * page, n - 7 * page);
    CHECK(memcmp(m.data, bytes, 2 * page) == 0 && memcmp(m.data + 5 * page, bytes + 5 * page, 2 * page) == 0);
    CHECK(is_gone(m.data + 2 * page) && is_gone(m.data + 5 * page - 1) && is_gone(m.data + 7 * page) &&
          is_gone(m.data + n - 1));
    io_unmap_file(&m);
    CHECK(m.data == NULL && !m.mapped);
    CHECK(holds(path, bytes, n));
    if (CHECK(io_map_file(path, &m, NULL) == SEGFM_OK)) { /* memory that was allocated stays */
        unsigned char *copy = malloc(n);
        io_mapping read = {.data = memcpy(copy, m.data, n), .size = n};
        io_release(&read, copy, n);
        CHECK(memcmp(copy, bytes, n) == 0);
        io_unmap_file(&read);
        io_unmap_file(&m);
    }
    free(bytes);
    remove(path);
}

int main(void) {
    make_folder();
    test_write_and_read();
    test_pieces();
    test_abort_keeps_target();
    test_two_writers();
    test_write_fails_midway();
    test_read_errors();
    test_write_errors();
    test_rename_fails();
    test_mode_is_kept();
    test_bare_name();
    test_size_unknown();
    test_release();
    CHECK(rmdir(folder) == 0);
    return test_summary();
}
