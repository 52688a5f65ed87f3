"""mqueue: POSIX message queues as files. mq_overview(7), ipc/mqueue.c."""
