/* What a click spreads to, against the formula of vol.h in double, with distances to every voxel there is. */
#include "../vol/vol.h"
#include "random.h"
#include "test.h"

/* ---- the oracle -------------------------------------------------------------------------------------------------- */

static void place_of(size_t i, vol_shape s, int64_t at[3]) {
    for (int k = 2; k >= 0; k--) at[k] = (int64_t)i % s.n[k], i /= (size_t)s.n[k];
}

static double distance_between(size_t a, size_t b, vol_shape s) {
    int64_t p[3], q[3], sum = 0;
    place_of(a, s, p), place_of(b, s, q);
    for (int k = 0; k < 3; k++) sum += (p[k] - q[k]) * (p[k] - q[k]);
    return sqrt((double)sum);
}

static double mean_near(const real *image, vol_shape s, size_t i) {
    int64_t p[3], q[3];
    double sum = 0, count = 0;
    place_of(i, s, p);
    for (size_t j = 0; j < vol_count(s); j++) {
        place_of(j, s, q);
        if (llabs(p[0] - q[0]) <= 1 && llabs(p[1] - q[1]) <= 1 && llabs(p[2] - q[2]) <= 1)
            sum += (double)image[j], count++;
    }
    return sum / count;
}

/* To the nearest voxel but the click's that is labelled as the click is. */
static double to_agreeing(const real *logits, vol_shape s, size_t click, bool label, size_t i) {
    double least = INFINITY;
    for (size_t j = 0; j < vol_count(s); j++)
        if (j != click && (logits[j] > 0) == label) least = fmin(least, distance_between(i, j, s));
    return isfinite(least) ? least : 20;
}

typedef struct click_case {
    vol_shape shape;
    real *image, *logits;
    vol_point_click click;
    size_t centre;
    double depth, level;
} click_case;

/* The log odds of voxel i, which is labelled otherwise or is the click's own. */
static double odds_of(const click_case *c, size_t i) {
    double d = distance_between(i, c->centre, c->shape), r = c->depth;
    double e = to_agreeing(c->logits, c->shape, c->centre, c->click.label == 1, i);
    double odds = 3.2 + 0.3 * r - d * (0.6 / r + 0.15) - e * (0.45 / r + 0.3) -
                  1.2 * fabs(mean_near(c->image, c->shape, i) - c->level);
    if (d > 3.5 * r + 3) odds = -1;
    if (i == c->centre) odds = fmax(odds, 4);
    return fmin(odds, 8);
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static size_t spread_with(const click_case *c, int threads, int64_t *voxel, real *value) {
    void *scratch = aligned_alloc(NN_ALIGN, vol_spread_scratch(c->shape, threads));
    size_t n = vol_spread(c->image, c->logits, c->shape, &c->click, threads, scratch, voxel, value);
    free(scratch);
    return n;
}

/* Returns how many it spreads to. */
static size_t check_case(click_case *c) {
    size_t count = vol_count(c->shape), at = 0, wrong = 0;
    const int64_t *p = c->click.at, *s = c->shape.n;
    int64_t *voxel = malloc(count * sizeof *voxel), *again = malloc(count * sizeof *again);
    real *value = malloc(count * sizeof *value), *repeated = malloc(count * sizeof *repeated);
    bool label = c->click.label == 1, ordered = true, in_range = true, has_own = false;
    c->centre = (size_t)((p[0] * s[1] + p[1]) * s[2] + p[2]);
    c->depth = to_agreeing(c->logits, c->shape, c->centre, label, c->centre);
    c->level = mean_near(c->image, c->shape, c->centre);
    size_t n = spread_with(c, 1, voxel, value);
    for (size_t i = 0; i < n; i++) {
        double strength = label ? (double)value[i] : -(double)value[i];
        ordered = ordered && voxel[i] >= 0 && voxel[i] < (int64_t)count && (i == 0 || voxel[i] > voxel[i - 1]);
        in_range = in_range && strength > 0 && strength <= 8;
        if (voxel[i] == (int64_t)c->centre) has_own = strength >= 4;
    }
    CHECK(n >= 1 && n <= count && ordered && in_range && has_own);
    for (size_t i = 0; i < count; i++) {
        bool given = at < n && voxel[at] == (int64_t)i, other = (c->logits[i] > 0) != label || i == c->centre;
        double want = other ? odds_of(c, i) : -1, got = !given ? 0 : label ? (double)value[at] : -(double)value[at];
        bool right = given ? fabs(got - want) <= 1e-6 : want <= 1e-9;
        wrong += right ? 0 : 1;
        at += given;
    }
    if (!CHECK(wrong == 0 && at == n))
        printf("    click %lld,%lld,%lld label %d: %zu of %zu voxels are wrong\n", (long long)p[0], (long long)p[1],
               (long long)p[2], c->click.label, wrong, count);
    for (int threads = 2; threads <= 3; threads++)
        CHECK(spread_with(c, threads, again, repeated) == n && memcmp(again, voxel, n * sizeof *voxel) == 0 &&
              memcmp(repeated, value, n * sizeof *value) == 0);
    free(voxel), free(again), free(value), free(repeated);
    return n;
}

/* Logits of a ball around a voxel, which are `sign`, and of the rest. */
static void make_ball(click_case *c, const int64_t middle[3], double radius, double sign) {
    int64_t p[3];
    for (size_t i = 0; i < vol_count(c->shape); i++) {
        double sum = 0;
        place_of(i, c->shape, p);
        for (int k = 0; k < 3; k++) sum += (double)((p[k] - middle[k]) * (p[k] - middle[k]));
        c->logits[i] = (real)(sqrt(sum) <= radius ? sign : -sign);
    }
}

static const vol_shape shapes[] = {{{5, 9, 13}}, {{11, 6, 8}}, {{1, 7, 20}}, {{3, 1, 1}}, {{1, 1, 1}}, {{10, 12, 7}}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* A corner, the one across, amid a border, the middle. */
static void place_click(click_case *c, int place) {
    for (int k = 0; k < 3; k++) {
        int64_t last = c->shape.n[k] - 1;
        c->click.at[k] = place == 0 || (place == 2 && k == 1) ? 0 : place == 1 ? last : last / 2;
    }
}

/* Every label at random, then balls that are wrong, of many sizes. Clicks on voxels of both labels, with both labels. */
static void test_random(void) {
    size_t spread = 0, right = 0;
    for (unsigned i = 0; i < 2 * SHAPES * 4 * 2; i++) {
        click_case c = {.shape = shapes[i / 2 % SHAPES], .click = {.label = (int)i % 2}};
        size_t n = vol_count(c.shape);
        c.image = random_reals(10 + i, n, -3, 3);
        c.logits = random_reals(900 + i, n, -5, 5);
        place_click(&c, (int)(i / (2 * SHAPES) % 4));
        if (i >= 2 * SHAPES * 4) make_ball(&c, c.click.at, 1 + i % 5, c.click.label == 1 ? -2 : 2);
        size_t reached = check_case(&c);
        spread += reached > 1;
        right += (c.logits[c.centre] > 0) == (c.click.label == 1);
        free(c.image), free(c.logits);
    }
    CHECK(spread > 20 && right > 5); /* else there is little to see */
}

/* A click that changes nothing of the label it hits: its own voxel is written all the same. */
static void test_right_already(void) {
    for (int label = 0; label < 2; label++) {
        click_case c = {.shape = {{6, 9, 8}}, .click = {.label = label, .at = {3, 4, 4}}};
        c.image = random_reals(5, vol_count(c.shape), -0.1, 0.1);
        c.logits = random_reals(6, vol_count(c.shape), 0.5, 4);
        for (size_t i = 0; label == 0 && i < vol_count(c.shape); i++) c.logits[i] = -c.logits[i];
        CHECK(check_case(&c) == 1);
        CHECK(c.depth == 1);
        free(c.image), free(c.logits);
    }
}

/* No voxel has the click's label: each is 20 away from one, and where all is as bright the click fills what is within 15. A logit
   of 0 is no foreground. */
static void test_nowhere(void) {
    for (int label = 0; label < 2; label++) {
        click_case c = {.shape = {{7, 11, 9}}, .click = {.label = label, .at = {2, 10, 4}}};
        size_t n = vol_count(c.shape);
        c.image = random_reals(7, n, 0.3, 0.30001);
        c.logits = random_reals(8, n, 0.1, 4);
        for (size_t i = 0; label == 1 && i < n; i++) c.logits[i] = i % 3 == 0 ? 0 : -c.logits[i];
        CHECK(check_case(&c) == n && c.depth == 20);
        free(c.image), free(c.logits);
    }
}

/* What is not as bright is left alone, and what is brighter as much as what is darker. */
static void test_brightness(void) {
    click_case c = {.shape = {{9, 11, 13}}, .click = {.label = 1, .at = {4, 5, 6}}};
    size_t n = vol_count(c.shape), reached[3];
    c.image = random_reals(9, n, 0, 0.001);
    c.logits = random_reals(9, n, 0, 1);
    make_ball(&c, c.click.at, 4, -3);
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < n; i++) c.image[i] = (real)(kind == 0 || i % 13 <= 6 ? 1 : kind == 1 ? 5 : -3);
        reached[kind] = check_case(&c);
    }
    CHECK(reached[1] < reached[0] && reached[1] == reached[2]);
    free(c.image), free(c.logits);
}

/* Balls of all sizes; and a long error, in which the odds grow beyond 8 away from the click and are cut. */
static void test_deep(void) {
    for (int label = 0; label < 2; label++)
        for (int radius = 0; radius < 10; radius++) {
            click_case c = {.shape = {{12, 13, 14}}, .click = {.label = label, .at = {6, 6, 6}}};
            if (radius == 9) c.shape = (vol_shape){{1, 1, 161}}, c.click = (vol_point_click){{0, 0, 80}, label};
            size_t n = vol_count(c.shape), cut = 0;
            int64_t voxel[12 * 13 * 14];
            real value[12 * 13 * 14];
            c.image = random_reals(11, n, 0, 0.01);
            c.logits = random_reals(12, n, 0, 1);
            make_ball(&c, c.click.at, radius == 9 ? 79 : radius, label == 1 ? -1 : 1);
            size_t reached = check_case(&c), given = spread_with(&c, 1, voxel, value);
            for (size_t i = 0; i < given; i++) cut += value[i] == (label == 1 ? 8 : -8);
            CHECK(given == reached && (cut > 10) == (radius == 9));
            free(c.image), free(c.logits);
        }
}

int main(void) {
    test_random();
    test_right_already();
    test_nowhere();
    test_brightness();
    test_deep();
    return test_summary();
}
