// Drop LEAST + amount bits, rounding half to even, then saturate: hls_templates/fixed_point.hpp.
module requantize #(parameter IN = 48, parameter OUT = 16, parameter LEAST = 8, parameter AMOUNT = 4) (
    input clk, input signed [IN-1:0] acc, input [AMOUNT-1:0] amount, output reg signed [OUT-1:0] value
);
    wire signed [OUT+1:0] short_;
    wire inexact, too_large, negative;
    cut #(.IN(IN), .W(OUT + 2), .GUARD(1), .LEAST(LEAST), .AMOUNT(AMOUNT)) cut_(
        .clk(clk), .acc(acc), .amount(amount), .value(short_), .inexact(inexact), .too_large(too_large), .negative(negative));
    wire signed [OUT+1:0] nearest;
    round_half_even #(.W(OUT + 2), .GUARD(1)) round(.value(short_), .inexact(inexact), .nearest(nearest));
    wire signed [OUT-1:0] clamped;
    saturate #(.W(OUT + 2), .OUT(OUT)) clamp(.x(nearest), .too_large(too_large), .negative(negative), .value(clamped));
    always @(posedge clk) value <= clamped;
endmodule
