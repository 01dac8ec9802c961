#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools.h"

/* ---- names --------------------------------------------------------------------------------------------------- */

/* The reference's dumps shorten some paths; both spellings name one tensor. A prefix is replaced by a prefix. */
static const struct {
    const char *brief, *full;
} spellings[] = {
    {"patch_embedding", "image_encoder.patch_embedding"},
    {"norm", "image_encoder.norm"},
    {"image_embedding_NCDHW", "image_embedding"},
    {"final_attn", "mask_decoder.transformer.final_attn_token_to_image"},
    {"up.convt1", "mask_decoder.output_upscaling.0"},
    {"up.ln", "mask_decoder.output_upscaling.1"},
    {"up.convt2", "mask_decoder.output_upscaling.3"},
};

static void full_name(const char *name, char *out, size_t capacity) {
    if (strncmp(name, "model.", 6) == 0) name += 6;
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++)
        if (strcmp(name, spellings[i].brief) == 0) {
            base_format(out, capacity, "%s", spellings[i].full);
            return;
        }
    if (strncmp(name, "block", 5) == 0 && name[5] >= '0' && name[5] <= '9')
        base_format(out, capacity, "image_encoder.blocks.%s", name + 5);
    else if (strncmp(name, "layer", 5) == 0 && name[5] >= '0' && name[5] <= '9')
        base_format(out, capacity, "mask_decoder.transformer.layers.%s", name + 5);
    else base_format(out, capacity, "%s", name);
}

/* The order in which the network makes its tensors, so that the first one that differs is where to look. Entries that
   hold a number repeat as a group. */
static const char *const order[] = {
    "image_encoder.patch_embedding",
    "image_encoder.blocks.# .norm1 .attn.qkv .attn .norm2 .mlp.linear1 .mlp .",
    "image_encoder.norm",
    "image_embedding",
    "dense_pe",
    "sparse",
    ("mask_decoder.transformer.layers.# .self_attn .norm1 .cross_attn_token_to_image .norm2 .mlp .norm3 "
     ".cross_attn_image_to_token .queries .keys"),
    "mask_decoder.transformer.final_attn_token_to_image",
    "transformer.hs",
    "transformer.src",
    "mask_decoder.output_upscaling.0",
    "mask_decoder.output_upscaling.1",
    "mask_decoder.output_upscaling.3",
    "upscaled_embedding",
    "hyper_in",
    "masks_all4",
    "low_res_masks",
    "iou_pred_all4",
    "iou_pred",
    "logits",
};

/* Place of `rest` (".norm1", or "" as ".") among the words after the group's prefix. */
static long place_in_group(const char *words, const char *rest) {
    if (rest[0] == '\0') rest = ".";
    size_t length = strlen(rest);
    long place = 0;
    for (const char *w = strchr(words, ' '); w != NULL; w = strchr(w + 1, ' '), place++) {
        size_t word = strcspn(w + 1, " ");
        if (word == length && strncmp(w + 1, rest, length) == 0) break;
    }
    return place;
}

static long rank_of(const char *name) {
    enum { ENTRIES = sizeof order / sizeof order[0] };
    for (long i = 0; i < ENTRIES; i++) {
        const char *mark = strchr(order[i], '#');
        if (mark == NULL && strcmp(name, order[i]) == 0) return i * 1000000;
        size_t prefix = mark == NULL ? 0 : (size_t)(mark - order[i]);
        if (mark == NULL || strncmp(name, order[i], prefix) != 0) continue;
        char *rest;
        long number = strtol(name + prefix, &rest, 10);
        if (number >= 0 && number < 10000) return i * 1000000 + number * 100 + place_in_group(order[i], rest);
    }
    return ENTRIES * 1000000L;
}

/* ---- a side: a folder of .npy files or an .npz file ----------------------------------------------------------- */

typedef struct entry {
    char name[256]; /* full spelling */
    char *file;     /* name within the side */
} entry;

typedef struct side {
    const char *path;
    bool archive;
    io_mapping mapping;
    io_zip zip;
    tool_names files;
    entry *entries;
    size_t count;
} side;

static void side_close(side *s) {
    io_zip_close(&s->zip);
    io_unmap_file(&s->mapping);
    tool_names_free(&s->files);
    free(s->entries);
}

static int by_rank(const void *a, const void *b) {
    const entry *x = a, *y = b;
    long p = rank_of(x->name), q = rank_of(y->name);
    return p != q ? (p > q) - (p < q) : strcmp(x->name, y->name);
}

static segfm_status side_open(const char *path, side *s, segfm_error *error) {
    struct stat info;
    segfm_status status;
    *s = (side){.path = path};
    if (stat(path, &info) != 0) return io_fail(error, SEGFM_BAD_INPUT, path, "cannot be opened", errno);
    s->archive = S_ISREG(info.st_mode);
    if (s->archive) {
        status = io_map_file(path, &s->mapping, error);
        if (status == SEGFM_OK) status = io_zip_open(s->mapping.data, s->mapping.size, &s->zip, error);
        s->count = s->zip.count;
    } else {
        status = tool_list_folder(path, ".npy", &s->files, error);
        s->count = s->files.count;
    }
    if (status == SEGFM_OK && s->count == 0) status = base_fail(error, SEGFM_BAD_INPUT, "holds no tensor");
    if (status == SEGFM_OK && (s->entries = calloc(s->count, sizeof *s->entries)) == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %zu names", s->count);
    if (status != SEGFM_OK) return base_fail_where(error, status, path);
    for (size_t i = 0; i < s->count; i++) {
        char brief[256];
        s->entries[i].file = s->archive ? s->zip.entries[i].name : s->files.items[i];
        base_format(brief, sizeof brief, "%s", s->entries[i].file);
        if (tool_ends_with(brief, ".npy")) brief[strlen(brief) - 4] = '\0';
        full_name(brief, s->entries[i].name, sizeof s->entries[i].name);
    }
    qsort(s->entries, s->count, sizeof *s->entries, by_rank);
    return SEGFM_OK;
}

static const entry *side_find(const side *s, const char *name) {
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->entries[i].name, name) == 0) return &s->entries[i];
    return NULL;
}

typedef struct tensor {
    io_buffer bytes;
    io_array array;
    double *values;
} tensor;

static void tensor_free(tensor *t) {
    io_buffer_free(&t->bytes);
    free(t->values);
}

static segfm_status side_read(const side *s, const entry *e, tensor *t, segfm_error *error) {
    segfm_status status;
    char path[4096] = "";
    *t = (tensor){0};
    if (s->archive) status = io_zip_read(&s->zip, io_zip_find(&s->zip, e->file), &t->bytes, error);
    else {
        status = tool_path(path, sizeof path, s->path, e->file, error);
        if (status == SEGFM_OK) status = io_read_file(path, &t->bytes, error);
    }
    if (status == SEGFM_OK) status = io_npy_parse(t->bytes.data, t->bytes.size, &t->array, error);
    if (status == SEGFM_OK && t->array.dtype == IO_OBJECT)
        status = base_fail(error, SEGFM_BAD_INPUT, "tensor %s holds objects, need numbers", e->file);
    if (status == SEGFM_OK && (t->values = malloc((t->array.count + 1) * sizeof(double))) == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for tensor %s", e->file);
    if (status == SEGFM_OK) io_array_to_f64(&t->array, t->values);
    else {
        tensor_free(t);
        base_fail_where(error, status, path[0] != '\0' ? path : s->path);
    }
    return status;
}

/* ---- comparing ------------------------------------------------------------------------------------------------ */

typedef struct limits {
    double atol, rtol;
    bool bits;
} limits;

typedef struct difference {
    double max_abs, relative_l2;
    size_t count, equal; /* equal: after rounding both to float32 */
    uint32_t ulps;       /* the largest difference after rounding */
    bool finite;         /* both sides */
    bool within;         /* atol, rtol and finiteness */
} difference;

/* float32 as an integer that grows with the value, so that neighbours differ by 1. */
static int64_t float_rank(double v) {
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return (bits & 0x80000000U) != 0 ? -(int64_t)(bits & 0x7FFFFFFFU) : (int64_t)bits;
}

static difference compare_values(const double *a, const double *b, size_t n, const limits *l) {
    difference d = {.count = n, .finite = true, .within = true};
    double error = 0, reference = 0;
    for (size_t i = 0; i < n; i++) {
        double gap = fabs(a[i] - b[i]);
        if (!isfinite(a[i]) || !isfinite(b[i])) d.finite = false;
        if (!(gap <= l->atol + l->rtol * fabs(b[i])) || !isfinite(a[i])) d.within = false;
        if (!(gap <= d.max_abs)) d.max_abs = gap;
        error += gap * gap;
        reference += b[i] * b[i];
        int64_t steps = float_rank(a[i]) - float_rank(b[i]);
        if (steps < 0) steps = -steps;
        if (steps == 0) d.equal++;
        if (steps > d.ulps) d.ulps = steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps;
    }
    d.relative_l2 = reference > 0 ? sqrt(error / reference) : error > 0 ? INFINITY : 0;
    return d;
}

static void shape_text(const io_array *a, char *out, size_t capacity) {
    char part[128] = "";
    base_format(out, capacity, "(");
    for (int i = 0; i < a->ndim; i++) {
        base_format(part, sizeof part, "%s%s%zu", out, i == 0 ? "" : ",", a->shape[i]);
        base_format(out, capacity, "%s", part);
    }
    base_format(part, sizeof part, "%s)", out);
    base_format(out, capacity, "%s", part);
}

static bool same_shape(const io_array *a, const io_array *b) {
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

typedef struct totals {
    size_t tensors, failed, broken, elements, equal; /* broken: missing, of another shape, or not finite */
    uint32_t ulps;
    char first[256]; /* the first tensor that differs */
} totals;

static void note_failure(totals *t, const char *name) {
    t->failed++;
    if (t->first[0] == '\0') base_format(t->first, sizeof t->first, "%s", name);
}

static segfm_status compare_entry(const side *a, const side *b, const entry *e, const limits *l, totals *t,
                                  segfm_error *error) {
    const entry *mine = side_find(a, e->name);
    char shape[96], other[96];
    tensor x = {0}, y = {0};
    t->tensors++;
    if (mine == NULL) {
        printf("%-66s %-22s missing in %s\n", e->name, "", a->path);
        t->broken++;
        note_failure(t, e->name);
        return SEGFM_OK;
    }
    segfm_status status = side_read(a, mine, &x, error);
    if (status == SEGFM_OK) status = side_read(b, e, &y, error);
    if (status == SEGFM_OK) {
        shape_text(&x.array, shape, sizeof shape);
        if (!same_shape(&x.array, &y.array)) {
            shape_text(&y.array, other, sizeof other);
            printf("%-66s %-22s shape differs from %s\n", e->name, shape, other);
            t->broken++;
            note_failure(t, e->name);
        } else {
            difference d = compare_values(x.values, y.values, x.array.count, l);
            t->elements += d.count;
            t->equal += d.equal;
            if (d.ulps > t->ulps) t->ulps = d.ulps;
            bool ok = l->bits ? d.equal == d.count && d.finite : d.within;
            if (!d.finite) t->broken++;
            printf("%-66s %-22s max abs %.3e  rel L2 %.3e", e->name, shape, d.max_abs, d.relative_l2);
            if (l->bits) printf("  equal %zu of %zu  ulps %u", d.equal, d.count, (unsigned)d.ulps);
            printf("  %s\n", ok ? "ok" : "DIFFERS");
            if (!ok) note_failure(t, e->name);
        }
    }
    tensor_free(&x);
    tensor_free(&y);
    return status;
}

/* With --bits all tensors together decide: at most one unequal element in a million, and that by one ulp. */
static bool holds(const totals *t, const limits *l) {
    if (!l->bits) return t->failed == 0;
    return t->broken == 0 && t->ulps <= 1 && (double)(t->elements - t->equal) * 1e6 <= (double)t->elements;
}

static segfm_status compare_sides(const side *a, const side *b, const limits *l, segfm_error *error) {
    totals t = {0};
    for (size_t i = 0; i < b->count; i++) {
        segfm_status status = compare_entry(a, b, &b->entries[i], l, &t, error);
        if (status != SEGFM_OK) return status;
    }
    size_t extra = 0;
    for (size_t i = 0; i < a->count; i++) extra += side_find(b, a->entries[i].name) == NULL;
    if (extra > 0) printf("%zu tensors only in %s, not compared\n", extra, a->path);
    if (l->bits)
        printf("as float32: %zu of %zu elements equal, largest difference %u ulps\n", t.equal, t.elements,
               (unsigned)t.ulps);
    if (t.failed > 0) printf("first to diverge: %s\n", t.first);
    printf("%zu tensors, %zu differ\n", t.tensors, t.failed);
    return holds(&t, l) ? SEGFM_OK : SEGFM_CHECK_FAILED;
}

segfm_status command_compare(int argc, char **argv, segfm_error *error) {
    const char *atol = NULL, *rtol = NULL, *paths[2];
    limits l = {1e-5, 1e-5, false};
    tool_common common;
    const tool_option options[] = {
        {"--atol", .value = &atol}, {"--rtol", .value = &rtol}, {"--bits", .flag = &l.bits}, {0}};
    segfm_status status = tool_parse(argc, argv, options, paths, 2, &common, error);
    if (status == SEGFM_OK && atol != NULL) status = tool_number(atol, "--atol", &l.atol, error);
    if (status == SEGFM_OK && rtol != NULL) status = tool_number(rtol, "--rtol", &l.rtol, error);
    if (status == SEGFM_OK && (l.atol < 0 || l.rtol < 0))
        status = base_fail(error, SEGFM_BAD_USAGE, "tolerances must not be negative");
    if (status != SEGFM_OK) return status;
    side a = {0}, b = {0};
    status = side_open(paths[0], &a, error);
    if (status == SEGFM_OK) status = side_open(paths[1], &b, error);
    if (status == SEGFM_OK) status = compare_sides(&a, &b, &l, error);
    side_close(&a);
    side_close(&b);
    return status;
}
