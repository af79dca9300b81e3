// One lane of the way out: bias, residual, requantize, and the shared multiplier: GELU | division | square.
// hls_templates/epilogue.hpp
module epilogue_lane(
    input clk,
    input is_gelu, is_context, is_residual,
    input signed [47:0] sum, input signed [47:0] bias, input signed [15:0] residual,
    input [5:0] shift, input [5:0] residual_shift, input [4:0] frac_shift, input [5:0] second_shift,
    input signed [17:0] mantissa,
    output reg signed [15:0] value, output signed [44:0] square
);
    reg signed [47:0] biased, aligned, total;
    always @(posedge clk) begin
        biased <= sum + bias;
        aligned <= is_residual ? {{32{residual[15]}}, residual} << residual_shift : 48'd0;
        total <= biased + aligned;
    end
    wire signed [26:0] wide;
    requantize #(.IN(48), .OUT(27)) first(.clk(clk), .acc(total), .shift(shift), .value(wide));
    wire narrow_fits = &wide[26:15] | ~|wide[26:15];
    reg signed [26:0] rounded;
    always @(posedge clk) rounded <= is_context | narrow_fits ? wide : {{12{wide[26]}}, {15{~wide[26]}}};

    // GELU's segment: 160 of them, 32 per unit up to 5
    wire [16:0] magnitude = rounded[15] ? -{rounded[15], rounded[15:0]} : {rounded[15], rounded[15:0]};
    reg [30:0] position;
    always @(posedge clk) position <= magnitude << frac_shift;
    wire inside = position[30:14] < 5;
    reg [32:0] rom [0:255];  // base 18 bits, slope 15
    initial $readmemh("gelu.hex", rom);
    reg [32:0] segment;
    always @(posedge clk) segment <= inside ? rom[position[16:9]] : 33'd0;
    reg [8:0] remainder;
    always @(posedge clk) remainder <= inside ? position[8:0] : 9'd0;

    reg signed [26:0] left;
    reg signed [17:0] right;
    always @(posedge clk) begin
        left <= is_gelu ? {{12{segment[14]}}, segment[14:0]} : rounded;
        right <= is_gelu ? {9'd0, remainder} : is_context ? mantissa : rounded[17:0];
    end
    wire signed [44:0] product;
    multiply #(.A(27), .B(18)) dsp(.clk(clk), .a(left), .b(right), .p(product));
    assign square = product;

    reg signed [45:0] positive, above, gelu;
    always @(posedge clk) begin
        positive <= rounded[15] ? 46'd0 : {30'd0, rounded[15:0]} << frac_shift;
        above <= positive - {segment[32:15], 9'd0};
        gelu <= above - product;
    end
    reg signed [45:0] last;
    always @(posedge clk) last <= is_gelu ? gelu : product;
    wire signed [15:0] second;
    requantize #(.IN(46), .OUT(16)) final_(.clk(clk), .acc(last), .shift(second_shift), .value(second));
    always @(posedge clk) value <= is_gelu | is_context ? second : rounded[15:0];
endmodule
