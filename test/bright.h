/* A small model that marks what is bright: the sizes of test/fixtures, the formula's weights, changed in six places. */
#ifndef SEGFM_TEST_BRIGHT_H
#define SEGFM_TEST_BRIGHT_H

#include "../segfm.h"
#include "../weights/weights.h"
#include "fixture.h"

/* The formula's weights, changed in six places so that the network marks what is bright (test/fixtures/README.md). */
static inline segfm_status bright_source(void *user, const weights_spec *spec, size_t count, float *out,
                                         segfm_error *error) {
    const weights_config *c = user;
    size_t patch = (size_t)c->patch[0] * c->patch[1] * c->patch[2];
    segfm_status status = weights_formula_source(NULL, spec, count, out, error);
    const char *name = spec->name;
    if (strcmp(name, "image_encoder.patch_embedding.patch_embeddings.1.weight") == 0)
        for (size_t i = 0; i < patch; i++) out[i] = 0.2f;
    else if (strcmp(name, "image_encoder.patch_embedding.patch_embeddings.1.bias") == 0)
        out[0] = (float)(-0.06 * (double)patch);
    else if (strcmp(name, "mask_decoder.output_upscaling.0.weight") == 0)
        for (size_t i = 0; i < (size_t)8 * c->up1; i++) out[i] = 1;
    else if (strcmp(name, "mask_decoder.output_upscaling.3.weight") == 0)
        for (size_t i = 0; i < count; i++) out[i] = fabsf(out[i]);
    else if (strcmp(name, "mask_decoder.output_upscaling.3.bias") == 0)
        for (size_t i = 0; i < count; i++) out[i] = -2;
    else if (strcmp(name, "mask_decoder.output_hypernetworks_mlps.0.layers.2.bias") == 0)
        for (size_t i = 0; i < count; i++) out[i] = 1;
    return status;
}

/* A weights file of it; frame: weights_config's. */
static inline io_buffer bright_framed_bytes(bool corrector, uint32_t frame) {
    fixture f = fixture_open("test/fixtures/encoder.npz");
    weights_config c = fixture_config(&f);
    fixture_close(&f);
    if (!corrector) c.gru_blocks = c.gru_hidden = c.topk = 0;
    c.frame = frame;
    weights_write_options options = {.variant = "upstream", .provenance = "test"};
    io_buffer bytes = {0};
    CHECK(weights_write(&c, &options, bright_source, &c, weights_sink_buffer, &bytes, NULL) == SEGFM_OK);
    return bytes;
}

static inline io_buffer bright_bytes(bool corrector) { return bright_framed_bytes(corrector, 0); }

static inline segfm_model *bright_framed_model(bool corrector, uint32_t frame) {
    io_buffer bytes = bright_framed_bytes(corrector, frame);
    segfm_model *model = NULL;
    segfm_error error = {0};
    CHECK(segfm_model_open(bytes.data, bytes.size, NULL, &model, &error) == SEGFM_OK);
    io_buffer_free(&bytes); /* the model keeps nothing of it */
    return model;
}

static inline segfm_model *bright_model(bool corrector) { return bright_framed_model(corrector, 0); }

#endif
