#include "../nn/nn.h"
#include "random.h"
#include "test.h"

/* Weight of input j for output i along one axis, from the definition: the tent around in·(i+½)/out − ½, clamped. */
static double tent(size_t i, size_t j, size_t in, size_t out) {
    double source = (double)in / (double)out * ((double)i + 0.5) - 0.5;
    source = source < 0 ? 0 : source > (double)in - 1 ? (double)in - 1 : source;
    double distance = fabs(source - (double)j);
    return distance < 1 ? 1 - distance : 0;
}

static void test_against_tents(const size_t in[3], const size_t out[3], int threads) {
    size_t n = in[0] * in[1] * in[2], m = out[0] * out[1] * out[2];
    real *x = random_reals(n, n, -1, 1), *y = malloc(m * sizeof *y);
    double *want = calloc(m, sizeof *want);
    for (size_t o = 0; o < m; o++)
        for (size_t i = 0; i < n; i++)
            want[o] += (double)x[i] * tent(o / (out[1] * out[2]), i / (in[1] * in[2]), in[0], out[0]) *
                       tent(o / out[2] % out[1], i / in[2] % in[1], in[1], out[1]) *
                       tent(o % out[2], i % in[2], in[2], out[2]);
    real *scratch = aligned_reals(nn_trilinear_scratch(in, out, threads));
    nn_trilinear_forward(&(nn_run){threads, scratch, nn_kernels_best()}, in, x, out, y);
    CHECK_CLOSE("trilinear", y, want, m, sizeof(real) == 8 ? 1e-14 : 2e-6, 0); /* measured 2e-15, 5e-7 */
    free(x), free(y), free(want), free(scratch);
}

/* The scratch that is asked for is enough, whichever axis is the long one. */
static void test_room_back(void) {
    const size_t in[3] = {2, 2, 2}, outs[3][3] = {{300, 2, 2}, {2, 300, 2}, {2, 2, 300}}, guard = 4096;
    for (size_t i = 0; i < 3; i++) {
        size_t room = nn_trilinear_backward_scratch(in, outs[i], 1), wrong = 0;
        real *scratch = aligned_reals(room + guard), *dy = random_reals(i, 1200, -1, 1), dx[8] = {0};
        for (size_t j = 0; j < guard; j++) scratch[room + j] = 7;
        nn_trilinear_backward(&(nn_run){1, scratch, nn_kernels_best()}, in, outs[i], dy, dx);
        for (size_t j = 0; j < guard; j++) wrong += scratch[room + j] != 7;
        CHECK(wrong == 0);
        free(scratch), free(dy);
    }
}

/* Of no gradient nothing is added, whatever lies behind the tables in the scratch: NaNs here. */
static void test_nothing_back(void) {
    const size_t in[3] = {2, 3, 4}, out[3] = {3, 4, 9};
    size_t room = nn_trilinear_backward_scratch(in, out, 1) + 64, wrong = 0;
    real *scratch = aligned_reals(room), dy[108] = {0}, dx[24];
    memset(scratch, 0xFF, room * sizeof *scratch);
    for (int i = 0; i < 24; i++) dx[i] = 5;
    nn_trilinear_backward(&(nn_run){1, scratch, nn_kernels_best()}, in, out, dy, dx);
    for (int i = 0; i < 24; i++) wrong += dx[i] != 5;
    CHECK(wrong == 0);
    free(scratch);
}

int main(void) {
    test_against_tents((size_t[]){2, 3, 5}, (size_t[]){2, 12, 17}, 1);
    test_against_tents((size_t[]){4, 5, 3}, (size_t[]){7, 10, 12}, 3);
    test_against_tents((size_t[]){1, 1, 4}, (size_t[]){3, 2, 4}, 2);
    test_against_tents((size_t[]){6, 7, 9}, (size_t[]){3, 4, 5}, 2); /* downwards */
    size_t same[3] = {3, 4, 5};                                      /* the same size changes no bit */
    real *x = random_reals(1, 60, -1, 1), y[60], *scratch = aligned_reals(nn_trilinear_scratch(same, same, 1));
    nn_trilinear_forward(&(nn_run){1, scratch, nn_kernels_best()}, same, x, same, y);
    CHECK(memcmp(x, y, sizeof y) == 0);
    free(x), free(scratch);
    test_room_back();
    test_nothing_back();
    return test_summary();
}
