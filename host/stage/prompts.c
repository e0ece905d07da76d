/* prompts.c - prompts, their categories and how long each may answer. */
#include "host/stage/prompts.h"

#include "data/base/mem.h"

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

static bool read_file(Prompts *p, PromptFile *f, Tokenizer *t, const Settings *s, Err *err) {
    if (!*f->path) return true;
    if (!records_read(&f->records, f->path, (size_t)s->generate.limit, err)) return false;
    f->doc = mem_array(f->records.n, sizeof *f->doc);
    for (size_t i = 0; i < f->records.n; i++) {
        if (!render(&f->doc[i], t, &f->records.record[i], p->positions - 1, err))
            return err_prefix(err, "%s", f->path);
        if (f->doc[i].n > p->longest) p->longest = f->doc[i].n;
    }
    p->n += f->records.n;
    return true;
}

bool prompts_read(Prompts *p, Tokenizer *t, const Settings *s, int positions, Err *err) {
    *p = (Prompts){.file = {{.path = s->generate.prompts, .mark = ""},
                            {.path = s->generate.benign, .mark = PROMPTS_BENIGN}},
                   .positions = positions};
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
        records_free(&f->records);
    }
    *p = (Prompts){0};
}
