//! What the page shows of one target and of one run.

use std::path::Path;

use serde::Serialize;

use super::figures::Picture;
use super::rows::{Subject, short};
use super::words::{self, NONE, number, whole};
use crate::config::{PosteriorSpec, SamplerSpec, TargetSpec, written, yaml};
use crate::diagnostics::{Diagnosis, Quantity};
use crate::promote::{FoundRun, FoundTarget, Provenance, RunsRoot, Trouble};

/// A name and what is said of it.
pub(super) type Fact = (String, String);

/// A target with its runs.
#[derive(Debug, Serialize)]
pub(super) struct TargetView {
    pub anchor: String,
    pub label: String,
    pub facts: Vec<Fact>,
    pub config: String,
    pub pictures: Vec<Picture>,
    pub runs: Vec<RunView>,
}

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct RunView {
    /// Index of its row.
    pub row: usize,
    pub pictures: Vec<Picture>,
    pub diagnosis: Option<DiagnosisView>,
    pub config: String,
    pub provenance: Vec<Fact>,
    pub files: Vec<Fact>,
    pub again: Option<Again>,
    /// The command that tries a failed run again.
    pub retry: Option<String>,
}

/// A diagnosis as a table, one column a quantity, and what stands outside of it.
#[derive(Debug, Serialize)]
pub(super) struct DiagnosisView {
    pub quantities: Vec<String>,
    pub lines: Vec<(String, Vec<String>)>,
    pub facts: Vec<Fact>,
    pub findings: Vec<String>,
}

/// How to run one run again.
#[derive(Debug, Serialize)]
pub(super) struct Again {
    /// Writes the file and runs it.
    pub command: String,
    /// The same with twice the draws.
    pub more: String,
}

/// A path below the root, as it is on any machine.
pub(super) fn place(found: &RunsRoot, dir: &Path) -> String {
    let below = dir.strip_prefix(found.home()).ok().or_else(|| {
        let home = found.home().canonicalize().ok()?;
        dir.strip_prefix(home).ok()
    });
    match below {
        Some(path) => path.display().to_string(),
        None => {
            let parts: Vec<_> =
                dir.components().rev().take(2).map(|c| c.as_os_str().to_string_lossy()).collect();
            parts.into_iter().rev().collect::<Vec<_>>().join("/")
        }
    }
}

/// A trouble as the page tells it.
pub(super) fn told(found: &RunsRoot, trouble: &Trouble) -> Fact {
    (place(found, &trouble.dir), format!("{} {}; {}", trouble.file, trouble.what, trouble.remedy))
}

fn fact(name: &str, value: impl Into<String>) -> Fact {
    (name.to_owned(), value.into())
}

/// What is known of a target.
pub(super) fn target_facts(found: &RunsRoot, target: &FoundTarget) -> Vec<Fact> {
    let m = &target.meta;
    let mut facts = vec![
        fact("problem", m.problem.clone()),
        fact("parameters d", m.d.to_string()),
        fact("rows n", m.n.to_string()),
    ];
    if let Some(widths) = &m.widths {
        let widths: Vec<String> = widths.iter().map(usize::to_string).collect();
        facts.push(fact("hidden widths", widths.join(", ")));
    }
    facts.push(fact("L0 = L_n(w*)", format!("{} ({})", m.l0, m.precision)));
    facts.push(fact(
        "λ",
        match (m.exact_lambda, m.exact_multiplicity) {
            (Some(lambda), Some(order)) => format!("{lambda} with multiplicity {order}"),
            (Some(lambda), None) => lambda.to_string(),
            _ => "not known".into(),
        },
    ));
    if let Some(training) = &m.training {
        let text = format!(
            "{} steps, best loss {} at step {}",
            training.steps,
            number(Some(training.best_loss)),
            training.best_step
        );
        facts.push(fact("training", text));
    }
    facts.push(fact("directory", place(found, &target.dir)));
    facts.push(fact("URN", m.urn.clone()));
    facts.extend(m.files.iter().map(|(name, hash)| fact(&format!("BLAKE3 of {name}"), hash.clone())));
    facts
}

/// A run, as far as there is one.
pub(super) fn run_view(
    found: &RunsRoot,
    experiment: &str,
    row: usize,
    subject: &Subject,
    target: Option<&FoundTarget>,
) -> RunView {
    let mut view = RunView {
        row,
        pictures: Vec::new(),
        diagnosis: None,
        config: String::new(),
        provenance: vec![fact("run id", subject.listed.run_id.clone())],
        files: Vec::new(),
        again: None,
        retry: None,
    };
    let Some(run) = subject.found else {
        let tail = if subject.listed.status == "done" { "" } else { " --retry-failed" };
        view.retry = Some(format!("lambda-hat-mpi EXPERIMENT.yaml --experiment {experiment}{tail}"));
        return view;
    };
    let m = &run.manifest;
    view.config = yaml(&m.config);
    view.provenance.push(fact("URN", m.urn.clone()));
    view.provenance.push(fact("directory", place(found, &run.dir)));
    view.provenance.push(fact("target", m.target_id.clone()));
    view.provenance.extend(provenance_facts(&m.provenance));
    let cast = if m.precision.cast { " (cast)" } else { "" };
    let precision = format!("target {}, sampler {}{cast}", m.precision.target, m.precision.sampler);
    view.provenance.push(fact("precision", precision));
    view.files = m.files.iter().map(|(name, hash)| fact(name, hash.clone())).collect();
    view.again = target.and_then(|target| again(run, &target.meta.config));
    view
}

fn provenance_facts(p: &Provenance) -> Vec<Fact> {
    let slots: u64 = p.ranks.iter().filter_map(|rank| rank["slots"].as_u64()).sum();
    let ranks = match p.ranks.len() {
        0 => NONE.into(),
        n => format!("{}, {}", words::count(n, "rank"), words::count(slots as usize, "slot")),
    };
    vec![
        fact("finished", p.when.clone()),
        fact("program", format!("lambda-hat-mpi {} ({})", p.version, p.git_sha)),
        fact("arithmetic", p.arithmetic.clone()),
        fact("launch", p.launch.clone()),
        fact("hosts", p.hosts.join(", ")),
        fact("ranks", ranks),
        fact("wall time of all units", words::seconds(Some(p.seconds))),
    ]
}

/// The file and command that make this run, and this run alone.
fn again(run: &FoundRun, target: &TargetSpec) -> Option<Again> {
    let m = &run.manifest;
    let sampler: SamplerSpec = serde_json::from_value(m.config.get("sampler")?.clone()).ok()?;
    let posterior: PosteriorSpec = serde_json::from_value(m.config.get("posterior")?.clone()).ok()?;
    let name = format!("rerun-{}", short(&m.run_id, 8));
    let text = written(&name, target, &sampler, &posterior)?;
    let key = sampler.algo.length_key();
    let now = m.config.pointer(&format!("/sampler/algo/{}/{key}", sampler.algo.name()))?.as_u64()?;
    let sampler = sampler.algo.name();
    // Elsewhere it would be another run; what only CPUs run needs no word.
    let device = match (m.config.get("device").is_some(), sampler) {
        (true, _) => " --device cuda",
        (false, "sgld") => " --device cpu",
        (false, _) => "",
    };
    Some(Again {
        command: format!("cat > {name}.yaml <<'END'\n{text}END\nlambda-hat-mpi {name}.yaml{device}\n"),
        more: format!(
            "lambda-hat-mpi {name}.yaml{device} --set samplers.{sampler}.overrides.{key}={}\n",
            2 * now
        ),
    })
}

type Line = (&'static str, fn(&Quantity) -> String);

const LINES: [Line; 11] = [
    ("mean", |q| number(q.mean)),
    ("standard deviation", |q| number(q.sd)),
    ("MCSE of the mean", |q| number(q.mcse_mean)),
    ("MCSE of the deviation", |q| number(q.mcse_sd)),
    ("R-hat", |q| q.r_hat.map_or_else(|| NONE.into(), |r| format!("{r:.4}"))),
    ("ESS mean", |q| whole(q.ess_mean)),
    ("ESS bulk", |q| whole(q.ess_bulk)),
    ("ESS tail", |q| whole(q.ess_tail)),
    ("5, 50, 95 % quantile", |q| {
        let wanted = [0.05, 0.5, 0.95].map(|w| q.quantiles.iter().find(|x| x.q == w).and_then(|x| x.value));
        wanted.map(number).join(", ")
    }),
    ("Geweke's z", |q| number(q.geweke_z)),
    ("more warmup needed (draws a chain)", |q| match &q.full {
        Some(full) => full.burn_in.needed.map_or_else(|| "cannot be told".into(), |n| n.to_string()),
        None => NONE.into(),
    }),
];

/// A diagnosis, with what the analysis adds to it.
pub(super) fn diagnosis_view(diagnosis: &Diagnosis, run: &FoundRun) -> DiagnosisView {
    let list = |values: &[Option<f64>]| values.iter().map(|v| number(*v)).collect::<Vec<_>>().join(", ");
    let mut facts = vec![fact("chains × draws", format!("{} × {}", diagnosis.n_chains, diagnosis.n_draws))];
    if let Some(energy) = &diagnosis.energy {
        facts.push(fact("E-BFMI of each chain", list(&energy.e_bfmi)));
    }
    if let Some(divergences) = &diagnosis.divergences {
        facts.push(fact("divergences", divergences.iter().sum::<u64>().to_string()));
    }
    if let Some(acceptance) = &diagnosis.acceptance {
        facts.push(fact("acceptance of each chain", list(acceptance)));
    }
    if let Some(a) = &run.analysis {
        let known = [
            ("nβ", Some(a.nbeta)),
            ("γ", Some(a.gamma)),
            ("step size", a.step_size),
            ("L", a.momentum_length),
            ("predicted bias", a.llc_bias),
            ("MCSE between chains", a.llc_mcse_between),
            ("MCSE within chains", a.llc_mcse_within),
            ("gap of L0 in llc", a.l0_gap),
        ];
        facts.extend(known.into_iter().filter(|(_, v)| v.is_some()).map(|(name, v)| fact(name, number(v))));
        if a.control_llc.is_some() {
            let text = words::with_error(a.control_llc, a.control_mcse);
            facts.push(fact("llc of the control chain at half the step", text));
        }
    }
    DiagnosisView {
        quantities: diagnosis.quantities.iter().map(|q| q.name.clone()).collect(),
        lines: LINES
            .iter()
            .map(|(name, read)| ((*name).to_owned(), diagnosis.quantities.iter().map(read).collect()))
            .collect(),
        facts,
        findings: diagnosis.findings.clone(),
    }
}

/// A target's configuration.
pub(super) fn target_config(target: &FoundTarget) -> String {
    serde_json::to_value(&target.meta.config).map(|config| yaml(&config)).unwrap_or_default()
}

/// The distinct values of something, in order of appearance.
pub(super) fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for value in values {
        if !value.is_empty() && !seen.iter().any(|other| other == value) {
            seen.push(value.to_owned());
        }
    }
    seen
}
