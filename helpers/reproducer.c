/*
 * Build: cc -o reproducer reproducer.c -pthread
 * Exit status: 1 the kernel does again what is told above, 0 it does not, 2 this machine
 * can't show it (the last line says why).
 *
 * The tested memory lies in child processes, whose threads, the actors, do one operation
 * at a time; main() tells them what to do, reads the userfaultfds and compares.  The
 * program is at the end.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wunused-function"
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef PAGEMAP_SCAN
#define PAGEMAP_SCAN 0xc0606610
#endif
#define CATEGORIES 0x7fUL		/* PAGEMAP_SCAN's of Linux 6.7, without soft-dirty */
#define SCRATCH 0x600000000UL		/* shared by all, for structures and contents */
#define SCRATCH_BYTES (256UL << 20)
#define PAGE 4096UL
#define SECONDS 5			/* after which an answer or a message is held not to come */
/* pagemap's bits 63 to 61 and 58 to 56 */
#define LOOKS 0xe700000000000000UL

enum operation { SYSCALL, LOAD, STORE, ADD, COPY, VFORK, THREAD, FORK, ADOPT, RENUMBER, BATCH };

/* An operation of a batch, and what it came to: a value, and errno with the signal above it. */
struct entry {
	uint64_t argument[8];
	int64_t value;
	uint64_t fate;
};

struct actor {
	sem_t go, done;
	uint64_t argument[8];		/* the operation first */
	int64_t value;
	int error, signal, code;
	pid_t pid, tid;
	int root;			/* it is no other actor's child */
};

static struct actor *actors = MAP_FAILED;
static pid_t judge;

/* -- the actors */

static __thread sigjmp_buf trap;
static __thread struct actor *self;
static __thread volatile sig_atomic_t armed;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (!armed) {
		signal(number, SIG_DFL);
		return;
	}
	armed = 0;
	self->signal = number;
	self->code = info->si_code;
	siglongjmp(trap, 1);
}

static void on_interruption(int number)
{
	(void)number;
}

static void touch(struct actor *actor)
{
	uint64_t *a = actor->argument, i;
	volatile uint64_t *word = (volatile uint64_t *)a[1];

	if (sigsetjmp(trap, 0))
		return;
	armed = 1;
	switch (a[0]) {
	case LOAD:	/* address, stride, count */
		for (i = 0; i < a[3]; i++)
			actor->value += word[i * a[2] / 8];
		break;
	case STORE:	/* address, stride, count, first value */
		for (i = 0; i < a[3]; i++)
			word[i * a[2] / 8] = a[4] + i;
		break;
	case ADD:	/* address, delta, times */
		for (i = 0; i < a[3]; i++)
			actor->value = *word += a[2];
		break;
	case COPY:	/* destination, source, bytes */
		memcpy((void *)a[1], (void *)a[2], a[3]);
		actor->value = a[3];
	}
	armed = 0;
}

static int descriptor_of(pid_t pid, int descriptor)
{
	int process = syscall(SYS_pidfd_open, pid, 0);
	int got = syscall(SYS_pidfd_getfd, process, descriptor, 0);
	int error = errno;

	close(process);
	errno = error;
	return got;
}

/* Gives a descriptor the number that it had in the recorded run. */
static int renumber(int descriptor, int number)
{
	int flags = fcntl(descriptor, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0;

	if (descriptor == number)
		return 0;
	return dup3(descriptor, number, flags) < 0 || close(descriptor) ? errno : 0;
}

static void *serve(void *actor);

static void start_thread(struct actor *actor)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 256 << 10);
	if (pthread_create(&thread, &attributes, serve, actor))
		_exit(2);
	while (sem_wait(&actor->done))
		;
}

static int64_t store_in_vforked(const uint64_t *a)
{
	pid_t child = vfork();
	int status = 0;

	if (child == 0) {
		*(volatile uint64_t *)a[1] = a[2];
		_exit(0);
	}
	return child < 0 || waitpid(child, &status, 0) < 0 ? -1 : status;
}

static void call(struct actor *actor)
{
	uint64_t *a = actor->argument;

	errno = 0;
	actor->value = syscall(a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
	actor->error = actor->value == -1 ? errno : 0;
}

/* The value is how many operations came to what they came to in the recorded run. */
static void do_batch(struct actor *actor)
{
	const struct entry *entry = (const struct entry *)actor->argument[1];
	uint64_t count = actor->argument[2], i;

	for (i = 0; i < count; i++, entry++) {
		actor->value = actor->error = actor->signal = actor->code = 0;
		memcpy(actor->argument, entry->argument, sizeof(entry->argument));
		if (entry->argument[0] == SYSCALL)
			call(actor);
		else
			touch(actor);
		if (actor->value != entry->value ||
		    ((uint64_t)actor->signal << 32 | (uint32_t)actor->error) != entry->fate)
			break;
	}
	actor->value = i - count;
}

static void *serve(void *actor)
{
	pid_t parent, child;

	self = actor;
	self->pid = getpid();
	self->tid = syscall(SYS_gettid);
	if (self->pid != self->tid)
		sem_post(&self->done);
	for (;;) {
		uint64_t *a = self->argument;

		while (sem_wait(&self->go))
			;
		self->value = self->error = self->signal = self->code = errno = 0;
		switch (a[0]) {
		case SYSCALL:
			call(self);
			break;
		case BATCH:
			do_batch(self);
			break;
		case VFORK:
			self->value = store_in_vforked(a);
			self->error = self->value < 0 ? errno : 0;
			break;
		case RENUMBER:
			self->error = renumber(a[1], a[2]);
			break;
		case THREAD:
			start_thread(&actors[a[1]]);
			break;
		case FORK:
			parent = getpid();
			child = fork();
			if (child == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				if (getppid() != parent)
					_exit(1);
				self = &actors[a[1]];
				self->pid = self->tid = getpid();
				continue;
			}
			self->value = actors[a[1]].pid = actors[a[1]].tid = child;
			self->error = child < 0 ? errno : 0;
			break;
		case ADOPT:
			self->value = descriptor_of(judge, a[1]);
			self->error = self->value < 0 ? errno : 0;
			break;
		default:
			touch(self);
		}
		sem_post(&self->done);
	}
	return NULL;
}

/* -- the judge */

static int step;		/* of the program, for what is said of it */
static int required;		/* this step must go as recorded, else nothing can be shown */
static int running;		/* operations whose answer has not come yet */
static struct actor *last;

static void program(void);

static void at(int number, int must)
{
	step = number;
	required = must;
}

static long pool(const char *name, long count)
{
	char path[96];
	long found = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-2048kB/%s", name);
	file = fopen(path, count < 0 ? "r" : "w");
	if (file && count < 0 && fscanf(file, "%ld", &found) != 1)
		found = -1;
	if (file && count >= 0)
		fprintf(file, "%ld", count);
	if (file)
		fclose(file);
	return found;
}

static void conclude(int status);

static long borrowed;		/* hugetlb pages, that is what the pool has grown by */

static void need_hugepages(long count)
{
	if (pool("free_hugepages", -1) - pool("resv_hugepages", -1) >= count)
		return;
	borrowed = count;
	pool("nr_hugepages", pool("nr_hugepages", -1) + borrowed);
}

static char swap_device[32];	/* ours, if there is one */

static int tell(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	int told = file && fputs(text, file) >= 0;

	return file ? !fclose(file) && told : 0;
}

static void remove_swap(void)
{
	if (!swap_device[0])
		return;
	swapoff(swap_device);
	tell("/sys/class/zram-control/hot_remove", swap_device + strlen("/dev/zram"));
}

/*
 * Where the machine has no swap, or the program turns its own off, a compressed RAM disk of
 * 256 MiB becomes it, before any other.
 */
static void need_swap(int own)
{
	char line[256], path[64], header[PAGE] = { 0 };
	FILE *file = fopen("/proc/swaps", "r");
	int number, device, found = 0;

	while (file && fgets(line, sizeof(line), file))
		found++;
	if (file)
		fclose(file);
	if (found > 1 && !own)
		return;
	file = fopen("/sys/class/zram-control/hot_add", "r");
	if (!file || fscanf(file, "%d", &number) != 1)
		goto none;
	fclose(file);
	snprintf(swap_device, sizeof(swap_device), "/dev/zram%d", number);
	snprintf(path, sizeof(path), "/sys/block/zram%d/disksize", number);
	/* as mkswap(8): version, last page, magic */
	memcpy(header + 1024, (uint32_t[]){ 1, (256 << 20) / PAGE - 1 }, 8);
	memcpy(header + PAGE - 10, "SWAPSPACE2", 10);
	device = tell(path, "256M") ? open(swap_device, O_RDWR) : -1;
	if (device >= 0 && write(device, header, PAGE) == (long)PAGE && !close(device) &&
	    !swapon(swap_device, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK))
		return;
none:
	puts("this machine can't show it: it has no swap, and no zram to make one of");
	conclude(2);
}

static int ends(int who)
{
	struct pollfd end = { .fd = syscall(SYS_pidfd_open, actors[who].pid, 0), .events = POLLIN };
	int ended = poll(&end, 1, 1000 * SECONDS) == 1;

	close(end.fd);
	return ended;
}

static void conclude(int status)
{
	int who;

	for (who = 0; actors != MAP_FAILED && who < ACTORS; who++)
		if (actors[who].root && !kill(actors[who].pid, SIGKILL))
			ends(who);	/* and what it held is free again */
	if (borrowed)
		pool("nr_hugepages", pool("nr_hugepages", -1) - borrowed);
	remove_swap();
	if (getpid() == 1) {
		printf("reproducer: exit status %d\n", status);
		fflush(stdout);
		reboot(RB_AUTOBOOT);
	}
	exit(status);
}

/* As the only program of a guest (vm/alone.py), whose /modules are what zram takes. */
static void be_init(void)
{
	struct dirent **modules;
	int count, i;

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mkdir("/dev/shm", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("tmpfs", "/dev/shm", "tmpfs", 0, NULL);
	count = chdir("/modules") ? 0 : scandir(".", &modules, NULL, alphasort);
	for (i = 0; i < count; i++)
		if (modules[i]->d_name[0] != '.')
			syscall(SYS_finit_module, open(modules[i]->d_name, O_RDONLY), "", 0);
}

/* The kernel goes another way than in the recorded run. */
static void differs(const char *format, ...)
{
	va_list list;

	printf("step %d: ", step);
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	printf("\n%s\n", required ? "this machine can't show it" : OTHERWISE_TEXT);
	conclude(required ? 2 : OTHERWISE);
}

static int answered(struct actor *actor, int seconds)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += seconds;
	for (;;) {
		if (!sem_timedwait(&actor->done, &end))
			return 1;
		if (errno != EINTR)
			return 0;
	}
}

static void begin(int who, const uint64_t *argument)
{
	last = &actors[who];
	memcpy(last->argument, argument, sizeof(last->argument));
	running++;
	sem_post(&last->go);
}
#define BEGIN(who, ...) begin(who, (const uint64_t[8]){ __VA_ARGS__ })

static void end(int who)
{
	last = &actors[who];
	if (!answered(last, SECONDS))
		differs("no answer in %d seconds", SECONDS);
	running--;
}
#define RUN(who, ...) (BEGIN(who, __VA_ARGS__), end(who))

static void gave(int64_t value, int error, int signal, int code)
{
	if (last->value != value || last->error != error || last->signal != signal ||
	    last->code != code)
		differs("value %#llx, errno %d, signal %d (code %d), in the recorded run %#llx, %d, %d (%d)",
			(long long)last->value, last->error, last->signal, last->code,
			(long long)value, error, signal, code);
}

/* A descriptor or another number that the kernel chooses. */
static int64_t made(void)
{
	if (last->value == -1)
		differs("errno %d: %s", last->error, strerror(last->error));
	return last->value;
}

/* A descriptor. */
static void opened(int who, int number)
{
	RUN(who, RENUMBER, made(), number);
	if (last->error)
		differs("descriptor %d: %s", number, strerror(last->error));
}

static void opened_pipe(int who, uint64_t address, int reader, int writer)
{
	int *ends = (int *)address;

	RUN(who, RENUMBER, ends[1], 1023);	/* out of the way */
	RUN(who, RENUMBER, ends[0], reader);
	RUN(who, RENUMBER, 1023, writer);
	ends[0] = reader;
	ends[1] = writer;
}

static void ran(void)
{
	if (last->value)
		differs("operation %lld of the batch, from its end, goes another way",
			(long long)-last->value);
}

static void never_answers(int who)
{
	if (answered(&actors[who], SECONDS))
		differs("it has come to an end");
}

static void text(uint64_t address, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsprintf((char *)address, format, list);
	va_end(list);
}

static void put(uint64_t address, uint64_t size, const void *contents, uint64_t count)
{
	memset((void *)address, 0, size);
	memcpy((void *)address, contents, count);
}
#define WORDS(address, size, ...) \
	put(address, size, (const uint64_t[]){ __VA_ARGS__ }, sizeof((const uint64_t[]){ __VA_ARGS__ }))

static void written(uint64_t address, const uint64_t *words, int count)
{
	const uint64_t *seen = (const uint64_t *)address;
	int i;

	for (i = 0; i < count; i++)
		if (seen[i] != words[i])
			differs("word %d of the answer is %#llx, in the recorded run %#llx", i,
				(long long)seen[i], (long long)words[i]);
}
#define WRITTEN(address, ...) \
	written(address, (const uint64_t[]){ __VA_ARGS__ }, sizeof((const uint64_t[]){ __VA_ARGS__ }) / 8)

/* A duplicate, in this process, of an actor's descriptor. */
static int shared(int who, int descriptor)
{
	int got = descriptor_of(actors[who].pid, descriptor);

	if (got < 0) {
		required = 1;
		differs("pidfd_getfd: %s", strerror(errno));
	}
	return got;
}

static int message(int descriptor, int event, uint64_t first, uint64_t second, uint64_t third)
{
	struct { uint8_t event; uint8_t reserved[7]; uint64_t argument[3]; } seen = { 0 };
	struct pollfd ready = { .fd = descriptor, .events = POLLIN };
	int i, value;

	for (i = 0; i < 100 * SECONDS && poll(&ready, 1, 10) == 0; i++) {
		int done = 0, who;

		for (who = 0; who < ACTORS; who++)
			if (!sem_getvalue(&actors[who].done, &value))
				done += value;
		if (done == running && poll(&ready, 1, 0) == 0)
			break;		/* nobody is left who could raise one */
	}
	if (read(descriptor, &seen, sizeof(seen)) != sizeof(seen))
		differs("no message");
	if (event == 0x13 && seen.event == event)	/* FORK: a descriptor */
		return (int)seen.argument[0];
	if (seen.event != event || seen.argument[0] != first || seen.argument[1] != second ||
	    seen.argument[2] != third)
		differs("message %#x: %#llx %#llx %#llx, in the recorded run %#x: %#llx %#llx %#llx",
			seen.event, (long long)seen.argument[0], (long long)seen.argument[1],
			(long long)seen.argument[2], event, (long long)first, (long long)second,
			(long long)third);
	return 0;
}

static void readable(int descriptor)
{
	struct pollfd ready = { .fd = descriptor, .events = POLLIN };

	if (poll(&ready, 1, 1000 * SECONDS) != 1)
		differs("no message");
}

static void no_message(int descriptor)
{
	char buffer[32];

	if (read(descriptor, buffer, sizeof(buffer)) > 0)
		differs("a message");
}

static FILE *open_proc(int who, const char *file)
{
	char path[64];
	FILE *opened;

	snprintf(path, sizeof(path), "/proc/%d/%s", actors[who].pid, file);
	opened = fopen(path, "r");
	if (!opened)
		differs("%s: %s", path, strerror(errno));
	return opened;
}

static void pages(int who, uint64_t start, uint64_t count, uint64_t look)
{
	FILE *pagemap = open_proc(who, "pagemap");
	uint64_t seen, i;

	for (i = 0; i < count; i++)
		if (pread(fileno(pagemap), &seen, 8, (start / PAGE + i) * 8) != 8 ||
		    (seen & LOOKS) != look)
			differs("pagemap of %#llx: %#llx, in the recorded run %#llx",
				(long long)(start + i * PAGE), (long long)(seen & LOOKS),
				(long long)look);
	fclose(pagemap);
}

/* A look's regions with what all kernels know, so that neighbours may be alike. */
static int reduced(uint64_t *to, const uint64_t *from, int count)
{
	int kept = 0, i;

	for (i = 0; i < count; i++, from += 3) {
		uint64_t *before = to + 3 * (kept - 1), categories = from[2] & CATEGORIES;

		if (kept && before[1] == from[0] && before[2] == categories) {
			before[1] = from[1];
			continue;
		}
		memcpy(to + 3 * kept, from, 16);
		to[3 * kept++ + 2] = categories;
	}
	return kept;
}

/* What PAGEMAP_SCAN reports: regions of start, end, categories; and the argument's walk_end. */
static void scan(int who, const uint64_t *argument, const uint64_t *regions, int count)
{
	FILE *pagemap = open_proc(who, "pagemap");
	static uint64_t seen[3 * 4096], expected[3 * 4096];
	uint64_t words[12];
	int got;

	memcpy(words, argument, sizeof(words));
	if ((words[11] & CATEGORIES) == CATEGORIES) {
		words[11] = CATEGORIES;
		count = reduced(expected, regions, count);
		regions = expected;
	}
	words[4] = 0;
	words[5] = (uintptr_t)seen;
	if (words[6] > 4096)
		words[6] = 4096;
	got = ioctl(fileno(pagemap), PAGEMAP_SCAN, words);
	if (got < 0)
		differs("PAGEMAP_SCAN: %s", strerror(errno));
	if (got != count || words[4] != argument[4] || memcmp(seen, regions, 24 * count))
		differs("PAGEMAP_SCAN reports other pages or categories");
	fclose(pagemap);
}
#define SCAN(who, argument, ...) \
	scan(who, argument, (const uint64_t[]){ __VA_ARGS__ 0 }, sizeof((const uint64_t[]){ __VA_ARGS__ 0 }) / 24)

/* The sum of a field of smaps, in kB, over a range. */
static void smaps(int who, uint64_t start, uint64_t stop, const char *name, long kb)
{
	FILE *file = open_proc(who, "smaps");
	unsigned long first, after;
	char line[512], field[64];
	int inside = 0;
	long sum = 0, part;

	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &first, &after) == 2)
			inside = first >= start && after <= stop;
		else if (inside && sscanf(line, "%63[^:]: %ld", field, &part) == 2 &&
			 !strcmp(field, name))
			sum += part;
	}
	fclose(file);
	if (sum != kb)
		differs("%s: %ld kB, in the recorded run %ld kB", name, sum, kb);
}

static long page_tables(int who)
{
	FILE *file = open_proc(who, "status");
	char line[512];
	long kb = -1;

	while (fgets(line, sizeof(line), file))
		sscanf(line, "VmPTE: %ld", &kb);
	fclose(file);
	return kb;
}

static void page_tables_grew(long kb, long recorded)
{
	if (kb != recorded)
		differs("page tables grew by %ld kB, in the recorded run by %ld kB", kb, recorded);
}

static void asleep(int who, int recorded)
{
	char file[64], state = 0;
	FILE *stat;
	int value;

	snprintf(file, sizeof(file), "task/%d/stat", actors[who].tid);
	stat = open_proc(who, file);
	if (fscanf(stat, "%*d %*[^)]) %c", &state) != 1)
		differs("no state");
	fclose(stat);
	sem_getvalue(&actors[who].done, &value);
	if (((state == 'S' || state == 'D') && !value) != recorded)
		differs("state %c, %s, in the recorded run %s", state,
			value ? "done" : "not done", recorded ? "asleep" : "not asleep");
}

static void gone(int who)
{
	if (!ends(who))
		differs("the process does not end");
}

static void killed(int who)
{
	kill(actors[who].pid, SIGKILL);
	gone(who);
}

/*
 * All is done on one CPU, as in the recorded run: pages wait on a list of the CPU that has
 * touched them first, where MADV_PAGEOUT on another one does not find them.
 */
static void stay(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
}

/* A process that shares nothing with the others. */
static void spawn(int who)
{
	int descriptor;

	actors[who].pid = fork();
	if (actors[who].pid < 0)
		conclude(2);
	actors[who].root = 1;
	if (actors[who].pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (descriptor = 3; descriptor < 1024; descriptor++)
			close(descriptor);
		serve(&actors[who]);
	}
}

int main(int count, char **words)
{
	struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct sigaction interruption = { .sa_handler = on_interruption, .sa_flags = SA_RESTART };
	void *scratch;
	int i;

	if (count && !strcmp(words[0], "/proc/self/exe"))
		return 2;	/* an actor's execve(2) */
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (getpid() == 1)
		be_init();
	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	sigaction(SIGUSR1, &interruption, NULL);
	prctl(0x59616d61 /* PR_SET_PTRACER */, -1, 0, 0, 0);	/* for pidfd_getfd under Yama */
	judge = getpid();
	stay();
	scratch = mmap((void *)SCRATCH, SCRATCH_BYTES, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	actors = mmap(NULL, ACTORS * sizeof(*actors), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (scratch != (void *)SCRATCH || actors == MAP_FAILED)
		conclude(2);
	for (i = 0; i < ACTORS; i++) {
		sem_init(&actors[i].go, 1, 0);
		sem_init(&actors[i].done, 1, 0);
	}
	spawn(0);
	program();
	puts(SAME_TEXT);
	conclude(SAME);
}
