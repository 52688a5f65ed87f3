/* /proc/PID/loginuid and sessionid: what pam_loginuid writes and a session's programs keep. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNSET 4294967295u
static const char LOGIN[] = "/proc/thread-self/loginuid";
static const char SESSION[] = "/proc/thread-self/sessionid";

static unsigned number(const char *path)
{
    char text[32] = {0};
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    CHECK(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    CHECK(strchr(text, '\n') == NULL);
    return strtoul(text, NULL, 10);
}

/* 0, or the errno. */
static int put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0);
    ssize_t n = write(fd, text, strlen(text));
    int error = n < 0 ? errno : 0;
    CHECK(n < 0 || n == (ssize_t)strlen(text));
    close(fd);
    return error;
}

static void capability(int number, int on)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    CHECK(syscall(SYS_capget, &head, sets) == 0);
    unsigned bit = 1u << number % 32;
    sets[number / 32].effective &= ~bit;
    if (on)
        sets[number / 32].effective |= bit;
    CHECK(syscall(SYS_capset, &head, sets) == 0);
}

/* Each case in a process of its own that has not been given a login. */
static void in_child(void (*test)(void))
{
    pid_t pid = fork();
    if (!pid) {
        if (number(LOGIN) != UNSET)
            CHECK(put(LOGIN, "4294967295") == 0);
        CHECK(number(LOGIN) == UNSET && number(SESSION) == UNSET);
        test();
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
}

static void unset_one_may_be_set_by_anybody(void)
{
    capability(CAP_AUDIT_CONTROL, 0);
    CHECK(put(LOGIN, "1234") == 0);
    CHECK(number(LOGIN) == 1234 && number("/proc/self/loginuid") == 1234);
    CHECK(number(SESSION) != UNSET);
}

static void set_one_needs_the_capability(void)
{
    CHECK(put(LOGIN, "1234") == 0);
    unsigned first = number(SESSION);
    capability(CAP_AUDIT_CONTROL, 0);
    CHECK(put(LOGIN, "1234") == EPERM);
    CHECK(put(LOGIN, "4294967295") == EPERM);
    CHECK(number(LOGIN) == 1234 && number(SESSION) == first);
    capability(CAP_AUDIT_CONTROL, 1);
    CHECK(put(LOGIN, "1234") == 0);
    CHECK(number(SESSION) != first && number(SESSION) != UNSET);
    CHECK(put(LOGIN, "4294967295") == 0);
    CHECK(number(LOGIN) == UNSET && number(SESSION) == UNSET);
}

static void *thread_sees_its_own(void *given)
{
    CHECK(number(LOGIN) == 7 && number("/proc/self/loginuid") == 7);
    CHECK(number(SESSION) == *(unsigned *)given);
    CHECK(put(LOGIN, "8") == 0);
    CHECK(number(LOGIN) == 8 && number("/proc/self/loginuid") == 7);
    char main_thread[64];
    sprintf(main_thread, "/proc/self/task/%d/loginuid", getpid());
    CHECK(put(main_thread, "9") == EPERM); /* a thread's own only */
    CHECK(put("/proc/self/loginuid", "9") == EPERM);
    return NULL;
}

static void children_threads_and_programs_keep_it(void)
{
    CHECK(put(LOGIN, "7") == 0);
    unsigned session = number(SESSION);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, thread_sees_its_own, &session) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(number(LOGIN) == 7);
    int inherited = open("/proc/self/loginuid", O_WRONLY);
    pid_t pid = fork();
    if (!pid) {
        char parents[64];
        sprintf(parents, "/proc/%d/loginuid", getppid());
        CHECK(number(LOGIN) == 7 && number(SESSION) == session);
        CHECK(put(parents, "9") == EPERM);
        CHECK_ERR(write(inherited, "9", 1), EPERM); /* it is about who writes, not who opened */
        char expected[64];
        sprintf(expected, "%u", session);
        execl("/proc/self/exe", "again", "7", expected, NULL);
        _exit(9);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(number(LOGIN) == 7);
}

static void text_is_a_decimal_number_at_the_beginning(void)
{
    static const char *const wrong[] = {"x", "-1", " 10", "10 ", "0x10", "10x", "1\n2", "+-1", "\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(put(LOGIN, wrong[i]) == EINVAL);
    CHECK(put(LOGIN, "4294967296") == ERANGE);
    CHECK(put(LOGIN, "99999999999999999999999") == ERANGE);
    CHECK(number(LOGIN) == UNSET);
    int fd = open(LOGIN, O_RDWR);
    CHECK(fd >= 0);
    CHECK_ERR(write(fd, "", 0), EINVAL);
    CHECK_ERR(pwrite(fd, "10", 2, 1), EINVAL);
    CHECK(pwrite(fd, "10", 2, 0) == 2);
    CHECK(number(LOGIN) == 10);
    CHECK(write(fd, "11\n", 3) == 3);
    CHECK(write(fd, "+012", 4) == 4); /* the position does not move */
    CHECK(number(LOGIN) == 12);
    char text[16];
    CHECK(read(fd, text, sizeof text) == 2 && !memcmp(text, "12", 2));
    CHECK(read(fd, text, sizeof text) == 0);
    CHECK_ERR(write(fd, "13", 2), EINVAL);
    CHECK(pread(fd, text, sizeof text, 1) == 1 && text[0] == '2');
    CHECK(put(SESSION, "1") == EINVAL);
}

static void ids_are_those_of_the_user_namespace(void)
{
    CHECK(put(LOGIN, "77") == 0);
    int outside = open(LOGIN, O_RDWR);
    CHECK(unshare(CLONE_NEWUSER) == 0);
    CHECK(number(LOGIN) == UNSET); /* has no number here */
    char text[16] = {0};
    CHECK(read(outside, text, sizeof text) == 2 && !memcmp(text, "77", 2));
}

static void id_without_a_number_in_the_namespace_is_refused(void)
{
    CHECK(unshare(CLONE_NEWUSER) == 0);
    CHECK(put(LOGIN, "77") == EINVAL);
    CHECK(number(LOGIN) == UNSET);
    CHECK(put("/proc/self/uid_map", "5 0 1") == 0);
    CHECK(put(LOGIN, "5") == 0);
    CHECK(number(LOGIN) == 5 && number(SESSION) != UNSET);
    CHECK(put(LOGIN, "5") == EPERM); /* capable in the first namespace is meant */
}

int main(int argc, char **argv)
{
    if (argc == 3) {
        CHECK(number(LOGIN) == strtoul(argv[1], NULL, 10));
        CHECK(number(SESSION) == strtoul(argv[2], NULL, 10));
        return 0;
    }
    in_child(unset_one_may_be_set_by_anybody);
    in_child(set_one_needs_the_capability);
    in_child(children_threads_and_programs_keep_it);
    in_child(text_is_a_decimal_number_at_the_beginning);
    in_child(ids_are_those_of_the_user_namespace);
    in_child(id_without_a_number_in_the_namespace_is_refused);
    return 0;
}
