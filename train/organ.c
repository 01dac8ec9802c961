/* Phantoms: organs, what lies between them, vessels, lesions. */
#include <math.h>

#include "phantom.h"

/* What fills the room between organs: folds of fat, muscles, bowel, small vessels; never asked for. */
void train_paint_clutter(phantom *p, int64_t count) {
    double strength = train_between_log(p, 0.2, 1);
    for (int64_t i = 0; i < count; i++) {
        phantom_blob b;
        train_pick_blob(p, train_side(p) * train_between_log(p, 0.02, 0.12), &b);
        double stretched = train_between_log(p, 1, 4);
        b.radius[train_whole(p, 0, 2)] *= stretched;
        double under = train_value_at(p, b.centre), value = train_pick_value(p, under);
        if (p->look == LOOK_CT && (value > 250 || value < -200) && train_chance(p, 0.8)) value = under > -30 ? -90 : 50;
        phantom_paint paint = train_new_paint(p, under + strength * (value - under), PAINT_KEEP);
        train_paint(p, train_blob(p, &b), &paint);
    }
}

/* ---- organs --------------------------------------------------------------------------------------------------- */

/* The same shape, smaller, somewhere near its middle. */
static phantom_blob shrink(phantom *p, const phantom_blob *b, double factor) {
    phantom_blob inner = *b;
    for (int k = 0; k < 3; k++) {
        inner.radius[k] *= factor;
        inner.centre[k] += train_between(p, -0.2, 0.2) * (1 - factor) * b->radius[2];
    }
    inner.rough *= factor, inner.fine *= factor;
    return inner;
}

static void paint_plain(phantom *p, const phantom_blob *b, double value, double labelled) {
    int label = train_pick_label(p, labelled);
    phantom_paint paint = train_new_paint(p, value, label);
    train_paint(p, train_blob(p, b), &paint);
}

/* A rim of another value: a bone's cortex, a capsule, a lesion that takes up contrast agent at its border. One label. */
static void paint_rim(phantom *p, const phantom_blob *b, double value, double labelled) {
    int label = train_pick_label(p, labelled);
    phantom_paint paint = train_new_paint(p, train_pick_value(p, value), label);
    vol_box box = train_blob(p, b);
    train_paint(p, box, &paint);
    paint = train_new_paint(p, value, PAINT_KEEP);
    double thin = 1.2 * p->voxel, thick = 0.3 * b->radius[0];
    paint.offset = thick > thin ? train_between(p, thin, thick) : thin;
    train_paint(p, box, &paint);
}

/* One in the other, each with its label. */
static void paint_nested(phantom *p, const phantom_blob *b, double value, double labelled) {
    paint_plain(p, b, value, labelled);
    phantom_blob inner = shrink(p, b, train_between(p, 0.35, 0.7));
    double within = train_pick_value(p, value);
    if (train_chance(p, 0.3)) paint_rim(p, &inner, within, labelled);
    else paint_plain(p, &inner, within, labelled);
}

/* Two that touch along a surface, of nearly one value or of two. */
static void paint_split(phantom *p, const phantom_blob *b, double value, double labelled) {
    double normal[3], gap = train_chance(p, 0.4) ? 0.5 * p->voxel : 0;
    const double *axis = b->turn[train_whole(p, 0, 2)];
    for (int side = 0; side < 2; side++) {
        for (int k = 0; k < 3; k++) normal[k] = side == 0 ? axis[k] : -axis[k];
        vol_box box = train_blob(p, b);
        train_cut(p, box, b->centre, normal, gap);
        int label = train_pick_label(p, labelled);
        phantom_paint paint = train_new_paint(p, value, label);
        train_paint(p, box, &paint);
        if (train_chance(p, 0.6)) value = train_pick_value(p, value);
    }
}

/* A wall around a lumen: each, one or none with a label. */
static void paint_hollow(phantom *p, const phantom_blob *b, double value, double labelled) {
    double wall = train_between(p, 1.5 * p->voxel, 1.5 * p->voxel + 0.25 * b->radius[0]);
    int label = train_pick_label(p, labelled);
    phantom_paint paint = train_new_paint(p, value, label);
    vol_box box = train_blob(p, b);
    train_paint(p, box, &paint);
    label = train_pick_label(p, labelled);
    paint = train_new_paint(p, train_pick_value(p, value), label);
    paint.offset = wall;
    train_paint(p, box, &paint);
}

/* Layers with deep folds, as of a brain. */
static void paint_folded(phantom *p, const phantom_blob *shape, double value, double labelled) {
    phantom_blob b = *shape;
    double thick = train_between(p, 1.5 * p->voxel, 1.5 * p->voxel + 0.2 * b.radius[0]);
    b.fine = b.radius[0] * train_between(p, 0.06, 0.2);
    b.rough = b.radius[0] * train_between(p, 0.05, 0.2);
    b.bend = 0;
    int label = train_pick_label(p, labelled);
    phantom_paint paint = train_new_paint(p, value, label);
    vol_box box = train_blob(p, &b);
    paint.offset = -0.5 * thick;
    train_paint(p, box, &paint);
    label = train_pick_label(p, labelled);
    paint = train_new_paint(p, train_pick_value(p, value), label);
    paint.offset = 0.5 * thick;
    train_paint(p, box, &paint);
}

typedef void paint_organ(phantom *p, const phantom_blob *b, double value, double labelled);

/* The largest radius in shorter sides; probability of a label. */
void train_paint_organs(phantom *p, int64_t count, double largest, double labelled) {
    static paint_organ *const kinds[] = {paint_plain, paint_rim, paint_nested, paint_split, paint_hollow, paint_folded};
    static const double weights[] = {5, 1.2, 1.5, 1, 0.8, 0.8};
    for (int64_t i = 0; i < count; i++) {
        phantom_blob b;
        size_t kind = train_random_choice(&p->random, weights, 6);
        double smallest = kind == 5 ? 0.18 : 0.05;
        train_pick_blob(p, train_side(p) * train_between_log(p, smallest, largest), &b);
        kinds[kind](p, &b, train_pick_value(p, train_value_at(p, b.centre)), labelled);
    }
}

/* A left and a right one, alike but not the same: lungs, kidneys, glands. Of two classes, of one, or of none. */
void train_paint_pair(phantom *p, const phantom_blob *body) {
    phantom_blob b;
    bool lungs = p->look == LOOK_CT && train_chance(p, 0.5);
    train_pick_blob(p, train_side(p) * (lungs ? train_between(p, 0.16, 0.26) : train_between_log(p, 0.05, 0.18)), &b);
    double aside = train_between(p, 0.9, 1.5) * b.radius[0],
           value = lungs ? -850 : train_pick_value(p, train_value_at(p, b.centre));
    int label = train_pick_label(p, 0.7);
    if (lungs) b.radius[0] *= 1.6;
    b.centre[1] = body->centre[1] + train_between(p, -0.3, 0.3) * body->radius[1];
    b.centre[2] = body->centre[2] - aside;
    for (int side = 0; side < 2; side++) {
        phantom_paint paint = train_new_paint(p, value, label);
        train_paint(p, train_blob(p, &b), &paint);
        if (side == 0 && label > 0 && train_chance(p, 0.7)) label = train_pick_label(p, 1);
        b.centre[2] = body->centre[2] + aside;
        for (int k = 0; k < 3; k++) b.turn[k][2] = -b.turn[k][2], b.radius[k] *= train_between(p, 0.9, 1.1);
    }
}

/* ---- vessels and lesions --------------------------------------------------------------------------------------- */

/* A walk whose direction changes little by little, thinner and thinner. */
static void grow_tube(phantom *p, const double from[3], double radius, int joints, double heading[3], phantom_tube *t) {
    double step = (radius > p->voxel ? radius : p->voxel) * train_between(p, 1.2, 2.5);
    double taper = train_between(p, 0.94, 1), drift[3], wander = train_between(p, 0.1, 0.5);
    t->count = joints;
    for (int k = 0; k < 3; k++) drift[k] = train_between(p, -0.15, 0.15), t->joint[0][k] = from[k];
    t->radius[0] = radius;
    for (int i = 1; i < joints; i++) {
        double length = 0;
        for (int k = 0; k < 3; k++) {
            heading[k] += drift[k] + wander * train_between(p, -1, 1);
            length += heading[k] * heading[k];
        }
        length = sqrt(length) + 1e-9;
        for (int k = 0; k < 3; k++) {
            heading[k] /= length;
            t->joint[i][k] = t->joint[i - 1][k] + step * heading[k];
        }
        t->radius[i] = t->radius[i - 1] * taper;
    }
}

void train_paint_vessel(phantom *p) {
    double radius = p->voxel * train_between_log(p, 0.9, 6), from[3], heading[3];
    phantom_tube t;
    train_pick_place(p, radius, from);
    int label = train_pick_label(p, radius > 1.5 * p->voxel ? 0.6 : 0.2);
    phantom_paint paint = train_new_paint(p, train_pick_value(p, train_value_at(p, from)), label);
    int64_t branches = train_whole(p, 0, 4);
    for (int k = 0; k < 3; k++) heading[k] = train_between(p, -1, 1);
    grow_tube(p, from, radius, (int)train_whole(p, 10, PHANTOM_JOINTS), heading, &t);
    train_paint(p, train_tube(p, &t), &paint);
    for (; branches > 0; branches--) {
        phantom_tube branch;
        int64_t at = train_whole(p, 1, t.count - 1);
        for (int k = 0; k < 3; k++) heading[k] = train_between(p, -1, 1);
        double thin = t.radius[at] * train_between(p, 0.5, 0.9);
        grow_tube(p, t.joint[at], thin, (int)train_whole(p, 5, 20), heading, &branch);
        train_paint(p, train_tube(p, &branch), &paint);
    }
}

/* One or several spots, of one class or of none. They lie in an organ without being cut out of its label when they are not
   asked for. */
void train_paint_lesions(phantom *p) {
    int64_t spots = train_chance(p, 0.6) ? 1 : train_whole(p, 2, 7);
    int label = train_pick_label(p, 0.7);
    double radius = train_between_log(p, 2.6 * p->voxel, 2.6 * p->voxel + 0.1 * train_side(p));
    double contrast = 0;
    for (int64_t i = 0; i < spots; i++) {
        phantom_blob b;
        train_pick_blob(p, radius * train_between(p, 0.6, 1.2), &b);
        if (train_chance(p, 0.5)) train_pick_place(p, radius, b.centre);
        double under = train_value_at(p, b.centre);
        if (i == 0) contrast = train_pick_value(p, under) - under; /* those of a class look alike */
        phantom_paint paint = train_new_paint(p, under + contrast, label > 0 ? label : PAINT_KEEP);
        train_paint(p, train_blob(p, &b), &paint);
    }
}
