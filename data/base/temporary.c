/* temporary.c - the list of what is not finished; several threads write. */
#include "data/base/temporary.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "data/base/files.h"
#include "data/base/mem.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char **noted;
static size_t n, capacity;
static bool closed;

void temporary_note(const char *path) {
    pthread_mutex_lock(&lock);
    noted = mem_grow(noted, &capacity, n + 1, sizeof *noted);
    noted[n++] = mem_string(path);
    pthread_mutex_unlock(&lock);
}

static void forget(const char *path) {
    size_t i = 0;
    while (i < n && strcmp(noted[i], path) != 0) i++;
    if (i == n) return;
    free(noted[i]);
    noted[i] = noted[--n];
}

void temporary_forget(const char *path) {
    pthread_mutex_lock(&lock);
    forget(path);
    pthread_mutex_unlock(&lock);
}

bool temporary_rename(const char *path, const char *place) {
    pthread_mutex_lock(&lock);
    bool ok = !closed && rename(path, place) == 0;
    int why = closed ? ECANCELED : errno;
    if (ok) forget(path);
    pthread_mutex_unlock(&lock);
    errno = why;
    return ok;
}

void temporary_remove_all(void) {
    pthread_mutex_lock(&lock);
    closed = true;
    for (size_t i = 0; i < n; i++) files_remove_tree(noted[i]);
    pthread_mutex_unlock(&lock);
}
