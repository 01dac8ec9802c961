/* `segfm train` end to end, on scans of a few thousand voxels and phantoms, with a network of some thousand parameters: what it
   refuses, what it leaves out, that the loss falls, and that stopping it in any way changes no bit of what comes out.
   SEGFM_KILLS: how often a run is killed at a random moment (default 6; `make kills`). */
#include <signal.h>
#include <sys/resource.h>

#include "test.h"

#include "../vol/vol.h"
#include "challenge.h"
#include "command.h"
#include "random.h"

enum { Z = 12, Y = 20, X = 24, VOXELS = Z * Y * X };

/* The network and a run of 24 steps; %s: more lines. */
static const char settings[] = "# a tiny network\n"
                               "spatial = 8,16,24\npatch 4,8,12\ndim 16\ndepth 1\nheads 2\nmlp 32\ndecoder_depth 1\n"
                               "decoder_heads 2\ndecoder_mlp 32\ndecoder_cross_dim 8\nmask_tokens 2\niou_hidden 8\n"
                               "up1 4\nup2 4\ngru_blocks 2\ngru_hidden 8\ntopk 4   # points\n"
                               "phantom_smallest 16,24,24\nphantom_largest 20,32,32\nphantoms_each 3\nmin_voxels 20\n"
                               "batch 2\nwarmup 5\nrate 3e-3\nepoch 6\nevaluate_clicks 1\nevaluate_min_voxels 20\n"
                               "source both\nphantoms 0.25\nsteps 24\ncheckpoint_every 4\n";

/* ---- files -------------------------------------------------------------------------------------------------------- */

static void write_text(const char *name, const char *text, const char *more) {
    char all[8192];
    base_format(all, sizeof all, "%s%s", text, more);
    CHECK(io_write_file(path_of(name, ""), all, strlen(all), NULL) == SEGFM_OK);
}

/* Two bright bricks on a ground, labels 1 and 2; `moved` shifts them. */
static void make_scan(int moved, float *image, uint16_t *truth) {
    uint64_t state = 77 + (uint64_t)moved;
    for (int i = 0; i < VOXELS; i++) {
        int z = i / (Y * X), y = i / X % Y, x = i % X - moved;
        bool first = z > 2 && z < 9 && y > 3 && y < 12 && x > 2 && x < 11;
        bool second = z > 4 && z < 10 && y > 9 && y < 17 && x > 12 && x < 20;
        truth[i] = first ? 1 : second ? 2 : 0;
        image[i] = (float)(20 + (first ? 100 : second ? 160 : 0) + (int)(random_next(&state) % 9));
    }
}

static void write_scan(const char *image, const char *label, int nx, const float *voxels, const uint16_t *truth) {
    io_nifti like;
    const double spacing[3] = {0.75, 1, 2};
    io_nifti_init(&like, X, Y, Z, spacing);
    CHECK(io_nifti_write_like(path_of(image, ""), &like, IO_F32, voxels, NULL) == SEGFM_OK);
    io_nifti_free(&like);
    io_nifti_init(&like, nx, VOXELS / nx / Z, Z, spacing);
    CHECK(io_nifti_write_like(path_of(label, ""), &like, IO_U16, truth, NULL) == SEGFM_OK);
    io_nifti_free(&like);
}

static void write_archive(const char *name, const float *voxels, const uint16_t *truth) {
    static uint8_t bytes[VOXELS];
    io_zip_writer zip = {0};
    for (int i = 0; i < VOXELS; i++) bytes[i] = (uint8_t)voxels[i];
    add_array(&zip, "imgs.npy", IO_U8, 3, (size_t[]){Z, Y, X}, bytes);
    add_array(&zip, "gts.npy", IO_U16, 3, (size_t[]){Z, Y, X}, truth);
    add_array(&zip, "spacing.npy", IO_F64, 1, (size_t[]){3}, (double[]){0.75, 1, 2});
    CHECK(io_zip_finish(&zip, NULL) == SEGFM_OK);
    CHECK(io_write_file(path_of(name, ""), zip.archive.data, zip.archive.size, NULL) == SEGFM_OK);
    io_zip_writer_free(&zip);
}

static void write_scans(void) {
    static float image[VOXELS];
    static uint16_t truth[VOXELS];
    for (int i = 0; i < 3; i++) {
        char names[2][32];
        base_format(names[0], sizeof names[0], "i%d.nii.gz", i);
        base_format(names[1], sizeof names[1], "l%d.nii", i);
        make_scan(i, image, truth);
        write_scan(names[0], names[1], X, image, truth);
    }
    make_scan(3, image, truth);
    write_archive("both.npz", image, truth);
    write_scan("shape.nii", "shape_l.nii", Y, image, truth); /* 24 rows of 20 */
    image[VOXELS / 2] = (float)NAN;
    write_scan("nan.nii", "nan_l.nii", X, image, truth);
    make_scan(4, image, truth);
    memset(truth, 0, sizeof truth);
    write_scan("empty.nii", "empty_l.nii", X, image, truth);
    for (int i = 0; i < 10; i++) truth[i + VOXELS / 2] = 5;
    write_scan("small.nii", "small_l.nii", X, image, truth);
    write_text("good.tsv", "image\tlabel\ni0.nii.gz\tl0.nii\ni1.nii.gz\tl1.nii\nboth.npz\tboth.npz\n", "");
    write_text("one.tsv", "i2.nii.gz\tl2.nii\n", "");
    write_text("bad.tsv",
               "i0.nii.gz\tl0.nii\nmissing.nii\tl0.nii\nshape.nii\tshape_l.nii\nnan.nii\tnan_l.nii\n"
               "empty.nii\tempty_l.nii\nsmall.nii\tsmall_l.nii\nboth.npz\tboth.npz\n",
               "");
    write_text("worse.tsv", "missing.nii\tl0.nii\nnan.nii\tnan_l.nii\n", "");
}

/* Runs `train` with the folder DIR for every @, after the folder of the test for every %. */
static int train(const char *arguments) {
    char line[4096];
    size_t used = 0;
    base_format(line, sizeof line, "train ");
    used = strlen(line);
    for (; *arguments != '\0' && used + sizeof folder < sizeof line; arguments++) {
        if (*arguments == '@') base_format(line + used, sizeof line - used, "%s", folder);
        else base_format(line + used, sizeof line - used, "%c", *arguments);
        used += strlen(line + used);
    }
    return run_command(line);
}

static bool same_files(const char *a, const char *b, const char *name) {
    io_buffer x = {0}, y = {0};
    bool read =
        io_read_file(path_of(a, name), &x, NULL) == SEGFM_OK && io_read_file(path_of(b, name), &y, NULL) == SEGFM_OK;
    bool same = read && x.size == y.size && x.size > 0 && memcmp(x.data, y.data, x.size) == 0;
    io_buffer_free(&x);
    io_buffer_free(&y);
    return same;
}

/* Both logs agree but for their last column, the seconds. */
static bool same_logs(const char *a, const char *b, const char *name) {
    static char x[1 << 16], y[1 << 16];
    read_text(path_of(a, name), x, sizeof x);
    read_text(path_of(b, name), y, sizeof y);
    char *p = x, *q = y;
    while (*p != '\0' && *q != '\0') {
        size_t n = strcspn(p, "\n"), m = strcspn(q, "\n"), i = n, j = m;
        while (i > 0 && p[i] != ',') i--;
        while (j > 0 && q[j] != ',') j--;
        if (i != j || memcmp(p, q, i) != 0) return false;
        p += n + (p[n] == '\n');
        q += m + (q[m] == '\n');
    }
    return *p == *q && lines_in(x) > 1;
}

/* All that a run leaves is as the uninterrupted run's, and nothing else is there. */
static bool same_runs(const char *a, const char *b) {
    char line[4096];
    base_format(line, sizeof line, "[ $(ls -A '%s' | wc -l) -eq 5 ]", path_of(b, ""));
    return same_files(a, b, "last.segfm") && same_files(a, b, "best.segfm") && same_files(a, b, "checkpoint.bin") &&
           same_logs(a, b, "log.csv") && same_logs(a, b, "evaluation.csv") && system(line) == 0;
}

static void remove_run(const char *name) {
    char line[4096];
    base_format(line, sizeof line, "rm -rf '%s'", path_of(name, ""));
    CHECK(system(line) == 0);
}

/* ---- settings ----------------------------------------------------------------------------------------------------- */

static void check_refused(const char *text, const char *phrase) {
    write_text("wrong.conf", text, "");
    if (!CHECK(train("--config @/wrong.conf --out @/none --pairs @/good.tsv") == 3) ||
        !CHECK(says("wrong.conf", phrase) && lines_in(said) == 1))
        printf("    %s    said: %s", text, said);
    CHECK(!exists(path_of("none", "")));
}

static void check_settings(void) {
    CHECK(train("--defaults > '@/a.conf'; true") == 0);
    CHECK(train("--defaults --config '@/a.conf' > '@/b.conf'; true") == 0);
    CHECK(same_files("", "", "a.conf") && same_files("a.conf", "b.conf", ""));
    write_text("tiny.conf", settings, "");
    CHECK(train("--defaults --config '@/tiny.conf' --steps 31 --seed 4 > '@/a.conf'; true") == 0);
    CHECK(train("--defaults --config '@/a.conf' > '@/b.conf'; true") == 0);
    CHECK(same_files("a.conf", "b.conf", ""));
    CHECK(!same_files("a.conf", "tiny.conf", ""));
    char text[16384];
    read_text(path_of("a.conf", ""), text, sizeof text);
    CHECK(strstr(text, "\nspatial             8,16,24 ") != NULL &&
          strstr(text, "\nrate                0.003 ") != NULL);
    CHECK(strstr(text, "\nsteps               31 ") != NULL && strstr(text, "\nseed                4 ") != NULL);
    CHECK(strstr(text, "\nparts               all ") != NULL && strstr(text, "\ntopk                4 ") != NULL);
    check_refused("dim 16\n\nwdith 3\n", "line 3: unknown key wdith");
    check_refused("dim x\n", "line 1: dim: got x");
    check_refused("# fine\nbatch 0\n", "line 2: batch: got 0");
    check_refused("rate\n", "line 1: rate: got no value");
    check_refused("rate = nan\n", "line 1: rate: got nan");
    check_refused("flip 1.5\n", "line 1: flip: got 1.5, need 0 to 1");
    check_refused("seed 1\nseed 2\n", "line 2: seed: given twice");
    check_refused("stage later\n", "line 1: stage: got later, need one of box, box_points, auto");
    check_refused("parts decoder+tail\n", "line 1: parts: got decoder+tail");
    check_refused("corrections 1,2,3\n", "line 1: corrections: got 1,2,3, need 6");
    check_refused("corrections 0,0,0,0,0,0\n", "corrections: need a weight above 0");
    check_refused("dim 30\nheads 4\n", "dim is 30, need a multiple of heads");
    check_refused("frame 1001\n", "frame is 1001, need 0 to 1000");
    check_refused("evaluate_every 5\n", "evaluate_every: need evaluate_pairs");
    CHECK(train("--config @/tiny.conf --pairs @/good.tsv") == 2 && says("", "the option --out is needed"));
    CHECK(train("--config @/tiny.conf --out @/none") == 2 && says("", "--pairs is needed"));
    CHECK(train("--config @/tiny.conf --out @/none --pairs @/good.tsv --steps -1") == 2 && says("", "steps: got -1"));
    CHECK(train("--config @/absent.conf --out @/none --pairs @/good.tsv") == 3 && says("absent.conf", ""));
    CHECK(!exists(path_of("none", "")));
}

/* ---- scans -------------------------------------------------------------------------------------------------------- */

static void check_bad_scans(void) {
    CHECK(train("--config @/tiny.conf --out @/bad --pairs @/bad.tsv --steps 2") == 0);
    CHECK(says("missing.nii", "left out"));
    CHECK(says("shape", "shapes: ") && says("nan.nii", "is not a number") && says("empty.nii", "left out"));
    CHECK(says("small.nii", "left out"));
    CHECK(says("", "2 cases with 4 classes") && says("", "5 left out") && says("", "5 bad cases were left out"));
    CHECK(train("--config @/tiny.conf --out @/worse --pairs @/worse.tsv") == 3);
    CHECK(says("missing.nii", "left out") && says("worse.tsv", "none of its 2 cases"));
    CHECK(!exists(path_of("worse", "checkpoint.bin")));
    remove_run("bad");
}

/* ---- learning ----------------------------------------------------------------------------------------------------- */

/* The mean of a column of log.csv over the rows from `first` on, `count` of them; row 0 is the header. */
static double mean_of(const char *run, int column, int first, int count) {
    static char text[1 << 17];
    double sum = 0;
    read_text(path_of(run, "log.csv"), text, sizeof text);
    const char *row = text;
    for (int i = 0; row != NULL && i < first + count; i++) {
        const char *field = row;
        for (int k = 0; field != NULL && k < column; k++) field = strchr(field + 1, ',');
        if (i >= first && field != NULL) sum += strtod(field + (column > 0), NULL) / count;
        row = strchr(row, '\n');
        if (row != NULL) row++;
    }
    return row != NULL ? sum : (double)NAN;
}

static void check_learning(void) {
    write_text("learn.conf", settings, "stage box\nclip 0\nseed 3\nconsistency 0\n");
    CHECK(train("--config @/learn.conf --out @/learn --pairs @/good.tsv --steps 150") == 0);
    double begin = mean_of("learn", 3, 1, 15), end = mean_of("learn", 3, 136, 15);
    if (!CHECK(end < 0.8 * begin)) printf("    mean loss of the first steps %g, of the last %g\n", begin, end);
    remove_run("learn");
}

/* ---- the same bits ------------------------------------------------------------------------------------------------ */

#define RUN "--config @/run.conf --pairs @/good.tsv "

static void check_threads(void) {
    char more[2048];
    base_format(more, sizeof more, "evaluate_every 8\nevaluate_pairs %s\n", path_of("one.tsv", ""));
    write_text("run.conf", settings, more);
    CHECK(train(RUN "--out @/whole --threads 1") == 0 && says("", "done: step 24"));
    CHECK(train(RUN "--out @/two --threads 2 --quiet") == 0 && said[0] == '\0');
    CHECK(train(RUN "--out @/three --threads 3") == 0);
    CHECK(same_runs("whole", "two") && same_runs("whole", "three"));
    CHECK(train(RUN "--out @/other --seed 1") == 0 && !same_files("whole", "other", "last.segfm"));
    for (int i = 0; i < 3; i++) remove_run((const char *[]){"two", "three", "other"}[i]);
    CHECK(mean_of("whole", 0, 1, 24) == 11.5);
    static char text[1 << 16];
    read_text(path_of("whole", "log.csv"), text, sizeof text);
    CHECK(strstr(text, ",box,") != NULL && strstr(text, ",box_points,") != NULL); /* stage auto has gone on */
}

/* evaluation.csv says what `segfm eval` does. */
static void check_evaluation(void) {
    char line[4096], first[64];
    static char text[8192];
    base_format(line, sizeof line,
                "eval --pairs '%s/one.tsv' -w '%s/whole/last.segfm' --clicks 1 --min-voxels 20 --csv '%s/e.csv'",
                folder, folder, folder);
    CHECK(run_command(line) == 0);
    const char *dsc = strstr(printed, "\nDSC ");
    read_text(path_of("whole", "evaluation.csv"), text, sizeof text);
    CHECK(lines_in(text) == 5 && strncmp(text, "step,cases,DSC_0,DSC_1,DSC_mean,seconds\n0,1,", 44) == 0);
    const char *last = strstr(text, "\n24,1,");
    if (!CHECK(dsc != NULL && last != NULL)) return;
    char *end = NULL;
    double box = strtod(dsc + 5, &end), click = strtod(end, NULL), logged = strtod(last + 6, &end);
    CHECK(fabs(box - logged) < 1e-8 && fabs(click - strtod(end + 1, NULL)) < 1e-8);
    base_format(first, sizeof first, "%s", "info");
    base_format(line, sizeof line, "info '%s/whole/best.segfm'", folder);
    CHECK(run_command(line) == 0 && strstr(printed, "(verified)") != NULL && strstr(printed, "segfm ") != NULL);
}

static void check_resume(void) {
    CHECK(train(RUN "--out @/parts --steps 7") == 0);
    CHECK(!same_files("whole", "parts", "last.segfm"));
    CHECK(train(RUN "--out @/parts") == 2 && says("checkpoint.bin", "--resume goes on with it"));
    CHECK(train("--out @/parts --pairs @/good.tsv --resume --steps 9 --threads 2") == 0);
    CHECK(train(RUN "--out @/parts --resume --seed 2") == 2 &&
          says("", "seed is 2, the run that it would go on with has 0"));
    CHECK(train("--config @/learn.conf --pairs @/good.tsv --out @/parts --resume") == 2 && says("", "is "));
    CHECK(train(RUN "--out @/parts --resume --pairs @/good.tsv") == 2); /* twice */
    CHECK(train("--config @/run.conf --pairs @/one.tsv --out @/parts --resume") == 3 &&
          says("", "the cases are not those"));
    CHECK(train(RUN "--out @/parts --resume") == 0);
    CHECK(same_runs("whole", "parts"));
    CHECK(train(RUN "--out @/parts --resume") == 0 && same_runs("whole", "parts")); /* nothing is left to do */
    make_folder("looped"); /* whether there is a checkpoint cannot be seen: no new run takes its place */
    CHECK(symlink("checkpoint.bin", path_of("looped", "checkpoint.bin")) == 0);
    CHECK(train(RUN "--out @/looped --resume") == 3 && says("checkpoint.bin", "too many symbolic links"));
    CHECK(!exists(path_of("looped", "log.csv")));
    remove_run("parts");
    write_text("cosine.conf", settings, "schedule cosine\n");
    CHECK(train("--config @/cosine.conf --pairs @/good.tsv --out @/parts --steps 3") == 0);
    CHECK(train("--pairs @/good.tsv --out @/parts --resume --steps 4") == 2 && says("", "ties the cosine"));
    remove_run("parts");
}

/* A model whose window follows the box: goes on like any other, and its file says so from then on. */
static void check_frame(void) {
    char line[4096];
    write_text("framed.conf", settings, "frame 25\n");
    write_text("unframed.conf", settings, "frame 0\n");
    CHECK(train("--config @/framed.conf --pairs @/good.tsv --out @/framed --steps 6 --threads 1") == 0);
    CHECK(train("--config @/framed.conf --pairs @/good.tsv --out @/parts --steps 3 --threads 2") == 0);
    CHECK(train("--pairs @/good.tsv --out @/parts --resume --steps 6 --threads 3") == 0);
    CHECK(same_files("framed", "parts", "last.segfm") && same_files("framed", "parts", "checkpoint.bin"));
    remove_run("parts");
    CHECK(train("--config @/unframed.conf --pairs @/good.tsv --out @/framed --resume --steps 6") == 2 &&
          says("", "frame is 0, the run that it would go on with has 25"));
    CHECK(train("--config @/unframed.conf --pairs @/good.tsv --out @/parts --init @/framed/last.segfm") == 2 &&
          says("", "the weights have frame 25, the configuration says 0"));
    CHECK(train("--config @/tiny.conf --pairs @/good.tsv --out @/parts --init @/framed/last.segfm --steps 1") == 0);
    base_format(line, sizeof line, "info '%s/parts/last.segfm'", folder);
    CHECK(run_command(line) == 0 && strstr(printed, "follows the box, 25 % of its extent") != NULL);
    base_format(line, sizeof line,
                "eval --pairs '%s/one.tsv' -w '%s/framed/last.segfm' --clicks 1 --min-voxels 20 --csv '%s/e.csv'",
                folder, folder, folder);
    CHECK(run_command(line) == 0 && strstr(printed, "DSC ") != NULL);
    remove_run("framed");
    remove_run("parts");
}

static void damage(const char *path, size_t at) {
    io_buffer bytes = {0};
    CHECK(io_read_file(path, &bytes, NULL) == SEGFM_OK && bytes.size > at);
    bytes.data[at] ^= 1;
    CHECK(io_write_file(path, bytes.data, bytes.size, NULL) == SEGFM_OK);
    io_buffer_free(&bytes);
}

static void check_damage(void) {
    CHECK(train(RUN "--out @/broken --steps 2") == 0);
    for (size_t at = 0; at < 100000; at += 9973) {
        damage(path_of("broken", "checkpoint.bin"), at);
        CHECK(train(RUN "--out @/broken --resume") == 3 &&
              says("checkpoint.bin", at == 0 ? "is not a checkpoint" : "is damaged"));
        damage(path_of("broken", "checkpoint.bin"), at);
    }
    CHECK(io_write_file(path_of("broken", "log.csv"), "step\n", 5, NULL) == SEGFM_OK);
    CHECK(train(RUN "--out @/broken --resume") == 3 && says("log.csv", "it was changed since"));
    remove_run("broken");
}

/* ---- stopping it -------------------------------------------------------------------------------------------------- */

/* Starts a run, waits until it has made three steps, sends the signal; its exit code. */
static int interrupt(const char *name, const char *run) {
    char line[8192];
    const char *wrapper = getenv("TEST_WRAPPER");
    base_format(line, sizeof line,
                "m=$(cat '%s/log.csv' 2>/dev/null | wc -l); %s '%s' train --config '%s/run.conf' --pairs '%s/good.tsv' "
                "--out '%s' --steps 100000 --resume 2>'%s/stderr' & p=$!; n=0; "
                "until [ \"$(cat '%s/log.csv' 2>/dev/null | wc -l)\" -gt $((m + 3)) ] || [ $n -gt 600 ]; do sleep 0.1; "
                "n=$((n + 1)); done; kill -%s $p; wait $p",
                path_of(run, ""), wrapper != NULL ? wrapper : "", command, folder, folder, path_of(run, ""), folder,
                path_of(run, ""), name);
    int code = system(line);
    read_text(path_of("stderr", ""), said, sizeof said);
    return code != -1 && WIFEXITED(code) ? WEXITSTATUS(code) : -1;
}

static void check_signals(void) {
    CHECK(interrupt("INT", "stopped") == 0 && says("", "interrupted after step"));
    CHECK(interrupt("TERM", "stopped") == 0 && says("", "interrupted after step"));
    static char text[1 << 16];
    read_text(path_of("stopped", "log.csv"), text, sizeof text);
    const char *after = strstr(said, "after step ");
    long steps = after != NULL ? strtol(after + 11, NULL, 10) : -1;
    CHECK(steps > 3 && lines_in(text) == (size_t)steps + 1);
    remove_run("stopped");
}

/* A device that is full when the checkpoint has come to some bytes. */
static void check_full(void) {
    if (getenv("TEST_NO_LIMIT") != NULL) return; /* the sanitizer of threads needs larger files for itself */
    struct rlimit before, full;
    CHECK(train(RUN "--out @/full --steps 8") == 0 && train(RUN "--out @/kept --steps 8") == 0);
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    full = before;
    full.rlim_cur = 30000;
    CHECK(setrlimit(RLIMIT_FSIZE, &full) == 0);
    CHECK(train(RUN "--out @/full --resume") == 5 && says("checkpoint.bin", "cannot be written"));
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    signal(SIGXFSZ, handler);
    CHECK(same_files("full", "kept", "checkpoint.bin") && same_files("full", "kept", "last.segfm"));
    CHECK(train(RUN "--out @/full --resume") == 0 && same_runs("whole", "full"));
    remove_run("full");
    remove_run("kept");
}

/* Runs that are killed, or interrupted, at random moments and resumed until they end. */
static void check_kills(void) {
    const char *wanted = getenv("SEGFM_KILLS"), *wrapper = getenv("TEST_WRAPPER");
    int kills = wanted != NULL ? atoi(wanted) : wrapper != NULL ? 2 : 6, killed = 0;
    uint64_t state = 11;
    char line[8192];
    for (int runs = 0; killed < kills && runs < 1000 + 10 * kills; runs++) {
        int code = -1;
        double limit = 0.02 + 0.6 * random_next(&state) / 2147483648.0 * (wrapper != NULL ? 40 : 1);
        char seconds[32];
        snprintf(seconds, sizeof seconds, "%.3f", limit);
        base_format(line, sizeof line,
                    "timeout -s %s %s %s '%s' train --config '%s/run.conf' --pairs '%s/good.tsv' --out '%s' --resume "
                    "--quiet 2>'%s/stderr'",
                    runs % 3 == 2 ? "INT" : "KILL", seconds, wrapper != NULL ? wrapper : "", command, folder, folder,
                    path_of("killed", ""), folder);
        code = system(line);
        code = code != -1 && WIFEXITED(code) ? WEXITSTATUS(code) : -1;
        read_text(path_of("stderr", ""), said, sizeof said);
        bool stopped = code == 137 || code == 124; /* 124: interrupted, in a step or an evaluation */
        if (!CHECK((code == 0 || stopped) && (code == 137 || said[0] == '\0'))) printf("    %d: %s\n", code, said);
        killed += stopped;
        if (code != 0) continue;
        CHECK(same_runs("whole", "killed"));
        remove_run("killed");
    }
    CHECK(killed == kills);
    CHECK(train(RUN "--out @/killed --resume") == 0 && same_runs("whole", "killed"));
    remove_run("killed");
    if (wanted != NULL) printf("%d kills\n", killed);
}

/* ---- weights to begin with ---------------------------------------------------------------------------------------- */

static void check_init(void) {
    CHECK(train("--out @/from --pairs @/good.tsv --init @/whole/last.segfm --steps 0") == 0);
    char line[4096];
    base_format(line, sizeof line, "compare --bits '%s' '%s' 2>/dev/null", folder, folder);
    static char whole[4096], from[4096];
    base_format(line, sizeof line, "info '%s/whole/last.segfm'", folder);
    CHECK(run_command(line) == 0);
    base_format(whole, sizeof whole, "%s", strstr(printed, "\nparameters"));
    base_format(line, sizeof line, "info '%s/from/last.segfm'", folder);
    CHECK(run_command(line) == 0);
    base_format(from, sizeof from, "%s", strstr(printed, "\nparameters"));
    CHECK(strcmp(whole, from) == 0);
    /* the file ends with the tensors */
    io_buffer a = {0}, b = {0};
    CHECK(io_read_file(path_of("whole", "last.segfm"), &a, NULL) == SEGFM_OK);
    CHECK(io_read_file(path_of("from", "last.segfm"), &b, NULL) == SEGFM_OK);
    CHECK(a.size > 60000 && b.size > 60000 && memcmp(a.data + a.size - 60000, b.data + b.size - 60000, 60000) == 0);
    io_buffer_free(&a);
    io_buffer_free(&b);
    remove_run("from");
    write_text("wide.conf", "dim 32\n", "");
    CHECK(train("--out @/from --pairs @/good.tsv --config @/wide.conf --init @/whole/last.segfm") == 2);
    CHECK(says("", "the weights have dim 16, the configuration says 32"));
    write_text("bare.conf", settings, "seed 5\n");
    static char bare[4096];
    read_text(path_of("bare.conf", ""), bare, sizeof bare);
    char *gru = strstr(bare, "gru_blocks 2\ngru_hidden 8\ntopk 4 ");
    if (!CHECK(gru != NULL)) return;
    gru[11] = gru[24] = gru[31] = '0';
    write_text("bare.conf", bare, "");
    CHECK(train("--out @/bare --pairs @/good.tsv --config @/bare.conf --steps 4") == 0);
    CHECK(train("--out @/from --pairs @/good.tsv --config @/tiny.conf --init @/bare/last.segfm --steps 4") == 0);
    base_format(line, sizeof line, "info '%s/from/last.segfm'", folder);
    CHECK(run_command(line) == 0 && strstr(printed, "2 blocks, hidden 8, K 4") != NULL);
    remove_run("bare");
    remove_run("from");
}

int main(int argc, char **argv) {
    if (begin_commands(argc, argv)) {
        write_scans();
        check_settings();
        check_bad_scans();
        check_learning();
        check_threads();
        check_evaluation();
        check_resume();
        check_frame();
        check_damage();
        check_signals();
        check_full();
        check_kills();
        check_init();
        end_commands();
    }
    return test_summary();
}
