/* The corrector against PyTorch's float64 (test/fixtures/gru.npz), and what the sequence promises. */
#include "../nn/segvol/segvol.h"
#include "fixture.h"
#include "odd_sizes.h"
#include "random.h"
#include "tolerances.h"

typedef struct network {
    segvol_model net;
    segvol_corrector corrector;
    void *memory;
} network;

static bool has_all(void *user, const weights_spec *spec) { return (void)user, (void)spec, true; }

static segfm_status lay_out(network *n, const weights_file *file, size_t max_steps, int threads, nn_arena *arena,
                            segfm_error *error) {
    segfm_status status = segvol_model_bind(&n->net, file, true, arena, threads, NULL, NULL, error);
    if (status != SEGFM_OK) return status;
    return segvol_corrector_plan(&n->corrector, &n->net, max_steps, threads, arena, error);
}

static network network_open(const weights_config *config, bool offsets, bool half, size_t max_steps, int threads) {
    network n = {0};
    io_buffer bytes = {0};
    weights_file file;
    segfm_error error = {0};
    nn_arena arena = {0};
    weights_write_options options = {.half = half, .variant = "seed", .provenance = "test"};
    if (offsets) options.has = has_all;
    CHECK(weights_write(config, &options, weights_formula_source, NULL, weights_sink_buffer, &bytes, &error) ==
          SEGFM_OK);
    CHECK(weights_open(bytes.data, bytes.size, &file, &error) == SEGFM_OK);
    CHECK(lay_out(&n, &file, max_steps, threads, &arena, &error) == SEGFM_OK);
    size_t need = arena.used;
    n.memory = aligned_reals(need / sizeof(real) + 1);
    arena = (nn_arena){.base = n.memory, .capacity = need - 1};
    CHECK(lay_out(&n, &file, max_steps, threads, &arena, &error) == SEGFM_NO_MEMORY);
    arena = (nn_arena){.base = n.memory, .capacity = need};
    CHECK(lay_out(&n, &file, max_steps, threads, &arena, &error) == SEGFM_OK && arena.used == need);
    weights_close(&file);
    io_buffer_free(&bytes);
    return n;
}

static void check_close(const char *name, size_t step, const real *got, const fixture_array *want, size_t first,
                        size_t n) {
    if (!CHECK(first + n <= want->array.count)) return;
    distance d = distance_of(got, want->values + first, n);
    if (!test_check(d.finite && !d.reference_is_zero && d.max_abs <= tolerance_corrector.max_abs &&
                        d.relative_l2 <= tolerance_corrector.relative_l2,
                    name, __FILE__, __LINE__) ||
        getenv("TEST_VERBOSE") != NULL)
        printf("    step %zu, %s: max abs %.2e, relative L2 %.2e\n", step, name, d.max_abs, d.relative_l2);
}

/* Upstream's five blocks: hidden state and probabilities of every step. */
static void test_against_pytorch(int threads) {
    enum { HIDDEN = 26, K = 11, STEPS = 5 };
    weights_config config = odd_config(STEPS, HIDDEN, K);
    fixture f = fixture_open("test/fixtures/gru.npz");
    fixture_array rows = fixture_read(&f, "rows"), coords = fixture_read(&f, "coords");
    network n = network_open(&config, false, false, STEPS, threads);
    real coordinates[6 * K], delta[2 * K], offset[6 * K], prob[2 * K];
    for (size_t i = 0; i < 6 * K; i++) coordinates[i] = (real)coords.values[i];
    CHECK(rows.array.count == STEPS * 16 * K);
    for (size_t s = 0; s < STEPS; s++) {
        char name[32];
        for (size_t i = 0; i < 16 * K; i++) n.corrector.rows[s * 16 * K + i] = (real)rows.values[s * 16 * K + i];
        segvol_corrector_step(&n.net, &n.corrector, s, coordinates, delta, offset);
        base_format(name, sizeof name, "step%zu.states", s);
        fixture_array want = fixture_read(&f, name);
        check_close("hidden", s, n.corrector.hidden + s * HIDDEN, &want, (2 * s + 1) * HIDDEN, HIDDEN);
        fixture_array_free(&want);
        base_format(name, sizeof name, "step%zu.prob", s);
        want = fixture_read(&f, name);
        nn_sigmoid_forward(&n.corrector.run, 2 * K, delta, prob);
        check_close("prob", s, prob, &want, 0, 2 * K);
        fixture_array_free(&want);
        bool zero = true;
        for (size_t i = 0; i < 6 * K; i++) zero = zero && offset[i] == 0;
        CHECK(zero); /* no second head, no refinement */
    }
    fixture_array_free(&rows), fixture_array_free(&coords);
    fixture_close(&f);
    free(n.memory);
}

/* All that a step gives. */
typedef struct outcome {
    real hidden[64], delta[64], offset[192];
} outcome;

static outcome step_of(network *n, size_t step, const real *coordinates) {
    outcome o = {{0}, {0}, {0}};
    size_t hidden = n->net.config.gru_hidden;
    segvol_corrector_step(&n->net, &n->corrector, step, coordinates, o.delta, o.offset);
    memcpy(o.hidden, n->corrector.hidden + step * hidden, hidden * sizeof(real));
    return o;
}

/* The block over all rows at once: the same bits as step by step. */
static void check_whole_sequence(network *n, size_t step, const outcome *want) {
    const segvol_model *m = &n->net;
    size_t hidden = m->config.gru_hidden, rows = 2 * (step + 1), last = m->gru_count - 1;
    nn_run run = {2, aligned_reals(nn_gru_scratch(rows, hidden)), nn_kernels_best()};
    real *states = malloc(rows * hidden * sizeof *states);
    nn_gru_forward(&run, &m->gru[step < last ? step : last].gru, rows, n->corrector.rows, NULL, states);
    CHECK(memcmp(states + (rows - 1) * hidden, want->hidden, hidden * sizeof(real)) == 0);
    free(states), free(run.scratch);
}

/* Steps forward, back and forward again, for one block, for a few and for as many as there are steps; the second head. */
static void test_sequence(uint32_t blocks, bool half) {
    enum { STEPS = 7, K = 3 };
    weights_config config = odd_config(blocks, 13, K);
    network n = network_open(&config, true, half, STEPS, 2), one = network_open(&config, true, half, STEPS, 1);
    real *rows = random_reals(7, STEPS * 16 * K, -1, 60), *coordinates = random_reals(8, 6 * K, 0, 60);
    outcome first[STEPS];
    CHECK(n.net.gru_count == blocks && n.net.gru[0].fc_coord.weight.n == 6 * K);
    memcpy(n.corrector.rows, rows, STEPS * 16 * K * sizeof *rows);
    memcpy(one.corrector.rows, rows, STEPS * 16 * K * sizeof *rows);
    for (size_t s = 0; s < STEPS; s++) {
        first[s] = step_of(&n, s, coordinates);
        check_whole_sequence(&n, s, &first[s]);
        outcome alone = step_of(&one, s, coordinates);
        CHECK(memcmp(&alone, &first[s], sizeof alone) == 0);
        CHECK(first[s].offset[0] != 0 && first[s].delta[0] != 0);
    }
    /* undone down to step 2, another way from there, undone again and the old way once more */
    real *other = random_reals(9, STEPS * 16 * K, -1, 60);
    memcpy(n.corrector.rows + 2 * 16 * K, other, 2 * 16 * K * sizeof *other);
    outcome changed = step_of(&n, 2, coordinates);
    CHECK(memcmp(&changed, &first[2], sizeof changed) != 0);
    step_of(&n, 3, coordinates);
    memcpy(n.corrector.rows, rows, STEPS * 16 * K * sizeof *rows);
    for (size_t s = 2; s < STEPS; s++) {
        outcome again = step_of(&n, s, coordinates);
        CHECK(memcmp(&again, &first[s], sizeof again) == 0);
    }
    free(rows), free(other), free(coordinates), free(n.memory), free(one.memory);
}

/* The second head is the first's formula with its own weights. */
static void test_heads(void) {
    enum { K = 3, HIDDEN = 13, IN = HIDDEN + 6 * K };
    weights_config config = odd_config(2, HIDDEN, K);
    network n = network_open(&config, true, false, 1, 1);
    real *rows = random_reals(7, 16 * K, -1, 60), *coordinates = random_reals(8, 6 * K, 0, 1);
    static const struct {
        const char *name;
        size_t count;
    } heads[2] = {{"gru_blocks.0.fc_prob", 2 * K}, {"gru_blocks.0.fc_coord", 6 * K}};
    memcpy(n.corrector.rows, rows, 16 * K * sizeof *rows);
    outcome o = step_of(&n, 0, coordinates);
    for (int i = 0; i < 2; i++) {
        float weight[6 * K * IN], bias[6 * K];
        double want[6 * K];
        size_t count = heads[i].count;
        weights_spec spec = {.ndim = 2, .shape = {count, IN}};
        base_format(spec.name, sizeof spec.name, "%s.weight", heads[i].name);
        weights_formula_source(NULL, &spec, count * IN, weight, NULL);
        base_format(spec.name, sizeof spec.name, "%s.bias", heads[i].name);
        spec.ndim = 1;
        weights_formula_source(NULL, &spec, count, bias, NULL);
        for (size_t j = 0; j < count; j++) {
            want[j] = bias[j];
            for (size_t k = 0; k < IN; k++)
                want[j] += (double)weight[j * IN + k] * (double)(k < HIDDEN ? o.hidden[k] : coordinates[k - HIDDEN]);
        }
        CHECK_CLOSE(heads[i].name, i == 0 ? o.delta : o.offset, want, count, sizeof(real) == 8 ? 1e-14 : 3e-6, 0);
    }
    free(rows), free(coordinates), free(n.memory);
}

/* Who does not ask for the corrector, or has a file without, does not get one and pays nothing. */
static void test_absent(void) {
    weights_config with = odd_config(5, 26, 11), without = odd_config(0, 0, 0);
    size_t used[3];
    for (int i = 0; i < 3; i++) {
        io_buffer bytes = {0};
        weights_file file;
        segfm_error error = {0};
        segvol_model net;
        nn_arena arena = {0};
        weights_write_options options = {.variant = "upstream", .provenance = "test"};
        CHECK(weights_write(i == 2 ? &without : &with, &options, weights_formula_source, NULL, weights_sink_buffer,
                            &bytes, &error) == SEGFM_OK);
        CHECK(weights_open(bytes.data, bytes.size, &file, &error) == SEGFM_OK);
        CHECK(segvol_model_bind(&net, &file, i != 1, &arena, 1, NULL, NULL, &error) == SEGFM_OK);
        CHECK(net.gru_count == (i == 0 ? 5 : 0));
        used[i] = arena.used;
        weights_close(&file);
        io_buffer_free(&bytes);
    }
    CHECK(used[0] > used[1] + 5 * 88 * 78 * sizeof(real) &&
          used[1] < used[2] + 8192); /* the list of tensors is longer */
}

int main(void) {
    for (int threads = 1; threads <= 3; threads++) test_against_pytorch(threads);
    for (uint32_t blocks = 1; blocks <= 7; blocks += 3) test_sequence(blocks, blocks == 4);
    test_heads();
    test_absent();
    return test_summary();
}
