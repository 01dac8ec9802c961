/* MT19937. Source of the algorithm: M. Matsumoto, T. Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998). */
#include "vol.h"

enum { WORDS = 624, MIDDLE = 397 };

void vol_mt19937_seed(vol_mt19937 *r, uint32_t seed) {
    r->state[0] = seed;
    for (uint32_t i = 1; i < WORDS; i++) r->state[i] = 1812433253U * (r->state[i - 1] ^ r->state[i - 1] >> 30) + i;
    r->next = WORDS;
}

static void twist(uint32_t *state) {
    for (int i = 0; i < WORDS; i++) {
        uint32_t mixed = (state[i] & 0x80000000U) | (state[(i + 1) % WORDS] & 0x7FFFFFFFU);
        state[i] = state[(i + MIDDLE) % WORDS] ^ mixed >> 1 ^ ((mixed & 1) != 0 ? 0x9908B0DFU : 0);
    }
}

uint32_t vol_mt19937_next(vol_mt19937 *r) {
    if (r->next == WORDS) {
        twist(r->state);
        r->next = 0;
    }
    uint32_t y = r->state[r->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9D2C5680U;
    y ^= y << 15 & 0xEFC60000U;
    return y ^ y >> 18;
}
