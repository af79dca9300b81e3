// One lane of softmax: 2^(score - maximum), with 10 fraction bits; the table of 1024 entries is a block RAM beside it.
// hls_templates/functions.hpp
module exp_lane #(parameter LANE = 37) (
    input clk, input [3:0] tile, input [9:0] tokens, input signed [15:0] maximum, score,
    output [9:0] fraction, input [17:0] power, output reg [15:0] p
);
    reg [16:0] t;
    always @(posedge clk) t <= maximum - score;
    assign fraction = t[9:0];
    reg [6:0] whole1, whole2, whole3;
    reg valid;
    always @(posedge clk) begin
        valid <= 64 * tile + LANE < tokens;
        whole1 <= t[16:10];  // while the table is read
        whole2 <= whole1;
        whole3 <= whole2;
    end
    wire signed [15:0] rounded;
    requantize #(.IN(19), .OUT(16), .LEAST(3), .AMOUNT(4)) round(.clk(clk), .acc({1'b0, power}), .amount(whole2[3:0]), .value(rounded));
    always @(posedge clk) p <= valid & ~|whole3[6:4] ? rounded : 16'd0;
endmodule
