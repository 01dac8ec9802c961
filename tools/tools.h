/* tools: the segfm command. One file per subcommand, each a function that returns a status and leaves its sentence in
   *error; main.c prints it and makes it the exit code. Only tools/ and io/ touch files, only tools/ prints. */
#ifndef SEGFM_TOOLS_H
#define SEGFM_TOOLS_H

#include <stdio.h>

#include "../nn/segvol/segvol.h"
#include "../segfm.h"
#include "../vol/vol.h"

/* argv[0] is the subcommand's name. */
typedef segfm_status tool_command(int argc, char **argv, segfm_error *error);
tool_command command_segment, command_predict, command_convert, command_info, command_trace, command_compare,
    command_metrics, command_eval, command_train, command_phantom, command_session, command_selftest, command_bench;

/* ---- options (options.c) ------------------------------------------------------------------------------------- */

enum { TOOL_MAX_LIST = 1024 };

typedef struct tool_list {
    const char *items[TOOL_MAX_LIST];
    int count;
} tool_list;

/* One option of a subcommand; exactly one target is set. `name` with its dashes: "--box", "-o". */
typedef struct tool_option {
    const char *name;
    bool *flag;         /* present or not */
    const char **value; /* takes a value; a second one is refused */
    tool_list *list;    /* takes a value, may be repeated */
} tool_option;

/* Options and positional arguments may be mixed; "--" ends the options. options: terminated by a NULL name. --threads N
   and --quiet are known everywhere and need no entry. Exactly `positionals` positional arguments are stored (fewer or
   more: SEGFM_BAD_USAGE naming the first). */
typedef struct tool_common {
    int threads; /* 0: all */
    bool quiet;
} tool_common;
segfm_status tool_parse(int argc, char **argv, const tool_option *options, const char **positional, int positionals,
                        tool_common *common, segfm_error *error);
/* "the option %s is needed" when value is NULL. */
segfm_status tool_need(const char *value, const char *option, segfm_error *error);
/* A whole number in [low, high]; `what` names the option in the error. */
segfm_status tool_integer(const char *text, const char *what, int64_t low, int64_t high, int64_t *out,
                          segfm_error *error);
/* A finite decimal number. */
segfm_status tool_number(const char *text, const char *what, double *out, segfm_error *error);
/* Exactly n numbers separated by commas. */
segfm_status tool_integers(const char *text, const char *what, int n, int64_t low, int64_t high, int64_t *out,
                           segfm_error *error);
segfm_status tool_numbers(const char *text, const char *what, int n, double *out, segfm_error *error);

/* ---- shared by subcommands (common.c) ------------------------------------------------------------------------ */

/* A model with the bytes it came from. All zero = none. */
typedef struct tool_model {
    io_mapping mapping;
    io_buffer generated; /* of a formula model */
    segfm_model *model;
} tool_model;
/* path NULL: the default model. "formula:tiny" and "formula:full" make the formula's. clicks: with the corrector; says so
   when there is none. */
segfm_status tool_model_open(const char *path, const tool_common *common, bool clicks, tool_model *out,
                             segfm_error *error);
void tool_model_close(tool_model *m);
/* The bytes of a weights file or formula model, without building a model of them. */
segfm_status tool_weights_bytes(const char *path, tool_model *out, const unsigned char **bytes, size_t *size,
                                segfm_error *error);

/* The dialogue of `segfm session`: standard input's commands to its end, or to quit. options: of each scan's session, with
   keep_objects. */
segfm_status tool_session(const segfm_model *model, const segfm_options *options, segfm_error *error);

/* For segfm_model_options and segvol_model_bind; user: the tool_model that holds the bytes, or NULL. */
segfm_bytes_done tool_bytes_done;

/* The networks alone, without a session: for the subcommands that look inside. (network.c) */
typedef struct tool_network {
    segvol_model net;
    segvol_workspace workspace;
    real *embedding, *window, *logits; /* (segvol_image_count), (window), (window) */
    void *memory;
} tool_network;
/* From the bytes of a weights file; corrector as in segvol_model_bind, max_sparse as in segvol_workspace_plan. source: what holds the bytes, as
   tool_weights_bytes filled it, to let them go while they are read; or NULL. */
segfm_status tool_network_open(const unsigned char *bytes, size_t size, bool corrector, tool_model *source,
                               size_t max_sparse, int threads, tool_network *out, segfm_error *error);
void tool_network_close(tool_network *n);
/* Writes folder/name.npy with the build's reals. */
segfm_status tool_write_tensor(const char *folder, const char *name, int ndim, const size_t *shape, const real *data,
                               segfm_error *error);
/* Its elements as reals; free *out. */
segfm_status tool_array_reals(const io_array *array, real **out, segfm_error *error);

/* What `trace --correct` is told; NULL: not given. (trace_correct.c) */
typedef struct tool_correct {
    const char *logits, *labels, *steps, *variant;
    tool_list clicks;
} tool_correct;
segfm_status tool_trace_correct(const tool_correct *correct, const char *weights, const char *folder,
                                const tool_common *common, segfm_error *error);

/* A weights file of the formula for any configuration, in memory. */
segfm_status tool_formula_bytes(const weights_config *config, io_buffer *out, segfm_error *error);

/* A scan in memory: one volume as floats, with the header it came with. All zero = none. */
typedef struct tool_scan {
    io_nifti image; /* header and geometry; a made one for npz */
    float *voxels;  /* (z, y, x) */
    size_t count;
    int64_t shape[3]; /* z, y, x */
} tool_scan;
/* NIfTI or a challenge .npz (its `imgs` and `spacing`). volume: the text of --volume or NULL; a 4-D scan needs it. */
segfm_status tool_scan_open(const char *path, const char *volume, tool_scan *out, segfm_error *error);
/* Frees the voxels, keeps header and shape. */
void tool_scan_release(tool_scan *s);
void tool_scan_close(tool_scan *s);
/* The text of a prompt, as the command line and `session` take it: voxels x,y,z or, with world, millimetres through the
   scan's affine. x0,y0,z0,x1,y1,z1 → {z0,y0,x0,z1,y1,x1}; x,y,z,+ or x,y,z,- → {z,y,x} and which it is. `what` names it in the
   error. */
segfm_status tool_read_box(const char *text, const char *what, bool world, const io_nifti *image, int64_t box[6],
                           segfm_error *error);
segfm_status tool_read_click(const char *text, const char *what, bool world, const io_nifti *image, int64_t voxel[3],
                             bool *foreground, segfm_error *error);
/* Has an npz archive an array of that name? */
bool tool_npz_has(const io_zip *zip, const char *name);
/* The npy file of an array of an npz archive. SEGFM_BAD_INPUT when there is none of that name. */
segfm_status tool_npz_bytes(const io_zip *zip, const char *name, io_buffer *bytes, segfm_error *error);
/* An array of an npz archive: *bytes holds what *array points into. SEGFM_BAD_INPUT when there is none of that name. */
segfm_status tool_npz_array(const io_zip *zip, const char *name, io_buffer *bytes, io_array *array, segfm_error *error);
/* spacing (x,y,z) of an npz, 1 mm where it has none. */
segfm_status tool_npz_spacing(const io_zip *zip, double spacing[3], segfm_error *error);

/* A label map. All zero = none. (labels.c) */
typedef struct tool_labels {
    vol_shape shape;
    double spacing[3]; /* mm, z,y,x; 0 where the file does not say */
    uint16_t *voxels;
    size_t count;
} tool_labels;
enum { TOOL_LABELS = UINT16_MAX + 1 };
/* NIfTI, or an .npz: its array `name`, or `other` (or NULL) where it has none. */
segfm_status tool_labels_open(const char *path, const char *name, const char *other, tool_labels *out,
                              segfm_error *error);
void tool_labels_close(tool_labels *l);
/* The truth lies on a grid of this shape and spacing (z,y,x; 0: not known), which is `what`'s. Where only one has a
   spacing it is both's, where none has one it is 1 mm. */
segfm_status tool_labels_match(tool_labels *truth, vol_shape shape, const double spacing[3], const char *what,
                               segfm_error *error);
/* boxes[label] (TOOL_LABELS) = the label's box. */
void tool_labels_boxes(const tool_labels *l, vol_box *boxes);
/* mask (the box's shape) = where the map has the label. */
void tool_labels_extract(const tool_labels *l, vol_box box, unsigned label, uint8_t *mask);
/* Labels up to `largest` as they are written: made uint8 in place where that holds them. Returns their type. */
io_dtype tool_labels_pack(uint16_t *voxels, size_t count, unsigned largest);

/* A case of the challenge: the scan and, per class, a box and/or clicks. (challenge.c) */
typedef struct tool_challenge {
    io_mapping file;
    io_zip zip;
    tool_scan scan;
    io_buffer box_bytes, click_bytes, order_bytes, previous_bytes;
    io_pickle boxes, clicks, order; /* nodes NULL: the case has none */
    io_array order_texts;           /* clicks_order when it holds strings; count 0: it does not */
    bool has_previous;
    io_array previous; /* prev_pred, the scan's shape: the labels of the step before */
    uint32_t classes;  /* of the prompts; 0: there are none */
} tool_challenge;
segfm_status tool_challenge_open(const char *path, tool_challenge *out, segfm_error *error);
void tool_challenge_close(tool_challenge *c);
/* Writes labels up to `largest`, of the scan's shape, as `segs`; the buffer serves to pack them. */
segfm_status tool_challenge_write(const char *path, const tool_scan *scan, uint16_t *labels, unsigned largest,
                                  segfm_error *error);
/* The box of class i (from 0) as {z0,y0,x0,z1,y1,x1}: the rectangle on the middle slice, extruded. */
segfm_status tool_challenge_box(const tool_challenge *c, uint32_t i, bool *has, int64_t box[6], segfm_error *error);
/* Gives the session, which has the scan, the prompts of class i. *prompted: there were any. */
segfm_status tool_challenge_prompt(const tool_challenge *c, uint32_t i, segfm_session *session, bool *prompted,
                                   segfm_error *error);
/* Clicks that the sessions of `predict` and `session` have room for. */
enum { TOOL_MAX_CLICKS = 1024 };

/* A picture of the three planes through the middle of the box (without one: of the mask): the scan in grey, the mask
   tinted, the box outlined. box (z0,y0,x0,z1,y1,x1) or NULL. (overlay.c) */
segfm_status tool_overlay(const char *path, const tool_scan *scan, const uint8_t *mask, const int64_t *box,
                          segfm_error *error);

/* Hands standard output over; an error if any of what was printed so far could not be written. */
segfm_status tool_flush(segfm_error *error);
/* Milliseconds of a clock that only runs forwards. */
double tool_milliseconds(void);
/* A progress callback for segfm_options that draws a line on stderr when it is a terminal. */
segfm_progress tool_progress;

/* Creates the folder if it is missing. */
segfm_status tool_make_folder(const char *path, segfm_error *error);
/* out = folder/name; SEGFM_BAD_USAGE when it does not fit. */
segfm_status tool_path(char *out, size_t capacity, const char *folder, const char *name, segfm_error *error);
/* Names in a folder that end with `suffix`, sorted by bytes. Free with tool_names_free. */
typedef struct tool_names {
    char **items;
    size_t count;
} tool_names;
segfm_status tool_list_folder(const char *folder, const char *suffix, tool_names *out, segfm_error *error);
/* Appends a copy. */
segfm_status tool_names_add(tool_names *names, const char *name, segfm_error *error);
void tool_names_free(tool_names *names);
bool tool_ends_with(const char *text, const char *suffix);
/* Both paths lead to one existing file or folder. */
bool tool_same_file(const char *a, const char *b);
/* Labelled scans: images.items[i] and labels.items[i] are the files of case i, called names.items[i] in results. All zero =
   none. (cases.c) */
typedef struct tool_cases {
    tool_names names, images, labels;
} tool_cases;
segfm_status tool_cases_add(tool_cases *l, const char *name, const char *image, const char *label, segfm_error *error);
/* Adds what a list has: per line an image, a tab and a label map. At least one. */
segfm_status tool_cases_read(const char *path, tool_cases *out, segfm_error *error);
void tool_cases_free(tool_cases *l);

/* The plain evaluation of `segfm eval` (eval.c): dice (clicks + 1) = after the box and after each click the means over cases
   of the means over classes, NAN where there is none. A bad case is left out and counted: the first is the error that is
   returned, others are named on stderr. SEGFM_CANCELLED when `progress` said so. */
typedef struct tool_evaluation {
    int clicks, threads;
    int64_t min_voxels;
    segfm_variant variant;
    segfm_progress *progress;
} tool_evaluation;
segfm_status tool_evaluate(const segfm_model *model, const tool_cases *cases, const tool_evaluation *q, double *dice,
                           size_t *bad, segfm_error *error);

/* SEGFM_BAD_USAGE unless the path (or NULL) names a NIfTI file. */
segfm_status tool_check_nifti_name(const char *path, segfm_error *error);
/* out = the other file of a .hdr/.img pair, or the path itself when it names none. */
segfm_status tool_sibling(const char *path, char *out, size_t capacity, segfm_error *error);
/* SEGFM_BAD_USAGE when writing `output`, or its sibling, would replace `input`; either may be NULL. */
segfm_status tool_keep_input(const char *input, const char *output, segfm_error *error);

#endif
