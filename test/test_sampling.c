#include "../vol/vol.h"
#include "random.h"
#include "test.h"

/* ---- the oracle: lists of all candidates, sorted --------------------------------------------------------------- */

typedef struct candidate {
    double key;
    size_t index; /* where it was added: raster order */
    int32_t at[3];
    real value;
} candidate;

static int by_key(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static real at_frame(const vol_view *v, int64_t z, int64_t y, int64_t x) {
    const int64_t *n = v->shape.n, *lo = v->frame.lo;
    return v->logits[((lo[0] + z) * n[1] + lo[1] + y) * n[2] + lo[2] + x];
}

static int64_t squared(const int64_t a[3], int64_t z, int64_t y, int64_t x) {
    return (a[0] - z) * (a[0] - z) + (a[1] - y) * (a[1] - y) + (a[2] - x) * (a[2] - x);
}

static bool in_cube(const int64_t a[3], int64_t z, int64_t y, int64_t x) {
    return llabs(a[0] - z) <= 20 && llabs(a[1] - y) <= 20 && llabs(a[2] - x) <= 20;
}

/* Appends voxel (z, y, x) to the error list if it belongs there. */
static size_t add_error(candidate *list, size_t n, const vol_view *v, vol_variant variant,
                        const vol_point_click *clicks, size_t count, const uint8_t *truth, int64_t z, int64_t y,
                        int64_t x) {
    vol_shape s = vol_box_shape(v->frame);
    int inside = nn_sigmoid_above_half(at_frame(v, z, y, x));
    double key = -1;
    for (size_t i = 0; i < count; i++) {
        int64_t d = squared(clicks[i].at, z, y, x);
        if (variant == VOL_SEED && d <= 400 && inside != clicks[i].label && (key < 0 || (double)d < key))
            key = (double)d;
        if (variant == VOL_UPSTREAM && truth == NULL && inside && in_cube(clicks[i].at, z, y, x)) key = 0;
    }
    if (variant == VOL_UPSTREAM && truth != NULL && inside != truth[(z * s.n[1] + y) * s.n[2] + x]) key = 0;
    if (key < 0) return n;
    list[n] = (candidate){key, n, {(int32_t)z, (int32_t)y, (int32_t)x}, (real)clicks[0].label};
    return n + 1;
}

static size_t add_uncertain(candidate *list, size_t n, const vol_view *v, vol_variant variant, int64_t z, int64_t y,
                            int64_t x) {
    real p = nn_sigmoid(at_frame(v, z, y, x)), score = (real)fabs((double)(p - REAL_C(0.5)));
    if (!(p > REAL_C(0.1) && p < REAL_C(0.9))) return n;
    list[n] = (candidate){(double)score, n, {(int32_t)z, (int32_t)y, (int32_t)x}, variant == VOL_SEED ? p : score};
    return n + 1;
}

static bool same_points(const vol_samples *s, size_t first, const candidate *list, size_t n, real padding) {
    bool same = true;
    for (size_t i = 0; i < s->k; i++) {
        const int32_t *at = s->at[first + i], none[3] = {-1, -1, -1};
        same = same && memcmp(at, i < n ? list[i].at : none, sizeof none) == 0 && s->valid[first + i] == (i < n) &&
               s->value[first + i] == (i < n ? list[i].value : padding);
    }
    return same;
}

typedef struct sampled {
    vol_samples s;
    void *memory;
} sampled;

static sampled samples_open(size_t k, vol_shape largest) {
    sampled m = {0};
    nn_arena arena = {0};
    vol_samples_plan(&m.s, k, largest, &arena);
    m.memory = aligned_alloc(NN_ALIGN, arena.used);
    arena = (nn_arena){.base = m.memory, .capacity = arena.used};
    vol_samples_plan(&m.s, k, largest, &arena);
    CHECK(!arena.failed);
    return m;
}

/* All of vol_sample against the lists, for 1, 2 and 5 threads. */
static void check_samples(const vol_view *v, vol_variant variant, const vol_point_click *clicks, size_t count,
                          const uint8_t *truth, size_t k, vol_shape largest) {
    vol_shape s = vol_box_shape(v->frame);
    candidate *uncertain = malloc((vol_count(s) + 1) * sizeof *uncertain),
              *errors = malloc((vol_count(s) + 1) * sizeof *errors);
    size_t n = 0, m = 0;
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++)
            for (int64_t x = 0; x < s.n[2]; x++) {
                n = add_uncertain(uncertain, n, v, variant, z, y, x);
                m = add_error(errors, m, v, variant, clicks, count, truth, z, y, x);
            }
    if (variant == VOL_SEED || n > k) qsort(uncertain, n, sizeof *uncertain, by_key);
    qsort(errors, m, sizeof *errors, by_key);
    for (int threads = 1; threads <= 5; threads += threads == 1 ? 1 : 3) {
        sampled got = samples_open(k, largest);
        vol_sample(v, variant, clicks, count, truth, NULL, threads, &got.s);
        if (!CHECK(same_points(&got.s, 0, uncertain, n, -1)) ||
            !CHECK(same_points(&got.s, k, errors, m, (real)clicks[0].label)))
            printf("    variant %d, k %zu, %zu uncertain, %zu errors, %d threads\n", (int)variant, k, n, m, threads);
        free(got.memory);
    }
    free(uncertain), free(errors);
}

/* Frames of all kinds, part of a volume, with few and many candidates, ties, and order against us. */
static void test_against_lists(void) {
    static const struct {
        vol_shape shape;
        vol_box frame;
        int order; /* 0: random, 1: falling scores, 2: all equal, 3: few levels, 4: nothing uncertain, 5: much */
    } cases[] = {
        {{{7, 19, 23}}, {{0, 0, 0}, {6, 18, 22}}, 0}, {{{9, 30, 31}}, {{1, 3, 2}, {7, 28, 30}}, 0},
        {{{7, 19, 23}}, {{0, 0, 0}, {6, 18, 22}}, 1}, {{{7, 19, 23}}, {{0, 0, 0}, {6, 18, 22}}, 2},
        {{{8, 19, 23}}, {{2, 1, 0}, {5, 18, 20}}, 3}, {{{7, 19, 23}}, {{0, 0, 0}, {6, 18, 22}}, 4},
        {{{1, 1, 1}}, {{0, 0, 0}, {0, 0, 0}}, 0},     {{{5, 1, 40}}, {{2, 0, 0}, {2, 0, 39}}, 0},
        {{{40, 1, 1}}, {{0, 0, 0}, {39, 0, 0}}, 3},   {{{20, 61, 67}}, {{0, 0, 0}, {19, 60, 66}}, 5},
    };
    static const size_t ks[] = {1, 2, 11, 200, 5000};
    const vol_shape largest = {{40, 61, 67}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = vol_count(cases[i].shape);
        real *logits = random_reals(i, n, -3, 3);
        for (size_t j = 0; j < n; j++) {
            if (cases[i].order == 1) logits[j] = (real)(2.3 * (1 - (double)j / (double)n));
            if (cases[i].order == 2) logits[j] = REAL_C(0.25);
            if (cases[i].order == 3) logits[j] = (real)(int)(2 * logits[j]) / 2;
            if (cases[i].order == 5) logits[j] *= REAL_C(0.1);
            if (cases[i].order == 4) logits[j] += logits[j] > 0 ? 3 : -3;
        }
        uint8_t *truth = malloc(n);
        for (size_t j = 0; j < n; j++) truth[j] = j % 3 == 0;
        vol_view v = {logits, cases[i].shape, cases[i].frame};
        vol_point_click clicks[3] = {{{1, 2, 3}, 1}, {{0, 18, 15}, 0}, {{-9, 40, 3}, 1}};
        for (size_t j = 0; j < sizeof ks / sizeof ks[0]; j++)
            for (size_t count = 1; count <= 3; count += 2) {
                check_samples(&v, VOL_SEED, clicks, count, NULL, ks[j], largest);
                check_samples(&v, VOL_UPSTREAM, clicks, count, NULL, ks[j], largest);
                check_samples(&v, VOL_UPSTREAM, clicks, count, truth, ks[j], vol_box_shape(v.frame));
            }
        free(logits), free(truth);
    }
}

/* A NaN is neither uncertain nor inside. */
static void test_nan(void) {
    real logits[24] = {(real)NAN, 0, (real)NAN, 1, -1, (real)NAN, (real)INFINITY, -(real)INFINITY};
    vol_view v = {logits, {{2, 3, 4}}, {{0, 0, 0}, {1, 2, 3}}};
    vol_point_click click = {{0, 0, 0}, 0};
    check_samples(&v, VOL_SEED, &click, 1, NULL, 3, v.shape);
    check_samples(&v, VOL_UPSTREAM, &click, 1, NULL, 3, v.shape);
}

/* torch.manual_seed(123): the first of torch.randperm(50) and of torch.randperm(7) after it (PyTorch 1.13.1). */
static void test_draw(void) {
    static const int first[6] = {32, 30, 0, 16, 24, 37}, second[6] = {0, 2, 5, 1, 3, 6};
    real logits[50];
    vol_view v = {logits, {{1, 1, 50}}, {{0, 0, 0}, {0, 0, 49}}};
    vol_point_click both[2] = {{{0, 0, 20}, 1}, {{0, 0, 30}, 1}}; /* cubes 0 … 40 and 10 … 50 */
    vol_mt random;
    sampled got = samples_open(6, v.shape);
    for (int i = 0; i < 50; i++) logits[i] = 5;
    vol_mt_seed(&random, 123);
    vol_sample(&v, VOL_UPSTREAM, both, 2, NULL, &random, 1, &got.s);
    for (int i = 0; i < 6; i++) CHECK(got.s.at[6 + i][2] == first[i] && got.s.valid[6 + i]);
    for (int i = 0; i < 50; i++) logits[i] = i < 7 ? 5 : -5;
    vol_sample(&v, VOL_UPSTREAM, both, 2, NULL, &random, 1, &got.s);
    for (int i = 0; i < 6; i++) CHECK(got.s.at[6 + i][2] == second[i]);
    free(got.memory);
}

/* A draw keeps only what changed places; here all numbers change places, as in torch.randperm. */
static void test_draw_plainly(void) {
    enum { N = 50, K = 3 };
    real logits[N];
    vol_view v = {logits, {{1, 1, N}}, {{0, 0, 0}, {0, 0, N - 1}}};
    vol_point_click both[2] = {{{0, 0, 20}, 1}, {{0, 0, 30}, 1}};
    sampled got = samples_open(K, v.shape);
    for (int i = 0; i < N; i++) logits[i] = 5;
    for (uint32_t seed = 0; seed < 40; seed++) {
        vol_mt random, again;
        int number[N];
        for (int i = 0; i < N; i++) number[i] = i;
        vol_mt_seed(&random, seed);
        again = random;
        for (int i = 0; i + 1 < N; i++) {
            int other = i + (int)(vol_mt_next(&again) % (uint32_t)(N - i)), kept = number[i];
            number[i] = number[other], number[other] = kept;
        }
        vol_sample(&v, VOL_UPSTREAM, both, 2, NULL, &random, 1, &got.s);
        for (int i = 0; i < K; i++) CHECK(got.s.at[K + i][2] == number[i]);
        CHECK(vol_mt_next(&random) == vol_mt_next(&again));
    }
    free(got.memory);
}

static void test_state(void) {
    real logits[24] = {0}, rows[2 * 8 * 2], coordinates[12];
    vol_view v = {logits, {{2, 3, 4}}, {{0, 0, 1}, {0, 2, 3}}}; /* extents 1, 3, 3 */
    vol_point_click click = {{0, 2, 1}, 1};
    sampled got = samples_open(2, v.shape);
    for (int i = 0; i < 24; i++) logits[i] = i == 5 + 1 ? REAL_C(0.25) : -9; /* (0,1,2): voxel (0,1,1) of the frame */
    logits[11] = 4;                                                          /* (0,2,3) */
    vol_sample(&v, VOL_SEED, &click, 1, NULL, NULL, 1, &got.s);
    vol_sample_state(&v, VOL_SEED, &click, &got.s, rows, coordinates);
    const real p = nn_sigmoid(REAL_C(0.25));
    const real seed[32] = {0, REAL_C(0.5), REAL_C(0.5), p, 1, 0, 1, REAL_C(0.5), -1, -1, -1, -1, 0, 0, 1, REAL_C(0.5),
                           0, 1,           REAL_C(0.5), 1, 1, 0, 1, REAL_C(0.5), 0,  1,  0,  1,  1, 0, 1, REAL_C(0.5)};
    CHECK(memcmp(rows, seed, sizeof seed) == 0);
    for (int i = 0; i < 12; i++) CHECK(coordinates[i] == seed[8 * (i / 3) + i % 3]);
    vol_sample(&v, VOL_UPSTREAM, &click, 1, NULL, NULL, 1, &got.s);
    vol_sample_state(&v, VOL_UPSTREAM, &click, &got.s, rows, coordinates);
    const real upstream[32] = {
        0, 1, 1, p - REAL_C(0.5), 1, 0, 2, 1, -1, -1, -1, -1, 0, 0, 2, 1, 0, 1, 1, 1, 1, 0, 2, 1, 0, 2, 2, 1, 1,
        0, 2, 1};
    CHECK(memcmp(rows, upstream, sizeof upstream) == 0);
    for (int i = 0; i < 12; i++) CHECK(coordinates[i] == upstream[8 * (i / 3) + i % 3]);
    free(got.memory);
}

/* K = 3: six points, of which the third and the last are padding. */
static void test_writes(void) {
    int32_t at[6][3] = {{0, 0, 0}, {2, 3, 1}, {-1, -1, -1}, {1, 1, 1}, {2, 3, 4}, {-1, -1, -1}};
    uint8_t valid[6] = {1, 1, 0, 1, 1, 0};
    real value[6] = {0};
    real delta[6] = {-3, -2, -1, 0, 1, 2}, offset[18] = {0}, written[6];
    int64_t voxel[6];
    vol_samples s = {.k = 3, .at = at, .value = value, .valid = valid};
    vol_view v = {NULL, {{5, 6, 7}}, {{1, 2, 2}, {3, 5, 6}}};                    /* extents 3, 4, 5 */
    offset[0] = REAL_C(0.5), offset[1] = REAL_C(1.5), offset[2] = REAL_C(-0.75); /* half to even: 0, 2, clamped 0 */
    offset[3] = REAL_C(1e30), offset[4] = (real)NAN, offset[5] = REAL_C(-1e30);  /* 2, 0, 0 */
    CHECK(vol_correction_writes(&v, VOL_SEED, &s, delta, offset, voxel, written) == 4);
    const int64_t want[4] = {(1 * 6 + 4) * 7 + 2, (3 * 6 + 2) * 7 + 2, (2 * 6 + 3) * 7 + 3, (3 * 6 + 5) * 7 + 6};
    CHECK(memcmp(voxel, want, sizeof want) == 0);
    CHECK(written[0] == -3 && written[1] == -2 && written[2] == 0 && written[3] == 1);
    memset(offset, 0, sizeof offset);
    CHECK(vol_correction_writes(&v, VOL_UPSTREAM, &s, delta, offset, voxel, written) == 6);
    const int64_t low = (1 * 6 + 2) * 7 + 2, high = (3 * 6 + 5) * 7 + 6;
    CHECK(voxel[0] == low && voxel[1] == high && voxel[2] == low && voxel[3] == high && voxel[4] == high);
    for (int i = 0; i < 6; i++) CHECK(written[i] == nn_sigmoid(delta[i]));
    offset[0] = offset[1] = offset[2] = REAL_C(0.4); /* of the way to the last voxel, 0.8, 1.2 and 1.6, cut off */
    CHECK(vol_correction_writes(&v, VOL_UPSTREAM, &s, delta, offset, voxel, written) == 6);
    CHECK(voxel[0] == (1 * 6 + 3) * 7 + 3);
}

int main(void) {
    test_against_lists();
    test_nan();
    test_draw();
    test_draw_plainly();
    test_state();
    test_writes();
    return test_summary();
}
