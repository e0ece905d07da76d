/* cmd_doctor.c - what is wrong with this machine: one line per check, `ok`, `note` or `BAD`.
 *
 * A note costs speed or a feature, a BAD gives wrong results or none. The result is non-zero when
 * anything is BAD. */
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "data/tokenizer.h"
#include "data/base/mem.h"
#include "data/base/rng.h"
#include "host/cli/command.h"
#include "host/stage/board.h"
#include "host/stage/machine.h"
#include "host/stage/flops.h"
#include "host/cli/print.h"
#include "host/judge/endpoint.h"
#include "host/stage/runtime.h"
#include "host/stage/wait_policy.h"

enum Verdict { GOOD, NOTE, BAD };

typedef struct Doctor {
    json_t *rows; /* with --json */
    int bad;
} Doctor;

__attribute__((format(printf, 4, 5))) static void say(Doctor *d, enum Verdict v, const char *check,
                                                      const char *fmt, ...) {
    static const char *const name[] = {"ok", "note", "BAD"};
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->bad += v == BAD;
    if (d->rows)
        json_array_append_new(d->rows, json_pack("{s:s, s:s, s:s}", "check", check, "verdict",
                                                 name[v], "text", text));
    else
        printf("%-5s %-10s %s\n", name[v], check, text);
}

static void check_processor(Doctor *d, const Machine *m) {
    static const char *const level[] = {"none of this build", CPU_LEVELS(CHOICE_TEXT)};
    enum CpuLevel best = exec_cpu_level();
    say(d, best ? GOOD : BAD, "processor", "%s; --cpu auto means %s, --dtype auto %s",
        *m->cpu ? m->cpu : "unknown", level[best],
        dtype_name(machine_auto_dtype(DEVICE_CPU, best)));
    int threads = omp_get_max_threads();
    say(d, threads > m->processors ? NOTE : GOOD, "threads", "%d worker threads, %d processors%s",
        threads, m->processors,
        threads > m->processors ? ": more threads than processors slow every op down" : "");
    char policy[WAIT_POLICY_ROOM];
    say(d, GOOD, "waiting", "%s", wait_policy_name(policy));
}

static void check_memory(Doctor *d, const Machine *m) {
    char total[PRINT_ROOM], free_now[PRINT_ROOM], limit[PRINT_ROOM];
    print_bytes(total, m->memory);
    print_bytes(free_now, m->available);
    if (m->limit > 0)
        say(d, GOOD, "memory", "%s, %s available, %s allowed to this container", total, free_now,
            print_bytes(limit, m->limit));
    else
        say(d, m->memory > 0 ? GOOD : NOTE, "memory", "%s, %s available", total, free_now);
}

static void check_libraries(Doctor *d) {
    json_t *versions = machine_versions();
    CHECK(versions, "a JSON value could not be made");
    const char *name;
    json_t *value;
    json_object_foreach (versions, name, value) say(d, GOOD, name, "%s", json_string_value(value));
    json_decref(versions);
}

/* C = A B^T of noise by the op against a plain loop. The bound: each of K products is rounded once
 * in a sum of K terms, at most K 2^-23 relative to the sum of magnitudes; bf16 inputs are exact. */
enum { GEMM_M = 65, GEMM_N = 97, GEMM_K = 129 };

static double gemm_excess(const float *a, const float *b, const float *c) {
    double worst = 0;
    for (int i = 0; i < GEMM_M; i++)
        for (int j = 0; j < GEMM_N; j++) {
            double sum = 0, size = 0;
            for (int k = 0; k < GEMM_K; k++) {
                double p = (double)a[i * GEMM_K + k] * b[j * GEMM_K + k];
                sum += p;
                size += fabs(p);
            }
            double e = fabs(c[i * GEMM_N + j] - sum) / (size * GEMM_K * 0x1p-23);
            if (!(e <= worst)) worst = e; /* NaN is the worst */
        }
    return worst;
}

static bool gemm_right(Exec *ex) {
    size_t na = GEMM_M * GEMM_K, nb = GEMM_N * GEMM_K, nc = GEMM_M * GEMM_N;
    float *h = mem_array(na + nb + nc, sizeof *h);
    for (size_t i = 0; i < na + nb; i++) /* 8 bits: exact in both storage types */
        h[i] = (float)((int)rng_below(1, 2, i, 255) - 127) / 128;
    float *f = exec_alloc(ex, (na + nb + nc) * sizeof *f, "doctor f32");
    store *s = exec_alloc(ex, (na + nb) * dtype_size(ex->dtype), "doctor");
    exec_copy_in(ex, f, h, (na + nb) * sizeof *h);
    ex->op->cast(ex, s, f, na + nb);
    ex->op->gemm_f32(ex, f, GEMM_N, s, GEMM_K, store_at(ex->dtype, s, na), GEMM_K, GEMM_M, GEMM_N,
                     GEMM_K, GEMM_NT, 1, 0);
    exec_copy_out(ex, h + na + nb, f, nc * sizeof *h);
    bool right = gemm_excess(h, h + na, h + na + nb) <= 1;
    exec_free(ex, s);
    exec_free(ex, f);
    free(h);
    return right;
}

static void check_products(Doctor *d, const char *check, Exec *ex) {
    bool right = gemm_right(ex);
    double rate = flops_peak(ex);
    say(d, right ? GOOD : BAD, check, "%s matmul is %s, %.0f GFLOP/s", ex->op->name,
        right ? "right" : "WRONG: expected the sum of products within rounding", rate / 1e9);
    exec_close(ex);
}

/* Every level that runs here, or the one that was asked for. */
static void check_cpu(Doctor *d, enum CpuLevel wanted) {
    for (int l = CPU_LEAST; l < CPU_LEVEL_COUNT; l++)
        for (int t = 0; t < DTYPE_COUNT; t++) {
            Exec ex;
            if (wanted != CPU_AUTO && (int)wanted != l) continue;
            const char *why = exec_open_cpu(&ex, (enum CpuLevel)l, (enum Dtype)t);
            if (!why) check_products(d, "cpu", &ex);
            if (!why) continue;
            if ((int)wanted == l) say(d, BAD, "cpu", "%s", why);
            break; /* the other type fails for the same reason */
        }
}

static void check_cuda(Doctor *d) {
    for (int t = 0; t < DTYPE_COUNT; t++) {
        Exec ex;
        const char *why = exec_open(&ex, DEVICE_CUDA, (enum Dtype)t);
        if (why) {
            say(d, NOTE, "cuda", "%s", why);
            return;
        }
        check_products(d, "cuda", &ex);
    }
}

/* Only judges behind HTTP need it. */
static void check_http(Doctor *d) {
    Err err = {0};
    const char *library = endpoint_library(&err);
    say(d, library ? GOOD : NOTE, "http", "%s", library ? library : err.text);
}

static bool round_trip(Tokenizer *t, const char *text, Err *err) {
    Ids ids = {0};
    bool ok = tokenizer_encode(t, text, strlen(text), &ids, err);
    if (ok) {
        size_t n;
        char *back = tokenizer_decode(t, ids.id, ids.n, false, &n);
        ok = (n == strlen(text) && memcmp(back, text, n) == 0) ||
             err_set(err, EXIT_INPUT, "'%s' came back as '%s'", text, back);
        free(back);
    }
    ids_free(&ids);
    return ok;
}

/* The ids that the tokenizer gives must have rows in the embedding of the model, where one is
 * given. */
static bool ids_fit(const Tokenizer *t, const char *model, Err *err) {
    Config c;
    if (!*model) return true;
    if (!config_load(&c, model, err)) return false;
    bool ok = runtime_ids_fit(t, &c, model, err);
    config_free(&c);
    return ok;
}

static void check_tokenizer(Doctor *d, const char *path, const char *model) {
    static const char *const markers[] = {"<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"};
    Tokenizer *t;
    Err err = {0};
    if (!tokenizer_open(&t, path, &err)) {
        say(d, BAD, "tokenizer", "%s", err.text);
        return;
    }
    int missing = 0;
    for (int i = 0; i < 4; i++)
        if (tokenizer_id(t, markers[i]) < 0) {
            say(d, BAD, "tokenizer", "%s has no %s; chats cannot be rendered", path, markers[i]);
            missing++;
        }
    if (!round_trip(t, "Hello, world!\n  caf\xc3\xa9 \xf0\x9f\x99\x82", &err))
        say(d, BAD, "tokenizer", "%s: %s", path, err.text);
    else if (!ids_fit(t, model, &err))
        say(d, BAD, "tokenizer", "%s", err.text);
    else if (!missing)
        say(d, GOOD, "tokenizer", "%s: %d pieces, text comes back unchanged", path,
            tokenizer_vocab(t));
    tokenizer_close(t);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    if (*s->doctor.dumps) return board_report(s->doctor.dumps, err);
    Doctor d = {.rows = s->run.json ? json_array() : NULL};
    Machine m;
    machine_read(&m);
    if (s->run.threads) omp_set_num_threads(s->run.threads);
    check_processor(&d, &m);
    check_memory(&d, &m);
    check_libraries(&d);
    check_cpu(&d, (enum CpuLevel)s->run.cpu);
    check_cuda(&d);
    check_http(&d);
    const char *tokenizer = *s->model.tokenizer ? s->model.tokenizer : s->model.path;
    if (*tokenizer) check_tokenizer(&d, tokenizer, s->model.path);
    if (d.rows) print_json(json_pack("{s:o, s:i}", "checks", d.rows, "bad", d.bad));
    return !d.bad || err_set(err, EXIT_INTERNAL, "doctor: %d of the checks above failed", d.bad);
}

static const Use use[] = {{"model.path", USE_OPTIONAL},
                          {"model.tokenizer", USE_OPTIONAL},
                          {"doctor.dumps", USE_OPTIONAL},
                          {"threads", USE_OPTIONAL},
                          {"cpu", USE_OPTIONAL},
                          {"json", USE_OPTIONAL},
                          {NULL, USE_OPTIONAL}};

const Command cmd_doctor = {
    .name = "doctor",
    .summary = "what is wrong with this machine",
    .about =
        "Processor, memory, libraries, a matmul checked on every device and storage type, and\n"
        "with --model or --tokenizer the tokenizer. With --dumps what each rank of a job was "
        "doing\n"
        "when the watchdog ended it, instead.",
    .positional = POSITIONAL_NONE,
    .use = use,
    .run = run,
};
