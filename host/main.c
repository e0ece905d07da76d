/* main.c - the program: finds the command, runs it, prints the one line of an error. */
#include <stdio.h>
#include <string.h>

#include "host/cli/command.h"
#include "data/base/interrupt.h"
#include "host/stage/job.h"

extern const Command cmd_align, cmd_bench, cmd_capability, cmd_doctor, cmd_eval, cmd_explain,
    cmd_generate, cmd_init, cmd_inputs, cmd_inspect, cmd_logprob, cmd_merge, cmd_moments, cmd_plan,
    cmd_report, cmd_score, cmd_subspace, cmd_theory, cmd_tokenize, cmd_train;

static const Command *const commands[] = {
    &cmd_align,  &cmd_score,    &cmd_moments, &cmd_inputs,     &cmd_subspace,
    &cmd_train,  &cmd_generate, &cmd_eval,    &cmd_capability, &cmd_explain,
    &cmd_report, &cmd_tokenize, &cmd_logprob, &cmd_merge,      &cmd_inspect,
    &cmd_plan,   &cmd_init,     &cmd_theory,  &cmd_bench,      &cmd_doctor,
    NULL};

static void help(void) {
    puts("sails - safety alignment of Gemma-2 with LoRA adapters that start from SAE features\n");
    puts("usage: sails COMMAND [RECIPE.yaml] [--flag value]...   sails COMMAND --help\n");
    for (const Command *const *c = commands; *c; c++)
        printf("  %-10s %s\n", (*c)->name, (*c)->summary);
    puts("\n  --help     this text, or that of a command\n  --version  the version\n");
    puts("exit codes: 0 done, 1 internal failure, 2 usage, 3 bad input, 4 does not fit,");
    puts("            5 a rank failed, 6 numbers went bad, 7 stopped by a signal and resumable");
}

static const Command *find(const char *name, Err *err) {
    const char *names[64];
    int n = 0;
    for (const Command *const *c = commands; *c; c++) {
        if (strcmp((*c)->name, name) == 0) return *c;
        names[n++] = (*c)->name;
    }
    const char *near = nearest_name(name, names, n);
    if (near)
        err_set(err, EXIT_USAGE, "unknown command %.100s; did you mean %s?", name, near);
    else
        err_set(err, EXIT_USAGE, "unknown command %.100s; sails --help lists them", name);
    return NULL;
}

static bool run(int argc, char **argv, Job *job, Err *err) {
    if (argc < 2) return err_set(err, EXIT_USAGE, "expected a command; sails --help lists them");
    if (strcmp(argv[1], "--help") == 0) return help(), true;
    if (strcmp(argv[1], "--version") == 0) return puts("sails " SAILS_VERSION), true;
    const Command *c = find(argv[1], err);
    if (!c) return false;
    if (job->launch.rank > 0 && !c->ranks) return true;
    Args a;
    if (!args_parse(&a, c, argc - 2, argv + 2, err)) return false;
    if (a.help) args_help(c, stdout);
    bool ok = a.help || !c->ranks || job_join(job, &a, err);
    a.comm = job->comm;
    ok = ok && (a.help || c->run(&a, err));
    args_free(&a);
    return ok;
}

int main(int argc, char **argv) {
    Err err = {0};
    Job job;
    job_begin(&job);
    interrupt_catch();
    bool ok = run(argc, argv, &job, &err);
    if (ok && (fflush(stdout) != 0 || ferror(stdout)))
        ok = err_set(&err, EXIT_INTERNAL, "stdout: could not be written; is the disk full?");
    int code = job_end(&job, ok, &err);
    if (!ok) interrupt_end();
    return code;
}
