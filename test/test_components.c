/* Components against a flood fill, voxel by voxel. */
#include "test.h"

#include "../vol/vol.h"
#include "random.h"

/* labels (s) as the flood finds them in raster order; returns their number. */
static int32_t flood(const uint8_t *mask, vol_shape s, int32_t *labels) {
    size_t n = vol_count(s), *stack = malloc((n + 1) * sizeof *stack);
    int32_t count = 0;
    memset(labels, 0, n * sizeof *labels);
    for (size_t i = 0; i < n; i++) {
        if (!mask[i] || labels[i]) continue;
        size_t height = 0;
        labels[i] = ++count, stack[height++] = i;
        while (height > 0) {
            int64_t k = (int64_t)stack[--height], z = k / (s.n[1] * s.n[2]), y = k / s.n[2] % s.n[1], x = k % s.n[2];
            for (int64_t b = 0; b < 27; b++) {
                int64_t w = z + b / 9 - 1, v = y + b / 3 % 3 - 1, u = x + b % 3 - 1;
                if (w < 0 || v < 0 || u < 0 || w >= s.n[0] || v >= s.n[1] || u >= s.n[2]) continue;
                size_t j = (size_t)((w * s.n[1] + v) * s.n[2] + u);
                if (mask[j] && !labels[j]) labels[j] = count, stack[height++] = j;
            }
        }
    }
    free(stack);
    return count;
}

/* Components of the voxels where exactly one of a and b (may be NULL) is inside. */
static void check_masks(const uint8_t *a, const uint8_t *b, vol_shape s) {
    size_t n = vol_count(s);
    uint8_t *mask = malloc(n);
    for (size_t i = 0; i < n; i++) mask[i] = (a[i] != 0) != (b && b[i] != 0);
    int32_t *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got), count = flood(mask, s, want);
    void *memory = aligned_alloc(NN_ALIGN, vol_components_bytes(a, b, s));
    vol_components c;
    vol_components_find(a, b, s, memory, &c);
    CHECK(c.count == (size_t)count);
    vol_components_labels(&c, got);
    CHECK(memcmp(got, want, n * sizeof *got) == 0);

    uint64_t *size = calloc((size_t)count + 1, sizeof *size), largest = 0;
    vol_box *box = malloc(((size_t)count + 1) * sizeof *box);
    for (int32_t k = 0; k < count; k++) box[k] = vol_box_none();
    for (size_t i = 0; i < n; i++) {
        if (want[i] == 0) continue;
        int64_t k = (int64_t)i, at[3] = {k / (s.n[1] * s.n[2]), k / s.n[2] % s.n[1], k % s.n[2]};
        vol_box voxel = {{at[0], at[1], at[2]}, {at[0], at[1], at[2]}};
        size[want[i] - 1]++;
        box[want[i] - 1] = vol_box_union(box[want[i] - 1], voxel);
    }
    for (int32_t k = 1; k < count; k++)
        if (size[k] > size[largest]) largest = (uint64_t)k;
    if (count > 0) {
        CHECK(memcmp(size, c.size, (size_t)count * sizeof *size) == 0);
        CHECK(vol_components_largest(&c) == largest);
        vol_box bounds = vol_components_bounds(&c, largest);
        CHECK(memcmp(&bounds, &box[largest], sizeof bounds) == 0);
    }
    free(mask), free(want), free(got), free(memory), free(size), free(box);
}

static void check_random(uint64_t seed, vol_shape s, uint32_t inside) {
    size_t n = vol_count(s);
    uint8_t *a = malloc(n), *b = malloc(n);
    for (size_t i = 0; i < n; i++) {
        a[i] = random_next(&seed) % 100 < inside ? (uint8_t)(1 + i % 255) : 0;
        b[i] = random_next(&seed) % 100 < inside ? (uint8_t)(1 + i % 7) : 0;
    }
    check_masks(a, NULL, s);
    check_masks(a, b, s);
    check_masks(a, a, s); /* they nowhere differ */
    free(a), free(b);
}

/* Every other voxel of each row is inside: no mask needs more memory, and the bound is just that. */
static void check_bound(vol_shape s) {
    size_t n = vol_count(s);
    uint8_t *mask = malloc(n);
    for (size_t i = 0; i < n; i++) mask[i] = i % (size_t)s.n[2] % 2 == 0;
    CHECK(vol_components_bound(s) == vol_components_bytes(mask, NULL, s));
    free(mask);
}

/* A spiral, whose arms meet only at its end: long trees. */
static void check_spiral(void) {
    enum { SIDE = 41 };
    uint8_t mask[SIDE * SIDE] = {0};
    int x = 0, y = 0, dx = 1, dy = 0;
    for (int i = 0, arm = SIDE - 1; arm > 0; i++) {
        for (int k = 0; k < arm; k++) mask[y * SIDE + x] = 1, x += dx, y += dy;
        int turn = dx;
        dx = -dy, dy = turn;
        if (i >= 2 && i % 2 == 0) arm -= 2;
    }
    check_masks(mask, NULL, (vol_shape){{1, SIDE, SIDE}});
    check_masks(mask, NULL, (vol_shape){{SIDE, 1, SIDE}});
    check_masks(mask, NULL, (vol_shape){{SIDE, SIDE, 1}});
}

int main(void) {
    static const vol_shape shapes[] = {{{1, 1, 1}},  {{1, 1, 40}},  {{1, 9, 1}},  {{8, 1, 1}},  {{1, 9, 8}},
                                       {{5, 1, 17}}, {{6, 11, 24}}, {{11, 5, 9}}, {{3, 4, 64}}, {{2, 3, 200}}};
    static const uint32_t inside[] = {0, 1, 4, 10, 30, 60, 95, 100};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (size_t k = 0; k < sizeof inside / sizeof inside[0]; k++) check_random(100 * i + k, shapes[i], inside[k]);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) check_bound(shapes[i]);
    check_spiral();
    /* equal sizes: the first */
    const uint8_t twins[7] = {1, 0, 1, 1, 0, 1, 1};
    vol_components c;
    void *memory = aligned_alloc(NN_ALIGN, vol_components_bytes(twins, NULL, (vol_shape){{1, 1, 7}}));
    vol_components_find(twins, NULL, (vol_shape){{1, 1, 7}}, memory, &c);
    CHECK(c.count == 3 && vol_components_largest(&c) == 1);
    free(memory);
    return test_summary();
}
