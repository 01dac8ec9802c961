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
        for (size_t i = 0; i < vol_count(c.shape); i++) same = same && c.image[i] == (float)cropped[i];
        CHECK(same);
        CHECK(c.class_count == 3 && c.classes[0].label == 300 && c.classes[2].label == 900);
        CHECK(describes(&c, labels, s, crop));
        CHECK(train_case_bytes(&c) >= vol_count(c.shape) * 4 + 3 * sizeof(train_class));
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
    for (size_t i = 0; i < n; i++) t.c.image[i] = (float)(i + 1);
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
    size_t n = vol_count(t.c.shape), m = vol_count(d.window);
    real *whole = malloc(n * sizeof *whole), *want = malloc(m * sizeof *want);
    for (size_t i = 0; i < n; i++) whole[i] = (real)t.c.image[i];
    vol_resize_nearest(whole, t.c.shape, want, d.window, vol_box_whole(d.window), 1);
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
    free(whole), free(want);
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
    real *whole = malloc(vol_count(t.c.shape) * sizeof *whole), *want = malloc(vol_count(d.window) * sizeof *want);
    for (size_t i = 0; i < vol_count(t.c.shape); i++) whole[i] = (real)t.c.image[i];
    vol_window_extract(whole, t.c.shape, (const int64_t[3]){0}, &w, 0, want);
    for (size_t i = 0; i < vol_count(d.window); i++) same = same && d.s.image[i] == want[i];
    CHECK(same);
    free(whole), free(want);
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
    drawing d = new_drawing((vol_shape){{4, 6, 6}});
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
        int64_t middle = origin(&d, 2, 3, 3), z = middle / 24 / 20, y = middle / 24 % 20, x = middle % 24;
        if (z <= 2 || z >= 10 || y <= 3 || y >= 17 || x <= 3 || x >= 21) continue; /* maybe not where it was drawn */
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
    coded t = make_coded((vol_shape){{4, 300, 300}}, full_label);
    drawing d = new_drawing((vol_shape){{4, 256, 256}});
    train_augmentation a = plain();
    a.negative = 1, a.positive = 0; /* there is no outside: a middle in the object is taken */
    for (uint64_t number = 0; number < 20; number++) {
        train_random r = train_random_at(6, 0, number);
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        CHECK(!d.s.empty && d.s.box[1] == 0 && d.s.box[4] == 255 && d.s.box[5] == 255);
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
    coded t = make_coded((vol_shape){{3, 40, 40}}, voxel_label);
    drawing d = new_drawing((vol_shape){{3, 8, 8}});
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

/* What train/sample.c says that it draws, once more: the voxel of the case that each index of the window shows, and the box. */
typedef struct framed {
    int64_t from[3][40];
    vol_box user, box;
    bool slice, flipped[3];
} framed;

static int64_t rounded(double x) { return (int64_t)(x < 0 ? ceil(x - 0.5) : floor(x + 0.5)); }

static framed draw_framed(const train_case *c, const train_class *object, vol_shape window, const train_augmentation *a,
                          train_random *r) {
    framed f = {.slice = train_random_uniform(r) < a->slice_box};
    vol_box b = f.slice ? object->slice_box : object->box, frame;
    vol_shape shape;
    f.user = b;
    for (int k = 0; k < 3; k++) {
        double most = a->frame_jitter * (double)(b.hi[k] - b.lo[k] + 1);
        int64_t lo = b.lo[k] + rounded(train_random_between(r, -most, most));
        int64_t hi = b.hi[k] + rounded(train_random_between(r, -most, most));
        lo = lo < 0 ? 0 : lo, hi = hi < c->shape.n[k] ? hi : c->shape.n[k] - 1;
        if (lo <= hi) f.user.lo[k] = lo, f.user.hi[k] = hi;
    }
    frame = vol_frame(f.user, c->shape, a->frame);
    shape = vol_box_shape(frame);
    for (int k = 0; k < 3; k++) b.lo[k] = f.user.lo[k] - frame.lo[k], b.hi[k] = f.user.hi[k] - frame.lo[k];
    f.box = vol_resize_box(b, shape, window);
    for (int k = 0; k < 3; k++) f.flipped[k] = train_random_uniform(r) < a->flip;
    for (int k = 0; k < 3; k++) {
        int64_t n = window.n[k], lo = f.box.lo[k], hi = f.box.hi[k];
        for (int64_t i = 0; i < n; i++)
            f.from[k][f.flipped[k] ? n - 1 - i : i] = frame.lo[k] + vol_nearest_source(i, shape.n[k], n);
        if (f.flipped[k] && !vol_box_is_empty(f.box)) f.box.lo[k] = n - 1 - hi, f.box.hi[k] = n - 1 - lo;
    }
    return f;
}

static bool shows(const drawing *d, vol_shape s, const framed *f) {
    bool same = true;
    for (int64_t z = 0; z < d->window.n[0]; z++)
        for (int64_t y = 0; y < d->window.n[1]; y++)
            for (int64_t x = 0; x < d->window.n[2]; x++)
                same = same && origin(d, z, y, x) == (f->from[0][z] * s.n[1] + f->from[1][y]) * s.n[2] + f->from[2][x];
    for (int k = 0; k < 3; k++)
        same = same && d->s.box[k] == (real)f->box.lo[k] && d->s.box[3 + k] == (real)f->box.hi[k];
    return same;
}

/* Scans larger and smaller than the window; margins from almost nothing to the whole scan; a careful user and a careless
   one. The window shows the frame of a box like a user's, truth and box agree with it, and flips flip all three. */
static void test_framed(void) {
    enum { N = 400 };
    static const vol_shape scans[] = {{{13, 70, 41}}, {{5, 21, 60}}, {{30, 19, 12}}, {{6, 7, 8}}};
    static const vol_shape windows[] = {{{8, 16, 24}}, {{7, 33, 15}}};
    static const unsigned margins[] = {1, 25, 60, 1000};
    for (size_t i = 0; i < 8; i++) {
        coded t = make_coded(scans[i % 4], cone_label);
        const train_class *cone = &t.c.classes[0];
        drawing d = new_drawing(windows[i / 4]);
        train_augmentation a = plain();
        bool agree = true, right = true, counted = true, exact = true;
        int slices = 0, flips[3] = {0}, moved[6] = {0};
        a.flip = 0.3, a.frame = margins[i % 4], a.frame_jitter = i < 4 ? 0 : 0.2;
        CHECK(t.c.class_count == 1 && memcmp(&cone->box, &cone->slice_box, sizeof cone->box) != 0);
        for (uint64_t number = 0; number < N; number++) {
            train_random r = train_random_at(8, i, number), again = r;
            train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
            framed f = draw_framed(&t.c, cone, d.window, &a, &again);
            vol_box start = f.slice ? cone->slice_box : cone->box;
            agree = agree && !d.s.empty && agrees(&d, &t, 1);
            right = right && shows(&d, t.c.shape, &f);
            counted = counted && r.counter == again.counter + 2; /* is it scaled, is it shifted */
            exact = exact && memcmp(&f.user, &start, sizeof start) == 0;
            slices += f.slice;
            for (int k = 0; k < 3; k++) {
                flips[k] += f.flipped[k];
                moved[k] += f.user.lo[k] != start.lo[k], moved[3 + k] += f.user.hi[k] != start.hi[k];
            }
        }
        CHECK(agree);
        CHECK(right);
        CHECK(counted);
        CHECK(exact == (i < 4));
        CHECK(near_share(slices, N, 0.5));
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

/* What a window of the session shows, and where it gives the box: the draw without jitter and flips is that. */
static void test_framed_plainly(void) {
    coded t = make_coded((vol_shape){{13, 70, 41}}, cone_label);
    drawing d = new_drawing((vol_shape){{8, 16, 24}});
    train_augmentation a = plain();
    size_t n = vol_count(t.c.shape), m = vol_count(d.window);
    real *whole = malloc(n * sizeof *whole), *want = malloc(m * sizeof *want);
    for (size_t i = 0; i < n; i++) whole[i] = (real)t.c.image[i];
    a.frame = 25, a.frame_jitter = 0;
    for (int slice = 0; slice < 2; slice++) {
        train_random r = train_random_at(8, 9, 1);
        a.slice_box = slice;
        train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
        vol_box b = slice ? t.c.classes[0].slice_box : t.c.classes[0].box, view = vol_frame(b, t.c.shape, 25);
        vol_zoom(whole, t.c.shape, view, want, d.window, 1);
        CHECK(memcmp(d.s.image, want, m * sizeof *want) == 0);
        for (int k = 0; k < 3; k++) b.lo[k] -= view.lo[k], b.hi[k] -= view.lo[k];
        b = vol_resize_box(b, vol_box_shape(view), d.window);
        for (int k = 0; k < 3; k++) CHECK(d.s.box[k] == (real)b.lo[k] && d.s.box[3 + k] == (real)b.hi[k]);
    }
    free(whole), free(want);
    free_drawing(&d);
    free_coded(&t);
}

static uint16_t pair_label(vol_shape s, int64_t z, int64_t y, int64_t x) {
    (void)s;
    return (z == 1 && y == 7 && x == 9) || (z == 1 && y == 11 && x == 13);
}

/* A voxel in a wide frame falls between those that the window takes: ten attempts, then an empty sample, without a box. */
static void test_framed_empty(void) {
    coded t = make_coded((vol_shape){{3, 40, 40}}, voxel_label);
    drawing d = new_drawing((vol_shape){{3, 8, 8}});
    train_augmentation a = plain();
    train_random r = train_random_at(7, 2, 0);
    a.frame = 1000;
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    CHECK(d.s.empty && r.counter == 10 * (1 + 6 + 3) + 2);
    for (int k = 0; k < 6; k++) CHECK(d.s.box[k] == -1);
    a.frame = 25;
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    CHECK(!d.s.empty && agrees(&d, &t, 1));
    free_coded(&t);
    t = make_coded((vol_shape){{3, 40, 40}}, pair_label); /* here the window shows something of the box */
    a.frame = 1000, a.frame_jitter = 0, a.slice_box = 0;
    train_draw(&t.c, 0, &d.window, &a, &r, d.memory, &d.s);
    CHECK(d.s.empty);
    for (int k = 0; k < 6; k++) CHECK(d.s.box[k] == -1);
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
    test_framed_empty();
    test_again(0, 0x603fa4b56b0ff149U);
    test_again(25, 0x60154b7a842480c6U);
    return test_summary();
}
