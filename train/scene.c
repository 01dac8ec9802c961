/* Phantoms: the anatomy. A scene is painted from back to front: air, body or open tissue, bones, organs, vessels, lesions;
   what comes later covers what was there, so organs touch, enclose and cut each other. */
#include "phantom.h"

/* Tissue from border to border: a few large regions. */
static void paint_open(phantom *p) {
    double value = p->look == LOOK_CT ? train_between(p, -110, 70) : train_between(p, 0.1, 0.8);
    train_fill(p, value, train_pick_texture(p, value));
    for (int64_t i = train_whole(p, 0, 4); i > 0; i--) {
        phantom_blob b;
        train_pick_blob(p, train_side(p) * train_between(p, 0.3, 0.6), &b);
        phantom_paint paint = train_new_paint(p, train_pick_value(p, train_value_at(p, b.centre)), PAINT_KEEP);
        train_paint(p, train_blob(p, &b), &paint);
    }
}

/* Nuclei, dark around them or between them: each a class, most without. */
static void scene_nuclei(phantom *p) {
    double around = train_between(p, 0.02, 0.25), radius = train_side(p) * train_between(p, 0.06, 0.14);
    double value = train_between(p, 0.3, 1);
    int64_t count = train_whole(p, 12, 60);
    if (train_chance(p, 0.15)) around = value, value = train_between(p, 0.05, 0.3);
    train_fill(p, around, 0.1 * around);
    for (int64_t i = 0; i < count; i++) {
        phantom_blob b;
        train_pick_blob(p, radius * train_between(p, 0.75, 1.2), &b);
        b.radius[1] = b.radius[0] * train_between(p, 0.7, 1), b.radius[2] = b.radius[0] * train_between(p, 0.7, 1);
        b.bend = 0, b.rough *= 0.4;
        int label = train_pick_label(p, 0.3);
        phantom_paint paint = train_new_paint(p, value * train_between(p, 0.6, 1.2), label);
        train_paint(p, train_blob(p, &b), &paint);
    }
}

static void scene_cells(phantom *p) {
    phantom_cells c = {.count = (int)train_whole(p, 10, PHANTOM_CELLS)};
    double base = train_between(p, 0.02, 0.4), side = train_side(p);
    c.wall = p->voxel * train_between(p, 0.4, 1.6);
    c.edge = p->voxel * train_between(p, 0.8, 2);
    c.wall_value = train_chance(p, 0.8) ? base + train_between(p, 0.3, 0.8) : base * 0.3;
    c.texture = train_between(p, 0, 0.3);
    for (int i = 0; i < c.count; i++) {
        for (int k = 0; k < 3; k++)
            c.seed[i][k] = p->size[k] * 0.5 + train_between(p, -0.5, 0.5) * (p->size[k] + 0.1 * side);
        c.value[i] = base * train_between(p, 0.5, 1.5);
        c.label[i] = train_pick_label(p, 0.3);
    }
    train_cells(p, &c);
    if (train_chance(p, 0.4)) train_paint_lesions(p);
}

static void scene_anatomy(phantom *p, double with_body) {
    phantom_blob body;
    bool bodily = train_chance(p, with_body);
    if (bodily) train_paint_body(p, &body);
    else paint_open(p);
    train_paint_clutter(p, train_whole(p, 4, 40));
    if (bodily && train_chance(p, 0.4)) train_paint_pair(p, &body);
    if (bodily && p->look != LOOK_PET && train_chance(p, 0.35)) train_paint_ribs(p, &body);
    if (bodily && p->look != LOOK_PET && train_chance(p, 0.4)) train_paint_spine(p, &body);
    train_paint_organs(p, train_whole(p, 2, 8), bodily ? 0.3 : 0.42, 0.6);
    for (int64_t i = train_whole(p, 0, 2); i > 0 && p->look != LOOK_PET; i--) train_paint_vessel(p);
    for (int64_t i = train_whole(p, p->look == LOOK_PET, 3); i > 0; i--) train_paint_lesions(p);
}

static void scene_ultrasound(phantom *p) {
    double value = train_between(p, 0.15, 0.5);
    train_fill(p, value, train_between(p, 0, 0.08));
    train_paint_clutter(p, train_whole(p, 2, 12));
    train_paint_organs(p, train_whole(p, 1, 5), 0.42, 0.7);
    if (train_chance(p, 0.4)) train_paint_lesions(p);
    if (train_chance(p, 0.4)) train_paint_vessel(p);
}

void train_scene(phantom *p) {
    if (p->look == LOOK_CT) scene_anatomy(p, 0.75);
    else if (p->look == LOOK_MR) scene_anatomy(p, 0.55);
    else if (p->look == LOOK_PET) scene_anatomy(p, 0.9);
    else if (p->look == LOOK_ULTRASOUND) scene_ultrasound(p);
    else if (train_chance(p, 0.6)) scene_nuclei(p);
    else scene_cells(p);
}
