// The timed C-simulation's door to Python, beside bridge.cpp.
#include "clock.hpp"

namespace spvit {
namespace timing {

Clock& clock() {
    static Clock instance;
    return instance;
}

}  // namespace timing
}  // namespace spvit

/// Sets what the next run assumes and where it reports: steps [num_steps], loading first, storing last.
extern "C" __attribute__((visibility("default"))) void spvit_configure_clock(const spvit::timing::Settings* settings,
                                                                             spvit::timing::StepCycles* steps,
                                                                             std::int32_t num_steps) {
    spvit::timing::clock().configure(*settings, steps, num_steps);
}

/// Cycles so far.
extern "C" __attribute__((visibility("default"))) std::int64_t spvit_clock() { return spvit::timing::clock().now(); }
