/* generating.c - prompts to a file of responses, in the order of the prompts. */
#include "host/stage/generating.h"

#include <glob.h>
#include <stdio.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/buf.h"
#include "data/base/interrupt.h"
#include "host/cli/json_lines.h"
#include "host/stage/agree.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/result_key.h"
#include "host/stage/same_input.h"
#include "host/stage/seal.h"
#include "host/stage/wish.h"
#include "host/cli/print.h"

typedef struct Reply {
    char *text; /* from malloc; NULL: not made here */
    size_t len;
    int tokens, stop; /* stop: the id that ended it, -1: none */
} Reply;

typedef struct Generating {
    Runtime *r;
    const Settings *s;
    const Prompts *p;
    size_t n; /* prompts of all files */
    const Doc **doc;
    size_t *order; /* longest first: a long reply that starts late leaves the others' places idle */
    uint8_t *known;      /* (n) prompts that an earlier process has answered */
    size_t nrest, *rest; /* the others, in order */
    size_t nown, *own;   /* of them this rank's */
    const Keeping *keep; /* NULL: nothing is kept */
    char seal[65];       /* of what is kept: the SHA-256 of its run.json */
    FILE *kept;          /* this process's replies, a line each */
    Reply *reply;        /* (n) of rank 0 all, in the end */
    size_t done;
    Progress bar;
} Generating;

static int longer_first(const void *a, const void *b, void *context) {
    const Generating *g = context;
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    if (g->doc[i]->n != g->doc[j]->n) return g->doc[i]->n > g->doc[j]->n ? -1 : 1;
    return i < j ? -1 : 1;
}

static void collect(Generating *g) {
    g->n = g->p->n;
    g->doc = mem_array(g->n, sizeof *g->doc);
    g->order = mem_array(g->n, sizeof *g->order);
    g->reply = mem_array(g->n, sizeof *g->reply);
    g->known = mem_array(g->n, 1);
    g->rest = mem_array(g->n, sizeof *g->rest);
    g->own = mem_array(g->n, sizeof *g->own);
    size_t at = 0;
    for (int f = 0; f < PROMPT_FILES; f++)
        for (size_t i = 0; i < g->p->file[f].n; i++)
            g->doc[at++] = &g->p->file[f].doc[g->p->file[f].index[i]];
    for (size_t i = 0; i < g->n; i++) g->order[i] = i;
    qsort_r(g->order, g->n, sizeof *g->order, longer_first, g);
}

/* The prompts that have no reply yet fall to the ranks in turn. */
static void share_out(Generating *g) {
    Comm *comm = g->r->ex.comm;
    for (size_t i = 0; i < g->n; i++)
        if (!g->known[g->order[i]]) g->rest[g->nrest++] = g->order[i];
    for (size_t i = (size_t)comm_rank(comm); i < g->nrest; i += (size_t)comm_size(comm))
        g->own[g->nown++] = g->rest[i];
}

/* ------------------------------------------------------------------------- what is kept -- */

#define FORMAT "sails replies 1"

/* One line a reply, on its way to the disk when it is whole; a line that is not is none. Its seal
 * ties it to run.json, which may have been removed before it: by a kill amid the last removal. */
static void keep_reply(const Generating *g, size_t number) {
    const Reply *r = &g->reply[number];
    char hex[65];
    json_t *line = json_pack("{s:I, s:o, s:i, s:i}", "prompt", (json_int_t)number, "text",
                             json_stringn(r->text, r->len), "tokens", r->tokens, "stop", r->stop);
    CHECK(line, "a JSON value could not be made");
    seal_set(hex, line, g->seal);
    json_dumpf(line, g->kept, JSON_COMPACT);
    putc('\n', g->kept);
    fflush(g->kept); /* a disk that is full costs what is kept, not the replies */
    json_decref(line);
}

static void take_kept(Generating *g, const char *line) {
    json_t *reply = json_loads(line, 0, NULL), *text = json_object_get(reply, "text");
    json_int_t number = json_integer_value(json_object_get(reply, "prompt"));
    char hex[65];
    Err broken;
    bool whole = reply && seal_holds(hex, reply, g->seal, "a reply", &broken);
    if (whole && json_is_string(text) && number >= 0 && (size_t)number < g->n &&
        !g->known[number]) {
        size_t len = json_string_length(text);
        g->reply[number] = (Reply){buf_copy(json_string_value(text), len), len,
                                   (int)json_integer_value(json_object_get(reply, "tokens")),
                                   (int)json_integer_value(json_object_get(reply, "stop"))};
        g->known[number] = 1;
        g->done++;
    }
    json_decref(reply);
}

static bool read_kept(Generating *g, const char *path, Err *err) {
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    if (!f) return files_failed(err, path, "open");
    while (getline(&line, &room, f) > 0) take_kept(g, line);
    free(line);
    fclose(f);
    return true;
}

/* The first process of a work says of which it is. */
static bool begin_work(Generating *g, const char *path, Err *err) {
    const Keeping *k = g->keep;
    json_t *work = json_pack("{s:s, s:O, s:O}", "format", FORMAT, "run", k->run, "maker", k->maker);
    CHECK(work, "a JSON value could not be made");
    seal_set(g->seal, work, "");
    bool ok = files_mkdirs(k->folder, err) && files_write_json(path, work, err);
    json_decref(work);
    return ok;
}

/* Reads what the first process has said; false if that is not as it was written. */
static bool read_work(Generating *g, json_t **work, const char *path, Err *err) {
    enum { KEY_BYTES = 16 << 20 };
    if (!files_read_json(work, path, KEY_BYTES, err)) return false;
    const char *format = json_string_value(json_object_get(*work, "format"));
    bool ok = (format && strcmp(format, FORMAT) == 0) ||
              err_set(err, EXIT_INPUT, "%s: expected format \"" FORMAT "\", found %s", path,
                      format ? format : "none");
    return (ok && seal_holds(g->seal, *work, "", path, err)) ||
           err_remedy(err, "remove its folder to begin anew");
}

/* Is what is kept of this work? What would be half another program's, and stamped as this one's,
 * goes. */
static bool same_work(Generating *g, const json_t *work, const char *path, Err *err) {
    const Keeping *k = g->keep;
    const json_t *run = json_object_get(work, "run");
    char what[512];
    if (result_key_maker_differs(run, k->run, what, sizeof what)) {
        fprintf(stderr, "sails: %s: removed: %s\n", k->folder, what);
        return (files_remove_tree(k->folder) || files_failed(err, k->folder, "remove")) &&
               begin_work(g, path, err);
    }
    if (result_key_differs(run, k->run, what, sizeof what))
        return err_set(err, EXIT_USAGE,
                       "%s: of another run: %s; go on with what it had, or remove the folder",
                       k->folder, what);
    keeping_compare(k->folder, json_object_get(work, "maker"), k->maker);
    return true;
}

static bool open_work(Generating *g, Err *err) {
    char *path = files_join(g->keep->folder, "run.json");
    json_t *work = NULL;
    bool ok = !files_exists(path) ? begin_work(g, path, err)
                                  : read_work(g, &work, path, err) && same_work(g, work, path, err);
    json_decref(work);
    free(path);
    return ok;
}

static bool load_kept(Generating *g, Err *err) {
    glob_t found;
    char *pattern = files_join(g->keep->folder, "replies.*.jsonl");
    bool ok = open_work(g, err);
    if (ok && glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc && ok; i++) ok = read_kept(g, found.gl_pathv[i], err);
        globfree(&found);
    }
    free(pattern);
    if (ok && (g->done || g->keep->expected))
        fprintf(stderr, "sails: %s: %zu of %zu responses are there already\n", g->keep->folder,
                g->done, g->n);
    return ok;
}

/* Rank 0 reads and tells the others what is left; each writes to a file of its own. */
static bool keep_open(Generating *g, Err *err) {
    Comm *comm = g->r->ex.comm;
    char host[64] = "", name[128];
    if (!g->keep) return true;
    if (!agree_root(comm, !comm_root(comm) || load_kept(g, err), err)) return false;
    comm_broadcast(comm, "prompts answered", g->known, g->n);
    comm_broadcast(comm, "the seal of what is kept", g->seal, sizeof g->seal);
    gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, "replies.%s.%ld.jsonl", host, (long)getpid());
    char *path = files_join(g->keep->folder, name);
    g->kept = fopen(path, "a");
    bool ok = g->kept || files_failed(err, path, "write");
    free(path);
    return ok;
}

/* ----------------------------------------------------------------------------- replies -- */

static void take_reply(void *context, const GenReply *reply) {
    Generating *g = context;
    Reply *to = &g->reply[g->own[reply->index]];
    to->text = tokenizer_decode(g->r->tokenizer, reply->token, (size_t)reply->n, true, &to->len);
    to->tokens = reply->n;
    to->stop = reply->stop;
    if (g->kept) keep_reply(g, g->own[reply->index]);
    progress_at(&g->bar, (double)++g->done, (double)g->n / comm_size(g->r->ex.comm));
}

static bool give_up(void *generating) {
    const Generating *g = generating;
    comm_beat(g->r->ex.comm);
    return interrupt_came() || (g->keep && (interrupt_requested() || wish_stopped()));
}

static bool gave_up(const Generating *g, Err *err) {
    if (interrupted(err)) return false;
    if (!interrupt_requested()) return err_set(err, EXIT_STOPPED, "%s", wish_stopped());
    char after[64];
    size_t made = 0;
    for (size_t i = 0; i < g->n; i++) made += g->reply[i].text != NULL;
    snprintf(after, sizeof after, "after %zu of %zu responses", made, g->n);
    return wish_stop_alone(&(Wish){interrupt_requested(), true}, after, g->keep->again, err);
}

/* The prompts of this rank. A reply does not depend on what else is decoded. */
static bool decode_own(Generating *g, Err *err) {
    const Settings *s = g->s;
    int32_t end_of_turn = tokenizer_id(g->r->tokenizer, "<end_of_turn>");
    GenOptions o = generating_options(s, g->p);
    o.stop = &end_of_turn;
    o.nstop = end_of_turn >= 0;
    o.give_up = give_up;
    o.give_up_context = g;
    Generator *gen = gen_create(&g->r->model, &o);
    GenPrompt *prompt = mem_array(g->nown, sizeof *prompt);
    for (size_t i = 0; i < g->nown; i++) {
        size_t number = g->own[i];
        prompt[i] = (GenPrompt){g->doc[number]->token, g->doc[number]->n,
                                s->generate.max_new_tokens, number};
    }
    enum GenEnd end = gen_run(gen, prompt, (int)g->nown, take_reply, g);
    bool ok = end == GEN_DONE;
    if (end == GEN_BAD_NUMBERS)
        bad_tensor_find(&g->r->model, gen_acts(gen), "a reply's logits are not finite", err);
    else if (!ok)
        gave_up(g, err);
    free(prompt);
    gen_destroy(gen);
    return ok;
}

/* What a rank has sent: each of its replies as a Reply, then its text. */
static void unpack_replies(Generating *g, int rank, const char *at, size_t bytes) {
    for (size_t i = (size_t)rank; i < g->nrest; i += (size_t)comm_size(g->r->ex.comm)) {
        Reply *r = &g->reply[g->rest[i]];
        CHECK(bytes >= sizeof *r, "rank %d: reply %zu: %zu bytes are left", rank, i, bytes);
        memcpy(r, at, sizeof *r);
        at += sizeof *r, bytes -= sizeof *r;
        CHECK(bytes >= r->len, "rank %d: reply %zu: %zu of %zu bytes", rank, i, bytes, r->len);
        r->text = mem_array(r->len + 1, 1);
        memcpy(r->text, at, r->len);
        at += r->len, bytes -= r->len;
    }
}

/* Rank 0 gets the replies of the others. */
static void collect_replies(Generating *g) {
    Comm *comm = g->r->ex.comm;
    int ranks = comm_size(comm);
    Buf own = {0};
    void **part = mem_array((size_t)ranks, sizeof *part);
    size_t *bytes = mem_array((size_t)ranks, sizeof *bytes);
    for (size_t i = 0; comm_rank(comm) > 0 && i < g->nown; i++) {
        const Reply *r = &g->reply[g->own[i]];
        buf_add(&own, (const char *)r, sizeof *r);
        buf_add(&own, r->text, r->len);
    }
    comm_collect(comm, "replies", own.p, own.n, part, bytes);
    for (int rank = 0; comm_root(comm) && rank < ranks; rank++) {
        if (rank > 0) unpack_replies(g, rank, part[rank], bytes[rank]);
        free(part[rank]);
    }
    free(part), free(bytes);
    buf_free(&own);
}

/* The conversation as text: a single question as it is, else with its roles. */
static json_t *prompt_text(const Record *r) {
    if (r->form == RECORD_TEXT) return json_stringn(r->text, r->text_len);
    if (r->form == RECORD_TOKENS) return json_string("");
    int n = r->chat.n;
    if (n > 0 && r->chat.turn[n - 1].role == ROLE_MODEL) n--;
    if (n == 1) return json_stringn(r->chat.turn[0].text, r->chat.turn[0].len);
    Buf text = {0};
    for (int i = 0; i < n; i++) {
        const Turn *t = &r->chat.turn[i];
        const char *role = t->role == ROLE_USER ? "user: " : "model: ";
        if (i) buf_add(&text, "\n\n", 2);
        buf_add(&text, role, strlen(role));
        buf_add(&text, t->text, t->len);
    }
    json_t *json = json_stringn(text.p ? text.p : "", text.n);
    buf_free(&text);
    return json;
}

static bool write_reply(JsonLines *out, const Generating *g, const PromptFile *f, size_t i,
                        const Record *r, Err *err) {
    char *id = mem_array(strlen(f->mark) + strlen(r->id) + 2, 1);
    char *category = mem_array(strlen(f->mark) + strlen(r->category) + 2, 1);
    sprintf(id, "%s%s%s", f->mark, *f->mark ? "/" : "", r->id);
    const char *kind = f->marked ? "" : f->mark;
    sprintf(category, "%s%s%s", kind, *kind && *r->category ? "/" : "", r->category);
    bool ok = json_lines_put(
        out,
        json_pack("{s:s, s:o, s:o, s:s, s:i, s:s}", "id", id, "prompt", prompt_text(r), "response",
                  json_stringn(g->reply[i].text, g->reply[i].len), "category", category, "tokens",
                  g->reply[i].tokens, "stop", g->reply[i].stop < 0 ? "length" : "end"),
        err);
    free(category);
    free(id);
    return ok;
}

static bool write_replies(const Generating *g, const char *path, Err *err) {
    JsonLines out;
    if (!json_lines_open(&out, path, err)) return false;
    bool ok = true;
    size_t at = 0;
    for (const PromptFile *f = g->p->file; f < g->p->file + PROMPT_FILES; f++)
        for (size_t i = 0; i < f->n && ok; i++)
            ok = write_reply(&out, g, f, at++, &f->records.record[f->index[i]], err);
    return json_lines_close(&out, ok, err);
}

GenOptions generating_options(const Settings *s, const Prompts *p) {
    int wanted = p->longest + s->generate.max_new_tokens, batch = s->generate.batch;
    return (GenOptions){.slots = p->n < (size_t)batch ? (int)p->n : batch,
                        .max_len = wanted < p->positions ? wanted : p->positions,
                        .prefill_rows = p->longest > 1024 ? p->longest : 1024,
                        .how = {.temperature = (float)s->generate.temperature,
                                .top_p = (float)s->generate.top_p,
                                .top_k = s->generate.top_k},
                        .seed = (uint64_t)s->run.seed};
}

static void generating_free(Generating *g) {
    for (size_t i = 0; g->reply && i < g->n; i++) free(g->reply[i].text);
    if (g->kept) fclose(g->kept);
    free(g->reply);
    free(g->own);
    free(g->rest);
    free(g->known);
    free(g->order);
    free(g->doc);
}

static bool same_prompts(const Generating *g, Err *err) {
    bool ok = true;
    for (const PromptFile *f = g->p->file; ok && f < g->p->file + PROMPT_FILES; f++) {
        Examples asked = {.doc = f->doc, .index = f->index, .n = f->n};
        ok = same_docs(g->r->ex.comm, "what was read as prompts", &asked, err);
    }
    return ok;
}

bool generating_run(GeneratingWork *work, Runtime *r, const Settings *s, const Prompts *prompts,
                    const char *out, const Keeping *keep, Err *err) {
    double start = clock_seconds();
    Comm *comm = r->ex.comm;
    Generating g = {.r = r, .s = s, .p = prompts, .keep = keep};
    collect(&g);
    comm_phase(comm, "generate", 0, RANKS_APART);
    bool ok = same_prompts(&g, err) && keep_open(&g, err);
    share_out(&g);
    progress_begin(&g.bar, "generate", s->run.json);
    ok = ok && decode_own(&g, err);
    progress_end(&g.bar);
    if (ok) collect_replies(&g);
    ok = ok && agree_root(comm, !comm_root(comm) || write_replies(&g, out, err), err);
    *work = (GeneratingWork){.seconds = clock_seconds() - start, .prompts = g.n};
    for (size_t i = 0; ok && comm_root(comm) && i < g.n; i++) {
        work->prompt_tokens += (size_t)g.doc[i]->n;
        work->tokens += (size_t)g.reply[i].tokens;
        work->cut += g.reply[i].stop < 0;
    }
    generating_free(&g);
    return ok;
}
