#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

/* Tensors of a batch are gathered in memory; those of a single window go straight to their files. */
typedef struct gathered {
    char name[WEIGHTS_NAME_MAX];
    int ndim;
    size_t shape[IO_MAX_DIMS];
    io_buffer data;
} gathered;

typedef struct tracer {
    const char *folder;
    size_t batch;
    gathered *tensors;
    size_t count;
    segfm_status status;
    segfm_error *error;
} tracer;

static void write_tensor(tracer *t, const char *name, int ndim, const size_t *shape, const real *data) {
    t->status = tool_write_tensor(t->folder, name, ndim, shape, data, t->error);
}

static gathered *gathered_of(tracer *t, const char *name, int ndim, const size_t *shape) {
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->tensors[i].name, name) == 0) return &t->tensors[i];
    gathered *more = realloc(t->tensors, (t->count + 1) * sizeof *more);
    if (more == NULL) {
        t->status = base_fail(t->error, SEGFM_NO_MEMORY, "memory: got none for tensor %s", name);
        return NULL;
    }
    t->tensors = more;
    gathered *g = &more[t->count++];
    *g = (gathered){.ndim = ndim};
    base_format(g->name, sizeof g->name, "%s", name);
    memcpy(g->shape, shape, (size_t)ndim * sizeof *shape);
    return g;
}

static void on_tensor(void *user, const char *name, int ndim, const size_t *shape, const real *data) {
    tracer *t = user;
    if (t->status != SEGFM_OK) return;
    if (t->batch == 1) {
        write_tensor(t, name, ndim, shape, data);
        return;
    }
    size_t count = 1;
    for (int i = 0; i < ndim; i++) count *= shape[i];
    gathered *g = gathered_of(t, name, ndim, shape);
    if (g != NULL) t->status = io_buffer_append(&g->data, data, count * sizeof *data, t->error);
}

static void finish(tracer *t) {
    for (size_t i = 0; i < t->count; i++) {
        gathered *g = &t->tensors[i];
        g->shape[0] *= t->batch; /* every traced tensor leads with the batch axis */
        if (t->status == SEGFM_OK)
            write_tensor(t, g->name, g->ndim, g->shape, (const real *)(const void *)g->data.data);
        io_buffer_free(&g->data);
    }
    free(t->tensors);
}

/* (tokens, dim) as the reference shows it: (1, dim, gz, gy, gx). */
static void trace_channels_first(tracer *t, const segvol_model *m, const char *name, const real *tokens) {
    size_t dim = m->config.dim;
    real *volume = malloc(m->tokens * dim * sizeof *volume);
    if (volume == NULL) {
        t->status = base_fail(t->error, SEGFM_NO_MEMORY, "memory: got none for tensor %s", name);
        return;
    }
    for (size_t i = 0; i < m->tokens; i++)
        for (size_t d = 0; d < dim; d++) volume[d * m->tokens + i] = tokens[i * dim + d];
    on_tensor(t, name, 5, (size_t[]){1, dim, m->grid[0], m->grid[1], m->grid[2]}, volume);
    free(volume);
}

/* ---- the window and the prompts ------------------------------------------------------------------------------ */

typedef struct inputs {
    io_buffer file;
    io_array array;
    real *windows; /* (batch, window) */
    size_t batch;
    real *boxes; /* (batch, 6) or NULL */
    segvol_point *points;
    size_t point_count;
} inputs;

static void inputs_free(inputs *in) {
    io_buffer_free(&in->file);
    free(in->windows);
    free(in->boxes);
    free(in->points);
}

/* Shapes (z,y,x), (1,z,y,x), (B,1,z,y,x); z,y,x must be the model's window. */
static segfm_status read_window(const char *path, const segvol_model *m, inputs *in, segfm_error *error) {
    segfm_status status = io_read_file(path, &in->file, error);
    if (status == SEGFM_OK) status = io_npy_parse(in->file.data, in->file.size, &in->array, error);
    if (status != SEGFM_OK) return status;
    const io_array *a = &in->array;
    const uint32_t *want = m->config.spatial;
    bool fits = a->dtype != IO_OBJECT && a->ndim >= 3 && a->ndim <= 5;
    for (int axis = 0; fits && axis < 3; axis++) fits = a->shape[a->ndim - 3 + axis] == want[axis];
    if (fits && a->ndim >= 4) fits = a->shape[a->ndim - 4] == 1;
    if (!fits || a->count == 0)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "window: got %d axes, %zu elements, need %d x %d x %d or (B,1) before it", a->ndim, a->count,
                         (int)want[0], (int)want[1], (int)want[2]);
    in->batch = a->ndim == 5 ? a->shape[0] : 1;
    status = tool_array_reals(a, &in->windows, error);
    for (size_t i = 0; status == SEGFM_OK && i < a->count; i++)
        if (!isfinite(in->windows[i]))
            status = base_fail(error, SEGFM_BAD_INPUT, "window: element %zu is not finite", i);
    return status;
}

static segfm_status read_prompts(const tool_list *boxes, const tool_list *points, inputs *in, segfm_error *error) {
    if (boxes->count != 0 && (size_t)boxes->count != in->batch)
        return base_fail(error, SEGFM_BAD_USAGE, "--box: got %d, need one for each of %zu windows", boxes->count,
                         in->batch);
    in->boxes = boxes->count == 0 ? NULL : malloc((size_t)boxes->count * 6 * sizeof *in->boxes);
    in->points = malloc(((size_t)points->count + 1) * sizeof *in->points);
    if ((boxes->count != 0 && in->boxes == NULL) || in->points == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the prompts");
    for (int i = 0; i < boxes->count; i++) {
        double v[6];
        segfm_status status = tool_numbers(boxes->items[i], "--box", 6, v, error);
        if (status != SEGFM_OK) return status;
        for (int j = 0; j < 6; j++) in->boxes[6 * i + j] = (real)v[j];
    }
    for (int i = 0; i < points->count; i++) {
        double v[4];
        segfm_status status = tool_numbers(points->items[i], "--point", 4, v, error);
        if (status != SEGFM_OK) return status;
        if (v[3] != 0 && v[3] != 1 && v[3] != -1)
            return base_fail(error, SEGFM_BAD_USAGE, "--point: got %s, the label must be 1, 0 or -1", points->items[i]);
        in->points[in->point_count++] = (segvol_point){(real)v[0], (real)v[1], (real)v[2], (int)v[3]};
    }
    return SEGFM_OK;
}

static void trace_windows(tool_network *n, const inputs *in, tracer *t) {
    const segvol_model *m = &n->net;
    n->workspace.trace = on_tensor;
    n->workspace.trace_user = t;
    for (size_t b = 0; b < in->batch && t->status == SEGFM_OK; b++) {
        segvol_prompts prompts = {in->points, in->point_count, in->boxes != NULL ? in->boxes + 6 * b : NULL};
        segvol_encode(m, &n->workspace, in->windows + b * m->window_voxels, n->embedding);
        trace_channels_first(t, m, "image_embedding", n->embedding);
        if (b == 0) { /* the same for every window */
            size_t batch = t->batch;
            t->batch = 1;
            trace_channels_first(t, m, "dense_pe", m->dense_pe);
            t->batch = batch;
        }
        segvol_decode(m, &n->workspace, n->embedding, &prompts);
        segvol_upsample(m, &n->workspace, 0, n->logits);
    }
}

segfm_status command_trace(int argc, char **argv, segfm_error *error) {
    const char *weights = NULL, *window = NULL, *folder = NULL;
    tool_list boxes = {0}, points = {0};
    tool_correct correct = {0};
    tool_common common;
    const tool_option options[] = {{"-w", .value = &weights},
                                   {"--window", .value = &window},
                                   {"--box", .list = &boxes},
                                   {"--point", .list = &points},
                                   {"--correct", .value = &correct.logits},
                                   {"--labels", .value = &correct.labels},
                                   {"--click", .list = &correct.clicks},
                                   {"--steps", .value = &correct.steps},
                                   {"--variant", .value = &correct.variant},
                                   {"--out", .value = &folder},
                                   {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &common, error);
    if (status == SEGFM_OK) status = tool_need(weights, "-w", error);
    if (status == SEGFM_OK) status = tool_need(folder, "--out", error);
    bool corrects = correct.logits != NULL, windows = window != NULL || boxes.count > 0 || points.count > 0;
    if (status == SEGFM_OK && corrects && windows)
        status = base_fail(error, SEGFM_BAD_USAGE, "--correct: cannot be had with --window, --box or --point");
    if (status == SEGFM_OK && corrects) return tool_trace_correct(&correct, weights, folder, &common, error);
    if (status == SEGFM_OK) status = tool_need(window, "--window", error);
    if (status == SEGFM_OK &&
        (correct.labels != NULL || correct.clicks.count > 0 || correct.steps != NULL || correct.variant != NULL))
        status = base_fail(error, SEGFM_BAD_USAGE, "--labels, --click, --steps, --variant: are for --correct alone");
    if (status != SEGFM_OK) return status;

    tool_model source = {0};
    tool_network network = {0};
    inputs in = {0};
    const unsigned char *bytes = NULL;
    size_t size = 0;
    status = tool_weights_bytes(weights, &source, &bytes, &size, error);
    if (status == SEGFM_OK) {
        status =
            tool_network_open(bytes, size, false, &source, (size_t)points.count + 2, common.threads, &network, error);
        if (status != SEGFM_OK) base_fail_where(error, status, weights);
    }
    tool_model_close(&source);
    if (status == SEGFM_OK) {
        status = read_window(window, &network.net, &in, error);
        if (status != SEGFM_OK) base_fail_where(error, status, window);
    }
    if (status == SEGFM_OK) status = read_prompts(&boxes, &points, &in, error);
    if (status == SEGFM_OK) status = tool_make_folder(folder, error);
    if (status == SEGFM_OK) {
        tracer t = {.folder = folder, .batch = in.batch, .error = error};
        trace_windows(&network, &in, &t);
        finish(&t);
        status = t.status;
    }
    inputs_free(&in);
    tool_network_close(&network);
    return status;
}
