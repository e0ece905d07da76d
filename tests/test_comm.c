/* Comm alone, on 1 to 8 ranks: every call brings what its contract says, parts that are uneven or
 * empty too; the bytes sent are the formula's; and a tree of gradients has the bits of one rank. */
#include "kernels/comm.h"

#include <math.h>

#include "host/cli/command.h"
#include "kernels/comm_impl.h"
#include "model/grad_tree.h"
#include "tests/ranks.h"

static const int sizes[] = {1, 2, 3, 4, 8};

/* ------------------------------------------------------------------------- between hosts -- */

static void test_share(Comm *c) {
    int all[16][3] = {{0}}, rank = comm_rank(c);
    for (int j = 0; j < 3; j++) all[rank][j] = 10 * rank + j;
    comm_share(c, "numbers", all, sizeof all[0]);
    for (int r = 0; r < comm_size(c); r++)
        for (int j = 0; j < 3; j++) EXPECT(all[r][j] == 10 * r + j, "share: %d", all[r][j]);
}

static void test_broadcast(Comm *c) {
    enum { N = 100000 };
    static int x[N];
    for (int i = 0; i < N; i++) x[i] = comm_root(c) ? 7 * i : -1;
    comm_broadcast(c, "numbers", x, sizeof x);
    int bad = 0;
    for (int i = 0; i < N; i++) bad += x[i] != 7 * i;
    EXPECT(bad == 0, "broadcast: %d of %d differ", bad, N);
}

/* Rank r gives 1000 r bytes: rank 0 none. */
static void test_collect(Comm *c) {
    void *part[16] = {0};
    size_t n[16] = {0}, own_n = 1000 * (size_t)comm_rank(c);
    char *own = mem_array(own_n, 1);
    memset(own, comm_rank(c), own_n);
    comm_collect(c, "bytes", own, own_n, part, n);
    for (int r = 0; comm_root(c) && r < comm_size(c); r++) {
        int bad = 0;
        for (size_t i = 0; i < n[r]; i++) bad += ((char *)part[r])[i] != r;
        EXPECT(n[r] == 1000 * (size_t)r && bad == 0, "collect: %zu bytes of rank %d", n[r], r);
        free(part[r]);
    }
    free(own);
}

/* ----------------------------------------------------------------------- between devices -- */

static float value(int rank, size_t i) {
    return (float)rank + (float)i / 8192;
}

/* Bytes that a rank gives: all of x but its own part, if it is a giver. */
static size_t given(const Comm *c, size_t n, int givers) {
    return comm_rank(c) < givers ? (n - comm_part(comm_all(c), n, comm_rank(c)).n) * sizeof(float)
                                 : 0;
}

static void test_exchange(Comm *c, Exec *ex, size_t n, int givers) {
    int rank = comm_rank(c);
    CommPart own = comm_part(comm_all(c), n, rank);
    size_t rows = (size_t)givers * own.n;
    float *host = mem_array(n + rows, sizeof *host);
    float *x = exec_alloc(ex, n * sizeof *x, "x"),
          *parts = exec_alloc(ex, rows * sizeof *x, "parts");
    for (size_t i = 0; i < n; i++) host[i] = value(rank, i);
    exec_copy_in(ex, x, host, n * sizeof *x);
    size_t sent = comm_work(c).sent;
    comm_exchange(c, ex, comm_all(c), "x", parts, x, n, givers);
    comm_arrived(c, ex);
    sent = comm_work(c).sent - sent;
    exec_copy_out(ex, host, parts, rows * sizeof *x);
    int bad = 0;
    for (int r = 0; r < givers; r++)
        for (size_t i = 0; i < own.n; i++)
            bad += host[(size_t)r * own.n + i] != value(r, own.at + i);
    EXPECT(bad == 0, "exchange of %zu by %d: %d differ", n, givers, bad);
    EXPECT(sent == (c ? given(c, n, givers) : 0), "exchange of %zu: %zu bytes sent", n, sent);
    exec_free(ex, parts), exec_free(ex, x);
    free(host);
}

static void test_all_gather(Comm *c, Exec *ex, size_t n) {
    int rank = comm_rank(c), size = comm_size(c);
    CommPart own = comm_part(comm_all(c), n, rank);
    float *host = mem_array(n, sizeof *host), *x = exec_alloc(ex, n * sizeof *x, "x");
    for (size_t i = 0; i < n; i++) host[i] = i - own.at < own.n ? value(rank, i) : -1;
    exec_copy_in(ex, x, host, n * sizeof *x);
    size_t sent = comm_work(c).sent;
    comm_all_gather(c, ex, comm_all(c), "x", x, n);
    comm_arrived(c, ex);
    sent = comm_work(c).sent - sent;
    exec_copy_out(ex, host, x, n * sizeof *x);
    int bad = 0;
    for (int r = 0; r < size; r++) {
        CommPart p = comm_part(comm_all(c), n, r);
        for (size_t i = p.at; i < p.at + p.n; i++) bad += host[i] != value(r, i);
    }
    EXPECT(bad == 0, "all-gather of %zu: %d differ", n, bad);
    EXPECT(sent == (c ? own.n * sizeof *x * (size_t)(size - 1) : 0), "all-gather of %zu: %zu bytes",
           n, sent);
    exec_free(ex, x);
    free(host);
}

/* Parts tile what is shared out, whatever its size. */
static void test_parts(Comm *c) {
    static const size_t n[] = {0, 1, 63, 64, 65, 1000, 4096, 71000000};
    for (size_t k = 0; k < sizeof n / sizeof *n; k++) {
        size_t at = 0;
        for (int r = 0; r < comm_size(c); r++) {
            CommPart p = comm_part(comm_all(c), n[k], r);
            EXPECT(p.at == at && (p.at % 64 == 0 || p.n == 0), "part %d of %zu", r, n[k]);
            at += p.n;
        }
        EXPECT(at == n[k], "parts of %zu end at %zu", n[k], at);
    }
}

/* ------------------------------------------------------------------- the tree of gradients -- */

enum { ELEMENTS = 1000, MOST = 19 };

/* Magnitudes far apart: another order gives other bits. */
static float leaf(int pack, int i) {
    return (float)(test_noise((uint64_t)pack, (uint64_t)i) * pow(2, (pack * 7 + i) % 23));
}

/* In packs that N ranks take in turn. */
static void run_tree(float *sum, GradTree *t, int packs, int rank, int ranks) {
    Params *p = t->params;
    float g[ELEMENTS];
    for (int first = 0; first < packs; first += ranks) {
        int givers = packs - first < ranks ? packs - first : ranks;
        for (int i = 0; i < ELEMENTS; i++) g[i] = leaf(first + rank, i);
        if (rank < givers) exec_copy_in(p->ex, p->param[0].grad, g, sizeof g);
        (first + ranks < packs ? grad_tree_add : grad_tree_finish)(t, givers);
    }
    exec_copy_out(p->ex, sum, p->param[0].grad, sizeof g);
    exec_zero(p->ex, p->grad, p->size * sizeof *p->grad);
}

/* The calls of all trees, as they are told to who watches. */
enum { SIGNED = 1024 };
typedef struct Signatures {
    struct {
        int op, type;
        uint64_t bytes;
    } call[SIGNED];
    int n;
} Signatures;
static Signatures all_signed[16];

static void note_call(void *own, const CommCall *call) {
    Signatures *s = own;
    CHECK(s->n < SIGNED, "more than %d calls", SIGNED);
    s->call[s->n].op = (int)call->op, s->call[s->n].type = (int)call->type;
    s->call[s->n++].bytes = call->bytes;
}

/* Every rank's are the same, and those of all of the gradients, however these are shared out. */
static void test_signatures(Comm *c, size_t bytes) {
    const Signatures *own = &all_signed[comm_rank(c)];
    int bad = 0;
    comm_share(c, "signatures", all_signed, sizeof *all_signed);
    for (int r = 0; r < comm_size(c); r++)
        EXPECT(memcmp(own, &all_signed[r], sizeof *own) == 0, "rank %d signs something else", r);
    for (int i = 0; i < own->n; i++)
        bad += own->call[i].bytes != bytes || own->call[i].type != COMM_F32;
    EXPECT((!c || own->n > 0) && bad == 0, "%d of %d calls sign no %zu bytes of f32", bad, own->n,
           bytes);
}

static void test_tree(Comm *c, Exec *ex) {
    float alone[ELEMENTS], together[ELEMENTS];
    Params p;
    GradTree one, all;
    params_init(&p, ex, 1);
    params_add(&p, PARAM_ALIGNED, ELEMENTS, 1, "weight");
    params_allocate(&p, true);
    grad_tree_init(&one, &p, MOST);
    ex->comm = c;
    grad_tree_init(&all, &p, MOST);
    comm_watch(c, &(CommWatch){.begin = note_call, .context = &all_signed[comm_rank(c)]});
    for (int packs = 1; packs <= MOST; packs++) {
        run_tree(alone, &one, packs, 0, 1);
        run_tree(together, &all, packs, comm_rank(c), comm_size(c));
        EXPECT(memcmp(alone, together, sizeof alone) == 0, "%d packs: not one rank's bits", packs);
    }
    comm_watch(c, &(CommWatch){0});
    test_signatures(c, p.size * sizeof(float));
    ex->comm = NULL;
    grad_tree_free(&all), grad_tree_free(&one);
    params_free(&p);
}

/* SAILS_TEST_DEVICE: the device, if not the CPU. */
static void open_device(Exec *ex, Comm *c) {
    const char *name = getenv("SAILS_TEST_DEVICE");
    bool cuda = name && strcmp(name, "cuda") == 0;
    exec_use_card(comm_seat(c).local_rank);
    const char *why = exec_open(ex, cuda ? DEVICE_CUDA : DEVICE_CPU, DTYPE_F32);
    CHECK(!why, "%s", why);
    why = comm_join(c, ex);
    CHECK(!why, "%s", why);
}

static int rank_body(void) {
    Comm *c;
    Exec ex;
    const char *why = comm_open(&c);
    CHECK(!why, "%s", why);
    open_device(&ex, c);
    test_share(c);
    test_broadcast(c);
    test_collect(c);
    test_parts(c);
    static const size_t n[] = {1, 64, 200, 1000, 100003};
    for (size_t k = 0; k < sizeof n / sizeof *n; k++) {
        for (int givers = 1; givers <= comm_size(c); givers++) test_exchange(c, &ex, n[k], givers);
        test_all_gather(c, &ex, n[k]);
    }
    test_tree(c, &ex);
    comm_barrier(c, "the end");
    comm_part_devices(c, &ex);
    exec_close(&ex);
    comm_close(c);
    return test_failures != 0;
}

/* Rank 1 takes less than rank 0 gives, and ends both: with 3 if MPI's words say that. */
static int short_body(void) {
    Comm *c;
    char bytes[64] = "";
    const char *why = comm_open(&c);
    CHECK(!why, "%s", why);
    Move give = {1, bytes, sizeof bytes, NULL, 0}, take = {0, NULL, 0, bytes, sizeof bytes / 2};
    alarm(30);
    c->via->move(comm_root(c) ? &give : &take, 1);
    enum TransportState state = c->via->poll();
    for (; state == TRANSPORT_BUSY; state = c->via->poll()) usleep(1000);
    if (comm_root(c)) pause();
    bool said = state == TRANSPORT_FAILED && strstr(c->via->why(), "truncated");
    if (!said) printf("state %d: %s\n", state, c->via->why());
    comm_abort(c, said ? 3 : 4);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "short") == 0) return short_body();
    if (argc > 1 && strcmp(argv[1], "rank") == 0) return rank_body();
    EXPECT(rank_body() == 0, "alone");
    for (size_t i = 1; i < sizeof sizes / sizeof *sizes; i++) {
        Ended e = ranks_self(sizes[i], "rank");
        EXPECT(e.code == 0, "%d ranks: exit %d: %s%s", sizes[i], e.code, e.out, e.err);
    }
    Ended e = ranks_self(2, "short");
    EXPECT(e.code == 3, "less is taken than given: exit %d: %s%s", e.code, e.out, e.err);
    /* As machines of 1, 2, 3 and 4 ranks: of 3 no subtree is made. */
    static const int machines[][2] = {{2, 1}, {4, 2}, {6, 3}, {8, 2}, {8, 4}, {6, 2}};
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        char each[8];
        snprintf(each, sizeof each, "%d", machines[i][1]);
        setenv("SAILS_MACHINE_RANKS", each, 1);
        e = ranks_self(machines[i][0], "rank");
        EXPECT(e.code == 0, "%d ranks on machines of %s: exit %d: %s%s", machines[i][0], each,
               e.code, e.out, e.err);
    }
    return test_done("comm");
}
