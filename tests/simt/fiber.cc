/* fiber.cc - stacks from mmap, each with a page below that faults, and the switch in assembly. */
#include "tests/simt/fiber.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/simt/race.h"
#include "tests/simt/simt.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace simt {

enum { STACK_BYTES = 256 << 10 };

struct Fiber {
    void *sp; /* while it does not run */
    void (*entry)();
    const void *stack; /* lowest address; NULL: the process's own, not known yet */
    size_t stack_bytes;
    char *top;        /* where the first frame goes */
    void *fake_stack; /* AddressSanitizer's */
    void *race;       /* ThreadSanitizer's */
#ifndef __x86_64__
    ucontext_t context;
#endif
};

static Fiber own, *current = &own;

Fiber *fiber_current() {
    return current;
}

/* AddressSanitizer must know which stack is in use. */
static void leave(Fiber *from, const Fiber *to) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#else
    (void)from, (void)to;
#endif
}

static void arrive(const Fiber *me) {
#ifdef __SANITIZE_ADDRESS__
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(me->fake_stack, &stack, &bytes);
    if (!own.stack) own.stack = stack, own.stack_bytes = bytes; /* the first switch is from it */
#else
    (void)me;
#endif
}

static void start() {
    arrive(current);
    current->entry();
    fail("a fiber's entry returned");
}

#ifdef __x86_64__

/* Saves what the calling convention wants kept, swaps stacks, and returns into the other fiber.
 * Ten times faster than swapcontext, which asks the kernel to save the signal mask. */
extern "C" void simt_switch_stack(void **save, void *to);
asm(R"(
.text
.type simt_switch_stack,@function
simt_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simt_switch_stack,.-simt_switch_stack
)");

static void prepare(Fiber *f) {
    uintptr_t *sp = (uintptr_t *)((uintptr_t)f->top & ~(uintptr_t)15);
    *--sp = 0; /* start() sees the stack as after a call */
    *--sp = (uintptr_t)&start;
    for (int i = 0; i < 6; i++) *--sp = 0; /* the six registers */
    f->sp = sp;
}

static void swap(Fiber *from, Fiber *to) {
    simt_switch_stack(&from->sp, to->sp);
}

#else

static void prepare(Fiber *f) {
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = (void *)(uintptr_t)f->stack;
    f->context.uc_stack.ss_size = f->stack_bytes;
    f->context.uc_link = nullptr;
    makecontext(&f->context, start, 0);
}

static void swap(Fiber *from, Fiber *to) {
    swapcontext(&from->context, &to->context);
}

#endif

Fiber *fiber_new(void (*entry)()) {
    static unsigned count;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *p = mmap(nullptr, STACK_BYTES + page, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) != 0) fail("no memory for a stack");
    Fiber *f = new Fiber();
    f->entry = entry;
    f->stack = (char *)p + page; /* the page below faults on overflow */
    f->stack_bytes = STACK_BYTES;
    /* Tops at one page offset would share few cache sets: a third of the speed. */
    f->top = (char *)p + page + STACK_BYTES - 64 - count++ % 31 * 128;
    f->race = race_context();
    prepare(f);
    return f;
}

void fiber_renew(Fiber *f) {
    race_context_destroy(f->race);
    race_forget((void *)(uintptr_t)f->stack, f->stack_bytes);
    f->race = race_context();
    prepare(f);
}

void fiber_switch(Fiber *to) {
    Fiber *from = current;
    if (!from->race) from->race = race_current(); /* the process's own */
    leave(from, to);
    current = to;
    race_switch(to->race);
    swap(from, to);
    arrive(from);
}

}  // namespace simt
