#include <string.h>

#include "tools.h"

/* Free text from a file: no control character reaches the terminal. */
static void print_text(const char *text) {
    for (; *text != '\0'; text++) putchar((unsigned char)*text < 0x20 || *text == 0x7F ? '?' : *text);
    putchar('\n');
}

static void print_sizes(const weights_config *c) {
    printf("spatial            %u,%u,%u (z,y,x)\n", c->spatial[0], c->spatial[1], c->spatial[2]);
    printf("patch              %u,%u,%u\n", c->patch[0], c->patch[1], c->patch[2]);
    printf("dim                %u\n", c->dim);
    printf("depth              %u\n", c->depth);
    printf("heads              %u\n", c->heads);
    printf("mlp                %u\n", c->mlp);
    printf("decoder depth      %u\n", c->decoder_depth);
    printf("decoder heads      %u\n", c->decoder_heads);
    printf("decoder mlp        %u\n", c->decoder_mlp);
    printf("decoder cross dim  %u\n", c->decoder_cross_dim);
    printf("mask tokens        %u\n", c->mask_tokens);
    printf("iou hidden         %u\n", c->iou_hidden);
    printf("iou layers         %u\n", c->iou_layers);
    printf("hyper layers       %u\n", c->hyper_layers);
    printf("up1, up2           %u,%u\n", c->up1, c->up2);
    if (c->gru_blocks > 0)
        printf("corrector          %u blocks, hidden %u, K %u\n", c->gru_blocks, c->gru_hidden, c->topk);
    else puts("corrector          none");
    if (c->frame > 0) printf("window             follows the box, %u %% of its extent around it\n", c->frame);
    if (c->text_dim > 0) printf("text               width %u\n", c->text_dim);
    else puts("text               none");
}

static void print_summary(const weights_file *w) {
    size_t parameters = 0, half = 0;
    for (size_t i = 0; i < w->count; i++) {
        parameters += w->tensors[i].count;
        half += w->tensors[i].dtype == IO_F16;
    }
    printf("format             %u\n", w->format_version);
    printf("variant            %s\n", w->variant);
    printf("provenance         ");
    print_text(w->provenance);
    printf("content hash       %016llx (verified)\n", (unsigned long long)w->content_hash);
    printf("bytes              %zu\n", w->size);
    printf("tensors            %zu (%zu float32, %zu float16)\n", w->count, w->count - half, half);
    printf("parameters         %zu\n", parameters);
}

/* name, type, shape, offset of the data in the file, bytes; separated by tabs */
static void print_tensors(const weights_file *w) {
    for (size_t i = 0; i < w->count; i++) {
        const weights_tensor *t = &w->tensors[i];
        printf("%s\t%s\t", t->name, io_dtype_name(t->dtype));
        for (int k = 0; k < t->ndim; k++) printf(k > 0 ? ",%zu" : "%zu", t->shape[k]);
        printf("\t%zu\t%zu\n", (size_t)(t->data - w->bytes), t->count * io_dtype_size(t->dtype));
    }
}

segfm_status command_info(int argc, char **argv, segfm_error *error) {
    const char *path = NULL;
    bool tensors = false;
    tool_common common;
    tool_model model;
    const unsigned char *bytes = NULL;
    size_t size = 0;
    weights_file file;
    const tool_option known[] = {{"--tensors", .flag = &tensors}, {0}};
    segfm_status status = tool_parse(argc, argv, known, &path, 1, &common, error);
    if (status == SEGFM_OK) status = tool_weights_bytes(path, &model, &bytes, &size, error);
    if (status != SEGFM_OK) return status;
    status = weights_open(bytes, size, &file, error);
    if (status == SEGFM_OK) status = weights_verify(&file, error);
    if (status == SEGFM_OK) {
        print_summary(&file);
        print_sizes(&file.config);
        if (tensors) print_tensors(&file);
    } else {
        base_fail_where(error, status, path);
    }
    weights_close(&file);
    tool_model_close(&model);
    return status;
}
