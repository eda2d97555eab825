//! The unsafe code of `device`, all of it: vector registers, entering code compiled for an
//! instruction set, one call into OpenBLAS.
//!
//! 64 bytes of numbers as one value, a [`Pack`], are what kernels are written in. A pack has the
//! same number of lanes on every instruction set (16 `f32` or 8 `f64`), whether it takes one
//! register, two, or none, and each operation rounds each lane once: so all implementations give
//! the same bits.

use super::Normal;
use crate::num::Real;

/// 64 bytes of lanes of `T`.
///
/// Contract: an implementation's methods are called only from code under
/// [`Arith::run`](super::Arith::run) with the instruction set that it belongs to. The kernels of
/// `device` see to it; the implementing types are private to it.
pub trait Pack<T>: Copy {
    /// Number of lanes.
    const LANES: usize;
    /// All lanes `x`.
    fn splat(x: T) -> Self;
    /// The first `LANES` numbers of `from`, which must have that many.
    fn load(from: &[T]) -> Self;
    /// Writes the lanes to the front of `to`, which must have room.
    fn store(self, to: &mut [T]);
    /// `self·a + b` with one rounding.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// `self + other`
    fn add(self, other: Self) -> Self;
    /// Lanes below zero become 0; all others, NaN and −0 among them, stay.
    fn relu(self) -> Self;
    /// Lanes of `self` where `gate` is above zero, 0 elsewhere.
    fn where_positive(self, gate: Self) -> Self;
    /// The sum of the lanes by halving: lane l + half is added to lane l, until one is left.
    fn sum(self) -> T;
    /// [`sum`](Pack::sum) of each of four packs, with the same bits. Together they take half of the
    /// instructions.
    fn sums(packs: [Self; 4]) -> [T; 4];
    /// [`sums`](Pack::sums) of twice four packs, with the same bits.
    #[inline(always)]
    fn pairs_of_sums(first: [Self; 4], second: [Self; 4]) -> [[T; 4]; 2] {
        [Self::sums(first), Self::sums(second)]
    }
}

/// A number type with its packs, an instruction set each.
pub trait Element: Real + Normal {
    /// Plain arrays.
    type Generic: Pack<Self>;
    /// Two AVX2 registers.
    type Avx2: Pack<Self>;
    /// One AVX-512 register.
    type Avx512: Pack<Self>;
}

#[derive(Clone, Copy)]
pub struct Plain<T, const L: usize>([T; L]);

impl<T: Real, const L: usize> Pack<T> for Plain<T, L> {
    const LANES: usize = L;
    #[inline(always)]
    fn splat(x: T) -> Self {
        Self([x; L])
    }
    #[inline(always)]
    fn load(from: &[T]) -> Self {
        let mut lanes = [T::ZERO; L];
        lanes.copy_from_slice(&from[..L]);
        Self(lanes)
    }
    #[inline(always)]
    fn store(self, to: &mut [T]) {
        to[..L].copy_from_slice(&self.0);
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        let mut lanes = self.0;
        for ((lane, a), b) in lanes.iter_mut().zip(a.0).zip(b.0) {
            *lane = lane.mul_add(a, b);
        }
        Self(lanes)
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let mut lanes = self.0;
        for (lane, other) in lanes.iter_mut().zip(other.0) {
            *lane += other;
        }
        Self(lanes)
    }
    #[inline(always)]
    fn relu(self) -> Self {
        Self(self.0.map(|x| if x < T::ZERO { T::ZERO } else { x }))
    }
    #[inline(always)]
    fn where_positive(self, gate: Self) -> Self {
        let mut lanes = self.0;
        for (lane, gate) in lanes.iter_mut().zip(gate.0) {
            *lane = if gate > T::ZERO { *lane } else { T::ZERO };
        }
        Self(lanes)
    }
    #[inline(always)]
    fn sums(packs: [Self; 4]) -> [T; 4] {
        packs.map(Self::sum)
    }
    #[inline(always)]
    fn sum(self) -> T {
        let mut x = self.0;
        let mut half = L / 2;
        while half > 0 {
            for l in 0..half {
                let other = x[l + half];
                x[l] += other;
            }
            half /= 2;
        }
        x[0]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Pack, Plain};

    #[derive(Clone, Copy)]
    pub struct Two<V>(V, V);
    #[derive(Clone, Copy)]
    pub struct One<V>(V);

    /// Sum by halving of eight lanes. Contract: AVX, as for `two`.
    #[inline(always)]
    fn fold_ps(v: __m256) -> f32 {
        // SAFETY: see the contract; registers only.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    /// Sum by halving of four lanes. Contract: AVX, as for `two`.
    #[inline(always)]
    fn fold_pd(v: __m256d) -> f64 {
        // SAFETY: see the contract; registers only.
        unsafe {
            let two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }

    /// `fold_ps` of four registers at once. Contract: AVX, as for `two`.
    #[inline(always)]
    fn folds_ps(v: [__m256; 4]) -> [f32; 4] {
        let twos = twos_ps(fours_ps(v[0], v[2]), fours_ps(v[1], v[3]));
        let mut sums = [0.0; 4];
        // SAFETY: see the contract; the store fills `sums`.
        unsafe {
            let (low, high) = (_mm256_castps256_ps128(twos), _mm256_extractf128_ps::<1>(twos));
            let even = _mm_shuffle_ps::<0b10_00_10_00>(low, high);
            let odd = _mm_shuffle_ps::<0b11_01_11_01>(low, high);
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(even, odd));
        }
        sums
    }

    /// Lane l + 4 added to lane l: four sums of `a`, four of `b`. Contract: AVX, as for `two`.
    #[inline(always)]
    fn fours_ps(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the contract; registers only.
        unsafe { _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b)) }
    }

    /// In each half, lane l + 2 added to lane l: two sums of `a`, two of `b`. Contract: AVX, as for `two`.
    #[inline(always)]
    fn twos_ps(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see the contract; registers only.
        unsafe {
            let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
            let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
            _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
        }
    }

    /// `fold_pd` of four registers at once. Contract: AVX, as for `two`.
    #[inline(always)]
    fn folds_pd(v: [__m256d; 4]) -> [f64; 4] {
        let (a, b) = (twos_pd(v[0], v[2]), twos_pd(v[1], v[3]));
        let mut sums = [0.0; 4];
        // SAFETY: see the contract; the store fills `sums`.
        unsafe {
            let ones = _mm256_add_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
            _mm256_storeu_pd(sums.as_mut_ptr(), ones);
        }
        sums
    }

    /// Lane l + 2 added to lane l: two sums of `a`, two of `b`. Contract: AVX, as for `two`.
    #[inline(always)]
    fn twos_pd(a: __m256d, b: __m256d) -> __m256d {
        // SAFETY: see the contract; registers only.
        unsafe { _mm256_add_pd(_mm256_permute2f128_pd::<0x20>(a, b), _mm256_permute2f128_pd::<0x31>(a, b)) }
    }

    /// Lanes of `x` where `gate` is above zero. Contract: AVX, as for `two`.
    #[inline(always)]
    fn gated_ps(x: __m256, gate: __m256) -> __m256 {
        // SAFETY: see the contract; registers only.
        unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(gate, _mm256_setzero_ps()), x) }
    }

    /// Lanes of `x` where `gate` is above zero. Contract: AVX, as for `two`.
    #[inline(always)]
    fn gated_pd(x: __m256d, gate: __m256d) -> __m256d {
        // SAFETY: see the contract; registers only.
        unsafe { _mm256_and_pd(_mm256_cmp_pd::<_CMP_GT_OQ>(gate, _mm256_setzero_pd()), x) }
    }

    /// Lanes of `x` where `gate` is above zero. Contract: AVX-512F, as for `one`.
    #[inline(always)]
    fn gated_wide_ps(x: __m512, gate: __m512) -> __m512 {
        // SAFETY: see the contract; registers only.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps()), x) }
    }

    /// Lanes of `x` where `gate` is above zero. Contract: AVX-512F, as for `one`.
    #[inline(always)]
    fn gated_wide_pd(x: __m512d, gate: __m512d) -> __m512d {
        // SAFETY: see the contract; registers only.
        unsafe { _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_pd()), x) }
    }

    /// The halves of a register. Contract: AVX-512F, as for `one`.
    #[inline(always)]
    fn halves_ps(v: __m512) -> Two<__m256> {
        // SAFETY: see the contract; registers only.
        unsafe {
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v));
            Two(_mm512_castps512_ps256(v), _mm256_castpd_ps(high))
        }
    }

    /// The halves of a register. Contract: AVX-512F, as for `one`.
    #[inline(always)]
    fn halves_pd(v: __m512d) -> Two<__m256d> {
        // SAFETY: see the contract; registers only.
        unsafe { Two(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd::<1>(v)) }
    }

    /// `folds_pd` of twice four registers, of `a` and of `b`. Contract: AVX-512F, as for `one`.
    #[inline(always)]
    fn eights_pd(a: [__m512d; 4], b: [__m512d; 4]) -> [[f64; 4]; 2] {
        let mut sums = [[0.0; 4]; 2];
        // SAFETY: see the contract; the store fills `sums`.
        unsafe {
            // Lane l + 4 to lane l of `a` below, of `b` above; then l + 2 to l, two columns side by side.
            let eight =
                |a, b| _mm512_add_pd(_mm512_mask_blend_pd(0xf0, a, b), _mm512_shuffle_f64x2::<0x4e>(a, b));
            let crossed = _mm512_set_epi64(13, 12, 7, 6, 9, 8, 3, 2);
            let four =
                |a, b| _mm512_add_pd(_mm512_mask_blend_pd(0xcc, a, b), _mm512_permutex2var_pd(a, crossed, b));
            let even = four(eight(a[0], b[0]), eight(a[2], b[2]));
            let odd = four(eight(a[1], b[1]), eight(a[3], b[3]));
            let ones = _mm512_add_pd(_mm512_unpacklo_pd(even, odd), _mm512_unpackhi_pd(even, odd));
            _mm512_storeu_pd(sums.as_mut_ptr().cast(), ones);
        }
        sums
    }

    /// `folds_ps` of twice four registers, of `a` and of `b`. Contract: AVX-512F, as for `one`.
    #[inline(always)]
    fn eights_ps(a: [__m512; 4], b: [__m512; 4]) -> [[f32; 4]; 2] {
        let mut sums = [[0.0; 4]; 2];
        // SAFETY: see the contract; the store fills `sums`.
        unsafe {
            // As in `eights_pd`, with twice as many lanes, and the last two steps in pairs of lanes.
            let eight =
                |a, b| _mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4::<0x4e>(a, b));
            let crossed = _mm512_set_epi64(13, 12, 7, 6, 9, 8, 3, 2);
            let four = |a: __m512, b: __m512| {
                let other = _mm512_permutex2var_pd(_mm512_castps_pd(a), crossed, _mm512_castps_pd(b));
                _mm512_add_ps(_mm512_mask_blend_ps(0xf0f0, a, b), _mm512_castpd_ps(other))
            };
            let even = _mm512_castps_pd(four(eight(a[0], b[0]), eight(a[2], b[2])));
            let odd = _mm512_castps_pd(four(eight(a[1], b[1]), eight(a[3], b[3])));
            let low = _mm512_castpd_ps(_mm512_unpacklo_pd(even, odd));
            let high = _mm512_castpd_ps(_mm512_unpackhi_pd(even, odd));
            let twos = _mm512_add_ps(low, high);
            let ones = _mm512_add_ps(twos, _mm512_shuffle_ps::<0b10_11_00_01>(twos, twos));
            let places = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 14, 12, 10, 8, 6, 4, 2, 0);
            let sorted = _mm512_permutexvar_ps(places, ones);
            _mm256_storeu_ps(sums.as_mut_ptr().cast(), _mm512_castps512_ps256(sorted));
        }
        sums
    }

    /// Contract of every block below: the caller runs under `Arith::run` with AVX2 and FMA, which
    /// `Element`'s use in `kernels` arranges; loads and stores touch exactly the lanes that the
    /// slice was just checked to hold, and need no alignment.
    macro_rules! two {
        ($t:ty, $v:ty, $lanes:literal, $half:literal, $set:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $max:ident, $gated:ident, $fold:ident, $folds:ident) => {
            impl Pack<$t> for Two<$v> {
                const LANES: usize = $lanes;
                #[inline(always)]
                fn splat(x: $t) -> Self {
                    // SAFETY: see the macro's contract.
                    unsafe { Self($set(x), $set(x)) }
                }
                #[inline(always)]
                fn load(from: &[$t]) -> Self {
                    let from = &from[..$lanes];
                    // SAFETY: see the macro's contract.
                    unsafe { Self($load(from.as_ptr()), $load(from.as_ptr().add($half))) }
                }
                #[inline(always)]
                fn store(self, to: &mut [$t]) {
                    let to = &mut to[..$lanes];
                    // SAFETY: see the macro's contract.
                    unsafe {
                        $store(to.as_mut_ptr(), self.0);
                        $store(to.as_mut_ptr().add($half), self.1);
                    }
                }
                #[inline(always)]
                fn mul_add(self, a: Self, b: Self) -> Self {
                    // SAFETY: see the macro's contract.
                    unsafe { Self($fma(self.0, a.0, b.0), $fma(self.1, a.1, b.1)) }
                }
                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    // SAFETY: see the macro's contract.
                    unsafe { Self($add(self.0, other.0), $add(self.1, other.1)) }
                }
                #[inline(always)]
                fn relu(self) -> Self {
                    // The instruction answers with its second operand where one is NaN or both are 0.
                    // SAFETY: see the macro's contract.
                    unsafe { Self($max($set(0.0), self.0), $max($set(0.0), self.1)) }
                }
                #[inline(always)]
                fn where_positive(self, gate: Self) -> Self {
                    Self($gated(self.0, gate.0), $gated(self.1, gate.1))
                }
                #[inline(always)]
                fn sums(packs: [Self; 4]) -> [$t; 4] {
                    let mut halves = [packs[0].0; 4];
                    for (half, pack) in halves.iter_mut().zip(packs) {
                        // SAFETY: see the macro's contract.
                        *half = unsafe { $add(pack.0, pack.1) };
                    }
                    $folds(halves)
                }
                #[inline(always)]
                fn sum(self) -> $t {
                    // SAFETY: see the macro's contract.
                    $fold(unsafe { $add(self.0, self.1) })
                }
            }
        };
    }

    /// Contract of every block below: as for `two`, with AVX-512F.
    macro_rules! one {
        ($t:ty, $v:ty, $lanes:literal, $set:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $max:ident, $gated:ident, $halves:ident, $eights:ident) => {
            impl Pack<$t> for One<$v> {
                const LANES: usize = $lanes;
                #[inline(always)]
                fn splat(x: $t) -> Self {
                    // SAFETY: see the macro's contract.
                    unsafe { Self($set(x)) }
                }
                #[inline(always)]
                fn load(from: &[$t]) -> Self {
                    let from = &from[..$lanes];
                    // SAFETY: see the macro's contract.
                    unsafe { Self($load(from.as_ptr())) }
                }
                #[inline(always)]
                fn store(self, to: &mut [$t]) {
                    let to = &mut to[..$lanes];
                    // SAFETY: see the macro's contract.
                    unsafe { $store(to.as_mut_ptr(), self.0) }
                }
                #[inline(always)]
                fn mul_add(self, a: Self, b: Self) -> Self {
                    // SAFETY: see the macro's contract.
                    unsafe { Self($fma(self.0, a.0, b.0)) }
                }
                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    // SAFETY: see the macro's contract.
                    unsafe { Self($add(self.0, other.0)) }
                }
                #[inline(always)]
                fn relu(self) -> Self {
                    // The instruction answers with its second operand where one is NaN or both are 0.
                    // SAFETY: see the macro's contract.
                    unsafe { Self($max($set(0.0), self.0)) }
                }
                #[inline(always)]
                fn where_positive(self, gate: Self) -> Self {
                    Self($gated(self.0, gate.0))
                }
                #[inline(always)]
                fn sums(packs: [Self; 4]) -> [$t; 4] {
                    let mut twos = [$halves(packs[0].0); 4];
                    for (two, pack) in twos.iter_mut().zip(packs) {
                        *two = $halves(pack.0);
                    }
                    Pack::<$t>::sums(twos)
                }
                #[inline(always)]
                fn pairs_of_sums(first: [Self; 4], second: [Self; 4]) -> [[$t; 4]; 2] {
                    $eights(first.map(|pack| pack.0), second.map(|pack| pack.0))
                }
                #[inline(always)]
                fn sum(self) -> $t {
                    Pack::<$t>::sum($halves(self.0))
                }
            }
        };
    }

    two!(
        f32,
        __m256,
        16,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_max_ps,
        gated_ps,
        fold_ps,
        folds_ps
    );
    two!(
        f64,
        __m256d,
        8,
        4,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_fmadd_pd,
        _mm256_add_pd,
        _mm256_max_pd,
        gated_pd,
        fold_pd,
        folds_pd
    );
    one!(
        f32,
        __m512,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_max_ps,
        gated_wide_ps,
        halves_ps,
        eights_ps
    );
    one!(
        f64,
        __m512d,
        8,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_fmadd_pd,
        _mm512_add_pd,
        _mm512_max_pd,
        gated_wide_pd,
        halves_pd,
        eights_pd
    );

    impl super::Element for f32 {
        type Generic = Plain<f32, 16>;
        type Avx2 = Two<__m256>;
        type Avx512 = One<__m512>;
    }
    impl super::Element for f64 {
        type Generic = Plain<f64, 8>;
        type Avx2 = Two<__m256d>;
        type Avx512 = One<__m512d>;
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    use super::Plain;

    impl super::Element for f32 {
        type Generic = Plain<f32, 16>;
        type Avx2 = Plain<f32, 16>;
        type Avx512 = Plain<f32, 16>;
    }
    impl super::Element for f64 {
        type Generic = Plain<f64, 8>;
        type Avx2 = Plain<f64, 8>;
        type Avx512 = Plain<f64, 8>;
    }
}

/// Runs `f` compiled for AVX2 and FMA; panics where the processor lacks them, since `f` may hold
/// packs of that instruction set.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has what the function is compiled for, as just seen.
        unsafe { compiled_for_avx2(f) }
    } else {
        panic!("this processor has no AVX2 and FMA: `Arith::is_available` was not asked")
    }
}

/// Runs `f` compiled for AVX-512 F; panics where the processor lacks it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn with_avx512<R>(f: impl FnOnce() -> R) -> R {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has what the function is compiled for, as just seen.
        unsafe { compiled_for_avx512(f) }
    } else {
        panic!("this processor has no AVX-512F: `Arith::is_available` was not asked")
    }
}

/// Contract: the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn compiled_for_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Contract: the processor has AVX2, FMA and AVX-512F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f")]
unsafe fn compiled_for_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

unsafe extern "C" {
    /// Sets the number of threads of the OpenBLAS library in this process (OpenBLAS `cblas.h`).
    fn openblas_set_num_threads(n: std::ffi::c_int);
}

/// Keeps OpenBLAS single-threaded: worker slots are the parallel axis, and a product split over
/// threads would sum in an order that depends on their number.
pub fn use_one_blas_thread() {
    // SAFETY: the function takes a plain integer, may be called at any time, and holds its own lock.
    unsafe { openblas_set_num_threads(1) }
}
