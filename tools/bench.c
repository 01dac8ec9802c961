#include <stdlib.h>
#include <time.h>

#include "tools.h"

/* Each stage runs ROUNDS times; the median is printed. */
enum { ROUNDS = 5 };

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values) {
    qsort(values, ROUNDS, sizeof *values, by_value);
    return values[ROUNDS / 2];
}

segfm_status command_bench(int argc, char **argv, segfm_error *error) {
    bool full = false;
    tool_common common;
    const tool_option options[] = {{"--full", .flag = &full}, {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &common, error);
    if (status != SEGFM_OK) return status;
    weights_config config = *weights_named_config(full ? "full" : "tiny");
    config.gru_blocks = config.gru_hidden = config.topk = 0; /* not timed here */
    io_buffer bytes = {0};
    tool_network n = {0};
    status = tool_formula_bytes(&config, &bytes, error);
    if (status == SEGFM_OK) status = tool_network_open(bytes.data, bytes.size, 2, common.threads, &n, error);
    io_buffer_free(&bytes);
    if (status != SEGFM_OK) return status;

    const segvol_model *m = &n.net;
    real box[6] = {1, 2, 3, (real)config.spatial[0] - 2, (real)config.spatial[1] - 3, (real)config.spatial[2] - 4};
    segvol_prompts prompts = {NULL, 0, box};
    double encoder[ROUNDS], decoder[ROUNDS], upsampling[ROUNDS];
    for (size_t i = 0; i < m->window_voxels; i++) n.window[i] = (real)weights_uniform("input.image", i);
    for (int round = 0; round < ROUNDS; round++) {
        double start = seconds();
        segvol_encode(m, &n.workspace, n.window, n.embedding);
        double encoded = seconds();
        segvol_decode(m, &n.workspace, n.embedding, &prompts);
        double decoded = seconds();
        segvol_upsample(m, &n.workspace, 0, n.logits);
        encoder[round] = encoded - start;
        decoder[round] = decoded - encoded;
        upsampling[round] = seconds() - decoded;
    }
    printf("%s model, %s, %s kernels, %d threads, median of %d runs\n", full ? "full-size" : "tiny", REAL_NAME,
           n.workspace.run.kernels->name, n.workspace.run.threads, ROUNDS);
    printf("encoder     %10.2f ms\n", 1e3 * median(encoder));
    printf("decoder     %10.2f ms\n", 1e3 * median(decoder));
    printf("upsampling  %10.2f ms\n", 1e3 * median(upsampling));
    tool_network_close(&n);
    return SEGFM_OK;
}
