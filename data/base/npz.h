/* npz.h - reader of NumPy .npz archives (zip of .npy members; stored, deflated, zip64).
 *
 * Nothing is allocated from a size that the archive claims: a header is at most 64 KiB, and data
 * goes to memory of the caller, who knows the count that he expects. Checksums are verified. */
#ifndef SAILS_NPZ_H
#define SAILS_NPZ_H

#include <stddef.h>

#include "data/base/err.h"

typedef struct Npz Npz;

bool npz_open(Npz **z, const char *path, Err *err);
void npz_close(Npz *z); /* NULL is allowed */

/* Shape of member NAME (without ".npy"): rank 0..4. False also when it is not there; the message
 * lists the members that are. Only little-endian f2, f4 and f8 are accepted; Fortran order up to
 * rank 2 (it is turned while it is read). `dim`
 * behind the rank is zero. */
bool npz_shape(Npz *z, const char *name, int *rank, size_t dim[4], Err *err);
bool npz_has(const Npz *z, const char *name);

/* Name of member i within the archive, ".npy" included; NULL behind the last one. */
const char *npz_member(const Npz *z, size_t i);

/* The member's elements as f32 (f8 rounded), in pieces, in order: npz_stream_next gives the next n,
 * and checks the checksum with the last of them; the shape is held against the bytes that really
 * come out of the archive. `name` must outlive the stream, the archive too. */
typedef struct NpzStream NpzStream;
bool npz_stream_open(NpzStream **s, Npz *z, const char *name, Err *err);
bool npz_stream_next(NpzStream *s, float *to, size_t n, Err *err); /* n <= elements left */
void npz_stream_close(NpzStream *s);                               /* NULL is allowed */

#endif
