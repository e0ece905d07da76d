/* command.h - what a command declares about itself. Each lives in host/cmd/cmd_<name>.c. */
#ifndef SAILS_COMMAND_H
#define SAILS_COMMAND_H

#include "host/cli/args.h"

/* The options that a command takes: one key of settings.h, or all of a section ("train.*"). */
enum UseNeed { USE_OPTIONAL, USE_NEEDED };
typedef struct Use {
    const char *key; /* NULL ends the list */
    enum UseNeed need;
} Use;

/* Entries of such a list: an option that may be left out; the ones that shape an adapter and its
 * training, which `train` and `align` both take; and those that say what is minimised. */
#define ONLY(key) \
    { key, USE_OPTIONAL }
/* clang-format off */
#define USE_TRAINING \
    ONLY("train.rank"), ONLY("train.alpha"), ONLY("train.targets"), ONLY("train.only-scored"), \
    ONLY("train.freeze-basis"), ONLY("train.gain"), ONLY("train.basis-scale"), ONLY("train.rho"), \
    ONLY("train.batch"), ONLY("train.epochs"), ONLY("train.steps"), ONLY("train.lr"), \
    ONLY("train.warmup"), ONLY("train.schedule"), ONLY("train.clip"), ONLY("train.beta1"), \
    ONLY("train.beta2"), ONLY("train.eps"), ONLY("train.weight-decay"), ONLY("train.redundancy"), \
    ONLY("train.recompute")
#define USE_METHOD \
    ONLY("train.method"), ONLY("train.weights"), ONLY("train.loss-type"), ONLY("train.beta"), \
    ONLY("train.label-smoothing")
/* clang-format on */

/* What may stand on the command line without a flag. */
enum Positional { POSITIONAL_RECIPE, POSITIONAL_RECIPE_NEEDED, POSITIONAL_PATHS, POSITIONAL_NONE };

struct Command {
    const char *name, *summary; /* one line */
    const char *about;          /* a few more lines for --help; NULL: none */
    enum Positional positional;
    /* A recipe is for all commands, so keys of other commands are let pass; `align` alone runs the
     * whole recipe and refuses keys that it would not honour. */
    bool whole_recipe;
    /* Works on all ranks of a job; of other commands rank 0 does all, and the others leave. */
    bool ranks;
    const Use *use;
    /* Prints its result to stdout. Errors go into err, which main prints. */
    bool (*run)(const Args *a, Err *err);
};

/* True when the command takes this setting. */
bool command_uses(const Command *c, int setting);

/* The command's setting whose flag is `name`, or whose dotted key is; FLAG_AMBIGUOUS: several are.
 */
enum { FLAG_UNKNOWN = -1, FLAG_AMBIGUOUS = -2 };
int command_find(const Command *c, const char *name);

/* The setting's flag without its dashes: its name alone, or the dotted key where the command takes
 * several settings of that name. */
void command_flag(const Command *c, int setting, char flag[SETTING_KEY]);

#endif
