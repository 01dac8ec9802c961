/* bench: how long the stages take. Alone it prints a table; with --serve it is a side of bench/bench.py: it runs what it is
   told, one request a line, and answers with the seconds. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools.h"

/* When the passes of a segmentation began, and when the last one ended. */
enum { MAX_PASSES = 64 };
typedef struct passes {
    double at[MAX_PASSES + 1];
    int count;
} passes;

typedef struct bench {
    const char *weights; /* of the model, or NULL: config's formula */
    const weights_config *config;
    int threads;
    tool_network stages, blocks; /* memory NULL: not open yet */
    segfm_model *model;          /* of the session */
    segfm_session *session;
    int64_t scan[3]; /* its shape */
    float *voxels;   /* (scan) */
    uint8_t *mask;   /* (scan) */
    passes passes;   /* of the last segmentation */
} bench;

static double seconds(void) { return tool_milliseconds() / 1e3; }

static size_t product3(const int64_t shape[3]) { return (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2]; }

/* ---- the networks -------------------------------------------------------------------------------------------- */

static segfm_status no_memory(segfm_error *error) {
    return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the benchmark");
}

/* *source owns the bytes. */
static segfm_status weights_bytes(const bench *b, tool_model *source, const unsigned char **bytes, size_t *size,
                                  segfm_error *error) {
    if (b->weights != NULL) return tool_weights_bytes(b->weights, source, bytes, size, error);
    *source = (tool_model){0};
    weights_config config = *b->config;
    config.gru_blocks = config.gru_hidden = config.topk = 0; /* not timed here */
    segfm_status status = tool_formula_bytes(&config, &source->generated, error);
    *bytes = source->generated.data;
    *size = source->generated.size;
    return status;
}

static segfm_status open_stages(bench *b, segfm_error *error) {
    if (b->stages.memory != NULL) return SEGFM_OK;
    tool_model source;
    const unsigned char *bytes = NULL;
    size_t size = 0;
    segfm_status status = weights_bytes(b, &source, &bytes, &size, error);
    if (status == SEGFM_OK) status = tool_network_open(bytes, size, false, &source, 2, b->threads, &b->stages, error);
    tool_model_close(&source);
    for (size_t i = 0; status == SEGFM_OK && i < b->stages.net.window_voxels; i++)
        b->stages.window[i] = (real)weights_uniform("input.image", i);
    return status;
}

/* The full size's blocks for another number of tokens: two of them, and hardly a decoder. */
static segfm_status open_blocks(bench *b, int64_t tokens, segfm_error *error) {
    if (b->blocks.memory != NULL && b->blocks.net.tokens == (size_t)tokens) return SEGFM_OK;
    tool_network_close(&b->blocks);
    weights_config config = *weights_named_config("full");
    config.gru_blocks = config.gru_hidden = config.topk = 0;
    config.spatial[0] = config.patch[0];
    config.spatial[1] = config.patch[1];
    config.spatial[2] = config.patch[2] * (uint32_t)tokens;
    config.depth = 2;
    config.decoder_depth = 1;
    config.up1 = config.up2 = 8;
    io_buffer bytes = {0};
    segfm_status status = tool_formula_bytes(&config, &bytes, error);
    if (status == SEGFM_OK)
        status = tool_network_open(bytes.data, bytes.size, false, NULL, 2, b->threads, &b->blocks, error);
    io_buffer_free(&bytes);
    return status;
}

static void close_session(bench *b) {
    segfm_session_free(b->session);
    segfm_model_close(b->model);
    free(b->voxels);
    free(b->mask);
    b->session = NULL, b->model = NULL, b->voxels = NULL, b->mask = NULL;
}

static bool note_pass(void *user, int64_t done, int64_t total) {
    passes *p = user;
    (void)done, (void)total;
    if (p->count <= MAX_PASSES) p->at[p->count++] = seconds();
    return true;
}

/* A session for a made scan. */
static segfm_status open_session(bench *b, const int64_t scan[3], segfm_error *error) {
    close_session(b);
    tool_model source;
    const unsigned char *bytes = NULL;
    size_t size = 0;
    segfm_status status = weights_bytes(b, &source, &bytes, &size, error);
    segfm_model_options opening = segfm_model_options_default();
    opening.threads = b->threads;
    opening.done = tool_bytes_done;
    opening.done_user = &source;
    if (status == SEGFM_OK) status = segfm_model_open(bytes, size, &opening, &b->model, error);
    tool_model_close(&source);
    if (status != SEGFM_OK) return status;
    segfm_options options = segfm_options_default();
    options.threads = b->threads;
    options.progress = note_pass;
    options.progress_user = &b->passes;
    memcpy(b->scan, scan, sizeof b->scan);
    status = segfm_session_new(b->model, b->scan, &options, NULL, 0, &b->session, error);
    if (status != SEGFM_OK) return status;
    size_t count = product3(b->scan);
    b->voxels = malloc(count * sizeof *b->voxels);
    b->mask = malloc(count);
    if (b->voxels == NULL || b->mask == NULL) {
        close_session(b);
        return no_memory(error);
    }
    for (size_t i = 0; i < count; i++) b->voxels[i] = (float)weights_uniform("input.image", i);
    return SEGFM_OK;
}

static void close_all(bench *b) {
    tool_network_close(&b->stages);
    tool_network_close(&b->blocks);
    close_session(b);
}

/* ---- what is timed ------------------------------------------------------------------------------------------- */

static double encoder(tool_network *n) {
    double start = seconds();
    segvol_encode(&n->net, &n->workspace, n->window, n->embedding);
    return seconds() - start;
}

/* Prompts, mask decoder. */
static double decoder(tool_network *n) {
    const uint32_t *size = n->net.config.spatial;
    real box[6] = {1, 2, 3, (real)size[0] - 2, (real)size[1] - 3, (real)size[2] - 4};
    double start = seconds();
    segvol_decode(&n->net, &n->workspace, n->embedding, &(segvol_prompts){NULL, 0, box});
    return seconds() - start;
}

static double upsampling(tool_network *n) {
    double start = seconds();
    segvol_upsample(&n->net, &n->workspace, 0, n->logits);
    return seconds() - start;
}

static double two_blocks(tool_network *n) {
    size_t count = n->net.tokens * n->net.config.dim;
    for (size_t i = 0; i < count; i++) n->embedding[i] = (real)weights_uniform("input.image", i);
    double start = seconds();
    for (int i = 0; i < 2; i++) segvol_block_forward(&n->net, &n->workspace, i, n->embedding);
    return seconds() - start;
}

/* Multiplications and additions of the encoder with `depth` blocks. */
static double encoder_flops(const weights_config *c, double tokens, double depth) {
    double patch = (double)c->patch[0] * c->patch[1] * c->patch[2], dim = c->dim;
    return 2 * tokens * patch * dim + depth * (2 * tokens * dim * (4 * dim + 2.0 * c->mlp) + 4 * tokens * tokens * dim);
}

/* ---- one matrix product -------------------------------------------------------------------------------------- */

/* Eighths from -1 to 7/8: every product and every sum below is exact, so that all libraries have the same sum. */
static real operand(size_t i) { return (real)((int)((uint32_t)i * 2654435761U >> 28) - 8) / 8; }

static real *reals(size_t count) {
    return aligned_alloc(NN_ALIGN, (count * sizeof(real) + NN_ALIGN - 1) / NN_ALIGN * NN_ALIGN);
}

/* y (m,n) = a (m,k) · B (k,n), `repeats` times → seconds of one, sum of y. B is packed before, as weights are. */
static segfm_status gemm(const int64_t shape[3], int threads, int64_t repeats, double *time, double *sum,
                         segfm_error *error) {
    size_t m = (size_t)shape[0], n = (size_t)shape[1], k = (size_t)shape[2];
    real *a = reals(m * k), *b = reals(n * k), *packed = reals(nn_panels_count(n, k)), *y = reals(m * n);
    nn_run run = {threads, reals(nn_matmul_scratch(threads)), nn_kernels_best()};
    bool have_all = a != NULL && b != NULL && packed != NULL && y != NULL && run.scratch != NULL;
    if (have_all) {
        for (size_t i = 0; i < m * k; i++) a[i] = operand(i);
        for (size_t i = 0; i < n * k; i++) b[i] = operand(i);
        nn_panels_pack(b, n, k, 1, n, packed, threads);
        nn_panels panels = {.n = n, .k = k, .data = packed};
        nn_matmul(&run, m, a, k, 1, &panels, NULL, y, n);
        double start = seconds();
        for (int64_t i = 0; i < repeats; i++) nn_matmul(&run, m, a, k, 1, &panels, NULL, y, n);
        *time = (seconds() - start) / (double)repeats;
        *sum = 0;
        for (size_t i = 0; i < m * n; i++) *sum += (double)y[i];
    }
    free(a), free(b), free(packed), free(y), free(run.scratch);
    return have_all ? SEGFM_OK : no_memory(error);
}

/* ---- the other operators ------------------------------------------------------------------------------------- */

/* What a kernel of size s works on, in reals, and its work: multiplications and additions, or elements. */
typedef struct kernel_need {
    size_t x, w, bias, y, scratch;
    double work;
} kernel_need;

typedef struct kernel_operands {
    real *x, *w, *bias, *y;
} kernel_operands;

typedef struct kernel {
    const char *name;
    kernel_need (*need)(const size_t s[3], int threads);
    void (*once)(const nn_run *run, const size_t s[3], const kernel_operands *o);
    int64_t sizes[6][3]; /* of the table: small ones, then the full model's */
} kernel;

/* tokens, heads, width of a head */
static kernel_need attention_need(const size_t s[3], int threads) {
    size_t dim = s[1] * s[2];
    return (kernel_need){.x = s[0] * 3 * dim,
                         .y = s[0] * dim,
                         .scratch = nn_attention_scratch(s[0], s[0], s[1], s[2], threads),
                         .work = 4 * (double)s[0] * (double)s[0] * (double)dim};
}

static void attention_once(const nn_run *run, const size_t s[3], const kernel_operands *o) {
    size_t dim = s[1] * s[2];
    nn_attention at = {.queries = s[0],
                       .keys = s[0],
                       .heads = s[1],
                       .head_dim = s[2],
                       .q = o->x,
                       .k = o->x + dim,
                       .v = o->x + 2 * dim,
                       .q_row = 3 * dim,
                       .k_row = 3 * dim,
                       .v_row = 3 * dim,
                       .out = o->y,
                       .out_row = dim,
                       .scale = (real)0.125};
    nn_attention_forward(run, &at);
}

/* rows, columns, 1 */
static kernel_need gelu_need(const size_t s[3], int threads) {
    (void)threads;
    return (kernel_need){.x = s[0] * s[1], .y = s[0] * s[1], .work = (double)s[0] * (double)s[1]};
}

static void gelu_once(const nn_run *run, const size_t s[3], const kernel_operands *o) {
    nn_gelu_forward(run, s[0] * s[1], o->x, o->y);
}

/* rows, columns, 1 */
static kernel_need layernorm_need(const size_t s[3], int threads) {
    kernel_need need = gelu_need(s, threads);
    need.w = need.bias = s[1];
    need.scratch = nn_layernorm_scratch(s[1]);
    return need;
}

static void layernorm_once(const nn_run *run, const size_t s[3], const kernel_operands *o) {
    nn_layernorm_forward(run, s[0], s[1], o->x, o->w, o->bias, (real)1e-5, o->y);
}

/* `cells` cut into three axes; what is odd goes to the last. */
static void grid_of(size_t cells, size_t grid[3]) {
    int axis = 2;
    grid[0] = grid[1] = grid[2] = 1;
    for (; cells % 2 == 0; cells /= 2, axis = axis > 0 ? axis - 1 : 2) grid[axis] *= 2;
    grid[2] *= cells;
}

/* cells, channels in, channels out */
static kernel_need conv_transpose_need(const size_t s[3], int threads) {
    return (kernel_need){.x = s[0] * s[1],
                         .w = nn_conv_transpose_count(s[1], s[2]), /* as if packed already: the values do not matter */
                         .bias = s[2],
                         .y = s[0] * 8 * s[2],
                         .scratch = nn_conv_transpose_scratch(s[1], s[2], 0, threads),
                         .work = 16 * (double)s[0] * (double)s[1] * (double)s[2]};
}

static void conv_transpose_once(const nn_run *run, const size_t s[3], const kernel_operands *o) {
    size_t grid[3];
    grid_of(s[0], grid);
    nn_conv_transpose_forward(run, grid, o->x, s[1], 1, &(nn_conv_transpose){s[1], s[2], o->w, o->bias}, o->y);
}

/* z, y, x of the input; y and x of the output are four times as long, as the window's are */
static kernel_need trilinear_need(const size_t s[3], int threads) {
    size_t in = s[0] * s[1] * s[2], out[3] = {s[0], 4 * s[1], 4 * s[2]};
    return (kernel_need){
        .x = in, .y = 16 * in, .scratch = nn_trilinear_scratch(s, out, threads), .work = 16 * (double)in};
}

static void trilinear_once(const nn_run *run, const size_t s[3], const kernel_operands *o) {
    nn_trilinear_forward(run, s, o->x, (size_t[3]){s[0], 4 * s[1], 4 * s[2]}, o->y);
}

/* KERNELS in bench/bench.py has the same sizes. */
static const kernel kernels[] = {
    {"attention",
     attention_need,
     attention_once,
     {{64, 12, 64}, {128, 12, 64}, {256, 12, 64}, {512, 12, 64}, {2048, 12, 64}}},
    {"conv-transpose",
     conv_transpose_need,
     conv_transpose_once,
     {{64, 64, 64}, {128, 128, 128}, {256, 256, 256}, {512, 512, 512}, {2048, 768, 192}, {16384, 192, 96}}},
    {"gelu", gelu_need, gelu_once, {{64, 64, 1}, {128, 128, 1}, {256, 256, 1}, {512, 512, 1}, {2048, 3072, 1}}},
    {"layernorm",
     layernorm_need,
     layernorm_once,
     {{64, 64, 1}, {128, 128, 1}, {256, 256, 1}, {512, 512, 1}, {2048, 768, 1}}},
    {"trilinear", trilinear_need, trilinear_once, {{8, 16, 16}, {16, 16, 16}, {16, 32, 32}, {32, 64, 64}}},
};
enum { KERNELS = sizeof kernels / sizeof kernels[0] };

static void fill(real *x, size_t count) {
    for (size_t i = 0; x != NULL && i < count; i++) x[i] = operand(i);
}

/* → seconds of one: as many as fit into a fiftieth of a second, at least three; and the work of one */
static segfm_status time_kernel(const kernel *k, const int64_t shape[3], int threads, double *time, double *work,
                                segfm_error *error) {
    const size_t s[3] = {(size_t)shape[0], (size_t)shape[1], (size_t)shape[2]};
    kernel_need need = k->need(s, threads);
    kernel_operands o = {reals(need.x), reals(need.w + 1), reals(need.bias + 1), reals(need.y)};
    nn_run run = {threads, reals(need.scratch + 1), nn_kernels_best()};
    bool have_all = o.x != NULL && o.w != NULL && o.bias != NULL && o.y != NULL && run.scratch != NULL;
    if (have_all) {
        fill(o.x, need.x), fill(o.w, need.w), fill(o.bias, need.bias);
        k->once(&run, s, &o);
        double start = seconds(), end = start;
        int count = 0;
        for (; count < 3 || end - start < 0.02; count++, end = seconds()) k->once(&run, s, &o);
        *time = (end - start) / count;
        *work = need.work;
    }
    free(o.x), free(o.w), free(o.bias), free(o.y), free(run.scratch);
    return have_all ? SEGFM_OK : no_memory(error);
}

/* ---- a side of bench/bench.py -------------------------------------------------------------------------------- */

static const int64_t most = 1 << 20; /* of a number in a request */

static segfm_status answer_stages(bench *b, const char *name, const char *argument, segfm_error *error) {
    segfm_status status = open_stages(b, error);
    double time = 0;
    (void)argument;
    if (status != SEGFM_OK) return status;
    if (strcmp(name, "encoder") == 0) time = encoder(&b->stages);
    if (strcmp(name, "decoder") == 0) time = decoder(&b->stages) + upsampling(&b->stages);
    printf("%.9f\n", time);
    return SEGFM_OK;
}

static segfm_status answer_save(bench *b, const char *name, const char *argument, segfm_error *error) {
    char path[4096];
    (void)name;
    segfm_status status = open_stages(b, error);
    const tool_network *n = &b->stages;
    size_t embedding = n->net.tokens * n->net.config.dim, masks = n->net.config.mask_tokens * n->net.low_voxels;
    if (status == SEGFM_OK) status = tool_path(path, sizeof path, argument, "embedding.f32", error);
    if (status == SEGFM_OK) status = io_write_file(path, n->embedding, embedding * sizeof(real), error);
    if (status == SEGFM_OK) status = tool_path(path, sizeof path, argument, "masks.f32", error);
    if (status == SEGFM_OK) status = io_write_file(path, n->workspace.masks, masks * sizeof(real), error);
    if (status == SEGFM_OK) puts("0");
    return status;
}

static segfm_status answer_blocks(bench *b, const char *name, const char *argument, segfm_error *error) {
    int64_t tokens;
    (void)name;
    segfm_status status = tool_integer(argument, "blocks TOKENS", 1, most, &tokens, error);
    if (status == SEGFM_OK) status = open_blocks(b, tokens, error);
    if (status == SEGFM_OK) printf("%.9f\n", two_blocks(&b->blocks));
    return status;
}

static segfm_status answer_gemm(bench *b, const char *name, const char *argument, segfm_error *error) {
    int64_t v[5];
    double time, sum;
    (void)b, (void)name;
    segfm_status status = tool_integers(argument, "gemm M,N,K,THREADS,REPEATS", 5, 1, most, v, error);
    if (status == SEGFM_OK) status = gemm(v, (int)v[3], v[4], &time, &sum, error);
    if (status == SEGFM_OK) printf("%.9f %.17g\n", time, sum);
    return status;
}

static segfm_status answer_kernel(bench *b, const char *name, const char *argument, segfm_error *error) {
    int64_t v[4];
    double time, work;
    const kernel *k = kernels;
    (void)b;
    while (strcmp(k->name, name) != 0) k++;
    segfm_status status = tool_integers(argument, "a kernel's SIZE,SIZE,SIZE,THREADS", 4, 1, most, v, error);
    if (status == SEGFM_OK) status = time_kernel(k, v, (int)v[3], &time, &work, error);
    if (status == SEGFM_OK) printf("%.9f %.17g\n", time, work);
    return status;
}

/* Takes the scan, again if it is the same. */
static segfm_status answer_scan(bench *b, const char *name, const char *argument, segfm_error *error) {
    int64_t shape[3];
    (void)name;
    segfm_status status = tool_integers(argument, "scan Z,Y,X", 3, 1, most, shape, error);
    if (status == SEGFM_OK && (b->session == NULL || memcmp(shape, b->scan, sizeof shape) != 0))
        status = open_session(b, shape, error);
    if (status != SEGFM_OK) return status;
    double start = seconds();
    status = segfm_set_volume(b->session, b->voxels, error);
    if (status == SEGFM_OK) printf("%.9f\n", seconds() - start);
    return status;
}

/* From a box or a click to the mask. */
static segfm_status answer_prompt(bench *b, const char *name, const char *argument, segfm_error *error) {
    int64_t v[6];
    bool is_box = strcmp(name, "box") == 0;
    segfm_status status =
        b->session != NULL ? SEGFM_OK : base_fail(error, SEGFM_BAD_USAGE, "%s: there is no scan", name);
    if (status == SEGFM_OK)
        status = tool_integers(argument, is_box ? "box Z,Y,X,Z,Y,X" : "click Z,Y,X", is_box ? 6 : 3, 0, most, v, error);
    if (status != SEGFM_OK) return status;
    b->passes.count = 0;
    double start = seconds();
    status = is_box ? segfm_box(b->session, v, error) : segfm_click(b->session, v, true, error);
    if (status == SEGFM_OK) status = segfm_mask(b->session, b->mask, product3(b->scan), error);
    double time = seconds() - start;
    if (status != SEGFM_OK) return status;
    segfm_report report;
    segfm_last_report(b->session, &report);
    printf("%.9f %lld %lld", time, (long long)report.decoded, (long long)report.encoded);
    for (int i = 0; i + 1 < b->passes.count; i++) printf(" %.9f", b->passes.at[i + 1] - b->passes.at[i]);
    puts("");
    return SEGFM_OK;
}

/* What can be asked for (bench/side.py says what it is): each prints its answer, one line. */
static const struct {
    const char *name;
    segfm_status (*answer)(bench *b, const char *name, const char *argument, segfm_error *error);
} requests[] = {
    {"load", answer_stages},      {"encoder", answer_stages},
    {"decoder", answer_stages},   {"save", answer_save},
    {"blocks", answer_blocks},    {"gemm", answer_gemm},
    {"scan", answer_scan},        {"box", answer_prompt},
    {"click", answer_prompt},     {"attention", answer_kernel},
    {"gelu", answer_kernel},      {"layernorm", answer_kernel},
    {"trilinear", answer_kernel}, {"conv-transpose", answer_kernel},
};
enum { REQUESTS = sizeof requests / sizeof requests[0] };

static segfm_status serve_one(bench *b, const char *name, const char *argument, segfm_error *error) {
    for (size_t i = 0; i < REQUESTS; i++)
        if (strcmp(requests[i].name, name) == 0) return requests[i].answer(b, name, argument, error);
    return base_fail(error, SEGFM_BAD_USAGE, "unknown request %s", name);
}

static segfm_status serve(bench *b, segfm_error *error) {
    char line[4096];
    segfm_status status = SEGFM_OK;
    puts("ready");
    fflush(stdout);
    while (status == SEGFM_OK && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *space = strchr(line, ' ');
        if (space != NULL) *space = '\0';
        status = serve_one(b, line, space != NULL ? space + 1 : "", error);
        fflush(stdout);
    }
    return status;
}

/* ---- tables -------------------------------------------------------------------------------------------------- */

typedef struct table {
    bool csv;
    int64_t rounds;
    double *samples; /* (stages, rounds) */
} table;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The middle one of a stage's samples. */
static double median(const table *t, int stage) {
    double *values = t->samples + stage * t->rounds;
    qsort(values, (size_t)t->rounds, sizeof *values, by_value);
    return values[t->rounds / 2];
}

static void print_header(const table *t) {
    printf(t->csv ? "what,size,threads,milliseconds,gflops\n" : "%-12s %-16s %7s %12s %9s\n", "what", "size", "threads",
           "ms", "GFLOP/s");
}

/* flops 0: not counted */
static void print_row(const table *t, const char *what, const char *size, int threads, double time, double flops) {
    char rate[32] = "";
    if (flops > 0) snprintf(rate, sizeof rate, "%.1f", 1e-9 * flops / time);
    printf(t->csv ? "%s,%s,%d,%.4f,%s\n" : "%-12s %-16s %7d %12.3f %9s\n", what, size, threads, 1e3 * time, rate);
}

static segfm_status stage_table(bench *b, const table *t, segfm_error *error) {
    enum { ENCODER, DECODER, UPSAMPLING, WINDOW, STAGES };
    static const char *const names[STAGES] = {"encoder", "decoder", "upsampling", "window"};
    segfm_status status = open_stages(b, error);
    if (status != SEGFM_OK) return status;
    const weights_config *c = &b->stages.net.config;
    for (int64_t round = 0; round < t->rounds; round++) {
        double times[STAGES] = {encoder(&b->stages), decoder(&b->stages), upsampling(&b->stages), 0};
        times[WINDOW] = times[ENCODER] + times[DECODER] + times[UPSAMPLING];
        for (int stage = 0; stage < STAGES; stage++) t->samples[stage * t->rounds + round] = times[stage];
    }
    char size[64];
    base_format(size, sizeof size, "%dx%dx%d", (int)c->spatial[0], (int)c->spatial[1], (int)c->spatial[2]);
    for (int stage = 0; stage < STAGES; stage++)
        print_row(t, names[stage], size, b->threads, median(t, stage),
                  stage == ENCODER ? encoder_flops(c, (double)b->stages.net.tokens, c->depth) : 0);
    return SEGFM_OK;
}

/* The full model's products (m, n, k), then small ones. */
static const int64_t shapes[][3] = {{2048, 768, 1024}, {2048, 2304, 768}, {2048, 768, 768},   {2048, 3072, 768},
                                    {2048, 768, 3072}, {2048, 384, 768},  {2048, 1536, 768},  {16384, 768, 192},
                                    {7, 2048, 768},    {4, 131072, 96},   {1024, 1024, 1024}, {512, 512, 512},
                                    {256, 256, 256},   {128, 128, 128},   {64, 64, 64}};

static segfm_status gemm_table(bench *b, const table *t, segfm_error *error) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int threads = 1;; threads = b->threads) {
            double flops = 2.0 * (double)product3(shapes[i]), sum;
            int64_t repeats = 1 + (int64_t)(5e9 / flops);
            segfm_status status = SEGFM_OK;
            for (int64_t round = 0; status == SEGFM_OK && round < t->rounds; round++)
                status = gemm(shapes[i], threads, repeats, t->samples + round, &sum, error);
            if (status != SEGFM_OK) return status;
            char size[64];
            base_format(size, sizeof size, "%lldx%lldx%lld", (long long)shapes[i][0], (long long)shapes[i][1],
                        (long long)shapes[i][2]);
            print_row(t, "product", size, threads, median(t, 0), flops);
            if (threads == b->threads) break;
        }
    return SEGFM_OK;
}

/* All products of these sizes, then every other operator at small sizes and at the full model's, each beside the best rate
   that the operator has in this table with as many threads. */
static const int64_t edges[] = {64, 128, 256, 512};
enum { EDGES = sizeof edges / sizeof edges[0], MAX_ROWS = EDGES * EDGES * EDGES };

typedef struct kernel_row {
    char size[64];
    double time, work;
} kernel_row;

static void print_kernel(const table *t, const char *name, int threads, const kernel_row *rows, int count) {
    double best = 0;
    for (int i = 0; i < count; i++)
        if (rows[i].work / rows[i].time > best) best = rows[i].work / rows[i].time;
    for (int i = 0; i < count; i++)
        printf(t->csv ? "%s,%s,%d,%.4f,%.2f,%.1f\n" : "%-14s %-16s %7d %12.4f %9.2f %8.1f\n", name, rows[i].size,
               threads, 1e3 * rows[i].time, 1e-9 * rows[i].work / rows[i].time,
               100 * rows[i].work / rows[i].time / best);
}

/* kernel NULL: products */
static segfm_status kernel_rows(const kernel *k, const table *t, int threads, kernel_row *rows, int *count,
                                segfm_error *error) {
    segfm_status status = SEGFM_OK;
    double sum;
    for (*count = 0; status == SEGFM_OK && *count < (k == NULL ? MAX_ROWS : 6); ++*count) {
        int i = *count;
        kernel_row *row = &rows[i];
        int64_t s[3] = {edges[i / (EDGES * EDGES)], edges[i / EDGES % EDGES], edges[i % EDGES]};
        if (k != NULL) memcpy(s, k->sizes[i % 6], sizeof s);
        if (s[0] == 0) break;
        if (k == NULL) row->work = 2.0 * (double)product3(s);
        for (int64_t round = 0; status == SEGFM_OK && round < t->rounds; round++)
            status = k != NULL
                         ? time_kernel(k, s, threads, t->samples + round, &row->work, error)
                         : gemm(s, threads, 1 + (int64_t)(1e9 * threads / row->work), t->samples + round, &sum, error);
        if (status == SEGFM_OK) row->time = median(t, 0);
        base_format(row->size, sizeof row->size, "%lldx%lldx%lld", (long long)s[0], (long long)s[1], (long long)s[2]);
    }
    return status;
}

/* The rate of products, attention and transposed convolutions is in GFLOP/s, that of the others in thousand millions of
   elements a second. */
static segfm_status kernel_table(bench *b, const table *t, segfm_error *error) {
    kernel_row rows[MAX_ROWS];
    printf(t->csv ? "what,size,threads,milliseconds,rate,percent\n" : "%-14s %-16s %7s %12s %9s %8s\n", "what", "size",
           "threads", "ms", "10^9/s", "% of best");
    for (int threads = 1;; threads = b->threads) {
        for (int i = -1; i < (int)KERNELS; i++) {
            int count;
            const kernel *k = i < 0 ? NULL : &kernels[i];
            segfm_status status = kernel_rows(k, t, threads, rows, &count, error);
            if (status != SEGFM_OK) return status;
            print_kernel(t, k == NULL ? "product" : k->name, threads, rows, count);
        }
        if (threads == b->threads) return SEGFM_OK;
    }
}

static segfm_status size_table(bench *b, const table *t, segfm_error *error) {
    char size[64];
    for (int64_t tokens = 128; tokens <= 4096; tokens *= 2) {
        segfm_status status = open_blocks(b, tokens, error);
        if (status != SEGFM_OK) return status;
        for (int64_t round = 0; round < t->rounds; round++) t->samples[round] = two_blocks(&b->blocks) / 2;
        weights_config c = b->blocks.net.config;
        c.patch[0] = 0; /* blocks alone */
        base_format(size, sizeof size, "%lld tokens", (long long)tokens);
        print_row(t, "block", size, b->threads, median(t, 0), encoder_flops(&c, (double)tokens, 1));
    }
    segfm_status status = open_stages(b, error);
    if (status != SEGFM_OK) return status;
    double total = 0;
    for (int windows = 1; windows <= 12; windows++) {
        total += encoder(&b->stages) + decoder(&b->stages) + upsampling(&b->stages);
        base_format(size, sizeof size, "%d windows", windows);
        print_row(t, "window", size, b->threads, total, 0);
    }
    return SEGFM_OK;
}

segfm_status command_bench(int argc, char **argv, segfm_error *error) {
    bool full = false, csv = false, products = false, of_kernels = false, sizes = false, serving = false;
    const char *weights = NULL, *rounds = NULL;
    tool_common common;
    const tool_option options[] = {{"--full", .flag = &full},
                                   {"-w", .value = &weights},
                                   {"--rounds", .value = &rounds},
                                   {"--csv", .flag = &csv},
                                   {"--gemm", .flag = &products},
                                   {"--sizes", .flag = &sizes},
                                   {"--kernels", .flag = &of_kernels},
                                   {"--serve", .flag = &serving},
                                   {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &common, error);
    table t = {.csv = csv};
    if (status == SEGFM_OK) status = tool_integer(rounds != NULL ? rounds : "5", "--rounds", 1, 1000, &t.rounds, error);
    if (status != SEGFM_OK) return status;
    bench b = {.weights = weights,
               .config = weights_named_config(full ? "full" : "tiny"),
               .threads = nn_threads(common.threads)};
    if (serving) {
        status = serve(&b, error);
    } else {
        t.samples = malloc(4 * (size_t)t.rounds * sizeof *t.samples);
        if (t.samples == NULL) return no_memory(error);
        if (!csv && !common.quiet)
            printf("%s, %s kernels, medians of %lld rounds\n", REAL_NAME, nn_kernels_best()->name, (long long)t.rounds);
        if (!of_kernels) print_header(&t);
        status = products     ? gemm_table(&b, &t, error)
                 : of_kernels ? kernel_table(&b, &t, error)
                 : sizes      ? size_table(&b, &t, error)
                              : stage_table(&b, &t, error);
        free(t.samples);
    }
    close_all(&b);
    return status;
}
