/* Between a relay and the kernel: tells what is written below one directory and when it is synced, and makes the
 * disk slow or full. Preloaded (LD_PRELOAD) into a relay under test; see shim.py for the other side.
 *
 *   FAULTS_ROOT     the directory; what lies elsewhere is not touched
 *   FAULTS_LOG      every operation below it is appended here, with its data, once it is done (oplog.py reads it);
 *                   so is what goes to standard error, which puts the relay's own log into the same order
 *   FAULTS_CONTROL  a mapped file, `struct control`: changed by others while the relay runs
 *
 * A sync is told with the length the log had when it began: only what stands before that is sure to be covered.
 * What would change a file in a way that cannot be told is told as such ('?'), and the run that sees it fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES 65536

struct control {
    int64_t room;             /* octets that files may still grow by; negative: no limit */
    uint32_t delay_least;     /* microseconds added to every sync: from this ... */
    uint32_t delay_most;      /* ... to this */
    uint32_t failing;         /* of a thousand syncs so many fail (EIO) and sync nothing */
    uint32_t dying;           /* the process kills itself when nothing is half done or half told */
};

struct record {
    uint32_t length;          /* of the whole record */
    uint8_t operation;
    uint8_t created;
    uint16_t first;           /* length of the first path */
    uint32_t second;          /* length of the second path, or of the data */
    uint32_t unused;
    uint64_t inode;
    int64_t position;         /* offset; size; for a sync the length of the log when it began */
    uint64_t nanoseconds;     /* CLOCK_MONOTONIC */
};

static const char *root;
static size_t root_length;
static int log_file = -1;
static struct control *control;
static uint64_t inode_of[FILES]; /* of descriptors opened below the root; 0: not ours */
static __thread unsigned int dice;

/* Whatever changes a file holds this from before it is done until it has been told. */
static pthread_rwlock_t doing = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

static int begin_operation(void) {
    if (control != NULL && control->dying) {
        pthread_rwlock_wrlock(&doing);
        kill(getpid(), SIGKILL);
        pause();
    }
    pthread_rwlock_rdlock(&doing);
    return 1;
}
static void end_operation(int *begun) {
    if (*begun) pthread_rwlock_unlock(&doing);
}
#define OPERATION int begun_operation __attribute__((cleanup(end_operation), unused)) = begin_operation()

static int raw_open(const char *path, int flags, mode_t mode) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_ROOT");
    if (path == NULL) return;
    root_length = strlen(path);
    if ((path = getenv("FAULTS_LOG")) != NULL) {
        int opened = raw_open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        log_file = fcntl(opened, F_DUPFD_CLOEXEC, 1000); /* out of the way of what the relay opens */
        syscall(SYS_close, opened);
    }
    if ((path = getenv("FAULTS_CONTROL")) != NULL) {
        int opened = raw_open(path, O_RDWR | O_CLOEXEC, 0);
        void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
        if (mapped != MAP_FAILED) control = mapped;
        syscall(SYS_close, opened);
    }
    root = getenv("FAULTS_ROOT");
}

static int ours(const char *path) {
    return root != NULL && path != NULL && strncmp(path, root, root_length) == 0 &&
           (path[root_length] == '/' || path[root_length] == '\0');
}

static uint64_t inode(int descriptor) {
    return descriptor >= 0 && descriptor < FILES ? inode_of[descriptor] : 0;
}

static int64_t log_length(void) {
    struct stat status;
    return log_file >= 0 && fstat(log_file, &status) == 0 ? status.st_size : 0;
}

static void tell(char operation, uint64_t number, int created, int64_t position, const char *path,
                 const void *second, size_t second_length) {
    if (log_file < 0) return;
    int kept = errno;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct record record = {0};
    record.operation = (uint8_t)operation;
    record.created = (uint8_t)created;
    record.first = (uint16_t)(path ? strlen(path) : 0);
    record.second = (uint32_t)second_length;
    record.length = (uint32_t)(sizeof record + record.first + second_length);
    record.inode = number;
    record.position = position;
    record.nanoseconds = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    struct iovec parts[3] = {
        {&record, sizeof record}, {(void *)path, record.first}, {(void *)second, second_length}};
    if (syscall(SYS_writev, log_file, parts, 3) != (long)record.length) abort(); /* half a story is worse than none */
    errno = kept;
}

/* How much of a write of `count` octets at `offset` finds room: less than all only where the file would grow. */
static size_t room_for(int descriptor, size_t count, int64_t offset) {
    if (control == NULL || control->room < 0) return count;
    struct stat status;
    if (fstat(descriptor, &status) != 0 || offset + (int64_t)count <= status.st_size) return count;
    int64_t inside = status.st_size > offset ? status.st_size - offset : 0;
    int64_t growth = offset + (int64_t)count - (status.st_size > offset ? status.st_size : offset);
    int64_t room = __atomic_load_n(&control->room, __ATOMIC_RELAXED);
    int64_t granted = room < growth ? room : growth;
    if (granted > 0) __atomic_sub_fetch(&control->room, granted, __ATOMIC_RELAXED);
    return (size_t)(inside + (granted > 0 ? granted : 0));
}

static int no_room(void) {
    if (control == NULL || control->room != 0) return 0;
    errno = ENOSPC;
    return 1;
}

static int opened(const char *path, int flags, mode_t mode) {
    if (!ours(path)) {
        int descriptor = raw_open(path, flags, mode);
        if (descriptor >= 0 && descriptor < FILES) inode_of[descriptor] = 0;
        return descriptor;
    }
    OPERATION;
    struct stat status;
    int is_new = (flags & O_CREAT) && lstat(path, &status) != 0;
    if (is_new && no_room()) return -1;
    int descriptor = raw_open(path, flags, mode);
    if (descriptor < 0 || fstat(descriptor, &status) != 0) return descriptor;
    if (descriptor < FILES) inode_of[descriptor] = status.st_ino;
    if (is_new) tell('c', status.st_ino, S_ISDIR(status.st_mode), 0, path, NULL, 0);
    else if (flags & O_TRUNC) tell('t', status.st_ino, 0, 0, path, NULL, 0);
    else tell('o', status.st_ino, S_ISDIR(status.st_mode), status.st_size, path, NULL, 0);
    return descriptor;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
}

#define OPEN(NAME)                                  \
    int NAME(const char *path, int flags, ...) {    \
        va_list rest;                               \
        va_start(rest, flags);                      \
        mode_t mode = mode_of(flags, rest);         \
        va_end(rest);                               \
        return opened(path, flags, mode);           \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(NAME)                                                       \
    int NAME(int directory, const char *path, int flags, ...) {            \
        va_list rest;                                                      \
        va_start(rest, flags);                                             \
        mode_t mode = mode_of(flags, rest);                                \
        va_end(rest);                                                      \
        if (path[0] == '/') return opened(path, flags, mode);              \
        int descriptor = (int)syscall(SYS_openat, directory, path, flags, mode); \
        if (descriptor >= 0 && descriptor < FILES) inode_of[descriptor] = 0; \
        return descriptor;                                                 \
    }
OPENAT(openat)
OPENAT(openat64)

int __open_2(const char *path, int flags) { return opened(path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(path, flags, 0); }

int close(int descriptor) {
    if (descriptor >= 0 && descriptor < FILES) inode_of[descriptor] = 0;
    return (int)syscall(SYS_close, descriptor);
}

ssize_t write(int descriptor, const void *data, size_t count) {
    uint64_t number = inode(descriptor);
    if (number == 0 && descriptor != 2) return syscall(SYS_write, descriptor, data, count);
    OPERATION;
    if (number == 0) {
        ssize_t plain = syscall(SYS_write, descriptor, data, count);
        if (plain > 0) tell('l', 0, 0, 0, NULL, data, (size_t)plain);
        return plain;
    }
    int64_t at = fcntl(descriptor, F_GETFL) & O_APPEND ? LLONG_MAX / 2 : lseek(descriptor, 0, SEEK_CUR);
    size_t granted = room_for(descriptor, count, at);
    if (granted == 0 && count > 0) return errno = ENOSPC, -1;
    ssize_t written = syscall(SYS_write, descriptor, data, granted);
    if (written > 0) tell('w', number, 0, lseek(descriptor, 0, SEEK_CUR) - written, NULL, data, (size_t)written);
    return written;
}

static ssize_t put(int descriptor, const void *data, size_t count, int64_t offset) {
    uint64_t number = inode(descriptor);
    if (number == 0) return syscall(SYS_pwrite64, descriptor, data, count, offset);
    OPERATION;
    size_t granted = room_for(descriptor, count, offset);
    if (granted == 0 && count > 0) return errno = ENOSPC, -1;
    ssize_t written = syscall(SYS_pwrite64, descriptor, data, granted, offset);
    if (written > 0) tell('w', number, 0, offset, NULL, data, (size_t)written);
    return written;
}
ssize_t pwrite(int descriptor, const void *data, size_t count, off_t offset) {
    return put(descriptor, data, count, offset);
}
ssize_t pwrite64(int descriptor, const void *data, size_t count, off64_t offset) {
    return put(descriptor, data, count, offset);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    if (inode(descriptor) != 0) tell('?', 0, 0, 0, "writev", NULL, 0);
    return syscall(SYS_writev, descriptor, parts, count);
}

static int cut(int descriptor, int64_t size) {
    uint64_t number = inode(descriptor);
    OPERATION;
    int result = (int)syscall(SYS_ftruncate, descriptor, size);
    if (result == 0 && number) tell('t', number, 0, size, NULL, NULL, 0);
    return result;
}
int ftruncate(int descriptor, off_t size) { return cut(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { return cut(descriptor, size); }

#define UNTOLD(NAME, DESCRIPTOR, SIGNATURE, CALL)                          \
    SIGNATURE {                                                            \
        if (inode(DESCRIPTOR) != 0) tell('?', 0, 0, 0, NAME, NULL, 0);     \
        return CALL;                                                       \
    }
UNTOLD("fallocate", descriptor, int fallocate(int descriptor, int mode, off_t offset, off_t length),
       (int)syscall(SYS_fallocate, descriptor, mode, offset, length))
UNTOLD("fallocate", descriptor, int fallocate64(int descriptor, int mode, off64_t offset, off64_t length),
       (int)syscall(SYS_fallocate, descriptor, mode, offset, length))
UNTOLD("posix_fallocate", descriptor, int posix_fallocate(int descriptor, off_t offset, off_t length),
       syscall(SYS_fallocate, descriptor, 0, offset, length) == 0 ? 0 : errno)
UNTOLD("posix_fallocate", descriptor, int posix_fallocate64(int descriptor, off64_t offset, off64_t length),
       syscall(SYS_fallocate, descriptor, 0, offset, length) == 0 ? 0 : errno)
UNTOLD("sendfile", out, ssize_t sendfile(int out, int in, off_t *offset, size_t count),
       syscall(SYS_sendfile, out, in, offset, count))
UNTOLD("sendfile", out, ssize_t sendfile64(int out, int in, off64_t *offset, size_t count),
       syscall(SYS_sendfile, out, in, offset, count))
UNTOLD("copy_file_range", out,
       ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned int flags),
       syscall(SYS_copy_file_range, in, from, out, to, length, flags))

static uint32_t throw_dice(uint32_t faces) {
    if (dice == 0) dice = (unsigned int)time(NULL) ^ (unsigned int)(uintptr_t)&dice;
    return (uint32_t)rand_r(&dice) % faces;
}

static void linger(void) {
    if (control == NULL || control->delay_most == 0) return;
    uint64_t wait = control->delay_least + throw_dice(control->delay_most - control->delay_least + 1);
    struct timespec pause = {(time_t)(wait / 1000000), (long)(wait % 1000000) * 1000};
    nanosleep(&pause, NULL);
}

static int synced(int descriptor, long call) {
    uint64_t number = inode(descriptor);
    if (number == 0) return (int)syscall(call, descriptor);
    OPERATION;
    int64_t begun = log_length();
    linger();
    if (control != NULL && control->failing != 0 && throw_dice(1000) < control->failing) {
        tell('f', number, 0, begun, NULL, NULL, 0);
        errno = EIO;
        return -1;
    }
    int result = (int)syscall(call, descriptor);
    if (result == 0) tell('s', number, 0, begun, NULL, NULL, 0);
    return result;
}
int fsync(int descriptor) { return synced(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return synced(descriptor, SYS_fdatasync); }

int rename(const char *from, const char *to) {
    OPERATION;
    struct stat status = {0};
    int told = (ours(from) || ours(to)) && lstat(from, &status) == 0;
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (result == 0 && told) tell('r', status.st_ino, S_ISDIR(status.st_mode), 0, from, to, strlen(to));
    return result;
}

int link(const char *from, const char *to) {
    int result = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (result == 0 && ours(to)) tell('?', 0, 0, 0, "link", NULL, 0);
    return result;
}

int unlink(const char *path) {
    OPERATION;
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (result == 0 && ours(path)) tell('u', 0, 0, 0, path, NULL, 0);
    return result;
}

int rmdir(const char *path) {
    OPERATION;
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
    if (result == 0 && ours(path)) tell('u', 0, 1, 0, path, NULL, 0);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    OPERATION;
    if (ours(path) && no_room()) return -1;
    int result = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    struct stat status;
    if (result == 0 && ours(path) && lstat(path, &status) == 0) tell('c', status.st_ino, 1, 0, path, NULL, 0);
    return result;
}

#define STATVFS(NAME, TYPE)                                                     \
    int NAME(const char *path, struct TYPE *answer) {                           \
        static int (*real)(const char *, struct TYPE *);                        \
        if (real == NULL) real = (int (*)(const char *, struct TYPE *))dlsym(RTLD_NEXT, #NAME); \
        int result = real(path, answer);                                        \
        if (result == 0 && ours(path) && control != NULL && control->room >= 0) \
            answer->f_bavail = answer->f_bfree = (uint64_t)control->room / answer->f_frsize; \
        return result;                                                          \
    }
STATVFS(statvfs, statvfs)
STATVFS(statvfs64, statvfs64)
