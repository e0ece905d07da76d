/* inspect_records.c - data files, shown as training sees them, and run folders. */
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "host/stage/dataset.h"
#include "host/cmd/inspect.h"
#include "host/cli/print.h"
#include "host/align/summary.h"

enum { SHOWN = 3, SHOWN_BYTES = 4000 /* of one record's text */ };

/* A piece as it reads: the space mark as a space, line ends made visible. */
static size_t put_piece(FILE *f, const char *piece, size_t n) {
    static const char space[] = "\xe2\x96\x81";
    size_t put = 0;
    for (size_t i = 0; i < n; put++) {
        if (n - i >= 3 && memcmp(piece + i, space, 3) == 0) {
            fputc(' ', f);
            i += 3;
        } else if (piece[i] == '\n') {
            fputs("\\n", f);
            i++;
        } else {
            fputc(piece[i++], f);
        }
    }
    return put;
}

/* Pieces separated by |, targets between [[ and ]]. */
static void put_tokens(FILE *f, const Tokenizer *t, const Doc *d) {
    bool inside = false;
    size_t put = 0;
    for (int i = 0; i < d->n && put < SHOWN_BYTES; i++) {
        size_t n;
        const char *piece = tokenizer_piece(t, d->token[i], &n);
        bool target = d->label[i] != 0;
        if (target != inside)
            fputs(target ? "[[" : "]]", f);
        else if (i)
            fputc('|', f);
        inside = target;
        if (piece) put += put_piece(f, piece, n);
    }
    if (put >= SHOWN_BYTES) fputs(" ...", f);
    fputs(inside ? "]]\n" : "\n", f);
}

static void put_text(FILE *f, const char *text, size_t n) {
    fwrite(text, 1, n < SHOWN_BYTES ? n : SHOWN_BYTES, f);
    fputs(n < SHOWN_BYTES ? "\n" : " ...\n", f);
}

static void put_chat(FILE *f, const Chat *c) {
    for (int i = 0; i < c->n; i++) {
        fputs(c->turn[i].role == ROLE_USER ? "  user:  " : "  model: ", f);
        put_text(f, c->turn[i].text, c->turn[i].len);
    }
}

static void put_head(FILE *f, const Record *r) {
    static const char *const form[] = {"pair", "chat", "prompt", "text", "tokens"};
    fprintf(f, "\nline %zu, id %s%s%s: %s\n", r->line, r->id, *r->category ? ", category " : "",
            r->category, form[r->form]);
}

static void form_facts(json_t *facts, const Records *records) {
    static const char *const form[] = {"pairs", "chats", "prompts", "texts", "token lists"};
    json_int_t count[5] = {0};
    for (size_t i = 0; i < records->n; i++) count[records->record[i].form]++;
    json_object_set_new(facts, "records", json_integer((json_int_t)records->n));
    for (int i = 0; i < 5; i++)
        if (count[i]) json_object_set_new(facts, form[i], json_integer(count[i]));
    if (records->diverging_pairs)
        json_object_set_new(facts, "pairs that differ before the last reply",
                            json_integer((json_int_t)records->diverging_pairs));
    if (records->unsafe_pairs)
        json_object_set_new(facts, "left out without a safe reply",
                            json_integer((json_int_t)records->unsafe_pairs));
    if (records->marked_replies)
        json_object_set_new(facts, "replies that hold turns as text",
                            json_integer((json_int_t)records->marked_replies));
    if (records->ignored)
        json_object_set_new(facts, "fields ignored", json_string(records->ignored));
    if (records->empty_replies)
        json_object_set_new(facts, "left out for an empty reply",
                            json_integer((json_int_t)records->empty_replies));
}

static void dataset_facts(json_t *facts, const Dataset *d) {
    json_t *found =
        json_pack("{s:I, s:I, s:I, s:I, s:I}", "tokens", (json_int_t)d->tokens, "targets",
                  (json_int_t)d->labels, "longest", (json_int_t)d->longest, "cut at max-length",
                  (json_int_t)d->truncated, "without a target", (json_int_t)d->unlabelled);
    json_object_update(facts, found);
    json_decref(found);
}

static bool with_tokens(json_t *facts, const char *path, const Settings *s, size_t shown,
                        Err *err) {
    Tokenizer *t;
    Dataset d;
    if (!tokenizer_open(&t, s->model.tokenizer, err)) return false;
    bool ok = dataset_load(&d, t, path, (enum Side)s->data.side, s->data.max_length, 0, err);
    if (ok) {
        form_facts(facts, &d.records);
        dataset_facts(facts, &d);
        FILE *f = text_begin();
        for (size_t i = 0; i < d.n && i < shown; i++) {
            put_head(f, d.doc[i].record);
            put_tokens(f, t, &d.doc[i]);
        }
        text_end(f, facts);
    }
    dataset_free(&d);
    tokenizer_close(t);
    return ok;
}

bool inspect_records(json_t *facts, const char *path, const Settings *s, Err *err) {
    size_t shown = s->data.limit ? (size_t)s->data.limit : SHOWN;
    if (*s->model.tokenizer) return with_tokens(facts, path, s, shown, err);
    Records records;
    if (!records_read(&records, path, 0, err)) return false;
    form_facts(facts, &records);
    FILE *f = text_begin();
    for (size_t i = 0; i < records.n && i < shown; i++) {
        const Record *r = &records.record[i];
        put_head(f, r);
        if (r->form == RECORD_TEXT) put_text(f, r->text, r->text_len);
        put_chat(f, &r->chat);
        if (r->form == RECORD_PAIR) fputs("  rejected:\n", f);
        if (r->form == RECORD_PAIR) put_chat(f, &r->rejected);
    }
    text_end(f, facts);
    records_free(&records);
    return true;
}

/* --------------------------------------------------------------------------- run folders -- */

static void stage_facts(json_t *facts, json_t *stages) {
    const char *name;
    json_t *stage, *to = json_object();
    json_object_foreach (stages, name, stage) {
        char line[96], took[PRINT_ROOM];
        const char *state = json_string_value(json_object_get(stage, "state"));
        double seconds = json_number_value(json_object_get(stage, "seconds"));
        snprintf(line, sizeof line, "%.40s, %s", state ? state : "?", print_seconds(took, seconds));
        json_object_set_new(to, name, json_string(line));
    }
    json_object_set_new(facts, "stages", to);
}

static bool run_facts(json_t *facts, const json_t *manifest, const char *file, Err *err) {
    static const char *const shown[] = {"started", "device", "cpu", "seed"};
    if (!json_is_object(json_object_get(manifest, "stages")))
        return err_set(err, EXIT_INPUT,
                       "%s: expected an object with the stages of a run; run sails align again",
                       file);
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        json_t *value = json_object_get(manifest, shown[i]);
        if (value) json_object_set(facts, shown[i], value);
    }
    stage_facts(facts, json_object_get(manifest, "stages"));
    return true;
}

bool inspect_run(json_t *facts, const char *path, const Settings *s, Err *err) {
    char *file = files_join(path, "manifest.json"), *table = files_join(path, "summary.json");
    json_t *manifest, *summary = NULL;
    bool ok = files_read_json(&manifest, file, 64 << 20, err);
    if (ok) {
        ok = run_facts(facts, manifest, file, err);
        json_decref(manifest);
    }
    if (ok && files_exists(table)) {
        ok = files_read_json(&summary, table, 16 << 20, err);
        if (ok && !json_is_array(json_object_get(summary, "rows")))
            ok = err_set(err, EXIT_INPUT, "%s: expected a list of rows; run sails align again",
                         table);
    }
    if (ok && summary) {
        FILE *f = text_begin();
        summary_print(summary, f);
        text_end(f, facts);
        if (s->run.json) json_object_set(facts, "rows", json_object_get(summary, "rows"));
    }
    json_decref(summary);
    free(table);
    free(file);
    return ok;
}
