/* `segfm eval` end to end: scans of two and three organs as NIfTI pairs and as challenge files, its table, its summary, its
   masks and prompts against what the public API and vol/ give when they are asked here in turn. */
#include "test.h"

#include "../train/train.h"
#include "../vol/vol.h"
#include "bright.h"
#include "challenge.h"
#include "command.h"

enum { Z = 12, Y = 28, X = 30, VOXELS = Z * Y * X, STEPS = 6, METRICS = 4, MANY = 103 };
static const vol_shape shape = {{Z, Y, X}};
static const char *const metric_names[METRICS] = {"DSC", "NSD", "HD95", "ASD"};

/* ---- cases ------------------------------------------------------------------------------------------------------ */

typedef struct subject {
    uint8_t image[VOXELS];
    uint16_t truth[VOXELS];
    double spacing[3]; /* x,y,z */
} subject;

/* Bright ellipsoids on a ground; the truth has them moved a little. */
static void add_organ(subject *s, unsigned label, const double at[3], const double radius[3], int brightness) {
    for (int z = 0, i = 0; z < Z; z++)
        for (int y = 0; y < Y; y++)
            for (int x = 0; x < X; x++, i++) {
                double p[3] = {z - at[0], y - at[1], x - at[2]}, seen = 0, marked = 0;
                for (int k = 0; k < 3; k++) {
                    seen += p[k] * p[k] / (radius[k] * radius[k]);
                    marked += (p[k] - 0.7) * (p[k] - 0.7) / (radius[k] * radius[k]);
                }
                if (seen <= 1) s->image[i] = (uint8_t)brightness;
                if (marked <= 1.2) s->truth[i] = (uint16_t)label;
            }
}

static void make_subject(subject *s, double sx, double sy, double sz) {
    *s = (subject){.spacing = {sx, sy, sz}};
    for (int i = 0; i < VOXELS; i++) s->image[i] = (uint8_t)(i % X > 5 && i % X < 25 ? 40 + i * 7 % 11 : i % 3);
}

/* Labels 2, 7 and 300, of which 300 has few voxels. */
static void make_first(subject *s) {
    make_subject(s, 0.5, 1, 2.5);
    add_organ(s, 2, (double[]){5, 9, 10}, (double[]){3, 4, 5}, 180);
    add_organ(s, 7, (double[]){7, 19, 20}, (double[]){2, 5, 4}, 150);
    for (int i = 0; i < 20; i++) s->truth[VOXELS - 1 - i] = 300;
}

/* Labels 1 to 3; 3 is in two parts far apart in z. */
static void make_second(subject *s) {
    make_subject(s, 1.5, 0.75, 1);
    add_organ(s, 1, (double[]){5, 14, 9}, (double[]){4, 6, 4}, 170);
    add_organ(s, 2, (double[]){6, 12, 20}, (double[]){3, 5, 5}, 150);
    add_organ(s, 3, (double[]){1, 22, 22}, (double[]){1.2, 4, 5}, 160);
    add_organ(s, 3, (double[]){10, 21, 14}, (double[]){1.2, 4, 3}, 160);
}

static void write_pair(const subject *s, const char *image, const char *label) {
    io_nifti like;
    io_nifti_init(&like, X, Y, Z, s->spacing);
    CHECK(io_nifti_write_like(path_of(image, ""), &like, IO_U8, s->image, NULL) == SEGFM_OK);
    CHECK(io_nifti_write_like(path_of(label, ""), &like, IO_U16, s->truth, NULL) == SEGFM_OK);
    io_nifti_free(&like);
}

static void write_archive(const char *path, io_zip_writer *zip) {
    CHECK(io_zip_finish(zip, NULL) == SEGFM_OK);
    CHECK(io_write_file(path, zip->archive.data, zip->archive.size, NULL) == SEGFM_OK);
    io_zip_writer_free(zip);
}

static void add_truth(io_zip_writer *zip, const subject *s) {
    add_array(zip, "gts.npy", IO_U16, 3, (size_t[]){Z, Y, X}, s->truth);
}

/* boxes: n of them or NULL. gts go into a file of their own when there is a folder for them. */
static void write_case(const subject *s, const char *images, const char *gts, const char *name,
                       const int64_t (*boxes)[6], int n) {
    io_zip_writer zip = {0}, own = {0};
    add_array(&zip, "imgs.npy", IO_U8, 3, (size_t[]){Z, Y, X}, s->image);
    add_array(&zip, "spacing.npy", IO_F64, 1, (size_t[]){3}, s->spacing);
    if (boxes != NULL) {
        pickler p = begin_array(true, n);
        for (int i = 0; i < n; i++) put_box(&p, boxes[i], NULL);
        add_objects(&zip, "boxes.npy", n, 0, end_array(&p, n));
    }
    add_truth(gts != NULL ? &own : &zip, s);
    if (gts != NULL) write_archive(path_of(gts, name), &own);
    write_archive(path_of(images, name), &zip);
}

/* ---- what is right ------------------------------------------------------------------------------------------------ */

typedef struct answer {
    unsigned label;
    uint64_t voxels;
    bool has_box;
    int64_t box[6];
    double value[METRICS][STEPS];
    vol_click click[STEPS];
    uint8_t mask[VOXELS]; /* the last one */
} answer;

static segfm_session *session_on(const segfm_model *model, const subject *s, const segfm_options *options) {
    static float voxels[VOXELS];
    segfm_session *session = NULL;
    for (int i = 0; i < VOXELS; i++) voxels[i] = (float)s->image[i];
    CHECK(segfm_session_new(model, shape.n, options, NULL, 0, &session, NULL) == SEGFM_OK);
    CHECK(segfm_set_volume(session, voxels, NULL) == SEGFM_OK);
    return session;
}

static void object_of(const subject *s, unsigned label, uint8_t *object) {
    for (int i = 0; i < VOXELS; i++) object[i] = s->truth[i] == label;
}

/* z: first and last slice; x and y: of the slice in the middle of those with the label. */
static void naive_box(const uint8_t *object, int64_t box[6]) {
    int slices[Z] = {0}, n = 0;
    for (int z = 0; z < Z; z++)
        for (int i = 0; i < Y * X; i++)
            if (object[z * Y * X + i] && (n == 0 || slices[n - 1] != z)) slices[n++] = z;
    const int64_t start[6] = {slices[0], Y, X, slices[n - 1], -1, -1};
    memcpy(box, start, sizeof start);
    for (int i = 0; i < Y * X; i++) {
        int64_t y = i / X, x = i % X;
        if (!object[slices[n / 2] * Y * X + i]) continue;
        if (y < box[1]) box[1] = y;
        if (y > box[4]) box[4] = y;
        if (x < box[2]) box[2] = x;
        if (x > box[5]) box[5] = x;
    }
}

static void measure(const uint8_t *object, const uint8_t *mask, const double spacing[3], answer *a, int step) {
    vol_surface_request q = {.shape = shape, .tolerance = 2, .threads = 1};
    vol_surface m;
    memcpy(q.spacing, spacing, sizeof q.spacing);
    void *memory = aligned_alloc(NN_ALIGN, vol_surface_bytes(shape, false, 1));
    vol_surface_measure(object, mask, &q, memory, &m);
    free(memory);
    const double values[METRICS] = {m.dice, m.nsd, m.hd95, (m.asd_truth + m.asd_prediction) / 2};
    for (int k = 0; k < METRICS; k++) a->value[k][step] = values[k];
}

static vol_click click_on(const uint8_t *object, const uint8_t *mask, vol_click_rule rule) {
    vol_click_request q = {shape, rule, VOL_CLICK_LARGE, 1};
    vol_click click = {{-1, -1, -1}, -1};
    size_t bytes = vol_click_bytes(mask, object, &q);
    if (bytes == 0) return click;
    void *memory = aligned_alloc(NN_ALIGN, bytes);
    vol_simulate_click(mask, object, &q, memory, &click);
    free(memory);
    return click;
}

static void start_answer(const subject *s, unsigned label, answer *a) {
    *a = (answer){.label = label, .has_box = true};
    for (int k = 0; k < STEPS; k++) a->click[k].label = -1;
    object_of(s, label, a->mask);
    for (int i = 0; i < VOXELS; i++) a->voxels += a->mask[i];
    naive_box(a->mask, a->box);
}

/* A class by itself. a: start_answer's, with the box to be given or none. */
static void plain_from(const segfm_model *model, const subject *s, const segfm_options *options, answer *a) {
    static uint8_t object[VOXELS];
    const double zyx[3] = {s->spacing[2], s->spacing[1], s->spacing[0]};
    segfm_session *session = session_on(model, s, options);
    object_of(s, a->label, object);
    if (a->has_box) CHECK(segfm_box(session, a->box, NULL) == SEGFM_OK);
    for (int k = 0; k < STEPS; k++) {
        if (k > 0) a->click[k] = click_on(object, a->mask, VOL_CLICK_FIRST);
        if (k > 0 && a->click[k].label >= 0)
            CHECK(segfm_click(session, a->click[k].at, a->click[k].label == 1, NULL) == SEGFM_OK);
        CHECK(segfm_mask(session, a->mask, VOXELS, NULL) == SEGFM_OK);
        measure(object, a->mask, zyx, a, k);
    }
    segfm_session_free(session);
}

static void plain(const segfm_model *model, const subject *s, unsigned label, const segfm_options *options, answer *a) {
    start_answer(s, label, a);
    plain_from(model, s, options, a);
}

/* The label map that a step's prompts give, each class from the beginning. */
static void predict_step(const segfm_model *model, const subject *s, answer *a, int n, int step,
                         uint16_t labels[VOXELS]) {
    segfm_session *session = session_on(model, s, NULL);
    memset(labels, 0, VOXELS * sizeof *labels);
    for (int c = 0; c < n; c++) {
        segfm_reset(session);
        if (a[c].has_box) CHECK(segfm_box(session, a[c].box, NULL) == SEGFM_OK);
        for (int k = 1; k <= step; k++)
            if (a[c].click[k].label >= 0)
                CHECK(segfm_click(session, a[c].click[k].at, a[c].click[k].label == 1, NULL) == SEGFM_OK);
        CHECK(segfm_mask(session, a[c].mask, VOXELS, NULL) == SEGFM_OK);
        for (int i = 0; i < VOXELS; i++)
            if (a[c].mask[i]) labels[i] = (uint16_t)a[c].label;
    }
    segfm_session_free(session);
}

/* As the official script: all classes step by step. a: start_answer's, with the boxes to be given. */
static void official(const segfm_model *model, const subject *s, answer *a, int n, uint16_t labels[VOXELS]) {
    static uint8_t object[VOXELS], mask[VOXELS];
    memset(labels, 0, VOXELS * sizeof *labels);
    for (int k = 0; k < STEPS; k++) {
        double dice = 0;
        for (int c = 0; c < n && k > 0; c++) {
            object_of(s, a[c].label, object);
            for (int i = 0; i < VOXELS; i++) mask[i] = labels[i] == a[c].label;
            a[c].click[k] = click_on(object, mask, VOL_CLICK_OFFICIAL);
        }
        predict_step(model, s, a, n, k, labels);
        for (int c = 0; c < n; c++) {
            object_of(s, a[c].label, object);
            for (int i = 0; i < VOXELS; i++) mask[i] = labels[i] == a[c].label;
            measure(object, mask, s->spacing, &a[c], k); /* x,y,z for z,y,x */
            dice += a[c].value[0][k] / n;
        }
        for (int c = 0; c < n && dice <= 0.2; c++) a[c].value[1][k] = 0;
    }
}

static double area(const double v[STEPS]) { return v[1] / 2 + v[2] + v[3] + v[4] + v[5] / 2; }

/* ---- what it wrote ------------------------------------------------------------------------------------------------ */

static char table[1 << 19], prompts[1 << 16];

/* Field `column` of line `line` (0: the header); empty when there is none. */
static const char *field(int line, int column) {
    static char out[4][300];
    static int next;
    char *text = out[next++ % 4];
    const char *p = table;
    text[0] = '\0';
    for (; line > 0; line--) {
        if ((p = strchr(p, '\n')) == NULL) return text;
        p++;
    }
    for (; column > 0; column--) {
        p += strcspn(p, ",\n");
        if (*p++ != ',') return text;
    }
    size_t length = strcspn(p, ",\n");
    if (length < sizeof out[0]) memcpy(text, p, length), text[length] = '\0';
    return text;
}

static double number(int line, const char *column) {
    for (int i = 0; field(0, i)[0] != '\0'; i++)
        if (strcmp(field(0, i), column) == 0) {
            const char *text = field(line, i);
            return text[0] == '\0' ? -12345 : strtod(text, NULL);
        }
    return -54321;
}

static bool close_to(double got, double want) {
    return (isnan(got) && isnan(want)) || fabs(got - want) <= 1e-10 * (1 + fabs(want));
}

static bool has_prompt(const char *name, unsigned label, int step, const char *text) {
    char line[600];
    snprintf(line, sizeof line, "%s\t%u\t%d\t%s\n", name, label, step, text);
    return strstr(prompts, line) != NULL;
}

/* A line of the table, and the class's prompts. */
static void check_row(int line, const char *name, const answer *a) {
    char column[40], text[200];
    CHECK(strcmp(field(line, 0), name) == 0);
    CHECK(number(line, "class") == a->label && number(line, "voxels") == (double)a->voxels);
    for (int m = 0; m < METRICS; m++)
        for (int k = 0; k < STEPS; k++) {
            snprintf(column, sizeof column, "%s_%d", metric_names[m], k);
            if (!CHECK(close_to(number(line, column), a->value[m][k])))
                printf("    %s class %u, %s: %.12g, %.12g\n", name, a->label, column, number(line, column),
                       a->value[m][k]);
        }
    CHECK(close_to(number(line, "DSC_AUC"), area(a->value[0])) && close_to(number(line, "NSD_AUC"), area(a->value[1])));
    const int64_t *b = a->box;
    snprintf(text, sizeof text, "box\t%d,%d,%d,%d,%d,%d", (int)b[2], (int)b[1], (int)b[0], (int)b[5], (int)b[4],
             (int)b[3]);
    CHECK(has_prompt(name, a->label, 0, text) == a->has_box);
    for (int k = 0; k < STEPS; k++) {
        const vol_click *c = &a->click[k];
        snprintf(column, sizeof column, "seconds_%d", k);
        CHECK(number(line, column) >= 0 && (k == 0 || (number(line, column) > 1e-7) == (c->label >= 0)));
        if (c->label < 0) continue;
        snprintf(text, sizeof text, "click\t%d,%d,%d,%c", (int)c->at[2], (int)c->at[1], (int)c->at[0],
                 c->label ? '+' : '-');
        if (!CHECK(has_prompt(name, a->label, k, text)))
            printf("    %s class %u step %d: %s\n", name, a->label, k, text);
    }
}

/* The line of stdout that begins with the word: number i (from 0) after it. */
static double summary(const char *word, int i) {
    char start[100];
    snprintf(start, sizeof start, "\n%s ", word);
    const char *p = strstr(printed, start);
    if (p == NULL) return -54321;
    for (p += strlen(start); i > 0; i--) p += strcspn(p, " \n"), p += *p == ' ';
    return strtod(p, NULL);
}

static bool roughly(double got, double want) {
    return (isnan(got) && isnan(want)) || fabs(got - want) <= 2e-9 * (1 + fabs(want));
}

/* Means over cases, of n[0], n[1] … classes. */
static void check_summary(const answer *a, int count, const int *n) {
    double auc[2] = {0, 0};
    for (int m = 0; m < METRICS; m++)
        for (int k = 0; k < STEPS; k++) {
            double mean = 0;
            int cases = 0;
            for (int i = 0, c = 0; i < count; i++) {
                double sum = 0;
                int defined = 0;
                for (int j = 0; j < n[i]; j++, c++)
                    if (!isnan(a[c].value[m][k])) sum += a[c].value[m][k], defined++;
                if (defined > 0) mean += sum / defined, cases++;
            }
            mean = cases > 0 ? mean / cases : (double)NAN;
            if (!CHECK(roughly(summary(metric_names[m], k), mean)))
                printf("    %s %d: %.10g, %.10g\n", metric_names[m], k, summary(metric_names[m], k), mean);
            if (m < 2) auc[m] += k == 0 ? 0 : k == 1 || k == STEPS - 1 ? mean / 2 : mean;
        }
    CHECK(roughly(summary("DSC_AUC", 0), auc[0]) && roughly(summary("DSC_AUC", 2), auc[1]));
}

/* A saved label map. */
static void check_labels(const io_nifti *image, const uint16_t *want) {
    static uint16_t labels[VOXELS];
    CHECK(io_nifti_labels(image, 0, labels, NULL) == SEGFM_OK && memcmp(labels, want, sizeof labels) == 0);
}

static void paint(uint16_t *labels, const answer *a) {
    for (int i = 0; i < VOXELS; i++)
        if (a->mask[i]) labels[i] = (uint16_t)a->label;
}

/* ---- the tests ------------------------------------------------------------------------------------------------------ */

static char weights[1100]; /* of the bright model */
static subject first, second;

/* Runs eval, with "%s" in the arguments being the scratch folder. */
static int evaluate(const char *format) {
    char arguments[8192] = "eval --quiet ", *out = arguments + strlen(arguments);
    for (; *format != '\0'; format++)
        if (format[0] == '%' && format[1] == 's') {
            out += strlen(strcpy(out, folder));
            format++;
        } else {
            *out++ = *format;
        }
    *out = '\0';
    strcat(arguments, " -w ");
    strcat(arguments, weights);
    return run_command(arguments);
}

static void read_results(void) {
    read_text(path_of("out.csv", ""), table, sizeof table);
    if (exists(path_of("saved", "prompts.tsv"))) read_text(path_of("saved", "prompts.tsv"), prompts, sizeof prompts);
}

static void write_text(const char *path, const char *text) {
    CHECK(io_write_file(path, text, strlen(text), NULL) == SEGFM_OK);
}

/* Two pairs; the first has a class of too few voxels, the second one whose middle would be empty by its bounds. */
static void test_pairs(const segfm_model *model) {
    static answer a[5];
    make_folder("pairs");
    write_pair(&first, "pairs/a.nii.gz", "pairs/a_label.nii");
    write_pair(&second, "pairs/b, 2.nii", "pairs/b_label.nii.gz");
    write_text(path_of("pairs", "list.tsv"), "image\tlabel\r\n# remark\n\na.nii.gz\ta_label.nii\tmore\tthings\r\n"
                                             "b, 2.nii\tb_label.nii.gz");
    CHECK(evaluate("--pairs %s/pairs/list.tsv --csv %s/out.csv --save %s/saved") == 0);
    CHECK(said[0] == '\0');
    read_results();
    const unsigned labels[5] = {2, 7, 1, 2, 3};
    uint16_t painted[VOXELS] = {0};
    io_nifti saved = {0};
    for (int i = 0; i < 5; i++) {
        plain(model, i < 2 ? &first : &second, labels[i], NULL, &a[i]);
        if (i < 2) check_row(1 + i, "a.nii.gz", &a[i]);
        if (i < 2) paint(painted, &a[i]);
    }
    CHECK(io_nifti_read(path_of("saved", "a.nii.gz"), &saved, NULL) == SEGFM_OK);
    check_labels(&saved, painted);
    CHECK(saved.dtype == IO_U8 && saved.spacing[0] == first.spacing[0] && saved.spacing[2] == first.spacing[2]);
    io_nifti_free(&saved);
    CHECK(exists(path_of("saved", "b, 2.nii.gz")));
    CHECK(strstr(table, "\n\"b, 2.nii\",1,") != NULL);
    CHECK(lines_in(table) == 6);
    CHECK(strstr(printed, "left out: bad cases 0, cases without a class 0, classes below 100 voxels 1\n") == printed);
    CHECK(summary("cases", 0) == 2 && summary("cases", 2) == 5);
    check_summary(a, 2, (const int[]){2, 3});
    CHECK(a[0].value[0][0] > 0.2 && a[0].click[1].label >= 0); /* else there is little to see */

    /* the other one under a name without a comma */
    write_pair(&second, "pairs/b.nii", "pairs/b_label.nii.gz");
    write_text(path_of("pairs", "one.tsv"), "b.nii\tb_label.nii.gz\n");
    CHECK(evaluate("--pairs %s/pairs/one.tsv --csv %s/out.csv --save %s/saved --threads 1") == 0);
    read_results();
    for (int i = 2; i < 5; i++) check_row(i - 1, "b.nii", &a[i]);
}

/* Other parts of the click; smaller classes; other numbers of steps. */
static void test_options(const segfm_model *model) {
    static answer a, both;
    segfm_options options = segfm_options_default();
    options.click_by = SEGFM_BY_DECODER;
    plain(model, &first, 7, &options, &a);
    plain(model, &first, 7, NULL, &both);
    CHECK(!close_to(a.value[0][STEPS - 1], both.value[0][STEPS - 1])); /* else the next one shows nothing */
    write_text(path_of("pairs", "a.tsv"), "a.nii.gz\ta_label.nii\n");
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/out.csv --save %s/saved --by decoder --min-voxels 20") == 0);
    read_results();
    CHECK(lines_in(table) == 4 && number(3, "class") == 300 && number(3, "voxels") == 20);
    check_row(2, "a.nii.gz", &a);
    io_nifti saved = {0};
    CHECK(io_nifti_read(path_of("saved", "a.nii.gz"), &saved, NULL) == SEGFM_OK && saved.dtype == IO_U16);
    io_nifti_free(&saved);
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/out.csv --clicks 0") == 0);
    read_results();
    CHECK(strncmp(table, "case,class,voxels,DSC_0,NSD_0,HD95_0,ASD_0,DSC_AUC,NSD_AUC,seconds_0\n", 69) == 0);
    CHECK(close_to(number(2, "DSC_0"), both.value[0][0]) && isnan(number(2, "DSC_AUC")) &&
          isnan(summary("DSC_AUC", 0)));
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/out.csv --clicks 0 --min-voxels 100000") == 0);
    read_results();
    CHECK(lines_in(table) == 1 && isnan(summary("DSC", 0)) && summary("cases", 0) == 0);
    CHECK(strstr(printed, "cases without a class 1, classes below 100000 voxels 3\n") != NULL);
}

/* Rows of some labels alone, in the truth's order, with the numbers they have among all; spreading with a window that follows the
   box, alone and by default. */
static void test_labels(const segfm_model *model) {
    static answer a, by_decoder;
    const unsigned wrong[] = {3, 0, 70000};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "--pairs %%s/pairs/a.tsv --csv %%s/none.csv --labels %u%s", wrong[i],
                 wrong[i] == 3 ? ",x" : "");
        CHECK(evaluate(arguments) == 2 && says("labels: got ", "need labels of 1 to 65535"));
        CHECK(!exists(path_of("none.csv", "")));
    }
    plain(model, &first, 7, NULL, &a);
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/out.csv --save %s/saved --labels 300,9,7 --min-voxels 20") == 0);
    read_results();
    CHECK(lines_in(table) == 3 && number(2, "class") == 300 && summary("cases", 2) == 2);
    check_row(1, "a.nii.gz", &a);
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/out.csv --clicks 0 --labels 9") == 0);
    read_results();
    CHECK(lines_in(table) == 1 && summary("cases", 0) == 0);

    /* --by decoder,spread */
    char other[sizeof weights];
    memcpy(other, weights, sizeof other);
    io_buffer bytes = bright_framed_bytes(true, 25);
    segfm_model *framed = bright_framed_model(true, 25);
    segfm_options options = segfm_options_default();
    base_format(weights, sizeof weights, "%s/framed.segfm", folder);
    CHECK(io_write_file(weights, bytes.data, bytes.size, NULL) == SEGFM_OK);
    io_buffer_free(&bytes);
    options.click_by = SEGFM_BY_DECODER;
    plain(framed, &first, 7, &options, &by_decoder);
    options.click_by = SEGFM_BY_DECODER | SEGFM_BY_SPREAD;
    plain(framed, &first, 7, &options, &a);
    CHECK(!close_to(a.value[0][STEPS - 1], by_decoder.value[0][STEPS - 1])); /* else there is nothing to see */
    static const char *const by[] = {" --by decoder,spread", " --by spread,decoder,spread", "", " --by decoder"};
    for (size_t i = 0; i < sizeof by / sizeof by[0]; i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "--pairs %%s/pairs/a.tsv --csv %%s/out.csv --save %%s/saved --labels 7%s",
                 by[i]);
        CHECK(evaluate(arguments) == 0);
        read_results();
        check_row(1, "a.nii.gz", i == 3 ? &by_decoder : &a);
    }
    segfm_model_close(framed);
    memcpy(weights, other, sizeof weights);
}

/* Where a box is after --loosen and --shift, with libm's sine and cosine. */
static void naive_disturb(const char *file, unsigned label, int loosen, int shift, int64_t box[6]) {
    train_random r = train_random_at(base_xxh64(file, strlen(file), 0), label, 0);
    double z = 2 * train_random_uniform(&r) - 1, turn = 2 * acos(-1.0) * train_random_uniform(&r), square = 0;
    const double by[3] = {shift * z, shift * sqrt(1 - z * z) * sin(turn), shift * sqrt(1 - z * z) * cos(turn)};
    for (int k = 0; k < 3; k++) {
        int64_t outwards = (int64_t)round((double)(box[3 + k] - box[k] + 1) * loosen / 100),
                moved = (int64_t)round(by[k]);
        int64_t bounds[2] = {box[k] - outwards + moved, box[3 + k] + outwards + moved};
        for (int i = 0; i < 2; i++) {
            while (bounds[i] < 0) bounds[i]++;
            while (bounds[i] >= shape.n[k]) bounds[i]--;
            box[k + 3 * i] = bounds[i];
        }
        square += by[k] * by[k];
    }
    CHECK(fabs(square - (double)shift * shift) < 1e-6 * (1 + square));
}

/* Boxes made of the truth, then loosened, moved, both; those that leave the scan are cut there. The same in another folder. */
static void test_disturbed(const segfm_model *model) {
    static const struct { int loosen, shift; } by[] = {{20, 0}, {0, 5}, {35, 3}, {10, 500000}, {1000, 0}, {0, 0}};
    static answer a[5];
    write_text(path_of("pairs", "two.tsv"), "a.nii.gz\ta_label.nii\nb.nii\tb_label.nii.gz\n");
    make_folder("elsewhere");
    write_pair(&first, "elsewhere/a.nii.gz", "elsewhere/a_label.nii");
    write_text(path_of("elsewhere", "a.tsv"), "a.nii.gz\ta_label.nii\n");
    int cut = 0, moved = 0;
    for (size_t i = 0; i < sizeof by / sizeof by[0]; i++) {
        const unsigned labels[5] = {2, 7, 1, 2, 3};
        char arguments[200];
        snprintf(arguments, sizeof arguments,
                 "--loosen %d --shift %d --csv %%s/out.csv --save %%s/saved --pairs %%s/%s", by[i].loosen, by[i].shift,
                 "pairs/two.tsv");
        CHECK(evaluate(arguments) == 0);
        read_results();
        for (int c = 0; c < 5; c++) {
            const subject *s = c < 2 ? &first : &second;
            start_answer(s, labels[c], &a[c]);
            int64_t box[6];
            memcpy(box, a[c].box, sizeof box);
            naive_disturb(c < 2 ? "a.nii.gz" : "b.nii", labels[c], by[i].loosen, by[i].shift, a[c].box);
            plain_from(model, s, NULL, &a[c]);
            check_row(1 + c, c < 2 ? "a.nii.gz" : "b.nii", &a[c]);
            for (int k = 0; k < 3; k++) cut += a[c].box[k] == 0 || a[c].box[3 + k] == shape.n[k] - 1;
            moved += memcmp(box, a[c].box, sizeof box) != 0;
        }
        if (by[i].shift != 5) continue;
        snprintf(arguments, sizeof arguments,
                 "--shift 5 --csv %%s/out.csv --save %%s/saved --pairs %%s/elsewhere/a.tsv");
        CHECK(evaluate(arguments) == 0);
        read_results();
        for (int c = 0; c < 2; c++) check_row(1 + c, "a.nii.gz", &a[c]);
    }
    CHECK(moved == 25 && cut >= 20);
    /* a case's own boxes; one that is not in the scan stays an error */
    int64_t boxes[2][6] = {{2, 5, 6, 7, 12, 14}, {4, 16, 16, 9, 23, 24}};
    static subject s;
    s = first;
    for (int i = 0; i < VOXELS; i++) s.truth[i] = s.truth[i] == 300 ? 0 : s.truth[i];
    make_folder("own");
    write_case(&s, "own", NULL, "o.npz", (const int64_t(*)[6])boxes, 2);
    CHECK(evaluate("--images %s/own --csv %s/out.csv --save %s/saved --loosen 25 --shift 2") == 0);
    read_results();
    for (int c = 0; c < 2; c++) {
        start_answer(&s, c == 0 ? 2 : 7, &a[c]);
        memcpy(a[c].box, boxes[c], sizeof boxes[c]);
        naive_disturb("o.npz", a[c].label, 25, 2, a[c].box);
        plain_from(model, &s, NULL, &a[c]);
        check_row(1 + c, "o.npz", &a[c]);
    }
    boxes[1][5] = X;
    write_case(&s, "own", NULL, "o.npz", (const int64_t(*)[6])boxes, 2);
    CHECK(evaluate("--images %s/own --csv %s/none.csv --loosen 25 --shift 2") == 3);
    CHECK(says("/o.npz: ", "box, axis x: got 16 to 30, the scan has 0 to 29"));
}

/* The voxel of the object that is farthest from all that is not, the first of equal ones. */
static void naive_middle(const uint8_t *object, int64_t at[3]) {
    int best = 0;
    for (int v = 0; v < VOXELS; v++) {
        const int p[3] = {v / (Y * X), v / X % Y, v % X};
        int nearest = object[v] ? 1000000 : 0;
        for (int w = 0; w < (Z + 2) * (Y + 2) * (X + 2); w++) { /* one voxel around the scan, too */
            const int q[3] = {w / ((Y + 2) * (X + 2)) - 1, w / (X + 2) % (Y + 2) - 1, w % (X + 2) - 1};
            bool outside = q[0] < 0 || q[0] >= Z || q[1] < 0 || q[1] >= Y || q[2] < 0 || q[2] >= X;
            if (nearest == 0 || (!outside && object[(q[0] * Y + q[1]) * X + q[2]])) continue;
            int d = 0;
            for (int k = 0; k < 3; k++) d += (p[k] - q[k]) * (p[k] - q[k]);
            if (d < nearest) nearest = d;
        }
        if (nearest <= best) continue;
        best = nearest;
        for (int k = 0; k < 3; k++) at[k] = p[k];
    }
}

/* Clicks alone, also where the file has boxes, and with the official rules. */
static void test_no_box(const segfm_model *model) {
    static answer a[3];
    static uint8_t object[VOXELS];
    static uint16_t labels[VOXELS];
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/out.csv --save %s/saved --no-box") == 0);
    read_results();
    CHECK(strstr(prompts, "\tbox\t") == NULL);
    for (int c = 0; c < 2; c++) {
        int64_t middle[3] = {-1, -1, -1};
        start_answer(&first, c == 0 ? 2 : 7, &a[c]);
        a[c].has_box = false;
        memset(a[c].mask, 0, sizeof a[c].mask);
        plain_from(model, &first, NULL, &a[c]);
        check_row(1 + c, "a.nii.gz", &a[c]);
        object_of(&first, a[c].label, object);
        naive_middle(object, middle);
        CHECK(memcmp(middle, a[c].click[1].at, sizeof middle) == 0 && a[c].click[1].label == 1);
        CHECK(number(1 + c, "DSC_0") == 0 && number(1 + c, "NSD_0") == 0 && isnan(number(1 + c, "HD95_0")));
        CHECK(number(1 + c, "DSC_1") > 0);
    }
    CHECK(summary("DSC", 0) == 0 && summary("undefined HD95 and ASD (prediction empty)", 0) == 2);
    int64_t boxes[3][6];
    make_folder("boxed");
    for (int i = 0; i < 3; i++) {
        start_answer(&second, (unsigned)i + 1, &a[i]);
        memcpy(boxes[i], a[i].box, sizeof boxes[i]);
        a[i].has_box = false;
    }
    write_case(&second, "boxed", NULL, "b.npz", (const int64_t(*)[6])boxes, 3);
    official(model, &second, a, 3, labels);
    CHECK(evaluate("--images %s/boxed --csv %s/out.csv --save %s/saved --official --no-box") == 0);
    read_results();
    for (int i = 0; i < 3; i++) check_row(1 + i, "b.npz", &a[i]);
    static const char *const wrong[] = {"--loosen 20", "--shift 5", "--loosen 0"};
    for (int i = 0; i < 3; i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "--images %%s/boxed --csv %%s/none.csv --no-box %s", wrong[i]);
        CHECK(evaluate(arguments) == 2 && says("", "no-box: goes neither with --loosen nor with --shift"));
    }
}

/* A class that the model finds as it is: no click, and what stands is repeated. */
static void test_perfect(const segfm_model *model) {
    static answer a;
    static subject s;
    s = first;
    plain(model, &s, 2, NULL, &a);
    segfm_session *session = session_on(model, &s, NULL);
    CHECK(segfm_box(session, a.box, NULL) == SEGFM_OK && segfm_mask(session, a.mask, VOXELS, NULL) == SEGFM_OK);
    segfm_session_free(session);
    for (int i = 0; i < VOXELS; i++) s.truth[i] = a.mask[i];
    make_folder("perfect");
    write_case(&s, "perfect", NULL, "p.npz", (const int64_t(*)[6])a.box, 1);
    static const char *const rules[] = {"", " --official"};
    for (int i = 0; i < 2; i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "--images %%s/perfect --csv %%s/out.csv%s", rules[i]);
        CHECK(evaluate(arguments) == 0);
        read_results();
        for (int k = 0; k < STEPS; k++) {
            char column[40];
            for (int m = 0; m < METRICS; m++) {
                snprintf(column, sizeof column, "%s_%d", metric_names[m], k);
                CHECK(number(1, column) == (m < 2 ? 1 : 0));
            }
        }
        CHECK(number(1, "DSC_AUC") == 4 && summary("NSD_AUC", 0) == -54321 && summary("DSC_AUC", 2) == 4);
    }
}

/* Classes that share a label map; a case without boxes; one whose Dice is enough for its NSD to count. */
static void test_official(const segfm_model *model) {
    static answer a[7];
    static subject large;
    static uint16_t labels[VOXELS];
    int64_t boxes[3][6];
    make_folder("images");
    make_folder("gts");
    for (int i = 0; i < 6; i++) start_answer(&second, (unsigned)(i % 3 + 1), &a[i]);
    for (int i = 0; i < 3; i++) {
        memcpy(boxes[i], a[i].box, sizeof boxes[i]);
        boxes[i][2]--; /* the file's boxes, not the truth's */
        memcpy(a[i].box, boxes[i], sizeof boxes[i]);
        a[3 + i].has_box = false;
    }
    write_case(&second, "images", "gts", "a.npz", (const int64_t(*)[6])boxes, 3);
    write_case(&second, "images", "gts", "b.npz", NULL, 0);
    make_subject(&large, 0.5, 2, 3);
    add_organ(&large, 4, (double[]){5, 14, 15}, (double[]){3, 6, 6}, 180);
    start_answer(&large, 4, &a[6]);
    write_case(&large, "images", "gts", "c.npz", (const int64_t(*)[6])a[6].box, 1);
    CHECK(evaluate("--images %s/images --gts %s/gts --csv %s/out.csv --save %s/saved --official") == 0);
    CHECK(said[0] == '\0');
    read_results();
    official(model, &second, a, 3, labels);
    io_buffer file = {0}, npy = {0};
    io_zip zip = {0};
    io_array segs = {0};
    CHECK(io_read_file(path_of("saved", "a.npz"), &file, NULL) == SEGFM_OK &&
          io_zip_open(file.data, file.size, &zip, NULL) == SEGFM_OK && zip.count == 1 &&
          io_zip_read(&zip, io_zip_find(&zip, "segs.npy"), &npy, NULL) == SEGFM_OK &&
          io_npy_parse(npy.data, npy.size, &segs, NULL) == SEGFM_OK && segs.dtype == IO_U8);
    size_t wrong = segs.count == VOXELS ? 0 : 1;
    for (size_t i = 0; i < segs.count && i < VOXELS; i++) wrong += io_array_get(&segs, i) != labels[i];
    CHECK(wrong == 0);
    io_buffer_free(&npy);
    io_zip_close(&zip);
    io_buffer_free(&file);
    official(model, &second, a + 3, 3, labels);
    official(model, &large, a + 6, 1, labels);
    for (int i = 0; i < 7; i++) check_row(1 + i, i < 3 ? "a.npz" : i < 6 ? "b.npz" : "c.npz", &a[i]);
    check_summary(a, 3, (const int[]){3, 3, 1});
    CHECK(a[0].value[0][0] <= 0.2 && a[0].value[1][0] == 0 && a[6].value[0][0] > 0.2 && a[6].value[1][0] > 0);
    CHECK(a[4].value[0][0] == 0 && isnan(a[4].value[2][0]) && a[4].value[1][0] == 0);
    int undefined = 0;
    for (int i = 0; i < 7; i++) undefined += isnan(a[i].value[2][0]) ? 1 : 0;
    CHECK(undefined >= 3 && summary("undefined HD95 and ASD (prediction empty)", 0) == undefined);
    /* boxes of the labels 1 to 3, of which the truth lacks 1 */
    static subject lacking;
    lacking = second;
    for (int i = 0; i < VOXELS; i++)
        if (lacking.truth[i] == 1) lacking.truth[i] = 0;
    make_folder("lacking");
    write_case(&lacking, "lacking", NULL, "l.npz", (const int64_t(*)[6])boxes, 3);
    for (int i = 1; i < 3; i++) {
        start_answer(&lacking, (unsigned)i + 1, &a[i]);
        memcpy(a[i].box, boxes[i], sizeof boxes[i]);
    }
    official(model, &lacking, a + 1, 2, labels);
    CHECK(evaluate("--images %s/lacking --csv %s/out.csv --save %s/saved --official") == 0);
    read_results();
    check_row(1, "l.npz", &a[1]);
    check_row(2, "l.npz", &a[2]);
    /* without --official the box is made of the truth where the file has none */
    static answer one;
    plain(model, &second, 2, NULL, &one);
    CHECK(evaluate("--images %s/images --gts %s/gts --csv %s/out.csv --save %s/saved") == 0);
    read_results();
    check_row(5, "b.npz", &one);
}

/* 103 classes, most of them of a few voxels. */
static void test_many(void) {
    static subject s;
    make_subject(&s, 1, 1, 1);
    for (int i = 0; i < VOXELS; i++)
        if (i / X % Y < MANY / 5 + 1 && i % X < 20) s.truth[i] = (uint16_t)((i / X % Y * 5 + i % X / 4) % MANY + 1);
    make_folder("many");
    write_case(&s, "many", NULL, "m.npz", NULL, 0);
    CHECK(evaluate("--images %s/many --csv %s/out.csv --clicks 1 --official") == 0);
    read_results();
    CHECK(lines_in(table) == MANY + 1 && number(MANY, "class") == MANY && summary("cases", 2) == MANY);
    CHECK(evaluate("--images %s/many --csv %s/out.csv --clicks 1 --min-voxels 1") == 0);
    read_results();
    CHECK(lines_in(table) == MANY + 1 && number(1, "DSC_1") >= 0);
}

/* Bad cases are named, the good one between them is scored. */
static void test_bad_cases(void) {
    static subject s;
    static float floats[VOXELS];
    io_zip_writer zip = {0};
    int64_t outside[2][6] = {{0, 0, 0, Z - 1, Y - 1, X}, {0}}, two[2][6] = {{0, 0, 0, 5, 5, 5}, {1, 1, 1, 5, 5, 5}};
    s = first;
    make_folder("bad");
    for (int i = 0; i < VOXELS; i++) floats[i] = i == 77 ? (float)NAN : (float)s.image[i];
    add_array(&zip, "imgs.npy", IO_F32, 3, (size_t[]){Z, Y, X}, floats);
    add_truth(&zip, &s);
    write_archive(path_of("bad", "nan.npz"), &zip);
    zip = (io_zip_writer){0};
    add_array(&zip, "imgs.npy", IO_U8, 3, (size_t[]){Z, Y, X}, s.image);
    write_archive(path_of("bad", "truth.npz"), &zip);
    zip = (io_zip_writer){0};
    add_array(&zip, "imgs.npy", IO_U8, 3, (size_t[]){Z, X, Y}, s.image);
    add_truth(&zip, &s);
    write_archive(path_of("bad", "shape.npz"), &zip);
    write_case(&s, "bad", NULL, "count.npz", (const int64_t(*)[6])two, 2);
    for (int i = 0; i < VOXELS; i++) s.truth[i] = s.truth[i] == 2;
    write_case(&s, "bad", NULL, "outside.npz", (const int64_t(*)[6])outside, 1);
    write_text(path_of("bad", "text.npz"), "no zip");
    CHECK(evaluate("--images %s/bad --csv %s/none.csv") == 3);
    CHECK(lines_in(said) == 6 && printed[0] == '\0' && !exists(path_of("none.csv", "")));
    CHECK(says("/nan.npz: ", "voxel 77") && says("/truth.npz: ", "array gts is missing"));
    CHECK(says("/shape.npz: ", "shapes: the truth has 30 x 28 x 12 voxels, the image 28 x 30 x 12"));
    CHECK(says("/count.npz: ", "boxes: got 2, the truth has 3 classes up to 300") && says("/text.npz: ", "zip"));
    CHECK(says("/outside.npz: ", "box, axis x: got 0 to 30, the scan has 0 to 29"));
    write_case(&s, "bad", NULL, "good.npz", NULL, 0);
    CHECK(evaluate("--images %s/bad --csv %s/out.csv --clicks 1") == 3);
    if (!CHECK(lines_in(said) == 6 && strstr(printed, "left out: bad cases 6,") == printed)) printf("    %s", said);
    read_results();
    CHECK(lines_in(table) == 2 && strcmp(field(1, 0), "good.npz") == 0 && summary("cases", 0) == 1);
}

static void test_lists(void) {
    write_text(path_of("pairs", "bad.tsv"), "a.nii.gz\ta_label.nii\na.nii.gz a_label.nii\n");
    CHECK(evaluate("--pairs %s/pairs/bad.tsv --csv %s/none.csv") == 3 &&
          says("bad.tsv: ", "line 2: need an image, a tab"));
    write_text(path_of("pairs", "empty.tsv"), "# nothing\n\n");
    CHECK(evaluate("--pairs %s/pairs/empty.tsv --csv %s/none.csv") == 3 && says("empty.tsv: ", "lists no pair"));
    write_text(path_of("pairs", "gone.tsv"), "gone.nii\ta_label.nii\n");
    CHECK(evaluate("--pairs %s/pairs/gone.tsv --csv %s/none.csv") == 3 && says("gone.nii: ", ""));
    write_text(path_of("pairs", "twice.tsv"), "a.nii.gz\ta_label.nii\n./a.nii.gz\ta_label.nii\n");
    CHECK(evaluate("--pairs %s/pairs/twice.tsv --csv %s/none.csv --save %s/saved") == 2);
    CHECK(says("/saved/a.nii.gz", "the masks of two cases"));
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/none.csv --save %s/pairs") == 2);
    CHECK(says("/pairs/a.nii.gz", "would replace the input"));
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/pairs/a_label.nii") == 2 && says("", "would replace the input"));
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/pairs/a.tsv") == 2 && says("", "would replace the input"));
    CHECK(evaluate("--pairs %s/pairs/a.tsv --csv %s/nowhere/out.csv") == 5 && says("/nowhere/out.csv", ""));
    CHECK(!exists(path_of("none.csv", "")));
}

int main(int argc, char **argv) {
    if (!begin_commands(argc, argv)) return test_summary();
    io_buffer bytes = bright_bytes(true);
    segfm_model *model = bright_model(true);
    base_format(weights, sizeof weights, "%s/bright.segfm", folder);
    CHECK(io_write_file(weights, bytes.data, bytes.size, NULL) == SEGFM_OK);
    io_buffer_free(&bytes);
    make_first(&first);
    make_second(&second);
    test_pairs(model);
    test_options(model);
    test_labels(model);
    test_disturbed(model);
    test_no_box(model);
    test_perfect(model);
    test_official(model);
    test_many();
    test_bad_cases();
    test_lists();
    segfm_model_close(model);
    end_commands();
    return test_summary();
}
