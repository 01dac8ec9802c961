#include "segvol.h"

size_t segvol_sparse_count(const segvol_prompts *prompts) {
    if (prompts->box != NULL) return prompts->point_count + 2;
    return prompts->point_count == 0 ? 0 : prompts->point_count + 1; /* one padding point */
}

/* Coordinates of a voxel centre as the trained weights know them: z over the window's y size, y over its z size, x over
   its x size. The dense encoding below uses another order; both are the reference's. */
static void normalise(const segvol_model *m, real z, real y, real x, real out[3]) {
    out[0] = (z + REAL_C(0.5)) / (real)m->config.spatial[1];
    out[1] = (y + REAL_C(0.5)) / (real)m->config.spatial[0];
    out[2] = (x + REAL_C(0.5)) / (real)m->config.spatial[2];
}

/* sparse (dim) = features of the voxel + embedding */
static void encode_voxel(const segvol_model *m, const nn_run *run, real z, real y, real x, const real *embedding,
                         real *sparse) {
    real coordinates[3];
    normalise(m, z, y, x, coordinates);
    nn_fourier_forward(run, 1, coordinates, m->config.dim / 2, m->gaussian, sparse);
    nn_add(run, m->config.dim, sparse, embedding, sparse);
}

size_t segvol_encode_prompts(const segvol_model *m, segvol_workspace *ws, const segvol_prompts *prompts) {
    size_t dim = m->config.dim, count = 0;
    for (size_t i = 0; i < prompts->point_count; i++) {
        const segvol_point *p = &prompts->points[i];
        if (ws->tape != NULL) ws->tape->kinds[count] = (int8_t)(p->label < 0 ? -1 : p->label != 0);
        real *sparse = ws->sparse + count++ * dim;
        if (p->label < 0) memcpy(sparse, m->not_a_point, dim * sizeof(real));
        else encode_voxel(m, &ws->run, p->z, p->y, p->x, m->point_embeddings[p->label != 0], sparse);
    }
    if (prompts->box != NULL) {
        const real *b = prompts->box;
        if (ws->tape != NULL) ws->tape->kinds[count] = 2, ws->tape->kinds[count + 1] = 3;
        encode_voxel(m, &ws->run, b[0], b[1], b[2], m->point_embeddings[2], ws->sparse + count++ * dim);
        encode_voxel(m, &ws->run, b[3], b[4], b[5], m->point_embeddings[3], ws->sparse + count++ * dim);
    } else if (count > 0) {
        if (ws->tape != NULL) ws->tape->kinds[count] = -1;
        memcpy(ws->sparse + count++ * dim, m->not_a_point, dim * sizeof(real));
    }
    segvol_trace_rows(ws, "sparse", 0, count, dim, ws->sparse);
    return count;
}

void segvol_prompts_backward(const segvol_model *m, segvol_workspace *ws, size_t count, const real *dsparse) {
    for (size_t i = 0; i < count; i++) {
        int kind = ws->tape->kinds[i];
        real *to = segvol_gradient(ws->tape, kind < 0 ? m->not_a_point : m->point_embeddings[kind]);
        nn_add(&ws->run, m->config.dim, to, dsparse + i * m->config.dim, to);
    }
}

void segvol_dense_pe(const segvol_model *m, const nn_run *run, real *coordinates, real *out) {
    real *c = coordinates;
    for (size_t i = 0; i < m->grid[0]; i++)
        for (size_t j = 0; j < m->grid[1]; j++)
            for (size_t k = 0; k < m->grid[2]; k++, c += 3) { /* the order is (y, z, x) */
                c[0] = ((real)j + REAL_C(0.5)) / (real)m->grid[1];
                c[1] = ((real)i + REAL_C(0.5)) / (real)m->grid[0];
                c[2] = ((real)k + REAL_C(0.5)) / (real)m->grid[2];
            }
    nn_fourier_forward(run, m->tokens, coordinates, m->config.dim / 2, m->gaussian, out);
}
