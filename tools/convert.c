#include <string.h>
#include <unistd.h>

#include "tools.h"

/* A source of tensors that shows how far it is. */
typedef struct progress_source {
    weights_source *source;
    bool (*has)(void *user, const weights_spec *spec);
    void *user;
    size_t done, total; /* calls: each tensor is asked for twice */
    bool show;
} progress_source;

static segfm_status source_values(void *user, const weights_spec *spec, size_t count, float *out, segfm_error *error) {
    progress_source *p = user;
    p->done++;
    if (p->show) fprintf(stderr, "\r%zu of %zu tensors%s", p->done, p->total, p->done == p->total ? "\r\033[K" : "");
    segfm_status status = p->source(p->user, spec, count, out, error);
    if (p->show && status != SEGFM_OK) fputs("\r\033[K", stderr);
    return status;
}

static bool source_has(void *user, const weights_spec *spec) {
    const progress_source *p = user;
    return spec->required || (p->has != NULL && p->has(p->user, spec));
}

static segfm_status to_file(void *user, const void *bytes, size_t n, segfm_error *error) {
    return io_output_write(user, bytes, n, error);
}

/* Writes the file `path` from the source, as a whole or not at all. */
static segfm_status write_weights(const char *path, const weights_config *config, weights_write_options *options,
                                  progress_source *source, const tool_common *common, segfm_error *error) {
    io_output *output = NULL;
    weights_spec spec;
    options->has = source_has;
    for (size_t i = 0; weights_spec_at(config, i, &spec); i++)
        if (source_has(source, &spec)) source->total += 2;
    source->show = !common->quiet && isatty(STDERR_FILENO);
    segfm_status status = io_output_open(path, &output, error);
    if (status != SEGFM_OK) return status;
    status = weights_write(config, options, source_values, source, to_file, output, error);
    if (status == SEGFM_OK) return io_output_commit(output, error);
    io_output_abort(output);
    return status;
}

static segfm_status convert_formula(const char *name, const char *path, weights_write_options *options,
                                    const tool_common *common, segfm_error *error) {
    const weights_config *config = weights_named_config(name);
    progress_source source = {.source = weights_formula_source};
    if (config == NULL)
        return base_fail(error, SEGFM_BAD_USAGE, "model formula:%s is unknown: there are formula:tiny and formula:full",
                         name);
    options->variant = "upstream";
    options->provenance = "pseudo-random weights by the formula of the golden tests; not trained";
    return write_weights(path, config, options, &source, common, error);
}

/* "PyTorch checkpoint, layout (a), SegVol.pth, 724000000 bytes, XXH64 0123456789abcdef" */
static void describe_source(char *out, size_t capacity, const char *kind, const char *path, const io_mapping *file) {
    const char *slash = strrchr(path, '/');
    uint64_t hash = base_xxh64(file->data, file->size, 0);
    char digits[17];
    for (int i = 0; i < 16; i++) digits[i] = "0123456789abcdef"[hash >> (60 - 4 * i) & 15U];
    digits[16] = '\0';
    base_format(out, capacity, "%s, %s, %zu bytes, XXH64 %s", kind, slash != NULL ? slash + 1 : path, file->size,
                digits);
}

/* Weights with the second head are for corrections as `seed` makes them; the published ones lack it. */
static const char *variant_of(weights_checkpoint *checkpoint) {
    weights_spec spec = {.name = "gru_blocks.0.fc_coord.weight"};
    return weights_checkpoint_has(checkpoint, &spec) ? "seed" : "upstream";
}

static segfm_status convert_checkpoint(const char *input, const weights_hints *hints, const char *path,
                                       weights_write_options *options, const tool_common *common, segfm_error *error) {
    io_mapping file;
    weights_checkpoint *checkpoint = NULL;
    char provenance[512];
    segfm_status status = io_map_file(input, &file, error);
    if (status != SEGFM_OK) return status;
    status = weights_checkpoint_open(file.data, file.size, hints, &checkpoint, error);
    if (status == SEGFM_OK) {
        progress_source source = {weights_checkpoint_source, weights_checkpoint_has, checkpoint, 0, 0, false};
        options->variant = weights_checkpoint_variant(checkpoint);
        options->provenance = weights_checkpoint_provenance(checkpoint);
        if (options->variant == NULL) {
            describe_source(provenance, sizeof provenance, weights_checkpoint_kind(checkpoint), input, &file);
            options->variant = variant_of(checkpoint);
            options->provenance = provenance;
        }
        status = write_weights(path, weights_checkpoint_config(checkpoint), options, &source, common, error);
    }
    if (status == SEGFM_BAD_INPUT) base_fail_where(error, status, input);
    weights_checkpoint_close(checkpoint);
    io_unmap_file(&file);
    return status;
}

/* Passes bytes on to a file, and shows how many. */
typedef struct progress_sink {
    io_output *output;
    size_t done, shown; /* bytes; megabytes */
    bool show;
} progress_sink;

static segfm_status to_file_shown(void *user, const void *bytes, size_t n, segfm_error *error) {
    progress_sink *p = user;
    p->done += n;
    if (p->show && p->done / 1000000 != p->shown) fprintf(stderr, "\r%zu MB written", p->shown = p->done / 1000000);
    return io_output_write(p->output, bytes, n, error);
}

/* The other direction. */
static segfm_status convert_to_torch(const char *input, const char *path, const tool_common *common,
                                     segfm_error *error) {
    tool_model model;
    const unsigned char *bytes = NULL;
    size_t size = 0;
    weights_file file = {0};
    progress_sink sink = {.show = !common->quiet && isatty(STDERR_FILENO)};
    segfm_status status = tool_weights_bytes(input, &model, &bytes, &size, error);
    if (status != SEGFM_OK) return status;
    status = weights_open(bytes, size, &file, error);
    if (status == SEGFM_OK) status = io_output_open(path, &sink.output, error);
    if (status == SEGFM_OK) status = weights_export(&file, to_file_shown, &sink, error);
    if (sink.shown > 0) fputs("\r\033[K", stderr);
    if (status == SEGFM_OK) status = io_output_commit(sink.output, error);
    else io_output_abort(sink.output);
    if (status == SEGFM_BAD_INPUT) base_fail_where(error, status, input);
    weights_close(&file);
    tool_model_close(&model);
    return status;
}

static segfm_status read_hints(const char *spatial, const char *patch, const char *heads, const char *decoder_heads,
                               const char *topk, weights_hints *out, segfm_error *error) {
    const int64_t most = 1 << 20;
    const struct {
        const char *text, *name;
        int n;
        uint32_t *out;
    } hints[] = {
        {spatial, "--spatial", 3, out->spatial}, {patch, "--patch", 3, out->patch},
        {heads, "--heads", 1, &out->heads},      {decoder_heads, "--decoder-heads", 1, &out->decoder_heads},
        {topk, "--topk", 1, &out->topk},
    };
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
        int64_t v[3];
        if (hints[i].text == NULL) continue;
        segfm_status status = tool_integers(hints[i].text, hints[i].name, hints[i].n, 1, most, v, error);
        if (status != SEGFM_OK) return status;
        for (int k = 0; k < hints[i].n; k++) hints[i].out[k] = (uint32_t)v[k];
    }
    return SEGFM_OK;
}

segfm_status command_convert(int argc, char **argv, segfm_error *error) {
    static const char formula[] = "formula:";
    const char *input = NULL, *output = NULL, *spatial = NULL, *patch = NULL, *heads = NULL, *decoder_heads = NULL,
               *topk = NULL;
    weights_write_options options = {0};
    weights_hints hints = {0};
    tool_common common;
    const tool_option known[] = {
        {"-o", .value = &output},         {"--half", .flag = &options.half},
        {"--spatial", .value = &spatial}, {"--patch", .value = &patch},
        {"--heads", .value = &heads},     {"--decoder-heads", .value = &decoder_heads},
        {"--topk", .value = &topk},       {0},
    };
    segfm_status status = tool_parse(argc, argv, known, &input, 1, &common, error);
    if (status == SEGFM_OK) status = tool_need(output, "-o", error);
    if (status == SEGFM_OK) status = read_hints(spatial, patch, heads, decoder_heads, topk, &hints, error);
    if (status != SEGFM_OK) return status;
    status = tool_keep_input(input, output, error);
    if (status != SEGFM_OK) return status;
    bool sized = spatial != NULL || patch != NULL || heads != NULL || decoder_heads != NULL || topk != NULL;
    if (tool_ends_with(output, ".pth") || tool_ends_with(output, ".pt")) {
        if (sized || options.half)
            return base_fail(error, SEGFM_BAD_USAGE,
                             "a weights file's sizes are its own, and %s becomes float32: no option is taken", output);
        return convert_to_torch(input, output, &common, error);
    }
    if (strncmp(input, formula, sizeof formula - 1) != 0)
        return convert_checkpoint(input, &hints, output, &options, &common, error);
    if (sized)
        return base_fail(error, SEGFM_BAD_USAGE, "%s has its own sizes: --half is the only option it takes", input);
    return convert_formula(input + sizeof formula - 1, output, &options, &common, error);
}
