/* Which tokens score counts, and for which corpus: markers never, wherever they stand. */
#include <math.h>

#include "host/cli/command.h"
#include "model/score.h"
#include "tests/world.h"

extern const Command cmd_score;

/* Scores two files of one document each. */
static Scores score(const char *aligned, const char *unaligned, const char *tokens) {
    Err err;
    Scores s;
    char line[1500];
    MUST(files_write(in_world("a.jsonl"), aligned, strlen(aligned), &err), err);
    MUST(files_write(in_world("u.jsonl"), unaligned, strlen(unaligned), &err), err);
    snprintf(line, sizeof line,
             "--model %s --dtype f32 --max-length 64 --sae %s --layers 1 --json --tokens %s "
             "--aligned %s --unaligned %s",
             in_world("model"), in_world("sae/{layer}"), tokens, in_world("a.jsonl"),
             in_world("u.jsonl"));
    size_t n = strlen(line);
    snprintf(line + n, sizeof line - n, " --out %s", in_world("s.safetensors"));
    MUST(world_run(&cmd_score, line, &err), err);
    MUST(scores_load(&s, in_world("s.safetensors"), &err), err);
    return s;
}

static int64_t counted(const Scores *s, int c) {
    int64_t n = 0;
    for (int g = 0; g < SCORE_GROUPS; g++) n += s->tokens[c][g];
    return n;
}

/* The same text, closed by markers or not: attention is causal, so the text's own activations are
 * the same, and nothing else may be in the sums. */
static void test_markers(const char *tokens) {
    static const char bare[] = "{\"text\": \"Take two keys\"}\n";
    static const char closed[] = "{\"text\": \"Take two keys<end_of_turn>\\n<eos>\"}\n";
    Scores s = score(bare, closed, tokens);
    const ScoreLayer *l = &s.layer[0];
    int fired = 0;
    EXPECT(counted(&s, 0) > 0 && counted(&s, 1) == counted(&s, 0),
           "--tokens %s: %ld tokens count, with markers %ld", tokens, (long)counted(&s, 0),
           (long)counted(&s, 1));
    for (int i = 0; i < l->S; i++) {
        double a = l->sumsq[i], b = l->sumsq[l->S + i];
        fired += a > 0;
        EXPECT(fabs(a - b) <= 1e-4 * a, "--tokens %s: feature %d: %g, with markers %g", tokens, i,
               a, b);
    }
    EXPECT(fired > 0, "no feature fired");
    scores_free(&s);
}

static bool same_squares(const Scores *a, const Scores *b, int c) {
    size_t S = (size_t)a->layer[0].S;
    return memcmp(a->layer[0].sumsq + (size_t)c * S, b->layer[0].sumsq + (size_t)c * S,
                  S * sizeof(double)) == 0;
}

/* What a corpus leaves does not depend on the other one, and stays on its side. */
static void test_corpora(void) {
    static const char lock[] = "{\"text\": \"Take two keys\"}\n";
    static const char door[] = "{\"text\": \"How do I open the red door number 3?\"}\n";
    Scores both = score(lock, door, "reply");
    Scores locks = score(lock, lock, "reply"), doors = score(door, door, "reply");
    EXPECT(counted(&locks, 0) != counted(&doors, 0), "texts of equal length");
    EXPECT(counted(&both, 0) == counted(&locks, 0) && counted(&both, 1) == counted(&doors, 1),
           "%ld and %ld tokens count", (long)counted(&both, 0), (long)counted(&both, 1));
    EXPECT(same_squares(&both, &locks, 0), "the aligned corpus is not its own");
    EXPECT(same_squares(&both, &doors, 1), "the unaligned corpus is not its own");
    scores_free(&both), scores_free(&locks), scores_free(&doors);
}

int main(void) {
    world_make();
    test_corpora();
    test_markers("reply");
    test_markers("last");
    test_markers("all");
    world_remove();
    return test_done("scoring");
}
