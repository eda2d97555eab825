//! Adam in whitened coordinates, with a schedule, a clipped gradient and averaged iterates.

use serde::{Deserialize, Serialize};

use crate::config::{LrSchedule, Vi, Whitening};

/// Decays of Adam's moments and what is added to the root (Kingma & Ba 2015).
const DECAYS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;
/// Largest factor by which running whitening moves a coordinate's scale from that of the curvature.
const REACH: f64 = 1e3;

/// Where the ascent is. Everything is in the units of φ itself; whitened coordinates are those in which
/// a parameter's unit is 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ascent {
    /// φ; after the last step what draws are made with.
    pub phi: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    /// β1ᵗ and β2ᵗ.
    powers: (f64, f64),
    /// Mean of the iterates since [`averages_from`].
    average: Vec<f64>,
    averaged: u64,
    /// Running second moment of ∇U by coordinate, and its decay to the power of the steps; empty
    /// without running whitening.
    moment: Vec<f64>,
    moment_power: f64,
}

/// The step from which iterates are averaged (Polyak & Juditsky 1992): the last tenth, in
/// which the rate is small already.
pub fn averages_from(settings: &Vi) -> u64 {
    settings.steps - settings.steps.div_ceil(10)
}

/// Step size of a step: rises linearly over the first `lr_warmup_frac`, then follows the schedule. Where
/// none is named it stays for the first half and falls linearly to 0 in the second: Adam's steps do
/// not become smaller as gradients do, and at a constant rate the noise of q's scales would stay as
/// large as the rate.
pub fn rate(settings: &Vi, step: u64) -> f64 {
    let warmup = settings.lr_warmup_frac * settings.steps as f64;
    let at = step as f64 + 1.0;
    if at < warmup {
        return settings.lr * at / warmup;
    }
    let gone = ((at - warmup) / (settings.steps as f64 - warmup).max(1.0)).clamp(0.0, 1.0);
    settings.lr
        * match settings.lr_schedule {
            None => (2.0 - 2.0 * at / settings.steps as f64).clamp(0.0, 1.0),
            Some(LrSchedule::Cosine) => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * gone)),
            Some(LrSchedule::LinearDecay) => 1.0 - gone,
        }
}

impl Ascent {
    /// Room for `parameters` parameters of an approximation in `dim` dimensions.
    pub fn new(settings: &Vi, parameters: usize, dim: usize) -> Self {
        let zeros = || vec![0.0; parameters];
        let moment = if settings.whitening_mode == Whitening::None { Vec::new() } else { vec![0.0; dim] };
        Self {
            phi: zeros(),
            first: zeros(),
            second: zeros(),
            powers: (1.0, 1.0),
            average: zeros(),
            averaged: 0,
            moment,
            moment_power: 1.0,
        }
    }

    /// Whether coordinates are scaled by the running moment.
    pub fn whitens(&self) -> bool {
        !self.moment.is_empty()
    }

    /// Starts the running moment (rmsprop: at what the curvature says; adam: at 0, corrected for).
    pub fn start_whitening(&mut self, settings: &Vi, base: &[f64]) {
        if settings.whitening_mode == Whitening::Rmsprop {
            self.moment.iter_mut().zip(base).for_each(|(v, s)| *v = 1.0 / (s * s));
            self.moment_power = 0.0;
        }
    }

    /// Takes the squares of a step's ∇U into the moment and makes scales of it. Under the posterior
    /// E[(∂ᵢU)²] = E[∂ᵢ²U] (by parts), so that its inverse root is the scale of coordinate i.
    pub fn whiten(&mut self, settings: &Vi, squares: &[f64], base: &[f64], scales: &mut [f64]) {
        let decay = settings.whitening_decay;
        self.moment_power *= decay;
        let correct = 1.0 / (1.0 - self.moment_power);
        for (((v, square), base), scale) in self.moment.iter_mut().zip(squares).zip(base).zip(scales) {
            *v = decay * *v + (1.0 - decay) * square;
            *scale = (1.0 / (*v * correct).sqrt()).clamp(base / REACH, base * REACH);
        }
    }

    /// One step uphill along `gradient` (by φ; spoilt). The gradient's norm in whitened coordinates,
    /// divided by the root of the number of parameters, is held below `clip_global_norm`: at the
    /// optimum it is of order 1, so that only outliers are shortened and the fixed point stays.
    pub fn climb(&mut self, settings: &Vi, step: u64, gradient: &mut [f64], units: &[f64]) {
        gradient.iter_mut().zip(units).for_each(|(g, unit)| *g *= unit);
        if let Some(most) = settings.clip_global_norm {
            let norm = (super::hessian::dot(gradient, gradient) / gradient.len() as f64).sqrt();
            if norm > most {
                gradient.iter_mut().for_each(|g| *g *= most / norm);
            }
        }
        let (beta1, beta2) = DECAYS;
        self.powers.0 *= beta1;
        self.powers.1 *= beta2;
        let (scale1, scale2) = (1.0 / (1.0 - self.powers.0), 1.0 / (1.0 - self.powers.1));
        let rate = rate(settings, step);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for (((phi, (m, v)), g), unit) in self.phi.iter_mut().zip(moments).zip(gradient).zip(units) {
            *m = beta1 * *m + (1.0 - beta1) * *g;
            *v = beta2 * *v + (1.0 - beta2) * *g * *g;
            *phi += rate * unit * (*m * scale1) / ((*v * scale2).sqrt() + EPS);
        }
        if step >= averages_from(settings) {
            self.averaged += 1;
            let share = 1.0 / self.averaged as f64;
            self.average.iter_mut().zip(&self.phi).for_each(|(mean, phi)| *mean += share * (phi - *mean));
        }
    }

    /// Exchanges φ and the mean iterate.
    pub fn swap_average(&mut self) {
        std::mem::swap(&mut self.phi, &mut self.average);
    }

    /// Keeps φ alone: the optimisation is over.
    pub fn finish(&mut self) {
        *self = Self { phi: std::mem::take(&mut self.phi), ..Self::default() };
    }
}

/// Fewest steps of a short optimisation, where there are as many at all.
const SHORTEST: u64 = 200;

/// The settings of a short optimisation: a quarter of the steps at a falling rate, and enough draws to
/// tell the ELBO. In a tenth of 5000 steps mixtures often do not come apart, and look no better than one component.
pub fn shorter(settings: &Vi) -> Vi {
    Vi {
        steps: (settings.steps / 4).max(SHORTEST).min(settings.steps),
        draws: 4 * settings.eval_samples,
        lr_schedule: Some(LrSchedule::Cosine),
        ..settings.clone()
    }
}
