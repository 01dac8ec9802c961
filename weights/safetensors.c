/* safetensors: the header of a safetensors file. Eight bytes of length, a JSON object, then the tensors' bytes:
       {"__metadata__": {"key": "text", …}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
   The object has two known levels, so the parser is a loop, not a recursion. */
#include "weights.h"

#include <stdlib.h>
#include <string.h>

typedef struct span {
    const char *text;
    size_t n;
} span;

typedef struct parser {
    const unsigned char *bytes;
    size_t at, end;    /* of the JSON text, in the file */
    size_t data_bytes; /* after it */
    weights_safetensor *tensors;
    size_t count, capacity;
    span *keys; /* of __metadata__ */
    size_t key_count, key_capacity;
    segfm_error *error;
} parser;

static segfm_status bad(parser *p, const char *what) {
    (void)base_fail(p->error, SEGFM_BAD_INPUT, "safetensors offset %zu: %s", p->at, what);
    return SEGFM_BAD_INPUT;
}

static segfm_status bad_tensor(parser *p, const weights_safetensor *t, const char *what) {
    char name[WEIGHTS_NAME_MAX];
    size_t n = t->name_length < sizeof name - 1 ? t->name_length : sizeof name - 1;
    memcpy(name, t->name, n);
    name[n] = '\0';
    (void)base_fail(p->error, SEGFM_BAD_INPUT, "safetensors: tensor '%s' %s", name, what);
    return SEGFM_BAD_INPUT;
}

/* ---- JSON ---------------------------------------------------------------------------------------------------- */

/* The next character that is not white space, or 0 at the end. */
static unsigned char peek(parser *p) {
    while (p->at < p->end &&
           (p->bytes[p->at] == ' ' || p->bytes[p->at] == '\n' || p->bytes[p->at] == '\r' || p->bytes[p->at] == '\t'))
        p->at++;
    return p->at < p->end ? p->bytes[p->at] : 0;
}

static bool accept(parser *p, unsigned char c) {
    if (peek(p) != c) return false;
    p->at++;
    return true;
}

static segfm_status expect(parser *p, unsigned char c) {
    if (accept(p, c)) return SEGFM_OK;
    (void)base_fail(p->error, SEGFM_BAD_INPUT, "safetensors offset %zu: the JSON header needs '%c' here", p->at,
                    (int)c);
    return SEGFM_BAD_INPUT;
}

/* After a member: true in *more when a comma announces another, false when `close` ends the list. */
static segfm_status next_member(parser *p, unsigned char close, bool *more) {
    *more = accept(p, ',');
    return *more ? SEGFM_OK : expect(p, close);
}

/* One escape after its backslash. */
static bool skip_escape(parser *p) {
    if (p->at >= p->end) return false;
    unsigned char c = p->bytes[p->at++];
    if (c != 'u') return c != 0 && strchr("\"\\/bfnrt", c) != NULL;
    for (int i = 0; i < 4; i++, p->at++)
        if (p->at >= p->end || p->bytes[p->at] == 0 || strchr("0123456789abcdefABCDEF", p->bytes[p->at]) == NULL)
            return false;
    return true;
}

/* A string without its quotes, escapes left as they are; *escaped tells whether there are any. */
static segfm_status read_string(parser *p, span *out, bool *escaped) {
    segfm_status status = expect(p, '"');
    if (status != SEGFM_OK) return status;
    out->text = (const char *)p->bytes + p->at;
    *escaped = false;
    while (p->at < p->end && p->bytes[p->at] != '"') {
        unsigned char c = p->bytes[p->at++];
        if (c < 0x20) return bad(p, "a string holds a control character");
        if (c != '\\') continue;
        *escaped = true;
        if (!skip_escape(p)) return bad(p, "a string holds a malformed escape");
    }
    out->n = (size_t)((const char *)p->bytes + p->at - out->text);
    return p->at < p->end ? expect(p, '"') : bad(p, "a string has no end");
}

static segfm_status read_plain_string(parser *p, span *out) {
    bool escaped;
    segfm_status status = read_string(p, out, &escaped);
    if (status == SEGFM_OK && escaped) return bad(p, "a name is written with escapes, need plain text");
    return status;
}

static segfm_status read_size(parser *p, size_t *out) {
    unsigned char c = peek(p);
    size_t v = 0, first = p->at;
    if (c < '0' || c > '9') return bad(p, "need a whole number here");
    for (; p->at < p->end && p->bytes[p->at] >= '0' && p->bytes[p->at] <= '9'; p->at++)
        if (!base_mul(v, 10, &v) || !base_add(v, (size_t)(p->bytes[p->at] - '0'), &v))
            return bad(p, "a number overflows");
    if (c == '0' && p->at - first > 1) return bad(p, "a number begins with 0");
    *out = v;
    return SEGFM_OK;
}

static bool is(span s, const char *text) { return s.n == strlen(text) && memcmp(s.text, text, s.n) == 0; }

/* ---- one tensor ---------------------------------------------------------------------------------------------- */

static segfm_status read_dtype(parser *p, weights_safetensor *t) {
    static const struct {
        const char *name;
        io_dtype dtype;
    } types[] = {
        {"BOOL", IO_BOOL}, {"U8", IO_U8},   {"I8", IO_I8},   {"U16", IO_U16}, {"I16", IO_I16},
        {"U32", IO_U32},   {"I32", IO_I32}, {"U64", IO_U64}, {"I64", IO_I64}, {"F16", IO_F16},
        {"BF16", IO_BF16}, {"F32", IO_F32}, {"F64", IO_F64},
    };
    span name;
    segfm_status status = read_plain_string(p, &name);
    if (status != SEGFM_OK) return status;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (is(name, types[i].name)) t->dtype = types[i].dtype;
    return t->dtype != IO_NONE ? SEGFM_OK
                               : bad_tensor(p, t, "has a type that is not supported, need F32, F16, BF16 or F64");
}

static segfm_status read_shape(parser *p, weights_safetensor *t) {
    bool more = true;
    segfm_status status = expect(p, '[');
    if (status != SEGFM_OK || accept(p, ']')) return status;
    while (status == SEGFM_OK && more) {
        if (t->ndim == IO_MAX_DIMS) return bad_tensor(p, t, "has more than 8 dimensions");
        status = read_size(p, &t->shape[t->ndim++]);
        if (status == SEGFM_OK) status = next_member(p, ']', &more);
    }
    return status;
}

static segfm_status read_offsets(parser *p, weights_safetensor *t) {
    segfm_status status = expect(p, '[');
    if (status == SEGFM_OK) status = read_size(p, &t->begin);
    if (status == SEGFM_OK) status = expect(p, ',');
    if (status == SEGFM_OK) status = read_size(p, &t->end);
    return status == SEGFM_OK ? expect(p, ']') : status;
}

static segfm_status check_tensor(parser *p, const weights_safetensor *t) {
    size_t need;
    if (!base_count(t->shape, t->ndim, io_dtype_size(t->dtype), &need))
        return bad_tensor(p, t, "has a shape that overflows");
    if (t->begin > t->end || t->end > p->data_bytes)
        return bad_tensor(p, t, "has data_offsets outside of the file's data");
    if (t->end - t->begin != need) return bad_tensor(p, t, "has data_offsets that do not match its type and shape");
    return SEGFM_OK;
}

/* The object after a tensor's name: each of its three members once, in any order. */
static segfm_status read_tensor(parser *p, span name) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    weights_safetensor t = {.name = name.text, .name_length = name.n};
    unsigned seen = 0;
    bool more = true;
    segfm_status status = expect(p, '{');
    while (status == SEGFM_OK && more) {
        span key;
        unsigned member = 0;
        status = read_plain_string(p, &key);
        if (status == SEGFM_OK) status = expect(p, ':');
        if (status != SEGFM_OK) break;
        if (is(key, "dtype")) member = DTYPE, status = read_dtype(p, &t);
        else if (is(key, "shape")) member = SHAPE, status = read_shape(p, &t);
        else if (is(key, "data_offsets")) member = OFFSETS, status = read_offsets(p, &t);
        else return bad_tensor(p, &t, "has a member other than dtype, shape and data_offsets");
        if (status == SEGFM_OK && (seen & member) != 0) return bad_tensor(p, &t, "has a member twice");
        seen |= member;
        if (status == SEGFM_OK) status = next_member(p, '}', &more);
    }
    if (status != SEGFM_OK) return status;
    if (seen != (DTYPE | SHAPE | OFFSETS)) return bad_tensor(p, &t, "lacks dtype, shape or data_offsets");
    status = check_tensor(p, &t);
    if (status != SEGFM_OK) return status;
    t.data = p->bytes + p->end + t.begin;
    p->tensors[p->count++] = t;
    return SEGFM_OK;
}

/* ---- the header ---------------------------------------------------------------------------------------------- */

/* items with room for one more, or NULL (the old ones stay valid). The header's length bounds their number. */
static void *one_more(void *items, size_t count, size_t *capacity, size_t unit) {
    if (count < *capacity) return items;
    size_t room = *capacity == 0 ? 64 : 2 * *capacity, bytes;
    void *grown = base_mul(room, unit, &bytes) ? realloc(items, bytes) : NULL;
    if (grown != NULL) *capacity = room;
    return grown;
}

static segfm_status no_memory(parser *p) {
    (void)base_fail(p->error, SEGFM_NO_MEMORY, "safetensors offset %zu: out of memory", p->at);
    return SEGFM_NO_MEMORY;
}

static segfm_status read_metadata(parser *p) {
    bool more = true, escaped;
    segfm_status status = expect(p, '{');
    if (status != SEGFM_OK || accept(p, '}')) return status;
    while (status == SEGFM_OK && more) {
        span value, *keys = one_more(p->keys, p->key_count, &p->key_capacity, sizeof *keys);
        if (keys == NULL) return no_memory(p);
        p->keys = keys;
        status = read_string(p, &keys[p->key_count], &escaped);
        if (status == SEGFM_OK) p->key_count++, status = expect(p, ':');
        if (status == SEGFM_OK) status = read_string(p, &value, &escaped);
        if (status == SEGFM_OK) status = next_member(p, '}', &more);
    }
    return status;
}

static segfm_status read_header(parser *p) {
    bool more = true, metadata = false;
    segfm_status status = expect(p, '{');
    if (status == SEGFM_OK && accept(p, '}')) more = false;
    while (status == SEGFM_OK && more) {
        span name;
        weights_safetensor *tensors = one_more(p->tensors, p->count, &p->capacity, sizeof *tensors);
        if (tensors == NULL) return no_memory(p);
        p->tensors = tensors;
        status = read_plain_string(p, &name);
        if (status == SEGFM_OK) status = expect(p, ':');
        if (status != SEGFM_OK) break;
        if (!is(name, "__metadata__")) status = read_tensor(p, name);
        else if (metadata) return bad(p, "__metadata__ is there twice");
        else metadata = true, status = read_metadata(p);
        if (status == SEGFM_OK) status = next_member(p, '}', &more);
    }
    if (status != SEGFM_OK) return status;
    return peek(p) == 0 && p->at == p->end ? SEGFM_OK : bad(p, "something follows the JSON header");
}

/* ---- checks of the whole ------------------------------------------------------------------------------------- */

static int compare_text(const char *a, size_t a_n, const char *b, size_t b_n) {
    int order = memcmp(a, b, a_n < b_n ? a_n : b_n);
    return order != 0 ? order : (a_n > b_n) - (a_n < b_n);
}

static int compare_keys(const void *a, const void *b) {
    const span *x = a, *y = b;
    return compare_text(x->text, x->n, y->text, y->n);
}

static int compare_tensor_names(const void *a, const void *b) {
    const weights_safetensor *x = a, *y = b;
    return compare_text(x->name, x->name_length, y->name, y->name_length);
}

static int compare_offsets(const void *a, const void *b) {
    const weights_safetensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end); /* an empty tensor comes before the one that starts at its place */
}

static segfm_status check_keys(parser *p) {
    if (p->key_count > 0) qsort(p->keys, p->key_count, sizeof *p->keys, compare_keys);
    for (size_t i = 1; i < p->key_count; i++)
        if (compare_keys(&p->keys[i - 1], &p->keys[i]) == 0) return bad(p, "a key of __metadata__ is there twice");
    if (p->count > 0) qsort(p->tensors, p->count, sizeof *p->tensors, compare_tensor_names);
    for (size_t i = 1; i < p->count; i++)
        if (compare_tensor_names(&p->tensors[i - 1], &p->tensors[i]) == 0)
            return bad_tensor(p, &p->tensors[i], "is there twice");
    return SEGFM_OK;
}

static segfm_status check_offsets(parser *p) {
    size_t end = 0;
    if (p->count > 0) qsort(p->tensors, p->count, sizeof *p->tensors, compare_offsets);
    for (size_t i = 0; i < p->count; i++) {
        if (p->tensors[i].begin != end)
            return bad_tensor(p, &p->tensors[i],
                              p->tensors[i].begin < end ? "overlaps another's data" : "leaves a gap before its data");
        end = p->tensors[i].end;
    }
    if (end != p->data_bytes)
        return base_fail(p->error, SEGFM_BAD_INPUT,
                         "safetensors: the tensors end after %zu bytes of data, the file has %zu", end, p->data_bytes);
    return SEGFM_OK;
}

bool weights_is_safetensors(const unsigned char *bytes, size_t n) {
    return n >= 10 && base_le64(bytes) <= n - 8 && bytes[8] == '{';
}

segfm_status weights_safetensors_parse(const unsigned char *bytes, size_t n, weights_safetensor **out, size_t *count,
                                       segfm_error *error) {
    *out = NULL;
    *count = 0;
    if (n < 8 || base_le64(bytes) > n - 8)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "safetensors offset 0: the header does not fit into the file's %zu bytes", n);
    parser p = {.bytes = bytes, .at = 8, .end = 8 + (size_t)base_le64(bytes), .error = error};
    p.data_bytes = n - p.end;
    segfm_status status = read_header(&p);
    if (status == SEGFM_OK) status = check_keys(&p);
    if (status == SEGFM_OK) status = check_offsets(&p);
    free(p.keys);
    if (status != SEGFM_OK) {
        free(p.tensors);
        return status;
    }
    *out = p.tensors;
    *count = p.count;
    return SEGFM_OK;
}
