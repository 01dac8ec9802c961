/* numpy's legacy generator, bit by bit: MT19937 (Matsumoto and Nishimura 1998) with the seeding by one number and the
   bounded integers of numpy.random.RandomState. Only to replay what official scripts drew with it. */
#include "vol.h"

enum { MT_N = VOL_MT_WORDS, MT_M = 397 };

void vol_mt_seed(vol_mt *mt, uint32_t seed) {
    mt->word[0] = seed;
    for (uint32_t i = 1; i < MT_N; i++) mt->word[i] = 1812433253U * (mt->word[i - 1] ^ (mt->word[i - 1] >> 30)) + i;
    mt->used = MT_N;
}

static void refill(vol_mt *mt) {
    for (int i = 0; i < MT_N; i++) {
        uint32_t y = (mt->word[i] & 0x80000000U) | (mt->word[(i + 1) % MT_N] & 0x7fffffffU);
        mt->word[i] = mt->word[(i + MT_M) % MT_N] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfU : 0);
    }
    mt->used = 0;
}

uint32_t vol_mt_next(vol_mt *mt) {
    if (mt->used == MT_N) refill(mt);
    uint32_t y = mt->word[mt->used++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680U;
    y ^= (y << 15) & 0xefc60000U;
    return y ^ (y >> 18);
}

/* Masked rejection: the bits that n − 1 needs, drawn until they are below n. Nothing is drawn for n = 1. */
uint64_t vol_mt_below(vol_mt *mt, uint64_t n) {
    uint64_t last = n - 1, mask = last, value = 0;
    for (unsigned shift = 1; shift < 64; shift *= 2) mask |= mask >> shift;
    if (last == 0) return 0;
    do {
        value = vol_mt_next(mt);
        if (last > UINT32_MAX) value = value << 32 | vol_mt_next(mt);
        value &= mask;
    } while (value > last);
    return value;
}
