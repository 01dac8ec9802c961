/* train/order.c: every case once in a pass, classes in turn, phantoms in their share, any place without those before. */
#include "test.h"

#include "../train/train.h"

enum { CASES = 7, SAMPLES = 700 };

static void check_passes(void) {
    size_t turn[CASES], orders = 0;
    train_order o = {.seed = 5, .cases = CASES, .per_phantom = 1, .turn = turn};
    bool each = true, turns = true;
    size_t before[CASES] = {0};
    for (uint64_t pass = 0; pass < SAMPLES / CASES; pass++) {
        unsigned seen = 0;
        size_t now[CASES];
        for (uint64_t i = 0; i < CASES; i++) {
            train_place p = train_order_at(&o, pass * CASES + i);
            each = each && !p.phantom && p.number < CASES;
            turns = turns && p.turn == pass;
            now[i] = (size_t)p.number;
            seen |= 1U << p.number;
        }
        each = each && seen == (1U << CASES) - 1;
        orders += memcmp(now, before, sizeof now) != 0;
        memcpy(before, now, sizeof now);
    }
    CHECK(each);
    CHECK(turns);
    CHECK(orders > 90); /* of 100 passes, each in an order of its own */
}

static void check_any_place(void) {
    size_t turn[CASES], other[CASES];
    train_order o = {.seed = 9, .cases = CASES, .phantoms = 0.3, .per_phantom = 4, .turn = turn};
    bool same = true;
    size_t phantoms = 0;
    uint64_t next = 0;
    for (uint64_t i = 0; i < SAMPLES; i++) {
        train_order alone = {.seed = 9, .cases = CASES, .phantoms = 0.3, .per_phantom = 4, .turn = other};
        train_place a = train_order_at(&o, i), b = train_order_at(&alone, i);
        same = same && a.phantom == b.phantom && a.number == b.number && a.turn == b.turn;
        if (!a.phantom) {
            same = same && a.turn == (i - next) / CASES; /* the pass, of cases alone */
            continue;
        }
        same = same && a.number == next / 4 && a.turn == next / 4 + next % 4;
        next++;
        phantoms++;
    }
    CHECK(same);
    CHECK(phantoms == 210);
    o = (train_order){.seed = 9, .per_phantom = 3};
    CHECK(train_order_at(&o, 8).phantom && train_order_at(&o, 8).number == 2 && train_order_at(&o, 8).turn == 4);
}

int main(void) {
    check_passes();
    check_any_place();
    return test_summary();
}
