/* train/optimiser.c: the schedule, clipping, and which tensors step, against the formulas written out. */
#include "test.h"

#include "../train/train.h"
#include "random.h"

static void check_schedule(void) {
    train_schedule s = {.rate = 2, .floor = 0.5, .warmup = 4, .steps = 12};
    CHECK(train_rate(&s, 0) == 0.5 && train_rate(&s, 2) == 1.5 && train_rate(&s, 3) == 2);
    CHECK(train_rate(&s, 4) == 2 && train_rate(&s, 1000000) == 2);
    s.cosine = true;
    CHECK(train_rate(&s, 4) == 2 && train_rate(&s, 12) == 0.5 && train_rate(&s, 99) == 0.5);
    double pi = 3.14159265358979323846, got[8], want[8];
    for (uint64_t i = 0; i < 8; i++) {
        got[i] = train_rate(&s, 4 + i);
        want[i] = 0.5 + 1.5 * (1 + cos(pi * (double)i / 8)) / 2;
    }
    CHECK_CLOSE("cosine", got, want, 8, 0, 1e-14);
    s.warmup = 0;
    CHECK(train_rate(&s, 0) == 2);
    s = (train_schedule){.rate = 1, .warmup = 5, .steps = 3, .cosine = true}; /* over before it began */
    CHECK(train_rate(&s, 7) == 0);
}

enum { TENSORS = 4 };
static const size_t counts[TENSORS] = {5, 20000, 300, 7};

/* A network of four tensors, of which the third is frozen and the fourth has no gradient before the third step. */
typedef struct small {
    train_network n;
    train_tensor tensors[TENSORS];
    train_optimiser o;
    void *memory;
} small;

static void make_small(small *s, int threads) {
    *s = (small){.n = {.tensors = s->tensors, .tensor_count = TENSORS}};
    s->n.config = *weights_named_config("tiny"); /* the scratch is for its largest tensor */
    for (size_t i = 0; i < TENSORS; i++) {
        s->tensors[i] = (train_tensor){.at = s->n.count, .count = counts[i], .learns = i != 2, .touched = i != 3};
        s->n.count += counts[i];
    }
    s->n.parameters = random_reals(1, s->n.count, -1, 1);
    s->n.gradients = random_reals(2, s->n.count, -1, 1);
    nn_arena arena = {.capacity = SIZE_MAX};
    train_optimiser_plan(&s->o, &s->n, threads, &arena);
    s->memory = aligned_alloc(NN_ALIGN, (arena.used + NN_ALIGN - 1) / NN_ALIGN * NN_ALIGN);
    arena = (nn_arena){.base = s->memory, .capacity = arena.used};
    train_optimiser_plan(&s->o, &s->n, threads, &arena);
    CHECK(!arena.failed);
    s->o.adamw = (nn_adamw){0, 0.9, 0.99, 1e-8, 0.1};
}

static void free_small(small *s) {
    free(s->n.parameters);
    free(s->n.gradients);
    free(s->memory);
}

/* The same in plain double arithmetic. */
static void naive_step(const small *s, double *w, double *m, double *v, uint64_t *steps, const bool *touched,
                       double clip, double rate) {
    double squares = 0;
    for (size_t t = 0; t < TENSORS; t++)
        for (size_t i = 0; i < counts[t]; i++) {
            double g = (double)s->n.gradients[s->tensors[t].at + i];
            if (touched[t]) squares += g * g;
        }
    double scale = clip / (sqrt(squares) + 1e-6);
    if (!(scale < 1)) scale = 1;
    for (size_t t = 0; t < TENSORS; t++) {
        if (!touched[t]) continue;
        steps[t]++;
        for (size_t k = 0; k < counts[t]; k++) {
            size_t i = s->tensors[t].at + k;
            double g = scale * (double)s->n.gradients[i];
            w[i] *= 1 - rate * 0.1;
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.99 * v[i] + 0.01 * g * g;
            double first = m[i] / (1 - pow(0.9, (double)steps[t])), second = v[i] / (1 - pow(0.99, (double)steps[t]));
            w[i] -= rate * first / (sqrt(second) + 1e-8);
        }
    }
}

static void check_steps(double clip) {
    small s, threaded;
    make_small(&s, 1);
    make_small(&threaded, 3);
    size_t n = s.n.count;
    double *w = calloc(3 * n, sizeof *w), *m = w + n, *v = w + 2 * n;
    uint64_t steps[TENSORS] = {0};
    for (size_t i = 0; i < n; i++) w[i] = (double)s.n.parameters[i];
    s.o.clip = threaded.o.clip = clip;
    for (int step = 1; step <= 4; step++) {
        bool touched[TENSORS] = {true, true, false, step >= 3};
        s.tensors[3].touched = threaded.tensors[3].touched = touched[3];
        naive_step(&s, w, m, v, steps, touched, clip > 0 ? clip : 1e300, 0.01 * step);
        double norm = train_optimiser_step(&s.o, &s.n, 0.01 * step);
        CHECK(train_optimiser_step(&threaded.o, &threaded.n, 0.01 * step) == norm);
        CHECK(fabs(norm - 81.6) < 1); /* √(20005/3), twelve or nineteen elements more */
    }
    CHECK_CLOSE("parameters after four steps", s.n.parameters, w, n, 1e-6, 1e-6);
    CHECK(memcmp(s.n.parameters, threaded.n.parameters, n * sizeof(real)) == 0);
    CHECK(s.o.steps[0] == 4 && s.o.steps[2] == 0 && s.o.steps[3] == 2);
    CHECK((double)s.n.parameters[s.tensors[2].at] == w[s.tensors[2].at]); /* no decay either */
    s.n.gradients[3] = (real)NAN;
    memcpy(threaded.n.parameters, s.n.parameters, n * sizeof(real));
    CHECK(isnan(train_optimiser_step(&s.o, &s.n, 1)) && s.o.steps[0] == 4);
    CHECK(memcmp(s.n.parameters, threaded.n.parameters, n * sizeof(real)) == 0);
    train_optimiser_clear(&s.n);
    CHECK(s.n.gradients[3] == 0 && s.n.gradients[n - 1] == 0);
    free(w);
    free_small(&s);
    free_small(&threaded);
}

int main(void) {
    check_schedule();
    check_steps(0);
    check_steps(2);
    check_steps(1000);
    return test_summary();
}
