/* train/initial.c: the distributions that PyTorch's constructors draw from, tensor by tensor, and the head start of models
   whose window follows the box. */
#include "test.h"

#include "../train/train.h"
#include "random.h"

static train_network plan(const weights_config *c, void **memory, int threads) {
    train_network n;
    train_network_options options = {.offsets = true, .max_corrections = 1, .parts = TRAIN_ALL};
    nn_arena arena = {.capacity = SIZE_MAX};
    CHECK(train_network_plan(&n, c, &options, threads, &arena, NULL) == SEGFM_OK);
    *memory = aligned_alloc(NN_ALIGN, (arena.used + NN_ALIGN - 1) / NN_ALIGN * NN_ALIGN);
    arena = (nn_arena){.base = *memory, .capacity = arena.used};
    CHECK(*memory != NULL && train_network_plan(&n, c, &options, threads, &arena, NULL) == SEGFM_OK);
    return n;
}

static const train_tensor *tensor_of(const train_network *n, const char *name) {
    const train_tensor *t = n->tensors;
    while (strcmp(t->spec.name, name) != 0) t++;
    return t;
}

/* Uniform in ±bound: mean 0, all inside, deviation bound/√3. Normal: bound is the deviation. */
static void check_tensor(const train_network *n, const char *name, double bound, bool normal) {
    const train_tensor *t = tensor_of(n, name);
    const real *x = n->parameters + t->at;
    double sum = 0, squares = 0, most = 0, count = (double)t->count;
    for (size_t i = 0; i < t->count; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
        most = fabs((double)x[i]) > most ? fabs((double)x[i]) : most;
    }
    double deviation = sqrt(squares / count), want = normal ? bound : bound / sqrt(3.0), slack = 4 / sqrt(count);
    if (!CHECK(fabs(deviation / want - 1) < slack) || !CHECK(fabs(sum / count) < slack * want) ||
        !CHECK(normal || (most <= bound * (1 + 1e-6) && most > bound * (1 - 20 / count))))
        printf("    %s: deviation %g, need %g; largest %g\n", name, deviation, want, most);
}

static void check_constant(const train_network *n, const char *name, double value) {
    const train_tensor *t = tensor_of(n, name);
    bool all = t->count > 0;
    for (size_t i = 0; i < t->count; i++) all = all && (double)n->parameters[t->at + i] == value;
    CHECK(all);
}

/* A feature knows one axis; all axes have the same periods in voxels of what is divided by their size, from 4 to twice the largest
   size, each longer than the one before. A box corner's z, which goes where a cell's y goes (SPEC 2.2), gives the same angles
   as a cell's z, up to a constant, in another feature. */
static void check_frequencies(const train_network *n) {
    const train_tensor *t = tensor_of(n, "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix");
    const real *g = n->parameters + t->at;
    const uint32_t *s = n->config.spatial;
    const double divisor[3] = {s[1], s[0], s[2]};
    size_t half = n->config.dim / 2;
    double period[3] = {0, 0, 0};
    CHECK(t->count == 3 * half);
    for (size_t j = 0; j < half; j++)
        for (size_t axis = 0; axis < 3; axis++) {
            double turns = (double)g[axis * half + j]; /* in which voxel / divisor goes from 0 to ½ */
            if (!CHECK((turns != 0) == (axis == j % 3)) || axis != j % 3) continue;
            double now = divisor[axis] / (2 * turns);
            CHECK(j < 3 ? fabs(now - 4) < 1e-6 : now > period[axis] * 1.05 && now < period[axis] * 2.05);
            period[axis] = now;
        }
    for (int axis = 0; axis < 3; axis++) CHECK(period[axis] > s[1] && period[axis] < 2.2 * s[1]);
}

/* All but the head start, which is for others than this model. */
static void test_distributions(void) {
    void *memory = NULL, *other = NULL;
    const weights_config *c = weights_named_config("tiny");
    train_network n = plan(c, &memory, 1), same = plan(c, &other, 3);
    train_initial(&n, 7);
    train_initial(&same, 7);
    CHECK(memcmp(n.parameters, same.parameters, n.count * sizeof(real)) == 0);
    train_initial(&same, 8);
    CHECK(memcmp(n.parameters, same.parameters, n.count * sizeof(real)) != 0);
    double patch = (double)c->patch[0] * c->patch[1] * c->patch[2];
    check_tensor(&n, "image_encoder.patch_embedding.patch_embeddings.1.weight", 1 / sqrt(patch), false);
    check_tensor(&n, "image_encoder.patch_embedding.patch_embeddings.1.bias", 1 / sqrt(patch), false);
    check_tensor(&n, "image_encoder.patch_embedding.position_embeddings", 0.02, true);
    check_tensor(&n, "image_encoder.blocks.0.mlp.linear2.weight", 1 / sqrt((double)c->mlp), false);
    check_tensor(&n, "image_encoder.blocks.0.attn.qkv.weight", 1 / sqrt((double)c->dim), false);
    check_tensor(&n, "mask_decoder.output_upscaling.0.weight", 1 / sqrt(8.0 * c->up1), false);
    check_tensor(&n, "mask_decoder.output_upscaling.0.bias", 1 / sqrt(8.0 * c->up1), false);
    check_tensor(&n, "mask_decoder.mask_tokens.weight", 1, true);
    check_frequencies(&n);
    check_tensor(&n, "prompt_encoder.not_a_point_embed.weight", 1, true);
    check_tensor(&n, "gru_blocks.0.gru.weight_ih_l0", 1 / sqrt((double)c->gru_hidden), false);
    check_tensor(&n, "gru_blocks.0.gru.bias_hh_l0", 1 / sqrt((double)c->gru_hidden), false);
    check_tensor(&n, "gru_blocks.4.fc_prob.bias", 1 / sqrt(c->gru_hidden + 6.0 * c->topk), false);
    check_constant(&n, "gru_blocks.0.fc_coord.weight", 0);
    check_constant(&n, "image_encoder.blocks.0.norm1.weight", 1);
    check_constant(&n, "image_encoder.norm.bias", 0);
    check_constant(&n, "mask_decoder.transformer.norm_final_attn.weight", 1);
    check_constant(&n, "mask_decoder.output_upscaling.1.weight", 1);
    check_constant(&n, "mask_decoder.output_upscaling.1.bias", 0);
    free(memory);
    free(other);
}

/* ---- the head start --------------------------------------------------------------------------------------------- */

enum { SIDE = 4, PARTS = 64 };

/* Two models with it: one whose parts are voxels, and the least one, with parts of 1×2×3 voxels. */
static const weights_config framed[] = {{.spatial = {8, 16, 12},
                                         .patch = {4, 4, 4},
                                         .dim = 96,
                                         .depth = 2,
                                         .heads = 6,
                                         .mlp = 100,
                                         .decoder_depth = 2,
                                         .decoder_heads = 8,
                                         .decoder_mlp = 40,
                                         .decoder_cross_dim = 24,
                                         .mask_tokens = 4,
                                         .iou_hidden = 16,
                                         .iou_layers = 3,
                                         .hyper_layers = 3,
                                         .up1 = 24,
                                         .up2 = 12,
                                         .gru_blocks = 1,
                                         .gru_hidden = 8,
                                         .topk = 4,
                                         .frame = 25},
                                        {.spatial = {8, 24, 36},
                                         .patch = {4, 8, 12},
                                         .dim = 66,
                                         .depth = 3,
                                         .heads = 3,
                                         .mlp = 50,
                                         .decoder_depth = 2,
                                         .decoder_heads = 2,
                                         .decoder_mlp = 30,
                                         .decoder_cross_dim = 22,
                                         .mask_tokens = 4,
                                         .iou_hidden = 16,
                                         .iou_layers = 3,
                                         .hyper_layers = 3,
                                         .up1 = 16,
                                         .up2 = 3,
                                         .frame = 1}};

/* The same weights with and without the head start. */
typedef struct pair {
    weights_config c;
    train_network with, without;
    void *memory[2];
} pair;

static pair open_pair(const weights_config *c, uint64_t seed) {
    pair p = {.c = *c};
    weights_config plain = *c;
    plain.frame = 0;
    p.with = plan(c, &p.memory[0], 1);
    p.without = plan(&plain, &p.memory[1], 1);
    train_initial(&p.with, seed);
    train_initial(&p.without, seed);
    CHECK(p.with.count == p.without.count);
    return p;
}

static void close_pair(pair *p) { free(p->memory[0]), free(p->memory[1]); }

/* Does the head start set this tensor? */
static bool is_set(const char *name) {
    static const char *const begins[] = {
        "image_encoder.patch_embedding.patch_embeddings.1.weight", "image_encoder.patch_embedding.position_embeddings",
        "mask_decoder.output_upscaling.0.weight", "mask_decoder.output_upscaling.3.weight"};
    static const char *const ends[] = {".attn.qkv.weight", ".attn.out_proj.weight", ".mlp.linear2.weight"};
    for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++)
        if (strcmp(name, begins[i]) == 0) return true;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (strncmp(name, "image_encoder.blocks.", 21) == 0 && strstr(name, ends[i]) != NULL) return true;
    return false;
}

/* All other tensors have the bits that they have without it; of those that it sets not one. */
static void test_others(const pair *p) {
    size_t wrong = 0, set = 0;
    for (size_t i = 0; i < p->with.tensor_count; i++) {
        const train_tensor *t = &p->with.tensors[i];
        bool same = memcmp(p->with.parameters + t->at, p->without.parameters + t->at, t->count * sizeof(real)) == 0;
        wrong += same == is_set(t->spec.name) ? 1 : 0;
        set += is_set(t->spec.name) ? 1 : 0;
    }
    CHECK(wrong == 0 && set == 4 + 3 * p->c.depth);
}

/* want: NAN where the weight is drawn as without a head start. */
static void check_weights(const pair *p, const char *name, const double *want, double tolerance) {
    const train_tensor *t = tensor_of(&p->with, name);
    size_t wrong = 0;
    for (size_t i = 0; i < t->count; i++) {
        double got = (double)p->with.parameters[t->at + i], drawn = (double)p->without.parameters[t->at + i];
        wrong += (isnan(want[i]) ? got == drawn : fabs(got - want[i]) <= tolerance) ? 0 : 1;
    }
    if (!CHECK(wrong == 0)) printf("    %s: %zu of %zu\n", name, wrong, t->count);
}

static double *unset(size_t n) {
    double *w = malloc(n * sizeof *w);
    for (size_t i = 0; i < n; i++) w[i] = NAN;
    return w;
}

/* A row for each part: its voxels alike, of length 1, and no other. */
static void test_patches(const pair *p) {
    const uint32_t *n = p->c.patch;
    size_t voxels = (size_t)n[0] * n[1] * n[2], row = 0;
    double *want = unset(p->c.dim * voxels);
    for (size_t i = 0; i < PARTS * voxels; i++) want[i] = 0;
    for (size_t z = 0; z < SIDE; z++)
        for (size_t y = 0; y < SIDE; y++)
            for (size_t x = 0; x < SIDE; x++, row++)
                for (size_t a = 0; a < n[0] / SIDE; a++)
                    for (size_t b = 0; b < n[1] / SIDE; b++)
                        for (size_t c = 0; c < n[2] / SIDE; c++) {
                            size_t at[3] = {z * (n[0] / SIDE) + a, y * (n[1] / SIDE) + b, x * (n[2] / SIDE) + c};
                            want[row * voxels + (at[0] * n[1] + at[1]) * n[2] + at[2]] = sqrt(PARTS / (double)voxels);
                        }
    check_weights(p, "image_encoder.patch_embedding.patch_embeddings.1.weight", want, 1e-7);
    free(want);
}

/* The first kernel takes a part to the one of eight voxels that it lies in, to the channel of where in it, and as its
   negative to the one eight further on; the second takes these channels to where they belong. */
static void test_upscaling(const pair *p) {
    size_t up1 = p->c.up1, up2 = p->c.up2;
    double *first = unset(p->c.dim * up1 * 8), *second = unset(up1 * up2 * 8);
    for (size_t part = 0; part < PARTS; part++)
        for (size_t i = 0; i < 16 * 8; i++) first[part * up1 * 8 + i] = 0;
    for (size_t in = 0; in < 16; in++)
        for (size_t i = 0; i < 3 * 8; i++) second[in * up2 * 8 + i] = 0;
    for (size_t z = 0; z < SIDE; z++)
        for (size_t y = 0; y < SIDE; y++)
            for (size_t x = 0; x < SIDE; x++) {
                double *of_part = first + ((z * SIDE + y) * SIDE + x) * up1 * 8;
                size_t large = (z >> 1) << 2 | (y >> 1) << 1 | (x >> 1), fine = (z & 1) << 2 | (y & 1) << 1 | (x & 1);
                of_part[fine * 8 + large] = 1, of_part[(8 + fine) * 8 + large] = -1;
            }
    for (size_t fine = 0; fine < 8; fine++) {
        double *positive = second + fine * up2 * 8, *negative = second + (8 + fine) * up2 * 8;
        positive[0 * 8 + fine] = positive[2 * 8 + fine] = 1;
        negative[1 * 8 + fine] = negative[2 * 8 + fine] = 1;
    }
    check_weights(p, "mask_decoder.output_upscaling.0.weight", first, 0);
    check_weights(p, "mask_decoder.output_upscaling.3.weight", second, 0);
    free(first), free(second);
}

/* Channel 64 + j knows axis j mod 3: of that axis 1, 2, 3, … half waves from end to end, sines about its middle and cosines
   by turns. The parts' channels are as they were drawn. */
static void test_waves(const pair *p) {
    const uint32_t *s = p->c.spatial, *n = p->c.patch;
    size_t grid[3] = {s[0] / n[0], s[1] / n[1], s[2] / n[2]}, tokens = grid[0] * grid[1] * grid[2], dim = p->c.dim;
    double *want = unset(tokens * dim);
    for (size_t t = 0; t < tokens; t++)
        for (size_t j = 0; PARTS + j < dim; j++) {
            const size_t at[3] = {t / (grid[1] * grid[2]), t / grid[2] % grid[1], t % grid[2]};
            double size = (double)grid[j % 3], from_middle = ((double)at[j % 3] - (size - 1) / 2) / size;
            double angle = 3.14159265358979323846 * from_middle * floor(1 + (double)j / 6);
            want[t * dim + PARTS + j] = j % 6 < 3 ? sin(angle) : cos(angle);
        }
    check_weights(p, "image_encoder.patch_embedding.position_embeddings", want, 1e-7);
    free(want);
}

/* A block's keys are its queries, values as drawn; what it adds is a quarter of what it would. */
static void test_blocks(const pair *p) {
    size_t dim = p->c.dim, wrong = 0;
    for (size_t block = 0; block < p->c.depth; block++)
        for (int which = 0; which < 3; which++) {
            static const char *const names[] = {"attn.qkv", "attn.out_proj", "mlp.linear2"};
            char name[80];
            snprintf(name, sizeof name, "image_encoder.blocks.%zu.%s.weight", block, names[which]);
            const train_tensor *t = tensor_of(&p->with, name);
            const real *got = p->with.parameters + t->at, *drawn = p->without.parameters + t->at;
            for (size_t i = 0; i < t->count; i++) {
                bool is_key = which == 0 && i / (dim * dim) == 1;
                real want = which > 0 ? drawn[i] / 4 : is_key ? drawn[i - dim * dim] : drawn[i];
                wrong += got[i] == want ? 0 : 1;
            }
        }
    CHECK(wrong == 0);
}

/* y (out, 8 · cells) = the transposed convolution of x (cell, channel: strides as given), without bias, then max(y, 0) */
static real *upscaled(const pair *p, const char *name, const size_t grid[3], const real *x, size_t cell_stride,
                      size_t channel_stride) {
    const train_tensor *t = tensor_of(&p->with, name);
    size_t in = (size_t)t->spec.shape[0], out = (size_t)t->spec.shape[1], n = out * 8 * grid[0] * grid[1] * grid[2];
    const nn_kernels *kernels = nn_kernels_best();
    real *packed = aligned_reals(nn_conv_transpose_count(in, out)), *bias = calloc(out, sizeof *bias);
    real *scratch = aligned_reals(nn_conv_transpose_scratch(in, out, 0, 1)), *y = aligned_reals(n);
    nn_conv_transpose_pack(kernels, p->with.parameters + t->at, in, out, packed);
    const nn_conv_transpose conv = {in, out, packed, bias};
    nn_conv_transpose_forward(&(nn_run){1, scratch, kernels}, grid, x, cell_stride, channel_stride, &conv, y);
    for (size_t i = 0; i < n; i++) y[i] = y[i] > 0 ? y[i] : 0;
    free(packed), free(bias), free(scratch);
    return y;
}

/* What it is for, by the network's own operators: of a window through patches and upscaling, with nothing between and what is
   beside the parts left out, a voxel of the mask has the mean of the voxels that it stands for (times the root of their
   number) where that is positive, its negative where it is not, and its size. */
static void test_through(const pair *p) {
    size_t spatial[3], patch[3], grid[3], doubled[3], dim = p->c.dim, wrong = 0;
    for (int k = 0; k < 3; k++) {
        spatial[k] = p->c.spatial[k], patch[k] = p->c.patch[k];
        grid[k] = spatial[k] / patch[k], doubled[k] = 2 * grid[k];
    }
    size_t tokens = grid[0] * grid[1] * grid[2], voxels = patch[0] * patch[1] * patch[2], low = 64 * tokens;
    real *window = random_reals(5, tokens * voxels, -1, 1), *rows = aligned_reals(tokens * voxels);
    real *x = calloc(tokens * dim, sizeof *x);
    const real *w =
        p->with.parameters + tensor_of(&p->with, "image_encoder.patch_embedding.patch_embeddings.1.weight")->at;
    nn_patches(&(nn_run){1, NULL, nn_kernels_best()}, window, spatial, patch, rows);
    for (size_t t = 0; t < tokens; t++)
        for (size_t part = 0; part < PARTS; part++)
            for (size_t v = 0; v < voxels; v++) x[t * dim + part] += w[part * voxels + v] * rows[t * voxels + v];
    real *up1 = upscaled(p, "mask_decoder.output_upscaling.0.weight", grid, x, dim, 1);
    memset(up1 + 16 * 8 * tokens, 0, (p->c.up1 - 16) * 8 * tokens * sizeof *up1);
    real *up2 = upscaled(p, "mask_decoder.output_upscaling.3.weight", doubled, up1, 1, 8 * tokens);
    const size_t each[3] = {patch[0] / 4, patch[1] / 4, patch[2] / 4};
    for (size_t i = 0; i < low; i++) {
        size_t at[3] = {i / (16 * grid[1] * grid[2]), i / (4 * grid[2]) % (4 * grid[1]), i % (4 * grid[2])};
        double sum = 0;
        for (size_t z = at[0] * each[0]; z < (at[0] + 1) * each[0]; z++)
            for (size_t y = at[1] * each[1]; y < (at[1] + 1) * each[1]; y++)
                for (size_t c = at[2] * each[2]; c < (at[2] + 1) * each[2]; c++)
                    sum += (double)window[(z * spatial[1] + y) * spatial[2] + c];
        const double mean = sum / sqrt((double)(each[0] * each[1] * each[2]));
        const double want[3] = {mean > 0 ? mean : 0, mean < 0 ? -mean : 0, fabs(mean)};
        for (size_t c = 0; c < 3; c++) wrong += fabs((double)up2[c * low + i] - want[c]) <= 1e-6 ? 0 : 1;
    }
    CHECK(wrong == 0);
    free(window), free(rows), free(x), free(up1), free(up2);
}

static void test_head_start(void) {
    for (size_t i = 0; i < sizeof framed / sizeof framed[0]; i++) {
        pair p = open_pair(&framed[i], 11 + i);
        test_others(&p);
        test_patches(&p);
        test_upscaling(&p);
        test_waves(&p);
        test_blocks(&p);
        test_through(&p);
        close_pair(&p);
    }
}

/* A model too small for it, or whose patches have no 64 equal parts, begins as any other. */
static void test_no_head_start(void) {
    for (int i = 0; i < 6; i++) {
        weights_config c = framed[1];
        if (i == 0) c.dim = 64, c.heads = 2, c.decoder_cross_dim = 22;
        if (i == 1) c.up1 = 15;
        if (i == 2) c.up2 = 2;
        if (i > 2) c.patch[i - 3] = i == 3 ? 2 : 6, c.spatial[i - 3] = 12;
        pair p = open_pair(&c, 3);
        CHECK(weights_check_config(&c, NULL) == SEGFM_OK);
        CHECK(memcmp(p.with.parameters, p.without.parameters, p.with.count * sizeof(real)) == 0);
        close_pair(&p);
    }
}

int main(void) {
    test_distributions();
    test_head_start();
    test_no_head_start();
    return test_summary();
}
