/* keeping.c - the folder and the key of work that is kept. */
#include "host/stage/keeping.h"

#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/stage/agree.h"
#include "host/stage/result_key.h"
#include "kernels/comm.h"
#include "kernels/ops.h"

bool keeping_maker(json_t **maker, Exec *ex, Err *err) {
    char program[65], plugin[65] = "none";
    const char *file = exec_plugin(ex), *card = exec_card(ex);
    if (!files_sha256(program, "/proc/self/exe", err) || (file && !files_sha256(plugin, file, err)))
        return false;
    *maker =
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "device", ex->op->name, "card", card ? card : "none",
                  "program", program, "plugin", plugin, "sails", SAILS_VERSION);
    CHECK(*maker, "a JSON value could not be made");
    return true;
}

void keeping_compare(const char *folder, const json_t *was, const json_t *is) {
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)is, key, value) {
        const char *before = json_string_value(json_object_get(was, key));
        if (before && strcmp(before, json_string_value(value)) == 0) continue;
        fprintf(stderr, "sails: %s: %s was %s, is %s: bits may differ from a run in one piece\n",
                folder, key, before ? before : "not there", json_string_value(value));
        break;
    }
}

/* Rank 0 alone reads and writes what is kept. */
bool keeping_open(CommandKeeping *c, const Args *a, const char *out, Exec *ex, Err *err) {
    c->folder = mem_array(strlen(out) + sizeof ".partial", 1);
    sprintf(c->folder, "%s.partial", out);
    json_t *run = result_key_new();
    c->k = (Keeping){
        .folder = c->folder, .run = run, .again = "the same with --resume", .expected = true};
    bool ok = !comm_root(ex->comm) || (folder_lock(&c->lock, c->folder, err) &&
                                       result_key_command(run, a, ex, &hasher_plain, err) &&
                                       keeping_maker(&c->k.maker, ex, err));
    return agree_root(ex->comm, ok, err);
}

void keeping_done(const Keeping *k, Exec *ex) {
    if (k && comm_root(ex->comm) && files_exists(k->folder)) files_remove_tree(k->folder);
}

void keeping_close(CommandKeeping *c) {
    json_decref(c->k.run);
    json_decref(c->k.maker);
    folder_unlock(&c->lock);
    free(c->folder);
}
