/* Random dialogues with a session, good and bad calls mixed: whatever was said before, a result depends on the scan, the
   box and the clicks alone; undo and redo give the bits back; clicks are honoured; reports tell the truth; where the
   model's window follows the box, nothing is said of what it does not show.

   SEGFM_CALLS: how many calls of each dialogue (make soak asks for thousands). */
#include "bright.h"
#include "random.h"

enum { Z = 14, Y = 30, X = 52, VOXELS = Z * Y * X, MAX_CLICKS = 9, LOG = 100000 };
static const int64_t shape[3] = {Z, Y, X};
static const int64_t crop[6] = {1, 2, 3, Z - 2, Y - 3, X - 4}; /* outside of it the scan is dark */

typedef enum kind { RESET, BOX, CLICK } kind;
typedef struct call {
    kind kind;
    bool foreground;
    int64_t at[6];
} call;

/* The session under test, and what is known about it. */
typedef struct dialogue {
    segfm_options options;
    const segfm_model *model;
    unsigned frame; /* the model's */
    segfm_session *session;
    const float *voxels;
    uint64_t random;
    call *calls;      /* the history */
    uint64_t *states; /* states[n]: hash of what stood after n of them */
    int cursor, used;
    int objects;
    uint8_t *mask, *before; /* (VOXELS) */
    float *logits;
    int64_t cancel_after;   /* progress calls; −1: never */
    int moves, moved_again; /* of the window, by new clicks; by undo and redo */
} dialogue;

static bool progress(void *user, int64_t done, int64_t total) {
    dialogue *d = user;
    CHECK(done >= 0 && done <= total);
    if (d->cancel_after < 0) return true;
    return d->cancel_after-- > 0;
}

static unsigned draw(dialogue *d, unsigned below) { return random_next(&d->random) % below; }

/* The first call of the object that stands. */
static int object_start(const dialogue *d) {
    int first = d->cursor;
    while (first > 0 && d->calls[first - 1].kind == CLICK) first--;
    return first > 0 && d->calls[first - 1].kind == BOX ? first - 1 : first;
}

static uint64_t hash_of(segfm_session *s, uint8_t *mask, float *logits) {
    CHECK(segfm_mask(s, mask, VOXELS, NULL) == SEGFM_OK && segfm_logits(s, logits, VOXELS, NULL) == SEGFM_OK);
    return base_xxh64(logits, VOXELS * sizeof *logits, base_xxh64(mask, VOXELS, 0));
}

static segfm_status give(segfm_session *s, const call *c, segfm_error *error) {
    if (c->kind == BOX) return segfm_box(s, c->at, error);
    if (c->kind == CLICK) return segfm_click(s, c->at, c->foreground, error);
    segfm_reset(s);
    return SEGFM_OK;
}

/* What the last call's report says against the masks before and after it. */
static void check_report(const dialogue *d) {
    segfm_report r;
    segfm_last_report(d->session, &r);
    int64_t changed = 0, inside = 0, box[6] = {Z, Y, X, -1, -1, -1};
    for (int64_t z = 0, i = 0; z < Z; z++)
        for (int64_t y = 0; y < Y; y++)
            for (int64_t x = 0; x < X; x++, i++) {
                const int64_t at[3] = {z, y, x};
                inside += d->mask[i];
                if (d->mask[i] == d->before[i]) continue;
                changed++;
                for (int axis = 0; axis < 3; axis++) {
                    if (at[axis] < box[axis]) box[axis] = at[axis];
                    if (at[axis] > box[3 + axis]) box[3 + axis] = at[axis];
                }
            }
    if (changed == 0)
        for (int i = 0; i < 6; i++) box[i] = -1;
    int first = object_start(d), clicks = d->cursor - first - (first < d->cursor && d->calls[first].kind == BOX);
    CHECK(r.changed == changed && r.inside == inside && memcmp(r.changed_box, box, sizeof box) == 0);
    CHECK(r.clicks == clicks && r.has_box == (clicks < d->cursor - first) && r.objects == d->objects);
    CHECK(r.decoded == r.encoded + r.reused && r.corrected >= 0);
    CHECK(r.can_redo == (d->cursor < d->used) && (d->cursor > 0 || !r.can_undo));
    CHECK(r.can_undo || d->cursor == 0 || d->used - d->cursor >= MAX_CLICKS); /* so many steps back are remembered */
}

/* The newest click on a voxel is its label, and its logit says so for certain. */
static void check_clicks(const dialogue *d) {
    if (d->options.variant != SEGFM_SEED) return;
    for (int i = object_start(d); i < d->cursor; i++) {
        const call *c = &d->calls[i];
        bool newest = c->kind == CLICK;
        for (int j = i + 1; j < d->cursor && newest; j++)
            newest = memcmp(c->at, d->calls[j].at, sizeof(int64_t[3])) != 0;
        if (!newest) continue;
        int64_t at = (c->at[0] * Y + c->at[1]) * X + c->at[2];
        CHECK(d->mask[at] == c->foreground && (c->foreground ? d->logits[at] >= 10 : d->logits[at] <= -10));
    }
}

static bool is_in(const int64_t at[3], const int64_t box[6]) {
    bool in = true;
    for (int axis = 0; axis < 3; axis++) in = in && at[axis] >= box[axis] && at[axis] <= box[3 + axis];
    return in;
}

/* A box and what a window that follows it shows. */
static void show_around(const dialogue *d, const int64_t box[6], int64_t view[6]) {
    for (int axis = 0; axis < 3; axis++) {
        int64_t lo = box[axis], hi = box[3 + axis];
        int64_t around = (hi - lo + 1) * d->frame / 100 > 2 ? (hi - lo + 1) * d->frame / 100 : 2;
        view[axis] = lo - around > crop[axis] ? lo - around : crop[axis];
        view[3 + axis] = hi + around < crop[3 + axis] ? hi + around : crop[3 + axis];
    }
}

static void grow(int64_t box[6], const int64_t at[3]) {
    for (int axis = 0; axis < 3; axis++) {
        if (at[axis] > box[3 + axis]) box[3 + axis] = at[axis];
        if (at[axis] < box[axis]) box[axis] = at[axis];
    }
}

static int looks_of(const dialogue *d) { return d->options.looks > 0 ? d->options.looks : SEGFM_LOOKS; }

/* The box that a session makes of a click alone (what it is made of, test_session knows). *tries: how many it has looked at. */
static void guess(const dialogue *d, const call *click, int64_t box[6], int64_t *tries) {
    segfm_session *s = NULL;
    segfm_report r;
    segfm_options options = d->options;
    options.progress = NULL;
    CHECK(segfm_session_new(d->model, shape, &options, NULL, 0, &s, NULL) == SEGFM_OK &&
          segfm_set_volume(s, d->voxels, NULL) == SEGFM_OK && give(s, click, NULL) == SEGFM_OK);
    segfm_last_report(s, &r);
    memcpy(box, r.box, sizeof r.box);
    *tries = r.decoded - looks_of(d);
    segfm_session_free(s);
}

/* The box of the object that stands, in the crop; false: there is none, or it lies outside. *tries: what a guess of it has cost. */
static bool first_box(const dialogue *d, int end, int64_t box[6], int64_t *tries) {
    int first = object_start(d);
    const call *c = &d->calls[first];
    bool inside = first < end;
    *tries = 0;
    if (inside && c->kind == CLICK) {
        inside = is_in(c->at, crop);
        if (inside) guess(d, c, box, tries);
        return inside;
    }
    for (int axis = 0; axis < 3 && inside; axis++) {
        box[axis] = c->at[axis] > crop[axis] ? c->at[axis] : crop[axis];
        box[3 + axis] = c->at[3 + axis] < crop[3 + axis] ? c->at[3 + axis] : crop[3 + axis];
        inside = box[axis] <= box[3 + axis];
    }
    return inside;
}

/* What a model whose window follows the box shows of the scan after the history's first `end` calls, which are of the object
   that stands; *moves: how often a click moved the window until then. False: it does not follow one, or one outside of the
   crop. */
static bool shown_part(const dialogue *d, int end, int64_t view[6], int *moves) {
    int64_t box[6], tries;
    *moves = 0;
    if (d->frame == 0 || !first_box(d, end, box, &tries)) return false;
    show_around(d, box, view);
    for (int i = object_start(d) + 1; i < end; i++) {
        const call *c = &d->calls[i];
        if (!c->foreground || is_in(c->at, box) || !is_in(c->at, crop)) continue;
        grow(box, c->at);
        show_around(d, box, view);
        *moves += 1;
    }
    return true;
}

/* Does the call after `end` calls of the object move the window? */
static bool moves_window(const dialogue *d, int end) {
    int64_t view[6];
    int before, after;
    return shown_part(d, end, view, &before) && d->calls[end].kind == CLICK && shown_part(d, end + 1, view, &after) &&
           after > before;
}

/* How often at most the decoder runs for a window that follows the box: once in each look, however many clicks there are; and where the
   object is made anew, for what a guess looks at. */
static int64_t most_decoded(const dialogue *d, bool anew) {
    int64_t box[6], tries;
    first_box(d, d->cursor, box, &tries);
    return looks_of(d) + (anew ? tries : 0);
}

/* Outside of what the window shows there are the clicks and nothing else; inside there are logits of the network. */
static void check_view(const dialogue *d, bool moved, bool click) {
    int64_t view[6];
    int moves;
    if (d->frame == 0) return;
    bool follows = shown_part(d, d->cursor, view, &moves), empty = true, full = true;
    if (!follows) memcpy(view, crop, sizeof view);
    for (int64_t z = 0, i = 0; z < Z; z++)
        for (int64_t y = 0; y < Y; y++)
            for (int64_t x = 0; x < X; x++, i++) {
                if (is_in((const int64_t[]){z, y, x}, view)) full = full && d->logits[i] != -100;
                else
                    empty = empty && (d->logits[i] == -100 || d->logits[i] == 10) && d->mask[i] == (d->logits[i] == 10);
            }
    segfm_report r;
    segfm_last_report(d->session, &r);
    CHECK(empty && (full || d->cursor == object_start(d)));
    if (!follows) return;
    bool begins = d->cursor - object_start(d) == 1;
    int64_t most = most_decoded(d, begins || !(moved || click));
    CHECK(r.windows == 0 && r.region[0] == -1 && r.decoded <= most);
    if (moved) CHECK(r.encoded == looks_of(d) && r.decoded == looks_of(d));
}

/* A session that hears the object's calls and nothing else shows the same bits. */
static void check_replay(const dialogue *d, uint64_t state) {
    segfm_session *s = NULL;
    segfm_options options = d->options;
    options.progress = NULL;
    options.cache_bytes = 0;
    options.threads = 2;
    uint8_t *mask = malloc(VOXELS);
    float *logits = malloc(VOXELS * sizeof *logits);
    CHECK(segfm_session_new(d->model, shape, &options, NULL, 0, &s, NULL) == SEGFM_OK &&
          segfm_set_volume(s, d->voxels, NULL) == SEGFM_OK);
    for (int i = object_start(d); i < d->cursor; i++) CHECK(give(s, &d->calls[i], NULL) == SEGFM_OK);
    CHECK(hash_of(s, mask, logits) == state);
    segfm_session_free(s);
    free(mask), free(logits);
}

static call random_call(dialogue *d) {
    call c = {.kind = draw(d, 8) == 0 ? RESET : draw(d, 4) == 0 ? BOX : CLICK, .foreground = draw(d, 2) != 0};
    for (int axis = 0; axis < 3; axis++) {
        int64_t n = shape[axis];
        c.at[axis] = draw(d, (unsigned)n);
        if (c.kind == BOX) c.at[3 + axis] = c.at[axis] + draw(d, (unsigned)(n - c.at[axis]));
        else if (d->cursor > 0 && draw(d, 8) == 0) c.at[axis] = d->calls[d->cursor - 1].at[axis]; /* again, or nearly */
    }
    return c;
}

/* A good call, which may be cancelled. */
static void do_call(dialogue *d) {
    call c = random_call(d);
    segfm_error error = {0};
    int first = object_start(d), clicks = d->cursor - first - (first < d->cursor && d->calls[first].kind == BOX);
    uint64_t stood = d->states[d->cursor];
    call redo = d->calls[d->cursor];
    if (c.kind == RESET && d->cursor == first) return; /* nothing to forget: not remembered either */
    int64_t after = d->cancel_after = draw(d, 10) == 0 ? (int64_t)draw(d, 4) : -1;
    segfm_status status = give(d->session, &c, &error);
    d->cancel_after = -1;
    uint64_t state = hash_of(d->session, d->mask, d->logits);
    if (c.kind == CLICK && clicks == MAX_CLICKS) {
        CHECK(status == SEGFM_BAD_USAGE && strstr(error.message, "room for 9") != NULL && state == stood);
        return;
    }
    if (status == SEGFM_CANCELLED && c.kind == CLICK) {
        d->calls[d->cursor] = c;
        CHECK(state == stood && (!moves_window(d, d->cursor) || after == 0));
        d->calls[d->cursor] = redo;
        return;
    }
    if (status == SEGFM_CANCELLED) c = (call){.kind = RESET};
    else CHECK(status == SEGFM_OK);
    d->calls[d->cursor++] = c;
    d->used = d->cursor;
    d->states[d->cursor] = state;
    bool moved = moves_window(d, d->cursor - 1);
    CHECK(!moved || after != 0); /* which would have cancelled it before it began */
    check_report(d);
    check_clicks(d);
    check_view(d, moved, c.kind == CLICK);
    d->moves += moved;
}

/* Undo or redo. */
static void do_move(dialogue *d, bool back) {
    segfm_error error = {0};
    segfm_report r;
    segfm_last_report(d->session, &r);
    uint64_t stood = d->states[d->cursor];
    bool nothing = back ? !r.can_undo : d->cursor == d->used;
    bool of_click = !nothing && d->calls[back ? d->cursor - 1 : d->cursor].kind == CLICK;
    bool moves = of_click && moves_window(d, back ? d->cursor - 1 : d->cursor);
    int64_t after = d->cancel_after = draw(d, 12) == 0 ? (int64_t)draw(d, 3) : -1;
    segfm_status status = back ? segfm_undo(d->session, &error) : segfm_redo(d->session, &error);
    d->cancel_after = -1;
    uint64_t state = hash_of(d->session, d->mask, d->logits);
    if (nothing) {
        CHECK(status == SEGFM_BAD_USAGE && strstr(error.message, "nothing to") != NULL && state == stood);
        return;
    }
    if (status == SEGFM_CANCELLED) {
        if (of_click) CHECK(state == stood && (!moves || after == 0));
        else { /* as after a reset */ d->cursor -= back;
            d->calls[d->cursor++] = (call){.kind = RESET};
            d->used = d->cursor;
            d->states[d->cursor] = state;
            CHECK(state == d->states[0]);
        }
        return;
    }
    CHECK(status == SEGFM_OK);
    d->cursor += back ? -1 : 1;
    CHECK(state == d->states[d->cursor] && (!moves || after != 0));
    check_report(d);
    check_clicks(d);
    check_view(d, moves, of_click);
    d->moved_again += moves;
}

/* A call that is refused changes nothing. */
static void do_nonsense(dialogue *d) {
    static const int64_t boxes[][6] = {
        {-1, 0, 0, 3, 3, 3}, {0, 0, 0, Z, 3, 3}, {4, 4, 4, 5, 3, 5}, {INT64_MAX, 0, 0, INT64_MIN, 1, 1}};
    static const int64_t clicks[][3] = {{-1, 0, 0}, {0, Y, 0}, {0, 0, INT64_MAX}, {INT64_MIN, 3, 3}};
    segfm_error error = {0};
    unsigned which = draw(d, 4);
    CHECK((draw(d, 2) != 0 ? segfm_box(d->session, boxes[which], &error)
                           : segfm_click(d->session, clicks[which], true, &error)) == SEGFM_BAD_USAGE);
    CHECK(error.message[0] != '\0' && segfm_mask(d->session, d->mask, VOXELS - 1, &error) == SEGFM_BAD_USAGE);
    CHECK(hash_of(d->session, d->mask, d->logits) == d->states[d->cursor]);
}

static void do_next(dialogue *d) {
    CHECK(segfm_next_object(d->session, NULL) == SEGFM_OK);
    d->objects++;
    d->cursor = d->used = 0;
    uint16_t *labels = malloc(VOXELS * sizeof *labels);
    CHECK(segfm_labels(d->session, labels, VOXELS, NULL) == SEGFM_OK);
    bool same = true; /* the newest label is the mask as it stood */
    for (int i = 0; i < VOXELS; i++) same = same && (labels[i] == d->objects) == (d->before[i] != 0);
    CHECK(same && hash_of(d->session, d->mask, d->logits) == d->states[0]);
    free(labels);
}

/* Returns whether clicks, and undo or redo of clicks, moved the window. */
static bool test_dialogue(const segfm_model *model, unsigned frame, const float *voxels, segfm_options options,
                          uint64_t seed, int calls) {
    dialogue d = {
        .options = options, .model = model, .frame = frame, .voxels = voxels, .random = seed, .cancel_after = -1};
    d.calls = calloc(LOG, sizeof *d.calls);
    d.states = malloc((LOG + 1) * sizeof *d.states);
    d.mask = malloc(VOXELS), d.before = malloc(VOXELS);
    d.logits = malloc(VOXELS * sizeof *d.logits);
    d.options.progress = progress;
    d.options.progress_user = &d;
    d.options.max_clicks = MAX_CLICKS;
    d.options.keep_objects = true;
    CHECK(segfm_session_new(model, shape, &d.options, NULL, 0, &d.session, NULL) == SEGFM_OK &&
          segfm_set_volume(d.session, voxels, NULL) == SEGFM_OK);
    d.states[0] = hash_of(d.session, d.mask, d.logits);
    for (int i = 0; i < calls && d.cursor < LOG && test_failed == 0; i++) {
        memcpy(d.before, d.mask, VOXELS);
        unsigned what = draw(&d, 40);
        if (what < 22) do_call(&d);
        else if (what < 30) do_move(&d, true);
        else if (what < 36) do_move(&d, false);
        else if (what < 39) do_nonsense(&d);
        else if (draw(&d, 4) == 0) do_next(&d);
        if (i % 16 == 0) check_replay(&d, d.states[d.cursor]);
        if (test_failed != 0) printf("    call %d of the dialogue with seed %llu\n", i, (unsigned long long)seed);
    }
    segfm_session_free(d.session);
    free(d.calls), free(d.states), free(d.mask), free(d.before), free(d.logits);
    return d.moves > 0 && d.moved_again > 0;
}

/* Textured ground, a bright block, and darkness outside of `crop`. */
static float *made_scan(void) {
    float *voxels = calloc(VOXELS, sizeof *voxels);
    for (int64_t z = crop[0]; z <= crop[3]; z++)
        for (int64_t y = crop[1]; y <= crop[4]; y++)
            for (int64_t x = crop[2]; x <= crop[5]; x++) {
                bool bright = z > 4 && z < 10 && y > 8 && y < 20 && x > 12 && x < 30;
                voxels[(z * Y + y) * X + x] = (float)((bright ? 150 : 20) + (x * 7 + y * 5 + z * 3) % 40);
            }
    return voxels;
}

/* With models whose window follows the box: a little around it, a quarter, more than there is; in all looks, one, two. */
static void test_framed(const float *voxels, int calls) {
    static const unsigned frames[] = {25, 25, 1, 300};
    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
        segfm_model *model = bright_framed_model(i != 1, frames[i]);
        segfm_options o = segfm_options_default();
        if (i == 2) o.click_by = SEGFM_BY_CORRECTOR, o.cache_bytes = 0;
        if (i == 3) o.variant = SEGFM_UPSTREAM;
        o.looks = i == 1 ? 1 : i == 3 ? 2 : 0;
        bool moved = test_dialogue(model, frames[i], voxels, o, 7 + i, 4 * calls);
        CHECK(calls < 120 || moved);
        segfm_model_close(model);
    }
}

int main(void) {
    const char *asked = getenv("SEGFM_CALLS");
    int calls = asked != NULL ? atoi(asked) : 120;
    segfm_model *model = bright_model(true), *bare = bright_model(false);
    float *voxels = made_scan();
    segfm_options o = segfm_options_default();
    CHECK(segfm_model_has_corrector(model) && !segfm_model_has_corrector(bare));
    test_dialogue(model, 0, voxels, o, 1, calls);
    test_dialogue(bare, 0, voxels, o, 2, calls);
    o.cache_bytes = 0;
    o.click_by = SEGFM_BY_DECODER;
    test_dialogue(model, 0, voxels, o, 3, calls);
    o.click_by = SEGFM_BY_CORRECTOR;
    test_dialogue(model, 0, voxels, o, 4, calls);
    o = segfm_options_default();
    o.zoom_only = true;
    test_dialogue(model, 0, voxels, o, 5, calls);
    o.zoom_only = false;
    o.variant = SEGFM_UPSTREAM;
    test_dialogue(model, 0, voxels, o, 6, calls);
    test_framed(voxels, calls);
    segfm_model_close(model);
    segfm_model_close(bare);
    free(voxels);
    return test_summary();
}
