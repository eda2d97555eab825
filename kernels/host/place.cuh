// The program as a device: memory by address, launches by name. `src/device/gpu/host.rs` is the other end.
#pragma once

#include "launch.cuh"

namespace {

inline void allocate_bytes() {
    const size_t bytes = read_one<unsigned long long>();
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes) != 0) memory = nullptr;
    if (memory != nullptr) std::memset(memory, 0, bytes);
    write_many(std::vector<unsigned long long>{reinterpret_cast<unsigned long long>(memory)});
}

inline void* read_address() { return reinterpret_cast<void*>(read_one<unsigned long long>()); }

inline void write_memory() {
    void* to = read_address();
    const size_t bytes = read_one<unsigned long long>();
    read_bytes(to, bytes);
}

inline void read_memory() {
    const char* from = static_cast<const char*>(read_address());
    const size_t bytes = read_one<unsigned long long>();
    if (bytes != 0 && std::fwrite(from, 1, bytes, stdout) != bytes) stop("cannot write");
}

// One launch: grid, threads, shared memory, the kernel's name, its parameters as they are.
template <typename T>
void launch_kernel(bool backwards) {
    const int columns = read_one<unsigned long long>(), chains = read_one<unsigned long long>();
    const int threads = read_one<unsigned long long>(), bytes = read_one<unsigned long long>();
    char name[33] = {};
    read_bytes(name, 32);
    const std::string kernel = name;
    const auto run = [&](const std::function<void(Block&)>& body) {
        launch(columns, chains, threads, bytes, backwards, body);
    };
    if (kernel == "reduce") {
        const int dim = read_one<int>(), segments = read_one<int>();
        const double scale = read_one<double>();
        const T* grads = read_one<const T*>();
        const double* losses = read_one<const double*>();
        T* grad = read_one<T*>();
        double* loss = read_one<double*>();
        run([&](Block& block) { reduce<T>(block, dim, segments, scale, grads, losses, grad, loss); });
        return;
    }
    if (kernel == "hamiltonian_round" || kernel == "microcanonical_round") {
        const RoundArgs<T> args = read_one<RoundArgs<T>>();
        if (kernel == "hamiltonian_round") run([&](Block& block) { hamiltonian_round<T>(block, args); });
        else run([&](Block& block) { microcanonical_round<T>(block, args); });
        return;
    }
    const NetworkPlan plan = read_one<NetworkPlan>();
    if (kernel == "network_pack") {
        const T* w = read_one<const T*>();
        T* packed = read_one<T*>();
        run([&](Block& block) { pack_chain(block, plan, w, packed); });
        return;
    }
    const NetworkArgs<T> args = read_one<NetworkArgs<T>>();
    if (kernel == "network_gradient") run([&](Block& block) { NetworkPass<T, true, true>(block, plan, args).run(); });
    else if (kernel == "network_loss") run([&](Block& block) { NetworkPass<T, false, true>(block, plan, args).run(); });
    else if (kernel == "network_gradient_wide") run([&](Block& block) { NetworkPass<T, true, false>(block, plan, args).run(); });
    else if (kernel == "network_loss_wide") run([&](Block& block) { NetworkPass<T, false, false>(block, plan, args).run(); });
    else if (kernel.find("_steps") != std::string::npos) {
        const StepArgs<T> chains = read_one<StepArgs<T>>();
        T* packed = read_one<T*>();
        const int steps = read_one<int>();
        const auto made = [&](auto body) { run([&](Block& block) { body(block, plan, args, chains, packed, steps); }); };
        if (kernel == "sgld_steps") made(minibatch_steps<T, Sgld<T>, true>);
        else if (kernel == "sgld_steps_wide") made(minibatch_steps<T, Sgld<T>, false>);
        else if (kernel == "sghmc_steps") made(minibatch_steps<T, Sghmc<T>, true>);
        else if (kernel == "sghmc_steps_wide") made(minibatch_steps<T, Sghmc<T>, false>);
        else if (kernel == "sgnht_steps") made(minibatch_steps<T, Sgnht<T>, true>);
        else if (kernel == "sgnht_steps_wide") made(minibatch_steps<T, Sgnht<T>, false>);
        else stop("unknown kernel");
    } else if (kernel == "hamiltonian_rounds" || kernel == "microcanonical_rounds") {
        const RoundArgs<T> chains = read_one<RoundArgs<T>>();
        const int rounds = read_one<int>();
        const auto round = kernel == "hamiltonian_rounds" ? hamiltonian_round<T> : microcanonical_round<T>;
        run([&](Block& block) { make_rounds<T>(block, plan, args, chains, rounds, round); });
    } else {
        stop("unknown kernel");
    }
}

}  // namespace
