/* Opening the emulated CPU: ring 3, our memory, our hooks.
 *
 * unicorn starts in ring 0 of long mode. It delivers no exceptions and walks no page tables of
 * ours, but it does translate for the ring it is in, so an IRETQ into ring 3 is what makes
 * privileged instructions fault. After that the CPU never leaves ring 3.
 */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct machine machine = {.epoll_fd = -1};

#define OWN_VA 0xffffffffff7fe000ull
#define OWN_PAGES 2
#define CODE_AT 0x100 /* in the first page, behind the descriptors */
#define FRAME_AT (PAGE_SIZE + 0x800)
#define TRANSLATIONS (128ull << 20) /* bytes of generated code before all is dropped */
#define CR0 (1u << 0 | 1u << 1 | 1u << 4 | 1u << 5) /* PE MP ET NE; paging is not its own */
#define CR4 (1u << 5 | 1u << 9 | 1u << 10 | 1u << 16 | 1u << 18)

/* XCR0 = x87 and SSE, then to ring 3. */
static const uint8_t start_code[] = {
    0x31, 0xc9,             /* xor ecx, ecx */
    0x31, 0xd2,             /* xor edx, edx */
    0xb8, 0x03, 0, 0, 0,    /* mov eax, 3 */
    0x0f, 0x01, 0xd1,       /* xsetbv */
    0x48, 0xcf,             /* iretq */
};

/* The CPU's own pages. While it starts, all of them; then the descriptors, for segment loads. */
static bool own_page(uint64_t va, int type, struct uc_tlb_entry *entry)
{
    if (va != OWN_VA && !(machine.starting && va == OWN_VA + PAGE_SIZE))
        return false;
    if (!machine.starting && type != UC_MEM_READ)
        return false;
    entry->paddr = OWN_GPA + (va - OWN_VA);
    entry->perms = machine.starting ? UC_PROT_ALL : UC_PROT_READ;
    return true;
}

static bool fill(uc_engine *uc, uint64_t va, int type, struct uc_tlb_entry *entry, void *data)
{
    return own_page(va, type, entry) || on_tlb_fill(uc, va, type, entry, data);
}

static int on_cpuid(uc_engine *uc, void *data)
{
    (void)data;
    if (machine.capturing)
        return 0;
    static int ids[4] = {UC_X86_REG_RAX, UC_X86_REG_RBX, UC_X86_REG_RCX, UC_X86_REG_RDX};
    uint64_t v[4] = {0};
    void *at[4] = {&v[0], &v[1], &v[2], &v[3]};
    api.reg_read_batch(uc, ids, at, 4);
    uint32_t function = (uint32_t)v[0], index = (uint32_t)v[2];
    memset(v, 0, sizeof v);
    for (uint32_t i = 0; i < machine.cpuid_entries; i++) {
        const struct cpuid *e = &machine.cpuid[i];
        if (e->function == function && (!e->indexed || e->index == index))
            for (int k = 0; k < 4; k++)
                v[k] = e->value[k];
    }
    api.reg_write_batch(uc, ids, at, 4);
    return 1;
}

static int add_hooks(void)
{
    static const struct {
        int type;
        void *callback;
        int instruction;
    } hooks[] = {
        {UC_HOOK_TLB_FILL, fill, 0},
        {UC_HOOK_BLOCK, on_block, 0},
        {UC_HOOK_INTR, on_interrupt, 0},
        {UC_HOOK_INSN_INVALID, on_invalid, 0},
        {UC_HOOK_INSN, on_syscall, UC_X86_INS_SYSCALL},
        {UC_HOOK_INSN, on_sysenter, UC_X86_INS_SYSENTER},
        {UC_HOOK_INSN, on_in, UC_X86_INS_IN},
        {UC_HOOK_INSN, on_out, UC_X86_INS_OUT},
        {UC_HOOK_INSN, on_cpuid, UC_X86_INS_CPUID},
    };
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
        uc_hook hook; /* never taken away; begin > end: everywhere */
        int error = api.hook_add(machine.uc, &hook, hooks[i].type, hooks[i].callback, NULL,
                                 (uint64_t)1, (uint64_t)0, hooks[i].instruction);
        if (error)
            return error;
    }
    return 0;
}

static int map_memory(void)
{
    uc_engine *uc = machine.uc;
    int error = api.mem_map_ptr(uc, 0, machine.span, UC_PROT_ALL, machine.ram);
    if (!error)
        error = api.mem_map_ptr(uc, RO_WINDOW_GPA, WINDOW_SPAN, UC_PROT_READ | UC_PROT_EXEC,
                                machine.ro_window);
    if (!error)
        error = api.mem_map_ptr(uc, RW_WINDOW_GPA, WINDOW_SPAN, UC_PROT_ALL, machine.rw_window);
    if (!error)
        error = api.mem_map_ptr(uc, OWN_GPA, OWN_PAGES * PAGE_SIZE, UC_PROT_ALL, machine.own);
    return error;
}

/* Run from OWN_VA + CODE_AT in ring 0 until the first instruction in ring 3 cannot be fetched. */
static int enter_ring3(void)
{
    uint64_t *gdt = (uint64_t *)machine.own;
    uint64_t stack = OWN_VA + FRAME_AT, cr0 = CR0, cr4 = CR4;
    const uint64_t frame[5] = {PAGE_SIZE, SEL_USER_CS, 0x202, 0, SEL_USER_DS};
    struct uc_x86_mmr gdtr = {.base = OWN_VA, .limit = 0x4f};
    gdt[SEL_KERNEL_CS / 8] = 0x00af9b000000ffff;
    gdt[SEL_KERNEL_DS / 8] = 0x00cf93000000ffff;
    gdt[SEL_USER_DS / 8] = 0x00cff3000000ffff;
    gdt[SEL_USER_CS / 8] = 0x00affb000000ffff;
    memcpy(machine.own + CODE_AT, start_code, sizeof start_code);
    memcpy(machine.own + FRAME_AT, frame, sizeof frame);
    struct uctx nobody = {.root = 0};
    machine.current = &nobody;
    machine.starting = 1;
    int error = api.reg_write(machine.uc, UC_X86_REG_GDTR, &gdtr);
    if (!error)
        error = api.reg_write(machine.uc, UC_X86_REG_CR0, &cr0);
    if (!error)
        error = api.reg_write(machine.uc, UC_X86_REG_CR4, &cr4);
    if (!error)
        error = api.reg_write(machine.uc, UC_X86_REG_RSP, &stack);
    if (error)
        return error;
    machine.found = EXIT_NONE;
    (void)api.emu_start(machine.uc, OWN_VA + CODE_AT, 0, 0, 0);
    machine.starting = 0;
    machine.current = NULL;
    if (machine.found != EXIT_FAULT || machine.fault_addr != PAGE_SIZE)
        return -EIO;
    memset(machine.own + FRAME_AT, 0, sizeof frame);
    error = api.context_alloc(machine.uc, &machine.pristine);
    return error ? error : api.context_save(machine.uc, machine.pristine);
}

int machine_open(void *ram, uint64_t span, void *ro_window, void *rw_window,
                 const void *flushes, const void *code_changes)
{
    if (machine.uc || !api.open)
        return -EBUSY;
    machine.ram = ram;
    machine.span = span;
    machine.ro_window = ro_window;
    machine.rw_window = rw_window;
    machine.changes[0] = flushes;
    machine.changes[1] = code_changes;
    machine.own = mmap(NULL, OWN_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (machine.own == MAP_FAILED)
        return -ENOMEM;
    int error = api.open(UC_ARCH_X86, UC_MODE_64, &machine.uc);
    if (!error)
        error = api.ctl(machine.uc, UC_CTL_CPU_MODEL, UC_CPU_X86_EPYC);
    if (!error)
        error = api.ctl(machine.uc, UC_CTL_TCG_BUFFER_SIZE, (uint32_t)TRANSLATIONS);
    if (!error)
        error = api.ctl(machine.uc, UC_CTL_TLB_TYPE, UC_TLB_VIRTUAL);
    if (!error) /* with an empty set of exits, instead of one at address 0 */
        error = api.ctl(machine.uc, UC_CTL_UC_USE_EXITS, 1);
    if (!error)
        error = map_memory();
    if (!error)
        error = add_hooks();
    if (!error)
        error = translate_open();
    if (!error)
        error = enter_ring3();
    if (!error)
        error = watcher_open();
    return error;
}

void machine_close(void)
{
    watcher_close();
    for (uint32_t i = 0; i < machine.contexts_size; i++)
        free(machine.contexts[i]);
    free(machine.contexts);
    free(machine.events);
    free(machine.cpuid);
    if (machine.pristine)
        api.context_free(machine.pristine);
    if (machine.uc)
        api.close(machine.uc);
    if (machine.own && machine.own != MAP_FAILED)
        munmap(machine.own, OWN_PAGES * PAGE_SIZE);
    translate_close();
    memset(&machine, 0, sizeof machine);
    machine.epoll_fd = -1;
}

/* What the emulated CPU itself answers: executes CPUID in its own page. */
int machine_read_cpuid(uint32_t function, uint32_t index, uint32_t *value)
{
    static int ids[4] = {UC_X86_REG_RAX, UC_X86_REG_RBX, UC_X86_REG_RCX, UC_X86_REG_RDX};
    static const uint8_t code[] = {0x0f, 0xa2, 0x0f, 0x0b}; /* cpuid; ud2 */
    uint64_t v[4] = {function, 0, index, 0};
    void *at[4] = {&v[0], &v[1], &v[2], &v[3]};
    struct uctx nobody = {.root = 0};
    memcpy(machine.own + CODE_AT, code, sizeof code);
    machine.current = &nobody;
    machine.starting = machine.capturing = 1;
    machine.found = EXIT_NONE;
    api.reg_write_batch(machine.uc, ids, at, 4);
    (void)api.emu_start(machine.uc, OWN_VA + CODE_AT, 0, 0, 0);
    machine.starting = machine.capturing = 0;
    machine.current = NULL;
    api.reg_read_batch(machine.uc, ids, at, 4);
    for (int k = 0; k < 4; k++)
        value[k] = (uint32_t)v[k];
    api.context_restore(machine.uc, machine.pristine);
    api.ctl(machine.uc, UC_CTL_TLB_FLUSH);
    return machine.found == EXIT_EXCEPTION && machine.vector == 6 ? 0 : -EIO;
}

/* What the program's CPUID answers from now on. */
int machine_set_cpuid(const struct cpuid *entries, uint32_t n)
{
    struct cpuid *copy = calloc(n ? n : 1, sizeof *copy);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, entries, n * sizeof *copy);
    free(machine.cpuid);
    machine.cpuid = copy;
    machine.cpuid_entries = n;
    return 0;
}

const char *machine_strerror(int error)
{
    return error < 0 ? strerror(-error) : api.strerror(error);
}
