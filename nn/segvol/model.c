#include "segvol.h"

#include <assert.h>

#ifdef _OPENMP
#define ATOMIC(access) _Pragma(#access)
#else
#define ATOMIC(access)
#endif

/* ---- binding ------------------------------------------------------------------------------------------------- */

/* One tensor on its way into the arena. It is read in pieces, which the threads share. */
typedef struct segvol_task task;
typedef bool read_piece(task *job, size_t piece); /* false: a value is not finite */
struct segvol_task {
    weights_tensor tensor; /* in a file, or … */
    const real *plain;     /* … among flat parameters, in C order */
    void *data;
    size_t n, k; /* of panels or tiles */
    read_piece *read;
    size_t before; /* pieces of all tasks before this one */
    size_t left;   /* pieces that are not there yet */
    bool refused;  /* a value is not finite */
};

#ifndef SEGFM_TINY
enum { STRETCH = 1 << 14 };
#else
enum { STRETCH = 7 };
#endif

/* What the binding functions share: they only note what is to be read where, run_tasks reads. The first failure stays in
   `status`. */
typedef struct {
    const weights_file
        *file; /* or NULL: all tensors of config, one after the other from `flat` on (NULL while counting) */
    const weights_config *config;
    const real *flat;
    bool offsets; /* with the optional ones */
    size_t all;   /* tensors there may be */
    nn_arena *arena;
    task *tasks; /* (all); NULL while counting */
    size_t count, pieces;
    segfm_status status;
    segfm_error *error;
} binder;

/* Where a tensor's values come from. */
typedef struct source {
    weights_tensor tensor; /* of a file */
    const real *plain;     /* of flat parameters; NULL while counting too */
    size_t rows, columns;  /* its first two axes */
    size_t count;          /* 0: there is no such tensor */
    bool half;
} source;

static source look_up(const binder *b, const char *path) {
    if (b->file != NULL) {
        weights_tensor t;
        if (!weights_look_up(b->file, path, &t)) return (source){0};
        return (source){t, NULL, t.shape[0], t.shape[1], t.count, t.dtype == IO_F16};
    }
    weights_spec spec;
    size_t at = 0, count = 0;
    for (size_t i = 0; weights_spec_at(b->config, i, &spec); i++, at += count) {
        count = 0;
        if (!spec.required && !b->offsets) continue;
        count = 1;
        for (int axis = 0; axis < spec.ndim; axis++) count = nn_times(count, spec.shape[axis]);
        if (strcmp(spec.name, path) == 0)
            return (source){.plain = b->flat == NULL ? NULL : b->flat + at,
                            .rows = spec.shape[0],
                            .columns = spec.shape[1],
                            .count = count};
    }
    return (source){0};
}

/* The tensor prefix + name; weights_open has checked that every required one is there with its shape. */
static source find(binder *b, const char *prefix, const char *name) {
    char path[2 * WEIGHTS_NAME_MAX];
    base_format(path, sizeof path, "%s%s", prefix, name);
    source found = look_up(b, path);
    if (found.count == 0 && b->status == SEGFM_OK)
        b->status = base_fail(b->error, SEGFM_BAD_INPUT, "tensor %s is missing", path);
    return found;
}

/* A tensor is asked for once, so the tasks are at most the file's tensors. */
static void add_task(binder *b, task t, size_t pieces) {
    if (t.data == NULL || b->tasks == NULL) return; /* counting, or there is no room */
    assert(b->count < b->all);
    t.before = b->pieces;
    t.left = pieces;
    b->tasks[b->count++] = t;
    b->pieces += pieces;
}

/* A row of the tensor (out, in) is a column of B. */
static bool read_row(void *user, size_t row, size_t at, size_t count, void *out) {
    const task *job = user;
    size_t first = row * job->k + at;
    if (job->plain != NULL) {
        memcpy(out, job->plain + first, count * sizeof(real));
        return true;
    }
    if (job->tensor.dtype == IO_F16) return weights_read_half(&job->tensor, first, count, out);
    return weights_read(&job->tensor, first, count, out);
}

static bool read_panel(task *job, size_t panel) {
    bool half = job->plain == NULL && job->tensor.dtype == IO_F16;
    return nn_panels_fill(job->n, job->k, half, job->data, panel, read_row, job);
}

/* Rows of a transposed convolution's weight (in, out, 2,2,2), as nn_conv_transpose_pack lays them out. */
static bool read_tile(task *job, size_t piece) {
    size_t tile = nn_kernels_best()->tile.rows, first = piece * tile, rest = job->n - first,
           rows = rest < tile ? rest : tile;
    real *to = (real *)job->data + first * job->k;
    bool fine = true;
    for (size_t i = 0; i < job->k; i++, to += tile) {
        if (job->plain != NULL) memcpy(to, job->plain + i * job->n + first, rows * sizeof(real));
        else fine = weights_read(&job->tensor, i * job->n + first, rows, to) && fine;
        for (size_t r = rows; r < tile; r++) to[r] = 0;
    }
    return fine;
}

static bool read_stretch(task *job, size_t piece) {
    size_t first = piece * STRETCH, rest = job->tensor.count - first;
    return weights_read(&job->tensor, first, rest < STRETCH ? rest : STRETCH, (real *)job->data + first);
}

/* The task that global piece number `piece` belongs to: the last one that begins at or before it. */
static task *task_of(const binder *b, size_t piece) {
    size_t low = 0, high = b->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (b->tasks[middle].before <= piece) low = middle;
        else high = middle;
    }
    return &b->tasks[low];
}

/* Tells of the tasks from *next on that are complete, in their order. A refused one will be looked at again. */
static void tell(const binder *b, size_t *next, segvol_done *done, void *user) {
    for (; *next < b->count; ++*next) {
        task *job = &b->tasks[*next];
        size_t left;
        ATOMIC(omp atomic read seq_cst)
        left = job->left;
        if (left > 0) return;
        if (done != NULL && !job->refused) done(user, job->tensor.data, weights_tensor_bytes(&job->tensor));
    }
}

/* One loop over all pieces: with a loop per tensor, threads would wait for the slowest hundreds of times. Only the calling
   thread calls `done`, between its own pieces. */
static void run_tasks(binder *b, int threads, segvol_done *done, void *user) {
    size_t next = 0;
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (ptrdiff_t piece = 0; piece < (ptrdiff_t)b->pieces; piece++) {
        task *job = task_of(b, (size_t)piece);
        if (!job->read(job, (size_t)piece - job->before)) {
            ATOMIC(omp atomic write)
            job->refused = true;
        }
        ATOMIC(omp atomic update seq_cst)
        job->left--;
        if (nn_thread() == 0) tell(b, &next, done, user);
    }
    tell(b, &next, done, user);
    for (size_t i = 0; b->status == SEGFM_OK && i < b->count; i++)
        if (b->tasks[i].refused) b->status = weights_check_finite(&b->tasks[i].tensor, b->error);
}

/* Flat parameters are read where they lie. */
static const real *bind_vector(binder *b, const char *prefix, const char *name) {
    source t = find(b, prefix, name);
    if (b->file == NULL) return t.plain;
    real *data = nn_arena_reals(b->arena, t.count);
    add_task(b, (task){.tensor = t.tensor, .data = data, .read = read_stretch}, (t.count + STRETCH - 1) / STRETCH);
    return data;
}

static segvol_norm bind_norm(binder *b, const char *prefix, const char *name) {
    char path[WEIGHTS_NAME_MAX];
    base_format(path, sizeof path, "%s%s.", prefix, name);
    source t = find(b, path, "weight");
    return (segvol_norm){bind_vector(b, path, "weight"), bind_vector(b, path, "bias"), t.count};
}

/* plain (or NULL): where flat parameters have the same */
static nn_panels bind_panels(binder *b, const char *prefix, const char *name, const real **plain) {
    source t = find(b, prefix, name);
    if (t.count == 0) return (nn_panels){0};
    if (plain != NULL) *plain = t.plain;
    size_t n = t.rows, k = t.count / n;
    void *data = nn_arena_take(b->arena, nn_panels_count(n, k), t.half ? sizeof(uint16_t) : sizeof(real));
    add_task(b, (task){.tensor = t.tensor, .plain = t.plain, .data = data, .n = n, .k = k, .read = read_panel},
             (n + NN_LANES - 1) / NN_LANES);
    return t.half ? (nn_panels){.n = n, .k = k, .half = data} : (nn_panels){.n = n, .k = k, .data = data};
}

static segvol_linear bind_linear(binder *b, const char *prefix, const char *name, bool has_bias) {
    char path[WEIGHTS_NAME_MAX];
    base_format(path, sizeof path, "%s%s.", prefix, name);
    segvol_linear linear = {0};
    linear.weight = bind_panels(b, path, "weight", &linear.plain);
    if (has_bias) linear.bias = bind_vector(b, path, "bias");
    return linear;
}

static nn_conv_transpose bind_conv_transpose(binder *b, const char *prefix, const real **plain) {
    source t = find(b, prefix, "weight");
    if (t.count == 0) return (nn_conv_transpose){0};
    *plain = t.plain;
    size_t in = t.rows, out = t.columns;
    real *data = nn_arena_reals(b->arena, nn_conv_transpose_count(in, out));
    size_t rows = t.count / in, tile = nn_kernels_best()->tile.rows;
    add_task(b, (task){.tensor = t.tensor, .plain = t.plain, .data = data, .n = rows, .k = in, .read = read_tile},
             (rows + tile - 1) / tile);
    return (nn_conv_transpose){in, out, data, bind_vector(b, prefix, "bias")};
}

static segvol_attention bind_attention(binder *b, const char *prefix, const char *name) {
    char path[WEIGHTS_NAME_MAX];
    base_format(path, sizeof path, "%s%s.", prefix, name);
    return (segvol_attention){bind_linear(b, path, "q_proj", true), bind_linear(b, path, "k_proj", true),
                              bind_linear(b, path, "v_proj", true), bind_linear(b, path, "out_proj", true)};
}

static segvol_mlp bind_mlp(binder *b, const char *prefix, size_t count) {
    segvol_mlp mlp = {.count = count};
    for (size_t i = 0; i < count; i++) {
        char name[32];
        base_format(name, sizeof name, "layers.%zu", i);
        mlp.layers[i] = bind_linear(b, prefix, name, true);
    }
    return mlp;
}

static void bind_encoder(binder *b, segvol_model *m) {
    const char *embedding = "image_encoder.patch_embedding.";
    m->patch_embedding = bind_linear(b, embedding, "patch_embeddings.1", true);
    m->position_embeddings = bind_vector(b, embedding, "position_embeddings");
    m->blocks = nn_arena_take(b->arena, m->config.depth, sizeof *m->blocks);
    for (size_t i = 0; i < m->config.depth; i++) {
        char path[WEIGHTS_NAME_MAX];
        base_format(path, sizeof path, "image_encoder.blocks.%zu.", i);
        segvol_block block;
        block.norm1 = bind_norm(b, path, "norm1");
        block.qkv = bind_linear(b, path, "attn.qkv", false);
        block.out_proj = bind_linear(b, path, "attn.out_proj", true);
        block.norm2 = bind_norm(b, path, "norm2");
        block.linear1 = bind_linear(b, path, "mlp.linear1", true);
        block.linear2 = bind_linear(b, path, "mlp.linear2", true);
        if (m->blocks != NULL) m->blocks[i] = block;
    }
    m->norm = bind_norm(b, "image_encoder.", "norm");
}

static void bind_prompts(binder *b, segvol_model *m) {
    const char *prefix = "prompt_encoder.";
    m->gaussian = bind_vector(b, prefix, "pe_layer.positional_encoding_gaussian_matrix");
    for (size_t i = 0; i < 4; i++) {
        char name[WEIGHTS_NAME_MAX];
        base_format(name, sizeof name, "point_embeddings.%zu.weight", i);
        m->point_embeddings[i] = bind_vector(b, prefix, name);
    }
    m->not_a_point = bind_vector(b, prefix, "not_a_point_embed.weight");
    m->no_mask = bind_vector(b, prefix, "no_mask_embed.weight");
}

static void bind_decoder(binder *b, segvol_model *m) {
    const char *prefix = "mask_decoder.";
    m->iou_token = bind_vector(b, prefix, "iou_token.weight");
    m->mask_tokens = bind_vector(b, prefix, "mask_tokens.weight");
    m->layers = nn_arena_take(b->arena, m->config.decoder_depth, sizeof *m->layers);
    for (size_t i = 0; i < m->config.decoder_depth; i++) {
        char path[WEIGHTS_NAME_MAX];
        base_format(path, sizeof path, "mask_decoder.transformer.layers.%zu.", i);
        segvol_two_way layer;
        layer.self_attn = bind_attention(b, path, "self_attn");
        layer.norm1 = bind_norm(b, path, "norm1");
        layer.token_to_image = bind_attention(b, path, "cross_attn_token_to_image");
        layer.norm2 = bind_norm(b, path, "norm2");
        layer.lin1 = bind_linear(b, path, "mlp.lin1", true);
        layer.lin2 = bind_linear(b, path, "mlp.lin2", true);
        layer.norm3 = bind_norm(b, path, "norm3");
        layer.image_to_token = bind_attention(b, path, "cross_attn_image_to_token");
        layer.norm4 = bind_norm(b, path, "norm4");
        if (m->layers != NULL) m->layers[i] = layer;
    }
    m->final_attention = bind_attention(b, "mask_decoder.transformer.", "final_attn_token_to_image");
    m->norm_final = bind_norm(b, "mask_decoder.transformer.", "norm_final_attn");
    m->up1 = bind_conv_transpose(b, "mask_decoder.output_upscaling.0.", &m->up1_plain);
    m->up_norm = bind_norm(b, "mask_decoder.", "output_upscaling.1");
    m->up2 = bind_conv_transpose(b, "mask_decoder.output_upscaling.3.", &m->up2_plain);
    for (size_t i = 0; i < m->config.mask_tokens; i++) {
        char path[WEIGHTS_NAME_MAX];
        base_format(path, sizeof path, "mask_decoder.output_hypernetworks_mlps.%zu.", i);
        m->hyper[i] = bind_mlp(b, path, m->config.hyper_layers);
    }
    m->iou_head = bind_mlp(b, "mask_decoder.iou_prediction_head.", m->config.iou_layers);
}

static void bind_corrector(binder *b, segvol_model *m) {
    bool has_offsets = look_up(b, "gru_blocks.0.fc_coord.weight").count > 0;
    m->gru_count = m->config.gru_blocks;
    m->gru = nn_arena_take(b->arena, m->gru_count, sizeof *m->gru);
    for (size_t i = 0; i < m->gru_count; i++) {
        char path[WEIGHTS_NAME_MAX];
        base_format(path, sizeof path, "gru_blocks.%zu.", i);
        segvol_gru block = {0};
        block.gru.input = bind_panels(b, path, "gru.weight_ih_l0", &block.plain.input);
        block.gru.recurrent = bind_panels(b, path, "gru.weight_hh_l0", &block.plain.recurrent);
        block.gru.input_bias = bind_vector(b, path, "gru.bias_ih_l0");
        block.gru.recurrent_bias = bind_vector(b, path, "gru.bias_hh_l0");
        block.fc_prob = bind_linear(b, path, "fc_prob", true);
        block.plain.input_bias = block.gru.input_bias;
        block.plain.recurrent_bias = block.gru.recurrent_bias;
        if (has_offsets) block.fc_coord = bind_linear(b, path, "fc_coord", true);
        if (m->gru != NULL) m->gru[i] = block;
    }
}

segfm_status segvol_does_not_fit(const char *what, const nn_arena *arena, segfm_error *error) {
    if (arena->base == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "the %s needs more bytes than can be addressed", what);
    return base_fail(error, SEGFM_NO_MEMORY, "the %s does not fit into %zu bytes", what, arena->capacity);
}

/* The model's sizes, then everything of it through the binder; *coordinates: scratch of segvol_dense_pe. */
static segfm_status bind_all(binder *b, segvol_model *model, const weights_config *c, bool corrector,
                             real **coordinates) {
    if (c->mask_tokens > SEGVOL_MAX_MASKS || c->hyper_layers > SEGVOL_MAX_MLP || c->iou_layers > SEGVOL_MAX_MLP)
        return base_fail(b->error, SEGFM_BAD_INPUT,
                         "mask tokens and MLP layers: got %d, %d and %d, at most %d, %d and %d are supported",
                         (int)c->mask_tokens, (int)c->hyper_layers, (int)c->iou_layers, SEGVOL_MAX_MASKS,
                         SEGVOL_MAX_MLP, SEGVOL_MAX_MLP);
    *model = (segvol_model){.config = *c, .tokens = 1, .low_voxels = 1, .window_voxels = 1};
    for (int axis = 0; axis < 3; axis++) {
        model->grid[axis] = c->spatial[axis] / c->patch[axis];
        model->tokens = nn_times(model->tokens, model->grid[axis]);
        model->low_res[axis] = 4 * model->grid[axis];
        model->low_voxels = nn_times(model->low_voxels, model->low_res[axis]);
        model->window_voxels = nn_times(model->window_voxels, c->spatial[axis]);
    }
    b->tasks = nn_arena_take(b->arena, b->all, sizeof *b->tasks);
    bind_encoder(b, model);
    bind_prompts(b, model);
    bind_decoder(b, model);
    if (corrector && c->gru_blocks > 0) bind_corrector(b, model);
    model->dense_pe = nn_arena_reals(b->arena, nn_times(model->tokens, c->dim));
    *coordinates = nn_arena_reals(b->arena, nn_times(model->tokens, 3));
    if (b->status == SEGFM_OK && b->arena->failed) b->status = segvol_does_not_fit("model", b->arena, b->error);
    return b->status;
}

segfm_status segvol_model_bind(segvol_model *model, const weights_file *file, bool corrector, nn_arena *arena,
                               int threads, segvol_done *done, void *done_user, segfm_error *error) {
    binder b = {.file = file, .all = file->count, .arena = arena, .status = SEGFM_OK, .error = error};
    real *coordinates;
    segfm_status status = bind_all(&b, model, &file->config, corrector, &coordinates);
    if (status != SEGFM_OK || arena->base == NULL) return status;
    run_tasks(&b, threads, done, done_user);
    if (b.status == SEGFM_OK)
        segvol_dense_pe(model, &(nn_run){threads, NULL, nn_kernels_best()}, coordinates, model->dense_pe);
    return b.status;
}

segfm_status segvol_model_bind_flat(segvol_flat *f, const weights_config *config, bool offsets, const real *flat,
                                    nn_arena *arena, segfm_error *error) {
    binder b = {.config = config, .flat = flat, .offsets = offsets, .arena = arena, .error = error};
    for (weights_spec spec; weights_spec_at(config, b.all, &spec);) b.all++;
    segfm_status status = bind_all(&b, &f->model, config, true, &f->coordinates);
    f->tasks = b.tasks;
    f->task_count = b.count;
    f->pieces = b.pieces;
    return status;
}

void segvol_model_refresh(segvol_flat *f, int threads) {
    binder b = {.tasks = f->tasks, .count = f->task_count, .pieces = f->pieces, .status = SEGFM_OK};
#pragma omp parallel for num_threads(threads) schedule(dynamic, 8)
    for (ptrdiff_t piece = 0; piece < (ptrdiff_t)b.pieces; piece++) {
        task *job = task_of(&b, (size_t)piece);
        job->read(job, (size_t)piece - job->before);
    }
    segvol_dense_pe(&f->model, &(nn_run){threads, NULL, nn_kernels_best()}, f->coordinates, f->model.dense_pe);
}

/* ---- workspace ----------------------------------------------------------------------------------------------- */

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t mlp_width(const segvol_mlp *mlp) {
    size_t width = 0;
    for (size_t i = 0; i < mlp->count; i++) width = larger(width, mlp->layers[i].weight.n);
    return width;
}

size_t segvol_workspace_scratch(const segvol_model *m, size_t sparse, int threads) {
    const weights_config *c = &m->config;
    size_t n = 1 + c->mask_tokens + sparse, cross = c->decoder_cross_dim / c->decoder_heads;
    size_t spatial[3] = {c->spatial[0], c->spatial[1], c->spatial[2]};
    size_t most = nn_matmul_scratch(threads);
    most = larger(most, nn_attention_scratch(m->tokens, m->tokens, c->heads, c->dim / c->heads, threads));
    most = larger(most, nn_attention_scratch(n, n, c->decoder_heads, c->dim / c->decoder_heads, threads));
    most = larger(most, nn_attention_scratch(n, m->tokens, c->decoder_heads, cross, threads));
    most = larger(most, nn_attention_scratch(m->tokens, n, c->decoder_heads, cross, threads));
    most = larger(most, nn_trilinear_scratch(m->low_res, spatial, threads));
    most = larger(most, nn_layernorm_scratch(nn_times(nn_times(8, m->tokens), c->up1)));
    most = larger(most, nn_conv_transpose_scratch(c->dim, c->up1, 0, threads));
    return larger(most, nn_conv_transpose_scratch(c->up1, c->up2, c->mask_tokens, threads));
}

segfm_status segvol_workspace_plan(segvol_workspace *ws, const segvol_model *m, size_t max_sparse, int threads,
                                   bool traced, nn_arena *arena, segfm_error *error) {
    const weights_config *c = &m->config;
    size_t n = 1 + c->mask_tokens + max_sparse, tokens = m->tokens, dim = c->dim,
           cross = nn_times(tokens, c->decoder_cross_dim);
    size_t patch = m->patch_embedding.weight.k, width = mlp_width(&m->iou_head);
    size_t inner = larger(dim, c->decoder_cross_dim); /* of any attention of the decoder */
    for (size_t i = 0; i < c->mask_tokens; i++) width = larger(width, mlp_width(&m->hyper[i]));
    *ws = (segvol_workspace){.max_sparse = max_sparse};
    ws->run =
        (nn_run){threads, nn_arena_reals(arena, segvol_workspace_scratch(m, max_sparse, threads)), nn_kernels_best()};
    ws->patches = nn_arena_reals(arena, nn_times(tokens, patch));
    ws->normed = nn_arena_reals(arena, nn_times(tokens, dim));
    ws->qkv = nn_arena_reals(arena, nn_times(nn_times(tokens, 3), dim));
    ws->hidden = nn_arena_reals(arena, nn_times(tokens, c->mlp));
    ws->mixed = nn_arena_reals(arena, nn_times(tokens, dim));
    ws->sparse = nn_arena_reals(arena, nn_times(max_sparse, dim));
    ws->queries = nn_arena_reals(arena, nn_times(n, dim));
    ws->query_pe = nn_arena_reals(arena, nn_times(n, dim));
    ws->keys = nn_arena_reals(arena, nn_times(tokens, dim));
    ws->with_pe_q = nn_arena_reals(arena, nn_times(n, dim));
    ws->with_pe_k = nn_arena_reals(arena, nn_times(tokens, dim));
    ws->q = nn_arena_reals(arena, nn_times(n, inner));
    ws->k = nn_arena_reals(arena, nn_times(n, inner));
    ws->v = nn_arena_reals(arena, nn_times(n, inner));
    ws->image_k = nn_arena_reals(arena, cross);
    ws->image_v = nn_arena_reals(arena, cross);
    ws->image_q = nn_arena_reals(arena, cross);
    ws->attended = nn_arena_reals(arena, larger(nn_times(n, inner), cross));
    ws->token_out = nn_arena_reals(arena, nn_times(larger(n, tokens), dim));
    ws->token_hidden = nn_arena_reals(arena, nn_times(n, c->decoder_mlp));
    ws->mlp_a = nn_arena_reals(arena, width);
    ws->mlp_b = nn_arena_reals(arena, width);
    ws->up1 = nn_arena_reals(arena, nn_times(nn_times(8, tokens), c->up1));
    if (traced) ws->up2 = nn_arena_reals(arena, nn_times(nn_times(64, tokens), c->up2));
    ws->hyper = nn_arena_reals(arena, nn_times(c->mask_tokens, c->up2));
    ws->masks = nn_arena_reals(arena, nn_times(c->mask_tokens, m->low_voxels));
    ws->iou = nn_arena_reals(arena, c->mask_tokens);
    return arena->failed ? segvol_does_not_fit("workspace", arena, error) : SEGFM_OK;
}

/* ---- trace --------------------------------------------------------------------------------------------------- */

void segvol_trace_rows(const segvol_workspace *ws, const char *name, int index, size_t rows, size_t columns,
                       const real *data) {
    if (ws->trace == NULL) return;
    char path[WEIGHTS_NAME_MAX];
    base_format(path, sizeof path, name, index);
    ws->trace(ws->trace_user, path, 3, (size_t[]){1, rows, columns}, data);
}

void segvol_trace_volume(const segvol_workspace *ws, const char *name, size_t channels, const size_t grid[3],
                         const real *data) {
    if (ws->trace != NULL) ws->trace(ws->trace_user, name, 5, (size_t[]){1, channels, grid[0], grid[1], grid[2]}, data);
}
