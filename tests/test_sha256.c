/* sha256.h: the examples of FIPS 180-4 and messages of all lengths, by each way of taking in
 * blocks, in whatever pieces they come. */
#include "data/base/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/base/mem.h"
#include "tests/test.h"

/* The digest by one way, the message padded here: a bit, zeros, and its length at a block's end. */
static void digest_by(Sha256Blocks *take, char hex[65], const unsigned char *text, size_t n) {
    size_t all = (n + 8) / 64 * 64 + 64;
    unsigned char *m = mem_array(all, 1), d[32];
    Sha256 s;
    memset(m, 0, all);
    if (n) memcpy(m, text, n);
    m[n] = 0x80;
    for (size_t i = 0; i < 8; i++) m[all - 1 - i] = (unsigned char)((uint64_t)n * 8 >> (8 * i));
    sha256_init(&s);
    take(s.state, m, all / 64);
    for (int i = 0; i < 32; i++) d[i] = (unsigned char)(s.state[i / 4] >> (24 - 8 * (i % 4)));
    sha256_hex(hex, d);
    free(m);
}

static void digest(char hex[65], const unsigned char *text, size_t n, size_t piece) {
    Sha256 s;
    unsigned char d[32];
    sha256_init(&s);
    for (size_t i = 0; i < n; i += piece) sha256_add(&s, text + i, n - i < piece ? n - i : piece);
    sha256_done(&s, d);
    sha256_hex(hex, d);
}

static void expect_all(const unsigned char *text, size_t n, const char *want) {
    char hex[65];
    digest_by(sha256_plain, hex, text, n);
    EXPECT(strcmp(hex, want) == 0, "%zu bytes, the plain way: %s", n, hex);
    if (sha256_fast()) digest_by(sha256_fast(), hex, text, n);
    EXPECT(strcmp(hex, want) == 0, "%zu bytes, the fast way: %s", n, hex);
    digest(hex, text, n, 1 << 20);
    EXPECT(strcmp(hex, want) == 0, "%zu bytes: %s", n, hex);
}

static void test_examples(void) {
    enum { MILLION = 1000000 };
    char *million = mem_array(MILLION, 1);
    memset(million, 'a', MILLION);
    const struct {
        const char *text;
        size_t n;
        const char *hex;
    } known[] = {
        {"", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrl"
         "mnopqrsmnopqrstnopqrstu",
         112, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
        {million, MILLION, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        expect_all((const unsigned char *)known[i].text, known[i].n, known[i].hex);
    free(million);
}

/* Noise: what of the schedule is mixed up shows where no two words are the same. */
static void test_lengths(void) {
    enum { MOST = 1000 };
    unsigned char text[MOST];
    for (size_t i = 0; i < MOST; i++) text[i] = (unsigned char)(128 + 127 * test_noise(1, i));
    for (size_t n = 0; n <= MOST; n += n < 200 ? 1 : 37) {
        char hex[65], other[65];
        digest_by(sha256_plain, hex, text, n);
        expect_all(text, n, hex);
        for (size_t piece = 1; piece <= 67; piece += 11) {
            digest(other, text, n, piece);
            EXPECT(strcmp(hex, other) == 0, "%zu bytes in pieces of %zu", n, piece);
        }
    }
}

/* Is it there where Linux says so? */
static void test_choice(void) {
    char line[8192];
    bool has = false;
    FILE *f = fopen("/proc/cpuinfo", "r");
    CHECK(f, "/proc/cpuinfo");
    while (fgets(line, sizeof line, f)) has = has || strstr(line, " sha_ni ");
    fclose(f);
    EXPECT(has == (sha256_fast() != NULL), "the processor's instructions: there %d, taken %d", has,
           sha256_fast() != NULL);
}

int main(void) {
    test_examples();
    test_lengths();
    test_choice();
    return test_done("sha256");
}
