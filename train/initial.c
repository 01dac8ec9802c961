/* Initial weights: what PyTorch's constructors would draw, by our own generator; rounded to float, so that the double build
   begins with the same. */
#include <math.h>

#include "train.h"

typedef enum rule { ZERO, ONE, NORMAL, FREQUENCIES, POSITION, LINEAR, CONVOLUTION, GRU, LIKE_WEIGHT } rule;

typedef struct kind {
    const char *part; /* of the name; the first row of which it is one decides */
    rule weight, bias;
} kind;

static const kind kinds[] = {
    {"position_embeddings", POSITION, ZERO},
    {"positional_encoding_gaussian_matrix", FREQUENCIES, ZERO},
    {"point_embeddings.", NORMAL, ZERO},
    {"_embed.", NORMAL, ZERO},
    {"iou_token.", NORMAL, ZERO},
    {"mask_tokens.", NORMAL, ZERO},
    {"norm", ONE, ZERO},
    {"output_upscaling.1.", ONE, ZERO},
    {"output_upscaling.", CONVOLUTION, LIKE_WEIGHT},
    {".gru.", GRU, GRU},
    {"fc_coord.", ZERO, ZERO},
    {"", LINEAR, LIKE_WEIGHT},
};

static bool is_bias(const char *name) { return strstr(name, ".bias") != NULL; }

/* The bound of the uniform distribution. A bias follows its weight in the file and has its bound, `before`. */
static double bound_of(rule r, const weights_spec *spec, double before) {
    double fan_in = 1;
    if (r == LIKE_WEIGHT) return before;
    if (r == GRU) fan_in = (double)(spec->shape[0] / 3); /* the hidden width; of weights and biases alike */
    else
        for (int i = 1; i < spec->ndim; i++) fan_in *= (double)spec->shape[i];
    return 1 / sqrt(fan_in);
}

/* The Fourier features' matrix (3, half). SAM draws it from a normal distribution, so that every feature mixes the axes. But
   a prompt's z goes where a grid cell's y goes, and over another size (SPEC 2.2): with mixed features no linear layer can
   tell that a box corner and a cell are at the same height, and small models learn next to nothing from a box. Here each
   feature belongs to one axis, and for all axes there are the same periods in voxels, from 4 to twice the largest window
   size in about equal ratios: the exchange is one of features then, which the projections learn at once. */
static void frequencies(const uint32_t spatial[3], size_t half, real *out) {
    const uint32_t divisor[3] = {spatial[1], spatial[0], spatial[2]};
    size_t each = (half + 2) / 3;
    double longest = 0, octaves = 0, power = 1;
    for (int axis = 0; axis < 3; axis++) longest = divisor[axis] > longest ? divisor[axis] : longest;
    for (longest /= 2; 2 * power <= longest; power *= 2) octaves++;
    octaves += longest / power - 1;
    for (size_t i = 0; i < 3 * half; i++) out[i] = 0;
    for (size_t j = 0; j < half; j++) {
        double at = each > 1 ? octaves * (double)(j / 3) / (double)(each - 1) : 0, period = 4;
        for (; at >= 1; at--) period *= 2;
        period *= 1 + at; /* a straight line within an octave */
        /* the feature's angle is (2·voxel/divisor − 1)·out turns */
        out[j % 3 * half + j] = (real)(float)(divisor[j % 3] / (2 * period));
    }
}

static void fill(rule r, double bound, train_random *random, size_t count, real *out) {
    for (size_t i = 0; i < count; i++) switch (r) {
        case ZERO: out[i] = 0; break;
        case ONE: out[i] = 1; break;
        case NORMAL: out[i] = (real)(float)train_random_normal(random); break;
        case POSITION: out[i] = (real)(float)(0.02 * train_random_normal(random)); break;
        default: out[i] = (real)(float)train_random_between(random, -bound, bound);
        }
}

/* ---- a head start ----------------------------------------------------------------------------------------------

   A model whose window follows the box begins as one that lets what it sees through: each of the first 64 channels of a token
   is the mean of one of its 4×4×4 parts, of which the upscaling makes the mask's voxels there: three of each voxel's channels
   begin as that mean where it is positive, its negative where it is not, and its size. Blocks of the encoder begin as small
   changes (a quarter), the other channels as waves over the window, and keys as queries, so that like looks at like: a token
   first at those around it (as do those of trained transformers: Trockman and Kolter, Mimetic initialization of self-attention
   layers, 2023). docs/training.md tells what each gives. */

enum { SIDE = 4, PARTS = SIDE * SIDE * SIDE };

static bool has_head_start(const weights_config *c) {
    bool divides = c->patch[0] % SIDE == 0 && c->patch[1] % SIDE == 0 && c->patch[2] % SIDE == 0;
    return c->frame > 0 && divides && c->dim > PARTS && c->up1 >= 16 && c->up2 >= 3;
}

/* Row `part` of w (dim, patch voxels): the root of the number of its voxels times their mean. */
static void see_parts(const weights_config *c, real *w) {
    const uint32_t *p = c->patch;
    size_t voxels = (size_t)p[0] * p[1] * p[2];
    real weight = (real)(float)(1 / sqrt((double)(voxels / PARTS)));
    for (size_t part = 0; part < PARTS; part++)
        for (size_t v = 0; v < voxels; v++) {
            size_t z = v / (p[1] * p[2]) * SIDE / p[0], y = v / p[2] % p[1] * SIDE / p[1], x = v % p[2] * SIDE / p[2];
            w[part * voxels + v] = (z * SIDE + y) * SIDE + x == part ? weight : 0;
        }
}

/* w (dim, up1, 2,2,2): of each eighth of a token its eight parts, and their negatives. */
static void split_once(const weights_config *c, real *w) {
    for (size_t part = 0; part < PARTS; part++) {
        size_t z = part / (SIDE * SIDE), y = part / SIDE % SIDE, x = part % SIDE;
        size_t eighth = z / 2 * 4 + y / 2 * 2 + x / 2, within = z % 2 * 4 + y % 2 * 2 + x % 2;
        for (size_t o = 0; o < 16; o++)
            for (size_t k = 0; k < 8; k++)
                w[(part * c->up1 + o) * 8 + k] = k == eighth && o % 8 == within ? (o < 8 ? 1 : -1) : 0;
    }
}

/* w (up1, up2, 2,2,2): of each part itself, its negative, both (after GELU: how large it is). */
static void split_again(const weights_config *c, real *w) {
    for (size_t in = 0; in < 16; in++)
        for (size_t o = 0; o < 3; o++)
            for (size_t k = 0; k < 8; k++)
                w[(in * c->up2 + o) * 8 + k] = k == in % 8 && (o == 2 || (o == 0) == (in < 8)) ? 1 : 0;
}

/* w (tokens, dim): in the channels after the parts, sines and cosines along z, y, x of one, two, … half waves. */
static void lay_waves(const weights_config *c, real *w) {
    size_t grid[3], token = 0;
    for (int axis = 0; axis < 3; axis++) grid[axis] = c->spatial[axis] / c->patch[axis];
    for (size_t z = 0; z < grid[0]; z++)
        for (size_t y = 0; y < grid[1]; y++)
            for (size_t x = 0; x < grid[2]; x++, token++)
                for (size_t j = 0; j < c->dim - PARTS; j++) {
                    size_t at[3] = {z, y, x}, axis = j % 3;
                    double middle = ((double)at[axis] + 0.5) / (double)grid[axis] - 0.5, sine, cosine;
                    nn_sin_cos_turns(middle * (double)(j / 6 + 1) / 2, &sine, &cosine);
                    w[token * c->dim + PARTS + j] = (real)(float)(j / 3 % 2 == 0 ? sine : cosine);
                }
}

/* w (q|k|v, dim, dim) */
static void make_keys_queries(size_t dim, real *w) { memcpy(w + dim * dim, w, dim * dim * sizeof *w); }

static void quarter(size_t count, real *w) {
    for (size_t i = 0; i < count; i++) w[i] *= REAL_C(0.25);
}

static void give_head_start(const train_network *n, const train_tensor *t) {
    const weights_config *c = &n->config;
    const char *name = t->spec.name;
    real *w = n->parameters + t->at;
    bool block = strstr(name, "image_encoder.blocks.") != NULL && !is_bias(name);
    if (strstr(name, "patch_embeddings.1.weight") != NULL) see_parts(c, w);
    else if (strstr(name, "output_upscaling.0.weight") != NULL) split_once(c, w);
    else if (strstr(name, "output_upscaling.3.weight") != NULL) split_again(c, w);
    else if (strstr(name, "position_embeddings") != NULL) lay_waves(c, w);
    else if (block && strstr(name, "qkv") != NULL) make_keys_queries(c->dim, w);
    else if (block && (strstr(name, "out_proj") != NULL || strstr(name, "linear2") != NULL)) quarter(t->count, w);
}

void train_initial(train_network *n, uint64_t seed) {
    double bound = 0;
    for (size_t i = 0; i < n->tensor_count; i++) {
        const train_tensor *t = &n->tensors[i];
        const kind *k = kinds;
        while (strstr(t->spec.name, k->part) == NULL) k++;
        rule r = is_bias(t->spec.name) ? k->bias : k->weight;
        train_random random = train_random_at(seed, i, TRAIN_STREAM_TENSOR);
        bound = bound_of(r, &t->spec, bound);
        if (r == FREQUENCIES) frequencies(n->config.spatial, t->spec.shape[1], n->parameters + t->at);
        else fill(r, bound, &random, t->count, n->parameters + t->at);
        if (has_head_start(&n->config)) give_head_start(n, t);
    }
}
