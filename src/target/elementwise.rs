//! What happens to a block between two matrix products: activations, layer normalisation, losses.
//!
//! Blocks are feature-major with leading dimension `ld` (see [`crate::device`]); a [`Shape`] says
//! how many features and rows of one are in use.

use crate::config::{Activation, Loss};
use crate::device::{Arith, Element, relu as relu_block};
use crate::num::Real;

/// The part of a block that is in use.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Features.
    pub features: usize,
    /// Rows, a multiple of the number of lanes.
    pub rows: usize,
    /// Leading dimension.
    pub ld: usize,
}

/// Rows that layer normalisation takes at a time: divides the number of lanes of either type.
const ROWS: usize = 8;

/// Added under the root of layer normalisation.
pub(super) const NORM_EPSILON: f64 = 1e-5;

/// Whether the derivative of `activation` needs a block of its own beside the output.
pub fn keeps_derivative(activation: Activation, skip: bool) -> bool {
    match activation {
        Activation::Gelu => true,
        Activation::Relu | Activation::Tanh => skip,
        Activation::Identity => false,
    }
}

/// z → φ(z) in place; where `derivative` is given, φ'(z) is left there.
pub fn activate<T: Element>(
    arith: Arith,
    activation: Activation,
    z: &mut [T],
    derivative: Option<&mut [T]>,
    shape: Shape,
) {
    if activation == Activation::Relu && derivative.is_none() {
        relu_block(arith, z, shape.features, shape.ld, shape.rows);
        return;
    }
    arith.run(
        #[inline(always)]
        || match (activation, derivative) {
            (Activation::Identity, _) | (Activation::Relu, None) => {}
            (Activation::Tanh, None) => each(z, shape, T::tanh_lane),
            (Activation::Gelu, None) => each(z, shape, |x| x.gelu_lane().0),
            (Activation::Relu, Some(d)) => each_pair(z, d, shape, |x| (relu(x), step(x))),
            (Activation::Tanh, Some(d)) => each_pair(z, d, shape, |x| {
                let t = x.tanh_lane();
                (t, T::ONE - t * t)
            }),
            (Activation::Gelu, Some(d)) => each_pair(z, d, shape, T::gelu_lane),
        },
    );
}

/// `dz = delta ⊙ φ'`, with φ' from `kept` where it was kept, else from the output.
pub fn activation_gradient<T: Real>(
    arith: Arith,
    activation: Activation,
    delta: &[T],
    output: &[T],
    kept: Option<&[T]>,
    dz: &mut [T],
    shape: Shape,
) {
    arith.run(
        #[inline(always)]
        || match (activation, kept) {
            (Activation::Identity, _) => combine(delta, output, dz, shape, |d, _| d),
            (_, Some(derivative)) => combine(delta, derivative, dz, shape, |d, p| d * p),
            (Activation::Tanh, None) => combine(delta, output, dz, shape, |d, t| d * (T::ONE - t * t)),
            (_, None) => combine(delta, output, dz, shape, |d, h| if h > T::ZERO { d } else { T::ZERO }),
        },
    );
}

#[inline(always)]
fn relu<T: Real>(x: T) -> T {
    // NaN must stay NaN: a comparison would turn it into 0 and hide that the parameters are wild.
    if x < T::ZERO { T::ZERO } else { x }
}

#[inline(always)]
fn step<T: Real>(x: T) -> T {
    if x > T::ZERO { T::ONE } else { T::ZERO }
}

#[inline(always)]
fn each<T: Real>(z: &mut [T], shape: Shape, f: impl Fn(T) -> T) {
    for line in lines_mut(z, shape) {
        for x in line {
            *x = f(*x);
        }
    }
}

#[inline(always)]
fn each_pair<T: Real>(z: &mut [T], d: &mut [T], shape: Shape, f: impl Fn(T) -> (T, T)) {
    for (line, derivative) in lines_mut(z, shape).zip(lines_mut(d, shape)) {
        for (x, p) in line.iter_mut().zip(derivative) {
            (*x, *p) = f(*x);
        }
    }
}

#[inline(always)]
fn combine<T: Real>(a: &[T], b: &[T], out: &mut [T], shape: Shape, f: impl Fn(T, T) -> T) {
    for ((out, a), b) in lines_mut(out, shape).zip(lines(a, shape)).zip(lines(b, shape)) {
        for ((x, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *x = f(a, b);
        }
    }
}

/// `out += a`
pub fn add<T: Real>(arith: Arith, a: &[T], out: &mut [T], shape: Shape) {
    arith.run(
        #[inline(always)]
        || {
            for (out, a) in lines_mut(out, shape).zip(lines(a, shape)) {
                for (x, &a) in out.iter_mut().zip(a) {
                    *x += a;
                }
            }
        },
    );
}

#[inline(always)]
fn lines<T>(block: &[T], shape: Shape) -> impl Iterator<Item = &[T]> {
    block.chunks(shape.ld).take(shape.features).map(move |line| &line[..shape.rows])
}

#[inline(always)]
fn lines_mut<T>(block: &mut [T], shape: Shape) -> impl Iterator<Item = &mut [T]> {
    block.chunks_mut(shape.ld).take(shape.features).map(move |line| &mut line[..shape.rows])
}

/// Layer normalisation over features (Ba, Kiros & Hinton 2016, eq. 4, biased variance).
///
/// `z` becomes scale·ẑ + shift; ẑ is left in `hat` and 1/σ of each row in `rstd` (length ld).
pub fn normalise<T: Real>(
    arith: Arith,
    z: &mut [T],
    hat: &mut [T],
    rstd: &mut [T],
    (scale, shift): (&[T], &[T]),
    shape: Shape,
) {
    arith.run(
        #[inline(always)]
        || {
            let count = T::from_f64(shape.features as f64);
            for (first, rstd) in (0..shape.rows).step_by(ROWS).zip(rstd.chunks_exact_mut(ROWS)) {
                let (mut mean, mut square) = ([T::ZERO; ROWS], [T::ZERO; ROWS]);
                for line in z.chunks(shape.ld).take(shape.features) {
                    for (mean, &z) in mean.iter_mut().zip(&line[first..first + ROWS]) {
                        *mean += z;
                    }
                }
                mean.iter_mut().for_each(|m| *m /= count);
                for line in z.chunks(shape.ld).take(shape.features) {
                    for ((square, &mean), &z) in square.iter_mut().zip(&mean).zip(&line[first..first + ROWS])
                    {
                        *square += (z - mean) * (z - mean);
                    }
                }
                for (rstd, &square) in rstd.iter_mut().zip(&square) {
                    *rstd = T::ONE / (square / count + T::from_f64(NORM_EPSILON)).sqrt();
                }
                let affine = scale.iter().zip(shift);
                for ((z, hat), (&scale, &shift)) in
                    z.chunks_mut(shape.ld).zip(hat.chunks_mut(shape.ld)).zip(affine)
                {
                    let rows = z[first..first + ROWS].iter_mut().zip(&mut hat[first..first + ROWS]);
                    for (((z, hat), &mean), &rstd) in rows.zip(&mean).zip(rstd.iter()) {
                        *hat = (*z - mean) * rstd;
                        *z = scale * *hat + shift;
                    }
                }
            }
        },
    );
}

/// The gradient through [`normalise`], in place: `dz` holds ∂/∂(scale·ẑ + shift) and becomes
/// ∂/∂z = (g − mean g − ẑ·mean(g ẑ))/σ with g = scale·dz, means over features. The gradients of
/// scale and shift are added to `dscale` and `dshift`.
#[allow(clippy::too_many_arguments)]
pub fn normalise_gradient<T: Real>(
    arith: Arith,
    dz: &mut [T],
    hat: &[T],
    rstd: &[T],
    scale: &[T],
    dscale: &mut [T],
    dshift: &mut [T],
    shape: Shape,
) {
    arith.run(
        #[inline(always)]
        || {
            for ((f, line), hat) in lines(dz, shape).enumerate().zip(lines(hat, shape)) {
                let (mut products, mut sum) = (T::ZERO, T::ZERO);
                for (&d, &h) in line.iter().zip(hat) {
                    products += d * h;
                    sum += d;
                }
                dscale[f] += products;
                dshift[f] += sum;
            }
            let count = T::from_f64(shape.features as f64);
            for (first, rstd) in (0..shape.rows).step_by(ROWS).zip(rstd.chunks_exact(ROWS)) {
                let (mut mean, mut along) = ([T::ZERO; ROWS], [T::ZERO; ROWS]);
                for ((dz, hat), &scale) in dz.chunks(shape.ld).zip(hat.chunks(shape.ld)).zip(scale) {
                    let rows = dz[first..first + ROWS].iter().zip(&hat[first..first + ROWS]);
                    for (((&dz, &hat), mean), along) in rows.zip(&mut mean).zip(&mut along) {
                        let g = scale * dz;
                        *mean += g;
                        *along += g * hat;
                    }
                }
                mean.iter_mut().chain(&mut along).for_each(|m| *m /= count);
                for ((dz, hat), &scale) in dz.chunks_mut(shape.ld).zip(hat.chunks(shape.ld)).zip(scale) {
                    let rows = dz[first..first + ROWS].iter_mut().zip(&hat[first..first + ROWS]);
                    for ((((dz, &hat), &mean), &along), &rstd) in rows.zip(&mean).zip(&along).zip(rstd) {
                        *dz = (scale * *dz - mean - hat * along) * rstd;
                    }
                }
            }
        },
    );
}

/// A loss with its constants at hand.
#[derive(Clone, Copy, Debug)]
pub enum RowLoss<T> {
    /// r²
    Mse,
    /// ½(ν+1)·ln(1 + r²/(νs²))
    TRegression {
        /// ½(ν+1)
        half: T,
        /// νs²
        width: T,
    },
}

impl<T: Element> RowLoss<T> {
    /// The loss of one residual that `loss` is the mean of.
    pub fn new(loss: &Loss) -> Self {
        match *loss {
            Loss::Mse => RowLoss::Mse,
            Loss::TRegression { student_df, noise_scale } => RowLoss::TRegression {
                half: T::from_f64(0.5 * (student_df + 1.0)),
                width: T::from_f64(student_df * noise_scale * noise_scale),
            },
        }
    }

    /// The sum of the losses of the first `used` rows of a block. Where `delta` is given it
    /// receives the derivatives times `weight`, and 0 in the rows beyond `used`.
    pub fn sum(
        self,
        arith: Arith,
        output: &[T],
        y: &[T],
        delta: Option<(&mut [T], T)>,
        used: usize,
        shape: Shape,
    ) -> f64 {
        arith.run(
            #[inline(always)]
            || {
                // Sixteen lanes whatever the type: residuals b, b + 16, … of all outputs in one.
                let mut total = [T::ZERO; 16];
                for (f, y) in lines(output, shape).zip(lines(y, shape)) {
                    for (f, y) in f[..used].chunks(16).zip(y[..used].chunks(16)) {
                        for ((total, &f), &y) in total.iter_mut().zip(f).zip(y) {
                            *total += self.value(f - y);
                        }
                    }
                }
                if let Some((delta, weight)) = delta {
                    for ((line, f), y) in
                        lines_mut(delta, shape).zip(lines(output, shape)).zip(lines(y, shape))
                    {
                        for ((d, &f), &y) in line[..used].iter_mut().zip(f).zip(y) {
                            *d = weight * self.slope(f - y);
                        }
                        line[used..].fill(T::ZERO);
                    }
                }
                total.iter().map(|x| x.to_f64()).sum()
            },
        )
    }

    /// The same with row b counted `counts[b]` times, derivatives left in `delta`.
    #[allow(clippy::too_many_arguments)]
    pub fn counted_sum(
        self,
        arith: Arith,
        output: &[T],
        y: &[T],
        counts: &[T],
        (delta, weight): (&mut [T], T),
        used: usize,
        shape: Shape,
    ) -> f64 {
        arith.run(
            #[inline(always)]
            || {
                let mut total = [T::ZERO; 16];
                let residuals = lines(output, shape).zip(lines(y, shape));
                for (line, (f, y)) in lines_mut(delta, shape).zip(residuals) {
                    let blocks =
                        f[..used].chunks(16).zip(y[..used].chunks(16)).zip(counts[..used].chunks(16));
                    for (d, ((f, y), counts)) in line[..used].chunks_mut(16).zip(blocks) {
                        let rows = f.iter().zip(y).zip(counts);
                        for ((total, d), ((&f, &y), &count)) in total.iter_mut().zip(d).zip(rows) {
                            *total += count * self.value(f - y);
                            *d = weight * count * self.slope(f - y);
                        }
                    }
                    line[used..].fill(T::ZERO);
                }
                total.iter().map(|x| x.to_f64()).sum()
            },
        )
    }

    /// The first and second derivative of the loss of a residual.
    #[inline(always)]
    pub fn slopes(self, r: T) -> (T, T) {
        let second = match self {
            RowLoss::Mse => T::ONE + T::ONE,
            RowLoss::TRegression { half, width } => {
                let sum = width + r * r;
                (half + half) * (width - r * r) / (sum * sum)
            }
        };
        (self.slope(r), second)
    }

    #[inline(always)]
    fn value(self, r: T) -> T {
        match self {
            RowLoss::Mse => r * r,
            RowLoss::TRegression { half, width } => half * (r * r / width).ln_1p_lane(),
        }
    }

    #[inline(always)]
    fn slope(self, r: T) -> T {
        match self {
            RowLoss::Mse => r + r,
            RowLoss::TRegression { half, width } => (half + half) * r / (width + r * r),
        }
    }
}
