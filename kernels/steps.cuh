// Steps of the samplers on minibatches: block.y is the chain, a thread has four neighbouring parameters.
//
// Formulas are those of the CPU's samplers; gradients are of the mean loss, and the localiser is added here. A sampler is a
// structure with what it does ahead of a step's gradient and what it makes of that.
#pragma once

#include "elementary.cuh"
#include "philox.cuh"
#include "shim.cuh"
#include "sums.cuh"

namespace lambda_hat {

enum Precond : int { NONE = 0, RMSPROP = 1, ADAM = 2 };

// What a launch of steps works on. What a sampler has not, it does not read.
template <typename T>
struct StepArgs {
    unsigned key0;
    unsigned key1;
    unsigned purpose;
    unsigned first_chain;      // number of the launch's first chain
    unsigned long long step;   // of the launch's first step
    const T* centre;           // dim
    T* w;                      // chains × dim
    T* first;                  // chains × dim: M of ADAM, the velocity of SGHMC, the momentum of SGNHT
    T* second;                 // chains × dim: V of RMSPROP and ADAM, the last force of SGNHT
    double* numbers;           // chains × 2: β1ᵗ and β2ᵗ of SGLD, the friction a step of SGNHT
    unsigned* rows;            // chains × batch: scratch for the drawn rows
    double step_size;
    double nbeta;
    double gamma;
    double beta1;
    double beta2;
    double eps;
    double friction;
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
DEVICE Stream stream_of(const StepArgs<T>& args, int chain, int step) {
    return Stream{{args.key0, args.key1}, args.purpose, args.first_chain + chain, args.step + step};
}

template <typename T>
DEVICE void draw_rows(int t, int threads, const StepArgs<T>& args, int chain, int step) {
    const Stream stream = stream_of(args, chain, step);
    unsigned* rows = args.rows + static_cast<size_t>(chain) * args.batch;
    for (int i = t; 2 * i < args.batch; i += threads) {
        const Words w = words(stream, i);
        rows[2 * i] = index_below(w.v[0], w.v[1], args.data_rows);
        if (2 * i + 1 < args.batch) rows[2 * i + 1] = index_below(w.v[2], w.v[3], args.data_rows);
    }
}

// SGLD, plain or preconditioned; without the term for the preconditioner's own slope.
template <typename T>
struct Sgld {
    static DEVICE void ahead(const Block& block, const StepArgs<T>& args, int chain, int step) {
        // β1ᵗ and β2ᵗ go on by one step.
        FOR_THREADS(t, block) {
            if (t != 0 || args.precond == NONE || step >= args.frozen_from) continue;
            double* powers = args.numbers + 2 * static_cast<size_t>(chain);
            powers[0] *= args.beta1;
            powers[1] *= args.beta2;
        }
    }

    // The step of `chain` with the gradient `grad` (dim); parameters t, t + threads, … in fours.
    static DEVICE void update(int t, int threads, const StepArgs<T>& args, int chain, int step, const T* grad) {
        const Stream stream = stream_of(args, chain, step);
        const bool frozen = step >= args.frozen_from;
        const T half = T(0.5 * args.step_size), root = T(sqrt(args.step_size));
        const T nbeta = T(args.nbeta), gamma = T(args.gamma), eps = T(args.eps);
        const T beta1 = T(args.beta1), beta2 = T(args.beta2);
        T scale1 = T(1), scale2 = T(1);
        if (args.precond != NONE && args.bias_correction != 0) {
            const double* powers = args.numbers + 2 * static_cast<size_t>(chain);
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
};

// SGHMC (Chen, Fox & Guestrin 2014, eq. 15): v ← (1 − α)v − η∇U + √(2αη)·ξ, w ← w + v.
template <typename T>
struct Sghmc {
    static DEVICE void ahead(const Block&, const StepArgs<T>&, int, int) {}

    static DEVICE void update(int t, int threads, const StepArgs<T>& args, int chain, int step, const T* grad) {
        const Stream stream = stream_of(args, chain, step);
        const T keep = T(1.0 - args.friction), eta = T(args.step_size);
        const T noise = T(sqrt(2.0 * args.friction * args.step_size)), nbeta = T(args.nbeta), gamma = T(args.gamma);
        const size_t at = static_cast<size_t>(chain) * args.dim;
        for (int group = t; 4 * group < args.dim; group += threads) {
            const Four<T> xi = four_normals(stream, row_blocks(args.batch), group, T(0));
            UNROLL
            for (int q = 0; q < 4; ++q) {
                const int i = 4 * group + q;
                if (i >= args.dim) continue;
                const T w = args.w[at + i];
                const T force = gamma * (w - args.centre[i]) + nbeta * grad[i];
                const T v = keep * args.first[at + i] - eta * force + noise * xi.v[q];
                args.first[at + i] = v;
                args.w[at + i] = w + v;
            }
        }
    }
};

// SGNHT (Ding et al. 2014) by the splitting BADODAB (Leimkuhler & Shang 2016), in units of a step: half a kick, half a
// drift, half a change of the friction, the exact Ornstein–Uhlenbeck step, and back.
template <typename T>
struct Sgnht {
    static constexpr double SETTLING_STEPS = 100.0;

    static DEVICE T half_step(const StepArgs<T>& args) { return T(0.5 * sqrt(args.step_size)); }

    // Half a change of the friction, from the sum of p².
    static DEVICE void warm(const Block& block, const StepArgs<T>& args, int chain) {
        add_up<1>(block);
        FOR_THREADS(t, block) {
            if (t != 0) continue;
            const double temperature = sums_of(block)[0] / static_cast<double>(args.dim);
            args.numbers[2 * static_cast<size_t>(chain)] += 0.5 * args.friction / SETTLING_STEPS * (temperature - 1.0);
        }
    }

    static DEVICE void ahead(const Block& block, const StepArgs<T>& args, int chain, int step) {
        const size_t at = static_cast<size_t>(chain) * args.dim;
        double* sums = sums_of(block);
        FOR_THREADS(t, block) {
            const T half = half_step(args);
            double square = 0.0;
            for (int i = t; i < args.dim; i += block.threads) {
                const T p = args.first[at + i] - half * args.second[at + i];
                args.first[at + i] = p;
                args.w[at + i] += half * p;
                square += static_cast<double>(p) * static_cast<double>(p);
            }
            sums[t] = square;
        }
        warm(block, args, chain);
        FOR_THREADS(t, block) {
            const Stream stream = stream_of(args, chain, step);
            const double x = args.numbers[2 * static_cast<size_t>(chain)];
            // (A/ξ)(1 − e^(−2ξh)), which is 2Ah where ξ vanishes.
            const double spread = x > 1e-12 || x < -1e-12 ? -expm1(-2.0 * x) / x : 2.0;
            const T half = half_step(args), keep = T(exp(-x)), noise = T(sqrt(args.friction * spread));
            double square = 0.0;
            for (int group = t; 4 * group < args.dim; group += block.threads) {
                const Four<T> xi = four_normals(stream, row_blocks(args.batch), group, T(0));
                UNROLL
                for (int q = 0; q < 4; ++q) {
                    const int i = 4 * group + q;
                    if (i >= args.dim) continue;
                    const T p = keep * args.first[at + i] + noise * xi.v[q];
                    args.first[at + i] = p;
                    args.w[at + i] += half * p;
                    square += static_cast<double>(p) * static_cast<double>(p);
                }
            }
            sums[t] = square;
        }
        warm(block, args, chain);
    }

    static DEVICE void update(int t, int threads, const StepArgs<T>& args, int chain, int, const T* grad) {
        const T half = half_step(args), nbeta = T(args.nbeta), gamma = T(args.gamma);
        const size_t at = static_cast<size_t>(chain) * args.dim;
        for (int i = t; i < args.dim; i += threads) {
            const T force = gamma * (args.w[at + i] - args.centre[i]) + nbeta * grad[i];
            args.second[at + i] = force;
            args.first[at + i] -= half * force;
        }
    }
};

}  // namespace lambda_hat
