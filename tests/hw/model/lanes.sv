// Puts each line of numbers on a lane's inputs, waits until its registers have settled, and prints what comes out.
// The primitives that yosys leaves as cells, and the tables beside the lanes, stand here as behaviour.
module LUT6_2 #(parameter [63:0] INIT = 64'd0) (input I0, I1, I2, I3, I4, I5, output O5, O6);
    assign O6 = INIT[{I5, I4, I3, I2, I1, I0}];
    assign O5 = INIT[{1'b0, I4, I3, I2, I1, I0}];
endmodule

module CARRY8(input CI, CI_TOP, input [7:0] DI, S, output [7:0] O, CO);
    wire [8:0] carry;
    assign carry[0] = CI;
    genvar i;
    generate
        for (i = 0; i < 8; i = i + 1) begin : bits
            assign O[i] = S[i] ^ carry[i];
            assign carry[i+1] = S[i] ? carry[i] : DI[i];
            assign CO[i] = carry[i+1];
        end
    endgenerate
endmodule

module multiply #(parameter A = 27, parameter B = 18) (
    input clk, input signed [A-1:0] a, input signed [B-1:0] b, output signed [A+B-1:0] p
);
    assign p = a * b;
endmodule

module multiply_add #(parameter A = 27, parameter B = 18, parameter P = 48) (
    input clk, input signed [A-1:0] a, input signed [B-1:0] b, input signed [47:0] c, output signed [P-1:0] p
);
    wire signed [47:0] sum = a * b + c;
    assign p = sum[P-1:0];
endmodule

module pre_adder_dsp(input clk, input signed [15:0] a, d, input signed [16:0] b, input signed [47:0] c,
                     output signed [47:0] p);
    wire signed [16:0] left = a + d;
    wire signed [33:0] product = left * b;
    assign p = product + c;
endmodule

module bench;
    reg clk = 0;
    always #1 clk = ~clk;

    reg [63:0] given [0:39];
    reg [63:0] in [0:39];
    integer k;
    always @(posedge clk) for (k = 0; k < 40; k = k + 1) in[k] <= given[k];
    reg [18:0] gelu_base [0:255];
    reg [14:0] gelu_slope [0:255];
    reg [17:0] exp_table [0:1023];

    wire [7:0] segment;
    wire signed [15:0] value;
    wire signed [31:0] square;
    epilogue_lane epilogue(.clk(clk), .is_gelu(in[0][0]), .is_context(in[1][0]), .is_residual(in[2][0]), .sum(in[3][47:0]),
        .residual(in[4][15:0]), .amount(in[5][3:0]), .residual_shift(in[6][2:0]), .second_amount(in[7][2:0]),
        .mantissa(in[8][17:0]), .up(in[9][3:0]), .segment(segment), .base(gelu_base[segment]), .slope(gelu_slope[segment]), .value(value),
        .square(square));

    wire signed [15:0] z;
    norm_lane norm(.clk(clk), .channels(in[0][9:0]), .x(in[1][15:0]), .sum(in[2][26:0]), .mantissa(in[3][17:0]),
        .amount(in[4][5:0]), .z(z));

    wire [9:0] fraction;
    wire [15:0] p;
    exp_lane exponential(.clk(clk), .tile(in[0][3:0]), .tokens(in[1][9:0]), .maximum(in[2][15:0]), .score(in[3][15:0]), .up(in[4][3:0]),
        .fraction(fraction), .power(exp_table[fraction]), .p(p));

    wire [255:0] a, w;
    genvar i;
    generate
        for (i = 0; i < 16; i = i + 1) begin : lanes
            assign a[16*i +: 16] = in[4+i][15:0];
            assign w[16*i +: 16] = in[20+i][15:0];
        end
    endgenerate
    wire signed [47:0] fast, direct;
    column #(.N(16), .FAST(1)) fast_column(.clk(clk), .a(a), .w(w), .first(in[0][0]), .term(in[1][47:0]), .bias(in[2][47:0]),
        .accumulator(in[3][47:0]), .sum(fast));
    column #(.N(16), .FAST(0)) direct_column(.clk(clk), .a(a), .w(w), .first(in[0][0]), .term(in[1][47:0]), .bias(in[2][47:0]),
        .accumulator(in[3][47:0]), .sum(direct));
    wire signed [19:0] total;
    sum_tree #(.N(16), .W(16)) tree(.clk(clk), .lanes(a), .sum(total));
    wire signed [15:0] largest;
    max_tree #(.N(16)) maximum(.clk(clk), .scores(a), .tile(in[0][6:0]), .tokens(in[1][9:0]), .largest(largest));

    integer source, count, j, read;
    initial begin
        $readmemh("gelu_base.hex", gelu_base);
        $readmemh("gelu_slope.hex", gelu_slope);
        $readmemh("exp.hex", exp_table);
        source = $fopen("vectors.txt", "r");
        read = $fscanf(source, "%d", count);
        while (count > 0) begin
            for (j = 0; j < 40; j = j + 1) given[j] = 0;
            for (j = 0; j < count; j = j + 1) read = $fscanf(source, "%d", given[j]);
            repeat (40) @(posedge clk);
            $display("= %0d %0d %0d %0d %0d %0d %0d %0d", value, square, z, p, fast, direct, total, largest);
            read = $fscanf(source, "%d", count);
        end
        $finish;
    end
endmodule
