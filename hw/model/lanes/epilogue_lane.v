// One lane of the way out: residual, requantize, and the shared multiplier and adder: GELU | division | square. GELU's input
// has up to 14 fraction bits; its tables of 160 segments are block RAMs beside the lane. hls_templates/epilogue.hpp
module epilogue_lane(
    input clk,
    input is_gelu, is_context, is_residual,
    input signed [47:0] sum, input signed [15:0] residual,
    input [3:0] amount, input [2:0] residual_shift, input [2:0] second_amount, input [3:0] up,
    input signed [17:0] mantissa,
    output [7:0] segment, input signed [18:0] base, input signed [14:0] slope,
    output reg signed [15:0] value, output signed [31:0] square
);
    wire signed [28:0] short_;
    wire inexact, too_large, negative;
    cut #(.IN(48), .W(29), .GUARD(6), .LEAST(8), .AMOUNT(4)) first(
        .clk(clk), .acc(sum), .amount(amount), .value(short_), .inexact(inexact), .too_large(too_large), .negative(negative));
    reg signed [22:0] aligned;
    reg signed [29:0] total;
    reg inexact1, too_large1, negative1;
    always @(posedge clk) begin
        aligned <= is_residual ? {{7{residual[15]}}, residual} << residual_shift : 23'd0;
        total <= short_ + aligned;
        inexact1 <= inexact;
        too_large1 <= too_large;
        negative1 <= negative;
    end
    wire signed [24:0] nearest;
    round_half_even #(.W(30), .GUARD(6)) round(.value(total), .inexact(inexact1), .nearest(nearest));
    reg signed [24:0] nearest1;
    reg too_large2, negative2;
    always @(posedge clk) begin
        nearest1 <= nearest;
        too_large2 <= too_large1;
        negative2 <= negative1;
    end
    wire signed [15:0] clamped;
    saturate #(.W(25), .OUT(16)) clamp(.x(nearest1), .too_large(too_large2), .negative(negative2), .value(clamped));
    reg signed [22:0] rounded;
    always @(posedge clk) rounded <= is_context ? nearest1[22:0] : {{7{clamped[15]}}, clamped};

    // GELU's segment: 160 of them, 32 per unit up to 5
    wire [16:0] magnitude = rounded[15] ? -{rounded[15], rounded[15:0]} : {rounded[15], rounded[15:0]};
    reg [30:0] scaled, positive1;
    wire [16:0] position = scaled[16:0];
    wire in_table = scaled < 31'd81920;
    reg in_table1;
    reg negative3;
    reg [8:0] remainder;
    always @(posedge clk) begin
        scaled <= {14'd0, magnitude} << up;
        negative3 <= rounded[15];
        in_table1 <= in_table;
        remainder <= position[8:0];
        positive1 <= negative3 | ~is_gelu ? 31'd0 : scaled;
    end
    assign segment = position[16:9];

    wire signed [18:0] gated = is_gelu & in_table1 ? base : 19'sd0;
    reg signed [22:0] left;
    reg signed [17:0] right;
    reg signed [46:0] addend;
    always @(posedge clk) begin
        left <= is_gelu ? {{8{slope[14]}}, slope} : rounded;
        right <= is_gelu ? {9'd0, in_table1 ? remainder : 9'd0} : is_context ? mantissa : rounded[17:0];
        addend <= {1'b0, positive1, 15'd0} + {{19{gated[18]}}, gated, 9'd0};
    end
    wire signed [47:0] product;
    multiply_add #(.A(23), .B(18), .P(48)) dsp(.clk(clk), .a(left), .b(right), .c({addend[46], addend}), .p(product));
    assign square = product[31:0];

    wire signed [15:0] second;
    requantize #(.IN(48), .OUT(16), .LEAST(16), .AMOUNT(3)) final_(.clk(clk), .acc(product), .amount(second_amount), .value(second));
    always @(posedge clk) value <= is_gelu | is_context ? second : rounded[15:0];
endmodule
