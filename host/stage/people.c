/* people.c - what people said, what the judge said. */
#include "host/stage/people.h"

#include <stdlib.h>
#include <string.h>

#include "data/base/mem.h"
#include "data/base/statistics.h"
#include "host/cli/settings.h"
#include "host/stage/judge.h"
#include "host/stage/judges.h"

/* XSTest's numbers, from 1. */
static const enum VerdictKind by_number[] = {VERDICT_COMPLIED, VERDICT_REFUSED, VERDICT_PARTIAL};

/* The kind that a label names; -1: none. */
static int kind_of(const json_t *label) {
    const char *text = json_string_value(label);
    json_int_t number = json_integer_value(label);
    if (text && *text >= '1' && *text <= '3' && (text[1] == '_' || !text[1])) number = *text - '0';
    if (number >= 1 && number <= 3) return (int)by_number[number - 1];
    for (int k = 0; text && k < VERDICT_KINDS; k++)
        if (strcmp(text, verdict_name[k]) == 0) return k;
    return -1;
}

static const json_t *label_of(const json_t *line, const char *keys) {
    char key[SETTING_KEY];
    const json_t *label = NULL;
    for (int i = 0; !label && i < list_count(keys); i++) {
        list_item(keys, i, key, sizeof key);
        label = json_object_get(line, key);
    }
    return json_is_null(label) ? NULL : label;
}

static void push(int **list, size_t room, size_t n, int value) {
    *list = mem_grow(*list, &room, n + 1, sizeof **list);
    (*list)[n] = value;
}

static int refusal(int kind) {
    return kind == VERDICT_REFUSED || kind == VERDICT_PARTIAL;
}

void people_add(People *l, const json_t *line, const char *keys, int verdict) {
    const json_t *label = label_of(line, keys);
    int kind = label ? kind_of(label) : -1;
    size_t room = l->room;
    if (label && kind < 0) l->unknown++;
    if (kind < 0 || verdict < 0) return;
    push(&l->said, room, l->n, kind), push(&l->judged, room, l->n, verdict);
    push(&l->said_refusal, room, l->n, refusal(kind));
    l->judged_refusal = mem_grow(l->judged_refusal, &l->room, l->n + 1, sizeof *l->judged_refusal);
    l->judged_refusal[l->n++] = refusal(verdict);
}

static json_t *table_json(const People *l) {
    json_int_t count[VERDICT_KINDS][VERDICT_KINDS] = {{0}};
    json_t *table = json_object();
    for (size_t i = 0; i < l->n; i++) count[l->said[i]][l->judged[i]]++;
    for (int a = 0; a < VERDICT_KINDS; a++) {
        json_t *row = json_object();
        for (int b = 0; b < VERDICT_KINDS; b++)
            json_object_set_new(row, verdict_name[b], json_integer(count[a][b]));
        json_object_set_new(table, verdict_name[a], row);
    }
    return table;
}

json_t *people_json(const People *l) {
    if (l->n + l->unknown == 0) return NULL;
    Raters binary = statistics_raters(l->said_refusal, l->judged_refusal, l->n, 2);
    Raters all = statistics_raters(l->said, l->judged, l->n, VERDICT_KINDS);
    return json_pack("{s:I, s:I, s:o, s:o, s:o}", "n", (json_int_t)l->n, "unknown",
                     (json_int_t)l->unknown, "refusal", judge_raters_json(&binary), "verdict",
                     judge_raters_json(&all), "table", table_json(l));
}

void people_free(People *l) {
    free(l->said), free(l->judged), free(l->said_refusal), free(l->judged_refusal);
    *l = (People){0};
}
