/* segfm on a machine that has neither heap nor files: the weights lie in read-only memory, everything else in one static array. A
   made-up scan is segmented from a box and two clicks. Prints what memory that takes, what sessions for other scans would take,
   and hashes of the result, which are the same on every machine (`make footprint` compares them).

   The weights are linked in with `ld -r -b binary weights.segfm`, hence their names. */
#include <segfm.h>

#include <stdint.h>
#include <string.h>
#include <unistd.h> /* write */

extern const unsigned char _binary_weights_segfm_start[], _binary_weights_segfm_end[];

#ifndef MEMORY
#define MEMORY (15 << 20) /* bytes */
#endif
static _Alignas(64) unsigned char memory[MEMORY];
static size_t used;

enum { Z = 20, Y = 72, X = 80, VOXELS = Z * Y * X };

/* ---- output ---------------------------------------------------------------------------------------------------- */

static void say(const char *text) {
    if (write(1, text, strlen(text)) < 0) return; /* there is nobody to tell */
}

/* label, then the number, right-aligned */
static void say_number(const char *label, unsigned long long number, unsigned radix) {
    char line[64];
    size_t at = sizeof line - 1;
    line[at] = '\0';
    line[--at] = '\n';
    do {
        line[--at] = "0123456789abcdef"[number % radix];
        number /= radix;
    } while (number > 0);
    size_t length = strlen(label);
    while (at > length + 1 && at + 44 > sizeof line + length) line[--at] = ' ';
    memcpy(line + at - length, label, length);
    say(line + at - length);
}

static int fail(const segfm_error *error) {
    say(error->message);
    say("\n");
    return 1;
}

/* FNV-1a of n bytes, going on from h. */
static uint64_t hash_of(const void *bytes, size_t n, uint64_t h) {
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001B3U;
    return h;
}

/* ---- the static array ------------------------------------------------------------------------------------------ */

/* The next `bytes` of it, 64-byte aligned; NULL: it is full. */
static void *take(size_t bytes) {
    size_t begin = used;
    if (bytes > sizeof memory - used) return NULL;
    used += (bytes + 63) / 64 * 64;
    if (used > sizeof memory) used = sizeof memory;
    return memory + begin;
}

/* ---- the work --------------------------------------------------------------------------------------------------- */

/* A bright ball in a darker body, with some texture; whole numbers, so that every machine makes the same. */
static void make_scan(float *voxels) {
    for (int z = 0; z < Z; z++)
        for (int y = 0; y < Y; y++)
            for (int x = 0; x < X; x++, voxels++) {
                int dz = 3 * (z - 9), dy = y - 34, dx = x - 41, texture = (z * 7 + y * 5 + x * 3) % 13;
                int body = z > 1 && y > 4 && y < Y - 6 && x > 5 && x < X - 3;
                int ball = dz * dz + dy * dy + dx * dx < 15 * 15;
                *voxels = (float)(ball ? 180 + texture : body ? 90 + texture : texture / 6);
            }
}

/* Bytes of sessions for scans of some sizes. */
static void say_sessions(const segfm_model *model, const segfm_options *options) {
    static const struct {
        const char *label;
        int64_t shape[3];
    } scans[] = {
        {"session, 20x72x80", {Z, Y, X}},
        {"session, 64x64x64", {64, 64, 64}},
        {"session, 64x128x128", {64, 128, 128}},
        {"session, 128x256x256", {128, 256, 256}},
    };
    for (size_t i = 0; i < sizeof scans / sizeof scans[0]; i++) {
        size_t bytes = 0;
        segfm_session_bytes(model, scans[i].shape, options, &bytes, NULL);
        say_number(scans[i].label, bytes, 10); /* 0: more than can be addressed */
    }
}

static segfm_status talk(segfm_session *session, float *voxels, uint8_t *mask, segfm_error *error) {
    segfm_status status = segfm_set_volume(session, voxels, error);
    if (status == SEGFM_OK) status = segfm_box(session, (const int64_t[]){4, 18, 25, 14, 50, 57}, error);
    if (status == SEGFM_OK) status = segfm_click(session, (const int64_t[]){9, 34, 41}, true, error);
    if (status == SEGFM_OK) status = segfm_click(session, (const int64_t[]){9, 60, 70}, false, error);
    if (status == SEGFM_OK) status = segfm_logits(session, voxels, VOXELS, error); /* the scan is not needed any more */
    if (status == SEGFM_OK) status = segfm_mask(session, mask, VOXELS, error);
    return status;
}

int main(void) {
    const unsigned char *weights = _binary_weights_segfm_start;
    size_t size = (size_t)(_binary_weights_segfm_end - weights), model_bytes = 0, session_bytes = 0, inside = 0;
    segfm_error error = {0};
    segfm_model *model;
    segfm_session *session;
    segfm_options options = segfm_options_default();
    options.threads = 1;
    options.max_clicks = 4;
    options.looks = 1;
    options.cache_bytes = 0; /* room for the embedding of one window */
    if (segfm_model_need(weights, size, NULL, &model_bytes, &error) != SEGFM_OK) return fail(&error);
    say_number("weights file", size, 10);
    say_number("model", model_bytes, 10);
    void *place = take(model_bytes);
    if (place == NULL || segfm_model_open_in(weights, size, NULL, place, model_bytes, &model, &error) != SEGFM_OK)
        return fail(&error);
    say_sessions(model, &options);
    if (segfm_session_bytes(model, (const int64_t[]){Z, Y, X}, &options, &session_bytes, &error) != SEGFM_OK)
        return fail(&error);
    float *voxels = take(VOXELS * sizeof *voxels);
    uint8_t *mask = take(VOXELS);
    place = take(session_bytes);
    if (place == NULL) {
        say("the session does not fit\n");
        return 0;
    }
    if (segfm_session_new(model, (const int64_t[]){Z, Y, X}, &options, place, session_bytes, &session, &error) !=
        SEGFM_OK)
        return fail(&error);
    make_scan(voxels);
    if (talk(session, voxels, mask, &error) != SEGFM_OK) return fail(&error);
    for (size_t i = 0; i < VOXELS; i++) inside += mask[i];
    say_number("memory, of all", used, 10);
    say_number("voxels inside", inside, 10);
    say_number("hash of the logits", hash_of(voxels, VOXELS * sizeof *voxels, 0xCBF29CE484222325U), 16);
    say_number("hash of the mask", hash_of(mask, VOXELS, 0xCBF29CE484222325U), 16);
    segfm_session_free(session);
    segfm_model_close(model);
    return 0;
}
