"""nft's nouns and verbs: tables, chains, sets, elements, transactions, the plan. Pure."""
