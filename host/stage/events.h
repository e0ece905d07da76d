/* events.h - TensorBoard's event files: scalars by step.
 *
 * A file is a sequence of records, each an Event of TensorFlow's event.proto:
 *
 *   u64 length (little endian), u32 masked CRC32C of these 8 bytes, the bytes, u32 masked CRC32C of
 *   them;   mask(c) = ((c >> 15) | (c << 17)) + 0xa282ead8
 *   Event:   1 double wall_time, 2 int64 step, 3 string file_version or 5 Summary
 *   Summary: 1 Value, repeated;   Value: 1 string tag, 2 float simple_value
 *
 * The first one has file_version "brain.Event:2". TensorBoard takes any file with "tfevents" in its
 * name for such a file, and its folder for a run; one of a fixed name that is written from the
 * start again when training is resumed needs no purging of steps.
 *
 * Source: tensorflow/core/util/event.proto, framework/summary.proto, lib/io/record_writer.h. */
#ifndef SAILS_EVENTS_H
#define SAILS_EVENTS_H

#include <jansson.h>

#include "data/base/err.h"

#define EVENTS_FILE "events.out.tfevents.sails"

typedef struct Events Events;

/* Starts a new file; `seconds` since 1970. Every line reaches the file at once. */
bool events_open(Events **e, const char *path, double seconds, Err *err);

/* The numbers of a line of metrics.jsonl as scalars of its "step", under the names that
 * transformers gives them: "eval_loss" is eval/loss, others are train/NAME. A line without a step
 * is left out. */
bool events_line(Events *e, const json_t *line, double seconds, Err *err);
bool events_close(Events *e, Err *err); /* NULL is allowed */

#endif
