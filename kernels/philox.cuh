// Random numbers as a pure function of (id, purpose, chain, step): Philox 4×32 with 10 rounds (Salmon, Moraes, Dror &
// Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
//
// The 64-bit key is the first eight bytes of the stream's id, which is a hash itself. The 128-bit counter is
//   word 0: number of the block of four words within the step
//   word 1: step, low 32 bits
//   word 2: chain
//   word 3: purpose << 8 | step >> 32        (steps stay below 2^40, as on the CPU)
#pragma once

#include "shim.cuh"

namespace lambda_hat {

struct Words {
    unsigned v[4];
};

struct Stream {
    unsigned key[2];
    unsigned purpose;
    unsigned chain;
    unsigned long long step;
};

DEVICE unsigned high_word(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}

// The ten rounds.
DEVICE Words philox(Words counter, unsigned key0, unsigned key1) {
    UNROLL
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = high_word(0xD2511F53u, counter.v[0]), low0 = 0xD2511F53u * counter.v[0];
        const unsigned high1 = high_word(0xCD9E8D57u, counter.v[2]), low1 = 0xCD9E8D57u * counter.v[2];
        counter = Words{{high1 ^ counter.v[1] ^ key0, low1, high0 ^ counter.v[3] ^ key1, low0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// Block number `block` of a stream's step.
DEVICE Words words(const Stream& s, unsigned block) {
    const unsigned high = static_cast<unsigned>(s.step >> 32);
    return philox(Words{{block, static_cast<unsigned>(s.step), s.chain, s.purpose << 8 | high}}, s.key[0], s.key[1]);
}

// A uniform variate in (0, 1): the middle of one of 2^32 cells.
DEVICE float uniform(unsigned word) { return fused(static_cast<float>(word), 0x1p-32f, 0x1p-33f); }

// A uniform variate in (0, 1) with 53 random bits.
DEVICE double uniform(unsigned high, unsigned low) {
    const unsigned long long bits = static_cast<unsigned long long>(high) << 32 | low;
    return fused(static_cast<double>(bits >> 11), 0x1p-53, 0x1p-54);
}

// A uniform index below `n`, by multiplication and shift of 64 bits (Lemire 2019).
DEVICE unsigned index_below(unsigned high, unsigned low, unsigned n) {
    const unsigned long long carry = static_cast<unsigned long long>(low) * n >> 32;
    return static_cast<unsigned>((static_cast<unsigned long long>(high) * n + carry) >> 32);
}

// Two normals of two uniforms (Box & Muller 1958).
DEVICE void box_muller(float u, float v, float& a, float& b) {
    const float radius = sqrtf(-2.0f * logf(u));
#if defined(__CUDACC__)
    float sine, cosine;
    sincospif(2.0f * v, &sine, &cosine);
#else
    const float sine = sinf(6.2831853f * v), cosine = cosf(6.2831853f * v);
#endif
    a = radius * cosine;
    b = radius * sine;
}

DEVICE void box_muller(double u, double v, double& a, double& b) {
    const double radius = sqrt(-2.0 * log(u));
#if defined(__CUDACC__)
    double sine, cosine;
    sincospi(2.0 * v, &sine, &cosine);
#else
    const double sine = sin(6.283185307179586 * v), cosine = cos(6.283185307179586 * v);
#endif
    a = radius * cosine;
    b = radius * sine;
}

// Normals 4·group … 4·group + 3 of a stream's step, whose first block of words is `first`.
DEVICE Four<float> four_normals(const Stream& s, unsigned first, unsigned group, float) {
    const Words w = words(s, first + group);
    Four<float> z;
    box_muller(uniform(w.v[0]), uniform(w.v[1]), z.v[0], z.v[1]);
    box_muller(uniform(w.v[2]), uniform(w.v[3]), z.v[2], z.v[3]);
    return z;
}

DEVICE Four<double> four_normals(const Stream& s, unsigned first, unsigned group, double) {
    Four<double> z;
    UNROLL
    for (unsigned half = 0; half < 2; ++half) {
        const Words w = words(s, first + 2 * group + half);
        box_muller(uniform(w.v[0], w.v[1]), uniform(w.v[2], w.v[3]), z.v[2 * half], z.v[2 * half + 1]);
    }
    return z;
}

}  // namespace lambda_hat
