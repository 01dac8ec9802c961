/* Phantoms: what a scanner makes of the anatomy: bias, blur, noise, range. */
#include <math.h>
#include <string.h>

#include "phantom.h"

/* A blur of the scanner's, in voxels: along z it is that of the slices. */
static void blur(phantom *p, double low, double high) {
    double sigma = train_between(p, low, high), thick = train_between(p, 0.7, 1.1);
    train_blur(p, (double[]){sigma * thick, sigma, sigma}, p->value, p->work);
}

/* Noise of deviation 1 that is the same over some voxels, into p->distance. */
static void correlated_noise(phantom *p, double low, double high, double slices, float *out) {
    double sigma = train_between(p, low, high);
    double along[3] = {slices * sigma, sigma, sigma};
    float gain = (float)(1 / train_blur_gain(along));
    train_noise(p, out);
    train_blur(p, along, out, p->work);
    for (size_t i = 0; i < p->count; i++) out[i] *= gain;
}

static void round_all(phantom *p, double factor, double lowest, double highest) {
    for (size_t i = 0; i < p->count; i++) {
        float v = floorf(p->value[i] * (float)factor + 0.5f);
        p->value[i] = v < (float)lowest ? (float)lowest : v > (float)highest ? (float)highest : v;
    }
}

/* ---- CT -------------------------------------------------------------------------------------------------------- */

/* Windowed: bounds become 0 and 255, as in pictures and in the challenge's files. */
static void window(phantom *p) {
    static const double bounds[][2] = {{-160, 240}, {-1000, 1000}, {-300, 600}, {0, 80}, {-500, 1000}};
    const double *b = bounds[train_whole(p, 0, 4)];
    for (size_t i = 0; i < p->count; i++) p->value[i] = (p->value[i] - (float)b[0]) * (float)(255 / (b[1] - b[0]));
    round_all(p, 1, 0, 255);
}

static void look_ct(phantom *p) {
    float deviation = (float)train_between_log(p, 4, 45);
    blur(p, 0.35, 0.9);
    correlated_noise(p, 0.35, 0.8, 0.3, p->distance);
    for (size_t i = 0; i < p->count; i++) p->value[i] += deviation * p->distance[i];
    if (train_chance(p, 0.3)) window(p);
    else round_all(p, 1, -1024, 3071);
}

/* ---- MR -------------------------------------------------------------------------------------------------------- */

/* Coils: brighter here than there. The exponential of a field of one or two waves. */
static void bias(phantom *p, double strength) {
    int64_t cells[3];
    for (int k = 0; k < 3; k++) cells[k] = train_whole(p, k > 0 ? 2 : 1, k > 0 ? 3 : 2);
    train_field(p, cells, p->body);
    for (size_t i = 0; i < p->count; i++) p->value[i] *= (float)nn_exp((real)((float)strength * p->body[i]));
}

/* The length of a complex number whose parts carry the noise (Rician). */
static void look_mr(phantom *p) {
    float deviation = (float)train_between_log(p, 0.004, 0.09);
    if (train_chance(p, 0.75)) bias(p, train_between(p, 0.02, 0.35));
    blur(p, 0.3, 0.95);
    train_noise(p, p->distance);
    train_noise(p, p->body);
    for (size_t i = 0; i < p->count; i++) {
        float a = p->value[i] + deviation * p->distance[i], b = deviation * p->body[i];
        p->value[i] = sqrtf(a * a + b * b);
    }
    if (train_chance(p, 0.3)) { /* interpolated afterwards: the noise is smooth too */
        train_blur(p, (double[]){0.4, 0.6, 0.6}, p->value, p->work);
    }
    round_all(p, train_between_log(p, 120, 3000), 0, 32767);
}

/* ---- PET ------------------------------------------------------------------------------------------------------- */

/* Counts: the deviation grows with the root of the value. Values keep their fractions. */
static void look_pet(phantom *p) {
    float deviation = (float)train_between_log(p, 0.04, 0.35);
    blur(p, 0.9, 1.8);
    correlated_noise(p, 0.6, 1.1, 1, p->distance);
    for (size_t i = 0; i < p->count; i++) {
        float v = p->value[i] < 0 ? 0 : p->value[i];
        v += deviation * sqrtf(v + 0.02f) * p->distance[i];
        p->value[i] = v < 0 ? 0 : v;
    }
}

/* ---- ultrasound ------------------------------------------------------------------------------------------------ */

/* Outside of a fan whose tip lies above the picture nothing is seen, and nothing is labelled. */
static void fan(phantom *p) {
    double tip = -train_between(p, 0.05, 0.5) * p->size[1], slope = train_between(p, 0.45, 0.9);
    double deepest = p->size[1] * train_between(p, 0.95, 1.15) - tip;
    for (int64_t z = 0; z < p->shape.n[0]; z++)
        for (int64_t y = 0; y < p->shape.n[1]; y++)
            for (int64_t x = 0; x < p->shape.n[2]; x++) {
                double v = ((double)y + 0.5) * p->mm[1] - tip, u = ((double)x + 0.5) * p->mm[2] - 0.5 * p->size[2];
                size_t i = (size_t)((z * p->shape.n[1] + y) * p->shape.n[2] + x);
                if (fabs(u) <= slope * v && u * u + v * v <= deepest * deepest) continue;
                p->value[i] = 0;
                p->label[i] = 0;
            }
}

/* Speckle: the length of a random complex number, whose parts are smooth along the beam's width; then the logarithm. */
static void look_ultrasound(phantom *p) {
    double width = train_between(p, 0.7, 2.2), depth = width * train_between(p, 0.4, 0.8),
           along[3] = {width, depth, width};
    float gain = (float)(0.7071 / train_blur_gain(along)), compression = (float)train_between_log(p, 3, 60);
    float fade = (float)(train_between(p, 0, 0.8) / (double)p->shape.n[1]),
          speckle = (float)train_between(p, 0.25, 0.9);
    float top = (float)(1 / (double)nn_log1p((real)(1.6f * compression)));
    blur(p, 0.3, 0.8);
    train_noise(p, p->distance);
    train_blur(p, along, p->distance, p->work);
    train_noise(p, p->body);
    train_blur(p, along, p->body, p->work);
    for (size_t i = 0; i < p->count; i++) {
        float a = gain * p->distance[i], b = gain * p->body[i],
              y = (float)(i / (size_t)p->shape.n[2] % (size_t)p->shape.n[1]);
        float v = p->value[i] * (1 - fade * y) * ((1 - speckle) + speckle * 1.13f * sqrtf(a * a + b * b));
        p->value[i] = (float)nn_log1p((real)(compression * (v < 0 ? 0 : v))) * top;
    }
    if (train_chance(p, 0.5)) fan(p);
    round_all(p, 255, 0, 255);
}

/* ---- microscopy ------------------------------------------------------------------------------------------------ */

/* Long along the optical axis; photons are counted; deeper planes are darker. */
static void look_microscopy(phantom *p) {
    double sigma = train_between(p, 0.4, 1.1), deep = train_between(p, 1, 2.2);
    float photons = (float)train_between_log(p, 0.02, 0.35), reading = (float)train_between(p, 0.005, 0.04);
    float fade = (float)(train_between(p, 0, 0.5) / (double)p->shape.n[0]);
    size_t slice = (size_t)(p->shape.n[1] * p->shape.n[2]);
    train_blur(p, (double[]){sigma * deep, sigma, sigma}, p->value, p->work);
    train_noise(p, p->distance);
    for (size_t i = 0; i < p->count; i++) {
        float v = p->value[i] * (1 - fade * (float)(i / slice));
        v = v < 0 ? 0 : v;
        p->value[i] = v + (photons * sqrtf(v) + reading) * p->distance[i];
    }
    if (train_chance(p, 0.3)) train_blur(p, (double[]){0.4, 0.5, 0.5}, p->value, p->work);
    round_all(p, train_between(p, 120, 220), 0, 255);
}

void train_look(phantom *p) {
    if (p->look == LOOK_CT) look_ct(p);
    else if (p->look == LOOK_MR) look_mr(p);
    else if (p->look == LOOK_PET) look_pet(p);
    else if (p->look == LOOK_ULTRASOUND) look_ultrasound(p);
    else look_microscopy(p);
}
