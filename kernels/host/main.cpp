// The kernels as an ordinary program: reads requests from standard input, runs each as a launch would, block by block,
// and writes the answers to standard output. All numbers are in this machine's byte order.
//
// A request is the name of an operation (16 bytes, padded with zeros), the word width in bytes (4 or 8), whether threads
// run backwards, and what the operation asks for. Shared memory is a fresh allocation of exactly the planned size for
// each block, filled with NaN: a sanitizer sees what goes beyond it, a comparison what was never written.
#include "place.cuh"

namespace {

// Loss and gradient of a batch of chains over all rows or chosen ones.
template <typename T>
void network(bool backwards) {
    const NetworkPlan plan = read_one<NetworkPlan>();
    const int chains = read_one<int>(), rows = read_one<int>(), count = read_one<int>();
    const bool chosen = read_one<int>() != 0, gradient = read_one<int>() != 0;
    const std::vector<T> x = read_many<T>(static_cast<size_t>(rows) * plan.inputs);
    const std::vector<T> y = read_many<T>(static_cast<size_t>(rows) * plan.outputs);
    const std::vector<T> w = read_many<T>(static_cast<size_t>(chains) * plan.dim);
    const std::vector<unsigned> list = read_many<unsigned>(chosen ? static_cast<size_t>(chains) * count : 0);

    const int segments = divide_up(count, plan.segment);
    const T wild = T(NAN);
    std::vector<T> packed(plan.weights_shared != 0 ? 0 : static_cast<size_t>(chains) * plan.packed_len + 4, wild);
    // Vectors begin at a multiple of 16 bytes on every machine that we know; the products assert it.
    if (plan.weights_shared == 0) {
        launch(1, chains, plan.threads, 0, backwards,
               [&](Block& block) { pack_chain(block, plan, w.data(), packed.data()); });
    }
    std::vector<T> grads(gradient ? static_cast<size_t>(chains) * segments * plan.dim : 0, wild);
    std::vector<double> losses(static_cast<size_t>(chains) * segments, NAN);
    const NetworkArgs<T> args{x.data(), y.data(), w.data(), packed.data(), chosen ? list.data() : nullptr,
                              count, segments, grads.data(), losses.data()};
    launch(segments, chains, plan.threads, plan.shared_bytes, backwards, [&](Block& block) {
        if (plan.weights_shared != 0) {
            if (gradient) NetworkPass<T, true, true>(block, plan, args).run();
            else NetworkPass<T, false, true>(block, plan, args).run();
        } else {
            if (gradient) NetworkPass<T, true, false>(block, plan, args).run();
            else NetworkPass<T, false, false>(block, plan, args).run();
        }
    });
    std::vector<T> grad(gradient ? static_cast<size_t>(chains) * plan.dim : 0, wild);
    std::vector<double> loss(chains, NAN);
    const double scale = 1.0 / (static_cast<double>(count) * plan.outputs);
    launch(divide_up(plan.dim, plan.threads), chains, plan.threads, 0, backwards, [&](Block& block) {
        reduce<T>(block, plan.dim, segments, scale, gradient ? grads.data() : nullptr, losses.data(), grad.data(),
                  loss.data());
    });
    write_many(loss);
    write_many(grad);
}

// Chains of a sampler on minibatches from w*, many steps a launch.
template <typename T>
void steps(bool backwards) {
    const NetworkPlan plan = read_one<NetworkPlan>();
    const int sampler = read_one<int>(), chains = read_one<int>(), rows = read_one<int>();
    const int launches = read_one<int>(), count = read_one<int>();
    StepArgs<T> args = read_one<StepArgs<T>>();
    const std::vector<T> x = read_many<T>(static_cast<size_t>(rows) * plan.inputs);
    const std::vector<T> y = read_many<T>(static_cast<size_t>(rows) * plan.outputs);
    const std::vector<T> centre = read_many<T>(plan.dim), begins = read_many<T>(plan.dim);
    const std::vector<double> number = read_many<double>(2);
    if (args.batch > plan.segment || plan.weights_shared == 0) stop("this plan is not for a minibatch in one block");

    const size_t all = static_cast<size_t>(chains) * plan.dim;
    std::vector<T> w, second, grad(all, T(NAN)), first(all, T(0));
    std::vector<double> numbers, loss(chains, NAN);
    for (int c = 0; c < chains; ++c) {
        w.insert(w.end(), centre.begin(), centre.end());
        second.insert(second.end(), begins.begin(), begins.end());
        numbers.insert(numbers.end(), number.begin(), number.end());
    }
    std::vector<unsigned> list(static_cast<size_t>(chains) * args.batch, 0);
    args.centre = centre.data();
    args.w = w.data();
    args.first = first.data();
    args.second = second.data();
    args.numbers = numbers.data();
    args.rows = list.data();
    const NetworkArgs<T> net{x.data(), y.data(), w.data(), nullptr, list.data(), args.batch, 1, grad.data(), loss.data()};
    for (int l = 0; l < launches; ++l) {
        launch(1, chains, plan.threads, plan.shared_bytes, backwards, [&](Block& block) {
            if (sampler == 0) minibatch_steps<T, Sgld<T>, true>(block, plan, net, args, nullptr, count);
            else if (sampler == 1) minibatch_steps<T, Sghmc<T>, true>(block, plan, net, args, nullptr, count);
            else minibatch_steps<T, Sgnht<T>, true>(block, plan, net, args, nullptr, count);
        });
        args.step += count;
        args.frozen_from -= count;
    }
    write_many(w);
    write_many(loss);
}

// Bytes of the structures that callers put together themselves.
template <typename T>
void sizes() {
    write_many(std::vector<unsigned>{sizeof(NetworkPlan), sizeof(NetworkArgs<T>), sizeof(StepArgs<T>), sizeof(RoundArgs<T>),
                                     sizeof(Flight), round_bytes(64)});
}

// Words of Philox for counters and keys as they come.
void raw_words() {
    const int count = read_one<int>();
    for (int i = 0; i < count; ++i) {
        const Words counter = read_one<Words>();
        const unsigned key0 = read_one<unsigned>(), key1 = read_one<unsigned>();
        const Words out = philox(counter, key0, key1);
        write_many(std::vector<unsigned>(out.v, out.v + 4));
    }
}

// Normals of a stream's step.
template <typename T>
void normals() {
    Stream stream{};
    stream.key[0] = read_one<unsigned>();
    stream.key[1] = read_one<unsigned>();
    stream.purpose = read_one<unsigned>();
    stream.chain = read_one<unsigned>();
    stream.step = read_one<unsigned long long>();
    const unsigned first = read_one<unsigned>();
    const int count = read_one<int>();
    std::vector<T> values;
    for (int group = 0; 4 * group < count; ++group) {
        const Four<T> four = four_normals(stream, first, group, T(0));
        values.insert(values.end(), four.v, four.v + 4);
    }
    values.resize(count);
    write_many(values);
}

template <typename T>
void answer(const std::string& name, bool backwards) {
    if (name == "network") network<T>(backwards);
    else if (name == "steps") steps<T>(backwards);
    else if (name == "sizes") sizes<T>();
    else if (name == "words") raw_words();
    else if (name == "normals") normals<T>();
    else if (name == "allocate") allocate_bytes();
    else if (name == "free") std::free(read_address());
    else if (name == "write") write_memory();
    else if (name == "read") read_memory();
    else if (name == "launch") launch_kernel<T>(backwards);
    else stop("unknown operation");
}

}  // namespace

int main() {
    char name[17] = {};
    while (std::fread(name, 1, 16, stdin) == 16) {
        const int width = read_one<int>();
        const bool backwards = read_one<int>() != 0;
        if (width == 4) answer<float>(name, backwards);
        else if (width == 8) answer<double>(name, backwards);
        else stop("numbers have four or eight bytes");
        std::fflush(stdout);
    }
    return 0;
}
