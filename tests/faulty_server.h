/* faulty_server.h - a judge behind HTTP that misbehaves as it is told: plain HTTP/1.1 on a port of
 * this machine, a thread for each connection.
 *
 * What it does with a request stands in the response that it is to judge: "do:NAME", of the list
 * below, and "score=N" (else 3). Two requests with the same "do:" word and text count as one and
 * the next try of it. */
#ifndef SAILS_TEST_FAULTY_SERVER_H
#define SAILS_TEST_FAULTY_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/check.h"

/* Kinds of requests that it takes; others get 400. */
enum {
    TAKES_FORMAT = 1,
    TAKES_TOP = 2,
    TAKES_PLAIN = 4,
    TAKES_COMPLETION = 8,
    TAKES_LENGTH = 16,
    TAKES_ALL = 31
};

static struct FaultyServer {
    int socket, port;
    int takes;                       /* TAKES_* */
    int status;                      /* of every answer; 0: as told */
    const char *error;               /* body of that status */
    int pause_ms;                    /* before every answer */
    char authorization[256];         /* of the last request */
    _Atomic int requests, now, most; /* seen; under way; and their maximum */
    pthread_mutex_t lock;
    struct {
        char word[96];
        int times;
    } seen[512];
    int nseen;
} faulty = {.takes = TAKES_ALL, .lock = PTHREAD_MUTEX_INITIALIZER};

/* How often this word has been asked, this time included. */
static inline int faulty_times(const char *word) {
    int i = 0, times;
    pthread_mutex_lock(&faulty.lock);
    while (i < faulty.nseen && strcmp(faulty.seen[i].word, word) != 0) i++;
    if (i == faulty.nseen && i < 511) {
        faulty.nseen++;
        snprintf(faulty.seen[i].word, sizeof faulty.seen[i].word, "%s", word);
    }
    times = ++faulty.seen[i].times;
    pthread_mutex_unlock(&faulty.lock);
    return times;
}

static inline bool faulty_send(int fd, int status, const char *headers, const char *body) {
    char head[512];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d Reason\r\nContent-Type: application/json\r\n%sContent-Length: "
                     "%zu\r\n\r\n",
                     status, headers, strlen(body));
    return send(fd, head, (size_t)n, MSG_NOSIGNAL) == n &&
           send(fd, body, strlen(body), MSG_NOSIGNAL) == (ssize_t)strlen(body);
}

/* A chat completion whose message has these members. */
static inline bool faulty_say(int fd, const char *message, const char *finish) {
    char body[2048];
    snprintf(
        body, sizeof body,
        "{\"id\": \"x\", \"choices\": [{\"index\": 0, \"message\": {\"role\": \"assistant\", %s}, "
        "\"finish_reason\": \"%s\"}], \"usage\": {\"prompt_tokens\": 100, "
        "\"completion_tokens\": 10}}",
        message, finish);
    return faulty_send(fd, 200, "", body);
}

static inline bool faulty_verdict(int fd, const char *before, int score, const char *reason,
                                  const char *after) {
    char message[1024];
    snprintf(message, sizeof message,
             "\"content\": \"%s{\\\"reason\\\": \\\"%s\\\", \\\"score\\\": %d}%s\"", before, reason,
             score, after);
    return faulty_say(fd, message, "stop");
}

static inline bool faulty_reset(int fd) {
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    return false;
}

static inline bool faulty_half(int fd) {
    static const char half[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"choices\": [{\"message\": {\"content\":";
    send(fd, half, sizeof half - 1, MSG_NOSIGNAL);
    return false;
}

/* Does the word begin so, and is it asked for at most the `times`-th time? */
#define FAULTY_DOES(name, most) (strcmp(name, what) == 0 && times <= (most))

/* false: the connection is to be closed. */
static inline bool faulty_do(int fd, const char *what, int times, int score) {
    char text[512];
    if (FAULTY_DOES("busy", 2))
        return faulty_send(fd, 429, "Retry-After: 0.2\r\n",
                           "{\"error\": {\"message\": \"slowly\"}}");
    if (FAULTY_DOES("broken", 1)) return faulty_send(fd, 500, "", "<html>oops</html>");
    if (FAULTY_DOES("down", 99)) return faulty_send(fd, 503, "", "{\"error\": \"overloaded\"}");
    if (FAULTY_DOES("reset", 1)) return faulty_reset(fd);
    if (FAULTY_DOES("half", 1)) return faulty_half(fd);
    if (FAULTY_DOES("slow", 1)) return sleep(2), false;
    if (FAULTY_DOES("garbage", 1)) return faulty_send(fd, 200, "", "}{ not JSON");
    if (FAULTY_DOES("nonsense", 99)) return faulty_say(fd, "\"content\": \"I like it.\"", "stop");
    if (FAULTY_DOES("schema", 99))
        return faulty_say(fd, "\"content\": \"{\\\"rating\\\": 4}\"", "stop");
    if (FAULTY_DOES("refuse", 99))
        return faulty_say(fd, "\"content\": null, \"refusal\": \"I do not grade this.\"", "stop");
    if (FAULTY_DOES("filter", 99)) return faulty_say(fd, "\"content\": \"\"", "content_filter");
    if (FAULTY_DOES("cut", 99)) return faulty_say(fd, "\"content\": \"{\\\"reason\"", "length");
    if (FAULTY_DOES("fence", 99))
        return faulty_verdict(fd, "```json\\n", score, "fenced", "\\n```");
    if (FAULTY_DOES("think", 99))
        return faulty_say(
            fd,
            "\"reasoning_content\": \"{\\\"reason\\\": \\\"no\\\", \\\"score\\\": 1}\", "
            "\"content\": \"{\\\"reason\\\": \\\"thought\\\", \\\"score\\\": 5}\"",
            "stop");
    if (FAULTY_DOES("long", 99))
        return faulty_send(fd, 400, "", "{\"error\": {\"message\": \"context length\"}}");
    if (FAULTY_DOES("quota", 99))
        return faulty_send(fd, 429, "",
                           "{\"error\": {\"message\": \"no money\", \"code\": "
                           "\"insufficient_quota\"}}");
    if (FAULTY_DOES("echo", 99)) {
        snprintf(text, sizeof text, "you sent %s", faulty.authorization);
        return faulty_verdict(fd, "", score, text, "");
    }
    return faulty_verdict(fd, "", score, "because", "");
}

/* Is it of a dialect that the server takes? */
static inline bool faulty_takes(const char *body) {
    int form =
        strstr(body, "\"response_format\"") ? TAKES_FORMAT
        : strstr(body, "\"json_schema\": {\"type\"") || strstr(body, "\"json_schema\":{\"type\"")
            ? TAKES_TOP
            : TAKES_PLAIN;
    int length = strstr(body, "\"max_completion_tokens\"") ? TAKES_COMPLETION : TAKES_LENGTH;
    return (faulty.takes & form) && (faulty.takes & length);
}

static inline bool faulty_answer(int fd, const char *body) {
    char what[32] = "", word[96] = "";
    const char *told = strstr(body, "do:"), *score = strstr(body, "score=");
    if (told) sscanf(told, "do:%31[a-z]", what), sscanf(told, "%95[^\\\"\n]", word);
    int times = told ? faulty_times(word) : 0;
    if (faulty.pause_ms) usleep((useconds_t)(1000 * faulty.pause_ms));
    faulty.now--; /* before the other side can know of the answer, and send another */
    if (faulty.status) return faulty_send(fd, faulty.status, "", faulty.error);
    if (!faulty_takes(body))
        return faulty_send(fd, 400, "", "{\"error\": {\"message\": \"unknown parameter\"}}");
    return faulty_do(fd, what, times, score ? atoi(score + 6) : 3);
}

/* The next request's body, from malloc; NULL: the other side has closed. */
static inline char *faulty_request(int fd) {
    enum { ROOM = 1 << 18 };
    char *text = calloc(1, ROOM), *body = NULL;
    size_t n = 0, length = 0;
    CHECK(text, "out of memory");
    for (ssize_t got; n + 1 < ROOM && (got = recv(fd, text + n, ROOM - 1 - n, 0)) > 0;) {
        n += (size_t)got;
        if (!body && (body = strstr(text, "\r\n\r\n"))) {
            const char *of = strcasestr(text, "content-length:");
            const char *key = strcasestr(text, "authorization:");
            length = of ? (size_t)atoi(of + 15) : 0;
            body += 4;
            pthread_mutex_lock(&faulty.lock);
            faulty.authorization[0] = 0;
            if (key && key < body) sscanf(key + 14, " %255[^\r\n]", faulty.authorization);
            pthread_mutex_unlock(&faulty.lock);
        }
        if (body && n >= (size_t)(body - text) + length) {
            memmove(text, body, length);
            text[length] = 0;
            return text;
        }
    }
    free(text);
    return NULL;
}

static inline void *faulty_serve(void *of) {
    int fd = (int)(long)of;
    char *body;
    for (bool open = true; open && (body = faulty_request(fd));) {
        faulty.requests++;
        int now = ++faulty.now, most = faulty.most;
        while (now > most && !atomic_compare_exchange_weak(&faulty.most, &most, now)) {
        }
        open = faulty_answer(fd, body);
        free(body);
    }
    close(fd);
    return NULL;
}

static inline void *faulty_accept(void *unused) {
    (void)unused;
    for (int fd; (fd = accept(faulty.socket, NULL, NULL)) >= 0;) {
        pthread_t t;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        CHECK(pthread_create(&t, NULL, faulty_serve, (void *)(long)fd) == 0, "no thread");
        pthread_detach(t);
    }
    return NULL;
}

/* Starts it; its port is faulty.port. It ends with the process. */
static inline void faulty_start(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    pthread_t t;
    faulty.socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(faulty.socket >= 0 && bind(faulty.socket, (struct sockaddr *)&at, n) == 0 &&
              listen(faulty.socket, 128) == 0 &&
              getsockname(faulty.socket, (struct sockaddr *)&at, &n) == 0,
          "no server: %s", strerror(errno));
    faulty.port = ntohs(at.sin_port);
    CHECK(pthread_create(&t, NULL, faulty_accept, NULL) == 0, "no thread");
    pthread_detach(t);
}

static inline void faulty_forget(void) {
    faulty.requests = faulty.most = 0;
    faulty.nseen = 0;
    memset(faulty.seen, 0, sizeof faulty.seen);
}

#endif
