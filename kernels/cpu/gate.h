/* gate.h - strict mode's door: opens the CPU device's memory while an op or a copy runs.
 *
 * Every CPU twin's OP_BEGIN has an OP_GATE(ex). Outside strict mode it costs one test. Gates nest.
 * A twin without it faults in every strict test. */
#ifndef SAILS_GATE_H
#define SAILS_GATE_H

#include "kernels/exec.h"

Exec *gate_open(Exec *ex);      /* returns ex */
void gate_close(Exec **opened); /* called when the scope ends */

#define OP_GATE(ex) __attribute__((cleanup(gate_close), unused)) Exec *op_gate_ = gate_open(ex)

#endif
