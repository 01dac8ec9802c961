/* The layers that both transformers are made of. */
#include "segvol.h"

void segvol_linear_forward(const segvol_workspace *ws, const segvol_linear *l, size_t rows, const real *x, real *y) {
    nn_matmul(&ws->run, rows, x, l->weight.k, 1, &l->weight, l->bias, y, l->weight.n);
}

void segvol_linear_backward(const segvol_workspace *ws, const segvol_linear *l, size_t rows, const real *x,
                            const real *dy, real *dx) {
    const segvol_tape *t = ws->tape;
    nn_linear_backward(&ws->run, rows, l->weight.k, l->weight.n, x, l->plain, dy, dx, segvol_gradient(t, l->plain),
                       l->bias != NULL ? segvol_gradient(t, l->bias) : NULL);
}

void segvol_norm_forward(const segvol_workspace *ws, const segvol_norm *n, size_t rows, const real *x, real *y) {
    nn_layernorm_forward(&ws->run, rows, n->width, x, n->weight, n->bias, segvol_epsilon, y);
}

void segvol_norm_backward(const segvol_workspace *ws, const segvol_norm *n, size_t rows, const real *x, const real *dy,
                          real *dx) {
    const segvol_tape *t = ws->tape;
    nn_layernorm_backward(&ws->run, rows, n->width, x, n->weight, segvol_epsilon, dy, dx, segvol_gradient(t, n->weight),
                          segvol_gradient(t, n->bias));
}
