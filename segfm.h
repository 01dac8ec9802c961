/* segfm: segments an organ or lesion in a 3-D scan from a box, and corrects the mask with clicks.

   The only header a user includes. No globals, no printing, no exit; every function that can fail returns a status and
   fills *error (which may be NULL) with one sentence. Volumes are (z, y, x) in memory, x fastest; voxel coordinates are
   0-based. Not a medical device: for research and teaching only.

   The library allocates once for a model and once for a session, or, given their memory (segfm_model_open_in,
   segfm_session_new), not at all. Compiled with -DSEGFM_NO_MALLOC it has no malloc in it: what would allocate then ends with
   SEGFM_NO_MEMORY.

       segfm_model *model;        segfm_session *session;
       segfm_model_open(bytes, size, NULL, &model, &error);
       segfm_session_new(model, shape, NULL, NULL, 0, &session, &error);
       segfm_set_volume(session, voxels, &error);
       segfm_box(session, (int64_t[]){z0, y0, x0, z1, y1, x1}, &error);
       segfm_click(session, (int64_t[]){z, y, x}, true, &error);
       segfm_mask(session, mask, count, &error);
       segfm_session_free(session);   segfm_model_close(model);                                                       */
#ifndef SEGFM_H
#define SEGFM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define SEGFM_VERSION "0.1.0"

/* ---- model --------------------------------------------------------------------------------------------------- */

/* Immutable after opening: any number of sessions, in any threads, may share one. */
typedef struct segfm_model segfm_model;

/* Called while a model is opened, with parts of its file that will not be read again: a program that has mapped the file
   can release them, so that file and model never lie in memory together. No byte is named twice. */
typedef void segfm_bytes_done(void *user, const void *bytes, size_t n);

/* Start from segfm_model_options_default(). */
typedef struct segfm_model_options {
    int threads; /* for opening; 0: all the machine has */
    /* With the corrector, if the file has one: it can be as large as the rest, and only clicks need it. */
    bool corrector;
    segfm_bytes_done *done;
    void *done_user;
} segfm_model_options;
segfm_model_options segfm_model_options_default(void);

/* Reads a weights file (weights/FORMAT.md) from memory. Everything is checked before use and what is needed is copied, so
   the bytes may go afterwards. options NULL: the defaults. Errors: SEGFM_BAD_INPUT (what is wrong with the file),
   SEGFM_BAD_USAGE, SEGFM_NO_MEMORY. *out is NULL on failure. */
segfm_status segfm_model_open(const void *bytes, size_t size, const segfm_model_options *options, segfm_model **out,
                              segfm_error *error);
void segfm_model_close(segfm_model *model); /* NULL is fine */
/* The same in the caller's memory, for machines without a heap: segfm_model_need says how many bytes, which stay the model's
   until it is closed (64-byte aligned; SEGFM_BAD_USAGE when they are too few). memory NULL with memory_size 0: the library
   allocates them, as segfm_model_open does. The file is checked each time; its bytes may lie in read-only memory. */
segfm_status segfm_model_need(const void *bytes, size_t size, const segfm_model_options *options, size_t *need,
                              segfm_error *error);
segfm_status segfm_model_open_in(const void *bytes, size_t size, const segfm_model_options *options, void *memory,
                                 size_t memory_size, segfm_model **out, segfm_error *error);
/* Does the model have a GRU corrector? Without one, clicks go through the decoder only. */
bool segfm_model_has_corrector(const segfm_model *model);
/* Window of the model's input in voxels (z, y, x). */
void segfm_model_window(const segfm_model *model, int64_t window[3]);
/* Bytes that the model holds. */
size_t segfm_model_bytes(const segfm_model *model);

/* ---- session ------------------------------------------------------------------------------------------------- */

/* One scan and the prompts given so far. One caller at a time.

   A box, or a click where there is no box, begins an object: a pass over the whole scan at the window's size finds a
   region, windows over the region refine it. Each click after that
     1. joins the prompts, box and all clicks, of a new decoder pass over the windows that show its voxel (their embeddings
        are kept; a click outside of the region goes to the pass over the whole scan);
     2. lets the corrector, a GRU that remembers the clicks before, write new logits to up to 2K voxels of the region;
     3. where the window follows a box, spreads to the voxels around it that are as bright and labelled otherwise (vol_spread);
        there 2 and 3 are done anew for all clicks in their order, on what the decoder makes of all;
     4. gives its own voxel its label, for certain.
   A model's file may say that its window follows the box. Then a box begins an object with a pass over the box and what
   is around it, at the window's size, or the mean of several such looks at it (SEGFM_LOOKS), and no other; its mask is the one
   of largest expected overlap with the object (vol_expected_dice). A click outside of the box which belongs to the object makes it grow, and
   the window follows; one outside of what the looks show which does not changes its own voxel only. Without a box such a
   model is shown cubes of growing size around the first click and takes the one in which it is surest of what it finds for the box (segfm_report's box).
   The logits of a voxel are what the newest of these says, in this order: clicks on the voxel itself, corrections, the mean
   of the decoder's windows. So no later click undoes an earlier one, and what a session shows depends on the scan, the box
   and the clicks in their order alone: segfm_undo gives back the very bits that were there before. */
typedef struct segfm_session segfm_session;

/* Called between network passes; return false to cancel: the call then ends with SEGFM_CANCELLED. A cancelled click, and
   the cancelled undo or redo of one, change nothing; what else is cancelled leaves the session as segfm_reset does. */
typedef bool segfm_progress(void *user, int64_t done, int64_t total);

/* SEGFM_SEED: corrections as the model's description has them (and the steps 3 and 4 above); SEGFM_UPSTREAM: as the published
   code makes them, defects and all, for verification. */
typedef enum segfm_variant { SEGFM_SEED, SEGFM_UPSTREAM } segfm_variant;

/* What a click goes through, of the steps 1 to 3 above. BEST, which goes with no other: decoder and corrector, but where the
   window follows a box decoder and spreading, as measured in docs/training.md. */
enum { SEGFM_BY_DECODER = 1, SEGFM_BY_CORRECTOR = 2, SEGFM_BY_SPREAD = 4, SEGFM_BY_BEST = 8 };

/* At most so many looks at an object: where the window follows a box, the model looks at the box, at the box grown by a tenth on the
   lower side of each axis, and at the box grown on the upper side; the decoder's logits are the mean of what it makes of them. */
enum { SEGFM_LOOKS = 3 };

/* Start from segfm_options_default(). */
typedef struct segfm_options {
    int threads;    /* 0: all the machine has */
    bool zoom_only; /* stop after the pass over the whole scan at the window's size (no zoom-in) */
    segfm_variant variant;
    unsigned
        click_by; /* any of SEGFM_BY_…; the corrector only where the model has one, spreading where its window follows the box */
    int max_clicks;    /* clicks that one object has room for; as many steps back are remembered */
    int looks;         /* 1 to SEGFM_LOOKS, the more the better and slower; 0: all. 1 where the window follows no box */
    bool keep_objects; /* with room for segfm_labels: two bytes per voxel of the scan */
    /* For embeddings of windows, so that the next class or click need not encode them again. Part of segfm_session_bytes;
       rounded down to whole windows, and up to one. */
    size_t cache_bytes;
    segfm_progress *progress;
    void *progress_user;
} segfm_options;
segfm_options segfm_options_default(void);

/* Bytes a session needs for scans of this shape (z, y, x); everything it will ever use. options NULL: the defaults.
   SEGFM_BAD_USAGE for a shape with an axis < 1, SEGFM_NO_MEMORY when the number does not fit. */
segfm_status segfm_session_bytes(const segfm_model *model, const int64_t shape[3], const segfm_options *options,
                                 size_t *bytes, segfm_error *error);
/* memory: segfm_session_bytes bytes from the caller (64-byte aligned, kept until the session is freed), or NULL with
   size 0: the library allocates them. */
segfm_status segfm_session_new(const segfm_model *model, const int64_t shape[3], const segfm_options *options,
                               void *memory, size_t size, segfm_session **out, segfm_error *error);
void segfm_session_free(segfm_session *session); /* NULL is fine */

/* Takes a scan: normalises it and crops it to its foreground. voxels (z, y, x) are only read during the call. Forgets all
   prompts and objects. SEGFM_BAD_INPUT when a voxel is not finite (named). */
segfm_status segfm_set_volume(segfm_session *session, const float *voxels, segfm_error *error);
/* Segments from a box {z0,y0,x0,z1,y1,x1}, bounds inclusive; replaces an earlier box and its clicks. SEGFM_BAD_USAGE when it
   is empty or reaches outside of the scan. */
segfm_status segfm_box(segfm_session *session, const int64_t box[6], segfm_error *error);
/* A click on a voxel that belongs to the object (foreground) or does not. May come without a box. SEGFM_BAD_USAGE outside
   of the scan or when max_clicks are there. */
segfm_status segfm_click(segfm_session *session, const int64_t voxel[3], bool foreground, segfm_error *error);
/* Takes the last box, click or reset of this object back; brings it again. SEGFM_BAD_USAGE when there is nothing to undo,
   nothing to redo. */
segfm_status segfm_undo(segfm_session *session, segfm_error *error);
segfm_status segfm_redo(segfm_session *session, segfm_error *error);
/* Forgets box and clicks, keeps the scan (and what has been computed from it alone). */
void segfm_reset(segfm_session *session);
/* Begins another object on the same scan; it cannot be undone. With keep_objects the mask as it is now becomes the next
   label of segfm_labels: 1, 2, … up to 65535, then SEGFM_BAD_USAGE. */
segfm_status segfm_next_object(segfm_session *session, segfm_error *error);

/* The current mask, 0 or 1 per voxel of the scan; all 0 before the first prompt. count: capacity of `mask`, at least the
   scan's voxels (else SEGFM_BAD_USAGE). */
segfm_status segfm_mask(const segfm_session *session, uint8_t *mask, size_t count, segfm_error *error);
/* The current logits, above 0 in the mask (where the window follows a box they are the model's less a level); -100 outside of
   what the model was shown (the scan's cropped foreground, or its part around the box) and before the first prompt, but at
   clicks. */
segfm_status segfm_logits(const segfm_session *session, float *logits, size_t count, segfm_error *error);
/* All objects of this scan, a label each, the current one last; where they overlap the later one has the voxel.
   SEGFM_BAD_USAGE without keep_objects. */
segfm_status segfm_labels(const segfm_session *session, uint16_t *labels, size_t count, segfm_error *error);

/* What the last box, click, undo, redo or reset did, also for those who check it against the reference. Boxes are
   {z0,y0,x0,z1,y1,x1}, inclusive; all -1: none. */
typedef struct segfm_report {
    int64_t crop[6]; /* foreground of the scan */
    int64_t box
        [6]; /* the object's, cut to the crop: the user's, grown by clicks where the window follows it, or guessed from the first one */
    int64_t zoom_box[6]; /* the box as given to the zoom-out pass, window coordinates; -1 when empty or none */
    int64_t region[6]; /* region of interest in the crop's coordinates; the upper bounds as the reference computes them:
                             they may equal the axis length */
    int64_t windows;   /* passes over the region that make the object; 0 where there is none */
    int64_t decoded;   /* passes that the decoder made now, the zoomed-out one included; … */
    int64_t encoded;   /* … windows that went through the image encoder for them … */
    int64_t reused;    /* … and those whose embedding was still there */
    int64_t changed;   /* voxels of the mask that are not what they were … */
    int64_t changed_box[6]; /* … and their bounds */
    int64_t inside;         /* voxels of the mask */
    int64_t corrected;      /* voxels that the newest click's correction wrote now; 0 when there was none */
    int64_t clicks;         /* of this object */
    int64_t objects;        /* finished by segfm_next_object */
    bool has_box, can_undo, can_redo;
    size_t bytes; /* of the session */
} segfm_report;
void segfm_last_report(const segfm_session *session, segfm_report *out);

#endif
