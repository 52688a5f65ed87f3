int host_membarrier(int command);
