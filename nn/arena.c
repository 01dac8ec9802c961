#include "nn.h"

#ifdef _OPENMP
#include <omp.h>
#endif

/* Under the address sanitizer every block has forbidden bytes behind it; else a block written past its end would only
   damage the next one. */
#if defined(__SANITIZE_ADDRESS__)
#define NN_GUARDED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NN_GUARDED
#endif
#endif

#ifdef NN_GUARDED
#include <sanitizer/asan_interface.h>
enum { GUARD = NN_ALIGN };
static void guard(unsigned char *block, size_t bytes, size_t whole) {
    ASAN_UNPOISON_MEMORY_REGION(block, whole);
    ASAN_POISON_MEMORY_REGION(block + bytes, whole - bytes);
}
#else
enum { GUARD = 0 };
static void guard(unsigned char *block, size_t bytes, size_t whole) { (void)block, (void)bytes, (void)whole; }
#endif

void *nn_arena_take(nn_arena *a, size_t count, size_t size) {
    size_t bytes, end, start = a->used;
    if (a->failed || !base_mul(count, size, &bytes) || !base_add(start, bytes, &end) ||
        end > SIZE_MAX - NN_ALIGN - GUARD) {
        a->failed = true;
        return NULL;
    }
    end = (end + GUARD + NN_ALIGN - 1) / NN_ALIGN * NN_ALIGN;
    if (a->base != NULL && end > a->capacity) {
        a->failed = true;
        return NULL;
    }
    a->used = end;
    if (a->base == NULL) return NULL;
    guard(a->base + start, bytes, end - start);
    return a->base + start;
}

size_t nn_times(size_t a, size_t b) {
    size_t product;
    return base_mul(a, b, &product) ? product : SIZE_MAX;
}

size_t nn_plus(size_t a, size_t b) {
    size_t sum;
    return base_add(a, b, &sum) ? sum : SIZE_MAX;
}

void nn_arena_leave(void *memory, size_t bytes) { guard(memory, bytes, bytes); }

real *nn_arena_reals(nn_arena *a, size_t count) { return nn_arena_take(a, count, sizeof(real)); }

size_t nn_thread(void) {
#ifdef _OPENMP
    return (size_t)omp_get_thread_num();
#else
    return 0;
#endif
}

int nn_threads(int wanted) {
#ifdef _OPENMP
    int threads = wanted > 0 ? wanted : omp_get_max_threads();
    return threads < NN_MAX_THREADS ? threads : NN_MAX_THREADS;
#else
    (void)wanted;
    return 1;
#endif
}
