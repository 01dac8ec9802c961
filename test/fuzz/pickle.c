#include "fuzz.h"

/* A node and its children, one level down. */
static void look_at(const io_pickle *p, const io_pickle_node *node) {
    int64_t whole;
    (void)io_pickle_int(node, &whole);
    (void)io_pickle_get(p, node, "model");
    for (uint32_t i = 0; i < node->count && i < 100; i++) {
        const io_pickle_node *child = io_pickle_child(p, node, i);
        fuzz_require(child != NULL);
        (void)io_pickle_int(child, &whole);
        if (child->kind == IO_PICKLE_ARRAY && child->array.dtype != IO_OBJECT && child->array.count > 0)
            (void)io_array_get(&child->array, child->array.count - 1);
    }
    fuzz_require(io_pickle_child(p, node, node->count) == NULL);
}

FUZZ(pickle) {
    io_pickle p = {0};
    segfm_error error = {0};
    if (fuzz_took(io_pickle_parse(bytes, n, &p, &error), &error)) {
        const io_pickle_node *root = &p.nodes[p.root];
        look_at(&p, root);
        for (uint32_t i = 0; i < root->count && i < 100; i++) look_at(&p, io_pickle_child(&p, root, i));
    }
    io_pickle_free(&p);
}
