#include "barrier.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The barrier interrupts the CPUs that run threads of this process; for one inside KVM_RUN that is
 * an exit to the host, so the program's own thread has passed a barrier, too. */
int host_membarrier(int command)
{
    long result = syscall(SYS_membarrier, command, 0, 0);
    return result < 0 ? -errno : (int)result;
}
