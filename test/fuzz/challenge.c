#include "model.h"

static segfm_model *open_micro(void) {
    static segfm_model *model; /* for all inputs; libFuzzer ends without a last call */
    io_buffer bytes = {0};
    segfm_error error = {0};
    if (model != NULL) return model;
    fuzz_micro(&bytes);
    fuzz_require(segfm_model_open(bytes.data, bytes.size, NULL, &model, &error) == SEGFM_OK);
    io_buffer_free(&bytes);
    return model;
}

/* The prompts of a few classes on a small scan. */
static void prompt(const tool_challenge *c) {
    segfm_session *session = NULL;
    segfm_error error = {0};
    segfm_options options = segfm_options_default();
    options.threads = 1;
    options.zoom_only = true;
    options.max_clicks = 4;
    options.cache_bytes = 1 << 10; /* memory that is soon made */
    if (c->scan.count > 4096) return;
    if (segfm_session_new(open_micro(), c->scan.shape, &options, NULL, 0, &session, &error) != SEGFM_OK) return;
    if (segfm_set_volume(session, c->scan.voxels, &error) == SEGFM_OK)
        for (uint32_t i = 0; i < c->classes && i < 3; i++) {
            bool prompted;
            segfm_reset(session);
            (void)fuzz_took(tool_challenge_prompt(c, i, session, &prompted, &error), &error);
        }
    segfm_session_free(session);
}

/* Gives stored members the checksums of what they hold, else hardly an input would be read farther than those. False for what
   is no archive. That and wrong checksums are for the target zip. */
static bool mend(unsigned char *bytes, size_t n) {
    enum { LOCAL = 0x04034B50, CENTRAL = 0x02014B50 }; /* headers; their checksums stand 14 and 16 bytes behind */
    io_zip zip;
    segfm_error error = {0};
    if (io_zip_open(bytes, n, &zip, &error) != SEGFM_OK) return false;
    for (const io_zip_entry *e = zip.entries; e < zip.entries + zip.count; e++) {
        uint32_t crc = io_crc32(0, bytes + e->data_offset, (size_t)e->compressed_size);
        for (size_t at = 0; e->method == 0 && crc != e->crc && at + 20 <= n; at++) {
            uint32_t head = base_le32(bytes + at);
            unsigned char *to = bytes + at + (head == LOCAL ? 14 : 16);
            if ((head == LOCAL || head == CENTRAL) && base_le32(to) == e->crc) base_put_le32(to, crc);
        }
    }
    io_zip_close(&zip);
    return true;
}

FUZZ(challenge) {
    tool_challenge c;
    segfm_error error = {0};
    unsigned char *mended = malloc(n + 1);
    if (mended == NULL) return;
    if (n > 0) memcpy(mended, bytes, n);
    bool archive = mend(mended, n);
    const char *path = archive ? fuzz_file("case.npz", mended, n) : NULL;
    free(mended);
    if (!archive) return;
    if (fuzz_took(tool_challenge_open(path, &c, &error), &error)) prompt(&c);
    tool_challenge_close(&c);
    tool_labels labels = {0};
    (void)fuzz_took(tool_labels_open(path, "segs", "gts", &labels, &error), &error);
    tool_labels_close(&labels);
}
