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

/* Backward. A task is one head and one group of its blocks of 16 queries. For each block the forward's e = exp(s − max)
   and its sums come again, not divided; what the division would do is done to 16 rows of the head, not to keys × 16:

        dP (keys,16) = V · dOᵀ                    dS = e · (dP − dO·O)           all columns are queries, as in the forward
        dQᵀ (dim,16) = Kᵀ · dS                    times scale / sum
        dV (keys,dim) += e · (dO / sum)           the transposes of e and dS, a panel at a time, are left operands
        dK (keys,dim) += dS · (Q·scale / sum)

   A group sums into a dK and a dV of its own, 16 queries after 16; at the end the groups' are added in their order. How
   many groups there are depends on the shapes alone: tasks for many threads, and no more memory than those take. */
enum { TASKS = 24, FEWEST = 8 }; /* tasks wanted; blocks of a group */

typedef struct {
    size_t k, v, transposed;      /* reals of one head's packed K, V, Kᵀ */
    size_t width, sums;           /* a head's dims padded to lanes; reals of one task's dK or dV */
    size_t columns, rows, scores; /* reals of one thread's (dim,16), (16,width), (keys,16) */
    size_t products;
} backward_sizes;

static backward_sizes backward_sizes_of(size_t keys, size_t head_dim) {
    size_t packed = nn_times(padded_at_most(keys), head_dim);
    size_t width = nn_plus(head_dim, NN_LANES - 1) / NN_LANES * NN_LANES;
    return (backward_sizes){packed,
                            packed,
                            nn_times(padded_at_most(head_dim), keys),
                            width,
                            nn_times(padded_at_most(keys), width),
                            nn_times(head_dim, NN_LANES),
                            nn_times(width, NN_LANES),
                            nn_times(padded_at_most(keys), NN_LANES),
                            nn_times(padded_at_most(head_dim), NN_LANES)};
}

static size_t backward_head(const backward_sizes *z) { return nn_plus(z->k, nn_plus(z->v, z->transposed)); }

static size_t backward_thread(const backward_sizes *z) {
    size_t once = nn_plus(z->products, NN_MAX_ROWS * NN_LANES);
    return nn_plus(nn_times(2, nn_plus(z->columns, nn_plus(z->rows, z->scores))), once);
}

static size_t blocks_of(size_t queries) { return queries / NN_LANES + (queries % NN_LANES != 0); }

/* Blocks of 16 queries of a group. */
static size_t group_blocks(size_t queries, size_t heads) {
    size_t blocks = blocks_of(queries), groups = TASKS / heads + (TASKS % heads != 0);
    size_t each = (blocks + groups - 1) / groups;
    return each < FEWEST ? FEWEST : each;
}

static size_t groups_of(size_t queries, size_t heads) {
    size_t each = group_blocks(queries, heads);
    return (blocks_of(queries) + each - 1) / each;
}

size_t nn_attention_backward_scratch(size_t queries, size_t keys, size_t heads, size_t head_dim, int threads) {
    if (heads == 0) return 0;
    backward_sizes z = backward_sizes_of(keys, head_dim);
    size_t head = nn_plus(backward_head(&z), nn_times(nn_times(2, groups_of(queries, heads)), z.sums));
    return nn_plus(nn_times(heads, head), nn_times((size_t)threads, backward_thread(&z)));
}

/* rows (16, width): a head's dims of up to 16 rows, the rest zero */
static void take_rows(const real *from, size_t row, size_t lanes, size_t dims, size_t width, real *rows) {
    for (size_t l = 0; l < NN_LANES; l++)
        for (size_t d = 0; d < width; d++) rows[l * width + d] = l < lanes && d < dims ? from[l * row + d] : 0;
}

static void scale_rows(size_t width, const real factor[NN_LANES], real *rows) {
    for (size_t l = 0; l < NN_LANES; l++)
        for (size_t d = 0; d < width; d++) rows[l * width + d] *= factor[l];
}

/* sums (keys, width) (+)= columns (keys,16) · rows (16, width); panel: scratch */
static void add_outer(const nn_kernels *kernels, size_t keys, const real *columns, const real *rows, size_t width,
                      bool first, real *panel, real *sums) {
    size_t mr = kernels->tile.rows;
    for (size_t j = 0; j < keys; j += mr) {
        kernels->transpose(mr, columns + j * NN_LANES, NN_LANES, keys - j < mr ? keys - j : mr, NN_LANES, panel);
        for (size_t d = 0; d < width; d += NN_LANES)
            kernels->tile.product(NN_CHUNK, NN_LANES, panel, rows + d, width, sums + j * width + d, width, first, NULL);
    }
}

/* 16 queries, or what is left of them, of one head, whose packed K, V, Kᵀ are at `head_data`; `sums`: dK, then dV. */
static void query_block_backward(const nn_kernels *kernels, const nn_attention *at, const real *dout, size_t head,
                                 size_t query, const real *head_data, bool first, real *sums, real *thread, real *dq) {
    size_t mr = kernels->tile.rows, dims = at->head_dim, keys = at->keys;
    backward_sizes z = backward_sizes_of(keys, dims);
    size_t lanes = at->queries - query < NN_LANES ? at->queries - query : NN_LANES;
    const real *k = head_data, *v = k + z.k, *transposed = v + z.v;
    real *q_columns = thread, *do_columns = q_columns + z.columns, *q_rows = do_columns + z.columns;
    real *do_rows = q_rows + z.rows, *e = do_rows + z.rows, *ds = e + z.scores, *products = ds + z.scores;
    real *panel = products + z.products, sum[NN_LANES], mean[NN_LANES] = {0};
    const real *out = at->out + query * at->out_row + head * dims;

    take_rows(at->q + query * at->q_row + head * dims, at->q_row, lanes, dims, z.width, q_rows);
    take_rows(dout + query * at->out_row + head * dims, at->out_row, lanes, dims, z.width, do_rows);
    kernels->transpose(NN_LANES, q_rows, z.width, NN_LANES, dims, q_columns);
    kernels->transpose(NN_LANES, do_rows, z.width, NN_LANES, dims, do_columns);
    for (size_t l = 0; l < lanes; l++) {
        double dot = 0;
        for (size_t d = 0; d < dims; d++) dot += (double)do_rows[l * z.width + d] * (double)out[l * at->out_row + d];
        mean[l] = (real)dot;
    }
    for (size_t j = 0; j < keys; j += mr) {
        real *tile = e + j * NN_LANES;
        kernels->tile.product(NN_CHUNK, dims, k + j * dims, q_columns, NN_LANES, tile, NN_LANES, true, NULL);
    }
    kernels->exponentials(keys, at->scale, e, sum);
    for (size_t j = 0; j < keys; j += mr) {
        real *tile = ds + j * NN_LANES;
        kernels->tile.product(NN_CHUNK, dims, v + j * dims, do_columns, NN_LANES, tile, NN_LANES, true, NULL);
    }
    kernels->score_gradients(keys, e, mean, ds);
    real inverse[NN_LANES], factor[NN_LANES];
    for (size_t l = 0; l < NN_LANES; l++) inverse[l] = REAL_C(1.0) / sum[l], factor[l] = at->scale / sum[l];
    scale_rows(z.width, factor, q_rows);
    scale_rows(z.width, inverse, do_rows);
    add_outer(kernels, keys, ds, q_rows, z.width, first, panel, sums);
    add_outer(kernels, keys, e, do_rows, z.width, first, panel, sums + z.sums);

    for (size_t d = 0; d < dims; d += mr)
        kernels->tile.product(NN_CHUNK, keys, transposed + d * keys, ds, NN_LANES, products + d * NN_LANES, NN_LANES,
                              true, NULL);
    kernels->transpose(dims, products, NN_LANES, dims, lanes, q_columns); /* done with: it takes the rows */
    for (size_t l = 0; l < lanes; l++) {
        real *to = dq + (query + l) * at->q_row + head * dims;
        for (size_t d = 0; d < dims; d++) to[d] += q_columns[l * dims + d] * factor[l];
    }
}

/* to (dims) += the sum of what the groups have for one key, `sums` apart */
static void add_groups(size_t groups, const real *from, size_t sums, size_t dims, real *to) {
    for (size_t d = 0; d < dims; d++) {
        real sum = from[d];
        for (size_t g = 1; g < groups; g++) sum += from[g * sums + d];
        to[d] += sum;
    }
}

void nn_attention_backward(const nn_run *run, const nn_attention *at, const real *dout, real *dq, real *dk, real *dv) {
    size_t mr = run->kernels->tile.rows, keys = at->keys, dims = at->head_dim, heads = at->heads;
    if (keys == 0 || at->queries == 0 || heads == 0) return;
    backward_sizes z = backward_sizes_of(keys, dims);
    size_t each = group_blocks(at->queries, heads), groups = groups_of(at->queries, heads), head = backward_head(&z);
    real *packed = run->scratch, *sums = packed + heads * head, *threads = sums + heads * groups * 2 * z.sums;
    size_t sixteenths = nn_times(nn_times(at->queries, keys), nn_times(heads, dims)) / NN_LANES;
    (void)sixteenths;
#pragma omp parallel num_threads(nn_team(run->threads, sixteenths))
    {
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(3 * heads); i++) {
            size_t h = (size_t)i / 3, offset = h * dims;
            real *data = packed + h * head;
            if (i % 3 == 0) nn_pack_rows(run->kernels, mr, at->k + offset, at->k_row, 1, keys, dims, data);
            if (i % 3 == 1) nn_pack_rows(run->kernels, mr, at->v + offset, at->v_row, 1, keys, dims, data + z.k);
            if (i % 3 == 2) nn_pack_rows(run->kernels, mr, at->k + offset, 1, at->k_row, dims, keys, data + z.k + z.v);
        }
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t task = 0; task < (ptrdiff_t)(heads * groups); task++) {
            size_t h = (size_t)task / groups, first = (size_t)task % groups * each * NN_LANES;
            size_t end = at->queries - first < each * NN_LANES ? at->queries : first + each * NN_LANES;
            for (size_t query = first; query < end; query += NN_LANES)
                query_block_backward(run->kernels, at, dout, h, query, packed + h * head, query == first,
                                     sums + (size_t)task * 2 * z.sums, threads + nn_thread() * backward_thread(&z), dq);
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(heads * keys); i++) {
            size_t j = (size_t)i / heads, h = (size_t)i % heads;
            const real *from = sums + h * groups * 2 * z.sums + j * z.width;
            add_groups(groups, from, 2 * z.sums, dims, dk + j * at->k_row + h * dims);
            add_groups(groups, from + z.sums, 2 * z.sums, dims, dv + j * at->v_row + h * dims);
        }
    }
}
