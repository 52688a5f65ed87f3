/* Signal frames between registers and user memory. */
#ifndef SENTRY_SIGFRAME_H
#define SENTRY_SIGFRAME_H

#include "memory_api.h"

#define SIGINFO_SIZE 128

/* The frame of a handler that begins, besides registers and FPU image: SignalFrame of
 * sentry/platform/interface.py. */
struct sigframe {
    uint64_t at, fp_at; /* where the frame and its FPU image shall lie */
    uint64_t features;  /* of the image: XCR0 as the program sees it */
    uint64_t restorer, uc_flags;
    uint64_t alt_sp, alt_flags, alt_size; /* the alternate stack */
    uint64_t trapno, error, cr2;
    uint64_t mask; /* what sigreturn restores */
    uint64_t signo, handler;
    uint64_t cleared_flags; /* of RFLAGS, in the handler */
    uint8_t info[SIGINFO_SIZE];
};

/* What a frame holds besides registers and FPU image: FrameRest. */
struct sigframe_rest {
    uint64_t alt_sp, alt_flags, alt_size, mask;
};

/* Make the bytes of a frame. Preconditions: `bytes` has room for fp_at - at + size + 4 of them, and
 * fp_at - at is at least 440. `image` may be where it is to be among them already. */
void sigframe_make(uint8_t *bytes, const struct sigframe *frame, const uint64_t *regs,
                   const uint8_t *image, uint32_t size);
/* Go on in the handler, with the frame as its stack. */
void sigframe_enter(uint64_t *regs, const struct sigframe *frame);
/* Take registers and image (size + 4 bytes of room) from the frame at `at`, if it is an ordinary one
 * of 64-bit code whose FPU state is complete and good. 0: it is not, or cannot be read; nothing has
 * changed. */
int sigframe_read(struct aspace *as, uint64_t at, uint64_t *regs, uint64_t taken_flags,
                  uint8_t *image, uint32_t size, uint64_t features, struct sigframe_rest *rest,
                  struct fault *fault);

#endif
