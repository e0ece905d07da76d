/* cmd_tokenize.c - ids, pieces and label mask of every document, as training sees them. */
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "host/stage/chat_template.h"
#include "host/cli/command.h"
#include "host/stage/dataset.h"
#include "data/base/interrupt.h"
#include "host/cli/json_lines.h"
#include "host/cli/print.h"

/* A piece as JSON text. Pieces of a byte-fallback vocabulary are UTF-8, bytes show as <0xE2>. */
static json_t *piece_json(const Tokenizer *t, int32_t id) {
    size_t n;
    const char *piece = tokenizer_piece(t, id, &n);
    json_t *text = piece ? json_stringn(piece, n) : NULL;
    return text ? text : json_string("");
}

static json_t *doc_json(const Tokenizer *t, const Doc *d) {
    json_t *tokens = json_array(), *pieces = json_array(), *labels = json_array();
    for (int i = 0; i < d->n; i++) {
        json_array_append_new(tokens, json_integer(d->token[i]));
        json_array_append_new(pieces, piece_json(t, d->token[i]));
        json_array_append_new(labels, json_integer(d->label[i]));
    }
    return json_pack("{s:s, s:o, s:o, s:o, s:b}", "id", d->record->id, "tokens", tokens, "pieces",
                     pieces, "labels", labels, "truncated", d->truncated);
}

static void report(const Settings *s, const Dataset *d) {
    if (s->run.json) {
        print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "out", s->tokenize.out,
                             "documents", (json_int_t)d->n, "tokens", (json_int_t)d->tokens,
                             "targets", (json_int_t)d->labels, "longest", (json_int_t)d->longest,
                             "truncated", (json_int_t)d->truncated, "unlabelled",
                             (json_int_t)d->unlabelled));
        return;
    }
    printf("%s: %zu documents, %zu tokens, %zu targets, longest %zu\n", s->data.path, d->n,
           d->tokens, d->labels, d->longest);
    dataset_print_notes(stdout, "  ", d);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Tokenizer *t;
    Dataset d;
    if (!tokenizer_open(&t, s->model.tokenizer, err)) return false;
    chat_template_notice(s->model.tokenizer);
    bool ok = dataset_load(&d, t, s->data.path, (enum Side)s->data.side, s->data.max_length,
                           (size_t)s->data.limit, err);
    JsonLines out = {0};
    if (ok) ok = json_lines_open(&out, s->tokenize.out, err);
    for (size_t i = 0; i < d.n && ok; i++)
        ok = !interrupted(err) && json_lines_put(&out, doc_json(t, &d.doc[i]), err);
    ok = json_lines_close(&out, ok, err);
    if (ok && *s->tokenize.out) report(s, &d);
    dataset_free(&d);
    tokenizer_close(t);
    return ok;
}

static const Use use[] = {{"tokenize.*", USE_OPTIONAL}, {"model.tokenizer", USE_NEEDED},
                          {"data.path", USE_NEEDED},    {"data.limit", USE_OPTIONAL},
                          {"data.side", USE_OPTIONAL},  {"data.max-length", USE_OPTIONAL},
                          {"json", USE_OPTIONAL},       {NULL, USE_OPTIONAL}};

const Command cmd_tokenize = {
    .name = "tokenize",
    .summary = "ids, text pieces and label mask of every document, as training sees them",
    .about = "One JSON object a line: {\"id\", \"tokens\", \"pieces\", \"labels\", \"truncated\"}.",
    .positional = POSITIONAL_RECIPE,
    .use = use,
    .run = run,
};
