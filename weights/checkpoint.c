/* checkpoint: PyTorch zip files in three layouts, and safetensors, as a source of the model's tensors.

   Both become one sorted list of entries. The configuration is inferred from their shapes and the hints, and then every
   tensor that the configuration has must be there in its shape, and nothing else may be. */
#include "weights.h"

#include <stdlib.h>
#include <string.h>

/* A tensor of the checkpoint under its name without prefixes. */
typedef struct entry {
    const char *name; /* not terminated */
    size_t length;
    io_dtype dtype;
    int ndim;
    size_t shape[IO_MAX_DIMS], stride[IO_MAX_DIMS], offset; /* in elements of data */
    size_t elements;                                        /* of data */
    const char *key;                                        /* of a torch storage; NULL when data is known */
    size_t key_length;
    const unsigned char *data;
    bool used;
} entry;

/* A torch storage, one for each entry of the archive; several tensors may share one. */
typedef struct storage {
    bool read;
    const unsigned char *data;
    io_buffer inflated; /* when the archive was compressed after torch wrote it */
} storage;

struct weights_checkpoint {
    const char *kind;
    weights_config config;
    entry *entries; /* sorted by name */
    size_t count;
    io_zip zip;
    io_buffer pickle_bytes;
    io_pickle pickle;
    const char *root; /* "archive/", in zip's name of data.pkl, not terminated */
    size_t root_length;
    bool big_endian;
    storage *storages;          /* as many as zip.count */
    weights_hints own;          /* what a checkpoint of weights_export says of itself; zeros: it is none */
    char *variant, *provenance; /* likewise, or NULL */
};

static segfm_status no_memory(segfm_error *error) {
    return base_fail(error, SEGFM_NO_MEMORY, "out of memory while reading the checkpoint");
}

/* Foreign bytes for a message: cut, and without control characters. */
static const char *printable(char out[WEIGHTS_NAME_MAX], const char *text, size_t n) {
    size_t i = 0;
    for (; i < n && i < WEIGHTS_NAME_MAX - 1; i++) out[i] = text[i] >= 0x20 && text[i] < 0x7F ? text[i] : '?';
    out[i] = '\0';
    return out;
}

/* ---- names --------------------------------------------------------------------------------------------------- */

static bool starts_with(const char *name, size_t n, const char *prefix) {
    size_t p = strlen(prefix);
    return n >= p && memcmp(name, prefix, p) == 0;
}

/* Whatever wrapped the model when it was saved. */
static void strip_prefixes(const char **name, size_t *n) {
    for (;;) {
        size_t p = starts_with(*name, *n, "model.") ? 6 : starts_with(*name, *n, "module.") ? 7 : 0;
        if (p == 0) return;
        *name += p;
        *n -= p;
    }
}

/* Parts that the published model carries and never uses (SPEC 2.2), and the text model, which is not ours. */
static bool is_passed_over(const char *name, size_t n) {
    return starts_with(name, n, "prompt_encoder.mask_downscaling.") ||
           starts_with(name, n, "text_encoder.clip_text_model.");
}

static int compare_names(const char *a, size_t a_n, const char *b, size_t b_n) {
    int order = memcmp(a, b, a_n < b_n ? a_n : b_n);
    return order != 0 ? order : (a_n > b_n) - (a_n < b_n);
}

static int compare_entries(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return compare_names(x->name, x->length, y->name, y->length);
}

static entry *find(const weights_checkpoint *c, const char *name) {
    size_t low = 0, high = c->count, n = strlen(name);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        entry *e = &c->entries[middle];
        int order = compare_names(name, n, e->name, e->length);
        if (order == 0) return e;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

static segfm_status sort_entries(weights_checkpoint *c, segfm_error *error) {
    char name[WEIGHTS_NAME_MAX];
    if (c->count > 0) qsort(c->entries, c->count, sizeof *c->entries, compare_entries);
    for (size_t i = 1; i < c->count; i++)
        if (compare_entries(&c->entries[i - 1], &c->entries[i]) == 0)
            return base_fail(error, SEGFM_BAD_INPUT, "the checkpoint has tensor '%s' twice",
                             printable(name, c->entries[i].name, c->entries[i].length));
    return SEGFM_OK;
}

/* ---- safetensors --------------------------------------------------------------------------------------------- */

static segfm_status open_safetensors(weights_checkpoint *c, const unsigned char *bytes, size_t n, segfm_error *error) {
    weights_safetensor *tensors;
    size_t count;
    segfm_status status = weights_safetensors_parse(bytes, n, &tensors, &count, error);
    if (status != SEGFM_OK) return status;
    c->kind = "safetensors";
    c->entries = calloc(count + 1, sizeof *c->entries);
    if (c->entries == NULL) {
        free(tensors);
        return no_memory(error);
    }
    for (size_t i = 0; i < count; i++) {
        const weights_safetensor *t = &tensors[i];
        entry e = {.name = t->name, .length = t->name_length, .dtype = t->dtype, .ndim = t->ndim, .data = t->data};
        strip_prefixes(&e.name, &e.length);
        if (is_passed_over(e.name, e.length)) continue;
        memcpy(e.shape, t->shape, sizeof e.shape);
        e.elements = (t->end - t->begin) / io_dtype_size(t->dtype);
        size_t stride = e.elements > 0; /* row-major; the products are below elements */
        for (int d = t->ndim - 1; d >= 0; d--) {
            e.stride[d] = stride;
            stride *= t->shape[d];
        }
        c->entries[c->count++] = e;
    }
    free(tensors);
    return SEGFM_OK;
}

/* ---- PyTorch ------------------------------------------------------------------------------------------------- */

static bool is_legacy_torch(const unsigned char *bytes, size_t n) {
    /* the pickled magic number 0x1950a86a20f9469cfc6c with which torch.save began before version 1.6 */
    static const unsigned char legacy[] = {0x80, 0x02, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46,
                                           0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E};
    return n >= sizeof legacy && memcmp(bytes, legacy, sizeof legacy) == 0;
}

/* "folder/data.pkl" names the folder of everything else. */
static segfm_status find_pickle(weights_checkpoint *c, const io_zip_entry **out, segfm_error *error) {
    *out = NULL;
    for (size_t i = 0; i < c->zip.count; i++) {
        const char *name = c->zip.entries[i].name, *slash = strrchr(name, '/');
        if (strcmp(slash != NULL ? slash + 1 : name, "data.pkl") != 0) continue;
        if (*out != NULL) return base_fail(error, SEGFM_BAD_INPUT, "the zip archive has two entries named data.pkl");
        *out = &c->zip.entries[i];
        c->root = name;
        c->root_length = strlen(name) - strlen("data.pkl");
    }
    return *out != NULL ? SEGFM_OK
                        : base_fail(error, SEGFM_BAD_INPUT,
                                    "the zip archive has no entry data.pkl, so it is no PyTorch checkpoint");
}

/* The entry root + folder + key. */
static const io_zip_entry *find_in_root(const weights_checkpoint *c, const char *folder, const char *key, size_t n) {
    char path[512];
    size_t folder_n = strlen(folder);
    if (c->root_length + folder_n + n >= sizeof path || memchr(key, '\0', n) != NULL) return NULL;
    memcpy(path, c->root, c->root_length);
    memcpy(path + c->root_length, folder, folder_n);
    memcpy(path + c->root_length + folder_n, key, n);
    path[c->root_length + folder_n + n] = '\0';
    return io_zip_find(&c->zip, path);
}

static segfm_status read_byte_order(weights_checkpoint *c, segfm_error *error) {
    const io_zip_entry *e = find_in_root(c, "", "byteorder", strlen("byteorder"));
    io_buffer text = {0};
    if (e == NULL) return SEGFM_OK; /* before torch 2.1 there was no record, and every writer was little-endian */
    segfm_status status = io_zip_read(&c->zip, e, &text, error);
    if (status == SEGFM_OK) {
        bool little = text.size == 6 && memcmp(text.data, "little", 6) == 0;
        c->big_endian = text.size == 3 && memcmp(text.data, "big", 3) == 0;
        if (!little && !c->big_endian)
            status = base_fail(error, SEGFM_BAD_INPUT, "the checkpoint's byteorder is neither little nor big");
    }
    io_buffer_free(&text);
    return status;
}

/* The dictionary of tensors in the pickle: under a training script's name, or the root itself. */
static segfm_status find_state_dict(weights_checkpoint *c, const io_pickle_node **out, segfm_error *error) {
    const io_pickle_node *root = &c->pickle.nodes[c->pickle.root];
    if (root->kind != IO_PICKLE_DICT)
        return base_fail(error, SEGFM_BAD_INPUT, "the checkpoint's pickle is not a dictionary, need a state_dict");
    const io_pickle_node *model = io_pickle_get(&c->pickle, root, "model"),
                         *state = io_pickle_get(&c->pickle, root, "model_state_dict");
    *out = root;
    c->kind = "PyTorch checkpoint, layout (a)";
    if (model != NULL && model->kind == IO_PICKLE_DICT) {
        *out = model;
        c->kind = "PyTorch checkpoint, layout (b)";
    } else if (state != NULL && state->kind == IO_PICKLE_DICT) {
        *out = state;
        c->kind = "PyTorch checkpoint, layout (c)";
    }
    return SEGFM_OK;
}

static segfm_status own_sizes(const weights_checkpoint *c, const io_pickle_node *about, const char *key, uint32_t count,
                              uint32_t *out, segfm_error *error) {
    const io_pickle_node *value = io_pickle_get(&c->pickle, about, key);
    bool list = value != NULL && value->kind == IO_PICKLE_LIST && value->count == count;
    for (uint32_t i = 0; i < count; i++) {
        int64_t v;
        const io_pickle_node *one = list ? io_pickle_child(&c->pickle, value, i) : count == 1 ? value : NULL;
        if (one == NULL || !io_pickle_int(one, &v) || v < 1 || v > 1 << 20)
            return base_fail(error, SEGFM_BAD_INPUT,
                             "the checkpoint's entry 'segfm' needs '%s': %d numbers from 1 to 2^20", key, (int)count);
        out[i] = (uint32_t)v;
    }
    return SEGFM_OK;
}

static segfm_status own_text(const weights_checkpoint *c, const io_pickle_node *about, const char *key, char **out,
                             segfm_error *error) {
    const io_pickle_node *value = io_pickle_get(&c->pickle, about, key);
    if (value == NULL || value->kind != IO_PICKLE_STRING || value->length > 0xFFFF - 1 ||
        (value->length > 0 && memchr(value->string, '\0', value->length) != NULL))
        return base_fail(error, SEGFM_BAD_INPUT,
                         "the checkpoint's entry 'segfm' needs '%s', a text of less than 65535 bytes", key);
    *out = malloc(value->length + 1);
    if (*out == NULL) return no_memory(error);
    if (value->length > 0) memcpy(*out, value->string, value->length);
    (*out)[value->length] = '\0';
    return SEGFM_OK;
}

/* The entry 'segfm' beside the tensors. */
static segfm_status read_own(weights_checkpoint *c, segfm_error *error) {
    const io_pickle_node *about = io_pickle_get(&c->pickle, &c->pickle.nodes[c->pickle.root], "segfm");
    if (about == NULL || about->kind != IO_PICKLE_DICT) return SEGFM_OK;
    segfm_status status = own_sizes(c, about, "spatial", 3, c->own.spatial, error);
    if (status == SEGFM_OK) status = own_sizes(c, about, "patch", 3, c->own.patch, error);
    if (status == SEGFM_OK) status = own_sizes(c, about, "heads", 1, &c->own.heads, error);
    if (status == SEGFM_OK) status = own_sizes(c, about, "decoder_heads", 1, &c->own.decoder_heads, error);
    if (status == SEGFM_OK && io_pickle_get(&c->pickle, about, "frame") != NULL)
        status = own_sizes(c, about, "frame", 1, &c->own.frame, error);
    if (status == SEGFM_OK) status = own_text(c, about, "variant", &c->variant, error);
    if (status == SEGFM_OK) status = own_text(c, about, "provenance", &c->provenance, error);
    if (status == SEGFM_OK && strcmp(c->variant, "seed") != 0 && strcmp(c->variant, "upstream") != 0)
        return base_fail(error, SEGFM_BAD_INPUT, "the checkpoint's variant is neither seed nor upstream");
    return status;
}

static void fill_entry(const weights_checkpoint *c, const io_pickle_node *value, entry *e) {
    const io_pickle_tensor *t = &value->tensor;
    const io_pickle_node *s = &c->pickle.nodes[t->storage];
    e->dtype = s->dtype;
    e->ndim = t->ndim;
    memcpy(e->shape, t->shape, sizeof e->shape);
    memcpy(e->stride, t->stride, sizeof e->stride);
    e->offset = t->offset;
    e->elements = s->elements;
    e->key = s->string;
    e->key_length = s->length;
}

static segfm_status collect_tensors(weights_checkpoint *c, const io_pickle_node *dict, segfm_error *error) {
    char name[WEIGHTS_NAME_MAX];
    c->entries = calloc(dict->count / 2 + 1, sizeof *c->entries);
    if (c->entries == NULL) return no_memory(error);
    for (uint32_t i = 0; i < dict->count; i += 2) {
        const io_pickle_node *key = io_pickle_child(&c->pickle, dict, i),
                             *value = io_pickle_child(&c->pickle, dict, i + 1);
        if (key->kind != IO_PICKLE_STRING)
            return base_fail(error, SEGFM_BAD_INPUT, "the checkpoint's state_dict has a key that is not a text");
        entry e = {.name = key->string, .length = key->length};
        strip_prefixes(&e.name, &e.length);
        if (is_passed_over(e.name, e.length)) continue;
        if (value->kind != IO_PICKLE_TENSOR)
            return base_fail(error, SEGFM_BAD_INPUT, "the checkpoint's '%s' is not a tensor",
                             printable(name, key->string, key->length));
        fill_entry(c, value, &e);
        c->entries[c->count++] = e;
    }
    return SEGFM_OK;
}

static segfm_status open_torch(weights_checkpoint *c, const unsigned char *bytes, size_t n, segfm_error *error) {
    const io_zip_entry *data = NULL;
    const io_pickle_node *dict = NULL;
    segfm_status status = io_zip_open(bytes, n, &c->zip, error);
    if (status == SEGFM_OK) status = find_pickle(c, &data, error);
    if (status == SEGFM_OK) status = read_byte_order(c, error);
    if (status == SEGFM_OK) status = io_zip_read(&c->zip, data, &c->pickle_bytes, error);
    if (status == SEGFM_OK) status = io_pickle_parse(c->pickle_bytes.data, c->pickle_bytes.size, &c->pickle, error);
    if (status == SEGFM_OK) status = find_state_dict(c, &dict, error);
    if (status == SEGFM_OK && dict != &c->pickle.nodes[c->pickle.root]) status = read_own(c, error);
    return status == SEGFM_OK ? collect_tensors(c, dict, error) : status;
}

/* Reads a storage: in place, or inflated when the archive was repacked. */
static segfm_status read_storage(weights_checkpoint *c, const io_zip_entry *file, storage *s, segfm_error *error) {
    segfm_status status;
    if (file->method == 0) {
        status = io_zip_view(&c->zip, file, &s->data, error);
    } else {
        status = io_zip_read(&c->zip, file, &s->inflated, error);
        s->data = s->inflated.data;
    }
    s->read = status == SEGFM_OK;
    return status;
}

/* The bytes that a torch tensor views; each storage is read (and its CRC checked) once. */
static segfm_status find_storage(weights_checkpoint *c, entry *e, segfm_error *error) {
    char key[WEIGHTS_NAME_MAX], name[WEIGHTS_NAME_MAX];
    if (e->key == NULL) return SEGFM_OK;
    size_t bytes = e->elements * io_dtype_size(e->dtype); /* the unpickler has checked the product */
    const io_zip_entry *file = find_in_root(c, "data/", e->key, e->key_length);
    printable(key, e->key, e->key_length);
    printable(name, e->name, e->length);
    if (file == NULL) return base_fail(error, SEGFM_BAD_INPUT, "%s: the archive lacks its storage data/%s", name, key);
    if (file->size != bytes)
        return base_fail(error, SEGFM_BAD_INPUT, "%s: its storage data/%s has %llu bytes, need %zu", name, key,
                         (unsigned long long)file->size, bytes);
    storage *s = &c->storages[file - c->zip.entries];
    segfm_status status = s->read ? SEGFM_OK : read_storage(c, file, s, error);
    e->data = s->data;
    return status;
}

/* ---- the configuration --------------------------------------------------------------------------------------- */

/* Dimension `axis` of a tensor that must be there with ndim dimensions. */
static segfm_status get_size(const weights_checkpoint *c, const char *name, int ndim, int axis, uint32_t *out,
                             segfm_error *error) {
    const entry *e = find(c, name);
    if (e == NULL) return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' is missing", name);
    if (e->ndim != ndim)
        return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' has %d dimensions, need %d", name, e->ndim, ndim);
    if (e->shape[axis] > UINT32_MAX)
        return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' has %zu elements along axis %d, more than any model",
                         name, e->shape[axis], axis);
    *out = (uint32_t)e->shape[axis];
    return SEGFM_OK;
}

/* One more than the largest number N in names prefix + N + "."; numbers too large for any model count as 9999. */
static uint32_t count_layers(const weights_checkpoint *c, const char *prefix) {
    uint32_t count = 0;
    for (size_t i = 0; i < c->count; i++) {
        const entry *e = &c->entries[i];
        if (!starts_with(e->name, e->length, prefix)) continue;
        size_t at = strlen(prefix);
        uint32_t n = 0;
        for (; at < e->length && e->name[at] >= '0' && e->name[at] <= '9'; at++)
            n = n < 1000 ? n * 10 + (uint32_t)(e->name[at] - '0') : 9999;
        if (at > strlen(prefix) && at < e->length && e->name[at] == '.' && n + 1 > count) count = n + 1;
    }
    return count;
}

static segfm_status infer_sizes(const weights_checkpoint *c, weights_config *g, segfm_error *error) {
    const struct {
        const char *name;
        int ndim, axis;
        uint32_t *out;
    } sizes[] = {
        {"image_encoder.patch_embedding.position_embeddings", 3, 2, &g->dim},
        {"image_encoder.blocks.0.mlp.linear1.weight", 2, 0, &g->mlp},
        {"mask_decoder.transformer.layers.0.mlp.lin1.weight", 2, 0, &g->decoder_mlp},
        {"mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight", 2, 0, &g->decoder_cross_dim},
        {"mask_decoder.mask_tokens.weight", 2, 0, &g->mask_tokens},
        {"mask_decoder.iou_prediction_head.layers.0.weight", 2, 0, &g->iou_hidden},
        {"mask_decoder.output_upscaling.0.weight", 5, 1, &g->up1},
        {"mask_decoder.output_upscaling.3.weight", 5, 1, &g->up2},
    };
    segfm_status status = SEGFM_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && status == SEGFM_OK; i++)
        status = get_size(c, sizes[i].name, sizes[i].ndim, sizes[i].axis, sizes[i].out, error);
    g->depth = count_layers(c, "image_encoder.blocks.");
    g->decoder_depth = count_layers(c, "mask_decoder.transformer.layers.");
    g->iou_layers = count_layers(c, "mask_decoder.iou_prediction_head.layers.");
    g->hyper_layers = count_layers(c, "mask_decoder.output_hypernetworks_mlps.0.layers.");
    g->gru_blocks = count_layers(c, "gru_blocks.");
    return status;
}

static segfm_status infer_corrector(const weights_checkpoint *c, const weights_hints *hints, weights_config *g,
                                    segfm_error *error) {
    const char *name = "gru_blocks.0.gru.weight_ih_l0";
    uint32_t columns = 0;
    if (g->gru_blocks == 0) return SEGFM_OK;
    segfm_status status = get_size(c, "gru_blocks.0.gru.weight_hh_l0", 2, 1, &g->gru_hidden, error);
    if (status == SEGFM_OK) status = get_size(c, name, 2, 1, &columns, error);
    if (status != SEGFM_OK) return status;
    g->topk = columns / 8; /* eight features per point */
    if (columns % 8 != 0)
        return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' has %d columns, need a multiple of 8", name,
                         (int)columns);
    if (hints->topk != 0 && hints->topk != g->topk)
        return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' has %d columns, which is --topk %d; got --topk %d", name,
                         (int)columns, (int)g->topk, (int)hints->topk);
    return SEGFM_OK;
}

/* Both ends of the text prompt are there, or neither. */
static segfm_status infer_text(const weights_checkpoint *c, weights_config *g, segfm_error *error) {
    static const char align[] = "text_encoder.dim_align.weight",
                      decoder[] = "mask_decoder.txt_align_upscaled_embedding.weight";
    bool has_align = find(c, align) != NULL, has_decoder = find(c, decoder) != NULL;
    if (has_align != has_decoder)
        return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' is missing, while '%s' is there",
                         has_align ? decoder : align, has_align ? align : decoder);
    return has_align ? get_size(c, align, 2, 1, &g->text_dim, error) : SEGFM_OK;
}

static uint32_t first_set(uint32_t told, uint32_t own, uint32_t other) {
    return told != 0 ? told : own != 0 ? own : other;
}

static void apply_hints(const weights_hints *hints, const weights_hints *own, weights_config *g) {
    const weights_config *full = weights_named_config("full");
    for (int i = 0; i < 3; i++) {
        g->spatial[i] = first_set(hints->spatial[i], own->spatial[i], full->spatial[i]);
        g->patch[i] = first_set(hints->patch[i], own->patch[i], full->patch[i]);
    }
    g->heads = first_set(hints->heads, own->heads, full->heads);
    g->decoder_heads = first_set(hints->decoder_heads, own->decoder_heads, full->decoder_heads);
    g->frame = first_set(hints->frame, own->frame, 0);
}

/* Window and patch cannot be read off the shapes, but three of them must agree with the hints. */
static segfm_status check_patch(const weights_checkpoint *c, const weights_config *g, segfm_error *error) {
    const char *name = "image_encoder.patch_embedding.patch_embeddings.1.weight";
    uint32_t columns = 0;
    segfm_status status = get_size(c, name, 2, 1, &columns, error);
    if (status != SEGFM_OK) return status;
    uint64_t voxels = (uint64_t)g->patch[0] * g->patch[1];
    if (voxels <= UINT32_MAX) voxels *= g->patch[2];
    if (voxels == columns) return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_INPUT, "patch %dx%dx%d has %llu voxels, %s has %llu columns: give --patch",
                     (int)g->patch[0], (int)g->patch[1], (int)g->patch[2], (unsigned long long)voxels, name,
                     (unsigned long long)columns);
}

static segfm_status check_grid(const weights_checkpoint *c, const weights_config *g, segfm_error *error) {
    const char *up = "mask_decoder.output_upscaling.1.weight",
               *positions = "image_encoder.patch_embedding.position_embeddings";
    uint32_t doubled[3] = {0, 0, 0}, tokens = 0;
    bool fits = true;
    segfm_status status = get_size(c, positions, 3, 1, &tokens, error);
    for (int i = 0; i < 3 && status == SEGFM_OK; i++) status = get_size(c, up, 4, i + 1, &doubled[i], error);
    if (status != SEGFM_OK) return status;
    for (int i = 0; i < 3; i++)
        fits = fits && g->spatial[i] % g->patch[i] == 0 && (uint64_t)(g->spatial[i] / g->patch[i]) * 2 == doubled[i];
    if (!fits)
        return base_fail(
            error, SEGFM_BAD_INPUT,
            "spatial %dx%dx%d in patches of %dx%dx%d contradicts %s, (%d,%d,%d,%d): --spatial %llu,%llu,%llu would fit",
            (int)g->spatial[0], (int)g->spatial[1], (int)g->spatial[2], (int)g->patch[0], (int)g->patch[1],
            (int)g->patch[2], up, (int)g->up1, (int)doubled[0], (int)doubled[1], (int)doubled[2],
            (unsigned long long)doubled[0] / 2 * g->patch[0], (unsigned long long)doubled[1] / 2 * g->patch[1],
            (unsigned long long)doubled[2] / 2 * g->patch[2]);
    uint64_t cells = (uint64_t)(doubled[0] / 2) * (doubled[1] / 2);
    if (cells <= UINT32_MAX) cells *= doubled[2] / 2;
    if (cells == tokens) return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_INPUT, "%s has %llu positions, the grid of %dx%dx%d patches needs %llu",
                     positions, (unsigned long long)tokens, (int)(doubled[0] / 2), (int)(doubled[1] / 2),
                     (int)(doubled[2] / 2), (unsigned long long)cells);
}

static segfm_status infer_config(weights_checkpoint *c, const weights_hints *hints, segfm_error *error) {
    weights_config *g = &c->config;
    apply_hints(hints, &c->own, g);
    segfm_status status = infer_sizes(c, g, error);
    if (status == SEGFM_OK) status = infer_corrector(c, hints, g, error);
    if (status == SEGFM_OK) status = infer_text(c, g, error);
    if (status == SEGFM_OK) status = check_patch(c, g, error);
    if (status == SEGFM_OK) status = check_grid(c, g, error);
    return status == SEGFM_OK ? weights_check_config(g, error) : status;
}

/* ---- every tensor known, every known one there --------------------------------------------------------------- */

/* "(2,3)" */
static const char *shape_text(char *out, size_t capacity, const size_t *shape, int ndim) {
    size_t n = 0;
    base_format(out, capacity, "(");
    for (int i = 0; i < ndim; i++) {
        n = strlen(out);
        base_format(out + n, capacity - n, i > 0 ? ",%zu" : "%zu", shape[i]);
    }
    n = strlen(out);
    base_format(out + n, capacity - n, ")");
    return out;
}

static segfm_status check_shape(const entry *e, const weights_spec *spec, segfm_error *error) {
    char got[128], need[128];
    size_t count;
    bool same = e->ndim == spec->ndim;
    for (int i = 0; same && i < e->ndim; i++) same = e->shape[i] == spec->shape[i];
    if (!same)
        return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' is %s, need %s", spec->name,
                         shape_text(got, sizeof got, e->shape, e->ndim),
                         shape_text(need, sizeof need, spec->shape, spec->ndim));
    if (e->dtype != IO_F32 && e->dtype != IO_F16 && e->dtype != IO_BF16 && e->dtype != IO_F64)
        return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' is of type %s, need a float type", spec->name,
                         io_dtype_name(e->dtype));
    /* a stride of 0 would let a few bytes claim to be a tensor of any size */
    if (!base_count(e->shape, e->ndim, 1, &count) || count > e->elements)
        return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' claims more elements than the %zu of its storage",
                         spec->name, e->elements);
    return SEGFM_OK;
}

static segfm_status check_tensors(weights_checkpoint *c, segfm_error *error) {
    weights_spec spec;
    char name[WEIGHTS_NAME_MAX];
    c->storages = calloc(c->zip.count + 1, sizeof *c->storages);
    if (c->storages == NULL) return no_memory(error);
    for (size_t i = 0; weights_spec_at(&c->config, i, &spec); i++) {
        entry *e = find(c, spec.name);
        if (e == NULL && !spec.required) continue;
        if (e == NULL) return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' is missing", spec.name);
        segfm_status status = check_shape(e, &spec, error);
        if (status == SEGFM_OK) status = find_storage(c, e, error);
        if (status != SEGFM_OK) return status;
        e->used = true;
    }
    for (size_t i = 0; i < c->count; i++)
        if (!c->entries[i].used)
            return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' is not one of this model's",
                             printable(name, c->entries[i].name, c->entries[i].length));
    return SEGFM_OK;
}

/* ---- interface ----------------------------------------------------------------------------------------------- */

static segfm_status open_checkpoint(weights_checkpoint *c, const unsigned char *bytes, size_t n,
                                    const weights_hints *hints, segfm_error *error) {
    segfm_status status;
    if (io_is_zip(bytes, n)) status = open_torch(c, bytes, n, error);
    else if (weights_is_safetensors(bytes, n)) status = open_safetensors(c, bytes, n, error);
    else if (is_legacy_torch(bytes, n))
        return base_fail(error, SEGFM_BAD_INPUT,
                         "a PyTorch file of the format before 1.6: load it and save it again with a newer PyTorch");
    else return base_fail(error, SEGFM_BAD_INPUT, "neither a PyTorch zip checkpoint nor a safetensors file");
    if (status == SEGFM_OK) status = sort_entries(c, error);
    if (status == SEGFM_OK) status = infer_config(c, hints, error);
    return status == SEGFM_OK ? check_tensors(c, error) : status;
}

segfm_status weights_checkpoint_open(const unsigned char *bytes, size_t n, const weights_hints *hints,
                                     weights_checkpoint **out, segfm_error *error) {
    *out = NULL;
    weights_checkpoint *c = calloc(1, sizeof *c);
    if (c == NULL) return no_memory(error);
    segfm_status status = open_checkpoint(c, bytes, n, hints, error);
    if (status == SEGFM_OK) *out = c;
    else weights_checkpoint_close(c);
    return status;
}

void weights_checkpoint_close(weights_checkpoint *c) {
    if (c == NULL) return;
    for (size_t i = 0; c->storages != NULL && i < c->zip.count; i++) io_buffer_free(&c->storages[i].inflated);
    free(c->variant);
    free(c->provenance);
    free(c->storages);
    free(c->entries);
    io_pickle_free(&c->pickle);
    io_buffer_free(&c->pickle_bytes);
    io_zip_close(&c->zip);
    free(c);
}

const weights_config *weights_checkpoint_config(const weights_checkpoint *c) { return &c->config; }

const char *weights_checkpoint_kind(const weights_checkpoint *c) { return c->kind; }

const char *weights_checkpoint_variant(const weights_checkpoint *c) { return c->variant; }

const char *weights_checkpoint_provenance(const weights_checkpoint *c) { return c->provenance; }

bool weights_checkpoint_has(void *user, const weights_spec *spec) { return find(user, spec->name) != NULL; }

/* ---- values -------------------------------------------------------------------------------------------------- */

static uint64_t load_bits(const unsigned char *p, size_t size, bool big_endian) {
    uint64_t v = 0;
    for (size_t i = 0; i < size; i++) v |= (uint64_t)p[big_endian ? size - 1 - i : i] << (8 * i);
    return v;
}

static float bits_to_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* One element as a float; a double beyond its range becomes infinite. */
static float read_element(io_dtype dtype, const unsigned char *p, bool big_endian) {
    switch (dtype) {
    case IO_F32: return bits_to_float((uint32_t)load_bits(p, 4, big_endian));
    case IO_F16: return base_half_to_float((uint16_t)load_bits(p, 2, big_endian));
    case IO_BF16: return bits_to_float((uint32_t)load_bits(p, 2, big_endian) << 16);
    default: break;
    }
    uint64_t bits = load_bits(p, 8, big_endian);
    double d;
    memcpy(&d, &bits, 8);
    /* halfway between the largest float and 2^128: from there on C leaves the conversion undefined */
    if (!(d < 0x1.ffffffp127) || !(d > -0x1.ffffffp127)) return bits_to_float(0x7F800000U);
    return (float)d;
}

static bool is_finite(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return (bits & 0x7F800000U) != 0x7F800000U;
}

segfm_status weights_checkpoint_source(void *user, const weights_spec *spec, size_t count, float *out,
                                       segfm_error *error) {
    const weights_checkpoint *c = user;
    const entry *e = find(c, spec->name);
    if (e == NULL) return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s' is missing", spec->name);
    size_t at[IO_MAX_DIMS] = {0}, element = e->offset, size = io_dtype_size(e->dtype);
    for (size_t i = 0; i < count; i++) {
        out[i] = read_element(e->dtype, e->data + element * size, c->big_endian);
        if (!is_finite(out[i]))
            return base_fail(error, SEGFM_BAD_INPUT, "tensor '%s': element %zu is not a finite float", spec->name, i);
        /* the next element in C order, wherever its strides put it */
        for (int d = e->ndim - 1; d >= 0; d--) {
            element += e->stride[d];
            if (++at[d] < e->shape[d]) break;
            element -= e->stride[d] * e->shape[d];
            at[d] = 0;
        }
    }
    return SEGFM_OK;
}
