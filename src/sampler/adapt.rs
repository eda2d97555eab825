//! Adaptation of step size and metric during warmup.

use serde::{Deserialize, Serialize};

/// Dual averaging of log ε (Hoffman & Gelman 2014, §3.2.1), with their constants γ = 0.05,
/// t₀ = 10, κ = 0.75 and μ = ln(10 ε₀).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DualAveraging {
    target: f64,
    mu: f64,
    count: f64,
    error: f64,
    log_average: f64,
    log_step: f64,
}

impl DualAveraging {
    const GAMMA: f64 = 0.05;
    const T0: f64 = 10.0;
    const KAPPA: f64 = 0.75;

    /// Starts at step `first`, aiming at mean acceptance `target`.
    pub fn new(first: f64, target: f64) -> Self {
        let log_step = libm::log(first);
        Self {
            target,
            mu: log_step + libm::log(10.0),
            count: 0.0,
            error: 0.0,
            log_average: log_step,
            log_step,
        }
    }

    /// Takes the acceptance probability of one iteration.
    pub fn update(&mut self, acceptance: f64) {
        self.count += 1.0;
        let weight = 1.0 / (self.count + Self::T0);
        self.error = (1.0 - weight) * self.error + weight * (self.target - acceptance);
        self.log_step = self.mu - self.error * self.count.sqrt() / Self::GAMMA;
        let weight = libm::pow(self.count, -Self::KAPPA);
        self.log_average = weight * self.log_step + (1.0 - weight) * self.log_average;
    }

    /// The step to try next.
    pub fn step(&self) -> f64 {
        libm::exp(self.log_step)
    }

    /// The averaged step, to keep.
    pub fn average(&self) -> f64 {
        libm::exp(self.log_average)
    }
}

/// Running variances, a coordinate each (Welford 1962).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Variances {
    count: f64,
    mean: Vec<f64>,
    square: Vec<f64>,
}

impl Variances {
    /// Weight of the regularisation in draws (Stan Reference Manual, "HMC algorithm parameters").
    const PRIOR_DRAWS: f64 = 5.0;
    /// Its size relative to the coordinates' geometric mean variance.
    const PRIOR_SCALE: f64 = 1e-3;

    /// No draws yet, of dimension `d`.
    pub fn new(d: usize) -> Self {
        Self { count: 0.0, mean: vec![0.0; d], square: vec![0.0; d] }
    }

    /// Takes a draw.
    pub fn push(&mut self, w: impl Iterator<Item = f64>) {
        self.count += 1.0;
        for ((mean, square), x) in self.mean.iter_mut().zip(&mut self.square).zip(w) {
            let before = x - *mean;
            *mean += before / self.count;
            *square += before * (x - *mean);
        }
    }

    /// Regularised variances: n/(n+5)·s² + 5/(n+5)·10⁻³·g, g the geometric mean of the s².
    ///
    /// Stan shrinks toward 10⁻³ because its models are of unit scale. Posteriors here are as wide
    /// as 1/√γ and as narrow as 1/√(nβh): only a scale taken from the draws is neutral.
    /// `None` before two draws, or where a coordinate has not moved or is not finite.
    pub fn regularised(&self) -> Option<Vec<f64>> {
        if self.count < 2.0 {
            return None;
        }
        let raw: Vec<f64> = self.square.iter().map(|s| s / (self.count - 1.0)).collect();
        let log_mean = raw.iter().map(|&v| libm::log(v)).sum::<f64>() / raw.len() as f64;
        if !log_mean.is_finite() {
            return None;
        }
        let weight = self.count / (self.count + Self::PRIOR_DRAWS);
        let prior = (1.0 - weight) * Self::PRIOR_SCALE * libm::exp(log_mean);
        Some(raw.into_iter().map(|v| weight * v + prior).collect())
    }
}

/// What a warmup iteration belongs to (Stan Reference Manual, "Automatic parameter tuning"): a
/// first phase to reach the typical set, windows of doubling length that each estimate the metric
/// anew, a last phase for the step size alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    first: usize,
    /// Iterations at whose end the metric is renewed.
    ends: Vec<usize>,
}

impl Windows {
    /// The schedule of `warmup` iterations: 75, then 25 doubling, then 50; 15 %, 75 %, 10 % of a
    /// warmup too short for that; the step size alone below 20.
    pub fn new(warmup: usize) -> Self {
        let (first, last, base) = if warmup < 20 {
            (warmup, 0, 0)
        } else if warmup < 75 + 25 + 50 {
            let (first, last) = (warmup * 15 / 100, warmup / 10);
            (first, last, warmup - first - last)
        } else {
            (75, 50, 25)
        };
        let slow_end = warmup - last;
        let (mut ends, mut start, mut length) = (Vec::new(), first, base);
        while length > 0 && start < slow_end {
            let end = if start + 3 * length > slow_end { slow_end } else { start + length };
            ends.push(end);
            start = end;
            length *= 2;
        }
        Self { first, ends }
    }

    /// Whether the draw of `iteration` enters the estimate of the metric.
    pub fn collects(&self, iteration: usize) -> bool {
        iteration >= self.first && self.ends.last().is_some_and(|&end| iteration < end)
    }

    /// Whether a window ends after `iteration`.
    pub fn ends_after(&self, iteration: usize) -> bool {
        self.ends.contains(&(iteration + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_double_and_leave_the_last_phase_to_the_step_size() {
        assert_eq!(Windows::new(1000), Windows { first: 75, ends: vec![100, 150, 250, 450, 950] });
        assert_eq!(Windows::new(200), Windows { first: 75, ends: vec![100, 150] });
        assert_eq!(Windows::new(100), Windows { first: 15, ends: vec![90] });
        assert_eq!(Windows::new(10), Windows { first: 10, ends: vec![] });
    }

    #[test]
    fn dual_averaging_finds_the_step_of_a_known_acceptance_curve() {
        // Acceptance e^(−ε) is 0.8 at ε = −ln 0.8.
        let mut adaptation = DualAveraging::new(1.0, 0.8);
        // The average forgets its start only as a power of time: hence so many iterations.
        for _ in 0..50_000 {
            let step = adaptation.step();
            adaptation.update((-step).exp());
        }
        let expected = -(0.8f64.ln());
        assert!((adaptation.average() / expected - 1.0).abs() < 0.01, "{}", adaptation.average());
    }

    #[test]
    fn variances_keep_their_ratios() {
        let mut v = Variances::new(2);
        for i in 0..1000 {
            let x = f64::from(i % 10) - 4.5;
            v.push([x, 1e-4 * x].into_iter());
        }
        let r = v.regularised().expect("moved");
        assert!((r[0] / r[1] / 1e8 - 1.0).abs() < 0.1, "{r:?}");
    }
}
