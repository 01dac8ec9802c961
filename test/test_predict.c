/* `segfm predict` end to end: cases as the challenge's writers make them (pickles of numpy 1 and of numpy 2, by hand), the
   command run on folders of them, its label maps against what the public API gives for the same prompts. */
#include "test.h"

#include "../segfm.h"
#include "../weights/weights.h"
#include "challenge.h"
#include "command.h"

enum { Z = 12, Y = 28, X = 30, VOXELS = Z * Y * X, CLASSES = 300, MAX_CLICKS = 4 };

/* ---- cases ---------------------------------------------------------------------------------------------------- */

/* The prompts of one class. */
typedef struct prompts {
    bool has_box;
    int64_t box[6];                /* z0 y0 x0 z1 y1 x1 */
    int fg, bg;                    /* clicks */
    int64_t clicks[MAX_CLICKS][3]; /* fg first */
    const char *order;             /* f, b and - (no click) for each step, or NULL; the rest comes fg first */
} prompts;

/* How clicks_order is saved: an array of lists; a table of objects or of strings; the newest click's kind alone. */
typedef enum order_kind { ORDER_NONE, LISTS, TABLE, TEXTS, TEXTS_BIG, NEWEST, NEWEST_TEXTS, NUMBERS } order_kind;

/* What a case's file lacks or gets wrong. */
typedef struct oddity {
    bool numpy2, no_boxes, empty_boxes, no_clicks, no_images, flat_images, nan_images, clicks_are_lists, odd_classes;
    order_kind order;
    bool has_previous;       /* prev_pred: every voxel is of the last class */
    const char *missing_key; /* of every box */
    double spacing[3];       /* all 0: none in the file */
    size_t spacings;         /* how many, 0: three */
} oddity;

static io_buffer pickled_boxes(const prompts *of, int classes, const oddity *odd) {
    int n = odd->empty_boxes ? 0 : odd->odd_classes ? classes + 1 : classes;
    pickler p = begin_array(odd->numpy2, n);
    for (int i = 0; i < n; i++) {
        const prompts *c = &of[i < classes ? i : 0];
        if (!c->has_box) {
            op(&p, 'N');
            continue;
        }
        put_box(&p, c->box, odd->missing_key);
    }
    return end_array(&p, n);
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

static void put_kind(pickler *p, char kind) {
    if (kind == '-') op(p, 'N');
    else put_text(p, kind == 'f' ? "fg" : kind == 'b' ? "bg" : "what");
}

static void add_order(io_zip_writer *zip, const prompts *of, int classes, const oddity *odd) {
    size_t steps = strlen(of[0].order);
    bool table = odd->order == TABLE;
    pickler p = begin_table(odd->numpy2, classes, table ? (int)steps : 0);
    for (int i = 0; i < classes; i++) {
        const char *order = of[i].order;
        if (odd->order == LISTS) put(&p, "](", 2);
        if (odd->order == NEWEST) put_kind(&p, order[strlen(order) - 1]);
        else if (odd->order == NUMBERS) put_int(&p, 7);
        else
            for (; *order != '\0'; order++) put_kind(&p, *order);
        if (odd->order == LISTS) op(&p, 'e');
    }
    add_objects(zip, "clicks_order.npy", classes, table ? (int)steps : 0, end_array(&p, 1));
}

/* "<U2" and ">U2": two characters of four bytes each. */
static void add_texts(io_zip_writer *zip, const prompts *of, int classes, const oddity *odd) {
    bool newest = odd->order == NEWEST_TEXTS, big = odd->order == TEXTS_BIG;
    size_t steps = newest ? 1 : strlen(of[0].order);
    io_buffer bytes = {0};
    for (int i = 0; i < classes; i++)
        for (size_t k = 0; k < steps; k++) {
            char kind = of[i].order[newest ? strlen(of[i].order) - 1 : k];
            unsigned char text[8] = {0};
            text[big ? 3 : 0] = kind == 'f' ? 'f' : kind == 'b' ? 'b' : 0;
            text[big ? 7 : 4] = kind == '-' ? 0 : 'g';
            CHECK(io_buffer_append(&bytes, text, 8, NULL) == SEGFM_OK);
        }
    add_npy(zip, "clicks_order.npy", big ? ">U2" : "<U2", classes, newest ? 0 : (int)steps, bytes);
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
        add_objects(&zip, "boxes.npy", odd->empty_boxes ? 0 : classes + odd->odd_classes, 0,
                    pickled_boxes(of, classes, odd));
    if (!odd->no_clicks) add_objects(&zip, "clicks.npy", classes, 0, pickled_clicks(of, classes, odd));
    if (odd->order == TEXTS || odd->order == TEXTS_BIG || odd->order == NEWEST_TEXTS) add_texts(&zip, of, classes, odd);
    else if (odd->order != ORDER_NONE) add_order(&zip, of, classes, odd);
    if (odd->has_previous) {
        memset(voxels, classes, sizeof voxels);
        add_array(&zip, "prev_pred.npy", IO_U8, 3, (size_t[]){Z, Y, X}, voxels);
    }
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
        int fg = 0, bg = of[c].fg, all = of[c].fg + of[c].bg;
        for (const char *order = of[c].order != NULL ? of[c].order : ""; *order != '\0'; order++)
            if (*order == 'f' && fg < of[c].fg) CHECK(segfm_click(s, of[c].clicks[fg++], true, NULL) == SEGFM_OK);
            else if (*order == 'b' && bg < all) CHECK(segfm_click(s, of[c].clicks[bg++], false, NULL) == SEGFM_OK);
        while (fg < of[c].fg) CHECK(segfm_click(s, of[c].clicks[fg++], true, NULL) == SEGFM_OK);
        while (bg < all) CHECK(segfm_click(s, of[c].clicks[bg++], false, NULL) == SEGFM_OK);
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

/* Runs predict; stdout must stay empty. */
static int predict(const char *in, const char *out) {
    char arguments[8192];
    base_format(arguments, sizeof arguments, "predict '%s' '%s' -w formula:tiny --quiet", path_of(in, ""),
                path_of(out, ""));
    int code = run_command(arguments);
    CHECK(printed[0] == '\0');
    return code;
}

/* ---- the tests ------------------------------------------------------------------------------------------------- */

/* Three classes whose boxes overlap, the last one with clicks. */
static const prompts three[3] = {
    {true, {2, 3, 4, 10, 24, 27}, 0, 0, {{0}}, NULL},
    {true, {4, 8, 10, 8, 17, 19}, 0, 0, {{0}}, NULL},
    {true, {0, 0, 0, 5, 12, 11}, 2, 1, {{3, 4, 5}, {2, 10, 9}, {6, 20, 25}}, NULL},
};
static const prompts clicks_only[2] = {
    {false, {0}, 1, 0, {{6, 12, 14}}, NULL},
    {false, {0}, 1, 2, {{5, 20, 8}, {6, 12, 14}, {11, 27, 29}}, NULL},
};
/* The second class has only clicks, the third nothing. */
static const prompts mixed[3] = {
    {true, {2, 3, 4, 10, 24, 27}, 0, 0, {{0}}, NULL},
    {false, {0}, 1, 0, {{6, 12, 14}}, NULL},
    {false, {0}, 0, 0, {{0}}, NULL},
};

/* Good cases and one bad one among them. */
static void test_good_cases(const segfm_model *model) {
    static prompts many[CLASSES];
    static uint16_t labels[VOXELS];
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
    CHECK(predict("in", "out") == 3);
    if (!CHECK(lines_in(said) == 1 && says("/in/bad.npz: ", "array imgs is missing"))) printf("    %s", said);
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

/* Clicks in the order of clicks_order, however numpy has saved it; what a class had before when nothing is asked of it. */
static void test_orders(const segfm_model *model) {
    static uint16_t labels[VOXELS], other[VOXELS];
    /* the clicks of a class are close together, so that their order matters */
    prompts of[2] = {{true, {2, 3, 4, 10, 24, 27}, 2, 2, {{6, 12, 14}, {5, 9, 12}, {6, 11, 14}, {6, 13, 15}}, "b-fbf"},
                     {true, {0, 0, 0, 5, 12, 11}, 1, 2, {{3, 4, 5}, {3, 5, 5}, {3, 4, 6}}, "-fb-b"}};
    const struct {
        const char *name;
        oddity odd;
    } cases[] = {{"lists.npz", {.order = LISTS}}, {"lists2.npz", {.order = LISTS, .numpy2 = true}},
                 {"table.npz", {.order = TABLE}}, {"table2.npz", {.order = TABLE, .numpy2 = true}},
                 {"texts.npz", {.order = TEXTS}}, {"big.npz", {.order = TEXTS_BIG}}};
    enum { CASES = sizeof cases / sizeof cases[0] };
    make_folder("orders");
    for (int i = 0; i < CASES; i++) write_case("orders", cases[i].name, of, 2, &cases[i].odd);
    write_case("orders", "newest.npz", of, 2, &(oddity){.order = NEWEST});
    write_case("orders", "newest_text.npz", of, 2, &(oddity){.order = NEWEST_TEXTS});
    prompts rest[2] = {of[0], {false, {0}, 0, 0, {{0}}, NULL}};
    write_case("orders", "previous.npz", rest, 2, &(oddity){.has_previous = true});
    write_case("orders", "wrong.npz", of, 2, &(oddity){.order = NUMBERS});
    CHECK(predict("orders", "ordered") == 3);
    if (!CHECK(lines_in(said) == 1 && says("/wrong.npz", "clicks_order, class 1: element 1 is not fg, bg or None")))
        printf("    %s", said);
    label_map(model, of, 2, labels);
    for (int i = 0; i < CASES; i++) check_result("ordered", cases[i].name, labels, IO_U8, 3);
    for (int i = 0; i < 2; i++) of[i].order = NULL;
    label_map(model, of, 2, other);
    CHECK(memcmp(labels, other, sizeof labels) != 0); /* else the order is not tested */
    of[0].order = "bbff"; /* the newest of the first class is fg, so bg comes first; of the second bg */
    label_map(model, of, 2, labels);
    check_result("ordered", "newest.npz", labels, IO_U8, 3);
    check_result("ordered", "newest_text.npz", labels, IO_U8, 3);
    for (int i = 0; i < VOXELS; i++) labels[i] = 2; /* the later class keeps all it had */
    check_result("ordered", "previous.npz", labels, IO_U8, 1);
}

/* Nothing but bad cases: each is named with what is wrong with it, none is written. */
static void test_bad_cases(void) {
    prompts click_outside[1] = {{true, {2, 3, 4, 8, 9, 9}, 1, 0, {{3, Y, 5}}, NULL}};
    prompts box_outside[2] = {three[0], {true, {2, 3, 4, 8, 9, X}, 0, 0, {{0}}, NULL}};
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
        {"spacing.npz", "array spacing: got 2 elements, need 3", three, 3, {.spacing = {0.5, 2}, .spacings = 2}},
        {"negative.npz", "array spacing: element 1", three, 3, {.spacing = {0.5, -1, 2}}},
        {"infinite.npz", "array spacing: element 2", three, 3, {.spacing = {0.5, 2, INFINITY}}},
        {"none.npz", "no prompts", three, 3, {.no_boxes = true, .no_clicks = true}},
        {"count.npz", "array clicks: got 3 classes, the array before it has 4", three, 3, {.odd_classes = true}},
        {"lists.npz", "clicks, class 1: need a dictionary", three, 3, {.clicks_are_lists = true}},
    };
    enum { CASES = sizeof cases / sizeof cases[0] };
    make_folder("bad");
    for (int i = 0; i < CASES; i++) write_case("bad", cases[i].name, cases[i].of, cases[i].classes, &cases[i].odd);
    CHECK(io_write_file(path_of("bad", "text.npz"), "no zip", 6, NULL) == SEGFM_OK);
    CHECK(mkdir(path_of("bad", "folder.npz"), 0777) == 0);
    CHECK(predict("bad", "none") == 3);
    if (!CHECK(lines_in(said) == CASES + 2)) printf("%s", said);
    CHECK(says("/bad/text.npz: ", "zip") && says("/bad/folder.npz: ", "folder"));
    for (int i = 0; i < CASES; i++) {
        if (!CHECK(says(cases[i].name, cases[i].phrase)))
            printf("    %s: %s\n%s", cases[i].name, cases[i].phrase, said);
        CHECK(!exists(path_of("none", cases[i].name)));
    }
}

/* Results under the cases' own names would overwrite the cases. */
static void test_same_folder(void) {
    io_buffer before = {0}, after = {0};
    make_folder("own");
    write_case("own", "a.npz", three, 3, &(oddity){0});
    CHECK(io_read_file(path_of("own", "a.npz"), &before, NULL) == SEGFM_OK);
    CHECK(symlink("own", path_of("link", "")) == 0);
    static const char *const names[] = {"own", "own/", "own/../own", "link"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK(predict("own", names[i]) == 2);
        CHECK(lines_in(said) == 1 && says(names[i], "would replace the input"));
    }
    CHECK(io_read_file(path_of("own", "a.npz"), &after, NULL) == SEGFM_OK);
    CHECK(before.size == after.size && memcmp(before.data, after.data, before.size) == 0);
    io_buffer_free(&before);
    io_buffer_free(&after);
}

/* A result that cannot be written. */
static void test_unwritable(void) {
    CHECK(mkdir(path_of("blocked", ""), 0777) == 0 && mkdir(path_of("blocked", "a.npz"), 0777) == 0);
    CHECK(predict("own", "blocked") == 5);
    CHECK(lines_in(said) == 1 && says("blocked/a.npz", ""));
}

int main(int argc, char **argv) {
    if (!begin_commands(argc, argv)) return test_summary();
    segfm_model *model = tiny_model();
    test_good_cases(model);
    test_orders(model);
    test_bad_cases();
    test_same_folder();
    test_unwritable();
    segfm_model_close(model);
    end_commands();
    return test_summary();
}
