// One DSP48E2, as HLS binds a multiplication of at most 27 x 18 bits with its registers.
(* blackbox *)
module multiply #(parameter A = 27, parameter B = 18) (
    input clk, input signed [A-1:0] a, input signed [B-1:0] b, output signed [A+B-1:0] p
);
endmodule
