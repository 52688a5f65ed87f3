/* What a program may ask of the terminal that its standard input is. ioctl_tty(2), termios(3). */
#define _GNU_SOURCE
#include "../abi/abi.h"
#include <asm/termbits.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* termios.h has a struct of its own. */
int tcdrain(int fd);
int tcflush(int fd, int queue);

static void speeds_are_told(void)
{
    struct termios2 now, then;
    CHECK(ioctl(0, TCGETS2, &now) == 0);
    CHECK((now.c_cflag & CBAUD) == B38400 && now.c_ispeed == 38400 && now.c_ospeed == 38400);
    now.c_lflag &= ~ECHO;
    CHECK(ioctl(0, TCSETSW2, &now) == 0 && ioctl(0, TCGETS2, &then) == 0);
    CHECK(!(then.c_lflag & ECHO));
    now.c_lflag |= ECHO;
    CHECK(ioctl(0, TCSETSF2, &now) == 0 && ioctl(0, TCGETS2, &then) == 0);
    CHECK(then.c_lflag & ECHO);
    now.c_lflag &= ~ICANON;
    CHECK(ioctl(0, TCSETS2, &now) == 0 && ioctl(0, TCGETS2, &then) == 0);
    CHECK(!(then.c_lflag & ICANON));
    CHECK_ERR(ioctl(0, TCGETS2, NULL), EFAULT);
    CHECK_ERR(ioctl(0, TCSETSW2, NULL), EFAULT);
}

static void queues(void)
{
    int count = -1;
    CHECK(write(1, "asks\n", 5) == 5 && tcdrain(0) == 0);
    CHECK(ioctl(0, TIOCOUTQ, &count) == 0 && count == 0);
    while (ioctl(0, FIONREAD, &count) == 0 && count < 6)
        usleep(1000);
    CHECK(tcflush(0, TCIFLUSH) == 0 && ioctl(0, FIONREAD, &count) == 0 && count == 0);
    CHECK(tcflush(0, TCOFLUSH) == 0 && tcflush(0, TCIOFLUSH) == 0);
    CHECK_ERR(tcflush(0, 3), EINVAL);
    CHECK(ioctl(0, TCSBRK, 0) == 0 && ioctl(0, TCSBRKP, 1) == 0);
}

int main(void)
{
    speeds_are_told();
    queues();
    CHECK(write(1, "done\n", 5) == 5);
    return 0;
}
