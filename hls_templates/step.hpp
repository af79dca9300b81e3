// One step of the program: mostly a pass of the matrix engine. hw/program.py writes the table, run_program walks it.
#ifndef SPVIT_STEP_HPP
#define SPVIT_STEP_HPP

#include <cstdint>

namespace spvit {

enum class Op : std::uint8_t {
    ENGINE,   // a pass: source x weights -> destination
    POOL,     // mean over the candidates of what the last pass left
    DECIDE,   // token_selector's decision
    PACKAGE,  // token_packager
    IDLE      // nothing but filling the next step's first tile
};

enum class Buffer : std::uint8_t { X, WORK, V };

enum class Prologue : std::uint8_t {
    NONE,
    LAYER_NORM,       // over the row
    HEAD_LAYER_NORM,  // over one head's slice of the row
    SOFTMAX,          // 2^(score - row maximum), keys that are no tokens masked
    CONCAT            // lanes from `split` on come from the pooled features
};

enum class Weights : std::uint8_t {
    STREAM,  // from DDR, in order of use
    K,       // column = a token's key
    V        // column = a dimension of the values, over the tokens
};

enum class Rows : std::uint8_t {
    ALL,
    PATCHES,     // all but the prefix
    CANDIDATES,  // patches that are no package
    FIRST        // row 0: the class token
};

enum class Epilogue : std::uint8_t {
    STORE,
    RESIDUAL,  // add the row of X, gather LayerNorm's statistics
    GELU,
    SCORES,  // keep the row maximum
    CONTEXT  // divide by the row's sum of exponentials
};

/// Lanes are counted within a row of the buffer; WORK's rows are kBanks * kBankLanes wide.
struct Step {
    Op op;
    Rows rows;
    Buffer source;
    std::int32_t source_lane;
    Prologue prologue;
    std::int32_t split;  // CONCAT: first pooled lane
    std::int32_t head;   // HEAD_LAYER_NORM: whose statistics
    Weights weights;
    std::int32_t weights_lane;  // K, V: the head's first lane
    std::int32_t in_tiles;      // 0: the tokens
    std::int32_t out_tiles;     // 0: the tokens
    Epilogue epilogue;
    Buffer dest;
    std::int32_t dest_lane;
    bool pool;                    // sum what leaves, for the POOL step that follows
    std::int32_t shift;           // SCORES: accumulator -> score, less kMinShift; LAYER_NORM's is norm_shift
    std::int32_t norm_shift;      // fraction bits of the normalised row below the product's
    std::int64_t epsilon;         // beside C sum x^2 - (sum x)^2
    std::int32_t residual_shift;  // left, to kResidualGuardBits more fraction bits than the result has
    std::int32_t second_shift;    // GELU, CONTEXT: after the lane's multiplier
    std::int32_t frac_bits;       // DECIDE: of the scores
    std::int32_t aux_frac_bits;   // DECIDE: the head branch's
    std::int32_t threshold;       // DECIDE
    std::int32_t next_engine;     // the engine's next step after this one
};

}  // namespace spvit

#endif  // SPVIT_STEP_HPP
