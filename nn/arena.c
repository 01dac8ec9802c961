#include "nn.h"

#ifdef _OPENMP
#include <omp.h>
#endif

void *nn_arena_take(nn_arena *a, size_t count, size_t size) {
    size_t bytes, end, start = a->used;
    if (a->failed || !base_mul(count, size, &bytes) || !base_add(start, bytes, &end) || end > SIZE_MAX - NN_ALIGN) {
        a->failed = true;
        return NULL;
    }
    end = (end + NN_ALIGN - 1) / NN_ALIGN * NN_ALIGN;
    if (a->base != NULL && end > a->capacity) {
        a->failed = true;
        return NULL;
    }
    a->used = end;
    return a->base == NULL ? NULL : a->base + start;
}

real *nn_arena_reals(nn_arena *a, size_t count) { return nn_arena_take(a, count, sizeof(real)); }

int nn_threads(int wanted) {
#ifdef _OPENMP
    return wanted > 0 ? wanted : omp_get_max_threads();
#else
    (void)wanted;
    return 1;
#endif
}
