/* Weights files that no training would write: any configuration that weights_check_config lets pass must run, whatever the
   proportions of its widths, without touching memory that is not its own (make sanitize, make valgrind see to that). */
#include "../nn/segvol/segvol.h"
#include "../segfm.h"
#include "../weights/weights.h"
#include "random.h"
#include "test.h"

/* A value in [low, high]. */
static uint32_t between(uint64_t *state, uint32_t low, uint32_t high) {
    return low + random_next(state) % (high - low + 1);
}

static weights_config any_config(uint64_t seed) {
    uint64_t s = seed * 7919 + 1;
    weights_config c = {.depth = between(&s, 1, 2), .decoder_depth = between(&s, 1, 3)};
    for (int axis = 0; axis < 3; axis++) {
        c.patch[axis] = between(&s, 1, 5);
        c.spatial[axis] = c.patch[axis] * between(&s, 1, 3);
    }
    c.heads = between(&s, 1, 3);
    c.decoder_heads = between(&s, 1, 4);
    c.dim = 2 * c.heads * c.decoder_heads * between(&s, 1, 2);
    c.decoder_cross_dim = c.decoder_heads * between(&s, 1, 40); /* may be far wider than dim */
    c.mlp = between(&s, 1, 70);
    c.decoder_mlp = between(&s, 1, 70);
    c.mask_tokens = between(&s, 1, 8);
    c.iou_hidden = between(&s, 1, 90);
    c.iou_layers = between(&s, 1, 4);
    c.hyper_layers = between(&s, 1, 4);
    c.up1 = between(&s, 1, 20);
    c.up2 = between(&s, 1, 20);
    return c;
}

static segfm_status open_model(const weights_config *c, segfm_model **model, segfm_error *error) {
    weights_write_options options = {.variant = "upstream", .provenance = "test"};
    io_buffer bytes = {0};
    *model = NULL;
    CHECK(weights_write(c, &options, weights_formula_source, NULL, weights_sink_buffer, &bytes, error) == SEGFM_OK);
    segfm_status status = segfm_model_open(bytes.data, bytes.size, NULL, model, error);
    io_buffer_free(&bytes);
    return status;
}

enum { Z = 4, Y = 5, X = 6, VOXELS = Z * Y * X };
static const int64_t shape[3] = {Z, Y, X};

/* Logits after a box and a click; a session with room for `clicks` clicks. */
static void run(const segfm_model *model, int clicks, float *logits) {
    segfm_session *s = NULL;
    segfm_error error = {0};
    segfm_options options = segfm_options_default();
    float voxels[VOXELS];
    options.threads = 1;
    options.max_clicks = clicks;
    for (size_t i = 0; i < VOXELS; i++) voxels[i] = (float)weights_uniform("test.hostile", i);
    if (CHECK(segfm_session_new(model, shape, &options, NULL, 0, &s, &error) == SEGFM_OK)) {
        CHECK(segfm_set_volume(s, voxels, &error) == SEGFM_OK);
        CHECK(segfm_box(s, (int64_t[]){1, 1, 1, 2, 3, 4}, &error) == SEGFM_OK);
        CHECK(segfm_click(s, (int64_t[]){2, 3, 1}, true, &error) == SEGFM_OK);
        CHECK(segfm_logits(s, logits, VOXELS, &error) == SEGFM_OK);
    }
    segfm_session_free(s);
}

/* Finite logits, and the same ones when the buffers are far larger than they need be: one that is too small would be
   written past its end into the next. (Attention's inner width may exceed the tokens' width, which was forgotten once.) */
static void test_configuration(uint64_t seed) {
    weights_config c = any_config(seed);
    segfm_model *model = NULL;
    segfm_error error = {0};
    float tight[VOXELS], roomy[VOXELS];
    bool finite = true;
    if (!CHECK(open_model(&c, &model, &error) == SEGFM_OK)) return;
    run(model, 1, tight);
    run(model, 8192, roomy);
    for (size_t i = 0; i < VOXELS; i++) finite = finite && isfinite(tight[i]);
    if (!CHECK(finite && memcmp(tight, roomy, sizeof tight) == 0)) printf("    seed %d\n", (int)seed);
    segfm_model_close(model);
}

/* Sizes that no machine has are refused with the sentence for it, not wrapped round. */
static void test_enormous(void) {
    weights_config c = any_config(0);
    segfm_model *model = NULL;
    segfm_session *s = NULL;
    segfm_error error = {0};
    size_t few = 0, many = 0;
    segfm_options options = segfm_options_default();
    if (!CHECK(open_model(&c, &model, &error) == SEGFM_OK)) return;
    CHECK(segfm_session_new(model, (int64_t[]){INT32_MAX, INT32_MAX, 1}, NULL, NULL, 0, &s, &error) ==
              SEGFM_NO_MEMORY &&
          s == NULL);
    options.threads = 1024;
    CHECK(segfm_session_bytes(model, shape, &options, &few, &error) == SEGFM_OK);
    options.threads = INT32_MAX;
    CHECK(segfm_session_bytes(model, shape, &options, &many, &error) == SEGFM_OK && few == many);
    segfm_model_close(model);
}

/* A model of two numbers per window: what a session keeps and searches of it stays within reason. */
static void test_smallest(void) {
    weights_config c = any_config(0);
    segfm_model *model = NULL;
    segfm_error error = {0};
    size_t bytes = 0;
    for (int axis = 0; axis < 3; axis++) c.patch[axis] = c.spatial[axis] = 1;
    c.dim = 2, c.heads = c.decoder_heads = 1;
    if (!CHECK(open_model(&c, &model, &error) == SEGFM_OK)) return;
    segfm_options options = segfm_options_default();
    options.threads = 1;
    CHECK(segfm_session_bytes(model, shape, &options, &bytes, &error) == SEGFM_OK && bytes < (size_t)64 << 20);
    segfm_model_close(model);
}

/* As many layers and masks as there is room for, and one more of each. */
static void test_most(void) {
    weights_config c = any_config(0);
    segfm_model *model = NULL;
    segfm_error error = {0};
    float logits[VOXELS];
    c.mask_tokens = SEGVOL_MAX_MASKS, c.hyper_layers = c.iou_layers = SEGVOL_MAX_MLP;
    if (CHECK(open_model(&c, &model, &error) == SEGFM_OK)) run(model, 1, logits);
    segfm_model_close(model);
    for (int k = 0; k < 3; k++) {
        weights_config more = c;
        (*(k == 0 ? &more.mask_tokens : k == 1 ? &more.hyper_layers : &more.iou_layers))++;
        CHECK(open_model(&more, &model, &error) == SEGFM_BAD_INPUT && model == NULL);
        CHECK(strstr(error.message, "are supported") != NULL);
    }
}

static void test_sizes(void) {
    CHECK(nn_times(SIZE_MAX, 1) == SIZE_MAX && nn_times(SIZE_MAX / 2, 3) == SIZE_MAX && nn_times(0, SIZE_MAX) == 0);
    CHECK(nn_plus(SIZE_MAX, 0) == SIZE_MAX && nn_plus(SIZE_MAX, 1) == SIZE_MAX && nn_plus(2, 3) == 5);
    CHECK(nn_panels_count(SIZE_MAX - 3, 2) == SIZE_MAX && nn_panels_count(17, SIZE_MAX / 16) == SIZE_MAX);
    CHECK(nn_panels_count(17, 5) == 160 &&
          nn_trilinear_scratch((size_t[]){1, 1, SIZE_MAX}, (size_t[]){1, 1, 1}, INT32_MAX) == SIZE_MAX);
    CHECK(nn_attention_scratch(1, SIZE_MAX / 8, 4, 8, 1) == SIZE_MAX);
    CHECK(nn_conv_transpose_scratch(1, SIZE_MAX / 64, 0, 1) == SIZE_MAX);
    for (int base = 0; base < 2; base++) {
        unsigned char memory[256];
        nn_arena arena = {.base = base ? memory : NULL, .capacity = sizeof memory};
        CHECK(nn_arena_reals(&arena, SIZE_MAX) == NULL && arena.failed && arena.used == 0);
        arena = (nn_arena){.base = base ? memory : NULL, .capacity = sizeof memory};
        CHECK(nn_arena_take(&arena, SIZE_MAX, 1) == NULL && arena.failed);
    }
}

int main(void) {
    for (uint64_t seed = 0; seed < 40; seed++) test_configuration(seed);
    test_enormous();
    test_smallest();
    test_most();
    test_sizes();
    return test_summary();
}
