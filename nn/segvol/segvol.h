/* nn/segvol: the networks. Image encoder (ViT), prompt encoder, two-way mask decoder, corrector (GRU). A model is bound once to a weights
   file and is immutable from then on; whoever runs it brings a workspace. Tensors are named by their checkpoint path.
   Axes are (z, y, x). Sizes come from the weights file alone. */
#ifndef SEGFM_SEGVOL_H
#define SEGFM_SEGVOL_H

#include "../../weights/weights.h"
#include "../nn.h"

/* ---- the model (model.c) ------------------------------------------------------------------------------------- */

typedef struct segvol_linear {
    nn_panels weight;  /* PyTorch's (out, in), packed: k = in, n = out */
    const real *bias;  /* (out) or NULL */
    const real *plain; /* the weight as it is, where parameters are flat; else NULL */
} segvol_linear;

static const real segvol_epsilon = REAL_C(1e-5); /* of every layer norm */

typedef struct segvol_norm {
    const real *weight, *bias;
    size_t width;
} segvol_norm;

/* image_encoder.blocks.N */
typedef struct segvol_block {
    segvol_norm norm1, norm2;
    segvol_linear qkv, out_proj, linear1, linear2;
} segvol_block;

/* An attention with separate projections, as the decoder uses it. */
typedef struct segvol_attention {
    segvol_linear q_proj, k_proj, v_proj, out_proj;
} segvol_attention;

/* mask_decoder.transformer.layers.N */
typedef struct segvol_two_way {
    segvol_attention self_attn, token_to_image, image_to_token;
    segvol_norm norm1, norm2, norm3, norm4;
    segvol_linear lin1, lin2;
} segvol_two_way;

enum { SEGVOL_MAX_MLP = 4, SEGVOL_MAX_MASKS = 8 };

/* Linear layers with ReLU between them. */
typedef struct segvol_mlp {
    segvol_linear layers[SEGVOL_MAX_MLP];
    size_t count;
} segvol_mlp;

/* gru_blocks.N */
typedef struct segvol_gru {
    nn_gru gru;
    segvol_linear fc_prob;  /* (hidden + 6·topk) → 2·topk */
    segvol_linear fc_coord; /* (hidden + 6·topk) → 6·topk; weight.n = 0 when the weights have none */
    nn_gru_weights plain;   /* as segvol_linear's */
} segvol_gru;

typedef struct segvol_model {
    weights_config config;
    size_t grid[3];    /* tokens per axis: spatial / patch */
    size_t tokens;     /* of the image: their product */
    size_t low_res[3]; /* mask before upsampling: 4 · grid */
    size_t low_voxels; /* their product */
    size_t window_voxels;

    segvol_linear patch_embedding;   /* image_encoder.patch_embedding.patch_embeddings.1 */
    const real *position_embeddings; /* (tokens, dim) */
    segvol_block *blocks;            /* depth */
    segvol_norm norm;                /* image_encoder.norm */

    const real *gaussian;            /* (3, dim/2) */
    const real *point_embeddings[4]; /* (dim): background, foreground, first corner, second corner */
    const real *not_a_point;         /* (dim) */
    const real *no_mask;             /* (dim) */
    real *dense_pe;                  /* (tokens, dim), computed at binding */

    const real *iou_token, *mask_tokens; /* (1, dim), (mask_tokens, dim) */
    segvol_two_way *layers;              /* decoder_depth */
    segvol_attention final_attention;
    segvol_norm norm_final;
    nn_conv_transpose up1, up2;         /* output_upscaling.0 and .3 */
    const real *up1_plain, *up2_plain;  /* as segvol_linear's */
    segvol_norm up_norm;                /* output_upscaling.1, over the whole block */
    segvol_mlp hyper[SEGVOL_MAX_MASKS]; /* one per mask token */
    segvol_mlp iou_head;

    segvol_gru *gru;  /* gru_count */
    size_t gru_count; /* 0: the weights have no corrector, or it was not asked for */
} segvol_model;

/* Called when n bytes of the file have been read for the last time. */
typedef void segvol_done(void *user, const void *bytes, size_t n);
/* Binds the model to a file: copies every tensor the forward pass needs into the arena, linear weights packed, float16
   ones as they are. corrector: with the GRU blocks, which a program that never clicks need not pay for (at full size they
   are half of the weights). With a counting arena (base NULL) only the need is computed. done (or NULL) is told by the calling
   thread of each tensor that has been copied. SEGFM_BAD_INPUT names a tensor with a value that is not finite; SEGFM_NO_MEMORY when the arena is
   too small. */
segfm_status segvol_model_bind(segvol_model *model, const weights_file *file, bool corrector, nn_arena *arena,
                               int threads, segvol_done *done, void *done_user, segfm_error *error);

/* A model over flat parameters, which lie one after the other in file order: a model that learns. Vectors are read where they
   lie, matrices from packed copies. */
typedef struct segvol_flat {
    segvol_model model;
    struct segvol_task *tasks; /* the copies that are made anew */
    size_t task_count, pieces;
    real *coordinates;
} segvol_flat;
/* Everything of the configuration, with the corrector, over flat, which may be NULL while counting; offsets: with the
   corrector's second head. Copies nothing yet. */
segfm_status segvol_model_bind_flat(segvol_flat *f, const weights_config *config, bool offsets, const real *flat,
                                    nn_arena *arena, segfm_error *error);
/* After parameters have changed. */
void segvol_model_refresh(segvol_flat *f, int threads);

/* SEGFM_NO_MEMORY: `what` does not fit into the arena, or into what can be addressed. */
segfm_status segvol_does_not_fit(const char *what, const nn_arena *arena, segfm_error *error);

/* ---- running it ---------------------------------------------------------------------------------------------- */

/* Called with every intermediate tensor as it is made. */
typedef void segvol_trace(void *user, const char *name, int ndim, const size_t *shape, const real *data);

typedef struct segvol_tape segvol_tape;

typedef struct segvol_workspace {
    nn_run run;
    segvol_trace *trace; /* or NULL; set it only where planned so */
    void *trace_user;
    segvol_tape *tape; /* or NULL: where the forward pass keeps what the backward pass needs */
    size_t max_sparse; /* prompt tokens there is room for */
    /* encoder */
    real *patches; /* (tokens, patch voxels) */
    real *normed;  /* (tokens, dim) */
    real *qkv;     /* (tokens, 3·dim) */
    real *hidden;  /* (tokens, mlp) */
    real *mixed;   /* (tokens, dim): what a residual adds */
    /* decoder; n = 1 + mask_tokens + max_sparse rows of tokens */
    real *sparse;                      /* (max_sparse, dim) */
    real *queries, *query_pe;          /* (n, dim) */
    real *keys;                        /* (tokens, dim) */
    real *with_pe_q, *with_pe_k;       /* operand plus its position encoding: (n, dim), (tokens, dim) */
    real *q, *k, *v;                   /* projections of tokens: (n, max(dim, decoder_cross_dim)) */
    real *image_k, *image_v, *image_q; /* projections of the image: (tokens, decoder_cross_dim) */
    real *attended;                    /* (n, max(dim, decoder_cross_dim)) or (tokens, decoder_cross_dim) */
    real *token_out;                   /* (max(n, tokens), dim) */
    real *token_hidden;                /* (n, decoder_mlp) */
    real *mlp_a, *mlp_b;               /* (max width of the heads' MLPs): the two ends of a layer */
    real *up1;                         /* (up1, 8 · tokens) */
    real *up2;                         /* (up2, 64 · tokens), or NULL: not traced */
    real *hyper;                       /* (mask_tokens, up2) */
    real *masks;                       /* (mask_tokens, low_res): all masks' logits */
    real *iou;                         /* (mask_tokens) */
} segvol_workspace;

/* Lays the workspace out in the arena (see segvol_model_bind on counting). max_sparse bounds the prompt tokens:
   points + 1 (padding) or points + 2 (box). traced: with room for what only a trace looks at. */
segfm_status segvol_workspace_plan(segvol_workspace *ws, const segvol_model *model, size_t max_sparse, int threads,
                                   bool traced, nn_arena *arena, segfm_error *error);

/* Reals of scratch that its operators need. */
size_t segvol_workspace_scratch(const segvol_model *model, size_t max_sparse, int threads);

/* ---- layers (layer.c) ------------------------------------------------------------------------------------------ */

/* y (rows, out) = x (rows, in) · Wᵀ + b */
void segvol_linear_forward(const segvol_workspace *ws, const segvol_linear *l, size_t rows, const real *x, real *y);
/* dy (rows, out) → dx (rows, in) or NULL += , gradients of ws->tape += */
void segvol_linear_backward(const segvol_workspace *ws, const segvol_linear *l, size_t rows, const real *x,
                            const real *dy, real *dx);
/* y (rows, width) = norm(x); y may be x */
void segvol_norm_forward(const segvol_workspace *ws, const segvol_norm *n, size_t rows, const real *x, real *y);
/* dy (rows, width) → dx += , gradients of ws->tape += */
void segvol_norm_backward(const segvol_workspace *ws, const segvol_norm *n, size_t rows, const real *x, const real *dy,
                          real *dx);

/* ---- image encoder (encoder.c) ------------------------------------------------------------------------------- */

/* Reals of all that the decoder needs of a window: the embedding (tokens, dim), and what its first layer makes of that
   alone, before it has seen a prompt: k_proj and v_proj of cross_attn_token_to_image, q_proj of cross_attn_image_to_token,
   each (tokens, decoder_cross_dim). */
size_t segvol_image_count(const segvol_model *model);
/* window (spatial) → image (segvol_image_count), the embedding first, token-major. */
void segvol_encode(const segvol_model *model, segvol_workspace *ws, const real *window, real *image);
/* Block `index` of it, in place: x (tokens, dim) += out_proj(attention(norm1(x))); x += linear2(gelu(linear1(norm2(x)))). */
void segvol_block_forward(const segvol_model *model, segvol_workspace *ws, int index, real *x);

/* ---- prompts (prompt.c) -------------------------------------------------------------------------------------- */

/* A click in voxel coordinates of the window. */
typedef struct segvol_point {
    real z, y, x;
    int label; /* 1 foreground, 0 background, −1 padding (coordinates do not matter) */
} segvol_point;

typedef struct segvol_prompts {
    const segvol_point *points;
    size_t point_count;
    const real *box; /* z0,y0,x0,z1,y1,x1 or NULL */
} segvol_prompts;

/* How many sparse tokens the prompts make. */
size_t segvol_sparse_count(const segvol_prompts *prompts);
/* Sparse embeddings → ws->sparse (count, dim); returns count, which must be ≤ ws->max_sparse. */
size_t segvol_encode_prompts(const segvol_model *model, segvol_workspace *ws, const segvol_prompts *prompts);
/* Dense positional encoding of the token grid → out (tokens, dim). coordinates (tokens, 3) is scratch. */
void segvol_dense_pe(const segvol_model *model, const nn_run *run, real *coordinates, real *out);

/* ---- mask decoder (decoder.c) -------------------------------------------------------------------------------- */

/* What segvol_encode adds to the embedding with which `image` begins. */
void segvol_project(const segvol_model *model, segvol_workspace *ws, real *image);
/* image with prompts → ws->masks (mask_tokens, low_res), ws->iou (mask_tokens). Mask 0 is the
   single-mask output. */
void segvol_decode(const segvol_model *model, segvol_workspace *ws, const real *image, const segvol_prompts *prompts);
/* Layer `index` of its transformer on ws->queries (n, dim), ws->keys (tokens, dim), with ws->query_pe (n, dim), in place.
   image: for the first layer, what segvol_project made of these keys; NULL: it is made here. */
void segvol_two_way_layer_forward(const segvol_model *model, segvol_workspace *ws, int index, size_t n,
                                  const real *image);
/* Mask `index` of ws upsampled to the window, trilinear → logits (spatial). */
void segvol_upsample(const segvol_model *model, segvol_workspace *ws, size_t index, real *logits);

/* ---- corrector (corrector.c) --------------------------------------------------------------------------------- */

/* The memory of a sequence of corrections. */
typedef struct segvol_corrector {
    nn_run run;
    size_t max_steps;
    real *rows;   /* (max_steps, 2, 8·topk): each step's state, written by the caller */
    real *hidden; /* (max_steps, gru_hidden): after each step */
    real *states; /* (rows of one call, gru_hidden): scratch */
    real *joined; /* (gru_hidden + 6·topk): scratch */
} segvol_corrector;

/* Lays the memory out in the arena (see segvol_model_bind on counting). The model has gru_count > 0. */
segfm_status segvol_corrector_plan(segvol_corrector *c, const segvol_model *model, size_t max_steps, int threads,
                                   nn_arena *arena, segfm_error *error);
/* Step `step` (from 0) of the correction; c->rows[0 … step] stand there. coordinates (2·topk, 3) → delta (2·topk): the
   first head's outputs, before any sigmoid; offset (2·topk, 3): the second head's, zero when the weights have none. Uses
   block min(step, gru_count − 1). c->hidden[step] depends on the rows up to `step` alone: where the step before used the
   same block it goes on from c->hidden[step − 1], else the block runs over all rows from zero. So to undo steps is to call a
   lower one again. */
void segvol_corrector_step(const segvol_model *model, segvol_corrector *c, size_t step, const real *coordinates,
                           real *delta, real *offset);

/* ---- backward (each network's beside its forward; tape.c) ---------------------------------------------------- */

/* What of a block's forward pass is kept. */
typedef struct segvol_block_tape {
    real *x;        /* (tokens, dim): what came in */
    real *qkv;      /* (tokens, 3·dim) */
    real *attended; /* (tokens, dim): before out_proj */
    real *middle;   /* (tokens, dim): x after the attention */
    real *hidden;   /* (tokens, mlp): before the GELU */
} segvol_block_tape;

/* The same of an attention of the decoder, inner being its width: q, attended (queries, inner), k, v (keys, inner). */
typedef struct segvol_attention_tape {
    real *q, *k, *v, *attended;
} segvol_attention_tape;

typedef struct segvol_layer_tape {
    real *queries, *keys; /* (n, dim), (tokens, dim): what came in */
    segvol_attention_tape self_attn, token_to_image, image_to_token;
    real *sum[3];   /* (n, dim): before norm1, norm2, norm3 … */
    real *after[3]; /* … and after them */
    real *keys_sum; /* (tokens, dim): before norm4 */
    real *hidden;   /* (n, decoder_mlp): after the ReLU */
} segvol_layer_tape;

/* A forward pass as it is kept: an encoding, and the last decoding of it. And the gradients. */
struct segvol_tape {
    const real *parameters;
    real *gradients; /* as the parameters lie */
    bool recompute;  /* of the blocks only x is kept: the rest is the same memory for all */
    segvol_block_tape *blocks;
    real *encoded; /* (tokens, dim): before the last norm */
    /* decoding */
    size_t n;      /* rows of tokens */
    int8_t *kinds; /* (max_sparse): of each prompt token the point_embeddings in it; −1: not_a_point */
    segvol_layer_tape *layers;
    segvol_attention_tape final;
    real *final_queries, *final_keys, *final_sum, *hs; /* around the final attention; hs: after its norm */
    real *mlp[SEGVOL_MAX_MLP];                         /* what each layer of mask 0's MLP is given */
    real *up1_raw, *up1_normed;                        /* (up1, 8·tokens): before and after the norm */
    real *up2;                                         /* (up2, 64·tokens): before the last GELU */
    /* gradients on their way */
    real *dx, *dnormed, *dqkv, *dhidden, *dactivated;                     /* of a block */
    real *dqueries, *dquery_pe, *dsum, *dq, *dk, *dv, *dtoken_hidden[2];  /* of tokens */
    real *dkeys, *dkeys_sum, *dimage_q, *dimage_k, *dimage_v, *dattended; /* of the image */
    real *dhyper, *dmlp[3], *dup1[2], *dup2;                              /* of the upscaling */
};

/* Lays the tape out in the arena (see segvol_model_bind on counting) and gives ws, which segvol_workspace_plan has made,
   room for the operators of the backward pass. */
segfm_status segvol_tape_plan(segvol_tape *t, segvol_workspace *ws, const segvol_model *model, bool recompute,
                              nn_arena *arena, segfm_error *error);
/* Where the gradients of a parameter tensor are. */
real *segvol_gradient(const segvol_tape *t, const real *parameter);
/* After segvol_encode with a tape: dimage (tokens, dim), the embedding's gradient, which is used up → gradients +=.
   ws->patches must be as it was. */
void segvol_encode_backward(const segvol_model *model, segvol_workspace *ws, real *dimage);
/* Block `index` of it: t->dx (tokens, dim) in place. */
void segvol_block_backward(const segvol_model *model, segvol_workspace *ws, int index);
/* After segvol_decode with a tape: dmask (low_res), of mask 0 → dimage (tokens, dim) += , gradients +=. */
void segvol_decode_backward(const segvol_model *model, segvol_workspace *ws, const real *dmask, real *dimage);
/* Layer `index`: t->dqueries (n, dim), t->dkeys (tokens, dim) in place, t->dquery_pe +=. */
void segvol_two_way_layer_backward(const segvol_model *model, segvol_workspace *ws, int index);
/* Of the prompt tokens that were encoded last: dsparse (their count, dim) → gradients +=. */
void segvol_prompts_backward(const segvol_model *model, segvol_workspace *ws, size_t count, const real *dsparse);

/* What the corrector's backward pass works with. */
typedef struct segvol_corrector_tape {
    real *states, *dstates; /* (2·max_steps, gru_hidden) */
    real *djoined;          /* (gru_hidden + 6·topk) */
} segvol_corrector_tape;
/* As segvol_tape_plan; c: planned with segvol_corrector_plan. */
segfm_status segvol_corrector_tape_plan(segvol_corrector_tape *g, segvol_corrector *c, const segvol_model *model,
                                        nn_arena *arena, segfm_error *error);
/* ddelta (2·topk), of segvol_corrector_step's delta → drows (step + 1, 2, 8·topk) += , of the rows up to this step; t's gradients
   +=. Nothing is asked of the second head: where its results are used they are rounded, which has no derivative. */
void segvol_corrector_backward(const segvol_model *model, segvol_corrector *c, const segvol_tape *t,
                               segvol_corrector_tape *g, size_t step, const real *coordinates, const real *ddelta,
                               real *drows);

/* ---- trace (model.c) ----------------------------------------------------------------------------------------- */

/* Hands (rows, columns) to the trace callback as (1, rows, columns); `name` may hold one %d, filled with `index`. */
void segvol_trace_rows(const segvol_workspace *ws, const char *name, int index, size_t rows, size_t columns,
                       const real *data);
/* The same for (channels, z, y, x) as (1, channels, z, y, x). */
void segvol_trace_volume(const segvol_workspace *ws, const char *name, size_t channels, const size_t grid[3],
                         const real *data);

#endif
