/* The inner loops, written once and compiled once per instruction set: kernels.c includes this file with
     KERNEL_NAME     what `segfm bench` prints
     KERNEL_TABLE    the name of the table of functions that results
     KERNEL_TARGET   the functions' target attribute, or nothing
     KERNEL_LANES    reals of a vector register, a plain number; 1 where there is none
     KERNEL_MR       rows of a tile: as many as the registers hold
     KERNEL_LOW      rows of a low tile, for left operands of few rows

   The product. A tile, MR rows by 16 columns, stays in registers while k runs:

        A panel (packed)            B panel (packed)                 tile t
        k=0  a0 a1 … a(MR-1)        k=0  b0 b1 … b15            t[r][l] += a[k][r] · b[k][l]
        k=1  a0 a1 … a(MR-1)        k=1  b0 b1 … b15
        …    one column of A        …    one row of B,
             after the other             16 columns wide

   Both panels are read front to back, one cache line after the other. The 16 columns lie in PARTS vectors: no sum runs
   across lanes, so neither the vector's width nor MR changes a bit. */

#define KERNEL_PASTE_(a, b) a##b
#define KERNEL_PASTE(a, b) KERNEL_PASTE_(a, b)
#define KERNEL(name) KERNEL_PASTE(KERNEL_TABLE, name)
#define PARTS (NN_LANES / KERNEL_LANES)

/* A whole number of lanes, and the same anywhere in an array of reals. Arrays of plain reals would do, but gcc keeps a tile
   of those partly in memory. */
#if defined(__GNUC__)
typedef real KERNEL(_vector) __attribute__((vector_size(KERNEL_LANES * sizeof(real))));
typedef real KERNEL(_loose) __attribute__((vector_size(KERNEL_LANES * sizeof(real)), aligned(sizeof(real)), may_alias));
#else
typedef real KERNEL(_vector), KERNEL(_loose);
#endif

/* mr: a constant */
KERNEL_TARGET
static NN_INLINE void KERNEL(_tile)(const int mr, size_t chunk, size_t kc, const real *restrict a,
                                    const real *restrict b, size_t b_row, real *restrict c, size_t c_row, bool first,
                                    const real *bias) {
    for (size_t begin = 0; begin < kc || begin == 0; begin += chunk) {
        size_t end = kc - begin < chunk ? kc : begin + chunk;
        KERNEL(_vector) t[KERNEL_MR][PARTS];
        NN_UNROLL /* a loop over the tile that is not unrolled forces it into memory */
        for (int r = 0; r < mr; r++) {
            NN_UNROLL
            for (int p = 0; p < PARTS; p++) t[r][p] = (KERNEL(_vector)){0};
        }
        for (size_t k = begin; k < end; k++) {
            const real *ak = a + k * (size_t)mr;
            const KERNEL(_loose) *bk = (const KERNEL(_loose) *)(b + k * b_row);
            NN_UNROLL
            for (int r = 0; r < mr; r++) {
                NN_UNROLL
                for (int p = 0; p < PARTS; p++) t[r][p] += ak[r] * bk[p];
            }
        }
        const KERNEL(_loose) *added = (const KERNEL(_loose) *)(end == kc ? bias : NULL);
        NN_UNROLL
        for (int r = 0; r < mr; r++) {
            KERNEL(_loose) *row = (KERNEL(_loose) *)(c + (size_t)r * c_row);
            NN_UNROLL
            for (int p = 0; p < PARTS; p++) {
                if (!first) t[r][p] += row[p];
                if (added != NULL) t[r][p] += added[p];
                row[p] = t[r][p];
            }
        }
        first = false;
    }
}

KERNEL_TARGET
static void KERNEL(_product)(size_t chunk, size_t kc, const real *restrict a, const real *restrict b, size_t b_row,
                             real *restrict c, size_t c_row, bool first, const real *bias) {
    KERNEL(_tile)(KERNEL_MR, chunk, kc, a, b, b_row, c, c_row, first, bias);
}

KERNEL_TARGET
static void KERNEL(_low_product)(size_t chunk, size_t kc, const real *restrict a, const real *restrict b, size_t b_row,
                                 real *restrict c, size_t c_row, bool first, const real *bias) {
    KERNEL(_tile)(KERNEL_LOW, chunk, kc, a, b, b_row, c, c_row, first, bias);
}

/* The transposition. A square of LANES × LANES lies in registers; interleaving each vector of its upper half with one of its
   lower half moves the top bit of an element's row number to the bottom of its column number and the other way round. After
   log2(LANES) times all bits have changed sides:

        a0 a1 a2 a3        a0 c0 a1 c1        a0 b0 c0 d0
        b0 b1 b2 b3   →    a2 c2 a3 c3   →    a1 b1 c1 d1
        c0 c1 c2 c3        b0 d0 b1 d1        a2 b2 c2 d2
        d0 d1 d2 d3        b2 d2 b3 d3        a3 b3 c3 d3        */
#if defined(NN_SHUFFLE) && KERNEL_LANES > 1
KERNEL_TARGET
static inline void KERNEL(_square)(const real *from, size_t row, size_t n, real *to, size_t to_row) {
    KERNEL(_vector) v[KERNEL_LANES], w[KERNEL_LANES];
    NN_UNROLL
    for (size_t i = 0; i < KERNEL_LANES; i++) v[i] = *(const KERNEL(_loose) *)(from + (i < n ? i : n - 1) * row);
    NN_UNROLL
    for (int bit = 1; bit < KERNEL_LANES; bit *= 2) {
        NN_UNROLL
        for (int i = 0; i < KERNEL_LANES / 2; i++) {
            w[2 * i] = NN_SHUFFLE(v[i], v[i + KERNEL_LANES / 2], KERNEL_PASTE(NN_ZIP_LOW_, KERNEL_LANES));
            w[2 * i + 1] = NN_SHUFFLE(v[i], v[i + KERNEL_LANES / 2], KERNEL_PASTE(NN_ZIP_HIGH_, KERNEL_LANES));
        }
        NN_UNROLL
        for (int i = 0; i < KERNEL_LANES; i++) v[i] = w[i];
    }
    NN_UNROLL
    for (size_t i = 0; i < KERNEL_LANES; i++) *(KERNEL(_loose) *)(to + i * to_row) = v[i];
}
#endif

KERNEL_TARGET
static void KERNEL(_transpose)(size_t mr, const real *from, size_t row, size_t n, size_t count, real *to) {
    size_t k = 0;
#if defined(NN_SHUFFLE) && KERNEL_LANES > 1
    /* Where mr is no multiple of LANES, a square writes beyond its mr rows, to where the next columns' first ones belong:
       those are written later, so that many columns must follow. */
    size_t beyond = (mr + KERNEL_LANES - 1) / KERNEL_LANES * KERNEL_LANES - mr, following = (beyond + mr - 1) / mr;
    for (; n > 0 && k + KERNEL_LANES + following <= count; k += KERNEL_LANES)
        for (size_t r = (mr - 1) / KERNEL_LANES * KERNEL_LANES + KERNEL_LANES; r > 0;) {
            r -= KERNEL_LANES;
            size_t first = r < n ? r : n - 1;
            KERNEL(_square)(from + first * row + k, row, n - first, to + k * mr + r, mr);
        }
#endif
    for (; k < count; k++)
        for (size_t r = 0; r < mr; r++) to[k * mr + r] = r < n ? from[r * row + k] : 0;
}

KERNEL_TARGET
static void KERNEL(_exponentials)(size_t keys, real scale, real *restrict s, real *restrict sum) {
    real max[NN_LANES];
    for (int l = 0; l < NN_LANES; l++) max[l] = s[l], sum[l] = 0;
    for (size_t j = 0; j < keys; j++) {
#pragma omp simd
        for (int l = 0; l < NN_LANES; l++) {
            real v = s[j * NN_LANES + (size_t)l];
            max[l] = v > max[l] ? v : max[l];
        }
    }
    for (int l = 0; l < NN_LANES; l++) max[l] *= scale; /* as rounding keeps order, the largest of the scaled scores */
    for (size_t begin = 0; begin < keys; begin += NN_EXP_CHUNK) {
        size_t end = keys - begin < NN_EXP_CHUNK ? keys : begin + NN_EXP_CHUNK;
        real chunk[NN_LANES] = {0};
        for (size_t j = begin; j < end; j++) {
            NN_SIMD_MATH
            for (int l = 0; l < NN_LANES; l++) {
                real e = nn_exp(s[j * NN_LANES + (size_t)l] * scale - max[l]);
                s[j * NN_LANES + (size_t)l] = e;
                chunk[l] += e;
            }
        }
        for (int l = 0; l < NN_LANES; l++) sum[l] += chunk[l];
    }
}

KERNEL_TARGET
static void KERNEL(_gelu)(size_t n, const real *x, real *y) {
    NN_SIMD_MATH
    for (size_t i = 0; i < n; i++) {
        real v = x[i];
        y[i] = v * REAL_C(0.5) * (REAL_C(1.0) + nn_erf(v * REAL_C(0.70710678118654752440)));
    }
}

KERNEL_TARGET
static void KERNEL(_gelu_backward)(size_t n, const real *x, const real *dy, real *dx) {
    NN_SIMD_MATH
    for (size_t i = 0; i < n; i++) {
        real v = x[i];
        real below = REAL_C(0.5) * (REAL_C(1.0) + nn_erf(v * REAL_C(0.70710678118654752440)));
        real density = nn_exp(v * v * REAL_C(-0.5)) * REAL_C(0.39894228040143267794);
        dx[i] += dy[i] * (below + v * density);
    }
}

/* One element of KERNEL(_gelu_product_backward): its GELU; du += a·dy·(its derivative) */
KERNEL_TARGET
static NN_INLINE real KERNEL(_gelu_both)(real v, real down, real *du) {
    real below = REAL_C(0.5) * (REAL_C(1.0) + nn_erf(v * REAL_C(0.70710678118654752440)));
    real density = nn_exp(v * v * REAL_C(-0.5)) * REAL_C(0.39894228040143267794);
    *du += down * (below + v * density);
    return v * below;
}

KERNEL_TARGET
static void KERNEL(_gelu_product_backward)(size_t n, real a, const real *restrict u, const real *restrict dy,
                                           real *restrict lanes, real *restrict du) {
    real t[NN_LANES] = {0};
    size_t i = 0;
    for (; i + NN_LANES <= n; i += NN_LANES) {
        NN_SIMD_MATH
        for (size_t l = 0; l < NN_LANES; l++)
            t[l] += KERNEL(_gelu_both)(u[i + l], a * dy[i + l], du + i + l) * dy[i + l];
    }
    for (size_t l = 0; i + l < n; l++) t[l] += KERNEL(_gelu_both)(u[i + l], a * dy[i + l], du + i + l) * dy[i + l];
    memcpy(lanes, t, sizeof t);
}

KERNEL_TARGET
static void KERNEL(_sigmoid)(size_t n, const real *x, real *y) {
    NN_SIMD_MATH
    for (size_t i = 0; i < n; i++) y[i] = nn_sigmoid(x[i]);
}

KERNEL_TARGET
static void KERNEL(_softplus)(size_t n, const real *x, real *y) {
    NN_SIMD_MATH /* gcc makes vectors of the two functions only one at a time */
    for (size_t i = 0; i < n; i++) y[i] = nn_exp(x[i] < 0 ? x[i] : -x[i]);
    NN_SIMD_MATH
    for (size_t i = 0; i < n; i++) y[i] = nn_log1p(y[i]);
}

KERNEL_TARGET
static void KERNEL(_score_gradients)(size_t keys, const real *restrict e, const real *restrict mean,
                                     real *restrict ds) {
    KERNEL(_vector) m[PARTS];
    for (int p = 0; p < PARTS; p++) m[p] = ((const KERNEL(_loose) *)mean)[p];
    for (size_t j = 0; j < keys; j++) {
        const KERNEL(_loose) *from = (const KERNEL(_loose) *)(e + j * NN_LANES);
        KERNEL(_loose) *to = (KERNEL(_loose) *)(ds + j * NN_LANES);
        NN_UNROLL
        for (int p = 0; p < PARTS; p++) to[p] = from[p] * (to[p] - m[p]);
    }
}

KERNEL_TARGET
static void KERNEL(_sums)(size_t n, const real *restrict x, real *restrict lanes) {
    KERNEL(_vector) t[PARTS] = {{0}};
    size_t i = 0;
    for (; i + NN_LANES <= n; i += NN_LANES) {
        NN_UNROLL
        for (int p = 0; p < PARTS; p++) t[p] += ((const KERNEL(_loose) *)(x + i))[p];
    }
    for (int p = 0; p < PARTS; p++) ((KERNEL(_loose) *)lanes)[p] = t[p];
    for (size_t l = 0; i + l < n; l++) lanes[l] += x[i + l];
}

KERNEL_TARGET
static void KERNEL(_squares)(size_t n, const real *restrict x, real mean, real *restrict lanes) {
    KERNEL(_vector) t[PARTS] = {{0}};
    size_t i = 0;
    for (; i + NN_LANES <= n; i += NN_LANES) {
        NN_UNROLL
        for (int p = 0; p < PARTS; p++) {
            KERNEL(_vector) d = ((const KERNEL(_loose) *)(x + i))[p] - mean;
            t[p] += d * d;
        }
    }
    for (int p = 0; p < PARTS; p++) ((KERNEL(_loose) *)lanes)[p] = t[p];
    for (size_t l = 0; i + l < n; l++) {
        real d = x[i + l] - mean;
        lanes[l] += d * d;
    }
}

KERNEL_TARGET
static void KERNEL(_normalise)(size_t n, const real *x, real mean, real scale, const real *w, const real *b, real *y) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * w[i] + b[i];
}

KERNEL_TARGET
static void KERNEL(_normalise_sums)(size_t n, const real *restrict x, real mean, real scale, const real *restrict w,
                                    const real *restrict dy, real *restrict g, real *restrict gh) {
    KERNEL(_vector) t[PARTS] = {{0}}, u[PARTS] = {{0}};
    size_t i = 0;
    for (; i + NN_LANES <= n; i += NN_LANES) {
        NN_UNROLL
        for (int p = 0; p < PARTS; p++) {
            KERNEL(_vector) v = ((const KERNEL(_loose) *)(dy + i))[p] * ((const KERNEL(_loose) *)(w + i))[p];
            t[p] += v;
            u[p] += v * ((((const KERNEL(_loose) *)(x + i))[p] - mean) * scale);
        }
    }
    for (int p = 0; p < PARTS; p++) ((KERNEL(_loose) *)g)[p] = t[p], ((KERNEL(_loose) *)gh)[p] = u[p];
    for (size_t l = 0; i + l < n; l++) {
        real v = dy[i + l] * w[i + l];
        g[l] += v;
        gh[l] += v * ((x[i + l] - mean) * scale);
    }
}

KERNEL_TARGET
static void KERNEL(_normalise_backward)(size_t n, const real *restrict x, real mean, real scale, const real *restrict w,
                                        const real *restrict dy, real mean_g, real mean_gh, real *restrict dx) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) dx[i] += scale * (dy[i] * w[i] - mean_g - (x[i] - mean) * scale * mean_gh);
}

KERNEL_TARGET
static void KERNEL(_dots)(size_t k, const real *restrict x, const real *restrict panel, double *restrict sums) {
    double t[NN_LANES];
    memcpy(t, sums, sizeof t);
    for (size_t i = 0; i < k; i++) {
        double factor = (double)x[i];
#pragma omp simd
        for (size_t l = 0; l < NN_LANES; l++) t[l] += factor * (double)panel[i * NN_LANES + l];
    }
    memcpy(sums, t, sizeof t);
}

KERNEL_TARGET
static void KERNEL(_widen)(size_t n, const uint16_t *restrict half, real *restrict out) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) out[i] = (real)base_widen_half(half[i]);
}

static const nn_kernels KERNEL_TABLE = {
    .name = KERNEL_NAME,
    .tile = {KERNEL_MR, KERNEL(_product)},
    .low_tile = {KERNEL_LOW, KERNEL(_low_product)},
    .transpose = KERNEL(_transpose),
    .exponentials = KERNEL(_exponentials),
    .score_gradients = KERNEL(_score_gradients),
    .gelu = KERNEL(_gelu),
    .gelu_backward = KERNEL(_gelu_backward),
    .gelu_product_backward = KERNEL(_gelu_product_backward),
    .sigmoid = KERNEL(_sigmoid),
    .softplus = KERNEL(_softplus),
    .sums = KERNEL(_sums),
    .squares = KERNEL(_squares),
    .normalise = KERNEL(_normalise),
    .normalise_sums = KERNEL(_normalise_sums),
    .normalise_backward = KERNEL(_normalise_backward),
    .dots = KERNEL(_dots),
    .widen = KERNEL(_widen),
};

#undef PARTS
#undef KERNEL_LOW
#undef KERNEL
#undef KERNEL_PASTE
#undef KERNEL_PASTE_
#undef KERNEL_TARGET
#undef KERNEL_LANES
#undef KERNEL_MR
#undef KERNEL_TABLE
#undef KERNEL_NAME
