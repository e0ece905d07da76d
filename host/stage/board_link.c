/* board_link.c - frames of seats from each machine to rank 0, and verdicts back. */
#include "host/stage/board_link.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "data/base/mem.h"
#include "host/cli/print.h"

enum { TOKEN = 16, ADDRESSES = 8, CONNECT_SECONDS = 5, TOGETHER = -1 /* in place of a code */ };
static const double PERIOD = 0.1;

/* Where rank 0 listens, and what shows that a connection comes from this job. */
typedef struct Meeting {
    char host[ADDRESSES][64]; /* its name, then its addresses; "": no more */
    int port;                 /* 0: it cannot listen */
    unsigned char token[TOKEN];
} Meeting;

typedef struct Hello {
    unsigned char token[TOKEN];
    int leader;
} Hello;

/* Of one seat; times are ages, for clocks differ from machine to machine. */
typedef struct SeatFrame {
    int rank, state, code, pid;
    char host[64];
    uint64_t begun, ended;
    double beat_age,
        waiting; /* seconds; waiting: in the oldest call that has not ended, or below 0 */
    int ncall;
    BoardCall call[BOARD_TOLD]; /* the newest; times are ages, too */
} SeatFrame;

typedef struct Verdict {
    int code;
    char text[sizeof((Board *)0)->verdict];
} Verdict;
enum { A_VERDICT = -1 }; /* in place of a rank: the frame's calls are a Verdict */

/* One connection; frames come in pieces, and go in pieces where the other side is slow to read. */
typedef struct Peer {
    int fd, leader;
    bool greeted, gone;
    size_t got, waiting;
    char in[sizeof(SeatFrame)], out[2 * sizeof(SeatFrame)];
} Peer;

struct BoardLink {
    Board *board;
    Meeting meeting;
    int rank, *leader; /* (size) of each rank's machine */
    int listener;      /* of rank 0 */
    Peer *peer;        /* (npeer) rank 0: all machines; another: rank 0 */
    int npeer, room;
    uint64_t *sent; /* (size) calls of each seat that rank 0 knows of */
    int next;       /* seat to be told of */
    double last;    /* when seats, or signs of rank 0's life, were sent */
    double heard;   /* .. and came from rank 0 */
};

/* ------------------------------------------------------------------------------ sockets -- */

static void set_up(int fd) {
    int on = 1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* A listening socket and its port; -1: none. */
static int listen_at(int *port) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
    struct sockaddr_in a4 = {.sin_family = AF_INET};
    struct sockaddr_storage is;
    socklen_t n = sizeof is;
    int fd = socket(AF_INET6, SOCK_STREAM, 0), off = 0;
    bool ok = fd >= 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0 &&
              bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (!ok) { /* no IPv6 */
        if (fd >= 0) close(fd);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        ok = fd >= 0 && bind(fd, (struct sockaddr *)&a4, sizeof a4) == 0;
    }
    ok = ok && listen(fd, 128) == 0 && getsockname(fd, (struct sockaddr *)&is, &n) == 0;
    if (!ok) {
        if (fd >= 0) close(fd);
        return -1;
    }
    *port = ntohs(is.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&is)->sin6_port
                                           : ((struct sockaddr_in *)&is)->sin_port);
    set_up(fd);
    return fd;
}

static int connect_one(const struct addrinfo *a) {
    int fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol), error = 0;
    socklen_t n = sizeof error;
    if (fd < 0) return -1;
    set_up(fd);
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    bool ok = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ||
              (errno == EINPROGRESS && poll(&wait, 1, 1000 * CONNECT_SECONDS) == 1 &&
               getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0);
    if (ok) return fd;
    close(fd);
    return -1;
}

/* -1: rank 0 cannot be reached at any of its addresses. */
static int connect_to(const Meeting *m) {
    char port[16];
    int fd = -1;
    snprintf(port, sizeof port, "%d", m->port);
    for (int i = 0; i < ADDRESSES && *m->host[i] && m->port && fd < 0; i++) {
        struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
        if (getaddrinfo(m->host[i], port, &hints, &found) != 0) continue;
        for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) fd = connect_one(a);
        freeaddrinfo(found);
    }
    return fd;
}

/* The name may mean nothing, or another machine, elsewhere. */
static void own_addresses(Meeting *m) {
    struct ifaddrs *all = NULL;
    int n = 1;
    gethostname(m->host[0], sizeof m->host[0] - 1);
    if (getifaddrs(&all) != 0) return;
    for (struct ifaddrs *a = all; a && n < ADDRESSES; a = a->ifa_next) {
        int family = a->ifa_addr ? a->ifa_addr->sa_family : AF_UNSPEC;
        socklen_t size =
            family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if ((family != AF_INET && family != AF_INET6) || a->ifa_flags & IFF_LOOPBACK) continue;
        if (getnameinfo(a->ifa_addr, size, m->host[n], sizeof m->host[n], NULL, 0,
                        NI_NUMERICHOST) == 0)
            n++;
    }
    freeifaddrs(all);
}

/* Who takes nothing now may be suspended; gone is who cannot be reached. */
static void send_waiting(Peer *p) {
    while (p->waiting > 0 && !p->gone) {
        ssize_t n = send(p->fd, p->out, p->waiting, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) p->gone = true;
        if (n <= 0) return;
        p->waiting -= (size_t)n;
        memmove(p->out, p->out + n, p->waiting);
    }
}

/* The program's own thread may give a verdict beside the watchdog's. */
static pthread_mutex_t sending = PTHREAD_MUTEX_INITIALIZER;

/* Does something still wait to be sent? */
static bool waits(Peer *p) {
    pthread_mutex_lock(&sending);
    send_waiting(p);
    bool more = p->waiting > 0 && !p->gone;
    pthread_mutex_unlock(&sending);
    return more;
}

/* A frame goes whole, or, where there is no room for it behind what waits, not at all. */
static bool put(Peer *p, const void *bytes, size_t n) {
    pthread_mutex_lock(&sending);
    bool room = !p->gone && n <= sizeof p->out - p->waiting;
    if (room) memcpy(p->out + p->waiting, bytes, n), p->waiting += n;
    send_waiting(p);
    pthread_mutex_unlock(&sending);
    return room;
}

/* Until nothing waits, as far as the others read: before the process may end. */
static void send_all(BoardLink *l) {
    static const double PATIENCE = 0.5;
    double until = clock_seconds() + PATIENCE;
    for (bool more = true; more && clock_seconds() < until;) {
        more = false;
        for (Peer *p = l->peer; p < l->peer + l->npeer; p++) more = waits(p) || more;
        if (more) usleep(1000);
    }
}

/* True when n bytes are in p->in, which the next call then fills anew. */
static bool take(Peer *p, size_t n) {
    while (p->got < n && !p->gone) {
        ssize_t some = recv(p->fd, p->in + p->got, n - p->got, 0);
        if (some < 0 && errno == EAGAIN) return false;
        if (some <= 0) p->gone = true;
        if (some > 0) p->got += (size_t)some;
    }
    if (p->gone) return false;
    p->got = 0;
    return true;
}

/* --------------------------------------------------------------------------------- seats -- */

static void fill(SeatFrame *f, const BoardLink *l, int rank) {
    const BoardSeat *s = &l->board->seat[rank];
    double now = clock_seconds();
    memset(f, 0, sizeof *f);
    f->rank = rank, f->state = atomic_load(&s->state), f->code = s->code, f->pid = s->pid;
    memcpy(f->host, s->host, sizeof f->host);
    f->begun = atomic_load(&s->begun), f->ended = atomic_load(&s->ended);
    f->beat_age = now - atomic_load(&s->beat);
    uint64_t first = l->sent[rank];
    if (first + 1 >= f->begun) first = f->begun ? f->begun - 1 : 0; /* the last one always */
    if (f->begun - first > BOARD_TOLD) first = f->begun - BOARD_TOLD;
    for (uint64_t k = first; k < f->begun; k++) {
        BoardCall *to = &f->call[f->ncall];
        if (!board_call(to, s, k)) continue;
        to->begun = now - to->begun;
        if (to->ended > 0) to->ended = now - to->ended;
        f->ncall++;
    }
}

static void send_seat(BoardLink *l, int rank) {
    SeatFrame *f = mem_array(1, sizeof *f);
    fill(f, l, rank);
    if (put(&l->peer[0], f, sizeof *f))
        l->sent[rank] = f->ended; /* those that have not ended are told again */
    free(f);
}

/* In turn, while nothing waits: there is always room for a verdict. */
static void send_seats(BoardLink *l) {
    int size = l->board->size;
    for (int i = 0; i < size && !waits(&l->peer[0]); i++) {
        int r = l->next;
        l->next = (r + 1) % size;
        if (l->leader[r] == l->rank) send_seat(l, r);
    }
}

static void obey(BoardLink *l, const Verdict *v) {
    Board *b = l->board;
    int nobody = 0;
    if (v->code == TOGETHER) atomic_store(&b->together, true);
    if (v->code == TOGETHER) return;
    if (!v->code || !atomic_compare_exchange_strong(&b->taken, &nobody, 1 + l->rank)) return;
    memcpy(b->verdict, v->text, sizeof b->verdict);
    atomic_store(&b->code, v->code);
}

static void take_seat(BoardLink *l, const Peer *p) {
    static SeatFrame f; /* rank 0's watchdog alone takes them */
    memcpy(&f, p->in, sizeof f);
    if (f.rank == A_VERDICT) {
        Verdict v;
        memcpy(&v, f.call, sizeof v);
        obey(l, &v);
    }
    if (f.rank <= 0 || f.rank >= l->board->size || f.ncall < 0 || f.ncall > BOARD_TOLD) return;
    BoardSeat *s = &l->board->seat[f.rank];
    double now = clock_seconds();
    if (l->leader[f.rank] == l->rank) return; /* its own seat is here */
    s->remote = true;
    s->heard = now;
    s->pid = f.pid, s->code = f.code;
    memcpy(s->host, f.host, sizeof s->host);
    for (int i = 0; i < f.ncall; i++) {
        BoardCall *c = &s->call[f.call[i].number % BOARD_CALLS];
        *c = f.call[i];
        c->begun = now - c->begun;
        if (c->ended > 0) c->ended = now - c->ended;
    }
    atomic_store(&s->beat, now - f.beat_age);
    atomic_store(&s->ended, f.ended);
    atomic_store(&s->begun, f.begun);
    atomic_store(&s->state, f.state);
}

/* ----------------------------------------------------------------------------- one look -- */

static void accept_peers(BoardLink *l) {
    int fd;
    while ((fd = accept(l->listener, NULL, NULL)) >= 0) {
        set_up(fd);
        int i = 0; /* one that never greeted and has gone leaves its place */
        while (i < l->npeer && (l->peer[i].greeted || !l->peer[i].gone)) i++;
        if (i == l->room) {
            close(fd); /* more than there are machines: not ours */
            continue;
        }
        if (i < l->npeer) close(l->peer[i].fd);
        if (i == l->npeer) l->npeer++;
        l->peer[i] = (Peer){.fd = fd, .leader = -1};
    }
}

static void hear(BoardLink *l, Peer *p) {
    Hello hello;
    if (!p->greeted && take(p, sizeof hello)) {
        memcpy(&hello, p->in, sizeof hello);
        p->greeted = memcmp(hello.token, l->meeting.token, TOKEN) == 0;
        p->gone = !p->greeted;
        p->leader = hello.leader;
    }
    while (p->greeted && take(p, sizeof(SeatFrame))) take_seat(l, p);
}

/* A machine whose link broke before its first rank was done. */
static int look_at_machines(BoardLink *l) {
    static const Verdict none; /* yet: a sign of life */
    bool due = clock_seconds() - l->last >= PERIOD;
    if (due) l->last = clock_seconds();
    accept_peers(l);
    for (Peer *p = l->peer; p < l->peer + l->npeer; p++) {
        if (p->gone) continue;
        hear(l, p);
        if (p->greeted && !waits(p) && due) put(p, &none, sizeof none);
        int state = p->leader > 0 ? atomic_load(&l->board->seat[p->leader].state) : SEAT_DONE;
        bool ends =
            atomic_load(&l->board->code) != 0 || atomic_load(&l->board->seat[0].state) == SEAT_DONE;
        if (p->gone && p->greeted && state == SEAT_WORKING && !ends) return p->leader;
    }
    return -1;
}

static bool much_to_tell(const BoardLink *l) {
    for (int r = 0; r < l->board->size; r++)
        if (l->leader[r] == l->rank &&
            atomic_load(&l->board->seat[r].begun) - l->sent[r] > BOARD_TOLD / 2)
            return true;
    return false;
}

static int look_at_root(BoardLink *l) {
    Peer *root = &l->peer[0];
    Verdict v;
    if (root->gone) return -1;
    while (take(root, sizeof v)) {
        memcpy(&v, root->in, sizeof v);
        l->heard = clock_seconds();
        obey(l, &v);
    }
    if (clock_seconds() - l->last >= PERIOD || much_to_tell(l)) {
        send_seats(l);
        l->last = clock_seconds();
    }
    bool done = atomic_load(&l->board->seat[l->rank].state) == SEAT_DONE;
    return root->gone && !done && !atomic_load(&l->board->code) ? 0 : -1;
}

void board_link_tell(BoardLink *l, int code) {
    Verdict v = {.code = code};
    if (!l) return;
    memcpy(v.text, l->board->verdict, sizeof v.text);
    if (l->rank == 0) {
        for (Peer *p = l->peer; p < l->peer + l->npeer; p++)
            if (p->greeted) put(p, &v, sizeof v);
        send_all(l);
        return;
    }
    SeatFrame *f = mem_array(1, sizeof *f);
    f->rank = A_VERDICT;
    memcpy(f->call, &v, sizeof v);
    put(&l->peer[0], f, sizeof *f);
    free(f);
    send_all(l);
}

void board_link_together(BoardLink *l) {
    board_link_tell(l, TOGETHER);
}

void board_link_last(BoardLink *l) {
    for (int r = 0; l && l->rank > 0 && r < l->board->size; r++) {
        if (l->leader[r] != l->rank) continue;
        send_seat(l, r);
        send_all(l);
    }
}

double board_link_heard(const BoardLink *l) {
    bool hears = l && l->rank > 0 && !l->peer[0].gone;
    return hears ? l->heard : clock_seconds();
}

int board_link_turn(const BoardLink *l) {
    int before = 0;
    for (int r = 1; l && r < l->rank; r++) before += l->leader[r] == r;
    return before;
}

int board_link_look(BoardLink *l) {
    if (!l) return -1;
    return l->rank == 0 ? look_at_machines(l) : look_at_root(l);
}

/* ------------------------------------------------------------------------- start and end -- */

static void meet(BoardLink *l, Comm *c) {
    Meeting *m = &l->meeting;
    if (l->rank == 0) {
        FILE *f = fopen("/dev/urandom", "r");
        if (!f || fread(m->token, 1, TOKEN, f) != TOKEN) memset(m->token, 0, TOKEN);
        if (f) fclose(f);
        own_addresses(m);
        l->listener = listen_at(&m->port);
    }
    comm_broadcast(c, "where rank 0 listens", m, sizeof *m);
}

/* Of a machine's first rank: to rank 0. */
static void call_root(BoardLink *l) {
    Hello hello = {.leader = l->rank};
    memcpy(hello.token, l->meeting.token, TOKEN);
    l->peer[0] = (Peer){.fd = connect_to(&l->meeting), .greeted = true};
    l->npeer = 1;
    l->heard = clock_seconds();
    l->peer[0].gone = l->peer[0].fd < 0;
    if (l->peer[0].gone)
        fprintf(stderr,
                "sails: rank %d does not reach rank 0's watchdog at %s, port %d: its machine is "
                "watched by itself\n",
                l->rank, l->meeting.host[0], l->meeting.port);
    put(&l->peer[0], &hello, sizeof hello);
}

BoardLink *board_link_open(Board *b, Comm *c) {
    TransportSeat seat = comm_seat(c);
    BoardLink *l = mem_array(1, sizeof *l);
    *l = (BoardLink){.board = b, .rank = seat.rank, .room = seat.size, .listener = -1};
    l->peer = mem_array((size_t)seat.size, sizeof *l->peer);
    l->sent = mem_array((size_t)seat.size, sizeof *l->sent);
    meet(l, c);
    bool alone = true; /* on one machine */
    l->leader = mem_array((size_t)seat.size, sizeof *l->leader);
    l->leader[seat.rank] = seat.leader;
    comm_share(c, "first ranks of machines", l->leader, sizeof *l->leader);
    for (int r = 0; r < seat.size; r++) alone = alone && l->leader[r] == 0;
    if (alone || seat.rank != seat.leader) {
        board_link_close(l);
        return NULL;
    }
    if (seat.rank > 0) call_root(l);
    return l;
}

void board_link_close(BoardLink *l) {
    if (!l) return;
    for (Peer *p = l->peer; p < l->peer + l->npeer; p++)
        if (p->fd >= 0) close(p->fd);
    if (l->listener >= 0) close(l->listener);
    free(l->leader);
    free(l->sent);
    free(l->peer);
    free(l);
}
