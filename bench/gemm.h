/* A side of the benchmark that multiplies matrices (what it is asked: bench/side.py). It reads `gemm M,N,K,THREADS,REPEATS`
   lines and answers each with the seconds of one product and the sum of its result. The operands are those of
   tools/bench.c, and all sums are exact, so they are equal on all sides. */
#ifndef BENCH_GEMM_H
#define BENCH_GEMM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* y (m,n) = a (m,k) · b (k,n), row-major */
typedef struct product {
    size_t m, n, k;
    int threads;
    float *a, *b, *y;
} product;

/* What a library brings. prepare and release are not timed. */
static void prepare(const product *p);
static void multiply(const product *p);
static void release(void);

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *operand(size_t count) {
    float *x = aligned_alloc(64, (count * sizeof *x + 63) / 64 * 64);
    if (x == NULL) exit(EXIT_FAILURE);
    for (size_t i = 0; i < count; i++) x[i] = (float)((int)((uint32_t)i * 2654435761U >> 28) - 8) / 8;
    return x;
}

static void answer(product p, int repeats) {
    double sum = 0;
    p.a = operand(p.m * p.k), p.b = operand(p.k * p.n), p.y = operand(p.m * p.n);
    prepare(&p);
    multiply(&p);
    double start = seconds();
    for (int i = 0; i < repeats; i++) multiply(&p);
    double time = (seconds() - start) / repeats;
    for (size_t i = 0; i < p.m * p.n; i++) sum += (double)p.y[i];
    printf("%.9f %.17g\n", time, sum);
    release();
    free(p.a), free(p.b), free(p.y);
}

int main(void) {
    product p = {0};
    int repeats;
    char line[256];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "gemm %zu,%zu,%zu,%d,%d", &p.m, &p.n, &p.k, &p.threads, &repeats) != 5) return EXIT_FAILURE;
        answer(p, repeats);
        fflush(stdout);
    }
    return EXIT_SUCCESS;
}

#endif
