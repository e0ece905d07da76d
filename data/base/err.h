/* err.h - how a bad input is reported: one sentence, filled where it happens, printed by main.
 *
 * A function that can meet bad input returns bool and takes an Err as its last argument. On
 * failure it returns false after exactly one err_set; on success the Err is untouched. A bug or
 * a broken machine is no bad input: that is CHECK (kernels/check.h). */
#ifndef SAILS_ERR_H
#define SAILS_ERR_H

#include <stdbool.h>

/* The program's exit codes. The values are part of its interface. */
enum ExitCode {
    EXIT_DONE = 0,
    EXIT_INTERNAL = 1, /* a bug, or the machine broke under us (disk full, read error) */
    EXIT_USAGE = 2,    /* command line or recipe: unknown flag, missing value, bad range */
    EXIT_INPUT = 3,    /* a file that the user gave is missing, broken or inconsistent */
    EXIT_MEMORY = 4,   /* does not fit; said before any work */
    EXIT_RANK = 5,     /* a rank or a collective failed */
    EXIT_NUMBERS = 6,  /* a loss or a tensor is no longer finite */
    EXIT_STOPPED = 7   /* a signal asked for it; the state is saved, --resume goes on from there */
};

typedef struct Err {
    enum ExitCode code;
    char text[1024]; /* one line, no newline: file, place, what was expected, remedy */
} Err;

/* Fills err and returns false, so that "return err_set(...)" reads as the failure it is. Control
 * characters in the formatted text (file names and keys may hold any byte) are shown as '?'. */
__attribute__((format(printf, 3, 4))) bool err_set(Err *err, enum ExitCode code, const char *fmt,
                                                   ...);

/* Puts "text: " in front of a failure already set. Returns false. */
__attribute__((format(printf, 2, 3))) bool err_prefix(Err *err, const char *fmt, ...);

/* Puts "; remedy" behind a failure already set: what its user can do about it. A text too long for
 * both loses its end, never the remedy. Returns false. */
bool err_remedy(Err *err, const char *remedy);

#endif
