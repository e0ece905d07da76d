/* device_peak.h - rates that nothing passes on a device, and the least time that they leave a call.
 */
#ifndef SAILS_DEVICE_PEAK_H
#define SAILS_DEVICE_PEAK_H

#include "kernels/exec.h"

/* Zero: unknown, and no bound. */
typedef struct Peak {
    double products; /* FLOP/s of matrix products in the storage type */
    double vectors;  /* FLOP/s of f32 arithmetic by elements */
    double bytes;    /* bytes/s of memory */
} Peak;

/* The processor's are those of its instructions in registers (fused multiply-adds, pair products
 * of bf16) and of reading memory, by all OpenMP threads together. Another device's are those of a
 * large matrix product and of a copy, each byte counted where it is read and where it is written;
 * its `vectors` stay unknown. Takes a second. */
Peak device_peak_measure(Exec *ex);

/* Seconds that such a device needs for the call at least. */
double device_peak_seconds(const Peak *peak, const OpCall *call);

#endif
