/* `sails eval --judge http` as its users meet it, before a server of this test: rates, two judges,
 * what is asked again, signals, batches, what is wrong with settings; and that the key is in
 * nothing that it writes or says. */
#include <math.h>

#include "host/judge/completion.h"
#include "tests/faulty_server.h"
#include "tests/files.h"
#include "tests/program.h"

#define KEY "sk-test-0123456789"

static const char *folder; /* all that the program writes lies here */

static void write_responses(const char *name, int n, const char *told) {
    char text[1 << 16] = "";
    size_t at = 0;
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "{\"id\": \"r%d\", \"prompt\": \"ask\", \"category\": \"%s\", "
                               "\"response\": \"I cannot help with that. %s %d score=%d\"}\n",
                               i, i % 4 == 3 ? "benign/x" : "theft", told, i, 1 + i % 5);
    test_file(name, text, at);
}

/* sails eval in the folder, with the server's address. %s of words: the folder. */
static Ended eval(const char *words) {
    char line[4096];
    snprintf(line, sizeof line,
             "eval --judge-url http://127.0.0.1:%d/v1 --judge-model m --judge-timeout 60 %s",
             faulty.port, words);
    return program_run(line);
}

/* The words with the folder's path in place of each '@'. */
static const char *in_folder(const char *words) {
    static char text[4][4096];
    static int turn;
    char *to = text[turn = (turn + 1) % 4], *p = to;
    for (; *words; words++)
        p += *words == '@' ? sprintf(p, "%s/", folder) : sprintf(p, "%c", *words);
    return to;
}

static json_t *read_json(const char *name) {
    json_t *value;
    Err err;
    CHECK(files_read_json(&value, test_path(name), 1 << 24, &err), "%s", err.text);
    return value;
}

static double number(const json_t *object, const char *a, const char *b) {
    const json_t *at = json_object_get(object, a);
    return json_number_value(b ? json_object_get(at, b) : at);
}

/* Scores 1 2 3 (4) 5 1 2 (3) 4 5 1 (2), those of benign prompts in brackets. */
static void test_rates(void) {
    write_responses("r.jsonl", 12, "plain");
    faulty_forget();
    Ended e =
        eval(in_folder("--judge http --responses @r.jsonl --out @e.json "
                       "--judge-price-in 1000 --judge-price-out 1000"));
    EXPECT(e.code == 0, "exit %d: %s", e.code, e.err);
    EXPECT(strstr(e.out, "12 answers, 0 kept") && strstr(e.out, "USD"), "%s", e.out);
    EXPECT(faulty.requests == 13, "%d requests, the trial with them", (int)faulty.requests);
    json_t *j = read_json("e.json");
    EXPECT(number(j, "n", NULL) == 9 && number(j, "benign", NULL) == 3 &&
               fabs(number(j, "safety_rate", NULL) - 5. / 9) < 1e-12 &&
               fabs(number(j, "harmfulness", NULL) - 24. / 9) < 1e-12 &&
               fabs(number(j, "over_refusal", NULL) - 1. / 3) < 1e-12,
           "%g %g %g", number(j, "safety_rate", NULL), number(j, "harmfulness", NULL),
           number(j, "over_refusal", NULL));
    const json_t *about = json_object_get(j, "about");
    char rubric[65];
    rubric_hash(rubric);
    EXPECT(strcmp(json_string_value(json_object_get(j, "judge")), "http") == 0 &&
               number(json_object_get(about, "dialects"), "schema", NULL) == 12 &&
               number(about, "in", NULL) == 1200,
           "what judged");
    EXPECT(strcmp(json_string_value(json_object_get(about, "rubric")), rubric) == 0, "by what");
    json_decref(j);

    faulty_forget();
    e = eval(in_folder("--judge http --responses @r.jsonl --out @e.json"));
    EXPECT(e.code == 0 && faulty.requests == 0 && strstr(e.out, "0 answers, 12 kept"),
           "%d requests: %s%s", (int)faulty.requests, e.out, e.err);
}

/* By hand: the rules call all twelve refused. */
static void test_two(void) {
    Ended e =
        eval(in_folder("--judge refusal,http --responses @r.jsonl --out @two.json "
                       "--judge-cache @e.json.verdicts.jsonl"));
    EXPECT(
        e.code == 0 && strstr(e.out, "judges agree    50.00 %  of 12 on who is safe, kappa 0.000"),
        "exit %d: %s%s", e.code, e.out, e.err);
    json_t *j = read_json("two.json");
    const json_t *second = json_object_get(j, "second");
    const json_t *agreement = json_object_get(second, "agreement");
    EXPECT(number(j, "safety_rate", NULL) == 1 && number(second, "n", NULL) == 9 &&
               fabs(number(second, "safety_rate", NULL) - 5. / 9) < 1e-12,
           "both judges' rates");
    EXPECT(number(agreement, "n", NULL) == 12 &&
               number(json_object_get(agreement, "safe"), "same", NULL) == 6 &&
               number(json_object_get(agreement, "scores"), "same", NULL) == 3,
           "%g %g", number(json_object_get(agreement, "safe"), "same", NULL),
           number(json_object_get(agreement, "scores"), "same", NULL));
    const json_t *one = json_array_get(json_object_get(j, "responses"), 2);
    EXPECT(number(one, "score", NULL) == 1 && number(one, "second", "score") == 3, "both scores");
    json_decref(j);
}

/* No verdicts: counted among the harmful, not as safe. */
static void test_unjudged(void) {
    static const char text[] =
        "{\"id\": \"a\", \"prompt\": \"p\", \"category\": \"x\", \"response\": \"score=1\"}\n"
        "{\"id\": \"b\", \"prompt\": \"p\", \"category\": \"x\", \"response\": \"do:refuse b\"}\n"
        "{\"id\": \"c\", \"prompt\": \"p\", \"category\": \"x\", \"response\": \"do:schema c\"}\n"
        "{\"id\": \"d\", \"prompt\": \"p\", \"category\": \"x\", \"response\": \"score=5\"}\n"
        "{\"id\": \"e\", \"prompt\": \"p\", \"category\": \"benign\", \"response\": \"score=2\"}\n"
        "{\"id\": \"f\", \"prompt\": \"p\", \"category\": \"benign\", \"response\": \"do:cut "
        "f\"}\n";
    test_file("none.jsonl", text, sizeof text - 1);
    Ended e = eval(in_folder("--judge http --responses @none.jsonl --out @none.json"));
    EXPECT(e.code == 0 && strstr(e.out, "3 responses are without a verdict; 2 of them"),
           "exit %d: %s%s", e.code, e.out, e.err);
    json_t *j = read_json("none.json");
    EXPECT(number(j, "n", NULL) == 4 && number(j, "unjudged", NULL) == 2 &&
               number(j, "safety_rate", NULL) == 0.25 && number(j, "harmfulness", NULL) == 3 &&
               number(j, "high_risk", NULL) == 0.5 && number(j, "over_refusal", NULL) == 1 &&
               number(j, "benign", NULL) == 2 && number(j, "benign_unjudged", NULL) == 1,
           "%g safe, %g harmful", number(j, "safety_rate", NULL), number(j, "harmfulness", NULL));
    const json_t *b = json_array_get(json_object_get(j, "responses"), 1);
    EXPECT(json_is_null(json_object_get(b, "score")) &&
               strcmp(json_string_value(json_object_get(b, "reason")), "no verdict: refused") == 0,
           "it is listed");
    json_decref(j);
    e = eval(in_folder("--judge refusal --responses @none.jsonl --versus @none.json"));
    EXPECT(e.code == 0, "no verdicts there: exit %d: %s", e.code, e.err);
}

/* SIGTERM amid requests: exit 7, and the same command goes on. */
static void test_signal(void) {
    char line[4096];
    write_responses("s.jsonl", 60, "stop");
    faulty_forget();
    faulty.pause_ms = 50;
    snprintf(line, sizeof line,
             "eval --judge http --judge-url http://127.0.0.1:%d/v1 --judge-model m "
             "--judge-concurrency 4 %s",
             faulty.port, in_folder("--responses @s.jsonl --out @s.json"));
    Program p = program_start(line, NULL);
    while (faulty.requests < 12 && !program_ended(&p)) usleep(5000);
    kill(p.pid, SIGTERM);
    Ended e = program_end(&p);
    EXPECT(e.code == 7 && strstr(e.err, "stopped by SIGTERM in judging"), "exit %d: %s", e.code,
           e.err);
    faulty.pause_ms = 0;
    int before = faulty.requests;
    EXPECT(!files_exists(test_path("s.json")), "nothing half done");
    e = eval(in_folder("--judge http --responses @s.jsonl --out @s.json"));
    EXPECT(e.code == 0 && faulty.requests - before < 61 - 4, "exit %d: %s, %d more requests",
           e.code, e.err, (int)faulty.requests - before);
}

/* What a batch's output says, out of order, one line missing, two failed. */
static void test_batch(void) {
    Ended e = eval(in_folder("--responses @r.jsonl --judge-export @batch.jsonl"));
    EXPECT(e.code == 0 && strstr(e.out, "12 requests"), "exit %d: %s%s", e.code, e.out, e.err);
    char *batch, out[1 << 14] = "";
    size_t n, at = 0, lines = 0;
    Err err;
    CHECK(files_read(&batch, &n, test_path("batch.jsonl"), 1 << 20, &err), "%s", err.text);
    for (char *p = batch; (p = strchr(p, '\n')); p++) lines++;
    EXPECT(lines == 12 && strstr(batch, "\"custom_id\":\"r11\"") &&
               strstr(batch, "\"url\":\"/v1/chat/completions\"") && strstr(batch, "json_schema"),
           "%zu lines: %.300s", lines, batch);
    free(batch);
    static const char failed[] =
        "{\"custom_id\": \"r5\", \"response\": null, \"error\": {\"message\": \"no\"}}\n"
        "{\"custom_id\": \"r7\", \"response\": {\"status_code\": 400, \"body\": {}}}\n";
    for (int i = 11; i > 0; i--) /* r0 is missing */
        if (i != 5 && i != 7)
            at += (size_t)snprintf(
                out + at, sizeof out - at,
                "{\"id\": \"b\", \"custom_id\": \"r%d\", \"error\": null, \"response\": "
                "{\"status_code\": 200, \"body\": {\"choices\": [{\"message\": {\"content\": "
                "\"{\\\"reason\\\": \\\"w\\\", \\\"score\\\": %d}\"}}]}}}\n",
                i, 1 + i % 5);
    at += (size_t)snprintf(out + at, sizeof out - at, "%s", failed);
    test_file("out.jsonl", out, at);
    e = eval(in_folder("--judge file --judgements @out.jsonl --responses @r.jsonl --out @b.json"));
    EXPECT(e.code == 0, "exit %d: %s", e.code, e.err);
    json_t *j = read_json("b.json");
    EXPECT(number(j, "n", NULL) == 9 && number(j, "unjudged", NULL) == 2 &&
               fabs(number(j, "safety_rate", NULL) - 3. / 9) < 1e-12,
           "%g without, %g safe", number(j, "unjudged", NULL), number(j, "safety_rate", NULL));
    static const struct {
        size_t at;
        const char *reason;
    } none[] = {
        {0, "no verdict: missing"}, {5, "no verdict: rejected"}, {7, "no verdict: rejected"}};
    for (int i = 0; i < 3; i++) {
        const json_t *row = json_array_get(json_object_get(j, "responses"), none[i].at);
        const char *reason = json_string_value(json_object_get(row, "reason"));
        EXPECT(reason && strcmp(reason, none[i].reason) == 0, "r%zu: %s", none[i].at,
               reason ? reason : "nothing");
    }
    json_decref(j);
}

static void refused(int code, const char *words, const char *line) {
    Ended e = program_run(in_folder(line));
    EXPECT(e.code == code && program_one_line(e.err, words), "%s: exit %d: %s", line, e.code,
           e.err);
}

static void test_settings(void) {
#define R "eval --responses @r.jsonl "
    refused(2, "one judge or two different ones", R "--judge refusal,refusal");
    refused(2, "one judge or two different ones", R "--judge refusal,http,file");
    refused(2, "expected a list of refusal|http|file", R "--judge me");
    refused(2, "--judge-url and --judge-model are needed", R "--judge http --out @x.json");
    refused(2, "--out or --judge-cache is needed",
            R "--judge http --judge-url http://127.0.0.1:1 --judge-model m");
    refused(2, "would show the key of OPENAI_API_KEY",
            R "--judge http --judge-url http://10.0.0.7/v1 --judge-model m --out @x.json");
    refused(
        2, "not the key itself",
        R
        "--judge http --judge-url https://a.b --judge-model m --out @x.json --judge-key-env " KEY);
    refused(1, "is the server there",
            R "--judge http --judge-url http://127.0.0.1:1 --judge-model m --out @x.json");
    refused(2, "--judge-model is needed", R "--judge-export @y.jsonl");
    refused(3, "expected a text \"prompt\"",
            "eval --responses @bare.jsonl --judge http --judge-url http://127.0.0.1:1 "
            "--judge-model m --out @x.json");
    refused(2, "is read as --responses", R "--judge-model m --judge-export @r.jsonl");
    const char *plugin = getenv("SAILS_HTTP_PLUGIN");
    char own[1024];
    CHECK(plugin, "expected the plug-in's path in SAILS_HTTP_PLUGIN");
    snprintf(own, sizeof own, "%s", plugin);
    setenv("SAILS_HTTP_PLUGIN", "missing.so", 1);
    refused(2, "the plug-in does not load",
            R "--judge http --judge-url http://127.0.0.1:1 --judge-model m --out @x.json");
    Ended e = program_run(in_folder(R));
    EXPECT(e.code == 0, "other judges need none: %s", e.err);
    setenv("SAILS_HTTP_PLUGIN", own, 1);
    EXPECT(!files_exists(test_path("x.json")), "nothing is written");
}

/* A server that echoes it, and one that names it in an error; then all that there is. */
static void test_key(void) {
    static const char echo[] =
        "{\"id\": \"a\", \"prompt\": \"p\", \"response\": \"do:echo score=1\"}\n";
    test_file("echo.jsonl", echo, sizeof echo - 1);
    Ended e = eval(in_folder("--judge http --responses @echo.jsonl --out @echo.json"));
    EXPECT(e.code == 0 && !strstr(e.out, KEY) && !strstr(e.err, KEY), "%s%s", e.out, e.err);
    EXPECT(strstr(faulty.authorization, KEY), "the server has it: %s", faulty.authorization);
    faulty.status = 401, faulty.error = "{\"error\": {\"message\": \"wrong key " KEY "\"}}";
    e = eval(in_folder("--judge http --responses @echo.jsonl --out @no.json"));
    EXPECT(e.code == 2 && strstr(e.err, "wrong key **") && !strstr(e.err, KEY), "exit %d: %s",
           e.code, e.err);
    faulty.status = 0;
    char line[2048];
    snprintf(line, sizeof line, "grep -rlqF " KEY " %s", folder);
    EXPECT(system(line) != 0, "the key is in a file of %s", folder);
    snprintf(line, sizeof line, "grep -rlqF 'you sent Bearer' %s", folder);
    EXPECT(system(line) == 0, "what it should be cut out of is there");
}

int main(void) {
    static char here[1024];
    static const char bare[] = "{\"id\": \"a\", \"response\": \"r\"}\n";
    test_file("bare.jsonl", bare, sizeof bare - 1);
    snprintf(here, sizeof here, "%s", test_path("bare.jsonl"));
    *strrchr(here, '/') = 0;
    folder = here;
    setenv("OPENAI_API_KEY", KEY, 1);
    faulty_start();
    test_rates();
    test_two();
    test_unjudged();
    test_signal();
    test_batch();
    test_settings();
    test_key();
    return test_done("judge_http");
}
