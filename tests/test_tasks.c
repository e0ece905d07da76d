/* Multiple-choice tasks: the texts of lm-evaluation-harness' own rules, worked out by hand for
 * files as their authors write them (questions of our own making), and broken ones. */
#include "data/tasks.h"

#include <sys/stat.h>

#include "tests/files.h"

static const char *text_file(const char *name, const char *text) {
    return test_file(name, text, strlen(text));
}

static Questions good(enum TaskName task, const char *path, int shots, size_t limit) {
    Questions q;
    Err err = {0};
    EXPECT(task_read(&q, task, path, shots, limit, &err), "%s", err.text);
    return q;
}

static void same(const char *what, const char *got, const char *expected) {
    EXPECT(strcmp(got, expected) == 0, "%s: '%s', expected '%s'", what, got, expected);
}

static void question_is(const Questions *all, size_t i, const char *id, const char *context,
                        const char *last, int n, int answer) {
    EXPECT(i < all->n, "question %zu of %zu", i, all->n);
    if (i >= all->n) return;
    const TaskQuestion *q = &all->question[i];
    same("id", q->id, id);
    same("context", q->context, context);
    EXPECT(q->n == n && q->answer == answer, "%d choices, answer %d", q->n, q->answer);
    if (q->n == n) same("last choice", q->choice[n - 1], last);
}

#define RED "Which is red?\nA. sky\nB. \"blood\"\nC. sea\nD. snow, ice\nAnswer:"
static void test_mmlu(void) {
    CHECK(mkdir(test_path("mmlu"), 0777) == 0, "no folder");
    CHECK(mkdir(test_path("mmlu/test"), 0777) == 0, "no folder");
    CHECK(mkdir(test_path("mmlu/dev"), 0777) == 0, "no folder");
    text_file("mmlu/test/us_colours_test.csv",
              "\" Which is red?\n\",sky,\"\"\"blood\"\"\",sea,\"snow, ice\",B\nTwo,1,2,3,4,D\n");
    text_file("mmlu/test/art_test.csv", "Who,1,2,3,4,A\n");
    text_file("mmlu/dev/us_colours_dev.csv", "One,a,b,c,d,C\nNext,e,f,g,h,A\n");
    text_file("mmlu/dev/art_dev.csv", "X,a,b,c,d,C\n");
    Questions q = good(TASK_MMLU, test_path("mmlu"), 1, 0);
    EXPECT(q.n == 3, "%zu questions", q.n);
    question_is(&q, 1, "us_colours/1",
                "The following are multiple choice questions (with answers) about us colours.\n\n"
                "One\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\n" RED,
                "D", 4, 1);
    if (q.n == 3) same("subject", q.question[0].subject, "art");
    questions_free(&q);
    q = good(TASK_MMLU, test_path("mmlu"), 0, 1);
    EXPECT(q.n == 2, "%zu questions, one a subject", q.n);
    question_is(
        &q, 1, "us_colours/1",
        "The following are multiple choice questions (with answers) about us colours.\n\n" RED, "D",
        4, 1);
    questions_free(&q);
    q = good(TASK_MMLU, test_path("mmlu"), 0, 2);
    EXPECT(q.n == 3, "%zu questions, two a subject at most", q.n);
    questions_free(&q);
    Err err;
    EXPECT_REFUSED(task_read(&q, TASK_MMLU, test_path("mmlu"), 2, 0, &err), err, EXIT_INPUT,
                   "art_dev.csv: expected 2 examples, found 1");
    text_file("mmlu/test/art_test.csv", "Who,1,2,3,4,E\n");
    EXPECT_REFUSED(task_read(&q, TASK_MMLU, test_path("mmlu"), 0, 0, &err), err, EXIT_INPUT,
                   "art_test.csv:1: \"answer\": expected the label of a choice, such as A, got E");
    EXPECT_REFUSED(task_read(&q, TASK_MMLU, test_path("mmlu/dev"), 0, 0, &err), err, EXIT_INPUT,
                   "expected the files SUBJECT_test.csv");
}

static void test_arc(void) {
    Questions q = good(
        TASK_ARC_EASY,
        text_file("arc",
                  "{\"id\": \"Q1\", \"question\": {\"stem\": \"Why? \", \"choices\": [{\"text\": "
                  "\"So\", \"label\": \"1\"}, {\"text\": \"\xc3\xa9t\xc3\xa9 \", \"label\": "
                  "\"2\"}]}, \"answerKey\": \"2\"}\n"
                  "{\"id\": \"Q2\", \"question\": \"How?\", \"choices\": {\"text\": [\"a\", \"b\", "
                  "\"c\"], \"label\": [\"A\", \"B\", \"C\"]}, \"answerKey\": \"A\"}\n"),
        0, 0);
    question_is(&q, 0, "Q1", "Question: Why? \nAnswer:", "\xc3\xa9t\xc3\xa9 ", 2, 1);
    question_is(&q, 1, "Q2", "Question: How?\nAnswer:", "c", 3, 0);
    questions_free(&q);
    EXPECT(question_characters("\xc3\xa9t\xc3\xa9 ") == 4, "%zu characters",
           question_characters("\xc3\xa9t\xc3\xa9 "));
}

/* A title at the end leaves a space there; three spaces become two; a bracket over two lines
 * stays. */
static void test_hellaswag(void) {
    Questions q = good(
        TASK_HELLASWAG,
        text_file("hs",
                  "{\"ind\": 24, \"activity_label\": \" Baking\", \"ctx_a\": \"[header] Bread   "
                  "[step] it [title]\", \"ctx_b\": \"he Says NO [title]\", \"endings\": [\"x\", "
                  "\" [a] Put [b\\n] in  [c]. \"], \"label\": \"1\"}\n"
                  "{\"activity_label\": \"A\", \"ctx_a\": \"b\", \"ctx_b\": \"\", \"endings\": "
                  "[\"x\", \"y\"], \"label\": 0}\n"),
        0, 0);
    question_is(&q, 0, "24", "Baking: Bread  it. He says no. ", " Put [b\n] in .", 2, 1);
    EXPECT(q.n && question_trailing_space(q.question[0].context) == 1, "space at the end");
    question_is(&q, 1, "2", "A: b", "y", 2, 0);
    questions_free(&q);
    EXPECT(question_trailing_space("a b") == 0 && question_trailing_space("a\xc2\xa0\n") == 3 &&
               question_trailing_space("  ") == 2,
           "trailing white space");
}

static void test_piqa(void) {
    const char *path = text_file("piqa.jsonl",
                                 "{\"goal\": \"Cut\", \"sol1\": \"knife\", \"sol2\": \"egg\"}\n"
                                 "{\"goal\": \"Eat\", \"sol1\": \"a\", \"sol2\": \"b\"}\n");
    Questions q;
    Err err;
    EXPECT_REFUSED(task_read(&q, TASK_PIQA, path, 0, 0, &err), err, EXIT_INPUT,
                   ":1: expected \"label\", or a line for it in the -labels.lst beside");
    text_file("piqa-labels.lst", "1\n0\n");
    q = good(TASK_PIQA, path, 0, 0);
    question_is(&q, 0, "1", "Question: Cut\nAnswer:", "egg", 2, 1);
    question_is(&q, 1, "2", "Question: Eat\nAnswer:", "b", 2, 0);
    questions_free(&q);
    text_file("piqa-labels.lst", "1\n");
    EXPECT_REFUSED(task_read(&q, TASK_PIQA, path, 0, 0, &err), err, EXIT_INPUT, ":2: expected");
    text_file("piqa-labels.lst", "1\n2\n");
    EXPECT_REFUSED(task_read(&q, TASK_PIQA, path, 0, 0, &err), err, EXIT_INPUT,
                   ":2: \"label\": expected the label of a choice, such as 0, got 2");
}

static void test_refused(void) {
    static const struct {
        enum TaskName task;
        const char *text, *say;
    } bad[] = {
        {TASK_ARC_CHALLENGE, "{\"id\": 1}\n", "task arc-challenge: "},
        {TASK_ARC_EASY, "{\"question\": 1}\n", ":1: \"question\": expected text"},
        {TASK_ARC_EASY,
         "{\"question\": \"a\", \"choices\": {\"text\": [\"b\"], \"label\": [\"A\"]}, "
         "\"answerKey\": \"A\"}\n",
         ":1: expected two choices at least, got 1"},
        {TASK_ARC_EASY,
         "{\"question\": \"a\", \"choices\": {\"text\": [\"b\", \"\"], \"label\": [\"A\", "
         "\"B\"]}, \"answerKey\": \"A\"}\n",
         ":1: choice 2: expected text"},
        {TASK_ARC_EASY,
         "{\"question\": \"a\", \"choices\": {\"text\": [\"b\", \"c\"], \"label\": [\"A\"]}, "
         "\"answerKey\": \"A\"}\n",
         "\"choices\": expected a text and a label for each"},
        {TASK_PIQA, "{\"goal\": \"a\\u0000b\"}\n", "\"goal\": expected text"},
        {TASK_HELLASWAG, "PAR1\x15\x04\x15\x10", "this is Parquet; convert it: python3"},
        {TASK_HELLASWAG, "[]", "expected at least one question"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Questions q;
        Err err;
        EXPECT_REFUSED(task_read(&q, bad[i].task, text_file("bad", bad[i].text), 0, 0, &err), err,
                       EXIT_INPUT, bad[i].say);
        EXPECT(q.n == 0 && !q.question, "a refused file left questions");
    }
}

int main(void) {
    test_mmlu();
    test_arc();
    test_hellaswag();
    test_piqa();
    test_refused();
    return test_done("tasks");
}
