#include <pthread.h>
#include <stdio.h>
static volatile int total;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
__attribute__((noinline)) static int add(int n)
{
    int twice = n * 2;
    total += twice;
    return twice;
}
static void *run(void *arg)
{
    pthread_mutex_lock(&lock);
    add((int)(long)arg);
    pthread_mutex_unlock(&lock);
    return NULL;
}
int main(void)
{
    pthread_t t[3];
    for (long i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, run, (void *)i);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    printf("total %d\n", total);
    return total;
}
