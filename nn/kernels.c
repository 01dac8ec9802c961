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

#ifdef SEGFM_REAL_DOUBLE
#define ROWS(n) ((n) / 2) /* a double takes two floats' room */
#else
#define ROWS(n) (n)
#endif

#if defined(__GNUC__) && defined(__x86_64__) && !defined(NN_GENERIC)
#define NN_DISPATCH
#endif

#define KERNEL_NAME "generic"
#define KERNEL_TABLE generic
#define KERNEL_TARGET
#if defined(__SSE2__) || defined(__aarch64__) || defined(__VSX__) || defined(__wasm_simd128__)
#define KERNEL_BYTES 16
#else
#define KERNEL_BYTES sizeof(real)
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
#include "kernel.h"

#ifdef NN_DISPATCH

#define KERNEL_NAME "AVX2"
#define KERNEL_TABLE avx2
#define KERNEL_TARGET __attribute__((target("avx2")))
#define KERNEL_BYTES 32
#define KERNEL_MR ROWS(6)
#include "kernel.h"

#define KERNEL_NAME "AVX-512"
#define KERNEL_TABLE avx512
#if defined(__clang__)
#define KERNEL_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq"), min_vector_width(512)))
#else
#define KERNEL_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512")))
#endif
#define KERNEL_BYTES 64
#define KERNEL_MR ROWS(16)
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
