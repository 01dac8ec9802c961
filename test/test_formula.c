/* The formula model: bit for bit the numbers that the golden data were made with, and the list of tensors it covers. */
#include "../weights/weights.h"
#include "test.h"

#define QKV "image_encoder.blocks.0.attn.qkv.weight"

/* The vectors of the golden data's README. */
static void test_uniform(void) {
    static const double image[] = {0.36912089586257935, 0.06290435791015625, 0.4046550989151001, 0.061031460762023926};
    static const double qkv[] = {0.30532366037368774, 0.20354974269866943, 0.720526933670044, 0.12923097610473633};
    for (unsigned i = 0; i < 4; i++) {
        CHECK(weights_uniform("input.image", i) == image[i]);
        CHECK(weights_uniform("model." QKV, i) == qkv[i]);
    }
    CHECK(weights_uniform("input.image", UINT64_MAX) < 1);
}

/* The spec of that name, as a configuration lists it. */
static weights_spec find_spec(const char *config, const char *name) {
    weights_spec spec = {0};
    for (size_t i = 0; weights_spec_at(weights_named_config(config), i, &spec); i++)
        if (strcmp(spec.name, name) == 0) return spec;
    CHECK(false);
    return spec;
}

static float *values(const weights_spec *spec, size_t *count) {
    CHECK(base_count(spec->shape, spec->ndim, 1, count));
    float *v = malloc(*count * sizeof *v);
    CHECK(weights_formula_source(NULL, spec, *count, v, NULL) == SEGFM_OK);
    return v;
}

static void test_full_qkv(void) {
    weights_spec spec = find_spec("full", QKV);
    size_t n;
    float *v = values(&spec, &n);
    CHECK(n == 2304U * 768U);
    CHECK(v[0] == -0x1.8eb278p-6F && v[1] == -0x1.2f90a8p-5F && v[2] == 0x1.c3a3ap-6F && v[3] == -0x1.7baaep-5F);
    CHECK(v[n - 1] == -0.042771876F);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)v[i];
    CHECK(fabs(sum - 29.005198247730732) < 1e-9); /* the order of summation is all that differs */
    free(v);
}

/* Every kind by one of its tensors: offset and half-width, from the golden data's list of the full model. */
static void test_kinds(void) {
    static const struct {
        const char *name;
        double offset, scale;
    } kinds[] = {
        {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", 0, 1.7320508075688772},
        {"image_encoder.patch_embedding.patch_embeddings.1.bias", 0, 0.02},
        {"image_encoder.blocks.11.norm1.bias", 0, 0.02},
        {"gru_blocks.4.gru.bias_ih_l0", 0, 0.02},
        {"gru_blocks.4.gru.bias_hh_l0", 0, 0.02},
        {"image_encoder.norm.weight", 1, 0.1},
        {"image_encoder.blocks.3.norm2.weight", 1, 0.1},
        {"mask_decoder.transformer.layers.1.norm4.weight", 1, 0.1},
        {"mask_decoder.transformer.norm_final_attn.weight", 1, 0.1},
        {"mask_decoder.iou_token.weight", 0, 0.5},
        {"mask_decoder.mask_tokens.weight", 0, 0.5},
        {"prompt_encoder.point_embeddings.3.weight", 0, 0.5},
        {"prompt_encoder.not_a_point_embed.weight", 0, 0.5},
        {"prompt_encoder.no_mask_embed.weight", 0, 0.5},
        {"mask_decoder.output_upscaling.0.weight", 0, 0.0625},
        {"mask_decoder.output_upscaling.3.weight", 0, 0.125},
        {"image_encoder.patch_embedding.patch_embeddings.1.weight", 0, 0.05412658773652741},
        {"mask_decoder.transformer.layers.0.mlp.lin2.weight", 0, 0.038273277230987154},
        {"text_encoder.dim_align.weight", 0, 0.07654655446197431},
        {"gru_blocks.0.fc_prob.weight", 0, 0.0019136638615493578},
    };
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        weights_spec spec = find_spec("full", kinds[k].name);
        size_t n, wrong = 0;
        char name[160];
        float *v = values(&spec, &n);
        snprintf(name, sizeof name, "model.%s", spec.name);
        if (n > 4096) n = 4096;
        for (size_t i = 0; i < n; i++)
            wrong += v[i] != (float)(kinds[k].offset + kinds[k].scale * (2 * weights_uniform(name, i) - 1));
        if (!CHECK(wrong == 0)) printf("    %s: %zu elements\n", spec.name, wrong);
        free(v);
    }
}

/* Position, shape and number of tensors against lines of the golden state_dict_full.txt (without the unused ones). */
static void test_full_list(void) {
    const weights_config *c = weights_named_config("full");
    static const struct {
        size_t at;
        const char *name;
        size_t shape[WEIGHTS_MAX_DIMS];
    } lines[] = {
        {0, "image_encoder.patch_embedding.position_embeddings", {1, 2048, 768}},
        {1, "image_encoder.patch_embedding.patch_embeddings.1.weight", {768, 1024}},
        {3, "image_encoder.blocks.0.mlp.linear1.weight", {3072, 768}},
        {13, "image_encoder.blocks.0.norm2.bias", {768}},
        {14, "image_encoder.blocks.1.mlp.linear1.weight", {3072, 768}},
        {135, "image_encoder.norm.weight", {768}},
        {137, "mask_decoder.transformer.layers.0.self_attn.q_proj.weight", {768, 768}},
        {208, "mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.bias", {768}},
        {209, "mask_decoder.transformer.final_attn_token_to_image.q_proj.weight", {384, 768}},
        {219, "mask_decoder.iou_token.weight", {1, 768}},
        {221, "mask_decoder.output_upscaling.0.weight", {768, 192, 2, 2, 2}},
        {223, "mask_decoder.output_upscaling.1.weight", {192, 16, 32, 32}},
        {225, "mask_decoder.output_upscaling.3.weight", {192, 96, 2, 2, 2}},
        {227, "mask_decoder.output_hypernetworks_mlps.0.layers.0.weight", {768, 768}},
        {249, "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight", {96, 768}},
        {251, "mask_decoder.iou_prediction_head.layers.0.weight", {256, 768}},
        {255, "mask_decoder.iou_prediction_head.layers.2.weight", {4, 256}},
        {257, "mask_decoder.txt_align_upscaled_embedding.weight", {96, 768}},
        {259, "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", {3, 384}},
        {265, "prompt_encoder.no_mask_embed.weight", {1, 768}},
        {266, "text_encoder.dim_align.weight", {768, 512}},
        {268, "gru_blocks.0.gru.weight_ih_l0", {6000, 1600}},
        {269, "gru_blocks.0.gru.weight_hh_l0", {6000, 2000}},
        {272, "gru_blocks.0.fc_prob.weight", {400, 3200}},
        {273, "gru_blocks.0.fc_prob.bias", {400}},
        {274, "gru_blocks.0.fc_coord.weight", {1200, 3200}},
        {307, "gru_blocks.4.fc_coord.bias", {1200}},
    };
    weights_spec spec;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        CHECK(weights_spec_at(c, lines[i].at, &spec));
        if (!CHECK(strcmp(spec.name, lines[i].name) == 0)) printf("    %zu is %s\n", lines[i].at, spec.name);
        CHECK(memcmp(spec.shape, lines[i].shape, sizeof spec.shape) == 0);
        CHECK(spec.required == (strstr(spec.name, "fc_coord") == NULL));
    }
    CHECK(!weights_spec_at(c, 308, &spec));
    CHECK(!weights_spec_at(c, SIZE_MAX, &spec));
}

int main(void) {
    test_uniform();
    test_full_qkv();
    test_kinds();
    test_full_list();
    return test_summary();
}
