/* method.c - which settings are whose, and the rates. */
#include "host/stage/method.h"

#include "host/cli/command.h"
#include "kernels/comm.h"

/* What a row may have that settings are for. */
enum Has {
    HAS_ADAPTER = 1,     /* not all weights */
    HAS_PAIRS = 2,       /* preference pairs */
    HAS_START = 4,       /* its adapter is made, not read */
    HAS_SUBSPACE = 8,    /* its adapter starts from a file of bases */
    HAS_STREAM = 16,     /* .. of the stream, at layers of their own */
    HAS_SCORES = 32,     /* .. which is made from scores */
    HAS_MOMENTS = 64,    /* .. or from moments */
    HAS_STATISTIC = 128, /* .. of the best features */
    HAS_FEATURES = 256,  /* .. of so many features as are asked for */
    HAS_PART = 512,      /* .. of a part of what these span */
    HAS_COLUMNS = 1024,  /* its bases are columns of the adapter */
    HAS_OUTPUTS = 2048,  /* .. or of outputs, of which some are kept */
    HAS_INPUTS = 4096    /* .. or of inputs, which may share ranks out */
};

/* What its subspace is made of (adapter_start.h). */
static unsigned has_of_subspace(enum SubspaceKind kind, int rank) {
    switch (kind) {
        case SUBSPACE_TOP:
            return HAS_STATISTIC | HAS_FEATURES | HAS_PART;
        case SUBSPACE_SPAN: /* as many as columns */
            return HAS_STATISTIC | (rank ? 0 : HAS_FEATURES);
        case SUBSPACE_RANDOM_FEATURES:
            return HAS_FEATURES | HAS_PART;
        default:
            return 0;
    }
}

static unsigned has(const Settings *s, TrainedRow row) {
    enum SubspaceKind kind = adapter_start[row.start].subspace;
    enum SubspaceSource source = subspace_source(kind);
    unsigned all = row.how == METHOD_DPO ? HAS_PAIRS : 0;
    if (row.weights == WEIGHTS_ALL) return all;
    all |= HAS_ADAPTER;
    if (*s->train.init_adapter) return all;
    all |= HAS_START;
    if (source == SOURCE_NONE) return all;
    all |= HAS_SUBSPACE | (source == SOURCE_OUTPUTS ? HAS_OUTPUTS : HAS_COLUMNS);
    all |= source == SOURCE_INPUTS ? HAS_INPUTS : source > SOURCE_INPUTS ? 0 : HAS_STREAM;
    all |= source == SOURCE_SCORES ? HAS_SCORES : source == SOURCE_MOMENTS ? HAS_MOMENTS : 0;
    return all | has_of_subspace(kind, s->train.rank);
}

typedef struct Own {
    const char *key;
    unsigned has;
} Own;
/* clang-format off */
static const Own own[] = {{"train.init", HAS_START},
                          {"train.init-adapter", HAS_ADAPTER},
                          {"train.subspace", HAS_SUBSPACE},
                          {"train.rank", HAS_START},
                          {"train.alpha", HAS_START},
                          {"train.targets", HAS_START},
                          {"train.gain", HAS_STREAM},
                          {"train.only-scored", HAS_STREAM},
                          {"train.basis-scale", HAS_COLUMNS},
                          {"train.freeze-basis", HAS_SUBSPACE},
                          {"train.rho", HAS_INPUTS},
                          {"train.redundancy", HAS_ADAPTER},
                          {"train.weights", HAS_PAIRS},
                          {"train.loss-type", HAS_PAIRS},
                          {"train.beta", HAS_PAIRS},
                          {"train.label-smoothing", HAS_PAIRS},
                          {"inputs.preserve", HAS_OUTPUTS},
                          {"inputs.preserve-rank", HAS_OUTPUTS},
                          {"inputs.samples", HAS_OUTPUTS},
                          {"subspace.scores", HAS_SCORES},
                          {"subspace.moments", HAS_MOMENTS},
                          {"subspace.by", HAS_STATISTIC},
                          {"subspace.top-k", HAS_FEATURES},
                          {"subspace.variance", HAS_PART},
                          {"subspace.center", HAS_PART},
                          {"subspace.weight-rows", HAS_PART}};
/* clang-format on */

/* Why no row takes it: the first thing that all of them lack. */
static const char *reason(unsigned wanted, unsigned there) {
    if (wanted == HAS_PAIRS) return "--method dpo alone has it";
    if (!(there & HAS_ADAPTER))
        return there & HAS_PAIRS
                   ? "it is for adapters, and --weights all trains the weights themselves"
                   : "it is for adapters, and --method full trains the weights themselves";
    if (!(there & HAS_START)) return "it is for a new adapter, and --init-adapter names an old one";
    if (wanted == HAS_OUTPUTS) return "it is for the start salora";
    if (wanted == HAS_INPUTS) return "it is for the start eva";
    if (wanted == HAS_SUBSPACE || (wanted & (HAS_STREAM | HAS_COLUMNS) && !(there & HAS_SUBSPACE)))
        return "it is for starts from a subspace";
    if (wanted == HAS_COLUMNS) return "salora's directions are no columns of the adapter";
    if (wanted == HAS_STREAM) return "it is for starts from directions of the stream";
    if (wanted == HAS_SCORES) return "it is for starts from features of an SAE";
    if (wanted == HAS_MOMENTS) return "it is for starts without an SAE, from the corpora's moments";
    if (wanted == HAS_STATISTIC) return "it is for starts from the best features of an SAE";
    if (wanted == HAS_PART)
        return "it is for starts from the span of so many features of an SAE that may leave some"
               " of it out";
    return "it is for starts from the span of so many features of an SAE";
}

TrainedRow method_row(const Settings *s) {
    return (TrainedRow){(enum TrainMethod)s->train.method,
                        settings_all_weights(s) ? WEIGHTS_ALL : WEIGHTS_ADAPTER,
                        (enum StartKind)s->train.init};
}

/* Of a table of n settings, those that no row has. */
static bool check_own(const Args *a, const Own *of, size_t n, unsigned there, Err *err) {
    for (size_t i = 0; i < n; i++) {
        int setting = args_find(of[i].key);
        char flag[SETTING_KEY];
        if (a->source[setting] != FROM_FLAG || there & of[i].has) continue;
        command_flag(a->command, setting, flag);
        return err_set(err, EXIT_USAGE, "--%s: %s; leave it out", flag, reason(of[i].has, there));
    }
    return true;
}

static unsigned has_any(const Args *a, const TrainedRow *row, int n) {
    unsigned there = 0;
    for (int i = 0; i < n; i++) there |= has(&a->s, row[i]);
    return there;
}

bool method_flags(const Args *a, const TrainedRow *row, int n, Err *err) {
    return n == 0 || check_own(a, own, sizeof own / sizeof *own, has_any(a, row, n), err);
}

bool method_saes(const Args *a, const TrainedRow *row, int n, Err *err) {
    static const Own sae[] = {{"score.sae", HAS_SCORES}};
    return n == 0 || check_own(a, sae, 1, has_any(a, row, n), err);
}

bool method_ranks(const Args *a, const TrainedRow *row, int n, Err *err) {
    TransportSeat seat = comm_seat(a->comm);
    if (seat.local_size == seat.size) return true;
    for (int i = 0; i < n; i++)
        if (row[i].weights == WEIGHTS_ALL)
            return err_set(err, EXIT_USAGE,
                           "%s: expected the ranks of one node, got %d ranks on several; start "
                           "them on one, or train an adapter",
                           row[i].how == METHOD_FULL ? "--method full" : "--weights all",
                           seat.size);
    return true;
}

double method_rate(const Args *a) {
    static const double usual[] = {[METHOD_FULL] = 2e-5, [METHOD_DPO] = 1e-5};
    static const double all_of_dpo = 1e-6;
    enum TrainMethod method = (enum TrainMethod)a->s.train.method;
    bool given = a->source[args_find("train.lr")] != FROM_DEFAULT;
    if (given || method == METHOD_LORA) return a->s.train.lr;
    return method == METHOD_DPO && settings_all_weights(&a->s) ? all_of_dpo : usual[method];
}
