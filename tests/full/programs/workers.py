"""multiprocessing: pools, queues, locks, managers, shared memory. Argument: how to start."""

import multiprocessing
import os
import sys
from multiprocessing import shared_memory


def square(number):
    return number * number


def count(queue, lock, value):
    for _ in range(100):
        with lock:
            value.value += 1
    queue.put("counted")


def main():
    ctx = multiprocessing.get_context(sys.argv[1])
    with ctx.Pool(3) as pool:
        print(sum(pool.map(square, range(100))), pool.apply_async(square, (5,)).get(60))
    queue, lock, value = ctx.Queue(), ctx.Lock(), ctx.Value("i", 0)
    workers = [ctx.Process(target=count, args=(queue, lock, value)) for _ in range(3)]
    for worker in workers:
        worker.start()
    print([queue.get(timeout=60) for _ in workers])
    for worker in workers:
        worker.join()
    print(value.value, [worker.exitcode for worker in workers])
    with ctx.Manager() as manager:
        shared = manager.dict()
        shared["a"] = 1
        print(dict(shared))
    one = shared_memory.SharedMemory(create=True, size=100)
    one.buf[:2] = b"hi"
    other = shared_memory.SharedMemory(one.name)
    print(bytes(other.buf[:2]))
    other.close()
    one.close()
    one.unlink()
    worker = ctx.Process(target=os._exit, args=(7,))
    worker.start()
    worker.join()
    print(worker.exitcode)
    worker = ctx.Process(target=ctx.Event().wait)
    worker.start()
    worker.terminate()
    worker.join()
    print(worker.exitcode)


if __name__ == "__main__":
    main()
