//! One suite that every `Comm` passes: the single process here, MPI under `mpirun`.
//!
//! A test that needs ranks starts `mpirun` on this very test program, with its own name and a role
//! in the environment; the program then plays that role instead of starting ranks of its own.

use std::time::{Duration, Instant};

use lambda_hat::comm::{Comm, CommError, SoloComm};

/// Longest wait for a message before a rank calls the job hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every implementation must do; all ranks of a job call it together.
fn suite(comm: &mut dyn Comm) {
    let (rank, size) = (comm.rank(), comm.size());
    assert!(rank < size);
    // All ranks of the test run on one machine.
    assert_eq!(comm.node_local(), (rank, size));
    assert!(matches!(
        comm.send(size, b"x"),
        Err(CommError::NoSuchRank { to, size: s }) if to == size && s == size
    ));
    assert!(comm.poll().unwrap().is_none(), "a message before any was sent");
    comm.barrier();

    many_small_messages_keep_their_order(comm);
    empty_messages_arrive(comm);
    large_messages_cross(comm);
    a_message_reaches_a_rank_that_waits_at_the_barrier(comm);

    comm.barrier();
    assert!(comm.poll().unwrap().is_none(), "a message that no one sent");
    comm.barrier();
}

/// The next message, waited for.
fn receive(comm: &mut dyn Comm) -> (usize, Vec<u8>) {
    let start = Instant::now();
    loop {
        if let Some(message) = comm.poll().unwrap() {
            return message;
        }
        assert!(start.elapsed() < PATIENCE, "rank {} waited in vain for a message", comm.rank());
        std::thread::yield_now();
    }
}

/// 10,000 messages of up to 31 bytes from every rank, dealt round to all ranks, itself included.
fn many_small_messages_keep_their_order(comm: &mut dyn Comm) {
    const MESSAGES: u64 = 10_000;
    let (rank, size) = (comm.rank(), comm.size());
    for i in 0..MESSAGES {
        let mut bytes = i.to_le_bytes().to_vec();
        bytes.resize(8 + (i % 24) as usize, rank as u8);
        comm.send(i as usize % size, &bytes).unwrap();
    }
    let expected = |from: usize| (0..MESSAGES).filter(move |i| *i as usize % size == rank && from < size);
    let mut next: Vec<_> = (0..size).map(|from| expected(from).peekable()).collect();
    while next.iter_mut().any(|it| it.peek().is_some()) {
        let (from, bytes) = receive(comm);
        let (number, rest) = bytes.split_first_chunk::<8>().unwrap();
        let number = u64::from_le_bytes(*number);
        assert_eq!(Some(number), next[from].next(), "order of messages from rank {from}");
        assert_eq!(rest, vec![from as u8; (number % 24) as usize]);
    }
    comm.barrier();
}

fn empty_messages_arrive(comm: &mut dyn Comm) {
    for to in 0..comm.size() {
        comm.send(to, &[]).unwrap();
        comm.send(to, &[7]).unwrap();
    }
    let mut lengths = vec![vec![]; comm.size()];
    for _ in 0..2 * comm.size() {
        let (from, bytes) = receive(comm);
        lengths[from].push(bytes.len());
    }
    assert!(lengths.iter().all(|l| *l == [0, 1]), "{lengths:?}");
    comm.barrier();
}

/// Every rank sends 8 MB to every rank before it receives anything.
fn large_messages_cross(comm: &mut dyn Comm) {
    const LENGTH: usize = 8_000_000;
    let content = |from: usize, to: usize| -> Vec<u8> {
        (0..LENGTH).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8 ^ (from * 16 + to) as u8).collect()
    };
    let (rank, size) = (comm.rank(), comm.size());
    for to in 0..size {
        comm.send(to, &content(rank, to)).unwrap();
    }
    let mut seen = vec![false; size];
    for _ in 0..size {
        let (from, bytes) = receive(comm);
        assert!(bytes == content(from, rank), "content from rank {from}");
        assert!(!std::mem::replace(&mut seen[from], true), "twice from rank {from}");
    }
    comm.barrier();
}

fn a_message_reaches_a_rank_that_waits_at_the_barrier(comm: &mut dyn Comm) {
    let last = comm.size() - 1;
    if comm.rank() == last {
        comm.send(0, &vec![9; 5_000_000]).unwrap();
    }
    comm.barrier();
    if comm.rank() == 0 {
        assert_eq!(receive(comm), (last, vec![9; 5_000_000]));
    }
    comm.barrier();
}

#[test]
fn a_single_process_passes_the_suite() {
    let mut comm = SoloComm::new();
    suite(&mut comm);
    assert_eq!(comm.describe(), "single process");
}

#[cfg(feature = "mpi")]
mod under_mpirun {
    use super::*;
    use lambda_hat::comm::{MpiComm, abort_on_panic, catch_panic};
    use std::process::{Command, Output, Stdio};

    const ROLE: &str = "LAMBDA_HAT_TEST_ROLE";

    fn role() -> Option<String> {
        std::env::var(ROLE).ok()
    }

    /// This test program again, only the test `name`, in a role.
    fn this_program(mut command: Command, name: &str, role: &str) -> Command {
        let program = std::env::current_exe().unwrap();
        command.arg(program).args(["--exact", name, "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Output and seconds of `ranks` ranks in a role.
    fn job(ranks: usize, name: &str, role: &str) -> (Output, f64) {
        let mut mpirun = Command::new("mpirun");
        mpirun.args(["-n", &ranks.to_string()]);
        for (key, value) in [
            ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
            ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
            ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
            ("OMPI_MCA_mpi_yield_when_idle", "1"),
            ("OMPI_MCA_plm_rsh_agent", "/bin/false"),
            // Seconds until mpirun ends a job that hangs.
            ("MPIEXEC_TIMEOUT", "100"),
        ] {
            mpirun.env(key, value);
        }
        let start = Instant::now();
        let child = this_program(mpirun, name, role).spawn();
        let child = child.unwrap_or_else(|e| {
            panic!(
                "mpirun cannot be started ({e}): run scripts/bootstrap.sh, or test without the feature `mpi`"
            )
        });
        (child.wait_with_output().unwrap(), start.elapsed().as_secs_f64())
    }

    fn text(output: &Output) -> String {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    #[test]
    fn mpi_passes_the_suite() {
        if let Some(role) = role() {
            abort_on_panic();
            let mut comm = MpiComm::init().unwrap();
            if role == "pieces" {
                comm = comm.with_pieces_of(10_007);
            }
            suite(&mut comm);
            println!("rank {} of {} done", comm.rank(), comm.describe());
            return;
        }
        for (ranks, role) in [(1, "suite"), (2, "suite"), (4, "suite"), (3, "pieces")] {
            let (output, _) = job(ranks, "under_mpirun::mpi_passes_the_suite", role);
            let text = text(&output);
            assert!(output.status.success(), "{ranks} ranks, {role}: {text}");
            for rank in 0..ranks {
                assert!(text.contains(&format!("rank {rank} of ")), "rank {rank} is missing: {text}");
            }
            let described = format!(", {ranks} rank{}", if ranks == 1 { "" } else { "s" });
            assert!(text.contains(&described), "{described:?} is missing: {text}");
        }
    }

    #[test]
    fn a_panic_ends_the_whole_job_except_where_it_is_caught() {
        if let Some(role) = role() {
            abort_on_panic();
            let mut comm = MpiComm::init().unwrap();
            if comm.rank() == 1 {
                match role.as_str() {
                    "main thread" => panic!("lost the thread"),
                    "other thread" => drop(std::thread::spawn(|| panic!("lost the thread"))),
                    _ => assert!(catch_panic(|| panic!("a unit's own")).is_err()),
                }
            }
            // Rank 0 waits in vain where rank 1 is gone; where it is not, both meet and leave.
            if role != "caught" {
                receive(&mut comm);
            }
            comm.barrier();
            return;
        }
        let name = "under_mpirun::a_panic_ends_the_whole_job_except_where_it_is_caught";
        for role in ["main thread", "other thread"] {
            let (output, seconds) = job(2, name, role);
            assert!(!output.status.success(), "{role}: the job hides the panic");
            assert!(text(&output).contains("lost the thread"), "{role}: {}", text(&output));
            // Without the abort, rank 0 waits for PATIENCE.
            assert!(seconds < 5.0, "{role}: the job took {seconds} s to end");
        }
        let (output, _) = job(2, name, "caught");
        assert!(output.status.success(), "caught: {}", text(&output));
    }

    #[test]
    fn processes_that_do_not_see_each_other_refuse_to_work() {
        if role().is_some() {
            let refused = MpiComm::init().err().expect("a job of 3 that MPI sees as 1 was accepted");
            assert!(matches!(refused, CommError::Split { expected: 3, world: 1, .. }), "{refused}");
            println!("{refused}");
            return;
        }
        let name = "under_mpirun::processes_that_do_not_see_each_other_refuse_to_work";
        // What a program of another MPI sees under `srun -n 3`: its step, and no world to join.
        let mut alone = this_program(Command::new("env"), name, "alone");
        alone.env("SLURM_STEP_NUM_TASKS", "3");
        let output = alone.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("SLURM_STEP_NUM_TASKS says 3 ranks"), "{}", text(&output));
    }
}
