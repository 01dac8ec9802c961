#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

/* The value of option argv[*i], which moves on to it. */
static segfm_status take_value(int argc, char **argv, int *i, const char **value, segfm_error *error) {
    if (*i + 1 >= argc) return base_fail(error, SEGFM_BAD_USAGE, "option %s: got nothing, need a value", argv[*i]);
    *value = argv[++*i];
    return SEGFM_OK;
}

static segfm_status parse_common(int argc, char **argv, int *i, tool_common *common, bool *known, segfm_error *error) {
    *known = true;
    if (strcmp(argv[*i], "--quiet") == 0) {
        common->quiet = true;
        return SEGFM_OK;
    }
    if (strcmp(argv[*i], "--threads") == 0) {
        const char *text = NULL;
        int64_t threads = 0;
        segfm_status status = take_value(argc, argv, i, &text, error);
        if (status == SEGFM_OK) status = tool_integer(text, "--threads", 1, 1024, &threads, error);
        if (status == SEGFM_OK) common->threads = (int)threads;
        return status;
    }
    *known = false;
    return SEGFM_OK;
}

static segfm_status parse_option(int argc, char **argv, int *i, const tool_option *options, segfm_error *error) {
    const char *name = argv[*i];
    for (const tool_option *o = options; o->name != NULL; o++) {
        if (strcmp(o->name, name) != 0) continue;
        if (o->flag != NULL) {
            *o->flag = true;
            return SEGFM_OK;
        }
        if (o->value != NULL && *o->value != NULL)
            return base_fail(error, SEGFM_BAD_USAGE, "option %s: given twice, need it once", name);
        if (o->list != NULL && o->list->count == TOOL_MAX_LIST)
            return base_fail(error, SEGFM_BAD_USAGE, "option %s: given more than %d times", name, TOOL_MAX_LIST);
        const char *value = NULL;
        segfm_status status = take_value(argc, argv, i, &value, error);
        if (status != SEGFM_OK) return status;
        if (o->value != NULL) *o->value = value;
        else o->list->items[o->list->count++] = value;
        return SEGFM_OK;
    }
    return base_fail(error, SEGFM_BAD_USAGE, "unknown option %s: see segfm help %s", name, argv[0]);
}

segfm_status tool_parse(int argc, char **argv, const tool_option *options, const char **positional, int positionals,
                        tool_common *common, segfm_error *error) {
    int count = 0;
    bool ended = false;
    *common = (tool_common){0};
    for (int i = 1; i < argc; i++) {
        segfm_status status = SEGFM_OK;
        bool known = false;
        if (!ended && strcmp(argv[i], "--") == 0) {
            ended = true;
            continue;
        }
        if (ended || argv[i][0] != '-' || argv[i][1] == '\0') {
            if (count == positionals)
                return base_fail(error, SEGFM_BAD_USAGE, "unexpected argument %s: see segfm help %s", argv[i], argv[0]);
            positional[count++] = argv[i];
            continue;
        }
        status = parse_common(argc, argv, &i, common, &known, error);
        if (status == SEGFM_OK && !known) status = parse_option(argc, argv, &i, options, error);
        if (status != SEGFM_OK) return status;
    }
    if (count < positionals)
        return base_fail(error, SEGFM_BAD_USAGE, "arguments: got %d, need %d: see segfm help %s", count, positionals,
                         argv[0]);
    return SEGFM_OK;
}

segfm_status tool_need(const char *value, const char *option, segfm_error *error) {
    return value != NULL ? SEGFM_OK : base_fail(error, SEGFM_BAD_USAGE, "the option %s is needed", option);
}

/* One number up to `end_mark` or the end of the text; *text moves behind it. */
static bool scan_integer(const char **text, int64_t low, int64_t high, int64_t *out) {
    char *end;
    if (strchr("+-0123456789", **text) == NULL || **text == '\0') return false; /* strtoll would skip white space */
    errno = 0;
    long long v = strtoll(*text, &end, 10);
    if (end == *text || errno != 0 || v < low || v > high) return false;
    *text = end;
    *out = v;
    return true;
}

static bool scan_number(const char **text, double *out) {
    char *end;
    if (strchr("+-.0123456789", **text) == NULL || **text == '\0') return false;
    errno = 0;
    double v = strtod(*text, &end);
    if (end == *text || !isfinite(v)) return false;
    *text = end;
    *out = v;
    return true;
}

segfm_status tool_integers(const char *text, const char *what, int n, int64_t low, int64_t high, int64_t *out,
                           segfm_error *error) {
    const char *p = text;
    for (int i = 0; i < n; i++) {
        if (!scan_integer(&p, low, high, &out[i]) || *p != (i + 1 < n ? ',' : '\0'))
            return n == 1 ? base_fail(error, SEGFM_BAD_USAGE, "%s: got %s, need a whole number from %lld to %lld", what,
                                      text, (long long)low, (long long)high)
                          : base_fail(error, SEGFM_BAD_USAGE,
                                      "%s: got %s, need %d whole numbers from %lld to %lld, separated by commas", what,
                                      text, n, (long long)low, (long long)high);
        p++;
    }
    return SEGFM_OK;
}

segfm_status tool_integer(const char *text, const char *what, int64_t low, int64_t high, int64_t *out,
                          segfm_error *error) {
    return tool_integers(text, what, 1, low, high, out, error);
}

segfm_status tool_numbers(const char *text, const char *what, int n, double *out, segfm_error *error) {
    const char *p = text;
    for (int i = 0; i < n; i++) {
        if (!scan_number(&p, &out[i]) || *p != (i + 1 < n ? ',' : '\0'))
            return base_fail(error, SEGFM_BAD_USAGE, "%s: got %s, need %d finite number%s%s", what, text, n,
                             n == 1 ? "" : "s", n == 1 ? "" : ", separated by commas");
        p++;
    }
    return SEGFM_OK;
}

segfm_status tool_number(const char *text, const char *what, double *out, segfm_error *error) {
    return tool_numbers(text, what, 1, out, error);
}
