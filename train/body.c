/* Phantoms: the body and its bones. */
#include "phantom.h"

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
        v[1] = train_reflect(v[0] + train_between(p, -0.6, 0.6));
        v[2] = train_reflect(v[1] + train_between(p, -0.5, 0.5));
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
    phantom_paint paint = train_new_paint(p, value, PAINT_KEEP);
    paint.offset = offset, paint.hollow = hollow;
    paint.edge = p->voxel * train_between(p, 0.8, 1.6);
    train_paint(p, b, &paint);
}

void train_paint_body(phantom *p, phantom_blob *body) {
    double v[3], side = train_side(p), fat = side * train_between(p, 0.01, 0.07), muscle = fat;
    train_fill(p, air_value(p), 0);
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
    if (train_chance(p, 0.25)) { /* a skull, or the wall of a chest */
        double bone = side * train_between(p, 0.006, 0.018);
        paint_layer(p, b, p->look == LOOK_CT ? train_between(p, 300, 1200) : v[1] * 0.3, muscle + bone, bone);
        muscle += 2 * bone;
    }
    paint_layer(p, b, v[2], muscle, 0);
    keep_body(p, b, muscle);
}

/* Bones around the body's inside: bright, seldom asked for. */
void train_paint_ribs(phantom *p, const phantom_blob *body) {
    int label = train_pick_label(p, 0.25);
    int64_t count = train_whole(p, 5, 14);
    double bone = p->look == LOOK_CT ? train_between(p, 250, 900) : train_between(p, 0.02, 0.3);
    double radius = train_side(p) * train_between(p, 0.015, 0.035);
    for (int64_t i = 0; i < count; i++) {
        phantom_blob b;
        double sine, cosine;
        train_pick_blob(p, radius, &b);
        nn_sin_cos_turns(((double)i + train_between(p, 0, 0.4)) / (double)count, &sine, &cosine);
        double along[2] = {0.86 * body->radius[1] * sine, 0.86 * body->radius[2] * cosine};
        for (int k = 1; k < 3; k++)
            b.centre[k] = body->centre[k] + along[0] * body->turn[1][k] + along[1] * body->turn[2][k];
        b.radius[0] *= train_between(p, 1, 4);
        phantom_paint paint = train_new_paint(p, bone, label);
        paint.confined = false;
        train_paint(p, train_blob(p, &b), &paint);
    }
}

/* A vertebra: a body with a rim of bone, and an arch behind it around a canal. */
static void paint_vertebra(phantom *p, const double at[3], double radius, double thick, const double value[3],
                           int label) {
    phantom_blob b = {.square = 0.7, .radius = {thick, 0.75 * radius, radius}, .rough = 0.05 * radius};
    for (int k = 0; k < 3; k++) b.centre[k] = at[k], b.turn[k][k] = 1;
    b.shift = train_whole(p, 0, 255);
    vol_box box = train_blob(p, &b);
    phantom_paint paint = train_new_paint(p, value[0], label);
    paint.confined = false;
    train_paint(p, box, &paint);
    paint = train_new_paint(p, value[1], PAINT_KEEP);
    paint.confined = false, paint.offset = 0.22 * radius;
    train_paint(p, box, &paint);
    b.centre[1] += 1.25 * radius; /* the arch: a ring that is cut by the canal */
    b.radius[0] = 0.6 * thick, b.radius[1] = 0.6 * radius, b.radius[2] = 0.75 * radius;
    paint = train_new_paint(p, value[0], label);
    paint.confined = false, paint.hollow = 0.16 * radius;
    train_paint(p, train_blob(p, &b), &paint);
}

/* Vertebrae along z with discs between them, and what runs through their canal. */
void train_paint_spine(phantom *p, const phantom_blob *body) {
    double radius = train_side(p) * train_between(p, 0.05, 0.1), period = radius * train_between(p, 1.1, 1.8);
    double value[3] = {0.1, 0.5, 0.4}, at[3] = {train_between(p, -0.5, 0.5) * period},
           lean = train_between(p, -0.15, 0.15);
    int bone = train_pick_label(p, 0.35), canal = train_pick_label(p, 0.35);
    phantom_tube cord = {.count = 2};
    if (p->look == LOOK_CT) {
        value[0] = train_between(p, 250, 900), value[1] = train_between(p, 100, 250),
        value[2] = train_between(p, 0, 60);
    } else {
        for (int k = 0; k < 3; k++) value[k] = train_between(p, 0.05, 0.9);
    }
    at[1] = body->centre[1] + train_between(p, 0.35, 0.6) * body->radius[1];
    at[2] = body->centre[2] + train_between(p, -0.05, 0.05) * body->radius[2];
    for (int k = 0; k < 2; k++) {
        cord.radius[k] = 0.4 * radius;
        cord.joint[k][0] = k == 0 ? -radius : p->size[0] + radius;
        cord.joint[k][1] = at[1] + 1.25 * radius + lean * (cord.joint[k][0] - at[0]);
        cord.joint[k][2] = at[2];
    }
    for (; at[0] < p->size[0] + period; at[0] += period, at[1] += lean * period)
        paint_vertebra(p, at, radius, 0.42 * period, value, bone);
    phantom_paint paint = train_new_paint(p, value[2], canal);
    paint.confined = false;
    train_paint(p, train_tube(p, &cord), &paint);
}
