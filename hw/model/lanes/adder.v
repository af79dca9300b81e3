// Two numbers of W bits. A module of its own, so that no tool merges a tree's levels into something else than carry chains.
module adder #(parameter W = 32) (input signed [W-1:0] a, b, output signed [W:0] sum);
    assign sum = a + b;
endmodule
