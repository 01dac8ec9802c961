/* vol against the golden files of upstream's own preprocessing, boxes and sliding windows (tiny/pipe_*.npz), metrics and
   simulated clicks.

       golden_vol ../shared/golden

   Whole numbers must be equal. For the others there are bounds, because upstream normalises in float32 and we in
   double, rounded once. */
#include "test.h"

#include "../io/io.h"
#include "../vol/vol.h"

/* Each with the error measured. */
static const double stats_bound = 1e-7;   /* 4.7e-8, relative */
static const double norm_bound = 4e-7;    /* 2.1e-7, of values up to 4 */
static const double image_bound = 1.5e-7; /* 6.0e-8, double build 8.9e-8, of values in [0, 1] */
/* The predictor is float32 arithmetic: the float build gives its bits. Double build: 1.4e-6, of values up to 12. */
static const double stitch_bound = sizeof(real) == sizeof(float) ? 0 : 3e-6;

static const double metrics_bound = 1e-9; /* 4e-15 */

static const vol_shape tiny_window = {{16, 64, 64}};
enum { THREADS = 2 };

/* ---- reading ------------------------------------------------------------------------------------------------- */

typedef struct golden {
    const char *name;
    io_buffer file;
    io_zip zip;
} golden;

/* One array as doubles, which hold every value of the files exactly. */
typedef struct tensor {
    int ndim;
    size_t shape[IO_MAX_DIMS], count;
    vol_shape volume; /* the last three axes; missing ones are 1 */
    double *v;        /* NULL when it could not be read */
} tensor;

/* False, with a skip, when the file is not there. A file that is there must be readable. */
static bool open_golden(const char *folder, const char *name, golden *g) {
    char path[1024];
    segfm_error error;
    *g = (golden){.name = name};
    snprintf(path, sizeof path, "%s/tiny/%s", folder, name);
    if (io_read_file(path, &g->file, &error) != SEGFM_OK) {
        test_skip(name, error.message);
        return false;
    }
    if (CHECK(io_zip_open(g->file.data, g->file.size, &g->zip, &error) == SEGFM_OK)) return true;
    io_buffer_free(&g->file);
    return false;
}

static void close_golden(golden *g) {
    io_zip_close(&g->zip);
    io_buffer_free(&g->file);
}

static tensor load_entry(const golden *g, const io_zip_entry *entry) {
    tensor t = {0};
    io_buffer bytes = {0};
    io_array array;
    segfm_error error;
    if (CHECK(io_zip_read(&g->zip, entry, &bytes, &error) == SEGFM_OK) &&
        CHECK(io_npy_parse(bytes.data, bytes.size, &array, &error) == SEGFM_OK)) {
        t.ndim = array.ndim;
        t.count = array.count;
        for (int k = 0; k < array.ndim; k++) t.shape[k] = array.shape[k];
        for (int k = 0; k < 3; k++) t.volume.n[2 - k] = k < t.ndim ? (int64_t)t.shape[t.ndim - 1 - k] : 1;
        t.v = malloc((t.count + 1) * sizeof *t.v);
        if (t.v) io_array_to_f64(&array, t.v);
    }
    io_buffer_free(&bytes);
    return t;
}

/* The member prefix + name of the archive, of `count` elements unless that is 0. */
static tensor load(const golden *g, const char *prefix, const char *name, size_t count) {
    char member[128];
    tensor t = {0};
    snprintf(member, sizeof member, "%s%s.npy", prefix, name);
    const io_zip_entry *entry = io_zip_find(&g->zip, member);
    if (entry) t = load_entry(g, entry);
    if (t.v && count > 0 && t.count != count) {
        free(t.v);
        t.v = NULL;
    }
    if (!test_check(t.v != NULL, member, g->name, 0)) t.count = 0;
    return t;
}

static vol_shape shape_of(const double *v) { return (vol_shape){{(int64_t)v[0], (int64_t)v[1], (int64_t)v[2]}}; }

static vol_box box_of(const double *v) {
    return (vol_box){{(int64_t)v[0], (int64_t)v[1], (int64_t)v[2]}, {(int64_t)v[3], (int64_t)v[4], (int64_t)v[5]}};
}

/* A challenge box (z_min z_max z_mid x_min y_min x_max y_max). */
static vol_box challenge_box(const double *v) {
    return (vol_box){{(int64_t)v[0], (int64_t)v[4], (int64_t)v[3]}, {(int64_t)v[1], (int64_t)v[6], (int64_t)v[5]}};
}

static bool same_box(vol_box a, vol_box b) { return memcmp(&a, &b, sizeof a) == 0; }

static bool same_triple(const int64_t a[3], const double *b) {
    return (double)a[0] == b[0] && (double)a[1] == b[1] && (double)a[2] == b[2];
}

static vol_box whole(vol_shape s) { return (vol_box){{0, 0, 0}, {s.n[0] - 1, s.n[1] - 1, s.n[2] - 1}}; }

static vol_box shifted(vol_box b, const int64_t by[3]) {
    for (int k = 0; k < 3; k++) b.lo[k] -= by[k], b.hi[k] -= by[k];
    return b;
}

static uint8_t *mask_of(const tensor *t) {
    uint8_t *mask = malloc(t->count + 1);
    for (size_t i = 0; i < t->count; i++) mask[i] = t->v[i] != 0;
    return mask;
}

/* Is the mask the cube of b and nothing else? */
static bool is_cube(const double *mask, vol_shape s, vol_box b) {
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++)
            for (int64_t x = 0; x < s.n[2]; x++) {
                vol_box voxel = {{z, y, x}, {z, y, x}};
                if ((*mask++ != 0) == vol_box_is_empty(vol_box_intersect(voxel, b))) return false;
            }
    return true;
}

/* ---- preprocessing ------------------------------------------------------------------------------------------- */

/* A scan on its way to the network. */
typedef struct prepared {
    vol_shape shape, cropped;
    vol_foreground stats;
    vol_box crop;
    float *voxels;
    real *image; /* cropped */
} prepared;

static prepared prepare(const tensor *t) {
    prepared p = {.shape = t->volume};
    p.voxels = malloc((t->count + 1) * sizeof *p.voxels);
    p.image = malloc((t->count + 1) * sizeof *p.image);
    real *full = malloc((t->count + 1) * sizeof *full);
    for (size_t i = 0; i < t->count; i++) p.voxels[i] = (float)t->v[i];
    vol_foreground_stats(p.voxels, t->count, THREADS, &p.stats);
    vol_normalise(p.voxels, t->count, &p.stats, THREADS, full);
    p.crop = vol_foreground_box(full, p.shape);
    if (vol_box_is_empty(p.crop)) p.crop = whole(p.shape);
    p.cropped = vol_box_shape(p.crop);
    vol_crop(full, p.shape, p.crop, p.image);
    free(full);
    return p;
}

static void free_prepared(prepared *p) { free(p->voxels), free(p->image); }

static void check_stats(const prepared *p, const tensor *want, const tensor *normalised) {
    const vol_foreground *f = &p->stats;
    double got[5] = {f->threshold, f->lower, f->upper, f->mean, f->std};
    CHECK_CLOSE("foreground statistics", got, want->v, 5, 0, stats_bound);
    CHECK((double)f->count == want->v[5]);
    double *norm = malloc(normalised->count * sizeof *norm);
    for (size_t i = 0; i < normalised->count; i++)
        norm[i] = (fmin(fmax((double)p->voxels[i], f->lower), f->upper) - f->mean) / f->std;
    CHECK_CLOSE("foreground normalisation", norm, normalised->v, normalised->count, norm_bound, 0);
    free(norm);
}

static void check_image(const prepared *p, const tensor *image, const tensor *zoomed) {
    size_t n = vol_count(p->cropped), m = vol_count(tiny_window);
    bool zeros = true;
    CHECK_CLOSE("cropped image", p->image, image->v, n, image_bound, 0);
    for (size_t i = 0; i < n; i++) zeros &= (p->image[i] == 0) == (image->v[i] == 0);
    CHECK(zeros);
    real *out = malloc(m * sizeof *out);
    vol_resize_nearest(p->image, p->cropped, out, tiny_window, THREADS);
    CHECK_CLOSE("zoomed-out image", out, zoomed->v, m, image_bound, 0);
    free(out);
}

/* Challenge box k → the cropped volume → the zoomed-out volume → the prompt. */
static void check_box(const golden *g, const prepared *p, size_t k) {
    size_t n = vol_count(p->cropped), m = vol_count(tiny_window);
    tensor entry = load(g, k == 0 ? "boxA" : "boxB", "", 7), cubes = load(g, "cube_boxes", "", 2 * n);
    tensor zoomed = load(g, "zoom_out_cube_boxes", "", 2 * m), prompts = load(g, "zoom_out_box_prompts", "", 12);
    if (entry.v && cubes.v && zoomed.v && prompts.v) {
        vol_box b = shifted(vol_box_intersect(challenge_box(entry.v), p->crop), p->crop.lo);
        CHECK(is_cube(cubes.v + k * n, p->cropped, b));
        b = vol_resize_box(b, p->cropped, tiny_window);
        CHECK(is_cube(zoomed.v + k * m, tiny_window, b));
        CHECK(same_box(b, box_of(prompts.v + 6 * k)));
    }
    free(entry.v), free(cubes.v), free(zoomed.v), free(prompts.v);
}

static void check_preprocess(const char *folder, const char *name, size_t boxes) {
    golden g;
    if (!open_golden(folder, name, &g)) return;
    tensor volume = load(&g, "vol", "", 0);
    if (volume.v) {
        prepared p = prepare(&volume);
        tensor stats = load(&g, "norm_stats", "", 6), normalised = load(&g, "foreground_norm", "", volume.count);
        tensor start = load(&g, "start", "", 3), end = load(&g, "end", "", 3);
        tensor image = load(&g, "image", "", vol_count(p.cropped));
        tensor zoomed = load(&g, "zoom_out_image", "", vol_count(tiny_window));
        if (stats.v && normalised.v) check_stats(&p, &stats, &normalised);
        if (start.v && end.v) {
            int64_t past[3] = {p.crop.hi[0] + 1, p.crop.hi[1] + 1, p.crop.hi[2] + 1};
            CHECK(same_triple(p.crop.lo, start.v) && same_triple(past, end.v));
        }
        if (image.v && zoomed.v) check_image(&p, &image, &zoomed);
        for (size_t k = 0; k < boxes; k++) check_box(&g, &p, k);
        free(stats.v), free(normalised.v), free(start.v), free(end.v), free(image.v), free(zoomed.v);
        free_prepared(&p);
    }
    free(volume.v);
    close_golden(&g);
}

/* ---- tables, boxes, regions ---------------------------------------------------------------------------------- */

static void check_tables(const char *folder) {
    golden g;
    if (!open_golden(folder, "pipe_nearest_tables.npz", &g)) return;
    CHECK(g.zip.count == 43);
    for (size_t e = 0; e < g.zip.count; e++) {
        long long in, out;
        tensor t = load_entry(&g, &g.zip.entries[e]);
        if (!t.v) continue;
        bool same = sscanf(g.zip.entries[e].name, "%lld_%lld.npy", &in, &out) == 2 && (size_t)out == t.count;
        for (int64_t i = 0; same && i < out; i++) same = (double)vol_nearest_source(i, in, out) == t.v[i];
        test_check(same, g.zip.entries[e].name, g.name, 0);
        free(t.v);
    }
    close_golden(&g);
}

static void check_prompt_boxes(const char *folder) {
    golden g;
    if (!open_golden(folder, "pipe_boxes.npz", &g)) return;
    tensor boxes = load(&g, "boxes", "", 48);
    for (int i = 0; boxes.v && i < 8; i++) {
        char name[2] = {(char)('0' + i), 0};
        tensor t = load(&g, "mask", name, 0);
        if (!t.v) continue;
        uint8_t *mask = mask_of(&t);
        CHECK(same_box(vol_mask_prompt_box(mask, t.volume), box_of(boxes.v + 6 * i)));
        free(mask), free(t.v);
    }
    free(boxes.v);
    close_golden(&g);
}

static void check_regions(const char *folder) {
    golden g;
    if (!open_golden(folder, "pipe_logits2roi.npz", &g)) return;
    tensor rows = load(&g, "rows", "", 9 * 21);
    for (size_t i = 0; i * 21 < rows.count; i++) {
        /* shape, box of the prediction, box of the prompt, region (−999: none) */
        const double *row = rows.v + 21 * i;
        vol_box u = vol_box_union(box_of(row + 3), box_of(row + 9));
        vol_box want = row[15] == -999 ? vol_box_none() : box_of(row + 15);
        CHECK(same_box(vol_region(u, shape_of(row), tiny_window), want));
    }
    free(rows.v);
    close_golden(&g);
}

/* ---- sliding windows ----------------------------------------------------------------------------------------- */

/* The golden files' input tensors: element i of the tensor called prefix + name (see their README). */
static uint64_t name_hash(const char *prefix, const char *name) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; *prefix; prefix++) h = (h ^ (unsigned char)*prefix) * 0x100000001b3u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

static double uniform(uint64_t hash, uint64_t i) {
    uint64_t z = hash + i * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 40) / 16777216;
}

/* The stand-in for the network: w → 10·(w − ½) + 0.01·Σbox + (z + 2y + 3x)/100, in place. */
static void predict(real *w, vol_box b) {
    real sum = (real)(b.lo[0] + b.lo[1] + b.lo[2] + b.hi[0] + b.hi[1] + b.hi[2]);
    for (int64_t z = 0; z < tiny_window.n[0]; z++)
        for (int64_t y = 0; y < tiny_window.n[1]; y++)
            for (int64_t x = 0; x < tiny_window.n[2]; x++, w++)
                *w = 10 * (*w - REAL_C(0.5)) + REAL_C(0.01) * sum + (real)(z + 2 * y + 3 * x) / 100;
}

/* starts (n,3) and interval (3, or NULL) of a plan. */
static void check_plan(const vol_windows *w, const tensor *starts, const double *interval) {
    int64_t total = vol_windows_total(w);
    if (!CHECK((size_t)total * 3 == starts->count)) return;
    bool same = !interval || same_triple(w->interval, interval);
    for (int64_t i = 0; i < total; i++) {
        int64_t start[3];
        vol_windows_start(w, i, start);
        same &= same_triple(start, starts->v + 3 * i);
    }
    CHECK(same);
}

/* Slides the stand-in over a region that is the whole volume, and checks each window's box on the way. */
static void slide(const vol_windows *w, const real *image, const uint8_t *prediction, vol_box prompt,
                  const double *boxes, real *sum) {
    static const int64_t origin[3] = {0, 0, 0};
    size_t m = vol_count(w->window);
    real *part = malloc(m * sizeof *part);
    uint8_t *mask = malloc(m);
    bool same = true;
    for (int64_t i = 0; i < vol_windows_total(w); i++) {
        vol_window_extract(image, w->region, origin, w, i, part);
        vol_window_extract_mask(prediction, w->region, origin, w, i, mask);
        vol_box b = vol_mask_prompt_box(mask, w->window);
        if (vol_windows_total(w) == 1) b = vol_window_box(w, i, origin, prompt);
        same &= same_box(b, box_of(boxes + 6 * i));
        predict(part, b);
        vol_window_add(w, i, part, sum);
    }
    CHECK(same);
    vol_windows_average(w, sum, THREADS);
    free(part), free(mask);
}

/* out: every step[k]-th voxel of axis k was stored. */
static void check_stitched(const real *sum, vol_shape s, const int64_t step[3], const tensor *out) {
    real *kept = malloc(vol_count(s) * sizeof *kept);
    size_t n = 0;
    for (int64_t z = 0; z < s.n[0]; z += step[0])
        for (int64_t y = 0; y < s.n[1]; y += step[1])
            for (int64_t x = 0; x < s.n[2]; x += step[2]) kept[n++] = sum[(z * s.n[1] + y) * s.n[2] + x];
    if (CHECK(n == out->count)) CHECK_CLOSE("stitched windows", kept, out->v, n, stitch_bound, 0);
    free(kept);
}

static void check_sliding_case(const golden *g, const char *tag, const int64_t step[3]) {
    static const vol_box prompt = {{2, 10, 12}, {7, 39, 43}};
    tensor shape = load(g, tag, ".shape", 3), interval = load(g, tag, ".interval", 3);
    tensor starts = load(g, tag, ".starts", 0), boxes = load(g, tag, ".boxes", 0);
    tensor prediction = load(g, tag, ".global_preds", 0), out = load(g, tag, ".out", 0);
    if (shape.v && interval.v && starts.v && boxes.v && prediction.v && out.v) {
        vol_windows w;
        vol_shape s = shape_of(shape.v);
        size_t n = vol_count(s);
        vol_windows_plan(s, tiny_window, &w);
        check_plan(&w, &starts, interval.v);
        if (CHECK(boxes.count == 6 * (size_t)vol_windows_total(&w)) && CHECK(prediction.count == n)) {
            real *image = malloc(n * sizeof *image), *sum = calloc(n, sizeof *sum);
            uint8_t *mask = mask_of(&prediction);
            uint64_t hash = name_hash("sw.", tag);
            for (size_t i = 0; i < n; i++) image[i] = (real)uniform(hash, i);
            slide(&w, image, mask, prompt, boxes.v, sum);
            check_stitched(sum, s, step, &out);
            free(image), free(sum), free(mask);
        }
    }
    free(shape.v), free(interval.v), free(starts.v), free(boxes.v), free(prediction.v), free(out.v);
}

static void check_sliding(const char *folder) {
    static const struct {
        const char *tag;
        int64_t step[3];
    } cases[5] = {
        {"pad1", {1, 1, 1}}, {"many", {3, 1, 1}}, {"exact", {1, 1, 1}}, {"mixed", {1, 1, 1}}, {"edge", {2, 3, 3}}};
    static const vol_shape full[5] = {
        {{120, 512, 512}}, {{82, 230, 300}}, {{33, 257, 400}}, {{32, 256, 256}}, {{40, 300, 200}}};
    golden g;
    if (!open_golden(folder, "pipe_sliding.npz", &g)) return;
    for (int i = 0; i < 5; i++) check_sliding_case(&g, cases[i].tag, cases[i].step);
    for (int i = 0; i < 5; i++) {
        char name[64];
        const int64_t *n = full[i].n;
        snprintf(name, sizeof name, "%lldx%lldx%lld", (long long)n[0], (long long)n[1], (long long)n[2]);
        tensor starts = load(&g, "starts_full_", name, 0);
        vol_windows w;
        vol_windows_plan(full[i], (vol_shape){{32, 256, 256}}, &w);
        if (starts.v) check_plan(&w, &starts, NULL);
        free(starts.v);
    }
    close_golden(&g);
}

/* ---- upstream's whole pipeline, with its network's zoom-out logits given ------------------------------------- */

/* One class: zoom-out prompt, region, windows and their boxes. boxes: the box of every model call of the class, the
   zoom-out call first; logits (window): what that call returned. */
static void check_object(const prepared *p, vol_box box, const tensor *logits, const double *roi, const double *boxes,
                         int64_t windows) {
    size_t n = vol_count(p->cropped), m = vol_count(tiny_window);
    real *zoomed = malloc(m * sizeof *zoomed), *back = malloc(n * sizeof *back);
    uint8_t *mask = malloc(n), *part = malloc(m);
    vol_box prompt = shifted(vol_box_intersect(box, p->crop), p->crop.lo);
    CHECK(same_box(vol_resize_box(prompt, p->cropped, tiny_window), box_of(boxes)));

    for (size_t i = 0; i < m; i++) zoomed[i] = (real)logits->v[i];
    vol_resize_nearest(zoomed, tiny_window, back, p->cropped, THREADS);
    for (size_t i = 0; i < n; i++) mask[i] = nn_sigmoid_above_half(back[i]);
    vol_box region = vol_region(vol_box_union(vol_mask_bounds(mask, p->cropped), prompt), p->cropped, tiny_window);
    CHECK(same_box(region, box_of(roi)));

    vol_windows w;
    region = vol_box_intersect(region, whole(p->cropped));
    vol_windows_plan(vol_box_shape(region), tiny_window, &w);
    if (CHECK(vol_windows_total(&w) == windows)) {
        bool same = true;
        for (int64_t i = 0; i < windows; i++) {
            vol_window_extract_mask(mask, p->cropped, region.lo, &w, i, part);
            vol_box b = vol_mask_prompt_box(part, tiny_window);
            if (windows == 1) b = vol_window_box(&w, i, region.lo, prompt);
            same &= same_box(b, box_of(boxes + 6 * (1 + i)));
        }
        CHECK(same);
    }
    free(zoomed), free(back), free(mask), free(part);
}

/* source: the archive with the scan and its boxes, whose names are given. */
static void check_pipeline(const golden *source, const char *const *box_names, const golden *g, size_t classes) {
    tensor volume = load(source, "vol", "", 0);
    tensor roi = load(g, "roi", "", 6 * classes), nwin = load(g, "nwin", "", classes);
    size_t calls = classes;
    for (size_t k = 0; k < nwin.count; k++) calls += (size_t)nwin.v[k];
    tensor boxes = load(g, "model_boxes", "", 6 * calls);
    if (volume.v && roi.v && nwin.v && boxes.v) {
        prepared p = prepare(&volume);
        const double *call = boxes.v;
        for (size_t k = 0; k < classes; k++) {
            tensor box = load(source, box_names[k], "", 7);
            tensor logits = load(g, k == 0 ? "global0" : "global1", "_f64rounded", vol_count(tiny_window));
            int64_t windows = (int64_t)nwin.v[k];
            if (box.v && logits.v) check_object(&p, challenge_box(box.v), &logits, roi.v + 6 * k, call, windows);
            call += 6 * (1 + windows);
            free(box.v), free(logits.v);
        }
        free_prepared(&p);
    }
    free(volume.v), free(roi.v), free(nwin.v), free(boxes.v);
}

static void check_pipelines(const char *folder) {
    golden scan, g;
    if (open_golden(folder, "pipe_infer_single.npz", &g)) {
        check_pipeline(&g, (const char *const[]){"box"}, &g, 1);
        close_golden(&g);
    }
    if (!open_golden(folder, "pipe_preprocess.npz", &scan)) return;
    if (open_golden(folder, "pipe_infer_multi.npz", &g)) {
        check_pipeline(&scan, (const char *const[]){"boxA", "boxB"}, &g, 2);
        close_golden(&g);
    }
    close_golden(&scan);
}

/* ---- metrics and simulated clicks -------------------------------------------------------------------------------- */

/* The tool's inf and NaN, where a mask is empty, are our NaN. */
static void check_metrics_row(const double *row, const uint8_t *truth, const uint8_t *prediction, vol_shape s) {
    vol_surface_request q = {s, {row[0], row[1], row[2]}, 2, false, THREADS};
    vol_box box = vol_surface_box(truth, prediction, s);
    size_t bytes = vol_box_is_empty(box) ? 0 : vol_surface_bytes(vol_box_shape(box), false, THREADS);
    void *memory = aligned_alloc(NN_ALIGN, bytes + NN_ALIGN);
    vol_surface two, one;
    vol_surface_measure(truth, prediction, &q, memory, &two);
    q.tolerance = 1;
    vol_surface_measure(truth, prediction, &q, memory, &one);
    const double got[9] = {two.dice,
                           two.nsd,
                           one.nsd,
                           two.hd95,
                           two.hd,
                           two.asd_truth,
                           two.asd_prediction,
                           two.overlap_truth,
                           two.overlap_prediction};
    bool same = true;
    for (int i = 0; i < 9; i++) {
        double want = row[3 + i];
        same &= isfinite(want) ? fabs(got[i] - want) <= metrics_bound : isnan(got[i]) && two.undefined != VOL_DEFINED;
    }
    CHECK(same);
    free(memory);
}

static void check_metrics(const char *folder) {
    golden g;
    if (!open_golden(folder, "metrics.npz", &g)) return;
    tensor rows = load(&g, "rows", "", 9 * 12);
    for (int i = 0; rows.v && i < 9; i++) {
        char name[2] = {(char)('0' + i), 0};
        tensor truth = load(&g, "gt", name, 0), prediction = load(&g, "pred", name, truth.count);
        if (truth.v && prediction.v) {
            uint8_t *a = mask_of(&truth), *b = mask_of(&prediction);
            check_metrics_row(rows.v + 12 * i, a, b, truth.volume);
            free(a), free(b);
        }
        free(truth.v), free(prediction.v);
    }
    free(rows.v);
    close_golden(&g);
}

/* The tool's table holds each triangle's normal, as long as its area is large; a flat polygon may be cut differently, so
   that areas are compared, of voxels of several shapes. */
static void check_area_table(const char *folder) {
    static const double sizes[4][3] = {{1, 1, 1}, {3, 0.5, 2}, {0.7, 1.9, 1.1}, {1, 10, 100}};
    golden g;
    if (!open_golden(folder, "metrics_normals_table.npz", &g)) return;
    tensor normals = load(&g, "normals", "", 256 * 4 * 3);
    for (int i = 0; normals.v && i < 4; i++) {
        const double *s = sizes[i];
        double want[256], got[256];
        for (int code = 0; code < 256; code++) {
            want[code] = 0;
            for (int t = 0; t < 4; t++) {
                const double *n = normals.v + 12 * code + 3 * t;
                want[code] +=
                    sqrt(pow(n[0] * s[1] * s[2], 2) + pow(n[1] * s[0] * s[2], 2) + pow(n[2] * s[0] * s[1], 2));
            }
        }
        vol_surface_areas(s, got);
        CHECK_CLOSE("areas of marching cubes", got, want, 256, 0, 1e-14);
    }
    free(normals.v);
    close_golden(&g);
}

/* The ellipsoid around c with radii r. */
static void ellipsoid(uint8_t *mask, const double c[3], const double r[3]) {
    for (int z = 0; z < 16; z++)
        for (int y = 0; y < 64; y++)
            for (int x = 0; x < 64; x++)
                *mask++ = pow((z - c[0]) / r[0], 2) + pow((y - c[1]) / r[1], 2) + pow((x - c[2]) / r[2], 2) <= 1;
}

/* Six clicks, as the file's clicks_note describes them. Clicks are simulated on raw logits > 0.5: in the last case, whose
   logits are 0.4 inside the label, the prediction is empty. */
static void check_click_cases(const tensor *clicks) {
    uint8_t truth[16 * 64 * 64], prediction[16 * 64 * 64];
    ellipsoid(truth, (double[]){8, 32, 30}, (double[]){5, 14, 12});
    for (int i = 0; i < 6; i++) {
        ellipsoid(prediction, (double[]){8, 32 + 2 * i, 30 - 3 * i}, (double[]){5 - 0.5 * i, 14, 12 - i});
        if (i == 5) memset(prediction, 0, sizeof prediction);
        vol_click_request q = {tiny_window, VOL_CLICK_OFFICIAL, VOL_CLICK_LARGE, THREADS};
        void *memory = aligned_alloc(NN_ALIGN, vol_click_bytes(prediction, truth, &q) + NN_ALIGN);
        vol_click click;
        vol_simulate_click(prediction, truth, &q, memory, &click);
        const double *want = clicks->v + 4 * i;
        CHECK(same_triple(click.at, want) && click.label == want[3]);
        free(memory);
    }
}

static void check_clicks(const char *folder) {
    golden g;
    if (!open_golden(folder, "gru_click.npz", &g)) return;
    tensor choice = load(&g, "choice_seed42", "", 5000), clicks = load(&g, "clicks", "", 24);
    tensor comp = load(&g, "comp", "", vol_count(tiny_window)), edt = load(&g, "edt", "", comp.count);
    bool same = choice.v != NULL;
    for (size_t n = 1; n <= choice.count; n++) {
        vol_mt mt;
        vol_mt_seed(&mt, 42);
        same &= (double)vol_mt_below(&mt, n) == choice.v[n - 1];
    }
    CHECK(same);
    if (clicks.v) check_click_cases(&clicks);
    if (comp.v && edt.v) {
        uint8_t *mask = mask_of(&comp);
        double *distance = malloc(comp.count * sizeof *distance);
        void *scratch = aligned_alloc(NN_ALIGN, vol_distance_scratch(tiny_window, THREADS));
        vol_distance(mask, tiny_window, (double[]){1, 1, 1}, THREADS, scratch, distance);
        same = true;
        for (size_t i = 0; i < comp.count; i++) same &= sqrt(distance[i]) == edt.v[i];
        CHECK(same);
        free(mask), free(distance), free(scratch);
    }
    free(choice.v), free(clicks.v), free(comp.v), free(edt.v);
    close_golden(&g);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        printf("usage: golden_vol FOLDER_OF_GOLDEN_FILES\n");
        return 2;
    }
    check_preprocess(argv[1], "pipe_preprocess.npz", 2);
    check_preprocess(argv[1], "pipe_preprocess_ct16.npz", 0);
    check_tables(argv[1]);
    check_prompt_boxes(argv[1]);
    check_regions(argv[1]);
    check_sliding(argv[1]);
    check_pipelines(argv[1]);
    check_metrics(argv[1]);
    check_area_table(argv[1]);
    check_clicks(argv[1]);
    return test_summary();
}
