/* A disk that fails, loses its power, and a clock that jumps, for one program: loaded into it by LD_PRELOAD.
 *
 * What it does is told by a page of memory that the test shares with it (FAULTS_CONTROL), from one call to the next:
 *
 * - the clock of the wall stands elsewhere, or still;
 * - a call on a file of one folder (FAULTS_FOLDER) fails with an error of its own, or kills the program, after so many;
 * - what is synced, and nothing else, is copied into another folder (FAULTS_IMAGE): what a disk holds that loses its
 *   power. Unlinks and renames are copied at once, or, if asked for, renames and links once the folder is synced; and
 *   so are other writes at random, if asked for: a disk may also keep what nobody waited for.
 *
 * A file is read through the descriptor that the program itself has, where it can be: opening and closing another one
 * would take the program's POSIX locks away, by which SQLite knows who else is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The same as in shim.rs. */
struct control {
    volatile int64_t clock_offset; /* nanoseconds */
    volatile int64_t clock_frozen; /* nanoseconds since 1970; 0: it goes */
    volatile int64_t ops;          /* which calls count */
    volatile int64_t after;        /* how many go well */
    volatile int64_t error;        /* of those behind them; 0: SIGKILL */
    volatile int64_t seen;         /* how many there were */
    volatile int64_t power;        /* POWER_… */
    volatile int64_t synced;       /* how often a file was synced and copied */
    char suffix[32];               /* of the names of the files that count; empty: all; a slash: the folder itself */
    volatile int64_t seed;         /* of what comes at random */
    volatile int64_t most;         /* how many fail; 0: all */
    char thread[16];               /* name of the one that counts; empty: all */
    volatile int64_t behind;       /* such calls, of whatever thread, behind the first that failed */
};

enum { OP_WRITE = 1, OP_SYNC = 2, OP_READ = 4, OP_TRUNCATE = 8 };
enum { POWER_COPY = 1, POWER_FORGETS_LOG = 2, POWER_MIXED = 4, POWER_NAMES = 8 };

static struct control nothing;
static struct control *control = &nothing;
static const char *folder, *image;
static size_t folder_length;
static pthread_mutex_t copying = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))
#define SLOT(name) static void *real_##name

static void *real(void **slot, const char *name)
{
    if (!*slot)
        *slot = dlsym(RTLD_NEXT, name);
    return *slot;
}

SLOT(clock_gettime);
SLOT(write);
SLOT(writev);
SLOT(pwrite);
SLOT(read);
SLOT(pread);
SLOT(fsync);
SLOT(fdatasync);
SLOT(ftruncate);
SLOT(unlink);
SLOT(rename);
SLOT(linkat);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAULTS_CONTROL");
    folder = getenv("FAULTS_FOLDER");
    image = getenv("FAULTS_IMAGE");
    folder_length = folder ? strlen(folder) : 0;
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        control = page;
}

/* The name of a file that stands in the folder, empty for the folder itself, or NULL. */
static const char *name_in_folder(const char *path)
{
    if (!folder || strncmp(path, folder, folder_length) != 0)
        return NULL;
    if (!path[folder_length])
        return path + folder_length;
    if (path[folder_length] != '/')
        return NULL;
    const char *name = path + folder_length + 1;
    return strchr(name, '/') ? NULL : name;
}

static int ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* As name_in_folder, of what is open; path has PATH_MAX bytes. */
static const char *name_of(int fd, char *path)
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0)
        return NULL;
    path[length] = 0;
    return name_in_folder(path);
}

/* Whether this call fails; errno says how. */
static int fails(int op, int fd)
{
    if (!(control->ops & op))
        return 0;
    int before = errno;
    char path[PATH_MAX], thread[16] = "";
    const char *name = name_of(fd, path);
    prctl(PR_GET_NAME, thread);
    errno = before;
    int counts = name && (strcmp(control->suffix, "/") == 0 ? !*name : ends_with(name, control->suffix));
    if (!counts)
        return 0;
    /* SQLite does not say why this one could not grow: the server looks how much room there is, here enough. */
    if (control->error == ENOSPC && ends_with(name, "-shm"))
        return 0;
    if (control->seen > control->after)
        __atomic_add_fetch(&control->behind, 1, __ATOMIC_SEQ_CST);
    if (control->thread[0] && strcmp(thread, control->thread) != 0)
        return 0;
    int64_t seen = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST), failing = seen - control->after;
    if (failing <= 0 || (control->most && failing > control->most))
        return 0;
    if (!control->error)
        syscall(SYS_kill, getpid(), SIGKILL);
    errno = (int)control->error;
    return 1;
}

/* Names that are not on the disk before the folder is synced. Until then a file stands in the image under that of
 * `into`, with a word before it. */
struct naming {
    char from[NAME_MAX + 1], into[NAME_MAX + 1];
    int is_move, is_due;
};
static struct naming namings[16];
#define UNNAMED ".unnamed-"

static void path_in_image(char *path, const char *word, const char *name)
{
    snprintf(path, PATH_MAX, "%s/%s%s", image, word, name);
}

static void name_later(const char *from, const char *into, int is_move)
{
    char old[PATH_MAX], kept[PATH_MAX];
    path_in_image(old, "", from);
    path_in_image(kept, UNNAMED, into);
    pthread_mutex_lock(&copying);
    for (size_t n = 0; n < sizeof namings / sizeof *namings; n++) {
        if (namings[n].is_due)
            continue;
        snprintf(namings[n].from, sizeof namings[n].from, "%s", from);
        snprintf(namings[n].into, sizeof namings[n].into, "%s", into);
        namings[n].is_move = is_move;
        namings[n].is_due = REAL(linkat)(AT_FDCWD, old, AT_FDCWD, kept, 0) == 0;
        break;
    }
    pthread_mutex_unlock(&copying);
}

static void name_now(void)
{
    char path[PATH_MAX], kept[PATH_MAX];
    pthread_mutex_lock(&copying);
    for (size_t n = 0; n < sizeof namings / sizeof *namings; n++) {
        if (!namings[n].is_due)
            continue;
        path_in_image(kept, UNNAMED, namings[n].into);
        path_in_image(path, "", namings[n].into);
        REAL(rename)(kept, path);
        if (namings[n].is_move) {
            path_in_image(path, "", namings[n].from);
            REAL(unlink)(path);
        }
        namings[n].is_due = 0;
    }
    pthread_mutex_unlock(&copying);
}

/* What was written of a file since it was last synced: from its first to its last byte. */
struct dirty {
    dev_t device;
    ino_t inode;
    off_t from, to;
};
static struct dirty dirty[64];

static struct dirty *dirty_of(const struct stat *file, int make)
{
    struct dirty *unused = NULL;
    for (size_t n = 0; n < sizeof dirty / sizeof *dirty; n++) {
        if (dirty[n].inode == file->st_ino && dirty[n].device == file->st_dev)
            return &dirty[n];
        if (!unused && !dirty[n].inode)
            unused = &dirty[n];
    }
    if (!make || !unused)
        return NULL;
    /* What was there before is copied as well the first time. */
    *unused = (struct dirty){file->st_dev, file->st_ino, 0, 0};
    return unused;
}

/* What comes next at random, under the lock of the copies; by splitmix64. */
static int is_heads(void)
{
    static uint64_t drawn;
    uint64_t next = (uint64_t)control->seed + ++drawn * UINT64_C(0x9e3779b97f4a7c15);
    next = (next ^ (next >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    next = (next ^ (next >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (int)((next ^ (next >> 31)) & 1);
}

static int open_image(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", image, name);
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

/* Room that is only held has nothing to lose, and the lock's note is nobody's data. */
static int is_copied(const char *name)
{
    return image && (control->power & POWER_COPY) && !ends_with(name, ".reserve") && !ends_with(name, ".lock")
        && !ends_with(name, "-shm");
}

static void copy(int fd, int into, off_t at, off_t end)
{
    static char block[65536];
    /* What can only be written has no locks of SQLite's to lose. */
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int is_unread = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY;
    int from = is_unread ? open(link, O_RDONLY | O_CLOEXEC) : fd;
    while (at < end) {
        size_t most = (size_t)(end - at) < sizeof block ? (size_t)(end - at) : sizeof block;
        ssize_t got = REAL(pread)(from, block, most, at);
        if (got <= 0 || REAL(pwrite)(into, block, (size_t)got, at) != got)
            break;
        at += got;
    }
    if (is_unread)
        close(from);
}

/* Behind a write of so many bytes that ended at this place. */
static void wrote(int fd, ssize_t count, off_t end)
{
    if (count <= 0 || !control->power)
        return;
    int before = errno;
    char path[PATH_MAX];
    struct stat file;
    const char *name = name_of(fd, path);
    if (name && is_copied(name) && fstat(fd, &file) == 0) {
        pthread_mutex_lock(&copying);
        struct dirty *known = dirty_of(&file, 1);
        if (known) {
            off_t from = end - count;
            if (known->from > from)
                known->from = from;
            if (known->to < end)
                known->to = end;
            if ((control->power & POWER_MIXED) && is_heads()) {
                int into = open_image(name);
                copy(fd, into, from, end);
                close(into);
            }
        }
        pthread_mutex_unlock(&copying);
    }
    errno = before;
}

/* Behind a sync that went well. */
static void synced(int fd)
{
    if (!control->power)
        return;
    int before = errno;
    char path[PATH_MAX];
    struct stat file;
    const char *name = name_of(fd, path);
    if (name && !*name && (control->power & POWER_NAMES))
        name_now();
    int forgotten = name && (control->power & POWER_FORGETS_LOG) && ends_with(name, "-wal");
    if (name && !forgotten && is_copied(name) && fstat(fd, &file) == 0 && S_ISREG(file.st_mode)) {
        pthread_mutex_lock(&copying);
        struct dirty *known = dirty_of(&file, 0);
        int into = open_image(name);
        struct stat there;
        off_t from = known ? known->from : 0, to = known ? known->to : file.st_size;
        copy(fd, into, from, to > file.st_size ? file.st_size : to);
        if (fstat(into, &there) == 0 && there.st_size != file.st_size && REAL(ftruncate)(into, file.st_size) != 0)
            abort();
        close(into);
        if (known)
            known->from = file.st_size, known->to = 0;
        control->synced++;
        pthread_mutex_unlock(&copying);
    }
    errno = before;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = REAL(clock_gettime)(clock, now);
    if (result != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return result;
    int64_t frozen = control->clock_frozen;
    int64_t at = frozen ? frozen : now->tv_sec * INT64_C(1000000000) + now->tv_nsec + control->clock_offset;
    now->tv_sec = at / 1000000000;
    now->tv_nsec = at % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    (void)zone;
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (now)
        *now = at.tv_sec;
    return at.tv_sec;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    if (fails(OP_WRITE, fd))
        return -1;
    ssize_t done = REAL(write)(fd, bytes, count);
    if (control->power)
        wrote(fd, done, lseek(fd, 0, SEEK_CUR));
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (fails(OP_WRITE, fd))
        return -1;
    ssize_t done = REAL(writev)(fd, parts, count);
    if (control->power)
        wrote(fd, done, lseek(fd, 0, SEEK_CUR));
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    if (fails(OP_WRITE, fd))
        return -1;
    ssize_t done = REAL(pwrite)(fd, bytes, count, at);
    wrote(fd, done, at + done);
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at)
{
    return pwrite(fd, bytes, count, at);
}

ssize_t read(int fd, void *bytes, size_t count)
{
    return fails(OP_READ, fd) ? -1 : REAL(read)(fd, bytes, count);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t at)
{
    return fails(OP_READ, fd) ? -1 : REAL(pread)(fd, bytes, count, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off_t at)
{
    return pread(fd, bytes, count, at);
}

int fsync(int fd)
{
    if (fails(OP_SYNC, fd))
        return -1;
    int result = REAL(fsync)(fd);
    if (result == 0)
        synced(fd);
    return result;
}

int fdatasync(int fd)
{
    if (fails(OP_SYNC, fd))
        return -1;
    int result = REAL(fdatasync)(fd);
    if (result == 0)
        synced(fd);
    return result;
}

int ftruncate(int fd, off_t length)
{
    return fails(OP_TRUNCATE, fd) ? -1 : REAL(ftruncate)(fd, length);
}

int ftruncate64(int fd, off_t length)
{
    return ftruncate(fd, length);
}

int unlink(const char *path)
{
    const char *name = name_in_folder(path);
    int result = REAL(unlink)(path);
    if (result == 0 && name && is_copied(name)) {
        char copied[PATH_MAX];
        snprintf(copied, sizeof copied, "%s/%s", image, name);
        REAL(unlink)(copied);
    }
    return result;
}

int rename(const char *from, const char *to)
{
    const char *old = name_in_folder(from), *name = name_in_folder(to);
    int result = REAL(rename)(from, to);
    if (result == 0 && old && name && (control->power & POWER_NAMES)) {
        name_later(old, name, 1);
    } else if (result == 0 && old && name && is_copied(name)) {
        char before[PATH_MAX], after[PATH_MAX];
        snprintf(before, sizeof before, "%s/%s", image, old);
        snprintf(after, sizeof after, "%s/%s", image, name);
        REAL(rename)(before, after);
    }
    return result;
}

int linkat(int from_folder, const char *from, int into_folder, const char *into, int flags)
{
    const char *old = name_in_folder(from), *name = name_in_folder(into);
    int result = REAL(linkat)(from_folder, from, into_folder, into, flags);
    if (result == 0 && old && name && (control->power & POWER_NAMES))
        name_later(old, name, 0);
    return result;
}
