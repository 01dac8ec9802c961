#include <string.h>

#ifndef __wasi__ /* has none */
#include <signal.h>
#endif

#include "tools.h"

typedef struct command {
    const char *name;
    tool_command *run;
    const char *summary, *usage;
} command;

static const char common_usage[] = "  --threads N   threads to use (default: all)\n"
                                   "  --quiet       no progress, no remarks on stderr\n";

static const command commands[] = {
    {"segment", command_segment, "a scan, a box, clicks → a mask",
     "segfm segment -i SCAN [-w W] [--box x0,y0,z0,x1,y1,z1] [--click x,y,z,+|-]... -o MASK.nii.gz\n\n"
     "  -i SCAN       .nii, .nii.gz, .hdr/.img, or a challenge .npz\n"
     "  -w W          weights file, or formula:tiny, formula:full (default: the model that comes with segfm)\n"
     "  --box B       first and last voxel of the object along each axis, inclusive\n"
     "  --click C     a voxel and + (belongs to the object) or - (does not); applied in order, after the box\n"
     "  --world       the numbers of --box and --click are millimetres, through the scan's affine\n"
     "  --volume K    which volume of a 4-D scan (0-based)\n"
     "  -o MASK       labels 0/1, uint8, with the scan's geometry\n"
     "  --logits L    logits as float32; -100 outside of what the model was shown\n"
     "  --overlay FIG picture (PNG) of three planes through the box with the mask over the scan\n"
     "  --variant V   seed (default) or upstream (corrections as the published code makes them, for comparison)\n"
     "  --no-zoom     stop after the pass over the whole scan\n"},
    {"predict", command_predict, "a folder of challenge .npz files → their segmentations",
     "segfm predict IN_DIR OUT_DIR [-w W]\n\n"
     "  Every IN_DIR/*.npz (imgs, boxes and/or clicks) becomes OUT_DIR/*.npz with `segs`.\n"},
    {"convert", command_convert, "a PyTorch or safetensors checkpoint → a weights file, and back",
     "segfm convert CHECKPOINT -o W [--half] [--spatial 32,256,256] [--patch 4,16,16] [--heads 12]\n"
     "              [--decoder-heads 8] [--topk 200]\n"
     "segfm convert W -o X.pth\n\n"
     "  CHECKPOINT is .pth/.bin/.pt (flat, {'model': …} or {'model_state_dict': …}), .safetensors, or formula:tiny,\n"
     "  formula:full. --half stores matrices as float16. Sizes that tensors do not tell are options; axes are "
     "z,y,x.\n"
     "  -o X.pth or X.pt: the weights file W (or formula:tiny, formula:full) as a PyTorch checkpoint, float32:\n"
     "  torch.load gives {'model_state_dict': …, 'segfm': sizes, variant, provenance}. It needs no options on its way "
     "back,\n"
     "  which ends in the file it came from. prompt_encoder.mask_downscaling, which nothing runs, is all zeros.\n"},
    {"info", command_info, "what a weights file holds",
     "segfm info W [--tensors]\n\n"
     "  Sizes, variant, provenance, content hash (recomputed). --tensors lists the tensors.\n"},
    {"trace", command_trace, "every intermediate tensor as .npy",
     "segfm trace -w W --window WIN.npy [--box z0,y0,x0,z1,y1,x1] [--point z,y,x,LABEL]... --out DIR\n"
     "segfm trace -w W --correct LOGITS.npy (--labels TRUTH.npy | --click z,y,x,LABEL...) [--steps N]\n"
     "            [--variant seed|upstream] --out DIR\n\n"
     "  WIN.npy has the window's shape (z,y,x), or (B,1,z,y,x) with --box given B times. Array order z,y,x.\n"
     "  --correct  the GRU's correction of logits (z,y,x) or (1,1,z,y,x) of any size. For each step s from 0: "
     "click{s}\n"
     "             (z,y,x,label), gru_in{s} (2,K,8), coords{s} (2K,3, voxels), delta{s} (2K logits; upstream: "
     "prob{s}),\n"
     "             offset{s} (2K,3) where the weights have that head, corrected{s} (the logits after the step)\n"
     "  --labels   each step's click is simulated on the logits of that moment (5 steps unless --steps says "
     "otherwise;\n"
     "             seed stops where nothing is wrong); upstream: the truth's errors are sampled, as in its training\n"
     "  --click    a click for each step; upstream: of more than K likely errors those that torch.randperm draws "
     "after\n"
     "             torch.manual_seed(0)\n"},
    {"compare", command_compare, "two folders of tensors, one by one",
     "segfm compare DIR_A DIR_B [--atol A] [--rtol R] [--bits]\n\n"
     "  DIR_A, DIR_B  folders of .npy files, or .npz files; DIR_B is the reference\n"
     "  --atol, --rtol  |a-b| <= A + R*|b| must hold for every element (default 1e-5, 1e-5)\n"
     "  --bits        round both sides to float32; count equal elements, largest difference in ulps\n"},
    {"metrics", command_metrics, "how well a mask agrees with the truth",
     "segfm metrics --gt A --pred B [--tolerance 2] [--flat] [--json]\n\n"
     "  For every label: voxels, Dice (DSC), normalised surface Dice (NSD), 95 % Hausdorff distance (HD95) and "
     "average\n"
     "  surface distance (ASD: the mean of ASD_gt, from A's surface to B's, and ASD_pred, back), in millimetres by "
     "the\n"
     "  header's spacing; then the means over A's labels. What an empty mask leaves undefined is nan (JSON: null with "
     "a\n"
     "  reason), stays out of the means and is counted.\n\n"
     "  --gt, --pred  label maps: NIfTI, or challenge .npz (gts, segs)\n"
     "  --tolerance T millimetres within which surfaces agree for NSD (default 2)\n"
     "  --flat        contours of a single slice instead of surfaces\n"
     "  --json        one object on one line\n"},
    {"eval", command_eval, "boxes and simulated clicks on labelled scans: how good is the model?",
     "segfm eval (--pairs LIST.tsv | --images DIR [--gts DIR]) [-w W] [--clicks 5] --csv OUT.csv [--official]\n"
     "           [--save DIR] [--min-voxels 100] [--labels L,L…] [--loosen P] [--shift N] [--no-box]\n"
     "           [--by decoder,corrector,spread] [--looks 3] [--variant seed]\n\n"
     "  For every class of every case: a box, then clicks, each in the middle of the largest error that is left. "
     "After\n"
     "  each step DSC, NSD (2 mm), HD95, ASD (mean of both ways) of the class by itself, into a row of OUT.csv:\n"
     "  case, class, voxels, DSC_0.. (after the box, 1 click, ...), NSD_0.., HD95_0.., ASD_0.., DSC_AUC, NSD_AUC\n"
     "  (trapezoids over the clicks: at most 4 for 5), seconds_0.. . No error left: no click, the values stay. On "
     "stdout\n"
     "  the means over cases of the means over classes. HD95 and ASD of an empty prediction are nan: counted, and "
     "left\n"
     "  out of means. A bad case is named and left out; the exit code is then 3.\n\n"
     "  --pairs LIST    a line per case: image, tab, label map (what follows a second tab, empty lines and # are\n"
     "                  passed over, so is a first line `image` or `file`, tab, ...). Paths from the current folder "
     "or,\n"
     "                  where nothing is found there, from the list's\n"
     "  --images DIR    challenge .npz: imgs, spacing, boxes (the n-th is the n-th label's), gts\n"
     "  --gts DIR       gts are in files of the same names here\n"
     "  --clicks N      steps after the box (default 5)\n"
     "  --min-voxels N  smaller classes are not scored (default 100; with --official 1)\n"
     "  --labels L,L…   only these labels of the truth\n"
     "  --loosen P      moves each side of each box outwards by P percent of the box's extent, to the nearest voxel\n"
     "  --shift N       then moves the box by N voxels, rounded along each axis, in a random direction, which is "
     "always\n"
     "                  the same for an image's file name and a label. Bounds are clamped to the scan\n"
     "  --no-box        clicks only: step 0 finds nothing, the first click falls into the object's middle\n"
     "  --save DIR      DIR/NAME.nii.gz or .npz (segs): the last masks with the truth's labels, later classes over\n"
     "                  earlier ones; DIR/prompts.tsv: boxes and clicks as `segment` takes them\n"
     "  --official      as the challenge's script: all classes step by step in one label map, later ones over earlier\n"
     "                  ones; spacing x,y,z taken for z,y,x; its draw among equal clicks; NSD 0 for a case's step "
     "whose\n"
     "                  mean DSC is at most 0.2; no boxes in the file: nothing found at step 0\n"
     "  --by PARTS      what clicks go through: some of decoder,corrector,spread (default: what suits the model)\n"
     "  --looks N       at the box, where the window follows one: 1, 2 or 3 (default)\n"
     "  --variant V     seed (default) or upstream (corrections as the published code makes them)\n\n"
     "  The box where a file has none: z from the object's first to its last slice, x and y from its middle slice (of "
     "those\n"
     "  that have any of it).\n"},
    {"train", command_train, "labelled scans or phantoms → weights",
     "segfm train (--pairs LIST.tsv) --out DIR [--config FILE] [--init W] [--resume] [--steps N] [--seed S]\n"
     "segfm train --defaults [--config FILE]\n\n"
     "  Learns by AdamW: windows of the scans with boxes, simulated clicks and corrections. The same settings, scans "
     "and\n"
     "  seed give the same weights to the bit, with any number of threads, interrupted or not. Into DIR:\n"
     "  last.segfm       the weights; best.segfm: those that an evaluation found best (the mean of its DSC)\n"
     "  checkpoint.bin   all that --resume needs; log.csv: a line a step; evaluation.csv: a line an evaluation\n"
     "  tools/reference/curve.py DIR draws the two logs.\n\n"
     "  --pairs LIST  a line per scan: image, tab, label map, as `eval` takes it; a challenge .npz with imgs and gts "
     "is\n"
     "                both. A scan that is no good (unreadable, other shape than its labels, not finite, no class of\n"
     "                min_voxels) is named, counted and left out; without a good one the exit code is 3. All are kept\n"
     "                in memory: the scan's foreground as floats, its labels as runs. Not with `source phantoms`\n"
     "  --config FILE lines `key value` or `key = value`, # begins a remark; what is not in it has its default\n"
     "  --defaults    prints all keys with their values and what they mean: a FILE to start from\n"
     "  --init W      begins with these weights and their sizes. Where they have no corrector one can be added\n"
     "  --resume      goes on with the run in DIR, with its settings; where --config or --init are given again, all "
     "must\n"
     "                agree but steps, checkpoint_every and evaluate_every. Without a checkpoint the run begins\n"
     "  --steps N     instead of the key steps\n"
     "  --seed S      instead of the key seed\n\n"
     "  SIGINT and SIGTERM (Ctrl-C): the step is finished and saved, the exit code is 0; a second one kills. Killed "
     "at\n"
     "  any moment, a run can be resumed from its last checkpoint.\n"},
    {"phantom", command_phantom, "labelled synthetic scans, as many as wanted",
     "segfm phantom --out DIR --count N [--seed S] [--first K] [--size nx,ny,nz]\n\n"
     "  Random anatomy as CT, MR, PET, ultrasound or a microscope would show it: DIR/phantom-NNNN.nii.gz, its labels\n"
     "  DIR/phantom-NNNN_label.nii.gz (1 to 8 classes of at least 100 voxels), and DIR/list.tsv, which lists the "
     "pairs\n"
     "  for --pairs. A phantom is a function of seed, number and size alone.\n\n"
     "  --count N     so many\n"
     "  --seed S      of the series (default 0)\n"
     "  --first K     number of the first (default 0)\n"
     "  --size S      voxels along x, y and z (default: random, x and y 64 to 128, z 24 to 64)\n"},
    {"session", command_session, "a dialogue: open, box, click, undo, … one command a line, JSON answers",
     "segfm session [-w W]\n\n"
     "  Reads commands from standard input, answers each with one JSON object on a line of standard output:\n"
     "  ok or error, ms, voxels of the mask that changed, their bounds [x0,y0,z0,x1,y1,z1]; object_box: the object's\n"
     "  box, as clicks have made it grow, or as the first click lets guess it. A bad command changes nothing.\n"
     "  open [--volume K] SCAN        box [--world] x0,y0,z0,x1,y1,z1     click [--world] x,y,z,+|-\n"
     "  undo   redo   reset           next (another object, same scan)   status   quit\n"
     "  mask FILE   logits FILE       the current object; labels FILE: all objects, a label each\n"
     "  Empty lines and lines that begin with # are passed over.\n"},
    {"selftest", command_selftest, "the built-in conformance vectors",
     "segfm selftest [--full]\n\n"
     "  Prints a hash for each; exit 1 when one differs from the stored one. --full adds a layer at full size.\n"},
    {"bench", command_bench, "time of the stages",
     "segfm bench [--full | -w W] [--rounds N] [--csv] [--gemm | --sizes | --kernels | --serve]\n\n"
     "  Medians of N rounds (default 5) of encoder, decoder and upsampling; the formula's tiny model, with --full its\n"
     "  full-size one.\n"
     "  --csv     for machines: what,size,threads,milliseconds,gflops\n"
     "  --gemm    instead: matrix products of the full-size model and small ones, on 1 and on all threads\n"
     "  --sizes   instead: one full-size block for 128 to 4096 tokens, 1 to 12 windows one after the other\n"
     "  --kernels instead: products of 64 to 512, the other operators at small sizes and the full model's, in percent "
     "of best\n"
     "  --serve   instead: runs what standard input tells it, a side of `make bench` (bench/side.py)\n"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static const command *find_command(const char *name) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static segfm_status help(int argc, char **argv, segfm_error *error) {
    const command *c = argc > 1 ? find_command(argv[1]) : NULL;
    if (argc > 1 && c == NULL)
        return base_fail(error, SEGFM_BAD_USAGE, "unknown subcommand %s: see segfm help", argv[1]);
    if (c != NULL) {
        printf("%s%s", c->usage, common_usage);
        return SEGFM_OK;
    }
    puts("segfm: segments an organ or lesion in a 3-D scan from a box.\nusage: segfm SUBCOMMAND …\n");
    for (size_t i = 0; i < COMMANDS; i++) printf("  %-9s %s\n", commands[i].name, commands[i].summary);
    puts(
        "\nsegfm help SUBCOMMAND tells more. Voxel coordinates are 0-based x,y,z as viewers show them (trace: z,y,x).\n"
        "Exit codes: 0 done, 1 a comparison did not hold, 2 usage, 3 bad input, 4 memory, 5 could not write.\n"
        "Not a medical device: for research and teaching only.");
    return SEGFM_OK;
}

static segfm_status run(int argc, char **argv, segfm_error *error) {
    if (argc < 2) return base_fail(error, SEGFM_BAD_USAGE, "no subcommand: see segfm help");
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0) return help(argc - 1, argv + 1, error);
    if (strcmp(argv[1], "--version") == 0) {
        puts("segfm " SEGFM_VERSION " (" REAL_NAME ")");
        return SEGFM_OK;
    }
    const command *c = find_command(argv[1]);
    if (c == NULL) return base_fail(error, SEGFM_BAD_USAGE, "unknown subcommand %s: see segfm help", argv[1]);
    if (argc > 2 && strcmp(argv[2], "--help") == 0) return help(2, (char *[]){argv[0], argv[1]}, error);
    return c->run(argc - 1, argv + 1, error);
}

int main(int argc, char **argv) {
    segfm_error error = {0};
#ifndef __wasi__
    signal(SIGXFSZ, SIG_IGN); /* a file that grows past the user's limit is a write that failed, as on a full disk */
#endif
    segfm_status status = run(argc, argv, &error);
    if (status == SEGFM_OK) status = tool_flush(&error);
    if (status != SEGFM_OK && error.message[0] != '\0')
        fprintf(stderr, "segfm: %s%s%s\n", error.where, error.where[0] != '\0' ? ": " : "", error.message);
    return (int)status;
}
