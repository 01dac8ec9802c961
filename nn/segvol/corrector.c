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
