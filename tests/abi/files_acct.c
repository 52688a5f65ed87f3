/* acct: a record for each process that ends, in a PID namespace of its own. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/acct.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int run(int code)
{
    int status;
    pid_t child = fork();
    if (!child) {
        if (code < 0)
            raise(SIGKILL);
        _exit(code);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void records(void)
{
    struct acct_v3 record;
    time_t now = time(0);
    int fd = open("records", O_CREAT | O_RDONLY, 0600);
    CHECK(syscall(SYS_acct, "records") == 0);
    CHECK(run(3) == 0x300);
    CHECK(run(-1) == SIGKILL);
    CHECK(syscall(SYS_acct, 0) == 0);
    CHECK(run(4) == 0x400);
    CHECK(read(fd, &record, sizeof record) == sizeof record);
    CHECK(record.ac_version == 3 && record.ac_flag == AFORK && record.ac_exitcode == 0x300);
    CHECK(record.ac_pid == 2 && record.ac_ppid == 1);
    CHECK(record.ac_uid == getuid() && record.ac_gid == getgid());
    CHECK(record.ac_btime - (now - 5) < 60);
    CHECK(!strcmp(record.ac_comm, "recorded"));
    CHECK(read(fd, &record, sizeof record) == sizeof record);
    CHECK(record.ac_flag == (AFORK | AXSIG) && record.ac_exitcode == SIGKILL);
    CHECK(record.ac_pid == 3);
    CHECK(read(fd, &record, sizeof record) == sizeof record); /* of who turned it off */
    CHECK(record.ac_pid == 1 && record.ac_flag == 0 && record.ac_exitcode == 0);
    CHECK(read(fd, &record, sizeof record) == 0);
    close(fd);
}

static void wrong(void)
{
    CHECK_ERR(syscall(SYS_acct, 8), EFAULT);
    CHECK_ERR(syscall(SYS_acct, ""), ENOENT);
    CHECK_ERR(syscall(SYS_acct, "missing"), ENOENT);
    CHECK_ERR(syscall(SYS_acct, "/"), EISDIR);
    CHECK_ERR(syscall(SYS_acct, "/dev/null"), EACCES);
    CHECK_ERR(syscall(SYS_acct, "records/"), ENOTDIR);
    CHECK(seteuid(65534) == 0);
    CHECK_ERR(syscall(SYS_acct, 0), EPERM);
    CHECK_ERR(syscall(SYS_acct, 8), EPERM);
    CHECK(seteuid(0) == 0);
}

int main(void)
{
    int status;
    if (syscall(SYS_acct, 0) == -1 && errno == ENOSYS)
        return 0; /* a kernel that was built without it */
    CHECK(prctl(PR_SET_NAME, "recorded") == 0 && unshare(CLONE_NEWPID) == 0);
    pid_t child = fork();
    if (!child) {
        records();
        wrong();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return 0;
}
