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

FUZZ(challenge) {
    tool_challenge c;
    segfm_error error = {0};
    unsigned char *mended = fuzz_mended(bytes, n, ".npy");
    if (mended == NULL) return; /* what is no archive is for the target zip */
    const char *path = fuzz_file("case.npz", mended, n);
    free(mended);
    if (fuzz_took(tool_challenge_open(path, &c, &error), &error)) prompt(&c);
    tool_challenge_close(&c);
    tool_labels labels = {0};
    (void)fuzz_took(tool_labels_open(path, "segs", "gts", &labels, &error), &error);
    tool_labels_close(&labels);
}
