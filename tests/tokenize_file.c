/* tokenize_file - what tools/compare_tokenizer.py compares with the `tokenizers` library.
 *
 *   tokenize_file TOKENIZER text FILE.jsonl   {"text"} -> {"ids","decoded","plain"} a line
 *   tokenize_file TOKENIZER docs DATA         each document -> {"ids","labels","reply","shared"}
 *
 * Reports the speed of loading and encoding on stderr, in processor seconds of one core. */
#include <stdio.h>
#include <time.h>

#include <jansson.h>

#include "data/chat.h"

static Tokenizer *tok;
static double seconds; /* spent encoding */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static json_t *id_list(const int32_t *id, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(id[i]));
    return list;
}

static json_t *mask(const uint8_t *m, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_integer(m[i]));
    return list;
}

static json_t *decoded(const Ids *ids, bool skip_special) {
    size_t n;
    char *text = tokenizer_decode(tok, ids->id, ids->n, skip_special, &n);
    json_t *s = json_stringn(text, n);
    free(text);
    return s;
}

static void print(json_t *row) {
    CHECK(json_dumpf(row, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF, "cannot write");
    json_decref(row);
}

static size_t do_text(FILE *in) {
    char *line = NULL;
    size_t capacity = 0, bytes = 0;
    Ids ids = {0};
    Err err;
    while (getline(&line, &capacity, in) > 0) {
        json_error_t e;
        json_t *row = json_loads(line, JSON_ALLOW_NUL, &e);
        CHECK(row, "%s", e.text);
        const json_t *text = json_object_get(row, "text");
        ids.n = 0;
        double start = now();
        bool ok =
            tokenizer_encode(tok, json_string_value(text), json_string_length(text), &ids, &err);
        seconds += now() - start;
        CHECK(ok, "%s", err.text);
        bytes += json_string_length(text);
        json_decref(row);
        print(json_pack("{so so so}", "ids", id_list(ids.id, ids.n), "decoded",
                        decoded(&ids, false), "plain", decoded(&ids, true)));
    }
    free(line);
    ids_free(&ids);
    return bytes;
}

static void print_doc(Doc *doc, int shared) {
    print(json_pack("{so so so si}", "ids", id_list(doc->token, (size_t)doc->n), "labels",
                    mask(doc->label, doc->n), "reply", mask(doc->reply, doc->n), "shared", shared));
    doc_free(doc);
}

static void do_docs(const char *path) {
    Records r;
    Err err;
    CHECK(records_read(&r, path, 0, &err), "%s", err.text);
    for (size_t i = 0; i < r.n; i++) {
        Doc doc, other;
        int shared = 0;
        bool pair = r.record[i].form == RECORD_PAIR;
        bool ok = pair ? doc_pair(&doc, &other, &shared, tok, &r.record[i], 0, &err)
                       : doc_from_record(&doc, tok, &r.record[i], 0, &err);
        CHECK(ok, "%s", err.text);
        print_doc(&doc, shared);
        if (pair) print_doc(&other, shared);
    }
    fprintf(stderr, "%zu records, %zu diverging, %zu without reply left out, %zu turns joined\n",
            r.n, r.diverging_pairs, r.empty_replies, r.merged_turns);
    records_free(&r);
}

int main(int argc, char **argv) {
    CHECK(argc == 4, "expected TOKENIZER text|docs FILE");
    Err err;
    double start = now();
    CHECK(tokenizer_open(&tok, argv[1], &err), "%s", err.text);
    fprintf(stderr, "loaded in %.3f s\n", now() - start);
    if (strcmp(argv[2], "docs") == 0) {
        do_docs(argv[3]);
    } else {
        FILE *in = fopen(argv[3], "rb");
        CHECK(in, "cannot open %s", argv[3]);
        size_t bytes = do_text(in);
        fclose(in);
        fprintf(stderr, "%zu bytes in %.3f s: %.1f MB/s\n", bytes, seconds,
                (double)bytes / (seconds + 1e-9) / 1e6);
    }
    tokenizer_close(tok);
    return 0;
}
