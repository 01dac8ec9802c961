/* Sampling, corrector, writes, losses and AdamW against the golden files of upstream's own code.

       golden_corrector ../shared/golden [--full]

   Whole numbers must be equal. Others, float build: at most FACTOR times PyTorch's own float32 error, in max-abs and in
   relative L2; double build: relative L2 at most 1e-12. One line per tensor; those of tensors that hold begin with "ok". */
#include "../nn/segvol/segvol.h"
#include "../vol/vol.h"
#include "fixture.h"

enum { THREADS = 2, BATCH = 2 };
static const double FACTOR = 2, EXACT = 1e-12;
static const bool is_double = sizeof(real) == sizeof(double);

typedef struct bound {
    double max_abs, relative_l2;
} bound;

static fixture open_file(const char *folder, const char *name) {
    char path[1024];
    base_format(path, sizeof path, "%s/%s", folder, name);
    return fixture_open(path);
}

/* The array called as the format says; its elements as reals in *reals unless that is NULL. Ends the program without it. */
static fixture_array read_as(const fixture *f, real **reals, const char *format, const char *a, size_t b) {
    char name[160];
    base_format(name, sizeof name, format, a, b);
    fixture_array array = fixture_read(f, name);
    if (array.values == NULL) exit(test_summary());
    if (reals != NULL) {
        *reals = malloc((array.array.count + 1) * sizeof **reals);
        for (size_t i = 0; i < array.array.count; i++) (*reals)[i] = (real)array.values[i];
    }
    return array;
}

/* PyTorch's error: its float32 result against its float64 one. */
static bound error_of(const fixture_array *rounded, const fixture_array *exact) {
    double largest = 0, gap = 0, size = 0;
    for (size_t i = 0; i < exact->array.count; i++) {
        double e = fabs(rounded->values[i] - exact->values[i]);
        largest = fmax(largest, e);
        gap += e * e, size += exact->values[i] * exact->values[i];
    }
    return (bound){largest, sqrt(gap / size)};
}

static void check_values(const char *name, const real *got, size_t n, const double *want, bound b) {
    distance d = distance_of(got, want, n);
    bool ok = d.finite && !d.reference_is_zero;
    if (is_double) ok = ok && d.relative_l2 <= EXACT;
    else ok = ok && d.max_abs <= FACTOR * b.max_abs && d.relative_l2 <= FACTOR * b.relative_l2;
    printf("%s%s: max abs %.3e, relative L2 %.3e (PyTorch %.3e, %.3e)\n", ok ? "ok " : "", name, d.max_abs,
           d.relative_l2, b.max_abs, b.relative_l2);
    test_check(ok, name, __FILE__, __LINE__);
}

static void check_equal(const char *name, size_t i, bool same) {
    printf("%s%s, item %zu: equal\n", same ? "ok " : "", name, i);
    test_check(same, name, __FILE__, __LINE__);
}

static void *take(size_t bytes) { return aligned_alloc(NN_ALIGN, (bytes / NN_ALIGN + 1) * NN_ALIGN); }

/* ---- the network ----------------------------------------------------------------------------------------------- */

typedef struct network {
    segvol_model net;
    segvol_workspace ws;
    segvol_corrector corrector[BATCH];
    real *image, *logits;
    void *memory;
} network;

static segfm_status lay_out(network *n, const weights_file *file, size_t steps, nn_arena *arena, segfm_error *error) {
    segfm_status status = segvol_model_bind(&n->net, file, true, arena, THREADS, NULL, NULL, error);
    n->image = nn_arena_reals(arena, segvol_image_count(&n->net));
    n->logits = nn_arena_reals(arena, n->net.window_voxels);
    for (int b = 0; b < BATCH && status == SEGFM_OK; b++)
        status = segvol_corrector_plan(&n->corrector[b], &n->net, steps, THREADS, arena, error);
    return status == SEGFM_OK ? segvol_workspace_plan(&n->ws, &n->net, 4, THREADS, false, arena, error) : status;
}

static network network_open(const weights_config *config, size_t steps) {
    network n = {0};
    io_buffer bytes = {0};
    weights_file file = {0};
    segfm_error error = {0};
    nn_arena arena = {0};
    weights_write_options options = {.variant = "upstream", .provenance = "golden_corrector"};
    bool ok = weights_write(config, &options, weights_formula_source, NULL, weights_sink_buffer, &bytes, &error) ==
                  SEGFM_OK &&
              weights_open(bytes.data, bytes.size, &file, &error) == SEGFM_OK &&
              lay_out(&n, &file, steps, &arena, &error) == SEGFM_OK;
    if (ok) {
        n.memory = take(arena.used);
        arena = (nn_arena){.base = n.memory, .capacity = arena.used};
        ok = n.memory != NULL && lay_out(&n, &file, steps, &arena, &error) == SEGFM_OK;
    }
    weights_close(&file);
    io_buffer_free(&bytes);
    if (!test_check(ok, error.message, __FILE__, __LINE__)) exit(test_summary());
    return n;
}

/* ---- sampling ---------------------------------------------------------------------------------------------------- */

static const vol_shape tiny_window = {{16, 64, 64}};

static vol_samples samples_open(size_t k, vol_shape frame, void **memory) {
    vol_samples s;
    nn_arena arena = {0};
    vol_samples_plan(&s, k, frame, &arena);
    *memory = take(arena.used);
    arena = (nn_arena){.base = *memory, .capacity = arena.used};
    vol_samples_plan(&s, k, frame, &arena);
    return s;
}

static vol_box whole(vol_shape s) { return (vol_box){{0, 0, 0}, {s.n[0] - 1, s.n[1] - 1, s.n[2] - 1}}; }

/* Points first … first + k − 1 against an array (k, 3); origin: of the frame. */
static bool same_points(const vol_samples *s, size_t first, const fixture_array *want, const int64_t origin[3]) {
    bool same = want->array.count == 3 * s->k;
    for (size_t i = 0; same && i < 3 * s->k; i++) {
        double at = (double)s->at[first + i / 3][i % 3] + (s->valid[first + i / 3] ? (double)origin[i % 3] : 0);
        same = at == want->values[i];
    }
    return same;
}

static bool same_mask(const vol_samples *s, size_t first, const fixture_array *want) {
    bool same = want->array.count == s->k;
    for (size_t i = 0; same && i < s->k; i++) same = s->valid[first + i] == (want->values[i] != 0);
    return same;
}

typedef struct state_case {
    const fixture *file;
    vol_view view;
    vol_click click;
    const uint8_t *truth;
} state_case;

/* One sampling of a case against the arrays `title`N.*; error points alone when there is nothing else in the file. */
static void check_sample(const state_case *c, const char *title, size_t item, size_t k, const uint8_t *truth,
                         vol_mt *random, bool errors_alone) {
    static const int64_t none[3] = {0, 0, 0};
    void *memory;
    vol_samples s = samples_open(k, vol_box_shape(c->view.frame), &memory);
    vol_sample(&c->view, VOL_UPSTREAM, &c->click, 1, truth, random, THREADS, &s);
    fixture_array want = read_as(c->file, NULL, "%s%zu.error_points", title, item);
    bool same = same_points(&s, k, &want, c->view.frame.lo);
    fixture_array_free(&want);
    if (!errors_alone) {
        want = read_as(c->file, NULL, "%s%zu.error_mask", title, item);
        same = same && same_mask(&s, k, &want);
        fixture_array_free(&want);
    }
    check_equal(title, item, same);
    free(memory);
    if (errors_alone) return;

    vol_view view = {c->view.logits, c->view.shape, whole(c->view.shape)};
    s = samples_open(k, c->view.shape, &memory);
    vol_sample(&view, VOL_UPSTREAM, &c->click, 1, truth, NULL, THREADS, &s);
    want = read_as(c->file, NULL, "%s%zu.uncertain_points", title, item);
    same = same_points(&s, 0, &want, none);
    fixture_array_free(&want);
    check_equal(title, item, same);
    char rounded_name[64];
    base_format(rounded_name, sizeof rounded_name, "f64.%s", title);
    want = read_as(c->file, NULL, "%s%zu.uncertain_probs", rounded_name, item);
    fixture_array rounded = read_as(c->file, NULL, "%s%zu.uncertain_probs", title, item);
    check_values(rounded_name, s.value, k, want.values, error_of(&rounded, &want));
    fixture_array_free(&want), fixture_array_free(&rounded);
    free(memory);
}

/* The corrector's input of the training rule: (2, K, 8) and (2K, 3) of each item. */
static void check_input(const state_case *c, size_t item, const fixture_array *rounded) {
    enum { K = 20 };
    void *memory;
    real rows[16 * K], coordinates[6 * K];
    vol_samples s = samples_open(K, c->view.shape, &memory);
    vol_sample(&c->view, VOL_UPSTREAM, &c->click, 1, c->truth, NULL, THREADS, &s);
    vol_sample_state(&c->view, VOL_UPSTREAM, &c->click, &s, rows, coordinates);
    fixture_array want = read_as(c->file, NULL, "f64.gru_input", "", 0);
    fixture_array coords = read_as(c->file, NULL, "coords", "", 0);
    check_values("gru_input", rows, 16 * K, want.values + item * 16 * K, error_of(rounded, &want));
    bool same = true;
    for (size_t i = 0; i < 6 * K; i++) same = same && (double)coordinates[i] == coords.values[item * 6 * K + i];
    check_equal("coords", item, same);
    fixture_array_free(&want), fixture_array_free(&coords);
    free(memory);
}

static void check_sampling(const char *folder) {
    static const vol_click validation[2] = {{{8, 35, 33}, 1}, {{3, 22, 36}, 0}};
    fixture f = open_file(folder, "gru_state.npz");
    real *logits;
    fixture_array a = read_as(&f, &logits, "logits", "", 0), labels = read_as(&f, NULL, "labels", "", 0);
    fixture_array points = read_as(&f, NULL, "iter_points", "", 0), kinds = read_as(&f, NULL, "iter_labels", "", 0);
    fixture_array input = read_as(&f, NULL, "gru_input", "", 0);
    size_t voxels = vol_count(tiny_window);
    uint8_t *truth = malloc(BATCH * voxels);
    vol_mt random;
    vol_mt_seed(&random, 123);
    for (size_t i = 0; i < BATCH * voxels; i++) truth[i] = labels.values[i] != 0;
    for (size_t i = 0; i < BATCH; i++) {
        state_case c = {&f, {logits + i * voxels, tiny_window, whole(tiny_window)}, {{0, 0, 0}, 0}, truth + i * voxels};
        for (int axis = 0; axis < 3; axis++) c.click.at[axis] = (int64_t)points.values[3 * i + (size_t)axis];
        c.click.label = (int)kinds.values[i];
        check_sample(&c, "state", i, 20, c.truth, NULL, false);
        check_input(&c, i, &input);
        c.click = validation[i];
        check_sample(&c, "valrand", i, 20, NULL, &random, true);
        for (int axis = 0; axis < 3; axis++) { /* made with a cube of half-width 2: that is a frame of ours */
            c.view.frame.lo[axis] = validation[i].at[axis] - 2, c.view.frame.hi[axis] = validation[i].at[axis] + 2;
            c.click.at[axis] = 2;
        }
        check_sample(&c, "val", i, 200, NULL, NULL, false);
    }
    fixture_array_free(&a), fixture_array_free(&labels), fixture_array_free(&points), fixture_array_free(&kinds);
    fixture_array_free(&input);
    fixture_close(&f);
    free(logits), free(truth);
}

/* ---- what is written ---------------------------------------------------------------------------------------------- */

/* prob goes to where the writes say: out must be equal. offsets: fractional coordinates instead of whole ones. */
static void check_writes(const fixture *f, bool offsets) {
    enum { POINTS = 24 };
    static const real none[3 * POINTS] = {0};
    real *logits, *prob, *coord, written[POINTS], delta[POINTS] = {0};
    int32_t at[POINTS][3] = {{0}};
    uint8_t valid[POINTS] = {0}; /* upstream writes all the same */
    int64_t voxel[POINTS];
    fixture_array a = read_as(f, &logits, "logits", "", 0), b = read_as(f, &prob, "prob", "", 0);
    fixture_array c = read_as(f, &coord, offsets ? "coordf" : "coord", "", 0);
    fixture_array want = read_as(f, NULL, offsets ? "outf" : "out", "", 0);
    const vol_shape shape = {{6, 9, 10}};
    vol_samples s = {.k = POINTS / 2, .at = at, .valid = valid};
    size_t wrong = 0, changed = 0;
    for (size_t item = 0; item < BATCH; item++) {
        real *volume = logits + item * vol_count(shape);
        vol_view v = {volume, shape, whole(shape)};
        for (size_t i = 0; !offsets && i < 3 * POINTS; i++) at[i / 3][i % 3] = (int32_t)coord[item * 3 * POINTS + i];
        size_t n = vol_correction_writes(&v, VOL_UPSTREAM, &s, delta, offsets ? coord + item * 3 * POINTS : none, voxel,
                                         written);
        CHECK(n == POINTS);
        for (size_t i = 0; i < n; i++) volume[voxel[i]] = prob[item * POINTS + i];
    }
    for (size_t i = 0; i < want.array.count; i++) {
        wrong += logits[i] != (real)want.values[i];
        changed += want.values[i] != a.values[i];
    }
    CHECK(changed > 8);
    check_equal(offsets ? "apply_correction, fractional coordinates" : "apply_correction", 0, wrong == 0);
    fixture_array_free(&a), fixture_array_free(&b), fixture_array_free(&c), fixture_array_free(&want);
    free(logits), free(prob), free(coord);
}

static void check_corrections(const char *folder) {
    fixture f = open_file(folder, "gru_apply_correction.npz");
    check_writes(&f, false);
    check_writes(&f, true);
    fixture_close(&f);
}

/* ---- the corrector ------------------------------------------------------------------------------------------------- */

/* Array `name` of gru_blocks.npz in both precisions against got. */
static bound check_pair(const fixture *f, const char *name, const real *got) {
    fixture_array want = read_as(f, NULL, "f64.%s", name, 0), rounded = read_as(f, NULL, "f32.%s", name, 0);
    bound b = error_of(&rounded, &want);
    check_values(name, got, want.array.count, want.values, b);
    fixture_array_free(&want), fixture_array_free(&rounded);
    return b;
}

/* Every step of both sequences; prob_error[s]: PyTorch's of step s. */
static void check_blocks(const char *folder, network *n, bound prob_error[5]) {
    enum { K = 20, HIDDEN = 64, STEPS = 5 };
    fixture f = open_file(folder, "gru_blocks.npz");
    real *coords, delta[2 * K], offset[6 * K], prob[BATCH * 2 * K], states[BATCH * 2 * STEPS * HIDDEN];
    fixture_array c = read_as(&f, &coords, "coords", "", 0);
    for (size_t s = 0; s < STEPS; s++) {
        real *rows;
        char name[32];
        size_t length = 2 * (s + 1) * HIDDEN;
        fixture_array a = read_as(&f, &rows, "%sseq%zu", "", s);
        for (size_t b = 0; b < BATCH; b++) {
            segvol_corrector *corrector = &n->corrector[b];
            memcpy(corrector->rows + s * 16 * K, rows + b * 16 * K, 16 * K * sizeof *rows);
            segvol_corrector_step(&n->net, corrector, s, coords + b * 6 * K, delta, offset);
            memcpy(states + b * length, corrector->states, length * sizeof *states);
            nn_sigmoid_forward(&corrector->run, 2 * K, delta, prob + b * 2 * K);
        }
        base_format(name, sizeof name, "step%zu.gru_out", s + 1);
        check_pair(&f, name, states);
        base_format(name, sizeof name, "step%zu.prob", s + 1);
        prob_error[s] = check_pair(&f, name, prob);
        fixture_array_free(&a);
        free(rows);
    }
    for (size_t length = 1; length <= 3; length += 2) {
        char name[32];
        for (size_t b = 0; b < BATCH; b++)
            nn_gru_forward(&n->corrector[b].run, &n->net.gru[0].gru, length, n->corrector[b].rows, NULL,
                           states + b * length * HIDDEN);
        base_format(name, sizeof name, "block0.T%zu.gru_out", length);
        check_pair(&f, name, states);
    }
    fixture_array_free(&c);
    fixture_close(&f);
    free(coords);
}

/* Two iterations of a training step as it was recorded: fed with its own states, and from the image on: our decoder's
   logits, sampled, corrected, sampled again. */
static void check_training(const char *folder, network *n, const bound prob_error[5]) {
    enum { K = 20 };
    fixture f = open_file(folder, "train_steps.npz");
    real *boxes, *window = malloc(n->net.window_voxels * sizeof *window);
    fixture_array box = read_as(&f, &boxes, "boxes", "", 0), labels = read_as(&f, NULL, "labels", "", 0);
    size_t voxels = n->net.window_voxels;
    uint8_t *truth = malloc(voxels);
    void *memory;
    vol_samples s = samples_open(K, tiny_window, &memory);
    for (size_t b = 0; b < BATCH; b++) {
        segvol_corrector *forced = &n->corrector[0], *own = &n->corrector[1];
        segvol_prompts prompts = {NULL, 0, boxes + 6 * b};
        vol_view view = {n->logits, tiny_window, whole(tiny_window)};
        for (size_t i = 0; i < voxels; i++) {
            window[i] = (real)(float)weights_uniform("input.train.269", b * voxels + i);
            truth[i] = labels.values[b * voxels + i] != 0;
        }
        segvol_encode(&n->net, &n->ws, window, n->image);
        segvol_decode(&n->net, &n->ws, n->image, &prompts);
        segvol_upsample(&n->net, &n->ws, 0, n->logits);
        for (size_t it = 0; it < 2; it++) {
            real *input, *coords, delta[2 * K], offset[6 * K], prob[2 * K], coordinates[6 * K], value[2 * K];
            int64_t voxel[2 * K];
            fixture_array a = read_as(&f, &input, "%s%zu.gru_input", "B2.box_points.it2.iter", it);
            fixture_array c = read_as(&f, &coords, "%s%zu.coords", "B2.box_points.it2.iter", it);
            fixture_array p = read_as(&f, NULL, "%s%zu.prob", "B2.box_points.it2.iter", it);
            fixture_array at = read_as(&f, NULL, "%s%zu.iter_points", "B2.box_points.it2.iter", it);
            fixture_array kind = read_as(&f, NULL, "%s%zu.iter_labels", "B2.box_points.it2.iter", it);
            memcpy(forced->rows + it * 16 * K, input + b * 16 * K, 16 * K * sizeof *input);
            segvol_corrector_step(&n->net, forced, it, coords + b * 6 * K, delta, offset);
            nn_sigmoid_forward(&forced->run, 2 * K, delta, prob);
            check_values("training, teacher-forced prob", prob, 2 * K, p.values + b * 2 * K, prob_error[it]);

            vol_click click = {
                {(int64_t)at.values[3 * b], (int64_t)at.values[3 * b + 1], (int64_t)at.values[3 * b + 2]},
                (int)kind.values[b]};
            vol_sample(&view, VOL_UPSTREAM, &click, 1, truth, NULL, THREADS, &s);
            vol_sample_state(&view, VOL_UPSTREAM, &click, &s, own->rows + it * 16 * K, coordinates);
            bool same = true;
            for (size_t i = 0; i < 6 * K; i++) same = same && coordinates[i] == coords[b * 6 * K + i];
            check_equal("training, points from our own logits", b, same);
            segvol_corrector_step(&n->net, own, it, coordinates, delta, offset);
            nn_sigmoid_forward(&own->run, 2 * K, delta, prob);
            check_values("training, prob from our own logits", prob, 2 * K, p.values + b * 2 * K, prob_error[it]);
            size_t writes = vol_correction_writes(&view, VOL_UPSTREAM, &s, delta, offset, voxel, value);
            for (size_t i = 0; i < writes; i++) n->logits[voxel[i]] = value[i];
            fixture_array_free(&a), fixture_array_free(&c), fixture_array_free(&p), fixture_array_free(&at);
            fixture_array_free(&kind);
            free(input), free(coords);
        }
    }
    fixture_array_free(&box), fixture_array_free(&labels);
    fixture_close(&f);
    free(boxes), free(window), free(truth), free(memory);
}

/* gru_blocks.4 of the full size, ten rows and two. */
static void check_full(const char *folder) {
    enum { K = 200, HIDDEN = 2000, STEPS = 5 };
    weights_config config = *weights_named_config("tiny"); /* the rest of the full network is not needed */
    config.gru_hidden = HIDDEN, config.topk = K;
    network n = network_open(&config, STEPS);
    segvol_corrector *c = &n.corrector[0];
    fixture f = open_file(folder, "gru_block4.npz");
    real coordinates[6 * K], delta[2 * K], offset[6 * K], prob[2 * K];
    for (size_t i = 0; i < STEPS * 16 * K; i++)
        c->rows[i] = (real)(float)(weights_uniform("gru.full.seq", i) * 256 - 1);
    for (size_t i = 0; i < 6 * K; i++) coordinates[i] = (real)floor(weights_uniform("gru.full.coords", i) * 257 - 1);
    segvol_corrector_step(&n.net, c, STEPS - 1, coordinates, delta, offset);
    nn_sigmoid_forward(&c->run, 2 * K, delta, prob);
    nn_gru_forward(&c->run, &n.net.gru[4].gru, 2, c->rows, NULL, c->states);
    const struct {
        const char *name;
        const real *got;
    } results[3] = {
        {"gru_out_last", c->hidden + (STEPS - 1) * HIDDEN}, {"prob", prob}, {"gru_out_T2", c->states + HIDDEN}};
    for (int i = 0; i < 3; i++) {
        fixture_array want = read_as(&f, NULL, "%s.f64", results[i].name, 0);
        fixture_array rounded = read_as(&f, NULL, "%s.f32", results[i].name, 0);
        check_values(results[i].name, results[i].got, want.array.count, want.values, error_of(&rounded, &want));
        fixture_array_free(&want), fixture_array_free(&rounded);
    }
    fixture_close(&f);
    free(n.memory);
}

/* ---- losses --------------------------------------------------------------------------------------------------------- */

static void check_loss_gradient(const fixture *f, const char *title, int kind, const nn_run *run, size_t samples,
                                size_t n, const real *x, const uint8_t *t) {
    static const char *const names[4] = {"%s.ternary.dice.grad.f%zu", "%s.ternary.bce.grad.f%zu",
                                         "%s.binary.dice.grad.f%zu", "%s.binary.bce.grad.f%zu"};
    fixture_array exact = read_as(f, NULL, names[kind], title, 64), rounded = read_as(f, NULL, names[kind], title, 32);
    real *dx = calloc(n, sizeof *dx);
    char name[160];
    if (kind % 2 == 0) nn_dice_backward(run, samples, n / samples, x, t, 1, dx);
    else nn_bce_backward(run, n, x, t, 1, dx);
    base_format(name, sizeof name, names[kind], title, (size_t)64);
    if (test_check(exact.array.count == n, name, __FILE__, __LINE__))
        check_values(name, dx, n, exact.values, error_of(&rounded, &exact));
    fixture_array_free(&exact), fixture_array_free(&rounded);
    free(dx);
}

/* Single numbers, whose float32 error is one draw each: all are judged by the largest of PyTorch's. Labels −1 count as 0. */
static void check_losses(const char *folder) {
    static const char *const cases[2] = {"B1squeezed_DHW", "B2_BDHW"};
    fixture f = open_file(folder, "losses.npz");
    double largest = 0, want[8];
    real got[8];
    size_t count = 0;
    for (int i = 0; i < 2; i++) {
        real *x;
        fixture_array a = read_as(&f, &x, "%s.x.f64", cases[i], 0), labels = read_as(&f, NULL, "%s.t", cases[i], 0);
        size_t n = a.array.count, samples = a.array.shape[0]; /* of the squeezed batch of one: slices */
        uint8_t *t = malloc(n);
        nn_run run = {THREADS, take(nn_loss_scratch(n) * sizeof(real)), nn_kernels_best()};
        for (size_t k = 0; k < n; k++) t[k] = labels.values[k] > 0;
        for (int kind = 0; kind < 4; kind++) {
            const char *names[4] = {"%s.ternary.dice.f%zu", "%s.ternary.bce.f%zu", "%s.binary.dice.f%zu",
                                    "%s.binary.bce.f%zu"};
            fixture_array exact = read_as(&f, NULL, names[kind], cases[i], 64);
            fixture_array rounded = read_as(&f, NULL, names[kind], cases[i], 32);
            largest = fmax(largest, fabs(exact.values[0] - rounded.values[0]));
            want[count] = exact.values[0];
            got[count++] = kind % 2 == 0 ? nn_dice_loss(&run, samples, n / samples, x, t) : nn_bce_loss(&run, n, x, t);
            check_loss_gradient(&f, cases[i], kind, &run, samples, n, x, t);
            fixture_array_free(&exact), fixture_array_free(&rounded);
        }
        fixture_array_free(&a), fixture_array_free(&labels);
        free(x), free(t), free(run.scratch);
    }
    check_values("losses", got, count, want, (bound){largest, largest});
    fixture_close(&f);
}

/* ---- optimiser ------------------------------------------------------------------------------------------------------ */

/* Three steps: parameters and gradients by the formula, many of the gradients tiny. */
static void check_adamw(const char *folder) {
    enum { N = 500, STEPS = 3 };
    static const char *const moments[2] = {"exp_avg", "exp_avg_sq"};
    const nn_adamw o = {1e-3, 0.9, 0.999, 1e-8, 1e-5};
    const nn_run run = {THREADS, NULL, nn_kernels_best()};
    fixture f = open_file(folder, "adamw.npz");
    real w[N], g[N], moment[2][N] = {{0}};
    for (size_t i = 0; i < N; i++) w[i] = (real)(float)(2 * weights_uniform("adamw.param", i) - 1);
    for (size_t step = 1; step <= STEPS; step++) {
        char name[40];
        base_format(name, sizeof name, "adamw.grad.%zu", step);
        for (size_t i = 0; i < N; i++) {
            double u = 2 * weights_uniform(name, i) - 1;
            g[i] = (real)(float)(u * u * u * u * u * 0.01);
        }
        nn_adamw_step(&run, &o, step, N, w, g, 1, moment[0], moment[1]);
        base_format(name, sizeof name, "step%zu", step);
        fixture_array exact = read_as(&f, NULL, "%s.f%zu", name, 64), rounded = read_as(&f, NULL, "%s.f%zu", name, 32);
        check_values(name, w, N, exact.values, error_of(&rounded, &exact));
        fixture_array_free(&exact), fixture_array_free(&rounded);
    }
    for (int k = 0; k < 2; k++) {
        fixture_array exact = read_as(&f, NULL, "%s.f%zu", moments[k], 64);
        fixture_array rounded = read_as(&f, NULL, "%s.f%zu", moments[k], 32);
        check_values(moments[k], moment[k], N, exact.values, error_of(&rounded, &exact));
        fixture_array_free(&exact), fixture_array_free(&rounded);
    }
    fixture_close(&f);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3 || (argc == 3 && strcmp(argv[2], "--full") != 0)) {
        printf("usage: golden_corrector FOLDER_OF_GOLDEN_FILES [--full]\n");
        return 2;
    }
    char tiny[1000], full[1000];
    bound prob_error[5];
    base_format(tiny, sizeof tiny, "%s/tiny", argv[1]);
    base_format(full, sizeof full, "%s/full", argv[1]);
    check_sampling(tiny);
    check_corrections(tiny);
    check_losses(tiny);
    check_adamw(tiny);
    network n = network_open(weights_named_config("tiny"), 5);
    check_blocks(tiny, &n, prob_error);
    check_training(tiny, &n, prob_error);
    free(n.memory);
    if (argc == 3) check_full(full);
    return test_summary();
}
