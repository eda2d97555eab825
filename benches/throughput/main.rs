//! What the program costs, in one table: `make bench`.
//!
//! Every row is measured by a process of its own, so that its peak memory is its own too. The
//! words of a row after `--` measure that row alone: `cargo bench --bench throughput -- hmc small f64`.
//! What each figure means stands in docs/benchmarks.md.

mod case;
mod inner;
mod measure;
mod once;
mod program;

use std::process::{Command, ExitCode};

use case::Shape;
use inner::LOOPS;
use lambda_hat::device::{Arith, Element};

/// A part of the table.
type Part = (&'static str, &'static [&'static str]);

const PARTS: [Part; 8] = [
    (
        "Gradients of the full loss",
        &[
            "gradient base f64",
            "gradient base f32",
            "gradient 100k f64",
            "gradient 100k f32",
            "gradient tanh f64",
            "gradient gelu f64",
            "gradient small f64",
            "gradient small f32",
        ],
    ),
    ("Gradients of minibatches of 256 rows", &["batch base f64", "batch base f32"]),
    ("Hessian-vector products over all rows", &["hvp base f64", "hvp base f32"]),
    ("HMC, 10 integration steps a draw", &["hmc base f64", "hmc small f64"]),
    ("MCLMC, two gradients a step", &["mclmc base f64", "mclmc small f64"]),
    (
        "SGLD, batches of 256 rows, the full loss every 100 steps",
        &["sgld base f64", "sgld base f32", "sgld small f64", "sgld small f32"],
    ),
    ("Training, Adam on all rows", &["training base f64", "training small f64"]),
    ("The program", &["startup", "quickstart 1", "quickstart 2", "memory", "slots"]),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let done = if words.is_empty() { whole_table() } else { row(&words) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn whole_table() -> Result<(), String> {
    let here = std::env::current_exe().map_err(|e| format!("this benchmark's own path: {e}"))?;
    let commit = lambda_hat::GIT_SHA;
    println!("lambda-hat-mpi {} ({:.12})", lambda_hat::VERSION, commit);
    println!("{}, {}, {}\n", today(), measure::processor(), Arith::current());
    measure::print_heading();
    for (title, rows) in PARTS {
        println!("{title}");
        for words in rows {
            let status = Command::new(&here).args(words.split(' ')).status();
            if !status.map_err(|e| format!("'{words}' did not start: {e}"))?.success() {
                return Err(format!("'{words}' failed"));
            }
        }
    }
    Ok(())
}

fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

fn row(words: &[String]) -> Result<(), String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [what, shape, number] if LOOPS.contains(&what) => {
            let shape = Shape::named(shape)
                .ok_or_else(|| format!("'{shape}': expected base, 100k, tanh, gelu or small"))?;
            match number {
                "f32" => inner_loop::<f32>(what, &shape),
                "f64" => inner_loop::<f64>(what, &shape),
                other => return Err(format!("'{other}': expected f32 or f64")),
            }
            Ok(())
        }
        ["once", what, shape, number, threads, least] => once(what, shape, number, threads, least),
        ["data", shape, directory] => {
            let shape = Shape::named(shape)
                .ok_or_else(|| format!("'{shape}': expected base, 100k, tanh, gelu or small"))?;
            once::data(&shape, directory.as_ref())
        }
        ["startup"] => program::startup(),
        ["quickstart", workers] => program::quickstart(workers),
        ["memory"] => program::memory(),
        ["slots"] => program::slots(),
        _ => {
            let rows: Vec<&str> = PARTS.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
            Err(format!("'{}' is no row: expected one of {}", words.join(" "), rows.join(", ")))
        }
    }
}

fn inner_loop<T: Element>(what: &str, shape: &Shape) {
    let (title, unit) = inner::title::<T>(what, shape);
    inner::with_loop::<T>(what, shape, &mut |call| {
        measure::print_rate(&title, unit, &measure::rate::<T>(call));
    });
}

/// A round of a row whose only output is its seconds an item.
fn once(what: &str, shape: &str, number: &str, threads: &str, least: &str) -> Result<(), String> {
    let shape =
        Shape::named(shape).ok_or_else(|| format!("'{shape}': expected base, 100k, tanh, gelu or small"))?;
    let threads = threads.parse().map_err(|_| format!("'{threads}': expected a number of threads"))?;
    let least = least.parse().map_err(|_| format!("'{least}': expected seconds"))?;
    match number {
        "f32" => once::round::<f32>(what, &shape, threads, least),
        "f64" => once::round::<f64>(what, &shape, threads, least),
        other => return Err(format!("'{other}': expected f32 or f64")),
    }
    Ok(())
}
