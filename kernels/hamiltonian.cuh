// Hamiltonian chains with a diagonal metric, kinetic energy ½pᵀM⁻¹p: leapfrog paths, accepted or rejected (Duane et al.
// 1987; Neal 2011, §5.3). MALA is the same with paths of one step (Roberts & Tweedie 1996).
//
// An iteration's step is ε·U(0.2, 1), its number of steps uniform on {1, …, 2L − 1} with L = `steps`, as on the CPU. Its
// random words: block 0 gives the step (two words) and the number of steps (two), block 1 the threshold; the momentum's
// normals come after them.
#pragma once

#include "rounds.cuh"

namespace lambda_hat {

// Smallest factor on the step.
constexpr double SHORTEST = 0.2;
// Blocks of random words before the momentum's.
constexpr unsigned PATH_BLOCKS = 2;

// The end of a step and, thread 0's, of its path: `away` is |q − w*|², `kinetic` pᵀM⁻¹p.
template <typename T>
DEVICE void end_of_step(const RoundArgs<T>& args, int chain, double away, double kinetic, Verdict& verdict) {
    Flight& flight = args.flight[chain];
    const double loss = args.mean[chain];
    const double potential = args.nbeta * (loss - args.l0) + 0.5 * args.gamma * away;
    verdict.begins = 0;
    verdict.moves = 0;
    flight.fge += 1.0;
    if (flight.fge == 1.0) {
        // At w*, before the first path: there p = 0, so that its energy is a number where the gradient is one.
        flight.wild = is_finite(kinetic) ? 0.0 : 1.0;
        verdict.moves = 1;
    } else {
        flight.taken += 1.0;
        if (flight.taken < flight.count && is_finite(potential)) return;
        const double after = potential + 0.5 * kinetic;
        const double error = after - flight.before;
        const bool diverged = has_diverged(error);
        const double chance = diverged ? 0.0 : exp(-error);
        const double acceptance = chance < 1.0 ? chance : 1.0;
        verdict.moves = flight.threshold < acceptance ? 1 : 0;
        flight.acceptance += acceptance;
        if (diverged) flight.diverged = 1.0;
        if (goes_on(args, flight)) {
            double* row = row_of(args, chain, flight);
            if (row != nullptr) {
                row[0] = verdict.moves != 0 ? loss : flight.loss;
                row[1] = flight.acceptance / static_cast<double>(args.thin);
                row[2] = verdict.moves != 0 ? after : flight.before;
                row[3] = flight.diverged;
                row[4] = flight.taken;
                row[5] = flight.fge;
            }
            flight.acceptance = 0.0;
            flight.diverged = 0.0;
        }
    }
    if (verdict.moves != 0) {
        flight.energy = potential;
        flight.loss = loss;
    }
    if (is_done(args, chain)) return;
    verdict.begins = 1;
    const Stream stream = stream_of(args, chain, flight.iteration);
    const Words path = words(stream, 0), threshold = words(stream, 1);
    flight.step = args.step_size * (SHORTEST + (1.0 - SHORTEST) * uniform(path.v[0], path.v[1]));
    flight.count = 1.0 + index_below(path.v[2], path.v[3], 2u * static_cast<unsigned>(args.steps) - 1u);
    flight.threshold = uniform(threshold.v[0], threshold.v[1]);
    flight.taken = 0.0;
}

// The round of chain block.y: second half kick, p ← p − ½ε∇U(q); at the path's end accept/reject and a fresh momentum
// p = M^½·η; first half kick, and drift q ← q + εM⁻¹p.
template <typename T>
DEVICE void hamiltonian_round(const Block& block, const RoundArgs<T>& args) {
    if (is_done(args, block.y)) return;
    double* sums = sums_of(block);
    Verdict& verdict = verdict_of(block);
    const size_t at = static_cast<size_t>(block.y) * args.dim;
    FOR_THREADS(t, block) {
        const T half = T(0.5 * args.flight[block.y].step), nbeta = T(args.nbeta), gamma = T(args.gamma);
        double away = 0.0, kinetic = 0.0;
        for (int i = t; i < args.dim; i += block.threads) {
            const T q = args.q[at + i], c = args.centre[i];
            const T slope = nbeta * args.grad[at + i] + gamma * (q - c);
            const T p = args.p[at + i] - half * slope;
            const double off = static_cast<double>(q) - static_cast<double>(c), wide = static_cast<double>(p);
            away += off * off;
            kinetic += wide * wide * static_cast<double>(args.scale[i]);
            args.grad[at + i] = slope;
            args.p[at + i] = p;
        }
        sums[t] = away;
        sums[block.threads + t] = kinetic;
    }
    add_up<2>(block);
    FOR_THREADS(t, block) {
        if (t == 0) end_of_step(args, block.y, sums[0], sums[block.threads], verdict);
    }
    FOR_THREADS(t, block) {
        const Flight& flight = args.flight[block.y];
        const bool moves = verdict.moves != 0, begins = verdict.begins != 0;
        const bool done = is_done(args, block.y);
        const Stream stream = stream_of(args, block.y, flight.iteration);
        const T step = T(flight.step), half = T(0.5 * flight.step);
        double kinetic = 0.0;
        for (int group = t; 4 * group < args.dim; group += block.threads) {
            Four<T> eta{};
            if (begins) eta = four_normals(stream, PATH_BLOCKS, group, T(0));
            UNROLL
            for (int k = 0; k < 4; ++k) {
                const int i = 4 * group + k;
                if (i >= args.dim) continue;
                T q = args.q[at + i], slope = args.grad[at + i], p = args.p[at + i];
                if (moves) {
                    args.w[at + i] = q;
                    args.slope[at + i] = slope;
                }
                if (done) continue;
                if (begins) {
                    const T m = args.scale[i];
                    if (!moves) {
                        q = args.w[at + i];
                        slope = args.slope[at + i];
                    }
                    p = eta.v[k] / root_of(m);
                    kinetic += static_cast<double>(p) * static_cast<double>(p) * static_cast<double>(m);
                }
                p -= half * slope;
                args.p[at + i] = p;
                args.q[at + i] = q + step * args.scale[i] * p;
            }
        }
        sums[t] = kinetic;
    }
    add_up<1>(block);
    FOR_THREADS(t, block) {
        if (t == 0 && verdict.begins != 0) args.flight[block.y].before = args.flight[block.y].energy + 0.5 * sums[0];
    }
}

}  // namespace lambda_hat
