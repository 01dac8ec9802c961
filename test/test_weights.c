/* The weights file: what is written comes back bit for bit, and whatever is damaged is told. */
#include "../weights/weights.h"
#include "test.h"

/* Small enough to try every byte: 8 tokens, everything else as little as the checks allow. */
static const weights_config micro = {
    .spatial = {2, 4, 8},
    .patch = {1, 2, 4},
    .dim = 4,
    .depth = 1,
    .heads = 2,
    .mlp = 3,
    .decoder_depth = 1,
    .decoder_heads = 1,
    .decoder_mlp = 3,
    .decoder_cross_dim = 2,
    .mask_tokens = 2,
    .iou_hidden = 2,
    .iou_layers = 2,
    .hyper_layers = 1,
    .up1 = 1,
    .up2 = 1,
    .gru_blocks = 1,
    .gru_hidden = 2,
    .topk = 1,
    .text_dim = 2,
};

static bool has_all(void *user, const weights_spec *spec) {
    (void)user;
    (void)spec;
    return true;
}

static bool has_weights_only(void *user, const weights_spec *spec) {
    (void)user;
    return strstr(spec->name, "weight") != NULL;
}

static const weights_write_options plain = {false, "seed", "the formula's model", NULL};

static io_buffer written(const weights_config *c, const weights_write_options *options) {
    io_buffer b = {0};
    segfm_error error = {0};
    if (!CHECK(weights_write(c, options, weights_formula_source, NULL, weights_sink_buffer, &b, &error) == SEGFM_OK))
        printf("    %s\n", error.message);
    return b;
}

/* Opens a copy of exactly n bytes, at an odd address, so that the sanitizers see overruns and misaligned loads. */
static segfm_status open_copy(const unsigned char *bytes, size_t n, bool verify, segfm_error *error) {
    unsigned char *copy = malloc(n + 1);
    weights_file w;
    memcpy(copy + 1, bytes, n);
    segfm_status status = weights_open(copy + 1, n, &w, error);
    if (status == SEGFM_OK && verify) status = weights_verify(&w, error);
    weights_close(&w);
    free(copy);
    return status;
}

/* The content hash as FORMAT.md defines it; written again after a test changed the header. */
static void seal(unsigned char *bytes) {
    uint64_t before = base_xxh64(bytes, 24, 0);
    base_put_le64(bytes + 24, base_xxh64(bytes + 32, base_le32(bytes + 12) - 32, before));
}

/* ---- round trips --------------------------------------------------------------------------------------------- */

/* Every tensor of the file against the formula. */
static void compare_values(const weights_file *w) {
    size_t wrong = 0, count;
    weights_spec spec;
    for (size_t i = 0; weights_spec_at(&w->config, i, &spec); i++) {
        const weights_tensor *t = weights_find(w, spec.name);
        if (t == NULL) {
            CHECK(!spec.required);
            continue;
        }
        CHECK(base_count(spec.shape, spec.ndim, 1, &count) && count == t->count && t->ndim == spec.ndim);
        CHECK((t->data - w->bytes) % 64 == 0);
        float *want = malloc(count * sizeof *want);
        real *got = malloc(count * sizeof *got);
        CHECK(weights_formula_source(NULL, &spec, count, want, NULL) == SEGFM_OK);
        CHECK(weights_load(t, got, NULL) == SEGFM_OK);
        for (size_t k = 0; k < count; k++) {
            float rounded = t->dtype == IO_F16 ? base_half_to_float(base_float_to_half(want[k])) : want[k];
            wrong += got[k] != (real)rounded;
        }
        free(want);
        free(got);
    }
    CHECK(wrong == 0);
}

/* The file read without memory says what the table says. */
static void compare_bare(const weights_file *w) {
    weights_file bare;
    CHECK(weights_open_bare(w->bytes, w->size, &bare, NULL) == SEGFM_OK);
    CHECK(bare.tensors == NULL && bare.count == w->count && bare.content_hash == w->content_hash);
    size_t wrong = 0;
    for (size_t i = 0; i < w->count; i++) {
        const weights_tensor *want = &w->tensors[i];
        weights_tensor at = weights_at(&bare, i), found = {0};
        wrong += !weights_look_up(&bare, want->name, &found) || found.data != want->data || at.data != want->data;
        wrong += found.name != want->name || found.dtype != want->dtype || found.ndim != want->ndim ||
                 found.count != want->count || memcmp(found.shape, want->shape, sizeof found.shape) != 0;
        wrong += weights_tensor_bytes(want) != want->count * io_dtype_size(want->dtype);
    }
    CHECK(wrong == 0);
    weights_tensor none;
    CHECK(!weights_look_up(&bare, "image_encoder.norm", &none) && !weights_look_up(&bare, "", &none));
    CHECK(weights_verify(&bare, NULL) == SEGFM_OK);
    CHECK(weights_open_bare(w->bytes, w->size - 1, &bare, NULL) == SEGFM_BAD_INPUT && bare.count == 0);
}

static void test_tiny(void) {
    io_buffer b = written(weights_named_config("tiny"), &plain);
    weights_file w;
    segfm_error error = {0};
    CHECK(weights_open(b.data, b.size, &w, &error) == SEGFM_OK);
    CHECK(memcmp(&w.config, weights_named_config("tiny"), sizeof w.config) == 0);
    CHECK(strcmp(w.variant, "seed") == 0);
    CHECK(strcmp(w.provenance, "the formula's model") == 0);
    CHECK(w.format_version == 1);
    CHECK(w.count == 188);
    CHECK(w.content_hash == 0x778208119905D078U); /* any port writes this file, bit for bit */
    CHECK(weights_verify(&w, &error) == SEGFM_OK);
    CHECK(weights_find(&w, "image_encoder.norm") == NULL);
    CHECK(weights_find(&w, "") == NULL);
    CHECK(weights_find(&w, "gru_blocks.0.fc_coord.weight") == NULL);
    compare_values(&w);
    compare_bare(&w);
    weights_close(&w);
    CHECK(w.tensors == NULL && weights_find(&w, "image_encoder.norm.weight") == NULL);
    io_buffer_free(&b);
}

static void test_half(void) {
    weights_write_options options = plain;
    options.half = true;
    options.variant = "upstream";
    options.provenance = "";
    options.has = has_all;
    io_buffer b = written(&micro, &options);
    weights_file w;
    CHECK(weights_open(b.data, b.size, &w, NULL) == SEGFM_OK);
    CHECK(strcmp(w.variant, "upstream") == 0 && w.provenance[0] == '\0');
    CHECK(weights_find(&w, "image_encoder.blocks.0.attn.qkv.weight")->dtype == IO_F16);
    CHECK(weights_find(&w, "image_encoder.blocks.0.norm1.weight")->dtype == IO_F32);
    CHECK(weights_find(&w, "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix")->dtype == IO_F32);
    CHECK(weights_find(&w, "gru_blocks.0.fc_coord.weight") != NULL);
    CHECK(weights_verify(&w, NULL) == SEGFM_OK);
    compare_values(&w);
    compare_bare(&w);
    weights_close(&w);
    io_buffer_free(&b);
}

/* frame is the 25th number of a configuration, there only when it says something; nothing else of the file tells it. */
static void test_frame(void) {
    weights_config c = micro;
    weights_file w;
    io_buffer without = written(&micro, &plain);
    c.frame = 25;
    io_buffer b = written(&c, &plain);
    CHECK(base_le32(without.data + 32) == 96 && base_le32(b.data + 32) == 100);
    CHECK(base_le32(b.data + 64 + 4 * 24) == 25 && memcmp(b.data + 64, without.data + 64, 96) == 0);
    CHECK(weights_open(b.data, b.size, &w, NULL) == SEGFM_OK && weights_verify(&w, NULL) == SEGFM_OK);
    CHECK(memcmp(&w.config, &c, sizeof c) == 0 && w.content_hash != base_le64(without.data + 24));
    compare_values(&w);
    compare_bare(&w);
    weights_close(&w);
    CHECK(weights_open(without.data, without.size, &w, NULL) == SEGFM_OK && w.config.frame == 0);
    weights_close(&w);
    io_buffer_free(&without);
    io_buffer_free(&b);
}

/* ---- writing that fails -------------------------------------------------------------------------------------- */

typedef struct odd_source {
    const char *name; /* the tensor that is odd */
    float value;      /* its last element */
    bool refuse, change;
    int calls;
} odd_source;

static segfm_status odd_values(void *user, const weights_spec *spec, size_t count, float *out, segfm_error *error) {
    odd_source *o = user;
    segfm_status status = weights_formula_source(NULL, spec, count, out, error);
    if (strcmp(spec->name, o->name) != 0) return status;
    o->calls++;
    if (o->refuse) return base_fail(error, SEGFM_BAD_INPUT, "no values");
    if (!o->change || o->calls == 2) out[count - 1] = o->value;
    return status;
}

static segfm_status full_sink(void *user, const void *bytes, size_t n, segfm_error *error) {
    size_t *room = user;
    (void)bytes;
    if (n > *room) return base_fail(error, SEGFM_WRITE_FAILED, "the disk is full");
    *room -= n;
    return SEGFM_OK;
}

static void expect_refusal(const weights_config *c, const weights_write_options *options, odd_source source,
                           segfm_status want, const char *message) {
    io_buffer b = {0};
    segfm_error error = {0};
    CHECK(weights_write(c, options, odd_values, &source, weights_sink_buffer, &b, &error) == want);
    if (!CHECK(strstr(error.message, message) != NULL)) printf("    got '%s', want '%s'\n", error.message, message);
    io_buffer_free(&b);
}

static void test_write_failures(void) {
    const char *name = "mask_decoder.transformer.layers.0.mlp.lin1.weight";
    weights_write_options options = plain;
    odd_source none = {.name = ""};
    expect_refusal(&micro, &options, (odd_source){name, NAN, false, false, 0}, SEGFM_BAD_INPUT,
                   "mask_decoder.transformer.layers.0.mlp.lin1.weight: element 11 is not finite");
    expect_refusal(&micro, &options, (odd_source){name, -INFINITY, false, false, 0}, SEGFM_BAD_INPUT, "is not finite");
    expect_refusal(&micro, &options, (odd_source){name, 0, true, false, 0}, SEGFM_BAD_INPUT, "no values");
    expect_refusal(&micro, &options, (odd_source){name, 0, false, true, 0}, SEGFM_BAD_INPUT, "changed while");
    options.half = true;
    expect_refusal(&micro, &options, (odd_source){name, 65520, false, false, 0}, SEGFM_BAD_INPUT, "too large for half");
    options = plain;
    options.has = has_weights_only;
    expect_refusal(&micro, &options, none, SEGFM_BAD_INPUT, "1 optional tensors");
    options = plain;
    options.variant = "Seed";
    expect_refusal(&micro, &options, none, SEGFM_BAD_USAGE, "the variant is 'Seed', need seed or upstream");
    char *text = malloc(70000);
    memset(text, 'a', 69999);
    text[69999] = '\0';
    options = plain;
    options.provenance = text;
    expect_refusal(&micro, &options, none, SEGFM_BAD_USAGE, "the provenance has 70000 bytes");
    free(text);
    weights_config c = micro;
    c.heads = 3;
    expect_refusal(&c, &plain, none, SEGFM_BAD_INPUT, "dim is 4, need a multiple of heads, 3");

    io_buffer b = written(&micro, &plain);
    bool told = true; /* the sink fails at its first, second, … piece */
    for (size_t room = 0; room < b.size; room += 61) {
        size_t left = room;
        segfm_error error = {0};
        told = told && weights_write(&micro, &plain, weights_formula_source, NULL, full_sink, &left, &error) ==
                           SEGFM_WRITE_FAILED;
    }
    CHECK(told);
    io_buffer_free(&b);
}

/* ---- configurations ------------------------------------------------------------------------------------------ */

static void refuse_config(weights_config c, const char *message) {
    segfm_error error = {0};
    CHECK(weights_check_config(&c, &error) == SEGFM_BAD_INPUT);
    if (!CHECK(strstr(error.message, message) != NULL)) printf("    got '%s', want '%s'\n", error.message, message);
}

#define WITH(field, v, message)                                                                                        \
    do {                                                                                                               \
        weights_config c_ = *weights_named_config("full");                                                             \
        c_.field = (v);                                                                                                \
        refuse_config(c_, message);                                                                                    \
    } while (0)

static void test_configs(void) {
    CHECK(weights_named_config("huge") == NULL);
    CHECK(weights_check_config(weights_named_config("tiny"), NULL) == SEGFM_OK);
    CHECK(weights_check_config(weights_named_config("full"), NULL) == SEGFM_OK);
    CHECK(weights_check_config(&micro, NULL) == SEGFM_OK);
    WITH(spatial[0], 0, "spatial z is 0, need 1 to 1048576");
    WITH(spatial[2], 1U << 21, "spatial x is 2097152, need 1 to 1048576");
    WITH(spatial[1], 250, "spatial y is 250, need a multiple of patch y, 16");
    WITH(patch[2], 0, "patch x is 0");
    WITH(dim, UINT32_MAX, "dim is 4294967295");
    WITH(heads, 0, "heads is 0");
    WITH(heads, 13, "dim is 768, need a multiple of heads, 13");
    WITH(decoder_heads, 7, "dim is 768, need a multiple of decoder_heads, 7");
    WITH(decoder_cross_dim, 381, "decoder_cross_dim is 381, need a multiple of decoder_heads, 8");
    WITH(depth, 0, "depth is 0");
    WITH(depth, 1025, "depth is 1025, need 1 to 1024");
    WITH(mask_tokens, 0, "mask_tokens is 0");
    WITH(gru_hidden, 0, "gru_hidden is 0, need 1");
    WITH(topk, 0, "topk is 0, need 1");
    WITH(gru_blocks, 0, "gru_hidden is 2000, need 0 to 0");
    WITH(frame, 1001, "frame is 1001, need 0 to 1000");
    weights_config c = *weights_named_config("full");
    c.dim = 9;
    c.heads = c.decoder_heads = c.decoder_cross_dim = 3;
    refuse_config(c, "need a multiple of the two halves of the positional code, 2");
    c = *weights_named_config("full");
    c.spatial[0] = c.spatial[1] = c.spatial[2] = 1U << 20;
    refuse_config(c, "a window has 1125899906842624 patches");
    c.patch[0] = c.patch[1] = c.patch[2] = 1U << 20;
    refuse_config(c, "a patch has 1152921504606846976 voxels");
    c = *weights_named_config("full");
    c.gru_blocks = c.gru_hidden = c.topk = c.text_dim = 0;
    CHECK(weights_check_config(&c, NULL) == SEGFM_OK);
    weights_spec spec;
    CHECK(weights_spec_at(&c, 263, &spec) && !weights_spec_at(&c, 264, &spec));
}

/* ---- damage -------------------------------------------------------------------------------------------------- */

/* Cut at every byte; then cut again with a header that says that this is the size. */
static void test_truncation(const io_buffer *b) {
    bool refused = true, told = true;
    unsigned char *copy = malloc(b->size);
    for (size_t n = 0; n < b->size; n++) {
        segfm_error error = {0};
        refused = refused && open_copy(b->data, n, false, &error) == SEGFM_BAD_INPUT;
        told = told && error.message[0] != '\0';
        if (n < 64) continue;
        memcpy(copy, b->data, n);
        base_put_le64(copy + 16, n);
        refused = refused && open_copy(copy, n, false, &error) == SEGFM_BAD_INPUT;
    }
    CHECK(refused);
    CHECK(told);
    free(copy);
}

/* One bit of every byte: the header's are seen on opening, a value's by weights_verify. With the header sealed again
   the structure alone must hold: either a clean error or a file that differs in what the flip may change. */
static void test_flips(const io_buffer *b) {
    size_t header = base_le32(b->data + 12), unseen = 0, accepted = 0;
    unsigned char *copy = malloc(b->size);
    for (size_t i = 0; i < b->size; i++) {
        memcpy(copy, b->data, b->size);
        copy[i] ^= (unsigned char)(1U << i % 8);
        segfm_error error = {0};
        unseen += open_copy(copy, b->size, i >= header, &error) != SEGFM_BAD_INPUT || error.message[0] == '\0';
        if (i >= header || i / 8 == 3) continue;
        if (i / 4 != 3) seal(copy); /* not through a header length that is wrong */
        segfm_status status = open_copy(copy, b->size, false, &error);
        if (status == SEGFM_OK) accepted++;
        else unseen += status != SEGFM_BAD_INPUT;
    }
    CHECK(unseen == 0);
    CHECK(accepted < 1000); /* hashes, provenance, heads: what other fields do not determine */
    free(copy);
}

static void refuse_change(const io_buffer *b, size_t at, uint64_t value, int width, const char *message) {
    unsigned char *copy = malloc(b->size);
    memcpy(copy, b->data, b->size);
    for (int i = 0; i < width; i++) copy[at + (size_t)i] = (unsigned char)(value >> 8 * i & 0xFF);
    if (at != 12 && base_le32(copy + 12) <= b->size) seal(copy);
    segfm_error error = {0};
    CHECK(open_copy(copy, b->size, false, &error) == SEGFM_BAD_INPUT);
    if (!CHECK(strstr(error.message, message) != NULL)) printf("    got '%s', want '%s'\n", error.message, message);
    free(copy);
}

static void test_fields(const io_buffer *b) {
    size_t table = 64 + 96, entry = table + 200; /* the second tensor, patch_embeddings.1.weight (4,8) */
    refuse_change(b, 0, 'x', 1, "not a segfm weights file");
    refuse_change(b, 8, 2, 4, "format version is 2, need 1");
    refuse_change(b, 12, 0, 4, "the header's 0 bytes do not hold");
    refuse_change(b, 12, UINT32_MAX, 4, "the header's 4294967295 bytes do not hold");
    refuse_change(b, 16, b->size + 64, 8, "its header says");
    refuse_change(b, 32, 92, 4, "the configuration has 92 bytes, need at least 96");
    refuse_change(b, 32, UINT32_MAX, 4, "the header's");
    refuse_change(b, 44, UINT32_MAX, 4, "the header's");
    refuse_change(b, 48, 1, 1, "weights offset 48: padding is 1, need 0");
    refuse_change(b, 64, 4, 4, "position_embeddings: dimension 1 is 8, need 16");
    refuse_change(b, 64 + 4, 5, 4, "spatial y is 5, need a multiple of patch y, 2");
    refuse_change(b, 64 + 4 * 7, 2, 4, "found tensor 'image_encoder.norm.weight', need 'image_encoder.blocks.1.");
    refuse_change(b, 64 + 4 * 20, 0, 4, "gru_hidden is 2, need 0 to 0");
    refuse_change(b, 64 + 4 * 20, 2, 4, "tensor 'gru_blocks.1.gru.weight_ih_l0' is missing");
    refuse_change(b, table, 'x', 1, "found tensor 'xmage_encoder");
    refuse_change(b, table, '\n', 1, "holds byte 0xa");
    refuse_change(b, table, 0, 1, "no end or no beginning");
    refuse_change(b, table + 127, 'x', 1, "not padded with 0");
    refuse_change(b, entry + 128, 3, 4, "type is 3, need 1 (float32) or 2 (float16)");
    refuse_change(b, entry + 128, 2, 4, "its data has 128 bytes, need 64");
    refuse_change(b, entry + 132, 3, 4, "3 dimensions, need 2");
    refuse_change(b, entry + 136, 8, 8, "dimension 0 is 8, need 4");
    refuse_change(b, entry + 136, UINT64_MAX, 8, "dimension 0 is 18446744073709551615, need 4");
    refuse_change(b, entry + 136 + 16, 1, 8, "dimension 2 is 1, need 0");
    refuse_change(b, entry + 176, 1, 8, "its data is at offset 1, need the multiple of 64 after");
    refuse_change(b, entry + 176, UINT64_MAX - 63, 8, "its data is at offset 18446744073709551552");
    refuse_change(b, entry + 184, UINT64_MAX, 8, "its data has 18446744073709551615 bytes, need 128");
    size_t variant = table + 200 * (size_t)base_le32(b->data + 44);
    refuse_change(b, variant, 'S', 1, "the variant is neither seed nor upstream");
    refuse_change(b, variant + 4, 'x', 1, "a text does not end where its length says");
    refuse_change(b, variant + 5, 0, 1, "a text does not end where its length says");
}

/* Damage to a file with a frame: what is told of the others' fields is told of it. */
static void test_damaged_frame(void) {
    weights_config c = micro;
    c.frame = 1000;
    io_buffer b = written(&c, &plain);
    test_truncation(&b);
    test_flips(&b);
    refuse_change(&b, 64 + 96, 1001, 4, "frame is 1001, need 0 to 1000");
    refuse_change(&b, 64 + 96, UINT32_MAX, 4, "frame is 4294967295");
    /* written as no number at all, it is one that this reader knows and that says nothing */
    unsigned char *copy = malloc(b.size);
    memcpy(copy, b.data, b.size);
    base_put_le32(copy + 64 + 96, 0);
    seal(copy);
    weights_file w;
    CHECK(weights_open(copy, b.size, &w, NULL) == SEGFM_OK && w.config.frame == 0);
    weights_close(&w);
    free(copy);
    io_buffer_free(&b);
}

/* A configuration with more numbers than this reader knows is read when they are 0. */
static void test_grown_config(const io_buffer *b) {
    size_t header = base_le32(b->data + 12), n = b->size + 64;
    unsigned char *copy = calloc(1, n);
    memcpy(copy, b->data, 160);
    memcpy(copy + 160 + 64, b->data + 160, b->size - 160);
    base_put_le32(copy + 12, (uint32_t)header + 64);
    base_put_le64(copy + 16, n);
    base_put_le32(copy + 32, 160);
    for (size_t i = 0; i < base_le32(b->data + 44); i++) {
        unsigned char *offset = copy + 224 + 200 * i + 176;
        base_put_le64(offset, base_le64(offset) + 64);
    }
    seal(copy);
    CHECK(open_copy(copy, n, true, NULL) == SEGFM_OK);
    copy[223] = 1;
    seal(copy);
    segfm_error error = {0};
    CHECK(open_copy(copy, n, true, &error) == SEGFM_BAD_INPUT);
    CHECK(strstr(error.message, "weights offset 223: padding is 1") != NULL);
    free(copy);
}

/* Of the optional tensors, the last two, one is lost: its entry and its data are taken out. */
static void test_lost_optional(void) {
    weights_write_options options = plain;
    options.has = has_all;
    io_buffer whole = written(&micro, &options), *b = &whole;
    size_t count = base_le32(b->data + 44), header = base_le32(b->data + 12), table = 64 + 96;
    size_t last = table + 200 * (count - 1), texts = base_le32(b->data + 36) + base_le32(b->data + 40);
    refuse_change(b, last, 'x', 1, "is not one of this configuration's or not in its place");
    size_t less = header - (last + texts + 63) / 64 * 64, data_end = base_le64(b->data + last + 176),
           n = data_end - less;
    unsigned char *copy = calloc(1, n);
    memcpy(copy, b->data, last);
    memcpy(copy + last, b->data + last + 200, texts);
    memcpy(copy + header - less, b->data + header, data_end - header);
    base_put_le32(copy + 12, (uint32_t)(header - less));
    base_put_le64(copy + 16, n);
    base_put_le32(copy + 44, (uint32_t)count - 1);
    for (size_t i = 0; i + 1 < count; i++) {
        unsigned char *offset = copy + table + 200 * i + 176;
        base_put_le64(offset, base_le64(offset) - less);
    }
    seal(copy);
    segfm_error error = {0};
    CHECK(open_copy(copy, n, true, &error) == SEGFM_BAD_INPUT);
    if (!CHECK(strstr(error.message, "1 optional tensors are there and 1 are missing") != NULL))
        printf("    got '%s'\n", error.message);
    free(copy);
    io_buffer_free(b);
}

/* A header that changes after the file was opened. */
static void test_changed_later(const io_buffer *b) {
    weights_file w;
    segfm_error error = {0};
    CHECK(weights_open(b->data, b->size, &w, NULL) == SEGFM_OK && weights_verify(&w, NULL) == SEGFM_OK);
    size_t at = (size_t)((const unsigned char *)w.provenance - b->data);
    b->data[at] ^= 1;
    CHECK(weights_verify(&w, &error) == SEGFM_BAD_INPUT && strstr(error.message, "the header is damaged") != NULL);
    b->data[at] ^= 1;
    weights_close(&w);
}

/* Numbers that are not finite are refused when a tensor is loaded. */
static void test_load(const io_buffer *b) {
    unsigned char *copy = malloc(b->size);
    memcpy(copy, b->data, b->size);
    weights_file w;
    segfm_error error = {0};
    real out[64];
    CHECK(weights_open(copy, b->size, &w, NULL) == SEGFM_OK);
    const weights_tensor *t = weights_find(&w, "image_encoder.norm.weight");
    base_put_le32(copy + (t->data - copy) + 8, 0x7F800000U);
    CHECK(weights_load(t, out, &error) == SEGFM_BAD_INPUT);
    CHECK(strcmp(error.message, "image_encoder.norm.weight: element 2 is not finite") == 0);
    CHECK(weights_verify(&w, &error) == SEGFM_BAD_INPUT);
    CHECK(strstr(error.message, "image_encoder.norm.weight: its data is damaged") != NULL);
    weights_close(&w);
    free(copy);
}

/* A part of a tensor at an odd address: its values and nothing else, and a value that is not finite is seen wherever it
   stands, the first one named. */
static void test_parts(io_dtype dtype) {
    enum { COUNT = 70 };
    static const uint32_t bad[2][4] = {{0x7F800000U, 0xFF800000U, 0x7FC00000U, 0xFF800001U},
                                       {0x7C00U, 0xFC00U, 0x7E00U, 0xFC01U}};
    unsigned char bytes[4 * COUNT + 1];
    size_t size = io_dtype_size(dtype), wrong = 0;
    weights_tensor t = {
        .name = "parts", .dtype = dtype, .ndim = 1, .shape = {COUNT}, .count = COUNT, .data = bytes + 1};
    for (uint32_t i = 0; i < COUNT; i++) { /* large, tiny, signed; 0x7BFF and 0x7F7FFFFF are the largest finite ones */
        if (dtype == IO_F16) base_put_le16(bytes + 1 + 2 * i, (uint16_t)(0x7BFFU - i * 450U + (i % 2 << 15)));
        else base_put_le32(bytes + 1 + 4 * i, 0x7F7FFFFFU - i * 30000001U + (i % 2 << 31));
    }
    for (size_t first = 0; first < COUNT; first += 9)
        for (size_t count = 0; first + count < COUNT; count++) {
            real out[COUNT + 1];
            uint16_t halves[COUNT + 1];
            out[count] = 12345;
            halves[count] = 12345;
            CHECK(weights_read(&t, first, count, out) && out[count] == 12345);
            if (dtype == IO_F16) CHECK(weights_read_half(&t, first, count, halves) && halves[count] == 12345);
            for (size_t i = 0; i < count; i++) {
                const unsigned char *at = t.data + size * (first + i);
                uint32_t bits = dtype == IO_F16 ? 0 : base_le32(at);
                float want;
                memcpy(&want, &bits, 4);
                if (dtype == IO_F16) want = base_half_to_float(base_le16(at));
                wrong += out[i] != (real)want || (dtype == IO_F16 && halves[i] != base_le16(at));
            }
        }
    CHECK(wrong == 0);
    CHECK(weights_check_finite(&t, NULL) == SEGFM_OK);
    for (size_t at = 0; at < COUNT; at++)
        for (int kind = 0; kind < 4; kind++) {
            unsigned char kept[4], *place = bytes + 1 + size * at;
            char sentence[64];
            real out[COUNT];
            uint16_t halves[COUNT];
            segfm_error error = {0};
            memcpy(kept, place, size);
            if (dtype == IO_F16) base_put_le16(place, (uint16_t)bad[1][kind]);
            else base_put_le32(place, bad[0][kind]);
            wrong += weights_read(&t, 0, COUNT, out) || weights_read(&t, at, 1, out);
            wrong += !weights_read(&t, 0, at, out) || !weights_read(&t, at + 1, COUNT - at - 1, out);
            if (dtype == IO_F16) {
                wrong += weights_read_half(&t, 0, COUNT, halves) || weights_read_half(&t, at, 1, halves);
                wrong +=
                    !weights_read_half(&t, 0, at, halves) || !weights_read_half(&t, at + 1, COUNT - at - 1, halves);
            }
            base_format(sentence, sizeof sentence, "parts: element %zu is not finite", at);
            wrong += weights_load(&t, out, &error) != SEGFM_BAD_INPUT || strcmp(error.message, sentence) != 0;
            memcpy(place, kept, size);
        }
    CHECK(wrong == 0);
}

int main(void) {
    test_tiny();
    test_half();
    test_frame();
    test_write_failures();
    test_configs();
    io_buffer b = written(&micro, &plain);
    test_truncation(&b);
    test_flips(&b);
    test_fields(&b);
    test_damaged_frame();
    test_grown_config(&b);
    test_changed_later(&b);
    test_lost_optional();
    test_load(&b);
    test_parts(IO_F32);
    test_parts(IO_F16);
    io_buffer_free(&b);
    return test_summary();
}
