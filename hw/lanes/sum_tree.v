// The sum of N lanes of W bits, a register after every second adder.
module sum_tree #(parameter N = 64, parameter W = 16) (
    input clk, input [W*N-1:0] lanes, output signed [W+$clog2(N)-1:0] sum
);
    localparam LEVELS = $clog2(N);
    genvar level, i;
    generate
        for (level = 0; level <= LEVELS; level = level + 1) begin : tree
            reg signed [W+level-1:0] s [0:(N>>level)-1];
            for (i = 0; i < (N >> level); i = i + 1) begin : node
                if (level == 0) always @* s[i] = lanes[W*i +: W];
                else begin
                    wire signed [W+level-1:0] both;
                    adder #(W+level-1) add(tree[level-1].s[2*i], tree[level-1].s[2*i+1], both);
                    if (level % 2 == 1) always @* s[i] = both;
                    else always @(posedge clk) s[i] <= both;
                end
            end
        end
    endgenerate
    assign sum = tree[LEVELS].s[0];
endmodule
