/* cmd_bench.c - what ops, steps and passes cost on this device. */
#include <omp.h>
#include <stdio.h>

#include "host/bench/bench.h"
#include "host/cli/command.h"
#include "host/stage/machine.h"
#include "host/stage/method.h"
#include "host/stage/preference.h"
#include "host/cli/print.h"

/* What was measured where, so that a table explains itself; as comments in CSV. */
static void print_peaks(const Bench *b) {
    const char *mark = b->s->bench.csv ? "# " : "";
    const Peak *p = &b->peak;
    printf("%s%s, %s, %d threads, sails %s %s\n", mark, b->machine, b->r->ex.op->name,
           omp_get_max_threads(), SAILS_VERSION, SAILS_COMMIT);
    printf("%smeasured peaks: products %.0f GFLOP/s, ", mark, 1e-9 * p->products);
    if (p->vectors > 0) printf("f32 %.0f GFLOP/s, ", 1e-9 * p->vectors);
    printf("memory %.1f GB/s\n", 1e-9 * p->bytes);
}

/* What --step trains, which is a LoRA unless --method or --weights says otherwise. */
static bool check_method(const Args *a, Err *err) {
    const Settings *s = &a->s;
    TrainedRow row = method_row(s);
    row.start = START_LORA;
    if (s->bench.step)
        return method_flags(a, &row, 1, err) && method_ranks(a, &row, 1, err) &&
               preference_check(s, err) && settings_check_training_pack(s, err);
    if (a->source[args_find("train.method")] != FROM_DEFAULT ||
        a->source[args_find("train.weights")] != FROM_DEFAULT)
        return err_set(err, EXIT_USAGE, "bench: --method and --weights are for --step");
    return settings_check_packs(s, err);
}

static bool check(const Args *a, Err *err) {
    const Settings *s = &a->s;
    int modes = s->bench.ops + s->bench.step + s->bench.score + s->bench.derive;
    if (modes != 1)
        return err_set(err, EXIT_USAGE, "bench: expected one of --ops, --step, --score, --derive");
    if (s->bench.cluster && !s->bench.derive)
        return err_set(err, EXIT_USAGE, "bench: --cluster is for --derive");
    if (s->bench.once && !s->bench.ops)
        return err_set(err, EXIT_USAGE, "bench: --once is for --ops");
    bool run = s->bench.step || s->bench.score;
    if (run && (!*s->model.path || !*s->data.path))
        return err_set(err, EXIT_USAGE, "bench: --model and --data are needed for --step, --score");
    if (s->bench.score && (!*s->score.sae || !*s->score.layers))
        return err_set(err, EXIT_USAGE, "bench: --sae and --layers are needed for --score");
    return check_method(a, err);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    if (!check(a, err)) return false;
    if (s->bench.derive) return bench_derive(s, err);
    Runtime r = {0};
    Bench b = {.s = s, .r = &r};
    bool ok = runtime_device(&r, s, a->comm, err) && (s->bench.ops || runtime_ids(&r, s, err));
    if (ok) {
        Machine m;
        machine_read(&m);
        const char *card = exec_card(&r.ex);
        snprintf(b.machine, sizeof b.machine, "%s", card ? card : m.cpu);
        b.peak = device_peak_measure(&r.ex);
        print_peaks(&b);
        ok = s->bench.ops    ? bench_ops(&b, err)
             : s->bench.step ? bench_step(&b, err)
                             : bench_score(&b, err);
    }
    runtime_close(&r, ok);
    return ok;
}

static const Use use[] = {ONLY("bench.*"),
                          ONLY("model.path"),
                          ONLY("model.tokenizer"),
                          ONLY("model.device"),
                          ONLY("model.dtype"),
                          ONLY("data.path"),
                          ONLY("data.limit"),
                          ONLY("data.side"),
                          ONLY("data.max-length"),
                          ONLY("data.pack-tokens"),
                          ONLY("score.sae"),
                          ONLY("score.layers"),
                          ONLY("score.tokens"),
                          ONLY("score.pool"),
                          ONLY("score.products"),
                          ONLY("train.method"),
                          ONLY("train.weights"),
                          ONLY("train.rank"),
                          ONLY("train.alpha"),
                          ONLY("train.targets"),
                          ONLY("train.batch"),
                          ONLY("seed"),
                          ONLY("threads"),
                          ONLY("deadline"),
                          ONLY("cpu"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_bench = {
    .name = "bench",
    .summary = "what every op, a training step or a scoring pass costs on this device",
    .about =
        "One of --ops, --step, --score and --derive. Times stand beside what the device's peaks\n"
        "allow for the bytes that must move and the FLOPs that must be done; the peaks are\n"
        "measured first. A step has --batch documents of --data, or pairs with --method dpo,\n"
        "whose packs need --pack-tokens rows, and trains a LoRA, or all weights with\n"
        "--method full or --weights all; a pass has --limit pairs. --model may be random\n"
        "(sails init): values do not matter.",
    .positional = POSITIONAL_NONE,
    .ranks = true,
    .use = use,
    .run = run,
};
