/* System V semaphores: semget(2), semop(2), semctl(2), SEM_UNDO. */
#define _GNU_SOURCE
#include "abi.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SEM_STAT_ANY
#define SEM_STAT_ANY 20
#endif

union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
    struct seminfo *info;
};

static struct semid_ds ds;
static union semun arg;

static int make(int count) {
    int id = semget(IPC_PRIVATE, count, 0600);
    CHECK(id >= 0);
    return id;
}

static int value(int id, int number) { return semctl(id, number, GETVAL); }

static void set(int id, int number, int to) {
    arg.val = to;
    CHECK(semctl(id, number, SETVAL, arg) == 0);
}

static int op1(int id, int number, int change, int flags) {
    struct sembuf op = {number, change, flags};
    return semop(id, &op, 1);
}

static int ends(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* Wait until so many tasks sleep on a semaphore. */
static void until_waiting(int id, int number, int command, int count) {
    while (semctl(id, number, command) != count) usleep(1000);
}

static void getting(void) {
    key_t key = 0x53000000 | getpid();
    CHECK_ERR(semget(key, 1, 0), ENOENT);
    CHECK_ERR(semget(key, 0, IPC_CREAT | 0600), EINVAL);
    CHECK_ERR(semget(key, -1, IPC_CREAT | 0600), EINVAL);
    CHECK_ERR(semget(key, 32001, IPC_CREAT | 0600), EINVAL);
    int id = semget(key, 3, IPC_CREAT | IPC_EXCL | 0640);
    CHECK(id >= 0);
    CHECK(semget(key, 0, 0) == id && semget(key, 3, 0) == id && semget(key, 1, IPC_CREAT) == id);
    CHECK_ERR(semget(key, 4, 0), EINVAL);
    CHECK_ERR(semget(key, 3, IPC_CREAT | IPC_EXCL), EEXIST);
    arg.buf = &ds;
    CHECK(semctl(id, 0, IPC_STAT, arg) == 0);
    CHECK(ds.sem_nsems == 3 && ds.sem_otime == 0 && ds.sem_ctime >= time(0) - 100);
    CHECK(ds.sem_perm.mode == 0640 && ds.sem_perm.__key == key && ds.sem_perm.uid == getuid());
    CHECK(value(id, 0) == 0 && value(id, 2) == 0);
    CHECK_ERR(value(id, 3), EINVAL);
    CHECK_ERR(value(id, -1), EINVAL);
    CHECK_ERR(semctl(id, 0, 99), EINVAL);
    CHECK_ERR(semctl(-1, 0, GETVAL), EINVAL);
    CHECK_ERR(semctl(id + 32768, 0, GETVAL), EINVAL);
    CHECK(semctl(id, 0, IPC_RMID) == 0);
    CHECK_ERR(semctl(id, 0, IPC_RMID), EINVAL);
    CHECK_ERR(semctl(id, 0, IPC_STAT, arg), EINVAL);
    CHECK_ERR(op1(id, 0, 1, 0), EINVAL);
}

static void values(void) {
    int id = make(3);
    unsigned short all[3] = {1, 32767, 3}, seen[3];
    arg.val = -1;
    CHECK_ERR(semctl(id, 0, SETVAL, arg), ERANGE);
    arg.val = 32768;
    CHECK_ERR(semctl(id, 0, SETVAL, arg), ERANGE);
    CHECK_ERR(semctl(id, 99, SETVAL, arg), ERANGE);
    arg.val = 1;
    CHECK_ERR(semctl(id, 3, SETVAL, arg), EINVAL);
    CHECK(semctl(id, 0, GETPID) == 0);
    set(id, 0, 7);
    CHECK(value(id, 0) == 7 && semctl(id, 0, GETPID) == getpid());
    arg.array = all;
    CHECK(semctl(id, 0, SETALL, arg) == 0);
    arg.array = seen;
    CHECK(semctl(id, 0, GETALL, arg) == 0 && !memcmp(all, seen, sizeof all));
    all[1] = 32768;
    arg.array = all;
    CHECK_ERR(semctl(id, 0, SETALL, arg), ERANGE);
    arg.array = (void *)8;
    CHECK_ERR(semctl(id, 0, SETALL, arg), EFAULT);
    CHECK_ERR(semctl(id, 0, GETALL, arg), EFAULT);
    CHECK(value(id, 0) == 1);
    CHECK_ERR(op1(id, 1, 1, 0), ERANGE);
    CHECK(semctl(id, 0, IPC_RMID) == 0);
}

static void operating(void) {
    int id = make(2);
    struct sembuf many[501] = {{0}}, both[2] = {{0, 2, 0}, {1, -1, IPC_NOWAIT}};
    CHECK_ERR(semop(id, many, 501), E2BIG);
    CHECK_ERR(semop(id, many, 0), EINVAL);
    CHECK_ERR(semop(id, (void *)8, 1), EFAULT);
    CHECK_ERR(semop(-1, many, 1), EINVAL);
    CHECK_ERR(op1(id, 2, 1, 0), EFBIG);
    CHECK(semop(id, many, 500) == 0);
    CHECK(op1(id, 0, 1, 0) == 0 && value(id, 0) == 1);
    CHECK_ERR(op1(id, 0, -2, IPC_NOWAIT), EAGAIN);
    CHECK_ERR(op1(id, 0, 0, IPC_NOWAIT), EAGAIN);
    CHECK_ERR(semop(id, both, 2), EAGAIN);
    CHECK(value(id, 0) == 1);
    both[1].sem_flg = 0;
    both[1].sem_op = 1;
    CHECK(semop(id, both, 2) == 0 && value(id, 0) == 3 && value(id, 1) == 1);
    /* in order, with what the first ones did */
    struct sembuf chain[3] = {{0, -3, 0}, {0, 0, IPC_NOWAIT}, {0, 5, 0}};
    CHECK(semop(id, chain, 3) == 0 && value(id, 0) == 5);
    struct sembuf range[2] = {{1, 4, 0}, {0, 32767, 0}};
    CHECK_ERR(semop(id, range, 2), ERANGE);
    CHECK(value(id, 1) == 1);
    arg.buf = &ds;
    CHECK(semctl(id, 0, IPC_STAT, arg) == 0 && ds.sem_otime >= ds.sem_ctime);

    struct timespec t = {0, 30000000}, before, after;
    struct sembuf take = {1, -5, 0};
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK_ERR(semtimedop(id, &take, 1, &t), EAGAIN);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec >= 30000000);
    t.tv_nsec = 1000000000;
    CHECK_ERR(semtimedop(id, &take, 1, &t), EINVAL);
    t.tv_nsec = 0;
    t.tv_sec = -1;
    CHECK_ERR(semtimedop(id, &take, 1, &t), EINVAL);
    CHECK_ERR(semtimedop(id, &take, 1, (void *)8), EFAULT);
    t.tv_sec = 0;
    CHECK_ERR(semtimedop(id, &take, 1, &t), EAGAIN);
    CHECK(semctl(id, 0, IPC_RMID) == 0);
}

static volatile int caught;
static void handler(int signo) { caught = signo; }

static void waiting(void) {
    int id = make(2);
    pid_t child = fork();
    if (!child) _exit(op1(id, 0, -2, 0) ? errno : 0);
    until_waiting(id, 0, GETNCNT, 1);
    CHECK(semctl(id, 0, GETZCNT) == 0 && semctl(id, 1, GETNCNT) == 0);
    CHECK(op1(id, 0, 1, 0) == 0);
    CHECK(semctl(id, 0, GETNCNT) == 1 && value(id, 0) == 1);
    CHECK(op1(id, 0, 1, 0) == 0);
    CHECK(value(id, 0) == 0 && semctl(id, 0, GETNCNT) == 0 && semctl(id, 0, GETPID) == child);
    CHECK(ends(child) == 0);

    set(id, 0, 3);
    child = fork();
    if (!child) {
        struct sembuf zero[2] = {{0, 0, 0}, {1, 1, 0}};
        _exit(semop(id, zero, 2) ? errno : 0);
    }
    until_waiting(id, 0, GETZCNT, 1);
    CHECK(op1(id, 0, -2, 0) == 0 && semctl(id, 0, GETZCNT) == 1);
    CHECK(op1(id, 0, -1, 0) == 0 && ends(child) == 0 && value(id, 1) == 1);

    /* several wait: who came first, and who fits */
    set(id, 1, 0);
    pid_t large = fork();
    if (!large) _exit(op1(id, 1, -3, 0) ? errno : 0);
    until_waiting(id, 1, GETNCNT, 1);
    pid_t small = fork();
    if (!small) _exit(op1(id, 1, -1, 0) ? errno : 0);
    until_waiting(id, 1, GETNCNT, 2);
    CHECK(op1(id, 1, 1, 0) == 0 && ends(small) == 0);
    CHECK(op1(id, 1, 4, 0) == 0 && ends(large) == 0 && value(id, 1) == 1);

    /* SETVAL wakes, too; a chain of waiters */
    set(id, 0, 0);
    set(id, 1, 0);
    pid_t first = fork();
    if (!first) {
        struct sembuf ops[2] = {{0, -1, 0}, {1, 1, 0}};
        _exit(semop(id, ops, 2) ? errno : 0);
    }
    pid_t second = fork();
    if (!second) _exit(op1(id, 1, -1, 0) ? errno : 0);
    until_waiting(id, 0, GETNCNT, 1);
    until_waiting(id, 1, GETNCNT, 1);
    set(id, 0, 1);
    CHECK(ends(first) == 0 && ends(second) == 0 && value(id, 0) == 0 && value(id, 1) == 0);

    /* ERANGE comes late */
    set(id, 1, 32767);
    child = fork();
    if (!child) {
        struct sembuf ops[2] = {{0, -1, 0}, {1, 1, 0}};
        _exit(semop(id, ops, 2) ? errno : 0);
    }
    until_waiting(id, 0, GETNCNT, 1);
    CHECK(op1(id, 0, 1, 0) == 0 && ends(child) == ERANGE && value(id, 0) == 1);
    set(id, 0, 0);

    /* a handler ends it, SA_RESTART or not; stopping and going on does not */
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &act, 0);
    child = fork();
    if (!child) _exit(op1(id, 0, -1, 0) ? errno : 0);
    until_waiting(id, 0, GETNCNT, 1);
    kill(child, SIGUSR1);
    CHECK(ends(child) == EINTR && semctl(id, 0, GETNCNT) == 0);

    child = fork();
    if (!child) _exit(op1(id, 0, -1, 0) ? errno : 0);
    until_waiting(id, 0, GETNCNT, 1);
    kill(child, SIGKILL);
    CHECK(ends(child) == 256 + SIGKILL && semctl(id, 0, GETNCNT) == 0);

    child = fork();
    if (!child) _exit(op1(id, 0, -1, 0) ? errno : 0);
    until_waiting(id, 0, GETNCNT, 1);
    CHECK(semctl(id, 0, IPC_RMID) == 0 && ends(child) == EIDRM);
}

static void *undoing_thread(void *id) {
    op1((long)id, 0, 4, SEM_UNDO);
    return 0;
}

static int cloned(void *id) {
    op1((long)id, 0, 2, SEM_UNDO);
    return 0;
}

static void undoing(void) {
    int id = make(2), gate[2];
    char c;
    set(id, 0, 5);
    pid_t child = fork();
    if (!child) {
        CHECK(op1(id, 0, -3, SEM_UNDO) == 0);
        CHECK(op1(id, 0, -1, SEM_UNDO) == 0);
        CHECK(op1(id, 1, 2, SEM_UNDO) == 0);
        _exit(value(id, 0) * 10 + value(id, 1));
    }
    CHECK(ends(child) == 12 && value(id, 0) == 5 && value(id, 1) == 0);
    CHECK(semctl(id, 0, GETPID) == child);

    /* it wakes, and does not go below 0 */
    child = fork();
    if (!child) {
        CHECK(op1(id, 0, 6, SEM_UNDO) == 0);
        CHECK(op1(id, 1, -1, 0) == 0);
        _exit(0);
    }
    pid_t waiter = fork();
    if (!waiter) _exit(op1(id, 0, 0, 0) ? errno : 0);
    until_waiting(id, 1, GETNCNT, 1);
    until_waiting(id, 0, GETZCNT, 1);
    CHECK(value(id, 0) == 11 && op1(id, 0, -8, 0) == 0 && value(id, 0) == 3);
    CHECK(op1(id, 1, 1, 0) == 0 && ends(child) == 0 && ends(waiter) == 0 && value(id, 0) == 0);

    /* SETVAL forgets */
    child = fork();
    if (!child) {
        CHECK(op1(id, 0, 2, SEM_UNDO) == 0 && op1(id, 1, 2, SEM_UNDO) == 0);
        set(id, 0, 9);
        _exit(0);
    }
    CHECK(ends(child) == 0 && value(id, 0) == 9 && value(id, 1) == 0);
    child = fork();
    if (!child) {
        unsigned short all[2] = {6, 7};
        CHECK(op1(id, 0, 2, SEM_UNDO) == 0 && op1(id, 1, 2, SEM_UNDO) == 0);
        arg.array = all;
        CHECK(semctl(id, 0, SETALL, arg) == 0);
        _exit(0);
    }
    CHECK(ends(child) == 0 && value(id, 0) == 6 && value(id, 1) == 7);

    /* threads share the list, the end of one gives nothing back; fork does not share it */
    set(id, 0, 0);
    child = fork();
    if (!child) {
        pthread_t t;
        pthread_create(&t, 0, undoing_thread, (void *)(long)id);
        pthread_join(t, 0);
        CHECK(value(id, 0) == 4);
        if (!fork()) _exit(0);
        wait(0);
        CHECK(value(id, 0) == 4);
        char *stack = malloc(65536);
        pid_t other = clone(cloned, stack + 65536, CLONE_SYSVSEM | SIGCHLD, (void *)(long)id);
        CHECK(ends(other) == 0 && value(id, 0) == 6);
        other = clone(cloned, stack + 65536, SIGCHLD, (void *)(long)id);
        CHECK(ends(other) == 0 && value(id, 0) == 6);
        _exit(0);
    }
    CHECK(ends(child) == 0 && value(id, 0) == 0);
    child = fork();
    if (!child) {
        CHECK(op1(id, 0, 2, SEM_UNDO) == 0 && unshare(CLONE_SYSVSEM) == 0);
        _exit(value(id, 0));
    }
    CHECK(ends(child) == 0);

    /* it survives execve; death by signal does it, too */
    CHECK(pipe(gate) == 0);
    child = fork();
    if (!child) {
        CHECK(op1(id, 0, 3, SEM_UNDO) == 0);
        write(gate[1], "", 1);
        pause();
    }
    CHECK(read(gate[0], &c, 1) == 1 && value(id, 0) == 3);
    kill(child, SIGKILL);
    CHECK(ends(child) == 256 + SIGKILL && value(id, 0) == 0);
    child = fork();
    if (!child) {
        CHECK(op1(id, 0, 20000, SEM_UNDO) == 0 && op1(id, 0, -20000, 0) == 0);
        CHECK_ERR(op1(id, 0, 20000, SEM_UNDO), ERANGE);
        _exit(0);
    }
    CHECK(ends(child) == 0 && value(id, 0) == 0);
    CHECK(semctl(id, 0, IPC_RMID) == 0);
}

static void user(int id, int key) {
    if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000)) _exit(20);
    unsigned short all[2];
    CHECK(value(id, 0) == 4);
    arg.array = all;
    CHECK(semctl(id, 0, GETALL, arg) == 0);
    CHECK_ERR(semctl(id, 0, SETALL, arg), EACCES);
    arg.val = 1;
    CHECK_ERR(semctl(id, 0, SETVAL, arg), EACCES);
    CHECK_ERR(semctl(id, 7, SETVAL, arg), EINVAL);
    CHECK_ERR(op1(id, 0, 1, 0), EACCES);
    CHECK_ERR(op1(id, 5, 1, 0), EFBIG);
    CHECK_ERR(op1(id, 0, 0, IPC_NOWAIT), EAGAIN);
    CHECK_ERR(semctl(id, 0, IPC_RMID), EPERM);
    arg.buf = &ds;
    CHECK(semctl(id, 0, IPC_STAT, arg) == 0);
    CHECK_ERR(semctl(id, 0, IPC_SET, arg), EPERM);
    CHECK_ERR(semget(key, 0, 0600), EACCES);
    int mine = semget(IPC_PRIVATE, 1, 0);
    CHECK_ERR(semctl(mine, 0, IPC_STAT, arg), EACCES);
    CHECK_ERR(semctl(mine % 32768, 0, SEM_STAT, arg), EACCES);
    CHECK(semctl(mine % 32768, 0, SEM_STAT_ANY, arg) == mine);
    CHECK_ERR(value(mine, 0), EACCES);
    CHECK_ERR(value(mine, 1), EACCES);
    CHECK(semctl(mine, 0, IPC_RMID) == 0);
    _exit(0);
}

static void rights(void) {
    key_t key = 0x54000000 | getpid();
    int id = semget(key, 2, IPC_CREAT | 0644);
    CHECK(id >= 0);
    set(id, 0, 4);
    pid_t child = fork();
    if (!child) user(id, key);
    CHECK(ends(child) == 0);
    arg.buf = &ds;
    CHECK(semctl(id, 0, IPC_STAT, arg) == 0);
    ds.sem_perm.uid = 1000;
    ds.sem_perm.gid = 7;
    ds.sem_perm.mode = 07600;
    CHECK(semctl(id, 0, IPC_SET, arg) == 0);
    memset(&ds, 0, sizeof ds);
    CHECK(semctl(id, 0, IPC_STAT, arg) == 0);
    CHECK(ds.sem_perm.uid == 1000 && ds.sem_perm.gid == 7 && ds.sem_perm.mode == 0600);
    child = fork();
    if (!child) {
        setresuid(1000, 1000, 1000);
        _exit(semctl(id, 0, IPC_RMID) ? errno : 0);
    }
    CHECK(ends(child) == 0);
}

static void information(void) {
    int id = make(5);
    struct seminfo info;
    arg.info = &info;
    int highest = semctl(0, 0, IPC_INFO, arg);
    CHECK(highest >= id % 32768);
    CHECK(info.semmsl == 32000 && info.semmns == 1024000000 && info.semopm == 500);
    CHECK(info.semmni == 32000 && info.semvmx == 32767 && info.semaem == 32767);
    CHECK(info.semmnu == 1024000000 && info.semmap == 1024000000 && info.semume == 500);
    CHECK(info.semusz == 20);
    CHECK(semctl(0, 0, SEM_INFO, arg) == highest);
    CHECK(info.semusz >= 1 && info.semusz < 32000 && info.semaem >= 5);
    arg.buf = &ds;
    CHECK(semctl(id % 32768, 0, SEM_STAT, arg) == id && ds.sem_nsems == 5);
    CHECK_ERR(semctl(highest + 1, 0, SEM_STAT, arg), EINVAL);
    arg.buf = (void *)8;
    CHECK_ERR(semctl(id, 0, IPC_STAT, arg), EFAULT);
    CHECK_ERR(semctl(id, 0, IPC_SET, arg), EFAULT);
    char line[256];
    int found = 0;
    FILE *table = fopen("/proc/sysvipc/sem", "r");
    CHECK(table && fgets(line, sizeof line, table) && strstr(line, "nsems"));
    while (fgets(line, sizeof line, table)) {
        long key, number, mode, count;
        CHECK(sscanf(line, "%ld %ld %lo %ld", &key, &number, &mode, &count) == 4);
        found |= number == id && mode == 0600 && count == 5;
    }
    fclose(table);
    CHECK(found);
    CHECK(semctl(id, 0, IPC_RMID) == 0);
}

int main(void) {
    getting();
    values();
    operating();
    waiting();
    undoing();
    rights();
    information();
    return 0;
}
