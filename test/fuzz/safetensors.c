#include "fuzz.h"

FUZZ(safetensors) {
    weights_safetensor *tensors = NULL;
    size_t count = 0, data = 0;
    segfm_error error = {0};
    (void)weights_is_safetensors(bytes, n);
    if (!fuzz_took(weights_safetensors_parse(bytes, n, &tensors, &count, &error), &error)) {
        fuzz_require(tensors == NULL && count == 0);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        fuzz_require(tensors[i].begin == data && tensors[i].end >= data);
        fuzz_require(tensors[i].data + (tensors[i].end - tensors[i].begin) <= bytes + n);
        data = tensors[i].end;
    }
    free(tensors);
}
