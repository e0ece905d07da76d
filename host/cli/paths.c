/* paths.c - paths in a recipe, seen from the recipe's folder. */
#include "host/cli/paths.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"

char *path_home(const char *path) {
    const char *home = getenv("HOME");
    bool short_form = path[0] == '~' && (path[1] == 0 || path[1] == '/');
    if (!short_form || !home || !*home) return mem_string(path);
    return path[1] ? files_join(home, path + 2) : mem_string(home);
}

char *path_beside(const char *recipe, const char *path) {
    const char *slash = strrchr(recipe, '/');
    if (!slash || path[0] == '/' || path[0] == '~' || path[0] == 0) return mem_string(path);
    while (path[0] == '.' && path[1] == '/') path += 2;
    char *folder = mem_string(recipe);
    folder[slash == recipe ? 1 : slash - recipe] = 0;
    if (strcmp(path, ".") == 0 || path[0] == 0) return folder;
    char *whole = files_join(folder, path);
    free(folder);
    return whole;
}

char *path_absolute(const char *path) {
    char *here = path[0] == '/' || path[0] == 0 ? NULL : getcwd(NULL, 0);
    if (!here) return mem_string(path);
    char *whole = files_join(here, path);
    free(here);
    return whole;
}

/* ------------------------------------------------------------------------------- the hub -- */

enum { VERSION = 256 };

/* The name of the one version, or "" and why not. */
static bool find_version(char version[VERSION], const char *snapshots, Err *err) {
    char list[512] = "";
    int n = 0;
    DIR *d = opendir(snapshots);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        snprintf(version, VERSION, "%s", e->d_name);
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", n++ ? ", " : "", e->d_name);
    }
    if (d) closedir(d);
    if (n == 1) return true;
    return err_set(err, EXIT_INPUT,
                   "%s: expected refs/main beside it, or one version in it, found %d%s%s; name one",
                   snapshots, n, n ? ": " : "", list);
}

/* What refs/main says, where that version is there. */
static bool main_version(char version[VERSION], const char *repository, const char *snapshots) {
    char *file = files_join(repository, "refs/main"), *text;
    size_t n;
    Err ignored;
    bool ok = files_exists(file) && files_read(&text, &n, file, VERSION - 1, &ignored);
    free(file);
    if (!ok) return false;
    snprintf(version, VERSION, "%.*s", (int)strcspn(text, " \r\n"), text);
    free(text);
    char *folder = files_join(snapshots, version);
    ok = *version && !strchr(version, '/') && version[0] != '.' && files_exists(folder);
    free(folder);
    return ok;
}

/* Past the component of a repository whose next one is not already in its insides; NULL: none. */
static const char *repository_end(const char *path) {
    for (const char *p = path; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL) {
        if (strncmp(p, "models--", 8) != 0 && strncmp(p, "datasets--", 10) != 0) continue;
        const char *end = p + strcspn(p, "/"), *next = end + strspn(end, "/");
        static const char *const inside[] = {"snapshots", "refs", "blobs"};
        for (int i = 0; i < 3; i++) {
            size_t n = strlen(inside[i]);
            if (strncmp(next, inside[i], n) == 0 && (next[n] == 0 || next[n] == '/')) return NULL;
        }
        return end;
    }
    return NULL;
}

bool path_snapshot(char **to, const char *path, Err *err) {
    const char *end = repository_end(path);
    *to = mem_string(path);
    if (!end) return true;
    char version[VERSION];
    char *repository = mem_string(path);
    repository[end - path] = 0;
    char *snapshots = files_join(repository, "snapshots");
    bool there = files_exists(snapshots), ok = true;
    if (there)
        ok = main_version(version, repository, snapshots) || find_version(version, snapshots, err);
    if (there && ok) {
        char *folder = files_join(snapshots, version);
        free(*to);
        const char *rest = end + strspn(end, "/");
        *to = *rest ? files_join(folder, rest) : mem_string(folder);
        free(folder);
    }
    free(snapshots);
    free(repository);
    if (!ok) free(*to), *to = NULL;
    return ok;
}
