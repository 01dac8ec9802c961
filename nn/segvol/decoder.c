#include "segvol.h"

/* What is kept when there is no tape: nothing. */
static const segvol_layer_tape no_layer;

static void keep(real *tape, const real *x, size_t count) {
    if (tape != NULL) memcpy(tape, x, count * sizeof(real));
}

/* x (rows, dim) = norm(x + residual); sum: on the tape, or NULL */
static void add_norm(const segvol_workspace *ws, const segvol_norm *n, size_t rows, const real *residual, real *x,
                     real *sum) {
    keep(sum, x, rows * n->width);
    nn_add_layernorm_forward(&ws->run, rows, n->width, residual, sum != NULL ? sum : x, n->weight, n->bias,
                             segvol_epsilon, x);
}

static nn_attention attention_of(const segvol_model *m, const segvol_attention *a, size_t queries, const real *q,
                                 size_t keys, const real *k, const real *v, real *out) {
    size_t inner = a->q_proj.weight.n, heads = m->config.decoder_heads;
    nn_attention attention = {queries, keys, heads, inner / heads, q, k, v, inner, inner, inner, out, inner, 0};
    attention.scale = REAL_C(1.0) / (real)sqrt((double)(inner / heads));
    return attention;
}

/* out (queries, dim) = out_proj(attention(q, k, v)); q (queries, inner), k and v (keys, inner) are projected already */
static void attend(const segvol_model *m, segvol_workspace *ws, const segvol_attention *a, size_t queries,
                   const real *q, size_t keys, const real *k, const real *v, real *out,
                   const segvol_attention_tape *t) {
    size_t inner = a->q_proj.weight.n;
    nn_attention attention = attention_of(m, a, queries, q, keys, k, v, ws->attended);
    nn_attention_forward(&ws->run, &attention);
    segvol_linear_forward(ws, &a->out_proj, queries, ws->attended, out);
    keep(t->q, q, queries * inner), keep(t->attended, ws->attended, queries * inner);
    keep(t->k, k, keys * inner), keep(t->v, v, keys * inner);
}

/* dout (queries, dim) → dq (queries, inner), dk, dv (keys, inner), which it sets; ws->tape->dattended is scratch */
static void attend_backward(const segvol_model *m, segvol_workspace *ws, const segvol_attention *a, size_t queries,
                            size_t keys, const segvol_attention_tape *t, const real *dout, real *dq, real *dk,
                            real *dv) {
    size_t inner = a->q_proj.weight.n;
    real *dattended = ws->tape->dattended;
    memset(dattended, 0, queries * inner * sizeof(real));
    segvol_linear_backward(ws, &a->out_proj, queries, t->attended, dout, dattended);
    memset(dq, 0, queries * inner * sizeof(real));
    memset(dk, 0, keys * inner * sizeof(real)), memset(dv, 0, keys * inner * sizeof(real));
    nn_attention attention = attention_of(m, a, queries, t->q, keys, t->k, t->v, t->attended);
    nn_attention_backward(&ws->run, &attention, dattended, dq, dk, dv);
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
    segvol_linear_forward(ws, &token_to_image->k_proj, tokens, ws->with_pe_k, k);
    segvol_linear_forward(ws, &token_to_image->v_proj, tokens, ws->keys, v);
    if (image_query != NULL) segvol_linear_forward(ws, image_query, tokens, ws->with_pe_k, q);
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
    const segvol_layer_tape *t = ws->tape != NULL ? &ws->tape->layers[index] : &no_layer;
    const nn_run *run = &ws->run;
    size_t dim = m->config.dim, tokens = m->tokens;
    real *queries = ws->queries, *keys = ws->keys, *out = ws->token_out;
    keep(t->queries, queries, n * dim), keep(t->keys, keys, tokens * dim);

    const real *positioned = queries; /* the first layer's self-attention knows no positions … */
    if (index > 0) {
        nn_add(run, n * dim, queries, ws->query_pe, ws->with_pe_q);
        positioned = ws->with_pe_q;
    }
    segvol_linear_forward(ws, &l->self_attn.q_proj, n, positioned, ws->q);
    segvol_linear_forward(ws, &l->self_attn.k_proj, n, positioned, ws->k);
    segvol_linear_forward(ws, &l->self_attn.v_proj, n, queries, ws->v);
    attend(m, ws, &l->self_attn, n, ws->q, n, ws->k, ws->v, out, &t->self_attn);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.self_attn", index, n, dim, out);
    if (index == 0) { /* … and replaces the queries: no residual */
        keep(t->sum[0], out, n * dim);
        segvol_norm_forward(ws, &l->norm1, n, out, queries);
    } else {
        add_norm(ws, &l->norm1, n, out, queries, t->sum[0]);
    }
    keep(t->after[0], queries, n * dim);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.norm1", index, n, dim, queries);

    image_side side = {ws->image_k, ws->image_v, ws->image_q};
    if (image != NULL) side = projected(m, image);
    else project(m, ws, &l->token_to_image, &l->image_to_token.q_proj, ws->image_k, ws->image_v, ws->image_q);
    nn_add(run, n * dim, queries, ws->query_pe, ws->with_pe_q);
    segvol_linear_forward(ws, &l->token_to_image.q_proj, n, ws->with_pe_q, ws->q);
    attend(m, ws, &l->token_to_image, n, ws->q, tokens, side.k, side.v, out, &t->token_to_image);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.cross_attn_token_to_image", index, n, dim, out);
    add_norm(ws, &l->norm2, n, out, queries, t->sum[1]);
    keep(t->after[1], queries, n * dim);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.norm2", index, n, dim, queries);

    segvol_linear_forward(ws, &l->lin1, n, queries, ws->token_hidden);
    nn_relu_forward(run, n * m->config.decoder_mlp, ws->token_hidden, ws->token_hidden);
    keep(t->hidden, ws->token_hidden, n * m->config.decoder_mlp);
    segvol_linear_forward(ws, &l->lin2, n, ws->token_hidden, out);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.mlp", index, n, dim, out);
    add_norm(ws, &l->norm3, n, out, queries, t->sum[2]);
    keep(t->after[2], queries, n * dim);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.norm3", index, n, dim, queries);

    nn_add(run, n * dim, queries, ws->query_pe, ws->with_pe_q);
    segvol_linear_forward(ws, &l->image_to_token.k_proj, n, ws->with_pe_q, ws->k);
    segvol_linear_forward(ws, &l->image_to_token.v_proj, n, queries, ws->v);
    attend(m, ws, &l->image_to_token, tokens, side.q, n, ws->k, ws->v, out, &t->image_to_token);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.cross_attn_image_to_token", index, tokens, dim, out);
    add_norm(ws, &l->norm4, tokens, out, keys, t->keys_sum);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.queries", index, n, dim, queries);
    segvol_trace_rows(ws, "mask_decoder.transformer.layers.%d.keys", index, tokens, dim, keys);
}

/* dy (n, inner): of a projection of x + query_pe, x (n, dim) → dqueries and dquery_pe +=; ws->with_pe_q is scratch */
static void positioned_backward(const segvol_workspace *ws, const segvol_linear *l, size_t n, const real *x,
                                const real *dy) {
    segvol_tape *g = ws->tape;
    size_t count = n * l->weight.k;
    real *dpositioned = g->dtoken_hidden[0]; /* at least as large as (n, dim) */
    nn_add(&ws->run, count, x, ws->query_pe, ws->with_pe_q);
    memset(dpositioned, 0, count * sizeof(real));
    segvol_linear_backward(ws, l, n, ws->with_pe_q, dy, dpositioned);
    nn_add(&ws->run, count, g->dqueries, dpositioned, g->dqueries);
    nn_add(&ws->run, count, g->dquery_pe, dpositioned, g->dquery_pe);
}

/* t->dqueries (n, dim), of norm(sum) → dsum, of the sum, which dqueries becomes too */
static void token_norm_backward(const segvol_workspace *ws, const segvol_norm *norm, size_t n, const real *sum) {
    segvol_tape *g = ws->tape;
    memset(g->dsum, 0, n * norm->width * sizeof(real));
    segvol_norm_backward(ws, norm, n, sum, g->dqueries, g->dsum);
    memcpy(g->dqueries, g->dsum, n * norm->width * sizeof(real));
}

/* Of a token_to_image attention with its residual and its norm: keys (tokens, dim), x (n, dim) are what it was given. */
static void token_to_image_backward(const segvol_model *m, segvol_workspace *ws, const segvol_attention *a,
                                    const segvol_norm *norm, const segvol_attention_tape *t, const real *sum,
                                    const real *x, const real *keys) {
    segvol_tape *g = ws->tape;
    size_t n = g->n, tokens = m->tokens;
    token_norm_backward(ws, norm, n, sum);
    attend_backward(m, ws, a, n, tokens, t, g->dsum, g->dq, g->dimage_k, g->dimage_v);
    positioned_backward(ws, &a->q_proj, n, x, g->dq);
    nn_add(&ws->run, tokens * m->config.dim, keys, m->dense_pe, ws->with_pe_k);
    segvol_linear_backward(ws, &a->k_proj, tokens, ws->with_pe_k, g->dimage_k, g->dkeys);
    segvol_linear_backward(ws, &a->v_proj, tokens, keys, g->dimage_v, g->dkeys);
}

static void self_attention_backward(const segvol_model *m, segvol_workspace *ws, int index) {
    const segvol_two_way *l = &m->layers[index];
    segvol_tape *g = ws->tape;
    const segvol_layer_tape *t = &g->layers[index];
    size_t n = g->n;
    token_norm_backward(ws, &l->norm1, n, t->sum[0]);
    attend_backward(m, ws, &l->self_attn, n, n, &t->self_attn, g->dsum, g->dq, g->dk, g->dv);
    if (index > 0) {
        positioned_backward(ws, &l->self_attn.q_proj, n, t->queries, g->dq);
        positioned_backward(ws, &l->self_attn.k_proj, n, t->queries, g->dk);
    } else { /* without positions, without a residual */
        memset(g->dqueries, 0, n * m->config.dim * sizeof(real));
        segvol_linear_backward(ws, &l->self_attn.q_proj, n, t->queries, g->dq, g->dqueries);
        segvol_linear_backward(ws, &l->self_attn.k_proj, n, t->queries, g->dk, g->dqueries);
    }
    segvol_linear_backward(ws, &l->self_attn.v_proj, n, t->queries, g->dv, g->dqueries);
}

void segvol_two_way_layer_backward(const segvol_model *m, segvol_workspace *ws, int index) {
    const segvol_two_way *l = &m->layers[index];
    segvol_tape *g = ws->tape;
    const segvol_layer_tape *t = &g->layers[index];
    size_t n = g->n, dim = m->config.dim, tokens = m->tokens, mlp = m->config.decoder_mlp;
    /* keys = norm4(keys + image_to_token(keys + key_pe, queries + query_pe, queries)) */
    memset(g->dkeys_sum, 0, tokens * dim * sizeof(real));
    segvol_norm_backward(ws, &l->norm4, tokens, t->keys_sum, g->dkeys, g->dkeys_sum);
    memcpy(g->dkeys, g->dkeys_sum, tokens * dim * sizeof(real));
    attend_backward(m, ws, &l->image_to_token, tokens, n, &t->image_to_token, g->dkeys_sum, g->dimage_q, g->dk, g->dv);
    nn_add(&ws->run, tokens * dim, t->keys, m->dense_pe, ws->with_pe_k);
    segvol_linear_backward(ws, &l->image_to_token.q_proj, tokens, ws->with_pe_k, g->dimage_q, g->dkeys);
    positioned_backward(ws, &l->image_to_token.k_proj, n, t->after[2], g->dk);
    segvol_linear_backward(ws, &l->image_to_token.v_proj, n, t->after[2], g->dv, g->dqueries);
    /* queries = norm3(queries + lin2(relu(lin1(queries)))) */
    token_norm_backward(ws, &l->norm3, n, t->sum[2]);
    memset(g->dtoken_hidden[0], 0, n * mlp * sizeof(real)), memset(g->dtoken_hidden[1], 0, n * mlp * sizeof(real));
    segvol_linear_backward(ws, &l->lin2, n, t->hidden, g->dsum, g->dtoken_hidden[0]);
    nn_relu_backward(&ws->run, n * mlp, t->hidden, g->dtoken_hidden[0], g->dtoken_hidden[1]);
    segvol_linear_backward(ws, &l->lin1, n, t->after[1], g->dtoken_hidden[1], g->dqueries);
    /* queries = norm2(queries + token_to_image(queries + query_pe, keys + key_pe, keys)) */
    token_to_image_backward(m, ws, &l->token_to_image, &l->norm2, &t->token_to_image, t->sum[1], t->after[0], t->keys);
    self_attention_backward(m, ws, index);
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
    segvol_linear_forward(ws, &m->final_attention.q_proj, n, ws->with_pe_q, ws->q);
    segvol_tape *t = ws->tape;
    if (t != NULL) keep(t->final_queries, ws->queries, n * dim), keep(t->final_keys, ws->keys, tokens * dim);
    attend(m, ws, &m->final_attention, n, ws->q, tokens, ws->image_k, ws->image_v, ws->token_out,
           t != NULL ? &t->final : &no_layer.self_attn);
    segvol_trace_rows(ws, "mask_decoder.transformer.final_attn_token_to_image", 0, n, dim, ws->token_out);
    add_norm(ws, &m->norm_final, n, ws->token_out, ws->queries, t != NULL ? t->final_sum : NULL);
    if (t != NULL) t->n = n, keep(t->hs, ws->queries, n * dim);
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
    if (ws->tape != NULL) keep(ws->tape->up1_raw, ws->up1, cells * up1);
    nn_layernorm_forward(run, 1, m->up_norm.width, ws->up1, m->up_norm.weight, m->up_norm.bias, segvol_epsilon,
                         ws->up1);
    if (ws->tape != NULL) keep(ws->tape->up1_normed, ws->up1, cells * up1);
    segvol_trace_volume(ws, "mask_decoder.output_upscaling.1", up1, doubled, ws->up1);
    nn_gelu_forward(run, cells * up1, ws->up1, ws->up1);
    if (ws->tape != NULL) nn_conv_transpose_forward(run, doubled, ws->up1, 1, cells, &m->up2, ws->tape->up2);
    if (ws->trace != NULL) {
        nn_conv_transpose_forward(run, doubled, ws->up1, 1, cells, &m->up2, ws->up2);
        segvol_trace_volume(ws, "mask_decoder.output_upscaling.3", up2, m->low_res, ws->up2);
        nn_gelu_forward(run, m->low_voxels * up2, ws->up2, ws->up2);
        segvol_trace_volume(ws, "upscaled_embedding", up2, m->low_res, ws->up2);
    }
    nn_conv_transpose_gelu_product(run, doubled, ws->up1, 1, cells, &m->up2, masks, ws->hyper, ws->masks);
}

/* dmask (low_res), of mask 0 → t->dhyper (up2), t->dkeys (tokens, dim), which it sets */
static void upscale_backward(const segvol_model *m, segvol_workspace *ws, const real *dmask) {
    size_t doubled[3] = {2 * m->grid[0], 2 * m->grid[1], 2 * m->grid[2]}, cells = 8 * m->tokens;
    size_t up1 = m->config.up1, up2 = m->config.up2, dim = m->config.dim;
    const nn_run *run = &ws->run;
    segvol_tape *g = ws->tape;
    memset(g->dhyper, 0, up2 * sizeof(real)), memset(g->dup2, 0, up2 * m->low_voxels * sizeof(real));
    nn_gelu_product_backward(run, up2, m->low_voxels, ws->hyper, g->up2, dmask, g->dhyper, g->dup2);
    memset(g->dup1[0], 0, cells * up1 * sizeof(real)), memset(g->dup1[1], 0, cells * up1 * sizeof(real));
    nn_gelu_forward(run, cells * up1, g->up1_normed, ws->up1);
    nn_conv_transpose_backward(run, doubled, up1, up2, ws->up1, 1, cells, m->up2_plain, g->dup2, g->dup1[0],
                               segvol_gradient(g, m->up2_plain), segvol_gradient(g, m->up2.bias));
    nn_gelu_backward(run, cells * up1, g->up1_normed, g->dup1[0], g->dup1[1]);
    memset(g->dup1[0], 0, cells * up1 * sizeof(real));
    segvol_norm_backward(ws, &m->up_norm, 1, g->up1_raw, g->dup1[1], g->dup1[0]);
    memset(g->dkeys, 0, m->tokens * dim * sizeof(real));
    nn_conv_transpose_backward(run, m->grid, dim, up1, g->final_keys, dim, 1, m->up1_plain, g->dup1[0], g->dkeys,
                               segvol_gradient(g, m->up1_plain), segvol_gradient(g, m->up1.bias));
}

/* y = the MLP of x (first layer's k), one row; tape (mlp->count): what each layer is given is kept there, or NULL */
static void mlp_forward(const segvol_workspace *ws, const segvol_mlp *mlp, const real *x, real *y, real *const *tape) {
    for (size_t i = 0; i < mlp->count; i++) {
        if (tape != NULL) keep(tape[i], x, mlp->layers[i].weight.k);
        bool last = i + 1 == mlp->count;
        real *to = last ? y : i % 2 == 0 ? ws->mlp_a : ws->mlp_b;
        segvol_linear_forward(ws, &mlp->layers[i], 1, x, to);
        if (!last) nn_relu_forward(&ws->run, mlp->layers[i].weight.n, to, to);
        x = to;
    }
}

/* dy, of y, which is used up → dx += ; t->dmlp is scratch, its first part may hold dy */
static void mlp_backward(const segvol_workspace *ws, const segvol_mlp *mlp, real *const *tape, const real *dy,
                         real *dx) {
    for (size_t i = mlp->count; i-- > 0;) {
        const segvol_linear *l = &mlp->layers[i];
        if (i == 0) {
            segvol_linear_backward(ws, l, 1, tape[0], dy, dx);
            return;
        }
        real *dinput = ws->tape->dmlp[0], *drelu = ws->tape->dmlp[1 + i % 2];
        memset(dinput, 0, l->weight.k * sizeof(real)), memset(drelu, 0, l->weight.k * sizeof(real));
        segvol_linear_backward(ws, l, 1, tape[i], dy, dinput);
        nn_relu_backward(&ws->run, l->weight.k, tape[i], dinput, drelu);
        dy = drelu;
    }
}

void segvol_decode_backward(const segvol_model *m, segvol_workspace *ws, const real *dmask, real *dimage) {
    segvol_tape *g = ws->tape;
    size_t dim = m->config.dim, n = g->n, masks = m->config.mask_tokens;
    upscale_backward(m, ws, dmask);
    memset(g->dqueries, 0, n * dim * sizeof(real)), memset(g->dquery_pe, 0, n * dim * sizeof(real));
    mlp_backward(ws, &m->hyper[0], g->mlp, g->dhyper, g->dqueries + dim);
    token_to_image_backward(m, ws, &m->final_attention, &m->norm_final, &g->final, g->final_sum, g->final_queries,
                            g->final_keys);
    for (int i = (int)m->config.decoder_depth; i-- > 0;) segvol_two_way_layer_backward(m, ws, i);
    /* the tokens came in as queries and as query_pe */
    nn_add(&ws->run, n * dim, g->dqueries, g->dquery_pe, g->dqueries);
    real *diou = segvol_gradient(g, m->iou_token), *dmasks = segvol_gradient(g, m->mask_tokens);
    nn_add(&ws->run, dim, diou, g->dqueries, diou);
    nn_add(&ws->run, masks * dim, dmasks, g->dqueries + dim, dmasks);
    segvol_prompts_backward(m, ws, n - 1 - masks, g->dqueries + (1 + masks) * dim);
    nn_add_rows(&ws->run, m->tokens, dim, g->dkeys, segvol_gradient(g, m->no_mask));
    nn_add(&ws->run, m->tokens * dim, dimage, g->dkeys, dimage);
}

void segvol_decode(const segvol_model *m, segvol_workspace *ws, const real *image, const segvol_prompts *prompts) {
    size_t dim = m->config.dim, masks = m->config.mask_tokens, up2 = m->config.up2;
    transform(m, ws, image, segvol_encode_prompts(m, ws, prompts));
    for (size_t i = 0; i < masks; i++)
        mlp_forward(ws, &m->hyper[i], ws->queries + (1 + i) * dim, ws->hyper + i * up2,
                    i == 0 && ws->tape != NULL ? ws->tape->mlp : NULL);
    segvol_trace_rows(ws, "hyper_in", 0, masks, up2, ws->hyper);
    upscale(m, ws);
    segvol_trace_volume(ws, "masks_all4", masks, m->low_res, ws->masks);
    segvol_trace_volume(ws, "low_res_masks", 1, m->low_res, ws->masks);

    mlp_forward(ws, &m->iou_head, ws->queries, ws->iou, NULL);
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
