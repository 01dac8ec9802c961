#include "fuzz.h"

static void read_member(const io_zip *zip, const io_zip_entry *e) {
    io_buffer out = {0};
    const unsigned char *view = NULL;
    segfm_error error = {0};
    fuzz_require(io_zip_find(zip, e->name) == e);
    fuzz_require(e->data_offset <= zip->size && e->compressed_size <= zip->size - e->data_offset);
    if (e->size <= FUZZ_MOST && io_zip_read(zip, e, &out, &error) == SEGFM_OK) fuzz_require(out.size == e->size);
    if (io_zip_view(zip, e, &view, &error) == SEGFM_OK) fuzz_require(view == zip->bytes + e->data_offset);
    io_buffer_free(&out);
}

FUZZ(zip) {
    io_zip zip = {0};
    segfm_error error = {0};
    if (!fuzz_took(io_zip_open(bytes, n, &zip, &error), &error)) return;
    for (size_t i = 0; i < zip.count && i < 16; i++) read_member(&zip, &zip.entries[i]);
    io_zip_close(&zip);
}
