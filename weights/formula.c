/* formula: the model whose every weight is a formula of its name and index, so that no file is needed to agree on it.
   Double arithmetic, + − × ÷ √ only, rounded once to float: the same bits everywhere. */
#include "weights.h"

#include <math.h>
#include <string.h>

/* FNV-1a, 64 bits. */
static uint64_t hash_name(const char *prefix, const char *name) {
    uint64_t h = 0xCBF29CE484222325U;
    for (; *prefix != '\0'; prefix++) h = (h ^ (unsigned char)*prefix) * 0x100000001B3U;
    for (; *name != '\0'; name++) h = (h ^ (unsigned char)*name) * 0x100000001B3U;
    return h;
}

/* The i-th number of splitmix64 from that seed; its upper 24 bits as a fraction. */
static double uniform(uint64_t seed, uint64_t i) {
    uint64_t z = seed + i * 0x9E3779B97F4A7C15U;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27) * 0x94D049BB133111EBU;
    return (double)((z ^ z >> 31) >> 40) / 16777216.0;
}

double weights_uniform(const char *name, uint64_t i) { return uniform(hash_name("", name), i); }

/* ---- the kinds of tensors ------------------------------------------------------------------------------------ */

typedef enum scale_rule { CONSTANT, FAN_IN, FIRST_DIM } scale_rule;

typedef struct kind {
    const char *ending; /* of the name; the first match wins */
    double offset, scale;
    scale_rule rule; /* scale is multiplied by sqrt(3/fan_in) or sqrt(3/shape[0]) */
} kind;

/* sqrt(3), the half-width of a uniform distribution with unit variance */
#define SQRT3 1.7320508075688772

static const kind kinds[] = {
    {".positional_encoding_gaussian_matrix", 0, SQRT3, CONSTANT},
    {".bias", 0, 0.02, CONSTANT},
    {".bias_ih_l0", 0, 0.02, CONSTANT},
    {".bias_hh_l0", 0, 0.02, CONSTANT},
    {".norm.weight", 1, 0.1, CONSTANT},
    {".norm1.weight", 1, 0.1, CONSTANT},
    {".norm2.weight", 1, 0.1, CONSTANT},
    {".norm3.weight", 1, 0.1, CONSTANT},
    {".norm4.weight", 1, 0.1, CONSTANT},
    {".norm_final_attn.weight", 1, 0.1, CONSTANT},
    {".output_upscaling.1.weight", 1, 0.1, CONSTANT},
    {".mask_downscaling.1.weight", 1, 0.1, CONSTANT},
    {".mask_downscaling.4.weight", 1, 0.1, CONSTANT},
    {".iou_token.weight", 0, 0.5, CONSTANT},
    {".mask_tokens.weight", 0, 0.5, CONSTANT},
    {".point_embeddings.0.weight", 0, 0.5, CONSTANT},
    {".point_embeddings.1.weight", 0, 0.5, CONSTANT},
    {".point_embeddings.2.weight", 0, 0.5, CONSTANT},
    {".point_embeddings.3.weight", 0, 0.5, CONSTANT},
    {".not_a_point_embed.weight", 0, 0.5, CONSTANT},
    {".no_mask_embed.weight", 0, 0.5, CONSTANT},
    {".position_embeddings", 0, 0.5, CONSTANT},
    {".output_upscaling.0.weight", 0, 1, FIRST_DIM}, /* kernel = stride: each voxel sees one tap of each channel */
    {".output_upscaling.3.weight", 0, 1, FIRST_DIM},
    {".gru.weight_ih_l0", 0, 1.0 / 64, FAN_IN}, /* its inputs are voxel coordinates up to 255 */
    {".fc_prob.weight", 0, 1.0 / 16, FAN_IN},
    {"", 0, 1, FAN_IN},
};

static bool ends_with(const char *name, const char *ending) {
    size_t n = strlen(name), e = strlen(ending);
    return n >= e && strcmp(name + n - e, ending) == 0;
}

static double scale_of(const kind *k, const weights_spec *spec) {
    if (k->rule == CONSTANT) return k->scale;
    double fan_in = (double)spec->shape[0];
    if (k->rule == FAN_IN) {
        fan_in = 1;
        for (int i = 1; i < spec->ndim; i++) fan_in *= (double)spec->shape[i];
    }
    return sqrt(3.0 / fan_in) * k->scale; /* the other factors are powers of two: where they stand does not matter */
}

segfm_status weights_formula_source(void *user, const weights_spec *spec, size_t count, float *out,
                                    segfm_error *error) {
    (void)user;
    (void)error;
    const kind *k = kinds;
    while (!ends_with(spec->name, k->ending)) k++;
    double scale = scale_of(k, spec);
    uint64_t seed = hash_name("model.", spec->name);
    for (size_t i = 0; i < count; i++) out[i] = (float)(k->offset + scale * (2 * uniform(seed, i) - 1));
    return SEGFM_OK;
}
