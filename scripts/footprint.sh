#!/bin/sh
# footprint.sh SEGFM: what the library takes of a small machine, and that it runs there. Compiles the amalgamation and
# demo/embedded (no heap, no files, no operating system) for Arm Cortex-M, runs the program on emulated MPS2 boards and compares
# its hashes of logits and mask with those of the same program on this machine. Everything goes to build/footprint.
# Models: the formula's tiny one, and one of the sizes of recipes/phantoms.conf (make learn), a step old, both in half precision; or
# WEIGHTS=file. RUN: cores to run, of m7 (floats and doubles in hardware), m4 (floats only), m3 (neither: a minute).
# Needs gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm; without them it is skipped.
cd "$(dirname "$0")/.." || exit 1
segfm=$(realpath "$1") out=build/footprint
mkdir -p "$out"
passed=0 failed=0 skipped=0
for tool in arm-none-eabi-gcc qemu-system-arm; do
    command -v $tool >/dev/null 2>&1 && continue
    echo "skipped: no $tool"
    skipped=$((skipped + 1))
done
if [ $skipped -eq 0 ] && ! echo '#include <string.h>' | arm-none-eabi-gcc -fsyntax-only -x c - 2>/dev/null; then
    echo 'skipped: no libnewlib-arm-none-eabi'
    skipped=1
fi
if [ $skipped -gt 0 ]; then
    echo "$skipped skipped"
    exit 0
fi

check() { # title, whether it holds (0: yes)
    if [ "$2" -eq 0 ]; then passed=$((passed + 1)) && echo "passed: $1"; else failed=$((failed + 1)) && echo "failed: $1"; fi
}

amalgamation=build/amalgamation
python3 scripts/amalgamate.py $amalgamation >/dev/null || exit 1
options="-std=c11 -Os -fno-math-errno -ffunction-sections -fdata-sections -DSEGFM_NO_MALLOC -DNDEBUG -I$amalgamation"
warnings='-Wall -Wextra -Wshadow -Wconversion -Werror'

# What each core is to the compiler, its board, and where the board has 16 MB.
describe() {
    case $1 in
    m7) flags='-mcpu=cortex-m7 -mfpu=fpv5-d16 -mfloat-abi=hard -mthumb' board=mps2-an500 psram=0x60000000 ;;
    m4) flags='-mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard -mthumb' board=mps2-an386 psram=0x21000000 ;;
    m3) flags='-mcpu=cortex-m3 -mthumb' board=mps2-an385 psram=0x21000000 ;;
    esac
}

link() { # program, objects and options…; what describe said of the core
    program=$1
    shift
    arm-none-eabi-gcc $flags -nostdlib -Wl,--gc-sections -Wl,--defsym=PSRAM=$psram -T demo/embedded/mps2.ld "$@" \
        -Wl,--start-group -lc -lm -lgcc -Wl,--end-group -o "$program"
}

# ---- size of the code -----------------------------------------------------------------------------------------------
arm-none-eabi-gcc --version | head -n 1
printf '%-11s %8s %5s %4s   %s\n' library text data bss 'bytes, -Os, all of it; and what a program that uses it links'
for core in m7 m4 m3; do
    describe $core
    for source in $amalgamation/segfm_amalgamation demo/embedded/main demo/embedded/start; do
        arm-none-eabi-gcc $flags $options $warnings -c $source.c -o "$out/$core-$(basename $source).o" || exit 1
    done
    link "$out/$core.elf" "$out/$core"-*.o -Wl,--defsym=_binary_weights_segfm_start=0 \
        -Wl,--defsym=_binary_weights_segfm_end=0 || exit 1 # without weights
    set -- $(arm-none-eabi-size "$out/$core-segfm_amalgamation.o" | tail -n 1)
    printf 'Cortex-%-4s %8d %5d %4d   %d with libc, libgcc and the program\n' "$(echo $core | tr m M)" "$1" "$2" "$3" \
        "$(arm-none-eabi-size -A "$out/$core.elf" | awk '$1 == ".text" { print $2 }')"
    [ "$2$3" = 00 ]
    check "$core: the library has no variables" $?
    ! arm-none-eabi-nm "$out/$core.elf" | grep -E ' [TtWw] _*(malloc|calloc|realloc|sbrk|free|printf)(_r)?$'
    check "$core: there is no allocator and no printf in the program" $?
done

# ---- memory, and the same bits ------------------------------------------------------------------------------------------
make_models() {
    if [ -n "${WEIGHTS-}" ]; then
        mkdir -p "$out/given" && cp "$WEIGHTS" "$out/given/weights.segfm" && echo given
        return
    fi
    mkdir -p "$out/tiny" "$out/phantoms"
    "$segfm" convert formula:tiny --half -o "$out/tiny/weights.segfm" --quiet >&2 &&
        "$segfm" train --config recipes/phantoms.conf --steps 1 --out "$out/phantoms/run" --quiet >&2 &&
        "$segfm" convert "$out/phantoms/run/last.segfm" -o "$out/phantoms/x.pth" --quiet >&2 &&
        "$segfm" convert "$out/phantoms/x.pth" --half -o "$out/phantoms/weights.segfm" --quiet >&2 && echo tiny phantoms
}
rm -rf "$out/tiny" "$out/phantoms" "$out/given"
models=$(make_models)
[ -n "$models" ] || exit 1
for model in $models; do
    dir=$out/$model
    (cd "$dir" && ld -r -b binary -z noexecstack -o host-weights.o weights.segfm &&
        arm-none-eabi-ld -r -b binary -o weights.o weights.segfm) || exit 1
    ${CC:-gcc} $options $warnings -D_POSIX_C_SOURCE=200809L demo/embedded/main.c $amalgamation/segfm_amalgamation.c \
        "$dir/host-weights.o" -o "$dir/host" -lm && "$dir/host" >"$dir/host.log" || exit 1
    for core in ${RUN:-m7 m4}; do
        describe $core
        link "$dir/$core.elf" "$out/$core"-*.o "$dir/weights.o" || exit 1
        timeout 600 qemu-system-arm -M $board -kernel "$dir/$core.elf" -display none -monitor none -serial stdio -no-reboot \
            </dev/null >"$dir/$core.log" 2>&1
        echo "model $model on $board, a Cortex-$(echo $core | tr m M); bytes:"
        sed 's/^/    /' "$dir/$core.log"
        grep -q '^ended well' "$dir/$core.log" && [ "$(grep -c '^hash' "$dir/host.log")" -eq 2 ] &&
            [ "$(grep '^hash' "$dir/host.log")" = "$(grep '^hash' "$dir/$core.log")" ]
        check "$model on $core: logits and mask as on this machine" $?
    done
done

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
