/* Our page tables as the emulated CPU's TLB sees them.
 *
 * The TLB is filled from the tables on demand and dropped as a whole when one of the two counters
 * of the memory half has moved: a translation was taken away, or bytes that may be code changed
 * under it. unicorn keeps translated code by physical address; it sees the program's own stores,
 * not the host's. So when a page is fetched from anew, its bytes are compared with a hash of what
 * they were, which catches reused frames, rewritten files and everything else alike. Stores of the
 * program it sees at the address where the code was fetched from only; so the TLB never holds one
 * address of a frame to fetch from and another to store to.
 */
#define _GNU_SOURCE
#include "machine.h"
#include "pagewalk.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define PF_PRESENT 1 /* error code of a page fault, SDM volume 3 section 4.7 */
#define PF_WRITE 2
#define PF_USER 4
#define PF_FETCH 16

#define FRAMES (OWN_GPA / PAGE_SIZE)
#define SPARES 16

static struct sigaction previous;
static uint8_t *spare; /* where vanished pages of the windows wait for the end of a stretch */
static uint8_t *lost_at[SPARES];

/* ---- host memory that may not be there ------------------------------------------------------ */

extern const char unicorn_probe_at[], unicorn_probe_out[];
int unicorn_probe(const void *at);
__asm__(".pushsection .text\n"
        ".globl unicorn_probe\n.hidden unicorn_probe\n.type unicorn_probe,@function\n"
        ".globl unicorn_probe_at\n.hidden unicorn_probe_at\n"
        ".globl unicorn_probe_out\n.hidden unicorn_probe_out\n"
        "unicorn_probe:\n"
        "    mov $1, %eax\n"
        "unicorn_probe_at:\n"
        "    movb (%rdi), %cl\n"
        "    xor %eax, %eax\n"
        "unicorn_probe_out:\n"
        "    ret\n"
        ".popsection\n");

static int in_window(const uint8_t *at)
{
    return (at >= machine.ro_window && at < machine.ro_window + WINDOW_SPAN) ||
           (at >= machine.rw_window && at < machine.rw_window + WINDOW_SPAN);
}

/* SIGBUS in emulated code: a host file shrank while its page was in the TLB. The page is put
 * aside and zeros take its place until the emulation has stopped; it cannot be left from here. It
 * stops right behind the access, and the instruction is executed again. */
static void on_sigbus(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (registers[REG_RIP] == (greg_t)(uintptr_t)unicorn_probe_at) {
        registers[REG_RIP] = (greg_t)(uintptr_t)unicorn_probe_out;
        return;
    }
    uint8_t *at = (uint8_t *)((uintptr_t)info->si_addr & ~(PAGE_SIZE - 1));
    size_t n = machine.lost ? (size_t)machine.lost - 1 : 0;
    if (machine.current && in_window(at) && n < SPARES &&
        mremap(at, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, spare + n * PAGE_SIZE) != MAP_FAILED &&
        mmap(at, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
            MAP_FAILED) {
        lost_at[n] = at;
        machine.lost = (sig_atomic_t)n + 2;
        api.emu_stop(machine.uc);
        return;
    }
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(signal, info, context);
    else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
        previous.sa_handler(signal);
    else
        sigaction(signal, &previous, NULL); /* the instruction repeats, with the default action */
}

void translate_restore_lost(void)
{
    for (size_t n = machine.lost ? (size_t)machine.lost - 1 : 0; n--;)
        (void)!mremap(spare + n * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, lost_at[n]);
    machine.lost = 0;
}

int translate_open(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus};
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    machine.uses = mmap(NULL, FRAMES * sizeof *machine.uses, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    spare = mmap(NULL, SPARES * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                 0);
    if (machine.uses == MAP_FAILED || spare == MAP_FAILED)
        return -ENOMEM;
    return sigaction(SIGBUS, &action, &previous) < 0 ? -errno : 0;
}

void translate_close(void)
{
    if (machine.uses && machine.uses != MAP_FAILED) {
        munmap(machine.uses, FRAMES * sizeof *machine.uses);
        sigaction(SIGBUS, &previous, NULL);
    }
    if (spare && spare != MAP_FAILED)
        munmap(spare, SPARES * PAGE_SIZE);
    spare = NULL;
}

/* ---- page tables ---------------------------------------------------------------------------- */

/* The entry for this page, with the page's own address; 0: none. */
static uint64_t lookup(uint64_t root, uint64_t va)
{
    if (!root || va >= TASK_SIZE)
        return 0;
    int level;
    uint64_t entry = *walk_down(machine.ram, root, va, 1, &level);
    if (!(entry & PTE_P))
        return 0;
    if (level == 1)
        return entry;
    uint64_t gpa = (entry & PTE_ADDR & ~(BLOCK_SIZE - 1)) | (va & (BLOCK_SIZE - PAGE_SIZE));
    return (entry & ~PTE_ADDR & ~PTE_PS) | gpa;
}

static uint8_t *host_of(uint64_t gpa)
{
    if (gpa < machine.span)
        return machine.ram + gpa;
    if (gpa >= RO_WINDOW_GPA && gpa < RW_WINDOW_GPA)
        return machine.ro_window + (gpa - RO_WINDOW_GPA);
    if (gpa >= RW_WINDOW_GPA && gpa < OWN_GPA)
        return machine.rw_window + (gpa - RW_WINDOW_GPA);
    return NULL;
}

/* Host address of a byte that the program may access; NULL if it may not. */
uint8_t *user_byte(struct uctx *c, uint64_t va, int write)
{
    const uint64_t need = PTE_P | PTE_U | (write ? PTE_W : 0);
    uint64_t entry = lookup(c->root, va);
    uint8_t *page = (entry & need) == need ? host_of(entry & PTE_ADDR) : NULL;
    return page && !unicorn_probe(page) ? page + (va & (PAGE_SIZE - 1)) : NULL;
}

static uint32_t hash_page(const uint8_t *page)
{
    const uint64_t k = 0x9e3779b97f4a7c15ull;
    uint64_t lane[4] = {1, 2, 3, 4};
    for (size_t i = 0; i < PAGE_SIZE / sizeof lane; i++) {
        uint64_t word[4];
        memcpy(word, page + i * sizeof lane, sizeof word);
        for (int j = 0; j < 4; j++)
            lane[j] = ((lane[j] ^ word[j]) * k) ^ (lane[j] >> 29);
    }
    uint64_t all = lane[0] ^ (lane[1] * k) ^ (lane[2] << 17) ^ (lane[3] * 31);
    return (uint32_t)(all ^ all >> 32) | 1; /* 0: never translated */
}

static int dropping; /* code: that fills the TLB once more */

static void drop_code(uint64_t va)
{
    dropping = 1;
    api.ctl(machine.uc, UC_CTL_TB_REMOVE_CACHE, va & ~(PAGE_SIZE - 1), (va & ~(PAGE_SIZE - 1)) + PAGE_SIZE);
    dropping = 0;
}

static void drop_tlb(void)
{
    api.ctl(machine.uc, UC_CTL_TLB_FLUSH);
    machine.epoch++;
    machine.stat_flushes++;
}

static struct page_use *use_of(uint64_t gpa)
{
    struct page_use *use = &machine.uses[gpa / PAGE_SIZE];
    if (use->epoch != machine.epoch) {
        use->epoch = machine.epoch;
        use->fetched_page = use->stored_page = 0;
    }
    return use;
}

/* The program is about to fetch from this page: is what was translated from it still true? And
 * nobody may go on storing into it at another address, where unicorn does not look. */
static void before_fetch(uint64_t va, uint64_t gpa, const uint8_t *page)
{
    struct page_use *use = use_of(gpa);
    uint32_t number = (uint32_t)(va / PAGE_SIZE), now = hash_page(page);
    if (use->stored_page && use->stored_page != number) {
        drop_tlb();
        use = use_of(gpa);
    }
    use->fetched_page = number;
    if (use->hash == now)
        return;
    if (use->hash)
        drop_code(va);
    use->hash = now;
    machine.stat_translated++;
}

/* The program is about to store into this page: is it fetched from at another address? */
static void before_store(uint64_t va, uint64_t gpa)
{
    struct page_use *use = use_of(gpa);
    uint32_t number = (uint32_t)(va / PAGE_SIZE);
    if (use->fetched_page && use->fetched_page != number) {
        drop_code(va);
        drop_tlb();
        use = use_of(gpa);
        use->hash = 0;
    }
    use->stored_page = number;
}

static bool refuse(enum exit_kind kind, uint64_t va, uint64_t error_code, uint64_t vector)
{
    if (machine.found == EXIT_NONE) {
        machine.found = kind;
        machine.fault_addr = va;
        machine.error_code = error_code;
        machine.vector = vector;
    }
    return false;
}

bool on_tlb_fill(uc_engine *uc, uint64_t va, int type, struct uc_tlb_entry *entry, void *data)
{
    (void)uc, (void)data;
    uint64_t need = PTE_P | PTE_U | (type == UC_MEM_WRITE ? PTE_W : 0);
    uint64_t pte = machine.current ? lookup(machine.current->root, va) : 0;
    if ((uint64_t)((int64_t)(va << 16) >> 16) != va)
        return refuse(EXIT_EXCEPTION, va, 0, 13); /* not canonical: #GP, not #PF */
    if ((pte & need) != need || (type == UC_MEM_FETCH && (pte & PTE_NX) && !dropping)) {
        uint64_t code = PF_USER | (pte ? PF_PRESENT : 0) | (type == UC_MEM_WRITE ? PF_WRITE : 0) |
                        (type == UC_MEM_FETCH ? PF_FETCH : 0);
        return refuse(EXIT_FAULT, va, code, 14);
    }
    uint64_t gpa = pte & PTE_ADDR;
    uint8_t *page = host_of(gpa);
    if (!page)
        return refuse(EXIT_BROKEN, va, 0, 0);
    if (unicorn_probe(page))
        return refuse(gpa < RO_WINDOW_GPA ? EXIT_NO_MEMORY : EXIT_FILE_GONE, va, 0, 0);
    entry->paddr = gpa;
    entry->perms = UC_PROT_READ;
    if (dropping) {
        entry->perms |= UC_PROT_EXEC;
        return true;
    }
    /* Only what was asked for: every first fetch and every first store has to come by here. */
    if (type == UC_MEM_FETCH) {
        before_fetch(va, gpa, page);
        entry->perms |= UC_PROT_EXEC;
        if ((pte & PTE_W) && machine.uses[gpa / PAGE_SIZE].stored_page == (uint32_t)(va / PAGE_SIZE))
            entry->perms |= UC_PROT_WRITE;
    } else if (type == UC_MEM_WRITE) {
        before_store(va, gpa);
        entry->perms |= UC_PROT_WRITE;
        if (!(pte & PTE_NX) && machine.uses[gpa / PAGE_SIZE].fetched_page == (uint32_t)(va / PAGE_SIZE))
            entry->perms |= UC_PROT_EXEC;
    }
    return true;
}

void translate_prepare(struct uctx *c)
{
    uint64_t changes = *machine.changes[0] + *machine.changes[1];
    if (machine.space == c->space && machine.seen_changes == changes)
        return;
    drop_tlb();
    machine.space = c->space;
    machine.seen_changes = changes;
}
