//! What is known exactly of a target: λ and its multiplicity m as nβ → ∞, and what a perfect sampler
//! measures at finite nβ.

use serde::{Deserialize, Serialize};

use super::quadrature::{normal_crossing_llc, two_layer_llc};

/// λ and multiplicity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Singularity {
    /// λ
    pub lambda: f64,
    /// m ≥ 1
    pub multiplicity: u32,
}

/// What is known exactly of a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exact {
    /// λ at the centre, where it is certain.
    pub lambda: Option<f64>,
    /// m at the centre, where it is certain.
    pub multiplicity: Option<u32>,
    /// A certain lower bound on λ at the centre.
    pub lower_bound: Option<f64>,
    /// The smallest λ over all true parameters (deep linear networks), which λ at the centre may
    /// exceed.
    pub global_lambda: Option<f64>,
    /// Closed form at finite nβ.
    pub finite: FiniteForm,
}

/// Closed forms of nβ·E[L − L(w*)] under exp(−nβ L − (γ/2)‖w − w*‖²).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum FiniteForm {
    /// None known.
    #[default]
    Unknown,
    /// L = ½ Σ hᵢwᵢ², w* = offset.
    Quadratic {
        /// hᵢ
        eigenvalues: Vec<f64>,
        /// w*
        offset: Vec<f64>,
    },
    /// L = Π wᵢ^(2kᵢ), w* = 0.
    NormalCrossing {
        /// kᵢ
        exponents: Vec<u32>,
    },
    /// L = ‖W − T‖²_F / outputs over `parameters` entries of W, w* = T.
    OneMatrix {
        /// Entries of W.
        parameters: usize,
        /// Rows of W.
        outputs: usize,
    },
    /// L = ‖BA‖²_F / outputs, w* = 0.
    TwoLayers {
        /// M
        inputs: usize,
        /// H
        hidden: usize,
        /// N
        outputs: usize,
    },
}

impl Exact {
    /// λ and m certain, with its closed form.
    pub fn certain(singularity: Singularity, finite: FiniteForm) -> Self {
        Self {
            lambda: Some(singularity.lambda),
            multiplicity: Some(singularity.multiplicity),
            lower_bound: Some(singularity.lambda),
            global_lambda: None,
            finite,
        }
    }

    /// The exact λ̂ = nβ·E[L − L(w*)] at finite nβ > 0 and γ ≥ 0, where a closed form is known and
    /// the posterior is proper in every direction that matters.
    pub fn llc(&self, nbeta: f64, gamma: f64) -> Option<f64> {
        match &self.finite {
            FiniteForm::Unknown => None,
            FiniteForm::Quadratic { eigenvalues, offset } => quadratic_llc(eigenvalues, offset, nbeta, gamma),
            FiniteForm::NormalCrossing { exponents } => normal_crossing_llc(exponents, nbeta, gamma),
            &FiniteForm::OneMatrix { parameters, outputs } => {
                let half_norm = 2.0 * nbeta / outputs as f64;
                let share = half_norm / (half_norm + gamma);
                share.is_finite().then_some(0.5 * parameters as f64 * share)
            }
            &FiniteForm::TwoLayers { inputs, hidden, outputs } => {
                two_layer_llc(inputs, hidden, outputs, 2.0 * nbeta / outputs as f64, gamma)
            }
        }
    }
}

/// ½Σ sᵢ − ½Σ nβhᵢδᵢ²(1 − γ²/aᵢ²) with aᵢ = nβhᵢ + γ, sᵢ = nβhᵢ/aᵢ and centre δ. Flat directions add
/// nothing. `None` for arguments out of range.
pub fn quadratic_llc(eigenvalues: &[f64], offset: &[f64], nbeta: f64, gamma: f64) -> Option<f64> {
    if !(nbeta > 0.0 && gamma >= 0.0) {
        return None;
    }
    let sum: f64 = eigenvalues
        .iter()
        .enumerate()
        .filter(|(_, h)| **h > 0.0)
        .map(|(i, h)| {
            let stiff = nbeta * h;
            let pull = gamma / (stiff + gamma);
            let delta = offset.get(i).copied().unwrap_or(0.0);
            stiff / (stiff + gamma) - stiff * delta * delta * (1.0 - pull * pull)
        })
        .sum();
    sum.is_finite().then_some(0.5 * sum)
}

/// λ = (number of positive eigenvalues)/2, m = 1.
pub fn quadratic_singularity(eigenvalues: &[f64]) -> Singularity {
    let rank = eigenvalues.iter().filter(|&&h| h > 0.0).count();
    Singularity { lambda: 0.5 * rank as f64, multiplicity: 1 }
}

/// λ = min 1/(2kᵢ), m = how many attain it (Watanabe 2009, Theorem 2.3). `None` without exponents or
/// with one that is 0.
pub fn normal_crossing_singularity(exponents: &[u32]) -> Option<Singularity> {
    let largest = *exponents.iter().max()?;
    if exponents.contains(&0) {
        return None;
    }
    let multiplicity = exponents.iter().filter(|&&k| k == largest).count();
    Some(Singularity { lambda: 0.5 / f64::from(largest), multiplicity: u32::try_from(multiplicity).ok()? })
}

/// λ and m of a deep linear network of widths H₀ … H_L (input first) whose true map has rank r:
/// the smallest over all true parameters (Aoyagi 2024, Neural Networks 172:106132, Theorem 1).
///
/// With M_s = H_s − r, Σ the k smallest M (whole groups of ties), ℓ = k − 1 and S = Σ M over Σ, the k
/// that counts is the first with max_Σ M < min_outside M and ℓ·max_Σ M ≤ S < ℓ·min_outside M. Then, with
/// a = S − (⌈S/ℓ⌉ − 1)ℓ,
///
/// λ = (r(H₀ + H_L) − r²)/2 + a(ℓ − a)/(4ℓ) − (ℓ(ℓ−1)/4)(S/ℓ)² + ½ Σ_{i<j in Σ} M_i M_j, m = a(ℓ − a) + 1.
///
/// If some M_s = 0: λ = (r(H₀ + H_L) − r²)/2, m = 1. `None` for fewer than two widths, a rank above
/// the smallest, or numbers too large for 128-bit integers, in which the formula is evaluated.
pub fn deep_linear_singularity(widths: &[usize], rank: usize) -> Option<Singularity> {
    let (&first, &last) = (widths.first()?, widths.last()?);
    if widths.len() < 2 || widths.iter().any(|&h| h < rank || h > 1 << 40) {
        return None;
    }
    let (first, last, r) = (first as i128, last as i128, rank as i128);
    let regular = r * (first + last) - r * r;
    let mut excess: Vec<i128> = widths.iter().map(|&h| h as i128 - r).collect();
    excess.sort_unstable();
    if excess[0] == 0 {
        return Some(Singularity { lambda: regular as f64 / 2.0, multiplicity: 1 });
    }
    let (mut sum, mut squares) = (excess[0], excess[0] * excess[0]);
    for l in 1..excess.len() {
        let largest = excess[l];
        sum += largest;
        squares += largest * largest;
        let ell = l as i128;
        let accepted =
            sum >= ell * largest && excess.get(l + 1).is_none_or(|&next| largest < next && sum < ell * next);
        if !accepted {
            continue;
        }
        // Σ_{i<j} M_i M_j = (S² − Σ M²)/2; everything over the common denominator 4ℓ.
        let a = sum - ((sum + ell - 1) / ell - 1) * ell;
        let over_4_ell =
            2 * ell * regular + a * (ell - a) - (ell - 1) * sum * sum + ell * (sum * sum - squares);
        return Some(Singularity {
            lambda: over_4_ell as f64 / (4 * ell) as f64,
            multiplicity: u32::try_from(a * (ell - a) + 1).ok()?,
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str) -> Vec<Vec<String>> {
        let path = format!("{}/tests/data/exact/{name}.csv", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let split = |line: &str| -> Vec<String> {
            // The first field may be quoted and hold commas.
            let (head, rest) = match line.strip_prefix('"') {
                Some(quoted) => quoted.split_once("\",").unwrap(),
                None => line.split_once(',').unwrap(),
            };
            std::iter::once(head).chain(rest.split(',')).map(str::to_owned).collect()
        };
        text.lines().skip(1).map(split).collect()
    }

    fn numbers<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str, separator: char) -> Vec<T> {
        text.split(separator).map(|part| part.trim().parse().unwrap()).collect()
    }

    #[test]
    fn deep_linear_networks_agree_with_the_table() {
        let table = rows("dln_llc");
        assert_eq!(table.len(), 91);
        for row in table {
            let widths: Vec<usize> = numbers(&row[0], '-');
            let found = deep_linear_singularity(&widths, row[1].parse().unwrap()).unwrap();
            let truth =
                Singularity { lambda: row[5].parse().unwrap(), multiplicity: row[6].parse().unwrap() };
            assert_eq!(found, truth, "{} rank {}", row[0], row[1]);
            let reversed: Vec<usize> = widths.into_iter().rev().collect();
            assert_eq!(deep_linear_singularity(&reversed, row[1].parse().unwrap()), Some(truth));
        }
    }

    #[test]
    fn two_layers_agree_with_the_four_cases() {
        // Aoyagi & Watanabe 2005, Main Theorem: M inputs, H hidden, N outputs, rank r.
        for (m, h, n) in (1..7).flat_map(|m| (1..7).flat_map(move |h| (1..7).map(move |n| (m, h, n)))) {
            for r in 0..=m.min(h).min(n) {
                let found = deep_linear_singularity(&[m, h, n], r).unwrap();
                let (mf, hf, nf, rf) = (m as f64, h as f64, n as f64, r as f64);
                let truth = if n + r <= m + h && m + r <= n + h && h + r <= m + n {
                    let base =
                        -(hf + rf).powi(2) - mf * mf - nf * nf + 2.0 * (hf + rf) * (mf + nf) + 2.0 * mf * nf;
                    (base + if (m + h + n + r) % 2 == 0 { 0.0 } else { 1.0 }) / 8.0
                } else if m + h < n + r {
                    (hf * mf - hf * rf + nf * rf) / 2.0
                } else if n + h < m + r {
                    (hf * nf - hf * rf + mf * rf) / 2.0
                } else {
                    mf * nf / 2.0
                };
                assert_eq!(found.lambda, truth, "{m}-{h}-{n} rank {r}");
            }
        }
    }

    #[test]
    fn impossible_networks_have_no_answer() {
        assert_eq!(deep_linear_singularity(&[3], 0), None);
        assert_eq!(deep_linear_singularity(&[3, 2, 3], 3), None);
        assert_eq!(deep_linear_singularity(&[], 0), None);
    }

    #[test]
    fn finite_forms_agree_with_every_row_they_cover() {
        let mut covered = 0;
        for row in rows("finite_n") {
            let [nbeta, gamma, truth]: [f64; 3] = [3, 4, 5].map(|i| row[i].parse().unwrap());
            let lambda_inf = match row[6].split_once('/') {
                Some((a, b)) => a.parse::<f64>().unwrap() / b.parse::<f64>().unwrap(),
                None => row[6].parse().unwrap(),
            };
            let (singularity, finite, nbeta) = match row[0].as_str() {
                "L=1/2 sum h_i w_i^2, h=(0,.01,.1,1,10,100)" => {
                    let eigenvalues = vec![0.0, 0.01, 0.1, 1.0, 10.0, 100.0];
                    let offset = vec![0.0; 6];
                    let singularity = quadratic_singularity(&eigenvalues);
                    (singularity, FiniteForm::Quadratic { eigenvalues, offset }, nbeta)
                }
                "L=(w1*w2)^2" => {
                    let exponents = vec![1, 1];
                    let singularity = normal_crossing_singularity(&exponents).unwrap();
                    (singularity, FiniteForm::NormalCrossing { exponents }, nbeta)
                }
                "L=w^4" => {
                    let exponents = vec![2];
                    let singularity = normal_crossing_singularity(&exponents).unwrap();
                    (singularity, FiniteForm::NormalCrossing { exponents }, nbeta)
                }
                // The cusp is no target.
                "L=(x^2-y^3)^2" => continue,
                name => {
                    let name = name.strip_prefix("DLN ").unwrap().split_once(',').unwrap().0;
                    let widths: Vec<usize> = numbers(name, '-');
                    let singularity = deep_linear_singularity(&widths, 0).unwrap();
                    let [inputs, hidden, outputs] = widths[..] else { panic!("{name}") };
                    // Tabled for ½‖BA‖², ours is ‖BA‖²/N.
                    let nbeta = nbeta * outputs as f64 / 2.0;
                    (singularity, FiniteForm::TwoLayers { inputs, hidden, outputs }, nbeta)
                }
            };
            let exact = Exact::certain(singularity, finite);
            let value = exact.llc(nbeta, gamma).unwrap();
            // The table has eight decimals.
            assert!((value - truth).abs() < 1e-8, "{row:?}: {value}");
            assert_eq!(exact.lambda, Some(lambda_inf), "{row:?}");
            assert_eq!(exact.multiplicity.unwrap().to_string(), row[7], "{row:?}");
            covered += 1;
        }
        assert_eq!(covered, 43);
    }

    #[test]
    fn a_centre_off_the_minimum_lowers_the_quadratic_form() {
        // One mode, h = 2, nβ = 3, γ = 4, δ = 5: a = 10, posterior mean γδ/a = 2, variance 1/10, so
        // nβ·(h/2)·(E[w²] − δ²) = 3·(4.1 − 25).
        let value = quadratic_llc(&[2.0, 0.0], &[5.0, 9.0], 3.0, 4.0).unwrap();
        assert!((value - 3.0 * (4.1 - 25.0)).abs() < 1e-12);
        assert_eq!(quadratic_llc(&[2.0, 0.0], &[0.0, 0.0], 3.0, 0.0), Some(0.5));
        let matrix = FiniteForm::OneMatrix { parameters: 12, outputs: 4 };
        let exact = Exact { finite: matrix, ..Exact::default() };
        // Eigenvalues 2/4 of L = ‖W − T‖²/4.
        let truth = quadratic_llc(&[0.5; 12], &[0.0; 12], 7.0, 3.0).unwrap();
        assert!((exact.llc(7.0, 3.0).unwrap() - truth).abs() < 1e-12);
    }
}
