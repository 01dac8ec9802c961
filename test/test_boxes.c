/* Boxes of masks and regions, against values worked out by hand and against straightforward versions. */
#include "test.h"

#include "../vol/vol.h"

static uint64_t state = 1;

static int64_t draw(int64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((state >> 33) % (uint64_t)n);
}

static bool is_box(vol_box b, int64_t z0, int64_t y0, int64_t x0, int64_t z1, int64_t y1, int64_t x1) {
    return b.lo[0] == z0 && b.lo[1] == y0 && b.lo[2] == x0 && b.hi[0] == z1 && b.hi[1] == y1 && b.hi[2] == x1;
}

static bool same_box(vol_box a, vol_box b) { return is_box(a, b.lo[0], b.lo[1], b.lo[2], b.hi[0], b.hi[1], b.hi[2]); }

static bool is_none(vol_box b) { return is_box(b, -1, -1, -1, -1, -1, -1); }

/* Both boxes of a mask from the list of its voxels, as they are defined. */
static void naive_boxes(const uint8_t *mask, vol_shape s, vol_box *bounds, vol_box *prompt) {
    int64_t(*list)[3] = malloc(vol_count(s) * sizeof *list);
    size_t n = 0;
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++)
            for (int64_t x = 0; x < s.n[2]; x++)
                if (mask[(z * s.n[1] + y) * s.n[2] + x]) list[n][0] = z, list[n][1] = y, list[n++][2] = x;
    *bounds = *prompt = (vol_box){{-1, -1, -1}, {-1, -1, -1}};
    for (int k = 0; k < 3 && n > 0; k++) {
        bounds->lo[k] = prompt->lo[k] = INT64_MAX;
        for (size_t i = 0; i < n; i++) {
            if (list[i][k] < bounds->lo[k]) bounds->lo[k] = list[i][k];
            if (list[i][k] > bounds->hi[k]) bounds->hi[k] = list[i][k];
            if (k > 0 && list[i][0] != list[n / 2][0]) continue;
            if (list[i][k] < prompt->lo[k]) prompt->lo[k] = list[i][k];
            if (list[i][k] > prompt->hi[k]) prompt->hi[k] = list[i][k];
        }
    }
    free(list);
}

static void test_box_basics(void) {
    vol_box b = {{1, 2, 3}, {1, 5, 4}};
    vol_shape s = vol_box_shape(b);
    CHECK(s.n[0] == 1 && s.n[1] == 4 && s.n[2] == 2);
    CHECK(vol_count(s) == 8);
    CHECK(!vol_box_is_empty(b));
    CHECK(is_none(vol_box_none()) && vol_box_is_empty(vol_box_none()));
    b.hi[2] = 2;
    CHECK(vol_box_is_empty(b));
    b.lo[2] = -1;
    CHECK(vol_box_is_empty(b));
}

static void test_set_operations(void) {
    vol_box a = {{1, 2, 3}, {4, 5, 6}}, b = {{0, 4, 5}, {2, 9, 5}}, far = {{1, 2, 7}, {4, 5, 9}};
    vol_box none = vol_box_none(), inverted = {{3, 3, 3}, {2, 9, 9}};
    CHECK(is_box(vol_box_union(a, b), 0, 2, 3, 4, 9, 6));
    CHECK(is_box(vol_box_union(b, a), 0, 2, 3, 4, 9, 6));
    CHECK(same_box(vol_box_union(a, none), a) && same_box(vol_box_union(none, a), a));
    CHECK(same_box(vol_box_union(a, inverted), a));
    CHECK(is_none(vol_box_union(none, none)) && is_none(vol_box_union(inverted, none)));
    CHECK(is_box(vol_box_intersect(a, b), 1, 4, 5, 2, 5, 5));
    CHECK(is_none(vol_box_intersect(a, far)));
    CHECK(is_none(vol_box_intersect(a, none)) && is_none(vol_box_intersect(inverted, a)));
    CHECK(same_box(vol_box_intersect(a, a), a));
}

static void test_small_masks(void) {
    vol_shape s = {{4, 3, 5}};
    uint8_t mask[60] = {0};
    CHECK(is_none(vol_mask_bounds(mask, s)) && is_none(vol_mask_prompt_box(mask, s)));
    mask[59] = 255;
    CHECK(is_box(vol_mask_bounds(mask, s), 3, 2, 4, 3, 2, 4));
    CHECK(is_box(vol_mask_prompt_box(mask, s), 3, 2, 4, 3, 2, 4));
    mask[0] = 1;
    /* two voxels: index 2/2 = 1 is the second one's slice */
    CHECK(is_box(vol_mask_bounds(mask, s), 0, 0, 0, 3, 2, 4));
    CHECK(is_box(vol_mask_prompt_box(mask, s), 0, 2, 4, 3, 2, 4));
    mask[15 + 1 * 5 + 1] = mask[15 + 1 * 5 + 3] = 7;
    /* four voxels in slices 0, 1, 1, 3: index 2 is in slice 1 */
    CHECK(is_box(vol_mask_bounds(mask, s), 0, 0, 0, 3, 2, 4));
    CHECK(is_box(vol_mask_prompt_box(mask, s), 0, 1, 1, 3, 1, 3));
    memset(mask, 1, sizeof mask);
    CHECK(is_box(vol_mask_prompt_box(mask, s), 0, 0, 0, 3, 2, 4));

    uint8_t one = 0;
    vol_shape unit = {{1, 1, 1}};
    CHECK(is_none(vol_mask_bounds(&one, unit)) && is_none(vol_mask_prompt_box(&one, unit)));
    one = 1;
    CHECK(is_box(vol_mask_bounds(&one, unit), 0, 0, 0, 0, 0, 0));
    CHECK(is_box(vol_mask_prompt_box(&one, unit), 0, 0, 0, 0, 0, 0));
}

static void test_random_masks(void) {
    uint8_t mask[9 * 8 * 7];
    int bad = 0;
    for (int round = 0; round < 600; round++) {
        vol_shape s = {{1 + draw(9), 1 + draw(8), 1 + draw(7)}};
        size_t n = vol_count(s);
        memset(mask, 0, n);
        int64_t voxels = draw(3) ? draw(6) : draw((int64_t)n);
        for (int64_t i = 0; i < voxels; i++) mask[draw((int64_t)n)] = (uint8_t)(1 + draw(255));
        vol_box bounds, prompt;
        naive_boxes(mask, s, &bounds, &prompt);
        bad += !same_box(vol_mask_bounds(mask, s), bounds);
        bad += !same_box(vol_mask_prompt_box(mask, s), prompt);
    }
    CHECK(bad == 0);
}

static void test_region(void) {
    vol_shape window = {{16, 64, 32}};
    vol_shape s = {{30, 100, 90}};
    /* z: 5 voxels lack 11, 5 go to each side; y: 21 lack 43, 21 each; x: 31 lack 1, none goes to a side */
    CHECK(is_box(vol_region((vol_box){{10, 40, 40}, {14, 60, 70}}, s, window), 5, 19, 40, 19, 81, 70));
    /* at the low border what is cut off is not added at the other end */
    CHECK(is_box(vol_region((vol_box){{0, 1, 2}, {0, 1, 2}}, s, window), 0, 0, 0, 7, 32, 17));
    /* at the high border hi is clamped to the axis length, one past the last voxel */
    CHECK(is_box(vol_region((vol_box){{29, 98, 70}, {29, 99, 80}}, s, window), 22, 67, 60, 30, 100, 90));
    /* larger than the window on y only */
    CHECK(is_box(vol_region((vol_box){{4, 3, 50}, {9, 90, 53}}, s, window), 0, 3, 36, 14, 90, 67));
    /* the whole volume, larger than a window: not padded, so hi stays the last voxel */
    CHECK(is_box(vol_region((vol_box){{0, 0, 0}, {29, 99, 89}}, s, window), 0, 0, 0, 29, 99, 89));
    /* the whole volume, smaller than a window: hi is the length */
    vol_box all = {{0, 0, 0}, {11, 49, 29}}, region = vol_region(all, vol_box_shape(all), window);
    CHECK(is_box(region, 0, 0, 0, 12, 50, 30));
    /* and what that means in voxels */
    CHECK(same_box(vol_box_intersect(region, all), all));
    CHECK(is_none(vol_region(vol_box_none(), s, window)));
}

/* One side of a frame along an axis of n voxels, found step by step. */
static int64_t frame_side(int64_t from, int64_t step, int64_t extent, unsigned margin, int64_t n) {
    int64_t most = extent * margin / 100 < 2 ? 2 : extent * margin / 100;
    for (int64_t i = 0; i < most && from + step >= 0 && from + step < n; i++) from += step;
    return from;
}

static void test_frame(void) {
    vol_shape s = {{30, 100, 90}};
    vol_box b = {{10, 40, 40}, {14, 59, 79}}, all = vol_box_whole(s);
    /* a quarter of 5, 20 and 40 voxels: 1, which is less than two, 5, 10 */
    CHECK(is_box(vol_frame(b, s, 25), 8, 35, 30, 16, 64, 89));
    CHECK(is_box(vol_frame(b, s, 0), 8, 38, 38, 16, 61, 81));
    CHECK(is_box(vol_frame(b, s, 1000), 0, 0, 0, 29, 99, 89));
    /* rounded down: a quarter of 11, 12 and 15 voxels */
    CHECK(is_box(vol_frame((vol_box){{10, 40, 40}, {20, 51, 54}}, s, 25), 8, 37, 37, 22, 54, 57));
    /* cut off at a border, nothing is added at the other side */
    CHECK(is_box(vol_frame((vol_box){{0, 1, 88}, {0, 1, 89}}, s, 25), 0, 0, 86, 2, 3, 89));
    CHECK(same_box(vol_frame(all, s, 25), all));
    CHECK(is_none(vol_frame(vol_box_none(), s, 25)) && is_none(vol_frame((vol_box){{3, 3, 3}, {2, 9, 9}}, s, 25)));
    int bad = 0;
    for (int round = 0; round < 2000; round++) {
        unsigned margin = (unsigned)draw(120);
        for (int k = 0; k < 3; k++) {
            s.n[k] = 1 + draw(60);
            b.lo[k] = draw(s.n[k]);
            b.hi[k] = b.lo[k] + draw(s.n[k] - b.lo[k]);
        }
        vol_box f = vol_frame(b, s, margin);
        for (int k = 0; k < 3; k++) {
            int64_t extent = b.hi[k] - b.lo[k] + 1;
            bad += f.lo[k] != frame_side(b.lo[k], -1, extent, margin, s.n[k]);
            bad += f.hi[k] != frame_side(b.hi[k], 1, extent, margin, s.n[k]);
        }
    }
    CHECK(bad == 0);
}

int main(void) {
    test_box_basics();
    test_set_operations();
    test_small_masks();
    test_random_masks();
    test_region();
    test_frame();
    return test_summary();
}
