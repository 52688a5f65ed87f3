/* Pseudo-terminals: line discipline, sizes, sessions, job control, hang-up. */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int master, slave;
static volatile int got;
static void on_signal(int signo) { got = signo; }

static void type(const char *text) { CHECK(write(master, text, strlen(text)) == (ssize_t)strlen(text)); }

static void screen(const char *text)
{
    char buf[256];
    size_t have = 0;
    while (have < strlen(text)) {
        struct pollfd p = {master, POLLIN};
        CHECK(poll(&p, 1, 2000) == 1);
        ssize_t n = read(master, buf + have, sizeof buf - have);
        CHECK(n > 0);
        have += n;
    }
    if (have != strlen(text) || memcmp(buf, text, have)) {
        fprintf(stderr, "screen: %.*s not %s\n", (int)have, buf, text);
        exit(1);
    }
}

static void line(const char *text)
{
    char buf[256];
    ssize_t n = read(slave, buf, sizeof buf);
    if (n != (ssize_t)strlen(text) || memcmp(buf, text, n)) {
        fprintf(stderr, "line: %zd %.*s not %s\n", n, (int)n, buf, text);
        exit(1);
    }
}

static void open_pair(void)
{
    struct stat st;
    CHECK((master = posix_openpt(O_RDWR | O_NOCTTY)) >= 0);
    CHECK_ERR(open(ptsname(master), O_RDWR | O_NOCTTY), EIO);
    CHECK(grantpt(master) == 0 && unlockpt(master) == 0);
    CHECK((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
    CHECK(isatty(master) && isatty(slave));
    CHECK(fstat(slave, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev >> 8 == 136);
    CHECK(strncmp(ttyname(slave), "/dev/pts/", 9) == 0);
}

static void canonical(void)
{
    struct pollfd p = {slave, POLLIN};
    int n;
    type("hel");
    CHECK(poll(&p, 1, 0) == 0);
    type("lo\r");
    screen("hello\r\n");
    CHECK(poll(&p, 1, 1000) == 1);
    CHECK(ioctl(slave, FIONREAD, &n) == 0 && n == 6);
    line("hello\n");
    type("wrong\x15" "ab\x7f" "cd ef\x17gh\n");
    line("acd gh\n");
    tcflush(master, TCIOFLUSH);
    while (poll(&(struct pollfd){master, POLLIN}, 1, 50) == 1) {
        char drop[256];
        CHECK(read(master, drop, sizeof drop) > 0);
    }
    type("two\nlines\n");
    line("two\n");
    line("lines\n");
    type("part\x04");
    line("part");
    type("\x04");
    line("");
    screen("two\r\nlines\r\npart");
    CHECK(write(slave, "out\n", 4) == 4);
    screen("out\r\n");
    type("\x16\x03\n");
    line("\x03\n");
    screen("^\b^C\r\n");
}

static void raw(void)
{
    struct pollfd p = {slave, POLLIN};
    struct termios t, old;
    char c;
    CHECK(tcgetattr(slave, &old) == 0);
    CHECK(old.c_iflag == (ICRNL | IXON) && old.c_oflag == (OPOST | ONLCR) && old.c_cc[VINTR] == 3);
    t = old;
    cfmakeraw(&t);
    t.c_cc[VMIN] = 1;
    CHECK(tcsetattr(slave, TCSANOW, &t) == 0);
    type("x\r\x03");
    line("x\r\x03");
    CHECK(write(slave, "a\n", 2) == 2);
    screen("a\n");
    t.c_cc[VMIN] = 0;
    t.c_cc[VTIME] = 0;
    CHECK(tcsetattr(slave, TCSADRAIN, &t) == 0);
    CHECK(read(slave, &c, 1) == 0);
    t.c_cc[VTIME] = 1;
    CHECK(tcsetattr(slave, TCSADRAIN, &t) == 0);
    CHECK(read(slave, &c, 1) == 0);
    type("k");
    CHECK(read(slave, &c, 1) == 1 && c == 'k');
    t.c_cc[VMIN] = 5;
    CHECK(tcsetattr(slave, TCSADRAIN, &t) == 0);
    type("mn");
    CHECK(poll(&p, 1, 1000) == 1);
    line("mn");
    t.c_cc[VTIME] = 0;
    CHECK(tcsetattr(slave, TCSADRAIN, &t) == 0);
    type("opq");
    CHECK(poll(&p, 1, 0) == 0);
    CHECK(read(slave, &c, 1) == 1 && c == 'o');
    CHECK(fcntl(slave, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
    line("pq");
    CHECK_ERR(read(slave, &c, 1), EAGAIN);
    t.c_cc[VMIN] = 0;
    CHECK(tcsetattr(slave, TCSADRAIN, &t) == 0 && read(slave, &c, 1) == 0);
    t.c_cc[VTIME] = 1;
    CHECK(tcsetattr(slave, TCSADRAIN, &t) == 0);
    CHECK_ERR(read(slave, &c, 1), EAGAIN);
    CHECK(fcntl(slave, F_SETFL, O_RDWR) == 0);
    CHECK(tcsetattr(slave, TCSAFLUSH, &old) == 0);
    CHECK(tcgetattr(master, &t) == 0 && t.c_lflag == old.c_lflag);
}

static void nothing(int signo) { (void)signo; }

/* Of bytes that are fewer than VMIN a signal makes a result; it ends a read of none. */
static void raw_and_signals(void)
{
    struct sigaction handler = {.sa_handler = nothing};
    struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0}};
    struct termios t, old;
    char c;
    CHECK(tcgetattr(slave, &old) == 0 && sigaction(SIGALRM, &handler, NULL) == 0);
    t = old;
    cfmakeraw(&t);
    t.c_cc[VMIN] = 5;
    for (t.c_cc[VTIME] = 0; t.c_cc[VTIME] <= 100; t.c_cc[VTIME] += 100) {
        CHECK(tcsetattr(slave, TCSAFLUSH, &t) == 0);
        type("ab");
        CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
        line("ab");
        CHECK_ERR(read(slave, &c, 1), EINTR);
        CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    }
    CHECK(tcsetattr(slave, TCSAFLUSH, &old) == 0 && signal(SIGALRM, SIG_DFL) != SIG_ERR);
}

/* A byte as if it were typed, on either side. Who may is the sysctl's to say. */
static void simulated(void)
{
    char allowed = '1', text[] = "st\n", c;
    int fd = open("/proc/sys/dev/tty/legacy_tiocsti", O_RDONLY);
    if (fd >= 0)
        CHECK(read(fd, &allowed, 1) == 1 && close(fd) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(ioctl(slave, TIOCSTI, text + i) == 0);
    line("st\n");
    screen("st\r\n");
    CHECK(ioctl(master, TIOCSTI, text) == 0 && read(master, &c, 1) == 1 && c == 's');
    CHECK_ERR(ioctl(slave, TIOCSTI, 8), EFAULT);
    CHECK(seteuid(1000) == 0);
    CHECK_ERR(ioctl(slave, TIOCSTI, 8), allowed == '0' ? EIO : EPERM);
    CHECK_ERR(ioctl(master, TIOCSTI, text), allowed == '0' ? EIO : EPERM);
    CHECK(seteuid(0) == 0);
}

static void sizes(void)
{
    struct winsize ws = {24, 80}, got_ws;
    CHECK(ioctl(slave, TIOCGWINSZ, &got_ws) == 0 && got_ws.ws_row == 0);
    CHECK(ioctl(master, TIOCSWINSZ, &ws) == 0);
    CHECK(ioctl(slave, TIOCGWINSZ, &got_ws) == 0 && got_ws.ws_row == 24 && got_ws.ws_col == 80);
    CHECK_ERR(ioctl(slave, TIOCGPGRP, &ws), ENOTTY);
    CHECK_ERR(ioctl(slave, 0x5499, 0), ENOTTY);
}

/* A master tells of its slave's session, to whoever asks. */
static void session_of_master(pid_t sid, pid_t foreground)
{
    pid_t id;
    CHECK(tcgetpgrp(master) == foreground);
    if (sid)
        CHECK(ioctl(master, TIOCGSID, &id) == 0 && id == sid);
    else
        CHECK_ERR(ioctl(master, TIOCGSID, &id), ENOTTY);
    CHECK_ERR(ioctl(master, TIOCNOTTY), ENOTTY);
    CHECK_ERR(tcsetpgrp(master, getpid()), ENOTTY);
    CHECK_ERR(tcgetpgrp(slave), ENOTTY);
}

static void wait_for(int signo)
{
    for (int i = 0; got != signo && i < 200; i++)
        usleep(10000);
    if (got != signo)
        _exit(50 + signo);
    got = 0;
}

static int session(int ready)
{
    char c;
    int tty, status;
    if (setsid() < 0)
        return 1;
    if (open("/dev/tty", O_RDWR) != -1 || errno != ENXIO)
        return 2;
    signal(SIGINT, on_signal);
    signal(SIGWINCH, on_signal);
    signal(SIGHUP, on_signal);
    if (ioctl(slave, TIOCSCTTY, 0) || tcgetpgrp(slave) != getpid() || tcgetsid(slave) != getpid())
        return 3;
    if ((tty = open("/dev/tty", O_RDWR)) < 0 || !isatty(tty))
        return 4;
    write(ready, "1", 1);
    wait_for(SIGINT);
    write(ready, "2", 1);
    wait_for(SIGWINCH);
    /* a background job that reads is stopped */
    pid_t job = fork();
    if (job == 0) {
        setpgid(0, 0);
        signal(SIGTTIN, SIG_DFL);
        char d;
        _exit(read(slave, &d, 1) == 1 && d == 'q' ? 0 : 1);
    }
    setpgid(job, job);
    if (waitpid(job, &status, WUNTRACED) != job || !WIFSTOPPED(status) ||
        WSTOPSIG(status) != SIGTTIN)
        return 5;
    if (tcsetpgrp(slave, job) || tcgetpgrp(slave) != job)
        return 6;
    kill(-job, SIGCONT);
    write(ready, "3", 1);
    if (waitpid(job, &status, 0) != job || status)
        return 7;
    signal(SIGTTOU, SIG_IGN);
    if (tcsetpgrp(slave, getpid()))
        return 8;
    write(ready, "4", 1);
    wait_for(SIGHUP);
    if (read(slave, &c, 1) > 0)
        return 9;
    return 0;
}

static void sessions(void)
{
    int ends[2], status;
    char c;
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(master);
        _exit(session(ends[1]));
    }
    CHECK(read(ends[0], &c, 1) == 1 && c == '1');
    session_of_master(pid, pid);
    close(slave);
    type("\x03");
    CHECK(read(ends[0], &c, 1) == 1 && c == '2');
    struct winsize ws = {10, 20};
    CHECK(ioctl(master, TIOCSWINSZ, &ws) == 0);
    CHECK(read(ends[0], &c, 1) == 1 && c == '3');
    type("q\n");
    CHECK(read(ends[0], &c, 1) == 1 && c == '4');
    close(master);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status)
        fprintf(stderr, "session: %x\n", status);
    CHECK(status == 0);
}

/* TIOCGPTPEER: the slave has its name, and the flags that were asked for. */
static void peers(void)
{
    char link[64], name[64];
    int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK);
    CHECK(peer >= 0 && (fcntl(peer, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_RDWR | O_NONBLOCK));
    snprintf(link, sizeof link, "/proc/self/fd/%d", peer);
    ssize_t size = readlink(link, name, sizeof name - 1);
    CHECK(size > 0);
    name[size] = 0;
    CHECK(strcmp(name, ptsname(master)) == 0 && strcmp(name, ttyname(peer)) == 0);
    close(peer);
}

static int is_exclusive(int fd)
{
    int found = -1;
    CHECK(ioctl(fd, TIOCGEXCL, &found) == 0);
    return found;
}

/* Somebody without CAP_SYS_ADMIN, whose controlling terminal it is, opens the slave once more. */
static void others_open(int error)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGHUP, SIG_IGN);
        CHECK(setsid() > 0 && ioctl(slave, TIOCSCTTY, 0) == 0);
        CHECK(setuid(1000) == 0);
        int found[] = {open(ptsname(master), O_RDWR), error ? errno : 0,
                       ioctl(master, TIOCGPTPEER, O_RDWR), error ? errno : 0,
                       open("/dev/tty", O_RDWR), error ? errno : 0};
        for (int i = 0; i < 6; i += 2)
            CHECK(error ? found[i] == -1 && found[i + 1] == error : found[i] >= 0);
        exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* TIOCEXCL: each side has its flag, that of the slave stays when it is closed. */
static void exclusive(void)
{
    if (getuid())
        return;
    CHECK(fchmod(slave, 0666) == 0 && !is_exclusive(slave) && !is_exclusive(master));
    others_open(0);
    CHECK(ioctl(master, TIOCEXCL) == 0 && is_exclusive(master) && !is_exclusive(slave));
    others_open(0);
    CHECK(ioctl(slave, TIOCEXCL) == 0 && is_exclusive(slave));
    CHECK(ioctl(master, TIOCNXCL) == 0 && !is_exclusive(master) && is_exclusive(slave));
    others_open(EBUSY);
    CHECK(close(slave) == 0 && (slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
    others_open(EBUSY);
    CHECK_ERR(ioctl(slave, TIOCGEXCL, (int *)1), EFAULT);
    CHECK(ioctl(slave, TIOCNXCL) == 0 && !is_exclusive(slave));
    others_open(0);
}

/* TIOCSIG: the foreground group hears what a key would tell it. */
static void signals(void)
{
    static const int sent[] = {SIGINT, SIGQUIT, SIGTSTP};
    int ends[2], status;
    char c;
    CHECK_ERR(ioctl(slave, TIOCSIG, SIGINT), ENOTTY);
    CHECK_ERR(ioctl(master, TIOCSIG, SIGTERM), EINVAL);
    CHECK(ioctl(master, TIOCSIG, SIGINT) == 0); /* nobody's terminal */
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGHUP, SIG_IGN);
        CHECK(setsid() > 0 && ioctl(slave, TIOCSCTTY, 0) == 0);
        for (int i = 0; i < 3; i++)
            signal(sent[i], on_signal);
        for (int i = 0; i < 3; i++) {
            CHECK(write(ends[1], "g", 1) == 1);
            wait_for(sent[i]);
        }
        _exit(0);
    }
    for (int i = 0; i < 3; i++) {
        CHECK(read(ends[0], &c, 1) == 1);
        CHECK(ioctl(master, TIOCSIG, 1L << 32 | sent[i]) == 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    char c;
    open_pair();
    peers();
    exclusive();
    signals();
    canonical();
    raw();
    raw_and_signals();
    simulated();
    sizes();
    session_of_master(0, 0);
    close(slave);
    CHECK_ERR(read(master, &c, 1), EIO);
    CHECK((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
    sessions();
    return 0;
}
