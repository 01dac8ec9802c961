/* phantom: a canvas of random anatomy, and the tools to paint on it. Lengths are millimetres, positions (z,y,x) from the
   canvas's corner. Everything here is computed in float or double in every build; the float builds agree to the bit.
   (The double build takes libm's exp and log, so its phantoms are others by roundings.) */
#ifndef SEGFM_TRAIN_PHANTOM_H
#define SEGFM_TRAIN_PHANTOM_H

#include "train.h"

enum { PHANTOM_LONGEST = TRAIN_PHANTOM_LARGEST, PHANTOM_CLASSES = 8, PHANTOM_MIN_VOXELS = 100 };

/* What kind of scanner. The units of values: CT Hounsfield, PET uptake, others 0 (black) to about 1. */
typedef enum phantom_look { LOOK_CT, LOOK_MR, LOOK_PET, LOOK_ULTRASOUND, LOOK_MICROSCOPY, LOOKS } phantom_look;

typedef struct phantom {
    vol_shape shape;
    size_t count;
    double mm[3], size[3]; /* spacing, extents */
    double voxel;          /* smallest spacing */
    int threads;
    train_random random;
    phantom_look look;
    float *warp[3];      /* how far space is displaced, mm */
    double reach[3];     /* the largest displacements */
    float *rough, *fine; /* noise of two scales, deviation 1: on shapes and as texture */
    float *body;         /* distance to the body's inside, negative in it; used when has_body */
    bool has_body;
    float *value, *distance, *work; /* the picture; two scratch volumes */
    uint16_t *label;
    unsigned classes; /* labels given so far */
} phantom;

/* ---- draws (field.c) ----------------------------------------------------------------------------------------- */

double train_between(phantom *p, double low, double high);
double train_between_log(phantom *p, double low, double high); /* the logarithm is uniform; low > 0 */
bool train_chance(phantom *p, double probability);
int64_t train_whole(phantom *p, int64_t low, int64_t high); /* bounds inclusive */

/* ---- fields (field.c) ---------------------------------------------------------------------------------------- */

/* out (shape): smooth noise, mean 0, deviation about 1, from a lattice of so many cells along each axis (at most the
   voxels), periodic. Uses both scratch volumes; out may be neither. */
void train_field(phantom *p, const int64_t cells[3], float *out);
/* out (shape) = independent normal numbers. */
void train_noise(phantom *p, float *out);
/* Gaussian of these deviations in voxels along z, y, x, in place; the border's values go on outside. scratch (shape). */
void train_blur(const phantom *p, const double sigma[3], float *volume, float *scratch);
/* Deviation that white noise is left with by train_blur. */
double train_blur_gain(const double sigma[3]);

/* ---- shapes (shape.c) ---------------------------------------------------------------------------------------- */

/* An ellipsoid: turned, bent, more or less of a box, with noise on its surface. */
typedef struct phantom_blob {
    double centre[3], radius[3];
    double turn[3][3];  /* rows: its axes */
    double bend;        /* of the third axis by the second, in radii */
    double square;      /* 0 ellipsoid … 1 rounded box */
    double rough, fine; /* mm of surface noise */
    int64_t shift;      /* which part of the noise: slices and rows it is moved by */
} phantom_blob;
/* Axes turned at random: fully about z, by up to `tilt` turns about the others. */
void train_turn(phantom *p, double tilt, double turn[3][3]);
/* Signed distance, roughly, into p->distance, in the box that is returned (empty: outside of the canvas). */
vol_box train_blob(phantom *p, const phantom_blob *b);

enum { PHANTOM_JOINTS = 40 };
/* A chain of cones, each from a joint to the next. */
typedef struct phantom_tube {
    double joint[PHANTOM_JOINTS][3], radius[PHANTOM_JOINTS];
    int count;
} phantom_tube;
vol_box train_tube(phantom *p, const phantom_tube *t);
/* Leaves one side of a plane through a point, warped as everything; the side the normal points away from. */
void train_cut(phantom *p, vol_box box, const double point[3], const double normal[3], double gap);

enum { PAINT_KEEP = -1 };
/* What is painted where the distance + offset is negative, or with `hollow` where its absolute value is below that. */
typedef struct phantom_paint {
    double value, texture, grain; /* amounts of rough and fine noise in it */
    double edge;                  /* mm over which it fades */
    double offset, hollow;
    int label;     /* PAINT_KEEP: what is beneath stays labelled as it is */
    bool confined; /* to the body */
    int64_t shift;
} phantom_paint;
void train_paint(phantom *p, vol_box box, const phantom_paint *paint);
/* Cells that share walls and fill the canvas. */
enum { PHANTOM_CELLS = 48 };
typedef struct phantom_cells {
    double seed[PHANTOM_CELLS][3];
    double value[PHANTOM_CELLS];
    int label[PHANTOM_CELLS];
    int count;
    double wall, wall_value, texture, edge; /* half a wall's thickness, mm */
} phantom_cells;
void train_cells(phantom *p, const phantom_cells *cells);

/* ---- what is drawn (pick.c) ----------------------------------------------------------------------------------- */

/* Never two draws in one expression, argument list or initialiser: in which order they are made would be the compiler's
   choice. */
double train_side(const phantom *p); /* the shorter of the extents along y and x: lengths are shares of it */
double train_reflect(double value);  /* into 0.02 … 1.1 */
/* The value of something that lies in what has the value `under`: different enough to be seen, by little or by much. */
double train_pick_value(phantom *p, double under);
double train_pick_texture(phantom *p, double value); /* how much something of this value varies within */
/* A new label, or 0: then it is a structure that looks like the others and is not asked for. */
int train_pick_label(phantom *p, double probability);
phantom_paint train_new_paint(phantom *p, double value, int label);
double train_value_at(const phantom *p, const double at[3]);
/* Somewhere inside the body, deep enough for a radius where that can be, rather where nothing is labelled yet. */
void train_pick_place(phantom *p, double radius, double at[3]);
void train_pick_blob(phantom *p, double radius, phantom_blob *b);
void train_fill(phantom *p, double value, double texture);

/* ---- anatomy (body.c, organ.c) --------------------------------------------------------------------------------- */

/* Air and a body of layers, in whose innermost organs are put from then on. */
void train_paint_body(phantom *p, phantom_blob *body);
void train_paint_ribs(phantom *p, const phantom_blob *body);
void train_paint_spine(phantom *p, const phantom_blob *body);
/* largest: radius in shorter sides; labelled: probability. */
void train_paint_organs(phantom *p, int64_t count, double largest, double labelled);
void train_paint_pair(phantom *p, const phantom_blob *body);
void train_paint_clutter(phantom *p, int64_t count); /* never labelled */
void train_paint_vessel(phantom *p);
void train_paint_lesions(phantom *p);

/* ---- scenes and looks (scene.c, look.c) ---------------------------------------------------------------------- */

/* Paints the anatomy. */
void train_scene(phantom *p);
/* What the scanner makes of the picture. */
void train_look(phantom *p);

#endif
