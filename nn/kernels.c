/* The inner loops for every instruction set of the machine's family; the best that runs is chosen at start-up. The bits
   are the same with all of them. `make ISA=generic` keeps only the plain C ones. */
#include "nn.h"

#if defined(__clang__)
#define NN_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define NN_UNROLL _Pragma("GCC unroll 32")
#else
#define NN_UNROLL
#endif
#ifdef __GNUC__
#define NN_INLINE inline __attribute__((always_inline))
#else
#define NN_INLINE inline
#endif

/* Elements of two vectors, alternating: of their first halves, of their second halves. */
#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define NN_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#define NN_ZIP_LOW_2 0, 2
#define NN_ZIP_HIGH_2 1, 3
#define NN_ZIP_LOW_4 0, 4, 1, 5
#define NN_ZIP_HIGH_4 2, 6, 3, 7
#define NN_ZIP_LOW_8 0, 8, 1, 9, 2, 10, 3, 11
#define NN_ZIP_HIGH_8 4, 12, 5, 13, 6, 14, 7, 15
#define NN_ZIP_LOW_16 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define NN_ZIP_HIGH_16 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

#ifdef SEGFM_REAL_DOUBLE /* a double takes two floats' room */
#define ROWS(n) ((n) / 2)
#define LANES_16_BYTES 2
#define LANES_32_BYTES 4
#define LANES_64_BYTES 8
#else
#define ROWS(n) (n)
#define LANES_16_BYTES 4
#define LANES_32_BYTES 8
#define LANES_64_BYTES 16
#endif

#if defined(__GNUC__) && defined(__x86_64__) && !defined(NN_GENERIC)
#define NN_DISPATCH
#endif

#define KERNEL_NAME "generic"
#define KERNEL_TABLE generic
#define KERNEL_TARGET
#if defined(__SSE2__) || defined(__aarch64__) || defined(__VSX__) || defined(__wasm_simd128__)
#define KERNEL_LANES LANES_16_BYTES
#else
#define KERNEL_LANES 1
#endif
#if defined(NN_TEST_MR) /* tests make tiles odd and tiny */
#define KERNEL_MR NN_TEST_MR
#elif defined(__aarch64__) || defined(__VSX__) /* 32 registers */
#define KERNEL_MR ROWS(6)
#elif defined(__SSE2__)
#define KERNEL_MR ROWS(2)
#else
#define KERNEL_MR 1
#endif
#define KERNEL_LOW KERNEL_MR
#include "kernel.h"

#ifdef NN_DISPATCH

#define KERNEL_NAME "AVX2"
#define KERNEL_TABLE avx2
#define KERNEL_TARGET __attribute__((target("avx2")))
#define KERNEL_LANES LANES_32_BYTES
#define KERNEL_MR ROWS(6)
#define KERNEL_LOW KERNEL_MR
#include "kernel.h"

#define KERNEL_NAME "AVX-512"
#define KERNEL_TABLE avx512
#if defined(__clang__)
#define KERNEL_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq"), min_vector_width(512)))
#else
#define KERNEL_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512")))
#endif
#define KERNEL_LANES LANES_64_BYTES
#define KERNEL_MR ROWS(16)
#define KERNEL_LOW ROWS(8)
#include "kernel.h"

const nn_kernels *nn_kernels_best(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq"))
        return &avx512;
    if (__builtin_cpu_supports("avx2")) return &avx2;
    return &generic;
}

#else

const nn_kernels *nn_kernels_best(void) { return &generic; }

#endif
