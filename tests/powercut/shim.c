/*
 * Writes down, in order, every change that a process makes under one directory.
 *
 * Loaded with LD_PRELOAD. Each call that changes a file or a name there, or syncs it, is carried out
 * and logged under one mutex, so that the order of the log is the order of the changes. fallocate is
 * caught on its way to the kernel too, since rustix goes there by itself. What else does not go through
 * libc is not seen; the tests compare a replay of the log with the directory.
 *
 * POWERCUT_ROOT   the directory, without symbolic links
 * POWERCUT_LOG    the log, to which is appended; entries as in log.rs
 * POWERCUT_FULL   how many bytes its files may have in sum: past it, ENOSPC, after a short write
 * POWERCUT_KILL   SIGKILL before the change (or sync) of this number, from 1
 * POWERCUT_LOSE   "files" or "directories": their syncs do nothing, and are not logged
 *
 * Opening "/powercut/<text>" logs the text and fails with ENOENT. "/powercut/!exit" ends the process,
 * in the middle of everything except of a change and its entry.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#define MARK "/powercut/"

enum kind { CREATE = 1, SIZE, WRITE, ALLOCATE, RENAME, UNLINK, MKDIR, RMDIR, SYNC, SYNC_ALL, SYNC_RANGE, NOTE, LINK };

struct entry {
    uint32_t kind, mode, name, more; /* name, more: the lengths of what follows the entry */
    uint64_t inode, offset, length, size; /* size: of the bytes that follow name and more */
};

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static size_t root_length;
static int log_fd = -1;
static int lose_files, lose_directories;
static int limited;
static int64_t room;
static long kill_at, changes;

static int add(const char *path, const struct stat *stat, int type, struct FTW *ftw) {
    (void)path;
    (void)ftw;
    if (type == FTW_F) room -= stat->st_size;
    return 0;
}

static void catch_allocations(void);

__attribute__((constructor)) static void start(void) {
    const char *log = getenv("POWERCUT_LOG"), *full = getenv("POWERCUT_FULL");
    const char *number = getenv("POWERCUT_KILL"), *lose = getenv("POWERCUT_LOSE");
    root = getenv("POWERCUT_ROOT");
    if (!root || !log) return;
    root_length = strlen(root);
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    lose_files = lose && !strcmp(lose, "files");
    lose_directories = lose && !strcmp(lose, "directories");
    kill_at = number ? atol(number) : 0;
    catch_allocations();
    if (full) {
        limited = 1;
        room = atoll(full);
        nftw(root, add, 16, FTW_PHYS);
    }
}

static void lock(void) { pthread_mutex_lock(&gate); }

/* Keeps what the call has said. */
static long unlock(long result) {
    int error = errno;
    pthread_mutex_unlock(&gate);
    errno = error;
    return result;
}

/* Before each change, with the gate held. */
static void step(void) {
    if (++changes == kill_at) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
}

static void put(struct entry *entry, const char *name, const char *more, const void *bytes) {
    int error = errno;
    entry->name = name ? strlen(name) : 0;
    entry->more = more ? strlen(more) : 0;
    struct iovec parts[] = {
        {entry, sizeof *entry}, {(void *)name, entry->name}, {(void *)more, entry->more}, {(void *)bytes, entry->size},
    };
    ssize_t whole = sizeof *entry + entry->name + entry->more + entry->size;
    if (syscall(SYS_writev, log_fd, parts, 4) != whole) _exit(97);
    errno = error;
}

static int inside(const char *path) {
    return log_fd >= 0 && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The path of an open file, which follows it when it is renamed. */
static int path_of(int fd, char *path) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

/* Whether it is ours; makes the path whole. */
static int ours(int dir, const char *path, char *whole) {
    int error = errno, length = 0;
    if (log_fd < 0 || !path) return 0;
    if (*path != '/') {
        if (dir == AT_FDCWD ? !getcwd(whole, PATH_MAX) : !path_of(dir, whole)) return errno = error, 0;
        length = strlen(whole);
        whole[length++] = '/';
    }
    snprintf(whole + length, PATH_MAX - length, "%s", path);
    length = strlen(whole);
    while (length > 1 && whole[length - 1] == '/') whole[--length] = 0;
    errno = error;
    return inside(whole);
}

static int ours_open(int fd, struct stat *stat) {
    char path[PATH_MAX];
    int error = errno;
    int is = log_fd >= 0 && path_of(fd, path) && inside(path) && !fstat(fd, stat);
    errno = error;
    return is;
}

/* How much of so many bytes there is room for when the file comes to end at `end`. */
static int64_t granted(int64_t size, int64_t end) {
    if (!limited || end <= size) return end;
    if (end - size > room) end = size + (room > 0 ? room : 0);
    return end;
}

static void grown(int64_t before, int64_t after) {
    if (limited) room -= after - before;
}

static long full(void) {
    errno = ENOSPC;
    return unlock(-1);
}

/* ===== names ===== */

static int open_at(int dir, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    if (log_fd >= 0 && path && !strncmp(path, MARK, sizeof MARK - 1)) {
        const char *text = path + sizeof MARK - 1;
        struct entry entry = {.kind = NOTE};
        lock();
        put(&entry, text, 0, 0);
        if (!strcmp(text, "!exit")) syscall(SYS_exit_group, 0);
        errno = ENOENT;
        return unlock(-1);
    }
    if (!(flags & (O_CREAT | O_TRUNC)) || !ours(dir, path, whole)) return syscall(SYS_openat, dir, path, flags, mode);
    struct stat old = {0}, new;
    lock();
    step();
    int was = !stat(whole, &old);
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0 && !was && !fstat(fd, &new)) {
        struct entry entry = {.kind = CREATE, .inode = new.st_ino};
        put(&entry, whole, 0, 0);
    } else if (fd >= 0 && (flags & O_TRUNC) && old.st_size > 0) {
        struct entry entry = {.kind = SIZE, .inode = old.st_ino};
        put(&entry, 0, 0, 0);
        grown(old.st_size, 0);
    }
    return unlock(fd);
}

#define MODE(flags, mode)                                      \
    mode_t mode = 0;                                           \
    if (flags & (O_CREAT | O_TMPFILE)) {                       \
        va_list rest;                                          \
        va_start(rest, flags);                                 \
        mode = va_arg(rest, int);                              \
        va_end(rest);                                          \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags, mode) return open_at(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags, mode) return open_at(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int mkdirat(int dir, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    struct stat made;
    if (!ours(dir, path, whole)) return syscall(SYS_mkdirat, dir, path, mode);
    lock();
    step();
    int result = syscall(SYS_mkdirat, dir, path, mode);
    if (!result && !stat(whole, &made)) {
        struct entry entry = {.kind = MKDIR, .inode = made.st_ino};
        put(&entry, whole, 0, 0);
    }
    return unlock(result);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int dir, const char *path, int flags) {
    char whole[PATH_MAX];
    struct stat gone;
    if (!ours(dir, path, whole)) return syscall(SYS_unlinkat, dir, path, flags);
    lock();
    step();
    int was = !lstat(whole, &gone);
    int result = syscall(SYS_unlinkat, dir, path, flags);
    if (!result) {
        struct entry entry = {.kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK};
        put(&entry, whole, 0, 0);
        if (was && S_ISREG(gone.st_mode) && gone.st_nlink == 1) grown(gone.st_size, 0);
    }
    return unlock(result);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

/* From outside to inside, or back, is more than a log can tell: such a call does not belong here. */
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    struct stat gone;
    int first = ours(from_dir, from, source), second = ours(to_dir, to, target);
    if (!first && !second) return syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (first != second || (flags & RENAME_EXCHANGE)) return errno = EXDEV, -1;
    lock();
    step();
    int was = !lstat(target, &gone);
    int result = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (!result) {
        struct entry entry = {.kind = RENAME};
        put(&entry, source, target, 0);
        if (was && S_ISREG(gone.st_mode) && gone.st_nlink == 1) grown(gone.st_size, 0);
    }
    return unlock(result);
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) { return renameat2(from_dir, from, to_dir, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int first = ours(from_dir, from, source), second = ours(to_dir, to, target);
    if (!first && !second) return syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (first != second) return errno = EXDEV, -1;
    lock();
    step();
    int result = syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (!result) {
        struct entry entry = {.kind = LINK};
        put(&entry, source, target, 0);
    }
    return unlock(result);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

/* ===== bytes ===== */

/* At the file's own position if `at` is negative. */
static ssize_t write_at(int fd, const void *bytes, size_t count, off_t at) {
    struct stat stat;
    if (!ours_open(fd, &stat))
        return at < 0 ? syscall(SYS_write, fd, bytes, count) : syscall(SYS_pwrite64, fd, bytes, count, at);
    lock();
    step();
    fstat(fd, &stat);
    int appends = fcntl(fd, F_GETFL) & O_APPEND;
    off_t start = appends ? stat.st_size : at < 0 ? lseek(fd, 0, SEEK_CUR) : at;
    int64_t end = granted(stat.st_size, start + (int64_t)count);
    if (count && end <= start) return full();
    count = end - start;
    ssize_t result = at < 0 ? syscall(SYS_write, fd, bytes, count) : syscall(SYS_pwrite64, fd, bytes, count, at);
    if (result > 0) {
        struct entry entry = {.kind = WRITE, .inode = stat.st_ino, .offset = start, .size = result};
        put(&entry, 0, 0, bytes);
        if (start + result > stat.st_size) grown(stat.st_size, start + result);
    }
    return unlock(result);
}

ssize_t write(int fd, const void *bytes, size_t count) { return write_at(fd, bytes, count, -1); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return write_at(fd, bytes, count, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) { return write_at(fd, bytes, count, at); }

/* One after the other, with a short write in between where there is one: all that is promised. */
static ssize_t write_parts(int fd, const struct iovec *parts, int count, off_t at) {
    ssize_t sum = 0;
    for (int i = 0; i < count; i++) {
        ssize_t result = write_at(fd, parts[i].iov_base, parts[i].iov_len, at < 0 ? at : at + sum);
        if (result < 0) return sum ? sum : -1;
        sum += result;
        if ((size_t)result < parts[i].iov_len) break;
    }
    return sum;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct stat stat;
    if (!ours_open(fd, &stat)) return syscall(SYS_writev, fd, parts, count);
    return write_parts(fd, parts, count, -1);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return write_parts(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return write_parts(fd, parts, count, at); }

static int resize(int fd, off_t length) {
    struct stat stat;
    if (!ours_open(fd, &stat)) return syscall(SYS_ftruncate, fd, length);
    lock();
    step();
    fstat(fd, &stat);
    if (granted(stat.st_size, length) < length) return full();
    int result = syscall(SYS_ftruncate, fd, length);
    if (!result) {
        struct entry entry = {.kind = SIZE, .inode = stat.st_ino, .length = length};
        put(&entry, 0, 0, 0);
        grown(stat.st_size, length);
    }
    return unlock(result);
}
int ftruncate(int fd, off_t length) { return resize(fd, length); }
int ftruncate64(int fd, off_t length) { return resize(fd, length); }
int truncate(const char *path, off_t length) {
    int fd = open_at(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int result = resize(fd, length), error = errno;
    close(fd);
    return errno = error, result;
}
int truncate64(const char *path, off_t length) { return truncate(path, length); }

/* The sixth argument of a call that has four: the kernel does not look at it, and the filter lets it pass. */
#define PASS 0x5ea3a11L

static int allocate(int fd, int mode, off_t offset, off_t length) {
    struct stat stat;
    if (!ours_open(fd, &stat)) return syscall(SYS_fallocate, fd, mode, offset, length, 0, PASS);
    if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) return errno = EOPNOTSUPP, -1;
    lock();
    step();
    fstat(fd, &stat);
    int64_t end = mode & FALLOC_FL_KEEP_SIZE ? stat.st_size : offset + length;
    if (granted(stat.st_size, end) < end) return full();
    int result = syscall(SYS_fallocate, fd, mode, offset, length, 0, PASS);
    if (!result) {
        struct entry entry = {.kind = ALLOCATE, .inode = stat.st_ino, .offset = offset, .length = length, .mode = mode};
        put(&entry, 0, 0, 0);
        if (end > stat.st_size) grown(stat.st_size, end);
    }
    return unlock(result);
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return allocate(fd, mode, offset, length); }
int fallocate64(int fd, int mode, off_t offset, off_t length) { return allocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) { return allocate(fd, 0, offset, length) ? errno : 0; }
int posix_fallocate64(int fd, off_t offset, off_t length) { return posix_fallocate(fd, offset, length); }

#if defined(__x86_64__)
#define ARGUMENT(context, number) ((context)->uc_mcontext.gregs[(int[]){REG_RDI, REG_RSI, REG_RDX, REG_R10}[number]])
#define RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARGUMENT(context, number) ((context)->uc_mcontext.regs[number])
#define RESULT(context) ((context)->uc_mcontext.regs[0])
#else
#error "say here where a system call has its arguments"
#endif

/* In the place of a call that the filter has stopped. */
static void caught(int signal, siginfo_t *info, void *where) {
    ucontext_t *context = where;
    int error = errno;
    (void)signal;
    (void)info;
    int result = allocate(ARGUMENT(context, 0), ARGUMENT(context, 1), ARGUMENT(context, 2), ARGUMENT(context, 3));
    RESULT(context) = result ? -errno : 0;
    errno = error;
}

static void catch_allocations(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PASS, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    sigaction(SIGSYS, &action, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) _exit(98);
}

/* Where these are missing, std reads and writes, which is seen. */
ssize_t copy_file_range(int from, off_t *at, int to, off_t *to_at, size_t length, unsigned flags) {
    struct stat stat;
    if (ours_open(to, &stat)) return errno = ENOSYS, -1;
    return syscall(SYS_copy_file_range, from, at, to, to_at, length, flags);
}
ssize_t sendfile(int to, int from, off_t *at, size_t length) {
    struct stat stat;
    if (ours_open(to, &stat)) return errno = ENOSYS, -1;
    return syscall(SYS_sendfile, to, from, at, length);
}
ssize_t sendfile64(int to, int from, off_t *at, size_t length) { return sendfile(to, from, at, length); }

/* ===== syncs ===== */

static int synced(int fd, long number) {
    struct stat stat;
    if (!ours_open(fd, &stat)) return syscall(number, fd);
    lock();
    step();
    if (S_ISDIR(stat.st_mode) ? lose_directories : lose_files) return unlock(0);
    int result = syscall(number, fd);
    if (!result) {
        struct entry entry = {.kind = SYNC, .inode = stat.st_ino};
        put(&entry, 0, 0, 0);
    }
    return unlock(result);
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int syncfs(int fd) {
    struct stat stat;
    if (!ours_open(fd, &stat)) return syscall(SYS_syncfs, fd);
    lock();
    step();
    int result = syscall(SYS_syncfs, fd);
    if (!result && !lose_files && !lose_directories) {
        struct entry entry = {.kind = SYNC_ALL};
        put(&entry, 0, 0, 0);
    }
    return unlock(result);
}

int sync_file_range(int fd, off_t offset, off_t length, unsigned flags) {
    struct stat stat;
    if (!ours_open(fd, &stat)) return syscall(SYS_sync_file_range, fd, offset, length, flags);
    lock();
    step();
    int result = syscall(SYS_sync_file_range, fd, offset, length, flags);
    struct entry entry = {.kind = SYNC_RANGE, .inode = stat.st_ino, .offset = offset, .length = length};
    put(&entry, 0, 0, 0);
    return unlock(result);
}
