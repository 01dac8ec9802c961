/* weights: the model's parameters as bytes. Our raw-binary format (FORMAT.md), its reader and writer, the checkpoint
   readers (PyTorch zip files in three layouts, safetensors) and writer, and the formula model of the golden tests. Knows tensor
   names and shapes, runs no network. Works on memory; only the command-line tools touch files. */
#ifndef SEGFM_WEIGHTS_H
#define SEGFM_WEIGHTS_H

#include "../io/io.h"

/* ---- configuration ------------------------------------------------------------------------------------------- */

/* Everything about the network's sizes. Axes are (z, y, x). */
typedef struct weights_config {
    uint32_t spatial[3];        /* voxels of the input window */
    uint32_t patch[3];          /* voxels of a patch; divides spatial */
    uint32_t dim;               /* width of the image encoder, of the prompts and of the decoder */
    uint32_t depth, heads, mlp; /* image encoder */
    uint32_t decoder_depth, decoder_heads, decoder_mlp; /* two-way transformer */
    uint32_t decoder_cross_dim;                         /* inner width of its cross-attentions (dim/2) */
    uint32_t mask_tokens;                               /* 4 */
    uint32_t iou_hidden, iou_layers;                    /* IoU head */
    uint32_t hyper_layers;                              /* layers of each mask token's MLP (inner width dim) */
    uint32_t up1, up2;                                  /* channels after the transposed convolutions */
    uint32_t gru_blocks, gru_hidden, topk;              /* corrector; gru_blocks 0: none, topk its K */
    uint32_t text_dim;                                  /* width of the text encoder's output; 0: none */
    /* 0: the window shows the whole scan, then parts of it (SPEC 4). Else it follows the box: it shows the box and so many
       percent of its extent, at least two voxels, on each side, resized. */
    uint32_t frame;
} weights_config;

/* The sizes of the golden tests: "tiny", "full" (SPEC 2); NULL when there is no such name. */
const weights_config *weights_named_config(const char *name);
/* SEGFM_BAD_INPUT with the first contradiction (patch does not divide spatial, heads do not divide dim, a zero, a size
   beyond 2^20, …). */
segfm_status weights_check_config(const weights_config *c, segfm_error *error);

/* ---- what tensors a configuration has ------------------------------------------------------------------------ */

enum { WEIGHTS_MAX_DIMS = 5, WEIGHTS_NAME_MAX = 128 };

typedef struct weights_spec {
    char name[WEIGHTS_NAME_MAX]; /* checkpoint path without the "model." or "module." prefix */
    int ndim;
    size_t shape[WEIGHTS_MAX_DIMS];
    bool required; /* false (the corrector's second head, fc_coord): all of these are in a file or none. Text is there
                      exactly when text_dim > 0 */
} weights_spec;

/* The i-th tensor of the configuration, in file order; false when i is past the last. The one list of names and
   shapes: conversion, checking and the formula model all use it. */
bool weights_spec_at(const weights_config *c, size_t i, weights_spec *out);

/* ---- the format ---------------------------------------------------------------------------------------------- */

typedef struct weights_tensor {
    const char *name; /* terminated, in the file's bytes */
    io_dtype dtype;   /* IO_F32 or IO_F16 */
    int ndim;
    size_t shape[WEIGHTS_MAX_DIMS];
    size_t count;
    const unsigned char *data; /* little-endian, 64-byte aligned relative to the file's start */
} weights_tensor;

/* An opened weights file. The bytes must outlive it. */
typedef struct weights_file {
    const unsigned char *bytes;
    size_t size;
    weights_config config;
    uint32_t format_version;
    uint64_t content_hash;  /* as stored; weights_verify recomputes it */
    const char *provenance; /* terminated UTF-8 text */
    const char *variant;    /* "seed" or "upstream" */
    weights_tensor *tensors;
    size_t count;
} weights_file;

/* Checks header, table, every name, shape and offset against the configuration; nothing is copied but the table. (The next
   three: table.c.) */
segfm_status weights_open(const unsigned char *bytes, size_t n, weights_file *out, segfm_error *error);
void weights_close(weights_file *w);
/* The tensor of that name, or NULL (binary search). */
const weights_tensor *weights_find(const weights_file *w, const char *name);
/* The same without memory, and without anything to close: `tensors` is NULL, and tensors are read out of the file's table
   anew each time. (This and all below but the writer: format.c.) */
segfm_status weights_open_bare(const unsigned char *bytes, size_t n, weights_file *out, segfm_error *error);
/* Tensor i of either kind of open file, in file order; i < w->count. */
weights_tensor weights_at(const weights_file *w, size_t i);
/* The tensor of that name → *out; false: there is none. Looks at one after the other. */
bool weights_look_up(const weights_file *w, const char *name, weights_tensor *out);
/* Bytes of its data in the file. */
size_t weights_tensor_bytes(const weights_tensor *t);
/* Recomputes the hashes: SEGFM_BAD_INPUT naming the first tensor whose data differ, or hold a value that is not finite.
   weights_open has done so for the header only, which takes microseconds. */
segfm_status weights_verify(const weights_file *w, segfm_error *error);
/* Elements first … first + count − 1 widened to `real`; false when one of them is not finite. */
bool weights_read(const weights_tensor *t, size_t first, size_t count, real *out);
/* The same as they are stored, of a float16 tensor. */
bool weights_read_half(const weights_tensor *t, size_t first, size_t count, uint16_t *out);
/* After one of them was false: SEGFM_BAD_INPUT naming tensor and index of the first value that is not finite. */
segfm_status weights_check_finite(const weights_tensor *t, segfm_error *error);
/* Its count elements widened to `real`, checked. */
segfm_status weights_load(const weights_tensor *t, real *out, segfm_error *error);

/* The writer (write.c). Where it gets a tensor's values: fills out[count] with the values of tensor `spec` in C order. */
typedef segfm_status weights_source(void *user, const weights_spec *spec, size_t count, float *out, segfm_error *error);
/* Receives the file piece by piece, front to back. */
typedef segfm_status weights_sink(void *user, const void *bytes, size_t n, segfm_error *error);
/* has (may be NULL: none is): whether an optional tensor is there. Values are asked for twice (hash, then data), one
   tensor at a time, so that memory stays at one tensor. half: matrices are stored as f16; vectors and the Fourier
   features' frequencies stay f32. Values that are not finite (or too large for f16) are refused by tensor and index. */
typedef struct weights_write_options {
    bool half;
    const char *variant;    /* "seed" or "upstream" */
    const char *provenance; /* free text */
    bool (*has)(void *user, const weights_spec *spec);
} weights_write_options;
segfm_status weights_write(const weights_config *c, const weights_write_options *options, weights_source *source,
                           void *source_user, weights_sink *sink, void *sink_user, segfm_error *error);
/* A sink that appends to an io_buffer (user = io_buffer *). */
segfm_status weights_sink_buffer(void *user, const void *bytes, size_t n, segfm_error *error);

/* ---- checkpoints (checkpoint.c, safetensors.c) --------------------------------------------------------------- */

/* What `convert` is told beside the file, because shapes alone do not tell it. Zeros mean: what the checkpoint says of itself
   (one that weights_export has written), else the defaults (32,256,256), (4,16,16), 12, 8, and K as the tensors have it. */
typedef struct weights_hints {
    uint32_t spatial[3], patch[3], heads, decoder_heads, topk, frame;
} weights_hints;

/* One tensor of a safetensors file; name (no terminator) and data are in the file's bytes, little-endian, C order. */
typedef struct weights_safetensor {
    const char *name;
    size_t name_length;
    io_dtype dtype;
    int ndim;
    size_t shape[IO_MAX_DIMS];
    const unsigned char *data;
    size_t begin, end; /* offsets in the data section */
} weights_safetensor;
bool weights_is_safetensors(const unsigned char *bytes, size_t n);
/* Every tensor of the file, in the order of their data. Free *out. The JSON must be exactly what the format allows: no
   repeated keys, no escapes in names, offsets that follow each other from 0 to the end, sizes that match type and shape. */
segfm_status weights_safetensors_parse(const unsigned char *bytes, size_t n, weights_safetensor **out, size_t *count,
                                       segfm_error *error);

typedef struct weights_checkpoint weights_checkpoint;
/* Reads a PyTorch zip checkpoint in any of the three layouts of SPEC 10, or a safetensors file (recognised by content).
   Every tensor must be known: unknown, missing, misshapen or non-finite ones are refused by name; the ones known to be
   unused (prompt_encoder.mask_downscaling.*, text_encoder.clip_text_model.*, optimizer state) are passed over.
   Reads float32, float16, bfloat16 and float64; non-contiguous strides are followed. The bytes must outlive it. */
segfm_status weights_checkpoint_open(const unsigned char *bytes, size_t n, const weights_hints *hints,
                                     weights_checkpoint **out, segfm_error *error);
void weights_checkpoint_close(weights_checkpoint *c);
const weights_config *weights_checkpoint_config(const weights_checkpoint *c);
/* "PyTorch checkpoint, layout (a)", … */
const char *weights_checkpoint_kind(const weights_checkpoint *c);
/* What a checkpoint that weights_export has written says of the weights file it was; NULL: it is not one. */
const char *weights_checkpoint_variant(const weights_checkpoint *c);
const char *weights_checkpoint_provenance(const weights_checkpoint *c);
/* For weights_write: source and has; user = weights_checkpoint *. */
segfm_status weights_checkpoint_source(void *user, const weights_spec *spec, size_t count, float *out,
                                       segfm_error *error);
bool weights_checkpoint_has(void *user, const weights_spec *spec);

/* ---- export (export.c) --------------------------------------------------------------------------------------- */

/* Writes the file, after weights_verify, as a PyTorch checkpoint in layout (c):

     {'model_state_dict': {'model.<name>': float32 tensor, …},
      'segfm': {'spatial': (z,y,x), 'patch': (z,y,x), 'heads': n, 'decoder_heads': n, 'variant': …, 'provenance': …}}

   float16 tensors widen. prompt_encoder.mask_downscaling.*, which the published class has and never uses, are there as
   zeros, so that the tensors load strictly; its text model (text_encoder.clip_text_model.*) is not, and neither is the text
   prompt's end where text_dim is 0. weights_checkpoint_open reads the file, and weights_write of that gives the content
   hash of w again (with half, where w was written with it). Memory: a tensor's, if it is float16. */
segfm_status weights_export(const weights_file *w, weights_sink *sink, void *sink_user, segfm_error *error);

/* ---- the formula model (formula.c) --------------------------------------------------------------------------- */

/* u_i of the stream `name` in [0,1), i = 0…: FNV-1a-64 of the name seeds a splitmix64 counter, 24 bits are kept.
   The formula that regenerates every weight and input of the golden tests. */
double weights_uniform(const char *name, uint64_t i);
/* For weights_write: the value of each element by the formula's table of kinds, with the stream "model.<name>"; user is not used. */
segfm_status weights_formula_source(void *user, const weights_spec *spec, size_t count, float *out, segfm_error *error);

#endif
