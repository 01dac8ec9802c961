/* Checkpoints made here, in the bytes that torch.save and safetensors write: converted bit for bit, and refused when
   they are not what they should be. tools/reference/verify_checkpoints.py does the same with files of PyTorch itself.
 */
#include "micro.h"
#include "test.h"

static const weights_hints hints = {.spatial = {2, 4, 6}, .patch = {1, 2, 3}, .heads = 2, .decoder_heads = 1};

#define NORM "image_encoder.norm.weight"

/* How a checkpoint is made, and what is wrong with it. */
typedef struct recipe {
    char layout;          /* 'a', 'b' or 'c' */
    const char *prefix;   /* of every name */
    io_dtype dtype;       /* IO_F32 when 0 */
    bool transposed;      /* matrices stored by columns */
    bool one_storage;     /* all tensors view one storage */
    bool big_endian;      /* with its record */
    const char *record;   /* another byteorder record */
    const char *without;  /* leaves this tensor out */
    const char *extra;    /* adds a tensor of that name */
    const char *reshaped; /* this tensor gets one row more */
    int axis;             /* … or one element more along this axis */
    const char *integers; /* this tensor's storage says LongStorage */
    const char *repeated; /* this tensor's dimensions get stride 0 */
    const char *poisoned; /* the last element of this tensor is not finite */
    bool short_storage;   /* storages have a byte less than they say */
    bool lost_storage;    /* the storages are not in the archive */
    bool no_second_head;  /* without fc_coord */
    const char *top;      /* data.pkl as it is, instead */
} recipe;

/* ---- little writers ------------------------------------------------------------------------------------------ */

/* For the making of fixtures: counted only when it fails. */
static void must(bool ok) {
    if (!ok) CHECK(false);
}

static void append(io_buffer *b, const void *bytes, size_t n) { must(io_buffer_append(b, bytes, n, NULL) == SEGFM_OK); }

static void append_text(io_buffer *b, const char *text) { append(b, text, strlen(text)); }

static void pickle_int(io_buffer *b, size_t v) {
    unsigned char op[5] = {'J'};
    base_put_le32(op + 1, (uint32_t)v);
    append(b, op, 5);
}

static void pickle_string(io_buffer *b, const char *a, const char *c) {
    unsigned char op[5] = {'X'};
    base_put_le32(op + 1, (uint32_t)(strlen(a) + strlen(c)));
    append(b, op, 5);
    append_text(b, a);
    append_text(b, c);
}

static void pickle_sizes(io_buffer *b, const size_t *sizes, int n) {
    append_text(b, "(");
    for (int i = 0; i < n; i++) pickle_int(b, sizes[i]);
    append_text(b, "t");
}

static const char *storage_class(io_dtype t) {
    return t == IO_F16    ? "HalfStorage"
           : t == IO_BF16 ? "BFloat16Storage"
           : t == IO_F64  ? "DoubleStorage"
           : t == IO_I64  ? "LongStorage"
                          : "FloatStorage";
}

/* One float as dtype's bytes. */
static void append_element(io_buffer *b, io_dtype dtype, bool big_endian, float f) {
    unsigned char bytes[8];
    size_t size = io_dtype_size(dtype);
    double d = (double)f;
    uint64_t wide;
    uint32_t bits;
    memcpy(&wide, &d, 8);
    memcpy(&bits, &f, 4);
    if (dtype == IO_F64) base_put_le64(bytes, wide);
    else if (dtype == IO_F16) base_put_le16(bytes, base_float_to_half(f));
    else if (dtype == IO_BF16) base_put_le16(bytes, (uint16_t)(bits >> 16)); /* cut: any bfloat16 will do */
    else base_put_le32(bytes, bits);
    for (size_t i = 0; i < size; i++) append(b, &bytes[big_endian ? size - 1 - i : i], 1);
}

static float as_stored(io_dtype dtype, float f) {
    uint32_t bits;
    if (dtype == IO_F16) return base_half_to_float(base_float_to_half(f));
    if (dtype != IO_BF16) return f;
    memcpy(&bits, &f, 4);
    volatile uint32_t cut = bits & 0xFFFF0000U; /* volatile: gcc 12.2 -O2 for x86-64 drops this mask otherwise */
    bits = cut;
    memcpy(&f, &bits, 4);
    return f;
}

static bool same(const char *a, const char *b) { return a != NULL && b != NULL && strcmp(a, b) == 0; }

/* The values of a tensor in storage order: C order, or by columns. */
static size_t append_values(io_buffer *b, const recipe *r, const weights_spec *spec) {
    size_t count;
    io_dtype dtype = r->dtype != IO_NONE ? r->dtype : IO_F32;
    must(base_count(spec->shape, spec->ndim, 1, &count));
    float *v = malloc(count * sizeof *v);
    must(weights_formula_source(NULL, spec, count, v, NULL) == SEGFM_OK);
    if (same(r->poisoned, spec->name)) v[count - 1] = dtype == IO_F64 ? INFINITY : NAN;
    size_t rows = spec->shape[0], columns = count / rows;
    for (size_t i = 0; i < count; i++)
        append_element(b, dtype, r->big_endian, r->transposed ? v[i % rows * columns + i / rows] : v[i]);
    free(v);
    return count;
}

/* ---- a torch file -------------------------------------------------------------------------------------------- */

typedef struct torch_file {
    io_buffer pickle, data;
    io_zip_writer zip;
    size_t storages, flat_at;
} torch_file;

static void add_storage(torch_file *t, const recipe *r, const char *key) {
    char name[64];
    snprintf(name, sizeof name, "archive/data/%s", key);
    if (!r->lost_storage)
        must(io_zip_add(&t->zip, name, t->data.data, t->data.size - r->short_storage, NULL) == SEGFM_OK);
    io_buffer_free(&t->data);
}

/* The strides of a tensor: row-major, or its first dimension the fastest. */
static void fill_strides(const recipe *r, const weights_spec *spec, size_t *stride) {
    size_t next = r->transposed ? spec->shape[0] : 1;
    for (int i = spec->ndim - 1; i >= 0; i--) {
        stride[i] = r->transposed && i == 0 ? 1 : next;
        next *= spec->shape[i];
    }
    if (same(r->repeated, spec->name)) memset(stride, 0, WEIGHTS_MAX_DIMS * sizeof *stride);
}

static void pickle_tensor(torch_file *t, const recipe *r, const weights_spec *spec, size_t flat_count) {
    io_dtype dtype = same(r->integers, spec->name) ? IO_I64 : r->dtype;
    char key[24];
    size_t stride[WEIGHTS_MAX_DIMS], offset = t->flat_at, count = flat_count;
    fill_strides(r, spec, stride);
    if (!r->one_storage) {
        offset = 0;
        count = append_values(&t->data, r, spec);
        if (same(r->repeated, spec->name)) {
            t->data.size = 4;
            count = 1;
        }
    } else {
        io_buffer unused = {0};
        t->flat_at += append_values(&unused, r, spec);
        io_buffer_free(&unused);
    }
    snprintf(key, sizeof key, "%zu", t->storages);
    if (!r->one_storage) {
        add_storage(t, r, key);
        t->storages++;
    }
    append_text(&t->pickle, "ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle_string(&t->pickle, "storage", "");
    append_text(&t->pickle, "ctorch\n");
    append_text(&t->pickle, storage_class(dtype));
    append_text(&t->pickle, "\n");
    pickle_string(&t->pickle, key, "");
    pickle_string(&t->pickle, "cpu", "");
    pickle_int(&t->pickle, count);
    append_text(&t->pickle, "tQ");
    pickle_int(&t->pickle, offset);
    pickle_sizes(&t->pickle, spec->shape, spec->ndim);
    pickle_sizes(&t->pickle, stride, spec->ndim);
    append_text(&t->pickle, "\x89"
                            "ccollections\nOrderedDict\n)RtR");
}

/* The i-th tensor that the recipe has. */
static bool recipe_spec(const recipe *r, size_t i, weights_spec *spec, bool *left_out) {
    if (!weights_spec_at(&micro, i, spec)) return false;
    *left_out = same(r->without, spec->name) || (r->no_second_head && !spec->required);
    if (same(r->reshaped, spec->name)) spec->shape[r->axis]++;
    return true;
}

static void pickle_state_dict(torch_file *t, const recipe *r, size_t flat_count) {
    weights_spec spec, odd = {"mask_downscaling", 1, {2}, true};
    bool left_out;
    append_text(&t->pickle, "ccollections\nOrderedDict\n)R(");
    for (size_t i = 0; recipe_spec(r, i, &spec, &left_out); i++) {
        if (left_out) continue;
        pickle_string(&t->pickle, r->prefix, spec.name);
        pickle_tensor(t, r, &spec, flat_count);
    }
    if (!r->one_storage) {
        pickle_string(&t->pickle, r->prefix, "prompt_encoder.mask_downscaling.0.weight");
        pickle_tensor(t, r, &odd, 0);
        pickle_string(&t->pickle, r->prefix, "text_encoder.clip_text_model.position_ids");
        pickle_tensor(t, r, &odd, 0);
    }
    if (r->extra != NULL) {
        pickle_string(&t->pickle, r->prefix, r->extra);
        pickle_tensor(t, r, &odd, flat_count);
    }
    append_text(&t->pickle, "u}");
    pickle_string(&t->pickle, "_metadata", "");
    append_text(&t->pickle, "}sb");
}

static void pickle_root(torch_file *t, const recipe *r, size_t flat_count) {
    append_text(&t->pickle, "\x80\x02");
    if (r->layout != 'a') {
        append_text(&t->pickle, "}(");
        pickle_string(&t->pickle, "epoch", "");
        pickle_int(&t->pickle, 3);
        pickle_string(&t->pickle, "args", "");
        append_text(&t->pickle, "cargparse\nNamespace\n)\x81}b");
        pickle_string(&t->pickle, r->layout == 'b' ? "model" : "model_state_dict", "");
    }
    pickle_state_dict(t, r, flat_count);
    append_text(&t->pickle, r->layout == 'a' ? "." : "u.");
}

/* All values in one storage, which begins with an element of no tensor. */
static size_t flat_storage(torch_file *t, const recipe *r) {
    weights_spec spec;
    bool left_out;
    size_t count = 1;
    append_element(&t->data, IO_F32, false, 0);
    t->flat_at = 1;
    for (size_t i = 0; recipe_spec(r, i, &spec, &left_out); i++)
        if (!left_out) count += append_values(&t->data, r, &spec);
    add_storage(t, r, "0");
    return count;
}

static io_buffer torch_checkpoint(recipe r) {
    torch_file t = {0};
    if (r.prefix == NULL) r.prefix = "model.";
    size_t flat_count = r.one_storage ? flat_storage(&t, &r) : 0;
    if (r.top != NULL) append_text(&t.pickle, r.top);
    else pickle_root(&t, &r, flat_count);
    must(io_zip_add(&t.zip, "archive/data.pkl", t.pickle.data, t.pickle.size, NULL) == SEGFM_OK);
    const char *record = r.record != NULL ? r.record : r.big_endian ? "big" : NULL;
    if (record != NULL) must(io_zip_add(&t.zip, "archive/byteorder", record, strlen(record), NULL) == SEGFM_OK);
    must(io_zip_add(&t.zip, "archive/version", "3\n", 2, NULL) == SEGFM_OK);
    must(io_zip_finish(&t.zip, NULL) == SEGFM_OK);
    io_buffer archive = t.zip.archive;
    t.zip.archive = (io_buffer){0};
    io_zip_writer_free(&t.zip);
    io_buffer_free(&t.pickle);
    return archive;
}

/* ---- a safetensors file -------------------------------------------------------------------------------------- */

static io_buffer safetensors_file(const char *header, size_t data_bytes) {
    io_buffer b = {0};
    unsigned char length[8];
    base_put_le64(length, strlen(header));
    append(&b, length, 8);
    append_text(&b, header);
    for (size_t i = 0; i < data_bytes; i++) append(&b, "", 1);
    return b;
}

static io_buffer safetensors_checkpoint(recipe r) {
    io_buffer data = {0}, b = {0};
    weights_spec spec;
    bool left_out;
    static char header[1 << 16];
    io_dtype dtype = r.dtype != IO_NONE ? r.dtype : IO_F32;
    int n = snprintf(header, sizeof header, "{ \"__metadata__\" : {\"format\":\"pt\", \"note\":\"\\u00e9\\\"\"}");
    for (size_t i = 0; recipe_spec(&r, i, &spec, &left_out); i++) {
        if (left_out) continue;
        size_t begin = data.size;
        append_values(&data, &r, &spec);
        n += snprintf(header + n, sizeof header - (size_t)n, ",\n\"%s%s\":{\"dtype\":\"%s\",\"shape\":[", r.prefix,
                      spec.name,
                      dtype == IO_F16    ? "F16"
                      : dtype == IO_BF16 ? "BF16"
                      : dtype == IO_F64  ? "F64"
                                         : "F32");
        for (int k = 0; k < spec.ndim; k++)
            n += snprintf(header + n, sizeof header - (size_t)n, k > 0 ? ",%zu" : "%zu", spec.shape[k]);
        n += snprintf(header + n, sizeof header - (size_t)n, "],\"data_offsets\":[%zu,%zu]}", begin, data.size);
    }
    snprintf(header + n, sizeof header - (size_t)n, "}   ");
    b = safetensors_file(header, 0);
    append(&b, data.data, data.size);
    io_buffer_free(&data);
    return b;
}

/* ---- conversion ---------------------------------------------------------------------------------------------- */

static segfm_status open_copy(const unsigned char *bytes, size_t n, const weights_hints *h, segfm_error *error) {
    unsigned char *copy = malloc(n + 1); /* at an odd address, and nothing readable behind it */
    weights_checkpoint *c = NULL;
    if (n > 0) memcpy(copy + 1, bytes, n);
    segfm_status status = weights_checkpoint_open(copy + 1, n, h, &c, error);
    weights_checkpoint_close(c);
    free(copy);
    return status;
}

static void expect_values(weights_checkpoint *c, io_dtype dtype, bool second_head) {
    size_t wrong = 0, count;
    weights_spec spec;
    for (size_t i = 0; weights_spec_at(&micro, i, &spec); i++) {
        must(weights_checkpoint_has(c, &spec) == (spec.required || second_head));
        if (!weights_checkpoint_has(c, &spec)) continue;
        must(base_count(spec.shape, spec.ndim, 1, &count));
        float *got = calloc(count, sizeof *got), *want = malloc(count * sizeof *want);
        must(weights_checkpoint_source(c, &spec, count, got, NULL) == SEGFM_OK);
        must(weights_formula_source(NULL, &spec, count, want, NULL) == SEGFM_OK);
        for (size_t k = 0; k < count; k++) {
            float w = as_stored(dtype, want[k]);
            wrong += memcmp(&got[k], &w, sizeof w) != 0;
        }
        free(got);
        free(want);
    }
    CHECK(wrong == 0);
}

static void expect_read(io_buffer b, const char *kind, io_dtype dtype, bool second_head) {
    segfm_error error = {0};
    weights_checkpoint *c = NULL;
    if (!CHECK(weights_checkpoint_open(b.data, b.size, &hints, &c, &error) == SEGFM_OK)) {
        printf("    %s: %s\n", kind, error.message);
    } else {
        CHECK(strcmp(weights_checkpoint_kind(c), kind) == 0);
        CHECK(memcmp(weights_checkpoint_config(c), &micro, sizeof micro) == 0);
        expect_values(c, dtype, second_head);
    }
    weights_checkpoint_close(c);
    io_buffer_free(&b);
}

static void expect_refused_with(io_buffer b, const weights_hints *h, const char *message) {
    segfm_error error = {0};
    CHECK(open_copy(b.data, b.size, h, &error) == SEGFM_BAD_INPUT);
    if (!CHECK(strstr(error.message, message) != NULL)) printf("    got '%s', want '%s'\n", error.message, message);
    io_buffer_free(&b);
}

static void expect_refused(io_buffer b, const char *message) { expect_refused_with(b, &hints, message); }

static const char *const kind_a = "PyTorch checkpoint, layout (a)", *const kind_b = "PyTorch checkpoint, layout (b)",
                         *const kind_c = "PyTorch checkpoint, layout (c)";

static void test_torch(void) {
    expect_read(torch_checkpoint((recipe){.layout = 'a'}), kind_a, IO_F32, true);
    expect_read(torch_checkpoint((recipe){.layout = 'b', .prefix = "module."}), kind_b, IO_F32, true);
    expect_read(torch_checkpoint((recipe){.layout = 'c'}), kind_c, IO_F32, true);
    expect_read(torch_checkpoint((recipe){.layout = 'a', .prefix = "module.model.module."}), kind_a, IO_F32, true);
    expect_read(torch_checkpoint((recipe){.layout = 'a', .prefix = ""}), kind_a, IO_F32, true);
    expect_read(torch_checkpoint((recipe){.layout = 'a', .no_second_head = true}), kind_a, IO_F32, false);
    expect_read(torch_checkpoint((recipe){.layout = 'c', .dtype = IO_F16}), kind_c, IO_F16, true);
    expect_read(torch_checkpoint((recipe){.layout = 'c', .dtype = IO_BF16}), kind_c, IO_BF16, true);
    expect_read(torch_checkpoint((recipe){.layout = 'c', .dtype = IO_F64}), kind_c, IO_F64, true);
    expect_read(torch_checkpoint((recipe){.layout = 'a', .transposed = true}), kind_a, IO_F32, true);
    expect_read(torch_checkpoint((recipe){.layout = 'a', .one_storage = true}), kind_a, IO_F32, true);
    expect_read(torch_checkpoint((recipe){.layout = 'a', .record = "little"}), kind_a, IO_F32, true);
    expect_read(torch_checkpoint((recipe){.layout = 'a', .big_endian = true}), kind_a, IO_F32, true);
    expect_read(torch_checkpoint((recipe){.layout = 'a', .big_endian = true, .dtype = IO_F16}), kind_a, IO_F16, true);
    expect_read(torch_checkpoint((recipe){.layout = 'a', .big_endian = true, .dtype = IO_F64}), kind_a, IO_F64, true);
}

static void test_torch_refused(void) {
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .without = NORM}), "tensor '" NORM "' is missing");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .without = "image_encoder.blocks.1.attn.qkv.weight"}),
                   "tensor 'image_encoder.blocks.1.attn.qkv.weight' is missing");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .without = "image_encoder.blocks.0.mlp.linear1.weight"}),
                   "tensor 'image_encoder.blocks.0.mlp.linear1.weight' is missing");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .without = "text_encoder.dim_align.weight"}),
                   "tensor 'text_encoder.dim_align.weight' is missing, while 'mask_decoder.txt_align");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .extra = "gru_blocks.0.fc.weight"}),
                   "tensor 'gru_blocks.0.fc.weight' is not one of this model's");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .extra = "gru_blocks.99999999999.x"}),
                   "gru_blocks is 10000, need 0 to 1024");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .extra = "model." NORM}), "has tensor '" NORM "' twice");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .reshaped = NORM}), "tensor '" NORM "' is (5), need (4)");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .reshaped = "gru_blocks.0.gru.weight_ih_l0", .axis = 1}),
                   "tensor 'gru_blocks.0.gru.weight_ih_l0' has 9 columns, need a multiple of 8");
    expect_refused(torch_checkpoint((recipe){
                       .layout = 'a', .reshaped = "image_encoder.patch_embedding.position_embeddings", .axis = 1}),
                   "position_embeddings has 9 positions, the grid of 2x2x2 patches needs 8");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .integers = NORM, .dtype = IO_F64}),
                   "tensor '" NORM "' is of type int64, need a float type");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .repeated = NORM}),
                   "tensor '" NORM "' claims more elements than the 1 of its storage");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .short_storage = true}), "bytes, need");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .lost_storage = true}),
                   "the archive lacks its storage data/");
    expect_refused(torch_checkpoint((recipe){.layout = 'a', .record = "middle"}), "neither little nor big");
    expect_refused(torch_checkpoint((recipe){.top = "K\x01."}), "is not a dictionary");
    expect_refused(torch_checkpoint((recipe){.top = "}."}), "position_embeddings' is missing");
    expect_refused(torch_checkpoint((recipe){.top = "}\x8C\x06model.K\x02s."}),
                   "the checkpoint's 'model.' is not a tensor");
    expect_refused(torch_checkpoint((recipe){.top = "}K\x01K\x02s."}), "a key that is not a text");
    expect_refused(torch_checkpoint((recipe){.top = "}X\x01\x01\x01\x01"}), "opcode 0x58 needs");
    expect_refused(torch_checkpoint((recipe){.top = "cos\nsystem\n."}), "'os.system' is not on the list");
}

static io_buffer two_entries(const char *first, const char *second) {
    io_zip_writer w = {0};
    CHECK(io_zip_add(&w, first, "}.", 2, NULL) == SEGFM_OK);
    CHECK(io_zip_add(&w, second, "}.", 2, NULL) == SEGFM_OK);
    CHECK(io_zip_finish(&w, NULL) == SEGFM_OK);
    io_buffer archive = w.archive;
    w.archive = (io_buffer){0};
    io_zip_writer_free(&w);
    return archive;
}

/* Sizes are read off tensors that may have any shape. */
static void test_odd_shapes(void) {
#define POSITIONS "{\"image_encoder.patch_embedding.position_embeddings\":{\"dtype\":\"F32\",\"shape\":"
    expect_refused(safetensors_file(POSITIONS "[2],\"data_offsets\":[0,8]}}", 8), "has 1 dimensions, need 3");
    expect_refused(safetensors_file(POSITIONS "[1,0,4294967296],\"data_offsets\":[0,0]}}", 0),
                   "has 4294967296 elements along axis 2, more than any model");
#undef POSITIONS
}

static void test_other_files(void) {
    static const char legacy[] = "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    io_buffer b = {0};
    append(&b, legacy, sizeof legacy - 1);
    expect_refused(b, "the format before 1.6");
    expect_refused((io_buffer){0}, "neither a PyTorch zip checkpoint nor a safetensors file");
    expect_refused(two_entries("a/data.pkl", "b/data.pkl"), "two entries named data.pkl");
    expect_refused(two_entries("imgs.npy", "x.data.pkl"), "no entry data.pkl");
}

/* ---- values and hints ---------------------------------------------------------------------------------------- */

static void test_not_finite(void) {
    const io_dtype types[] = {IO_F32, IO_F16, IO_F64};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        io_buffer b = torch_checkpoint((recipe){.layout = 'a', .poisoned = NORM, .dtype = types[i]});
        weights_checkpoint *c = NULL;
        segfm_error error = {0};
        float out[4];
        weights_spec spec = {NORM, 1, {4}, true};
        CHECK(weights_checkpoint_open(b.data, b.size, &hints, &c, NULL) == SEGFM_OK);
        CHECK(weights_checkpoint_source(c, &spec, 4, out, &error) == SEGFM_BAD_INPUT);
        CHECK(strcmp(error.message, "tensor '" NORM "': element 3 is not a finite float") == 0);
        weights_checkpoint_close(c);
        io_buffer_free(&b);
    }
}

static void refuse_hints(weights_hints h, const char *message) {
    expect_refused_with(torch_checkpoint((recipe){.layout = 'a'}), &h, message);
}

static void test_hints(void) {
    weights_hints h = {0};
    refuse_hints(h, "patch 4x16x16 has 1024 voxels, image_encoder.patch_embedding.patch_embeddings.1.weight has 6 "
                    "columns: give --patch");
    h = hints;
    memset(h.spatial, 0, sizeof h.spatial);
    refuse_hints(h, "spatial 32x256x256 in patches of 1x2x3 contradicts mask_decoder.output_upscaling.1.weight, "
                    "(2,4,4,4): --spatial 2,4,6 would fit");
    h = hints;
    h.spatial[1] = 6;
    refuse_hints(h, "--spatial 2,4,6 would fit");
    h = hints;
    h.patch[0] = 3;
    h.patch[1] = 1;
    h.patch[2] = 2;
    refuse_hints(h, "--spatial 6,2,4 would fit");
    h = hints;
    h.heads = 3;
    refuse_hints(h, "dim is 4, need a multiple of heads, 3");
    h = hints;
    h.decoder_heads = 4;
    refuse_hints(h, "decoder_cross_dim is 2, need a multiple of decoder_heads, 4");
    h = hints;
    h.topk = 200;
    refuse_hints(h, "tensor 'gru_blocks.0.gru.weight_ih_l0' has 8 columns, which is --topk 1; got --topk 200");
    h.topk = 1;
    io_buffer b = torch_checkpoint((recipe){.layout = 'a'});
    CHECK(open_copy(b.data, b.size, &h, NULL) == SEGFM_OK);
    io_buffer_free(&b);
    h.patch[0] = h.patch[1] = h.patch[2] = UINT32_MAX;
    refuse_hints(h, "give --patch");
}

/* Into a weights file and back. */
static void test_write(void) {
    io_buffer b = torch_checkpoint((recipe){.layout = 'b'}), from_checkpoint = {0}, from_formula = {0};
    weights_checkpoint *c = NULL;
    weights_write_options options = {false, "seed", "test", weights_checkpoint_has};
    CHECK(weights_checkpoint_open(b.data, b.size, &hints, &c, NULL) == SEGFM_OK);
    CHECK(weights_write(weights_checkpoint_config(c), &options, weights_checkpoint_source, c, weights_sink_buffer,
                        &from_checkpoint, NULL) == SEGFM_OK);
    /* has looks the name up in the checkpoint, so the formula's file gets the same tensors */
    CHECK(weights_write(&micro, &options, weights_formula_source, c, weights_sink_buffer, &from_formula, NULL) ==
          SEGFM_OK);
    CHECK(from_checkpoint.size == from_formula.size &&
          memcmp(from_checkpoint.data, from_formula.data, from_formula.size) == 0);
    weights_checkpoint_close(c);
    io_buffer_free(&b);
    io_buffer_free(&from_checkpoint);
    io_buffer_free(&from_formula);
}

/* ---- safetensors --------------------------------------------------------------------------------------------- */

static void test_safetensors(void) {
    expect_read(safetensors_checkpoint((recipe){.prefix = "model."}), "safetensors", IO_F32, true);
    expect_read(safetensors_checkpoint((recipe){.prefix = "", .dtype = IO_F16}), "safetensors", IO_F16, true);
    expect_read(safetensors_checkpoint((recipe){.prefix = "", .dtype = IO_BF16}), "safetensors", IO_BF16, true);
    expect_read(safetensors_checkpoint((recipe){.prefix = "", .dtype = IO_F64}), "safetensors", IO_F64, true);
    expect_refused(safetensors_checkpoint((recipe){.prefix = "", .without = NORM}), "tensor '" NORM "' is missing");
    expect_refused(safetensors_checkpoint((recipe){.prefix = "", .reshaped = NORM}), "is (5), need (4)");
}

static void expect_parsed(const char *header, size_t data_bytes, size_t want) {
    io_buffer b = safetensors_file(header, data_bytes);
    weights_safetensor *tensors = NULL;
    size_t count = 0;
    segfm_error error = {0};
    if (!CHECK(weights_safetensors_parse(b.data, b.size, &tensors, &count, &error) == SEGFM_OK))
        printf("    %s: %s\n", header, error.message);
    CHECK(count == want);
    free(tensors);
    io_buffer_free(&b);
}

static void refuse_header(const char *header, size_t data_bytes, const char *message) {
    io_buffer b = safetensors_file(header, data_bytes);
    weights_safetensor *tensors = NULL;
    size_t count = 0;
    segfm_error error = {0};
    CHECK(weights_safetensors_parse(b.data, b.size, &tensors, &count, &error) == SEGFM_BAD_INPUT);
    CHECK(tensors == NULL && count == 0);
    if (!CHECK(strstr(error.message, message) != NULL)) printf("    got '%s', want '%s'\n", error.message, message);
    io_buffer_free(&b);
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define B "\"b\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[8,16]}"

static void test_json(void) {
    expect_parsed("{}", 0, 0);
    expect_parsed("{" A "}", 8, 1);
    expect_parsed("{" B "," A "} ", 16, 2);
    expect_parsed(" \t\n{ \"a\" : { \"shape\" : [ 2 , 1 ] , \"data_offsets\" : [ 0 , 8 ] , \"dtype\" : \"F32\" } }\r\n",
                  8, 1);
    expect_parsed("{\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}," A "}", 8, 2);
    expect_parsed("{" A ",\"e\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[8,8]}}", 8, 2);
    expect_parsed("{\"__metadata__\":{}," A "}", 8, 1);
    expect_parsed("{\"__metadata__\":{\"k\\n\":\"\\u12aF\\\\\",\"l\":\"\"}," A "}", 8, 1);

    refuse_header("", 0, "needs '{' here");
    refuse_header("[]", 0, "needs '{' here");
    refuse_header("{", 0, "needs '\"' here");
    refuse_header("{" A, 8, "needs '}' here");
    refuse_header("{" A ",}", 8, "needs '\"' here");
    refuse_header("{" A "}}", 8, "something follows the JSON header");
    refuse_header("{" A "," A "}", 8, "tensor 'a' is there twice");
    refuse_header("{\"a", 8, "a string has no end");
    refuse_header("{\"a\x01\":1}", 8, "a control character");
    refuse_header("{\"\\u0061\":{}}", 8, "written with escapes");
    refuse_header("{\"\\x\":{}}", 8, "a malformed escape");
    refuse_header("{\"\\u12\":{}}", 8, "a malformed escape");
    refuse_header("{\"\\", 8, "a malformed escape");
    refuse_header("{\"a\" 1}", 8, "needs ':' here");
    refuse_header("{\"a\":1}", 8, "needs '{' here");
    refuse_header("{\"a\":{}}", 8, "needs '\"' here");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "lacks dtype, shape or data_offsets");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
                  "a member twice");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"more\":1}}", 8, "a member other than");
    refuse_header("{\"a\":{\"dtype\":\"C64\"}}", 8, "has a type that is not supported");
    refuse_header("{\"a\":{\"dtype\":7}}", 8, "needs '\"' here");
    refuse_header("{\"a\":{\"shape\":[-1]}}", 8, "need a whole number here");
    refuse_header("{\"a\":{\"shape\":[1.5]}}", 8, "needs ']' here");
    refuse_header("{\"a\":{\"shape\":[01]}}", 8, "a number begins with 0");
    refuse_header("{\"a\":{\"shape\":[1,]}}", 8, "need a whole number here");
    refuse_header("{\"a\":{\"shape\":[99999999999999999999]}}", 8, "a number overflows");
    refuse_header("{\"a\":{\"shape\":[1,1,1,1,1,1,1,1,1]}}", 8, "has more than 8 dimensions");
    refuse_header("{\"a\":{\"shape\":[[[[[[", 8, "need a whole number here"); /* no recursion to exhaust */
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,9],\"data_offsets\":[0,8]}}", 8,
                  "has a shape that overflows");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "data_offsets outside");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 8, "data_offsets outside");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 8,
                  "do not match its type and shape");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", 8, "needs ']' here");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
                  "leaves a gap before its data");
    refuse_header("{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
                  "overlaps another's data");
    refuse_header("{" A "}", 12, "the tensors end after 8 bytes of data, the file has 12");
    refuse_header("{\"__metadata__\":{\"k\":1}}", 0, "needs '\"' here");
    refuse_header("{\"__metadata__\":{\"k\":\"\",\"k\":\"\"}}", 0, "a key of __metadata__ is there twice");
    refuse_header("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ is there twice");
    refuse_header("{\"__metadata__\":{\"k\":{\"k\":\"\"}}}", 0, "needs '\"' here");

    io_buffer b = safetensors_file("{" A "}", 8);
    weights_safetensor *tensors = NULL;
    size_t count;
    base_put_le64(b.data, UINT64_MAX);
    CHECK(weights_safetensors_parse(b.data, b.size, &tensors, &count, NULL) == SEGFM_BAD_INPUT);
    CHECK(!weights_is_safetensors(b.data, b.size));
    base_put_le64(b.data, b.size - 7);
    CHECK(weights_safetensors_parse(b.data, b.size, &tensors, &count, NULL) == SEGFM_BAD_INPUT);
    io_buffer_free(&b);
}

/* ---- damage -------------------------------------------------------------------------------------------------- */

static void test_truncation(io_buffer b) {
    bool refused = true, told = true;
    for (size_t n = 0; n < b.size; n++) {
        segfm_error error = {0};
        refused = refused && open_copy(b.data, n, &hints, &error) == SEGFM_BAD_INPUT;
        told = told && error.message[0] != '\0';
    }
    CHECK(refused);
    CHECK(told);
    io_buffer_free(&b);
}

/* A bit of each byte before `end`: read or refused, nothing else. */
static void test_flips(io_buffer b, size_t end) {
    bool clean = true;
    for (size_t i = 0; i < end; i++) {
        b.data[i] ^= (unsigned char)(1U << i % 8);
        segfm_error error = {0};
        segfm_status status = open_copy(b.data, b.size, &hints, &error);
        clean = clean && (status == SEGFM_OK || (status == SEGFM_BAD_INPUT && error.message[0] != '\0'));
        b.data[i] ^= (unsigned char)(1U << i % 8);
    }
    CHECK(clean);
    io_buffer_free(&b);
}

int main(void) {
    test_torch();
    test_torch_refused();
    test_odd_shapes();
    test_other_files();
    test_not_finite();
    test_hints();
    test_write();
    test_safetensors();
    test_json();
    test_truncation(torch_checkpoint((recipe){.layout = 'b'}));
    test_truncation(safetensors_checkpoint((recipe){.prefix = ""}));
    io_buffer b = safetensors_checkpoint((recipe){.prefix = ""}), z = torch_checkpoint((recipe){.layout = 'b'});
    test_flips(b, 8 + (size_t)base_le64(b.data));
    test_flips(z, z.size);
    return test_summary();
}
