# segfm. `make help` lists the targets.
CC ?= gcc
REAL ?= float
OMP ?= 1
OPT ?= -O3
# `make native` or NATIVE=1: for this machine's processor alone. Same bits, more speed.
NATIVE ?= 0
PREFIX ?= /usr/local
# One folder of objects per kind of build, so that they never mix.
BUILD ?= build/$(notdir $(firstword $(CC)))-$(REAL)-omp$(OMP)-native$(NATIVE)$(OPT)$(VARIANT)

WARN = -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wvla
# -ffp-contract=off: a product and a sum stay two roundings on every machine. The other two let gcc vectorise selects;
# they change no bits.
FP = -ffp-contract=off -fno-trapping-math -fno-math-errno
CFLAGS_ALL = $(WARN) $(FP) $(OPT) -MMD -MP -D_POSIX_C_SOURCE=200809L $(CFLAGS)
ifeq ($(REAL),double)
CFLAGS_ALL += -DSEGFM_REAL_DOUBLE
endif
ifeq ($(OMP),1)
CFLAGS_ALL += -fopenmp
else
CFLAGS_ALL += -fopenmp-simd
endif
ifeq ($(NATIVE),1)
CFLAGS_ALL += -march=native
endif

LIB_SRC = $(wildcard base/*.c io/*.c weights/*.c nn/*.c nn/segvol/*.c vol/*.c) segfm.c
TOOL_SRC = $(wildcard tools/*.c)
TEST_SRC = $(wildcard test/test_*.c)
LIB_OBJ = $(LIB_SRC:%.c=$(BUILD)/%.o)
TOOL_OBJ = $(TOOL_SRC:%.c=$(BUILD)/%.o)
TESTS = $(TEST_SRC:test/%.c=$(BUILD)/test/%)

.DEFAULT_GOAL := all
.PHONY: all native demo test verify verify-full bench hash clean install help check-format

all: $(BUILD)/segfm segfm$(SUFFIX)

# The binary of the last plain build, where one looks for it.
ifeq ($(REAL),double)
SUFFIX = -double
endif
segfm$(SUFFIX): $(BUILD)/segfm
	@cp -f $< $@

$(BUILD)/libsegfm.a: $(LIB_OBJ)
	@rm -f $@
	@$(AR) rcs $@ $(LIB_OBJ)

$(BUILD)/segfm: $(TOOL_OBJ) $(BUILD)/libsegfm.a
	$(CC) $(CFLAGS_ALL) $(TOOL_OBJ) $(BUILD)/libsegfm.a -o $@ -lm

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c $< -o $@

$(BUILD)/test/%: test/%.c $(BUILD)/libsegfm.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $< $(BUILD)/libsegfm.a -o $@ -lm

-include $(LIB_OBJ:.o=.d) $(TOOL_OBJ:.o=.d) $(TESTS:=.d)
