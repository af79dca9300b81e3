// One lane of LayerNorm: (C x - sum) * rstd. hls_templates/prologue.hpp
module norm_lane(
    input clk, input per_head, input signed [15:0] x, input signed [26:0] sum, input signed [17:0] mantissa,
    input [5:0] amount, output signed [15:0] z
);
    reg signed [26:0] scaled, centred;  // up to 1,024 channels
    always @(posedge clk) begin
        scaled <= per_head ? x * 64 : x * 384;
        centred <= scaled - sum;
    end
    wire signed [44:0] product;
    multiply #(.A(27), .B(18)) dsp(.clk(clk), .a(centred), .b(mantissa), .p(product));
    requantize #(.IN(45), .OUT(16), .LEAST(3), .AMOUNT(6)) round(.clk(clk), .acc(product), .amount(amount), .value(z));
endmodule
