/* What we use of libunicorn's public interface (unicorn.h and x86.h of version 2.1).
 *
 * The library is an optional dependency under another licence: nothing of it is needed to build
 * us, and it is loaded when the platform is chosen. A test compares the numbers here with the
 * headers that the `unicorn` package ships.
 */
#ifndef UNICORN_API_H
#define UNICORN_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct uc_struct uc_engine;
typedef struct uc_context uc_context;
typedef size_t uc_hook;
typedef int uc_err;

#define UC_API_MAJOR 2
#define UC_API_MINOR 1

enum { UC_ARCH_X86 = 4, UC_MODE_64 = 8 };
enum { UC_PROT_READ = 1, UC_PROT_WRITE = 2, UC_PROT_EXEC = 4, UC_PROT_ALL = 7 };
enum { UC_MEM_READ = 16, UC_MEM_WRITE = 17, UC_MEM_FETCH = 18 };
enum { UC_TLB_VIRTUAL = 1 };
enum { UC_CPU_X86_EPYC = 35 };

enum {
    UC_HOOK_INTR = 1 << 0,
    UC_HOOK_INSN = 1 << 1,
    UC_HOOK_BLOCK = 1 << 3,
    UC_HOOK_INSN_INVALID = 1 << 14,
    UC_HOOK_TLB_FILL = 1 << 17,
};

enum {
    UC_X86_INS_CPUID = 113,
    UC_X86_INS_IN = 218,
    UC_X86_INS_OUT = 500,
    UC_X86_INS_SYSCALL = 699,
    UC_X86_INS_SYSENTER = 700,
};

enum {
    UC_X86_REG_EFLAGS = 25,
    UC_X86_REG_FPSW = 31,
    UC_X86_REG_RAX = 35,
    UC_X86_REG_RBP = 36,
    UC_X86_REG_RBX = 37,
    UC_X86_REG_RCX = 38,
    UC_X86_REG_RDI = 39,
    UC_X86_REG_RDX = 40,
    UC_X86_REG_RIP = 41,
    UC_X86_REG_RSI = 43,
    UC_X86_REG_RSP = 44,
    UC_X86_REG_CR0 = 50,
    UC_X86_REG_CR4 = 54,
    UC_X86_REG_R8 = 106,
    UC_X86_REG_R9 = 107,
    UC_X86_REG_R10 = 108,
    UC_X86_REG_R11 = 109,
    UC_X86_REG_R12 = 110,
    UC_X86_REG_R13 = 111,
    UC_X86_REG_R14 = 112,
    UC_X86_REG_R15 = 113,
    UC_X86_REG_ST0 = 114,
    UC_X86_REG_XMM0 = 122,
    UC_X86_REG_GDTR = 243,
    UC_X86_REG_FPCW = 246,
    UC_X86_REG_FPTAG = 247,
    UC_X86_REG_MXCSR = 249,
    UC_X86_REG_FS_BASE = 250,
    UC_X86_REG_GS_BASE = 251,
    UC_X86_REG_FIP = 254,
    UC_X86_REG_FDP = 256,
    UC_X86_REG_FOP = 258,
};

/* Controls of uc_ctl: number, how many arguments, 1 for a write. */
#define UC_CTL(nr, arguments) ((unsigned)(nr) | (unsigned)(arguments) << 26 | 1u << 30)
#define UC_CTL_UC_USE_EXITS UC_CTL(4, 1)
#define UC_CTL_CPU_MODEL UC_CTL(7, 1)
#define UC_CTL_TB_REMOVE_CACHE UC_CTL(9, 2)
#define UC_CTL_TLB_FLUSH UC_CTL(11, 0)
#define UC_CTL_TLB_TYPE UC_CTL(12, 1)
#define UC_CTL_TCG_BUFFER_SIZE UC_CTL(13, 1)

struct uc_tlb_entry {
    uint64_t paddr;
    int perms;
};

struct uc_x86_mmr {
    uint16_t selector;
    uint64_t base;
    uint32_t limit, flags;
};

struct unicorn_library {
    unsigned (*version)(unsigned *major, unsigned *minor);
    uc_err (*open)(int arch, int mode, uc_engine **uc);
    uc_err (*close)(uc_engine *uc);
    const char *(*strerror)(uc_err code);
    uc_err (*ctl)(uc_engine *uc, unsigned control, ...);
    uc_err (*mem_map_ptr)(uc_engine *uc, uint64_t at, uint64_t size, uint32_t perms, void *host);
    uc_err (*hook_add)(uc_engine *uc, uc_hook *hook, int type, void *callback, void *user_data,
                       uint64_t begin, uint64_t end, ...);
    uc_err (*emu_start)(uc_engine *uc, uint64_t begin, uint64_t until, uint64_t timeout,
                        size_t count);
    uc_err (*emu_stop)(uc_engine *uc);
    uc_err (*reg_read)(uc_engine *uc, int reg, void *value);
    uc_err (*reg_write)(uc_engine *uc, int reg, const void *value);
    uc_err (*reg_read_batch)(uc_engine *uc, int *regs, void **values, int count);
    uc_err (*reg_write_batch)(uc_engine *uc, int *regs, void *const *values, int count);
    uc_err (*context_alloc)(uc_engine *uc, uc_context **context);
    uc_err (*context_save)(uc_engine *uc, uc_context *context);
    uc_err (*context_restore)(uc_engine *uc, uc_context *context);
    uc_err (*context_free)(uc_context *context);
};

extern struct unicorn_library api;

#endif
