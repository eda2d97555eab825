// Many sampler steps in one launch: a block of threads is a chain, its parameters never leave the device.
#pragma once

#include "network.cuh"
#include "steps.cuh"

namespace lambda_hat {

// `steps` steps of chain block.y. The minibatch is one segment: plan.segment is at least args.batch. `net.rows` is
// `args.rows`, `net.w` is `args.w`, and `net.loss` holds each chain's last minibatch's mean loss in the end. Where weights
// are not in shared memory, the block packs its chain's into `packed`, which is `net.packed`.
template <typename T, typename Sampler, bool Shared>
DEVICE void minibatch_steps(const Block& block, const NetworkPlan& plan, const NetworkArgs<T>& net,
                            const StepArgs<T>& args, T* packed, int steps) {
    const int chain = block.y;
    for (int step = 0; step < steps; ++step) {
        FOR_THREADS(t, block) { draw_rows(t, plan.threads, args, chain, step); }
        Sampler::ahead(block, args, chain, step);
        if (!Shared) pack_chain(block, plan, net.w, packed);
        NetworkPass<T, true, Shared> pass(block, plan, net);
        pass.run();
        FOR_THREADS(t, block) {
            Sampler::update(t, plan.threads, args, chain, step, static_cast<const T*>(pass.grad));
        }
    }
    FOR_THREADS(t, block) {
        if (t == 0) net.loss[chain] /= static_cast<double>(net.count) * plan.outputs;
    }
}

}  // namespace lambda_hat
