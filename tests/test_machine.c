/* The memory that control groups leave to a process, in trees as Slurm and containers make them. */
#include "host/stage/machine.h"

#include "tests/files.h"

/* A limit of the group `folder`, which is made. */
static void limit(const char *folder, const char *file, const char *value) {
    char name[256], command[1536];
    snprintf(command, sizeof command, "mkdir -p '%s'", test_path(folder));
    CHECK(system(command) == 0, "%s", command);
    snprintf(name, sizeof name, "%s/%s", folder, file);
    test_file(name, value, strlen(value));
}

static void expect(const char *what, const char *mount, const char *groups, double limit_is) {
    const char *file = test_file("groups", groups, strlen(groups));
    double got = machine_group_limit(file, test_path(mount));
    EXPECT(got == limit_is, "%s: %.0f, expected %.0f", what, got, limit_is);
}

int main(void) {
    limit("v2", "cgroup.procs", "");
    limit("v2/system.slice", "memory.max", "max\n");
    limit("v2/system.slice/job_5", "memory.max", "4000000000\n");
    limit("v2/system.slice/job_5/step_0", "memory.max", "9000000000\n");
    limit("v2/small", "memory.max", "1000\n");
    expect("a step of a job", "v2", "0::/system.slice/job_5/step_0\n", 4e9);
    expect("a task that has none", "v2", "0::/system.slice/job_5/step_0/task_1\n", 4e9);
    expect("no limit", "v2", "0::/system.slice\n", 0);
    expect("the root", "v2", "0::/\n", 0);
    expect("one of its own", "v2", "0::/small\n", 1000);
    limit("own", "memory.max", "7000\n"); /* a container, which sees its own group at the root */
    expect("a container", "own", "0::/\n", 7000);
    expect("a container by the name without", "own", "0::/docker/abc\n", 7000);
    limit("v1/memory", "memory.limit_in_bytes", "9223372036854771712\n");
    limit("v1/memory/slurm/job_5", "memory.limit_in_bytes", "5000000000\n");
    expect("version 1", "v1", "9:memory:/slurm/job_5/step_0\n3:cpu,cpuacct:/x\n0::/\n", 5e9);
    limit("v1/x", "memory.max", "1\n");
    expect("other controllers", "v1", "3:cpu,cpuacct:/x\n", 0);
    EXPECT(machine_group_limit("/nowhere", test_path("v2")) == 0, "no list of groups");
    return test_done("machine");
}
