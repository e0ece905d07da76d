/* command.c - which settings a command takes, and by which flags. */
#include "host/cli/command.h"

#include <string.h>

bool command_uses(const Command *c, int setting) {
    char key[SETTING_KEY];
    setting_key(&settings_table[setting], key);
    for (const Use *u = c->use; u->key; u++) {
        size_t n = strlen(u->key);
        if (strcmp(u->key, key) == 0) return true;
        if (u->key[n - 1] == '*' && strncmp(u->key, key, n - 1) == 0) return true;
    }
    return false;
}

int command_find(const Command *c, const char *name) {
    int found = FLAG_UNKNOWN;
    char text[SETTING_KEY];
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        if (!command_uses(c, i)) continue;
        setting_key(&settings_table[i], text);
        if (strcmp(text, name) == 0) return i; /* a top-level name wins over those in sections */
        setting_flag(&settings_table[i], text);
        if (strcmp(text, name) == 0) found = found == FLAG_UNKNOWN ? i : FLAG_AMBIGUOUS;
    }
    return found;
}

void command_flag(const Command *c, int setting, char flag[SETTING_KEY]) {
    setting_flag(&settings_table[setting], flag);
    if (command_find(c, flag) != setting) setting_key(&settings_table[setting], flag);
}
