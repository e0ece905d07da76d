/* report.h - one page about finished runs of `sails align`: what they have reached, which features
 * stand behind it, and what of the updates lies in their subspace.
 *
 * The page is one file: style, script and figures are in it, and it asks nobody for anything (its
 * own policy forbids it). What the runs hold is data there: escaped, never run. */
#ifndef SAILS_REPORT_H
#define SAILS_REPORT_H

#include <stdio.h>

#include <jansson.h>

#include "data/base/err.h"

/* What a run folder holds (host/align/run_folder.h). NULL where a file may be absent and is. */
typedef struct ReportRun {
    const char *folder; /* as it was given; borrowed */
    json_t *summary, *manifest;
    json_t *metrics;                  /* array, all methods' steps; may be empty */
    json_t *features;                 /* explain/features.json */
    json_t *energy, *causal, *judged; /* name of a row's first run -> its file; may be empty */
    json_t *responses;                /* the same, of arrays */
    char *recipe;
} ReportRun;

/* Refused: a folder without the summary of a finished run, or with a file that is not what `align`
 * writes. On success *run is to be freed. */
bool report_run_load(ReportRun *run, const char *folder, Err *err);
void report_run_free(ReportRun *run); /* accepts a zeroed ReportRun */

/* The name of a row's first run, by which its files are called; "": it has none. */
const char *report_first_run(const json_t *row);

typedef struct ReportChoice {
    const char *title;
    int prompts; /* of each row, whose responses are shown; 0: all */
} ReportChoice;

/* Writes the page. */
void report_page(FILE *f, const ReportRun *run, int n, const ReportChoice *choice);

/* Its sections, in the order of the page. `id` begins the anchors of a run's. */
void report_headline(FILE *f, const ReportRun *run, int n);
void report_features(FILE *f, const ReportRun *run, const char *id);
void report_subspaces(FILE *f, const ReportRun *run, const char *id);
void report_training(FILE *f, const ReportRun *run, const char *id);
void report_energy(FILE *f, const ReportRun *run, const char *id);
void report_causal(FILE *f, const ReportRun *run, const char *id);
void report_generations(FILE *f, const ReportRun *run, const char *id, int prompts);
void report_provenance(FILE *f, const ReportRun *run, const char *id);

/* Style and script of the page. */
extern const char report_style[], report_script[];

#endif
