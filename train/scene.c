/* Phantoms: the anatomy. A scene is painted from back to front: air, body or open tissue, bones, organs, vessels, lesions;
   what comes later covers what was there, so organs touch, enclose and cut each other. */
#include <math.h>
#include <string.h>

#include "phantom.h"

/* ---- values and labels ---------------------------------------------------------------------------------------- */

/* Into [0.02, 1.1], by reflection: a contrast that does not fit one way goes the other. */
static double reflect(double v) {
    if (v < 0.02) v = 0.04 - v;
    return v > 1.1 ? 2.2 - v : v;
}

static double pick_hounsfield(phantom *p, double under) {
    static const double kinds[] = {6, 1, 0.7, 2}; /* soft tissue, fat, gas, bone or contrast agent */
    double soft, sign = train_chance(p, 0.5) ? 1 : -1;
    switch (train_random_choice(&p->random, kinds, 4)) {
    case 0:
        if (under < -300 || under > 200) return train_between(p, -40, 140);
        soft = under + sign * train_between_log(p, 14, 130);
        return soft < -150 ? under + 40 : soft;
    case 1: return under < -40 ? train_between(p, 0, 90) : train_between(p, -120, -60);
    case 2: return under < -500 ? train_between(p, 0, 90) : train_between(p, -1000, -500);
    default: return train_between_log(p, 130, 1000);
    }
}

/* The value of something that lies in what has the value `under`: different enough to be seen, by little or by much. */
static double pick_value(phantom *p, double under) {
    if (p->look == LOOK_CT) return pick_hounsfield(p, under);
    if (p->look == LOOK_PET) {
        if (train_chance(p, 0.06)) return under * train_between(p, 0.1, 0.4);
        return (under + 0.2) * train_between_log(p, 1.6, 12);
    }
    double sign = train_chance(p, 0.5) ? 1 : -1;
    return reflect(under + sign * train_between_log(p, 0.08, 0.7));
}

/* How much a structure of this value varies within. */
static double pick_texture(phantom *p, double value) {
    if (p->look == LOOK_PET) return value * train_between(p, 0, 0.25);
    if (p->look != LOOK_CT) return (0.1 + value) * train_between_log(p, 0.004, 0.16);
    if (value < -500) return train_between(p, 0, 40);
    return value > 200 ? train_between(p, 10, 120) : train_between(p, 0, 14);
}

/* A new label, or 0: then it is a structure that looks like the others and is not asked for. */
static int pick_label(phantom *p, double probability) {
    bool labelled = train_chance(p, probability);
    return labelled && p->classes < PHANTOM_CLASSES ? (int)++p->classes : 0;
}

/* (No two draws in one expression or list: in which order they are made would be the compiler's choice.) */
static phantom_paint new_paint(phantom *p, double value, int label) {
    phantom_paint paint = {.value = value, .opacity = 1, .label = label, .confined = true};
    paint.texture = pick_texture(p, value);
    paint.grain = 0.6 * pick_texture(p, value);
    paint.edge = p->voxel * (train_chance(p, 0.08) ? train_between(p, 2, 5) : train_between(p, 0.8, 1.6));
    paint.shift = train_whole(p, 0, 255);
    return paint;
}

/* ---- places --------------------------------------------------------------------------------------------------- */

static double shorter_side(const phantom *p) { return p->size[1] < p->size[2] ? p->size[1] : p->size[2]; }

static size_t voxel_at(const phantom *p, const double at[3]) {
    size_t index = 0;
    for (int k = 0; k < 3; k++) {
        double i = floor(at[k] / p->mm[k]), last = (double)p->shape.n[k] - 1;
        index = index * (size_t)p->shape.n[k] + (size_t)(i < 0 ? 0 : i > last ? last : i);
    }
    return index;
}

static double value_at(const phantom *p, const double at[3]) { return (double)p->value[voxel_at(p, at)]; }

/* Somewhere inside the body, deep enough for a radius where that can be, rather where nothing is labelled yet. */
static void pick_place(phantom *p, double radius, double at[3]) {
    for (int tries = 0; tries < 24; tries++) {
        for (int k = 0; k < 3; k++) at[k] = train_between(p, 0.04, 0.96) * p->size[k];
        size_t voxel = voxel_at(p, at);
        bool deep = !p->has_body || (double)p->body[voxel] < -radius * (tries < 12 ? 0.7 : 0.2);
        if (deep && (p->label[voxel] == 0 || tries >= 12)) return;
    }
}

static void pick_blob(phantom *p, double radius, phantom_blob *b) {
    *b = (phantom_blob){0};
    for (int k = 0; k < 3; k++) b->radius[k] = radius * (k == 0 ? 1 : train_between(p, 0.45, 1));
    train_turn(p, 0.25, b->turn);
    b->bend = train_chance(p, 0.35) ? train_between(p, -0.7, 0.7) : 0;
    b->square = train_chance(p, 0.4) ? train_between(p, 0, 0.8) : 0;
    b->rough = radius * train_between(p, 0, 0.16);
    b->fine = train_chance(p, 0.4) ? radius * train_between(p, 0, 0.07) : 0;
    b->shift = train_whole(p, 0, 255);
    pick_place(p, radius, b->centre);
}

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

/* ---- the body ------------------------------------------------------------------------------------------------- */

static void fill(phantom *p, double value, double texture) {
    for (size_t i = 0; i < p->count; i++) p->value[i] = (float)value + (float)texture * p->rough[i];
}

static double air_value(phantom *p) {
    if (p->look == LOOK_CT) return -1000;
    return p->look == LOOK_MR && train_chance(p, 0.5) ? train_between(p, 0, 0.04) : 0;
}

/* Values of the layers from the skin inwards: fat, muscle, what lies between the organs. */
static void layer_values(phantom *p, double v[3]) {
    if (p->look == LOOK_CT) {
        v[0] = train_between(p, -120, -70);
        v[1] = train_between(p, 20, 70);
        v[2] = train_chance(p, 0.5) ? train_between(p, -110, -60) : train_between(p, 10, 60);
    } else if (p->look == LOOK_PET) {
        v[0] = train_between(p, 0.1, 0.4);
        v[1] = train_between(p, 0.4, 0.9);
        v[2] = train_between(p, 0.3, 1.2);
    } else {
        v[0] = train_between(p, 0.1, 1);
        v[1] = reflect(v[0] + train_between(p, -0.6, 0.6));
        v[2] = reflect(v[1] + train_between(p, -0.5, 0.5));
    }
}

/* Keeps the distance to the innermost layer, in which organs are put. */
static void keep_body(phantom *p, vol_box b, double offset) {
    for (size_t i = 0; i < p->count; i++) p->body[i] = 1e6f;
    for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
        for (int64_t y = b.lo[1]; y <= b.hi[1]; y++)
            for (int64_t x = b.lo[2]; x <= b.hi[2]; x++) {
                int64_t i = (z * p->shape.n[1] + y) * p->shape.n[2] + x;
                p->body[i] = p->distance[i] + (float)offset;
            }
    p->has_body = true;
}

static void paint_layer(phantom *p, vol_box b, double value, double offset, double hollow) {
    phantom_paint paint = new_paint(p, value, PAINT_KEEP);
    paint.offset = offset, paint.hollow = hollow;
    paint.edge = p->voxel * train_between(p, 0.8, 1.6);
    train_paint(p, b, &paint);
}

static void paint_body(phantom *p, phantom_blob *body) {
    double v[3], side = shorter_side(p), fat = side * train_between(p, 0.01, 0.07), muscle = fat;
    fill(p, air_value(p), 0);
    layer_values(p, v);
    *body = (phantom_blob){.square = train_between(p, 0, 0.5)};
    body->rough = side * train_between(p, 0, 0.015);
    train_turn(p, 0, body->turn);
    for (int k = 0; k < 3; k++) body->centre[k] = p->size[k] * train_between(p, 0.45, 0.55);
    for (int k = 1; k < 3; k++) body->radius[k] = side * train_between(p, 0.38, 0.54);
    body->radius[0] = train_chance(p, 0.3) ? 0.55 * p->size[0] : p->size[0] * train_between(p, 1, 3);
    vol_box b = train_blob(p, body);
    paint_layer(p, b, v[0], 0, 0);
    paint_layer(p, b, v[1], fat, 0);
    muscle += side * train_between(p, 0.01, 0.05);
    if (train_chance(p, 0.4)) { /* a skull, or the wall of a chest */
        double bone = side * train_between(p, 0.006, 0.018);
        paint_layer(p, b, p->look == LOOK_CT ? train_between(p, 300, 1200) : v[1] * 0.3, muscle + bone, bone);
        muscle += 2 * bone;
    }
    paint_layer(p, b, v[2], muscle, 0);
    keep_body(p, b, muscle);
}

/* Tissue from border to border: a few large regions. */
static void paint_open(phantom *p) {
    double value = p->look == LOOK_CT ? train_between(p, -110, 70) : train_between(p, 0.1, 0.8);
    fill(p, value, pick_texture(p, value));
    for (int64_t i = train_whole(p, 0, 4); i > 0; i--) {
        phantom_blob b;
        pick_blob(p, shorter_side(p) * train_between(p, 0.3, 0.6), &b);
        phantom_paint paint = new_paint(p, pick_value(p, value_at(p, b.centre)), PAINT_KEEP);
        train_paint(p, train_blob(p, &b), &paint);
    }
}

/* Bones around the body's inside: bright, seldom asked for. */
static void paint_ribs(phantom *p, const phantom_blob *body) {
    int label = pick_label(p, 0.25);
    int64_t count = train_whole(p, 5, 14);
    double bone = p->look == LOOK_CT ? train_between(p, 250, 900) : train_between(p, 0.02, 0.3);
    double radius = shorter_side(p) * train_between(p, 0.015, 0.035);
    for (int64_t i = 0; i < count; i++) {
        phantom_blob b;
        double sine, cosine;
        pick_blob(p, radius, &b);
        nn_sin_cos_turns(((double)i + train_between(p, 0, 0.4)) / (double)count, &sine, &cosine);
        double along[2] = {0.86 * body->radius[1] * sine, 0.86 * body->radius[2] * cosine};
        for (int k = 1; k < 3; k++)
            b.centre[k] = body->centre[k] + along[0] * body->turn[1][k] + along[1] * body->turn[2][k];
        b.radius[0] *= train_between(p, 1, 4);
        phantom_paint paint = new_paint(p, bone, label);
        paint.confined = false;
        train_paint(p, train_blob(p, &b), &paint);
    }
}

/* What fills the room between organs: folds of fat, muscles, bowel, small vessels; never asked for. */
static void paint_clutter(phantom *p, int64_t count) {
    double strength = train_between_log(p, 0.2, 1);
    for (int64_t i = 0; i < count; i++) {
        phantom_blob b;
        pick_blob(p, shorter_side(p) * train_between_log(p, 0.02, 0.12), &b);
        double stretched = train_between_log(p, 1, 4);
        b.radius[train_whole(p, 0, 2)] *= stretched;
        double under = value_at(p, b.centre), value = pick_value(p, under);
        if (p->look == LOOK_CT && (value > 250 || value < -200) && train_chance(p, 0.8)) value = under > -30 ? -90 : 50;
        phantom_paint paint = new_paint(p, under + strength * (value - under), PAINT_KEEP);
        train_paint(p, train_blob(p, &b), &paint);
    }
}

/* ---- organs --------------------------------------------------------------------------------------------------- */

static void paint_plain(phantom *p, const phantom_blob *b, double value, double labelled) {
    int label = pick_label(p, labelled);
    phantom_paint paint = new_paint(p, value, label);
    train_paint(p, train_blob(p, b), &paint);
}

/* A rim of another value: a bone's cortex, a capsule, a lesion that takes up contrast agent at its border. One label. */
static void paint_rim(phantom *p, const phantom_blob *b, double value, double labelled) {
    int label = pick_label(p, labelled);
    phantom_paint paint = new_paint(p, pick_value(p, value), label);
    vol_box box = train_blob(p, b);
    train_paint(p, box, &paint);
    paint = new_paint(p, value, PAINT_KEEP);
    double thin = 1.2 * p->voxel, thick = 0.3 * b->radius[0];
    paint.offset = thick > thin ? train_between(p, thin, thick) : thin;
    train_paint(p, box, &paint);
}

/* One in the other, each with its label. */
static void paint_nested(phantom *p, const phantom_blob *b, double value, double labelled) {
    paint_plain(p, b, value, labelled);
    phantom_blob inner = shrink(p, b, train_between(p, 0.35, 0.7));
    double within = pick_value(p, value);
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
        int label = pick_label(p, labelled);
        phantom_paint paint = new_paint(p, value, label);
        train_paint(p, box, &paint);
        if (train_chance(p, 0.6)) value = pick_value(p, value);
    }
}

/* A wall around a lumen: each, one or none with a label. */
static void paint_hollow(phantom *p, const phantom_blob *b, double value, double labelled) {
    double wall = train_between(p, 1.5 * p->voxel, 1.5 * p->voxel + 0.25 * b->radius[0]);
    int label = pick_label(p, labelled);
    phantom_paint paint = new_paint(p, value, label);
    vol_box box = train_blob(p, b);
    train_paint(p, box, &paint);
    label = pick_label(p, labelled);
    paint = new_paint(p, pick_value(p, value), label);
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
    int label = pick_label(p, labelled);
    phantom_paint paint = new_paint(p, value, label);
    vol_box box = train_blob(p, &b);
    paint.offset = -0.5 * thick;
    train_paint(p, box, &paint);
    label = pick_label(p, labelled);
    paint = new_paint(p, pick_value(p, value), label);
    paint.offset = 0.5 * thick;
    train_paint(p, box, &paint);
}

typedef void paint_organ(phantom *p, const phantom_blob *b, double value, double labelled);

/* The largest radius in shorter sides; probability of a label. */
static void paint_organs(phantom *p, int64_t count, double largest, double labelled) {
    static paint_organ *const kinds[] = {paint_plain, paint_rim, paint_nested, paint_split, paint_hollow, paint_folded};
    static const double weights[] = {5, 1.2, 1.5, 1, 0.8, 0.8};
    for (int64_t i = 0; i < count; i++) {
        phantom_blob b;
        size_t kind = train_random_choice(&p->random, weights, 6);
        double smallest = kind == 5 ? 0.18 : 0.05;
        pick_blob(p, shorter_side(p) * train_between_log(p, smallest, largest), &b);
        kinds[kind](p, &b, pick_value(p, value_at(p, b.centre)), labelled);
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

static void paint_vessel(phantom *p) {
    double radius = p->voxel * train_between_log(p, 0.9, 6), from[3], heading[3];
    phantom_tube t;
    pick_place(p, radius, from);
    int label = pick_label(p, radius > 1.5 * p->voxel ? 0.6 : 0.2);
    phantom_paint paint = new_paint(p, pick_value(p, value_at(p, from)), label);
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
static void paint_lesions(phantom *p) {
    int64_t spots = train_chance(p, 0.6) ? 1 : train_whole(p, 2, 7);
    int label = pick_label(p, 0.7);
    double radius = train_between_log(p, 2.6 * p->voxel, 2.6 * p->voxel + 0.1 * shorter_side(p));
    double contrast = 0;
    for (int64_t i = 0; i < spots; i++) {
        phantom_blob b;
        pick_blob(p, radius * train_between(p, 0.6, 1.2), &b);
        if (train_chance(p, 0.5)) pick_place(p, radius, b.centre);
        double under = value_at(p, b.centre);
        if (i == 0) contrast = pick_value(p, under) - under; /* those of a class look alike */
        phantom_paint paint = new_paint(p, under + contrast, label > 0 ? label : PAINT_KEEP);
        train_paint(p, train_blob(p, &b), &paint);
    }
}

/* ---- scenes ---------------------------------------------------------------------------------------------------- */

/* Nuclei, dark around them or between them: each a class, most without. */
static void scene_nuclei(phantom *p) {
    double around = train_between(p, 0.02, 0.25), radius = shorter_side(p) * train_between(p, 0.06, 0.14);
    double value = train_between(p, 0.3, 1);
    int64_t count = train_whole(p, 12, 60);
    if (train_chance(p, 0.15)) around = value, value = train_between(p, 0.05, 0.3);
    fill(p, around, 0.1 * around);
    for (int64_t i = 0; i < count; i++) {
        phantom_blob b;
        pick_blob(p, radius * train_between(p, 0.75, 1.2), &b);
        b.radius[1] = b.radius[0] * train_between(p, 0.7, 1), b.radius[2] = b.radius[0] * train_between(p, 0.7, 1);
        b.bend = 0, b.rough *= 0.4;
        int label = pick_label(p, 0.3);
        phantom_paint paint = new_paint(p, value * train_between(p, 0.6, 1.2), label);
        train_paint(p, train_blob(p, &b), &paint);
    }
}

static void scene_cells(phantom *p) {
    phantom_cells c = {.count = (int)train_whole(p, 10, PHANTOM_CELLS)};
    double base = train_between(p, 0.02, 0.4), side = shorter_side(p);
    c.wall = p->voxel * train_between(p, 0.4, 1.6);
    c.edge = p->voxel * train_between(p, 0.8, 2);
    c.wall_value = train_chance(p, 0.8) ? base + train_between(p, 0.3, 0.8) : base * 0.3;
    c.texture = train_between(p, 0, 0.3);
    for (int i = 0; i < c.count; i++) {
        for (int k = 0; k < 3; k++)
            c.seed[i][k] = p->size[k] * 0.5 + train_between(p, -0.5, 0.5) * (p->size[k] + 0.1 * side);
        c.value[i] = base * train_between(p, 0.5, 1.5);
        c.label[i] = pick_label(p, 0.3);
    }
    train_cells(p, &c);
    if (train_chance(p, 0.4)) paint_lesions(p);
}

static void scene_anatomy(phantom *p, double with_body) {
    phantom_blob body;
    bool bodily = train_chance(p, with_body);
    if (bodily) paint_body(p, &body);
    else paint_open(p);
    if (bodily && p->look != LOOK_PET && train_chance(p, 0.4)) paint_ribs(p, &body);
    paint_clutter(p, train_whole(p, 4, 40));
    paint_organs(p, train_whole(p, 3, 9), bodily ? 0.3 : 0.42, 0.6);
    for (int64_t i = train_whole(p, 0, 2); i > 0 && p->look != LOOK_PET; i--) paint_vessel(p);
    for (int64_t i = train_whole(p, p->look == LOOK_PET, 3); i > 0; i--) paint_lesions(p);
}

static void scene_ultrasound(phantom *p) {
    double value = train_between(p, 0.15, 0.5);
    fill(p, value, train_between(p, 0, 0.08));
    paint_clutter(p, train_whole(p, 2, 12));
    paint_organs(p, train_whole(p, 1, 5), 0.42, 0.7);
    if (train_chance(p, 0.4)) paint_lesions(p);
    if (train_chance(p, 0.4)) paint_vessel(p);
}

void train_scene(phantom *p) {
    if (p->look == LOOK_CT) scene_anatomy(p, 0.75);
    else if (p->look == LOOK_MR) scene_anatomy(p, 0.55);
    else if (p->look == LOOK_PET) scene_anatomy(p, 0.9);
    else if (p->look == LOOK_ULTRASOUND) scene_ultrasound(p);
    else if (train_chance(p, 0.6)) scene_nuclei(p);
    else scene_cells(p);
}
