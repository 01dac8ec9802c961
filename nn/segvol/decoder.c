#include "segvol.h"

static const real epsilon = REAL_C(1e-5); /* of every layer norm */

static void linear(const segvol_workspace *ws, const segvol_linear *l, size_t rows, const real *x, real *y) {
    nn_matmul(&ws->run, rows, x, l->weight.k, 1, &l->weight, l->bias, y, l->weight.n);
}

static void norm(const segvol_workspace *ws, const segvol_norm *n, size_t rows, const real *x, real *y) {
    nn_layernorm_forward(&ws->run, rows, n->width, x, n->weight, n->bias, epsilon, y);
}

/* x (rows, dim) = norm(x + residual) */
static void add_norm(const segvol_workspace *ws, const segvol_norm *n, size_t rows, const real *residual, real *x) {
    nn_add_layernorm_forward(&ws->run, rows, n->width, residual, x, n->weight, n->bias, epsilon, x);
}

/* out (queries, dim) = out_proj(attention(q, k, v)); q (queries, inner), k and v (keys, inner) are projected already */
static void attend(const segvol_model *m, segvol_workspace *ws, const segvol_attention *a, size_t queries,
                   const real *q, size_t keys, const real *k, const real *v, real *out) {
    size_t inner = a->q_proj.weight.n, heads = m->config.decoder_heads;
    nn_attention attention = {queries, keys,  heads, inner / heads, q,     k, v,
                              inner,   inner, inner, ws->attended,  inner, 0};
    attention.scale = REAL_C(1.0) / (real)sqrt((double)(inner / heads));
    nn_attention_forward(&ws->run, &attention);
    linear(ws, &a->out_proj, queries, ws->attended, out);
}

/* What of a layer's attentions depends on the image alone: k, v (tokens, cross) of token_to_image, q (tokens, cross) of
   image_to_token. */
typedef struct image_side {
    const real *k, *v, *q;
} image_side;

static image_side projected(const segvol_model *m, const real *image) {
    const real *k = image + m->tokens * m->config.dim;
    size_t each = m->tokens * m->config.decoder_cross_dim;
    return (image_side){k, k + each, k + 2 * each};
}

/* ws->keys (tokens, dim) → k, v, and q unless NULL; ws->with_pe_k is scratch. */
static void project(const segvol_model *m, segvol_workspace *ws, const segvol_attention *token_to_image,
                    const segvol_linear *image_query, real *k, real *v, real *q) {
    size_t tokens = m->tokens;
    nn_add(&ws->run, tokens * m->config.dim, ws->keys, m->dense_pe, ws->with_pe_k);
    linear(ws, &token_to_image->k_proj, tokens, ws->with_pe_k, k);
    linear(ws, &token_to_image->v_proj, tokens, ws->keys, v);
    if (image_query != NULL) linear(ws, image_query, tokens, ws->with_pe_k, q);
}

/* ws->keys = embedding + no_mask */
static void image_keys(const segvol_model *m, segvol_workspace *ws, const real *embedding) {
    size_t dim = m->config.dim;
#pragma omp parallel for num_threads(ws->run.threads) schedule(static)
    for (ptrdiff_t t = 0; t < (ptrdiff_t)m->tokens; t++)
        for (size_t d = 0; d < dim; d++) ws->keys[(size_t)t * dim + d] = embedding[(size_t)t * dim + d] + m->no_mask[d];
}

void segvol_project(const segvol_model *m, segvol_workspace *ws, real *image) {
    real *k = image + m->tokens * m->config.dim;
    size_t each = m->tokens * m->config.decoder_cross_dim;
    image_keys(m, ws, image);
    project(m, ws, &m->layers[0].token_to_image, &m->layers[0].image_to_token.q_proj, k, k + each, k + 2 * each);
}

void segvol_two_way_layer_forward(const segvol_model *m, segvol_workspace *ws, int index, size_t n, const real *image) {
    const segvol_two_way *l = &m->layers[index];
    const nn_run *run = &ws->run;
    size_t dim = m->config.dim, tokens = m->tokens;
    real *queries = ws->queries, *keys = ws->keys, *out = ws->token_out;

    const real *positioned = queries; /* the first layer's self-attention knows no positions … */
    if (index > 0) {
        nn_add(run, n * dim, queries, ws->query_pe, ws->with_pe_q);
        positioned = ws->with_pe_q;
    }
    linear(ws, &l->self_attn.q_proj, n, positioned, ws->q);
    linear(ws, &l->self_attn.k_proj, n, positioned, ws->k);
    linear(ws, &l->self_attn.v_proj, n, queries, ws->v);
    attend(m, ws, &l->self_attn, n, ws->q, n, ws->k, ws->v, out);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.self_attn", index, n, dim, out);
    if (index == 0) norm(ws, &l->norm1, n, out, queries); /* … and replaces the queries: no residual */
    else add_norm(ws, &l->norm1, n, out, queries);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.norm1", index, n, dim, queries);

    image_side side = {ws->image_k, ws->image_v, ws->image_q};
    if (image != NULL) side = projected(m, image);
    else project(m, ws, &l->token_to_image, &l->image_to_token.q_proj, ws->image_k, ws->image_v, ws->image_q);
    nn_add(run, n * dim, queries, ws->query_pe, ws->with_pe_q);
    linear(ws, &l->token_to_image.q_proj, n, ws->with_pe_q, ws->q);
    attend(m, ws, &l->token_to_image, n, ws->q, tokens, side.k, side.v, out);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.cross_attn_token_to_image", index, n, dim, out);
    add_norm(ws, &l->norm2, n, out, queries);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.norm2", index, n, dim, queries);

    linear(ws, &l->lin1, n, queries, ws->token_hidden);
    nn_relu_forward(run, n * m->config.decoder_mlp, ws->token_hidden, ws->token_hidden);
    linear(ws, &l->lin2, n, ws->token_hidden, out);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.mlp", index, n, dim, out);
    add_norm(ws, &l->norm3, n, out, queries);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.norm3", index, n, dim, queries);

    nn_add(run, n * dim, queries, ws->query_pe, ws->with_pe_q);
    linear(ws, &l->image_to_token.k_proj, n, ws->with_pe_q, ws->k);
    linear(ws, &l->image_to_token.v_proj, n, queries, ws->v);
    attend(m, ws, &l->image_to_token, tokens, side.q, n, ws->k, ws->v, out);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.cross_attn_image_to_token", index, tokens, dim, out);
    add_norm(ws, &l->norm4, tokens, out, keys);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.queries", index, n, dim, queries);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.keys", index, tokens, dim, keys);
}

/* queries = [iou_token, mask_tokens, sparse], keys = embedding + no_mask, then the layers and the final attention.
   ws->queries and ws->keys hold the results. */
static void transform(const segvol_model *m, segvol_workspace *ws, const real *image, size_t sparse) {
    size_t dim = m->config.dim, masks = m->config.mask_tokens, tokens = m->tokens, n = 1 + masks + sparse;
    memcpy(ws->queries, m->iou_token, dim * sizeof(real));
    memcpy(ws->queries + dim, m->mask_tokens, masks * dim * sizeof(real));
    memcpy(ws->queries + (1 + masks) * dim, ws->sparse, sparse * dim * sizeof(real));
    memcpy(ws->query_pe, ws->queries, n * dim * sizeof(real));
    image_keys(m, ws, image);
    for (int i = 0; i < (int)m->config.decoder_depth; i++)
        segvol_two_way_layer_forward(m, ws, i, n, i == 0 ? image : NULL);
    project(m, ws, &m->final_attention, NULL, ws->image_k, ws->image_v, NULL);
    nn_add(&ws->run, n * dim, ws->queries, ws->query_pe, ws->with_pe_q);
    linear(ws, &m->final_attention.q_proj, n, ws->with_pe_q, ws->q);
    attend(m, ws, &m->final_attention, n, ws->q, tokens, ws->image_k, ws->image_v, ws->token_out);
    segvol_trace_rows(ws, "mask_decoder.transformer.final_attn_token_to_image", 0, n, dim, ws->token_out);
    add_norm(ws, &m->norm_final, n, ws->token_out, ws->queries);
    segvol_trace_rows(ws, "transformer.hs", 0, n, dim, ws->queries);
    segvol_trace_rows(ws, "transformer.src", 0, tokens, dim, ws->keys);
}

/* keys (tokens, dim) → masks (mask_tokens, 4·grid): two transposed convolutions, a layer norm over the whole block
   between, then ws->hyper (mask_tokens, up2) · channels. */
static void upscale(const segvol_model *m, segvol_workspace *ws) {
    size_t doubled[3] = {2 * m->grid[0], 2 * m->grid[1], 2 * m->grid[2]}, cells = 8 * m->tokens;
    size_t up1 = m->config.up1, up2 = m->config.up2, masks = m->config.mask_tokens;
    const nn_run *run = &ws->run;
    nn_conv_transpose_forward(run, m->grid, ws->keys, m->config.dim, 1, &m->up1, ws->up1);
    segvol_trace_volume(ws, "mask_decoder.output_upscaling.0", up1, doubled, ws->up1);
    nn_layernorm_forward(run, 1, m->up_norm.width, ws->up1, m->up_norm.weight, m->up_norm.bias, epsilon, ws->up1);
    segvol_trace_volume(ws, "mask_decoder.output_upscaling.1", up1, doubled, ws->up1);
    nn_gelu_forward(run, cells * up1, ws->up1, ws->up1);
    if (ws->trace != NULL) {
        nn_conv_transpose_forward(run, doubled, ws->up1, 1, cells, &m->up2, ws->up2);
        segvol_trace_volume(ws, "mask_decoder.output_upscaling.3", up2, m->low_res, ws->up2);
        nn_gelu_forward(run, m->low_voxels * up2, ws->up2, ws->up2);
        segvol_trace_volume(ws, "upscaled_embedding", up2, m->low_res, ws->up2);
    }
    nn_conv_transpose_gelu_product(run, doubled, ws->up1, 1, cells, &m->up2, masks, ws->hyper, ws->masks);
}

/* y = the MLP of x (first layer's k), one row */
static void mlp_forward(const segvol_workspace *ws, const segvol_mlp *mlp, const real *x, real *y) {
    for (size_t i = 0; i < mlp->count; i++) {
        bool last = i + 1 == mlp->count;
        real *to = last ? y : i % 2 == 0 ? ws->mlp_a : ws->mlp_b;
        linear(ws, &mlp->layers[i], 1, x, to);
        if (!last) nn_relu_forward(&ws->run, mlp->layers[i].weight.n, to, to);
        x = to;
    }
}

void segvol_decode(const segvol_model *m, segvol_workspace *ws, const real *image, const segvol_prompts *prompts) {
    size_t dim = m->config.dim, masks = m->config.mask_tokens, up2 = m->config.up2;
    transform(m, ws, image, segvol_encode_prompts(m, ws, prompts));
    for (size_t i = 0; i < masks; i++) mlp_forward(ws, &m->hyper[i], ws->queries + (1 + i) * dim, ws->hyper + i * up2);
    segvol_trace_rows(ws, "hyper_in", 0, masks, up2, ws->hyper);
    upscale(m, ws);
    segvol_trace_volume(ws, "masks_all4", masks, m->low_res, ws->masks);
    segvol_trace_volume(ws, "low_res_masks", 1, m->low_res, ws->masks);

    mlp_forward(ws, &m->iou_head, ws->queries, ws->iou);
    if (ws->trace != NULL) {
        ws->trace(ws->trace_user, "iou_pred_all4", 2, (size_t[]){1, masks}, ws->iou);
        ws->trace(ws->trace_user, "iou_pred", 2, (size_t[]){1, 1}, ws->iou);
    }
}

void segvol_upsample(const segvol_model *m, segvol_workspace *ws, size_t index, real *logits) {
    size_t spatial[3];
    for (int axis = 0; axis < 3; axis++) spatial[axis] = m->config.spatial[axis];
    nn_trilinear_forward(&ws->run, m->low_res, ws->masks + index * m->low_voxels, spatial, logits);
    segvol_trace_volume(ws, "logits", 1, spatial, logits);
}
