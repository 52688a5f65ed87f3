/* Terminals: the calls of System V (struct termio), and termios that are locked. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* The kernel's, which is shorter than libc's. */
struct ktermios {
    unsigned iflag, oflag, cflag, lflag;
    unsigned char line, cc[19];
};

static int master, slave;

static void old(void)
{
    struct termio io;
    struct ktermios now, then;
    CHECK_ERR(ioctl(slave, TCGETA, (void *)8), EFAULT);
    CHECK_ERR(ioctl(slave, TCSETA, (void *)8), EFAULT);
    CHECK(ioctl(slave, TCGETS, &then) == 0);
    CHECK(ioctl(slave, TCGETA, &io) == 0);
    CHECK(io.c_lflag == (then.lflag & 0xffff) && io.c_iflag == (then.iflag & 0xffff));
    CHECK(io.c_cflag == (then.cflag & 0xffff) && io.c_oflag == (then.oflag & 0xffff));
    CHECK(memcmp(io.c_cc, then.cc, 8) == 0 && io.c_line == then.line);

    then.lflag |= 0x20000;
    then.cc[17] = 9;
    CHECK(ioctl(slave, TCSETS, &then) == 0);
    int ways[] = {TCSETA, TCSETAW, TCSETAF};
    for (int i = 0; i < 3; i++) {
        io.c_lflag ^= ECHO;
        io.c_cc[0] = 10 + i;
        CHECK(ioctl(slave, ways[i], &io) == 0);
        CHECK(ioctl(master, TCGETS, &now) == 0);
        CHECK((now.lflag & 0xffff) == io.c_lflag && now.cc[0] == 10 + i);
        CHECK((now.lflag & 0x20000) == (then.lflag & 0x20000) && now.cc[17] == then.cc[17]);
    }
    CHECK(write(master, "lost\n", 5) == 5);
    CHECK(ioctl(slave, TCSETAF, &io) == 0);
    int count = 9;
    CHECK(ioctl(slave, FIONREAD, &count) == 0 && count == 0);
}

static void locked(void)
{
    struct ktermios lock, now, then;
    CHECK_ERR(ioctl(slave, TIOCGLCKTRMIOS, (void *)8), EFAULT);
    CHECK_ERR(ioctl(slave, TIOCSLCKTRMIOS, (void *)8), EFAULT);
    CHECK(ioctl(slave, TIOCGLCKTRMIOS, &lock) == 0);
    CHECK(lock.iflag == 0 && lock.lflag == 0 && lock.line == 0 && lock.cc[3] == 0);
    lock.lflag = ECHO | ICANON;
    lock.cc[3] = 1;
    CHECK(ioctl(slave, TIOCSLCKTRMIOS, &lock) == 0);
    memset(&now, 0, sizeof now);
    CHECK(ioctl(master, TIOCGLCKTRMIOS, &now) == 0 && memcmp(&now, &lock, sizeof now) == 0);
    CHECK(ioctl(slave, TCGETS, &then) == 0);
    now = then;
    now.lflag ^= ECHO | ISIG;
    now.cc[3] ^= 1, now.cc[4] ^= 1;
    CHECK(ioctl(slave, TCSETS, &now) == 0 && ioctl(slave, TCGETS, &now) == 0);
    CHECK(now.lflag == (then.lflag ^ ISIG));
    CHECK(now.cc[3] == then.cc[3] && now.cc[4] == (then.cc[4] ^ 1));

    pid_t child = fork();
    if (!child) {
        CHECK(setuid(1) == 0);
        CHECK_ERR(ioctl(slave, TIOCSLCKTRMIOS, &lock), EPERM);
        CHECK_ERR(ioctl(slave, TIOCSLCKTRMIOS, (void *)8), EPERM);
        CHECK(ioctl(slave, TIOCGLCKTRMIOS, &lock) == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* A pty has no carrier and no modem; CLOCAL stands for the one. */
static void lines(void)
{
    int value = -1;
    unsigned dev = 0;
    CHECK(ioctl(slave, TIOCGSOFTCAR, &value) == 0 && value == 0);
    value = 1;
    CHECK(ioctl(slave, TIOCSSOFTCAR, &value) == 0);
    struct ktermios now;
    CHECK(ioctl(slave, TCGETS, &now) == 0 && now.cflag & CLOCAL);
    value = 0;
    CHECK(ioctl(slave, TIOCGSOFTCAR, &value) == 0 && value == 1);
    CHECK(ioctl(slave, TIOCGDEV, &dev) == 0 && major(dev) == 136);
    CHECK_ERR(ioctl(slave, TIOCMGET, &value), ENOTTY);
    value = 0;
    CHECK(ioctl(slave, TIOCSETD, &value) == 0);
}

int main(void)
{
    CHECK((master = posix_openpt(O_RDWR | O_NOCTTY)) >= 0 && unlockpt(master) == 0);
    CHECK((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
    old();
    locked();
    lines();
    return 0;
}
