/* Initial weights: what PyTorch's constructors would draw, by our own generator; rounded to float, so that the double build
   begins with the same. */
#include <math.h>

#include "train.h"

typedef enum rule { ZERO, ONE, NORMAL, POSITION, LINEAR, CONVOLUTION, GRU, LIKE_WEIGHT } rule;

typedef struct kind {
    const char *part; /* of the name; the first row of which it is one decides */
    rule weight, bias;
} kind;

static const kind kinds[] = {
    {"position_embeddings", POSITION, ZERO},
    {"positional_encoding_gaussian_matrix", NORMAL, ZERO},
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
        fill(r, bound, &random, t->count, n->parameters + t->at);
    }
}
