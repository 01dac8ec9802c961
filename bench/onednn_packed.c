/* oneDNN's matmul with b in the layout of its own choice, reordered once, as weights would be. */
#include <dnnl.h>
#include <omp.h>

#include "gemm.h"

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static dnnl_primitive_t primitive;
static dnnl_memory_t a, b, y;

static void need(dnnl_status_t status) {
    if (status != dnnl_success) exit(EXIT_FAILURE);
}

static dnnl_memory_desc_t matrix(size_t rows, size_t columns, dnnl_format_tag_t layout) {
    dnnl_memory_desc_t out;
    dnnl_dims_t shape = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    need(dnnl_memory_desc_init_by_tag(&out, 2, shape, dnnl_f32, layout));
    return out;
}

static dnnl_memory_t memory(const dnnl_memory_desc_t *description, void *data) {
    dnnl_memory_t out;
    need(dnnl_memory_create(&out, description, engine, data));
    return out;
}

static void run(dnnl_primitive_t what, int count, const dnnl_exec_arg_t *arguments) {
    need(dnnl_primitive_execute(what, stream, count, arguments));
    need(dnnl_stream_wait(stream));
}

/* b = the matrix of that layout, from plain rows */
static void reorder(size_t rows, size_t columns, float *data, const dnnl_memory_desc_t *layout) {
    dnnl_memory_desc_t plain = matrix(rows, columns, dnnl_ab);
    dnnl_memory_t from = memory(&plain, data);
    dnnl_primitive_desc_t description;
    dnnl_primitive_t copy;
    b = memory(layout, DNNL_MEMORY_ALLOCATE);
    need(dnnl_reorder_primitive_desc_create(&description, &plain, engine, layout, engine, NULL));
    need(dnnl_primitive_create(&copy, description));
    run(copy, 2, (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, b}});
    dnnl_primitive_destroy(copy);
    dnnl_primitive_desc_destroy(description);
    dnnl_memory_destroy(from);
}

static void prepare(const product *p) {
    dnnl_memory_desc_t rows = matrix(p->m, p->k, dnnl_ab), out = matrix(p->m, p->n, dnnl_ab);
    dnnl_memory_desc_t any = matrix(p->k, p->n, dnnl_format_tag_any);
    dnnl_matmul_desc_t operation;
    dnnl_primitive_desc_t description;
    omp_set_num_threads(p->threads);
    need(dnnl_engine_create(&engine, dnnl_cpu, 0));
    need(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    need(dnnl_matmul_desc_init(&operation, &rows, &any, NULL, &out));
    need(dnnl_primitive_desc_create(&description, &operation, NULL, engine, NULL));
    need(dnnl_primitive_create(&primitive, description));
    a = memory(&rows, p->a);
    y = memory(&out, p->y);
    reorder(p->k, p->n, p->b, dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0));
    dnnl_primitive_desc_destroy(description);
}

static void multiply(const product *p) {
    (void)p;
    run(primitive, 3, (dnnl_exec_arg_t[]){{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, y}});
}

static void release(void) {
    dnnl_memory_destroy(a), dnnl_memory_destroy(b), dnnl_memory_destroy(y);
    dnnl_primitive_destroy(primitive);
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
}
