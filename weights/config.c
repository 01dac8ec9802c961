/* config: the network's sizes, and the one list of its tensors' names and shapes. */
#include "weights.h"

#include <string.h>

enum {
    MAX_SIZE = 1 << 20, /* of any width, window or grid */
    MAX_REPEATS = 1024  /* of any layer, block or token count */
};

/* ---- named configurations ------------------------------------------------------------------------------------ */

static const weights_config tiny = {
    .spatial = {16, 64, 64},
    .patch = {4, 16, 16},
    .dim = 96,
    .depth = 2,
    .heads = 6,
    .mlp = 192,
    .decoder_depth = 2,
    .decoder_heads = 8,
    .decoder_mlp = 128,
    .decoder_cross_dim = 48,
    .mask_tokens = 4,
    .iou_hidden = 64,
    .iou_layers = 3,
    .hyper_layers = 3,
    .up1 = 24,
    .up2 = 12,
    .gru_blocks = 5,
    .gru_hidden = 64,
    .topk = 20,
    .text_dim = 512,
};

static const weights_config full = {
    .spatial = {32, 256, 256},
    .patch = {4, 16, 16},
    .dim = 768,
    .depth = 12,
    .heads = 12,
    .mlp = 3072,
    .decoder_depth = 2,
    .decoder_heads = 8,
    .decoder_mlp = 2048,
    .decoder_cross_dim = 384,
    .mask_tokens = 4,
    .iou_hidden = 256,
    .iou_layers = 3,
    .hyper_layers = 3,
    .up1 = 192,
    .up2 = 96,
    .gru_blocks = 5,
    .gru_hidden = 2000,
    .topk = 200,
    .text_dim = 512,
};

const weights_config *weights_named_config(const char *name) {
    if (strcmp(name, "tiny") == 0) return &tiny;
    if (strcmp(name, "full") == 0) return &full;
    return NULL;
}

/* ---- contradictions ------------------------------------------------------------------------------------------ */

static segfm_status check_range(const char *name, uint32_t v, uint32_t low, uint32_t high, segfm_error *error) {
    if (v >= low && v <= high) return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_INPUT, "configuration: %s is %llu, need %d to %d", name, (unsigned long long)v,
                     (int)low, (int)high);
}

static segfm_status check_divides(const char *name, uint32_t v, const char *by_name, uint32_t by, segfm_error *error) {
    if (v % by == 0) return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_INPUT, "configuration: %s is %d, need a multiple of %s, %d", name, (int)v,
                     by_name, (int)by);
}

static segfm_status check_ranges(const weights_config *c, segfm_error *error) {
    const struct {
        const char *name;
        uint32_t value, low, high;
    } ranges[] = {
        {"spatial z", c->spatial[0], 1, MAX_SIZE},
        {"spatial y", c->spatial[1], 1, MAX_SIZE},
        {"spatial x", c->spatial[2], 1, MAX_SIZE},
        {"patch z", c->patch[0], 1, MAX_SIZE},
        {"patch y", c->patch[1], 1, MAX_SIZE},
        {"patch x", c->patch[2], 1, MAX_SIZE},
        {"dim", c->dim, 2, MAX_SIZE},
        {"depth", c->depth, 1, MAX_REPEATS},
        {"heads", c->heads, 1, MAX_SIZE},
        {"mlp", c->mlp, 1, MAX_SIZE},
        {"decoder_depth", c->decoder_depth, 1, MAX_REPEATS},
        {"decoder_heads", c->decoder_heads, 1, MAX_SIZE},
        {"decoder_mlp", c->decoder_mlp, 1, MAX_SIZE},
        {"decoder_cross_dim", c->decoder_cross_dim, 1, MAX_SIZE},
        {"mask_tokens", c->mask_tokens, 1, MAX_REPEATS},
        {"iou_hidden", c->iou_hidden, 1, MAX_SIZE},
        {"iou_layers", c->iou_layers, 1, MAX_REPEATS},
        {"hyper_layers", c->hyper_layers, 1, MAX_REPEATS},
        {"up1", c->up1, 1, MAX_SIZE},
        {"up2", c->up2, 1, MAX_SIZE},
        {"gru_blocks", c->gru_blocks, 0, MAX_REPEATS},
        /* without a corrector it has no sizes either */
        {"gru_hidden", c->gru_hidden, c->gru_blocks > 0, c->gru_blocks > 0 ? MAX_SIZE : 0},
        {"topk", c->topk, c->gru_blocks > 0, c->gru_blocks > 0 ? MAX_SIZE : 0},
        {"text_dim", c->text_dim, 0, MAX_SIZE},
        {"frame", c->frame, 0, 1000},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        segfm_status status = check_range(ranges[i].name, ranges[i].value, ranges[i].low, ranges[i].high, error);
        if (status != SEGFM_OK) return status;
    }
    return SEGFM_OK;
}

static uint64_t tokens_of(const weights_config *c) {
    uint64_t tokens = 1;
    for (int i = 0; i < 3; i++) tokens *= c->spatial[i] / c->patch[i];
    return tokens;
}

static uint64_t patch_volume(const weights_config *c) { return (uint64_t)c->patch[0] * c->patch[1] * c->patch[2]; }

segfm_status weights_check_config(const weights_config *c, segfm_error *error) {
    static const char *const spatial[] = {"spatial z", "spatial y", "spatial x"};
    static const char *const patch[] = {"patch z", "patch y", "patch x"};
    segfm_status status = check_ranges(c, error);
    for (int i = 0; i < 3 && status == SEGFM_OK; i++)
        status = check_divides(spatial[i], c->spatial[i], patch[i], c->patch[i], error);
    if (status == SEGFM_OK) status = check_divides("dim", c->dim, "heads", c->heads, error);
    if (status == SEGFM_OK) status = check_divides("dim", c->dim, "decoder_heads", c->decoder_heads, error);
    if (status == SEGFM_OK)
        status = check_divides("decoder_cross_dim", c->decoder_cross_dim, "decoder_heads", c->decoder_heads, error);
    /* half of the positional features are sines, half cosines */
    if (status == SEGFM_OK) status = check_divides("dim", c->dim, "the two halves of the positional code", 2, error);
    if (status != SEGFM_OK) return status;
    /* each axis is below 2^20, so neither product overflows 64 bits */
    if (patch_volume(c) > MAX_SIZE)
        return base_fail(error, SEGFM_BAD_INPUT, "configuration: a patch has %llu voxels, need at most %d",
                         (unsigned long long)patch_volume(c), MAX_SIZE);
    if (tokens_of(c) > MAX_SIZE)
        return base_fail(error, SEGFM_BAD_INPUT, "configuration: a window has %llu patches, need at most %d",
                         (unsigned long long)tokens_of(c), MAX_SIZE);
    return SEGFM_OK;
}

/* ---- the tensors --------------------------------------------------------------------------------------------- */

/* A dimension, named by what it is in the configuration. */
typedef enum dim_name {
    END = 0,
    ONE,
    TWO,
    THREE,
    DIM,
    HALF_DIM,
    DIM_X3,
    TOKENS,
    PATCH,
    MLP,
    DECODER_MLP,
    CROSS,
    MASKS,
    UP1,
    UP2,
    GRID_Z2, /* the grid after the first transposed convolution */
    GRID_Y2,
    GRID_X2,
    TEXT,
    GRU_IN,
    GRU_HIDDEN,
    GRU_GATES,
    GRU_FC_IN,
    GRU_POINTS,
    GRU_COORDS,
    HYPER_IN, /* these depend on the layer of a small MLP */
    HYPER_OUT,
    IOU_IN,
    IOU_OUT
} dim_name;

typedef struct row {
    const char *name;
    unsigned char dims[WEIGHTS_MAX_DIMS];
    bool optional;
} row;

#define ATTENTION(name, inner)                                                                                         \
    {name ".q_proj.weight", {inner, DIM}, false}, {name ".q_proj.bias", {inner}, false},                               \
        {name ".k_proj.weight", {inner, DIM}, false}, {name ".k_proj.bias", {inner}, false},                           \
        {name ".v_proj.weight", {inner, DIM}, false}, {name ".v_proj.bias", {inner}, false},                           \
        {name ".out_proj.weight", {DIM, inner}, false}, {                                                              \
        name ".out_proj.bias", {DIM}, false                                                                            \
    }

#define NORM(name)                                                                                                     \
    {name ".weight", {DIM}, false}, { name ".bias", {DIM}, false }

static const row patch_embedding_rows[] = {
    {"position_embeddings", {ONE, TOKENS, DIM}, false},
    {"patch_embeddings.1.weight", {DIM, PATCH}, false},
    {"patch_embeddings.1.bias", {DIM}, false},
};

static const row encoder_block_rows[] = {
    {"mlp.linear1.weight", {MLP, DIM}, false},
    {"mlp.linear1.bias", {MLP}, false},
    {"mlp.linear2.weight", {DIM, MLP}, false},
    {"mlp.linear2.bias", {DIM}, false},
    NORM("norm1"),
    {"attn.out_proj.weight", {DIM, DIM}, false},
    {"attn.out_proj.bias", {DIM}, false},
    {"attn.qkv.weight", {DIM_X3, DIM}, false},
    NORM("norm2"),
};

static const row encoder_norm_rows[] = {NORM("norm")};

static const row decoder_layer_rows[] = {
    ATTENTION("self_attn", DIM),
    NORM("norm1"),
    ATTENTION("cross_attn_token_to_image", CROSS),
    NORM("norm2"),
    {"mlp.lin1.weight", {DECODER_MLP, DIM}, false},
    {"mlp.lin1.bias", {DECODER_MLP}, false},
    {"mlp.lin2.weight", {DIM, DECODER_MLP}, false},
    {"mlp.lin2.bias", {DIM}, false},
    NORM("norm3"),
    NORM("norm4"),
    ATTENTION("cross_attn_image_to_token", CROSS),
};

static const row decoder_rows[] = {
    ATTENTION("transformer.final_attn_token_to_image", CROSS),
    NORM("transformer.norm_final_attn"),
    {"iou_token.weight", {ONE, DIM}, false},
    {"mask_tokens.weight", {MASKS, DIM}, false},
    {"output_upscaling.0.weight", {DIM, UP1, TWO, TWO, TWO}, false},
    {"output_upscaling.0.bias", {UP1}, false},
    {"output_upscaling.1.weight", {UP1, GRID_Z2, GRID_Y2, GRID_X2}, false},
    {"output_upscaling.1.bias", {UP1, GRID_Z2, GRID_Y2, GRID_X2}, false},
    {"output_upscaling.3.weight", {UP1, UP2, TWO, TWO, TWO}, false},
    {"output_upscaling.3.bias", {UP2}, false},
};

static const row hyper_layer_rows[] = {{"weight", {HYPER_OUT, HYPER_IN}, false}, {"bias", {HYPER_OUT}, false}};
static const row iou_layer_rows[] = {{"weight", {IOU_OUT, IOU_IN}, false}, {"bias", {IOU_OUT}, false}};
static const row text_decoder_rows[] = {{"weight", {UP2, DIM}, false}, {"bias", {UP2}, false}};

static const row prompt_rows[] = {
    {"pe_layer.positional_encoding_gaussian_matrix", {THREE, HALF_DIM}, false},
    {"point_embeddings.0.weight", {ONE, DIM}, false},
    {"point_embeddings.1.weight", {ONE, DIM}, false},
    {"point_embeddings.2.weight", {ONE, DIM}, false},
    {"point_embeddings.3.weight", {ONE, DIM}, false},
    {"not_a_point_embed.weight", {ONE, DIM}, false},
    {"no_mask_embed.weight", {ONE, DIM}, false},
};

static const row text_align_rows[] = {{"weight", {DIM, TEXT}, false}, {"bias", {DIM}, false}};

static const row gru_block_rows[] = {
    {"gru.weight_ih_l0", {GRU_GATES, GRU_IN}, false},
    {"gru.weight_hh_l0", {GRU_GATES, GRU_HIDDEN}, false},
    {"gru.bias_ih_l0", {GRU_GATES}, false},
    {"gru.bias_hh_l0", {GRU_GATES}, false},
    {"fc_prob.weight", {GRU_POINTS, GRU_FC_IN}, false},
    {"fc_prob.bias", {GRU_POINTS}, false},
    {"fc_coord.weight", {GRU_COORDS, GRU_FC_IN}, true},
    {"fc_coord.bias", {GRU_COORDS}, true},
};

typedef enum group_name {
    PATCH_EMBEDDING,
    ENCODER_BLOCK,
    ENCODER_NORM,
    DECODER_LAYER,
    DECODER,
    HYPER_LAYER,
    IOU_LAYER,
    TEXT_DECODER,
    PROMPT,
    TEXT_ALIGN,
    GRU_BLOCK,
    GROUP_COUNT
} group_name;

#define ROWS(rows) rows, sizeof rows / sizeof rows[0]

/* In the order of PyTorch's state_dict. %zu is the repetition; the hypernetworks' has two numbers. */
static const struct {
    const char *prefix;
    const row *rows;
    size_t count;
} groups[GROUP_COUNT] = {
    [PATCH_EMBEDDING] = {"image_encoder.patch_embedding.", ROWS(patch_embedding_rows)},
    [ENCODER_BLOCK] = {"image_encoder.blocks.%zu.", ROWS(encoder_block_rows)},
    [ENCODER_NORM] = {"image_encoder.", ROWS(encoder_norm_rows)},
    [DECODER_LAYER] = {"mask_decoder.transformer.layers.%zu.", ROWS(decoder_layer_rows)},
    [DECODER] = {"mask_decoder.", ROWS(decoder_rows)},
    [HYPER_LAYER] = {"mask_decoder.output_hypernetworks_mlps.%zu.layers.%zu.", ROWS(hyper_layer_rows)},
    [IOU_LAYER] = {"mask_decoder.iou_prediction_head.layers.%zu.", ROWS(iou_layer_rows)},
    [TEXT_DECODER] = {"mask_decoder.txt_align_upscaled_embedding.", ROWS(text_decoder_rows)},
    [PROMPT] = {"prompt_encoder.", ROWS(prompt_rows)},
    [TEXT_ALIGN] = {"text_encoder.dim_align.", ROWS(text_align_rows)},
    [GRU_BLOCK] = {"gru_blocks.%zu.", ROWS(gru_block_rows)},
};

static size_t repeats(const weights_config *c, group_name g) {
    switch (g) {
    case ENCODER_BLOCK: return c->depth;
    case DECODER_LAYER: return c->decoder_depth;
    case HYPER_LAYER: return (size_t)c->mask_tokens * c->hyper_layers;
    case IOU_LAYER: return c->iou_layers;
    case TEXT_DECODER:
    case TEXT_ALIGN: return c->text_dim > 0;
    case GRU_BLOCK: return c->gru_blocks;
    default: return 1;
    }
}

/* `layer`: which layer of a small MLP, for the dimensions that depend on it. */
static size_t dimension(const weights_config *c, unsigned char name, size_t layer) {
    size_t k = c->topk, h = c->gru_hidden;
    switch ((dim_name)name) {
    case END: break;
    case ONE: return 1;
    case TWO: return 2;
    case THREE: return 3;
    case DIM: return c->dim;
    case HALF_DIM: return c->dim / 2;
    case DIM_X3: return 3 * (size_t)c->dim;
    case TOKENS: return (size_t)tokens_of(c);
    case PATCH: return (size_t)patch_volume(c);
    case MLP: return c->mlp;
    case DECODER_MLP: return c->decoder_mlp;
    case CROSS: return c->decoder_cross_dim;
    case MASKS: return c->mask_tokens;
    case UP1: return c->up1;
    case UP2: return c->up2;
    case GRID_Z2: return 2 * (size_t)(c->spatial[0] / c->patch[0]);
    case GRID_Y2: return 2 * (size_t)(c->spatial[1] / c->patch[1]);
    case GRID_X2: return 2 * (size_t)(c->spatial[2] / c->patch[2]);
    case TEXT: return c->text_dim;
    case GRU_IN: return 8 * k;
    case GRU_HIDDEN: return h;
    case GRU_GATES: return 3 * h;
    case GRU_FC_IN: return h + 6 * k; /* the hidden state and the coordinates of 2K points */
    case GRU_POINTS: return 2 * k;
    case GRU_COORDS: return 6 * k;
    case HYPER_IN: return c->dim;
    case HYPER_OUT: return layer + 1 == c->hyper_layers ? c->up2 : c->dim;
    case IOU_IN: return layer == 0 ? c->dim : c->iou_hidden;
    case IOU_OUT: return layer + 1 == c->iou_layers ? c->mask_tokens : c->iou_hidden;
    }
    return 0;
}

static void fill_spec(const weights_config *c, group_name g, size_t repeat, const row *r, weights_spec *out) {
    size_t layer = g == HYPER_LAYER ? repeat % c->hyper_layers : repeat;
    char prefix[WEIGHTS_NAME_MAX];
    memset(out, 0, sizeof *out);
    if (g == HYPER_LAYER) base_format(prefix, sizeof prefix, groups[g].prefix, repeat / c->hyper_layers, layer);
    else base_format(prefix, sizeof prefix, groups[g].prefix, repeat);
    base_format(out->name, sizeof out->name, "%s%s", prefix, r->name);
    for (int i = 0; i < WEIGHTS_MAX_DIMS; i++) {
        out->shape[i] = dimension(c, r->dims[i], layer);
        out->ndim += r->dims[i] != END;
    }
    out->required = !r->optional;
}

bool weights_spec_at(const weights_config *c, size_t i, weights_spec *out) {
    for (int g = 0; g < GROUP_COUNT; g++) {
        size_t rows = groups[g].count, all = repeats(c, (group_name)g) * rows;
        if (i < all) {
            fill_spec(c, (group_name)g, i / rows, &groups[g].rows[i % rows], out);
            return true;
        }
        i -= all;
    }
    return false;
}
