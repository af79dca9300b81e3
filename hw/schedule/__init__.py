"""Whether synthesis can start an iteration every cycle: the generated loops, scheduled in the open.

frontend   sources -> LLVM IR, pragmas as marks in it
ir         its text, read: functions, blocks, instructions, debug information
layout     what lies where in a variable: arrays, fields, their names
graph      a pipelined loop as operations and dependences
delays     how long each operation takes, by several models
solve      least initiation interval, shortest period, depth, critical recurrence
"""
