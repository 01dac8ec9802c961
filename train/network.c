/* The loss of an example and its gradients: encode, decode, correct with simulated clicks, and all that backwards. */
#include <math.h>
#include <string.h>

#include "train.h"

/* A correction as it was made. */
typedef struct correction {
    int32_t (*at)[3];  /* (2K) points, … */
    real *value;       /* (2K) … what was told of them, … */
    uint8_t *valid;    /* (2K) … whether they are there, … */
    real *logit;       /* (K) … and the logits of the uncertain ones */
    real *coordinates; /* (2K, 3) */
    int64_t *voxel;    /* (2K) what was written where */
    real *written;     /* (2K) */
    size_t writes;
} correction;

struct train_inside {
    segvol_flat flat;
    segvol_workspace ws;
    segvol_tape tape;
    segvol_corrector corrector;
    segvol_corrector_tape corrector_tape;
    vol_samples samples;
    vol_click *clicks;    /* (max_corrections + 1) of the corrections; one more where there is none */
    vol_click *told;      /* (max_corrections + 1) of the second pass, where they are not the same */
    correction *steps;    /* (max_corrections) */
    segvol_point *points; /* (max_corrections + 1) */
    real *image, *dimage; /* (segvol_image_count), (tokens, dim) */
    real *first, *logits; /* (window): before and after the corrections */
    real *dfirst, *dlogits;
    real *dmask;          /* (low_res) */
    real *phi;            /* (window): signed distance, where it is asked for */
    real *delta, *offset; /* (2K), (2K, 3) */
    real *ddelta, *drows; /* (2K), (max_corrections, 2, 8K) */
    uint8_t *prediction;  /* (window) */
    void *click_memory;
    double *distance; /* (window) */
    void *distance_scratch;
    vol_shape window;
    int threads;
};
typedef struct train_inside inside;

/* ---- memory -------------------------------------------------------------------------------------------------- */

static bool is_optional_head(const weights_spec *s) { return !s->required; }

static bool starts_with(const char *name, const char *prefix) { return strncmp(name, prefix, strlen(prefix)) == 0; }

/* Does the loss depend on it, and shall it change? */
static bool learns(const char *name, unsigned parts) {
    if (starts_with(name, "image_encoder.")) return (parts & TRAIN_ENCODER) != 0;
    if (starts_with(name, "gru_blocks.")) return (parts & TRAIN_CORRECTOR) != 0 && strstr(name, "fc_coord") == NULL;
    if (starts_with(name, "mask_decoder.iou_prediction_head.") || strstr(name, "txt_align") != NULL ||
        starts_with(name, "text_encoder.") || strstr(name, "gaussian_matrix") != NULL)
        return false;
    return (parts & TRAIN_DECODER) != 0;
}

static bool take_tensors(train_network *n, nn_arena *arena) {
    weights_spec spec;
    size_t all = 0;
    while (weights_spec_at(&n->config, all, &spec)) all++;
    n->tensors = nn_arena_take(arena, all, sizeof *n->tensors);
    n->tensor_count = n->count = 0;
    for (size_t i = 0; weights_spec_at(&n->config, i, &spec); i++) {
        if (is_optional_head(&spec) && !n->options.offsets) continue;
        train_tensor t = {.spec = spec, .at = n->count};
        if (!base_count(spec.shape, spec.ndim, 1, &t.count)) return false;
        t.learns = learns(spec.name, n->options.parts);
        n->count = nn_plus(n->count, t.count);
        if (n->tensors != NULL) n->tensors[n->tensor_count] = t;
        n->tensor_count++;
    }
    n->parameters = nn_arena_reals(arena, n->count);
    n->gradients = nn_arena_reals(arena, n->count);
    return !arena->failed;
}

static vol_click_request click_request(const train_network *n) {
    vol_click_rule rule = n->options.variant == VOL_UPSTREAM ? VOL_CLICK_OFFICIAL : VOL_CLICK_FIRST;
    return (vol_click_request){n->inside->window, rule, VOL_CLICK_LARGE, n->inside->threads};
}

static void take_corrections(train_network *n, nn_arena *arena) {
    inside *in = n->inside;
    size_t steps = (size_t)n->options.max_corrections, points = 2 * (size_t)n->config.topk;
    vol_samples_plan(&in->samples, points / 2, in->window, arena);
    in->steps = nn_arena_take(arena, steps, sizeof *in->steps);
    for (size_t i = 0; i < steps; i++) {
        correction c = {0};
        c.at = nn_arena_take(arena, points, sizeof *c.at);
        c.logit = nn_arena_reals(arena, points / 2);
        c.value = nn_arena_reals(arena, points);
        c.valid = nn_arena_take(arena, points, 1);
        c.coordinates = nn_arena_reals(arena, 3 * points);
        c.voxel = nn_arena_take(arena, points, sizeof *c.voxel);
        c.written = nn_arena_reals(arena, points);
        if (in->steps != NULL) in->steps[i] = c;
    }
    in->delta = nn_arena_reals(arena, points);
    in->offset = nn_arena_reals(arena, 3 * points);
    in->ddelta = nn_arena_reals(arena, points);
    in->drows = nn_arena_reals(arena, nn_times(steps, 8 * points));
}

static void take_window(train_network *n, nn_arena *arena) {
    inside *in = n->inside;
    const segvol_model *m = &in->flat.model;
    size_t voxels = m->window_voxels;
    vol_click_request q = click_request(n);
    in->clicks = nn_arena_take(arena, (size_t)n->options.max_corrections + 1, sizeof *in->clicks);
    in->told = nn_arena_take(arena, n->options.chain ? (size_t)n->options.max_corrections + 1 : 0, sizeof *in->told);
    in->points = nn_arena_take(arena, (size_t)n->options.max_corrections + 1, sizeof *in->points);
    in->image = nn_arena_reals(arena, segvol_image_count(m));
    in->dimage = nn_arena_reals(arena, nn_times(m->tokens, n->config.dim));
    real **windows[] = {&in->first, &in->logits, &in->dfirst, &in->dlogits, &in->phi};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) *windows[i] = nn_arena_reals(arena, voxels);
    in->dmask = nn_arena_reals(arena, m->low_voxels);
    in->prediction = nn_arena_take(arena, voxels, 1);
    in->click_memory = nn_arena_take(arena, vol_click_bound(&q), 1);
    in->distance = nn_arena_take(arena, voxels, sizeof *in->distance);
    in->distance_scratch = nn_arena_take(arena, vol_distance_scratch(in->window, in->threads), 1);
}

static segfm_status plan_inside(train_network *n, int threads, nn_arena *arena, segfm_error *error) {
    inside *in = n->inside;
    size_t steps = (size_t)n->options.max_corrections;
    *in = (inside){.threads = threads};
    for (int axis = 0; axis < 3; axis++) in->window.n[axis] = n->config.spatial[axis];
    segvol_model *m = &in->flat.model;
    segfm_status status =
        segvol_model_bind_flat(&in->flat, &n->config, n->options.offsets, n->parameters, arena, error);
    if (status == SEGFM_OK) status = segvol_workspace_plan(&in->ws, m, steps + 3, threads, false, arena, error);
    if (status == SEGFM_OK) status = segvol_tape_plan(&in->tape, &in->ws, m, n->options.recompute, arena, error);
    if (status != SEGFM_OK) return status;
    in->ws.tape = &in->tape;
    in->tape.parameters = n->parameters;
    in->tape.gradients = n->gradients;
    take_window(n, arena);
    if (n->config.gru_blocks == 0) return SEGFM_OK;
    take_corrections(n, arena);
    status = segvol_corrector_plan(&in->corrector, m, steps, threads, arena, error);
    if (status == SEGFM_OK) status = segvol_corrector_tape_plan(&in->corrector_tape, &in->corrector, m, arena, error);
    return status;
}

segfm_status train_network_plan(train_network *n, const weights_config *config, const train_network_options *options,
                                int threads, nn_arena *arena, segfm_error *error) {
    inside counting; /* the sizes have to be noted somewhere */
    *n = (train_network){.config = *config, .options = *options};
    segfm_status status = weights_check_config(config, error);
    if (status != SEGFM_OK) return status;
    if (!take_tensors(n, arena)) return segvol_does_not_fit("parameters", arena, error);
    inside *taken = nn_arena_take(arena, 1, sizeof *taken);
    n->inside = taken != NULL ? taken : &counting;
    status = plan_inside(n, threads, arena, error);
    n->inside = taken;
    if (status != SEGFM_OK) return status;
    return arena->failed ? segvol_does_not_fit("training", arena, error) : SEGFM_OK;
}

void train_network_refresh(train_network *n) { segvol_model_refresh(&n->inside->flat, n->inside->threads); }

/* ---- forward ------------------------------------------------------------------------------------------------- */

/* Prompts → the logits of the window. */
static void decode(train_network *n, const segvol_prompts *prompts, real *logits) {
    inside *in = n->inside;
    segvol_decode(&in->flat.model, &in->ws, in->image, prompts);
    segvol_upsample(&in->flat.model, &in->ws, 0, logits);
}

/* The next click on in->logits; false: nothing is wrong with them. */
static bool simulate(train_network *n, const uint8_t *truth, vol_click *click) {
    inside *in = n->inside;
    vol_click_request q = click_request(n);
    if (n->replay) return click->label >= 0;
    for (size_t i = 0; i < in->flat.model.window_voxels; i++) /* upstream takes raw logits for probabilities */
        in->prediction[i] =
            n->options.variant == VOL_SEED ? nn_sigmoid_above_half(in->logits[i]) : in->logits[i] > REAL_C(0.5);
    return vol_simulate_click(in->prediction, truth, &q, in->click_memory, click);
}

static size_t voxel_of(vol_shape s, const int32_t at[3]) {
    return (size_t)(((int64_t)at[0] * s.n[1] + at[1]) * s.n[2] + at[2]);
}

/* The points of an earlier run of the same correction; the uncertain ones' values as they are now. */
static void restore(train_network *n, const correction *c) {
    inside *in = n->inside;
    vol_samples *s = &in->samples;
    memcpy(s->at, c->at, 2 * s->k * sizeof *s->at);
    memcpy(s->value, c->value, 2 * s->k * sizeof *s->value);
    memcpy(s->valid, c->valid, 2 * s->k);
    for (size_t i = 0; i < s->k; i++) {
        if (!s->valid[i]) continue;
        real p = nn_sigmoid(in->logits[voxel_of(in->window, (const int32_t *)s->at[i])]), away = p - REAL_C(0.5);
        s->value[i] = n->options.variant == VOL_SEED ? p : away < 0 ? -away : away;
    }
}

/* Correction `step` of in->logits. */
static void correct(train_network *n, size_t step, const uint8_t *truth) {
    inside *in = n->inside;
    correction *c = &in->steps[step];
    vol_samples *s = &in->samples;
    size_t points = 2 * s->k;
    vol_variant variant = n->options.variant;
    vol_view view = {in->logits, in->window, vol_box_whole(in->window)};
    const uint8_t *known = variant == VOL_UPSTREAM ? truth : NULL; /* its sampling looks at the truth */
    if (n->replay) restore(n, c);
    else vol_sample(&view, variant, &in->clicks[step], 1, known, NULL, in->threads, s);
    vol_sample_state(&view, variant, &in->clicks[step], s, in->corrector.rows + step * 8 * points, c->coordinates);
    memcpy(c->at, s->at, points * sizeof *c->at);
    memcpy(c->value, s->value, points * sizeof *c->value);
    memcpy(c->valid, s->valid, points);
    for (size_t i = 0; i < s->k; i++)
        c->logit[i] = c->valid[i] ? in->logits[voxel_of(in->window, (const int32_t *)c->at[i])] : 0;
    segvol_corrector_step(&in->flat.model, &in->corrector, step, c->coordinates, in->delta, in->offset);
    if (variant == VOL_UPSTREAM) memset(in->offset, 0, 3 * points * sizeof(real));
    c->writes = vol_correction_writes(&view, variant, s, in->delta, in->offset, c->voxel, c->written);
    for (size_t i = 0; i < c->writes; i++) in->logits[c->voxel[i]] = c->written[i];
}

/* in->first → in->logits; returns how many corrections there were: seed stops when nothing is left to correct. */
static size_t correct_all(train_network *n, const uint8_t *truth, int wanted) {
    inside *in = n->inside;
    size_t step = 0, most = n->config.gru_blocks > 0 ? (size_t)wanted : 0;
    memcpy(in->logits, in->first, in->flat.model.window_voxels * sizeof(real));
    for (; step < most; step++) {
        bool wrong = simulate(n, truth, &in->clicks[step]);
        if (!wrong && n->options.variant == VOL_SEED) break;
        correct(n, step, truth);
    }
    return step;
}

/* ---- losses -------------------------------------------------------------------------------------------------- */

static size_t dice_samples(const train_network *n) { return n->options.slice_dice ? n->config.spatial[0] : 1; }

static void overlap_losses(const train_network *n, const real *logits, const uint8_t *truth, double *dice,
                           double *bce) {
    const inside *in = n->inside;
    size_t samples = dice_samples(n), voxels = in->flat.model.window_voxels;
    *dice = (double)nn_dice_loss(&in->ws.run, samples, voxels / samples, logits, truth);
    *bce = (double)nn_bce_loss(&in->ws.run, voxels, logits, truth);
}

/* Sets in->dlogits. */
static void overlap_backward(const train_network *n, const real *logits, const uint8_t *truth, real weight) {
    const inside *in = n->inside;
    size_t samples = dice_samples(n), voxels = in->flat.model.window_voxels;
    memset(in->dlogits, 0, voxels * sizeof(real));
    nn_dice_backward(&in->ws.run, samples, voxels / samples, logits, truth, weight, in->dlogits);
    nn_bce_backward(&in->ws.run, voxels, logits, truth, weight, in->dlogits);
}

/* φ: Euclidean distance in voxels to the nearest voxel of the other side, negative inside, over its largest size. 0
   everywhere when there is only one side. */
static void signed_distance(train_network *n, const uint8_t *truth) {
    inside *in = n->inside;
    static const double unit[3] = {1, 1, 1};
    size_t voxels = in->flat.model.window_voxels;
    double largest = 0;
    memset(in->phi, 0, voxels * sizeof(real));
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < voxels; i++) in->prediction[i] = (truth[i] != 0) == (side == 0);
        vol_distance(in->prediction, in->window, unit, in->threads, in->distance_scratch, in->distance);
        for (size_t i = 0; i < voxels; i++) {
            if (!in->prediction[i] || !(in->distance[i] < (double)FLT_MAX)) continue; /* infinite: no other side */
            double d = sqrt(in->distance[i]);
            in->phi[i] = (real)(side == 0 ? -d : d);
            largest = d > largest ? d : largest;
        }
    }
    for (size_t i = 0; largest > 0 && i < voxels; i++) in->phi[i] /= (real)largest;
}

/* ---- backward ------------------------------------------------------------------------------------------------ */

/* Through the values that the uncertain points of a correction showed: drow (8K) → in->dlogits += */
static void values_backward(const train_network *n, const correction *c, const real *drow) {
    inside *in = n->inside;
    for (size_t i = 0; i < n->config.topk; i++) {
        if (!c->valid[i]) continue;
        real p = nn_sigmoid(c->logit[i]), d = drow[8 * i + 3] * p * (1 - p);
        bool below = n->options.variant == VOL_UPSTREAM && p < REAL_C(0.5); /* of |p − ½| */
        in->dlogits[voxel_of(in->window, (const int32_t *)c->at[i])] += below ? -d : d;
    }
}

/* Correction `step` backwards: in->dlogits, of the logits after it → of those before it. What a voxel was overwritten with gets
   its gradient: of several values for one voxel the last, which alone is seen; upstream each, as PyTorch's index_put has it. */
static void correct_backward(train_network *n, size_t step) {
    inside *in = n->inside;
    const correction *c = &in->steps[step];
    size_t points = 2 * (size_t)n->config.topk, w = c->writes;
    bool seed = n->options.variant == VOL_SEED;
    memset(in->ddelta, 0, points * sizeof(real));
    for (size_t i = points; i-- > 0;) {
        if (seed && !c->valid[i]) continue; /* it has written nothing */
        real *d = &in->dlogits[c->voxel[--w]], p = c->written[w];
        in->ddelta[i] = seed ? *d : *d * p * (1 - p);
        if (seed) *d = 0;
    }
    for (size_t i = 0; i < c->writes; i++) in->dlogits[c->voxel[i]] = 0;
    segvol_corrector_backward(&in->flat.model, &in->corrector, &in->tape, &in->corrector_tape, step, c->coordinates,
                              in->ddelta, in->drows);
    values_backward(n, c, in->drows + step * 8 * points);
}

/* in->dlogits, of the logits that the last decoding gave → in->dimage += */
static void decode_backward(train_network *n) {
    inside *in = n->inside;
    const segvol_model *m = &in->flat.model;
    size_t spatial[3];
    for (int axis = 0; axis < 3; axis++) spatial[axis] = n->config.spatial[axis];
    memset(in->dmask, 0, m->low_voxels * sizeof(real));
    nn_trilinear_backward(&in->ws.run, m->low_res, spatial, in->dlogits, in->dmask);
    segvol_decode_backward(m, &in->ws, in->dmask, in->dimage);
}

/* Tensors that got a gradient, though it may be zero, as PyTorch counts it. */
static void touch(train_network *n, size_t steps, bool points) {
    for (size_t i = 0; i < n->tensor_count; i++) {
        train_tensor *t = &n->tensors[i];
        const char *name = t->spec.name;
        bool touched = t->learns;
        if (starts_with(name, "gru_blocks.")) {
            size_t block = 0, last = n->config.gru_blocks - 1;
            for (const char *digit = name + strlen("gru_blocks."); *digit != '.'; digit++)
                block = 10 * block + (size_t)(*digit - '0');
            touched = touched && (block < steps || (block == last && steps > last));
        } else if (strstr(name, "point_embeddings.0") != NULL || strstr(name, "point_embeddings.1") != NULL ||
                   strstr(name, "not_a_point") != NULL) {
            touched = touched && points;
        }
        t->touched = t->touched || touched;
    }
}

/* ---- the whole ----------------------------------------------------------------------------------------------- */

/* The box alone, and corrections: in->first, in->logits and the clicks. *clicks: how many of these the second pass is told.
   Returns the corrections. */
static size_t box_forward(train_network *n, const train_sample *s, const train_objective *o, size_t *clicks) {
    inside *in = n->inside;
    decode(n, &(segvol_prompts){.box = s->box}, in->first);
    size_t steps = correct_all(n, s->truth, o->corrections);
    *clicks = steps;
    /* without a correction seed has yet to look where a click would go; upstream then knows of none */
    if (o->points && steps == 0 && n->options.variant == VOL_SEED) *clicks = simulate(n, s->truth, &in->clicks[0]);
    if (!o->points) *clicks = 0;
    return steps;
}

/* weight 0: no gradients; share: of the overlap losses in the whole. */
static void box_losses(train_network *n, const train_sample *s, const train_objective *o, size_t steps, real weight,
                       real share, train_losses *out) {
    inside *in = n->inside;
    const nn_run *run = &in->ws.run;
    size_t voxels = in->flat.model.window_voxels;
    overlap_losses(n, in->logits, s->truth, &out->dice, &out->bce);
    if (o->consistency > 0) out->consistency = (double)nn_consistency_loss(run, voxels, in->first, in->logits);
    if (o->boundary > 0) {
        signed_distance(n, s->truth);
        out->boundary = (double)nn_boundary_loss(run, voxels, in->logits, in->phi);
    }
    if (!(weight > 0)) return;
    overlap_backward(n, in->logits, s->truth, weight * share);
    memset(in->dfirst, 0, voxels * sizeof(real));
    if (o->consistency > 0)
        nn_consistency_backward(run, voxels, in->first, in->logits, weight * o->consistency, in->dfirst, in->dlogits);
    if (o->boundary > 0) nn_boundary_backward(run, voxels, in->logits, in->phi, weight * o->boundary, in->dlogits);
    if (steps > 0) memset(in->drows, 0, steps * 16 * n->config.topk * sizeof(real));
    for (size_t i = steps; i-- > 0;) correct_backward(n, i);
    nn_add(run, voxels, in->dlogits, in->dfirst, in->dlogits);
    if (n->options.parts & ~(unsigned)TRAIN_CORRECTOR) decode_backward(n);
}

static segvol_point point_of(const vol_click *c) {
    return (segvol_point){(real)c->at[0], (real)c->at[1], (real)c->at[2], c->label};
}

/* Clicks for the second pass → in->told: the first is the first correction's; each other is simulated on what the decoder makes of the
   box and those before. Returns how many, at most `wanted`: none follows when nothing is wrong. */
static size_t chain(train_network *n, const train_sample *s, size_t wanted) {
    inside *in = n->inside;
    size_t count = 1;
    in->told[0] = in->clicks[0];
    for (; count < wanted; count++) {
        in->points[count - 1] = point_of(&in->told[count - 1]);
        decode(n, &(segvol_prompts){in->points, count, s->box}, in->logits);
        if (!simulate(n, s->truth, &in->told[count])) break;
    }
    return count;
}

/* The pass with the box and clicks: the last one, or all. */
static void points_pass(train_network *n, const train_sample *s, size_t clicks, real weight, train_losses *out) {
    inside *in = n->inside;
    if (n->options.chain) clicks = chain(n, s, clicks);
    const vol_click *told = n->options.chain ? in->told : in->clicks;
    size_t first = n->options.all_clicks ? 0 : clicks - 1, count = clicks - first;
    for (size_t i = 0; i < count; i++) in->points[i] = point_of(&told[first + i]);
    decode(n, &(segvol_prompts){in->points, count, s->box}, in->first);
    overlap_losses(n, in->first, s->truth, &out->dice_points, &out->bce_points);
    if (weight > 0 && n->options.parts & ~(unsigned)TRAIN_CORRECTOR) {
        overlap_backward(n, in->first, s->truth, weight / 2);
        decode_backward(n);
    }
}

static void run_example(train_network *n, const train_sample *s, const train_objective *o, real weight,
                        train_losses *out) {
    inside *in = n->inside;
    const segvol_model *m = &in->flat.model;
    size_t clicks;
    *out = (train_losses){0};
    memset(in->dimage, 0, m->tokens * n->config.dim * sizeof(real));
    segvol_encode(m, &in->ws, s->image, in->image);
    size_t steps = box_forward(n, s, o, &clicks);
    box_losses(n, s, o, steps, weight, clicks > 0 ? REAL_C(0.5) : 1, out);
    if (clicks > 0) points_pass(n, s, clicks, weight, out);
    double passes = clicks > 0 ? 2 : 1;
    out->total = (out->dice + out->bce + out->dice_points + out->bce_points) / passes +
                 (double)o->consistency * out->consistency + (double)o->boundary * out->boundary;
    if (!(weight > 0)) return;
    if (n->options.parts & TRAIN_ENCODER) segvol_encode_backward(m, &in->ws, in->dimage);
    touch(n, steps, clicks > 0);
}

void train_network_backward(train_network *n, const train_sample *sample, const train_objective *objective, real weight,
                            train_losses *out) {
    run_example(n, sample, objective, weight, out);
}

void train_network_loss(train_network *n, const train_sample *sample, const train_objective *objective,
                        train_losses *out) {
    run_example(n, sample, objective, 0, out);
}
