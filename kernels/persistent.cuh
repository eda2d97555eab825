// Many sampler steps in one launch: a block of threads is a chain, its parameters never leave the device.
#pragma once

#include "network.cuh"
#include "steps.cuh"

namespace lambda_hat {

// `steps` SGLD steps of chain block.y. The minibatch is one segment: plan.segment is at least sgld.batch. `net.rows` is
// `sgld.rows`, `net.w` is `sgld.w`, and `net.loss` holds each chain's last minibatch's mean loss in the end.
template <typename T>
DEVICE void sgld_steps(const Block& block, const NetworkPlan& plan, const NetworkArgs<T>& net, const SgldArgs<T>& sgld,
                       int steps) {
    const int chain = block.y;
    for (int step = 0; step < steps; ++step) {
        FOR_THREADS(t, block) {
            draw_rows(t, plan.threads, sgld, chain, step);
            if (t == 0) sgld_powers(sgld, chain, step);
        }
        NetworkPass<T, true, true> pass(block, plan, net);
        pass.run();
        FOR_THREADS(t, block) {
            sgld_update(t, plan.threads, sgld, chain, step, static_cast<const T*>(pass.grad));
        }
    }
    FOR_THREADS(t, block) {
        if (t == 0) net.loss[chain] /= static_cast<double>(net.count) * plan.outputs;
    }
}

}  // namespace lambda_hat
