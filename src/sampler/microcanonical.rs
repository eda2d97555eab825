//! Isokinetic dynamics: the momentum keeps its length and only turns (Ver Steeg & Galstyan 2021;
//! Robnik, De Luca, Silverstein & Seljak 2023, "Microcanonical Hamiltonian Monte Carlo", eq. 8–11).
//!
//! In coordinates scaled by σ, with u a unit vector: ẇ = σu, u̇ = −(1 − uuᵀ)·σ∇U/(d − 1). Both parts
//! are solved exactly and composed symmetrically.

use rand_chacha::ChaCha8Rng;

use super::posterior::{Energy, Posterior};
use crate::config::Integrator;
use crate::num::rng::fill_normal;
use crate::num::{Real, sum_of};

/// Kicks at the ends of a two-stage step of least error (McLachlan 1995, table 2; also Takaishi & de
/// Forcrand 2006, eq. 20, from whom the digits are).
const MCLACHLAN_KICK: f64 = 0.193_183_327_503_783_6;

/// One step's coefficients: kick, drift, kick, …, kick, symmetric.
pub fn coefficients(integrator: Integrator) -> &'static [f64] {
    const TWO_STAGE: [f64; 5] = [MCLACHLAN_KICK, 0.5, 1.0 - 2.0 * MCLACHLAN_KICK, 0.5, MCLACHLAN_KICK];
    const VERLET: [f64; 3] = [0.5, 1.0, 0.5];
    match integrator {
        Integrator::IsokineticMclachlan => &TWO_STAGE,
        Integrator::IsokineticVelocityVerlet => &VERLET,
    }
}

/// Gradients that a step costs.
pub fn gradients(integrator: Integrator) -> f64 {
    (coefficients(integrator).len() / 2) as f64
}

/// What a step does to the variance of a mode: with x = h²a, h the time of a step and a the
/// curvature, var·a = 1 + `slope`·x + O(x²).
///
/// In many dimensions a mode moves as a harmonic oscillator with speed of variance 1. One step is
/// then a matrix M of determinant 1; it leaves p² + q²·(−M₂₁/M₁₂) where it is, and the speed has its
/// right variance at the ends of steps, so that the place has −M₁₂/M₂₁ instead of 1/a.
pub fn variance_slope(integrator: Integrator) -> f64 {
    let x = 1e-4;
    let mut m = [[1.0, 0.0], [0.0f64, 1.0]];
    for (i, c) in coefficients(integrator).iter().enumerate() {
        // Kick: p −= c·x·q; drift: q += c·p, in units where h = 1 and a = x.
        let [place, speed] = &mut m;
        for (q, p) in place.iter_mut().zip(speed) {
            if i % 2 == 0 {
                *p -= c * x * *q;
            } else {
                *q += c * *p;
            }
        }
    }
    let variance: f64 = -m[0][1] / m[1][0] * x;
    (variance - 1.0) / x
}

/// A point on the way, with its direction.
pub struct Walker<'s, T> {
    pub w: &'s mut [T],
    pub u: &'s mut [T],
    /// ∇U(w)
    pub grad: &'s mut [T],
    pub energy: Energy,
}

/// One step of length `step`; returns the error of the energy, ΔK + ΔU, NaN or infinite where the
/// numbers are.
pub fn step<T: Real>(
    posterior: &Posterior<'_, T>,
    walker: &mut Walker<'_, T>,
    scales: &[T],
    (integrator, step): (Integrator, f64),
    scratch: &mut [T],
) -> f64 {
    let before = walker.energy.potential;
    let mut kinetic = 0.0;
    let coefficients = coefficients(integrator);
    let last = coefficients.len() - 1;
    for (i, &c) in coefficients.iter().enumerate() {
        if i % 2 == 0 {
            kinetic += turn(walker.u, walker.grad, scales, c * step);
            continue;
        }
        let length = T::from_f64(c * step);
        for ((w, &u), &s) in walker.w.iter_mut().zip(walker.u.iter()).zip(scales) {
            *w += length * s * u;
        }
        walker.energy = posterior.energy_grad(walker.w, walker.grad, scratch);
        if !walker.energy.potential.is_finite() && i < last {
            return f64::INFINITY;
        }
    }
    kinetic + walker.energy.potential - before
}

/// Turns `u` toward −σ∇U for a path of length `length`, exactly; returns the change of kinetic energy,
/// (d − 1)·ln of what the momentum's length would have grown by.
fn turn<T: Real>(u: &mut [T], grad: &[T], scales: &[T], length: f64) -> f64 {
    let mut square = 0.0;
    let mut along = 0.0;
    for ((&u, &g), &s) in u.iter().zip(grad).zip(scales) {
        let g = g.to_f64() * s.to_f64();
        square += g * g;
        along += g * u.to_f64();
    }
    let norm = square.sqrt();
    if norm == 0.0 {
        return 0.0;
    }
    let dims = (u.len() - 1) as f64;
    // e = −σ∇U/|σ∇U| is where u turns to.
    let cosine = -along / norm;
    let delta = length * norm / dims;
    let zeta = libm::exp(-delta);
    let onto = (1.0 - zeta) * (1.0 + zeta + cosine * (1.0 - zeta)) / norm;
    let keep = 2.0 * zeta;
    let mut size = 0.0;
    for ((u, &g), &s) in u.iter_mut().zip(grad).zip(scales) {
        let turned = keep * u.to_f64() - onto * g.to_f64() * s.to_f64();
        size += turned * turned;
        *u = T::from_f64(turned);
    }
    let shrink = T::from_f64(1.0 / size.sqrt());
    u.iter_mut().for_each(|u| *u *= shrink);
    dims * (delta - std::f64::consts::LN_2 + libm::log(1.0 + cosine + (1.0 - cosine) * zeta * zeta))
}

/// A direction uniform on the sphere.
pub fn draw_direction<T: Real>(rng: &mut ChaCha8Rng, u: &mut [T]) {
    fill_normal(rng, u);
    normalise(u);
}

/// Forgets part of the direction: u ← (u + νz)/‖·‖ with ν² = (e^(2ε/L) − 1)/d, so that over a path of
/// length L a factor e⁻¹ of it is left (Robnik & Seljak 2023, "Fluctuation without dissipation").
pub fn refresh<T: Real>(rng: &mut ChaCha8Rng, u: &mut [T], noise: &mut [T], step: f64, length: f64) {
    fill_normal(rng, noise);
    let nu = T::from_f64((libm::expm1(2.0 * step / length) / u.len() as f64).sqrt());
    u.iter_mut().zip(noise.iter()).for_each(|(u, &z)| *u += nu * z);
    normalise(u);
}

fn normalise<T: Real>(u: &mut [T]) {
    let shrink = T::from_f64(1.0 / sum_of(u, u, |x, _| x * x).sqrt());
    u.iter_mut().for_each(|u| *u *= shrink);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::Quadratic;

    const ALL: [Integrator; 2] = [Integrator::IsokineticMclachlan, Integrator::IsokineticVelocityVerlet];

    fn walk(integrator: Integrator, step_size: f64, count: usize, turn_back: bool) -> (f64, Vec<f64>) {
        let target = Quadratic::new(&[0.5, 3.0, 10.0, 1.0]);
        let centre = [0.0; 4];
        let posterior = Posterior::new(&target, &centre, 1.0, 0.3).expect("finite");
        let scales = [1.0, 0.5, 0.4, 1.2];
        let (mut w, mut u) = (vec![1.3, -0.4, 0.2, 0.8], vec![0.5, 0.5, -0.5, 0.5]);
        let mut grad = vec![0.0; 4];
        let energy = posterior.energy_grad(&w, &mut grad, &mut []);
        let mut walker = Walker { w: &mut w, u: &mut u, grad: &mut grad, energy };
        let mut error = 0.0;
        for round in 0..=usize::from(turn_back) {
            if round == 1 {
                walker.u.iter_mut().for_each(|u| *u = -*u);
            }
            for _ in 0..count {
                error += step(&posterior, &mut walker, &scales, (integrator, step_size), &mut []);
            }
        }
        (error, w.into_iter().chain(u).collect())
    }

    #[test]
    fn energy_errors_are_of_second_order() {
        for integrator in ALL {
            let ratio = walk(integrator, 0.02, 50, false).0 / walk(integrator, 0.01, 100, false).0;
            assert!((ratio - 4.0).abs() < 0.2, "{integrator:?}: {ratio}");
        }
    }

    #[test]
    fn steps_are_reversible() {
        for integrator in ALL {
            let (error, end) = walk(integrator, 0.1, 100, true);
            let start = [1.3, -0.4, 0.2, 0.8, -0.5, -0.5, 0.5, -0.5];
            for (a, b) in end.iter().zip(start) {
                assert!((a - b).abs() < 1e-10, "{integrator:?}: {end:?}");
            }
            assert!(error.abs() < 1e-10);
        }
    }

    #[test]
    fn verlet_widens_modes_by_a_quarter_of_the_squared_step() {
        // Leapfrog's closed form: var·a = 1/(1 − x/4).
        assert!((variance_slope(Integrator::IsokineticVelocityVerlet) - 0.25).abs() < 1e-4);
        let two_stage = variance_slope(Integrator::IsokineticMclachlan);
        assert!(two_stage.abs() < 0.05, "{two_stage}");
    }
}
