// 1/s or 1/sqrt(v): normalise, look up, interpolate, round. hls_templates/functions.hpp
module reciprocal #(parameter W = 55) (
    input clk, input [W-1:0] v, output reg signed [17:0] mantissa, output reg [5:0] exponent
);
    integer i;
    reg [5:0] first, e1, e2;
    always @* begin
        first = 0;
        for (i = 0; i < W; i = i + 1) if (v[i]) first = i;
    end
    reg [W-1:0] v1;
    reg [W+20:0] normal;
    always @(posedge clk) begin
        v1 <= v;
        e1 <= first;
        normal <= ({21'd0, v1} << 21) >> e1;
        e2 <= e1;
    end
    reg [46:0] rom [0:255];  // base 27 bits, slope 20, negative
    initial $readmemh("rsqrt.hex", rom);
    reg [46:0] segment;
    reg [12:0] remainder;
    reg [5:0] e3;
    always @(posedge clk) begin
        segment <= rom[normal[20:13]];
        remainder <= normal[12:0];
        e3 <= e2;
    end
    wire signed [44:0] product;
    multiply dsp(.clk(clk), .a({{7{segment[19]}}, segment[19:0]}), .b({5'd0, remainder}), .p(product));
    reg [47:0] value;
    always @(posedge clk) begin
        value <= {segment[46:20], 13'd0} + product;
        mantissa <= |value[47:40] ? 18'd131071 : value[39:23] + value[22];
        exponent <= e3;
    end
endmodule
