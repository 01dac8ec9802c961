/* The settings of a training run: one table of keys, from which they are read, checked, written and compared. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train.h"

typedef enum kind { SIZE, WHOLE, NUMBER, CHOICE, PARTS, PATH } kind;

typedef struct key {
    const char *name;
    kind kind;
    size_t at; /* in train_settings */
    int count; /* numbers, separated by commas */
    double low, high;
    const char *const *choices; /* NULL-terminated */
    const char *remark;
    bool extends; /* a run may go on with another value */
} key;

static const char *const no_yes[] = {"no", "yes", NULL};
static const char *const variants[] = {"seed", "upstream", NULL};
static const char *const sources[] = {"pairs", "phantoms", "both", NULL};
static const char *const schedules[] = {"constant", "cosine", NULL};
static const char *const stages[] = {"box", "box_points", "auto", NULL};
static const char *const part_names[] = {"encoder", "decoder", "corrector", NULL};

#define AT(field) offsetof(train_settings, field)
#define MOST 1048576.0
#define HUGE_WHOLE 9007199254740992.0 /* 2^53: a whole number below is exact as a double */
#define SIZES(name, n, remark)                                                                                         \
    { #name, SIZE, AT(sizes.name), n, 0, MOST, NULL, remark, false }
#define WHOLES(name, low, high, remark)                                                                                \
    { #name, WHOLE, AT(name), 1, low, high, NULL, remark, false }
#define NUMBERS(name, n, low, high, remark)                                                                            \
    { #name, NUMBER, AT(name), n, low, high, NULL, remark, false }
#define CHOICES(name, choices, remark)                                                                                 \
    { #name, CHOICE, AT(name), 1, 0, 0, choices, remark, false }
#define AUGMENT(name, high, remark)                                                                                    \
    { #name, NUMBER, AT(augmentation.name), 1, 0, high, NULL, remark, false }

/* A line of the manual between groups of keys. */
#define TITLE(text)                                                                                                    \
    { NULL, SIZE, 0, 0, 0, 0, NULL, text, false }

static const key keys[] = {
    TITLE("Sizes of the network; axes are z,y,x. With --init the weights' own."),
    SIZES(spatial, 3, "voxels of the window"),
    SIZES(patch, 3, "voxels of a patch; divides the window"),
    SIZES(dim, 1, "width of encoder, prompts and decoder"),
    SIZES(depth, 1, "blocks of the image encoder"),
    SIZES(heads, 1, "its attention heads; divide dim"),
    SIZES(mlp, 1, "inner width of its MLPs"),
    SIZES(decoder_depth, 1, "layers of the two-way transformer"),
    SIZES(decoder_heads, 1, "divide dim and decoder_cross_dim"),
    SIZES(decoder_mlp, 1, "inner width of its MLPs"),
    SIZES(decoder_cross_dim, 1, "inner width of its cross-attentions"),
    SIZES(mask_tokens, 1, "masks; the first is the answer"),
    SIZES(iou_hidden, 1, "inner width of the head that predicts the IoU (not trained)"),
    SIZES(iou_layers, 1, "its layers"),
    SIZES(hyper_layers, 1, "layers of each mask token's MLP"),
    SIZES(up1, 1, "channels after the first transposed convolution"),
    SIZES(up2, 1, "and after the second"),
    SIZES(gru_blocks, 1, "blocks of the corrector; 0: none (then gru_hidden and topk are 0 too)"),
    SIZES(gru_hidden, 1, "their state"),
    SIZES(topk, 1, "points that a correction looks at, of each kind"),
    SIZES(text_dim, 1, "width of a text encoder's output, which is carried along; 0: none"),
    SIZES(frame, 1, "0: the window shows the scan, then parts of it. Else the box and this many percent around it"),
    CHOICES(offsets, no_yes, "with the corrector's second head, which moves its points; no loss has a gradient for it"),
    CHOICES(variant, variants, "corrections as described, or as the published code makes them"),

    TITLE("What is learned from."),
    CHOICES(source, sources, "scans of --pairs, made-up scans without end, or both"),
    NUMBERS(phantoms, 1, 0, 1, "with both: the share of samples that are of phantoms"),
    WHOLES(phantoms_each, 1, HUGE_WHOLE, "samples of one phantom"),
    {"phantom_smallest", WHOLE, AT(phantom_smallest), 3, 0, MOST, NULL, "voxels of a phantom, z,y,x; 0: the default",
     false},
    {"phantom_largest", WHOLE, AT(phantom_largest), 3, 0, MOST, NULL, "likewise", false},
    WHOLES(min_voxels, 1, HUGE_WHOLE, "smaller classes are left out"),

    TITLE("Steps."),
    WHOLES(batch, 1, MOST, "samples of a step"),
    {"steps", WHOLE, AT(steps), 1, 0, HUGE_WHOLE, NULL, "steps of the run (--steps)", true},
    WHOLES(seed, 0, HUGE_WHOLE, "of everything random (--seed); phantoms are those of `segfm phantom` with this seed"),
    NUMBERS(rate, 1, 0, 1e3, "learning rate after the warm-up; 1e-5 for weights that are trained already"),
    WHOLES(warmup, 0, HUGE_WHOLE, "steps in which it rises to that"),
    CHOICES(schedule, schedules, "of the rate after the warm-up"),
    WHOLES(schedule_steps, 0, HUGE_WHOLE, "step at which the cosine has come down to floor; 0: the last"),
    NUMBERS(floor, 1, 0, 1e3, "rate that the cosine ends at"),
    NUMBERS(decay, 1, 0, 1e3, "weight decay of AdamW"),
    NUMBERS(beta1, 1, 0, 0.9999999, "decay of its first moment"),
    NUMBERS(beta2, 1, 0, 0.9999999, "and of its second"),
    NUMBERS(eps, 1, 1e-30, 1, "what is added to the root of the second"),
    NUMBERS(clip, 1, 0, 1e30, "largest norm of the gradient; 0: any"),

    TITLE("The loss."),
    CHOICES(stage, stages,
            "box; box_points: also a decoder pass with the last click; auto: the second after the first"),
    WHOLES(epoch, 1, HUGE_WHOLE, "steps of an epoch, by whose mean loss auto decides"),
    NUMBERS(settled, 1, 0, 1e30, "auto goes on when it has changed by less than this"),
    NUMBERS(corrections, TRAIN_MAX_CORRECTIONS + 1, 0, 1e30, "weights of drawing 0,1,2,3,4,5 corrections"),
    NUMBERS(consistency, 1, 0, 1e30, "weight of the loss between a mask before and after its correction"),
    NUMBERS(boundary, 1, 0, 1e30, "weight of the boundary loss, in stage box_points"),
    {"parts", PARTS, AT(parts), 1, 0, 0, part_names, "what learns: all, or of encoder+decoder+corrector", false},
    CHOICES(all_clicks, no_yes, "the second decoder pass is told all clicks, as a session is; no: the last one"),
    CHOICES(chain, no_yes, "these clicks come of the decoder's own masks, one after the other; no: of the corrector's"),
    CHOICES(slice_dice, no_yes, "the Dice loss is a mean over slices, as the published code's for a batch of one"),
    CHOICES(recompute, no_yes, "less memory, more time; the same result"),

    TITLE("Changes to a sample."),
    AUGMENT(resize, 1e30, "weight of showing the whole scan, resized"),
    AUGMENT(crop, 1e30, "weight of showing a part as it is"),
    AUGMENT(positive, 1e30, "weight of a part's middle in the object"),
    AUGMENT(negative, 1e30, "and outside of it"),
    AUGMENT(flip, 1, "probability, for each axis"),
    AUGMENT(scale, 1, "probability of scaling intensities"),
    AUGMENT(scale_range, 1, "by a factor of 1 - this to 1 + this"),
    AUGMENT(shift, 1, "probability of shifting them"),
    AUGMENT(shift_range, 1, "by up to this"),
    AUGMENT(frame_loose, 1,
            "with frame: every other box is larger by up to this on all sides, as a share of its extent"),
    AUGMENT(frame_shift, 1, "with frame: every fourth is moved by up to this along each axis, likewise"),
    AUGMENT(frame_jitter, 1, "with frame: largest shift of each side of the box, as a share of its extent"),
    AUGMENT(frame_grow, 1,
            "with frame: probability of a box that also holds 1 to 3 voxels of the object, as after clicks"),
    AUGMENT(slice_box, 1, "probability of a box that is the object's middle slice's, extruded"),
    WHOLES(box_jitter, 0, 255, "largest shift of the box, in 256ths of the window"),

    TITLE("Along the way."),
    {"checkpoint_every", WHOLE, AT(checkpoint_every), 1, 1, HUGE_WHOLE, NULL, "steps", true},
    {"evaluate_every", WHOLE, AT(evaluate_every), 1, 0, HUGE_WHOLE, NULL, "steps; 0: never", true},
    {"evaluate_pairs", PATH, AT(evaluate_pairs), 1, 0, 0, NULL, "list of the scans to evaluate on; -: none", false},
    WHOLES(evaluate_clicks, 0, 100, "clicks after the box"),
    WHOLES(evaluate_min_voxels, 1, HUGE_WHOLE, "smaller classes are not scored"),
};
enum { KEYS = sizeof keys / sizeof keys[0] };

void train_settings_default(train_settings *s) {
    *s = (train_settings){
        .sizes = {.spatial = {32, 64, 64},
                  .patch = {4, 8, 8},
                  .dim = 96,
                  .depth = 4,
                  .heads = 4,
                  .mlp = 384,
                  .decoder_depth = 2,
                  .decoder_heads = 4,
                  .decoder_mlp = 192,
                  .decoder_cross_dim = 48,
                  .mask_tokens = 4,
                  .iou_hidden = 64,
                  .iou_layers = 3,
                  .hyper_layers = 3,
                  .up1 = 24,
                  .up2 = 12,
                  .gru_blocks = 5,
                  .gru_hidden = 64,
                  .topk = 32},
        .source = TRAIN_PAIRS,
        .phantoms = 0.5,
        .phantoms_each = 8,
        .min_voxels = 100,
        .batch = 4,
        .steps = 1000,
        .rate = 3e-4,
        .warmup = 100,
        .decay = 1e-5,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .clip = 1,
        .stage = TRAIN_AUTO,
        .epoch = 100,
        .settled = 0.05,
        .corrections = {1, 3, 10, 10, 3, 1},
        .consistency = 0.1,
        .boundary = 0.01,
        .parts = TRAIN_ALL,
        .augmentation = train_augmentation_default(),
        .checkpoint_every = 100,
        .evaluate_clicks = 5,
        .evaluate_min_voxels = 100,
        .evaluate_pairs = "-",
    };
    s->box_jitter = s->augmentation.box_jitter;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static const void *value_of(const train_settings *s, const key *k) { return (const char *)s + k->at; }
static void *target_of(train_settings *s, const key *k) { return (char *)s + k->at; }

static const key *find_key(const char *name) {
    for (size_t i = 0; i < KEYS; i++)
        if (keys[i].name != NULL && strcmp(keys[i].name, name) == 0) return &keys[i];
    return NULL;
}

static segfm_status set_choice(const key *k, const char *text, int64_t *out, segfm_error *error) {
    char known[256] = "";
    for (int64_t i = 0; k->choices[i] != NULL; i++) {
        if (strcmp(k->choices[i], text) == 0) {
            *out = i;
            return SEGFM_OK;
        }
        size_t length = strlen(known);
        base_format(known + length, sizeof known - length, "%s%s", i > 0 ? ", " : "", k->choices[i]);
    }
    return base_fail(error, SEGFM_BAD_USAGE, "%s: got %s, need one of %s", k->name, text, known);
}

/* encoder+decoder → the bits of both. */
static segfm_status set_parts(const key *k, const char *text, int64_t *out, segfm_error *error) {
    int64_t parts = strcmp(text, "all") == 0 ? TRAIN_ALL : 0;
    for (const char *from = text; parts != TRAIN_ALL && from != NULL;) {
        size_t length = strcspn(from, "+"), i = 0;
        while (k->choices[i] != NULL && (strlen(k->choices[i]) != length || strncmp(k->choices[i], from, length) != 0))
            i++;
        if (k->choices[i] == NULL)
            return base_fail(error, SEGFM_BAD_USAGE, "%s: got %s, need all, or encoder, decoder, corrector joined by +",
                             k->name, text);
        parts |= 1 << i;
        from = from[length] == '+' ? from + length + 1 : NULL;
    }
    *out = parts;
    return SEGFM_OK;
}

static segfm_status set_numbers(const key *k, const char *text, double *out, segfm_error *error) {
    double v[8];
    segfm_status status = tool_numbers(text, k->name, k->count, v, error);
    for (int i = 0; status == SEGFM_OK && i < k->count; i++)
        if (!(v[i] >= k->low && v[i] <= k->high)) {
            char low[32], high[32];
            snprintf(low, sizeof low, "%g", k->low);
            snprintf(high, sizeof high, "%g", k->high);
            status = base_fail(error, SEGFM_BAD_USAGE, "%s: got %s, need %s to %s", k->name, text, low, high);
        }
    if (status == SEGFM_OK) memcpy(out, v, (size_t)k->count * sizeof *v);
    return status;
}

static segfm_status set_wholes(train_settings *s, const key *k, const char *text, segfm_error *error) {
    int64_t v[8];
    segfm_status status = tool_integers(text, k->name, k->count, (int64_t)k->low, (int64_t)k->high, v, error);
    for (int i = 0; status == SEGFM_OK && i < k->count; i++)
        if (k->kind == SIZE) ((uint32_t *)target_of(s, k))[i] = (uint32_t)v[i];
        else ((int64_t *)target_of(s, k))[i] = v[i];
    return status;
}

static segfm_status set_value(train_settings *s, const key *k, const char *text, segfm_error *error) {
    switch (k->kind) {
    case SIZE:
    case WHOLE: return set_wholes(s, k, text, error);
    case NUMBER: return set_numbers(k, text, target_of(s, k), error);
    case CHOICE: return set_choice(k, text, target_of(s, k), error);
    case PARTS: return set_parts(k, text, target_of(s, k), error);
    case PATH: break;
    }
    if (strlen(text) >= sizeof s->evaluate_pairs)
        return base_fail(error, SEGFM_BAD_USAGE, "%s: the path is longer than %zu bytes", k->name,
                         sizeof s->evaluate_pairs - 1);
    base_format(target_of(s, k), sizeof s->evaluate_pairs, "%s", text);
    return SEGFM_OK;
}

segfm_status train_settings_set(train_settings *s, const char *name, const char *value, segfm_error *error) {
    const key *k = find_key(name);
    if (k == NULL) return base_fail(error, SEGFM_BAD_USAGE, "unknown key %s: segfm train --defaults lists all", name);
    s->given[k - keys] = true;
    return set_value(s, k, value, error);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Cuts the white space at both ends off. */
static char *trim(char *text) {
    text += strspn(text, " \t\r");
    size_t n = strlen(text);
    while (n > 0 && strchr(" \t\r", text[n - 1]) != NULL) n--;
    text[n] = '\0';
    return text;
}

/* A remark begins at the line's start or after white space, so that a path may hold a #. */
static void cut_remark(char *line) {
    for (char *c = line; *c != '\0'; c++)
        if (*c == '#' && (c == line || c[-1] == ' ' || c[-1] == '\t')) *c = '\0', c--;
}

static segfm_status read_line(train_settings *s, char *line, bool *seen, segfm_error *error) {
    cut_remark(line);
    char *name = trim(line);
    if (*name == '\0') return SEGFM_OK;
    char *value = name + strcspn(name, " \t=");
    char ending = *value;
    if (ending != '\0') *value++ = '\0';
    value += strspn(value, " \t");
    if (ending != '=' && *value == '=') value++;
    value = trim(value);
    if (*value == '\0') return base_fail(error, SEGFM_BAD_INPUT, "%s: got no value", name);
    const key *k = find_key(name);
    if (k != NULL && seen[k - keys]) return base_fail(error, SEGFM_BAD_INPUT, "%s: given twice, need it once", name);
    if (k != NULL) seen[k - keys] = true;
    return train_settings_set(s, name, value, error);
}

segfm_status train_settings_read(train_settings *s, const char *text, segfm_error *error) {
    bool seen[KEYS] = {false};
    for (int number = 1; *text != '\0'; number++) {
        char line[2048];
        segfm_error problem = {0};
        size_t length = strcspn(text, "\n");
        if (length >= sizeof line)
            return base_fail(error, SEGFM_BAD_INPUT, "line %d: longer than %zu bytes", number, sizeof line - 1);
        memcpy(line, text, length);
        line[length] = '\0';
        if (read_line(s, line, seen, &problem) != SEGFM_OK)
            return base_fail(error, SEGFM_BAD_INPUT, "line %d: %s", number, problem.message);
        text += length + (text[length] == '\n');
    }
    return SEGFM_OK;
}

/* ---- writing and comparing ------------------------------------------------------------------------------------- */

/* The shortest digits that read back to the number. */
static void format_number(double v, char *out, size_t capacity) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, capacity, "%.*g", digits, v);
        if (strtod(out, NULL) == v) return;
    }
}

static void format_parts(const key *k, int64_t parts, char *out, size_t capacity) {
    size_t used = 0;
    base_format(out, capacity, "all");
    for (int i = 0; parts != TRAIN_ALL && k->choices[i] != NULL; i++)
        if ((parts >> i & 1) != 0) {
            base_format(out + used, capacity - used, "%s%s", used > 0 ? "+" : "", k->choices[i]);
            used = strlen(out);
        }
}

static void format_one(const train_settings *s, const key *k, int i, char *out, size_t capacity) {
    const void *value = value_of(s, k);
    switch (k->kind) {
    case SIZE: base_format(out, capacity, "%lld", (long long)((const uint32_t *)value)[i]); break;
    case WHOLE: base_format(out, capacity, "%lld", (long long)((const int64_t *)value)[i]); break;
    case NUMBER: format_number(((const double *)value)[i], out, capacity); break;
    case CHOICE: base_format(out, capacity, "%s", k->choices[*(const int64_t *)value]); break;
    case PARTS: format_parts(k, *(const int64_t *)value, out, capacity); break;
    case PATH: base_format(out, capacity, "%s", (const char *)value); break;
    }
}

enum { VALUE = 1100 };

static void format_value(const train_settings *s, const key *k, char out[VALUE]) {
    size_t used = 0;
    for (int i = 0; i < k->count; i++) {
        if (i > 0) out[used++] = ',';
        format_one(s, k, i, out + used, VALUE - used);
        used += strlen(out + used);
    }
}

segfm_status train_settings_write(const train_settings *s, bool remarks, io_buffer *out, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    for (size_t i = 0; status == SEGFM_OK && i < KEYS; i++) {
        char line[VALUE + 256], value[VALUE];
        const key *k = &keys[i];
        if (k->name == NULL) {
            if (!remarks) continue;
            snprintf(line, sizeof line, "%s# %s\n", i > 0 ? "\n" : "", k->remark);
        } else {
            format_value(s, k, value);
            const char *equals = value[0] == '=' || value[0] == '#' ? "=" : ""; /* a path's own is then its own */
            if (remarks) snprintf(line, sizeof line, "%-19s %s%-14s # %s\n", k->name, equals, value, k->remark);
            else snprintf(line, sizeof line, "%s %s%s\n", k->name, equals, value);
        }
        status = io_buffer_append(out, line, strlen(line), error);
    }
    if (status == SEGFM_OK) status = io_buffer_append(out, "", 1, error);
    if (status == SEGFM_OK) out->size--; /* the terminator is there, but not counted */
    return status;
}

uint64_t train_settings_hash(const train_settings *s) {
    uint64_t hash = 0;
    for (size_t i = 0; i < KEYS; i++) {
        char value[VALUE];
        if (keys[i].name == NULL || keys[i].extends) continue;
        format_value(s, &keys[i], value);
        hash = base_xxh64(keys[i].name, strlen(keys[i].name), hash);
        hash = base_xxh64(value, strlen(value), hash);
    }
    return hash;
}

/* A cosine that ends at the last step bends when the last step is another. */
static bool may_differ(const key *k, const train_settings *s) {
    bool is_steps = k->kind == WHOLE && k->at == AT(steps);
    return k->extends && !(is_steps && s->schedule != 0 && s->schedule_steps == 0);
}

segfm_status train_settings_same(const train_settings *before, const train_settings *now, segfm_error *error) {
    for (size_t i = 0; i < KEYS; i++) {
        char a[VALUE], b[VALUE];
        if (keys[i].name == NULL) continue;
        format_value(before, &keys[i], a);
        format_value(now, &keys[i], b);
        if (strcmp(a, b) == 0 || may_differ(&keys[i], before)) continue;
        return base_fail(error, SEGFM_BAD_USAGE, "--resume: %s is %s, the run that it would go on with has %s%s",
                         keys[i].name, b, a, keys[i].extends ? " (schedule_steps 0 ties the cosine to it)" : "");
    }
    return SEGFM_OK;
}

/* ---- contradictions -------------------------------------------------------------------------------------------- */

static bool all_zero(const double *v, int n) {
    for (int i = 0; i < n; i++)
        if (v[i] > 0) return false;
    return true;
}

segfm_status train_settings_check(const train_settings *s, segfm_error *error) {
    const train_augmentation *a = &s->augmentation;
    const char *problem = NULL;
    segfm_status status = weights_check_config(&s->sizes, error);
    if (status != SEGFM_OK) return status;
    if (all_zero(s->corrections, TRAIN_MAX_CORRECTIONS + 1)) problem = "corrections: need a weight above 0";
    else if (!(a->resize + a->crop > 0)) problem = "resize, crop: need a weight above 0";
    else if (!(a->positive + a->negative > 0)) problem = "positive, negative: need a weight above 0";
    else if (s->floor > s->rate) problem = "floor: need at most rate";
    else if (s->evaluate_every > 0 && strcmp(s->evaluate_pairs, "-") == 0)
        problem = "evaluate_every: need evaluate_pairs too";
    else if (s->chain && (!s->all_clicks || s->variant != VOL_SEED))
        problem = "chain: needs all_clicks, and variant seed";
    else if (s->parts == TRAIN_CORRECTOR && s->sizes.gru_blocks == 0)
        problem = "parts: the network has no corrector (gru_blocks is 0)";
    for (int k = 0; problem == NULL && k < 3; k++) {
        int64_t low = s->phantom_smallest[k], high = s->phantom_largest[k];
        if (high > 0 && low > high) problem = "phantom_smallest: need at most phantom_largest";
        else if ((low > 0 && low < TRAIN_PHANTOM_SMALLEST) || (high > 0 && high < TRAIN_PHANTOM_SMALLEST) ||
                 low > TRAIN_PHANTOM_LARGEST || high > TRAIN_PHANTOM_LARGEST)
            problem = "phantom_smallest, phantom_largest: need 8 to 1024 voxels, or 0"; /* before a run has a folder */
    }
    return problem == NULL ? SEGFM_OK : base_fail(error, SEGFM_BAD_INPUT, "%s", problem);
}

static bool is_corrector(const key *k) {
    return k->at == AT(sizes.gru_blocks) || k->at == AT(sizes.gru_hidden) || k->at == AT(sizes.topk);
}

segfm_status train_settings_take_sizes(train_settings *s, const weights_file *file, segfm_error *error) {
    const weights_config *sizes = &file->config;
    for (size_t i = 0; i < KEYS; i++) {
        char want[VALUE], got[VALUE];
        const key *k = &keys[i];
        if (k->name == NULL || k->kind != SIZE || (sizes->gru_blocks == 0 && is_corrector(k))) continue;
        train_settings theirs = {.sizes = *sizes};
        format_value(s, k, got);
        format_value(&theirs, k, want);
        if (s->given[i] && strcmp(got, want) != 0)
            return base_fail(error, SEGFM_BAD_USAGE, "--init: the weights have %s %s, the configuration says %s",
                             k->name, want, got);
        memcpy(target_of(s, k), value_of(&theirs, k), (size_t)k->count * sizeof(uint32_t));
    }
    if (!s->given[find_key("offsets") - keys]) s->offsets = weights_find(file, "gru_blocks.0.fc_coord.weight") != NULL;
    return SEGFM_OK;
}
