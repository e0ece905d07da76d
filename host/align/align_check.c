/* align_check.c - `sails align --check`: what a run needs and takes, before it starts.
 *
 * Data and prompts are read in earnest, of weights and SAEs the headers; nothing is loaded, and
 * nothing written. For each stage the memory, and its work over all of its runs:
 *
 *   runs     of training rates x seeds of the row; of the others all rows together
 *   tokens   that the model reads; of score and moments at most: twice the aligned replies' ones
 *   targets  among them
 *   made     tokens of replies, each as long as it may be
 *   used     share of the ranks' time (rank_share.h)
 *
 * From these and a rate come hours: of an H100 on paper, tools/reproduce/check.sh does it. */
#include <stdio.h>
#include <string.h>

#include "host/align/grid.h"
#include "host/cli/print.h"
#include "host/stage/rank_share.h"
#include "model/tensors.h"

bool align_check_flags(const Args *a, Err *err) {
    static const char *const of_check[] = {"plan.ranks", "plan.gpu-memory"};
    for (int i = 0; i < 2; i++) {
        if (a->source[args_find(of_check[i])] != FROM_FLAG) continue;
        const char *flag = strchr(of_check[i], '.') + 1;
        if (!a->s.run.check)
            return err_set(err, EXIT_USAGE,
                           "--%s: says for what --check plans; mpirun -np N starts ranks", flag);
        if (a->comm)
            return err_set(err, EXIT_USAGE,
                           "--%s: is for a plan of ranks that are not here; leave it out, or start "
                           "one process",
                           flag);
    }
    return true;
}

typedef struct Work {
    int runs, steps;
    double tokens, labels, made, used;
} Work;

/* What a run leaves on the disk, of all rows, and what its checkpoints take while it trains. */
typedef struct Disk {
    double model; /* a whole one */
    double adapters, models, checkpoints;
} Disk;

static double tokens_of(const Dataset *d, const size_t *index, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += d->doc[index ? index[i] : i].n;
    return sum;
}

static int runs_of_all(const Align *w, bool validation) {
    int n = 0;
    for (const Method *m = w->methods.row; m < w->methods.row + w->methods.n; m++)
        n += grid_seeds(&w->grid, m) * (validation ? grid_rates(&w->grid, m) : 1);
    return n;
}

static double prompt_tokens(const Prompts *p) {
    double sum = 0;
    for (int f = 0; f < PROMPT_FILES; f++)
        for (size_t i = 0; i < p->file[f].n; i++) sum += p->file[f].doc[p->file[f].index[i]].n;
    return sum;
}

/* Of all rows, on the prompts of the table and on those that a rate is chosen on. */
static Work generate_work(const Align *w) {
    Work k = {0};
    for (int part = PART_TEST; part <= PART_VALIDATION; part++) {
        bool validation = part == PART_VALIDATION;
        if (validation && !grid_chooses(&w->grid)) break;
        const Prompts *p = align_prompts(w, (enum PromptPart)part);
        int runs = runs_of_all(w, validation);
        k.runs += runs;
        k.tokens += runs * prompt_tokens(p);
        k.made += (double)runs * (double)p->n * w->s->generate.max_new_tokens;
    }
    return k;
}

static Work train_work(const Align *w, const Method *m) {
    Settings s = align_settings(w, m);
    TrainSetup t;
    align_train_setup(&t, w, &s);
    Examples e = train_examples(&t);
    double rows = 0, labels = 0;
    int ranks = plan_ranks(w->s, &w->r.ex),
        runs = grid_rates(&w->grid, m) * grid_seeds(&w->grid, m);
    for (size_t i = 0; i < e.n; i++) {
        PackSize size = example_size(&e, i);
        rows += size.rows, labels += size.labels;
    }
    double passes = t.steps_per_epoch > 0 ? runs * t.steps / t.steps_per_epoch : 0;
    return (Work){.runs = runs,
                  .steps = runs * t.steps,
                  .tokens = passes * rows,
                  .labels = passes * labels,
                  .used = rank_share(&t, ranks).used};
}

static Work work_of(const Align *w, const char *stage, const Method *row) {
    double train = tokens_of(&w->data, w->split.train, w->split.ntrain);
    bool text = *w->s->data.text;
    if (row) return train_work(w, row);
    if (strcmp(stage, "generate") == 0) return generate_work(w);
    if (strcmp(stage, "perplexity") == 0) {
        int runs = runs_of_all(w, false);
        double each = text ? tokens_of(&w->text, NULL, w->text.n)
                           : tokens_of(&w->data, w->split.held, w->split.nheld);
        return (Work){.runs = runs, .tokens = runs * each};
    }
    if (strcmp(stage, "inputs") == 0) return (Work){.runs = 1, .tokens = train};
    if (strcmp(stage, "outputs") == 0)
        return (Work){.runs = 1, .tokens = 2 * tokens_of(&w->kept, NULL, w->kept.n)};
    return (Work){.runs = 1, .tokens = *w->s->score.aligned ? 0 : 2 * train};
}

/* Of a row's weights, by the moments that its optimiser has of each, two numbers of four bytes. */
static void add_disk(Disk *d, const Align *w, const Method *m, const Work *k, const Plan *p) {
    double moments = 0;
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->item[i].name, "optimiser") == 0) moments = p->item[i].bytes;
    bool full = m->how == METHOD_FULL;
    if (full) moments *= plan_ranks(w->s, &w->r.ex); /* which share them out */
    double state = 1.5 * moments * (w->s->train.keep + 1);
    if (!full) d->adapters += k->runs * moments / 2;
    if (full) d->models += d->model * w->grid.seeds * (grid_chooses(&w->grid) ? 2 : 1);
    if (state > d->checkpoints) d->checkpoints = state;
}

/* ----------------------------------------------------------------------------- the words -- */

static const char *count_or_dash(char text[PRINT_ROOM], double n) {
    return n > 0 ? print_count(text, n) : "-";
}

static void print_line(const char *stage, const Method *row, const Work *k, const Plan *p) {
    char name[64], runs[PRINT_ROOM], steps[PRINT_ROOM], tokens[PRINT_ROOM], made[PRINT_ROOM];
    char device[PRINT_ROOM] = "-", host[PRINT_ROOM], used[PRINT_ROOM] = "-";
    double on_device = plan_total(p, PLAN_DEVICE);
    snprintf(name, sizeof name, "%s%s%s", stage, row ? " " : "", row ? row->name : "");
    if (on_device > 0) print_bytes(device, on_device);
    if (k->used > 0) snprintf(used, sizeof used, "%.0f %%", 100 * k->used);
    printf("%-24s %5s %7s %15s %15s %10s %10s %6s\n", name, count_or_dash(runs, k->runs),
           count_or_dash(steps, k->steps), count_or_dash(tokens, k->tokens),
           count_or_dash(made, k->made), device, print_bytes(host, plan_total(p, PLAN_ANONYMOUS)),
           used);
}

static void print_line_json(const char *stage, const Method *row, const Work *k, const Plan *p) {
    print_json(json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "stage", stage,
                         "row", row ? row->name : "", "runs", k->runs, "steps", k->steps, "tokens",
                         k->tokens, "labels", k->labels, "made", k->made, "used", k->used,
                         "device_bytes", plan_total(p, PLAN_DEVICE), "host_bytes",
                         plan_total(p, PLAN_ANONYMOUS)));
}

static bool line(void *context, Align *w, const char *stage, const Method *row, const Plan *p,
                 Err *err) {
    (void)err;
    Disk *disk = context;
    Work k = work_of(w, stage, row);
    if (row) add_disk(disk, w, row, &k, p);
    if (comm_root(w->r.ex.comm)) (w->s->run.json ? print_line_json : print_line)(stage, row, &k, p);
    return true;
}

static void print_head(const Align *w, const Config *c) {
    char parameters[PRINT_ROOM], train[PRINT_ROOM], held[PRINT_ROOM], prompts[PRINT_ROOM];
    printf("%s: %d layers of width %d, %s parameters\n", w->s->model.path, c->L, c->D,
           print_count(parameters, (double)tensors_parameters(c)));
    printf("%s documents to train on, %s held out; %s prompts\n",
           print_count(train, (double)w->split.ntrain), print_count(held, (double)w->split.nheld),
           print_count(prompts, (double)w->prompts.n));
    printf("\n%-24s %5s %7s %15s %15s %10s %10s %6s\n", "", "runs", "steps", "tokens",
           "replies' tokens", "device", "host", "used");
}

/* What raises the ranks' share, of documents and of pairs. */
static void print_share(const Align *w, int ranks) {
    bool said[2] = {false};
    for (const Method *m = w->methods.row; m < w->methods.row + w->methods.n; m++) {
        bool pairs = m->how == METHOD_DPO;
        if (!method_trains(m) || said[pairs]) continue;
        Settings s = align_settings(w, m);
        TrainSetup t;
        align_train_setup(&t, w, &s);
        printf("%s: ", pairs ? "pairs" : "documents");
        rank_share_print(stdout, &t, ranks);
        said[pairs] = true;
    }
}

static void print_disk(const Align *w, const Disk *d) {
    char adapters[PRINT_ROOM], models[PRINT_ROOM], checkpoints[PRINT_ROOM];
    if (w->s->run.json)
        print_json(json_pack("{s:s, s:f, s:f, s:f}", "stage", "disk", "adapters", d->adapters,
                             "models", d->models, "checkpoints", d->checkpoints));
    else
        printf("disk: adapters %s, whole models %s, checkpoints while a row trains %s\n",
               print_bytes(adapters, d->adapters), print_bytes(models, d->models),
               print_bytes(checkpoints, d->checkpoints));
}

bool align_check(Align *w, Err *err) {
    Disk disk = {0};
    Config c;
    bool root = comm_root(w->r.ex.comm), words = root && !w->s->run.json;
    if (!model_check(w->s->model.path, err) || !align_read_inputs(w, err) ||
        !config_load(&c, w->s->model.path, err))
        return false;
    disk.model = (double)tensors_parameters(&c) * (double)dtype_size(w->r.ex.dtype);
    if (words) print_head(w, &c);
    bool ok = runtime_ids_fit(w->r.tokenizer, &c, w->s->model.path, err) &&
              align_each_plan(w, line, &disk, err);
    int ranks = plan_ranks(w->s, &w->r.ex);
    if (ok && words) putchar('\n');
    if (ok && words && ranks > 1) print_share(w, ranks);
    if (ok && root) print_disk(w, &disk);
    config_free(&c);
    return ok && align_fits(w, err);
}
