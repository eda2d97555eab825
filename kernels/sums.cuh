// Sums over the numbers of a chain, by a block of threads.
#pragma once

#include "shim.cuh"

namespace lambda_hat {

// Where the threads' sums are, at the beginning of the block's shared memory.
DEVICE double* sums_of(const Block& block) { return reinterpret_cast<double*>(block.shared); }

// Adds up what every thread has left in sums[k·threads + t], by halving, into sums[k·threads].
template <int Count>
DEVICE void add_up(const Block& block) {
    double* sums = sums_of(block);
    for (int half = block.threads / 2; half > 0; half /= 2) {
        FOR_THREADS(t, block) {
            if (t < half) {
                UNROLL
                for (int k = 0; k < Count; ++k) sums[k * block.threads + t] += sums[k * block.threads + t + half];
            }
        }
    }
}

}  // namespace lambda_hat
