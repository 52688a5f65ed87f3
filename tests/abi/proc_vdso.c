/* The vDSO and its pages of data in /proc/PID/maps and smaps, and who may look into them. */
#define _GNU_SOURCE
#include "abi.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul

struct found {
    unsigned long start, end;
    char rights[5], name[32], flags[64];
};

/* The line of the mapping at an address. */
static struct found at(unsigned long address)
{
    char line[512];
    struct found f = {0}, result = {0};
    FILE *smaps = fopen("/proc/self/smaps", "r");
    CHECK(smaps != NULL);
    while (fgets(line, sizeof line, smaps)) {
        unsigned long start, end;
        char rights[5];
        if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3) {
            memset(&f, 0, sizeof f);
            f.start = start, f.end = end;
            strcpy(f.rights, rights);
            sscanf(line, "%*s %*s %*s %*s %*s %31s", f.name);
        } else if (strncmp(line, "VmFlags: ", 9) == 0 && f.start <= address && address < f.end) {
            snprintf(f.flags, sizeof f.flags, " %s", line + 9);
            result = f;
        }
    }
    fclose(smaps);
    return result;
}

static void look(unsigned long vdso)
{
    struct found code = at(vdso), data = at(vdso - 1);
    CHECK(code.start == vdso && strcmp(code.name, "[vdso]") == 0);
    CHECK(strcmp(code.rights, "r-xp") == 0);
    CHECK(strstr(code.flags, " rd ex mr ") && strstr(code.flags, " me de "));
    /* [vvar_vclock] lies in between since 6.13 */
    if (strcmp(data.name, "[vvar_vclock]") == 0)
        data = at(data.start - 1);
    CHECK(strcmp(data.name, "[vvar]") == 0 && strcmp(data.rights, "r--p") == 0);
    CHECK(strncmp(data.flags, " rd mr pf io de dd ", 19) == 0);
}

int main(void)
{
    unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
    char bytes[8];
    struct timespec t;
    int status;
    if (vdso == 0) /* none is there, as without a clock that programs can read */
        return 0;
    CHECK(memcmp((void *)vdso, "\177ELF", 4) == 0);
    look(vdso);
    int memory = open("/proc/self/mem", O_RDONLY);
    CHECK(pread(memory, bytes, 4, vdso) == 4 && memcmp(bytes, "\177ELF", 4) == 0);
    CHECK_ERR(pread(memory, bytes, 4, vdso - PAGE), EIO);
    struct iovec local = {bytes, 4}, code = {(void *)vdso, 4}, data = {(void *)(vdso - PAGE), 4};
    CHECK(process_vm_readv(getpid(), &local, 1, &code, 1, 0) == 4);
    CHECK_ERR(process_vm_readv(getpid(), &local, 1, &data, 1, 0), EFAULT);
    CHECK_ERR(mprotect((void *)(vdso - PAGE), PAGE, PROT_READ | PROT_WRITE), EACCES);
    CHECK(mprotect((void *)vdso, PAGE, PROT_READ | PROT_EXEC) == 0);
    CHECK_ERR(madvise((void *)(vdso - PAGE), PAGE, MADV_DODUMP), EINVAL);
    look(vdso);
    if (unshare(CLONE_NEWTIME) == 0) { /* whose programs read other clocks */
        int pid = fork();
        if (pid == 0) {
            look(vdso);
            CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0 && t.tv_sec >= 0);
            CHECK_ERR(pread(memory, bytes, 4, vdso - PAGE), EIO);
            _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    }
    CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    look(vdso);
    return 0;
}
