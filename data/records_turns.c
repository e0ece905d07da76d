/* records_turns.c - a conversation as a growing list of turns. */
#include "data/records_impl.h"
#include "data/utf8.h"

void chat_add(Chat *chat, enum Role role, const char *text, size_t len) {
    size_t n = (size_t)chat->n, capacity = n; /* room for the power of two at or above n, and 4 */
    if (n == 0 || (n >= 4 && (n & (n - 1)) == 0))
        chat->turn = mem_grow(chat->turn, &capacity, n ? 2 * n : 4, sizeof *chat->turn);
    chat->turn[chat->n++] = (Turn){.role = role, .text = buf_copy(text, len), .len = len};
}

void chat_free(Chat *chat) {
    for (int i = 0; i < chat->n; i++) free(chat->turn[i].text);
    free(chat->turn);
    *chat = (Chat){0};
}

bool chat_blank(const Turn *turn) {
    size_t n = turn->len;
    utf8_trim(turn->text, &n);
    return n == 0;
}
