"""nftables' vocabulary: tables, chains, sets, elements, transactions. Independent of kproxy's table. Pure."""
