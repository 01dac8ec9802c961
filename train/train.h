/* train: how a model learns. Phantoms, cases and samples, the loss of an example and its gradients, initial weights.
   Everything random is drawn from a counter-based generator: a draw is a function of (seed, step, sample, how many before),
   so that any sample can be made again alone. Knows no files: tools/train.c reads and writes. */
#ifndef SEGFM_TRAIN_H
#define SEGFM_TRAIN_H

#include "../nn/segvol/segvol.h"
#include "../vol/vol.h"

/* ---- random.c ------------------------------------------------------------------------------------------------ */

typedef struct train_random {
    uint64_t key, counter;
} train_random;
/* Streams of different (seed, step, sample) have nothing in common. */
train_random train_random_at(uint64_t seed, uint64_t step, uint64_t sample);
uint64_t train_random_bits(train_random *r);
double train_random_uniform(train_random *r);                          /* [0, 1), 53 bits */
double train_random_between(train_random *r, double low, double high); /* [low, high) */
uint64_t train_random_below(train_random *r, uint64_t n);              /* 0 … n − 1, without bias; n ≥ 1 */
double train_random_normal(train_random *r);                           /* mean 0, deviation 1 */
/* An index of `count` weights, each as likely as its share of the sum. */
size_t train_random_choice(train_random *r, const double *weights, size_t count);

/* ---- phantom.c ----------------------------------------------------------------------------------------------- */

/* A labelled scan in memory. Free with train_scan_free. */
typedef struct train_scan {
    vol_shape shape;
    double spacing[3]; /* mm, z,y,x */
    float *voxels;
    uint16_t *labels; /* 0: background */
    unsigned classes; /* labels are 1 … classes, each of which is somewhere */
} train_scan;
void train_scan_free(train_scan *s);

enum { TRAIN_PHANTOM_SMALLEST = 8, TRAIN_PHANTOM_LARGEST = 1024 }; /* voxels along an axis */
typedef struct train_phantom_options {
    int64_t smallest[3], largest[3]; /* voxels along z, y, x; 0: the defaults */
} train_phantom_options;
/* Phantom `number` of an endless series: scans of random anatomy as CT, MR, PET, ultrasound or a microscope would show it,
   with 1 to 8 classes of at least 100 voxels each. A function of seed, number and options; options NULL: the defaults. */
segfm_status train_phantom(uint64_t seed, uint64_t number, const train_phantom_options *o, int threads, train_scan *out,
                           segfm_error *error);

/* ---- cases (case.c) ------------------------------------------------------------------------------------------ */

/* A scan made ready to draw samples from: normalised and cropped to its foreground (SPEC 3), labels as runs. */
typedef struct train_run_length {
    uint32_t start, count; /* raster indices in the cropped shape; of one row, in ascending order */
} train_run_length;
typedef struct train_class {
    unsigned label;
    uint64_t voxels;
    vol_box box;       /* its bounds, in the cropped shape */
    vol_box slice_box; /* vol_mask_prompt_box: y and x from the slice of its median voxel */
    train_run_length *runs;
    size_t run_count;
} train_class;
typedef struct train_case {
    vol_shape shape; /* cropped */
    double spacing[3];
    real *image; /* 0 … 1; in one piece of memory with the classes and their runs */
    train_class *classes;
    size_t class_count;
} train_case;
/* voxels, labels (shape). min_voxels, of the foreground: smaller classes are left out. SEGFM_BAD_INPUT: a voxel is not
   finite (its coordinates are named), all have one value, or the foreground has no class. */
segfm_status train_case_make(const float *voxels, const uint16_t *labels, vol_shape shape, const double spacing[3],
                             uint64_t min_voxels, int threads, train_case *out, segfm_error *error);
void train_case_free(train_case *c);
size_t train_case_bytes(const train_case *c);

/* ---- samples (sample.c) -------------------------------------------------------------------------------------- */

/* The transform chain of SPEC 8. Probabilities are of a sample. */
typedef struct train_augmentation {
    double resize, crop;       /* weights: the whole resized to the window; a crop of the window's size (1, 3) */
    double positive, negative; /* weights of a crop's middle: in the object, outside of it (3, 1) */
    double flip;               /* probability per axis (0.2) */
    double scale, scale_range; /* intensity · (1 + U(−range, range)): probability, range (0.2, 0.2) */
    double shift, shift_range; /* intensity + U(−range, range) (0.2, 0.2) */
    double slice_box;          /* probability: the box is vol_mask_prompt_box's, not the bounds (0.5) */
    unsigned frame;      /* not 0: the window follows the box (weights_config), and there is no other resize or crop */
    double frame_loose;  /* then every other box is larger, by up to this share of its extent on each side (0) … */
    double frame_shift;  /* … every fourth is moved by up to this share along each axis (0) … */
    double frame_jitter; /* … and each side is shifted by up to this share (0.05); … */
    double frame_grow;   /* … probability that it grows to hold 1 to 3 voxels of the object, as by clicks (0) */
    unsigned box_jitter; /* largest shift of the box, in 256ths of the window's size (2) */
} train_augmentation;
train_augmentation train_augmentation_default(void);

/* One example of a window. The caller owns the arrays (spatial). Box: bounds of what the window shows of the object, or those
   of its middle slice (vol_mask_prompt_box), then extended in y and x. Framed: vol_zoom_box of the box that the window
   follows, those of the whole object or its middle slice with each side shifted, or grown; image: vol_zoom and vol_contrast. */
typedef struct train_sample {
    real *image;
    uint8_t *truth; /* 1: inside */
    real box[6];    /* z0,y0,x0,z1,y1,x1 in the window, inclusive */
    bool empty;     /* the window shows nothing of the object (box: −1) */
} train_sample;
size_t train_draw_bytes(const vol_shape *window);
/* memory: scratch of train_draw_bytes, NN_ALIGN-aligned. Draws again, at most ten times, while the window shows nothing. */
void train_draw(const train_case *c, size_t class_index, const vol_shape *window, const train_augmentation *a,
                train_random *random, void *memory, train_sample *out);

/* ---- the loss of an example (network.c) ---------------------------------------------------------------------- */

/* A tensor of the model in the flat arrays of parameters, gradients, moments, where they lie in file order without gaps. */
typedef struct train_tensor {
    weights_spec spec;
    size_t at, count;
    bool
        learns; /* false: never gets a gradient (the Fourier features' matrix, the IoU head, text), or shall not change */
    bool touched; /* has got a gradient since train_network_plan; PyTorch's optimiser passes over one that has not */
} train_tensor;

/* Parts of the model that are not trained; no gradients are computed below them where that saves time. */
typedef enum train_parts {
    TRAIN_ENCODER = 1,   /* image_encoder.* */
    TRAIN_DECODER = 2,   /* prompt_encoder.*, mask_decoder.* */
    TRAIN_CORRECTOR = 4, /* gru_blocks.* */
    TRAIN_ALL = 7
} train_parts;

typedef struct train_network_options {
    bool offsets;   /* with the corrector's second head (fc_coord) */
    bool recompute; /* keeps only the blocks' inputs and computes the rest again: less memory, the same bits */
    int max_corrections;
    bool
        all_clicks; /* the second decoder pass is told all clicks of the example, as a session is; SPEC 8: the last one */
    bool
        chain; /* the second pass's clicks are simulated on masks of the decoder, each told of the clicks before, as in a
                        session without the corrector; else on those that the corrector leaves. Needs all_clicks */
    bool slice_dice; /* Dice per slice: upstream's for a batch of one */
    vol_variant variant;
    unsigned parts; /* train_parts: which learn */
} train_network_options;

/* What is wanted of an example. */
typedef struct train_objective {
    int corrections;            /* GRU steps: 0 … max_corrections */
    bool points;                /* stage box_points: also a second decoder pass, with the box and clicks */
    real consistency, boundary; /* weights of these losses; 0: not used */
} train_objective;

/* Values of the losses. total = (dice + bce [+ dice_points + bce_points]) / passes + consistency·weight + boundary·weight */
typedef struct train_losses {
    double total, dice, bce, dice_points, bce_points, consistency, boundary;
} train_losses;

typedef struct train_network train_network;
struct train_network {
    weights_config config;
    train_network_options options;
    size_t count; /* of parameters */
    real *parameters, *gradients;
    train_tensor *tensors;
    size_t tensor_count;
    /* The clicks and the points of corrections are those of the example before instead of new ones: they jump where
       parameters hardly change, and derivatives are at fixed ones. For tests. */
    bool replay;
    struct train_inside *inside;
};

/* Lays everything that a step needs out in the arena (with a counting arena, base NULL, only its size). The parameters are
   not set. */
segfm_status train_network_plan(train_network *n, const weights_config *config, const train_network_options *options,
                                int threads, nn_arena *arena, segfm_error *error);
/* To be called after the parameters have changed, before the next example. */
void train_network_refresh(train_network *n);
/* gradients += weight · the derivative of the example's loss. Corrections use simulated clicks (VOL_CLICK_FIRST, upstream
   VOL_CLICK_OFFICIAL). */
void train_network_backward(train_network *n, const train_sample *sample, const train_objective *objective, real weight,
                            train_losses *out);
/* The same without gradients. */
void train_network_loss(train_network *n, const train_sample *sample, const train_objective *objective,
                        train_losses *out);

/* ---- initial weights (initial.c) ----------------------------------------------------------------------------- */

/* Sets the parameters to what PyTorch's constructors draw, by kind of tensor: linear and transposed convolutions and their
   biases U(±1/√fan in), the GRU U(±1/√hidden), norms 1 and 0, embeddings normal, the Fourier features' matrix a period of one
   axis for each feature; position embeddings normal with deviation 0.02, as MONAI has them; the second head (fc_coord) 0, so
   that no point moves at first. A model whose window follows the box is then given a head start, if its sizes allow: initial.c
   says what of. */
void train_initial(train_network *n, uint64_t seed);

/* ---- the optimiser (optimiser.c) ----------------------------------------------------------------------------- */

/* The learning rate: a linear warm-up, then constant, or half a cosine from `rate` down to `floor` at step `steps`. */
typedef struct train_schedule {
    double rate, floor;
    uint64_t warmup, steps;
    bool cosine;
} train_schedule;
double train_rate(const train_schedule *s, uint64_t step); /* of step `step`, from 0 */

typedef struct train_optimiser {
    nn_adamw adamw;  /* its rate is set with each step */
    double clip;     /* largest norm of all gradients together; 0: none */
    real *m, *v;     /* (count) the moments */
    uint64_t *steps; /* (tensor_count) steps that a tensor has made: as in PyTorch, none before it has got a gradient */
    nn_run run;
} train_optimiser;
/* Lays it out in the arena, with everything 0 (when not counting); n is planned, or counted. */
void train_optimiser_plan(train_optimiser *o, const train_network *n, int threads, nn_arena *arena);
/* Gradients to 0, before the examples of a step. */
void train_optimiser_clear(train_network *n);
/* The norm of the gradients; if it is finite, one step with them, clipped as torch.nn.utils.clip_grad_norm_ does. If it is
   not, nothing changes. train_network_refresh is left to the caller. */
double train_optimiser_step(train_optimiser *o, train_network *n, double rate);

/* ---- which sample is which (order.c) ------------------------------------------------------------------------- */

/* Where the samples come from. Number i of a run is a function of this and i alone. */
typedef struct train_order {
    uint64_t seed;
    size_t cases;         /* 0: phantoms only */
    double phantoms;      /* share of samples that are of phantoms, 0 … 1; with no cases all are */
    uint64_t per_phantom; /* samples of one phantom, one after the other; ≥ 1 */
    size_t *turn;         /* (cases) memory of the caller: the order of the cases … */
    uint64_t pass;        /* … in this pass */
    bool ready;           /* turn holds it */
} train_order;
typedef struct train_place {
    bool phantom;
    uint64_t number; /* of the phantom; of a case its index */
    uint64_t turn;   /* the class is this modulo the number of classes, so that each gets its turn */
} train_place;
/* The cases come in passes, each in an order of its own; in pass p every case shows its class number p, so that classes
   cycle over those that a case has (SPEC 8). */
train_place train_order_at(train_order *o, uint64_t i);

/* Streams of train_random_at beside those of a step's samples: what is drawn for a step, a pass, a tensor as a whole. */
#define TRAIN_STREAM_STEP (UINT64_MAX - 0)
#define TRAIN_STREAM_PASS (UINT64_MAX - 1)
#define TRAIN_STREAM_TENSOR (UINT64_MAX - 2)

#endif
