/* The loop of a training run: steps, evaluations, checkpoints, logs. All that a step depends on is in the settings, the
   position and the network, so a run can be stopped between any two and go on with the same bits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train.h"

/* ---- signals --------------------------------------------------------------------------------------------------- */

#ifdef __wasi__ /* has none */

static const int stop_asked = 0;

static void catch_signals(void) {}

#else

#include <signal.h>

static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int number) {
    (void)number;
    stop_asked = 1;
}

/* The first SIGINT or SIGTERM is noted, a second one of its kind kills. */
static void catch_signals(void) {
    struct sigaction action = {.sa_handler = ask_to_stop, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    stop_asked = 0;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

#endif

static bool goes_on(void *user, int64_t done, int64_t total) {
    (void)user;
    (void)done;
    (void)total;
    return stop_asked == 0;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* The most corrections that the weights let be drawn; room for one where there is a corrector. */
static int most_corrections(const train_settings *s) {
    int most = s->sizes.gru_blocks > 0 ? TRAIN_MAX_CORRECTIONS : 0;
    while (most > 1 && !(s->corrections[most] > 0)) most--;
    return most;
}

static segfm_status lay_out(train_run *r, nn_arena *arena, segfm_error *error) {
    const train_settings *s = &r->settings;
    const uint32_t *n = s->sizes.spatial;
    vol_shape window = {{n[0], n[1], n[2]}};
    size_t voxels = nn_times(nn_times(n[0], n[1]), n[2]);
    train_network_options options = {.offsets = s->offsets != 0 && s->sizes.gru_blocks > 0,
                                     .recompute = s->recompute != 0,
                                     .all_clicks = s->all_clicks != 0,
                                     .chain = s->chain != 0,
                                     .slice_dice = s->slice_dice != 0,
                                     .max_corrections = most_corrections(s),
                                     .variant = (vol_variant)s->variant,
                                     .parts = (unsigned)s->parts};
    segfm_status status = train_network_plan(&r->network, &s->sizes, &options, r->common.threads, arena, error);
    if (status != SEGFM_OK) return status;
    train_optimiser_plan(&r->optimiser, &r->network, r->common.threads, arena);
    r->optimiser.adamw = (nn_adamw){0, s->beta1, s->beta2, s->eps, s->decay};
    r->optimiser.clip = s->clip;
    r->sample.image = nn_arena_reals(arena, voxels);
    r->sample.truth = nn_arena_take(arena, voxels, 1);
    r->scratch = nn_arena_take(arena, train_draw_bytes(&window), 1);
    return arena->failed ? segvol_does_not_fit("the training", arena, error) : SEGFM_OK;
}

segfm_status train_run_plan(train_run *r, segfm_error *error) {
    nn_arena arena = {.capacity = SIZE_MAX};
    segfm_status status = lay_out(r, &arena, error);
    if (status != SEGFM_OK) return status;
    size_t whole = nn_times(nn_plus(arena.used, NN_ALIGN - 1) / NN_ALIGN, NN_ALIGN);
    r->bytes = arena.used;
    r->memory = aligned_alloc(NN_ALIGN, whole);
    if (r->memory == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none of the %zu bytes that training needs", arena.used);
    arena = (nn_arena){.base = r->memory, .capacity = arena.used};
    return lay_out(r, &arena, error);
}

void train_run_close(train_run *r) {
    train_log_close(&r->log);
    train_log_close(&r->evaluations);
    train_data_close(&r->data);
    tool_cases_free(&r->evaluated);
    free(r->memory);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

segfm_status train_run_open_logs(train_run *r, segfm_error *error) {
    char header[2048] = "step,cases";
    for (int k = 0; k <= (int)r->settings.evaluate_clicks; k++) {
        size_t used = strlen(header);
        base_format(header + used, sizeof header - used, ",DSC_%d", k);
    }
    size_t used = strlen(header);
    base_format(header + used, sizeof header - used, ",DSC_mean,seconds\n");
    segfm_status status =
        train_log_open(r->folder, "evaluation.csv", header, r->position.evaluation_bytes, &r->evaluations, error);
    if (status != SEGFM_OK) return status;
    return train_log_open(r->folder, "log.csv",
                          "step,stage,corrections,loss,dice,bce,dice_points,bce_points,consistency,boundary,"
                          "gradient,rate,seconds\n",
                          r->position.log_bytes, &r->log, error);
}

static segfm_status write_weights(train_run *r, const char *name, segfm_error *error) {
    char path[4096];
    io_buffer bytes = {0};
    segfm_status status = tool_path(path, sizeof path, r->folder, name, error);
    if (status == SEGFM_OK) status = train_weights_bytes(&r->network, &r->settings, r->position.step, &bytes, error);
    if (status == SEGFM_OK) status = io_write_file(path, bytes.data, bytes.size, error);
    io_buffer_free(&bytes);
    return status;
}

segfm_status train_run_save(train_run *r, segfm_error *error) {
    char path[4096];
    io_buffer text = {0};
    segfm_status status = train_log_sync(&r->log, error);
    if (status == SEGFM_OK) status = train_log_sync(&r->evaluations, error);
    if (status != SEGFM_OK) return status;
    r->position.log_bytes = r->log.bytes;
    r->position.evaluation_bytes = r->evaluations.bytes;
    status = tool_path(path, sizeof path, r->folder, "checkpoint.bin", error);
    if (status == SEGFM_OK) status = train_settings_write(&r->settings, false, &text, error);
    if (status == SEGFM_OK)
        status = train_checkpoint_write(path, (const char *)text.data, &r->position, &r->network, &r->optimiser, error);
    io_buffer_free(&text);
    return status == SEGFM_OK ? write_weights(r, "last.segfm", error) : status;
}

/* ---- evaluation ------------------------------------------------------------------------------------------------ */

static bool evaluation_is_due(const train_run *r) {
    const train_settings *s = &r->settings;
    uint64_t step = r->position.step;
    return s->evaluate_every > 0 && step % (uint64_t)s->evaluate_every == 0 && r->position.evaluated != step + 1;
}

/* Scores the network as users run it: written as a weights file, opened from that. */
static segfm_status score(train_run *r, double *dice, size_t *bad, segfm_error *error) {
    const train_settings *s = &r->settings;
    io_buffer bytes = {0};
    segfm_model *model = NULL;
    segfm_model_options options = segfm_model_options_default();
    tool_evaluation q = {(int)s->evaluate_clicks, r->common.threads, s->evaluate_min_voxels,
                         s->variant == VOL_UPSTREAM ? SEGFM_UPSTREAM : SEGFM_SEED, goes_on};
    options.threads = r->common.threads;
    options.corrector = true;
    segfm_status status = train_weights_bytes(&r->network, s, r->position.step, &bytes, error);
    if (status == SEGFM_OK) status = segfm_model_open(bytes.data, bytes.size, &options, &model, error);
    io_buffer_free(&bytes);
    if (status != SEGFM_OK) return status;
    segfm_error problem = {0};
    status = tool_evaluate(model, &r->evaluated, &q, dice, bad, &problem);
    segfm_model_close(model);
    if (status == SEGFM_CANCELLED || status == SEGFM_NO_MEMORY) { /* with memory the score would be another one */
        *error = problem;
        return status;
    }
    if (status != SEGFM_OK) /* of a case: the others count */
        fprintf(stderr, "segfm: %s%s%s (not scored)\n", problem.where, problem.where[0] != '\0' ? ": " : "",
                problem.message);
    return SEGFM_OK;
}

static segfm_status log_evaluation(train_run *r, const double *dice, double mean, size_t cases, double seconds,
                                   segfm_error *error) {
    char line[4096];
    int used = snprintf(line, sizeof line, "%llu,%zu", (unsigned long long)r->position.step, cases);
    for (int k = 0; k <= (int)r->settings.evaluate_clicks; k++)
        used += snprintf(line + used, sizeof line - (size_t)used, ",%.9g", dice[k]);
    /* seconds of one width, so that a checkpoint, which knows how long the logs are, is the same of a slower run */
    snprintf(line + used, sizeof line - (size_t)used, ",%.9g,%09.3f\n", mean, seconds);
    return train_log_add(&r->evaluations, line, error);
}

/* SEGFM_CANCELLED: a signal came; it will be made again. */
static segfm_status evaluate(train_run *r, segfm_error *error) {
    double dice[101], mean = 0, started = tool_milliseconds();
    size_t bad = 0;
    int steps = (int)r->settings.evaluate_clicks + 1;
    segfm_status status = score(r, dice, &bad, error);
    if (status != SEGFM_OK) return status;
    for (int k = 0; k < steps; k++) mean += dice[k] / steps;
    status =
        log_evaluation(r, dice, mean, r->evaluated.names.count - bad, (tool_milliseconds() - started) / 1e3, error);
    if (status == SEGFM_OK && mean >= 0 && !(mean <= r->position.best)) {
        status = write_weights(r, "best.segfm", error);
        r->position.best = mean;
    }
    r->position.evaluated = r->position.step + 1;
    return status;
}

/* ---- a step ---------------------------------------------------------------------------------------------------- */

static train_objective draw_objective(const train_run *r) {
    const train_settings *s = &r->settings;
    train_random random = train_random_at((uint64_t)s->seed, r->position.step, TRAIN_STREAM_STEP);
    bool points = r->position.stage == TRAIN_BOX_POINTS;
    int corrections = (int)train_random_choice(&random, s->corrections, TRAIN_MAX_CORRECTIONS + 1);
    return (train_objective){.corrections = s->sizes.gru_blocks > 0 ? corrections : 0,
                             .points = points,
                             .consistency = (real)s->consistency,
                             .boundary = points ? (real)s->boundary : 0};
}

static void add_losses(train_losses *sum, const train_losses *l, double share) {
    sum->total += share * l->total;
    sum->dice += share * l->dice;
    sum->bce += share * l->bce;
    sum->dice_points += share * l->dice_points;
    sum->bce_points += share * l->bce_points;
    sum->consistency += share * l->consistency;
    sum->boundary += share * l->boundary;
}

/* Gradients and mean losses of the step's samples. */
static segfm_status learn(train_run *r, const train_objective *objective, train_losses *mean, segfm_error *error) {
    const train_settings *s = &r->settings;
    double share = 1 / (double)s->batch;
    *mean = (train_losses){0};
    train_optimiser_clear(&r->network);
    for (int64_t i = 0; i < s->batch; i++) {
        train_losses losses = {0};
        segfm_status status =
            train_data_draw(&r->data, s, r->common.threads, r->position.step, i, r->scratch, &r->sample, error);
        if (status != SEGFM_OK) return status;
        train_network_backward(&r->network, &r->sample, objective, (real)share, &losses);
        add_losses(mean, &losses, share);
    }
    return SEGFM_OK;
}

/* Stage auto: the second stage begins when an epoch's mean loss is about that of the epoch before. */
static void count_epoch(train_run *r, double loss) {
    const train_settings *s = &r->settings;
    train_position *p = &r->position;
    p->epoch_sum += loss;
    if (p->step % (uint64_t)s->epoch != 0) return;
    double mean = p->epoch_sum / (double)s->epoch;
    if (s->stage == TRAIN_AUTO && fabs(mean - p->epoch_before) < s->settled) p->stage = TRAIN_BOX_POINTS;
    p->epoch_before = mean;
    p->epoch_sum = 0;
}

static double rate_of(const train_settings *s, uint64_t step) {
    train_schedule schedule = {s->rate, s->floor, (uint64_t)s->warmup,
                               (uint64_t)(s->schedule_steps > 0 ? s->schedule_steps : s->steps), s->schedule != 0};
    return train_rate(&schedule, step);
}

static segfm_status step(train_run *r, double started, double *loss, segfm_error *error) {
    char line[512];
    train_losses l;
    train_position *p = &r->position;
    train_objective objective = draw_objective(r);
    double rate = rate_of(&r->settings, p->step);
    segfm_status status = learn(r, &objective, &l, error);
    if (status != SEGFM_OK) return status;
    double norm = train_optimiser_step(&r->optimiser, &r->network, rate);
    if (!isfinite(norm) || !isfinite(l.total))
        return base_fail(error, SEGFM_BAD_INPUT,
                         "step %llu: loss or gradient is not finite any more: the rate may be too high",
                         (unsigned long long)p->step);
    train_network_refresh(&r->network);
    snprintf(line, sizeof line, "%llu,%s,%d,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%09.3f\n",
             (unsigned long long)p->step, p->stage == TRAIN_BOX ? "box" : "box_points", objective.corrections, l.total,
             l.dice, l.bce, l.dice_points, l.bce_points, l.consistency, l.boundary, norm, rate,
             (tool_milliseconds() - started) / 1e3);
    p->step++;
    count_epoch(r, l.total);
    *loss = l.total;
    return train_log_add(&r->log, line, error);
}

/* ---- the loop -------------------------------------------------------------------------------------------------- */

static void show_progress(const train_run *r, double loss, uint64_t first, double started) {
    double seconds = (tool_milliseconds() - started) / 1e3, done = (double)(r->position.step - first);
    double left = ((double)r->settings.steps - (double)r->position.step) * seconds / done;
    fprintf(stderr, "\rstep %llu of %lld  loss %.4f  %.2f samples/s  %.0f:%02.0f:%02.0f left\033[K",
            (unsigned long long)r->position.step, (long long)r->settings.steps, loss,
            done * (double)r->settings.batch / seconds, floor(left / 3600), floor(fmod(left, 3600) / 60),
            floor(fmod(left, 60)));
}

static segfm_status go_on(train_run *r, uint64_t *saved, segfm_error *error) {
    bool watched = !r->common.quiet && isatty(STDERR_FILENO);
    uint64_t first = r->position.step, end = (uint64_t)r->settings.steps;
    double loss = 0, started = tool_milliseconds();
    segfm_status status = SEGFM_OK;
    while (status == SEGFM_OK && stop_asked == 0) {
        if (evaluation_is_due(r)) {
            *saved = UINT64_MAX;
            status = evaluate(r, error);
            if (status == SEGFM_OK) status = train_run_save(r, error);
            if (status == SEGFM_OK) *saved = r->position.step;
        }
        if (status != SEGFM_OK || r->position.step >= end) break;
        status = step(r, started, &loss, error);
        if (watched) show_progress(r, loss, first, started);
        if (status != SEGFM_OK || r->position.step % (uint64_t)r->settings.checkpoint_every != 0) continue;
        status = train_run_save(r, error);
        *saved = r->position.step;
    }
    if (watched) fputs("\r\033[K", stderr);
    return status;
}

segfm_status train_run_loop(train_run *r, bool *interrupted, segfm_error *error) {
    uint64_t saved = UINT64_MAX;
    catch_signals();
    segfm_status status = go_on(r, &saved, error);
    *interrupted = stop_asked != 0;
    if (status != SEGFM_OK && status != SEGFM_CANCELLED) return status;
    return saved == r->position.step ? SEGFM_OK : train_run_save(r, error);
}
