/* Running the segfm command in a scratch folder: the one beside the test program's folder, or the one that the environment's
   SEGFM names. Honours TEST_WRAPPER. */
#ifndef SEGFM_TEST_COMMAND_H
#define SEGFM_TEST_COMMAND_H

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../io/io.h"
#include "test.h"

static char folder[1024]; /* scratch */
static char command[1024];

static inline const char *path_of(const char *directory, const char *name) {
    static char paths[8][2048];
    static int next;
    char *path = paths[next++ % 8];
    base_format(path, sizeof paths[0], "%s/%s%s%s", folder, directory, name[0] != '\0' ? "/" : "", name);
    return path;
}

static inline void make_folder(const char *name) { CHECK(mkdir(path_of(name, ""), 0777) == 0); }

static inline bool exists(const char *path) { return access(path, F_OK) == 0; }

/* A file as text of at most capacity − 1 bytes. */
static inline void read_text(const char *path, char *out, size_t capacity) {
    io_buffer text = {0};
    out[0] = '\0';
    CHECK(io_read_file(path, &text, NULL) == SEGFM_OK);
    if (text.size > 0 && CHECK(text.size < capacity)) memcpy(out, text.data, text.size), out[text.size] = '\0';
    io_buffer_free(&text);
}

/* What the last command printed. */
static char said[1 << 16], printed[1 << 16]; /* on stderr, on stdout */

/* Runs the command with these arguments, in the shell's words; returns its exit code. */
static inline int run_command(const char *arguments) {
    char line[16384];
    const char *wrapper = getenv("TEST_WRAPPER");
    base_format(line, sizeof line, "%s '%s' %s >'%s/stdout' 2>'%s/stderr'", wrapper != NULL ? wrapper : "", command,
                arguments, folder, folder);
    int code = system(line);
    read_text(path_of("stdout", ""), printed, sizeof printed);
    read_text(path_of("stderr", ""), said, sizeof said);
    return code != -1 && WIFEXITED(code) ? WEXITSTATUS(code) : -1;
}

/* One of the lines on stderr names the file and says this. */
static inline bool says(const char *file, const char *phrase) {
    for (const char *line = said; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        char text[1024];
        base_format(text, sizeof text, "%s", line);
        if (length < sizeof text) text[length] = '\0';
        if (strncmp(text, "segfm: ", 7) == 0 && strstr(text, file) != NULL && strstr(text, phrase) != NULL) return true;
        line += length + (line[length] != '\0');
    }
    return false;
}

static inline size_t lines_in(const char *text) {
    size_t n = 0;
    for (; *text != '\0'; text++) n += *text == '\n';
    return n;
}

/* build/…/test/test_predict → build/…/segfm */
static inline bool find_command(const char *program) {
    const char *given = getenv("SEGFM");
    base_format(command, sizeof command, "%s", given != NULL ? given : program);
    for (int i = 0; given == NULL && i < 2; i++) {
        char *slash = strrchr(command, '/');
        if (slash == NULL) return false;
        *slash = '\0';
    }
    size_t length = strlen(command);
    if (given == NULL) base_format(command + length, sizeof command - length, "/segfm");
    return access(command, X_OK) == 0;
}

static inline bool begin_commands(int argc, char **argv) {
    const char *scratch = getenv("TMPDIR");
    if (!CHECK(argc >= 1 && find_command(argv[0]))) {
        printf("    no command at %s: build it, or set SEGFM\n", command);
        return false;
    }
    base_format(folder, sizeof folder, "%s/segfm-test-XXXXXX", scratch != NULL ? scratch : "/tmp");
    return CHECK(mkdtemp(folder) != NULL);
}

static inline void end_commands(void) {
    char line[2048];
    base_format(line, sizeof line, "rm -rf '%s'", folder);
    CHECK(system(line) == 0);
}

#endif
