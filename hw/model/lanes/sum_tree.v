// N lanes of W bits to at most LEFT sums, three at a time, a register after each row; no sum is wider than MOST bits.
module sum_tree #(
    parameter N = 64, parameter W = 16, parameter LEFT = 1, parameter MOST = W + $clog2(N)
) (
    input clk, input [W*N-1:0] lanes, output [MOST*LEFT-1:0] sum
);
    localparam GROUPS = (N + 2) / 3;
    localparam NEXT = W + 2 < MOST ? W + 2 : MOST;
    genvar i;
    generate
        if (N <= LEFT) begin
            for (i = 0; i < LEFT; i = i + 1) begin : done
                if (i < N) assign sum[MOST*i +: MOST] = {{(MOST-W){lanes[W*i+W-1]}}, lanes[W*i +: W]};
                else assign sum[MOST*i +: MOST] = {MOST{1'b0}};
            end
        end else begin
            reg [NEXT*GROUPS-1:0] next;
            for (i = 0; i < GROUPS; i = i + 1) begin : row
                wire [NEXT-1:0] both;
                if (3 * i + 2 < N) begin
                    adder3 #(.W(W), .OUT(NEXT)) add(.a(lanes[W*3*i +: W]), .b(lanes[W*(3*i+1) +: W]),
                                                    .c(lanes[W*(3*i+2) +: W]), .skip(1'b0), .sum(both));
                end else if (3 * i + 1 < N) begin
                    wire signed [W:0] two;
                    adder #(W) add(lanes[W*3*i +: W], lanes[W*(3*i+1) +: W], two);
                    assign both = {{(NEXT-W){two[W]}}, two[W-1:0]};
                end else begin
                    assign both = {{(NEXT-W){lanes[W*3*i+W-1]}}, lanes[W*3*i +: W]};
                end
                always @(posedge clk) next[NEXT*i +: NEXT] <= both;
            end
            sum_tree #(.N(GROUPS), .W(NEXT), .LEFT(LEFT), .MOST(MOST)) rest(.clk(clk), .lanes(next), .sum(sum));
        end
    endgenerate
endmodule
