/* numpy's legacy generator: numbers that numpy 1.24 prints. */
#include "test.h"

#include "../vol/vol.h"

int main(void) {
    static vol_mt mt;
    vol_mt_seed(&mt, 5489); /* the first of the generator's own test vector */
    CHECK(vol_mt_next(&mt) == 3499211612U && vol_mt_next(&mt) == 581869302U);

    static const struct {
        int index;
        uint32_t value;
    } words[] = {{0, 1608637542}, {1, 3421126067}, {623, 1077437785}, {624, 108880612}, {1299, 2059789457}};
    vol_mt_seed(&mt, 42);
    for (int i = 0, k = 0; i < 1300; i++) {
        uint32_t value = vol_mt_next(&mt);
        if (i == words[k].index) CHECK(value == words[k++].value);
    }

    /* r = numpy.random.RandomState(42); r.randint(0, n) for these n, one after the other */
    static const uint64_t n[] = {
        1, 2, 3, 7, 1000, 2147483649, 4294967296, 4294967297, 1000000000000, 4611686018427387909};
    static const uint64_t drawn[] = {
        0, 0, 0, 6, 106, 670094950, 1914837113, 429389014, 319800038858, 1865242737500154727};
    vol_mt_seed(&mt, 42);
    for (size_t i = 0; i < sizeof n / sizeof n[0]; i++) CHECK(vol_mt_below(&mt, n[i]) == drawn[i]);
    return test_summary();
}
