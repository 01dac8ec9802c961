/* What tools/reference/verify_training.py drives to compare training with PyTorch, and bench/training.py to time it.

     train_probe WEIGHTS SAMPLES STEPS OUT [KEY=VALUE ...]

   SAMPLES and STEPS are a folder and a file as tools/reference/train.py has them; the keys are below. OUT is a folder that
   exists; into it go

     losses.npy        (steps, 7): total, dice, bce, dice_points, bce_points, consistency, boundary; means over a batch
     gradients.npy     all gradients of the first step, parameters.npy: all parameters after the last
     tensors.txt       name, where its numbers begin there, how many, whether the first step gave it a gradient: a line each
     trained.segfm     the parameters as a weights file

   With OUT "-" nothing is written: a side of the benchmark (bench/side.py), which answers each line `step` with the seconds of
   the next step, going round, and its total loss. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../train/train.h"
#include "fixture.h"

enum { LOSSES = 7, MAX_BATCH = 64 };

static segfm_error error;

static void must(segfm_status status) {
    if (status == SEGFM_OK) return;
    fprintf(stderr, "%s: %s\n", error.where, error.message);
    exit((int)status);
}

static void *take(size_t bytes) {
    void *memory = aligned_alloc(NN_ALIGN, (bytes / NN_ALIGN + 1) * NN_ALIGN);
    if (memory == NULL) fprintf(stderr, "no memory\n"), exit(SEGFM_NO_MEMORY);
    return memset(memory, 0, (bytes / NN_ALIGN + 1) * NN_ALIGN);
}

static void *grow(void *old, size_t bytes) {
    void *memory = realloc(old, bytes);
    if (memory == NULL) fprintf(stderr, "no memory\n"), exit(SEGFM_NO_MEMORY);
    return memory;
}

/* ---- the keys ------------------------------------------------------------------------------------------------ */

typedef struct settings {
    double upstream, all_clicks, chain, slice_dice, recompute, consistency, boundary, decay, threads, parts;
} settings;

static settings read_keys(int count, char **keys) {
    settings s = {.decay = 1e-5, .parts = TRAIN_ALL};
    const struct {
        const char *name;
        double *value;
    } known[] = {{"upstream", &s.upstream},
                 {"all_clicks", &s.all_clicks},
                 {"slice_dice", &s.slice_dice},
                 {"recompute", &s.recompute},
                 {"boundary", &s.boundary},
                 {"decay", &s.decay},
                 {"consistency", &s.consistency},
                 {"threads", &s.threads},
                 {"parts", &s.parts},
                 {"chain", &s.chain}};
    for (int i = 0; i < count; i++) {
        char *equals = strchr(keys[i], '=');
        size_t k = 0, n = sizeof known / sizeof known[0];
        while (equals != NULL && k < n &&
               (strlen(known[k].name) != (size_t)(equals - keys[i]) ||
                strncmp(known[k].name, keys[i], strlen(known[k].name)) != 0))
            k++;
        if (equals == NULL || k == n) fprintf(stderr, "what is %s?\n", keys[i]), exit(SEGFM_BAD_USAGE);
        *known[k].value = strtod(equals + 1, NULL);
    }
    return s;
}

/* ---- samples and steps --------------------------------------------------------------------------------------- */

typedef struct sample {
    char name[64];
    train_sample data;
} sample;

typedef struct step {
    double rate;
    train_objective objective;
    size_t batch;
    const train_sample *samples[MAX_BATCH];
} step;

static struct {
    sample *samples;
    step *steps;
    size_t sample_count, step_count;
} work;

static train_sample load_sample(const char *folder, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.npz", folder, name);
    fixture f = fixture_open(path);
    fixture_array image = fixture_read(&f, "image"), truth = fixture_read(&f, "truth"), box = fixture_read(&f, "box");
    size_t n = image.array.count;
    if (truth.array.count != n || box.array.count != 6) fprintf(stderr, "%s: sizes\n", path), exit(SEGFM_BAD_INPUT);
    train_sample s = {.image = take(n * sizeof(real)), .truth = take(n)};
    for (size_t i = 0; i < n; i++) s.image[i] = (real)image.values[i], s.truth[i] = truth.values[i] != 0;
    for (int i = 0; i < 6; i++) s.box[i] = (real)box.values[i];
    fixture_array_free(&image), fixture_array_free(&truth), fixture_array_free(&box);
    fixture_close(&f);
    return s;
}

/* The sample's place in the list; it has to be loaded afterwards. */
static size_t sample_number(const char *name) {
    for (size_t i = 0; i < work.sample_count; i++)
        if (strcmp(work.samples[i].name, name) == 0) return i;
    work.samples = grow(work.samples, (work.sample_count + 1) * sizeof *work.samples);
    snprintf(work.samples[work.sample_count].name, sizeof work.samples->name, "%s", name);
    return work.sample_count++;
}

/* RATE CORRECTIONS STAGE NAME NAME ... */
static void read_step(char *line, const settings *s, size_t numbers[MAX_BATCH]) {
    step t = {.objective.consistency = (real)s->consistency, .objective.boundary = (real)s->boundary};
    int column = 0;
    for (char *word = strtok(line, " \t\n"); word != NULL; word = strtok(NULL, " \t\n"), column++) {
        if (column == 0) t.rate = strtod(word, NULL);
        else if (column == 1) t.objective.corrections = atoi(word);
        else if (column == 2) t.objective.points = strcmp(word, "box_points") == 0;
        else if (t.batch < MAX_BATCH) numbers[t.batch++] = sample_number(word);
    }
    if (t.batch == 0) fprintf(stderr, "a step without samples\n"), exit(SEGFM_BAD_INPUT);
    work.steps = grow(work.steps, (work.step_count + 1) * sizeof *work.steps);
    work.steps[work.step_count++] = t;
}

static void read_work(const char *folder, const char *path, const settings *s) {
    char line[4096];
    size_t(*numbers)[MAX_BATCH] = NULL;
    FILE *file = fopen(path, "r");
    if (file == NULL) fprintf(stderr, "%s: cannot be read\n", path), exit(SEGFM_BAD_INPUT);
    while (fgets(line, sizeof line, file) != NULL) {
        if (line[0] == '#' || line[strspn(line, " \t\n")] == '\0') continue;
        numbers = grow(numbers, (work.step_count + 1) * sizeof *numbers);
        read_step(line, s, numbers[work.step_count]);
    }
    fclose(file);
    for (size_t i = 0; i < work.sample_count; i++) work.samples[i].data = load_sample(folder, work.samples[i].name);
    for (size_t i = 0; i < work.step_count; i++)
        for (size_t k = 0; k < work.steps[i].batch; k++) work.steps[i].samples[k] = &work.samples[numbers[i][k]].data;
    free(numbers);
}

static int most_corrections(void) {
    int most = 1;
    for (size_t i = 0; i < work.step_count; i++)
        if (work.steps[i].objective.corrections > most) most = work.steps[i].objective.corrections;
    return most;
}

/* ---- training ------------------------------------------------------------------------------------------------ */

typedef struct trainer {
    train_network network;
    train_optimiser optimiser;
} trainer;

static void start(trainer *t, const weights_file *file, const settings *s) {
    train_network *n = &t->network;
    train_network_options options = {.offsets = weights_find(file, "gru_blocks.0.fc_coord.weight") != NULL,
                                     .recompute = s->recompute != 0,
                                     .all_clicks = s->all_clicks != 0,
                                     .chain = s->chain != 0,
                                     .slice_dice = s->slice_dice != 0,
                                     .max_corrections = most_corrections(),
                                     .variant = s->upstream != 0 ? VOL_UPSTREAM : VOL_SEED,
                                     .parts = (unsigned)s->parts};
    nn_arena arena = {0};
    int threads = nn_threads((int)s->threads);
    t->optimiser.adamw = (nn_adamw){0, 0.9, 0.999, 1e-8, s->decay};
    for (int round = 0; round < 2; round++) { /* counts, then takes */
        if (round == 1) arena = (nn_arena){.base = take(arena.used), .capacity = arena.used};
        must(train_network_plan(n, &file->config, &options, threads, &arena, &error));
        train_optimiser_plan(&t->optimiser, n, threads, &arena);
    }
    for (size_t i = 0; i < n->tensor_count; i++)
        must(weights_load(weights_find(file, n->tensors[i].spec.name), n->parameters + n->tensors[i].at, &error));
    train_network_refresh(n);
}

/* Gradients of the mean over the batch; out: the mean losses. */
static void backward(trainer *t, const step *s, double out[LOSSES]) {
    train_network *n = &t->network;
    train_optimiser_clear(n);
    memset(out, 0, LOSSES * sizeof *out);
    for (size_t i = 0; i < s->batch; i++) {
        train_losses l;
        train_network_backward(n, s->samples[i], &s->objective, 1 / (real)s->batch, &l);
        const double values[LOSSES] = {l.total, l.dice, l.bce, l.dice_points, l.bce_points, l.consistency, l.boundary};
        for (int k = 0; k < LOSSES; k++) out[k] += values[k] / (double)s->batch;
    }
}

static void update(trainer *t, double rate) {
    train_optimiser_step(&t->optimiser, &t->network, rate);
    train_network_refresh(&t->network);
}

/* ---- results ------------------------------------------------------------------------------------------------- */

static void save(const char *folder, const char *name, const io_buffer *bytes) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    must(io_write_file(path, bytes->data, bytes->size, &error));
}

static void save_numbers(const char *folder, const char *name, bool wide, int ndim, const size_t *shape,
                         const void *data) {
    io_buffer npy = {0};
    must(io_npy_write(&npy, wide ? IO_F64 : IO_F32, ndim, shape, data, &error));
    save(folder, name, &npy);
    io_buffer_free(&npy);
}

static void save_flat(const char *folder, const char *name, const train_network *n, const real *data) {
    save_numbers(folder, name, sizeof(real) == 8, 1, &n->count, data);
}

static void save_tensors(const char *folder, const train_network *n) {
    io_buffer text = {0};
    char line[WEIGHTS_NAME_MAX + 64];
    for (size_t i = 0; i < n->tensor_count; i++) {
        const train_tensor *t = &n->tensors[i];
        snprintf(line, sizeof line, "%s %zu %zu %d\n", t->spec.name, t->at, t->count, (int)t->touched);
        must(io_buffer_append(&text, line, strlen(line), &error));
    }
    save(folder, "tensors.txt", &text);
    io_buffer_free(&text);
}

static const train_tensor *tensor_of(const train_network *n, const weights_spec *spec) {
    for (size_t i = 0; i < n->tensor_count; i++)
        if (strcmp(n->tensors[i].spec.name, spec->name) == 0) return &n->tensors[i];
    return NULL;
}

static segfm_status values_of(void *user, const weights_spec *spec, size_t count, float *out, segfm_error *e) {
    const train_network *n = user;
    const train_tensor *t = tensor_of(n, spec);
    (void)e;
    for (size_t i = 0; i < count; i++) out[i] = (float)n->parameters[t->at + i];
    return SEGFM_OK;
}

static bool has_values(void *user, const weights_spec *spec) { return tensor_of(user, spec) != NULL; }

static void save_weights(const char *folder, train_network *n, const char *variant) {
    weights_write_options options = {false, variant, "trained by test/train_probe.c", has_values};
    io_buffer bytes = {0};
    must(weights_write(&n->config, &options, values_of, n, weights_sink_buffer, &bytes, &error));
    save(folder, "trained.segfm", &bytes);
    io_buffer_free(&bytes);
}

static void train_all(trainer *t, const char *folder, const char *variant) {
    double *losses = take(work.step_count * LOSSES * sizeof *losses);
    for (size_t i = 0; i < work.step_count; i++) {
        backward(t, &work.steps[i], losses + i * LOSSES);
        if (i == 0) save_flat(folder, "gradients.npy", &t->network, t->network.gradients);
        if (i == 0) save_tensors(folder, &t->network);
        update(t, work.steps[i].rate);
    }
    save_numbers(folder, "losses.npy", true, 2, (size_t[]){work.step_count, LOSSES}, losses);
    save_flat(folder, "parameters.npy", &t->network, t->network.parameters);
    save_weights(folder, &t->network, variant);
    free(losses);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int serve(trainer *t) {
    char line[64];
    double losses[LOSSES];
    puts("ready");
    for (size_t i = 0; fflush(stdout) == 0 && fgets(line, sizeof line, stdin) != NULL; i++) {
        if (strcmp(line, "step\n") != 0) return SEGFM_BAD_USAGE;
        const step *s = &work.steps[i % work.step_count];
        double begin = seconds();
        backward(t, s, losses);
        update(t, s->rate);
        printf("%.6f %.17g\n", seconds() - begin, losses[0]);
    }
    return 0;
}

int main(int argc, char **argv) {
    trainer t = {0};
    io_buffer bytes = {0};
    weights_file file;
    if (argc < 5) {
        fputs("train_probe WEIGHTS SAMPLES STEPS OUT [KEY=VALUE ...]\n", stderr);
        return SEGFM_BAD_USAGE;
    }
    settings s = read_keys(argc - 5, argv + 5);
    read_work(argv[2], argv[3], &s);
    must(io_read_file(argv[1], &bytes, &error));
    must(weights_open(bytes.data, bytes.size, &file, &error));
    char variant[16];
    snprintf(variant, sizeof variant, "%s", file.variant);
    start(&t, &file, &s);
    weights_close(&file);
    io_buffer_free(&bytes);
    if (strcmp(argv[4], "-") == 0) return serve(&t);
    train_all(&t, argv[4], variant);
    return 0;
}
