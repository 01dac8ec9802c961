#include <stdlib.h>

#include "tools.h"

/* Binds and plans in the arena. */
static segfm_status lay_out(tool_network *n, const weights_file *file, bool corrector, tool_model *source,
                            size_t max_sparse, int threads, nn_arena *arena, segfm_error *error) {
    segfm_status status = segvol_model_bind(&n->net, file, corrector, arena, threads, tool_bytes_done, source, error);
    if (status != SEGFM_OK) return status;
    n->embedding = nn_arena_reals(arena, segvol_image_count(&n->net));
    n->window = nn_arena_reals(arena, n->net.window_voxels);
    n->logits = nn_arena_reals(arena, n->net.window_voxels);
    return segvol_workspace_plan(&n->workspace, &n->net, max_sparse, threads, true, arena, error);
}

static segfm_status allocate(tool_network *n, const weights_file *file, bool corrector, tool_model *source,
                             size_t max_sparse, int threads, segfm_error *error) {
    nn_arena arena = {0};
    segfm_status status = lay_out(n, file, corrector, source, max_sparse, threads, &arena, error);
    if (status != SEGFM_OK) return status;
    n->memory = aligned_alloc(NN_ALIGN, arena.used);
    if (n->memory == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none, need %zu bytes", arena.used);
    arena = (nn_arena){.base = n->memory, .capacity = arena.used};
    return lay_out(n, file, corrector, source, max_sparse, threads, &arena, error);
}

segfm_status tool_network_open(const unsigned char *bytes, size_t size, bool corrector, tool_model *source,
                               size_t max_sparse, int threads, tool_network *out, segfm_error *error) {
    weights_file file;
    *out = (tool_network){0};
    segfm_status status = weights_open(bytes, size, &file, error);
    if (status != SEGFM_OK) return status;
    status = allocate(out, &file, corrector, source, max_sparse, nn_threads(threads), error);
    weights_close(&file);
    if (status != SEGFM_OK) tool_network_close(out);
    return status;
}

void tool_network_close(tool_network *n) {
    free(n->memory);
    *n = (tool_network){0};
}

segfm_status tool_write_tensor(const char *folder, const char *name, int ndim, const size_t *shape, const real *data,
                               segfm_error *error) {
    char file[WEIGHTS_NAME_MAX + 8], path[4096];
    io_buffer npy = {0};
    base_format(file, sizeof file, "%s.npy", name);
    segfm_status status = tool_path(path, sizeof path, folder, file, error);
    io_dtype dtype = sizeof *data == 8 ? IO_F64 : IO_F32;
    if (status == SEGFM_OK) status = io_npy_write(&npy, dtype, ndim, shape, data, error);
    if (status == SEGFM_OK) status = io_write_file(path, npy.data, npy.size, error);
    io_buffer_free(&npy);
    return status;
}

segfm_status tool_array_reals(const io_array *a, real **out, segfm_error *error) {
    *out = a->count > SIZE_MAX / sizeof **out ? NULL : malloc(a->count * sizeof **out);
    if (*out == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %zu voxels", a->count);
#ifdef SEGFM_REAL_DOUBLE
    io_array_to_f64(a, *out);
#else
    io_array_to_f32(a, *out);
#endif
    return SEGFM_OK;
}
