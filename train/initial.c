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
    }
}
