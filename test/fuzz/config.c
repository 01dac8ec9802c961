#include "../../tools/train.h"
#include "fuzz.h"

/* Settings that were read are written as text that reads back to the same settings. */
static void settings_round_trip(const train_settings *s) {
    train_settings again;
    io_buffer text = {0};
    segfm_error error = {0};
    train_settings_default(&again);
    fuzz_require(train_settings_write(s, false, &text, &error) == SEGFM_OK);
    fuzz_require(train_settings_read(&again, (const char *)text.data, &error) == SEGFM_OK);
    fuzz_require(train_settings_same(s, &again, &error) == SEGFM_OK);
    fuzz_require(train_settings_hash(s) == train_settings_hash(&again));
    io_buffer_free(&text);
}

FUZZ(config) {
    train_settings s;
    segfm_error error = {0};
    char *text = malloc(n + 1);
    if (text == NULL) return;
    memcpy(text, bytes, n);
    text[n] = '\0';
    train_settings_default(&s);
    if (fuzz_took(train_settings_read(&s, text, &error), &error)) {
        (void)fuzz_took(train_settings_check(&s, &error), &error);
        settings_round_trip(&s);
    }
    free(text);
}
