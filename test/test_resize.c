/* Resizing and crops. Volumes hold their own indices, so that every voxel says where it came from. */
#include "test.h"

#include "../vol/vol.h"

static void fill(real *v, size_t n) {
    for (size_t i = 0; i < n; i++) v[i] = (real)i;
}

static void test_sources(void) {
    /* exact arithmetic gives 55·64/110 = 32; float32 gives a little less, and upstream's models saw that */
    CHECK(vol_nearest_source(55, 64, 110) == 31);
    CHECK(vol_nearest_source(54, 64, 110) == 31 && vol_nearest_source(56, 64, 110) == 32);
    /* the product is rounded to float32 too: 25·(2/50) is a little less than 1 before that */
    CHECK(vol_nearest_source(25, 2, 50) == 1 && vol_nearest_source(49, 2, 98) == 1);
    int bad = 0;
    for (int64_t n = 1; n <= 70; n++)
        for (int64_t m = 1; m <= 70; m++) {
            int64_t before = 0;
            bad += vol_nearest_source(0, n, m) != 0;
            for (int64_t i = 0; i < m; i++) {
                int64_t source = vol_nearest_source(i, n, m), exact = i * n / m;
                bad += source < before || source >= n;
                /* off the exact rule by at most one voxel, and only where the exact position is a whole number */
                bad += source != exact && !(source == exact - 1 && i * n % m == 0);
                bad += n % m == 0 && source != i * (n / m);
                before = source;
            }
        }
    CHECK(bad == 0);
    /* powers of two and equal sizes are exact */
    for (int64_t i = 0; i < 300; i++) bad += vol_nearest_source(i, 300, 300) != i;
    for (int64_t i = 0; i < 512; i++) bad += vol_nearest_source(i, 256, 512) != i / 2;
    CHECK(bad == 0);
}

static void test_resize(void) {
    static const vol_shape shapes[][2] = {
        {{{3, 4, 5}}, {{3, 4, 5}}}, {{{3, 4, 5}}, {{6, 2, 9}}},    {{{1, 1, 1}}, {{2, 3, 4}}},
        {{{7, 1, 6}}, {{1, 5, 1}}}, {{{2, 64, 9}}, {{3, 110, 7}}}, {{{11, 13, 64}}, {{4, 9, 110}}},
    };
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        vol_shape s = shapes[k][0], o = shapes[k][1];
        size_t m = vol_count(o);
        real *in = malloc(vol_count(s) * sizeof *in), *out = malloc(m * sizeof *out), *again = malloc(m * sizeof *out);
        fill(in, vol_count(s));
        vol_resize_nearest(in, s, out, o, vol_box_whole(o), 1);
        vol_resize_nearest(in, s, again, o, vol_box_whole(o), 3);
        int bad = 0;
        for (int64_t z = 0, i = 0; z < o.n[0]; z++)
            for (int64_t y = 0; y < o.n[1]; y++)
                for (int64_t x = 0; x < o.n[2]; x++, i++) {
                    int64_t from[3] = {vol_nearest_source(z, s.n[0], o.n[0]), vol_nearest_source(y, s.n[1], o.n[1]),
                                       vol_nearest_source(x, s.n[2], o.n[2])};
                    bad += out[i] != (real)((from[0] * s.n[1] + from[1]) * s.n[2] + from[2]);
                }
        CHECK(bad == 0);
        CHECK(memcmp(out, again, m * sizeof *out) == 0);
        free(in), free(out), free(again);
    }
}

/* A part of the result, different on each axis: that and nothing else is written. */
static void test_part(void) {
    const vol_shape s = {{4, 5, 7}}, o = {{6, 9, 11}};
    const vol_box part = {{1, 3, 2}, {2, 7, 6}};
    real in[4 * 5 * 7], whole[6 * 9 * 11], out[6 * 9 * 11];
    int bad = 0;
    fill(in, vol_count(s));
    vol_resize_nearest(in, s, whole, o, vol_box_whole(o), 1);
    for (size_t i = 0; i < vol_count(o); i++) out[i] = -1;
    vol_resize_nearest(in, s, out, o, part, 1);
    for (int64_t z = 0, i = 0; z < o.n[0]; z++)
        for (int64_t y = 0; y < o.n[1]; y++)
            for (int64_t x = 0; x < o.n[2]; x++, i++) {
                bool inside = z >= 1 && z <= 2 && y >= 3 && y <= 7 && x >= 2 && x <= 6;
                bad += out[i] != (inside ? whole[i] : REAL_C(-1.0));
            }
    CHECK(bad == 0);
}

/* vol_resize_box must say what resizing a binary cube and looking for its voxels says. */
static bool same_as_cube(vol_box b, vol_shape s, vol_shape o) {
    real in[5 * 4 * 7] = {0}, out[9 * 9 * 9];
    uint8_t mask[9 * 9 * 9];
    for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
        for (int64_t y = b.lo[1]; y <= b.hi[1]; y++)
            for (int64_t x = b.lo[2]; x <= b.hi[2]; x++) in[(z * s.n[1] + y) * s.n[2] + x] = 1;
    vol_resize_nearest(in, s, out, o, vol_box_whole(o), 1);
    for (size_t i = 0; i < vol_count(o); i++) mask[i] = out[i] > 0;
    vol_box want = vol_mask_bounds(mask, o), got = vol_resize_box(b, s, o);
    return memcmp(&want, &got, sizeof got) == 0;
}

static void test_resize_box(void) {
    static const vol_shape targets[] = {{{5, 4, 7}}, {{9, 8, 9}}, {{2, 3, 4}}, {{1, 9, 2}}};
    vol_shape s = {{5, 4, 7}};
    int bad = 0;
    for (size_t t = 0; t < sizeof targets / sizeof targets[0]; t++)
        for (int64_t z = 0; z < 5; z++)
            for (int64_t y = 0; y < 4; y++)
                for (int64_t x = 0; x < 7; x++)
                    for (int64_t size = 1; size <= 5; size++) {
                        vol_box b = {{z, y, x}, {z + size % 3, y + size / 2, x + size - 1}};
                        if (b.hi[0] < 5 && b.hi[1] < 4 && b.hi[2] < 7) bad += !same_as_cube(b, s, targets[t]);
                    }
    CHECK(bad == 0);

    /* 15…45 of 60 voxels becomes 16…49 of 64 */
    vol_box b = vol_resize_box((vol_box){{15, 0, 0}, {45, 0, 0}}, (vol_shape){{60, 1, 1}}, (vol_shape){{64, 1, 2}});
    CHECK(b.lo[0] == 16 && b.hi[0] == 49 && b.lo[1] == 0 && b.hi[1] == 0 && b.lo[2] == 0 && b.hi[2] == 1);
    /* halving takes voxels 0, 2, 4…: a box of voxel 3 alone vanishes, and with it the whole box */
    b = vol_resize_box((vol_box){{3, 0, 0}, {3, 5, 7}}, (vol_shape){{8, 6, 8}}, (vol_shape){{4, 6, 8}});
    CHECK(b.lo[0] == -1 && b.lo[2] == -1 && b.hi[1] == -1 && vol_box_is_empty(b));
    CHECK(vol_box_is_empty(vol_resize_box(vol_box_none(), s, targets[0])));
}

static void test_crop(void) {
    vol_shape s = {{3, 4, 5}};
    real in[60], out[60];
    fill(in, 60);
    vol_crop(in, s, (vol_box){{1, 2, 1}, {2, 3, 4}}, out);
    int bad = 0;
    for (int i = 0; i < 16; i++) bad += out[i] != (real)((1 + i / 8) * 20 + (2 + i / 4 % 2) * 5 + 1 + i % 4);
    CHECK(bad == 0);
    vol_crop(in, s, (vol_box){{0, 0, 0}, {2, 3, 4}}, out);
    CHECK(memcmp(in, out, sizeof in) == 0);
    vol_crop(in, s, (vol_box){{2, 3, 4}, {2, 3, 4}}, out);
    CHECK(out[0] == 59 && out[1] == 1);
}

int main(void) {
    test_sources();
    test_resize();
    test_part();
    test_resize_box();
    test_crop();
    return test_summary();
}
