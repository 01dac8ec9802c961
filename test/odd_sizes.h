/* Sizes of a network for tests: hardly two are equal. */
#ifndef SEGFM_TEST_ODD_SIZES_H
#define SEGFM_TEST_ODD_SIZES_H

#include "../weights/weights.h"

/* The fixtures' network (tools/reference/segvol.py, FIXTURE) with another corrector. */
static inline weights_config odd_config(uint32_t blocks, uint32_t hidden, uint32_t topk) {
    return (weights_config){.spatial = {10, 18, 35},
                            .patch = {5, 6, 7},
                            .dim = 48,
                            .depth = 2,
                            .heads = 3,
                            .mlp = 80,
                            .decoder_depth = 2,
                            .decoder_heads = 6,
                            .decoder_mlp = 56,
                            .decoder_cross_dim = 24,
                            .mask_tokens = 4,
                            .iou_hidden = 20,
                            .iou_layers = 3,
                            .hyper_layers = 3,
                            .up1 = 14,
                            .up2 = 5,
                            .gru_blocks = blocks,
                            .gru_hidden = hidden,
                            .topk = topk,
                            .text_dim = 512};
}

#endif
