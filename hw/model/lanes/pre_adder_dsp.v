// One DSP48E2 with its pre-adder and its adder: (a + d) b + c.
(* blackbox *)
module pre_adder_dsp(input clk, input signed [15:0] a, d, input signed [16:0] b, input signed [47:0] c,
                     output signed [47:0] p);
endmodule
