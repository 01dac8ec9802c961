/* segfm train: learns weights from labelled scans or from phantoms. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train.h"

typedef struct arguments {
    const char *pairs, *out, *config, *init, *steps, *seed;
    bool resume, defaults;
} arguments;

/* ---- settings -------------------------------------------------------------------------------------------------- */

static segfm_status read_config(const char *path, train_settings *s, segfm_error *error) {
    io_buffer text = {0};
    segfm_status status = io_read_file(path, &text, error);
    if (status == SEGFM_OK) status = io_buffer_append(&text, "", 1, error); /* a terminator */
    if (status == SEGFM_OK && memchr(text.data, 0, text.size - 1) != NULL)
        status = base_fail(error, SEGFM_BAD_INPUT, "holds a zero byte: need lines of text");
    if (status == SEGFM_OK) status = train_settings_read(s, (const char *)text.data, error);
    io_buffer_free(&text);
    return status == SEGFM_OK ? status : base_fail_where(error, status, path);
}

/* What the command line says beside the file. */
static segfm_status take_options(const arguments *a, train_settings *s, segfm_error *error) {
    segfm_status status = a->steps != NULL ? train_settings_set(s, "steps", a->steps, error) : SEGFM_OK;
    return status == SEGFM_OK && a->seed != NULL ? train_settings_set(s, "seed", a->seed, error) : status;
}

static segfm_status take_sizes(const char *path, train_settings *s, tool_model *source, weights_file *file,
                               segfm_error *error) {
    const unsigned char *bytes = NULL;
    size_t size = 0;
    segfm_status status = tool_weights_bytes(path, source, &bytes, &size, error);
    if (status != SEGFM_OK) return status;
    status = weights_open(bytes, size, file, error);
    if (status == SEGFM_OK) status = weights_verify(file, error);
    if (status != SEGFM_OK) return base_fail_where(error, status, path);
    return train_settings_take_sizes(s, file, error);
}

/* The settings of a new run, and the weights that it begins with. */
static segfm_status new_settings(const arguments *a, train_settings *s, tool_model *source, weights_file *file,
                                 segfm_error *error) {
    train_settings_default(s);
    segfm_status status = a->config != NULL ? read_config(a->config, s, error) : SEGFM_OK;
    if (status == SEGFM_OK) status = take_options(a, s, error);
    if (status == SEGFM_OK && a->init != NULL) status = take_sizes(a->init, s, source, file, error);
    if (status != SEGFM_OK) return status;
    status = train_settings_check(s, error);
    return status == SEGFM_OK || a->config == NULL ? status : base_fail_where(error, status, a->config);
}

/* The settings of a run that goes on: its own, or those given, which must then be the same. */
static segfm_status old_settings(const arguments *a, const train_checkpoint *c, train_settings *s, segfm_error *error) {
    train_settings before;
    train_settings_default(&before);
    segfm_status status = train_settings_read(&before, c->text, error);
    if (status != SEGFM_OK) {
        char path[4096];
        bool fits = tool_path(path, sizeof path, a->out, "checkpoint.bin", NULL) == SEGFM_OK;
        return base_fail_where(error, status, fits ? path : a->out);
    }
    if (a->config == NULL && a->init == NULL) {
        *s = before;
        status = take_options(a, s, error);
    }
    if (status == SEGFM_OK) status = train_settings_same(&before, s, error);
    return status == SEGFM_OK ? train_settings_check(s, error) : status;
}

/* The settings as they would be, with what each key means. */
static segfm_status print_settings(const arguments *a, segfm_error *error) {
    train_settings s;
    io_buffer text = {0};
    train_settings_default(&s);
    segfm_status status = a->config != NULL ? read_config(a->config, &s, error) : SEGFM_OK;
    if (status == SEGFM_OK) status = take_options(a, &s, error);
    if (status == SEGFM_OK) status = train_settings_write(&s, true, &text, error);
    if (status == SEGFM_OK) fputs((const char *)text.data, stdout);
    io_buffer_free(&text);
    return status;
}

/* ---- the start ------------------------------------------------------------------------------------------------- */

/* Is there a checkpoint to go on with, and is that what is wanted? */
static segfm_status find_checkpoint(const arguments *a, train_checkpoint *out, bool *found, segfm_error *error) {
    char path[4096];
    segfm_status status = tool_path(path, sizeof path, a->out, "checkpoint.bin", error);
    if (status != SEGFM_OK) return status;
    *found = access(path, F_OK) == 0;
    if (!*found && errno != ENOENT && errno != ENOTDIR) /* there may be one, which a new run would replace */
        return io_fail(error, SEGFM_BAD_INPUT, path, "cannot be looked for", errno);
    if (!*found) return SEGFM_OK;
    if (!a->resume) {
        base_fail(error, SEGFM_BAD_USAGE, "there is a run in this folder: --resume goes on with it");
        return base_fail_where(error, SEGFM_BAD_USAGE, path);
    }
    return train_checkpoint_open(path, out, error);
}

static segfm_status check_sources(const arguments *a, const train_settings *s, segfm_error *error) {
    if (s->source != TRAIN_PHANTOMS && a->pairs == NULL)
        return base_fail(error, SEGFM_BAD_USAGE, "the option --pairs is needed (but with `source phantoms`)");
    if (s->source == TRAIN_PHANTOMS && a->pairs != NULL)
        return base_fail(error, SEGFM_BAD_USAGE, "--pairs: source is phantoms, need pairs or both");
    return SEGFM_OK;
}

static segfm_status load(train_run *r, const arguments *a, segfm_error *error) {
    const train_settings *s = &r->settings;
    segfm_status status = check_sources(a, s, error);
    if (status == SEGFM_OK) status = tool_make_folder(a->out, error);
    if (status == SEGFM_OK && strcmp(s->evaluate_pairs, "-") != 0)
        status = tool_cases_read(s->evaluate_pairs, &r->evaluated, error);
    if (status == SEGFM_OK) status = train_data_open(s, a->pairs, r->common.threads, &r->data, error);
    return status == SEGFM_OK ? train_run_plan(r, error) : status;
}

static segfm_status begin(train_run *r, const weights_file *file, segfm_error *error) {
    const train_settings *s = &r->settings;
    segfm_status status = SEGFM_OK;
    r->position = (train_position){.stage = s->stage == TRAIN_BOX_POINTS ? TRAIN_BOX_POINTS : TRAIN_BOX,
                                   .data_hash = r->data.hash,
                                   .epoch_before = (double)NAN,
                                   .best = (double)NAN};
    train_initial(&r->network, (uint64_t)s->seed);
    if (file->count > 0) status = train_weights_take(&r->network, file, error);
    if (status == SEGFM_OK) status = train_run_open_logs(r, error);
    return status == SEGFM_OK ? train_run_save(r, error) : status;
}

static segfm_status resume(train_run *r, const train_checkpoint *c, segfm_error *error) {
    r->position = c->position;
    if (c->position.data_hash != r->data.hash)
        return base_fail(error, SEGFM_BAD_INPUT, "--pairs: the cases are not those that the run began with");
    segfm_status status = train_checkpoint_restore(c, &r->network, &r->optimiser, error);
    return status == SEGFM_OK ? train_run_open_logs(r, error) : status;
}

static void tell_size(const train_run *r) {
    const train_data *d = &r->data;
    if (r->common.quiet) return;
    fprintf(stderr, "segfm: %zu parameters, %zu bytes of memory", r->network.count, r->bytes);
    if (r->settings.source != TRAIN_PHANTOMS)
        fprintf(stderr, "; %zu cases with %zu classes, %zu bytes, %zu left out", d->count, d->classes, d->bytes,
                d->bad);
    fprintf(stderr, "%s; step %llu of %lld\n", r->settings.source != TRAIN_PAIRS ? "; phantoms" : "",
            (unsigned long long)r->position.step, (long long)r->settings.steps);
}

static void tell_end(const train_run *r, bool interrupted) {
    if (r->common.quiet) return;
    fprintf(stderr, "segfm: %s step %llu, saved in %s%s",
            interrupted ? "interrupted after" : "done:", (unsigned long long)r->position.step, r->folder,
            interrupted ? "; --resume goes on" : "");
    if (r->data.bad > 0) fprintf(stderr, "; %zu bad cases were left out", r->data.bad);
    fputs("\n", stderr);
}

static segfm_status run(train_run *r, const arguments *a, segfm_error *error) {
    tool_model source = {0};
    weights_file file = {0};
    train_checkpoint checkpoint = {0};
    bool found = false, interrupted = false;
    segfm_status status = find_checkpoint(a, &checkpoint, &found, error);
    if (status == SEGFM_OK && (!found || a->config != NULL || a->init != NULL))
        status = new_settings(a, &r->settings, &source, &file, error);
    if (status == SEGFM_OK && found) status = old_settings(a, &checkpoint, &r->settings, error);
    if (status == SEGFM_OK) status = load(r, a, error);
    if (status == SEGFM_OK) train_clean_folder(a->out);
    if (status == SEGFM_OK && a->resume && !found && !r->common.quiet)
        fprintf(stderr, "segfm: %s has no checkpoint yet: the run begins\n", a->out);
    if (status == SEGFM_OK) status = found ? resume(r, &checkpoint, error) : begin(r, &file, error);
    train_checkpoint_close(&checkpoint);
    weights_close(&file);
    tool_model_close(&source);
    if (status != SEGFM_OK) return status;
    train_network_refresh(&r->network);
    tell_size(r);
    status = train_run_loop(r, &interrupted, error);
    if (status == SEGFM_OK) tell_end(r, interrupted);
    return status;
}

segfm_status command_train(int argc, char **argv, segfm_error *error) {
    arguments a = {0};
    tool_common common;
    const tool_option options[] = {
        {"--pairs", .value = &a.pairs}, {"--out", .value = &a.out},          {"--config", .value = &a.config},
        {"--init", .value = &a.init},   {"--resume", .flag = &a.resume},     {"--steps", .value = &a.steps},
        {"--seed", .value = &a.seed},   {"--defaults", .flag = &a.defaults}, {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &common, error);
    if (status == SEGFM_OK && a.defaults) return print_settings(&a, error);
    if (status == SEGFM_OK) status = tool_need(a.out, "--out", error);
    if (status != SEGFM_OK) return status;
    train_run *r = calloc(1, sizeof *r);
    if (r == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a run");
    r->folder = a.out;
    r->common = common;
    r->common.threads = nn_threads(common.threads);
    status = run(r, &a, error);
    train_run_close(r);
    free(r);
    return status;
}
