/* Attention with transposed scores. 16 queries are the lanes of everything:

        K rows (packed, `rows` keys a panel) · Qᵀ (head_dim, 16)  →  S (keys, 16)      one column per query
        softmax down each column: lane-wise, sequential over the keys
        Vᵀ rows (packed, `rows` dims a panel) · S (keys, 16)      →  O (head_dim, 16)  S is already a packed right operand

   A head's K and Vᵀ are packed once; a block of 16 queries then needs only its own S: no matrix of all scores exists. */
#include "pack.h"

typedef struct {
    size_t k, v;                /* reals of one head's packed K, Vᵀ */
    size_t q, scores, products; /* reals of one thread's Qᵀ, S, O */
} sizes;

/* Room for n rows padded to whole panels, however many rows the kernels' tiles have. */
static size_t padded_at_most(size_t n) { return nn_plus(n, NN_MAX_ROWS - 1); }

static sizes sizes_of(size_t keys, size_t head_dim) {
    return (sizes){nn_times(padded_at_most(keys), head_dim), nn_times(padded_at_most(head_dim), keys),
                   nn_times(head_dim, NN_LANES), nn_times(padded_at_most(keys), NN_LANES),
                   nn_times(padded_at_most(head_dim), NN_LANES)};
}

size_t nn_attention_scratch(size_t queries, size_t keys, size_t heads, size_t head_dim, int threads) {
    (void)queries;
    sizes s = sizes_of(keys, head_dim);
    size_t head = nn_plus(s.k, s.v), thread = nn_plus(s.q, nn_plus(s.scores, s.products));
    return nn_plus(nn_times(heads, head), nn_times((size_t)threads, thread));
}

/* 16 queries, or what is left of them, of one head. */
static void query_block(const nn_kernels *kernels, const nn_attention *at, size_t head, size_t first, const real *k,
                        const real *v, real *thread) {
    size_t mr = kernels->tile.rows;
    sizes z = sizes_of(at->keys, at->head_dim);
    size_t lanes = at->queries - first < NN_LANES ? at->queries - first : NN_LANES, dims = at->head_dim;
    real *q = thread, *scores = q + z.q, *products = scores + z.scores, sum[NN_LANES];
    kernels->transpose(NN_LANES, at->q + first * at->q_row + head * dims, at->q_row, lanes, dims, q);
    for (size_t j = 0; j < at->keys; j += mr)
        kernels->tile.product(NN_CHUNK, dims, k + j * dims, q, NN_LANES, scores + j * NN_LANES, NN_LANES, true, NULL);
    kernels->exponentials(at->keys, at->scale, scores, sum);
    for (size_t d = 0; d < dims; d += mr)
        kernels->tile.product(NN_WEIGHTS_CHUNK, at->keys, v + d * at->keys, scores, NN_LANES, products + d * NN_LANES,
                              NN_LANES, true, NULL);
    for (size_t d = 0; d < dims; d++) {
        real *product = products + d * NN_LANES;
#pragma omp simd
        for (size_t l = 0; l < NN_LANES; l++) product[l] /= sum[l];
    }
    kernels->transpose(dims, products, NN_LANES, dims, lanes, q); /* q is done with: it takes the rows */
    for (size_t l = 0; l < lanes; l++)
        memcpy(at->out + (first + l) * at->out_row + head * dims, q + l * dims, dims * sizeof *q);
}

void nn_attention_forward(const nn_run *run, const nn_attention *at) {
    size_t mr = run->kernels->tile.rows;
    sizes z = sizes_of(at->keys, at->head_dim);
    real *packed = run->scratch, *threads = packed + at->heads * (z.k + z.v);
    ptrdiff_t heads = (ptrdiff_t)at->heads, blocks = (ptrdiff_t)((at->queries + NN_LANES - 1) / NN_LANES);
    size_t sixteenths = at->queries * at->keys * at->heads * at->head_dim / NN_LANES;
    (void)sixteenths;
#pragma omp parallel num_threads(nn_team(run->threads, sixteenths))
    {
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t h = 0; h < heads; h++) {
            real *k = packed + (size_t)h * (z.k + z.v);
            nn_pack_rows(run->kernels, mr, at->k + (size_t)h * at->head_dim, at->k_row, 1, at->keys, at->head_dim, k);
            nn_pack_rows(run->kernels, mr, at->v + (size_t)h * at->head_dim, 1, at->v_row, at->head_dim, at->keys,
                         k + z.k);
        }
#pragma omp for schedule(dynamic, 4)
        for (ptrdiff_t task = 0; task < heads * blocks; task++) {
            size_t h = (size_t)(task / blocks);
            const real *k = packed + h * (z.k + z.v);
            query_block(run->kernels, at, h, (size_t)(task % blocks) * NN_LANES, k, k + z.k,
                        threads + nn_thread() * (z.q + z.scores + z.products));
        }
    }
}

void nn_attention_naive(const nn_attention *at, real *scores) {
    for (size_t h = 0; h < at->heads; h++)
        for (size_t i = 0; i < at->queries; i++) {
            const real *q = at->q + i * at->q_row + h * at->head_dim;
            real max = 0, sum = 0;
            nn_matmul_naive(NN_CHUNK, 1, at->keys, at->head_dim, q, 0, 1, at->k + h * at->head_dim, at->k_row, 1, NULL,
                            scores, 0);
            for (size_t j = 0; j < at->keys; j++) {
                scores[j] *= at->scale;
                max = j == 0 || scores[j] > max ? scores[j] : max;
            }
            for (size_t begin = 0; begin < at->keys; begin += NN_EXP_CHUNK) {
                real chunk = 0;
                for (size_t j = begin; j < at->keys && j < begin + NN_EXP_CHUNK; j++) {
                    scores[j] = nn_exp(scores[j] - max);
                    chunk += scores[j];
                }
                sum += chunk;
            }
            real *out = at->out + i * at->out_row + h * at->head_dim;
            nn_matmul_naive(NN_WEIGHTS_CHUNK, 1, at->head_dim, at->keys, scores, 0, 1, at->v + h * at->head_dim, 1,
                            at->v_row, NULL, out, 0);
            for (size_t d = 0; d < at->head_dim; d++) out[d] /= sum;
        }
}
