"""The page people look at: evidence (what lies in the build folder) ─► data ─► charts ─► page (the command)."""
