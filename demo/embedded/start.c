/* From reset to main on Arm's MPS2 boards: a Cortex-M with a serial line for output, and nothing of an operating system. Says how
   deep the stack has been. mps2.ld tells where things lie. */
#include <stdint.h>
#include <string.h>
#include <unistd.h>

extern uint32_t data_from[], data_begin[], data_end[], bss_begin[], bss_end[], stack_low[], stack_top[];
extern int main(void);
void reset(void);

/* The board's first serial line (CMSDK UART). */
typedef struct uart {
    uint32_t data, state, control, interrupt, divider;
} uart;
static volatile uart *const line = (volatile uart *)0x40004000;
enum { UART_FULL = 1, UART_TRANSMIT = 1 };

static volatile uint32_t *const reset_control = (volatile uint32_t *)0xE000ED0C; /* AIRCR */
static volatile uint32_t *const coprocessors = (volatile uint32_t *)0xE000ED88;  /* CPACR: who may use them */

enum { UNTOUCHED = 0x5AFE5AFE };

ssize_t write(int file, const void *bytes, size_t n) {
    (void)file;
    for (size_t i = 0; i < n; i++) {
        while ((line->state & UART_FULL) != 0) continue;
        line->data = ((const unsigned char *)bytes)[i];
    }
    return (ssize_t)n;
}

/* Resets the machine; an emulator that is told not to start again ends. */
static void leave(void) {
    for (;;) *reset_control = 0x05FA0004;
}

static void fault(void) {
    static const char what[] = "fault\n";
    write(1, what, sizeof what - 1);
    leave();
}

static void say_stack(void) {
    const uint32_t *deepest = stack_low;
    char text[] = "stack                                       \n";
    while (*deepest == UNTOUCHED) deepest++;
    size_t bytes = (size_t)((const char *)stack_top - (const char *)deepest), at = sizeof text - 2;
    do text[--at] = (char)('0' + bytes % 10);
    while ((bytes /= 10) > 0);
    write(1, text, sizeof text - 1);
}

/* The stack pointer and 15 exceptions. */
typedef struct vector_table {
    uint32_t *stack;
    void (*handler[15])(void);
} vector_table;
extern const vector_table vectors;
const vector_table vectors __attribute__((section(".vectors"))) = {
    stack_top,
    {reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault}};

void reset(void) {
    *coprocessors |= 0xFU << 20; /* 10 and 11: the floating-point unit */
    memcpy(data_begin, data_from, (size_t)((char *)data_end - (char *)data_begin));
    memset(bss_begin, 0, (size_t)((char *)bss_end - (char *)bss_begin));
    volatile uint32_t *here = __builtin_frame_address(0); /* volatile, or gcc calls memset, whose frame is in the way */
    for (volatile uint32_t *p = stack_low; p < here - 64; p++) *p = UNTOUCHED;
    line->divider = 16;
    line->control = UART_TRANSMIT;
    static const char *const ends[] = {"ended well\n", "failed\n"};
    const char *end = ends[main() != 0];
    say_stack();
    write(1, end, strlen(end));
    leave();
}
