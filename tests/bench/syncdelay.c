/* A disk whose every sync takes longer: preloaded into a program (LD_PRELOAD), it adds SYNC_DELAY_US microseconds to
 * each fsync, fdatasync, sync_file_range and msync, before it is done. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void wait_first(void)
{
    static long microseconds = -1;
    if (microseconds < 0) {
        const char *text = getenv("SYNC_DELAY_US");
        microseconds = text ? atol(text) : 0;
    }
    if (microseconds > 0)
        usleep((useconds_t)microseconds);
}

int fsync(int descriptor)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_first();
    return real(descriptor);
}

int fdatasync(int descriptor)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_first();
    return real(descriptor);
}

int sync_file_range(int descriptor, off64_t offset, off64_t count, unsigned int flags)
{
    static int (*real)(int, off64_t, off64_t, unsigned int);
    if (!real)
        real = (int (*)(int, off64_t, off64_t, unsigned int))dlsym(RTLD_NEXT, "sync_file_range");
    wait_first();
    return real(descriptor, offset, count, flags);
}

int msync(void *address, size_t length, int flags)
{
    static int (*real)(void *, size_t, int);
    if (!real)
        real = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    wait_first();
    return real(address, length, flags);
}
