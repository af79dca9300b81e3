// The largest of N scores, those of no token left out.
module max_tree #(parameter N = 64) (
    input clk, input [16*N-1:0] scores, input [6:0] tile, input [9:0] tokens, output signed [15:0] largest
);
    localparam LEVELS = $clog2(N);
    genvar level, i;
    generate
        for (level = 0; level <= LEVELS; level = level + 1) begin : tree
            reg signed [15:0] s [0:(N>>level)-1];
            for (i = 0; i < (N >> level); i = i + 1) begin : node
                if (level == 0) always @* s[i] = tile * N + i < tokens ? scores[16*i +: 16] : 16'h8000;
                else always @(posedge clk) s[i] <= tree[level-1].s[2*i] > tree[level-1].s[2*i+1] ? tree[level-1].s[2*i] : tree[level-1].s[2*i+1];
            end
        end
    endgenerate
    assign largest = tree[LEVELS].s[0];
endmodule
