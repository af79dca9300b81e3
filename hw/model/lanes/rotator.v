// N lanes turned by any amount: one row of multiplexers per bit. hls_templates/memory.hpp
module rotator #(parameter N = 64) (
    input clk, input [16*N-1:0] lanes, input [$clog2(N)-1:0] amount, output reg [16*N-1:0] turned
);
    localparam LEVELS = $clog2(N);
    wire [16*N-1:0] row [0:LEVELS];
    assign row[0] = lanes;
    genvar level;
    generate
        for (level = 0; level < LEVELS; level = level + 1) begin : rows
            localparam TURN = 16 << level;
            assign row[level+1] = amount[level] ? {row[level][TURN-1:0], row[level][16*N-1:TURN]} : row[level];
        end
    endgenerate
    always @(posedge clk) turned <= row[LEVELS];
endmodule
