// Chains that need the gradient over all rows: what their samplers share.
//
// A round is one gradient of the mean loss at `q`, where the chain's path is, and what the sampler makes of it: it goes on
// along the path, or ends it, accepts or rejects, writes a draw, and sets out again. Every chain goes its own way: paths of
// different lengths end in different rounds, and none waits for another. A block of threads makes the round of a chain.
#pragma once

#include "elementary.cuh"
#include "network.cuh"
#include "philox.cuh"
#include "shim.cuh"
#include "sums.cuh"

namespace lambda_hat {

// Energy error beyond which a path has diverged, as on the CPU.
constexpr double DIVERGENT = 1000.0;
// Numbers of a draw.
constexpr int ROW = 6;

// Where a chain is between two rounds. All are doubles, so that the host has one array of numbers; counts stay below 2⁵³.
struct Flight {
    double iteration;  // iterations done
    double fge;        // gradients so far; 0 before the first one, at w*
    double fge_burn_in;
    double energy;     // U(w)
    double loss;       // L(w)
    double step;       // ε of the path
    double count;      // gradients that the path takes at most
    double taken;      // and those behind it
    double before;     // energy where the path began
    double kinetic;    // change of kinetic energy along it
    double threshold;  // it is accepted below that
    double acceptance; // sum since the last draw
    double error;      // the same of energy errors
    double diverged;   // whether a path since the last draw, or the last one, did (0 or 1)
    double wild;       // whether the gradient at w* is no number
    double unused;
};

// What rounds work on. Of a chain: `w` the state and `slope` = ∇U(w), `q` where its path is, `p` the momentum or direction.
template <typename T>
struct RoundArgs {
    unsigned key0;
    unsigned key1;
    unsigned purpose;
    unsigned first_chain;       // number of the launch's first chain
    unsigned long long total;   // iterations of a chain
    unsigned long long burn_in; // of them dropped
    unsigned long long thin;    // iterations of a draw
    const T* centre;            // dim
    const T* scale;             // dim: M⁻¹ of a Hamiltonian sampler, σ of a microcanonical one
    T* grad;                    // chains × dim: gradient of the mean loss at q; overwritten with ∇U(q)
    double* mean;               // chains: the mean loss at q
    T* w;                       // chains × dim
    T* slope;                   // chains × dim
    T* q;                       // chains × dim
    T* p;                       // chains × dim
    Flight* flight;             // chains
    unsigned* drawn;            // chains: draws in `rows`
    double* rows;               // as many as may be drawn × chains × ROW
    double step_size;
    double length;              // L, over which a direction is forgotten
    double nbeta;
    double gamma;
    double l0;                  // L0, which energies are measured from
    int dim;
    int chains;
    int steps;                  // mean number of steps of a path, or gradients of a microcanonical step
    int padding;
};

// How the threads of a block learn what thread 0 has decided; behind the sums.
struct Verdict {
    double keep;   // a direction becomes keep·u − onto·σ∇U, then of length 1
    double onto;
    double nu;     // noise of a refreshment
    int moves;     // the state becomes where the path is
    int begins;    // a path begins
    int turns;
    int refreshes; // what becomes of a direction
};

constexpr int SUMS = 3;

DEVICE Verdict& verdict_of(const Block& block) {
    return *reinterpret_cast<Verdict*>(sums_of(block) + SUMS * block.threads);
}
// What a round takes of shared memory.
constexpr unsigned round_bytes(unsigned threads) { return SUMS * threads * sizeof(double) + sizeof(Verdict); }

DEVICE bool is_finite(double x) { return x - x == 0.0; }
DEVICE bool has_diverged(double error) { return !is_finite(error) || error > DIVERGENT; }

template <typename T>
DEVICE Stream stream_of(const RoundArgs<T>& args, int chain, double iteration) {
    return Stream{{args.key0, args.key1}, args.purpose, args.first_chain + chain,
                  static_cast<unsigned long long>(iteration)};
}

template <typename T>
DEVICE bool is_done(const RoundArgs<T>& args, int chain) {
    return args.flight[chain].iteration >= static_cast<double>(args.total);
}

// One iteration more; whether a draw follows, which the caller completes.
template <typename T>
DEVICE bool goes_on(const RoundArgs<T>& args, Flight& flight) {
    flight.iteration += 1.0;
    const unsigned long long done = static_cast<unsigned long long>(flight.iteration);
    if (done == args.burn_in) flight.fge_burn_in = flight.fge;
    return done % args.thin == 0;
}

// Where the draw of a kept iteration is written to; null within the burn-in.
template <typename T>
DEVICE double* row_of(const RoundArgs<T>& args, int chain, const Flight& flight) {
    if (flight.iteration <= static_cast<double>(args.burn_in)) return nullptr;
    const size_t row = args.drawn[chain]++;
    return args.rows + (row * args.chains + chain) * ROW;
}

// `rounds` rounds of chain block.y in one launch, the gradient's segments one after the other; the sums, and so the bits,
// are those of one launch a segment. `net.w` is `args.q`.
template <typename T, typename Round>
DEVICE void make_rounds(const Block& block, const NetworkPlan& plan, const NetworkArgs<T>& net, const RoundArgs<T>& args,
                        int rounds, Round round) {
    const size_t chain = block.y;
    for (int made = 0; made < rounds; ++made) {
        if (is_done(args, block.y)) return;
        for (int s = 0; s < net.segments; ++s) {
            const Block part{s, block.y, block.threads, block.shared, block.backwards};
            NetworkPass<T, true, true>(part, plan, net).run();
        }
        FOR_THREADS(t, block) {
            for (int i = t; i < args.dim; i += block.threads) {
                args.grad[chain * args.dim + i] = sum_of_segments(net.grad, chain, net.segments, args.dim, i);
            }
            if (t == 0) {
                const double scale = 1.0 / (static_cast<double>(net.count) * plan.outputs);
                args.mean[chain] = sum_of_losses(net.loss, chain, net.segments) * scale;
            }
        }
        round(block, args);
    }
}

}  // namespace lambda_hat
