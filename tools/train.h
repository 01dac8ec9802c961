/* What the files of `segfm train` share. */
#ifndef SEGFM_TOOLS_TRAIN_H
#define SEGFM_TOOLS_TRAIN_H

#include "../train/train.h"
#include "tools.h"

/* ---- settings (train_config.c) --------------------------------------------------------------------------------- */

enum { TRAIN_MAX_CORRECTIONS = 5, TRAIN_MAX_KEYS = 128 };

typedef enum train_source { TRAIN_PAIRS, TRAIN_PHANTOMS, TRAIN_BOTH } train_source;
typedef enum train_stage { TRAIN_BOX, TRAIN_BOX_POINTS, TRAIN_AUTO } train_stage;

/* Whole numbers are int64_t, others double, so that one table describes them all. */
typedef struct train_settings {
    weights_config sizes;
    int64_t offsets, variant; /* of the corrector: 0 or 1; a vol_variant */
    int64_t source, phantoms_each, min_voxels;
    double phantoms;
    int64_t phantom_smallest[3], phantom_largest[3];
    int64_t batch, steps, seed, warmup, schedule, schedule_steps;
    double rate, floor, decay, beta1, beta2, eps, clip;
    int64_t stage, epoch; /* epoch: steps */
    double settled;
    double corrections[TRAIN_MAX_CORRECTIONS + 1];
    double consistency, boundary;
    int64_t parts, all_clicks, chain, slice_dice, recompute;
    train_augmentation augmentation;
    int64_t box_jitter;
    int64_t checkpoint_every, evaluate_every, evaluate_clicks, evaluate_min_voxels;
    char evaluate_pairs[1024];
    bool given[TRAIN_MAX_KEYS]; /* the key was in a file or on the command line */
} train_settings;

void train_settings_default(train_settings *s);
/* Takes a text of lines `key value` or `key = value`; # begins a remark. SEGFM_BAD_INPUT names line and key. */
segfm_status train_settings_read(train_settings *s, const char *text, segfm_error *error);
/* One key, as from a line. */
segfm_status train_settings_set(train_settings *s, const char *key, const char *value, segfm_error *error);
/* Appends the whole text, terminated, which reads back to the same; with remarks it is the manual of the keys. */
segfm_status train_settings_write(const train_settings *s, bool remarks, io_buffer *out, segfm_error *error);
/* Of all but what a run may go on with differently. */
uint64_t train_settings_hash(const train_settings *s);
/* What contradicts. */
segfm_status train_settings_check(const train_settings *s, segfm_error *error);
/* Takes the sizes of the weights that a run begins with. Those that were given must agree; a corrector's may be added. */
segfm_status train_settings_take_sizes(train_settings *s, const weights_file *file, segfm_error *error);
/* A run with the settings `before` may go on with `now`; else SEGFM_BAD_USAGE names the first key that differs. */
segfm_status train_settings_same(const train_settings *before, const train_settings *now, segfm_error *error);

/* ---- what is learned from (train_data.c) ----------------------------------------------------------------------- */

typedef struct train_data {
    train_case *cases;
    size_t count, bad, classes, bytes;
    uint64_t hash; /* of all cases */
    train_order order;
    train_case phantom; /* the last one made, and its number; classes NULL: none yet */
    uint64_t phantom_number;
} train_data;
/* pairs: the list, or NULL. A case that is no good is named on stderr, counted and left out; SEGFM_BAD_INPUT when none is
   left. */
segfm_status train_data_open(const train_settings *s, const char *pairs, int threads, train_data *out,
                             segfm_error *error);
void train_data_close(train_data *d);
/* Draws sample `place` of step `step` into *out (memory: train_draw_bytes). */
segfm_status train_data_draw(train_data *d, const train_settings *s, int threads, uint64_t step, int64_t place,
                             void *memory, train_sample *out, segfm_error *error);

/* ---- where a run is (train_checkpoint.c) ----------------------------------------------------------------------- */

/* What beside weights and moments makes a run's next step. */
typedef struct train_position {
    uint64_t step;                        /* the next one */
    uint64_t evaluated;                   /* 1 + the last step that was evaluated; 0: none */
    uint64_t stage;                       /* TRAIN_BOX or TRAIN_BOX_POINTS */
    uint64_t log_bytes, evaluation_bytes; /* of log.csv and evaluation.csv */
    uint64_t data_hash;
    double epoch_sum;    /* of the losses of this epoch's steps */
    double epoch_before; /* mean loss of the epoch before; NAN: none */
    double best;         /* the best evaluation; NAN: none */
} train_position;

/* Writes DIR/checkpoint.bin, whole or not at all. text: the settings. */
segfm_status train_checkpoint_write(const char *path, const char *text, const train_position *p, const train_network *n,
                                    const train_optimiser *o, segfm_error *error);
/* A checkpoint's bytes, checked as far as they tell without a network. text is terminated and lies in the bytes. */
typedef struct train_checkpoint {
    io_mapping file;
    const char *text;
    train_position position;
    uint64_t tensors, parameters;
    const unsigned char *steps, *arrays;
} train_checkpoint;
segfm_status train_checkpoint_open(const char *path, train_checkpoint *out, segfm_error *error);
/* Puts weights, moments and step counts into a network and optimiser of the same settings. */
segfm_status train_checkpoint_restore(const train_checkpoint *c, train_network *n, train_optimiser *o,
                                      segfm_error *error);
void train_checkpoint_close(train_checkpoint *c);

/* Removes what a killed run has left in the folder. */
void train_clean_folder(const char *folder);
/* The network's parameters as a weights file, in memory. */
segfm_status train_weights_bytes(const train_network *n, const train_settings *s, uint64_t step, io_buffer *out,
                                 segfm_error *error);
/* Parameters from a weights file, widened; what it lacks stays. */
segfm_status train_weights_take(train_network *n, const weights_file *file, segfm_error *error);

/* ---- a file that only grows (train_log.c) ---------------------------------------------------------------------- */

typedef struct train_log {
    FILE *file;
    char path[4096];
    uint64_t bytes;
} train_log;
/* Cuts the file to `bytes`, which it must have, and goes on from there; 0 bytes: begins it with the header. */
segfm_status train_log_open(const char *folder, const char *name, const char *header, uint64_t bytes, train_log *out,
                            segfm_error *error);
segfm_status train_log_add(train_log *l, const char *line, segfm_error *error);
/* What was added is in the file. */
segfm_status train_log_sync(train_log *l, segfm_error *error);
void train_log_close(train_log *l);

/* ---- a run (train_loop.c) -------------------------------------------------------------------------------------- */

typedef struct train_run {
    const char *folder;
    tool_common common; /* threads: never 0 */
    train_settings settings;
    train_data data;
    tool_cases evaluated;
    train_network network;
    train_optimiser optimiser;
    train_sample sample;
    void *scratch; /* of train_draw */
    void *memory;  /* of all four */
    size_t bytes;  /* its size */
    train_position position;
    train_log log, evaluations;
} train_run;
/* Takes the memory that a run with these settings needs. */
segfm_status train_run_plan(train_run *r, segfm_error *error);
/* Opens the logs, cut back to the position. */
segfm_status train_run_open_logs(train_run *r, segfm_error *error);
/* Writes checkpoint.bin and last.segfm. */
segfm_status train_run_save(train_run *r, segfm_error *error);
/* Steps and evaluations until the last step, or until a signal asks to stop; saves now and then and at the end. */
segfm_status train_run_loop(train_run *r, bool *interrupted, segfm_error *error);
void train_run_close(train_run *r);

#endif
