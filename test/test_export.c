/* A weights file as a PyTorch checkpoint and back: the same bytes, without Python. tools/reference/verify_checkpoints.py loads
   such files with PyTorch itself. */
#include "micro.h"
#include "test.h"

static bool has_all(void *user, const weights_spec *spec) {
    (void)user, (void)spec;
    return true;
}

static io_buffer framed(uint32_t frame, const weights_write_options *options) {
    io_buffer b = {0};
    weights_config c = micro;
    c.frame = frame;
    CHECK(weights_write(&c, options, weights_formula_source, NULL, weights_sink_buffer, &b, NULL) == SEGFM_OK);
    return b;
}

static io_buffer written(const weights_write_options *options) { return framed(0, options); }

static io_buffer exported(const io_buffer *weights) {
    io_buffer b = {0};
    weights_file file;
    segfm_error error = {0};
    CHECK(weights_open(weights->data, weights->size, &file, NULL) == SEGFM_OK);
    if (!CHECK(weights_export(&file, weights_sink_buffer, &b, &error) == SEGFM_OK)) printf("    %s\n", error.message);
    weights_close(&file);
    return b;
}

/* checkpoint → weights file, with nothing told beside it. */
static io_buffer imported(const io_buffer *checkpoint, bool half) {
    const weights_hints none = {0};
    io_buffer b = {0};
    weights_checkpoint *c = NULL;
    segfm_error error = {0};
    if (!CHECK(weights_checkpoint_open(checkpoint->data, checkpoint->size, &none, &c, &error) == SEGFM_OK)) {
        printf("    %s\n", error.message);
        return b;
    }
    CHECK(strcmp(weights_checkpoint_kind(c), "PyTorch checkpoint, layout (c)") == 0);
    weights_write_options options = {half, weights_checkpoint_variant(c), weights_checkpoint_provenance(c),
                                     weights_checkpoint_has};
    CHECK(options.variant != NULL && options.provenance != NULL);
    CHECK(weights_write(weights_checkpoint_config(c), &options, weights_checkpoint_source, c, weights_sink_buffer, &b,
                        NULL) == SEGFM_OK);
    weights_checkpoint_close(c);
    return b;
}

static bool same_bytes(const io_buffer *a, const io_buffer *b) {
    return a->size == b->size && a->size > 0 && memcmp(a->data, b->data, a->size) == 0;
}

static void check_round_trip(uint32_t frame, const weights_write_options *options) {
    io_buffer weights = framed(frame, options), checkpoint = exported(&weights),
              back = imported(&checkpoint, options->half), again = exported(&back);
    CHECK(same_bytes(&weights, &back));
    CHECK(same_bytes(&checkpoint, &again));
    io_buffer_free(&weights);
    io_buffer_free(&checkpoint);
    io_buffer_free(&back);
    io_buffer_free(&again);
}

static void test_round_trips(void) {
    check_round_trip(0, &(weights_write_options){false, "seed", "made for the test", has_all});
    check_round_trip(0, &(weights_write_options){false, "upstream", "", NULL});
    check_round_trip(25, &(weights_write_options){false, "seed", "with a window that follows the box", has_all});
    check_round_trip(1000, &(weights_write_options){true, "upstream", "", NULL});
    check_round_trip(
        0, &(weights_write_options){true, "seed", "caf\xC3\xA9 \xE2\x86\x92 \xF0\x9F\x8C\xB1\n'\"\\", has_all});
}

/* What is no UTF-8 would keep Python from reading the file. */
static void test_provenance(void) {
    static const char *const bad[] = {"r\xE9sum\xE9.pth", "\xC3", "\xE2\x86", "\xED\xA0\x80", "\xC0\xAF"},
                             *const good[] = {"r?sum?.pth", "?", "??", "???", "??"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        io_buffer weights = written(&(weights_write_options){false, "seed", bad[i], NULL}),
                  checkpoint = exported(&weights), back = imported(&checkpoint, false);
        weights_file file;
        CHECK(weights_open(back.data, back.size, &file, NULL) == SEGFM_OK && strcmp(file.provenance, good[i]) == 0);
        weights_close(&file);
        io_buffer_free(&weights);
        io_buffer_free(&checkpoint);
        io_buffer_free(&back);
    }
}

/* Halves become the floats that they are; storages begin at multiples of 64; what nothing runs is there, as zeros. */
static void test_content(void) {
    io_buffer weights = written(&(weights_write_options){true, "seed", "", NULL}), checkpoint = exported(&weights);
    weights_file file;
    io_zip zip;
    const unsigned char *data = NULL;
    char name[64];
    CHECK(weights_open(weights.data, weights.size, &file, NULL) == SEGFM_OK);
    CHECK(io_zip_open(checkpoint.data, checkpoint.size, &zip, NULL) == SEGFM_OK);
    CHECK(zip.count == file.count + 13); /* data.pkl, byteorder, version, ten unused */
    size_t wrong = 0, halves = 0, apart = 0, not_zero = 0;
    for (size_t i = 0; i < file.count + 10; i++) {
        const weights_tensor *t = i < file.count ? &file.tensors[i] : NULL;
        snprintf(name, sizeof name, "archive/data/%zu", i);
        const io_zip_entry *e = io_zip_find(&zip, name);
        if (!CHECK(e != NULL && io_zip_view(&zip, e, &data, NULL) == SEGFM_OK)) continue;
        apart += e->data_offset % 64 != 0;
        for (size_t k = 0; t == NULL && k < e->size; k++) not_zero += data[k] != 0;
        if (t == NULL) continue;
        CHECK(e->size == 4 * t->count);
        halves += t->dtype == IO_F16;
        real *want = malloc(t->count * sizeof *want);
        CHECK(weights_load(t, want, NULL) == SEGFM_OK);
        for (size_t k = 0; k < t->count; k++) {
            uint32_t bits = base_le32(data + 4 * k);
            float f;
            memcpy(&f, &bits, 4);
            wrong += (real)f != want[k];
        }
        free(want);
    }
    CHECK(halves > 10 && wrong == 0 && apart == 0 && not_zero == 0);
    CHECK(io_zip_view(&zip, io_zip_find(&zip, "archive/version"), &data, NULL) == SEGFM_OK && data[0] == '3');
    io_zip_close(&zip);
    weights_close(&file);
    io_buffer_free(&weights);
    io_buffer_free(&checkpoint);
}

/* Any flipped bit is noticed, by weights_open or by the export, before a byte is written. */
static void test_damage(void) {
    io_buffer weights = written(&(weights_write_options){false, "seed", "", NULL}), out = {0};
    size_t unseen = 0, untold = 0;
    for (size_t i = 0; i < weights.size; i++) {
        weights_file file;
        segfm_error error = {0};
        weights.data[i] ^= (unsigned char)(1U << i % 8);
        if (weights_open(weights.data, weights.size, &file, &error) == SEGFM_OK) {
            unseen += weights_export(&file, weights_sink_buffer, &out, &error) != SEGFM_BAD_INPUT;
            weights_close(&file);
        }
        untold += error.message[0] == '\0';
        weights.data[i] ^= (unsigned char)(1U << i % 8);
    }
    CHECK(unseen == 0 && untold == 0 && out.size == 0);
    io_buffer_free(&weights);
    io_buffer_free(&out);
}

/* Takes so many calls, then has no room. */
static segfm_status full_after(void *user, const void *bytes, size_t n, segfm_error *error) {
    (void)bytes, (void)n;
    size_t *left = user;
    return (*left)-- > 0 ? SEGFM_OK : base_fail(error, SEGFM_WRITE_FAILED, "full");
}

static void test_full_disk(void) {
    io_buffer weights = written(&(weights_write_options){false, "seed", "", NULL});
    weights_file file;
    size_t finished = 0;
    CHECK(weights_open(weights.data, weights.size, &file, NULL) == SEGFM_OK);
    for (size_t calls = 0; finished == 0 && calls < 1000; calls++) {
        size_t left = calls;
        segfm_error error = {0};
        segfm_status status = weights_export(&file, full_after, &left, &error);
        if (status == SEGFM_OK) finished = calls;
        else if (status != SEGFM_WRITE_FAILED || strcmp(error.message, "full") != 0) break;
    }
    CHECK(finished > 2 * file.count);
    weights_close(&file);
    io_buffer_free(&weights);
}

/* An entry 'segfm' that somebody else wrote. */
static void refuse_own(const char *own, const char *message) {
    const weights_hints none = {0};
    io_buffer pickle = {0};
    io_zip_writer w = {0};
    weights_checkpoint *c = NULL;
    segfm_error error = {0};
    static const char head[] = "\x80\x02}(X\x10\0\0\0model_state_dict}X\x05\0\0\0segfm";
    CHECK(io_buffer_append(&pickle, head, sizeof head - 1, NULL) == SEGFM_OK);
    CHECK(io_buffer_append(&pickle, own, strlen(own), NULL) == SEGFM_OK);
    CHECK(io_buffer_append(&pickle, "u.", 2, NULL) == SEGFM_OK);
    CHECK(io_zip_add(&w, "x/data.pkl", pickle.data, pickle.size, NULL) == SEGFM_OK);
    CHECK(io_zip_finish(&w, NULL) == SEGFM_OK);
    CHECK(weights_checkpoint_open(w.archive.data, w.archive.size, &none, &c, &error) == SEGFM_BAD_INPUT && c == NULL);
    if (!CHECK(strstr(error.message, message) != NULL)) printf("    got '%s', want '%s'\n", error.message, message);
    io_buffer_free(&pickle);
    io_zip_writer_free(&w);
}

#define THREE "(K\x02K\x04K\x06t"
#define SIZES "}(Vspatial\n" THREE "Vpatch\n" THREE "Vheads\nK\x01Vdecoder_heads\nK\x01"

static void test_own_refused(void) {
    refuse_own("K\x01", "position_embeddings' is missing"); /* not ours */
    refuse_own("}", "needs 'spatial': 3 numbers");
    refuse_own("}(Vspatial\n(K\x02K\x04tu", "needs 'spatial': 3 numbers");
    refuse_own("}(Vspatial\n(K\x02K\x04K\x06K\x01tu", "needs 'spatial': 3 numbers");
    refuse_own("}(Vspatial\n(K\x02K\x04Ntu", "needs 'spatial': 3 numbers");
    refuse_own("}(Vspatial\n(I2\nI4\nI-6\ntu", "needs 'spatial': 3 numbers");
    refuse_own("}(Vspatial\n(I2\nI4\nI1048577\ntu", "needs 'spatial': 3 numbers");
    refuse_own("}(Vspatial\n" THREE "u", "needs 'patch': 3 numbers");
    refuse_own(SIZES "Vframe\nI0\nu", "needs 'frame': 1 numbers");
    refuse_own(SIZES "Vframe\nNu", "needs 'frame': 1 numbers");
    refuse_own(SIZES "Vframe\nK\x19u", "needs 'variant', a text");
    refuse_own(SIZES "u", "needs 'variant', a text");
    refuse_own(SIZES "Vvariant\nNu", "needs 'variant', a text");
    refuse_own(SIZES "Vvariant\nVseed\nu", "needs 'provenance', a text");
    refuse_own(SIZES "Vvariant\nVseeds\nVprovenance\nVx\nu", "neither seed nor upstream");
    refuse_own(SIZES "Vvariant\nVseed\nVprovenance\nVx\nu", "position_embeddings' is missing");
}

int main(void) {
    test_round_trips();
    test_provenance();
    test_content();
    test_damage();
    test_full_disk();
    test_own_refused();
    return test_summary();
}
