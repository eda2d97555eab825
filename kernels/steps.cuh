// Steps of samplers, element by element: block.y is the chain, a thread has four neighbouring parameters.
//
// Formulas are those of the CPU's samplers; gradients are of the mean loss, and the localiser is added here.
#pragma once

#include "elementary.cuh"
#include "philox.cuh"
#include "shim.cuh"

namespace lambda_hat {

enum Precond : int { NONE = 0, RMSPROP = 1, ADAM = 2 };

// One SGLD step, plain or preconditioned; without the term for the preconditioner's own slope.
template <typename T>
struct SgldArgs {
    unsigned key0;
    unsigned key1;
    unsigned purpose;
    unsigned first_chain;      // number of the launch's first chain
    unsigned long long step;   // of the launch's first step
    const T* centre;           // dim
    T* w;                      // chains × dim
    T* first;                  // chains × dim: M, for ADAM
    T* second;                 // chains × dim: V, for RMSPROP and ADAM
    double* powers;            // chains × 2: β1ᵗ and β2ᵗ
    unsigned* rows;            // chains × batch: scratch for the drawn rows
    double step_size;
    double nbeta;
    double gamma;
    double beta1;
    double beta2;
    double eps;
    int dim;
    int batch;                 // rows drawn with replacement
    int data_rows;
    int precond;
    int bias_correction;
    int frozen_from;           // the moments stand still from this step of the launch on
};

// Blocks of random words that a step's row numbers take: two rows each. The noise begins after them.
DEVICE unsigned row_blocks(int batch) { return static_cast<unsigned>((batch + 1) / 2); }

template <typename T>
DEVICE Stream stream_of(const SgldArgs<T>& args, int chain, int step) {
    return Stream{{args.key0, args.key1}, args.purpose, args.first_chain + chain, args.step + step};
}

template <typename T>
DEVICE void draw_rows(int t, int threads, const SgldArgs<T>& args, int chain, int step) {
    const Stream stream = stream_of(args, chain, step);
    unsigned* rows = args.rows + static_cast<size_t>(chain) * args.batch;
    for (int i = t; 2 * i < args.batch; i += threads) {
        const Words w = words(stream, i);
        rows[2 * i] = index_below(w.v[0], w.v[1], args.data_rows);
        if (2 * i + 1 < args.batch) rows[2 * i + 1] = index_below(w.v[2], w.v[3], args.data_rows);
    }
}

// The step of `chain` with the gradient `grad` (dim); parameters t, t + threads, … in fours.
template <typename T>
DEVICE void sgld_update(int t, int threads, const SgldArgs<T>& args, int chain, int step, const T* grad) {
    const Stream stream = stream_of(args, chain, step);
    const bool frozen = step >= args.frozen_from;
    const T half = T(0.5 * args.step_size), root = T(sqrt(args.step_size));
    const T nbeta = T(args.nbeta), gamma = T(args.gamma), eps = T(args.eps);
    const T beta1 = T(args.beta1), beta2 = T(args.beta2);
    T scale1 = T(1), scale2 = T(1);
    if (args.precond != NONE && args.bias_correction != 0) {
        const double* powers = args.powers + 2 * static_cast<size_t>(chain);
        scale1 = T(1.0 / (1.0 - powers[0]));
        scale2 = T(1.0 / (1.0 - powers[1]));
    }
    const size_t at = static_cast<size_t>(chain) * args.dim;
    for (int group = t; 4 * group < args.dim; group += threads) {
        const Four<T> eta = four_normals(stream, row_blocks(args.batch), group, T(0));
        UNROLL
        for (int q = 0; q < 4; ++q) {
            const int i = 4 * group + q;
            if (i >= args.dim) continue;
            const T w = args.w[at + i], g = grad[i];
            T direction = g, shrink = T(1), spread = T(1);
            if (args.precond != NONE) {
                T v = args.second[at + i];
                if (!frozen) args.second[at + i] = v = beta2 * v + (T(1) - beta2) * g * g;
                shrink = T(1) / (root_of(v * scale2) + eps);
                spread = root_of(shrink);
                if (args.precond == ADAM) {
                    args.first[at + i] = direction = beta1 * args.first[at + i] + (T(1) - beta1) * g;
                    direction *= scale1;
                }
            }
            const T drift = shrink * (gamma * (w - args.centre[i]) + nbeta * direction);
            args.w[at + i] = w - half * drift + root * spread * eta.v[q];
        }
    }
}

// β1ᵗ and β2ᵗ go on by one step; one thread a chain, before the update.
template <typename T>
DEVICE void sgld_powers(const SgldArgs<T>& args, int chain, int step) {
    if (args.precond == NONE || step >= args.frozen_from) return;
    double* powers = args.powers + 2 * static_cast<size_t>(chain);
    powers[0] *= args.beta1;
    powers[1] *= args.beta2;
}

}  // namespace lambda_hat
