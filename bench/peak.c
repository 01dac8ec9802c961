/* The machine's peak: fused multiply-adds on registers, nothing else. A side of the benchmark (bench/side.py): reads
   `peak THREADS` lines, answers each with the GFLOP/s of all threads together. Built with -march=native
   -ffp-contract=fast; a vector is as long as the machine's registers. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

/* More sums than any machine's latency times throughput; fewer than AVX2's registers. */
enum { SUMS = 12, STEPS = 20000000 };

typedef float vector __attribute__((vector_size(LANES * sizeof(float))));

/* x = x · 0.999 + 0.001, SUMS · STEPS times; → something that depends on all of it */
static float work(float seed) {
    vector x[SUMS], factor, term;
    for (int l = 0; l < LANES; l++) factor[l] = 0.999F + seed, term[l] = 0.001F;
    for (int i = 0; i < SUMS; i++) x[i] = factor + (float)i;
    for (int step = 0; step < STEPS; step++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) x[i] = x[i] * factor + term;
    }
    for (int i = 1; i < SUMS; i++) x[0] += x[i];
    return x[0][0];
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(void) {
    int threads;
    char line[256];
    float sum = 0;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "peak %d", &threads) != 1) return EXIT_FAILURE;
        double start = seconds();
#pragma omp parallel for num_threads(threads) reduction(+ : sum)
        for (int i = 0; i < threads; i++) sum += work(1e-9F * (float)i);
        double time = seconds() - start;
        printf("%.3f\n", 2e-9 * LANES * SUMS * (double)STEPS * threads / time);
        fflush(stdout);
    }
    return sum == 0; /* never: the work must not be left out */
}
