/* The networks against PyTorch's float64 tensors (test/fixtures): every traced tensor end to end; every encoder block and
   decoder layer teacher-forced, that is fed with PyTorch's own tensors. */
#include "../nn/segvol/segvol.h"
#include "fixture.h"
#include "micro.h"
#include "random.h"
#include "tolerances.h"

typedef struct network {
    segvol_model net;
    segvol_workspace ws;
    io_buffer bytes;
    void *memory;
    real *window, *embedding, *logits;
} network;

static segfm_status lay_out(network *n, const weights_file *file, nn_arena *arena, int threads, segfm_error *error) {
    segfm_status status = segvol_model_bind(&n->net, file, true, arena, threads, NULL, NULL, error);
    n->window = nn_arena_reals(arena, n->net.window_voxels);
    n->embedding = nn_arena_reals(arena, segvol_image_count(&n->net));
    n->logits = nn_arena_reals(arena, n->net.window_voxels);
    return status == SEGFM_OK ? segvol_workspace_plan(&n->ws, &n->net, 8, threads, true, arena, error) : status;
}

static network network_bound(const weights_config *config, bool half, weights_source *source, int threads) {
    network n = {0};
    weights_write_options options = {.half = half, .variant = "upstream", .provenance = "test"};
    weights_file file;
    segfm_error error = {0};
    CHECK(weights_write(config, &options, source, NULL, weights_sink_buffer, &n.bytes, &error) == SEGFM_OK);
    CHECK(weights_open(n.bytes.data, n.bytes.size, &file, &error) == SEGFM_OK);
    nn_arena arena = {0};
    CHECK(lay_out(&n, &file, &arena, threads, &error) == SEGFM_OK);
    size_t need = arena.used;
    n.memory = aligned_reals(need / sizeof(real) + 1);
    arena = (nn_arena){.base = n.memory, .capacity = need - 1};
    CHECK(lay_out(&n, &file, &arena, threads, &error) == SEGFM_NO_MEMORY); /* one byte short is noticed */
    arena = (nn_arena){.base = n.memory, .capacity = need};
    CHECK(lay_out(&n, &file, &arena, threads, &error) == SEGFM_OK && arena.used == need);
    for (size_t i = 0; i < n.net.window_voxels; i++) n.window[i] = (real)(float)weights_uniform("input.image", i);
    weights_close(&file);
    return n;
}

static network network_open(const fixture *f, int threads) {
    weights_config config = fixture_config(f);
    return network_bound(&config, false, weights_formula_source, threads);
}

static void network_close(network *n) {
    io_buffer_free(&n->bytes);
    free(n->memory);
}

/* Compares with the reference tensor of that name, which is stored in float64 or rounded to float32. */
static void check_tensor(const fixture *f, const char *name, int ndim, const size_t *shape, const real *data) {
    fixture_array want = fixture_read(f, name);
    bool same = want.array.ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = want.array.shape[i] == shape[i];
    if (!CHECK(same)) {
        printf("    shape of %s\n", name);
        return;
    }
    tolerance t = want.array.dtype == IO_F64 ? tolerance_exact : tolerance_rounded;
    distance d = distance_of(data, want.values, want.array.count);
    if (getenv("TEST_VERBOSE") != NULL) printf("%-70s max abs %.2e relative L2 %.2e\n", name, d.max_abs, d.relative_l2);
    if (!CHECK(d.finite && !d.reference_is_zero && d.max_abs <= t.max_abs && d.relative_l2 <= t.relative_l2))
        printf("    %s: max abs %.3e (at most %.1e), relative L2 %.3e (at most %.1e)\n", name, d.max_abs, t.max_abs,
               d.relative_l2, t.relative_l2);
    fixture_array_free(&want);
}

typedef struct tracing {
    const fixture *encoder, *decoder;
    size_t seen;
} tracing;

static void on_tensor(void *user, const char *name, int ndim, const size_t *shape, const real *data) {
    tracing *t = user;
    const fixture *f = fixture_has(t->encoder, name) ? t->encoder : fixture_has(t->decoder, name) ? t->decoder : NULL;
    if (f == NULL) return; /* the upscaled volumes are stored for one prompt only */
    check_tensor(f, name, ndim, shape, data);
    t->seen++;
}

/* box (6) and points (n,4) of a fixture file; returns what refers to them. */
static segvol_prompts prompts_of(const fixture *f, real box[6], segvol_point *points) {
    segvol_prompts prompts = {points, 0, NULL};
    if (fixture_has(f, "box")) {
        fixture_array a = fixture_read(f, "box");
        for (int i = 0; i < 6; i++) box[i] = (real)a.values[i];
        prompts.box = box;
        fixture_array_free(&a);
    }
    if (fixture_has(f, "points")) {
        fixture_array a = fixture_read(f, "points");
        for (size_t i = 0; i < a.array.shape[0]; i++) {
            const double *v = a.values + 4 * i;
            points[prompts.point_count++] = (segvol_point){(real)v[0], (real)v[1], (real)v[2], (int)v[3]};
        }
        fixture_array_free(&a);
    }
    return prompts;
}

static void test_end_to_end(network *n, const fixture *encoder, const char *path, size_t tensors) {
    fixture decoder = fixture_open(path);
    real box[6];
    segvol_point points[8];
    segvol_prompts prompts = prompts_of(&decoder, box, points);
    tracing t = {encoder, &decoder, 0};
    n->ws.trace = on_tensor;
    n->ws.trace_user = &t;
    segvol_encode(&n->net, &n->ws, n->window, n->embedding);
    segvol_decode(&n->net, &n->ws, n->embedding, &prompts);
    segvol_upsample(&n->net, &n->ws, 0, n->logits);
    n->ws.trace = NULL;
    CHECK(t.seen == tensors);
    if (t.seen != tensors) printf("    %s: %zu tensors compared, expected %zu\n", path, t.seen, tensors);
    fixture_close(&decoder);
}

static void load(const fixture *f, const char *name, real *to) {
    fixture_array a = fixture_read(f, name);
    for (size_t i = 0; i < a.array.count; i++) to[i] = (real)a.values[i];
    fixture_array_free(&a);
}

static void test_blocks_teacher_forced(network *n, const fixture *f) {
    size_t shape[3] = {1, n->net.tokens, n->net.config.dim};
    load(f, "image_encoder.patch_embedding", n->embedding);
    segvol_block_forward(&n->net, &n->ws, 0, n->embedding);
    check_tensor(f, "image_encoder.blocks.0", 3, shape, n->embedding);
    load(f, "image_encoder.blocks.0", n->embedding);
    segvol_block_forward(&n->net, &n->ws, 1, n->embedding);
    check_tensor(f, "image_encoder.blocks.1", 3, shape, n->embedding);
}

static void test_layers_teacher_forced(network *n, const char *path) {
    fixture f = fixture_open(path);
    real box[6];
    segvol_point points[8];
    segvol_prompts prompts = prompts_of(&f, box, points);
    size_t dim = n->net.config.dim, masks = n->net.config.mask_tokens,
           rows = 1 + masks + segvol_encode_prompts(&n->net, &n->ws, &prompts);
    CHECK(rows == 1 + masks + segvol_sparse_count(&prompts));
    memcpy(n->ws.query_pe, n->net.iou_token, dim * sizeof(real));
    memcpy(n->ws.query_pe + dim, n->net.mask_tokens, masks * dim * sizeof(real));
    load(&f, "sparse", n->ws.query_pe + (1 + masks) * dim);
    load(&f, "mask_decoder.transformer.layers.0.queries", n->ws.queries);
    load(&f, "mask_decoder.transformer.layers.0.keys", n->ws.keys);
    segvol_two_way_layer_forward(&n->net, &n->ws, 1, rows, NULL);
    check_tensor(&f, "mask_decoder.transformer.layers.1.queries", 3, (size_t[]){1, rows, dim}, n->ws.queries);
    check_tensor(&f, "mask_decoder.transformer.layers.1.keys", 3, (size_t[]){1, n->net.tokens, dim}, n->ws.keys);
    fixture_close(&f);
}

static void test_dense_pe(const network *n, const fixture *f) {
    real *volume = malloc(n->net.tokens * n->net.config.dim * sizeof *volume);
    for (size_t t = 0; t < n->net.tokens; t++)
        for (size_t d = 0; d < n->net.config.dim; d++)
            volume[d * n->net.tokens + t] = n->net.dense_pe[t * n->net.config.dim + d];
    check_tensor(f, "dense_pe", 5, (size_t[]){1, n->net.config.dim, n->net.grid[0], n->net.grid[1], n->net.grid[2]},
                 volume);
    free(volume);
}

/* The same bits for any number of threads. */
static void test_threads(const fixture *f) {
    real box[6] = {1, 2, 3, 7, 9, 20}, *first = NULL;
    segvol_prompts prompts = {NULL, 0, box};
    for (int threads = 1; threads <= 3; threads++) {
        network n = network_open(f, threads);
        segvol_encode(&n.net, &n.ws, n.window, n.embedding);
        segvol_decode(&n.net, &n.ws, n.embedding, &prompts);
        segvol_upsample(&n.net, &n.ws, 0, n.logits);
        size_t bytes = n.net.window_voxels * sizeof(real);
        if (first == NULL) first = memcpy(malloc(bytes), n.logits, bytes);
        else CHECK(memcmp(first, n.logits, bytes) == 0);
        network_close(&n);
    }
    free(first);
}

/* The formula's values as a file with float16 matrices would hold them. */
static segfm_status rounded_source(void *user, const weights_spec *spec, size_t count, float *out, segfm_error *error) {
    segfm_status status = weights_formula_source(user, spec, count, out, error);
    bool is_matrix = spec->ndim >= 2 && strstr(spec->name, "gaussian") == NULL;
    for (size_t i = 0; is_matrix && i < count; i++) out[i] = base_half_to_float(base_float_to_half(out[i]));
    return status;
}

/* Weights that stay half in memory take less of it, and give the bits of the same numbers as floats. */
static void test_halves(const fixture *f) {
    weights_config config = fixture_config(f);
    real box[6] = {1, 2, 3, 7, 9, 20};
    segvol_prompts prompts = {NULL, 0, box};
    network n[2] = {network_bound(&config, false, rounded_source, 2),
                    network_bound(&config, true, weights_formula_source, 2)};
    size_t bytes = n[0].net.window_voxels * sizeof(real);
    CHECK(n[1].net.blocks[0].qkv.weight.half != NULL && n[0].net.blocks[0].qkv.weight.half == NULL);
    for (int i = 0; i < 2; i++) {
        segvol_encode(&n[i].net, &n[i].ws, n[i].window, n[i].embedding);
        segvol_decode(&n[i].net, &n[i].ws, n[i].embedding, &prompts);
        segvol_upsample(&n[i].net, &n[i].ws, 0, n[i].logits);
    }
    CHECK(memcmp(n[0].logits, n[1].logits, bytes) == 0);
    network_close(&n[0]), network_close(&n[1]);
}

/* The scratch is enough for every attention of the decoder, also where clicks are more than the image's tokens. */
static void test_scratch(void) {
    network n = network_bound(&micro, false, weights_formula_source, 1);
    size_t heads = micro.decoder_heads, self = micro.dim / heads, cross = micro.decoder_cross_dim / heads;
    for (size_t sparse = 1; sparse <= 10000; sparse *= 10) {
        size_t tokens = 1 + micro.mask_tokens + sparse, got = segvol_workspace_scratch(&n.net, sparse, 1);
        CHECK(got >= nn_attention_scratch(tokens, tokens, heads, self, 1));
        CHECK(got >= nn_attention_scratch(n.net.tokens, tokens, heads, cross, 1));
    }
    network_close(&n);
}

/* ---- binding --------------------------------------------------------------------------------------------------- */

/* Counts how often each byte of a file is said to be done with, and writes over it: it must not be read again. */
typedef struct released {
    unsigned char *bytes, *times;
    size_t size, calls;
    bool inside;
} released;

static void on_done(void *user, const void *bytes, size_t n) {
    released *r = user;
    size_t first = (size_t)((const unsigned char *)bytes - r->bytes);
    r->calls++;
    r->inside = r->inside && first < r->size && n <= r->size - first;
    for (size_t i = 0; r->inside && i < n; i++) r->times[first + i]++;
    if (r->inside) memset(r->bytes + first, 0xFF, n);
}

/* Binds a copy of the file in which element `element` of a tensor (or NULL) is not finite; done may be NULL. */
static segfm_status bind_copy(const io_buffer *b, const char *poisoned, size_t element, released *done, int threads,
                              segfm_error *error) {
    unsigned char *copy = malloc(b->size + 1), *bytes = copy + 1; /* at an odd address */
    weights_file file;
    segvol_model net;
    nn_arena arena = {0};
    memcpy(bytes, b->data, b->size);
    CHECK(weights_open(bytes, b->size, &file, error) == SEGFM_OK);
    if (poisoned != NULL) {
        const weights_tensor *t = weights_find(&file, poisoned);
        unsigned char *at = bytes + (t->data - bytes) + element * io_dtype_size(t->dtype);
        if (t->dtype == IO_F16) base_put_le16(at, 0x7C00);
        else base_put_le32(at, 0xFFC00000U);
    }
    CHECK(segvol_model_bind(&net, &file, true, &arena, threads, NULL, NULL, error) == SEGFM_OK);
    arena = (nn_arena){.base = (unsigned char *)aligned_reals(arena.used / sizeof(real) + 1), .capacity = arena.used};
    void *memory = arena.base;
    if (done != NULL) *done = (released){bytes, calloc(1, b->size), b->size, 0, true};
    segfm_status status =
        segvol_model_bind(&net, &file, true, &arena, threads, done != NULL ? on_done : NULL, done, error);
    if (done != NULL && poisoned == NULL) { /* all that the networks have, once; the text's never */
        size_t wrong = 0;
        for (size_t i = 0; i < file.count; i++) {
            const weights_tensor *t = &file.tensors[i];
            bool unused = strncmp(t->name, "text_", 5) == 0 || strstr(t->name, "txt_align") != NULL;
            size_t size = t->count * io_dtype_size(t->dtype), first = (size_t)(t->data - bytes);
            for (size_t k = 0; k < size; k++) wrong += done->times[first + k] != (unused ? 0 : 1);
            done->calls -= !unused;
        }
        for (size_t i = 0; i < (size_t)(file.tensors[0].data - bytes); i++) wrong += done->times[i] != 0;
        CHECK(wrong == 0 && done->calls == 0 && done->inside);
    }
    if (done != NULL) free(done->times);
    weights_close(&file);
    free(memory);
    free(copy);
    return status;
}

/* done is told of every tensor once; a value that is not finite is named in every kind of tensor. */
static void test_binding(const fixture *f) {
    static const char *const kinds[] = {"image_encoder.patch_embedding.position_embeddings",
                                        "image_encoder.patch_embedding.patch_embeddings.1.weight",
                                        "image_encoder.blocks.1.attn.qkv.weight",
                                        "image_encoder.blocks.0.norm2.bias",
                                        "mask_decoder.output_upscaling.0.weight",
                                        "mask_decoder.output_upscaling.1.weight",
                                        "mask_decoder.iou_prediction_head.layers.2.weight",
                                        "mask_decoder.output_hypernetworks_mlps.0.layers.0.bias",
                                        "gru_blocks.3.gru.weight_hh_l0",
                                        "gru_blocks.0.fc_prob.bias",
                                        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
                                        "prompt_encoder.no_mask_embed.weight"};
    weights_config config = fixture_config(f);
    for (int half = 0; half < 2; half++) {
        weights_write_options options = {.half = half, .variant = "upstream", .provenance = "test"};
        io_buffer b = {0};
        segfm_error error = {0};
        weights_file file;
        CHECK(weights_write(&config, &options, weights_formula_source, NULL, weights_sink_buffer, &b, &error) ==
              SEGFM_OK);
        CHECK(weights_open(b.data, b.size, &file, &error) == SEGFM_OK);
        for (int threads = 1; threads <= 3; threads++) {
            released done;
            CHECK(bind_copy(&b, NULL, 0, &done, threads, &error) == SEGFM_OK);
        }
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
            size_t count = weights_find(&file, kinds[i])->count, at[3] = {0, count / 2, count - 1};
            for (int k = 0; k < 3; k++) {
                char sentence[2 * WEIGHTS_NAME_MAX];
                base_format(sentence, sizeof sentence, "%s: element %zu is not finite", kinds[i], at[k]);
                released done;
                CHECK(bind_copy(&b, kinds[i], at[k], &done, 1 + k, &error) == SEGFM_BAD_INPUT);
                if (!CHECK(strcmp(error.message, sentence) == 0)) printf("    got '%s'\n", error.message);
            }
        }
        weights_close(&file);
        io_buffer_free(&b);
    }
}

int main(void) {
    fixture encoder = fixture_open("test/fixtures/encoder.npz");
    network n = network_open(&encoder, 2);
    test_end_to_end(&n, &encoder, "test/fixtures/box.npz", 48);
    test_end_to_end(&n, &encoder, "test/fixtures/points.npz", 41);
    test_end_to_end(&n, &encoder, "test/fixtures/boxpoints.npz", 41);
    test_blocks_teacher_forced(&n, &encoder);
    test_layers_teacher_forced(&n, "test/fixtures/box.npz");
    test_layers_teacher_forced(&n, "test/fixtures/points.npz");
    test_layers_teacher_forced(&n, "test/fixtures/boxpoints.npz");
    test_dense_pe(&n, &encoder);
    test_threads(&encoder);
    test_halves(&encoder);
    test_scratch();
    test_binding(&encoder);
    network_close(&n);
    fixture_close(&encoder);
    return test_summary();
}
