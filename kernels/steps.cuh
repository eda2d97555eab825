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

// Hamiltonian dynamics with a diagonal metric: what a launch works on.
template <typename T>
struct LeapfrogArgs {
    unsigned key0;
    unsigned key1;
    unsigned purpose;
    unsigned first_chain;
    unsigned long long step;
    const T* centre;    // dim
    const T* inverse;   // dim: M⁻¹
    const T* grad;      // chains × dim: gradient of the mean loss
    const double* loss; // chains
    const double* size; // chains: ε
    T* w;               // chains × dim
    T* p;               // chains × dim
    double* energy;     // chains × 2: potential and kinetic
    double nbeta;
    double gamma;
    int dim;
    unsigned first_block; // of the momenta's random words within the step
};

// p ← M^½·η
template <typename T>
DEVICE void draw_momenta(const Block& block, const LeapfrogArgs<T>& args) {
    FOR_THREADS(t, block) {
        const Stream stream{{args.key0, args.key1}, args.purpose, args.first_chain + block.y, args.step};
        const int group = block.x * block.threads + t;
        if (4 * group < args.dim) {
            const Four<T> eta = four_normals(stream, args.first_block, group, T(0));
            UNROLL
            for (int q = 0; q < 4; ++q) {
                const int i = 4 * group + q;
                if (i < args.dim) args.p[static_cast<size_t>(block.y) * args.dim + i] = eta.v[q] / root_of(args.inverse[i]);
            }
        }
    }
}

// p ← p − share·ε·(γ(w − w*) + nβ·∇L), then, where `drift`, w ← w + ε·M⁻¹p.
template <typename T>
DEVICE void leapfrog(const Block& block, const LeapfrogArgs<T>& args, double share, bool drift) {
    FOR_THREADS(t, block) {
        const int i = block.x * block.threads + t;
        if (i < args.dim) {
            const size_t at = static_cast<size_t>(block.y) * args.dim + i;
            const double size = args.size[block.y];
            const T w = args.w[at];
            const T slope = T(args.gamma) * (w - args.centre[i]) + T(args.nbeta) * args.grad[at];
            const T p = args.p[at] - T(share * size) * slope;
            args.p[at] = p;
            if (drift) args.w[at] = w + T(size) * args.inverse[i] * p;
        }
    }
}

// Potential nβ·L + ½γ|w − w*|² and kinetic ½pᵀM⁻¹p of a chain, summed in double precision by halving.
template <typename T>
DEVICE void energies(const Block& block, const LeapfrogArgs<T>& args) {
    double* sums = reinterpret_cast<double*>(block.shared);
    FOR_THREADS(t, block) {
        double away = 0.0, kinetic = 0.0;
        for (int i = t; i < args.dim; i += block.threads) {
            const size_t at = static_cast<size_t>(block.y) * args.dim + i;
            const double off = static_cast<double>(args.w[at]) - static_cast<double>(args.centre[i]);
            const double p = static_cast<double>(args.p[at]);
            away += off * off;
            kinetic += p * p * static_cast<double>(args.inverse[i]);
        }
        sums[t] = away;
        sums[block.threads + t] = kinetic;
    }
    for (int half = block.threads / 2; half > 0; half /= 2) {
        FOR_THREADS(t, block) {
            if (t < half) {
                sums[t] += sums[t + half];
                sums[block.threads + t] += sums[block.threads + t + half];
            }
        }
    }
    FOR_THREADS(t, block) {
        if (t == 0) {
            args.energy[2 * block.y] = args.nbeta * args.loss[block.y] + 0.5 * args.gamma * sums[0];
            args.energy[2 * block.y + 1] = 0.5 * sums[block.threads];
        }
    }
}

}  // namespace lambda_hat
