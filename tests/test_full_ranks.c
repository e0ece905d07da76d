/* All weights shared out over ranks that meet by MPI or, with SAILS_TEST_DEVICE=cuda, by a
 * plug-in's library: the same model and the same checkpoint on any number of them, some with
 * nothing to do. */
#include "host/cli/command.h"

#include "tests/ranks.h"
#include "tests/same_files.h"

#define TRAIN                                                                          \
    "train --model model --method full --dtype bf16 --max-length 64 --pack-tokens 64 " \
    "--batch 5 --seed 3 --data pairs.jsonl --steps 3 --warmup 0 --lr 1e-3 "            \
    "--checkpoint-every 2 --deadline 120 "

/* Alone without a launcher: then nothing is shared out. */
static Ended on(int ranks, const char *line) {
    char ours[600];
    snprintf(ours, sizeof ours, "SAILS %s", line);
    return ranks > 1 ? ranks_run(ranks, ours) : program_run(line);
}

static void run_on(const char *device, int ranks) {
    static const char state[] = "checkpoints/step-00000002/state.safetensors";
    char line[512], folder[16];
    snprintf(folder, sizeof folder, "on%d", ranks);
    snprintf(line, sizeof line, TRAIN "--device %s --out %s", device, folder);
    Ended e = on(ranks, line);
    EXPECT(e.code == 0, "%d ranks: exit %d: %s", ranks, e.code, e.err);
    if (ranks == 1) return;
    expect_same_in(folder, "model.safetensors", folder, "on1");
    expect_same_in(folder, state, folder, "on1");
}

int main(void) {
    const char *device = getenv("SAILS_TEST_DEVICE");
    world_make();
    CHECK(chdir(world) == 0, "%s", world);
    for (int ranks = 1; ranks <= (device || test_brief() ? 2 : 4); ranks *= 2)
        run_on(device ? device : "cpu", ranks);
    world_remove();
    return test_done("full_ranks");
}
