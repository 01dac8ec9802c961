/* oneDNN's sgemm: b is packed again in every call. */
#include <dnnl.h>
#include <omp.h>

#include "gemm.h"

static void prepare(const product *p) { omp_set_num_threads(p->threads); }

static void multiply(const product *p) {
    dnnl_dim_t m = (dnnl_dim_t)p->m, n = (dnnl_dim_t)p->n, k = (dnnl_dim_t)p->k;
    if (dnnl_sgemm('N', 'N', m, n, k, 1, p->a, k, p->b, n, 0, p->y, n) != dnnl_success) exit(EXIT_FAILURE);
}

static void release(void) {}
