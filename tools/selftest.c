#include <stdlib.h>
#include <string.h>

#include "../vol/vol.h"
#include "tools.h"

/* Conformance vectors: each runs one operator, network or the whole pipeline on inputs made by the formula, and is summed
   up in the XXH64 of its output as little-endian float32. Any build of any port that is right prints these hashes. The
   double build makes no promise of bits and only prints. */

typedef struct vector {
    const char *name;
    uint64_t hash; /* of the float build */
    segfm_status (*run)(const nn_run *run, io_buffer *out, segfm_error *error);
} vector;

/* Scratch that is enough for every vector here. */
enum { SCRATCH = 4 << 20 };

/* ---- inputs and outputs -------------------------------------------------------------------------------------- */

/* n values in [low, high) of the stream `name`. */
static real *uniform(const char *name, size_t n, double low, double high) {
    real *x = malloc(n * sizeof *x);
    for (size_t i = 0; x != NULL && i < n; i++) x[i] = (real)(float)(low + (high - low) * weights_uniform(name, i));
    return x;
}

static segfm_status take(io_buffer *out, const real *values, size_t n, segfm_error *error) {
    segfm_status status = io_buffer_reserve(out, out->size + 4 * n, error);
    for (size_t i = 0; status == SEGFM_OK && i < n; i++) {
        float f = (float)values[i];
        uint32_t bits;
        memcpy(&bits, &f, 4);
        base_put_le32(out->data + out->size, bits);
        out->size += 4;
    }
    return status;
}

/* Frees what a vector allocated; NULL among them means that memory ran out. */
static segfm_status done(segfm_status status, real **blocks, size_t n, segfm_error *error) {
    bool missing = false;
    for (size_t i = 0; i < n; i++) {
        missing = missing || blocks[i] == NULL;
        free(blocks[i]);
    }
    return missing ? base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector") : status;
}
#define COUNT_OF(a) (sizeof(a) / sizeof(a)[0])

/* ---- functions and operators --------------------------------------------------------------------------------- */

typedef real function(real);

static segfm_status run_function(function *f, double low, double high, io_buffer *out, segfm_error *error) {
    enum { N = 100003 };
    real *b[] = {uniform("selftest.function", N, low, high)};
    for (size_t i = 0; b[0] != NULL && i < N; i++) b[0][i] = f(b[0][i]);
    return done(b[0] == NULL ? SEGFM_OK : take(out, b[0], N, error), b, COUNT_OF(b), error);
}

static segfm_status run_exp(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_exp, -110, 95, out, error);
}
static segfm_status run_erf(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_erf, -5, 5, out, error);
}
static segfm_status run_tanh(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_tanh, -12, 12, out, error);
}
static segfm_status run_sigmoid(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_sigmoid, -100, 100, out, error);
}

static segfm_status run_fourier(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 301, HALF = 24 };
    real *b[] = {uniform("selftest.coordinates", 3 * N, -0.1, 1.1), uniform("selftest.gaussian", 3 * HALF, -3, 3),
                 malloc(2 * N * HALF * sizeof(real))};
    if (b[0] == NULL || b[1] == NULL || b[2] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_fourier_forward(r, N, b[0], HALF, b[1], b[2]);
    return done(take(out, b[2], 2 * N * HALF, error), b, COUNT_OF(b), error);
}

static segfm_status run_matmul(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { M = 67, N = 75, K = 1031 };
    real *b[] = {uniform("selftest.a", M * K, -1, 1), uniform("selftest.b", N * K, -1, 1),
                 uniform("selftest.bias", N, -1, 1), malloc(nn_panels_count(N, K) * sizeof(real)),
                 malloc(M * N * sizeof(real))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_panels_pack(b[1], N, K, K, 1, b[3], r->threads);
    nn_matmul(r, M, b[0], K, 1, &(nn_panels){.n = N, .k = K, .data = b[3]}, b[2], b[4], N);
    return done(take(out, b[4], M * N, error), b, COUNT_OF(b), error);
}

static segfm_status run_attention(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { Q = 37, KEYS = 301, HEADS = 3, DIM = 20, WIDTH = HEADS * DIM };
    real *b[] = {uniform("selftest.q", Q * WIDTH, -2, 2), uniform("selftest.k", KEYS * WIDTH, -2, 2),
                 uniform("selftest.v", KEYS * WIDTH, -2, 2), malloc(Q * WIDTH * sizeof(real))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_attention at = {Q, KEYS, HEADS, DIM, b[0], b[1], b[2], WIDTH, WIDTH, WIDTH, b[3], WIDTH, REAL_C(0.25)};
    nn_attention_forward(r, &at);
    return done(take(out, b[3], Q * WIDTH, error), b, COUNT_OF(b), error);
}

static segfm_status layernorm(const nn_run *r, size_t rows, size_t width, io_buffer *out, segfm_error *error) {
    real *b[] = {uniform("selftest.x", rows * width, -3, 5), uniform("selftest.weight", width, 0.5, 1.5),
                 uniform("selftest.bias", width, -1, 1)};
    if (b[0] == NULL || b[1] == NULL || b[2] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_layernorm_forward(r, rows, width, b[0], b[1], b[2], REAL_C(1e-5), b[0]);
    return done(take(out, b[0], rows * width, error), b, COUNT_OF(b), error);
}

static segfm_status run_layernorm(const nn_run *r, io_buffer *out, segfm_error *error) {
    return layernorm(r, 41, 173, out, error);
}
static segfm_status run_layernorm_block(const nn_run *r, io_buffer *out, segfm_error *error) {
    return layernorm(r, 1, 70001, out, error);
}

static segfm_status run_gelu(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 50021 };
    real *b[] = {uniform("selftest.x", N, -6, 6)};
    if (b[0] != NULL) nn_gelu_forward(r, N, b[0], b[0]);
    return done(b[0] == NULL ? SEGFM_OK : take(out, b[0], N, error), b, COUNT_OF(b), error);
}

static segfm_status run_conv_transpose(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { CELLS = 3 * 4 * 5, IN = 21, OUT = 7 };
    real *b[] = {uniform("selftest.x", CELLS * IN, -1, 1), uniform("selftest.weight", IN * OUT * 8, -1, 1),
                 uniform("selftest.bias", OUT, -1, 1), malloc(CELLS * 8 * OUT * sizeof(real)),
                 malloc(nn_conv_transpose_count(IN, OUT) * sizeof(real))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_conv_transpose_pack(r->kernels, b[1], IN, OUT, b[4]);
    nn_conv_transpose_forward(r, (size_t[]){3, 4, 5}, b[0], IN, 1, &(nn_conv_transpose){IN, OUT, b[4], b[2]}, b[3]);
    return done(take(out, b[3], CELLS * 8 * OUT, error), b, COUNT_OF(b), error);
}

static segfm_status run_trilinear(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 5 * 7 * 6, UP = 11 * 28 * 17 };
    real *b[] = {uniform("selftest.x", N, -1, 1), malloc(UP * sizeof(real))};
    if (b[0] == NULL || b[1] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_trilinear_forward(r, (size_t[]){5, 7, 6}, b[0], (size_t[]){11, 28, 17}, b[1]);
    return done(take(out, b[1], UP, error), b, COUNT_OF(b), error);
}

static segfm_status run_normalise(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 30011 };
    float *voxels = malloc(N * sizeof *voxels);
    real *b[] = {malloc(N * sizeof(real))};
    if (voxels == NULL || b[0] == NULL) {
        free(voxels);
        free(b[0]);
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector");
    }
    for (size_t i = 0; i < N; i++) voxels[i] = (float)(-1000.0 + 4000.0 * weights_uniform("selftest.scan", i));
    vol_foreground stats;
    vol_foreground_stats(voxels, N, r->threads, &stats);
    vol_normalise(voxels, N, &stats, r->threads, b[0]);
    free(voxels);
    return done(take(out, b[0], N, error), b, COUNT_OF(b), error);
}

/* ---- networks ------------------------------------------------------------------------------------------------ */

static segfm_status open_formula(const weights_config *config, int threads, tool_network *n, segfm_error *error) {
    io_buffer bytes = {0};
    segfm_status status = tool_formula_bytes(config, &bytes, error);
    if (status == SEGFM_OK) status = tool_network_open(bytes.data, bytes.size, NULL, 8, threads, n, error);
    io_buffer_free(&bytes);
    for (size_t i = 0; status == SEGFM_OK && i < n->net.window_voxels; i++)
        n->window[i] = (real)(float)weights_uniform("input.image", i);
    return status;
}

static segfm_status run_encoder(const nn_run *r, io_buffer *out, segfm_error *error) {
    tool_network n = {0};
    segfm_status status = open_formula(weights_named_config("tiny"), r->threads, &n, error);
    if (status != SEGFM_OK) return status;
    segvol_encode(&n.net, &n.workspace, n.window, n.embedding);
    status = take(out, n.embedding, n.net.tokens * n.net.config.dim, error);
    tool_network_close(&n);
    return status;
}

/* Decoder and upsampling: masks, IoU and logits for a box and three points. */
static segfm_status run_decoder(const nn_run *r, io_buffer *out, segfm_error *error) {
    tool_network n = {0};
    const real box[6] = {3, 10, 12, 11, 40, 50};
    const segvol_point points[] = {{4, 30, 25, 1}, {10, 20, 45, 0}, {7, 50, 12, 1}};
    const segvol_prompts prompts = {points, COUNT_OF(points), box};
    segfm_status status = open_formula(weights_named_config("tiny"), r->threads, &n, error);
    if (status != SEGFM_OK) return status;
    segvol_encode(&n.net, &n.workspace, n.window, n.embedding);
    segvol_decode(&n.net, &n.workspace, n.embedding, &prompts);
    segvol_upsample(&n.net, &n.workspace, 0, n.logits);
    status = take(out, n.workspace.masks, n.net.config.mask_tokens * n.net.low_voxels, error);
    if (status == SEGFM_OK) status = take(out, n.workspace.iou, n.net.config.mask_tokens, error);
    if (status == SEGFM_OK) status = take(out, n.logits, n.net.window_voxels, error);
    tool_network_close(&n);
    return status;
}

/* One encoder layer and the decoder at full size. */
static segfm_status run_full_layer(const nn_run *r, io_buffer *out, segfm_error *error) {
    weights_config config = *weights_named_config("full");
    tool_network n = {0};
    const real box[6] = {8, 60, 70, 25, 180, 200};
    const segvol_prompts prompts = {NULL, 0, box};
    config.depth = 1;
    config.gru_blocks = config.gru_hidden = config.topk = 0;
    segfm_status status = open_formula(&config, r->threads, &n, error);
    if (status != SEGFM_OK) return status;
    segvol_encode(&n.net, &n.workspace, n.window, n.embedding);
    segvol_decode(&n.net, &n.workspace, n.embedding, &prompts);
    status = take(out, n.embedding, n.net.tokens * n.net.config.dim, error);
    if (status == SEGFM_OK) status = take(out, n.workspace.masks, n.net.low_voxels, error);
    tool_network_close(&n);
    return status;
}

/* A scan of several windows from its voxels to the logits, through the public API alone. */
static segfm_status run_session(const nn_run *r, io_buffer *out, segfm_error *error) {
    const int64_t shape[3] = {21, 75, 90};
    size_t n = (size_t)(shape[0] * shape[1] * shape[2]);
    segfm_options options = segfm_options_default();
    segfm_model_options opening = segfm_model_options_default();
    segfm_model *model = NULL;
    segfm_session *session = NULL;
    io_buffer bytes = {0};
    float *voxels = malloc(n * sizeof *voxels);
    segfm_status status =
        voxels == NULL ? base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector") : SEGFM_OK;
    options.threads = opening.threads = r->threads;
    if (status == SEGFM_OK) status = tool_formula_bytes(weights_named_config("tiny"), &bytes, error);
    if (status == SEGFM_OK) status = segfm_model_open(bytes.data, bytes.size, &opening, &model, error);
    if (status == SEGFM_OK) status = segfm_session_new(model, shape, &options, NULL, 0, &session, error);
    for (size_t i = 0; status == SEGFM_OK && i < n; i++)
        voxels[i] = (float)(int)(256.0 * weights_uniform("selftest.scan", i));
    if (status == SEGFM_OK) status = segfm_set_volume(session, voxels, error);
    if (status == SEGFM_OK) status = segfm_box(session, (int64_t[]){4, 20, 15, 15, 60, 71}, error);
    if (status == SEGFM_OK) status = segfm_click(session, (int64_t[]){9, 30, 40}, true, error);
    if (status == SEGFM_OK) status = io_buffer_reserve(out, n, error);
    if (status == SEGFM_OK) status = segfm_mask(session, out->data, n, error);
    if (status == SEGFM_OK) out->size = n;
    if (status == SEGFM_OK) status = segfm_logits(session, voxels, n, error);
    for (size_t i = 0; status == SEGFM_OK && i < n; i++) {
        real logit = (real)voxels[i];
        status = take(out, &logit, 1, error);
    }
    segfm_session_free(session);
    segfm_model_close(model);
    io_buffer_free(&bytes);
    free(voxels);
    return status;
}

/* ---- the table ------------------------------------------------------------------------------------------------ */

static const vector vectors[] = {
    {"exp", 0x28e5594b70a5460dU, run_exp},
    {"erf", 0x23d638ea12eb8fb1U, run_erf},
    {"tanh", 0xf07ed76dab64a7abU, run_tanh},
    {"sigmoid", 0x87e95bf9769e33c0U, run_sigmoid},
    {"fourier", 0x6d01b3ec1d84b64dU, run_fourier},
    {"matmul", 0xc94fbdc5a9ad291cU, run_matmul},
    {"attention", 0x2be59a8f13f5a272U, run_attention},
    {"layernorm", 0x59694ce38275fa31U, run_layernorm},
    {"layernorm-block", 0x215b08ac7a5740c2U, run_layernorm_block},
    {"gelu", 0xec30c946eeabb68fU, run_gelu},
    {"conv-transpose", 0x3088c358ce995477U, run_conv_transpose},
    {"trilinear", 0x72c949feca37420fU, run_trilinear},
    {"normalise", 0xb2cdb00db88b474eU, run_normalise},
    {"tiny-encoder", 0x68dadb155e2808ccU, run_encoder},
    {"tiny-decoder", 0xd4277e502a87d7cbU, run_decoder},
    {"tiny-session", 0x5b294463e4988a49U, run_session},
};
static const vector full_vectors[] = {
    {"full-layer", 0xc29ff732b0384ca0U, run_full_layer},
};

static segfm_status run_vectors(const vector *v, size_t n, const nn_run *run, int *different, segfm_error *error) {
    const bool promised = sizeof(real) == sizeof(float);
    for (size_t i = 0; i < n; i++) {
        io_buffer out = {0};
        segfm_status status = v[i].run(run, &out, error);
        uint64_t hash = base_xxh64(out.data, out.size, 0);
        io_buffer_free(&out);
        if (status != SEGFM_OK) return status;
        bool same = !promised || hash == v[i].hash;
        printf("%-16s %016llx%s\n", v[i].name, (unsigned long long)hash, same ? "" : "  DIFFERS");
        if (!same) *different += 1;
    }
    return SEGFM_OK;
}

segfm_status command_selftest(int argc, char **argv, segfm_error *error) {
    bool full = false;
    tool_common common;
    const tool_option options[] = {{"--full", .flag = &full}, {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &common, error);
    if (status != SEGFM_OK) return status;
    int different = 0;
    nn_run run = {nn_threads(common.threads), malloc(SCRATCH * sizeof(real)), nn_kernels_best()};
    if (run.scratch == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the operators' scratch");
    if (run.threads > 16) run.threads = 16; /* what SCRATCH is enough for */
    status = run_vectors(vectors, COUNT_OF(vectors), &run, &different, error);
    if (status == SEGFM_OK && full) status = run_vectors(full_vectors, COUNT_OF(full_vectors), &run, &different, error);
    free(run.scratch);
    if (status != SEGFM_OK) return status;
    return different == 0 ? SEGFM_OK : SEGFM_CHECK_FAILED;
}
