//! The keys of profile cards: what a machine offers, and what a job asks a cluster for.

use super::super::table::{Default, Key, Kind, Table};
use super::{Absent, Required, key};

/// Nodes, tasks, CPUs: a bound that only typing errors exceed.
const MAX_PLACES: u64 = 1_000_000;
/// Worker slots of a rank.
const MAX_WORKERS: u64 = 4096;
/// Seconds that a signal may come early: SLURM's own bound.
const MAX_LEAD: u64 = 65_535;

const COUNT: Kind = Kind::Int(1, MAX_PLACES);
const SITE: Default = Absent("the cluster's own default");

const fn alias(key: Key, aliases: &'static [&'static str]) -> Key {
    Key { aliases, ..key }
}

/// A card of one machine.
pub(in crate::config) static LOCAL_CARD: Table = Table {
    name: "local card",
    doc: "What one process may use of this machine.",
    keys: &[
        alias(
            key(
                "workers",
                Kind::Auto(&Kind::Int(1, MAX_WORKERS)),
                Default::Text("auto"),
                "Worker slots: units that run at a time. auto: the number of cores, at most 8. `--workers` wins.",
            ),
            &["max_workers"],
        ),
        key(
            "device",
            Kind::Choice(&["auto", "cpu", "cuda"]),
            Default::Text("auto"),
            "What computes. cuda: a GPU for the samplers that have kernels (docs/gpu.md), the CPU for the others. auto: cuda where there is a GPU, else cpu. `--device` wins.",
        ),
    ],
    advice: &[],
};

/// A card of a SLURM cluster.
pub(in crate::config) static SLURM_CARD: Table = Table {
    name: "slurm card",
    doc: "What a job asks a SLURM cluster for.",
    keys: &[
        key("partition", Kind::Line("the name of a partition"), SITE, "`--partition`."),
        key("account", Kind::Line("the name of an account"), SITE, "`--account`."),
        key("qos", Kind::Line("the name of a quality of service"), SITE, "`--qos`."),
        key("constraint", Kind::Line("features of nodes"), Absent("any node"), "`--constraint`."),
        alias(key("nodes", COUNT, Default::Int(1), "`--nodes`."), &["nodes_per_block"]),
        key(
            "ntasks_per_node",
            COUNT,
            Absent("1, or what `cores_per_node` leaves"),
            "Ranks on each node, `--ntasks-per-node`.",
        ),
        key(
            "cpus_per_task",
            COUNT,
            Absent("1, or what `cores_per_node` leaves"),
            "Cores of each rank, `--cpus-per-task`.",
        ),
        key(
            "cores_per_node",
            COUNT,
            Absent("`ntasks_per_node` × `cpus_per_task`"),
            "Older cards: cores of a node, which are divided by the one of `ntasks_per_node` and `cpus_per_task` \
             that is given; with neither, a rank a core.",
        ),
        alias(
            key(
                "workers",
                Kind::Int(1, MAX_WORKERS),
                Absent("`cpus_per_task`"),
                "Worker slots of each rank; `--workers` wins.",
            ),
            &["max_workers"],
        ),
        alias(
            key(
                "mem",
                Kind::Line("memory as 64G, 500M or megabytes; 0 is all of a node"),
                SITE,
                "Memory of a node, `--mem`.",
            ),
            &["mem_per_node"],
        ),
        key(
            "gpus_per_node",
            Kind::Int(0, 1024),
            Default::Int(0),
            "`--gpus-per-node`. This version computes on the CPU only.",
        ),
        key("gpu_type", Kind::Line("a type of GPU"), Absent("any"), "Goes before their number."),
        key(
            "walltime",
            Kind::Line("a time limit as [days-]hours:minutes:seconds, or minutes"),
            Required,
            "`--time`.",
        ),
        key(
            "signal_lead",
            Kind::Int(10, MAX_LEAD),
            Absent("120, or a quarter of a shorter walltime"),
            "Seconds before the limit at which the ranks are told to checkpoint and stop, `--signal=USR1@…`. SLURM \
             may send it up to 60 s early.",
        ),
        key(
            "requeue",
            Kind::Bool,
            Default::Bool(true),
            "Whether an interrupted job queues itself again, `--requeue`.",
        ),
        key(
            "max_requeues",
            Kind::Int(0, 100_000),
            Default::Int(100),
            "How often, so that a job which gets nowhere ends.",
        ),
        key(
            "mpi",
            Kind::Line("a plugin that `srun --mpi=list` names"),
            Default::Text("pmix"),
            "`srun --mpi`.",
        ),
        key(
            "scheduler_options",
            Kind::Lines("options of sbatch such as --exclude=node7"),
            Absent("none"),
            "More `#SBATCH` options.",
        ),
        key(
            "prologue",
            Kind::Raw("shell lines, such as `module load openmpi`"),
            Absent("none"),
            "Run as they stand, on the first node, before the ranks start.",
        ),
    ],
    advice: &[
        ("time", "did you mean walltime?"),
        ("time_limit", "did you mean walltime?"),
        ("worker_init", "did you mean prologue?"),
        ("tasks_per_node", "did you mean ntasks_per_node?"),
        ("device", "give --device to the program; the key belongs to config/local.yaml"),
    ],
};
