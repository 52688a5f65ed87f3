/* System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <limits.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif
#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

static struct msqid_ds ds;
static struct {
    long type;
    char text[20000];
} m;

static int make(void) {
    int id = msgget(IPC_PRIVATE, 0600);
    CHECK(id >= 0);
    return id;
}

static int put(int id, long type, const char *text, int flags) {
    m.type = type;
    strcpy(m.text, text);
    return msgsnd(id, &m, strlen(text), flags);
}

/* Receive and compare. */
static int is(int id, long want, int flags, long type, const char *text) {
    memset(&m, 0, sizeof m);
    long n = msgrcv(id, &m, sizeof m.text, want, flags | IPC_NOWAIT);
    return n == (long)strlen(text) && m.type == type && !strcmp(m.text, text);
}

static int ends(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static void stat_of(int id) { CHECK(msgctl(id, IPC_STAT, &ds) == 0); }

static void getting(void) {
    key_t key = 0x55000000 | getpid();
    CHECK_ERR(msgget(key, 0), ENOENT);
    int id = msgget(key, IPC_CREAT | IPC_EXCL | 0620);
    CHECK(id >= 0 && msgget(key, 0) == id && msgget(key, IPC_CREAT) == id);
    CHECK_ERR(msgget(key, IPC_CREAT | IPC_EXCL), EEXIST);
    stat_of(id);
    CHECK(ds.msg_perm.mode == 0620 && ds.msg_perm.__key == key && ds.msg_qnum == 0);
    CHECK(ds.msg_qbytes == 16384 && ds.msg_stime == 0 && ds.msg_rtime == 0);
    CHECK(ds.msg_lspid == 0 && ds.msg_lrpid == 0 && ds.__msg_cbytes == 0);
    CHECK(ds.msg_ctime <= time(0) && ds.msg_ctime >= time(0) - 100);
    CHECK(msgctl(id, IPC_RMID, 0) == 0);
    CHECK_ERR(msgctl(id, IPC_RMID, 0), EINVAL);
    CHECK_ERR(msgctl(id, IPC_STAT, &ds), EINVAL);
    CHECK_ERR(put(id, 1, "x", 0), EINVAL);
    CHECK_ERR(msgrcv(id, &m, 1, 0, IPC_NOWAIT), EINVAL);
}

static void sending(void) {
    int id = make();
    CHECK_ERR(put(id, 0, "x", 0), EINVAL);
    CHECK_ERR(put(id, -1, "x", 0), EINVAL);
    m.type = 1;
    CHECK_ERR(msgsnd(id, &m, 8193, 0), EINVAL);
    CHECK_ERR(msgsnd(id, &m, -1, 0), EINVAL);
    CHECK_ERR(msgsnd(id, (void *)8, 1, 0), EFAULT);
    CHECK_ERR(msgsnd(-1, &m, 1, 0), EINVAL);
    CHECK(put(id, 5, "hello", 0) == 0);
    stat_of(id);
    CHECK(ds.msg_qnum == 1 && ds.__msg_cbytes == 5 && ds.msg_lspid == getpid());
    CHECK(ds.msg_stime >= ds.msg_ctime && ds.msg_lrpid == 0);
    CHECK(is(id, 0, 0, 5, "hello"));
    stat_of(id);
    CHECK(ds.msg_qnum == 0 && ds.__msg_cbytes == 0 && ds.msg_lrpid == getpid() && ds.msg_rtime);
    CHECK_ERR(msgrcv(id, &m, 10, 0, IPC_NOWAIT), ENOMSG);
    CHECK_ERR(msgrcv(id, &m, -1, 0, IPC_NOWAIT), EINVAL);
    CHECK_ERR(msgrcv(-1, &m, 1, 0, IPC_NOWAIT), EINVAL);

    /* full */
    m.type = 1;
    CHECK(msgsnd(id, &m, 8192, 0) == 0 && msgsnd(id, &m, 8192, IPC_NOWAIT) == 0);
    CHECK_ERR(msgsnd(id, &m, 1, IPC_NOWAIT), EAGAIN);
    CHECK(msgsnd(id, &m, 0, IPC_NOWAIT) == 0);
    CHECK(msgrcv(id, &m, 8192, 0, 0) == 8192 && msgsnd(id, &m, 1, IPC_NOWAIT) == 0);
    CHECK(msgctl(id, IPC_RMID, 0) == 0);

    /* messages of no bytes are counted, too */
    id = make();
    stat_of(id);
    ds.msg_qbytes = 3;
    CHECK(msgctl(id, IPC_SET, &ds) == 0);
    for (int i = 0; i < 3; i++) CHECK(msgsnd(id, &m, 0, IPC_NOWAIT) == 0);
    CHECK_ERR(msgsnd(id, &m, 0, IPC_NOWAIT), EAGAIN);
    CHECK(msgctl(id, IPC_RMID, 0) == 0);
}

static void choosing(void) {
    int id = make();
    CHECK(put(id, 3, "three", 0) == 0 && put(id, 1, "one", 0) == 0 && put(id, 2, "two", 0) == 0);
    CHECK(put(id, 1, "uno", 0) == 0 && put(id, 9, "nine", 0) == 0);
    CHECK(is(id, 0, MSG_COPY, 3, "three") && is(id, 3, MSG_COPY, 1, "uno"));
    CHECK_ERR(msgrcv(id, &m, 100, 5, MSG_COPY | IPC_NOWAIT), ENOMSG);
    CHECK_ERR(msgrcv(id, &m, 100, 0, MSG_COPY), EINVAL);
    CHECK_ERR(msgrcv(id, &m, 100, 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT), EINVAL);
    CHECK_ERR(msgrcv(id, &m, 2, 0, MSG_COPY | IPC_NOWAIT), E2BIG);
    /* a copy is never cut short */
    CHECK_ERR(msgrcv(id, &m, 2, 0, MSG_COPY | IPC_NOWAIT | MSG_NOERROR), EINVAL);
    CHECK_ERR(msgrcv(id, &m, 0, 0, MSG_COPY | IPC_NOWAIT | MSG_NOERROR), EINVAL);
    CHECK(is(id, 3, MSG_COPY | MSG_NOERROR, 1, "uno"));
    CHECK(is(id, 2, 0, 2, "two"));
    CHECK_ERR(msgrcv(id, &m, 100, 2, IPC_NOWAIT), ENOMSG);
    CHECK(is(id, -2, 0, 1, "one") && is(id, -8, 0, 1, "uno") && is(id, -8, 0, 3, "three"));
    CHECK_ERR(msgrcv(id, &m, 100, -8, IPC_NOWAIT), ENOMSG);
    CHECK(put(id, 4, "four", 0) == 0);
    CHECK(is(id, 9, MSG_EXCEPT, 4, "four"));
    CHECK_ERR(msgrcv(id, &m, 100, 9, MSG_EXCEPT | IPC_NOWAIT), ENOMSG);
    CHECK_ERR(msgrcv(id, &m, 3, 0, IPC_NOWAIT), E2BIG);
    stat_of(id);
    CHECK(ds.msg_qnum == 1);
    CHECK(msgrcv(id, &m, 3, LONG_MIN, MSG_NOERROR | IPC_NOWAIT) == 3 && !memcmp(m.text, "nin", 3));
    stat_of(id);
    CHECK(ds.msg_qnum == 0 && ds.__msg_cbytes == 0);
    CHECK(put(id, 4, "lost", 0) == 0);
    CHECK_ERR(msgrcv(id, (void *)8, 100, 0, IPC_NOWAIT), EFAULT);
    CHECK_ERR(msgrcv(id, &m, 100, 0, IPC_NOWAIT), ENOMSG);
    CHECK(msgctl(id, IPC_RMID, 0) == 0);
}

static volatile int caught;
static void handler(int signo) { caught = signo; }

static int receiver(int id, long type, int size) {
    pid_t child = fork();
    if (!child) {
        long n = msgrcv(id, &m, size, type, 0);
        _exit(n < 0 ? 100 + errno : m.text[0]);
    }
    return child;
}

static int sender(int id) {
    pid_t child = fork();
    if (!child) {
        m.type = 1;
        _exit(msgsnd(id, &m, 8000, 0) ? 100 + errno : 0);
    }
    return child;
}

static char state(pid_t pid) {
    char name[64], text[256] = "";
    sprintf(name, "/proc/%d/stat", pid);
    FILE *f = fopen(name, "r");
    fgets(text, sizeof text, f);
    fclose(f);
    return strrchr(text, ')')[2];
}

static void until_asleep(pid_t pid) {
    while (state(pid) != 'S') usleep(1000);
    usleep(10000);
}

static void waiting(void) {
    int id = make();
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &act, 0);
    pid_t two = receiver(id, 2, 10), one = receiver(id, -1, 10);
    until_asleep(one);
    until_asleep(two);
    CHECK(put(id, 1, "a", 0) == 0 && ends(one) == 'a');
    CHECK(put(id, 2, "b", 0) == 0 && ends(two) == 'b');
    pid_t short_one = receiver(id, 0, 1);
    until_asleep(short_one);
    CHECK(put(id, 1, "long", 0) == 0 && ends(short_one) == 100 + E2BIG);
    CHECK(is(id, 0, 0, 1, "long"));

    one = receiver(id, 0, 10);
    until_asleep(one);
    kill(one, SIGUSR1);
    CHECK(ends(one) == 100 + EINTR);
    one = receiver(id, 0, 10);
    until_asleep(one);
    kill(one, SIGSTOP);
    kill(one, SIGCONT);
    until_asleep(one);
    CHECK(put(id, 7, "c", 0) == 0 && ends(one) == 'c');

    m.type = 3;
    CHECK(msgsnd(id, &m, 8192, 0) == 0 && msgsnd(id, &m, 8192, 0) == 0);
    one = sender(id);
    until_asleep(one);
    CHECK(msgrcv(id, &m, 8192, 0, 0) == 8192 && ends(one) == 0);
    one = sender(id);
    until_asleep(one);
    kill(one, SIGUSR1);
    CHECK(ends(one) == 100 + EINTR);
    CHECK(msgrcv(id, &m, 8192, 0, 0) > 0);
    stat_of(id);
    ds.msg_qbytes = 8192;
    CHECK(msgctl(id, IPC_SET, &ds) == 0);
    one = sender(id);
    until_asleep(one);
    ds.msg_qbytes = 16384;
    CHECK(msgctl(id, IPC_SET, &ds) == 0 && ends(one) == 0);

    one = receiver(id, 77, 10);
    until_asleep(one);
    stat_of(id);
    ds.msg_qbytes = 1;
    CHECK(msgctl(id, IPC_SET, &ds) == 0);
    two = sender(id);
    until_asleep(two);
    CHECK(msgctl(id, IPC_RMID, 0) == 0);
    CHECK(ends(one) == 100 + EIDRM && ends(two) == 100 + EIDRM);
}

static void user(int id, int other) {
    if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000)) _exit(20);
    CHECK_ERR(put(id, 1, "x", 0), EACCES);
    CHECK(is(id, 0, 0, 1, "x"));
    CHECK_ERR(msgctl(id, IPC_RMID, 0), EPERM);
    stat_of(id);
    CHECK_ERR(msgctl(id, IPC_SET, &ds), EPERM);
    CHECK_ERR(msgctl(other, IPC_STAT, &ds), EACCES);
    CHECK_ERR(msgctl(other % 32768, MSG_STAT, &ds), EACCES);
    CHECK(msgctl(other % 32768, MSG_STAT_ANY, &ds) == other);
    CHECK(put(other, 1, "y", 0) == 0);
    CHECK_ERR(msgrcv(other, &m, 10, 0, IPC_NOWAIT), EACCES);
    int mine = make();
    stat_of(mine);
    ds.msg_qbytes = 16385;
    CHECK_ERR(msgctl(mine, IPC_SET, &ds), EPERM);
    ds.msg_qbytes = 16384;
    ds.msg_perm.uid = -1;
    CHECK_ERR(msgctl(mine, IPC_SET, &ds), EINVAL);
    CHECK(msgctl(mine, IPC_RMID, 0) == 0);
    _exit(0);
}

static void rights(void) {
    int id = msgget(IPC_PRIVATE, 0644), other = msgget(IPC_PRIVATE, 0622);
    CHECK(put(id, 1, "x", 0) == 0);
    pid_t child = fork();
    if (!child) user(id, other);
    CHECK(ends(child) == 0);
    CHECK(is(other, 0, 0, 1, "y"));
    CHECK(msgctl(id, IPC_RMID, 0) == 0 && msgctl(other, IPC_RMID, 0) == 0);
}

static void information(void) {
    int id = make();
    struct msginfo info;
    CHECK(put(id, 1, "four", 0) == 0);
    int highest = msgctl(0, IPC_INFO, (void *)&info);
    CHECK(highest >= id % 32768);
    CHECK(info.msgmni == 32000 && info.msgmax == 8192 && info.msgmnb == 16384);
    CHECK(info.msgssz == 16 && info.msgseg == 0xffff);
    CHECK(info.msgpool == 512000 && info.msgmap == 16384 && info.msgtql == 16384);
    CHECK(msgctl(0, MSG_INFO, (void *)&info) == highest);
    CHECK(info.msgpool >= 1 && info.msgmap >= 1 && info.msgtql >= 4);
    CHECK(msgctl(id % 32768, MSG_STAT, &ds) == id && ds.msg_qnum == 1);
    CHECK_ERR(msgctl(highest + 1, MSG_STAT, &ds), EINVAL);
    CHECK_ERR(msgctl(id, IPC_STAT, (void *)8), EFAULT);
    CHECK_ERR(msgctl(id, IPC_SET, (void *)8), EFAULT);
    CHECK_ERR(msgctl(id, 99, &ds), EINVAL);
    char line[256];
    int found = 0;
    FILE *table = fopen("/proc/sysvipc/msg", "r");
    CHECK(table && fgets(line, sizeof line, table) && strstr(line, "qnum"));
    while (fgets(line, sizeof line, table)) {
        long key, number, mode, bytes, count, sent;
        CHECK(sscanf(line, "%ld %ld %lo %ld %ld %ld", &key, &number, &mode, &bytes, &count,
                     &sent) == 6);
        found |= number == id && bytes == 4 && count == 1 && sent == getpid();
    }
    fclose(table);
    CHECK(found);
    CHECK(msgctl(id, IPC_RMID, 0) == 0);
}

int main(void) {
    getting();
    sending();
    choosing();
    waiting();
    rights();
    information();
    return 0;
}
