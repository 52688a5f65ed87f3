"""System calls between processes: futexes, System V IPC, message queues."""
