// acc / 2^(LEAST + amount) with GUARD fraction bits, of which W bits are kept: rows of multiplexers, the largest step first.
// hls_templates/fixed_point.hpp
module cut #(parameter IN = 48, parameter W = 29, parameter GUARD = 6, parameter LEAST = 8, parameter AMOUNT = 4) (
    input clk, input signed [IN-1:0] acc, input [AMOUNT-1:0] amount,
    output reg signed [W-1:0] value, output reg inexact, output reg too_large, output reg negative
);
    localparam DROP = LEAST - GUARD;
    localparam WIDTH = IN - DROP;
    wire signed [WIDTH-1:0] rest [0:AMOUNT];
    wire [AMOUNT:0] lost, over;
    assign rest[0] = acc >>> DROP;
    assign lost[0] = |acc[DROP-1:0];
    assign over[0] = 1'b0;
    genvar level;
    generate
        for (level = 0; level < AMOUNT; level = level + 1) begin : rows
            localparam STEP = 1 << (AMOUNT - 1 - level);
            localparam KEPT = W + STEP - 1 < WIDTH ? W + STEP - 1 : WIDTH;
            wire turn = amount[AMOUNT-1-level];
            wire signed [WIDTH-1:0] moved = turn ? rest[level] >>> STEP : rest[level];
            assign lost[level+1] = lost[level] | (turn & |rest[level][STEP-1:0]);
            assign over[level+1] = over[level] | ~(&moved[WIDTH-1:KEPT-1] | ~|moved[WIDTH-1:KEPT-1]);
            assign rest[level+1] = {{(WIDTH-KEPT){moved[KEPT-1]}}, moved[KEPT-1:0]};
        end
    endgenerate
    always @(posedge clk) begin
        value <= rest[AMOUNT];
        inexact <= lost[AMOUNT];
        too_large <= over[AMOUNT];
        negative <= acc[IN-1];
    end
endmodule
