/* check.h - the one way this program stops on a bug. Never compiled out. */
#ifndef SAILS_CHECK_H
#define SAILS_CHECK_H

#ifdef __cplusplus
extern "C" {
#endif

/* Prints "sails: FILE:LINE: FUNC: message" to stderr as one line, then aborts. */
__attribute__((noreturn, format(printf, 4, 5))) void die(const char *file, int line,
                                                         const char *func, const char *fmt, ...);

/* For broken contracts and broken machines. The message says what was expected and what came. */
#define CHECK(cond, ...)                                             \
    do {                                                             \
        if (!(cond)) die(__FILE__, __LINE__, __func__, __VA_ARGS__); \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
