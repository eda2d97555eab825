// Reading requests, writing answers, running a grid block by block.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../hamiltonian.cuh"
#include "../microcanonical.cuh"
#include "../network.cuh"
#include "../persistent.cuh"
#include "../steps.cuh"

using namespace lambda_hat;

namespace {

[[noreturn]] inline void stop(const char* why) {
    std::fprintf(stderr, "%s\n", why);
    std::exit(2);
}

inline void read_bytes(void* to, size_t bytes) {
    if (bytes != 0 && std::fread(to, 1, bytes, stdin) != bytes) stop("the request ends early");
}

template <typename V>
V read_one() {
    V value;
    read_bytes(&value, sizeof value);
    return value;
}

template <typename V>
std::vector<V> read_many(size_t count) {
    std::vector<V> values(count);
    read_bytes(values.data(), count * sizeof(V));
    return values;
}

template <typename V>
void write_many(const std::vector<V>& values) {
    if (!values.empty() && std::fwrite(values.data(), sizeof(V), values.size(), stdout) != values.size()) stop("cannot write");
}

// Runs `kernel` for every block of a grid. A negative number of bytes is no shared memory at all.
inline void launch(int columns, int chains, int threads, int bytes, bool backwards,
                   const std::function<void(Block&)>& kernel) {
    for (int y = 0; y < chains; ++y) {
        for (int x = 0; x < columns; ++x) {
            std::unique_ptr<char, void (*)(void*)> shared(nullptr, std::free);
            if (bytes > 0) {
                void* memory = nullptr;
                if (posix_memalign(&memory, 16, bytes) != 0) stop("out of memory");
                std::memset(memory, 0xFF, bytes);
                shared.reset(static_cast<char*>(memory));
            }
            Block block{x, y, threads, shared.get(), backwards};
            kernel(block);
        }
    }
}

}  // namespace
