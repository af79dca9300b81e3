// One lane of softmax: 2^(score - maximum), with up to 10 fraction bits; the table of 1024 entries is a block RAM beside it.
// hls_templates/functions.hpp
module exp_lane #(parameter LANE = 37) (
    input clk, input [3:0] tile, input [9:0] tokens, input signed [15:0] maximum, score, input [3:0] up,
    output [9:0] fraction, input [17:0] power, output reg [15:0] p
);
    reg [16:0] t;
    reg [26:0] aligned;
    always @(posedge clk) begin
        t <= maximum - score;
        aligned <= {10'd0, t} << up;
    end
    assign fraction = aligned[9:0];
    reg [3:0] whole1, whole2;
    reg small1, small2, small3;
    reg valid;
    always @(posedge clk) begin
        valid <= 64 * tile + LANE < tokens;
        whole1 <= aligned[13:10];  // while the table is read
        whole2 <= whole1;
        small1 <= ~|aligned[26:14];
        small2 <= small1;
        small3 <= small2;
    end
    wire signed [15:0] rounded;
    requantize #(.IN(19), .OUT(16), .LEAST(3), .AMOUNT(4)) round(.clk(clk), .acc({1'b0, power}), .amount(whole2), .value(rounded));
    always @(posedge clk) p <= valid & small3 ? rounded : 16'd0;
endmodule
