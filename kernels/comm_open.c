/* comm_open.c - joining a job: what launchers leave in the environment, and the plug-in for MPI. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/comm_impl.h"

static char why_text[768]; /* what comm_open returns when it fails */

/* Where each launcher leaves a process's place. The first that speaks of a job is believed: an
 * mpirun within a Slurm job stands before that job's own variables. A batch script has tasks, but
 * is not one of them: only a step's tasks are counted. */
static const struct {
    const char *by, *size, *rank, *local_rank;
} launcher[] = {
    {"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"mpiexec", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"},
    {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"},
    {"torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK"}};
enum { LAUNCHERS = sizeof launcher / sizeof *launcher, TORCHRUN = LAUNCHERS - 1 };

static int number(const char *variable) {
    const char *text = getenv(variable);
    return text ? atoi(text) : 0;
}

CommLaunch comm_launch(void) {
    for (int i = 0; i < LAUNCHERS; i++) {
        int size = number(launcher[i].size);
        if (i == TORCHRUN && !getenv("TORCHELASTIC_RUN_ID")) continue;
        if (size > 1 && getenv(launcher[i].rank))
            return (CommLaunch){launcher[i].by, number(launcher[i].rank), size,
                                number(launcher[i].local_rank)};
    }
    return (CommLaunch){.size = 1};
}

#define BUILD_IT                                                                                \
    "mpicc -O2 -shared -fPIC -I SAILS -o libsails_mpi.so SAILS/kernels/transport_mpi.c, SAILS " \
    "being the sources' folder or share/sails"

/* MPI's own modules look for its symbols among those of the whole program. */
static const Transport *load_mpi(void) {
    const char *path = getenv("SAILS_MPI_PLUGIN");
    void *lib = dlopen(path ? path : "libsails_mpi.so", RTLD_NOW | RTLD_GLOBAL);
    if (!lib) {
        snprintf(why_text, sizeof why_text,
                 "the MPI plug-in does not load (%s); build it against this machine's MPI: %s",
                 dlerror(), BUILD_IT);
        return NULL;
    }
    sails_transport_fn *get;
    void *symbol = dlsym(lib, "sails_transport");
    memcpy(&get, &symbol, sizeof get); /* ISO C has no cast from object to function pointer */
    const Transport *t = symbol ? get(TRANSPORT_ABI) : NULL;
    if (!t)
        snprintf(why_text, sizeof why_text,
                 "the MPI plug-in is of another sails version; build it again: %s", BUILD_IT);
    return t;
}

/* For tests: this machine as several, of so many ranks in a row each; or, below 0, as so many, to
 * which the ranks are dealt in turn. */
static void pretend_machines(TransportSeat *s) {
    int each = number("SAILS_MACHINE_RANKS"), machines = -each;
    if (each > 0 && each < s->size) {
        s->local_rank = s->rank % each;
        s->leader = s->rank - s->local_rank;
        s->local_size = s->size - s->leader < each ? s->size - s->leader : each;
    } else if (machines > 1 && machines <= s->size) {
        s->leader = s->rank % machines;
        s->local_rank = s->rank / machines;
        s->local_size = (s->size - s->leader + machines - 1) / machines;
    }
}

const char *comm_open(Comm **c) {
    CommLaunch launch = comm_launch();
    TransportSeat seat;
    *c = NULL;
    if (!launch.by) return NULL;
    if (launch.by == launcher[TORCHRUN].by)
        return "torchrun has started this, and sails meets by MPI; start it by mpirun -np N, or by "
               "srun --mpi=pmix";
    const Transport *via = load_mpi();
    const char *why = via ? via->open(&seat) : why_text;
    if (why) return why;
    if (seat.size != launch.size) {
        snprintf(why_text, sizeof why_text,
                 "%s has started %d processes, of which %.80s sees %d; %s the launcher of this "
                 "MPI, or build the plug-in against the launcher's: %s",
                 launch.by, launch.size, via->library(), seat.size,
                 strcmp(launch.by, "srun") == 0 ? "use srun --mpi=pmix," : "use", BUILD_IT);
        return why_text;
    }
    pretend_machines(&seat);
    *c = comm_make(via, seat);
    return NULL;
}
