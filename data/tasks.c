/* tasks.c - a task's files, question by question, and the texts made of them. */
#include "data/tasks.h"

#include <dirent.h>
#include <stdio.h>

#include "data/base/files.h"
#include "data/records_impl.h"
#include "data/utf8.h"

static const char *const task_name[TASK_COUNT] = {TASKS(CHOICE_TEXT)};

typedef struct Reading {
    enum TaskName task;
    Questions *all;
    size_t limit, first; /* the question that the file being read began with */
    const char *subject; /* mmlu */
    const char *shots;   /* what stands in front of each question */
    Source *labels;      /* piqa's second file; NULL: there is none */
} Reading;

size_t question_characters(const char *text) {
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

size_t question_trailing_space(const char *context) {
    size_t all = strlen(context), n = all;
    const char *from = utf8_trim(context, &n);
    return n ? (size_t)(context + all - (from + n)) : all;
}

static void question_free(TaskQuestion *q) {
    free(q->id), free(q->subject), free(q->context);
    for (int i = 0; i < q->n; i++) free(q->choice[i]);
}

void questions_free(Questions *q) {
    for (size_t i = 0; i < q->n; i++) question_free(&q->question[i]);
    free(q->question);
    *q = (Questions){0};
}

/* ---------------------------------------------------------------------------------- fields -- */

/* A member's text; NULL: refused by its name. */
static const char *text_of(const json_t *object, const char *key, Source *s, size_t line) {
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    if (text && strlen(text) == json_string_length(value)) return text;
    source_fail(s, line, "\"%s\": expected text, as the task's authors have it; mend the record",
                key);
    return NULL;
}

/* A text, or a whole number, as text: labels are either. */
static json_t *word_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (json_is_integer(value))
        return json_sprintf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return json_is_string(value) ? json_string(json_string_value(value)) : NULL;
}

static bool add_choice(TaskQuestion *q, const char *text, Source *s, size_t line) {
    if (q->n == QUESTION_CHOICES)
        return source_fail(s, line, "expected at most %d choices", QUESTION_CHOICES);
    q->choice[q->n++] = mem_string(text);
    return *text ||
           source_fail(s, line, "choice %d: expected text, got none; mend the record", q->n);
}

/* The choice whose label is the member's word. The first of several that have it. */
static bool answer_of(TaskQuestion *q, const char *const *label, const json_t *object,
                      const char *key, Source *s, size_t line) {
    json_t *word = word_of(object, key);
    int i = 0;
    while (word && i < q->n && strcmp(label[i], json_string_value(word)) != 0) i++;
    bool ok = word && i < q->n;
    q->answer = i;
    if (!ok)
        source_fail(s, line,
                    "\"%s\": expected the label of a choice, such as %s, got %.40s; questions "
                    "without an answer cannot be counted",
                    key, label[0], word ? json_string_value(word) : "none");
    json_decref(word);
    return ok;
}

static const char *const numbers[QUESTION_CHOICES] = {"0", "1", "2",  "3",  "4",  "5",  "6",  "7",
                                                      "8", "9", "10", "11", "12", "13", "14", "15"};
static const char *const letters[4] = {"A", "B", "C", "D"};

static char *joined(const char *const *part, size_t n) {
    Buf text = {0};
    for (size_t i = 0; i < n; i++) buf_add(&text, part[i], strlen(part[i]));
    return text.p;
}
#define JOINED(...)                            \
    joined((const char *const[]){__VA_ARGS__}, \
           sizeof(const char *[]){__VA_ARGS__} / sizeof(const char *))

/* ------------------------------------------------------------------------------------ mmlu -- */

/* The text of a row up to its answer's letter. */
static char *mmlu_text(const json_t *row, Source *s, size_t line) {
    const char *part[5];
    static const char *const column[5] = {"question", "A", "B", "C", "D"};
    for (int i = 0; i < 5; i++)
        if (!(part[i] = text_of(row, column[i], s, line))) return NULL;
    size_t n = strlen(part[0]);
    const char *from = utf8_trim(part[0], &n);
    char *question = buf_copy(from, n);
    char *text = JOINED(question, "\nA. ", part[1], "\nB. ", part[2], "\nC. ", part[3], "\nD. ",
                        part[4], "\nAnswer:");
    free(question);
    return text;
}

static bool mmlu_question(TaskQuestion *q, const Reading *r, const json_t *row, Source *s,
                          size_t line) {
    char *text = mmlu_text(row, s, line);
    if (!text) return false;
    q->context = JOINED(r->shots, text);
    free(text);
    for (int i = 0; i < 4; i++) add_choice(q, letters[i], s, line);
    return answer_of(q, letters, row, "answer", s, line);
}

/* ------------------------------------------------------------------------------- hellaswag -- */

/* Every `from` becomes `to`, left to right. */
static char *replaced(const char *text, const char *from, const char *to) {
    Buf out = {0};
    buf_add(&out, "", 0);
    for (const char *at; (at = strstr(text, from)); text = at + strlen(from)) {
        buf_add(&out, text, (size_t)(at - text));
        buf_add(&out, to, strlen(to));
    }
    buf_add(&out, text, strlen(text));
    return out.p;
}

/* Takes "[..]" out, up to the first "]" of the same line. */
static void cut_brackets(char *text) {
    char *to = text;
    for (char *at = text; *at;) {
        size_t n = *at == '[' ? strcspn(at, "]\n") : 0;
        if (n && at[n] == ']')
            at += n + 1;
        else
            *to++ = *at++;
    }
    *to = 0;
}

static char *plain(const char *text) {
    size_t n = strlen(text);
    const char *from = utf8_trim(text, &n);
    char *a = buf_copy(from, n), *b = replaced(a, " [title]", ". ");
    cut_brackets(b);
    char *c = replaced(b, "  ", " ");
    free(a), free(b);
    return c;
}

/* As str.capitalize does with ASCII. */
static char *capitalised(const char *text) {
    char *out = mem_string(text);
    for (char *c = out; *c; c++) {
        if (c == out && *c >= 'a' && *c <= 'z') *c = (char)(*c - 'a' + 'A');
        if (c > out && *c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
    }
    return out;
}

static bool hellaswag_question(TaskQuestion *q, const json_t *row, Source *s, size_t line) {
    const char *activity = text_of(row, "activity_label", s, line);
    const char *a = activity ? text_of(row, "ctx_a", s, line) : NULL;
    const char *b = a ? text_of(row, "ctx_b", s, line) : NULL;
    if (!b) return false;
    char *rest = capitalised(b), *whole = JOINED(activity, ": ", a, " ", rest);
    q->context = plain(whole);
    free(rest), free(whole);
    const json_t *endings = json_object_get(row, "endings"), *one;
    size_t i;
    json_array_foreach (endings, i, one) {
        if (!json_is_string(one))
            return source_fail(s, line, "\"endings\": expected a list of texts");
        char *text = plain(json_string_value(one));
        bool ok = add_choice(q, text, s, line);
        free(text);
        if (!ok) return false;
    }
    return answer_of(q, numbers, row, "label", s, line);
}

/* ------------------------------------------------------------------------------- arc, piqa -- */

/* Choice i of either form: its member `key`; NULL: there are no more. */
static const json_t *arc_part(const json_t *choices, size_t i, const char *key) {
    if (json_is_array(choices)) return json_object_get(json_array_get(choices, i), key);
    return json_array_get(json_object_get(choices, key), i);
}

static bool arc_question(TaskQuestion *q, const json_t *row, Source *s, size_t line) {
    const json_t *of = json_object_get(row, "question");
    bool nested = json_is_object(of);
    const char *stem = text_of(nested ? of : row, nested ? "stem" : "question", s, line);
    if (!stem) return false;
    q->context = JOINED("Question: ", stem, "\nAnswer:");
    const json_t *choices = json_object_get(nested ? of : row, "choices"), *text;
    const char *label[QUESTION_CHOICES] = {"A"};
    for (size_t i = 0; (text = arc_part(choices, i, "text")); i++) {
        const char *name = json_string_value(arc_part(choices, i, "label"));
        if (!json_is_string(text) || !name)
            return source_fail(s, line, "\"choices\": expected a text and a label for each");
        if (!add_choice(q, json_string_value(text), s, line)) return false;
        label[i] = name;
    }
    return answer_of(q, label, row, "answerKey", s, line);
}

/* The next line of the file of labels, for a row that has none itself. */
static bool piqa_label(const Reading *r, json_t *row, Source *s, size_t line) {
    if (json_object_get(row, "label")) return true;
    Buf text = {0};
    size_t at;
    bool ok = r->labels && source_line(r->labels, &text, &at);
    if (ok)
        json_object_set_new(row, "label", json_stringn(text.p, text.n));
    else if (!r->labels || !r->labels->failed)
        source_fail(s, line, "expected \"label\", or a line for it in the -labels.lst beside");
    else
        s->failed = true;
    buf_free(&text);
    return ok;
}

static bool piqa_question(TaskQuestion *q, const Reading *r, const json_t *fields, Source *s,
                          size_t line) {
    json_t *row = json_copy((json_t *)(uintptr_t)fields);
    const char *goal = text_of(row, "goal", s, line);
    const char *one = goal ? text_of(row, "sol1", s, line) : NULL;
    const char *two = one ? text_of(row, "sol2", s, line) : NULL;
    bool ok = two && piqa_label(r, row, s, line);
    if (ok) q->context = JOINED("Question: ", goal, "\nAnswer:");
    ok = ok && add_choice(q, one, s, line) && add_choice(q, two, s, line) &&
         answer_of(q, numbers, row, "label", s, line);
    json_decref(row);
    return ok;
}

/* ----------------------------------------------------------------------------------- files -- */

static bool fill(TaskQuestion *q, const Reading *r, const json_t *row, Source *s, size_t line) {
    switch (r->task) {
        case TASK_MMLU:
            return mmlu_question(q, r, row, s, line);
        case TASK_HELLASWAG:
            return hellaswag_question(q, row, s, line);
        case TASK_PIQA:
            return piqa_question(q, r, row, s, line);
        default:
            return arc_question(q, row, s, line);
    }
}

/* Its own id, or its line, behind the subject. */
static char *id_of(const Reading *r, const json_t *row, size_t line) {
    json_t *own = word_of(row, r->task == TASK_HELLASWAG ? "ind" : "id");
    char number[32];
    snprintf(number, sizeof number, "%zu", line);
    char *id = JOINED(r->subject, *r->subject ? "/" : "", own ? json_string_value(own) : number);
    json_decref(own);
    return id;
}

static bool add_row(void *context, const json_t *row, Source *s, size_t line) {
    Reading *r = context;
    Questions *all = r->all;
    TaskQuestion q = {0};
    bool ok = fill(&q, r, row, s, line);
    if (ok && q.n < 2) ok = source_fail(s, line, "expected two choices at least, got %d", q.n);
    if (!ok) {
        question_free(&q);
        return false;
    }
    q.id = id_of(r, row, line);
    q.subject = mem_string(r->subject);
    all->question = mem_grow(all->question, &all->capacity, all->n + 1, sizeof *all->question);
    all->question[all->n++] = q;
    return r->limit == 0 || all->n - r->first < r->limit;
}

/* The rows of a CSV file of mmlu. */
static bool csv_each(const char *path, row_sink *sink, void *context, Err *err) {
    static const char *const column[] = {"question", "A", "B", "C", "D", "answer"};
    Source s;
    if (!source_open(&s, path, err)) return false;
    Csv csv = {0};
    csv_columns(&csv, column, sizeof column / sizeof *column);
    json_t *row;
    size_t line;
    bool more = true;
    while (more && csv_row(&csv, &s, &row, &line)) {
        more = sink(context, row, &s, line);
        json_decref(row);
    }
    bool ok = !s.failed;
    csv_free(&csv);
    source_close(&s);
    return ok;
}

typedef struct Shots {
    Buf text;
    int n, wanted;
} Shots;

static bool add_shot(void *context, const json_t *row, Source *s, size_t line) {
    Shots *shots = context;
    TaskQuestion q = {.n = 4};
    char *text = mmlu_text(row, s, line);
    bool ok = text && answer_of(&q, letters, row, "answer", s, line);
    if (ok) {
        char *whole = JOINED(text, " ", letters[q.answer], "\n\n");
        buf_add(&shots->text, whole, strlen(whole));
        free(whole);
    }
    free(text);
    return ok && ++shots->n < shots->wanted;
}

/* What stands in front of a subject's questions. */
static bool read_shots(Shots *to, const char *folder, const char *subject, int n, Err *err) {
    *to = (Shots){.wanted = n};
    char *spaced = replaced(subject, "_", " ");
    char *head = JOINED("The following are multiple choice questions (with answers) about ", spaced,
                        ".\n\n");
    buf_add(&to->text, head, strlen(head));
    free(spaced), free(head);
    if (n == 0) return true;
    char *path = JOINED(folder, "/dev/", subject, "_dev.csv");
    bool ok = csv_each(path, add_shot, to, err);
    if (ok && to->n < n)
        ok = err_set(err, EXIT_INPUT, "%s: expected %d examples, found %d; ask for fewer", path, n,
                     to->n);
    free(path);
    return ok;
}

static bool read_subject(Reading *r, const char *folder, const char *subject, int shots, Err *err) {
    Shots front;
    char *path = JOINED(folder, "/test/", subject, "_test.csv");
    bool ok = read_shots(&front, folder, subject, shots, err);
    r->subject = subject, r->shots = front.text.p, r->first = r->all->n;
    ok = ok && csv_each(path, add_row, r, err);
    free(path);
    buf_free(&front.text);
    return ok;
}

static const char test_file[] = "_test.csv";

static int is_test(const struct dirent *e) {
    size_t n = strlen(e->d_name), end = strlen(test_file);
    return n > end && strcmp(e->d_name + n - end, test_file) == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool read_subjects(Reading *r, const char *folder, int shots, Err *err) {
    struct dirent **entry = NULL;
    char *tests = files_join(folder, "test");
    int n = scandir(tests, &entry, is_test, by_name);
    bool ok = n > 0 || err_set(err, EXIT_INPUT,
                               "%s: expected the files SUBJECT_test.csv in it; unpack data.tar and "
                               "name its folder data",
                               tests);
    for (int i = 0; i < n; i++) {
        char *subject = buf_copy(entry[i]->d_name, strlen(entry[i]->d_name) - strlen(test_file));
        ok = ok && read_subject(r, folder, subject, shots, err);
        free(subject), free(entry[i]);
    }
    free(entry), free(tests);
    return ok;
}

/* Of FILE.jsonl FILE-labels.lst, if it is there, else NULL. */
static char *labels_of(const char *path) {
    const char *dot = strrchr(path, '.');
    char *stem = buf_copy(path, dot ? (size_t)(dot - path) : strlen(path));
    char *beside = JOINED(stem, "-labels.lst");
    bool there = files_exists(beside);
    free(stem);
    if (!there) free(beside);
    return there ? beside : NULL;
}

static bool read_file(Reading *r, const char *path, Err *err) {
    Source labels;
    char *beside = r->task == TASK_PIQA ? labels_of(path) : NULL;
    size_t end;
    bool ok = !beside || source_open(&labels, beside, err);
    if (ok && beside) r->labels = &labels;
    ok = ok && rows_each(path, "question", add_row, r, &end, err);
    if (r->labels) source_close(&labels);
    free(beside);
    return ok;
}

bool task_read(Questions *all, enum TaskName task, const char *path, int shots, size_t limit,
               Err *err) {
    *all = (Questions){0};
    Reading r = {.task = task, .all = all, .limit = limit, .subject = "", .shots = ""};
    bool ok = task == TASK_MMLU ? read_subjects(&r, path, shots, err) : read_file(&r, path, err);
    if (ok && all->n == 0)
        ok = err_set(err, EXIT_INPUT, "%s: expected at least one question; fetch it again", path);
    if (!ok) {
        questions_free(all);
        err_prefix(err, "task %s", task_name[task]);
    }
    return ok;
}
