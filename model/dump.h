/* dump.h - the tensors of one pass in a file, to be compared with another program's.
 *
 * SAILS_DUMP=PATTERN in the environment takes those of the model's first pass whose names the
 * pattern matches (shell wildcards: "layer 0*"); they go to sails-dump.safetensors in the working
 * folder, or where SAILS_DUMP_FILE names, when that pass is over: as the next one begins, or the
 * model is closed. tools/compare_dump.py reads the file.
 *
 * Names are those of the equations in gemma2_forward.c, with their layer: "layer 12: gate",
 * "layer 3: rope(q)", "layer 3: xa(gate,up)" (x A^T), "final: h"; then "head: logits" before the
 * cap, and "grad: layer 0: self_attn.q_proj.lora_A", or "grad: model.norm.weight" where all weights
 * are trained, as backward leaves it. All are (rows, columns), F32, the rows in use alone. Beside
 * them, whatever the pattern, I32: "pack: tokens", "pack: positions", "pack: segments" (Segment),
 * "pack: rows", which are the rows above the last layer's attention, where they are fewer than all,
 * and "head: row", places there, and "head: target". */
#ifndef SAILS_DUMP_H
#define SAILS_DUMP_H

#include "model/gemma2.h"

/* What the environment asks for; NULL: nothing. */
Dump *dump_open(Exec *ex);

/* To be called as a pass of the model begins: the watch, with the Dump as its context, of the first
 * one, NULL for others. */
model_watch *dump_pass(Dump *d);

/* Says on stderr where the file is, which names there are if none matched, or why it could not be
 * written: numbers go on without it. NULL is allowed. */
void dump_close(Dump *d);

#endif
