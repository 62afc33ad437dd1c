/* A stand-in for pyxis, SLURM's container plugin, on machines without a container runtime.
 *
 * srun accepts the options that our job scripts use. No image is opened: a task sees the host's files, plus, in a mount
 * namespace of its own, the bind mounts of --container-mounts (SRC:DST[:ro]), and starts in --container-workdir. What was
 * asked for is in its environment as STUB_IMAGE, STUB_MOUNTS, STUB_WORKDIR, STUB_ENV and STUB_HOME.
 *
 * Build: gcc -fPIC -shared -o pyxis_stub.so pyxis_stub.c    Load: required .../pyxis_stub.so FILE    (plugstack.conf)
 * FILE gets a line for every mount point that had to be made, so that a test can remove them. slurmd must run as root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

SPANK_PLUGIN(pyxis_stub, 1)

enum { IMAGE, MOUNTS, WORKDIR, ENVIRONMENT, HOME, COUNT };
static const char *names[COUNT] = {"STUB_IMAGE", "STUB_MOUNTS", "STUB_WORKDIR", "STUB_ENV", "STUB_HOME"};
static char *asked[COUNT];

static int keep(int which, const char *value, int remote)
{
	(void) remote;
	asked[which] = strdup(value && *value ? value : "no");
	return asked[which] ? 0 : -1;
}

static struct spank_option options[] = {
	{"container-image", "IMAGE", "stub: noted", 1, IMAGE, keep},
	{"container-mounts", "SRC:DST[:ro],...", "stub: mounted", 1, MOUNTS, keep},
	{"container-workdir", "PATH", "stub: entered", 1, WORKDIR, keep},
	{"container-env", "NAME,...", "stub: noted", 1, ENVIRONMENT, keep},
	{"no-container-mount-home", NULL, "stub: noted", 0, HOME, keep},
	SPANK_OPTIONS_TABLE_END,
};

int slurm_spank_init(spank_t job, int argc, char **argv)
{
	(void) argc;
	(void) argv;
	if (spank_context() == S_CTX_ALLOCATOR)	/* sbatch knows none of these, as with the real one */
		return 0;
	for (int i = 0; i < COUNT; i++)
		if (spank_option_register(job, &options[i]) != ESPANK_SUCCESS)
			return -1;
	return 0;
}

static void note(const char *list, const char *path)
{
	FILE *file = fopen(list, "a");
	if (file) {
		fprintf(file, "%s\n", path);
		fclose(file);
	}
}

/* Make `path` and the folders above it, as a folder or a file like the source. */
static int make_target(const char *path, int folder, const char *list)
{
	char part[4096];
	for (size_t i = 1; i <= strlen(path) && i < sizeof part; i++) {
		int last = path[i] == 0;
		if (!last && path[i] != '/')
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (access(part, F_OK) == 0)
			continue;
		int made = last && !folder ? open(part, O_CREAT | O_WRONLY, 0644) : mkdir(part, 0755);
		if (made < 0 && errno != EEXIST)	/* a task of another virtual node may be faster */
			return -1;
		if (last && !folder && made >= 0)
			close(made);
		if (made >= 0)
			note(list, part);
	}
	return 0;
}

static int bind_one(char *spec, const char *list)
{
	char *source = strsep(&spec, ":"), *target = strsep(&spec, ":");
	struct stat found;
	if (!target)
		target = source;
	if (stat(source, &found) || make_target(target, S_ISDIR(found.st_mode), list) ||
	    mount(source, target, NULL, MS_BIND | MS_REC, NULL))
		return -1;
	if (spec && strcmp(spec, "ro") == 0)
		return mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
	return 0;
}

int slurm_spank_task_init_privileged(spank_t job, int argc, char **argv)
{
	if (!asked[IMAGE])
		return 0;
	for (int i = 0; i < COUNT; i++)
		if (asked[i])
			spank_setenv(job, names[i], asked[i], 1);
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		slurm_error("pyxis stub: no mount namespace: %m");
		return -1;
	}
	char *rest = asked[MOUNTS] ? strdup(asked[MOUNTS]) : NULL, *spec;
	while (rest && (spec = strsep(&rest, ",")))
		if (*spec && bind_one(spec, argc ? argv[0] : "/dev/null")) {
			slurm_error("pyxis stub: cannot mount %s: %m", spec);
			return -1;
		}
	return 0;
}

int slurm_spank_task_init(spank_t job, int argc, char **argv)
{
	(void) argc;
	(void) argv;
	if (!asked[IMAGE] || !asked[WORKDIR])
		return 0;
	if (chdir(asked[WORKDIR])) {
		slurm_error("pyxis stub: no folder %s: %m", asked[WORKDIR]);
		return -1;
	}
	return spank_setenv(job, "PWD", asked[WORKDIR], 1) == ESPANK_SUCCESS ? 0 : -1;
}
