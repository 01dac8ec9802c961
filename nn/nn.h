/* nn: operators. Each has one numeric meaning, kept to the bit by every build (ARCHITECTURE.md, "Same bits"):
     - a product and a sum are two roundings; a dot product over k is summed from zero in chunks of NN_CHUNK ascending k
       (shorter ones, or in double, where it says so), and the chunk sums are added in order;
     - sums over a long axis (layer norm) run in NN_LANES fixed lanes over blocks of NN_SUM_BLOCK, folded by a fixed tree;
     - exp, log, erf, tanh, sin, cos are our own (math.h here) in the float build, libm's in the double build.
   Threads only ever share out whole output elements. Tensors are row-major; shapes are written (rows, columns). */
#ifndef SEGFM_NN_H
#define SEGFM_NN_H

#include "../base/base.h"

enum {
    NN_LANES = 16,  /* columns of a packed panel; lanes of a sum */
    NN_CHUNK = 256, /* terms of a dot product summed from zero before they are added to the element */
/* The same for sums over attention weights and for products with them: all of one sign, they grow faster and lose more.
   Some 13 pairs of lengths were tried on the golden files in the float build; with most of them one to three iou_pred of
   six (a single number each) missed the bound of twice PyTorch's error, with two of them another tensor did. (8, 16) missed
   none. In the double build short chunks once were 2 ulps off PyTorch's own sums, so it keeps the long ones. */
#ifdef SEGFM_REAL_DOUBLE
    NN_EXP_CHUNK = NN_CHUNK,
    NN_WEIGHTS_CHUNK = NN_CHUNK,
#else
    NN_EXP_CHUNK = 16,
    NN_WEIGHTS_CHUNK = 8,
#endif
    NN_ROWS_CHUNK = 32,  /* of a sum over rows, column by column */
    NN_SUM_BLOCK = 4096, /* terms of a long sum that the lanes take together */
    NN_SMALL = 16384,    /* elements that one thread does alone */
    NN_MAX_ROWS = 16,    /* of a tile of the product, on any machine */
    NN_MAX_THREADS = 1024,
    NN_ALIGN = 64 /* bytes; of every allocation */
};

/* ---- memory (arena.c) ---------------------------------------------------------------------------------------- */

/* A bump allocator over the caller's memory. With base = NULL it only counts: running the same plan once without and
   once with memory publishes the need and then takes it. */
typedef struct nn_arena {
    unsigned char *base;
    size_t capacity, used;
    bool failed; /* a request did not fit or overflowed; everything after it returns NULL */
} nn_arena;

/* a·b and a+b, or SIZE_MAX where they do not fit, of which no arena has as many: for the sizes that are taken. */
size_t nn_times(size_t a, size_t b);
size_t nn_plus(size_t a, size_t b);
/* count elements of `size` bytes, NN_ALIGN-aligned, not cleared; NULL when counting or failed. */
void *nn_arena_take(nn_arena *a, size_t count, size_t size);
real *nn_arena_reals(nn_arena *a, size_t count);
/* Before memory that was an arena's goes back to a caller who may use it for something else. */
void nn_arena_leave(void *memory, size_t bytes);

/* The product's inner loop, for tiles of so many rows, at most NN_MAX_ROWS: c (rows,16), rows c_row apart, (+)= a panel
   (kc, rows) · b panel (kc, 16), rows b_row apart, in chunks; `first` starts the element, bias (16) or NULL is added last. */
typedef struct nn_tile {
    size_t rows;
    void (*product)(size_t chunk, size_t kc, const real *a, const real *b, size_t b_row, real *c, size_t c_row,
                    bool first, const real *bias);
} nn_tile;

/* The inner loops for one instruction set (kernels.c). */
typedef struct nn_kernels {
    const char *name;
    nn_tile tile, low_tile; /* low: for a left operand of at most its rows */
    /* n ≤ mr rows of `count` reals, `row` apart → to (count, mr); what stands in columns n to mr is not defined */
    void (*transpose)(size_t mr, const real *from, size_t row, size_t n, size_t count, real *to);
    /* s (keys,16): scores → exp(s·scale − max down the column); sum (16): the columns' sums, in chunks */
    void (*exponentials)(size_t keys, real scale, real *s, real *sum);
    /* ds (keys,16): the scores' gradients before the softmax → e · (ds − mean), mean (16) */
    void (*score_gradients)(size_t keys, const real *e, const real *mean, real *ds);
    void (*gelu)(size_t n, const real *x, real *y);
    void (*gelu_backward)(size_t n, const real *x, const real *dy, real *dx);
    /* lanes (16): sums of gelu(u)·dy; du += a·dy·gelu'(u) */
    void (*gelu_product_backward)(size_t n, real a, const real *u, const real *dy, real *lanes, real *du);
    void (*sigmoid)(size_t n, const real *x, real *y);  /* y may be x */
    void (*softplus)(size_t n, const real *x, real *y); /* log(1 + e^−|x|) */
    /* lanes (16): sums of x (n), of (x − mean)², each lane in ascending order */
    void (*sums)(size_t n, const real *x, real *lanes);
    void (*squares)(size_t n, const real *x, real mean, real *lanes);
    /* y (n) = (x − mean) · scale · w + b; y may be x */
    void (*normalise)(size_t n, const real *x, real mean, real scale, const real *w, const real *b, real *y);
    /* With h = (x − mean)·scale: the lanes' sums of dy·w and of dy·w·h; dx += scale·(dy·w − mean_g − h·mean_gh) */
    void (*normalise_sums)(size_t n, const real *x, real mean, real scale, const real *w, const real *dy, real *g,
                           real *gh);
    void (*normalise_backward)(size_t n, const real *x, real mean, real scale, const real *w, const real *dy,
                               real mean_g, real mean_gh, real *dx);
    /* sums (16) += x (k) · a panel (k, 16), term by term */
    void (*dots)(size_t k, const real *x, const real *panel, double *sums);
    void (*widen)(size_t n, const uint16_t *half, real *out); /* finite halves */
} nn_kernels;
const nn_kernels *nn_kernels_best(void);

/* Where an operator runs: its threads, its scratch memory and its inner loops. One caller at a time. */
typedef struct nn_run {
    int threads;
    real *scratch; /* at least as many reals as the largest nn_…_scratch of the operators called */
    const nn_kernels *kernels;
} nn_run;

/* This thread's number in its team. */
size_t nn_thread(void);
/* How many of `threads` a loop over `elements` is worth: waking others takes as long as some thousand of them. */
static inline int nn_team(int threads, size_t elements) { return elements < NN_SMALL ? 1 : threads; }
/* Threads to use when the caller asks for `wanted` (0: all the machine has), at most NN_MAX_THREADS; 1 without OpenMP. */
int nn_threads(int wanted);

/* ---- matrix product (gemm.c) --------------------------------------------------------------------------------- */

/* A right operand B (k, n), packed: data[panel][row of B][lane], panel = column / NN_LANES, missing columns zero. Or, with
   data NULL, in `half`: finite IEEE halves, which the product widens as it comes to them. */
typedef struct nn_panels {
    size_t n, k;
    const real *data;
    const uint16_t *half;
} nn_panels;

size_t nn_panels_count(size_t n, size_t k); /* elements of data or half */
/* b[row * stride_k + column * stride_n] → data. A PyTorch weight (out, in) is B with stride_n = in, stride_k = 1. */
void nn_panels_pack(const real *b, size_t n, size_t k, size_t stride_n, size_t stride_k, real *data, int threads);

/* Writes the elements k … k + count − 1 of one column to out, reals or halves; false when it refuses one of them. */
typedef bool nn_column_reader(void *user, size_t column, size_t k, size_t count, void *out);
/* Packs panel number `panel` of what the reader delivers, without a copy of the whole; data: all panels, reals or halves.
   False when the reader refused something. Different panels may be packed by different threads. */
bool nn_panels_fill(size_t n, size_t k, bool half, void *data, size_t panel, nn_column_reader *read, void *user);

size_t nn_matmul_scratch(int threads);
/* y (m,n), rows y_row apart = a (m,k) · B + bias (n) or NULL; element (i,j) of a is a[i * a_row + j * a_column]. */
void nn_matmul(const nn_run *run, size_t m, const real *a, size_t a_row, size_t a_column, const nn_panels *b,
               const real *bias, real *y, size_t y_row);
/* The same added to y, chunk by chunk: y (m,n) += a · B. */
void nn_matmul_add(const nn_run *run, size_t m, const real *a, size_t a_row, size_t a_column, const nn_panels *b,
                   real *y, size_t y_row);
/* The same bits by three plain loops: the oracle. chunk: NN_CHUNK. b (k,n) as nn_panels_pack takes it. */
void nn_matmul_naive(size_t chunk, size_t m, size_t n, size_t k, const real *a, size_t a_row, size_t a_column,
                     const real *b, size_t stride_n, size_t stride_k, const real *bias, real *y, size_t y_row);

/* y (rows,out) = x (rows,in) · wᵀ + b, w (out,in), all contiguous:
     dx (rows,in) += dy · w      dw (out,in) += dyᵀ · x      db (out) += Σ over rows of dy      dx, dw, db may be NULL */
size_t nn_linear_backward_scratch(size_t rows, size_t in, size_t out, int threads);
void nn_linear_backward(const nn_run *run, size_t rows, size_t in, size_t out, const real *x, const real *w,
                        const real *dy, real *dx, real *dw, real *db);

/* ---- attention (attention.c) --------------------------------------------------------------------------------- */

/* What one call works on: head h of row i of q starts at q[i * q_row + h * head_dim]; likewise k, v, out. */
typedef struct nn_attention {
    size_t queries, keys, heads, head_dim;
    const real *q, *k, *v;
    size_t q_row, k_row, v_row;
    real *out;
    size_t out_row;
    real scale; /* scores are (q·k)·scale; above 0 */
} nn_attention;

size_t nn_attention_scratch(size_t queries, size_t keys, size_t heads, size_t head_dim, int threads);
/* out = softmax over keys of (q·kᵀ·scale) · v. The softmax is exp(s − max s); its sum runs in chunks of NN_EXP_CHUNK,
   the product with v in chunks of NN_WEIGHTS_CHUNK; the division by the sum comes last. */
void nn_attention_forward(const nn_run *run, const nn_attention *at);
void nn_attention_naive(const nn_attention *at, real *scores); /* oracle, same bits; scores (keys) is scratch */

/* at as it was in the forward pass, whose result at->out holds; dout lies as out does, dq, dk, dv as q, k, v do and are
   added to. With p = softmax and o = out of a query:  dv += pᵀ·do    ds = p·(do·vᵀ − do·o)·scale    dq += ds·k    dk += dsᵀ·q.
   The scores are computed again, 16 queries at a time: no matrix of all of them exists. dk and dv are sums over chunks of
   16 queries, within groups of queries that depend on the shapes alone (attention.c), then over the groups. */
size_t nn_attention_backward_scratch(size_t queries, size_t keys, size_t heads, size_t head_dim, int threads);
void nn_attention_backward(const nn_run *run, const nn_attention *at, const real *dout, real *dq, real *dk, real *dv);

/* ---- elementwise and normalisation (elementwise.c, norm.c) --------------------------------------------------- */

void nn_gelu_forward(const nn_run *run, size_t n, const real *x, real *y); /* x·½·(1 + erf(x/√2)); y may be x */
void nn_relu_forward(const nn_run *run, size_t n, const real *x, real *y); /* y may be x */
void nn_add(const nn_run *run, size_t n, const real *a, const real *b, real *y); /* y = a + b; y may be either */
/* out[i] = 1/(1 + exp(−x[i])) */
void nn_sigmoid_forward(const nn_run *run, size_t n, const real *x, real *out);

/* dx += dy·(Φ(x) + x·φ(x)), Φ and φ the normal distribution and its density */
void nn_gelu_backward(const nn_run *run, size_t n, const real *x, const real *dy, real *dx);
/* dx += dy where y > 0; y is the forward's result */
void nn_relu_backward(const nn_run *run, size_t n, const real *y, const real *dy, real *dx);
/* dx += dy·y·(1 − y); y is the forward's result */
void nn_sigmoid_backward(const nn_run *run, size_t n, const real *y, const real *dy, real *dx);
/* y (columns) += sums over the rows of x (rows, columns), in chunks of NN_ROWS_CHUNK */
void nn_add_rows(const nn_run *run, size_t rows, size_t columns, const real *x, real *y);

size_t nn_layernorm_scratch(size_t width);
/* The sum of x (n) in the fixed order above. Scratch: nn_layernorm_scratch(n). */
real nn_sum(const nn_run *run, size_t n, const real *x);
/* y (rows,width) = (x − mean)/√(var + eps) · w + b over the last axis; w, b (width). A layer norm over a whole block is
   rows = 1, width = its size. y may be x. */
void nn_layernorm_forward(const nn_run *run, size_t rows, size_t width, const real *x, const real *w, const real *b,
                          real eps, real *y);
/* x (rows,width) += residual, then y as above; y may be x. */
void nn_add_layernorm_forward(const nn_run *run, size_t rows, size_t width, const real *residual, real *x,
                              const real *w, const real *b, real eps, real *y);

/* x is the forward's input (after the residual was added). With h = (x − mean)·scale and g = dy·w:
     dx += scale·(g − mean g − h·mean(g·h))      dw += Σ over rows of dy·h      db += Σ over rows of dy
   The sums over rows are nn_add_rows'. dx, dw, db may be NULL. */
size_t nn_layernorm_backward_scratch(size_t rows, size_t width, int threads);
void nn_layernorm_backward(const nn_run *run, size_t rows, size_t width, const real *x, const real *w, real eps,
                           const real *dy, real *dx, real *dw, real *db);

/* ---- recurrence (gru.c) -------------------------------------------------------------------------------------- */

/* y (rows, n) = x (rows, k) · B + bias, for few rows: B is read once, and memory sets the pace, so the sums can be in double:
   ascending k, then the bias, rounded once. y may not overlap x. */
void nn_rows_product(const nn_run *run, size_t rows, const real *x, const nn_panels *b, const real *bias, real *y);

/* A gated recurrent unit as torch.nn.GRU has it, one layer. Columns are ordered (r|z|n, unit). */
typedef struct nn_gru {
    nn_panels input;                         /* weight_ih (3·hidden, in), packed */
    nn_panels recurrent;                     /* weight_hh (3·hidden, hidden), packed */
    const real *input_bias, *recurrent_bias; /* (3·hidden) */
} nn_gru;

size_t nn_gru_scratch(size_t rows, size_t hidden);
/* For each of the rows x (rows, in), h being the state after the row before (at first: before (hidden), or NULL: zero):
     r = σ(W_ir x + b_ir + W_hr h + b_hr)      n = tanh(W_in x + b_in + r·(W_hn h + b_hn))
     z = σ(W_iz x + b_iz + W_hz h + b_hz)      y = n + z·(h − n)
   → y (rows, hidden). Going on from a state gives the bits of the whole sequence in one call. y may not overlap x or before. */
void nn_gru_forward(const nn_run *run, const nn_gru *gru, size_t rows, const real *x, const real *before, real *y);

/* The weights as PyTorch has them, not packed: (3·hidden, in), (3·hidden, hidden), (3·hidden) twice; and their gradients. */
typedef struct nn_gru_weights {
    const real *input, *recurrent, *input_bias, *recurrent_bias;
} nn_gru_weights;
typedef struct nn_gru_gradients {
    real *input, *recurrent, *input_bias, *recurrent_bias;
} nn_gru_gradients;
/* The forward began at state zero: x (rows, in) → y (rows, hidden). dy (rows, hidden): what of the loss each row's result was
   used for beside the next row. dx (rows, in), which may be NULL, and the weights' gradients are added to. */
size_t nn_gru_backward_scratch(size_t rows, size_t in, size_t hidden, int threads);
void nn_gru_backward(const nn_run *run, size_t rows, size_t in, size_t hidden, const nn_gru_weights *w, const real *x,
                     const real *y, const real *dy, real *dx, const nn_gru_gradients *dw);

/* ---- losses (loss.c) ----------------------------------------------------------------------------------------- */

/* Reals of scratch for samples of n: of the functions below that sum, which of the backward ones only Dice's does. */
size_t nn_loss_scratch(size_t n);
/* Dice: the mean over the samples of 1 − 2·Σ p·t / (Σ p + Σ t + 1), p = σ(x); x and t (samples, n), t: not 0 = inside.
   A sample is a volume. Upstream's for a batch of one squeezes the batch away, and a sample is a slice: samples = D. */
real nn_dice_loss(const nn_run *run, size_t samples, size_t n, const real *x, const uint8_t *t);
/* Binary cross entropy: the mean over n voxels of max(x, 0) − x·t + log(1 + e^−|x|), which no x makes overflow. */
real nn_bce_loss(const nn_run *run, size_t n, const real *x, const uint8_t *t);

/* dx += scale · the loss's derivative by x, for scale = the loss's weight in the whole. */
void nn_dice_backward(const nn_run *run, size_t samples, size_t n, const real *x, const uint8_t *t, real scale,
                      real *dx);
void nn_bce_backward(const nn_run *run, size_t n, const real *x, const uint8_t *t, real scale, real *dx);
/* How far a correction moved: the mean over n voxels of (σ(a) − σ(b))². */
real nn_consistency_loss(const nn_run *run, size_t n, const real *a, const real *b);
/* da, db may be NULL: where no gradient shall flow */
void nn_consistency_backward(const nn_run *run, size_t n, const real *a, const real *b, real scale, real *da, real *db);
/* Boundary-sensitive: the mean over n voxels of σ(x)·φ, φ a signed distance to the truth's border, negative inside
   (Kervadec et al., Boundary loss for highly unbalanced segmentation, 2019). */
real nn_boundary_loss(const nn_run *run, size_t n, const real *x, const real *phi);
void nn_boundary_backward(const nn_run *run, size_t n, const real *x, const real *phi, real scale, real *dx);

/* ---- optimiser (adamw.c) ------------------------------------------------------------------------------------- */

/* Decoupled weight decay, as torch.optim.AdamW (1.13) computes it. */
typedef struct nn_adamw {
    double rate, beta1, beta2, eps, decay; /* PyTorch's defaults: 1e-3, 0.9, 0.999, 1e-8, 1e-2 */
} nn_adamw;
/* Step number `step` (from 1) of n parameters w with the gradients scale·g; moments m, v (n), zero before the first. */
void nn_adamw_step(const nn_run *run, const nn_adamw *o, uint64_t step, size_t n, real *w, const real *g, double scale,
                   real *m, real *v);
/* The sum of squares of g (n), in double and in a fixed order: the square of the norm by which gradients are clipped. */
double nn_square_sum(const nn_run *run, size_t n, const real *g); /* scratch: nn_loss_scratch(n) */

/* ---- volumes (conv.c, resize.c) ------------------------------------------------------------------------------ */

/* window (z,y,x) → rows (tokens, patch voxels): token in raster order of its patch, voxel in raster order inside it.
   With a linear layer after it, a 3-D convolution with kernel = stride = patch. */
void nn_patches(const nn_run *run, const real *window, const size_t spatial[3], const size_t patch[3], real *rows);

/* Transposed 3-D convolution, kernel = stride = 2. */
typedef struct nn_conv_transpose {
    size_t in, out;
    const real *weight; /* PyTorch's (in, out, 2,2,2), packed */
    const real *bias;   /* (out) */
} nn_conv_transpose;

size_t nn_conv_transpose_count(size_t in, size_t out); /* reals of a packed weight */
void nn_conv_transpose_pack(const nn_kernels *kernels, const real *w, size_t in, size_t out, real *data);
/* rows: of nn_conv_transpose_gelu_product, else 0 */
size_t nn_conv_transpose_scratch(size_t in, size_t out, size_t rows, int threads);
/* x: element (cell, channel) at x[cell * cell_stride + channel * channel_stride], cells in raster order of grid (z,y,x)
   → y (out, 2z, 2y, 2x). */
void nn_conv_transpose_forward(const nn_run *run, const size_t grid[3], const real *x, size_t cell_stride,
                               size_t channel_stride, const nn_conv_transpose *conv, real *y);
/* y (rows, 2z, 2y, 2x) = a (rows, out) · gelu(that y): the same bits as the three steps, of which only the last is written. */
void nn_conv_transpose_gelu_product(const nn_run *run, const size_t grid[3], const real *x, size_t cell_stride,
                                    size_t channel_stride, const nn_conv_transpose *conv, size_t rows, const real *a,
                                    real *y);

/* Backward of nn_conv_transpose_forward: x and dx lie as x does there, w and dw (in, out, 2,2,2) as PyTorch has them, dy
   (out, 2z, 2y, 2x); dx, dw, db (out) are added to and may be NULL. One of the strides is 1. */
size_t nn_conv_transpose_backward_scratch(const size_t grid[3], size_t in, size_t out, int threads);
void nn_conv_transpose_backward(const nn_run *run, const size_t grid[3], size_t in, size_t out, const real *x,
                                size_t cell_stride, size_t channel_stride, const real *w, const real *dy, real *dx,
                                real *dw, real *db);
/* Backward of y (voxels) = a (channels) · gelu(u), u (channels, voxels), one row of the fused product above:
     da (channels) += gelu(u) · dy      du += a·dy·gelu'(u) */
size_t nn_gelu_product_backward_scratch(size_t channels, size_t voxels, int threads);
void nn_gelu_product_backward(const nn_run *run, size_t channels, size_t voxels, const real *a, const real *u,
                              const real *dy, real *da, real *du);

size_t nn_trilinear_scratch(const size_t in[3], const size_t out[3], int threads);
/* Trilinear resize as PyTorch's interpolate(mode="trilinear", align_corners=False): x (in) → y (out), one channel. */
void nn_trilinear_forward(const nn_run *run, const size_t in[3], const real *x, const size_t out[3], real *y);

/* dx (in) += what the forward took from each of its voxels: the lines of dy (out) that took something of a line are mixed in
   raster order, then each voxel of the line gathers its share of the mix in ascending order. */
size_t nn_trilinear_backward_scratch(const size_t in[3], const size_t out[3], int threads);
void nn_trilinear_backward(const nn_run *run, const size_t in[3], const size_t out[3], const real *dy, real *dx);

/* Fourier features: for each of n coordinate triples c in [0,1], y = [sin(2π(2c−1)·G), cos(2π(2c−1)·G)]; g (3,half),
   y (n, 2·half). */
void nn_fourier_forward(const nn_run *run, size_t n, const real *coordinates, size_t half, const real *g, real *y);

/* sigmoid(x) > ½ as float32 arithmetic decides it, in every build: false for x up to about 6e-8. */
bool nn_sigmoid_above_half(real x);

#include "math.h"

#endif
