// One lane of softmax: 2^(score - maximum), 64 segments, its small multiplication in LUTs. hls_templates/functions.hpp
module exp_lane(
    input clk, input valid, input signed [15:0] maximum, score, input [3:0] align, output reg [15:0] p
);
    reg [16:0] t;
    reg [27:0] aligned;
    always @(posedge clk) begin
        t <= maximum - score;
        aligned <= t << align;
    end
    reg [34:0] rom [0:63];  // base 20 bits, slope 15, negative
    initial $readmemh("exp.hex", rom);
    reg [34:0] segment;
    reg [3:0] remainder;
    reg [17:0] whole;
    always @(posedge clk) begin
        segment <= rom[aligned[9:4]];
        remainder <= aligned[3:0];
        whole <= aligned[27:10];
    end
    wire signed [18:0] product_now;
    small_product multiplication(.slope(segment[14:0]), .remainder(remainder), .product(product_now));
    reg signed [18:0] product;
    reg [24:0] value;
    reg [17:0] whole1, whole2;
    always @(posedge clk) begin
        product <= product_now;
        whole1 <= whole;
        value <= {segment[34:15], 4'd0} + product;
        whole2 <= whole1;
    end
    wire signed [15:0] rounded;
    requantize #(.IN(26), .OUT(16), .SHIFT(5)) round(.clk(clk), .acc({1'b0, value}), .shift(whole2[4:0]), .value(rounded));
    always @(posedge clk) p <= valid & ~|whole2[17:5] ? rounded : 16'd0;
endmodule

// 15 x 4 bits: two rows at a time, then their sum.
module small_product(input signed [14:0] slope, input [3:0] remainder, output signed [18:0] product);
    wire signed [16:0] low, high;
    gated_sum rows01(.slope(slope), .first(remainder[0]), .second(remainder[1]), .sum(low));
    gated_sum rows23(.slope(slope), .first(remainder[2]), .second(remainder[3]), .sum(high));
    assign product = low + (high <<< 2);
endmodule

module gated_sum(input signed [14:0] slope, input first, second, output signed [16:0] sum);
    assign sum = (first ? slope : 15'sd0) + (second ? slope <<< 1 : 16'sd0);
endmodule
