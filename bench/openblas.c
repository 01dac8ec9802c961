/* OpenBLAS: b is packed again in every call. */
#include <cblas.h>

#include "gemm.h"

static void prepare(const product *p) { openblas_set_num_threads(p->threads); }

static void multiply(const product *p) {
    blasint m = (blasint)p->m, n = (blasint)p->n, k = (blasint)p->k;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, p->a, k, p->b, n, 0, p->y, n);
}

static void release(void) {}
