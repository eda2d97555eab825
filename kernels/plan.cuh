// What a network pass must know of its network: made by the planner on the host, handed to the kernel by value.
//
// All offsets count numbers, not bytes. Blocks of activations are feature-major with `ld` numbers a feature; the number
// of features is rounded up to a multiple of four, and what is above the true number is 0. The planner's twin of these
// two structures must have the same fields in the same order.
#pragma once

namespace lambda_hat {

constexpr int MAX_LAYERS = 24;

struct LayerPlan {
    int inputs;
    int outputs;
    int weight;     // offset of W in w, outputs × inputs, row-major
    int bias;       // offset of b in w, or -1
    int norm;       // offset of scale and shift in w, or -1
    int skip_from;  // activation that is added to this layer's, or -1; 0 is x
    int skip_into;  // whether a later layer adds this layer's activation to its own (0 or 1)
    int packed;     // offset of W in the packed weights, rows of `packed_ld`
    int packed_ld;  // an odd multiple of four, so that neighbouring rows lie in other banks
    int vectors;    // offset of b, scale and shift in the packed weights, outputs rounded up to four each
    int output;     // offset of the layer's activations in shared memory
    int kept;       // offset of φ', or -1 where it can be told from the output
    int hat;        // offset of the normalised values, or -1
    int rstd;       // offset of 1/σ of each row, or -1
};

struct NetworkPlan {
    int layers;
    int dim;
    int inputs;
    int outputs;
    int activation;
    int loss;
    int tile_log;       // log₂ of the rows of a tile
    int ld;             // leading dimension of a block of activations
    int segment;        // rows of one block of threads, a multiple of the tile
    int threads;
    int packed_len;     // packed weights of a chain
    int weights_shared; // whether they stand in shared memory (1) or in global memory (0)
    int weights;        // their offset in shared memory
    int input;          // offset of x
    int pending;        // offset of the gradient on its way along a residual connection, or -1
    int losses;         // offset, in bytes, of one double a thread
    int shared_bytes;
    int padding;
    double half;
    double width;
    LayerPlan layer[MAX_LAYERS];
};

}  // namespace lambda_hat
