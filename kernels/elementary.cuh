// What happens to one number between two products: activations and losses, as the CPU defines them.
#pragma once

#include "shim.cuh"

namespace lambda_hat {

enum Activation : int { RELU = 0, TANH = 1, GELU = 2, IDENTITY = 3 };
enum Loss : int { MSE = 0, T_REGRESSION = 1 };

DEVICE float tanh_of(float x) { return tanhf(x); }
DEVICE double tanh_of(double x) { return tanh(x); }
DEVICE float erf_of(float x) { return erff(x); }
DEVICE double erf_of(double x) { return erf(x); }
DEVICE float exp_of(float x) { return expf(x); }
DEVICE double exp_of(double x) { return exp(x); }
DEVICE float root_of(float x) { return sqrtf(x); }
DEVICE double root_of(double x) { return sqrt(x); }
DEVICE float log1p_of(float x) { return log1pf(x); }
DEVICE double log1p_of(double x) { return log1p(x); }

// φ(z) and φ'(z). A comparison that NaN fails keeps NaN.
template <typename T>
DEVICE T activate(int activation, T z, T& slope) {
    if (activation == RELU) {
        slope = z > T(0) ? T(1) : T(0);
        return z < T(0) ? T(0) : z;
    }
    if (activation == TANH) {
        const T t = tanh_of(z);
        slope = T(1) - t * t;
        return t;
    }
    if (activation == GELU) {
        const T cdf = T(0.5) + T(0.5) * erf_of(z * T(0.7071067811865476));
        slope = cdf + z * (T(0.3989422804014327) * exp_of(T(-0.5) * z * z));
        return z * cdf;
    }
    slope = T(1);
    return z;
}

// delta·φ', with φ' told from the output a = φ(z), where it can be.
template <typename T>
DEVICE T through(int activation, T delta, T a) {
    if (activation == RELU) return a > T(0) ? delta : T(0);
    if (activation == TANH) return delta * (T(1) - a * a);
    return delta;
}

// The loss of a residual and its derivative. `half` is ½(ν + 1) and `width` νs² for t-regression.
template <typename T>
DEVICE T loss_of(int loss, T half, T width, T r, T& slope) {
    if (loss == MSE) {
        slope = r + r;
        return r * r;
    }
    slope = (half + half) * r / (width + r * r);
    return half * log1p_of(r * r / width);
}

}  // namespace lambda_hat
