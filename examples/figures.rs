//! Every figure on easy and on hard data, for a look at them:
//!
//! ```text
//! cargo run --release --example figures -- DIR [ROOT]
//! ```
//!
//! writes an SVG and a PNG a figure into DIR, with `light.html` and `dark.html` that show them all, and
//! prints the median times. With ROOT, a directory that a sweep has run in, its runs are drawn instead.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lambda_hat::diagnostics::{Analysis, Verdict};
use lambda_hat::io::netcdf::read_trace;
use lambda_hat::plot::{
    self, Figure, Param, Predictions, RunSeries, TargetCurves, Trial, TrialState, Trials,
};
use lambda_hat::stats;
use lambda_hat::trace::Trace;

/// Uniform and normal numbers from a fixed seed: the same pictures every time.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A chain about `mean` with autocorrelation `rho` and right-skewed draws.
    fn chain(&mut self, n: usize, mean: f64, rho: f64) -> Vec<f64> {
        let mut x = self.normal();
        let step = |x: &mut f64, noise: f64| {
            *x = rho * *x + (1.0 - rho * rho).sqrt() * noise;
            mean + *x + 0.15 * (*x * *x - 1.0)
        };
        (0..n).map(|_| step(&mut x, self.normal())).collect()
    }
}

struct Sheet {
    folder: PathBuf,
    names: Vec<String>,
    svg: Vec<f64>,
    png: Vec<f64>,
}

impl Sheet {
    fn add(&mut self, case: &str, make: impl Fn() -> Figure) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let figure = make();
        let drawn = start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        let png = figure.png()?;
        let painted = start.elapsed().as_secs_f64() * 1e3;
        let name = format!("{case}-{}", figure.name().stem());
        std::fs::write(self.folder.join(format!("{name}.svg")), figure.svg())?;
        std::fs::write(self.folder.join(format!("{name}.png")), &png)?;
        println!(
            "{name:44} svg {drawn:7.1} ms {:5} kB   png {painted:6.1} ms {:5} kB",
            figure.svg().len() / 1000,
            png.len() / 1000
        );
        self.names.push(name);
        self.svg.push(drawn);
        self.png.push(painted);
        Ok(())
    }

    fn run(&mut self, case: &str, run: &RunSeries) -> Result<(), Box<dyn Error>> {
        for make in [plot::trace, plot::rank, plot::energy, plot::autocorr, plot::running_llc] {
            self.add(case, || make(run))?;
        }
        Ok(())
    }

    fn target(&mut self, case: &str, target: &str, runs: &[RunSeries]) -> Result<(), Box<dyn Error>> {
        for make in [plot::convergence, plot::wnv, plot::comparison] {
            self.add(case, || make(target, runs))?;
        }
        Ok(())
    }

    fn study(&mut self, case: &str, study: &Trials) -> Result<(), Box<dyn Error>> {
        for make in
            [plot::optimization_history, plot::param_importance, plot::parallel_coordinate, plot::pareto]
        {
            self.add(case, || make(study))?;
        }
        self.add(case, || plot::contour(study, 0, 1))
    }

    fn finish(self) -> Result<(), Box<dyn Error>> {
        for (page, back, ink) in [("light", "#ffffff", "#000000"), ("dark", "#101014", "#dddddd")] {
            let mut html = format!(
                "<!doctype html><meta charset=utf-8><body style=\"background:{back};color:{ink};font-family:sans-serif\">\n"
            );
            for name in &self.names {
                let _ = writeln!(
                    html,
                    "<figure style=\"display:inline-block\"><img src=\"{name}.svg\" width=400><figcaption>{name}</figcaption></figure>"
                );
            }
            std::fs::write(self.folder.join(format!("{page}.html")), html)?;
        }
        println!(
            "{} figures; median svg {:.1} ms, median png {:.1} ms",
            self.names.len(),
            stats::median(&self.svg),
            stats::median(&self.png)
        );
        Ok(())
    }
}

fn slices(chains: &[Vec<f64>]) -> Vec<&[f64]> {
    chains.iter().map(Vec::as_slice).collect()
}

fn series<'a>(sampler: &'a str, chains: &'a [Vec<f64>], energy: Option<&'a [Vec<f64>]>) -> RunSeries<'a> {
    let llc = slices(chains);
    let mean = stats::mean(&llc.concat());
    let mcse = stats::mcse_mean(&llc);
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    RunSeries {
        target: "small-data",
        sampler,
        mean: finite(mean),
        mcse: finite(mcse),
        interval: finite(mcse).map(|_| (mean - 1.97 * mcse, mean + 1.97 * mcse)),
        ess: finite(stats::ess_mean(&llc)),
        r_hat: finite(stats::r_hat(&llc)),
        fge_warmup: 4000.0,
        fge_sampling: 12.0 * llc.iter().map(|c| c.len()).sum::<usize>() as f64,
        seconds_warmup: Some(0.8),
        seconds_sampling: Some(4.2),
        exact_llc: Some(12.0),
        exact_lambda: Some(12.5),
        verdict: Some(Verdict::Ok),
        energy: energy.map(slices),
        chains: llc,
    }
}

fn made_up(sheet: &mut Sheet) -> Result<(), Box<dyn Error>> {
    let mut noise = Noise(1);
    let mut crowd = |m: usize, n: usize, rho: f64| -> Vec<Vec<f64>> {
        (0..m).map(|_| noise.chain(n, 12.0, rho)).collect()
    };
    for (m, n) in [(4, 1000), (1, 1000), (8, 1000), (64, 1000), (64, 100_000)] {
        let (llc, energy) = (crowd(m, n, 0.7), crowd(m, n, 0.3));
        sheet.run(&format!("{m}x{n}"), &series("hmc", &llc, Some(&energy)))?;
    }
    let slow = crowd(4, 1000, 0.995);
    sheet.run("slow", &series("sgld", &slow, None))?;
    let constant = vec![vec![3.25; 500]; 4];
    sheet.run("constant", &series("hmc", &constant, Some(&constant)))?;
    let mut holes = crowd(4, 1000, 0.7);
    holes[1][300..500].fill(f64::NAN);
    holes[2][700] = f64::INFINITY;
    holes[3].fill(f64::NAN);
    sheet.run("nan", &series("hmc", &holes, Some(&holes)))?;
    let gone = vec![vec![f64::NAN; 10]; 2];
    sheet.run("all-nan", &series("hmc", &gone, Some(&gone)))?;
    sheet.run("empty", &series("hmc", &[], None))?;
    let one = vec![vec![1.5]];
    sheet.run("one-draw", &series("hmc", &one, Some(&one)))?;
    let huge: Vec<Vec<f64>> =
        crowd(4, 300, 0.5).iter().map(|c| c.iter().map(|x| (x - 12.0) * 1e299).collect()).collect();
    let mut huge = series("hmc", &huge, Some(&huge));
    (huge.exact_llc, huge.exact_lambda) = (None, None);
    huge.target =
        "<script>&\" and a name that is far too long to stand above any figure of this width, so it is cut";
    sheet.run("huge", &huge)?;
    sheet.target("huge", huge.target, &[huge.clone()])?;

    let chains: Vec<Vec<Vec<f64>>> = vec![
        crowd(4, 1000, 0.6),
        crowd(4, 1000, 0.9),
        crowd(4, 1000, 0.2),
        crowd(4, 1000, 0.97),
        crowd(4, 1000, 0.0),
    ];
    let names = ["hmc", "nuts", "mclmc", "sgld", "vi"];
    let mut runs: Vec<RunSeries> = names.iter().zip(&chains).map(|(s, c)| series(s, c, None)).collect();
    for (i, run) in runs.iter_mut().enumerate() {
        run.fge_warmup *= [1.0, 2.0, 0.3, 0.05, 8.0][i];
        run.fge_sampling *= [1.0, 3.0, 0.4, 0.1, 0.02][i];
        run.seconds_sampling = Some([4.0, 9.0, 1.5, 0.6, 0.3][i]);
    }
    runs[3].verdict = Some(Verdict::Check);
    sheet.target("five", "small-data", &runs)?;
    let many: Vec<RunSeries> = (0..14).map(|i| runs[i % 5].clone()).collect();
    sheet.target("many", "small-data", &many)?;
    sheet.target("one", "small-data", &runs[..1])?;
    runs[0].seconds_sampling = None;
    runs[1].mcse = None;
    runs[1].interval = None;
    runs[2].chains = slices(&gone);
    (runs[2].mean, runs[2].mcse, runs[2].interval) = (None, None, None);
    sheet.target("gaps", "small-data", &runs)?;
    sheet.target("none", "small-data", &[])?;
    targets(sheet)?;
    studies(sheet)
}

fn targets(sheet: &mut Sheet) -> Result<(), Box<dyn Error>> {
    let mut noise = Noise(2);
    let mut curve = |floor: f64| -> Vec<(f64, f64)> {
        (0..=200)
            .map(|i| {
                let step = 50.0 * f64::from(i);
                (step, (2.0 * (-step / 900.0).exp() + floor) * (0.12 * noise.normal()).exp())
            })
            .collect()
    };
    let (train, held_out) = (curve(0.01), curve(0.022));
    let mut data = TargetCurves {
        target: "small-data",
        loss: "mse",
        train: train.clone().into(),
        validation: held_out.into(),
        l0: Some(0.0098),
    };
    sheet.add("both", || plot::loss_curve(&data))?;
    data.validation = Vec::new().into();
    sheet.add("train", || plot::loss_curve(&data))?;
    data.train = train.iter().map(|p| (p.0, p.1 - 0.012)).collect();
    data.l0 = None;
    sheet.add("negative", || plot::loss_curve(&data))?;
    data.train = Vec::new().into();
    sheet.add("none", || plot::loss_curve(&data))?;
    for (case, n) in [("100", 100), ("10000", 10_000), ("none", 0)] {
        let pairs: Vec<(f64, f64)> = (0..n)
            .map(|_| {
                let x = noise.normal();
                (x, x + 0.1 * noise.normal())
            })
            .collect();
        for held_out in [false, true] {
            let data =
                Predictions { target: "small-data", held_out, pairs: pairs.clone().into(), observed: false };
            sheet.add(case, || plot::pred_vs_teacher(&data))?;
        }
    }
    Ok(())
}

fn studies(sheet: &mut Sheet) -> Result<(), Box<dyn Error>> {
    let mut noise = Noise(3);
    let params = vec![
        Param { name: "step_size".into(), log: true, choices: Vec::new() },
        Param { name: "steps".into(), log: false, choices: Vec::new() },
        Param {
            name: "precond".into(),
            log: false,
            choices: ["none", "rmsprop", "adam"].map(String::from).into(),
        },
        Param {
            name: "batch_size".into(),
            log: false,
            choices: ["32", "64", "128", "256"].map(String::from).into(),
        },
    ];
    let trials: Vec<Trial> = (0..80)
        .map(|number| {
            let log_step = -6.0 + 5.0 * noise.uniform();
            let steps = (5.0 + (15.0 * noise.uniform()).floor()) * 1000.0;
            let (precond, batch) = ((3.0 * noise.uniform()).floor(), (4.0 * noise.uniform()).floor());
            let error = 0.02 + 0.4 * (log_step + 3.2).powi(2) + 300.0 / steps * (1.0 + 0.2 * precond);
            Trial {
                number,
                state: match number % 13 {
                    11 => TrialState::Pruned,
                    12 => TrialState::Failed,
                    _ => TrialState::Complete,
                },
                value: (number % 13 != 12).then(|| error * (0.3 * noise.normal()).exp()),
                cost: Some(steps * (0.1 + 0.1 * batch) * (1.0 + 0.3 * noise.uniform())),
                params: vec![Some(10f64.powf(log_step)), Some(steps), Some(precond), Some(batch)],
            }
        })
        .collect();
    let importance = [("step_size", 0.71), ("steps", 0.16), ("batch_size", 0.08), ("precond", 0.05)]
        .map(|(n, x)| (n.to_string(), x))
        .into();
    let mut study = Trials {
        shortened: 0,
        study: "small-data · sgld",
        objective: "|λ̂ − λ_ref| (nats)",
        cost: "work (FGE)",
        params,
        trials,
        importance,
        importance_method: "fANOVA",
    };
    sheet.study("study", &study)?;
    sheet.add("study-choices", || plot::contour(&study, 2, 3))?;
    study.params.extend((0..8).map(|i| Param {
        name: format!("a_long_parameter_{i}"),
        log: false,
        choices: Vec::new(),
    }));
    for trial in &mut study.trials {
        trial.params.extend((0..8).map(|_| Some(noise.uniform())));
    }
    study.importance.extend((0..20).map(|i| (format!("a_long_name_of_a_parameter_{i}"), 0.01)));
    sheet.study("wide", &study)?;
    study.trials.truncate(2);
    sheet.study("two", &study)?;
    sheet.study(
        "none",
        &Trials { study: "small-data · sgld", objective: "|λ̂ − λ_ref| (nats)", ..Trials::default() },
    )
}

/// One run from a sweep's tree.
struct Stored {
    trace: Trace,
    analysis: Analysis,
    seconds: Option<f64>,
}

fn load(folder: &Path) -> Result<Stored, Box<dyn Error>> {
    let (trace, _) = read_trace(&std::fs::read(folder.join("trace.nc"))?)?;
    let analysis = serde_json::from_slice(&std::fs::read(folder.join("analysis.json"))?)?;
    let timing: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("timing.json"))?)?;
    Ok(Stored { trace, analysis, seconds: timing["seconds"].as_f64() })
}

fn real(sheet: &mut Sheet, root: &Path) -> Result<(), Box<dyn Error>> {
    let folders = |path: &Path| -> Result<Vec<PathBuf>, Box<dyn Error>> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(path)?
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.is_dir())
            .collect();
        found.sort();
        Ok(found)
    };
    for target in folders(&root.join("runs/targets"))? {
        let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(target.join("meta.json"))?)?;
        let label = meta["label"].as_str().unwrap_or("target");
        let mut stored = Vec::new();
        for run in folders(&target)?.iter().filter(|p| p.join("trace.nc").exists()) {
            stored.push(load(run)?);
        }
        let runs: Vec<RunSeries> = stored
            .iter()
            .map(|s| {
                let total = s.analysis.fge_warmup + s.analysis.fge_sampling;
                let share = s.analysis.fge_warmup / total;
                RunSeries {
                    seconds_warmup: s.seconds.map(|x| x * share),
                    seconds_sampling: s.seconds.map(|x| x * (1.0 - share)),
                    ..RunSeries::new(label, &s.trace, &s.analysis)
                }
            })
            .collect();
        let case = format!("real-{}", label.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        for run in &runs {
            sheet.run(&format!("{case}-{}", run.sampler), run)?;
        }
        sheet.target(&case, label, &runs)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(folder) = arguments.next() else {
        return Err("usage: figures DIR [ROOT]".into());
    };
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    let mut sheet = Sheet { folder, names: Vec::new(), svg: Vec::new(), png: Vec::new() };
    match arguments.next() {
        Some(root) => real(&mut sheet, Path::new(&root))?,
        None => made_up(&mut sheet)?,
    }
    sheet.finish()
}
