// What lets one source be a CUDA kernel and plain C++.
//
// A kernel is a function of a Block, written in phases: FOR_THREADS(t, block) { … } is what every thread does, and a
// barrier at its end. On the device the body runs once, for the thread at hand; on the host it is a loop over all threads
// of the block, in either direction. Nothing in registers lives from one phase to the next: what must is in shared or
// global memory. So the host needs no fibres, no barrier can be forgotten, and threads that would race within a phase
// show as other bits when the loop runs the other way. A body is left at its end or by `continue`, never otherwise.
#pragma once

#if defined(__CUDACC__)
#define DEVICE __device__ __forceinline__
#define FOR_THREADS(t, block) for (int t = threadIdx.x, once_ = 1; once_ != 0; once_ = 0, __syncthreads())
#define UNROLL _Pragma("unroll")
#else
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstring>
#define DEVICE inline
#define FOR_THREADS(t, block)                        \
    for (int i_ = 0; i_ < (block).threads; ++i_)     \
        for (int t = (block).thread(i_), once_ = 1; once_ != 0; once_ = 0)
#define UNROLL
#endif

namespace lambda_hat {

// Where a block stands in its grid, and the shared memory that it was given.
struct Block {
    int x;
    int y;
    int threads;
    char* shared;
    bool backwards;

    DEVICE int thread(int i) const { return backwards ? threads - 1 - i : i; }
};

// Four neighbouring numbers, read and written at once. The address is a multiple of 16 bytes.
template <typename T>
struct alignas(16) Four {
    T v[4];
};

template <typename T>
DEVICE Four<T> load_four(const T* from) {
#if defined(__CUDACC__)
    return *reinterpret_cast<const Four<T>*>(from);
#else
    assert(reinterpret_cast<std::uintptr_t>(from) % 16 == 0);
    Four<T> four;
    std::memcpy(&four, from, sizeof four);
    return four;
#endif
}

template <typename T>
DEVICE void store_four(T* to, const Four<T>& four) {
#if defined(__CUDACC__)
    *reinterpret_cast<Four<T>*>(to) = four;
#else
    assert(reinterpret_cast<std::uintptr_t>(to) % 16 == 0);
    std::memcpy(to, &four, sizeof four);
#endif
}

DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }

DEVICE int at_least(int a, int b) { return a > b ? a : b; }
DEVICE int at_most(int a, int b) { return a < b ? a : b; }
DEVICE int divide_up(int a, int b) { return (a + b - 1) / b; }
DEVICE int up_to_four(int a) { return (a + 3) / 4 * 4; }

}  // namespace lambda_hat
