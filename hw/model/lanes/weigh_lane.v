// One lane of the token packager: probability times value, added to the sum of the dropped tokens.
module weigh_lane(
    input clk, input dropped_any, input signed [23:0] probability, input signed [15:0] x, input signed [47:0] old,
    output reg signed [47:0] sum
);
    wire signed [41:0] product;
    multiply #(.A(24), .B(18)) dsp(.clk(clk), .a(probability), .b({{2{x[15]}}, x}), .p(product));
    always @(posedge clk) sum <= (dropped_any ? old : 48'sd0) + product;
endmodule
