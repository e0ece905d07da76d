/* err.c - sentences for people, and the exit code that goes with them. */
#include "data/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void one_line(char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
}

bool err_set(Err *err, enum ExitCode code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    one_line(err->text);
    err->code = code;
    return false;
}

bool err_remedy(Err *err, const char *remedy) {
    size_t n = strlen(err->text), most = sizeof err->text - 1 - strlen(remedy) - 2;
    if (n > most) n = most;
    snprintf(err->text + n, sizeof err->text - n, "; %s", remedy);
    return false;
}

bool err_prefix(Err *err, const char *fmt, ...) {
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    size_t room = sizeof err->text - 1;
    strncat(err->text, ": ", room - strlen(err->text));
    strncat(err->text, old, room - strlen(err->text));
    one_line(err->text);
    return false;
}
