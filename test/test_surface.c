/* Surface metrics: values known by hand, and the definitions spelled out voxel by voxel. */
#include "test.h"

#include "../vol/vol.h"
#include "random.h"

static void fill(uint8_t *mask, vol_shape s, vol_box b) {
    for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
        for (int64_t y = b.lo[1]; y <= b.hi[1]; y++)
            memset(mask + (z * s.n[1] + y) * s.n[2] + b.lo[2], 1, (size_t)(b.hi[2] - b.lo[2] + 1));
}

static vol_surface measure(const uint8_t *truth, const uint8_t *prediction, const vol_surface_request *q) {
    vol_box box = vol_surface_box(truth, prediction, q->shape);
    size_t bytes = vol_box_is_empty(box) ? 0 : vol_surface_bytes(vol_box_shape(box), q->flat, q->threads);
    void *memory = aligned_alloc(NN_ALIGN, bytes + NN_ALIGN);
    vol_surface out;
    vol_surface_measure(truth, prediction, q, memory, &out);
    free(memory);
    return out;
}

/* Two boxes. */
static vol_surface boxes(vol_box a, vol_box b, vol_surface_request q) {
    uint8_t *truth = calloc(vol_count(q.shape), 1), *prediction = calloc(vol_count(q.shape), 1);
    q.threads = 2;
    fill(truth, q.shape, a);
    fill(prediction, q.shape, b);
    vol_surface out = measure(truth, prediction, &q);
    free(truth), free(prediction);
    return out;
}

static bool near(double a, double b) { return fabs(a - b) <= 5e-7; }

/* From the challenge tool's own tests, and others of its results. */
static void check_known(void) {
    /* two pixels 2 mm apart */
    vol_surface m = boxes((vol_box){{0, 50, 70}, {0, 50, 70}}, (vol_box){{0, 50, 72}, {0, 50, 72}},
                          (vol_surface_request){{{1, 128, 128}}, {1, 2, 1}, 1, true, 1});
    CHECK(near(m.asd_truth, 1.5) && near(m.asd_prediction, 1.5) && near(m.hd95, 2) && near(m.nsd, 0.5) && m.dice == 0);
    /* two voxels 2 mm apart */
    m = boxes((vol_box){{50, 60, 70}, {50, 60, 70}}, (vol_box){{50, 60, 72}, {50, 60, 72}},
              (vol_surface_request){{{128, 128, 128}}, {3, 2, 1}, 1, false, 1});
    CHECK(near(m.asd_truth, 1.5) && near(m.asd_prediction, 1.5) && near(m.hd95, 2) && near(m.nsd, 0.5));
    CHECK(near(m.overlap_truth, 0.5) && near(m.overlap_prediction, 0.5) && m.hd == 2);
    /* two slabs that touch the border; the prediction is one voxel thicker */
    m = boxes((vol_box){{0, 0, 0}, {49, 99, 99}}, (vol_box){{0, 0, 0}, {50, 99, 99}},
              (vol_surface_request){{{100, 100, 100}}, {2, 1, 1}, 1, false, 1});
    CHECK(near(m.asd_truth, 0.322447) && near(m.asd_prediction, 0.339396));
    CHECK(near(m.nsd, 0.836145) && near(m.dice, 0.990099));
    /* a cube and itself, moved by a voxel */
    m = boxes((vol_box){{2, 2, 2}, {5, 5, 5}}, (vol_box){{2, 2, 3}, {5, 5, 6}},
              (vol_surface_request){{{10, 10, 10}}, {1, 1, 1}, 1, false, 1});
    CHECK(near(m.asd_truth, 0.336889) && near(m.asd_prediction, 0.336889) && near(m.dice, 0.75));
    CHECK(m.truth == 64 && m.prediction == 64 && m.both == 48 && m.undefined == VOL_DEFINED);
    /* a cube around a cube */
    m = boxes((vol_box){{0, 0, 0}, {9, 9, 9}}, (vol_box){{2, 2, 2}, {7, 7, 7}},
              (vol_surface_request){{{10, 10, 10}}, {1, 1, 1}, 2, false, 1});
    CHECK(near(m.hd95, 2.828427) && near(m.asd_truth, 2.211239) && near(m.asd_prediction, 2));
    /* equal masks; the whole volume; one voxel that is the volume */
    m = boxes((vol_box){{0, 0, 0}, {9, 9, 9}}, (vol_box){{0, 0, 0}, {9, 9, 9}},
              (vol_surface_request){{{10, 10, 10}}, {1, 2, 3}, 0, false, 1});
    CHECK(m.dice == 1 && m.nsd == 1 && m.hd == 0 && m.hd95 == 0 && m.asd_truth == 0 && m.asd_prediction == 0);
    m = boxes((vol_box){{0, 0, 0}, {0, 0, 0}}, (vol_box){{0, 0, 0}, {0, 0, 0}},
              (vol_surface_request){{{1, 1, 1}}, {1, 2, 3}, 0, false, 1});
    CHECK(m.dice == 1 && m.nsd == 1 && m.hd95 == 0);
}

static void check_empty(void) {
    const uint8_t none[24] = {0}, some[24] = {0, 0, 7};
    vol_surface_request q = {{{2, 3, 4}}, {1, 3, 2}, 100, false, 1};
    vol_surface m = measure(none, none, &q);
    CHECK(m.undefined == VOL_BOTH_EMPTY && m.truth == 0 && m.prediction == 0);
    CHECK(isnan(m.dice) && isnan(m.nsd) && isnan(m.hd95) && isnan(m.hd) && isnan(m.asd_truth) &&
          isnan(m.asd_prediction));
    CHECK(isnan(m.overlap_truth) && isnan(m.overlap_prediction));
    m = measure(none, some, &q);
    CHECK(m.undefined == VOL_TRUTH_EMPTY && m.dice == 0 && m.nsd == 0 && m.prediction == 1);
    CHECK(isnan(m.hd95) && isnan(m.hd) && isnan(m.asd_truth) && isnan(m.asd_prediction));
    CHECK(isnan(m.overlap_truth) && m.overlap_prediction == 0);
    m = measure(some, none, &q);
    CHECK(m.undefined == VOL_PREDICTION_EMPTY && m.dice == 0 && m.nsd == 0);
    CHECK(isnan(m.hd95) && isnan(m.asd_truth) && m.overlap_truth == 0 && isnan(m.overlap_prediction));
    CHECK(vol_surface_bytes((vol_shape){{INT32_MAX, INT32_MAX, INT32_MAX}}, false, 1) == SIZE_MAX);
    CHECK(vol_surface_bytes((vol_shape){{1, INT64_MAX, 1}}, true, 1) == SIZE_MAX);
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

/* What holds for marching cubes whatever the triangles: one kind of cell up to turns, mirrors and inside-out; a corner
   cut off, an edge, a plane, known by hand. */
static void check_areas(void) {
    double cubic[256], a[256];
    const double size[3] = {3, 0.5, 2};
    vol_surface_areas((double[]){1, 1, 1}, cubic);
    vol_surface_areas(size, a);
    CHECK(cubic[0] == 0 && cubic[255] == 0);
    CHECK(near(cubic[1], sqrt(3) / 8) && near(cubic[3], sqrt(0.5)) && near(cubic[0x0f], 1));
    CHECK(near(a[0x0f], 0.5 * 2) && near(a[0x33], 3 * 2) && near(a[0x55], 3 * 0.5));
    CHECK(near(a[3], 2 * sqrt(3 * 3 + 0.5 * 0.5) / 2)); /* a ridge along x: its length times the cut across */
    CHECK(near(cubic[0x69], 4 * cubic[1]) && near(cubic[0x81], 2 * cubic[1]) && near(cubic[9], 2 * cubic[1]));
    /* three around a corner: a pentagon; four: a flat hexagon, and one that is not */
    CHECK(near(cubic[7], 0.5 + sqrt(3) * 3 / 8) && near(cubic[23], 6 * cubic[1]));
    CHECK(near(cubic[27], sqrt(3) / 8 + sqrt(3) * 3 / 8 + sqrt(0.5)));
    bool positive = true, inside_out = true, mirrored = true;
    for (unsigned code = 1; code < 255; code++) {
        unsigned z = code >> 4 | (code & 15) << 4, x = (code & 0xaa) >> 1 | (code & 0x55) << 1;
        positive &= a[code] > 0;
        /* with four inside, which are cut off one by one matters */
        unsigned inside = 0;
        for (int bit = 0; bit < 8; bit++) inside += code >> bit & 1;
        if (inside != 4) inside_out &= fabs(a[code] - a[255 - code]) <= 1e-12;
        mirrored &= fabs(a[code] - a[z]) <= 1e-12 && fabs(a[code] - a[x]) <= 1e-12;
    }
    CHECK(positive && inside_out && mirrored);

    double length[16];
    vol_contour_lengths((double[]){3, 4}, length);
    static const double want[16] = {0, 2.5, 2.5, 4, 2.5, 3, 5, 2.5, 2.5, 5, 3, 2.5, 4, 2.5, 2.5, 0};
    CHECK(memcmp(length, want, sizeof want) == 0);
}

/* ---- the definition, slowly ------------------------------------------------------------------------------------- */

typedef struct surfel {
    double at[3], area, distance;
} surfel;

static unsigned code_at(const uint8_t *mask, vol_shape s, bool flat, int64_t z, int64_t y, int64_t x) {
    unsigned code = 0;
    for (int64_t k = 0; k < 8; k++) {
        int64_t w = z + (k >> 2) - 1, v = y + (k >> 1 & 1) - 1, u = x + (k & 1) - 1;
        if (flat) w = k < 4 ? -1 : 0; /* the last four bits alone */
        bool in = w >= 0 && v >= 0 && u >= 0 && w < s.n[0] && v < s.n[1] && u < s.n[2] &&
                  mask[(w * s.n[1] + v) * s.n[2] + u] != 0;
        code = code << 1 | in;
    }
    return code;
}

static size_t surfels(const uint8_t *mask, const vol_surface_request *q, surfel *out) {
    double area[256];
    size_t n = 0;
    unsigned full = q->flat ? 15 : 255;
    if (q->flat) vol_contour_lengths(q->spacing + 1, area);
    else vol_surface_areas(q->spacing, area);
    for (int64_t z = 0; z <= (q->flat ? 0 : q->shape.n[0]); z++)
        for (int64_t y = 0; y <= q->shape.n[1]; y++)
            for (int64_t x = 0; x <= q->shape.n[2]; x++) {
                unsigned code = code_at(mask, q->shape, q->flat, z, y, x);
                if (code == 0 || code == full) continue;
                out[n++] = (surfel){
                    {(double)z * q->spacing[0], (double)y * q->spacing[1], (double)x * q->spacing[2]}, area[code], 0};
            }
    return n;
}

static int by_distance(const void *a, const void *b) {
    double d = ((const surfel *)a)->distance, e = ((const surfel *)b)->distance;
    return (d > e) - (d < e);
}

/* area, area within tolerance, mean, 95th percentile, maximum. */
static void judge(surfel *a, size_t n, const surfel *b, size_t m, double tolerance, double out[5]) {
    double running = 0;
    for (int i = 0; i < 5; i++) out[i] = 0;
    for (size_t i = 0; i < n; i++) {
        a[i].distance = (double)INFINITY;
        for (size_t j = 0; j < m; j++) {
            double square = 0;
            for (int k = 0; k < 3; k++) square += (a[i].at[k] - b[j].at[k]) * (a[i].at[k] - b[j].at[k]);
            a[i].distance = fmin(a[i].distance, sqrt(square));
        }
        out[0] += a[i].area;
        if (a[i].distance <= tolerance) out[1] += a[i].area;
        out[2] += a[i].area * a[i].distance;
    }
    out[2] /= out[0];
    qsort(a, n, sizeof *a, by_distance);
    out[4] = out[3] = a[n - 1].distance;
    for (size_t i = n; i-- > 0;) /* from above, where the area passes 5 % */
        if ((running += a[i].area) <= out[0] * 0.05 * (1 + 1e-12)) out[3] = a[i > 0 ? i - 1 : 0].distance;
}

static void check_random(uint64_t seed, vol_surface_request q, uint32_t inside) {
    size_t n = vol_count(q.shape);
    uint8_t *truth = malloc(n), *prediction = malloc(n);
    surfel *a = malloc(8 * n * sizeof *a), *b = malloc(8 * n * sizeof *b);
    for (size_t i = 0; i < n; i++) {
        truth[i] = random_next(&seed) % 100 < inside ? (uint8_t)(1 + i % 255) : 0;
        prediction[i] = random_next(&seed) % 5 ? truth[i] : random_next(&seed) % 100 < inside;
    }
    truth[n / 2] = prediction[n / 3] = 1; /* neither is empty */
    q.threads = 1;
    vol_surface one = measure(truth, prediction, &q);
    q.threads = 3;
    vol_surface many = measure(truth, prediction, &q);
    CHECK(one.undefined == many.undefined); /* behind it is padding */
    CHECK(memcmp(&one.truth, &many.truth, sizeof one - offsetof(vol_surface, truth)) == 0);
    size_t na = surfels(truth, &q, a), nb = surfels(prediction, &q, b);
    double x[5], y[5];
    judge(a, na, b, nb, q.tolerance, x);
    judge(b, nb, a, na, q.tolerance, y);
    const double got[] = {one.asd_truth,     one.asd_prediction,     one.hd, one.hd95, one.nsd,
                          one.overlap_truth, one.overlap_prediction, 1};
    const double want[] = {
        x[2], y[2], fmax(x[4], y[4]), fmax(x[3], y[3]), (x[1] + y[1]) / (x[0] + y[0]), x[1] / x[0], y[1] / y[0], 1};
    CHECK_CLOSE("surface metrics", got, want, 8, 1e-12, 1e-12);
    free(truth), free(prediction), free(a), free(b);
}

int main(void) {
    check_known();
    check_empty();
    check_areas();
    static const vol_surface_request requests[] = {
        {{{1, 1, 1}}, {1, 1, 1}, 1, false, 1},       {{{7, 6, 5}}, {1, 3, 2}, 1.2, false, 1},
        {{{3, 9, 8}}, {2.5, 0.7, 1.1}, 1, false, 1}, {{{8, 4, 11}}, {0.3, 1.9, 0.8}, 0.5, false, 1},
        {{{1, 12, 9}}, {1, 3, 2}, 1, true, 1},       {{{1, 8, 14}}, {7, 0.6, 1.7}, 1.5, true, 1},
        {{{1, 9, 7}}, {4, 0.6, 1.7}, 1.5, false, 1}};
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        for (uint32_t inside = 1; inside <= 100; inside += 33) check_random(31 * i + inside, requests[i], inside);
    return test_summary();
}
