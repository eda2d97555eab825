//! The networks and data that inner loops are measured on.

use lambda_hat::config::{Activation, Loss, Network};
use lambda_hat::device::Element;
use lambda_hat::num::Real;
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::target::{NetworkPotential, param_count};

/// The shape of a target: the presets `small/small` and `base/base`, `base/base` with
/// `target_params: 100000`, and `base` with other activations.
pub struct Shape {
    pub name: &'static str,
    pub rows: usize,
    pub network: Network,
}

impl Shape {
    pub fn named(name: &str) -> Option<Self> {
        use Activation::{Gelu, Relu, Tanh};
        let (name, rows, in_dim, hidden, activation) = match name {
            "small" => ("small", 100, 4, vec![4; 2], Relu),
            "base" => ("base", 20_000, 32, vec![62; 3], Relu),
            "100k" => ("100k", 20_000, 32, vec![215; 3], Relu),
            "tanh" => ("base tanh", 20_000, 32, vec![62; 3], Tanh),
            "gelu" => ("base gelu", 20_000, 32, vec![62; 3], Gelu),
            _ => return None,
        };
        let network = Network {
            in_dim,
            hidden,
            out_dim: 1,
            activation,
            bias: true,
            layernorm: false,
            residual_period: None,
        };
        Some(Self { name, rows, network })
    }

    /// The loss on normal data and a point of modest size. Dense kernels take the same time
    /// whatever the numbers, so nothing needs to be trained.
    pub fn case<T: Element>(&self) -> (NetworkPotential<T>, Vec<T>) {
        let [x, y, w] = self.numbers::<T>();
        (NetworkPotential::new(&self.network, &x, &y, &Loss::Mse), w)
    }

    /// X, Y and the point.
    pub fn numbers<T: Real>(&self) -> [Vec<T>; 3] {
        let x: Vec<T> = normals(self.rows * self.network.in_dim, 0);
        let y: Vec<T> = normals(self.rows * self.network.out_dim, 1);
        let w = normals::<T>(param_count(&self.network), 2);
        [x, y, w.into_iter().map(|v| v * T::from_f64(0.1)).collect()]
    }

    /// nβ at β = 1/ln n.
    pub fn nbeta(&self) -> f64 {
        self.rows as f64 / (self.rows as f64).ln()
    }

    /// Floating-point operations of a loss without gradient: 2·n·Σ in·out.
    pub fn loss_flops(&self) -> f64 {
        let net = &self.network;
        let widths: Vec<usize> = [&[net.in_dim][..], &net.hidden, &[net.out_dim]].concat();
        let products: usize = widths.windows(2).map(|pair| pair[0] * pair[1]).sum();
        (2 * self.rows * products) as f64
    }
}

fn normals<T: Real>(n: usize, stream: u32) -> Vec<T> {
    let mut x = vec![T::ZERO; n];
    fill_normal(&mut Key::new([5; 32], Purpose::Probe, stream).at(0), &mut x);
    x
}
