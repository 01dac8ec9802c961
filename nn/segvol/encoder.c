#include "segvol.h"

static const real epsilon = REAL_C(1e-5); /* of every layer norm */

static void linear(const segvol_workspace *ws, const segvol_linear *l, size_t rows, const real *x, real *y) {
    nn_matmul(&ws->run, rows, x, l->weight.k, 1, &l->weight, l->bias, y, l->weight.n);
}

static void norm(const segvol_workspace *ws, const segvol_norm *n, size_t rows, const real *x, real *y) {
    nn_layernorm_forward(&ws->run, rows, n->width, x, n->weight, n->bias, epsilon, y);
}

void segvol_block_forward(const segvol_model *m, segvol_workspace *ws, int index, real *x) {
    const segvol_block *b = &m->blocks[index];
    const nn_run *run = &ws->run;
    size_t tokens = m->tokens, dim = m->config.dim, heads = m->config.heads, mlp = m->config.mlp;

    norm(ws, &b->norm1, tokens, x, ws->normed);
    segvol_trace_rows(ws, "image_encoder.blocks.%d.norm1", index, tokens, dim, ws->normed);
    linear(ws, &b->qkv, tokens, ws->normed, ws->qkv); /* columns (q|k|v, head, dim) */
    segvol_trace_rows(ws, "image_encoder.blocks.%d.attn.qkv", index, tokens, 3 * dim, ws->qkv);
    nn_attention attention = {
        tokens,  tokens,  heads,      dim / heads, ws->qkv, ws->qkv + dim, ws->qkv + 2 * dim, 3 * dim,
        3 * dim, 3 * dim, ws->normed, dim,         0};
    attention.scale = REAL_C(1.0) / (real)sqrt((double)(dim / heads));
    nn_attention_forward(run, &attention);
    linear(ws, &b->out_proj, tokens, ws->normed, ws->mixed);
    segvol_trace_rows(ws, "image_encoder.blocks.%d.attn", index, tokens, dim, ws->mixed);

    nn_add_layernorm_forward(run, tokens, dim, ws->mixed, x, b->norm2.weight, b->norm2.bias, epsilon, ws->normed);
    segvol_trace_rows(ws, "image_encoder.blocks.%d.norm2", index, tokens, dim, ws->normed);
    linear(ws, &b->linear1, tokens, ws->normed, ws->hidden);
    segvol_trace_rows(ws, "image_encoder.blocks.%d.mlp.linear1", index, tokens, mlp, ws->hidden);
    nn_gelu_forward(run, tokens * mlp, ws->hidden, ws->hidden);
    linear(ws, &b->linear2, tokens, ws->hidden, ws->mixed);
    segvol_trace_rows(ws, "image_encoder.blocks.%d.mlp", index, tokens, dim, ws->mixed);
    nn_add(run, tokens * dim, x, ws->mixed, x);
    segvol_trace_rows(ws, "image_encoder.blocks.%d", index, tokens, dim, x);
}

size_t segvol_image_count(const segvol_model *m) {
    return nn_times(m->tokens, nn_plus(m->config.dim, nn_times(3, m->config.decoder_cross_dim)));
}

void segvol_encode(const segvol_model *m, segvol_workspace *ws, const real *window, real *image) {
    size_t spatial[3], patch[3], tokens = m->tokens, dim = m->config.dim;
    real *x = image; /* (tokens, dim) */
    for (int axis = 0; axis < 3; axis++) spatial[axis] = m->config.spatial[axis], patch[axis] = m->config.patch[axis];
    nn_patches(&ws->run, window, spatial, patch, ws->patches);
    linear(ws, &m->patch_embedding, tokens, ws->patches, x);
    nn_add(&ws->run, tokens * dim, x, m->position_embeddings, x);
    segvol_trace_rows(ws, "image_encoder.patch_embedding", 0, tokens, dim, x);
    for (int i = 0; i < (int)m->config.depth; i++) segvol_block_forward(m, ws, i, x);
    norm(ws, &m->norm, tokens, x, x);
    segvol_trace_rows(ws, "image_encoder.norm", 0, tokens, dim, x);
    segvol_project(m, ws, image);
}
