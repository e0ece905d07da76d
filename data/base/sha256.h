/* sha256.h - SHA-256 (FIPS 180-4), for the hashes in manifests and checkpoints. */
#ifndef SAILS_SHA256_H
#define SAILS_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct Sha256 {
    uint32_t state[8];
    uint64_t bytes; /* taken in so far */
    unsigned char block[64];
} Sha256;

void sha256_init(Sha256 *s);
void sha256_add(Sha256 *s, const void *data, size_t n);
void sha256_done(Sha256 *s, unsigned char digest[32]); /* s is spent */

/* Takes n blocks of 64 bytes into a state. sha256_add has the fast way where there is one, else the
 * plain one; both give the same. */
typedef void Sha256Blocks(uint32_t state[8], const unsigned char *p, size_t n);
Sha256Blocks sha256_plain;
Sha256Blocks *sha256_fast(void); /* by instructions of the processor; NULL: it has none */

/* 64 lower-case hex digits and a NUL. */
void sha256_hex(char hex[65], const unsigned char digest[32]);

#endif
