/* prctl(2) about memory: names of mappings, PR_SET_MDWE; what is only kept and reported. */
#define _GNU_SOURCE
#include "abi.h"
#include <linux/prctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int in_maps(const char *wanted)
{
    char line[500];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        found |= strstr(line, wanted) != NULL;
    fclose(maps);
    return found;
}

static void *pages(int prot) { return mmap(NULL, 8192, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

static void names(void)
{
    char *memory = pages(PROT_READ), text[100];
    if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, 4096, "first") == -1)
        return; /* a kernel without CONFIG_ANON_VMA_NAME */
    CHECK(in_maps("[anon:first]"));
    CHECK_ERR(prctl(PR_SET_VMA, 1, memory, 4096, "x"), EINVAL);
    CHECK_ERR(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory + 1, 4096, "x"), EINVAL);
    CHECK_ERR(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, 4096, "x[y"), EINVAL);
    CHECK_ERR(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, 4096, "\t"), EINVAL);
    CHECK_ERR(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, 4096, 8L), EFAULT);
    CHECK_ERR(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, 0x10000L, 4096, "x"), ENOMEM);
    memset(text, 'a', sizeof text);
    text[80] = 0;
    CHECK_ERR(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, 4096, text), EINVAL);
    text[79] = 0;
    CHECK(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, 4096, text) == 0);
    CHECK(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, memory, 4096, NULL) == 0);
    CHECK(!in_maps("[anon:first]"));
}

static void mdwe(void)
{
    void *readable = pages(PROT_READ), *executable;
    CHECK(prctl(PR_GET_MDWE, 0, 0, 0, 0) == 0);
    CHECK_ERR(prctl(PR_SET_MDWE, 4, 0, 0, 0), EINVAL);
    CHECK_ERR(prctl(PR_SET_MDWE, PR_MDWE_NO_INHERIT, 0, 0, 0), EINVAL);
    CHECK_ERR(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 1, 0, 0), EINVAL);
    CHECK(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0);
    CHECK_ERR(prctl(PR_SET_MDWE, 0, 0, 0, 0), EPERM);
    CHECK_ERR(pages(PROT_READ | PROT_WRITE | PROT_EXEC), EACCES);
    CHECK_ERR(mprotect(readable, 4096, PROT_READ | PROT_EXEC), EACCES);
    executable = pages(PROT_READ | PROT_EXEC);
    CHECK(executable != MAP_FAILED);
    CHECK_ERR(mprotect(executable, 4096, PROT_WRITE | PROT_EXEC), EACCES);
    CHECK(mprotect(executable, 4096, PROT_READ | PROT_WRITE) == 0);
    CHECK_ERR(mprotect(executable, 4096, PROT_READ | PROT_EXEC), EACCES);
    pid_t child = fork();
    if (child == 0)
        _exit(prctl(PR_GET_MDWE, 0, 0, 0, 0));
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == PR_MDWE_REFUSE_EXEC_GAIN << 8);
}

/* What a child has, or this program when it is run again there: PR_GET_THP_DISABLE and MDWE. */
static int child_has(int again)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        if (again)
            execl("/proc/self/exe", "again", "what", NULL);
        _exit(prctl(PR_GET_MDWE, 0, 0, 0, 0) * 2 + prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* MMF_INIT_MASK: the settings of an address space go to a child and to the next program. */
static void inheritance(void)
{
    CHECK(child_has(0) == 0 && child_has(1) == 0);
    CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    CHECK(child_has(0) == 1 && child_has(1) == 1);
    pid_t child = fork();
    if (child == 0) {
        CHECK(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN | PR_MDWE_NO_INHERIT, 0, 0, 0) == 0);
        CHECK(child_has(0) == 1 && child_has(1) == 1);
        execl("/proc/self/exe", "again", "what", NULL);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 1 << 8);
    child = fork();
    if (child == 0) {
        CHECK(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0);
        CHECK(child_has(0) == 3 && child_has(1) == 3);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0) == 0);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "what") == 0)
        return prctl(PR_GET_MDWE, 0, 0, 0, 0) * 2 + prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    names();
    CHECK(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_DEFAULT);
    CHECK(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0);
    CHECK(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_EARLY);
    CHECK_ERR(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, 3, 0, 0), EINVAL);
    CHECK_ERR(prctl(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 1, 0, 0), EINVAL);
    CHECK(prctl(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 0, 0, 0) == 0);
    CHECK(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_DEFAULT);
    inheritance();
    mdwe();
    return 0;
}
