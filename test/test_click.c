/* Simulated clicks against the definition, spelled out on whole volumes as the official script has it. */
#include "test.h"

#include "../vol/vol.h"
#include "random.h"

static vol_click simulate(const uint8_t *prediction, const uint8_t *truth, const vol_click_request *q, bool *found) {
    void *memory = NULL;
    size_t bytes = vol_click_bytes(prediction, truth, q);
    CHECK(bytes <= vol_click_bound(q));
    if (bytes > 0) memory = aligned_alloc(NN_ALIGN, bytes);
    vol_click click;
    *found = vol_simulate_click(prediction, truth, q, memory, &click);
    CHECK(*found == (bytes > 0));
    free(memory);
    return click;
}

/* The largest component of mask (s), by growing it from its first voxels. */
static void keep_largest(uint8_t *mask, vol_shape s) {
    size_t n = vol_count(s), best = 0;
    void *memory = aligned_alloc(NN_ALIGN, vol_components_bytes(mask, NULL, s));
    int32_t *labels = malloc(n * sizeof *labels), kept = 0;
    vol_components c;
    vol_components_find(mask, NULL, s, memory, &c); /* test_components.c tests these */
    vol_components_labels(&c, labels);
    for (int32_t k = 1; k <= (int32_t)c.count; k++) {
        size_t size = 0;
        for (size_t i = 0; i < n; i++) size += labels[i] == k;
        if (size > best) best = size, kept = k;
    }
    for (size_t i = 0; i < n; i++) mask[i] = labels[i] == kept;
    free(memory), free(labels);
}

static bool inside(const uint8_t *mask, vol_shape s, int64_t z, int64_t y, int64_t x) {
    return z >= 0 && y >= 0 && x >= 0 && z < s.n[0] && y < s.n[1] && x < s.n[2] && mask[(z * s.n[1] + y) * s.n[2] + x];
}

/* The padded box of the component, or its blocks, as a volume of its own. */
static uint8_t *padded_box(const uint8_t *mask, vol_shape s, vol_box box, int64_t step, const int64_t pad[3],
                           vol_shape *out) {
    for (int k = 0; k < 3; k++) out->n[k] = (box.hi[k] - box.lo[k] + 1 + 2 * pad[k] + step - 1) / step;
    uint8_t *padded = calloc(vol_count(*out), 1);
    for (int64_t z = 0; z < out->n[0] * step; z++)
        for (int64_t y = 0; y < out->n[1] * step; y++)
            for (int64_t x = 0; x < out->n[2] * step; x++)
                if (inside(mask, s, z - pad[0] + box.lo[0], y - pad[1] + box.lo[1], x - pad[2] + box.lo[2]))
                    padded[((z / step) * out->n[1] + y / step) * out->n[2] + x / step] = 1;
    return padded;
}

static int64_t distance_at(const uint8_t *mask, vol_shape s, int64_t z, int64_t y, int64_t x) {
    int64_t least = INT64_MAX;
    for (int64_t w = 0; w < s.n[0]; w++)
        for (int64_t v = 0; v < s.n[1]; v++)
            for (int64_t u = 0; u < s.n[2]; u++) {
                int64_t d = (w - z) * (w - z) + (v - y) * (v - y) + (u - x) * (u - x);
                if (!mask[(w * s.n[1] + v) * s.n[2] + u] && d < least) least = d;
            }
    return least;
}

/* Checks that the clicks of both rules lie where the distances of the official script, taken slowly, are largest. */
static void check_masks(const uint8_t *prediction, const uint8_t *truth, vol_shape s, int64_t large) {
    size_t n = vol_count(s), ties = 0;
    uint8_t *mask = malloc(n);
    bool found, any = false;
    for (size_t i = 0; i < n; i++) any |= mask[i] = !prediction[i] != !truth[i];
    vol_click first = simulate(prediction, truth, &(vol_click_request){s, VOL_CLICK_FIRST, large, 1}, &found);
    vol_click drawn = simulate(prediction, truth, &(vol_click_request){s, VOL_CLICK_OFFICIAL, large, 3}, &found);
    CHECK(found == any);
    if (!any) {
        CHECK(first.at[0] == -1 && first.at[1] == -1 && first.at[2] == -1 && first.label == -1 && drawn.label == -1);
        free(mask);
        return;
    }
    keep_largest(mask, s);
    vol_box box = vol_mask_bounds(mask, s);
    vol_shape p;
    int64_t pad[3], step = 1, voxels = 1, *at = malloc(n * sizeof *at), largest = -1;
    for (int k = 0; k < 3; k++) {
        int64_t extent = box.hi[k] - box.lo[k] + 1;
        pad[k] = (int64_t)((double)extent * 0.25) > 1 ? (int64_t)((double)extent * 0.25) : 1;
        voxels *= extent + 2 * pad[k];
    }
    if (voxels > large) step = 2;
    uint8_t *padded = padded_box(mask, s, box, step, pad, &p);
    for (size_t i = 0; i < n; i++) {
        int64_t k = (int64_t)i, z = k / (s.n[1] * s.n[2]), y = k / s.n[2] % s.n[1], x = k % s.n[2];
        if (!mask[i]) continue;
        int64_t d = distance_at(padded, p, (z - box.lo[0] + pad[0]) / step, (y - box.lo[1] + pad[1]) / step,
                                (x - box.lo[2] + pad[2]) / step);
        if (d > largest) largest = d, ties = 0;
        if (d == largest) at[ties++] = k;
    }
    vol_mt mt;
    vol_mt_seed(&mt, 42);
    int64_t want = at[vol_mt_below(&mt, ties)], got = (drawn.at[0] * s.n[1] + drawn.at[1]) * s.n[2] + drawn.at[2];
    CHECK(got == want && drawn.label == (truth[want] != 0));
    got = (first.at[0] * s.n[1] + first.at[1]) * s.n[2] + first.at[2];
    CHECK(got == at[0] && first.label == (truth[at[0]] != 0));
    free(mask), free(padded), free(at);
}

/* Blobs: noise would have errors of one voxel only. */
static void blob(uint8_t *mask, vol_shape s, uint64_t *seed, int boxes) {
    memset(mask, 0, vol_count(s));
    for (int b = 0; b < boxes; b++) {
        int64_t lo[3], hi[3];
        for (int k = 0; k < 3; k++) {
            lo[k] = random_next(seed) % (uint32_t)s.n[k];
            hi[k] = lo[k] + random_next(seed) % (uint32_t)(s.n[k] / 2 + 1);
            if (hi[k] >= s.n[k]) hi[k] = s.n[k] - 1;
        }
        for (int64_t z = lo[0]; z <= hi[0]; z++)
            for (int64_t y = lo[1]; y <= hi[1]; y++)
                memset(mask + (z * s.n[1] + y) * s.n[2] + lo[2], 1 + b, (size_t)(hi[2] - lo[2] + 1));
    }
}

static void check_random(uint64_t seed, vol_shape s) {
    uint8_t *prediction = malloc(vol_count(s)), *truth = malloc(vol_count(s));
    blob(truth, s, &seed, 3);
    blob(prediction, s, &seed, 3);
    check_masks(prediction, truth, s, VOL_CLICK_LARGE);
    check_masks(prediction, truth, s, 200);
    check_masks(truth, truth, s, VOL_CLICK_LARGE);
    memset(prediction, 0, vol_count(s));
    check_masks(prediction, truth, s, 0);
    memset(truth, 9, vol_count(s)); /* all is error, up to the border */
    check_masks(prediction, truth, s, VOL_CLICK_LARGE);
    check_masks(truth, prediction, s, 100);
    free(prediction), free(truth);
}

/* As many runs as there can be: every other voxel is wrong. */
static void test_bound(void) {
    static const vol_shape shapes[] = {{{5, 6, 7}}, {{4, 9, 16}}, {{1, 1, 1}}, {{2, 3, 65}}};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        size_t n = vol_count(shapes[k]);
        uint8_t *prediction = calloc(n, 1), *truth = calloc(n, 1);
        vol_click_request q = {shapes[k], VOL_CLICK_FIRST, VOL_CLICK_LARGE, 2};
        for (size_t i = 0; i < n; i++) prediction[i] = i % (size_t)shapes[k].n[2] % 2 == 0;
        size_t runs = (size_t)(shapes[k].n[0] * shapes[k].n[1] * ((shapes[k].n[2] + 1) / 2));
        CHECK(vol_components_bytes(prediction, truth, shapes[k]) == vol_components_bound(shapes[k]));
        CHECK(runs * sizeof(vol_run) <= vol_components_bound(shapes[k]));
        bool found;
        simulate(prediction, truth, &q, &found);
        CHECK(found);
        free(prediction), free(truth);
    }
}

int main(void) {
    test_bound();
    static const vol_shape shapes[] = {{{1, 1, 1}}, {{1, 1, 30}}, {{1, 20, 9}}, {{7, 1, 8}}, {{9, 13, 11}}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (uint64_t seed = 0; seed < 5; seed++) check_random(10 * i + seed, shapes[i]);
    return test_summary();
}
