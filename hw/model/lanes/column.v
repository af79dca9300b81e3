// One column of the array: the inner product of N activations and N weights, and what the tile adds, added to the token's
// accumulator. Fast: (a[j] + w[j+h]) (a[j+h] + w[j]), one sum in the DSP's pre-adder, one in fabric; pairs of products in
// the DSPs' own adders, their sums three at a time. hls_templates/inner_product.hpp, engine.hpp
module column #(parameter N = 64, parameter FAST = 1) (
    input clk,
    input [16*N-1:0] a, input [16*N-1:0] w,
    input first, input signed [47:0] term, input signed [47:0] bias, input signed [47:0] accumulator,
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
    // the adder tree, as wide as its sums need; the last two sums meet the activations' term, theirs what the tile adds
    localparam WIDTH = FAST ? 35 : 33;
    localparam MOST = WIDTH + $clog2(PAIRS);
    wire [WIDTH*PAIRS-1:0] leaves;
    generate
        for (i = 0; i < PAIRS; i = i + 1) begin : leaf
            assign leaves[WIDTH*i +: WIDTH] = chain[i][WIDTH-1:0];
        end
    endgenerate
    wire [MOST*2-1:0] last;
    sum_tree #(.N(PAIRS), .W(WIDTH), .LEFT(2), .MOST(MOST)) tree(.clk(clk), .lanes(leaves), .sum(last));
    wire signed [47:0] left = {{(48-MOST){last[MOST-1]}}, last[MOST-1:0]};
    wire signed [47:0] right = {{(48-MOST){last[2*MOST-1]}}, last[MOST +: MOST]};
    wire [47:0] partial_now, sum_now;
    reg signed [47:0] partial;
    adder3 #(.W(48), .OUT(48), .SUB(1)) less(.a(left), .b(right), .c(term), .skip(1'b0), .sum(partial_now));
    adder3 #(.W(48), .OUT(48)) gather(.a(accumulator), .b(partial), .c(bias), .skip(first), .sum(sum_now));
    always @(posedge clk) begin
        partial <= partial_now;
        sum <= sum_now;
    end
endmodule

// Two DSP48E2 with pre-adders, the second adding the first one's product: the C++ asks HLS for this, so it is given here as
// black boxes, and beside them the sums in fabric and a register for what the second takes a cycle later. (Activations wait
// once for all columns.)
module fast_pair(input clk, input signed [15:0] a0, w0, b0, v0, a1, w1, b1, v1, output signed [47:0] sum);
    reg signed [16:0] right0, right1_now, right1;
    reg signed [15:0] w1_now;
    always @(posedge clk) begin
        right0 <= b0 + v0;
        right1_now <= b1 + v1;
        right1 <= right1_now;
        w1_now <= w1;
    end
    wire signed [47:0] first;
    pre_adder_dsp dsp0(.clk(clk), .a(a0), .d(w0), .b(right0), .c(48'd0), .p(first));
    pre_adder_dsp dsp1(.clk(clk), .a(a1), .d(w1_now), .b(right1), .c(first), .p(sum));
endmodule

module direct_pair(input clk, input signed [15:0] a0, w0, a1, w1, output signed [47:0] sum);
    reg signed [15:0] w1_now;
    always @(posedge clk) w1_now <= w1;
    wire signed [47:0] first;
    pre_adder_dsp dsp0(.clk(clk), .a(a0), .d(16'd0), .b({w0[15], w0}), .c(48'd0), .p(first));
    pre_adder_dsp dsp1(.clk(clk), .a(a1), .d(16'd0), .b({w1_now[15], w1_now}), .c(first), .p(sum));
endmodule
