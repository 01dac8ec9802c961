/* `segfm predict` end to end: cases as the challenge's writers make them (pickles of numpy 1 and of numpy 2, by hand), the
   command run on folders of them, its label maps against what the public API gives for the same prompts.

   The command is the one beside this program's folder, or the one that the environment's SEGFM names. */
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../io/io.h"
#include "../segfm.h"
#include "../weights/weights.h"
#include "test.h"

enum { Z = 12, Y = 28, X = 30, VOXELS = Z * Y * X, CLASSES = 300, MAX_CLICKS = 4 };

/* ---- pickles -------------------------------------------------------------------------------------------------- */

/* Writes protocol 3 with numpy 1's module names or protocol 4 with numpy 2's, and what is repeated from the memo. */
typedef struct pickler {
    io_buffer out;
    bool numpy2, failed;
    unsigned memo;                   /* next free index */
    int scalar, dtype, int64, array; /* memo indices of what numpy repeats; -1: not written yet */
} pickler;

static void put(pickler *p, const void *bytes, size_t n) {
    if (io_buffer_append(&p->out, bytes, n, NULL) != SEGFM_OK) p->failed = true;
}

static void op(pickler *p, int code) { put(p, &(unsigned char){(unsigned char)code}, 1); }

static void put_int(pickler *p, int value) {
    if (value < 256) put(p, (unsigned char[]){'K', (unsigned char)value}, 2);
    else put(p, (unsigned char[]){'M', (unsigned char)value, (unsigned char)(value >> 8)}, 3);
}

/* Keeps the top of the stack in the memo. */
static int memoize(pickler *p) {
    if (p->numpy2) op(p, 0x94);
    else put(p, (unsigned char[]){'q', (unsigned char)p->memo}, 2);
    return (int)p->memo++;
}

static void recall(pickler *p, int index) { put(p, (unsigned char[]){'h', (unsigned char)index}, 2); }

static void put_text(pickler *p, const char *text) {
    size_t n = strlen(text);
    if (p->numpy2) put(p, (unsigned char[]){0x8c, (unsigned char)n}, 2);
    else put(p, (unsigned char[]){'X', (unsigned char)n, 0, 0, 0}, 5);
    put(p, text, n);
}

static int put_global(pickler *p, const char *module, const char *name) {
    if (p->numpy2) {
        put_text(p, module);
        memoize(p);
        put_text(p, name);
        memoize(p);
        op(p, 0x93);
    } else {
        op(p, 'c');
        put(p, module, strlen(module));
        op(p, '\n');
        put(p, name, strlen(name));
        op(p, '\n');
    }
    return memoize(p);
}

static const char *multiarray(const pickler *p) {
    return p->numpy2 ? "numpy._core.multiarray" : "numpy.core.multiarray";
}

/* numpy.dtype(kind, False, True) with its state (3, order, None, None, None, -1, -1, flags) */
static int put_dtype(pickler *p, const char *kind, const char *order, int flags) {
    if (p->dtype < 0) p->dtype = put_global(p, "numpy", "dtype");
    else recall(p, p->dtype);
    put_text(p, kind);
    put(p, "\x89\x88\x87R", 4); /* False, True, a tuple of three, call */
    int index = memoize(p);
    op(p, '(');
    put_int(p, 3);
    put_text(p, order);
    put(p, "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff", 13);
    put_int(p, flags);
    put(p, "tb", 2);
    return index;
}

/* An array of n objects, which the caller puts between this and end_array. */
static pickler begin_array(bool numpy2, int n) {
    pickler p = {.numpy2 = numpy2, .scalar = -1, .dtype = -1, .int64 = -1};
    put(&p, numpy2 ? "\x80\x04" : "\x80\x03", 2);
    if (numpy2) put(&p, "\x95\0\0\0\0\0\0\0\0", 9); /* a frame; end_array puts its length */
    put_global(&p, multiarray(&p), "_reconstruct");
    put_global(&p, "numpy", "ndarray");
    put_int(&p, 0);
    put(&p,
        "\x85"
        "C\x01"
        "b"
        "\x87R(",
        7);
    put_int(&p, 1);
    put_int(&p, n);
    op(&p, 0x85);
    put_dtype(&p, "O8", "|", 63);
    put(&p, "\x89]", 2);
    if (n > 0) op(&p, '(');
    return p;
}

static io_buffer end_array(pickler *p, int n) {
    if (n > 0) op(p, 'e');
    put(p, "tb.", 3);
    if (CHECK(!p->failed) && p->numpy2) base_put_le64(p->out.data + 3, p->out.size - 11);
    return p->out;
}

/* np.int64(value) */
static void put_scalar(pickler *p, int64_t value) {
    unsigned char bytes[10] = {'C', 8};
    if (p->scalar < 0) p->scalar = put_global(p, multiarray(p), "scalar");
    else recall(p, p->scalar);
    if (p->int64 < 0) p->int64 = put_dtype(p, "i8", "<", 0);
    else recall(p, p->int64);
    base_put_le64(bytes + 2, (uint64_t)value);
    put(p, bytes, 10);
    put(p, "\x86R", 2);
}

/* ---- cases ---------------------------------------------------------------------------------------------------- */

/* The prompts of one class. */
typedef struct prompts {
    bool has_box;
    int64_t box[6];                /* z0 y0 x0 z1 y1 x1 */
    int fg, bg;                    /* clicks */
    int64_t clicks[MAX_CLICKS][3]; /* fg first */
} prompts;

/* What a case's file lacks or gets wrong. */
typedef struct oddity {
    bool numpy2, no_boxes, empty_boxes, no_clicks, no_images, flat_images, nan_images, clicks_are_lists, odd_classes;
    const char *missing_key; /* of every box */
    double spacing[3];       /* all 0: none in the file */
    size_t spacings;         /* how many, 0: three */
} oddity;

static io_buffer pickled_boxes(const prompts *of, int classes, const oddity *odd) {
    static const char *const keys[8] = {"z_min",       "z_max",       "z_mid",       "z_mid_x_min",
                                        "z_mid_y_min", "z_mid_x_max", "z_mid_y_max", NULL};
    int n = odd->empty_boxes ? 0 : odd->odd_classes ? classes + 1 : classes;
    pickler p = begin_array(odd->numpy2, n);
    for (int i = 0; i < n; i++) {
        const prompts *c = &of[i < classes ? i : 0];
        const int64_t *b = c->box, values[7] = {b[0], b[3], (b[0] + b[3]) / 2, b[2], b[1], b[5], b[4]};
        if (!c->has_box) {
            op(&p, 'N');
            continue;
        }
        put(&p, "}(", 2);
        for (int k = 0; keys[k] != NULL; k++) {
            if (odd->missing_key != NULL && strcmp(odd->missing_key, keys[k]) == 0) continue;
            put_text(&p, keys[k]);
            put_scalar(&p, values[k]);
        }
        op(&p, 'u');
    }
    return end_array(&p, n);
}

/* [[z, y, x], …] */
static void put_clicks(pickler *p, const int64_t (*clicks)[3], int n) {
    op(p, ']');
    if (n > 0) op(p, '(');
    for (int i = 0; i < n; i++) {
        put(p, "](", 2);
        for (int axis = 0; axis < 3; axis++)
            if (axis == 1) put_scalar(p, clicks[i][axis]); /* writers mix them */
            else put_int(p, (int)clicks[i][axis]);
        op(p, 'e');
    }
    if (n > 0) op(p, 'e');
}

static io_buffer pickled_clicks(const prompts *of, int classes, const oddity *odd) {
    pickler p = begin_array(odd->numpy2, classes);
    for (int i = 0; i < classes; i++) {
        if (odd->clicks_are_lists) {
            put_clicks(&p, of[i].clicks, of[i].fg);
            continue;
        }
        if (of[i].fg + of[i].bg == 0 && i % 2 == 0) { /* None or a dictionary of nothing */
            op(&p, 'N');
            continue;
        }
        put(&p, "}(", 2);
        put_text(&p, "fg");
        put_clicks(&p, of[i].clicks, of[i].fg);
        put_text(&p, "bg");
        put_clicks(&p, of[i].clicks + of[i].fg, of[i].bg);
        op(&p, 'u');
    }
    return end_array(&p, classes);
}

static void add_array(io_zip_writer *zip, const char *name, io_dtype dtype, int ndim, const size_t *shape,
                      const void *data) {
    io_buffer npy = {0};
    CHECK(io_npy_write(&npy, dtype, ndim, shape, data, NULL) == SEGFM_OK);
    CHECK(io_zip_add(zip, name, npy.data, npy.size, NULL) == SEGFM_OK);
    io_buffer_free(&npy);
}

/* An object array: its npy header and the pickle. Frees the pickle. */
static void add_objects(io_zip_writer *zip, const char *name, int n, io_buffer pickle) {
    char header[128];
    io_buffer npy = {0};
    memcpy(header, "\x93NUMPY\x01\0\x76", 10);
    int used = snprintf(header + 10, 118, "{'descr': '|O', 'fortran_order': False, 'shape': (%d,), }", n);
    memset(header + 10 + used, ' ', (size_t)(117 - used));
    header[127] = '\n';
    CHECK(io_buffer_append(&npy, header, 128, NULL) == SEGFM_OK);
    CHECK(io_buffer_append(&npy, pickle.data, pickle.size, NULL) == SEGFM_OK);
    CHECK(io_zip_add(zip, name, npy.data, npy.size, NULL) == SEGFM_OK);
    io_buffer_free(&npy);
    io_buffer_free(&pickle);
}

/* A bright block in a textured ground. */
static void fill_scan(uint8_t voxels[VOXELS]) {
    for (int z = 0, i = 0; z < Z; z++)
        for (int y = 0; y < Y; y++)
            for (int x = 0; x < X; x++, i++) {
                bool bright = z > 3 && z < 9 && y > 7 && y < 18 && x > 9 && x < 20;
                voxels[i] = (uint8_t)((bright ? 150 : 20) + (x * 7 + y * 5 + z * 3) % 40);
            }
}

static char folder[1024]; /* scratch */

static const char *path_of(const char *directory, const char *name) {
    static char paths[4][2048];
    static int next;
    char *path = paths[next++ % 4];
    base_format(path, sizeof paths[0], "%s/%s%s%s", folder, directory, name[0] != '\0' ? "/" : "", name);
    return path;
}

static void write_case(const char *directory, const char *name, const prompts *of, int classes, const oddity *odd) {
    static uint8_t voxels[VOXELS];
    io_zip_writer zip = {0};
    fill_scan(voxels);
    if (odd->flat_images) add_array(&zip, "imgs.npy", IO_U8, 2, (size_t[]){Z * Y, X}, voxels);
    else if (odd->nan_images) {
        static float floats[VOXELS];
        for (int i = 0; i < VOXELS; i++) floats[i] = i == 77 ? (float)NAN : (float)voxels[i];
        add_array(&zip, "imgs.npy", IO_F32, 3, (size_t[]){Z, Y, X}, floats);
    } else if (!odd->no_images) add_array(&zip, "imgs.npy", IO_U8, 3, (size_t[]){Z, Y, X}, voxels);
    if (odd->spacing[0] != 0)
        add_array(&zip, "spacing.npy", IO_F64, 1, (size_t[]){odd->spacings > 0 ? odd->spacings : 3}, odd->spacing);
    if (!odd->no_boxes)
        add_objects(&zip, "boxes.npy", odd->empty_boxes ? 0 : classes + odd->odd_classes,
                    pickled_boxes(of, classes, odd));
    if (!odd->no_clicks) add_objects(&zip, "clicks.npy", classes, pickled_clicks(of, classes, odd));
    CHECK(io_zip_finish(&zip, NULL) == SEGFM_OK);
    CHECK(io_write_file(path_of(directory, name), zip.archive.data, zip.archive.size, NULL) == SEGFM_OK);
    io_zip_writer_free(&zip);
}

/* ---- what the API says ---------------------------------------------------------------------------------------- */

static segfm_model *tiny_model(void) {
    weights_write_options options = {.variant = "upstream", .provenance = "test"};
    io_buffer bytes = {0};
    segfm_model *model = NULL;
    CHECK(weights_write(weights_named_config("tiny"), &options, weights_formula_source, NULL, weights_sink_buffer,
                        &bytes, NULL) == SEGFM_OK);
    CHECK(segfm_model_open(bytes.data, bytes.size, NULL, &model, NULL) == SEGFM_OK);
    io_buffer_free(&bytes);
    return model;
}

/* Later classes overwrite earlier ones. */
static void label_map(const segfm_model *model, const prompts *of, int classes, uint16_t labels[VOXELS]) {
    static uint8_t voxels[VOXELS], mask[VOXELS];
    static float scan[VOXELS];
    segfm_session *s = NULL;
    fill_scan(voxels);
    for (int i = 0; i < VOXELS; i++) scan[i] = (float)voxels[i], labels[i] = 0;
    CHECK(segfm_session_new(model, (int64_t[]){Z, Y, X}, NULL, NULL, 0, &s, NULL) == SEGFM_OK);
    CHECK(segfm_set_volume(s, scan, NULL) == SEGFM_OK);
    for (int c = 0; c < classes; c++) {
        if (!of[c].has_box && of[c].fg + of[c].bg == 0) continue;
        segfm_reset(s);
        if (of[c].has_box) CHECK(segfm_box(s, of[c].box, NULL) == SEGFM_OK);
        for (int k = 0; k < of[c].fg + of[c].bg; k++)
            CHECK(segfm_click(s, of[c].clicks[k], k < of[c].fg, NULL) == SEGFM_OK);
        CHECK(segfm_mask(s, mask, VOXELS, NULL) == SEGFM_OK);
        for (int i = 0; i < VOXELS; i++)
            if (mask[i] != 0) labels[i] = (uint16_t)(c + 1);
    }
    segfm_session_free(s);
}

/* out/name holds `segs` of that type, equal to the labels; which have at least `distinct` different values. */
static void check_result(const char *directory, const char *name, const uint16_t labels[VOXELS], io_dtype dtype,
                         size_t distinct) {
    static uint16_t seen[CLASSES + 1];
    io_buffer file = {0}, npy = {0};
    io_zip zip = {0};
    io_array segs = {0};
    segfm_error error = {0};
    bool ok = io_read_file(path_of(directory, name), &file, &error) == SEGFM_OK &&
              io_zip_open(file.data, file.size, &zip, &error) == SEGFM_OK && zip.count == 1 &&
              io_zip_find(&zip, "segs.npy") != NULL && io_zip_read(&zip, &zip.entries[0], &npy, &error) == SEGFM_OK &&
              io_npy_parse(npy.data, npy.size, &segs, &error) == SEGFM_OK;
    if (!CHECK(ok)) printf("    %s/%s: %s\n", directory, name, error.message);
    ok = ok && segs.dtype == dtype && segs.ndim == 3 && segs.shape[0] == Z && segs.shape[1] == Y && segs.shape[2] == X;
    size_t wrong = 0, values = 0;
    memset(seen, 0, sizeof seen);
    for (size_t i = 0; ok && i < VOXELS; i++) {
        wrong += io_array_get(&segs, i) != labels[i];
        values += seen[labels[i]]++ == 0;
    }
    if (!CHECK(ok && wrong == 0 && values >= distinct))
        printf("    %s/%s: %zu voxels wrong, %zu different labels\n", directory, name, wrong, values);
    io_buffer_free(&npy);
    io_zip_close(&zip);
    io_buffer_free(&file);
}

/* ---- running the command -------------------------------------------------------------------------------------- */

static char command[1024];

static bool exists(const char *path) { return access(path, F_OK) == 0; }

/* Runs predict; stdout must stay empty. Returns its exit code; what it says on stderr goes to `said`. */
static int predict(const char *in, const char *out, char *said, size_t capacity) {
    char line[8192];
    io_buffer text = {0};
    const char *wrapper = getenv("TEST_WRAPPER");
    base_format(line, sizeof line, "%s '%s' predict '%s' '%s' --quiet >'%s/stdout' 2>'%s/stderr'",
                wrapper != NULL ? wrapper : "", command, path_of(in, ""), path_of(out, ""), folder, folder);
    int code = system(line);
    CHECK(io_read_file(path_of("stdout", ""), &text, NULL) == SEGFM_OK && text.size == 0);
    io_buffer_free(&text);
    CHECK(io_read_file(path_of("stderr", ""), &text, NULL) == SEGFM_OK);
    base_format(said, capacity, "");
    if (text.size > 0 && CHECK(text.size < capacity)) memcpy(said, text.data, text.size), said[text.size] = '\0';
    io_buffer_free(&text);
    return code != -1 && WIFEXITED(code) ? WEXITSTATUS(code) : -1;
}

/* One of the lines names the file and says this. */
static bool says(const char *lines, const char *file, const char *phrase) {
    for (const char *line = lines; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        char text[1024];
        base_format(text, sizeof text, "%s", line);
        if (length < sizeof text) text[length] = '\0';
        if (strncmp(text, "segfm: ", 7) == 0 && strstr(text, file) != NULL && strstr(text, phrase) != NULL) return true;
        line += length + (line[length] != '\0');
    }
    return false;
}

static size_t lines_in(const char *text) {
    size_t n = 0;
    for (; *text != '\0'; text++) n += *text == '\n';
    return n;
}

/* ---- the tests ------------------------------------------------------------------------------------------------- */

/* Three classes whose boxes overlap, the last one with clicks. */
static const prompts three[3] = {
    {true, {2, 3, 4, 10, 24, 27}, 0, 0, {{0}}},
    {true, {4, 8, 10, 8, 17, 19}, 0, 0, {{0}}},
    {true, {0, 0, 0, 5, 12, 11}, 2, 1, {{3, 4, 5}, {2, 10, 9}, {6, 20, 25}}},
};
static const prompts clicks_only[2] = {
    {false, {0}, 1, 0, {{6, 12, 14}}},
    {false, {0}, 1, 2, {{5, 20, 8}, {6, 12, 14}, {11, 27, 29}}},
};
/* The second class has only clicks, the third nothing. */
static const prompts mixed[3] = {
    {true, {2, 3, 4, 10, 24, 27}, 0, 0, {{0}}},
    {false, {0}, 1, 0, {{6, 12, 14}}},
    {false, {0}, 0, 0, {{0}}},
};

static void make_folder(const char *name) { CHECK(mkdir(path_of(name, ""), 0777) == 0); }

/* Good cases and one bad one among them. */
static void test_good_cases(const segfm_model *model) {
    static prompts many[CLASSES];
    static uint16_t labels[VOXELS];
    char said[16384];
    many[0] = three[0];
    many[254] = three[1];
    many[299] = three[2];
    make_folder("in");
    write_case("in", "a.npz", three, 3, &(oddity){.no_clicks = true, .spacing = {0.5, 0.75, 2}});
    write_case("in", "b.npz", three, 3, &(oddity){.numpy2 = true});
    write_case("in", "c.npz", clicks_only, 2, &(oddity){.no_boxes = true});
    write_case("in", "d.npz", many, CLASSES, &(oddity){.numpy2 = true});
    write_case("in", "e.npz", mixed, 3, &(oddity){0});
    write_case("in", "f.npz", clicks_only, 2, &(oddity){.empty_boxes = true, .numpy2 = true});
    write_case("in", "bad.npz", three, 3, &(oddity){.no_images = true});
    CHECK(predict("in", "out", said, sizeof said) == 3);
    if (!CHECK(lines_in(said) == 1 && says(said, "/in/bad.npz: ", "array imgs is missing"))) printf("    %s", said);
    CHECK(!exists(path_of("out", "bad.npz")));
    prompts boxes[3] = {three[0], three[1], three[2]};
    boxes[2].fg = boxes[2].bg = 0;
    label_map(model, boxes, 3, labels);
    check_result("out", "a.npz", labels, IO_U8, 3);
    label_map(model, three, 3, labels);
    check_result("out", "b.npz", labels, IO_U8, 3);
    label_map(model, clicks_only, 2, labels);
    check_result("out", "c.npz", labels, IO_U8, 2);
    check_result("out", "f.npz", labels, IO_U8, 2);
    label_map(model, many, CLASSES, labels);
    check_result("out", "d.npz", labels, IO_U16, 3);
    label_map(model, mixed, 3, labels);
    check_result("out", "e.npz", labels, IO_U8, 2);
}

/* Nothing but bad cases: each is named with what is wrong with it, none is written. */
static void test_bad_cases(void) {
    prompts click_outside[1] = {{true, {2, 3, 4, 8, 9, 9}, 1, 0, {{3, Y, 5}}}};
    prompts box_outside[2] = {three[0], {true, {2, 3, 4, 8, 9, X}, 0, 0, {{0}}}};
    const struct {
        const char *name, *phrase;
        const prompts *of;
        int classes;
        oddity odd;
    } cases[] = {
        {"click.npz", "clicks, class 1: click, axis y: got 28, the scan has 0 to 27", click_outside, 1, {0}},
        {"box.npz", "boxes, class 2: box, axis x: got 4 to 30, the scan has 0 to 29", box_outside, 2, {0}},
        {"key.npz", "boxes, class 1: z_mid_x_max is missing", three, 3, {.missing_key = "z_mid_x_max"}},
        {"flat.npz", "array imgs: got 2 axes", three, 3, {.flat_images = true}},
        {"nan.npz", "voxel 77", three, 3, {.nan_images = true}},
        {"spacing.npz", "array spacing: got 2 elements, need 3", three, 3, {.spacing = {1, 1}, .spacings = 2}},
        {"negative.npz", "array spacing: element 1", three, 3, {.spacing = {1, -1, 1}}},
        {"infinite.npz", "array spacing: element 2", three, 3, {.spacing = {1, 1, INFINITY}}},
        {"none.npz", "no prompts", three, 3, {.no_boxes = true, .no_clicks = true}},
        {"count.npz", "array clicks: got 3 classes, the array before it has 4", three, 3, {.odd_classes = true}},
        {"lists.npz", "clicks, class 1: need a dictionary", three, 3, {.clicks_are_lists = true}},
    };
    enum { CASES = sizeof cases / sizeof cases[0] };
    char said[16384];
    make_folder("bad");
    for (int i = 0; i < CASES; i++) write_case("bad", cases[i].name, cases[i].of, cases[i].classes, &cases[i].odd);
    CHECK(io_write_file(path_of("bad", "text.npz"), "no zip", 6, NULL) == SEGFM_OK);
    CHECK(mkdir(path_of("bad", "folder.npz"), 0777) == 0);
    CHECK(predict("bad", "none", said, sizeof said) == 3);
    if (!CHECK(lines_in(said) == CASES + 2)) printf("%s", said);
    CHECK(says(said, "/bad/text.npz: ", "zip") && says(said, "/bad/folder.npz: ", "folder"));
    for (int i = 0; i < CASES; i++) {
        if (!CHECK(says(said, cases[i].name, cases[i].phrase)))
            printf("    %s: %s\n%s", cases[i].name, cases[i].phrase, said);
        CHECK(!exists(path_of("none", cases[i].name)));
    }
}

/* Results under the cases' own names would overwrite the cases. */
static void test_same_folder(void) {
    char said[16384];
    io_buffer before = {0}, after = {0};
    make_folder("own");
    write_case("own", "a.npz", three, 3, &(oddity){0});
    CHECK(io_read_file(path_of("own", "a.npz"), &before, NULL) == SEGFM_OK);
    CHECK(symlink("own", path_of("link", "")) == 0);
    static const char *const names[] = {"own", "own/", "own/../own", "link"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK(predict("own", names[i], said, sizeof said) == 2);
        CHECK(lines_in(said) == 1 && says(said, names[i], "would replace the input"));
    }
    CHECK(io_read_file(path_of("own", "a.npz"), &after, NULL) == SEGFM_OK);
    CHECK(before.size == after.size && memcmp(before.data, after.data, before.size) == 0);
    io_buffer_free(&before);
    io_buffer_free(&after);
}

/* A result that cannot be written. */
static void test_unwritable(void) {
    char said[16384];
    CHECK(mkdir(path_of("blocked", ""), 0777) == 0 && mkdir(path_of("blocked", "a.npz"), 0777) == 0);
    CHECK(predict("own", "blocked", said, sizeof said) == 5);
    CHECK(lines_in(said) == 1 && says(said, "blocked/a.npz", ""));
}

/* build/…/test/test_predict → build/…/segfm */
static bool find_command(const char *program) {
    const char *given = getenv("SEGFM");
    base_format(command, sizeof command, "%s", given != NULL ? given : program);
    for (int i = 0; given == NULL && i < 2; i++) {
        char *slash = strrchr(command, '/');
        if (slash == NULL) return false;
        *slash = '\0';
    }
    size_t length = strlen(command);
    if (given == NULL) base_format(command + length, sizeof command - length, "/segfm");
    return access(command, X_OK) == 0;
}

int main(int argc, char **argv) {
    const char *scratch = getenv("TMPDIR");
    if (!CHECK(argc >= 1 && find_command(argv[0]))) {
        printf("    no command at %s: build it, or set SEGFM\n", command);
        return test_summary();
    }
    base_format(folder, sizeof folder, "%s/segfm-predict-XXXXXX", scratch != NULL ? scratch : "/tmp");
    if (!CHECK(mkdtemp(folder) != NULL)) return test_summary();
    segfm_model *model = tiny_model();
    test_good_cases(model);
    test_bad_cases();
    test_same_folder();
    test_unwritable();
    segfm_model_close(model);
    char line[2048];
    base_format(line, sizeof line, "rm -rf '%s'", folder);
    CHECK(system(line) == 0);
    return test_summary();
}
