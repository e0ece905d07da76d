/* What the rows of align's table start from: each method has its own subspace, of its own kind, and
 * one for every seed of a grid. */
#include <math.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "host/stage/adapting.h"
#include "model/sae.h"
#include "model/salora.h"
#include "model/score.h"
#include "model/stream.h"
#include "model/subspace.h"
#include "tests/align_run.h"

static const json_t *basis_of(const json_t *summary, const char *method, size_t i) {
    const json_t *all = json_object_get(json_object_get(summary, "subspaces"), method);
    EXPECT(json_array_size(all) == 2, "%s: bases of %zu layers", method, json_array_size(all));
    return json_array_get(all, i);
}

/* Rank 4 of the best 6 features, of the best 4 and nothing lost, of any 6, and of none. */
static void test_controls(void) {
    static const char *const method[] = {"sails", "sails-span", "random-features", "random-basis"};
    static const int features[] = {6, 4, 6, 0};
    same("controls", align("--methods sails,sails-span,random-features,random-basis"),
         "subspace-sails-span subspace-random-features subspace-random-basis train-sails-span "
         "train-random-features train-random-basis");
    json_t *summary = read_json("summary.json");
    Subspace s[4];
    Err err;
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "run/subspaces/%s.safetensors", method[i]);
        MUST(subspace_load(&s[i], in_world("%s", name), &err), err);
        for (int j = 0; j < 2; j++) {
            const Basis *b = &s[i].basis[j];
            const json_t *basis = basis_of(summary, method[i], (size_t)j);
            EXPECT(b->k == features[i] && b->R == 4, "%s: %d features", method[i], b->k);
            EXPECT(json_integer_value(json_object_get(basis, "features")) == b->k, "summary");
            EXPECT(json_array_size(json_object_get(basis, "coverage")) == (size_t)b->k, "coverage");
            double captured = json_number_value(json_object_get(basis, "captured"));
            EXPECT(captured == b->captured && (i != 1 || fabs(captured - 1) <= 1e-12),
                   "%s captured %g", method[i], captured);
        }
        EXPECT(strncmp(s[i].made, method[i], strlen(method[i])) == 0, "made: %s", s[i].made);
    }
    Settings other = {.train = {.subspace = in_world("run/subspaces/sails.safetensors"),
                                .init = START_RANDOM_BASIS}};
    Subspace none;
    EXPECT(!adapting_load(&none, &other, &err) && err.code == EXIT_USAGE &&
               strstr(err.text, "sails.safetensors: a subspace for --init sails, not random-basis"),
           "%s", err.text);
    EXPECT(memcmp(s[0].basis[0].feature, s[1].basis[0].feature, 4 * sizeof(int32_t)) == 0,
           "not the best features");
    EXPECT(memcmp(s[0].basis[0].feature, s[2].basis[0].feature, 6 * sizeof(int32_t)) != 0,
           "the best features, not random ones");
    for (int i = 0; i < 4; i++) subspace_free(&s[i]);
    json_decref(summary);
}

/* Before anything is trained: a rank that the weights' factors do not have. */
static void test_ranks(void) {
    Buf before = file_bytes(in_world("run/manifest.json"));
    const char *refused = align("--methods lora,pissa --rank 65 --lr 3e-3");
    EXPECT(strstr(refused, "error 2: --rank 65: expected at most 64 with --init pissa"), "%s",
           refused);
    Buf after = file_bytes(in_world("run/manifest.json"));
    EXPECT(before.n == after.n && memcmp(before.p, after.p, after.n) == 0, "a run was begun");
    buf_free(&before), buf_free(&after);
}

/* Nothing of [B, -B0] lies along what this projection keeps: each column's share is f32's rounding,
 * of its elements and of the directions, as test_salora.c has it; and B differs from B0. */
static void expect_kept(const Lora *l, const Subspace *s, int layer, enum Proj p) {
    const Adapter *a = lora_at(l, layer, p);
    const Basis *b = salora_basis(s, layer, p, OUTPUT_KEPT);
    double *B = test_get_f32(l->ex, a->B->master, a->B->n), moved = 0;
    for (int r = 0; r < a->R; r++) {
        double norm = 0, most = 0;
        for (int o = 0; o < a->out; o++) norm += B[o * a->R + r] * B[o * a->R + r];
        for (int j = 0; j < b->R; j++) {
            double dot = 0;
            for (int o = 0; o < a->out; o++) dot += b->U[o * b->R + j] * B[o * a->R + r];
            most = fmax(most, fabs(dot));
        }
        EXPECT(most <= (2 * b->R + 1) * 0x1p-24 * sqrt(norm), "%s: %g along what is kept",
               a->B->name, most / sqrt(norm));
    }
    for (int o = 0; o < a->out; o++) moved = fmax(moved, fabs(B[o * a->R] + B[o * a->R + 4]));
    EXPECT(a->R == 8 && moved > 0, "%s: rank %d, moved by %g", a->B->name, a->R, moved);
    free(B);
}

/* What q, k and v, and o read, of each layer; made anew for other targets. */
static void test_eva(void) {
    Subspace s;
    Err err;
    same("eva", align("--methods eva"), "subspace-eva train-eva");
    MUST(subspace_load(&s, in_world("run/subspaces/eva.safetensors"), &err), err);
    EXPECT(s.n == 2 * WORLD_LAYERS && s.basis[0].R == 4 && s.basis[3].layer == 1 &&
               strcmp(s.basis[3].of, "o") == 0 && strncmp(s.made, "eva: of ", 8) == 0 && s.init &&
               strcmp(s.init, "eva") == 0,
           "%d bases, %s", s.n, s.made);
    subspace_free(&s);
    same("other targets", align("--methods eva --targets q"), "subspace-eva train-eva");
    same("ranks shared out", align("--methods eva --rho 2"), "subspace-eva train-eva");
}

/* What does not depend on the seed is made once for all of them: here, not even again. */
static void test_one_for_all(void) {
    json_t *manifest, *stages;
    same("eva", align("--methods eva"), "subspace-eva train-eva");
    same("two seeds", align("--methods eva --seeds 2"), "");
    manifest = read_json("manifest.json"), stages = json_object_get(manifest, "stages");
    json_t *kept = json_object_get(stages, "subspace-eva");
    EXPECT(kept && strcmp(json_string_value(json_object_get(kept, "state")), "kept") == 0 &&
               json_object_get(stages, "train-eva.0.01.seed1"),
           "the stages of two seeds");
    json_decref(manifest);
}

/* What q, k, v and o write, of replies that are to stay and of the data; made anew where it is to
 * keep less. The trained adapter, twice the rank, moves nothing along what is kept. */
static void test_salora(void) {
    char flags[1024];
    Subspace s;
    Lora l;
    Exec ex;
    Config c;
    Err err;
    EXPECT(
        strstr(align("--methods salora"), "error 2: inputs.preserve: the method salora needs it"),
        "no preserved replies");
    snprintf(flags, sizeof flags, "--methods salora --preserve %s", in_world("pairs.jsonl"));
    EXPECT(strstr(align(flags), "--preserve-rank 32: expected less than 32, the width that k_proj"),
           "all directions are kept");
    strcat(flags, " --preserve-rank 5");
    same("salora", align(flags), "subspace-salora train-salora");
    MUST(subspace_load(&s, in_world("run/subspaces/salora.safetensors"), &err), err);
    EXPECT(s.n == 8 * WORLD_LAYERS && s.basis[0].R == 5 && s.init && !strcmp(s.init, "salora"),
           "%d bases of %d directions", s.n, s.basis[0].R);
    EXPECT(s.basis[1].R == 5 && memcmp(s.basis[0].U, s.basis[1].U, 5 * 64 * sizeof(double)) != 0,
           "the task's outputs are those that are kept"); /* of fewer documents, some held out */
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no device");
    MUST(config_load(&c, in_world("model"), &err), err);
    MUST(lora_load(&l, &ex, &c, in_world("run/adapters/salora"), false, &err), err);
    for (int i = 0; i < WORLD_LAYERS * 4; i++) expect_kept(&l, &s, i / 4, (enum Proj)(i % 4));
    lora_free(&l);
    config_free(&c);
    exec_close(&ex);
    subspace_free(&s);
    flags[strlen(flags) - 1] = '4';
    same("fewer directions", align(flags), "subspace-salora train-salora");
}

/* What is random in a subspace is drawn again for every seed of a grid. */
static void test_seeds(void) {
    static const char *const method[] = {"random-features", "random-basis", "direct-mean"};
    Err err;
    align("--methods random-features,random-basis,direct-mean --seeds 2");
    for (int i = 0; i < 3; i++) {
        Subspace s[2];
        for (int seed = 0; seed < 2; seed++)
            MUST(subspace_load(&s[seed],
                               in_world("run/subspaces/%s.seed%d.safetensors", method[i], seed),
                               &err),
                 err);
        const Basis *a = &s[0].basis[0], *b = &s[1].basis[0];
        size_t n = (size_t)a->D * (size_t)a->R * sizeof *a->U;
        EXPECT(a->R == b->R && memcmp(a->U, b->U, n) != 0, "%s: both seeds have one", method[i]);
        subspace_free(&s[0]), subspace_free(&s[1]);
    }
}

/* The largest |column 0 - x / |x||, up to its sign; and the columns that are not random. */
static double from_column(const Basis *b, const double *x) {
    double length = 0, worst[2] = {0};
    for (int d = 0; d < b->D; d++) length += x[d] * x[d];
    for (int d = 0; d < b->D; d++)
        for (int sign = 0; sign < 2; sign++) {
            double e = fabs(b->U[d * b->R] - (sign ? -1 : 1) * x[d] / sqrt(length));
            worst[sign] = fmax(worst[sign], e);
        }
    return fmin(worst[0], worst[1]);
}

/* Of the aligned landmarks. */
static double gram(const double *landmark, int a, int b) {
    double sum = 0;
    for (int i = 0; i < STREAM_LANDMARKS; i++)
        sum += landmark[i * WORLD_D + a] * landmark[i * WORLD_D + b];
    return sum;
}

/* Starts without an SAE: of the same moments, which are made without one, each its own basis. */
static void test_direct(void) {
    enum { D = WORLD_D };
    static const char *const method[] = {"direct-mean", "direct-pairs", "direct-covariance",
                                         "landmarks"};
    static const char flags[] = "--methods direct-mean,direct-pairs,direct-covariance,landmarks";
    char line[256];
    Err err;
    StreamMoments m;
    same("direct", align(flags),
         "moments subspace-direct-mean subspace-direct-pairs subspace-direct-covariance "
         "subspace-landmarks train-direct-mean train-direct-pairs train-direct-covariance "
         "train-landmarks");
    snprintf(line, sizeof line, "sed -i 's/top-k: 6/top-k: 5/' %s", in_world("recipe.yaml"));
    CHECK(system(line) == 0, "%s", line);
    same("other features", align(flags), "");
    write_recipe("0", "");
    json_t *summary = read_json("summary.json"), *found = json_object_get(summary, "moments");
    MUST(stream_load(&m, in_world("run/moments.safetensors"), &err), err);
    /* of 23 pairs 4 are held out */
    EXPECT(m.n == 2 && m.layer[1].layer == 2 && m.D == D && m.pairs == 19, "%lld pairs",
           (long long)m.pairs);
    EXPECT(json_integer_value(json_object_get(found, "pairs")) == 19, "summary: pairs");
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < 2; l++) {
            double A[D * D] = {0}, *x = mem_array(D, sizeof *x);
            char name[80];
            Subspace s;
            snprintf(name, sizeof name, "run/subspaces/%s.safetensors", method[i]);
            MUST(subspace_load(&s, in_world("%s", name), &err), err);
            const Basis *b = &s.basis[l];
            const json_t *basis = basis_of(summary, method[i], (size_t)l);
            EXPECT(json_is_null(json_object_get(basis, "captured")) && b->k == 0 && b->R == 4 &&
                       b->m == (i ? 4 : 1),
                   "%s: %d of %d columns", method[i], b->m, b->R);
            EXPECT(s.init && strcmp(s.init, method[i]) == 0, "%s: for %s", method[i], s.init);
            if (i == 0) stream_mean(x, &m, l);
            if (i == 1) stream_pairs(A, &m, l);
            if (i == 2) stream_covariance(A, &m, l);
            if (i == 3) /* a singular vector's, below */
                for (int a = 0; a < D; a++)
                    for (int k = 0; k < D; k++) A[a * D + k] = gram(m.layer[l].landmark, a, k);
            for (int a = 0; a < D && i; a++) /* an eigenvector's image */
                for (int k = 0; k < D; k++) x[a] += A[a * D + k] * b->U[k * b->R];
            EXPECT(!b->scale == (i < 3), "%s: scales", method[i]);
            EXPECT(from_column(b, x) <= 1e-9, "%s, layer %d: off by %g", method[i], b->layer,
                   from_column(b, x));
            subspace_free(&s);
            free(x);
        }
    double shared = stream_shared(&m, 0);
    const json_t *first = json_array_get(json_object_get(found, "layers"), 0);
    EXPECT(json_number_value(json_object_get(first, "shared")) == shared && shared < 1, "shared");
    stream_free(&m);
    json_decref(summary);
    strcat(strcpy(line, flags), " --score.tokens last");
    EXPECT(strncmp(align(line), "moments subspace-direct-mean", 28) == 0, "other tokens");
}

/* A disk that is full, as far as this process can see. */
static bool full;
int statvfs(const char *path, struct statvfs *v) {
    struct statfs s;
    if (statfs(path, &s)) return -1;
    *v = (struct statvfs){.f_frsize = 512, .f_bavail = full ? 100 : 1 << 20};
    return 0;
}

/* Whole models that have no room are refused before anything is read; those of an earlier run are
 * room. */
static void test_room(void) {
    char line[1024];
    Err err;
    snprintf(line, sizeof line, "%s --methods full --steps 1", in_world("recipe.yaml"));
    full = true;
    EXPECT(!world_run(&cmd_align, line, &err) && err.code == EXIT_MEMORY &&
               strstr(err.text, "whole models of the method full take ") &&
               strstr(err.text, ", where 51.2 kB are free or theirs already"),
           "%s", err.text);
    EXPECT(!files_exists(in_world("run/models/full/model.safetensors")), "it was trained");
    full = false;
    MUST(world_run(&cmd_align, line, &err), err);
    full = true;
    strcat(line, " --clip 0.5"); /* trained again, in the place of that */
    MUST(world_run(&cmd_align, line, &err), err);
    full = false;
}

/* Rows as long as their features' |mean difference|: the basis is that of the chosen features with
 * these weights. */
static void test_weighted(void) {
    enum { K = 6, D = 64 };
    same("weighted rows", align("--methods sails --weight-rows delta"),
         "subspace-sails train-sails generate-sails eval-sails perplexity-sails");
    Subspace got;
    Scores scores;
    Err err;
    Exec ex;
    MUST(subspace_load(&got, in_world("run/subspaces/sails.safetensors"), &err), err);
    MUST(scores_load(&scores, in_world("run/scores.safetensors"), &err), err);
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no device");
    for (int i = 0; i < 2; i++) {
        FeatureStat top[K];
        int32_t feature[K];
        double rows[K * D], weight[K];
        SubspaceOptions o = {.rank = 4, .variance = 0.8, .weight = weight};
        Sae sae;
        Basis want;
        score_top(&ex, top, &scores, i, SCORE_DELTA, K, 0, 0);
        for (int j = 0; j < K; j++) feature[j] = top[j].feature, weight[j] = fabs(top[j].diff);
        MUST(sae_open(&sae, NULL, in_world("sae/{layer}"), i + 1, D, &err) &&
                 sae_decoder_rows(&sae, rows, feature, K, &err) &&
                 basis_build(&want, &ex, i + 1, rows, feature, K, D, &o, &err),
             err);
        const Basis *b = &got.basis[i];
        EXPECT(b->m == want.m && weight[0] > 1.01 * weight[K - 1], "%d directions", b->m);
        for (int j = 0; j < K; j++) {
            EXPECT(fabs(b->variance[j] - want.variance[j]) <= 1e-12, "share %d", j);
            EXPECT(fabs(b->coverage[j] - want.coverage[j]) <= 1e-12, "coverage %d", j);
        }
        basis_free(&want);
        sae_close(&sae);
    }
    exec_close(&ex);
    scores_free(&scores);
    subspace_free(&got);
}

int main(void) {
    world_make();
    write_recipe("0", "");
    align("");
    test_controls();
    test_direct();
    test_eva();
    test_one_for_all();
    test_salora();
    test_seeds();
    test_ranks();
    test_weighted();
    test_room();
    world_remove();
    return test_done("align_starts");
}
