//! The simulated sweeps: what is played, the table, and its plot.

use std::fmt::Write as _;

use lambda_hat::config::{self, LoadOptions};
use lambda_hat::device::Arith;
use lambda_hat::sweep::costs::Model;
use lambda_hat::sweep::{Plan, SweepGraph, UnitKind};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::simulation::{self, Costs, Played};
use crate::{bound, sweeps};

/// Units of the sweeps.
const UNITS: [usize; 3] = [1_000, 10_000, 100_000];
/// Ranks that they are played on.
const RANKS: [usize; 3] = [64, 512, 4_096];
/// Makespan over the bound.
const BAR: f64 = 1.05;
/// Spread (standard deviation of the logarithm) of a run's cost about the model's expectation, and of a
/// unit's about its run's.
const SPREAD: (f64, f64) = (0.2, 0.2);

struct Row {
    units: usize,
    ranks: usize,
    bounds: bound::Bounds,
    played: Played,
}

impl Row {
    fn over_plain(&self) -> f64 {
        self.played.makespan / self.bounds.plain
    }

    fn over_sharp(&self) -> f64 {
        self.played.makespan / self.bounds.sharp
    }
}

/// Plays all sweeps, prints the table, writes the plot to `plot`; whether all are within the bar.
pub fn show(costs: Costs, plot: Option<&str>) -> Result<bool, String> {
    println!(
        "  rank 0 manages a unit in {:.1} µs, messages take {:.0} µs and {:.1} GB/s, the disk {:.1} GB/s and {:.0} ms a target",
        1e6 * costs.service,
        1e6 * costs.latency,
        costs.bandwidth / 1e9,
        costs.disk / 1e9,
        1e3 * costs.write
    );
    println!(
        "   units  ranks    makespan       bound  ratio   sharper  ratio  managing  targets sent          held   events"
    );
    let mut rows = Vec::new();
    for units in UNITS {
        let text = sweeps::yaml(units);
        let experiment =
            config::parse(&text, "large.yaml", &LoadOptions::default()).map_err(|e| e.to_string())?;
        let plan = Plan::new(&experiment).map_err(|e| e.to_string())?;
        let model = Model::new(Arith::current());
        for ranks in RANKS {
            let graph = SweepGraph::whole(&plan, &model);
            let took = durations(&plan, &graph, &model);
            let bounds = bound::of(&plan, &graph, &took, ranks);
            let units = graph.len();
            let row =
                Row { units, ranks, bounds, played: simulation::play(&plan, graph, &took, ranks, costs) };
            print(&row);
            rows.push(row);
        }
    }
    if let Some(path) = plot {
        std::fs::write(path, svg(&rows)).map_err(|e| format!("{path}: {e}"))?;
    }
    let missed = rows.iter().filter(|row| row.over_plain() > BAR && row.over_sharp() > BAR).count();
    println!("  within {BAR} of a bound: {} of {}", rows.len() - missed, rows.len());
    Ok(missed == 0)
}

/// What units really take: the expectation times log-normal factors of mean 1.
fn durations(plan: &Plan, graph: &SweepGraph, model: &Model) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut factor = |spread: f64| {
        let z: f64 = StandardNormal.sample(&mut rng);
        (spread * z - 0.5 * spread * spread).exp()
    };
    let of_run: Vec<f64> = plan.runs.iter().map(|_| factor(SPREAD.0)).collect();
    (0..graph.len() as u32)
        .map(|unit| {
            let kind = graph.kind(unit);
            let run = match kind {
                UnitKind::Build(_) => 1.0,
                kind => of_run[kind.run().unwrap_or(0)],
            };
            kind.expected_seconds(plan, model) * run * factor(SPREAD.1)
        })
        .collect()
}

fn print(row: &Row) {
    let Row { units, ranks, bounds, played } = row;
    println!(
        "{units:>8} {ranks:>6} {:>9.1} s {:>9.1} s  {:.3} {:>7.1} s  {:.3}   {:>5.1} % {:>10.2} GB {:>10.1} MB {:>6.2} M/s",
        played.makespan,
        bounds.plain,
        row.over_plain(),
        bounds.sharp,
        row.over_sharp(),
        100.0 * played.managing,
        played.sent / 1e9,
        played.held / 1e6,
        played.events / 1e6,
    );
}

/// Bars of makespan over bound, and the bar.
fn svg(rows: &[Row]) -> String {
    let (width, height, left, base) = (720.0, 360.0, 60.0, 300.0);
    // 1.0 at the base, 1.1 at the top.
    let y = |ratio: f64| base - (ratio.clamp(1.0, 1.1) - 1.0) * 2500.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"24\" font-size=\"14\">Makespan over the lower bound max(work / ranks, longest path)</text>\n"
    );
    for ratio in [1.0, 1.025, 1.05, 1.075, 1.1] {
        let (at, colour) = (y(ratio), if ratio == BAR { "#c00" } else { "#ccc" });
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\" stroke=\"{colour}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{ratio}</text>",
            width - 20.0,
            left - 6.0,
            at + 4.0
        );
    }
    for (i, row) in rows.iter().enumerate() {
        let x = left + 20.0 + 66.0 * i as f64 + 20.0 * (i / RANKS.len()) as f64;
        let top = y(row.over_plain());
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{top}\" width=\"44\" height=\"{}\" fill=\"#47a\"/><text x=\"{mid}\" y=\"{}\" text-anchor=\"middle\">{:.3}</text><text x=\"{mid}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            base - top,
            top - 4.0,
            row.over_plain(),
            base + 16.0,
            row.ranks,
            mid = x + 22.0
        );
        if i % RANKS.len() == 1 {
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">ranks; {} units</text>",
                x + 22.0,
                base + 36.0,
                row.units
            );
        }
    }
    out.push_str("</svg>\n");
    out
}
