// Three numbers of W bits in as many LUTs as two: each LUT compresses a bit of them, and adds what the LUT below carries
// (US patent 7,274,211; Vivado infers it from a + b + c). `skip` leaves a out, SUB subtracts c.
module adder3 #(parameter W = 32, parameter OUT = W + 2, parameter SUB = 0) (
    input signed [W-1:0] a, b, c, input skip, output [OUT-1:0] sum
);
    wire [OUT-1:0] wide_a = a, wide_b = b, wide_c = c;
    localparam CHAINS = (OUT + 7) / 8;
    wire [8*CHAINS:0] majority, propagate, total;
    wire [CHAINS:0] carry;
    assign majority[0] = SUB;
    assign carry[0] = 1'b0;
    genvar i;
    generate
        for (i = 0; i < 8 * CHAINS; i = i + 1) begin : bits
            if (i < OUT) begin
                // I2 inverted for SUB; O5 the majority, O6 the sum with the carry from below
                LUT6_2 #(.INIT(SUB ? 64'h3CC39669_0C0C8E8E : 64'hC33C6996_C0C0E8E8)) lut(
                    .I0(wide_a[i]), .I1(wide_b[i]), .I2(wide_c[i]), .I3(majority[i]), .I4(skip), .I5(1'b1),
                    .O5(majority[i+1]), .O6(propagate[i]));
            end else begin
                assign majority[i+1] = 1'b0;
                assign propagate[i] = 1'b0;
            end
        end
        for (i = 0; i < CHAINS; i = i + 1) begin : chains
            wire [7:0] out;
            CARRY8 chain(.CI(carry[i]), .CI_TOP(1'b0), .DI(majority[8*i +: 8]), .S(propagate[8*i +: 8]),
                         .O(total[8*i +: 8]), .CO(out));
            assign carry[i+1] = out[7];
        end
    endgenerate
    assign sum = total[OUT-1:0];
endmodule
