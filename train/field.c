/* Phantoms: draws, smooth fields, noise, blur. */
#include <math.h>
#include <string.h>

#include "phantom.h"

double train_between(phantom *p, double low, double high) { return train_random_between(&p->random, low, high); }

double train_between_log(phantom *p, double low, double high) {
    double range = (double)nn_log((real)(high / low));
    return low * (double)nn_exp((real)(range * train_random_uniform(&p->random)));
}

bool train_chance(phantom *p, double probability) { return train_random_uniform(&p->random) < probability; }

int64_t train_whole(phantom *p, int64_t low, int64_t high) {
    return low + (int64_t)train_random_below(&p->random, (uint64_t)(high - low + 1));
}

/* ---- smooth noise --------------------------------------------------------------------------------------------- */

/* The middle one of three axes (outer, from, inner) → (outer, to, inner) by cubic B-splines over a ring of `from` knots. */
static void stretch(const float *in, int64_t outer, int64_t from, int64_t inner, int64_t to, float *out, int threads) {
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < to; i++) {
            float at = ((float)i + 0.5f) * (float)from / (float)to;
            int64_t knot = (int64_t)at;
            float t = at - (float)knot, u = 1 - t;
            float w[4] = {u * u * u / 6, (3 * t * t * t - 6 * t * t + 4) / 6, (3 * u * u * u - 6 * u * u + 4) / 6,
                          t * t * t / 6};
            const float *row[4];
            for (int k = 0; k < 4; k++) row[k] = in + (o * from + (knot + k) % from) * inner;
            float *to_row = out + (o * to + i) * inner;
            for (int64_t j = 0; j < inner; j++)
                to_row[j] = (w[0] * row[0][j] + w[1] * row[1][j]) + (w[2] * row[2][j] + w[3] * row[3][j]);
        }
}

void train_field(phantom *p, const int64_t cells[3], float *out) {
    const double gain = 3.015; /* a B-spline of white knots has the variance 151/315 along each axis */
    const int64_t *n = p->shape.n;
    int64_t c[3];
    for (int k = 0; k < 3; k++) c[k] = cells[k] < 1 ? 1 : cells[k] > n[k] ? n[k] : cells[k];
    for (int64_t i = 0; i < c[0] * c[1] * c[2]; i++) out[i] = (float)(gain * train_random_normal(&p->random));
    stretch(out, c[0] * c[1], c[2], 1, n[2], p->work, p->threads);
    stretch(p->work, c[0], c[1], n[2], n[1], p->distance, p->threads);
    stretch(p->distance, 1, c[0], n[1] * n[2], n[0], out, p->threads);
}

/* ---- noise ---------------------------------------------------------------------------------------------------- */

/* Both of Box and Muller's numbers of a draw's two halves: 32 bits are enough for a voxel's noise. */
static void normal_pair(train_random *r, float out[2]) {
    uint64_t bits = train_random_bits(r);
    double sine, cosine;
    float u = ((float)(bits >> 40) + 0.5f) * 0x1p-24f;
    nn_sin_cos_turns((double)(bits & 0xFFFFFFU) * 0x1p-24, &sine, &cosine);
    float radius = (float)sqrt(-2.0 * (double)nn_log((real)u));
    out[0] = radius * (float)cosine;
    out[1] = radius * (float)sine;
}

enum { NOISE_BLOCK = 1024 };

/* Each block has its own part of a stream, so that threads can share them out. */
void train_noise(phantom *p, float *out) {
    const train_random stream = {.key = train_random_bits(&p->random)};
    int64_t blocks = (int64_t)((p->count + NOISE_BLOCK - 1) / NOISE_BLOCK);
#pragma omp parallel for num_threads(p->threads)
    for (int64_t b = 0; b < blocks; b++) {
        train_random r = {.key = stream.key, .counter = (uint64_t)b * NOISE_BLOCK};
        size_t begin = (size_t)b * NOISE_BLOCK, end = begin + NOISE_BLOCK < p->count ? begin + NOISE_BLOCK : p->count;
        for (size_t i = begin; i < end; i += 2) {
            float pair[2];
            normal_pair(&r, pair);
            out[i] = pair[0];
            if (i + 1 < end) out[i + 1] = pair[1];
        }
    }
}

/* ---- blur ----------------------------------------------------------------------------------------------------- */

enum { BLUR_REACH = 12 };

/* weight (reach + 1): of the middle and of the voxels to either side; their sum is 1. Returns the reach. */
static int blur_weights(double sigma, float weight[BLUR_REACH + 1]) {
    int reach = (int)(2.6 * sigma + 0.5);
    double sum = 0, w[BLUR_REACH + 1];
    if (reach > BLUR_REACH) reach = BLUR_REACH;
    for (int k = 0; k <= reach; k++) {
        w[k] = k == 0 ? 1 : (double)nn_exp((real)(-0.5 * k * k / (sigma * sigma)));
        sum += k == 0 ? w[k] : 2 * w[k];
    }
    for (int k = 0; k <= reach; k++) weight[k] = (float)(w[k] / sum);
    return reach;
}

double train_blur_gain(const double sigma[3]) {
    double gain = 1;
    for (int axis = 0; axis < 3; axis++) {
        float w[BLUR_REACH + 1];
        int reach = blur_weights(sigma[axis], w);
        double sum = 0;
        for (int k = -reach; k <= reach; k++) sum += (double)w[k < 0 ? -k : k] * (double)w[k < 0 ? -k : k];
        gain *= sqrt(sum);
    }
    return gain;
}

static int64_t clamp(int64_t i, int64_t n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

/* The middle one of three axes (outer, n, inner): whole rows of the inner axis are added. */
static void blur_rows(const float *in, int64_t outer, int64_t n, int64_t inner, double sigma, float *out, int threads) {
    float w[BLUR_REACH + 1];
    int reach = blur_weights(sigma, w);
    (void)threads;
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < n; i++) {
            const float *plane = in + o * n * inner;
            float *to = out + (o * n + i) * inner;
            for (int64_t j = 0; j < inner; j++) to[j] = w[0] * plane[i * inner + j];
            for (int k = 1; k <= reach; k++) {
                const float *before = plane + clamp(i - k, n) * inner, *after = plane + clamp(i + k, n) * inner;
                for (int64_t j = 0; j < inner; j++) to[j] += w[k] * (before[j] + after[j]);
            }
        }
}

static void blur_along_x(float *volume, int64_t rows, int64_t n, double sigma, int threads) {
    float w[BLUR_REACH + 1];
    int reach = blur_weights(sigma, w);
    (void)threads;
#pragma omp parallel for num_threads(threads)
    for (int64_t r = 0; r < rows; r++) {
        float padded[PHANTOM_LONGEST + 2 * BLUR_REACH], *row = volume + r * n;
        memcpy(padded + reach, row, (size_t)n * sizeof *row);
        for (int64_t i = 0; i < reach; i++) padded[i] = row[0], padded[n + reach + i] = row[n - 1];
        for (int64_t i = 0; i < n; i++) row[i] = w[0] * padded[i + reach];
        for (int k = 1; k <= reach; k++)
            for (int64_t i = 0; i < n; i++) row[i] += w[k] * (padded[i + reach - k] + padded[i + reach + k]);
    }
}

void train_blur(const phantom *p, const double sigma[3], float *volume, float *scratch) {
    const int64_t *n = p->shape.n;
    blur_along_x(volume, n[0] * n[1], n[2], sigma[2], p->threads);
    blur_rows(volume, n[0], n[1], n[2], sigma[1], scratch, p->threads);
    blur_rows(scratch, 1, n[0], n[1] * n[2], sigma[0], volume, p->threads);
}
