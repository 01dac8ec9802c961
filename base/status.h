/* The library's vocabulary of results. This file is part of the public header segfm.h. */
#ifndef SEGFM_STATUS_H
#define SEGFM_STATUS_H

/* The numbers are the exit codes of the segfm command. */
typedef enum segfm_status {
    SEGFM_OK = 0,
    SEGFM_CHECK_FAILED = 1, /* a comparison that was asked for did not hold */
    SEGFM_BAD_USAGE = 2,    /* the caller's arguments cannot be meant */
    SEGFM_BAD_INPUT = 3,    /* a file or buffer is malformed or unsupported */
    SEGFM_NO_MEMORY = 4,
    SEGFM_WRITE_FAILED = 5,
    SEGFM_CANCELLED = 6 /* the progress callback asked to stop */
} segfm_status;

/* One sentence about a failure. `where` names the file (empty when there is none), `message` says what (offset or
   name), got, needed. Both are always terminated. A function that succeeds leaves the struct alone. */
typedef struct segfm_error {
    segfm_status status;
    char where[256];
    char message[384];
} segfm_error;

#endif
