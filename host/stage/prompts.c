/* prompts.c - prompts, their categories and how long each may answer. */
#include "host/stage/prompts.h"

#include "data/base/mem.h"
#include "data/base/rng.h"
#include "host/stage/dataset.h"

static bool render(Doc *d, Tokenizer *t, const Record *r, int max_length, Err *err) {
    if (r->form == RECORD_TEXT || r->form == RECORD_TOKENS) {
        if (!doc_from_record(d, t, r, max_length, err)) return false;
        return !d->truncated ||
               err_set(err, EXIT_INPUT, "line %zu: prompt of more than %d tokens; shorten it",
                       r->line, max_length);
    }
    if (!chat_render(d, t, &r->chat, true, max_length, err))
        return err_prefix(err, "line %zu", r->line);
    d->record = r;
    return true;
}

static bool read_records(const Prompts *p, PromptFile *f, const Settings *s, Err *err) {
    size_t limit = (size_t)s->generate.limit;
    bool benign = f != p->file;
    int suite = benign ? s->generate.benign_suite : s->generate.suite;
    f->marked = suite != 0;
    if (!suite) return records_read(&f->records, f->path, limit, err);
    return (benign ? suite_read_benign : suite_read)(&f->records, (enum SuiteName)(suite - 1),
                                                     f->path, limit, err);
}

static bool read_file(Prompts *p, PromptFile *f, Tokenizer *t, const Settings *s, Err *err) {
    if (!*f->path) return true;
    if (!read_records(p, f, s, err)) return false;
    f->doc = mem_array(f->records.n, sizeof *f->doc);
    for (size_t i = 0; i < f->records.n; i++) {
        if (!render(&f->doc[i], t, &f->records.record[i], p->positions - 1, err))
            return err_prefix(err, "%s", f->path);
        if (f->doc[i].n > p->longest) p->longest = f->doc[i].n;
    }
    f->index = mem_array(f->records.n, sizeof *f->index);
    for (f->n = 0; f->n < f->records.n; f->n++) f->index[f->n] = f->n;
    p->n += f->n;
    return true;
}

bool prompts_read(Prompts *p, Tokenizer *t, const Settings *s, int positions, Err *err) {
    *p = (Prompts){.file = {{.path = s->generate.prompts, .mark = ""},
                            {.path = s->generate.benign, .mark = PROMPTS_BENIGN}},
                   .positions = positions};
    if (s->generate.benign_suite && !*s->generate.benign)
        return err_set(err, EXIT_USAGE, "--benign-suite: --benign is needed, its file");
    for (int f = 0; f < PROMPT_FILES; f++)
        if (!read_file(p, &p->file[f], t, s, err)) {
            prompts_free(p);
            return false;
        }
    return true;
}

void prompts_free(Prompts *p) {
    for (int k = 0; k < PROMPT_FILES; k++) {
        PromptFile *f = &p->file[k];
        for (size_t i = 0; f->doc && i < f->records.n; i++) doc_free(&f->doc[i]);
        free(f->doc);
        free(f->index);
        records_free(&f->records);
    }
    *p = (Prompts){0};
}

/* ------------------------------------------------------------------------------- parts -- */

static uint64_t key_of(const Doc *d, uint64_t seed) {
    enum { PROMPT_STREAM = 0x70726f6d };
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (int i = 0; i < d->n; i++) h = (h ^ (uint64_t)(uint32_t)d->token[i]) * 1099511628211u;
    return rng_u64(seed, PROMPT_STREAM, h);
}

static void split_file(PromptFile *part, PromptFile *rest, const PromptFile *f, double share,
                       uint64_t seed) {
    uint64_t *key = mem_array(f->n + 1, sizeof *key);
    bool *marked = mem_array(f->n + 1, sizeof *marked);
    for (size_t i = 0; i < f->n; i++) key[i] = key_of(&f->doc[f->index[i]], seed);
    split_mark(marked, key, f->n, share);
    *part = *rest = *f;
    part->n = rest->n = 0;
    part->index = mem_array(f->n + 1, sizeof *f->index);
    rest->index = mem_array(f->n + 1, sizeof *f->index);
    for (size_t i = 0; i < f->n; i++) {
        PromptFile *to = marked[i] ? part : rest;
        to->index[to->n++] = f->index[i];
    }
    free(marked), free(key);
}

bool prompts_split(Prompts *part, Prompts *rest, const Prompts *all, double share, uint64_t seed,
                   Err *err) {
    *part = *rest = *all;
    part->n = rest->n = 0;
    for (int f = 0; f < PROMPT_FILES; f++) {
        split_file(&part->file[f], &rest->file[f], &all->file[f], share, seed);
        part->n += part->file[f].n, rest->n += rest->file[f].n;
    }
    for (int f = 0; f < PROMPT_FILES; f++)
        if (all->file[f].n > 0 && (part->file[f].n == 0 || rest->file[f].n == 0)) {
            prompts_part_free(part), prompts_part_free(rest);
            return err_set(err, EXIT_INPUT,
                           "%s: its prompts cannot be split, to choose a rate on a part of them; "
                           "give more, or one rate",
                           all->file[f].path);
        }
    return true;
}

void prompts_part_free(Prompts *part) {
    for (int f = 0; f < PROMPT_FILES; f++) free(part->file[f].index);
    *part = (Prompts){0};
}
