/* nearest.c - "did you mean": the known name nearest to a mistyped one. */
#include <string.h>

#include "host/cli/args.h"

enum { LONGEST = 63 };

static int min3(int a, int b, int c) {
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edit distance with swaps of neighbours (optimal string alignment); names of at most LONGEST. */
static int distance(const char *a, const char *b) {
    int n = (int)strlen(a), m = (int)strlen(b);
    int row[3][LONGEST + 1];
    int *before = row[0], *above = row[1], *now = row[2];
    for (int j = 0; j <= m; j++) above[j] = j;
    for (int i = 1; i <= n; i++) {
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int same = a[i - 1] == b[j - 1];
            now[j] = min3(above[j] + 1, now[j - 1] + 1, above[j - 1] + !same);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
        int *recycled = before;
        before = above, above = now, now = recycled;
    }
    return above[m];
}

const char *nearest_name(const char *word, const char *const *candidate, int n) {
    size_t len = strlen(word);
    if (len > LONGEST) return NULL;
    const char *best = NULL;
    int best_distance = (int)len / 3 + 1; /* more edits than this is another word */
    for (int i = 0; i < n; i++) {
        if (strlen(candidate[i]) > LONGEST) continue;
        int d = distance(word, candidate[i]);
        if (d < best_distance || (d == best_distance && !best)) {
            best = candidate[i];
            best_distance = d;
        }
    }
    return best;
}
