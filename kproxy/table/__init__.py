"""kproxy's own table: its chains and maps, its keys, and the plan that changes it. Pure."""
