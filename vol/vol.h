/* vol: volumes as geometry. Normalisation, crops, resizing, boxes, regions, windows, stitching, overlap metrics.
   Axes are (z, y, x) everywhere, x fastest; a box is {z0,y0,x0,z1,y1,x1}, bounds inclusive; the box of nothing is all
   −1. Every axis of a shape is at least 1. Memory is the caller's. `threads` is at least 1 (nn_threads) and never
   changes a bit. Knows no network. */
#ifndef SEGFM_VOL_H
#define SEGFM_VOL_H

#include "../nn/nn.h"

typedef struct vol_shape {
    int64_t n[3];
} vol_shape;

typedef struct vol_box {
    int64_t lo[3], hi[3]; /* inclusive; empty when hi < lo or lo < 0 on some axis */
} vol_box;

/* Voxels of a shape; the caller has checked that they fit in memory. (This and the next four: boxes.c.) */
size_t vol_count(vol_shape s);
bool vol_box_is_empty(vol_box b);
vol_box vol_box_none(void);         /* (−1,…,−1) */
vol_box vol_box_whole(vol_shape s); /* all of a volume */
vol_shape vol_box_shape(vol_box b); /* its extents; b is not empty */

/* ---- normalise.c --------------------------------------------------------------------------------------------- */

/* Foreground statistics of SPEC 3: t = mean of all voxels; over the voxels > t: percentiles 0.05 and 99.95 (linear
   interpolation as numpy: at rank q/100·(n−1)), mean, population standard deviation. Means and deviations are summed in
   double in fixed groups of voxels, so they do not depend on threads. count = voxels above t (0 when the volume is
   constant: then lower = upper = mean = t, std = 0; upstream crashes there. Certain up to 2^29 voxels, whose sum is
   exact; beyond, all of them may count as above a t that was rounded, and the image is 0 all the same). All zero for
   n = 0. */
typedef struct vol_foreground {
    double threshold, lower, upper, mean, std;
    uint64_t count;
} vol_foreground;
void vol_foreground_stats(const float *voxels, size_t n, int threads, vol_foreground *out);
/* out[i] = (clip(v, lower, upper) − mean) / max(std, 1e-8), then min-max to [0, 1] as SPEC 3 (minus min, divided by
   max(max, 1e-8)). The bounds are rounded to float before they clip, as numpy does. Every voxel at or below the lower
   bound becomes exactly 0; a constant volume all 0. Computed in double, rounded once. out may not overlap voxels. */
void vol_normalise(const float *voxels, size_t n, const vol_foreground *stats, int threads, real *out);
/* Bounding box of the voxels > 0 (crop foreground); vol_box_none when there is none: then there is nothing to crop by,
   and the caller keeps the whole volume (upstream never gets there). */
vol_box vol_foreground_box(const real *image, vol_shape s);

/* ---- resize.c ------------------------------------------------------------------------------------------------ */

/* Nearest resize's source index of output index i: floor(float32(i)·(float32(in)/float32(out))), at most in−1;
   float32 in every build, because the exact rule differs (64→110, i=55). */
int64_t vol_nearest_source(int64_t i, int64_t in, int64_t out);
/* The part `part` of out (o) = nearest resize of `in` (s). */
void vol_resize_nearest(const real *in, vol_shape s, real *out, vol_shape o, vol_box part, int threads);
/* Box of the resized binary cube: the output indices whose source lies in the box (per axis the same as resizing the
   cube and taking the bounding box); empty when no source hits it. */
vol_box vol_resize_box(vol_box b, vol_shape s, vol_shape o);
/* Sets the box b of a volume (s) to a value. */
void vol_fill(real *volume, vol_shape s, vol_box b, real value);
/* The sub-volume b of in (s): out has the box's shape. b lies in the volume and is not empty. */
void vol_crop(const real *in, vol_shape s, vol_box b, real *out);

/* ---- boxes.c ------------------------------------------------------------------------------------------------- */

/* A mask is a volume of bytes, non-zero = inside. */

/* Bounding box of the mask's voxels; vol_box_none when empty. */
vol_box vol_mask_bounds(const uint8_t *mask, vol_shape s);
/* The box upstream derives from a mask: z range of the mask; y/x range of the slice at the z of the median foreground
   voxel in raster order (index n/2 of the n foreground voxels). vol_box_none when empty. */
vol_box vol_mask_prompt_box(const uint8_t *mask, vol_shape s);
vol_box vol_box_union(vol_box a, vol_box b);     /* an empty box adds nothing */
vol_box vol_box_intersect(vol_box a, vol_box b); /* vol_box_none when they do not meet */
/* What a window that follows the box b of an object shows of a volume (s): the box and `margin` percent of its extent, at
   least two voxels, on each side, cut to the volume. b lies in the volume; empty: vol_box_none. */
vol_box vol_frame(vol_box b, vol_shape s, unsigned margin);
/* The region of interest of SPEC 4.2 from the union box u of prediction and prompt: each side padded by
   floor(max(0, window − extent)/2) and clamped as upstream does: lo ≥ 0; hi is inclusive but clamped to the axis length
   (so hi may equal s.n; vol_box_intersect with the volume gives the voxels it means). Empty u: vol_box_none. */
vol_box vol_region(vol_box u, vol_shape s, vol_shape window);

/* ---- frame.c: windows that follow a box ---------------------------------------------------------------------- */

/* Voxel i of `window` ones that cover n voxels of an axis evenly: it covers `first` to `last`, some of them in part. */
typedef struct vol_cell {
    int64_t first, last;
    int64_t begin, end, window; /* in voxels / window */
} vol_cell;
vol_cell vol_cell_of(int64_t i, int64_t n, int64_t window);
/* How much of it lies in the voxels from … to: the whole is n. */
int64_t vol_cell_share(const vol_cell *c, int64_t from, int64_t to);
/* out (window) = the part `view` of in (s) resized to the window: each voxel the mean over what it covers. */
void vol_zoom(const real *in, vol_shape s, vol_box view, real *out, vol_shape window, int threads);
/* The voxel of the window that the centre of a voxel of the view falls into. */
void vol_zoom_point(const int64_t at[3], vol_box view, vol_shape window, int64_t to[3]);
/* A volume's box in the window, from the voxel of its low corner to that of its high one; vol_box_none where it and the view do
   not meet. */
vol_box vol_zoom_box(vol_box b, vol_box view, vol_shape window);
/* The contrast that shows what the box (in the image, of shape s; not empty) holds. v becomes d/(1 + |d|/6),
   d = ±(v − m)/(c + a/20): m and c are mean and deviation of the core, an ellipsoid with 0.6 of the box's axes in its middle (or
   of all, where it is too small to have a voxel); a is the deviation of all; the sign makes the core brighter than what lies
   outside of the inscribed ellipsoid (where nothing does: +). So what is like the core is near 0 whatever the scanner, and a
   faint border is not lost beside bone or air. An image of one value becomes 0. */
#define VOL_CONTRAST_CORE 0.6
#define VOL_CONTRAST_FLOOR 0.05
#define VOL_CONTRAST_LIMIT 6.0
void vol_contrast(real *image, vol_shape s, vol_box box);
/* The part `part` of the view in a volume (s) = trilinear resize of values (window) to the view's shape, voxel centres
   over voxel centres, beyond the outer ones constant. */
void vol_unzoom(const real *values, vol_shape window, vol_box view, vol_box part, vol_shape s, int threads,
                real *volume);
/* sum (window, over the view `to`) += the same of values (window, over the view `from`) at the centres of its voxels. */
void vol_rezoom(const real *values, vol_shape window, vol_box from, vol_box to, int threads, real *sum);

/* ---- windows.c ----------------------------------------------------------------------------------------------- */

/* Sliding windows over a region of shape r (already cut to the volume): the region is zero-padded symmetrically (an odd
   voxel at the end) to at least a window; the interval per axis is the window if it equals the padded size, else
   floor(window/2), at least 1; starts run by the interval and the last is clamped to the border. */
typedef struct vol_windows {
    vol_shape region, window, padded;
    int64_t pad_lo[3]; /* zeros before the region */
    int64_t count[3];  /* windows per axis */
    int64_t interval[3];
} vol_windows;
void vol_windows_plan(vol_shape region, vol_shape window, vol_windows *out);
int64_t vol_windows_total(const vol_windows *w);
/* Start of window i in padded coordinates; i runs z slowest, x fastest. */
void vol_windows_start(const vol_windows *w, int64_t i, int64_t start[3]);
/* Window i of the region whose lowest corner is `origin` in volume in (s): out (window), zero where padded. */
void vol_window_extract(const real *in, vol_shape s, const int64_t origin[3], const vol_windows *w, int64_t i,
                        real *out);
/* The same for bytes. */
void vol_window_extract_mask(const uint8_t *in, vol_shape s, const int64_t origin[3], const vol_windows *w, int64_t i,
                             uint8_t *out);
/* The part of a volume's box b that lies in window i, in the window's own coordinates; vol_box_none when they do not
   meet. (The box prompt of a lone window.) */
vol_box vol_window_box(const vol_windows *w, int64_t i, const int64_t origin[3], vol_box b);
/* The next three work on the part `part` (a box in the region, in the volume's coordinates) of a volume (s) in which the
   region's lowest corner is `origin`. */
/* Does window i show a voxel of the part? */
bool vol_window_meets(const vol_windows *w, int64_t i, const int64_t origin[3], vol_box part);
/* Adds window i's values to the sums of the part. Called in window order, so that every voxel's sum is one fixed sequence. */
void vol_window_add(const vol_windows *w, int64_t i, const real *values, const int64_t origin[3], vol_box part,
                    vol_shape s, real *sum);
/* sum[v] /= number of windows covering voxel v (computed, not stored). */
void vol_windows_average(const vol_windows *w, const int64_t origin[3], vol_box part, vol_shape s, int threads,
                         real *sum);

/* ---- distance.c ---------------------------------------------------------------------------------------------- */

/* out (s) = squared Euclidean distance of every voxel to the nearest zero of the mask, in squared units of spacing
   (z,y,x), each > 0: 0 on a zero, INFINITY everywhere when there is none. With spacing {1,1,1} whole numbers, exact, so
   that they can be compared for ties; with others the rounding of a few operations. scratch: vol_distance_scratch bytes,
   NN_ALIGN-aligned (SIZE_MAX: more than there can be). Linear time, threads share out lines. */
size_t vol_distance_scratch(vol_shape s, int threads);
void vol_distance(const uint8_t *mask, vol_shape s, const double spacing[3], int threads, void *scratch, double *out);
/* The same distances to the nearest zero of `to`, but only of the zeros of `from` (s), one after the other in raster order;
   returns how many there are. Faster when most of them are near. */
size_t vol_distance_between_scratch(vol_shape s, int threads);
size_t vol_distance_between(const uint8_t *from, const uint8_t *to, vol_shape s, const double spacing[3], int threads,
                            void *scratch, double *out);

/* ---- components.c -------------------------------------------------------------------------------------------- */

/* A run of a row: voxels begin ≤ x < end of one component, numbered from 0. */
typedef struct vol_run {
    int32_t begin, end;
    uint32_t component;
} vol_run;

/* The 26-connected components of a mask, in raster order of their first voxels, as scipy.ndimage.label counts them (its
   label minus 1). The pointers lie in the memory given to vol_components_find. */
typedef struct vol_components {
    vol_shape shape;
    size_t runs, count; /* of components */
    vol_run *run;       /* (runs), in raster order */
    size_t *row;        /* (rows + 1): the runs of row z·ny + y are row[…] to row[… + 1] − 1 */
    uint64_t *size;     /* (count): voxels */
} vol_components;

/* Of where exactly one of two masks (s) is inside; b NULL: of a. memory: vol_components_bytes of the same masks,
   NN_ALIGN-aligned (SIZE_MAX: more than there can be, or 2^31 runs). The voxels are read twice, to
   count the runs and to make them; the rest is the work of the runs. */
size_t vol_components_bytes(const uint8_t *a, const uint8_t *b, vol_shape s);
/* The same for any masks of that shape. */
size_t vol_components_bound(vol_shape s);
void vol_components_find(const uint8_t *a, const uint8_t *b, vol_shape s, void *memory, vol_components *out);
/* The component with the most voxels, the first of equals (as numpy.argmax of the sizes); count is not 0. */
size_t vol_components_largest(const vol_components *c);
vol_box vol_components_bounds(const vol_components *c, size_t component);
/* labels (s) = 1 + the voxel's component, 0 outside. */
void vol_components_labels(const vol_components *c, int32_t *labels);

/* ---- random.c ------------------------------------------------------------------------------------------------ */

/* numpy.random.RandomState: MT19937, for replaying draws of official scripts. PyTorch's CPU generator has the same words. */
enum { VOL_MT_WORDS = 624 };
typedef struct vol_mt {
    uint32_t word[VOL_MT_WORDS];
    int used; /* words given out since they were made */
} vol_mt;
/* As RandomState(seed) of a whole number. */
void vol_mt_seed(vol_mt *mt, uint32_t seed);
/* The next 32 bits. */
uint32_t vol_mt_next(vol_mt *mt);
/* As its randint(0, n) and choice(n): in [0, n); n ≥ 1. */
uint64_t vol_mt_below(vol_mt *mt, uint64_t n);

/* ---- surface.c ----------------------------------------------------------------------------------------------- */

/* Why a metric is NAN. */
typedef enum vol_undefined { VOL_DEFINED, VOL_BOTH_EMPTY, VOL_TRUTH_EMPTY, VOL_PREDICTION_EMPTY } vol_undefined;

/* How two masks agree (formulas: DeepMind's surface-distance, which the challenge uses; distances in units of spacing).
   What lies outside the volume is not inside the masks, so that an object that touches the border has a surface there.
   One voxel is a surface like any other. Undefined, NAN: everything but the counts when both masks are empty; distances,
   and the overlap of the surface that is not there, when one is (dice and nsd are 0 then). Leave it out of means, and
   count it. */
typedef struct vol_surface {
    vol_undefined undefined;
    uint64_t truth, prediction, both;         /* voxels */
    double dice;                              /* DSC: 2·both / (truth + prediction) */
    double nsd;                               /* share of both surfaces that is at most `tolerance` from the other */
    double overlap_truth, overlap_prediction; /* the same share, of one surface */
    double hd95, hd;                  /* the larger of both ways: of the 95th percentile by area; of the maximum */
    double asd_truth, asd_prediction; /* mean distance by area, from the truth's surface and from the prediction's */
} vol_surface;

typedef struct vol_surface_request {
    vol_shape shape;
    double spacing[3]; /* z,y,x; each > 0 */
    double tolerance;  /* of nsd and the overlaps */
    bool flat;         /* contours of a slice (shape.n[0] = 1, spacing[0] unused) instead of surfaces of a volume */
    int threads;
} vol_surface_request;

/* Box of both masks (s): all that is looked at. */
vol_box vol_surface_box(const uint8_t *truth, const uint8_t *prediction, vol_shape s);
/* Bytes for masks whose box has at most the shape s, so for a volume of that shape too; SIZE_MAX: more than can be. */
size_t vol_surface_bytes(vol_shape s, bool flat, int threads);
/* memory: that many bytes, NN_ALIGN-aligned. Some 17 bytes per voxel of the box, of which a surface uses a part. */
void vol_surface_measure(const uint8_t *truth, const uint8_t *prediction, const vol_surface_request *q, void *memory,
                         vol_surface *out);
/* The table behind it, derived from marching cubes: area of the surface in a cell between eight voxels, by neighbour code
   (bit 7 the voxel (0,0,0), 6 (0,0,1), …, 0 (1,1,1)); and of a contour between four pixels (bit 3 (0,0), …, 0 (1,1);
   spacing y,x). */
void vol_surface_areas(const double spacing[3], double area[256]);
void vol_contour_lengths(const double spacing[2], double length[16]);

/* ---- click.c ------------------------------------------------------------------------------------------------- */

/* Of voxels that are equally far from the border: the first in raster order, or the one that the official script draws
   (RandomState(42).choice over all of them in raster order; the same draw for every click). */
typedef enum vol_click_rule { VOL_CLICK_FIRST, VOL_CLICK_OFFICIAL } vol_click_rule;

enum { VOL_CLICK_LARGE = 60000000 }; /* the official script's */

typedef struct vol_click_request {
    vol_shape shape;
    vol_click_rule rule;
    int64_t large; /* voxels of the padded box above which distances are those of 2×2×2 blocks: VOL_CLICK_LARGE */
    int threads;
} vol_click_request;

typedef struct vol_click {
    int64_t at[3]; /* z,y,x; −1 when there is none */
    int label;     /* 1: belongs to the object, 0: does not; −1 when there is none */
} vol_click;

/* SPEC 7: of the voxels where prediction and truth (masks) differ, the largest 26-connected component; of it, a voxel whose
   distance to what is not the component, in voxels, is the largest (the volume's border counts as outside). label is
   the truth there. False and −1 when the masks agree. memory: vol_click_bytes of the same masks, NN_ALIGN-aligned (0:
   they agree, and none is needed; SIZE_MAX: more than there can be). */
size_t vol_click_bytes(const uint8_t *prediction, const uint8_t *truth, const vol_click_request *q);
/* Bytes enough for any masks of q's shape. */
size_t vol_click_bound(const vol_click_request *q);
bool vol_simulate_click(const uint8_t *prediction, const uint8_t *truth, const vol_click_request *q, void *memory,
                        vol_click *out);

/* ---- sampling.c ---------------------------------------------------------------------------------------------- */

/* What of the correction is computed how: as the system's description has it, or as the published code does (SPEC 5, 6,
   11; kept for comparison with it). */
typedef enum vol_variant { VOL_SEED, VOL_UPSTREAM } vol_variant;

/* A click in the coordinates of a frame; label 1 or 0. */
typedef vol_click vol_point_click;

/* The part `frame` of a volume of logits (shape), inside it and not empty. The coordinates below are relative to
   frame.lo; D, H, W are the frame's extents. */
typedef struct vol_view {
    const real *logits;
    vol_shape shape;
    vol_box frame;
} vol_view;

/* A voxel of the frame (raster index) and what it is ranked by: (score, index) is a total order. */
typedef struct vol_candidate {
    real score;
    size_t index;
} vol_candidate;

/* Numbers of candidates: which one goes into which of the K places. */
typedef struct vol_pick {
    size_t number, place;
} vol_pick;

/* 2K points: K uncertain voxels, then K likely errors. Where there are fewer, at = −1 and valid = 0.
     value, uncertain: seed p = sigmoid(logit), upstream |p − ½|; −1 where not valid
     value, error:     the label of the step's first click, valid or not */
typedef struct vol_samples {
    size_t k;
    int32_t (*at)[3]; /* (2K) */
    real *value;      /* (2K) */
    uint8_t *valid;   /* (2K) */
    /* scratch */
    size_t room; /* candidates of a part of the frame */
    vol_candidate *candidates;
    int32_t *row; /* (W) */
    vol_pick *picks;
    size_t table_size;
    vol_pick *table;
} vol_samples;

/* Lays samples for frames of at most this many voxels along each axis out in the arena. k ≥ 1. */
void vol_samples_plan(vol_samples *s, size_t k, vol_shape largest_frame, nn_arena *arena);
/* SPEC 5. Uncertain: 0.1 < p < 0.9, p = sigmoid(logit): the K of the smallest (|p − ½|, raster index), in that order
   (upstream: in raster order when there are at most K).
   Likely errors, seed: voxels within 20 (Euclidean) of a click whose predicted label (nn_sigmoid_above_half) is not the
   click's; the K of the smallest (distance to the nearest such click, raster index), each voxel once.
   Upstream: voxels predicted to be inside in the cubes of half-width 20 around the clicks, each once, in raster order; of
   more than K the first K of torch.randperm, or with random NULL of the raster order. With truth (the frame's shape,
   contiguous; not 0 = inside), upstream's rule for training: the first K voxels predicted otherwise.
   clicks: those of this step, at least one; they may lie outside of the frame. */
void vol_sample(const vol_view *v, vol_variant variant, const vol_point_click *clicks, size_t count,
                const uint8_t *truth, vol_mt *random, int threads, vol_samples *s);
/* The corrector's input: rows (2, 8K), one for the uncertain points, one for the errors, 8 features of a point:
   (z,y,x, value, valid, z,y,x of the first click); coordinates (2K, 3), the points' z,y,x once more. Seed: all
   coordinates divided by (D−1, H−1, W−1) (0 where the extent is 1), those of points that are not valid −1. Upstream:
   voxels. */
void vol_sample_state(const vol_view *v, vol_variant variant, const vol_point_click *clicks, const vol_samples *s,
                      real *rows, real *coordinates);
/* What the corrector's outputs delta (2K) and offset (2K, 3) write: voxel[i] (index in the volume) becomes value[i]
   (logit), in this order: of several for one voxel the last holds. Returns how many (≤ 2K).
   Seed: valid points only; C = clamp(round(at + offset)), round as torch.round: half to even; value = delta.
   Upstream: every point; C = clamp(trunc((at + offset) · (D−1, H−1, W−1))), which for voxels ends on the first or the last
   index of each axis; value = sigmoid(delta), a probability in the place of a logit. (Its weights know no offsets: zero.) */
size_t vol_correction_writes(const vol_view *v, vol_variant variant, const vol_samples *s, const real *delta,
                             const real *offset, int64_t *voxel, real *value);

/* ---- spread.c ------------------------------------------------------------------------------------------------ */

/* What a click says of the voxels around it (ours; SPEC has no such step). The click lies deep in an error, so where its border
   with what is labelled right begins, and what is as bright as the clicked voxel, is likely to be wrong too. With distances in
   voxels, d to the click, e to the nearest voxel that is labelled as the click is (r: the click's own e; 20 where there is none),
   and w the mean of the image over a voxel and its neighbours, the log odds that a voxel with the other label is wrong are taken as
       3.2 + 0.3·r − d·(0.6/r + 0.15) − e·(0.45/r + 0.3) − 1.2·|w − w(click)|        for d ≤ 3.5·r + 3
   (a logistic regression on simulated clicks, rounded; docs/training.md). Those for whom they are positive: voxel (raster index, ascending)
   and value, the new logit: the odds, at most 8, at least 4 for the click's own voxel, negative for label 0. Returns how many, at most all.
   image: of vol_contrast. click: in s. scratch: vol_spread_scratch bytes, NN_ALIGN-aligned. */
size_t vol_spread_scratch(vol_shape s, int threads);
size_t vol_spread(const real *image, const real *logits, vol_shape s, const vol_point_click *click, int threads,
                  void *scratch, int64_t *voxel, real *value);

/* ---- overlap.c ----------------------------------------------------------------------------------------------- */

/* Dice of label `label` in two label maps: 2·|A∩B|/(|A|+|B|); NAN when both are empty (undefined, to be counted). */
double vol_dice(const uint16_t *truth, const uint16_t *predicted, size_t n, uint16_t label);
/* The DSC that a model's logits let expect of the best mask they give: of the voxels above *level. With p = σ(0.6 · logit), as what has
   learned with a Dice loss is surer than it is right, the expected DSC of a mask is taken as 2·Σp(mask) / (voxels(mask) + Σp(all)); *level
   is the largest of 0, −1/16, … −4 at which that is largest, 0 where nothing is above −4 (then the result is 0). The best level is never above
   0: where DSC counts, voxels of half of the DSC's probability are worth taking (Lipton et al., Optimal thresholding of classifiers to
   maximize F1 measure, 2014). */
double vol_expected_dice(const real *logits, size_t n, real *level);

#endif
