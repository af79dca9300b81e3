// One lane of LayerNorm: (C x - sum) * rstd, of up to 1,023 channels. hls_templates/prologue.hpp
module norm_lane(
    input clk, input [9:0] channels, input signed [15:0] x, input signed [26:0] sum, input signed [17:0] mantissa,
    input [5:0] amount, output signed [15:0] z
);
    // two bits of the factor at a time: 0, x, 2 x or 3 x
    function signed [17:0] multiple(input [1:0] bits, input signed [15:0] one, input signed [17:0] three);
        multiple = bits == 0 ? 18'sd0 : bits == 1 ? {{2{one[15]}}, one} : bits == 2 ? {one[15], one, 1'b0} : three;
    endfunction
    reg signed [15:0] x1, x2;
    reg signed [17:0] triple, triple2;
    reg signed [20:0] low;
    reg signed [26:0] scaled, centred;
    always @(posedge clk) begin
        x1 <= x;
        x2 <= x1;
        triple <= x + (x <<< 1);
        triple2 <= triple;
        low <= (multiple(channels[3:2], x1, triple) <<< 2) + multiple(channels[1:0], x1, triple);
        scaled <= (low + (multiple(channels[5:4], x2, triple2) <<< 4))
            + ((multiple(channels[7:6], x2, triple2) <<< 6) + (multiple(channels[9:8], x2, triple2) <<< 8));
        centred <= scaled - sum;
    end
    wire signed [44:0] product;
    multiply #(.A(27), .B(18)) dsp(.clk(clk), .a(centred), .b(mantissa), .p(product));
    requantize #(.IN(45), .OUT(16), .LEAST(3), .AMOUNT(6)) round(.clk(clk), .acc(product), .amount(amount), .value(z));
endmodule
