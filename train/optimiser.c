/* AdamW over the flat arrays, with the schedule and the clipping around it. */
#include <math.h>

#include "train.h"

double train_rate(const train_schedule *s, uint64_t step) {
    if (step < s->warmup) return s->rate * ((double)(step + 1) / (double)s->warmup);
    if (!s->cosine) return s->rate;
    if (step >= s->steps || s->steps <= s->warmup) return s->floor;
    double sine, cosine, way = (double)(step - s->warmup) / (double)(s->steps - s->warmup);
    nn_sin_cos_turns(way / 2, &sine, &cosine);
    return s->floor + (s->rate - s->floor) * ((1 + cosine) / 2);
}

static size_t largest_tensor(const weights_config *c) {
    weights_spec spec;
    size_t largest = 0;
    for (size_t i = 0, n = 0; weights_spec_at(c, i, &spec); i++)
        if (base_count(spec.shape, spec.ndim, 1, &n) && n > largest) largest = n;
    return largest;
}

void train_optimiser_plan(train_optimiser *o, const train_network *n, int threads, nn_arena *arena) {
    o->m = nn_arena_reals(arena, n->count);
    o->v = nn_arena_reals(arena, n->count);
    o->steps = nn_arena_take(arena, n->tensor_count, sizeof *o->steps);
    o->run = (nn_run){threads, nn_arena_reals(arena, nn_loss_scratch(largest_tensor(&n->config))), nn_kernels_best()};
    if (arena->base == NULL || arena->failed) return;
    memset(o->m, 0, n->count * sizeof *o->m);
    memset(o->v, 0, n->count * sizeof *o->v);
    memset(o->steps, 0, n->tensor_count * sizeof *o->steps);
}

void train_optimiser_clear(train_network *n) { memset(n->gradients, 0, n->count * sizeof *n->gradients); }

static bool steps_with(const train_tensor *t) { return t->learns && t->touched; }

double train_optimiser_step(train_optimiser *o, train_network *n, double rate) {
    double squares = 0, scale = 1;
    for (size_t i = 0; i < n->tensor_count; i++) {
        const train_tensor *t = &n->tensors[i];
        if (steps_with(t)) squares += nn_square_sum(&o->run, t->count, n->gradients + t->at);
    }
    double norm = sqrt(squares);
    if (!isfinite(norm)) return norm;
    if (o->clip > 0 && o->clip < norm + 1e-6) scale = o->clip / (norm + 1e-6);
    o->adamw.rate = rate;
    for (size_t i = 0; i < n->tensor_count; i++) {
        const train_tensor *t = &n->tensors[i];
        if (!steps_with(t)) continue;
        o->steps[i]++;
        nn_adamw_step(&o->run, &o->adamw, o->steps[i], t->count, n->parameters + t->at, n->gradients + t->at, scale,
                      o->m + t->at, o->v + t->at);
    }
    return norm;
}
