/* segfm eval: the challenge's evaluation. Per class a box, then clicks where the error is largest, and after each how well
   mask and truth agree.

   What a user gives is seldom what the challenge's writer gives: --loosen and --shift disturb the boxes, --no-box leaves
   them out, so that the first click, on the error of an empty mask, falls into the object's middle.

   Plain: every class on its own. A class has one session's whole attention: box, then each click on what stands.

   --official, as the challenge's script has it: all classes of a case take a step together, and what is measured and
   clicked on is the label map, in which later classes overwrite earlier ones. There is one session, so a case of several
   classes gives each its prompts anew at every step; a session's mask depends on its prompts alone, so they are the masks
   that `predict` makes of the script's files. The script hands the spacing (x,y,z) to arrays (z,y,x), draws among equally
   good clicks, and counts the NSD of all classes as 0 at a step whose Dice, meant over the case's classes, is at most 0.2. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../train/train.h"
#include "tools.h"

enum { MAX_CLICKS = 100, MAX_LOOSEN = 1000, MAX_SHIFT = 1000000 };

typedef struct settings {
    tool_common common;
    const char *pairs, *images, *gts, *weights, *csv, *save, *by, *variant, *labels;
    bool official, no_box;
    int clicks;
    int64_t min_voxels, loosen, shift; /* percent of a box's extent, voxels */
    segfm_options session;
} settings;

/* ---- which cases ------------------------------------------------------------------------------------------------- */

static segfm_status read_folder(const settings *o, tool_cases *out, segfm_error *error) {
    tool_names files = {0};
    segfm_status status = tool_list_folder(o->images, ".npz", &files, error);
    for (size_t i = 0; status == SEGFM_OK && i < files.count; i++) {
        char image[4096], label[4096];
        const char *name = files.items[i];
        status = tool_path(image, sizeof image, o->images, name, error);
        if (status == SEGFM_OK)
            status = tool_path(label, sizeof label, o->gts != NULL ? o->gts : o->images, name, error);
        if (status == SEGFM_OK) status = tool_cases_add(out, name, image, label, error);
    }
    tool_names_free(&files);
    return status;
}

static segfm_status list_cases(const settings *o, tool_cases *out, segfm_error *error) {
    const char *where = o->pairs != NULL ? o->pairs : o->images;
    segfm_status status = o->pairs != NULL ? tool_cases_read(where, out, error) : read_folder(o, out, error);
    if (status == SEGFM_OK && out->names.count == 0) {
        base_fail(error, SEGFM_BAD_INPUT, "holds no .npz file");
        status = base_fail_where(error, SEGFM_BAD_INPUT, where);
    }
    return status;
}

static const char *without_folders(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Where the masks of a case go: DIR/NAME.npz or DIR/NAME.nii.gz, NAME being the image's file name without its ending. */
static segfm_status saved_path(const char *folder, const char *image, char *out, size_t capacity, segfm_error *error) {
    static const char *const endings[] = {".nii", ".hdr", ".img", ".npz"};
    char name[1024];
    const char *base = without_folders(image);
    size_t length = strlen(base);
    if (length + 8 > sizeof name) return base_fail(error, SEGFM_BAD_USAGE, "path %s is too long", image);
    base_format(name, sizeof name, "%s", base);
    if (tool_ends_with(name, ".gz")) name[length -= 3] = '\0';
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        if (tool_ends_with(name, endings[i])) {
            name[length -= 4] = '\0';
            break;
        }
    base_format(name + length, sizeof name - length, tool_ends_with(image, ".npz") ? ".npz" : ".nii.gz");
    return tool_path(out, capacity, folder, name, error);
}

/* No result may replace a case's files or the masks of another case. */
static segfm_status check_outputs(const settings *o, const tool_cases *l, segfm_error *error) {
    tool_names saved = {0};
    segfm_status status = tool_keep_input(o->pairs, o->csv, error);
    for (size_t i = 0; status == SEGFM_OK && i < l->names.count; i++) {
        const char *files[2] = {l->images.items[i], l->labels.items[i]};
        char path[4096] = "";
        if (o->save != NULL) status = saved_path(o->save, files[0], path, sizeof path, error);
        for (int k = 0; status == SEGFM_OK && k < 2; k++) {
            status = tool_keep_input(files[k], o->csv, error);
            if (status == SEGFM_OK && o->save != NULL) status = tool_keep_input(files[k], path, error);
        }
        for (size_t j = 0; status == SEGFM_OK && j < saved.count; j++)
            if (strcmp(saved.items[j], path) == 0)
                status = base_fail(error, SEGFM_BAD_USAGE, "--save: the masks of two cases would go to %s", path);
        if (status == SEGFM_OK && o->save != NULL) status = tool_names_add(&saved, path, error);
    }
    tool_names_free(&saved);
    return status;
}

/* ---- results ------------------------------------------------------------------------------------------------------ */

/* What is measured after each step; NAN where it is not defined. */
typedef enum metric { DSC, NSD, HD95, ASD, METRICS } metric;
static const char *const metric_names[METRICS] = {"DSC", "NSD", "HD95", "ASD"};

typedef struct step {
    double value[METRICS], seconds;
    vol_click click; /* label −1: none */
} step;

/* A class of a case. */
typedef struct row {
    size_t of; /* number of the case */
    unsigned label;
    uint64_t voxels;
    bool has_box;
    int64_t box[6]; /* z0,y0,x0,z1,y1,x1 */
    step *steps;    /* (clicks + 1) */
} row;

typedef struct results {
    row *rows;
    size_t count;
    size_t bad, unclassed, small; /* cases that failed, cases without a class to score; classes below --min-voxels */
} results;

static segfm_status add_row(results *r, row new_row, int clicks, segfm_error *error) {
    row *more = realloc(r->rows, (r->count + 1) * sizeof *more);
    if (more != NULL) r->rows = more;
    new_row.steps = calloc((size_t)clicks + 1, sizeof *new_row.steps);
    if (more == NULL || new_row.steps == NULL) {
        free(new_row.steps);
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the results of %zu classes", r->count + 1);
    }
    r->rows[r->count++] = new_row;
    return SEGFM_OK;
}

/* Forgets the rows from `count` on. */
static void cut_rows(results *r, size_t count) {
    while (r->count > count) free(r->rows[--r->count].steps);
}

/* Trapezoids over the steps 1 to `clicks`, one apart: of five clicks at most 4. NAN for less than two. */
static double area(const row *r, metric m, int clicks) {
    double sum = clicks < 2 ? (double)NAN : 0;
    for (int s = 1; s < clicks; s++) sum += (r->steps[s].value[m] + r->steps[s + 1].value[m]) / 2;
    return sum;
}

/* ---- one case ----------------------------------------------------------------------------------------------------- */

typedef struct subject {
    const settings *o;
    const char *name; /* the image's file name */
    tool_challenge c; /* of a NIfTI pair only its scan is there */
    bool is_challenge;
    tool_labels truth;
    segfm_session *session;
    vol_surface_request surface;
    uint8_t *object, *mask; /* a class in the truth, and as predicted */
    uint16_t *labels;       /* what is saved, and with --official what is measured */
    unsigned largest;       /* of the labels scored */
    row *rows;
    size_t count;
} subject;

static void close_subject(subject *s) {
    segfm_session_free(s->session);
    tool_labels_close(&s->truth);
    tool_challenge_close(&s->c);
    free(s->object);
    free(s->mask);
    free(s->labels);
}

static vol_box whole(const subject *s) { return vol_box_whole(s->truth.shape); }

static segfm_status open_subject(subject *s, const char *image, const char *label, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    s->is_challenge = tool_ends_with(image, ".npz");
    status =
        s->is_challenge ? tool_challenge_open(image, &s->c, error) : tool_scan_open(image, NULL, &s->c.scan, error);
    if (status != SEGFM_OK) return base_fail_where(error, status, image);
    status = tool_labels_open(label, "gts", NULL, &s->truth, error);
    const tool_scan *scan = &s->c.scan;
    const double *xyz = scan->image.spacing, zyx[3] = {xyz[2], xyz[1], xyz[0]};
    vol_shape shape = {{scan->shape[0], scan->shape[1], scan->shape[2]}};
    if (status == SEGFM_OK) status = tool_labels_match(&s->truth, shape, zyx, "image", error);
    if (status != SEGFM_OK) return base_fail_where(error, status, label);
    s->surface = (vol_surface_request){.shape = shape, .tolerance = 2, .threads = nn_threads(s->o->common.threads)};
    memcpy(s->surface.spacing, s->o->official ? xyz : zyx, sizeof s->surface.spacing);
    s->object = malloc(scan->count);
    s->mask = malloc(scan->count);
    s->labels = calloc(scan->count, sizeof *s->labels);
    if (s->object == NULL || s->mask == NULL || s->labels == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the masks of %zu voxels", scan->count);
    return SEGFM_OK;
}

/* The box as the challenge's writer makes it, but without its random margin: z from the first to the last slice of the
   object; x and y of its middle slice, the middle one of those slices that have any of it. */
static void box_of_object(const uint8_t *object, vol_shape shape, int64_t box[6]) {
    vol_box bounds = vol_mask_bounds(object, shape), slice = bounds;
    size_t area_of = (size_t)shape.n[1] * (size_t)shape.n[2];
    int64_t occupied = 0, seen = 0;
    for (int64_t z = bounds.lo[0]; z <= bounds.hi[0]; z++)
        occupied += memchr(object + (size_t)z * area_of, 1, area_of) != NULL;
    for (int64_t z = bounds.lo[0]; z <= bounds.hi[0]; z++) {
        if (memchr(object + (size_t)z * area_of, 1, area_of) == NULL || seen++ != occupied / 2) continue;
        slice = vol_mask_bounds(object + (size_t)z * area_of, (vol_shape){{1, shape.n[1], shape.n[2]}});
    }
    box[0] = bounds.lo[0], box[3] = bounds.hi[0];
    for (int k = 1; k < 3; k++) box[k] = slice.lo[k], box[3 + k] = slice.hi[k];
}

/* Into 0 … n − 1. */
static int64_t clamp(int64_t at, int64_t n) { return at < 0 ? 0 : at < n ? at : n - 1; }

/* By how many voxels the box of a class is moved: by o->shift in a direction of which each is as likely, rounded to whole
   voxels. The stream is named by the image's file name and the label, so in whatever list and folder the case is, its boxes
   are moved alike. */
static void draw_shift(const subject *s, unsigned label, int64_t by[3]) {
    train_random r = train_random_at(base_xxh64(s->name, strlen(s->name), 0), label, 0);
    double sine, cosine, along = 2 * train_random_uniform(&r) - 1, across = sqrt(1 - along * along);
    nn_sin_cos_turns(train_random_uniform(&r), &sine, &cosine);
    const double direction[3] = {along, across * sine, across * cosine};
    for (int k = 0; k < 3; k++) by[k] = (int64_t)floor((double)s->o->shift * direction[k] + 0.5);
}

/* The box as a hasty hand draws it: each side moved outwards by --loosen percent of the box's extent, to the nearest
   voxel, halves outwards; then all of it by --shift. Each bound is clamped to the scan. One that was not inside stays as
   it is, for the session to refuse it. */
static void disturb_box(const subject *s, row *r) {
    int64_t by[3] = {0, 0, 0};
    for (int k = 0; k < 3; k++)
        if (r->box[k] < 0 || r->box[k] > r->box[3 + k] || r->box[3 + k] >= s->truth.shape.n[k]) return;
    if (s->o->shift > 0) draw_shift(s, r->label, by);
    for (int k = 0; k < 3; k++) {
        int64_t margin = ((r->box[3 + k] - r->box[k] + 1) * s->o->loosen + 50) / 100;
        r->box[k] = clamp(r->box[k] - margin + by[k], s->truth.shape.n[k]);
        r->box[3 + k] = clamp(r->box[3 + k] + margin + by[k], s->truth.shape.n[k]);
    }
}

/* The box of the class with that place among the truth's labels: the file's, or else the truth's; the official script asks
   without one where the file has none. */
static segfm_status find_box(subject *s, uint32_t place, row *r, segfm_error *error) {
    if (s->o->no_box) return SEGFM_OK;
    if (s->c.boxes.nodes != NULL) return tool_challenge_box(&s->c, place, &r->has_box, r->box, error);
    r->has_box = !(s->is_challenge && s->o->official);
    if (!r->has_box) return SEGFM_OK;
    tool_labels_extract(&s->truth, whole(s), r->label, s->object);
    box_of_object(s->object, s->truth.shape, r->box);
    return SEGFM_OK;
}

/* Is the label one of "3,17,4"? No list names them all. */
static bool is_listed(const char *list, unsigned label) {
    bool found = list == NULL;
    while (list != NULL && *list != '\0' && !found) {
        char *end;
        found = strtoul(list, &end, 10) == label;
        list = *end == ',' ? end + 1 : "";
    }
    return found;
}

/* A row for each class of the truth with enough voxels. Boxes are those of the labels in ascending order, or of the labels
   1 to their number, some of which the truth may lack. */
static segfm_status find_classes(subject *s, size_t number, results *out, segfm_error *error) {
    size_t before = out->count;
    unsigned present = 0, last = 0, place = 0;
    uint64_t *voxels = calloc(TOOL_LABELS, sizeof *voxels);
    if (voxels == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none to count labels");
    for (size_t i = 0; i < s->truth.count; i++) voxels[s->truth.voxels[i]]++;
    for (unsigned label = 1; label < TOOL_LABELS; label++)
        if (voxels[label] > 0) present++, last = label;
    segfm_status status = SEGFM_OK;
    if (s->c.boxes.nodes != NULL && s->c.classes != present && s->c.classes < last)
        status = base_fail(error, SEGFM_BAD_INPUT, "boxes: got %d, the truth has %d classes up to %d",
                           (int)s->c.classes, (int)present, (int)last);
    for (unsigned label = 1; status == SEGFM_OK && label <= last; label++) {
        row r = {.of = number, .label = label, .voxels = voxels[label]};
        if (r.voxels == 0) continue;
        uint32_t index = s->c.classes == present ? place : label - 1;
        place++;
        if (!is_listed(s->o->labels, label)) continue;
        if (r.voxels < (uint64_t)s->o->min_voxels) {
            out->small++;
            continue;
        }
        status = find_box(s, index, &r, error);
        if (status == SEGFM_OK && r.has_box) disturb_box(s, &r);
        if (status == SEGFM_OK) status = add_row(out, r, s->o->clicks, error);
        s->largest = label;
    }
    free(voxels);
    s->count = out->count - before;
    if (s->count > 0) s->rows = &out->rows[before];
    return status;
}

/* The click on the largest error of s->mask, whose truth is s->object; label −1 when there is none. */
static segfm_status find_click(const subject *s, vol_click *out, segfm_error *error) {
    vol_click_request q = {.shape = s->truth.shape,
                           .rule = s->o->official ? VOL_CLICK_OFFICIAL : VOL_CLICK_FIRST,
                           .large = VOL_CLICK_LARGE,
                           .threads = s->surface.threads};
    *out = (vol_click){{-1, -1, -1}, -1};
    size_t bytes = vol_click_bytes(s->mask, s->object, &q);
    if (bytes == 0) return SEGFM_OK;
    void *memory = bytes == SIZE_MAX ? NULL : aligned_alloc(NN_ALIGN, bytes);
    if (memory == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none of %zu bytes for a click", bytes);
    vol_simulate_click(s->mask, s->object, &q, memory, out);
    free(memory);
    return SEGFM_OK;
}

/* How s->mask agrees with s->object. */
static segfm_status measure(const subject *s, step *out, segfm_error *error) {
    vol_surface m;
    vol_box box = vol_surface_box(s->object, s->mask, s->truth.shape);
    size_t bytes = vol_surface_bytes(vol_box_shape(box), false, s->surface.threads);
    void *memory = bytes == SIZE_MAX ? NULL : aligned_alloc(NN_ALIGN, bytes);
    if (memory == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none of %zu bytes to measure", bytes);
    vol_surface_measure(s->object, s->mask, &s->surface, memory, &m);
    free(memory);
    out->value[DSC] = m.dice;
    out->value[NSD] = m.nsd;
    out->value[HD95] = m.hd95;
    out->value[ASD] = (m.asd_truth + m.asd_prediction) / 2;
    return SEGFM_OK;
}

/* Gives the session prompt number `number` of the class: its box, then its clicks. Step 0 without a box: nothing. */
static segfm_status prompt(subject *s, row *r, int number, segfm_error *error) {
    step *now = &r->steps[number];
    double started = tool_milliseconds();
    segfm_status status = SEGFM_OK;
    if (number == 0 && r->has_box) status = segfm_box(s->session, r->box, error);
    if (number > 0 && now->click.label >= 0)
        status = segfm_click(s->session, now->click.at, now->click.label == 1, error);
    now->seconds = (tool_milliseconds() - started) / 1e3;
    return status;
}

/* Labels where s->mask is inside become the class's. */
static void paint(subject *s, unsigned label) {
    for (size_t i = 0; i < s->truth.count; i++)
        if (s->mask[i] != 0) s->labels[i] = (uint16_t)label;
}

/* A class on its own. Without an error left there is no click, and what stands is repeated. */
static segfm_status run_class(subject *s, row *r, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    segfm_reset(s->session);
    tool_labels_extract(&s->truth, whole(s), r->label, s->object);
    for (int k = 0; status == SEGFM_OK && k <= s->o->clicks; k++) {
        step *now = &r->steps[k];
        now->click = (vol_click){{-1, -1, -1}, -1};
        if (k > 0) status = find_click(s, &now->click, error);
        if (status != SEGFM_OK) break;
        if (k > 0 && now->click.label < 0) {
            memcpy(now->value, r->steps[k - 1].value, sizeof now->value);
            continue;
        }
        status = prompt(s, r, k, error);
        if (status == SEGFM_OK) status = segfm_mask(s->session, s->mask, s->truth.count, error);
        if (status == SEGFM_OK) status = measure(s, now, error);
    }
    if (status == SEGFM_OK) paint(s, r->label);
    return status;
}

/* s->object and s->mask = the class in the truth and in the labels. */
static void extract_both(subject *s, unsigned label) {
    tool_labels_extract(&s->truth, whole(s), label, s->object);
    for (size_t i = 0; i < s->truth.count; i++) s->mask[i] = s->labels[i] == label;
}

/* All prompts of a class up to step k; the session still has those before when it has only this class. */
static segfm_status replay(subject *s, row *r, int k, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    int from = s->count == 1 ? k : 0;
    if (from == 0) segfm_reset(s->session);
    for (int i = from; status == SEGFM_OK && i <= k; i++) {
        double before = r->steps[i].seconds;
        status = prompt(s, r, i, error);
        if (i < k) r->steps[i].seconds = before; /* a repetition says nothing new */
    }
    return status == SEGFM_OK ? segfm_mask(s->session, s->mask, s->truth.count, error) : status;
}

static segfm_status measure_all(subject *s, int k, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    double dice = 0;
    for (size_t i = 0; status == SEGFM_OK && i < s->count; i++) {
        extract_both(s, s->rows[i].label);
        status = measure(s, &s->rows[i].steps[k], error);
        dice += s->rows[i].steps[k].value[DSC];
    }
    if (status == SEGFM_OK && !(dice / (double)s->count > 0.2))
        for (size_t i = 0; i < s->count; i++) s->rows[i].steps[k].value[NSD] = 0;
    return status;
}

/* All classes step by step. */
static segfm_status run_official(subject *s, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    for (int k = 0; status == SEGFM_OK && k <= s->o->clicks; k++) {
        for (size_t i = 0; status == SEGFM_OK && i < s->count; i++) {
            vol_click *click = &s->rows[i].steps[k].click;
            *click = (vol_click){{-1, -1, -1}, -1};
            if (k == 0) continue;
            extract_both(s, s->rows[i].label);
            status = find_click(s, click, error);
        }
        memset(s->labels, 0, s->truth.count * sizeof *s->labels);
        for (size_t i = 0; status == SEGFM_OK && i < s->count; i++) {
            status = replay(s, &s->rows[i], k, error);
            if (status == SEGFM_OK) paint(s, s->rows[i].label);
        }
        if (status == SEGFM_OK) status = measure_all(s, k, error);
    }
    return status;
}

static segfm_status save_masks(subject *s, const char *image, segfm_error *error) {
    char path[4096];
    segfm_status status = saved_path(s->o->save, image, path, sizeof path, error);
    if (status != SEGFM_OK) return status;
    if (s->is_challenge) return tool_challenge_write(path, &s->c.scan, s->labels, s->largest, error);
    io_dtype dtype = tool_labels_pack(s->labels, s->truth.count, s->largest);
    return io_nifti_write_like(path, &s->c.scan.image, dtype, s->labels, error);
}

static segfm_status run_subject(subject *s, const segfm_model *model, const tool_cases *l, size_t i, results *out,
                                segfm_error *error) {
    segfm_status status = open_subject(s, l->images.items[i], l->labels.items[i], error);
    if (status == SEGFM_OK) status = find_classes(s, i, out, error);
    if (status != SEGFM_OK) return status;
    if (s->count == 0) out->unclassed++;
    else {
        status = segfm_session_new(model, s->c.scan.shape, &s->o->session, NULL, 0, &s->session, error);
        if (status == SEGFM_OK) status = segfm_set_volume(s->session, s->c.scan.voxels, error);
    }
    tool_scan_release(&s->c.scan);
    if (status == SEGFM_OK && s->count > 0 && s->o->official) status = run_official(s, error);
    for (size_t k = 0; status == SEGFM_OK && k < s->count && !s->o->official; k++)
        status = run_class(s, &s->rows[k], error);
    return status == SEGFM_OK && s->o->save != NULL ? save_masks(s, l->images.items[i], error) : status;
}

/* A case that fails is named and leaves no row. What is wrong with it is its files' fault, whatever the library calls it. */
static segfm_status run_case(const settings *o, const segfm_model *model, const tool_cases *l, size_t i, results *out,
                             segfm_error *error) {
    size_t rows = out->count, small = out->small;
    subject s = {.o = o, .name = without_folders(l->images.items[i])};
    segfm_status status = run_subject(&s, model, l, i, out, error);
    close_subject(&s);
    if (status == SEGFM_OK) return status;
    cut_rows(out, rows);
    out->small = small;
    out->bad++;
    if (status == SEGFM_BAD_USAGE) error->status = status = SEGFM_BAD_INPUT;
    return base_fail_where(error, status, l->images.items[i]);
}

/* ---- what is written ---------------------------------------------------------------------------------------------- */

static segfm_status put(io_buffer *b, const char *text, segfm_error *error) {
    return io_buffer_append(b, text, strlen(text), error);
}

static segfm_status put_number(io_buffer *b, double value, segfm_error *error) {
    char text[40];
    snprintf(text, sizeof text, isnan(value) ? ",nan" : ",%.12g", value);
    return put(b, text, error);
}

/* A name as a field of comma-separated values. */
static segfm_status put_name(io_buffer *b, const char *name, segfm_error *error) {
    if (strpbrk(name, ",\"\r\n") == NULL) return put(b, name, error);
    segfm_status status = put(b, "\"", error);
    for (; status == SEGFM_OK && *name != '\0'; name++)
        status = io_buffer_append(b, *name == '"' ? "\"\"" : name, *name == '"' ? 2 : 1, error);
    return status == SEGFM_OK ? put(b, "\"", error) : status;
}

static segfm_status put_header(io_buffer *b, int clicks, segfm_error *error) {
    char text[40];
    segfm_status status = put(b, "case,class,voxels", error);
    for (int m = 0; status == SEGFM_OK && m <= METRICS; m++) {
        if (m == METRICS) status = put(b, ",DSC_AUC,NSD_AUC", error);
        for (int k = 0; status == SEGFM_OK && k <= clicks; k++) {
            snprintf(text, sizeof text, ",%s_%d", m < METRICS ? metric_names[m] : "seconds", k);
            status = put(b, text, error);
        }
    }
    return status == SEGFM_OK ? put(b, "\n", error) : status;
}

static segfm_status put_row(io_buffer *b, const char *name, const row *r, int clicks, segfm_error *error) {
    char text[60];
    snprintf(text, sizeof text, ",%u,%llu", r->label, (unsigned long long)r->voxels);
    segfm_status status = put_name(b, name, error);
    if (status == SEGFM_OK) status = put(b, text, error);
    for (int m = 0; m < METRICS; m++)
        for (int k = 0; status == SEGFM_OK && k <= clicks; k++) status = put_number(b, r->steps[k].value[m], error);
    for (int m = DSC; status == SEGFM_OK && m <= NSD; m++) status = put_number(b, area(r, (metric)m, clicks), error);
    for (int k = 0; status == SEGFM_OK && k <= clicks; k++) status = put_number(b, r->steps[k].seconds, error);
    return status == SEGFM_OK ? put(b, "\n", error) : status;
}

static segfm_status write_csv(const settings *o, const tool_cases *l, const results *r, segfm_error *error) {
    io_buffer b = {0};
    segfm_status status = put_header(&b, o->clicks, error);
    for (size_t i = 0; status == SEGFM_OK && i < r->count; i++)
        status = put_row(&b, l->names.items[r->rows[i].of], &r->rows[i], o->clicks, error);
    if (status == SEGFM_OK) status = io_write_file(o->csv, b.data, b.size, error);
    io_buffer_free(&b);
    return status;
}

/* The prompts in the words of the command line: what `segment --box` and `--click` take. */
static segfm_status put_prompts(io_buffer *b, const char *name, const row *r, int clicks, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    for (int k = 0; status == SEGFM_OK && k <= clicks; k++) {
        char text[200] = "";
        const vol_click *c = &r->steps[k].click;
        const int64_t *v = r->box;
        if (k == 0 && r->has_box)
            base_format(text, sizeof text, "box\t%lld,%lld,%lld,%lld,%lld,%lld", (long long)v[2], (long long)v[1],
                        (long long)v[0], (long long)v[5], (long long)v[4], (long long)v[3]);
        if (k > 0 && c->label >= 0)
            base_format(text, sizeof text, "click\t%lld,%lld,%lld,%c", (long long)c->at[2], (long long)c->at[1],
                        (long long)c->at[0], c->label == 1 ? '+' : '-');
        if (text[0] == '\0') continue;
        char place[40];
        snprintf(place, sizeof place, "\t%u\t%d\t", r->label, k);
        status = put(b, name, error);
        if (status == SEGFM_OK) status = put(b, place, error);
        if (status == SEGFM_OK) status = put(b, text, error);
        if (status == SEGFM_OK) status = put(b, "\n", error);
    }
    return status;
}

static segfm_status write_prompts(const settings *o, const tool_cases *l, const results *r, segfm_error *error) {
    io_buffer b = {0};
    char path[4096];
    segfm_status status = tool_path(path, sizeof path, o->save, "prompts.tsv", error);
    if (status == SEGFM_OK) status = put(&b, "case\tclass\tstep\tkind\tprompt\n", error);
    for (size_t i = 0; status == SEGFM_OK && i < r->count; i++)
        status = put_prompts(&b, l->names.items[r->rows[i].of], &r->rows[i], o->clicks, error);
    if (status == SEGFM_OK) status = io_write_file(path, b.data, b.size, error);
    io_buffer_free(&b);
    return status;
}

/* A mean over cases of means over classes; what is not defined stays out. */
typedef struct mean {
    double sum, inner;
    size_t count, inner_count;
} mean;

static void add_value(mean *m, double value) {
    if (!isnan(value)) m->inner += value, m->inner_count++;
}

static void end_case(mean *m) {
    if (m->inner_count > 0) m->sum += m->inner / (double)m->inner_count, m->count++;
    m->inner = 0, m->inner_count = 0;
}

static double mean_of(const mean *m) { return m->count > 0 ? m->sum / (double)m->count : (double)NAN; }

/* The mean of a metric at step k, or with k = −1 of its area under the steps. */
static double mean_over_cases(const results *r, metric m, int k, int clicks) {
    mean all = {0};
    for (size_t i = 0; i < r->count; i++) {
        add_value(&all, k < 0 ? area(&r->rows[i], m, clicks) : r->rows[i].steps[k].value[m]);
        if (i + 1 == r->count || r->rows[i + 1].of != r->rows[i].of) end_case(&all);
    }
    return mean_of(&all);
}

static void print_number(double value) {
    if (isnan(value)) fputs(" nan", stdout);
    else printf(" %.9f", value);
}

static size_t count_cases(const results *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->count; i++) n += i == 0 || r->rows[i].of != r->rows[i - 1].of;
    return n;
}

static void print_summary(const settings *o, const results *r) {
    printf("left out: bad cases %zu, cases without a class %zu, classes below %lld voxels %zu\n", r->bad, r->unclassed,
           (long long)o->min_voxels, r->small);
    fputs("undefined HD95 and ASD (prediction empty)", stdout);
    for (int k = 0; k <= o->clicks; k++) {
        size_t undefined = 0;
        for (size_t i = 0; i < r->count; i++) undefined += isnan(r->rows[i].steps[k].value[HD95]) ? 1 : 0;
        printf(" %zu", undefined);
    }
    printf("\ncases %zu classes %zu\n", count_cases(r), r->count);
    for (int m = 0; m < METRICS; m++) {
        fputs(metric_names[m], stdout);
        for (int k = 0; k <= o->clicks; k++) print_number(mean_over_cases(r, (metric)m, k, o->clicks));
        puts("");
    }
    fputs("DSC_AUC", stdout);
    print_number(mean_over_cases(r, DSC, -1, o->clicks));
    fputs(" NSD_AUC", stdout);
    print_number(mean_over_cases(r, NSD, -1, o->clicks));
    puts("");
}

/* ---- the command -------------------------------------------------------------------------------------------------- */

/* The first failure is the command's; others are named as they come. */
static segfm_status run_cases(const settings *o, const segfm_model *model, const tool_cases *l, results *out,
                              segfm_error *error) {
    segfm_status result = SEGFM_OK;
    bool watched = !o->common.quiet && isatty(STDERR_FILENO);
    for (size_t i = 0; i < l->names.count; i++) {
        segfm_error problem = {0};
        if (watched) fprintf(stderr, "case %zu of %zu: %s\n", i + 1, l->names.count, l->names.items[i]);
        segfm_status status = run_case(o, model, l, i, out, &problem);
        if (status == SEGFM_OK) continue;
        if (status == SEGFM_CANCELLED) return base_fail(error, status, "the evaluation was interrupted");
        if (result == SEGFM_OK) {
            result = status;
            *error = problem;
        } else {
            fprintf(stderr, "segfm: %s%s%s\n", problem.where, problem.where[0] != '\0' ? ": " : "", problem.message);
        }
    }
    return result;
}

/* Cases that could be scored are reported even when others failed. */
static segfm_status evaluate(const settings *o, const segfm_model *model, const tool_cases *l, segfm_error *error) {
    results r = {0};
    segfm_error problem = {0};
    segfm_status status = SEGFM_OK, result = run_cases(o, model, l, &r, error);
    if (r.bad < l->names.count) {
        status = write_csv(o, l, &r, &problem);
        if (status == SEGFM_OK && o->save != NULL) status = write_prompts(o, l, &r, &problem);
        if (status == SEGFM_OK) print_summary(o, &r);
    }
    cut_rows(&r, 0);
    free(r.rows);
    if (status == SEGFM_OK) return result;
    *error = problem; /* graver than a bad case */
    return status;
}

segfm_status tool_evaluate(const segfm_model *model, const tool_cases *cases, const tool_evaluation *q, double *dice,
                           size_t *bad, segfm_error *error) {
    results r = {0};
    settings o = {.clicks = q->clicks, .min_voxels = q->min_voxels, .common = {q->threads, true}};
    o.session = segfm_options_default();
    o.session.threads = q->threads;
    o.session.max_clicks = q->clicks > 0 ? q->clicks : 1;
    o.session.variant = q->variant;
    o.session.progress = q->progress;
    segfm_status status = run_cases(&o, model, cases, &r, error);
    *bad = r.bad;
    for (int k = 0; k <= q->clicks; k++) dice[k] = mean_over_cases(&r, DSC, k, q->clicks);
    cut_rows(&r, 0);
    free(r.rows);
    return status;
}

/* The results can be written: better known now than in hours. */
static segfm_status try_outputs(const settings *o, segfm_error *error) {
    io_output *probe = NULL;
    segfm_status status = io_output_open(o->csv, &probe, error);
    if (status == SEGFM_OK) io_output_abort(probe);
    return status == SEGFM_OK && o->save != NULL ? tool_make_folder(o->save, error) : status;
}

/* value is one of the n names; *out = its number. */
static segfm_status choose(const char *value, const char *option, const char *const *names, unsigned n, unsigned *out,
                           segfm_error *error) {
    for (unsigned i = 0; value != NULL && i < n; i++)
        if (strcmp(value, names[i]) == 0) {
            *out = i;
            return SEGFM_OK;
        }
    if (value == NULL) return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_USAGE, "%s: got %s, need %s%s%s%s%s", option, value, names[0],
                     n > 2 ? ", " : " or ", names[1], n > 2 ? " or " : "", n > 2 ? names[2] : "");
}

/* "decoder,spread" */
static segfm_status read_parts(const char *list, unsigned *by, segfm_error *error) {
    static const char *const names[] = {"decoder", "corrector", "spread"};
    static const unsigned parts[] = {SEGFM_BY_DECODER, SEGFM_BY_CORRECTOR, SEGFM_BY_SPREAD};
    *by = 0;
    for (const char *p = list;; p++) {
        size_t length = strcspn(p, ","), i = 0;
        while (i < 3 && (strlen(names[i]) != length || strncmp(names[i], p, length) != 0)) i++;
        if (i == 3)
            return base_fail(error, SEGFM_BAD_USAGE, "--by: got %s, need one or more of decoder,corrector,spread",
                             list);
        *by |= parts[i];
        p += length;
        if (*p == '\0') return SEGFM_OK;
    }
}

static segfm_status check_labels(const char *list, segfm_error *error) {
    for (const char *p = list;; p++) {
        size_t digits = strspn(p, "0123456789");
        unsigned long label = strtoul(p, NULL, 10);
        p += digits;
        if (digits == 0 || digits > 5 || label < 1 || label >= TOOL_LABELS || (*p != ',' && *p != '\0'))
            return base_fail(error, SEGFM_BAD_USAGE, "--labels: got %s, need labels of 1 to %d, like 3,17,4", list,
                             TOOL_LABELS - 1);
        if (*p == '\0') return SEGFM_OK;
    }
}

/* The options' values that are numbers, as written; NULL: not given. */
typedef struct numbers {
    const char *clicks, *min_voxels, *loosen, *shift, *looks;
} numbers;

static segfm_status read_number(const char *text, const char *option, int64_t low, int64_t high, int64_t *out,
                                segfm_error *error) {
    return text == NULL ? SEGFM_OK : tool_integer(text, option, low, high, out, error);
}

static segfm_status read_settings(settings *o, const numbers *n, segfm_error *error) {
    static const char *const variants[] = {"seed", "upstream"};
    unsigned variant = 0;
    int64_t steps = 5, looks = 0;
    o->min_voxels = o->official ? 1 : 100; /* the script scores every class */
    segfm_status status = tool_need(o->csv, "--csv", error);
    if (status == SEGFM_OK && (o->pairs != NULL) == (o->images != NULL))
        status = base_fail(error, SEGFM_BAD_USAGE, "which cases: need --pairs or --images, one of them");
    if (status == SEGFM_OK && o->gts != NULL && o->images == NULL)
        status = base_fail(error, SEGFM_BAD_USAGE, "--gts: goes with --images");
    if (status == SEGFM_OK && o->no_box && (n->loosen != NULL || n->shift != NULL))
        status = base_fail(error, SEGFM_BAD_USAGE, "--no-box: goes neither with --loosen nor with --shift");
    if (status == SEGFM_OK) status = read_number(n->clicks, "--clicks", 0, MAX_CLICKS, &steps, error);
    if (status == SEGFM_OK) status = read_number(n->min_voxels, "--min-voxels", 1, INT64_MAX, &o->min_voxels, error);
    if (status == SEGFM_OK) status = read_number(n->loosen, "--loosen", 0, MAX_LOOSEN, &o->loosen, error);
    if (status == SEGFM_OK) status = read_number(n->shift, "--shift", 0, MAX_SHIFT, &o->shift, error);
    if (status == SEGFM_OK) status = read_number(n->looks, "--looks", 1, SEGFM_LOOKS, &looks, error);
    if (status == SEGFM_OK) status = choose(o->variant, "--variant", variants, 2, &variant, error);
    o->clicks = (int)steps;
    o->session = segfm_options_default();
    o->session.threads = o->common.threads;
    o->session.max_clicks = o->clicks > 0 ? o->clicks : 1;
    o->session.looks = (int)looks;
    o->session.variant = variant == 0 ? SEGFM_SEED : SEGFM_UPSTREAM;
    if (!o->common.quiet) o->session.progress = tool_progress;
    if (status == SEGFM_OK && o->by != NULL) status = read_parts(o->by, &o->session.click_by, error);
    return status == SEGFM_OK && o->labels != NULL ? check_labels(o->labels, error) : status;
}

segfm_status command_eval(int argc, char **argv, segfm_error *error) {
    settings o = {0};
    numbers n = {0};
    const tool_option options[] = {{"--pairs", .value = &o.pairs},
                                   {"--images", .value = &o.images},
                                   {"--gts", .value = &o.gts},
                                   {"-w", .value = &o.weights},
                                   {"--clicks", .value = &n.clicks},
                                   {"--csv", .value = &o.csv},
                                   {"--save", .value = &o.save},
                                   {"--min-voxels", .value = &n.min_voxels},
                                   {"--loosen", .value = &n.loosen},
                                   {"--shift", .value = &n.shift},
                                   {"--no-box", .flag = &o.no_box},
                                   {"--official", .flag = &o.official},
                                   {"--by", .value = &o.by},
                                   {"--variant", .value = &o.variant},
                                   {"--labels", .value = &o.labels},
                                   {"--looks", .value = &n.looks},
                                   {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &o.common, error);
    if (status == SEGFM_OK) status = read_settings(&o, &n, error);
    if (status != SEGFM_OK) return status;
    tool_cases cases = {0};
    tool_model model = {0};
    bool corrector = o.clicks > 0 && (o.session.click_by & (SEGFM_BY_CORRECTOR | SEGFM_BY_BEST)) != 0;
    status = list_cases(&o, &cases, error);
    if (status == SEGFM_OK) status = check_outputs(&o, &cases, error);
    if (status == SEGFM_OK) status = tool_model_open(o.weights, &o.common, corrector, &model, error);
    if (status == SEGFM_OK && o.session.click_by == SEGFM_BY_CORRECTOR && corrector &&
        !segfm_model_has_corrector(model.model))
        status = base_fail(error, SEGFM_BAD_USAGE, "--by corrector: the model has none");
    if (status == SEGFM_OK) status = try_outputs(&o, error);
    if (status == SEGFM_OK) status = evaluate(&o, model.model, &cases, error);
    tool_model_close(&model);
    tool_cases_free(&cases);
    return status;
}
