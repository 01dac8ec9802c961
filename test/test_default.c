/* The model that comes with the program, weights/default.segfm: a phantom, a box, clicks, and what it makes of them, to the bit. */
#include "test.h"

#include "../segfm.h"
#include "../train/train.h"

/* Logits of the float build after the box, then after each click. */
static const uint64_t wanted[] = {0xfebb7a359ae78a39U, 0x46ca0860c110ad84U, 0x5b5fa984e3b818deU, 0x7c779d0c7c1dd2a0U};

static const train_phantom_options options = {{24, 60, 72}, {24, 60, 72}};

/* The bounds of a label, and how large it is. */
static size_t find_object(const train_scan *scan, unsigned label, int64_t box[6]) {
    size_t count = 0;
    for (int axis = 0; axis < 3; axis++) box[axis] = INT64_MAX, box[3 + axis] = -1;
    for (size_t i = 0; i < vol_count(scan->shape); i++) {
        if (scan->labels[i] != label) continue;
        int64_t x = (int64_t)i % scan->shape.n[2], row = (int64_t)i / scan->shape.n[2];
        int64_t at[3] = {row / scan->shape.n[1], row % scan->shape.n[1], x};
        for (int axis = 0; axis < 3; axis++) {
            if (at[axis] < box[axis]) box[axis] = at[axis];
            if (at[axis] > box[3 + axis]) box[3 + axis] = at[axis];
        }
        count++;
    }
    return count;
}

static double dice(const train_scan *scan, unsigned label, const uint8_t *mask) {
    double both = 0, sum = 0;
    for (size_t i = 0; i < vol_count(scan->shape); i++) {
        both += scan->labels[i] == label && mask[i] != 0;
        sum += (scan->labels[i] == label) + (mask[i] != 0);
    }
    return 2 * both / sum;
}

/* The click that the evaluation would make; false: nothing is wrong. */
static bool click(segfm_session *s, const train_scan *scan, unsigned label, const uint8_t *mask) {
    size_t n = vol_count(scan->shape);
    uint8_t *truth = malloc(n);
    vol_click_request q = {scan->shape, VOL_CLICK_FIRST, VOL_CLICK_LARGE, 1};
    vol_click c;
    for (size_t i = 0; i < n; i++) truth[i] = scan->labels[i] == label;
    void *memory = aligned_alloc(NN_ALIGN, vol_click_bound(&q));
    bool wrong = vol_simulate_click(mask, truth, &q, memory, &c);
    if (wrong) CHECK(segfm_click(s, c.at, c.label == 1, NULL) == SEGFM_OK);
    free(truth), free(memory);
    return wrong;
}

static void test_phantom(const segfm_model *model, int threads) {
    enum { STEPS = sizeof wanted / sizeof wanted[0] };
    train_scan scan;
    segfm_session *s;
    segfm_options o = segfm_options_default();
    int64_t box[6];
    unsigned label = 1;
    CHECK(train_phantom(4, 0, &options, 1, &scan, NULL) == SEGFM_OK);
    for (unsigned l = 2; l <= scan.classes; l++)
        if (find_object(&scan, l, box) > find_object(&scan, label, box)) label = l;
    find_object(&scan, label, box);
    size_t n = vol_count(scan.shape);
    uint8_t *mask = malloc(n);
    float *logits = malloc(n * sizeof *logits);
    o.threads = threads;
    CHECK(segfm_session_new(model, scan.shape.n, &o, NULL, 0, &s, NULL) == SEGFM_OK);
    CHECK(segfm_set_volume(s, scan.voxels, NULL) == SEGFM_OK && segfm_box(s, box, NULL) == SEGFM_OK);
    for (int step = 0; step < STEPS; step++) {
        if (step > 0) click(s, &scan, label, mask);
        CHECK(segfm_mask(s, mask, n, NULL) == SEGFM_OK && segfm_logits(s, logits, n, NULL) == SEGFM_OK);
        uint64_t hash = 0;
        for (size_t i = 0; i < n; i++) {
            unsigned char bytes[4];
            uint32_t bits;
            memcpy(&bits, &logits[i], 4);
            base_put_le32(bytes, bits);
            hash = base_xxh64(bytes, 4, hash);
        }
        if (!CHECK(dice(&scan, label, mask) > 0.8)) printf("    step %d: DSC %g\n", step, dice(&scan, label, mask));
        if (sizeof(real) == sizeof(float) && !CHECK(hash == wanted[step]))
            printf("    step %d: %016llx\n", step, (unsigned long long)hash);
    }
    segfm_session_free(s);
    train_scan_free(&scan);
    free(mask), free(logits);
}

int main(void) {
    io_mapping file = {0};
    segfm_model *model;
    CHECK(io_map_file("weights/default.segfm", &file, NULL) == SEGFM_OK);
    CHECK(segfm_model_open(file.data, file.size, NULL, &model, NULL) == SEGFM_OK);
    for (int threads = 1; threads <= 3; threads += 2) test_phantom(model, threads);
    segfm_model_close(model);
    io_unmap_file(&file);
    return test_summary();
}
