/* Faults of the operating system for one process at a time: a clock that was stepped, a disk that fails to sync.
 *
 * Loaded by LD_PRELOAD into every process of the service; which of them is struck stands in a file that all map, named
 * by LATHE_STORM_SWITCHES. Runners are started with an environment of their own and never load it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct switches {
    volatile int32_t clock_pid;      /* whose clock was stepped */
    volatile int32_t clock_seconds;  /* by how much */
    volatile int32_t sync_pids[2];   /* whose fsync fails */
    volatile int32_t syncs_failed;   /* how often it did */
};

static struct switches *switches;

__attribute__((constructor)) static void load(void) {
    const char *name = getenv("LATHE_STORM_SWITCHES");
    int descriptor = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (descriptor < 0) return;
    void *mapped = mmap(NULL, sizeof *switches, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped != MAP_FAILED) switches = mapped;
}

static time_t step(void) {
    return switches && switches->clock_pid && switches->clock_pid == getpid() ? switches->clock_seconds : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, at);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += step();
    return status;
}

int gettimeofday(struct timeval *at, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
    int status = real(at, zone);
    if (status == 0) at->tv_sec += step();
    return status;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

static int fails(void) {
    pid_t own = getpid();
    if (!switches || (switches->sync_pids[0] != own && switches->sync_pids[1] != own)) return 0;
    __atomic_add_fetch(&switches->syncs_failed, 1, __ATOMIC_RELAXED);
    errno = EIO;
    return 1;
}

int fsync(int descriptor) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return fails() ? -1 : real(descriptor);
}

int fdatasync(int descriptor) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return fails() ? -1 : real(descriptor);
}
