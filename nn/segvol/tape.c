#include "segvol.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The largest scratch of any operator of the backward pass. */
static size_t scratch_count(const segvol_model *m, size_t n, int threads) {
    const weights_config *c = &m->config;
    size_t tokens = m->tokens, dim = c->dim, cross = c->decoder_cross_dim, spatial[3], doubled[3];
    for (int axis = 0; axis < 3; axis++) spatial[axis] = c->spatial[axis], doubled[axis] = 2 * m->grid[axis];
    const size_t linears[][3] = {
        {tokens, m->patch_embedding.weight.k, dim},
        {tokens, dim, 3 * dim},
        {tokens, dim, dim},
        {tokens, dim, c->mlp},
        {tokens, c->mlp, dim},
        {tokens, dim, cross},
        {tokens, cross, dim},
        {n, dim, dim},
        {n, dim, cross},
        {n, cross, dim},
        {n, dim, c->decoder_mlp},
        {n, c->decoder_mlp, dim},
        {1, dim, c->up2},
        {1, nn_plus(c->gru_hidden, nn_times(6, c->topk)), nn_times(6, c->topk)},
    };
    size_t most = 0;
    for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++)
        most = larger(most, nn_linear_backward_scratch(linears[i][0], linears[i][1], linears[i][2], threads));
    most = larger(most, nn_attention_backward_scratch(tokens, tokens, c->heads, dim / c->heads, threads));
    most = larger(most, nn_attention_backward_scratch(n, n, c->decoder_heads, dim / c->decoder_heads, threads));
    most = larger(most, nn_attention_backward_scratch(n, tokens, c->decoder_heads, cross / c->decoder_heads, threads));
    most = larger(most, nn_attention_backward_scratch(tokens, n, c->decoder_heads, cross / c->decoder_heads, threads));
    most = larger(most, nn_layernorm_backward_scratch(tokens, dim, threads));
    most = larger(most, nn_layernorm_backward_scratch(n, dim, threads));
    most = larger(most, nn_layernorm_backward_scratch(1, m->up_norm.width, threads));
    most = larger(most, nn_conv_transpose_backward_scratch(m->grid, dim, c->up1, threads));
    most = larger(most, nn_conv_transpose_backward_scratch(doubled, c->up1, c->up2, threads));
    most = larger(most, nn_gelu_product_backward_scratch(c->up2, m->low_voxels, threads));
    return larger(most, nn_trilinear_backward_scratch(m->low_res, spatial, threads));
}

static segvol_attention_tape plan_attention(size_t queries, size_t keys, size_t inner, nn_arena *arena) {
    segvol_attention_tape t;
    t.q = nn_arena_reals(arena, nn_times(queries, inner));
    t.k = nn_arena_reals(arena, nn_times(keys, inner));
    t.v = nn_arena_reals(arena, nn_times(keys, inner));
    t.attended = nn_arena_reals(arena, nn_times(queries, inner));
    return t;
}

static void plan_encoder(segvol_tape *t, const segvol_model *m, nn_arena *arena) {
    size_t rows = nn_times(m->tokens, m->config.dim), hidden = nn_times(m->tokens, m->config.mlp);
    segvol_block_tape block = {0};
    t->blocks = nn_arena_take(arena, m->config.depth, sizeof *t->blocks);
    for (size_t i = 0; i < m->config.depth; i++) {
        if (i == 0 || !t->recompute) {
            block.qkv = nn_arena_reals(arena, nn_times(3, rows));
            block.attended = nn_arena_reals(arena, rows);
            block.middle = nn_arena_reals(arena, rows);
            block.hidden = nn_arena_reals(arena, hidden);
        }
        block.x = nn_arena_reals(arena, rows);
        if (t->blocks != NULL) t->blocks[i] = block;
    }
    t->encoded = nn_arena_reals(arena, rows);
    t->dx = nn_arena_reals(arena, rows);
    t->dnormed = nn_arena_reals(arena, rows);
    t->dqkv = nn_arena_reals(arena, nn_times(3, rows));
    t->dhidden = nn_arena_reals(arena, hidden);
    t->dactivated = nn_arena_reals(arena, hidden);
}

static segvol_layer_tape plan_layer(const segvol_model *m, size_t n, nn_arena *arena) {
    size_t dim = m->config.dim, cross = m->config.decoder_cross_dim, tokens = m->tokens;
    segvol_layer_tape t;
    t.queries = nn_arena_reals(arena, nn_times(n, dim));
    t.keys = nn_arena_reals(arena, nn_times(tokens, dim));
    t.self_attn = plan_attention(n, n, dim, arena);
    t.token_to_image = plan_attention(n, tokens, cross, arena);
    t.image_to_token = plan_attention(tokens, n, cross, arena);
    for (int i = 0; i < 3; i++) {
        t.sum[i] = nn_arena_reals(arena, nn_times(n, dim));
        t.after[i] = nn_arena_reals(arena, nn_times(n, dim));
    }
    t.keys_sum = nn_arena_reals(arena, nn_times(tokens, dim));
    t.hidden = nn_arena_reals(arena, nn_times(n, m->config.decoder_mlp));
    return t;
}

static void plan_decoder(segvol_tape *t, const segvol_model *m, size_t max_sparse, nn_arena *arena) {
    size_t dim = m->config.dim, cross = m->config.decoder_cross_dim, tokens = m->tokens, inner = larger(dim, cross);
    size_t n = 1 + m->config.mask_tokens + max_sparse, width = larger(dim, m->config.up2);
    size_t token_rows = nn_times(n, inner), rows = nn_times(tokens, dim), image_rows = nn_times(tokens, cross);
    size_t up1 = m->up_norm.width, hidden = nn_times(n, larger(dim, m->config.decoder_mlp));
    t->kinds = nn_arena_take(arena, max_sparse, 1);
    t->layers = nn_arena_take(arena, m->config.decoder_depth, sizeof *t->layers);
    for (size_t i = 0; i < m->config.decoder_depth; i++) {
        segvol_layer_tape layer = plan_layer(m, n, arena);
        if (t->layers != NULL) t->layers[i] = layer;
    }
    t->final = plan_attention(n, tokens, cross, arena);
    t->final_queries = nn_arena_reals(arena, nn_times(n, dim));
    t->final_keys = nn_arena_reals(arena, rows);
    t->final_sum = nn_arena_reals(arena, nn_times(n, dim));
    t->hs = nn_arena_reals(arena, nn_times(n, dim));
    for (size_t i = 0; i < m->config.hyper_layers; i++) t->mlp[i] = nn_arena_reals(arena, width);
    t->up1_raw = nn_arena_reals(arena, up1);
    t->up1_normed = nn_arena_reals(arena, up1);
    t->up2 = nn_arena_reals(arena, nn_times(m->config.up2, m->low_voxels));
    real **tokens_of[] = {&t->dqueries, &t->dquery_pe, &t->dsum, &t->dq, &t->dk, &t->dv};
    for (size_t i = 0; i < sizeof tokens_of / sizeof tokens_of[0]; i++)
        *tokens_of[i] = nn_arena_reals(arena, token_rows);
    for (int i = 0; i < 2; i++) t->dtoken_hidden[i] = nn_arena_reals(arena, hidden);
    t->dkeys = nn_arena_reals(arena, rows);
    t->dkeys_sum = nn_arena_reals(arena, rows);
    t->dimage_q = nn_arena_reals(arena, image_rows);
    t->dimage_k = nn_arena_reals(arena, image_rows);
    t->dimage_v = nn_arena_reals(arena, image_rows);
    t->dattended = nn_arena_reals(arena, larger(token_rows, image_rows));
    t->dhyper = nn_arena_reals(arena, m->config.up2);
    for (int i = 0; i < 3; i++) t->dmlp[i] = nn_arena_reals(arena, width);
    for (int i = 0; i < 2; i++) t->dup1[i] = nn_arena_reals(arena, up1);
    t->dup2 = nn_arena_reals(arena, nn_times(m->config.up2, m->low_voxels));
}

segfm_status segvol_tape_plan(segvol_tape *t, segvol_workspace *ws, const segvol_model *m, bool recompute,
                              nn_arena *arena, segfm_error *error) {
    size_t n = 1 + m->config.mask_tokens + ws->max_sparse;
    *t = (segvol_tape){.recompute = recompute};
    plan_encoder(t, m, arena);
    plan_decoder(t, m, ws->max_sparse, arena);
    /* one block of scratch serves both directions: segvol_workspace_plan's is in it */
    size_t forward = segvol_workspace_scratch(m, ws->max_sparse, ws->run.threads);
    ws->run.scratch = nn_arena_reals(arena, larger(forward, scratch_count(m, n, ws->run.threads)));
    return arena->failed ? segvol_does_not_fit("backward pass", arena, error) : SEGFM_OK;
}

real *segvol_gradient(const segvol_tape *t, const real *parameter) {
    return t->gradients + (parameter - t->parameters);
}
