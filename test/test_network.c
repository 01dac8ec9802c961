/* The loss of an example and its gradients: central differences (double build), and what is promised of bits and memory. */
#include "../train/train.h"
#include "fixture.h"
#include "odd_sizes.h"
#include "random.h"
#include "tolerances.h"

typedef struct example {
    train_network net;
    void *memory;
    train_sample sample;
} example;

static weights_config config_with(uint32_t gru_blocks) {
    weights_config c = odd_config(gru_blocks, gru_blocks > 0 ? 26 : 0, gru_blocks > 0 ? 11 : 0);
    c.depth = 3;
    c.text_dim = 0;
    return c;
}

static void plan(example *e, const weights_config *c, const train_network_options *o, int threads) {
    nn_arena arena = {0};
    segfm_error error = {0};
    CHECK(train_network_plan(&e->net, c, o, threads, &arena, &error) == SEGFM_OK);
    size_t need = arena.used;
    e->memory = aligned_reals(need / sizeof(real) + 1);
    arena = (nn_arena){.base = e->memory, .capacity = need - 1};
    CHECK(train_network_plan(&e->net, c, o, threads, &arena, &error) == SEGFM_NO_MEMORY);
    arena = (nn_arena){.base = e->memory, .capacity = need};
    CHECK(train_network_plan(&e->net, c, o, threads, &arena, &error) == SEGFM_OK && arena.used == need);
    for (size_t i = 0; i < e->net.count; i++) e->net.gradients[i] = 0;
}

/* A ball in noise, a little brighter than what is around it. */
static train_sample sample_of(const weights_config *c) {
    size_t n[3] = {c->spatial[0], c->spatial[1], c->spatial[2]}, voxels = n[0] * n[1] * n[2];
    train_sample s = {.image = malloc(voxels * sizeof(real)), .truth = malloc(voxels), .box = {2, 4, 8, 7, 13, 25}};
    for (size_t i = 0; i < voxels; i++) {
        double z = ((double)(i / (n[1] * n[2])) - 4.5) / 3, y = ((double)(i / n[2] % n[1]) - 8.5) / 5,
               x = ((double)(i % n[2]) - 16.5) / 9;
        s.truth[i] = z * z + y * y + x * x < 1;
        s.image[i] = (real)(0.7 * weights_uniform("test.image", i) + 0.3 * s.truth[i]);
    }
    return s;
}

static example open_example(const weights_config *c, const train_network_options *o, int threads) {
    example e = {.sample = sample_of(c)};
    plan(&e, c, o, threads);
    for (size_t i = 0; i < e.net.tensor_count; i++) {
        const train_tensor *t = &e.net.tensors[i];
        float *values = malloc(t->count * sizeof *values);
        weights_formula_source(NULL, &t->spec, t->count, values, NULL);
        for (size_t k = 0; k < t->count; k++) e.net.parameters[t->at + k] = (real)values[k];
        free(values);
    }
    train_network_refresh(&e.net);
    return e;
}

static void close_example(example *e) { free(e->sample.image), free(e->sample.truth), free(e->memory); }

/* ---- central differences ------------------------------------------------------------------------------------- */

#ifdef SEGFM_REAL_DOUBLE

static double loss_at(example *e, const train_tensor *t, const real *kept, const double *direction, double step,
                      const train_objective *o) {
    train_losses losses;
    for (size_t k = 0; k < t->count; k++) e->net.parameters[t->at + k] = kept[k] + step * direction[k];
    train_network_refresh(&e->net);
    train_network_loss(&e->net, &e->sample, o, &losses);
    return losses.total;
}

/* The derivative along a direction of signs, from four values (an error of the order of step⁴), against the gradient. Along
   such a direction every element counts; where the gradient is 0 (what the loss does not depend on) both must be. */
static void check_tensor(example *e, const train_tensor *t, const train_objective *o) {
    double *direction = malloc(t->count * sizeof *direction), want = 0, size = 0;
    real *kept = malloc(t->count * sizeof *kept);
    memcpy(kept, e->net.parameters + t->at, t->count * sizeof *kept);
    for (size_t k = 0; k < t->count; k++) {
        double g = (double)e->net.gradients[t->at + k];
        direction[k] = weights_uniform(t->spec.name, 1000 + k) < 0.5 ? -1 : 1;
        if (k % 3 != 0 && g * direction[k] < 0)
            direction[k] = -direction[k]; /* so that the sum is not small by chance */
        want += g * direction[k], size += fabs(g);
    }
    /* small enough for no ReLU to change its mind, large enough for the loss's last digits not to matter */
    const double h = fmin(fmax(2e-7 / size, 1e-8), 2e-5);
    double near = loss_at(e, t, kept, direction, h, o) - loss_at(e, t, kept, direction, -h, o);
    double far = loss_at(e, t, kept, direction, 2 * h, o) - loss_at(e, t, kept, direction, -2 * h, o);
    double got = (8 * near - far) / (12 * h), error = fabs(got - want) / fmax(size, TOL_DIFFERENCE_FLOOR);
    if (!(error <= TOL_DIFFERENCE))
        printf("%s: gradient %.12g, differences %.12g, relative error %.2e\n", t->spec.name, want, got, error);
    CHECK(error <= TOL_DIFFERENCE);
    memcpy(e->net.parameters + t->at, kept, t->count * sizeof *kept);
    free(direction), free(kept);
}

static void check_differences(const weights_config *c, const train_network_options *options,
                              const train_objective *objective) {
    example e = open_example(c, options, 2);
    train_losses losses;
    train_network_backward(&e.net, &e.sample, objective, 1, &losses);
    CHECK(isfinite(losses.total) && losses.total > 0.1);
    size_t moved = 0;
    e.net.replay = true;
    for (size_t i = 0; i < e.net.tensor_count; i++) {
        const train_tensor *t = &e.net.tensors[i];
        /* where upstream's corrections overwrite each other, its gradients are no derivatives (golden_train.c knows them) */
        bool overwrites = options->variant == VOL_UPSTREAM && strncmp(t->spec.name, "gru_", 4) == 0;
        if (t->learns && !overwrites) check_tensor(&e, t, objective);
        for (size_t k = 0; k < t->count; k++)
            if (e.net.gradients[t->at + k] != 0) {
                moved++;
                break;
            }
    }
    CHECK(moved > e.net.tensor_count / 2);
    close_example(&e);
}

static void test_differences(void) {
    const weights_config five = config_with(5), one = config_with(1), none = config_with(0);
    const train_network_options seed = {.max_corrections = 5, .parts = TRAIN_ALL, .offsets = true};
    const train_network_options all = {.max_corrections = 5, .parts = TRAIN_ALL, .all_clicks = true};
    const train_network_options chained = {.max_corrections = 5, .parts = TRAIN_ALL, .all_clicks = true, .chain = true};
    const train_network_options upstream = {
        .max_corrections = 3, .parts = TRAIN_ALL, .variant = VOL_UPSTREAM, .slice_dice = true};
    check_differences(&five, &seed, &(train_objective){.corrections = 3, .points = true});
    check_differences(&one, &all, &(train_objective){3, true, REAL_C(0.4), REAL_C(0.3)});
    check_differences(&one, &chained, &(train_objective){.corrections = 3, .points = true});
    check_differences(&none, &seed, &(train_objective){0, true, 0, REAL_C(0.5)});
    check_differences(&five, &upstream, &(train_objective){.corrections = 2, .points = true});
}

#else

static void test_differences(void) {} /* single precision has too few digits */

#endif

/* ---- bits ---------------------------------------------------------------------------------------------------- */

static real *gradients_of(const weights_config *c, train_network_options options, int threads, size_t *count) {
    example e = open_example(c, &options, threads);
    train_losses losses, again;
    train_network_backward(&e.net, &e.sample, &(train_objective){3, true, REAL_C(0.4), REAL_C(0.3)}, REAL_C(0.5),
                           &losses);
    train_network_loss(&e.net, &e.sample, &(train_objective){3, true, REAL_C(0.4), REAL_C(0.3)}, &again);
    CHECK(memcmp(&losses, &again, sizeof losses) == 0);
    real *g = malloc(e.net.count * sizeof *g);
    memcpy(g, e.net.gradients, e.net.count * sizeof *g);
    *count = e.net.count;
    close_example(&e);
    return g;
}

/* Threads change no bit, nor does computing the blocks again instead of keeping them. */
static void test_bits(void) {
    const weights_config c = config_with(2);
    const train_network_options options = {.max_corrections = 3, .parts = TRAIN_ALL};
    size_t count;
    real *want = gradients_of(&c, options, 1, &count);
    for (int threads = 1; threads <= 3; threads++) {
        train_network_options other = options;
        other.recompute = threads != 2;
        real *got = gradients_of(&c, other, threads, &count);
        CHECK(memcmp(got, want, count * sizeof *got) == 0);
        free(got);
    }
    free(want);
}

/* With chain the clicks of the second pass are simulated on the decoder's own masks: the first is that of the corrections, the others
   are not, as the corrector has not changed these masks. */
static void test_chain(void) {
    const weights_config c = config_with(1);
    train_network_options options = {.max_corrections = 3, .parts = TRAIN_ALL, .all_clicks = true};
    train_losses plain[2], chained[2];
    for (int chain = 0; chain < 2; chain++) {
        options.chain = chain;
        example e = open_example(&c, &options, 2);
        for (int i = 0; i < 2; i++)
            train_network_loss(&e.net, &e.sample, &(train_objective){.corrections = 1 + 2 * i, .points = true},
                               chain ? &chained[i] : &plain[i]);
        close_example(&e);
    }
    CHECK(plain[0].dice_points > 0 && memcmp(&plain[0], &chained[0], sizeof plain[0]) == 0);
    CHECK(plain[1].dice == chained[1].dice && plain[1].dice_points != chained[1].dice_points);
}

/* Recomputing takes less memory. */
static void test_memory(void) {
    const weights_config c = config_with(2);
    nn_arena kept = {0}, again = {0};
    train_network n;
    segfm_error error = {0};
    train_network_options options = {.max_corrections = 3, .parts = TRAIN_ALL};
    CHECK(train_network_plan(&n, &c, &options, 2, &kept, &error) == SEGFM_OK);
    options.recompute = true;
    CHECK(train_network_plan(&n, &c, &options, 2, &again, &error) == SEGFM_OK);
    CHECK(again.used < kept.used);
}

/* The scratch, which the tape takes last, holds what the upscaling takes that is wider than all else. */
static void test_scratch(void) {
    weights_config c = config_with(0);
    const train_network_options options = {.max_corrections = 1, .parts = TRAIN_ALL};
    c.up1 = 300, c.up2 = 200;
    example e = open_example(&c, &options, 1);
    segvol_flat flat;
    segvol_workspace ws;
    segvol_tape tape;
    segfm_error error = {0};
    nn_arena arena = {0};
    void *memory = NULL;
    for (int pass = 0; pass < 2; pass++) {
        CHECK(segvol_model_bind_flat(&flat, &c, false, e.net.parameters, &arena, &error) == SEGFM_OK &&
              segvol_workspace_plan(&ws, &flat.model, 4, 1, false, &arena, &error) == SEGFM_OK &&
              segvol_tape_plan(&tape, &ws, &flat.model, false, &arena, &error) == SEGFM_OK);
        if (pass > 0) break;
        memory = aligned_reals(arena.used / sizeof(real) + 1);
        arena = (nn_arena){.base = memory, .capacity = arena.used};
    }
    size_t doubled[3], room = (size_t)((real *)(void *)((char *)memory + arena.used) - ws.run.scratch);
    for (int axis = 0; axis < 3; axis++) doubled[axis] = 2 * flat.model.grid[axis];
    CHECK(room >= nn_conv_transpose_backward_scratch(flat.model.grid, c.dim, c.up1, 1));
    CHECK(room >= nn_conv_transpose_backward_scratch(doubled, c.up1, c.up2, 1));
    CHECK(room >= nn_gelu_product_backward_scratch(c.up2, flat.model.low_voxels, 1));
    free(memory);
    close_example(&e);
}

/* Two examples add up, each with its weight. */
static void test_adds(void) {
    const weights_config c = config_with(2);
    const train_network_options options = {.max_corrections = 3, .parts = TRAIN_ALL};
    const train_objective o = {.corrections = 2};
    train_losses losses;
    example e = open_example(&c, &options, 2);
    train_network_backward(&e.net, &e.sample, &o, 1, &losses);
    real *once = malloc(e.net.count * sizeof *once);
    memcpy(once, e.net.gradients, e.net.count * sizeof *once);
    train_network_backward(&e.net, &e.sample, &o, 2, &losses);
    double gap = 0, size = 0;
    for (size_t i = 0; i < e.net.count; i++) {
        double d = (double)e.net.gradients[i] - 3 * (double)once[i];
        gap += d * d, size += 9 * (double)once[i] * (double)once[i];
    }
    CHECK(size > 0 && sqrt(gap / size) <= 1e-5);
    free(once);
    close_example(&e);
}

/* Only what is trained gets gradients that count, and only what was used is touched. */
static void test_parts(void) {
    const weights_config c = config_with(3);
    const train_network_options options = {.max_corrections = 3, .parts = TRAIN_CORRECTOR};
    train_losses losses;
    example e = open_example(&c, &options, 2);
    train_network_backward(&e.net, &e.sample, &(train_objective){.corrections = 2}, 1, &losses);
    for (size_t i = 0; i < e.net.tensor_count; i++) {
        const train_tensor *t = &e.net.tensors[i];
        bool corrector = strncmp(t->spec.name, "gru_blocks.", 11) == 0;
        CHECK(t->learns == corrector);
        CHECK(t->touched == (corrector && t->spec.name[11] != '2'));
        bool zero = true;
        for (size_t k = 0; k < t->count; k++) zero = zero && e.net.gradients[t->at + k] == 0;
        if (t->touched) CHECK(!zero);
        else CHECK(zero);
    }
    close_example(&e);
}

int main(void) {
    test_differences();
    test_bits();
    test_chain();
    test_memory();
    test_scratch();
    test_adds();
    test_parts();
    return test_summary();
}
