/* Sizes of a model for tests of its file. */
#ifndef SEGFM_TEST_MICRO_H
#define SEGFM_TEST_MICRO_H

#include "../weights/weights.h"

/* The smallest model that the checks allow, with everything optional. */
static const weights_config micro = {
    .spatial = {2, 4, 6},
    .patch = {1, 2, 3},
    .dim = 4,
    .depth = 2,
    .heads = 2,
    .mlp = 3,
    .decoder_depth = 1,
    .decoder_heads = 1,
    .decoder_mlp = 5,
    .decoder_cross_dim = 2,
    .mask_tokens = 2,
    .iou_hidden = 3,
    .iou_layers = 2,
    .hyper_layers = 1,
    .up1 = 2,
    .up2 = 1,
    .gru_blocks = 1,
    .gru_hidden = 2,
    .topk = 1,
    .text_dim = 3,
};

#endif
