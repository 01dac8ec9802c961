/* `segfm session`: one command per line of standard input, one JSON object per line of standard output. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

enum { MAX_LINE = 4096 };

typedef struct repl {
    const segfm_model *model;
    const segfm_options *options;
    char scan_path[MAX_LINE];
    tool_scan scan; /* header and shape; shape[0] = 0: none is open */
    segfm_session *session;
} repl;

/* ---- answers -------------------------------------------------------------------------------------------------- */

/* A JSON string. What is not UTF-8 becomes the replacement character. */
static void print_string(const char *text) {
    putchar('"');
    for (const unsigned char *s = (const unsigned char *)text; *s != '\0';) {
        size_t n = base_utf8_length(s);
        if (n == 0) fputs("\xEF\xBF\xBD", stdout);
        else if (*s == '"' || *s == '\\') printf("\\%c", *s);
        else if (*s < 0x20 || *s == 0x7F) printf("\\u%04x", *s);
        else fwrite(s, 1, n, stdout);
        s += n > 0 ? n : 1;
    }
    putchar('"');
}

/* {z0,y0,x0,z1,y1,x1} → [x0,y0,z0,x1,y1,z1], or null for the box of nothing. */
static void print_box(const char *name, const int64_t box[6]) {
    printf(",\"%s\":", name);
    if (box[0] < 0) fputs("null", stdout);
    for (int i = 0; i < 6 && box[0] >= 0; i++)
        printf("%c%lld", i == 0 ? '[' : ',', (long long)box[i < 3 ? 2 - i : 8 - i]);
    if (box[0] >= 0) putchar(']');
}

/* changes: the command may have changed the mask. Leaves the object open. */
static void answer(const repl *r, const char *command, segfm_status status, const segfm_error *error, bool changes,
                   double ms) {
    segfm_report report = {.changed_box = {-1}};
    changes = changes && status == SEGFM_OK;
    if (r->session != NULL) segfm_last_report(r->session, &report);
    fputs("{\"command\":", stdout);
    print_string(command);
    printf(",\"ok\":%s", status == SEGFM_OK ? "true" : "false");
    if (status != SEGFM_OK) {
        char text[sizeof error->where + sizeof error->message + 3];
        base_format(text, sizeof text, "%s%s%s", error->where, error->where[0] != '\0' ? ": " : "", error->message);
        fputs(",\"error\":", stdout);
        print_string(text);
    }
    printf(",\"ms\":%.3f,\"changed\":%lld", ms, changes ? (long long)report.changed : 0);
    print_box("bounds", changes ? report.changed_box : (const int64_t[6]){-1});
    if (r->session == NULL) return;
    printf(",\"object\":%lld,\"box\":%s,\"clicks\":%lld,\"undo\":%s,\"redo\":%s", (long long)report.objects + 1,
           report.has_box ? "true" : "false", (long long)report.clicks, report.can_undo ? "true" : "false",
           report.can_redo ? "true" : "false");
    print_box("object_box", report.box);
}

/* ---- commands: each gets what stands behind its name ---------------------------------------------------------- */

static segfm_status need_scan(const repl *r, segfm_error *error) {
    return r->session != NULL ? SEGFM_OK : base_fail(error, SEGFM_BAD_USAGE, "no scan is open");
}

static segfm_status nothing_behind(const char *rest, segfm_error *error) {
    return *rest == '\0' ? SEGFM_OK : base_fail(error, SEGFM_BAD_USAGE, "got %s, need nothing after the command", rest);
}

/* The next session, with the scan in it; the one before stays until this one stands. */
static segfm_status make_session(const repl *r, tool_scan *scan, segfm_session **out, segfm_error *error) {
    segfm_status status = segfm_session_new(r->model, scan->shape, r->options, NULL, 0, out, error);
    if (status == SEGFM_OK) status = segfm_set_volume(*out, scan->voxels, error);
    return status;
}

static segfm_status do_open(repl *r, const char *rest, segfm_error *error) {
    char volume[32];
    const char *chosen = NULL;
    if (strncmp(rest, "--volume ", 9) == 0) { /* --volume K SCAN */
        const char *digits = rest + 9 + strspn(rest + 9, " \t");
        size_t n = strcspn(digits, " \t");
        if (n >= sizeof volume)
            return base_fail(error, SEGFM_BAD_USAGE, "--volume: got %s, need a whole number", digits);
        memcpy(volume, digits, n);
        volume[n] = '\0';
        chosen = volume;
        rest = digits + n + strspn(digits + n, " \t");
    }
    if (*rest == '\0') return base_fail(error, SEGFM_BAD_USAGE, "open needs a scan");
    tool_scan scan;
    segfm_session *session = NULL;
    segfm_status status = tool_scan_open(rest, chosen, &scan, error);
    if (status != SEGFM_OK) return status;
    status = make_session(r, &scan, &session, error);
    if (status == SEGFM_BAD_INPUT) base_fail_where(error, status, rest);
    tool_scan_release(&scan);
    if (status != SEGFM_OK) {
        segfm_session_free(session);
        tool_scan_close(&scan);
        return status;
    }
    segfm_session_free(r->session);
    tool_scan_close(&r->scan);
    r->session = session;
    r->scan = scan;
    base_format(r->scan_path, sizeof r->scan_path, "%s", rest);
    return SEGFM_OK;
}

/* "--world 1,2,3" → "1,2,3" and true */
static const char *after_world(const char *rest, bool *world) {
    *world = strncmp(rest, "--world ", 8) == 0;
    return *world ? rest + 8 + strspn(rest + 8, " \t") : rest;
}

static segfm_status do_box(repl *r, const char *rest, segfm_error *error) {
    int64_t box[6];
    bool world;
    const char *text = after_world(rest, &world);
    segfm_status status = need_scan(r, error);
    if (status == SEGFM_OK) status = tool_read_box(text, "box", world, &r->scan.image, box, error);
    return status == SEGFM_OK ? segfm_box(r->session, box, error) : status;
}

static segfm_status do_click(repl *r, const char *rest, segfm_error *error) {
    int64_t voxel[3];
    bool world, foreground = false;
    const char *text = after_world(rest, &world);
    segfm_status status = need_scan(r, error);
    if (status == SEGFM_OK) status = tool_read_click(text, "click", world, &r->scan.image, voxel, &foreground, error);
    return status == SEGFM_OK ? segfm_click(r->session, voxel, foreground, error) : status;
}

static segfm_status do_undo(repl *r, const char *rest, segfm_error *error) {
    segfm_status status = nothing_behind(rest, error);
    if (status == SEGFM_OK) status = need_scan(r, error);
    return status == SEGFM_OK ? segfm_undo(r->session, error) : status;
}

static segfm_status do_redo(repl *r, const char *rest, segfm_error *error) {
    segfm_status status = nothing_behind(rest, error);
    if (status == SEGFM_OK) status = need_scan(r, error);
    return status == SEGFM_OK ? segfm_redo(r->session, error) : status;
}

static segfm_status do_reset(repl *r, const char *rest, segfm_error *error) {
    segfm_status status = nothing_behind(rest, error);
    if (status == SEGFM_OK) status = need_scan(r, error);
    if (status == SEGFM_OK) segfm_reset(r->session);
    return status;
}

static segfm_status do_next(repl *r, const char *rest, segfm_error *error) {
    segfm_status status = nothing_behind(rest, error);
    if (status == SEGFM_OK) status = need_scan(r, error);
    return status == SEGFM_OK ? segfm_next_object(r->session, error) : status;
}

/* Where a result goes: a NIfTI file that is not the scan. */
static segfm_status check_output(const repl *r, const char *path, segfm_error *error) {
    segfm_status status = need_scan(r, error);
    if (status == SEGFM_OK && *path == '\0') status = base_fail(error, SEGFM_BAD_USAGE, "need a file's name");
    if (status == SEGFM_OK) status = tool_check_nifti_name(path, error);
    return status == SEGFM_OK ? tool_keep_input(r->scan_path, path, error) : status;
}

/* The current object's mask (IO_U8) or logits (IO_F32), or all objects' labels (IO_U16). */
static segfm_status write_result(const repl *r, const char *path, io_dtype dtype, segfm_error *error) {
    size_t count = r->scan.count;
    segfm_status status = check_output(r, path, error);
    if (status != SEGFM_OK) return status;
    void *voxels = malloc(count * io_dtype_size(dtype));
    if (voxels == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %zu voxels", count);
    if (dtype == IO_U8) status = segfm_mask(r->session, voxels, count, error);
    else if (dtype == IO_F32) status = segfm_logits(r->session, voxels, count, error);
    else status = segfm_labels(r->session, voxels, count, error);
    if (status == SEGFM_OK) status = io_nifti_write_like(path, &r->scan.image, dtype, voxels, error);
    free(voxels);
    return status;
}

static segfm_status do_mask(repl *r, const char *rest, segfm_error *error) {
    return write_result(r, rest, IO_U8, error);
}
static segfm_status do_logits(repl *r, const char *rest, segfm_error *error) {
    return write_result(r, rest, IO_F32, error);
}
static segfm_status do_labels(repl *r, const char *rest, segfm_error *error) {
    return write_result(r, rest, IO_U16, error);
}

static segfm_status do_nothing(repl *r, const char *rest, segfm_error *error) {
    (void)r;
    return nothing_behind(rest, error);
}

/* What `status` adds to its answer. */
static void print_status(const repl *r) {
    printf(",\"corrector\":%s,\"scan\":", segfm_model_has_corrector(r->model) ? "true" : "false");
    if (r->session == NULL) {
        fputs("null", stdout);
        return;
    }
    segfm_report report;
    segfm_last_report(r->session, &report);
    print_string(r->scan_path);
    printf(",\"shape\":[%lld,%lld,%lld],\"voxels\":%lld", (long long)r->scan.shape[2], (long long)r->scan.shape[1],
           (long long)r->scan.shape[0], (long long)report.inside);
    printf(",\"windows\":%lld,\"bytes\":%zu", (long long)report.windows, report.bytes);
}

static const struct {
    const char *name;
    segfm_status (*run)(repl *r, const char *rest, segfm_error *error);
    bool changes; /* the mask: its answer tells what of it */
} commands[] = {
    {"open", do_open, false},     {"box", do_box, true},         {"click", do_click, true},
    {"undo", do_undo, true},      {"redo", do_redo, true},       {"reset", do_reset, true},
    {"next", do_next, true},      {"mask", do_mask, false},      {"logits", do_logits, false},
    {"labels", do_labels, false}, {"status", do_nothing, false}, {"quit", do_nothing, false},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

/* ---- the loop ------------------------------------------------------------------------------------------------- */

typedef enum line_kind { LINE, LINE_BAD, LINE_END, LINE_LOST } line_kind;

/* One line of standard input without its end. A line that is too long or holds a zero byte is read to its end and bad. One that
   could not be read to its end is lost: its beginning may say something else. */
static line_kind read_line(char line[MAX_LINE], segfm_error *error) {
    size_t n = 0;
    bool bad = false;
    int c;
    errno = 0;
    while ((c = getchar()) != EOF && c != '\n') {
        if (c == '\0' || n == MAX_LINE - 1) bad = true;
        else line[n++] = (char)c;
    }
    if (c == EOF && ferror(stdin)) {
        io_fail(error, SEGFM_BAD_INPUT, "standard input", "cannot be read", errno);
        return LINE_LOST;
    }
    if (c == EOF && n == 0 && !bad) return LINE_END;
    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' ' || line[n - 1] == '\t')) n--;
    line[n] = '\0';
    if (!bad) return LINE;
    base_fail(error, SEGFM_BAD_USAGE, "a line holds a zero byte or more than %d bytes", MAX_LINE - 1);
    return LINE_BAD;
}

/* Runs one line; false after quit. */
static bool run_line(repl *r, char *line) {
    segfm_error error = {0};
    char *name = line + strspn(line, " \t"), *rest = name + strcspn(name, " \t");
    if (*rest != '\0') *rest++ = '\0';
    rest += strspn(rest, " \t");
    if (*name == '\0' || *name == '#') return true; /* an empty line, a remark: no command, no answer */
    size_t i = 0;
    while (i < COMMANDS && strcmp(commands[i].name, name) != 0) i++;
    double started = tool_milliseconds();
    segfm_status status = i < COMMANDS ? commands[i].run(r, rest, &error)
                                       : base_fail(&error, SEGFM_BAD_USAGE, "unknown command %s", name);
    answer(r, name, status, &error, i < COMMANDS && commands[i].changes, tool_milliseconds() - started);
    if (status == SEGFM_OK && strcmp(name, "status") == 0) print_status(r);
    puts("}");
    return status != SEGFM_OK || strcmp(name, "quit") != 0;
}

static segfm_status loop(repl *r, segfm_error *error) {
    char line[MAX_LINE];
    segfm_status status = SEGFM_OK;
    for (bool more = true; more && status == SEGFM_OK;) {
        segfm_error bad = {0};
        line_kind kind = read_line(line, &bad);
        if (kind == LINE_END) break;
        if (kind == LINE_LOST) {
            *error = bad;
            return bad.status;
        }
        if (kind == LINE_BAD) {
            answer(r, "", SEGFM_BAD_USAGE, &bad, false, 0);
            puts("}");
        } else {
            more = run_line(r, line);
        }
        status = tool_flush(error);
    }
    return status;
}

segfm_status tool_session(const segfm_model *model, const segfm_options *options, segfm_error *error) {
    repl r = {.model = model, .options = options};
    segfm_status status = loop(&r, error);
    segfm_session_free(r.session);
    tool_scan_close(&r.scan);
    return status;
}

segfm_status command_session(int argc, char **argv, segfm_error *error) {
    const char *weights = NULL;
    tool_common common = {0};
    tool_model model = {0};
    const tool_option options[] = {{"-w", .value = &weights}, {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &common, error);
    if (status == SEGFM_OK) status = tool_model_open(weights, &common, true, &model, error);
    segfm_options of_session = segfm_options_default();
    of_session.threads = common.threads;
    of_session.max_clicks = TOOL_MAX_CLICKS;
    of_session.keep_objects = true;
    if (!common.quiet) of_session.progress = tool_progress;
    if (status == SEGFM_OK) status = tool_session(model.model, &of_session, error);
    tool_model_close(&model);
    return status;
}
