/* Cases and the samples drawn from them. The image of most cases here tells where its voxels come from, so that whatever a
   window shows can be traced back, and its truth looked up there. */
#include "test.h"

#include "../train/train.h"

static uint64_t state = 9;

static int64_t draw(int64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((state >> 33) % (uint64_t)n);
}

static bool near_share(double count, double n, double expected) {
    return fabs(count / n - expected) <= 5 * sqrt(expected * (1 - expected) / n);
}

/* ---- cases ----------------------------------------------------------------------------------------------------- */

static const double millimetres[3] = {3, 1, 0.5};

/* A labelled block in a brighter one: everything but the outer layer is foreground. */
static void make_scan(vol_shape s, float *voxels, uint16_t *labels) {
    size_t i = 0;
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++)
            for (int64_t x = 0; x < s.n[2]; x++, i++) {
                bool inside = z > 1 && y > 0 && x > 2 && z < s.n[0] - 1 && y < s.n[1] - 2 && x < s.n[2] - 1;
                voxels[i] = inside ? 100 + (float)draw(50) : (float)draw(5);
                labels[i] = (uint16_t)(draw(3) == 0 ? draw(4) * 300 : 0);
            }
}

/* Runs, sizes and boxes say what the map says. */
static bool describes(const train_case *c, const uint16_t *labels, vol_shape s, vol_box crop) {
    size_t n = vol_count(c->shape);
    uint16_t *map = calloc(n, sizeof *map);
    bool right = true;
    for (size_t i = 0; i < c->class_count; i++) {
        const train_class *k = &c->classes[i];
        vol_box box = vol_box_none();
        uint64_t voxels = 0, last = 0;
        for (size_t r = 0; r < k->run_count; r++) {
            int64_t start = k->runs[r].start, x = start % c->shape.n[2], row = start / c->shape.n[2];
            int64_t y = row % c->shape.n[1], z = row / c->shape.n[1];
            if (k->runs[r].start < last || k->runs[r].count == 0 || x + k->runs[r].count > c->shape.n[2]) right = false;
            last = k->runs[r].start + (uint64_t)k->runs[r].count;
            voxels += k->runs[r].count;
            box = vol_box_union(box, (vol_box){{z, y, x}, {z, y, x + k->runs[r].count - 1}});
            for (uint32_t j = 0; j < k->runs[r].count; j++) map[start + j] = (uint16_t)k->label;
        }
        right = right && voxels == k->voxels && memcmp(&box, &k->box, sizeof box) == 0;
        uint8_t *mask = malloc(n);
        for (size_t v = 0; v < n; v++) mask[v] = map[v] == k->label;
        vol_box slice_box = vol_mask_prompt_box(mask, c->shape);
        right = right && memcmp(&slice_box, &k->slice_box, sizeof slice_box) == 0;
        free(mask);
    }
    size_t at = 0;
    for (int64_t z = crop.lo[0]; z <= crop.hi[0]; z++)
        for (int64_t y = crop.lo[1]; y <= crop.hi[1]; y++)
            for (int64_t x = crop.lo[2]; x <= crop.hi[2]; x++)
                right = right && map[at++] == labels[(z * s.n[1] + y) * s.n[2] + x];
    free(map);
    return right && at == n;
}

static void test_case_of_scan(void) {
    vol_shape s = {{9, 14, 23}};
    size_t n = vol_count(s);
    float *voxels = malloc(n * sizeof *voxels);
    uint16_t *labels = malloc(n * sizeof *labels);
    real *image = malloc(n * sizeof *image), *cropped = malloc(n * sizeof *cropped);
    make_scan(s, voxels, labels);
    vol_foreground stats;
    vol_foreground_stats(voxels, n, 1, &stats);
    vol_normalise(voxels, n, &stats, 1, image);
    vol_box crop = vol_foreground_box(image, s);
    vol_crop(image, s, crop, cropped);
    CHECK(vol_count(vol_box_shape(crop)) < n);
    for (int threads = 1; threads <= 3; threads++) {
        train_case c = {0};
        segfm_error error;
        CHECK(train_case_make(voxels, labels, s, millimetres, 1, threads, &c, &error) == SEGFM_OK);
        CHECK(vol_count(c.shape) == vol_count(vol_box_shape(crop)) && c.spacing[0] == 3 && c.spacing[2] == 0.5);
        bool same = true;
        for (size_t i = 0; i < vol_count(c.shape); i++) same = same && c.image[i] == cropped[i];
        CHECK(same);
        CHECK(c.class_count == 3 && c.classes[0].label == 300 && c.classes[2].label == 900);
        CHECK(describes(&c, labels, s, crop));
        CHECK(train_case_bytes(&c) >= vol_count(c.shape) * sizeof(real) + 3 * sizeof(train_class));
        train_case_free(&c);
        CHECK(c.image == NULL && c.classes == NULL && c.class_count == 0);
    }
    free(voxels), free(labels), free(image), free(cropped);
}

static void refuse(const float *voxels, const uint16_t *labels, vol_shape s, uint64_t min_voxels,
                   const char *sentence) {
    segfm_error error = {0};
    train_case c = {.class_count = 77};
    CHECK(train_case_make(voxels, labels, s, millimetres, min_voxels, 1, &c, &error) == SEGFM_BAD_INPUT);
    if (!CHECK(strstr(error.message, sentence) != NULL)) printf("    %s\n", error.message);
    CHECK(c.class_count == 77 && c.image == NULL);
}

static void test_refused(void) {
    vol_shape s = {{9, 14, 23}};
    size_t n = vol_count(s), middle = (4 * 14 + 5) * 23 + 6;
    float *voxels = malloc(n * sizeof *voxels);
    uint16_t *labels = malloc(n * sizeof *labels);
    make_scan(s, voxels, labels);
    voxels[middle] = NAN;
    refuse(voxels, labels, s, 1, "voxel (z,y,x) 4,5,6: got a NaN");
    voxels[middle] = -INFINITY;
    refuse(voxels, labels, s, 1, "voxel (z,y,x) 4,5,6: got an infinity");
    voxels[middle] = 120;
    refuse(voxels, labels, (vol_shape){{9, 0, 23}}, 1, "got 0 voxels along axis 1");
    refuse(voxels, labels, (vol_shape){{INT64_MAX, 2, 3}}, 1, "fewer than 2^32");
    refuse(voxels, labels, s, 1000000, "the largest, has ");
    memset(labels, 0, n * sizeof *labels);
    refuse(voxels, labels, s, 1, "no voxel of the foreground is labelled");
    labels[0] = 5; /* outside of the foreground: cut off */
    refuse(voxels, labels, s, 1, "no voxel of the foreground is labelled");
    for (size_t i = 0; i < n; i++) voxels[i] = 7;
    refuse(voxels, labels, s, 1, "no foreground");

    make_scan(s, voxels, labels);
    memset(labels, 0, n * sizeof *labels);
    for (size_t i = 0; i < 20; i++) labels[middle + i % 10 + 23 * (i / 10)] = (uint16_t)(i < 8 ? 2 : 1);
    train_case c;
    segfm_error error;
    for (uint64_t least = 8; least <= 12; least += 4) { /* exactly as many are enough */
        CHECK(train_case_make(voxels, labels, s, millimetres, least, 1, &c, &error) == SEGFM_OK);
        CHECK(c.class_count == (least == 8 ? 2 : 1) && c.classes[0].label == 1 && c.classes[0].voxels == 12);
        train_case_free(&c);
    }
    free(voxels), free(labels);
}

/* ---- windows --------------------------------------------------------------------------------------------------- */

/* A case whose voxels hold 1 + their raster index (0 is padding), and its map of labels. */
typedef struct coded {
    train_case c;
    uint16_t *map;
} coded;

typedef uint16_t label_of(vol_shape s, int64_t z, int64_t y, int64_t x);

static coded make_coded(vol_shape s, label_of *label) {
    coded t;
    size_t n = vol_count(s);
    float *voxels = malloc(n * sizeof *voxels);
    segfm_error error;
    t.map = malloc(n * sizeof *t.map);
    for (size_t i = 0; i < n; i++) {
        int64_t x = (int64_t)i % s.n[2], row = (int64_t)i / s.n[2];
        voxels[i] = i % 2 ? 10 + (float)(i % 7) : 0;
        t.map[i] = label(s, row / s.n[1], row % s.n[1], x);
    }
    voxels[0] = voxels[n - 1] = 16; /* two opposite corners are foreground: nothing is cropped */
    CHECK(train_case_make(voxels, t.map, s, millimetres, 1, 1, &t.c, &error) == SEGFM_OK);
    CHECK(memcmp(&t.c.shape, &s, sizeof s) == 0);
    for (size_t i = 0; i < n; i++) t.c.image[i] = (real)(i + 1);
    free(voxels);
    return t;
}

static void free_coded(coded *t) {
    train_case_free(&t->c);
    free(t->map);
}

/* A block in the middle third with a hole, a bar, and a voxel. */
static uint16_t block_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    bool inside = 3 * z >= s.n[0] && 3 * z < 2 * s.n[0] && 3 * y >= s.n[1] && 3 * y < 2 * s.n[1] && 3 * x >= s.n[2] &&
                  3 * x < 2 * s.n[2];
    if (inside) return x == s.n[2] / 2 && y != s.n[1] / 2 ? 0 : 1;
    return y == 1 && z > 0 ? 2 : 0;
}

typedef struct drawing {
    vol_shape window;
    train_sample s;
    void *memory;
} drawing;

static drawing new_drawing(vol_shape window) {
    drawing d = {.window = window};
    size_t n = vol_count(window), bytes = train_draw_bytes(&window);
    d.s.image = malloc(n * sizeof *d.s.image);
    d.s.truth = malloc(n);
    d.memory = aligned_alloc(NN_ALIGN, bytes);
    memset(d.s.truth, 0xAA, n);
    memset(d.memory, 0xAA, bytes);
    return d;
}

static void free_drawing(drawing *d) { free(d->s.image), free(d->s.truth), free(d->memory); }

/* Where the window's voxel comes from: −1 padding. Without scaling and shift only. */
static int64_t origin(const drawing *d, int64_t z, int64_t y, int64_t x) {
    return (int64_t)d->s.image[(z * d->window.n[1] + y) * d->window.n[2] + x] - 1;
}

static train_augmentation plain(void) {
    train_augmentation a = train_augmentation_default();
    a.flip = a.scale = a.shift = 0;
    return a;
}

/* The truth is the map's label at the voxel that the image shows. */
static bool agrees(const drawing *d, const coded *t, unsigned label) {
    bool any = false;
    for (size_t i = 0; i < vol_count(d->window); i++) {
        int64_t from = (int64_t)d->s.image[i] - 1;
        uint8_t want = from >= 0 && t->map[from] == label;
        if (d->s.truth[i] != want) return false;
        any = any || want;
    }
    return d->s.empty == !any;
}

/* Bounds of the truth or of its middle slice, wider by 0 to `most` along y and x. Returns which: 1, 2, 3 both; 0 neither. */
static int kind_of_box(const drawing *d, const int64_t most[3]) {
    int kinds = 0;
    for (int kind = 1; kind <= 2; kind++) {
        vol_box b = kind == 1 ? vol_mask_bounds(d->s.truth, d->window) : vol_mask_prompt_box(d->s.truth, d->window);
        bool fits = true;
        for (int k = 0; k < 3; k++) {
            int64_t lo = (int64_t)d->s.box[k], hi = (int64_t)d->s.box[3 + k];
            int64_t lowest = b.lo[k] - most[k] < 0 ? 0 : b.lo[k] - most[k];
            int64_t highest = b.hi[k] + most[k] >= d->window.n[k] ? d->window.n[k] - 1 : b.hi[k] + most[k];
            if (d->s.empty) lowest = highest = -1;
            fits = fits && lo <= b.lo[k] && lo >= lowest && hi >= b.hi[k] && hi <= highest;
        }
        if (fits) kinds |= kind;
    }
    return kinds;
}

/* All of the chain but what changes intensities: image, truth and box agree, whatever the sizes. */
static void test_agreement(void) {
    static const vol_shape scans[] = {{{13, 40, 31}}, {{5, 21, 60}}, {{30, 9, 12}}, {{6, 7, 8}}};
    static const vol_shape windows[] = {{{8, 16, 24}}, {{7, 33, 15}}};
    for (size_t i = 0; i < 4; i++) {
        coded t = make_coded(scans[i], block_label);
        CHECK(t.c.class_count == 2);
        for (size_t w = 0; w < 2; w++) {
            drawing d = new_drawing(windows[w]);
            train_augmentation a = plain();
            bool agree = true, boxed = true;
            a.flip = 0.5;
            for (uint64_t number = 0; number < 200; number++) {
                train_random r = train_random_at(1, w, number);
                train_draw(&t.c, number % 2, &d.window, &a, &r, d.memory, &d.s);
                agree = agree && agrees(&d, &t, t.c.classes[number % 2].label);
                boxed = boxed && kind_of_box(&d, (const int64_t[3]){0}) != 0;
            }
            CHECK(agree);
            CHECK(boxed);
            free_drawing(&d);
        }
        free_coded(&t);
    }
}

/* A resize shows what the session's zoomed-out window shows. */
static void test_resize(void) {
    coded t = make_coded((vol_shape){{13, 40, 11}}, block_label);
    drawing d = new_drawing((vol_shape){{8, 16, 24}});
    train_augmentation a = plain();
    size_t m = vol_count(d.window);
    real *want = malloc(m * sizeof *want);
    vol_resize_nearest(t.c.image, t.c.shape, want, d.window, vol_box_whole(d.window), 1);
    a.crop = 0;
    train_random r = train_random_at(1, 1, 1);
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    CHECK(memcmp(d.s.image, want, m * sizeof *want) == 0);
    CHECK(agrees(&d, &t, 1));
    a.flip = 1;
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    bool flipped = true;
    for (size_t i = 0; i < m; i++) flipped = flipped && d.s.image[i] == want[m - 1 - i];
    CHECK(flipped); /* along all three axes: the whole array backwards */
    free(want);
    free_drawing(&d);
    free_coded(&t);
}

/* A crop of a smaller scan: all of it, zeros around it as around a session's window. */
static void test_padding(void) {
    coded t = make_coded((vol_shape){{5, 10, 9}}, block_label);
    drawing d = new_drawing((vol_shape){{8, 16, 24}});
    train_augmentation a = plain();
    vol_windows w;
    bool same = true;
    vol_windows_plan(t.c.shape, d.window, &w);
    a.resize = 0;
    train_random r = train_random_at(1, 1, 1);
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    real *want = malloc(vol_count(d.window) * sizeof *want);
    vol_window_extract(t.c.image, t.c.shape, (const int64_t[3]){0}, &w, 0, want);
    for (size_t i = 0; i < vol_count(d.window); i++) same = same && d.s.image[i] == want[i];
    CHECK(same);
    free(want);
    free_drawing(&d);
    free_coded(&t);
}

/* ---- chances --------------------------------------------------------------------------------------------------- */

/* Far from every border, so that a window lies around its middle. */
static uint16_t far_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    return llabs(2 * z - s.n[0]) <= 8 && llabs(2 * y - s.n[1]) <= 10 && llabs(2 * x - s.n[2]) <= 6;
}

/* Crops that are to have their middle in the object have it, everywhere in it alike; others do not, and may lie at any
   border. */
static void test_middles(void) {
    enum { N = 4000 };
    coded t = make_coded((vol_shape){{24, 30, 36}}, far_label);
    drawing d = new_drawing((vol_shape){{6, 8, 10}});
    train_augmentation a = plain();
    int low[3] = {0}, clamped = 0;
    bool in_object = true, never_empty = true, outside = true, contiguous = true;
    a.resize = 0;
    for (uint64_t number = 0; number < 2 * N; number++) {
        train_random r = train_random_at(2, 0, number);
        a.positive = number < N, a.negative = number >= N;
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        int64_t middle = origin(&d, 3, 4, 5), first = origin(&d, 0, 0, 0);
        int64_t at[3] = {middle / 36 / 30, middle / 36 % 30, middle % 36};
        contiguous = contiguous && first >= 0 && origin(&d, 5, 7, 9) == first + (5 * 30 + 7) * 36 + 9;
        bool border = at[0] == 3 || at[0] == 21 || at[1] == 4 || at[1] == 26 || at[2] == 5 || at[2] == 31;
        if (number < N) {
            in_object = in_object && t.map[middle] == 1;
            never_empty = never_empty && !d.s.empty;
            for (int k = 0; k < 3; k++) low[k] += 2 * at[k] < t.c.shape.n[k];
        } else {
            outside = outside && (border || t.map[middle] == 0);
            clamped += border;
        }
    }
    CHECK(contiguous);
    CHECK(in_object);
    CHECK(never_empty);
    CHECK(outside);
    CHECK(clamped > 0);
    static const double below_middle[3] = {4.0 / 9, 5.0 / 11, 3.0 / 7}; /* of 9, 11 and 7 layers */
    for (int k = 0; k < 3; k++) CHECK(near_share(low[k], N, below_middle[k]));
    free_drawing(&d);
    free_coded(&t);
}

/* The defaults' chances, told from what is shown. An object in nearly all of the scan leaves no window empty, which would
   be drawn again. */
static uint16_t wide_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    (void)s, (void)z;
    return (uint16_t)((x + y) % 4 != 0);
}

static void test_chances(void) {
    enum { N = 10000 };
    coded t = make_coded((vol_shape){{12, 20, 24}}, wide_label);
    drawing d = new_drawing((vol_shape){{4, 6, 8}});
    train_augmentation a = plain();
    int resized = 0, positive = 0, middles = 0, flips[3] = {0}, both = 0;
    a.flip = 0.2;
    for (uint64_t number = 0; number < N; number++) {
        train_random r = train_random_at(3, 0, number);
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        int64_t step[3] = {origin(&d, 1, 0, 0) - origin(&d, 0, 0, 0), origin(&d, 0, 1, 0) - origin(&d, 0, 0, 0),
                           origin(&d, 0, 0, 1) - origin(&d, 0, 0, 0)};
        for (int k = 0; k < 3; k++) flips[k] += step[k] < 0;
        both += step[0] < 0 && step[2] < 0;
        bool whole = step[2] != 1 && step[2] != -1;
        resized += whole;
        if (whole || step[0] < 0 || step[1] < 0 || step[2] < 0) continue;
        int64_t middle = origin(&d, 2, 3, 4), z = middle / 24 / 20, y = middle / 24 % 20, x = middle % 24;
        if (z <= 2 || z >= 10 || y <= 3 || y >= 17 || x <= 4 || x >= 20) continue; /* maybe not where it was drawn */
        middles++, positive += t.map[middle];
    }
    CHECK(near_share(resized, N, 0.25));
    CHECK(middles > 500 && near_share(positive, middles, 0.75));
    for (int k = 0; k < 3; k++) CHECK(near_share(flips[k], N, 0.2));
    CHECK(near_share(both, N, 0.04));
    free_drawing(&d);
    free_coded(&t);
}

/* value = code · factor + term: both from two voxels, their ranges and how often they are not 1 and 0. */
static void test_intensities(void) {
    enum { N = 4000 };
    coded t = make_coded((vol_shape){{4, 6, 8}}, block_label);
    drawing d = new_drawing((vol_shape){{4, 6, 8}});
    train_augmentation a = train_augmentation_default();
    int scaled = 0, shifted = 0, both = 0;
    double factors[2] = {9, -9}, terms[2] = {9, -9};
    bool affine = true;
    a.flip = 0;
    for (uint64_t number = 0; number < N; number++) {
        train_random r = train_random_at(4, 0, number);
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        double factor = ((double)d.s.image[128] - (double)d.s.image[0]) / 128, term = (double)d.s.image[0] - factor;
        for (size_t i = 0; i < 192; i++)
            affine = affine && fabs((double)d.s.image[i] - (factor * (double)(i + 1) + term)) <= 1e-4;
        bool is_scaled = fabs(factor - 1) > 1e-5, is_shifted = fabs(term) > 1e-4;
        scaled += is_scaled, shifted += is_shifted, both += is_scaled && is_shifted;
        factors[0] = fmin(factors[0], factor), factors[1] = fmax(factors[1], factor);
        terms[0] = fmin(terms[0], term), terms[1] = fmax(terms[1], term);
    }
    CHECK(affine);
    CHECK(near_share(scaled, N, 0.2) && near_share(shifted, N, 0.2) && near_share(both, N, 0.04));
    CHECK(factors[0] >= 0.8 - 1e-5 && factors[0] <= 0.81 && factors[1] <= 1.2 + 1e-5 && factors[1] >= 1.19);
    CHECK(terms[0] >= -0.2 - 1e-4 && terms[0] <= -0.19 && terms[1] <= 0.2 + 1e-4 && terms[1] >= 0.19);
    free_drawing(&d);
    free_coded(&t);
}

/* An object whose middle slice is smaller than the others. */
static uint16_t waist_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    int64_t half = 2 * z == s.n[0] || 2 * z == s.n[0] - 2 ? 40 : 60;
    return (z < s.n[0] / 2 - 1 || z > s.n[0] / 2) && half == 40
               ? 0
               : z > 0 && z < s.n[0] - 1 && llabs(2 * y - s.n[1]) < half && llabs(2 * x - s.n[2]) < half;
}

static void test_boxes(void) {
    enum { N = 1500 };
    coded t = make_coded((vol_shape){{8, 128, 320}}, waist_label);
    drawing d = new_drawing((vol_shape){{8, 128, 320}});
    train_augmentation a = plain();
    static const int64_t most[3] = {0, 1, 2}; /* 2·128/256, 2·320/256 rounded down */
    int kinds[4] = {0}, beyond[3] = {0};
    a.crop = 0;
    for (uint64_t number = 0; number < N; number++) {
        train_random r = train_random_at(5, 0, number);
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        int kind = kind_of_box(&d, most);
        kinds[kind]++;
        vol_box b = kind == 1 ? vol_mask_bounds(d.s.truth, d.window) : vol_mask_prompt_box(d.s.truth, d.window);
        beyond[b.lo[2] - (int64_t)d.s.box[2]]++;
    }
    CHECK(kinds[0] == 0 && kinds[3] == 0);
    CHECK(near_share(kinds[1], N, 0.5));
    for (int k = 0; k < 3; k++) CHECK(near_share(beyond[k], N, 1.0 / 3));
    a.slice_box = 1, a.box_jitter = 0;
    for (uint64_t number = 0; number < 20; number++) {
        train_random r = train_random_at(5, 1, number);
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        CHECK(kind_of_box(&d, (const int64_t[3]){0}) == 2);
    }
    free_drawing(&d);
    free_coded(&t);
}

/* Wide enough for any jitter to leave the window: the box stays in it. */
static uint16_t full_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    (void)s, (void)z, (void)y, (void)x;
    return 1;
}

static void test_edges(void) {
    coded t = make_coded((vol_shape){{4, 300, 280}}, full_label);
    drawing d = new_drawing((vol_shape){{4, 256, 270}});
    train_augmentation a = plain();
    a.negative = 1, a.positive = 0; /* there is no outside: a middle in the object is taken */
    for (uint64_t number = 0; number < 20; number++) {
        train_random r = train_random_at(6, 0, number);
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        CHECK(!d.s.empty && d.s.box[1] == 0 && d.s.box[4] == 255 && d.s.box[5] == 269);
    }
    free_drawing(&d);
    free_coded(&t);
}

static uint16_t voxel_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    (void)s;
    return z == 1 && y == 7 && x == 9;
}

/* A resize may pass over a small object: ten attempts, then an empty sample. Crops come to it sooner or later. */
static void test_empty(void) {
    coded t = make_coded((vol_shape){{3, 40, 44}}, voxel_label);
    drawing d = new_drawing((vol_shape){{3, 8, 11}});
    train_augmentation a = plain();
    train_random r = train_random_at(7, 0, 0);
    a.crop = 0;
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    CHECK(d.s.empty);
    for (int k = 0; k < 6; k++) CHECK(d.s.box[k] == -1);
    CHECK(r.counter == 10 * 4 + 2);
    int empty = 0;
    for (uint64_t number = 0; number < 100; number++) {
        r = train_random_at(7, 1, number);
        a = train_augmentation_default();
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        empty += d.s.empty;
    }
    CHECK(empty <= 2); /* each attempt finds it with more than a half's chance */
    free_drawing(&d);
    free_coded(&t);
}

/* ---- framed ---------------------------------------------------------------------------------------------------- */

/* A cone: its middle slice is smaller than all of it, and none is like another. */
static uint16_t cone_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    return z > 0 && z < s.n[0] - 1 && 2 * y < s.n[1] + z && 3 * y > s.n[1] - z && 2 * x < s.n[2] + 2 * z &&
           3 * x > s.n[2];
}

/* The case with noise for an image, the object a little brighter. */
static coded make_noisy(vol_shape s, label_of *label) {
    coded t = make_coded(s, label);
    for (size_t i = 0; i < vol_count(s); i++) t.c.image[i] = (real)(0.01 * (double)draw(60) + 0.3 * (t.map[i] == 1));
    return t;
}

/* What train/sample.c says that it draws, once more, and what the window shows then. */
typedef struct framed {
    vol_box user, frame, box; /* box: in the window */
    bool slice, grown, flipped[3], empty;
    int attempts;
    uint8_t *truth;
    real *image;
} framed;

static int64_t rounded(double x) { return (int64_t)(x < 0 ? ceil(x - 0.5) : floor(x + 0.5)); }

static void draw_user_box(framed *f, const coded *t, const train_augmentation *a, train_random *r) {
    const train_case *c = &t->c;
    const train_class *object = &c->classes[0];
    f->slice = train_random_uniform(r) < a->slice_box;
    f->user = f->slice ? object->slice_box : object->box;
    double grown = 0, moved = 0;
    if (a->frame_loose > 0 && train_random_uniform(r) < 0.5) grown = train_random_between(r, 0, a->frame_loose);
    bool moves = a->frame_shift > 0 && train_random_uniform(r) < 0.25;
    for (int k = 0; k < 3; k++) {
        int64_t lo = f->user.lo[k], hi = f->user.hi[k];
        double extent = (double)(hi - lo + 1), most = a->frame_jitter * extent;
        double low = train_random_between(r, -most, most), high = train_random_between(r, -most, most);
        if (moves) moved = train_random_between(r, -a->frame_shift, a->frame_shift);
        lo += rounded(low + moved * extent - grown * extent);
        hi += rounded(high + moved * extent + grown * extent);
        lo = lo < 0 ? 0 : lo, hi = hi < c->shape.n[k] ? hi : c->shape.n[k] - 1;
        if (lo <= hi) f->user.lo[k] = lo, f->user.hi[k] = hi;
    }
    f->grown = a->frame_grow > 0 && train_random_uniform(r) < a->frame_grow;
    for (uint64_t n = f->grown ? 1 + train_random_below(r, 3) : 0; n > 0; n--) {
        uint64_t left = train_random_below(r, object->voxels);
        int64_t i = 0;
        for (; t->map[i] != 1 || left > 0; i++) left -= t->map[i] == 1;
        const int64_t at[3] = {i / c->shape.n[2] / c->shape.n[1], i / c->shape.n[2] % c->shape.n[1], i % c->shape.n[2]};
        for (int k = 0; k < 3; k++) {
            if (at[k] < f->user.lo[k]) f->user.lo[k] = at[k];
            if (at[k] > f->user.hi[k]) f->user.hi[k] = at[k];
        }
    }
}

/* share[i · n + v]: of a window's voxel i and the frame's voxel v along an axis, which are n and `window` of the n · window
   units of that axis, how many are of both. */
static int64_t *shares_of(int64_t n, int64_t window) {
    int64_t *share = calloc((size_t)(n * window), sizeof *share);
    for (int64_t unit = 0; unit < n * window; unit++) share[unit / n * n + unit / window]++;
    return share;
}

/* How much of a window's voxel is the object's, counted over the map. */
static int64_t covered_by(const coded *t, vol_box frame, int64_t *const share[3], int64_t i, int64_t j, int64_t k) {
    vol_shape n = vol_box_shape(frame), s = t->c.shape;
    int64_t sum = 0;
    for (int64_t z = 0; z < n.n[0]; z++)
        for (int64_t y = 0; y < n.n[1]; y++) {
            int64_t area = share[0][i * n.n[0] + z] * share[1][j * n.n[1] + y];
            const uint16_t *row = t->map + ((frame.lo[0] + z) * s.n[1] + frame.lo[1] + y) * s.n[2] + frame.lo[2];
            for (int64_t x = 0; x < n.n[2] && area > 0; x++)
                if (row[x] == 1) sum += area * share[2][k * n.n[2] + x];
        }
    return sum;
}

/* Of what each voxel of the window covers, is more than half the object's? */
static bool find_truth(const coded *t, vol_box frame, vol_shape window, uint8_t *truth) {
    vol_shape n = vol_box_shape(frame);
    int64_t *share[3], at = 0, whole = n.n[0] * n.n[1] * n.n[2];
    bool any = false;
    for (int k = 0; k < 3; k++) share[k] = shares_of(n.n[k], window.n[k]);
    for (int64_t i = 0; i < window.n[0]; i++)
        for (int64_t j = 0; j < window.n[1]; j++)
            for (int64_t k = 0; k < window.n[2]; k++) {
                truth[at] = 2 * covered_by(t, frame, share, i, j, k) > whole;
                any = truth[at++] || any;
            }
    for (int k = 0; k < 3; k++) free(share[k]);
    return any;
}

/* What the voxel of a mirrored window shows stood at its mirrored place. */
static void mirror(framed *f, vol_shape window) {
    size_t n = vol_count(window);
    real *image = malloc(n * sizeof *image);
    uint8_t *truth = malloc(n);
    memcpy(image, f->image, n * sizeof *image), memcpy(truth, f->truth, n);
    for (int64_t i = 0; i < (int64_t)n; i++) {
        int64_t at[3] = {i / window.n[2] / window.n[1], i / window.n[2] % window.n[1], i % window.n[2]};
        for (int k = 0; k < 3; k++)
            if (f->flipped[k]) at[k] = window.n[k] - 1 - at[k];
        int64_t from = (at[0] * window.n[1] + at[1]) * window.n[2] + at[2];
        f->image[i] = image[from], f->truth[i] = truth[from];
    }
    for (int k = 0; k < 3; k++) {
        int64_t lo = f->box.lo[k], hi = f->box.hi[k];
        if (f->flipped[k]) f->box.lo[k] = window.n[k] - 1 - hi, f->box.hi[k] = window.n[k] - 1 - lo;
    }
    free(image), free(truth);
}

static framed draw_framed(const coded *t, vol_shape window, const train_augmentation *a, train_random *r) {
    framed f = {.empty = true, .truth = malloc(vol_count(window)), .image = malloc(vol_count(window) * sizeof(real))};
    while (f.empty && f.attempts < 10) {
        draw_user_box(&f, t, a, r);
        for (int k = 0; k < 3; k++) f.flipped[k] = train_random_uniform(r) < a->flip;
        f.frame = vol_frame(f.user, t->c.shape, a->frame);
        f.empty = !find_truth(t, f.frame, window, f.truth);
        f.attempts++;
    }
    f.box = vol_zoom_box(f.user, f.frame, window);
    vol_zoom(t->c.image, t->c.shape, f.frame, f.image, window, 1);
    vol_contrast(f.image, window, f.box);
    mirror(&f, window);
    if (f.empty) f.box = vol_box_none();
    return f;
}

static void free_framed(framed *f) { free(f->truth), free(f->image); }

static bool has_box(const drawing *d, vol_box b) {
    bool same = true;
    for (int k = 0; k < 3; k++) same = same && d->s.box[k] == (real)b.lo[k] && d->s.box[3 + k] == (real)b.hi[k];
    return same;
}

/* Scans larger and smaller than the window; margins from almost nothing to the whole scan; a careful user and a careless
   one. The window shows the frame of a box like a user's, box and truth are those of that frame, and flips flip all three.
   Nothing else is drawn: intensities stay, though the settings would have them scaled and shifted every time. */
static void test_framed(void) {
    enum { N = 250 };
    static const vol_shape scans[] = {{{13, 70, 41}}, {{5, 21, 60}}, {{30, 19, 12}}, {{6, 7, 8}}};
    static const vol_shape windows[] = {{{8, 16, 24}}, {{7, 33, 15}}};
    static const unsigned margins[] = {1, 25, 60, 1000};
    for (size_t i = 0; i < 8; i++) {
        coded t = make_noisy(scans[i % 4], cone_label);
        const train_class *cone = &t.c.classes[0];
        drawing d = new_drawing(windows[i / 4]);
        size_t n = vol_count(d.window);
        train_augmentation a = train_augmentation_default();
        bool shown = true, agree = true, boxed = true, counted = true, exact = true;
        int slices = 0, grown = 0, flips[3] = {0}, moved[6] = {0};
        a.flip = 0.3, a.scale = a.shift = 1, a.frame = margins[i % 4], a.frame_jitter = i < 4 ? 0 : 0.2;
        a.frame_loose = i == 5 ? 0.4 : 0, a.frame_shift = i == 6 ? 0.3 : 0, a.frame_grow = i == 7 ? 0.4 : 0;
        CHECK(t.c.class_count == 1 && memcmp(&cone->box, &cone->slice_box, sizeof cone->box) != 0);
        for (uint64_t number = 0; number < N; number++) {
            train_random r = train_random_at(8, i, number), again = r;
            train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
            framed f = draw_framed(&t, d.window, &a, &again);
            vol_box start = f.slice ? cone->slice_box : cone->box;
            shown = shown && memcmp(d.s.image, f.image, n * sizeof *f.image) == 0;
            agree = agree && !d.s.empty && !f.empty && memcmp(d.s.truth, f.truth, n) == 0;
            boxed = boxed && has_box(&d, f.box) && !vol_box_is_empty(f.box);
            counted = counted && r.counter == again.counter;
            exact = exact && memcmp(&f.user, &start, sizeof start) == 0;
            slices += f.slice, grown += f.grown;
            for (int k = 0; k < 3; k++) {
                flips[k] += f.flipped[k];
                moved[k] += f.user.lo[k] != start.lo[k], moved[3 + k] += f.user.hi[k] != start.hi[k];
            }
            free_framed(&f);
        }
        CHECK(shown);
        CHECK(agree);
        CHECK(boxed);
        CHECK(counted);
        CHECK(exact == (i < 4));
        CHECK(near_share(slices, N, 0.5) && (i == 7 ? near_share(grown, N, 0.4) : grown == 0));
        for (int k = 0; k < 3; k++) CHECK(near_share(flips[k], N, 0.3));
        if (i == 4) /* of the others some sides are too short to move */
            for (int side = 0; side < 6; side++) CHECK(moved[side] > N / 10);
        free_drawing(&d);
        free_coded(&t);
    }
}

/* Of an even number of voxels the middle one is the first of the second half: here it lies a slice further on. */
static uint16_t halves_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    (void)s;
    return (z == 1 && y >= 1 && y <= 3 && x >= 1 && x <= 2) || (z == 2 && y >= 4 && y <= 5 && x >= 2 && x <= 4);
}

static void test_slice_box(void) {
    coded t = make_coded((vol_shape){{4, 7, 6}}, halves_label);
    const vol_box want = {{1, 4, 2}, {2, 5, 4}}, *got = &t.c.classes[0].slice_box;
    CHECK(t.c.classes[0].voxels == 12 && memcmp(got, &want, sizeof want) == 0);
    free_coded(&t);
}

/* What a window of the session shows, and where it gives the box: the draw without jitter and flips is that. All flips
   turn the arrays backwards. */
static void test_framed_plainly(void) {
    coded t = make_noisy((vol_shape){{13, 70, 41}}, cone_label);
    drawing d = new_drawing((vol_shape){{8, 16, 24}});
    train_augmentation a = plain();
    size_t m = vol_count(d.window);
    real *want = malloc(m * sizeof *want);
    uint8_t *truth = malloc(m);
    a.frame = 25, a.frame_jitter = 0;
    for (int slice = 0; slice < 2; slice++) {
        train_random r = train_random_at(8, 9, 1);
        bool backwards = true;
        a.slice_box = slice, a.flip = 0;
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        vol_box b = slice ? t.c.classes[0].slice_box : t.c.classes[0].box, view = vol_frame(b, t.c.shape, 25);
        vol_zoom(t.c.image, t.c.shape, view, want, d.window, 1);
        b = vol_zoom_box(b, view, d.window);
        vol_contrast(want, d.window, b);
        CHECK(memcmp(d.s.image, want, m * sizeof *want) == 0 && has_box(&d, b));
        memcpy(truth, d.s.truth, m);
        a.flip = 1;
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        for (size_t i = 0; i < m; i++)
            backwards = backwards && d.s.image[i] == want[m - 1 - i] && d.s.truth[i] == truth[m - 1 - i];
        for (int k = 0; k < 3; k++)
            backwards = backwards && d.s.box[k] == (real)(d.window.n[k] - 1 - b.hi[k]) &&
                        d.s.box[3 + k] == (real)(d.window.n[k] - 1 - b.lo[k]);
        CHECK(backwards);
    }
    free(want), free(truth);
    free_drawing(&d);
    free_coded(&t);
}

static uint16_t four_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    return (void)s, (void)z, (void)y, x >= 2 && x <= 5;
}

static uint16_t five_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    return (void)s, (void)z, (void)y, x >= 2 && x <= 6;
}

/* Two voxels of the window over a line: of 8 voxels the object's 4 in the middle are half of each, which is not enough; of
   9 the 5 are more. */
static void test_half(void) {
    coded four = make_noisy((vol_shape){{1, 1, 8}}, four_label), five = make_noisy((vol_shape){{1, 1, 9}}, five_label);
    drawing d = new_drawing((vol_shape){{1, 1, 2}});
    train_augmentation a = plain();
    train_random r = train_random_at(7, 3, 0);
    a.frame = 25, a.frame_jitter = 0;
    train_draw(&four.c, 0, &d.window, &a, &r, d.memory, &d.s);
    CHECK(d.s.empty && d.s.truth[0] == 0 && d.s.truth[1] == 0 && has_box(&d, vol_box_none()));
    train_draw(&five.c, 0, &d.window, &a, &r, d.memory, &d.s);
    CHECK(!d.s.empty && d.s.truth[0] == 1 && d.s.truth[1] == 1 && has_box(&d, (vol_box){{0, 0, 0}, {0, 0, 1}}));
    free_drawing(&d);
    free_coded(&four), free_coded(&five);
}

static uint16_t pair_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    (void)s;
    return (z == 1 && y == 7 && x == 9) || (z == 1 && y == 11 && x == 13);
}

/* A voxel in a wide frame is less than half of what any voxel of the window covers: ten attempts, then an empty sample,
   without a box. */
static void test_framed_empty(void) {
    coded t = make_noisy((vol_shape){{3, 40, 44}}, voxel_label);
    drawing d = new_drawing((vol_shape){{3, 8, 11}});
    train_augmentation a = plain();
    train_random r = train_random_at(7, 2, 0), again;
    a.frame = 1000;
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    CHECK(d.s.empty && r.counter == 10 * (1 + 6 + 3) && has_box(&d, vol_box_none()));
    CHECK(memchr(d.s.truth, 1, vol_count(d.window)) == NULL);
    a.frame = 25;
    again = r;
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    framed f = draw_framed(&t, d.window, &a, &again);
    CHECK(!d.s.empty && memcmp(d.s.truth, f.truth, vol_count(d.window)) == 0 && has_box(&d, f.box));
    free_framed(&f);
    free_coded(&t);
    t = make_noisy((vol_shape){{3, 40, 44}}, pair_label); /* here the window shows something of the box */
    a.frame = 1000, a.frame_jitter = 0, a.slice_box = 0;
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    CHECK(d.s.empty && has_box(&d, vol_box_none()));
    free_drawing(&d);
    free_coded(&t);
}

static uint16_t bar_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    return (void)s, (void)z, (void)y, x >= 20 && x <= 29;
}

/* Ten voxels of a bar in a window of one: more than half of what it shows where the box was drawn too small, less
   elsewhere. So it is drawn again, more or less often, and what the last attempt drew is shown. */
static void test_attempts(void) {
    enum { N = 400 };
    coded t = make_noisy((vol_shape){{1, 1, 50}}, bar_label);
    drawing d = new_drawing((vol_shape){{1, 1, 1}});
    train_augmentation a = plain();
    int attempts[11] = {0}, empty = 0;
    bool same = true;
    a.frame = 60, a.frame_jitter = 0.16, a.flip = 0.5;
    for (uint64_t number = 0; number < N; number++) {
        train_random r = train_random_at(7, 4, number), again = r;
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        framed f = draw_framed(&t, d.window, &a, &again);
        same = same && d.s.empty == f.empty && d.s.truth[0] == f.truth[0] && has_box(&d, f.box);
        same = same && r.counter == again.counter && r.counter == (uint64_t)(10 * f.attempts);
        attempts[f.attempts]++, empty += f.empty;
        free_framed(&f);
    }
    CHECK(same);
    CHECK(attempts[1] > 0 && attempts[2] > 0 && attempts[5] > 0 && empty > 0 && empty < N / 2);
    free_drawing(&d);
    free_coded(&t);
}

/* ---- the same bits ---------------------------------------------------------------------------------------------- */

static void test_again(unsigned frame, uint64_t want) {
    enum { N = 40 };
    vol_shape window = {{8, 24, 20}};
    train_phantom_options o = {{12, 30, 40}, {12, 30, 40}};
    train_augmentation a = train_augmentation_default();
    a.frame = frame;
    train_scan scan;
    train_case c;
    segfm_error error;
    uint64_t hash[N], all = 0;
    CHECK(train_phantom(2, 0, &o, 1, &scan, &error) == SEGFM_OK);
    CHECK(train_case_make(scan.voxels, scan.labels, scan.shape, scan.spacing, 1, 2, &c, &error) == SEGFM_OK);
    drawing d = new_drawing(window);
    size_t n = vol_count(window);
    for (uint64_t i = 0; i < 2 * N; i++) { /* in order, then backwards with new buffers each */
        uint64_t number = i < N ? i : 2 * N - 1 - i;
        train_random r = train_random_at(9, 4, number);
        if (i >= N) {
            free_drawing(&d);
            d = new_drawing(window);
        }
        train_draw(&c, number % c.class_count, &window, &a, &r, d.memory, &d.s);
        uint64_t h = base_xxh64(d.s.truth, n, r.counter);
        for (size_t j = 0; j < n + 6; j++) {
            unsigned char bytes[4];
            uint32_t bits;
            float value = (float)(j < n ? d.s.image[j] : d.s.box[j - n]);
            memcpy(&bits, &value, 4);
            base_put_le32(bytes, bits);
            h = base_xxh64(bytes, 4, h);
        }
        if (i < N) hash[number] = h, all ^= base_xxh64(&number, 0, h);
        else CHECK(hash[number] == h);
    }
    if (sizeof(real) == sizeof(float) && !CHECK(all == want)) printf("    %016llx\n", (unsigned long long)all);
    free_drawing(&d);
    train_case_free(&c);
    train_scan_free(&scan);
}

int main(void) {
    test_case_of_scan();
    test_refused();
    test_agreement();
    test_resize();
    test_padding();
    test_middles();
    test_chances();
    test_intensities();
    test_boxes();
    test_edges();
    test_empty();
    test_slice_box();
    test_framed();
    test_framed_plainly();
    test_half();
    test_framed_empty();
    test_attempts();
    test_again(0, 0x603fa4b56b0ff149U);
    test_again(25, 0x6dbdaaa126f76052U);
    return test_summary();
}
