/* Keys and keyrings: add_key(2), request_key(2), keyctl(2). */
#define _GNU_SOURCE
#include "abi.h"
#include <grp.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define SESSION KEY_SPEC_SESSION_KEYRING
#define BAD 8L

#ifndef ENOKEY
#define ENOKEY 126
#endif

static long add(const char *type, const char *name, const char *payload, long ring)
{
    return syscall(SYS_add_key, type, name, payload, payload ? strlen(payload) : 0, ring);
}

#define keyctl(...) syscall(SYS_keyctl, __VA_ARGS__)

static int described(long key, const char *end)
{
    char text[300];
    long length = keyctl(KEYCTL_DESCRIBE, key, text, sizeof text);
    return length > 0 && length == (long)strlen(text) + 1 &&
           strcmp(text + length - 1 - strlen(end), end) == 0;
}

static void sessions(void)
{
    CHECK(keyctl(KEYCTL_GET_KEYRING_ID, SESSION, 0) > 0);
    CHECK(described(SESSION, "_ses") || described(SESSION, "_uid_ses.0"));
    CHECK(keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0) > 0);
    CHECK(described(SESSION, ";3f030000;_ses"));
    CHECK(keyctl(KEYCTL_JOIN_SESSION_KEYRING, "abi-name") > 0);
    CHECK(described(SESSION, ";3f130000;abi-name"));
    CHECK_ERR(keyctl(KEYCTL_JOIN_SESSION_KEYRING, ".x"), EPERM);
    CHECK_ERR(keyctl(KEYCTL_JOIN_SESSION_KEYRING, BAD), EFAULT);
    CHECK_ERR(keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, 0), ENOKEY);
    CHECK(keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, 1) > 0);
    CHECK(described(KEY_SPEC_THREAD_KEYRING, ";3f010000;_tid"));
    CHECK_ERR(keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_GROUP_KEYRING, 0), EINVAL);
    CHECK_ERR(keyctl(KEYCTL_GET_KEYRING_ID, 0, 0), EINVAL);
    CHECK_ERR(keyctl(999, 0), EOPNOTSUPP);
    CHECK_ERR(keyctl(KEYCTL_DESCRIBE, SESSION, BAD, 100), EFAULT);
}

static void errors_of_add(void)
{
    CHECK_ERR(add("nosuch", "x", "p", SESSION), ENODEV);
    CHECK_ERR(add(".user", "x", "p", SESSION), EPERM);
    CHECK_ERR(add("", "x", "p", SESSION), EINVAL);
    CHECK_ERR(add("user", "", "p", SESSION), EINVAL);
    CHECK_ERR(add("user", "x", NULL, SESSION), EINVAL);
    CHECK_ERR(add("user", "x", "p", 0), EINVAL);
    CHECK_ERR(add("keyring", "r", "p", SESSION), EINVAL);
    CHECK_ERR(add("logon", "no-prefix", "p", SESSION), EINVAL);
    CHECK_ERR(syscall(SYS_add_key, BAD, "x", "p", 1, SESSION), EFAULT);
    CHECK_ERR(syscall(SYS_add_key, "user", BAD, "p", 1, SESSION), EFAULT);
    CHECK_ERR(syscall(SYS_add_key, "user", "x", BAD, 1, SESSION), EFAULT);
    CHECK_ERR(syscall(SYS_add_key, "user", "x", "p", 1 << 21, SESSION), EINVAL);
}

static void contents(long key)
{
    char data[20] = {0};
    CHECK(keyctl(KEYCTL_READ, key, data, sizeof data) == 7 && strcmp(data, "payload") == 0);
    CHECK(keyctl(KEYCTL_READ, key, NULL, 0) == 7);
    CHECK_ERR(keyctl(KEYCTL_READ, key, BAD, 7), EFAULT);
    CHECK(keyctl(KEYCTL_UPDATE, key, "new", 3) == 0);
    CHECK(keyctl(KEYCTL_READ, key, data, sizeof data) == 3);
    CHECK(add("user", "a", "payload", SESSION) == key);
    CHECK_ERR(keyctl(KEYCTL_UPDATE, key, "", 0), EINVAL);
    CHECK_ERR(add("user", "x", "p", key), ENOTDIR);
    long logon = add("logon", "abi:secret", "p", SESSION);
    CHECK(logon > 0);
    CHECK_ERR(keyctl(KEYCTL_READ, logon, data, sizeof data), EOPNOTSUPP);
}

static void links(long key)
{
    int serial = 0;
    long ring = add("keyring", "ring", NULL, SESSION), other = add("keyring", "two", NULL, SESSION);
    CHECK(ring > 0 && keyctl(KEYCTL_LINK, key, ring) == 0);
    CHECK_ERR(keyctl(KEYCTL_LINK, ring, ring), EDEADLK);
    CHECK_ERR(keyctl(KEYCTL_LINK, key, key), ENOTDIR);
    CHECK(keyctl(KEYCTL_READ, ring, &serial, 4) == 4 && serial == key);
    CHECK(keyctl(KEYCTL_SEARCH, ring, "user", "a", 0) == key);
    CHECK_ERR(keyctl(KEYCTL_SEARCH, ring, "user", "none", 0), ENOKEY);
    CHECK(syscall(SYS_request_key, "user", "a", NULL, 0) == key);
    CHECK_ERR(syscall(SYS_request_key, "user", "none", NULL, 0), ENOKEY);
    CHECK(keyctl(KEYCTL_MOVE, key, ring, other, 0) == 0);
    CHECK_ERR(keyctl(KEYCTL_MOVE, key, ring, other, 0), ENOENT);
    CHECK(keyctl(KEYCTL_UNLINK, key, other) == 0);
    CHECK_ERR(keyctl(KEYCTL_UNLINK, key, other), ENOENT);
    CHECK_ERR(keyctl(KEYCTL_CLEAR, key), ENOTDIR);
    CHECK_ERR(keyctl(KEYCTL_RESTRICT_KEYRING, key, "user", "x"), ENOTDIR);
    CHECK_ERR(keyctl(KEYCTL_RESTRICT_KEYRING, ring, "user", NULL), EINVAL);
    CHECK_ERR(keyctl(KEYCTL_RESTRICT_KEYRING, ring, NULL, "x"), EINVAL);
    CHECK_ERR(keyctl(KEYCTL_RESTRICT_KEYRING, ring, "user", "x"), ENOENT);
    CHECK_ERR(keyctl(KEYCTL_RESTRICT_KEYRING, ring, "nosuch", "x"), ENOKEY);
    CHECK(keyctl(KEYCTL_RESTRICT_KEYRING, ring, NULL, NULL) == 0);
    CHECK_ERR(add("user", "in", "p", ring), EPERM);
}

static void rights(long key)
{
    CHECK_ERR(keyctl(KEYCTL_SETPERM, key, 0xffffffff), EINVAL);
    CHECK(keyctl(KEYCTL_SETPERM, key, 0x3f010000) == 0);
    int status;
    pid_t child = fork();
    if (child == 0) {
        CHECK(syscall(SYS_request_key, "user", "a", NULL, 0) == key);
        CHECK(setgroups(0, NULL) == 0 && setgid(1234) == 0 && setuid(1234) == 0);
        CHECK(keyctl(KEYCTL_READ, key, NULL, 0) > 0);
        CHECK_ERR(keyctl(KEYCTL_SETPERM, key, 0x3f000000), EACCES);
        CHECK(keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0) > 0);
        CHECK_ERR(keyctl(KEYCTL_READ, key, NULL, 0), EACCES);
        CHECK_ERR(syscall(SYS_request_key, "user", "a", NULL, 0), ENOKEY);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* /proc/keys, which runtimes hide: in another mount of /proc. */
static void shown(int serial)
{
    char line[200], path[64], folder[] = "/tmp/keysXXXXXX";
    int status;
    pid_t child = fork();
    if (child == 0) {
        CHECK(unshare(CLONE_NEWNS) == 0 && mkdtemp(folder) != NULL);
        CHECK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
        CHECK(mount("proc", folder, "proc", 0, NULL) == 0);
        snprintf(path, sizeof path, "%s/keys", folder);
        FILE *keys = fopen(path, "r");
        CHECK(keys != NULL);
        do
            CHECK(fgets(line, sizeof line, keys) != NULL);
        while (strtoul(line, NULL, 16) != serial);
        CHECK(strstr(line, " I--Q--- ") && strstr(line, " perm 3f010000     0     0 user      "));
        CHECK(strstr(line, "     unmade: 4\n") != NULL);
        CHECK(fclose(keys) == 0 && umount(folder) == 0 && rmdir(folder) == 0);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* Nobody makes a key: that is remembered, as a key without a payload. */
static void negative(void)
{
    int serial = 0;
    char data[8];
    long ring = add("keyring", "asked", NULL, SESSION);
    CHECK(syscall(SYS_request_key, "user", "unmade", "please", ring) == -1 &&
          (errno == ENOKEY || errno == ENOENT)); /* ENOENT: there is no /sbin/request-key */
    CHECK(keyctl(KEYCTL_READ, ring, &serial, 4) == 4 && serial > 0);
    CHECK_ERR(keyctl(KEYCTL_READ, serial, data, sizeof data), ENOKEY);
    CHECK_ERR(keyctl(KEYCTL_UPDATE, serial, "made", 4), ENOKEY);
    CHECK_ERR(keyctl(KEYCTL_SEARCH, ring, "user", "unmade", 0), ENOKEY);
    CHECK_ERR(syscall(SYS_request_key, "user", "unmade", NULL, 0), ENOKEY);
    CHECK(described(serial, ";3f010000;unmade"));
    CHECK(add("user", "unmade", "made", ring) == serial);
    CHECK_ERR(add("user", "unmade", "", ring), EINVAL);
    CHECK(keyctl(KEYCTL_READ, serial, data, sizeof data) == 4 && memcmp(data, "made", 4) == 0);
    shown(serial);
    CHECK(keyctl(KEYCTL_SETPERM, serial, 0x3e000000) == 0);
    CHECK_ERR(keyctl(KEYCTL_GET_SECURITY, serial, data, sizeof data), ENOKEY);
    CHECK_ERR(keyctl(KEYCTL_DESCRIBE, serial, data, sizeof data), EACCES);
}

/* What is wrong first, and who counts as a possessor. */
static void order(long key)
{
    char data[8];
    CHECK_ERR(keyctl(KEYCTL_READ, 0, data, sizeof data), ENOKEY);
    CHECK_ERR(syscall(SYS_request_key, "keyring", "unmade", "please", 0), EPERM);
    CHECK_ERR(syscall(SYS_request_key, "logon", "unmade", "please", 0), EINVAL);
    long ring = add("keyring", "itself", NULL, SESSION);
    CHECK(keyctl(KEYCTL_SEARCH, ring, "keyring", "itself", 0) == ring);
    CHECK(keyctl(KEYCTL_MOVE, ring, key, key, 0) == 0);
    CHECK(keyctl(KEYCTL_RESTRICT_KEYRING, ring, NULL, NULL) == 0);
    CHECK_ERR(add("logon", "no-prefix", "p", ring), EPERM);
    CHECK_ERR(add("logon", "no-prefix", "", ring), EINVAL);
    CHECK(keyctl(KEYCTL_REVOKE, ring) == 0);
    CHECK_ERR(keyctl(KEYCTL_READ, ring, data, sizeof data), EKEYREVOKED);
    CHECK_ERR(keyctl(KEYCTL_SETPERM, ring, 0x3f010000), EKEYREVOKED);
    CHECK(keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1) > 0);
    CHECK(keyctl(KEYCTL_INVALIDATE, KEY_SPEC_PROCESS_KEYRING) == 0);
    CHECK_ERR(keyctl(KEYCTL_DESCRIBE, KEY_SPEC_PROCESS_KEYRING, data, 0), ENOKEY);
}

/* Nobody has called request_key(2) for a key of ours: EPERM, unless an argument is bad in itself. */
static void instantiations(void)
{
    struct iovec piece = {"p", 1};
    CHECK_ERR(keyctl(KEYCTL_INSTANTIATE, SESSION, "p", 1, 0), EPERM);
    CHECK_ERR(keyctl(KEYCTL_INSTANTIATE, SESSION, "p", 1 << 20, 0), EINVAL);
    CHECK_ERR(keyctl(KEYCTL_INSTANTIATE_IOV, SESSION, &piece, 1, 0), EPERM);
    CHECK_ERR(keyctl(KEYCTL_INSTANTIATE_IOV, SESSION, 8, 1, 0), EFAULT);
    CHECK_ERR(keyctl(KEYCTL_REJECT, SESSION, 0, ENOKEY, 0), EPERM);
    CHECK_ERR(keyctl(KEYCTL_REJECT, SESSION, 0, 0, 0), EINVAL);
    CHECK_ERR(keyctl(KEYCTL_REJECT, SESSION, 0, 512, 0), EINVAL);
}

int main(void)
{
    sessions();
    instantiations();
    errors_of_add();
    long key = add("user", "a", "payload", SESSION);
    CHECK(key > 0 && described(key, ";3f010000;a"));
    contents(key);
    links(key);
    rights(key);
    negative();
    order(key);
    CHECK(keyctl(KEYCTL_SET_TIMEOUT, key, 100) == 0);
    CHECK(keyctl(KEYCTL_REVOKE, key) == 0);
    CHECK_ERR(keyctl(KEYCTL_READ, key, NULL, 0), EKEYREVOKED);
    CHECK_ERR(keyctl(KEYCTL_READ, 123456789, NULL, 0), ENOKEY);
    return 0;
}
