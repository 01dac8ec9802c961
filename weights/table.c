/* table: an opened weights file with its tensors in memory, for those who go through them or look them up by name. */
#include "layout.h"

#include <stdlib.h>
#include <string.h>

/* The tensors in file order are followed, in the same allocation, by pointers to them in the order of their names. */
static const weights_tensor **name_index(const weights_file *w) {
    return (const weights_tensor **)(void *)(w->tensors + w->count);
}

static int compare_names(const void *a, const void *b) {
    const weights_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

segfm_status weights_open(const unsigned char *bytes, size_t n, weights_file *out, segfm_error *error) {
    segfm_status status = weights_open_bare(bytes, n, out, error);
    if (status != SEGFM_OK) return status;
    /* the table lies in the file, and this takes no more */
    _Static_assert(sizeof *out->tensors + sizeof(weights_tensor *) <= LAYOUT_ENTRY_BYTES, "more than an entry");
    size_t size = out->count * (sizeof *out->tensors + sizeof(weights_tensor *));
    out->tensors = malloc(size);
    if (out->tensors == NULL) {
        weights_close(out);
        return base_fail(error, SEGFM_NO_MEMORY, "out of memory, need %zu bytes", size);
    }
    const weights_tensor **index = name_index(out);
    for (size_t i = 0; i < out->count; i++) {
        out->tensors[i] = weights_at(out, i);
        index[i] = &out->tensors[i];
    }
    qsort(index, out->count, sizeof *index, compare_names);
    return SEGFM_OK;
}

void weights_close(weights_file *w) {
    free(w->tensors);
    memset(w, 0, sizeof *w);
}

const weights_tensor *weights_find(const weights_file *w, const char *name) {
    if (w->count == 0) return NULL;
    const weights_tensor **index = name_index(w);
    size_t low = 0, high = w->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, index[middle]->name);
        if (order == 0) return index[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}
