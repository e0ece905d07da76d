/* vocabulary.c - pieces, merges and tokenizer files, in the form of Gemma's own.
 *
 * Every word is reached from the left, one character at a time: "▁l" + "o" -> "▁lo" ... Merges that
 * start with the space piece rank before all others, so a word in the middle of a text is finished
 * before its letters could pair up differently. Words with a space in front and words at the start
 * of a text are different pieces, as in the original. */
#include <string.h>

#include "data/base/files.h"
#include "kernels/check.h"
#include "tools/planted/planted.h"

const char SPACE[] = "\xe2\x96\x81"; /* U+2581 */

static const char *const specials[] = {
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<2mass>",
    "[@BOS@]",
    "<unused0>",
    "<unused1>",
    "\n",
    "\n\n",
    "\n\n\n",
    "\t",
    "<start_of_turn>",
    "<end_of_turn>",
    "\xe2\x96\x81\xe2\x96\x81",
    "<unused2>",
};
enum { SPECIALS = sizeof specials / sizeof *specials };

static bool is_control(const char *s) {
    return !strcmp(s, "<pad>") || !strcmp(s, "<eos>") || !strcmp(s, "<bos>") ||
           !strcmp(s, "<unk>") || strstr(s, "_of_turn>");
}

static int find(const World *w, const char *piece) {
    for (int i = 0; i < w->npieces; i++)
        if (!strcmp(w->piece[i], piece)) return i;
    return -1;
}

int piece_id(const World *w, const char *piece) {
    int i = find(w, piece);
    CHECK(i >= 0, "no piece '%s'", piece);
    return i;
}

int special(const World *w, const char *name) {
    return piece_id(w, name);
}

static int add(World *w, const char *piece, int left, int right) {
    CHECK(w->npieces < MAX_PIECES && strlen(piece) < MAX_PIECE, "piece '%s'", piece);
    int i = w->npieces++;
    strcpy(w->piece[i], piece);
    w->merge[i][0] = left;
    w->merge[i][1] = right;
    return i;
}

/* Copies the next word of *text to `piece`: a punctuation mark, or letters with the space in front
 * of them. False at the end. */
static bool next_word(char piece[MAX_PIECE], const char **text) {
    const char *s = *text;
    size_t n = 0;
    if (!*s) return false;
    if (*s == ' ') {
        n = strlen(SPACE);
        memcpy(piece, SPACE, n);
        s++;
    }
    size_t letters = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    if (letters == 0 && n == 0) letters = 1;
    CHECK(letters > 0 && n + letters < MAX_PIECE, "text at '%s'", s);
    memcpy(piece + n, s, letters);
    piece[n + letters] = 0;
    *text = s + letters;
    return true;
}

static void add_word(World *w, const char *word) {
    char prefix[MAX_PIECE] = "", letter[2] = "";
    bool spaced = !strncmp(word, SPACE, strlen(SPACE));
    size_t at = spaced ? strlen(SPACE) : 1;
    memcpy(prefix, word, at);
    int left = piece_id(w, prefix);
    for (; word[at]; at++) {
        prefix[at] = letter[0] = word[at];
        int whole = find(w, prefix);
        left = whole >= 0 ? whole : add(w, prefix, left, piece_id(w, letter));
    }
}

void vocabulary_add(World *w, enum WordKind kind, const char *text) {
    char word[MAX_PIECE];
    while (next_word(word, &text))
        if ((strncmp(word, SPACE, strlen(SPACE)) == 0) == (kind == WORDS_SPACED)) add_word(w, word);
}

int text_pieces(const World *w, int *id, const char *text) {
    char word[MAX_PIECE];
    int n = 0;
    while (next_word(word, &text)) {
        CHECK(n < MAX_DOC, "a text of more than %d words", MAX_DOC);
        id[n++] = piece_id(w, word);
    }
    return n;
}

void vocabulary_begin(World *w) {
    char name[8];
    for (int i = 0; i < SPECIALS; i++) add(w, specials[i], -1, -1);
    for (int byte = 0; byte < 256; byte++) {
        snprintf(name, sizeof name, "<0x%02X>", byte);
        add(w, name, -1, -1);
    }
    add(w, SPACE, -1, -1);
    for (int c = '!'; c <= '~'; c++) add(w, (char[]){(char)c, 0}, -1, -1);
}

/* ------------------------------------------------------------------------------- files -- */

static json_t *added_tokens(void) {
    json_t *list = json_array();
    for (int i = 0; i < SPECIALS; i++)
        json_array_append_new(
            list, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", i, "content", specials[i],
                            "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special",
                            is_control(specials[i])));
    return list;
}

static json_t *bpe_model(const World *w) {
    json_t *vocab = json_object(), *merges = json_array();
    for (int i = 0; i < w->npieces; i++) {
        json_object_set_new(vocab, w->piece[i], json_integer(i));
        const int *m = w->merge[i];
        if (m[0] < 0) continue;
        char both[2 * MAX_PIECE];
        snprintf(both, sizeof both, "%s %s", w->piece[m[0]], w->piece[m[1]]);
        json_array_append_new(merges, json_string(both));
    }
    return json_pack("{s:s, s:n, s:s, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                     "unk_token", "<unk>", "continuing_subword_prefix", "end_of_word_suffix",
                     "fuse_unk", 1, "byte_fallback", 1, "ignore_merges", 0, "vocab", vocab,
                     "merges", merges);
}

bool vocabulary_write(const World *w, const char *folder, Err *err) {
    char path[4096];
    json_t *normalizer = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String",
                                   " ", "content", SPACE);
    json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "String", " ",
                              "behavior", "MergedWithPrevious", "invert", 0);
    json_t *decoder = json_pack("{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]}", "type", "Sequence",
                                "decoders", "type", "Replace", "pattern", "String", SPACE,
                                "content", " ", "type", "ByteFallback", "type", "Fuse");
    json_t *all = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:n, s:o, s:o}", "version", "1.0",
                            "truncation", "padding", "added_tokens", added_tokens(), "normalizer",
                            normalizer, "pre_tokenizer", split, "post_processor", "decoder",
                            decoder, "model", bpe_model(w));
    json_t *config = json_pack(
        "{s:b, s:b, s:s, s:s, s:s, s:s, s:s, s:b, s:s}", "add_bos_token", 1, "add_eos_token", 0,
        "bos_token", "<bos>", "eos_token", "<eos>", "pad_token", "<pad>", "unk_token", "<unk>",
        "tokenizer_class", "GemmaTokenizer", "clean_up_tokenization_spaces", 0, "chat_template",
        "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == "
        "'assistant' else m['role']) + '\n' + m['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}");
    CHECK(all && config, "out of memory");
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    bool ok = files_write_json(path, all, err);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    ok = ok && files_write_json(path, config, err);
    json_decref(all);
    json_decref(config);
    return ok;
}
