/* What tools/reference/metrics.py drives to compare vol/ with numpy and scipy, and to time both in turns.

     volume_probe THREADS          reads commands from standard input, answers each with one line

     load TRUTH.npy PREDICTION.npy         masks of uint8 and one shape (z,y,x)
     distance SZ SY SX OUT.npy|-           squared distances of the truth, float64
     components OUT.npy|-                  labels of the truth, int32
     click first|official LARGE            of where the masks differ: z y x label
     surface SZ SY SX TOLERANCE flat|solid dice nsd overlaps hd95 hd asds, undefined

   An answer begins with the milliseconds of the computation itself, without memory and files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../io/io.h"
#include "../vol/vol.h"

static struct {
    vol_shape shape;
    uint8_t *truth, *prediction;
    int threads;
} state;

static double milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void *take(size_t bytes) {
    void *memory = bytes > SIZE_MAX - NN_ALIGN ? NULL : aligned_alloc(NN_ALIGN, (bytes / NN_ALIGN + 1) * NN_ALIGN);
    if (memory != NULL) return memset(memory, 0, bytes); /* the pages are there before the clock runs */
    fprintf(stderr, "no memory\n");
    exit(4);
}

static void must(segfm_status status, const segfm_error *e) {
    if (status == SEGFM_OK) return;
    fprintf(stderr, "%s: %s\n", e->where, e->message);
    exit((int)status);
}

static uint8_t *load_mask(const char *path) {
    segfm_error e = {0};
    io_buffer file = {0};
    io_array array;
    must(io_read_file(path, &file, &e), &e);
    must(io_npy_parse(file.data, file.size, &array, &e), &e);
    if (array.ndim != 3 || array.dtype != IO_U8 || array.count == 0 || array.fortran) {
        fprintf(stderr, "%s: need uint8 of three axes in C order\n", path);
        exit(3);
    }
    for (int k = 0; k < 3; k++) state.shape.n[k] = (int64_t)array.shape[k];
    uint8_t *mask = take(array.count);
    memcpy(mask, array.data, array.count);
    io_buffer_free(&file);
    return mask;
}

static void save(const char *path, io_dtype dtype, const void *data) {
    segfm_error e = {0};
    io_buffer out = {0};
    size_t shape[3] = {(size_t)state.shape.n[0], (size_t)state.shape.n[1], (size_t)state.shape.n[2]};
    if (strcmp(path, "-") == 0) return;
    must(io_npy_write(&out, dtype, 3, shape, data, &e), &e);
    must(io_write_file(path, out.data, out.size, &e), &e);
    io_buffer_free(&out);
}

static void distance(const double spacing[3], const char *path) {
    double *out = take(vol_count(state.shape) * sizeof *out);
    void *scratch = take(vol_distance_scratch(state.shape, state.threads));
    double start = milliseconds();
    vol_distance(state.truth, state.shape, spacing, state.threads, scratch, out);
    printf("%.3f\n", milliseconds() - start);
    save(path, IO_F64, out);
    free(out), free(scratch);
}

static void components(const char *path) {
    int32_t *labels = take(vol_count(state.shape) * sizeof *labels);
    double start = milliseconds();
    size_t bytes = vol_components_bytes(state.truth, NULL, state.shape);
    void *memory = take(bytes);
    vol_components c;
    vol_components_find(state.truth, NULL, state.shape, memory, &c);
    vol_components_labels(&c, labels);
    printf("%.3f %zu\n", milliseconds() - start, c.count);
    save(path, IO_I32, labels);
    free(labels), free(memory);
}

static void click(const char *rule, long long large) {
    vol_click_request q = {state.shape, strcmp(rule, "official") == 0 ? VOL_CLICK_OFFICIAL : VOL_CLICK_FIRST, large,
                           state.threads};
    void *memory = take(vol_click_bytes(state.prediction, state.truth, &q));
    vol_click c;
    double start = milliseconds();
    vol_simulate_click(state.prediction, state.truth, &q, memory, &c);
    printf("%.3f %lld %lld %lld %d\n", milliseconds() - start, (long long)c.at[0], (long long)c.at[1],
           (long long)c.at[2], c.label);
    free(memory);
}

static void surface(const double spacing[3], double tolerance, bool flat) {
    vol_surface_request q = {state.shape, {spacing[0], spacing[1], spacing[2]}, tolerance, flat, state.threads};
    vol_box box = vol_surface_box(state.truth, state.prediction, state.shape);
    void *memory = take(vol_box_is_empty(box) ? 0 : vol_surface_bytes(vol_box_shape(box), flat, state.threads));
    vol_surface m;
    double start = milliseconds();
    vol_surface_measure(state.truth, state.prediction, &q, memory, &m);
    printf("%.3f %.17g %.17g %.17g %.17g %.17g %.17g %.17g %.17g %d\n", milliseconds() - start, m.dice, m.nsd,
           m.overlap_truth, m.overlap_prediction, m.hd95, m.hd, m.asd_truth, m.asd_prediction, (int)m.undefined);
    free(memory);
}

static bool obey(const char *line) {
    char a[512], b[512];
    double s[3], tolerance;
    long long large;
    if (sscanf(line, "load %511s %511s", a, b) == 2) {
        free(state.truth), free(state.prediction);
        state.truth = load_mask(a);
        vol_shape first = state.shape;
        state.prediction = load_mask(b);
        if (memcmp(&first, &state.shape, sizeof first) != 0) return false;
        puts("0");
    } else if (state.truth == NULL) {
        return false;
    } else if (sscanf(line, "distance %lf %lf %lf %511s", &s[0], &s[1], &s[2], a) == 4) {
        distance(s, a);
    } else if (sscanf(line, "components %511s", a) == 1) {
        components(a);
    } else if (sscanf(line, "click %511s %lld", a, &large) == 2) {
        click(a, large);
    } else if (sscanf(line, "surface %lf %lf %lf %lf %511s", &s[0], &s[1], &s[2], &tolerance, a) == 5) {
        surface(s, tolerance, strcmp(a, "flat") == 0);
    } else {
        return false;
    }
    return fflush(stdout) == 0;
}

int main(int argc, char **argv) {
    char line[2048];
    state.threads = nn_threads(argc > 1 ? atoi(argv[1]) : 0);
    while (fgets(line, sizeof line, stdin) != NULL)
        if (!obey(line)) {
            fprintf(stderr, "cannot do: %s", line);
            return 2;
        }
    free(state.truth), free(state.prediction);
    return 0;
}
