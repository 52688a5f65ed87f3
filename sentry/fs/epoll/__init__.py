"""epoll(7)."""
