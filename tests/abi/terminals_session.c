/* Who has a controlling terminal, and who hears when it is gone. tty_ioctl(4), setsid(2) */
#define _GNU_SOURCE
#include "abi.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int master, slave, heard[2], go[2];

static void open_pair(void)
{
    CHECK((master = posix_openpt(O_RDWR | O_NOCTTY)) >= 0);
    CHECK(grantpt(master) == 0 && unlockpt(master) == 0);
    CHECK((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
    CHECK(pipe(heard) == 0 && pipe(go) == 0);
}

static void close_all(void)
{
    close(master);
    close(slave);
    for (int i = 0; i < 2; i++) {
        close(heard[i]);
        close(go[i]);
    }
}

static void say(char c)
{
    if (write(heard[1], &c, 1) != 1)
        _exit(9);
}

static void listen_to(const char *expected)
{
    for (char c; *expected; expected++)
        CHECK(read(heard[0], &c, 1) == 1 && c == *expected);
}

static void wait_for_go(void)
{
    char c;
    while (read(go[0], &c, 1) != 1)
        ;
}

static void on_signal(int signo) { say(signo == SIGHUP ? 'h' : signo == SIGCONT ? 'c' : 'u'); }

/* Signals in the order of their numbers, one after the other. */
static void listen_for_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigfillset(&sa.sa_mask);
    sigaction(SIGHUP, &sa, NULL);
    sigaction(SIGCONT, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
}

/* A session whose foreground group is a job of its leader; gives the job's pid to the caller. */
static pid_t start(pid_t *job)
{
    int ids[2];
    CHECK(pipe(ids) == 0);
    pid_t leader = fork();
    if (leader == 0) {
        CHECK(close(master) == 0 && setsid() > 0 && ioctl(slave, TIOCSCTTY, 0) == 0);
        signal(SIGTTOU, SIG_IGN);
        pid_t child = fork();
        if (child == 0) {
            setpgid(0, 0);
            listen_for_signals();
            say('j');
            for (;;)
                pause();
        }
        setpgid(child, child);
        CHECK(tcsetpgrp(slave, child) == 0);
        CHECK(write(ids[1], &child, sizeof child) == sizeof child);
        listen_for_signals();
        say('l');
        wait_for_go();
        _exit(0);
    }
    CHECK(read(ids[0], job, sizeof *job) == sizeof *job);
    char both[2];
    for (int i = 0; i < 2; i++)
        CHECK(read(heard[0], &both[i], 1) == 1);
    CHECK(both[0] + both[1] == 'j' + 'l');
    close(ids[0]);
    close(ids[1]);
    return leader;
}

static void end(pid_t leader, pid_t job)
{
    int status;
    CHECK(write(go[1], "g", 1) == 1);
    CHECK(waitpid(leader, &status, 0) == leader && status == 0);
    CHECK(kill(job, 0) == 0);
}

/* With the leader the terminal goes: the foreground group gets SIGHUP. */
static void leader_ends(void)
{
    pid_t job;
    open_pair();
    pid_t leader = start(&job);
    end(leader, job);
    listen_to("h");
    CHECK(kill(job, SIGUSR1) == 0);
    listen_to("u");
    CHECK_ERR(tcgetsid(master), ENOTTY);
    CHECK(kill(job, SIGKILL) == 0);
    close_all();
}

/* When the terminal hangs up the leader is told; the foreground group when the leader ends. */
static void hang_up(void)
{
    pid_t job;
    open_pair();
    pid_t leader = start(&job);
    CHECK(close(master) == 0);
    listen_to("hc");
    CHECK(kill(job, SIGUSR1) == 0);
    listen_to("u");
    end(leader, job);
    listen_to("hc");
    CHECK(kill(job, SIGKILL) == 0);
    close_all();
}

static void has_none(void)
{
    CHECK_ERR(open("/dev/tty", O_RDWR), ENXIO);
    CHECK_ERR(tcgetpgrp(slave), ENOTTY);
    CHECK_ERR(tcgetsid(slave), ENOTTY);
    CHECK_ERR(ioctl(slave, TIOCNOTTY), ENOTTY);
}

static void has_it(void)
{
    int tty = open("/dev/tty", O_RDWR);
    CHECK(tty >= 0 && isatty(tty) && close(tty) == 0);
    CHECK(tcgetpgrp(slave) > 0 && tcgetsid(slave) == getsid(0));
}

static void done(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* Only the leader takes the terminal, and gives it to whom it forks afterwards. */
static void own_terminal(void)
{
    CHECK(setsid() > 0);
    pid_t older = fork();
    if (older == 0) {
        wait_for_go();
        has_none();
        _exit(0);
    }
    CHECK(ioctl(slave, TIOCSCTTY, 0) == 0);
    has_it();
    CHECK(write(go[1], "g", 1) == 1);
    done(older);
    pid_t younger = fork();
    if (younger == 0) {
        has_it();
        CHECK(ioctl(slave, TIOCNOTTY) == 0);
        has_none();
        pid_t heir = fork();
        if (heir == 0) {
            has_none();
            _exit(0);
        }
        done(heir);
        _exit(0);
    }
    done(younger);
    has_it();
    if ((younger = fork()) == 0) {
        CHECK(setsid() > 0);
        has_none();
        _exit(0);
    }
    done(younger);
    signal(SIGHUP, SIG_IGN);
    CHECK(ioctl(slave, TIOCNOTTY) == 0);
    has_none();
    CHECK(ioctl(slave, TIOCSCTTY, 0) == 0);
    has_it();
}

/* Who may only write does not get the terminal, unless capable. */
static void for_writing_alone(void)
{
    CHECK(setsid() > 0);
    int fd = open(ptsname(master), O_WRONLY);
    CHECK(fd >= 0);
    has_none();
    CHECK(seteuid(1000) == 0);
    CHECK_ERR(ioctl(fd, TIOCSCTTY, 0), EPERM);
    CHECK(seteuid(0) == 0);
    has_none();
    CHECK(ioctl(fd, TIOCSCTTY, 0) == 0);
    has_it();
    signal(SIGHUP, SIG_IGN);
    CHECK(ioctl(slave, TIOCNOTTY) == 0);
    has_none();
    CHECK(open(ptsname(master), O_RDONLY) >= 0);
    has_it();
}

/* A process group that has ended stays in the foreground: nobody else is there by that. */
static void foreground_ends(void)
{
    char c;
    CHECK(setsid() > 0 && ioctl(slave, TIOCSCTTY, 0) == 0);
    pid_t job = fork();
    if (job == 0) {
        setpgid(0, 0);
        wait_for_go();
        _exit(0);
    }
    setpgid(job, job);
    CHECK(tcsetpgrp(slave, job) == 0 && tcgetpgrp(slave) == job);
    CHECK(write(go[1], "g", 1) == 1);
    done(job);
    CHECK(tcgetpgrp(slave) == job);
    CHECK(write(master, "x\n", 2) == 2);
    CHECK_ERR(read(slave, &c, 1), EIO);
    CHECK_ERR(tcsetpgrp(slave, getpgrp()), ENOTTY);
    signal(SIGTTOU, SIG_IGN);
    CHECK(tcsetpgrp(slave, getpgrp()) == 0);
    CHECK(read(slave, &c, 1) == 1 && c == 'x');
}

static pid_t waiting(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        wait_for_go();
        _exit(0);
    }
    return pid;
}

/* A number that is no group's: whose is it? */
static void number_of_no_group(void)
{
    pid_t other = waiting(), leader = fork(), member;
    int number;
    if (leader == 0) {
        CHECK(setsid() > 0 && (member = waiting()) > 0 && setpgid(member, member) == 0);
        CHECK(write(heard[1], &member, sizeof member) == sizeof member);
        _exit(0);
    }
    CHECK(read(heard[0], &member, sizeof member) == sizeof member);
    done(leader);
    CHECK(setsid() > 0 && ioctl(slave, TIOCSCTTY, 0) == 0);
    signal(SIGTTOU, SIG_IGN);
    CHECK_ERR(tcsetpgrp(slave, other), EPERM);
    CHECK_ERR(tcsetpgrp(slave, member), EPERM);
    CHECK_ERR(tcsetpgrp(slave, leader), EPERM); /* nobody has it, but a session */
    CHECK(getpgid(leader) == -1 && tcgetpgrp(slave) == getpid());
    for (number = 0; number <= 4000000; number += 4000000)
        CHECK_ERR(tcsetpgrp(slave, number), ESRCH);
    pid_t job = waiting();
    CHECK(tcsetpgrp(slave, job) == 0 && tcgetpgrp(slave) == job);
    CHECK_ERR(kill(-job, 0), ESRCH);
    CHECK(setpgid(job, job) == 0 && kill(-job, 0) == 0 && tcgetpgrp(slave) == job);
    CHECK(write(master, "\3", 1) == 1);
    int status;
    CHECK(waitpid(job, &status, 0) == job && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    CHECK_ERR(tcsetpgrp(slave, job), ESRCH);
    CHECK(tcgetpgrp(slave) == job && tcsetpgrp(slave, getpid()) == 0);
    CHECK(kill(other, SIGKILL) == 0 && kill(member, SIGKILL) == 0);
}

/* What is wrong with the argument is seen first. */
static void somebody_elses(void)
{
    int group = -1;
    has_none();
    CHECK_ERR(ioctl(slave, TIOCSPGRP, &group), EINVAL);
    CHECK_ERR(ioctl(slave, TIOCSPGRP, (void *)8), EFAULT);
    group = getpgrp();
    CHECK_ERR(ioctl(slave, TIOCSPGRP, &group), ENOTTY);
}

/* What is left of a terminal that has hung up. */
static void is_hung(int fd)
{
    char c;
    struct termios t;
    struct pollfd p = {fd, POLLIN | POLLOUT};
    CHECK(read(fd, &c, 1) == 0);
    CHECK_ERR(write(fd, "x", 1), EIO);
    CHECK(poll(&p, 1, 0) == 1 && p.revents == (POLLIN | POLLOUT | POLLERR | POLLHUP));
    CHECK_ERR(tcgetattr(fd, &t), EIO);
    CHECK_ERR(ioctl(fd, TIOCNOTTY), EIO);
    CHECK_ERR(tcsetpgrp(fd, getpgrp()), ENOTTY);
    CHECK_ERR(tcgetpgrp(fd), EIO);
}

/* A hang-up by the kernel: what was open is dead, but the terminal can be opened again. */
static void hang_up_by_kernel(int self)
{
    char name[64], c;
    struct termios t;
    struct pollfd p;
    CHECK(setsid() > 0 && ioctl(slave, TIOCSCTTY, 0) == 0);
    listen_for_signals();
    strcpy(name, ptsname(master));
    CHECK(tcgetattr(slave, &t) == 0);
    t.c_lflag &= ~ECHO;
    CHECK(tcsetattr(slave, TCSANOW, &t) == 0);
    CHECK((self ? vhangup() : ioctl(slave, TIOCVHANGUP)) == 0);
    listen_to("hc");
    is_hung(slave);
    CHECK_ERR(open("/dev/tty", O_RDWR), ENXIO);
    p = (struct pollfd){master, POLLIN};
    CHECK(poll(&p, 1, 0) == 0); /* the master is not told */
    int again = open(name, O_RDWR | O_NOCTTY);
    CHECK(again >= 0 && tcgetattr(again, &t) == 0 && t.c_lflag & ECHO);
    CHECK(poll(&p, 1, 0) == 0);
    CHECK(write(again, "y", 1) == 1 && read(master, &c, 1) == 1 && c == 'y');
    CHECK(write(master, "z\n", 2) == 2 && read(again, &c, 1) == 1 && c == 'z');
    is_hung(slave);
}

int main(void)
{
    leader_ends();
    hang_up();
    pid_t pid;
    static void (*const sessions[])(void) = {own_terminal, for_writing_alone, foreground_ends,
                                       number_of_no_group};
    for (int i = 0; i < 4; i++) {
        open_pair();
        if ((pid = fork()) == 0) {
            sessions[i]();
            _exit(0);
        }
        done(pid);
        close_all();
    }
    open_pair();
    if ((pid = fork()) == 0) {
        CHECK(setsid() > 0);
        somebody_elses();
        _exit(0);
    }
    done(pid);
    close_all();
    for (int self = 0; self < 2; self++) {
        open_pair();
        if ((pid = fork()) == 0) {
            hang_up_by_kernel(self);
            _exit(0);
        }
        done(pid);
        close_all();
    }
    open_pair();
    CHECK(close(master) == 0);
    is_hung(slave);
    return 0;
}
