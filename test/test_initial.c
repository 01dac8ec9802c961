/* train/initial.c: the distributions that PyTorch's constructors draw from, tensor by tensor. */
#include "test.h"

#include "../train/train.h"

static train_network plan(void **memory, int threads) {
    train_network n;
    train_network_options options = {.offsets = true, .max_corrections = 1, .parts = TRAIN_ALL};
    nn_arena arena = {.capacity = SIZE_MAX};
    const weights_config *c = weights_named_config("tiny");
    CHECK(train_network_plan(&n, c, &options, threads, &arena, NULL) == SEGFM_OK);
    *memory = aligned_alloc(NN_ALIGN, (arena.used + NN_ALIGN - 1) / NN_ALIGN * NN_ALIGN);
    arena = (nn_arena){.base = *memory, .capacity = arena.used};
    CHECK(*memory != NULL && train_network_plan(&n, c, &options, threads, &arena, NULL) == SEGFM_OK);
    return n;
}

/* Uniform in ±bound: mean 0, all inside, deviation bound/√3. Normal: bound is the deviation. */
static void check_tensor(const train_network *n, const char *name, double bound, bool normal) {
    const train_tensor *t = n->tensors;
    while (strcmp(t->spec.name, name) != 0) t++;
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
    const train_tensor *t = n->tensors;
    while (strcmp(t->spec.name, name) != 0) t++;
    bool all = t->count > 0;
    for (size_t i = 0; i < t->count; i++) all = all && (double)n->parameters[t->at + i] == value;
    CHECK(all);
}

/* A feature knows one axis; all axes have the same periods in voxels of what is divided by their size, from 4 to twice the largest
   size, each longer than the one before. A box corner's z, which goes where a cell's y goes (SPEC 2.2), gives the same angles
   as a cell's z, up to a constant, in another feature. */
static void check_frequencies(const train_network *n) {
    const train_tensor *t = n->tensors;
    while (strcmp(t->spec.name, "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix") != 0) t++;
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

int main(void) {
    void *memory = NULL, *other = NULL;
    train_network n = plan(&memory, 1), same = plan(&other, 3);
    const weights_config *c = &n.config;
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
    return test_summary();
}
