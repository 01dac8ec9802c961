/* A file that a run only ever appends to, so that a resumed one can cut it back to where its checkpoint was. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "train.h"

static segfm_status fail(const train_log *l, const char *what, segfm_error *error) {
    return io_fail(error, SEGFM_WRITE_FAILED, l->path, what, errno);
}

static segfm_status cut(train_log *l, uint64_t bytes, segfm_error *error) {
    if (fseeko(l->file, 0, SEEK_END) != 0) return fail(l, "cannot be read", error);
    off_t size = ftello(l->file);
    if (size < 0 || (uint64_t)size < bytes) {
        base_fail(error, SEGFM_BAD_INPUT, "has %lld bytes, at the checkpoint it had %llu: it was changed since",
                  (long long)size, (unsigned long long)bytes);
        return base_fail_where(error, SEGFM_BAD_INPUT, l->path);
    }
    if (ftruncate(fileno(l->file), (off_t)bytes) != 0 || fseeko(l->file, (off_t)bytes, SEEK_SET) != 0)
        return fail(l, "cannot be cut back to the checkpoint", error);
    l->bytes = bytes;
    return SEGFM_OK;
}

segfm_status train_log_open(const char *folder, const char *name, const char *header, uint64_t bytes, train_log *out,
                            segfm_error *error) {
    *out = (train_log){0};
    segfm_status status = tool_path(out->path, sizeof out->path, folder, name, error);
    if (status != SEGFM_OK) return status;
    out->file = fopen(out->path, bytes > 0 ? "rb+" : "wb");
    if (out->file == NULL) return fail(out, "cannot be opened for writing", error);
    return bytes > 0 ? cut(out, bytes, error) : train_log_add(out, header, error);
}

segfm_status train_log_add(train_log *l, const char *line, segfm_error *error) {
    size_t length = strlen(line);
    if (fwrite(line, 1, length, l->file) != length || fflush(l->file) != 0) return fail(l, "cannot be written", error);
    l->bytes += length;
    return SEGFM_OK;
}

segfm_status train_log_sync(train_log *l, segfm_error *error) {
    if (fsync(fileno(l->file)) != 0 && errno != EINVAL) return fail(l, "cannot be written", error);
    return SEGFM_OK;
}

void train_log_close(train_log *l) {
    if (l->file != NULL) fclose(l->file);
    *l = (train_log){0};
}
