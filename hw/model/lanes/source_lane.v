// One lane of the way in, around the functions: which memory it comes from, and which of the prologues it takes.
module source_lane(
    input clk,
    input [15:0] x, input [15:0] work0, work1, work2, work3, input from_x, input [1:0] bank,
    input [15:0] norm, input [15:0] exponential, input [15:0] pooled, input is_pooled, input [1:0] prologue,
    output reg [15:0] raw, output reg [15:0] factor
);
    always @(posedge clk) begin
        raw <= from_x ? x : bank == 0 ? work0 : bank == 1 ? work1 : bank == 2 ? work2 : work3;
        factor <= prologue == 1 ? norm : prologue == 2 ? exponential : prologue == 3 & is_pooled ? pooled : raw;
    end
endmodule
