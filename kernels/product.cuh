// Products of one block of threads: W·a, Wᵀ·d and d·aᵀ over a tile of rows.
//
// A thread holds a small tile of the result in registers, four rows wide for the first two. Each number of the result
// is summed in the order of the summation index whatever the thread's tile, so the choice of tile moves no bits.
// A thread's features stand a stride apart, so that neighbouring threads read neighbouring lines.
#pragma once

#include "shim.cuh"

namespace lambda_hat {

// Which rows and features item `item` of a product stands for. Eight groups of rows by four of features make a warp:
// it reads few different lines, each of them by many threads at once.
struct Place {
    int row;      // first of four rows
    int feature;  // group of features
};

DEVICE Place place_of(int item, int tile_log) {
    const int groups_log = tile_log - 2;
    const int narrow_log = at_most(3, groups_log), strips_log = groups_log - narrow_log;
    const int lane = item & 31, warp = item >> 5;
    const int strip = warp & ((1 << strips_log) - 1);
    Place place;
    place.row = 4 * ((strip << narrow_log) + (lane & ((1 << narrow_log) - 1)));
    place.feature = ((warp >> strips_log) << (5 - narrow_log)) + (lane >> narrow_log);
    return place;
}

DEVICE int items_of(int groups, int tile_log) {
    const int narrow_log = at_most(3, tile_log - 2), across = 1 << (5 - narrow_log);
    return divide_up(groups, across) << (tile_log - 2 - narrow_log + 5);
}

// W·a: `m` outputs, `k` inputs (both true numbers), W in rows of `ldw`. Calls done(feature, row, four sums) for every
// feature below `m` rounded up to four; those from `m` on get zeros.
template <int TM, typename T, typename Done>
DEVICE void multiply(int t, int threads, const T* w, int ldw, int m, int k, const T* a, int ld, int tile_log, Done done) {
    const int groups = divide_up(m, TM), padded = up_to_four(m);
    for (int item = t; item < items_of(groups, tile_log); item += threads) {
        const Place place = place_of(item, tile_log);
        if (place.feature >= groups) continue;
        T sum[TM][4];
        const T* row[TM];
        UNROLL
        for (int j = 0; j < TM; ++j) {
            const int o = place.feature + j * groups;
            row[j] = w + (o < m ? o : 0) * ldw;
            UNROLL
            for (int r = 0; r < 4; ++r) sum[j][r] = T(0);
        }
        for (int i = 0; i < k; i += 4) {
            Four<T> x[4];
            UNROLL
            for (int q = 0; q < 4; ++q) x[q] = load_four(a + (i + q) * ld + place.row);
            UNROLL
            for (int j = 0; j < TM; ++j) {
                const Four<T> c = load_four(row[j] + i);
                UNROLL
                for (int q = 0; q < 4; ++q) {
                    UNROLL
                    for (int r = 0; r < 4; ++r) sum[j][r] = fused(c.v[q], x[q].v[r], sum[j][r]);
                }
            }
        }
        UNROLL
        for (int j = 0; j < TM; ++j) {
            const int o = place.feature + j * groups;
            if (o >= padded) continue;
            Four<T> four;
            UNROLL
            for (int r = 0; r < 4; ++r) four.v[r] = o < m ? sum[j][r] : T(0);
            done(o, place.row, four);
        }
        // Where the groups do not reach the padding, the first group's thread fills it.
        if (place.feature == 0) {
            for (int o = TM * groups; o < padded; ++o) done(o, place.row, Four<T>{{T(0), T(0), T(0), T(0)}});
        }
    }
}

// Wᵀ·d: `k` results of `m` terms. Calls done(feature, row, four sums) for every feature below `k` rounded up to four;
// the packed W has zeros from `k` on.
template <int TK, typename T, typename Done>
DEVICE void multiply_transposed(int t, int threads, const T* w, int ldw, int m, int k, const T* d, int ld, int tile_log,
                                Done done) {
    const int fours = divide_up(k, 4), groups = divide_up(fours, TK);
    for (int item = t; item < items_of(groups, tile_log); item += threads) {
        const Place place = place_of(item, tile_log);
        if (place.feature >= groups) continue;
        T sum[TK][4][4];
        const T* column[TK];
        UNROLL
        for (int h = 0; h < TK; ++h) {
            const int four = place.feature + h * groups;
            column[h] = w + 4 * (four < fours ? four : 0);
            UNROLL
            for (int f = 0; f < 16; ++f) sum[h][f / 4][f % 4] = T(0);
        }
        for (int o = 0; o < m; ++o) {
            const Four<T> x = load_four(d + o * ld + place.row);
            UNROLL
            for (int h = 0; h < TK; ++h) {
                const Four<T> c = load_four(column[h] + o * ldw);
                UNROLL
                for (int f = 0; f < 4; ++f) {
                    UNROLL
                    for (int r = 0; r < 4; ++r) sum[h][f][r] = fused(c.v[f], x.v[r], sum[h][f][r]);
                }
            }
        }
        UNROLL
        for (int h = 0; h < TK; ++h) {
            const int four = place.feature + h * groups;
            if (four >= fours) continue;
            UNROLL
            for (int f = 0; f < 4; ++f) {
                Four<T> result;
                UNROLL
                for (int r = 0; r < 4; ++r) result.v[r] = sum[h][f][r];
                done(4 * four + f, place.row, result);
            }
        }
    }
}

// d·aᵀ summed over the rows of a tile, into `grad` (m × k, row-major): set by the first tile, added to by the others.
// The same thread owns the same numbers in every tile.
template <int TM, int TK, typename T>
DEVICE void multiply_outer(int t, int threads, const T* d, const T* a, int ld, int rows, int m, int k, T* grad,
                           bool first) {
    const int down = divide_up(m, TM), across = divide_up(k, TK);
    for (int item = t; item < down * across; item += threads) {
        const int o0 = item / across, k0 = item % across;
        T sum[TM][TK];
        UNROLL
        for (int j = 0; j < TM; ++j) {
            UNROLL
            for (int i = 0; i < TK; ++i) sum[j][i] = T(0);
        }
        for (int r = 0; r < rows; r += 4) {
            Four<T> x[TK];
            UNROLL
            for (int i = 0; i < TK; ++i) x[i] = load_four(a + (k0 + i * across) * ld + r);
            UNROLL
            for (int j = 0; j < TM; ++j) {
                const Four<T> y = load_four(d + (o0 + j * down) * ld + r);
                UNROLL
                for (int i = 0; i < TK; ++i) {
                    UNROLL
                    for (int q = 0; q < 4; ++q) sum[j][i] = fused(y.v[q], x[i].v[q], sum[j][i]);
                }
            }
        }
        UNROLL
        for (int j = 0; j < TM; ++j) {
            UNROLL
            for (int i = 0; i < TK; ++i) {
                const int o = o0 + j * down, c = k0 + i * across;
                if (o >= m || c >= k) continue;
                T* to = grad + o * k + c;
                *to = first ? sum[j][i] : *to + sum[j][i];
            }
        }
    }
}

// Features that a thread takes at a time, so that as many threads as there are have work: 8, 4, 2 or 1.
DEVICE int features_a_thread(int m, int tile_log, int threads, int most) {
    int features = most;
    while (features > 1 && (divide_up(m, features) << (tile_log - 2)) < threads) features /= 2;
    return features;
}

}  // namespace lambda_hat
