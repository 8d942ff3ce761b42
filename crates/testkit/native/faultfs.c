/*
 * An I/O layer between a program and the file system, for tests: loaded by LD_PRELOAD, it watches the files below one
 * folder. It
 *   - keeps a journal of what each change replaced, and of every sync, so that after a kill the harness can take back what
 *     was not synced, as a power cut would;
 *   - fails the Nth write, sync or change of a name with an errno of the harness's choice, or kills the program there.
 *
 * What it deliberately does not do: it undoes nothing itself (testkit's `faults` does, with the program dead), it sees no
 * memory-mapped writes (SQLite's -shm is the only such file, and the harness drops it), and it passes no sync on to the
 * disk: durability is the journal's affair here.
 *
 * Everything that touches a watched file happens under one lock, and the journal's record is written before the change it
 * is about. A kill between the two leaves a record whose undoing changes nothing.
 *
 * Journal, little-endian, records one behind the other:
 *   'W' u64 inode, u64 offset, u64 length of the change, u64 old length of the file, u32 n, n bytes that were there
 *                                                                                before a write, truncation, allocation
 *   'S' u64 inode                                                                after a sync
 *   'O' u64 inode, u64 offset, u64 length                                        after a write that was synchronous by itself
 *   'F' u64 inode                                                                after a sync that was made to fail
 *   'C' path                                                                     before a name is created
 *   'R' u64 inode, u64 replaced inode or 0, path from, path to                   before a rename
 *   'U' u64 inode, path                                                          before a name is removed
 *   'D' path                                                                     after a folder's sync
 *   'A'                                                                          after a sync of the file system: of content, no names
 * where a path is u32 length and bytes. A file whose last name may go is kept by a second name, its inode number, in the
 * folder of graves.
 *
 * Control file, mapped: u32 times left to fail, u32 calls to let pass first, u32 classes, u32 errno, u32 calls counted,
 * u32 calls failed, u32 syncs that lie, u32 unused; then at 64 a part of the path that must be in it to count (16 bytes),
 * and at 128 the watched folder.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, NAMES = 4 };
enum { MOST_FILES = 4096, PATH_ROOM = 1024 };
/* Stands for an errno: the program is killed instead. */
enum { DEATH = 100000 };

struct control {
    volatile uint32_t times, skip, classes, error, counted, failed, lying, unused;
    char pad[32];
    volatile char only[64];
    volatile char folder[PATH_ROOM];
};

struct file {
    int watched;
    int is_folder;
    int is_synchronous;
    uint64_t inode;
    char path[PATH_ROOM];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct control *control;
static int journal = -1;
static char graves[PATH_ROOM];
static struct file files[MOST_FILES];

#define REAL(result, name, arguments)                                                                                            \
    static result(*real_##name) arguments;                                                                                       \
    static void find_##name(void) { real_##name = (result(*) arguments)dlsym(RTLD_NEXT, #name); }
REAL(int, open, (const char *, int, ...))
REAL(int, openat, (int, const char *, int, ...))
REAL(int, close, (int))
REAL(ssize_t, write, (int, const void *, size_t))
REAL(ssize_t, pwrite, (int, const void *, size_t, off_t))
REAL(ssize_t, writev, (int, const struct iovec *, int))
REAL(ssize_t, pwritev, (int, const struct iovec *, int, off_t))
REAL(int, ftruncate, (int, off_t))
REAL(int, fallocate, (int, int, off_t, off_t))
REAL(int, posix_fallocate, (int, off_t, off_t))
REAL(int, renameat, (int, const char *, int, const char *))
REAL(int, unlinkat, (int, const char *, int))
REAL(int, syncfs, (int))
REAL(int, fsync, (int))
REAL(int, fdatasync, (int))
REAL(int, dup, (int))
REAL(int, dup2, (int, int))
REAL(int, dup3, (int, int, int))
REAL(int, fcntl, (int, int, ...))

__attribute__((constructor)) static void begin(void) {
    find_open(), find_openat(), find_close(), find_write(), find_pwrite(), find_writev(), find_pwritev(), find_ftruncate();
    find_fallocate(), find_posix_fallocate(), find_fsync(), find_fdatasync();
    find_renameat(), find_unlinkat(), find_syncfs();
    find_dup(), find_dup2(), find_dup3(), find_fcntl();
    const char *where = getenv("CLAVIGER_FAULTS");
    if (!where || strlen(where) > PATH_ROOM - 32)
        return;
    char path[PATH_ROOM];
    snprintf(graves, sizeof graves, "%s/graves", where);
    snprintf(path, sizeof path, "%s/control", where);
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    real_close(fd);
    snprintf(path, sizeof path, "%s/journal", where);
    journal = real_open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (mapped != MAP_FAILED && journal >= 0)
        control = mapped;
}

/* The absolute path, if it is below the watched folder. */
static int is_watched(int at, const char *path, char *absolute) {
    /* A folder that is opened to be listed is closed behind our back. */
    if (!control || !path || !control->folder[0] || !strcmp(path, "."))
        return 0;
    if (path[0] == '/') {
        if (snprintf(absolute, PATH_ROOM, "%s", path) >= PATH_ROOM)
            return 0;
    } else {
        char base[PATH_ROOM / 2];
        if (at >= 0 && at < MOST_FILES && files[at].watched)
            snprintf(base, sizeof base, "%.500s", files[at].path);
        else if (at != AT_FDCWD || !getcwd(base, sizeof base))
            return 0;
        if (snprintf(absolute, PATH_ROOM, "%s/%s", base, path) >= PATH_ROOM)
            return 0;
    }
    size_t length = strlen((const char *)control->folder), own = strlen(absolute);
    if (strncmp(absolute, (const char *)control->folder, length) != 0 || (absolute[length] != '/' && absolute[length] != 0))
        return 0;
    return own < 4 || strcmp(absolute + own - 4, "-shm") != 0;
}

static struct file *watched(int fd) { return control && fd >= 0 && fd < MOST_FILES && files[fd].watched ? &files[fd] : NULL; }

/* Counts a call, and says whether it must fail, with errno set. */
static int must_fail(uint32_t class, const char *path) {
    if (!(control->classes & class) || (control->only[0] && !strstr(path, (const char *)control->only)))
        return 0;
    control->counted++;
    if (!control->times)
        return 0;
    if (control->skip) {
        control->skip--;
        return 0;
    }
    control->times--;
    control->failed++;
    if (control->error == DEATH) {
        kill(getpid(), SIGKILL);
        pause();
    }
    errno = (int)control->error;
    return 1;
}

/* A layer that cannot keep its journal would make every test pass: better no program. */
static _Noreturn void die(const char *what, const char *path) {
    dprintf(2, "fault layer: %s `%s`: %s\n", what, path, strerror(errno));
    abort();
}

struct record {
    size_t length;
    char bytes[4 * PATH_ROOM];
};

static void put(struct record *r, const void *bytes, size_t n) {
    memcpy(r->bytes + r->length, bytes, n);
    r->length += n;
}

static void put_number(struct record *r, uint64_t n) { put(r, &n, 8); }

static void put_path(struct record *r, const char *path) {
    uint32_t n = (uint32_t)strlen(path);
    put(r, &n, 4);
    put(r, path, n);
}

static void keep(const struct record *r, const void *more, size_t n) {
    struct iovec parts[2] = {{(void *)r->bytes, r->length}, {(void *)more, n}};
    if (real_writev(journal, parts, n ? 2 : 1) != (ssize_t)(r->length + n))
        die("writing", "journal");
}

static void keep_inode(char tag, uint64_t inode) {
    struct record r = {0};
    put(&r, &tag, 1), put_number(&r, inode);
    keep(&r, NULL, 0);
}

/* Journals what `n` bytes at `offset` are about to replace. */
static void keep_old(int fd, const struct file *f, uint64_t offset, uint64_t n) {
    struct stat now;
    if (fstat(fd, &now) != 0)
        die("looking at", f->path);
    uint64_t length = (uint64_t)now.st_size;
    uint64_t end = offset + n < length ? offset + n : length;
    uint32_t size = offset < end ? (uint32_t)(end - offset) : 0;
    char *old = size ? malloc(size) : NULL;
    if (size && (!old || pread(fd, old, size, (off_t)offset) != (ssize_t)size))
        die("reading", f->path);
    struct record r = {0};
    put(&r, "W", 1), put_number(&r, f->inode), put_number(&r, offset), put_number(&r, n), put_number(&r, length), put(&r, &size, 4);
    keep(&r, old, size);
    free(old);
}

static uint64_t inode_of(const char *path) {
    struct stat now;
    return lstat(path, &now) == 0 && S_ISREG(now.st_mode) ? (uint64_t)now.st_ino : 0;
}

/* A second name, so that the file outlives the one it is about to lose. */
static void bury(const char *path, uint64_t inode) {
    char grave[PATH_ROOM + 32];
    snprintf(grave, sizeof grave, "%s/%llu", graves, (unsigned long long)inode);
    if (inode && link(path, grave) != 0 && errno != EEXIST)
        die("burying", path);
}

static void remember(int fd, const char *path, int flags) {
    struct stat now;
    if (fd < 0 || fd >= MOST_FILES || fstat(fd, &now) != 0)
        return;
    struct file *f = &files[fd];
    f->is_folder = S_ISDIR(now.st_mode);
    f->is_synchronous = (flags & O_DSYNC) != 0;
    f->inode = (uint64_t)now.st_ino;
    f->watched = f->is_folder || S_ISREG(now.st_mode);
    snprintf(f->path, sizeof f->path, "%s", path);
}

static int open_watched(const char *path, int flags, mode_t mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    /* What was there must be readable, to be kept. */
    if ((flags & O_ACCMODE) == O_WRONLY)
        flags = (flags & ~O_ACCMODE) | O_RDWR;
    /* Unaligned reading of what was there must work; all else stays as it is. */
    flags &= ~O_DIRECT;
    int is_new = (flags & O_CREAT) && access(path, F_OK) != 0;
    if (is_new) {
        if (must_fail(NAMES, path))
            return -1;
        struct record r = {0};
        put(&r, "C", 1), put_path(&r, path);
        keep(&r, NULL, 0);
    }
    int fd = real_open(path, flags & ~O_TRUNC, mode);
    if (fd < 0)
        return fd;
    remember(fd, path, flags);
    struct file *f = watched(fd);
    if (f && writes && (flags & O_TRUNC) && !is_new) {
        keep_old(fd, f, 0, INT32_MAX);
        if (real_ftruncate(fd, 0) != 0)
            die("truncating", path);
    }
    return fd;
}

static int open_any(int at, const char *path, int flags, mode_t mode) {
    char absolute[PATH_ROOM];
    if (!is_watched(at, path, absolute))
        return at == AT_FDCWD ? real_open(path, flags, mode) : real_openat(at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = open_watched(absolute, flags, mode);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags)                                                                                                              \
    mode_t mode = 0;                                                                                                             \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                                     \
        va_list rest;                                                                                                            \
        va_start(rest, flags);                                                                                                   \
        mode = va_arg(rest, mode_t);                                                                                             \
        va_end(rest);                                                                                                            \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return open_any(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags)
    return open_any(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    return open_any(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    return open_any(at, path, flags, mode);
}
int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    if (watched(fd)) {
        pthread_mutex_lock(&lock);
        files[fd].watched = 0;
        pthread_mutex_unlock(&lock);
    }
    return real_close(fd);
}

/* A second descriptor of the same file. */
static int also(int from, int to) {
    if (to >= 0 && to < MOST_FILES && to != from) {
        pthread_mutex_lock(&lock);
        if (watched(from))
            files[to] = files[from];
        else
            files[to].watched = 0;
        pthread_mutex_unlock(&lock);
    }
    return to;
}

int dup(int fd) { return also(fd, real_dup(fd)); }
int dup2(int fd, int to) { return also(fd, real_dup2(fd, to)); }
int dup3(int fd, int to, int flags) { return also(fd, real_dup3(fd, to, flags)); }
int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int result = real_fcntl(fd, command, argument);
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? also(fd, result) : result;
}
int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return fcntl(fd, command, argument);
}

/* Makes a synchronous write durable; false when that is to fail. */
static int sync_written(const struct file *f, uint64_t offset, uint64_t n) {
    if (must_fail(SYNCS, f->path))
        return 0;
    if (!control->lying) {
        struct record r = {0};
        put(&r, "O", 1), put_number(&r, f->inode), put_number(&r, offset), put_number(&r, n);
        keep(&r, NULL, 0);
    }
    return 1;
}

/* Runs `act` as a change of `n` bytes at `offset` of a watched file. */
#define CHANGE(fd, offset, n, act, failed)                                                                                       \
    pthread_mutex_lock(&lock);                                                                                                   \
    struct file *f = watched(fd);                                                                                                \
    __typeof__(act) result;                                                                                                      \
    if (f && must_fail(WRITES, f->path)) {                                                                                       \
        result = (failed);                                                                                                       \
    } else {                                                                                                                     \
        uint64_t at = (uint64_t)(offset);                                                                                        \
        if (f)                                                                                                                   \
            keep_old(fd, f, at, (uint64_t)(n));                                                                                  \
        result = (act);                                                                                                          \
        if (f && f->is_synchronous && result >= 0 && !sync_written(f, at, (uint64_t)(n)))                                        \
            result = (failed);                                                                                                   \
    }                                                                                                                            \
    int error = errno;                                                                                                           \
    pthread_mutex_unlock(&lock);                                                                                                 \
    errno = error;                                                                                                               \
    return result;

static off_t place(int fd) {
    if (real_fcntl(fd, F_GETFL) & O_APPEND) {
        struct stat now;
        return fstat(fd, &now) == 0 ? now.st_size : 0;
    }
    off_t at = lseek(fd, 0, SEEK_CUR);
    return at < 0 ? 0 : at;
}

static size_t total(const struct iovec *parts, int count) {
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += parts[i].iov_len;
    return sum;
}

ssize_t write(int fd, const void *bytes, size_t n) {
    if (!watched(fd))
        return real_write(fd, bytes, n);
    CHANGE(fd, place(fd), n, real_write(fd, bytes, n), -1)
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset) {
    if (!watched(fd))
        return real_pwrite(fd, bytes, n, offset);
    CHANGE(fd, offset, n, real_pwrite(fd, bytes, n, offset), -1)
}
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t offset) { return pwrite(fd, bytes, n, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!watched(fd))
        return real_writev(fd, parts, count);
    CHANGE(fd, place(fd), total(parts, count), real_writev(fd, parts, count), -1)
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    if (!watched(fd))
        return real_pwritev(fd, parts, count, offset);
    CHANGE(fd, offset, total(parts, count), real_pwritev(fd, parts, count, offset), -1)
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) { return pwritev(fd, parts, count, offset); }
int ftruncate(int fd, off_t length) {
    if (!watched(fd))
        return real_ftruncate(fd, length);
    CHANGE(fd, length, INT32_MAX, real_ftruncate(fd, length), -1)
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }
int fallocate(int fd, int mode, off_t offset, off_t length) {
    if (!watched(fd))
        return real_fallocate(fd, mode, offset, length);
    CHANGE(fd, offset, mode ? (uint64_t)length : 0, real_fallocate(fd, mode, offset, length), -1)
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) {
    if (!watched(fd))
        return real_posix_fallocate(fd, offset, length);
    CHANGE(fd, offset, 0, real_posix_fallocate(fd, offset, length), errno)
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return posix_fallocate(fd, offset, length); }

static int sync_any(int fd, int (*real)(int)) {
    if (!watched(fd))
        return real(fd);
    pthread_mutex_lock(&lock);
    struct file *f = watched(fd);
    int result = 0;
    if (f && must_fail(SYNCS, f->path)) {
        /* As Linux has it: the pages count as clean now, and a later sync has nothing to write. */
        if (!f->is_folder)
            keep_inode('F', f->inode);
        errno = (int)control->error;
        result = -1;
    } else if (f && !control->lying) {
        if (f->is_folder) {
            struct record r = {0};
            put(&r, "D", 1), put_path(&r, f->path);
            keep(&r, NULL, 0);
        } else {
            keep_inode('S', f->inode);
        }
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int fsync(int fd) { return sync_any(fd, real_fsync); }
int fdatasync(int fd) { return sync_any(fd, real_fdatasync); }

int syncfs(int fd) {
    if (!watched(fd))
        return real_syncfs(fd);
    pthread_mutex_lock(&lock);
    struct file *f = watched(fd);
    int result = f && must_fail(SYNCS, f->path) ? -1 : 0;
    if (f && !result && !control->lying) {
        struct record r = {0};
        put(&r, "A", 1);
        keep(&r, NULL, 0);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int renameat(int at, const char *from, int bt, const char *to) {
    char a[PATH_ROOM], b[PATH_ROOM];
    if (!is_watched(at, from, a) || !is_watched(bt, to, b))
        return real_renameat(at, from, bt, to);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!must_fail(NAMES, b)) {
        uint64_t moved = inode_of(a), replaced = inode_of(b);
        if (moved) {
            bury(b, replaced);
            struct record r = {0};
            put(&r, "R", 1), put_number(&r, moved), put_number(&r, replaced), put_path(&r, a), put_path(&r, b);
            keep(&r, NULL, 0);
        }
        result = real_renameat(at, from, bt, to);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int at, const char *path, int flags) {
    char absolute[PATH_ROOM];
    if (flags || !is_watched(at, path, absolute))
        return real_unlinkat(at, path, flags);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!must_fail(NAMES, absolute)) {
        uint64_t inode = inode_of(absolute);
        if (inode) {
            bury(absolute, inode);
            struct record r = {0};
            put(&r, "U", 1), put_number(&r, inode), put_path(&r, absolute);
            keep(&r, NULL, 0);
        }
        result = real_unlinkat(at, path, flags);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
