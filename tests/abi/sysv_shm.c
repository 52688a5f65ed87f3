/* System V shared memory: shmget(2), shmat(2), shmctl(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define BAD ((void *)-1)
#ifndef SHM_STAT_ANY
#define SHM_STAT_ANY 15
#endif

static struct shmid_ds ds;

static long attached(int id) {
    CHECK(shmctl(id, IPC_STAT, &ds) == 0);
    return ds.shm_nattch;
}

static int status_of(void (*run)(int), int id) {
    int status;
    pid_t child = fork();
    if (!child) {
        run(id);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void getting(void) {
    key_t key = 0x51000000 | getpid();
    CHECK_ERR(shmget(key, PAGE, 0), ENOENT);
    CHECK_ERR(shmget(key, 0, IPC_CREAT | 0600), EINVAL);
    CHECK_ERR(shmget(IPC_PRIVATE, 0, 0600), EINVAL);
    int id = shmget(key, 100, IPC_CREAT | IPC_EXCL | 0640);
    CHECK(id >= 0);
    CHECK(shmget(key, 0, 0) == id);
    CHECK(shmget(key, 100, 0) == id);
    CHECK(shmget(key, 50, IPC_CREAT) == id);
    CHECK_ERR(shmget(key, 101, 0), EINVAL);
    CHECK_ERR(shmget(key, 101, IPC_CREAT), EINVAL);
    CHECK_ERR(shmget(key, 100, IPC_CREAT | IPC_EXCL), EEXIST);
    CHECK_ERR(shmget(key, 101, IPC_CREAT | IPC_EXCL), EEXIST);
    CHECK_ERR(shmget(IPC_PRIVATE, PAGE, SHM_HUGETLB | (5 << 26) | 0600), EINVAL);
    CHECK_ERR(shmget(IPC_PRIVATE, (size_t)-1, 0600), EINVAL);
    CHECK(shmctl(id, IPC_STAT, &ds) == 0);
    CHECK(ds.shm_segsz == 100 && ds.shm_nattch == 0 && ds.shm_cpid == getpid());
    CHECK(ds.shm_lpid == 0 && ds.shm_atime == 0 && ds.shm_dtime == 0);
    CHECK(ds.shm_ctime <= time(0) && ds.shm_ctime >= time(0) - 100);
    CHECK(ds.shm_perm.__key == key && ds.shm_perm.mode == 0640);
    CHECK(ds.shm_perm.uid == getuid() && ds.shm_perm.cuid == getuid());
    CHECK(ds.shm_perm.gid == getgid() && ds.shm_perm.cgid == getgid());
    CHECK(ds.shm_perm.__seq == id / 32768);
    int other = shmget(IPC_PRIVATE, PAGE, 0600);
    CHECK(other >= 0 && other != id);
    CHECK(shmctl(other, IPC_RMID, 0) == 0);
    CHECK_ERR(shmctl(other, IPC_RMID, 0), EINVAL);
    CHECK_ERR(shmctl(other, IPC_STAT, &ds), EINVAL);
    CHECK(shmctl(id, IPC_RMID, 0) == 0);
    CHECK_ERR(shmget(key, 100, 0), ENOENT);
    int again = shmget(key, 100, IPC_CREAT | 0640);
    CHECK(again >= 0 && again != id);
    CHECK(shmctl(again, IPC_RMID, 0) == 0);
}

static void child_uses(int id) {
    int *map = shmat(id, 0, 0);
    if (map == BAD || attached(id) != 3) _exit(1);
    if (map[0] != 42) _exit(2);
    map[1] = 43;
    _exit(attached(id) == 3 && ds.shm_lpid == getpid() ? 7 : 3);
}

static void attaching(void) {
    int id = shmget(IPC_PRIVATE, 3 * PAGE - 100, 0600);
    CHECK(id >= 0);
    int *map = shmat(id, 0, 0);
    CHECK(map != BAD && ((long)map & (PAGE - 1)) == 0);
    CHECK(map[0] == 0 && map[3 * PAGE / 4 - 1] == 0);
    CHECK(attached(id) == 1 && ds.shm_lpid == getpid() && ds.shm_atime >= ds.shm_ctime);
    map[0] = 42;
    int *second = shmat(id, 0, SHM_RDONLY);
    CHECK(second != BAD && second != map && second[0] == 42);
    CHECK(attached(id) == 2);
    CHECK_ERR(mprotect(second, PAGE, PROT_READ | PROT_WRITE), EACCES);
    CHECK(shmdt(second) == 0 && attached(id) == 1 && ds.shm_dtime >= ds.shm_ctime);
    CHECK_ERR(shmdt(second), EINVAL);
    CHECK_ERR(shmdt((char *)map + 1), EINVAL);
    CHECK_ERR(shmdt((char *)map + PAGE), EINVAL);

    /* fork inherits, exit drops */
    CHECK(status_of(child_uses, id) == 7 << 8);
    CHECK(map[1] == 43 && attached(id) == 1);

    /* where */
    char *place = mmap(0, 16 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(place != MAP_FAILED);
    CHECK_ERR((long)shmat(id, place, 0), EINVAL);
    CHECK_ERR((long)shmat(id, place + 1, 0), EINVAL);
    CHECK_ERR((long)shmat(id, 0, SHM_REMAP), EINVAL);
    CHECK_ERR((long)shmat(id, (void *)100, SHM_REMAP | SHM_RND), EINVAL);
    CHECK(shmat(id, place + PAGE, SHM_REMAP) == place + PAGE);
    CHECK(*(int *)(place + PAGE) == 42 && attached(id) == 2);
    CHECK(shmdt(place + PAGE) == 0 && attached(id) == 1);
    CHECK(munmap(place, 16 * PAGE) == 0);
    CHECK(shmat(id, place + 100, SHM_RND) == place);
    CHECK_ERR((long)shmat(id, place + PAGE, 0), EINVAL);
    /* unmapping a part leaves an attachment, one in the middle makes two of it */
    CHECK(munmap(place + PAGE, PAGE) == 0 && attached(id) == 3);
    CHECK(shmdt(place) == 0 && attached(id) == 1);
    CHECK(shmat(id, place, 0) == place);
    CHECK(munmap(place, PAGE) == 0 && attached(id) == 2);
    CHECK(shmdt(place) == 0 && attached(id) == 1);
    CHECK(shmat(id, place, SHM_EXEC) == place);
    CHECK(mprotect(place + PAGE, PAGE, PROT_READ) == 0 && attached(id) == 4);
    CHECK(mprotect(place + PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
    CHECK(munmap(place, 3 * PAGE) == 0 && attached(id) == 1);

    CHECK_ERR((long)shmat(-1, 0, 0), EINVAL);
    CHECK_ERR((long)shmat(id + 32768, 0, 0), EINVAL);

    /* removed, but still in use */
    CHECK(shmctl(id, IPC_RMID, 0) == 0);
    CHECK(attached(id) == 1 && ds.shm_perm.mode == (0600 | SHM_DEST) && ds.shm_perm.__key == 0);
    CHECK(shmat(id, place, 0) == place && attached(id) == 2);
    CHECK(shmdt(place) == 0 && map[0] == 42);
    CHECK(shmdt(map) == 0);
    CHECK_ERR(shmctl(id, IPC_STAT, &ds), EINVAL);
}

static void as_nobody(int id) {
    if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000)) _exit(20);
    if (shmat(id, 0, 0) != BAD || errno != EACCES) _exit(1);
    if (shmat(id, 0, SHM_RDONLY) == BAD) _exit(2);
    if (shmat(id, 0, SHM_RDONLY | SHM_EXEC) != BAD || errno != EACCES) _exit(3);
    if (shmctl(id, IPC_STAT, &ds)) _exit(4);
    if (shmctl(id, IPC_RMID, 0) != -1 || errno != EPERM) _exit(5);
    if (shmctl(id, IPC_SET, &ds) != -1 || errno != EPERM) _exit(6);
    if (shmctl(id, SHM_LOCK, 0) != -1 || errno != EPERM) _exit(7);
    if (shmctl(id, SHM_UNLOCK, 0) != -1 || errno != EPERM) _exit(8);
    if (shmget(ds.shm_perm.__key, 0, 0600) != -1 || errno != EACCES) _exit(9);
    if (shmget(ds.shm_perm.__key, 0, 0400) != id) _exit(10);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_MEMLOCK, &none);
    int mine = shmget(IPC_PRIVATE, PAGE, 0);
    if (mine < 0) _exit(11);
    if (shmctl(mine, IPC_STAT, &ds) != -1 || errno != EACCES) _exit(12);
    if (shmctl(mine, SHM_STAT_ANY, &ds) == -1 && errno != EINVAL) _exit(13);
    if (shmctl(mine, SHM_LOCK, 0) != -1 || errno != EPERM) _exit(14);
    if (shmget(IPC_PRIVATE, PAGE, SHM_HUGETLB | 0600) != -1 || errno != EPERM) _exit(16);
    if (shmctl(mine, IPC_RMID, 0)) _exit(15);
    _exit(0);
}

static void owned_by_user(int id) {
    if (setresgid(2000, 2000, 2000) || setresuid(1001, 1001, 1001)) _exit(20);
    if (shmat(id, 0, 0) == BAD) _exit(1);
    if (shmctl(id, IPC_STAT, &ds)) _exit(2);
    ds.shm_perm.mode = 0600;
    if (shmctl(id, IPC_SET, &ds)) _exit(3);
    _exit(0);
}

static void rights(void) {
    int id = shmget(0x52000000 | getpid(), PAGE, IPC_CREAT | 0644);
    CHECK(id >= 0);
    CHECK(status_of(as_nobody, id) == 0);
    CHECK(attached(id) == 0);
    ds.shm_perm.uid = 1001;
    ds.shm_perm.gid = 1002;
    ds.shm_perm.mode = 07640;
    CHECK(shmctl(id, IPC_SET, &ds) == 0);
    CHECK(shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_perm.uid == 1001 && ds.shm_perm.gid == 1002);
    CHECK(ds.shm_perm.mode == 0640 && ds.shm_perm.cuid == 0);
    CHECK(status_of(owned_by_user, id) == 0);
    CHECK(shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_perm.mode == 0600);
    ds.shm_perm.uid = -1;
    CHECK_ERR(shmctl(id, IPC_SET, &ds), EINVAL);
    CHECK(shmctl(id, SHM_LOCK, 0) == 0);
    CHECK(shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_perm.mode == (0600 | SHM_LOCKED));
    CHECK(shmctl(id, SHM_UNLOCK, 0) == 0);
    CHECK(shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_perm.mode == 0600);
    CHECK(shmctl(id, IPC_RMID, 0) == 0);
}

static void information(void) {
    int id = shmget(IPC_PRIVATE, 5 * PAGE, 0600);
    struct shminfo limits;
    struct shm_info usage;
    int highest = shmctl(0, IPC_INFO, (void *)&limits);
    CHECK(highest >= 0 && limits.shmmni == 4096 && limits.shmseg == 4096 && limits.shmmin == 1);
    CHECK(limits.shmmax > 1UL << 40 && limits.shmall > 1UL << 40);
    CHECK(shmctl(0, SHM_INFO, (void *)&usage) == highest);
    CHECK(usage.used_ids >= 1 && usage.shm_tot >= 5 && usage.shm_swp == 0);
    CHECK(highest >= id % 32768);
    CHECK(shmctl(id % 32768, SHM_STAT, &ds) == id && ds.shm_segsz == 5 * PAGE);
    CHECK(shmctl(id % 32768, SHM_STAT_ANY, &ds) == id);
    CHECK_ERR(shmctl(highest + 1, SHM_STAT, &ds), EINVAL);
    CHECK_ERR(shmctl(id, IPC_STAT, (void *)1), EFAULT);
    CHECK_ERR(shmctl(id, IPC_SET, (void *)1), EFAULT);
    CHECK_ERR(shmctl(id, 99, &ds), EINVAL);
    CHECK_ERR(shmctl(-1, IPC_STAT, &ds), EINVAL);
    CHECK_ERR(syscall(SYS_shmctl, id, -1, &ds), EINVAL);

    char line[256], name[64], *map = shmat(id, 0, 0);
    int found = 0;
    FILE *table = fopen("/proc/sysvipc/shm", "r");
    CHECK(table && fgets(line, sizeof line, table) && strstr(line, "nattch"));
    while (fgets(line, sizeof line, table)) {
        long key, number, mode, size, cpid, lpid, n;
        CHECK(sscanf(line, "%ld %ld %lo %ld %ld %ld %ld", &key, &number, &mode, &size, &cpid,
                     &lpid, &n) == 7);
        if (number == id) {
            found = 1;
            CHECK(key == 0 && mode == 0600 && size == 5 * PAGE && cpid == getpid() && n == 1);
        }
    }
    fclose(table);
    CHECK(found);
    found = 0;
    table = fopen("/proc/self/maps", "r");
    sprintf(name, "%lx-%lx rw-s 00000000", (long)map, (long)map + 5 * PAGE);
    while (fgets(line, sizeof line, table))
        if (!strncmp(line, name, strlen(name))) {
            long inode;
            CHECK(strstr(line, "/SYSV00000000 (deleted)"));
            CHECK(sscanf(line, "%*s %*s %*s %*s %ld", &inode) == 1 && inode == id);
            found = 1;
        }
    fclose(table);
    CHECK(found);
    CHECK(shmctl(id, IPC_RMID, 0) == 0 && shmdt(map) == 0);
}

static int thread(void *map) {
    ((int *)map)[2] = 5;
    return 0;
}

static void lives(void) {
    int id = shmget(IPC_PRIVATE, PAGE, 0600), status;
    int *map = shmat(id, 0, 0);
    CHECK(map != BAD);
    /* MADV_DONTFORK, vfork, exec */
    CHECK(madvise(map, PAGE, MADV_DONTFORK) == 0);
    pid_t child = fork();
    if (!child) _exit(attached(id));
    CHECK(waitpid(child, &status, 0) == child && status == 1 << 8);
    CHECK(madvise(map, PAGE, MADV_DOFORK) == 0);
    int lock[2];
    CHECK(pipe(lock) == 0);
    child = fork();
    if (!child) {
        char c;
        read(lock[0], &c, 1);
        _exit(attached(id));
    }
    CHECK(attached(id) == 2 && write(lock[1], "", 1) == 1);
    CHECK(waitpid(child, &status, 0) == child && status == 2 << 8 && attached(id) == 1);
    CHECK(ds.shm_lpid == child);
    char *stack = malloc(65536);
    child = clone(thread, stack + 65536, CLONE_VM | SIGCHLD, map);
    CHECK(waitpid(child, &status, 0) == child && map[2] == 5 && attached(id) == 1);
    /* it moves */
    void *moved = mremap(map, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)map - 64 * PAGE);
    CHECK(moved == (char *)map - 64 * PAGE && ((int *)moved)[2] == 5 && attached(id) == 1);
    CHECK(shmdt(moved) == 0 && attached(id) == 0);
    CHECK(shmctl(id, IPC_RMID, 0) == 0);
}

static void exhausting(void) {
    static int ids[200];
    for (int i = 0; i < 200; i++) CHECK((ids[i] = shmget(IPC_PRIVATE, 1 << 20, 0600)) >= 0);
    for (int i = 0; i < 200; i++) CHECK(shmctl(ids[i], IPC_RMID, 0) == 0);
    size_t size = 256 << 20;
    int id = shmget(IPC_PRIVATE, size, 0600);
    char *map = shmat(id, 0, 0);
    CHECK(map != BAD);
    for (size_t at = 0; at < size; at += 32 << 20) map[at] = at >> 25;
    char *twin = shmat(id, 0, 0);
    for (size_t at = 0; at < size; at += 32 << 20) CHECK(twin[at] == at >> 25);
    CHECK(twin[size - 1] == 0);
    map[size - 1] = 9;
    CHECK(twin[size - 1] == 9);
    CHECK(shmctl(id, IPC_RMID, 0) == 0 && shmdt(map) == 0 && shmdt(twin) == 0);
}

int main(void) {
    getting();
    attaching();
    rights();
    information();
    lives();
    exhausting();
    return 0;
}
