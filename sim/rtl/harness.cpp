// Clocks the skeleton until its program is done and prints the cycles.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "Vskeleton.h"
#include "verilated.h"

int main(int argc, char** argv) {
    VerilatedContext context;
    context.commandArgs(argc, argv);
    Vskeleton skeleton(&context);
    const std::uint64_t most = 1ULL << 27;
    for (std::uint64_t cycle = 0; cycle < most && !skeleton.done; ++cycle) {
        skeleton.clock = 0;
        skeleton.eval();
        skeleton.clock = 1;
        skeleton.eval();
    }
    if (!skeleton.done) {
        std::fprintf(stderr, "the skeleton did not come to an end\n");
        return 1;
    }
    std::printf("%llu\n", static_cast<unsigned long long>(skeleton.cycles));
    return 0;
}
