// One column of the array: the inner product of N activations and N weights, added to the token's accumulator.
// Fast: (a[j] + w[j+h]) (a[j+h] + w[j]), one sum in the DSP's pre-adder, one in fabric; pairs of products in the DSPs' own
// adders. A register after every second adder: at 200 MHz a cycle has room for two.
module column #(parameter N = 64, parameter FAST = 1) (
    input clk,
    input [16*N-1:0] a, input [16*N-1:0] w,
    input first, input signed [47:0] term, input signed [47:0] accumulator,
    output reg signed [47:0] sum
);
    localparam PRODUCTS = FAST ? N / 2 : N;
    localparam PAIRS = PRODUCTS / 2;
    // what leaves the chains of two DSPs
    wire signed [47:0] chain [0:PAIRS-1];
    genvar i;
    generate
        for (i = 0; i < PAIRS; i = i + 1) begin : dsps
            if (FAST) begin
                fast_pair pair(.clk(clk),
                    .a0(a[16*(2*i) +: 16]), .w0(w[16*(2*i+N/2) +: 16]), .b0(a[16*(2*i+N/2) +: 16]), .v0(w[16*(2*i) +: 16]),
                    .a1(a[16*(2*i+1) +: 16]), .w1(w[16*(2*i+1+N/2) +: 16]), .b1(a[16*(2*i+1+N/2) +: 16]), .v1(w[16*(2*i+1) +: 16]),
                    .sum(chain[i]));
            end else begin
                direct_pair pair(.clk(clk), .a0(a[16*(2*i) +: 16]), .w0(w[16*(2*i) +: 16]),
                    .a1(a[16*(2*i+1) +: 16]), .w1(w[16*(2*i+1) +: 16]), .sum(chain[i]));
            end
        end
    endgenerate
    // the adder tree, as wide as its sums need
    localparam LEVELS = $clog2(PAIRS);
    genvar level;
    generate
        for (level = 0; level <= LEVELS; level = level + 1) begin : tree
            localparam COUNT = PAIRS >> level;
            localparam WIDTH = (FAST ? 35 : 33) + level;
            reg signed [WIDTH-1:0] s [0:COUNT-1];
            for (i = 0; i < COUNT; i = i + 1) begin : node
                if (level == 0) always @* s[i] = chain[i][WIDTH-1:0];
                else begin
                    wire signed [WIDTH-1:0] both;
                    adder #(WIDTH-1) add(tree[level-1].s[2*i], tree[level-1].s[2*i+1], both);
                    if (level % 2 == 1) always @* s[i] = both;
                    else always @(posedge clk) s[i] <= both;
                end
            end
        end
    endgenerate
    reg signed [47:0] partial;
    always @(posedge clk) begin
        partial <= tree[LEVELS].s[0] - term;
        sum <= (first ? 48'sd0 : accumulator) + partial;
    end
endmodule

// Two DSP48E2 with pre-adders, the second adding the first one's product: the C++ asks HLS for this, so it is given here as
// black boxes and the sums in fabric beside them.
module fast_pair(input clk, input signed [15:0] a0, w0, b0, v0, a1, w1, b1, v1, output signed [47:0] sum);
    reg signed [16:0] right0, right1;
    always @(posedge clk) begin
        right0 <= b0 + v0;
        right1 <= b1 + v1;
    end
    wire signed [47:0] first;
    pre_adder_dsp dsp0(.clk(clk), .a(a0), .d(w0), .b(right0), .c(48'd0), .p(first));
    pre_adder_dsp dsp1(.clk(clk), .a(a1), .d(w1), .b(right1), .c(first), .p(sum));
endmodule

module direct_pair(input clk, input signed [15:0] a0, w0, a1, w1, output signed [47:0] sum);
    wire signed [47:0] first;
    pre_adder_dsp dsp0(.clk(clk), .a(a0), .d(16'd0), .b({w0[15], w0}), .c(48'd0), .p(first));
    pre_adder_dsp dsp1(.clk(clk), .a(a1), .d(16'd0), .b({w1[15], w1}), .c(first), .p(sum));
endmodule

(* blackbox *)
module pre_adder_dsp(input clk, input signed [15:0] a, d, input signed [16:0] b, input signed [47:0] c,
                     output signed [47:0] p);
endmodule
