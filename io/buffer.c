#include "io.h"

#include <stdlib.h>
#include <string.h>

void io_buffer_free(io_buffer *b) {
    free(b->data);
    *b = (io_buffer){0};
}

segfm_status io_buffer_reserve(io_buffer *b, size_t capacity, segfm_error *error) {
    if (capacity <= b->capacity) return SEGFM_OK;
    /* Doubling keeps a long row of appends linear; when memory is short, exactly what was asked for may still fit. */
    size_t generous = b->capacity > SIZE_MAX / 2 ? SIZE_MAX : b->capacity * 2;
    if (generous < capacity) generous = capacity;
    unsigned char *data = realloc(b->data, generous);
    if (data == NULL && generous > capacity) {
        generous = capacity;
        data = realloc(b->data, generous);
    }
    if (data == NULL) return base_fail(error, SEGFM_NO_MEMORY, "found no memory for a buffer of %zu bytes", capacity);
    b->data = data;
    b->capacity = generous;
    return SEGFM_OK;
}

segfm_status io_buffer_append(io_buffer *b, const void *bytes, size_t n, segfm_error *error) {
    if (n == 0) return SEGFM_OK; /* bytes may be NULL then, which memcpy does not allow */
    size_t size;
    if (!base_add(b->size, n, &size))
        return base_fail(error, SEGFM_NO_MEMORY, "a buffer of %zu bytes cannot grow by %zu", b->size, n);
    segfm_status status = io_buffer_reserve(b, size, error);
    if (status != SEGFM_OK) return status;
    memcpy(b->data + b->size, bytes, n);
    b->size = size;
    return SEGFM_OK;
}
