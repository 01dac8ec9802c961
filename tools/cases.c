/* Lists of labelled scans. */
#include <string.h>
#include <unistd.h>

#include "tools.h"

segfm_status tool_cases_add(tool_cases *l, const char *name, const char *image, const char *label, segfm_error *error) {
    segfm_status status = tool_names_add(&l->names, name, error);
    if (status == SEGFM_OK) status = tool_names_add(&l->images, image, error);
    return status == SEGFM_OK ? tool_names_add(&l->labels, label, error) : status;
}

/* A list's path: as it stands, or when there is no such file and it is relative, from the list's folder. */
static segfm_status resolve(const char *list, const char *path, char *out, size_t capacity, segfm_error *error) {
    char folder[4096];
    const char *slash = strrchr(list, '/');
    size_t length = slash != NULL ? (size_t)(slash - list) : 0;
    if (path[0] != '/' && length > 0 && length < sizeof folder && access(path, F_OK) != 0) {
        memcpy(folder, list, length);
        folder[length] = '\0';
        segfm_status status = tool_path(out, capacity, folder, path, error);
        if (status != SEGFM_OK || access(out, F_OK) == 0) return status;
    }
    if (strlen(path) >= capacity) return base_fail(error, SEGFM_BAD_USAGE, "path %s is too long", path);
    base_format(out, capacity, "%s", path);
    return SEGFM_OK;
}

/* Cuts the text at its first tab or line end; *text moves to what follows the tab (NULL: nothing). */
static char *take_column(char **text) {
    char *column = *text, *end = column + strcspn(column, "\t\r\n");
    *text = *end == '\t' ? end + 1 : NULL;
    *end = '\0';
    return column;
}

static segfm_status read_line(const char *list, char *line, int number, tool_cases *out, segfm_error *error) {
    char image[4096], label[4096];
    if (line[0] == '#' || line[strspn(line, " \t\r")] == '\0') return SEGFM_OK;
    char *rest = line, *first = take_column(&rest), *second = rest == NULL ? NULL : take_column(&rest);
    if (second == NULL || *first == '\0' || *second == '\0')
        return base_fail(error, SEGFM_BAD_INPUT, "line %d: need an image, a tab and a label map", number);
    if (number == 1 && (strcmp(first, "image") == 0 || strcmp(first, "file") == 0)) return SEGFM_OK; /* a header */
    segfm_status status = resolve(list, first, image, sizeof image, error);
    if (status == SEGFM_OK) status = resolve(list, second, label, sizeof label, error);
    if (status != SEGFM_OK) /* the only reason */
        return base_fail(error, SEGFM_BAD_INPUT, "line %d: a path is longer than %zu bytes", number, sizeof image - 1);
    return tool_cases_add(out, first, image, label, error);
}

segfm_status tool_cases_read(const char *path, tool_cases *out, segfm_error *error) {
    io_buffer text = {0};
    segfm_status status = io_read_file(path, &text, error);
    if (status == SEGFM_OK) status = io_buffer_append(&text, "", 1, error); /* a terminator */
    if (status == SEGFM_OK && memchr(text.data, 0, text.size - 1) != NULL)
        status = base_fail(error, SEGFM_BAD_INPUT, "holds a zero byte: need lines of text");
    char *line = (char *)text.data;
    for (int number = 1; status == SEGFM_OK && line != NULL; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL) *end = '\0';
        status = read_line(path, line, number, out, error);
        line = end != NULL ? end + 1 : NULL;
    }
    io_buffer_free(&text);
    if (status == SEGFM_OK && out->names.count == 0) status = base_fail(error, SEGFM_BAD_INPUT, "lists no pair");
    return status == SEGFM_OK ? status : base_fail_where(error, status, path);
}

void tool_cases_free(tool_cases *l) {
    tool_names_free(&l->names);
    tool_names_free(&l->images);
    tool_names_free(&l->labels);
}
