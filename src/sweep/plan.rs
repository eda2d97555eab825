//! From an experiment to a plan: identities, sizes, expected work. Nothing is run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::{
    self, Experiment, External, Id, Network, Parameters, Place, PosteriorSpec, Problem, SamplerSpec,
    TargetSpec,
};
use crate::device::gpu::DeviceInfo;
use crate::io::npz;
use crate::sampler;
use crate::target::{ExternalArrays, TargetError, network_of, param_count};

use super::{SweepError, chosen};

/// A sweep as it will be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names `results/<name>.*`.
    pub name: String,
    /// Targets in the order of the file.
    pub targets: Arc<Vec<PlannedTarget>>,
    /// Runs, target by target; then those that were [added](Self::with).
    pub runs: Vec<Arc<PlannedRun>>,
    /// Runs that a device was there for and that stay on the CPU, by the reason.
    pub stays: Vec<(String, Vec<String>)>,
    /// What tables call each run's sampler.
    names: Vec<String>,
}

/// A target to be there.
#[derive(Debug)]
pub struct PlannedTarget {
    /// Identity.
    pub id: Id,
    /// The target.
    pub spec: TargetSpec,
    /// For tables.
    pub label: String,
    /// Where the file names it.
    pub place: Place,
    /// The user's arrays, for `external` targets.
    pub external: Option<ExternalArrays>,
    /// Number of parameters d.
    pub dim: usize,
    /// The network, where there is one.
    pub network: Option<Network>,
    /// Rows n as they enter β.
    pub n_data: usize,
    /// Rows that a gradient sums over; 0 for a target without rows.
    pub rows: usize,
    /// Floating-point operations of one full gradient.
    pub gradient_flops: f64,
    /// Expected work of the build in full gradients.
    pub build_fge: f64,
}

impl PlannedTarget {
    /// Whether a run of this sampler has a control chain: where minima may be singular, a step that is too long shows
    /// in no other check.
    fn needs_control(&self, sampler: &SamplerSpec) -> bool {
        let singular = !matches!(self.spec.problem, Problem::Quadratic(_));
        singular && sampler::bias_at_half_step(sampler).is_some()
    }

    /// Expected work of a run that samples all parameters.
    pub fn expected_fge(&self, sampler: &SamplerSpec) -> sampler::ExpectedFge {
        sampler::expected_fge(sampler, self.rows, self.dim, self.needs_control(sampler))
    }
}

/// A run to be there.
#[derive(Debug)]
pub struct PlannedRun {
    /// Identity.
    pub id: Id,
    /// Keys its random numbers: the identity without chains and draws.
    pub stream: Id,
    /// Index of its target.
    pub target: usize,
    /// Places of the parameters that are sampled; `None`: all. Runs that choose the same share them.
    pub chosen: Option<Arc<Vec<u32>>>,
    /// BLAKE3 of the file that chose them, where there is one.
    pub mask: Option<[u8; 32]>,
    /// How many they are.
    pub dim: usize,
    /// The sampler.
    pub sampler: SamplerSpec,
    /// The posterior.
    pub posterior: PosteriorSpec,
    /// Whether a control chain at half the step belongs to it.
    pub control: bool,
    /// Expected work.
    pub fge: sampler::ExpectedFge,
    /// Whether TensorBoard events are written beside its files.
    pub tensorboard: bool,
    /// Numbers of draws, ascending, at which all chains wait until the [`Proposer`](super::Proposer) has looked
    /// at what there is.
    pub gates: Vec<usize>,
    /// Wall seconds of all units together after which it is given up.
    pub most_seconds: Option<f64>,
    /// The kind of device that its chains run on, in one unit; `None`: the CPU.
    pub device: Option<&'static str>,
}

impl PlannedRun {
    fn of(
        (index, target): (usize, &PlannedTarget),
        sampler: &SamplerSpec,
        posterior: &PosteriorSpec,
        (chosen, mask): Choice,
    ) -> Self {
        let control = target.needs_control(sampler);
        let dim = chosen.as_ref().map_or(target.dim, |chosen| chosen.len());
        Self {
            id: config::run_id(&target.id, sampler, posterior, mask),
            stream: config::stream_id(&target.id, sampler, posterior, mask),
            chosen,
            mask,
            dim,
            target: index,
            sampler: sampler.clone(),
            posterior: posterior.clone(),
            control,
            tensorboard: false,
            gates: Vec::new(),
            most_seconds: None,
            device: None,
            fge: sampler::expected_fge(sampler, target.rows, dim, control),
        }
    }

    /// nβ on its target.
    pub fn nbeta(&self, target: &PlannedTarget) -> f64 {
        target.n_data as f64 * self.posterior.beta(target.n_data)
    }

    /// Units of its chains: one each, or one for all of them on a device.
    pub fn chain_units(&self) -> usize {
        if self.device.is_some() { 1 } else { self.sampler.chains }
    }

    /// Number of units that make the run.
    pub fn units(&self) -> usize {
        1 + self.chain_units() + usize::from(self.control)
    }

    /// Puts its chains on a device, where that can be; else why not. It is another run then: its random numbers are.
    fn put_on(&mut self, target: &PlannedTarget, info: &DeviceInfo) -> Result<(), String> {
        if self.chosen.is_some() {
            return Err("posterior.parameters chooses some, and the kernels sample all".to_owned());
        }
        let network = target.network.as_ref().map(|network| (network, target.spec.problem.loss()));
        if let Some(why) = sampler::stays_on_cpu(&self.sampler, network, target.rows, info.shared) {
            return Err(why);
        }
        self.id = config::on_device(&self.id, info.kind);
        self.stream = config::on_device(&self.stream, info.kind);
        self.device = Some(info.kind);
        Ok(())
    }
}

impl Plan {
    /// Plans an experiment for the CPU. Files of `external` targets are read here, once, and enter the
    /// identities by their content.
    pub fn new(experiment: &Experiment) -> Result<Self, SweepError> {
        Self::on(experiment, None)
    }

    /// Plans an experiment, the chains of the runs that can be there on a device of that kind.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on(experiment: &Experiment, device: Option<&DeviceInfo>) -> Result<Self, SweepError> {
        let mut targets = Vec::with_capacity(experiment.targets.len());
        for (index, entry) in experiment.targets.iter().enumerate() {
            let external = match &entry.spec.problem {
                Problem::External(e) => Some(read_external(e, index, &entry.place)?),
                _ => None,
            };
            let (external, content) = external.unzip();
            let content: Vec<(&str, [u8; 32])> =
                content.iter().flat_map(|c: &[[u8; 32]; 2]| [("data", c[0]), ("params", c[1])]).collect();
            let id = config::target_id(&entry.spec, &content);
            let size = Size::of(&entry.spec, external.as_ref()).map_err(|source| SweepError::Target {
                place: entry.place.clone(),
                index,
                source: Box::new(source),
            })?;
            targets.push(PlannedTarget {
                id,
                spec: entry.spec.clone(),
                label: entry.label.clone(),
                place: entry.place.clone(),
                external,
                dim: size.dim,
                network: size.network,
                n_data: size.n_data,
                rows: size.rows,
                gradient_flops: size.flops,
                build_fge: size.build_fge,
            });
        }
        let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut masks = chosen::Masks::default();
        let mut choices = Choices::default();
        let runs: Result<Vec<Arc<PlannedRun>>, SweepError> = experiment
            .runs
            .iter()
            .map(|run| {
                let target: &PlannedTarget = &targets[run.target];
                let (chosen, mask) = choices.of(run.target, &run.posterior, target, &mut masks)?;
                let dim = chosen.as_ref().map_or(target.dim, |chosen| chosen.len());
                if let Some((key, why)) = sampler::oversized(&run.sampler, dim) {
                    let (place, index, label) = (run.place.clone(), run.entry, target.label.clone());
                    return Err(SweepError::Oversized { place, index, label, key, why });
                }
                let choice = (chosen, mask);
                let mut planned = PlannedRun::of((run.target, target), &run.sampler, &run.posterior, choice);
                planned.tensorboard = run.tensorboard;
                if let Some(info) = device
                    && let Err(why) = planned.put_on(target, info)
                {
                    let name = run.sampler.algo.name();
                    left.entry(why).or_default().push(format!("{name} on {}", target.label));
                }
                Ok(Arc::new(planned))
            })
            .collect();
        let runs = runs?;
        let names = names(&targets, &runs);
        let stays = left.into_iter().collect();
        let plan = Self { name: experiment.name.clone(), targets: Arc::new(targets), runs, stays, names };
        plan.refuse_twins()?;
        Ok(plan)
    }

    /// Targets and masks of equal files under different paths are equal, which only ids tell.
    fn refuse_twins(&self) -> Result<(), SweepError> {
        let mut seen = BTreeMap::new();
        for (second, target) in self.targets.iter().enumerate() {
            if let Some(first) = seen.insert(target.id, second) {
                let (place, label) = (target.place.clone(), target.label.clone());
                return Err(SweepError::Twins { place, first, second, label });
            }
        }
        let mut seen = BTreeMap::new();
        for run in &self.runs {
            if let Some(first) = seen.insert(run.id, run) {
                let target = &self.targets[run.target];
                let why = format!(
                    "{} is given twice: the masks have the same content; remove one",
                    first.sampler.algo.name()
                );
                let (place, label) = (target.place.clone(), target.label.clone());
                return Err(SweepError::Parameters { place, label, why });
            }
        }
        Ok(())
    }

    /// The plan with runs that were not known when it was made.
    pub fn with(&self, runs: impl IntoIterator<Item = PlannedRun>) -> Self {
        let mut plan = self.clone();
        for run in runs {
            plan.names.push(format!("{}_{}", run.sampler.algo.name(), run.id.short(8)));
            plan.runs.push(Arc::new(run));
        }
        plan
    }

    /// A run of all parameters on the target `target`, to be added.
    ///
    /// # Errors
    /// [`SweepError::Oversized`].
    pub fn run_on(
        &self,
        target: usize,
        sampler: &SamplerSpec,
        posterior: &PosteriorSpec,
    ) -> Result<PlannedRun, SweepError> {
        let of = &self.targets[target];
        if let Some((key, why)) = sampler::oversized(sampler, of.dim) {
            let (place, label) = (of.place.clone(), of.label.clone());
            return Err(SweepError::Oversized { place, index: 0, label, key, why });
        }
        Ok(PlannedRun::of((target, of), sampler, posterior, (None, None)))
    }

    /// A run's sampler as tables and lines name it: with the run's id where another run of the same
    /// sampler on a target of the same label would read the same.
    pub fn sampler_name(&self, run: usize) -> &str {
        &self.names[run]
    }

    /// Number of units of the whole sweep: builds, warmups, chains.
    pub fn units(&self) -> usize {
        self.targets.len() + self.runs.iter().map(|run| run.units()).sum::<usize>()
    }
}

/// What runs on one target have chosen so far: its parameters are listed once, not once a run.
#[derive(Default)]
struct Choices {
    target: usize,
    known: Vec<(Option<Parameters>, Choice)>,
}

type Choice = (Option<Arc<Vec<u32>>>, Option<[u8; 32]>);

impl Choices {
    fn of(
        &mut self,
        index: usize,
        posterior: &PosteriorSpec,
        target: &PlannedTarget,
        masks: &mut chosen::Masks,
    ) -> Result<Choice, SweepError> {
        if index != self.target {
            (self.target, self.known) = (index, Vec::new());
        }
        let parameters = &posterior.parameters;
        if let Some((_, choice)) = self.known.iter().find(|(known, _)| known == parameters) {
            return Ok(choice.clone());
        }
        let (chosen, mask) = chosen::parameters(posterior, target, masks)?;
        let choice = (chosen.map(Arc::new), mask);
        self.known.push((parameters.clone(), choice.clone()));
        Ok(choice)
    }
}

fn names(targets: &[PlannedTarget], runs: &[Arc<PlannedRun>]) -> Vec<String> {
    let plain = |run: &PlannedRun| (run.sampler.algo.name(), targets[run.target].label.clone());
    let mut count: BTreeMap<_, usize> = BTreeMap::new();
    for run in runs {
        *count.entry(plain(run)).or_default() += 1;
    }
    let name = |run: &Arc<PlannedRun>| match count[&plain(run)] {
        1 => run.sampler.algo.name().to_owned(),
        _ => format!("{}_{}", run.sampler.algo.name(), run.id.short(8)),
    };
    runs.iter().map(name).collect()
}

/// What a target's cost follows from.
struct Size {
    dim: usize,
    network: Option<Network>,
    n_data: usize,
    rows: usize,
    flops: f64,
    build_fge: f64,
}

impl Size {
    fn of(spec: &TargetSpec, external: Option<&ExternalArrays>) -> Result<Self, TargetError> {
        let rowless = |dim: usize, n_data: usize| Size {
            dim,
            network: None,
            n_data,
            rows: 0,
            flops: 4.0 * dim as f64,
            build_fge: 1.0,
        };
        let network = network_of(&spec.problem, external)?;
        Ok(match (&spec.problem, network) {
            (Problem::Quadratic(q), _) => rowless(q.eigenvalues.len(), q.n_data),
            (Problem::NormalCrossing(c), _) => rowless(c.exponents.len(), c.n_data),
            // A problem with rows has a network.
            (_, None) => rowless(0, 1),
            (problem, Some((network, n))) => {
                let widths: Vec<usize> = std::iter::once(network.in_dim)
                    .chain(network.hidden.iter().copied())
                    .chain([network.out_dim])
                    .collect();
                let products: usize = widths.windows(2).map(|w| w[0] * w[1]).sum();
                let build_fge = match problem {
                    Problem::Mlp(m) => {
                        m.training.steps as f64 * m.training.batch_size.map_or(1.0, |b| b as f64 / n as f64)
                    }
                    _ => 1.0,
                };
                let flops = n as f64 * (6 * products - 2 * widths[0] * widths[1]) as f64;
                let dim = param_count(&network);
                Size { dim, network: Some(network), n_data: n, rows: n, flops, build_fge }
            }
        })
    }
}

fn read_external(
    spec: &External,
    index: usize,
    place: &Place,
) -> Result<(ExternalArrays, [[u8; 32]; 2]), SweepError> {
    let read = |key, path: &Path| -> Result<(BTreeMap<String, npz::Array>, [u8; 32]), SweepError> {
        let told = |why: String| SweepError::External {
            place: place.clone(),
            index,
            key,
            path: path.to_owned(),
            why,
        };
        let bytes = super::files::read_bounded(path).map_err(told)?;
        let arrays = npz::read(&bytes).map_err(|e| told(e.to_string()))?;
        Ok((arrays, *blake3::hash(&bytes).as_bytes()))
    };
    let (data, data_hash) = read("data", &spec.data)?;
    let (params, params_hash) = read("params", &spec.params)?;
    Ok((super::files::external_arrays(data, params), [data_hash, params_hash]))
}
