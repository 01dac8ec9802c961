/* bench: how long the stages take. Alone it prints a table; with --serve it is a side of bench/bench.py: it runs what it is
   told, one request a line, and answers with the seconds. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools.h"

typedef struct bench {
    const char *weights; /* of the model, or NULL: config's formula */
    const weights_config *config;
    int threads;
    tool_network stages, blocks; /* memory NULL: not open yet */
    segfm_model *model;          /* of the session */
    segfm_session *session;
    int64_t scan[3];
} bench;

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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
    if (status == SEGFM_OK) status = tool_network_open(bytes, size, &source, 2, b->threads, &b->stages, error);
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
    if (status == SEGFM_OK) status = tool_network_open(bytes.data, bytes.size, NULL, 2, b->threads, &b->blocks, error);
    io_buffer_free(&bytes);
    return status;
}

/* A made scan whose region of interest is `windows` windows long. */
static segfm_status open_session(bench *b, int64_t windows, segfm_error *error) {
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
    segfm_model_window(b->model, b->scan);
    b->scan[2] = b->scan[2] / 2 * (windows + 1);
    segfm_options options = segfm_options_default();
    options.threads = b->threads;
    status = segfm_session_new(b->model, b->scan, &options, NULL, 0, &b->session, error);
    if (status != SEGFM_OK) return status;
    float *voxels = malloc(product3(b->scan) * sizeof *voxels);
    if (voxels == NULL) return no_memory(error);
    for (size_t i = 0; i < product3(b->scan); i++) voxels[i] = (float)weights_uniform("input.image", i);
    status = segfm_set_volume(b->session, voxels, error);
    free(voxels);
    return status;
}

static void close_all(bench *b) {
    tool_network_close(&b->stages);
    tool_network_close(&b->blocks);
    segfm_session_free(b->session);
    segfm_model_close(b->model);
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

/* A box on the session's scan; each `number` is another one. */
static segfm_status prompt(bench *b, int64_t number, double *time, segfm_error *error) {
    if (b->session == NULL) return base_fail(error, SEGFM_BAD_USAGE, "prompt: there is no scan yet");
    int64_t box[6] = {1, 2, 3 + number, b->scan[0] - 2, b->scan[1] - 3, b->scan[2] - 4};
    double start = seconds();
    segfm_status status = segfm_box(b->session, box, error);
    *time = seconds() - start;
    return status;
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

/* ---- a side of bench/bench.py -------------------------------------------------------------------------------- */

static segfm_status save(const tool_network *n, const char *folder, segfm_error *error) {
    char path[4096];
    size_t embedding = n->net.tokens * n->net.config.dim, masks = n->net.config.mask_tokens * n->net.low_voxels;
    segfm_status status = tool_path(path, sizeof path, folder, "embedding.f32", error);
    if (status == SEGFM_OK) status = io_write_file(path, n->embedding, embedding * sizeof(real), error);
    if (status == SEGFM_OK) status = tool_path(path, sizeof path, folder, "masks.f32", error);
    return status == SEGFM_OK ? io_write_file(path, n->workspace.masks, masks * sizeof(real), error) : status;
}

/* `name` and its argument: whole numbers joined by commas, or a folder. Prints the answer. */
static segfm_status serve_one(bench *b, const char *name, const char *argument, segfm_error *error) {
    const int64_t most = 1 << 20;
    segfm_status status;
    double time = 0, sum = 0;
    int64_t v[5] = {0};
    if (strcmp(name, "gemm") == 0) {
        status = tool_integers(argument, "gemm M,N,K,THREADS,REPEATS", 5, 1, most, v, error);
        if (status == SEGFM_OK) status = gemm(v, (int)v[3], v[4], &time, &sum, error);
        if (status == SEGFM_OK) printf("%.9f %.17g\n", time, sum);
        return status;
    }
    if (strcmp(name, "prompt") == 0) {
        segfm_report report;
        status = tool_integer(argument, "prompt NUMBER", 0, most, v, error);
        if (status == SEGFM_OK) status = prompt(b, v[0], &time, error);
        if (status != SEGFM_OK) return status;
        segfm_last_report(b->session, &report);
        printf("%.9f %lld\n", time, (long long)report.windows);
        return status;
    }
    if (strcmp(name, "blocks") == 0) {
        status = tool_integer(argument, "blocks TOKENS", 1, most, v, error);
        if (status == SEGFM_OK) status = open_blocks(b, v[0], error);
        if (status == SEGFM_OK) time = two_blocks(&b->blocks);
    } else if (strcmp(name, "scan") == 0) {
        status = tool_integer(argument, "scan WINDOWS", 1, most, v, error);
        if (status == SEGFM_OK) status = open_session(b, v[0], error);
    } else {
        status = open_stages(b, error);
        if (status != SEGFM_OK) return status;
        if (strcmp(name, "encoder") == 0) time = encoder(&b->stages);
        else if (strcmp(name, "decoder") == 0) time = decoder(&b->stages) + upsampling(&b->stages);
        else if (strcmp(name, "save") == 0) status = save(&b->stages, argument, error);
        else if (strcmp(name, "load") != 0) status = base_fail(error, SEGFM_BAD_USAGE, "unknown request %s", name);
    }
    if (status == SEGFM_OK) printf("%.9f\n", time);
    return status;
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
    bool full = false, csv = false, products = false, sizes = false, serving = false;
    const char *weights = NULL, *rounds = NULL;
    tool_common common;
    const tool_option options[] = {{"--full", .flag = &full},      {"-w", .value = &weights},
                                   {"--rounds", .value = &rounds}, {"--csv", .flag = &csv},
                                   {"--gemm", .flag = &products},  {"--sizes", .flag = &sizes},
                                   {"--serve", .flag = &serving},  {0}};
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
        print_header(&t);
        status = products ? gemm_table(&b, &t, error) : sizes ? size_table(&b, &t, error) : stage_table(&b, &t, error);
        free(t.samples);
    }
    close_all(&b);
    return status;
}
