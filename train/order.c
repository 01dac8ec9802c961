/* The order of a run's samples. */
#include <math.h>

#include "train.h"

/* A shuffle (Fisher and Yates) that depends on seed and pass alone. */
static void shuffle(train_order *o, uint64_t pass) {
    if (o->ready && o->pass == pass) return;
    train_random random = train_random_at(o->seed, pass, TRAIN_STREAM_PASS);
    for (size_t i = 0; i < o->cases; i++) o->turn[i] = i;
    for (size_t i = o->cases; i > 1; i--) {
        size_t j = (size_t)train_random_below(&random, i), kept = o->turn[j];
        o->turn[j] = o->turn[i - 1];
        o->turn[i - 1] = kept;
    }
    o->pass = pass;
    o->ready = true;
}

/* Of the first i samples this many are phantoms': they are spread evenly. */
static uint64_t phantoms_before(const train_order *o, uint64_t i) {
    if (o->cases == 0) return i;
    return (uint64_t)floor((double)i * o->phantoms);
}

train_place train_order_at(train_order *o, uint64_t i) {
    uint64_t phantoms = phantoms_before(o, i), number = phantoms / o->per_phantom;
    if (phantoms_before(o, i + 1) > phantoms) /* the first class of a phantom is not always its class number 0 */
        return (train_place){true, number, number + phantoms % o->per_phantom};
    uint64_t place = i - phantoms, pass = place / o->cases;
    shuffle(o, pass);
    return (train_place){false, o->turn[place % o->cases], pass};
}
