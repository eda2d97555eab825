//! Potentials with known answers that are no kinds of target.

use lambda_hat::target::Potential;

/// A potential without rows, given by its loss and gradient.
pub struct Formula<F> {
    dim: usize,
    f: F,
}

impl<F: Fn(&[f64], &mut [f64]) -> f64> Formula<F> {
    /// `f` fills the gradient and returns the loss.
    pub fn new(dim: usize, f: F) -> Self {
        Self { dim, f }
    }
}

impl<F: Fn(&[f64], &mut [f64]) -> f64 + Send + Sync> Potential<f64> for Formula<F> {
    fn dim(&self) -> usize {
        self.dim
    }
    fn rows(&self) -> usize {
        0
    }
    fn scratch_len(&self) -> usize {
        self.dim
    }
    fn batch_scratch_len(&self, _: usize) -> usize {
        self.dim
    }
    /// By central differences: right to 1e-9 or so, which is enough for what is tested with these.
    fn hvp(&self, w: &[f64], v: &[f64], _: Option<&[u32]>, hv: &mut [f64], _: &mut [f64]) {
        let h = 1e-6;
        let gradient = |sign: f64| {
            let w: Vec<f64> = w.iter().zip(v).map(|(w, v)| w + sign * h * v).collect();
            let mut grad = vec![0.0; w.len()];
            (self.f)(&w, &mut grad);
            grad
        };
        let (ahead, behind) = (gradient(1.0), gradient(-1.0));
        hv.iter_mut().zip(ahead.iter().zip(behind)).for_each(|(hv, (a, b))| *hv = (a - b) / (2.0 * h));
    }
    fn hvp_scratch_len(&self) -> usize {
        0
    }
    fn loss(&self, w: &[f64], scratch: &mut [f64]) -> f64 {
        (self.f)(w, scratch)
    }
    fn loss_grad(&self, w: &[f64], grad: &mut [f64], _: &mut [f64]) -> f64 {
        (self.f)(w, grad)
    }
    fn batch_loss_grad(&self, w: &[f64], _: &[u32], grad: &mut [f64], _: &mut [f64]) -> f64 {
        (self.f)(w, grad)
    }
}

/// ½ Σ h_i w_i²
pub fn quadratic(h: &[f64]) -> Box<dyn Potential<f64>> {
    let h = h.to_vec();
    Box::new(Formula::new(h.len(), move |w: &[f64], g: &mut [f64]| {
        let mut loss = 0.0;
        for i in 0..h.len() {
            g[i] = h[i] * w[i];
            loss += 0.5 * g[i] * w[i];
        }
        loss
    }))
}

/// (w1 w2)²
pub fn crossing() -> Box<dyn Potential<f64>> {
    Box::new(Formula::new(2, |w: &[f64], g: &mut [f64]| {
        let p = w[0] * w[1];
        (g[0], g[1]) = (2.0 * p * w[1], 2.0 * p * w[0]);
        p * p
    }))
}

/// (x² − y³)²
pub fn cusp() -> Box<dyn Potential<f64>> {
    Box::new(Formula::new(2, |w: &[f64], g: &mut [f64]| {
        let p = w[0] * w[0] - w[1] * w[1] * w[1];
        (g[0], g[1]) = (4.0 * p * w[0], -6.0 * p * w[1] * w[1]);
        p * p
    }))
}

/// w⁴
pub fn quartic() -> Box<dyn Potential<f64>> {
    Box::new(Formula::new(1, |w: &[f64], g: &mut [f64]| {
        g[0] = 4.0 * w[0].powi(3);
        w[0].powi(4)
    }))
}

/// ½‖BA‖² for A (H × M) and B (N × H), both row-major, A first.
pub fn two_layers(m: usize, h: usize, n: usize) -> Box<dyn Potential<f64>> {
    Box::new(Formula::new(h * (m + n), move |w: &[f64], g: &mut [f64]| {
        let (a, b) = w.split_at(h * m);
        g.fill(0.0);
        let (ga, gb) = g.split_at_mut(h * m);
        let mut loss = 0.0;
        for i in 0..n {
            for j in 0..m {
                let c: f64 = (0..h).map(|k| b[i * h + k] * a[k * m + j]).sum();
                loss += 0.5 * c * c;
                for k in 0..h {
                    gb[i * h + k] += c * a[k * m + j];
                    ga[k * m + j] += c * b[i * h + k];
                }
            }
        }
        loss
    }))
}

/// A row of finite_n.csv.
pub struct FiniteRow {
    pub name: String,
    pub potential: Box<dyn Potential<f64>>,
    pub nbeta: f64,
    pub gamma: f64,
    pub exact: f64,
}

/// What a perfect sampler measures at finite nβ.
pub fn finite_rows() -> Vec<FiniteRow> {
    let text = include_str!("../data/exact/finite_n.csv");
    let mut rows = Vec::new();
    for line in text.lines().skip(1) {
        // The first field may be quoted and hold commas.
        let (name, rest) = match line.strip_prefix('"') {
            Some(quoted) => quoted.split_once("\",").expect("a closing quote"),
            None => line.split_once(',').expect("fields"),
        };
        let fields: Vec<&str> = rest.split(',').collect();
        let number = |i: usize| fields[i].parse::<f64>().expect("a number");
        let (nbeta, gamma, exact) = (number(2), number(3), number(4));
        let potential: Box<dyn Potential<f64>> = if name.starts_with("L=1/2 sum") {
            quadratic(&[0.0, 0.01, 0.1, 1.0, 10.0, 100.0])
        } else if name == "L=(w1*w2)^2" {
            crossing()
        } else if name == "L=(x^2-y^3)^2" {
            cusp()
        } else if name == "L=w^4" {
            quartic()
        } else {
            let shape = name.strip_prefix("DLN ").and_then(|n| n.split(',').next()).expect("a shape");
            let w: Vec<usize> = shape.split('-').map(|w| w.parse().expect("a width")).collect();
            two_layers(w[0], w[1], w[2])
        };
        assert_eq!(potential.dim() as f64, number(0), "{name}");
        rows.push(FiniteRow {
            name: format!("{name} nβ {nbeta} γ {gamma}"), potential, nbeta, gamma, exact
        });
    }
    assert_eq!(rows.len(), 46);
    rows
}
