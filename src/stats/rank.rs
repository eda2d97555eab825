//! Ranks turned into normal scores.

/// Φ⁻¹(p), the standard normal quantile, to about 10⁻¹⁵ relative: algorithm AS 241 (PPND16) of
/// Wichura, Applied Statistics 37:477 (1988). ∓∞ at 0 and 1, NaN outside [0, 1].
pub fn normal_quantile(p: f64) -> f64 {
    /// Numerator and denominator for |p − ½| ≤ 0.425, in 0.180625 − (p − ½)².
    const CENTRE: [[f64; 8]; 2] = [
        [
            3.387_132_872_796_366_5,
            1.331_416_678_917_843_8e2,
            1.971_590_950_306_551_4e3,
            1.373_169_376_550_946e4,
            4.592_195_393_154_987e4,
            6.726_577_092_700_87e4,
            3.343_057_558_358_813e4,
            2.509_080_928_730_122_7e3,
        ],
        [
            1.0,
            4.231_333_070_160_091e1,
            6.871_870_074_920_579e2,
            5.394_196_021_424_751e3,
            2.121_379_430_158_66e4,
            3.930_789_580_009_271e4,
            2.872_908_573_572_194_3e4,
            5.226_495_278_852_854e3,
        ],
    ];
    /// For √(−ln p) ≤ 5, in √(−ln p) − 1.6, p the smaller tail.
    const SHOULDER: [[f64; 8]; 2] = [
        [
            1.423_437_110_749_683_5,
            4.630_337_846_156_546,
            5.769_497_221_460_691,
            3.647_848_324_763_204_5,
            1.270_458_252_452_368_4,
            2.417_807_251_774_506e-1,
            2.272_384_498_926_918_4e-2,
            7.745_450_142_783_414e-4,
        ],
        [
            1.0,
            2.053_191_626_637_759,
            1.676_384_830_183_803_8,
            6.897_673_349_851e-1,
            1.481_039_764_274_800_8e-1,
            1.519_866_656_361_645_7e-2,
            5.475_938_084_995_345e-4,
            1.050_750_071_644_416_9e-9,
        ],
    ];
    /// Further out, in √(−ln p) − 5.
    const TAIL: [[f64; 8]; 2] = [
        [
            6.657_904_643_501_103,
            5.463_784_911_164_114,
            1.784_826_539_917_291_3,
            2.965_605_718_285_048_7e-1,
            2.653_218_952_657_612_4e-2,
            1.242_660_947_388_078_4e-3,
            2.711_555_568_743_487_6e-5,
            2.010_334_399_292_288_1e-7,
        ],
        [
            1.0,
            5.998_322_065_558_88e-1,
            1.369_298_809_227_358e-1,
            1.487_536_129_085_061_5e-2,
            7.868_691_311_456_133e-4,
            1.846_318_317_510_054_8e-5,
            1.421_511_758_316_446e-7,
            2.044_263_103_389_939_8e-15,
        ],
    ];
    if p.is_nan() || !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let offset = p - 0.5;
    if offset.abs() <= 0.425 {
        return offset * ratio(&CENTRE, 0.180_625 - offset * offset);
    }
    let tail = p.min(1.0 - p);
    let magnitude = if tail == 0.0 {
        f64::INFINITY
    } else {
        let r = (-libm::log(tail)).sqrt();
        if r <= 5.0 { ratio(&SHOULDER, r - 1.6) } else { ratio(&TAIL, r - 5.0) }
    };
    magnitude.copysign(offset)
}

/// P(x)/Q(x), coefficients from the constant term up.
fn ratio(polynomials: &[[f64; 8]; 2], x: f64) -> f64 {
    let [p, q] = polynomials.each_ref().map(|c| c.iter().rev().fold(0.0, |value, a| value * x + a));
    p / q
}

/// Replaces values by their [`normal_score`] among all, ties sharing the mean of theirs. All NaN if one is.
pub(super) fn normal_scores(x: &[f64]) -> Vec<f64> {
    let n = x.len();
    if x.iter().any(|v| v.is_nan()) {
        return vec![f64::NAN; n];
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_unstable_by(|&i, &j| x[i].total_cmp(&x[j]));
    let mut scores = vec![0.0; n];
    let mut ranked = 0;
    for tied in order.chunk_by(|&i, &j| x[i] == x[j]) {
        // Ranks ranked + 1 … ranked + k have mean ranked + (k + 1)/2.
        let rank = ranked as f64 + (tied.len() + 1) as f64 / 2.0;
        let score = normal_score(rank, n);
        for &i in tied {
            scores[i] = score;
        }
        ranked += tied.len();
    }
    scores
}

/// Φ⁻¹((r − 3/8)/(n + 1/4)), r a rank among `n`, counted from 1 (Blom 1958).
pub(super) fn normal_score(rank: f64, n: usize) -> f64 {
    normal_quantile((rank - 0.375) / (n as f64 + 0.25))
}

/// The indices of the values of chains of one length in ascending order of value, equal ones in order of index; no
/// NaN, fewer than 2³² values. A radix sort of numbers that hold an index in their low bits and as much of a value as
/// fits above it; the few whose values differ in what is cut off are put in order afterwards.
pub(super) fn ascending(chains: &[&[f64]]) -> Vec<u32> {
    const BITS: u32 = 11;
    const DIGITS: usize = 1 << BITS;
    // Maps doubles to integers in the same order; -0 counts as 0.
    let key = |v: f64| {
        let bits = (v + 0.0).to_bits();
        if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
    };
    let (mut low, mut high, mut n) = (u64::MAX, 0, 0u64);
    for &v in chains.iter().copied().flatten() {
        (low, high, n) = (low.min(key(v)), high.max(key(v)), n + 1);
    }
    if n == 0 {
        return Vec::new();
    }
    let index_bits = 64 - (n - 1).leading_zeros();
    let value_bits = 64 - (high - low).leading_zeros();
    let cut = (value_bits + index_bits).saturating_sub(64);
    let index_of = |entry: u64| entry & ((1 << index_bits) - 1);
    let mut from = Vec::with_capacity(n as usize);
    let entries = (0..).zip(chains.iter().copied().flatten());
    from.extend(entries.map(|(i, &v)| (key(v) - low) >> cut << index_bits | i));
    let mut to = vec![0; from.len()];
    let shifts: Vec<u32> = (index_bits..index_bits + value_bits - cut).step_by(BITS as usize).collect();
    let digit = |entry: u64, shift: u32| (entry >> shift) as usize % DIGITS;
    let mut counts = vec![[0u32; DIGITS]; shifts.len()];
    for &entry in &from {
        for (&shift, counts) in shifts.iter().zip(&mut counts) {
            counts[digit(entry, shift)] += 1;
        }
    }
    for (&shift, places) in shifts.iter().zip(&mut counts) {
        let mut place = 0;
        for count in places.iter_mut() {
            (*count, place) = (place, place + *count);
        }
        for &entry in &from {
            let next = &mut places[digit(entry, shift)];
            to[*next as usize] = entry;
            *next += 1;
        }
        std::mem::swap(&mut from, &mut to);
    }
    drop(to);
    if cut > 0 {
        let alike = from.chunk_by_mut(|a, b| a >> index_bits == b >> index_bits);
        for entries in alike.filter(|entries| entries.len() > 1) {
            entries.sort_by_key(|&entry| key(draw(chains, index_of(entry) as u32)));
        }
    }
    from.into_iter().map(|entry| index_of(entry) as u32).collect()
}

/// The draw of this index, draws counted through all chains, which are of one length.
#[inline]
pub(super) fn draw(chains: &[&[f64]], index: u32) -> f64 {
    let draws = chains[0].len() as u32;
    let chain = index / draws;
    chains[chain as usize][(index - chain * draws) as usize]
}

/// [`normal_scores`] of `n` values that are known in ascending order, each `value(k)` with its `index(k)`. Of
/// `count` indices in all, those that do not come get NaN.
pub(super) fn scores_in_order(
    count: usize,
    n: usize,
    index: impl Fn(usize) -> u32,
    value: impl Fn(usize) -> f64,
) -> Vec<f64> {
    let mut scores = vec![f64::NAN; count];
    let mut ranked = 0;
    while ranked < n {
        let mut end = ranked + 1;
        while end < n && value(end) == value(ranked) {
            end += 1;
        }
        let rank = ranked as f64 + (end - ranked + 1) as f64 / 2.0;
        let score = normal_score(rank, n);
        for k in ranked..end {
            scores[index(k) as usize] = score;
        }
        ranked = end;
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_quantiles_agree_with_stored_values() {
        // mpmath at 30 digits: sqrt(2)·erfinv(2p − 1) at the double nearest to the p shown.
        for (p, z) in [
            (1e-300, -37.047_096_299_361_2),
            (1e-20, -9.262_340_089_798_407),
            (1e-10, -6.361_340_902_404_057),
            (1e-5, -4.264_890_793_922_825),
            (0.01, -2.326_347_874_040_841),
            (0.075, -1.439_531_470_938_456),
            (0.2, -0.841_621_233_572_914_2),
            (0.4999, -0.000_250_662_830_088_007_47),
            (0.7, 0.524_400_512_708_040_7),
            (0.925, 1.439_531_470_938_456_1),
            (0.975, 1.959_963_984_540_053_8),
            (0.999_999, 4.753_424_308_817_087),
        ] {
            let ours = normal_quantile(p);
            assert!((ours / z - 1.0).abs() < 2e-15, "p = {p}: {ours:e} against {z:e}");
        }
        assert_eq!(normal_quantile(0.5), 0.0);
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
        for p in [-1e-9, 1.0 + 1e-9, f64::NAN] {
            assert!(normal_quantile(p).is_nan());
        }
    }

    #[test]
    fn sorting_by_digits_sorts() {
        let mut x: Vec<f64> =
            (0..5000).map(|i: u32| f64::from(i.wrapping_mul(2_654_435_761)) - 2e9).collect();
        x.extend([0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, 1e-310, -1e-310, 3.0, 3.0, 1e300]);
        let order = ascending(&[&x]);
        assert!(order.windows(2).all(|w| {
            let (a, b) = (x[w[0] as usize], x[w[1] as usize]);
            a < b || a == b && w[0] < w[1]
        }));
        let sorted: Vec<f64> = order.iter().map(|&i| x[i as usize]).collect();
        assert_eq!(scores_in_order(x.len(), x.len(), |k| order[k], |k| sorted[k]), normal_scores(&x));
        assert!(ascending(&[]).is_empty() && ascending(&[&[]]).is_empty());
        assert_eq!(ascending(&[&[2.0], &[1.0]]), [1, 0]);
    }

    #[test]
    fn ties_share_their_mean_rank() {
        let blom = |rank: f64| normal_quantile((rank - 0.375) / 5.25);
        let scores = normal_scores(&[3.0, -0.0, 7.0, 0.0, 3.0]);
        assert_eq!(scores, [blom(3.5), blom(1.5), blom(5.0), blom(1.5), blom(3.5)]);
        assert!(normal_scores(&[1.0, f64::NAN]).iter().all(|z| z.is_nan()));
        assert!(normal_scores(&[]).is_empty());
    }
}
