/* grid.c - rates and seeds. */
#include "host/align/grid.h"

#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"

/* As it stands in a run's name. */
enum { RATE_NAME = 24 };
static const char *rate_name(char name[RATE_NAME], double rate) {
    snprintf(name, RATE_NAME, "%.9g", rate);
    return name;
}

static bool read_rate(Grid *g, const char *word, Err *err) {
    const Setting *lr = setting_find("train.lr");
    char *end;
    double rate = strtod(word, &end);
    if (end == word || *end || !(rate >= lr->least && rate <= lr->most))
        return err_set(err, EXIT_USAGE, "train.rates: expected numbers from %g to %g, found '%s'",
                       lr->least, lr->most, word);
    char name[RATE_NAME], other[RATE_NAME];
    for (int i = 0; i < g->nrate; i++)
        if (strcmp(rate_name(name, rate), rate_name(other, g->rate[i])) == 0)
            return err_set(err, EXIT_USAGE, "train.rates: %s is there twice", word);
    g->rate[g->nrate++] = rate;
    return true;
}

bool grid_read(Grid *g, const Settings *s, Err *err) {
    const double most = setting_find("seed")->most;
    int n = list_count(s->train.rates);
    *g = (Grid){.rate = mem_array((size_t)n + 1, sizeof *g->rate),
                .first_seed = s->run.seed,
                .seeds = s->train.seeds};
    if ((double)s->run.seed + s->train.seeds - 1 > most)
        return err_set(err, EXIT_USAGE, "train.seeds: %d from seed %d on go beyond %.0f",
                       s->train.seeds, s->run.seed, most);
    for (int i = 0; i < n; i++) {
        char word[SETTING_KEY] = "";
        list_item(s->train.rates, i, word, sizeof word);
        if (!read_rate(g, word, err)) return false;
    }
    return true;
}

void grid_free(Grid *g) {
    free(g->rate);
    *g = (Grid){0};
}

int grid_rates(const Grid *g, const Method *m) {
    return method_trains(m) && g->nrate > 0 ? g->nrate : 1;
}
int grid_seeds(const Grid *g, const Method *m) {
    return method_trains(m) ? g->seeds : 1;
}
int grid_subspaces(const Grid *g, const Method *m) {
    return m->start && subspace_of_any_seed(m->start->subspace) ? 1 : grid_seeds(g, m);
}

Cell grid_cell(const Grid *g, const Method *m, int rate, int seed, enum PromptPart part) {
    Cell c = {.part = part,
              .method = m,
              .lr = g->nrate ? g->rate[rate] : m->rate,
              .seed = g->first_seed + seed};
    char lr[RATE_NAME];
    if (grid_rates(g, m) == 1 && grid_seeds(g, m) == 1)
        snprintf(c.name, sizeof c.name, "%s", m->name);
    else
        snprintf(c.name, sizeof c.name, "%s.%s.seed%d", m->name, rate_name(lr, c.lr), c.seed);
    c.subspace_seed = grid_subspaces(g, m) == 1 ? g->first_seed : c.seed;
    if (grid_subspaces(g, m) == 1)
        snprintf(c.subspace, sizeof c.subspace, "%s", m->name);
    else
        snprintf(c.subspace, sizeof c.subspace, "%s.seed%d", m->name, c.seed);
    snprintf(c.replies, sizeof c.replies, "%s%s", c.name,
             part == PART_VALIDATION ? ".validation" : "");
    return c;
}

int grid_best(const Grid *g, const double *score, int seeds) {
    int best = 0;
    double most = 0;
    for (int i = 0; i < g->nrate; i++) {
        double sum = 0;
        for (int k = 0; k < seeds; k++) sum += score[i * seeds + k];
        bool better = sum > most || (sum == most && g->rate[i] < g->rate[best]);
        if (i == 0 || better) best = i, most = sum;
    }
    return best;
}
