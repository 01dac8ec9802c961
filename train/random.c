/* A counter-based generator: every draw is a hash of the stream's key and of how many were drawn before. So a stream can
   be taken up anywhere, and streams need not know of each other. */
#include <math.h>

#include "train.h"

/* A bijection of 64 bits in which every output bit depends on every input bit (constants: David Stafford's variant 13
   of MurmurHash3's finaliser, as in SplitMix64). */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
}

static const uint64_t golden = 0x9E3779B97F4A7C15U; /* 2^64 / the golden ratio */

train_random train_random_at(uint64_t seed, uint64_t step, uint64_t sample) {
    uint64_t key = mix(seed + golden);
    key = mix(key + mix(step + 2 * golden));
    key = mix(key + mix(sample + 3 * golden));
    return (train_random){.key = key, .counter = 0};
}

/* The counter is mixed before it meets the key: with SplitMix64's plain sum, the streams of two keys would be one
   sequence taken up in two places. */
uint64_t train_random_bits(train_random *r) { return mix(mix(r->counter++ * golden) ^ r->key); }

double train_random_uniform(train_random *r) { return (double)(train_random_bits(r) >> 11) * 0x1p-53; }

double train_random_between(train_random *r, double low, double high) {
    double x = low + (high - low) * train_random_uniform(r);
    return x < high ? x : low; /* the sum can round up to the bound */
}

uint64_t train_random_below(train_random *r, uint64_t n) {
    uint64_t excess =
        (UINT64_MAX % n + 1) % n; /* 2^64 mod n: so many of the highest draws would favour the lowest results */
    uint64_t x = train_random_bits(r);
    while (x > UINT64_MAX - excess) x = train_random_bits(r);
    return x % n;
}

/* Box and Muller's way; of its two numbers one is used, so that a draw leaves nothing behind. */
double train_random_normal(train_random *r) {
    double u = 1.0 - train_random_uniform(r); /* (0, 1] */
    double sine, cosine;
    nn_sin_cos_turns(train_random_uniform(r), &sine, &cosine);
    return sqrt(-2.0 * (double)nn_log((real)u)) * cosine;
}

size_t train_random_choice(train_random *r, const double *weights, size_t count) {
    double sum = 0;
    size_t last = 0;
    for (size_t i = 0; i < count; i++) sum += weights[i];
    double left = sum * train_random_uniform(r);
    for (size_t i = 0; i < count; i++) {
        if (!(weights[i] > 0)) continue;
        last = i;
        if (left < weights[i]) break;
        left -= weights[i];
    }
    return last;
}
