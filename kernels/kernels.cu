// Entry points on the device. Every kernel is a name with its type at the end: network_gradient_f32.
//
// Grids: x runs over segments or parameters, y over chains. Structures come by value, as kernel parameters.
#include "hamiltonian.cuh"
#include "microcanonical.cuh"
#include "network.cuh"
#include "persistent.cuh"
#include "steps.cuh"

using namespace lambda_hat;

namespace {

// The structures that kernels take by value must fit the 4 KiB that all devices allow.
static_assert(sizeof(NetworkPlan) + sizeof(NetworkArgs<double>) + sizeof(StepArgs<double>) < 4000, "too many parameters");
static_assert(sizeof(NetworkPlan) + sizeof(NetworkArgs<double>) + sizeof(RoundArgs<double>) < 4000, "too many parameters");

extern __shared__ __align__(16) char dynamic_shared[];

__device__ __forceinline__ Block here() {
    return Block{static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockDim.x), dynamic_shared,
                 false};
}

}  // namespace

// Two blocks a multiprocessor where shared memory allows: 128 registers a thread of 256.
#define NETWORK_KERNEL(NAME, T, GRADIENT, SHARED)                                                          \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                   \
        NAME(const __grid_constant__ NetworkPlan plan, const __grid_constant__ NetworkArgs<T> args) {      \
        const Block block = here();                                                                        \
        NetworkPass<T, GRADIENT, SHARED>(block, plan, args).run();                                         \
    }

#define STEP_KERNEL(NAME, SAMPLER, T, SHARED)                                                                          \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                               \
        NAME(const __grid_constant__ NetworkPlan plan, const __grid_constant__ NetworkArgs<T> net,                     \
             const __grid_constant__ StepArgs<T> args, T* packed, int steps) {                                         \
        minibatch_steps<T, SAMPLER<T>, SHARED>(here(), plan, net, args, packed, steps);                                \
    }

// One round, and many of them. Four blocks a multiprocessor leave the former 64 registers a thread: enough, where the
// compiler left to itself takes fewer and spills.
#define ROUND_KERNELS(NAME, SUFFIX, T)                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 4)                                                               \
        NAME##_round_##SUFFIX(const __grid_constant__ RoundArgs<T> args) {                                             \
        NAME##_round(here(), args);                                                                                    \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                               \
        NAME##_rounds_##SUFFIX(const __grid_constant__ NetworkPlan plan, const __grid_constant__ NetworkArgs<T> net,   \
                               const __grid_constant__ RoundArgs<T> args, int rounds) {                                \
        make_rounds(here(), plan, net, args, rounds,                                                                   \
                    [](const Block& block, const RoundArgs<T>& args) { NAME##_round(block, args); });                  \
    }

#define KERNELS(SUFFIX, T)                                                                                             \
    NETWORK_KERNEL(network_gradient_##SUFFIX, T, true, true)                                                           \
    NETWORK_KERNEL(network_loss_##SUFFIX, T, false, true)                                                              \
    NETWORK_KERNEL(network_gradient_wide_##SUFFIX, T, true, false)                                                     \
    NETWORK_KERNEL(network_loss_wide_##SUFFIX, T, false, false)                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        network_pack_##SUFFIX(const __grid_constant__ NetworkPlan plan, const T* w, T* packed) {                       \
        pack_chain(here(), plan, w, packed);                                                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        reduce_##SUFFIX(int dim, int segments, double scale, const T* grads, const double* losses, T* grad,            \
                        double* loss) {                                                                                \
        reduce(here(), dim, segments, scale, grads, losses, grad, loss);                                               \
    }                                                                                                                  \
    STEP_KERNEL(sgld_steps_##SUFFIX, Sgld, T, true)                                                                    \
    STEP_KERNEL(sgld_steps_wide_##SUFFIX, Sgld, T, false)                                                              \
    STEP_KERNEL(sghmc_steps_##SUFFIX, Sghmc, T, true)                                                                  \
    STEP_KERNEL(sghmc_steps_wide_##SUFFIX, Sghmc, T, false)                                                            \
    STEP_KERNEL(sgnht_steps_##SUFFIX, Sgnht, T, true)                                                                  \
    STEP_KERNEL(sgnht_steps_wide_##SUFFIX, Sgnht, T, false)                                                            \
    ROUND_KERNELS(hamiltonian, SUFFIX, T)                                                                              \
    ROUND_KERNELS(microcanonical, SUFFIX, T)

KERNELS(f32, float)
KERNELS(f64, double)
