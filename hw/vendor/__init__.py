"""AMD's tools: the scripts that drive them, running them, reading what they report.

scripts (Tcl and cfg) ─► tools (find and run) ─► reports (read) ─► findings (what was lost) ─► synth (the command)
"""
