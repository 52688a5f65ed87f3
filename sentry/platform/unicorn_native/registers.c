/* struct user_regs_struct and the XSAVE image (SDM volume 1 section 13.4) to and from the CPU. */
#include "machine.h"

#include <string.h>

/* CF PF AF ZF SF TF DF OF NT AC ID: what POPF in ring 3 may change. */
#define RFLAGS_USER 0x244dd5ull
#define RFLAGS_RF 0x10000ull

/* Offsets in the legacy area of an image. */
enum {
    X_FCW = 0, X_FSW = 2, X_FTW = 4, X_FOP = 6, X_FIP = 8, X_FDP = 16, X_MXCSR = 24,
    X_MXCSR_MASK = 28, X_ST = 32, X_XMM = 160, X_BV = 512, /* XSTATE_BV */
};
#define FEATURE_X87 1u
#define FEATURE_SSE 2u
#define MXCSR_BITS 0xffffu

static const struct {
    int id, index;
} general[] = {
    {UC_X86_REG_R15, R_R15}, {UC_X86_REG_R14, R_R14}, {UC_X86_REG_R13, R_R13},
    {UC_X86_REG_R12, R_R12}, {UC_X86_REG_RBP, R_RBP}, {UC_X86_REG_RBX, R_RBX},
    {UC_X86_REG_R11, R_R11}, {UC_X86_REG_R10, R_R10}, {UC_X86_REG_R9, R_R9},
    {UC_X86_REG_R8, R_R8},   {UC_X86_REG_RAX, R_RAX}, {UC_X86_REG_RCX, R_RCX},
    {UC_X86_REG_RDX, R_RDX}, {UC_X86_REG_RSI, R_RSI}, {UC_X86_REG_RDI, R_RDI},
    {UC_X86_REG_RSP, R_RSP}, {UC_X86_REG_EFLAGS, R_RFLAGS},
    {UC_X86_REG_FS_BASE, R_FS_BASE}, {UC_X86_REG_GS_BASE, R_GS_BASE},
    {UC_X86_REG_RIP, R_RIP}, /* last: loading leaves it out, emu_start takes it */
};
#define GENERAL (sizeof general / sizeof *general)

static int general_ids[GENERAL];

static uint64_t canonical(uint64_t base)
{
    return (uint64_t)((int64_t)(base << 16) >> 16) == base ? base : 0;
}

void registers_load(struct uctx *c)
{
    uint64_t value[GENERAL];
    void *at[GENERAL];
    for (size_t i = 0; i < GENERAL; i++) {
        general_ids[i] = general[i].id;
        value[i] = c->regs[general[i].index];
        at[i] = &value[i];
        if (general[i].index == R_RFLAGS)
            value[i] = (value[i] & RFLAGS_USER) | 0x202;
        else if (general[i].index == R_FS_BASE || general[i].index == R_GS_BASE)
            value[i] = canonical(value[i]);
    }
    api.reg_write_batch(machine.uc, general_ids, at, GENERAL - 1);
}

/* Also from within a hook. */
void registers_store(struct uctx *c)
{
    void *at[GENERAL];
    c->regs[R_RFLAGS] = 0; /* 32 bits are written */
    for (size_t i = 0; i < GENERAL; i++) {
        general_ids[i] = general[i].id;
        at[i] = &c->regs[general[i].index];
    }
    api.reg_read_batch(machine.uc, general_ids, at, GENERAL);
    c->regs[R_RFLAGS] = (c->regs[R_RFLAGS] & ~RFLAGS_RF) | 0x202;
    c->regs[R_ORIG_RAX] = UINT64_MAX; /* not in a system call */
    c->regs[R_CS] = SEL_USER_CS;
    c->regs[R_SS] = SEL_USER_DS;
    c->regs[R_DS] = c->regs[R_ES] = c->regs[R_FS] = c->regs[R_GS] = 0;
}

/* ---- FPU ------------------------------------------------------------------------------------ */

static const struct {
    int id, at;
} control[] = { /* the status word first: it says where ST(0) is */
    {UC_X86_REG_FPSW, X_FSW}, {UC_X86_REG_FPCW, X_FCW}, {UC_X86_REG_FOP, X_FOP},
    {UC_X86_REG_FIP, X_FIP},  {UC_X86_REG_FDP, X_FDP},  {UC_X86_REG_MXCSR, X_MXCSR},
};
#define CONTROLS (sizeof control / sizeof *control)
#define FPU_REGS (CONTROLS + 8 + 16)

static int fpu_ids[FPU_REGS];

static void fpu_places(uint8_t *image, void **at)
{
    size_t n = 0;
    for (; n < CONTROLS; n++) {
        fpu_ids[n] = control[n].id;
        at[n] = image + control[n].at;
    }
    for (int i = 0; i < 8; i++, n++) {
        fpu_ids[n] = UC_X86_REG_ST0 + i;
        at[n] = image + X_ST + 16 * i;
    }
    for (int i = 0; i < 16; i++, n++) {
        fpu_ids[n] = UC_X86_REG_XMM0 + i;
        at[n] = image + X_XMM + 16 * i;
    }
}

static void init_x87(uint8_t *image)
{
    const uint16_t fcw = 0x37f;
    memset(image, 0, X_MXCSR);
    memset(image + X_ST, 0, X_XMM - X_ST);
    memcpy(image + X_FCW, &fcw, sizeof fcw);
}

void fpu_init(struct uctx *c)
{
    const uint32_t mxcsr[2] = {0x1f80, MXCSR_BITS};
    const uint64_t features = FEATURE_X87 | FEATURE_SSE;
    memset(c->fpu, 0, sizeof c->fpu);
    init_x87(c->fpu);
    memcpy(c->fpu + X_MXCSR, mxcsr, sizeof mxcsr);
    memcpy(c->fpu + X_BV, &features, sizeof features);
    c->live = 0;
}

/* As XRSTOR: a component whose bit is not in XSTATE_BV takes its initial state. */
void uctx_set_fpu(struct uctx *c, const uint8_t *image)
{
    uint64_t features;
    uint32_t mxcsr;
    memcpy(&features, image + X_BV, sizeof features);
    memcpy(&mxcsr, image + X_MXCSR, sizeof mxcsr);
    fpu_init(c);
    if (features & FEATURE_X87) {
        memcpy(c->fpu, image, X_MXCSR);
        memcpy(c->fpu + X_ST, image + X_ST, X_XMM - X_ST);
    }
    if (features & FEATURE_SSE)
        memcpy(c->fpu + X_XMM, image + X_XMM, 16 * 16);
    mxcsr = features & FEATURE_SSE ? mxcsr & MXCSR_BITS : 0x1f80;
    memcpy(c->fpu + X_MXCSR, &mxcsr, sizeof mxcsr);
}

/* The tag word has two bits for every physical register; an image has one, set if in use. */
void fpu_load(struct uctx *c)
{
    void *at[FPU_REGS];
    uint16_t tags = 0;
    for (int i = 0; i < 8; i++)
        if (!(c->fpu[X_FTW] >> i & 1))
            tags |= (uint16_t)(3u << 2 * i);
    fpu_places(c->fpu, at);
    api.reg_write_batch(machine.uc, fpu_ids, at, FPU_REGS);
    api.reg_write(machine.uc, UC_X86_REG_FPTAG, &tags);
}

void fpu_store(struct uctx *c)
{
    void *at[FPU_REGS];
    uint16_t tags;
    fpu_places(c->fpu, at);
    api.reg_read_batch(machine.uc, fpu_ids, at, FPU_REGS);
    api.reg_read(machine.uc, UC_X86_REG_FPTAG, &tags);
    c->fpu[X_FTW] = 0;
    for (int i = 0; i < 8; i++)
        if ((tags >> 2 * i & 3) != 3)
            c->fpu[X_FTW] |= (uint8_t)(1u << i);
}
