/* cuda_memory.h - what the CUDA device takes of a card's memory beside exec_alloc's: for the device
 * itself, and for plans of cards that are not in this machine. */
#ifndef SAILS_CUDA_MEMORY_H
#define SAILS_CUDA_MEMORY_H

/* CUDA loads the code of a kernel when it is first launched (CUDA_MODULE_LOADING, lazy since 12.2).
 * Ours is at most all that the plug-in has for one generation of GPUs, which tools/ptxas_report.sh
 * holds against the number here. Of the libraries' nobody says how much it is: cuBLASLt has a
 * kernel for every few shapes, of some 100 KB of code each, for which the driver takes memory in
 * pages of 2 MB. The estimate is a page for each of 48 kernels: a training step multiplies some 30
 * shapes, and several share one. The context and the handles are there before anybody asks what is
 * available. */
enum { LAZY_KERNEL_BYTES = 16 << 20, LAZY_LIBRARY_BYTES = 48 * (2 << 20) };

/* Of the matmul library, and of ops (exec_scratch). The ops that need most: decoding 8 sequences of
 * 8,192 tokens takes 8 MB, attention backward 4 bytes a row and head. TopK SAEs beyond 32,768
 * features need more. */
enum { MATMUL_BYTES = 32 << 20, SCRATCH_BYTES = 32 << 20 };

/* The driver's context with the handles of the libraries: an allowance, not measured. */
enum { CONTEXT_BYTES = 600 << 20 };

/* Of NCCL, for each other rank of the same machine: 32 channels, each with buffers for what is sent
 * and what comes. Reported for an all-to-all of 8 H100 (NVIDIA/nccl #1685): 3.28 GB more after the
 * first one, for 7 peers; not measured here. NCCL_MAX_P2P_NCHANNELS makes it less. Ranks of other
 * machines share one set of buffers. */
enum { PEER_BYTES = 447 << 20 };

#endif
