// Microcanonical chains without accept/reject: isokinetic steps whose direction u is partly forgotten after each (Ver Steeg
// & Galstyan 2021; Robnik, De Luca, Silverstein & Seljak 2023, eq. 8–11; Robnik & Seljak 2023).
//
// In coordinates scaled by σ: ẇ = σu, u̇ = −(1 − uuᵀ)·σ∇U/(d − 1), composed as kick, drift, kick, …, kick. A step takes
// `steps` gradients, one or two. An iteration's random words: first those of a fresh direction, then those of the
// refreshment.
#pragma once

#include "rounds.cuh"

namespace lambda_hat {

// Kicks at the ends of a step of two gradients (McLachlan 1995, table 2).
constexpr double MCLACHLAN_KICK = 0.1931833275037836;
// Steps of so many L leave nothing of a direction.
constexpr double FORGOTTEN = 30.0;
constexpr double LN_2 = 0.6931471805599453;

// What becomes of a direction after a step; `ANEW`: it is the next step's own.
enum Refreshment : int { KEPT = 0, PARTLY = 1, WHOLLY = 2, ANEW = 3 };

// Share of a step that kick number `kick` of it takes.
DEVICE double kick_share(int gradients, double kick) {
    if (gradients == 1) return 0.5;
    return kick == 1.0 ? 1.0 - 2.0 * MCLACHLAN_KICK : MCLACHLAN_KICK;
}

// Blocks of random words of one direction's normals.
template <typename T>
DEVICE unsigned direction_blocks(int dim) {
    const unsigned groups = static_cast<unsigned>(divide_up(dim, 4));
    return sizeof(T) == 4 ? groups : 2 * groups;
}

// The exact turn of u toward −σ∇U over a path of that length: `square` is |σ∇U|², `along` u·σ∇U. The change of kinetic
// energy is (d − 1)·ln of what the momentum's length would have grown by.
DEVICE void plan_turn(Flight& flight, Verdict& verdict, int dim, double square, double along, double length) {
    const double norm = sqrt(square);
    verdict.turns = norm == 0.0 ? 0 : 1;
    if (norm == 0.0) return;
    const double dims = static_cast<double>(dim - 1);
    const double cosine = -along / norm, delta = length * norm / dims, zeta = exp(-delta);
    verdict.onto = (1.0 - zeta) * (1.0 + zeta + cosine * (1.0 - zeta)) / norm;
    verdict.keep = 2.0 * zeta;
    flight.kinetic += dims * (delta - LN_2 + log(1.0 + cosine + (1.0 - cosine) * zeta * zeta));
}

// What makes u of length 1, `square` being |u|².
template <typename T>
DEVICE T shrink_to_one(double square) { return T(1.0 / sqrt(square)); }

// u ← (keep·u − onto·σ∇U)/|·|, if the verdict says so, with ∇U of `slope`; `then` is done with each number of it.
template <typename T, typename Then>
DEVICE void turn(const Block& block, const RoundArgs<T>& args, const T* slope, Then then) {
    double* sums = sums_of(block);
    const size_t at = static_cast<size_t>(block.y) * args.dim;
    FOR_THREADS(t, block) {
        const Verdict& verdict = verdict_of(block);
        double square = 0.0;
        for (int i = t; verdict.turns != 0 && i < args.dim; i += block.threads) {
            const double force = static_cast<double>(slope[at + i]) * static_cast<double>(args.scale[i]);
            const double turned = verdict.keep * static_cast<double>(args.p[at + i]) - verdict.onto * force;
            square += turned * turned;
            args.p[at + i] = T(turned);
        }
        sums[t] = square;
    }
    add_up<1>(block);
    FOR_THREADS(t, block) {
        const bool turns = verdict_of(block).turns != 0;
        const T shrink = turns ? shrink_to_one<T>(sums[0]) : T(1);
        for (int i = t; i < args.dim; i += block.threads) {
            const T u = args.p[at + i] * shrink;
            args.p[at + i] = u;
            then(i, u);
        }
    }
}

// u ← (u + νz)/|·|, or z/|·| where all of it is forgotten, with the normals of the step behind or, `ANEW`, of the next.
template <typename T>
DEVICE void forget(const Block& block, const RoundArgs<T>& args, int refreshes) {
    const double iteration = args.flight[block.y].iteration - (refreshes == ANEW ? 0.0 : 1.0);
    const unsigned first = refreshes == ANEW ? 0 : direction_blocks<T>(args.dim);
    double* sums = sums_of(block);
    const size_t at = static_cast<size_t>(block.y) * args.dim;
    FOR_THREADS(t, block) {
        const Stream stream = stream_of(args, block.y, iteration);
        const T nu = T(verdict_of(block).nu);
        double square = 0.0;
        for (int group = t; 4 * group < args.dim; group += block.threads) {
            const Four<T> z = four_normals(stream, first, group, T(0));
            UNROLL
            for (int k = 0; k < 4; ++k) {
                const int i = 4 * group + k;
                if (i >= args.dim) continue;
                const T u = refreshes == PARTLY ? args.p[at + i] + nu * z.v[k] : z.v[k];
                square += static_cast<double>(u) * static_cast<double>(u);
                args.p[at + i] = u;
            }
        }
        sums[t] = square;
    }
    add_up<1>(block);
    FOR_THREADS(t, block) {
        const T shrink = shrink_to_one<T>(sums[0]);
        for (int i = t; i < args.dim; i += block.threads) args.p[at + i] *= shrink;
    }
}

// Thread 0's: what the gradient at q means for the step, `away` being |q − w*|².
template <typename T>
DEVICE void end_of_drift(const RoundArgs<T>& args, int chain, double away, double square, double along, Verdict& verdict) {
    Flight& flight = args.flight[chain];
    const double loss = args.mean[chain];
    const double potential = args.nbeta * (loss - args.l0) + 0.5 * args.gamma * away;
    verdict.begins = verdict.moves = verdict.turns = 0;
    verdict.refreshes = KEPT;
    flight.fge += 1.0;
    if (flight.fge == 1.0) {
        // At w*, before the first step: there u = 0, so that u·σ∇U is a number where the gradient is one.
        flight.wild = is_finite(along) ? 0.0 : 1.0;
        verdict.moves = verdict.begins = 1;
        verdict.refreshes = ANEW;
    } else {
        flight.taken += 1.0;
        double error = static_cast<double>(INFINITY);
        if (is_finite(potential)) {
            plan_turn(flight, verdict, args.dim, square, along, kick_share(args.steps, flight.taken) * flight.step);
            if (flight.taken < flight.count) return;
            error = flight.kinetic + potential - flight.before;
        }
        const bool diverged = has_diverged(error < 0.0 ? -error : error);
        flight.diverged = diverged ? 1.0 : 0.0;
        flight.error += error;
        verdict.moves = diverged ? 0 : 1;
        verdict.begins = flight.iteration + 1.0 < static_cast<double>(args.total) ? 1 : 0;
        if (!diverged) verdict.refreshes = flight.step > FORGOTTEN * args.length ? WHOLLY : PARTLY;
        else if (verdict.begins != 0) verdict.refreshes = ANEW;
    }
    if (verdict.moves != 0) {
        flight.energy = potential;
        flight.loss = loss;
    }
    if (flight.fge > 1.0 && goes_on(args, flight)) {
        double* row = row_of(args, chain, flight);
        if (row != nullptr) {
            row[0] = flight.loss;
            row[1] = flight.error;
            row[2] = has_diverged(flight.error < 0.0 ? -flight.error : flight.error) ? 1.0 : 0.0;
            row[3] = flight.fge;
            row[4] = row[5] = 0.0;
        }
        flight.error = 0.0;
    }
    flight.step = args.step_size;
    flight.count = args.steps;
}

// The round of chain block.y: a kick with the gradient at q; at the step's end the direction is refreshed, or where the
// step was taken back drawn anew, and the next step's first kick made; then the drift to the next q.
template <typename T>
DEVICE void microcanonical_round(const Block& block, const RoundArgs<T>& args) {
    if (is_done(args, block.y)) return;
    double* sums = sums_of(block);
    Verdict& verdict = verdict_of(block);
    const size_t at = static_cast<size_t>(block.y) * args.dim;
    FOR_THREADS(t, block) {
        const T nbeta = T(args.nbeta), gamma = T(args.gamma);
        double away = 0.0, square = 0.0, along = 0.0;
        for (int i = t; i < args.dim; i += block.threads) {
            const T q = args.q[at + i], c = args.centre[i];
            const T slope = nbeta * args.grad[at + i] + gamma * (q - c);
            const double off = static_cast<double>(q) - static_cast<double>(c);
            const double force = static_cast<double>(slope) * static_cast<double>(args.scale[i]);
            away += off * off;
            square += force * force;
            along += force * static_cast<double>(args.p[at + i]);
            args.grad[at + i] = slope;
        }
        sums[t] = away;
        sums[block.threads + t] = square;
        sums[2 * block.threads + t] = along;
    }
    add_up<3>(block);
    FOR_THREADS(t, block) {
        if (t == 0) {
            end_of_drift(args, block.y, sums[0], sums[block.threads], sums[2 * block.threads], verdict);
            const double forgets = expm1(2.0 * args.step_size / args.length) / static_cast<double>(args.dim);
            verdict.nu = sqrt(forgets);
        }
    }
    const T drift = T(args.step_size / args.steps);
    const bool begins = verdict.begins != 0, moves = verdict.moves != 0, on_its_way = !begins && !is_done(args, block.y);
    const int refreshes = verdict.refreshes;
    // Of a step on its way, the drift follows the kick.
    turn(block, args, args.grad, [&](int i, T u) {
        if (on_its_way) args.q[at + i] += drift * args.scale[i] * u;
        if (moves) {
            args.w[at + i] = args.q[at + i];
            args.slope[at + i] = args.grad[at + i];
        }
    });
    if (refreshes != KEPT) forget(block, args, refreshes);
    if (!begins) return;
    FOR_THREADS(t, block) {
        double square = 0.0, along = 0.0;
        for (int i = t; i < args.dim; i += block.threads) {
            const double force = static_cast<double>(args.slope[at + i]) * static_cast<double>(args.scale[i]);
            square += force * force;
            along += force * static_cast<double>(args.p[at + i]);
        }
        sums[t] = square;
        sums[block.threads + t] = along;
    }
    add_up<2>(block);
    FOR_THREADS(t, block) {
        if (t == 0) {
            Flight& flight = args.flight[block.y];
            flight.taken = 0.0;
            flight.kinetic = 0.0;
            flight.before = flight.energy;
            plan_turn(flight, verdict, args.dim, sums[0], sums[block.threads], kick_share(args.steps, 0.0) * flight.step);
        }
    }
    turn(block, args, args.slope, [&](int i, T u) { args.q[at + i] = args.w[at + i] + drift * args.scale[i] * u; });
}

}  // namespace lambda_hat
