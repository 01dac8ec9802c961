/* The whole way of a scan through the public API, against the pipeline fixture (PyTorch, float64), and the API's promises. */
#include <math.h>

#include "../nn/segvol/segvol.h"
#include "../vol/vol.h"
#include "bright.h"
#include "random.h"
#include "tolerances.h"

/* ---- the pipeline fixture ------------------------------------------------------------------------------------- */

static fixture_array read_of(const fixture *f, const char *scan, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "%s.%s", scan, name);
    return fixture_read(f, full);
}

static bool equal_six(const int64_t got[6], const double want[6]) {
    for (int i = 0; i < 6; i++)
        if ((double)got[i] != want[i]) return false;
    return true;
}

/* Compares the sampled logits over the crop: every step[axis]-th voxel. */
static void check_logits(const fixture *f, const char *scan, const char *name, const float *logits,
                         const int64_t shape[3], const int64_t crop[6], const size_t step[3]) {
    fixture_array want = read_of(f, scan, name);
    real *got = malloc(want.array.count * sizeof *got);
    size_t n = 0;
    for (int64_t z = crop[0]; z <= crop[3]; z += (int64_t)step[0])
        for (int64_t y = crop[1]; y <= crop[4]; y += (int64_t)step[1])
            for (int64_t x = crop[2]; x <= crop[5]; x += (int64_t)step[2])
                if (n < want.array.count) got[n++] = (real)logits[(z * shape[1] + y) * shape[2] + x];
    CHECK(n == want.array.count);
    distance d = distance_of(got, want.values, n);
    if (getenv("TEST_VERBOSE") != NULL)
        printf("%s.%s max abs %.2e relative L2 %.2e\n", scan, name, d.max_abs, d.relative_l2);
    if (!CHECK(d.finite && !d.reference_is_zero && d.max_abs <= tolerance_logits.max_abs &&
               d.relative_l2 <= tolerance_logits.relative_l2))
        printf("    %s.%s: max abs %.3e, relative L2 %.3e\n", scan, name, d.max_abs, d.relative_l2);
    free(got);
    fixture_array_free(&want);
}

static void check_report(const fixture *f, const char *scan, size_t object, const double *zoom_box,
                         const segfm_session *s) {
    char name[32];
    segfm_report report;
    segfm_last_report(s, &report);
    fixture_array start = read_of(f, scan, "start"), end = read_of(f, scan, "end");
    for (int axis = 0; axis < 3; axis++)
        CHECK((double)report.crop[axis] == start.values[axis] && (double)report.crop[3 + axis] == end.values[axis] - 1);
    CHECK(equal_six(report.zoom_box, zoom_box));
    snprintf(name, sizeof name, "region%zu", object);
    fixture_array region = read_of(f, scan, name);
    CHECK(equal_six(report.region, region.values));
    snprintf(name, sizeof name, "starts%zu", object);
    fixture_array starts = read_of(f, scan, name);
    CHECK((size_t)report.windows == starts.array.shape[0]);
    fixture_array_free(&start), fixture_array_free(&end), fixture_array_free(&region), fixture_array_free(&starts);
}

static void test_scan(const segfm_model *model, const fixture *f, const char *scan, const size_t step[3]) {
    fixture_array volume = read_of(f, scan, "volume"), boxes = read_of(f, scan, "boxes"),
                  zoom_boxes = read_of(f, scan, "zoom_boxes");
    fixture_array labels = read_of(f, scan, "labels");
    size_t n = volume.array.count;
    int64_t shape[3];
    float *voxels = malloc(n * sizeof *voxels);
    uint8_t *mask = malloc(n), *map = calloc(n, 1);
    segfm_session *s = NULL;
    segfm_error error = {0};
    for (int axis = 0; axis < 3; axis++) shape[axis] = (int64_t)volume.array.shape[axis];
    for (size_t i = 0; i < n; i++) voxels[i] = (float)volume.values[i];
    CHECK(segfm_session_new(model, shape, NULL, NULL, 0, &s, &error) == SEGFM_OK);
    CHECK(segfm_set_volume(s, voxels, &error) == SEGFM_OK);
    for (size_t object = 0; object < boxes.array.shape[0]; object++) {
        int64_t box[6];
        char name[32];
        segfm_report report;
        for (int i = 0; i < 6; i++) box[i] = (int64_t)boxes.values[6 * object + (size_t)i];
        CHECK(segfm_box(s, box, &error) == SEGFM_OK);
        check_report(f, scan, object, zoom_boxes.values + 6 * object, s);
        segfm_last_report(s, &report);
        CHECK(segfm_logits(s, voxels, n, &error) == SEGFM_OK && segfm_mask(s, mask, n, &error) == SEGFM_OK);
        snprintf(name, sizeof name, "logits%zu", object);
        check_logits(f, scan, name, voxels, shape, report.crop, step);
        for (size_t i = 0; i < n; i++)
            if (mask[i] != 0) map[i] = (uint8_t)(object + 1);
    }
    size_t wrong = 0, marked = 0;
    for (size_t i = 0; i < n; i++) {
        wrong += (double)map[i] != labels.values[i];
        marked += map[i] != 0;
    }
    CHECK(wrong == 0 && marked > 0);
    segfm_session_free(s);
    free(voxels), free(mask), free(map);
    fixture_array_free(&volume), fixture_array_free(&boxes), fixture_array_free(&zoom_boxes),
        fixture_array_free(&labels);
}

/* ---- promises of the API -------------------------------------------------------------------------------------- */

enum { Z = 12, Y = 25, X = 47, VOXELS = Z * Y * X };
static const int64_t small[3] = {Z, Y, X};

static float *small_scan(void) {
    float *voxels = malloc(VOXELS * sizeof *voxels);
    for (size_t i = 0; i < VOXELS; i++) voxels[i] = (float)(int)(200 * weights_uniform("test.scan", i));
    return voxels;
}

static void test_refusals(const segfm_model *model) {
    segfm_session *s = NULL;
    segfm_error error = {0};
    uint8_t mask[VOXELS];
    float *voxels = small_scan();
    size_t bytes = 0;
    CHECK(segfm_session_new(model, (int64_t[]){0, 5, 5}, NULL, NULL, 0, &s, &error) == SEGFM_BAD_USAGE && s == NULL);
    CHECK(segfm_session_new(model, (int64_t[]){5, 5, -1}, NULL, NULL, 0, &s, &error) == SEGFM_BAD_USAGE);
    CHECK(segfm_session_bytes(model, (int64_t[]){INT32_MAX, INT32_MAX, INT32_MAX}, NULL, &bytes, &error) ==
          SEGFM_NO_MEMORY);
    for (int looks = -1; looks <= SEGFM_LOOKS + 1; looks += SEGFM_LOOKS + 2) {
        segfm_options options = segfm_options_default();
        options.looks = looks;
        CHECK(segfm_session_new(model, small, &options, NULL, 0, &s, &error) == SEGFM_BAD_USAGE && s == NULL);
    }
    CHECK(segfm_session_new(model, small, NULL, NULL, 0, &s, &error) == SEGFM_OK);
    CHECK(segfm_box(s, (int64_t[]){1, 1, 1, 2, 2, 2}, &error) == SEGFM_BAD_USAGE); /* no scan yet */
    voxels[77] = (float)NAN;
    CHECK(segfm_set_volume(s, voxels, &error) == SEGFM_BAD_INPUT && strstr(error.message, "77") != NULL);
    voxels[77] = 5;
    CHECK(segfm_set_volume(s, voxels, &error) == SEGFM_OK);
    static const int64_t boxes[][6] = {{-1, 0, 0, 3, 3, 3}, {0, 0, 0, Z, 3, 3}, {0, 0, 0, 3, Y, 3}, {0, 0, 0, 3, 3, X},
                                       {4, 0, 0, 3, 3, 3},  {0, 4, 0, 3, 3, 3}, {0, 0, 4, 3, 3, 3}};
    for (size_t i = 0; i < sizeof boxes / sizeof boxes[0]; i++)
        CHECK(segfm_box(s, boxes[i], &error) == SEGFM_BAD_USAGE);
    static const int64_t clicks[][3] = {{-1, 0, 0}, {Z, 0, 0}, {0, Y, 0}, {0, 0, X}, {INT64_MIN, 0, 0}};
    for (size_t i = 0; i < sizeof clicks / sizeof clicks[0]; i++)
        CHECK(segfm_click(s, clicks[i], true, &error) == SEGFM_BAD_USAGE);
    CHECK(segfm_mask(s, mask, VOXELS - 1, &error) == SEGFM_BAD_USAGE);
    CHECK(segfm_mask(s, mask, VOXELS, &error) == SEGFM_OK && memchr(mask, 1, VOXELS) == NULL); /* no prompt, no mask */
    segfm_session_free(s);
    segfm_session_free(NULL);
    segfm_model *none = model == NULL ? NULL : (segfm_model *)&bytes;
    CHECK(segfm_model_open("not weights", 11, NULL, &none, &error) == SEGFM_BAD_INPUT && none == NULL &&
          error.message[0] != '\0');
    segfm_model_close(NULL);
    free(voxels);
}

/* Fills logits (VOXELS) for a box, and a click when asked; memory from the caller. */
static void run_small(const segfm_model *model, int threads, bool click, bool zoom_only, float *logits) {
    segfm_options options = segfm_options_default();
    segfm_session *s = NULL;
    segfm_error error = {0};
    size_t bytes = 0;
    float *voxels = small_scan();
    options.threads = threads;
    options.zoom_only = zoom_only;
    options.max_clicks = 1;
    options.cache_bytes = 1 << 16;
    CHECK(segfm_session_bytes(model, small, &options, &bytes, &error) == SEGFM_OK);
    unsigned char *memory = aligned_alloc(64, bytes + 64);
    memset(memory, 0xA5, bytes + 64);
    CHECK(segfm_session_new(model, small, &options, memory, bytes - 1, &s, &error) == SEGFM_BAD_USAGE && s == NULL);
    CHECK(segfm_session_new(model, small, &options, memory, bytes, &s, &error) == SEGFM_OK);
    CHECK(segfm_set_volume(s, voxels, &error) == SEGFM_OK);
    CHECK(segfm_box(s, (int64_t[]){2, 3, 4, 8, 20, 40}, &error) == SEGFM_OK);
    if (click) {
        CHECK(segfm_click(s, (int64_t[]){5, 11, 17}, false, &error) == SEGFM_OK);
        CHECK(segfm_click(s, (int64_t[]){5, 11, 17}, true, &error) == SEGFM_BAD_USAGE); /* room for one */
    }
    CHECK(segfm_logits(s, logits, VOXELS, &error) == SEGFM_OK);
    segfm_session_free(s);
    bool kept = true; /* nothing is written past the published size */
    for (size_t i = bytes; i < bytes + 64; i++) kept = kept && memory[i] == 0xA5;
    CHECK(kept);
    free(memory);
    free(voxels);
}

static void test_same_bits(const segfm_model *model) {
    float *a = malloc(VOXELS * sizeof *a), *b = malloc(VOXELS * sizeof *b);
    run_small(model, 1, true, false, a);
    run_small(model, 3, true, false, b);
    CHECK(memcmp(a, b, VOXELS * sizeof *a) == 0);
    run_small(model, 2, false, false, b);
    CHECK(memcmp(a, b, VOXELS * sizeof *a) != 0); /* the click did something */
    run_small(model, 2, false, true, a);
    CHECK(memcmp(a, b, VOXELS * sizeof *a) != 0); /* and so does zooming in */
    free(a), free(b);
}

static void test_same_bits_framed(const segfm_model *framed) {
    float *a = malloc(VOXELS * sizeof *a), *b = malloc(VOXELS * sizeof *b);
    run_small(framed, 1, true, false, a);
    run_small(framed, 3, true, false, b);
    CHECK(memcmp(a, b, VOXELS * sizeof *a) == 0);
    run_small(framed, 2, true, true, b);
    CHECK(memcmp(a, b, VOXELS * sizeof *a) == 0); /* there is no zooming in to be left out */
    free(a), free(b);
}

static void count_bytes(void *user, const void *bytes, size_t n) {
    (void)bytes;
    *(size_t *)user += n;
}

/* What can be asked for when a model is opened. */
static void test_opening(void) {
    weights_write_options options = {.variant = "upstream", .provenance = "test"};
    segfm_model_options opening = segfm_model_options_default();
    io_buffer bytes = {0};
    segfm_model *model = NULL;
    segfm_error error = {0};
    size_t done = 0;
    CHECK(opening.threads == 0 && opening.done == NULL);
    CHECK(weights_write(weights_named_config("tiny"), &options, weights_formula_source, NULL, weights_sink_buffer,
                        &bytes, &error) == SEGFM_OK);
    opening.threads = -1;
    CHECK(segfm_model_open(bytes.data, bytes.size, &opening, &model, &error) == SEGFM_BAD_USAGE && model == NULL);
    opening = (segfm_model_options){.threads = 3, .done = count_bytes, .done_user = &done};
    CHECK(segfm_model_open(bytes.data, bytes.size, &opening, &model, &error) == SEGFM_OK);
    CHECK(done > bytes.size / 2 && done < bytes.size);
    segfm_model_close(model);
    io_buffer_free(&bytes);
}

/* A model and a session in the caller's memory: nothing else is needed, nothing is written past it, and the bits are those
   of a model that has its own. */
static void test_memory_of_the_caller(const segfm_model *model) {
    segfm_model_options few = {.threads = 2}; /* without the corrector */
    io_buffer bytes = bright_bytes(true);
    segfm_model *placed = NULL;
    segfm_error error = {0};
    size_t need = 0, without = 0;
    float *a = malloc(VOXELS * sizeof *a), *b = malloc(VOXELS * sizeof *b);
    CHECK(segfm_model_need(bytes.data, bytes.size, NULL, &need, &error) == SEGFM_OK);
    CHECK(segfm_model_need(bytes.data, bytes.size, &few, &without, &error) == SEGFM_OK && without < need);
    CHECK(segfm_model_need(bytes.data, bytes.size - 1, NULL, &without, &error) == SEGFM_BAD_INPUT);
    unsigned char *memory = aligned_alloc(64, need + 64);
    memset(memory, 0xA5, need + 64);
    CHECK(segfm_model_open_in(bytes.data, bytes.size, NULL, memory, need - 1, &placed, &error) == SEGFM_BAD_USAGE &&
          placed == NULL && strstr(error.message, "model memory") != NULL);
    CHECK(segfm_model_open_in(bytes.data, bytes.size, NULL, memory + 8, need, &placed, &error) == SEGFM_BAD_USAGE);
    CHECK(segfm_model_open_in(bytes.data, bytes.size, NULL, memory, need, &placed, &error) == SEGFM_OK);
    io_buffer_free(&bytes); /* it has what it needs */
    CHECK((void *)placed == memory && segfm_model_bytes(placed) == need && segfm_model_bytes(model) == need);
    run_small(model, 1, true, false, a);
    run_small(placed, 2, true, false, b);
    CHECK(memcmp(a, b, VOXELS * sizeof *a) == 0);
    segfm_model_close(placed);
    bool kept = true;
    for (size_t i = need; i < need + 64; i++) kept = kept && memory[i] == 0xA5;
    CHECK(kept);
    memset(memory, 0, need); /* it is the caller's again */
    free(memory), free(a), free(b);
}

/* The cache changes no bit, however small it is, and spares what it says. */
static void test_cache(const segfm_model *model) {
    enum { EMBEDDING = 30 * (48 + 3 * 24) * sizeof(real) }; /* bytes of what a window leaves */
    static const size_t cache_bytes[] = {0, EMBEDDING * 7 / 2, EMBEDDING * 21 / 2,
                                         EMBEDDING * 1000}; /* 1, 3, 10, all */
    static const int64_t reused[] = {0, 2, 9, 0};
    float *voxels = malloc(24 * 45 * 90 * sizeof *voxels), *first = malloc(24 * 45 * 90 * sizeof *first),
          *again = malloc(24 * 45 * 90 * sizeof *again);
    for (size_t i = 0; i < 24 * 45 * 90; i++) voxels[i] = (float)(int)(200 * weights_uniform("test.scan", i));
    for (size_t i = 0; i < 4; i++) {
        segfm_options options = segfm_options_default();
        segfm_session *s = NULL;
        segfm_error error = {0};
        segfm_report report;
        options.cache_bytes = cache_bytes[i];
        CHECK(segfm_session_new(model, (int64_t[]){24, 45, 90}, &options, NULL, 0, &s, &error) == SEGFM_OK);
        CHECK(segfm_set_volume(s, voxels, &error) == SEGFM_OK);
        for (int round = 0; round < 3; round++) {
            CHECK(segfm_box(s, (int64_t[]){3, 5, 8, 20, 40, 80}, &error) == SEGFM_OK);
            CHECK(segfm_logits(s, again, 24 * 45 * 90, &error) == SEGFM_OK);
            segfm_last_report(s, &report);
            if (i == 0 && round == 0) memcpy(first, again, 24 * 45 * 90 * sizeof *first);
            CHECK(memcmp(first, again, 24 * 45 * 90 * sizeof *first) == 0);
            CHECK(report.windows > 10 && report.encoded + report.reused == report.windows + 1);
            CHECK(report.reused == (round == 0 ? 0 : i == 3 ? report.windows + 1 : reused[i] + 1));
        }
        CHECK(segfm_set_volume(s, voxels, &error) == SEGFM_OK &&
              segfm_box(s, (int64_t[]){3, 5, 8, 20, 40, 80}, &error) == SEGFM_OK);
        segfm_last_report(s, &report);
        CHECK(report.reused == 0); /* a new scan shares nothing */
        segfm_session_free(s);
    }
    free(voxels), free(first), free(again);
}

static bool cancel_at(void *user, int64_t done, int64_t total) {
    (void)total;
    return done < *(int64_t *)user;
}

/* A session goes on after a cancelled call as if its prompts had been reset; a second box forgets the first. */
static void test_cancel_and_reset(const segfm_model *model) {
    segfm_options options = segfm_options_default();
    segfm_session *s = NULL;
    segfm_error error = {0};
    float *voxels = small_scan(), *a = malloc(VOXELS * sizeof *a), *b = malloc(VOXELS * sizeof *b);
    uint8_t mask[VOXELS];
    int64_t limit = INT64_MAX;
    const int64_t box[6] = {2, 3, 4, 8, 20, 40}, other[6] = {0, 0, 0, 3, 5, 9};
    options.progress = cancel_at;
    options.progress_user = &limit;
    CHECK(segfm_session_new(model, small, &options, NULL, 0, &s, &error) == SEGFM_OK &&
          segfm_set_volume(s, voxels, &error) == SEGFM_OK);
    CHECK(segfm_box(s, box, &error) == SEGFM_OK && segfm_logits(s, a, VOXELS, &error) == SEGFM_OK);
    for (limit = 0; limit < 2; limit++) {
        CHECK(segfm_box(s, other, &error) == SEGFM_CANCELLED);
        CHECK(segfm_mask(s, mask, VOXELS, &error) == SEGFM_OK && memchr(mask, 1, VOXELS) == NULL);
    }
    limit = INT64_MAX;
    CHECK(segfm_box(s, other, &error) == SEGFM_OK && segfm_click(s, (int64_t[]){1, 2, 3}, true, &error) == SEGFM_OK);
    CHECK(segfm_box(s, box, &error) == SEGFM_OK && segfm_logits(s, b, VOXELS, &error) == SEGFM_OK);
    CHECK(memcmp(a, b, VOXELS * sizeof *a) == 0);
    segfm_reset(s);
    CHECK(segfm_click(s, (int64_t[]){5, 11, 17}, true, &error) == SEGFM_OK); /* a click without a box */
    CHECK(segfm_logits(s, b, VOXELS, &error) == SEGFM_OK && memcmp(a, b, VOXELS * sizeof *a) != 0);
    segfm_session_free(s);
    free(voxels), free(a), free(b);
}

/* Scans at the edges: one voxel, constant, thinner than a patch. */
static void test_odd_scans(const segfm_model *model) {
    static const int64_t shapes[][3] = {{1, 1, 1}, {1, 40, 3}, {30, 1, 2}};
    for (size_t i = 0; i < 3; i++)
        for (int constant = 0; constant < 2; constant++) {
            const int64_t *shape = shapes[i];
            size_t n = (size_t)(shape[0] * shape[1] * shape[2]);
            float voxels[256], logits[256];
            segfm_session *s = NULL;
            segfm_error error = {0};
            for (size_t j = 0; j < n; j++) voxels[j] = constant ? 7 : (float)(j % 5);
            CHECK(segfm_session_new(model, shape, NULL, NULL, 0, &s, &error) == SEGFM_OK &&
                  segfm_set_volume(s, voxels, &error) == SEGFM_OK);
            CHECK(segfm_box(s, (int64_t[]){0, 0, 0, shape[0] - 1, shape[1] - 1, shape[2] - 1}, &error) == SEGFM_OK);
            CHECK(segfm_logits(s, logits, n, &error) == SEGFM_OK);
            bool finite = true;
            for (size_t j = 0; j < n; j++) finite = finite && isfinite(logits[j]);
            CHECK(finite);
            segfm_session_free(s);
        }
}

/* Logits are -100 before the first prompt, and after it outside of the scan's foreground, where the mask is 0. */
static void test_outside(const segfm_model *model) {
    static const int64_t shape[3] = {Z, Y, X}, crop[6] = {2, 5, 7, 10, 20, 40};
    const size_t n = VOXELS;
    float *voxels = malloc(n * sizeof *voxels), *logits = malloc(n * sizeof *logits);
    uint8_t *mask = malloc(n);
    size_t blank = 0, outside = 0, right = 0, inside = 0;
    segfm_session *s = NULL;
    segfm_report report;
    segfm_error error = {0};
    for (int64_t z = 0, i = 0; z < Z; z++)
        for (int64_t y = 0; y < Y; y++)
            for (int64_t x = 0; x < X; x++, i++) {
                bool in = z >= crop[0] && z <= crop[3] && y >= crop[1] && y <= crop[4] && x >= crop[2] && x <= crop[5];
                voxels[i] = in ? (float)(100 + (x + 2 * y + 3 * z) % 50) : 0;
            }
    CHECK(segfm_session_new(model, shape, NULL, NULL, 0, &s, &error) == SEGFM_OK &&
          segfm_set_volume(s, voxels, &error) == SEGFM_OK && segfm_logits(s, logits, n, &error) == SEGFM_OK);
    for (size_t i = 0; i < n; i++) blank += logits[i] == -100;
    CHECK(blank == n);
    CHECK(segfm_box(s, (int64_t[]){3, 8, 9, 9, 20, 30}, &error) == SEGFM_OK &&
          segfm_logits(s, logits, n, &error) == SEGFM_OK && segfm_mask(s, mask, n, &error) == SEGFM_OK);
    segfm_last_report(s, &report);
    CHECK(memcmp(report.crop, crop, sizeof crop) == 0);
    for (size_t i = 0; i < n; i++) {
        outside += voxels[i] == 0;
        right += voxels[i] == 0 && logits[i] == -100 && mask[i] == 0;
        inside += voxels[i] != 0 && logits[i] != -100;
    }
    CHECK(outside > 0 && right == outside && inside == n - outside);
    segfm_session_free(s);
    free(voxels), free(logits), free(mask);
}

/* ---- a window that follows the box ----------------------------------------------------------------------------- */

/* A scan of the window's size, and twice as much along each axis: the same eight times, so that it is normalised alike. */
enum { TZ = 10, TY = 18, TX = 35, TILE = TZ * TY * TX };
static const int64_t tile[3] = {TZ, TY, TX}, tiles[3] = {2 * TZ, 2 * TY, 2 * TX};

static float *tiled(int64_t times) {
    float *voxels = malloc((size_t)(times * times * times) * TILE * sizeof *voxels), *to = voxels;
    for (int64_t z = 0; z < times * TZ; z++)
        for (int64_t y = 0; y < times * TY; y++)
            for (int64_t x = 0; x < times * TX; x++) {
                size_t i = (size_t)((z % TZ * TY + y % TY) * TX + x % TX);
                bool corner = i == 0 || i == TILE - 1; /* so that nothing is cropped */
                *to++ = corner ? 250 : (float)(100 + 50 * (int)(4 * weights_uniform("test.tile", i)));
            }
    return voxels;
}

static segfm_session *session_of(const segfm_model *model, const int64_t shape[3], int looks, unsigned click_by,
                                 const float *voxels) {
    segfm_options options = segfm_options_default();
    segfm_session *s = NULL;
    options.looks = looks;
    options.click_by = click_by;
    CHECK(segfm_session_new(model, shape, &options, NULL, 0, &s, NULL) == SEGFM_OK &&
          segfm_set_volume(s, voxels, NULL) == SEGFM_OK);
    return s;
}

/* The tile at (z,y,x) of the large scan, and whether all else of it is as it is where nothing was shown. */
static bool take_tile(const float *logits, const int64_t at[3], float *out) {
    bool blank = true;
    for (int64_t z = 0; z < 2 * TZ; z++)
        for (int64_t y = 0; y < 2 * TY; y++)
            for (int64_t x = 0; x < 2 * TX; x++) {
                bool in = z >= at[0] && z < at[0] + TZ && y >= at[1] && y < at[1] + TY && x >= at[2] && x < at[2] + TX;
                float logit = logits[(z * 2 * TY + y) * 2 * TX + x];
                if (in) *out++ = logit;
                else blank = blank && logit == -100;
            }
    return blank;
}

/* Shown a part of a scan in one look, the model says what it says of that part alone. Box and margins are one tile of eight: 6 + 2·2,
   12 + 2·3, 24 + 6 and what is left of 6 at the border. */
static void test_framed_part(const segfm_model *framed) {
    const int64_t at[3] = {TZ, TY, 0}, clicks[][3] = {{4, 9, 17}, {6, 5, 20}, {2, 12, 9}};
    const int64_t box[6] = {2, 3, 5, 7, 14, 28};
    float *small_voxels = tiled(1), *voxels = tiled(2), *want = malloc(TILE * sizeof *want),
          *got = malloc(TILE * sizeof *got), *logits = malloc(8 * TILE * sizeof *logits);
    segfm_session *alone = session_of(framed, tile, 1, SEGFM_BY_BEST, small_voxels),
                  *part = session_of(framed, tiles, 1, SEGFM_BY_BEST, voxels);
    segfm_report report;
    int64_t moved[6];
    for (int i = 0; i < 6; i++) moved[i] = box[i] + at[i % 3];
    CHECK(segfm_box(alone, box, NULL) == SEGFM_OK && segfm_box(part, moved, NULL) == SEGFM_OK);
    for (size_t i = 0; i <= 3; i++) {
        segfm_last_report(part, &report);
        CHECK(memcmp(report.zoom_box, box, sizeof box) == 0 && report.decoded == 1 && report.encoded == (i == 0) &&
              report.windows == 0 && report.region[0] == -1);
        CHECK(segfm_logits(alone, want, TILE, NULL) == SEGFM_OK &&
              segfm_logits(part, logits, 8 * TILE, NULL) == SEGFM_OK);
        CHECK(take_tile(logits, at, got));
        CHECK(memcmp(got, want, TILE * sizeof *got) == 0);
        if (i == 3) break;
        for (int k = 0; k < 3; k++) moved[k] = clicks[i][k] + at[k];
        CHECK(segfm_click(alone, clicks[i], i != 1, NULL) == SEGFM_OK &&
              segfm_click(part, moved, i != 1, NULL) == SEGFM_OK);
    }
    /* a background click beside the view: its voxel and nothing else, and no network runs */
    memcpy(want, got, TILE * sizeof *got);
    CHECK(segfm_click(part, (int64_t[]){3, 4, 50}, false, NULL) == SEGFM_OK);
    segfm_last_report(part, &report);
    CHECK(report.decoded == 0 && report.corrected == 0 && report.changed == 0 && report.changed_box[5] == -1);
    CHECK(segfm_logits(part, logits, 8 * TILE, NULL) == SEGFM_OK && logits[(3 * 2 * TY + 4) * 2 * TX + 50] == -100);
    CHECK(take_tile(logits, at, got) && memcmp(got, want, TILE * sizeof *got) == 0);
    segfm_session_free(alone), segfm_session_free(part);
    free(small_voxels), free(voxels), free(want), free(got), free(logits);
}

typedef struct bits {
    float logits[8 * TILE];
    uint8_t mask[8 * TILE];
} bits;

static void take_bits(const segfm_session *s, bits *out) {
    CHECK(segfm_logits(s, out->logits, 8 * TILE, NULL) == SEGFM_OK &&
          segfm_mask(s, out->mask, 8 * TILE, NULL) == SEGFM_OK);
}

static bool same_bits(const segfm_session *s, const bits *want) {
    bits *got = calloc(1, sizeof *got);
    take_bits(s, got);
    bool same = memcmp(got, want, sizeof *got) == 0;
    free(got);
    return same;
}

/* Exactly the voxels of the box have a logit of the network's. */
static bool shows(const bits *b, vol_box view) {
    bool right = true;
    for (int64_t z = 0, i = 0; z < 2 * TZ; z++)
        for (int64_t y = 0; y < 2 * TY; y++)
            for (int64_t x = 0; x < 2 * TX; x++, i++) {
                const vol_box voxel = {{z, y, x}, {z, y, x}};
                right = right && (b->logits[i] != -100) == !vol_box_is_empty(vol_box_intersect(voxel, view));
            }
    return right;
}

static bool never(void *user, int64_t done, int64_t total) {
    (void)done, (void)total;
    return !*(const bool *)user;
}

/* A foreground click beside the box moves the window: the box grows to hold it, what is around it can be segmented, all is decoded
   anew. Undo, redo and another click give the bits that belong to the clicks; cancelled
   before it begins, it changes nothing. */
static void test_framed_move(const segfm_model *framed) {
    const vol_box view = {{2, 2, 2}, {13, 26, 38}}, moved = {{2, 2, 0}, {15, 26, 55}};
    const int64_t box[6] = {4, 6, 8, 11, 22, 32}, near[3] = {6, 9, 30}, far[3] = {13, 20, 46}, beside[3] = {2, 1, 60},
                  edge[3] = {1, 1, 1};
    bits *began = malloc(sizeof *began), *before = malloc(sizeof *before), *after = malloc(sizeof *after);
    float *voxels = tiled(2);
    bool cancelled = false;
    segfm_options options = segfm_options_default();
    segfm_session *s = NULL;
    segfm_report r;
    options.progress = never, options.progress_user = &cancelled;
    CHECK(segfm_session_new(framed, tiles, &options, NULL, 0, &s, NULL) == SEGFM_OK &&
          segfm_set_volume(s, voxels, NULL) == SEGFM_OK && segfm_box(s, box, NULL) == SEGFM_OK);
    take_bits(s, began);
    CHECK(segfm_click(s, near, true, NULL) == SEGFM_OK);
    take_bits(s, before);
    CHECK(shows(before, view));
    cancelled = true;
    CHECK(segfm_click(s, far, true, NULL) == SEGFM_CANCELLED && same_bits(s, before));
    cancelled = false;
    CHECK(segfm_click(s, far, true, NULL) == SEGFM_OK);
    segfm_last_report(s, &r);
    CHECK(r.encoded == SEGFM_LOOKS && r.decoded == SEGFM_LOOKS && r.windows == 0 && r.clicks == 2 && r.changed > 1);
    take_bits(s, after);
    size_t voxel = (size_t)((far[0] * 2 * TY + far[1]) * 2 * TX + far[2]);
    CHECK(shows(after, moved) && after->mask[voxel] == 1 && after->logits[voxel] >= 10 &&
          before->logits[voxel] == -100);
    for (int round = 0; round < 2; round++) {
        cancelled = true;
        CHECK(segfm_undo(s, NULL) == SEGFM_CANCELLED && same_bits(s, after));
        cancelled = false;
        CHECK(segfm_undo(s, NULL) == SEGFM_OK && same_bits(s, before));
        segfm_last_report(s, &r);
        CHECK(r.encoded == SEGFM_LOOKS && r.decoded == SEGFM_LOOKS && r.clicks == 1);
        cancelled = true;
        CHECK(segfm_redo(s, NULL) == SEGFM_CANCELLED && same_bits(s, before));
        cancelled = false;
        CHECK(segfm_redo(s, NULL) == SEGFM_OK && same_bits(s, after));
    }
    /* two steps back, and a background click where the window was not */
    CHECK(segfm_undo(s, NULL) == SEGFM_OK && segfm_undo(s, NULL) == SEGFM_OK && same_bits(s, began));
    CHECK(segfm_click(s, near, true, NULL) == SEGFM_OK && same_bits(s, before));
    CHECK(segfm_click(s, beside, false, NULL) == SEGFM_OK && same_bits(s, before));
    segfm_last_report(s, &r);
    CHECK(r.decoded == 0 && r.encoded == 0 && r.changed == 0);
    /* a background click that the second look alone shows: the decoder is told, and undo gives the bits back */
    CHECK(segfm_undo(s, NULL) == SEGFM_OK && segfm_click(s, edge, false, NULL) == SEGFM_OK);
    segfm_last_report(s, &r);
    CHECK(r.decoded == SEGFM_LOOKS && r.encoded == 0);
    take_bits(s, after);
    CHECK(segfm_click(s, (int64_t[]){9, 14, 20}, true, NULL) == SEGFM_OK && !same_bits(s, after));
    CHECK(segfm_undo(s, NULL) == SEGFM_OK && same_bits(s, after));
    CHECK(segfm_undo(s, NULL) == SEGFM_OK && same_bits(s, before));
    segfm_session_free(s);
    free(voxels), free(began), free(before), free(after);
}

/* As many objects as there are labels: above 255 they are what they are, and above 65535 there is none. */
static void test_many_objects(const segfm_model *model) {
    enum { SIZE = 3 * 4 * 5, MOST = 65535 };
    static const int with_voxels[] = {1, 255, 256, 257, 300, 40000, MOST};
    const int64_t shape[3] = {3, 4, 5};
    float voxels[SIZE];
    uint16_t want[SIZE] = {0}, got[SIZE];
    uint8_t mask[SIZE];
    for (int i = 0; i < SIZE; i++) voxels[i] = (float)(10 + i % 7 * 3);
    segfm_options options = segfm_options_default();
    segfm_session *s = NULL;
    segfm_error e = {0};
    options.keep_objects = true;
    CHECK(segfm_session_new(model, shape, &options, NULL, 0, &s, NULL) == SEGFM_OK &&
          segfm_set_volume(s, voxels, NULL) == SEGFM_OK);
    bool all = true;
    for (int label = 1, k = 0; label <= MOST; label++) {
        if (label == with_voxels[k]) {
            const int64_t inside[3] = {k % 3, k % 4, k % 5}, outside[3] = {(k + 1) % 3, k % 4, k % 5};
            CHECK(segfm_click(s, inside, true, NULL) == SEGFM_OK && segfm_click(s, outside, false, NULL) == SEGFM_OK);
            CHECK(segfm_mask(s, mask, SIZE, NULL) == SEGFM_OK);
            for (int i = 0; i < SIZE; i++)
                if (mask[i] != 0) want[i] = (uint16_t)label;
            CHECK(want[(inside[0] * 4 + inside[1]) * 5 + inside[2]] == label);
            CHECK(segfm_labels(s, got, SIZE, NULL) == SEGFM_OK && memcmp(got, want, sizeof want) == 0);
            k++;
        }
        if (label < MOST) all = all && segfm_next_object(s, NULL) == SEGFM_OK;
    }
    CHECK(all && segfm_next_object(s, &e) == SEGFM_BAD_USAGE && strstr(e.message, "65535") != NULL);
    CHECK(segfm_labels(s, got, SIZE, NULL) == SEGFM_OK && memcmp(got, want, sizeof want) == 0);
    segfm_session_free(s);
}

/* The network by itself, to be shown what vol.h says that a window shows. */
typedef struct network {
    segvol_model net;
    segvol_workspace ws;
    void *memory;
    real *image, *embedding, *logits;
} network;

static segfm_status lay_out(network *n, const weights_file *file, nn_arena *arena) {
    segfm_status status = segvol_model_bind(&n->net, file, true, arena, 1, NULL, NULL, NULL);
    n->image = nn_arena_reals(arena, n->net.window_voxels);
    n->embedding = nn_arena_reals(arena, segvol_image_count(&n->net));
    n->logits = nn_arena_reals(arena, n->net.window_voxels);
    return status == SEGFM_OK ? segvol_workspace_plan(&n->ws, &n->net, 4, 1, false, arena, NULL) : status;
}

static network framed_network(void) {
    network n = {0};
    io_buffer bytes = bright_framed_bytes(true, 25);
    weights_file file;
    nn_arena arena = {0};
    CHECK(weights_open(bytes.data, bytes.size, &file, NULL) == SEGFM_OK && lay_out(&n, &file, &arena) == SEGFM_OK);
    n.memory = aligned_reals(arena.used / sizeof(real) + 1);
    arena = (nn_arena){.base = n.memory, .capacity = arena.used};
    CHECK(lay_out(&n, &file, &arena) == SEGFM_OK);
    weights_close(&file);
    io_buffer_free(&bytes);
    return n;
}

/* A scan whose foreground is not all of it: the large one with darkness around it. */
static const vol_shape dark_shape = {{2 * TZ, 2 * TY, 2 * TX}};
static const vol_box lit = {{1, 2, 3}, {2 * TZ - 3, 2 * TY - 2, 2 * TX - 6}};

static float *dark_scan(void) {
    float *voxels = tiled(2);
    for (int64_t z = 0, i = 0; z < 2 * TZ; z++)
        for (int64_t y = 0; y < 2 * TY; y++)
            for (int64_t x = 0; x < 2 * TX; x++, i++) {
                const vol_box at = {{z, y, x}, {z, y, x}};
                if (vol_box_is_empty(vol_box_intersect(at, lit))) voxels[i] = 0;
                else voxels[i] += (float)(x + 3 * y);
            }
    return voxels;
}

/* What the window shows of a box of the lit part → n->image; returns the view, *inside: the box in the window. */
static vol_box show_box(network *n, const float *voxels, vol_box box, vol_box *inside) {
    size_t count = vol_count(dark_shape);
    real *image = malloc(count * sizeof *image), *crop = malloc(count * sizeof *crop);
    vol_shape window = {{TZ, TY, TX}}, shape = vol_box_shape(lit);
    vol_foreground stats;
    vol_foreground_stats(voxels, count, 1, &stats);
    vol_normalise(voxels, count, &stats, 1, image);
    vol_crop(image, dark_shape, lit, crop);
    vol_box view = vol_frame(box, shape, 25);
    *inside = vol_zoom_box(box, view, window);
    vol_zoom(crop, shape, view, n->image, window, 1);
    vol_contrast(n->image, window, *inside);
    free(image), free(crop);
    return view;
}

/* The network's logits of n->image, of a box in it and of a click in the lit part, where there is one → n->logits */
static void logits_of(network *n, vol_box inside, vol_box view, const int64_t *click) {
    real box[6];
    int64_t at[3] = {0};
    for (int k = 0; k < 3; k++) box[k] = (real)inside.lo[k], box[3 + k] = (real)inside.hi[k];
    if (click != NULL) vol_zoom_point(click, view, (vol_shape){{TZ, TY, TX}}, at);
    const segvol_point point = {(real)at[0], (real)at[1], (real)at[2], 1};
    segvol_encode(&n->net, &n->ws, n->image, n->embedding);
    segvol_decode(&n->net, &n->ws, n->embedding, &(segvol_prompts){&point, click != NULL, box});
    segvol_upsample(&n->net, &n->ws, 0, n->logits);
}

/* A box of the scan in the lit part, grown by a tenth towards its beginning (look 1) or its end (look 2). */
static vol_box look_at(vol_box box, int look) {
    box = vol_box_intersect(box, lit);
    for (int k = 0; k < 3; k++) {
        int64_t tenth = (int64_t)floor(0.1 * (double)(box.hi[k] - box.lo[k] + 1) + 0.5);
        box.lo[k] -= lit.lo[k], box.hi[k] -= lit.lo[k];
        if (look == 1) box.lo[k] = box.lo[k] > tenth ? box.lo[k] - tenth : 0;
        if (look == 2) box.hi[k] += tenth;
    }
    return vol_box_intersect(box, vol_box_whole(vol_box_shape(lit)));
}

/* What a session shows of a box, and of a click in the lit part, in so many looks: the mean of the network's logits over the first
   one's view, from the level of the largest expected overlap on, −100 elsewhere. *view, in the scan, and *inside: of the first. */
static void mean_of_looks(network *n, const float *voxels, vol_box box, const int64_t *click, int looks, float *out,
                          vol_box *view, vol_box *inside) {
    vol_shape window = {{TZ, TY, TX}};
    real *sum = calloc(TILE, sizeof *sum), *logits = malloc(vol_count(dark_shape) * sizeof *logits);
    for (int i = looks - 1; i >= 0; i--) {
        *view = show_box(n, voxels, look_at(box, i), inside);
        logits_of(n, *inside, *view, click);
        if (i > 0) vol_rezoom(n->logits, window, *view, vol_frame(look_at(box, 0), vol_box_shape(lit), 25), 1, sum);
    }
    for (size_t i = 0; i < TILE; i++) sum[i] = (sum[i] + n->logits[i]) / (real)looks;
    real level;
    vol_expected_dice(sum, TILE, &level);
    for (size_t i = 0; i < TILE; i++) sum[i] -= level;
    for (int k = 0; k < 3; k++) view->lo[k] += lit.lo[k], view->hi[k] += lit.lo[k];
    vol_fill(logits, dark_shape, vol_box_whole(dark_shape), -100);
    vol_unzoom(sum, window, *view, *view, dark_shape, 1, logits);
    for (size_t i = 0; i < vol_count(dark_shape); i++) out[i] = (float)logits[i];
    free(sum), free(logits);
}

/* But for the order of three additions. */
static bool same_but_for_rounding(const float *got, const float *want) {
    bool same = true;
    for (size_t i = 0; i < 8 * TILE; i++) same = same && fabsf(got[i] - want[i]) <= 1e-5f * (1 + fabsf(want[i]));
    return same;
}

static bool give_box(segfm_session *s, vol_box b, float *logits) {
    const int64_t box[6] = {b.lo[0], b.lo[1], b.lo[2], b.hi[0], b.hi[1], b.hi[2]};
    return segfm_box(s, box, NULL) == SEGFM_OK && segfm_logits(s, logits, 8 * TILE, NULL) == SEGFM_OK;
}

/* The session's logits are the network's, of the means and with the contrast that the box asks for, then with a click: boxes smaller and larger
   than the window, one that ends outside of the foreground, one voxel; in one look, in two, in all. */
static void test_framed_window(const segfm_model *framed) {
    static const vol_box boxes[] = {{{8, 10, 20}, {11, 14, 25}},
                                    {{1, 2, 3}, {17, 34, 64}},
                                    {{12, 20, 40}, {19, 35, 69}},
                                    {{17, 34, 64}, {17, 34, 64}}};
    float *voxels = dark_scan(), *got = malloc(8 * TILE * sizeof *got), *want = malloc(8 * TILE * sizeof *want);
    network n = framed_network();
    for (size_t i = 0; i < 3 * sizeof boxes / sizeof boxes[0]; i++) {
        segfm_report report;
        vol_box inside, view, box = boxes[i / 3];
        int looks = 1 + (int)i % 3;
        segfm_session *s = session_of(framed, tiles, looks < 3 ? looks : 0, SEGFM_BY_DECODER, voxels);
        size_t shown = 0;
        mean_of_looks(&n, voxels, box, NULL, looks, want, &view, &inside);
        CHECK(give_box(s, box, got));
        CHECK(same_but_for_rounding(got, want));
        if (looks == 1) CHECK(memcmp(got, want, 8 * TILE * sizeof *got) == 0);
        segfm_last_report(s, &report);
        CHECK(report.crop[1] == lit.lo[1] && report.crop[5] == lit.hi[2]);
        CHECK(report.encoded == looks && report.decoded == looks);
        for (int k = 0; k < 3; k++)
            CHECK(report.box[k] == vol_box_intersect(box, lit).lo[k] &&
                  report.box[3 + k] == vol_box_intersect(box, lit).hi[k]);
        for (int k = 0; k < 3; k++) CHECK(report.zoom_box[k] == inside.lo[k] && report.zoom_box[3 + k] == inside.hi[k]);
        for (size_t v = 0; v < 8 * TILE; v++) shown += got[v] != -100;
        CHECK(shown == vol_count(vol_box_shape(view)));
        const int64_t click[3] = {box.hi[0] < 17 ? box.hi[0] : 17, box.lo[1], box.lo[2]};
        const int64_t in_lit[3] = {click[0] - lit.lo[0], click[1] - lit.lo[1], click[2] - lit.lo[2]};
        float *clicked = &want[(click[0] * 2 * TY + click[1]) * 2 * TX + click[2]];
        mean_of_looks(&n, voxels, box, in_lit, looks, want, &view, &inside);
        *clicked = fmaxf(*clicked, 10);
        CHECK(segfm_click(s, click, true, NULL) == SEGFM_OK && segfm_logits(s, got, 8 * TILE, NULL) == SEGFM_OK);
        CHECK(same_but_for_rounding(got, want));
        segfm_session_free(s);
    }
    free(n.memory), free(voxels), free(got), free(want);
}

/* Two boxes whose margins end at the same borders have the same view, but not the same contrast. */
static void test_framed_contrast(const segfm_model *framed) {
    static const vol_box boxes[] = {{{1, 2, 3}, {17, 34, 64}}, {{4, 7, 12}, {15, 29, 54}}};
    float *voxels = dark_scan(), *got = malloc(8 * TILE * sizeof *got), *want[2];
    segfm_session *s = session_of(framed, tiles, 0, SEGFM_BY_BEST, voxels);
    network n = framed_network();
    vol_box view[2], inside[2];
    real *first = malloc(TILE * sizeof *first);
    for (size_t i = 0; i < 2; i++) {
        want[i] = malloc(8 * TILE * sizeof *want[i]);
        mean_of_looks(&n, voxels, boxes[i], NULL, SEGFM_LOOKS, want[i], &view[i],
                      &inside[i]); /* the first look is the last made */
        if (i == 0) memcpy(first, n.image, TILE * sizeof *first);
    }
    CHECK(memcmp(&view[0], &view[1], sizeof view[0]) == 0);
    CHECK(memcmp(first, n.image, TILE * sizeof *first) != 0);
    for (size_t round = 0; round < 6; round++) { /* every second time the same box once more */
        segfm_report report;
        CHECK(give_box(s, boxes[round / 2 % 2], got));
        CHECK(same_but_for_rounding(got, want[round / 2 % 2]));
        segfm_last_report(s, &report);
        CHECK(report.encoded == SEGFM_LOOKS * (round % 2 == 0) && report.reused == SEGFM_LOOKS * (round % 2 == 1));
    }
    segfm_session_free(s);
    free(n.memory), free(voxels), free(got), free(want[0]), free(want[1]), free(first);
}

/* How sure the network is of what it finds in a box of the crop with a click there. */
static double sureness(network *n, const real *image, vol_shape shape, vol_box box, const int64_t click[3]) {
    vol_shape window = {{n->net.config.spatial[0], n->net.config.spatial[1], n->net.config.spatial[2]}};
    vol_box view = vol_frame(box, shape, n->net.config.frame), inside = vol_zoom_box(box, view, window);
    int64_t at[3];
    real level;
    vol_zoom(image, shape, view, n->image, window, 1);
    vol_contrast(n->image, window, inside);
    vol_zoom_point(click, view, window, at);
    const segvol_point point = {(real)at[0], (real)at[1], (real)at[2], 1};
    real corners[6];
    for (int k = 0; k < 3; k++) corners[k] = (real)inside.lo[k], corners[3 + k] = (real)inside.hi[k];
    segvol_encode(&n->net, &n->ws, n->image, n->embedding);
    segvol_decode(&n->net, &n->ws, n->embedding, &(segvol_prompts){&point, 1, corners});
    segvol_upsample(&n->net, &n->ws, 0, n->logits);
    return vol_expected_dice(n->logits, n->net.window_voxels, &level);
}

/* A click without a box: of the cubes around it that are cut to the crop the box becomes that of which the network is surest, and all is
   as if the user had drawn it; also after a box, which is forgotten. */
static void test_framed_clicks(const segfm_model *framed) {
    const int64_t clicks[][3] = {{9, 17, 33}, {12, 20, 50}, {1, 2, 3}}, other[6] = {3, 4, 5, 9, 20, 40};
    float *voxels = tiled(2), *want = malloc(8 * TILE * sizeof *want), *got = malloc(8 * TILE * sizeof *got);
    segfm_session *a = NULL, *b = NULL;
    segfm_report r;
    CHECK(segfm_session_new(framed, tiles, NULL, NULL, 0, &a, NULL) == SEGFM_OK &&
          segfm_set_volume(a, voxels, NULL) == SEGFM_OK);
    CHECK(segfm_session_new(framed, tiles, NULL, NULL, 0, &b, NULL) == SEGFM_OK &&
          segfm_set_volume(b, voxels, NULL) == SEGFM_OK);
    segfm_last_report(b, &r);
    CHECK(r.box[0] == -1 && r.box[5] == -1);
    vol_shape scan = {{tiles[0], tiles[1], tiles[2]}}, shape;
    vol_box crop = {{r.crop[0], r.crop[1], r.crop[2]}, {r.crop[3], r.crop[4], r.crop[5]}};
    shape = vol_box_shape(crop);
    network n = framed_network();
    real *whole = malloc(8 * TILE * sizeof *whole), *image = malloc(8 * TILE * sizeof *image);
    vol_foreground stats;
    vol_foreground_stats(voxels, 8 * TILE, 1, &stats);
    vol_normalise(voxels, 8 * TILE, &stats, 1, whole);
    vol_crop(whole, scan, crop, image);
    for (int round = 0; round < 3; round++) {
        const int64_t *click = clicks[round];
        if (round == 1) CHECK(segfm_box(b, other, NULL) == SEGFM_OK), segfm_reset(b);
        CHECK(segfm_click(b, click, true, NULL) == SEGFM_OK);
        segfm_last_report(b, &r);
        double most = -1, chosen = -2;
        int64_t at[3], box[6], tries = 0;
        memcpy(box, r.box, sizeof box); /* of the click alone: another may make it grow */
        for (int k = 0; k < 3; k++) at[k] = click[k] - crop.lo[k];
        bool covers = false;
        for (int64_t reach = 3; !covers; reach *= 2, tries++) {
            vol_box cube;
            bool is = covers = true;
            for (int k = 0; k < 3; k++) {
                cube.lo[k] = at[k] < reach ? 0 : at[k] - reach;
                cube.hi[k] = at[k] + reach < shape.n[k] ? at[k] + reach : shape.n[k] - 1;
                covers = covers && cube.lo[k] == 0 && cube.hi[k] == shape.n[k] - 1;
                is = is && cube.lo[k] + crop.lo[k] == box[k] && cube.hi[k] + crop.lo[k] == box[3 + k];
            }
            double sure = sureness(&n, image, shape, cube, at);
            if (is) chosen = sure;
            most = sure > most ? sure : most;
        }
        CHECK(tries >= 3 && chosen >= most - 1e-5 && r.decoded == tries + SEGFM_LOOKS && !r.has_box && r.clicks == 1);
        CHECK(segfm_box(a, box, NULL) == SEGFM_OK && segfm_click(a, click, true, NULL) == SEGFM_OK);
        for (size_t i = 0; i < 2; i++) {
            CHECK(segfm_logits(a, want, 8 * TILE, NULL) == SEGFM_OK &&
                  segfm_logits(b, got, 8 * TILE, NULL) == SEGFM_OK);
            CHECK(memcmp(want, got, 8 * TILE * sizeof *got) == 0);
            const int64_t *next = clicks[(round + 1) % 3];
            CHECK(segfm_click(a, next, i == 0, NULL) == SEGFM_OK && segfm_click(b, next, i == 0, NULL) == SEGFM_OK);
        }
        segfm_reset(b);
        segfm_last_report(b, &r);
        CHECK(r.box[0] == -1);
    }
    segfm_session_free(a), segfm_session_free(b);
    free(n.memory), free(whole), free(image);
    free(voxels), free(want), free(got);
}

int main(void) {
    segfm_model *model = bright_model(true);
    fixture f = fixture_open("test/fixtures/pipeline.npz");
    int64_t window[3];
    segfm_model_window(model, window);
    CHECK(window[0] == 10 && window[1] == 18 && window[2] == 35 && segfm_model_bytes(model) > 10000);
    test_scan(model, &f, "many", (size_t[]){2, 3, 3});
    test_scan(model, &f, "one", (size_t[]){2, 2, 2});
    test_scan(model, &f, "small", (size_t[]){2, 2, 2});
    test_refusals(model);
    test_opening();
    test_memory_of_the_caller(model);
    test_same_bits(model);
    test_cache(model);
    test_cancel_and_reset(model);
    test_odd_scans(model);
    test_outside(model);
    test_many_objects(model);
    segfm_model *framed = bright_framed_model(true, 25);
    test_framed_part(framed);
    test_framed_move(framed);
    test_framed_clicks(framed);
    test_framed_window(framed);
    test_framed_contrast(framed);
    test_same_bits_framed(framed);
    segfm_model_close(framed);
    fixture_close(&f);
    segfm_model_close(model);
    return test_summary();
}
