/* The generator behind training, and the phantoms that are drawn with it. */
#include "test.h"

#include "../train/train.h"

/* |share − expected| within five deviations of a binomial share of n. */
static bool near_share(double count, double n, double expected) {
    return fabs(count / n - expected) <= 5 * sqrt(expected * (1 - expected) / n);
}

/* ---- the generator -------------------------------------------------------------------------------------------- */

/* Computed by a few lines of Python from what random.c says of itself. */
static void test_known_draws(void) {
    static const struct {
        uint64_t seed, step, sample, first, second, thousandth;
    } known[] = {{0, 0, 0, 0x7c8418c3dbb952aaU, 0xb5172c1098df12fdU, 0x267adfa47f37ecc0U},
                 {1, 2, 3, 0xace5258e2c9409e5U, 0x8b4bdff8bc98f768U, 0x11b8b81fb79a5d17U},
                 {UINT64_MAX, 0, 7, 0x8ca67ff614d92f75U, 0xd2c3c3c1a397b494U, 0xb8a3c7ef6cee20fU}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        train_random r = train_random_at(known[i].seed, known[i].step, known[i].sample);
        CHECK(train_random_bits(&r) == known[i].first);
        CHECK(train_random_bits(&r) == known[i].second);
        r.counter = 1000;
        CHECK(train_random_bits(&r) == known[i].thousandth);
        CHECK(r.counter == 1001);
    }
}

/* Chi-squared of 256 bins, for the highest and the lowest byte: between 255 ± 5·√510. */
static void test_uniformity(void) {
    enum { N = 1 << 18 };
    static unsigned high[256], low[256], ones[64];
    train_random r = train_random_at(11, 0, 0);
    for (int i = 0; i < N; i++) {
        uint64_t x = train_random_bits(&r);
        high[x >> 56]++, low[x & 255]++;
        for (int b = 0; b < 64; b++) ones[b] += (unsigned)(x >> b & 1);
    }
    double a = 0, b = 0;
    for (int i = 0; i < 256; i++) {
        double expected = N / 256.0, d = high[i] - expected, e = low[i] - expected;
        a += d * d / expected, b += e * e / expected;
    }
    CHECK(fabs(a - 255) <= 5 * sqrt(510) && fabs(b - 255) <= 5 * sqrt(510));
    bool balanced = true;
    for (int i = 0; i < 64; i++) balanced = balanced && near_share(ones[i], N, 0.5);
    CHECK(balanced);
    double least = 1, greatest = 0, sum = 0;
    for (int i = 0; i < N; i++) {
        double u = train_random_uniform(&r);
        least = u < least ? u : least, greatest = u > greatest ? u : greatest, sum += u;
    }
    CHECK(least >= 0 && least <= 1e-4 && greatest < 1 && greatest >= 1 - 1e-4);
    CHECK(fabs(sum / N - 0.5) <= 5 * sqrt(1.0 / 12 / N));
}

static int bits_set(uint64_t x) {
    int n = 0;
    for (; x != 0; x &= x - 1) n++;
    return n;
}

/* Streams that are neighbours in seed, step or sample, or have them exchanged, differ in half of their bits, also when one
   is taken up a draw later; and one stream's draws do so among themselves. */
static void test_streams(void) {
    enum { N = 1 << 14 };
    static const uint64_t at[][3] = {{1, 2, 3}, {2, 2, 3}, {1, 3, 3}, {1, 2, 4}, {2, 1, 3}, {1, 3, 2}, {3, 2, 1}};
    for (int lag = 0; lag < 2; lag++)
        for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
            train_random a = train_random_at(1, 2, 3), b = train_random_at(at[i][0], at[i][1], at[i][2]);
            int64_t differ = 0;
            if (i == 0 && lag == 0) continue;
            b.counter = (uint64_t)lag;
            for (int n = 0; n < N; n++) differ += bits_set(train_random_bits(&a) ^ train_random_bits(&b));
            CHECK(near_share((double)differ, 64.0 * N, 0.5));
        }
}

static void test_below(void) {
    enum { N = 60000 };
    train_random r = train_random_at(5, 0, 0);
    int share[3] = {0}, dice[6] = {0};
    for (int i = 0; i < N; i++) {
        share[train_random_below(&r, 3ULL << 62) >>
              62]++; /* a plain remainder would draw the first third twice as often */
        dice[train_random_below(&r, 6)]++;
    }
    for (int i = 0; i < 3; i++) CHECK(near_share(share[i], N, 1.0 / 3));
    for (int i = 0; i < 6; i++) CHECK(near_share(dice[i], N, 1.0 / 6));
    CHECK(train_random_below(&r, 1) == 0);
    uint64_t most = train_random_below(&r, UINT64_MAX);
    CHECK(most < UINT64_MAX);
}

static void test_distributions(void) {
    enum { N = 200000 };
    train_random r = train_random_at(6, 0, 0);
    double sum = 0, squares = 0, cubes = 0, fourth = 0;
    int beyond = 0;
    for (int i = 0; i < N; i++) {
        double x = train_random_normal(&r);
        sum += x, squares += x * x, cubes += x * x * x, fourth += x * x * x * x;
        beyond += fabs(x) > 1.959964;
    }
    CHECK(fabs(sum / N) <= 5 / sqrt(N));
    CHECK(fabs(squares / N - 1) <= 5 * sqrt(2.0 / N));
    CHECK(fabs(cubes / N) <= 5 * sqrt(15.0 / N));
    CHECK(fabs(fourth / N - 3) <= 5 * sqrt(96.0 / N));
    CHECK(near_share(beyond, N, 0.05));

    const double weights[] = {0, 1, 0, 3, 0};
    int drawn[5] = {0};
    bool inside = true;
    for (int i = 0; i < N; i++) {
        drawn[train_random_choice(&r, weights, 5)]++;
        double x = train_random_between(&r, -3, 2);
        inside = inside && x >= -3 && x < 2;
    }
    CHECK(inside);
    CHECK(drawn[0] == 0 && drawn[2] == 0 && drawn[4] == 0);
    CHECK(near_share(drawn[1], N, 0.25));
    CHECK(train_random_choice(&r, weights, 2) == 1);
    double tiny = train_random_between(&r, 1, 1 + 0x1p-52);
    CHECK(tiny == 1);
}

/* ---- phantoms -------------------------------------------------------------------------------------------------- */

static const train_phantom_options small = {{12, 24, 24}, {20, 40, 40}};

static uint64_t hash_scan(const train_scan *s, uint64_t seed) {
    size_t n = vol_count(s->shape);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        unsigned char bytes[6]; /* little-endian on any machine */
        memcpy(&bits, &s->voxels[i], 4);
        base_put_le32(bytes, bits);
        base_put_le16(bytes + 4, s->labels[i]);
        seed = base_xxh64(bytes, sizeof bytes, seed);
    }
    return seed;
}

static bool is_sound(const train_scan *s) {
    size_t n = vol_count(s->shape), voxels[9] = {0};
    bool finite = true, varies = false;
    for (size_t i = 0; i < n; i++) {
        finite = finite && isfinite(s->voxels[i]);
        varies = varies || s->voxels[i] != s->voxels[0];
        if (s->labels[i] > s->classes) return false;
        voxels[s->labels[i]]++;
    }
    if (s->classes < 1 || s->classes > 8) return false;
    for (unsigned l = 1; l <= s->classes; l++)
        if (voxels[l] < 100) return false;
    for (int k = 0; k < 3; k++)
        if (!(s->spacing[k] > 0)) return false;
    return finite && varies;
}

static void test_phantoms(void) {
    segfm_error error;
    uint64_t hash = 0, first = 0;
    bool sound = true, fitting = true, threads_agree = true, differ = true;
    for (uint64_t i = 0; i < 32; i++) {
        train_scan s;
        CHECK(train_phantom(3, i, &small, 1 + (int)(i % 3), &s, &error) == SEGFM_OK);
        sound = sound && is_sound(&s);
        for (int k = 0; k < 3; k++)
            if (s.shape.n[k] < small.smallest[k] || s.shape.n[k] > small.largest[k] ||
                s.shape.n[k] == s.shape.n[(k + 1) % 3])
                fitting = false;
        uint64_t own = hash_scan(&s, 0);
        differ = differ && own != first;
        if (i == 0) first = own;
        hash = base_xxh64(&own, 0, hash ^ own);
        for (int threads = 1; threads <= 3 && i < 6; threads++) {
            train_scan again;
            CHECK(train_phantom(3, i, &small, threads, &again, &error) == SEGFM_OK);
            threads_agree = threads_agree && hash_scan(&again, 0) == own;
            train_scan_free(&again);
        }
        train_scan_free(&s);
        CHECK(s.voxels == NULL && s.labels == NULL);
    }
    CHECK(sound);
    CHECK(fitting);
    CHECK(threads_agree);
    CHECK(differ);
    if (sizeof(real) == sizeof(float) && !CHECK(hash == 0x5a443d3514426697U))
        printf("    %016llx\n", (unsigned long long)hash);
    train_scan s, t;
    CHECK(train_phantom(3, 0, &small, 1, &s, &error) == SEGFM_OK &&
          train_phantom(4, 0, &small, 1, &t, &error) == SEGFM_OK);
    CHECK(hash_scan(&s, 0) != hash_scan(&t, 0));
    train_scan_free(&s);
    train_scan_free(&t);
}

/* Sizes at the lower bound have something to find too, and odd ones do not leave the canvas. */
static void test_extreme_sizes(void) {
    segfm_error error;
    static const int64_t sizes[][3] = {{8, 8, 8}, {8, 9, 200}, {70, 9, 8}, {9, 130, 10}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (uint64_t number = 0; number < 12; number++) {
            train_phantom_options o;
            train_scan s;
            memcpy(o.smallest, sizes[i], sizeof o.smallest);
            memcpy(o.largest, sizes[i], sizeof o.largest);
            CHECK(train_phantom(8, number, &o, 2, &s, &error) == SEGFM_OK);
            CHECK(s.shape.n[0] == sizes[i][0] && s.shape.n[1] == sizes[i][1] && s.shape.n[2] == sizes[i][2]);
            CHECK(is_sound(&s));
            train_scan_free(&s);
        }
}

static void test_defaults(void) {
    segfm_error error;
    train_scan s;
    CHECK(train_phantom(1, 2, NULL, 2, &s, &error) == SEGFM_OK);
    CHECK(s.shape.n[0] >= 24 && s.shape.n[0] <= 64 && s.shape.n[1] >= 64 && s.shape.n[1] <= 128);
    CHECK(s.shape.n[2] >= 64 && s.shape.n[2] <= 128);
    CHECK(is_sound(&s));
    train_scan_free(&s);
}

static void test_refused(void) {
    static const train_phantom_options bad[] = {{{7, 64, 64}, {20, 64, 64}},
                                                {{24, 64, 64}, {48, 60, 64}},
                                                {{24, 64, 64}, {48, 64, 1025}},
                                                {{-1, 0, 0}, {0, 0, 0}}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        segfm_error error = {0};
        train_scan s = {.classes = 77};
        CHECK(train_phantom(1, 1, &bad[i], 1, &s, &error) == SEGFM_BAD_USAGE);
        CHECK(strncmp(error.message, "phantom: got ", 13) == 0 && s.classes == 77);
    }
}

int main(void) {
    test_known_draws();
    test_uniformity();
    test_streams();
    test_below();
    test_distributions();
    test_phantoms();
    test_extreme_sizes();
    test_defaults();
    test_refused();
    return test_summary();
}
