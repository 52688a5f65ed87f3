/* The frame on a handler's stack in one step: struct rt_sigframe and the FPU image behind it, as
 * sentry/kernel/signal_frame.py describes them. Where it lies, what its values are, and every frame
 * that is not an ordinary one is decided there. */
#include "sigframe.h"

#include "layout.h"

#include <asm/sigcontext.h> /* FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, struct _fpx_sw_bytes */
#include <string.h>

#define WORDS 55 /* struct rt_sigframe is 440 bytes; below, indices of its 8-byte words */
#define W_UCONTEXT 1
#define W_ALTSTACK 3
#define W_REGS 6
#define W_CS_SS 24
#define W_ERROR 25
#define W_FPSTATE 29
#define W_MASK 38
#define W_SIGINFO 39
#define SOFTWARE 464 /* struct _fpx_sw_bytes in the image */
#define HEADER 512
#define MXCSR 24
#define MXCSR_RESERVED 0xffff0000u
#define FP_SSE 3

/* struct sigcontext, from r8 to flags. */
static const uint8_t order[] = {R_R8, R_R9, R_R10, R_R11, R_R12, R_R13, R_R14, R_R15, R_RDI,
                                R_RSI, R_RBP, R_RBX, R_RDX, R_RAX, R_RCX, R_RSP, R_RIP, R_RFLAGS};

void sigframe_make(uint8_t *bytes, const struct sigframe *frame, const uint64_t *regs,
                   const uint8_t *image, uint32_t size)
{
    uint64_t w[WORDS] = {frame->restorer, frame->uc_flags, 0, frame->alt_sp,
                         (uint32_t)frame->alt_flags, frame->alt_size};
    uint64_t gap = frame->fp_at - frame->at;
    uint32_t magic = FP_XSTATE_MAGIC2;
    uint8_t *fpu = bytes + gap;
    struct _fpx_sw_bytes software = {
        .magic1 = FP_XSTATE_MAGIC1,
        .extended_size = (uint32_t)(size + sizeof magic),
        .xfeatures = frame->features,
        .xstate_size = size,
    };
    for (unsigned i = 0; i < sizeof order; i++)
        w[W_REGS + i] = regs[order[i]];
    w[W_CS_SS] = (regs[R_CS] & 0xffff) | (regs[R_SS] & 0xffff) << 48;
    w[W_ERROR] = frame->error;
    w[W_ERROR + 1] = frame->trapno;
    w[W_ERROR + 2] = frame->mask;
    w[W_ERROR + 3] = frame->cr2;
    w[W_FPSTATE] = frame->fp_at;
    w[W_MASK] = frame->mask;
    memcpy(&w[W_SIGINFO], frame->info, SIGINFO_SIZE);
    memcpy(bytes, w, sizeof w);
    memset(bytes + sizeof w, 0, gap - sizeof w);
    if (image != fpu)
        memcpy(fpu, image, size);
    memcpy(fpu + SOFTWARE, &software, sizeof software);
    fpu[HEADER] |= FP_SSE; /* a program may look at these two always */
    memcpy(fpu + size, &magic, sizeof magic);
}

void sigframe_enter(uint64_t *regs, const struct sigframe *frame)
{
    regs[R_RAX] = 0;
    regs[R_RDI] = frame->signo;
    regs[R_RSI] = frame->at + 8 * W_SIGINFO;
    regs[R_RDX] = frame->at + 8 * W_UCONTEXT;
    regs[R_RSP] = frame->at;
    regs[R_RIP] = frame->handler;
    regs[R_RFLAGS] &= ~frame->cleared_flags;
    regs[R_CS] = SEL_USER_CS;
    regs[R_SS] = SEL_USER_DS;
}

static int is_ordinary(const uint8_t *image, uint32_t size, uint64_t features)
{
    static const uint8_t zero[56];
    struct _fpx_sw_bytes software;
    uint64_t present;
    uint32_t mxcsr, magic;
    memcpy(&software, image + SOFTWARE, sizeof software);
    memcpy(&mxcsr, image + MXCSR, sizeof mxcsr);
    memcpy(&present, image + HEADER, sizeof present);
    memcpy(&magic, image + size, sizeof magic);
    return software.magic1 == FP_XSTATE_MAGIC1 && magic == FP_XSTATE_MAGIC2 &&
           software.xstate_size == size && software.extended_size >= size &&
           !(mxcsr & MXCSR_RESERVED) && !(present & ~(features & software.xfeatures)) &&
           !memcmp(image + HEADER + sizeof present, zero, sizeof zero);
}

int sigframe_read(struct aspace *as, uint64_t at, uint64_t *regs, uint64_t taken_flags,
                  uint8_t *image, uint32_t size, uint64_t features, struct sigframe_rest *rest,
                  struct fault *fault)
{
    uint64_t w[WORDS];
    const int64_t wanted = (W_SIGINFO - W_UCONTEXT) * 8, room = size + 4ll;
    if (user_read(as, at + 8 * W_UCONTEXT, &w[W_UCONTEXT], (uint64_t)wanted, fault) != wanted ||
        (w[W_CS_SS] & 0xffff) != SEL_USER_CS || !w[W_FPSTATE] ||
        w[W_FPSTATE] > ENTRY_BASE - (uint64_t)room ||
        user_read(as, w[W_FPSTATE], image, (uint64_t)room, fault) != room ||
        !is_ordinary(image, size, features))
        return 0;
    uint64_t kept = regs[R_RFLAGS] & ~taken_flags;
    for (unsigned i = 0; i < sizeof order; i++)
        regs[order[i]] = w[W_REGS + i];
    regs[R_RFLAGS] = kept | (regs[R_RFLAGS] & taken_flags);
    regs[R_ORIG_RAX] = UINT64_MAX;
    regs[R_CS] = SEL_USER_CS;
    regs[R_SS] = SEL_USER_DS;
    *rest = (struct sigframe_rest){w[W_ALTSTACK], (uint32_t)w[W_ALTSTACK + 1], w[W_ALTSTACK + 2],
                                   w[W_MASK]};
    return 1;
}
