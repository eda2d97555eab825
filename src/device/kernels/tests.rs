use proptest::prelude::*;

use super::*;
use crate::num::rng::{Key, Purpose, fill_normal};

fn normals<T: Real>(n: usize, stream: u32) -> Vec<T> {
    let mut x = vec![T::ZERO; n];
    fill_normal(&mut Key::new([1; 32], Purpose::Probe, stream).at(0), &mut x);
    x
}

fn instruction_sets() -> impl Iterator<Item = Arith> {
    Arith::ALL.into_iter().filter(|a| a.is_available())
}

/// A product, the sums over its rows, and how far its blocks are from the start of their memory.
#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    k: usize,
    packs: usize,
    /// Cache lines between two features beyond the rows in use.
    gap: usize,
    offset: usize,
    start: usize,
    end: usize,
    packed: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    // One-wide layers, widths of few tiles, and all others of the presets' size.
    let width = || prop_oneof![Just(1usize), 1..10usize, 1..70usize];
    (width(), width(), 1..18usize, 0..3usize, 0..16usize, 0..3usize, 0..3usize, any::<bool>()).prop_map(
        |(m, k, packs, gap, offset, start, end, packed)| Case {
            m,
            k,
            packs,
            gap,
            offset,
            start,
            end,
            packed,
        },
    )
}

/// The definition of [`matmul`], a number at a time.
fn plain_product<T: Element>(case: Case, w: &[T], bias: &[T], gate: &[T], a: &[T], c: &mut [T], ld: usize) {
    for i in 0..case.m {
        for b in 0..case.packs * lanes::<T>() {
            let mut sum = match case.start {
                0 => T::ZERO,
                1 => bias[i],
                _ => c[i * ld + b],
            };
            for j in 0..case.k {
                sum = w[i * case.k + j].mul_add(a[j * ld + b], sum);
            }
            c[i * ld + b] = match case.end {
                1 if sum < T::ZERO => T::ZERO,
                2 if gate[i * ld + b] > T::ZERO => sum,
                2 => T::ZERO,
                _ => sum,
            };
        }
    }
}

/// Σ_b f(b): lanes in ascending order, then by halving.
fn plain_sum<T: Element>(rows: usize, term: impl Fn(usize, T) -> T) -> T {
    let mut x = vec![T::ZERO; lanes::<T>()];
    for b in 0..rows {
        let lane = b % lanes::<T>();
        x[lane] = term(b, x[lane]);
    }
    while x.len() > 1 {
        let high = x.split_off(x.len() / 2);
        x.iter_mut().zip(high).for_each(|(low, high)| *low += high);
    }
    x[0]
}

/// Each instruction set against the definitions, to the bit. What lies between and around the rows
/// in use is NaN on the way in and must be so afterwards.
fn agrees_with_definitions<T: Element>(case: Case) -> Result<(), TestCaseError> {
    let Case { m, k, packs, offset, .. } = case;
    let count = packs * lanes::<T>();
    let rows = Rows { ld: count + case.gap * lanes::<T>(), count };
    let block = |features: usize, stream| {
        let mut x: Vec<T> = normals(offset + features * rows.ld, stream);
        for (i, x) in x.iter_mut().enumerate() {
            if i < offset || (i - offset) % rows.ld >= count {
                *x = T::from_f64(f64::NAN);
            }
        }
        x
    };
    let (mut a, mut gate, before) = (block(k, 1), block(m, 2), block(m, 3));
    let (a, gate) = (&mut a[offset..], &mut gate[offset..]);
    for (at, special) in [0.0, -0.0, f64::NAN, f64::INFINITY].into_iter().enumerate() {
        gate[at] = T::from_f64(special);
    }
    if offset % 4 == 0 {
        a[count - 1] = T::from_f64(f64::NAN);
    }
    let (a, gate) = (&*a, &*gate);
    let (w, bias): (Vec<T>, Vec<T>) = (normals(m * k, 4), normals(m, 5));
    let transposed: Vec<T> = (0..m * k).map(|e| w[(e % m) * k + e / m]).collect();
    let mut packed = vec![T::from_f64(f64::NAN); packed_len(m, k)];
    pack_transposed(&transposed, m, k, &mut packed);
    let product = Product {
        weights: if case.packed { Weights::Packed(&packed) } else { Weights::Plain(&w) },
        size: (m, k),
        start: [Start::Zero, Start::Bias(&bias), Start::Keep][case.start],
        end: [End::Plain, End::Relu, End::Where(gate)][case.end],
    };
    // Texts tell −0 from 0, and NaN is equal to itself.
    let text = |x: &[T]| format!("{x:?}");
    let mut expected = before.clone();
    plain_product(case, &w, &bias, gate, a, &mut expected[offset..], rows.ld);
    let d = &expected[offset..];
    let start: Vec<T> = normals(m * k, 6);
    let mut outer = start.clone();
    let mut sums = bias.clone();
    for i in 0..m {
        for j in 0..k {
            outer[i * k + j] +=
                plain_sum(count, |b, sum| d[i * rows.ld + b].mul_add(a[j * rows.ld + b], sum));
        }
        sums[i] += plain_sum(count, |b, sum| sum + d[i * rows.ld + b]);
    }
    for arith in instruction_sets() {
        let mut c = before.clone();
        matmul(arith, product, a, &mut c[offset..], rows);
        prop_assert_eq!(text(&c), text(&expected), "{} matmul {:?}", arith, case);
        let mut g = start.clone();
        accumulate_outer(arith, d, a, &mut g, (m, k), rows);
        prop_assert_eq!(text(&g), text(&outer), "{} outer {:?}", arith, case);
        let mut s = bias.clone();
        accumulate_row_sums(arith, d, &mut s, m, rows);
        prop_assert_eq!(text(&s), text(&sums), "{} row sums {:?}", arith, case);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernels_equal_their_definitions_to_the_bit_in_f64(case in cases()) {
        agrees_with_definitions::<f64>(case)?;
    }

    #[test]
    fn kernels_equal_their_definitions_to_the_bit_in_f32(case in cases()) {
        agrees_with_definitions::<f32>(case)?;
    }
}

/// Every pair of widths of up to two tiles, for each way through a kernel that a width can choose.
#[test]
fn kernels_equal_their_definitions_at_all_small_widths() {
    for m in 1..=14 {
        for k in 1..=9 {
            for packed in [false, true] {
                let packs = 1 + (m * 9 + k) % 17;
                let case = Case { m, k, packs, gap: 1, offset: 3, start: m % 3, end: (m + k) % 3, packed };
                agrees_with_definitions::<f64>(case).unwrap();
                agrees_with_definitions::<f32>(case).unwrap();
            }
        }
    }
}

/// Every shape that takes another path: tails of panels and tiles, single rows and columns.
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (4, 4, 2), (6, 3, 1), (7, 5, 3), (13, 62, 8), (62, 32, 7), (3, 1, 5)];

fn check<T: Element>(relative: f64) {
    for (m, k, blocks) in SHAPES {
        let rows = blocks * lanes::<T>();
        let ld = rows + lanes::<T>();
        let w: Vec<T> = normals(m * k, 0);
        let (a, bias): (Vec<T>, Vec<T>) = (normals(k * ld, 1), normals(m, 2));
        let mut first: Option<(Vec<T>, Vec<T>, Vec<T>)> = None;
        for arith in Arith::ALL.into_iter().filter(|a| a.is_available()) {
            let mut c = vec![T::ZERO; m * ld];
            let product = Product {
                weights: Weights::Plain(&w),
                size: (m, k),
                start: Start::Bias(&bias),
                end: End::Plain,
            };
            matmul(arith, product, &a, &mut c, Rows { ld, count: rows });
            for i in 0..m {
                for b in 0..rows {
                    let terms: Vec<f64> =
                        (0..k).map(|j| w[i * k + j].to_f64() * a[j * ld + b].to_f64()).collect();
                    let exact: f64 = bias[i].to_f64() + terms.iter().sum::<f64>();
                    let size: f64 = bias[i].to_f64().abs() + terms.iter().map(|t| t.abs()).sum::<f64>();
                    let got = c[i * ld + b].to_f64();
                    assert!((got - exact).abs() <= relative * size, "{arith} ({m},{k},{rows}) {got} {exact}");
                }
            }
            let mut g = vec![T::ONE; m * k];
            accumulate_outer(arith, &c, &a, &mut g, (m, k), Rows { ld, count: rows });
            for i in 0..m {
                for j in 0..k {
                    let terms: Vec<f64> =
                        (0..rows).map(|b| c[i * ld + b].to_f64() * a[j * ld + b].to_f64()).collect();
                    let exact = 1.0 + terms.iter().sum::<f64>();
                    let size = 1.0 + terms.iter().map(|t| t.abs()).sum::<f64>();
                    let got = g[i * k + j].to_f64();
                    assert!((got - exact).abs() <= relative * size, "{arith} outer {got} {exact}");
                }
            }
            let mut s = vec![T::ZERO; m];
            accumulate_row_sums(arith, &c, &mut s, m, Rows { ld, count: rows });
            for i in 0..m {
                let exact: f64 = (0..rows).map(|b| c[i * ld + b].to_f64()).sum();
                let size: f64 = (0..rows).map(|b| c[i * ld + b].to_f64().abs()).sum();
                assert!((s[i].to_f64() - exact).abs() <= relative * size);
            }
            match &first {
                None => first = Some((c, g, s)),
                Some(same) => assert!(*same == (c, g, s), "{arith} gives other bits"),
            }
        }
    }
}

#[test]
fn kernels_equal_plain_sums_and_each_other_to_the_bit() {
    // Worst-case rounding of a sum of at most 128 products is 128 ulp of the sum of magnitudes.
    check::<f32>(128.0 * f64::from(f32::EPSILON));
    check::<f64>(128.0 * f64::EPSILON);
}

fn check_relu<T: Element>() {
    let special = [f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, -1.5, 1.5].map(T::from_f64);
    let (m, rows) = (3, 2 * lanes::<T>());
    let ld = rows + lanes::<T>();
    let before: Vec<T> = (0..m * ld).map(|i| special[i % special.len()]).collect();
    for arith in Arith::ALL.into_iter().filter(|a| a.is_available()) {
        let mut z = before.clone();
        relu(arith, &mut z, m, ld, rows);
        for (i, (z, x)) in z.iter().zip(&before).enumerate() {
            let expected = if i % ld < rows && *x < T::ZERO { T::ZERO } else { *x };
            // The text tells −0 from 0, and NaN is equal to itself.
            assert_eq!(z.to_string(), expected.to_string(), "{arith} entry {i} of {}", T::NAME);
        }
    }
}

#[test]
fn relu_stops_negative_numbers_only() {
    check_relu::<f32>();
    check_relu::<f64>();
}

/// The definition of [`accumulate_lagged`], a number at a time.
fn check_lagged<T: Element>(n: usize, from: usize, lags: usize) {
    let x: Vec<T> = normals(n, 5);
    let before: Vec<T> = normals(lags, 6);
    let plain = |j: usize| {
        let late = x.iter().skip(from + j);
        x.iter().zip(late).fold(T::ZERO, |sum, (&a, &b)| a.mul_add(b, sum))
    };
    let expected: Vec<T> = before.iter().enumerate().map(|(j, &b)| b + plain(j)).collect();
    for arith in instruction_sets() {
        let mut out = before.clone();
        accumulate_lagged(arith, &x, from, &mut out);
        assert!(out == expected, "{arith}, {n} numbers, lags {from} to {}", from + lags);
    }
}

proptest! {
    #[test]
    fn lagged_products_have_the_bits_of_their_definition(n in 0..300usize, from in 0..70usize, lags in 0..130usize) {
        check_lagged::<f64>(n, from, lags);
        check_lagged::<f32>(n, from, lags);
    }
}
