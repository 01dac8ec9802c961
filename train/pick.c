/* Phantoms: values, labels, shapes and places that are drawn. */
#include <math.h>

#include "phantom.h"

/* ---- values and labels ---------------------------------------------------------------------------------------- */

/* Into [0.02, 1.1], by reflection: a contrast that does not fit one way goes the other. */
double train_reflect(double v) {
    if (v < 0.02) v = 0.04 - v;
    return v > 1.1 ? 2.2 - v : v;
}

static double pick_hounsfield(phantom *p, double under) {
    static const double kinds[] = {6, 1, 0.7, 2}; /* soft tissue, fat, gas, bone or contrast agent */
    double soft, sign = train_chance(p, 0.5) ? 1 : -1;
    switch (train_random_choice(&p->random, kinds, 4)) {
    case 0:
        if (under < -300 || under > 200) return train_between(p, -40, 140);
        soft = under + sign * train_between_log(p, 13, 110);
        return soft < -150 ? under + 40 : soft;
    case 1: return under < -40 ? train_between(p, 0, 90) : train_between(p, -120, -60);
    case 2: return under < -500 ? train_between(p, 0, 90) : train_between(p, -1000, -500);
    default: return train_between_log(p, 130, 1000);
    }
}

/* The value of something that lies in what has the value `under`: different enough to be seen, by little or by much. */
double train_pick_value(phantom *p, double under) {
    if (p->look == LOOK_CT) return pick_hounsfield(p, under);
    if (p->look == LOOK_PET) {
        if (train_chance(p, 0.06)) return under * train_between(p, 0.1, 0.4);
        return (under + 0.2) * train_between_log(p, 1.6, 12);
    }
    double sign = train_chance(p, 0.5) ? 1 : -1;
    return train_reflect(under + sign * train_between_log(p, 0.07, 0.5));
}

/* How much a structure of this value varies within. */
double train_pick_texture(phantom *p, double value) {
    if (p->look == LOOK_PET) return value * train_between(p, 0, 0.25);
    if (p->look != LOOK_CT) return (0.1 + value) * train_between_log(p, 0.004, 0.16);
    if (value < -500) return train_between(p, 0, 40);
    return value > 200 ? train_between(p, 10, 120) : train_between(p, 0, 14);
}

/* A new label, or 0: then it is a structure that looks like the others and is not asked for. */
int train_pick_label(phantom *p, double probability) {
    bool labelled = train_chance(p, probability);
    return labelled && p->classes < PHANTOM_CLASSES ? (int)++p->classes : 0;
}

phantom_paint train_new_paint(phantom *p, double value, int label) {
    phantom_paint paint = {.value = value, .label = label, .confined = true};
    paint.texture = train_pick_texture(p, value);
    paint.grain = 0.6 * train_pick_texture(p, value);
    paint.edge = p->voxel * (train_chance(p, 0.08) ? train_between(p, 2, 5) : train_between(p, 0.8, 1.6));
    paint.shift = train_whole(p, 0, 255);
    return paint;
}

/* ---- places --------------------------------------------------------------------------------------------------- */

double train_side(const phantom *p) { return p->size[1] < p->size[2] ? p->size[1] : p->size[2]; }

static size_t voxel_at(const phantom *p, const double at[3]) {
    size_t index = 0;
    for (int k = 0; k < 3; k++) {
        double i = floor(at[k] / p->mm[k]), last = (double)p->shape.n[k] - 1;
        index = index * (size_t)p->shape.n[k] + (size_t)(i < 0 ? 0 : i > last ? last : i);
    }
    return index;
}

double train_value_at(const phantom *p, const double at[3]) { return (double)p->value[voxel_at(p, at)]; }

/* Somewhere inside the body, deep enough for a radius where that can be, rather where nothing is labelled yet. */
void train_pick_place(phantom *p, double radius, double at[3]) {
    for (int tries = 0; tries < 24; tries++) {
        for (int k = 0; k < 3; k++) at[k] = train_between(p, 0.04, 0.96) * p->size[k];
        size_t voxel = voxel_at(p, at);
        bool deep = !p->has_body || (double)p->body[voxel] < -radius * (tries < 12 ? 0.7 : 0.2);
        if (deep && (p->label[voxel] == 0 || tries >= 12)) return;
    }
}

void train_pick_blob(phantom *p, double radius, phantom_blob *b) {
    *b = (phantom_blob){0};
    for (int k = 0; k < 3; k++) b->radius[k] = radius * (k == 0 ? 1 : train_between(p, 0.45, 1));
    train_turn(p, 0.25, b->turn);
    b->bend = train_chance(p, 0.35) ? train_between(p, -0.7, 0.7) : 0;
    b->square = train_chance(p, 0.4) ? train_between(p, 0, 0.8) : 0;
    b->rough = radius * train_between(p, 0, 0.16);
    b->fine = train_chance(p, 0.4) ? radius * train_between(p, 0, 0.07) : 0;
    b->shift = train_whole(p, 0, 255);
    train_pick_place(p, radius, b->centre);
}

void train_fill(phantom *p, double value, double texture) {
    for (size_t i = 0; i < p->count; i++) p->value[i] = (float)value + (float)texture * p->rough[i];
}
