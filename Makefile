# segfm. `make help` lists what can be made.

CC ?= gcc
ifeq ($(origin CC),default)
CC = gcc
endif
REAL ?= float
OMP ?= 1
OPT ?= -O3
NATIVE ?= 0
ISA ?= all
PREFIX ?= /usr/local
# V=1 shows the commands.
V ?= 0
Q = $(if $(filter 1,$(V)),,@)
# What a variant build is called, so that it gets a folder of its own (with CFLAGS that make it one).
VARIANT ?=

# One folder of objects per kind of build: they never mix.
CONFIG = $(notdir $(firstword $(CC)))-$(REAL)$(if $(filter 0,$(OMP)),-serial)$(if $(filter 1,$(NATIVE)),-native)$(if $(filter generic,$(ISA)),-generic)$(OPT)$(VARIANT)
BUILD ?= build/$(CONFIG)

WARNINGS = -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wvla
# A product and a sum stay two roundings on every machine (-ffp-contract=off). The other two let gcc vectorise selects and
# change no bit.
ARITHMETIC = -ffp-contract=off -fno-trapping-math -fno-math-errno
ALL_CFLAGS = $(WARNINGS) $(ARITHMETIC) $(OPT) -D_POSIX_C_SOURCE=200809L -MMD -MP \
	$(if $(filter double,$(REAL)),-DSEGFM_REAL_DOUBLE) $(if $(filter 0,$(OMP)),-fopenmp-simd,-fopenmp) \
	$(if $(filter 1,$(NATIVE)),-march=native) $(if $(filter generic,$(ISA)),-DNN_GENERIC) $(CFLAGS)

LIB_SRC = $(wildcard base/*.c io/*.c weights/*.c nn/*.c nn/segvol/*.c vol/*.c train/*.c) segfm.c
TOOL_SRC = $(wildcard tools/*.c)
LIB_OBJ = $(LIB_SRC:%.c=$(BUILD)/%.o)
TOOL_OBJ = $(TOOL_SRC:%.c=$(BUILD)/%.o)
TESTS = $(patsubst test/%.c,$(BUILD)/test/%,$(wildcard test/test_*.c))

.DEFAULT_GOAL = all
.PHONY: all native tests everything test demo demo-scan verify bench bench-metrics bench-training conformance sanitize soak longlife geometry kills learn valgrind planted amalgamation footprint lint format clean install uninstall help

all: $(BUILD)/segfm
	@ln -sf $(BUILD)/segfm segfm

native:
	@$(MAKE) --no-print-directory NATIVE=1 all

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo 'CC $<'
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/libsegfm.a: $(LIB_OBJ)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

# The subcommands without main: for tests that call them.
$(BUILD)/libtools.a: $(filter-out %/main.o,$(TOOL_OBJ))
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(BUILD)/segfm: $(TOOL_OBJ) $(BUILD)/libsegfm.a
	@echo 'LINK $@'
	$(Q)$(CC) $(ALL_CFLAGS) $^ -o $@ -lm

# A test may replace library functions, so it is linked against the archive.
$(BUILD)/test/%: test/%.c $(BUILD)/libtools.a $(BUILD)/libsegfm.a
	@mkdir -p $(@D)
	@echo 'CC $<'
	$(Q)$(CC) $(ALL_CFLAGS) $< $(BUILD)/libtools.a $(BUILD)/libsegfm.a $(REFUSED:%=-Wl,--wrap=%) -o $@ -lm

# The calls that test_refused.c has fail.
$(BUILD)/test/test_refused: REFUSED = malloc calloc realloc free stat fstat access open mmap sysconf fopen ferror fwrite fsync fclose

# All that can be compiled: also the programs of make verify and make demo.
PROGRAMS = $(patsubst %.c,$(BUILD)/%,$(wildcard test/*.c demo/*.c))

-include $(LIB_OBJ:.o=.d) $(TOOL_OBJ:.o=.d) $(PROGRAMS:=.d)

tests: $(TESTS) $(BUILD)/segfm
everything: $(PROGRAMS) $(BUILD)/segfm

# Float, double, and a build whose tiles and buffers are odd and tiny, so that every edge is walked.
TINY_SIZES = -DNN_TEST_MR=3 -DNN_MC=5 -DNN_KC=256 -DSEGFM_TINY
TINY = VARIANT=-tiny ISA=generic CFLAGS="$(TINY_SIZES)"
test:
	@$(MAKE) --no-print-directory -s -j2 tests
	@$(MAKE) --no-print-directory -s -j2 REAL=double tests
	@$(MAKE) --no-print-directory -s -j2 $(TINY) tests
	@scripts/test.sh $$($(MAKE) -s print-build) $$($(MAKE) -s REAL=double print-build) $$($(MAKE) -s $(TINY) print-build)

.PHONY: print-build
print-build:
	@echo $(BUILD)

demo: all
	@scripts/demo.sh

# The demo's scan where no real one can be had.
demo-scan: $(BUILD)/demo/make_scan
	@$< build/demo/made.nii.gz

$(BUILD)/demo/%: demo/%.c $(BUILD)/libsegfm.a
	@mkdir -p $(@D)
	@echo 'CC $<'
	$(Q)$(CC) $(ALL_CFLAGS) $< $(BUILD)/libsegfm.a -o $@ -lm

# The programs of make verify that both builds have.
VERIFIED_TWICE = train_probe golden_network golden_corrector golden_train
verify:
	@$(MAKE) --no-print-directory -s -j2 all $(addprefix $(BUILD)/test/,nifti_roundtrip volume_probe golden_vol $(VERIFIED_TWICE))
	@$(MAKE) --no-print-directory -s -j2 REAL=double BUILD=$(BUILD)-double $(BUILD)-double/segfm $(addprefix $(BUILD)-double/test/,$(VERIFIED_TWICE))
	@scripts/verify.sh $(BUILD) $(BUILD)-double $(if $(filter 0,$(FULL)),,--full)

bench:
	@$(MAKE) --no-print-directory -s -j2 all
	@scripts/bench.sh $(BUILD)

# scipy and the C code in turns, in one process each.
bench-metrics:
	@$(MAKE) --no-print-directory -s -j2 all $(BUILD)/test/volume_probe
	@$${PYTHON-/usr/bin/python3} tools/reference/metrics.py $(BUILD)/test/volume_probe $(BUILD)/segfm --bench

# A training step against PyTorch's, in turns.
bench-training:
	@$(MAKE) --no-print-directory -s -j2 all $(BUILD)/test/train_probe
	@mkdir -p build/bench/training
	@$${PYTHON-/usr/bin/python3} -B bench/training.py build/bench/training $(BUILD)/segfm $(BUILD)/test/train_probe

conformance:
	@scripts/conformance.sh

# float-cast-overflow is undefined behaviour too, but in nobody's "undefined".
SANITIZERS = -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -fno-omit-frame-pointer -g \
	-Wno-pass-failed
SANITIZE_CC ?= gcc clang
SANITIZE = OPT=-O1 VARIANT=-sanitize CFLAGS="$(SANITIZERS)"
SANITIZE_TINY = OPT=-O1 VARIANT=-sanitize-tiny ISA=generic CFLAGS="$(SANITIZERS) $(TINY_SIZES)"
sanitize:
	@for cc in $(SANITIZE_CC); do $(MAKE) --no-print-directory -s -j2 CC=$$cc $(SANITIZE) tests || exit 1; done
	@$(MAKE) --no-print-directory -s -j2 $(SANITIZE_TINY) tests
	@scripts/test.sh $$(for cc in $(SANITIZE_CC); do $(MAKE) -s CC=$$cc $(SANITIZE) print-build; done) \
		$$($(MAKE) -s $(SANITIZE_TINY) print-build)

# Files that are wrong in one way each, given to the command; and sound ones cut at every byte and with every bit of their
# headers flipped, given to the parsers. Both with the sanitizers too.
.PHONY: command malformed corpus fuzz fuzz-smoke fuzz-keep fuzzers
command: $(BUILD)/segfm
malformed:
	@$(MAKE) --no-print-directory -s -j2 command $(BUILD)/test/test_malformed
	@$(MAKE) --no-print-directory -s -j2 CC=gcc $(SANITIZE) command test-malformed
	@scripts/malformed.sh $(BUILD) $$($(MAKE) -s CC=gcc $(SANITIZE) print-build)
.PHONY: test-malformed
test-malformed: $(BUILD)/test/test_malformed

# libFuzzer on every parser, with clang. fuzz-smoke: the corpus, then FUZZ_SECONDS of new inputs for each; fuzz: FUZZ_SECONDS
# of an hour for each, or for TARGET alone; what it learns stays in build/fuzz. RUNS: until each has so many executions behind
# it, those of earlier calls counted, by programs that trace neither comparisons nor arithmetic (test/fuzz/unguided): two to four times
# as fast, with the same sanitizers. fuzz-keep: the little of what was learned that comes to the committed corpus.
# A session's memory is mostly blocks for large matrices: small ones take less time to make than a scan to read.
FUZZ_SIZES = -DNN_MC=5 -DNN_KC=256
FUZZ = CC=clang OMP=0 OPT=-O1 VARIANT=-fuzz CFLAGS="-fsanitize=fuzzer-no-link $(FUZZ_SIZES) $(SANITIZERS)"
FUZZ_RUNS = CC=clang OMP=0 OPT=-O2 VARIANT=-fuzz-runs CFLAGS="-fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp,indirect-calls \
	-fsanitize-coverage-ignorelist=test/fuzz/unguided $(FUZZ_SIZES) $(SANITIZERS)"
FUZZ_SECONDS ?=
RUNS ?=
TARGET ?=
FUZZERS = $(patsubst test/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard test/fuzz/*.c))
$(BUILD)/fuzz/%: test/fuzz/%.c $(BUILD)/libtools.a $(BUILD)/libsegfm.a
	@mkdir -p $(@D)
	@echo 'CC $<'
	$(Q)$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $< $(BUILD)/libtools.a $(BUILD)/libsegfm.a -o $@ -lm
-include $(FUZZERS:=.d)
fuzzers: $(FUZZERS)
fuzz-smoke:
	@$(MAKE) --no-print-directory -s -j2 $(FUZZ) fuzzers
	@TARGET="$(TARGET)" JOBS=$${JOBS:-2} scripts/fuzz.sh $$($(MAKE) -s $(FUZZ) print-build) $(or $(FUZZ_SECONDS),60)
fuzz:
	@$(MAKE) --no-print-directory -s -j2 $(if $(RUNS),$(FUZZ_RUNS),$(FUZZ)) fuzzers
	@TARGET="$(TARGET)" RUNS="$(RUNS)" KEEP=1 scripts/fuzz.sh $$($(MAKE) -s $(if $(RUNS),$(FUZZ_RUNS),$(FUZZ)) print-build) \
		$(or $(FUZZ_SECONDS),3600)
fuzz-keep:
	@$(MAKE) --no-print-directory -s -j2 $(FUZZ_RUNS) fuzzers
	@scripts/fuzz_keep.sh $$($(MAKE) -s $(FUZZ_RUNS) print-build)
corpus:
	@$${PYTHON-python3} -B test/malformed/corpus.py test/fuzz/corpus

# valgrind knows no AVX-512, hence the generic kernels; without OpenMP, whose threads keep memory until the end.
VALGRIND = OMP=0 ISA=generic OPT=-O1 VARIANT=-valgrind CFLAGS=-g
valgrind:
	@$(MAKE) --no-print-directory -s -j2 $(VALGRIND) tests
	@SEGFM_CALLS=12 TEST_WRAPPER="valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=all" \
		scripts/test.sh $$($(MAKE) -s $(VALGRIND) print-build)

# Lines and branches that the tests go through: without assertions, whose other way must not be gone, without threads.
.PHONY: coverage
COVERAGE = CC=gcc OMP=0 OPT=-O0 VARIANT=-coverage CFLAGS="--coverage -DNDEBUG"
coverage:
	@$(MAKE) --no-print-directory -s -j2 $(COVERAGE) tests
	@scripts/coverage.sh $$($(MAKE) -s $(COVERAGE) print-build)

# Changes one place of nn, vol or io at a time: do the tests notice? Goes on where it was stopped (RETRY=1: survivors again).
.PHONY: mutants
COUNT ?= 200
SEED ?= 1
mutants:
	@nice -n 10 $${PYTHON-python3} -B scripts/mutants.py $(COUNT) $(SEED)

# Analysers of gcc and clang, and the sanitizers that make sanitize does not have: memory nobody has set (without threads: the
# threads' library is not compiled so), and races of threads (clang's library reports to it what waits for what).
.PHONY: analyze
MEMORY = CC=clang OMP=0 OPT=-O1 VARIANT=-memory CFLAGS="-fsanitize=memory -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
THREADS = CC=clang OPT=-O1 VARIANT=-threads CFLAGS="-fsanitize=thread -g"
analyze:
	@$(MAKE) --no-print-directory -s -j2 $(MEMORY) tests
	@$(MAKE) --no-print-directory -s -j2 $(THREADS) tests
	@scripts/analyze.sh $$($(MAKE) -s $(MEMORY) print-build) $$($(MAKE) -s $(THREADS) print-build)

# A long random dialogue with `segfm session`, and longer ones with the library under the sanitizers. COMMANDS: of each.
COMMANDS ?= 10000
soak: all
	@$(MAKE) --no-print-directory -s -j2 CC=gcc $(SANITIZE) tests
	@COMMANDS=$(COMMANDS) scripts/soak.sh $(BUILD)/segfm $$($(MAKE) -s CC=gcc $(SANITIZE) print-build)

# A session that lives for TIME seconds, a predict of CASES cases: does memory stay, do descriptors?
TIME ?= 7200
CASES ?= 1000
longlife: all
	@$${PYTHON-python3} -B scripts/longlife.py $(BUILD)/segfm $(TIME) $(CASES)

# Scans stored in 48 orientations and six kinds of file, by nibabel: masks lie on the object, headers stay; labels above 255.
geometry: all
	@$${PYTHON-/usr/bin/python3} -B tools/reference/verify_geometry.py $(BUILD)/segfm $(if $(filter 1,$(QUICK)),--quick)

# Every allocation, every call on a file and every disk fails, or the process is killed there (test/faults). QUICK=1: a sample.
.PHONY: faults faulty
WRAPPED = malloc calloc realloc aligned_alloc strdup
$(BUILD)/faults/allocate.so: test/faults/allocate.c
	@mkdir -p $(@D)
	@echo 'CC $<'
	$(Q)$(CC) $(WARNINGS) -O1 -shared -fPIC $< -o $@ -ldl
$(BUILD)/faults/segfm: test/faults/allocate.c $(TOOL_OBJ) $(BUILD)/libsegfm.a
	@mkdir -p $(@D)
	@echo 'LINK $@'
	$(Q)$(CC) $(ALL_CFLAGS) -DWRAPPED $(WRAPPED:%=-Wl,--wrap=%) $^ -o $@ -lm
faulty: $(BUILD)/faults/segfm
faults:
	@$(MAKE) --no-print-directory -s -j2 $(BUILD)/segfm $(BUILD)/faults/allocate.so
	@$(MAKE) --no-print-directory -s -j2 CC=gcc $(SANITIZE) faulty
	@$${PYTHON-python3} -B test/faults/run.py $(BUILD)/segfm --library $(BUILD)/faults/allocate.so \
		--sanitized $$($(MAKE) -s CC=gcc $(SANITIZE) print-build)/faults/segfm $(if $(filter 1,$(QUICK)),--quick) $(FAULTS)

# Half an hour on two cores: a model from nothing but phantoms, scored on others.
learn: all
	@scripts/learn.sh $(BUILD)/segfm

# Training runs killed at random moments and resumed: does the last of them end with the bits of an undisturbed one?
KILLS ?= 100
kills:
	@$(MAKE) --no-print-directory -s -j2 $(BUILD)/segfm $(BUILD)/test/test_learn
	@OMP_WAIT_POLICY=passive SEGFM_KILLS=$(KILLS) $(BUILD)/test/test_learn

# Wrong numbers are planted in a copy of the tree, one at a time: the tests must notice each.
planted:
	@scripts/planted.sh

# The library as one file, build/amalgamation/segfm_amalgamation.c beside segfm.h; compiled and tested like the tree.
amalgamation:
	@$(MAKE) --no-print-directory -s -j2 $(BUILD)/segfm
	@scripts/amalgamation.sh $(BUILD) $(CC)

# What the library takes of a Cortex-M, and the same bits there, on emulated boards.
footprint:
	@$(MAKE) --no-print-directory -s -j2 $(BUILD)/segfm
	@scripts/footprint.sh $(BUILD)/segfm

lint:
	@scripts/lint.sh

format:
	@clang-format -i $(shell git ls-files '*.[ch]')

clean:
	rm -rf build segfm

# The public header is made whole: what it includes of the tree is put in its place.
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(BUILD)/segfm $(DESTDIR)$(PREFIX)/bin/segfm
	install -m 644 $(BUILD)/libsegfm.a $(DESTDIR)$(PREFIX)/lib/libsegfm.a
	sed -e '/#include "base\/status.h"/{r base/status.h' -e 'd}' segfm.h > $(BUILD)/segfm.h
	install -m 644 $(BUILD)/segfm.h $(DESTDIR)$(PREFIX)/include/segfm.h
	install -d $(DESTDIR)$(PREFIX)/share/segfm
	install -m 644 weights/default.segfm $(DESTDIR)$(PREFIX)/share/segfm/default.segfm

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/segfm $(DESTDIR)$(PREFIX)/lib/libsegfm.a $(DESTDIR)$(PREFIX)/include/segfm.h $(DESTDIR)$(PREFIX)/share/segfm/default.segfm

help:
	@echo 'make            build ./segfm'
	@echo 'make demo       segment a real brain scan, write mask and picture to build/demo'
	@echo 'make test       all tests (float, double, tiny tiles); no Python, no network'
	@echo 'make verify     compare with live PyTorch, tensor by tensor (installs it where apt may; FULL=0: not at full size)'
	@echo 'make bench      against PyTorch, ONNX Runtime, OpenBLAS, oneDNN (installs them where it may; QUICK=1, PUBLISH=1: docs/bench.md)'
	@echo 'make bench-metrics  distance transform, components, surface metrics, clicks against numpy and scipy'
	@echo 'make bench-training  a training step against PyTorch: time and memory'
	@echo 'make conformance  equal hashes from all compilers, levels, threads, machines? (installs them where apt may; QUICK=1: a third)'
	@echo 'make sanitize   the tests under address and undefined-behaviour sanitizers'
	@echo 'make malformed  800 bad files given to the command, cut and flipped ones to the parsers, also under the sanitizers'
	@echo 'make fuzz-smoke  libFuzzer on every parser: the corpus, then a minute each, two at a time (FUZZ_SECONDS=60)'
	@echo 'make fuzz       for long (FUZZ_SECONDS=3600 each, or until each has RUNS=10000000 executions behind it, earlier calls counted;'
	@echo '                TARGET=nifti: that parser alone); make corpus, make fuzz-keep: what it begins with'
	@echo 'make soak       10,000 random commands to a session, memory watched; the library the same under the sanitizers'
	@echo 'make longlife   2 hours of session, 1,000 cases of predict: memory, descriptors, threads watched (TIME=7200 CASES=1000)'
	@echo 'make geometry   masks of scans in 48 orientations and six kinds of file, checked in the world by nibabel; labels above 255 (QUICK=1)'
	@echo 'make faults     every allocation, file call and disk fails once, or the process is killed there (QUICK=1: a sample)'
	@echo 'make learn      trains a model on phantoms alone (half an hour), scores it on others'
	@echo 'make kills      100 kills of training runs at random moments: does a resumed one end with the same bits?'
	@echo 'make valgrind   the tests under valgrind'
	@echo 'make coverage   lines and branches that the tests go through, of each file; parsers: all lines'
	@echo 'make mutants    200 small random changes of nn, vol and io: do the tests notice them? (COUNT, SEED, FILES=pattern)'
	@echo 'make analyze    gcc -fanalyzer, clang-tidy, the tests under the sanitizers of unset memory and of threads'
	@echo 'make planted    wrong numbers planted in a copy of the tree: does a test notice each? (QUICK=1: a third)'
	@echo 'make amalgamation  the library as two files (build/amalgamation), tested as compiled by gcc, clang and tcc; no heap, no stdio'
	@echo 'make footprint  bytes of code, model, session and stack on Arm Cortex-M, and the same bits there (emulated; WEIGHTS=file)'
	@echo 'make lint       warnings of gcc and clang as errors, and what the house rules forbid'
	@echo 'make format     lays all sources out with clang-format'
	@echo 'make install    to PREFIX (/usr/local), honours DESTDIR; make uninstall'
	@echo 'make clean'
	@echo 'Options: CC=clang  REAL=double  OMP=0 (no threads)  NATIVE=1 (or make native)  ISA=generic  OPT=-O2'
