#include "segvol.h"

/* qkv (tokens, 3·dim) → attended (tokens, dim) */
static nn_attention self_attention(const segvol_model *m, real *qkv, real *attended) {
    size_t tokens = m->tokens, dim = m->config.dim, heads = m->config.heads, head = dim / heads;
    return (nn_attention){.queries = tokens,
                          .keys = tokens,
                          .heads = heads,
                          .head_dim = head,
                          .q = qkv,
                          .k = qkv + dim,
                          .v = qkv + 2 * dim,
                          .q_row = 3 * dim,
                          .k_row = 3 * dim,
                          .v_row = 3 * dim,
                          .out = attended,
                          .out_row = dim,
                          .scale = REAL_C(1.0) / (real)sqrt((double)head)};
}

void segvol_block_forward(const segvol_model *m, segvol_workspace *ws, int index, real *x) {
    const segvol_block *b = &m->blocks[index];
    const nn_run *run = &ws->run;
    size_t tokens = m->tokens, dim = m->config.dim, mlp = m->config.mlp;
    segvol_block_tape own = {NULL, ws->qkv, ws->normed, NULL, ws->hidden}; /* nothing is kept */
    const segvol_block_tape *t = ws->tape != NULL ? &ws->tape->blocks[index] : &own;

    if (t->x != NULL) memcpy(t->x, x, tokens * dim * sizeof(real));
    segvol_norm_forward(ws, &b->norm1, tokens, x, ws->normed);
    segvol_trace_rows(ws, "image_encoder.blocks.%d.norm1", index, tokens, dim, ws->normed);
    segvol_linear_forward(ws, &b->qkv, tokens, ws->normed, t->qkv); /* columns (q|k|v, head, dim) */
    segvol_trace_rows(ws, "image_encoder.blocks.%d.attn.qkv", index, tokens, 3 * dim, t->qkv);
    nn_attention attention = self_attention(m, t->qkv, t->attended);
    nn_attention_forward(run, &attention);
    segvol_linear_forward(ws, &b->out_proj, tokens, t->attended, ws->mixed);
    segvol_trace_rows(ws, "image_encoder.blocks.%d.attn", index, tokens, dim, ws->mixed);

    nn_add_layernorm_forward(run, tokens, dim, ws->mixed, x, b->norm2.weight, b->norm2.bias, segvol_epsilon,
                             ws->normed);
    if (t->middle != NULL) memcpy(t->middle, x, tokens * dim * sizeof(real));
    segvol_trace_rows(ws, "image_encoder.blocks.%d.norm2", index, tokens, dim, ws->normed);
    segvol_linear_forward(ws, &b->linear1, tokens, ws->normed, t->hidden);
    segvol_trace_rows(ws, "image_encoder.blocks.%d.mlp.linear1", index, tokens, mlp, t->hidden);
    nn_gelu_forward(run, tokens * mlp, t->hidden, ws->hidden);
    segvol_linear_forward(ws, &b->linear2, tokens, ws->hidden, ws->mixed);
    segvol_trace_rows(ws, "image_encoder.blocks.%d.mlp", index, tokens, dim, ws->mixed);
    nn_add(run, tokens * dim, x, ws->mixed, x);
    segvol_trace_rows(ws, "image_encoder.blocks.%d", index, tokens, dim, x);
}

void segvol_block_backward(const segvol_model *m, segvol_workspace *ws, int index) {
    const segvol_block *b = &m->blocks[index];
    segvol_tape *g = ws->tape;
    const segvol_block_tape *t = &g->blocks[index];
    size_t tokens = m->tokens, dim = m->config.dim, mlp = m->config.mlp;
    if (g->recompute && index + 1 < (int)m->config.depth) { /* the last block's is still there */
        memcpy(g->dnormed, t->x, tokens * dim * sizeof(real));
        segvol_block_forward(m, ws, index, g->dnormed);
    }
    /* result = middle + linear2(gelu(linear1(norm2(middle)))) */
    nn_gelu_forward(&ws->run, tokens * mlp, t->hidden, ws->hidden);
    memset(g->dactivated, 0, tokens * mlp * sizeof(real));
    segvol_linear_backward(ws, &b->linear2, tokens, ws->hidden, g->dx, g->dactivated);
    memset(g->dhidden, 0, tokens * mlp * sizeof(real));
    nn_gelu_backward(&ws->run, tokens * mlp, t->hidden, g->dactivated, g->dhidden);
    segvol_norm_forward(ws, &b->norm2, tokens, t->middle, ws->normed);
    memset(g->dnormed, 0, tokens * dim * sizeof(real));
    segvol_linear_backward(ws, &b->linear1, tokens, ws->normed, g->dhidden, g->dnormed);
    segvol_norm_backward(ws, &b->norm2, tokens, t->middle, g->dnormed, g->dx);
    /* middle = x + out_proj(attention(qkv(norm1(x)))) */
    memset(g->dnormed, 0, tokens * dim * sizeof(real)); /* of what was attended, first */
    segvol_linear_backward(ws, &b->out_proj, tokens, t->attended, g->dx, g->dnormed);
    memset(g->dqkv, 0, 3 * tokens * dim * sizeof(real));
    nn_attention attention = self_attention(m, t->qkv, t->attended);
    nn_attention_backward(&ws->run, &attention, g->dnormed, g->dqkv, g->dqkv + dim, g->dqkv + 2 * dim);
    segvol_norm_forward(ws, &b->norm1, tokens, t->x, ws->normed);
    memset(g->dnormed, 0, tokens * dim * sizeof(real));
    segvol_linear_backward(ws, &b->qkv, tokens, ws->normed, g->dqkv, g->dnormed);
    segvol_norm_backward(ws, &b->norm1, tokens, t->x, g->dnormed, g->dx);
}

size_t segvol_image_count(const segvol_model *m) {
    return nn_times(m->tokens, nn_plus(m->config.dim, nn_times(3, m->config.decoder_cross_dim)));
}

void segvol_encode(const segvol_model *m, segvol_workspace *ws, const real *window, real *image) {
    size_t spatial[3], patch[3], tokens = m->tokens, dim = m->config.dim;
    real *x = image; /* (tokens, dim) */
    for (int axis = 0; axis < 3; axis++) spatial[axis] = m->config.spatial[axis], patch[axis] = m->config.patch[axis];
    nn_patches(&ws->run, window, spatial, patch, ws->patches);
    segvol_linear_forward(ws, &m->patch_embedding, tokens, ws->patches, x);
    nn_add(&ws->run, tokens * dim, x, m->position_embeddings, x);
    segvol_trace_rows(ws, "image_encoder.patch_embedding", 0, tokens, dim, x);
    for (int i = 0; i < (int)m->config.depth; i++) segvol_block_forward(m, ws, i, x);
    if (ws->tape != NULL) memcpy(ws->tape->encoded, x, tokens * dim * sizeof(real));
    segvol_norm_forward(ws, &m->norm, tokens, x, x);
    segvol_trace_rows(ws, "image_encoder.norm", 0, tokens, dim, x);
    segvol_project(m, ws, image);
}

void segvol_encode_backward(const segvol_model *m, segvol_workspace *ws, real *dimage) {
    segvol_tape *g = ws->tape;
    size_t tokens = m->tokens, dim = m->config.dim;
    memset(g->dx, 0, tokens * dim * sizeof(real));
    segvol_norm_backward(ws, &m->norm, tokens, g->encoded, dimage, g->dx);
    for (int i = (int)m->config.depth; i-- > 0;) segvol_block_backward(m, ws, i);
    real *dpositions = segvol_gradient(g, m->position_embeddings);
    nn_add(&ws->run, tokens * dim, dpositions, g->dx, dpositions);
    segvol_linear_backward(ws, &m->patch_embedding, tokens, ws->patches, g->dx, NULL);
}
