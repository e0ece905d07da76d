/* generating.c - prompts to a file of responses, in the order of the prompts. */
#include "host/stage/generating.h"

#include <stdio.h>

#include "data/base/mem.h"
#include "data/base/interrupt.h"
#include "host/cli/json_lines.h"
#include "host/stage/bad_tensor.h"
#include "host/cli/print.h"

typedef struct Generating {
    Runtime *r;
    const Settings *s;
    const Prompts *p;
    size_t n; /* prompts of all files */
    const Doc **doc;
    size_t *order; /* longest first: a long reply that starts late leaves the others' places idle */
    char **reply;  /* text of each prompt's reply */
    size_t *reply_len;
    int *made, *stop;
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
    g->reply_len = mem_array(g->n, sizeof *g->reply_len);
    g->made = mem_array(g->n, sizeof *g->made);
    g->stop = mem_array(g->n, sizeof *g->stop);
    size_t at = 0;
    for (int f = 0; f < PROMPT_FILES; f++)
        for (size_t i = 0; i < g->p->file[f].records.n; i++) g->doc[at++] = &g->p->file[f].doc[i];
    for (size_t i = 0; i < g->n; i++) g->order[i] = i;
    qsort_r(g->order, g->n, sizeof *g->order, longer_first, g);
}

static void take_reply(void *context, const GenReply *reply) {
    Generating *g = context;
    size_t i = g->order[reply->index];
    g->reply[i] =
        tokenizer_decode(g->r->tokenizer, reply->token, (size_t)reply->n, true, &g->reply_len[i]);
    g->made[i] = reply->n;
    g->stop[i] = reply->stop;
    progress_at(&g->bar, (double)++g->done, (double)g->n);
}

static bool decode_all(Generating *g, Err *err) {
    const Settings *s = g->s;
    int32_t end_of_turn = tokenizer_id(g->r->tokenizer, "<end_of_turn>");
    GenOptions o = generating_options(s, g->p);
    o.stop = &end_of_turn;
    o.nstop = end_of_turn >= 0;
    o.give_up = interrupt_came;
    Generator *gen = gen_create(&g->r->model, &o);
    GenPrompt *prompt = mem_array(g->n, sizeof *prompt);
    for (size_t i = 0; i < g->n; i++) {
        size_t number = g->order[i];
        prompt[i] = (GenPrompt){g->doc[number]->token, g->doc[number]->n,
                                s->generate.max_new_tokens, number};
    }
    enum GenEnd end = gen_run(gen, prompt, (int)g->n, take_reply, g);
    bool ok = end == GEN_DONE;
    if (end == GEN_BAD_NUMBERS)
        bad_tensor_find(&g->r->model, gen_acts(gen), "a reply's logits are not finite", err);
    else if (!ok)
        ok = !interrupted(err);
    free(prompt);
    gen_destroy(gen);
    return ok;
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
    sprintf(category, "%s%s%s", f->mark, *f->mark && *r->category ? "/" : "", r->category);
    bool ok = json_lines_put(
        out,
        json_pack("{s:s, s:o, s:o, s:s, s:i, s:s}", "id", id, "prompt", prompt_text(r), "response",
                  json_stringn(g->reply[i], g->reply_len[i]), "category", category, "tokens",
                  g->made[i], "stop", g->stop[i] < 0 ? "length" : "end"),
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
        for (size_t i = 0; i < f->records.n && ok; i++)
            ok = write_reply(&out, g, f, at++, &f->records.record[i], err);
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
    for (size_t i = 0; g->reply && i < g->n; i++) free(g->reply[i]);
    free(g->stop);
    free(g->made);
    free(g->reply_len);
    free(g->reply);
    free(g->order);
    free(g->doc);
}

bool generating_run(GeneratingWork *work, Runtime *r, const Settings *s, const Prompts *prompts,
                    const char *out, Err *err) {
    double start = clock_seconds();
    Generating g = {.r = r, .s = s, .p = prompts};
    collect(&g);
    progress_begin(&g.bar, "generate", s->run.json);
    bool ok = decode_all(&g, err);
    progress_end(&g.bar);
    ok = ok && write_replies(&g, out, err);
    *work = (GeneratingWork){.seconds = clock_seconds() - start, .prompts = g.n};
    for (size_t i = 0; ok && i < g.n; i++) {
        work->prompt_tokens += (size_t)g.doc[i]->n;
        work->tokens += (size_t)g.made[i];
        work->cut += g.stop[i] < 0;
    }
    generating_free(&g);
    return ok;
}
