// Drop `shift` bits, rounding half to even, then saturate: hls_templates/fixed_point.hpp.
module requantize #(parameter IN = 48, parameter OUT = 16, parameter SHIFT = 6) (
    input clk, input signed [IN-1:0] acc, input [SHIFT-1:0] shift, output reg signed [OUT-1:0] value
);
    // the bit that becomes the last one, and the rounding that goes below it
    reg signed [IN-1:0] wide, rounded;
    reg [SHIFT-1:0] s1, s2;
    reg [IN-1:0] rounding;
    wire [IN-1:0] half = (48'd1 << shift) >> 1;
    wire last = acc >> shift;
    always @(posedge clk) begin
        wide <= acc;
        rounding <= half - ((shift != 0) & ~last);
        s1 <= shift;
        rounded <= wide + rounding;
        s2 <= s1;
    end
    reg signed [IN-1:0] shifted;
    always @(posedge clk) shifted <= rounded >>> s2;
    wire fits = &shifted[IN-1:OUT-1] | ~|shifted[IN-1:OUT-1];
    always @(posedge clk) value <= fits ? shifted[OUT-1:0] : {shifted[IN-1], {(OUT-1){~shifted[IN-1]}}};
endmodule
