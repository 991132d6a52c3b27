"""Makes the kernel hold what is wanted; `sync` does it once, `run` again and again."""
