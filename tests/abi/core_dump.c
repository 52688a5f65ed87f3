/* Core dumps: who writes one, what wait(2) says, what is in the file. */
#include "abi.h"

#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/procfs.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile long marker = 0x1122334455667788;

static void limit(rlim_t value)
{
    struct rlimit r;
    CHECK(getrlimit(RLIMIT_CORE, &r) == 0);
    r.rlim_cur = value < r.rlim_max ? value : r.rlim_max;
    CHECK(setrlimit(RLIMIT_CORE, &r) == 0);
}

static int run(void (*body)(void))
{
    int status;
    unlink("core");
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        body();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void abort_body(void)
{
    marker = 0x42;
    raise(SIGABRT);
}

static void *wait_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void threads_body(void)
{
    pthread_t t;
    for (int i = 0; i < 3; i++)
        pthread_create(&t, NULL, wait_for_ever, NULL);
    marker = 0x43;
    *(volatile int *)8 = 1;
}

static void small_body(void)
{
    limit(1000);
    raise(SIGQUIT);
}

static void undumpable_body(void)
{
    CHECK(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0);
    raise(SIGABRT);
}

static void terminate_body(void)
{
    raise(SIGTERM);
}

/* Notes and memory of ./core: how many threads, the signal, and what `marker` held. */
static void inspect(int threads, int signo, long expected, pid_t *first)
{
    Elf64_Ehdr head;
    int fd = open("core", O_RDONLY), found = 0, statuses = 0, infos = 0, auxv = 0, files = 0;
    CHECK(fd >= 0);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0600);
    CHECK(pread(fd, &head, sizeof head, 0) == sizeof head);
    CHECK(memcmp(head.e_ident, ELFMAG, SELFMAG) == 0);
    CHECK(head.e_type == ET_CORE && head.e_machine == EM_X86_64);
    for (int i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr p;
        CHECK(pread(fd, &p, sizeof p, head.e_phoff + i * sizeof p) == sizeof p);
        if (p.p_type == PT_LOAD && p.p_vaddr <= (unsigned long)&marker &&
            (unsigned long)&marker < p.p_vaddr + p.p_filesz) {
            long value;
            CHECK(pread(fd, &value, 8, p.p_offset + (unsigned long)&marker - p.p_vaddr) == 8);
            CHECK(value == expected);
            found = 1;
        }
        if (p.p_type != PT_NOTE)
            continue;
        char *notes = malloc(p.p_filesz), *at = notes, *end = notes + p.p_filesz;
        CHECK(pread(fd, notes, p.p_filesz, p.p_offset) == p.p_filesz);
        while (at < end) {
            Elf64_Nhdr *n = (void *)at;
            char *data = at + sizeof *n + (n->n_namesz + 3 & ~3u);
            if (n->n_type == NT_PRSTATUS) {
                struct elf_prstatus *s = (void *)data;
                CHECK(n->n_descsz == sizeof *s);
                CHECK(s->pr_info.si_signo == signo && s->pr_cursig == signo);
                if (!statuses++)
                    *first = s->pr_pid;
            } else if (n->n_type == NT_SIGINFO) {
                infos += ((siginfo_t *)data)->si_signo == signo;
            } else if (n->n_type == NT_AUXV) {
                auxv++;
            } else if (n->n_type == NT_FILE) {
                files++;
            }
            at = data + (n->n_descsz + 3 & ~3u);
        }
        free(notes);
    }
    CHECK(found && statuses == threads && infos == 1 && auxv == 1 && files == 1);
    close(fd);
}

int main(void)
{
    char pattern[256] = "";
    pid_t first;
    int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY);
    CHECK(fd >= 0 && read(fd, pattern, sizeof pattern - 1) > 0);
    int own = strcmp(pattern, "core\n") == 0;

    limit(0);
    CHECK(run(abort_body) == SIGABRT);
    CHECK(access("core", F_OK) == -1);
    limit(RLIM_INFINITY);
    CHECK(run(terminate_body) == SIGTERM);
    CHECK(run(undumpable_body) == SIGABRT);
    if (!own) /* something of the host's takes the dumps */
        return 0;
    CHECK(run(small_body) == SIGQUIT);
    CHECK(run(abort_body) == (SIGABRT | 0x80));
    inspect(1, SIGABRT, 0x42, &first);
    siginfo_t info;
    pid_t pid = fork();
    if (pid == 0)
        threads_body();
    CHECK(waitid(P_PID, pid, &info, WEXITED) == 0);
    CHECK(info.si_code == CLD_DUMPED && info.si_status == SIGSEGV);
    inspect(4, SIGSEGV, 0x43, &first);
    CHECK(first == pid);

    CHECK(unlink("core") == 0);
    CHECK(mkdir("core", 0700) == 0); /* in the way: no dump, no flag */
    CHECK(run(abort_body) == SIGABRT);
    CHECK(rmdir("core") == 0);
    char filter[16] = "";
    fd = open("/proc/self/coredump_filter", O_RDWR);
    CHECK(fd >= 0 && read(fd, filter, 15) == 9 && strcmp(filter, "00000033\n") == 0);
    CHECK(write(fd, "0x3f", 4) == 4 && pread(fd, filter, 15, 0) == 9);
    CHECK(strcmp(filter, "0000003f\n") == 0);
    return 0;
}
