/* /proc and /sys of the whole system. */
#define _GNU_SOURCE
#include "abi.h"
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char text[262144];

static ssize_t slurp(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -1;
    ssize_t n, total = 0;
    while ((n = read(fd, text + total, sizeof text - 1 - total)) > 0)
        total += n;
    close(fd);
    text[total > 0 ? total : 0] = 0;
    return n < 0 ? -1 : total;
}

static long field(const char *name)
{
    char *at = strstr(text, name);
    CHECK(at != NULL);
    return strtol(at + strlen(name), NULL, 0);
}

static int count(const char *word)
{
    int n = 0;
    for (char *at = text; (at = strstr(at, word)); at++)
        n++;
    return n;
}

static void memory(void)
{
    CHECK(slurp("/proc/meminfo") > 0 && strncmp(text, "MemTotal:       ", 16) == 0);
    long total = field("MemTotal:"), free = field("MemFree:");
    CHECK(total > 0 && free > 0 && free <= total && field("MemAvailable:") <= total);
    CHECK(field("SwapTotal:") >= 0 && field("Hugepagesize:") == 2048);
    struct sysinfo info;
    CHECK(sysinfo(&info) == 0);
    CHECK(labs((long)(info.totalram * info.mem_unit / 1024) - total) < total / 100 + 1024);
    CHECK(slurp("/proc/vmstat") > 0 && strncmp(text, "nr_free_pages ", 14) == 0);
    CHECK(slurp("/proc/swaps") > 0 && strncmp(text, "Filename", 8) == 0);
}

static void cpus(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    CHECK(slurp("/proc/cpuinfo") > 0);
    CHECK(count("processor\t: ") == online);
    CHECK(strstr(text, "\nflags\t\t: fpu ") && strstr(text, " sse2 "));
    CHECK(slurp("/proc/stat") > 0 && strncmp(text, "cpu  ", 5) == 0);
    CHECK(count("cpu") == online + 1);
    long boot = field("\nbtime ");
    struct timespec now, up;
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &up);
    CHECK(labs(now.tv_sec - up.tv_sec - boot) <= 1);
    CHECK(slurp("/proc/uptime") > 0);
    CHECK(labs(atol(text) - up.tv_sec) <= 1);
    CHECK(slurp("/proc/loadavg") > 0 && strchr(text, '/'));
    CHECK(slurp("/sys/devices/system/cpu/online") > 0 && text[0] == '0');
    CHECK(slurp("/sys/devices/system/cpu/possible") > 0);
    CHECK(slurp("/sys/devices/system/cpu/cpu0/topology/core_id") > 0);
    CHECK(slurp("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list") > 0);
}

static void names(void)
{
    struct utsname name;
    CHECK(uname(&name) == 0);
    CHECK(slurp("/proc/version") > 0 && strncmp(text, "Linux version ", 14) == 0);
    CHECK(strncmp(text + 14, name.release, strlen(name.release)) == 0);
    CHECK(slurp("/proc/sys/kernel/osrelease") == strlen(name.release) + 1);
    CHECK(strncmp(text, name.release, strlen(name.release)) == 0);
    CHECK(slurp("/proc/sys/kernel/ostype") > 0 && strcmp(text, "Linux\n") == 0);
    CHECK(slurp("/proc/sys/kernel/hostname") > 0);
    CHECK(strncmp(text, name.nodename, strlen(name.nodename)) == 0);
    CHECK(slurp("/proc/filesystems") > 0 && strstr(text, "nodev\tproc\n"));
    CHECK(slurp("/proc/cmdline") > 0);
    CHECK(slurp("/proc/devices") > 0 && strstr(text, "Character devices:"));
}

static void sysctls(void)
{
    char first[64];
    CHECK(slurp("/proc/sys/kernel/random/uuid") == 37);
    strcpy(first, text);
    CHECK(slurp("/proc/sys/kernel/random/uuid") == 37 && strcmp(first, text) != 0);
    CHECK(slurp("/proc/sys/kernel/random/boot_id") == 37);
    strcpy(first, text);
    CHECK(slurp("/proc/sys/kernel/random/boot_id") == 37 && strcmp(first, text) == 0);
    CHECK(slurp("/proc/sys/kernel/cap_last_cap") == 3 && atoi(text) == 40);
    CHECK(slurp("/proc/sys/kernel/pid_max") > 0 && atoi(text) >= 32768);
    CHECK(slurp("/proc/sys/kernel/ngroups_max") > 0 && atoi(text) == 65536);
    CHECK(slurp("/proc/sys/vm/overcommit_memory") == 2);
    CHECK(slurp("/proc/sys/vm/max_map_count") > 0 && atoi(text) >= 65530);
    CHECK(slurp("/proc/sys/fs/nr_open") > 0 && atoi(text) == 1048576);
    CHECK(slurp("/proc/sys/fs/pipe-max-size") > 0 && atoi(text) == 1048576);
    CHECK(slurp("/proc/sys/net/core/somaxconn") > 0);
    CHECK(slurp("/proc/sys/net/ipv4/ip_local_port_range") > 0 && strchr(text, '\t'));
    CHECK_ERR(open("/proc/sys/kernel/ostype", O_CREAT | O_EXCL | O_WRONLY, 0600), EEXIST);
    struct stat st;
    CHECK(stat("/proc/sys/kernel/osrelease", &st) == 0);
    CHECK((st.st_mode & 0777) == 0444 && st.st_size == 0 && S_ISREG(st.st_mode));
}

/* kernel.sysctl_writes_strict: a string goes on where it is written, a number does not */
static void positions(void)
{
    char many[100];
    if (fork() == 0) {
        CHECK(unshare(CLONE_NEWUTS) == 0);
        CHECK(mkdir("fresh", 0700) == 0 && mount("proc", "fresh", "proc", 0, "") == 0);
        int name = open("fresh/sys/kernel/hostname", O_RDWR);
        CHECK(write(name, "one", 3) == 3 && write(name, "two\nthree", 9) == 9);
        CHECK(slurp("/proc/sys/kernel/hostname") == 7 && strcmp(text, "onetwo\n") == 0);
        CHECK(pwrite(name, "X", 1, 3) == 1);
        CHECK(slurp("/proc/sys/kernel/hostname") == 5 && strcmp(text, "oneX\n") == 0);
        CHECK(pwrite(name, "Y", 1, 5) == 1);
        CHECK(slurp("/proc/sys/kernel/hostname") == 5 && strcmp(text, "oneX\n") == 0);
        CHECK(pwrite(name, "Y", 1, 4) == 1);
        CHECK(slurp("/proc/sys/kernel/hostname") == 6 && strcmp(text, "oneXY\n") == 0);
        CHECK(pwrite(name, " a ", 3, 0) == 3);
        CHECK(slurp("/proc/sys/kernel/hostname") == 4 && strcmp(text, " a \n") == 0);
        memset(many, 'z', sizeof many);
        CHECK(pwrite(name, many, sizeof many, 1) == sizeof many);
        CHECK(slurp("/proc/sys/kernel/hostname") == 65 && text[0] == ' ' && text[63] == 'z');
        int number = open("fresh/sys/kernel/pid_max", O_WRONLY);
        CHECK(pwrite(number, "junk", 4, 1) == 4);
        CHECK_ERR(pwrite(number, "junk", 4, 0), EINVAL);
        close(name), close(number);
        CHECK(umount("fresh") == 0 && rmdir("fresh") == 0);
        _exit(0);
    }
    wait(0);
}

static void tables(void)
{
    CHECK(slurp("/proc/net/dev") > 0 && strncmp(text, "Inter-|   Receive", 17) == 0);
    CHECK(slurp("/proc/net/tcp") > 0 && strncmp(text, "  sl  local_address", 19) == 0);
    CHECK(slurp("/proc/net/unix") > 0 && strncmp(text, "Num       RefCount", 18) == 0);
    CHECK(slurp("/proc/sysvipc/shm") > 0 && strncmp(text, "       key      shmid", 21) == 0);
    CHECK(slurp("/proc/mounts") > 0 && strstr(text, " /proc proc "));
    CHECK(slurp("/proc/partitions") >= 0);
}

static void seeking(void)
{
    int fd = open("/proc/version", O_RDONLY);
    char a[8], b[8];
    CHECK(fd >= 0 && read(fd, a, 8) == 8 && read(fd, b, 8) == 8);
    CHECK(lseek(fd, 0, SEEK_SET) == 0 && read(fd, b, 8) == 8 && memcmp(a, b, 8) == 0);
    CHECK(pread(fd, b, 3, 5) == 3 && memcmp(a + 5, b, 3) == 0);
    CHECK(lseek(fd, 100000, SEEK_SET) == 100000 && read(fd, a, 1) == 0);
    close(fd);
    CHECK(open("/proc/version", O_WRONLY) == -1 || getuid() == 0);
    CHECK_ERR(unlink("/proc/version"), EPERM);
    CHECK_ERR(mkdir("/proc/x", 0700), ENOENT);
}

static void directories(void)
{
    struct statfs fs;
    CHECK(statfs("/proc", &fs) == 0 && fs.f_type == 0x9fa0);
    CHECK(statfs("/sys", &fs) == 0 && fs.f_type == 0x62656572);
    DIR *dir = opendir("/proc");
    int self = 0, me = 0, meminfo = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        self += strcmp(e->d_name, "self") == 0 && e->d_type == DT_LNK;
        me += atoi(e->d_name) == getpid() && e->d_type == DT_DIR;
        if (strcmp(e->d_name, "meminfo") == 0) {
            meminfo++;
            CHECK(fstatat(dirfd(dir), "meminfo", &st, 0) == 0 && st.st_ino == e->d_ino);
        }
    }
    closedir(dir);
    CHECK(self == 1 && me == 1 && meminfo == 1);
    CHECK(access("/sys/class/net/lo/mtu", F_OK) == 0 && access("/sys/fs/cgroup", F_OK) == 0);
    CHECK(slurp("/sys/class/net/lo/address") > 0 && strcmp(text, "00:00:00:00:00:00\n") == 0);
}

/* Programs that want to know which features there are read it with zcat(1). */
static void configuration(void)
{
    CHECK(slurp("/proc/config.gz") > 100);
    CHECK(memcmp(text, "\x1f\x8b\x08", 3) == 0);
}

static void uptime(void)
{
    struct timespec before, after;
    long seconds, hundredths;

    CHECK(clock_gettime(CLOCK_BOOTTIME, &before) == 0);
    slurp("/proc/uptime");
    CHECK(clock_gettime(CLOCK_BOOTTIME, &after) == 0);
    CHECK(sscanf(text, "%ld.%2ld ", &seconds, &hundredths) == 2);
    long shown = seconds * 100 + hundredths;
    CHECK(shown >= before.tv_sec * 100 + before.tv_nsec / 10000000);
    CHECK(shown <= after.tv_sec * 100 + after.tv_nsec / 10000000);
    struct sysinfo info;
    CHECK(sysinfo(&info) == 0 && info.uptime >= seconds + (hundredths > 0)); /* rounded up */
}

/* Java has container support where these four have the same kind of hierarchy, and are enabled. */
static void controllers(void)
{
    const char *names[] = {"\ncpuset\t", "\ncpu\t", "\ncpuacct\t", "\nmemory\t"};
    CHECK(slurp("/proc/cgroups") > 0);
    CHECK(strncmp(text, "#subsys_name\thierarchy\tnum_cgroups\tenabled\n", 43) == 0);
    for (int i = 0; i < 4; i++) {
        int hierarchy, number, enabled;
        char *row = strstr(text, names[i]);
        CHECK(row && sscanf(row + 1, "%*s %d %d %d", &hierarchy, &number, &enabled) == 3);
        CHECK(number > 0 && enabled == 1);
    }
}

/* A mount of /proc with nothing but processes. */
static void processes_alone(void)
{
    char name[] = "/tmp/procXXXXXX", path[64];
    int processes = 0, links = 0;

    if (unshare(CLONE_NEWNS) < 0)
        return;
    CHECK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mkdtemp(name) != NULL);
    CHECK_ERR(mount("proc", name, "proc", 0, "subset=other"), EINVAL);
    CHECK(mount("proc", name, "proc", 0, "subset=pid") == 0);
    DIR *dir = opendir(name);
    for (struct dirent *e; (e = readdir(dir));) {
        if (atoi(e->d_name))
            processes++;
        else if (e->d_name[0] != '.')
            links++;
    }
    closedir(dir);
    CHECK(processes > 0 && links == 2);
    snprintf(path, sizeof path, "%s/meminfo", name);
    CHECK_ERR(access(path, F_OK), ENOENT);
    snprintf(path, sizeof path, "%s/sys", name);
    CHECK_ERR(access(path, F_OK), ENOENT);
    snprintf(path, sizeof path, "%s/self/stat", name);
    CHECK(access(path, F_OK) == 0);
    CHECK(umount(name) == 0 && rmdir(name) == 0);
}

int main(void)
{
    memory();
    cpus();
    names();
    sysctls();
    positions();
    tables();
    seeking();
    directories();
    configuration();
    uptime();
    controllers();
    processes_alone();
    return 0;
}
