// One DSP48E2 with its adder behind the multiplier.
(* blackbox *)
module multiply_add #(parameter A = 27, parameter B = 18, parameter P = 48) (
    input clk, input signed [A-1:0] a, input signed [B-1:0] b, input signed [47:0] c, output signed [P-1:0] p
);
endmodule
