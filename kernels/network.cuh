// The network pass of one block of threads: mean loss and gradient of one chain's network over one segment of rows.
//
// The packed weights and the activations of a tile of rows stand in shared memory. Going back, the gradient with respect
// to a layer's pre-activations takes the place of its activations, which nobody needs any more. A segment's gradient is
// summed in global memory, each number by one thread, tile after tile; segments are summed by `reduce`. How rows fall
// into segments depends on their number alone, never on how many chains run: a chain's bits do not depend on others.
#pragma once

#include "elementary.cuh"
#include "plan.cuh"
#include "product.cuh"
#include "shim.cuh"

namespace lambda_hat {

constexpr double NORM_EPSILON = 1e-5;

// What one launch works on.
template <typename T>
struct NetworkArgs {
    const T* x;            // n × inputs, row-major
    const T* y;            // n × outputs, row-major
    const T* w;            // chains × dim
    const T* packed;       // chains × packed_len, where the weights are not in shared memory
    const unsigned* rows;  // chains × count row numbers, or null for rows 0 … count - 1
    int count;             // rows that the mean is over
    int segments;
    T* grad;               // chains × segments × dim: sums over a segment's rows, already divided by the count
    double* loss;          // chains × segments: sums of losses, not divided
};

// Lays out one chain's weights as the products read them; everything above the true sizes becomes 0.
template <typename T>
DEVICE void pack(int t, int threads, const NetworkPlan& plan, const T* w, T* packed) {
    for (int l = 0; l < plan.layers; ++l) {
        const LayerPlan& layer = plan.layer[l];
        const int k = layer.inputs, m = layer.outputs, ldw = layer.packed_ld;
        for (int i = t; i < m * ldw; i += threads) {
            const int o = i / ldw, c = i % ldw;
            packed[layer.packed + i] = c < k ? w[layer.weight + o * k + c] : T(0);
        }
        const int padded = up_to_four(m);
        for (int i = t; i < padded; i += threads) {
            T* to = packed + layer.vectors + i;
            to[0] = layer.bias >= 0 && i < m ? w[layer.bias + i] : T(0);
            to[padded] = layer.norm >= 0 && i < m ? w[layer.norm + i] : T(0);
            to[2 * padded] = layer.norm >= 0 && i < m ? w[layer.norm + m + i] : T(0);
        }
    }
}

// The pass; `Shared` says where the weights are, so that the compiler knows the address space.
template <typename T, bool Gradient, bool Shared>
struct NetworkPass {
    const Block& block;
    const NetworkPlan& plan;
    const NetworkArgs<T>& args;
    T* shared;
    const T* weights;
    double* losses;
    T* grad;

    DEVICE NetworkPass(const Block& block, const NetworkPlan& plan, const NetworkArgs<T>& args)
        : block(block), plan(plan), args(args), shared(reinterpret_cast<T*>(block.shared)),
          weights(Shared ? shared + plan.weights : args.packed + static_cast<size_t>(block.y) * plan.packed_len),
          losses(reinterpret_cast<double*>(block.shared + plan.losses)),
          grad(args.grad + (static_cast<size_t>(block.y) * args.segments + block.x) * plan.dim) {}

    DEVICE const T* activations(int index) const {
        return shared + (index == 0 ? plan.input : plan.layer[index - 1].output);
    }

    // Rows of the tile that begins at place `begin` of the segment's list, feature-major; 0 beyond the last.
    DEVICE void load_rows(int begin, int used) const {
        const int rows = 1 << plan.tile_log, padded = up_to_four(plan.inputs);
        FOR_THREADS(t, block) {
            for (int i = t; i < rows * padded; i += plan.threads) {
                const int r = i / padded, f = i % padded;
                T value = T(0);
                if (r < used && f < plan.inputs) {
                    value = args.x[static_cast<size_t>(row_of(begin + r)) * plan.inputs + f];
                }
                shared[plan.input + f * plan.ld + r] = value;
            }
        }
    }

    DEVICE unsigned row_of(int place) const {
        return args.rows == nullptr ? place : args.rows[static_cast<size_t>(block.y) * args.count + place];
    }

    // W·a of layer `l`, with as many features a thread as keep all threads busy.
    template <typename Done>
    DEVICE void product(int t, const LayerPlan& layer, const T* a, Done done) const {
        const T* w = weights + layer.packed;
        const int m = layer.outputs, k = layer.inputs, ldw = layer.packed_ld, log = plan.tile_log;
        // Eight features of double precision, or with 64-bit addresses, would not fit the registers.
        constexpr int MOST = Shared && sizeof(T) == 4 ? 8 : 4;
        switch (features_a_thread(m, log, plan.threads, MOST)) {
            case 8: multiply<MOST>(t, plan.threads, w, ldw, m, k, a, plan.ld, log, done); break;
            case 4: multiply<4>(t, plan.threads, w, ldw, m, k, a, plan.ld, log, done); break;
            case 2: multiply<2>(t, plan.threads, w, ldw, m, k, a, plan.ld, log, done); break;
            default: multiply<1>(t, plan.threads, w, ldw, m, k, a, plan.ld, log, done);
        }
    }

    // A hidden layer: product and bias, normalisation, activation, residual. ReLU and identity are done where the product
    // is stored; longer functions have a phase of their own, or they would take the product's registers.
    DEVICE void forward(int l) const {
        const LayerPlan& layer = plan.layer[l];
        const T* a = activations(l);
        const T* skip = layer.skip_from >= 0 ? activations(layer.skip_from) : nullptr;
        T* out = shared + layer.output;
        T* kept = Gradient && layer.kept >= 0 ? shared + layer.kept : nullptr;
        const T* bias = weights + layer.vectors;
        const int ld = plan.ld;
        const bool relu = plan.activation == RELU, simple = relu || plan.activation == IDENTITY;
        const bool at_once = simple && layer.norm < 0;
        FOR_THREADS(t, block) {
            product(t, layer, a, [=](int o, int r, Four<T> z) {
                const int at = o * ld + r;
                const T b = bias[o];
                UNROLL
                for (int q = 0; q < 4; ++q) z.v[q] += b;
                if (at_once && relu) {
                    if (kept != nullptr) {
                        Four<T> slope;
                        UNROLL
                        for (int q = 0; q < 4; ++q) slope.v[q] = z.v[q] > T(0) ? T(1) : T(0);
                        store_four(kept + at, slope);
                    }
                    UNROLL
                    for (int q = 0; q < 4; ++q) z.v[q] = z.v[q] < T(0) ? T(0) : z.v[q];
                }
                if (at_once && skip != nullptr) {
                    const Four<T> old = load_four(skip + at);
                    UNROLL
                    for (int q = 0; q < 4; ++q) z.v[q] += old.v[q];
                }
                store_four(out + at, z);
            });
        }
        if (layer.norm >= 0) {
            normalise(layer, skip, kept);
        } else if (!at_once) {
            activate_all(layer, skip, kept);
        }
    }

    // Activation and residual of what stands in the layer's output.
    DEVICE void activate_all(const LayerPlan& layer, const T* skip, T* kept) const {
        T* out = shared + layer.output;
        FOR_THREADS(t, block) {
            for (int i = t; i < layer.outputs << plan.tile_log; i += plan.threads) {
                const int at = (i >> plan.tile_log) * plan.ld + (i & ((1 << plan.tile_log) - 1));
                T slope;
                const T value = activate(plan.activation, out[at], slope);
                out[at] = skip == nullptr ? value : value + skip[at];
                if (kept != nullptr) kept[at] = slope;
            }
        }
    }

    // Layer normalisation of what stands in the layer's output, a row a thread; then activation and residual.
    DEVICE void normalise(const LayerPlan& layer, const T* skip, T* kept) const {
        const int m = layer.outputs, ld = plan.ld, padded = up_to_four(m);
        T* out = shared + layer.output;
        T* hat = shared + layer.hat;
        const T* scale = weights + layer.vectors + padded;
        FOR_THREADS(t, block) {
            for (int r = t; r < 1 << plan.tile_log; r += plan.threads) {
                T mean = T(0), square = T(0);
                for (int o = 0; o < m; ++o) mean += out[o * ld + r];
                mean /= T(m);
                for (int o = 0; o < m; ++o) {
                    const T off = out[o * ld + r] - mean;
                    square = fused(off, off, square);
                }
                const T rstd = T(1) / root_of(square / T(m) + T(NORM_EPSILON));
                shared[layer.rstd + r] = rstd;
                for (int o = 0; o < m; ++o) {
                    const T h = (out[o * ld + r] - mean) * rstd;
                    T slope;
                    T value = activate(plan.activation, fused(scale[o], h, scale[padded + o]), slope);
                    if (skip != nullptr) value += skip[o * ld + r];
                    hat[o * ld + r] = h;
                    out[o * ld + r] = value;
                    if (kept != nullptr) kept[o * ld + r] = slope;
                }
            }
        }
    }

    // The output layer: product and bias, then the loss, and its gradient in the outputs' place.
    DEVICE void finish(int begin, int used) const {
        const LayerPlan& layer = plan.layer[plan.layers - 1];
        const T* bias = weights + layer.vectors;
        T* out = shared + layer.output;
        const int m = layer.outputs, ld = plan.ld;
        FOR_THREADS(t, block) {
            product(t, layer, activations(plan.layers - 1), [=](int o, int r, Four<T> z) {
                const T b = bias[o];
                UNROLL
                for (int q = 0; q < 4; ++q) z.v[q] += b;
                store_four(out + o * ld + r, z);
            });
        }
        const T half = T(plan.half), width = T(plan.width);
        const T weight = T(1.0 / (static_cast<double>(args.count) * m));
        FOR_THREADS(t, block) {
            T sum = T(0);
            for (int i = t; i < m << plan.tile_log; i += plan.threads) {
                const int o = i >> plan.tile_log, r = i & ((1 << plan.tile_log) - 1);
                T slope = T(0);
                if (r < used) {
                    const T y = args.y[static_cast<size_t>(row_of(begin + r)) * m + o];
                    sum += loss_of(plan.loss, half, width, out[o * ld + r] - y, slope);
                }
                if (Gradient) out[o * ld + r] = weight * slope;
            }
            losses[t] += static_cast<double>(sum);
        }
    }

    // ∂/∂scale and ∂/∂shift, then the gradient through the normalisation, in place.
    DEVICE void normalise_gradient(const LayerPlan& layer, bool first) const {
        const int m = layer.outputs, ld = plan.ld, rows = 1 << plan.tile_log, padded = up_to_four(m);
        T* d = shared + layer.output;
        const T* hat = shared + layer.hat;
        const T* scale = weights + layer.vectors + padded;
        FOR_THREADS(t, block) {
            for (int o = t; o < m; o += plan.threads) {
                T along = T(0), sum = T(0);
                for (int r = 0; r < rows; ++r) {
                    along = fused(d[o * ld + r], hat[o * ld + r], along);
                    sum += d[o * ld + r];
                }
                T* to = grad + layer.norm + o;
                to[0] = first ? along : to[0] + along;
                to[m] = first ? sum : to[m] + sum;
            }
        }
        FOR_THREADS(t, block) {
            for (int r = t; r < rows; r += plan.threads) {
                T mean = T(0), along = T(0);
                for (int o = 0; o < m; ++o) {
                    const T g = scale[o] * d[o * ld + r];
                    mean += g;
                    along = fused(g, hat[o * ld + r], along);
                }
                mean /= T(m);
                along /= T(m);
                const T rstd = shared[layer.rstd + r];
                for (int o = 0; o < m; ++o) {
                    const T g = scale[o] * d[o * ld + r];
                    d[o * ld + r] = (g - mean - hat[o * ld + r] * along) * rstd;
                }
            }
        }
    }

    // The gradient of layer `l`'s parameters from that of its pre-activations.
    DEVICE void parameters(int l, bool first) const {
        const LayerPlan& layer = plan.layer[l];
        const int m = layer.outputs, k = layer.inputs, ld = plan.ld, rows = 1 << plan.tile_log;
        const int threads = plan.threads;
        const T* d = shared + layer.output;
        const T* a = activations(l);
        T* to = grad + layer.weight;
        FOR_THREADS(t, block) {
            if (2 * divide_up(m, 4) * divide_up(k, 4) >= threads) {
                multiply_outer<4, 4>(t, threads, d, a, ld, rows, m, k, to, first);
            } else if (2 * divide_up(m, 2) * divide_up(k, 2) >= threads) {
                multiply_outer<2, 2>(t, threads, d, a, ld, rows, m, k, to, first);
            } else {
                multiply_outer<1, 1>(t, threads, d, a, ld, rows, m, k, to, first);
            }
            for (int o = t; layer.bias >= 0 && o < m; o += threads) {
                T sum = T(0);
                for (int r = 0; r < rows; r += 4) {
                    const Four<T> four = load_four(d + o * ld + r);
                    sum += (four.v[0] + four.v[1]) + (four.v[2] + four.v[3]);
                }
                T* b = grad + layer.bias + o;
                *b = first ? sum : *b + sum;
            }
        }
    }

    // From the gradient at layer `l`'s pre-activations to that at the pre-activations of the layer below.
    DEVICE void backward(int l) const {
        const LayerPlan& layer = plan.layer[l];
        const LayerPlan& below = plan.layer[l - 1];
        const int ld = plan.ld, activation = plan.activation;
        const T* d = shared + layer.output;
        T* out = shared + below.output;
        const T* kept = below.kept >= 0 ? shared + below.kept : nullptr;
        // What came along a residual connection from above, and what goes on along one from here.
        const T* from_above = below.skip_into != 0 ? shared + plan.pending : nullptr;
        T* onward = below.skip_from > 0 ? shared + plan.pending : nullptr;
        auto done = [=](int f, int r, Four<T> delta) {
            const int at = f * ld + r;
            if (from_above != nullptr) {
                const Four<T> more = load_four(from_above + at);
                UNROLL
                for (int q = 0; q < 4; ++q) delta.v[q] += more.v[q];
            }
            if (onward != nullptr) store_four(onward + at, delta);
            if (kept != nullptr) {
                const Four<T> slope = load_four(kept + at);
                UNROLL
                for (int q = 0; q < 4; ++q) delta.v[q] *= slope.v[q];
            } else {
                const Four<T> a = load_four(out + at);
                UNROLL
                for (int q = 0; q < 4; ++q) delta.v[q] = through(activation, delta.v[q], a.v[q]);
            }
            store_four(out + at, delta);
        };
        const T* w = weights + layer.packed;
        const int m = layer.outputs, k = layer.inputs, ldw = layer.packed_ld, log = plan.tile_log;
        FOR_THREADS(t, block) {
            if (sizeof(T) == 4 && (divide_up(k, 8) << (log - 2)) >= plan.threads) {
                multiply_transposed<sizeof(T) == 4 ? 2 : 1>(t, plan.threads, w, ldw, m, k, d, ld, log, done);
            } else {
                multiply_transposed<1>(t, plan.threads, w, ldw, m, k, d, ld, log, done);
            }
        }
        if (below.norm >= 0) normalise_gradient(below, first_tile);
    }

    bool first_tile = true;

    DEVICE void run() {
        FOR_THREADS(t, block) {
            if (Shared) {
                pack(t, plan.threads, plan, args.w + static_cast<size_t>(block.y) * plan.dim, shared + plan.weights);
            }
            losses[t] = 0.0;
        }
        const int rows = 1 << plan.tile_log;
        const int end = at_most(args.count, (block.x + 1) * plan.segment);
        for (int begin = block.x * plan.segment; begin < end; begin += rows) {
            const int used = at_most(rows, end - begin);
            load_rows(begin, used);
            for (int l = 0; l + 1 < plan.layers; ++l) forward(l);
            finish(begin, used);
            if (Gradient) {
                for (int l = plan.layers - 1; l >= 0; --l) {
                    parameters(l, first_tile);
                    if (l > 0) backward(l);
                }
            }
            first_tile = false;
        }
        for (int half = plan.threads / 2; half > 0; half /= 2) {
            FOR_THREADS(t, block) {
                if (t < half) losses[t] += losses[t + half];
            }
        }
        FOR_THREADS(t, block) {
            if (t == 0) args.loss[static_cast<size_t>(block.y) * args.segments + block.x] = losses[0];
        }
    }
};

// Weights of one chain, packed into global memory.
template <typename T>
DEVICE void pack_chain(const Block& block, const NetworkPlan& plan, const T* w, T* packed) {
    FOR_THREADS(t, block) {
        pack(t, block.threads, plan, w + static_cast<size_t>(block.y) * plan.dim,
             packed + static_cast<size_t>(block.y) * plan.packed_len);
    }
}

// Number i of a chain's gradient: eight sums of every eighth segment, then by halving.
template <typename T>
DEVICE T sum_of_segments(const T* grads, size_t chain, int segments, int dim, int i) {
    T sum[8];
    UNROLL
    for (int q = 0; q < 8; ++q) sum[q] = T(0);
    for (int s = 0; s < segments; s += 8) {
        UNROLL
        for (int q = 0; q < 8; ++q) {
            if (s + q < segments) sum[q] += grads[(chain * segments + s + q) * dim + i];
        }
    }
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

DEVICE double sum_of_losses(const double* losses, size_t chain, int segments) {
    double sum = 0.0;
    for (int s = 0; s < segments; ++s) sum += losses[chain * segments + s];
    return sum;
}

// Sums the segments of a chain, each number of the gradient by one thread. The loss, times `scale` = 1/(count·outputs), is
// thread 0's of the chain's first block.
template <typename T>
DEVICE void reduce(const Block& block, int dim, int segments, double scale, const T* grads, const double* losses, T* grad,
                   double* loss) {
    const size_t chain = block.y;
    FOR_THREADS(t, block) {
        const int i = block.x * block.threads + t;
        if (i < dim && grads != nullptr) grad[chain * dim + i] = sum_of_segments(grads, chain, segments, dim, i);
        if (i == 0) loss[chain] = sum_of_losses(losses, chain, segments) * scale;
    }
}

}  // namespace lambda_hat
