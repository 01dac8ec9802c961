#include "segvol.h"

/* Rows that one call of a block is given at most: all of a sequence up to the last block's first step, two of any later. */
static size_t rows_of_call(const segvol_model *m, size_t max_steps) {
    return nn_times(2, max_steps < m->gru_count ? max_steps : m->gru_count);
}

segfm_status segvol_corrector_plan(segvol_corrector *c, const segvol_model *m, size_t max_steps, int threads,
                                   nn_arena *arena, segfm_error *error) {
    size_t hidden = m->config.gru_hidden, k = m->config.topk, rows = rows_of_call(m, max_steps);
    *c = (segvol_corrector){.max_steps = max_steps};
    c->run = (nn_run){threads, nn_arena_reals(arena, nn_gru_scratch(rows, hidden)), nn_kernels_best()};
    c->rows = nn_arena_reals(arena, nn_times(max_steps, nn_times(16, k)));
    c->hidden = nn_arena_reals(arena, nn_times(max_steps, hidden));
    c->states = nn_arena_reals(arena, nn_times(rows, hidden));
    c->joined = nn_arena_reals(arena, nn_plus(hidden, nn_times(6, k)));
    return arena->failed ? segvol_does_not_fit("corrector", arena, error) : SEGFM_OK;
}

void segvol_corrector_step(const segvol_model *m, segvol_corrector *c, size_t step, const real *coordinates,
                           real *delta, real *offset) {
    size_t hidden = m->config.gru_hidden, k = m->config.topk, last = m->gru_count - 1;
    const segvol_gru *block = &m->gru[step < last ? step : last];
    bool goes_on = step > last; /* the step before was this block's too */
    size_t first = goes_on ? step : 0, rows = 2 * (step + 1 - first);
    nn_gru_forward(&c->run, &block->gru, rows, c->rows + first * 16 * k,
                   goes_on ? c->hidden + (step - 1) * hidden : NULL, c->states);
    memcpy(c->hidden + step * hidden, c->states + (rows - 1) * hidden, hidden * sizeof(real));
    memcpy(c->joined, c->hidden + step * hidden, hidden * sizeof(real));
    memcpy(c->joined + hidden, coordinates, 6 * k * sizeof(real));
    nn_rows_product(&c->run, 1, c->joined, &block->fc_prob.weight, block->fc_prob.bias, delta);
    if (block->fc_coord.weight.n > 0)
        nn_rows_product(&c->run, 1, c->joined, &block->fc_coord.weight, block->fc_coord.bias, offset);
    else memset(offset, 0, 6 * k * sizeof(real));
}

segfm_status segvol_corrector_tape_plan(segvol_corrector_tape *g, segvol_corrector *c, const segvol_model *m,
                                        nn_arena *arena, segfm_error *error) {
    size_t hidden = m->config.gru_hidden, k = m->config.topk, rows = nn_times(2, c->max_steps);
    size_t joined = nn_plus(hidden, nn_times(6, k)), most = nn_gru_scratch(rows, hidden);
    size_t gru = nn_gru_backward_scratch(rows, nn_times(8, k), hidden, c->run.threads);
    size_t head = nn_linear_backward_scratch(1, joined, nn_times(2, k), c->run.threads);
    most = most > gru ? most : gru;
    c->run.scratch = nn_arena_reals(arena, most > head ? most : head);
    g->states = nn_arena_reals(arena, nn_times(rows, hidden));
    g->dstates = nn_arena_reals(arena, nn_times(rows, hidden));
    g->djoined = nn_arena_reals(arena, joined);
    return arena->failed ? segvol_does_not_fit("corrector's backward pass", arena, error) : SEGFM_OK;
}

void segvol_corrector_backward(const segvol_model *m, segvol_corrector *c, const segvol_tape *t,
                               segvol_corrector_tape *g, size_t step, const real *coordinates, const real *ddelta,
                               real *drows) {
    size_t hidden = m->config.gru_hidden, k = m->config.topk, rows = 2 * (step + 1), last = m->gru_count - 1;
    const segvol_gru *block = &m->gru[step < last ? step : last];
    nn_gru_forward(&c->run, &block->gru, rows, c->rows, NULL, g->states);
    memcpy(c->joined, g->states + (rows - 1) * hidden, hidden * sizeof(real));
    memcpy(c->joined + hidden, coordinates, 6 * k * sizeof(real));
    memset(g->djoined, 0, (hidden + 6 * k) * sizeof(real));
    const segvol_linear *head = &block->fc_prob;
    nn_linear_backward(&c->run, 1, head->weight.k, head->weight.n, c->joined, head->plain, ddelta, g->djoined,
                       segvol_gradient(t, head->plain), segvol_gradient(t, head->bias));
    memset(g->dstates, 0, rows * hidden * sizeof(real));
    memcpy(g->dstates + (rows - 1) * hidden, g->djoined, hidden * sizeof(real));
    const nn_gru_gradients gradients = {
        segvol_gradient(t, block->plain.input), segvol_gradient(t, block->plain.recurrent),
        segvol_gradient(t, block->plain.input_bias), segvol_gradient(t, block->plain.recurrent_bias)};
    nn_gru_backward(&c->run, rows, 8 * k, hidden, &block->plain, c->rows, g->states, g->dstates, drows, &gradients);
}
