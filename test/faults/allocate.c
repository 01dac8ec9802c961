/* The allocations of a process, counted; one of them fails. SEGFM_FAULT_AT: which, from 1; SEGFM_FAULT_ON: and all after it.
   SEGFM_FAULT_COUNT: a file that gets their number at exit.

   Two ways to be in a process of glibc's. As a library that is loaded first (LD_PRELOAD) it stands for malloc everywhere, so that
   libc's own allocations (fopen's, opendir's) fail too. With -DWRAPPED it is linked in with -Wl,--wrap=malloc and so on: then
   only the program's own calls come here, but a sanitizer can be below. What the loader and the threads' library take is let pass:
   their failures are not ours to handle. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

static unsigned long count, at;
static bool on, started;

__attribute__((constructor)) static void start(void) {
    const char *text = getenv("SEGFM_FAULT_AT");
    at = text != NULL ? strtoul(text, NULL, 10) : 0;
    on = getenv("SEGFM_FAULT_ON") != NULL;
    started = true;
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("SEGFM_FAULT_COUNT");
    started = false;
    FILE *file = path != NULL ? fopen(path, "w") : NULL;
    if (file == NULL) return;
    fprintf(file, "%lu\n", count);
    fclose(file);
}

static bool fails(const void *caller) {
#ifndef WRAPPED
    Dl_info info;
    if (!started || dladdr(caller, &info) == 0 || info.dli_fname == NULL) return false;
    if (strstr(info.dli_fname, "libgomp") != NULL || strstr(info.dli_fname, "/ld-linux") != NULL) return false;
#else
    (void)caller;
#endif
    if (!started) return false;
    count++;
    if (at == 0 || (on ? count < at : count != at)) return false;
    errno = ENOMEM;
    return true;
}

#define FAILS fails(__builtin_return_address(0))

#ifdef WRAPPED
void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t n) { return FAILS ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t m, size_t n) { return FAILS ? NULL : __real_calloc(m, n); }
void *__wrap_realloc(void *p, size_t n) { return FAILS ? NULL : __real_realloc(p, n); }
void *__wrap_aligned_alloc(size_t alignment, size_t n) { return FAILS ? NULL : __real_aligned_alloc(alignment, n); }
char *__wrap_strdup(const char *text) { return FAILS ? NULL : __real_strdup(text); }
#else
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);
void *malloc(size_t n) { return FAILS ? NULL : __libc_malloc(n); }
void *calloc(size_t m, size_t n) { return FAILS ? NULL : __libc_calloc(m, n); }
void *realloc(void *p, size_t n) { return FAILS ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t alignment, size_t n) { return FAILS ? NULL : __libc_memalign(alignment, n); }
int posix_memalign(void **out, size_t alignment, size_t n) {
    void *p = FAILS ? NULL : __libc_memalign(alignment, n);
    if (p != NULL) *out = p;
    return p != NULL ? 0 : ENOMEM;
}
#endif
